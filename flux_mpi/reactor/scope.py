"""A reactor inside a reactor: what one of several instances in a process has registered.

A broker process may host child instances beside its own broker. Each gets a *scope* of the one
loop: timers, deferred calls and turn-end hooks of its own, run only in turns in which something of
it ran, so that a thousand idle children cost nothing. ``close`` takes all of it away at once.
"""

from __future__ import annotations

from collections.abc import Callable

from flux_mpi.reactor.base import Callback, Reactor, Timer


class Scope(Reactor):
    """One tenant's view of ``base``; of a scope, it is a sibling."""

    def __init__(self, base: Reactor) -> None:
        super().__init__()
        self._base: Reactor = base._base if isinstance(base, Scope) else base
        self._fds: set[int] = set()
        self._alarm: Timer | None = None
        self._woken = False
        self._source: Callable[[], bool] | None = None
        self.closed = False

    @property
    def lag_s(self) -> float:  # type: ignore[override]
        return self._base.lag_s

    def now(self) -> float:
        return self._base.now()

    def monotonic(self) -> float:
        return self._base.monotonic()

    def add_reader(self, fd: int, callback: Callback) -> None:
        self._fds.add(fd)
        self._base.add_reader(fd, self._enter(callback))

    def add_writer(self, fd: int, callback: Callback) -> None:
        self._base.add_writer(fd, self._enter(callback))

    def remove_writer(self, fd: int) -> None:
        self._base.remove_writer(fd)

    def remove(self, fd: int) -> None:
        self._fds.discard(fd)
        self._base.remove(fd)

    def set_polled(self, source: Callable[[], bool] | None, owner: object = None) -> None:
        if source == self._source:
            return  # the base would take it for a new one, and become hot again
        self._source = source
        if source is None:
            self._base.set_polled(None, self)
            return

        def poll() -> bool:
            # Its hooks must run also when nothing came: probing may have found a link's end.
            self._base.entered(self)
            return source()

        self._base.set_polled(poll, self)

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        timer = super().call_later(seconds, callback)
        self._arm()
        return timer

    def call_soon(self, callback: Callback) -> None:
        if not self.closed:
            super().call_soon(callback)
            self._wake()

    def at_turn_end(self, hook: Callback) -> None:
        super().at_turn_end(hook)
        self._base.entered(self)

    def end_turn(self) -> None:
        """Something of this scope ran in this turn: run its hooks. For the base."""
        if not self.closed:
            self._run_hooks()

    def close(self) -> None:
        """Nothing registered here is ever called again. Idempotent; descriptors stay open."""
        if self.closed:
            return
        self.closed = True
        for fd in self._fds:
            self._base.remove(fd)
        self._fds.clear()
        self.set_polled(None)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._timers.clear()
        self._hooks.clear()
        self.on_error = None

    def _enter(self, callback: Callback) -> Callback:
        """``callback`` as something that happens in this scope."""

        def run() -> None:
            if not self.closed:
                self._base.entered(self)
                self._call(callback)

        return run

    def _call(self, callback: Callback) -> None:
        if not self.closed:  # by one that was called in this very turn
            super()._call(callback)

    def _wake(self) -> None:
        if not self._woken and not self.closed:
            self._woken = True
            self._base.call_soon(self._turn)

    def _arm(self) -> None:
        """Have the base wake us when the first of our timers is due."""
        due = self._next_due()
        if due is None or self.closed:
            return
        if self._alarm is not None and self._alarm.active:
            if self._alarm.due <= due:
                return
            self._alarm.cancel()
        self._alarm = self._base.call_later(due - self._base.monotonic(), self._turn)

    def _turn(self) -> None:
        self._woken = False
        if self.closed:
            self._soon.clear()
            return
        self._base.entered(self)
        self._run_due()
        if self._soon:
            self._wake()
        self._arm()
