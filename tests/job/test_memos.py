"""Memos: what they come to, who may add them, and where they are seen."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.formats.eventlog import parse_log
from flux_mpi.job import memos
from flux_mpi.job.states import State, fold
from flux_mpi.message.errors import ServiceError


def user_of(world: Any, jobid: int) -> Any:
    (job,) = world.call("job-list.list", {"ids": [jobid], "attrs": ["annotations"]}).payload["jobs"]
    return job.get("annotations", {}).get("user")


def memo(world: Any, jobid: int, **values: Any) -> None:
    call = world.call("job-manager.memo", {"id": jobid, "memo": values})
    assert call.error is None, call.error


# -- pure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "result"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 2, "b": "x"}, {"a": 2, "b": "x"}),
        ({"a": 1}, {"a": None}, {}),
        ({}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": {"b": 1}}, {"a": {"b": None}}, {}),
        ({"a": 5}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": [None]}, {"a": [None]}),
    ],
)
def test_later_memos_replace_keys_and_null_removes_them(old: Any, new: Any, result: Any) -> None:
    before = json.dumps(old)
    assert memos.merge(old, new) == result
    assert json.dumps(old) == before, "the old one is not changed"


@pytest.mark.parametrize(
    ("memo", "number", "says"),
    [
        (None, errno.EPROTO, "expected an object"),
        ([1], errno.EPROTO, "expected an object"),
        ({}, errno.EINVAL, "at least one key"),
        ({"a": b"bytes"}, errno.EPROTO, "not JSON"),
        ({"a": float("nan")}, errno.EPROTO, "not JSON"),
        ({"a": "x" * memos.LIMIT}, errno.EINVAL, "at most"),
    ],
)
def test_what_is_no_memo_is_refused(memo: Any, number: int, says: str) -> None:
    with pytest.raises(ServiceError, match=says) as caught:
        memos.parse(memo)
    assert caught.value.errno == number


def test_a_memo_holds_nothing_but_json() -> None:
    assert memos.parse({1: {2: (3, None)}}) == {"1": {"2": [3, None]}}


def test_many_small_memos_are_no_way_around_the_limit() -> None:
    kept: dict[str, Any] = {}
    while len(json.dumps(kept)) + 1100 < memos.LIMIT:
        kept = memos.merge(kept, {f"key{len(kept)}": "x" * 1000})
    with pytest.raises(ServiceError, match="at most"):
        memos.merge(kept, {"one more": "x" * 1100})


# -- the manager --------------------------------------------------------------------------------


def test_a_memo_is_an_event_at_its_place_in_the_log(core: Any) -> None:
    for _ in range(4):
        core.submit(ntasks=2)
    waiting = core.submit()
    core.manager.memo(waiting, {"when": "waiting"}, core.now, 0)
    assert core.log(waiting)[-1] == "memo"
    for running in core.started():
        core.finish(running)
    core.manager.memo(waiting, {"when": "allocated"}, core.now, 0)
    core.report([waiting, "start", core.now, 0, [1]])
    core.now += 1
    core.manager.memo(waiting, {"when": "running"}, core.now, 0)
    core.report([waiting, "exit", core.now, 0, [[0, 1, 0]]])
    names = core.log(waiting)
    assert [names[at - 1] for at, name in enumerate(names) if name == "memo"] == [
        "priority",
        "alloc",
        "start",
    ]
    times = [time for time, _, _ in core.events(waiting)]
    assert times == sorted(times)
    assert fold((name, context) for _, name, context in core.events(waiting)) is State.INACTIVE


def test_the_rank_of_a_job_may_tell_of_it(core: Any) -> None:
    """As it does of an instance that it hosts itself."""
    jobid = core.submit()
    core.now += 1
    core.report([jobid, "memo", core.now, 0, {"uri": "ssh://x/y"}], [jobid, "start", 1.0, 0, [1]])
    assert core.log(jobid)[-2:] == ["memo", "start"]
    assert core.context(jobid, "memo") == {"uri": "ssh://x/y"}
    times = [time for time, _, _ in core.events(jobid)]
    assert times == sorted(times)
    with pytest.raises(ValueError, match="memo"):
        core.report([jobid, "memo", core.now, 0, "nonsense"])


def test_only_the_owners_may_add_one_and_only_to_an_active_job(core: Any) -> None:
    jobid = core.submit()
    with pytest.raises(ServiceError, match="owner") as caught:
        core.manager.memo(jobid, {"a": 1}, core.now, 1234)
    assert caught.value.errno == errno.EPERM
    with pytest.raises(ServiceError, match="unknown job id") as caught:
        core.manager.memo(fluid.nth(jobid, 1), {"a": 1}, core.now, 0)
    assert caught.value.errno == errno.ENOENT
    core.finish(jobid)
    with pytest.raises(ServiceError, match="inactive") as caught:
        core.manager.memo(jobid, {"a": 1}, core.now, 0)
    assert caught.value.errno == errno.EINVAL
    assert "memo" not in core.log(jobid)


def test_a_memo_says_nothing_of_how_a_job_ends(core: Any) -> None:
    first = core.submit(count=3, mock=1.0)
    core.manager.memo(fluid.nth(first, 1), {"a": 1}, core.now, 0)
    core.run(core.now + 5)
    counts = core.manager.counts
    assert {result.name: n for result, n in counts.results.items() if n} == {"COMPLETED": 3}


def test_an_array_without_memos_keeps_none(core: Any) -> None:
    first = core.submit(count=1000)
    jobs, _ = core.manager.find(first)
    assert jobs.memos is None
    core.manager.memo(fluid.nth(first, 7), {"a": 1}, core.now, 0)
    assert jobs.memos == {7: {"a": 1}}
    core.manager.memo(fluid.nth(first, 7), {"a": None}, core.now, 0)
    assert jobs.memos is None


# -- the service --------------------------------------------------------------------------------


def test_memos_are_annotations_of_the_user_in_every_state(world: Any, make_entry: Any) -> None:
    ((jobid, _),) = world.submit(make_entry())
    ((held, _),) = world.submit(make_entry(), urgency=0)
    for job in (jobid, held):
        memo(world, job, uri="ssh://here/x", step=1)
        memo(world, job, step=2)
        assert user_of(world, job) == {"uri": "ssh://here/x", "step": 2}
        memo(world, job, step=None)
    world.finish(jobid)
    assert user_of(world, jobid) == {"uri": "ssh://here/x"}
    (job,) = world.call("job-list.list", {"ids": [jobid]}).payload["jobs"]
    assert job["annotations"]["sched"] == {"resource_summary": "rank0/core0"}
    text = world.call("job-info.lookup", {"id": jobid, "keys": ["eventlog"]}).payload["eventlog"]
    noted = [event.context for event in parse_log(text) if event.name == "memo"]
    assert noted == [{"uri": "ssh://here/x", "step": 1}, {"step": 2}, {"step": None}]


def test_a_volatile_memo_is_told_but_not_logged(world: Any, make_entry: Any) -> None:
    journal = world.call("job-manager.events-journal", {}, streaming=True)
    ((jobid, _),) = world.submit(make_entry())
    request = {"id": jobid, "memo": {"a": 1}, "volatile": True}
    assert world.call("job-manager.memo", request).error is None
    assert user_of(world, jobid) == {"a": 1}
    text = world.call("job-info.lookup", {"id": jobid, "keys": ["eventlog"]}).payload["eventlog"]
    assert "memo" not in text
    told = [event for part in journal.payloads for event in part["events"] if event[2] == "memo"]
    assert [(event[0], event[3]) for event in told] == [(jobid, {"a": 1})]


def test_whoever_follows_the_log_sees_a_memo_at_once(world: Any, make_entry: Any) -> None:
    ((jobid, _),) = world.submit(make_entry())
    watch = world.call("job-info.eventlog-watch", {"id": jobid}, streaming=True)
    memo(world, jobid, uri="ssh://here/x")
    (event,) = watch.payloads[-1]["events"]
    assert (event["name"], event["context"]) == ("memo", {"uri": "ssh://here/x"})


@pytest.mark.parametrize(
    ("payload", "number"),
    [
        ({"id": 1, "memo": {"a": 1}}, errno.ENOENT),
        ({"memo": {"a": 1}}, errno.EPROTO),
        ({"id": "x", "memo": {"a": 1}}, errno.EPROTO),
        ({"id": 1, "memo": {"a": 1}, "volatile": 3}, errno.EPROTO),
    ],
)
def test_requests_that_make_no_sense(world: Any, payload: Any, number: int) -> None:
    call = world.call("job-manager.memo", payload)
    assert call.error is not None
    assert (call.error[0], bool(call.error[1])) == (number, True)


def test_a_job_without_a_limit_expires_with_its_instance(make_world: Any, make_entry: Any) -> None:
    world = make_world()
    world.service.manager.expiration = world.broker.reactor.now() + 100
    ((free, _),) = world.submit(make_entry())
    ((short, _),) = world.submit(make_entry(duration=50))
    ((long, _),) = world.submit(make_entry(duration=500))
    for jobid, seconds in ((free, 100), (short, 50), (long, 100)):
        found = world.call("job-info.lookup", {"id": jobid, "keys": ["R"]}).payload["R"]
        left = found["execution"]["expiration"] - found["execution"]["starttime"]
        assert left == pytest.approx(seconds, abs=1)
