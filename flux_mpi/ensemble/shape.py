"""The shape of a hierarchy: how many instances on how many levels, and what each of them gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.formats.rv1 import RSet
from flux_mpi.formats.shape import Shape

MAX_LEVELS = 16
"""Levels below the first that a topology may have."""
MAX_PARTS = 4096
"""Child instances of one instance."""

AUTO = "auto"


def parse_topology(value: Any) -> list[int]:
    """How many children an instance has on each level, from the top: ``4x8``, or a list.

    A level of one child would add nothing but a scheduler in the way: it is left out, so that ``1``
    and ``""`` are one level. Raises ValueError saying what was found.
    """
    if isinstance(value, str):
        words = value.split("x") if value else []
        if not all(word.isascii() and word.isdigit() and len(word) <= 9 for word in words):
            raise ValueError(
                f"topology: expected numbers joined by x, such as 4x8, or auto, "
                f"found {value[:64]!r}"
            )
        levels = [int(word) for word in words]
    elif isinstance(value, list) and all(type(level) is int for level in value):
        levels = list(value)
    elif value is None:
        levels = []
    else:
        raise ValueError(f"topology: expected text such as 4x8, found {value!r}"[:200])
    for level in levels:
        if not 1 <= level <= MAX_PARTS:
            raise ValueError(f"topology: expected 1 to {MAX_PARTS} children a level, found {level}")
    levels = [level for level in levels if level > 1]
    if len(levels) > MAX_LEVELS:
        raise ValueError(f"topology: expected at most {MAX_LEVELS} levels, found {len(levels)}")
    return levels


def topology_text(levels: Sequence[int]) -> str:
    """``4x8``; ``1`` for one level."""
    return "x".join(map(str, levels)) or "1"


@dataclass(frozen=True, slots=True)
class Machine:
    """What an instance has: cores and GPUs of each of its ranks that can be used."""

    cores: tuple[int, ...]
    gpus: tuple[int, ...] = ()
    hosts: int = 1
    """On how many hosts these ranks are."""
    partial: bool = False
    """The ranks have more cores or GPUs than these."""

    @classmethod
    def of(cls, status: dict[str, Any]) -> Machine:
        """From the answer of ``resource.status``: ranks that are online, not drained nor excluded.

        Raises ValueError.
        """
        resources = RSet.parse(status["R"])
        usable = IDSet.parse(status["online"]) - IDSet.parse(status.get("exclude") or "")
        for ranks in status.get("drained") or {}:
            usable -= IDSet.parse(ranks)
        ranks = [rank for rank in resources.cores if rank in usable]
        return cls(
            tuple(len(resources.cores[rank]) for rank in ranks),
            tuple(len(resources.gpus.get(rank, ())) for rank in ranks),
            len({resources.hosts[rank] for rank in ranks}),
        )

    @property
    def ranks(self) -> int:
        return len(self.cores)

    @property
    def ncores(self) -> int:
        return sum(self.cores)

    @property
    def ngpus(self) -> int:
        return sum(self.gpus)

    def limited(self, nnodes: int | None, cores: int | None, gpus: int | None = None) -> Machine:
        """Only so many ranks, with so many cores and GPUs each; None: all. Raises ValueError."""
        wanted = self.ranks if nnodes is None else nnodes
        if not 1 <= wanted <= self.ranks:
            raise ValueError(f"nnodes: {wanted} of them were asked for, there are {self.ranks}")
        for name, each, there in (("ncores", cores, self.cores), ("ngpus", gpus, self.gpus)):
            found = min(there[:wanted], default=0)
            if each is not None and each > found:
                raise ValueError(
                    f"{name}-per-node: {each} on each node were asked for, there are {found}"
                )
        return Machine(
            tuple(have if cores is None else cores for have in self.cores[:wanted]),
            tuple(have if gpus is None else gpus for have in self.gpus[:wanted]),
            self.hosts,
            partial=cores is not None or gpus is not None,
        )

    def text(self) -> str:
        """``16 cores (4 ranks of 4)``."""
        if not self.cores:
            return "no cores (no rank can be used)"
        few, many = min(self.cores), max(self.cores)
        each = str(few) if few == many else f"{few} to {many}"
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        cores = "1 core" if self.ncores == 1 else f"{self.ncores} cores"
        return f"{cores} ({ranks} of {each})"


@dataclass(frozen=True, slots=True)
class Part:
    """What one child instance gets."""

    ncores: int
    nnodes: int = 0
    """Ranks that it lies on, evenly; 0: wherever there are cores."""
    exclusive: bool = False
    """It has these ranks to itself."""
    gpus: int = 0
    """GPUs on each rank, besides those of exclusive ones."""

    def jobspec(self, command: Sequence[str], **common: Any) -> dict[str, Any]:
        """The jobspec of ``command`` with one task a rank on these resources.

        ``common`` is what `Jobspec.per_resource` takes. Raises JobspecError.
        """
        resources: dict[str, Any] = {"ncores": None if self.exclusive else self.ncores}
        if self.nnodes:
            resources |= {"nnodes": self.nnodes, "exclusive": self.exclusive}
            resources["gpus_per_node"] = 0 if self.exclusive else self.gpus
        return Jobspec.per_resource(
            command, **resources, per_resource_type="node", per_resource_count=1, **common
        ).to_dict()

    def machine(self, whole: Machine) -> Machine:
        """What a child instance will find, as far as that can be told beforehand."""
        if self.nnodes:
            each = self.ncores // self.nnodes
            gpus = max(whole.gpus, default=0) if self.exclusive else self.gpus
            hosts = min(self.nnodes, whole.hosts)
            return Machine((each,) * self.nnodes, (gpus,) * self.nnodes, hosts)
        left, cores = self.ncores, []
        for have in whole.cores:
            if left > 0:
                cores.append(min(have, left))
                left -= have
        return Machine(tuple(cores), (0,) * len(cores), min(len(cores), whole.hosts))


def divide(machine: Machine, parts: int) -> list[Part]:
    """An instance's resources in ``parts`` equal ones: whole ranks if these can be dealt out
    evenly, equal shares of each rank if there are as many for every rank; else any cores, of which
    some parts get one more than others. Raises ValueError naming what was asked and what is there.
    """
    ranks, total = machine.ranks, machine.ncores
    if parts > total:
        raise ValueError(
            f"topology: {parts} instances were asked for, there are {machine.text()}: "
            "each needs one core at least"
        )
    alike = ranks and min(machine.cores) == max(machine.cores)
    if alike and ranks % parts == 0:
        gpus = min(machine.gpus, default=0) if machine.partial else 0
        part = Part(total // parts, ranks // parts, exclusive=not machine.partial, gpus=gpus)
        return [part] * parts
    if alike and parts % ranks == 0 and machine.cores[0] % (parts // ranks) == 0:
        shares = parts // ranks
        gpus = min(machine.gpus, default=0) // shares
        return [Part(machine.cores[0] // shares, 1, gpus=gpus)] * parts
    each, more = divmod(total, parts)
    return [Part(each + (k < more)) for k in range(parts)]


def leaf(machine: Machine, topology: Sequence[int]) -> Machine:
    """The smallest instance on the lowest level. Raises ValueError as `divide` does."""
    for level, parts in enumerate(topology):
        try:
            smallest = min(divide(machine, parts), key=lambda part: part.ncores)
        except ValueError as error:
            where = f"level {level + 1} of {topology_text(topology)}: " if level else ""
            raise ValueError(f"topology: {where}{str(error).removeprefix('topology: ')}") from None
        machine = smallest.machine(machine)
    return machine


def check_fits(shape: Shape, machine: Machine, topology: Sequence[int]) -> None:
    """Whether a member can run on the lowest level; raises ValueError saying what is missing."""
    smallest = leaf(machine, topology)
    for needed, there, what in (
        (shape.ncores, smallest.ncores, "core"),
        (shape.nnodes, smallest.ranks, "node"),
        (shape.ngpus, smallest.ngpus, "GPU"),
    ):
        if needed > there:
            raise ValueError(
                f"a member needs {needed} {what}{'s' if needed != 1 else ''}, an instance on the "
                f"lowest level of {topology_text(topology)} has {there}: there are "
                f"{machine.text()} in {prod(topology)} part{'s' if prod(topology) != 1 else ''}"
            )


def capacity(shape: Shape, machine: Machine) -> int:
    """How many members can run at a time, at least 1."""
    if shape.nnodes and shape.exclusive:
        return max(1, machine.ranks // shape.nnodes)
    found = machine.ncores // shape.ncores if shape.ncores else machine.ncores
    if shape.ngpus:
        found = min(found, machine.ngpus // shape.ngpus)
    return max(1, found)
