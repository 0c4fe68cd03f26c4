"""The machine as the bitmap door sees it: nodes in the order of their ranks."""

from __future__ import annotations

import json
from collections.abc import Iterable

from flux_mpi.formats import constraint
from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import EMPTY, IDSet
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.placement import Part


class Machine:
    """What there is, free or not. Node numbers index its sequences; masks are of logical ids."""

    def __init__(self, resources: RSet | None = None) -> None:
        self.resources = resources if resources is not None else RSet()
        self.ranks = tuple(self.resources.cores)
        self.hosts = tuple(self.resources.hosts.values())
        self.cores = tuple(ids.mask for ids in self.resources.cores.values())
        self.gpus = tuple(self.resources.gpus.get(rank, EMPTY).mask for rank in self.ranks)
        self.core_counts = tuple(mask.bit_count() for mask in self.cores)
        self.gpu_counts = tuple(mask.bit_count() for mask in self.gpus)
        self._node_of = {rank: node for node, rank in enumerate(self.ranks)}
        self._matching: dict[str, tuple[int, ...]] = {}

    @property
    def size(self) -> int:
        """Number of nodes."""
        return len(self.ranks)

    def node_of(self, rank: int) -> int | None:
        """The node number of a rank, or None."""
        return self._node_of.get(rank)

    def matching(self, text: str) -> tuple[int, ...]:
        """1 for each node that meets an RFC 31 constraint (its JSON text), 0 for the others."""
        found = self._matching.get(text)
        if found is None:
            ranks = constraint.matching_ranks(json.loads(text), self.resources)
            found = self._matching[text] = tuple(int(rank in ranks) for rank in self.ranks)
        return found

    def unknown_hosts(self, text: str) -> list[str]:
        """The hosts that an RFC 31 constraint names and this machine does not have."""
        known = set(self.hosts)
        unknown: dict[str, None] = {}
        stack = [json.loads(text)]
        while stack:
            for operator, values in stack.pop().items():
                if operator == "hostlist":
                    for value in values:
                        unknown |= dict.fromkeys(
                            host for host in Hostlist.parse(value) if host not in known
                        )
                elif operator in ("and", "or", "not"):
                    stack += values
        return list(unknown)

    def rset(self, parts: Iterable[Part]) -> RSet:
        """Parts of this machine as a resource set."""
        parts = list(parts)
        return RSet(
            {part.rank: IDSet.from_mask(part.cores) for part in parts},
            {part.rank: IDSet.from_mask(part.gpus) for part in parts if part.gpus},
            self.resources.hosts,
            properties=self.resources.properties,
        )
