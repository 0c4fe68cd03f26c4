"""1,000 × /bin/true on one instance of four ranks, from the submit until the last job is clean.

References in the same run: a bare C posix_spawn loop with four in flight (the machine's limit), and
mpi4py.futures with four workers that posix_spawn. The three take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from _common import (
    BenchmarkError,
    Instance,
    Row,
    environment,
    main,
    program,
    rate,
    run,
    spawn_loop,
    timed,
)

import flux_mpi
from flux_mpi.client.jobs import wait_all

POOL = """
import json, os, sys, time
from mpi4py.futures import MPIPoolExecutor

def task(_):
    pid = os.posix_spawn("/bin/true", ["/bin/true"], os.environ)
    return os.waitpid(pid, 0)[1]

if __name__ == "__main__":
    count = int(sys.argv[1])
    with MPIPoolExecutor() as pool:
        list(pool.map(task, range(8)))  # the workers are up
        began = time.perf_counter()
        statuses = [f.result() for f in [pool.submit(task, k) for k in range(count)]]
        elapsed = time.perf_counter() - began
    assert not any(statuses)
    print(json.dumps(count / elapsed))
"""


def mpi4py_futures(count: int, workers: int, folder: Path) -> float:
    """/bin/true a second through mpi4py.futures."""
    script = folder / "pool.py"
    script.write_text(POOL)
    command = [program("mpiexec"), "-n", str(workers + 1), sys.executable, "-m", "mpi4py.futures"]
    return float(json.loads(run([*command, str(script), str(count)], env=environment())))


def our_rate(handle: flux_mpi.Handle, count: int) -> float:
    """/bin/true a second: submit ``count`` as one array, and wait until all are inactive."""

    def once() -> None:
        array = flux_mpi.submit(["/bin/true"], count=count, handle=handle)
        results = wait_all(array, handle=handle)
        bad = [result for result in results if not result.success]
        if bad or len(results) != count:
            raise BenchmarkError(f"{len(results)} results, {len(bad)} failed: {bad[:1]}")

    return count / timed(once)


def measure(options: argparse.Namespace) -> list[Row]:
    count, ranks = options.jobs, options.ranks
    ours, bare, futures = [], [], []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        spawn_loop(100, ranks, folder)  # built, and the program is in the page cache
        with Instance(ranks, "--cores-per-rank=1") as _, flux_mpi.Handle() as handle:
            our_rate(handle, 50)
            for _ in range(options.repeats):
                bare.append(spawn_loop(count, ranks, folder))
                ours.append(our_rate(handle, count))
                futures.append(mpi4py_futures(count, ranks, folder))
    # Neighbours on a shared machine disturb a round as a whole: compare within rounds.
    share = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    ahead = statistics.median(a / b for a, b in zip(ours, futures, strict=True))
    return [
        Row(
            f"{count:,} × /bin/true, one instance of {ranks} ranks",
            f"{rate(statistics.median(ours))} = {share:.0%} of the C loop",
            f"{rate(statistics.median(bare))} bare C posix_spawn loop, {ranks} in flight",
            "28–38/s",
            "≥ 70 % of the C loop",
            share >= 0.7,
        ),
        Row(
            "the same against mpi4py.futures",
            f"{ahead:.2f}× its rate",
            f"{rate(statistics.median(futures))} mpi4py.futures, {ranks} workers",
            "",
            "faster",
            ahead > 1,
        ),
    ]


if __name__ == "__main__":
    main(measure, __doc__, {"--jobs": 1000, "--ranks": 4, "--repeats": 3})
