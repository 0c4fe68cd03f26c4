"""Queue policies: a workload through each of them, and what a plan of many reservations costs.

The jobs run through the real job manager and scheduler under a simulated clock (sim/replay.py).
Without ``--log FILE`` (Standard Workload Format, ``.gz`` too, as the Parallel Workloads Archive has
them) they are made by the model of Lublin and Feitelson (2003); and where the package ``evalys`` is
installed (extra ``benchmarks``), the small log that it ships is replayed as well. The reference is
FCFS on the same jobs.

The slowdown is bounded: jobs shorter than 10 s count as 10 s.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import random
import time
from collections.abc import Iterator
from pathlib import Path

from _common import BenchmarkError, Row, main

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.base import Reservation
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.policy import BUILT_IN
from flux_mpi.sched.tiered import Tier
from flux_mpi.sim import lublin, swf
from flux_mpi.sim.replay import Outcome, replay


def workloads(options: argparse.Namespace) -> Iterator[tuple[swf.Log, str]]:
    """Jobs, and what they are."""
    if options.log:
        yield recorded(Path(options.log), options.jobs)
        return
    log = lublin.generate(options.jobs, options.processors, options.load, options.seed)
    yield log, f"Lublin–Feitelson model, {options.load:.0%} load"
    try:
        files = importlib.metadata.files("evalys") or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for file in sorted(file for file in files if file.suffix == ".swf")[:1]:
        yield recorded(Path(str(file.locate())), options.jobs)


def recorded(path: Path, most: int) -> tuple[swf.Log, str]:
    """The first jobs of a log."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
            log = swf.parse(lines)
    except ValueError as error:
        raise BenchmarkError(f"{path}: {error}") from None
    del log.jobs[most:]
    if not log.jobs:
        raise BenchmarkError(f"{path}: not one job that ran")
    return log, path.name


def measures(outcome: Outcome) -> str:
    return (
        f"{outcome.utilisation:.1%} used, wait {outcome.mean_wait / 3600:.2f} h, "
        f"slowdown {outcome.bounded_slowdown:,.1f}"
    )


def policies(log: swf.Log, name: str, node_cores: int) -> list[Row]:
    rows = []
    first: Outcome | None = None
    for policy in BUILT_IN:  # fcfs first
        config = {"sched": {"queue-policy": policy}}
        outcome = replay(log.jobs, log.processors, config, node_cores=node_cores)
        first = first or outcome
        rows.append(
            Row(
                f"{policy}: {len(log.jobs):,} jobs on {log.processors} cores ({name})",
                measures(outcome),
                "" if outcome is first else measures(first),
                target="" if outcome is first else "no worse than FCFS on each",
                met=None if outcome is first else outcome.no_worse_than(first),
            )
        )
    return rows


def cycle(nodes: int, jobs: int) -> float:
    """Seconds to reserve for that many waiting jobs of 1 to 1,024 whole nodes on a full machine."""
    source = random.Random(1)
    scheduler = BitmapScheduler(Tier("always"))
    cores = IDSet(range(48))
    scheduler.update(
        RSet(dict.fromkeys(range(nodes), cores), {}, {rank: f"n{rank}" for rank in range(nodes)})
    )

    def request() -> tuple[Shape, float]:
        n = min(1024, nodes, 2 ** source.randint(0, 9) * source.randint(1, 2))
        return Shape(n, n, 1, 1, 0, True, n), source.uniform(60.0, 86400.0)

    scheduler.alloc(Shape(1, 1, 1, 1, 0, True, 1), 1, 0.0)
    scheduler.tier.wait(120)
    for _ in range(nodes // 8):
        shape, duration = request()
        scheduler.alloc(shape, 1, 0.0, duration)
    waiting = [request() for _ in range(jobs)]
    best = float("inf")
    for _ in range(3):
        reservations: list[Reservation] = []
        begin = time.perf_counter()
        for shape, duration in waiting:
            if not scheduler.alloc(shape, 1, 1.0, duration):
                reservation = scheduler.reserve(shape, 1.0, duration)
                if reservation is None:
                    raise BenchmarkError("a job of whole nodes could not be planned")
                reservations.append(reservation)
        best = min(best, time.perf_counter() - begin)
        scheduler.release(reservations)
    return best


def measure(options: argparse.Namespace) -> list[Row]:
    rows = []
    for log, name in workloads(options):
        rows += policies(log, name, options.node_cores)
    seconds = cycle(options.nodes, options.waiting)
    rows.append(
        Row(
            f"conservative cycle: {options.waiting:,} waiting jobs, {options.nodes:,} full nodes",
            f"{seconds:.2f} s ({seconds / options.waiting * 1e6:,.0f} µs a job)",
            "",
            "–",
            "≤ 1 s",
            seconds <= 1.0,
        )
    )
    return rows


if __name__ == "__main__":
    main(
        measure,
        __doc__,
        {
            "--log": "",
            "--jobs": 5_000,
            "--processors": 128,
            "--node-cores": 1,
            "--load": 0.75,
            "--seed": 1,
            "--nodes": 16_384,
            "--waiting": 10_000,
        },
    )
