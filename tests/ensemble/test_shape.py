"""Topologies as people write them, and what each part of a machine gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.ensemble.shape import (
    Machine,
    Part,
    capacity,
    check_fits,
    divide,
    leaf,
    parse_topology,
    topology_text,
)
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.formats.rv1 import RSet


def machine(ranks: int, cores: int, gpus: int = 0) -> Machine:
    return Machine((cores,) * ranks, (gpus,) * ranks, ranks)


@pytest.mark.parametrize(
    ("value", "levels"),
    [
        ("4x8", [4, 8]),
        ("1", []),
        ("", []),
        (None, []),
        ("1x1x1", []),
        ("1x4x1", [4]),
        ("2x3x4", [2, 3, 4]),
        ([4, 8], [4, 8]),
        ([], []),
    ],
)
def test_topologies(value: Any, levels: list[int]) -> None:
    assert parse_topology(value) == levels


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("4y8", "'4y8'"),
        ("4x", "joined by x"),
        ("x4", "joined by x"),
        ("-2", "joined by x"),
        ("٤", "joined by x"),
        ("0", "found 0"),
        ("4x0", "found 0"),
        ("99999", "1 to 4096"),
        (5, "found 5"),
        ([1.5], "found"),
        ([True, 2], "found"),
        ("x".join(["2"] * 100), "at most 16 levels"),
    ],
)
def test_bad_topologies_say_what_was_found(value: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_topology(value)


def test_topologies_are_shown_as_they_are_written() -> None:
    assert [topology_text(levels) for levels in ([], [4], [4, 8])] == ["1", "4", "4x8"]


def test_whole_ranks_where_they_can_be_dealt_out() -> None:
    assert divide(machine(8, 4, 2), 4) == [Part(8, 2, exclusive=True)] * 4
    assert divide(machine(8, 4), 8) == [Part(4, 1, exclusive=True)] * 8
    assert divide(machine(8, 4), 1) == [Part(32, 8, exclusive=True)]


def test_equal_shares_of_each_rank() -> None:
    assert divide(machine(2, 8, 4), 4) == [Part(4, 1, gpus=2)] * 4
    assert divide(machine(2, 8), 16) == [Part(1, 1)] * 16
    assert divide(machine(1, 6), 3) == [Part(2, 1)] * 3


def test_otherwise_cores_wherever_they_are() -> None:
    assert divide(machine(5, 2), 2) == [Part(5), Part(5)]
    assert divide(machine(4, 4), 6) == [Part(3)] * 4 + [Part(2)] * 2
    assert divide(machine(2, 3), 4) == [Part(2), Part(2), Part(1), Part(1)]
    assert divide(Machine((4, 2)), 2) == [Part(3), Part(3)]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 30),
)
def test_parts_are_equal_to_a_core_and_nothing_is_left(cores: list[int], parts: int) -> None:
    whole = Machine(tuple(cores))
    if parts > whole.ncores:
        with pytest.raises(ValueError, match=f"{parts} instances were asked for, there are"):
            divide(whole, parts)
        return
    found = divide(whole, parts)
    assert len(found) == parts
    assert sum(part.ncores for part in found) == whole.ncores
    assert max(p.ncores for p in found) - min(p.ncores for p in found) <= 1
    for part in found:
        assert part.machine(whole).ncores == part.ncores


def test_too_many_parts_name_what_is_there() -> None:
    with pytest.raises(ValueError, match=r"64 instances .* 16 cores \(4 ranks of 4\)"):
        divide(machine(4, 4), 64)
    with pytest.raises(ValueError, match=r"9 instances .* 6 cores \(2 ranks of 2 to 4\)"):
        divide(Machine((4, 2)), 9)
    with pytest.raises(ValueError, match=r"level 2 of 4x8: 8 instances .* 4 cores \(1 rank of 4\)"):
        leaf(machine(4, 4), [4, 8])


def test_parts_are_jobspecs_with_one_task_a_rank() -> None:
    for part, nnodes, ncores, exclusive, tasks in (
        (Part(8, 2, exclusive=True), 2, 2, True, 2),
        (Part(4, 1, gpus=2), 1, 4, False, 1),
        (Part(5), 0, 5, False, 3),
    ):
        spec = Jobspec.parse(part.jobspec(["flux-mpi", "broker"], name="tree.1", cwd="/"))
        shape = spec.shape
        assert (shape.nnodes, shape.ncores, shape.exclusive) == (nnodes, ncores, exclusive)
        assert spec.options["per-resource"] == {"type": "node", "count": 1}
        assert spec.task_count(tasks, 99) == tasks
        assert shape.ngpus == part.gpus * part.nnodes


def test_the_smallest_leaf_is_what_counts() -> None:
    assert leaf(machine(8, 4), [4, 8]) == Machine((1,), (0,), 1)
    assert leaf(machine(5, 4), [3]).ncores == 6
    assert leaf(machine(8, 4), []) == machine(8, 4)


def shape_of(**how: Any) -> Any:
    return Jobspec.from_command(["x"], **how).shape


def test_members_must_fit_into_a_leaf() -> None:
    check_fits(shape_of(), machine(8, 4), [4, 8])
    for how, topology, what in (
        ({"cores_per_task": 2}, [4, 8], r"needs 2 cores, .* lowest level of 4x8 has 1"),
        ({"ntasks": 5}, [8], "needs 5 cores"),
        ({"ntasks": 2, "nnodes": 2}, [8], "needs 2 nodes, .* has 1"),
        ({"gpus_per_task": 1}, [], "needs 1 GPU, .* lowest level of 1 has 0"),
        ({"ntasks": 33}, [], r"needs 33 cores, .* has 32: there are 32 cores .* in 1 part"),
    ):
        with pytest.raises(ValueError, match=what):
            check_fits(shape_of(**how), machine(8, 4), topology)


def test_how_many_members_run_at_a_time() -> None:
    assert capacity(shape_of(), machine(8, 4)) == 32
    assert capacity(shape_of(cores_per_task=3), machine(8, 4)) == 10
    assert capacity(shape_of(ntasks=2, nnodes=2, exclusive=True), machine(8, 4)) == 4
    assert capacity(shape_of(gpus_per_task=1), machine(8, 4, 1)) == 8
    assert capacity(shape_of(ntasks=99), machine(8, 4)) == 1


def test_a_machine_is_what_can_be_used() -> None:
    resources = RSet(
        dict.fromkeys(range(6), IDSet(range(4))),
        {0: IDSet(range(2))},
        {rank: f"node{rank // 2}" for rank in range(6)},
    )
    status = {
        "R": resources.to_dict(),
        "online": "0-4",
        "exclude": "1",
        "drained": {"2": [1.0, "broken"]},
    }
    assert Machine.of(status) == Machine((4, 4, 4), (2, 0, 0), 3)
    assert Machine.of({**status, "online": ""}).text() == "no cores (no rank can be used)"


def test_a_machine_can_be_limited() -> None:
    whole = machine(8, 4, 2)
    half = whole.limited(4, 2)
    assert (half.ranks, half.ncores, half.ngpus) == (4, 8, 8)
    assert divide(half, 2) == [Part(4, 2, gpus=2)] * 2, "not these ranks whole"
    assert whole.limited(None, None) == whole
    for limits, what in (
        ((9, None), "9 of them were asked for, there are 8"),
        ((0, None), "0 of them"),
        ((4, 5), "ncores-per-node: 5 .* there are 4"),
        ((4, None, 3), "ngpus-per-node: 3 .* there are 2"),
    ):
        with pytest.raises(ValueError, match=what):
            whole.limited(*limits)
