"""1,000 × /bin/true on one instance of four ranks, from the submit until the last job is clean.

References in the same run: a bare C posix_spawn loop with four in flight (the machine's limit), and
mpi4py.futures with four workers that posix_spawn. They take turns. The instance is measured twice:
with one job at a time on each rank, and with four.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
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
    count, ranks, cores = options.jobs, options.ranks, options.cores
    few, many, bare, futures = [], [], [], []
    with (
        tempfile.TemporaryDirectory() as text,
        # Both at once, as an idle instance takes no time from the other.
        Instance(ranks, "--cores-per-rank=1") as narrow,
        Instance(ranks, f"--cores-per-rank={cores}") as wide,
        flux_mpi.Handle(narrow.uri) as to_narrow,
        flux_mpi.Handle(wide.uri) as to_wide,
    ):
        folder = Path(text)
        spawn_loop(100, ranks, folder)  # built, and the program is in the page cache
        our_rate(to_narrow, 50)
        our_rate(to_wide, 50)
        for _ in range(options.repeats):
            bare.append(spawn_loop(count, ranks, folder))
            few.append(our_rate(to_narrow, count))
            many.append(our_rate(to_wide, count))
            futures.append(mpi4py_futures(count, ranks, folder))
    limit = f"{rate(statistics.median(bare))} bare C posix_spawn loop, {ranks} in flight"
    ahead = _compare(many, futures)
    return [
        Row(
            f"{count:,} × /bin/true, one instance of {ranks} ranks, {slots} at a time",
            f"{rate(statistics.median(ours))} = {_compare(ours, bare):.0%} of the C loop",
            limit,
            "28–38/s",
            "≥ 70 % of the C loop",
            _compare(ours, bare) >= 0.7,
        )
        for slots, ours in ((ranks, few), (ranks * cores, many))
    ] + [
        Row(
            f"the same against mpi4py.futures, {ranks * cores} at a time",
            f"{ahead:.2f}× its rate ({ranks} at a time: {_compare(few, futures):.2f}×)",
            f"{rate(statistics.median(futures))} mpi4py.futures, {ranks} workers",
            "",
            "faster",
            min(ahead, _compare(few, futures)) > 1,
        ),
    ]


def _compare(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How much quicker ours is: a neighbour disturbs a round as a whole, so within rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main(measure, __doc__, {"--jobs": 1000, "--ranks": 4, "--cores": 4, "--repeats": 3})
