"""``flux-mpi pty`` between pipes, for tests: what is typed goes in, what is shown comes out."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LIMIT_S = 30.0


class Far:
    """``flux-mpi pty`` with pipes for its input and output."""

    def __init__(self, *words: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flux_mpi", "pty", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PS1": "$ ", **(env or {})},
            start_new_session=True,
        )
        self.shown = b""

    def type(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def see(self, wanted: bytes) -> bytes:
        """Reads until ``wanted`` has been shown, forgets all up to there; what came before it."""
        deadline = time.monotonic() + LIMIT_S
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while wanted not in self.shown:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} was not shown, but {self.shown!r}"
            data = os.read(fd, 65536)
            assert data, f"it ended; {wanted!r} was not shown, but {self.shown!r}"
            self.shown += data
        before, _, self.shown = self.shown.partition(wanted)
        return before

    def rest(self) -> tuple[bytes, int]:
        """What else it shows until it ends, and its return code."""
        assert self.process.stdout is not None
        more = b""
        fd = self.process.stdout.fileno()
        deadline = time.monotonic() + LIMIT_S
        while True:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"it has not ended; shown: {self.shown + more!r}"
            data = os.read(fd, 65536)
            if not data:
                return self.shown + more, self.process.wait(LIMIT_S)
            more += data

    def close(self) -> None:
        """Nothing of it may stay: the kernel hangs up its session when it is killed."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue

    @property
    def stderr(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


def gone(pid: int) -> bool:
    """Whether a process has ended (zombies of somebody else's count as such)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def session_of(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(pid)) == leader and not gone(int(pid)):
                found.append(int(pid))
        except ProcessLookupError:
            continue
    return found


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def far() -> Iterator[Callable[..., Far]]:
    opened: list[Far] = []

    def start(*words: str, **how: dict[str, str]) -> Far:
        opened.append(Far(*words, **how))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
