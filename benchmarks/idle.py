"""What an idle instance costs: CPU of 16 brokers, and memory of a leaf broker with its supervisor.

References in the same run: 16 MPI ranks that wait in a blocking receive (CPU), and a Python process
that has imported mpi4py and started MPI (memory).
"""

from __future__ import annotations

import argparse
import select
import statistics
import subprocess
import sys

from _common import (
    BenchmarkError,
    Instance,
    Row,
    cpu_seconds,
    environment,
    main,
    memory_kib,
    process_tree,
    program,
)

import flux_mpi

BLOCKED = """
import os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
world.Barrier()
if world.rank == 0:
    print("up", flush=True)
    sys.stdin.read()
    for rank in range(1, world.size):
        world.send(None, rank)
else:
    world.recv()
"""


def wait(seconds: float) -> None:
    """Let the clock run; nothing here waits for anything else."""
    select.select([], [], [], seconds)


def cpu_share(pid: int, seconds: float) -> float:
    """CPU that the tree below ``pid`` used over ``seconds``, as a share of one core."""
    tree = process_tree(pid)
    before = cpu_seconds(tree)
    wait(seconds)
    return (cpu_seconds(tree) - before) / seconds


def blocked_ranks(ranks: int, seconds: float) -> tuple[float, float]:
    """CPU share of ranks in a blocking receive, and the median PSS of one in KiB."""
    process = subprocess.Popen(
        [program("mpiexec"), "-n", str(ranks), sys.executable, "-c", BLOCKED],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not select.select([process.stdout], [], [], 60)[0]:
            raise BenchmarkError("plain MPI ranks did not start")
        share = cpu_share(process.pid, seconds)
        pss = [memory_kib(pid) for pid in process_tree(process.pid) if _command(pid)[-1] == BLOCKED]
        process.stdin.close()
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return share, statistics.median(pss)


def _command(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").split("\0")[:-1] or [""]
    except OSError:
        return [""]


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def measure(options: argparse.Namespace) -> list[Row]:
    plain_cpu, plain_kib = blocked_ranks(options.ranks, min(3.0, options.seconds))
    with Instance(options.ranks) as instance:
        with flux_mpi.Handle() as handle:
            pids = [int(handle.attr_get("broker.pid", rank)) for rank in range(options.ranks)]
        wait(options.settle)  # what start-up left to do is not idling
        share = cpu_share(instance.pid, options.seconds)
        leaves = [memory_kib(pid) + memory_kib(_parent(pid)) for pid in pids[1:]]
        root = memory_kib(pids[0]) + memory_kib(_parent(pids[0]))
    leaf = statistics.median(leaves) / 1024
    return [
        Row(
            f"idle CPU of {options.ranks} brokers over {options.seconds:g} s, all together",
            f"{share:.3%} of a core",
            f"{plain_cpu:.0%} for ranks in a blocking MPI receive",
            "0.38 %",
            "≤ 1 %",
            share <= 0.01,
        ),
        Row(
            "memory of a leaf broker with its supervisor (PSS)",
            f"{leaf:.1f} MB (rank 0: {root / 1024:.1f} MB)",
            f"{plain_kib / 1024:.1f} MB for a Python rank with mpi4py only",
            "2.8 MB",
            "≤ 25 MB",
            leaf <= 25,
        ),
    ]


if __name__ == "__main__":
    main(measure, __doc__, {"--ranks": 16, "--seconds": 20.0, "--settle": 2.0})
