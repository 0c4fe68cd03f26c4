"""The resource graph: building it, changing it, and asking it."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.resource.graph import (
    DOWN,
    E_SUBSYSTEM,
    E_WIDTH,
    EW_WEIGHT,
    EW_WIDTH,
    HEAVIEST,
    UP,
    V_OUT,
    V_PARENT,
    V_WIDTH,
    GraphError,
    Names,
    ResourceGraph,
)

MANY = 5000
"""More vertices than a graph indexes without NumPy."""


def cluster(nodes: int = 2, cores: int = 2) -> ResourceGraph:
    """Vertex 0 is the cluster; each node is followed by its cores."""
    graph = ResourceGraph()
    root = graph.add_vertex("cluster", "tiny", 0)
    for n in range(nodes):
        node = graph.add_vertex("node", "host", n, rank=n)
        graph.add_edge(root, node)
        for c in range(cores):
            graph.add_edge(node, graph.add_vertex("core", "core", c, rank=n))
    graph.set_root("containment", root)
    graph.freeze()
    return graph


# -- building -------------------------------------------------------------------------------------


def test_names_are_numbered_as_they_come() -> None:
    names = Names(("b", "a"))
    assert [names.number(name) for name in ("a", "c", "b", "c")] == [1, 2, 0, 2]
    assert (names.find("c"), names.find("d"), len(names)) == (2, -1, 3)
    assert list(names) == ["b", "a", "c"]
    assert names[1] == "a"


def test_a_vertex_is_what_it_was_said_to_be() -> None:
    graph = ResourceGraph()
    plain = graph.add_vertex("node", "host", 7)
    full = graph.add_vertex(
        "memory",
        "mem",
        size=(1 << 32) - 1,
        rank=3,
        name="dimm",
        unit="GB",
        uniq=99,
        status=DOWN,
        properties={"a": "1"},
    )
    assert (graph.type(plain), graph.basename(plain), graph.name(plain)) == (
        "node",
        "host",
        "host7",
    )
    assert (graph.sizes[plain], graph.ranks[plain], graph.uniq[plain]) == (1, -1, plain)
    assert (graph.status(plain), graph.unit(plain)) == (UP, "")
    assert plain not in graph.properties
    assert (graph.type(full), graph.basename(full), graph.name(full)) == ("memory", "mem", "dimm")
    assert (graph.sizes[full], graph.ranks[full], graph.uniq[full]) == ((1 << 32) - 1, 3, 99)
    assert (graph.status(full), graph.unit(full), graph.ids[full]) == (DOWN, "GB", -1)
    assert graph.properties[full] == {"a": "1"}


def test_a_vertex_without_an_id_is_called_by_its_basename() -> None:
    graph = ResourceGraph()
    assert graph.name(graph.add_vertex("cluster", "tiny")) == "tiny"


def test_properties_are_not_those_of_the_caller() -> None:
    graph = ResourceGraph()
    given_ = {"a": "1"}
    vertex = graph.add_vertex("node", "host", properties=given_)
    given_["b"] = "2"
    assert graph.properties[vertex] == {"a": "1"}


@pytest.mark.parametrize("size", [-1, 1 << 32, 1 << 63])
def test_sizes_need_32_bits(size: int) -> None:
    graph = ResourceGraph()
    with pytest.raises(GraphError, match=rf"size of host: expected 0 to 2³²-1, found {size}"):
        graph.add_vertex("node", "host", size=size)
    with pytest.raises(GraphError, match=rf"size of host: .* found {size}"):
        graph.add_many("node", "host", np.zeros(1, int), np.zeros(1, int), size=size)
    assert graph.n_vertices == 0


def test_a_subsystem_has_one_root() -> None:
    graph = cluster()
    graph.set_root("containment", 0)
    graph.set_root("power", 1)
    with pytest.raises(GraphError, match="subsystem containment: expected one root, found tiny0"):
        graph.set_root("containment", 1)
    assert (graph.root(), graph.root("power"), graph.root("network")) == (0, 1, None)


def test_many_at_once_are_as_many_one_by_one() -> None:
    one, many = ResourceGraph(), ResourceGraph()
    for graph in (one, many):
        root = graph.add_vertex("cluster", "tiny", 0)
        graph.set_root("containment", root)
    for n in range(3):
        one.add_edge(0, one.add_vertex("node", "host", n + 5, rank=n), "containment")
    for node in (1, 2, 3):
        for c in range(2):
            vertex = one.add_vertex("core", "core", c, size=4, rank=node - 1, unit="x")
            one.add_edge(node, vertex, "power")
    nodes = many.add_many("node", "host", np.zeros(3, int), np.arange(5, 8), ranks=np.arange(3))
    many.add_many(
        "core",
        "core",
        np.repeat(nodes, 2),
        np.tile(np.arange(2), 3),
        size=4,
        ranks=np.repeat(np.arange(3), 2),
        unit="x",
        subsystem="power",
    )
    for graph in (one, many):
        graph.freeze()
    for name in ("v", "e", "ew", "ids", "sizes", "uniq", "ranks", "bases", "units", "sources"):
        assert getattr(one, name) == getattr(many, name), name
    assert (one.out, one.by_weight) == (many.out, many.by_weight)


# -- asking ---------------------------------------------------------------------------------------


def test_edges_lead_down_in_their_order() -> None:
    graph = cluster()
    assert graph.children(0) == [1, 4]
    assert graph.children(4) == [5, 6]
    assert graph.children(6) == []
    assert graph.children(0, "power") == []
    assert [graph.target(edge) for edge in graph.edges_from(1)] == [2, 3]
    assert graph.sources[graph.parent_edge(5) or 0] == 4
    assert graph.parent_edge(0) is None


def test_edges_of_subsystems_are_kept_apart() -> None:
    graph = cluster()
    supply = graph.add_vertex("pdu", "pdu", 0)
    wire = graph.add_edge(supply, 1, "power")
    graph.add_edge(supply, 4, "power")
    graph.set_root("power", supply)
    graph.freeze()
    assert graph.children(supply, "power") == [1, 4]
    assert graph.children(supply) == []
    assert graph.parent_edge(1, "power") == wire
    assert graph.paths(4) == {"containment": "/tiny0/host1", "power": "/pdu0/host1"}
    assert graph.paths(5) == {"containment": "/tiny0/host1/core0"}
    assert graph.path(supply) is None
    graph.set_subsystem(wire, "network")
    assert graph.subsystem(wire) == "network"
    assert graph.children(supply, "power") == [4]
    assert graph.paths(1) == {"containment": "/tiny0/host0"}


def test_walking_by_another_subsystem_changes_no_answer() -> None:
    graph = cluster()
    supply = graph.add_vertex("pdu", "pdu", 0)
    graph.add_edge(supply, 1, "power")
    graph.set_root("power", supply)
    graph.freeze()
    before = [graph.paths(u) for u in graph.vertices()]
    graph.walk_by("power")
    assert [graph.paths(u) for u in graph.vertices()] == before
    assert [graph.v[u * V_WIDTH + V_PARENT] >= 0 for u in (0, 1, 2)] == [False, True, False]
    graph.walk_by("containment")
    assert [graph.v[u * V_WIDTH + V_PARENT] >= 0 for u in (0, 1, 2)] == [False, True, True]


def test_paths_lead_there_and_back() -> None:
    graph = cluster()
    for vertex in graph.vertices():
        assert graph.find_path(graph.path(vertex) or "") == [vertex]
    for path in ("", "/", "/tiny", "/tiny0/", "/tiny0/host2", "tiny0", "/tiny0/host0/core0/x"):
        assert graph.find_path(path) == []


def test_a_path_may_be_that_of_several() -> None:
    graph = cluster()
    twin = graph.add_vertex("node", "host", 0)
    graph.add_edge(0, twin)
    graph.freeze()
    assert graph.find_path("/tiny0/host0") == [1, twin]


def test_paths_of_a_file_go_before_those_of_edges() -> None:
    graph = cluster()
    graph.set_path(1, "containment", "/tiny0/special")
    graph.set_path(4, "containment", "/tiny0/host1")
    assert graph.path(1) == "/tiny0/special"
    assert graph.path(2) == "/tiny0/special/core0"
    assert graph.find_path("/tiny0/special/core0") == [2]
    assert graph.find_path("/tiny0/host0") == []
    assert graph.find_path("/tiny0/host1") == [4]


def test_a_vertex_with_two_above_it_goes_by_the_first() -> None:
    graph = cluster()
    graph.add_edge(4, 2)
    graph.freeze()
    assert graph.path(2) == "/tiny0/host0/core0"
    assert graph.children(4) == [5, 6, 2]
    assert graph.find_path("/tiny0/host1/core0") == [5, 2]
    assert sorted(graph.below(0)) == list(range(7))


def test_below_is_everything_once_parents_first() -> None:
    graph = cluster(3, 2)
    graph.add_edge(1, 9)
    graph.freeze()
    below = graph.below(0)
    assert sorted(below) == list(range(10))
    assert graph.below(4) == [4, *sorted(graph.below(4))[1:]]
    for vertex in below[1:]:
        edge = graph.parent_edge(vertex)
        assert edge is not None
        assert below.index(graph.sources[edge]) < below.index(vertex)


def test_types_and_ranks_find_vertices() -> None:
    graph = cluster()
    assert graph.of_type("node") == [1, 4]
    assert graph.of_type("gpu") == []
    assert graph.of_type("unheard-of") == []
    assert graph.by_rank() == {-1: [0], 0: [1, 2, 3], 1: [4, 5, 6]}


def test_a_property_that_is_set_is_counted() -> None:
    graph = cluster()
    graph.set_property(1, "a", "1")
    graph.set_property(1, "a", "2")
    assert graph.properties == {1: {"a": "2"}}
    assert graph.property_changes == 2


def test_views_are_of_the_same_memory() -> None:
    graph = cluster()
    graph.views()["v"][1] = DOWN
    assert graph.status(0) == DOWN
    graph.add_edge(0, graph.add_vertex("node", "host", 9))
    graph.freeze()
    assert len(graph.views()["ids"]) == graph.n_vertices == 8
    assert len(ResourceGraph().views()["out"]) == 0


# -- what is no hierarchy -------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, MANY])
def test_a_cycle_is_refused(padding: int) -> None:
    graph = cluster()
    for i in range(padding):
        graph.add_edge(0, graph.add_vertex("node", "host", 10 + i))
    graph.add_edge(3, 1)
    with pytest.raises(GraphError, match="the edge from core1 to host0 closes a cycle"):
        graph.freeze()


def test_a_vertex_below_itself_is_a_cycle() -> None:
    graph = cluster()
    graph.add_edge(2, 2)
    with pytest.raises(GraphError, match="subsystem containment: the edge from core0 to core0"):
        graph.freeze()


def test_edges_of_two_subsystems_make_no_cycle() -> None:
    graph = cluster()
    graph.add_edge(2, 0, "power")
    graph.set_root("power", 2)
    graph.freeze()
    assert graph.path(0, "power") == "/core0/tiny0"


def test_two_ways_to_a_vertex_are_no_cycle() -> None:
    graph = cluster()
    graph.add_edge(1, 5)
    graph.add_edge(4, 2)
    graph.freeze()
    assert graph.children(1) == [2, 3, 5]


# -- removing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, MANY])
def test_what_is_removed_leaves_nothing_behind(padding: int) -> None:
    graph = cluster()
    for i in range(padding):
        graph.add_edge(0, graph.add_vertex("node", "host", 10 + i, rank=10 + i))
    graph.freeze()
    graph.set_property(1, "a", "1")
    generation = graph.generation
    graph.remove([1, 2, 3])
    graph.freeze()
    assert graph.generation != generation
    assert graph.children(0)[:1] == [4]
    assert len(graph.children(0)) == 1 + padding
    assert [graph.alive(u) for u in (-1, 0, 1, 4, graph.n_vertices)] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert list(graph.vertices())[:2] == [0, 4]
    assert graph.find_path("/tiny0/host0") == []
    assert graph.properties == {}
    assert 0 not in graph.by_rank()
    assert graph.of_type("core") == [5, 6]
    # Its number is not used again.
    assert graph.add_vertex("node", "host", 0) == 7 + padding


def test_what_only_loses_its_parent_is_out_of_the_hierarchy() -> None:
    graph = cluster()
    graph.remove([1])
    graph.freeze()
    assert graph.path(2) is None
    assert graph.parent_edge(2) is None
    assert sorted(graph.below(0)) == [0, 4, 5, 6]


def test_a_removed_root_is_no_root() -> None:
    graph = cluster()
    graph.remove([0])
    graph.freeze()
    assert graph.root() is None
    graph.set_root("containment", 1)
    assert graph.path(2) == "/host0/core0"


def test_removing_nothing_changes_nothing() -> None:
    graph = cluster()
    generation = graph.generation
    graph.remove([])
    graph.freeze()
    assert graph.generation == generation


# -- few and many ---------------------------------------------------------------------------------


@st.composite
def tangles(draw: st.DrawFn) -> ResourceGraph:
    """Hierarchies of two subsystems with weights, some of it removed."""
    n = draw(st.integers(1, 14))
    graph = ResourceGraph()
    for i in range(n):
        graph.add_vertex("node", "n", i, uniq=draw(st.integers(0, 3)) * 100 + i)
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda x: x[0] < x[1])
    for source, target in draw(st.lists(pairs, max_size=30)) if n > 1 else []:
        edge = graph.add_edge(source, target, draw(st.sampled_from(("containment", "power"))))
        graph.ew[edge * EW_WIDTH + EW_WEIGHT] = draw(st.sampled_from((0, 1, 5, HEAVIEST)))
    graph.set_root("containment", 0)
    graph.remove(draw(st.lists(st.integers(1, n - 1), max_size=3)) if n > 1 else [])
    graph.freeze()
    return graph


@settings(max_examples=100, deadline=None)
@given(tangles(), st.sampled_from(("containment", "power")))
def test_edges_are_indexed_alike_with_and_without_numpy(graph: ResourceGraph, walked: str) -> None:
    graph.walk_by(walked)
    plain = [array(a.typecode, a) for a in (graph.v, graph.out, graph.by_weight)]
    graph._index_by_numpy()
    assert [graph.v, graph.out, graph.by_weight] == plain
    kept = sorted(
        edge
        for edge in range(graph.n_edges)
        if graph.alive(graph.sources[edge]) and graph.alive(graph.target(edge))
    )
    assert sorted(graph.out) == sorted(graph.by_weight) == kept
    number = graph.subsystems.find(walked)
    for vertex in graph.vertices():
        edges = list(graph.edges_from(vertex))
        assert edges == [edge for edge in kept if graph.sources[edge] == vertex]
        ways = [
            edge
            for edge in graph.out
            if graph.target(edge) == vertex and graph.e[edge * E_WIDTH + E_SUBSYSTEM] == number
        ]
        assert graph.parent_edge(vertex, walked) == (ways[0] if ways else None)
        low = graph.v[vertex * V_WIDTH + V_OUT]
        heavy = list(graph.by_weight[low : low + len(edges)])
        keys = [(graph.ew[x * EW_WIDTH + EW_WEIGHT], graph.uniq[graph.target(x)]) for x in heavy]
        assert keys == sorted(keys, reverse=True)


def test_a_large_graph_answers_as_a_small_one() -> None:
    large = cluster(MANY // 5, 4)
    small = cluster(3, 4)
    for vertex in small.vertices():
        assert large.paths(vertex) == small.paths(vertex)
        if vertex:
            assert large.children(vertex) == small.children(vertex)
            assert list(large.edges_from(vertex)) == list(small.edges_from(vertex))
    assert large.find_path(f"/tiny0/host{MANY // 5 - 1}/core3") == [large.n_vertices - 1]
