"""Selecting what a request takes: a search of the whole graph, or one that goes from the best on.

Kernels; their arguments are explained in `search`.
"""

from __future__ import annotations

from typing import Any

from flux_mpi.resource.graph import (
    E_MARK,
    E_WIDTH,
    V_COLOR,
    V_HEAD,
    V_NALLOC,
    V_OUT,
    V_OUT_END,
    V_PARENT,
    V_TYPE,
    V_WIDTH,
)
from flux_mpi.sched.arena import (
    A_WIDTH,
    F_ENTRIES,
    F_LEFT,
    F_SCORE,
    G_COUNT,
    G_EDGE,
    G_IS_ROOT,
    G_MORE,
    G_NEXT,
    G_SCORE,
    N_BEST,
    N_CHOSEN,
    N_FIT,
    N_HEAD,
    N_KEY,
    N_NEXT,
    N_SIZE,
    add,
    append,
    choose,
    find_entry,
    mark,
    mark_chosen,
    new_frame,
    open_entry,
    order,
)
from flux_mpi.sched.pruning import passable, prune, takes
from flux_mpi.sched.requestrows import R_FROM, R_IS_SLOT, R_MIN, R_MOST, R_TO, R_TYPE, count_for
from flux_mpi.sched.scalars import (
    KIND_ALLOCATE,
    KIND_LOOK,
    LABELS,
    ORDER_GREATER,
    S_AT,
    S_COLOR,
    S_END,
    S_EXCLUSIVE,
    S_GRAPH_ORDER,
    S_KIND,
    S_NEEDS,
    S_NOW,
    S_POINT_WIDTH,
    S_POST,
    S_PRE,
    S_TICK,
    S_TOP,
    X_SCORE,
    X_SIZE,
)
from flux_mpi.sched.search import FULL, IMPOSSIBLE, UNFIT, search
from flux_mpi.sched.timeline import P_WHOLE, peak

Words = Any


def mark_up(
    v: Words, e: Words, ew: Words, x: Words, xw: int, sources: Words, s: Words, w: Words, frame: int
) -> None:
    """Mark the edges on the way from the root to what the root's frame has chosen.

    Only vertices that the request does not constrain: those above them are marked already.
    """
    entry = w[frame * A_WIDTH + F_ENTRIES]
    while entry >= 0:
        base = entry * A_WIDTH
        row = w[base + N_HEAD]
        chosen = w[base + N_CHOSEN]
        if w[base + N_KEY] >= LABELS:
            chosen = 0
        for _ in range(chosen):
            at = row
            if w[row * A_WIDTH + G_IS_ROOT] != 0:
                at = -1
            while at >= 0:
                vertex = sources[w[at * A_WIDTH + G_EDGE]]
                while True:
                    edge = v[vertex * V_WIDTH + V_PARENT]
                    if edge < 0 or e[edge * E_WIDTH + E_MARK] == s[S_TICK]:
                        break
                    passed = find_entry(w, frame, v[vertex * V_WIDTH + V_TYPE])
                    if passed >= 0 and w[passed * A_WIDTH + N_BEST] == 0:
                        mark(e, ew, s, edge, x[vertex * xw + X_SIZE], 0)
                    vertex = sources[edge]
                at = w[at * A_WIDTH + G_MORE]
            row = w[row * A_WIDTH + G_NEXT]
        entry = w[base + N_NEXT]


