"""Random legal and illegal events: whatever happens, the logs stay true and nothing leaks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flux_mpi.formats import fluid
from flux_mpi.formats.eventlog import Event, parse_json
from flux_mpi.formats.idset import IDSet
from flux_mpi.job import queueconfig
from flux_mpi.job.eventlogs import as_text, event_log
from flux_mpi.job.states import Result, State, fold
from flux_mpi.message.errors import ServiceError

REQUIRED = {
    "submit": {"userid", "urgency", "flags", "version"},
    "priority": {"priority"},
    "urgency": {"urgency", "userid"},
    "exception": {"type", "severity", "note"},
    "finish": {"status"},
    "release": {"ranks", "final"},
}
"""What RFC 21 wants in the context of each event."""

EMPTY = {"validate", "depend", "start", "free", "clean"}


def check_event(event: Event) -> None:
    context = event.context or {}
    assert REQUIRED.get(event.name, set()) <= set(context)
    if event.name in EMPTY:
        assert not context
    if event.name == "priority":
        assert 0 <= context["priority"] <= 4294967295
    if event.name == "exception":
        assert 0 <= context["severity"] <= 7


def test_random_lives(make_core: Callable[..., Any]) -> None:
    class Lives(RuleBasedStateMachine):
        """Jobs of all kinds on a small machine."""

        @initialize(
            ranks=st.integers(1, 4),
            cores=st.integers(1, 3),
            watched=st.booleans(),
            policy=st.sampled_from(["fcfs", "fcfs", "easy", "conservative"]),
        )
        def begin(self, ranks: int, cores: int, watched: bool, policy: str) -> None:
            queues = queueconfig.parse({"sched": {"queue-policy": policy}})
            self.core = make_core(ranks, cores, queues=queues)
            self.manager = self.core.manager
            self.ranks = ranks
            self.ids: list[int] = []
            self.sent: dict[int, tuple[int, set[int]]] = {}
            self.journal: dict[int, list[tuple[float, str, dict[str, Any]]]] = {}
            self.watched = watched
            self.manager.journal.users = int(watched)
            self.alive = (1 << ranks) - 1

        # -- what users do ------------------------------------------------------------------

        @rule(
            count=st.integers(1, 9),
            ntasks=st.sampled_from([1, 1, 1, 2, 3, 5]),
            nnodes=st.sampled_from([None, None, 1, 2]),
            mock=st.sampled_from([None, None, 0.0, 1.0, 20.0]),
            wait_status=st.sampled_from([0, 256]),
            duration=st.sampled_from([0, 0, 3]),
            urgency=st.sampled_from([16, 16, 0, 5, 31]),
            exclusive=st.booleans(),
        )
        def submit(
            self,
            count: int,
            ntasks: int,
            nnodes: int | None,
            mock: float | None,
            wait_status: int,
            duration: int,
            urgency: int,
            exclusive: bool,
        ) -> None:
            how: dict[str, Any] = {"ntasks": max(ntasks, nnodes or 1), "duration": duration}
            if mock is not None:
                how["attributes"] = {"system.exec.test.wait_status": wait_status}
            if nnodes:
                how |= {"nnodes": nnodes, "exclusive": exclusive}
            first = self.core.submit(count=count, mock=mock, urgency=urgency, turn=False, **how)
            self.turn(0.0)
            self.ids += [fluid.nth(first, k) for k in range(count)]

        @precondition(lambda self: self.ids)
        @rule(data=st.data(), severity=st.sampled_from([0, 0, 1, 7]), count=st.integers(1, 5))
        def raise_(self, data: st.DataObject, severity: int, count: int) -> None:
            jobid = data.draw(st.sampled_from(self.ids))
            before = {self.core.state(i): i for i in [jobid]}
            errors = self.manager.raise_exception(
                jobid, count, "cancel", severity, "why", 3, self.core.now
            )
            assert (jobid in errors) == ("INACTIVE" in before)

        @precondition(lambda self: self.ids)
        @rule(data=st.data(), urgency=st.integers(0, 31))
        def urgency(self, data: st.DataObject, urgency: int) -> None:
            jobid = data.draw(st.sampled_from(self.ids))
            state = self.core.state(jobid)
            if state == "SCHED":
                self.manager.set_urgency(jobid, urgency, 0, self.core.now)
            else:
                with pytest.raises(ServiceError, match=r"job is inactive|allocated"):
                    self.manager.set_urgency(jobid, urgency, 0, self.core.now)

        @rule(start=st.sampled_from([True, True, True, False]))
        def queue(self, start: bool) -> None:
            self.manager.start(start)

        # -- what ranks do ------------------------------------------------------------------

        @precondition(lambda self: self.sent)
        @rule(
            data=st.data(),
            kind=st.sampled_from(["start", "exit", "exit", "error"]),
            skew=st.sampled_from([-1000.0, -0.5, 0.0, 1000.0]),
        )
        def report(self, data: st.DataObject, kind: str, skew: float) -> None:
            jobid = data.draw(st.sampled_from(sorted(self.sent)))
            if jobid in self.manager.exec.leased:
                slot = self.manager.leases._by_job[jobid]
                if slot.running or slot.queue[0] != jobid:
                    return  # its turn has not come
            node = data.draw(st.integers(0, 3))
            status = data.draw(st.sampled_from([0, 0, 256, 9, 15]))
            rest: dict[str, list[Any]] = {
                "start": [[5]],
                "exit": [[[0, 5, status]]],
                "error": [errno.ENOENT, "no such file"],
            }
            event = [jobid, kind, self.core.now + skew, node, *rest[kind]]
            self.manager.report([event], self.core.now)

        @precondition(lambda self: self.manager.exec.leased)
        @rule(data=st.data())
        def give_back(self, data: st.DataObject) -> None:
            jobid = data.draw(st.sampled_from(sorted(self.manager.exec.leased)))
            self.manager.report([[jobid, "returned", 1.0, 0]], self.core.now)

        @precondition(lambda self: self.manager.exec.running)
        @rule(data=st.data(), seconds=st.sampled_from([0.001, 0.001, 0.001, 1.0]))
        def finish(self, data: st.DataObject, seconds: float) -> None:
            """A job starts, runs and ends; the queue moves on."""
            jobid = data.draw(st.sampled_from(sorted(self.manager.exec.running)))
            nodes = range(self.sent[jobid][0])
            began = self.core.now
            self.core.now += seconds
            self.manager.report([[jobid, "start", began, n, [5]] for n in nodes], self.core.now)
            self.manager.report(
                [[jobid, "exit", self.core.now, n, []] for n in nodes], self.core.now
            )
            self.turn(0.0)

        @precondition(lambda self: self.manager.exec.leased)
        @rule(hurry=st.booleans())
        def follow(self, hurry: bool) -> None:
            """As ranks do it: what runs ends, and what is on lease there begins."""
            for jobid in list(self.manager.exec.leased):
                slot = self.manager.leases._by_job[jobid]
                if slot.queue[0] == jobid and slot.running:
                    self.manager.report(
                        [
                            [slot.running, "exit", self.core.now, 0, []],
                            [jobid, "start", self.core.now, 0, [5]],
                        ][: 2 if hurry else 1],
                        self.core.now,
                    )

        @precondition(lambda self: self.ids)
        @rule()
        def recall(self) -> None:
            assert self.manager.recall() == bool(self.manager.exec.leased)

        @rule(jobid=st.integers(0, 1 << 40))
        def report_nonsense(self, jobid: int) -> None:
            if self.manager.store.find(jobid) is None:
                self.manager.report([[jobid, "exit", 1.0, 0, []]], self.core.now)

        @precondition(lambda self: self.alive == (1 << self.ranks) - 1)
        @rule(rank=st.integers(0, 3))
        def lose(self, rank: int) -> None:
            self.alive &= ~(1 << rank)
            self.core.scheduler.set_up(IDSet.from_mask(self.alive))
            self.manager.usable_changed()
            self.manager.lost(1 << rank, self.core.now)

        @rule()
        def all_ranks_back(self) -> None:
            self.alive = (1 << self.ranks) - 1
            self.core.scheduler.set_up(IDSet.from_mask(self.alive))
            self.manager.usable_changed()

        @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 30.0]))
        def turn(self, seconds: float) -> None:
            self.core.turn(seconds)
            self.take(self.core.actions[-1])

        def take(self, actions: Any) -> None:
            for rank, start in actions.starts.items():
                assert self.alive >> rank & 1
                for job in start.jobs:
                    self.sent.setdefault(job[0], (job[8], set()))[1].add(job[3])
                for after, job in start.leases:
                    assert after in self.sent
                    self.sent.setdefault(job[0], (1, set()))[1].add(0)
            for entry in actions.events:
                for jobid, *event in entry.expand():
                    self.journal.setdefault(jobid, []).append(tuple(event))

        # -- what must always hold ----------------------------------------------------------

        @invariant()
        def logs_are_true(self) -> None:
            store = self.manager.store
            states = dict.fromkeys(State, 0)
            results = dict.fromkeys(Result, 0)
            held: set[tuple[int, int]] = set()
            for jobs in store.arrays:
                for k in range(jobs.count):
                    log = event_log(jobs, k, store.ledger)
                    lines = as_text(log).splitlines()
                    for line in lines:
                        check_event(parse_json(line))
                    times = [event[0] for event in log]
                    assert times == sorted(times)
                    state = fold((name, context) for _, name, context in log)
                    # Only the members of arrays know more than their logs: nothing.
                    assert state == jobs.state_of(k)
                    states[state] += 1
                    if state is State.INACTIVE:
                        results[self.manager.result(jobs, k)] += 1
                        assert log[-1][1] == "clean"
                        names = [event[1] for event in log]
                        assert ("alloc" in names) == ("free" in names) == ("finish" in names)
                        continue
                    row = jobs.row(k)
                    if row >= 0:
                        placement = store.ledger.placement[row]
                        for part in placement.parts:
                            for core in IDSet.from_mask(part.cores):
                                assert (part.rank, core) not in held
                                held.add((part.rank, core))
            leases = self.manager.leases
            assert set(self.manager.exec.leased) == {i for s in leases._slots for i in s.queue}
            assert leases.out == len(self.manager.exec.leased) == sum(leases.lent.values())
            assert 0 not in leases.lent.values()
            assert sum(leases.arrays.values()) == len(leases._slots)
            for slot in leases._slots:
                assert slot.running or slot.queue
                if not slot.running:  # its cores are kept for who is next
                    for part in slot.placement.parts:
                        assert not held & {(part.rank, c) for c in IDSet.from_mask(part.cores)}
                        held |= {(part.rank, core) for core in IDSet.from_mask(part.cores)}
            for jobid in self.manager.exec.leased:
                assert self.core.state(jobid) == "SCHED"
            assert self.manager.counts.states == states
            assert self.manager.counts.results == results
            if not self.manager._frees:
                allocated = self.core.scheduler.allocated()
                assert held == {
                    (rank, core) for rank, cores in allocated.cores.items() for core in cores
                }

        @invariant()
        def the_journal_told_everything(self) -> None:
            if not self.watched or self.manager.dirty:
                return
            store = self.manager.store
            for jobs in store.arrays:
                for k in range(jobs.count):
                    assert self.journal[jobs.id(k)] == event_log(jobs, k, store.ledger)

        def teardown(self) -> None:
            if not hasattr(self, "manager"):
                return
            manager = self.manager
            self.turn(0.0)
            manager.raise_all(62, "cancel", 0, "", 0, self.core.now)
            for _ in range(3):
                leased = list(manager.exec.leased)
                manager.report([[jobid, "returned", 1.0, 0] for jobid in leased], self.core.now)
                for jobid, (nodes, _) in self.sent.items():
                    manager.report(
                        [[jobid, "exit", 1.0, node, []] for node in range(nodes)], self.core.now
                    )
                self.turn(100.0)
            assert manager.counts.active == 0
            assert not self.core.scheduler.allocated()
            assert not manager.exec.running
            assert not manager.mocks
            assert not manager._doomed
            assert not manager.leases._slots
            assert not manager.leases._by_job
            assert not manager.leases.hungry
            self.logs_are_true()
            self.the_journal_told_everything()

    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_queue_is_in_order_of_priority_then_id(
    make_core: Callable[..., Any], seed: int
) -> None:
    """Against the plain definition: sort all waiting jobs by (−priority, id)."""
    import random

    chance = random.Random(seed)
    core = make_core(ranks=1, cores=1)
    core.manager.start(False)
    ids: list[int] = []
    for _ in range(chance.randint(1, 6)):
        count = chance.randint(1, 8)
        first = core.submit(count=count, urgency=chance.choice([0, 5, 16, 16, 31]))
        ids += [fluid.nth(first, k) for k in range(count)]
    for _ in range(chance.randint(0, 12)):
        core.manager.set_urgency(chance.choice(ids), chance.choice([0, 5, 16, 31]), 0, core.now)
    for jobid in chance.sample(ids, len(ids) // 5):
        core.manager.raise_exception(jobid, 1, "cancel", 0, "", 0, core.now)

    def urgency(jobid: int) -> int:
        jobs, k = core.manager.find(jobid)
        return jobs.urgency_of(k)

    waiting = sorted(
        (jobid for jobid in ids if core.state(jobid) == "SCHED"),
        key=lambda jobid: (-urgency(jobid), jobid),
    )
    listed = [jobs.id(k + i) for jobs, k, n in core.manager.queue.ordered() for i in range(n)]
    assert listed == waiting
    core.manager.start(True)
    core.turn()
    while (current := core.current()) is not None:
        core.finish(current)
    assert core.started() == [jobid for jobid in waiting if urgency(jobid)]
