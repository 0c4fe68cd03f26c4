"""A transport inside one process: any number of brokers joined by queues on one reactor.

A lone broker uses it for having no neighbours at all; simulations use it for thousands. Delivery
is deferred by ``latency_s`` of the reactor's clock, so that no broker runs inside another's turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from flux_mpi.overlay.transport import Transport
from flux_mpi.reactor import Reactor


class Network:
    """Joins the loopback transports of one simulated machine."""

    def __init__(self, reactor: Reactor, hosts: list[str], latency_s: float = 0.0) -> None:
        self.reactor = reactor
        self.hosts = hosts
        self.latency_s = latency_s
        self.nodes: dict[int, LoopbackTransport] = {}
        self.delivered = 0

    def transport(self, rank: int, reactor: Reactor | None = None) -> LoopbackTransport:
        """The transport of ``rank``, which must not have one yet.

        What arrives is handed over by ``reactor`` (default: the network's).
        """
        node = self.nodes[rank] = LoopbackTransport(self, rank, reactor or self.reactor)
        return node

    def remove(self, rank: int) -> None:
        """Take ``rank`` away as a crash would: what it had queued is lost, its neighbours learn."""
        node = self.nodes.pop(rank, None)
        if node is None:
            return
        neighbours = [peer for peer in node.links if peer in self.nodes]
        node.close()
        for peer in neighbours:
            other = self.nodes[peer]
            other.reactor.call_later(self.latency_s, partial(other.peer_lost, rank))


class LoopbackTransport(Transport):
    """One rank's links in a ``Network``."""

    def __init__(self, network: Network, rank: int, reactor: Reactor) -> None:
        super().__init__()
        self.network = network
        self.reactor = reactor
        self.rank = rank
        self.size = len(network.hosts)
        self.hosts = network.hosts
        self.cards = [None] * self.size
        self.links: dict[int, list[bytes]] = {}
        self._dirty: set[int] = set()

    def connect(self, parent: int | None, children: Iterable[int]) -> None:
        if parent is not None:
            self.links[parent] = []
        for child in children:
            self.links[child] = []

    def send(self, peer: int, data: bytes) -> None:
        queue = self.links.get(peer)
        if queue is not None:
            queue.append(data)
            self._dirty.add(peer)

    def flush(self) -> None:
        if not self._dirty:
            return
        network = self.network
        delay_s = network.latency_s + self.reactor.lag_s
        for peer in sorted(self._dirty):
            queue = self.links.get(peer)
            other = network.nodes.get(peer)
            if queue and other is not None:
                data = b"".join(queue)
                queue.clear()
                other.reactor.call_later(delay_s, partial(other.arrive, self.rank, data))
        self._dirty.clear()

    def arrive(self, peer: int, data: bytes) -> None:
        """``data`` of ``peer`` has come through the network."""
        if peer in self.links:
            self.network.delivered += 1
            self.on_data(peer, data)

    def peer_lost(self, peer: int) -> None:
        """The network says that ``peer`` is gone."""
        if self.links.pop(peer, None) is not None:
            self.on_lost(peer, "removed")

    def backlog(self, peer: int) -> int:
        return sum(map(len, self.links.get(peer, ())))

    def drop(self, peer: int) -> None:
        self.links.pop(peer, None)
        self._dirty.discard(peer)

    def close(self) -> None:
        self.links.clear()
        self._dirty.clear()


def single(reactor: Reactor, host: str) -> LoopbackTransport:
    """The transport of an instance of one broker."""
    return Network(reactor, [host]).transport(0)
