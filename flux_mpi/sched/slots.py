"""Packing candidates into slots, and choosing among alternative slots: kernels.

Their arguments are explained in `search`.
"""

from __future__ import annotations

from typing import Any

from flux_mpi.sched.arena import (
    A_WIDTH,
    F_ENTRIES,
    G_COUNT,
    G_EDGE,
    G_EXCLUSIVE,
    G_MORE,
    G_NEXT,
    G_SCORE,
    G_UNITS,
    N_CURSOR,
    N_FIT,
    N_HEAD,
    N_NEXT,
    chain,
    find_entry,
    new_row,
    open_entry,
    order,
)
from flux_mpi.sched.requestrows import R_FROM, R_MOST, R_TO, R_UNION, R_UNION_TO, count_for
from flux_mpi.sched.scalars import S_FLEXIBLE, S_SLOT_ORDER, S_SLOT_TYPE

Words = Any

HASHES = A_WIDTH


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
    chain(w, entry, group, 1)
    w[entry * A_WIDTH + N_FIT] += 1
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
