"""JGF: a resource graph as nodes and edges in JSON (RFC 4), as Fluxion writes and reads it.

The same text means a whole graph (`load`), more of one (`attach`), what a job holds of one
(`read_allocation`) or what it gives back (`read_release`).
"""

from __future__ import annotations

import re

from flux_mpi.formats.idset import IDSet
from flux_mpi.resource.graph import (
    CONTAINMENT,
    E_TARGET,
    E_WIDTH,
    EW_WEIGHT,
    EW_WIDTH,
    HEAVIEST,
    GraphError,
    ResourceGraph,
)
from flux_mpi.resource.readers import jsontext
from flux_mpi.resource.readers.changes import Allocation, Release
from flux_mpi.resource.readers.errors import (
    MAX_SIZE,
    ReaderError,
    checked_name,
    checked_path,
    refusal,
    shown,
)
from flux_mpi.resource.readers.paths import Finder, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LEADING_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", re.ASCII)
_TRAILING_DIGITS = re.compile(r"[0-9]+$(?!\n)", re.ASCII)


class Node:
    """One vertex of the file, all defaults filled in."""

    __slots__ = (
        "basename",
        "exclusive",
        "id",
        "key",
        "name",
        "paths",
        "place",
        "properties",
        "rank",
        "size",
        "status",
        "type",
        "uniq",
        "unit",
    )

    def __init__(self, format: str, index: int, element: object) -> None:
        """Raises `ReaderError`."""
        place = f"graph.nodes[{index}]"
        element = jsontext.mapping(format, place, element)
        self.key = checked_name(format, f"{place}.id", element.get("id"), empty=True)
        self.place = place = f"{place} ({shown(self.key)})"
        metadata = jsontext.mapping(format, f"{place}.metadata", element.get("metadata"))
        place = f"{place}.metadata"

        def number(key: str, default: int, low: int, high: int) -> int:
            if key not in metadata:
                return default
            return jsontext.integer(format, f"{place}.{key}", metadata[key], low, high)

        def string(key: str, default: str, *, empty: bool = True) -> str:
            if key not in metadata:
                return default
            return checked_name(format, f"{place}.{key}", metadata[key], empty=empty)

        self.type = checked_name(format, f"{place}.type", metadata.get("type"))
        self.basename = string("basename", self.type)
        self.unit = string("unit", "")
        self.rank = number("rank", -1, -1, (1 << 31) - 1)
        self.status = number("status", 0, 0, 1)
        self.size = number("size", 1, 0, MAX_SIZE)
        self.exclusive = metadata.get("exclusive", False)
        if not isinstance(self.exclusive, bool):
            raise refusal(format, f"{place}.exclusive", "true or false", self.exclusive)
        self.uniq = number("uniq_id", -1, -jsontext.INT64, jsontext.INT64 - 1)
        if self.uniq == -1:
            match = _LEADING_INTEGER.match(self.key)
            if match is None or len(match[1]) > 20 or abs(int(match[1])) >= jsontext.INT64:
                raise refusal(format, f"{self.place}.id", "a number, or a uniq_id", self.key)
            self.uniq = int(match[1])
        name = string("name", "") if "name" in metadata else None
        self.id = number("id", -2, -jsontext.INT64, jsontext.INT64 - 1)
        if self.id == -2:
            self.id = self.uniq
            # The number at the end of its host's name is what a node is known by.
            digits = _TRAILING_DIGITS.search(name) if self.type == "node" and name else None
            if digits is not None:
                if len(digits[0]) > 19 or int(digits[0]) >= jsontext.INT64:
                    raise refusal(format, f"{place}.name", "a number of 63 bits in it", name)
                self.id = int(digits[0])
        self.name = f"{self.basename}{self.id}" if name is None else name
        self.paths: dict[str, str] = {}
        for subsystem, path in jsontext.mapping(
            format, f"{place}.paths", metadata.get("paths")
        ).items():
            checked_name(format, f"{place}.paths", subsystem)
            self.paths[subsystem] = checked_path(format, f"{place}.paths.{subsystem}", path)
        self.properties: dict[str, str] = {}
        if "properties" in metadata:
            given = jsontext.mapping(format, f"{place}.properties", metadata["properties"])
            for key, value in given.items():
                checked_name(format, f"{place}.properties", key, empty=True)
                checked_name(format, f"{place}.properties.{key}", value, empty=True)
                self.properties[key] = value

    def roots(self) -> list[str]:
        """The subsystems whose root it is: its path there is one name."""
        return [subsystem for subsystem, path in self.paths.items() if path.count("/") == 1]


