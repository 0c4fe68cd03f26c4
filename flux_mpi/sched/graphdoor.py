"""The graph door of an instance: every request, in nodes and cores or as a graph, on one `Matcher`.

Times of a `Matcher` are whole seconds, here since the first request. What runs or is reserved is
rounded outwards to them, so that nothing is thought to be free before it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count as counter
from math import ceil, floor, inf
from typing import Any

from flux_mpi.formats import graphshape
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.request import MatchJobspec
from flux_mpi.formats.rv1 import RSet
from flux_mpi.resource.graph import DOWN, UP
from flux_mpi.resource.owngraph import NONE, PLAIN, OwnGraph
from flux_mpi.resource.writers import Writer, create_writer
from flux_mpi.sched.base import Reservation
from flux_mpi.sched.graphtier import GraphTier
from flux_mpi.sched.holdings import Holding, Holdings
from flux_mpi.sched.machine import Machine
from flux_mpi.sched.matcher import Matcher
from flux_mpi.sched.placement import Placement
from flux_mpi.sched.planner import FOREVER_S
from flux_mpi.sched.reasons import why_not
from flux_mpi.sched.settings import GraphSettings
from flux_mpi.sched.translate import Ask, ask, count_slots, spread

OVERDUE_S = 2
"""What should have ended by now, such as tasks that are being killed, is expected to in this."""

NEVER, ENDLESS = 1 << 45, 1 << 44
"""When the graph ends, and when what has no limit is expected to: after all that has one."""

NOBODY = IDSet([(1 << 31) - 2])
"""A rank that there never is: a constraint that nothing meets."""

INTERNED = 1 << 14
"""Placements remembered for reuse."""

MAX_STARTS = 2000
"""Points in time at which a reservation is tried: there is enough in all by then, and yet it does
not fit together. An instance must not stand still over that."""

_PLURALS = {"core": "cores", "gpu": "GPUs"}

REMEMBERED = 256
"""Shapes whose translation is kept."""


class Held(Reservation):
    """A reservation, and the matcher's bookings that it consists of."""

    __slots__ = ("ids",)

    def __init__(self, start: float, end: float, ids: list[int]) -> None:
        super().__init__(start, end)
        self.ids = ids


