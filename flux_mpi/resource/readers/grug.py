"""GRUG: a GraphML recipe of few vertices from which a resource graph is generated.

A depth-first walk over the recipe makes, for each edge by which it reaches a recipe vertex, all
resource vertices of that kind at once (MULTIPLY), or draws edges to vertices made before
(ASSOCIATE_IN, ASSOCIATE_BY_PATH_IN). Attributes and their types are those of GraphML as the Boost
Graph Library reads it, the generation that of Fluxion (flux-sched, resource/readers).
"""

from __future__ import annotations

from bisect import bisect_right

from flux_mpi.resource.graph import GraphError, ResourceGraph
from flux_mpi.resource.readers.errors import (
    MAX_SIZE,
    MAX_VERTICES,
    ReaderError,
    checked_name,
    refusal,
    shown,
)
from flux_mpi.resource.readers.paths import settle
from flux_mpi.resource.readers.xmltree import Element, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMAT = "grug"

# Below this many vertices of one kind, a loop is done before NumPy is imported.
_MANY = 4096

_INT = ("int", -(1 << 31), (1 << 31) - 1)
_LONG = ("long", -(1 << 63), (1 << 63) - 1)
_STRING = ("string", 0, 0)

_OF_NODES = {
    "root": _INT,
    "type": _STRING,
    "basename": _STRING,
    "size": _LONG,
    "unit": _STRING,
    "subsystem": _STRING,
}
_OF_EDGES = {
    "e_subsystem": _STRING,
    "relation": _STRING,
    "rrelation": _STRING,
    "gen_method": _STRING,
    "id_scope": _INT,
    "id_start": _INT,
    "id_stride": _INT,
    "multi_scale": _INT,
    "as_tgt_subsystem": _STRING,
    "as_tgt_uplvl": _INT,
    "as_src_uplvl": _INT,
}
_ATTRIBUTE_TYPES = ("boolean", "int", "long", "float", "double", "string")
_KEY_KINDS = ("graph", "node", "edge", "hyperedge", "port", "endpoint", "all", "graphml")
_METHODS = ("MULTIPLY", "ASSOCIATE_IN", "ASSOCIATE_BY_PATH_IN")


class _Key:
    """A GraphML <key>: what it is for, the attribute it stands for, its type, its default."""

    __slots__ = ("default", "kind", "name", "type")

    def __init__(self, kind: str, name: str, type: str, default: str | None) -> None:
        self.kind = kind
        self.name = name
        self.type = type
        self.default = default


class _Values:
    """Attributes of one element of the recipe: integers and strings by name, 0 or "" if unset."""

    def __init__(self, table: dict[str, tuple[str, int, int]], place: str) -> None:
        self._table = table
        self.place = place
        self._numbers: dict[str, int] = {}
        self._strings: dict[str, str] = {}

    def put(self, key: _Key, value: str) -> None:
        """Raises `ReaderError` where Boost would throw."""
        place = f"{self.place} {shown(key.name)}"
        if key.name not in self._table:
            raise refusal(FORMAT, self.place, f"one of {', '.join(self._table)}", key.name)
        type, low, high = self._table[key.name]
        if key.type not in (type, "string"):
            raise refusal(FORMAT, place, f"attr.type {type}", key.type)
        if type == "string":
            self._strings[key.name] = checked_name(FORMAT, place, value, empty=True)
            return
        # Strings convert, and an empty one is 0; an int that is empty is no int.
        self._numbers[key.name] = (
            0 if key.type == "string" and not value else _integer(place, value, low, high)
        )

    def number(self, name: str) -> int:
        return self._numbers.get(name, 0)

    def string(self, name: str) -> str:
        return self._strings.get(name, "")


def _integer(place: str, text: str, low: int, high: int) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if digits.isascii() and digits.isdigit() and len(digits) <= 20 and low <= int(text) <= high:
        return int(text)
    raise refusal(FORMAT, place, f"an integer from {low} to {high}", text)