def select(
    v: Words,
    e: Words,
    ew: Words,
    out: Words,
    by_weight: Words,
    sources: Words,
    x: Words,
    xw: int,
    p: Words,
    ok: Words,
    n_ok: int,
    req: Words,
    rw: int,
    s: Words,
    w: Words,
    d: Words,
    n_d: int,
    root: int,
    low: int,
    high: int,
) -> int:
    """Find the requests in [low, high) in the graph below ``root``; what is taken is marked.

    Returns 0 with S_NEEDS and S_EXCLUSIVE set for the root, or UNFIT, FULL (again with a larger
    arena) or IMPOSSIBLE.
    """
    s[S_TICK] += 1
    s[S_COLOR] += 1
    s[S_PRE] = 0
    s[S_POST] = 0
    s[S_TOP] = 0
    frame = new_frame(w, s)
    if frame < 0:
        return FULL
    kind = v[root * V_WIDTH + V_TYPE]
    exclusive = takes(req, rw, low, high, kind)
    found = search(
        v,
        e,
        ew,
        out,
        by_weight,
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
        low,
        high,
        exclusive,
        frame,
    )
    if found < 0:
        return found
    left = w[frame * A_WIDTH + F_LEFT]
    if add(w, s, frame, kind, w[frame * A_WIDTH + F_SCORE], left, -1, exclusive) < 0:
        return FULL
    needs = 1
    for r in range(low, high):
        entry = find_entry(w, frame, req[r * rw])
        have = 0
        if entry >= 0:
            have = w[entry * A_WIDTH + N_FIT]
        count = count_for(req, r * rw, have)
        if count == 0:
            return IMPOSSIBLE
        if choose(w, s, frame, entry, count, s[S_GRAPH_ORDER]) < 0:
            return FULL
        if req[r * rw] == kind:
            needs = count_for(req, r * rw, left)
            if needs == 0:
                return IMPOSSIBLE
    entry = w[frame * A_WIDTH + F_ENTRIES]
    while entry >= 0:
        if w[entry * A_WIDTH + N_FIT] == 0:
            return IMPOSSIBLE
        entry = w[entry * A_WIDTH + N_NEXT]
    mark_chosen(e, ew, s, w, frame)
    mark_up(v, e, ew, x, xw, sources, s, w, frame)
    s[S_NEEDS] = needs
    s[S_EXCLUSIVE] = found
    return 0


def bound_of(
    v: Words,
    e: Words,
    out: Words,
    x: Words,
    xw: int,
    req: Words,
    rw: int,
    u: int,
    low: int,
    high: int,
    how: int,
) -> int:
    """The best score that a slot of the requests in [low, high) could have at ``u``: of the idle
    vertex, each unit with the best score there is. Smaller is better whatever ``how`` says."""
    score = 1
    for r in range(low, high):
        best = 0
        seen = 0
        for i in range(v[u * V_WIDTH + V_OUT], v[u * V_WIDTH + V_OUT_END]):
            child = e[out[i] * E_WIDTH]
            if v[child * V_WIDTH + V_TYPE] == req[r * rw]:
                value = x[child * xw + X_SCORE]
                if seen == 0 or (value < best) == (how != ORDER_GREATER):
                    best = value
                seen = 1
        score += best * req[r * rw + R_MIN]
    return -score if how == ORDER_GREATER else score


def bounds(
    v: Words,
    e: Words,
    out: Words,
    x: Words,
    xw: int,
    req: Words,
    rw: int,
    s: Words,
    starts: Words,
    n_starts: int,
    best: Words,
) -> int:
    """Put into ``best`` how well a search that starts at each of ``starts`` can do; returns 0.

    For a resource its score, for a slot `bound_of`; smaller is better.
    """
    how = s[S_GRAPH_ORDER]
    for i in range(n_starts):
        u = starts[i]
        if req[R_IS_SLOT] != 0:
            best[i] = bound_of(v, e, out, x, xw, req, rw, u, req[R_FROM], req[R_TO], how)
        else:
            score = x[u * xw + X_SCORE]
            best[i] = -score if how == ORDER_GREATER else score
    return 0


def way_open(
    v: Words,
    e: Words,
    sources: Words,
    x: Words,
    xw: int,
    p: Words,
    ok: Words,
    n_ok: int,
    req: Words,
    rw: int,
    s: Words,
    u: int,
) -> int:
    """Whether a walk for the one request would pass all vertices above ``u``."""
    edge = v[u * V_WIDTH + V_PARENT]
    while edge >= 0:
        above = sources[edge]
        row = above * V_WIDTH
        if v[row + V_COLOR] == s[S_COLOR]:
            return 1  # passed before, and so all above it
        if v[row + V_COLOR] == -s[S_COLOR]:
            return 0
        s[S_PRE] += 1
        shut = prune(v, x, xw, p, ok, n_ok, req, rw, s, above, 0, 1, 0)
        if shut == 0 and passable(v, x, xw, p, req, rw, s, above, 0, 1) == 0:
            shut = -1
        head = v[row + V_HEAD]
        if shut == 0 and (
            (head >= 0 and peak(p, s[S_POINT_WIDTH], head, s[S_AT], s[S_END], P_WHOLE) > 0)
            or (
                s[S_AT] == s[S_NOW]
                and s[S_KIND] in (KIND_ALLOCATE, KIND_LOOK)
                and v[row + V_NALLOC] > 0xFFFF
            )
        ):
            shut = -1
        if shut < 0:
            v[row + V_COLOR] = -s[S_COLOR]
            return 0
        edge = v[row + V_PARENT]
    # All the way is open: say so for the others that go it.
    edge = v[u * V_WIDTH + V_PARENT]
    while edge >= 0:
        row = sources[edge] * V_WIDTH
        v[row + V_COLOR] = s[S_COLOR]
        edge = v[row + V_PARENT]
    return 1


