"""Finding a request graph in the resource graph: one depth-first walk that matches and scores.

The walk goes down the dominant subsystem from its root. At each vertex it finds out which part of
the request the vertex answers (a resource by its type, a slot by its contents, or, above the first
match, none yet), prunes what cannot help (status, constraint, what is taken when, aggregates of
the subtree), goes below, and hands candidates up, scored by the policy. Where the request
constrains what lies below a vertex, its best candidates are marked on the edges to them; where
nothing does, candidates are handed on upwards. The order of all that is Fluxion's, on purpose: the
same request on the same graph finds the same resources.

Kernels, here and in the modules around: they run interpreted over ``array`` objects and compiled
over NumPy views of the same memory, hold nothing but integers, and call only what stands above
them. Arguments common to all: ``v e ew out by_weight`` as in `resource.graph`, ``x`` the matcher's
64-bit rows by vertex and ``xw`` their width, ``p`` the timelines' points, ``ok`` (0 for vertices
that a constraint excludes; empty without one), ``req`` and ``rw`` the request (see `requestrows`),
``s`` the scalars, ``w`` the arena: rows of A_WIDTH words for everything that lives no longer than
a search.
"""

from __future__ import annotations

from typing import Any

from flux_mpi.resource.graph import (
    E_SUBSYSTEM,
    E_WIDTH,
    V_COLOR,
    V_HEAD,
    V_NALLOC,
    V_OUT,
    V_OUT_END,
    V_STATUS,
    V_TYPE,
    V_WIDTH,
)
from flux_mpi.sched.arena import (
    A_WIDTH,
    F_CHOSE,
    F_LEFT,
    F_SCORE,
    N_FIT,
    N_TOTAL,
    add,
    append,
    choose,
    find_entry,
    mark_chosen,
    merge,
    new_frame,
    new_row,
    open_entry,
)
from flux_mpi.sched.pruning import passable, prune, slot_fits, takes
from flux_mpi.sched.requestrows import (
    R_EXCLUSIVE,
    R_FROM,
    R_IS_SLOT,
    R_LABEL,
    R_MOST,
    R_TO,
    R_UNION,
    R_UNION_TO,
    X_FALSE,
    X_TRUE,
    count_for,
)
from flux_mpi.sched.scalars import (
    KIND_ALLOCATE,
    KIND_LOOK,
    KIND_SATISFY,
    LABELS,
    S_AT,
    S_AUX,
    S_AUX_ROOT,
    S_COLOR,
    S_DOMINANT,
    S_END,
    S_FIRST,
    S_FLEXIBLE,
    S_KIND,
    S_N_AUX,
    S_NOW,
    S_POINT_WIDTH,
    S_POST,
    S_PRE,
    S_TICK,
    S_TOP,
    S_TYPES,
    S_VERTEX_ORDER,
    X_LABEL,
    X_SCORE,
    X_SIZE,
)
from flux_mpi.sched.slots import make_slots
from flux_mpi.sched.timeline import P_JOBS, P_UNITS, P_WHOLE, peak

Words = Any

UNFIT, FULL, IMPOSSIBLE = -1, -2, -3
"""What `visit` returns when the vertex does not fit, and when the arena is too small; and
`select` when the candidates of the whole graph do not make up the request."""

NOTHING, PASSING, RESOURCE, SLOT = range(4)

# Columns of the walk's stack, one row a level: the vertex, the requests there, whether anything on
# the way matched, whether it is taken exclusively, its frame, the frame for what is below it (a
# slot has one of its own), the frame above, how it matched, the requests that its match goes on
# with, those to look for below, exclusively or not, how many times over, the slice of edges left,
# the tallies, whether anything was found, the arena's mark, and the edge that led here.
D_VERTEX, D_LOW, D_HIGH, D_PRISTINE, D_TAKEN, D_FRAME, D_INTO, D_ABOVE, D_MATCH = range(9)
D_NEXT_LOW, D_NEXT_HIGH, D_LOOK_LOW, D_LOOK_HIGH, D_BELOW_TAKEN, D_TIMES = range(9, 15)
D_EDGE_AT, D_EDGE_END, D_TALLIES, D_FOUND, D_MARK, D_EDGE = range(15, 21)
D_WIDTH = 21


