"""Agent, link and services on a real broker, with a real supervisor and real tasks."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
Survivors = Callable[[], list[str]]

SETUP = """
import errno, tempfile
from flux_mpi.broker.broker import Broker as RealBroker
from flux_mpi.formats import fluid
from flux_mpi.overlay.loopback import single
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor.epoll import EpollReactor
from flux_mpi.shell.link import Link
from flux_mpi.shell.service import ExecService

broker.sock.detach()
reactor = EpollReactor()
link = Link.from_environment(reactor, os.environ)
real = RealBroker(reactor, single(reactor, "vm"), Tree(["vm"]), uid=os.getuid())
rundir = os.environ["RUNDIR"]
link.set_run_directory(rundir)
service = ExecService(real, link, hostname="vm", rundir=rundir, uri="local:///x")
events, signals = [], []
real.register("job-exec", {"report": lambda r: events.extend(r.payload["events"])})
link.on_signal = signals.append
real.open()

def until(holds):
    end = time.monotonic() + BOUND
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"events so far: {events}")
        reactor.turn(0.2)

class Call:
    def __init__(self, topic, payload, streaming=False):
        self.got, self.errnum, self.text, self.done = [], 0, "", False
        self.rpc = real.rpc(topic, payload, self.answer, streaming=streaming)
    def answer(self, response):
        if response.errnum:
            self.errnum, self.text = response.errnum, response.text
        else:
            self.got.append(response.payload)
        self.done = True

def job(id, command, ntasks=1, **spec):
    spec = {"command": command, "env": dict(os.environ), "cwd": rundir, "options": {},
            "params": None, "job_name": None, **spec}
    row = [id, id, 0, 0, 0, ntasks, "0", "", 1, ntasks]
    real.send("exec.start", {"specs": {id: spec}, "jobs": [row]})

def ended(id):
    def found():
        return any(e[0] == id and e[1] in ("exit", "error") for e in events)
    until(found)
    return next(e for e in events if e[0] == id and e[1] in ("exit", "error"))

def text(call, stream=1):
    return b"".join(e[3] for got in call.got for e in got["entries"] if e[1] == stream).decode()
