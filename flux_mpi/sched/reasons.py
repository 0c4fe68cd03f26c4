"""Why nodes are out of the question for a request: constraints, and what is not up. Pure."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

from flux_mpi.sched.machine import Machine

MAX_CLAUSES = 8
"""Parts of a constraint that are told of one by one."""


def why_not(machine: Machine, constraint: str, up: Container[int]) -> list[str]:
    """A line for each reason, none when all nodes will do; ``up``: the ranks that may be used."""
    lines = []
    size = machine.size
    if constraint:
        hits = machine.matching(constraint)
        usable = sum(1 for rank, hit in zip(machine.ranks, hits) if hit and rank in up)
        parts = clauses(json.loads(constraint))
        each = ""
        if 1 < len(parts) <= MAX_CLAUSES:
            out = ((part, size - sum(machine.matching(part))) for part in parts)
            each = " (" + ", ".join(f"{part}: {count}" for part, count in out) + ")"
        lines.append(
            f"the constraint {constraint} rules out {size - sum(hits)} of {size} nodes{each}; "
            f"of the others {usable} can be used now"
        )
    down = sum(1 for rank in machine.ranks if rank not in up)
    if down:
        verb = "is" if down == 1 else "are"
        lines.append(f"{down} of {size} nodes {verb} down, drained or excluded")
    return lines


def clauses(constraint: dict[str, Any]) -> list[str]:
    """The parts of a constraint that must all hold, as canonical JSON."""
    found = []
    for operator, operands in constraint.items():
        if operator == "and":
            for operand in operands:
                found += clauses(operand)
        elif operator == "properties":
            found += [_text({operator: [name]}) for name in operands]
        else:
            found.append(_text({operator: operands}))
    return found


def _text(constraint: dict[str, Any]) -> str:
    return json.dumps(constraint, sort_keys=True, separators=(",", ":"))
