"""Timelines against arrays that have one entry a second."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.resource.graph import V_HEAD, V_WIDTH
from flux_mpi.sched.reach import link_rows
from flux_mpi.sched.scalars import S_FREE, S_TYPES
from flux_mpi.sched.timeline import (
    FOREVER,
    P_BELOW,
    P_JOBS,
    P_NEXT,
    P_TIME,
    P_UNITS,
    P_WHOLE,
    drop_points,
    ease,
    hold,
    level,
    peak,
)

LAST = 22
"""Seconds that are looked at."""

N_BELOW = 2
WIDTH = P_BELOW + N_BELOW
COLUMNS = (P_JOBS, P_UNITS, P_WHOLE, P_BELOW, P_BELOW + 1)


class Span(NamedTuple):
    start: int
    end: int
    jobs: int
    units: int
    whole: int
    below: tuple[int, int]
    counted: int
    """How many columns of ``below`` count."""

    def amounts(self) -> tuple[int, ...]:
        below = [units if k < self.counted else 0 for k, units in enumerate(self.below)]
        return (self.jobs, self.units, self.whole, *below)


class Lines:
    """Timelines of two vertices in one pool, and what they should say."""

    def __init__(self, room: int) -> None:
        self.p = array("q", bytes(8 * WIDTH * room))
        self.s = array("q", bytes(8 * S_TYPES))
        link_rows(self.p, WIDTH, 0, room, -1)
        self.v = array("i", bytes(4 * 2 * V_WIDTH))
        for vertex in (0, 1):
            self.v[vertex * V_WIDTH + V_HEAD] = -1
        self.room = room
        self.spans: list[tuple[int, Span]] = []

    def head_at(self, vertex: int) -> int:
        return vertex * V_WIDTH + V_HEAD

    def put(self, vertex: int, span: Span) -> None:
        hold(
            self.p,
            WIDTH,
            self.s,
            self.v,
            self.head_at(vertex),
            span.start,
            span.end,
            span.jobs,
            span.units,
            span.whole,
            array("q", [99, *span.below]),
            1,
            span.counted,
        )
        self.spans.append((vertex, span))

    def take_out(self, index: int) -> None:
        vertex, span = self.spans.pop(index)
        ease(
            self.p,
            WIDTH,
            self.v,
            self.head_at(vertex),
            span.start,
            span.end,
            span.jobs,
            span.units,
            span.whole,
            array("q", span.below),
            0,
            span.counted,
        )
        drop_points(self.p, WIDTH, self.s, self.v, self.head_at(vertex), span.start, span.end)

    def expected(self, vertex: int, column: int) -> list[int]:
        load = [0] * LAST
        for there, span in self.spans:
            if there == vertex:
                for at in range(span.start, min(span.end, LAST)):
                    load[at] += span.amounts()[COLUMNS.index(column)]
        return load

    def times(self, vertex: int) -> list[int]:
        found = []
        row = self.v[self.head_at(vertex)]
        while row >= 0:
            found.append(self.p[row * WIDTH + P_TIME])
            row = self.p[row * WIDTH + P_NEXT]
        return found

    def free(self) -> int:
        n, row = 0, self.s[S_FREE]
        while row >= 0:
            n += 1
            row = self.p[row * WIDTH + P_NEXT]
        return n

    def check(self) -> None:
        for vertex in (0, 1):
            ends = {x for v, span in self.spans if v == vertex for x in (span.start, span.end)}
            assert self.times(vertex) == sorted(ends)
            head = self.v[self.head_at(vertex)]
            for column in COLUMNS:
                load = self.expected(vertex, column)
                for at in range(LAST):
                    assert level(self.p, WIDTH, head, at, column) == load[at]
                    for end in range(at + 1, LAST + 1):
                        most = max(load[at:end])
                        assert peak(self.p, WIDTH, head, at, end, column) == most
        used = len(self.times(0)) + len(self.times(1))
        assert self.free() == self.room - used


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start = draw(st.integers(0, 14))
    end = draw(st.one_of(st.integers(start + 1, 20), st.just(FOREVER)))
    few = st.integers(0, 3)
    return Span(
        start, end, 1, draw(few), draw(st.integers(0, 1)), draw(st.tuples(few, few)), draw(few) % 3
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), spans(), st.integers(0, 9)), max_size=8))
def test_timelines_say_what_spans_add_up_to(steps: list[tuple[int, Span, int]]) -> None:
    lines = Lines(2 * len(steps) + 1)
    for vertex, span, out in steps:
        lines.put(vertex, span)
        if out < 4 and out < len(lines.spans):
            lines.take_out(out)
        lines.check()
    while lines.spans:
        lines.take_out(len(lines.spans) // 2)
    lines.check()
    assert lines.free() == lines.room
    assert [lines.v[lines.head_at(vertex)] for vertex in (0, 1)] == [-1, -1]


def test_an_empty_timeline_carries_nothing() -> None:
    lines = Lines(1)
    assert peak(lines.p, WIDTH, -1, 0, FOREVER, P_UNITS) == 0
    assert level(lines.p, WIDTH, -1, 5, P_JOBS) == 0


def test_an_end_is_no_part_of_a_span_and_a_start_is() -> None:
    lines = Lines(2)
    lines.put(0, Span(5, 8, 1, 3, 0, (0, 0), 0))
    head = lines.v[lines.head_at(0)]
    assert [peak(lines.p, WIDTH, head, at, at + 1, P_UNITS) for at in (4, 5, 7, 8)] == [0, 3, 3, 0]
    assert peak(lines.p, WIDTH, head, 0, 5, P_UNITS) == 0
    assert peak(lines.p, WIDTH, head, 8, FOREVER, P_UNITS) == 0


def test_some_of_a_span_can_be_given_back_while_it_goes_on() -> None:
    lines = Lines(4)
    lines.put(0, Span(2, 9, 1, 3, 0, (2, 1), 2))
    lines.put(0, Span(4, 6, 1, 1, 0, (1, 1), 2))
    ease(lines.p, WIDTH, lines.v, lines.head_at(0), 2, 9, 0, 2, 0, array("q", [1, 1]), 0, 2)
    head = lines.v[lines.head_at(0)]
    assert lines.times(0) == [2, 4, 6, 9]
    assert [level(lines.p, WIDTH, head, at, P_UNITS) for at in (2, 5, 8, 9)] == [1, 2, 1, 0]
    assert [level(lines.p, WIDTH, head, at, P_BELOW) for at in (2, 5, 8, 9)] == [1, 2, 1, 0]


def test_spans_that_meet_share_a_point() -> None:
    lines = Lines(4)
    lines.put(0, Span(0, 5, 1, 1, 0, (0, 0), 0))
    lines.put(0, Span(5, 9, 1, 1, 0, (0, 0), 0))
    assert lines.times(0) == [0, 5, 9]
    lines.take_out(0)
    assert lines.times(0) == [5, 9]
    lines.check()


def test_rows_are_linked_alike_few_or_many() -> None:
    small, large = array("q", bytes(8 * 3 * 5000)), array("q", bytes(8 * 3 * 5000))
    link_rows(large, 3, 0, 5000, 7)
    for low in range(0, 5000, 1000):
        link_rows(small, 3, low, low + 1000, low + 1000 if low < 4000 else 7)
    assert small == large
