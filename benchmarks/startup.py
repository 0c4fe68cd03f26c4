"""From mpiexec to the first finished job of 16 brokers, with cold and warm Numba caches.

Reference in the same run: mpiexec of as many Python processes that only import mpi4py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from _common import Row, environment, main, program, run, timed

MPI_ONLY = "from mpi4py import MPI; MPI.COMM_WORLD.Barrier()"


def first_job(ranks: int, cache: Path, *options: str) -> float:
    """Seconds from mpiexec until ``flux-mpi run true`` has returned inside the instance."""
    with tempfile.TemporaryDirectory() as folder:
        stamp = Path(folder, "done")
        script = f'flux-mpi run true && date +%s.%N >"{stamp}"'
        began = time.time()
        run(
            [
                *(program("mpiexec"), "-n", str(ranks), program("flux-mpi"), "start", *options),
                *("/bin/sh", "-c", script),
            ],
            env=environment({"NUMBA_CACHE_DIR": str(cache)}),
        )
        return float(stamp.read_text()) - began


def measure(options: argparse.Namespace) -> list[Row]:
    cold, warm, plain = [], [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(first_job(options.ranks, Path(cache)))
            warm.append(first_job(options.ranks, Path(cache)))
        plain.append(
            timed(
                lambda: run(
                    [program("mpiexec"), "-n", str(options.ranks), sys.executable, "-c", MPI_ONLY]
                )
            )
        )
    reference = f"{statistics.median(plain):.2f} s for {options.ranks} × import mpi4py"
    return [
        Row(
            f"{options.ranks} brokers up until the first job has run, cold cache",
            f"{statistics.median(cold):.2f} s",
            reference,
            "4.9 s",
            "≤ 2.5 s",
            statistics.median(cold) <= 2.5,
        ),
        Row(
            "the same, warm cache",
            f"{statistics.median(warm):.2f} s",
            reference,
            "4.9 s",
            "≤ 2.0 s",
            statistics.median(warm) <= 2.0,
        ),
    ]


if __name__ == "__main__":
    main(measure, __doc__, {"--ranks": 16, "--repeats": 3})
