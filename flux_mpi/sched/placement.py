"""Where one job runs: an immutable value that says everything about its resources.

Equal placements are one object within a scheduler, so that the texts derived from them (idsets,
node lists, summaries) are made once however many members run there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.rv1 import RSet


class Part(NamedTuple):
    """The share of one rank; ``cores`` and ``gpus`` are bitmasks of the rank's logical ids."""

    rank: int
    slots: int
    cores: int
    gpus: int


class Placement:
    """The resources of one job: its parts, ascending by rank.

    ``key`` is whatever the scheduler that made it needs to take the resources back. ``extras`` are
    units of whatever else it has by type, and ``scheduling`` the JGF of all of it, as JSON text.
    """

    __slots__ = (
        "parts",
        "key",
        "hosts",
        "ranks_mask",
        "extras",
        "scheduling",
        "_texts",
        "_ranks",
        "_rset",
        "_summary",
    )

    def __init__(
        self,
        parts: Sequence[Part],
        hosts: Sequence[str],
        key: Any = None,
        extras: Mapping[str, int] | None = None,
        scheduling: str = "",
    ) -> None:
        self.extras = extras or {}
        self.scheduling = scheduling
        self.parts = tuple(parts)
        self.hosts = tuple(hosts)
        self.key = key
        mask = 0
        for part in self.parts:
            mask |= 1 << part.rank
        self.ranks_mask = mask
        self._texts: tuple[tuple[str, str], ...] | None = None
        self._ranks: str | None = None
        self._rset: RSet | None = None
        self._summary: str | None = None

    @property
    def nnodes(self) -> int:
        return len(self.parts)

    @property
    def ncores(self) -> int:
        return sum(part.cores.bit_count() for part in self.parts)

    @property
    def ngpus(self) -> int:
        return sum(part.gpus.bit_count() for part in self.parts)

    @property
    def nslots(self) -> int:
        return sum(part.slots for part in self.parts)

    @property
    def ranks(self) -> str:
        """The ranks as an idset, such as ``0-3``."""
        if self._ranks is None:
            self._ranks = str(IDSet(part.rank for part in self.parts))
        return self._ranks

    @property
    def id_texts(self) -> tuple[tuple[str, str], ...]:
        """For each part the idsets of its cores and GPUs."""
        if self._texts is None:
            self._texts = tuple(
                (str(IDSet.from_mask(part.cores)), str(IDSet.from_mask(part.gpus)))
                for part in self.parts
            )
        return self._texts

    @property
    def rset(self) -> RSet:
        """As a resource set (RFC 20)."""
        if self._rset is None:
            self._rset = RSet(
                {part.rank: IDSet.from_mask(part.cores) for part in self.parts},
                {part.rank: IDSet.from_mask(part.gpus) for part in self.parts if part.gpus},
                {part.rank: host for part, host in zip(self.parts, self.hosts)},
                nslots=self.nslots or None,
            )
        return self._rset

    def to_dict(self, starttime: float, expiration: float) -> dict[str, Any]:
        """R, with all that the graph door has to say of it."""
        found = self.rset.to_dict(starttime, expiration)
        if self.scheduling:
            found["scheduling"] = json.loads(self.scheduling)
        return found

    def subgraph(self) -> dict[str, Any]:
        """JGF of all of it, as the graph of an instance whose ranks 0, 1, … are these parts."""
        rank_of = {part.rank: at for at, part in enumerate(self.parts)}
        document: dict[str, Any] = json.loads(self.scheduling)
        for node in document["graph"]["nodes"]:
            metadata = node["metadata"]
            metadata["rank"] = rank_of.get(metadata.get("rank", -1), -1)
            # What is its parent's alone is to be shared by its own jobs.
            metadata.pop("exclusive", None)
        return document

    @property
    def summary(self) -> str:
        """RFC 27's ``resource_summary``, such as ``rank[0-1]/core[0-3]``."""
        if self._summary is None:
            self._summary = self.rset.summary()
        return self._summary

    @property
    def nodelist(self) -> str:
        """The hosts as a hostlist, one for each rank."""
        return str(self.rset.hostlist)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placement) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def __repr__(self) -> str:
        return f"Placement({self.summary})"
