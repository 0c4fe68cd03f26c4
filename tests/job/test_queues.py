"""Queues with the manager, the bitmap scheduler and a clock that the test moves."""

from __future__ import annotations

import errno
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.rv1 import RSet
from flux_mpi.job.ingest import Ingest
from flux_mpi.job.manager import Manager
from flux_mpi.job.queueconfig import parse
from flux_mpi.message.errors import FluxError, ServiceError
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.tiered import Tier

Make = Callable[..., dict[str, Any]]


class Site:
    """Six nodes of two cores; 0 to 3 are for batch jobs, 4 and 5 for debugging."""

    def __init__(self, make_entry: Make, config: dict[str, Any]) -> None:
        settings = parse(config)
        self.make_entry = make_entry
        self.scheduler = BitmapScheduler(Tier("never"))
        self.manager = Manager(self.scheduler, epoch=0.0, queues=settings)
        self.ingest = Ingest(settings)
        self.now = 0.0
        nodes = range(6)
        self.scheduler.update(
            RSet(
                dict.fromkeys(nodes, IDSet(range(2))),
                {},
                {rank: f"node{rank}" for rank in nodes},
                properties={"batch": IDSet.parse("0-3"), "debug": IDSet.parse("4-5")},
            )
        )
        self.manager.resources_changed(self.now)

    def submit(
        self, nodes: int = 0, limit: float = 0.0, runs: float = 1.0, urgency: int = 16, **how: Any
    ) -> int:
        """Submit; the job (or each of an array) runs for ``runs``, at most ``limit`` seconds."""
        if nodes:
            how |= {"nnodes": nodes, "ntasks": nodes, "exclusive": True}
        entry = self.make_entry(mock=runs, duration=limit, **how)
        entries, _, _ = self.ingest.parse({"entries": [entry]})
        ((first, _),) = self.manager.submit(entries, self.now, urgency=urgency)
        self.turn()
        return first

    def turn(self) -> None:
        while self.manager.dirty:
            self.manager.turn(self.now)
        self.manager.take()

    def run(self, until: float = inf) -> None:
        while (deadline := self.manager.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.manager.turn(self.now)
            self.turn()
        self.now = until if until < inf else self.now

    def ranks(self, jobid: int) -> str:
        jobs, k = self.manager.find(jobid)
        placement = self.manager.store.ledger.placement[jobs.row(k)]
        assert placement is not None
        return placement.ranks

    def started(self, jobid: int) -> float | None:
        jobs, k = self.manager.find(jobid)
        row = jobs.row(k)
        return None if row < 0 else self.manager.store.ledger.t_alloc[row]


TWO: dict[str, Any] = {
    "policy": {"jobspec": {"defaults": {"system": {"queue": "batch"}}}},
    "queues": {
        "batch": {
            "requires": ["batch"],
            "policy": {"limits": {"job-size": {"max": {"nnodes": 4}}}},
        },
        "debug": {
            "requires": ["debug"],
            "policy": {
                "limits": {"duration": "30m", "job-size": {"min": {"nnodes": 1}}},
                "jobspec": {"defaults": {"system": {"duration": "5m"}}},
            },
        },
        "urgent": {"parent": "batch"},
    },
}


@pytest.fixture
def two(make_entry: Make) -> Site:
    return Site(make_entry, TWO)


@pytest.fixture
def site(make_entry: Make) -> Callable[..., Site]:
    return lambda config: Site(make_entry, config)


def test_each_queue_has_its_own_nodes_and_line(two: Site) -> None:
    whole = two.submit(4, runs=10)
    waiting = two.submit(1)
    debug = two.submit(2, queue="debug")
    assert (two.ranks(whole), two.ranks(debug)) == ("0-3", "4-5")
    assert two.started(waiting) is None
    jobs, _ = two.manager.find(debug)
    assert jobs.jobspec.constraints == {"properties": ["debug"]}
    assert (jobs.jobspec.queue, jobs.duration) == ("debug", 300.0)
    two.run()
    assert two.started(waiting) == 10.0


def test_constraints_add_up(two: Site) -> None:
    own = two.submit(1, queue="debug", constraints={"properties": ["^batch"]})
    both = two.submit(1, queue="debug", constraints={"ranks": ["5"]})
    assert two.manager.find(own)[0].jobspec.constraints == {"properties": ["^batch", "debug"]}
    assert two.manager.find(both)[0].jobspec.constraints == {
        "and": [{"ranks": ["5"]}, {"properties": ["debug"]}]
    }
    assert two.ranks(both) == "5"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"queue": "nope"}, "Invalid queue 'nope' specified"),
        ({"nodes": 5}, "requested nnodes (5) exceeds policy limit of 4 for queue batch"),
        ({"queue": "debug"}, "requested nnodes (0) is under policy limit of 1 for queue debug"),
        (
            {"nodes": 1, "queue": "debug", "limit": 3600.0},
            "requested duration (1h) exceeds policy limit of 30m for queue debug",
        ),
    ],
)
def test_what_a_queue_refuses(two: Site, how: dict[str, Any], expected: str) -> None:
    with pytest.raises(ServiceError) as caught:
        two.submit(**how)
    assert (caught.value.errno, str(caught.value)) == (errno.EINVAL, expected)
    assert two.manager.counts.active == 0


