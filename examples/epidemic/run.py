"""The driver of the epidemic study: the initial program of an instance.

    mpiexec -n 4 flux-mpi start python examples/epidemic/run.py

Runs the members that have no result yet, shows how far they are, lists those that fail, and leaves
``out/epidemic/{members/K.json,results.csv,fan.png,summary.txt}``. Stop it at any time: a second run
goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

import ways
from progress import Progress
from report import Tally, draw_fan, summary, write_csv
from study import SCENARIOS, SINGLE_THREADED, Study, read_member, write_json


def parse(arguments: list[str]) -> argparse.Namespace:
    defaults = Study()
    parser = argparse.ArgumentParser(
        description="An uncertainty-quantification ensemble of an epidemic, with Covasim."
    )
    parser.add_argument(
        "--mode",
        choices=sorted(ways.WAYS),
        default="workers",
        help="how members run: warm workers, a job a member, or a pool without flux-mpi "
        "(default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path("out/epidemic"), help="results folder")
    parser.add_argument("--members", type=int, help="only the first so many members")
    parser.add_argument("--seeds", type=int, default=defaults.seeds, help="default: %(default)s")
    parser.add_argument(
        "--pop-size", type=int, default=defaults.pop_size, help="agents; default: %(default)s"
    )
    parser.add_argument("--days", type=int, default=defaults.n_days, help="default: %(default)s")
    parser.add_argument(
        "--betas",
        type=_numbers,
        default=defaults.betas,
        metavar="B,…",
        help="transmission probabilities; default: " + ",".join(f"{b:g}" for b in defaults.betas),
    )
    parser.add_argument(
        "--scenarios",
        type=lambda text: tuple(text.split(",")),
        default=defaults.scenarios,
        metavar="NAME,…",
        help="of " + ", ".join(SCENARIOS),
    )
    parser.add_argument("--slots", type=int, help="members at a time (default: one a core)")
    parser.add_argument(
        "--fail", type=_indices, default=frozenset(), metavar="K,…", help="let these members fail"
    )
    options = parser.parse_args(arguments)
    for name in ("members", "slots"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: {value} is not a number of at least 1")
    try:
        options.study = Study(
            pop_size=options.pop_size,
            n_days=options.days,
            betas=options.betas,
            seeds=options.seeds,
            scenarios=options.scenarios,
        )
    except ValueError as error:
        parser.error(str(error))
    return options


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


def _indices(text: str) -> frozenset[int]:
    return frozenset(int(word) for word in text.split(","))


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a locale without × must not stop the study
    # An instance that is told to stop sends its initial program SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    study: Study = options.study
    out: Path = options.out.resolve()
    os.environ.update(SINGLE_THREADED)  # inherited by every member, however it runs

    members = study.members()[: options.members]
    folder = out / "members"
    pending = [m.index for m in members if read_member(study, m, folder) is None]
    write_json(out / "study.json", study.as_json())
    print(
        f"{len(members)} members, {len(members) - len(pending)} of them finished earlier",
        flush=True,
    )

    try:
        slots = options.slots or ways.slots(options.mode)
    except OSError as error:
        print(f"run.py: {error}\nrun.py: --mode local needs no instance", file=sys.stderr)
        return 1
    tally = Tally(len(members), len(members) - len(pending), ways.TITLES[options.mode], slots)
    interrupted = False
    if pending:
        task = ways.Task(study, pending, out, slots, options.fail)
        interrupted = run(task, options.mode, tally)

    results = [r for m in members if (r := read_member(study, m, folder)) is not None]
    tally.completed = len(results) - tally.resumed
    write_csv(out / "results.csv", results)
    if interrupted:
        print(f"stopped: {len(results)} of {len(members)} members are finished and kept; run this")
        print("again to go on from there")
        return 130
    draw_fan(out / "fan.png", study, results)
    text = summary(study, results, tally, options.out)
    (out / "summary.txt").write_text(text + "\n")
    print(text)
    return 1 if tally.failures else 0


def run(task: ways.Task, mode: str, tally: Tally) -> bool:
    """Runs the pending members and fills in ``tally``; True when Ctrl-C cut it short."""
    began = time.monotonic()
    progress = Progress(len(task.pending), sys.stderr)
    progress.draw()
    try:
        # Closed at once on Ctrl-C, so that the way lets go of what it holds.
        with closing(ways.WAYS[mode](task)) as outcomes:
            for outcome in outcomes:
                tally.busy_s += outcome.seconds
                if outcome.error:
                    tally.failures[outcome.index] = outcome.error
                progress.add(ok=not outcome.error)
    except KeyboardInterrupt:
        return True
    except OSError as error:  # the instance went away under us
        print(f"\nrun.py: {error}", file=sys.stderr)
        return True
    finally:
        progress.close()
        tally.wall_s = time.monotonic() - began
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
