"""What a booking of the graph door means: cores and GPUs of ranks, and whatever else there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from flux_mpi.resource.owngraph import NONE, OwnGraph
from flux_mpi.sched.placement import Part
from flux_mpi.sched.takewalk import O_INDEX, O_NEEDS, O_TAKEN, O_WHOLE

if TYPE_CHECKING:
    from flux_mpi.sched.bookings import Booking

REMEMBERED = 4096
"""Vertices of which it is kept what is below."""

_NOT_EXTRA = ("node", "core", "gpu", "cluster")


class Holding(NamedTuple):
    """``taken``: (rank, cores, gpus) with bitmasks, ascending by rank; ``extras``: units of each
    other type."""

    taken: list[tuple[int, int, int]]
    extras: dict[str, int]


class Holdings:
    """Reads bookings on one graph."""

    def __init__(self, own: OwnGraph) -> None:
        self._own = own
        self._wholes: dict[int, list[tuple[int, int]]] = {}
        self._cores: dict[int, dict[int, int]] = {}

    def of(self, bookings: Iterable[Booking], width: int) -> Holding:
        """All that these bookings, of rows of ``width``, hold together."""
        graph, bits = self._own.graph, self._own.bits
        masks: dict[int, list[int]] = {}
        extras: dict[str, int] = {}
        for vertex, units in self.vertices(bookings, width):
            bit = bits[vertex]
            if bit != NONE:
                mask = masks.setdefault(graph.ranks[vertex], [0, 0])
                mask[bit & 1] |= 1 << (bit >> 1)
                continue
            kind = graph.type(vertex)
            if kind not in _NOT_EXTRA:
                extras[kind] = extras.get(kind, 0) + units
        taken = [(rank, cores, gpus) for rank, (cores, gpus) in sorted(masks.items())]
        return Holding(taken, extras)

    def vertices(self, bookings: Iterable[Booking], width: int) -> Iterable[tuple[int, int]]:
        """The vertices that are held, with the units of each."""
        for booking in bookings:
            rows = booking.rows
            for base in range(0, booking.n_rows * width, width):
                if rows[base + O_TAKEN]:
                    yield rows[base + O_INDEX], rows[base + O_NEEDS]
                if rows[base + O_WHOLE]:
                    yield from self._below(rows[base + O_INDEX])

    def _below(self, vertex: int) -> list[tuple[int, int]]:
        """What is below a vertex that is taken whole."""
        found = self._wholes.get(vertex)
        if found is None:
            graph = self._own.graph
            if len(self._wholes) >= REMEMBERED:
                self._wholes.clear()
            found = self._wholes[vertex] = [
                (other, graph.sizes[other]) for other in graph.below(vertex) if other != vertex
            ]
        return found

    def units(self, parts: Sequence[Part]) -> dict[int, int]:
        """The vertices of the cores and GPUs of some parts, as far as there are any."""
        found: dict[int, int] = {}
        for part in parts:
            there = self._of_rank(part.rank)
            for kind, mask in ((0, part.cores), (1, part.gpus)):
                while mask:
                    low = mask & -mask
                    vertex = there.get(2 * (low.bit_length() - 1) + kind)
                    if vertex is not None:
                        found[vertex] = 1
                    mask ^= low
        return found

    def _of_rank(self, rank: int) -> dict[int, int]:
        """Bit to vertex, of the cores and GPUs of a rank."""
        found = self._cores.get(rank)
        if found is None:
            own = self._own
            node = own.node_of.get(rank)
            below = own.graph.below(node) if node is not None else []
            found = self._cores[rank] = {
                own.bits[vertex]: vertex for vertex in below if own.bits[vertex] != NONE
            }
        return found