class _Vertex:
    """A vertex of the recipe: one kind of resource, and the recipe edges that leave it."""

    __slots__ = ("basename", "edges", "place", "root", "size", "subsystem", "type", "unit")

    def __init__(self, values: _Values) -> None:
        self.place = place = values.place
        self.type = checked_name(FORMAT, f"{place} 'type'", values.string("type"))
        self.basename = values.string("basename")
        self.unit = values.string("unit")
        self.subsystem = values.string("subsystem")
        self.root = values.number("root") != 0
        self.size = values.number("size")
        if not 0 <= self.size <= MAX_SIZE:
            raise refusal(FORMAT, f"{place} 'size'", f"an integer from 0 to {MAX_SIZE}", self.size)
        self.edges: list[_Edge] = []


class _Edge:
    """An edge of the recipe: how vertices of the target are made below those of the source."""

    __slots__ = (
        "id_scope",
        "id_start",
        "id_stride",
        "in_subsystem",
        "method",
        "place",
        "scale",
        "source",
        "source_up",
        "subsystem",
        "target",
        "target_up",
    )

    def __init__(self, values: _Values, source: int, target: int) -> None:
        self.place = place = values.place
        self.source = source
        self.target = target
        self.method = values.string("gen_method")
        if self.method not in _METHODS:
            raise refusal(FORMAT, f"{place} 'gen_method'", " or ".join(_METHODS), self.method)
        self.subsystem = values.string("e_subsystem")
        self.in_subsystem = values.string("as_tgt_subsystem")
        self.target_up = values.number("as_tgt_uplvl")
        self.source_up = values.number("as_src_uplvl")
        self.id_scope = values.number("id_scope")
        self.id_start = values.number("id_start")
        self.id_stride = values.number("id_stride")
        self.scale = values.number("multi_scale")
        if self.scale < 0:
            raise refusal(FORMAT, f"{place} 'multi_scale'", "0 or more", self.scale)


def load(text: str) -> ResourceGraph:
    """The graph that the recipe generates, frozen; raises `ReaderError`."""
    recipe = _read(text)
    generator = _Generator(recipe)
    for edge in _walk(recipe, generator):
        generator.follow(edge)
    return generator.finish()


# -- the recipe -------------------------------------------------------------------------------


def _read(text: str) -> list[_Vertex]:
    """The recipe's vertices in the order of the file, with their edges in that order."""
    document = parse(FORMAT, text)
    if document.tag != "graphml":
        raise refusal(FORMAT, f"line {document.line}", "a <graphml> element", f"<{document.tag}>")
    keys: dict[str, _Key] = {}
    for element in document.children:
        if element.tag == "key":
            keys[element.attributes.get("id", "")] = _read_key(element)
    graph = next((x for x in document.children if x.tag == "graph"), None)
    if graph is None:
        raise ReaderError(f"{FORMAT}: line {document.line}: expected a <graph>, found none")
    vertices: list[_Vertex] = []
    numbers: dict[str, int] = {}
    for element in graph.children:
        if element.tag == "node":
            name = _attribute(element, "id")
            if name in numbers:
                raise refusal(FORMAT, f"line {element.line} node", "each id once", name)
            numbers[name] = len(vertices)
            place = f"line {element.line} node {shown(name)}"
            vertices.append(_Vertex(_values(element, keys, "node", _OF_NODES, place)))
    default = _attribute(graph, "edgedefault")
    for element in graph.children:
        if element.tag == "edge":
            ends = []
            for which in ("source", "target"):
                name = _attribute(element, which)
                if name not in numbers:
                    raise refusal(FORMAT, f"line {element.line} edge {which}", "a node's id", name)
                ends.append(numbers[name])
            told = element.attributes.get("directed", "")
            if (told or default) != ("true" if told else "directed"):
                raise refusal(
                    FORMAT, f"line {element.line} edge", "a directed edge", told or default
                )
            place = f"line {element.line} edge {shown(element.attributes.get('id', ''))}"
            edge = _Edge(_values(element, keys, "edge", _OF_EDGES, place), ends[0], ends[1])
            vertices[edge.source].edges.append(edge)
    return vertices


def _read_key(element: Element) -> _Key:
    kind = element.attributes.get("for", "")
    if kind not in _KEY_KINDS:
        raise refusal(
            FORMAT, f"line {element.line} key for", f"one of {' '.join(_KEY_KINDS)}", kind
        )
    default = next((x.text for x in element.children if x.tag == "default"), None)
    attributes = element.attributes
    key = _Key(kind, attributes.get("attr.name", ""), attributes.get("attr.type", ""), default)
    if default is not None and key.type not in _ATTRIBUTE_TYPES:
        raise refusal(
            FORMAT, f"line {element.line} key attr.type", " or ".join(_ATTRIBUTE_TYPES), key.type
        )
    return key


