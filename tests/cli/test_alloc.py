"""``alloc``: what it submits, and the terminal it gives to what runs far away.

A fake broker runs the program as a job's node would, under a real ``flux-mpi pty``.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from flux_mpi.cli.main import main
from tests.cli.farjob import JOB, JOB_TEXT, PROGRAM, Job, Near, watched
from tests.cli.farjob import attach as attach
from tests.cli.farjob import job as job
from tests.client.fakebroker import FakeBroker, Request, streaming
from tests.shell.farterminal import LIMIT_S, Far, until
from tests.shell.farterminal import far as far

PLAIN = ("--env=-*", "--rlimit=-*")


class Ran:
    """A finished command."""

    def __init__(self, *words: str, stdin: bytes | None = None, **env: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "flux_mpi", "alloc", *words],
            # Without input: /dev/null, which no task need be fed from.
            stdin=subprocess.DEVNULL if stdin is None else None,
            input=stdin,
            capture_output=True,
            timeout=LIMIT_S,
            env={**os.environ, **env},
        )
        self.status = done.returncode
        self.out, self.err = done.stdout.decode(), done.stderr.decode()

    @property
    def spec(self) -> dict[str, Any]:
        assert (self.status, self.err) == (0, "")
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def command(self) -> list[str]:
        found: list[str] = self.spec["tasks"][0]["command"]
        return found

    @property
    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = self.spec["attributes"]["system"]["shell"]["options"]
        return found


def dry(*words: str, **how: Any) -> Ran:
    return Ran("--dry-run", *PLAIN, *words, **how)


# -- jobspecs --------------------------------------------------------------------------------------


def test_a_command() -> None:
    ran = dry("-N2", "-n4", "-t5m", "--conf=a.b=1", "./x", "-n", "1")
    assert ran.command == [
        "flux-mpi", "broker", "-c{{tmpdir}}/conf.json", "./x", "-n", "1",
    ]  # fmt: skip
    assert ran.spec["resources"][0]["count"] == 2
    system = ran.spec["attributes"]["system"]
    assert system["duration"] == 300.0
    assert system["files"] == {"conf.json": {"mode": 33152, "data": {"a": {"b": 1}}}}
    # Nothing to read, no name, and output that comes here.
    assert ran.options == {"per-resource": {"type": "node", "count": 1}}
    assert "job" not in system


def test_a_command_with_input() -> None:
    assert dry("cat", stdin=b"x").options["input"] == {"stdin": {"type": "service"}}


def test_in_the_background() -> None:
    assert dry("--bg").command == ["flux-mpi", "broker"]
    ran = dry("--bg", "./x", stdin=b"x")
    assert ran.command == ["flux-mpi", "broker", "./x"]
    assert "input" not in ran.options


def test_a_shell(far: Callable[..., Far]) -> None:
    # On a terminal, with the size that it has.
    one = far(
        "--size=91x17", "sh", "-c", f"SHELL=/bin/xsh {PROGRAM} alloc --dry-run {' '.join(PLAIN)}"
    )
    text, status = one.rest()
    spec = json.loads(text)
    assert status == 0
    assert spec["tasks"][0]["command"] == [
        "flux-mpi", "broker", "flux-mpi", "pty", "--size=91x17", "--hangup", "--",
        "/bin/xsh",
    ]  # fmt: skip
    options = spec["attributes"]["system"]["shell"]["options"]
    assert options["pty"] == {"interactive": 1}
    assert options["input"] == {"stdin": {"type": "service"}}


@pytest.mark.parametrize(
    ("words", "program"),
    [
        ("./x 1", ["flux-mpi", "pty", "--size=80x24", "--", "./x", "1"]),
        (
            "'echo a; echo b'",
            ["flux-mpi", "pty", "--size=80x24", "--", "/bin/xsh", "-c", "echo a; echo b"],
        ),
    ],
)
def test_a_command_on_a_terminal(far: Callable[..., Far], words: str, program: list[str]) -> None:
    one = far(
        "--size=80x24", "sh", "-c",
        f"SHELL=/bin/xsh {PROGRAM} alloc --dry-run {' '.join(PLAIN)} {words}",
    )  # fmt: skip
    assert json.loads(one.rest()[0])["tasks"][0]["command"][2:] == program


def test_a_command_whose_output_goes_elsewhere(far: Callable[..., Far], tmp_path: Any) -> None:
    one = far("sh", "-c", f"{PROGRAM} alloc --dry-run {' '.join(PLAIN)} ./x > {tmp_path}/out")
    assert one.rest()[1] == 0
    spec = json.loads((tmp_path / "out").read_text())
    assert spec["tasks"][0]["command"][2:] == ["./x"]
    assert "pty" not in spec["attributes"]["system"]["shell"]["options"]


def test_a_shell_needs_a_terminal() -> None:
    ran = Ran("-n2")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("flux-alloc: ERROR: stdin is not a tty - can't run interactive shell")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-n0", "x"], "--nslots: 0 is not allowed: must be at least 1"),
        (["-N0", "--bg"], "--nodes: 0 is not allowed"),
        (["-N2", "-n1", "x"], "--nodes: 2 is more than the number of slots, 1"),
        (["--conf=nosuch", "x"], "--conf: 'nosuch' is neither"),
        (["--urgency=x", "x"], "--urgency: invalid value 'x'"),
    ],
)
def test_bad_options(words: list[str], text: str) -> None:
    ran = Ran(*words)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"flux-alloc: ERROR: {text}")


@pytest.mark.parametrize("word", ["--output=x", "--error=x", "--input=x", "--label-io", "--wrap"])
def test_options_that_it_has_not(word: str) -> None:
    ran = Ran(word, "x")
    assert (ran.status, "unrecognized option" in ran.err) == (2, True)


# -- on a terminal ---------------------------------------------------------------------------------


@pytest.fixture
def alloc(attach: Callable[..., Near]) -> Callable[[str], Near]:
    """``alloc WORDS`` on a near terminal, which must be as it was in the end."""
    return lambda words: attach(watched(f"env SHELL=/bin/bash {PROGRAM} alloc {words}"))


def test_working_in_a_shell(job: Job, alloc: Callable[[str], Near]) -> None:
    one = alloc("-v -n2")
    one.see(f"jobid: {JOB_TEXT}\r\n".encode())
    one.type(b"stty size; tty && echo in-$((40+2))\r")
    one.see(b"30 100\r\n/dev/")
    one.see(b"in-42\r\n")
    one.type(b"exit 7\r")
    one.see(b"flux-job: task(s) exited with exit code 7\r\n")
    assert one.ended() == 7
    assert {
        request["ranks"] for topic, request, _ in job.broker.requests if topic == "exec.stdin"
    } == {"0"}


def test_detaching_leaves_the_shell_alone(job: Job, alloc: Callable[[str], Near]) -> None:
    one = alloc("-n2")
    one.type(b"echo sta''rted\r")
    one.see(b"started")
    one.type(b"\x1c")
    one.see(b"flux-job: detaching...\r\n")
    assert one.ended() == 0
    assert job.program is not None
    assert job.program.process.poll() is None


def test_interrupts_before_it_runs_cancel_it(job: Job, alloc: Callable[[str], Near]) -> None:
    job.starts = False
    one = alloc("-n2")
    assert until(lambda: "job-info.eventlog-watch" in job.broker.topics())
    one.type(b"\x03")
    one.see(b"flux-job: one more ctrl-C within 2s to cancel or ctrl-Z to detach\r\n")
    one.type(b"\x03")
    one.see(b"flux-job: canceling job...\r\n")
    assert job.cancelled.wait(LIMIT_S)
    assert job.broker.payload("job-manager.raise")["type"] == "cancel"
    job.start("sh", "-c", "kill -TERM $$")
    assert one.ended() == 143


def test_a_job_that_never_runs(broker: FakeBroker, alloc: Callable[[str], Near]) -> None:
    exception = {"type": "alloc", "severity": 0, "note": "unsatisfiable request"}
    broker.handlers["job-ingest.submit"] = {"arrays": [[JOB, 1]]}
    broker.handlers["job-info.eventlog-watch"] = streaming(
        {"events": [{"timestamp": 1.0, "name": "submit"}]},
        {"events": [{"timestamp": 1.5, "name": "exception", "context": exception}]},
        {"events": [{"timestamp": 1.5, "name": "clean"}]},
    )
    one = alloc("-n200")
    one.see(f"0.500s: job.exception {JOB_TEXT} type=alloc severity=0 unsatisfiable".encode())
    assert one.ended() == 1


# -- in the background -----------------------------------------------------------------------------


def event(at: float, name: str, **context: Any) -> dict[str, Any]:
    return {"timestamp": at, "name": name, "context": context}


@pytest.fixture
def background(broker: FakeBroker) -> FakeBroker:
    broker.handlers["job-ingest.submit"] = {"arrays": [[JOB, 1]]}
    broker.handlers["job-info.lookup"] = {"R": {"execution": {"R_lite": []}}}
    return broker


def test_the_id_once_it_is_ready(background: FakeBroker) -> None:
    def watch(request: Request) -> None:
        request.respond({"events": [event(1.0, "submit"), event(1.5, "alloc")]})
        request.respond({"events": [event(1.75, "memo", uri="ssh://here/x")]})

    background.handlers["job-info.eventlog-watch"] = watch
    ran = Ran("--bg", "-v", "-n2")
    assert (ran.status, ran.out) == (0, f"{JOB_TEXT}\n")
    lines = ran.err.splitlines()
    assert lines[:3] == [
        f"{JOB_TEXT}:  0.000s: waiting for resources",
        f"{JOB_TEXT}:  0.500s: resources allocated",
        f"{JOB_TEXT}:  0.750s: waiting for instance",
    ]
    assert lines[3].endswith("s: ready")
    (entry,) = background.payload("job-ingest.submit")["entries"]
    assert entry["jobspec"]["tasks"][0]["command"] == ["flux-mpi", "broker"]
    assert Ran("--bg", "-n2").err == ""


def test_an_instance_that_ends_before_it_is_ready(background: FakeBroker) -> None:
    background.handlers["job-info.lookup"] = {"R": {"execution": {"R_lite": [{"rank": "0"}]}}}
    background.handlers["job-info.eventlog-watch"] = streaming(
        {
            "events": [
                event(1.0, "submit"),
                event(1.5, "alloc"),
                event(2.0, "start"),
                event(2.5, "finish", status=256),
                event(2.5, "clean"),
            ]
        }
    )
    background.handlers["exec.output"] = streaming(
        {"entries": [[2.2, 2, 0, b"no such configuration\n"], [2.3, 1, 0, b"bye\n"]]}
    )
    ran = Ran("--bg", "-n2")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        "no such configuration",
        "bye",
        "flux-job: task(s) exited with exit code 1",
        f"flux-alloc: ERROR: {JOB_TEXT}: ended before its instance was ready",
    ]


def test_an_interrupt_cancels_it(background: FakeBroker) -> None:
    background.handlers["job-info.eventlog-watch"] = lambda request: request.respond(
        {"events": [event(1.0, "submit")]}
    )
    background.handlers["job-manager.raise"] = {"errors": {}}
    process = subprocess.Popen(
        [sys.executable, "-m", "flux_mpi", "alloc", "--bg"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        background.wait_for(lambda: "job-info.eventlog-watch" in background.topics(), LIMIT_S)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (1, b"")
    assert err.decode() == f"\r{JOB_TEXT}: Interrupt: canceling job\n"
    raised = background.payload("job-manager.raise")
    assert (raised["ids"], raised["type"], raised["severity"]) == ([[JOB, 1]], "cancel", 0)


def test_an_instance_that_refuses(broker: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.handlers["job-ingest.submit"] = lambda r: r.error(errno.EINVAL, "unsatisfiable request")
    assert main(["alloc", "--bg"]) == 1
    assert capsys.readouterr() == ("", "flux-alloc: ERROR: unsatisfiable request\n")
