"""Small machines and requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet

Nodes = Sequence[tuple[int, int]]


@pytest.fixture(scope="session")
def resources() -> Callable[..., RSet]:
    """``resources([(cores, gpus), …], properties={})``: one rank a node."""

    def make(nodes: Nodes, properties: dict[str, str] | None = None) -> RSet:
        return RSet(
            {rank: IDSet(range(cores)) for rank, (cores, _) in enumerate(nodes)},
            {rank: IDSet(range(gpus)) for rank, (_, gpus) in enumerate(nodes) if gpus},
            {rank: f"node{rank}" for rank in range(len(nodes))},
            properties={name: IDSet.parse(ranks) for name, ranks in (properties or {}).items()},
        )

    return make


@pytest.fixture(scope="session")
def shape() -> Callable[..., Shape]:
    """A request; ``nnodes`` with ``slots`` on each, or ``slots`` anywhere."""

    def make(
        slots: int = 1,
        cores: int = 1,
        gpus: int = 0,
        nnodes: int = 0,
        exclusive: bool = False,
        constraint: str = "",
    ) -> Shape:
        total = slots * nnodes if nnodes else slots
        per_node = slots if nnodes else 0
        return Shape(nnodes, total, per_node, cores, gpus, exclusive, total, constraint)

    return make
