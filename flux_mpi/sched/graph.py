"""The default scheduler: one state, two doors.

As long as every request is nodes, cores and GPUs at fixed counts, and nothing is configured that
only a graph can say, the bitmap door alone works, and costs what it always did. The first request
that needs a graph makes the graph door (`graphdoor.py`): it takes over all that runs, and from then
on every request goes through it. What the graph door is made of is loaded then and not before.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, ClassVar

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
    from flux_mpi.sched.graphdoor import GraphDoor

UNKNOWN = "waiting for the instance's resources"

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
        self._reasons.clear()
        self._up = resources.ranks if up is None else up
        self._resources = resources
        if self._door is None:
            self.bitmap.update(resources, up)
        else:
            running = self._door.running
            self._door = None
            self.bitmap = BitmapScheduler(self.bitmap.tier)
            self.bitmap.update(resources, up)
            self._running = {id(placement): (placement, end) for placement, end in running}
            self._open()
            return
        if self._wants_graph():
            self._open()

    def _wants_graph(self) -> bool:
        if not self.settings.usual:
            return True
        if self._source is None:
            return False
        from flux_mpi.resource.owngraph import OwnGraph

        return not OwnGraph(self._source).plain

    def set_up(self, ranks: IDSet) -> None:
        self._up = ranks
        self.bitmap.set_up(ranks)
        if self._door is not None:
            self._door.set_up(ranks)

    def _open(self) -> GraphDoor:
        """Make the graph door, and let all that runs be known there."""
        from flux_mpi.resource import owngraph
        from flux_mpi.sched.graphdoor import GraphDoor

        assert self._resources is not None
        if self._source is None:
            own = owngraph.from_rset(self._resources)
        else:
            own = owngraph.matched(self._source, self._resources)
        door = GraphDoor(own, self.bitmap.machine, self.settings)
        door.set_up(self._up)
        for placement, end in self._running.values():
            door.put(placement, self._now, end)
        self._running.clear()
        self._door = door
        return door

    def _door_for(self, shape: Shape) -> GraphDoor | None:
        if self._door is None and shape.graph and self._resources is not None:
            return self._open()
        return self._door

    # -- requests -------------------------------------------------------------------------------

    def invalid(self, shape: Shape) -> str | None:
        return self.bitmap.invalid(shape)

    def feasible(self, shape: Shape) -> str | None:
        if not shape.graph:
            return self.bitmap.feasible(shape)
        door = self._door_for(shape)
        if door is None:
            return None
        if shape not in self._reasons:
            if len(self._reasons) >= 256:
                self._reasons.clear()
            self._reasons[shape] = door.infeasible(shape)
        return self._reasons[shape]

    def alloc(
        self, shape: Shape, count: int, now: float, duration: float | None = None
    ) -> list[Placement]:
        self._now = now
        door = self._door if not shape.graph else self._door_for(shape)
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
        door = self._door if not shape.graph else self._door_for(shape)
        if door is None:
            return self.bitmap.explain(shape) if self._resources is not None else UNKNOWN
        return self.feasible(shape) or door.explain(shape)

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

    def others(self) -> dict[str, dict[str, int]]:
        return {} if self._door is None else self._door.others()