class Document:
    """The nodes and edges of a file, and the ranks that it says are freed (None: it does not)."""

    __slots__ = ("_edges", "_nodes", "format", "free_ranks")

    def __init__(self, format: str, text: str) -> None:
        """Raises `ReaderError`; nodes and edges are checked as they are iterated."""
        self.format = format
        document = jsontext.parse(format, text)
        graph = jsontext.mapping(format, "graph", document.get("graph"))
        self._nodes = jsontext.array(format, "graph.nodes", graph.get("nodes"))
        self._edges = jsontext.array(format, "graph.edges", graph.get("edges"))
        self.free_ranks: set[int] | None = None
        if "free_ranks" in document:
            self.free_ranks = set(_free_ranks(format, document["free_ranks"]))

    def nodes(self) -> Iterator[Node]:
        """The nodes in the order of the file."""
        for index, element in enumerate(self._nodes):
            yield Node(self.format, index, element)

    def edges(self) -> Iterator[tuple[str, str, str, str]]:
        """``(source, target, subsystem, place)`` in the order of the file."""
        format = self.format
        for index, element in enumerate(self._edges):
            place = f"graph.edges[{index}]"
            element = jsontext.mapping(format, place, element)
            source = checked_name(format, f"{place}.source", element.get("source"), empty=True)
            target = checked_name(format, f"{place}.target", element.get("target"), empty=True)
            subsystem = CONTAINMENT
            if "metadata" in element:
                metadata = jsontext.mapping(format, f"{place}.metadata", element["metadata"])
                if "subsystem" in metadata:
                    subsystem = checked_name(
                        format, f"{place}.metadata.subsystem", metadata["subsystem"]
                    )
            yield source, target, subsystem, f"{place} {shown(source)} to {shown(target)}"


def _free_ranks(format: str, value: Any) -> IDSet:
    # A number, or an array of one idset, would be understood as well: what counts is the text
    # of the JSON without its quotes.
    text = str(value) if type(value) is int else value
    if not isinstance(text, str):
        raise refusal(format, "free_ranks", "an idset", value)
    try:
        ranks = IDSet.parse(text)
    except ValueError as err:
        raise ReaderError(f"{format}: free_ranks: {err}") from None
    if len(ranks) > 1 << 22:
        raise refusal(format, "free_ranks", f"at most {1 << 22} ranks", len(ranks))
    return ranks


# -- a graph, and more of it --------------------------------------------------------------------


def load(text: str, format: str) -> ResourceGraph:
    """The graph of the file, frozen; raises `ReaderError`."""
    graph = ResourceGraph()
    attach(graph, text, format)
    if not graph.roots:
        raise ReaderError(
            f"{format}: graph.nodes: expected a node whose path is one name, as '/cluster0', "
            "found none"
        )
    return graph


def attach(graph: ResourceGraph, text: str, format: str) -> list[int]:
    """Add the nodes that ``graph`` has not; see `flux_mpi.resource.readers.attach`."""
    document = Document(format, text)
    plan = _Plan(graph, document)
    return plan.carry_out()


