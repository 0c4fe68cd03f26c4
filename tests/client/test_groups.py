"""Barriers, groups and the enclosing instance as Python calls, against a fake broker."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

import flux_mpi
from flux_mpi.client.aio import AsyncHandle
from flux_mpi.client.groups import View, own_name
from flux_mpi.client.handle import Handle
from flux_mpi.message.errors import FluxError
from tests.client.fakebroker import FakeBroker, Request, streaming

HERE = f"{os.uname().nodename}:{os.getpid()}"


@pytest.fixture(autouse=True)
def _no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLUX_JOB_ID", "FLUX_TASK_RANK", "FLUX_KVS_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


# -- names -----------------------------------------------------------------------------------------


def test_a_task_is_called_by_its_job_and_rank() -> None:
    task = {
        "FLUX_URI": "local:///here",
        "FLUX_JOB_ID": "ƒB",
        "FLUX_JOB_ID_PATH": "/ƒA/ƒB",
        "FLUX_TASK_RANK": "3",
    }
    assert own_name("local:///here", task) == "ƒB.3"
    assert own_name("local:///parent", task) == "/ƒA/ƒB.3", "an id is one instance's"
    assert own_name("local:///here", {**task, "FLUX_TASK_RANK": ""}) == HERE
    assert own_name("local:///here", {}) == HERE


# -- barriers --------------------------------------------------------------------------------------


def test_a_barrier_says_who_enters(broker: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.handlers["barrier.enter"] = lambda r: r.respond()
    with Handle() as handle:
        handle.barrier("b", 4)
        assert broker.payload("barrier.enter") == {"name": "b", "nprocs": 4, "who": HERE}
        monkeypatch.setenv("FLUX_JOB_ID", "ƒA")
        monkeypatch.setenv("FLUX_TASK_RANK", "1")
        handle.barrier("b", 4, timeout=10)
        assert broker.payload("barrier.enter")["who"] == "ƒA.1"


def test_a_barrier_that_fails_says_why(broker: FakeBroker) -> None:
    text = "barrier b: ƒA.1 on rank 2 left it, when 2 of 4 had entered"
    broker.handlers["barrier.enter"] = lambda r: r.error(errno.ECONNABORTED, text)
    with Handle() as handle, pytest.raises(FluxError, match=r"ƒA\.1 on rank 2") as caught:
        handle.barrier("b", 4)
    assert caught.value.errno == errno.ECONNABORTED


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"barriers": [["b", 3, 4]]}, "barrier b: 3 of 4 have entered after 0.05 s"),
        ({"barriers": []}, "barrier b: not all 4 have entered after 0.05 s"),
        (lambda r: r.error(errno.ENOSYS, "?"), "barrier b: not all 4 have entered after 0.05 s"),
    ],
)
def test_a_barrier_that_takes_too_long_says_how_far_it_was(
    broker: FakeBroker, status: Any, says: str
) -> None:
    broker.handlers["barrier.enter"] = lambda r: None
    broker.handlers["barrier.status"] = status
    with Handle() as handle:
        with pytest.raises(TimeoutError) as caught:
            handle.barrier("b", 4, timeout=0.05)
        assert str(caught.value) == says
        broker.wait_for(lambda: broker.controls)
    assert broker.controls[0].topic == "cancel", "the others must not wait for us"

    async def main() -> None:
        async with AsyncHandle() as other:
            with pytest.raises(TimeoutError) as late:
                await other.barrier("b", 4, timeout=0.05)
            assert str(late.value) == says

    run(main())
    broker.wait_for(lambda: len(broker.controls) == 2)


def test_a_barrier_may_still_come_while_we_ask_how_far_it_is(broker: FakeBroker) -> None:
    held: list[Request] = []
    broker.handlers["barrier.enter"] = held.append

    def status(request: Request) -> None:
        held[-1].respond()
        request.respond({"barriers": []})

    broker.handlers["barrier.status"] = status
    with Handle() as handle:
        handle.barrier("b", 2, timeout=0.05)
    assert not broker.controls


def test_an_async_barrier_that_is_cancelled_leaves(broker: FakeBroker) -> None:
    broker.handlers["barrier.enter"] = lambda r: None

    async def main() -> None:
        async with AsyncHandle() as handle:
            task = asyncio.ensure_future(handle.barrier("b", 2))
            while "barrier.enter" not in broker.topics():
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await handle.rpc("broker.ping", {})

    run(main())
    broker.wait_for(lambda: broker.controls)


# -- groups ----------------------------------------------------------------------------------------


def test_joining_leaving_and_reading(broker: FakeBroker) -> None:
    for method in ("join", "leave"):
        broker.handlers[f"groups.{method}"] = lambda r: r.respond()
    broker.handlers["groups.get"] = {"members": ["a", "b"]}
    with Handle() as handle:
        assert handle.join_group("g") == HERE
        assert handle.join_group("g", "me") == "me"
        handle.leave_group("g", "me")
        handle.leave_group("g")
        assert handle.group("g") == ["a", "b"]

    async def main() -> None:
        async with AsyncHandle() as other:
            assert await other.join_group("g") == HERE
            await other.leave_group("g", "me")
            assert await other.group("g") == ["a", "b"]

    run(main())
    asked = [(topic.removeprefix("groups."), payload.get("member")) for topic, payload, _ in
             broker.requests]  # fmt: skip
    assert asked == [
        *(("join", HERE), ("join", "me"), ("leave", "me"), ("leave", HERE), ("get", None)),
        *(("join", HERE), ("leave", "me"), ("get", None)),
    ]


STORY = (
    {"members": ["j.2"]},
    {"joined": ["j.10", "j.9"], "left": []},
    {"joined": ["j.0"], "left": ["j.2", "j.10"]},
)
MEMBERS = [["j.2"], ["j.2", "j.9", "j.10"], ["j.0", "j.9"]]


def test_a_watch_adds_up(broker: FakeBroker) -> None:
    broker.handlers["groups.get"] = streaming(*STORY)
    with Handle() as handle:
        changes = list(handle.watch_group("g"))
    assert [change.members for change in changes] == MEMBERS
    assert [change.joined for change in changes] == [["j.2"], ["j.10", "j.9"], ["j.0"]]
    assert [change.left for change in changes] == [[], [], ["j.2", "j.10"]]
    assert "2 members, +['j.0'] -['j.2', 'j.10']" in repr(changes[2])

    async def main() -> list[list[str]]:
        async with AsyncHandle() as other:
            return [change.members async for change in other.watch_group("g")]

    assert run(main()) == MEMBERS


def test_watching_begins_at_once_and_ends_when_let_go(broker: FakeBroker) -> None:
    broker.handlers["groups.get"] = lambda r: r.respond({"members": []})
    with Handle() as handle:
        watch = handle.watch_group("g")
        broker.wait_for(lambda: broker.topics() == ["groups.get"])
        next(watch)
        watch.close()  # type: ignore[attr-defined]
        broker.wait_for(lambda: broker.controls)


def test_a_view_may_be_told_all_anew() -> None:
    view = View()
    for answer in STORY:
        view.take(answer)
    assert view.take({"members": ["x"]}).members == ["x"]


# -- across levels ---------------------------------------------------------------------------------


def test_the_parent_is_the_enclosing_instance(broker: FakeBroker) -> None:
    with Handle() as handle:
        with pytest.raises(FluxError, match="has no parent") as caught:
            handle.parent()
        assert caught.value.errno == errno.ENOENT
        broker.attrs["parent-uri"] = broker.uri
        with handle.parent() as parent:
            assert parent.uri == broker.uri
            assert parent.attr_get("size") == "4"


def test_a_namespace_counts_only_where_the_environment_points(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_KVS_NAMESPACE", "job-5")
    with Handle() as handle:
        assert handle.kvs.namespace == "job-5"
        assert flux_mpi.KVS(handle, "primary").namespace == "primary"
    monkeypatch.setenv("FLUX_URI", "local:///elsewhere")
    with Handle(broker.uri) as handle:
        assert handle.kvs.namespace == "primary"
