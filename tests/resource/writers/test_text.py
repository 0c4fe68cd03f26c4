"""Pieces of text, held against the slower ways to make them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import IDSet
from flux_mpi.resource.writers.text import hostlist, idset, json_object, quote

NAMES = st.builds(
    lambda prefix, number, width: f"{prefix}{number:0{width}d}",
    st.sampled_from(["n", "rack-2-", "a.b", "", "n0"]),
    st.integers(0, 120),
    st.integers(1, 3),
)


@given(st.lists(st.integers(0, 40)))
def test_an_idset(ids: list[int]) -> None:
    assert idset(ids) == str(IDSet(ids))


@given(st.lists(NAMES, min_size=1, max_size=6))
def test_a_hostlist(names: list[str]) -> None:
    assert hostlist(names) == str(Hostlist(names))


@given(
    st.sampled_from(["n", "node-", "x1y"]),
    st.integers(0, 110),
    st.integers(1, 30),
    st.integers(0, 4),
)
def test_hosts_in_a_row(prefix: str, first: int, count: int, width: int) -> None:
    names = [f"{prefix}{n:0{width}d}" for n in range(first, first + count)]
    assert hostlist(names) == str(Hostlist(names))


def test_a_name_that_is_a_hostlist() -> None:
    assert hostlist(["a[1-2]", "a3"]) == "a[1-3]"
    with pytest.raises(ValueError, match="unmatched bracket"):
        hostlist(["a]"])


@given(st.text())
def test_a_string(text: str) -> None:
    found = quote(text)
    assert json.loads(found) == text
    # jansson and Python differ in nothing but the digits of control characters.
    assert found.lower() == json.dumps(text, ensure_ascii=False).lower()


def test_a_control_character() -> None:
    assert quote("\x1f\t") == '"\\u001F\\t"'


def test_keys_are_sorted() -> None:
    assert json_object({"b": "2", "B": '"', "é": "", "a": "1"}) == (
        '{"B": "\\"", "a": "1", "b": "2", "é": ""}'
    )
