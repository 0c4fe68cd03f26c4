"""Finding a request graph in the resource graph: one depth-first walk that matches and scores.

The walk goes down the dominant subsystem from its root. At each vertex it finds out which part of
the request the vertex answers (a resource by its type, a slot by its contents, or, above the first
match, none yet), prunes what cannot help (status, constraint, what is taken when, aggregates of
the subtree), goes below, and hands candidates up, scored by the policy. Where the request
constrains what lies below a vertex, its best candidates are marked on the edges to them; where
nothing does, candidates are handed on upwards. The order of all that is Fluxion's, on purpose: the
same request on the same graph finds the same resources.

Kernels: they run interpreted over ``array`` objects and compiled over NumPy views of the same
memory, hold nothing but integers, and call each other only downwards in this file (`visit` itself
too). Arguments common to all: ``v e ew out by_weight`` as in `resource.graph`, ``x`` the matcher's
64-bit rows by vertex and ``xw`` their width, ``p`` the timelines' points, ``ok`` (0 for vertices
that a constraint excludes; empty without one), ``req`` and ``rw`` the request (see `request.py`),
``s`` the scalars, ``w`` the arena: rows of A_WIDTH words for everything that lives no longer than
a walk.
"""

from __future__ import annotations

from typing import Any

from flux_mpi.resource.graph import (
    E_EXCLUSIVE,
    E_MARK,
    E_SUBSYSTEM,
    E_WIDTH,
    EW_NEEDS,
    EW_WIDTH,
    V_COLOR,
    V_HEAD,
    V_NALLOC,
    V_OUT,
    V_OUT_END,
    V_PARENT,
    V_STATUS,
    V_TYPE,
    V_WIDTH,
)
from flux_mpi.sched.introsort import introsort
from flux_mpi.sched.scalars import (
    HIGH_TYPES,
    KIND_ALLOCATE,
    KIND_LOOK,
    KIND_SATISFY,
    LABELS,
    ORDER_GREATER,
    ORDER_INTERVAL,
    S_AT,
    S_AUX,
    S_AUX_ROOT,
    S_BELOW,
    S_COLOR,
    S_DOMINANT,
    S_END,
    S_EXCLUSIVE,
    S_FIRST,
    S_FLEXIBLE,
    S_GRAPH_ORDER,
    S_KIND,
    S_LIMIT,
    S_N_AUX,
    S_N_TYPES,
    S_NEEDS,
    S_NOW,
    S_POINT_WIDTH,
    S_POST,
    S_PRE,
    S_ROW_LIMIT,
    S_ROWS,
    S_SLOT_ORDER,
    S_SLOT_TYPE,
    S_TICK,
    S_TOP,
    S_TYPES,
    S_VERTEX_ORDER,
    X_KINDS,
    X_LABEL,
    X_SCORE,
    X_SIZE,
    X_TOTAL,
)
from flux_mpi.sched.timeline import P_BELOW, P_JOBS, P_UNITS, P_WHOLE, peak

Words = Any

# Columns of a request's rows; the need below one unit, by tracked type, follows from R_NEED on.
R_TYPE, R_MIN, R_MAX, R_OPERATOR, R_OPERAND, R_EXCLUSIVE = range(6)
R_FROM, R_TO, R_IS_SLOT, R_MOST, R_PRUNES, R_LABEL, R_UNION, R_UNION_TO = range(6, 14)
R_NEED = 14
X_UNSAID, X_TRUE, X_FALSE = range(3)
OP_PLUS, OP_TIMES, OP_POWER = range(3)

A_WIDTH = 10
# A frame: what one vertex collects. Its entries, whether it has chosen, and what the vertex below
# that was visited last scored and has left.
F_ENTRIES, F_CHOSE, F_SCORE, F_LEFT = range(4)
# An entry of a frame: all candidates of one type (plus LABELS times the subsystem).
N_KEY, N_NEXT, N_HEAD, N_TAIL, N_SIZE, N_FIT, N_TOTAL, N_BEST, N_CHOSEN, N_CURSOR = range(10)
# A candidate: its score and units, and the edges to take for it: the first here, more in a list.
G_SCORE, G_COUNT, G_NEXT, G_IS_ROOT, G_EDGE, G_UNITS, G_EXCLUSIVE, G_MORE = range(8)

