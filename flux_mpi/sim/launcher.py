"""A supervisor without processes: tasks take virtual time and end as their command says.

It understands what tests and studies submit: ``true``, ``false``, ``sleep S`` and
``exit STATUS [S]``; any other command ends well after ``default_s``. Signals end a task at once.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flux_mpi.reactor.base import Reactor, Timer
from flux_mpi.shell.followers import Followers
from flux_mpi.shell.link import Nobody, Receiver

if TYPE_CHECKING:
    from flux_mpi.shell.branch import Branch

Report = list[Any]
Duration = Callable[[list[str]], tuple[float, int]]
"""argv → (seconds, wait status)."""


def behaviour(argv: list[str], default_s: float = 0.001) -> tuple[float, int]:
    """How long a command takes, and its wait status."""
    name = os.path.basename(argv[0]) if argv else ""
    numbers = [float(word) for word in argv[1:] if word.replace(".", "", 1).isdigit()]
    if name == "sleep" and numbers:
        return numbers[0], 0
    if name == "false":
        return default_s, 1 << 8
    if name == "exit" and numbers:
        return numbers[1] if len(numbers) > 1 else default_s, int(numbers[0]) << 8
    return default_s, 0


class SimulatedLink:
    """Stands where a broker's ``shell.link.Link`` stands."""

    def __init__(
        self, reactor: Reactor, duration: Duration = behaviour, spawn_s: float = 0.0
    ) -> None:
        self._reactor = reactor
        self._duration = duration
        self._spawn_s = spawn_s
        self._spawned_at = 0.0
        self._numbers = itertools.count(1)
        self._pids = itertools.count(1000)
        self._running: dict[int, tuple[int, Timer]] = {}
        self._followers = Followers()
        self._reports: list[Report] = []
        self._due = False
        self.take: Callable[[Report], object] | None = None
        self.after_reports: Callable[[], object] | None = None
        self.on_signal: Callable[[int], object] | None = None
        self.on_lost: Callable[[], object] | None = None
        self.spawned = 0
        self.lost = False
        self._receivers: dict[int, Receiver] = {}
        self.branches: dict[Branch, None] = {}
        self._handlers: dict[str, Callable[[list[Any]], None]] = {
            "spawn": self._spawn,
            "kill": self._kill,
            "after": self._after,
            "recall": self._recall,
        }

    def next_tid(self) -> int:
        """A task id that nobody has."""
        return next(self._numbers)

    def adopt(self, tid: int, receiver: Receiver) -> None:
        """As ``Link.adopt``."""
        self._receivers[tid] = receiver

    def abandon(self, tid: int) -> None:
        """As ``Link.abandon``."""
        self._receivers[tid] = Nobody()

    def command(self, entry: list[Any]) -> None:
        """Carry out a command; those about files, environments and credits have no effect here."""
        handler = self._handlers.get(entry[0])
        if handler is not None:
            handler(entry)

    def extend(self, entries: list[list[Any]]) -> None:
        """Carry out several commands."""
        for entry in entries:
            self.command(entry)

    def flush(self) -> None:
        """Nothing waits to be sent."""

    def set_run_directory(self, path: str) -> None:
        """There is none."""

    def shutdown(self, grace_s: float) -> None:
        """End all tasks at once."""
        for tid in self._followers.clear():
            self._report(["returned", tid])
        for tid in list(self._running):
            self._end(tid, 9)

    def _spawn(self, entry: list[Any]) -> None:
        tid, argv = entry[1], [os.fsdecode(word) for word in entry[2]]
        self.spawned += 1
        pid = next(self._pids)
        seconds, status = self._duration(argv)
        if self._spawn_s:
            # One after the other, as a supervisor starts them.
            now = self._reactor.monotonic()
            self._spawned_at = max(now, self._spawned_at) + self._spawn_s
            seconds += self._spawned_at - now
        timer = self._reactor.call_later(seconds, lambda: self._end(tid, status))
        self._running[tid] = (pid, timer)
        self._report(["started", tid, pid, self._reactor.now()])

    def _after(self, entry: list[Any]) -> None:
        _, tid, spawn = entry
        if tid in self._running or tid in self._followers:
            self._followers.add(tid, spawn)
        else:
            self._spawn(spawn)

    def _recall(self, entry: list[Any]) -> None:
        for tid in entry[1]:
            if self._followers.remove(tid):
                self._report(["returned", tid])

    def _kill(self, entry: list[Any]) -> None:
        _, tid, signum = entry
        if signum and tid in self._running:
            self._end(tid, signum)

    def _end(self, tid: int, status: int) -> None:
        _, timer = self._running.pop(tid, (0, None))
        if timer is None:
            return
        timer.cancel()
        self._report(["exited", tid, status, self._reactor.now(), 0.0, 0.0, 0])
        follower = self._followers.pop(tid)
        if follower is not None:
            self._spawn(follower)

    def _report(self, report: Report) -> None:
        self._reports.append(report)
        if not self._due:
            self._due = True
            self._reactor.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._due = False
        reports, self._reports = self._reports, []
        for report in reports:
            receiver = self._receivers.get(report[1])
            if receiver is not None:
                if report[0] in ("exited", "returned"):
                    del self._receivers[report[1]]
                receiver.report(report)
            elif self.take is not None:
                self.take(report)
        if self.after_reports is not None:
            self.after_reports()
