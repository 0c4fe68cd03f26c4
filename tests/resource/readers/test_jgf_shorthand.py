"""The shorthand of JGF: what is exclusive stands for everything below it."""

from __future__ import annotations

import pytest

from flux_mpi.resource.readers import ReaderError, load, read_allocation, read_release
from tests.resource.readers.samples import dump, edge, jgf, kind, link, node, recipe, small


def _node0(**metadata: object) -> dict[str, object]:
    return node(2, "node", "/mine0/rack0/node0", name="node0", rank=0, **metadata)


def _above() -> list[dict[str, object]]:
    return [
        node(0, "cluster", "/mine0", basename="mine"),
        node(1, "rack", "/mine0/rack0", id=0),
    ]


def test_below_an_exclusive_vertex_everything_is_exclusive() -> None:
    graph = load(small(), "grug")
    below = [v for v in graph.vertices() if (graph.path(v) or "").startswith("/mine0/rack0/node0/")]
    text = jgf([*_above(), _node0(exclusive=True)], [link(0, 1), link(1, 2)])
    found = read_allocation(graph, text, "jgf_shorthand")
    assert [v for v, _n, _x in found.vertices[:3]] == [0, 1, 2]
    assert sorted(v for v, _n, _x in found.vertices[3:]) == below
    # Depth first: a socket's own parts come before the next socket.
    assert [v for v, _n, _x in found.vertices[3:11]] == [4, 8, 9, 10, 20, 24, 25, 5]
    assert all(x and n == graph.sizes[v] for v, n, x in found.vertices[2:])
    targets = sorted(graph.target(e) for e, _n, _x in found.edges)
    assert targets == sorted([1, 2, *below])
    assert found.root == (1, False)


def test_it_says_what_the_long_form_says() -> None:
    graph = load(small(), "grug")
    below = {v for v in graph.vertices() if (graph.path(v) or "").startswith("/mine0/rack0/node0/")}
    short = read_allocation(graph, dump(graph, exclusive=True, only={4}), "jgf_shorthand")
    long = read_allocation(
        graph,
        dump(graph, exclusive=True, only={v for v in below if v in (4, *graph.children(4))}),
        "jgf",
    )
    assert sorted(short.vertices) == sorted(long.vertices)
    assert sorted(short.edges) == sorted(long.edges)


def test_what_is_not_exclusive_stands_for_itself() -> None:
    graph = load(small(), "grug")
    text = jgf([_node0()], [])
    assert read_allocation(graph, text, "jgf_shorthand").vertices == [(2, 1, False)]
    assert read_release(graph, text, "jgf_shorthand").vertices == [2]


def test_a_release_gives_back_everything_below() -> None:
    graph = load(small(), "grug")
    found = read_release(graph, jgf([_node0(exclusive=True)], []), "jgf_shorthand")
    assert len(found.vertices) == 15
    assert found.ranks == {0, -1}


def test_an_exclusive_root_begins_the_walk() -> None:
    graph = load(small(), "grug")
    text = jgf([node(0, "cluster", "/mine0", basename="mine", exclusive=True)], [])
    found = read_allocation(graph, text, "jgf_shorthand")
    assert len(found.vertices) == graph.n_vertices
    assert found.root == (1, True)


def test_freed_ranks_are_left_out() -> None:
    graph = load(small(), "grug")
    text = jgf([*_above(), _node0(exclusive=True)], [link(1, 2)], free_ranks="0")
    found = read_allocation(graph, text, "jgf_shorthand")
    # Only nodes have a rank in this graph; what is below them stays, without the edges to it.
    assert 2 not in [v for v, _n, _x in found.vertices]
    assert all(2 not in (graph.sources[e], graph.target(e)) for e, _n, _x in found.edges)


def test_a_vertex_is_named_once() -> None:
    graph = load(small(), "grug")
    core = node(8, "core", "/mine0/rack0/node0/socket0/core0", id=0)
    with pytest.raises(ReaderError, match="expected each id once, found '8'"):
        read_allocation(graph, jgf([_node0(exclusive=True), core], []), "jgf_shorthand")
    with pytest.raises(ReaderError, match="expected each vertex once, found 'core0'"):
        read_allocation(graph, jgf([core, _node0(exclusive=True)], []), "jgf_shorthand")
    shared = load(
        recipe(
            kind("cluster", root=1),
            kind("pool"),
            kind("rack"),
            kind("ssd"),
            kind("again", type="ssd"),
            edge("cluster", "rack"),
            edge("rack", "ssd"),
            edge("cluster", "pool"),
            edge("pool", "again", gen_method="ASSOCIATE_IN"),
        ),
        "grug",
    )
    text = jgf([node(0, "cluster", "/cluster0", exclusive=True)], [])
    with pytest.raises(ReaderError, match="expected each vertex below it once, found 'ssd0'"):
        read_allocation(shared, text, "jgf_shorthand")
