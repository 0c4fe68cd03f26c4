"""Leases among ranks that are told late and heard late: no core is two jobs', no job runs twice."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.formats.idset import IDSet
from flux_mpi.job.eventlogs import event_log
from flux_mpi.job.queueconfig import parse
from flux_mpi.job.states import fold
from flux_mpi.message.errors import ServiceError


class Rank:
    """What agent and spawner of a rank do, with messages under way in both directions."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[str, Any]] = deque()
        self.outbox: deque[list[Any]] = deque()
        self.cores: dict[str, int] = {}
        """The job that runs, by its cores."""
        self.behind: dict[int, list[Any]] = {}
        """The row of the job on lease that follows this one."""
        self.begun: list[int] = []

    def read(self, now: float) -> None:
        """Take in the next message."""
        kind, what = self.inbox.popleft()
        if kind == "start":
            for row in what.jobs:
                self._begin(row, now)
            for after, row in what.leases:
                known = {*self.cores.values(), *(job[0] for job in self.behind.values())}
                if after in known:
                    assert after not in self.behind
                    self.behind[after] = row
                else:
                    self._begin(row, now)
        elif kind == "recall":
            for jobid in what:
                before = next((b for b, row in self.behind.items() if row[0] == jobid), None)
                if before is None:
                    continue
                del self.behind[before]
                if jobid in self.behind:
                    self.behind[before] = self.behind.pop(jobid)
                self.outbox.append([jobid, "returned", now, 0])
        elif what in self.cores.values():
            self.end(what, 15, now)

    def _begin(self, row: list[Any], now: float) -> None:
        assert row[6] not in self.cores, "these cores are another job's"
        self.cores[row[6]] = row[0]
        self.begun.append(row[0])
        self.outbox.append([row[0], "start", now, 0, [9]])

    def end(self, jobid: int, status: int, now: float) -> None:
        """A job has ended, and what is leased to follow it begins."""
        cores = next(cores for cores, running in self.cores.items() if running == jobid)
        del self.cores[cores]
        self.outbox.append([jobid, "exit", now, 0, [[0, 9, status]]])
        follower = self.behind.pop(jobid, None)
        if follower is not None:
            assert follower[6] == cores
            self._begin(follower, now)


QUEUES = {
    "late": {},
    "early": {"policy": {"scheduler": {"priority": 1}}},
    "virtual": {"parent": "late"},
}


