"""The services as clients and ranks see them, on a fake broker with a simulated clock."""

from __future__ import annotations

import base64
import errno
import json
from collections.abc import Callable
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.formats.eventlog import parse_log
from flux_mpi.formats.idset import IDSet

Make = Callable[..., dict[str, Any]]

USUAL = (
    "submit validate depend priority alloc start finish release free clean".split()  # noqa: SIM905
)


def test_submit_answers_with_ids_and_starts_the_job(world: Any, make_entry: Make) -> None:
    call = world.call(
        "job-ingest.submit", {"entries": [make_entry(["a"]), make_entry(["b"], count=3)]}
    )
    (one, first) = call.payload["arrays"]
    assert (one[1], first[1]) == (1, 3)
    assert first[0] == fluid.nth(one[0], 1)
    starts = world.broker.take("exec.start")
    assert [rank for rank, _ in starts] == [0, 1]
    assert sorted(job[0] for _, start in starts for job in start["jobs"]) == sorted(
        [one[0], *(fluid.nth(first[0], k) for k in range(3))]
    )


def test_a_report_is_answered_and_ends_the_job(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry())
    waiting = world.call("job-manager.wait-all", {"ids": [[jobid, 1]]}, streaming=True)
    assert not waiting.answered
    world.finish(jobid, 256)
    assert waiting.payloads == [{"done": [[jobid, 256]]}]
    assert waiting.error == (errno.ENODATA, "")
    assert world.broker.take("exec.forget") == [(0, {"keys": [jobid]})]


def test_a_report_that_makes_no_sense_is_refused_and_logged(world: Any) -> None:
    for events in (5, [[1]], [[1, "exit", "when", 0, []]]):
        call = world.call("job-exec.report", {"events": events})
        assert call.error is not None
        assert call.error[0] == errno.EPROTO
    assert len(world.broker.logs) == 2


def test_hello_is_passed_on(make_world: Any) -> None:
    heard: list[Any] = []
    world = make_world(on_hello=lambda rank, info: heard.append((rank, info["cores"])))
    assert world.call("job-exec.hello", {"rank": 3, "cores": "0-1"}).payload == {}
    assert heard == [(3, "0-1")]
    assert world.call("job-exec.hello", {"rank": "three"}).error[0] == errno.EPROTO


# -- waiting ------------------------------------------------------------------------------------


def test_wait_reaps_each_waitable_job_once(world: Any, make_entry: Make) -> None:
    ((first, _),) = world.submit(make_entry(count=2), flags=4)
    second = fluid.nth(first, 1)
    before = world.call("job-manager.wait", {"id": second})
    world.finish(second, 9)
    assert before.payload == {"id": second, "success": False, "status": 137 << 8}
    world.finish(first)
    assert world.call("job-manager.wait", {}).payload == {
        "id": first,
        "success": True,
        "status": 0,
    }
    for request in ({}, {"id": first}, {"id": second}):
        assert world.call("job-manager.wait", request).error[0] == errno.ECHILD


def test_wait_for_what_cannot_be_waited_for(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry())
    assert world.call("job-manager.wait", {"id": jobid}).error[0] == errno.ECHILD
    unknown = world.call("job-manager.wait", {"id": jobid + (1 << 30)}).error
    assert unknown == (errno.ENOENT, f"{fluid.encode(jobid + (1 << 30))}: unknown job id")
    assert world.call("job-manager.wait", {"id": "x"}).error[0] == errno.EPROTO


def test_more_waiters_than_jobs(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry(), flags=4)
    one = world.call("job-manager.wait", {})
    two = world.call("job-manager.wait", {})
    assert two.error == (errno.ECHILD, "there are no more waitable jobs")
    by_id = world.call("job-manager.wait", {"id": jobid})
    assert one.error[0] == errno.ECHILD
    again = world.call("job-manager.wait", {"id": jobid})
    assert again.error == (errno.ECHILD, "job id already has a waiter")
    world.finish(jobid)
    assert by_id.payload["id"] == jobid


