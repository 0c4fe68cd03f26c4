"""Where kernels of the graph door find what is no array: positions in one array of integers.

Passing one array instead of thirty arguments keeps the kernels' calls of each other cheap.
"""

from __future__ import annotations

(
    S_FREE,  # head of the list of free timeline rows
    S_FREE_ROWS,  # how many there are
    S_TOP,  # rows of the arena in use
    S_LIMIT,  # rows that the arena has
    S_TICK,  # number of the selection: what it marks bears it
    S_COLOR,  # number of the walk: vertices that it has seen bear it
    S_PRE,  # vertices visited
    S_POST,  # vertices found fit
    S_AT,  # when the job would start
    S_END,  # when it would end
    S_NOW,  # the present
    S_KIND,  # one of the KIND_ values
    S_FIRST,  # 1: stop at the first match, in the order of weights
    S_VERTEX_ORDER,  # one of the ORDER_ values: how candidates below a vertex compare,
    S_GRAPH_ORDER,  # … those of the whole graph,
    S_SLOT_ORDER,  # … and those within a slot
    S_BELOW,  # number of tracked types
    S_POINT_WIDTH,  # width of a timeline row
    S_DOMINANT,  # number of the subsystem that is walked down
    S_TREE,  # 1: that subsystem leads to each vertex by one way only
    S_FLEXIBLE,  # 1: slots beside each other are alternatives
    S_CARRIERS,  # result: vertices that carry what was booked
    S_NEEDS,  # result: units of the root
    S_EXCLUSIVE,  # result: the root is taken exclusively
    S_ROWS,  # rows written by `walk`
    S_ROW_LIMIT,  # rows that its output has
    S_SLOT_TYPE,  # number of the type "slot"
    S_N_TYPES,  # number of types
    S_N_AUX,  # number of auxiliary subsystems; their numbers stand at S_AUX
    S_AUX,
) = range(30)
MAX_AUX = 6
S_AUX_ROOT = S_AUX + MAX_AUX  # 1: the first auxiliary subsystem has a root
S_TYPES = S_AUX_ROOT + 1
"""From here on one word a type: the bits of the types tracked at vertices of it, times two, plus
one when each vertex of it is taken whole; then as many words again: its column among the tracked
types, or -1."""

KIND_ALLOCATE, KIND_RESERVE, KIND_SATISFY, KIND_LOOK, KIND_PROBE = range(5)
ORDER_GREATER, ORDER_LESS, ORDER_INTERVAL = range(3)

# Columns of the 64-bit rows by vertex that the matcher keeps: units, score under the policy, label
# that the selection gave (its number, times 1024, plus the label), the bits of the types directly
# below it (the highest for all types from HIGH_TYPES on), units of each tracked type below it.
X_SIZE, X_SCORE, X_LABEL, X_KINDS, X_TOTAL = range(5)
HIGH_TYPES = 61
LABELS = 1024
