"""How long whole commands take, from the shell's point of view.

Reference in the same run: a Python that starts and ends (``python -c pass``).
"""

from __future__ import annotations

import argparse
import sys

from _common import Instance, Row, environment, main, median_of, milliseconds, program, run

import flux_mpi
from flux_mpi.client.jobs import wait_all

MOCK = {"system.exec.test.run_duration": "0.001s"}


def measure(options: argparse.Namespace) -> list[Row]:
    repeats, listed = options.repeats, options.listed
    command = program("flux-mpi")
    bare = median_of(repeats, lambda: run([sys.executable, "-c", "pass"], env=environment()))
    reference = f"{milliseconds(bare)} for python -c pass"
    with Instance(options.ranks, "--cores-per-rank=4") as instance, flux_mpi.Handle() as handle:
        env = environment() | {"FLUX_URI": instance.uri}

        def taken(*words: str, times: int = repeats) -> float:
            run([command, *words], env=env)  # byte code is compiled, pages are cached
            return median_of(times, lambda: run([command, *words], env=env))

        run_true = taken("run", "true")
        submit_true = taken("submit", "true")
        handle.call("job-manager.drain", {})
        held = flux_mpi.submit(["true"], count=20, urgency=0, handle=handle)
        twenty = taken("jobs")
        flux_mpi.cancel(held, handle=handle)
        array = flux_mpi.submit(["true"], count=listed, attributes=MOCK, handle=handle)
        wait_all(array, handle=handle)
        lines = run([command, "jobs", "-a", "-c", "0"], env=env).count("\n")
        everything = taken("jobs", "-a", "-c", "0", times=3)
    return [
        _row("submit true, the whole command", submit_true, bare, reference, "0.16 s", 0.080),
        _row("jobs (20 jobs), the whole command", twenty, bare, reference, "0.10 s", 0.080),
        _row(f"jobs -a -c 0 ({lines - 1:,} jobs)", everything, bare, reference, "8.8 s", 1.0),
        _row(
            "run true on an idle instance, the whole command",
            *(run_true, bare, reference, "0.18 s", 0.120),
        ),
    ]


def _row(question: str, taken: float, bare: float, reference: str, flux: str, limit: float) -> Row:
    target = f"≤ {milliseconds(limit)}" if limit < 1 else f"≤ {limit:g} s"
    ours = f"{milliseconds(taken)} ({taken / bare:.1f}×)"
    return Row(question, ours, reference, flux, target, taken <= limit)


if __name__ == "__main__":
    main(measure, __doc__, {"--ranks": 4, "--repeats": 11, "--listed": 10_000})
