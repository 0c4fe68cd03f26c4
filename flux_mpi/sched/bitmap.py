"""The bitmap door: nodes × cores × GPUs as words of bits, matched by one kernel call a batch."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from math import inf
from typing import Any, ClassVar, NamedTuple

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.base import Reservation, Scheduler
from flux_mpi.sched.kernels import WORD_BITS
from flux_mpi.sched.machine import Machine
from flux_mpi.sched.placement import Part, Placement
from flux_mpi.sched.planner import FOREVER_S, Planner
from flux_mpi.sched.profile import Admission, Need
from flux_mpi.sched.reasons import why_not
from flux_mpi.sched.tiered import Tier

BATCH = 4096
"""Members placed by one kernel call at most; bounds the scratch memory."""

INTERNED = 1 << 16
"""Placements remembered for reuse. Beyond that the memory is better spent otherwise."""

REMEMBERED = 256
"""Shapes whose translation is kept; one with a constraint holds a word a node."""

_WORD = (1 << WORD_BITS) - 1


class _Request(NamedTuple):
    """A shape in the kernel's terms."""

    nodes: int
    slots: int
    cores: int
    gpus: int
    exclusive: int
    eligible: array[int]
    max_rows: int


class _Row(NamedTuple):
    """What one part takes: counts, and words as (index, bits) of the machine's bitmaps."""

    node: int
    cores: int
    gpus: int
    core_words: tuple[tuple[int, int], ...]
    gpu_words: tuple[tuple[int, int], ...]


