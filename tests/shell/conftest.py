"""A real supervisor around a scripted broker, and ways to look at what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

SUPERVISOR = """
import os, sys
from flux_mpi.shell.supervisor import supervise
if len(sys.argv) > 2:
    # We lead a new session: the first terminal opened becomes its controlling one.
    os.dup2(os.open(sys.argv[2], os.O_RDWR), 0)
sys.exit(supervise([sys.executable, sys.argv[1]], os.environ))
"""

BROKER = '''
import json, os, select, signal, socket, sys, time
from flux_mpi.shell import wire

BOUND = 20.0

class Broker:
    """Speaks with the supervisor; remembers every report."""
    def __init__(self):
        self.sock = socket.socket(fileno=int(os.environ[wire.SUPERVISOR_FD_VAR]))
        self.sock.setblocking(True)
        self.sock.settimeout(BOUND)
        self.unpacker = wire.Unpacker()
        self.log = []
        self.fresh = 0
        self.credit = True

    def send(self, *entries):
        plain = [[int(x) if isinstance(x, int) else x for x in entry] for entry in entries]
        self.sock.sendall(wire.pack(plain))

    def spawn(self, tid, *argv, delta=None, cwd=b"", cpus=None, stdin="null", out="pipe",
              err="pipe", limits=None, env=None):
        entry = ["spawn", tid, [w.encode() for w in argv], 1, delta or {}, cwd, cpus, stdin, out,
                 err]
        if limits:
            entry.append(limits)
        base = {k.encode(): v.encode() for k, v in os.environ.items()}
        self.send(["env", 1, base if env is None else env], entry)

    def read(self):
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError("the supervisor is gone")
        for entry in self.unpacker.feed(data):
            self.log.append(entry)
            if self.credit and entry[0] == "output":
                self.send(["credit", entry[1], len(entry[3])])

    def wait(self, *names, tid=None):
        """The first report of one of these names (about this task), now or when it comes."""
        while True:
            for entry in self.log:
                if entry[0] in names and (tid is None or entry[1] == tid):
                    return entry
            self.read()

    def output(self, tid, stream=1):
        return b"".join(e[3] for e in self.log if e[0] == "output" and e[1:3] == [tid, stream])

    def ended(self, tid):
        entry = self.wait("exited", "failed", tid=tid)
        return entry

def say(**what):
    print(json.dumps(what), flush=True)

broker = Broker()
'''


class Running:
    """A supervisor under way. ``said`` reads the next thing its broker says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    def said(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            stderr = self.process.stderr.read() if self.process.stderr else ""
            raise AssertionError(f"the broker said nothing more; stderr: {stderr}")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> int:
        """Wait for the supervisor; returns its exit code."""
        return self.process.wait(timeout=40)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a supervisor whose broker runs this script (with ``broker`` and ``say`` at hand)."""
    started: list[Running] = []

    def start(script: str, *, pass_fds: tuple[int, ...] = (), tty: str = "", **env: str) -> Running:
        path = tmp_path / f"broker{len(started)}.py"
        path.write_text(BROKER + textwrap.dedent(script))
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "FLUX_MPI_TEST": str(tmp_path), **env}
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(path), *([tty] if tty else [])],
            start_new_session=bool(tty),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )
        running = Running(process)
        started.append(running)
        return running

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait(timeout=20)
        for pipe in (running.process.stdout, running.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def survivors(tmp_path: Path) -> Callable[[], list[str]]:
    """Command lines of processes that descend from this test's supervisors (zombies aside)."""

    def survivors() -> list[str]:
        mark = f"FLUX_MPI_TEST={tmp_path}".encode()
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
                command = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if mark in environ.split(b"\0"):
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found

    return survivors


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Wait, within a bound, until something holds; returns whether it does."""

    def eventually(holds: Callable[[], bool], bound_s: float = 15.0) -> bool:
        end = time.monotonic() + bound_s
        while not holds():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    return eventually