UNFIT, FULL, IMPOSSIBLE = -1, -2, -3
"""What `visit` returns when the vertex does not fit, and when the arena is too small; and
`select` when the candidates of the whole graph do not make up the request."""

HASHES = A_WIDTH

NOTHING, PASSING, RESOURCE, SLOT = range(4)


def count_for(req: Words, row: int, have: int) -> int:
    """The largest acceptable count that ``have`` covers, 0 when none does."""
    least = req[row + R_MIN]
    most = req[row + R_MAX]
    if least > most or least > have:
        return 0
    if have < most:
        most = have
    operand = req[row + R_OPERAND]
    operator = req[row + R_OPERATOR]
    if operator == OP_PLUS:
        return most - (most - least) % operand
    if operand < 2 or (operator == OP_POWER and least < 2):
        return least
    count = least
    while True:
        following = count
        if operator == OP_TIMES:
            following = count * operand
        else:
            for _ in range(operand - 1):
                following *= count
                if following > most:
                    break
        if following > most:
            return count
        count = following


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
    base = entry * A_WIDTH
    if w[base + N_TAIL] < 0:
        w[base + N_HEAD] = row
    else:
        w[w[base + N_TAIL] * A_WIDTH + G_NEXT] = row
    w[base + N_TAIL] = row
    w[base + N_SIZE] += 1
    w[base + N_TOTAL] += count
    if score > 0:
        w[base + N_FIT] += count
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


def prune(
    v: Words,
    x: Words,
    xw: int,
    p: Words,
    ok: Words,
    n_ok: int,
    req: Words,
    rw: int,
    s: Words,
    u: int,
    low: int,
    high: int,
    exclusive: int,
) -> int:
    """0 when a visit of ``u`` for the requests in [low, high) may be worth it, else -1."""
    vu = u * V_WIDTH
    kind = s[S_KIND]
    if kind != KIND_SATISFY and v[vu + V_STATUS] != 0:
        return -1
    if n_ok > 0 and ok[u] == 0:
        return -1
    head = v[vu + V_HEAD]
    at = s[S_AT]
    end = s[S_END]
    pw = s[S_POINT_WIDTH]
    if x[u * xw + X_SIZE] <= peak(p, pw, head, at, end, P_UNITS):
        return -1
    kind_of = v[vu + V_TYPE]
    tracked = s[S_TYPES + kind_of] >> 1
    if v[vu + V_OUT] == v[vu + V_OUT_END]:
        tracked = 0
    flexible = s[S_FLEXIBLE]
    result = 0
    for r in range(low, high):
        row = r * rw
        is_slot = req[row + R_IS_SLOT]
        if req[row] != kind_of and is_slot == 0:
            continue
        result = 0
        if is_slot == 0:
            asked = req[row + R_EXCLUSIVE]
            if exclusive != 0 and asked == X_FALSE:
                return -1
            if exclusive != 0 or asked == X_TRUE:
                if at == s[S_NOW] and (kind in (KIND_ALLOCATE, KIND_LOOK)) and v[vu + V_NALLOC] > 0:
                    return -1
                if peak(p, pw, head, at, end, P_JOBS) > 0:
                    return -1
        if tracked != 0 and req[row + R_PRUNES] != 0:
            for k in range(s[S_BELOW]):
                need = req[row + R_NEED + k]
                if need > 0 and tracked >> k & 1 != 0:
                    total = x[u * xw + X_TOTAL + k]
                    if need > total or need > total - peak(p, pw, head, at, end, P_BELOW + k):
                        result = -1
                        break
            if result < 0 and (flexible == 0 or is_slot == 0):
                return -1
    return result