class World:
    """A manager, its ranks, and chance."""

    def __init__(self, make_core: Callable[..., Any], seed: int, named: bool) -> None:
        self.chance = random.Random(seed)
        self.size = self.chance.randint(1, 3)
        queues = parse({"queues": QUEUES}) if named else None
        self.core = make_core(self.size, self.chance.randint(1, 2), queues=queues)
        self.queues = list(QUEUES) if named else [None]
        self.manager = self.core.manager
        self.ranks = [Rank() for _ in range(self.size)]
        self.dead: list[Rank] = []
        self.up = list(range(self.size))
        self.ids: list[int] = []
        self.seen: Counter[str] = Counter()

    def turn(self) -> None:
        actions = self.core.turn(0.0)
        for rank, start in actions.starts.items():
            assert rank in self.up
            self.ranks[rank].inbox.append(("start", start))
            self.seen["lease"] += len(start.leases)
            self._nobody_is_overtaken([row[0] for _, row in start.leases])
        for rank, ids in actions.recalls.items():
            self.ranks[rank].inbox.append(("recall", ids))
            self.seen["recall"] += len(ids)
        for rank, jobid, _ in actions.kills:
            self.ranks[rank].inbox.append(("kill", jobid))

    def _nobody_is_overtaken(self, leased: list[int]) -> None:
        """Nobody who waits and may start comes before what has just been leased."""
        lanes = self.manager.queue.lanes
        early = lanes.get("early")
        for jobid in leased:
            jobs, k = self.manager.find(jobid)
            lane = self.manager.queue.lane_of(jobs)
            assert lane.serving
            if early is not None and early is not lane and early.started:
                assert early.queue.head() is None
            line = lane.parent or lane
            for other in (line, *line.virtual):
                head = other.queue.head() if other.serving else None
                if head is not None:
                    assert head[0].urgency_of(head[1]) <= jobs.urgency_of(k)

    def work(self, most: int) -> None:
        """Ranks read, run and report, one of them at a time."""
        chance = self.chance
        for _ in range(chance.randint(1, most)):
            rank = chance.choice(self.ranks)
            what = chance.randint(0, 2)
            if what == 0 and rank.inbox:
                rank.read(self.core.now)
            elif what == 1 and rank.cores:
                self.core.now += chance.choice([0.0, 0.001, 0.001, 0.001, 0.4])
                jobid = chance.choice(sorted(rank.cores.values()))
                rank.end(jobid, chance.choice([0, 0, 256]), self.core.now)
            elif rank.outbox:
                events = [rank.outbox.popleft() for _ in range(chance.randint(1, len(rank.outbox)))]
                self.seen["returned"] += sum(event[1] == "returned" for event in events)
                self.manager.report(events, self.core.now)
                self.turn()

    def disturb(self) -> None:
        """Somebody wants something."""
        chance, manager, now = self.chance, self.manager, self.core.now
        what = chance.randint(0, 8)
        jobid = chance.choice(self.ids)
        if what == 0:
            manager.raise_exception(jobid, chance.randint(1, 9), "cancel", 0, "", 0, now)
        elif what == 1 and self.core.state(jobid) == "SCHED":
            try:
                manager.set_urgency(jobid, chance.choice([0, 5, 16, 31]), 0, now)
            except ServiceError:
                pytest.fail("a job that waits may be given another urgency")
        elif what == 2:
            manager.start(chance.random() < 0.7, name=chance.choice([None, *self.queues]))
        elif what == 3:
            manager.recall()
        elif what == 4:
            self.turn()  # what was decided so far holds
            self.up = [rank for rank in range(self.size) if chance.random() < 0.7]
            self.core.scheduler.set_up(IDSet(self.up))
            manager.usable_changed()
        elif what == 5 and chance.random() < 0.3:
            self.lose(chance.randrange(self.size))
        elif what == 6:
            self.submit()
        elif what == 7:
            manager.raise_exception(jobid, 3, "note", 3, "", 0, now)
        else:
            self.core.now += 0.3
        self.turn()

    def submit(self) -> None:
        count = self.chance.randint(1, 30)
        urgency = self.chance.choice([16, 16, 16, 5, 20])
        queue = self.chance.choice(self.queues)
        how = {} if queue is None else {"queue": queue}
        first = self.core.submit(count=count, urgency=urgency, turn=False, **how)
        self.ids += [fluid.nth(first, k) for k in range(count)]

    def lose(self, rank: int) -> None:
        """It is gone with all that ran there; another one takes its place at once."""
        self.dead.append(self.ranks[rank])
        self.ranks[rank] = Rank()
        self.manager.lost(1 << rank, self.core.now)

    def finish(self) -> None:
        """Let everything run to its end."""
        self.manager.start(True)
        self.up = list(range(self.size))
        self.core.scheduler.set_up(IDSet(self.up))
        self.manager.usable_changed()
        for jobid in self.ids:
            if self.core.state(jobid) == "SCHED":
                jobs, k = self.manager.find(jobid)
                if not jobs.urgency_of(k):
                    self.manager.set_urgency(jobid, 16, 0, self.core.now)
        for _ in range(100_000):
            if not self.manager.counts.active:
                return
            self.turn()
            self.work(20)
        pytest.fail(f"{self.manager.counts.active} jobs never end")

    def check(self) -> None:
        """All ended; no core was ever two jobs' at once, by the logs; and no job ran twice."""
        manager = self.manager
        assert not self.core.scheduler.allocated() or manager._frees
        assert not manager.exec.leased
        assert not manager._doomed
        assert not manager.leases._slots
        assert not manager.leases.lent
        ledger = manager.store.ledger
        ends = [ledger.t_end[row] for row in ledger.inactive]
        assert ends == sorted(ends)  # lists since a moment rely on it
        begun = Counter(jobid for rank in self.ranks for jobid in rank.begun)
        assert set(begun.values()) <= {1} or self.dead
        used: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for jobid in self.ids:
            jobs, k = manager.find(jobid)
            log = event_log(jobs, k, manager.store.ledger)
            times = [time for time, _, _ in log]
            assert times == sorted(times)
            assert fold((name, context) for _, name, context in log) == jobs.state_of(k)
            names = [name for _, name, _ in log]
            placement = manager.store.ledger.placement[jobs.row(k)]
            assert ("alloc" in names) == (placement is not None) == ("free" in names)
            if placement is not None:
                span = times[names.index("alloc")], times[names.index("free")]
                for part in placement.parts:
                    used.setdefault((part.rank, part.cores), []).append(span)
        for spans in used.values():
            spans.sort()
            assert all(a[1] <= b[0] for a, b in pairwise(spans))


@pytest.mark.parametrize("named", [False, True], ids=["one queue", "named queues"])
@pytest.mark.parametrize("block", range(10))
def test_random_orders_of_messages(make_core: Callable[..., Any], block: int, named: bool) -> None:
    seen: Counter[str] = Counter()
    for seed in range(block * 20, block * 20 + 20):
        world = World(make_core, seed, named)
        world.submit()
        world.turn()
        for _ in range(60):
            world.work(25)
            if world.chance.random() < 0.4:
                world.disturb()
        world.finish()
        world.turn()
        world.check()
        seen += world.seen
    # The test is about something.
    assert min(seen["lease"], seen["recall"], seen["returned"]) > 20, seen
