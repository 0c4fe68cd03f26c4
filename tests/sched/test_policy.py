"""Queue policies under a clock of their own: who may overtake whom, and that nobody is put off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched import plugins, policy
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.graph import GraphScheduler
from flux_mpi.sched.placement import Placement
from flux_mpi.sched.policy import Params, Policy, Run
from flux_mpi.sched.tiered import Tier

Job = tuple[int, Shape, int, int]
"""(submitted, shape, limit, seconds that it runs)"""


class World:
    """A queue, a machine and a clock. Jobs are numbers; equal neighbours make one run."""

    def __init__(self, jobs: list[Job], cores: list[int], rule: Policy) -> None:
        self.jobs = jobs
        self.policy = rule
        self.scheduler = BitmapScheduler(Tier("never"))
        self.scheduler.update(
            RSet(
                {rank: IDSet(range(n)) for rank, n in enumerate(cores)},
                {},
                {rank: f"node{rank}" for rank in range(len(cores))},
            )
        )
        self.waiting: list[int] = []
        self.running: dict[int, tuple[Placement, float]] = {}
        self.started: dict[int, float] = {}
        self.now = 0.0
        self.cycles = 0

    def runs(self) -> Iterable[Run]:
        at = 0
        while at < len(self.waiting):
            _, shape, limit, _ = self.jobs[self.waiting[at]]
            n = 1
            while at + n < len(self.waiting) and self.jobs[self.waiting[at + n]][1:3] == (
                shape,
                limit,
            ):
                n += 1
            yield Run(shape, n, float(limit), self.waiting[at : at + n])
            at += n

    def head(self, limit: int) -> Run | None:
        for run in self.runs():
            return run._replace(number=min(limit, run.number))
        return None

    def start(self, run: Run, placements: list[Placement]) -> None:
        for job, placement in zip(run.ticket, placements):
            self.waiting.remove(job)
            self.running[job] = (placement, self.now + self.jobs[job][3])
            self.started[job] = self.now

    def step(self) -> bool:
        """To the next event, and through its cycle. False: nothing left to happen."""
        times = [end for _, end in self.running.values()]
        times += [job[0] for i, job in enumerate(self.jobs) if not self.known(i)]
        if not times:
            return False
        self.now = max(self.now, min(times))
        for i, job in enumerate(self.jobs):
            if not self.known(i) and job[0] <= self.now:
                if self.scheduler.feasible(job[1]) is None:
                    self.waiting.append(i)
                else:
                    self.started[i] = inf
        over = [job for job, (_, end) in self.running.items() if end <= self.now]
        self.scheduler.free([self.running.pop(job)[0] for job in over])
        self.policy.withdraw(self.scheduler)
        while self.policy.cycle(self, self.scheduler, self.now):
            self.policy.withdraw(self.scheduler)
        self.cycles += 1
        return True

    def known(self, i: int) -> bool:
        return i in self.started or i in self.waiting

    def run(self) -> None:
        while self.step():
            pass

    def promises(self) -> dict[int, float]:
        """When each job with a reservation is expected to start."""
        return {each.run.ticket[each.k]: each.reservation.start for each in self.policy.reserved}


@st.composite
def shapes(draw: Any, whole: bool) -> Shape:
    nodes = draw(st.integers(1, 3) if whole else st.integers(0, 3))
    slots = 1 if whole else draw(st.integers(1, 3))
    cores = 1 if whole else draw(st.integers(1, 2))
    total = slots * nodes if nodes else slots
    exclusive = whole or (bool(nodes) and draw(st.booleans()))
    return Shape(nodes, total, slots if nodes else 0, cores, 0, exclusive, total)


def workloads(whole: bool = False, exact: bool = False) -> st.SearchStrategy[list[Job]]:
    """Jobs; ``exact``: they run for as long as they may."""

    def job(values: tuple[int, Shape, int, int]) -> Job:
        submitted, shape, limit, seconds = values
        return (submitted, shape, limit, limit if exact else min(limit, seconds))

    one = st.tuples(st.integers(0, 12), shapes(whole), st.integers(1, 9), st.integers(1, 9))
    return st.lists(one.map(job), min_size=1, max_size=12).map(
        lambda jobs: sorted(jobs, key=lambda job: job[0])
    )


machines = st.lists(st.integers(1, 4), min_size=1, max_size=4)
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = sorted(policy.BUILT_IN)


@many
@given(jobs=workloads(), cores=machines, name=st.sampled_from(NAMES), depth=st.integers(1, 4))
def test_every_job_that_could_run_does(
    jobs: list[Job], cores: list[int], name: str, depth: int
) -> None:
    params = Params(queue_depth=depth, reservation_depth=2)
    world = World(jobs, cores, policy.BUILT_IN[name](params))
    world.run()
    assert not world.waiting
    assert len(world.started) == len(jobs)
    assert not world.scheduler.allocated().cores
    if name == "fcfs":
        times = [world.started[i] for i in range(len(jobs)) if world.started[i] < inf]
        assert times == sorted(times)


@many
@given(jobs=workloads(), cores=machines, name=st.sampled_from(["easy", "hybrid", "conservative"]))
def test_the_head_of_the_queue_is_never_put_off(
    jobs: list[Job], cores: list[int], name: str
) -> None:
    """Whatever starts before it, and however early jobs end."""
    world = World(jobs, cores, policy.BUILT_IN[name](Params(queue_depth=100)))
    promised: dict[int, float] = {}
    while world.step():
        for job, when in promised.items():
            assert job in world.waiting or world.started[job] <= when + 1e-5
        promises = world.promises()
        assert world.waiting == [] or next(iter(promises)) == world.waiting[0]
        for job in world.waiting[:1]:
            assert promises[job] > world.now
            if job in promised:
                assert promises[job] <= promised[job] + 1e-5
            promised = {job: promises[job]}


@many
@given(jobs=workloads(whole=True, exact=True), nodes=st.integers(1, 5))
def test_conservative_backfilling_puts_nobody_off(jobs: list[Job], nodes: int) -> None:
    rule = policy.Conservative(Params(queue_depth=100))
    world = World(jobs, [2] * nodes, rule)
    promised: dict[int, float] = {}
    while world.step():
        promises = world.promises()
        assert list(promises) == world.waiting
        for job, when in promised.items():
            assert promises.get(job, world.started.get(job, inf)) <= when + 1e-5
        promised = promises


@pytest.fixture
def nodes() -> Callable[[int], Shape]:
    return lambda n: Shape(n, n, 1, 1, 0, True, n)


def test_easy_overtakes_and_fcfs_does_not(nodes: Callable[[int], Shape]) -> None:
    #       busy: 3 of 4 to 10   the head: all    short: fits before   long: would put it off
    jobs = [(0, nodes(3), 10, 10), (1, nodes(4), 5, 5), (2, nodes(1), 8, 8), (2, nodes(1), 9, 9)]
    starts = {}
    for name in ("fcfs", "easy"):
        world = World(jobs, [2] * 4, policy.BUILT_IN[name]())
        world.run()
        starts[name] = [world.started[i] for i in range(4)]
    assert starts["fcfs"] == [0.0, 10.0, 15.0, 15.0]
    assert starts["easy"] == [0.0, 10.0, 2.0, 15.0]


def test_conservative_protects_the_second_too(nodes: Callable[[int], Shape]) -> None:
    jobs = [
        (0, nodes(3), 10, 10),
        (1, nodes(4), 5, 5),  # at 10
        (1, nodes(3), 5, 5),  # at 15
        (2, nodes(2), 30, 30),  # never fits before 15, and then beside the one above does not
        (2, nodes(1), 8, 8),  # at once
    ]
    for name, depth, last in (("conservative", 64, 20.0), ("hybrid", 2, 20.0), ("hybrid", 1, 20.0)):
        world = World(jobs, [2] * 4, policy.BUILT_IN[name](Params(reservation_depth=depth)))
        world.run()
        assert world.started == {0: 0.0, 4: 2.0, 1: 10.0, 2: 15.0, 3: last}


def test_a_run_of_equal_jobs_is_one_entry(nodes: Callable[[int], Shape]) -> None:
    """A thousand that wait take one place of the queue's depth, not a thousand."""
    jobs = [(0, nodes(3), 10, 10), *[(1, nodes(2), 5, 5)] * 1000, (2, nodes(1), 8, 8)]
    world = World(jobs, [2] * 4, policy.Easy(Params(queue_depth=3)))
    while world.now < 2:
        world.step()
    assert world.started == {0: 0.0, 1001: 2.0}
    assert len(world.promises()) == 1