def passable(
    v: Words,
    x: Words,
    xw: int,
    p: Words,
    req: Words,
    rw: int,
    s: Words,
    u: int,
    low: int,
    high: int,
) -> int:
    """Whether anything below ``u`` can be what [low, high) asks for, when ``u`` itself is not.

    Where less is left in all than one unit of the request needs, no vertex below has it: looking
    there would find nothing. Fluxion looks; what is found is the same.
    """
    if high - low != 1 or req[low * rw + R_PRUNES] == 0:
        return 1
    tracked = s[S_TYPES + v[u * V_WIDTH + V_TYPE]] >> 1
    head = v[u * V_WIDTH + V_HEAD]
    for k in range(s[S_BELOW]):
        need = req[low * rw + R_NEED + k]
        if need > 0 and tracked >> k & 1 != 0:
            left = x[u * xw + X_TOTAL + k]
            if head >= 0:
                left -= peak(p, s[S_POINT_WIDTH], head, s[S_AT], s[S_END], P_BELOW + k)
            if need > left:
                return 0
    return 1


def slot_fits(
    v: Words, e: Words, out: Words, x: Words, xw: int, req: Words, rw: int, u: int, slot: int
) -> int:
    """Whether all types directly in a slot lie directly below ``u``."""
    row = slot * rw
    kinds = x[u * xw + X_KINDS]
    for r in range(req[row + R_FROM], req[row + R_TO]):
        kind = req[r * rw]
        if kind < 0 or kinds >> (kind if kind < HIGH_TYPES else HIGH_TYPES) & 1 == 0:
            return 0
        if kind >= HIGH_TYPES:
            found = 0
            for i in range(v[u * V_WIDTH + V_OUT], v[u * V_WIDTH + V_OUT_END]):
                if v[e[out[i] * E_WIDTH] * V_WIDTH + V_TYPE] == kind:
                    found = 1
                    break
            if found == 0:
                return 0
    return 1


def takes(req: Words, rw: int, low: int, high: int, kind: int) -> int:
    """Whether a request in [low, high) asks for a type exclusively."""
    for r in range(low, high):
        if req[r * rw] == kind and req[r * rw + R_EXCLUSIVE] == X_TRUE:
            return 1
    return 0


def take_slot(
    req: Words, rw: int, s: Words, w: Words, frame: int, into: int, low: int, high: int
) -> int:
    """Make one slot of the next candidates for the requests in [low, high).

    Returns 1, 0 when candidates ran out, or -1 when the arena is full.
    """
    group = -1
    tail = -1
    score = 1
    for r in range(low, high):
        entry = find_entry(w, into, req[r * rw])
        if entry < 0:
            return 0
        base = entry * A_WIDTH
        count = count_for(req, r * rw, w[base + N_FIT])
        got = 0
        while got < count:
            row = w[base + N_CURSOR]
            if row < 0:
                return 0
            k = row * A_WIDTH
            w[base + N_CURSOR] = w[k + G_NEXT]
            units = w[k + G_UNITS]
            score += w[k + G_SCORE]
            if group < 0:
                group = new_row(w, s)
                if group < 0:
                    return -1
                g = group * A_WIDTH
                w[g + G_COUNT] = 1
                w[g + G_NEXT] = -1
                w[g + G_EDGE] = w[k + G_EDGE]
                w[g + G_UNITS] = units
                w[g + G_EXCLUSIVE] = 1
                w[g + G_MORE] = -1
                tail = g
            else:
                # The candidate itself becomes a link of the slot's list of edges.
                w[tail + G_MORE] = row
                w[k + G_EXCLUSIVE] = 1
                w[k + G_MORE] = -1
                tail = k
            got += units
    if group < 0:
        return 0
    w[group * A_WIDTH + G_SCORE] = score
    entry = open_entry(w, s, frame, s[S_SLOT_TYPE])
    if entry < 0:
        return -1
    base = entry * A_WIDTH
    if w[base + N_TAIL] < 0:
        w[base + N_HEAD] = group
    else:
        w[w[base + N_TAIL] * A_WIDTH + G_NEXT] = group
    w[base + N_TAIL] = group
    w[base + N_SIZE] += 1
    w[base + N_TOTAL] += 1
    w[base + N_FIT] += 1
    return 1


