"""Shapes that are chosen by themselves: more levels only where they pay."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.ensemble.choice import GAIN, SERVE_S, Work, choose, estimate
from flux_mpi.ensemble.shape import Machine, leaf
from flux_mpi.formats.jobspec import Jobspec


def machine(ranks: int, cores: int) -> Machine:
    return Machine((cores,) * ranks, (0,) * ranks, ranks)


def work(count: int, seconds: float, mock: bool = False, **how: int) -> Work:
    return Work(count, Jobspec.from_command(["x"], **how).shape, seconds, mock)


MACHINES = st.builds(machine, st.integers(1, 64), st.integers(1, 48))


@settings(max_examples=60, deadline=None)
@given(MACHINES, st.integers(1, 10**7), st.floats(1e-5, 1e4), st.integers(1, 64))
def test_nothing_is_chosen_that_is_slower_than_one_level(
    whole: Machine, count: int, seconds: float, cpus: int
) -> None:
    task = work(count, seconds)
    choice = choose(task, whole, cpus)
    flat, _ = estimate(task, whole, [], cpus)
    time, _ = estimate(task, whole, choice.topology, cpus)
    assert time <= flat
    if choice.topology:
        assert time <= GAIN * flat
        leaf(whole, choice.topology)  # can be divided so
    assert str(count) in choice.why


@settings(max_examples=60, deadline=None)
@given(MACHINES, st.integers(1, 10**7), st.floats(1.0, 1e4), st.integers(1, 64))
def test_long_members_never_need_more_than_one_level(
    whole: Machine, count: int, factor: float, cpus: int
) -> None:
    seconds = factor * SERVE_S * whole.ncores
    assert choose(work(count, seconds), whole, cpus).topology == []


def test_short_members_on_many_cores_get_more_schedulers() -> None:
    choice = choose(work(1_000_000, 0.01), machine(64, 48), 48)
    assert prod(choice.topology) >= 8
    assert "one level would be bound by its scheduler" in choice.why
    shorter = choose(work(1_000_000, 0.001), machine(64, 48), 48)
    assert prod(shorter.topology) >= prod(choice.topology)


def test_a_few_members_are_not_worth_an_instance() -> None:
    assert choose(work(1000, 0.001), machine(64, 48), 48).topology == []


def test_on_one_small_host_more_schedulers_have_no_processor_to_run_on() -> None:
    whole = Machine((16,) * 4, (0,) * 4, 1)
    choice = choose(work(1_000_000, 0.0001), whole, 2)
    assert choice.topology == []
    assert "bound by its processors" in choice.why


def test_members_that_need_several_cores_are_not_put_where_they_do_not_fit() -> None:
    choice = choose(work(10_000_000, 0.0001, ntasks=16), machine(64, 16), 16)
    assert leaf(machine(64, 16), choice.topology).ncores >= 16
    wide = choose(work(10_000_000, 0.0001, ntasks=64, nnodes=64), machine(64, 16), 16)
    assert wide.topology == []


def test_what_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        estimate(work(1, 1.0, ntasks=9), machine(4, 4), [4], 4)
