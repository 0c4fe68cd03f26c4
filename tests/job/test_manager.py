"""What becomes of jobs: the manager's decisions, one story each."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.job.states import Result
from flux_mpi.message.errors import ServiceError

USUAL = [
    "submit",
    "validate",
    "depend",
    "priority",
    "alloc",
    "start",
    "finish",
    "release",
    "free",
    "clean",
]


def test_a_job_from_submission_to_clean(core: Any) -> None:
    jobid = core.submit(["hostname"])
    assert core.state(jobid) == "RUN"
    assert core.log(jobid) == USUAL[:5]
    core.now += 1
    core.report([jobid, "start", 1000.25, 0, [123]])
    assert core.log(jobid) == USUAL[:6]
    core.now += 1
    core.report([jobid, "exit", 1001.75, 0, [[0, 123, 0]]])
    assert core.state(jobid) == "INACTIVE"
    assert core.log(jobid) == USUAL
    assert core.context(jobid, "submit") == {
        "userid": 0,
        "urgency": 16,
        "flags": 0,
        "version": 1,
    }
    assert core.context(jobid, "alloc") == {
        "annotations": {"sched": {"resource_summary": "rank0/core0"}}
    }
    assert core.context(jobid, "finish") == {"status": 0}
    assert core.context(jobid, "release") == {"ranks": "all", "final": True}
    times = [time for time, _, _ in core.events(jobid)]
    assert times == [1000.0] * 5 + [1000.25, 1001.75] + [1002.0] * 3
    assert not core.scheduler.allocated()


def test_times_of_a_rank_whose_clock_is_wrong_are_not_believed(core: Any) -> None:
    jobid = core.submit()
    core.now = 1010.0
    core.report([jobid, "start", 5.0, 0, []])
    core.now = 1020.0
    core.report([jobid, "exit", 9e9, 0, []])
    assert [time for time, _, _ in core.events(jobid)][4:] == [1000.0, 1000.0] + [1020.0] * 4


def test_dispatch_carries_what_the_protocol_says(core: Any) -> None:
    first = core.submit(
        ["echo", "{cc}"], count=3, params={"cc": "5,7-8"}, ntasks=2, name="say-{cc}"
    )
    (actions,) = [a for a in core.actions if a.starts]
    assert sorted(actions.starts) == [0, 1, 2]
    for k in range(3):
        start = actions.starts[k]
        assert start.jobs == [[fluid.nth(first, k), first, k, 0, 0, 2, "0-1", "", 1, 2]]
        assert start.specs == {
            first: {
                "command": ["echo", "{cc}"],
                "env": {"PATH": "/bin"},
                "cwd": "/work dir",
                "options": {},
                "params": {"cc": "5,7-8"},
                "job_name": "say-{cc}",
            }
        }


def test_a_specification_goes_to_a_rank_once_and_is_forgotten_with_the_last_member(
    make_core: Any,
) -> None:
    core = make_core(ranks=1, cores=1)
    first = core.submit(count=3)
    for k in range(3):
        core.finish(fluid.nth(first, k))
    specs = [start.specs for a in core.actions for start in a.starts.values()]
    assert [key for spec in specs for key in spec] == [first]
    assert [a.forgets for a in core.actions if a.forgets] == [{0: [first]}]


def test_tasks_are_spread_over_nodes(core: Any) -> None:
    core.submit(ntasks=5, nnodes=3)
    (actions,) = [a for a in core.actions if a.starts]
    rows = [actions.starts[rank].jobs[0] for rank in sorted(actions.starts)]
    # node number, first task, tasks, cores, nodes, size
    assert [row[3:7] + row[8:] for row in rows] == [
        [0, 0, 2, "0-1", 3, 5],
        [1, 2, 2, "0-1", 3, 5],
        [2, 4, 1, "0-1", 3, 5],
    ]


def test_tasks_per_node_are_counted_when_nodes_are_known(core: Any) -> None:
    core.submit(ntasks=2, nnodes=2, options={"per-resource": {"type": "node", "count": 3}})
    (actions,) = [a for a in core.actions if a.starts]
    assert [
        actions.starts[rank].jobs[0][4:6] + actions.starts[rank].jobs[0][9:] for rank in (0, 1)
    ] == [[0, 3, 6], [3, 3, 6]]


def test_a_job_on_several_nodes_starts_and_ends_with_the_last_one(core: Any) -> None:
    jobid = core.submit(ntasks=4, nnodes=2)
    core.report([jobid, "start", 1.0, 0, []])
    assert "start" not in core.log(jobid)
    core.report([jobid, "start", 1.0, 1, []])
    assert "start" in core.log(jobid)
    core.report([jobid, "exit", 1.0, 1, [[2, 5, 256], [3, 6, 0]]])
    assert core.state(jobid) == "RUN"
    core.report([jobid, "exit", 1.0, 0, [[0, 7, 9], [1, 8, 0]]])
    assert core.state(jobid) == "INACTIVE"
    # The largest status, signals counted as shells do: 9 is 137, above 1.
    assert core.context(jobid, "finish") == {"status": 137 << 8}


def test_reports_of_unknown_jobs_nodes_and_repeated_ones_change_nothing(core: Any) -> None:
    jobid = core.submit()
    core.report([4711, "exit", 1.0, 0, []], [jobid, "start", 1.0, 7, []])
    core.report([jobid, "exit", 1.0, -1, []], [jobid, "exit", 1.0, 1 << 40, []])
    assert core.log(jobid) == USUAL[:5]
    core.finish(jobid)
    core.finish(jobid, status=256)
    assert core.log(jobid) == USUAL
    with pytest.raises(ValueError, match="explode"):
        core.report([core.submit(), "explode", 1.0, 0])


@pytest.mark.parametrize(("errnum", "code"), [(errno.ENOENT, 127), (errno.EACCES, 126)])
def test_start_failures(core: Any, errnum: int, code: int) -> None:
    text = "task 0 (host vm): start failed: /no/such/cmd: No such file or directory"
    jobid = core.submit(["/no/such/cmd"], ntasks=2, nnodes=2)
    core.report([jobid, "start", 1.0, 1, [9]], [jobid, "error", 1.0, 0, errnum, text])
    assert core.log(jobid) == [*USUAL[:6], "exception"]
    assert core.kills() == [(1, jobid, 15)]
    core.report([jobid, "exit", 1.0, 1, [[1, 9, 15]]])
    assert core.context(jobid, "exception") == {"type": "exec", "severity": 0, "note": text}
    assert core.log(jobid) == [*USUAL[:6], "exception", *USUAL[6:]]
    # Not 143, which is only how the other task was then ended.
    assert core.context(jobid, "finish") == {"status": code << 8}


def test_start_failure_alone_gives_its_code(core: Any) -> None:
    jobid = core.submit(["/no/such/cmd"])
    core.report([jobid, "error", 1.0, 0, errno.ENOENT, "not there"])
    assert core.log(jobid) == [*USUAL[:6], "exception", *USUAL[6:]]
    assert core.context(jobid, "finish") == {"status": 127 << 8}
    assert core.manager.counts.results[Result.FAILED] == 1


# -- cancel, limits, losses ---------------------------------------------------------------------


def cancel(core: Any, jobid: int, count: int = 1, kind: str = "cancel", severity: int = 0) -> Any:
    errors = core.manager.raise_exception(jobid, count, kind, severity, "", 0, core.now)
    core.turn()
    return errors


def test_cancel_of_a_waiting_job_ends_it_at_once(core: Any) -> None:
    core.submit(count=8)
    jobid = core.submit()
    assert cancel(core, jobid) == {}
    assert core.log(jobid) == [*USUAL[:4], "exception", "clean"]
    assert core.context(jobid, "exception") == {
        "type": "cancel",
        "severity": 0,
        "note": "",
        "userid": 0,
    }
    assert core.manager.counts.results[Result.CANCELED] == 1


def test_cancel_of_a_running_job_terminates_then_kills_until_it_is_gone(core: Any) -> None:
    jobid = core.submit(ntasks=4, nnodes=2)
    core.report([jobid, "start", 1.0, 0, []], [jobid, "start", 1.0, 1, []])
    cancel(core, jobid)
    assert core.state(jobid) == "CLEANUP"
    assert core.kills() == [(0, jobid, 15), (1, jobid, 15)]
    core.report([jobid, "exit", 1.0, 0, [[0, 1, 15]]])
    core.run(1004.9)
    assert len(core.kills()) == 2
    core.run(1005.1)
    assert core.kills()[2:] == [(1, jobid, 9)]
    core.run(1011.0)
    assert core.kills()[3:] == [(1, jobid, 9)]
    core.report([jobid, "exit", 1.0, 1, [[2, 3, 9]]])
    assert core.log(jobid) == [*USUAL[:6], "exception", *USUAL[6:]]
    assert core.context(jobid, "finish") == {"status": 143 << 8}
    core.run(1100.0)
    assert len(core.kills()) == 4


def test_killing_gives_up_some_day(core: Any) -> None:
    jobid = core.submit()
    cancel(core, jobid)
    core.run(5000.0)
    assert 2 < len(core.kills()) < 20
    assert core.state(jobid) == "CLEANUP"


def test_cancel_before_the_start_was_reported(core: Any) -> None:
    jobid = core.submit()
    cancel(core, jobid)
    assert core.kills() == [(0, jobid, 15)]
    core.finish(jobid, status=15)
    assert core.log(jobid) == [*USUAL[:5], "exception", *USUAL[5:]]
    assert core.context(jobid, "finish") == {"status": 143 << 8}


def test_a_mild_exception_is_only_recorded(core: Any) -> None:
    waiting, running = core.submit(urgency=0), core.submit()
    for jobid in (waiting, running):
        assert cancel(core, jobid, kind="oops", severity=3) == {}
        assert "exception" in core.log(jobid)
    assert (core.state(waiting), core.state(running)) == ("SCHED", "RUN")
    core.finish(running)
    assert core.manager.counts.results[Result.COMPLETED] == 1


def test_exceptions_on_ended_and_unknown_jobs_are_reported_by_id(core: Any) -> None:
    jobid = core.submit()
    core.finish(jobid)
    after = fluid.nth(jobid, 1)
    assert cancel(core, jobid, 2) == {jobid: "job is inactive", after: "unknown job id"}
    assert core.log(jobid) == USUAL


def test_a_job_is_told_of_its_time_limit(core: Any) -> None:
    warned = {"signal": {"signum": 12, "timeleft": "3s"}}
    jobid = core.submit(duration=10, options=warned)
    unlimited = core.submit(options=warned)
    over = core.submit(duration=10, options=warned)
    core.report([jobid, "start", 1.0, 0, []], [unlimited, "start", 1.0, 0, []])
    core.finish(over)
    core.run(1006.9)
    assert core.kills() == []
    core.run(1007.1)
    assert core.kills() == [(0, jobid, 12)]
    assert core.state(jobid) == "RUN"
    core.run(1010.1)
    assert core.kills()[1:] == [(0, jobid, 14)]


def test_a_job_is_told_of_the_end_of_its_instance(core: Any) -> None:
    core.manager.expiration = 1100.0
    jobid = core.submit(options={"signal": 1})
    core.report([jobid, "start", 1.0, 0, []])
    core.run(1039.9)
    assert core.kills() == []
    core.run(1040.1)
    assert core.kills() == [(0, jobid, 10)]


def test_time_limit_signals_and_kills(core: Any) -> None:
    jobid = core.submit(duration=10)
    core.report([jobid, "start", 1.0, 0, []])
    core.run(1009.9)
    assert core.state(jobid) == "RUN"
    core.run(1010.1)
    assert core.state(jobid) == "CLEANUP"
    assert core.kills() == [(0, jobid, 14)]
    assert core.context(jobid, "exception") == {
        "type": "timeout",
        "severity": 0,
        "note": "resource allocation expired",
    }
    core.run(1015.2)
    assert core.kills()[1:] == [(0, jobid, 9)]
    core.report([jobid, "exit", 1.0, 0, [[0, 1, 14]]])
    assert core.context(jobid, "finish") == {"status": 142 << 8}
    assert core.manager.counts.results[Result.TIMEOUT] == 1


def test_a_lost_rank_fails_its_jobs_and_ends_their_other_tasks(core: Any) -> None:
    wide = core.submit(ntasks=4, nnodes=2)
    narrow = core.submit()
    elsewhere = core.submit(ntasks=2)
    core.manager.lost(0b101, core.now)
    core.turn()
    assert core.state(wide) == "CLEANUP"
    assert core.context(wide, "exception")["type"] == "node-failure"
    assert "0 (host node0)" in core.context(wide, "exception")["note"]
    assert core.kills() == [(1, wide, 15)]
    assert core.state(narrow) == "INACTIVE"
    assert core.context(narrow, "finish") == {"status": 137 << 8}
    assert core.state(elsewhere) == "RUN"
    core.report([wide, "exit", 1.0, 1, [[2, 1, 15]]])
    assert core.state(wide) == "INACTIVE"


def test_a_rank_that_comes_back_is_told_everything_again(make_core: Any) -> None:
    core = make_core(ranks=1, cores=1)
    first = core.submit(count=3)
    core.manager.lost(1, core.now)
    core.turn()
    specs = [start.specs for actions in core.actions for start in actions.starts.values()]
    assert [list(spec) for spec in specs] == [[first], [first]]
    assert core.started() == [first, fluid.nth(first, 1)]


def test_kill_signals_where_tasks_are(core: Any) -> None:
    jobid = core.submit(ntasks=4, nnodes=2)
    core.report([jobid, "exit", 1.0, 0, []])
    core.manager.kill(jobid, 10)
    core.turn()
    assert core.kills() == [(1, jobid, 10)]


@pytest.mark.parametrize("what", ["waiting", "ended", "unknown"])
def test_kill_of_what_does_not_run(core: Any, what: str) -> None:
    jobid = core.submit(urgency=0 if what == "waiting" else 16)
    if what == "ended":
        core.finish(jobid)
    if what == "unknown":
        jobid = fluid.nth(jobid, 5)
    with pytest.raises(ServiceError) as caught:
        core.manager.kill(jobid, 15)
    assert fluid.encode(jobid) in str(caught.value)
    assert caught.value.errno == (errno.ENOENT if what == "unknown" else errno.EINVAL)


# -- what can never run -------------------------------------------------------------------------


def test_an_impossible_request_fails_with_the_reason(core: Any) -> None:
    jobid = core.submit(ntasks=100)
    assert core.log(jobid) == [*USUAL[:4], "exception", "clean"]
    assert core.context(jobid, "exception") == {
        "type": "alloc",
        "severity": 0,
        "note": "unsatisfiable request: need 100 slot(s) of 1 core(s), "
        "only 8 such slot(s) available (total cores: 8)",
    }


def test_requests_made_before_the_resources_are_known_are_judged_later(make_core: Any) -> None:
    core = make_core(ranks=0)
    fresh = make_core()
    fresh.manager.sched = core.scheduler = type(core.scheduler)()
    core = fresh
    possible, impossible = core.submit(), core.submit(ntasks=9)
    core.scheduler = core.manager.sched
    assert core.state(impossible) == "SCHED"
    core.scheduler.update(make_core().scheduler.machine.resources)
    core.manager.resources_changed(core.now)
    core.turn()
    assert core.state(possible) == "RUN"
    assert core.state(impossible) == "INACTIVE"


# -- order --------------------------------------------------------------------------------------


def test_urgency_then_id_decides(make_core: Any) -> None:
    core = make_core(ranks=1, cores=1)
    core.submit()
    ids = [core.submit(urgency=urgency) for urgency in (16, 0, 20, 16, 31)]
    core.finish(core.started()[-1])
    order = []
    for _ in range(4):
        order.append(ids.index(core.started()[-1]))
        core.finish(core.started()[-1])
    assert order == [4, 2, 0, 3]
    assert core.state(ids[1]) == "SCHED"


def test_the_head_of_the_line_blocks(core: Any) -> None:
    core.submit(ntasks=7)
    wide, small = core.submit(ntasks=8), core.submit()
    assert (core.state(wide), core.state(small)) == ("SCHED", "SCHED")
    core.manager.set_urgency(wide, 0, 0, core.now)
    core.turn()
    assert core.state(small) == "RUN"


def test_urgency_of_one_member_takes_it_out_of_line_and_back(make_core: Any) -> None:
    core = make_core(ranks=1, cores=1)
    first = core.submit(count=6)
    ids = [fluid.nth(first, k) for k in range(6)]
    assert core.manager.set_urgency(ids[4], 20, 0, core.now) == 16
    core.manager.set_urgency(ids[2], 0, 0, core.now)
    core.manager.set_urgency(ids[3], 5, 0, core.now)
    core.manager.set_urgency(ids[3], 16, 7, core.now)
    assert core.context(ids[3], "urgency") == {"urgency": 16, "userid": 7}
    while (current := core.current()) is not None:
        core.finish(current)
    assert [ids.index(jobid) for jobid in core.started()] == [0, 4, 1, 3, 5]
    assert core.log(ids[3])[:8] == [*USUAL[:4], *["urgency", "priority"] * 2]
    core.manager.set_urgency(ids[2], 16, 0, core.now)
    core.turn()
    assert core.state(ids[2]) == "RUN"


def test_expedited_and_held_priorities_are_those_of_flux(core: Any) -> None:
    assert core.context(core.submit(urgency=31), "priority") == {"priority": 4294967295}
    assert core.context(core.submit(urgency=0), "priority") == {"priority": 0}


def test_urgency_cannot_change_once_resources_are_allocated(core: Any) -> None:
    jobid = core.submit()
    with pytest.raises(ServiceError, match="allocated"):
        core.manager.set_urgency(jobid, 3, 0, core.now)
    core.finish(jobid)
    with pytest.raises(ServiceError, match="inactive"):
        core.manager.set_urgency(jobid, 3, 0, core.now)


def test_a_stopped_queue_starts_nothing_and_a_disabled_one_takes_nothing(core: Any) -> None:
    core.manager.start(False, "maintenance")
    jobid = core.submit()
    assert core.state(jobid) == "SCHED"
    core.manager.start(True)
    core.turn()
    assert core.state(jobid) == "RUN"
    core.manager.enable(False, "full")
    with pytest.raises(ServiceError, match="job submission is disabled: full"):
        core.submit()
    core.manager.enable(True)
    core.submit()


def test_drained_ranks_finish_what_they_have_and_get_nothing_new(core: Any) -> None:
    from flux_mpi.formats.idset import IDSet

    jobid = core.submit()
    core.scheduler.set_up(IDSet())
    core.manager.usable_changed()
    waiting = core.submit()
    assert (core.state(jobid), core.state(waiting)) == ("RUN", "SCHED")
    core.finish(jobid)
    assert core.state(waiting) == "SCHED"
    core.scheduler.set_up(IDSet([3]))
    core.manager.usable_changed()
    core.turn()
    assert core.context(waiting, "alloc")["annotations"]["sched"]["resource_summary"] == (
        "rank3/core0"
    )


# -- mock execution -----------------------------------------------------------------------------


def test_mock_execution_needs_no_messages(core: Any) -> None:
    first = core.submit(count=20, mock="2s")
    assert core.manager.counts.running == 8
    assert core.started() == []
    core.run(1002.0)
    assert core.manager.counts.running == 8
    core.run(1010.0)
    assert core.manager.counts.results[Result.COMPLETED] == 20
    assert [core.events(fluid.nth(first, k))[-1][0] for k in (0, 8, 19)] == [
        1002.0,
        1004.0,
        1006.0,
    ]
    assert core.log(first) == USUAL


def test_a_mock_job_can_fail_be_cancelled_run_into_its_limit_and_lose_its_node(core: Any) -> None:
    failing = core.submit(
        mock=1, attributes={"system.exec.test.wait_status": 512, "system.exec.test.x": 1}
    )
    limited = core.submit(mock=100, duration=5)
    cancelled = core.submit(count=3, mock=100)
    lost = core.submit(mock=100)
    cancel(core, fluid.nth(cancelled, 1))
    where = core.manager.store.ledger.placement[core.manager.find(lost)[0].row(0)].parts[0].rank
    core.run(1010.0)
    core.manager.lost(1 << where, core.now)
    core.turn()
    assert core.context(failing, "finish") == {"status": 512}
    assert core.context(limited, "finish") == {"status": 142 << 8}
    assert core.context(fluid.nth(cancelled, 1), "finish") == {"status": 143 << 8}
    assert core.state(cancelled) == "RUN" or where == 1
    assert core.context(lost, "exception")["type"] == "node-failure"
    core.run(1200.0)
    assert core.manager.counts.active == 0
    assert not core.scheduler.allocated()


def test_members_of_one_batch_may_end_differently(core: Any) -> None:
    first = core.submit(count=3, mock=1, attributes={"system.exec.test.wait_status": 256})
    cancel(core, fluid.nth(first, 1), severity=1)
    core.run(1002.0)
    assert core.manager.counts.results[Result.FAILED] == 2
    assert core.manager.counts.results[Result.CANCELED] == 1


def test_a_mock_job_that_takes_no_time_ends_in_the_next_turn(core: Any) -> None:
    jobid = core.submit(mock=0)
    assert core.state(jobid) == "RUN"
    assert core.manager.next_deadline() == core.now
    core.turn()
    assert core.state(jobid) == "INACTIVE"


# -- many ---------------------------------------------------------------------------------------


def test_a_waiting_array_is_one_byte_a_member_and_its_members_are_arithmetic(core: Any) -> None:
    first = core.submit(count=1_000_000, urgency=0)
    jobs, k = core.manager.find(fluid.nth(first, 999_999))
    assert k == 999_999
    assert len(jobs.state) == 1_000_000
    assert jobs.rows is None
    with pytest.raises(ServiceError):
        core.manager.find(fluid.nth(first, 1_000_000))


def test_cancelling_a_great_array_is_one_entry(core: Any) -> None:
    first = core.submit(count=100_000)
    assert cancel(core, first, 100_000) == {}
    jobs, _ = core.manager.find(first)
    assert len(jobs.extras) + len(jobs.ranges) < 20
    assert core.log(fluid.nth(first, 99_999)) == [*USUAL[:4], "exception", "clean"]
    for k in range(8):
        core.finish(fluid.nth(first, k), 15)
    assert core.manager.counts.results[Result.CANCELED] == 100_000
    assert core.manager.counts.active == 0


def test_events_shared_by_many_and_a_members_own_are_in_order(core: Any) -> None:
    first = core.submit(count=40, urgency=0)
    one = fluid.nth(first, 20)
    core.manager.start(False)
    cancel(core, first, 40, kind="shared", severity=1)
    cancel(core, one, kind="own", severity=1)
    cancel(core, first, 40, kind="shared-too", severity=2)
    core.manager.set_urgency(one, 1, 0, core.now)
    kinds = [context.get("type", name) for _, name, context in core.events(one)[4:]]
    assert kinds == ["shared", "own", "shared-too", "urgency", "priority"]
    jobs, _ = core.manager.find(first)
    assert jobs.ranges, "many members share one entry"


def test_raise_all_filters_by_state_and_counts(core: Any) -> None:
    core.submit(count=10)
    count = core.manager.raise_all(8, "cancel", 0, "", 0, core.now, dry_run=True)
    assert count == 2
    assert core.manager.raise_all(8, "cancel", 0, "", 0, core.now) == 2
    assert core.manager.raise_all(16 | 32, "cancel", 0, "", 0, core.now, owner=99) == 0
    assert core.manager.raise_all(62, "cancel", 0, "", 0, core.now) == 8


def test_limits_of_ended_jobs_do_not_pile_up(make_core: Any) -> None:
    core = make_core(ranks=1, cores=1)
    for _ in range(200):
        first = core.submit(count=50, duration=1e9)
        for k in range(50):
            core.finish(fluid.nth(first, k))
    assert len(core.manager._timers) < 9000


# -- waiting ------------------------------------------------------------------------------------


def test_drain_and_idle_are_answered_when_it_is_so(core: Any) -> None:
    held, running = core.submit(urgency=0), core.submit()
    core.manager.wait_idle("idle")
    core.manager.wait_drained("drain")
    core.turn()
    assert core.answers("idle") == core.answers("drain") == []
    core.finish(running)
    assert core.answers("idle") == [{"pending": 1}]
    cancel(core, held)
    assert core.answers("drain") == [None]
