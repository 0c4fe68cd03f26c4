"""What a matcher may and must find, in plain Python: objects and recursion, no kernels.

`World.exists` tells whether a request can be met, `World.check` whether a found match does meet it,
and `World.used` what must be counted as taken.

**The class where "none found" must mean "none exists"** (`complete`). A matcher that walks depth
first, as Fluxion's does, decides at each vertex once and for all. On a containment tree that loses
nothing as long as what lies below one vertex is independent of what lies below another, that is,
as long as all of these hold:

* Resources beside each other are of different types, and a slot has nothing beside it: Fluxion
  refuses the former, and what is beside a slot is not looked for where the slot is made.
* After the first vertex that answers the request, each level of the request is the next level of
  the graph; only a slot may be made one level further down. This is what a request *means* there
  (RFC 14 leaves it open), so the oracle knows no other way to meet one either.
* What a slot holds has one count, unless a single slot is enough: else the matcher fills the first
  slot with as much as it can get, and has less left for others.
* Pools are taken whole: of what is sized 4, a request for 3 takes all. Where several slots draw
  on them, pools beside each other have one size: to pack them best would be a knapsack.
* A leaf of the request is taken exclusively (by a slot or a resource above it, or by itself), or no
  job is overdue: what belongs to a job past its end is refused to those who ask for it now and
  exclusively, but whether others get it depends on how it was taken.

Outside of this class only `check` applies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from hypothesis import strategies as st

from flux_mpi.formats.request import MatchJobspec, Request
from flux_mpi.resource.graph import DOWN, UP, V_HEAD, V_NALLOC, V_WIDTH, ResourceGraph
from flux_mpi.resource.writers import Writer
from flux_mpi.sched.booking import WHOLE_ALLOCATION
from flux_mpi.sched.matcher import Matcher
from flux_mpi.sched.scalars import S_FREE, X_TOTAL
from flux_mpi.sched.timeline import (
    P_BELOW,
    P_JOBS,
    P_NEXT,
    P_REFS,
    P_TIME,
    P_UNITS,
    P_WHOLE,
)

FAR = 1 << 61


@dataclass(eq=False)
class Part:
    """A vertex of the containment tree."""

    type: str
    size: int = 1
    parts: list[Part] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    up: bool = True
    rank: int = -1
    vertex: int = -1
    above: Part | None = None

    def __repr__(self) -> str:
        marks = "".join(
            f", {name}={value!r}"
            for name, value, usual in (
                ("size", self.size, 1),
                ("parts", self.parts, []),
                ("properties", self.properties, {}),
                ("up", self.up, True),
            )
            if value != usual
        )
        return f"Part({self.type!r}{marks})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    def all(self) -> Iterator[Part]:
        """This and everything below, parents first."""
        yield self
        for part in self.parts:
            yield from part.all()

    def way_up(self) -> Iterator[Part]:
        """This and everything above, the root last."""
        yield self
        if self.above is not None:
            yield from self.above.way_up()


def number(root: Part, first: int = 0) -> Part:
    """Tell each part what is above it, its rank and its vertex; numbers it has stay.

    ``first``: the least number that was never used.
    """
    last = max([first - 1, *(part.vertex for part in root.all())])
    ranks = max(part.rank for part in root.all())
    for part in root.all():
        for below in part.parts:
            below.above = part
        if part.vertex < 0:
            last += 1
            part.vertex = last
            if part.type == "node":
                ranks += 1
                part.rank = ranks
            elif part.above is not None:
                part.rank = part.above.rank
    return root


def plant(root: Part) -> ResourceGraph:
    """The resource graph of a tree, each vertex with the number that its part has."""
    graph = ResourceGraph()
    number(root)
    for part in sorted(root.all(), key=lambda part: part.vertex):
        assert graph.n_vertices == part.vertex
        graph.add_vertex(
            part.type,
            part.type,
            part.vertex,
            size=part.size,
            rank=part.rank,
            status=UP if part.up else DOWN,
            properties=part.properties,
        )
        if part.above is not None:
            graph.add_edge(part.above.vertex, part.vertex)
    graph.set_root("containment", root.vertex)
    graph.freeze()
    return graph


class Recorder(Writer):
    """A match as it is told to a writer."""

    def _reset(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.taken: dict[int, int] = {}
        self.shared: set[int] = set()
        self.links: list[tuple[int, int]] = []
        self.span = (0, 0)
        self.words: dict[str, str] = {}

    def __init__(self, graph: ResourceGraph) -> None:
        super().__init__(graph)
        self._reset()

    def vertex(
        self,
        depth: int,
        vertex: int,
        needs: int,
        exclusive: bool,
        exclusive_parent: bool,
        *,
        extra: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.rows.append((depth, vertex, needs, exclusive, exclusive_parent, labels))
        assert vertex not in self.taken
        assert vertex not in self.shared
        if exclusive:
            self.taken[vertex] = needs
        else:
            self.shared.add(vertex)

    def edge(self, depth: int, edge: int, exclusive_parent: bool) -> None:
        self.rows.append((depth, edge, exclusive_parent))
        self.links.append((self.graph.sources[edge], self.graph.target(edge)))

    def times(self, start: int, end: int) -> None:
        self.rows.append((start, end))
        self.span = (start, end)

    def attribute(self, key: str, value: str) -> None:
        self.words[key] = value

    def _text(self) -> str:
        return repr(self.rows)


@dataclass
class Grant:
    """What a job has, from when to when: vertices taken exclusively."""

    start: int
    end: int
    allocated: bool
    taken: set[int]

    def during(self, start: int, end: int) -> bool:
        return self.start < end and start < self.end


@dataclass(frozen=True)
class View:
    """When a match would be, and what for."""

    start: int
    end: int
    right_now: bool = True
    satisfying: bool = False
    constraint: Any = None

    def lenient(self) -> View:
        """The same for what need neither be up nor meet the constraint."""
        return replace(self, satisfying=True, constraint=None, right_now=False)


def acceptable(request: Request) -> list[int]:
    """The counts that a request may be met with, ascending; long ranges are cut at 64."""
    counts: list[int] = []
    count = request.min
    while count <= min(request.max, 64):
        counts.append(count)
        following = {
            "+": count + request.operand,
            "*": count * request.operand,
            "^": count**request.operand,
        }[request.operator]
        if following <= count:
            break
        count = following
    return counts


def best_count(request: Request, have: int) -> int:
    """The largest acceptable count that is there, 0 when none is."""
    return max((count for count in acceptable(request) if count <= have), default=0)


def has_slot(requests: Sequence[Request]) -> bool:
    return any(request.type == "slot" for request in requests)


def complete(requests: Sequence[Request], root: Part, overdue: bool) -> bool:
    """Whether a request is of the class that the module's text describes."""
    mixed = any(
        len({below.size for below in part.parts if below.type == kind}) > 1
        for part in root.all()
        for kind in {below.type for below in part.parts}
    )

    def one(beside: Sequence[Request], taken: bool) -> bool:
        if len({request.type for request in beside}) < len(beside):
            return False
        if has_slot(beside) and len(beside) > 1:
            return False
        for request in beside:
            slot = request.type == "slot"
            inside = taken or slot or request.exclusive is True
            if slot and request.min > 1 and (mixed or _ranges(request.children)):
                return False
            if not request.children and not inside and overdue:
                return False
            if not one(request.children, inside):
                return False
        return True

    return one(requests, False)


