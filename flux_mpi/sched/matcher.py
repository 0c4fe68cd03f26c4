"""The graph door: requests of any shape, matched to a resource graph now or in the future.

A `Matcher` owns what is scheduled on a graph: timelines of all vertices and the bookings of jobs.
The operations and their outcomes are those of Fluxion's traverser.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from typing import Any

from flux_mpi.formats import constraint as rfc31
from flux_mpi.formats.request import MatchJobspec
from flux_mpi.resource.graph import (
    CONTAINMENT,
    UP,
    V_HEAD,
    V_OUT,
    V_OUT_END,
    V_TYPE,
    V_WIDTH,
    ResourceGraph,
)
from flux_mpi.resource.writers.base import WholeWriter
from flux_mpi.sched import emission, living, policies
from flux_mpi.sched.arena import A_WIDTH
from flux_mpi.sched.booking import FULL_POINTS, FULL_ROWS
from flux_mpi.sched.bookings import Booking, Growth, MatchError, Outcome
from flux_mpi.sched.filters import Filters
from flux_mpi.sched.graphtier import GraphTier
from flux_mpi.sched.reach import Reach, link_rows, rows_of, set_column
from flux_mpi.sched.requests import Compiler, Table, variants
from flux_mpi.sched.scalars import (
    KIND_ALLOCATE,
    KIND_LOOK,
    KIND_PROBE,
    KIND_RESERVE,
    KIND_SATISFY,
    LABELS,
    MAX_AUX,
    ORDER_GREATER,
    ORDER_LESS,
    S_AT,
    S_AUX,
    S_AUX_ROOT,
    S_BELOW,
    S_CARRIERS,
    S_COLOR,
    S_DOMINANT,
    S_END,
    S_FIRST,
    S_FLEXIBLE,
    S_FREE,
    S_FREE_ROWS,
    S_GRAPH_ORDER,
    S_KIND,
    S_LIMIT,
    S_N_AUX,
    S_N_TYPES,
    S_NOW,
    S_POINT_WIDTH,
    S_POST,
    S_PRE,
    S_ROW_LIMIT,
    S_ROWS,
    S_SLOT_ORDER,
    S_SLOT_TYPE,
    S_TICK,
    S_TREE,
    S_TYPES,
    S_VERTEX_ORDER,
    X_LABEL,
    X_SCORE,
    X_TOTAL,
)
from flux_mpi.sched.search import D_WIDTH, FULL, IMPOSSIBLE, UNFIT
from flux_mpi.sched.takewalk import (
    O_ANY_BELOW,
    O_BELOW,
    O_INDEX,
    O_TAKEN,
    O_WHOLE,
)
from flux_mpi.sched.timeline import FOREVER, P_BELOW, P_NEXT, P_TIME, P_UNITS, P_WHOLE, level, peak

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux_mpi.resource.writers import Writer

CENTURY = 3_153_600_000
"""Seconds that a graph lasts unless it says otherwise."""

OPERATIONS = (
    "allocate",
    "allocate_with_satisfiability",
    "allocate_orelse_reserve",
    "satisfiability",
    "without_allocating",
    "without_allocating_future",
)

TRAVERSERS = ("simple", "flexible")

ARENA, ROWS, POINTS = 512, 256, 256
"""Rows to begin with."""

REMEMBERED = 256
"""Requests and constraints whose translation is kept."""

MAX_TRACKED = 60

_NONE = array("q")

# Where `Matcher._arrays` has what.
A_V, A_E, A_OUT, A_X, A_P, A_S, A_KEPT = 0, 1, 3, 7, 8, 9, 13

FAR = FOREVER >> 1
"""When nothing that is known now is left, so that only what exists decides."""


class Matcher:
    """Matches, allocates and reserves on one graph.

    ``subsystems``: the first is walked down, the others are looked at on the way. ``expiration``:
    when the graph ends, in the seconds that times count in. ``as_fluxion``: starts of reservations
    are looked for as Fluxion does after the graph grew (see `Growth`). Raises ValueError for an
    unknown policy, filter, traverser or a subsystem that the graph has no root of.
    """

    def __init__(
        self,
        graph: ResourceGraph,
        *,
        policy: str = "first",
        subsystems: Sequence[str] = (CONTAINMENT,),
        prune_filters: str = "ALL:core",
        traverser: str = "simple",
        expiration: int = CENTURY,
        as_fluxion: bool = False,
        tier: GraphTier | None = None,
    ) -> None:
        if traverser not in TRAVERSERS:
            raise ValueError(
                f"traverser: expected one of {', '.join(TRAVERSERS)}, found {traverser[:40]!r}"
            )
        if not subsystems or len(subsystems) > MAX_AUX + 1:
            raise ValueError(f"subsystems: expected 1 to {MAX_AUX + 1}, found {len(subsystems)}")
        for name in subsystems:
            if graph.root(name) is None:
                known = ", ".join(graph.subsystems[number] for number in graph.roots) or "none"
                raise ValueError(
                    f"subsystem: expected one with a root in the graph ({known}), found {name!r}"
                )
        self.graph = graph
        self.policy = policies.policy(policy)
        self.subsystems = tuple(subsystems)
        self.expiration = expiration
        self.flexible = traverser == "flexible"
        self.bookings: dict[int, Booking] = {}
        self._growth = Growth() if as_fluxion else None
        self._cancelled: Booking | None = None
        self._visited = self._fit = 0
        self._tier = tier or GraphTier(graph.n_vertices)
        self._filters = Filters(prune_filters)
        self._s = array("q")
        self._w = array("q", bytes(8 * ARENA * A_WIDTH))
        self._faces: tuple[Any, ...] | None = None
        self._prepare()

    # -- state ----------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Lay out everything that depends on the graph's shape; bookings are put back in."""
        graph = self.graph
        graph.walk_by(self.subsystems[0])
        root = graph.root(self.subsystems[0])
        if root is None:
            raise MatchError(f"subsystem {self.subsystems[0]}: its root was removed")
        self.root = root
        self._faces = None
        self._reach = reachable = Reach(graph, root, self.subsystems[0])
        self._begins: dict[bytes, tuple[array[int], array[int]] | None] = {}
        self._filters.add_leaves(reachable.leaf_types())
        self._tracked = self._filters.types
        n_below = len(self._tracked)
        if n_below > MAX_TRACKED:
            raise ValueError(
                f"prune filters: expected at most {MAX_TRACKED} types to count, found {n_below}"
            )
        self._xw = X_TOTAL + n_below
        self._pw = P_BELOW + n_below
        self._row_width = O_BELOW + n_below
        self._lay_scalars(n_below)
        self._d = array("q", bytes(8 * D_WIDTH * (reachable.depth() + 1)))
        self._x = rows_of(graph, self._xw)
        self._fill_scores()
        reachable.fill_totals(self._x, self._xw, self._tracked)
        self._rows = array("q", bytes(8 * ROWS * self._row_width))
        self._kept = array("q", bytes(8 * ROWS * self._row_width))
        self._touched: dict[int, list[int]] | None = None
        self._s[S_ROW_LIMIT] = ROWS
        self._points = array("q")
        self._compiler = Compiler(graph.types, self._tracked, self.flexible)
        self._tables: dict[int, tuple[MatchJobspec, list[Table], Table]] = {}
        self._ok_cache: dict[str, array[int]] = {}
        self._property_changes = graph.property_changes
        reachable.clear_timelines()
        growth, self._growth = self._growth, None  # to put bookings back changes nothing
        for job_id, booking in list(self.bookings.items()):
            self._widen(booking)
            rows, n_rows = booking.rows, booking.n_rows
            self._book(job_id, rows, n_rows, booking.start, booking.end, booking.allocated)
        self._growth = growth
        self._nodes = reachable.of_type("node")
        self._nodes_up = sum(1 for node in self._nodes if graph.status(node) == UP)

    def _widen(self, booking: Booking) -> None:
        """Let a booking's rows have room for types that are counted since it was made."""
        width = len(booking.rows) // max(1, booking.n_rows)
        if booking.n_rows and width != self._row_width:
            rows = living.split(booking.rows, booking.n_rows, width)
            booking.rows = living.join(living.widened(rows, self._row_width))

    def _lay_scalars(self, n_below: int) -> None:
        graph = self.graph
        n_types = len(graph.types)
        before = self._s
        self._s = s = array("q", bytes(8 * (S_TYPES + 2 * n_types)))
        if len(before):
            s[S_TICK], s[S_COLOR] = before[S_TICK], before[S_COLOR]
        s[S_FREE] = -1
        s[S_BELOW] = n_below
        s[S_POINT_WIDTH] = self._pw
        s[S_LIMIT] = len(self._w) // A_WIDTH
        s[S_DOMINANT] = graph.subsystems.find(self.subsystems[0])
        s[S_FIRST] = int(self.policy.first)
        s[S_VERTEX_ORDER] = self.policy.vertex_order
        s[S_GRAPH_ORDER] = self.policy.graph_order
        s[S_SLOT_ORDER] = self.policy.slot_order
        s[S_TREE] = int(self._reach.is_tree)
        s[S_FLEXIBLE] = int(self.flexible)
        s[S_SLOT_TYPE] = graph.types.number("slot")
        s[S_N_TYPES] = n_types
        s[S_N_AUX] = len(self.subsystems) - 1
        for k, name in enumerate(self.subsystems[1:]):
            s[S_AUX + k] = graph.subsystems.find(name)
        s[S_AUX_ROOT] = int(len(self.subsystems) > 1)
        self._counted: list[list[int]] = []
        self._last = array("q", [-1] * n_types)
        for number, name in enumerate(graph.types):
            columns = [self._tracked[type] for type in self._filters.at(name, graph.types)]
            self._counted.append(columns)
            mask = 0
            for column in columns:
                mask |= 1 << column
            if columns:
                self._last[number] = columns[-1]
            s[S_TYPES + number] = mask << 1
            s[S_TYPES + n_types + number] = self._tracked.get(name, -1)
        self._whole: frozenset[str] = frozenset()
        self._take_whole(self.policy.whole_types)

    def _take_whole(self, types: frozenset[str]) -> None:
        """Vertices of these types are taken with everything below them."""
        if types != self._whole:
            for name in types ^ self._whole:
                number = self.graph.types.find(name)
                if number >= 0:
                    self._s[S_TYPES + number] ^= 1
            self._whole = types

    def _fill_scores(self) -> None:
        scores = self.policy.scores(self.graph, self.subsystems[0])
        set_column(self._x, self._xw, X_SCORE, scores)

    def _arrays(self) -> tuple[Any, ...]:
        """The first arguments of `booking.request`, as they are to be handed over."""
        if self._faces is None:
            graph = self.graph
            face = self._tier.face
            self._none = face(_NONE)
            self._faces = (
                face(graph.v),
                face(graph.e),
                face(graph.ew),
                face(graph.out),
                face(graph.by_weight),
                face(graph.sources),
                face(graph.uniq),
                face(self._x),
                face(self._points),
                face(self._s),
                face(self._w),
                face(self._d),
                face(self._rows),
                face(self._kept),
                face(self._last),
                self._xw,
                len(self._d) // D_WIDTH,
                self.root,
                len(self._kept) // self._row_width,
            )
        return self._faces

    def _grow_arena(self) -> None:
        self._faces = None
        self._w = array("q", bytes(4 * self._w.itemsize * len(self._w)))
        self._s[S_LIMIT] = len(self._w) // A_WIDTH

    def _grow_rows(self) -> None:
        self._faces = None
        self._rows = array("q", bytes(4 * self._rows.itemsize * len(self._rows)))
        self._kept = array("q", bytes(len(self._rows) * self._rows.itemsize))
        self._s[S_ROW_LIMIT] = len(self._rows) // self._row_width

    def _need_points(self, n: int) -> None:
        """Make sure that so many more points of timelines can be made."""
        s = self._s
        if n <= s[S_FREE_ROWS]:
            return
        self._faces = None
        have = len(self._points) // self._pw
        size = max(POINTS, 2 * have, have + 2 * n)
        points = array("q", bytes(8 * size * self._pw))
        points[: len(self._points)] = self._points
        link_rows(points, self._pw, have, size, s[S_FREE])
        self._points = points
        s[S_FREE] = have
        s[S_FREE_ROWS] += size - have

    # -- requests -------------------------------------------------------------------------------

    def _compile(self, job: MatchJobspec) -> tuple[list[Table], Table]:
        """The tables of a request: each variant of it, and the whole as it stands."""
        known = self._tables.get(id(job))
        if known is not None and known[0] is job:
            return known[1], known[2]
        tables = [
            self._compiler.table(variant) for variant in variants(job.resources, self.flexible)
        ]
        whole = tables[0] if len(tables) == 1 else self._compiler.table(job.resources)
        if len(self._tables) >= REMEMBERED:
            self._tables.clear()
        self._tables[id(job)] = (job, tables, whole)
        return tables, whole

    def prepare(self, job: MatchJobspec) -> None:
        """Translate a request before it is matched, such as while it waits in a queue.

        Raises ValueError for what a flexible request may not have.
        """
        self._compile(job)

    def _eligible(self, constraint: Any) -> array[int]:
        """0 for each vertex that an RFC 31 constraint excludes; empty when there is none."""
        if not constraint:
            return _NONE
        graph = self.graph
        if graph.property_changes != self._property_changes:
            self._ok_cache.clear()
            self._property_changes = graph.property_changes
        text = rfc31.canonical(constraint)
        found = self._ok_cache.get(text)
        if found is None:
            found = array("q", [1]) * graph.n_vertices
            for type in ("node", "storage_node"):
                for vertex in self._reach.of_type(type):
                    found[vertex] = rfc31.evaluate(
                        constraint,
                        properties=graph.properties.get(vertex, {}),
                        hostname=graph.name(vertex),
                        rank=graph.ranks[vertex],
                    )
            if len(self._ok_cache) >= REMEMBERED:
                self._ok_cache.clear()
            self._ok_cache[text] = found
        return found

    def _select(
        self, tables: Sequence[Table], ok: array[int], kind: int, at: int, end: int
    ) -> tuple[int, Table]:
        """Mark what a request would take; returns UNFIT, IMPOSSIBLE or 0, and the variant."""
        s = self._s
        s[S_KIND] = kind
        s[S_AT] = at
        s[S_END] = end
        result = UNFIT
        for table in tables:
            begin = self._starts(table)
            arrays = self._arrays()
            starts, best, n_starts = self._none, self._none, -1
            if begin is not None:
                starts, best, n_starts = *map(self._face, begin), len(begin[0])
            req = self._face(table.rows)
            eligible = self._face(ok) if len(ok) else self._none
            while True:
                result = self._tier.kernels["request"](
                    *arrays,
                    eligible,
                    len(ok),
                    req,
                    table.width,
                    table.top,
                    starts,
                    best,
                    n_starts,
                )
                if result > FULL or result == IMPOSSIBLE:
                    break
                self._grow(result)
                arrays = self._arrays()
            self._visited += s[S_PRE]
            self._fit += s[S_POST]
            if not self._tier.compiled:
                self._tier.worked(s[S_PRE])
            if result == 0:
                return 0, table
        return result, tables[-1]

    def _grow(self, what: int) -> None:
        """Make room for what a kernel had too little of."""
        if what == FULL_POINTS:
            self._need_points(2 * self._s[S_CARRIERS])
        elif what == FULL_ROWS:
            self._grow_rows()
            self._grow_arena()
        else:
            self._grow_arena()

    def _starts(self, table: Table) -> tuple[array[int], array[int]] | None:
        """Where to begin a search that goes from the best candidate on; None: walk them all.

        Only on large graphs: which of equal candidates a walk of all would take cannot be told
        without it.
        """
        policy = self.policy
        order = policy.graph_order
        if (
            policy.first
            or policy.volatile
            or self.flexible
            or table.top != 1
            or len(self.subsystems) > 1
            or not self._reach.large
            or order not in (ORDER_GREATER, ORDER_LESS)
            or policy.slot_order != order
        ):
            return None
        key = table.rows.tobytes()
        if key not in self._begins:
            if len(self._begins) >= REMEMBERED:
                self._begins.clear()
            self._begins[key] = self._best_starts(table)
        return self._begins[key]

    def _best_starts(self, table: Table) -> tuple[array[int], array[int]] | None:
        import numpy as np

        starts = self._reach.starts(self._x, self._xw, table)
        if starts is None:
            return None
        best = array("q", bytes(8 * len(starts)))
        arrays = self._arrays()
        self._tier.kernels["bounds"](
            arrays[A_V],
            arrays[A_E],
            arrays[A_OUT],
            arrays[A_X],
            self._xw,
            self._face(table.rows),
            table.width,
            arrays[A_S],
            self._face(starts),
            len(starts),
            self._face(best),
        )
        bounds = np.frombuffer(best, dtype="q")
        sorted_by_bound = np.argsort(bounds, kind="stable")
        return (
            array("q", np.frombuffer(starts, dtype="q")[sorted_by_bound].tobytes()),
            array("q", bounds[sorted_by_bound].tobytes()),
        )

    def _face(self, words: array[int]) -> Any:
        return self._tier.face(words)

    # -- operations -----------------------------------------------------------------------------

    def match(
        self, op: str, job: MatchJobspec, job_id: int, writer: Writer | None, at: int = 0
    ) -> Outcome:
        """Find resources for a job; take or reserve them when ``op`` (see OPERATIONS) says so.

        ``at`` is the present, in whole seconds. When it matched, ``writer`` has what was found.
        """
        if op not in OPERATIONS:
            raise ValueError(f"match: expected one of {', '.join(OPERATIONS)}, found {op[:40]!r}")
        self._begin()
        if job_id in self.bookings and not op.startswith(("without", "satisf")):
            return Outcome("invalid", at, f"job {job_id} has resources already")
        if not job.resources:
            return Outcome("invalid", at, "resources: expected at least one, found none")
        if not 0 <= job.duration <= self.expiration:
            return Outcome(
                "invalid",
                at,
                f"duration: expected at most {self.expiration} s, found {job.duration:g} s",
            )
        duration = ceil(job.duration) or self.expiration
        try:
            tables, whole = self._compile(job)
        except ValueError as error:
            return Outcome("invalid", at, str(error))
        if self.policy.volatile:
            self._fill_scores()
        usual = self.policy.whole_types
        if whole.whole_types <= usual:
            return self._match(op, job, job_id, writer, at, duration, tables, whole)
        self._take_whole(usual | whole.whole_types)
        try:
            return self._match(op, job, job_id, writer, at, duration, tables, whole)
        finally:
            self._take_whole(usual)

    def _match(
        self,
        op: str,
        job: MatchJobspec,
        job_id: int,
        writer: Writer | None,
        now: int,
        duration: int,
        tables: list[Table],
        whole: Table,
    ) -> Outcome:
        ok = self._eligible(job.constraint)
        self._s[S_NOW] = now
        if op == "satisfiability":
            status, _ = self._select(tables, ok, KIND_SATISFY, FAR, FAR + duration)
            return Outcome("matched" if status == 0 else "unsatisfiable", now)
        looking = op.startswith("without")
        kind = KIND_LOOK if looking else KIND_ALLOCATE
        lacking = self._too_few_nodes(op, whole, ok, now, duration)
        if lacking:
            return Outcome(lacking, now)
        if now >= self.expiration:
            return Outcome("busy", now)
        at = now
        status, table = self._select(tables, ok, kind, *self._span(at, duration))
        if status != 0 and op in ("allocate_orelse_reserve", "without_allocating_future"):
            if not looking:
                kind = KIND_RESERVE
            needs = array("q", whole.needs)
            while status != 0:
                at = self._first_time(needs, at + 1, duration)
                if at < 0:
                    break
                if self._growth and self._growth.hides(at, needs[self._first_column()]):
                    continue
                if at >= self.expiration:
                    kind = KIND_PROBE  # it would start too late: that is all there is to know
                status, table = self._select(tables, ok, kind, *self._span(at, duration))
            if status == 0 and at >= self.expiration:
                return Outcome("busy" if at == self.expiration else "invalid", now)
        if status != 0:
            if op in ("allocate", "without_allocating"):
                return Outcome("busy", now)
            status, _ = self._select(tables, ok, KIND_SATISFY, FAR, FAR + duration)
            return Outcome("busy" if status == 0 else "unsatisfiable", now)
        at, end = self._span(at, duration)
        n_rows = self._s[S_ROWS]
        if not looking:
            self._note(job_id, self._s[S_CARRIERS], at, end, kind == KIND_ALLOCATE)
        if writer is not None:
            self._emit(writer, n_rows, table.labels, at, end, job.queue)
        return Outcome("matched", at)

    def _span(self, at: int, duration: int) -> tuple[int, int]:
        """When what starts at ``at`` starts and ends: with the graph at last."""
        return at, at + duration if at >= self.expiration else min(at + duration, self.expiration)

    def _first_time(self, needs: array[int], after: int, duration: int) -> int:
        arrays = self._arrays()
        found: int = self._tier.kernels["first_time"](
            arrays[A_V],
            arrays[A_X],
            self._xw,
            arrays[A_P],
            arrays[A_S],
            self.root,
            self._face(needs),
            after,
            duration,
        )
        return found

    def _too_few_nodes(
        self, op: str, whole: Table, ok: array[int], now: int, duration: int
    ) -> str | None:
        """Refuse at once what asks for more nodes than are up and meet its constraint."""
        column = self._tracked.get("node")
        wanted = whole.needs[column] if column is not None else 0
        satisfying = op == "allocate_with_satisfiability"
        refusal = "unsatisfiable" if satisfying else "busy"
        if wanted > self._nodes_up:
            return refusal
        if not len(ok) or wanted == 0:
            return None
        at = now if op in ("allocate", "without_allocating") else self.expiration - 1
        fit = 0
        graph = self.graph
        for node in self._nodes:
            if ok[node] and (satisfying or graph.status(node) == UP):
                taken = self._peak(node, at, at + duration, P_UNITS)
                fit += graph.sizes[node] - taken == 1
                if fit >= wanted:
                    return None
        return refusal

    def _peak(self, vertex: int, at: int, end: int, column: int) -> int:
        """The most that a vertex carries in [at, end)."""
        v = self.graph.v
        for above in living.up(self.graph, self.subsystems[0], vertex):
            head = v[above * V_WIDTH + V_HEAD]
            if peak(self._points, self._pw, head, at, end, P_WHOLE):
                return self.graph.sizes[vertex]
        return peak(self._points, self._pw, v[vertex * V_WIDTH + V_HEAD], at, end, column)

    def _walk(self, needs: int, exclusive: int) -> int:
        """Write what was marked into the first rows of `_rows`; how many."""
        while True:
            v, e, ew, out, _, _, _, x, _, s, w, _, rows, *_ = self._arrays()
            found = self._tier.kernels["walk"](
                v, e, ew, out, x, self._xw, s, w, rows, self.root, needs, exclusive
            )
            if found != FULL:
                return self._s[S_ROWS]
            self._grow(FULL_ROWS)

    def _book(
        self, job_id: int, rows: array[int], n_rows: int, start: int, end: int, allocated: bool
    ) -> None:
        """Let a job hold what rows say."""
        while len(self._kept) < n_rows * self._row_width:
            self._grow_rows()
        face = self._face(rows)
        carriers = self._tier.kernels["carriers_of"](self._arrays()[A_S], face, n_rows)
        self._need_points(2 * carriers)
        arrays = self._arrays()
        self._tier.kernels["book"](
            arrays[A_V],
            arrays[A_P],
            arrays[A_S],
            face,
            n_rows,
            start,
            end,
            int(allocated),
            arrays[A_KEPT],
            len(self._kept) // self._row_width,
        )
        self._note(job_id, carriers, start, end, allocated)

    def _note(self, job_id: int, carriers: int, start: int, end: int, allocated: bool) -> None:
        """Remember what was booked last for a job."""
        kept = self._kept[len(self._kept) - carriers * self._row_width :]
        self.bookings[job_id] = Booking(kept, carriers, start, end, allocated)
        self._touched = None
        if self._growth:
            self._growth.spanned(start, end)

    def _release(self, job_id: int) -> Booking:
        """Let a job hold nothing any more; returns what it held."""
        booking = self.bookings.pop(job_id)
        arrays = self._arrays()
        self._tier.kernels["release"](
            arrays[A_V],
            arrays[A_P],
            arrays[A_S],
            self._face(booking.rows),
            booking.n_rows,
            booking.start,
            booking.end,
            int(booking.allocated),
        )
        self._touched = None
        if self._growth:
            self._growth.spanned(booking.start, booking.end)
        return booking

    def _reweigh(self, n_rows: int, now: int) -> None:
        if self.policy.first:
            v, e, ew, _, by_weight, sources, uniq, x, p, s, _, _, rows, _, last, *_ = self._arrays()
            self._tier.kernels["reweigh"](
                v, e, ew, by_weight, sources, uniq, x, self._xw, p, s, last, rows, n_rows, now
            )

    def _emit(
        self,
        writer: Writer,
        n_rows: int,
        labels: list[str],
        start: int,
        end: int,
        queue: str,
    ) -> None:
        """Tell a writer what the first rows say."""
        width = self._row_width
        rows = self._rows[: n_rows * width]
        if len(labels) > 1:
            emission.labelled(writer, rows, width, self._label_of(labels))
        elif isinstance(writer, WholeWriter):
            emission.wholes(writer, rows, width)
        else:
            emission.replay(writer, rows, width)
        if n_rows:
            writer.times(start, end)
            if queue:
                writer.attribute("queue", queue)

    def _label_of(self, labels: list[str]) -> Callable[[int], str]:
        x, xw, tick = self._x, self._xw, self._s[S_TICK]

        def label_of(vertex: int) -> str:
            label = x[vertex * xw + X_LABEL]
            return labels[label % LABELS] if label // LABELS == tick else ""

        return label_of

    def cancel(self, job_id: int) -> None:
        """Give back all that a job has. Raises KeyError: no such job."""
        self._cancelled = self._release(job_id)

    @property
    def row_width(self) -> int:
        """Words of a row of a booking."""
        return self._row_width

    # -- for who plans beside -------------------------------------------------------------------

    def next_start(self, job: MatchJobspec, after: int) -> int:
        """The first time, at ``after`` or later, when as much as a job needs is left in all, as far
        as it is counted, for as long as it runs; -1 when there is none."""
        _, whole = self._compile(job)
        return self._first_time(array("q", whole.needs), after, ceil(job.duration))

    def reserve_at(self, job: MatchJobspec, job_id: int, start: int, now: int) -> bool:
        """Reserve resources from ``start`` on and at no other time; whether there were any."""
        self._begin()
        tables, whole = self._compile(job)
        duration = ceil(job.duration)
        if self.policy.volatile:
            self._fill_scores()
        self._s[S_NOW] = now
        ok = self._eligible(job.constraint)
        self._take_whole(self.policy.whole_types | whole.whole_types)
        try:
            status, _ = self._select(tables, ok, KIND_RESERVE, start, start + duration)
        finally:
            self._take_whole(self.policy.whole_types)
        if status != 0:
            return False
        self._note(job_id, self._s[S_CARRIERS], start, start + duration, False)
        return True

    def hold(self, job_id: int, units: Mapping[int, int], start: int, end: int) -> bool:
        """Let a job have so many units of these vertices, whatever a request would have found.

        False when that much is not free; nothing has changed then.
        """
        self._begin()
        for vertex, needs in units.items():
            if self.graph.sizes[vertex] - self._peak(vertex, start, end, P_UNITS) < needs:
                return False
        columns = {self.graph.types.find(name): k for name, k in self._tracked.items()}
        rows = living.rows_for(self.graph, self.subsystems[0], units, columns, len(self._tracked))
        self._book(job_id, living.join(rows), len(rows), start, end, True)
        return True

    def prolong(self, job_id: int, end: int) -> None:
        """Let a job have what it has until then. Raises KeyError: no such job."""
        booking = self._release(job_id)
        rows, n_rows = booking.rows, booking.n_rows
        self._book(job_id, rows, n_rows, booking.start, end, booking.allocated)

    # -- a living graph -------------------------------------------------------------------------

    def update(
        self,
        job_id: int,
        text: str,
        format: str,
        at: int,
        duration: int,
        writer: Writer | None,
        *,
        reserve: bool = False,
    ) -> Outcome:
        """Give a job the resources that a file names (R or JGF), from ``at`` on.

        ``invalid`` when the file makes no sense for this graph or the resources are not free;
        nothing has changed then.
        """
        from flux_mpi.resource.readers import ReaderError, read_allocation

        self._begin()
        if job_id in self.bookings:
            return Outcome("invalid", at, f"job {job_id} has resources already")
        try:
            allocation = read_allocation(self.graph, text, format)
        except ReaderError as error:
            return Outcome("invalid", at, str(error))
        end = at + duration
        for vertex, needs, exclusive in allocation.vertices:
            left = self.graph.sizes[vertex] - self._peak(vertex, at, end, P_UNITS)
            if left < (needs if exclusive else self.graph.sizes[vertex]):
                return Outcome("invalid", at, f"{self.graph.name(vertex)} is taken already")
        self._s[S_TICK] += 1
        living.mark(self.graph, allocation, self._s[S_TICK])
        told = self.subsystems[0]
        needs, whole = allocation.roots.get(told, (0, False))
        n_rows = self._walk(needs, int(whole)) if told in allocation.roots else 0
        emitted = self._rows[: n_rows * self._row_width]
        rows = living.split(emitted, n_rows, self._row_width)
        rows = living.take(rows, allocation, len(self._tracked))
        self._book(job_id, living.join(rows), len(rows), at, end, not reserve)
        self._reweigh(n_rows, at)
        if writer is not None and n_rows:
            self._emit(writer, n_rows, [""], at, end, "")
        return Outcome("matched", at)

    def partial_cancel(self, job_id: int, text: str, format: str) -> bool:
        """Take back the resources of a job that a file names; True when it has none left.

        Raises `MatchError`, and then nothing has changed.
        """
        from flux_mpi.resource.readers import ReaderError, read_release

        booking = self.bookings.get(job_id)
        if booking is None:
            raise MatchError(f"job {job_id} has no resources")
        try:
            release = read_release(self.graph, text, format)
        except ReaderError as error:
            raise MatchError(str(error)) from error
        rows = self._all_rows(booking)
        taken = {row[O_INDEX] for row in rows if row[O_TAKEN]}
        by_rank = self.graph.by_rank()
        gone = set(release.vertices)
        if not gone <= taken:
            other = self.graph.name(min(gone - taken))
            raise MatchError(f"job {job_id} does not hold {other}")
        for rank in release.ranks:
            there = set(by_rank.get(rank, ()))
            if not there & taken:
                raise MatchError(f"job {job_id} holds nothing on rank {rank}")
            gone |= there
        self._begin()
        self._give_back(job_id, gone)
        return job_id not in self.bookings

    def _all_rows(self, booking: Booking) -> list[living.Row]:
        """A booking's rows with those for what is below vertices that are taken whole."""
        return living.expanded(
            self.graph,
            self.subsystems[0],
            living.split(booking.rows, booking.n_rows, self._row_width),
            self._totals,
        )

    def _totals(self, vertex: int) -> list[int]:
        base = vertex * self._xw + X_TOTAL
        return list(self._x[base : base + len(self._tracked)])

    def _give_back(self, job_id: int, gone: set[int]) -> None:
        """Free some vertices of a job."""
        booking = self._release(job_id)
        columns = {self.graph.types.find(name): k for name, k in self._tracked.items()}
        rows = living.without(
            self.graph, self.subsystems[0], self._all_rows(booking), gone, columns
        )
        if any(row[O_TAKEN] for row in rows):
            joined = living.join(rows)
            self._book(job_id, joined, len(rows), booking.start, booking.end, booking.allocated)

    def attach(self, text: str, format: str = "jgf") -> None:
        """Add what a file describes to the graph. Raises `MatchError`; nothing has changed then."""
        from flux_mpi.resource.readers import ReaderError, attach

        self._note_growth()
        before = {job_id: self._all_rows(booking) for job_id, booking in self.bookings.items()}
        try:
            new = attach(self.graph, text, format)
        except ReaderError as error:
            raise MatchError(str(error)) from error
        # Who had all that was below a vertex does not have what came.
        grown = {
            above for vertex in new for above in living.up(self.graph, self.subsystems[0], vertex)
        }
        for job_id, rows in before.items():
            booking = self.bookings[job_id]
            booking.rows, booking.n_rows = living.join(rows), len(rows)
            living.uncover(booking.rows, self._row_width, grown)
        self._prepare()

    def remove_path(self, path: str) -> None:
        """Remove the vertex of a path and all below it. Raises `MatchError`."""
        found = self.graph.find_path(path)
        if not found:
            raise MatchError(f"path: no vertex {path[:200]!r} in the graph")
        self._remove(self._below(found))

    def remove_ranks(self, ranks: Iterable[int]) -> None:
        """Remove all vertices of some ranks. Raises `MatchError`."""
        by_rank = self.graph.by_rank()
        gone: set[int] = set()
        for rank in ranks:
            if rank not in by_rank:
                raise MatchError(f"rank {rank}: no vertex in the graph has it")
            gone.update(by_rank[rank])
        self._remove(gone)

    def _below(self, vertices: Iterable[int]) -> set[int]:
        subsystem = self.subsystems[0]
        return {u for vertex in vertices for u in self.graph.below(vertex, subsystem)}

    def _remove(self, gone: set[int]) -> None:
        """Jobs lose what they hold there."""
        if self.root in gone:
            raise MatchError("the root of the graph cannot be removed")
        for job_id, booking in list(self.bookings.items()):
            if any(row[O_INDEX] in gone for row in self._all_rows(booking)):
                self._give_back(job_id, gone)
        self._note_growth()
        self.graph.remove(gone)
        self.graph.freeze()
        self._prepare()

    def mark_path(self, path: str, status: int) -> None:
        """Let the vertex of a path be up or down. Raises `MatchError`."""
        found = self.graph.find_path(path)
        if not found:
            raise MatchError(f"path: no vertex {path[:200]!r} in the graph")
        changed = [vertex for vertex in found if self.graph.status(vertex) != status]
        for vertex in changed:
            self.graph.set_status(vertex, status)
        nodes = sum(1 for u in self._below(changed) if self.graph.type(u) == "node")
        self._nodes_up += nodes if status == UP else -nodes

    def mark(self, nodes: Iterable[int], status: int) -> None:
        """Let nodes, named by their vertices, be up or down."""
        for node in nodes:
            if self.graph.status(node) != status:
                self.graph.set_status(node, status)
                self._nodes_up += 1 if status == UP else -1

    def mark_ranks(self, ranks: Iterable[int], status: int) -> None:
        """Let all vertices of some ranks be up or down; unknown ranks are passed over."""
        by_rank = self.graph.by_rank()
        for rank in ranks:
            if rank in by_rank:
                top = living.top_of_rank(self.graph, by_rank[rank], self.subsystems[0])
                if self.graph.status(top) != status:
                    self.graph.set_status(top, status)
                    self._nodes_up += 1 if status == UP else -1

    @property
    def preorder(self) -> int:
        """Vertices that the last operation visited."""
        if self._cancelled is None:
            return self._visited
        # A cancel looks for the job from the root down: at what it holds and what is next to that.
        return 1 + sum(
            len(self.graph.edges_from(row[O_INDEX], self.subsystems[0]))
            for row in self._all_rows(self._cancelled)
        )

    @property
    def postorder(self) -> int:
        """Vertices that the last operation found fit."""
        return self._fit if self._cancelled is None else len(self._all_rows(self._cancelled))

    def _begin(self) -> None:
        """An operation begins. Only now kernels may change: faces made before would not fit."""
        if self._tier.poll():
            self._faces = None
        self._visited = self._fit = 0
        self._cancelled = None

    # -- what is scheduled ----------------------------------------------------------------------

    def _touching(self, vertex: int) -> list[tuple[int, Booking, living.Row]]:
        """(job, its booking, its row for a vertex) of all jobs that touch it."""
        if self._touched is None:
            self._touched = {}
            for job_id, booking in self.bookings.items():
                rows = booking.rows
                for base in range(0, len(rows), self._row_width):
                    self._touched.setdefault(rows[base + O_INDEX], []).append(job_id)
        found = []
        for above in [vertex, *living.up(self.graph, self.subsystems[0], vertex)]:
            for job_id in self._touched.get(above, ()):
                booking = self.bookings[job_id]
                for row in living.split(booking.rows, booking.n_rows, self._row_width):
                    if row[O_INDEX] != above:
                        continue
                    if above == vertex:
                        found.append((job_id, booking, row))
                    elif row[O_WHOLE]:
                        below = self._totals(vertex)
                        row = [*row[:O_BELOW], *below]
                        row[O_TAKEN], row[O_ANY_BELOW] = 1, int(any(below))
                        found.append((job_id, booking, row))
        return found

    def allocations(self, vertex: int) -> list[int]:
        """The jobs that hold some of a vertex now."""
        return [
            job_id
            for job_id, booking, row in self._touching(vertex)
            if booking.allocated and row[O_TAKEN]
        ]

    def reservations(self, vertex: int) -> list[int]:
        """The jobs that some of a vertex is reserved for."""
        return [
            job_id
            for job_id, booking, row in self._touching(vertex)
            if not booking.allocated and row[O_TAKEN]
        ]

    def tags(self, vertex: int) -> list[int]:
        """The jobs that hold a vertex or something below it."""
        return [job_id for job_id, _, _ in self._touching(vertex)]

    def spans(self, vertex: int) -> list[int]:
        """The jobs that are counted in a vertex's aggregates."""
        if not self.tracked(vertex):
            return []
        return [job_id for job_id, _, row in self._touching(vertex) if row[O_ANY_BELOW]]

    def tracked(self, vertex: int) -> list[tuple[str, int]]:
        """The types that a vertex counts below it, with the units there are."""
        v = self.graph.v
        if v[vertex * V_WIDTH + V_OUT] == v[vertex * V_WIDTH + V_OUT_END]:
            return []
        names = list(self._tracked)
        return [
            (names[column], self._x[vertex * self._xw + X_TOTAL + column])
            for column in self._counted[v[vertex * V_WIDTH + V_TYPE]]
        ]

    def _first_column(self) -> int:
        return self._column(self.root, 0)

    def _note_growth(self) -> None:
        """Before totals change: remember what is left at each point of the root's timeline."""
        if self._growth is None or not self.tracked(self.root):
            return
        column = self._first_column()
        total = self._x[self.root * self._xw + X_TOTAL + column]
        left = {}
        row = self.graph.v[self.root * V_WIDTH + V_HEAD]
        while row >= 0:
            base = row * self._pw
            left[self._points[base + P_TIME]] = total - self._points[base + P_BELOW + column]
            row = self._points[base + P_NEXT]
        self._growth.changed(left)

    def _column(self, vertex: int, index: int) -> int:
        return self._counted[self.graph.v[vertex * V_WIDTH + V_TYPE]][index]

    def used(self, vertex: int, index: int, at: int) -> int:
        """Units taken at ``at`` of the ``index``-th type that a vertex counts."""
        v = self.graph.v
        for above in [vertex, *living.up(self.graph, self.subsystems[0], vertex)]:
            if level(self._points, self._pw, v[above * V_WIDTH + V_HEAD], at, P_WHOLE):
                return self.tracked(vertex)[index][1]
        column = P_BELOW + self._column(vertex, index)
        return level(self._points, self._pw, self.graph.v[vertex * V_WIDTH + V_HEAD], at, column)

    def planned(self, vertex: int, job_id: int) -> list[int]:
        """Units that a job takes of each type that a vertex counts."""
        for found, _, row in self._touching(vertex):
            if found == job_id:
                return [
                    row[O_BELOW + self._column(vertex, index)]
                    for index in range(len(self.tracked(vertex)))
                ]
        return []
