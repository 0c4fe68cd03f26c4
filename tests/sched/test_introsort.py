"""The sort that breaks ties as libstdc++ does, against `sorted` and a model of ``std::sort``."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.sched.introsort import heapsort, introsort

Pair = tuple[int, int]

STACK = 3 * 64


class Model:
    """``std::sort`` of libstdc++ (bits/stl_algo.h), function by function, on a list of pairs.

    Only keys are compared, so the second member tells which of equal elements went where.
    """

    threshold = 16

    def __init__(self, items: list[Pair]) -> None:
        self.a = items[:]
        self.heapsorted = 0

    def less(self, x: Pair, y: Pair) -> bool:
        return x[0] < y[0]

    def sort(self) -> list[Pair]:
        n = len(self.a)
        if n:
            self.introsort_loop(0, n, 2 * (n.bit_length() - 1))
            self.final_insertion_sort(0, n)
        return self.a

    def introsort_loop(self, first: int, last: int, depth: int) -> None:
        while last - first > self.threshold:
            if depth == 0:
                self.heapsorted += 1
                self.partial_sort(first, last)
                return
            depth -= 1
            cut = self.unguarded_partition_pivot(first, last)
            self.introsort_loop(cut, last, depth)
            last = cut

    def unguarded_partition_pivot(self, first: int, last: int) -> int:
        self.move_median_to_first(first, first + 1, first + (last - first) // 2, last - 1)
        return self.unguarded_partition(first + 1, last, first)

    def move_median_to_first(self, result: int, a: int, b: int, c: int) -> None:
        x, y, z = self.a[a], self.a[b], self.a[c]
        if self.less(x, y):
            median = b if self.less(y, z) else c if self.less(x, z) else a
        else:
            median = a if self.less(x, z) else c if self.less(y, z) else b
        self.swap(result, median)

    def unguarded_partition(self, first: int, last: int, pivot: int) -> int:
        while True:
            while self.less(self.a[first], self.a[pivot]):
                first += 1
            last -= 1
            while self.less(self.a[pivot], self.a[last]):
                last -= 1
            if not first < last:
                return first
            self.swap(first, last)
            first += 1

    def swap(self, i: int, j: int) -> None:
        self.a[i], self.a[j] = self.a[j], self.a[i]

    def final_insertion_sort(self, first: int, last: int) -> None:
        if last - first > self.threshold:
            self.insertion_sort(first, first + self.threshold)
            for i in range(first + self.threshold, last):
                self.unguarded_linear_insert(i)
        else:
            self.insertion_sort(first, last)

    def insertion_sort(self, first: int, last: int) -> None:
        for i in range(first + 1, last):
            if self.less(self.a[i], self.a[first]):
                self.a.insert(first, self.a.pop(i))
            else:
                self.unguarded_linear_insert(i)

    def unguarded_linear_insert(self, i: int) -> None:
        value = self.a[i]
        while self.less(value, self.a[i - 1]):
            self.a[i] = self.a[i - 1]
            i -= 1
        self.a[i] = value

    def partial_sort(self, first: int, last: int) -> None:
        """``std::__partial_sort`` of all: make a heap, then pop it empty."""
        heap = self.a[first:last]
        for parent in range((len(heap) - 2) // 2, -1, -1):
            self.adjust_heap(heap, parent, len(heap), heap[parent])
        for end in range(len(heap) - 1, 0, -1):
            value, heap[end] = heap[end], heap[0]
            self.adjust_heap(heap, 0, end, value)
        self.a[first:last] = heap

    def adjust_heap(self, heap: list[Pair], hole: int, n: int, value: Pair) -> None:
        """Let the hole sink to the bottom, then the value rise from there."""
        top = hole
        child = hole
        while child < (n - 1) // 2:
            child = 2 * child + 2
            if self.less(heap[child], heap[child - 1]):
                child -= 1
            heap[hole] = heap[child]
            hole = child
        if n % 2 == 0 and child == (n - 2) // 2:
            child = 2 * child + 1
            heap[hole] = heap[child]
            hole = child
        parent = (hole - 1) // 2
        while hole > top and self.less(heap[parent], value):
            heap[hole] = heap[parent]
            hole = parent
            parent = (hole - 1) // 2
        heap[hole] = value


def ours(items: list[Pair], before: int = 0) -> list[Pair]:
    """``items`` sorted, behind some words that must stay."""
    w = array("q", [-7] * before + [x for item in items for x in item] + [-9] * STACK)
    introsort(w, before, len(items), before + 2 * len(items))
    assert list(w[:before]) == [-7] * before
    return [(w[i], w[i + 1]) for i in range(before, before + 2 * len(items), 2)]


def numbered(keys: list[int]) -> list[Pair]:
    return [(key, i) for i, key in enumerate(keys)]


def killer(n: int) -> list[int]:
    """Keys for which the median of three is always among the least: partitions stay lopsided."""
    # Musser's sequence, by letting an adversary decide late how large elements are.
    solid = 0
    value = [-1] * n
    pivot = 0

    class Late:
        def __init__(self, i: int) -> None:
            self.i = i

    def less(x: tuple[Late, int], y: tuple[Late, int]) -> bool:
        nonlocal solid, pivot
        a, b = x[0].i, y[0].i
        if value[a] < 0 and value[b] < 0:
            value[a if a == pivot else b] = solid
            solid += 1
        if value[a] < 0:
            pivot = a
        elif value[b] < 0:
            pivot = b
        return (value[a] if value[a] >= 0 else n) < (value[b] if value[b] >= 0 else n)

    class Adversary(Model):
        def less(self, x: Pair, y: Pair) -> bool:
            return less(x, y)  # type: ignore[arg-type]

    Adversary([(Late(i), i) for i in range(n)]).sort()  # type: ignore[misc]
    return [v if v >= 0 else n for v in value]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-(1 << 62), 1 << 62), max_size=300), st.integers(0, 3))
def test_sorts_any_keys(keys: list[int], before: int) -> None:
    found = ours(numbered(keys), 2 * before)
    assert [key for key, _ in found] == sorted(keys)
    assert sorted(found) == sorted(numbered(keys))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 1 << 32))
def test_ties_come_out_as_in_libstdcxx(n: int, different: int, seed: int) -> None:
    shuffled = random.Random(seed)
    items = numbered([shuffled.randrange(different) for _ in range(n)])
    assert ours(items) == Model(items).sort()


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 18, 31, 32, 33, 64, 255, 300])
def test_special_orders_come_out_as_in_libstdcxx(n: int) -> None:
    for keys in (
        [0] * n,
        list(range(n)),
        list(range(n, 0, -1)),
        [i // 7 for i in range(n)],
        [-(i // 7) for i in range(n)],
        [i % 5 for i in range(n)],
        [min(i, n - i) for i in range(n)],
        [i % 2 * n - i // 3 for i in range(n)],
    ):
        items = numbered(keys)
        assert ours(items) == Model(items).sort()


def test_lopsided_partitions_end_in_a_heap() -> None:
    keys = killer(300)
    model = Model(numbered(keys))
    expected = model.sort()
    assert model.heapsorted
    assert ours(numbered(keys)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=80))
def test_heapsort_sorts(keys: list[int]) -> None:
    w = array("q", [x for item in numbered(keys) for x in item])
    heapsort(w, 0, len(keys))
    found = list(zip(w[::2], w[1::2]))
    assert [key for key, _ in found] == sorted(keys)
    assert sorted(found) == sorted(numbered(keys))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=17, max_size=120))
def test_heapsort_breaks_ties_as_in_libstdcxx(keys: list[int]) -> None:
    model = Model(numbered(keys))
    model.partial_sort(0, len(keys))
    w = array("q", [x for item in numbered(keys) for x in item])
    heapsort(w, 0, len(keys))
    assert list(zip(w[::2], w[1::2])) == model.a
