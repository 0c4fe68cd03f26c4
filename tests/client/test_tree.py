"""Ensembles from Python: what is asked, what comes back, and how it is ended."""

from __future__ import annotations

import errno
from typing import Any

import pytest

import flux_mpi
from flux_mpi.client.tree import start_tree, tree
from flux_mpi.message.errors import FluxError
from tests.client.fakebroker import FakeBroker, Request, streaming

PROGRESS = {"run": 3, "done": 5, "failed": 1, "running": 2, "total": 10, "why": "so"}
RESULT = {
    "count": 10,
    "failed": 2,
    "lost": 1,
    "canceled": 0,
    "status": 7,
    "codes": {1: 1, 7: 1},
    "failures": [[3, 7, ""], [8, 1, "lost: gone"]],
    "begin": 1.0,
    "wall": 2.0,
    "rate": 5.0,
    "times": {
        "count": 9, "total": 9.0, "mean": 1.0, "min": 0.5, "median": 1.0, "max": 1.5,
        "histogram": {20: 9},
    },
    "topology": "4x8",
    "why": "so",
    "levels": [],
    "records": [],
}  # fmt: skip


def test_a_tree_is_one_request_and_a_result(broker: FakeBroker) -> None:
    broker.handlers["ensemble.run"] = streaming(PROGRESS, {"result": RESULT})
    seen: list[Any] = []
    with flux_mpi.Handle() as handle:
        result = handle.tree(
            ["member", "{cc}"],
            jobs=10,
            topology="4x8",
            expected_time="10ms",
            retries=1,
            conf={"sched": {"queue-policy": "easy"}},
            cores_per_task=2,
            env={"A": "b"},
            progress=seen.append,
        )
    assert seen == [PROGRESS]
    asked = broker.payload("ensemble.run")
    spec = asked.pop("jobspec")
    assert asked == {
        "count": 10,
        "topology": "4x8",
        "expected_time": "10ms",
        "retries": 1,
        "conf": {"sched": {"queue-policy": "easy"}},
        "urgency": 16,
    }
    assert spec["tasks"][0]["command"] == ["member", "{cc}"]
    assert spec["resources"][0]["with"] == [{"type": "core", "count": 2}]
    assert spec["attributes"]["system"]["environment"] == {"A": "b"}
    assert (result.count, result.failed, result.lost, result.returncode) == (10, 2, 1, 7)
    assert not result.success
    assert [(f.member, f.returncode, f.why) for f in result.failures] == [
        (3, 7, ""),
        (8, 1, "lost: gone"),
    ]
    assert (result.wall_s, result.rate, result.mean_s, result.max_s) == (2.0, 5.0, 1.0, 1.5)
    assert repr(result) == "<tree 4x8: 10 members, 2 failed>"


def test_members_can_be_named_and_levels_configured_apart(broker: FakeBroker) -> None:
    broker.handlers["ensemble.run"] = streaming({"result": RESULT})
    tree(["x"], members="5-9", topology=[2, 2], conf=[{}, {"a": 1}], nnodes=2)
    asked = broker.payload("ensemble.run")
    assert (asked["members"], asked["topology"], asked["nnodes"]) == ("5-9", [2, 2], 2)
    assert asked["conf"] == [{}, {"a": 1}]
    assert "count" not in asked


def test_what_the_instance_refuses_is_raised(broker: FakeBroker) -> None:
    def refuse(request: Request) -> None:
        raise FluxError(errno.EINVAL, "topology: no")

    broker.handlers["ensemble.run"] = refuse
    with pytest.raises(FluxError, match="topology: no"):
        tree(["x"], jobs=5)


def test_an_error_in_the_callback_ends_the_ensemble(broker: FakeBroker) -> None:
    broker.handlers["ensemble.run"] = lambda request: request.respond(PROGRESS)

    def fail(numbers: Any) -> None:
        raise KeyboardInterrupt

    with flux_mpi.Handle() as handle:
        with pytest.raises(KeyboardInterrupt):
            tree(["x"], handle=handle, progress=fail)
        broker.wait_for(lambda: [m for m in broker.controls if m.topic == "cancel"])


def test_a_cancel_is_asked_for_by_number_and_the_result_follows(broker: FakeBroker) -> None:
    runs: list[Request] = []

    def run(request: Request) -> None:
        runs.append(request)
        request.respond(PROGRESS)

    def cancel(request: Request) -> None:
        request.respond({})
        runs[0].respond({"result": {**RESULT, "canceled": 5}})
        runs[0].end()

    broker.handlers |= {"ensemble.run": run, "ensemble.cancel": cancel}
    with flux_mpi.Handle() as handle:
        ensemble = start_tree(handle, ["x"], jobs=10)
        ensemble.cancel("enough")
        assert broker.payload("ensemble.cancel") == {"run": 3, "why": "enough"}
        assert ensemble.result().canceled == 5
        assert not ensemble.step()
        assert list(ensemble) == []


def test_a_cancel_that_comes_too_late_is_no_error(broker: FakeBroker) -> None:
    runs: list[Request] = []

    def run(request: Request) -> None:
        runs.append(request)
        request.respond(PROGRESS)

    def cancel(request: Request) -> None:
        runs[0].respond({"result": RESULT})
        runs[0].end()
        raise FluxError(errno.ENOENT, "run: there is no ensemble 3")

    broker.handlers |= {"ensemble.run": run, "ensemble.cancel": cancel}
    with flux_mpi.Handle() as handle:
        ensemble = start_tree(handle, ["x"])
        ensemble.cancel()
        assert ensemble.result().count == 10


def test_waiting_for_progress_can_be_bounded(broker: FakeBroker) -> None:
    broker.handlers["ensemble.run"] = lambda request: None
    with flux_mpi.Handle() as handle:
        ensemble = start_tree(handle, ["x"])
        with pytest.raises(TimeoutError):
            ensemble.step(0.05)
        ensemble.abandon()