def enter(
    v: Words,
    e: Words,
    out: Words,
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
    at: int,
    u: int,
    low: int,
    high: int,
    pristine: int,
    exclusive: int,
    above: int,
    edge: int,
) -> int:
    """Begin the visit of a vertex: 0 with its row of the stack at ``d[at]``, or UNFIT, or FULL."""
    vu = u * V_WIDTH
    kind = v[vu + V_TYPE]
    s[S_PRE] += 1
    matched = -1
    slot = -1
    times = 0
    flexible = s[S_FLEXIBLE]
    seen = 0
    for r in range(low, high):
        row = r * rw
        if req[row] == kind:
            if seen != 0:
                return UNFIT
            matched = r
            for c in range(req[row + R_FROM], req[row + R_TO]):
                if req[c * rw + R_IS_SLOT] != 0:
                    slot = c
                    times = req[c * rw + R_MOST]
            seen = 1
        elif req[row + R_IS_SLOT] != 0:
            if seen == 1:
                return UNFIT
            slot = r
            times = req[row + R_MOST]
            seen = 2 if flexible != 0 else 1
    match = PASSING if pristine != 0 else NOTHING
    next_low = low
    next_high = high
    if slot >= 0 and flexible != 0:
        slots_low = low
        slots_high = high
        if seen == 1:
            slots_low = req[matched * rw + R_FROM]
            slots_high = req[matched * rw + R_TO]
        for c in range(slots_low, slots_high):
            if slot_fits(v, e, out, x, xw, req, rw, u, c) != 0:
                match = SLOT
        if match == SLOT:
            next_low = slots_low
            next_high = slots_high
    elif slot >= 0 and slot_fits(v, e, out, x, xw, req, rw, u, slot) != 0:
        match = SLOT
        next_low = req[slot * rw + R_FROM]
        next_high = req[slot * rw + R_TO]
    elif matched >= 0:
        match = RESOURCE
        next_low = req[matched * rw + R_FROM]
        next_high = req[matched * rw + R_TO]
    if match == NOTHING or (
        match == PASSING and passable(v, x, xw, p, req, rw, s, u, low, high) == 0
    ):
        return UNFIT
    taken = exclusive
    if taken == 0 and takes(req, rw, low, high, kind) != 0:
        taken = 1
    if prune(v, x, xw, p, ok, n_ok, req, rw, s, u, low, high, taken) < 0:
        return UNFIT
    if s[S_TYPES + kind] & 1 != 0:
        # Taken at all, it is taken with everything below it: nobody may have any of that.
        head = v[vu + V_HEAD]
        if peak(p, s[S_POINT_WIDTH], head, s[S_AT], s[S_END], P_JOBS) > 0:
            return UNFIT
    v[vu + V_COLOR] = s[S_COLOR]
    mark_at = s[S_TOP]
    frame = new_frame(w, s)
    if frame < 0:
        return FULL
    into = frame
    below_taken = taken
    look_low = next_low
    look_high = next_high
    if match == SLOT:
        into = new_frame(w, s)
        if into < 0:
            return FULL
        below_taken = 1
        if flexible != 0:
            # What any of the alternatives needs.
            look_low = req[next_low * rw + R_UNION]
            look_high = req[next_low * rw + R_UNION_TO]
    else:
        times = 1
    tallies = s[S_TOP]
    if s[S_FIRST] != 0:
        for r in range(look_low, look_high):
            row = new_row(w, s)
            if row < 0:
                return FULL
            w[row * A_WIDTH] = req[r * rw]
            w[row * A_WIDTH + 1] = req[r * rw + R_MOST]
    d[at + D_VERTEX] = u
    d[at + D_LOW] = low
    d[at + D_HIGH] = high
    d[at + D_PRISTINE] = pristine if match == PASSING else 0
    d[at + D_TAKEN] = taken
    d[at + D_FRAME] = frame
    d[at + D_INTO] = into
    d[at + D_ABOVE] = above
    d[at + D_MATCH] = match
    d[at + D_NEXT_LOW] = next_low
    d[at + D_NEXT_HIGH] = next_high
    d[at + D_LOOK_LOW] = look_low
    d[at + D_LOOK_HIGH] = look_high
    d[at + D_BELOW_TAKEN] = below_taken
    d[at + D_TIMES] = times
    d[at + D_EDGE_AT] = v[vu + V_OUT]
    d[at + D_EDGE_END] = v[vu + V_OUT_END]
    head = v[vu + V_HEAD]
    if (head >= 0 and peak(p, s[S_POINT_WIDTH], head, s[S_AT], s[S_END], P_WHOLE) > 0) or (
        s[S_AT] == s[S_NOW]
        and s[S_KIND] in (KIND_ALLOCATE, KIND_LOOK)
        and v[vu + V_NALLOC] > 0xFFFF
    ):
        d[at + D_EDGE_AT] = v[vu + V_OUT_END]  # all that is below is taken
    d[at + D_TALLIES] = tallies
    d[at + D_FOUND] = 0
    d[at + D_MARK] = mark_at
    d[at + D_EDGE] = edge
    return 0


