"""Any order of joins, losses, reports and steals: every member ends exactly once in the result."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.ensemble.distributor import (
    Distributor,
    Finished,
    Give,
    Return,
    Stranded,
    TakeBack,
)
from flux_mpi.ensemble.tally import Tally
from flux_mpi.formats.idset import EMPTY, IDSet


class Worker:
    """What a child does, with messages under way in both directions."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = EMPTY
        self.ended = EMPTY
        self.inbox: deque[Give | TakeBack] = deque()
        self.outbox: deque[tuple[str, Any]] = deque()

    def read(self) -> None:
        order = self.inbox.popleft()
        if isinstance(order, Give):
            assert order.members, "an empty message"
            assert self.held.isdisjoint(order.members)
            self.held |= order.members
        else:
            assert order.count > 0
            spare = max(0, len(self.held) - self.capacity)
            keep = self.held.take(len(self.held) - min(spare, order.count))
            back, self.held = self.held - keep, keep
            self.outbox.append(("returned", (back, max(0, len(keep) - self.capacity))))

    def run(self, count: int) -> IDSet:
        members = self.held.take(count)
        self.held -= members
        self.ended |= members
        return members

    def report(self) -> None:
        unstarted = max(0, len(self.held) - self.capacity)
        self.outbox.append(("report", (self.ended, unstarted)))
        self.ended = EMPTY


class World:
    """A distributor, its workers, and the level above it."""

    def __init__(self, count: int, retries: int) -> None:
        self.core = Distributor(retries=retries)
        self.now = 0.0
        self.workers: dict[int, Worker] = {}
        self.names = 0
        self.fives = 0
        """Members that failed by themselves, and whose worker lived to tell."""
        self.ran: Counter[int] = Counter()
        self.told = EMPTY
        self.above = EMPTY
        """Members that were returned upward, and are not ours any more."""
        self.finished: list[Tally] = []
        self.everything = IDSet(range(count))
        self.core.expect(1, self.now)
        self.core.add(self.everything, self.now)
        self.carry_out()

    def carry_out(self) -> None:
        for action in self.core.take():
            if isinstance(action, (Give, TakeBack)):
                self.workers[action.worker].inbox.append(action)  # type: ignore[index]
            elif isinstance(action, Return):
                assert self.above.isdisjoint(action.members)
                self.above |= action.members
            elif isinstance(action, Stranded):
                assert not self.workers
                self.core.give_up("nobody is left", self.now)
            elif isinstance(action, Finished):
                self.finished.append(action.result)
        ended, tally = self.core.take_report()
        assert self.told.isdisjoint(ended), "reported twice"
        assert len(ended) == tally.count
        self.told |= ended
        pool = self.core.waiting
        held = sum(worker.in_hand for worker in self.core.workers.values())
        assert pool + held == self.core.outstanding or self.core._owed
        if self.core._actions:
            self.carry_out()

    def pick(self, n: int) -> int | None:
        names = sorted(self.workers)
        return names[n % len(names)] if names else None

    def join(self, capacity: int) -> None:
        self.names += 1
        self.workers[self.names] = Worker(capacity)
        self.core.join(self.names, capacity, self.now)

    def lose(self, name: int) -> None:
        del self.workers[name]
        self.core.lost(name, "it died", self.now)

    def deliver(self, name: int) -> None:
        worker = self.workers[name]
        if not worker.outbox:
            return
        kind, what = worker.outbox.popleft()
        if kind == "returned":
            self.core.returned(name, what[0], self.now, unstarted=what[1])
        else:
            ended, unstarted = what
            tally = Tally()
            tally.ended(len(ended), [0.01] * len(ended))
            for member in ended:
                if member % 7 == 3:
                    tally.fail(member, 5)
                    self.fives += 1
            self.core.report(name, ended, tally, self.now, unstarted=unstarted)

    def step(self, op: str, n: int, k: int) -> None:
        self.now += 0.013
        if op == "join":
            self.join(1 + k % 5)
        elif op == "back":
            if not self.core._owed:
                self.core.take_back(1 + k, self.now)
        else:
            name = self.pick(n)
            if name is None:
                return
            worker = self.workers[name]
            if op == "lose":
                self.lose(name)
            elif op == "read" and worker.inbox:
                worker.read()
            elif op == "run":
                self.ran.update(worker.run(k))
            elif op == "report":
                worker.report()
            elif op == "deliver":
                self.deliver(name)
        self.carry_out()

    def finish(self) -> None:
        """Everybody does what is left to do; nobody comes any more."""
        self.core.expect(0, self.now)
        self.core.seal(self.now)
        self.carry_out()
        for _ in range(10_000):
            if self.finished:
                return
            for name in sorted(self.workers):
                worker = self.workers.get(name)
                if worker is None:
                    continue
                self.now += 0.01
                if worker.inbox:
                    worker.read()
                elif worker.held:
                    self.ran.update(worker.run(max(worker.capacity, len(worker.held) // 2)))
                worker.report()
                while worker.outbox:
                    self.deliver(name)
                    self.carry_out()
        raise AssertionError(f"never finished: {self.core.outstanding} are left")


OPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "join",
                "lose",
                "read",
                "read",
                "read",
                "run",
                "run",
                "report",
                "report",
                "deliver",
                "deliver",
                "deliver",
                "back",
            ]
        ),
        st.integers(0, 7),
        st.integers(1, 60),
    ),
    max_size=120,
)


