"""Child instances on a simulated machine: the very hosts and cores, without MPI and sockets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flux_mpi.instance.hosting import Door, House
from flux_mpi.instance.node import Node
from flux_mpi.instance.world import Newborn
from flux_mpi.overlay.loopback import Network
from flux_mpi.overlay.transport import Transport
from flux_mpi.reactor.simulated import SimulatedReactor


class SimulatedMaker:
    """Makes networks instead of communicators; as there, it takes all members to make one."""

    limit = 1 << 30

    def __init__(self, reactor: SimulatedReactor, latency_s: float) -> None:
        self._reactor = reactor
        self._latency_s = latency_s
        self._arriving: dict[str, list[tuple[Newborn, Callable[[Transport | None, str], object]]]]
        self._arriving = {}

    def bell(self, folder: str) -> None:
        """Simulated neighbours need not be woken."""

    def make(
        self,
        birth: Newborn,
        mode: str,
        ticket: int,
        done: Callable[[Transport | None, str], object],
    ) -> None:
        """See ``world.Maker``."""
        here = self._arriving.setdefault(birth.key, [])
        here.append((birth, done))
        if len(here) < len(birth.members):
            return
        del self._arriving[birth.key]
        network = Network(self._reactor, birth.hosts, self._latency_s)
        for member, made in here:
            transport = network.transport(member.index, member.reactor)
            # In the member's own time: nobody runs inside another's turn.
            member.reactor.call_later(self._latency_s, partial(made, transport, ""))

    def free(self, transport: Transport, orderly: bool) -> None:
        """See ``world.Maker``."""
        transport.close()


class _NoDoor:
    def close(self) -> None:
        """Nobody came in."""


class SimulatedHouse(House):
    """A process of a simulated machine: without files."""

    def folder(self) -> str:
        return ""

    def remove(self, folder: str) -> None:
        """There is none."""

    def door(self, node: Node, folder: str) -> Door:
        return _NoDoor()
