"""JGF shorthand: a vertex listed as exclusive stands for all that the hierarchy has below it.

A whole graph in this format is plain JGF; what differs is what a job holds or gives back.
"""

from __future__ import annotations

from flux_mpi.resource.graph import CONTAINMENT, ResourceGraph
from flux_mpi.resource.readers.changes import Allocation, Release
from flux_mpi.resource.readers.errors import ReaderError, shown
from flux_mpi.resource.readers.jgf import Document, Node, Selection, give_back

FORMAT = "jgf_shorthand"


def read_allocation(graph: ResourceGraph, text: str) -> Allocation:
    """See `flux_mpi.resource.readers.read_allocation`."""
    document = Document(FORMAT, text)
    selection = Selection(graph, FORMAT)
    vertices: list[tuple[int, int, bool]] = []

    def freed(rank: int) -> bool:
        return bool(document.free_ranks) and rank in (document.free_ranks or ())

    for node in document.nodes():
        vertex = selection.find(node)
        if not freed(node.rank):
            vertices.append(selection.choose(node.key, node.place, vertex, node.exclusive))
        if not node.exclusive:
            continue
        below, edges = _below(selection, node, vertex)
        for item in below:
            if not freed(graph.ranks[item]):
                vertices.append(selection.choose(str(graph.uniq[item]), node.place, item, True))
        for source, edge in edges:
            target = graph.target(edge)
            if not freed(graph.ranks[source]) and not freed(graph.ranks[target]):
                selection.mark_root((source, graph.sizes[source], True))
                selection.edges.append((edge, graph.sizes[target], True))
    selection.follow(document)
    return selection.allocation(vertices)


def read_release(graph: ResourceGraph, text: str) -> Release:
    """See `flux_mpi.resource.readers.read_release`."""
    document = Document(FORMAT, text)
    selection = Selection(graph, FORMAT)
    release = Release()
    for node in document.nodes():
        vertex = selection.find(node)
        give_back(selection, document, node.key, node.place, vertex, release)
        if node.exclusive:
            for item in _below(selection, node, vertex)[0]:
                give_back(selection, document, str(graph.uniq[item]), node.place, item, release)
    return release


def _below(
    selection: Selection, node: Node, vertex: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """What is below ``vertex``, depth first, and all edges ``(source, edge)`` there.

    Raises `ReaderError` when something is reached twice: a vertex has one place in an allocation.
    """
    graph = selection.graph
    found: list[int] = []
    edges = [(vertex, edge) for edge in graph.edges_from(vertex, CONTAINMENT)]
    seen = {vertex}
    stack = [iter(graph.children(vertex))]
    while stack:
        for child in stack[-1]:
            if child in seen:
                raise ReaderError(
                    f"{FORMAT}: {node.place}: expected each vertex below it once, "
                    f"found {shown(graph.name(child))} again"
                )
            seen.add(child)
            found.append(child)
            edges += [(child, edge) for edge in graph.edges_from(child, CONTAINMENT)]
            stack.append(iter(graph.children(child)))
            break
        else:
            stack.pop()
    return found, edges
