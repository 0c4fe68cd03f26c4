"""What lives no longer than a search: candidates by type, in frames, as rows of one arena.

Kernels over integers in flat arrays: ``w`` is the arena, ``s`` the scalars, ``e`` and ``ew`` the
edges, where what is chosen gets marked.
"""

from __future__ import annotations

from typing import Any

from flux_mpi.resource.graph import E_EXCLUSIVE, E_MARK, E_WIDTH, EW_NEEDS, EW_WIDTH
from flux_mpi.sched.introsort import introsort
from flux_mpi.sched.scalars import ORDER_GREATER, ORDER_INTERVAL, S_LIMIT, S_TICK, S_TOP

Words = Any

A_WIDTH = 10
# A frame: what one vertex collects. Its entries, whether it has chosen, and what the vertex below
# that was visited last scored and has left.
F_ENTRIES, F_CHOSE, F_SCORE, F_LEFT = range(4)
# An entry of a frame: all candidates of one type (plus LABELS times the subsystem).
N_KEY, N_NEXT, N_HEAD, N_TAIL, N_SIZE, N_FIT, N_TOTAL, N_BEST, N_CHOSEN, N_CURSOR = range(10)
# A candidate: its score and units, and the edges to take for it: the first here, more in a list.
G_SCORE, G_COUNT, G_NEXT, G_IS_ROOT, G_EDGE, G_UNITS, G_EXCLUSIVE, G_MORE = range(8)


def new_row(w: Words, s: Words) -> int:
    """A zeroed row of the arena, or -1 when it is full."""
    row = s[S_TOP]
    if row >= s[S_LIMIT]:
        return -1
    s[S_TOP] = row + 1
    base = row * A_WIDTH
    for i in range(A_WIDTH):
        w[base + i] = 0
    return row


def new_frame(w: Words, s: Words) -> int:
    """An empty frame, or -1."""
    row = new_row(w, s)
    if row >= 0:
        w[row * A_WIDTH + F_ENTRIES] = -1
        w[row * A_WIDTH + F_SCORE] = -1
    return row


def find_entry(w: Words, frame: int, key: int) -> int:
    """The entry of a frame for a key, or -1."""
    entry = w[frame * A_WIDTH + F_ENTRIES]
    while entry >= 0 and w[entry * A_WIDTH + N_KEY] != key:
        entry = w[entry * A_WIDTH + N_NEXT]
    return entry


def open_entry(w: Words, s: Words, frame: int, key: int) -> int:
    """The entry of a frame for a key, made when there is none; -1 when the arena is full."""
    entry = find_entry(w, frame, key)
    if entry < 0:
        entry = new_row(w, s)
        if entry >= 0:
            base = entry * A_WIDTH
            w[base + N_KEY] = key
            w[base + N_HEAD] = -1
            w[base + N_TAIL] = -1
            w[base + N_CURSOR] = -1
            w[base + N_NEXT] = w[frame * A_WIDTH + F_ENTRIES]
            w[frame * A_WIDTH + F_ENTRIES] = entry
    return entry


def chain(w: Words, entry: int, row: int, count: int) -> None:
    """Make a candidate of so many units an entry's last; whether it fits, the caller counts."""
    base = entry * A_WIDTH
    if w[base + N_TAIL] < 0:
        w[base + N_HEAD] = row
    else:
        w[w[base + N_TAIL] * A_WIDTH + G_NEXT] = row
    w[base + N_TAIL] = row
    w[base + N_SIZE] += 1
    w[base + N_TOTAL] += count


def append(
    w: Words, s: Words, entry: int, score: int, count: int, edge: int, exclusive: int
) -> int:
    """`add` to an entry that is known."""
    row = s[S_TOP]
    if row >= s[S_LIMIT]:
        return -1
    s[S_TOP] = row + 1
    base = row * A_WIDTH
    w[base + G_SCORE] = score
    w[base + G_COUNT] = count
    w[base + G_NEXT] = -1
    w[base + G_IS_ROOT] = 1 if edge < 0 else 0
    w[base + G_EDGE] = edge
    w[base + G_UNITS] = count
    w[base + G_EXCLUSIVE] = exclusive
    w[base + G_MORE] = -1
    chain(w, entry, row, count)
    if score > 0:
        w[entry * A_WIDTH + N_FIT] += count
    return row


def add(
    w: Words, s: Words, frame: int, key: int, score: int, count: int, edge: int, exclusive: int
) -> int:
    """Add a candidate that is reached by one edge (or, with -1, is the root); its row, or -1."""
    entry = open_entry(w, s, frame, key)
    if entry < 0:
        return -1
    return append(w, s, entry, score, count, edge, exclusive)