def _ranges(requests: Sequence[Request]) -> bool:
    return any(request.min != request.max for request in requests)


class World:
    """A tree of parts and what jobs have of it."""

    def __init__(self, root: Part) -> None:
        self.root = number(root)
        self.grants: dict[int, Grant] = {}

    @property
    def by_vertex(self) -> dict[int, Part]:
        return {part.vertex: part for part in self.root.all()}

    # -- what is free ---------------------------------------------------------------------------

    def usable(self, part: Part, taken: bool, view: View) -> bool:
        """Whether a part by itself is of use, exclusively or not."""
        if not part.up and not view.satisfying:
            return False
        if part.type == "node" and not meets(view.constraint, part):
            return False
        within = {below.vertex for below in part.all()}
        for grant in self.grants.values():
            if grant.during(view.start, view.end) and (
                part.vertex in grant.taken or (taken and grant.taken & within)
            ):
                return False
            # What an overdue job has is not taken from it.
            if taken and view.right_now and grant.allocated and part.vertex in grant.taken:
                return False
        return True

    def overdue(self, now: int) -> bool:
        """Whether some job has something past its end."""
        return any(grant.allocated and grant.end <= now for grant in self.grants.values())

    # -- whether there is a match ---------------------------------------------------------------

    def exists(self, requests: Sequence[Request], view: View) -> bool:
        """Whether some match of the requests exists; exact for those of the class `complete`."""
        offered = self._offered(self.root, requests, view)
        return all(best_count(request, offered.get(i, 0)) > 0 for i, request in enumerate(requests))

    def _offered(self, part: Part, requests: Sequence[Request], view: View) -> dict[int, int]:
        """Units, by request, of the first parts that answer on each way down."""
        if not self.usable(part, False, view):
            return {}
        for i, request in enumerate(requests):
            if request.type == part.type:
                return {i: part.size} if self._answers(part, request, False, view) else {}
            if request.type == "slot" and _holds(part, request):
                return {i: self._slots(part, request, view)}
        offered: dict[int, int] = {}
        for below in part.parts:
            for i, units in self._offered(below, requests, view).items():
                offered[i] = offered.get(i, 0) + units
        return offered

    def _answers(self, part: Part, request: Request, taken: bool, view: View) -> bool:
        """Whether a part is what a request of its type asks for."""
        if taken and request.exclusive is False:
            return False
        taken = taken or request.exclusive is True
        if not self.usable(part, taken, view):
            return False
        for inner in request.children:
            if inner.type == "slot":
                have = self._slots_in(part, inner, taken, view)
            else:
                have = sum(below.size for below in self._fit(part, inner, taken, view))
            if best_count(inner, have) == 0:
                return False
        return True

    def _fit(self, part: Part, request: Request, taken: bool, view: View) -> list[Part]:
        """The parts directly below that answer a request."""
        return [
            below
            for below in part.parts
            if below.type == request.type and self._answers(below, request, taken, view)
        ]

    def _slots_in(self, part: Part, slot: Request, taken: bool, view: View) -> int:
        """Slots that can be made of what is directly below, or else one level further down."""
        if _holds(part, slot):
            return self._slots(part, slot, view)
        return sum(
            self._slots(below, slot, view)
            for below in part.parts
            if _holds(below, slot) and self.usable(below, False, view)
        )

    def _slots(self, part: Part, slot: Request, view: View) -> int:
        """Slots that can be made of what is directly below a part."""
        counts = []
        for inner in slot.children:
            sizes = [below.size for below in self._fit(part, inner, True, view)]
            each = best_count(inner, sum(sizes))
            if each == 0:
                return 0
            # All of one size, unless a single slot will do.
            counts.append(max(1, len(sizes) // -(-each // sizes[0])))
        return min(counts)

    def first_time(
        self, requests: Sequence[Request], now: int, duration: int, constraint: Any = None
    ) -> int | None:
        """The first time of a match: now, or when something begins or ends."""
        grants = [grant for grant in self.grants.values() if grant.taken]
        changes = {time for grant in grants for time in (grant.start, grant.end)}
        for time in [now, *sorted(time for time in changes if time > now)]:
            view = View(time, time + duration, time == now, constraint=constraint)
            if self.exists(requests, view):
                return time
        return None

    def too_many_nodes(self, requests: Sequence[Request], constraint: Any) -> bool:
        """Whether more nodes are asked for than there are up and eligible.

        That is refused without another look, as by Fluxion, when nodes are counted at the root.
        """

        def wanted(inside: Sequence[Request], times: int) -> int:
            return sum(
                times * request.min * (request.type == "node")
                + wanted(request.children, times * request.min)
                for request in inside
            )

        nodes = [x for x in self.root.all() if x.type == "node" and meets(constraint, x)]
        up = [part for part in nodes if all(above.up for above in part.way_up())]
        return wanted(requests, 1) > len(up)

    # -- whether a match is one -----------------------------------------------------------------

    def check(
        self,
        requests: Sequence[Request],
        found: Recorder,
        view: View,
        whole: frozenset[str] = frozenset(),
    ) -> None:
        """Fail unless what was found is free, is a subtree and meets the requests.

        ``whole``: types that a policy takes with everything below them.
        """
        parts = self.by_vertex
        whole = whole | _exclusive_types(requests)
        told = found.shared | found.taken.keys()
        for vertex in told:
            part = parts[vertex]
            higher = list(part.way_up())[1:]
            assert all(above.vertex in told for above in higher), "the way there was not told"
            # What comes along with something whole needs to be free of jobs that are not overdue,
            # no more: Fluxion asks no vertex but the one that is taken whole.
            by_itself = not any(above.type in whole for above in higher)
            assert self.usable(part, vertex in found.taken, view if by_itself else view.lenient())
        for vertex, units in found.taken.items():
            assert units == parts[vertex].size, "a pool was not taken whole"
        expected = {
            (part.above.vertex, vertex)
            for vertex, part in parts.items()
            if vertex in told and part.above is not None
        }
        assert sorted(found.links) == sorted(expected)
        if told:
            assert self.root.vertex in told
            _Met(found, self, whole).check_top(requests)

    # -- what is counted ------------------------------------------------------------------------

    def total(self, part: Part, kind: str) -> int:
        """Units of a type below a part."""
        return sum(below.size for below in part.all() if below is not part and below.type == kind)

    def used(self, part: Part, kind: str, at: int) -> int:
        """Units of a type below a part that jobs have at a moment."""
        parts = self.by_vertex
        return sum(
            parts[vertex].size
            for grant in self.grants.values()
            if grant.start <= at < grant.end
            for vertex in grant.taken
            if parts[vertex].type == kind
            and parts[vertex] is not part
            and part in list(parts[vertex].way_up())
        )

    def check_disjoint(self) -> None:
        """Fail if two jobs have at one time the same, or one of them something within the other's.

        An overdue job's part may go to another one that only reserves.
        """
        parts = self.by_vertex
        grants = list(self.grants.values())
        for i, one in enumerate(grants):
            for other in grants[:i]:
                if not one.during(other.start, other.end):
                    continue
                for mine, theirs in ((one, other), (other, one)):
                    for vertex in mine.taken:
                        way = {above.vertex for above in parts[vertex].way_up()}
                        assert not way & theirs.taken


def _exclusive_types(requests: Sequence[Request]) -> frozenset[str]:
    found: set[str] = set()
    for request in requests:
        if request.exclusive:
            found.add(request.type)
        found |= _exclusive_types(request.children)
    return frozenset(found)


def _holds(part: Part, slot: Request) -> bool:
    """Whether all that a slot holds lies directly below a part, whatever its state."""
    return {inner.type for inner in slot.children} <= {below.type for below in part.parts}


class _Met:
    """Whether the requests are met by what was told of a match."""

    def __init__(self, found: Recorder, world: World, whole: frozenset[str]) -> None:
        self._told = found.shared | found.taken.keys()
        self._taken = found.taken
        self._world = world
        self._whole = whole

    def check_top(self, requests: Sequence[Request]) -> None:
        got: dict[int, list[Part]] = {}
        slots: dict[int, set[int]] = {}
        self._gather(self._world.root, requests, got, slots)
        for i, request in enumerate(requests):
            if request.type == "slot":
                self._check_slots(request, slots.get(i, set()), self._came_along())
            elif _told(request):
                parts = got.get(i, [])
                whole = any(self._in_whole(part.above) for part in parts if part.above)
                self._check_count(request, parts, whole)

    def _gather(
        self,
        part: Part,
        requests: Sequence[Request],
        got: dict[int, list[Part]],
        slots: dict[int, set[int]],
    ) -> None:
        for i, request in enumerate(requests):
            if request.type == part.type or (request.type == "slot" and _holds(part, request)):
                if request.type == "slot":
                    numbers = self._slots_of(part, request)
                    slots[i] = _sums([slots.get(i, {0}), numbers])
                elif self._fits(part, request, False):
                    got.setdefault(i, []).append(part)
                return
        for below in self._below(part):
            self._gather(below, requests, got, slots)

    def _fits(self, part: Part, request: Request, taken: bool) -> bool:
        """Whether a part is fit; it must be, unless it came along with something whole."""
        try:
            self._check_inside(part, request, taken)
        except AssertionError:
            if part.above is None or not self._in_whole(part.above):
                raise
            return False
        return True

    def _below(self, part: Part) -> list[Part]:
        return [below for below in part.parts if below.vertex in self._told]

    def _in_whole(self, part: Part) -> bool:
        """Whether a part is taken with everything below it."""
        return any(above.type in self._whole for above in part.way_up())

    def _came_along(self) -> bool:
        parts = self._world.by_vertex
        return any(parts[vertex].type in self._whole for vertex in self._told)

    def _check_slots(self, slot: Request, numbers: set[int], whole: bool) -> None:
        wanted = set(acceptable(slot))
        assert numbers & wanted or (whole and max(numbers, default=0) >= min(wanted))

    def _check_count(self, request: Request, got: list[Part], whole: bool = False) -> None:
        sizes = [part.size for part in got]
        assert sizes, f"nothing for {request.type}"
        # As few as make up an acceptable count, in whatever order they were chosen.
        assert any(
            count <= sum(sizes) and (whole or sum(sizes) - max(sizes) < count)
            for count in acceptable(request)
        ), f"{sum(sizes)} units of {request.type}"

    def _check_inside(self, part: Part, request: Request, taken: bool) -> None:
        taken = taken or request.exclusive is True
        assert not (taken and request.exclusive is False)
        assert not taken or part.vertex in self._taken
        whole = self._in_whole(part)
        if whole:
            assert all(below.vertex in self._taken for below in part.all())
        for inner in request.children:
            if inner.type == "slot":
                places = [part] if _holds(part, inner) else self._below(part)
                if not whole:
                    numbers = _sums([self._slots_of(place, inner) for place in places])
                    self._check_slots(inner, numbers, self._came_along())
            elif whole or _told(inner):
                got = [below for below in self._below(part) if below.type == inner.type]
                self._check_count(inner, got, whole)
                for below in got:
                    self._check_inside_whole(below, inner, taken, whole)

    def _check_inside_whole(self, part: Part, request: Request, taken: bool, whole: bool) -> None:
        # Below what is taken whole lies more than was asked for, which need not be fit.
        if not whole:
            self._check_inside(part, request, taken)

    def _slots_of(self, part: Part, slot: Request) -> set[int]:
        """How many slots the exclusive parts directly below may make up; all must be of use."""
        whole = self._in_whole(part)
        possible: set[int] | None = None
        for inner in slot.children:
            got = [
                x
                for x in part.parts
                if x.type == inner.type and x.vertex in self._taken and self._fits(x, inner, True)
            ]
            here = {
                n
                for n in range(1, len(got) + 1)
                for count in acceptable(inner)
                if _packs([x.size for x in got], n, count, whole)
            }
            possible = here if possible is None else possible & here
        if whole and not possible:
            return {0}
        assert possible, "what is taken does not make up slots"
        return possible


def _sums(numbers: list[set[int]]) -> set[int]:
    """All sums of one number of each set."""
    return {sum(choice) for choice in product(*numbers)}


def _told(request: Request) -> bool:
    """Whether what is found for a request is told: something of it is exclusive, or below it."""
    return (
        request.type == "slot"
        or request.exclusive is True
        or bool(request.children and all(_told(inner) for inner in request.children))
    )


def _packs(sizes: list[int], n: int, count: int, more: bool) -> bool:
    """Whether pools make up ``n`` shares of at least ``count``, none of them needlessly."""
    if sum(sizes) < n * count or len(sizes) < n:
        return False
    return more or len(sizes) <= n * count


def meets(constraint: Any, part: Part) -> bool:
    """Whether a node meets an RFC 31 constraint of properties and ranks."""
    for operator, values in (constraint or {}).items():
        if operator == "properties":
            return all((v.strip("^") in part.properties) != v.startswith("^") for v in values)
        if operator == "ranks":
            return str(part.rank) in values
        each = [meets(value, part) for value in values]
        return {"and": all(each), "or": any(each), "not": not all(each)}[operator]
    return True


# -- what a matcher keeps --------------------------------------------------------------------------


def points_of(matcher: Matcher, vertex: int) -> list[list[int]]:
    """The rows of a vertex's timeline."""
    points, width = matcher._points, matcher._pw
    rows = []
    row = matcher.graph.v[vertex * V_WIDTH + V_HEAD]
    while row >= 0:
        rows.append(list(points[row * width : (row + 1) * width]))
        row = rows[-1][P_NEXT]
    return rows


def state(matcher: Matcher) -> dict[str, Any]:
    """All that is scheduled: by path, what a vertex carries from when on, and its allocations.

    However it is kept: a vertex below one that is taken whole carries what follows from that.
    """
    graph = matcher.graph
    found: dict[str, Any] = {}

    def carried(rows: list[list[int]], at: int) -> list[int]:
        before = [row for row in rows if row[P_TIME] <= at]
        return before[-1] if before else [0] * matcher._pw

    def visit(vertex: int, above: list[list[list[int]]], held: int) -> None:
        rows = points_of(matcher, vertex)
        held += graph.v[vertex * V_WIDTH + V_NALLOC] // WHOLE_ALLOCATION
        own = graph.v[vertex * V_WIDTH + V_NALLOC] % WHOLE_ALLOCATION
        totals = matcher._x[vertex * matcher._xw + X_TOTAL : (vertex + 1) * matcher._xw]
        changes: list[tuple[int, list[int]]] = []
        for at in sorted({row[P_TIME] for some in [*above, rows] for row in some}):
            here = carried(rows, at)
            whole = sum(carried(some, at)[P_WHOLE] for some in above)
            now = [here[P_JOBS] + whole, here[P_UNITS] + whole * graph.sizes[vertex]]
            whole += here[P_WHOLE]
            now += [total if whole else units for total, units in zip(totals, here[P_BELOW:])]
            if now != (changes[-1][1] if changes else [0] * len(now)):
                changes.append((at, now))
        below = held - graph.v[vertex * V_WIDTH + V_NALLOC] // WHOLE_ALLOCATION
        found[graph.path(vertex) or ""] = (own + below, changes, list(totals))
        for child in graph.children(vertex):
            visit(child, [*above, rows], held)

    visit(matcher.root, [], 0)
    return found


def check_points(matcher: Matcher) -> int:
    """Fail unless each point is either free or in one timeline, in order; how many are in one."""
    graph, points, width = matcher.graph, matcher._points, matcher._pw
    free, row = 0, matcher._s[S_FREE]
    while row >= 0:
        free += 1
        assert free <= len(points) // width
        row = points[row * width + P_NEXT]
    used = 0
    for vertex in range(graph.n_vertices):
        rows = points_of(matcher, vertex)
        used += len(rows)
        times = [row[P_TIME] for row in rows]
        assert times == sorted(set(times))
        assert all(row[P_REFS] > 0 for row in rows), "a point of nobody"
        assert not rows or not any(rows[-1][P_JOBS:]), "something is taken for ever"
    assert used + free == len(points) // width
    return used


# -- worlds and requests at random -----------------------------------------------------------------


@st.composite
def machines(draw: Any, mixed: bool = False, down: bool = True) -> Part:
    """A cluster, perhaps of racks, of nodes, perhaps with sockets, of cores and more."""
    racks = draw(st.integers(0, 2))
    sockets = draw(st.integers(0, 2))
    memory = draw(st.integers(1, 4))

    def leaves() -> list[Part]:
        cores, gpus, pools = draw(
            st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 2))
        )
        sizes = [draw(st.integers(1, 4)) if mixed else memory for _ in range(pools)]
        return [
            *(Part("core") for _ in range(cores)),
            *(Part("gpu") for _ in range(gpus)),
            *(Part("memory", size) for size in sizes),
        ]

    def node() -> Part:
        inside = [Part("socket", 1, leaves()) for _ in range(sockets)] if sockets else leaves()
        properties = draw(st.sampled_from(({}, {"a": ""}, {"b": ""}, {"a": "", "b": ""})))
        return Part("node", 1, inside, dict(properties))

    def nodes() -> list[Part]:
        return [node() for _ in range(draw(st.integers(1, 3)))]

    inside = [Part("rack", 1, nodes()) for _ in range(racks)] if racks else nodes()
    root = number(Part("cluster", 1, inside))
    if down:
        everything = [part for part in root.all() if part is not root]
        for part in draw(st.lists(st.sampled_from(everything), max_size=1)):
            part.up = False
    return root


