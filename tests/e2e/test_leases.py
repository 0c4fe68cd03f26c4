"""Short members of an array follow each other on their ranks; nobody is to notice but the clock."""

from __future__ import annotations

import json
import os
import signal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from flux_mpi.client.jobs import wait_all
from flux_mpi.formats import fluid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Instance = Any

COUNT = 400
MEMBER = 'echo "{cc} $FLUX_JOB_ID $FLUX_JOB_CC $FLUX_TASK_RANK" >> out.{cc}; exit $(({cc} % 3))'
EVENTS = ["submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free",
          "clean"]  # fmt: skip


@pytest.fixture
def narrow(start: Callable[..., Instance]) -> Instance:
    """Four ranks of one core each: a member waits for the one before it."""
    return start("--cores-per-rank=1")


def submit(instance: Instance, *words: str) -> list[str]:
    jobs: list[str] = instance("submit", f"--cc=1-{COUNT}", *words).stdout.split()
    assert len(jobs) == COUNT
    return jobs


def ended(instance: Instance) -> int:
    return instance.states()["inactive"]


def logs(instance: Instance, jobs: list[str]) -> list[dict[str, float]]:
    """The time of each event of each job; no core was two jobs' at once."""
    found, spans = [], {}
    for job in jobs:
        keys = {"id": fluid.parse(job), "keys": ["eventlog"]}
        answer = instance.handle.call("job-info.lookup", keys)
        times, where = {}, ""
        for line in answer["eventlog"].splitlines():
            event = json.loads(line)
            times[event["name"]] = event["timestamp"]
            if event["name"] == "alloc":
                where = str(event["context"])
        assert list(times.values()) == sorted(times.values())
        if "alloc" in times:
            spans.setdefault(where, []).append((times["alloc"], times["free"]))
        found.append(times)
    for used in spans.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(used)))
    return found


def test_each_member_is_itself(narrow: Instance) -> None:
    jobs = submit(narrow, "sh", "-c", MEMBER)
    results = {result.id: result for result in wait_all(jobs, handle=narrow.handle)}
    for cc, job in enumerate(jobs, 1):
        text: Path = narrow.folder / f"out.{cc}"
        assert text.read_text() == f"{cc} {job} {cc} 0\n"  # once, and as if alone
        assert results[fluid.parse(job)].returncode == cc % 3
    assert all(list(times) == EVENTS for times in logs(narrow, jobs))


def test_a_cancel_amid_short_jobs_leaves_nothing(narrow: Instance, wait_until: Any) -> None:
    jobs = submit(narrow, "true")
    wait_until(lambda: ended(narrow) > 50, "some have ended")
    narrow("cancel", "--all")
    wait_until(narrow.idle, "all have ended")
    for times in logs(narrow, jobs):
        assert ("alloc" in times) == ("free" in times)
        assert "clean" in times
    assert not narrow.handle.call("resource.status")["allocated"]["execution"]["R_lite"]


def test_a_stopped_queue_starts_nothing(narrow: Instance, wait_until: Any) -> None:
    jobs = submit(narrow, "sh", "-c", "echo x >> out.{cc}")
    wait_until(lambda: ended(narrow) > 50, "some have ended")
    narrow("queue", "stop")
    narrow.handle.call("job-manager.idle")
    there = set(os.listdir(narrow.folder))
    waiting = narrow.states()["sched"]
    assert waiting == COUNT - sum(name.startswith("out.") for name in there)
    narrow("queue", "start")
    wait_until(lambda: ended(narrow) == COUNT, "the rest has ended")
    for cc in range(1, COUNT + 1):
        assert (narrow.folder / f"out.{cc}").read_text() == "x\n"
    assert all(list(times) == EVENTS for times in logs(narrow, jobs))


def test_queues_with_short_jobs_are_stopped_one_by_one(
    start: Callable[..., Instance], wait_until: Any, tmp_path: Path
) -> None:
    path = tmp_path / "queues.toml"
    path.write_text("[queues.first]\npolicy.scheduler.priority = 1\n[queues.second]\n")
    flux = start("--cores-per-rank=1", f"--conf={path}")
    # Short enough to be leased, and enough in all to be there still when the queue is stopped.
    mine = submit(flux, "--queue=second", "sh", "-c", "echo x >> second.{cc}; sleep 0.01")
    wait_until(lambda: ended(flux) > 50, "some have ended")
    stop = {"start": False, "reason": "the other one first", "name": "second"}
    flux.handle.call("job-manager.queue-start", stop)
    # The other one has all cores to itself, and its end is no signal for those that were stopped.
    others = submit(flux, "--queue=first", "sh", "-c", "echo x >> first.{cc}")
    wait_all(others, handle=flux.handle)
    flux.handle.call("job-manager.idle")
    waiting = flux.states()["sched"]
    assert waiting > 0
    assert waiting == COUNT - sum(name.startswith("second.") for name in os.listdir(flux.folder))
    flux("queue", "start", "second")
    wait_until(flux.idle, "the rest has ended")
    for queue in ("first", "second"):
        for cc in range(1, COUNT + 1):
            assert (flux.folder / f"{queue}.{cc}").read_text() == "x\n"
    assert all(list(times) == EVENTS for times in logs(flux, [*mine, *others]))


def test_a_broker_killed_amid_short_jobs_takes_no_waiting_one_along(
    narrow: Instance, wait_until: Any, on_open_mpi: bool
) -> None:
    jobs = submit(narrow, "true")
    wait_until(lambda: ended(narrow) > 50, "some have ended")
    os.kill(narrow.broker_pid(3), signal.SIGKILL)
    wait_until(lambda: ended(narrow) == COUNT, "all have ended")
    results = wait_all(jobs, handle=narrow.handle)
    assert sum(not result.success for result in results) <= 1
    logs(narrow, jobs)
