"""A share of the line to the supervisor, for an instance that is hosted beside others.

All instances of a process speak with one supervisor. A branch has the face of a whole ``Link``;
its tasks are its own, so that the end of one instance is not the end of the others' tasks.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from flux_mpi.reactor import Reactor
from flux_mpi.shell.link import Link, Process, Report

_OVER = frozenset(("exited", "failed", "returned"))


class Branch:
    """What one instance uses of ``link``; its callbacks run in ``reactor``, that instance's."""

    def __init__(self, link: Link, reactor: Reactor) -> None:
        self._link = link
        self._reactor = reactor
        self._tids: set[int] = set()
        self._when_empty: Callable[[], object] | None = None
        self._killing = False
        self.take: Callable[[Report], object] | None = None
        self.after_reports: Callable[[], object] | None = None
        self.on_signal: Callable[[int], object] | None = None
        """Never called: signals of the launcher are for the outermost instance."""
        self.on_lost: Callable[[], object] | None = None
        self.sweep: Callable[[], object] | None = None
        link.branches[self] = None

    @property
    def lost(self) -> bool:
        return self._link.lost

    def next_tid(self) -> int:
        """A task id that nobody has; reports about it come here."""
        tid = self._link.next_tid()
        self._link.adopt(tid, self)
        self._tids.add(tid)
        return tid

    def command(self, entry: list[Any]) -> None:
        """As ``Link.command``."""
        self._link.command(entry)

    def extend(self, entries: list[list[Any]]) -> None:
        """As ``Link.extend``."""
        self._link.extend(entries)

    def run(self, argv: Any, **how: Any) -> Process:
        """As ``Link.run``; callbacks run in this branch's reactor."""
        for name in ("on_start", "on_output", "on_exit", "on_fail", "on_fed"):
            callback = how.get(name)
            if callback is not None:
                how[name] = self._inside(callback)
        on_exit, on_fail = how.get("on_exit"), how.get("on_fail")

        def exited(status: int) -> None:
            self._gone(process.tid)
            if on_exit is not None:
                on_exit(status)

        def failed(errnum: int, what: str) -> None:
            self._gone(process.tid)
            if on_fail is not None:
                on_fail(errnum, what)

        how.update(on_exit=exited, on_fail=failed)
        process = self._link.run(argv, **how)
        self._tids.add(process.tid)
        if self._killing:
            self._kill(process.tid, signal.SIGKILL)
        return process

    def _inside(self, callback: Callable[..., object]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            self._reactor.call_soon(lambda: callback(*args))

        return run

    def report(self, entry: Report) -> None:
        """The link has a report about a task of ours."""
        if self.take is not None:
            self.take(entry)
        self._reactor.call_soon(_nothing)  # for the turn-end hooks of this instance
        if entry[0] in _OVER:
            self._gone(entry[1])
        elif entry[0] == "started" and self._killing:
            self._kill(entry[1], signal.SIGKILL)  # ordered before, or by a rank that goes on

    def _gone(self, tid: int) -> None:
        self._tids.discard(tid)
        if not self._tids and self._when_empty is not None:
            callback, self._when_empty = self._when_empty, None
            self._reactor.call_soon(callback)

    def flush(self) -> None:
        """As ``Link.flush``."""
        self._link.flush()

    def shutdown(self, grace_s: float) -> None:
        """End the tasks of this branch: TERM now, KILL after ``grace_s``.

        Those that were to follow others are returned; what starts after KILL is killed as well.
        """
        self._link.command(["recall", list(self._tids)])
        if grace_s > 0:
            self._signal_all(signal.SIGTERM)
            self._signal_all(signal.SIGCONT)  # a stopped one must hear it
            self._reactor.call_later(grace_s, self._kill_all)
        else:
            self._kill_all()

    def _kill_all(self) -> None:
        self._killing = True
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, signum: int) -> None:
        for tid in self._tids:
            self._kill(tid, signum)

    def _kill(self, tid: int, signum: int) -> None:
        self._link.command(["kill", tid, int(signum)])

    def when_empty(self, callback: Callable[[], object]) -> None:
        """Call back, once, when no task is left."""
        if self._tids:
            self._when_empty = callback
        else:
            self._reactor.call_soon(callback)

    def broken(self) -> None:
        """The supervisor is gone."""
        if self.sweep is not None:
            self.sweep()
        if self.on_lost is not None:
            self._reactor.call_soon(self.on_lost)

    def close(self) -> None:
        """Nothing of the link is used any more. Idempotent."""
        self._link.branches.pop(self, None)
        for tid in self._tids:
            self._link.abandon(tid)
        self._tids.clear()


def _nothing() -> None:
    """Makes the loop turn."""
