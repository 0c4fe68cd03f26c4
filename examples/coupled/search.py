"""A search that learns: each batch of jobs is chosen from the results of those before.

    mpiexec -n 4 flux-mpi start --cores-per-rank=1 python examples/coupled/search.py

Members put their scores into the instance's key-value store; a Gaussian process picks the next ones
by expected improvement (``surrogate.py``, scikit-learn). Leaves ``out/search/{results.csv,
best.json}``. A member that fails is listed and counts as not tried.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from oven import BOUNDS, scaled
from surrogate import NotInstalled, check, propose, scatter

import flux_mpi
from flux_mpi.client.jobs import as_completed

HERE = Path(__file__).resolve().parent
ROOT = "search"
"""Directory of the store: ``search.MEMBER``."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Find where to put a heater: an ensemble that chooses its own next members."
    )
    number = parser.add_argument
    number("--first", type=int, default=8, help="members to begin with; default: %(default)s")
    number("--batch", type=int, default=4, help="members at a time; default: %(default)s")
    number("--batches", type=int, default=8, help="after the first; default: %(default)s")
    number("--pick", choices=("gp", "random"), default="gp", help="how to choose; default: gp")
    number("--seed", type=int, default=1, help="of all that is random; default: %(default)s")
    number("--out", type=Path, default=Path("out/search"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    for name, least in (("first", 2), ("batch", 1), ("batches", 0)):
        value = getattr(options, name)
        if value < least:
            parser.error(f"--{name}: {value} is not allowed, it must be at least {least}")
    options.out = options.out.resolve()
    return options


@dataclass
class Known:
    """What has been tried: points of the unit cube with their scores; and what failed."""

    points: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    rows: list[list[object]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def best(self) -> int:
        return int(np.argmin(self.scores))

    def tell(self, batch: int) -> str:
        values = scaled(self.points[self.best])
        where = ", ".join(f"{name} {value:.3f}" for name, value in zip(BOUNDS, values))
        best = self.scores[self.best]
        return f"batch {batch}: best of {len(self.scores)} is {best:.3f} K at {where}"


def evaluate(handle: flux_mpi.Handle, points: np.ndarray, batch: int, known: Known) -> None:
    """Run a batch as one array of jobs, and add to ``known`` what comes of it."""
    first = len(known.rows) + len(known.failed)
    rows = [
        [f"{ROOT}.{first + k}", *map(repr, map(float, candidate))]
        for k, candidate in enumerate(scaled(points))
    ]
    command = [sys.executable, str(HERE / "candidate.py"), "{0}", "{1}", "{2}", "{3}"]
    env = {**os.environ, **ONE_THREAD}
    array = flux_mpi.submit(command, rows=rows, name="candidate", env=env, handle=handle)
    try:
        ended = {array.index(result.id): result for result in as_completed(array, handle=handle)}
    except KeyboardInterrupt:
        with suppress(OSError):
            flux_mpi.cancel(array, "the search was interrupted", handle=handle)
        raise
    for k, row in enumerate(rows):  # in their order, whichever ended first
        if not ended[k].success:
            known.failed.append(f"{row[0]}: {ended[k]!r}")
            continue
        score = float(handle.kvs.get(row[0]))
        known.points.append(points[k])
        known.scores.append(score)
        known.rows.append([first + k, batch, *row[1:], score])


def search(options: argparse.Namespace, handle: flux_mpi.Handle) -> Known:
    """All batches."""
    known = Known()
    if handle.kvs.exists(ROOT):
        handle.kvs.unlink(ROOT)  # of a run before
    points = scatter(options.first, len(BOUNDS), options.seed)
    for batch in range(options.batches + 1):
        if batch:
            seed = options.seed + batch
            if options.pick == "gp":
                have = np.array(known.points)
                points = propose(have, np.array(known.scores), options.batch, seed)
            else:
                points = np.random.default_rng(seed).random((options.batch, len(BOUNDS)))
        evaluate(handle, points, batch, known)
        if len(known.scores) < 2:
            raise OSError(f"nearly all members failed: {known.failed[-1]}")
        print(known.tell(batch), flush=True)
    return known


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    # An instance that is told to stop sends its initial program SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.pick == "gp":
            check()  # before anything is run in vain
        with flux_mpi.Handle() as handle:
            known = search(options, handle)
    except (NotInstalled, OSError) as error:
        print(f"search.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "results.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["member", "batch", *BOUNDS, "score_kelvin"])
        table.writerows(known.rows)
    values = dict(zip(BOUNDS, map(float, scaled(known.points[known.best]))))
    best = {**values, "score_kelvin": known.scores[known.best], "members": len(known.scores)}
    (options.out / "best.json").write_text(json.dumps(best, indent=2) + "\n")
    for line in known.failed:
        print(f"search.py: failed: {line}", file=sys.stderr)
    print(f"results are in {options.out}")
    return 1 if known.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
