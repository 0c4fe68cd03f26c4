"""A cluster of two nodes, and a walk that emits a selection of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from flux_mpi.resource.graph import ResourceGraph
from flux_mpi.resource.writers import Writer

Walk = Callable[[Writer, Iterable[str]], None]


@pytest.fixture
def graph() -> ResourceGraph:
    """``/c0/n[0-1]`` with two cores, a GPU and 4 GB each; both drink from ``/grid/pdu0``."""
    new = ResourceGraph()
    cluster = new.add_vertex("cluster", "c", 0)
    grid = new.add_vertex("grid", "grid")
    pdu = new.add_vertex("pdu", "pdu", 0, size=3, unit="kW")
    new.set_root("containment", cluster)
    new.set_root("power", grid)
    new.add_edge(grid, pdu, "power")
    for rank in range(2):
        node = new.add_vertex("node", "n", rank, rank=rank)
        new.add_edge(cluster, node)
        new.add_edge(pdu, node, "power")
        for core in range(2):
            new.add_edge(node, new.add_vertex("core", "core", core, rank=rank))
        new.add_edge(node, new.add_vertex("gpu", "gpu", 0, rank=rank))
        memory = new.add_vertex("memory", "memory", 0, rank=rank, size=4, unit="GB")
        new.add_edge(node, memory)
    new.freeze()
    return new


@pytest.fixture
def walk(graph: ResourceGraph) -> Walk:
    """Emit the vertices with these paths and all above them: leaves exclusive, others shared."""

    def emit(writer: Writer, paths: Iterable[str]) -> None:
        chosen = {graph.find_path(path)[0] for path in paths}

        def visit(vertex: int, depth: int) -> bool:
            found = False
            for edge in graph.edges_from(vertex, "containment"):
                if visit(graph.target(edge), depth + 1):
                    writer.edge(depth, edge, False)
                    found = True
            taken = vertex in chosen
            if taken or found:
                needs = graph.sizes[vertex] if taken else 1
                writer.vertex(depth, vertex, needs, taken, False)
            return taken or found

        root = graph.root()
        assert root is not None
        visit(root, 1)

    return emit