def mark_ways(
    v: Words, e: Words, ew: Words, x: Words, xw: int, sources: Words, s: Words, w: Words, entry: int
) -> None:
    """Mark the edges on the way from the root to the chosen candidates of an entry."""
    base = entry * A_WIDTH
    row = w[base + N_HEAD]
    for _ in range(w[base + N_CHOSEN]):
        vertex = sources[w[row * A_WIDTH + G_EDGE]]
        while True:
            edge = v[vertex * V_WIDTH + V_PARENT]
            if edge < 0 or e[edge * E_WIDTH + E_MARK] == s[S_TICK]:
                break
            mark(e, ew, s, edge, x[vertex * xw + X_SIZE], 0)
            vertex = sources[edge]
        row = w[row * A_WIDTH + G_NEXT]


def select_best(
    v: Words,
    e: Words,
    ew: Words,
    out: Words,
    by_weight: Words,
    sources: Words,
    x: Words,
    xw: int,
    p: Words,
    ok: Words,
    n_ok: int,
    req: Words,
    rw: int,
    s: Words,
    w: Words,
    d: Words,
    n_d: int,
    root: int,
    starts: Words,
    best: Words,
    n_starts: int,
) -> int:
    """`select` for one outermost request that only ``starts`` can begin to answer.

    ``best`` says how well each of them can do, best first; the search ends when none that is left
    can do better than what was found. What it finds scores as what `select` would find does;
    between equal scores the choice may be another one.
    """
    s[S_TICK] += 1
    s[S_COLOR] += 1
    s[S_PRE] = 0
    s[S_POST] = 0
    s[S_TOP] = 0
    frame = new_frame(w, s)
    if frame < 0:
        return FULL
    how = s[S_GRAPH_ORDER]
    most = req[R_MOST]
    exclusive = takes(req, rw, 0, 1, v[root * V_WIDTH + V_TYPE])
    entry = open_entry(w, s, frame, req[R_TYPE])
    if entry < 0:
        return FULL
    base = entry * A_WIDTH
    checked = 0
    for i in range(n_starts):
        if w[base + N_FIT] >= most:
            # Enough; but does the worst of the best still beat what is to come?
            if checked != w[base + N_SIZE]:
                checked = w[base + N_SIZE]
                if order(w, s, entry, how) < 0:
                    return FULL
            left = most
            row = w[base + N_HEAD]
            score = 0
            while left > 0:
                left -= w[row * A_WIDTH + G_COUNT]
                score = w[row * A_WIDTH + G_SCORE]
                row = w[row * A_WIDTH + G_NEXT]
            if how == ORDER_GREATER:
                score = -score
            if score <= best[i]:
                break
        u = starts[i]
        if way_open(v, e, sources, x, xw, p, ok, n_ok, req, rw, s, u) == 0:
            continue
        found = search(
            v, e, ew, out, by_weight, x, xw, p, ok, n_ok, req, rw, s, w, d, n_d, u, 0, 1, 0, frame
        )
        if found == FULL:
            return FULL
        if found >= 0 and req[R_IS_SLOT] == 0:
            count = w[frame * A_WIDTH + F_LEFT]
            score = w[frame * A_WIDTH + F_SCORE]
            edge = v[u * V_WIDTH + V_PARENT]
            if append(w, s, entry, score, count, edge, found) < 0:
                return FULL
    if w[base + N_FIT] == 0:
        return UNFIT
    count = count_for(req, 0, w[base + N_FIT])
    if count == 0:
        return IMPOSSIBLE
    if choose(w, s, frame, entry, count, how) < 0:
        return FULL
    mark_chosen(e, ew, s, w, frame)
    mark_ways(v, e, ew, x, xw, sources, s, w, entry)
    s[S_NEEDS] = 1
    s[S_EXCLUSIVE] = exclusive
    return 0
