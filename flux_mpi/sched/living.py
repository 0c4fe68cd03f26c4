"""Changes of what is matched on while jobs run: resources that go up or down, come or leave, and
jobs that give some of theirs back."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping

from flux_mpi.resource.graph import E_EXCLUSIVE, E_MARK, E_WIDTH, EW_NEEDS, EW_WIDTH, ResourceGraph
from flux_mpi.resource.readers import Allocation
from flux_mpi.sched.takewalk import (
    O_ABOVE,
    O_ANY_BELOW,
    O_BELOW,
    O_DEPTH,
    O_EDGE,
    O_EXCLUSIVE,
    O_INDEX,
    O_NEEDS,
    O_TAKEN,
    O_WHOLE,
)

Row = list[int]


def split(rows: array[int], n_rows: int, width: int) -> list[Row]:
    """Flat rows as lists."""
    return [list(rows[base : base + width]) for base in range(0, n_rows * width, width)]


def join(rows: Iterable[Row]) -> array[int]:
    """Lists as flat rows."""
    flat = array("q")
    for row in rows:
        flat.extend(row)
    return flat


def without(
    graph: ResourceGraph,
    subsystem: str,
    rows: list[Row],
    gone: set[int],
    columns: dict[int, int],
) -> list[Row]:
    """What is left of a booking when some vertices are given back: aggregates are made anew.

    ``columns``: type number to the column that counts it. What nothing is left below goes too.
    """
    kept = {row[O_INDEX]: row for row in rows if row[O_INDEX] not in gone}
    broken = {
        above for vertex in gone if graph.alive(vertex) for above in up(graph, subsystem, vertex)
    }
    below: dict[int, Row] = {}
    n_below = len(rows[0]) - O_BELOW if rows else 0
    for vertex, row in kept.items():
        if not row[O_TAKEN]:
            continue
        column = columns.get(graph.types.find(graph.type(vertex)))
        below.setdefault(vertex, [0] * n_below)
        for above in up(graph, subsystem, vertex):
            counts = below.setdefault(above, [0] * n_below)
            if column is not None:
                counts[column] += graph.sizes[vertex]
    left: list[Row] = []
    for row in rows:
        vertex = row[O_INDEX]
        if vertex in gone or vertex not in below:
            continue
        counts = below[vertex]
        row = [*row[:O_BELOW], *counts]
        row[O_ANY_BELOW] = int(any(counts))
        row[O_WHOLE] &= int(vertex not in broken)
        left.append(row)
    return left


def rows_for(
    graph: ResourceGraph,
    subsystem: str,
    units: Mapping[int, int],
    columns: Mapping[int, int],
    n_below: int,
) -> list[Row]:
    """The rows of a booking of so many units of these vertices, and of all that is above them.

    ``columns``: type number to the column that counts it.
    """
    rows: dict[int, Row] = {}

    def row_of(vertex: int, depth: int) -> Row:
        row = rows.get(vertex)
        if row is None:
            row = rows[vertex] = [0] * (O_BELOW + n_below)
            row[O_EDGE] = -1
            row[O_INDEX] = vertex
            row[O_NEEDS] = graph.sizes[vertex]
            row[O_DEPTH] = depth
        return row

    for vertex, needs in units.items():
        above = up(graph, subsystem, vertex)
        row = row_of(vertex, 1 + len(above))
        row[O_TAKEN] = row[O_EXCLUSIVE] = 1
        row[O_NEEDS] = needs
        column = columns.get(graph.types.find(graph.type(vertex)))
        for k, ancestor in enumerate(above):
            row = row_of(ancestor, len(above) - k)
            if column is not None:
                row[O_BELOW + column] += needs
                row[O_ANY_BELOW] = 1
    # Parents come after all that is below them, as a walk writes them.
    return sorted(rows.values(), key=lambda row: -row[O_DEPTH])


def uncover(rows: array[int], width: int, vertices: set[int]) -> None:
    """These vertices are no longer taken with everything below them."""
    for base in range(0, len(rows), width):
        if rows[base + O_INDEX] in vertices:
            rows[base + O_WHOLE] = 0


def expanded(
    graph: ResourceGraph, subsystem: str, rows: list[Row], totals: Callable[[int], Row]
) -> list[Row]:
    """The rows of a booking with those for what is below vertices that are taken whole.

    ``totals``: the units of each counted type below a vertex.
    """
    found: list[Row] = []
    for row in rows:
        if row[O_WHOLE]:
            _lay_below(graph, subsystem, row[O_INDEX], row[O_DEPTH], totals, found)
        found.append(row)
    return found


def _lay_below(
    graph: ResourceGraph,
    subsystem: str,
    top: int,
    depth: int,
    totals: Callable[[int], Row],
    found: list[Row],
) -> None:
    stack = [(top, iter(graph.children(top, subsystem)))]
    while stack:
        vertex, children = stack[-1]
        child = next(children, None)
        if child is not None:
            stack.append((child, iter(graph.children(child, subsystem))))
            continue
        stack.pop()
        if vertex != top:
            below = totals(vertex)
            row = [0] * O_BELOW + below
            row[O_INDEX] = vertex
            row[O_NEEDS] = graph.sizes[vertex]
            row[O_EXCLUSIVE] = row[O_ABOVE] = row[O_TAKEN] = 1
            row[O_DEPTH] = depth + len(stack)
            row[O_WHOLE] = int(bool(graph.children(vertex, subsystem)))
            row[O_ANY_BELOW] = int(any(below))
            found.append(row)


def up(graph: ResourceGraph, subsystem: str, vertex: int) -> list[int]:
    """The vertices above one, the nearest first."""
    found: list[int] = []
    edge = graph.parent_edge(vertex, subsystem)
    while edge is not None:
        found.append(graph.sources[edge])
        edge = graph.parent_edge(found[-1], subsystem)
    return found


def widened(rows: list[Row], width: int) -> list[Row]:
    """The same rows with zeros for columns that came since."""
    return [row + [0] * (width - len(row)) for row in rows]


def mark(graph: ResourceGraph, allocation: Allocation, tick: int) -> None:
    """Mark the edges that a file's allocation follows as taken by selection ``tick``."""
    for edge, needs, exclusive in allocation.edges:
        graph.e[edge * E_WIDTH + E_MARK] = tick
        graph.e[edge * E_WIDTH + E_EXCLUSIVE] = int(exclusive)
        graph.ew[edge * EW_WIDTH + EW_NEEDS] = needs


def take(rows: list[Row], allocation: Allocation, n_below: int) -> list[Row]:
    """Let rows take what the file says of their vertices; vertices that none reached get one."""
    taken = {vertex: needs for vertex, needs, exclusive in allocation.vertices if exclusive}
    for row in rows:
        row[O_WHOLE] = 0
        needs = taken.pop(row[O_INDEX], None)
        row[O_TAKEN] = int(needs is not None)
        if needs is not None:
            row[O_NEEDS] = needs
    for vertex, needs in taken.items():
        row = [0] * (O_BELOW + n_below)
        row[O_INDEX] = vertex
        row[O_NEEDS] = needs
        row[O_TAKEN] = 1
        rows.append(row)
    return rows


def top_of_rank(graph: ResourceGraph, vertices: Iterable[int], subsystem: str) -> int:
    """Of a rank's vertices the one that all others are below: its path is the shortest."""
    return min(vertices, key=lambda vertex: len(graph.path(vertex, subsystem) or ""))
