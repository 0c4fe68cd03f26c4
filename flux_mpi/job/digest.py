"""Results on their way to whoever waits for many jobs: together, not one by one.

With short jobs a client would be woken for each of them, on the very cores that should run the
next. The first result goes out at once, those that follow within ``HOLD_S`` go together, and the
last never waits.
"""

from __future__ import annotations

from typing import Any

from flux_mpi.broker.service import Request
from flux_mpi.reactor import Reactor, Timer

HOLD_S = 0.02


class Digests:
    """Holds back what streams of ``job-manager.wait-all`` are to be told."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._last: dict[Request, float] = {}
        self._held: dict[Request, list[Any]] = {}
        self._timer: Timer | None = None

    def add(self, request: Request, done: list[Any]) -> None:
        """Tell ``done``, now or within ``HOLD_S``."""
        if not request.open:
            self.forget(request)
            return
        now = self._reactor.monotonic()
        if now - self._last.get(request, -HOLD_S) >= HOLD_S and request not in self._held:
            self._last[request] = now
            request.respond({"done": done})
            return
        self._held.setdefault(request, []).extend(done)
        if self._timer is None:
            self._timer = self._reactor.call_later(HOLD_S, self._send)

    def end(self, request: Request) -> None:
        """Nothing follows: tell what was held back."""
        held = self._held.pop(request, None)
        if held:
            request.respond({"done": held})
        self._last.pop(request, None)

    def forget(self, request: Request) -> None:
        """Whoever asked is gone."""
        self._held.pop(request, None)
        self._last.pop(request, None)

    def _send(self) -> None:
        self._timer = None
        held, self._held = self._held, {}
        now = self._reactor.monotonic()
        for request, done in held.items():
            self._last[request] = now
            request.respond({"done": done})
