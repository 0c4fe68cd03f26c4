"""The initial program of an instance: who runs it, and how it is ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from flux_mpi.instance.lifecycle import exit_status
from flux_mpi.reactor import Reactor

if TYPE_CHECKING:
    from flux_mpi.shell.link import Link, Process

Ended = Callable[[int], object]
"""Called with the exit status, as a shell reports it."""


class Program(Protocol):
    """What an instance runs first, and whose end is its own."""

    def start(self, ended: Ended) -> None:
        """Run it; ``ended(status)`` once it is over."""

    def stop(self, now: bool) -> None:
        """End it: politely, or at once."""


class NoProgram:
    """An instance that is driven from outside, and stays until it is told to end."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._ended: Ended | None = None

    def start(self, ended: Ended) -> None:
        self._ended = ended

    def stop(self, now: bool) -> None:
        self.finish(0)

    def finish(self, status: int) -> None:
        """There is nothing more to do. Idempotent."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self._reactor.call_soon(lambda: ended(status))


class InitialProgram:
    """Runs ``command`` on the terminal, or whatever else the launcher gave us."""

    def __init__(
        self,
        link: Link,
        reactor: Reactor,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        uri: str,
        cwd: str,
        grace_s: float,
        say: Callable[[str], object],
    ) -> None:
        self._link = link
        self._reactor = reactor
        self._command = list(command)
        self._environ = environ
        self._uri = uri
        self._cwd = cwd
        self._grace_s = grace_s
        self._say = say
        self._process: Process | None = None

    def start(self, ended: Ended) -> None:
        env = {**self._environ, "FLUX_URI": self._uri}

        def failed(errnum: int, what: str) -> None:
            self._say(f"{self._command[0]}: {what or os.strerror(errnum)}")
            ended(127 if errnum == 2 else 126)

        self._process = self._link.run(
            self._command,
            env=env,
            cwd=self._cwd,
            stdin="inherit",
            stdout="inherit",
            stderr="inherit",
            on_exit=lambda status: ended(exit_status(status)),
            on_fail=failed,
        )

    def stop(self, now: bool) -> None:
        program = self._process
        if program is None:
            return
        if now:
            program.kill(signal.SIGKILL)
            return
        # HUP besides TERM: an interactive shell ignores the latter.
        program.kill(signal.SIGTERM)
        program.kill(signal.SIGHUP)
        self._reactor.call_later(self._grace_s, lambda: program.kill(signal.SIGKILL))
