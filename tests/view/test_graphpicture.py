"""Pictures of resource graphs: what is drawn, where, and in which colour."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.view import graphpicture
from flux_mpi.view.graphlayout import cut, drawn, place, shorten
from flux_mpi.view.graphpicture import PictureError, draw, write
from flux_mpi.view.graphtree import Box, read

SVG = "{http://www.w3.org/2000/svg}"

Document = dict[str, Any]


class Maker:
    """Builds JGF; ids are numbers in the order of vertices."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[dict[str, Any]] = []

    def add(
        self, type: str, id: int, parent: str | None = None, subsystem: str = "", **more: Any
    ) -> str:
        number = str(len(self.nodes))
        self.nodes.append({"id": number, "metadata": {"type": type, "id": id, **more}})
        if parent is not None:
            self.edge(parent, number, subsystem)
        return number

    def edge(self, source: str, target: str, subsystem: str = "") -> None:
        edge: dict[str, Any] = {"source": source, "target": target}
        if subsystem:
            edge["metadata"] = {"subsystem": subsystem}
        self.edges.append(edge)

    @property
    def document(self) -> Document:
        return {"graph": {"nodes": self.nodes, "edges": self.edges}}


def cluster(nodes: int = 2, cores: int = 4) -> Document:
    """``/cluster0/node*/core*`` with a GPU and 8 GB each, and a pdu for all."""
    make = Maker()
    top = make.add("cluster", 0)
    pdu = make.add("pdu", 0, size=10, unit="kW", paths={"power": "/pdu0"})
    for n in range(nodes):
        node = make.add("node", n, top)
        make.edge(pdu, node, "power")
        for c in range(cores):
            make.add("core", c, node)
        make.add("gpu", 0, node)
        make.add("memory", 0, node, size=8, unit="GB")
    return make.document


def rects(svg: str) -> dict[str, ET.Element]:
    """What is drawn, by its path."""
    found = {}
    for rect in ET.fromstring(svg).iter(f"{SVG}rect"):
        title = rect.find(f"{SVG}title")
        if title is not None and title.text:
            found[title.text.split(" · ")[0]] = rect
    return found


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]


def inside(box: ET.Element, other: ET.Element) -> bool:
    x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
    x2, y2, w2, h2 = (float(other.attrib[key]) for key in ("x", "y", "width", "height"))
    return x2 <= x and y2 <= y and x + w <= x2 + w2 + 0.2 and y + h <= y2 + h2 + 0.2


def test_every_core_is_a_box_in_its_node() -> None:
    found = rects(draw(cluster(), {}, title="two"))
    for n in range(2):
        node = found[f"/cluster0/node{n}"]
        assert inside(node, found["/cluster0"])
        for c in range(4):
            assert inside(found[f"/cluster0/node{n}/core{c}"], node)
        assert inside(found[f"/cluster0/node{n}/memory0"], node)


def test_colours_of_jobs_and_states() -> None:
    states: dict[str, dict[str, Any]] = {
        "3": {"jobs": {"ƒ1": 1}},
        "4": {"jobs": {"ƒ2": 1}},
        "5": {"reserved": {"ƒ3": 1}},
        "6": {"status": "down"},
        "9": {"status": "drained"},
    }
    svg = draw(cluster(), states, title="two")
    found = rects(svg)
    fills = [found[f"/cluster0/node0/core{c}"].attrib["fill"] for c in range(4)]
    assert len(set(fills)) == 4
    assert fills[2].startswith("url(#")
    assert fills[2][4:-1].lstrip("#") in re.findall(r'<pattern id="(\w+)"', svg)
    free = found["/cluster0/node0/gpu0"].attrib["fill"]
    drained = {found[f"/cluster0/node1/core{c}"].attrib["fill"] for c in range(4)}
    assert len(drained) == 1
    assert not drained & {free, *fills}
    words = texts(svg)
    assert {"ƒ1", "ƒ2", "ƒ3", "1 core", "reserved", "drained", "down", "power"} <= set(words)
    assert "8 cores (1 free)" in next(text for text in words if "1 cluster" in text)


def test_a_job_keeps_its_colour_in_a_part() -> None:
    states = {"3": {"jobs": {"ƒ1": 1}}, "10": {"jobs": {"ƒ2": 1}}}
    path = "/cluster0/node1/core0"
    whole = rects(draw(cluster(), states, title=""))[path].attrib["fill"]
    part = draw(cluster(), states, title="", root="/cluster0/node1")
    assert rects(part)[path].attrib["fill"] == whole
    assert "ƒ1" not in texts(part)


