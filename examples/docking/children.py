"""How a batch gets an instance of its own: the one place that knows."""

from __future__ import annotations

import sys
from pathlib import Path

import flux_mpi

HERE = Path(__file__).resolve().parent
WAYS = ("batch", "start")


def start_child(
    handle: flux_mpi.Handle, folder: Path, batch: int, cores: int, way: str = "batch"
) -> int:
    """Submit batch ``batch`` of the screen in ``folder`` as a child instance with ``cores`` cores
    of one rank; returns the id of its job in the instance of ``handle``.

    ``way`` is ``batch`` (the parent's own brokers make the child), or ``start`` (the job is a
    program that makes an instance by itself, with an MPI of its own). Raises OSError.
    """
    program = [sys.executable, str(HERE / "batch.py"), "--screen", str(folder)]
    program += ["--batch", str(batch)]
    said = str(folder / "batches" / f"{batch}.log")
    name = f"batch-{batch}"
    if way == "start":
        start = [sys.executable, "-m", "flux_mpi", "start", f"--cores-per-rank={cores}"]
        job = flux_mpi.submit(
            [*start, *program], cores_per_task=cores, name=name, output=said, error=said,
            handle=handle,
        )  # fmt: skip
    else:
        job = flux_mpi.batch(
            program, nslots=1, cores_per_slot=cores, name=name, output=said, error=said,
            handle=handle,
        )  # fmt: skip
    return int(job)