def test_the_queue_depth_bounds_what_is_considered(nodes: Callable[[int], Shape]) -> None:
    blocked = [(1, nodes(4), limit, limit) for limit in range(20, 25)]
    jobs = [(0, nodes(3), 10, 10), *blocked, (2, nodes(1), 8, 8)]
    for depth, overtakes in ((5, False), (6, True)):
        world = World(jobs, [2] * 4, policy.Easy(Params(queue_depth=depth)))
        while world.now < 2:
            world.step()
        assert (6 in world.started) is overtakes
    deep = Params(queue_depth=100, max_queue_depth=3, max_reservation_depth=2)
    assert (policy.Conservative(deep).depth, policy.Hybrid(deep).depth) == (2, 2)
    assert policy.Conservative().depth == 32
    assert policy.Hybrid().depth == 64
    assert policy.Easy().depth == 1


def test_what_cannot_be_planned_is_passed_over(nodes: Callable[[int], Shape]) -> None:
    jobs = [(0, nodes(4), 10, 10), (1, nodes(1), 5, 5)]
    world = World(jobs, [2] * 4, policy.Easy())
    world.scheduler.set_up(IDSet.parse("0-2"))
    while world.now < 1:
        world.step()
    assert world.started == {1: 1.0}
    assert world.promises() == {}


def test_names_of_plugins() -> None:
    assert plugins.policy("easy", "k") is policy.Easy
    assert isinstance(plugins.scheduler({}), GraphScheduler)
    bitmap = plugins.scheduler({"scheduler": "bitmap", "kernel": "never"})
    assert isinstance(bitmap, BitmapScheduler)
    with pytest.raises(plugins.PluginError, match=r"k: found 'sjf', allowed: .*easy.*hybrid"):
        plugins.policy("sjf", "k")
    with pytest.raises(
        plugins.PluginError, match=r"sched.scheduler: found 3, allowed: bitmap, graph"
    ):
        plugins.scheduler({"scheduler": 3})
    with pytest.raises(plugins.PluginError, match="kernel policy"):
        plugins.scheduler({"kernel": "sometimes"})