def look_aside(
    v: Words,
    e: Words,
    out: Words,
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
    at: int,
) -> int:
    """Note what of the auxiliary subsystems a vertex has; -1 when the arena is full."""
    u = d[at + D_VERTEX]
    frame = d[at + D_FRAME]
    for a in range(s[S_N_AUX]):
        aux = s[S_AUX + a]
        for i in range(v[u * V_WIDTH + V_OUT], v[u * V_WIDTH + V_OUT_END]):
            ee = out[i] * E_WIDTH
            if e[ee + E_SUBSYSTEM] != aux or s[S_AUX_ROOT] == 0:
                continue
            other = e[ee]
            low = d[at + D_NEXT_LOW]
            high = d[at + D_NEXT_HIGH]
            if prune(v, x, xw, p, ok, n_ok, req, rw, s, other, low, high, d[at + D_TAKEN]) == 0:
                key = v[other * V_WIDTH + V_TYPE] + LABELS * (aux + 1)
                score = w[frame * A_WIDTH + F_SCORE]
                count = w[frame * A_WIDTH + F_LEFT]
                if add(w, s, frame, key, score, count, out[i], d[at + D_TAKEN]) < 0:
                    return -1
    return 0


def leave(
    v: Words,
    e: Words,
    ew: Words,
    out: Words,
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
    at: int,
) -> int:
    """End the visit of a vertex: 0 when it fits, with its score and what is left of it in the frame
    above, or UNFIT, or FULL."""
    u = d[at + D_VERTEX]
    frame = d[at + D_FRAME]
    low = d[at + D_LOW]
    high = d[at + D_HIGH]
    if d[at + D_MATCH] != SLOT:
        if s[S_N_AUX] > 0 and look_aside(v, e, out, x, xw, p, ok, n_ok, req, rw, s, w, d, at) < 0:
            return FULL
    elif d[at + D_FOUND] != 0:
        into = d[at + D_INTO]
        if make_slots(req, rw, s, w, frame, into, d[at + D_NEXT_LOW], d[at + D_NEXT_HIGH]) < 0:
            return FULL
    kind = v[u * V_WIDTH + V_TYPE]
    for r in range(low, high):
        row = r * rw
        if req[row] != kind:
            continue
        for c in range(req[row + R_FROM], req[row + R_TO]):
            entry = find_entry(w, frame, req[c * rw])
            have = 0
            if entry >= 0:
                have = w[entry * A_WIDTH + N_FIT]
            count = count_for(req, c * rw, have)
            if count == 0:
                s[S_TOP] = d[at + D_MARK]
                return UNFIT
            if choose(w, s, frame, entry, count, s[S_VERTEX_ORDER]) < 0:
                return FULL
        if req[row + R_LABEL] != 0:
            x[u * xw + X_LABEL] = s[S_TICK] * LABELS + req[row + R_LABEL]
    above = d[at + D_ABOVE]
    if w[frame * A_WIDTH + F_CHOSE] != 0:
        mark_chosen(e, ew, s, w, frame)
        s[S_TOP] = d[at + D_MARK]
    elif merge(w, s, frame, above) < 0:
        return FULL
    left = x[u * xw + X_SIZE]
    head = v[u * V_WIDTH + V_HEAD]
    if head >= 0:
        left -= peak(p, s[S_POINT_WIDTH], head, s[S_AT], s[S_END], P_UNITS)
    w[above * A_WIDTH + F_LEFT] = left
    w[above * A_WIDTH + F_SCORE] = x[u * xw + X_SCORE]
    s[S_POST] += 1
    return 0


