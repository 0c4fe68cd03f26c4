"""Writing a selection into the timelines, and taking it out again: kernels over rows of `walk`."""

from __future__ import annotations

from typing import Any

from flux_mpi.resource.graph import (
    E_WIDTH,
    EW_WEIGHT,
    EW_WIDTH,
    V_HEAD,
    V_NALLOC,
    V_OUT,
    V_OUT_END,
    V_PARENT,
    V_TYPE,
    V_WIDTH,
)
from flux_mpi.sched.scalars import (
    KIND_ALLOCATE,
    KIND_LOOK,
    KIND_PROBE,
    KIND_SATISFY,
    S_AT,
    S_BELOW,
    S_CARRIERS,
    S_END,
    S_EXCLUSIVE,
    S_FIRST,
    S_FREE_ROWS,
    S_KIND,
    S_NEEDS,
    S_NOW,
    S_POINT_WIDTH,
    S_ROWS,
    S_TYPES,
    X_TOTAL,
)
from flux_mpi.sched.selection import select, select_best
from flux_mpi.sched.takewalk import (
    O_ANY_BELOW,
    O_BELOW,
    O_DEPTH,
    O_EDGE,
    O_INDEX,
    O_NEEDS,
    O_TAKEN,
    O_WHOLE,
    walk,
)
from flux_mpi.sched.timeline import P_BELOW, P_NEXT, P_WHOLE, drop_points, ease, hold, level

Words = Any


WHOLE_ALLOCATION = 1 << 16
"""What V_NALLOC counts for an allocation of everything below a vertex."""


def book(
    v: Words,
    p: Words,
    s: Words,
    rows: Words,
    n_rows: int,
    start: int,
    end: int,
    allocated: int,
    kept: Words,
    n_kept: int,
) -> int:
    """Take the rows' resources from ``start`` to ``end``; returns how many vertices carry that.

    Their rows, which are all that `release` needs, are copied to the last of the ``n_kept`` rows
    of ``kept``. There must be two free points for each of them. ``allocated``: 0 for a reservation.
    """
    pw = s[S_POINT_WIDTH]
    n_below = s[S_BELOW]
    width = O_BELOW + n_below
    cover = 0  # level of the vertex above whose job takes all, 0 for none
    carriers = 0
    for i in range(n_rows - 1, -1, -1):
        base = i * width
        depth = rows[base + O_DEPTH]
        if depth <= cover:
            cover = 0
        if cover > 0:
            continue
        carriers += 1
        keep = (n_kept - carriers) * width
        for k in range(width):
            kept[keep + k] = rows[base + k]
        vertex = rows[base + O_INDEX] * V_WIDTH
        units = 0
        if rows[base + O_TAKEN] != 0:
            units = rows[base + O_NEEDS]
            v[vertex + V_NALLOC] += allocated
        whole = rows[base + O_WHOLE]
        if whole != 0:
            cover = depth
            v[vertex + V_NALLOC] += allocated * WHOLE_ALLOCATION
        n = n_below if rows[base + O_ANY_BELOW] != 0 else 0
        hold(p, pw, s, v, vertex + V_HEAD, start, end, 1, units, whole, rows, base + O_BELOW, n)
    return carriers


def carriers_of(s: Words, rows: Words, n_rows: int) -> int:
    """How many vertices `book` would let carry these rows."""
    width = O_BELOW + s[S_BELOW]
    cover = 0
    carriers = 0
    for i in range(n_rows - 1, -1, -1):
        base = i * width
        depth = rows[base + O_DEPTH]
        if depth <= cover:
            cover = 0
        if cover == 0:
            carriers += 1
            if rows[base + O_WHOLE] != 0:
                cover = depth
    return carriers


def release(
    v: Words,
    p: Words,
    s: Words,
    rows: Words,
    n_rows: int,
    start: int,
    end: int,
    allocated: int,
) -> int:
    """Undo `book` with the same arguments; returns the same."""
    pw = s[S_POINT_WIDTH]
    n_below = s[S_BELOW]
    width = O_BELOW + n_below
    cover = 0
    carriers = 0
    for i in range(n_rows - 1, -1, -1):
        base = i * width
        depth = rows[base + O_DEPTH]
        if depth <= cover:
            cover = 0
        if cover > 0:
            continue
        carriers += 1
        vertex = rows[base + O_INDEX] * V_WIDTH
        units = 0
        if rows[base + O_TAKEN] != 0:
            units = rows[base + O_NEEDS]
            v[vertex + V_NALLOC] -= allocated
        whole = rows[base + O_WHOLE]
        if whole != 0:
            cover = depth
            v[vertex + V_NALLOC] -= allocated * WHOLE_ALLOCATION
        n = n_below if rows[base + O_ANY_BELOW] != 0 else 0
        ease(p, pw, v, vertex + V_HEAD, start, end, 1, units, whole, rows, base + O_BELOW, n)
        drop_points(p, pw, s, v, vertex + V_HEAD, start, end)
    return carriers