def hash_of(w: Words, n_types: int, have: int) -> int:
    """Which list of results the units in a row belong to."""
    mix = 0
    for t in range(n_types):
        mix = (mix * 31 + w[have * A_WIDTH + t]) % HASHES
    return mix


def known_best(req: Words, rw: int, w: Words, n_types: int, have: int, memo: int) -> int:
    """The result for the units in the row ``have`` among those under ``memo``, or -1."""
    known = w[memo * A_WIDTH + hash_of(w, n_types, have)]
    while known >= 0:
        same = 1
        other = w[known * A_WIDTH + 4]
        for t in range(n_types):
            if w[other * A_WIDTH + t] != w[have * A_WIDTH + t]:
                same = 0
        if same != 0:
            return known
        known = w[known * A_WIDTH + 3]
    return -1


def best_alternative(
    req: Words, rw: int, s: Words, w: Words, low: int, high: int, union: int, have: int, memo: int
) -> int:
    """How to make the most slots of alternatives in [low, high), by dynamic programming.

    The row ``have`` of the arena holds the units left of each type of the union (whose rows start
    at ``union``). ``memo`` heads HASHES lists of results. Returns the row of a result: (slots,
    alternative to take first or -1, row of what is left then), or -1 when the arena is full.
    """
    n_types = req[low * rw + R_UNION_TO] - union
    found = known_best(req, rw, w, n_types, have, memo)
    if found >= 0:
        return found
    # A row of the stack: what is left, the alternative to try next, the most slots so far, the
    # alternative that gave them, what it left, the row below on the stack.
    stack = new_row(w, s)
    if stack < 0:
        return -1
    w[stack * A_WIDTH] = have
    w[stack * A_WIDTH + 1] = low
    w[stack * A_WIDTH + 2] = -1
    w[stack * A_WIDTH + 3] = -1
    w[stack * A_WIDTH + 4] = -1
    w[stack * A_WIDTH + 5] = -1
    result = -1
    while stack >= 0:
        k = stack * A_WIDTH
        have = w[k]
        slot = w[k + 1]
        if slot == high:
            result = new_row(w, s)
            if result < 0:
                return -1
            mix = memo * A_WIDTH + hash_of(w, n_types, have)
            w[result * A_WIDTH] = w[k + 2] + 1
            w[result * A_WIDTH + 1] = w[k + 3]
            w[result * A_WIDTH + 2] = w[k + 4]
            w[result * A_WIDTH + 3] = w[mix]
            w[result * A_WIDTH + 4] = have
            w[mix] = result
            stack = w[k + 5]
            continue
        rest = new_row(w, s)
        if rest < 0:
            return -1
        for t in range(n_types):
            w[rest * A_WIDTH + t] = w[have * A_WIDTH + t]
        fits = 0 if req[slot * rw + R_FROM] == req[slot * rw + R_TO] else 1
        for r in range(req[slot * rw + R_FROM], req[slot * rw + R_TO]):
            for t in range(n_types):
                if req[(union + t) * rw] == req[r * rw]:
                    count = count_for(req, r * rw, w[have * A_WIDTH + t])
                    if count == 0:
                        fits = 0
                    w[rest * A_WIDTH + t] -= count
        if fits != 0:
            known = known_best(req, rw, w, n_types, rest, memo)
            if known < 0:
                below = new_row(w, s)
                if below < 0:
                    return -1
                b = below * A_WIDTH
                w[b] = rest
                w[b + 1] = low
                w[b + 2] = -1
                w[b + 3] = -1
                w[b + 4] = -1
                w[b + 5] = stack
                stack = below
                continue
            if w[known * A_WIDTH] > w[k + 2]:
                w[k + 2] = w[known * A_WIDTH]
                w[k + 3] = slot
                w[k + 4] = rest
        w[k + 1] = slot + 1
    return result