class _Plan:
    """What to add to a graph, checked before anything is added."""

    def __init__(self, graph: ResourceGraph, document: Document) -> None:
        self._graph = graph
        self._format = document.format
        self._first = graph.n_vertices
        self._new: list[Node] = []
        self._roots: dict[str, int] = {}
        self._edges: list[tuple[int, int, str]] = []
        # By id of the file: the vertex, which for a new one is the number that it will have.
        self._vertices: dict[str, int] = {}
        self._plan_nodes(document)
        self._plan_edges(document)
        self._check_acyclic()

    def _plan_nodes(self, document: Document) -> None:
        graph, format = self._graph, self._format
        finder = Finder(graph) if self._first else None
        placed: dict[tuple[str, int], int] = {}
        for node in document.nodes():
            if node.key in self._vertices:
                raise refusal(format, f"{node.place}.id", "each id once", node.key)
            known = -1
            for path in node.paths.values():
                known = placed.get((path, node.rank), -1)
                if known < 0 and finder is not None:
                    known = finder.find(path, node.rank)
                if known >= 0:
                    break
            if known >= 0:
                self._vertices[node.key] = known
                continue
            vertex = self._first + len(self._new)
            for subsystem in node.roots():
                other = graph.root(subsystem)
                if other is not None or subsystem in self._roots:
                    name = (
                        graph.name(other)
                        if other is not None
                        else self._new[self._roots[subsystem] - self._first].name
                    )
                    raise ReaderError(
                        f"{format}: {node.place}: expected one root of subsystem "
                        f"{shown(subsystem)}, found {shown(name)} and {shown(node.name)}"
                    )
                self._roots[subsystem] = vertex
            for path in node.paths.values():
                placed.setdefault((path, node.rank), vertex)
            self._vertices[node.key] = vertex
            self._new.append(node)

    def _uniq(self, vertex: int) -> int:
        if vertex >= self._first:
            return self._new[vertex - self._first].uniq
        return self._graph.uniq[vertex]

    def _plan_edges(self, document: Document) -> None:
        """Edges with at least one new end; others are there already, or never will be."""
        graph = self._graph
        first = self._first
        seen: dict[int, set[tuple[int, int]]] = {}
        for source_key, target_key, subsystem, place in document.edges():
            ends = []
            for which, key in (("source", source_key), ("target", target_key)):
                if key not in self._vertices:
                    raise refusal(self._format, f"{place} {which}", "the id of a node", key)
                ends.append(self._vertices[key])
            source, target = ends
            # Two edges to vertices of one number could not be told apart in the order of a
            # search; with that, parallel edges and a number used twice among siblings are refused.
            known = seen.get(source)
            if known is None:
                known = seen[source] = set()
                if source < first:
                    for edge in graph.edges_from(source):
                        weight = graph.ew[edge * EW_WIDTH + EW_WEIGHT]
                        known.add((weight, graph.uniq[graph.target(edge)]))
            if source < first and target < first:
                continue
            order = (HEAVIEST, self._uniq(target))
            if order in known:
                raise refusal(
                    self._format, place, "targets with a uniq_id each of their own", order[1]
                )
            known.add(order)
            self._edges.append((source, target, subsystem))

    def _check_acyclic(self) -> None:
        """No new edge may close a cycle of one subsystem: depth-first from the new vertices."""
        graph, first = self._graph, self._first
        below: dict[tuple[int, str], list[int]] = {}
        for source, target, subsystem in self._edges:
            below.setdefault((source, subsystem), []).append(target)
        done: set[tuple[int, str]] = set()
        for start in below:
            if start in done:
                continue
            subsystem = start[1]
            path = {start[0]}
            stack = [(start[0], iter(below[start]))]
            while stack:
                vertex, targets = stack[-1]
                for target in targets:
                    if target in path:
                        raise ReaderError(
                            f"{self._format}: graph.edges: subsystem {shown(subsystem)}: expected "
                            f"a hierarchy, found a cycle through {shown(self._name(target))}"
                        )
                    if (target, subsystem) in done:
                        continue
                    more = below.get((target, subsystem), [])
                    if target < first:
                        more = more + graph.children(target, subsystem)
                    path.add(target)
                    stack.append((target, iter(more)))
                    break
                else:
                    stack.pop()
                    path.discard(vertex)
                    done.add((vertex, subsystem))

    def _name(self, vertex: int) -> str:
        if vertex >= self._first:
            return self._new[vertex - self._first].name
        return self._graph.name(vertex)

    def carry_out(self) -> list[int]:
        """Add it all; the new vertices."""
        graph = self._graph
        if not self._new:
            return []
        added = []
        for node in self._new:
            for subsystem in node.paths:
                graph.subsystems.number(subsystem)
            added.append(
                graph.add_vertex(
                    node.type,
                    node.basename,
                    node.id,
                    size=node.size,
                    rank=node.rank,
                    name=node.name,
                    # The unit is checked but not kept, as in Fluxion: what it writes has none.
                    uniq=node.uniq,
                    status=node.status,
                    properties=node.properties,
                )
            )
        for subsystem, vertex in self._roots.items():
            graph.set_root(subsystem, vertex)
        for source, target, subsystem in self._edges:
            graph.add_edge(source, target, subsystem)
        try:
            graph.freeze()
        except GraphError as err:  # not expected: cycles were looked for
            raise ReaderError(f"{self._format}: {err}") from None
        told = [
            (vertex, subsystem, path)
            for vertex, node in zip(added, self._new)
            for subsystem, path in node.paths.items()
        ]
        told.sort(key=lambda item: item[2].count("/"))
        settle(graph, told)
        return added


# -- what a job holds, and gives back -----------------------------------------------------------


