"""Jobs a second when execution is mocked: no process is started, the rest is as always.

Reference in the same run: a Python loop that does nothing but write down the nine events of each
job and its state, which a manager in Python cannot beat.
"""

from __future__ import annotations

import argparse
import time

from _common import BenchmarkError, Instance, Row, main, rate, timed

import flux_mpi
from flux_mpi.client.jobs import ranges

EVENTS = (
    ("submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free")
)  # fmt: skip
NO_PROGRAM = "/nowhere/no-program"
"""Would fail with exit status 127 if anything really started it."""
MOCK = {"system.exec.test.run_duration": "0.001s"}


def bookkeeping(count: int) -> float:
    """Jobs a second of the reference."""

    def once() -> None:
        log: list[tuple[int, float, str]] = []
        states = bytearray(count)
        for job in range(count):
            for state, name in enumerate(EVENTS):
                log.append((job, time.time(), name))
                states[job] = state

    return count / timed(once)


def mocked(handle: flux_mpi.Handle, count: int) -> float:
    """Jobs a second from submit until every job is inactive and its result has arrived here."""

    def once() -> None:
        array = flux_mpi.submit([NO_PROGRAM], count=count, attributes=MOCK, handle=handle)
        done = failed = 0
        stream = handle.rpc("job-manager.wait-all", {"ids": ranges(array)}, streaming=True)
        for batch in stream:
            done += len(batch["done"])
            failed += sum(1 for each in batch["done"] if each[1])
        if done != count or failed:
            raise BenchmarkError(f"{done} of {count} jobs ended, {failed} of them failed")

    return count / timed(once)


def measure(options: argparse.Namespace) -> list[Row]:
    reference = bookkeeping(options.jobs)
    with (
        Instance(options.ranks, f"--cores-per-rank={options.cores}") as _,
        flux_mpi.Handle() as handle,
    ):
        mocked(handle, 1000)
        # Best of three: a small run is over before a neighbour's burst evens out.
        few = max(mocked(handle, options.jobs) for _ in range(3))
        many = mocked(handle, options.many)
    return [
        Row(
            f"{options.jobs:,} mock jobs",
            rate(few),
            f"{rate(reference)} bare Python loop writing down the events",
            "75–185/s, sagging",
            "≥ 10,000/s",
            few >= 10_000,
        ),
        Row(
            f"{options.many:,} mock jobs",
            f"{rate(many)} ({many / few:.0%})",
            "",
            "",
            "within 10 % of that",
            many >= 0.9 * few,
        ),
    ]


if __name__ == "__main__":
    main(measure, __doc__, {"--jobs": 10_000, "--many": 100_000, "--ranks": 4, "--cores": 16})
