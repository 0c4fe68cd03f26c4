"""The queue of jobs in SCHED: by priority, then by id; arrays stay one entry.

Entries go stale instead of being removed (a member was cancelled, or its urgency changed); what is
in the queue is decided by the members' state bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace

from flux_mpi.job.arrays import DETACHED, JobArray
from flux_mpi.job.eventlogs import priority_of
from flux_mpi.job.states import State

WHOLE = -1

_Entry = tuple[int, int, int, JobArray]
"""(id of the first member in question, sequence, member or WHOLE, array)"""

_QUEUED = int(State.SCHED)
_QUEUED_ALONE = int(State.SCHED) | DETACHED


class Queue:
    """Which members come next. Priority 0 is held: kept, listed, never offered."""

    def __init__(self) -> None:
        self._levels: dict[int, list[_Entry]] = {}
        self._sequence = itertools.count()

    def push_array(self, jobs: JobArray) -> None:
        """Queue all members at their array's urgency."""
        level = self._levels.setdefault(priority_of(jobs.urgency), [])
        heappush(level, (jobs.first, next(self._sequence), WHOLE, jobs))

    def push_member(self, jobs: JobArray, k: int) -> None:
        """Queue one detached member at its own urgency."""
        level = self._levels.setdefault(priority_of(jobs.urgency_of(k)), [])
        heappush(level, (jobs.id(k), next(self._sequence), k, jobs))

    def head(self, limit: int = 1 << 30) -> tuple[JobArray, int, int] | None:
        """The first in the queue: (array, member, how many consecutive members), or None.

        The run ends where another entry comes in between (that can only be a member of the same
        array, whose state byte differs), and at ``limit`` members: to count them costs time.
        """
        while True:
            priority = max(self._levels, default=0)
            if priority <= 0:
                return None
            level = self._levels[priority]
            found = _head(level, priority, limit)
            if found is not None:
                return found
            del self._levels[priority]

    def ordered(self) -> Iterator[tuple[JobArray, int, int]]:
        """Everything queued, held jobs last, as runs; nothing is removed.

        The queue must not change meanwhile.
        """
        for priority in sorted(self._levels, reverse=True):
            level = list(self._levels[priority])  # a heap as it is
            cursors: dict[int, int] = {}
            alone = -1
            while level:
                first, sequence, k, jobs = level[0]
                if k != WHOLE:
                    heappop(level)
                    # A member whose urgency went away and came back has several entries.
                    if first != alone and _alone(jobs, k, priority):
                        alone = first
                        yield jobs, k, 1
                    continue
                start = jobs.state.find(_QUEUED, cursors.get(sequence, jobs.cursor))
                if start < 0:
                    heappop(level)
                    continue
                if jobs.id(start) != first:
                    cursors[sequence] = start
                    heapreplace(level, (jobs.id(start), sequence, WHOLE, jobs))
                    continue
                n = jobs.run_length(start, jobs.count)
                yield jobs, start, n
                cursors[sequence] = start + n
                if start + n < jobs.count:
                    heapreplace(level, (jobs.id(start + n), sequence, WHOLE, jobs))
                else:
                    heappop(level)


def _head(level: list[_Entry], priority: int, limit: int) -> tuple[JobArray, int, int] | None:
    while level:
        first, sequence, k, jobs = level[0]
        if k != WHOLE:
            if _alone(jobs, k, priority):
                return jobs, k, 1
            heappop(level)
            continue
        start = jobs.state.find(_QUEUED, jobs.cursor)
        if start < 0:
            jobs.cursor = jobs.count
            heappop(level)
            continue
        jobs.cursor = start
        # Only where entries share the level can another one come before this array's next.
        if len(level) > 1:
            jobid = jobs.id(start)
            if jobid != first:
                heapreplace(level, (jobid, sequence, WHOLE, jobs))
                continue
        return jobs, start, jobs.run_length(start, min(jobs.count, start + limit))
    return None


def _alone(jobs: JobArray, k: int, priority: int) -> bool:
    """Whether the entry of a detached member is still what it was."""
    return jobs.state[k] == _QUEUED_ALONE and priority_of(jobs.urgency_of(k)) == priority
