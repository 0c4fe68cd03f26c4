"""Leases through all the real code, under a virtual clock: manager, brokers, agents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.job.states import fold
from flux_mpi.sim.launcher import behaviour
from flux_mpi.sim.machine import Machine

COUNT = 400
ACTIVE = 62


def spec(*command: str, **request: Any) -> dict[str, Any]:
    request.setdefault("nslots", 1)
    return Jobspec.from_command(list(command), environment={}, cwd="/", **request).to_dict()


class Watched:
    """A machine of four ranks with one core each, and what its supervisors were told."""

    def __init__(self, duration: Any = behaviour) -> None:
        self.machine = Machine(4, cores=1, duration=duration)
        self.leased = 0
        for link in self.machine.links:
            self._watch(link)

    def _watch(self, link: Any) -> None:
        follow, spawn = link._handlers["after"], link._handlers["spawn"]

        def after(entry: list[Any]) -> None:
            self.leased += 1
            follow(entry)

        def start(entry: list[Any]) -> None:
            assert not link._running, "the core is taken"
            spawn(entry)

        link._handlers["after"], link._handlers["spawn"] = after, start

    def submit(self, count: int = COUNT, *command: str) -> list[tuple[int, int]]:
        return self.machine.submit(spec(*(command or ("true",))), count)

    def until(self, ended: int) -> None:
        """Let it run until so many jobs have ended."""
        counts = self.machine.nodes[0].root.jobs.manager.counts  # type: ignore[union-attr]
        self.machine.run(until=lambda: sum(counts.results.values()) >= ended)

    def logs(self, arrays: Sequence[tuple[int, int]]) -> list[list[dict[str, Any]]]:
        """The event logs, each found legal; no core was ever two jobs' at once."""
        logs, spans = [], {}
        for first, count in arrays:
            for k in range(count):
                keys = {"id": fluid.nth(first, k), "keys": ["eventlog"]}
                text = self.machine.rpc("job-info.lookup", keys)["eventlog"]
                log = [json.loads(line) for line in text.splitlines()]
                fold((event["name"], event.get("context", {})) for event in log)
                times = {event["name"]: event["timestamp"] for event in log}
                assert list(times.values()) == sorted(times.values())
                if "alloc" in times:
                    where = next(e["context"] for e in log if e["name"] == "alloc")
                    spans.setdefault(str(where), []).append((times["alloc"], times["free"]))
                logs.append(log)
        for used in spans.values():
            assert all(a[1] <= b[0] for a, b in pairwise(sorted(used)))
        return logs


def test_short_jobs_follow_each_other_without_a_pause() -> None:
    watched = Watched()
    began = watched.machine.reactor.monotonic()
    arrays = watched.submit()
    statuses = watched.machine.wait_all(arrays)
    took = watched.machine.reactor.monotonic() - began
    assert len(statuses) == COUNT
    assert set(statuses.values()) == {0}
    assert sum(link.spawned for link in watched.machine.links) == COUNT
    assert watched.leased > COUNT * 0.8
    # A millisecond each: on four cores only the first and the last ones are waited for.
    assert took < COUNT * 0.001 / 4 * 1.1 + 0.02
    names = {tuple(event["name"] for event in log) for log in watched.logs(arrays)}
    assert len(names) == 1


def test_long_jobs_are_never_leased() -> None:
    watched = Watched()
    watched.machine.wait_all(watched.submit(20, "sleep", "0.05"))
    assert watched.leased == 0


def test_a_long_one_among_short_ones_holds_nobody_up() -> None:
    ends = iter([0.001] * 50 + [30.0] + [0.001] * COUNT)
    watched = Watched(lambda argv: (next(ends), 0))
    arrays = watched.submit()
    began = watched.machine.reactor.monotonic()
    watched.until(COUNT - 1)
    assert watched.machine.reactor.monotonic() - began < 1.0
    watched.machine.wait_all(arrays)
    assert len(watched.logs(arrays)) == COUNT


def test_a_cancel_of_everything_ends_everything() -> None:
    watched = Watched()
    arrays = watched.submit()
    watched.until(100)
    cancel = {"states": ACTIVE, "type": "cancel", "severity": 0, "note": "enough"}
    watched.machine.rpc("job-manager.raise-all", cancel)
    assert len(watched.machine.wait_all(arrays)) == COUNT
    spawned = sum(link.spawned for link in watched.machine.links)
    assert 100 <= spawned < 200
    logs = watched.logs(arrays)
    assert sum(any(event["name"] == "alloc" for event in log) for log in logs) == spawned
    allocated = watched.machine.rpc("resource.status")["allocated"]
    assert not allocated["execution"]["R_lite"]


def test_nothing_starts_once_a_stop_of_the_queue_is_answered() -> None:
    watched = Watched()
    arrays = watched.submit()
    watched.until(100)
    watched.machine.rpc("job-manager.queue-start", {"start": False, "reason": "lunch"})
    spawned = sum(link.spawned for link in watched.machine.links)
    watched.machine.run(seconds=10)
    assert sum(link.spawned for link in watched.machine.links) == spawned < 200
    waiting = watched.machine.rpc(
        "job-list.list", {"max_entries": 0, "states": 14, "results": 0, "attrs": ["id"]}
    )["jobs"]
    first = arrays[0][0]
    assert [job["id"] for job in waiting] == [fluid.nth(first, k) for k in range(spawned, COUNT)]
    watched.machine.rpc("job-manager.queue-start", {"start": True})
    watched.machine.wait_all(arrays)
    assert len(watched.logs(arrays)) == COUNT


@pytest.mark.parametrize("ended", [60, 101, 133, 182])
def test_a_drained_rank_starts_nothing_more(ended: int) -> None:
    watched = Watched()
    arrays = watched.submit()
    watched.until(ended)
    watched.machine.rpc("resource.drain", {"targets": "2", "reason": "hot"})
    watched.machine.run(seconds=0.001)
    before = watched.machine.links[2].spawned
    watched.machine.wait_all(arrays)
    assert watched.machine.links[2].spawned <= before + 1
    assert len(watched.logs(arrays)) == COUNT


@pytest.mark.parametrize("rank", [1, 3])
def test_a_lost_rank_takes_only_what_ran_there(rank: int) -> None:
    watched = Watched()
    arrays = watched.submit()
    watched.until(100)
    watched.machine.remove(rank)
    statuses = watched.machine.wait_all(arrays)
    assert len(statuses) == COUNT
    assert sum(status != 0 for status in statuses.values()) <= 1
    assert len(watched.logs(arrays)) == COUNT


def test_a_shutdown_amid_leases_is_orderly() -> None:
    watched = Watched()
    watched.submit()
    watched.until(100)
    watched.machine.rpc("instance.shutdown", {})
    watched.machine.run(seconds=60)
    assert set(watched.machine.left) == set(range(4))
    assert all(orderly for _, orderly in watched.machine.left.values())
