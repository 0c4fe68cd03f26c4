"""Jobs as Python calls, against a fake broker: what is asked, and what becomes of the answers."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

import flux_mpi
from flux_mpi.client.attach import Attachment, LineWriter, ranks_of
from flux_mpi.client.handle import Handle
from flux_mpi.client.jobs import JobArray, JobID, JobResult, as_completed, ranges
from flux_mpi.formats import fluid
from flux_mpi.formats.jobspec import JobspecError
from flux_mpi.message.errors import FluxError
from tests.client.fakebroker import FakeBroker, Request, streaming

FIRST = fluid.parse("f85b86fy")


def test_submit_sends_one_jobspec(broker: FakeBroker) -> None:
    broker.handlers["job-ingest.submit"] = {"arrays": [[FIRST, 1]]}
    job = flux_mpi.submit(
        ["echo", 1],
        ntasks=2,
        cores_per_task=3,
        time_limit="1m",
        env={"A": "1"},
        cwd="/x",
        output="o.{{id}}",
        name="n",
        waitable=True,
        urgency=20,
    )
    assert job == FIRST
    assert (str(job), job.f58, f"{job:>10}") == ("ƒ85b86fy", "ƒ85b86fy", "  ƒ85b86fy")
    request = broker.payload("job-ingest.submit")
    assert (request["urgency"], request["flags"]) == (20, 4)
    (entry,) = request["entries"]
    assert set(entry) == {"jobspec"}
    system = entry["jobspec"]["attributes"]["system"]
    assert entry["jobspec"]["tasks"][0]["command"] == ["echo", "1"]
    assert system["duration"] == 60
    assert system["environment"] == {"A": "1"}
    assert system["cwd"] == "/x"
    assert system["job"] == {"name": "n"}
    assert system["shell"]["options"]["output"]["stdout"] == {"type": "file", "path": "o.{{id}}"}


def test_an_array_is_one_entry(broker: FakeBroker) -> None:
    broker.handlers["job-ingest.submit"] = lambda r: r.respond(
        {"arrays": [[FIRST, r.payload["entries"][0]["count"]]]}
    )
    array = flux_mpi.submit(["x", "{cc}"], cc="1-1000000")
    assert len(array) == 1_000_000
    assert broker.payload("job-ingest.submit")["entries"][0]["params"] == {"cc": "1-1000000"}
    assert len(flux_mpi.submit("x", count=3)) == 3
    rows = flux_mpi.submit(["x", "{0}"], rows=[["a"], [2]])
    assert len(rows) == 2
    assert broker.payload("job-ingest.submit")["entries"][0]["params"] == {"rows": [["a"], ["2"]]}


def test_a_bad_request_names_its_field(broker: FakeBroker) -> None:
    with pytest.raises(JobspecError, match="command"):
        flux_mpi.submit([])
    with pytest.raises(JobspecError, match="ntasks"):
        flux_mpi.submit(["x"], ntasks=0)
    with pytest.raises(ValueError, match="duration"):
        flux_mpi.submit(["x"], time_limit="1x")
    assert broker.requests == []


def test_job_arrays_are_sequences() -> None:
    array = JobArray([(FIRST, 1500), (fluid.nth(FIRST, 5000), 2)])
    listed = list(array)
    assert len(array) == len(listed) == 1502
    assert [array[0], array[1499], array[1500], array[-1]] == [
        listed[0],
        listed[1499],
        listed[1500],
        listed[1501],
    ]
    assert array[1:4] == listed[1:4]
    for k in (0, 1023, 1024, 1500, 1501):
        assert array.index(listed[k]) == k
    assert listed[7] in array
    assert fluid.nth(FIRST, 3000) not in array
    assert "x" not in array
    with pytest.raises(IndexError):
        array[1502]
    with pytest.raises(ValueError, match="not of this array"):
        array.index(fluid.nth(FIRST, 3000))
    assert isinstance(array[3], JobID)


def test_ranges_join_neighbours() -> None:
    ids = [fluid.nth(FIRST, k) for k in (0, 1, 2, 5, 6, 9)]
    assert ranges(ids) == [[ids[0], 3], [ids[3], 2], [ids[5], 1]]
    assert ranges("ƒ85b86fy") == [[FIRST, 1]]
    assert ranges(JobArray([(FIRST, 10)])) == [[FIRST, 10]]


def test_results_say_how_a_job_ended() -> None:
    assert JobResult(1, 0).success
    assert (JobResult(1, 3 << 8).returncode, JobResult(1, 3 << 8).exit_status) == (3, 3)
    assert (JobResult(1, 9).returncode, JobResult(1, 9).exit_status) == (-9, 137)
    never = JobResult(1, None, "alloc: unsatisfiable")
    assert (never.success, never.returncode, never.exit_status) == (False, 1, 1)
    assert not JobResult(1, 0, "x").success


def test_waiting_for_many_in_their_order(broker: FakeBroker) -> None:
    ids = [fluid.nth(FIRST, k) for k in range(3)]
    broker.handlers["job-manager.wait-all"] = streaming(
        {"done": [[ids[2], 0], [ids[0], 256, None]]}, {"done": [[ids[1], None, "cancel: no"]]}
    )
    results = flux_mpi.wait_all(ids)
    assert [int(result.id) for result in results] == ids
    assert [result.success for result in results] == [False, False, True]
    assert results[1].note == "cancel: no"
    assert [int(result.id) for result in as_completed(ids)] == [ids[2], ids[0], ids[1]]


def test_wait_times_out_and_gives_the_request_up(broker: FakeBroker) -> None:
    broker.handlers["job-manager.wait-all"] = lambda r: None
    with pytest.raises(TimeoutError, match=r"ƒ85b86fy: still active after 0\.01 s"):
        flux_mpi.wait(FIRST, timeout=0.01)
    broker.wait_for(lambda: broker.controls)


def test_unknown_jobs_are_errors(broker: FakeBroker) -> None:
    broker.handlers["job-manager.wait-all"] = lambda r: r.error(errno.ENOENT, "ƒ1: unknown job id")
    broker.handlers["job-manager.raise"] = {"errors": {FIRST: "unknown job id"}}
    with pytest.raises(FluxError, match="unknown job id"):
        flux_mpi.wait(1)
    assert flux_mpi.cancel(FIRST, "why") == {FIRST: "unknown job id"}
    assert broker.payload("job-manager.raise") == {
        "ids": [[FIRST, 1]],
        "type": "cancel",
        "severity": 0,
        "note": "why",
    }
    with pytest.raises(ValueError, match="nonsense"):
        flux_mpi.wait("nonsense")


def test_listing_gathers_chunks(broker: FakeBroker) -> None:
    broker.handlers["job-list.list"] = streaming(
        {"jobs": [{"id": FIRST, "state": 16, "name": "a"}]},
        {"jobs": [{"id": FIRST + 1, "state": 64, "result": 2, "waitstatus": 256}]},
    )
    one, two = flux_mpi.jobs("running,failed", user=7, name="a", since=5.0, max_entries=0)
    assert (one.status, one.name, one.jobid) == ("RUN", "a", "ƒ85b86fy")
    assert (two.status, two.returncode) == ("FAILED", 1)
    assert broker.payload("job-list.list") == {
        "max_entries": 0,
        "states": 48 | 64,
        "results": 2,
        "userid": 7,
        "name": "a",
        "since": 5.0,
    }
    with pytest.raises(ValueError, match="'nosuch' is no state or result"):
        flux_mpi.jobs("nosuch")
    with pytest.raises(AttributeError, match="nosuch"):
        one.nosuch  # noqa: B018


# -- attach ----------------------------------------------------------------------------------------

R = {"version": 1, "execution": {"R_lite": [{"rank": "0-1,3", "children": {"core": "0"}}]}}
EVENTS: list[dict[str, Any]] = [
    {"timestamp": 1.0, "name": "submit", "context": {}},
    {"timestamp": 2.0, "name": "alloc"},
    {"timestamp": 3.0, "name": "start"},
    {"timestamp": 4.0, "name": "finish", "context": {"status": 768}},
    {"timestamp": 5.0, "name": "clean"},
]


def test_attach_reads_the_output_of_every_rank_once(broker: FakeBroker) -> None:
    broker.handlers["job-info.eventlog-watch"] = streaming({"events": EVENTS})
    broker.handlers["job-info.lookup"] = {"R": R}

    def output(request: Request) -> None:
        rank = request.message.target
        request.respond({"entries": [[1.0, 1, rank, b"out %d\n" % rank], [1.0, 2, rank, b"err"]]})
        request.end()

    broker.handlers["exec.output"] = output
    got: list[tuple[object, ...]] = []
    with Handle() as handle:
        attachment = Attachment(
            handle,
            FIRST,
            on_output=lambda when, stream, task, data: got.append((stream, task, data)),
        )
        handle.run(lambda: attachment.done)
        handle.call("broker.ping", {})
    assert sorted(got) == sorted(
        entry for rank in (0, 1, 3) for entry in ((1, rank, b"out %d\n" % rank), (2, rank, b"err"))
    )
    assert (attachment.status, attachment.exit_status, attachment.t0) == (768, 3, 1.0)
    acked = [payload["bytes"] for topic, payload, _ in broker.requests if topic == "exec.ack"]
    assert acked == [9, 9, 9]


def test_attach_to_what_never_ran(broker: FakeBroker) -> None:
    fatal = {"timestamp": 2.0, "name": "exception", "context": {"severity": 0, "type": "alloc"}}
    broker.handlers["job-info.eventlog-watch"] = streaming(
        {"events": [EVENTS[0], fatal, EVENTS[4]]}
    )
    with Handle() as handle:
        attachment = Attachment(handle, FIRST, on_output=lambda *a: None)
        handle.run(lambda: attachment.done)
    assert attachment.exit_status == 1
    assert "exec.output" not in broker.topics()


def test_a_lost_rank_does_not_hang_attach(broker: FakeBroker) -> None:
    broker.handlers["job-info.eventlog-watch"] = streaming({"events": EVENTS})
    broker.handlers["job-info.lookup"] = {"R": R}

    def output(request: Request) -> None:
        if request.message.target == 1:
            request.error(errno.EHOSTUNREACH, "rank 1 is lost")
        else:
            request.end()

    broker.handlers["exec.output"] = output
    problems: list[str] = []
    with Handle() as handle:
        attachment = Attachment(
            handle, FIRST, on_output=lambda *a: None, on_problem=problems.append
        )
        handle.run(lambda: attachment.done)
    assert problems == ["rank 1: output lost: rank 1 is lost"]


def test_attach_to_an_unknown_job(broker: FakeBroker) -> None:
    broker.handlers["job-info.eventlog-watch"] = lambda r: r.error(errno.ENOENT, "unknown job id")
    with Handle() as handle:
        attachment = Attachment(handle, 5)
        handle.run(lambda: attachment.done)
    assert "unknown job id" in str(attachment.error)
    assert attachment.exit_status == 1


def test_ranks_of_r_in_both_forms() -> None:
    assert ranks_of(R) == [0, 1, 3]
    assert ranks_of('{"execution": {"R_lite": [{"rank": "2"}, {"rank": "5-6"}]}}') == [2, 5, 6]


def test_lines_of_tasks_do_not_mix() -> None:
    written: list[tuple[int, bytes]] = []
    writer = LineWriter(label=True, write=lambda stream, data: written.append((stream, data)))
    writer(0, 1, 0, b"one ")
    writer(0, 1, 1, b"two\nthr")
    writer(0, 1, 0, b"more\n")
    writer(0, 2, 1, b"err\r50%\n")
    writer(0, 1, 1, b"")
    writer(0, 1, 0, b"tail")
    writer.flush()
    assert written == [
        (1, b"1: two\n"),
        (1, b"0: one more\n"),
        (2, b"1: err\r50%\n"),
        (1, b"1: thr\n"),
        (1, b"0: tail\n"),
    ]


def test_without_labels_bytes_stay_as_they_are() -> None:
    written: list[bytes] = []
    writer = LineWriter(write=lambda stream, data: written.append(data))
    writer(0, 1, 0, b"a\0b\nc")
    writer.flush()
    assert b"".join(written) == b"a\0b\nc"
    written.clear()
    raw = LineWriter(unbuffered=True, write=lambda stream, data: written.append(data))
    raw(0, 1, 0, b"part")
    assert written == [b"part"]


def test_stdin_goes_to_every_rank(broker: FakeBroker) -> None:
    broker.handlers["job-info.eventlog-watch"] = lambda r: r.respond({"events": EVENTS[:3]})
    broker.handlers["job-info.lookup"] = {"R": R}
    broker.handlers["exec.output"] = lambda r: None
    broker.handlers["exec.stdin"] = lambda r: r.respond({})
    with Handle() as handle:
        attachment = Attachment(handle, FIRST, on_output=lambda *a: None)
        handle.run(lambda: attachment.ranks is not None)
        taken: list[object] = []
        assert attachment.write_stdin(b"hi", eof=True, tasks="0-2", callback=taken.append) == 3
        handle.run(lambda: len(taken) == 3)
    assert broker.payload("exec.stdin") == {
        "id": FIRST,
        "data": b"hi",
        "eof": True,
        "ranks": "0-2",
    }


def test_environment_of_a_submission_is_this_processs(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.handlers["job-ingest.submit"] = {"arrays": [[FIRST, 1]]}
    monkeypatch.setenv("MARK", "here")
    flux_mpi.submit("x")
    system = broker.payload("job-ingest.submit")["entries"][0]["jobspec"]["attributes"]["system"]
    assert system["environment"]["MARK"] == "here"
    assert system["cwd"] == os.getcwd()