def test_a_waiter_that_goes_away_reaps_nothing(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry(), flags=4)
    by_id = world.call("job-manager.wait", {"id": jobid})
    by_id.close()
    gone = world.call("job-manager.wait", {})
    gone.close()
    world.finish(jobid)
    assert world.call("job-manager.wait", {}).payload["id"] == jobid


def test_wait_says_which_exception_ended_the_job(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry(ntasks=100), flags=4)
    payload = world.call("job-manager.wait", {"id": jobid}).payload
    assert payload["status"] == -1
    assert payload["exception"]["type"] == "alloc"
    assert payload["exception"]["note"].startswith("unsatisfiable request: need 100 slot(s)")


def test_wait_all_tells_in_batches_and_ends(world: Any, make_entry: Make) -> None:
    ((first, count),) = world.submit(make_entry(count=20, mock=1.0))
    ((held, _),) = world.submit(make_entry(), urgency=0)
    call = world.call("job-manager.wait-all", {"ids": [[first, count], [held, 1]]}, streaming=True)
    world.broker.run(10.0)
    done = [entry for payload in call.payloads for entry in payload["done"]]
    assert done == [[fluid.nth(first, k), 0] for k in range(20)]
    assert len(call.payloads) == 3
    assert call.error is None
    world.call("job-manager.raise", {"ids": [[held, 1]], "type": "cancel", "note": "why"})
    assert call.payloads[-1] == {"done": [[held, -1, "cancel: why"]]}
    assert call.error == (errno.ENODATA, "")


def test_wait_all_of_single_members_and_of_ended_jobs(world: Any, make_entry: Make) -> None:
    ((first, _),) = world.submit(make_entry(count=3))
    world.finish(first)
    second = fluid.nth(first, 1)
    call = world.call("job-manager.wait-all", {"ids": [[first, 1], [second, 1]]}, streaming=True)
    left = world.call("job-manager.wait-all", {"ids": [[second, 1]]}, streaming=True)
    assert call.payloads == [{"done": [[first, 0]]}]
    left.close()
    world.finish(second)
    assert call.payloads[1:] == [{"done": [[second, 0]]}]
    assert call.error[0] == errno.ENODATA
    assert not left.answered


def test_wait_all_tells_how_long_jobs_ran(world: Any, make_entry: Make) -> None:
    ((first, count),) = world.submit(make_entry(count=2, mock=1.5))
    ((held, _),) = world.submit(make_entry(), urgency=0)
    ids = [[first, count], [held, 1]]
    call = world.call("job-manager.wait-all", {"ids": ids, "times": True}, streaming=True)
    world.broker.run(10.0)
    world.call("job-manager.raise", {"ids": [[held, 1]], "type": "cancel", "note": "why"})
    done = [entry for payload in call.payloads for entry in payload["done"]]
    assert done[:2] == [[fluid.nth(first, k), 0, None, pytest.approx(1.5)] for k in range(2)]
    assert done[2] == [held, -1, "cancel: why", None]


def test_wait_all_without_ids_is_for_all_that_is_active(world: Any, make_entry: Make) -> None:
    ((old, _),) = world.submit(make_entry())
    world.finish(old)
    ((jobid, _),) = world.submit(make_entry())
    call = world.call("job-manager.wait-all", {}, streaming=True)
    world.finish(jobid)
    assert call.payloads == [{"done": [[jobid, 0]]}]
    assert world.call("job-manager.wait-all", {}, streaming=True).error[0] == errno.ENODATA


def test_wait_all_of_an_unknown_job_names_it(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry())
    call = world.call("job-manager.wait-all", {"ids": [[jobid, 2]]}, streaming=True)
    assert call.error == (errno.ENOENT, f"{fluid.encode(fluid.nth(jobid, 1))}: unknown job id")
    assert world.call("job-manager.wait-all", {"ids": [[jobid, 1]]}).error[0] == errno.EPROTO


# -- changing jobs ------------------------------------------------------------------------------


