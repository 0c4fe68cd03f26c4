"""R version 1 (RFC 20): a cluster of nodes named by rank, with whatever is counted below them.

Only the execution section is read, as Fluxion does. A graph made from it has a cluster, below it
a node for each rank, and below that one vertex for each id of each child.
"""

from __future__ import annotations

from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import EMPTY, IDSet
from flux_mpi.resource.graph import CONTAINMENT, E_TARGET, E_WIDTH, ResourceGraph
from flux_mpi.resource.readers import hostname, jsontext
from flux_mpi.resource.readers.changes import Allocation, Release
from flux_mpi.resource.readers.errors import MAX_VERTICES, ReaderError, checked_name, refusal
from flux_mpi.resource.readers.paths import Finder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_MAX_RANK = (1 << 31) - 2


class _Rank:
    """One rank: its host, and the ids of each type below it in the order of the file."""

    __slots__ = ("base", "children", "host", "id", "place", "properties", "rank")

    def __init__(
        self,
        rank: int,
        host: str,
        split: tuple[str, int],
        children: list[tuple[str, IDSet]],
        properties: dict[str, str],
        place: str,
    ) -> None:
        self.rank = rank
        self.host = host
        self.base, self.id = split
        self.children = children
        self.properties = properties
        self.place = place


class _Document:
    """The execution section of an R; raises `ReaderError`."""

    def __init__(self, text: str, format: str) -> None:
        self.format = format
        document = jsontext.parse(format, text)
        if document.get("version") != 1 or type(document["version"]) is not int:
            raise refusal(format, "version", "1", document.get("version"))
        self.execution = jsontext.mapping(format, "execution", document.get("execution"))
        self.rlite: list[tuple[str, IDSet, dict[str, Any]]] = []
        rlite = jsontext.array(format, "execution.R_lite", self.execution.get("R_lite"))
        for index, entry in enumerate(rlite):
            place = f"execution.R_lite[{index}]"
            entry = jsontext.mapping(format, place, entry)
            self.rlite.append((place, self._idset(f"{place}.rank", entry.get("rank")), entry))

    def _idset(self, place: str, value: object) -> IDSet:
        if not isinstance(value, str):
            raise refusal(self.format, place, "an idset", value)
        try:
            ids = IDSet.parse(value)
        except ValueError as err:
            raise ReaderError(f"{self.format}: {place}: {err}") from None
        if len(ids) > MAX_VERTICES or (ids and ids.last > _MAX_RANK):
            raise refusal(self.format, place, f"ids up to {_MAX_RANK}", value)
        return ids

    def all_ranks(self) -> IDSet:
        """Every rank that R_lite names."""
        ranges = [r for _place, ids, _entry in self.rlite for r in ids.ranges()]
        return IDSet.from_ranges(ranges) if ranges else EMPTY

    def ranks(self) -> Iterator[_Rank]:
        """Rank by rank in the order of R_lite; the n-th lowest rank has the n-th host."""
        format = self.format
        hosts = self._hosts()
        order = self.all_ranks()
        properties = self._properties(order)
        n_vertices = 1
        for place, ids, entry in self.rlite:
            children = self._children(place, entry)
            n_vertices += len(ids) * (1 + sum(len(x) for _type, x in children))
            if n_vertices > MAX_VERTICES:
                raise refusal(format, place, f"at most {MAX_VERTICES} resources", n_vertices)
            for rank in ids:
                index = order.index(rank)
                if index >= len(hosts):
                    raise refusal(format, "execution.nodelist", f"{len(order)} hosts", len(hosts))
                host = checked_name(format, "execution.nodelist", hosts.nth(index))
                split = hostname.split(format, "execution.nodelist", host)
                yield _Rank(rank, host, split, children, properties.get(rank, {}), place)

    def _hosts(self) -> Hostlist:
        hosts = Hostlist()
        nodelist = self.execution.get("nodelist")
        for index, names in enumerate(jsontext.array(self.format, "execution.nodelist", nodelist)):
            place = f"execution.nodelist[{index}]"
            if not isinstance(names, str):
                raise refusal(self.format, place, "a hostlist", names)
            try:
                hosts.append(names)
            except ValueError as err:
                raise ReaderError(f"{self.format}: {place}: {err}") from None
        return hosts

    def _properties(self, ranks: IDSet) -> dict[int, dict[str, str]]:
        """Properties by rank, each name with an empty value."""
        found: dict[int, dict[str, str]] = {}
        given = self.execution.get("properties")
        if given is None:
            return found
        for name, owners in jsontext.mapping(self.format, "execution.properties", given).items():
            checked_name(self.format, "execution.properties", name, empty=True)
            place = f"execution.properties.{name}"
            for rank in self._idset(place, owners) & ranks:
                found.setdefault(rank, {})[name] = ""
        return found

    def _children(self, place: str, entry: dict[str, Any]) -> list[tuple[str, IDSet]]:
        place = f"{place}.children"
        children = jsontext.mapping(self.format, place, entry.get("children"))
        found = []
        for type, ids in children.items():
            checked_name(self.format, place, type)
            found.append((type, self._idset(f"{place}.{type}", ids)))
        return found


