"""Members handed to a rank ahead of time: who may have them, and how they come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.formats.idset import IDSet
from flux_mpi.job.leases import AHEAD_S, MOST, PATIENCE_S, SHORT_S, depth
from flux_mpi.job.service import SETTLE_S
from flux_mpi.job.states import Result

USUAL = ["submit", "validate", "depend", "priority"]
RUN = ["alloc", "start", "finish", "release", "free", "clean"]


def run(core: Any, jobid: int, seconds: float = 0.001, status: int = 0) -> None:
    """The job starts and ends on its rank, and that is reported."""
    began = core.now
    core.now += seconds
    core.report([jobid, "start", began, 0, [7]], [jobid, "exit", core.now, 0, [[0, 7, status]]])


def back(core: Any, *ids: int) -> None:
    """The rank returns them."""
    core.report(*[[jobid, "returned", core.now, 0] for jobid in ids])


def sent_leases(core: Any) -> list[tuple[int, int]]:
    """(follows, job) of all leases so far."""
    return [
        (after, row[0])
        for actions in core.actions
        for start in actions.starts.values()
        for after, row in start.leases
    ]


def recalls(core: Any) -> list[tuple[int, int]]:
    """(rank, job) of all that was asked back so far."""
    return [
        (rank, jobid)
        for actions in core.actions
        for rank, ids in actions.recalls.items()
        for jobid in ids
    ]


class Line:
    """One core, an array whose first member was short and whose second runs: the rest is leased."""

    def __init__(self, make_core: Callable[..., Any], count: int = 5, **how: Any) -> None:
        self.core = make_core(ranks=1, cores=1)
        self.manager = self.core.manager
        self.first = self.core.submit(count=count, **how)
        self.ids = [fluid.nth(self.first, k) for k in range(count)]
        run(self.core, self.first)
        assert self.core.state(self.ids[1]) == "RUN"

    def begin(self, k: int) -> None:
        """Member ``k`` starts as the one before it ends."""
        self.core.now += 0.001
        self.core.report(
            [self.ids[k - 1], "exit", self.core.now, 0, []],
            [self.ids[k], "start", self.core.now, 0, [7]],
        )


@pytest.fixture
def line(make_core: Callable[..., Any]) -> Line:
    return Line(make_core)


def test_the_shorter_the_members_the_more_of_them() -> None:
    assert [depth(pace) for pace in (float("inf"), SHORT_S * 1.01)] == [0, 0]
    assert depth(SHORT_S) == 1
    assert depth(0.0) == depth(AHEAD_S / MOST) == MOST
    for pace in (0.0001, 0.001, 0.003, 0.008, 0.02):
        assert 1 <= depth(pace) <= MOST
        assert depth(pace) == 1 or depth(pace) * pace <= AHEAD_S


def test_nothing_is_leased_before_a_member_has_ended(make_core: Callable[..., Any]) -> None:
    core = make_core(ranks=1, cores=1)
    core.submit(count=5)
    core.turn()
    assert sent_leases(core) == []


def test_each_follows_the_one_before(line: Line) -> None:
    ids = line.ids
    assert sent_leases(line.core) == [(ids[1], ids[2]), (ids[2], ids[3]), (ids[3], ids[4])]
    assert line.core.leased() == ids[2:]
    (start,) = line.core.actions[-1].starts.values()
    # As any job of one task on one node, with the cores of the one before it.
    assert start.leases[0][1] == [ids[2], ids[0], 2, 0, 0, 1, "0", "", 1, 1]


@pytest.mark.parametrize(
    "how",
    [
        {"mock": 0.001},
        {"ntasks": 2, "nnodes": 1},
        {"ntasks": 2, "nnodes": 2},
        {"attributes": {"system.shell.options.per-resource": {"type": "core"}}},
        {"attributes": {"system.shell.options.output": {"stdout": {"path": "o", "label": True}}}},
        {"attributes": {"system.shell.options": {"output.stderr.label": True}}},
    ],
)
def test_other_shapes_are_not_leased(make_core: Callable[..., Any], how: dict[str, Any]) -> None:
    core = make_core(ranks=2, cores=2)
    first = core.submit(count=9, **how)
    if "mock" not in how:
        core.finish(first, nodes=how.get("nnodes", 1))
    assert sent_leases(core) == []


def test_members_that_take_long_are_not_leased(make_core: Callable[..., Any]) -> None:
    core = make_core(ranks=1, cores=1)
    first = core.submit(count=5)
    run(core, first, 0.05)
    assert sent_leases(core) == []


def test_jobs_submitted_one_by_one_are_not_leased(make_core: Callable[..., Any]) -> None:
    core = make_core(ranks=1, cores=1)
    first = core.submit()
    core.submit()
    run(core, first)
    assert sent_leases(core) == []


def test_a_lease_waits_in_everyones_eyes(line: Line) -> None:
    core, manager = line.core, line.manager
    assert {core.state(jobid) for jobid in line.ids[2:]} == {"SCHED"}
    assert core.log(line.ids[2]) == USUAL
    assert [jobs.id(k + i) for jobs, k, n in manager.waiting() for i in range(n)] == line.ids[2:]
    assert manager.counts.running == 1


def test_a_lease_that_begins_takes_over(line: Line) -> None:
    core = line.core
    scheduler = core.scheduler.allocated()
    line.begin(2)
    assert core.log(line.ids[1]) == USUAL + RUN
    assert core.log(line.ids[2]) == USUAL + RUN[:2]
    assert core.scheduler.allocated() == scheduler
    # The core was free from one moment to the next, and never two jobs'.
    freed = core.events(line.ids[1])[-2][0]  # its "clean", which is our affair, comes later
    allocated, started = (event[0] for event in core.events(line.ids[2])[-2:])
    assert freed == allocated == started == core.now
    for k in (3, 4):
        line.begin(k)
    core.finish(line.ids[4])
    assert core.manager.counts.active == 0
    assert not core.scheduler.allocated()
    assert all(core.log(jobid) == USUAL + RUN for jobid in line.ids)


def test_clocks_of_ranks_do_not_make_two_jobs_overlap(line: Line) -> None:
    core = line.core
    core.now += 1
    core.report([line.ids[1], "exit", core.now - 0.5, 0, []])
    core.report([line.ids[2], "start", 3.0, 0, [7]])  # long ago
    assert core.events(line.ids[2])[-1][0] == core.events(line.ids[1])[-2][0] == core.now - 0.5
    core.report([line.ids[2], "exit", 9e9, 0, []])
    assert core.events(line.ids[2])[-1][0] == core.now


@pytest.mark.parametrize("skew", [-500.0, 500.0])
def test_a_rank_whose_clock_is_wrong_gets_as_many_as_others(
    make_core: Callable[..., Any], skew: float
) -> None:
    core = make_core(ranks=1, cores=1)
    first = core.submit(count=99)
    jobid: int | None = first
    for _ in range(40):
        began = core.now
        core.now += 0.012
        core.report([jobid, "start", began + skew, 0, []], [jobid, "exit", core.now + skew, 0, []])
        jobid = core.current()
    assert recalls(core) == []
    assert core.manager.find(first)[0].pace == pytest.approx(0.012)
    assert len(core.leased()) == depth(0.012)


def test_the_placement_is_kept_until_the_rank_says_who_follows(line: Line) -> None:
    core = line.core
    core.report([line.ids[1], "exit", core.now, 0, []])
    assert core.state(line.ids[1]) == "INACTIVE"
    assert core.scheduler.allocated()
    other = core.submit()
    assert core.state(other) == "SCHED"
    core.report([line.ids[2], "error", core.now, 0, 2, "no such file"])
    assert core.log(line.ids[2])[:6] == [*USUAL, "alloc", "start"]
    assert core.manager.result(*core.manager.find(line.ids[2])) == Result.FAILED


def test_more_is_leased_as_leases_begin(make_core: Callable[..., Any]) -> None:
    line = Line(make_core, 4 * MOST)
    assert len(line.core.leased()) == MOST
    line.begin(2)
    line.begin(3)
    assert len(line.core.leased()) == MOST
    assert sent_leases(line.core)[-1] == (line.ids[MOST + 2], line.ids[MOST + 3])


def test_the_last_members_are_shared_out(make_core: Callable[..., Any]) -> None:
    core = make_core(ranks=2, cores=2)
    first = core.submit(count=12)
    for k in range(4):
        run(core, fluid.nth(first, k))
    # Four run, four are left: each has one to follow it.
    assert len(core.manager.exec.running) == len(core.leased()) == 4
    assert {after for after, _ in sent_leases(core)} == set(core.manager.exec.running)


def test_a_job_of_higher_priority_takes_leases_back(line: Line) -> None:
    core = line.core
    core.submit(urgency=16)
    assert recalls(core) == []
    urgent = core.submit(urgency=20)
    assert recalls(core) == [(0, jobid) for jobid in line.ids[2:]]
    back(core, *line.ids[2:])
    assert core.leased() == []
    run(core, line.ids[1])
    assert core.state(urgent) == "RUN"
    core.finish(urgent)
    for k in (2, 3, 4):
        assert core.state(line.ids[k]) == "RUN"
        core.finish(line.ids[k])


def test_what_came_back_is_in_its_old_place(line: Line) -> None:
    core = line.core
    later = core.submit(count=2)
    core.manager.start(False)
    core.turn()
    back(core, *reversed(line.ids[2:]))
    order = [jobs.id(k + i) for jobs, k, n in core.manager.waiting() for i in range(n)]
    assert order == [*line.ids[2:], later, fluid.nth(later, 1)]
    core.finish(line.ids[1])
    assert not core.scheduler.allocated()
    core.manager.start(True)
    core.turn()
    assert core.state(line.ids[2]) == "RUN"
    assert core.log(line.ids[2]) == [*USUAL, "alloc"]  # no trace of the lease


def test_a_stopped_queue_takes_leases_back_and_grants_none(line: Line) -> None:
    core = line.core
    core.manager.start(False)
    core.turn()
    assert [jobid for _, jobid in recalls(core)] == line.ids[2:]
    line.begin(2)  # it had begun when the recall came
    back(core, *line.ids[3:])
    core.finish(line.ids[2])
    assert core.current() is None
    assert len(sent_leases(core)) == 3


@pytest.mark.parametrize("what", ["usable", "resources", "urgency"])
def test_what_changes_who_comes_next_takes_leases_back(line: Line, what: str) -> None:
    core = line.core
    if what == "usable":
        core.scheduler.set_up(IDSet())
        core.manager.usable_changed()
    elif what == "resources":
        core.manager.resources_changed(core.now)
    else:
        core.manager.set_urgency(line.ids[4], 20, 0, core.now)
    core.turn()
    assert [jobid for _, jobid in recalls(core)] == line.ids[2:]
    core.turn()
    assert len(recalls(core)) == 3  # asked once


def test_nothing_is_leased_before_all_is_back(line: Line) -> None:
    core = line.core
    assert core.manager.recall()
    line.begin(2)
    core.turn()
    assert len(sent_leases(core)) == 3
    back(core, *line.ids[3:])
    assert not core.manager.recall()


def test_a_lease_that_was_given_another_urgency_comes_back_with_it(line: Line) -> None:
    core = line.core
    core.manager.set_urgency(line.ids[4], 20, 0, core.now)
    core.manager.set_urgency(line.ids[3], 0, 0, core.now)
    core.turn()
    back(core, *line.ids[2:])
    core.finish(line.ids[1])
    assert core.state(line.ids[4]) == "RUN"
    core.finish(line.ids[4])
    core.finish(line.ids[2])
    assert core.current() is None  # the third is held
    assert core.log(line.ids[3]) == [*USUAL, "urgency", "priority"]


def test_a_cancelled_lease_ends_when_it_is_back(line: Line) -> None:
    core = line.core
    errors = core.manager.raise_exception(line.ids[2], 2, "cancel", 0, "no", 5, core.now)
    assert errors == {}
    core.turn()
    # Whatever follows them in that line comes back too.
    assert [jobid for _, jobid in recalls(core)] == line.ids[2:]
    assert core.state(line.ids[2]) == "SCHED"
    back(core, *line.ids[2:])
    assert core.log(line.ids[2]) == [*USUAL, "exception", "clean"]
    assert core.context(line.ids[2], "exception") == {
        "type": "cancel", "severity": 0, "note": "no", "userid": 5,
    }  # fmt: skip
    assert core.state(line.ids[4]) == "SCHED"
    core.finish(line.ids[1])
    core.finish(line.ids[4])
    assert core.manager.counts.active == 0


def test_a_cancelled_lease_that_has_begun_is_ended_as_any_job(line: Line) -> None:
    core = line.core
    core.manager.raise_all(62, "cancel", 0, "", 0, core.now)
    core.turn()
    line.begin(2)
    assert core.log(line.ids[2]) == [*USUAL, "alloc", "start", "exception"]
    assert (0, line.ids[2], 15) in core.kills()
    back(core, *line.ids[3:])
    core.report([line.ids[2], "exit", core.now, 0, [[0, 7, 15]]])
    assert core.manager.counts.active == 0
    assert core.manager.counts.results[Result.CANCELED] == 4
    assert not core.scheduler.allocated()


def test_a_mild_exception_changes_nothing(line: Line) -> None:
    core = line.core
    core.manager.raise_exception(line.ids[2], 3, "note", 3, "so so", 0, core.now)
    core.turn()
    assert recalls(core) == []
    line.begin(2)
    assert core.log(line.ids[2]) == [*USUAL, "exception", "alloc", "start"]


def test_leases_behind_a_long_job_come_back(line: Line) -> None:
    core = line.core
    core.run(core.now + PATIENCE_S * 0.9)
    assert recalls(core) == []
    core.run(core.now + PATIENCE_S)
    assert [jobid for _, jobid in recalls(core)] == line.ids[2:]
    back(core, *line.ids[2:])
    core.run(core.now + 100)
    assert len(sent_leases(core)) == 3
    assert core.manager.next_deadline() is None  # nothing to wake up for


def test_leases_that_begin_in_time_stay(make_core: Callable[..., Any]) -> None:
    line = Line(make_core, 12)
    for k in range(2, 12):
        line.core.run(line.core.now + PATIENCE_S * 0.6)
        line.begin(k)
    assert recalls(line.core) == []


def test_a_lost_rank_gives_back_what_had_not_begun(make_core: Callable[..., Any]) -> None:
    core = make_core(ranks=2, cores=1)
    first = core.submit(count=20)
    ids = [fluid.nth(first, k) for k in range(20)]
    run(core, ids[0])
    run(core, ids[1])
    there = [jobid for jobid in core.leased() if core.manager.leases._by_job[jobid].rank == 1]
    assert len(there) > 1
    running = [r.id for r in core.manager.exec.running.values() if r.placement.parts[0].rank == 1]
    core.manager.raise_exception(there[-1], 1, "cancel", 0, "", 0, core.now)
    core.scheduler.set_up(IDSet([0]))
    core.manager.usable_changed()
    core.manager.lost(2, core.now)
    core.turn()
    assert [core.state(jobid) for jobid in running] == ["INACTIVE"]
    assert core.log(there[0])[:4] == USUAL
    assert "exception" not in core.log(there[0])
    assert core.log(there[-1])[4:] == ["exception", "clean"]
    while (current := core.current()) is not None:
        core.finish(current)
    assert core.manager.counts.active == 0
    assert not core.scheduler.allocated()


def test_what_was_asked_back_is_the_schedulers_to_place(make_core: Callable[..., Any]) -> None:
    core = make_core(ranks=2, cores=1)
    first = core.submit(count=80)
    run(core, first)
    run(core, fluid.nth(first, 1))
    core.scheduler.set_up(IDSet([0]))  # rank 1 is drained
    core.manager.usable_changed()
    core.turn()
    asked = {jobid for _, jobid in recalls(core)}
    assert asked == set(core.leased())
    slots = {core.manager.leases._by_job[jobid] for jobid in asked}
    late = {slot.running: slot.queue[0] for slot in slots}
    for running, jobid in late.items():  # those were quicker
        core.report(
            [running, "exit", core.now, 0, []],
            [jobid, "start", core.now, 0, []],
        )
    back(core, *asked - set(late.values()))
    for jobid in late.values():
        core.finish(jobid)
    for _ in range(40):
        core.finish(core.current())
    assert core.leased()
    parts = {r.placement.parts[0].rank for r in core.manager.exec.running.values()}
    assert parts | {core.manager.leases._by_job[jobid].rank for jobid in core.leased()} == {0}


def test_a_report_of_a_start_before_an_end_frees_nothing_twice(line: Line) -> None:
    core = line.core
    core.report([line.ids[2], "start", core.now, 0, []])
    core.report([line.ids[2], "exit", core.now, 0, []])
    assert core.scheduler.allocated()
    back(core, *line.ids[3:])
    assert core.scheduler.allocated()
    core.report([line.ids[1], "exit", core.now, 0, []])
    assert core.state(line.ids[3]) == "RUN"


def test_a_rank_lost_between_two_jobs_frees_its_cores(line: Line) -> None:
    core = line.core
    core.report([line.ids[1], "exit", core.now, 0, []])
    core.manager.lost(1, core.now)
    core.turn()
    assert core.state(line.ids[2]) == "RUN"  # here the rank is back at once
    assert core.log(line.ids[2]) == [*USUAL, "alloc"]


def test_time_limits_hold_for_leases(make_core: Callable[..., Any]) -> None:
    line = Line(make_core, duration=10)
    line.begin(2)
    line.core.run(line.core.now + 11)
    assert line.core.context(line.ids[2], "exception")["type"] == "timeout"


def test_whoever_waits_hears_of_leased_jobs_too(line: Line) -> None:
    core, manager = line.core, line.manager
    jobs, _ = manager.find(line.first)
    manager.waits.wait_all("me", [(jobs, 0, jobs.count)])
    for k in (2, 3, 4):
        line.begin(k)
    core.finish(line.ids[4])
    done = [entry for answer in core.answers("me")[:-1] for entry in answer["done"]]
    assert sorted(entry[0] for entry in done) == line.ids


def test_the_journal_has_every_event_of_a_leased_job(make_core: Callable[..., Any]) -> None:
    core = make_core(ranks=1, cores=1)
    core.manager.journal.users = 1
    first = core.submit(count=3)
    run(core, first)
    second, third = fluid.nth(first, 1), fluid.nth(first, 2)
    core.report([second, "exit", core.now, 0, []], [third, "start", core.now, 0, []])
    core.finish(third)
    told = [
        event[1:]
        for actions in core.actions
        for entry in actions.events
        for event in entry.expand()
        if event[0] == third
    ]
    assert told == core.events(third)


@pytest.mark.parametrize("what", ["stop", "urgency"])
def test_requests_are_answered_once_it_is_known_what_has_begun(
    make_world: Callable[..., Any], make_entry: Callable[..., Any], what: str
) -> None:
    world = make_world()
    [[first, _]] = world.submit(make_entry(count=40))
    for k in range(8):
        world.finish(fluid.nth(first, k), seconds=0.001)
    leased = sorted(world.service.manager.exec.leased)
    assert leased
    if what == "stop":
        call = world.call("job-manager.queue-start", {"start": False, "reason": "x"})
    else:
        call = world.call("job-manager.urgency", {"id": leased[0], "urgency": 0})
    assert not call.answered
    asked = [jobid for _, payload in world.broker.take("exec.recall") for jobid in payload["ids"]]
    assert sorted(asked) == leased
    world.call("job-exec.report", {"events": [[jobid, "returned", 1.0, 0] for jobid in leased[1:]]})
    assert not call.answered
    world.call("job-exec.report", {"events": [[leased[0], "start", 1.0, 0, [3]]]})
    if what == "stop":
        assert call.error is None
        assert call.answered
    else:  # too late: it has begun
        assert call.error is not None
        assert "allocated" in call.error[1]


def test_lists_show_a_lease_as_waiting(
    make_world: Callable[..., Any], make_entry: Callable[..., Any]
) -> None:
    world = make_world()
    [[first, count]] = world.submit(make_entry(count=40))
    world.finish(first, seconds=0.001)
    assert world.service.manager.exec.leased
    query = {"max_entries": 0, "states": 14, "results": 0, "attrs": ["id", "state"]}
    jobs = world.call("job-list.list", query).payload["jobs"]
    assert [job["id"] for job in jobs] == [fluid.nth(first, k) for k in range(9, count)]
    assert {job["state"] for job in jobs} == {8}
    status = world.call("job-manager.queue-status").payload["counts"]
    assert (status["alloc_pending"], status["running"], status["active"]) == (31, 8, 39)


def test_a_rank_that_hangs_keeps_no_request_waiting(
    make_world: Callable[..., Any], make_entry: Callable[..., Any]
) -> None:
    world = make_world()
    [[first, _]] = world.submit(make_entry(count=40))
    for k in range(8):
        world.finish(fluid.nth(first, k), seconds=0.001)
    leased = sorted(world.service.manager.exec.leased)
    stop = world.call("job-manager.queue-start", {"start": False, "reason": "x"})
    hold = world.call("job-manager.urgency", {"id": leased[0], "urgency": 0})
    assert not stop.answered
    world.broker.run(SETTLE_S)
    assert stop.answered
    assert hold.payload == {"old": 16}
    world.call("job-exec.report", {"events": [[jobid, "returned", 1.0, 0] for jobid in leased]})
    assert world.service.manager.leases.out == 0


def test_a_shutdown_ends_what_is_on_lease(
    make_world: Callable[..., Any], make_entry: Callable[..., Any]
) -> None:
    world = make_world()
    [[first, count]] = world.submit(make_entry(count=40))
    for k in range(8):
        world.finish(fluid.nth(first, k), seconds=0.001)
    leased = sorted(world.service.manager.exec.leased)
    ended: list[bool] = []
    world.service.stop(True, lambda: ended.append(True))
    world.broker.turn()
    world.call("job-exec.report", {"events": [[jobid, "returned", 1.0, 0] for jobid in leased]})
    assert not ended
    for k in range(8, count):
        world.finish(fluid.nth(first, k), seconds=0.001)
    assert ended == [True]
    assert world.service.manager.counts.active == 0