def test_what_a_job_has_as_a_whole_it_has_below() -> None:
    states = {"2": {"jobs": {"ƒ1": 1}, "exclusive": True}, "9": {"jobs": {"ƒ1": 1}}}
    svg = draw(cluster(), states, title="")
    fills = {path: rect.attrib["fill"] for path, rect in rects(svg).items()}
    assert fills["/cluster0/node0/core3"] == fills["/cluster0/node0/memory0"]
    assert fills["/cluster0/node1/core0"] != fills["/cluster0/node0/core0"]
    assert "4 cores, 1 gpu, 8 GB memory" in texts(svg)


def test_the_part_below_a_path() -> None:
    found = rects(draw(cluster(), {}, title="", root="/cluster0/node1"))
    assert "/cluster0/node1/core0" in found
    assert "/cluster0/node0" not in found
    # A path of another subsystem: what hangs on the pdu lies in it.
    found = rects(draw(cluster(), {}, title="", root="/pdu0"))
    assert inside(found["/pdu0/node1/core0"], found["/pdu0/node1"])
    assert inside(found["/pdu0/node1"], found["/pdu0"])
    with pytest.raises(
        PictureError, match=r"no vertex has the path /x; paths begin with /cluster0"
    ):
        draw(cluster(), {}, title="", root="x")


def test_what_is_deeper_is_summed_up() -> None:
    svg = draw(cluster(), {"3": {"jobs": {"ƒ1": 1}}}, title="", depth=1)
    found = rects(svg)
    assert set(found) == {"/cluster0", "/cluster0/node0", "/cluster0/node1", "/pdu0"}
    assert {"1/4", "0/4", "0/8"} <= set(texts(svg))
    assert set(rects(draw(cluster(), {}, title="", depth=0))) == {"/cluster0", "/pdu0"}
    with pytest.raises(PictureError, match="depth: expected 0 or more, found -1"):
        draw(cluster(), {}, title="", depth=-1)


