"""Child instances as Python calls: their jobspecs, and waiting until they are ready."""

from __future__ import annotations

import errno
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import flux_mpi
from flux_mpi.client import batch as client
from flux_mpi.client.batch import ScriptError, child_jobspec, file_entry, script_text
from flux_mpi.formats.jobspec import Jobspec, JobspecError
from flux_mpi.message.errors import FluxError
from tests.client.fakebroker import FakeBroker, Request, streaming

SCRIPT = "#!/bin/sh\nhostname\n"
JOB = 1 << 24


# -- jobspecs --------------------------------------------------------------------------------------


def test_a_script() -> None:
    spec = child_jobspec(["a", "b"], script=SCRIPT, environment={}, cwd="/w", name="n")
    # Key for key and in this order as Flux's, but for the name of the program.
    assert json.dumps(spec.to_dict()) == (
        '{"resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], '
        '"label": "task"}], "tasks": [{"command": ["flux-mpi", "broker", "{{tmpdir}}/script", '
        '"a", "b"], "slot": "task", "count": {"per_slot": 1}}], "attributes": {"system": '
        '{"duration": 0, "environment": {}, "cwd": "/w", "job": {"name": "n"}, "shell": {"options":'
        ' {"per-resource": {"type": "node", "count": 1}}}, "files": {"script": {"mode": 33216, '
        '"data": "#!/bin/sh\\nhostname\\n", "encoding": "utf-8"}}}}, "version": 1}'
    )


def test_a_command_with_configuration_and_options() -> None:
    spec = child_jobspec(
        ["./x", "-v"], conf={"a": {"b": 1}}, broker_options=["-S", "c=d"], options={"verbose": 2}
    )
    assert spec.command == [
        "flux-mpi", "broker", "-S", "c=d", "-c{{tmpdir}}/conf.json", "./x", "-v",
    ]  # fmt: skip
    assert spec.system["files"] == {"conf.json": {"mode": 33152, "data": {"a": {"b": 1}}}}
    assert spec.options == {"verbose": 2, "per-resource": {"type": "node", "count": 1}}


def test_no_program_at_all() -> None:
    assert child_jobspec().command == ["flux-mpi", "broker"]
    assert "files" not in child_jobspec().system


def test_a_program_that_looks_like_an_option() -> None:
    assert child_jobspec(["-x"]).command == ["flux-mpi", "broker", "--", "-x"]


@pytest.mark.parametrize(
    ("how", "shape"),
    [
        ({}, (0, 1, 1, 0, False)),
        ({"nslots": 3, "cores_per_slot": 2, "gpus_per_slot": 1}, (0, 3, 2, 1, False)),
        ({"nodes": 2}, (2, 2, 1, 0, True)),
        ({"nodes": 2, "nslots": 4}, (2, 4, 1, 0, False)),
        ({"nodes": 2, "nslots": 3, "exclusive": True}, (2, 4, 1, 0, True)),
    ],
)
def test_resources(how: dict[str, Any], shape: tuple[int, ...]) -> None:
    found = child_jobspec(["x"], **how).shape
    assert (found.nnodes, found.nslots, found.cores, found.gpus, found.exclusive) == shape


def test_one_task_a_node_whatever_the_slots_are() -> None:
    spec = child_jobspec(["x"], nslots=8)
    assert spec.task_count(nnodes=3, ncores=8) == 3


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"nslots": 0}, "nslots: expected an integer of at least 1, found 0"),
        ({"nodes": 0}, "nodes: expected an integer of at least 1, found 0"),
        ({"cores_per_slot": 0}, "cores_per_slot: expected an integer of at least 1, found 0"),
        ({"gpus_per_slot": -1}, "gpus_per_slot: expected an integer of at least 1, found -1"),
        ({"nodes": 3, "nslots": 2}, "nodes: expected at most the number of slots, 2, found 3"),
        ({"exclusive": True}, "exclusive: expected nnodes with it"),
        ({"broker_options": ["x"]}, "broker_options: expected options, the first beginning with -"),
        ({"files": {"script": {"mode": 33152}}}, "files.script: .*RFC 14 reserves this one"),
        ({"files": {"conf.json": {"mode": 33152}}}, r"files\.conf\.json"),
        ({"conf": {"a": float("inf")}}, "JSON"),
    ],
)
def test_what_is_refused(how: dict[str, Any], text: str) -> None:
    with pytest.raises(JobspecError, match=text):
        child_jobspec(["x"], **how)


# -- scripts and files -----------------------------------------------------------------------------


def test_scripts() -> None:
    assert script_text("#!/bin/sh\necho é\n".encode()) == "#!/bin/sh\necho é\n"
    assert script_text(b"#!/bin/sh\r\necho\r\n") == "#!/bin/sh\necho\n"
    assert script_text(b"sleep 1\n", wrap=True) == "#!/bin/sh\nsleep 1\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"echo\n", "x.sh: batch script does not appear to start with '#!'.*use --wrap"),
        (b"", "does not appear to start with '#!'"),
        (b" #!/bin/sh\n", "does not appear to start with '#!'"),
        (b"\x7fELF\x00", "x.sh: does not appear to be a script: it contains NUL bytes"),
        (b"#!/bin/sh\n\xe9", r"x.sh: .*byte 10 \(0xe9\) is no UTF-8"),
        (b"#!" + b"x" * (9 << 20), r"x.sh: 9\.0 MiB is too large: at most 8 MiB fit"),
    ],
)
def test_what_is_no_script(data: bytes, text: str) -> None:
    with pytest.raises(ScriptError, match=text):
        script_text(data, "x.sh")


