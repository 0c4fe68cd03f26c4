"""RFC 31 and RFC 35: their examples, and node-by-node evaluation as the oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats import constraint
from flux_mpi.formats.constraint import ConstraintError, evaluate, matching_ranks, validate
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec, JobspecError
from flux_mpi.formats.rv1 import RSet

HOSTS = {0: "n0", 1: "n1", 2: "n2", 3: "n2", 4: "login", 5: "n5"}
PROPERTIES = {"ssd": IDSet([1, 2]), "huge": IDSet([3]), "slowgpu": IDSet([0, 5])}
MACHINE = RSet({rank: IDSet([0]) for rank in HOSTS}, None, HOSTS, properties=PROPERTIES)

terms = st.one_of(
    st.builds(
        lambda values: {"properties": values},
        st.lists(
            st.sampled_from(["ssd", "^ssd", "huge", "slowgpu", "none", "^none", "n1"]), max_size=3
        ),
    ),
    st.builds(
        lambda values: {"hostlist": values},
        st.lists(st.sampled_from(["n[0-2]", "login", "n[1-1000000000]", "x", ""]), max_size=2),
    ),
    st.builds(
        lambda values: {"ranks": values},
        st.lists(st.sampled_from(["0", "1-3", "4-99", ""]), max_size=2),
    ),
    st.just({}),
)
constraints = st.recursive(
    terms,
    lambda inner: st.builds(
        lambda operator, values: {operator: values},
        st.sampled_from(["and", "or", "not"]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)


def node_by_node(obj: dict[str, Any]) -> list[int]:
    return [
        rank
        for rank, host in HOSTS.items()
        if evaluate(
            obj,
            properties={name for name, ranks in PROPERTIES.items() if rank in ranks},
            hostname=host,
            rank=rank,
        )
    ]


@pytest.mark.parametrize(
    ("obj", "ranks"),
    [
        ({"properties": ["ssd"]}, [1, 2]),
        ({"properties": ["^slowgpu"]}, [1, 2, 3, 4]),
        ({"not": [{"properties": ["slowgpu"]}]}, [1, 2, 3, 4]),
        ({"or": [{"properties": ["ssd"]}, {"properties": ["huge"]}]}, [1, 2, 3]),
        ({"hostlist": ["n[0-1]"]}, [0, 1]),
        ({"not": [{"hostlist": ["n[0-1]"]}]}, [2, 3, 4, 5]),
        ({"and": [{"hostlist": ["n[0-1]"]}, {"properties": ["ssd"]}]}, [1]),
        ({"ranks": ["0"]}, [0]),
        ({"not": [{"properties": ["ssd", "huge"]}]}, [0, 1, 2, 3, 4, 5]),
        ({"properties": ["login"]}, [4]),
        ({"hostlist": ["n2"]}, [2, 3]),
        ({"and": []}, [0, 1, 2, 3, 4, 5]),
        ({"or": []}, [0, 1, 2, 3, 4, 5]),
        ({"not": []}, []),
        ({}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_examples_of_rfc_31(obj: dict[str, Any], ranks: list[int]) -> None:
    validate(obj)
    assert node_by_node(obj) == ranks
    assert list(matching_ranks(obj, MACHINE)) == ranks


@given(constraints)
def test_all_at_once_is_node_by_node(obj: dict[str, Any]) -> None:
    validate(obj)
    assert list(matching_ranks(obj, MACHINE)) == node_by_node(obj)


def test_canonical_text_is_equal_for_equal_constraints() -> None:
    assert constraint.canonical({"properties": ["a", "é"]}) == '{"properties":["a","\\u00e9"]}'
    assert constraint.canonical({}) == constraint.canonical(None) == ""


DEEP: dict[str, Any] = {"ranks": ["0"]}
for _ in range(10_000):
    DEEP = {"not": [DEEP]}


@pytest.mark.parametrize(
    ("obj", "complaint"),
    [
        (None, "expected an object"),
        ([], "expected an object"),
        ({"properties": ["a"], "ranks": ["0"]}, "expected one operator, found 2"),
        ({"colour": ["red"]}, "unknown operator 'colour', expected one of properties"),
        ({"properties": "ssd"}, "properties: expected a list"),
        ({"properties": [1]}, "properties: expected strings, found 1"),
        ({"properties": ["a|b"]}, r"invalid character '\|' in property"),
        ({"properties": ["a^b"]}, r"invalid character '\^'"),
        ({"properties": ["^"]}, "empty name"),
        ({"properties": [""]}, "empty name"),
        ({"ranks": ["x"]}, "ranks: idset 'x'"),
        ({"ranks": [0]}, "ranks: expected strings"),
        ({"hostlist": ["a["]}, "hostlist: hostlist"),
        ({"and": {}}, "and: expected a list"),
        ({"and": ["ssd"]}, "expected an object"),
        ({"or": [{"not": [{"x": []}]}]}, "unknown operator"),
        (DEEP, "nested deeper than 64"),
    ],
)
def test_what_is_no_constraint_is_refused(obj: Any, complaint: str) -> None:
    with pytest.raises(ConstraintError, match=complaint) as caught:
        validate(obj)
    assert len(str(caught.value)) < 250
    with pytest.raises(ConstraintError):
        matching_ranks(obj, MACHINE)


def test_a_jobspec_carries_a_checked_constraint() -> None:
    spec = Jobspec.from_command(["a"], constraints={"properties": ["ssd"]})
    assert spec.constraints == {"properties": ["ssd"]}
    assert spec.shape.constraint == '{"properties":["ssd"]}'
    with pytest.raises(JobspecError, match="unknown operator") as caught:
        Jobspec.from_command(["a"], constraints={"x": []})
    assert caught.value.field == "attributes.system.constraints"


def name(value: str) -> dict[str, Any]:
    return {"name": [value]}


@pytest.mark.parametrize(
    ("query", "obj"),
    [
        ("foo", name("foo")),
        ("foo bar", {"and": [name("foo"), name("bar")]}),
        ("foo bar state:started", {"and": [name("foo"), name("bar"), {"state": ["started"]}]}),
        ("a|b|c", {"or": [name("a"), name("b"), name("c")]}),
        ("a|b&c", {"or": [name("a"), {"and": [name("b"), name("c")]}]}),
        ("(a|b)&c", {"and": [{"or": [name("a"), name("b")]}, name("c")]}),
        ("(a|-b)&c", {"and": [{"or": [name("a"), {"not": [name("b")]}]}, name("c")]}),
        ("a || b && c", {"or": [name("a"), {"and": [name("b"), name("c")]}]}),
        ("a or b and not c", {"or": [name("a"), {"and": [name("b"), {"not": [name("c")]}]}]}),
        ("not (a b)", {"not": [{"and": [name("a"), name("b")]}]}),
        ("not not a", {"not": [{"not": [name("a")]}]}),
        ("-op:x", {"not": [{"op": ["x"]}]}),
        ("foo:'this is args'", {"foo": ["this is args"]}),
        ('foo:"a|b"', {"foo": ["a|b"]}),
        ("'a b'", name("a b")),
        ("'a:b'", name("a:b")),
        ("  a  ", name("a")),
        ("android orbit notes", {"and": [name("android"), name("orbit"), name("notes")]}),
        ("((a))", name("a")),
        ("a(b)", {"and": [name("a"), name("b")]}),
        ("t:a:b", {"t": ["a:b"]}),
    ],
)
def test_the_queries_of_rfc_35(query: str, obj: dict[str, Any]) -> None:
    assert constraint.parse_query(query, default="name") == obj


@pytest.mark.parametrize(
    ("query", "obj"),
    [
        ("a b c", {"properties": ["a", "b", "c"]}),
        ("a&b&c", {"properties": ["a", "b", "c"]}),
        ("a,b,c", {"properties": ["a", "b", "c"]}),
        ("^a", {"properties": ["^a"]}),
        (
            "(a and b) or (b and c)",
            {"or": [{"properties": ["a", "b"]}, {"properties": ["b", "c"]}]},
        ),
        ("b|-c", {"or": [{"properties": ["b"]}, {"not": [{"properties": ["c"]}]}]}),
        ("host:fluke[1-5]", {"hostlist": ["fluke[1-5]"]}),
        ("hosts:fluke[1,3]", {"hostlist": ["fluke[1,3]"]}),
        ("-host:fluke7", {"not": [{"hostlist": ["fluke7"]}]}),
        ("rank:0", {"ranks": ["0"]}),
        ("a rank:0-3 b", {"and": [{"properties": ["a", "b"]}, {"ranks": ["0-3"]}]}),
    ],
)
def test_the_queries_of_requires(query: str, obj: dict[str, Any]) -> None:
    assert constraint.parse(query) == obj


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("", "unexpected end at position 0"),
        ("a |", "unexpected end"),
        ("| a", "unexpected '|' at position 0"),
        ("a & & b", "unexpected '&' at position 4"),
        ("(a", "unclosed parenthesis at position 0"),
        ("a)", r"unexpected '\)' at position 1"),
        ("()", r"unexpected '\)'"),
        ("not", "unexpected end"),
        ("-(a|b)", "expected a term after '-'"),
        ("- a", "expected a term after '-'"),
        ("'a", "unclosed quote ' at position 0"),
        ("a:'b", "unclosed quote ' at position 2"),
        ("host:", "missing value"),
        (":x", "missing operator"),
        ("h/o:x", "invalid character '/' in operator"),
        ("colour:red", "unknown operator 'colour'"),
        ("rank:x", "ranks: idset"),
        ("host:a[", "one pair of brackets"),
        ("a!b", "invalid character '!'"),
        ("(" * 10_000 + "a" + ")" * 10_000, "nesting deeper"),
        ("not " * 10_000 + "a", "nesting deeper"),
    ],
)
def test_bad_queries_are_refused_with_their_place(query: str, complaint: str) -> None:
    with pytest.raises(ConstraintError, match=complaint) as caught:
        constraint.parse(query)
    assert len(str(caught.value)) < 250


def test_a_term_needs_an_operator_when_there_is_no_default() -> None:
    with pytest.raises(ConstraintError, match="missing operator"):
        constraint.parse_query("a")


@given(st.text(st.sampled_from("ab:&|()'\" -^not"), max_size=15))
def test_any_query_parses_or_says_why(query: str) -> None:
    try:
        obj = constraint.parse(query)
    except ConstraintError:
        return
    validate(obj)