@pytest.mark.parametrize("nodes", [30, 300, 2000])
def test_many_nodes(monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    monkeypatch.setattr("flux_mpi.view.graphlayout.MAX_BOXES", nodes + 5)
    svg = draw(cluster(nodes, 2), {"3": {"jobs": {"ƒ1": 1}}}, title="many")
    found = rects(svg)
    assert len(found) == nodes + 2
    assert f"{nodes:,} nodes" in "".join(texts(svg))


def test_lines_of_other_subsystems() -> None:
    def lines(svg: str) -> int:
        return len(list(ET.fromstring(svg).iter(f"{SVG}circle")))

    assert lines(draw(cluster(3), {}, title="")) == 3
    # A chain of two outside of the cluster is drawn, what leads nowhere is not.
    make = Maker()
    top = make.add("cluster", 0)
    node = make.add("node", 0, top)
    panel = make.add("panel", 0)
    pdu = make.add("pdu", 0, panel, "power")
    make.edge(pdu, node, "power")
    make.add("pdu", 1, panel, "power")
    svg = draw(make.document, {}, title="")
    assert {"/panel0", "/pdu0"} <= set(rects(svg))
    assert "/pdu1" not in rects(svg)
    assert lines(svg) == 2


def test_too_many_lines_lead_to_what_contains_their_ends() -> None:
    make = Maker()
    top = make.add("cluster", 0)
    pdu = make.add("pdu", 0)
    for r in range(3):
        rack = make.add("rack", r, top)
        for n in range(200):
            make.edge(pdu, make.add("node", n, rack), "power")
    svg = draw(make.document, {}, title="")
    assert len(list(ET.fromstring(svg).iter(f"{SVG}circle"))) == 3


def test_odd_names() -> None:
    make = Maker()
    top = make.add("cluster", 0, name="<&\"'\x00\ud800" + "x" * 100_000)
    make.add("node", -1, top)
    svg = draw(make.document, {}, title="a < b & \x01")
    ET.fromstring(svg.encode())
    assert len(svg) < 20_000


@pytest.mark.parametrize(
    ("document", "states", "told"),
    [
        ({}, {}, "graph.nodes: expected a list, found NoneType"),
        ({"graph": {"nodes": [], "edges": []}}, {}, "graph.nodes: expected at least one"),
        ({"graph": {"nodes": [{"id": "1"}], "edges": []}}, {}, r"graph.nodes\[0\]: expected an o"),
        (
            {"graph": {"nodes": [{"id": "1", "metadata": {}}] * 2, "edges": []}},
            {},
            r"graph.nodes\[1\]: expected ids that differ",
        ),
        (
            {"graph": {"nodes": [{"id": "1", "metadata": {}}], "edges": [{"source": "1"}]}},
            {},
            r"graph.edges\[0\]: expected ids of vertices, found '1' and None",
        ),
        (
            {"graph": {"nodes": [{"id": "1", "metadata": {"size": -1}}], "edges": []}},
            {},
            "size of .*: expected an integer, 0 or more, found '-1'",
        ),
        (cluster(1), {"2": {"status": "gone"}}, "status of node0: expected up, drained, down"),
        (cluster(1), {"2": {"jobs": ["ƒ1"]}}, "jobs of node0: expected units by job"),
    ],
)
def test_what_is_no_graph(document: Document, states: Any, told: str) -> None:
    with pytest.raises(PictureError, match=told):
        draw(document, states, title="")


def test_a_cycle_ends() -> None:
    make = Maker()
    top = make.add("cluster", 0)
    node = make.add("node", 0, top)
    make.edge(node, top)
    with pytest.raises(PictureError, match="expected a vertex that no other contains"):
        draw(make.document, {}, title="")
    make.edge(make.add("site", 0), top)
    assert "/site0/cluster0/node0" in rects(draw(make.document, {}, title=""))


def test_files(tmp_path: Path) -> None:
    svg = draw(cluster(), {}, title="two")
    path = tmp_path / "a.svg"
    write(str(path), svg)
    assert path.read_text(encoding="utf-8") == svg
    with pytest.raises(PictureError, match=r"a.svg exists; not overwritten without --force"):
        write(str(path), "other")
    assert path.read_text(encoding="utf-8") == svg
    write(str(path), "other", force=True)
    assert path.read_text() == "other"
    with pytest.raises(PictureError, match=r"expected a name that ends in .svg or .png"):
        write(str(tmp_path / "a.gif"), svg)


def test_png_needs_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(graphpicture, "import_module", missing)
    with pytest.raises(PictureError, match=r"flux-mpi\[pictures\]"):
        write(str(tmp_path / "a.png"), draw(cluster(), {}, title=""))
    assert not list(tmp_path.iterdir())


def test_png(tmp_path: Path) -> None:
    pytest.importorskip("cairosvg", exc_type=(ImportError, OSError))
    path = tmp_path / "a.png"
    write(str(path), draw(cluster(), {"5": {"reserved": {"ƒ3": 1}}}, title="two"))
    assert path.read_bytes().startswith(b"\x89PNG")


@st.composite
def nests(draw_from: st.DrawFn) -> Document:
    """A random tree: each vertex below an earlier one."""
    make = Maker()
    make.add("cluster", 0)
    types = st.sampled_from(["rack", "node", "core", "core", "core", "gpu", "memory"])
    for i in range(1, draw_from(st.integers(2, 40))):
        parent = str(draw_from(st.integers(0, i - 1)))
        make.add(draw_from(types), i, parent, size=draw_from(st.sampled_from([1, 1, 64])))
    return make.document


def pairs(boxes: list[Box]) -> Iterator[tuple[Box, Box]]:
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            yield one, other


@given(nests(), st.one_of(st.none(), st.integers(0, 4)))
def test_boxes_lie_in_their_parent_and_apart(document: Document, depth: int | None) -> None:
    roots = read(document, {}, None).roots
    cut(roots, depth)
    place(roots, 10, 20)
    for box in drawn(roots):
        if box.tile:
            continue
        for child in box.children:
            assert box.x < child.x
            assert box.y < child.y
            assert child.x + child.w < box.x + box.w
            assert child.y + child.h < box.y + box.h
        for one, other in pairs(box.children):
            assert (
                one.x + one.w <= other.x + 0.01
                or other.x + other.w <= one.x + 0.01
                or one.y + one.h <= other.y + 0.01
                or other.y + other.h <= one.y + 0.01
            )
    assert roots[0].x == 10
    assert roots[0].y == 20


@given(st.text(max_size=30), st.floats(0, 300))
def test_shortened_text_fits(text: str, width: float) -> None:
    found = shorten(text, 10, width)
    assert len(found) * 6.1 <= width + 0.01 or not found
    assert found in (text, "") or found.endswith("…")
