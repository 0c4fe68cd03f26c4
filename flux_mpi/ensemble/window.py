"""How much of a leaf's work is in its queue: the core of the lowest level.

A leaf hands members to its own job manager, from which they come back only by being canceled. So it
keeps them, and submits in time: enough for every core, and for `AHEAD_S` beyond that.
"""

from __future__ import annotations

from math import exp

from flux_mpi.ensemble.tally import LOST, Tally
from flux_mpi.formats.idset import EMPTY, IDSet

AHEAD_S = 0.5
"""Work in the queue behind what runs, in seconds of the instance's own pace."""
KEEP_S = 0.1
"""Work that stays in the queue when members are taken back out of it."""
LEAST_S = 0.001
"""No member is believed to take less than this: starting it does."""
MEMORY_S = 1.0
"""How long the pace is averaged over."""

Failure = tuple[int, int, str]
"""(member, exit code, why if an exception ended it)."""


class Window:
    """The members of one leaf. ``capacity`` is how many run at a time; ``expected`` how long each
    does, in seconds, if somebody knows. Not ``bounded``: everything goes into the queue at once,
    where nobody will ever want members back. ``retries``: how often a member whose node was lost
    runs again."""

    def __init__(
        self,
        capacity: int,
        *,
        bounded: bool = True,
        expected: float | None = None,
        retries: int = 0,
    ) -> None:
        self.capacity = capacity
        self.bounded = bounded
        self.retries = retries
        self.held = EMPTY
        """Members given and not submitted."""
        self.queued = 0
        """Members submitted that have not ended."""
        self.rate = capacity / max(expected, LEAST_S) if expected else 0.0
        """Members a second; 0 until the first have ended."""
        self.rerun = 0
        self._since = 0.0
        self._attempts: dict[int, int] = {}
        self._measured = False

    @property
    def left(self) -> int:
        """Members given that have not ended."""
        return len(self.held) + self.queued

    @property
    def running(self) -> int:
        """Members that run, unless others' jobs have the cores."""
        return min(self.queued, self.capacity)

    @property
    def spare(self) -> int:
        """Members in the queue that will not begin soon."""
        keep = self.capacity + max(self.capacity, int(self.rate * KEEP_S))
        return max(0, self.queued - keep) if self.bounded else 0

    def give(self, members: IDSet) -> None:
        """Members to run."""
        self.held |= members

    def take_back(self, count: int) -> IDSet:
        """Up to so many members that were not submitted, the last first: no longer ours."""
        keep = self.held.take(max(0, len(self.held) - count))
        members, self.held = self.held - keep, keep
        return members

    def withdrawn(self, count: int) -> None:
        """So many members are out of the queue again, and no longer ours."""
        self.queued -= count

    def due(self, now: float) -> IDSet:
        """What to submit now; it counts as submitted."""
        if not self.held:
            return EMPTY
        if self.bounded:
            ahead = int(self.rate * AHEAD_S)
            # Not one by one: half of what lies ahead is used up before more is submitted.
            if self.queued >= self.capacity + (ahead + 1) // 2:
                return EMPTY
            members = self.held.take(self.capacity + ahead - self.queued)
        else:
            members = self.held
        if not self.queued:
            self._since = now
        self.held -= members
        self.queued += len(members)
        return members

    def ended(
        self, members: list[int], seconds: list[float], failures: list[Failure], now: float
    ) -> tuple[list[int], Tally]:
        """Members have ended, those that ran after so many seconds, and some of them not well.

        Returns those that have ended for good, and how.
        """
        self.queued -= len(members)
        tally = Tally()
        again = {
            member
            for member, _, why in failures
            if why.startswith("node-failure") and self._retry(member)
        }
        if again:
            members = [member for member in members if member not in again]
            self.held |= IDSet(again)
            self.rerun += len(again)
            # What ran in vain is nobody's run time; which of these it was is not worth knowing.
            seconds = seconds[: len(members)]
        tally.ended(len(members), seconds)
        for member, code, why in failures:
            if member in again:
                continue
            if why.startswith("cancel"):
                tally.canceled += 1
            elif why.startswith("node-failure"):
                why = f"{LOST}: {why}"
                tally.lost += 1
            tally.fail(member, code or 1, why)
        self._measure(len(members), now)
        return members, tally

    def _retry(self, member: int) -> bool:
        attempts = self._attempts.get(member, 0)
        self._attempts[member] = attempts + 1
        return attempts < self.retries

    def _measure(self, count: int, now: float) -> None:
        if not count:
            return
        passed = max(now - self._since, 1e-3)
        weight = 1.0 if not self._measured else 1 - exp(-passed / MEMORY_S)
        self.rate += weight * (count / passed - self.rate)
        self._measured = True
        self._since = now