@st.composite
def counts(draw: Any, type: str, wide: bool, most: int = 3) -> Request:
    """A resource with a count, often a plain one."""
    least = draw(st.sampled_from((1, 1, 1, *range(1, most + 1))))
    if not wide or draw(st.integers(0, 2)) < 2:
        return Request(type, least, least)
    operator, operand = draw(
        st.sampled_from((("+", 1), ("+", 2), ("+", 3), ("*", 2), ("*", 3), ("^", 2)))
    )
    return Request(type, least, least + draw(st.integers(0, 8)), operator, operand)


@st.composite
def request_trees(draw: Any, root: Part, wide: bool = False) -> list[Request]:
    """Resources in each other, mostly as they lie in a machine, and mostly with a slot somewhere.

    ``wide``: also outside of the class `complete`.
    """
    there = {part.type for part in root.all()}
    levels = [level for level in ("rack", "node", "socket") if level in there]
    chain = levels[draw(st.integers(0, len(levels))) :]
    odd = draw(st.integers(0, 9))
    if odd == 0:  # what no machine is like, or one where a slot is further down
        chain = [level for level in ("rack", "node", "socket") if draw(st.booleans())]
    leaves = ["core"]
    if draw(st.integers(0, 2)) == 0:
        leaves = draw(st.lists(st.sampled_from(("core", "gpu", "memory")), min_size=1, unique=True))
    slot: Request | None = None
    slot_at = draw(st.integers(-1, len(chain)))
    if slot_at >= 0:
        slot = draw(counts("slot", True))
    ranges = wide or slot is None or slot.min == 1
    inside = [draw(counts(leaf, ranges)) for leaf in leaves]
    for level in range(len(chain), -1, -1):
        if slot is not None and level == slot_at:
            slot.children = inside
            inside = [slot]
        if level > 0:
            resource = draw(counts(chain[level - 1], level <= slot_at or ranges, 2))
            resource.children = inside
            exclusives = (None, None, None, True, False) if wide else (None, None, None, True)
            resource.exclusive = draw(st.sampled_from(exclusives))
            inside = [resource]
    if slot is None and not any(resource.exclusive for resource in inside):
        inside[0].exclusive = draw(st.sampled_from((True, None)))
    if odd == 1 and slot is None:
        inside.append(draw(counts(draw(st.sampled_from(("gpu", "memory"))), ranges)))
    return inside


constraints = st.sampled_from(
    (
        None,
        None,
        None,
        None,
        {"properties": ["a"]},
        {"properties": ["a", "^b"]},
        {"not": [{"properties": ["a"]}]},
        {"or": [{"ranks": ["0"]}, {"properties": ["b"]}]},
    )
)


@st.composite
def jobs(draw: Any, root: Part, wide: bool = False, constrained: bool = True) -> MatchJobspec:
    """A request with a duration and perhaps a constraint."""
    return MatchJobspec(
        draw(request_trees(root, wide)),
        float(draw(st.integers(1, 6))),
        constraint=draw(constraints) if constrained else None,
    )