class GraphDoor:
    """What is free on a graph now and later. Raises ValueError for settings that make no sense."""

    def __init__(self, own: OwnGraph, machine: Machine, settings: GraphSettings) -> None:
        self.own = own
        self.machine = machine
        self.matcher = Matcher(
            own.graph,
            policy=settings.match_policy,
            prune_filters=settings.prune_filters,
            traverser=settings.traverser,
            expiration=NEVER,
            tier=GraphTier(own.graph.n_vertices, settings.kernel),
        )
        self.holdings = Holdings(own)
        self._writer = create_writer("jgf", own.graph)
        self._rich = not own.plain
        self._containers = _containers(own)
        self._epoch: int | None = None
        self._ids = counter(1)
        self._asks: dict[Shape, tuple[Ask, list[MatchJobspec]]] = {}
        self._spreads: dict[tuple[Shape, int], MatchJobspec] = {}
        self._held: dict[int, tuple[Placement, list[int]]] = {}
        self._special: set[int] = set()
        """Those of them that the bitmap door could not know: what a request for a graph got, and
        what runs on something that is no longer there."""
        self._ends: list[tuple[int, int]] = []
        self._reserved: set[int] = set()
        self._interned: dict[tuple[Any, ...], Placement] = {}
        self._up = IDSet()
        self.matcher.mark(own.node_of.values(), DOWN)

    # -- time -----------------------------------------------------------------------------------

    def _at(self, now: float) -> int:
        """The matcher's present. What should have ended by then is expected to soon."""
        if self._epoch is None:
            self._epoch = floor(now)
        at = max(0, floor(now) - self._epoch)
        ends, bookings = self._ends, self.matcher.bookings
        while ends and ends[0][0] <= at:
            end, job_id = heappop(ends)
            booking = bookings.get(job_id)
            if booking is not None and booking.end == end:
                self.matcher.prolong(job_id, at + OVERDUE_S)
                heappush(ends, (at + OVERDUE_S, job_id))
        return at

    def _seconds(self, now: float, at: int, duration: float | None) -> int:
        """How long a job that starts now has to have its resources."""
        if duration is None or duration >= FOREVER_S:
            # Longer than all that runs without a limit already, if something waits for that.
            return ENDLESS - at + (int(FOREVER_S) if self._reserved else 0)
        assert self._epoch is not None
        return max(1, ceil(now + duration - self._epoch) - at)

    def _expect(self, ids: Iterable[int]) -> None:
        for job_id in ids:
            heappush(self._ends, (self.matcher.bookings[job_id].end, job_id))
        if len(self._ends) > 4096 and len(self._ends) > 4 * len(self.matcher.bookings):
            known = self.matcher.bookings
            self._ends = sorted(
                (end, job_id)
                for end, job_id in self._ends
                if job_id in known and known[job_id].end == end
            )

    # -- resources ------------------------------------------------------------------------------

    def set_up(self, ranks: IDSet) -> None:
        """Only these ranks may be used for what is new."""
        known = IDSet(rank for rank in self.own.node_of if rank in ranks)
        node_of = self.own.node_of
        self.matcher.mark([node_of[rank] for rank in known - self._up], UP)
        self.matcher.mark([node_of[rank] for rank in self._up - known], DOWN)
        self._up = known

    # -- requests -------------------------------------------------------------------------------

    def _ask(self, shape: Shape, seconds: int) -> tuple[Ask, list[MatchJobspec]]:
        """A shape as the matcher has it, each choice a request of its own for so long."""
        known = self._asks.get(shape)
        if known is None:
            if len(self._asks) >= REMEMBERED:
                self._asks.clear()
                self._spreads.clear()
            asked = ask(shape, self._containers)
            constraint = self._constraint(shape)
            jobs = [MatchJobspec(each, constraint=constraint) for each in asked.choices]
            known = self._asks[shape] = (asked, jobs)
        for job in known[1]:
            job.duration = seconds
        return known

    def _constraint(self, shape: Shape) -> dict[str, Any] | None:
        if not shape.constraint:
            return None
        found: dict[str, Any] = self._by_rank(json.loads(shape.constraint))
        return found

    def _by_rank(self, constraint: dict[str, Any]) -> dict[str, Any]:
        """A constraint with hosts as the instance knows them: a file may name nodes in its own
        way, and ranks share hosts."""
        found: dict[str, Any] = {}
        for operator, operands in constraint.items():
            if operator == "hostlist":
                text = json.dumps({operator: operands})
                hits = self.machine.matching(text)
                ranks = IDSet(rank for rank, hit in zip(self.machine.ranks, hits) if hit)
                found["ranks"] = [str(ranks or NOBODY)]
            elif operator in ("and", "or", "not"):
                found[operator] = [self._by_rank(each) for each in operands]
            else:
                found[operator] = operands
        return found

    def _spread(self, shape: Shape, most: int, job: MatchJobspec) -> MatchJobspec:
        """A request of one node with as many slots as it can take."""
        known = self._spreads.get((shape, most))
        if known is None:
            known = MatchJobspec(spread(shape, most), constraint=job.constraint)
            if len(self._spreads) >= REMEMBERED:
                self._spreads.clear()
            self._spreads[shape, most] = known
        known.duration = job.duration
        return known

    # -- allocation -----------------------------------------------------------------------------

    def alloc(
        self, shape: Shape, count: int, now: float, duration: float | None
    ) -> list[Placement]:
        """See `Scheduler.alloc`."""
        at = self._at(now)
        asked, jobs = self._ask(shape, self._seconds(now, at, duration))
        found: list[Placement] = []
        while len(found) < count:
            ids = self._book_any(shape, asked, jobs, at, at)
            if not ids:
                break
            placement = self._placement(asked, ids)
            if placement is None:
                self._cancel(ids)
                break
            self._expect(ids)
            self._hold(placement, ids)
            if shape.graph:
                self._special.add(id(placement))
            found.append(placement)
        return found

    def _book_any(
        self, shape: Shape, asked: Ask, jobs: Iterable[MatchJobspec], start: int, at: int
    ) -> list[int]:
        """Book the first request that can be had from ``start`` on; none: there is none."""
        for job in jobs:
            ids = self._book(shape, asked, job, start, at)
            if ids:
                return ids
        return []

    def _book(self, shape: Shape, asked: Ask, job: MatchJobspec, start: int, at: int) -> list[int]:
        """Book a request from ``start`` on, ``at`` being the present; none: it does not fit."""
        if not asked.spread:
            job_id = next(self._ids)
            writer = self._writer if self._rich else None
            return [job_id] if self._match(job, job_id, start, at, writer) else []
        ids: list[int] = []
        left = asked.spread
        while left:
            job_id = next(self._ids)
            if not self._match(self._spread(shape, left, job), job_id, start, at):
                self._cancel(ids)
                return []
            ids.append(job_id)
            taken = self._holding([job_id]).taken
            left -= min(
                cores.bit_count() // shape.cores if shape.cores else left for _, cores, _ in taken
            )
        return ids

    def _match(
        self,
        job: MatchJobspec,
        job_id: int,
        start: int,
        at: int,
        writer: Writer | None = None,
    ) -> bool:
        if start > at:
            return self.matcher.reserve_at(job, job_id, start, at)
        return self.matcher.match("allocate", job, job_id, writer, at).status == "matched"

    def _cancel(self, ids: Iterable[int]) -> None:
        for job_id in ids:
            self.matcher.cancel(job_id)

    def _holding(self, ids: Iterable[int]) -> Holding:
        bookings = self.matcher.bookings
        return self.holdings.of((bookings[x] for x in ids), self.matcher.row_width)

    def _placement(self, asked: Ask, ids: list[int]) -> Placement | None:
        """Where a job runs; None: nowhere, for it got neither cores nor GPUs."""
        holding = self._holding(ids)
        text = self._writer.emit()
        if not holding.taken:
            return None
        parts = tuple(count_slots(asked.slots, holding.taken))
        scheduling = text.rstrip("\n")
        key = (parts, scheduling)
        placement = self._interned.get(key)
        if placement is None or id(placement) in self._held:
            hosts = self.machine.resources.hosts
            placement = Placement(
                parts,
                [hosts[part.rank] for part in parts],
                None,
                holding.extras,
                scheduling,
            )
            if len(self._interned) >= INTERNED:
                self._interned.clear()
            self._interned[key] = placement
        return placement

    def _hold(self, placement: Placement, ids: list[int]) -> None:
        self._held[id(placement)] = (placement, ids)

    def free(self, placements: Iterable[Placement]) -> None:
        """Raises ValueError for a placement that is not allocated."""
        for placement in placements:
            held = self._held.pop(id(placement), None)
            if held is None:
                raise ValueError(f"{placement} is not allocated")
            self._special.discard(id(placement))
            self._cancel(held[1])

    def put(self, placement: Placement, now: float, end: float) -> bool:
        """Let something run there that was placed by someone else, until then; False when some of
        that does not exist or is taken."""
        units = self.holdings.units(placement.parts)
        if id(placement) in self._held or len(units) != _size(placement):
            return False
        return self._take(placement, units, now, end)

    def keep(self, placement: Placement, now: float, end: float) -> None:
        """As `put`, as far as there is what it runs on: the rest may come back."""
        units = self.holdings.units(placement.parts)
        if not self._take(placement, units, now, end):
            self._hold(placement, [])
        if len(units) != _size(placement):
            self._special.add(id(placement))

    def _take(self, placement: Placement, units: dict[int, int], now: float, end: float) -> bool:
        at = self._at(now)
        assert self._epoch is not None
        last = ENDLESS if end - now >= FOREVER_S else ceil(end) - self._epoch
        if not units:
            return False
        job_id = next(self._ids)
        if not self.matcher.hold(job_id, units, at, max(at + 1, last)):
            return False
        self._expect([job_id])
        self._hold(placement, [job_id])
        return True

    @property
    def needed(self) -> bool:
        """Whether anything runs or is reserved that only this door knows of."""
        return bool(self._special or self._reserved)

    def running(self, now: float) -> list[tuple[Placement, float]]:
        """What runs, and when each is expected to end."""
        found = []
        epoch = self._epoch or 0
        for placement, ids in self._held.values():
            end = max((self.matcher.bookings[x].end for x in ids), default=0)
            found.append((placement, inf if end >= ENDLESS else float(epoch + end)))
        return found

    # -- planning -------------------------------------------------------------------------------

    def reserve(self, shape: Shape, now: float, duration: float) -> Reservation | None:
        """See `Scheduler.reserve`."""
        at = self._at(now)
        asked, jobs = self._ask(shape, ceil(min(duration, FOREVER_S)) or 1)
        start = at
        for _ in range(MAX_STARTS):
            starts = [self.matcher.next_start(job, start + 1) for job in jobs]
            start = min((found for found in starts if found >= 0), default=-1)
            if start < 0:
                return None
            ids = self._book_any(shape, asked, jobs, start, at)
            if ids:
                self._reserved.update(ids)
                assert self._epoch is not None
                begin = float(self._epoch + start)
                return Held(begin, begin + duration, ids)
        return None

    def release(self, reservations: Iterable[Reservation]) -> None:
        """See `Scheduler.release`."""
        for reservation in reservations:
            if isinstance(reservation, Held):
                ids = [x for x in reservation.ids if x in self._reserved]
                self._reserved.difference_update(ids)
                self._cancel(ids)

    # -- what can be told -----------------------------------------------------------------------

    def infeasible(self, shape: Shape) -> str | None:
        """Why the whole, idle machine could not hold a graph request; None when it could."""
        what = graphshape.text(shape.graph)
        there = self.totals()
        alternatives = graphshape.has_alternatives(shape.graph)
        if alternatives and not self.matcher.flexible:
            return (
                f"unsatisfiable request: {what} has alternatives, "
                "which need sched.traverser = flexible"
            )
        for kind, units in graphshape.totals(shape.graph).items():
            if kind not in there:
                known = ", ".join(sorted(there))
                return f"unsatisfiable request: there is no {kind} in the graph, only {known}"
            if units > there[kind] and not alternatives:
                return (
                    f"unsatisfiable request: {what} needs {units} {kind}, "
                    f"the graph has {there[kind]}"
                )
        if not self._can_run(shape):
            return (
                f"unsatisfiable request: {what} has neither cores nor GPUs in its slot, "
                "so no task could run"
            )
        message = ""
        for job in self._ask(shape, 1)[1]:
            outcome = self.matcher.match("satisfiability", job, 0, None, 0)
            if outcome.status == "matched":
                return None
            message = outcome.message
        if message:
            return f"unsatisfiable request: {message}"
        where = ""
        if shape.constraint:
            fit = sum(self.machine.matching(shape.constraint))
            where = f" on the {fit} of {self.machine.size} nodes that meet {shape.constraint}"
        found = ", ".join(f"{units} {kind}" for kind, units in there.items() if kind != "cluster")
        return f"unsatisfiable request: {what} does not fit{where} into {found}"

    def _can_run(self, shape: Shape) -> bool:
        """Whether there are cores or GPUs in what a slot asks for."""
        return bool(graphshape.types_in_slots(shape.graph) & (self._containers | {"core", "gpu"}))

    def totals(self) -> dict[str, int]:
        """Units of each type of vertices, whatever their state."""
        graph = self.own.graph
        found: dict[str, int] = {}
        for vertex in graph.vertices():
            kind = graph.type(vertex)
            found[kind] = found.get(kind, 0) + graph.sizes[vertex]
        return found

    def explain(self, shape: Shape) -> str:
        """What a request asks for, and what there is of that just now."""
        lines = [f"needs {shape.text()}; found {self._found(shape)}"]
        return "\n".join(lines + why_not(self.machine, shape.constraint, self._up))

    def _found(self, shape: Shape) -> str:
        """Units of each type that a request names: free of those that are up."""
        there, taken, down = self.totals(), self._taken(), self._down()
        named = set(graphshape.totals(shape.graph)) if shape.graph else {"core", "gpu"}
        words = []
        for kind, total in there.items():
            if kind in ("core", "gpu") or (kind in named and kind not in ("cluster", "node")):
                free = max(0, total - taken.get(kind, 0) - down.get(kind, 0))
                words.append(f"{free} of {total} {_PLURALS.get(kind, kind)} free")
        nodes = len(self._up)
        return ", ".join(words) + f" on {nodes} usable node{'s' if nodes != 1 else ''}"

    def _taken(self) -> dict[str, int]:
        """Units of each type that jobs have."""
        found: dict[str, int] = {}
        for placement, _ in self._held.values():
            for kind, units in placement.extras.items():
                found[kind] = found.get(kind, 0) + units
            found["core"] = found.get("core", 0) + placement.ncores
            found["gpu"] = found.get("gpu", 0) + placement.ngpus
        return found

    def _down(self) -> dict[str, int]:
        """Units of each type that belong to nodes which are not up."""
        graph = self.own.graph
        found: dict[str, int] = {}
        for rank, node in self.own.node_of.items():
            if rank not in self._up:
                for vertex in graph.below(node):
                    kind = graph.type(vertex)
                    found[kind] = found.get(kind, 0) + graph.sizes[vertex]
        return found

    def held(self, placement: Placement) -> Iterable[tuple[int, int]]:
        """The vertices that something has that runs, with the units of each."""
        _, ids = self._held.get(id(placement), (None, ()))
        bookings = [self.matcher.bookings[x] for x in ids]
        return self.holdings.vertices(bookings, self.matcher.row_width)

    def planned(self, reservation: Reservation) -> Iterable[tuple[int, int]]:
        """The vertices that a reservation is of."""
        ids = reservation.ids if isinstance(reservation, Held) else ()
        bookings = [self.matcher.bookings[x] for x in ids if x in self._reserved]
        return self.holdings.vertices(bookings, self.matcher.row_width)

    def others(self) -> dict[str, dict[str, int]]:
        """See `Scheduler.others`."""
        if not self._rich:
            return {}
        taken, down = self._taken(), self._down()
        return {
            kind: {"total": total, "allocated": taken.get(kind, 0), "down": down.get(kind, 0)}
            for kind, total in self.totals().items()
            if kind not in PLAIN
        }

    def allocated(self) -> RSet:
        """What is allocated at present, over all ranks."""
        parts: dict[int, list[int]] = {}
        for placement, _ in self._held.values():
            for part in placement.parts:
                masks = parts.setdefault(part.rank, [0, 0])
                masks[0] |= part.cores
                masks[1] |= part.gpus
        hosts = self.machine.resources.hosts
        return RSet(
            {rank: IDSet.from_mask(masks[0]) for rank, masks in parts.items()},
            {rank: IDSet.from_mask(masks[1]) for rank, masks in parts.items() if masks[1]},
            hosts,
            properties=self.machine.resources.properties,
        )


def _containers(own: OwnGraph) -> frozenset[str]:
    """The types of what cores and GPUs lie in."""
    graph = own.graph
    found: set[str] = set()
    seen: set[int] = set()
    for vertex, bit in enumerate(own.bits):
        at = vertex
        while bit != NONE:
            edge = graph.parent_edge(at)
            if edge is None or graph.sources[edge] in seen:
                break
            at = graph.sources[edge]
            seen.add(at)
            found.add(graph.type(at))
    return frozenset(found)


def _size(placement: Placement) -> int:
    """Cores and GPUs."""
    return placement.ncores + placement.ngpus
