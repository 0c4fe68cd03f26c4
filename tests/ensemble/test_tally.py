"""Counts, times and first failures: they add up, travel, and stay small."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.ensemble.tally import CANCELED, FAILURES, LOST, Tally, exit_code
from flux_mpi.formats.idset import IDSet
from flux_mpi.message.message import pack, unpack


def tally_of(outcomes: list[tuple[int, int, float]]) -> Tally:
    """From (member, exit code, seconds; below 0: never ran)."""
    tally = Tally()
    tally.ended(len(outcomes), [seconds for _, _, seconds in outcomes if seconds >= 0])
    for member, code, _ in outcomes:
        if code:
            tally.fail(member, code)
    return tally


OUTCOMES = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.sampled_from([0, 0, 0, 1, 2, 137]),
        st.one_of(st.floats(0, 1e5), st.just(-1.0)),
    ),
    max_size=80,
    unique_by=lambda outcome: outcome[0],
)


def travelled(tally: Tally) -> Tally:
    return Tally.from_wire(unpack(pack(tally.to_wire()), strict_map_key=False))


@given(OUTCOMES, st.integers(0, 80))
def test_two_halves_add_up_to_the_whole(outcomes: list, at: int) -> None:
    whole = tally_of(outcomes)
    first, second = tally_of(outcomes[:at]), travelled(tally_of(outcomes[at:]))
    first.add(second)
    assert first.count == whole.count == len(outcomes)
    assert first.codes == whole.codes
    assert first.failures == whole.failures
    assert first.histogram == whole.histogram
    assert first.seconds == pytest.approx(whole.seconds)
    assert (first.longest, first.shortest) == (whole.longest, whole.shortest)
    assert first.status == max((code for _, code, _ in outcomes), default=0)


@given(OUTCOMES)
def test_the_first_failures_are_named_however_they_come(outcomes: list) -> None:
    failed = sorted(member for member, code, _ in outcomes if code)
    random.Random(1).shuffle(outcomes)
    tally = tally_of(outcomes)
    assert [member for member, _, _ in tally.failures] == failed[:FAILURES]
    assert tally.failed == len(failed)


def test_a_million_members_cost_as_much_as_ten() -> None:
    tally = Tally()
    tally.ended(1_000_000, [])
    tally.give_up(IDSet(range(5_000_000)), LOST, "gone")
    assert tally.failed == tally.lost == 5_000_000
    assert len(pack(tally.to_wire())) < 2000


def test_what_was_given_up_is_told_apart() -> None:
    tally = Tally()
    tally.give_up(IDSet([4, 5]), LOST, "it died")
    tally.give_up(IDSet([1]), CANCELED, "enough")
    tally.give_up(IDSet(), LOST, "nobody")
    assert (tally.count, tally.failed, tally.lost, tally.canceled) == (3, 3, 2, 1)
    assert tally.failures == [
        (1, 1, "canceled: enough"),
        (4, 1, "lost: it died"),
        (5, 1, "lost: it died"),
    ]
    assert tally.status == 1


def test_exit_codes_are_as_a_shell_says_them() -> None:
    assert [exit_code(status) for status in (0, 3 << 8, 9, 15, -1)] == [0, 3, 137, 143, 1]


def test_buckets_are_powers_of_two_microseconds() -> None:
    tally = Tally()
    tally.ended(9, [0, 5e-7, 1e-6, 3e-6, 1.0, 1e30])
    assert (tally.count, tally.timed) == (9, 6)
    assert tally.histogram == {0: 2, 1: 1, 2: 1, 20: 1, 63: 1}


def test_quantiles_are_right_to_a_factor_of_two() -> None:
    tally = tally_of([(k, 0, 0.01 * (k + 1)) for k in range(100)])
    assert tally.mean == pytest.approx(0.505)
    assert 0.5 <= tally.quantile(0.5) <= 1.0
    assert tally.quantile(1.0) == 1.0
    assert Tally().quantile(0.5) == 0.0


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        (5, "object"),
        ({"count": -1}, "count"),
        ({"count": True}, "count"),
        ({"count": 1, "codes": {"a": 1}}, "codes"),
        ({"count": 1, "codes": {999: 1}}, "codes"),
        ({"count": 1, "codes": {1: 2}}, "more failures"),
        ({"count": 1, "failures": [[1, 2]]}, "failures"),
        ({"count": 1, "failures": [[1, 2, 3]]}, "failures"),
        ({"count": 9, "failures": [[k, 1, ""] for k in range(99)]}, "failures"),
        ({"count": 1, "times": [1, 2]}, "times"),
        ({"count": 1, "times": [2, 0.1, 0.1, 0.1]}, "more failures or times"),
        ({"count": 1, "histogram": {64: 1}}, "histogram"),
    ],
)
def test_nonsense_is_refused_by_name(wire: object, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Tally.from_wire(wire)
