"""The log ring of a broker: the newest entries, and who follows them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""Names of syslog's severities 0–7 (RFC 5424)."""

EMERG, ALERT, CRIT, ERR, WARNING, NOTICE, INFO, DEBUG = range(8)

Entry = tuple[float, int, str, int, str]
"""Unix time, level, component, rank, text."""

TEXT_LIMIT = 8192
"""A longer text is cut: one writer must not push everyone else's entries out of memory."""


class LogRing:
    """Keeps the last ``size`` entries."""

    def __init__(self, size: int = 1024) -> None:
        self._entries: deque[Entry] = deque(maxlen=size)
        self._followers: list[Callable[[Entry], object]] = []

    def append(self, entry: Entry) -> None:
        """Add an entry and show it to the followers."""
        if len(entry[4]) > TEXT_LIMIT:
            entry = (*entry[:4], entry[4][:TEXT_LIMIT] + "…")
        self._entries.append(entry)
        for follower in list(self._followers):
            follower(entry)

    def entries(self) -> list[Entry]:
        """What is kept, oldest first."""
        return list(self._entries)

    def clear(self) -> None:
        self._entries.clear()

    def resize(self, size: int) -> None:
        """Keep the last ``size`` entries from now on."""
        self._entries = deque(self._entries, maxlen=size)

    def follow(self, callback: Callable[[Entry], object]) -> Callable[[], None]:
        """Call back for each new entry; returns how to stop."""
        self._followers.append(callback)

        def stop() -> None:
            if callback in self._followers:
                self._followers.remove(callback)

        return stop
