"""RFC 34: its vectors in all their forms, and a plain list of node ids as the oracle."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.taskmap import Taskmap, TaskmapError

VECTORS = [
    ("0", "[[0,1,1,1]]"),
    ("0;1", "[[0,2,1,1]]"),
    ("0-1", "[[0,1,2,1]]"),
    ("0-1;2-3", "[[0,2,2,1]]"),
    ("0,2;1,3", "[[0,2,1,2]]"),
    ("1;0", "[[1,1,1,1],[0,1,1,1]]"),
    ("0-3;4-7;8-11;12-15", "[[0,4,4,1]]"),
    ("0,4,8,12;1,5,9,13;2,6,10,14;3,7,11,15", "[[0,4,1,4]]"),
    ("0-1,8-9;2-3,10-11;4-5,12-13;6-7,14-15", "[[0,4,2,2]]"),
    ("0-1;2-3;4-5;6-7;8-11;12-15", "[[0,4,2,1],[4,2,4,1]]"),
    ("0,6;1,7;2,8;3,9;4,10,12,14;5,11,13,15", "[[0,6,1,2],[4,2,1,2]]"),
    (
        "14-15;12-13;10-11;8-9;4-7;0-3",
        "[[5,1,4,1],[4,1,4,1],[3,1,2,1],[2,1,2,1],[1,1,2,1],[0,1,2,1]]",
    ),
    (
        "0-1;2-3;4-5;6-7;8-9;12-13;10-11;14-15",
        "[[0,5,2,1],[6,1,2,1],[5,1,2,1],[7,1,2,1]]",
    ),
    ("12-15;8-11;4-7;0-3", "[[3,1,4,1],[2,1,4,1],[1,1,4,1],[0,1,4,1]]"),
]

# RFC 34's table: (tasks per node), stride or None for blocks, map, PMI map or None for a long one.
DISTRIBUTIONS = [
    ([4] * 4, None, "[[0,4,4,1]]", "(vector,(0,4,4))"),
    ([4] * 4, 1, "[[0,4,1,4]]", "(vector,(0,4,1),(0,4,1),(0,4,1),(0,4,1))"),
    ([4] * 4, 2, "[[0,4,2,2]]", "(vector,(0,4,2),(0,4,2))"),
    ([2] * 4 + [4] * 2, None, "[[0,4,2,1],[4,2,4,1]]", "(vector,(0,4,2),(4,2,4))"),
    (
        [2] * 4 + [4] * 2,
        1,
        "[[0,6,1,2],[4,2,1,2]]",
        "(vector,(0,6,1),(0,6,1),(4,2,1),(4,2,1))",
    ),
    ([2] * 4 + [4] * 2, 2, "[[0,6,2,1],[4,2,2,1]]", "(vector,(0,6,2),(4,2,2))"),
    ([256] * 4096, None, "[[0,4096,256,1]]", "(vector,(0,4096,256))"),
]


@pytest.mark.parametrize(("raw", "text"), VECTORS)
def test_the_vectors_of_the_rfc(raw: str, text: str) -> None:
    taskmap = Taskmap.parse(text)
    assert Taskmap.parse(raw) == taskmap
    assert str(Taskmap.parse(raw)) == text
    assert taskmap.raw() == raw
    assert Taskmap.parse(json.loads(text)) == taskmap
    assert Taskmap.parse(json.dumps(taskmap.to_dict())) == taskmap


@pytest.mark.parametrize(("counts", "stride", "text", "pmi"), DISTRIBUTIONS)
def test_the_distributions_of_the_rfc(
    counts: list[int], stride: int | None, text: str, pmi: str
) -> None:
    taskmap = Taskmap.from_counts(counts) if stride is None else Taskmap.cyclic(counts, stride)
    assert str(taskmap) == text
    assert taskmap.pmi() == pmi
    assert Taskmap.parse(pmi) == taskmap
    assert Taskmap.parse(pmi.replace(",", " , ")) == taskmap
    assert taskmap.ntasks == sum(counts)
    assert taskmap.nnodes == len(counts)


def test_no_blocks_mean_unknown() -> None:
    unknown = Taskmap.parse("[]")
    assert unknown.unknown
    assert Taskmap.parse(unknown.raw()) == unknown
    assert (unknown.ntasks, unknown.nnodes, unknown.raw(), unknown.pmi()) == (0, 0, "", "")
    assert str(unknown) == "[]"
    assert not Taskmap.parse("0").unknown


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_any_assignment_is_kept(nodes: list[int]) -> None:
    """``nodes[t]`` is the node of task t."""
    taskmap = Taskmap.from_tasks(
        [IDSet(t for t, n in enumerate(nodes) if n == node) for node in range(6)]
    )
    assert [taskmap.nodeid(task) for task in range(len(nodes))] == nodes
    for node in range(7):
        assert list(taskmap.tasks(node)) == [t for t, n in enumerate(nodes) if n == node]
    assert taskmap.ntasks == len(nodes)
    assert taskmap.nnodes == max(nodes) + 1
    assert Taskmap.parse(str(taskmap)) == taskmap
    assert Taskmap.parse(taskmap.pmi()).raw() == taskmap.raw()
    with pytest.raises(TaskmapError, match=f"no task {len(nodes)}"):
        taskmap.nodeid(len(nodes))
    with pytest.raises(TaskmapError, match="no task -1"):
        taskmap.nodeid(-1)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(1, 4))
def test_distributions_keep_the_counts(counts: list[int], stride: int) -> None:
    block, cyclic = Taskmap.from_counts(counts), Taskmap.cyclic(counts, stride)
    for node, count in enumerate(counts):
        assert len(block.tasks(node)) == len(cyclic.tasks(node)) == count
    order = [block.nodeid(task) for task in range(sum(counts))]
    assert order == sorted(order)


def test_a_huge_map_is_cheap() -> None:
    taskmap = Taskmap.parse([[0, 4096, 1, 256]])
    assert taskmap.nodeid(1_048_575) == 4095
    assert len(taskmap.tasks(17)) == 256


@pytest.mark.parametrize(
    "obj",
    [
        "x",
        "0;0",
        "0;2",
        "1",
        "[",
        "[" * 10_000,
        "[[0,1,1]]",
        "[[0,1,1,1,1]]",
        "[[-1,1,1,1]]",
        "[[0,0,1,1]]",
        "[[0,1,0,1]]",
        "[[0,1,1,0]]",
        "[[0,1,1,true]]",
        "[[0,1,1,1.0]]",
        "[0,1,1,1]",
        "[[0,1000000,1000000,1]]",
        "[[1000000000,1,1,1]]",
        "{}",
        '{"version":1}',
        '{"version":2,"map":[]}',
        '{"version":true,"map":[]}',
        '{"version":1,"map":{}}',
        "(vector)",
        "(vector,(0,1))",
        "(vector,(0,1,1)",
        "(vector,(0,0,1))",
        "(matrix,(0,1,1))",
        "(vector,(0,1,1)x)",
        7,
        None,
    ],
)
def test_what_is_no_map_is_refused(obj: object) -> None:
    with pytest.raises(TaskmapError, match="taskmap") as caught:
        Taskmap.parse(obj)
    assert len(str(caught.value)) < 200


def test_a_stride_is_positive() -> None:
    with pytest.raises(TaskmapError, match="stride"):
        Taskmap.cyclic([1], 0)
