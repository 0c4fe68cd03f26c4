"""How much of each vertex is taken when: step functions of time, as linked rows of one pool.

A vertex's timeline is a list of points ascending in time. From a point on, up to the next, the
vertex carries what the point says: how many jobs touch it or something below it, how many of its
units are taken, and how many units of each tracked type are taken below it. Before the first
point, and on a vertex without points, all of that is zero. Where a job takes everything below a
vertex, the vertex says so (P_WHOLE) and what is below it carries nothing of that job.

Kernels: plain loops over integers in flat arrays, run interpreted over ``array`` objects and
compiled over NumPy views of the same memory. ``p`` is the pool, ``pw`` the width of its rows,
``s`` the scalars (`scalars.S_FREE` heads the list of free rows).
"""

from __future__ import annotations

from typing import Any

from flux_mpi.sched.scalars import S_FREE, S_FREE_ROWS

Words = Any

# Columns of a point. P_TAIL, the list's last row, stands in its first row only. Aggregates of the
# tracked types follow from P_BELOW on.
P_TIME, P_NEXT, P_REFS, P_TAIL, P_JOBS, P_UNITS, P_WHOLE, P_BELOW = range(8)

FOREVER = 1 << 62
"""Later than anything: the end of what has no end, in seconds."""


def peak(p: Words, pw: int, head: int, at: int, end: int, column: int) -> int:
    """The most that ``column`` carries anywhere in [at, end)."""
    most = 0
    if head < 0 or at >= p[p[head * pw + P_TAIL] * pw]:
        return most
    row = head
    while row >= 0:
        base = row * pw
        time = p[base]
        if time >= end:
            break
        load = p[base + column]
        if time <= at or load > most:
            most = load
        row = p[base + P_NEXT]
    return most


def level(p: Words, pw: int, head: int, at: int, column: int) -> int:
    """What ``column`` carries at the moment ``at``."""
    load = 0
    row = head
    while row >= 0 and p[row * pw] <= at:
        load = p[row * pw + column]
        row = p[row * pw + P_NEXT]
    return load


def point_at(p: Words, pw: int, s: Words, v: Words, head_at: int, time: int) -> int:
    """The row of the point at ``time``, made (as the level stands) where there is none.

    ``v[head_at]`` heads the list. There must be a free row.
    """
    head = v[head_at]
    before = -1
    row = head
    if head >= 0:
        tail = p[head * pw + P_TAIL]
        if time >= p[tail * pw]:
            before = tail
            row = -1
            if time == p[tail * pw]:
                return tail
    while row >= 0 and p[row * pw] < time:
        before = row
        row = p[row * pw + P_NEXT]
    if row >= 0 and p[row * pw] == time:
        return row
    new = s[S_FREE]
    base = new * pw
    s[S_FREE] = p[base + P_NEXT]
    s[S_FREE_ROWS] -= 1
    p[base] = time
    p[base + P_NEXT] = row
    p[base + P_REFS] = 0
    if before >= 0:
        p[before * pw + P_NEXT] = new
        for column in range(P_JOBS, pw):
            p[base + column] = p[before * pw + column]
        if row < 0:
            p[head * pw + P_TAIL] = new
    else:
        v[head_at] = new
        p[base + P_TAIL] = new if head < 0 else p[head * pw + P_TAIL]
        for column in range(P_JOBS, pw):
            p[base + column] = 0
    return new


def hold(
    p: Words,
    pw: int,
    s: Words,
    v: Words,
    head_at: int,
    start: int,
    end: int,
    jobs: int,
    units: int,
    whole: int,
    below: Words,
    below_at: int,
    n_below: int,
) -> None:
    """Add a span: from ``start`` to ``end`` so many jobs, units and units below are taken."""
    first = point_at(p, pw, s, v, head_at, start)
    p[first * pw + P_REFS] += 1
    last = point_at(p, pw, s, v, head_at, end)
    p[last * pw + P_REFS] += 1
    row = first
    while row != last:
        base = row * pw
        p[base + P_JOBS] += jobs
        p[base + P_UNITS] += units
        p[base + P_WHOLE] += whole
        for k in range(n_below):
            p[base + P_BELOW + k] += below[below_at + k]
        row = p[base + P_NEXT]


def ease(
    p: Words,
    pw: int,
    v: Words,
    head_at: int,
    start: int,
    end: int,
    jobs: int,
    units: int,
    whole: int,
    below: Words,
    below_at: int,
    n_below: int,
) -> None:
    """Take some of a span back without ending it: its points stay."""
    row = v[head_at]
    while row >= 0 and p[row * pw] < end:
        base = row * pw
        if p[base] >= start:
            p[base + P_JOBS] -= jobs
            p[base + P_UNITS] -= units
            p[base + P_WHOLE] -= whole
            for k in range(n_below):
                p[base + P_BELOW + k] -= below[below_at + k]
        row = p[base + P_NEXT]


def drop_points(p: Words, pw: int, s: Words, v: Words, head_at: int, start: int, end: int) -> None:
    """End a span whose amounts are taken back: its points go unless others use them too."""
    before = -1
    row = v[head_at]
    while row >= 0 and p[row * pw] <= end:
        base = row * pw
        following = p[base + P_NEXT]
        if p[base] == start or p[base] == end:
            p[base + P_REFS] -= 1
            if p[base + P_REFS] == 0:
                tail = p[v[head_at] * pw + P_TAIL]
                if before >= 0:
                    p[before * pw + P_NEXT] = following
                    if following < 0:
                        p[v[head_at] * pw + P_TAIL] = before
                else:
                    v[head_at] = following
                    if following >= 0:
                        p[following * pw + P_TAIL] = tail
                p[base + P_NEXT] = s[S_FREE]
                s[S_FREE] = row
                s[S_FREE_ROWS] += 1
                row = following
                continue
        before = row
        row = following