def test_limits_without_queues(site: Callable[..., Site]) -> None:
    limits = {"duration": "1h", "job-size": {"max": {"ncores": 2, "ngpus": 0}}}
    here = site({"policy": {"limits": limits}})
    for how, expected in (
        ({"limit": 60.0, "ntasks": 3}, "requested ncores (3) exceeds policy limit of 2"),
        ({"limit": 60.0, "gpus_per_task": 1}, "requested ngpus (1) exceeds policy limit of 0"),
        ({}, "requested duration (unlimited) exceeds policy limit of 1h"),
        ({"queue": "x", "limit": 60.0}, "'x' is not a valid queue"),
    ):
        with pytest.raises(ServiceError) as caught:
            here.submit(**how)
        assert str(caught.value) == expected
    here.submit(limit=60.0)


def test_named_queues_without_a_default_want_a_name(site: Callable[..., Site]) -> None:
    here = site({"queues": {"a": {}, "b": {}}})
    with pytest.raises(ServiceError, match="no queue specified"):
        here.submit()
    here.submit(queue="b")


def test_queues_have_switches_of_their_own(two: Site) -> None:
    two.manager.enable(False, "maintenance", "debug")
    with pytest.raises(ServiceError, match="job submission to debug is disabled: maintenance"):
        two.submit(1, queue="debug")
    two.manager.start(False, "later", "batch")
    batch = two.submit(1, runs=1)
    two.manager.enable(True, name="debug")
    debug = two.submit(1, queue="debug")
    assert two.started(batch) is None
    assert two.started(debug) == 0.0
    two.manager.start(True, name="batch")
    two.turn()
    assert two.started(batch) == 0.0
    with pytest.raises(ServiceError, match="'nope' is not a valid queue"):
        two.manager.start(True, name="nope")
    two.manager.enable(False, "all of them")
    for name in ("batch", "debug", "urgent"):
        with pytest.raises(ServiceError, match=f"to {name} is disabled: all of them"):
            two.submit(1, queue=name)


