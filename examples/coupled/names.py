"""How the two jobs call what they share, in the primary namespace of the instance's store."""

from __future__ import annotations

ROOT = "coupled"
"""Directory of the store: ``coupled.rows.ROUND.TASK``, ``coupled.decisions.ROUND``."""
SIMULATION, ANALYSIS = "coupled.simulation", "coupled.analysis"
"""Groups: who is at work."""
START, ROUND = "coupled.start", "coupled.round"
"""Barriers: all of both jobs are there; all strips of a round are written."""
WRITTEN, STEER = "coupled.written", "coupled.steer"
"""Events: a round is complete in the store; a decision about one has been made."""

LAG = 2
"""A round begins once the decision about the one so many before it is known: the analysis works
while the simulation goes on, and it makes no difference to the result which of them is faster."""
STEPS = 8
"""Steps of a round: as many rows of its neighbours a strip needs."""
PATIENCE_S = 300.0
"""How long to wait at a barrier for the other job, which may have to wait for its cores."""


def rows_key(number: int, task: int) -> str:
    """Where ``task`` puts its rows after round ``number``."""
    return f"{ROOT}.rows.{number}.{task}"
