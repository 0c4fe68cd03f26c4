"""A whole instance in one process: real brokers, simulated links, clock and tasks.

Only three objects differ from an instance under ``mpiexec``: the transport, the reactor and the
link to the supervisor. So what is measured or broken here is the code that runs there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

from flux_mpi.broker.service import ANY, Response
from flux_mpi.instance.hosting import Hosting
from flux_mpi.instance.node import Node, Settings
from flux_mpi.instance.world import World
from flux_mpi.message.errors import FluxError
from flux_mpi.overlay.loopback import Network
from flux_mpi.overlay.tree import DEFAULT_FANOUT, Tree
from flux_mpi.reactor.simulated import SimulatedReactor
from flux_mpi.resource.division import RankResources
from flux_mpi.sim.children import SimulatedHouse, SimulatedMaker
from flux_mpi.sim.lane import Lane, Lanes, Meter
from flux_mpi.sim.launcher import Duration, SimulatedLink, behaviour


class Machine:
    """``size`` brokers on ``nodes`` simulated nodes (default: one node each), all running."""

    def __init__(
        self,
        size: int,
        *,
        nodes: int | None = None,
        cores: int = 4,
        gpus: int = 0,
        fanout: int = DEFAULT_FANOUT,
        latency_s: float = 20e-6,
        config: dict[str, Any] | None = None,
        duration: Duration = behaviour,
        meter: Meter | None = None,
        spawn_s: float = 0.0,
    ) -> None:
        """``meter``: a clock by which brokers are charged for what their code takes (`lane.py`);
        ``spawn_s``: how long a rank's supervisor takes to start a task, one after the other."""
        nodes = nodes or size
        hosts = [f"node{rank * nodes // size}" for rank in range(size)]
        self.reactor = SimulatedReactor()
        self._lanes = Lanes(self.reactor, meter)
        self._spawn_s = spawn_s
        self.network = Network(self.reactor, hosts, latency_s)
        self.tree = Tree(hosts, fanout)
        self.left: dict[int, tuple[int, bool]] = {}
        self.said: list[str] = []
        self._maker = SimulatedMaker(self.reactor, latency_s)
        self.nodes: list[Node] = []
        self.links: list[SimulatedLink] = []
        settings = Settings(
            config=config, fanout=fanout, environ={"PATH": "/bin"}, boot_method="simulated"
        )
        for rank in range(size):
            self._add(rank, cores, gpus, settings, duration)
        for node in self.nodes:
            self._lane(node).call_soon(node.open)
        self.run(until=lambda: self.nodes[0].life.level == "run")

    def _add(
        self, rank: int, cores: int, gpus: int, settings: Settings, duration: Duration
    ) -> None:
        lane = self._lanes.lane()
        link = SimulatedLink(lane, duration, self._spawn_s)
        transport = self.network.transport(rank, lane)
        resources = RankResources(
            hostname=self.network.hosts[rank],
            cores=(frozenset[int](),) * cores,
            gpus=(),
            memory=0,
            binding=False,
        )
        node = Node(
            lane,
            transport,
            self.tree,
            link,  # type: ignore[arg-type]  # the same face, without a supervisor behind it
            resources,
            settings,
            rundir="",
            uri="",
            uid=os.getuid(),
            leave=lambda status, orderly: self._left(rank, status, orderly),
        )
        self.nodes.append(node)
        self.links.append(link)
        house = SimulatedHouse(lane, link, rundir="", uid=os.getuid(), say=self.said.append)  # type: ignore[arg-type]
        house.nodes[node] = None
        house.world = World(node.broker, self.network.hosts, self._maker)
        Hosting(house, node, range(len(self.network.hosts)))

    def _left(self, rank: int, status: int, orderly: bool) -> None:
        self.left[rank] = (status, orderly)
        node = self.nodes[rank]
        node.broker.transport.flush()
        node.reactor.stop()

    @staticmethod
    def _lane(node: Node) -> Lane:
        assert isinstance(node.reactor, Lane)
        return node.reactor

    # -- time -----------------------------------------------------------------------------------

    def run(self, seconds: float = 3600.0, until: Any = None) -> None:
        """Let virtual time pass until ``until()`` is true, nothing is left, or ``seconds`` passed.

        Raises TimeoutError when ``until`` did not come true.
        """
        end = self.reactor.monotonic() + seconds
        while until is None or not until():
            if self.reactor.monotonic() > end or not self.reactor.turn():
                if until is not None and not until():
                    raise TimeoutError(f"not within {seconds:g} s of simulated time")
                return

    # -- talking to it --------------------------------------------------------------------------

    def start_rpc(
        self, topic: str, payload: Any = None, *, rank: int = ANY, at: int = 0, stream: bool = False
    ) -> list[Response]:
        """Call a service from broker ``at``; the responses collect in the list returned."""
        responses: list[Response] = []
        node = self.nodes[at]
        node.broker.rpc(topic, payload, responses.append, rank=rank, streaming=stream)
        self._lane(node).touch()
        return responses

    def rpc(self, topic: str, payload: Any = None, *, rank: int = ANY, at: int = 0) -> Any:
        """Call and wait (in simulated time) for the answer. Raises FluxError, TimeoutError."""
        responses = self.start_rpc(topic, payload, rank=rank, at=at)
        self.run(until=lambda: bool(responses))
        return responses[0].check()

    def stream(self, topic: str, payload: Any = None, *, at: int = 0) -> Iterator[Any]:
        """Call a stream and wait for its end; the payloads. Raises FluxError."""
        responses = self.start_rpc(topic, payload, at=at, stream=True)
        self.run(until=lambda: bool(responses) and responses[-1].errnum != 0)
        if responses[-1].errnum != errno.ENODATA:
            raise FluxError(responses[-1].errnum, responses[-1].text)
        return iter([response.payload for response in responses[:-1]])

    def stream_some(self, topic: str, payload: Any = None, *, at: int = 0) -> Iterator[Any]:
        """As ``stream``, but hands out payloads as they come: leave early and it is cancelled."""
        responses: list[Response] = []
        node = self.nodes[at]
        call = node.broker.rpc(topic, payload, responses.append, streaming=True)
        self._lane(node).touch()
        try:
            while True:
                self.run(until=lambda: bool(responses))
                response = responses.pop(0)
                if response.errnum == errno.ENODATA:
                    return
                yield response.check()
        finally:
            call.cancel()
            self._lane(node).touch()

    def submit(
        self, jobspec: dict[str, Any], count: int = 1, *, urgency: int = 16, at: int = 0
    ) -> list[tuple[int, int]]:
        """Submit an array; the (first id, count) of what was made."""
        entries = [{"jobspec": jobspec, "count": count}]
        answer = self.rpc("job-ingest.submit", {"entries": entries, "urgency": urgency}, at=at)
        return [(first, n) for first, n in answer["arrays"]]

    def wait_all(self, arrays: Sequence[tuple[int, int]], *, at: int = 0) -> dict[int, int]:
        """Wait for jobs; wait status by id."""
        done: dict[int, int] = {}
        ids = [list(pair) for pair in arrays]
        for payload in self.stream("job-manager.wait-all", {"ids": ids}, at=at):
            done.update({entry[0]: entry[1] for entry in payload["done"]})
        return done

    # -- breaking it ----------------------------------------------------------------------------

    def remove(self, rank: int) -> None:
        """Take a broker away, as SIGKILL would."""
        lane = self.nodes[rank].reactor
        lane.stop()
        self.network.remove(rank)