def test_kill_raise_and_urgency_reach_the_manager(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry())
    ((held, _),) = world.submit(make_entry(), urgency=0)
    assert world.call("job-manager.kill", {"id": jobid, "signum": 10}).payload is None
    assert world.broker.take("exec.kill") == [(0, {"id": jobid, "signum": 10})]
    assert world.call("job-manager.urgency", {"id": held, "urgency": 32}).payload == {"old": 0}
    answer = world.call(
        "job-manager.raise",
        {"ids": [[jobid, 1], [held, 3]], "type": "cancel", "severity": 0, "note": ""},
    ).payload
    assert answer == {"errors": {fluid.nth(held, k): "unknown job id" for k in (1, 2)}}
    assert world.broker.take("exec.kill") == [
        (0, {"id": jobid, "signum": 15}),
        (0, {"id": held, "signum": 15}),
    ]


def test_kill_ends_a_mock_job(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry(mock=100))
    call = world.call("job-manager.wait-all", {"ids": [[jobid, 1]]}, streaming=True)
    world.call("job-manager.kill", {"id": jobid, "signum": 15})
    assert call.payloads == [{"done": [[jobid, 143 << 8]]}]


@pytest.mark.parametrize(
    ("topic", "payload", "number"),
    [
        ("job-manager.kill", {"id": 1, "signum": 99}, errno.EINVAL),
        ("job-manager.kill", {"id": 1, "signum": 15}, errno.ENOENT),
        ("job-manager.kill", {"signum": 15}, errno.EPROTO),
        ("job-manager.kill", [], errno.EPROTO),
        ("job-manager.urgency", {"id": 1, "urgency": 40}, errno.EINVAL),
        ("job-manager.urgency", {"id": 1, "urgency": 4}, errno.ENOENT),
        ("job-manager.raise", {"ids": 5, "type": "cancel"}, errno.EPROTO),
        ("job-manager.raise", {"ids": [[1]], "type": "cancel"}, errno.EPROTO),
        ("job-manager.raise", {"ids": [[1, 1]], "type": "two words"}, errno.EPROTO),
        ("job-manager.raise", {"ids": [[1, 1]], "type": "x", "severity": 8}, errno.EPROTO),
        ("job-manager.raise", {"ids": [[1, 1]], "type": "x", "note": 5}, errno.EPROTO),
        ("job-manager.raise-all", {"type": "cancel"}, errno.EPROTO),
        ("job-list.list", {"attrs": ["nosuch"]}, errno.EINVAL),
        ("job-list.list", {"max_entries": "many"}, errno.EPROTO),
        ("job-list.list", {"ids": [[1, 1 << 60]]}, errno.EPROTO),
        ("job-list.list", {"ids": [[1, "x"]]}, errno.EPROTO),
        ("job-list.list", {"ids": 7}, errno.EPROTO),
        ("job-list.list", {"ranks": "x"}, errno.EINVAL),
        ("job-info.lookup", {"id": 1, "keys": ["R"]}, errno.ENOENT),
        ("job-info.eventlog-watch", {"id": 1}, errno.EPROTO),
        ("job-manager.events-journal", {}, errno.EPROTO),
        ("job-manager.queue-enable", {"enable": False}, errno.EINVAL),
        ("sched.feasibility", {"jobspec": {}}, errno.EINVAL),
    ],
)
def test_requests_that_make_no_sense(world: Any, topic: str, payload: Any, number: int) -> None:
    call = world.call(topic, payload)
    assert call.error is not None
    assert call.error[0] == number
    assert call.error[1]


def test_other_users_may_not_touch_it(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry())
    for topic, payload in (
        ("job-manager.kill", {"id": jobid, "signum": 9}),
        ("job-manager.urgency", {"id": jobid, "urgency": 9}),
        ("job-manager.raise", {"ids": [[jobid, 1]], "type": "cancel"}),
        ("job-manager.raise-all", {"states": 62, "type": "cancel"}),
        ("job-manager.queue-start", {"start": False}),
    ):
        assert world.call(topic, payload, uid=1234).error[0] == errno.EPERM
    own = world.call("job-ingest.submit", {"entries": [make_entry()]}, uid=1234)
    ((mine, _),) = own.payload["arrays"]
    assert world.call("job-manager.kill", {"id": mine, "signum": 9}, uid=1234).error is None
    cancelled = world.call(
        "job-manager.raise-all", {"states": 62, "type": "cancel", "userid": 1234}, uid=1234
    )
    assert cancelled.payload == {"count": 1, "errors": 0}


