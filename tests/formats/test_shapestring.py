"""RFC 46: the strings that stand for RFC 14's use cases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.formats.shapestring import ShapeStringError, parse


def vertex(kind: str, count: Any = 1, *children: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": kind, "count": count, **more, **({"with": list(children)} if children else {})}


def slot(count: Any, *children: dict[str, Any], label: str = "default") -> dict[str, Any]:
    return vertex("slot", count, *children, label=label)


USE_CASES = [
    ("slot=4/node", [slot(4, vertex("node"))]),
    (
        "slot=3-30/node",
        [slot({"min": 3, "max": 30, "operator": "+", "operand": 1}, vertex("node"))],
    ),
    (
        "slot=4{nodelevel}/node{-x}/socket=2+/core=4+",
        [
            slot(
                4,
                vertex(
                    "node",
                    1,
                    vertex("socket", {"min": 2}, vertex("core", {"min": 4})),
                    exclusive=False,
                ),
                label="nodelevel",
            )
        ],
    ),
    (
        "slot=4{nodelevel}/node/socket=2/core=4",
        [slot(4, vertex("node", 1, vertex("socket", 2, vertex("core", 4))), label="nodelevel")],
    ),
    (
        "[cluster/slot=2{ib}/node/[memory=4{unit:GB};ib10g];switch/slot=2{bicore}/node/core=2]",
        [
            vertex(
                "cluster",
                1,
                slot(
                    2,
                    vertex("node", 1, vertex("memory", 4, unit="GB"), vertex("ib10g")),
                    label="ib",
                ),
            ),
            vertex("switch", 1, slot(2, vertex("node", 1, vertex("core", 2)), label="bicore")),
        ],
    ),
    (
        "cluster=2/slot/node=1+{-x}/core=30",
        [
            vertex(
                "cluster",
                2,
                slot(1, vertex("node", {"min": 1}, vertex("core", 30), exclusive=False)),
            )
        ],
    ),
    ("slot=4,9,16,25/node", [slot("4,9,16,25", vertex("node"))]),
    ("slot=10/core=2", [slot(10, vertex("core", 2))]),
    (
        "node/[slot=10{read-db}/[core;memory=4{unit:GB}];slot{db}/[core=6;memory=24{unit:GB}]]",
        [
            vertex(
                "node",
                1,
                slot(10, vertex("core"), vertex("memory", 4, unit="GB"), label="read-db"),
                slot(1, vertex("core", 6), vertex("memory", 24, unit="GB"), label="db"),
            )
        ],
    ),
    (
        "slot=10/[memory=2+{unit:GB};core]",
        [slot(10, vertex("memory", {"min": 2}, unit="GB"), vertex("core"))],
    ),
    (
        "slot=2{4GB-node}/node/memory=4+{unit:GB}",
        [slot(2, vertex("node", 1, vertex("memory", {"min": 4}, unit="GB")), label="4GB-node")],
    ),
    ("slot/node", [slot(1, vertex("node"))]),
]


@pytest.mark.parametrize(("text", "resources"), USE_CASES)
def test_the_use_cases_of_the_rfc(text: str, resources: list[dict[str, Any]]) -> None:
    assert parse(text) == resources
    assert parse(f" {text} ") == resources
    labels = [v["label"] for v in _walk(resources) if v["type"] == "slot"]
    Jobspec.parse(
        {
            "version": 999,
            "resources": parse(text),
            "tasks": [{"command": ["a"], "slot": labels[0], "count": {"per_slot": 1}}],
            "attributes": {},
        }
    )


def _walk(vertices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [v for top in vertices for v in [top, *_walk(top.get("with", []))]]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a{x}", {"exclusive": True}),
        ("a{+x}", {"exclusive": True}),
        ("a{-exclusive}", {"exclusive": False}),
        ("a{x:false}", {"exclusive": False}),
        ("a{}", {}),
        ("a{k:1,l:-2.5e3,m:true,n:null}", {"k": 1, "l": -2500.0, "m": True, "n": None}),
        ('a{k:"x y,z"}', {"k": "x y,z"}),
        ('a{"k l":1}', {"k l": 1}),
        ('a{k:"1"}', {"k": "1"}),
        ("a{k:[1,[],b,{c:d,-e}]}", {"k": [1, [], "b", {"c": "d", "e": False}]}),
        ("a{k:{}}", {"k": {}}),
        ('a{k:"\\u00e9\\""}', {"k": 'é"'}),
    ],
)
def test_keys_and_values(text: str, keys: dict[str, Any]) -> None:
    assert parse(text) == [{"type": "a", "count": 1, **keys}]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a=7", 7),
        ("a=[7]", 7),
        ("a=[4,9]", "4,9"),
        ("a=1-2,4", "1-2,4"),
        ("a=100+", {"min": 100}),
        ("a=2+:2:*", {"min": 2, "operator": "*", "operand": 2}),
        ("a=[2-16:2:^]", {"min": 2, "max": 16, "operator": "^", "operand": 2}),
        ("a=1-9:2", {"min": 1, "max": 9, "operator": "+", "operand": 2}),
    ],
)
def test_counts(text: str, count: Any) -> None:
    assert parse(text) == [{"type": "a", "count": count}]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a resource type at position 0, found its end"),
        ("/", "expected a resource type"),
        ("slot", "what the slot contains"),
        ("slot=4", "what the slot contains"),
        ("slot{a", "the slot's label first, then , or }"),
        ("slot{}/core", "the slot's label first"),
        ("slot{x:1}/core", "the slot's label first, then"),
        ("[slot/core;slot{b}/core]", "1 of 2 slots have no label"),
        ("[a;b", "; or ]"),
        ("[a,b]", "; or ]"),
        ("a]", "nothing more"),
        ("a;b", "nothing more"),
        ("a=", "expected a count"),
        ("a=0", "count '0'"),
        ("a=x", "count 'x'"),
        ("a=3-1", "count '3-1'"),
        ("a/", "expected a resource type"),
        ("a{k:}", "expected a value"),
        ("a{k:1", ", or }"),
        ("a{k:1,k:2}", "no second 'k'"),
        ("a{x,exclusive:true}", "no second 'exclusive'"),
        ("a{count:3}", "no 'count' in braces"),
        ('a{k:"x}', "closing quote"),
        ('"\\q"', "JSON string"),
        ('""', "expected a resource type"),
        ("a{k:[1}", ", or ]"),
        ("a/" * 5000 + "b", "at most 60 levels"),
        ("[" * 5000, "expected a resource type"),
        ("a{k:" + "[" * 5000, "at most 60 levels"),
        ("a{k:" * 3 + "{k:" * 5000, "expected"),
    ],
)
def test_bad_strings_are_refused_with_their_place(text: str, complaint: str) -> None:
    with pytest.raises(ShapeStringError) as caught:
        parse(text)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.text(st.sampled_from('[]{};/=:,"+-x1a '), max_size=15))
def test_any_text_parses_or_says_why(text: str) -> None:
    try:
        vertices = parse(text)
    except ShapeStringError:
        return
    assert all(v["type"] and v["count"] for v in _walk(vertices))
