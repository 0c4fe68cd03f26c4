"""The resource graph of an instance: made of its R, or read from a file and matched with its R.

A file says more than an instance can find out: racks, switches, storage, power. Its nodes are the
instance's ranks: those that say the same rank, or else in the order of both.
"""

from __future__ import annotations

import json
from array import array

from flux_mpi.formats.idset import EMPTY
from flux_mpi.resource.graph import CONTAINMENT, ResourceGraph

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux_mpi.formats.rv1 import RSet

PLAIN = frozenset(("cluster", "node", "core", "gpu"))
"""Types that an R knows. A graph with others has more to offer than the bitmap door can see."""

NONE = -1


class OwnGraphError(ValueError):
    """A graph that cannot be this instance's: the text names the node, found and allowed."""


class OwnGraph:
    """A graph and where its cores and GPUs are in R.

    ``node_of``: rank to node vertex. ``bits``: by vertex, for a core or GPU of a rank twice its
    logical id, plus one for a GPU; else NONE.
    """

    __slots__ = ("bits", "graph", "node_of")

    def __init__(self, graph: ResourceGraph) -> None:
        self.graph = graph
        self.node_of: dict[int, int] = {}
        self.bits = array("q", [NONE]) * graph.n_vertices

    @property
    def plain(self) -> bool:
        """Whether R says all that is in this graph."""
        graph = self.graph
        return len(graph.roots) == 1 and all(graph.type(v) in PLAIN for v in graph.vertices())


def from_rset(resources: RSet) -> OwnGraph:
    """A cluster of nodes, one a rank, with their cores and GPUs."""
    graph = ResourceGraph()
    cluster = graph.add_vertex("cluster", "cluster", 0)
    graph.set_root(CONTAINMENT, cluster)
    properties: dict[int, dict[str, str]] = {}
    for name, ranks in resources.properties.items():
        for rank in ranks:
            properties.setdefault(rank, {})[name] = ""
    node_of: dict[int, int] = {}
    bits = [NONE]
    for rank, cores in resources.cores.items():
        host = resources.hosts[rank]
        node = graph.add_vertex(
            "node", "node", rank, rank=rank, name=host, properties=properties.get(rank)
        )
        node_of[rank] = node
        bits.append(NONE)
        graph.add_edge(cluster, node)
        for kind, ids in (("core", cores), ("gpu", resources.gpus.get(rank, EMPTY))):
            for id in ids:
                graph.add_edge(node, graph.add_vertex(kind, kind, id, rank=rank))
                bits.append(2 * id + (kind == "gpu"))
    graph.freeze()
    own = OwnGraph(graph)
    own.node_of = node_of
    own.bits = array("q", bits)
    return own


def guess_format(text: str) -> str:
    """What a file most likely is, by its beginning."""
    head = text.lstrip()
    if head.startswith("{"):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return "jgf"  # whose reader says what is wrong
        return "rv1exec" if isinstance(document, dict) and "execution" in document else "jgf"
    return "hwloc" if "<topology" in head[:2000] else "grug"


def matched(graph: ResourceGraph, resources: RSet) -> OwnGraph:
    """A graph from a file as that of the instance with these resources.

    Its vertices get the instance's ranks, and its nodes R's properties. Raises `OwnGraphError`
    where cores or GPUs differ, and then the graph is as it was.
    """
    own = OwnGraph(graph)
    own.node_of = _nodes(graph, resources)
    below = {rank: graph.below(node) for rank, node in own.node_of.items()}
    for rank, cores in resources.cores.items():
        for kind, ids in (("core", cores), ("gpu", resources.gpus.get(rank, EMPTY))):
            vertices = [vertex for vertex in below[rank] if graph.type(vertex) == kind]
            where = f"node {graph.name(own.node_of[rank])} (rank {rank}, {resources.hosts[rank]})"
            odd = [vertex for vertex in vertices if graph.sizes[vertex] != 1]
            if odd:
                raise OwnGraphError(
                    f"{where}: expected each {kind} to be a vertex of size 1, "
                    f"found size {graph.sizes[odd[0]]}"
                )
            if len(vertices) != len(ids):
                raise OwnGraphError(
                    f"{where}: found {len(vertices)} {kind}s in the graph, "
                    f"allowed: {len(ids)}, which is what the rank has"
                )
            named = [graph.ids[vertex] for vertex in vertices]
            # The same ids on each side are the same things; else the file numbers in its own way.
            by_id = set(named) == set(ids)
            for vertex, id in zip(vertices, named if by_id else ids):
                own.bits[vertex] = 2 * id + (kind == "gpu")
    for vertex in graph.vertices():
        graph.ranks[vertex] = -1
    for rank, vertices in below.items():
        for vertex in vertices:
            graph.ranks[vertex] = rank
    for name, ranks in resources.properties.items():
        for rank in ranks:
            graph.set_property(own.node_of[rank], name, "")
    return own


def _nodes(graph: ResourceGraph, resources: RSet) -> dict[int, int]:
    """Rank to node: by the ranks that the file gives if these are R's, else in order."""
    nodes = graph.of_type("node")
    ranks = list(resources.cores)
    given = [graph.ranks[node] for node in nodes]
    if sorted(given) == ranks:
        return dict(zip(given, nodes))
    if len(nodes) != len(ranks):
        extra = ""
        if len(nodes) > len(ranks):
            extra = f", the first too many is {graph.name(nodes[len(ranks)])}"
        raise OwnGraphError(
            f"found {len(nodes)} nodes in the graph{extra}, "
            f"allowed: {len(ranks)}, one for each rank"
        )
    return dict(zip(ranks, nodes))


def properties(own: OwnGraph) -> dict[str, list[int]]:
    """Ranks by property, as the graph's nodes have them."""
    found: dict[str, list[int]] = {}
    for rank, node in own.node_of.items():
        for name in own.graph.properties.get(node, ()):
            found.setdefault(name, []).append(rank)
    return found


def read(path: str, format: str | None) -> ResourceGraph:
    """The graph in a file. Raises `OwnGraphError`."""
    from flux_mpi.resource import readers

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise OwnGraphError(f"found {path!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OwnGraphError(f"found {path!r}, allowed: a file of text in UTF-8") from None
    try:
        graph = readers.load(text, format or guess_format(text))
    except ValueError as error:
        raise OwnGraphError(f"found {path!r}: {error}") from None
    if graph.root() is None:
        raise OwnGraphError(f"found {path!r}, which has no {CONTAINMENT} hierarchy")
    return graph
