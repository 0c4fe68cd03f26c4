"""When to pass on what has been gathered: soon, and the later the more is under way."""

from __future__ import annotations

from collections.abc import Callable

from flux_mpi.reactor import Reactor

FREE = 4
"""Messages under way up to which another is sent without waiting for company."""
COMPANY_S = 0.001
"""How long what is gathered waits for company beyond that."""


class Pacer:
    """Calls ``flush`` once for all that was gathered since it was last called.

    What is alone never waits: it is sent in the next turn of the loop. Only who sends much is held
    back, so that a node whose many tasks come one by one is a few messages to the broker above.
    """

    def __init__(self, reactor: Reactor, flush: Callable[[], object]) -> None:
        self._reactor = reactor
        self._flush = flush
        self._due = False

    def want(self, under_way: int) -> None:
        """There is something to flush, while so many messages are not answered yet."""
        if self._due:
            return
        self._due = True
        if under_way < FREE:
            self._reactor.call_soon(self._now)
        else:
            self._reactor.call_later(COMPANY_S, self._now)

    def _now(self) -> None:
        self._due = False
        self._flush()