def reweigh(
    v: Words,
    e: Words,
    ew: Words,
    by_weight: Words,
    sources: Words,
    uniq: Words,
    x: Words,
    xw: int,
    p: Words,
    s: Words,
    last: Words,
    rows: Words,
    n_rows: int,
    now: int,
) -> None:
    """Order edges anew by what is left below their targets ``now``, as far as rows touched them.

    ``last``: by type, the column of the tracked type that counts, or -1.
    """
    pw = s[S_POINT_WIDTH]
    width = O_BELOW + s[S_BELOW]
    for i in range(n_rows):
        base = i * width
        edge = rows[base + O_EDGE]
        if edge < 0:
            continue
        target = e[edge * E_WIDTH]
        vt = target * V_WIDTH
        column = last[v[vt + V_TYPE]]
        if column < 0 or v[vt + V_OUT] == v[vt + V_OUT_END]:
            continue
        total = x[target * xw + X_TOTAL + column]
        left = total - level(p, pw, v[vt + V_HEAD], now, P_BELOW + column)
        above = sources[edge]
        while True:
            if level(p, pw, v[above * V_WIDTH + V_HEAD], now, P_WHOLE) > 0:
                left = 0
            up = v[above * V_WIDTH + V_PARENT]
            if up < 0:
                break
            above = sources[up]
        if left == 0 and total == 0 and rows[base + O_ANY_BELOW] == 0:
            continue
        ew[edge * EW_WIDTH + EW_WEIGHT] = left
        vs = sources[edge] * V_WIDTH
        low = v[vs + V_OUT]
        high = v[vs + V_OUT_END]
        at = low
        while by_weight[at] != edge:
            at += 1
        while at + 1 < high:
            other = by_weight[at + 1]
            weight = ew[other * EW_WIDTH + EW_WEIGHT]
            if weight < left or (weight == left and uniq[e[other * E_WIDTH]] < uniq[target]):
                break
            by_weight[at] = other
            at += 1
        while at > low:
            other = by_weight[at - 1]
            weight = ew[other * EW_WIDTH + EW_WEIGHT]
            if weight > left or (weight == left and uniq[e[other * E_WIDTH]] > uniq[target]):
                break
            by_weight[at] = other
            at -= 1
        by_weight[at] = edge


def first_time(
    v: Words,
    x: Words,
    xw: int,
    p: Words,
    s: Words,
    root: int,
    needs: Words,
    after: int,
    duration: int,
) -> int:
    """The first point of the root's timeline, at ``after`` or later, from which on so many units of
    the tracked types are left for so long; -1 when there is none."""
    pw = s[S_POINT_WIDTH]
    tracked = s[S_TYPES + v[root * V_WIDTH + V_TYPE]] >> 1
    for k in range(s[S_BELOW]):
        if tracked >> k & 1 != 0 and needs[k] > x[root * xw + X_TOTAL + k]:
            return -1
    row = v[root * V_WIDTH + V_HEAD]
    while row >= 0 and p[row * pw] < after:
        row = p[row * pw + P_NEXT]
    while row >= 0:
        time = p[row * pw]
        ahead = row
        lacking = -1
        while ahead >= 0 and p[ahead * pw] < time + duration:
            for k in range(s[S_BELOW]):
                if tracked >> k & 1 != 0:
                    left = x[root * xw + X_TOTAL + k] - p[ahead * pw + P_BELOW + k]
                    if needs[k] > left:
                        lacking = ahead
            ahead = p[ahead * pw + P_NEXT]
        if lacking < 0:
            return time
        # No start before the last point that lacks something helps.
        row = p[lacking * pw + P_NEXT]
    return -1


FULL_ROWS, FULL_POINTS = -4, -5
"""What `request` returns when ``rows`` are too few, and when there are too few free points."""


def request(
    v: Words,
    e: Words,
    ew: Words,
    out: Words,
    by_weight: Words,
    sources: Words,
    uniq: Words,
    x: Words,
    p: Words,
    s: Words,
    w: Words,
    d: Words,
    rows: Words,
    kept: Words,
    last: Words,
    xw: int,
    n_d: int,
    root: int,
    n_kept: int,
    ok: Words,
    n_ok: int,
    req: Words,
    rw: int,
    n_top: int,
    starts: Words,
    best: Words,
    n_starts: int,
) -> int:
    """Find a request as the scalars say, write it down and, unless it is only looked for, book it.

    ``n_starts`` is -1 for a walk from the root (`select`), else see `select_best`. One kernel, for
    each call of one costs microseconds. Returns 0, or UNFIT, IMPOSSIBLE, or FULL, FULL_ROWS or
    FULL_POINTS when memory must grow first: then nothing has changed.
    """
    if n_starts < 0:
        status = select(
            v,
            e,
            ew,
            out,
            by_weight,
            sources,
            x,
            xw,
            p,
            ok,
            n_ok,
            req,
            rw,
            s,
            w,
            d,
            n_d,
            root,
            0,
            n_top,
        )
    else:
        status = select_best(
            v,
            e,
            ew,
            out,
            by_weight,
            sources,
            x,
            xw,
            p,
            ok,
            n_ok,
            req,
            rw,
            s,
            w,
            d,
            n_d,
            root,
            starts,
            best,
            n_starts,
        )
    kind = s[S_KIND]
    if status != 0 or kind in (KIND_SATISFY, KIND_PROBE):
        return status
    if walk(v, e, ew, out, x, xw, s, w, rows, root, s[S_NEEDS], s[S_EXCLUSIVE]) < 0:
        return FULL_ROWS
    n_rows = s[S_ROWS]
    if kind != KIND_LOOK:
        carriers = carriers_of(s, rows, n_rows)
        s[S_CARRIERS] = carriers
        if 2 * carriers > s[S_FREE_ROWS]:
            return FULL_POINTS
        allocated = 1 if kind == KIND_ALLOCATE else 0
        book(v, p, s, rows, n_rows, s[S_AT], s[S_END], allocated, kept, n_kept)
    if s[S_FIRST] != 0:
        now = s[S_NOW]
        reweigh(v, e, ew, by_weight, sources, uniq, x, xw, p, s, last, rows, n_rows, now)
    return 0
