from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.idset import IDSet
from flux_mpi.shell import affinity
from flux_mpi.shell.affinity import AffinityError, Topology, divide, gpu_shares, parse


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (None, "on"),
        (1, "on"),
        ("on", "on"),
        ("off", "off"),
        (False, "off"),
        ("per-task", "per-task"),
        ("verbose", "on"),
        ("verbose,per-task", "per-task"),
        ("dry-run,per-task", "off"),
        ("map:0-1;2-3", "map"),
    ],
)
def test_modes(value: object, mode: str) -> None:
    assert parse("cpu-affinity", value)[0] == mode


@pytest.mark.parametrize("value", ["perhaps", "map:x", 7.5, ["on"]])
def test_nonsense_is_named(value: object) -> None:
    with pytest.raises(AffinityError, match="cpu-affinity"):
        parse("cpu-affinity", value)


def test_map_takes_idsets_and_masks() -> None:
    assert parse("x", "map:0-1;0x5")[1] == (IDSet([0, 1]), IDSet([0, 2]))


@given(st.lists(st.integers(0, 500), unique=True), st.integers(1, 40))
def test_division_is_fair_and_complete(ids: list[int], parts: int) -> None:
    shares = divide(ids, parts)
    assert len(shares) == parts
    sizes = {len(share) for share in shares}
    if len(ids) >= parts:
        assert [one for share in shares for one in share] == ids
        assert max(sizes) - min(sizes) <= 1
    elif ids:
        assert sizes == {1}
        counts = [sum(share == (one,) for share in shares) for one in ids]
        assert max(counts) - min(counts) <= 1


def shares(topology: Topology, mode: str, cores: str | None, ntasks: int, *sets: Any) -> Any:
    return topology.shares(mode, sets, cores, ntasks)


def test_cores_become_cpus() -> None:
    smt = Topology({core: (core, core + 4) for core in range(4)})
    assert smt.cpus("1-2") == (1, 2, 5, 6)
    assert shares(smt, "on", "0-1", 2) == [(0, 1, 4, 5)] * 2
    assert shares(smt, "per-task", "0-1", 2) == [(0, 4), (1, 5)]
    assert shares(smt, "per-task", "0", 2) == [(0, 4)] * 2
    assert shares(smt, "off", "0-1", 2) == [None, None]
    assert shares(smt, "map", "0-1", 3, IDSet([3]), IDSet([5])) == [(3,), (5,), (5,)]
    assert shares(smt, "on", None, 2) == [None, None]
    assert smt.binds


def test_emulated_cores_bind_nothing() -> None:
    emulated = Topology(None)
    assert emulated.cpus("0-3") is None
    assert shares(emulated, "per-task", "0-3", 2) == [None, None]
    assert not emulated.binds


def test_gpus() -> None:
    assert gpu_shares(affinity.ON, (), "0-1", 2) == ["0,1", "0,1"]
    assert gpu_shares(affinity.PER_TASK, (), "0-3", 2) == ["0,1", "2,3"]
    assert gpu_shares(affinity.ON, (), "", 1) == ["-1"]
    assert gpu_shares(affinity.MAP, (IDSet([1]),), "0-1", 2) == ["1", "1"]


def test_gpus_are_shown_by_the_names_their_runtime_knows() -> None:
    names = ["2", "GPU-77", "MIG-1"]
    assert gpu_shares(affinity.ON, (), "0,2", 1, names) == ["2,MIG-1"]
    assert gpu_shares(affinity.PER_TASK, (), "0-1", 2, names) == ["2", "GPU-77"]
    assert gpu_shares(affinity.MAP, (IDSet([1]),), "0", 1, names) == ["1"]
