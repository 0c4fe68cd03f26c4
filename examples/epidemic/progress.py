"""A progress bar for an ensemble: done, failed, rate and time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

REDRAW_S = 0.1
"""On a terminal the bar is redrawn this often at most."""

LINE_S = 5.0
"""In a log file it is a line this often, as nobody can redraw there."""


class Progress:
    """``add()`` a member's outcome at a time; draws itself on ``stream``."""

    def __init__(
        self,
        total: int,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        width: int = 32,
    ) -> None:
        self.total = total
        self.done = 0
        self.failed = 0
        self._stream = stream
        self._clock = clock
        self._width = width
        self._began = self._drawn = clock()
        self._terminal = stream.isatty()

    def add(self, ok: bool) -> None:
        self.done += 1
        self.failed += not ok
        pause = REDRAW_S if self._terminal else LINE_S
        if self._clock() - self._drawn >= pause or self.done == self.total:
            self.draw()

    def text(self) -> str:
        """The bar as one line, e.g. ``[####....] 120/240 · 3.9/s · 31 s left · 2 failed``."""
        elapsed = self._clock() - self._began
        share = self.done / self.total if self.total else 1.0
        filled = int(share * self._width)
        parts = [f"[{'█' * filled}{'·' * (self._width - filled)}] {self.done}/{self.total}"]
        if self.done and elapsed > 0:
            rate = self.done / elapsed
            parts.append(f"{rate:.1f} members/s")
            # The first members' time is mostly that of starting up: it would tell nonsense.
            if self.total > self.done >= max(5, self.total // 20):
                parts.append(f"{_span((self.total - self.done) / rate)} left")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return " · ".join(parts)

    def draw(self) -> None:
        self._drawn = self._clock()
        if self._terminal:
            self._stream.write(f"\r{self.text()}\x1b[K")
        else:
            self._stream.write(f"{self.text()}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the bar's line, so that what is printed next stands below it."""
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