@settings(max_examples=400, deadline=None)
@given(count=st.integers(1, 400), retries=st.integers(0, 2), ops=OPS)
def test_every_member_ends_exactly_once(count: int, retries: int, ops: list[Any]) -> None:
    world = World(count, retries)
    for op, n, k in ops:
        world.step(op, n, k)
    world.finish()
    assert len(world.finished) == 1
    result = world.finished[0]
    ours = world.everything - world.above
    assert world.told == ours
    assert result.count == len(ours)
    # What was not given up ran at least once; what failed did so by itself.
    assert len(world.ran) >= result.count - result.lost
    assert set(world.ran) <= set(world.everything)
    assert result.codes.get(5, 0) == world.fives
    assert result.failed == result.codes.get(5, 0) + result.lost


def _lost(world: World) -> set[int]:
    """Members that were given up, as far as they are named."""
    failures = world.finished[0].failures
    return {member for member, _, why in failures if why.startswith("lost")}


@settings(max_examples=150, deadline=None)
@given(count=st.integers(1, 300), ops=OPS, why=st.text(max_size=5), at=st.integers(0, 119))
def test_cancelled_at_any_time_it_ends_with_what_was_done(
    count: int, ops: list[Any], why: str, at: int
) -> None:
    world = World(count, 2)
    for step, (op, n, k) in enumerate(ops):
        if step == at:
            world.core.cancel(why, world.now)
            world.carry_out()
        world.step(op, n, k)
    world.core.cancel(why, world.now)
    world.core.seal(world.now)
    world.carry_out()
    for name in list(world.workers):
        world.lose(name)
        world.carry_out()
    world.step("report", 0, 0)
    assert len(world.finished) == 1
    assert world.told == world.everything - world.above


@settings(max_examples=100, deadline=None)
@given(retries=st.integers(1, 4), capacity=st.integers(1, 9))
def test_a_member_that_kills_its_worker_is_given_up_and_nothing_else(
    retries: int, capacity: int
) -> None:
    """Whoever begins member 17 dies. All others end well, if there are always new workers."""
    world = World(200, retries)
    deaths = 0
    while not world.finished:
        world.core.seal(world.now)
        if not world.workers:
            world.join(capacity)
            world.carry_out()
        (name,) = world.workers
        worker = world.workers[name]
        while worker.inbox:
            worker.read()
        world.now += 0.1
        begun = worker.held.take(capacity)
        if 17 in begun:
            deaths += 1
            world.lose(name)
        else:
            world.ran.update(worker.run(capacity))
            worker.report()
            world.deliver(name)
        world.carry_out()
    assert deaths == retries + 1
    result = world.finished[0]
    assert 1 <= result.lost <= capacity, "it, and at most what began beside it"
    assert 17 in _lost(world)
    assert result.count == 200