def merge(w: Words, s: Words, frame: int, parent: int) -> int:
    """Hand all candidates of a frame on to another one; -1 when the arena is full."""
    entry = w[frame * A_WIDTH + F_ENTRIES]
    while entry >= 0:
        base = entry * A_WIDTH
        into = open_entry(w, s, parent, w[base + N_KEY])
        if into < 0:
            return -1
        to = into * A_WIDTH
        if w[base + N_HEAD] >= 0:
            if w[to + N_TAIL] < 0:
                w[to + N_HEAD] = w[base + N_HEAD]
            else:
                w[w[to + N_TAIL] * A_WIDTH + G_NEXT] = w[base + N_HEAD]
            w[to + N_TAIL] = w[base + N_TAIL]
        w[to + N_SIZE] += w[base + N_SIZE]
        w[to + N_TOTAL] += w[base + N_TOTAL]
        w[to + N_FIT] += w[base + N_FIT]
        entry = w[base + N_NEXT]
    return 0


def order(w: Words, s: Words, entry: int, how: int) -> int:
    """Sort the candidates of an entry, best first; -1 when the arena has no room for it."""
    base = entry * A_WIDTH
    n = w[base + N_SIZE]
    if n < 2:
        return 0
    at = s[S_TOP] * A_WIDTH
    if at + 2 * n + 512 > s[S_LIMIT] * A_WIDTH:
        return -1
    row = w[base + N_HEAD]
    i = at
    sorted_already = 1
    while row >= 0:
        score = w[row * A_WIDTH + G_SCORE]
        if how == ORDER_GREATER:
            score = -score
        if i > at and score <= w[i - 2]:
            sorted_already = 0
        w[i] = score
        w[i + 1] = row
        i += 2
        row = w[row * A_WIDTH + G_NEXT]
    if sorted_already != 0 and how != ORDER_INTERVAL:
        return 0
    stack = at + 2 * n
    if how == ORDER_INTERVAL:
        # Scores that follow each other without a gap form an interval and compare as one: by its
        # lower bound, greatest first. Find the bounds on a sorted copy of the scores.
        if at + 4 * n + 512 > s[S_LIMIT] * A_WIDTH:
            return -1
        copy = at + 2 * n
        for k in range(n):
            w[copy + 2 * k] = w[at + 2 * k]
            w[copy + 2 * k + 1] = k
        stack = at + 4 * n
        introsort(w, copy, n, stack)
        bound = w[copy]
        for k in range(n):
            score = w[copy + 2 * k]
            if k > 0 and score > w[copy + 2 * k - 2] + 1:
                bound = score
            w[at + 2 * w[copy + 2 * k + 1]] = -bound
    introsort(w, at, n, stack)
    w[base + N_HEAD] = w[at + 1]
    for k in range(n - 1):
        w[w[at + 2 * k + 1] * A_WIDTH + G_NEXT] = w[at + 2 * k + 3]
    w[base + N_TAIL] = w[at + 2 * n - 1]
    w[w[base + N_TAIL] * A_WIDTH + G_NEXT] = -1
    return 0


def choose(w: Words, s: Words, frame: int, entry: int, count: int, how: int) -> int:
    """Choose the best candidates that make up ``count`` units; -1 when the arena is full."""
    base = entry * A_WIDTH
    if count == 0 or count > w[base + N_FIT]:
        return 0
    if order(w, s, entry, how) < 0:
        return -1
    left = count
    chosen = 0
    row = w[base + N_HEAD]
    while left > 0:
        left -= w[row * A_WIDTH + G_COUNT]
        chosen += 1
        row = w[row * A_WIDTH + G_NEXT]
    w[base + N_BEST] = count
    w[base + N_CHOSEN] = chosen
    w[frame * A_WIDTH + F_CHOSE] = 1
    return 0


def mark(e: Words, ew: Words, s: Words, edge: int, units: int, exclusive: int) -> None:
    """Mark an edge as taken by this selection."""
    e[edge * E_WIDTH + E_MARK] = s[S_TICK]
    e[edge * E_WIDTH + E_EXCLUSIVE] = exclusive
    ew[edge * EW_WIDTH + EW_NEEDS] = units


def mark_chosen(e: Words, ew: Words, s: Words, w: Words, frame: int) -> None:
    """Mark the edges of all that a frame has chosen."""
    entry = w[frame * A_WIDTH + F_ENTRIES]
    while entry >= 0:
        base = entry * A_WIDTH
        row = w[base + N_HEAD]
        for _ in range(w[base + N_CHOSEN]):
            if w[row * A_WIDTH + G_IS_ROOT] == 0:
                at = row
                while at >= 0:
                    k = at * A_WIDTH
                    mark(e, ew, s, w[k + G_EDGE], w[k + G_UNITS], w[k + G_EXCLUSIVE])
                    at = w[k + G_MORE]
            row = w[row * A_WIDTH + G_NEXT]
        entry = w[base + N_NEXT]
