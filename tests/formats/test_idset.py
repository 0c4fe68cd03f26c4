"""RFC 22: every operation against Python's own set as the oracle."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.idset import EMPTY, MAX_ID, IDSet

ids = st.frozensets(st.integers(0, 80), max_size=40)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("", []),
        ("[]", []),
        ("0", [0]),
        ("1,2,3,5,6,42", [1, 2, 3, 5, 6, 42]),
        ("1-3,5-6,42", [1, 2, 3, 5, 6, 42]),
        ("[1-3,5-6,42]", [1, 2, 3, 5, 6, 42]),
        ("[7]", [7]),
    ],
)
def test_the_spellings_of_the_rfc(text: str, members: list[int]) -> None:
    assert list(IDSet.parse(text)) == members


def test_consecutive_ids_are_printed_as_ranges() -> None:
    assert str(IDSet.parse("1,2,3,5,6,42")) == "1-3,5-6,42"
    assert str(IDSet([5, 4, 5])) == "4-5"
    assert str(EMPTY) == ""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("01", "leading zero"),
        ("1-02", "leading zero"),
        ("3-1", "does not ascend"),
        ("1-1", "does not ascend"),
        ("2,1", "out of order"),
        ("1,1", "out of order"),
        ("1-4,3", "out of order"),
        ("[1", "brackets"),
        ("1]", "brackets"),
        ("[[1]]", "brackets"),
        ("[1],[2]", "brackets"),
        ("a", "expected a decimal id, found 'a'"),
        ("1,", "expected a decimal id, found ''"),
        (",1", "expected a decimal id, found ''"),
        ("1-", "expected a decimal id"),
        ("-1", "expected a decimal id"),
        ("1-2-3", "expected a decimal id, found '2-3'"),
        (" 1", "expected a decimal id"),
        ("+1", "expected a decimal id"),
        ("١", "expected a decimal id"),
        ("²", "expected a decimal id"),
        ("9" * 5000, "is above"),
        (str(MAX_ID + 1), "is above"),
    ],
)
def test_bad_text_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        IDSet.parse(text)
    assert len(str(caught.value)) < 300


def test_only_ints_make_a_set() -> None:
    for wrong in ([1.5], [True], ["1"], [None], "12"):
        with pytest.raises(TypeError):
            IDSet(wrong)  # type: ignore[arg-type]
    for negative in ([-1], range(-1, 2), [MAX_ID + 1]):
        with pytest.raises(ValueError, match="is not in 0"):
            IDSet(negative)
    with pytest.raises(ValueError, match="expected a string"):
        IDSet.parse(7)  # type: ignore[arg-type]


@given(ids)
def test_text_pickle_and_mask_round_trip(members: frozenset[int]) -> None:
    idset = IDSet(members)
    assert list(idset) == sorted(members)
    assert len(idset) == len(members)
    assert bool(idset) == bool(members)
    assert IDSet.parse(str(idset)) == idset
    assert IDSet.parse(idset.bracketed()) == idset
    assert pickle.loads(pickle.dumps(idset)) == idset
    assert idset.mask == sum(1 << i for i in members)
    assert IDSet.from_mask(idset.mask) == idset
    assert IDSet.from_ranges(reversed(list(idset.ranges()))) == idset
    assert hash(IDSet.parse(str(idset))) == hash(idset)


@given(ids, ids)
def test_the_algebra_is_that_of_sets(a: frozenset[int], b: frozenset[int]) -> None:
    left, right = IDSet(a), IDSet(b)
    assert set(left | right) == a | b
    assert set(left & right) == a & b
    assert set(left - right) == a - b
    assert set(left ^ right) == a ^ b
    assert (left <= right) == (a <= b)
    assert left.isdisjoint(right) == a.isdisjoint(b)
    assert (left == right) == (a == b)
    # Results are canonical: equal sets have equal ranges whichever way they were made.
    assert (left | right) == IDSet(a | b)
    assert (left - right) == IDSet(a - b)


@given(ids.filter(bool), st.integers(0, 100))
def test_members_by_number(members: frozenset[int], count: int) -> None:
    idset = IDSet(members)
    ordered = sorted(members)
    assert [idset.nth(k) for k in range(len(ordered))] == ordered
    assert [idset.index(value) for value in ordered] == list(range(len(ordered)))
    assert idset.nth(-1) == idset.last == ordered[-1]
    assert idset.first == ordered[0]
    assert list(idset.take(count)) == ordered[:count]
    assert all((value in idset) == (value in members) for value in range(-2, 85))
    for k in (len(ordered), -len(ordered) - 1):
        with pytest.raises(IndexError):
            idset.nth(k)
    with pytest.raises(ValueError, match="is not in"):
        idset.index(81)


def test_a_long_mask_gives_the_same_ranges() -> None:
    members = IDSet.parse("0,3-5,4096-4100,5000,9999")
    assert IDSet.from_mask(members.mask) == members
    with pytest.raises(ValueError, match="negative"):
        IDSet.from_mask(-1)


def test_a_huge_set_stays_small() -> None:
    huge = IDSet.parse("1-1000000000000")
    assert len(huge) == 10**12
    assert huge.nth(999_999) == 1_000_000
    assert 10**12 in huge
    assert len(list(huge.ranges())) == 1
    assert str(huge - IDSet([5])) == "1-4,6-1000000000000"
    assert IDSet(range(1, 10**12 + 1)) == huge
    with pytest.raises(ValueError, match="too large for a mask"):
        _ = huge.mask


def test_the_empty_set_has_no_ends() -> None:
    for name in ("first", "last"):
        with pytest.raises(ValueError, match="empty"):
            getattr(EMPTY, name)