# -- queue and counts ---------------------------------------------------------------------------


def test_queue_control(world: Any, make_entry: Make) -> None:
    world.call("job-manager.queue-start", {"start": False, "reason": "later"})
    world.submit(make_entry(count=5))
    world.submit(make_entry(), urgency=0)
    status = world.call("job-manager.queue-status").payload
    limits = {
        "duration": float("inf"),
        "max": dict.fromkeys(("nnodes", "ncores", "ngpus"), float("inf")),
        "min": dict.fromkeys(("nnodes", "ncores", "ngpus"), 0),
    }
    assert status == {
        "enable": True,
        "start": False,
        "stop_reason": "later",
        "policy": "fcfs",
        "requires": [],
        "defaults": {"duration": 0.0},
        "limits": limits,
        "counts": {"alloc_queued": 5, "alloc_pending": 0, "running": 0, "active": 6},
    }
    world.call("job-manager.queue-enable", {"enable": False, "reason": "full"})
    refused = world.call("job-ingest.submit", {"entries": [make_entry()]})
    assert refused.error == (errno.EINVAL, "job submission is disabled: full")
    world.call("job-manager.queue-start", {"start": True})
    status = world.call("job-manager.queue-status").payload
    assert status["counts"]["running"] == 5
    assert (status["enable"], status["disable_reason"]) == (False, "full")


def test_drain_and_idle_wait(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry())
    drain, idle = world.call("job-manager.drain"), world.call("job-manager.idle")
    gone = world.call("job-manager.drain")
    gone.close()
    assert not drain.answered
    assert not idle.answered
    world.finish(jobid)
    assert drain.payload is None
    assert idle.payload == {"pending": 0}
    assert not gone.answered


def test_stats(world: Any, make_entry: Make) -> None:
    ((first, _),) = world.submit(make_entry(count=3))
    world.submit(make_entry(ntasks=99))
    world.submit(make_entry(), urgency=0)
    world.finish(first, 256)
    world.finish(fluid.nth(first, 1))
    expected = {
        "job_states": {
            "depend": 0,
            "priority": 0,
            "sched": 1,
            "run": 1,
            "cleanup": 0,
            "inactive": 3,
            "total": 5,
        },
        "successful": 1,
        "failed": 2,
        "canceled": 0,
        "timeout": 0,
        "inactive_purged": 0,
        "active_jobs": 2,
        "inactive_jobs": 3,
        "queues": [],
    }
    assert world.call("job-manager.stats").payload == expected
    assert world.call("job-list.stats").payload == expected


def test_feasibility(world: Any, make_entry: Make) -> None:
    good, bad = make_entry(ntasks=8)["jobspec"], make_entry(ntasks=9)["jobspec"]
    assert world.call("sched.feasibility", {"jobspec": good}).error is None
    number, text = world.call("sched.feasibility", {"jobspec": bad}).error
    assert number == errno.EINVAL
    assert "need 9 slot(s) of 1 core(s), only 8" in text
    missing = make_entry(constraints={"hostlist": ["elsewhere"]})
    assert world.call("job-ingest.submit", {"entries": [missing]}).error == (
        errno.EINVAL,
        "host constraint contains invalid hosts: host 'elsewhere' not found",
    )


