"""The queues of an instance at work: which are open, and each one's turn with the scheduler."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from math import inf

from flux_mpi.job.arrays import JobArray
from flux_mpi.job.eventlogs import priority_of
from flux_mpi.job.queue import Queue
from flux_mpi.job.queueconfig import QueueConfig, QueueSettings
from flux_mpi.message.errors import FluxError, ServiceError
from flux_mpi.sched.base import Scheduler
from flux_mpi.sched.placement import Placement
from flux_mpi.sched.policy import Fcfs, Run

Start = Callable[[JobArray, int, list[Placement], float], None]
"""Called with an array, a member, the placements of it and those after it, and the time."""

Members = tuple[JobArray, int, int]
"""An array, a member, and how many from it on."""


class Lane:
    """One queue: its jobs, its two switches, and the policy that decides for it.

    A virtual queue (RFC 33) has jobs and switches, but its parent's policy decides.
    """

    def __init__(self, config: QueueConfig) -> None:
        self.config = config
        self.name = config.name
        self.queue = Queue()
        self.policy = config.policy(config.params)
        self.parent: Lane | None = None
        self.virtual: list[Lane] = []
        self.after = 0
        """How many lines are served before the one that it stands in."""
        self.enabled = True
        self.disable_reason = ""
        self.started = True
        self.stop_reason = ""

    def enable(self, enable: bool, reason: str) -> None:
        """Accept submissions, or refuse them with ``reason``."""
        self.enabled = enable
        self.disable_reason = "" if enable else reason

    def start(self, start: bool, reason: str) -> None:
        """Start jobs, or keep them queued."""
        self.started = start
        self.stop_reason = "" if start else reason

    @property
    def serving(self) -> bool:
        """Whether its jobs may start."""
        return self.started and (self.parent is None or self.parent.started)

    @property
    def line(self) -> list[Queue]:
        """Its jobs and those of virtual queues, as far as these are started."""
        return [self.queue, *(other.queue for other in self.virtual if other.started)]

    def status(self) -> dict[str, object]:
        """What RFC 33 says of a queue, and what its rules are."""
        status: dict[str, object] = {"enable": self.enabled, "start": self.serving}
        if not self.enabled:
            status["disable_reason"] = self.disable_reason
        if not self.started and self.stop_reason:
            status["stop_reason"] = self.stop_reason
        if self.parent is not None:
            status["parent"] = self.parent.name
            if self.started and not self.parent.started:
                status["blocked"] = "parent"
                status["stop_reason"] = f"parent queue {self.parent.name!r} is stopped"
        limits = self.config.limits
        status["policy"] = self.policy.name if self.parent is None else self.parent.policy.name
        status["requires"] = list(self.config.requires)
        status["defaults"] = {"duration": self.config.default_duration}
        status["limits"] = {
            "duration": limits.duration,
            "max": dict(limits.most),
            "min": dict(limits.least),
        }
        return status


class Queues:
    """All queues. One without a name unless some are configured."""

    def __init__(self, settings: QueueSettings | None = None) -> None:
        self.settings = settings or QueueSettings()
        self.lanes = {name: Lane(config) for name, config in self.settings.queues.items()}
        for lane in self.lanes.values():
            if lane.config.parent:
                lane.parent = self.lanes[lane.config.parent]
                lane.parent.virtual.append(lane)
        self._serving = sorted(
            (lane for lane in self.lanes.values() if lane.parent is None),
            key=lambda lane: -lane.config.priority,
        )
        for after, lane in enumerate(self._serving):
            for each in (lane, *lane.virtual):
                each.after = after
        self._only = self.lanes.get("")
        self._time = 0.0
        self.plans = any(lane.policy.depth for lane in self._serving)
        """Whether any policy reserves: then the scheduler must know how long jobs run."""

    # -- jobs -----------------------------------------------------------------------------------

    def lane_of(self, jobs: JobArray) -> Lane:
        """The queue that an array was submitted to."""
        return self._only or self.lanes[jobs.jobspec.queue or ""]

    def push_array(self, jobs: JobArray) -> None:
        """Queue all members at their array's urgency."""
        self.lane_of(jobs).queue.push_array(jobs)

    def push_member(self, jobs: JobArray, k: int) -> None:
        """Queue one detached member at its own urgency."""
        self.lane_of(jobs).queue.push_member(jobs, k)

    def ordered(self, more: Sequence[Members] = ()) -> Iterator[Members]:
        """Everything queued, and ``more`` with it, by priority and id whatever queue it is in, held
        jobs last."""
        queued = _merged([lane.queue for lane in self.lanes.values()])
        return merge(sorted(more, key=_place), queued, key=_place) if more else queued

    def check_open(self, name: str) -> None:
        """Raises ServiceError EINVAL while the queue takes no jobs."""
        lane = self._only or self.lanes[name]
        if not lane.enabled:
            to = f" to {lane.name}" if lane.name else ""
            why = lane.disable_reason or "no reason"
            raise ServiceError(errno.EINVAL, f"job submission{to} is disabled: {why}")

    def names_of(self, name: str | None) -> set[str] | None:
        """The queues whose jobs stand in that one's line: itself, and virtual ones; None: any."""
        if name is None:
            return None
        lane = self.lanes.get(name)
        return {name, *(other.name for other in lane.virtual)} if lane else {name}

    def select(self, name: str | None, everyone: bool = True) -> list[Lane]:
        """The queues a request is about: the named one, or all. Raises ServiceError EINVAL."""
        if name:
            lane = self.lanes.get(name)
            if lane is None:
                raise ServiceError(errno.EINVAL, f"{name!r} is not a valid queue")
            return [lane]
        if not everyone and self._only is None:
            raise ServiceError(errno.EINVAL, "Use --all to apply this command to all queues")
        return list(self.lanes.values())

    # -- the scheduler's turn -------------------------------------------------------------------

    def check_scheduler(self, scheduler: Scheduler) -> None:
        """Raises FluxError EINVAL when a policy asks more of the scheduler than it can."""
        for lane in self._serving:
            if lane.policy.depth and not scheduler.plans:
                key = f"queues.{lane.name}" if lane.name else "sched.queue-policy"
                raise FluxError(
                    errno.EINVAL,
                    f"configuration: {key}: found {lane.policy.name!r}, which reserves resources; "
                    f"allowed with {type(scheduler).__name__}, which cannot: fcfs",
                )

    def cycle(
        self, scheduler: Scheduler, now: float, start: Start, expiration: float = inf
    ) -> bool:
        """Start what the policies let start; True: call again, there may be more.

        ``expiration``: when the instance ends, and all jobs with it.
        """
        if self.plans:
            self._time = now
            for lane in self._serving:
                lane.policy.withdraw(scheduler)
        more = False
        for lane in self._serving:
            if lane.started:
                longest = max(0.0, expiration - now) if self.plans else None
                waiting = _Waiting(lane.line, start, now, longest)
                more |= lane.policy.cycle(waiting, scheduler, now)
        return more

    # -- who is next ----------------------------------------------------------------------------

    def in_order(self, jobs: JobArray) -> bool:
        """Whether this array's jobs start one after the other and none is passed by: then it is
        known beforehand who gets what one of them leaves. A policy of someone else's may do
        anything; and one that plans is told when what starts will end, so it must be asked."""
        lane = self.lane_of(jobs)
        return not self.plans and type((lane.parent or lane).policy) is Fcfs

    def next(self, limit: int) -> Members | None:
        """Who is the first to be offered whatever comes free: the head of the first line with jobs
        that may start, at most ``limit`` of them."""
        for lane in self._serving:
            if lane.started and (found := _head(lane.line, limit)) is not None:
                return found
        return None

    def precede(self, arrays: Iterable[JobArray]) -> bool:
        """Whether who is next comes before waiting members of any of these arrays: its line is
        served before theirs, or it has a higher priority."""
        found = self.next(1)
        if found is None:
            return False
        jobs, k, _ = found
        first = self.lane_of(jobs).after, -priority_of(jobs.urgency_of(k))
        return any(
            first < (self.lane_of(other).after, -priority_of(other.urgency)) for other in arrays
        )

    def expected(self, horizon_s: float = 1e8) -> dict[int, float]:
        """When jobs with a reservation will start, by id, as of the last cycle.

        Those that wait for jobs without a limit have one too, but nobody wants to know the year.
        """
        return {
            each.run.ticket[0].id(each.run.ticket[1] + each.k): each.reservation.start
            for lane in self._serving
            for each in lane.policy.reserved
            if each.reservation.start < self._time + horizon_s
        }


