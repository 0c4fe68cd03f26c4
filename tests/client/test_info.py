"""What a listing says about a job."""

from __future__ import annotations

import time

import pytest

from flux_mpi.client import info
from flux_mpi.client.info import FIELDS, JobInfo, field, filter_masks

RUNNING = {
    "id": 293215404032,
    "state": 16,
    "t_submit": 100.0,
    "t_run": time.time() - 10,
    "nodelist": "n[0-1]",
    "duration": 60.0,
    "expiration": time.time() + 50,
    "annotations": {"sched": {"resource_summary": "rank0/core0"}, "user": {"x": {"y": 3}}},
}


def test_filters_are_masks() -> None:
    assert filter_masks("pending,running") == (14 | 48, 0)
    assert filter_masks("failed,timeout") == (64, 2 | 8)
    assert filter_masks("inactive,failed") == (64, 0), "any result was asked for"
    assert filter_masks("RUN") == (16, 0)
    with pytest.raises(ValueError, match="'x' is no state or result: expected some of depend"):
        filter_masks("run,x")


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"state": 4}, "priority-wait"),
        ({"state": 2, "dependencies": ["after:1", "b"]}, "depends:after:1,b"),
        ({"state": 8, "urgency": 0}, "held"),
        ({"state": 8, "urgency": 16, "priority": 0}, "priority-hold"),
        ({"state": 8, "urgency": 16, "priority": 16}, ""),
        ({"state": 8, "annotations": {"sched": {"t_estimate": 1.0}}}, "eta:now"),
        ({"state": 16, "nodelist": "n1"}, "n1"),
        ({"state": 64}, ""),
    ],
)
def test_contextual_info(job: dict[str, object], expected: str) -> None:
    assert info.contextual_info(job) == expected


@pytest.mark.parametrize(
    ("job", "reason", "code"),
    [
        ({"state": 64, "result": 1, "waitstatus": 0}, "Exit 0", 0),
        ({"state": 64, "result": 2, "waitstatus": 42 << 8}, "Exit 42", 42),
        ({"state": 64, "result": 2, "waitstatus": 9}, "Killed", -9),
        ({"state": 64, "result": 2, "waitstatus": 143 << 8}, "Terminated", 143),
        ({"state": 64, "result": 2, "waitstatus": 127 << 8}, "command not found", 127),
        ({"state": 64, "result": 2, "waitstatus": 126 << 8}, "Command invoked cannot execute", 126),
        ({"state": 64, "result": 8, "waitstatus": 14}, "Timeout", -14),
        ({"state": 64, "result": 4}, "Canceled", -128),
        (
            {"state": 64, "result": 4, "exception_type": "cancel", "exception_note": "why"},
            "Canceled: why",
            -128,
        ),
        (
            {
                "state": 64,
                "result": 2,
                "exception_occurred": True,
                "exception_severity": 0,
                "exception_type": "alloc",
                "exception_note": "no room",
            },
            "Exception: type=alloc note=no room",
            1,
        ),
        ({"state": 16}, "", ""),
    ],
)
def test_how_it_ended(job: dict[str, object], reason: str, code: object) -> None:
    assert info.inactive_reason(job) == reason
    assert info.returncode(job) == code


def test_times() -> None:
    assert info.runtime({"t_run": 5.0, "t_cleanup": 7.5}) == 2.5
    assert info.runtime({}) == 0
    assert 9 < info.runtime(RUNNING) < 3600
    assert 0 < info.remaining(RUNNING) <= 50
    assert info.remaining({"state": 64, "expiration": 5.0}) == 0
    assert info.contextual_time({"state": 8, "duration": 300.0}) == 300


def test_begin_times_are_shown_as_times() -> None:
    at = time.mktime((2031, 5, 6, 7, 8, 9, 0, 0, -1))
    assert info.dependencies({"dependencies": [f"begin-time={at}"]}) == ["begin@May06-07:08:09"]


def test_annotations_by_path() -> None:
    known = field("sched.resource_summary")
    assert known is not None
    assert (known.heading, known.get(RUNNING)) == ("RESOURCES", "rank0/core0")
    user = field("user.x.y")
    assert user is not None
    assert (user.heading, user.get(RUNNING)) == ("USER.X.Y", 3)
    absent = field("annotations.a.b")
    assert absent is not None
    assert (absent.heading, absent.get(RUNNING)) == ("A.B", "")
    assert field("nosuch") is None


def test_every_field_works_on_an_empty_record() -> None:
    for name, one in FIELDS.items():
        one.get({"id": 5})
        assert one.heading, name


def test_to_dict_leaves_out_what_is_unknown() -> None:
    found = JobInfo(RUNNING).to_dict()
    assert found["jobid"] == "ƒ8hjSb9Z"
    assert found["state"] == found["status"] == "RUN"
    assert found["exception"] == {"occurred": False}
    assert not {"result", "waitstatus", "t_inactive", "returncode"} & set(found)
    ended = JobInfo(
        {"id": 1, "state": 64, "result": 2, "exception_occurred": True, "exception_type": "x"}
    )
    assert ended.exception == {"occurred": True, "severity": 0, "type": "x", "note": ""}
    assert ended.to_dict()["result"] == "FAILED"


def test_signals_in_words() -> None:
    assert info.status_text(256) == "exited with exit code 1"
    assert info.status_text(9) == "Killed"
    assert info.status_text(143 << 8) == "Terminated"
    assert info.exit_status(11) == 139