def test_explanations(world: Any, make_entry: Make) -> None:
    text = world.call("sched.explain", {"jobspec": make_entry(ntasks=8)["jobspec"]}).payload["text"]
    assert text.startswith("needs 8 slots of 1 core each; found 8 cores free")
    ((jobid, _),) = world.submit(make_entry(mock=60, ntasks=8))
    assert " is running: for " in world.call("sched.explain", {"id": jobid}).payload["text"]
    ((waiting, _),) = world.submit(make_entry(ntasks=2))
    text = world.call("sched.explain", {"id": waiting}).payload["text"]
    assert text.splitlines()[0].endswith(" is the first of the queue")
    number, text = world.call("sched.explain", {"id": 5}).error
    assert (number, text.partition(": ")[2]) == (errno.ENOENT, "unknown job id")


def test_a_scheduler_without_a_graph_has_none_to_show(world: Any) -> None:
    assert world.call("sched.graph", {}).error == (
        errno.EOPNOTSUPP,
        "BitmapScheduler has no graph of the resources to show",
    )
    assert world.call("sched.graph", {"path": 3}).error[0] == errno.EPROTO
    assert world.service.others() == {}


# -- resources ----------------------------------------------------------------------------------


def test_changes_of_resources_reach_jobs(world: Any, make_entry: Make) -> None:
    world.service.change(IDSet())
    ((jobid, _),) = world.submit(make_entry())
    assert world.broker.take("exec.start") == []
    world.service.change(IDSet([2]))
    world.broker.turn()
    assert [rank for rank, _ in world.broker.take("exec.start")] == [2]
    assert world.service.allocated().summary() == "rank2/core0"
    world.service.lost(IDSet([2]))
    world.broker.turn()
    call = world.call("job-manager.wait-all", {"ids": [[jobid, 1]]}, streaming=True)
    ((_, status, note),) = call.payloads[0]["done"]
    assert status == 137 << 8
    assert note.startswith("node-failure")


@pytest.mark.parametrize("now", [False, True])
def test_stop_ends_everything_and_calls_back(world: Any, make_entry: Make, now: bool) -> None:
    ((jobid, _),) = world.submit(make_entry())
    world.submit(make_entry(count=4), urgency=0)
    world.submit(make_entry(mock=1000.0))
    ended: list[bool] = []
    world.service.stop(now, lambda: ended.append(True))
    world.broker.turn()
    signals = [payload["signum"] for _, payload in world.broker.take("exec.kill")]
    assert signals == ([15, 9] if now else [15])
    assert not ended
    assert world.call("job-ingest.submit", {"entries": [make_entry()]}).error is not None
    world.finish(jobid, 15)
    assert ended == [True]


def test_stop_of_an_idle_instance_calls_back_in_the_next_turn(world: Any) -> None:
    ended: list[bool] = []
    world.service.stop(False, lambda: ended.append(True))
    world.broker.turn()
    assert ended == [True]


def test_time_limits_fire_by_themselves(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry(duration=30))
    world.broker.run(29.0)
    assert world.broker.take("exec.kill") == []
    world.broker.run(2.0)
    assert world.broker.take("exec.kill") == [(0, {"id": jobid, "signum": 14})]
    world.broker.run(5.0)
    assert world.broker.take("exec.kill") == [(0, {"id": jobid, "signum": 9})]


def test_kill_timeout_is_configured(make_world: Any, make_entry: Make) -> None:
    world = make_world(config={"exec": {"kill-timeout": "1m"}})
    ((jobid, _),) = world.submit(make_entry())
    world.call("job-manager.raise", {"ids": [[jobid, 1]], "type": "cancel"})
    world.broker.take("exec.kill")
    world.broker.run(59.0)
    assert world.broker.take("exec.kill") == []
    world.broker.run(2.0)
    assert world.broker.take("exec.kill") == [(0, {"id": jobid, "signum": 9})]


def test_mock_jobs_follow_each_other_exactly(world: Any, make_entry: Make) -> None:
    """However late the loop gets to them, 8 at a time take count / 8 × 0.01 s."""
    world.submit(make_entry(count=800, mock=0.01))
    stats = lambda: world.call("job-manager.stats").payload["successful"]  # noqa: E731
    world.broker.run(0.5)
    half = stats()
    assert 350 <= half <= 408
    world.broker.run(0.6)
    assert stats() == 800


