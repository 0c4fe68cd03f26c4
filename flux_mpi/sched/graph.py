"""The default scheduler: one state, two doors.

As long as every request is nodes, cores and GPUs at fixed counts, and nothing is configured that
only a graph can say, the bitmap door alone works, and costs what it always did. The first request
that needs a graph makes the graph door (`graphdoor.py`): it takes over all that runs, and every
request goes through it, until nobody has asked for a graph for some time and nothing that did runs.
What the graph door is made of is loaded then and not before.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

from flux_mpi.formats.duration import format
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.base import Reservation, Scheduler
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.placement import Placement
from flux_mpi.sched.settings import GraphSettings
from flux_mpi.sched.tiered import Tier

if TYPE_CHECKING:
    from flux_mpi.resource.graph import ResourceGraph
    from flux_mpi.resource.owngraph import OwnGraph
    from flux_mpi.sched.graphdoor import GraphDoor

UNKNOWN = "waiting for the instance's resources"

LINGER_S = 10.0
"""How long after the last request for a graph the graph door stays open without need."""

FAR_S = 1e8
"""What starts in so many seconds starts when something without a limit ends."""


class GraphScheduler(Scheduler):
    """``source``: the graph that was read from a file, if one is configured."""

    plans: ClassVar[bool] = True

    def __init__(
        self,
        settings: GraphSettings | None = None,
        source: ResourceGraph | None = None,
        tier: Tier | None = None,
    ) -> None:
        self.settings = settings or GraphSettings()
        self.bitmap = BitmapScheduler(tier)
        self._source = source
        self._door: GraphDoor | None = None
        self._running: dict[int, tuple[Placement, float]] = {}
        """What the bitmap door placed, with its expected end."""
        self.linger_s = LINGER_S
        self._idle: GraphDoor | None = None
        """A graph door of these resources in which nothing runs."""
        self._asked = 0.0
        self._own: OwnGraph | None = None
        self._odd = IDSet()
        self._resources: RSet | None = None
        self._up = IDSet()
        self._now = 0.0
        self._reasons: dict[Shape, str | None] = {}

    @property
    def door(self) -> GraphDoor | None:
        """The graph door, once there is one."""
        return self._door

    # -- resources ------------------------------------------------------------------------------

    def update(self, resources: RSet, up: IDSet | None = None) -> None:
        """Raises OwnGraphError when a configured graph is not that of these resources."""
        self._reasons.clear()
        up = resources.ranks if up is None else up
        if self._source is not None:
            if self._own is not None:
                self._compare(resources, up)
                return
            resources = self._match(self._source, resources)
        self._up = up
        self._resources = resources
        self._idle = None
        again = self._door is not None
        if self._door is not None:
            self._running = {
                id(placement): (placement, end) for placement, end in self._door.running(self._now)
            }
            self._door = None
            self.bitmap = BitmapScheduler(self.bitmap.tier)
        self.bitmap.update(resources, up)
        if again or self._wants_graph():
            self._open()

    def _match(self, source: ResourceGraph, resources: RSet) -> RSet:
        """Make the configured graph that of the instance; returns R with its properties."""
        from flux_mpi.resource import owngraph

        own = self._own = owngraph.matched(source, resources)
        return RSet(
            resources.cores,
            resources.gpus,
            resources.hosts,
            properties={name: IDSet(at) for name, at in owngraph.properties(own).items()},
            expiration=resources.expiration,
        )

    def _compare(self, resources: RSet, up: IDSet) -> None:
        """A configured graph does not change: ranks that no longer are what it says get nothing."""
        first = self._resources
        assert first is not None
        self._odd = IDSet(
            rank
            for rank in first.ranks
            if resources.cores.get(rank) != first.cores[rank]
            or resources.gpus.get(rank) != first.gpus.get(rank)
        )
        self.set_up(up)

    def _wants_graph(self) -> bool:
        """Whether the graph door is needed whatever is asked for."""
        if not self.settings.usual or (self._own is not None and not self._own.plain):
            return True
        # Something runs on what is no longer there, and may come back with it still running: the
        # bitmap door would forget it.
        known = self._resources.ranks.mask if self._resources is not None else 0
        return any(placement.ranks_mask & ~known for placement, _ in self._running.values())

    def set_up(self, ranks: IDSet) -> None:
        self._up = ranks - self._odd
        self.bitmap.set_up(self._up)
        for door in (self._door, self._idle):
            if door is not None:
                door.set_up(self._up)

    def _made(self) -> GraphDoor:
        """The graph door, or one in which nothing runs, which is enough to tell what could."""
        if self._door is not None:
            return self._door
        if self._idle is None:
            from flux_mpi.resource import owngraph
            from flux_mpi.sched.graphdoor import GraphDoor

            assert self._resources is not None
            own = self._own or owngraph.from_rset(self._resources)
            self._idle = GraphDoor(own, self.bitmap.machine, self.settings)
            self._idle.set_up(self._up)
        return self._idle

    def _open(self) -> GraphDoor:
        """Let the graph door know all that runs, and be the one to ask from now on."""
        door = self._made()
        self._idle = None
        for placement, end in self._running.values():
            door.keep(placement, self._now, end)
        self._running.clear()
        self._door = door
        return door

    def _close(self, door: GraphDoor) -> None:
        """Go back to the bitmap door alone, with all that runs."""
        running = door.running(self._now)
        self._running = {id(placement): (placement, end) for placement, end in running}
        if self._wants_graph():
            self._running.clear()
            return
        assert self._resources is not None
        self.bitmap = BitmapScheduler(self.bitmap.tier)
        self.bitmap.update(self._resources, self._up)
        self.bitmap.take_over(running, self._now)
        door.free([placement for placement, _ in running])
        self._door, self._idle = None, door

    def _door_for(self, shape: Shape) -> GraphDoor | None:
        """The graph door if a request has to go through it."""
        if self._resources is None:
            return None
        door = self._door
        if shape.graph:
            self._asked = self._now
            return door or self._open()
        if door is not None and not door.needed and self._now - self._asked > self.linger_s:
            self._close(door)
        return self._door

    # -- requests -------------------------------------------------------------------------------

    def invalid(self, shape: Shape) -> str | None:
        return self.bitmap.invalid(shape)

    def feasible(self, shape: Shape) -> str | None:
        if not shape.graph:
            return self.bitmap.feasible(shape)
        if self._resources is None:
            return None
        if shape not in self._reasons:
            if len(self._reasons) >= 256:
                self._reasons.clear()
            self._reasons[shape] = self._made().infeasible(shape)
        return self._reasons[shape]

    def alloc(
        self, shape: Shape, count: int, now: float, duration: float | None = None
    ) -> list[Placement]:
        self._now = now
        door = self._door_for(shape) if self._door is not None or shape.graph else None
        if door is not None:
            return door.alloc(shape, count, now, duration)
        if shape.graph:
            return []  # nobody knows the resources yet
        found = self.bitmap.alloc(shape, count, now, duration)
        end = inf if duration is None else now + duration
        self._running.update([(id(placement), (placement, end)) for placement in found])
        return found

    def reserve(self, shape: Shape, now: float, duration: float = inf) -> Reservation | None:
        self._now = now
        door = self._door_for(shape)
        if door is not None:
            return door.reserve(shape, now, duration)
        return None if shape.graph else self.bitmap.reserve(shape, now, duration)

    def release(self, reservations: Iterable[Reservation]) -> None:
        if self._door is not None:
            self._door.release(reservations)  # those of the bitmap door are void by now
        else:
            self.bitmap.release(reservations)

    def free(self, placements: Iterable[Placement]) -> None:
        if self._door is not None:
            self._door.free(placements)
            return
        placements = list(placements)
        self.bitmap.free(placements)
        running = self._running
        for placement in placements:
            running.pop(id(placement), None)

    def hello(self, running: Iterable[Placement]) -> list[Placement]:
        running = list(running)
        if self._door is not None:
            return [each for each in running if not self._door.put(each, self._now, inf)]
        refused = self.bitmap.hello(running)
        bad = {id(each) for each in refused}
        for placement in running:
            if id(placement) not in bad:
                self._running[id(placement)] = (placement, inf)
        return refused

    # -- what can be told -----------------------------------------------------------------------

    def allocated(self) -> RSet:
        return self.bitmap.allocated() if self._door is None else self._door.allocated()

    def explain(self, shape: Shape) -> str:
        if self._resources is None:
            return UNKNOWN
        reason = self.feasible(shape)
        if reason is not None:
            return reason
        door = self._door_for(shape) if shape.graph else self._door
        return self.bitmap.explain(shape) if door is None else door.explain(shape)

    def outlook(self, shape: Shape, now: float, duration: float = inf) -> str:
        if self._resources is None or self.feasible(shape) is not None:
            return ""
        reservation = self.reserve(shape, now, duration)
        if reservation is None:
            return "by the plan it does not start: it needs what is down, or what has no end"
        self.release([reservation])
        if reservation.start - now >= FAR_S:
            return "by the plan it starts when jobs without a time limit end"
        return f"by the plan it could start in {format(max(0.0, reservation.start - now))}"

    def remark(self, placement: Placement) -> str:
        if self._resources is None:
            return ""
        here = self._resources.ranks
        gone = IDSet(part.rank for part in placement.parts if part.rank not in here)
        shut = IDSet(part.rank for part in placement.parts if part.rank not in self._up) - gone
        words = []
        if gone:
            words.append(f"{_ranks(gone)} no longer part of the instance")
        if shut:
            words.append(f"{_ranks(shut)} down, drained or excluded: nothing new starts there")
        return "; ".join(words)

    def others(self) -> dict[str, dict[str, int]]:
        return {} if self._door is None else self._door.others()

    def picture(
        self,
        running: Iterable[tuple[Placement, str]],
        reserved: Iterable[tuple[Reservation, str]],
        path: str | None,
        most: int,
    ) -> dict[str, Any] | None:
        if self._resources is None:
            return None
        from flux_mpi.sched.picture import picture

        if self._door is not None:
            door = self._door
            return picture(
                door.own.graph,
                ((name, door.held(placement)) for placement, name in running),
                ((name, door.planned(reservation)) for reservation, name in reserved),
                path,
                most,
            )
        from flux_mpi.resource import owngraph
        from flux_mpi.sched.holdings import Holdings

        own = self._own or owngraph.from_rset(self._resources)
        for rank, node in own.node_of.items():
            own.graph.set_status(node, int(rank not in self._up))
        holdings = Holdings(own)
        claims = ((name, holdings.units(each.parts).items()) for each, name in running)
        return picture(own.graph, claims, (), path, most)


def _ranks(ranks: IDSet) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {ranks} {'are' if len(ranks) > 1 else 'is'}"
