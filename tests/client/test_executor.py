"""Futures that are jobs, against a fake job manager."""

from __future__ import annotations

import concurrent.futures
import errno
from collections.abc import Iterator
from typing import Any

import pytest

from flux_mpi.client.executor import FluxExecutor, FluxExecutorFuture, JobException
from flux_mpi.formats import fluid
from flux_mpi.formats.jobspec import JobspecError
from flux_mpi.message.errors import FluxError
from tests.client.fakebroker import FakeBroker, Request, streaming


class FakeManager:
    """Hands out ids; jobs end when told to, or at once when their command says how."""

    def __init__(self, broker: FakeBroker) -> None:
        self.next = fluid.parse("f85b86fy")
        self.commands: dict[int, list[str]] = {}
        self.waits: list[tuple[Request, set[int]]] = []
        self.batches: list[int] = []
        broker.handlers["job-ingest.submit"] = self.submit
        broker.handlers["job-manager.wait-all"] = self.wait_all
        broker.handlers["job-manager.raise"] = self.raise_
        broker.handlers["job-info.eventlog-watch"] = streaming(
            {"events": [{"timestamp": 1.0, "name": "submit"}]},
            {"events": [{"timestamp": 2.0, "name": "start"}, {"timestamp": 3.0, "name": "clean"}]},
        )

    def submit(self, request: Request) -> None:
        arrays = []
        entries = request.payload["entries"]
        self.batches.append(len(entries))
        if any(entry["jobspec"]["tasks"][0]["command"] == ["refused"] for entry in entries):
            request.error(errno.EINVAL, "refused: no such thing")
            return
        for entry in entries:
            self.commands[self.next] = entry["jobspec"]["tasks"][0]["command"]
            arrays.append([self.next, 1])
            self.next = fluid.nth(self.next, 1)
        request.respond({"arrays": arrays})

    def wait_all(self, request: Request) -> None:
        ids = {fluid.nth(first, k) for first, count in request.payload["ids"] for k in range(count)}
        self.waits.append((request, ids))
        for job in sorted(ids):
            word, *rest = self.commands.get(job, ["exit", "0"])
            if word == "exit":
                self.end(job, int(rest[0]) << 8)

    def end(self, job: int, status: int | None, note: str | None = None) -> None:
        for request, ids in self.waits:
            if job in ids:
                ids.discard(job)
                request.respond({"done": [[job, status, note] if note else [job, status]]})
                if not ids:
                    request.end()

    def raise_(self, request: Request) -> None:
        request.respond({"errors": {}})
        for first, _ in request.payload["ids"]:
            self.end(first, 15, "cancel: cancelled by the executor")


@pytest.fixture
def manager(broker: FakeBroker) -> FakeManager:
    return FakeManager(broker)


@pytest.fixture
def executor(manager: FakeManager) -> Iterator[FluxExecutor]:
    with FluxExecutor() as one:
        yield one


def test_results_are_return_codes(executor: FluxExecutor) -> None:
    futures = [executor.submit(["exit", str(k)]) for k in range(20)]
    assert [future.result(30) for future in futures] == list(range(20))
    assert len({int(future.jobid()) for future in futures}) == 20
    done, rest = concurrent.futures.wait(futures, 30)
    assert (len(done), len(rest)) == (20, 0)


def test_callbacks(executor: FluxExecutor) -> None:
    seen: list[Any] = []
    future = executor.submit(["hold"])
    future.add_jobid_callback(lambda f: seen.append(("id", f.jobid())))
    future.add_event_callback("submit", lambda f, event: seen.append(event["name"]))
    finished = concurrent.futures.Future[None]()
    future.add_event_callback("clean", lambda f, event: finished.set_result(None))
    finished.result(30)
    future.add_event_callback("start", lambda f, event: seen.append(event["name"]))
    assert seen == [("id", future.jobid()), "submit", "start"]
    with pytest.raises(ValueError, match="unknown event 'nosuch'"):
        future.add_event_callback("nosuch", lambda f, event: None)
    future.cancel()


def test_a_callback_that_fails_harms_nobody(executor: FluxExecutor) -> None:
    future = executor.submit(["exit", "0"])
    future.add_jobid_callback(lambda f: 1 / 0)
    assert future.result(30) == 0
    assert executor.submit(["exit", "1"]).result(30) == 1


def test_job_exceptions_are_raised(executor: FluxExecutor, manager: FakeManager) -> None:
    future = executor.submit(["hold"])
    future.jobid(30)
    assert future.cancel() is False
    with pytest.raises(JobException, match="cancelled by the executor") as caught:
        future.result(30)
    assert (caught.value.type, caught.value.note) == ("cancel", "cancelled by the executor")


def test_a_refused_submission_spares_its_neighbours(
    executor: FluxExecutor, manager: FakeManager
) -> None:
    futures = [executor.submit(["exit", "0"]), executor.submit(["refused"])]
    futures.append(executor.submit(["exit", "3"]))
    assert futures[0].result(30) == 0
    assert futures[2].result(30) == 3
    with pytest.raises(FluxError, match="no such thing"):
        futures[1].result(30)
    with pytest.raises(FluxError, match="no such thing"):
        futures[1].jobid()
    with pytest.raises(JobspecError, match="ntasks"):
        executor.submit(["x"], ntasks=-1)


def test_attach_to_a_job_of_somebody_else(executor: FluxExecutor, manager: FakeManager) -> None:
    job = fluid.parse("fABC")
    manager.commands[job] = ["exit", "7"]
    future = executor.attach("ƒABC")
    assert (future.jobid(), future.result(30)) == (job, 7)


def test_shutdown_waits_and_then_refuses(manager: FakeManager) -> None:
    executor = FluxExecutor()
    future = executor.submit(["exit", "5"])
    executor.shutdown()
    assert future.done()
    assert future.result() == 5
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(["exit", "0"])
    executor.shutdown()


def test_shutdown_cancels(manager: FakeManager) -> None:
    executor = FluxExecutor()
    future = executor.submit(["hold"])
    future.jobid(30)
    executor.shutdown(cancel_futures=True)
    with pytest.raises(JobException):
        future.result(0)


def test_a_lost_instance_fails_all_futures(manager: FakeManager, broker: FakeBroker) -> None:
    executor = FluxExecutor()
    futures = [executor.submit(["hold"]) for _ in range(3)]
    for future in futures:
        future.jobid(30)
    broker.drop()
    for future in futures:
        with pytest.raises(FluxError, match="lost the connection"):
            future.result(30)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="broken"):
        executor.submit(["hold"])


def test_no_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUX_URI", raising=False)
    with pytest.raises(FluxError, match="FLUX_URI is not set"):
        FluxExecutor()


def test_a_future_cancelled_before_submission() -> None:
    future = FluxExecutorFuture(None)  # type: ignore[arg-type]
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.jobid(0)
    with pytest.raises(concurrent.futures.TimeoutError):
        FluxExecutorFuture(None).jobid(0.01)  # type: ignore[arg-type]