# -- job-info -----------------------------------------------------------------------------------


def look_up(world: Any, jobid: int, key: str, **options: Any) -> Any:
    call = world.call("job-info.lookup", {"id": jobid, "keys": [key], **options})
    assert call.error is None, call.error
    assert call.payload["id"] == jobid
    return call.payload[key]


def test_lookup(world: Any, make_entry: Make) -> None:
    entry = make_entry(["echo", "{cc}"], count=2, params={"cc": "3,9"}, name="n{cc}", duration=60)
    ((first, _),) = world.submit(entry)
    second = fluid.nth(first, 1)
    spec = look_up(world, second, "jobspec")
    assert spec["tasks"][0]["command"] == ["echo", "9"]
    assert spec["attributes"]["system"]["job"] == {"name": "n9"}
    assert "environment" not in spec["attributes"]["system"]
    original = look_up(world, second, "jobspec", original=True)
    assert original["attributes"]["system"]["environment"] == {"PATH": "/bin"}
    resources = look_up(world, second, "R")
    assert resources["execution"]["R_lite"] == [{"rank": "0", "children": {"core": "1"}}]
    times = resources["execution"]
    assert times["expiration"] == times["starttime"] + 60
    world.finish(second)
    log = look_up(world, second, "eventlog")
    assert [event.name for event in parse_log(log)] == USUAL
    header, payload, signature = look_up(world, second, "J").split(".")
    assert base64.b64decode(header).startswith(b"version\0i1\0")
    assert json.loads(base64.b64decode(payload)) == original
    assert signature == "none"


def test_lookup_of_what_is_not_there(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry(), urgency=0)
    for key in ("R", "guest.exec.eventlog", "nonsense"):
        call = world.call("job-info.lookup", {"id": jobid, "keys": [key]})
        assert call.error[0] == errno.ENOENT
        assert key in call.error[1]


def test_the_execution_log(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry(ntasks=3, nnodes=2))
    world.call(
        "job-exec.report",
        {
            "events": [
                [jobid, "start", 1.0, 0, [10, 11]],
                [jobid, "start", 1.0, 1, [12]],
                [jobid, "exit", 1.0, 0, [[0, 10, 0], [1, 11, 512]]],
                [jobid, "exit", 1.0, 1, [[2, 12, 9]]],
            ]
        },
    )
    log = list(parse_log(look_up(world, jobid, "guest.exec.eventlog")))
    assert [event.name for event in log] == [
        "init",
        "starting",
        "shell.init",
        "shell.start",
        *["shell.task-exit"] * 3,
        "complete",
        "done",
    ]
    assert log[2].context == {
        "service": f"0-shell-{fluid.encode(jobid, 'f58plain')}",
        "leader-rank": 0,
        "size": 2,
    }
    assert log[3].context == {"taskmap": {"version": 1, "map": [[0, 1, 2, 1], [1, 1, 1, 1]]}}
    assert log[5].context == {
        "localid": 1,
        "rank": 1,
        "state": "Exited",
        "pid": 11,
        "wait_status": 512,
        "signaled": 0,
        "exitcode": 2,
    }
    assert log[6].context["localid"] == 0
    assert (log[6].context["signaled"], log[6].context["exitcode"]) == (9, 137)
    assert log[7].context == {"status": 137 << 8}


def test_watching_an_event_log(world: Any, make_entry: Make) -> None:
    ((first, _),) = world.submit(make_entry(count=2))
    watch = world.call("job-info.eventlog-watch", {"id": first}, streaming=True)
    execution = world.call(
        "job-info.eventlog-watch", {"id": first, "path": "guest.exec.eventlog"}, streaming=True
    )
    gone = world.call("job-info.eventlog-watch", {"id": first}, streaming=True)
    gone.close()

    def names(call: Any) -> list[list[str]]:
        return [[event["name"] for event in payload["events"]] for payload in call.payloads]

    assert names(watch) == [USUAL[:5]]
    world.finish(fluid.nth(first, 1))
    assert len(watch.payloads) == 1
    world.finish(first)
    assert names(watch) == [USUAL[:5], USUAL[5:]]
    assert watch.error == execution.error == (errno.ENODATA, "")
    assert names(execution)[0] == ["init", "starting"]
    assert names(execution)[1][-1] == "done"
    assert len(gone.payloads) == 1
    assert world.service.manager.journal.users == 0
    late = world.call("job-info.eventlog-watch", {"id": first}, streaming=True)
    assert names(late) == [USUAL]
    assert late.error[0] == errno.ENODATA


