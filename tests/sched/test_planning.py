"""Plans against brute force: the earliest start, and reservations that nothing breaks."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.bitmap import BitmapScheduler
from tests.sched.running import ODD, bitmap_door, could_start, fill


def new(resources: RSet) -> BitmapScheduler:
    return bitmap_door(resources, [])


@st.composite
def shapes(draw: Any, whole: bool = False, coreless: bool = False) -> Shape:
    nodes = draw(st.integers(1, 3) if whole else st.integers(0, 3))
    slots = draw(st.integers(1, 3))
    gpus = 0 if whole else draw(st.sampled_from([0, 0, 0, 1]))
    cores = draw(st.integers(0 if gpus and coreless else 1, 3))
    exclusive = whole or (bool(nodes) and draw(st.booleans()))
    constraint = draw(st.sampled_from(["", "", ODD]))
    if whole:
        constraint = ""  # which kind of node serves an equal job may change from plan to plan
        slots = cores = 1
    total = slots * nodes if nodes else slots
    return Shape(nodes, total, slots if nodes else 0, cores, gpus, exclusive, total, constraint)


@st.composite
def machines(draw: Any, uniform: bool = False) -> RSet:
    size = draw(st.integers(1, 5))
    sizes = [(4, 1)] * size
    if not uniform:
        sizes = [(draw(st.integers(1, 4)), draw(st.integers(0, 2))) for _ in range(size)]
    return RSet(
        {rank: IDSet(range(cores)) for rank, (cores, _) in enumerate(sizes)},
        {rank: IDSet(range(gpus)) for rank, (_, gpus) in enumerate(sizes) if gpus},
        {rank: f"node{rank}" for rank in range(size)},
        properties={"odd": IDSet(rank for rank in range(size) if rank % 2)},
    )


jobs = st.tuples(shapes(), st.integers(1, 9))
odd_jobs = st.tuples(shapes(coreless=True), st.integers(1, 9))
many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(resources=machines(), work=st.lists(jobs, max_size=6), job=jobs)
def test_the_first_reservation_is_at_the_earliest_time(
    resources: RSet, work: list[tuple[Shape, int]], job: tuple[Shape, int]
) -> None:
    scheduler = new(resources)
    running = fill(scheduler, work)
    shape, duration = job
    reservation = scheduler.reserve(shape, 0.0, float(duration))
    times = sorted({end for _, end in running} | {0.0})
    possible = [when for when in times if could_start(resources, running, shape, when)]
    if not possible:
        assert reservation is None
        return
    assert reservation is not None
    assert reservation.start == pytest.approx(max(possible[0], 0.0), abs=1e-5)
    assert reservation.end == reservation.start + duration


@many
@given(
    resources=machines(),
    work=st.lists(odd_jobs, max_size=6),
    first=odd_jobs,
    later=st.lists(odd_jobs, min_size=1, max_size=8),
)
def test_what_starts_beside_a_reservation_leaves_it_in_peace(
    resources: RSet,
    work: list[tuple[Shape, int]],
    first: tuple[Shape, int],
    later: list[tuple[Shape, int]],
) -> None:
    scheduler = new(resources)
    running = fill(scheduler, work)
    reservation = scheduler.reserve(first[0], 0.0, float(first[1]))
    if reservation is None:
        return
    free = scheduler.allocated()
    for shape, duration in later:
        found = scheduler.alloc(shape, 2, 0.0, float(duration))
        running += [(placement, float(duration)) for placement in found]
        assert could_start(resources, running, first[0], reservation.start)
    # What was held back from the kernel has been given back: all can be freed, and it is as before.
    scheduler.release([reservation])
    scheduler.free([placement for placement, _ in running])
    assert not scheduler.allocated().cores
    assert free is not None


@many
@given(
    resources=machines(uniform=True),
    work=st.lists(st.tuples(shapes(whole=True), st.integers(1, 9)), max_size=5),
    queue=st.lists(st.tuples(shapes(whole=True), st.integers(1, 9)), min_size=1, max_size=6),
    later=st.lists(st.tuples(shapes(whole=True), st.integers(1, 9)), max_size=6),
)
def test_reservations_hold_in_whatever_order_they_are_due(
    resources: RSet,
    work: list[tuple[Shape, int]],
    queue: list[tuple[Shape, int]],
    later: list[tuple[Shape, int]],
) -> None:
    """Let time pass to each reservation's start: a plan made anew never puts one off."""
    scheduler = new(resources)
    running = fill(scheduler, work)
    plan = [(scheduler.reserve(shape, 0.0, float(d)), shape, d) for shape, d in queue]
    waiting = [(r, shape, d) for r, shape, d in plan if r is not None]
    for shape, duration in later:
        found = scheduler.alloc(shape, 1, 0.0, float(duration))
        running += [(placement, float(duration)) for placement in found]
    promised = {i: reservation.start for i, (reservation, _, _) in enumerate(waiting)}
    held = [reservation for reservation, _, _ in waiting]
    for now in sorted(promised.values()):
        over = [(placement, end) for placement, end in running if end <= now]
        running = [(placement, end) for placement, end in running if end > now]
        scheduler.free([placement for placement, _ in over])
        scheduler.release(held)
        held = []
        for i, (_, shape, duration) in enumerate(waiting):
            if i not in promised:
                continue
            found = scheduler.alloc(shape, 1, now, float(duration))
            if found:
                running.append((found[0], now + duration))
                del promised[i]
                continue
            reservation = scheduler.reserve(shape, now, float(duration))
            assert reservation is not None
            assert reservation.start <= promised[i] + 1e-5
            assert promised[i] > now
            held.append(reservation)