class BitmapScheduler(Scheduler):
    """Best fit that keeps whole nodes free: the fullest nodes that still fit come first."""

    plans: ClassVar[bool] = True

    def __init__(self, tier: Tier | None = None) -> None:
        self.tier = tier or Tier()
        self.machine = Machine()
        self.planner = Planner(lambda: (self._core_free, self._gpu_free))
        self._known = False
        self._generation = 0
        self._up = 0
        self._requests: dict[Shape, _Request] = {}
        self._reasons: dict[Shape, str | None] = {}
        self._interned: dict[bytes, Placement] = {}
        self._build()

    # -- resources ------------------------------------------------------------------------------

    def update(self, resources: RSet, up: IDSet | None = None) -> None:
        before = {part.rank: part for part in self._allocated_parts()}
        self.machine = Machine(resources)
        self.planner.define(self.machine)
        self._known = True
        self._reasons.clear()
        self._build()
        for node, rank in enumerate(self.machine.ranks):
            if rank in before:
                part = before[rank]
                self._take(
                    self._row(
                        node,
                        part.cores & self.machine.cores[node],
                        part.gpus & self.machine.gpus[node],
                    )
                )
        self.set_up(IDSet(self.machine.ranks) if up is None else up)

    def set_up(self, ranks: IDSet) -> None:
        self._up = ranks.mask
        for node, rank in enumerate(self.machine.ranks):
            self._eligible[node] = self._up >> rank & 1
        self.planner.set_up(self._eligible)
        self._requests.clear()  # they hold what is eligible

    def _build(self) -> None:
        """Fresh bitmaps of the machine, all free."""
        machine = self.machine
        n = machine.size
        self._generation += 1
        self._interned = {}
        self._requests.clear()
        self._core_words = max(1, _words_for(machine.cores))
        self._gpu_words = _words_for(machine.gpus)
        self._core_total = array("q", (m.bit_count() for m in machine.cores))
        self._gpu_total = array("q", (m.bit_count() for m in machine.gpus))
        self._core_free = array("q", self._core_total)
        self._gpu_free = array("q", self._gpu_total)
        self._core_bits = _words(machine.cores, self._core_words)
        self._gpu_bits = _words(machine.gpus, self._gpu_words)
        self._eligible = array("q", bytes(8 * n))
        self._order = array("q", bytes(8 * n))
        self._chosen = array("q", bytes(8 * n))
        most = max(max(self._core_total, default=0), max(self._gpu_total, default=0))
        self._buckets = array("q", bytes(8 * (most + 2)))
        self._stride = 2 + self._core_words + self._gpu_words
        self._make_out(BATCH)

    def _make_out(self, rows: int) -> None:
        self._out_rows = rows
        self._out = array("q", bytes(8 * rows * self._stride))
        self._rows_of = array("q", bytes(8 * BATCH))
        self._out_bytes = memoryview(self._out).cast("B")
        self._refresh_faces()

    def _refresh_faces(self) -> None:
        """The kernel's arguments: the arrays themselves, or NumPy's view of the same memory."""
        self._faces = tuple(
            self._face(words)
            for words in (
                self._core_bits,
                self._core_free,
                self._core_total,
                self._gpu_bits,
                self._gpu_free,
                self._gpu_total,
                self._order,
                self._chosen,
                self._buckets,
            )
        )
        self._out_faces = (self._face(self._rows_of), self._face(self._out))

    def _face(self, words: array[int]) -> Any:
        if not self.tier.compiled:
            return words
        import numpy

        # No memory, no view (there may be no GPUs at all).
        return numpy.frombuffer(words, dtype="q") if words else numpy.zeros(0, dtype="q")

    # -- requests -------------------------------------------------------------------------------

    def _request(self, shape: Shape) -> _Request:
        request = self._requests.get(shape)
        if request is None:
            nodes, slots = shape.nnodes, shape.slots_per_node if shape.nnodes else shape.nslots
            if shape.exclusive and not nodes:
                # Whole nodes and no number of them: each slot has a node to itself.
                nodes, slots = shape.nslots, 1
            eligible = self._eligible
            if shape.constraint:
                self.planner.know(shape.constraint)
                matching = self.machine.matching(shape.constraint)
                eligible = array("q", (up & ok for up, ok in zip(eligible, matching)))
            max_rows = nodes or min(slots, max(1, self.machine.size))
            request = _Request(
                nodes, slots, shape.cores, shape.gpus, int(shape.exclusive), eligible, max_rows
            )
            if len(self._requests) >= REMEMBERED:
                self._requests.clear()
            self._requests[shape] = request
        return request

    def invalid(self, shape: Shape) -> str | None:
        if not self._known or "hostlist" not in shape.constraint:
            return None
        unknown = self.machine.unknown_hosts(shape.constraint)
        if not unknown:
            return None
        return "host constraint contains invalid hosts: " + ", ".join(
            f"host {host!r} not found" for host in unknown[:10]
        )

    def feasible(self, shape: Shape) -> str | None:
        if not self._known:
            return None
        if shape not in self._reasons:
            if len(self._reasons) >= REMEMBERED:
                self._reasons.clear()
            self._reasons[shape] = self._infeasible(shape)
        return self._reasons[shape]

    def _infeasible(self, shape: Shape) -> str | None:
        """Why the idle machine could not hold this, in Flux's words; None when it could."""
        if shape.graph:
            return (
                f"unsatisfiable request: {shape.text()}: the bitmap scheduler knows nodes, cores "
                "and GPUs at fixed counts only (sched.scheduler = graph knows more)"
            )
        machine = self.machine
        cores, gpus = machine.core_counts, machine.gpu_counts
        nodes: Iterable[int] = range(machine.size)
        if shape.constraint:
            nodes = [i for i, ok in enumerate(machine.matching(shape.constraint)) if ok]
        request = self._request(shape)
        if request.nodes:
            need_cores = request.slots * shape.cores
            need_gpus = request.slots * shape.gpus
            fit = sum(1 for i in nodes if cores[i] >= need_cores and gpus[i] >= need_gpus)
            if fit >= request.nodes:
                return None
            if shape.exclusive:
                kind = "exclusive node(s)"
                each = ""
            else:
                kind = f"node(s) with {need_cores} cores"
                each = (f" and {need_gpus} GPUs" if need_gpus else "") + " each"
            return f"unsatisfiable request: need {request.nodes} {kind}{each}, only {fit} eligible"
        fit = sum(cores[i] // shape.cores for i in nodes) if shape.cores else shape.nslots
        if fit < shape.nslots:
            return (
                f"unsatisfiable request: need {shape.nslots} slot(s) of {shape.cores} core(s), "
                f"only {fit} such slot(s) available (total cores: {sum(cores[i] for i in nodes)})"
            )
        if shape.gpus:
            fit = sum(
                min(cores[i] // shape.cores if shape.cores else gpus[i], gpus[i] // shape.gpus)
                for i in nodes
            )
            if fit < shape.nslots:
                return (
                    f"unsatisfiable request: need {shape.nslots} slot(s) with {shape.gpus} "
                    f"GPU(s) each, only {fit} available "
                    f"(total GPUs: {sum(gpus[i] for i in nodes)})"
                )
        return None

    def explain(self, shape: Shape) -> str:
        reason = self.feasible(shape)
        if reason is not None:
            return reason
        if not self._known:
            return "waiting for the instance's resources"
        request = self._request(shape)
        up = [i for i in range(self.machine.size) if request.eligible[i]]
        free_cores = sum(self._core_free[i] for i in up)
        whole = sum(
            1
            for i in up
            if self._core_free[i] == self._core_total[i] and self._gpu_free[i] == self._gpu_total[i]
        )
        found = f"{free_cores} cores free on {len(up)} usable nodes, {whole} of them empty"
        if self._gpu_words:
            found += f"; {sum(self._gpu_free[i] for i in up)} GPUs free"
        lines = [f"needs {shape.text()}; found {found}"]
        usable = IDSet.from_mask(self._up)
        return "\n".join(lines + why_not(self.machine, shape.constraint, usable))

    # -- allocation -----------------------------------------------------------------------------

    def alloc(
        self, shape: Shape, count: int, now: float, duration: float | None = None
    ) -> list[Placement]:
        if not self._known:
            return []
        if self.tier.poll():
            self._refresh_faces()
            self._requests.clear()
        request = self._request(shape)
        if self.planner.holding:
            return self._alloc_beside(
                shape, request, count, now, inf if duration is None else duration
            )
        found = self._place(request, request.eligible, count)
        if duration is not None:
            self._expect(found, now, duration)
        return found

    def _place(self, request: _Request, eligible: array[int], count: int) -> list[Placement]:
        if request.max_rows > self._out_rows:
            self._make_out(request.max_rows)
        face = eligible if not self.tier.compiled else self._face(eligible)
        rows_of, out = self._out_faces
        found: list[Placement] = []
        while len(found) < count:
            ask = min(count - len(found), BATCH)
            placed = self.tier.place(
                ask,
                self.machine.size,
                self._core_words,
                self._gpu_words,
                request.nodes,
                request.slots,
                request.cores,
                request.gpus,
                request.exclusive,
                face,
                *self._faces,
                len(self._buckets),
                rows_of,
                out,
                self._out_rows,
            )
            self._collect(placed, found)
            self.tier.worked(self.machine.size, self.machine.size * (1 + placed // 8))
            # The kernel also stops when its output is full, which only several rows can do.
            if placed < ask and (placed == 0 or request.max_rows == 1):
                break
        return found

    def _collect(self, placed: int, found: list[Placement]) -> None:
        interned = self._interned
        view = self._out_bytes
        step = 8 * self._stride
        rows_of = self._rows_of
        at = 0
        for m in range(placed):
            end = at + rows_of[m] * step
            key = view[at:end].tobytes()
            placement = interned.get(key)
            if placement is None:
                placement = self._placement(at // 8, end // 8)
                if len(interned) >= INTERNED:
                    interned.clear()
                interned[key] = placement
            found.append(placement)
            at = end

    def _placement(self, start: int, end: int) -> Placement:
        parts, hosts, rows = [], [], []
        machine, out = self.machine, self._out
        for at in range(start, end, self._stride):
            node, slots = out[at], out[at + 1]
            words = at + 2
            cores = _mask(out, words, self._core_words)
            gpus = _mask(out, words + self._core_words, self._gpu_words)
            parts.append(Part(machine.ranks[node], slots, cores, gpus))
            hosts.append(machine.hosts[node])
            rows.append(self._row(node, cores, gpus))
        return Placement(parts, hosts, (self._generation, tuple(rows)))

    # -- planning -------------------------------------------------------------------------------

    def reserve(self, shape: Shape, now: float, duration: float = inf) -> Reservation | None:
        if not self._known:
            return None
        return self.planner.reserve(self._need(shape, self._request(shape)), now, duration)

    def release(self, reservations: Iterable[Reservation]) -> None:
        self.planner.release(reservations)

    def _need(self, shape: Shape, request: _Request) -> Need:
        return Need(
            request.nodes,
            request.slots,
            request.cores,
            request.gpus,
            bool(request.exclusive),
            self.planner.classes(shape.constraint),
        )

    def _expect(self, placements: list[Placement], now: float, duration: float) -> None:
        end = now + min(duration, FOREVER_S)
        for placement in placements:
            self.planner.started(id(placement), placement.key[1], now, end)

    def _alloc_beside(
        self, shape: Shape, request: _Request, count: int, now: float, duration: float
    ) -> list[Placement]:
        """Place where it touches nothing that is reserved."""
        admission = self.planner.admit(self._need(shape, request), now, duration)
        if admission is None:
            return []
        eligible = array("q", request.eligible)
        held = self._hold(admission, eligible)
        try:
            found = self._place(request, eligible, count)
        finally:
            for row in held:
                self._give(row)
        self._expect(found, now, duration)
        return found

    def _hold(self, admission: Admission, eligible: array[int]) -> list[_Row]:
        """Take what a plan wants later out of the kernel's sight; what to give back to it."""
        held = []
        bins = {shared.node for shared in admission.barred}
        for node in bins:
            eligible[node] = 0
        for node in self.planner.others(admission.spare):
            eligible[node] = 0
        for shared, cores, gpus in admission.bins:
            node = shared.node
            bins.add(node)
            row = self._row(
                node,
                _lowest(
                    self._mask_of(self._core_bits, node, self._core_words),
                    self._core_free[node] - cores,
                ),
                _lowest(
                    self._mask_of(self._gpu_bits, node, self._gpu_words),
                    self._gpu_free[node] - gpus,
                ),
            )
            if row.cores or row.gpus:
                self._take(row)
                held.append(row)
        for kind, spare in admission.spare.items():
            for node in self.planner.members(kind):
                if (
                    eligible[node]
                    and self._core_free[node] == self._core_total[node]
                    and self._gpu_free[node] == self._gpu_total[node]
                    and node not in bins
                ):
                    if spare:
                        spare -= 1
                    else:
                        eligible[node] = 0
        return held

    def free(self, placements: Iterable[Placement]) -> None:
        """Take these back. Raises ValueError when one of them is not allocated."""
        core_bits, core_free = self._core_bits, self._core_free
        gpu_bits, gpu_free = self._gpu_bits, self._gpu_free
        generation = self._generation
        following = self.planner.following
        for placement in placements:
            made, rows = placement.key
            if made != generation:
                rows = self._rows(placement)
            for node, cores, gpus, core_words, gpu_words in rows:
                for at, bits in core_words:
                    if core_bits[at] & bits:
                        raise ValueError(f"{placement} is not allocated: its cores are free")
                    core_bits[at] |= bits
                core_free[node] += cores
                for at, bits in gpu_words:
                    if gpu_bits[at] & bits:
                        raise ValueError(f"{placement} is not allocated: its GPUs are free")
                    gpu_bits[at] |= bits
                gpu_free[node] += gpus
            if following:
                self.planner.freed(id(placement), rows)

    def hello(self, running: Iterable[Placement]) -> list[Placement]:
        refused = []
        for placement in running:
            rows = self._rows(placement)
            parts = {part.rank: part for part in placement.parts}
            fits = len(rows) == len(parts) and all(
                row.cores == parts[self.machine.ranks[row.node]].cores.bit_count()
                and row.gpus == parts[self.machine.ranks[row.node]].gpus.bit_count()
                and all(self._core_bits[at] & bits == bits for at, bits in row.core_words)
                and all(self._gpu_bits[at] & bits == bits for at, bits in row.gpu_words)
                for row in rows
            )
            if fits:
                for row in rows:
                    self._take(row)
                placement.key = (self._generation, rows)
            else:
                refused.append(placement)
        return refused

    def take_over(self, running: Iterable[tuple[Placement, float]], now: float) -> None:
        """Mark as allocated what another scheduler placed and when it is expected to end. All of it
        must be free, and of this machine."""
        for placement, end in running:
            if self.hello([placement]):
                raise ValueError(f"{placement} is not free")
            end = min(end, now + FOREVER_S)
            self.planner.started(id(placement), placement.key[1], now, end)

    def allocated(self) -> RSet:
        return self.machine.rset(self._allocated_parts())

    # -- rows -----------------------------------------------------------------------------------

    def _allocated_parts(self) -> list[Part]:
        parts = []
        machine = self.machine
        for node in range(machine.size):
            if (
                self._core_free[node] == self._core_total[node]
                and self._gpu_free[node] == self._gpu_total[node]
            ):
                continue
            free_cores = self._mask_of(self._core_bits, node, self._core_words)
            free_gpus = self._mask_of(self._gpu_bits, node, self._gpu_words)
            parts.append(
                Part(
                    machine.ranks[node],
                    0,
                    machine.cores[node] & ~free_cores,
                    machine.gpus[node] & ~free_gpus,
                )
            )
        return parts

    def _rows(self, placement: Placement) -> tuple[_Row, ...]:
        """The rows of a placement made for another machine, as far as this one has them."""
        rows = []
        for part in placement.parts:
            node = self.machine.node_of(part.rank)
            if node is not None:
                rows.append(
                    self._row(
                        node,
                        part.cores & self.machine.cores[node],
                        part.gpus & self.machine.gpus[node],
                    )
                )
        return tuple(rows)

    def _row(self, node: int, cores: int, gpus: int) -> _Row:
        return _Row(
            node,
            cores.bit_count(),
            gpus.bit_count(),
            _indexed(cores, node * self._core_words),
            _indexed(gpus, node * self._gpu_words),
        )

    def _take(self, row: _Row) -> None:
        for at, bits in row.core_words:
            self._core_bits[at] &= ~bits
        for at, bits in row.gpu_words:
            self._gpu_bits[at] &= ~bits
        self._core_free[row.node] -= row.cores
        self._gpu_free[row.node] -= row.gpus

    def _give(self, row: _Row) -> None:
        for at, bits in row.core_words:
            self._core_bits[at] |= bits
        for at, bits in row.gpu_words:
            self._gpu_bits[at] |= bits
        self._core_free[row.node] += row.cores
        self._gpu_free[row.node] += row.gpus

    @staticmethod
    def _mask_of(bits: array[int], node: int, words: int) -> int:
        return _mask(bits, node * words, words)


def _words_for(masks: Iterable[int]) -> int:
    """Words that hold the longest of these masks."""
    return -(-max((mask.bit_length() for mask in masks), default=0) // WORD_BITS)


def _words(masks: Iterable[int], words: int) -> array[int]:
    return array("q", (mask >> WORD_BITS * w & _WORD for mask in masks for w in range(words)))


def _lowest(mask: int, count: int) -> int:
    """The ``count`` lowest bits of a mask."""
    taken = 0
    for _ in range(count):
        bit = mask & -mask
        taken |= bit
        mask ^= bit
    return taken


def _mask(words: array[int], at: int, count: int) -> int:
    if count == 1:
        return words[at]
    mask = 0
    for w in range(count - 1, -1, -1):
        mask = mask << WORD_BITS | words[at + w]
    return mask


def _indexed(mask: int, at: int) -> tuple[tuple[int, int], ...]:
    words = []
    while mask:
        if mask & _WORD:
            words.append((at, mask & _WORD))
        mask >>= WORD_BITS
        at += 1
    return tuple(words)
