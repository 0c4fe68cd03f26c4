"""Numbers about the levels of a hierarchy and the instances on them, for the report at the end."""

from __future__ import annotations

from typing import Any

MAX_RECORDS = 4096
"""Instances that are reported one by one; of more, only their levels are."""

RECORD = ("treeid", "begin", "end", "njobs", "nnodes", "ncores", "ngpus", "lost")
"""What a row about an instance holds: its place in the tree, Unix times of its first readiness and
its end, members it ran, its resources, and whether it was lost (0 or 1)."""

COUNTS = (
    "instances",
    "ncores",
    "jobs",
    "chunks",
    "moved",
    "lost",
    "replaced",
    "rerun",
    "messages",
)
"""Of a level: instances that came up, their cores, members they ran; chunks of members they were
given, members taken from one for another; instances lost and replaced, members that ran again
because of that; messages to and from them."""
TIMES = ("start",)
"""Seconds from the wish for an instance to its readiness, in all."""


def level(**numbers: float) -> dict[str, Any]:
    """A level with these numbers, all others zero."""
    return {**dict.fromkeys(COUNTS, 0), **dict.fromkeys(TIMES, 0.0), **numbers}


def check_levels(value: Any) -> list[dict[str, Any]]:
    """What a report says about levels. Raises ValueError."""
    if not isinstance(value, list) or len(value) > 64:
        raise ValueError(f"levels: expected a list, found {value!r}"[:200])
    for entry in value:
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(name, 0), (int, float)) for name in (*COUNTS, *TIMES)
        ):
            raise ValueError(f"levels: expected numbers by name, found {entry!r}"[:200])
    return [level(**{name: entry.get(name, 0) for name in (*COUNTS, *TIMES)}) for entry in value]


def check_records(value: Any) -> list[list[Any]]:
    """What a report says about instances. Raises ValueError."""
    if not isinstance(value, list) or len(value) > MAX_RECORDS:
        raise ValueError(f"records: expected a list of at most {MAX_RECORDS}")
    for row in value:
        if not isinstance(row, list) or len(row) != len(RECORD) or not isinstance(row[0], str):
            raise ValueError(f"records: expected {', '.join(RECORD)}, found {row!r}"[:200])
    return value


def add_levels(into: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    """Levels of a sibling, added to those known."""
    for at, entry in enumerate(more):
        if at == len(into):
            into.append(level())
        for name in (*COUNTS, *TIMES):
            into[at][name] += entry[name]
