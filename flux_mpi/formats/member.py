"""Names of the members of groups, and of those in a barrier: ``JOBID.taskrank`` for a task.

Not of an RFC: Flux's own groups have broker ranks as members.
"""

from __future__ import annotations

LIMIT = 256
"""Characters that a name may have, of a member, a group or a barrier."""


def task(jobid: str, taskrank: int | str) -> str:
    """The name of a task."""
    return f"{jobid}.{taskrank}"


def order(name: str) -> tuple[str, int, str]:
    """Sorts the tasks of a job by their rank, so that 10 comes after 9."""
    head, dot, tail = name.rpartition(".")
    if dot and tail.isascii() and tail.isdigit():
        return head, int(tail), name
    return name, -1, name


def problem(name: object) -> str:
    """What is wrong with ``name`` as one of a member, a group or a barrier; empty: nothing."""
    if not isinstance(name, str):
        return f"a string is required, found {name!r}"[:120]
    if not 0 < len(name) <= LIMIT:
        return f"1 to {LIMIT} characters are required, found {len(name)}"
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        return f"control characters are not allowed, found {name!r}"
    return ""
