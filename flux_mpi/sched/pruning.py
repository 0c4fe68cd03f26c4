"""What a search need not look at: kernels that tell whether a vertex can be of use.

Their arguments are explained in `search`.
"""

from __future__ import annotations

from typing import Any

from flux_mpi.resource.graph import (
    E_WIDTH,
    V_HEAD,
    V_NALLOC,
    V_OUT,
    V_OUT_END,
    V_STATUS,
    V_TYPE,
    V_WIDTH,
)
from flux_mpi.sched.requestrows import (
    R_EXCLUSIVE,
    R_FROM,
    R_IS_SLOT,
    R_NEED,
    R_PRUNES,
    R_TO,
    X_FALSE,
    X_TRUE,
)
from flux_mpi.sched.scalars import (
    HIGH_TYPES,
    KIND_ALLOCATE,
    KIND_LOOK,
    KIND_SATISFY,
    S_AT,
    S_BELOW,
    S_END,
    S_FLEXIBLE,
    S_KIND,
    S_NOW,
    S_POINT_WIDTH,
    S_TYPES,
    X_KINDS,
    X_SIZE,
    X_TOTAL,
)
from flux_mpi.sched.timeline import P_BELOW, P_JOBS, P_UNITS, peak

Words = Any


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