def make_alternatives(
    req: Words, rw: int, s: Words, w: Words, frame: int, into: int, low: int, high: int
) -> int:
    """Make as many slots as can be of the alternatives in [low, high); -1: the arena is full."""
    union = req[low * rw + R_UNION]
    n_types = req[low * rw + R_UNION_TO] - union
    have = new_row(w, s)
    memo = new_row(w, s)
    if have < 0 or memo < 0:
        return -1
    for i in range(A_WIDTH):
        w[memo * A_WIDTH + i] = -1
    for t in range(n_types):
        entry = find_entry(w, into, req[(union + t) * rw])
        if entry >= 0:
            w[have * A_WIDTH + t] = w[entry * A_WIDTH + N_FIT]
    if high - low == 1:
        most = req[low * rw + R_MOST]
        first = req[low * rw + R_FROM]
        last = req[low * rw + R_TO]
        for r in range(first, last):
            for t in range(n_types):
                if req[(union + t) * rw] == req[r * rw]:
                    units = w[have * A_WIDTH + t]
                    count = count_for(req, r * rw, units)
                    if count == 0:
                        most = 0
                    elif units // count < most:
                        most = units // count
        for _ in range(most):
            if (
                take_slot(req, rw, s, w, frame, into, req[low * rw + R_FROM], req[low * rw + R_TO])
                < 0
            ):
                return -1
        return 0
    result = best_alternative(req, rw, s, w, low, high, union, have, memo)
    if result < 0:
        return -1
    for _ in range(w[result * A_WIDTH]):
        slot = w[result * A_WIDTH + 1]
        took = take_slot(req, rw, s, w, frame, into, req[slot * rw + R_FROM], req[slot * rw + R_TO])
        if took < 0:
            return -1
        have = w[result * A_WIDTH + 2]
        result = best_alternative(req, rw, s, w, low, high, union, have, memo)
        if result < 0:
            return -1
    return 0


def make_slots(
    req: Words, rw: int, s: Words, w: Words, frame: int, into: int, low: int, high: int
) -> int:
    """Pack the candidates in the frame ``into`` into slots, candidates of ``frame``.

    [low, high) is what a slot holds or, for a flexible request, the slots to choose from. A slot
    takes whole candidates, best first. -1 when the arena is full.
    """
    entry = w[into * A_WIDTH + F_ENTRIES]
    while entry >= 0:
        base = entry * A_WIDTH
        if w[base + N_FIT] > 0 and order(w, s, entry, s[S_SLOT_ORDER]) < 0:
            return -1
        w[base + N_CURSOR] = w[base + N_HEAD]
        entry = w[base + N_NEXT]
    if s[S_FLEXIBLE] != 0:
        return make_alternatives(req, rw, s, w, frame, into, low, high)
    most = -1
    for r in range(low, high):
        entry = find_entry(w, into, req[r * rw])
        shares = 0
        if entry >= 0:
            base = entry * A_WIDTH
            count = count_for(req, r * rw, w[base + N_FIT])
            if count > 0:
                units = 0
                row = w[base + N_HEAD]
                while row >= 0:
                    units += w[row * A_WIDTH + G_UNITS]
                    if units >= count:
                        shares += 1
                        units = 0
                    row = w[row * A_WIDTH + G_NEXT]
        if most < 0 or shares < most:
            most = shares
    for _ in range(most):
        if take_slot(req, rw, s, w, frame, into, low, high) < 0:
            return -1
    return 0


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
            s[S_PRE] += 1
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
            s[S_POST] += 1
            score = x[child * xw + X_SCORE]
            w[into * A_WIDTH + F_LEFT] = left
            w[into * A_WIDTH + F_SCORE] = score
            if req[hit * rw + R_LABEL] != 0:
                x[child * xw + X_LABEL] = s[S_TICK] * LABELS + req[hit * rw + R_LABEL]
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


