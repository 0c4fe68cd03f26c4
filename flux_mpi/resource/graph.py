"""The resource graph (RFC 4): vertices, typed edges of several subsystems, as flat integer arrays.

Kernels compiled by Numba, and the very same functions uncompiled, work on this memory: the hot
columns of vertices and edges lie interleaved in ``array`` objects, indexed by the constants below
(``graph.v[vertex * V_WIDTH + V_TYPE]``). Names, properties and paths, which no kernel reads, are
kept apart and as sparse as they come. A vertex is its index, and an edge is its index.

What is scheduled when is not known here: see `flux_mpi.sched.timeline`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

CONTAINMENT = "containment"
"""The subsystem that matching walks down by default."""

UP, DOWN = 0, 1
"""Values of the column V_STATUS."""

# Columns of `ResourceGraph.v` (32 bits each): type, status, head of the vertex's timeline, number
# of allocations that hold it, its slice of `out`, mark of the walk that saw it last, and the edge
# by which the walk's subsystem reaches it.
V_TYPE, V_STATUS, V_HEAD, V_NALLOC, V_OUT, V_OUT_END, V_COLOR, V_PARENT = range(8)
V_WIDTH = 8

# Columns of `ResourceGraph.e` (32 bits each): target, subsystem, the selection that marked it
# last, whether that selection takes the target exclusively.
E_TARGET, E_SUBSYSTEM, E_MARK, E_EXCLUSIVE = range(4)
E_WIDTH = 4

# Columns of `ResourceGraph.ew` (64 bits each): units of the target that the selection takes, and
# the weight that orders the edges of a vertex for a search that stops at the first match.
EW_NEEDS, EW_WEIGHT = range(2)
EW_WIDTH = 2

HEAVIEST = (1 << 63) - 1
"""Weight of an edge whose target never held a job."""

_FIRST_TYPES = (
    "cluster",
    "core",
    "socket",
    "gpu",
    "node",
    "rack",
    "slot",
    "xor_slot",
    "ssd",
    "storage_node",
)
"""Known from the start, in this order: where the order of types decides, it is that of numbers."""


class GraphError(ValueError):
    """A graph, or a change of one, that makes no sense: the text says where and what is allowed."""


class Names:
    """Strings as small numbers, in the order in which they came."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        for name in names:
            self.number(name)

    def number(self, name: str) -> int:
        """The number of ``name``, a new one when it is new."""
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self._names)
            self._names.append(name)
        return found

    def find(self, name: str) -> int:
        """The number of ``name``, or -1."""
        return self._numbers.get(name, -1)

    def __getitem__(self, number: int) -> str:
        return self._names[number]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)


