"""A progress bar for many jobs, on one line of a terminal."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

REDRAW_S = 0.1
"""Least time between two drawings: terminals are slow."""


class Progress:
    """Counts of pending, running, completed and failed jobs, a bar, percent and time or rate.

    ``jps`` shows jobs per second in place of the elapsed time. Draws on ``stream``; ``finish()``
    leaves the last state standing.
    """

    def __init__(
        self,
        stream: TextIO,
        total: int,
        *,
        jps: bool = False,
        width: int = 80,
        started: float | None = None,
        unit: str = "jobs",
    ) -> None:
        self.stream = stream
        self.total = total
        self.jps = jps
        self.width = width
        self.started = time.time() if started is None else started
        self.unit = unit
        self.done = self.failed = self.running = 0
        self._drawn = 0.0
        encoding = (getattr(stream, "encoding", "") or "").lower().replace("-", "")
        self._blocks = "█░" if encoding == "utf8" else "#."

    def update(self, done: int, failed: int, running: int = 0, force: bool = False) -> None:
        """``done`` counts the failed ones too."""
        self.done, self.failed, self.running = done, failed, running
        now = time.monotonic()
        if force or now - self._drawn >= REDRAW_S:
            self._drawn = now
            self.stream.write("\r" + self.line())
            self.stream.flush()

    def line(self) -> str:
        """The bar as text, exactly ``width − 1`` columns where that can be had."""
        elapsed = max(time.time() - self.started, 1e-3)
        digits = len(str(self.total))
        pending = max(0, self.total - self.done - self.running)
        left = (
            f"PD:{pending:<{digits}} R:{self.running:<{digits}} "
            f"CD:{self.done - self.failed:<{digits}} F:{self.failed:<{digits}} "
        )
        fraction = self.done / self.total if self.total else 1.0
        tail = f"{self.done / elapsed:6.1f} job/s" if self.jps else clock(elapsed)
        right = f" {100 * fraction:5.1f}% {tail}"
        room = max(4, self.width - 1 - len(left) - len(right) - 2)
        full = int(room * fraction)
        bar = self._blocks[0] * full + self._blocks[1] * (room - full)
        return f"{left}|{bar}|{right}"

    def clear(self) -> None:
        """Wipes the line, so that other output can go there."""
        self.stream.write("\r" + " " * (self.width - 1) + "\r")
        self.stream.flush()

    def finish(self) -> None:
        """Draws the last state and ends the line."""
        self.update(self.done, self.failed, self.running, force=True)
        self.stream.write("\n")
        self.stream.flush()


def clock(seconds: float) -> str:
    """``0:01:02``."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