def test_watching_members_of_a_batch(world: Any, make_entry: Make) -> None:
    ((first, _),) = world.submit(make_entry(count=12, mock=1.0))
    calls = [
        world.call("job-info.eventlog-watch", {"id": fluid.nth(first, k)}, streaming=True)
        for k in (0, 5, 11)
    ]
    world.broker.run(5.0)
    for call in calls:
        events = [event for payload in call.payloads for event in payload["events"]]
        assert [event["name"] for event in events] == USUAL
        assert call.error[0] == errno.ENODATA


def test_the_journal(world: Any, make_entry: Make) -> None:
    ((old, _),) = world.submit(make_entry())
    journal = world.call("job-manager.events-journal", {}, streaming=True)
    full = world.call("job-manager.events-journal", {"full": True}, streaming=True)
    ((first, _),) = world.submit(make_entry(count=2, mock=1.0))
    world.broker.run(3.0)
    seen: dict[int, list[str]] = {}
    for payload in journal.payloads:
        for jobid, _, name, context in payload["events"]:
            assert isinstance(context, dict)
            seen.setdefault(jobid, []).append(name)
    assert seen == {first: USUAL, fluid.nth(first, 1): USUAL}
    history = [event for payload in full.payloads for event in payload["events"]]
    assert [name for jobid, _, name, _ in history if jobid == old] == USUAL[:5]
    journal.close()
    full.close()
    assert world.service.manager.journal.users == 0


# -- lists --------------------------------------------------------------------------------------


def listed(world: Any, **request: Any) -> list[dict[str, Any]]:
    call = world.call("job-list.list", request, streaming=True)
    world.broker.run(1.0)
    assert call.error is not None
    assert call.error[0] == errno.ENODATA, call.error
    return [job for payload in call.payloads for job in payload["jobs"]]


def test_a_record_has_what_flux_says(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry(["/bin/sleep", "1"], ntasks=2, duration=60))
    (running,) = listed(world)
    assert running["state"] == 16
    assert running["name"] == "sleep"
    assert running["expiration"] == running["t_run"] + 60
    assert running["ranks"] == "0"
    assert running["nodelist"] == "node0"
    for absent in ("t_inactive", "t_cleanup", "result", "success", "waitstatus", "queue"):
        assert absent not in running
    world.finish(jobid)
    (job,) = listed(world)
    times = {key: job.pop(key) for key in list(job) if key.startswith("t_")}
    assert sorted(times) == [
        "t_cleanup",
        "t_depend",
        "t_inactive",
        "t_priority",
        "t_run",
        "t_sched",
        "t_submit",
    ]
    assert times["t_submit"] <= times["t_run"] <= times["t_cleanup"] <= times["t_inactive"]
    assert job == {
        "id": jobid,
        "userid": 0,
        "urgency": 16,
        "priority": 16,
        "state": 64,
        "name": "sleep",
        "cwd": "/work dir",
        "ntasks": 2,
        "ncores": 2,
        "duration": 60.0,
        "nnodes": 1,
        "ranks": "0",
        "nodelist": "node0",
        "success": True,
        "exception_occurred": False,
        "result": 1,
        "expiration": running["expiration"],
        "annotations": {"sched": {"resource_summary": "rank0/core[0-1]"}},
        "waitstatus": 0,
        "dependencies": [],
    }