# Columns of the rows that `walk` writes, one a vertex: the edge that leads to it (-1: none), its
# number, units taken, exclusively or not, whether the vertex above is taken so, the level, whether
# anything is taken of it, whether all that is below it is, the first of the rows for what is below
# it, whether any tracked type is below it, and of each so many units.
O_EDGE, O_INDEX, O_NEEDS, O_EXCLUSIVE, O_ABOVE = range(5)
O_DEPTH, O_TAKEN, O_WHOLE, O_FIRST, O_ANY_BELOW, O_BELOW = range(5, 11)

# Columns of its stack.
K_VERTEX, K_NEXT_OUT, K_NEEDS, K_EXCLUSIVE, K_WHOLE, K_ABOVE, K_FOUND, K_ANY, K_EDGE = range(9)
K_PARTS, K_LACKS, K_FIRST, K_BELOW = range(9, 13)


def walk(
    v: Words,
    e: Words,
    ew: Words,
    out: Words,
    x: Words,
    xw: int,
    s: Words,
    w: Words,
    rows: Words,
    root: int,
    units: int,
    exclusive: int,
) -> int:
    """Write down what the last selection took: vertices after what is below them.

    ``units`` and ``exclusive`` are the root's. ``rows`` gets rows of O_BELOW plus S_BELOW words,
    S_ROWS in all. Vertices of a type that is taken whole take everything below them along.
    Returns how many vertices are taken exclusively, or FULL (``rows`` or the arena).
    """
    n_below = s[S_BELOW]
    width = O_BELOW + n_below
    stack_width = K_BELOW + n_below
    dominant = s[S_DOMINANT]
    tick = s[S_TICK]
    s[S_COLOR] += 1
    color = s[S_COLOR]
    limit = s[S_LIMIT] * A_WIDTH // stack_width
    n = 0
    depth = 0
    for i in range(stack_width):
        w[i] = 0
    whole = s[S_TYPES + v[root * V_WIDTH + V_TYPE]] & 1
    w[K_VERTEX] = root
    w[K_NEXT_OUT] = v[root * V_WIDTH + V_OUT]
    w[K_NEEDS] = units
    w[K_EXCLUSIVE] = 1 if exclusive != 0 or whole != 0 else 0
    w[K_WHOLE] = whole
    w[K_EDGE] = -1
    v[root * V_WIDTH + V_COLOR] = color
    taken_in_all = 0
    while depth >= 0:
        k = depth * stack_width
        u = w[k + K_VERTEX]
        at = w[k + K_NEXT_OUT]
        if at < v[u * V_WIDTH + V_OUT_END]:
            w[k + K_NEXT_OUT] = at + 1
            edge = out[at]
            ee = edge * E_WIDTH
            child = e[ee]
            if e[ee + E_SUBSYSTEM] != dominant:
                continue
            whole = w[k + K_WHOLE]
            marked = 1 if e[ee + E_MARK] == tick else 0
            if (marked == 0 and whole == 0) or v[child * V_WIDTH + V_COLOR] == color:
                w[k + K_LACKS] = 1
                continue
            w[k + K_PARTS] += 1
            if v[child * V_WIDTH + V_OUT] == v[child * V_WIDTH + V_OUT_END]:
                # A leaf: written down at once.
                size = x[child * xw + X_SIZE]
                units = size
                if whole == 0:
                    units = ew[edge * EW_WIDTH + EW_NEEDS]
                    if e[ee + E_EXCLUSIVE] == 0 and (
                        s[S_TYPES + v[child * V_WIDTH + V_TYPE]] & 1 == 0
                    ):
                        # Shared, and nothing below that is taken: nothing of it is.
                        w[k + K_LACKS] = 1
                        continue
                v[child * V_WIDTH + V_COLOR] = color
                if units != size:
                    w[k + K_LACKS] = 1
                taken_in_all += 1
                w[k + K_FOUND] += 1
                if n >= s[S_ROW_LIMIT]:
                    return FULL
                base = n * width
                rows[base] = edge
                rows[base + O_INDEX] = child
                rows[base + O_NEEDS] = units
                rows[base + O_EXCLUSIVE] = 1
                rows[base + O_ABOVE] = w[k + K_EXCLUSIVE]
                rows[base + O_DEPTH] = depth + 2
                rows[base + O_TAKEN] = 1
                rows[base + O_WHOLE] = 0
                rows[base + O_FIRST] = n
                rows[base + O_ANY_BELOW] = 0
                for i in range(n_below):
                    rows[base + O_BELOW + i] = 0
                column = s[S_TYPES + s[S_N_TYPES] + v[child * V_WIDTH + V_TYPE]]
                if column >= 0:
                    w[k + K_BELOW + column] += size
                    w[k + K_ANY] = 1
                n += 1
                continue
            depth += 1
            if depth >= limit:
                return FULL
            c = depth * stack_width
            for i in range(stack_width):
                w[c + i] = 0
            child_exclusive = whole
            child_needs = x[child * xw + X_SIZE]
            if whole == 0:
                child_needs = ew[edge * EW_WIDTH + EW_NEEDS]
                child_exclusive = e[ee + E_EXCLUSIVE]
            if whole == 0:
                whole = s[S_TYPES + v[child * V_WIDTH + V_TYPE]] & 1
            w[c + K_VERTEX] = child
            w[c + K_FIRST] = n
            w[c + K_NEXT_OUT] = v[child * V_WIDTH + V_OUT]
            w[c + K_NEEDS] = child_needs
            w[c + K_EXCLUSIVE] = 1 if child_exclusive != 0 or whole != 0 else 0
            w[c + K_WHOLE] = whole
            w[c + K_ABOVE] = w[k + K_EXCLUSIVE]
            w[c + K_EDGE] = edge
            v[child * V_WIDTH + V_COLOR] = color
            continue
        found = w[k + K_FOUND]
        complete = 1 if w[k + K_PARTS] > 0 and w[k + K_LACKS] == 0 else 0
        own = x[u * xw + X_SIZE]
        if w[k + K_EXCLUSIVE] != 0:
            found += 1
            taken_in_all += 1
        depth -= 1
        if depth >= 0 and (
            w[k + K_EXCLUSIVE] == 0
            or w[k + K_NEEDS] != own
            or (complete == 0 and v[u * V_WIDTH + V_OUT] != v[u * V_WIDTH + V_OUT_END])
        ):
            w[depth * stack_width + K_LACKS] = 1
        if found == 0:
            continue
        if n >= s[S_ROW_LIMIT]:
            return FULL
        base = n * width
        n += 1
        rows[base] = w[k + K_EDGE]
        rows[base + O_INDEX] = u
        rows[base + O_NEEDS] = w[k + K_NEEDS]
        rows[base + O_EXCLUSIVE] = w[k + K_EXCLUSIVE]
        rows[base + O_ABOVE] = w[k + K_ABOVE]
        rows[base + O_DEPTH] = depth + 2
        rows[base + O_TAKEN] = w[k + K_EXCLUSIVE]
        rows[base + O_WHOLE] = complete
        rows[base + O_FIRST] = w[k + K_FIRST]
        rows[base + O_ANY_BELOW] = w[k + K_ANY]
        for i in range(n_below):
            rows[base + O_BELOW + i] = w[k + K_BELOW + i]
        if depth >= 0:
            up = depth * stack_width
            w[up + K_FOUND] += found
            # What is below, and the vertex itself, counts for the vertex above.
            if w[k + K_EXCLUSIVE] == 0:
                own -= w[k + K_NEEDS]
            column = s[S_TYPES + s[S_N_TYPES] + v[u * V_WIDTH + V_TYPE]]
            if column >= 0:
                w[up + K_BELOW + column] += own
                w[up + K_ANY] = 1
            if w[k + K_ANY] != 0:
                w[up + K_ANY] = 1
                for i in range(n_below):
                    w[up + K_BELOW + i] += w[k + K_BELOW + i]
    s[S_ROWS] = n
    return taken_in_all
