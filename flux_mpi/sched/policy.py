"""In which order waiting jobs start: one loop for every queue policy.

A cycle first starts what is at the head of the queue until something does not fit. A policy that
backfills then reserves for that one, and for as many of those that follow as its depth says; what
else fits now without touching a reservation starts out of order. Reservations last one cycle.

Pure: a policy sees runs of equal jobs, the scheduler and the time. To write another, subclass
`Policy`, and offer it under the entry point ``flux_mpi.queue_policies``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, NamedTuple, Protocol

from flux_mpi.formats.jobspec import Shape
from flux_mpi.sched.base import Reservation, Scheduler
from flux_mpi.sched.placement import Placement

FEW, MANY = 64, 1 << 16
"""How many equal jobs are offered at once, at first and at most: to count them costs time."""


class Run(NamedTuple):
    """Equal jobs, one after the other in the queue. ``ticket`` is for who made it."""

    shape: Shape
    number: int
    duration: float | None
    """Seconds that each may run; infinite: no limit; None: no queue of the instance plans."""
    ticket: Any


class Pending(Protocol):
    """The jobs of a queue that could start now, as a policy sees them."""

    def head(self, limit: int) -> Run | None:
        """The first, at most ``limit`` jobs of it; None: there is none."""

    def runs(self) -> Iterable[Run]:
        """All, in order. Nothing must be started meanwhile."""

    def start(self, run: Run, placements: list[Placement]) -> None:
        """The first jobs of the run start there."""


@dataclass(frozen=True)
class Params:
    """What a site can tune. Names, meaning and defaults are those of Fluxion's queue manager."""

    queue_depth: int = 32
    """Jobs considered in a cycle once something does not fit: starts, reservations and refusals.
    Equal jobs that start together, or are refused together, count as one."""
    max_queue_depth: int = 1_000_000
    reservation_depth: int = 64
    """``hybrid``: how many jobs get a reservation."""
    max_reservation_depth: int = 100_000
    """``conservative`` and ``hybrid``: at most so many do."""

    @property
    def considered(self) -> int:
        return min(self.queue_depth, self.max_queue_depth)


class Reserved(NamedTuple):
    """A job that is expected to start at the reservation's start: number ``k`` of the run."""

    run: Run
    k: int
    reservation: Reservation


class Policy(ABC):
    """Decides for one queue. The loop is here; a policy says for how many jobs to reserve."""

    name: ClassVar[str]

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or Params()
        self.reserved: list[Reserved] = []
        """In the order of the queue, as of the last cycle."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """For how many jobs to reserve; 0: nothing starts before what is ahead of it."""

    def withdraw(self, scheduler: Scheduler) -> None:
        """Give up all reservations. Every queue does, before any has its next cycle."""
        if self.reserved:
            scheduler.release([each.reservation for each in self.reserved])
            self.reserved = []

    def cycle(self, pending: Pending, scheduler: Scheduler, now: float) -> bool:
        """Start what may start. True: call again, there may be more that could."""
        limit = FEW
        while (run := pending.head(limit)) is not None:
            placements = scheduler.alloc(run.shape, run.number, now, run.duration)
            if placements:
                pending.start(run, placements)
            if len(placements) < run.number:
                return self.depth > 0 and self._backfill(pending, scheduler, now)
            limit = min(4 * limit, MANY)  # there is room: offer more at once
        return False

    def _backfill(self, pending: Pending, scheduler: Scheduler, now: float) -> bool:
        started: list[tuple[Run, list[Placement]]] = []
        hopeless: dict[Shape, float] = {}
        """The shortest duration for which a shape did not fit: in a cycle there is only less."""
        considered = 0
        more = False
        for run in pending.runs():
            if considered >= self.params.considered:
                more = bool(started)
                break
            duration = inf if run.duration is None else run.duration
            placements: list[Placement] = []
            if duration < hopeless.get(run.shape, inf) or run.shape not in hopeless:
                placements = scheduler.alloc(run.shape, run.number, now, duration)
                if placements:
                    started.append((run, placements))
                    considered += 1
            if len(placements) == run.number:
                continue
            hopeless[run.shape] = min(duration, hopeless.get(run.shape, inf))
            considered += self._reserve(run, len(placements), considered, scheduler, now)
        for run, placements in started:
            pending.start(run, placements)
        return more

    def _reserve(self, run: Run, k: int, considered: int, scheduler: Scheduler, now: float) -> int:
        """Reserve for the run's jobs from ``k`` on, as far as depths allow; how many were
        considered for that."""
        spent = 0
        while k < run.number and len(self.reserved) < self.depth:
            if considered + spent >= self.params.considered:
                return spent
            duration = inf if run.duration is None else run.duration
            reservation = scheduler.reserve(run.shape, now, duration)
            if reservation is None:
                # It waits for resources that nobody knows when to expect: passed over.
                return spent
            self.reserved.append(Reserved(run, k, reservation))
            spent += 1
            k += 1
        return max(spent, 1)


class Fcfs(Policy):
    """First come, first served: nothing starts before what is ahead of it."""

    name = "fcfs"

    @property
    def depth(self) -> int:
        return 0


class Easy(Policy):
    """What does not delay the first job that has to wait may start before it."""

    name = "easy"

    @property
    def depth(self) -> int:
        return 1


class Conservative(Policy):
    """What does not delay any job ahead of it may start before them."""

    name = "conservative"

    @property
    def depth(self) -> int:
        return min(self.params.max_reservation_depth, self.params.considered)


class Hybrid(Policy):
    """What does not delay the first ``reservation-depth`` jobs that wait may start before them."""

    name = "hybrid"

    @property
    def depth(self) -> int:
        return min(self.params.reservation_depth, self.params.max_reservation_depth)


BUILT_IN: dict[str, type[Policy]] = {
    policy.name: policy for policy in (Fcfs, Easy, Conservative, Hybrid)
}
