"""JGF: keys and their defaults, growth, allocations and releases; a graph dumped is read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.resource.graph import EW_WEIGHT, EW_WIDTH, ResourceGraph
from flux_mpi.resource.readers import (
    ReaderError,
    attach,
    load,
    read_allocation,
    read_release,
)
from tests.resource.readers.samples import (
    dump,
    edge,
    jgf,
    kind,
    link,
    node,
    recipe,
    small,
    vertex,
    whole,
)


def test_everything_but_type_and_paths_has_a_default() -> None:
    graph = load(
        jgf(
            [
                node(7, "cluster", "/cluster7"),
                node(8, "node", "/cluster7/host12", name="host12"),
                node(9, "core", "/cluster7/host12/core9"),
            ],
            [link(7, 8), link(8, 9)],
        ),
        "jgf",
    )
    assert [vertex(graph, v) for v in graph.vertices()] == [
        ("cluster", "cluster", "cluster7", 7, 7, -1, 1, "", 0, {}, {"containment": "/cluster7"}),
        ("node", "node", "host12", 12, 8, -1, 1, "", 0, {}, {"containment": "/cluster7/host12"}),
        (
            "core",
            "core",
            "core9",
            9,
            9,
            -1,
            1,
            "",
            0,
            {},
            {"containment": "/cluster7/host12/core9"},
        ),
    ]


def test_everything_told_is_taken() -> None:
    told = {
        "basename": "host",
        "name": "other",
        "id": 3,
        "uniq_id": 99,
        "rank": 4,
        "status": 1,
        "unit": "box",
        "size": 4294967295,
        "properties": {"arm": "", "fast": "very"},
    }
    graph = load(
        jgf(
            [
                node(0, "cluster", "/cluster0"),
                node(1, "node", "/somewhere/else", exclusive=True, ephemeral={"job": "1"}, **told),
            ],
            [link(0, 1)],
        ),
        "jgf",
    )
    assert vertex(graph, 1) == (
        "node",
        "host",
        "other",
        3,
        99,
        4,
        4294967295,
        "",  # Fluxion reads a unit and forgets it
        1,
        {"arm": "", "fast": "very"},
        {"containment": "/somewhere/else"},
    )


@pytest.mark.parametrize(
    ("id", "metadata", "expected"),
    [
        ("12", {}, (12, 12)),
        ("12abc", {}, (12, 12)),
        (" -3", {}, (-3, -3)),
        ("x", {"uniq_id": 5}, (5, 5)),
        ("5", {"uniq_id": -1}, (5, 5)),
        ("5", {"id": -2}, (5, 5)),
        ("5", {"id": -1}, (-1, 5)),
        ("5", {"type": "node", "name": "n007"}, (7, 5)),
        ("5", {"type": "node", "name": "n007x"}, (5, 5)),
        ("5", {"type": "node"}, (5, 5)),
        ("5", {"type": "rack", "name": "n007"}, (5, 5)),
    ],
)
def test_ids(id: str, metadata: dict[str, Any], expected: tuple[int, int]) -> None:
    item = {"id": id, "metadata": {"type": "cluster", "paths": {"containment": "/c"}, **metadata}}
    graph = load(jgf([item], []), "jgf")
    assert (graph.ids[0], graph.uniq[0]) == expected


def test_order_of_file_is_order_of_graph_and_several_subsystems_share_vertices() -> None:
    graph = load(
        jgf(
            [
                node(5, "core", "/c/n0/core5"),
                node(0, "cluster", "/c", name="c"),
                node(3, "panel", {"power": "/panel3"}),
                node(1, "node", {"containment": "/c/n0", "power": "/panel3/n0"}, name="n0"),
            ],
            [link(1, 5), link(0, 1), link(3, 1, "power")],
        ),
        "jgf",
    )
    assert [graph.name(v) for v in graph.vertices()] == ["core5", "c", "panel3", "n0"]
    assert graph.paths(3) == {"containment": "/c/n0", "power": "/panel3/n0"}
    assert graph.root("power") == 2
    assert graph.children(2, "power") == [3]
    assert graph.paths(0) == {"containment": "/c/n0/core5"}


def test_a_subsystem_without_a_root_is_one_all_the_same() -> None:
    graph = load(
        jgf(
            [node(0, "cluster", "/c"), node(1, "node", {"containment": "/c/n", "net": "/x/n"})],
            [link(0, 1)],
        ),
        "jgf",
    )
    assert graph.root("net") is None
    assert graph.path(1, "net") == "/x/n"


def test_a_path_and_rank_seen_before_is_the_same_vertex() -> None:
    graph = load(
        jgf(
            [
                node(0, "cluster", "/c"),
                node(1, "node", "/c/n", rank=0),
                node(2, "node", "/c/n", rank=0),
                node(3, "node", "/c/n", rank=1),
                node(4, "core", "/c/n/core4"),
            ],
            [link(0, 1), link(0, 3), link(2, 4)],
        ),
        "jgf",
    )
    assert [graph.uniq[v] for v in graph.vertices()] == [0, 1, 3, 4]
    assert graph.children(1) == [3]


def test_a_dumped_graph_is_read_again() -> None:
    graph = load(small().replace("GB", ""), "grug")
    assert whole(load(dump(graph), "jgf")) == whole(graph)


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), max_size=4), st.integers(0, 2))
def test_dumps_of_random_graphs_are_read_again(scales: list[int], scope: int) -> None:
    labels = ["cluster", "rack", "node", "socket", "core"]
    graph = load(
        recipe(
            kind("cluster", root=1),
            *(kind(x, size=3) for x in labels[1:]),
            kind("pool", root=1, subsystem="net"),
            kind("there", type="node"),
            edge("cluster", "rack"),
            *(
                edge(labels[k + 1], labels[k + 2], multi_scale=n, id_scope=scope)
                for k, n in enumerate(scales[:3])
            ),
            edge("pool", "there", gen_method="ASSOCIATE_IN", e_subsystem="net"),
        ),
        "grug",
    )
    again = load(dump(graph), "jgf")
    assert whole(again)[:2] == whole(graph)[:2]


# -- refused ----------------------------------------------------------------------------------

_CLUSTER = node(0, "cluster", "/c", name="c")
_NODE = node(1, "node", "/c/n", name="n")


def _with(**metadata: Any) -> str:
    return jgf([_CLUSTER, node(1, "node", "/c/n", **metadata)], [link(0, 1)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 column 1: expected JSON"),
        ("{", "line 1 column 2: expected JSON"),
        ("[]", "top level: expected a JSON object, found an array"),
        ("{}", "graph: expected an object, found nothing"),
        ('{"graph": {}}', "graph.nodes: expected an array, found nothing"),
        ('{"graph": {"nodes": []}}', "graph.edges: expected an array, found nothing"),
        ('{"graph": {"nodes": {}, "edges": []}}', "graph.nodes: expected an array"),
        ('{"graph": {}, "graph": {}}', "expected each key once, found 'graph'"),
        ('{"graph": NaN}', "found NaN"),
        ('{"graph": -Infinity}', "found -Infinity"),
        ('{"graph": ' + "9" * 5000 + "}", "jgf: JSON: "),
        ('{"graph": ' + "[" * 100_000 + "}", "nested too deep"),
        (jgf([], []), "expected a node whose path is one name"),
        (jgf([_NODE], []), "expected a node whose path is one name"),
        (jgf([7], []), "graph.nodes[0]: expected an object, found 7"),
        (jgf([{"metadata": {}}], []), "graph.nodes[0].id: expected a string, found nothing"),
        (jgf([{"id": 1}], []), "graph.nodes[0].id: expected a string, found 1"),
        (jgf([{"id": "1"}], []), "graph.nodes[0] ('1').metadata: expected an object"),
        (jgf([{"id": "1", "metadata": {}}], []), "metadata.type: expected a string"),
        (jgf([{"id": "1", "metadata": {"type": "x"}}], []), "paths: expected an object"),
        (jgf([_CLUSTER, _CLUSTER], []), "expected each id once, found '0'"),
        (
            jgf([_CLUSTER, node(1, "cluster", "/d", name="d")], []),
            "expected one root of subsystem 'containment', found 'c' and 'd'",
        ),
        (jgf([_CLUSTER, _NODE], [link(0, 2)]), "target: expected the id of a node, found '2'"),
        (jgf([_CLUSTER, _NODE], [link(2, 0)]), "source: expected the id of a node, found '2'"),
        (jgf([_CLUSTER, _NODE], [link(0, 1), link(0, 1)]), "uniq_id each of their own, found 1"),
        (jgf([_CLUSTER, _NODE], [link(0, 1), link(1, 0)]), "found a cycle through"),
        (jgf([_CLUSTER], [link(0, 0)]), "found a cycle through 'c'"),
        (jgf([_CLUSTER], [{"source": "0"}]), "graph.edges[0].target: expected a string"),
        (jgf([_CLUSTER], ["0"]), "graph.edges[0]: expected an object"),
        (jgf([_CLUSTER, _NODE], [link(0, 1) | {"metadata": 1}]), "metadata: expected an object"),
        (
            jgf([_CLUSTER, _NODE], [link(0, 1) | {"metadata": {"subsystem": None}}]),
            "subsystem: expected a string, found nothing",
        ),
        (_with(size=-1), "size: expected an integer from 0 to 4294967295, found -1"),
        (_with(size=2**32), "size: expected an integer"),
        (_with(size=1.0), "size: expected an integer"),
        (_with(size=True), "size: expected an integer"),
        (_with(size="1"), "size: expected an integer"),
        (_with(rank=-2), "rank: expected an integer"),
        (_with(rank=2**31), "rank: expected an integer"),
        (_with(id=2**63), "id: expected an integer"),
        (_with(uniq_id=-(2**63) - 1), "uniq_id: expected an integer"),
        (_with(status=2), "status: expected an integer from 0 to 1"),
        (_with(status="up"), "status: expected an integer"),
        (_with(exclusive=1), "exclusive: expected true or false, found 1"),
        (_with(basename=None), "basename: expected a string, found nothing"),
        (_with(unit=3), "unit: expected a string"),
        (_with(name="n" * 10_000_000), "at most 1024 characters"),
        (_with(name="a\nb"), "no control characters"),
        (_with(name="\ud800"), "lone surrogates"),
        (_with(name="n" + "9" * 30), "a number of 63 bits"),
        (_with(properties=[]), "properties: expected an object"),
        (_with(properties={"a": 1}), "properties.a: expected a string"),
        (_with(properties=None), "properties: expected an object, found nothing"),
        (jgf([node(0, "cluster", {"containment": 1})], []), "paths.containment: expected a path"),
        (jgf([node(0, "cluster", "/c" * 100_000)], []), "at most 65536 characters"),
        (jgf([{"id": "x", "metadata": {"type": "t", "paths": {}}}], []), "a number, or a uniq_id"),
        (jgf([{"id": "9" * 40, "metadata": {"type": "t", "paths": {}}}], []), "a number, or a"),
    ],
)
def test_refused(text: str, said: str) -> None:
    for format in ("jgf", "jgf_shorthand"):
        with pytest.raises(ReaderError, match=f"^{format}: ") as refused:
            load(text, format)
        assert said.replace("jgf: ", f"{format}: ") in str(refused.value)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 400


def test_a_rank_for_all_is_refused() -> None:
    with pytest.raises(ReaderError, match="rank: expected -1"):
        load(jgf([_CLUSTER], []), "jgf", rank=1)


def test_a_long_way_down_is_no_crash() -> None:
    n = 10_000
    nodes = [node(0, "cluster", "/c", name="c")]
    nodes += [node(k, "box", "/c/x") | {"id": str(k)} for k in range(1, n)]
    for k, item in enumerate(nodes[1:], 1):
        item["metadata"]["rank"] = k
    edges = [link(k, k + 1) for k in range(n - 1)]
    assert load(jgf(nodes, edges), "jgf").n_vertices == n
    with pytest.raises(ReaderError, match="cycle"):
        load(jgf(nodes, [*edges, link(n - 1, 5)]), "jgf")


# -- growth -----------------------------------------------------------------------------------


def _grown() -> tuple[ResourceGraph, str]:
    """A graph, and a text that adds a node with two cores to its rack."""
    graph = load(small(), "grug")
    rack = "/mine0/rack0"
    new = [
        node(102, "core", f"{rack}/node2/core102", rank=2),
        node(103, "core", f"{rack}/node2/core103", rank=2),
        node(101, "node", f"{rack}/node2", name="node2", rank=2),
        node(1, "rack", rack),
        node(0, "cluster", "/mine0"),
    ]
    return graph, jgf(new, [link(101, 102), link(101, 103), link(1, 101), link(0, 1)])


def test_attach_adds_what_is_not_there() -> None:
    graph, text = _grown()
    before = whole(graph)
    n_edges = graph.n_edges
    assert attach(graph, text, "jgf") == [32, 33, 34]
    assert whole(graph)[0][:32] == before[0]
    assert [graph.path(v) for v in (32, 33, 34)] == [
        "/mine0/rack0/node2/core102",
        "/mine0/rack0/node2/core103",
        "/mine0/rack0/node2",
    ]
    assert graph.children(1) == [2, 3, 34]
    assert graph.n_edges == n_edges + 3
    assert attach(graph, text, "jgf") == []
    assert graph.n_edges == n_edges + 3


def test_attach_takes_another_rank_for_another_vertex() -> None:
    graph, _text = _grown()
    text = jgf(
        [node(1, "rack", "/mine0/rack0"), node(200, "node", "/mine0/rack0/node0", rank=9)],
        [link(1, 200)],
    )
    assert attach(graph, text, "jgf") == [32]
    assert graph.find_path("/mine0/rack0/node0") == [2, 32]


def test_attach_can_bring_a_subsystem() -> None:
    graph, _text = _grown()
    text = jgf(
        [node(300, "panel", {"power": "/panel300"}), node(3, "node", "/mine0/rack0/node1", rank=1)],
        [link(300, 3, "power")],
    )
    assert attach(graph, text, "jgf") == [32]
    assert graph.root("power") == 32
    assert graph.path(3, "power") == "/panel300/node1"


@pytest.mark.parametrize(
    ("nodes", "edges", "said"),
    [
        ([node(50, "cluster", "/mine1")], [], "expected one root of subsystem 'containment'"),
        ([node(40, "rack", "/mine0/rack0"), node(40, "rack", "/mine0/r")], [], "each id once"),
        (
            [node(1, "rack", "/mine0/rack0"), node(2, "node", "/mine0/rack0/node9", rank=9)],
            [link(1, 2)],
            "targets with a uniq_id each of their own, found 2",
        ),
        (
            [
                node(1, "rack", "/mine0/rack0"),
                node(2, "node", "/mine0/rack0/node0", rank=0),
                node(60, "box", "/mine0/rack0/node0/box60"),
            ],
            [link(2, 60), link(60, 1)],
            "found a cycle through",
        ),
        (
            [node(70, "box", "/mine0/box"), node(71, "box", "/mine0/box/box")],
            [link(70, 71), link(71, 70)],
            "found a cycle through",
        ),
        ([node(80, "box", "/mine0/box")], [link(0, 80)], "the id of a node, found '0'"),
        ([node(80, "box", "/mine0/box", size=-1)], [], "size: expected"),
    ],
)
def test_a_refused_attach_changes_nothing(nodes: list[Any], edges: list[Any], said: str) -> None:
    graph = load(small(), "grug")
    before, generation = whole(graph), graph.generation
    with pytest.raises(ReaderError) as refused:
        attach(graph, jgf(nodes, edges), "jgf")
    assert said in str(refused.value)
    assert (whole(graph), graph.generation) == (before, generation)
    assert graph.n_vertices == 32


def test_siblings_are_told_apart_by_weight_and_number() -> None:
    graph, _text = _grown()
    edge_to_node0 = graph.edges_from(1)[0]
    graph.ew[edge_to_node0 * EW_WIDTH + EW_WEIGHT] = 5  # it held a job
    text = jgf(
        [node(1, "rack", "/mine0/rack0"), node(2, "node", "/mine0/rack0/node9", rank=9)],
        [link(1, 2)],
    )
    assert attach(graph, text, "jgf") == [32]


def test_only_jgf_can_be_attached() -> None:
    with pytest.raises(ReaderError, match="expected one of jgf, jgf_shorthand, found 'grug'"):
        attach(load(small(), "grug"), small(), "grug")


# -- allocations and releases ---------------------------------------------------------------------


def _branch(graph: ResourceGraph) -> set[int]:
    """The first core and all that it is in."""
    return {0, 1, 2, 4, 8}


def test_an_allocation_has_its_vertices_edges_and_root() -> None:
    graph = load(small(), "grug")
    found = read_allocation(graph, dump(graph, only=_branch(graph)), "jgf")
    assert found.vertices == [(v, 1, False) for v in (0, 1, 2, 4, 8)]
    assert [(graph.sources[e], graph.target(e)) for e, _n, _x in found.edges] == [
        (0, 1),
        (1, 2),
        (2, 4),
        (4, 8),
    ]
    assert found.root == (1, False)
    found = read_allocation(graph, dump(graph, exclusive=True, only={0, 1, 24, 4, 2}), "jgf")
    assert found.vertices[-1] == (24, 4, True)
    assert found.edges[-1][1:] == (4, True)
    assert found.root == (1, True)


def test_without_an_edge_from_the_root_there_is_nothing_to_walk() -> None:
    graph = load(small(), "grug")
    found = read_allocation(graph, dump(graph, only={8}), "jgf")
    assert (found.vertices, found.edges, found.root, found.roots) == (
        [(8, 1, False)],
        [],
        (0, False),
        {},
    )


def test_freed_ranks_are_left_out() -> None:
    graph = load(small(), "grug")
    text = dump(graph, only={0, 1, 2, 3})
    text = text[:-1] + ', "free_ranks": "0"}'
    found = read_allocation(graph, text, "jgf")
    assert [v for v, _n, _x in found.vertices] == [0, 1, 3]
    assert len(found.edges) == 2
    for bad in ("[1, 2]", '"x"', "1.5", '"0-99999999"'):
        with pytest.raises(ReaderError, match="free_ranks"):
            read_allocation(graph, text.replace('"0"}', bad + "}"), "jgf")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "gpu"}, "type: expected 'core', found 'gpu'"),
        ({"basename": "kern"}, "basename: expected 'core', found 'kern'"),
        ({"size": 2}, "size: expected 1, found 2"),
        ({"id": 7}, "id: expected 0, found 7"),
        ({"name": "x"}, "name: expected 'core0', found 'x'"),
        ({"rank": 5}, "paths.containment: expected a path of the graph with rank 5"),
        ({"paths": {"containment": "/mine0/x"}}, "a path of the graph with rank -1"),
        ({"paths": {}}, "paths: expected a path, found nothing"),
    ],
)
def test_an_allocation_must_agree_with_the_graph(change: dict[str, Any], said: str) -> None:
    graph = load(small(), "grug")
    core = {
        "type": "core",
        "id": 0,
        "name": "core0",
        "rank": -1,
        "uniq_id": 8,
        "paths": {"containment": "/mine0/rack0/node0/socket0/core0"},
    }
    assert read_allocation(graph, jgf([{"id": "8", "metadata": core}], []), "jgf").vertices
    for read in (read_allocation, read_release):
        with pytest.raises(ReaderError) as refused:
            read(graph, jgf([{"id": "8", "metadata": core | change}], []), "jgf")
        assert said in str(refused.value)


def test_an_allocation_must_agree_in_every_subsystem() -> None:
    graph = load(
        jgf(
            [
                node(0, "cluster", "/c", name="c"),
                node(1, "panel", {"power": "/p"}, name="p"),
                node(2, "node", {"containment": "/c/n", "power": "/p/n"}, name="n"),
                node(3, "node", {"containment": "/c/m", "power": "/p/m"}, name="m"),
            ],
            [link(0, 2), link(1, 2, "power"), link(0, 3), link(1, 3, "power")],
        ),
        "jgf",
    )
    good = {"containment": "/c/n", "power": "/p/n"}
    # Of two edges between the same vertices, the first is followed: whatever the file says.
    found = read_allocation(
        graph,
        jgf(
            [
                node(0, "cluster", "/c", name="c"),
                node(2, "node", good, name="n"),
                node(1, "panel", {"power": "/p"}, name="p"),
            ],
            [link(0, 2), link(1, 2)],
        ),
        "jgf",
    )
    assert found.roots == {"containment": (1, False), "power": (1, False)}
    assert [graph.subsystem(e) for e, _n, _x in found.edges] == ["containment", "power"]
    for paths, said in (
        ({"containment": "/c/n"}, "expected one for containment power, found 'power'"),
        ({"containment": "/c/n", "power": "/p/m"}, "expected a path of 'n', found '/p/m'"),
    ):
        with pytest.raises(ReaderError) as refused:
            read_allocation(graph, jgf([node(2, "node", paths, name="n")], []), "jgf")
        assert said in str(refused.value)


def test_an_allocation_names_each_vertex_once_and_edges_that_exist() -> None:
    graph = load(small(), "grug")
    core = node(8, "core", "/mine0/rack0/node0/socket0/core0", id=0)
    rack = node(1, "rack", "/mine0/rack0", id=0)
    for nodes, edges, said in (
        ([core, core], [], "each id once"),
        ([core, core | {"id": "9"}], [], "each vertex once"),
        ([core, rack], [link(1, 8)], "expected an edge of the graph"),
        ([core], [link(8, 1)], "expected the id of a node, found '1'"),
    ):
        with pytest.raises(ReaderError) as refused:
            read_allocation(graph, jgf(nodes, edges), "jgf")
        assert said in str(refused.value)


def test_a_release_names_vertices() -> None:
    graph = load(small(), "grug")
    found = read_release(graph, dump(graph, only={2, 8, 9}), "jgf")
    assert (found.vertices, found.ranks) == ([2, 8, 9], {0, -1})
    # With ranks freed before, the first vertex of a rank stands for them all.
    text = dump(graph, only={2, 3, 8, 9})[:-1] + ', "free_ranks": "1"}'
    found = read_release(graph, text, "jgf")
    assert (found.vertices, found.ranks) == ([2, 8], {0, -1})


def test_updates_and_releases_know_their_formats() -> None:
    graph = load(small(), "grug")
    for read in (read_allocation, read_release):
        with pytest.raises(ReaderError, match="format: expected one of jgf, jgf_shorthand, rv1"):
            read(graph, "", "hwloc")
    with pytest.raises(ReaderError, match="format: expected one of grug, hwloc, jgf"):
        load("", "xml")
