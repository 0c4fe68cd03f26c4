"""GRUG: ids and orders worked out by hand, and random recipes against a recursive oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.resource.readers import ReaderError, grug, load
from tests.resource.readers.samples import KEYS, edge, kind, names, recipe, small, vertex, whole


def test_vertices_come_kind_by_kind_with_ids_local_to_their_scope() -> None:
    graph = load(small(), "grug")
    assert names(graph)[:8] == [
        "/mine0",
        "/mine0/rack0",
        "/mine0/rack0/node0",
        "/mine0/rack0/node1",
        "/mine0/rack0/node0/socket0",
        "/mine0/rack0/node0/socket1",
        "/mine0/rack0/node1/socket0",
        "/mine0/rack0/node1/socket1",
    ]
    assert [graph.name(v) for v in range(8, 20)] == [f"core{k}" for k in range(6)] * 2
    assert [graph.name(v) for v in range(20, 24)] == ["gpu0", "gpu1"] * 2
    assert [graph.name(v) for v in range(24, 32)] == [f"memory{k}" for k in range(4)] * 2
    assert [graph.name(v) for v in graph.children(4)] == [
        "core0",
        "core1",
        "core2",
        "gpu0",
        "memory0",
        "memory1",
    ]
    assert (graph.sizes[31], graph.unit(31)) == (4, "GB")


def test_only_nodes_have_ranks() -> None:
    graph = load(small(), "grug")
    assert [graph.ranks[v] for v in graph.of_type("node")] == [0, 1]
    assert {graph.ranks[v] for v in graph.vertices() if graph.type(v) != "node"} == {-1}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, [0, 1, 0, 1, 0, 1, 0, 1]),
        ({"id_start": 5}, [5, 6] * 4),
        ({"id_stride": 3}, [0, 1] * 4),  # a stride counts only with a scope
        ({"id_scope": 1}, [0, 1, 2, 3] * 2),
        ({"id_scope": 1, "id_stride": 10, "id_start": 1}, [1, 11, 21, 31] * 2),
        ({"id_scope": 2}, list(range(8))),
        ({"id_scope": 9}, list(range(8))),
        ({"id_scope": -1}, [-1] * 8),
    ],
)
def test_ids(data: dict[str, int], expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    text = recipe(
        kind("cluster", root=1),
        kind("node"),
        kind("socket"),
        kind("core"),
        edge("cluster", "node", multi_scale=2),
        edge("node", "socket", multi_scale=2),
        edge("socket", "core", multi_scale=2, **data),
    )
    for many in (4096, 1):
        monkeypatch.setattr(grug, "_MANY", many)
        graph = load(text, "grug")
        assert [graph.ids[v] for v in graph.of_type("core")] == expected
        plain = "core" if expected[0] == -1 else f"core{expected[0]}"
        assert graph.name(graph.of_type("core")[0]) == plain


def test_association_redirects_paths_of_what_it_reaches_but_not_of_what_is_below() -> None:
    graph = load(
        recipe(
            kind("cluster", root=1),
            kind("pool"),
            kind("rack"),
            kind("unit"),
            kind("ssd"),
            kind("unit_link", type="unit"),
            edge("cluster", "rack", multi_scale=2),
            edge("cluster", "pool"),
            edge("rack", "unit"),
            edge("unit", "ssd", multi_scale=2),
            edge("pool", "unit_link", gen_method="ASSOCIATE_IN"),
        ),
        "grug",
    )
    units = graph.of_type("unit")
    assert [graph.path(v) for v in units] == ["/cluster0/pool0/unit0"] * 2
    assert [graph.path(v) for v in graph.of_type("ssd")] == [
        f"/cluster0/rack{r}/unit0/ssd{k}" for r in (0, 1) for k in (0, 1)
    ]
    assert graph.children(graph.of_type("pool")[0]) == units
    assert graph.find_path("/cluster0/rack1/unit0/ssd1") == [graph.of_type("ssd")[3]]


def _power(**of_last: object) -> str:
    return recipe(
        kind("cluster", root=1),
        kind("rack"),
        kind("pdu"),
        kind("node"),
        edge("cluster", "rack", multi_scale=2),
        edge("rack", "pdu"),
        edge("rack", "node", multi_scale=2, id_scope=1),
        kind("panel", root=1, subsystem="power"),
        kind("pdu2", type="pdu", subsystem="power"),
        kind("node2", type="node", subsystem="power"),
        kind("watts", subsystem="power", size=10, unit="KW"),
        edge("panel", "pdu2", e_subsystem="power", gen_method="ASSOCIATE_IN"),
        edge("pdu2", "node2", e_subsystem="power", gen_method="ASSOCIATE_BY_PATH_IN", **of_last),
        edge("node2", "watts", e_subsystem="power", multi_scale=2),
    )


def test_association_by_path_joins_what_is_in_the_same_place() -> None:
    graph = load(_power(), "grug")
    pdus = graph.of_type("pdu")
    nodes = graph.of_type("node")
    assert [graph.children(v, "power") for v in pdus] == [nodes[:2], nodes[2:]]
    assert [graph.path(v, "power") for v in nodes[:1]] == ["/panel0/pdu0/node0"]
    assert graph.path(graph.of_type("watts")[0], "power") == "/panel0/pdu0/node0/watts0"
    assert graph.path(nodes[0]) == "/cluster0/rack0/node0"
    assert graph.root("power") == graph.of_type("panel")[0]


def test_association_by_path_of_the_top_joins_all() -> None:
    graph = load(_power(as_tgt_uplvl=2, as_src_uplvl=2), "grug")
    nodes = graph.of_type("node")
    assert [graph.children(v, "power") for v in graph.of_type("pdu")] == [nodes, nodes]
    # Each node is there once for each way to it, and so is what is made below it.
    assert len(graph.of_type("watts")) == 16


def test_an_edge_that_exists_changes_its_subsystem() -> None:
    graph = load(
        recipe(
            kind("cluster", root=1),
            kind("node"),
            kind("again", type="node"),
            edge("cluster", "node", multi_scale=3),
            edge("cluster", "again", gen_method="ASSOCIATE_IN", e_subsystem="network"),
        ),
        "grug",
    )
    assert graph.n_edges == 3
    assert graph.children(0, "network") == [1, 2, 3]
    assert graph.children(0) == []
    assert [graph.path(v) for v in (1, 2, 3)] == [f"/cluster0/node{k}" for k in range(3)]


def test_what_comes_first_in_the_file_is_walked_first() -> None:
    # The search reaches the core from its own start, where nothing is to be made below.
    graph = load(
        recipe(
            kind("core"),
            kind("cluster", root=1),
            kind("node"),
            edge("cluster", "node"),
            edge("node", "core"),
        ),
        "grug",
    )
    assert names(graph) == ["/cluster0", "/cluster0/node0"]


def test_two_recipe_roots_of_one_kind_are_one_root() -> None:
    graph = load(
        recipe(
            kind("a", type="cluster", root=1),
            kind("node"),
            kind("b", type="cluster", root=1),
            kind("ssd"),
            edge("a", "node"),
            edge("b", "ssd"),
        ),
        "grug",
    )
    assert names(graph) == ["/cluster0", "/cluster0/node0", "/cluster0/ssd0"]


def test_unset_attributes_are_empty_or_zero() -> None:
    keys = "".join(
        f'<key id="{name}" for="{of}" attr.name="{name}" attr.type="{type}"/>'
        for name, of, type in (
            ("root", "node", "int"),
            ("type", "node", "string"),
            ("basename", "node", "string"),
            ("gen_method", "edge", "string"),
            ("multi_scale", "edge", "int"),
        )
    )
    graph = load(
        recipe(
            kind("cluster", root=1),
            kind("node"),
            edge("cluster", "node", gen_method="MULTIPLY", multi_scale=2),
            keys=keys,
        ),
        "grug",
    )
    assert graph.subsystems.find("") >= 0
    assert graph.path(1, "") == "/cluster0/node0"
    assert list(graph.sizes) == [0, 0, 0]
    # All of them start at 0 and go on by 1: a scope of 0 knows no stride.
    assert [graph.ids[v] for v in (1, 2)] == [0, 1]


# -- refused ----------------------------------------------------------------------------------

_PAIR = kind("a", root=1) + kind("b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (recipe(_PAIR, edge("a", "c")), "line 26 edge target: expected a node's id, found 'c'"),
        (recipe(_PAIR, kind("b"), edge("a", "b")), "expected each id once, found 'b'"),
        (recipe(_PAIR, edge("a", "b", multi_scale=-1)), "expected 0 or more, found -1"),
        (recipe(_PAIR, edge("a", "b", multi_scale="many")), "'multi_scale': expected an integer"),
        (recipe(_PAIR, edge("a", "b", multi_scale=2**31)), "'multi_scale': expected an integer"),
        (recipe(_PAIR, edge("a", "b", multi_scale=2**25)), "at most 16777216 edges"),
        (recipe(_PAIR, edge("a", "b", id_start=2**31 - 1)), "expected ids of 32 bits"),
        (recipe(_PAIR, edge("a", "b", gen_method="GUESS")), "found 'GUESS'"),
        (recipe(_PAIR, edge("a", "b", colour="red")), "the id of a <key>, found 'colour'"),
        (recipe(_PAIR, edge("a", "b", size=1)), "expected one of e_subsystem"),
        (recipe(kind("a", root=1, size=-1), kind("b"), edge("a", "b")), "'size': expected an"),
        (recipe(kind("a", root=1, size=2**32), kind("b"), edge("a", "b")), "'size': expected an"),
        (recipe(kind("a", root=1, size=1.5), kind("b"), edge("a", "b")), "'size': expected an"),
        (recipe(kind("a", root=1), kind("b", unit="x" * 1025)), "at most 1024 characters"),
        (recipe('<node id="a"/>'), "'type': expected a name"),
        (recipe("<node/>"), "expected <node> with id"),
        (recipe('<node id="a"><data>1</data></node>'), "expected <data> with key"),
        (recipe(kind("a")), "expected a node with root 1 and an edge from it"),
        (recipe(kind("a", root=1)), "expected a node with root 1 and an edge from it"),
        (recipe(), "expected a node with root 1"),
        (recipe(_PAIR, edge("a", "b"), directed="undirected"), "expected a directed edge"),
        (recipe(_PAIR, '<edge source="a" target="b" directed="false"/>'), "a directed edge"),
        (
            recipe(_PAIR, kind("c", root=1), kind("d"), edge("a", "b"), edge("c", "d")),
            "expected one root of subsystem 'containment', found 'a0' too",
        ),
        (
            recipe(
                _PAIR,
                kind("c", type="b"),
                edge("a", "b"),
                edge("b", "c", gen_method="ASSOCIATE_IN"),
            ),
            "from 'b0' to itself",
        ),
        (
            recipe(
                _PAIR,
                kind("c"),
                kind("b2", type="b"),
                edge("a", "b"),
                edge("b", "c"),
                edge("c", "b2", gen_method="ASSOCIATE_IN"),
            ),
            "closes a cycle",
        ),
        ("<graphml/>", "expected a <graph>"),
        ("<html/>", "expected a <graphml>"),
        ("<graphml><graph/></graphml>", "expected <graph> with edgedefault"),
        ('<graphml><key id="a"/></graphml>', "key for: expected one of graph node"),
        (
            '<graphml><key for="node" attr.type="byte"><default>1</default></key></graphml>',
            "key attr.type: expected boolean or int",
        ),
        (recipe(_PAIR, keys=KEYS.replace('"long"', '"int"')), "expected attr.type long, found 'i"),
        (recipe(_PAIR, keys=KEYS.replace(">0<", "><")), "expected an integer"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ReaderError, match=r"^grug: ") as refused:
        load(text, "grug")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


# -- random recipes ---------------------------------------------------------------------------


@st.composite
def plain_recipes(draw: st.DrawFn) -> tuple[list[tuple[str, int]], list[dict[str, Any]]]:
    """A tree of kinds: ``(name, parent)`` of each but the first, and the data of its edge."""
    kinds = draw(st.lists(st.sampled_from(["node", "core", "gpu", "rack"]), max_size=5))
    parents = [draw(st.integers(0, k)) for k in range(len(kinds))]
    data = [
        {
            "multi_scale": draw(st.integers(0, 3)),
            "id_scope": draw(st.integers(-1, 3)),
            "id_start": draw(st.integers(-2, 2)),
            "id_stride": draw(st.integers(-1, 2)),
        }
        for _ in kinds
    ]
    return list(zip(kinds, parents)), data


def _oracle(tree: list[tuple[str, int]], data: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """``(path, type, id, rank)`` in order, made by recursion over the recipe."""
    made: list[tuple[Any, ...]] = [("/cluster0", "cluster", 0, -1)]
    n_nodes = 0

    def descend(at: int, paths: list[str], scales: list[int]) -> None:
        nonlocal n_nodes
        for k, (name, parent) in enumerate(tree):
            if parent != at:
                continue
            d = data[k]
            below = []
            for j, path in enumerate(paths):
                for i in range(d["multi_scale"]):
                    if d["id_scope"] < 0:
                        id = -1
                    elif d["id_scope"] == 0:
                        id = d["id_start"] + i
                    else:
                        around = 1
                        for scale in scales[: d["id_scope"]]:
                            around *= scale
                        place = j % around * d["multi_scale"] + i
                        id = d["id_start"] + place * d["id_stride"]
                    rank = -1
                    if name == "node":
                        rank, n_nodes = n_nodes, n_nodes + 1
                    below.append(f"{path}/{name}{'' if id == -1 else id}")
                    made.append((below[-1], name, id, rank))
            # Scales pile up only for a vertex of the recipe that is being walked.
            descend(k + 1, below, [d["multi_scale"], *scales])

    descend(0, ["/cluster0"], [])
    return made


@settings(deadline=None)
@given(plain_recipes())
def test_random_recipes(case: tuple[list[tuple[str, int]], list[dict[str, Any]]]) -> None:
    tree, data = case
    if not any(parent == 0 for _name, parent in tree):
        return
    labels = ["cluster", *(f"k{k}" for k in range(len(tree)))]
    text = recipe(
        kind("cluster", root=1),
        *(kind(f"k{k}", type=name) for k, (name, _parent) in enumerate(tree)),
        *(edge(labels[parent], f"k{k}", **data[k]) for k, (_name, parent) in enumerate(tree)),
    )
    expected = _oracle(tree, data)
    graph = load(text, "grug")
    found = [(graph.path(v), graph.type(v), graph.ids[v], graph.ranks[v]) for v in graph.vertices()]
    assert found == expected
    many = grug._MANY
    try:
        grug._MANY = 1
        assert whole(load(text, "grug")) == whole(graph)
    finally:
        grug._MANY = many


def test_ten_thousand_nodes_come_at_once() -> None:
    graph = load(
        recipe(
            kind("cluster", root=1),
            kind("rack"),
            kind("node"),
            kind("core"),
            edge("cluster", "rack", multi_scale=100),
            edge("rack", "node", multi_scale=100, id_scope=1),
            edge("node", "core", multi_scale=8),
        ),
        "grug",
    )
    assert graph.n_vertices == 1 + 100 + 10_000 + 80_000
    assert vertex(graph, graph.n_vertices - 1)[2:7] == ("core7", 7, 90_100, -1, 1)
    assert graph.path(graph.n_vertices - 1) == "/cluster0/rack99/node9999/core7"
    assert graph.ranks[graph.of_type("node")[-1]] == 9999


@st.composite
def tangled_recipes(draw: st.DrawFn) -> str:
    """A recipe of a few vertices with associations, most of which make sense."""
    subsystems = st.sampled_from(["containment", "power"])
    types = ["cluster", "panel"]
    homes = ["containment", "power"]
    kinds = [
        kind("k0", type="cluster", root=1),
        kind("k1", type="panel", root=1, subsystem="power"),
    ]
    edges = []
    for k in range(2, draw(st.integers(4, 9))):
        parent = draw(st.integers(0, k - 1))
        data: dict[str, object] = {}
        others = sorted(set(types[2:]) - {types[parent]})
        if not others or draw(st.booleans()):
            types.append(draw(st.sampled_from(["rack", "node", "pdu", "core"])))
            homes.append(homes[parent] if draw(st.integers(0, 9)) else draw(subsystems))
            data["e_subsystem"] = homes[k] if draw(st.integers(0, 9)) else draw(subsystems)
            data |= {"multi_scale": draw(st.integers(1, 2)), "id_scope": draw(st.integers(0, 2))}
        else:
            types.append(draw(st.sampled_from(others)))
            homes.append(draw(subsystems))
            data["e_subsystem"] = homes[k] if draw(st.integers(0, 9)) else draw(subsystems)
            data["gen_method"] = draw(st.sampled_from(["ASSOCIATE_IN", "ASSOCIATE_BY_PATH_IN"]))
            data["as_tgt_subsystem"] = draw(subsystems)
            data["as_tgt_uplvl"] = draw(st.integers(0, 2))
            data["as_src_uplvl"] = draw(st.integers(0, 2))
        kinds.append(kind(f"k{k}", type=types[k], subsystem=homes[k]))
        edges.append(edge(f"k{parent}", f"k{k}", **data))
    return recipe(*kinds, *edges)


@settings(deadline=None, max_examples=300)
@given(tangled_recipes())
def test_paths_told_from_runs_are_those_kept_for_each_vertex(text: str) -> None:
    try:
        graph = load(text, "grug")
    except ReaderError:
        return
    is_plain = grug._is_plain
    try:
        grug._is_plain = lambda recipe: False
        assert whole(load(text, "grug")) == whole(graph)
    finally:
        grug._is_plain = is_plain
