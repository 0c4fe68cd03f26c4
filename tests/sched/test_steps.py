"""Step functions against a list that says the value of every second."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.sched import steps
from flux_mpi.sched.steps import Steps

HORIZON = 40

spans = st.tuples(st.integers(0, HORIZON), st.integers(0, HORIZON), st.integers(-4, 4))


def built(changes: list[tuple[int, int, int]]) -> tuple[Steps, list[int]]:
    function, oracle = Steps(0.0, 5), [5] * (HORIZON + 1)
    for begin, end, change in changes:
        function.add(begin, inf if end == HORIZON else end, change)
        for second in range(begin, HORIZON + 1 if end == HORIZON else end):
            oracle[second] += change
    return function, oracle


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(spans, max_size=30),
    begin=st.integers(0, HORIZON),
    length=st.integers(1, HORIZON),
    need=st.integers(-5, 15),
    block=st.sampled_from([2, 3, 96]),
)
def test_it_is_what_a_list_of_seconds_is(
    changes: list[tuple[int, int, int]], begin: int, length: int, need: int, block: int
) -> None:
    before = steps.BLOCK
    steps.BLOCK = block
    try:
        function, oracle = built(changes)
        window = oracle[begin : begin + length]
        assert function.minimum(begin, begin + length) == min(window)
        starts = [
            second
            for second in range(begin, HORIZON + 1)
            if min(oracle[second : second + length]) >= need
        ]
        assert function.first(need, begin, length) == (starts[0] if starts else None)
        for time, value in function.items():
            assert value == oracle[int(time)]
        changing = [t for t, _ in function.items() if t > begin]
        assert function.times_after(begin) == changing
        assert function.next_after(begin) == (changing[0] if changing else inf)
    finally:
        steps.BLOCK = before


def test_it_is_made_of_changes() -> None:
    function = Steps(10.0, 1, [(11.0, 2), (11.0, 1), (13.0, -4)])
    assert function.items() == [(10.0, 1), (11.0, 4), (13.0, 0)]
    assert function.first(2, 0.0, 1.5) == 11.0
    assert function.first(2, 0.0, 3.0) is None
    assert function.first(0, 0.0, inf) == 10.0  # there is nothing before it
    assert function.minimum(5.0, 12.0) == 1
