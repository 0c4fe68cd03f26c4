"""What every reactor offers; the parts that need no clock and no file descriptors.

A *turn* is: wait, run what became ready, run the turn-end hooks. Work is batched by doing it in a
hook: everything that arrived in one turn is then handled together.
"""

from __future__ import annotations

import heapq
import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Protocol

Callback = Callable[[], object]


COMPACT_AT = 256
"""Cancelled timers that may lie in the queue before it is rebuilt without them."""


class Timer:
    """A deferred call; ``cancel`` makes it a no-op."""

    __slots__ = ("due", "callback", "_reactor")

    def __init__(self, due: float, callback: Callback, reactor: Reactor) -> None:
        self.due = due
        self.callback: Callback | None = callback
        self._reactor = reactor

    def cancel(self) -> None:
        """Never call it. Idempotent."""
        if self.callback is not None:
            self.callback = None
            self._reactor._timer_cancelled()

    @property
    def active(self) -> bool:
        return self.callback is not None


class Tenant(Protocol):
    """Who has turn-end hooks of its own on another's reactor (``scope.py``)."""

    def end_turn(self) -> None:
        """Run them."""


class Reactor(ABC):
    """Timers, deferred calls and turn-end hooks; subclasses bring the clock and the waiting."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._sequence = itertools.count()
        self._soon: deque[Callback] = deque()
        self._hooks: list[Callback] = []
        self._touched: dict[Tenant, None] = {}
        self._stopped = False
        self.on_error: Callable[[BaseException], None] | None = None

    @abstractmethod
    def now(self) -> float:
        """Unix time, seconds."""

    @abstractmethod
    def monotonic(self) -> float:
        """A clock that never steps back, seconds."""

    @abstractmethod
    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call ``callback`` in each turn in which ``fd`` is readable or has hung up."""

    @abstractmethod
    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call ``callback`` in each turn in which ``fd`` (already a reader) is writable."""

    @abstractmethod
    def remove_writer(self, fd: int) -> None:
        """Stop watching ``fd`` for writing."""

    @abstractmethod
    def remove(self, fd: int) -> None:
        """Stop watching ``fd``; call it before closing. Idempotent."""

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Call ``callback`` once, ``seconds`` from now (never in this same turn's callbacks)."""
        timer = Timer(self.monotonic() + max(0.0, seconds), callback, self)
        heapq.heappush(self._timers, (timer.due, next(self._sequence), timer))
        return timer

    def call_soon(self, callback: Callback) -> None:
        """Call ``callback`` in the next turn, without waiting in between."""
        self._soon.append(callback)

    def at_turn_end(self, hook: Callback) -> None:
        """Call ``hook`` after each turn's callbacks, in the order of registration."""
        self._hooks.append(hook)

    def set_polled(self, source: Callable[[], bool] | None, owner: object = None) -> None:
        """Poll ``source()`` for what has no descriptor, in ``owner``'s name; it returns whether
        there was anything. None = no longer."""
        raise NotImplementedError(f"{type(self).__name__} polls nothing")

    def entered(self, tenant: Tenant) -> None:
        """Something of a tenant of this loop runs in this turn: its hooks are to follow."""
        self._touched[tenant] = None

    def stop(self) -> None:
        """Leave ``run`` after this turn."""
        self._stopped = True

    # -- for subclasses -------------------------------------------------------------------------

    def _next_due(self) -> float | None:
        while self._timers and not self._timers[0][2].active:
            heapq.heappop(self._timers)
            self._cancelled -= 1
        return self._timers[0][0] if self._timers else None

    def _run_due(self) -> int:
        """Run the timers that are due and the deferred calls; returns how many ran."""
        ran = 0
        if self._timers:
            now = self.monotonic()
            # One set by a callback that runs here must wait for the next turn, due or not: on a
            # simulated clock it would otherwise never end.
            newer = next(self._sequence)
            while self._timers and self._timers[0][0] <= now and self._timers[0][1] < newer:
                timer = heapq.heappop(self._timers)[2]
                callback, timer.callback = timer.callback, None
                if callback is None:
                    self._cancelled -= 1
                else:
                    ran += 1
                    self._call(callback)
        for _ in range(len(self._soon)):
            ran += 1
            self._call(self._soon.popleft())
        return ran

    def _timer_cancelled(self) -> None:
        # Most timers are bounds that never pass: cancelled, they must not pile up until due.
        self._cancelled += 1
        if self._cancelled > COMPACT_AT and 2 * self._cancelled > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].active]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _run_hooks(self) -> None:
        for hook in self._hooks:
            self._call(hook)
        while self._touched:
            tenants, self._touched = self._touched, {}
            for tenant in tenants:
                tenant.end_turn()

    def _call(self, callback: Callback) -> None:
        """Run one callback; one that fails is reported and does not take the loop down."""
        if self.on_error is None:
            callback()
            return
        try:
            callback()
        except Exception as error:  # the loop outlives any one handler's defect
            self.on_error(error)