def test_a_virtual_queue_stands_in_its_parents_line(two: Site) -> None:
    """RFC 33: one order of priority, but a switch of its own."""
    two.submit(4, runs=10)
    first = two.submit(4, queue="batch", runs=10)
    second = two.submit(4, queue="urgent", runs=10)
    third = two.submit(4, queue="batch", runs=10)
    ahead = two.submit(4, queue="urgent", runs=10, urgency=20)
    held = two.submit(4, queue="urgent", urgency=0)
    listed = [jobs.id(k) for jobs, k, _ in two.manager.queue.ordered()]
    assert listed == [ahead, first, second, third, held]
    two.manager.start(False, name="urgent")
    assert two.manager.queue.lanes["urgent"].status()["start"] is False
    two.run(15.0)
    assert [two.started(job) for job in (ahead, first)] == [None, 10.0]
    two.manager.start(True, name="urgent")
    two.run()
    assert [two.started(job) for job in (ahead, second, third)] == [20.0, 30.0, 40.0]
    assert two.started(held) is None
    two.manager.start(False, name="batch")
    status = two.manager.queue.lanes["urgent"].status()
    assert (status["start"], status["blocked"], status["parent"]) == (False, "parent", "batch")
    assert status["stop_reason"] == "parent queue 'batch' is stopped"


def test_policies_differ_by_queue(site: Callable[..., Site]) -> None:
    here = site({**TWO, "sched": {"queue-policy-per-queue": "batch:easy debug:fcfs"}})
    for queue, nodes in (("batch", 4), ("debug", 2)):
        here.submit(nodes - 1, limit=10, runs=10, queue=queue)
        head = here.submit(nodes, limit=10, queue=queue)
        short = here.submit(1, limit=5, queue=queue)
        long = here.submit(1, limit=20, queue=queue)
        assert here.started(head) is None
        assert here.started(long) is None
        assert here.started(short) == (0.0 if queue == "batch" else None)
    expected = here.manager.queue.expected()
    assert list(expected.values()) == [10.0]  # that of the head of batch
    here.run()


def test_a_queue_of_higher_priority_is_served_first(site: Callable[..., Site]) -> None:
    queues = {
        "low": {},
        "high": {"policy": {"scheduler": {"priority": 5}}},
    }
    here = site({"queues": queues})
    here.submit(6, runs=10, queue="low")
    low = here.submit(6, runs=10, queue="low")
    high = here.submit(6, runs=10, queue="high")
    here.run()
    assert (here.started(high), here.started(low)) == (10.0, 20.0)


def test_jobs_without_a_limit_end_with_the_instance(site: Callable[..., Site]) -> None:
    here = site({"sched": {"queue-policy": "easy"}})
    here.manager.expiration = 1000.0
    here.submit(5, runs=10)
    head = here.submit(6)
    assert here.manager.queue.expected() == {head: 1000.0}
    unlimited = here.submit(1)  # it would end with the instance too, so the head is not put off
    assert here.started(unlimited) == 0.0


def test_a_job_that_waits_for_unlimited_ones_is_not_put_off(site: Callable[..., Site]) -> None:
    here = site({"sched": {"queue-policy": "easy"}})
    here.submit(5, runs=10)
    head = here.submit(6, limit=10)
    assert here.manager.queue.expected() == {}  # nobody can tell
    unlimited, short = here.submit(1), here.submit(1, limit=10, runs=10)
    assert here.started(unlimited) is None
    assert here.started(short) == 0.0
    here.run()
    assert here.started(head) == 10.0


def test_an_array_is_backfilled_as_one_entry(site: Callable[..., Site]) -> None:
    config = {"sched": {"queue-policy": "easy", "queue-params": "queue-depth=3"}}
    here = site(config)
    here.submit(5, limit=100, runs=100)
    here.submit(6, limit=10)
    first = here.submit(limit=10, runs=10, count=1000)  # one core each, and one node is free
    assert here.manager.counts.running == 3
    here.run(99.0)
    assert here.manager.counts.results[next(iter(here.manager.counts.results))] == 20 - 2
    assert here.started(first) == 0.0


