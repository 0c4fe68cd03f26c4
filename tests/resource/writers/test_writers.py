"""Each format, letter by letter."""

from __future__ import annotations

import json

import pytest

from flux_mpi.resource.graph import DOWN, ResourceGraph
from flux_mpi.resource.writers import (
    EXCLUSIVE,
    EXCLUSIVE_PARENT,
    FORMATS,
    WriterError,
    create_writer,
    to_jgf,
)

from .conftest import Walk

ONE_CORE = ["/c0/n1/core1"]

CORE = (
    '{"id": "10", "metadata": {"type": "core", "id": 1, "rank": 1, "exclusive": true, '
    '"paths": {"containment": "/c0/n1/core1"}}}'
)
NODE = (
    '{"id": "8", "metadata": {"type": "node", "basename": "n", "id": 1, "rank": 1, '
    '"paths": {"containment": "/c0/n1", "power": "/grid/pdu0/n1"}}}'
)
CLUSTER = (
    '{"id": "0", "metadata": {"type": "cluster", "basename": "c", "id": 0, "rank": -1, '
    '"paths": {"containment": "/c0"}}}'
)
GRAPH = (
    f'{{"graph": {{"nodes": [{CORE}, {NODE}, {CLUSTER}], "edges": '
    '[{"source": "8", "target": "10"}, {"source": "0", "target": "8"}]}}'
)
EXECUTION = (
    '{"R_lite": [{"rank": "1", "children": {"core": "1"}}], "nodelist": ["n1"], '
    '"starttime": 5, "expiration": 65}'
)

EXPECTED = {
    "simple": (
        "      ---------core1[1:x]\n"  #
        "      ------n1[1:s]\n"
        "      ---c0[1:s]\n"
    ),
    "pretty_simple": (
        "      ---c0[1:shared]\n      ------n1[1:shared]\n      ---------core1[1:exclusive]\n"
    ),
    "jgf": f"{GRAPH}\n",
    "jgf_shorthand": f"{GRAPH}\n",
    "rlite": '[{"rank": "1", "children": {"core": "1"}}]\n',
    "rv1": f'{{"version": 1, "execution": {EXECUTION}, "scheduling": {GRAPH}}}\n',
    "rv1_nosched": f'{{"version": 1, "execution": {EXECUTION}}}\n',
    "rv1_shorthand": f'{{"version": 1, "execution": {EXECUTION}, "scheduling": {GRAPH}}}\n',
}


@pytest.mark.parametrize("format", FORMATS)
def test_one_core(graph: ResourceGraph, walk: Walk, format: str) -> None:
    writer = create_writer(format, graph)
    assert writer.emit() == ""
    for _ in range(2):  # Nothing is left of the first time.
        walk(writer, ONE_CORE)
        writer.times(5, 65)
        assert writer.emit() == EXPECTED[format]
        assert writer.emit() == ""


@pytest.mark.parametrize("format", FORMATS)
def test_as_an_object(graph: ResourceGraph, walk: Walk, format: str) -> None:
    writer = create_writer(format, graph)
    assert writer.emit_json() is None
    walk(writer, ONE_CORE)
    writer.times(5, 65)
    text = EXPECTED[format]
    assert writer.emit_json() == (text if "simple" in format else json.loads(text))
    assert writer.emit_json() is None


def test_an_unknown_format(graph: ResourceGraph) -> None:
    with pytest.raises(ValueError, match=r"one of simple, jgf, .*, found 'yaml'"):
        create_writer("yaml", graph)