def _attribute(element: Element, name: str) -> str:
    if name not in element.attributes:
        raise ReaderError(
            f"{FORMAT}: line {element.line}: expected <{element.tag}> with {name}, found none"
        )
    return element.attributes[name]


def _values(
    element: Element,
    keys: dict[str, _Key],
    kind: str,
    table: dict[str, tuple[str, int, int]],
    place: str,
) -> _Values:
    values = _Values(table, place)
    for key in keys.values():
        if key.kind == kind and key.default is not None:
            values.put(key, key.default)
    for data in element.children:
        if data.tag == "data":
            name = _attribute(data, "key")
            if name not in keys:
                raise refusal(FORMAT, f"line {data.line} data key", "the id of a <key>", name)
            values.place = f"{place} line {data.line}" if data.line != element.line else place
            values.put(keys[name], data.text)
            values.place = place
    return values


# -- generation -------------------------------------------------------------------------------


def _walk(recipe: list[_Vertex], generator: _Generator) -> Iterator[_Edge]:
    """The edges by which a depth-first search first reaches a vertex, as it does so.

    Every vertex not reached from an earlier one of the file starts a search of its own, and an
    edge to a vertex reached before generates nothing: the order of the file matters.
    """
    reached = [False] * len(recipe)
    for start in range(len(recipe)):
        if reached[start]:
            continue
        reached[start] = True
        stack = [iter(recipe[start].edges)]
        while stack:
            edges = stack[-1]
            for edge in edges:
                if not reached[edge.target]:
                    reached[edge.target] = True
                    yield edge
                    stack.append(iter(recipe[edge.target].edges))
                    break
            else:
                generator.leave()
                stack.pop()


class _Run:
    """Vertices made by one MULTIPLY: ``scale`` below each of ``sources``, with as many edges."""

    __slots__ = ("edge", "first", "scale", "sources")

    def __init__(self, first: int, edge: int, sources: Sequence[int], scale: int) -> None:
        self.first = first
        self.edge = edge
        self.sources = sources
        self.scale = scale