def load(text: str, format: str) -> ResourceGraph:
    """The graph of an R, frozen; raises `ReaderError`."""
    document = _Document(text, format)
    graph = ResourceGraph()
    cluster = graph.add_vertex("cluster", "cluster", 0)
    graph.set_root(CONTAINMENT, cluster)
    seen: set[int] = set()
    for item in document.ranks():
        if item.rank in seen:
            raise refusal(format, f"{item.place}.rank", "each rank once", item.rank)
        seen.add(item.rank)
        node = graph.add_vertex(
            "node",
            item.base,
            item.id,
            rank=item.rank,
            name=item.host,
            properties=item.properties,
        )
        graph.add_edge(cluster, node)
        for type, ids in item.children:
            properties = item.properties if type == "node" else None
            for id in ids:
                child = graph.add_vertex(type, type, id, rank=item.rank, properties=properties)
                graph.add_edge(node, child)
    graph.freeze()
    return graph


def read_allocation(graph: ResourceGraph, text: str, format: str) -> Allocation:
    """See `flux_mpi.resource.readers.read_allocation`.

    A node whose every vertex is in the R is taken as a whole, whatever its rank's vertices are.
    """
    root = graph.root()
    if root is None:
        raise ReaderError(f"{format}: expected a graph with a {CONTAINMENT} root, found none")
    document = _Document(text, format)
    finder = Finder(graph)
    top = graph.path(root)
    here = (graph.sizes[root], False)
    allocation = Allocation(root=here, roots={CONTAINMENT: here})

    def take(parent: int, path: str, type: str, id: int, item: _Rank) -> int:
        vertex = finder.find(path, item.rank, lambda v: _is(graph, v, type, id))
        if vertex < 0:
            raise refusal(format, item.place, f"a {type} of the graph with rank {item.rank}", path)
        edge = _edge_between(graph, parent, vertex)
        if edge < 0:
            raise refusal(format, item.place, f"an edge from {graph.name(parent)}", path)
        allocation.edges.append((edge, graph.sizes[vertex], True))
        return vertex

    seen: set[int] = set()
    taken: dict[int, int] = {}  # number of vertices with a span, by rank
    for item in document.ranks():
        path = f"{top}/{item.host}"
        node = take(root, path, "node", item.id, item)
        if node in seen:
            raise refusal(format, item.place, "ranks not taken whole before", item.rank)
        n_children = 0
        for type, ids in item.children:
            for id in ids:
                child = take(node, f"{path}/{type}{id}", type, id, item)
                if child in seen:
                    raise refusal(format, item.place, "each resource once", graph.name(child))
                seen.add(child)
                # A node below a node is walked through like any other.
                allocation.vertices.append((child, 1, type != "node"))
                n_children += type != "node"
        taken[item.rank] = taken.get(item.rank, 0) + n_children
        if not taken[item.rank]:
            raise refusal(format, f"{item.place}.children", "resources below a node", None)
        whole = taken[item.rank] == len(graph.by_rank()[item.rank]) - 1
        if whole:
            taken[item.rank] += 1
            seen.add(node)
        allocation.vertices.append((node, 1, whole))
    return allocation


def read_release(text: str, format: str) -> Release:
    """See `flux_mpi.resource.readers.read_release`: whole ranks."""
    return Release(ranks=set(_Document(text, format).all_ranks()))


def _is(graph: ResourceGraph, vertex: int, type: str, id: int) -> bool:
    return graph.ids[vertex] == id and graph.sizes[vertex] == 1 and graph.type(vertex) == type


def _edge_between(graph: ResourceGraph, source: int, target: int) -> int:
    e = graph.e
    for edge in graph.edges_from(source):
        if e[edge * E_WIDTH + E_TARGET] == target:
            return edge
    return -1
