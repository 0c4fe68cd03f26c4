"""R version 1: the graph it makes, what of a graph it takes and gives back, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.resource.readers import ReaderError, load, read_allocation, read_release
from tests.resource.readers.samples import names, small, vertex


def rv1(rlite: Any = None, nodelist: Any = ("n[0-1]",), version: Any = 1, **execution: Any) -> str:
    """An R of two nodes, each of two cores and a gpu, unless told."""
    if rlite is None:
        rlite = [{"rank": "0-1", "children": {"core": "0-1", "gpu": "0"}}]
    if isinstance(nodelist, tuple):
        nodelist = list(nodelist)
    return json.dumps(
        {
            "version": version,
            "execution": {
                "R_lite": rlite,
                "nodelist": nodelist,
                "starttime": 0,
                "expiration": 0,
                **execution,
            },
        }
    )


def test_nodes_come_with_what_is_in_them() -> None:
    for format in ("rv1exec", "rv1exec_force"):
        graph = load(rv1(), format)
        assert names(graph) == [
            "/cluster0",
            "/cluster0/n0",
            "/cluster0/n0/core0",
            "/cluster0/n0/core1",
            "/cluster0/n0/gpu0",
            "/cluster0/n1",
            "/cluster0/n1/core0",
            "/cluster0/n1/core1",
            "/cluster0/n1/gpu0",
        ]
        assert list(graph.ranks) == [-1, 0, 0, 0, 0, 1, 1, 1, 1]
        assert vertex(graph, 0) == (
            "cluster",
            "cluster",
            "cluster0",
            0,
            0,
            -1,
            1,
            "",
            0,
            {},
            {"containment": "/cluster0"},
        )


def test_ranks_meet_hosts_in_their_order_whatever_the_order_of_entries() -> None:
    graph = load(
        rv1(
            [
                {"rank": "3,7", "children": {"core": "3-4"}},
                {"rank": "[5]", "children": {"memory": "0", "core": "9"}},
            ],
            ["a", "b001,c", "spare"],
            properties={"arm": "3-5", "big": "7,99", "fast": "3"},
        ),
        "rv1exec",
    )
    nodes = graph.of_type("node")
    assert [(graph.name(v), graph.ranks[v], graph.ids[v], graph.basename(v)) for v in nodes] == [
        ("a", 3, -1, "a"),
        ("c", 7, -1, "c"),
        ("b001", 5, 1, "b"),
    ]
    assert [graph.properties.get(v) for v in nodes] == [
        {"arm": "", "fast": ""},
        {"big": ""},
        {"arm": ""},
    ]
    assert [graph.name(v) for v in graph.children(nodes[2])] == ["memory0", "core9"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("n7", ("n", 7)),
        ("n007", ("n", 7)),
        ("n000", ("n", 0)),
        ("n", ("n", -1)),
        ("42", ("42", 42)),
        ("a1b", ("a1b", -1)),
        ("r1-n2", ("r1-n", 2)),
    ],
)
def test_hosts(host: str, expected: tuple[str, int]) -> None:
    graph = load(rv1([{"rank": "0", "children": {"core": "0"}}], [host]), "rv1exec")
    assert (graph.basename(1), graph.ids[1]) == expected
    assert graph.name(1) == host
    assert graph.path(2) == f"/cluster0/{host}/core0"


def test_nothing_below_is_allowed_in_a_graph() -> None:
    assert names(load(rv1([]), "rv1exec")) == ["/cluster0"]
    assert len(names(load(rv1([{"rank": "0", "children": {}}]), "rv1exec"))) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 column 1: expected JSON"),
        ("{}", "version: expected 1, found nothing"),
        (rv1(version=2), "version: expected 1, found 2"),
        (rv1(version=True), "version: expected 1, found true"),
        (rv1(version="1"), "version: expected 1, found '1'"),
        ('{"version": 1}', "execution: expected an object, found nothing"),
        ('{"version": 1, "execution": {}}', "execution.R_lite: expected an array"),
        ('{"version": 1, "version": 1}', "expected each key once, found 'version'"),
        (rv1(7), "execution.R_lite: expected an array, found 7"),
        (rv1([7]), "execution.R_lite[0]: expected an object"),
        (rv1([{}]), "execution.R_lite[0].rank: expected an idset, found nothing"),
        (rv1([{"rank": 0}]), "execution.R_lite[0].rank: expected an idset, found 0"),
        (rv1([{"rank": "0-"}]), "execution.R_lite[0].rank: idset"),
        (rv1([{"rank": "0-4000000000"}]), "R_lite[0].rank: expected ids up to"),
        (rv1([{"rank": "3000000000"}]), "R_lite[0].rank: expected ids up to"),
        (rv1([{"rank": "0"}]), "R_lite[0].children: expected an object"),
        (rv1([{"rank": "0", "children": []}]), "R_lite[0].children: expected an object"),
        (rv1([{"rank": "0", "children": {"core": 0}}]), "children.core: expected an idset"),
        (rv1([{"rank": "0", "children": {"": "0"}}]), "children: expected a name"),
        (rv1([{"rank": "0", "children": {"c" * 2000: "0"}}]), "at most 1024 characters"),
        (
            rv1([{"rank": "0-9999", "children": {"core": "0-9999"}}], ["n[0-9999]"]),
            "at most 16777216 resources, found 100010001",
        ),
        (rv1(nodelist=("n0",)), "nodelist: expected 2 hosts, found 1"),
        (rv1(nodelist=()), "nodelist: expected 2 hosts, found 0"),
        (rv1(nodelist="n[0-1]"), "nodelist: expected an array"),
        (rv1(nodelist=(1,)), "nodelist[0]: expected a hostlist"),
        (rv1(nodelist=("n[",)), "execution.nodelist[0]: "),
        (rv1(nodelist=("n" + "9" * 30, "b")), "expected a number of at most"),
        (rv1(nodelist=("n" * 2000, "b")), "at most 1024 characters"),
        (
            rv1([{"rank": "0", "children": {}}, {"rank": "0", "children": {}}]),
            "R_lite[1].rank: expected each rank once, found 0",
        ),
        (rv1(properties=[]), "properties: expected an object"),
        (rv1(properties={"a": 1}), "properties.a: expected an idset, found 1"),
        (rv1(properties={"a": "x"}), "properties.a: idset"),
        (rv1(properties={"p" * 2000: "0"}), "at most 1024 characters"),
    ],
)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ReaderError, match=r"^rv1exec: ") as refused:
        load(text, "rv1exec")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


# -- allocations and releases ---------------------------------------------------------------------


def test_part_of_a_node_is_walked_through_and_all_of_it_taken() -> None:
    graph = load(rv1(), "rv1exec")
    found = read_allocation(
        graph, rv1([{"rank": "0", "children": {"core": "1"}}], ["n0"]), "rv1exec"
    )
    assert found.vertices == [(3, 1, True), (1, 1, False)]
    assert [(graph.target(e), n, x) for e, n, x in found.edges] == [(1, 1, True), (3, 1, True)]
    assert (found.root, found.roots) == ((1, False), {"containment": (1, False)})
    found = read_allocation(graph, rv1(), "rv1exec")
    assert found.vertices == [
        (2, 1, True),
        (3, 1, True),
        (4, 1, True),
        (1, 1, True),
        (6, 1, True),
        (7, 1, True),
        (8, 1, True),
        (5, 1, True),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (rv1([{"rank": "0", "children": {"core": "2"}}], ["n0"]), "'/cluster0/n0/core2'"),
        (rv1([{"rank": "1", "children": {"core": "0"}}], ["n0"]), "node of the graph with rank 1"),
        (rv1([{"rank": "0", "children": {"core": "0"}}], ["n9"]), "found '/cluster0/n9'"),
        (rv1([{"rank": "0", "children": {}}], ["n0"]), "expected resources below a node"),
        (
            rv1([{"rank": "0", "children": {"core": "0"}}] * 2, ["n0"]),
            "R_lite[1]: expected each resource once, found 'core0'",
        ),
        (
            rv1(
                [
                    {"rank": "0", "children": {"core": "0-1", "gpu": "0"}},
                    {"rank": "0", "children": {}},
                ],
                ["n0"],
            ),
            "expected ranks not taken whole before, found 0",
        ),
    ],
)
def test_refused_allocations(text: str, said: str) -> None:
    with pytest.raises(ReaderError, match=r"^rv1exec: ") as refused:
        read_allocation(load(rv1(), "rv1exec"), text, "rv1exec")
    assert said in str(refused.value)


def test_nodes_in_racks_are_not_where_r_says() -> None:
    text = rv1([{"rank": "0", "children": {"core": "0"}}], ["node0"])
    with pytest.raises(ReaderError, match="'/mine0/node0'"):
        read_allocation(load(small(), "grug"), text, "rv1exec")


def test_a_release_names_ranks_whatever_else_it_says() -> None:
    text = json.dumps({"version": 1, "execution": {"R_lite": [{"rank": "3-4"}, {"rank": "9"}]}})
    found = read_release(load(rv1(), "rv1exec"), text, "rv1exec")
    assert (found.vertices, found.ranks) == ([], {3, 4, 9})


@settings(deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 9),
        st.dictionaries(
            st.sampled_from(["core", "gpu", "disk"]), st.sets(st.integers(0, 9), min_size=1)
        ),
        max_size=5,
    )
)
def test_random_sets(ranks: dict[int, dict[str, set[int]]]) -> None:
    rlite = [
        {
            "rank": str(rank),
            "children": {
                type: ",".join(str(id) for id in sorted(ids)) for type, ids in children.items()
            },
        }
        for rank, children in ranks.items()
    ]
    hosts = [f"h{rank}" for rank in sorted(ranks)]
    graph = load(rv1(rlite, hosts), "rv1exec")
    expected = ["/cluster0"]
    for rank, children in ranks.items():
        expected.append(f"/cluster0/h{rank}")
        for type, ids in children.items():
            expected += [f"/cluster0/h{rank}/{type}{id}" for id in sorted(ids)]
    assert names(graph) == expected
    full = [entry for entry in rlite if entry["children"]]
    hosts = [f"h{rank}" for rank in sorted(ranks) if ranks[rank]]
    found = read_allocation(graph, rv1(full, hosts), "rv1exec")
    taken = {v for v, _needs, exclusive in found.vertices if exclusive}
    empty = {graph.find_path(f"/cluster0/h{rank}")[0] for rank in ranks if not ranks[rank]}
    assert taken == set(graph.vertices()) - {0} - empty