def test_more_than_the_queue_depth_is_looked_at_as_long_as_something_starts(
    site: Callable[..., Site],
) -> None:
    config = {"sched": {"queue-policy": "easy", "queue-params": "queue-depth=2"}}
    here = site(config)
    here.submit(3, limit=100, runs=100)
    here.submit(6, limit=10)
    jobs = [here.submit(1, limit=10 + i, runs=10) for i in range(3)]
    assert [here.started(job) for job in jobs] == [0.0] * 3


def test_a_policy_that_plans_needs_a_scheduler_that_does(make_entry: Make) -> None:
    class Simple(BitmapScheduler):
        plans = False

    with pytest.raises(FluxError, match=r"found 'easy'.*allowed with Simple, which cannot: fcfs"):
        Manager(Simple(Tier("never")), queues=parse({"sched": {"queue-policy": "easy"}}))
    Manager(Simple(Tier("never")), queues=parse({}))


def test_the_services(make_world: Callable[..., Any], make_entry: Make) -> None:
    world = make_world(config={"queues": {"a": {}, "b": {}}})
    assert world.call("job-manager.queue-list").payload == {
        "queues": ["a", "b"],
        "default": "",
        "enable": True,
        "start": True,
    }
    assert world.call("job-manager.queue-status").error == (
        errno.EINVAL,
        "a named queue is required",
    )
    everyone = (errno.EINVAL, "Use --all to apply this command to all queues")
    assert world.call("job-manager.queue-start", {"start": False}).error == everyone
    assert world.call("job-manager.queue-start", {"start": False, "name": "c"}).error == (
        errno.EINVAL,
        "'c' is not a valid queue",
    )
    assert world.call("job-manager.queue-start", {"start": False, "name": 3}).error[0] == (
        errno.EPROTO
    )
    world.call("job-manager.queue-start", {"start": False, "name": "b", "reason": "x"})
    world.call("job-manager.queue-enable", {"enable": False, "all": True, "reason": "y"})
    status = world.call("job-manager.queue-status", {"name": "b"}).payload
    assert (status["start"], status["stop_reason"], status["disable_reason"]) == (False, "x", "y")
    assert world.call("job-manager.queue-status", {"name": "a"}).payload["start"] is True
    world.call("job-manager.queue-enable", {"enable": True, "all": True})
    world.submit(make_entry(queue="a", count=9), make_entry(queue="b", count=5))
    counts = world.call("job-manager.queue-status", {"name": "a"}).payload["counts"]
    assert counts == {"alloc_queued": 5, "alloc_pending": 1, "running": 8, "active": 14}
    listed = world.call("job-list.list", {"attrs": ["queue"], "queue": "b"}).payload["jobs"]
    assert [job["queue"] for job in listed] == ["b"] * 5


def test_a_list_of_a_queue_has_the_jobs_of_its_virtual_ones(
    make_world: Callable[..., Any], make_entry: Make
) -> None:
    world = make_world(config={"queues": {"a": {}, "b": {}, "v": {"parent": "a"}}})
    world.submit(*(make_entry(queue=name) for name in ("a", "b", "v", "v")))

    def listed(queue: str) -> list[str]:
        answer = world.call("job-list.list", {"attrs": ["queue"], "queue": queue}).payload
        return sorted(job["queue"] for job in answer["jobs"])

    assert listed("a") == ["a", "v", "v"]
    assert listed("v") == ["v", "v"]
    assert listed("b") == ["b"]
    assert listed("nope") == []


def test_a_waiting_job_says_when_it_may_start(
    make_world: Callable[..., Any], make_entry: Make
) -> None:
    world = make_world(config={"sched": {"queue-policy": "easy"}})
    world.submit(make_entry(nnodes=4, ntasks=4, exclusive=True, duration=60.0))
    ((waiting, _),) = world.submit(make_entry())
    (job,) = world.call("job-list.list", {"ids": [waiting], "attrs": ["annotations"]}).payload[
        "jobs"
    ]
    left = job["annotations"]["sched"]["t_estimate"] - world.service.now()
    assert 59 < left <= 60
