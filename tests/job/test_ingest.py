"""What a submission must look like, and what the refusal says."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from flux_mpi.formats.jobspec import Jobspec, JobspecError
from flux_mpi.job.ingest import Ingest, check_urgency, mock_execution
from flux_mpi.message.errors import ServiceError

Make = Callable[..., dict[str, Any]]


def refusal(payload: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        Ingest().parse(payload)
    return caught.value


def test_equal_requests_and_environments_are_kept_once(make_entry: Make) -> None:
    entries, urgency, flags = Ingest().parse(
        {
            "entries": [make_entry(["a"]), make_entry(["b"]), make_entry(["b"], ntasks=2)],
            "urgency": 5,
            "flags": 4,
        }
    )
    assert (urgency, flags) == (5, 4)
    first, second, third = entries
    assert first.shape is second.shape
    assert third.shape is not first.shape
    environments = {id(entry.jobspec.system["environment"]) for entry in entries}
    assert len(environments) == 1


@pytest.mark.parametrize("payload", [None, [], {}, {"entries": {}}])
def test_something_else_than_entries(payload: Any) -> None:
    assert refusal(payload).errno == errno.EPROTO


def test_no_entries() -> None:
    assert refusal({"entries": []}).errno == errno.EINVAL


def test_nothing_is_taken_when_one_entry_is_wrong_and_it_is_named(make_entry: Make) -> None:
    bad = make_entry()
    del bad["jobspec"]["attributes"]["system"]["duration"]
    error = refusal({"entries": [make_entry(), bad]})
    assert error.errno == errno.EINVAL
    assert "entry 2 of 2" in str(error)
    assert "attributes.system.duration" in str(error)


@pytest.mark.parametrize("entry", [None, "true", 5, {"jobspec": None}, {"jobspec": []}])
def test_entries_of_other_types(entry: Any) -> None:
    assert refusal({"entries": [entry]}).errno == errno.EINVAL


@pytest.mark.parametrize("count", [0, -1, True, "3", 1.5, 1 << 30])
def test_counts(make_entry: Make, count: Any) -> None:
    assert "count" in str(refusal({"entries": [make_entry(count=count)]}))


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"cc": "1-3"}, "params.cc"),
        ({"cc": "x"}, "params.cc"),
        ({"cc": 5}, "params.cc"),
        ({"rows": [["a"]]}, "params.rows"),
        ({"rows": [["a"], "b"]}, "params.rows[1]"),
        ({"rows": [["a"], [1]]}, "params.rows[1]"),
        ({"rows": "ab"}, "params.rows"),
        ({"cc": "1-2", "rows": []}, "params"),
        ({"what": 1}, "params"),
        ([], "params"),
    ],
)
def test_parameters(make_entry: Make, params: Any, named: str) -> None:
    error = refusal({"entries": [make_entry(count=2, params=params)]})
    assert f"jobspec: {named}:" in str(error)


def test_tags_without_a_parameter_are_refused_before_anything_runs(make_entry: Make) -> None:
    rows = [["a", "b"], ["c"]]
    error = refusal({"entries": [make_entry(["x", "{1}"], count=2, params={"rows": rows})]})
    assert "{1}" in str(error)
    Ingest().parse({"entries": [make_entry(["x", "{0}"], count=2, params={"rows": rows})]})


@pytest.mark.parametrize("urgency", [-2, 33, True, None, "16", 1.0])
def test_urgencies_out_of_range(urgency: Any) -> None:
    with pytest.raises(ServiceError, match="urgency range is"):
        check_urgency(urgency)


def test_hold_and_expedite() -> None:
    assert [check_urgency(urgency) for urgency in (-1, 0, 16, 31, 32)] == [0, 0, 16, 31, 31]


def test_flags(make_entry: Make) -> None:
    assert "flags" in str(refusal({"entries": [make_entry()], "flags": 1024}))


def test_queues_and_dependencies_are_not_ignored(make_entry: Make) -> None:
    queue = make_entry(queue="nosuchqueue")
    assert str(refusal({"entries": [queue]})) == "'nosuchqueue' is not a valid queue"
    depends = make_entry(dependencies=[{"scheme": "afterok", "value": "f1"}])
    assert "afterok" in str(refusal({"entries": [depends]}))


def test_a_request_that_only_a_graph_expresses(make_entry: Make) -> None:
    odd = make_entry()
    slot = odd["jobspec"]["resources"][0]
    odd["jobspec"]["resources"] = [{"type": "rack", "count": 1, "with": [slot]}]
    (entry,), _, _ = Ingest().parse({"entries": [odd]})
    assert entry.shape.text() == "rack/slot/core"
    slot["with"][0]["exclusive"] = False
    assert "resources[0].with[0].with[0].exclusive" in str(refusal({"entries": [odd]}))


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ({"run_duration": "2.5s"}, (2.5, 0)),
        ({"run_duration": 3, "wait_status": 256}, (3.0, 256)),
        ({}, (7.0, 0)),
    ],
)
def test_mock_execution(test: dict[str, Any], expected: tuple[float, int]) -> None:
    spec = Jobspec.from_command(["x"], duration=7, attributes={"system.exec.test": test})
    assert mock_execution(spec) == expected


@pytest.mark.parametrize(
    "test", [5, {"run_duration": "soon"}, {"run_duration": -1}, {"wait_status": "no"}]
)
def test_mock_execution_refused(test: Any) -> None:
    spec = Jobspec.from_command(["x"], attributes={"system.exec.test": test})
    with pytest.raises(JobspecError, match=r"attributes\.system\.exec\.test"):
        mock_execution(spec)


def test_real_execution_is_not_mocked() -> None:
    assert mock_execution(Jobspec.from_command(["x"])) == (None, 0)