"""


@pytest.fixture
def serve(start: Start, tmp_path: Path) -> Start:
    def serve(script: str) -> Any:
        import textwrap

        rundir = tmp_path / "rundir"
        rundir.mkdir()
        return start(SETUP + textwrap.dedent(script), RUNDIR=str(rundir))

    return serve


def test_a_job_runs_and_is_followed(serve: Start) -> None:
    run = serve("""
        job(1, ["sh", "-c", "echo $FLUX_TASK_RANK; read x; echo $x $FLUX_JOB_ID; exit 3"], 2,
            options={"input": {"stdin": {"type": "service"}}})
        follow = Call("exec.output", {"id": 1, "follow": True}, streaming=True)
        until(lambda: sorted(text(follow)) == ["\\n", "\\n", "0", "1"])
        answer = Call("exec.stdin", {"id": 1, "data": b"hello\\n", "eof": True})
        until(lambda: answer.done)
        end = ended(1)
        until(lambda: follow.errnum)
        late = Call("exec.output", {"id": 1, "follow": True}, streaming=True)
        until(lambda: late.errnum)
        say(kinds=[e[1] for e in events], statuses=[x[2] for x in end[4]],
            lines=sorted(text(follow).split("\\n")), again=text(late) == text(follow),
            ends=[follow.errnum, late.errnum], fed=answer.errnum,
            pids=[x[1] for x in end[4]] == events[0][4])
    """)
    said = run.said()
    assert said["kinds"] == ["start", "exit"]
    assert said["statuses"] == [768, 768]
    assert said["lines"] == ["", "0", "1", "hello ƒ2", "hello ƒ2"]
    assert said["again"]
    assert said["pids"]
    assert said["ends"] == [errno.ENODATA, errno.ENODATA]
    assert said["fed"] == 0
    assert run.end() == 0


def test_starts_that_fail_kills_and_unknown_jobs(serve: Start, survivors: Survivors) -> None:
    run = serve("""
        job(1, ["/no/such/cmd"])
        job(2, ["sleep", "1000"], 2)
        job(3, ["true"], cwd="/no/such/dir")
        until(lambda: any(e[:2] == [2, "start"] for e in events))
        kill = Call("exec.kill", {"id": 2, "signum": 15})
        other = Call("exec.kill", {"id": 77, "signum": 15})
        bad = Call("exec.kill", {"id": "x", "signum": 15})
        none = Call("exec.output", {"id": 77, "follow": True}, streaming=True)
        say(one=ended(1)[4:], two=[x[2] for x in ended(2)[4]], three=ended(3)[5])
        say(codes=[kill.errnum, other.errnum, bad.errnum, none.errnum])
    """)
    assert run.said() == {
        "one": [
            errno.ENOENT,
            "task 0 (host vm): start failed: /no/such/cmd: No such file or directory",
        ],
        "two": [signal.SIGTERM, signal.SIGTERM],
        "three": "task 0 (host vm): start failed: working directory /no/such/dir: "
        "No such file or directory",
    }
    assert run.said()["codes"] == [0, errno.ENOENT, errno.EINVAL, errno.ENODATA]
    assert run.end() == 0
    assert survivors() == []


def test_a_flood_waits_for_its_reader_and_arrives_whole(serve: Start) -> None:
    run = serve("""
        job(1, ["head", "-c", "20000000", "/dev/zero"])
        follow = Call("exec.output", {"id": 1, "follow": True, "window": 65536, "key": 5},
                      streaming=True)
        def size():
            return sum(len(e[3]) for got in follow.got for e in got["entries"])
        until(lambda: size() > 0)
        for _ in range(50):
            reactor.turn(0.02)
        held, ended_early = size(), bool(service.agent.running == 0)
        taken = 0
        while not follow.errnum:
            now = size()
            if now > taken:
                real.send("exec.ack", {"key": 5, "bytes": now - taken})
                taken = now
            reactor.turn(0.2)
        say(held=held, early=ended_early, all=size(), end=follow.errnum)
    """)
    said = run.said()
    assert said["held"] < 2_000_000
    assert not said["early"]
    assert said["all"] == 20_000_000
    assert said["end"] == errno.ENODATA
    assert run.end() == 0


def test_remote_commands(serve: Start, survivors: Survivors) -> None:
    run = serve("""
        cat = Call("rexec.exec", {"argv": ["cat"]}, streaming=True)
        until(lambda: cat.got)
        pid = cat.got[0]["pid"]
        listed = Call("rexec.list", {})
        write = Call("rexec.write", {"pid": pid, "data": b"hi", "eof": True})
        until(lambda: cat.errnum)
        failed = Call("rexec.exec", {"argv": ["no-such-cmd"]}, streaming=True)
        env = Call("rexec.exec", {"argv": ["sh", "-c", "echo $FLUX_URI $PMI_RANK$A; pwd"],
                                  "env": {"A": "1", "PMI_RANK": "7"}, "cwd": "/"}, streaming=True)
        until(lambda: failed.errnum and env.errnum)
        gone = Call("rexec.kill", {"pid": pid, "signum": 15})
        bad = Call("rexec.exec", {"argv": []}, streaming=True)
        say(cat=cat.got[1:2] == [{"stream": 1, "data": b"hi"}], status=cat.got[-1],
            end=cat.errnum, procs=[p["pid"] == pid for p in listed.got[0]["procs"]],
            write=write.errnum, failed=[failed.errnum, failed.text],
            env=env.got[1]["data"].decode(), gone=gone.errnum, bad=bad.errnum)
        sleep = Call("rexec.exec", {"argv": ["sleep", "1000"]}, streaming=True)
        until(lambda: sleep.got)
        sleep.rpc.cancel()
        until(lambda: not service._commands)
        say(cancelled=True)
    """)
    said = run.said()
    assert said == {
        "cat": True,
        "status": {"status": 0},
        "end": errno.ENODATA,
        "procs": [True],
        "write": 0,
        "failed": [errno.ENOENT, "no-such-cmd: No such file or directory"],
        "env": "local:///x 1\n/\n",
        "gone": errno.ENOENT,
        "bad": errno.EINVAL,
    }
    assert run.said() == {"cancelled": True}
    assert run.end() == 0
    assert survivors() == []


def test_output_goes_to_files_and_nothing_stays_behind(
    serve: Start, tmp_path: Path, survivors: Survivors
) -> None:
    run = serve(f"""
        where = {str(tmp_path)!r}
        files = {{"output": {{"stdout": {{"type": "file", "path": "out.{{{{taskid}}}}"}}}}}}
        job(1, ["sh", "-c", "echo hi; touch $FLUX_JOB_TMPDIR/left; echo $FLUX_JOB_TMPDIR >&2"],
            2, options=files, cwd=where)
        labelled = {{"output": {{"stdout": {{"path": "all", "label": True}}}}}}
        job(2, ["echo", "hi"], 2, options=labelled, cwd=where)
        ended(1), ended(2)
        tmpdir = open(where + "/out.0").read().split()[1]
        until(lambda: not os.path.exists(tmpdir))
        say(ok=True)
    """)
    assert run.said() == {"ok": True}
    assert run.end() == 0
    first, second = ((tmp_path / f"out.{n}").read_text().splitlines() for n in (0, 1))
    assert first[0] == second[0] == "hi"
    assert first[1] == second[1]  # the tasks of a job share their directory
    assert sorted((tmp_path / "all").read_text().splitlines()) == ["0: hi", "1: hi"]
    assert not (tmp_path / "rundir").exists()
    assert survivors() == []


def test_without_its_supervisor_a_broker_ends_even_daemons(
    serve: Start, survivors: Survivors, eventually: Callable[..., bool]
) -> None:
    run = serve("""
        job(1, ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo up; sleep 1000"])
        follow = Call("exec.output", {"id": 1, "follow": True}, streaming=True)
        until(lambda: follow.got)
        link.on_lost = reactor.stop
        say(up=True)
        reactor.run()
    """)
    run.said()
    run.process.kill()
    run.process.wait(timeout=20)
    assert eventually(lambda: survivors() == []), survivors()


def test_leaf_modules_load_neither_numpy_nor_numba_nor_mpi() -> None:
    import subprocess
    import sys

    code = (
        "import sys, flux_mpi.shell.service; "
        "print([n for n in ('numpy', 'numba', 'mpi4py') if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert found.stdout.strip() == "[]"
