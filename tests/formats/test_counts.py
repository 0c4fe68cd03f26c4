"""RFC 14's counts and RFC 45's ranges, against the lists of numbers that they mean."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.counts import Count


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (4, [4]),
        ("4", [4]),
        ("4,9,16,25", [4, 9, 16, 25]),
        ("[4,9]", [4, 9]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("1-5:2", [1, 3, 5]),
        ("1-5:2:+", [1, 3, 5]),
        ("2-16:2:*", [2, 4, 8, 16]),
        ("[1-4:2:*]", [1, 2, 4]),
        ("2-300:2:^", [2, 4, 16, 256]),
        ({"min": 3, "max": 5}, [3, 4, 5]),
        ({"min": 2, "max": 20, "operator": "*", "operand": 3}, [2, 6, 18]),
    ],
)
def test_counts_mean_numbers(value: Any, members: list[int]) -> None:
    count = Count.parse(value)
    assert list(count.values()) == members
    assert count.minimum == members[0]
    assert count.fixed == (len(members) == 1)
    assert [n for n in range(400) if n in count] == members
    for available in range(400):
        assert count.best(available) == max((m for m in members if m <= available), default=0)
    assert list(Count.parse(str(count)).values()) == members


@pytest.mark.parametrize(
    ("value", "first"),
    [
        ("100+", [100, 101, 102]),
        ("[100+]", [100, 101, 102]),
        ("2+:2:*", [2, 4, 8]),
        ("2+:2:^", [2, 4, 16]),
        ({"min": 3}, [3, 4, 5]),
    ],
)
def test_some_counts_have_no_end(value: Any, first: list[int]) -> None:
    count = Count.parse(value)
    assert count.maximum is None
    assert list(takewhile(lambda n: n <= first[-1], count.values())) == first
    assert count.best(first[-1]) == first[-1]
    assert Count.parse(str(count)) == count
    assert hash(Count.parse(str(count))) == hash(count)


@given(
    st.integers(1, 30),
    st.none() | st.integers(0, 60),
    st.sampled_from("+*^"),
    st.integers(1, 5),
    st.integers(0, 120),
)
def test_ranges_are_their_definition(
    minimum: int, more: int | None, operator: str, operand: int, available: int
) -> None:
    obj = {"min": minimum, "operator": operator, "operand": operand}
    if more is not None:
        obj["max"] = minimum + more
    if (operator != "+" and operand < 2) or (operator == "^" and minimum < 2):
        with pytest.raises(ValueError, match="at least 2"):
            Count.parse(obj)
        return
    count = Count.parse(obj)
    members = []
    value = minimum
    while value <= available and (more is None or value <= minimum + more):
        members.append(value)
        value = {"+": value + operand, "*": value * operand, "^": value**operand}[operator]
    assert count.best(available) == (members[-1] if members else 0)
    assert [n for n in range(available + 1) if n in count] == members
    assert list(takewhile(lambda n: n <= available, Count.parse(str(count)).values())) == members


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (0, "at least 1, found 0"),
        (-1, "at least 1"),
        (True, "found bool"),
        (1.5, "found float"),
        (None, "found NoneType"),
        ([], "found list"),
        ("", "empty set"),
        ("0", "min: expected at least 1"),
        ("0-3", "min: expected at least 1"),
        ("x", "expected a decimal id"),
        ("3-1", "does not ascend"),
        ("+", "expected a positive integer, found ''"),
        ("01+", "expected a positive integer"),
        ("5-3:1", "max: expected at least min"),
        ("1-4:0", "expected a positive integer"),
        ("1-4:1:*", "operand: expected at least 2"),
        ("1-4:2:^", "min: expected at least 2"),
        ("1-4:2:%", "operator: expected one of"),
        ("1-4:2:", "operator: expected one of"),
        ("1-4:2:*:1", "expected min-max:operand:operator"),
        ("4:2", "expected min-max or min+"),
        ({}, "min: it is missing"),
        ({"min": 0}, "min: expected at least 1"),
        ({"min": True}, "min: expected an integer"),
        ({"min": 3, "max": 2}, "max: expected at least"),
        ({"min": 3, "operator": "+"}, "both or neither"),
        ({"min": 3, "operand": 1}, "both or neither"),
        ({"min": 3, "operator": 1, "operand": 1}, "operator: expected one of"),
        ({"min": 3, "operator": "+*", "operand": 1}, "operator: expected one of"),
        ({"min": 3, "step": 1}, "found 'step'"),
        ("9" * 5000 + "+", "expected a positive integer"),
    ],
)
def test_bad_counts_are_refused_with_their_reason(value: Any, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Count.parse(value)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 200