class Selection:
    """The vertices of a graph that a file names, one after the other, and its edges."""

    def __init__(self, graph: ResourceGraph, format: str) -> None:
        self.graph = graph
        self.format = format
        self.finder = Finder(graph)
        # By id of the file: vertex, needs, exclusive.
        self.chosen: dict[str, tuple[int, int, bool]] = {}
        self.seen: set[int] = set()
        self.edges: list[tuple[int, int, bool]] = []
        self.roots: dict[str, tuple[int, bool]] = {}

    def find(self, node: Node) -> int:
        """The vertex that a node is; raises `ReaderError` unless it agrees in everything."""
        graph, format = self.graph, self.format
        if node.key in self.chosen:
            raise refusal(format, f"{node.place}.id", "each id once", node.key)
        vertex = -1
        for subsystem, path in node.paths.items():
            found = self.finder.find(path, node.rank)
            if found < 0:
                raise refusal(
                    format,
                    f"{node.place}.metadata.paths.{subsystem}",
                    f"a path of the graph with rank {node.rank}",
                    path,
                )
            if vertex not in (-1, found):
                raise refusal(
                    format,
                    f"{node.place}.metadata.paths.{subsystem}",
                    f"a path of {shown(graph.name(vertex))}",
                    path,
                )
            vertex = found
        if vertex < 0:
            raise refusal(format, f"{node.place}.metadata.paths", "a path", None)
        for key, there, here in (
            ("type", graph.type(vertex), node.type),
            ("basename", graph.basename(vertex), node.basename),
            ("size", graph.sizes[vertex], node.size),
            ("id", graph.ids[vertex], node.id),
            ("name", graph.name(vertex), node.name),
        ):
            if there != here:
                raise refusal(format, f"{node.place}.metadata.{key}", shown(there), here)
        paths = graph.paths(vertex)
        if paths != node.paths:
            missing = next(iter(set(paths) ^ set(node.paths)), "")
            raise refusal(
                format, f"{node.place}.metadata.paths", f"one for {' '.join(paths)}", missing
            )
        return vertex

    def choose(self, key: str, place: str, vertex: int, exclusive: bool) -> tuple[int, int, bool]:
        """Note that ``key`` of the file is ``vertex``; raises `ReaderError` the second time."""
        if vertex in self.seen:
            raise refusal(self.format, place, "each vertex once", self.graph.name(vertex))
        self.seen.add(vertex)
        item = self.chosen[key] = (vertex, self.graph.sizes[vertex], exclusive)
        return item

    def follow(self, document: Document) -> None:
        """Take in the edges of the file; raises `ReaderError`."""
        for source, target, _subsystem, place in document.edges():
            missing = next((x for x in (source, target) if x not in self.chosen), None)
            if missing is not None:
                if document.free_ranks is not None:
                    continue  # an end was freed before
                raise refusal(self.format, place, "the id of a node", missing)
            edge = self.edge_between(self.chosen[source][0], self.chosen[target][0])
            if edge < 0:
                raise ReaderError(f"{self.format}: {place}: expected an edge of the graph")
            self.mark_root(self.chosen[source])
            self.edges.append((edge, *self.chosen[target][1:]))

    def edge_between(self, source: int, target: int) -> int:
        """The first edge from ``source`` to ``target``, -1 when there is none."""
        graph = self.graph
        e = graph.e
        for edge in graph.edges_from(source):
            if e[edge * E_WIDTH + E_TARGET] == target:
                return edge
        return -1

    def mark_root(self, item: tuple[int, int, bool]) -> None:
        """An edge leaves ``item``: if that is a root, the walk begins there."""
        vertex, needs, exclusive = item
        for number, root in self.graph.roots.items():
            if root == vertex:
                self.roots.setdefault(self.graph.subsystems[number], (needs, exclusive))

    def allocation(self, vertices: list[tuple[int, int, bool]]) -> Allocation:
        """All of it."""
        root = self.roots.get(CONTAINMENT, (0, False))
        return Allocation(vertices, self.edges, root, self.roots)


def read_allocation(graph: ResourceGraph, text: str) -> Allocation:
    """See `flux_mpi.resource.readers.read_allocation`."""
    document = Document("jgf", text)
    selection = Selection(graph, "jgf")
    vertices = []
    for node in document.nodes():
        vertex = selection.find(node)
        if not document.free_ranks or node.rank not in document.free_ranks:
            vertices.append(selection.choose(node.key, node.place, vertex, node.exclusive))
    selection.follow(document)
    return selection.allocation(vertices)


def read_release(graph: ResourceGraph, text: str) -> Release:
    """See `flux_mpi.resource.readers.read_release`."""
    document = Document("jgf", text)
    selection = Selection(graph, "jgf")
    release = Release()
    for node in document.nodes():
        give_back(selection, document, node.key, node.place, selection.find(node), release)
    return release


def give_back(
    selection: Selection, document: Document, key: str, place: str, vertex: int, release: Release
) -> None:
    """Release ``vertex``, unless its rank was freed before; raises `ReaderError`."""
    graph = selection.graph
    rank = graph.ranks[vertex]
    if document.free_ranks and rank in document.free_ranks:
        return
    if graph.path(vertex) is None:
        raise refusal(selection.format, f"{place}.metadata.paths", CONTAINMENT, None)
    selection.choose(key, place, vertex, False)
    release.vertices.append(vertex)
    release.ranks.add(rank)
    if document.free_ranks is not None:
        # As in Fluxion: with this key, one vertex of each rank stands for all of them.
        document.free_ranks.add(rank)
