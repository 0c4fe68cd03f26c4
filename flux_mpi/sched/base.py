"""The scheduler interface: the only way the job manager speaks to a scheduler.

A scheduler owns which resources are free and nothing else: no queue, no jobs, no clock. The manager
owns the queues and asks for as many equal members at once as could start now.

Time is optional. A scheduler that ``plans`` keeps when each allocation is expected to end, so that
a policy (`policy.py`) can reserve for those that have to wait. Reservations last one cycle: the
policy releases them all before it plans anew, and they hold until then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.placement import Placement


@dataclass(slots=True, eq=False)
class Reservation:
    """Resources held for ``[start, end)``; which they are is the scheduler's business."""

    start: float
    end: float


class Scheduler(ABC):
    """Matches shapes to resources."""

    plans: ClassVar[bool] = False
    """Whether `alloc` heeds durations, and `reserve` and `release` work."""

    @abstractmethod
    def update(self, resources: RSet, up: IDSet | None = None) -> None:
        """These are the resources now; ``up`` are the ranks that may be used (all by default).

        What is allocated stays allocated where it still exists.
        """

    @abstractmethod
    def set_up(self, ranks: IDSet) -> None:
        """Only these ranks may be used for new allocations; what runs elsewhere runs on."""

    def invalid(self, shape: Shape) -> str | None:
        """None, or why this request makes no sense here, such as naming hosts that do not exist."""
        return None

    @abstractmethod
    def feasible(self, shape: Shape) -> str | None:
        """None, or why this request could not even be met by the whole, idle machine.

        Ranks that are down or drained count, for they may come back. None as long as the
        resources are not known.
        """

    @abstractmethod
    def alloc(
        self, shape: Shape, count: int, now: float, duration: float | None = None
    ) -> list[Placement]:
        """Allocate for up to ``count`` equal jobs; fewer placements: no more fit at present.

        ``duration``: how long they will run at most (infinite: no limit). A scheduler that plans
        places only what touches nothing reserved for all that time, and expects the end of each
        at ``now + duration``. None: nobody plans; then nothing may be reserved.
        """

    def reserve(self, shape: Shape, now: float, duration: float = inf) -> Reservation | None:
        """Hold resources for one job at the earliest time after ``now`` at which they are free for
        ``duration``, given the expected ends of what is allocated and what is reserved.

        None: at no time, as far as can be told, such as when ranks that it needs are down.
        """
        raise NotImplementedError(f"{type(self).__name__} does not plan")

    def release(self, reservations: Iterable[Reservation]) -> None:
        """Give reserved resources back. Those that `update` or `set_up` made void are ignored."""
        raise NotImplementedError(f"{type(self).__name__} does not plan")

    @abstractmethod
    def free(self, placements: Iterable[Placement]) -> None:
        """Take these back; each must be allocated."""

    @abstractmethod
    def hello(self, running: Iterable[Placement]) -> list[Placement]:
        """Mark as allocated what ran before a restart or an update.

        Returns those that do not fit the resources (unknown rank or id, or taken already).
        """

    @abstractmethod
    def allocated(self) -> RSet:
        """What is allocated at present, over all ranks."""

    @abstractmethod
    def explain(self, shape: Shape) -> str:
        """Why a request does not start now, or that it would."""

    def outlook(self, shape: Shape, now: float, duration: float = inf) -> str:
        """When a request could start at the earliest, given what is known of what runs and is
        reserved, in words; "" when that cannot be told."""
        return ""

    def remark(self, placement: Placement) -> str:
        """What has become of the resources of something that runs, in words; "" when all is well:
        it may run where nothing new may, or on what is no longer part of the instance."""
        return ""

    def others(self) -> dict[str, dict[str, int]]:
        """Resources that are neither nodes nor cores nor GPUs: by type, units in all (``total``),
        of those ``allocated``, and ``down`` with the node that they belong to."""
        return {}

    def picture(
        self,
        running: Iterable[tuple[Placement, str]],
        reserved: Iterable[tuple[Reservation, str]],
        path: str | None,
        most: int,
    ) -> dict[str, Any] | None:
        """The graph of the resources, or what is at a path, with who has what; see `picture.py`.

        None when there is no such thing. Raises ValueError for more than ``most`` vertices, or a
        path that no vertex has.
        """
        return None
