"""Writing down what a selection took: a walk over the edges that it marked."""

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
    V_OUT,
    V_OUT_END,
    V_TYPE,
    V_WIDTH,
)
from flux_mpi.sched.arena import A_WIDTH
from flux_mpi.sched.scalars import (
    S_BELOW,
    S_COLOR,
    S_DOMINANT,
    S_LIMIT,
    S_N_TYPES,
    S_ROW_LIMIT,
    S_ROWS,
    S_TICK,
    S_TREE,
    S_TYPES,
    X_SIZE,
)
from flux_mpi.sched.search import FULL

Words = Any

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
        # Who can also be reached past this vertex must say for himself that he is taken.
        complete = 1 if w[k + K_PARTS] > 0 and w[k + K_LACKS] == 0 and s[S_TREE] != 0 else 0
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
