"""The walk of ``find``: emits the vertices that meet criteria, and all above them.

Down the dominant subsystem from its root, each vertex once, children before parents. A vertex
above one that was found is emitted too, so that what is found hangs together.
"""

from __future__ import annotations

import time

from flux_mpi.resource.graph import DOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Protocol

    from flux_mpi.resource.graph import ResourceGraph
    from flux_mpi.resource.writers import Writer
    from flux_mpi.sched.criteria import Criteria

    class Schedule(Protocol):
        """What the walk asks a matcher."""

        @property
        def graph(self) -> ResourceGraph: ...
        @property
        def subsystems(self) -> Sequence[str]: ...
        def allocations(self, vertex: int) -> Collection[int]: ...
        def reservations(self, vertex: int) -> Collection[int]: ...
        def tags(self, vertex: int) -> Collection[int]: ...
        def spans(self, vertex: int) -> Collection[int]: ...
        def tracked(self, vertex: int) -> Sequence[tuple[str, int]]: ...
        def used(self, vertex: int, index: int, at: int) -> int: ...
        def planned(self, vertex: int, job_id: int) -> Sequence[int]: ...


_NO_PROPERTIES: Mapping[str, str] = {}


class _View:
    """One vertex for `Criteria`; what is expensive is asked for only when a criterion asks."""

    __slots__ = ("_schedule", "allocated", "down", "reserved", "vertex")

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.vertex = 0
        self.down = False
        self.allocated = False
        self.reserved = False

    @property
    def name(self) -> str:
        return self._schedule.graph.name(self.vertex)

    @property
    def properties(self) -> Mapping[str, str]:
        return self._schedule.graph.properties.get(self.vertex, _NO_PROPERTIES)

    @property
    def allocations(self) -> Collection[int]:
        return self._schedule.allocations(self.vertex)

    @property
    def reservations(self) -> Collection[int]:
        return self._schedule.reservations(self.vertex)

    @property
    def tags(self) -> Collection[int]:
        return self._schedule.tags(self.vertex)

    @property
    def spans(self) -> Collection[int]:
        return self._schedule.spans(self.vertex)


class _Step:
    """A vertex on the way down: what it inherits to those below, and how many were found there."""

    __slots__ = ("allocated", "down", "edge", "edges", "found", "next", "reserved", "vertex")

    def __init__(self, schedule: Schedule, vertex: int, edge: int, above: _Step | None) -> None:
        graph = schedule.graph
        self.vertex = vertex
        self.edge = edge
        self.edges = graph.edges_from(vertex, schedule.subsystems[0])
        self.next = 0
        self.found = 0
        self.down: bool = graph.status(vertex) == DOWN
        self.allocated: bool = bool(schedule.allocations(vertex))
        self.reserved: bool = bool(schedule.reservations(vertex))
        if above is not None:
            self.down |= above.down
            self.allocated |= above.allocated
            self.reserved |= above.reserved


def find(matcher: Schedule, criteria: Criteria, writer: Writer) -> int:
    """Emits to ``writer`` what meets ``criteria``; returns how many vertices that are."""
    graph = matcher.graph
    root = graph.root(matcher.subsystems[0])
    if root is None:
        return 0
    view = _View(matcher)
    now = int(time.time())
    seen = bytearray(graph.n_vertices)
    seen[root] = 1
    stack = [_Step(matcher, root, -1, None)]
    count = 0
    while stack:
        step = stack[-1]
        if step.next < len(step.edges):
            edge = step.edges[step.next]
            step.next += 1
            target = graph.target(edge)
            if not seen[target]:
                seen[target] = 1
                stack.append(_Step(matcher, target, edge, step))
            continue
        found = 0
        view.vertex = step.vertex
        view.down, view.allocated, view.reserved = step.down, step.allocated, step.reserved
        if criteria.matches(view) or step.found:
            found = _emit(matcher, criteria, writer, step, len(stack), now)
        depth = len(stack)
        stack.pop()
        if found:
            count += 1
            if stack:
                stack[-1].found += 1
                # An edge is told at the level of the vertex that it leaves.
                writer.edge(depth - 1, step.edge, False)
    writer.times(0, 0)
    return count


def _emit(
    matcher: Schedule, criteria: Criteria, writer: Writer, step: _Step, depth: int, now: int
) -> bool:
    """Whether the vertex could be emitted: without an aggregate filter it has no use to show."""
    vertex = step.vertex
    use: dict[str, str] | None = None
    if criteria.agfilter:
        tracked = matcher.tracked(vertex)
        if not tracked:
            return False
        if criteria.job_id:
            if criteria.job_id not in matcher.spans(vertex):
                return False
            used = list(matcher.planned(vertex, criteria.job_id))
        else:
            # Time is the clock's in an instance, and begins at 0 in a simulation.
            used = [
                matcher.used(vertex, i, now) or matcher.used(vertex, i, 0)
                for i in range(len(tracked))
            ]
        shown = sorted((kind, taken, total) for (kind, total), taken in zip(tracked, used))
        use = {kind: f"used:{taken}, total:{total}" for kind, taken, total in shown}
    writer.vertex(depth, vertex, matcher.graph.sizes[vertex], True, False, extra=use)
    return True
