"""The table of states."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_mpi.job.states import (
    ACTIVE,
    PENDING,
    RUNNING,
    TRANSITIONS,
    IllegalEvent,
    State,
    fold,
    follow,
    markdown,
    step,
)


def test_masks_are_those_of_flux() -> None:
    assert [int(state) for state in State] == [1, 2, 4, 8, 16, 32, 64]
    assert (PENDING, RUNNING, ACTIVE) == (14, 48, 62)


def test_a_jobs_usual_way() -> None:
    events = ["submit", "validate", "depend", "priority", "alloc", "start"]
    assert follow(State.NEW, *events) is State.RUN
    assert follow(State.RUN, "finish", "release", "free", "clean") is State.INACTIVE


def test_every_state_is_reached_and_left_but_the_last() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {after for row in TRANSITIONS.values() for after in row.values()}
    assert reached == set(State)
    for state, row in TRANSITIONS.items():
        assert (state is State.INACTIVE) == (not row)


@pytest.mark.parametrize("state", [s for s in State if s not in (State.NEW, State.INACTIVE)])
def test_only_severity_0_ends_a_job(state: State) -> None:
    assert step(state, "exception", 0) is State.CLEANUP
    assert step(state, "exception", 1) is state


@pytest.mark.parametrize("state", [s for s in State if s is not State.INACTIVE])
def test_what_concerns_others_changes_nothing(state: State) -> None:
    assert step(state, "memo") is state
    assert step(state, "debug.anything") is state


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.SCHED, "start"),
        (State.SCHED, "clean"),
        (State.RUN, "alloc"),
        (State.RUN, "urgency"),
        (State.CLEANUP, "alloc"),
        (State.INACTIVE, "exception"),
        (State.INACTIVE, "memo"),
        (State.RUN, "nonsense"),
    ],
)
def test_illegal_events_are_named_with_what_is_possible(state: State, event: str) -> None:
    with pytest.raises(IllegalEvent, match=f"{event}.*{state.name}"):
        step(state, event)


def test_fold_reads_severities() -> None:
    log = [("submit", {}), ("validate", {}), ("exception", {"severity": 2}), ("depend", {})]
    assert fold(log) is State.PRIORITY
    assert fold([*log, ("exception", {"severity": 0})]) is State.CLEANUP


def test_the_documentation_is_made_from_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "states.md"
    assert page.read_text() == markdown(), "run python -m flux_mpi.job.states > docs/states.md"
