"""The broker's end of the line to its supervisor.

Commands of one turn leave as one frame; reports go to whoever started the task. When the line
breaks the supervisor has been killed: its tasks would live on without anybody, so they are ended
here, and the broker is told.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flux_mpi.reactor import Reactor
from flux_mpi.shell.env import encode, encode_all
from flux_mpi.shell.wire import RECEIVE, SUPERVISOR_FD_VAR, Unpacker, pack

if TYPE_CHECKING:
    from flux_mpi.shell.branch import Branch

Report = list[Any]


class Process:
    """A plain process, started by ``Link.run``: an initial program, a remote command.

    ``argv`` and ``pid`` (0 until it has started) may be read; callbacks are those given to ``run``.
    """

    __slots__ = (
        "tid",
        "argv",
        "pid",
        "on_start",
        "on_output",
        "on_exit",
        "on_fail",
        "on_fed",
        "_link",
        "_owed",
    )

    def __init__(self, link: Link, tid: int, argv: list[str]) -> None:
        self.tid = tid
        self.argv = argv
        self.pid = 0
        self.on_start: Callable[[int], object] | None = None
        self.on_output: Callable[[int, bytes], object] | None = None
        self.on_exit: Callable[[int], object] | None = None
        self.on_fail: Callable[[int, str], object] | None = None
        self.on_fed: Callable[[int], object] | None = None
        self._link = link
        self._owed = 0

    def kill(self, signum: int) -> None:
        """Signal its process group."""
        self._link.command(["kill", self.tid, int(signum)])

    def write(self, data: bytes, eof: bool = False) -> None:
        """Feed its standard input, if that is a pipe; ``on_fed(count)`` tells what it has taken."""
        self._link.command(["stdin", self.tid, data, eof])

    def report(self, entry: Report) -> None:
        """Take a report about it."""
        kind = entry[0]
        if kind == "started":
            self.pid = entry[2]
            if self.on_start is not None:
                self.on_start(self.pid)
        elif kind == "output":
            if self.on_output is not None:
                self.on_output(entry[2], entry[3])
            self._link.command(["credit", self.tid, len(entry[3])])
        elif kind == "fed":
            if self.on_fed is not None:
                self.on_fed(entry[2])
        elif kind == "exited":
            if self.on_exit is not None:
                self.on_exit(entry[2])
        elif kind == "failed" and self.on_fail is not None:
            self.on_fail(entry[2], entry[3])


class Receiver(Protocol):
    """Who takes the reports about a task."""

    def report(self, entry: Report) -> None:
        """Take one."""


class Nobody:
    """Takes what is said of tasks whose instance is gone."""

    def report(self, entry: Report) -> None:
        """Nobody is left to care."""


class Link:
    """Speaks with the supervisor over the inherited socket ``fd``.

    ``take`` gets the reports about tasks that are nobody's ``Process``: the agent's.
    """

    def __init__(self, reactor: Reactor, fd: int) -> None:
        self._reactor = reactor
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._unpacker = Unpacker()
        self._commands: list[list[Any]] = []
        self._outgoing = bytearray()
        self._writing = False
        self._numbers = itertools.count(1)
        self._processes: dict[int, Receiver] = {}
        self.branches: dict[Branch, None] = {}
        """Shares of this line that other instances in this process have."""
        self._pids: dict[int, int] = {}
        self.take: Callable[[Report], object] | None = None
        self.after_reports: Callable[[], object] | None = None
        """Called when all reports that had arrived have been taken: the time to act on them."""
        self.on_signal: Callable[[int], object] | None = None
        """Called with the number of a signal that the launcher or the user sent."""
        self.on_lost: Callable[[], object] | None = None
        """Called once when the supervisor is gone, after its tasks were killed."""
        self.sweep: Callable[[], object] | None = None
        """Called when the supervisor is gone: ends what is left of tasks outside their groups."""
        self.lost = False
        reactor.add_reader(self._socket.fileno(), self._readable)
        reactor.at_turn_end(self.flush)

    @classmethod
    def from_environment(cls, reactor: Reactor, environ: Mapping[str, str]) -> Link | None:
        """The line that ``environ`` tells of, or None: started without a supervisor."""
        number = environ.get(SUPERVISOR_FD_VAR, "")
        if not number.isdigit():
            return None
        fd = int(number)
        os.set_inheritable(fd, False)
        return cls(reactor, fd)

    # -- out ------------------------------------------------------------------------------------

    def next_tid(self) -> int:
        """A task id that nobody has."""
        return next(self._numbers)

    def adopt(self, tid: int, receiver: Receiver) -> None:
        """Reports about this task go to ``receiver``."""
        self._processes[tid] = receiver

    def abandon(self, tid: int) -> None:
        """Nobody wants to hear of this task any more."""
        self._processes[tid] = Nobody()

    def command(self, entry: list[Any]) -> None:
        """Have a command carried out; it leaves at the end of this turn."""
        if not self._commands:
            self._reactor.call_soon(self.flush)  # in case no turn is under way
        self._commands.append(entry)

    def extend(self, entries: list[list[Any]]) -> None:
        """Have several commands carried out."""
        self._commands += entries

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str = "",
        stdin: str = "null",
        stdout: str = "pipe",
        stderr: str = "pipe",
        on_start: Callable[[int], object] | None = None,
        on_output: Callable[[int, bytes], object] | None = None,
        on_exit: Callable[[int], object] | None = None,
        on_fail: Callable[[int, str], object] | None = None,
        on_fed: Callable[[int], object] | None = None,
    ) -> Process:
        """Start ``argv`` outside of any job, in its own process group.

        A stdio is ``null``, ``pipe`` or ``inherit`` (the launcher's own, the terminal included).
        ``on_exit(wait_status)`` comes after all output, ``on_fail(errno, what)`` instead of it when
        it cannot be started.
        """
        tid = self.next_tid()
        process = Process(self, tid, list(argv))
        process.on_start = on_start
        process.on_output = on_output
        process.on_exit = on_exit
        process.on_fail = on_fail
        process.on_fed = on_fed
        self._processes[tid] = process
        words = [encode(word) for word in argv]
        environ, where = encode_all(env), encode(cwd)
        self.command(["spawn", tid, words, None, environ, where, None, stdin, stdout, stderr])
        return process

    def set_run_directory(self, path: str) -> None:
        """Have ``path`` removed by the supervisor once this broker has ended."""
        self.command(["rundir", path])

    def finalize_for_us(self) -> None:
        """Have the supervisor answer the launcher: we shall leave without ``MPI_Finalize``."""
        self.command(["stand-in"])

    def shutdown(self, grace_s: float) -> None:
        """End all tasks: TERM now, KILL after ``grace_s``; no more are started."""
        self.command(["shutdown", grace_s])

    def flush(self) -> None:
        """Send what has collected. Called at the end of each turn."""
        if self._commands:
            self._outgoing += pack(self._commands)
            self._commands.clear()
        elif not self._outgoing:
            return
        if self.lost:
            self._outgoing.clear()
            return
        try:
            while self._outgoing:
                sent = self._socket.send(self._outgoing)
                del self._outgoing[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._break()
            return
        if bool(self._outgoing) != self._writing:
            self._writing = bool(self._outgoing)
            if self._writing:
                self._reactor.add_writer(self._socket.fileno(), self.flush)
            else:
                self._reactor.remove_writer(self._socket.fileno())

    # -- in -------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._break()
            return
        processes, pids, take = self._processes, self._pids, self.take
        for entry in self._unpacker.feed(data):
            kind = entry[0]
            if kind == "signal":
                if self.on_signal is not None:
                    self.on_signal(entry[1])
                continue
            tid = entry[1]
            if kind == "started":
                pids[tid] = entry[2]
            elif kind == "exited" or kind == "failed":
                pids.pop(tid, None)
            process = processes.get(tid)
            if process is not None:
                if kind == "exited" or kind == "failed" or kind == "returned":
                    del processes[tid]
                process.report(entry)
            elif take is not None:
                take(entry)
        if self.after_reports is not None:
            self.after_reports()

    def _break(self) -> None:
        """The supervisor is gone, and nobody else will end its tasks."""
        if self.lost:
            return
        self.lost = True
        self._reactor.remove(self._socket.fileno())
        self._socket.close()
        for pid in self._pids.values():
            try:
                os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self._pids.clear()
        for branch in tuple(self.branches):
            branch.broken()
        if self.sweep is not None:
            self.sweep()
        if self.on_lost is not None:
            self.on_lost()

    def close(self) -> None:
        """Give the line back; the supervisor then ends all tasks."""
        if not self.lost:
            self.lost = True
            self._reactor.remove(self._socket.fileno())
            self._socket.close()
