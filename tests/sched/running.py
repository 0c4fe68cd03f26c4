"""What runs, and when it ends: for tests that hold plans against brute force."""

from __future__ import annotations

from typing import Any

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.placement import Placement
from flux_mpi.sched.tiered import Tier

Running = list[tuple[Placement, float]]
"""Placements and when they end."""

ODD = '{"properties":["odd"]}'


def bitmap_door(
    resources: RSet, running: list[Placement], up: IDSet | None = None
) -> BitmapScheduler:
    """A bitmap door on which this runs."""
    scheduler = BitmapScheduler(Tier("never"))
    scheduler.update(resources, up)
    assert not scheduler.hello([Placement(p.parts, p.hosts) for p in running])
    return scheduler


def could_start(resources: RSet, running: Running, shape: Shape, when: float) -> bool:
    """Whether an unplanned scheduler could place this once all that ends by then has ended."""
    left = [placement for placement, end in running if end > when]
    return bool(bitmap_door(resources, left).alloc(shape, 1, when))


def fill(scheduler: Any, work: list[tuple[Shape, int]]) -> Running:
    """Start at 0 what fits, in order."""
    return [
        (placement, float(duration))
        for shape, duration in work
        for placement in scheduler.alloc(shape, 1, 0.0, float(duration))
    ]
