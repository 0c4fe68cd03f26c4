"""GRUG: a recipe of few vertices from which a resource graph is generated.

A depth-first walk over the recipe makes, for each edge by which it reaches a recipe vertex, all
resource vertices of that kind at once (MULTIPLY), or draws edges to vertices made before
(ASSOCIATE_IN, ASSOCIATE_BY_PATH_IN), as Fluxion does (flux-sched, resource/readers).
"""

from __future__ import annotations

from flux_mpi.resource.graph import GraphError, ResourceGraph
from flux_mpi.resource.readers.errors import MAX_VERTICES, ReaderError, refusal, shown
from flux_mpi.resource.readers.grug_paths import GeneratedPaths, Run, prefix
from flux_mpi.resource.readers.grug_recipe import FORMAT, RecipeEdge, RecipeVertex, read
from flux_mpi.resource.readers.paths import settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Below this many vertices of one kind, a loop is done before NumPy is imported.
_MANY = 4096

_MAX_ID = (1 << 31) - 1


def load(text: str) -> ResourceGraph:
    """The graph that the recipe generates, frozen; raises `ReaderError`."""
    recipe = read(text)
    generator = _Generator(recipe)
    for edge in _walk(recipe, generator):
        generator.follow(edge)
    return generator.finish()


def _walk(recipe: list[RecipeVertex], generator: _Generator) -> Iterator[RecipeEdge]:
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


class _Generator:
    """Makes the graph, an edge of the recipe after the other."""

    def __init__(self, recipe: list[RecipeVertex]) -> None:
        self._recipe = recipe
        self._graph = graph = ResourceGraph()
        self._n_edges = 0
        self._last_rank = -1
        # By recipe vertex, the vertices made for it or associated with it.
        self._made: dict[int, Sequence[int]] = {}
        self._by_type: dict[str, list[Sequence[int]]] = {}
        # How many of a kind there are on each level above, the nearest first.
        self._scales: list[int] = []
        self._associated: dict[tuple[int, int], int] = {}
        # Of the last ASSOCIATE_BY_PATH_IN: its targets by the prefix of their path.
        self._prefixes_of: RecipeEdge | None = None
        self._prefixes: dict[str, list[int]] = {}
        self._paths = GeneratedPaths(graph, all_told=not _is_plain(recipe))
        for vertex in recipe:
            graph.types.number(vertex.type)
            graph.subsystems.number(vertex.subsystem)

    def follow(self, edge: RecipeEdge) -> None:
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
        settle(graph, self._paths.told())
        return graph

    def _root(self, kind: RecipeVertex) -> int:
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
        self._paths.add_root(kind.subsystem, vertex)
        return vertex

    def _next_rank(self, kind: RecipeVertex) -> int:
        if kind.type != "node":
            return -1
        self._last_rank += 1
        return self._last_rank

    def _reserve(self, edge: RecipeEdge, n_edges: int) -> None:
        self._n_edges += n_edges
        if self._n_edges > MAX_VERTICES:
            raise refusal(FORMAT, edge.place, f"at most {MAX_VERTICES} edges in all", self._n_edges)

    # -- MULTIPLY

    def _multiply(self, edge: RecipeEdge, sources: Sequence[int]) -> Sequence[int]:
        graph = self._graph
        kind = self._recipe[edge.target]
        n = len(sources) * edge.scale
        if n == 0:
            return ()
        self._reserve(edge, n)
        wrap, step = self._id_steps(edge, len(sources))
        first = graph.n_vertices
        run = Run(first, graph.n_edges, sources, edge.scale, kind.subsystem)
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
        self._paths.add_run(run)
        return made

    def _multiply_by_numpy(
        self, edge: RecipeEdge, kind: RecipeVertex, sources: Sequence[int], wrap: int, step: int
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

    def _id_steps(self, edge: RecipeEdge, n_sources: int) -> tuple[int, int]:
        """How ids go on from one source to the next: ``(after how many they start anew, step)``.

        ``(0, 0)`` when every source starts anew. With a scope of k, ids are local to the
        ancestor k levels above the parent.
        """
        if edge.id_scope <= 0:
            if abs(edge.id_start) + edge.scale > _MAX_ID:
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
        if largest > _MAX_ID:
            raise refusal(FORMAT, edge.place, "ids of 32 bits", largest)
        return wrap, step

    # -- ASSOCIATE

    def _associate(self, edge: RecipeEdge, sources: Sequence[int]) -> Sequence[int]:
        """Edges from the sources to vertices of the target's type that were made before."""
        targets = [
            v for made in self._by_type.get(self._recipe[edge.target].type, []) for v in made
        ]
        paths = self._paths
        found: list[int] = []
        for source in sources:
            chosen = targets
            if edge.method == "ASSOCIATE_BY_PATH_IN":
                chosen = self._beside(edge, source, targets)
            self._reserve(edge, len(chosen))
            above = paths.get(edge.subsystem, source)
            for target in chosen:
                if target == source:
                    raise ReaderError(
                        f"{FORMAT}: {edge.place}: expected edges between two vertices, found one "
                        f"from {shown(self._graph.name(source))} to itself"
                    )
                path = f"{above}/{self._graph.name(target)}"
                paths.redirect(edge.subsystem, target, path)
                self._connect(source, target, edge.subsystem)
            found += chosen
        return found

    def _beside(self, edge: RecipeEdge, source: int, targets: list[int]) -> list[int]:
        """The targets whose path, cut short, is that of the source, cut short."""
        get, subsystem, up = self._paths.get, edge.in_subsystem, edge.target_up
        wanted = prefix(get(subsystem, source), edge.source_up)
        # Where each edge drawn changes the paths to compare, nothing is remembered.
        if self._prefixes_of is not edge or subsystem == edge.subsystem:
            self._prefixes_of = edge
            self._prefixes = {}
            for target in targets:
                self._prefixes.setdefault(prefix(get(subsystem, target), up), []).append(target)
        return self._prefixes.get(wanted, [])

    def _connect(self, source: int, target: int, subsystem: str) -> None:
        """Draw an edge; one that is there already changes its subsystem instead."""
        known = self._associated.get((source, target))
        if known is None:
            known = self._paths.first_edge(source, target)
        if known is None:
            self._associated[source, target] = self._graph.add_edge(source, target, subsystem)
        elif self._graph.subsystem(known) != subsystem:
            self._paths.tell_all()
            self._graph.set_subsystem(known, subsystem)


def _is_plain(recipe: list[RecipeVertex]) -> bool:
    """Whether each vertex that is made hangs by an edge of the subsystem in which it has a path."""
    return all(
        edge.method != "MULTIPLY"
        or edge.subsystem == recipe[edge.target].subsystem == vertex.subsystem
        for vertex in recipe
        for edge in vertex.edges
    )
