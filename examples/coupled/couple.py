"""The driver: starts a simulation and its analysis side by side in one instance.

    mpiexec -n 4 flux-mpi start --cores-per-rank=1 python examples/coupled/couple.py

Both are ordinary jobs that find each other through the instance: barriers, groups, events and the
key-value store. Leaves ``out/coupled/{result.json,plate.npy,history.csv}``, the same whatever the
number of tasks and whichever job is faster. When one of the two fails, the other is cancelled.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import names

import flux_mpi
from flux_mpi.client.jobs import JobID, JobResult

HERE = Path(__file__).resolve().parent
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Simulate a heated plate while an analysis job steers it to a temperature."
    )
    number = parser.add_argument
    number("--tasks", type=int, default=2, help="of the simulation; default: %(default)s")
    number("--size", type=int, default=32, help="rows of the plate; default: %(default)s")
    number("--rounds", type=int, default=300, help="at most; default: %(default)s")
    number("--target", type=float, default=45.0, help="at the probe, °C; default: %(default)s")
    number("--tolerance", type=float, default=0.05, help="K; default: %(default)s")
    number("--out", type=Path, default=Path("out/coupled"), help="default: %(default)s")
    number(
        "--think", type=float, default=0.0, help="let the analysis take so many s a round longer"
    )
    number("--fail-at", type=int, help="let the analysis fail at this round")
    options = parser.parse_args(arguments)
    for name, least in (("tasks", 1), ("size", 3), ("rounds", 1)):
        value = getattr(options, name)
        if value < least:
            parser.error(f"--{name}: {value} is not allowed, it must be at least {least}")
    most = max(1, options.size // names.STEPS)
    if options.tasks > most:
        parser.error(
            f"--tasks: {options.tasks} is not allowed with --size {options.size}: at most {most}, "
            f"as each needs {names.STEPS} rows"
        )
    options.out = options.out.resolve()
    return options


class Run:
    """The two jobs, and what is heard of them."""

    def __init__(self, options: argparse.Namespace, handle: flux_mpi.Handle) -> None:
        self.options = options
        self.handle = handle
        self.jobs: dict[str, JobID] = {}
        self.results: dict[str, JobResult] = {}
        self.last: dict[str, Any] = {}

    def start(self) -> None:
        """Submits both. Raises OSError when they cannot be at work at the same time."""
        options = self.options
        cores = self.handle.call("resource.info")["ncores"]
        if cores < options.tasks + 1:
            raise OSError(
                f"{options.tasks} tasks and the analysis need {options.tasks + 1} cores, and this "
                f"instance has {cores}: use fewer --tasks, or start it with more --cores-per-rank"
            )
        kvs = self.handle.kvs
        if kvs.exists(names.ROOT):
            kvs.unlink(names.ROOT)  # of a run before
        self.handle.rpc(
            "event.subscribe", {"topic": names.STEER}, streaming=True, callback=self._decided
        )
        common = ["--size", options.size, "--out", options.out]
        self._submit("simulate", options.tasks, [*common, "--rounds", options.rounds])
        more = ["--fail-at", options.fail_at] if options.fail_at is not None else []
        self._submit(
            "analyse",
            1,
            [*common, "--tasks", options.tasks, "--target", options.target, *more,
             "--tolerance", options.tolerance, "--think", options.think],
        )  # fmt: skip

    def _submit(self, name: str, ntasks: int, words: list[object]) -> None:
        self.jobs[name] = flux_mpi.submit(
            [sys.executable, str(HERE / f"{name}.py"), *map(str, words)],
            ntasks=ntasks,
            name=name,
            output=str(self.options.out / f"{name}.log"),
            env={**os.environ, **ONE_THREAD},
            handle=self.handle,
        )
        self.handle.rpc(
            "job-manager.wait-all",
            {"ids": [[int(self.jobs[name]), 1]]},
            streaming=True,
            callback=lambda future: self._ended(name, future),
        )

    def _decided(self, future: Any) -> None:
        payload = future.get()["payload"]
        if payload is not None:
            self.last = payload
            if sys.stdout.isatty():
                print(f"\r{self.progress()}  ", end="", flush=True)

    def _ended(self, name: str, future: Any) -> None:
        if name not in self.results:  # else it is the end of the stream
            self.results[name] = JobResult(*future.get()["done"][0])

    def cancel(self) -> None:
        """Ends what has not ended."""
        left = [job for name, job in self.jobs.items() if name not in self.results]
        if left:
            flux_mpi.cancel(left, "the other job of the pair has failed", handle=self.handle)

    def wait(self) -> bool:
        """Until both have ended; True when both are well. One that fails ends the other."""
        results = self.results
        self.handle.run(lambda: self.failed() or len(results) == len(self.jobs))
        self.cancel()  # here and not when it is heard: a callback must not wait for an answer
        self.handle.run(lambda: len(results) == len(self.jobs))
        if sys.stdout.isatty() and self.last:
            print()
        return not self.failed()

    def failed(self) -> bool:
        return any(not result.success for result in self.results.values())

    def progress(self) -> str:
        last = self.last
        return (
            f"round {last['round']}: {last['probe']:.2f} °C at the probe, power {last['power']:.3f}"
        )


def why(log: Path, ended: JobResult) -> str:
    """What became of a job that is not well: what happened to it, or the last thing it said."""
    if ended.note:
        return f"was ended: {ended.note}"
    said = log.read_text(errors="replace").split("\n") if log.exists() else []
    last = next((line for line in reversed(said) if line.strip()), "")
    return f"failed with status {ended.exit_status}: {last or 'it said nothing'}"


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a locale without ° must not stop it
    # An instance that is told to stop sends its initial program SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("result.json", "plate.npy", "history.csv"):
        (options.out / name).unlink(missing_ok=True)
    try:
        with flux_mpi.Handle() as handle:
            run = Run(options, handle)
            try:
                run.start()
                well = run.wait()
            except KeyboardInterrupt:
                with suppress(OSError):
                    run.cancel()
                return 130
    except OSError as error:
        print(f"couple.py: {error}", file=sys.stderr)
        return 1
    if not well:
        for name, ended in run.results.items():  # in the order in which they ended
            if not ended.success:
                print(
                    f"couple.py: {name} {why(options.out / f'{name}.log', ended)}", file=sys.stderr
                )
        return 1
    result = json.loads((options.out / "result.json").read_text())
    how = "stopped by the analysis" if result["converged"] else "not converged"
    print(f"{how} after {result['rounds']} rounds of {names.STEPS} steps; {run.progress()}")
    print(f"hottest: {result['hottest']:.2f} °C; results are in {options.out}")
    return 0 if result["converged"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
