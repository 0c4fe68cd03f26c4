"""What ``resource.status`` says of an instance, as sets."""

from __future__ import annotations

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.rv1 import RSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATES = ("up", "down", "allocated", "free", "all")


class ResourceStatus:
    """The resources of an instance at one moment."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.all = RSet.parse(answer["R"]) if answer.get("R") else RSet()
        self.allocated = RSet.parse(answer["allocated"]) if answer.get("allocated") else RSet()
        self.online = IDSet.parse(answer.get("online") or "")
        self.offline = IDSet.parse(answer.get("offline") or "")
        self.exclude = IDSet.parse(answer.get("exclude") or "")
        self.expiration: float = answer.get("expiration") or 0.0
        """Unix time at which the instance must end; 0: not known."""
        self.others: dict[str, dict[str, int]] = answer.get("others") or {}
        """Units of what there is beside nodes, cores and GPUs, by type."""
        self.drained: dict[IDSet, tuple[float, str]] = {
            IDSet.parse(ranks): (when, reason or "")
            for ranks, (when, reason) in (answer.get("drained") or {}).items()
        }

    @property
    def drained_ranks(self) -> IDSet:
        found = IDSet()
        for ranks in self.drained:
            found = found | ranks
        return found

    def scheduler(self, state: str) -> RSet:
        """The scheduler's view: what is up, down, allocated, free, or all there is."""
        usable = self.all.subset(self.all.ranks - self.exclude)
        unusable = self.offline | self.drained_ranks
        if state == "all":
            return usable
        if state == "down":
            return usable.subset(usable.ranks & unusable)
        if state == "up":
            return usable.subset(usable.ranks - unusable)
        if state == "allocated":
            return self.allocated
        return usable.subset(usable.ranks - unusable) - self.allocated

    def counts(self) -> dict[str, dict[str, int]]:
        """``{state: {nnodes, ncores, ngpus}}`` of each of ``STATES``."""
        found = {}
        for state in STATES:
            resources = self.scheduler(state)
            found[state] = {
                "nnodes": resources.nnodes,
                "ncores": resources.ncores,
                "ngpus": resources.ngpus,
            }
        return found
