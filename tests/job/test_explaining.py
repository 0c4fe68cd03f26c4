"""Why a job does not run, in words."""

from __future__ import annotations

from typing import Any

import pytest

from flux_mpi.job import explaining, owners, queueconfig


def lines(core: Any, jobid: int) -> list[str]:
    jobs, k = core.manager.find(jobid)
    return explaining.job(core.manager, jobs, k, core.now).splitlines()


@pytest.fixture
def busy(make_core: Any) -> Any:
    """Four nodes of two cores, all taken for a minute, and the policy easy."""
    settings = queueconfig.parse({"sched": {"queue-policy": "easy"}})
    core = make_core(queues=settings)
    core.submit(["a"], nnodes=4, ntasks=4, cores_per_task=2, duration=60.0)
    return core


def test_the_first_and_those_behind_it(busy: Any) -> None:
    first = busy.submit(["b"], ntasks=8, duration=30.0)
    second = busy.submit(["c"], ntasks=1, count=3, duration=10.0)
    told = lines(busy, first)
    assert told[0].endswith(" is the first of the queue")
    assert (
        told[1]
        == "needs 8 slots of 1 core each; found 0 cores free on 4 usable nodes, 0 of them empty"
    )
    assert told[2].startswith("by the plan it starts in ")
    jobs, _ = busy.manager.find(second)
    told = lines(busy, jobs.id(2))
    assert " has 3 jobs ahead of it in the queue (easy: it starts before them only " in told[0]
    (plan,) = owners.reserved(busy.manager)
    assert plan[1] in lines(busy, first)[0]


def test_held_and_stopped(busy: Any) -> None:
    job = busy.submit(["b"], urgency=0)
    assert lines(busy, job)[0].endswith(" is held: its urgency is 0")
    busy.manager.start(False, "at lunch")
    other = busy.submit(["c"])
    assert lines(busy, other)[0] == "the queue is stopped: at lunch"


def test_what_runs_and_what_ran(busy: Any) -> None:
    ((placement, name),) = owners.running(busy.manager)
    jobs, k = busy.manager.store.arrays[0], 0
    busy.now += 5
    assert lines(busy, jobs.id(k)) == [f"{name} is running: for 5s on {placement.summary}"]
    job = busy.submit(["b"], ntasks=99)
    (text,) = lines(busy, job)
    assert " is inactive: failed (alloc: unsatisfiable request: need 99 slot(s)" in text
