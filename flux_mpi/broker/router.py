"""Where each message goes: pure, given a tree and something to send through.

The router remembers every request it passed on or handed out until it is answered, so that a
lost neighbour, a departed client or a cancel turns into answers and closings at once (after
RFC 3's routing and RFC 6's disconnect rule).
"""

from __future__ import annotations

import errno
from typing import Protocol

from flux_mpi.broker.service import Request
from flux_mpi.message.message import (
    ANY,
    CONTROL,
    FIRST_CLIENT,
    NORESPONSE,
    REQUEST,
    STREAMING,
    UPSTREAM,
    Message,
)
from flux_mpi.overlay.tree import Tree

Key = tuple[tuple[int, ...], int]
"""What identifies an open request here: its route so far, and its tag."""

LOCAL = -2
"""Destination: a service of this broker itself."""

UNLIMITED = 1 << 62


class Outlet(Protocol):
    """The ways out of a router."""

    def to_peer(self, rank: int, message: Message) -> None:
        """Send to a neighbour in the tree."""

    def to_client(self, client: int, message: Message) -> None:
        """Send to a client of this broker."""

    def to_caller(self, message: Message) -> None:
        """A response to a call that this broker itself made."""

    def to_service(self, request: Request) -> None:
        """Hand a request to a service of this broker."""

    def close(self, request: Request) -> None:
        """Tell a service of this broker that nobody waits for ``request`` any more."""


class Flight:
    """A request that was passed on or handed out, and is not answered yet."""

    __slots__ = ("to", "source", "topic", "streaming", "request")

    def __init__(
        self, to: int, source: int | None, topic: str, streaming: bool, request: Request | None
    ) -> None:
        self.to = to
        self.source = source
        self.topic = topic
        self.streaming = streaming
        self.request = request