def test_a_script_from_a_program_is_checked_as_well() -> None:
    for script in ("echo\n", "#!/bin/sh\n\0", "#!/bin/sh\n\ud800"):
        with pytest.raises(ScriptError):
            child_jobspec(script=script)


def test_files() -> None:
    assert file_entry(b"a\xc3\xa9\n", 0o100755) == {
        "mode": 0o100755,
        "size": 4,
        "encoding": "utf-8",
        "data": "aé\n",
    }
    assert file_entry(b"\xff\x00") == {
        "mode": 33152,
        "size": 2,
        "encoding": "base64",
        "data": "/wA=",
    }
    assert file_entry(b"") == {"mode": 33152, "size": 0}


# -- submitting ------------------------------------------------------------------------------------


@pytest.fixture
def ingest(broker: FakeBroker) -> FakeBroker:
    broker.handlers["job-ingest.submit"] = {"arrays": [[JOB, 1]]}
    return broker


def submitted(broker: FakeBroker) -> Jobspec:
    (entry,) = broker.payload("job-ingest.submit")["entries"]
    return Jobspec.parse(entry["jobspec"])


def test_batch_submits_a_script(ingest: FakeBroker) -> None:
    job = flux_mpi.batch(
        SCRIPT,
        ["arg"],
        nodes=2,
        nslots=4,
        conf={"sched": {"queue-policy": "easy"}},
        files={"in.txt": "data\n"},
        time_limit="5m",
        output="out",
        waitable=True,
        urgency=20,
    )
    assert (int(job), str(job)) == (JOB, "ƒ2UzHM")
    request = ingest.payload("job-ingest.submit")
    assert (request["urgency"], request["flags"]) == (20, 4)
    spec = submitted(ingest)
    assert spec.command[-2:] == ["{{tmpdir}}/script", "arg"]
    assert (spec.duration, spec.name) == (300.0, "batch")
    assert set(spec.system["files"]) == {"script", "conf.json", "in.txt"}
    assert spec.options["output"]["stdout"] == {"type": "file", "path": "out"}


def test_batch_submits_a_file(ingest: FakeBroker, tmp_path: Path) -> None:
    path = tmp_path / "job.sh"
    path.write_text(SCRIPT)
    flux_mpi.batch(path)
    assert submitted(ingest).name == "job.sh"
    assert submitted(ingest).system["files"]["script"]["data"] == SCRIPT
    path.write_bytes(b"#!" + b"x" * (9 << 20))
    with pytest.raises(ScriptError, match="is too large"):
        flux_mpi.batch(path)
    with pytest.raises(FileNotFoundError):
        flux_mpi.batch(tmp_path / "none.sh")


def test_batch_submits_a_command_or_nothing(ingest: FakeBroker) -> None:
    flux_mpi.batch(["./x", "1"], ["2"], name="given")
    assert submitted(ingest).command == ["flux-mpi", "broker", "./x", "1", "2"]
    assert submitted(ingest).name == "given"
    flux_mpi.batch(None)
    assert submitted(ingest).command == ["flux-mpi", "broker"]


# -- waiting until it is ready ---------------------------------------------------------------------


def event(name: str, **context: Any) -> dict[str, Any]:
    return {"timestamp": 1.0, "name": name, "context": context}


class Log:
    """An event log that goes on when the test says so."""

    def __init__(self, broker: FakeBroker) -> None:
        self.request: Request | None = None
        self._broker = broker
        broker.handlers["job-info.eventlog-watch"] = self._watch

    def _watch(self, request: Request) -> None:
        self.request = request
        self.say(event("submit"))

    def say(self, *events: dict[str, Any]) -> None:
        self._broker.wait_for(lambda: self.request is not None)
        assert self.request is not None
        self.request.respond({"events": list(events)})


def test_ready_when_the_memo_says_so(broker: FakeBroker) -> None:
    log = Log(broker)
    seen: list[str] = []

    def goes_on() -> None:
        log.say(event("alloc"), event("memo", other=1))
        log.say(event("start"), event("memo", uri="local:///x"))

    threading.Thread(target=goes_on).start()
    with flux_mpi.Handle() as handle:
        found = client.wait_ready(handle, JOB, 30.0, lambda event: seen.append(event["name"]))
    assert found == "local:///x"
    assert seen == ["submit", "alloc", "memo", "start", "memo"]


@pytest.mark.parametrize(
    "events",
    [
        [event("exception", type="alloc", severity=0, note="unsatisfiable"), event("clean")],
        [event("start"), event("finish", status=0)],
    ],
)
def test_a_job_that_ends_first(broker: FakeBroker, events: list[dict[str, Any]]) -> None:
    broker.handlers["job-info.eventlog-watch"] = streaming({"events": events})
    with pytest.raises(FluxError, match="ƒ2UzHM: ended before its instance was ready") as caught:
        flux_mpi.child_uri(JOB)
    assert caught.value.errno == errno.ECHILD
    assert ("unsatisfiable" in str(caught.value)) == (events[0]["name"] == "exception")


def test_a_log_that_just_ends(broker: FakeBroker) -> None:
    broker.handlers["job-info.eventlog-watch"] = streaming({"events": [event("submit")]})
    with pytest.raises(FluxError, match="ended before its instance was ready"):
        flux_mpi.child_uri(JOB)


def test_waiting_is_bounded(broker: FakeBroker) -> None:
    log = Log(broker)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"not ready after 0\.2 s"):
        flux_mpi.child_uri(JOB, 0.2)
    assert time.monotonic() - began < 10
    assert log.request is not None


def test_an_unknown_job(broker: FakeBroker) -> None:
    broker.handlers["job-info.eventlog-watch"] = lambda r: r.error(errno.ENOENT, "unknown job")
    with pytest.raises(FluxError, match="unknown job"):
        flux_mpi.child_uri(JOB)