class _Waiting:
    """The jobs of a queue, and of the virtual ones that share it, as a policy sees them."""

    __slots__ = ("_queues", "_start", "_now", "_longest")

    def __init__(
        self, queues: list[Queue], start: Start, now: float, longest: float | None
    ) -> None:
        self._queues = queues
        self._start = start
        self._now = now
        self._longest = longest

    def head(self, limit: int) -> Run | None:
        found = _head(self._queues, limit)
        return None if found is None else self._run(found)

    def runs(self) -> Iterator[Run]:
        for found in _merged(self._queues):
            jobs, k, _ = found
            if not jobs.urgency_of(k):
                return  # held, as is all that follows
            yield self._run(found)

    def start(self, run: Run, placements: list[Placement]) -> None:
        jobs, k = run.ticket
        self._start(jobs, k, placements, self._now)

    def _run(self, found: Members) -> Run:
        jobs, k, n = found
        longest = self._longest
        if longest is not None and jobs.duration:
            longest = min(longest, jobs.duration)
        return Run(jobs.shape, n, longest, (jobs, k))


def _place(found: Members) -> tuple[int, int]:
    """Where it stands: by priority, then by id."""
    jobs, k, _ = found
    return -priority_of(jobs.urgency_of(k)), jobs.id(k)


def _head(queues: list[Queue], limit: int) -> Members | None:
    if len(queues) == 1:
        return queues[0].head(limit)
    heads = [head for queue in queues if (head := queue.head(limit)) is not None]
    return min(heads, key=_place, default=None)


def _merged(queues: list[Queue]) -> Iterator[Members]:
    if len(queues) == 1:
        return queues[0].ordered()
    return merge(*(queue.ordered() for queue in queues), key=_place)
