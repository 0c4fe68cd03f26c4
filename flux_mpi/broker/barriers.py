"""Barriers: who waits for whom. Pure cores; ``barrier_service`` carries what they say.

The root alone decides (`Barriers`). Every other broker (`Gathering`) adds up what has entered at
it and below since it last said so, and passes one count on; the answer to that count releases it,
or fails it. So each barrier is complete at one moment in one place, and a name can be used again
at once: what was counted is known by its answer, not by its name.

A barrier needs any ``nprocs`` participants. Of a count that is more than is missing only a part is
taken; whoever sent it asks again for the rest, which is then the beginning of the next barrier of
that name. A participant that goes away before its release fails all that are in with it.
"""

from __future__ import annotations

import errno
import itertools
from dataclasses import dataclass, field
from typing import Any

Outcome = tuple["Entry", int, Any]
"""What becomes of an entry: (entry, 0, how many of it are released) or (entry, errnum, text)."""


@dataclass(eq=False, slots=True)
class Entry:
    """Some that entered together: one client, or a child's batch. ``key`` is the caller's."""

    name: str
    nprocs: int
    count: int
    key: Any
    lost: str = ""
    """Why one of them is gone, once one is."""


@dataclass(eq=False, slots=True)
class Batch:
    """Entries of one barrier that are one count to the broker above."""

    id: int
    name: str
    nprocs: int
    entries: list[Entry]

    @property
    def count(self) -> int:
        return sum(entry.count for entry in self.entries)

    @property
    def lost(self) -> str:
        """Why one of them is gone; empty while all are there."""
        return next((entry.lost for entry in self.entries if entry.lost), "")


@dataclass(eq=False, slots=True)
class _Barrier:
    nprocs: int
    entered: int = 0
    entries: list[Entry] = field(default_factory=list)


class Barriers:
    """The root's part: all barriers that somebody is in."""

    def __init__(self) -> None:
        self._open: dict[str, _Barrier] = {}

    def enter(self, entry: Entry) -> list[Outcome]:
        """Somebody enters; what comes of it, for all concerned."""
        barrier = self._open.get(entry.name)
        if barrier is None:
            barrier = self._open[entry.name] = _Barrier(entry.nprocs)
        elif barrier.nprocs != entry.nprocs:
            text = (
                f"barrier {entry.name}: nprocs: {entry.nprocs} is not allowed, as "
                f"{barrier.entered} entered with nprocs {barrier.nprocs}"
            )
            return [(entry, errno.EINVAL, text)]
        barrier.entries.append(entry)
        barrier.entered += entry.count
        excess = barrier.entered - barrier.nprocs
        if excess < 0:
            return []
        del self._open[entry.name]
        released: list[Outcome] = [(each, 0, each.count) for each in barrier.entries]
        released[-1] = (entry, 0, entry.count - excess)  # only the last can be too many
        return released

    def lose(self, entry: Entry, why: str) -> list[Outcome]:
        """One of ``entry`` is gone: those in with it fail, if it is still in."""
        barrier = self._open.get(entry.name)
        if barrier is None or entry not in barrier.entries:
            return []
        del self._open[entry.name]
        text = (
            f"barrier {entry.name}: {why}, when {barrier.entered} of {barrier.nprocs} had entered"
        )
        return [(each, errno.ECONNABORTED, text) for each in barrier.entries]

    def status(self) -> list[tuple[str, int, int]]:
        """(name, how many have entered, of how many) of each open barrier, by name."""
        return sorted((name, each.entered, each.nprocs) for name, each in self._open.items())


class Gathering:
    """Every other broker's part: it gathers what enters here and below."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, int], list[Entry]] = {}
        self._sent: dict[Entry, Batch] = {}
        self._ids = itertools.count(1)
        self.under_way = 0
        """Batches that have been sent and are not answered yet."""

    def enter(self, entry: Entry) -> None:
        """Somebody enters: `flush` when that is to be passed on."""
        # Those that disagree about nprocs are not for us to judge: apart, the root can.
        self._waiting.setdefault((entry.name, entry.nprocs), []).append(entry)

    def flush(self) -> list[Batch]:
        """What is to be sent up now. A batch of which one is lost must be aborted right after."""
        batches = [
            Batch(next(self._ids), name, nprocs, entries)
            for (name, nprocs), entries in self._waiting.items()
        ]
        self._waiting.clear()
        for batch in batches:
            self._sent.update(dict.fromkeys(batch.entries, batch))
        self.under_way += len(batches)
        return batches

    def lose(self, entry: Entry, why: str) -> Batch | None:
        """One of ``entry`` is gone. Returns the batch to abort; None: none was sent (yet)."""
        entry.lost = entry.lost or why
        return self._sent.get(entry)

    def answered(self, batch: Batch, errnum: int, value: Any) -> list[Outcome]:
        """The broker above has answered: ``value`` is how many are released, or the error's text.

        What is not released waits again, before all that came later: `flush`.
        """
        self.under_way -= 1
        for entry in batch.entries:
            del self._sent[entry]
        if errnum:
            return [(entry, errnum, value) for entry in batch.entries]
        outcomes: list[Outcome] = []
        left = int(value)
        for at, entry in enumerate(batch.entries):
            if left <= 0:
                key = (batch.name, batch.nprocs)
                self._waiting[key] = batch.entries[at:] + self._waiting.get(key, [])
                break
            outcomes.append((entry, 0, min(left, entry.count)))
            left -= entry.count
        return outcomes

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent up."""
        return not self._waiting
