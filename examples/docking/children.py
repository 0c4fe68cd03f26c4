"""How a batch gets an instance of its own: the one place that knows."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import flux_mpi
from flux_mpi.formats import fluid

HERE = Path(__file__).resolve().parent
WAYS = ("batch", "start")


def start_child(
    handle: flux_mpi.Handle, folder: Path, batch: int, cores: int, way: str = "batch"
) -> int:
    """Submit batch ``batch`` of the screen in ``folder`` as a child instance with ``cores`` cores
    of one rank; returns the id of its job in the instance of ``handle``.

    ``way`` is ``batch`` (the parent's own brokers become those of the child), or ``start`` (a new
    broker, started by the job like any program; its MPI is its own). Raises OSError.
    """
    script = folder / "batches" / f"{batch}.sh"
    said = folder / "batches" / f"{batch}.log"
    program = [sys.executable, str(HERE / "batch.py"), "--screen", str(folder), "--batch"]
    flux = [sys.executable, "-m", "flux_mpi"]
    name = f"batch-{batch}"
    if way == "start":
        return int(
            flux_mpi.submit(
                [*flux, "start", f"--cores-per-rank={cores}", *program, str(batch)],
                cores_per_task=cores,
                name=name,
                output=str(said),
                error=str(said),
                handle=handle,
            )
        )
    script.write_text(f"#!/bin/sh\nexec {shlex.join(program)} {batch}\n")
    done = subprocess.run(
        [
            *flux,
            "batch",
            "-n1",
            f"-c{cores}",
            f"--job-name={name}",
            f"--output={said}",
            str(script),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said_last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise OSError(f"flux-mpi batch: {said_last}")
    return fluid.parse(done.stdout.split()[-1])
