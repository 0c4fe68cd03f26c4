"""The states of a job, and the one table of what changes them (RFC 21).

A job's state is a fold over its event log: `step` looks up where an event leads, and nothing else
in this package assigns a state. The manager does not call `step` for each of a million members,
but the codes it writes are results of `step`, computed at import; a transition that the table does
not hold cannot be written without failing there and then.

Two things are not in the table but in the context of an event: an ``exception`` changes the state
only when its severity is 0, and ``release`` matters only to who counts resources. Events that RFC
21 leaves to others (``memo``, ``debug.*``, ``dependency-add``, …) never change it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from enum import IntEnum, IntFlag
from typing import Any


class State(IntEnum):
    """The values are Flux's, usable as a mask."""

    NEW = 1
    DEPEND = 2
    PRIORITY = 4
    SCHED = 8
    RUN = 16
    CLEANUP = 32
    INACTIVE = 64


PENDING = State.DEPEND | State.PRIORITY | State.SCHED
RUNNING = State.RUN | State.CLEANUP
ACTIVE = PENDING | RUNNING


class Result(IntEnum):
    """How an inactive job ended; usable as a mask."""

    COMPLETED = 1
    FAILED = 2
    CANCELED = 4
    TIMEOUT = 8


class JobFlags(IntFlag):
    """What a submitter may ask for; values are Flux's."""

    DEBUG = 2
    WAITABLE = 4
    NOVALIDATE = 8


class IllegalEvent(ValueError):
    """An event that cannot happen in this state."""


_S = State

TRANSITIONS: dict[State, dict[str, State]] = {
    _S.NEW: {"submit": _S.NEW, "validate": _S.DEPEND},
    _S.DEPEND: {"depend": _S.PRIORITY, "urgency": _S.DEPEND, "exception": _S.CLEANUP},
    _S.PRIORITY: {"priority": _S.SCHED, "urgency": _S.PRIORITY, "exception": _S.CLEANUP},
    _S.SCHED: {
        "alloc": _S.RUN,
        "priority": _S.SCHED,
        "urgency": _S.PRIORITY,
        "flux-restart": _S.PRIORITY,
        "exception": _S.CLEANUP,
    },
    _S.RUN: {"start": _S.RUN, "finish": _S.CLEANUP, "exception": _S.CLEANUP},
    # After an exception the tasks may still be starting, and are still to finish.
    _S.CLEANUP: {
        "start": _S.CLEANUP,
        "finish": _S.CLEANUP,
        "release": _S.CLEANUP,
        "free": _S.CLEANUP,
        "clean": _S.INACTIVE,
        "exception": _S.CLEANUP,
    },
    _S.INACTIVE: {},
}
"""Where each event leads. ``exception`` stands for one of severity 0."""

PASSIVE = frozenset({"memo", "set-flags", "dependency-add", "dependency-remove", "jobspec-update"})
"""Events of an active job that leave its state alone, besides ``debug.*`` and mild exceptions."""


def step(state: State, event: str, severity: int = 0) -> State:
    """The state after ``event``; ``severity`` is that of an exception.

    Raises IllegalEvent.
    """
    if state is not State.INACTIVE and (
        event in PASSIVE or event.startswith("debug.") or (event == "exception" and severity > 0)
    ):
        return state
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        allowed = ", ".join(TRANSITIONS[state]) or "none"
        raise IllegalEvent(
            f"event {event!r} is not possible in state {state.name} (possible: {allowed})"
        ) from None


def fold(events: Iterable[tuple[str, Mapping[str, Any]]]) -> State:
    """The state that a log of (name, context) leads to. Raises IllegalEvent."""
    state = State.NEW
    for name, context in events:
        state = step(state, name, int(context.get("severity", 0)))
    return state


def follow(state: State, *events: str) -> State:
    """The state after several events (exceptions of severity 0). Raises IllegalEvent."""
    for event in events:
        state = step(state, event)
    return state


def markdown() -> str:
    """The page of the documentation that is made from the table."""
    names = sorted({event for row in TRANSITIONS.values() for event in row})
    lines = [
        "# The states of a job",
        "",
        "Made from the code by `python -m flux_mpi.job.states`; a test keeps it so.",
        "Where each event (RFC 21) leads from each state; an empty cell cannot happen.",
        "",
        "| event | " + " | ".join(state.name for state in State) + " |",
        "|---" * (len(State) + 1) + "|",
    ]
    for name in names:
        cells = [TRANSITIONS[state].get(name) for state in State]
        lines.append(
            f"| `{name}` | " + " | ".join(cell.name if cell else "" for cell in cells) + " |"
        )
    lines += [
        "",
        "`exception` stands for one of severity 0; milder ones change nothing, and neither do",
        f"`debug.*` and {', '.join(f'`{name}`' for name in sorted(PASSIVE))}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