@pytest.fixture
def four(resources: Callable[..., RSet]) -> BitmapScheduler:
    return new(resources([(4, 0)] * 4))


def test_part_of_a_node_can_be_reserved(
    resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    scheduler = new(resources([(5, 0)]))
    scheduler.alloc(shape(cores=2), 1, 0.0, 10.0)
    scheduler.alloc(shape(cores=1), 1, 0.0, 100.0)
    reservation = scheduler.reserve(shape(cores=3), 0.0, 50.0)
    assert reservation is not None
    assert reservation.start == 10.0
    assert not scheduler.alloc(shape(cores=2), 1, 0.0, 11.0)
    assert len(scheduler.alloc(shape(), 2, 0.0, 11.0)) == 1  # two are free, one stays so
    assert len(scheduler.alloc(shape(), 2, 0.0, 10.0)) == 1


def test_a_shared_node_is_promised_to_one_only(
    resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    scheduler = new(resources([(4, 0)]))
    scheduler.alloc(shape(cores=3), 1, 0.0, 10.0)
    whole = scheduler.reserve(shape(nnodes=1, exclusive=True), 0.0, 50.0)
    short, long = scheduler.reserve(shape(), 0.0, 9.0), scheduler.reserve(shape(), 0.0, 20.0)
    assert [r and round(r.start) for r in (whole, short, long)] == [10, 0, 60]


def test_jobs_without_a_limit_end_after_all_others(
    four: BitmapScheduler, shape: Callable[..., Shape]
) -> None:
    nodes = shape(nnodes=1, exclusive=True)
    assert len(four.alloc(nodes, 3, 0.0, inf)) == 3
    reservation = four.reserve(shape(nnodes=4, exclusive=True), 1.0, inf)
    assert reservation is not None
    assert reservation.start > 1e8
    assert not four.alloc(nodes, 1, 1.0, inf)  # it would end after that
    assert len(four.alloc(nodes, 1, 1.0, 1e6)) == 1


def test_no_time_at_all(four: BitmapScheduler, shape: Callable[..., Shape]) -> None:
    """Such as is left when the instance is about to end."""
    half = shape(nnodes=2, exclusive=True)
    assert len(four.alloc(half, 1, 5.0, 0.0)) == 1
    reservation = four.reserve(shape(nnodes=4, exclusive=True), 5.0, 0.0)
    assert reservation is not None
    assert reservation.start == reservation.end
    assert len(four.alloc(half, 3, 5.0, 0.0)) == 1
    assert not four.alloc(shape(cores=2), 1, 5.0, 0.0)


def test_an_overdue_job_is_expected_to_end_soon(
    four: BitmapScheduler, shape: Callable[..., Shape]
) -> None:
    whole = shape(nnodes=4, exclusive=True)
    four.alloc(whole, 1, 0.0, 10.0)
    reservation = four.reserve(whole, 50.0, 1.0)
    assert reservation is not None
    assert 50.0 < reservation.start <= 51.0


def test_reservations_are_void_once_other_ranks_may_be_used(
    four: BitmapScheduler, shape: Callable[..., Shape]
) -> None:
    whole = shape(nnodes=4, exclusive=True)
    placed = four.alloc(whole, 1, 0.0, 10.0)
    reservation = four.reserve(whole, 0.0, 1.0)
    assert reservation is not None
    four.set_up(IDSet.parse("0-2"))
    assert four.reserve(whole, 0.0, 1.0) is None
    four.release([reservation])
    four.set_up(IDSet.parse("0-3"))
    four.free(placed)
    assert four.alloc(whole, 1, 0.0, 1.0)


def test_ends_outlast_an_update(
    four: BitmapScheduler, shape: Callable[..., Shape], resources: Callable[..., RSet]
) -> None:
    (placed,) = four.alloc(shape(nnodes=4, exclusive=True), 1, 0.0, 10.0)
    four.update(resources([(4, 0)] * 3))
    reservation = four.reserve(shape(nnodes=3, exclusive=True), 1.0, 1.0)
    assert reservation is not None
    assert reservation.start == 10.0
    four.free([placed])
    four.release([reservation])
    assert four.alloc(shape(nnodes=3, exclusive=True), 1, 2.0, 1.0)


def test_one_reservation_of_several_can_be_given_back(
    four: BitmapScheduler, shape: Callable[..., Shape]
) -> None:
    half = shape(nnodes=2, exclusive=True)
    four.alloc(shape(nnodes=4, exclusive=True), 1, 0.0, 10.0)
    first, second, third = (four.reserve(half, 0.0, 5.0) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert [first.start, second.start, third.start] == [10.0, 10.0, 15.0]
    four.release([first])
    again = four.reserve(half, 0.0, 5.0)
    assert again is not None
    assert again.start == 10.0


def test_a_constraint_tells_nodes_apart(resources: Callable[..., RSet]) -> None:
    scheduler = new(resources([(2, 0)] * 4, {"odd": "1,3"}))
    odd = Shape(1, 1, 1, 1, 0, True, 1, ODD)
    any_node = Shape(1, 1, 1, 1, 0, True, 1)
    assert scheduler.feasible(odd) is None
    scheduler.alloc(any_node, 4, 0.0, 10.0)
    reservations = [scheduler.reserve(odd, 0.0, 10.0) for _ in range(3)]
    assert [r.start for r in reservations if r] == [10.0, 10.0, 20.0]
    others = [scheduler.reserve(any_node, 0.0, 10.0) for _ in range(3)]
    assert [r.start for r in others if r] == [10.0, 10.0, 20.0]