def test_records_of_jobs_that_never_ran(world: Any, make_entry: Make) -> None:
    ((wide, _),) = world.submit(make_entry(ntasks=100, nnodes=100))
    ((held, _),) = world.submit(make_entry(ntasks=3), urgency=0)
    pending, failed = listed(world)
    assert (pending["id"], failed["id"]) == (held, wide)
    assert (pending["state"], pending["priority"], pending["ncores"]) == (8, 0, 3)
    assert "nnodes" not in pending
    assert (failed["nnodes"], failed["result"], failed["success"]) == (100, 2, False)
    assert (failed["exception_type"], failed["exception_severity"]) == ("alloc", 0)
    assert "unsatisfiable" in failed["exception_note"]
    assert "waitstatus" not in failed
    assert failed["t_cleanup"] == failed["t_inactive"]


def test_order_pending_by_priority_then_running_and_inactive_newest_first(
    world: Any, make_entry: Make
) -> None:
    ((first, _),) = world.submit(make_entry(count=12))
    member = [fluid.nth(first, k) for k in range(12)]
    ((held, _),) = world.submit(make_entry(), urgency=0)
    ((urgent, _),) = world.submit(make_entry(), urgency=20)
    world.finish(member[0])  # the urgent one takes its place,
    world.finish(member[3])  # and member 8 this one's
    ids = [job["id"] for job in listed(world)]
    assert ids == [
        *member[9:],
        held,
        member[8],
        urgent,
        *reversed([member[k] for k in (1, 2, 4, 5, 6, 7)]),
        member[3],
        member[0],
    ]


def test_filters(world: Any, make_entry: Make) -> None:
    ((first, _),) = world.submit(make_entry(["a"], count=3, params={"cc": "1-3"}, name="x{cc}"))
    ((mock, _),) = world.submit(make_entry(["b"], ntasks=2, mock=1000.0))
    member = [fluid.nth(first, k) for k in range(3)]
    world.finish(member[0], 256)
    world.finish(member[1])

    def ids(**request: Any) -> list[int]:
        return [job["id"] for job in listed(world, **request)]

    assert ids(states=64) == [member[1], member[0]]
    assert ids(states=48) == [mock, member[2]]
    assert ids(states=64, results=2) == [member[0]]
    assert ids(states=16 | 64, results=2) == [mock, member[2], member[0]]
    assert ids(name="x2") == [member[1]]
    assert ids(name="b") == [mock]
    assert ids(userid=77) == []
    assert len(ids(userid=0)) == len(ids(userid=0xFFFFFFFF)) == 4
    assert ids(ranks="2") == [mock]
    assert ids(max_entries=2) == [mock, member[2]]
    assert ids(ids=[member[1], [member[2], 1]]) == [member[1], member[2]]
    (ended,) = [job["t_inactive"] for job in listed(world, ids=[member[0]])]
    world.broker.run(1.0)
    world.finish(member[2])
    assert ids(states=64, since=ended + 0.5) == [member[2]]
    assert listed(world, ids=[mock], attrs=["state"]) == [{"id": mock, "state": 16}]


def test_unknown_ids_are_named_after_the_known_ones(world: Any, make_entry: Make) -> None:
    ((jobid, _),) = world.submit(make_entry())
    call = world.call("job-list.list", {"ids": [jobid, 77]}, streaming=True)
    assert [job["id"] for job in call.payload["jobs"]] == [jobid]
    assert call.error == (errno.ENOENT, f"{fluid.encode(77)}: unknown job id")


def test_long_lists_come_in_pieces(world: Any, make_entry: Make) -> None:
    world.submit(make_entry(count=12_000))
    call = world.call("job-list.list", {"attrs": []}, streaming=True)
    assert len(call.payloads) < 3, "others get their turn between the pieces"
    world.broker.run(1.0)
    assert [len(payload["jobs"]) for payload in call.payloads] == [5000, 5000, 2000]
    whole = world.call("job-list.list", {"attrs": []}).payload["jobs"]
    assert len(whole) == 12_000
    stopped = world.call("job-list.list", {"attrs": []}, streaming=True)
    stopped.close()
    sent = len(stopped.payloads)
    world.broker.run(1.0)
    assert len(stopped.payloads) == sent < 3