class Router:
    """Routes requests and responses for one rank.

    An answer of a local service that is longer than ``payload_limit`` bytes becomes an error: the
    neighbour or client that got it as it is would have to hang up.
    """

    def __init__(
        self, rank: int, tree: Tree, outlet: Outlet, *, payload_limit: int = UNLIMITED
    ) -> None:
        self.rank = rank
        self.tree = tree
        self.outlet = outlet
        self.parent = tree.parent(rank)
        self.services: dict[str, int] = {}
        """Service name → LOCAL or the client that offers it."""
        self.unreachable: set[int] = set()
        """Neighbours that are gone."""
        self.payload_limit = payload_limit
        self._flights: dict[Key, Flight] = {}
        self._of_client: dict[int, set[Key]] = {}
        self._providers: set[int] = set()
        self._hops: dict[int, int | None] = {}

    # -- services -------------------------------------------------------------------------------

    def offer(self, name: str, client: int) -> None:
        """Requests to service ``name`` go to ``client`` from now on."""
        self.services[name] = client
        self._providers.add(client)

    def withdraw(self, name: str) -> None:
        """Service ``name`` is no longer offered here; what it was asked may still be answered."""
        del self.services[name]

    # -- requests -------------------------------------------------------------------------------

    def request(self, message: Message, source: int | None) -> None:
        """Route a request that came from ``source`` (a neighbour, a client, None = this broker)."""
        if source is not None:
            message.route.append(source)
        target = message.target
        if message.flags & NORESPONSE and message.flags & STREAMING:
            return  # a contradiction, and nobody wants to hear of it
        if target == ANY:
            if message.flags & UPSTREAM:
                message.flags &= ~UPSTREAM
            else:
                owner = self._owner(message.topic)
                if owner is not None:
                    self._deliver(message, owner, source)
                    return
            if self.parent is None:
                self._refuse(message, errno.ENOSYS, f"{message.service}: no such service")
            else:
                self._forward(message, self.parent, source)
        elif target == self.rank:
            owner = self._owner(message.topic)
            if owner is None:
                self._refuse(
                    message, errno.ENOSYS, f"{message.service}: no such service on rank {self.rank}"
                )
            else:
                self._deliver(message, owner, source)
        elif not 0 <= target < self.tree.size:
            self._refuse(
                message,
                errno.EHOSTUNREACH,
                f"rank {target}: no such rank, the instance has 0-{self.tree.size - 1}",
            )
        else:
            if target not in self._hops:
                self._hops[target] = self.tree.next_hop(self.rank, target)
            hop = self._hops[target]
            assert hop is not None
            self._forward(message, hop, source)

    def _owner(self, topic: str) -> int | None:
        return self.services.get(topic.rpartition(".")[0] or topic)

    def _refuse(self, message: Message, errnum: int, text: str) -> None:
        if not message.flags & NORESPONSE:
            self._return(message.failure(errnum, text))

    def _forward(self, message: Message, peer: int, source: int | None) -> None:
        if peer in self.unreachable:
            what = f"rank {message.target}" if message.target >= 0 else message.topic
            self._refuse(message, errno.EHOSTUNREACH, f"{what}: rank {peer} on the way is gone")
            return
        if len(message.route) > self.tree.size:
            self._refuse(message, errno.ELOOP, f"{message.topic}: went round in circles")
            return
        if message.flags & NORESPONSE or self._open(message, peer, source, None):
            self.outlet.to_peer(peer, message)

    def _deliver(self, message: Message, owner: int, source: int | None) -> None:
        if owner == LOCAL:
            request = Request(message, self._answer)
            if message.flags & NORESPONSE or self._open(message, LOCAL, source, request):
                self.outlet.to_service(request)
        elif message.flags & NORESPONSE or self._open(message, owner, source, None):
            self.outlet.to_client(owner, message)

    def _open(self, message: Message, to: int, source: int | None, request: Request | None) -> bool:
        """Remember a request; False when its tag is taken, which ends both."""
        key = (tuple(message.route), message.tag)
        if key in self._flights:
            # No answer could be told from the other's any more.
            self._cancel(key)
            text = f"tag {message.tag} is used again while its request is open: both are ended"
            self._refuse(message, errno.EPROTO, f"{message.topic}: {text}")
            return False
        self._flights[key] = Flight(
            to, source, message.topic, bool(message.flags & STREAMING), request
        )
        if source is not None and source >= FIRST_CLIENT:
            self._of_client.setdefault(source, set()).add(key)
        return True

    def _land(self, key: Key) -> Flight | None:
        flight = self._flights.pop(key, None)
        if flight is not None and flight.source is not None and flight.source >= FIRST_CLIENT:
            keys = self._of_client.get(flight.source)
            if keys is not None:
                keys.discard(key)
        return flight

    # -- responses ------------------------------------------------------------------------------

    def _answer(self, message: Message) -> None:
        """A service of this broker answers."""
        size = len(message.payload or b"")
        if size <= self.payload_limit:
            self.response(message, LOCAL)
            return
        flight = self._flights.get((tuple(message.route), message.tag))
        text = f"{message.topic}: an answer of {size} bytes is over the limit of"
        self.response(
            message.failure(errno.EMSGSIZE, f"{text} {self.payload_limit}: ask for less"), LOCAL
        )
        if flight is not None and flight.request is not None:
            self.outlet.close(flight.request)

    def response(self, message: Message, source: int) -> None:
        """Route a response that came from ``source`` (a neighbour, a client, LOCAL).

        A response that nobody waits for, or not from there, is dropped: late, or forged.
        """
        key = (tuple(message.route), message.tag)
        flight = self._flights.get(key)
        if flight is None or flight.to != source:
            return
        if message.errnum or not flight.streaming:
            self._land(key)
        self._return(message)

    def _return(self, message: Message) -> None:
        if not message.route:
            self.outlet.to_caller(message)
            return
        hop = message.route.pop()
        if hop >= FIRST_CLIENT:
            self.outlet.to_client(hop, message)
        elif hop not in self.unreachable:
            self.outlet.to_peer(hop, message)

    # -- endings --------------------------------------------------------------------------------

    def cancel(self, message: Message, source: int | None) -> None:
        """The requester of ``message.tag`` wants no more answers."""
        if source is not None:
            message.route.append(source)
        self._cancel((tuple(message.route), message.tag))

    def _cancel(self, key: Key) -> None:
        flight = self._land(key)
        if flight is None:
            return
        if flight.request is not None:
            self.outlet.close(flight.request)
            return
        control = Message(CONTROL, "cancel", tag=key[1], route=list(key[0]))
        if flight.to >= FIRST_CLIENT:
            self.outlet.to_client(flight.to, control)
        elif flight.to not in self.unreachable:
            self.outlet.to_peer(flight.to, control)

    def client_gone(self, client: int) -> None:
        """A client disconnected: what it asked is cancelled, what it was asked fails."""
        for key in list(self._of_client.pop(client, ())):
            self._cancel(key)
        offered = [name for name, owner in self.services.items() if owner == client]
        for name in offered:
            del self.services[name]
        if client in self._providers:
            self._providers.discard(client)
            self._fail_flights(client, errno.ECONNRESET, "the client that offered it is gone")

    def peer_gone(self, peer: int, why: str = "was lost") -> None:
        """A neighbour is gone: everything under way there fails, everything from there ends."""
        self.unreachable.add(peer)
        for key, flight in list(self._flights.items()):
            if flight.source == peer:
                self._cancel(key)
        self._fail_flights(peer, errno.EHOSTUNREACH, f"rank {peer} {why}")

    def _fail_flights(self, to: int, errnum: int, why: str) -> None:
        for key, flight in list(self._flights.items()):
            if flight.to == to and key in self._flights:
                self._land(key)
                message = Message(REQUEST, flight.topic, tag=key[1], route=list(key[0]))
                self._return(message.failure(errnum, f"{flight.topic}: {why}"))

    @property
    def inflight(self) -> int:
        """Open requests known here."""
        return len(self._flights)
