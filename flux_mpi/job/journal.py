"""Events as they happen, for those who watch; nothing is recorded while nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flux_mpi.job.arrays import JobArray
from flux_mpi.job.eventlogs import LogEvent

_NONE: dict[str, Any] = {}


class Entry(NamedTuple):
    """One event of ``n`` consecutive members of an array.

    ``context`` is theirs in common, or a function of the offset 0…n−1.
    """

    jobs: JobArray
    k: int
    n: int
    time: float
    name: str
    context: dict[str, Any] | Callable[[int], dict[str, Any]]

    def expand(self) -> Iterator[tuple[int, float, str, dict[str, Any]]]:
        """(job id, time, name, context) of each member."""
        for i in range(self.n):
            context = self.context(i) if callable(self.context) else self.context
            yield self.jobs.id(self.k + i), self.time, self.name, context

    def of(self, k: int) -> LogEvent:
        """The event of member ``k``, which must be one of them."""
        context = self.context(k - self.k) if callable(self.context) else self.context
        return self.time, self.name, context


class Journal:
    """Collects a turn's events; ``users`` says how many want them."""

    def __init__(self) -> None:
        self.users = 0
        self._entries: list[Entry] = []

    def add(
        self,
        jobs: JobArray,
        k: int,
        n: int,
        time: float,
        name: str,
        context: dict[str, Any] | Callable[[int], dict[str, Any]] = _NONE,
    ) -> None:
        """Record an event of members ``k``…``k + n - 1``."""
        if self.users:
            self._entries.append(Entry(jobs, k, n, time, name, context))

    def take(self) -> list[Entry]:
        """What was recorded since the last call."""
        entries, self._entries = self._entries, []
        return entries