def tally(w: Words, into: int, tallies: int, n_looks: int, times: int) -> int:
    """Count what was found towards ``times`` shares of each type; 1 when nothing is missing."""
    enough = 1
    for t in range(n_looks):
        row = (tallies + t) * A_WIDTH
        entry = find_entry(w, into, w[row])
        if entry >= 0:
            total = w[entry * A_WIDTH + N_TOTAL]
            if total > w[row + 2]:
                # All that came at once is one bundle towards the next share.
                w[row + 3] += total - w[row + 2]
                w[row + 2] = total
                if w[row + 1] > 0 and w[row + 3] >= w[row + 1]:
                    w[row + 4] += 1
                    w[row + 3] = 0
        if w[row + 1] != 0 and w[row + 4] < times:
            enough = 0
    return enough


def search(
    v: Words,
    e: Words,
    ew: Words,
    out: Words,
    by_weight: Words,
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
    exclusive: int,
    top: int,
) -> int:
    """Visit ``root`` and all below it for the requests in [low, high).

    Candidates go to the frame ``top``. ``d`` is the stack, with room for ``n_d`` levels. Returns
    UNFIT, FULL, or whether the root would be taken exclusively.
    """
    result = enter(
        v, e, out, x, xw, p, ok, n_ok, req, rw, s, w, d, 0, root, low, high, 1, exclusive, top, -1
    )
    if result < 0:
        return result
    taken_root = d[D_TAKEN]
    first_only = s[S_FIRST]
    dominant = s[S_DOMINANT]
    color = s[S_COLOR]
    job_kind = s[S_KIND]
    pw = s[S_POINT_WIDTH]
    start = s[S_AT]
    end = s[S_END]
    right_now = 1 if start == s[S_NOW] and job_kind in (KIND_ALLOCATE, KIND_LOOK) else 0
    visited = 0
    fit = 0
    depth = 0
    while depth >= 0:
        at = depth * D_WIDTH
        into = d[at + D_INTO]
        look_low = d[at + D_LOOK_LOW]
        look_high = d[at + D_LOOK_HIGH]
        n_looks = look_high - look_low
        pristine = d[at + D_PRISTINE]
        below_taken = d[at + D_BELOW_TAKEN]
        tallies = d[at + D_TALLIES]
        times = d[at + D_TIMES]
        i = d[at + D_EDGE_AT]
        last = d[at + D_EDGE_END]
        found_any = d[at + D_FOUND]
        # Children of one type mostly follow each other: what holds for the type is kept.
        known = -1
        hit = -1
        hit_taken = 0
        hit_closed = 0
        hit_entry = -1
        hit_tally = -1
        hit_label = 0
        down = 0
        while i < last:
            edge = out[i]
            if first_only != 0:
                edge = by_weight[i]
            i += 1
            ee = edge * E_WIDTH
            if e[ee + E_SUBSYSTEM] != dominant:
                continue
            child = e[ee]
            vc = child * V_WIDTH
            if v[vc + V_COLOR] == color:
                continue
            kind = v[vc + V_TYPE]
            if first_only != 0 and (kind != known or hit_tally >= 0):
                enough = 0
                for t in range(n_looks):
                    row = (tallies + t) * A_WIDTH
                    if w[row] == kind and (w[row + 1] == 0 or w[row + 4] >= times):
                        enough = 1
                if enough != 0:
                    continue
            if v[vc + V_OUT] != v[vc + V_OUT_END]:
                result = -1
                if depth + 1 < n_d:
                    result = enter(
                        v,
                        e,
                        out,
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
                        at + D_WIDTH,
                        child,
                        look_low,
                        look_high,
                        pristine,
                        below_taken,
                        into,
                        edge,
                    )
                if result == FULL:
                    return FULL
                if result == 0:
                    down = 1
                    break
                continue
            # A leaf needs no frame, and most vertices are leaves.
            visited += 1
            if kind != known:
                known = kind
                hit = -1
                hit_closed = 0
                hit_entry = -1
                hit_tally = -1
                for r in range(look_low, look_high):
                    if req[r * rw] == kind or req[r * rw + R_IS_SLOT] != 0:
                        if hit >= 0:
                            hit_closed = 1
                        hit = r
                if hit >= 0 and req[hit * rw] != kind:
                    hit = -1
                hit_taken = below_taken
                if hit >= 0:
                    hit_label = req[hit * rw + R_LABEL]
                    asked = req[hit * rw + R_EXCLUSIVE]
                    if asked == X_TRUE:
                        hit_taken = 1
                    if (hit_taken != 0 and asked == X_FALSE) or (
                        req[hit * rw + R_FROM] != req[hit * rw + R_TO]
                    ):
                        hit_closed = 1
            if hit_closed != 0 or hit < 0:
                continue
            if job_kind != KIND_SATISFY and v[vc + V_STATUS] != 0:
                continue
            if n_ok > 0 and ok[child] == 0:
                continue
            left = x[child * xw + X_SIZE]
            head = v[vc + V_HEAD]
            if head >= 0:
                left -= peak(p, pw, head, start, end, P_UNITS)
                if hit_taken != 0 and (
                    (right_now != 0 and v[vc + V_NALLOC] > 0)
                    or peak(p, pw, head, start, end, P_JOBS) > 0
                ):
                    continue
            if left <= 0:
                continue
            v[vc + V_COLOR] = color
            fit += 1
            score = x[child * xw + X_SCORE]
            w[into * A_WIDTH + F_LEFT] = left
            w[into * A_WIDTH + F_SCORE] = score
            if hit_label != 0:
                x[child * xw + X_LABEL] = s[S_TICK] * LABELS + hit_label
            found_any = 1
            if hit_entry < 0:
                hit_entry = open_entry(w, s, into, kind)
                if hit_entry < 0:
                    return FULL
            if append(w, s, hit_entry, score, left, edge, hit_taken) < 0:
                return FULL
            if first_only != 0:
                # As `tally`, which looks at all types, where the count of this one tells already.
                row = (tallies + hit - look_low) * A_WIDTH
                if w[row] == kind and w[row + 1] > w[row + 3] + left:
                    w[row + 2] += left
                    w[row + 3] += left
                    hit_tally = -1
                else:
                    hit_tally = 0
                    if tally(w, into, tallies, n_looks, times) != 0:
                        i = last
        d[at + D_EDGE_AT] = i
        d[at + D_FOUND] = found_any
        if down != 0:
            depth += 1
            continue
        result = leave(v, e, ew, out, x, xw, p, ok, n_ok, req, rw, s, w, d, at)
        if result == FULL:
            return FULL
        depth -= 1
        if depth < 0:
            s[S_PRE] += visited
            s[S_POST] += fit
            return UNFIT if result < 0 else taken_root
        if result == 0:
            up = depth * D_WIDTH
            into = d[up + D_INTO]
            kind = v[d[at + D_VERTEX] * V_WIDTH + V_TYPE]
            count = w[into * A_WIDTH + F_LEFT]
            score = w[into * A_WIDTH + F_SCORE]
            d[up + D_FOUND] = 1
            if add(w, s, into, kind, score, count, d[at + D_EDGE], d[at + D_TAKEN]) < 0:
                return FULL
            if first_only != 0:
                n_looks = d[up + D_LOOK_HIGH] - d[up + D_LOOK_LOW]
                if tally(w, into, d[up + D_TALLIES], n_looks, d[up + D_TIMES]) != 0:
                    d[up + D_EDGE_AT] = d[up + D_EDGE_END]
    return UNFIT
