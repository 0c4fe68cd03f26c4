"""The rows of integers that a request is made of for kernels; `requests` makes them."""

from __future__ import annotations

from typing import Any

Words = Any

# Columns of a request's rows; the need below one unit, by tracked type, follows from R_NEED on.
R_TYPE, R_MIN, R_MAX, R_OPERATOR, R_OPERAND, R_EXCLUSIVE = range(6)
R_FROM, R_TO, R_IS_SLOT, R_MOST, R_PRUNES, R_LABEL, R_UNION, R_UNION_TO = range(6, 14)
R_NEED = 14
X_UNSAID, X_TRUE, X_FALSE = range(3)
OP_PLUS, OP_TIMES, OP_POWER = range(3)


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