class _Generator:
    """Makes the graph, an edge of the recipe after the other."""

    def __init__(self, recipe: list[_Vertex]) -> None:
        self._recipe = recipe
        self._graph = graph = ResourceGraph()
        self._n_edges = 0
        self._last_rank = -1
        # By recipe vertex, the vertices made for it or associated with it.
        self._made: dict[int, Sequence[int]] = {}
        self._by_type: dict[str, list[Sequence[int]]] = {}
        # How many of a kind there are on each level above, the nearest first.
        self._scales: list[int] = []
        self._runs: list[_Run] = []
        self._associated: dict[tuple[int, int], int] = {}
        # Of the last ASSOCIATE_BY_PATH_IN: its targets by the prefix of their path.
        self._prefixes_of: _Edge | None = None
        self._prefixes: dict[str, list[int]] = {}
        # Paths by subsystem and vertex; None while the edges tell them all.
        self._paths: dict[str, dict[int, str]] | None = None if _is_plain(recipe) else {}
        for vertex in recipe:
            graph.types.number(vertex.type)
            graph.subsystems.number(vertex.subsystem)

    def follow(self, edge: _Edge) -> None:
        """Make what a recipe edge, reached just now, asks for."""
        source = self._recipe[edge.source]
        if source.root and not self._made.get(edge.source):
            self._made[edge.source] = [self._root(source)]
        sources = self._made.get(edge.source, ())
        if edge.method == "MULTIPLY":
            self._made[edge.target] = self._multiply(edge, sources)
            self._scales.insert(0, edge.scale)
        else:
            self._made[edge.target] = self._associate(edge, sources)

    def leave(self) -> None:
        """The walk is done with a vertex of the recipe."""
        if self._scales:
            self._scales.pop(0)

    def finish(self) -> ResourceGraph:
        """The graph, frozen, with the paths that its edges do not tell."""
        graph = self._graph
        if not graph.roots:
            raise ReaderError(
                f"{FORMAT}: graph: expected a node with root 1 and an edge from it, found none"
            )
        try:
            graph.freeze()
        except GraphError as err:
            raise ReaderError(f"{FORMAT}: {err}") from None
        if self._paths is not None:
            settle(
                graph,
                [
                    (vertex, subsystem, path)
                    for subsystem, paths in self._paths.items()
                    for vertex, path in paths.items()
                ],
            )
        return graph

    def _root(self, kind: _Vertex) -> int:
        """The root of a subsystem; the second of two recipe roots that agree is the first."""
        graph = self._graph
        known = graph.root(kind.subsystem)
        if known is not None:
            if (graph.type(known), graph.basename(known)) != (kind.type, kind.basename):
                raise ReaderError(
                    f"{FORMAT}: {kind.place}: expected one root of subsystem "
                    f"{shown(kind.subsystem)}, found {shown(graph.name(known))} too"
                )
            return known
        vertex = graph.add_vertex(
            kind.type,
            kind.basename,
            0,
            size=kind.size,
            unit=kind.unit,
            rank=self._next_rank(kind),
        )
        graph.set_root(kind.subsystem, vertex)
        self._by_type.setdefault(kind.type, []).append([vertex])
        if self._paths is not None:
            self._paths.setdefault(kind.subsystem, {})[vertex] = f"/{graph.name(vertex)}"
        return vertex

    def _next_rank(self, kind: _Vertex) -> int:
        if kind.type != "node":
            return -1
        self._last_rank += 1
        return self._last_rank

    def _reserve(self, edge: _Edge, n_edges: int) -> None:
        self._n_edges += n_edges
        if self._n_edges > MAX_VERTICES:
            raise refusal(FORMAT, edge.place, f"at most {MAX_VERTICES} edges in all", self._n_edges)

    # -- MULTIPLY

    def _multiply(self, edge: _Edge, sources: Sequence[int]) -> Sequence[int]:
        graph = self._graph
        kind = self._recipe[edge.target]
        n = len(sources) * edge.scale
        if n == 0:
            return ()
        self._reserve(edge, n)
        wrap, step = self._id_steps(edge, len(sources))
        first = graph.n_vertices
        run = _Run(first, graph.n_edges, sources, edge.scale)
        if n < _MANY:
            start, stride, scale = edge.id_start, edge.id_stride if wrap else 1, edge.scale
            for j, parent in enumerate(sources):
                base = start + j % wrap * step if wrap else start
                for i in range(scale):
                    vertex = graph.add_vertex(
                        kind.type,
                        kind.basename,
                        -1 if edge.id_scope < 0 else base + i * stride,
                        size=kind.size,
                        unit=kind.unit,
                        rank=self._next_rank(kind),
                    )
                    graph.add_edge(parent, vertex, edge.subsystem)
        else:
            self._multiply_by_numpy(edge, kind, sources, wrap, step)
        made = range(first, first + n)
        self._by_type.setdefault(kind.type, []).append(made)
        self._runs.append(run)
        if self._paths is not None:
            paths = self._paths.setdefault(kind.subsystem, {})
            for vertex in made:
                above = paths.get(sources[(vertex - first) // edge.scale], "")
                paths[vertex] = f"{above}/{graph.name(vertex)}"
        return made

    def _multiply_by_numpy(
        self, edge: _Edge, kind: _Vertex, sources: Sequence[int], wrap: int, step: int
    ) -> None:
        import numpy as np

        n_sources, scale = len(sources), edge.scale
        if isinstance(sources, range):
            parents = np.arange(sources.start, sources.stop, dtype="i")
        else:
            parents = np.array(sources, dtype="i")
        if edge.id_scope < 0:
            ids = np.full(n_sources * scale, -1, dtype="q")
        elif wrap:
            base = np.arange(n_sources, dtype="q") % wrap * step + edge.id_start
            ids = np.repeat(base, scale)
            ids.reshape(n_sources, scale)[:] += np.arange(scale, dtype="q") * edge.id_stride
        else:
            ids = np.tile(np.arange(scale, dtype="q") + edge.id_start, n_sources)
        ranks = None
        if kind.type == "node":
            ranks = np.arange(len(ids), dtype="i") + (self._last_rank + 1)
            self._last_rank += len(ids)
        self._graph.add_many(
            kind.type,
            kind.basename,
            np.repeat(parents, scale),
            ids,
            size=kind.size,
            ranks=ranks,
            unit=kind.unit,
            subsystem=edge.subsystem,
        )

    def _id_steps(self, edge: _Edge, n_sources: int) -> tuple[int, int]:
        """How ids go on from one source to the next: ``(after how many they start anew, step)``.

        ``(0, 0)`` when every source starts anew. With a scope of k, ids are local to the
        ancestor k levels above the parent.
        """
        if edge.id_scope <= 0:
            if abs(edge.id_start) + edge.scale > _INT[2]:
                raise refusal(FORMAT, edge.place, "ids of 32 bits", edge.id_start)
            return 0, 0
        wrap = 1
        for scale in self._scales[: edge.id_scope]:
            wrap *= scale
        if wrap <= 0:
            raise refusal(
                FORMAT, f"{edge.place} 'id_scope'", "a scope with vertices", edge.id_scope
            )
        step = edge.scale * edge.id_stride
        largest = min(wrap, n_sources) * abs(step) + abs(edge.id_start)
        if largest > _INT[2]:
            raise refusal(FORMAT, edge.place, "ids of 32 bits", largest)
        return wrap, step

    # -- ASSOCIATE

    def _associate(self, edge: _Edge, sources: Sequence[int]) -> Sequence[int]:
        """Edges from the sources to vertices of the target's type that were made before."""
        targets = [
            v for made in self._by_type.get(self._recipe[edge.target].type, []) for v in made
        ]
        assert self._paths is not None
        paths = self._paths.setdefault(edge.subsystem, {})
        found: list[int] = []
        for source in sources:
            chosen = targets
            if edge.method == "ASSOCIATE_BY_PATH_IN":
                chosen = self._beside(edge, source, targets)
            self._reserve(edge, len(chosen))
            above = paths.get(source, "")
            for target in chosen:
                if target == source:
                    raise ReaderError(
                        f"{FORMAT}: {edge.place}: expected edges between two vertices, found one "
                        f"from {shown(self._graph.name(source))} to itself"
                    )
                paths[target] = f"{above}/{self._graph.name(target)}"
                self._connect(source, target, edge.subsystem)
            found += chosen
        return found

    def _beside(self, edge: _Edge, source: int, targets: list[int]) -> list[int]:
        """The targets whose path, cut short, is that of the source, cut short."""
        assert self._paths is not None
        paths = self._paths.get(edge.in_subsystem, {})
        wanted = _prefix(paths.get(source, ""), edge.source_up)
        up = edge.target_up
        if edge.in_subsystem == edge.subsystem:  # each edge drawn changes the paths to compare
            return [t for t in targets if _prefix(paths.get(t, ""), up) == wanted]
        if self._prefixes_of is not edge:
            self._prefixes_of = edge
            self._prefixes = {}
            for target in targets:
                self._prefixes.setdefault(_prefix(paths.get(target, ""), up), []).append(target)
        return self._prefixes.get(wanted, [])

    def _connect(self, source: int, target: int, subsystem: str) -> None:
        """Draw an edge; one that is there already changes its subsystem instead."""
        known = self._associated.get((source, target))
        if known is None:
            at = bisect_right(self._runs, target, key=lambda run: run.first) - 1
            if at >= 0:
                run = self._runs[at]
                k = target - run.first
                if k < len(run.sources) * run.scale and run.sources[k // run.scale] == source:
                    known = run.edge + k
        if known is None:
            self._associated[source, target] = self._graph.add_edge(source, target, subsystem)
        else:
            self._graph.set_subsystem(known, subsystem)


def _is_plain(recipe: list[_Vertex]) -> bool:
    """Whether each path is the parent's with the name behind it."""
    return all(
        edge.method == "MULTIPLY"
        and edge.subsystem == recipe[edge.target].subsystem == vertex.subsystem
        for vertex in recipe
        for edge in vertex.edges
    )


def _prefix(path: str, up: int) -> str:
    """``path`` without its last ``up`` names, with a slash at its end; "" if it has no more."""
    if up >= path.count("/"):
        return ""
    if up <= 0:
        return path if path.endswith("/") else path + "/"
    return path.rsplit("/", up)[0] + "/"
