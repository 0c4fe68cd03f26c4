"""The scheduler interface: the only way the job manager speaks to a scheduler.

A scheduler owns which resources are free and nothing else: no queue, no jobs, no clock. The manager
owns the queue and asks for as many equal members at once as could start now.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.placement import Placement


class Scheduler(ABC):
    """Matches shapes to resources."""

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
    def alloc(self, shape: Shape, count: int, now: float) -> list[Placement]:
        """Allocate for up to ``count`` equal jobs; fewer placements: no more fit at present."""

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
