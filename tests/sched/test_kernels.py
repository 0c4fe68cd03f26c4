"""The match kernel against a plain oracle, interpreted and compiled."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.sched import kernels
from flux_mpi.sched.kernels import WORD_BITS

FULL = (1 << WORD_BITS) - 1


@dataclass
class Node:
    cores: set[int]
    gpus: set[int]
    all_cores: frozenset[int]
    all_gpus: frozenset[int]
    usable: bool = True


@dataclass(frozen=True)
class Want:
    nodes: int
    slots: int
    cores: int
    gpus: int
    exclusive: bool


@dataclass
class Result:
    """For each member, for each row: node, slots, cores, gpus."""

    members: list[list[tuple[int, int, frozenset[int], frozenset[int]]]] = field(
        default_factory=list
    )


def ids(words: Sequence[int], at: int, count: int) -> frozenset[int]:
    return frozenset(
        w * WORD_BITS + bit
        for w in range(count)
        for bit in range(WORD_BITS)
        if words[at + w] >> bit & 1
    )


def words_of(nodes: list[Node], attribute: str, count: int) -> array[int]:
    return array(
        "q",
        (
            sum(1 << j for j in getattr(node, attribute)) >> WORD_BITS * w & FULL
            for node in nodes
            for w in range(count)
        ),
    )


def run(
    place: Callable[..., int],
    nodes: list[Node],
    want: Want,
    count: int,
    face: Callable[[array[int]], Any] = lambda words: words,
    words: tuple[int, int] = (1, 1),
    out_rows: int = 256,
) -> Result:
    """Call the kernel; what it took is removed from ``nodes``. Checks its bookkeeping."""
    core_words, gpu_words = words
    n = len(nodes)
    core_bits = words_of(nodes, "cores", core_words)
    gpu_bits = words_of(nodes, "gpus", gpu_words)
    core_free = array("q", (len(node.cores) for node in nodes))
    gpu_free = array("q", (len(node.gpus) for node in nodes))
    core_total = array("q", (len(node.all_cores) for node in nodes))
    gpu_total = array("q", (len(node.all_gpus) for node in nodes))
    buckets = array("q", bytes(8 * (2 + max([0, *core_total, *gpu_total]))))
    order, chosen = array("q", bytes(8 * n)), array("q", bytes(8 * n))
    stride = 2 + core_words + gpu_words
    rows_of, out = array("q", bytes(8 * count)), array("q", bytes(8 * out_rows * stride))
    placed = place(
        count,
        n,
        core_words,
        gpu_words,
        want.nodes,
        want.slots,
        want.cores,
        want.gpus,
        int(want.exclusive),
        face(array("q", (int(node.usable) for node in nodes))),
        face(core_bits),
        face(core_free),
        face(core_total),
        face(gpu_bits),
        face(gpu_free),
        face(gpu_total),
        face(order),
        face(chosen),
        face(buckets),
        len(buckets),
        face(rows_of),
        face(out),
        out_rows,
    )
    assert not any(chosen)
    result = Result()
    at = 0
    for m in range(placed):
        rows = []
        for _ in range(rows_of[m]):
            cores = ids(out, at + 2, core_words)
            gpus = ids(out, at + 2 + core_words, gpu_words)
            rows.append((out[at], out[at + 1], cores, gpus))
            node = nodes[out[at]]
            assert cores <= node.cores, "took cores that were not free"
            assert gpus <= node.gpus, "took GPUs that were not free"
            node.cores -= cores
            node.gpus -= gpus
            at += stride
        result.members.append(rows)
    for i, node in enumerate(nodes):
        assert ids(core_bits, i * core_words, core_words) == node.cores
        assert ids(gpu_bits, i * gpu_words, gpu_words) == node.gpus
        assert (core_free[i], gpu_free[i]) == (len(node.cores), len(node.gpus))
    return result


def capacity(node: Node, want: Want) -> int:
    """How many slots the node holds now."""
    if not node.usable:
        return 0
    limits = []
    if want.cores:
        limits.append(len(node.cores) // want.cores)
    if want.gpus:
        limits.append(len(node.gpus) // want.gpus)
    return min(limits)


def whole(node: Node) -> bool:
    return node.cores == node.all_cores and node.gpus == node.all_gpus


def possible(nodes: list[Node], want: Want) -> bool:
    """The oracle: whether one member could be placed, by trying every set of nodes."""
    able = [
        node
        for node in nodes
        if capacity(node, want) and (not want.exclusive or whole(node)) and node.usable
    ]
    if want.nodes:
        return any(
            all(capacity(node, want) >= want.slots for node in group)
            for group in itertools.combinations(able, want.nodes)
        )
    return sum(capacity(node, want) for node in able) >= want.slots


def check_member(
    rows: list[tuple[int, int, frozenset[int], frozenset[int]]], nodes: list[Node], want: Want
) -> None:
    """A placement is what was asked for."""
    numbers = [row[0] for row in rows]
    assert numbers == sorted(set(numbers)), "rows ascend by node, each node once"
    for i, slots, cores, gpus in rows:
        assert nodes[i].usable
        if want.exclusive:
            assert cores == nodes[i].all_cores
            assert gpus == nodes[i].all_gpus
        else:
            assert len(cores) == slots * want.cores
            assert len(gpus) == slots * want.gpus
    if want.nodes:
        assert len(rows) == want.nodes
        assert all(slots == want.slots for _, slots, _, _ in rows)
    else:
        assert sum(slots for _, slots, _, _ in rows) == want.slots


@st.composite
def machines(draw: st.DrawFn, max_nodes: int = 6) -> list[Node]:
    nodes = []
    for _ in range(draw(st.integers(0, max_nodes))):
        cores = frozenset(range(draw(st.integers(1, 6))))
        gpus = frozenset(range(draw(st.integers(0, 3))))
        busy_cores = draw(st.sets(st.sampled_from(sorted(cores))))
        busy_gpus = draw(st.sets(st.sampled_from(sorted(gpus)))) if gpus else set()
        usable = draw(st.integers(0, 5)) > 0
        nodes.append(Node(set(cores - busy_cores), set(gpus - busy_gpus), cores, gpus, usable))
    return nodes


@st.composite
def wants(draw: st.DrawFn) -> Want:
    nodes = draw(st.integers(0, 3))
    exclusive = nodes > 0 and draw(st.booleans())
    cores = draw(st.integers(0, 4))
    gpus = draw(st.integers(0 if cores else 1, 2))
    return Want(nodes, draw(st.integers(1, 8 if not nodes else 3)), cores, gpus, exclusive)


@settings(max_examples=400, deadline=None)
@given(machines(), wants(), st.integers(1, 12))
def test_what_is_placed_is_valid_and_what_is_not_placed_is_impossible(
    nodes: list[Node], want: Want, count: int
) -> None:
    if want.nodes == 0 and want.slots > 1:
        # Any division over nodes is as good as another for the total, so after every member
        # the oracle must agree on whether one more fits.
        for _ in range(count):
            fits = possible(nodes, want)
            result = run(kernels.place, nodes, want, 1)
            assert len(result.members) == int(fits)
            for rows in result.members:
                check_member(rows, nodes, want)
        return
    result = run(kernels.place, nodes, want, count)
    for rows in result.members:
        check_member(rows, nodes, want)
    assert len(result.members) == count or not possible(nodes, want)


@settings(max_examples=150, deadline=None)
@given(machines(max_nodes=14), wants(), st.integers(1, 12))
def test_a_batch_is_the_same_as_one_after_the_other(
    nodes: list[Node], want: Want, count: int
) -> None:
    def copies() -> list[Node]:
        return [Node(set(n.cores), set(n.gpus), n.all_cores, n.all_gpus, n.usable) for n in nodes]

    batch = run(kernels.place, copies(), want, count)
    machine = copies()
    singly = Result()
    for _ in range(count):
        singly.members += run(kernels.place, machine, want, 1).members
    assert batch == singly


@settings(max_examples=200, deadline=None)
@given(machines(), st.integers(1, 4), st.integers(0, 2))
def test_best_fit_takes_the_fullest_node_that_fits(
    nodes: list[Node], cores: int, gpus: int
) -> None:
    want = Want(0, 1, cores, gpus, False)
    fitting = [i for i, node in enumerate(nodes) if capacity(node, want)]
    best = min(fitting, key=lambda i: (len(nodes[i].cores), i), default=None)
    result = run(kernels.place, nodes, want, 1)
    assert [rows[0][0] for rows in result.members] == ([] if best is None else [best])


@settings(max_examples=200, deadline=None)
@given(machines(), st.integers(2, 12), st.integers(1, 3))
def test_slots_of_one_job_use_as_few_nodes_as_possible(
    nodes: list[Node], slots: int, cores: int
) -> None:
    want = Want(0, slots, cores, 0, False)
    able = [node for node in nodes if capacity(node, want)]
    fewest = next(
        (
            size
            for size in range(1, len(able) + 1)
            for group in itertools.combinations(able, size)
            if sum(capacity(node, want) for node in group) >= slots
        ),
        None,
    )
    result = run(kernels.place, nodes, want, 1)
    assert [len(rows) for rows in result.members] == ([] if fewest is None else [fewest])


def test_the_rest_of_a_job_goes_where_it_fits_best() -> None:
    nodes = [
        Node(set(range(free)), set(), frozenset(range(4)), frozenset()) for free in (4, 3, 4, 2, 3)
    ]
    result = run(kernels.place, nodes, Want(0, 9, 1, 0, False), 1)
    assert [(row[0], row[1]) for row in result.members[0]] == [(0, 4), (2, 4), (3, 1)]


def test_several_nodes_are_the_fullest_that_fit_and_empty_ones_stay_whole() -> None:
    nodes = [
        Node(set(range(free)), set(), frozenset(range(4)), frozenset()) for free in (4, 1, 3, 2, 3)
    ]
    result = run(kernels.place, nodes, Want(3, 1, 2, 0, False), 2)
    assert [[row[0] for row in rows] for rows in result.members] == [[2, 3, 4]]


def test_ids_beyond_one_word() -> None:
    cores = frozenset(range(130))
    gpus = frozenset({0, 70})
    nodes = [Node(set(cores), set(gpus), cores, gpus)]
    result = run(kernels.place, nodes, Want(0, 1, 100, 2, False), 3, words=(3, 2))
    assert len(result.members) == 1
    ((_, slots, taken, taken_gpus),) = result.members[0]
    assert slots == 1
    assert taken == frozenset(range(100))
    assert taken_gpus == gpus


def test_output_that_is_full_stops_before_a_member_and_leaves_it_unplaced() -> None:
    cores = frozenset(range(2))
    nodes = [Node(set(cores), set(), cores, frozenset()) for _ in range(4)]
    want = Want(2, 1, 1, 0, False)
    result = run(kernels.place, nodes, want, 4, out_rows=3)
    assert [len(rows) for rows in result.members] == [2]
    assert sum(len(node.cores) for node in nodes) == 6


@pytest.fixture(scope="session")
def compiled() -> Callable[..., int]:
    pytest.importorskip("numba")
    from flux_mpi.sched.tiered import compile_place

    return compile_place()


def test_compiled_and_interpreted_agree(compiled: Callable[..., int]) -> None:
    numpy = pytest.importorskip("numpy")

    def face(words: array[int]) -> Any:
        return numpy.frombuffer(words, dtype=numpy.int64) if len(words) else numpy.zeros(0, "q")

    @settings(max_examples=100, deadline=None)
    @given(machines(max_nodes=14), wants(), st.integers(1, 12))
    def agree(nodes: list[Node], want: Want, count: int) -> None:
        twin = [Node(set(n.cores), set(n.gpus), n.all_cores, n.all_gpus, n.usable) for n in nodes]
        plain = run(kernels.place, nodes, want, count)
        fast = run(compiled, twin, want, count, face)
        assert plain == fast
        assert nodes == twin

    agree()
