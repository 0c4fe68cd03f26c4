"""JSON Graph Format, as Fluxion writes it into the key ``scheduling`` of R (RFC 40)."""

from __future__ import annotations

from flux_mpi.resource.graph import CONTAINMENT, DOWN, E_SUBSYSTEM, E_TARGET, E_WIDTH, UP
from flux_mpi.resource.writers.base import Writer
from flux_mpi.resource.writers.text import json_object, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from flux_mpi.resource.graph import ResourceGraph

_KEPT = 1 << 16
"""Vertices whose text is kept for the next request: some 20 MB at most."""


class JgfWriter(Writer):
    """``{"graph": {"nodes": […], "edges": […]}}``; what has its usual value is left out.

    A selection of one vertex and no edge is a graph too, though Fluxion refuses to write it.
    """

    def __init__(self, graph: ResourceGraph) -> None:
        super().__init__(graph)
        self._nodes: list[str] = []
        self._edges: list[str] = []
        self._complete = True
        # Text up to the rank, and from the paths on, by vertex.
        self._kept: dict[int, tuple[str, str]] = {}
        self._generation = graph.generation

    def vertex(
        self,
        depth: int,
        vertex: int,
        needs: int,
        exclusive: bool,
        exclusive_parent: bool,
        *,
        extra: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        graph = self.graph
        if graph.generation != self._generation or len(self._kept) >= _KEPT:
            self._kept.clear()
            self._generation = graph.generation
        head, tail = self._kept.get(vertex) or self._describe(vertex)
        middle = ', "exclusive": true' if exclusive else ""
        if needs != 1:
            middle = f'{middle}, "size": {needs}'
        if graph.units[vertex]:
            middle = f', "unit": {quote(graph.unit(vertex))}{middle}'
        if graph.properties.get(vertex):
            middle = f', "properties": {json_object(graph.properties[vertex])}{middle}'
        if labels:
            tail = f'{tail}, "ephemeral": {json_object(labels)}'
        if extra:
            tail = f'{tail}, "agfilter": {json_object(extra)}'
        self._nodes.append(f"{head}{middle}{tail}}}}}")

    def _describe(self, vertex: int) -> tuple[str, str]:
        graph = self.graph
        type_, basename, name = graph.type(vertex), graph.basename(vertex), graph.name(vertex)
        id_ = graph.ids[vertex]
        head = f'{{"id": "{graph.uniq[vertex]}", "metadata": {{"type": {quote(type_)}'
        if basename != type_:
            head += f', "basename": {quote(basename)}'
        if name != f"{basename}{id_}":
            head += f', "name": {quote(name)}'
        head += f', "id": {id_}, "rank": {graph.ranks[vertex]}'
        paths = graph.paths(vertex)
        tail = ""
        if paths:
            # In the order in which subsystems came, unlike all other objects.
            tail = ", ".join(f"{quote(key)}: {quote(path)}" for key, path in paths.items())
            tail = f', "paths": {{{tail}}}'
        self._kept[vertex] = found = (head, tail)
        return found

    def edge(self, depth: int, edge: int, exclusive_parent: bool) -> None:
        graph = self.graph
        row = edge * E_WIDTH
        source, target = graph.uniq[graph.sources[edge]], graph.uniq[graph.e[row + E_TARGET]]
        ends = f'"source": "{source}", "target": "{target}"'
        if graph.e[row + E_SUBSYSTEM]:
            ends = f'{ends}, "metadata": {{"subsystem": {quote(graph.subsystem(edge))}}}'
        self._edges.append(f"{{{ends}}}")

    @property
    def empty(self) -> bool:
        """Whether nothing was emitted yet."""
        return not self._nodes and not self._edges

    def body(self) -> str:
        """The JSON text without a newline; "" when nothing was emitted."""
        if self.empty:
            return ""
        nodes, edges = ", ".join(self._nodes), ", ".join(self._edges)
        writer = "" if self._complete else ', "writer": "fluxion:jgf_shorthand"'
        return f'{{"graph": {{"nodes": [{nodes}], "edges": [{edges}]}}{writer}}}'

    def _text(self) -> str:
        body = self.body()
        return f"{body}\n" if body else ""

    def _reset(self) -> None:
        self._nodes.clear()
        self._edges.clear()
        self._complete = True


class JgfShorthandWriter(JgfWriter):
    """Without what is below a vertex that is taken whole: whoever has the graph can tell.

    The key ``writer`` says when something was left out, of this request and no earlier one.
    """

    def vertex(
        self,
        depth: int,
        vertex: int,
        needs: int,
        exclusive: bool,
        exclusive_parent: bool,
        *,
        extra: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        if exclusive_parent:
            self._complete = False
        else:
            super().vertex(depth, vertex, needs, exclusive, False, extra=extra, labels=labels)

    def edge(self, depth: int, edge: int, exclusive_parent: bool) -> None:
        if exclusive_parent:
            self._complete = False
        else:
            super().edge(depth, edge, False)


def to_jgf(graph: ResourceGraph, part: Collection[int] | None = None) -> dict[str, Any]:
    """The whole graph as an object: all that a reader of JGF needs to make the same graph.

    ``part``: only these vertices and the edges among them. Keys of vertices are those of
    `JgfWriter`, in its order, with ``size`` that of the pool; a vertex that is down has ``status``
    1. The graph must be frozen.
    """
    nodes = []
    chosen = graph.vertices() if part is None else sorted(part)
    for vertex in chosen:
        type_, basename, name = graph.type(vertex), graph.basename(vertex), graph.name(vertex)
        metadata: dict[str, Any] = {"type": type_}
        if basename != type_:
            metadata["basename"] = basename
        if name != f"{basename}{graph.ids[vertex]}":
            metadata["name"] = name
        metadata["id"] = graph.ids[vertex]
        metadata["rank"] = graph.ranks[vertex]
        if graph.properties.get(vertex):
            metadata["properties"] = dict(sorted(graph.properties[vertex].items()))
        if graph.units[vertex]:
            metadata["unit"] = graph.unit(vertex)
        if graph.sizes[vertex] != 1:
            metadata["size"] = graph.sizes[vertex]
        if graph.status(vertex) != UP:
            metadata["status"] = DOWN
        paths = graph.paths(vertex)
        if paths:
            metadata["paths"] = paths
        nodes.append({"id": str(graph.uniq[vertex]), "metadata": metadata})
    edges = []
    among: Iterable[int] = graph.out
    if part is not None:
        among = [e for v in sorted(part) for e in graph.edges_from(v) if graph.target(e) in part]
    for edge in among:
        found: dict[str, Any] = {
            "source": str(graph.uniq[graph.sources[edge]]),
            "target": str(graph.uniq[graph.target(edge)]),
        }
        subsystem = graph.subsystem(edge)
        if subsystem != CONTAINMENT:
            found["metadata"] = {"subsystem": subsystem}
        edges.append(found)
    return {"graph": {"nodes": nodes, "edges": edges}}