def test_equal_nodes_are_told_together(graph: ResourceGraph, walk: Walk) -> None:
    writer = create_writer("rlite", graph)
    everything = ["core0", "core1", "gpu0"]
    walk(writer, [f"/c0/n{n}/{name}" for n in range(2) for name in everything])
    assert writer.emit() == '[{"rank": "0-1", "children": {"core": "0-1", "gpu": "0"}}]\n'
    walk(writer, ["/c0/n0/core1", "/c0/n1/gpu0"])
    assert writer.emit() == (
        '[{"rank": "0", "children": {"core": "1"}}, {"rank": "1", "children": {"gpu": "0"}}]\n'
    )
    # What comes first is the order of the children's text, where a comma is before a brace.
    walk(writer, ["/c0/n0/core1", "/c0/n1/core1", "/c0/n1/gpu0"])
    assert writer.emit() == (
        '[{"rank": "1", "children": {"core": "1", "gpu": "0"}}, '
        '{"rank": "0", "children": {"core": "1"}}]\n'
    )


def test_what_r_does_not_tell(graph: ResourceGraph, walk: Walk) -> None:
    for format in ("rlite", "rv1", "rv1_nosched"):
        writer = create_writer(format, graph)
        walk(writer, ["/c0/n0/memory0"])
        assert writer.emit() == ""
        # Nor does it come out later, and neither do cores that were under no node.
        writer.vertex(1, graph.find_path("/c0/n0/core0")[0], 1, True, False)
        assert writer.emit() == ""
        walk(writer, ["/c0/n1/core1"])
        assert '"core": "1"' in writer.emit()


def test_properties(graph: ResourceGraph, walk: Walk) -> None:
    for n in range(2):
        graph.properties[graph.find_path(f"/c0/n{n}")[0]] = {"tier": "fast", "big": ""}
    writer = create_writer("rv1", graph)
    walk(writer, ["/c0/n0/core0", "/c0/n1/core0"])
    found = writer.emit()
    assert '"nodelist": ["n[0-1]"], "properties": {"big": "0-1", "tier=fast": "0-1"}, "st' in found
    assert '"rank": 0, "properties": {"big": "", "tier": "fast"}, "paths"' in found


def test_units_labels_and_totals(graph: ResourceGraph) -> None:
    memory = graph.find_path("/c0/n0/memory0")[0]
    writer = create_writer("jgf", graph)
    writer.vertex(3, memory, 2, True, False, labels={"label": "hot"}, extra={"z": "0", "a": "1"})
    assert writer.emit() == (
        '{"graph": {"nodes": [{"id": "7", "metadata": {"type": "memory", "id": 0, "rank": 0, '
        '"unit": "GB", "exclusive": true, "size": 2, '
        '"paths": {"containment": "/c0/n0/memory0"}, "ephemeral": {"label": "hot"}, '
        '"agfilter": {"a": "1", "z": "0"}}}], "edges": []}}\n'
    )


def test_another_subsystem_and_a_name_without_id(graph: ResourceGraph) -> None:
    pdu, grid = graph.find_path("/grid/pdu0")[0], graph.find_path("/grid")[0]
    writer = create_writer("jgf", graph)
    writer.vertex(2, pdu, 3, False, False)
    writer.edge(1, graph.edges_from(grid)[0], False)
    writer.vertex(1, grid, 1, False, False)
    found = writer.emit()
    assert '"source": "1", "target": "2", "metadata": {"subsystem": "power"}}' in found
    assert '{"type": "grid", "name": "grid", "id": -1, "rank": -1, "paths"' in found


def test_shorthand_leaves_out_what_a_whole_vertex_has(graph: ResourceGraph) -> None:
    node = graph.find_path("/c0/n0")[0]
    edges = graph.edges_from(node, "containment")
    for format in ("jgf_shorthand", "rv1_shorthand"):
        writer = create_writer(format, graph)
        writer.vertex(3, graph.target(edges[0]), 1, True, True)
        writer.edge(2, edges[0], True)
        writer.vertex(2, node, 1, True, False)
        found = json.loads(writer.emit())
        found = found.get("scheduling", found)
        assert [x["id"] for x in found["graph"]["nodes"]] == ["3"]
        assert found["graph"]["edges"] == []
        assert found["writer"] == "fluxion:jgf_shorthand"
        writer.vertex(3, graph.target(edges[0]), 1, True, False)
        writer.vertex(2, node, 1, False, False)
        assert "writer" not in writer.emit()


