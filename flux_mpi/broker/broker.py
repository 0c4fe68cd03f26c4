"""The broker: one rank's router, services, events, attributes and log, tied to a transport.

Thin by intent: what to do with a message is the router's and the event log's business; how its
bytes travel is the transport's; when, the reactor's. The same class runs over MPI and over the
loopback transport of a simulation.
"""

from __future__ import annotations

import errno
import itertools
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from flux_mpi.broker.attributes import Attributes
from flux_mpi.broker.events import EventLog, Subscriber, Subscriptions
from flux_mpi.broker.logring import ERR, LogRing
from flux_mpi.broker.router import LOCAL, Router
from flux_mpi.broker.service import Handler, Request, Response, Rpc
from flux_mpi.message.codec import DEFAULT_LIMIT, FrameDecoder, encode
from flux_mpi.message.errors import FluxError, ProtocolError
from flux_mpi.message.message import (
    ANY,
    CONTROL,
    EVENT,
    NORESPONSE,
    REQUEST,
    RESPONSE,
    STREAMING,
    Message,
    pack,
)
from flux_mpi.overlay.transport import Transport
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor import Reactor

ClientSink = Callable[[int, Message], None]
ControlHandler = Callable[[Message, int], object]


class Broker:
    """One rank of an instance."""

    def __init__(
        self,
        reactor: Reactor,
        transport: Transport,
        tree: Tree,
        *,
        uid: int,
        frame_limit: int = DEFAULT_LIMIT,
    ) -> None:
        self.reactor = reactor
        self.transport = transport
        self.tree = tree
        self.rank = transport.rank
        self.size = transport.size
        self.uid = uid
        self.frame_limit = frame_limit
        self.attrs = Attributes()
        self.ring = LogRing()
        self.router = Router(self.rank, tree, self)
        self.events = EventLog()
        self.subscriptions = Subscriptions()
        self.parent = tree.parent(self.rank)
        self.children = set(tree.children(self.rank))
        self.on_peer_lost: list[Callable[[int, str], object]] = []
        self._clients: ClientSink = lambda client, message: None
        self._handlers: dict[str, dict[str, Handler]] = {}
        self._controls: dict[str, ControlHandler] = {}
        self._calls: dict[int, Rpc] = {}
        self._tags = itertools.count(1)
        self._decoders: dict[int, FrameDecoder] = {}
        self.counters = {"sent": 0, "received": 0, "events": 0}
        transport.on_data = self._from_peer
        transport.on_lost = self._peer_lost
        reactor.on_error = self._callback_failed
        self.control("cancel", lambda message, peer: self.router.cancel(message, peer))
        self.control("events-since", self._resend_events)

    def open(self) -> None:
        """Open the links to the neighbours; from now on messages flow."""
        self.transport.connect(self.parent, self.children)
        self.reactor.at_turn_end(self.transport.flush)

    # -- services -------------------------------------------------------------------------------

    def register(self, name: str, methods: Mapping[str, Handler]) -> None:
        """Offer ``name.method`` for each of ``methods``; more may be added later."""
        self.router.services[name] = LOCAL
        self._handlers.setdefault(name, {}).update(methods)

    def control(self, topic: str, handler: ControlHandler) -> None:
        """Call ``handler(message, peer)`` for control messages of neighbours."""
        self._controls[topic] = handler

    def attach_clients(self, sink: ClientSink) -> None:
        """Where messages to clients go."""
        self._clients = sink

    # -- calls ----------------------------------------------------------------------------------

    def rpc(
        self,
        topic: str,
        payload: Any,
        callback: Callable[[Response], object],
        *,
        rank: int = ANY,
        streaming: bool = False,
    ) -> Rpc:
        """Call a service anywhere; ``callback`` gets every response, errors too."""
        call = Rpc(next(self._tags), topic, callback, streaming, self._cancel_call)
        self._calls[call.tag] = call
        message = Message(
            REQUEST,
            topic,
            None if payload is None else pack(payload),
            flags=STREAMING if streaming else 0,
            tag=call.tag,
            target=rank,
            uid=self.uid,
        )
        self.router.request(message, None)
        return call

    def send(self, topic: str, payload: Any, *, rank: int = ANY) -> None:
        """Call a service that shall not answer."""
        packed = None if payload is None else pack(payload)
        self.router.request(
            Message(REQUEST, topic, packed, flags=NORESPONSE, target=rank, uid=self.uid), None
        )

    def send_control(self, peer: int, topic: str, payload: Any = None) -> None:
        """Tell a neighbour something that is between the two of us."""
        packed = None if payload is None else pack(payload)
        self.to_peer(peer, Message(CONTROL, topic, packed, uid=self.uid))

    def _cancel_call(self, call: Rpc) -> None:
        if self._calls.pop(call.tag, None) is not None:
            self.router.cancel(Message(CONTROL, "cancel", tag=call.tag), None)

    # -- events ---------------------------------------------------------------------------------

    def publish(self, topic: str, payload: Any) -> None:
        """Publish an event to the whole instance."""
        self.publish_packed(topic, None if payload is None else pack(payload), self.uid)

    def publish_packed(self, topic: str, payload: bytes | None, uid: int) -> int:
        """Publish an event whose payload is packed already; returns its number (root only)."""
        if self.parent is not None:
            message = Message(CONTROL, "publish", pack([topic, payload]), uid=uid)
            self.to_peer(self.parent, message)
            return 0
        event = self.events.number(topic, payload, uid)
        self._spread(event)
        return event.tag

    def subscribe(self, prefix: str, callback: Subscriber) -> Callable[[], None]:
        """Deliver events whose topic starts with ``prefix``; returns how to stop."""
        return self.subscriptions.add(prefix, callback)

    def _spread(self, event: Message) -> None:
        self.counters["events"] += 1
        for child in tuple(self.children):
            self.to_peer(child, event)
        self.subscriptions.deliver(event)

    def _event(self, event: Message, peer: int) -> None:
        if peer != self.parent:
            return
        deliver, ask = self.events.receive(event)
        if deliver:
            self._spread(event)
        elif ask is not None:
            self.send_control(peer, "events-since", ask)

    def _resend_events(self, message: Message, peer: int) -> None:
        for event in self.events.since(int(message.body)):
            self.to_peer(peer, event)

    # -- log ------------------------------------------------------------------------------------

    def log(self, level: int, component: str, text: str) -> None:
        """Write to the log ring; see ``broker.services`` for what is forwarded and shown."""
        self.ring.append((self.reactor.now(), level, component, self.rank, text))

    def _callback_failed(self, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error)).strip()
        self.log(ERR, "broker", f"a callback failed: {trace}")

    # -- the router's ways out ------------------------------------------------------------------

    def to_peer(self, rank: int, message: Message) -> None:
        """Outlet: a neighbour."""
        self.counters["sent"] += 1
        self.transport.send(rank, encode(message))

    def to_client(self, client: int, message: Message) -> None:
        """Outlet: a client of this broker."""
        self._clients(client, message)

    def to_caller(self, message: Message) -> None:
        """Outlet: the answer to a call of our own."""
        call = self._calls.get(message.tag)
        if call is None:
            return
        if message.errnum or not call.streaming:
            del self._calls[message.tag]
        call.callback(Response(message))

    def to_service(self, request: Request) -> None:
        """Outlet: a service of ours. What its handler raises becomes the answer."""
        message = request.message
        service, _, method = message.topic.rpartition(".")
        handler = self._handlers.get(service, {}).get(method)
        if handler is None:
            request.error(errno.ENOSYS, f"{message.topic}: the service has no such method")
            return
        try:
            handler(request)
        except FluxError as error:
            request.error(error.errno or errno.EPROTO, str(error))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            # Nearly always a payload of the wrong shape; the trace tells a defect of ours apart.
            self._callback_failed(error)
            request.error(
                errno.EPROTO, f"{message.topic}: {type(error).__name__}: {error} in the payload"
            )
        except Exception as error:  # one request must not take the broker down
            self._callback_failed(error)
            request.error(errno.EPROTO, f"{message.topic}: {type(error).__name__}: {error}")

    # -- what comes in --------------------------------------------------------------------------

    def from_client(self, client: int, uid: int, message: Message) -> None:
        """A message of a client. Route and uid are ours to say, never the client's."""
        self.counters["received"] += 1
        if message.kind == REQUEST:
            message.route = []
            message.uid = uid
            self.router.request(message, client)
        elif message.kind == RESPONSE:
            self.router.response(message, client)
        elif message.kind == CONTROL and message.topic == "cancel":
            message.route = []
            self.router.cancel(message, client)

    def client_gone(self, client: int) -> None:
        """A client of this broker disconnected."""
        self.router.client_gone(client)

    def _from_peer(self, peer: int, data: bytes) -> None:
        decoder = self._decoders.get(peer)
        if decoder is None:
            decoder = self._decoders[peer] = FrameDecoder(self.frame_limit + (1 << 20))
        try:
            messages = decoder.feed(data)
        except ProtocolError as error:
            self.transport.drop(peer)
            self._peer_lost(peer, f"sent garbage: {error}")
            return
        for message in messages:
            self.counters["received"] += 1
            kind = message.kind
            if kind == RESPONSE:
                self.router.response(message, peer)
            elif kind == REQUEST:
                self.router.request(message, peer)
            elif kind == EVENT:
                self._event(message, peer)
            elif message.topic == "publish":
                topic, payload = message.body
                self.publish_packed(topic, payload, message.uid)
            else:
                handler = self._controls.get(message.topic)
                if handler is not None:
                    handler(message, peer)

    def _peer_lost(self, peer: int, why: str) -> None:
        self.children.discard(peer)
        self._decoders.pop(peer, None)
        self.router.peer_gone(peer)
        for callback in self.on_peer_lost:
            callback(peer, why)
