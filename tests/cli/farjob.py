"""A job on a far terminal with a fake broker, and its client on a near one, for tests."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.fakebroker import FakeBroker, Request
from tests.shell.farterminal import LIMIT_S, Far, until

JOB = 1 << 24
JOB_TEXT = "ƒ2UzHM"
PROGRAM = f"{sys.executable} -m flux_mpi"
CLIENT = f"{PROGRAM} job attach {JOB_TEXT}"


class Job:
    """A job on a far terminal, as a broker shows it to who submits it and attaches to it."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.program: Far | None = None
        self.stdin: list[bytes] = []
        self.cancelled = threading.Event()
        self.spec: dict[str, Any] = {}
        self.starts = True
        """Whether what is submitted starts at once, as far as it is a ``flux-mpi pty``."""
        self._logs: list[Request] = []
        broker.handlers.update(
            {
                "job-ingest.submit": self._submit,
                "job-info.lookup": self._lookup,
                "job-info.eventlog-watch": self._watch,
                "exec.output": self._output,
                "exec.stdin": self._stdin,
                "exec.ack": lambda request: None,
                "job-manager.raise": self._raise,
                "job-manager.kill": self._kill,
            }
        )

    def start(self, *words: str) -> None:
        """Start a program on a far terminal."""
        self.program = Far(*words)
        for log in self._logs:
            self._started(log)

    def close(self) -> None:
        if self.program is not None:
            self.program.close()

    def start_submitted(self) -> None:
        """Start what was submitted, as its instance would."""
        words = self.spec["tasks"][0]["command"]
        assert words[:4] == ["flux-mpi", "broker", "flux-mpi", "pty"]
        self.start(*words[4:])

    def _submit(self, request: Request) -> None:
        (entry,) = request.payload["entries"]
        self.spec = entry["jobspec"]
        if self.starts:
            self.start_submitted()
        request.respond({"arrays": [[JOB, 1]]})

    def _lookup(self, request: Request) -> None:
        if request.payload["keys"] == ["R"]:
            request.respond({"R": {"execution": {"R_lite": [{"rank": "0"}]}}})
            return
        options = {"pty": {"interactive": 1}, "input": {"stdin": {"type": "service"}}}
        system = {"shell": {"options": options}}
        request.respond({"jobspec": {"attributes": {"system": system}}})

    def _watch(self, request: Request) -> None:
        events = [{"timestamp": 1.0, "name": "submit"}]
        request.respond({"events": events})
        self._logs.append(request)
        if self.program is not None:
            self._started(request)

    def _started(self, log: Request) -> None:
        events = [{"timestamp": 1.5 + n, "name": name} for n, name in enumerate(("alloc", "start"))]
        log.respond({"events": events})

    def _output(self, request: Request) -> None:
        threading.Thread(target=self._pump, args=(request,), daemon=True).start()

    def _pump(self, request: Request) -> None:
        assert self.program is not None
        process = self.program.process
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 65536):
            request.respond({"entries": [[2.0, 1, 0, data]]})
        code = process.wait(LIMIT_S)
        status = -code if code < 0 else code << 8
        for log in self._logs:
            event = {"timestamp": 3.0, "name": "finish", "context": {"status": status}}
            log.respond({"events": [event]})
        request.end()

    def _stdin(self, request: Request) -> None:
        assert self.program is not None
        data = request.payload["data"]
        self.stdin.append(data)
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.program.type(data)
            if request.payload["eof"]:
                self.program.end()
        request.respond({})

    def _raise(self, request: Request) -> None:
        self.cancelled.set()
        request.respond({"errors": {}})

    def _kill(self, request: Request) -> None:
        assert self.program is not None
        self.program.process.send_signal(request.payload["signum"])
        request.respond({})


@pytest.fixture
def job(broker: FakeBroker) -> Iterator[Job]:
    found = Job(broker)
    yield found
    found.close()


def watched(client: str) -> str:
    """Runs ``client``; tells the terminal's settings before and after, its pid and its status."""
    return f"""
    trap : INT
    echo "<$(stty -g)>"
    sh -c 'echo $$ > client; exec {client}'
    echo "status=$?" "<$(stty -g)>"
    """


SCRIPT = watched(CLIENT)


class Near:
    """The client on a terminal of its own."""

    def __init__(self, far: Callable[..., Far], folder: Path, script: str = SCRIPT) -> None:
        self.screen = far("--size=100x30", "sh", "-c", f"cd {folder} || exit; {script}")
        self.folder = folder
        self.settings = self._settings()

    def _settings(self) -> bytes:
        self.screen.see(b"<")
        return self.screen.see(b">")

    @property
    def pid(self) -> int:
        path = self.folder / "client"
        assert until(lambda: path.exists() and path.read_text().endswith("\n"))
        return int(path.read_text())

    def type(self, data: bytes) -> None:
        self.screen.type(data)

    def see(self, wanted: bytes) -> bytes:
        return self.screen.see(wanted)

    def ended(self) -> int:
        """The client's exit status; its terminal must be as it was."""
        self.screen.see(b"status=")
        status = int(self.screen.see(b" "))
        assert self._settings() == self.settings
        return status


@pytest.fixture
def attach(far: Callable[..., Far], tmp_path: Path) -> Callable[..., Near]:
    """``attach(script)``: a near terminal, with the client on it; needs the fixture ``far``."""
    return lambda *words: Near(far, tmp_path, *words)