def test_attributes_belong_to_their_request(graph: ResourceGraph, walk: Walk) -> None:
    writer = create_writer("rv1", graph)
    writer.attribute("queue", "batch")
    walk(writer, ONE_CORE)
    assert writer.emit().endswith(
        '}]}}, "attributes": {"system": {"scheduler": {"queue": "batch"}}}}\n'
    )
    walk(writer, ONE_CORE)
    assert "attributes" not in writer.emit()


@pytest.mark.parametrize("format", ["rlite", "rv1", "rv1_nosched"])
def test_r_needs_ranks_and_ids(format: str) -> None:
    graph = ResourceGraph()
    node = graph.add_vertex("node", "n", 0)
    core = graph.add_vertex("core", "core", 0)
    other = graph.add_vertex("core", "core")
    graph.set_root("containment", node)
    graph.add_edge(node, core)
    graph.add_edge(node, other)
    graph.freeze()
    writer = create_writer(format, graph)
    writer.replay([core, node], [2, 1], [1, 1], [EXCLUSIVE, 0])
    assert writer.emit() == ""
    writer.replay([core, node], [2, 1], [1, 1], [EXCLUSIVE, 0])
    with pytest.raises(WriterError, match="n0 has no rank"):
        writer.emit_json()
    writer.replay([other, node], [2, 1], [1, 1], [EXCLUSIVE, 0])
    with pytest.raises(WriterError, match="a core of n0 has no id"):
        writer.emit_json()


@pytest.mark.parametrize("format", FORMATS)
def test_a_replay_is_the_calls_in_its_rows(graph: ResourceGraph, format: str) -> None:
    node = graph.find_path("/c0/n0")[0]
    edge = graph.edges_from(node, "containment")[0]
    both = EXCLUSIVE | EXCLUSIVE_PARENT
    writer = create_writer(format, graph)
    writer.replay(
        [graph.target(edge), ~edge, node], [3, 2, 2], [1, 1, 1], [both, EXCLUSIVE_PARENT, 1]
    )
    replayed = writer.emit()
    writer.vertex(3, graph.target(edge), 1, True, True)
    writer.edge(2, edge, True)
    writer.vertex(2, node, 1, True, False)
    assert writer.emit() == replayed != ""


def test_a_changed_graph_is_told_as_it_is(graph: ResourceGraph, walk: Walk) -> None:
    writer = create_writer("jgf", graph)
    walk(writer, ONE_CORE)
    before = writer.emit()
    rack = graph.add_vertex("rack", "rack", 0)
    graph.remove([graph.find_path("/c0")[0]])
    graph.set_root("containment", rack)
    graph.add_edge(rack, graph.of_type("node")[1])
    graph.freeze()
    writer.vertex(3, 10, 1, True, False)
    assert "/c0/n1/core1" in before
    assert '"/rack0/n1/core1"' in writer.emit()


def test_the_whole_graph(graph: ResourceGraph) -> None:
    graph.set_status(4, DOWN)
    graph.properties[3] = {"b": "", "a": "1"}
    found = to_jgf(graph)["graph"]
    nodes = {node["id"]: node["metadata"] for node in found["nodes"]}
    assert len(nodes) == graph.n_vertices
    assert nodes["1"] == {
        "type": "grid",
        "name": "grid",
        "id": -1,
        "rank": -1,
        "paths": {"power": "/grid"},
    }
    assert nodes["2"]["size"] == 3
    assert nodes["2"]["unit"] == "kW"
    assert nodes["4"]["status"] == DOWN
    assert list(nodes["3"]["properties"].items()) == [("a", "1"), ("b", "")]
    assert len(found["edges"]) == graph.n_edges
    assert {"source": "2", "target": "8", "metadata": {"subsystem": "power"}} in found["edges"]
    assert {"source": "0", "target": "8"} in found["edges"]
