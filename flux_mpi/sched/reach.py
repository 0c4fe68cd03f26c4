"""What of a graph one subsystem reaches, and columns over all vertices.

Twice each: in plain Python for small graphs, where loading NumPy would cost more than it saves,
and by NumPy for those of a million vertices.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from flux_mpi.resource.graph import (
    E_SUBSYSTEM,
    E_WIDTH,
    V_HEAD,
    V_NALLOC,
    V_OUT,
    V_OUT_END,
    V_PARENT,
    V_TYPE,
    V_WIDTH,
    ResourceGraph,
)
from flux_mpi.sched.requestrows import R_FROM, R_IS_SLOT, R_TO, R_TYPE
from flux_mpi.sched.requests import Table
from flux_mpi.sched.scalars import HIGH_TYPES, X_KINDS, X_SIZE, X_TOTAL

MANY = 4096
"""From so many vertices on NumPy is worth loading."""


def rows_of(graph: ResourceGraph, width: int) -> array[int]:
    """64-bit rows by vertex with X_SIZE and X_KINDS filled in, the rest zero."""
    rows = array("q", bytes(8 * width * graph.n_vertices))
    set_column(rows, width, X_SIZE, graph.sizes)
    fill_kinds(graph, rows, width)
    return rows


def set_column(rows: array[int], width: int, column: int, values: array[int]) -> None:
    """Let one column of rows be ``values``."""
    if len(values) > MANY:
        import numpy as np

        np.frombuffer(rows, dtype="q").reshape(-1, width)[:, column] = np.frombuffer(
            values, dtype="q"
        )
    else:
        for i, value in enumerate(values):
            rows[i * width + column] = value


def fill_kinds(graph: ResourceGraph, rows: array[int], width: int) -> None:
    """Put into the column X_KINDS which types lie directly below each vertex."""
    v, e, out = graph.v, graph.e, graph.out
    if graph.n_vertices > MANY:
        import numpy as np

        columns = np.frombuffer(v, dtype="i").reshape(-1, V_WIDTH)
        targets = np.frombuffer(e, dtype="i").reshape(-1, E_WIDTH)[np.frombuffer(out, "i"), 0]
        bits = np.left_shift(
            np.int64(1), np.minimum(columns[targets, V_TYPE], HIGH_TYPES).astype("q")
        )
        parents = np.flatnonzero(columns[:, V_OUT] < columns[:, V_OUT_END])
        if len(parents):
            np.frombuffer(rows, dtype="q").reshape(-1, width)[parents, X_KINDS] = (
                np.bitwise_or.reduceat(bits, columns[parents, V_OUT])
            )
        return
    for u in range(graph.n_vertices):
        kinds = 0
        for i in range(v[u * V_WIDTH + V_OUT], v[u * V_WIDTH + V_OUT_END]):
            kinds |= 1 << min(v[e[out[i] * E_WIDTH] * V_WIDTH + V_TYPE], HIGH_TYPES)
        rows[u * width + X_KINDS] = kinds


def link_rows(points: array[int], width: int, first: int, last: int, after: int) -> None:
    """Make the rows in [first, last) a list by their second column that goes on at ``after``."""
    if last - first > MANY:
        import numpy as np

        rows = np.frombuffer(points, dtype="q").reshape(-1, width)
        rows[first:last, 1] = np.arange(first + 1, last + 1)
    else:
        for row in range(first, last):
            points[row * width + 1] = row + 1
    points[(last - 1) * width + 1] = after


class Reach:
    """The vertices that a subsystem reaches from its root."""

    def __init__(self, graph: ResourceGraph, root: int, subsystem: str) -> None:
        self._graph = graph
        self._root = root
        self._subsystem = subsystem
        self.is_tree = self._is_forest() if graph.n_vertices > MANY else self._leads_once()
        """Whether it leads to each vertex by one way only."""
        self._large = graph.n_vertices > MANY and self.is_tree
        self._vertices = [] if self._large else graph.below(root, subsystem)

    def _is_forest(self) -> bool:
        """Whether each vertex has at most one edge of the subsystem to it."""
        import numpy as np

        graph = self._graph
        number = graph.subsystems.find(self._subsystem)
        edges = np.frombuffer(graph.out, dtype="i")
        of_edges = np.frombuffer(graph.e, dtype="i").reshape(-1, E_WIDTH)[edges]
        targets = of_edges[of_edges[:, E_SUBSYSTEM] == number, 0]
        return len(targets) == 0 or int(np.bincount(targets).max()) <= 1

    def _leads_once(self) -> bool:
        """The same without NumPy."""
        graph = self._graph
        number = graph.subsystems.find(self._subsystem)
        seen = set()
        for edge in graph.out:
            if graph.e[edge * E_WIDTH + E_SUBSYSTEM] == number:
                target = graph.e[edge * E_WIDTH]
                if target in seen:
                    return False
                seen.add(target)
        return True

    def _columns(self) -> Any:
        import numpy as np

        return np.frombuffer(self._graph.v, dtype="i").reshape(-1, V_WIDTH)

    def _reached(self) -> Any:
        reached = self._columns()[:, V_PARENT] >= 0
        reached[self._root] = True
        return reached

    def leaf_types(self) -> set[str]:
        """Types of vertices that no edge leaves."""
        types = self._graph.types
        if self._large:
            import numpy as np

            v = self._columns()
            leaves = self._reached() & (v[:, V_OUT] == v[:, V_OUT_END])
            return {types[number] for number in np.unique(v[leaves, V_TYPE])}
        flat = self._graph.v
        return {
            types[flat[u * V_WIDTH + V_TYPE]]
            for u in self._vertices
            if flat[u * V_WIDTH + V_OUT] == flat[u * V_WIDTH + V_OUT_END]
        }

    def depth(self) -> int:
        """Levels of vertices; more in a graph where some can be reached by longer ways."""
        if self._large:
            return len(self._levels())
        graph = self._graph
        number = graph.subsystems.find(self._subsystem)
        depths = {self._root: 1}
        stack = [self._root]
        while stack:
            u = stack.pop()
            for edge in graph.edges_from(u):
                child = graph.e[edge * E_WIDTH]
                if graph.e[edge * E_WIDTH + E_SUBSYSTEM] == number and (
                    depths.get(child, 0) < depths[u] + 1
                ):
                    depths[child] = depths[u] + 1
                    stack.append(child)
        return max(depths.values())

    def of_type(self, type: str) -> list[int]:
        """The vertices of a type, ascending."""
        number = self._graph.types.find(type)
        if self._large:
            import numpy as np

            found: list[int] = np.flatnonzero(
                self._reached() & (self._columns()[:, V_TYPE] == number)
            ).tolist()
            return found
        v = self._graph.v
        return sorted(u for u in self._vertices if v[u * V_WIDTH + V_TYPE] == number)

    def starts(self, x: array[int], width: int, table: Table) -> array[int] | None:
        """The vertices where a walk for the one outermost request of a table can begin to match.

        None when one of them is above another, or the root, so that a walk must decide. Only for
        graphs of many vertices (NumPy).
        """
        import numpy as np

        v = self._columns()
        reached = self._reached()
        rows = table.rows
        if rows[R_IS_SLOT]:
            kinds = np.frombuffer(x, dtype="q").reshape(-1, width)[:, X_KINDS]
            wanted = 0
            for row in range(rows[R_FROM], rows[R_TO]):
                kind = rows[row * table.width + R_TYPE]
                if not 0 <= kind < HIGH_TYPES:
                    return None
                wanted |= 1 << kind
            found = np.flatnonzero(reached & ((kinds & wanted) == wanted))
        else:
            found = np.flatnonzero(reached & (v[:, V_TYPE] == rows[R_TYPE]))
        is_start = np.zeros(len(v), dtype=bool)
        is_start[found] = True
        parents = self._parents()
        above = found
        while len(above):
            if is_start[self._root]:
                return None
            above = np.unique(parents[above])
            above = above[above >= 0]
            if is_start[above].any():
                return None
        return array("q", found.astype("q").tobytes())

    @property
    def large(self) -> bool:
        """Whether the subsystem is a tree of many vertices."""
        return self._large

    def clear_timelines(self) -> None:
        """Let no vertex of the graph carry anything."""
        if self._graph.n_vertices > MANY:
            v = self._columns()
            v[:, V_HEAD] = -1
            v[:, V_NALLOC] = 0
            return
        flat = self._graph.v
        for u in range(0, len(flat), V_WIDTH):
            flat[u + V_HEAD] = -1
            flat[u + V_NALLOC] = 0

    def fill_totals(self, x: array[int], width: int, tracked: Mapping[str, int]) -> None:
        """Put into the columns from X_TOTAL on how many units of each type lie below a vertex."""
        graph = self._graph
        columns = {graph.types.find(type): column for type, column in tracked.items()}
        if self._large:
            self._fill_by_levels(x, width, columns)
            return
        v, sizes, n = graph.v, graph.sizes, len(tracked)
        number = graph.subsystems.find(self._subsystem)
        seen = {self._root}
        stack = [(self._root, iter(graph.edges_from(self._root)))]
        while stack:
            u, edges = stack[-1]
            for edge in edges:
                child = graph.e[edge * E_WIDTH]
                if graph.e[edge * E_WIDTH + E_SUBSYSTEM] == number and child not in seen:
                    seen.add(child)
                    stack.append((child, iter(graph.edges_from(child))))
                    break
            else:
                stack.pop()
                if stack:
                    up = stack[-1][0] * width + X_TOTAL
                    own = u * width + X_TOTAL
                    for k in range(n):
                        x[up + k] += x[own + k]
                    column = columns.get(v[u * V_WIDTH + V_TYPE])
                    if column is not None:
                        x[up + column] += sizes[u]

    def _parents(self) -> Any:
        """By vertex the one above, -1 for none."""
        import numpy as np

        edges = self._columns()[:, V_PARENT]
        parents = np.where(edges >= 0, np.frombuffer(self._graph.sources, "i")[edges], -1)
        parents[self._root] = -1
        return parents

    def _levels(self) -> list[Any]:
        """The vertices by level, the root's first."""
        import numpy as np

        parents = self._parents()
        levels = [np.array([self._root])]
        inside = np.zeros(len(parents), dtype=bool)
        inside[self._root] = True
        rest = np.flatnonzero(parents >= 0)
        while len(rest):
            below = inside[parents[rest]]
            if not below.any():
                break
            level = rest[below]
            levels.append(level)
            inside[:] = False
            inside[level] = True
            rest = rest[~below]
        return levels

    def _fill_by_levels(self, x: array[int], width: int, columns: Mapping[int, int]) -> None:
        import numpy as np

        graph = self._graph
        rows = np.frombuffer(x, dtype="q").reshape(-1, width)
        parents = self._parents()
        sizes = np.frombuffer(graph.sizes, dtype="q")
        types = self._columns()[:, V_TYPE]
        n = len(parents)
        for at in reversed(self._levels()[1:]):
            up = parents[at]
            here = types[at]
            for number, column in columns.items():
                # What is below these vertices, and these vertices themselves.
                units = rows[at, X_TOTAL + column] + np.where(here == number, sizes[at], 0)
                if units.any():
                    rows[:, X_TOTAL + column] += np.bincount(up, weights=units, minlength=n).astype(
                        "q"
                    )
