"""Leases: members of an array handed to a rank ahead of time, to follow one that runs there.

A short job otherwise leaves its cores idle for a journey to the root and back, and costs a message
each way. So a rank gets the next members of an array along with one that runs: when that ends, the
first of them begins at once on the same cores. To everyone a member on lease still waits, until the
rank reports that it has begun; until then it can be taken back.

A *slot* is one placement that members of an array use one after the other. The scheduler counts it
as allocated as long as a member runs there or is on lease there. Pure: told of what happens, it
decides who is to follow whom, and what to take back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flux_mpi.job.arrays import JobArray
from flux_mpi.sched.placement import Placement

SHORT_S = 0.02
"""Members that take longer than this on average are not worth a lease."""
AHEAD_S = 0.025
"""As much work as this is leased to a slot..."""
MOST = 16
"""...but never more members."""
PATIENCE_S = 0.25
"""Leases behind a job that takes longer than this are taken back."""


@dataclass(slots=True, eq=False)
class Slot:
    """One placement, and the members of one array that use it one after the other."""

    jobs: JobArray
    placement: Placement
    running: int
    """The id of the job that runs there, as far as is known; 0: none, until the next one begins."""
    since: float
    """When that began, or the one before ended, as the logs have it."""
    heard: float
    """When that became known: what clocks of ranks say is for the logs."""
    queue: deque[int] = field(default_factory=deque)
    """The ids of those on lease, in their order."""
    users: int = 1
    """How many run there; more than one only when a rank reports a start before an end."""
    recalled: bool = False
    """What was on lease here has been asked back, and no more will be: whatever changed, the
    scheduler is to say where the next one starts."""

    @property
    def rank(self) -> int:
        return self.placement.parts[0].rank

    @property
    def last(self) -> int:
        """The id of the job that the next one would follow."""
        return self.queue[-1] if self.queue else self.running


def depth(pace: float) -> int:
    """How many members that take ``pace`` seconds each may be on lease in one slot."""
    if pace > SHORT_S:
        return 0
    return MOST if pace * MOST <= AHEAD_S else max(1, int(AHEAD_S / pace))


def leasable(jobs: JobArray) -> bool:
    """Whether members of this array may follow each other: one task each, of short life, and
    nothing is done for one before the one before it has ended."""
    options = jobs.jobspec.options
    return (
        jobs.pace <= SHORT_S
        and jobs.count > 1
        and jobs.shape.ntasks == 1
        and not jobs.shape.graph
        and "per-resource" not in options
        and not jobs.jobspec.is_instance
        and not _labelled(options)
    )


def _labelled(options: dict[str, Any]) -> bool:
    """Whether output files get labels: the rank opens, and truncates, them before it starts."""
    return any(
        "label" in name or (isinstance(value, dict) and _labelled(value))
        for name, value in options.items()
    )


class Leases:
    """All slots and what is on lease in them."""

    def __init__(self) -> None:
        self.arrays: dict[JobArray, int] = {}
        """How many slots each array has."""
        self.out = 0
        """How many members are on lease."""
        self.lent: dict[JobArray, int] = {}
        """How many of each array, if any."""
        self.hungry: dict[Slot, None] = {}
        """Slots that may take more."""
        self.paused = False
        """All that was on lease has been asked back, and not all is back yet."""
        self._slots: dict[Slot, None] = {}
        self._by_job: dict[int, Slot] = {}
        self._recalls: dict[int, list[int]] = {}

    def ready(self) -> bool:
        """Whether there is anyone to lease to: not before all that was asked back is back."""
        if not self.out:
            self.paused = False
        return bool(self.hungry) and not self.paused

    # -- slots ----------------------------------------------------------------------------------

    def opened(self, jobs: JobArray, k: int, placements: list[Placement], now: float) -> None:
        """Members ``k``… of a leasable array start with these placements."""
        for placement in placements:
            if placement.nnodes == 1:
                slot = Slot(jobs, placement, jobs.id(k), now, now)
                self._slots[slot] = None
                self._by_job[slot.running] = slot
                self.hungry[slot] = None
                self.arrays[jobs] = self.arrays.get(jobs, 0) + 1
            k += 1

    def _close(self, slot: Slot) -> None:
        del self._slots[slot]
        self.hungry.pop(slot, None)
        left = self.arrays[slot.jobs] - 1
        if left:
            self.arrays[slot.jobs] = left
        else:
            del self.arrays[slot.jobs]

    def limit(self) -> int:
        """How many of those in the queue `grant` has any use for."""
        return MOST * max(64, len(self._slots))

    def grant(
        self, jobs: JobArray, k: int, n: int, now: float
    ) -> Iterator[tuple[Slot, int, int, int]]:
        """Who may have which of members ``k``…``k + n - 1``, the next in the queue: (slot, the id
        it follows, its own id, member). What one slot has too much at the end of an array, another
        lacks."""
        hungry, self.hungry = self.hungry, {}
        places = max(self.arrays.get(jobs, 0), jobs.running)
        if not places:
            return
        most = min(depth(jobs.pace), (n + self.out) // places)
        end = k + n
        for slot in hungry:
            if slot.jobs is not jobs or slot.recalled or now - slot.heard > PATIENCE_S:
                continue
            while len(slot.queue) < most and k < end:
                after, jobid = slot.last, jobs.id(k)
                slot.queue.append(jobid)
                self._by_job[jobid] = slot
                self._lend(jobs, 1)
                yield slot, after, jobid, k
                k += 1

    def _lend(self, jobs: JobArray, more: int) -> None:
        """So many more members of the array are on lease, or fewer."""
        self.out += more
        lent = self.lent.get(jobs, 0) + more
        if lent:
            self.lent[jobs] = lent
        else:
            self.lent.pop(jobs, None)

    # -- what ranks report ----------------------------------------------------------------------

    def begun(self, jobid: int, now: float) -> Slot:
        """A member on lease has begun."""
        slot = self._by_job[jobid]
        slot.queue.remove(jobid)
        self._lend(slot.jobs, -1)
        slot.running = jobid
        slot.users += 1
        slot.heard = now
        self.hungry[slot] = None
        return slot

    def ended(self, jobid: int, then: float) -> bool:
        """A job has ended; True if its placement is kept for those that follow."""
        slot = self._by_job.pop(jobid, None)
        if slot is None:
            return False
        slot.users -= 1
        if slot.running == jobid:
            slot.running = 0
            slot.since = then
        if slot.users or slot.queue:
            return True
        self._close(slot)
        return False

    def returned(self, jobid: int) -> Placement | None:
        """A member on lease did not begin; the placement, if nobody uses it any more."""
        slot = self._by_job.pop(jobid)
        slot.queue.remove(jobid)
        self._lend(slot.jobs, -1)
        if slot.users or slot.queue:
            return None
        self._close(slot)
        return slot.placement

    # -- taking back ----------------------------------------------------------------------------

    def recall(self) -> None:
        """Ask everything back, and grant nothing before it is settled."""
        self.paused = True
        for slot in self._slots:
            self._recall(slot)

    def recall_around(self, jobid: int) -> None:
        """Ask back what is on lease where this member is."""
        self._recall(self._by_job[jobid])

    def recall_overdue(self, now: float) -> None:
        """Ask back what waits for a job that takes too long."""
        for slot in self._slots:
            if now - slot.heard >= PATIENCE_S:
                self._recall(slot)

    def _recall(self, slot: Slot) -> None:
        if slot.queue and not slot.recalled:
            self._recalls.setdefault(slot.rank, []).extend(slot.queue)
        slot.recalled = True

    def take_recalls(self) -> dict[int, list[int]]:
        """What is to be asked back since the last call: ids by rank."""
        recalls, self._recalls = self._recalls, {}
        return recalls

    def lost(self, ranks: int) -> tuple[list[int], list[Placement]]:
        """These ranks (a bitmask) are gone: the ids of what was on lease there, and the placements
        that nothing ran on. The end of what runs there is told as ever."""
        ids: list[int] = []
        unused: list[Placement] = []
        for slot in [slot for slot in self._slots if slot.placement.ranks_mask & ranks]:
            ids += slot.queue
            self._lend(slot.jobs, -len(slot.queue))
            for jobid in slot.queue:
                del self._by_job[jobid]
            slot.queue.clear()
            if not slot.users:
                unused.append(slot.placement)
                self._close(slot)
        return ids, unused