class ResourceGraph:
    """Vertices and edges; build with `add_vertex`, `add_edge`, `set_root`, then `freeze`.

    Attributes, each indexed by vertex: `ids` (-1: none), `sizes`, `uniq` (the number that a file
    gave it, else its index), `ranks` (-1: none), `bases` and `units` (numbers in `basenames` and
    `unit_names`); by edge: `sources`. `properties` and `units` may be changed at any time,
    vertices and edges only through methods.
    """

    def __init__(self) -> None:
        self.types = Names(_FIRST_TYPES)
        self.subsystems = Names((CONTAINMENT,))
        self.basenames = Names()
        self.unit_names = Names(("",))
        self.v = array("i")
        self.e = array("i")
        self.ew = array("q")
        self.ids = array("q")
        self.sizes = array("q")
        self.uniq = array("q")
        self.ranks = array("i")
        self.bases = array("i")
        self.units = array("i")
        self.sources = array("i")
        self.out = array("i")
        """Edges by source, in the order in which they were added: slices V_OUT to V_OUT_END."""
        self.by_weight = array("i")
        """The same slices, heaviest edge (then highest `uniq` of the target) first."""
        self.properties: dict[int, dict[str, str]] = {}
        self.roots: dict[int, int] = {}
        """Subsystem number to root vertex."""
        self.property_changes = 0
        """Counts `set_property`."""
        self.generation = 0
        """Changes with each `freeze`: whatever was derived from the shape must be made anew."""
        self._names: dict[int, str] = {}
        self._paths: dict[tuple[int, int], str] = {}
        self._dead: set[int] = set()
        self._frozen = True
        self._views: dict[str, Any] | None = None
        self._derived: dict[str, Any] = {}
        self._walked = 0

    # -- building -------------------------------------------------------------------------------

    @property
    def n_vertices(self) -> int:
        """Number of vertices ever added; removed ones keep their number."""
        return len(self.ids)

    @property
    def n_edges(self) -> int:
        return len(self.sources)

    def add_vertex(
        self,
        type: str,
        basename: str,
        id: int = -1,
        *,
        size: int = 1,
        rank: int = -1,
        name: str | None = None,
        unit: str = "",
        uniq: int | None = None,
        status: int = UP,
        properties: dict[str, str] | None = None,
    ) -> int:
        """A new vertex without edges. ``name`` is ``basename`` and ``id`` unless given.

        Raises `GraphError` for a size that is negative or needs more than 32 bits.
        """
        if not 0 <= size < 1 << 32:
            raise GraphError(f"size of {name or basename}: expected 0 to 2³²-1, found {size}")
        self._thaw()
        vertex = len(self.ids)
        self.v.extend((self.types.number(type), status, -1, 0, 0, 0, 0, -1))
        self.ids.append(id)
        self.sizes.append(size)
        self.uniq.append(vertex if uniq is None else uniq)
        self.ranks.append(rank)
        self.bases.append(self.basenames.number(basename))
        self.units.append(self.unit_names.number(unit))
        if name is not None and name != _joined(basename, id):
            self._names[vertex] = name
        if properties:
            self.properties[vertex] = dict(properties)
        return vertex

    def add_edge(self, source: int, target: int, subsystem: str = CONTAINMENT) -> int:
        """A new edge from ``source`` to ``target``."""
        self._thaw()
        edge = len(self.sources)
        self.sources.append(source)
        self.e.extend((target, self.subsystems.number(subsystem), 0, 0))
        self.ew.extend((0, HEAVIEST))
        return edge

    def add_many(
        self,
        type: str,
        basename: str,
        parents: Any,
        ids: Any,
        *,
        size: int = 1,
        ranks: Any = None,
        unit: str = "",
        subsystem: str = CONTAINMENT,
    ) -> Any:
        """One vertex below each of ``parents`` with its edge: as many calls of the above, by NumPy.

        ``parents``, ``ids`` and ``ranks`` are integer arrays of one length. Returns the vertices.
        """
        import numpy as np

        if not 0 <= size < 1 << 32:
            raise GraphError(f"size of {basename}: expected 0 to 2³²-1, found {size}")
        self._thaw()
        n = len(parents)
        first = len(self.ids)
        vertices = np.arange(first, first + n, dtype="i")
        rows = np.zeros((n, V_WIDTH), dtype="i")
        rows[:, V_TYPE] = self.types.number(type)
        rows[:, V_HEAD] = -1
        rows[:, V_PARENT] = -1
        _extend(self.v, rows)
        _extend(self.ids, np.asarray(ids, dtype="q"))
        _extend(self.sizes, np.full(n, size, dtype="q"))
        _extend(self.uniq, vertices.astype("q"))
        _extend(self.ranks, np.full(n, -1, dtype="i") if ranks is None else ranks.astype("i"))
        _extend(self.bases, np.full(n, self.basenames.number(basename), dtype="i"))
        _extend(self.units, np.full(n, self.unit_names.number(unit), dtype="i"))
        rows = np.zeros((n, E_WIDTH), dtype="i")
        rows[:, E_TARGET] = vertices
        rows[:, E_SUBSYSTEM] = self.subsystems.number(subsystem)
        _extend(self.e, rows)
        weights = np.zeros((n, EW_WIDTH), dtype="q")
        weights[:, EW_WEIGHT] = HEAVIEST
        _extend(self.ew, weights)
        _extend(self.sources, np.asarray(parents, dtype="i"))
        return vertices

    def set_subsystem(self, edge: int, subsystem: str) -> None:
        """Let an edge belong to another subsystem."""
        self.e[edge * E_WIDTH + E_SUBSYSTEM] = self.subsystems.number(subsystem)
        self._derived.clear()

    def set_root(self, subsystem: str, vertex: int) -> None:
        """Raises `GraphError` when the subsystem has another root already."""
        number = self.subsystems.number(subsystem)
        if self.roots.setdefault(number, vertex) != vertex:
            raise GraphError(
                f"subsystem {subsystem}: expected one root, found "
                f"{self.name(self.roots[number])} and {self.name(vertex)}"
            )

    def set_path(self, vertex: int, subsystem: str, path: str) -> None:
        """Note the path that a file gives, if it is not the one the edges say. After `freeze`."""
        if self.path(vertex, subsystem) != path:
            self._paths[vertex, self.subsystems.number(subsystem)] = path
            self._derived.clear()

    def remove(self, vertices: Iterable[int]) -> None:
        """Take vertices out, with all their edges; their numbers are not used again."""
        gone = set(vertices)
        if not gone:
            return
        self._thaw()
        self._dead |= gone
        for vertex in gone:
            self.properties.pop(vertex, None)
            self._names.pop(vertex, None)
        self._paths = {key: path for key, path in self._paths.items() if key[0] not in gone}
        self.roots = {s: root for s, root in self.roots.items() if root not in gone}

    def alive(self, vertex: int) -> bool:
        """Whether there is such a vertex that was not removed."""
        return 0 <= vertex < len(self.ids) and vertex not in self._dead

    def vertices(self) -> Iterator[int]:
        """All vertices that were not removed, ascending."""
        if not self._dead:
            return iter(range(len(self.ids)))
        return (v for v in range(len(self.ids)) if v not in self._dead)

    def _thaw(self) -> None:
        self._views = None
        self._frozen = False

    def freeze(self) -> None:
        """Index edges by source after additions and removals; checks what a graph must be.

        Weights and marks of edges stay. Raises `GraphError` for a cycle in a subsystem.
        """
        if self._frozen:
            return
        if len(self.ids) > 4096:
            self._index_by_numpy()
        else:
            self._index()
        self._derived.clear()
        self._frozen = True
        self.generation += 1
        for subsystem, root in self.roots.items():
            self._check_acyclic(subsystem, root)

    def _index(self) -> None:
        e, sources, dead, v = self.e, self.sources, self._dead, self.v
        outs: dict[int, list[int]] = {}
        for edge, source in enumerate(sources):
            if not dead or (source not in dead and e[edge * E_WIDTH + E_TARGET] not in dead):
                outs.setdefault(source, []).append(edge)
        self.out = array("i")
        self.by_weight = array("i")
        ew, uniq = self.ew, self.uniq
        for vertex in range(len(self.ids)):
            row = vertex * V_WIDTH
            v[row + V_PARENT] = -1
            v[row + V_OUT] = len(self.out)
            edges = outs.get(vertex)
            if edges:
                self.out.extend(edges)
                edges.sort(
                    key=lambda x: (ew[x * EW_WIDTH + EW_WEIGHT], uniq[e[x * E_WIDTH + E_TARGET]]),
                    reverse=True,
                )
                self.by_weight.extend(edges)
            v[row + V_OUT_END] = len(self.out)
        for edge in self.out:
            target = e[edge * E_WIDTH + E_TARGET] * V_WIDTH
            if e[edge * E_WIDTH + E_SUBSYSTEM] == self._walked and v[target + V_PARENT] < 0:
                v[target + V_PARENT] = edge

    def _index_by_numpy(self) -> None:
        import numpy as np

        n = len(self.ids)
        sources = np.frombuffer(self.sources, dtype="i")
        e = np.frombuffer(self.e, dtype="i").reshape(-1, E_WIDTH)
        targets = e[:, E_TARGET]
        edges = np.arange(len(sources), dtype="i")
        if self._dead:
            alive = np.ones(n, dtype=bool)
            alive[list(self._dead)] = False
            edges = edges[alive[sources] & alive[targets]]
        edges = edges[np.argsort(sources[edges], kind="stable")]
        counts = np.bincount(sources[edges], minlength=n)
        ends = np.cumsum(counts)
        v = np.frombuffer(self.v, dtype="i").reshape(-1, V_WIDTH)
        v[:, V_OUT] = ends - counts
        v[:, V_OUT_END] = ends
        contained = edges[e[edges, E_SUBSYSTEM] == self._walked]
        v[:, V_PARENT] = -1
        v[targets[contained][::-1], V_PARENT] = contained[::-1]  # the first edge wins
        self.out = array("i", edges.tobytes())
        weights = np.frombuffer(self.ew, dtype="q").reshape(-1, EW_WIDTH)[edges, EW_WEIGHT]
        uniq = np.frombuffer(self.uniq, dtype="q")[targets[edges]]
        order = np.lexsort((-uniq, -weights, sources[edges]))
        self.by_weight = array("i", edges[order].astype("i").tobytes())

    def walk_by(self, subsystem: str) -> None:
        """Let V_PARENT lead up this subsystem (containment unless told)."""
        number = self.subsystems.find(subsystem)
        if number != self._walked:
            self._walked = number
            self._thaw()
            self.freeze()

    def _check_acyclic(self, subsystem: int, root: int) -> None:
        """Walk down from the root; an edge back to a vertex on the way there is a cycle."""
        v, e, out = self.v, self.e, self.out
        n = len(self.ids)
        if n > 4096 and self._is_forest(subsystem, root):
            return
        state = bytearray(n)  # 1: on the way, 2: done
        stack = [(root, v[root * V_WIDTH + V_OUT])]
        state[root] = 1
        while stack:
            vertex, at = stack[-1]
            if at == v[vertex * V_WIDTH + V_OUT_END]:
                state[vertex] = 2
                stack.pop()
                continue
            stack[-1] = (vertex, at + 1)
            edge = out[at] * E_WIDTH
            if e[edge + E_SUBSYSTEM] != subsystem:
                continue
            target = e[edge + E_TARGET]
            if state[target] == 1:
                raise GraphError(
                    f"subsystem {self.subsystems[subsystem]}: the edge from {self.name(vertex)} "
                    f"to {self.name(target)} closes a cycle; a hierarchy has none"
                )
            if state[target] == 0:
                state[target] = 1
                stack.append((target, v[target * V_WIDTH + V_OUT]))

    def _is_forest(self, subsystem: int, root: int) -> bool:
        """Whether no vertex has two parents, and each parent has the lower number: no cycle."""
        import numpy as np

        e = np.frombuffer(self.e, dtype="i").reshape(-1, E_WIDTH)
        ours = e[:, E_SUBSYSTEM] == subsystem
        targets = e[ours, E_TARGET]
        return bool(np.all(np.frombuffer(self.sources, dtype="i")[ours] < targets))

    # -- views ----------------------------------------------------------------------------------

    def views(self) -> dict[str, Any]:
        """NumPy's views of the arrays by attribute name, for compiled kernels.

        Keep none of them over a change of the graph: arrays with views cannot grow.
        """
        if self._views is None:
            import numpy as np

            self._views = {
                name: np.frombuffer(words, dtype=words.typecode)
                if len(words := getattr(self, name))
                else np.zeros(0, dtype=words.typecode)
                for name in ("v", "e", "ew", "sizes", "out", "by_weight", "uniq", "ids", "ranks")
            }
        return self._views

    # -- reading --------------------------------------------------------------------------------

    def type(self, vertex: int) -> str:
        return self.types[self.v[vertex * V_WIDTH + V_TYPE]]

    def status(self, vertex: int) -> int:
        return self.v[vertex * V_WIDTH + V_STATUS]

    def set_status(self, vertex: int, status: int) -> None:
        self.v[vertex * V_WIDTH + V_STATUS] = status

    def basename(self, vertex: int) -> str:
        return self.basenames[self.bases[vertex]]

    def unit(self, vertex: int) -> str:
        return self.unit_names[self.units[vertex]]

    def name(self, vertex: int) -> str:
        found = self._names.get(vertex)
        return found if found is not None else _joined(self.basename(vertex), self.ids[vertex])

    def target(self, edge: int) -> int:
        return self.e[edge * E_WIDTH + E_TARGET]

    def subsystem(self, edge: int) -> str:
        return self.subsystems[self.e[edge * E_WIDTH + E_SUBSYSTEM]]

    def edges_from(self, vertex: int, subsystem: str | None = None) -> Sequence[int]:
        """The edges that leave ``vertex``, oldest first. The graph must be frozen."""
        row = vertex * V_WIDTH
        edges = self.out[self.v[row + V_OUT] : self.v[row + V_OUT_END]]
        if subsystem is None:
            return edges
        number = self.subsystems.find(subsystem)
        return [x for x in edges if self.e[x * E_WIDTH + E_SUBSYSTEM] == number]

    def children(self, vertex: int, subsystem: str = CONTAINMENT) -> list[int]:
        return [self.target(edge) for edge in self.edges_from(vertex, subsystem)]

    def root(self, subsystem: str = CONTAINMENT) -> int | None:
        return self.roots.get(self.subsystems.find(subsystem))

    def parent_edge(self, vertex: int, subsystem: str = CONTAINMENT) -> int | None:
        """The (first) edge of a subsystem that leads to ``vertex``; None for a root."""
        number = self.subsystems.find(subsystem)
        if number == self._walked:
            edge = self.v[vertex * V_WIDTH + V_PARENT]
            return edge if edge >= 0 else None
        return self._parents(number).get(vertex)

    def _parents(self, subsystem: int) -> dict[int, int]:
        """Vertex to parent edge in a subsystem that V_PARENT does not lead up."""
        key = f"parents {subsystem}"
        if key not in self._derived:
            e = self.e
            parents: dict[int, int] = {}
            for edge in self.out:
                if e[edge * E_WIDTH + E_SUBSYSTEM] == subsystem:
                    parents.setdefault(e[edge * E_WIDTH + E_TARGET], edge)
            self._derived[key] = parents
        found: dict[int, int] = self._derived[key]
        return found

    def path(self, vertex: int, subsystem: str = CONTAINMENT) -> str | None:
        """Names from the root down, each behind a slash; None when it is not in the subsystem."""
        number = self.subsystems.find(subsystem)
        root = self.roots.get(number)
        names: list[str] = []
        at = vertex
        while True:
            told = self._paths.get((at, number))
            if told is not None:
                return told + "".join(f"/{name}" for name in reversed(names))
            names.append(self.name(at))
            if at == root:
                return "".join(f"/{name}" for name in reversed(names))
            edge = self.parent_edge(at, subsystem)
            if edge is None or len(names) > len(self.ids):
                return None
            at = self.sources[edge]

    def paths(self, vertex: int) -> dict[str, str]:
        """Its path in each subsystem that it belongs to."""
        found = {name: self.path(vertex, name) for name in self.subsystems}
        return {name: path for name, path in found.items() if path is not None}

    def find_path(self, path: str) -> list[int]:
        """The vertices with this path in some subsystem."""
        found: list[int] = []
        for number, root in self.roots.items():
            if self._paths:
                index = self._path_index(number)
                found += [v for v in index.get(path, []) if v not in found]
                continue
            at = [root]
            parts = path.split("/")
            if parts[0] != "" or parts[1:2] != [self.name(root)]:
                continue
            for part in parts[2:]:
                at = [
                    child
                    for vertex in at
                    for child in self.children(vertex, self.subsystems[number])
                    if self.name(child) == part
                ]
            found += [v for v in at if v not in found]
        return found

    def _path_index(self, subsystem: int) -> dict[str, list[int]]:
        """All paths of a subsystem; needed only where a file gives paths of its own."""
        key = f"paths {subsystem}"
        if key not in self._derived:
            index: dict[str, list[int]] = {}
            name = self.subsystems[subsystem]
            for vertex in self.vertices():
                path = self.path(vertex, name)
                if path is not None:
                    index.setdefault(path, []).append(vertex)
            self._derived[key] = index
        found: dict[str, list[int]] = self._derived[key]
        return found

    def of_type(self, type: str) -> list[int]:
        """The vertices of a type, ascending."""
        number = self.types.find(type)
        v = self.v
        return [x for x in self.vertices() if v[x * V_WIDTH + V_TYPE] == number]

    def by_rank(self) -> dict[int, list[int]]:
        """Rank to its vertices, ascending; -1 has those of no rank."""
        if "by_rank" not in self._derived:
            index: dict[int, list[int]] = {}
            for vertex in self.vertices():
                index.setdefault(self.ranks[vertex], []).append(vertex)
            self._derived["by_rank"] = index
        found: dict[int, list[int]] = self._derived["by_rank"]
        return found

    def set_property(self, vertex: int, key: str, value: str) -> None:
        self.properties.setdefault(vertex, {})[key] = value
        self.property_changes += 1

    def below(self, vertex: int, subsystem: str = CONTAINMENT) -> list[int]:
        """``vertex`` and everything under it, each once, parents first."""
        seen = {vertex: None}
        stack = [vertex]
        while stack:
            for child in self.children(stack.pop(), subsystem):
                if child not in seen:
                    seen[child] = None
                    stack.append(child)
        return list(seen)


def _joined(basename: str, id: int) -> str:
    return basename if id == -1 else f"{basename}{id}"


def _extend(words: array[int], values: Any) -> None:
    words.frombytes(values.tobytes())
