"""Leases among named queues: nobody gets what another one's turn would have been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.job.queueconfig import parse
from flux_mpi.sched.policy import BUILT_IN, Fcfs

FIRST = {"policy": {"scheduler": {"priority": 1}}}
QUEUES: dict[str, Any] = {"late": {}, "early": FIRST, "virtual": {"parent": "late"}}


class Site:
    """Ranks of one core; ``early`` is served before ``late``, in whose line ``virtual`` stands."""

    def __init__(
        self, make_core: Callable[..., Any], ranks: int = 1, config: dict[str, Any] | None = None
    ) -> None:
        self.core = make_core(ranks, 1, queues=parse(config or {"queues": QUEUES}))
        self.manager = self.core.manager

    def line(self, queue: str, count: int = 9, **how: Any) -> list[int]:
        """An array whose first member was short, while the second runs."""
        first = self.core.submit(count=count, queue=queue, **how)
        ids = [fluid.nth(first, k) for k in range(count)]
        self.run(ids[0])
        return ids

    def run(self, jobid: int) -> None:
        """It starts, and ends soon."""
        core = self.core
        began = core.now
        core.now += 0.001
        core.report([jobid, "start", began, 0, [7]], [jobid, "exit", core.now, 0, [[0, 7, 0]]])

    def recalled(self) -> list[int]:
        """What the latest turn asked back."""
        return sorted(i for ids in self.core.actions[-1].recalls.values() for i in ids)

    def back(self, *ids: int) -> None:
        self.core.report(*[[jobid, "returned", self.core.now, 0] for jobid in ids])

    def switch(self, start: bool, name: str | None = None) -> None:
        self.manager.start(start, "why", name)
        self.core.turn()


@pytest.fixture
def site(make_core: Callable[..., Any]) -> Site:
    return Site(make_core)


@pytest.mark.parametrize("queue", list(QUEUES))
def test_each_queue_leases_its_arrays(site: Site, queue: str) -> None:
    ids = site.line(queue)
    assert site.core.leased() == ids[2:]
    for jobid in ids[1:]:
        site.run(jobid)
    assert site.manager.counts.active == 0
    assert not site.core.scheduler.allocated()
    assert site.manager.leases.lent == {}


@pytest.mark.parametrize("policy", [name for name in BUILT_IN if name != "fcfs"])
@pytest.mark.parametrize("where", ["late", "early"])
def test_nothing_is_leased_while_any_policy_plans(
    make_core: Callable[..., Any], policy: str, where: str
) -> None:
    queues = {"late": {}, "early": {}}
    config = {"queues": queues, "sched": {"queue-policy-per-queue": f"{where}:{policy}"}}
    site = Site(make_core, config=config)
    site.line("late")
    assert site.core.leased() == []
    assert not site.manager.leases.arrays


def test_nothing_is_leased_where_someone_elses_policy_decides(site: Site) -> None:
    class Mine(Fcfs):
        pass

    site.manager.queue.lanes["late"].policy = Mine()
    site.line("virtual")
    assert site.core.leased() == []
    site.manager.raise_all(62, "cancel", 0, "", 0, site.core.now)
    site.core.finish(site.core.current())
    site.line("early")
    assert site.core.leased()


def test_a_queue_that_is_served_before_comes_first(make_core: Callable[..., Any]) -> None:
    site = Site(make_core, ranks=2)
    late, early = (site.core.submit(count=9, queue=queue) for queue in ("late", "early"))
    site.run(late)
    assert site.core.state(early) == "RUN"
    assert site.core.leased() == []  # the other core comes free soon, and it is early's turn
    site.run(fluid.nth(late, 1))
    assert site.core.state(fluid.nth(early, 1)) == "RUN"
    while (current := site.core.current()) is not None:
        site.run(current)
    order = [late] * 2 + [early] * 9 + [late] * 7
    started = [site.manager.find(jobid)[0].first for jobid in site.core.started()]
    assert started == order  # sent there, or leased


def test_a_queue_that_is_served_after_does_not_matter(site: Site) -> None:
    site.core.submit(count=5, queue="late")
    site.core.finish(site.core.current())
    early = site.core.submit(count=9, queue="early")
    assert site.core.leased()  # of late, by its own first one
    assert site.recalled() == site.core.leased()
    site.back(*site.core.leased())
    site.run(site.core.current())
    site.run(early)
    assert site.core.leased() == [fluid.nth(early, k) for k in range(2, 9)]
    site.core.submit(queue="late", urgency=31)
    site.core.submit(queue="virtual")
    assert site.recalled() == []
    assert len(site.core.leased()) == 7


@pytest.mark.parametrize(
    ("why", "other"),
    [
        ("held", {"queue": "early", "urgency": 0}),
        ("stopped", {"queue": "early"}),
        ("low", {"queue": "late", "urgency": 1}),
    ],
)
def test_who_cannot_start_now_does_not_matter(site: Site, why: str, other: dict[str, Any]) -> None:
    if why == "stopped":
        site.switch(False, "early")
    blocker = site.core.submit(queue="late")
    site.core.submit(**other)
    first = site.core.submit(count=9, queue="late")
    site.core.finish(blocker)
    site.run(first)
    assert len(site.core.leased()) == 7
    site.core.submit(**other)
    assert site.recalled() == []


def test_whoever_comes_before_takes_leases_back_unless_it_starts_at_once(
    make_core: Callable[..., Any],
) -> None:
    site = Site(make_core, ranks=2)
    ids = site.line("late", constraints={"ranks": ["0"]})
    assert site.core.leased() == ids[2:]
    there = site.core.submit(queue="early", constraints={"ranks": ["1"]})
    assert site.core.state(there) == "RUN"
    assert site.recalled() == []
    site.core.submit(queue="early", constraints={"ranks": ["1"]})
    assert site.recalled() == ids[2:]


def test_a_virtual_queue_stands_in_the_same_line(site: Site) -> None:
    ids = site.line("late")
    site.core.submit(queue="virtual")
    assert site.recalled() == []
    site.switch(False, "virtual")
    assert site.recalled() == []
    urgent = site.core.submit(queue="virtual", urgency=20)
    assert site.recalled() == []
    assert site.core.leased() == ids[2:]
    site.switch(True, "virtual")
    assert site.recalled() == ids[2:]
    site.back(*ids[2:])
    site.run(ids[1])
    assert site.core.state(urgent) == "RUN"


@pytest.mark.parametrize(
    ("queue", "stopped", "asked"),
    [
        ("late", "late", True),
        ("late", "early", False),
        ("late", "virtual", False),
        ("virtual", "virtual", True),
        ("virtual", "late", True),
        ("virtual", "early", False),
        ("early", "late", False),
        ("early", None, True),
    ],
)
def test_a_queue_that_is_stopped_takes_back_its_own(
    site: Site, queue: str, stopped: str | None, asked: bool
) -> None:
    ids = site.line(queue)
    site.switch(False, stopped)
    assert site.recalled() == (ids[2:] if asked else [])
    assert site.manager.stopping is asked
    if not asked:
        return
    site.back(*ids[2:])
    assert not site.manager.stopping
    site.run(ids[1])
    assert site.core.current() is None
    assert site.core.leased() == []
    site.switch(True, stopped)
    assert site.core.current() == ids[2]


def test_while_one_is_stopped_another_leases(site: Site) -> None:
    ids = site.line("early")
    site.switch(False, "early")
    site.back(*ids[2:])
    site.run(ids[1])
    others = site.line("late")
    assert site.core.leased() == others[2:]
    site.switch(True, "early")
    assert site.recalled() == others[2:]
    site.back(*others[2:])
    site.run(others[1])
    assert site.core.current() == ids[2]


def test_a_disabled_queue_goes_on(site: Site) -> None:
    site.line("late")
    site.manager.enable(False, "full", "late")
    site.core.turn()
    assert site.recalled() == []


def test_lists_have_leases_in_their_place(site: Site) -> None:
    ids = site.line("late")
    urgent = site.core.submit(queue="virtual", urgency=20)
    held = site.core.submit(queue="early", urgency=0)
    last = site.core.submit(queue="early")
    listed = [jobs.id(k + i) for jobs, k, n in site.manager.waiting() for i in range(n)]
    assert listed == [urgent, *ids[2:], last, held]


def test_counts_tell_leases_of_each_queue_from_what_is_stopped(
    make_world: Callable[..., Any], make_entry: Callable[..., Any]
) -> None:
    world = make_world(config={"queues": QUEUES})
    [[first, _]] = world.submit(make_entry(queue="late", count=40))
    world.call("job-manager.queue-start", {"start": False, "name": "early"})
    world.submit(make_entry(queue="early", count=3), make_entry(queue="virtual", count=2))
    world.finish(first, seconds=0.001)
    assert world.service.manager.exec.leased

    def counts() -> tuple[int, int, int]:
        answer = world.call("job-manager.queue-status", {"name": "late"}).payload["counts"]
        return answer["alloc_queued"], answer["alloc_pending"], answer["running"]

    assert counts() == (3, 31 + 2, 8)
    world.call("job-manager.queue-start", {"start": False, "name": "late"})
    assert world.service.manager.exec.leased
    assert counts() == (3 + 31 + 2, 0, 8)


@pytest.mark.parametrize("which", [{"name": "late"}, {"all": True}])
def test_a_stop_is_answered_once_nothing_of_the_queue_can_begin(
    make_world: Callable[..., Any], make_entry: Callable[..., Any], which: dict[str, Any]
) -> None:
    world = make_world(config={"queues": QUEUES})
    [[first, _]] = world.submit(make_entry(queue="late", count=40))
    world.finish(first, seconds=0.001)
    leased = sorted(world.service.manager.exec.leased)
    assert leased
    other = world.call("job-manager.queue-start", {"start": False, "name": "early"})
    assert other.answered
    assert not world.broker.take("exec.recall")
    stop = world.call("job-manager.queue-start", {"start": False, **which})
    assert not stop.answered
    asked = [jobid for _, payload in world.broker.take("exec.recall") for jobid in payload["ids"]]
    assert sorted(asked) == leased
    start = world.call("job-manager.queue-start", {"start": True, "name": "early"})
    assert start.answered
    world.call("job-exec.report", {"events": [[jobid, "returned", 1.0, 0] for jobid in leased]})
    assert stop.answered
    assert stop.error is None
