"""The broker: one rank's router, services, events, attributes and log, tied to a transport.

Thin by intent: what to do with a message is the router's and the event log's business; how its
bytes travel is the transport's; when, the reactor's. The same class runs over MPI and over the
loopback transport of a simulation.
"""

from __future__ import annotations

import errno
import itertools
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
    FIRST_CLIENT,
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

FRAME_SLACK = 1 << 20
"""What a frame may hold besides its payload: its topic, and a route that grows on the way."""


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
        self.router = Router(self.rank, tree, self, payload_limit=frame_limit)
        self.parent = tree.parent(self.rank)
        self.children = set(tree.children(self.rank))
        self.events = EventLog() if self.children else EventLog(keep=0)
        self.subscriptions = Subscriptions(self._callback_failed)
        self.on_peer_lost: list[Callable[[int, str], object]] = []
        self.on_child_gone: list[Callable[[int], object]] = []
        """Called when a child was lost or has left, and with it all below it."""
        self.on_client_gone: list[Callable[[int], object]] = []
        self._clients: ClientSink = lambda client, message: None
        self.count_clients: Callable[[], int] = lambda: 0
        self._handlers: dict[str, dict[str, Handler]] = {}
        self._controls: dict[str, ControlHandler] = {}
        self._calls: dict[int, Rpc] = {}
        self._tags = itertools.count(1)
        self._decoders: dict[int, FrameDecoder] = {}
        self.counters = {"sent": 0, "received": 0, "events": 0}
        transport.on_data = self._from_peer
        transport.on_lost = self._peer_lost
        if reactor.on_error is None:
            reactor.on_error = self._callback_failed
        self.control("cancel", lambda message, peer: self.router.cancel(message, peer))
        self.control("events-since", self._resend_events)
        self.control("events-skip", self._skip_events)
        self.control("publish", self._publish_for)

    def open(self) -> None:
        """Open the links to the neighbours; from now on messages flow."""
        self.transport.connect(self.parent, self.children)
        self.reactor.at_turn_end(self.transport.flush)

    # -- services -------------------------------------------------------------------------------

    def register(self, name: str, methods: Mapping[str, Handler]) -> None:
        """Offer ``name.method`` for each of ``methods``, which may grow, and ``name.ping``."""
        self.router.services[name] = LOCAL
        self._handlers.setdefault(name, {"ping": self._ping}).update(methods)

    def _ping(self, request: Request) -> None:
        payload = request.payload if isinstance(request.payload, dict) else {}
        route = [hop for hop in request.message.route if hop < FIRST_CLIENT]
        request.respond({**payload, "rank": self.rank, "userid": request.uid, "route": route})

    def control(self, topic: str, handler: ControlHandler) -> None:
        """Call ``handler(message, peer)`` for control messages of neighbours."""
        self._controls[topic] = handler

    def attach_clients(self, sink: ClientSink, count: Callable[[], int]) -> None:
        """Where messages to clients go, and how many clients there are."""
        self._clients = sink
        self.count_clients = count

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
        """Call a service anywhere; ``callback`` gets every response, errors too.

        It may be called before this returns. Raises FluxError (EMSGSIZE) for too long a payload.
        """
        packed = self._pack(topic, payload)
        call = Rpc(next(self._tags), topic, callback, streaming, self._cancel_call)
        self._calls[call.tag] = call
        message = Message(
            REQUEST,
            topic,
            packed,
            flags=STREAMING if streaming else 0,
            tag=call.tag,
            target=rank,
            uid=self.uid,
        )
        self.router.request(message, None)
        return call

    def send(self, topic: str, payload: Any, *, rank: int = ANY) -> None:
        """Call a service that shall not answer. Raises FluxError (EMSGSIZE)."""
        packed = self._pack(topic, payload)
        self.router.request(
            Message(REQUEST, topic, packed, flags=NORESPONSE, target=rank, uid=self.uid), None
        )

    def send_control(self, peer: int, topic: str, payload: Any = None) -> None:
        """Tell a neighbour something that is between the two of us."""
        packed = None if payload is None else pack(payload)
        self.to_peer(peer, Message(CONTROL, topic, packed, uid=self.uid))

    def _pack(self, topic: str, payload: Any) -> bytes | None:
        packed = None if payload is None else pack(payload)
        self._check_size(topic, packed)
        return packed

    def _check_size(self, topic: str, packed: bytes | None) -> None:
        # The neighbour that got a longer one would have to hang up on us.
        if packed is not None and len(packed) > self.frame_limit:
            raise FluxError(
                errno.EMSGSIZE,
                f"{topic}: {len(packed)} bytes are over the limit of {self.frame_limit}",
            )

    def _cancel_call(self, call: Rpc) -> None:
        if self._calls.pop(call.tag, None) is not None:
            self.router.cancel(Message(CONTROL, "cancel", tag=call.tag), None)

    # -- events ---------------------------------------------------------------------------------

    def publish(self, topic: str, payload: Any) -> None:
        """Publish an event to the whole instance."""
        self.publish_packed(topic, None if payload is None else pack(payload), self.uid)

    def publish_packed(self, topic: str, payload: bytes | None, uid: int) -> int:
        """Publish an event whose payload is packed already; returns its number (root only).

        Raises FluxError (EMSGSIZE).
        """
        self._check_size(topic, payload)
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

    def _publish_for(self, message: Message, peer: int) -> None:
        topic, payload = message.body
        self.publish_packed(topic, payload, message.uid)

    def _resend_events(self, message: Message, peer: int) -> None:
        skip, events = self.events.since(int(message.body))
        if skip:
            self.send_control(peer, "events-skip", skip)
        for event in events:
            self.to_peer(peer, event)

    def _skip_events(self, message: Message, peer: int) -> None:
        if peer == self.parent:
            count = self.events.skip(int(message.body))
            self.log(ERR, "broker", f"{count} events are lost: rank {peer} no longer has them")

    # -- log ------------------------------------------------------------------------------------

    def log(self, level: int, component: str, text: str) -> None:
        """Write to the log ring, if ``level`` is one that is kept (attribute ``log-level``)."""
        if level <= int(self.attrs.get("log-level", "7")):
            self.ring.append((self.reactor.now(), level, component, self.rank, text))

    def _callback_failed(self, error: BaseException) -> None:
        import traceback  # half a megabyte that a healthy broker never needs

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
        try:
            call.callback(Response(message))
        except Exception as error:  # must not hit whoever happened to answer
            self._callback_failed(error)

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

    def close(self, request: Request) -> None:
        """Outlet: nobody waits for this request any more."""
        try:
            request.close()
        except Exception as error:  # others may have to be closed as well
            self._callback_failed(error)

    # -- what comes in --------------------------------------------------------------------------

    def from_client(self, client: int, uid: int, message: Message) -> None:
        """A message of a client. Route and uid are ours to say, never the client's."""
        self.counters["received"] += 1
        try:
            if message.kind == REQUEST:
                message.route = []
                message.uid = uid
                self.router.request(message, client)
            elif message.kind == RESPONSE:
                self.router.response(message, client)
            elif message.kind == CONTROL and message.topic == "cancel":
                message.route = []
                self.router.cancel(message, client)
        except Exception as error:  # the messages behind this one must still be taken
            self._callback_failed(error)

    def client_gone(self, client: int) -> None:
        """A client of this broker disconnected."""
        self.router.client_gone(client)
        for callback in self.on_client_gone:
            callback(client)

    def _from_peer(self, peer: int, data: bytes) -> None:
        decoder = self._decoders.get(peer)
        if decoder is None:
            decoder = self._decoders[peer] = FrameDecoder(self.frame_limit + FRAME_SLACK)
        try:
            messages = decoder.feed(data)
        except ProtocolError as error:
            self.transport.drop(peer)
            self._peer_lost(peer, f"sent garbage: {error}")
            return
        for message in messages:
            self.counters["received"] += 1
            try:
                self._take(message, peer)
            except Exception as error:  # the messages behind this one must still be taken
                self._callback_failed(error)

    def _take(self, message: Message, peer: int) -> None:
        kind = message.kind
        if kind == RESPONSE:
            self.router.response(message, peer)
        elif kind == REQUEST:
            self.router.request(message, peer)
        elif kind == EVENT:
            self._event(message, peer)
        else:
            handler = self._controls.get(message.topic)
            if handler is not None:
                handler(message, peer)

    def farewell(self, peer: int) -> None:
        """A neighbour leaves in good order: it answers nothing any more, and nothing is wrong.

        It is told, by the last message that it gets, so that none is on the way when it has ended.
        """
        self.children.discard(peer)
        self._decoders.pop(peer, None)
        self.router.peer_gone(peer, "has left")
        self.send_control(peer, "farewell")
        self.transport.release(peer)
        self._child_gone(peer)

    def _peer_lost(self, peer: int, why: str) -> None:
        self.children.discard(peer)
        self._decoders.pop(peer, None)
        self.router.peer_gone(peer)
        for callback in self.on_peer_lost:
            callback(peer, why)
        if peer != self.parent:
            self._child_gone(peer)

    def _child_gone(self, child: int) -> None:
        for callback in self.on_child_gone:
            callback(child)
