from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.resource.discovery import Core, Gpu, Topology
from flux_mpi.resource.division import RankResources, claim, divide


def node(cpus: list[tuple[int, ...]], gpus: int = 0) -> Topology:
    return Topology(
        "n1",
        tuple(Core(0, 0, threads) for threads in cpus),
        tuple(Gpu("nvidia", str(i), i % 2, f"GPU-{i}") for i in range(gpus)),
        64 << 30,
        None,
    )


def everyone(topologies: list[Topology]) -> list[RankResources]:
    claims = [claim(topology) for topology in topologies]
    size = len(topologies)
    return [divide(t, i, size, claims=claims) for i, t in enumerate(topologies)]


def cpus_of(part: RankResources) -> list[list[int]]:
    return [sorted(core) for core in part.cores]


def test_ranks_that_share_a_node_get_contiguous_pieces() -> None:
    topology = node([(i, i + 5) for i in range(5)], gpus=2)
    parts = [divide(topology, i, 2) for i in range(2)]
    assert cpus_of(parts[0]) == [[0, 5], [1, 6]]
    assert cpus_of(parts[1]) == [[2, 7], [3, 8], [4, 9]]
    assert [[gpu.device for gpu in part.gpus] for part in parts] == [["0"], ["1"]]
    assert {(part.memory, part.binding, part.hostname) for part in parts} == {
        (32 << 30, True, "n1")
    }
    assert parts == everyone([topology] * 2)


def test_a_rank_alone_keeps_everything() -> None:
    topology = node([(0,), (1,)], gpus=3)
    part = divide(topology, 0, 1)
    assert cpus_of(part) == [[0], [1]]
    assert [gpu.device for gpu in part.gpus] == ["0", "2", "1"]


def test_more_ranks_than_cores_get_one_each_and_do_not_bind() -> None:
    parts = everyone([node([(0,), (1,)])] * 5)
    assert [cpus_of(part) for part in parts] == [[[0]], [[1]], [[0]], [[1]], [[0]]]
    assert not any(part.binding for part in parts)


def test_more_ranks_than_gpus_leave_some_without() -> None:
    parts = everyone([node([(i,) for i in range(8)], gpus=2)] * 4)
    devices = [gpu.device for part in parts for gpu in part.gpus]
    assert sorted(devices) == ["0", "1"]


def test_a_launchers_binding_is_kept() -> None:
    parts = everyone([node([(0,), (1,)]), node([(2,), (3,)]), node([(4,)])])
    assert [cpus_of(part) for part in parts] == [[[0], [1]], [[2], [3]], [[4]]]
    assert all(part.binding for part in parts)


def test_ranks_bound_to_the_same_half_share_that_half() -> None:
    low, high = node([(0,), (1,)]), node([(2,), (3,)])
    parts = everyone([low, low, high, high])
    assert [cpus_of(part) for part in parts] == [[[0]], [[1]], [[2]], [[3]]]


def test_threads_of_one_core_bound_to_different_ranks() -> None:
    parts = everyone([node([(0,)]), node([(4,)])])
    assert [cpus_of(part) for part in parts] == [[[0]], [[4]]]


def test_gpus_that_the_launcher_dealt_out_are_kept() -> None:
    topology = node([(0,), (1,)], gpus=2)
    dealt = [topology._replace(gpus=topology.gpus[i : i + 1]) for i in (1, 0)]
    parts = everyone(dealt)
    assert [[gpu.identity for gpu in part.gpus] for part in parts] == [["GPU-1"], ["GPU-0"]]


def test_emulated_resources_are_not_bound() -> None:
    topology = node([(0,)], gpus=1)
    part = divide(topology, 2, 3, cores_per_rank=64, gpus_per_rank=4)
    assert len(part.cores) == 64
    assert not part.binding
    assert [gpu.vendor for gpu in part.gpus] == ["emulated"] * 4
    assert divide(topology, 0, 1, gpus_per_rank=0) == RankResources(
        "n1", (frozenset({0}),), (), 64 << 30, False
    )


def test_hello() -> None:
    part = divide(node([(0,), (1,), (2,)], gpus=1), 0, 1)
    assert part.hello(7) == {
        "rank": 7,
        "cores": "0-2",
        "gpus": "0",
        "memory": 64 << 30,
        "hostname": "n1",
    }


@pytest.mark.parametrize(
    ("args", "options", "says"),
    [
        ((2, 2), {}, "local rank 2 of 2"),
        ((-1, 2), {}, "local rank -1"),
        ((0, 0), {}, "of 0 ranks"),
        ((0, 1), {"cores_per_rank": 0}, "found 0"),
        ((0, 1), {"cores_per_rank": 10**9}, "found 1000000000"),
        ((0, 1), {"gpus_per_rank": -1}, "found -1"),
        ((0, 2), {"claims": [["0", []]]}, "1 claims from 2"),
        ((0, 1), {"claims": [["zero", []]]}, "zero"),
    ],
)
def test_impossible_numbers(args: tuple[int, int], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        divide(node([(0,)]), *args, **options)


def test_no_cpu_at_all() -> None:
    with pytest.raises(ValueError, match="no CPU"):
        divide(node([]), 0, 1)


@given(st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=6))
def test_however_ranks_are_bound_none_gets_anothers_cpu(masks: list[set[int]]) -> None:
    parts = everyone([node([(cpu,) for cpu in sorted(mask)]) for mask in masks])
    taken: set[int] = set()
    for mask, part in zip(masks, parts, strict=True):
        mine = {cpu for core in part.cores for cpu in core}
        assert mine, "each rank has a core"
        assert mine <= mask
        if part.binding:
            assert not mine & taken
            taken |= mine
    if len(set(map(frozenset, masks))) == 1 and len(masks) <= len(masks[0]):
        sizes = [len(part.cores) for part in parts]
        assert sum(sizes) == len(masks[0])
        assert max(sizes) - min(sizes) <= 1
