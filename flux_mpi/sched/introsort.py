"""Introspective sort (Musser 1997) of pairs in a flat array, with the choices of libstdc++.

Candidates of equal score must come out in the order in which Fluxion would take them, and Fluxion
leaves that to ``std::sort``, which is not stable. So the pivot is the median of the second, middle
and last element, partitions of at most 16 are left to one insertion sort at the end, and elements
equal to the pivot are exchanged.
"""

from __future__ import annotations

from typing import Any

Words = Any

SMALL = 16


def exchange(w: Words, i: int, j: int) -> None:
    """Swap the pairs at ``i`` and ``j``."""
    key = w[i]
    row = w[i + 1]
    w[i] = w[j]
    w[i + 1] = w[j + 1]
    w[j] = key
    w[j + 1] = row


def sift(w: Words, base: int, root: int, n: int, key: int, row: int) -> None:
    """Put a pair into the heap of ``n`` pairs at ``base`` in place of the one at ``root``.

    The gap sinks to the bottom first and the pair rises from there: which of equal pairs end where
    depends on that.
    """
    gap = root
    while 2 * gap + 1 < n:
        child = 2 * gap + 2
        if child == n or w[base + 2 * child] < w[base + 2 * child - 2]:
            child -= 1
        w[base + 2 * gap] = w[base + 2 * child]
        w[base + 2 * gap + 1] = w[base + 2 * child + 1]
        gap = child
    while gap > root and w[base + 2 * ((gap - 1) // 2)] < key:
        parent = (gap - 1) // 2
        w[base + 2 * gap] = w[base + 2 * parent]
        w[base + 2 * gap + 1] = w[base + 2 * parent + 1]
        gap = parent
    w[base + 2 * gap] = key
    w[base + 2 * gap + 1] = row


def heapsort(w: Words, base: int, n: int) -> None:
    """What the recursion falls back on when its partitions stay lopsided."""
    for root in range(n // 2 - 1, -1, -1):
        sift(w, base, root, n, w[base + 2 * root], w[base + 2 * root + 1])
    for last in range(n - 1, 0, -1):
        key = w[base + 2 * last]
        row = w[base + 2 * last + 1]
        w[base + 2 * last] = w[base]
        w[base + 2 * last + 1] = w[base + 1]
        sift(w, base, 0, last, key, row)


def insert(w: Words, base: int, at: int, guarded: int) -> None:
    """Move the pair at index ``at`` down to its place among the sorted ones before it."""
    key = w[base + 2 * at]
    row = w[base + 2 * at + 1]
    i = at
    if guarded != 0 and key < w[base]:
        while i > 0:
            w[base + 2 * i] = w[base + 2 * i - 2]
            w[base + 2 * i + 1] = w[base + 2 * i - 1]
            i -= 1
    else:
        while key < w[base + 2 * i - 2]:
            w[base + 2 * i] = w[base + 2 * i - 2]
            w[base + 2 * i + 1] = w[base + 2 * i - 1]
            i -= 1
    w[base + 2 * i] = key
    w[base + 2 * i + 1] = row


def introsort(w: Words, base: int, n: int, stack_at: int) -> None:
    """Sort ``n`` pairs (key, row) at ``w[base]``, ascending by key.

    Uses 3 words for each level of recursion from ``w[stack_at]`` on: 3 × 2 log2 n at most.
    """
    depth = 0
    while n >> (depth + 1) > 0:
        depth += 1
    depth *= 2
    w[stack_at] = 0
    w[stack_at + 1] = n
    w[stack_at + 2] = depth
    top = 1
    while top > 0:
        top -= 1
        first = w[stack_at + 3 * top]
        last = w[stack_at + 3 * top + 1]
        depth = w[stack_at + 3 * top + 2]
        while last - first > SMALL:
            if depth == 0:
                heapsort(w, base + 2 * first, last - first)
                break
            depth -= 1
            f = base + 2 * first
            a = f + 2
            b = base + 2 * (first + (last - first) // 2)
            c = base + 2 * (last - 1)
            if w[a] < w[b]:
                if w[b] < w[c]:
                    exchange(w, f, b)
                elif w[a] < w[c]:
                    exchange(w, f, c)
                else:
                    exchange(w, f, a)
            elif w[a] < w[c]:
                exchange(w, f, a)
            elif w[b] < w[c]:
                exchange(w, f, c)
            else:
                exchange(w, f, b)
            pivot = w[f]
            i = f + 2
            j = base + 2 * last
            while True:
                while w[i] < pivot:
                    i += 2
                j -= 2
                while pivot < w[j]:
                    j -= 2
                if i >= j:
                    break
                exchange(w, i, j)
                i += 2
            cut = (i - base) // 2
            # The right part first, as the recursion would; then this loop goes on with the left:
            # parts do not overlap, so their order is free.
            w[stack_at + 3 * top] = cut
            w[stack_at + 3 * top + 1] = last
            w[stack_at + 3 * top + 2] = depth
            top += 1
            last = cut
    if n > SMALL:
        for at in range(1, SMALL):
            insert(w, base, at, 1)
        for at in range(SMALL, n):
            insert(w, base, at, 0)
    else:
        for at in range(1, n):
            insert(w, base, at, 1)
