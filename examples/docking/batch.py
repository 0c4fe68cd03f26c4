"""Dock some ligands in the instance this runs in: a job each, and wait for them all.

    python examples/docking/batch.py --screen out/docking/mine --batch 3

It is the program of a child instance, and knows nothing of where that came from: the child's own
scheduler places the jobs, the child's own event logs say how it went.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from screening import SINGLE_THREADED, last_line, result_path, write_json
from utilisation import Span

import flux_mpi
from flux_mpi.client import jobs
from flux_mpi.formats.eventlog import parse_log
from flux_mpi.formats.rv1 import RSet

HERE = Path(__file__).resolve().parent


def dock_all(
    handle: flux_mpi.Handle,
    folder: Path,
    names: Sequence[str],
    done: Callable[[str, str], None] = lambda name, why: None,
) -> tuple[list[Span], dict[str, str]]:
    """Dock the ligands ``names`` in the instance of ``handle``.

    ``done(name, why)`` is called as each ends; ``why`` is empty when it has a result. Returns when
    they ran, and what went wrong by name. When it is interrupted it cancels what is left.
    """
    (folder / "results").mkdir(parents=True, exist_ok=True)
    array = flux_mpi.submit(
        [sys.executable, str(HERE / "dock.py"), "--screen", str(folder), "--ligand", "{0}"],
        rows=[[name] for name in names],
        name="dock-{0}",
        env={**os.environ, **SINGLE_THREADED},
        output="/dev/null",
        error=str(result_path(folder, "{0}", "err")),
        handle=handle,
    )
    failed: dict[str, str] = {}
    running = True
    try:
        for result in jobs.as_completed(array, handle=handle):
            name = names[array.index(result.id)]
            said = result_path(folder, name, "err")
            if result.success:
                said.unlink(missing_ok=True)
            else:
                failed[name] = last_line(said) or result.note or str(result)
            done(name, failed.get(name, ""))
        running = False
    finally:
        if running:
            flux_mpi.cancel(array, "the screen was interrupted", handle=handle)
    spans = [ran(handle, job, name) for job, name in zip(array, names)]
    return [span for span in spans if span is not None], failed


def ran(handle: flux_mpi.Handle, job: int, name: str) -> Span | None:
    """When the tasks of a job ran, and on how many cores; None when they never did."""
    times, cores = history(handle, job)
    if "start" not in times or "finish" not in times:
        return None
    return Span(name, times["start"], times["finish"], cores)


def history(handle: flux_mpi.Handle, job: int) -> tuple[dict[str, float], int]:
    """The times of a job's events (Unix time, s) by name, and how many cores it was given."""
    found = jobs.lookup(job, "eventlog", handle=handle)
    times = {event.name: event.timestamp for event in parse_log(found["eventlog"])}
    if "alloc" not in times:
        return times, 0
    return times, RSet.parse(jobs.lookup(job, "R", handle=handle)["R"]).ncores


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Dock a batch of ligands in this instance.")
    parser.add_argument("--screen", type=Path, required=True, help="folder of the screen")
    parser.add_argument("--batch", required=True, metavar="K", help="which batch of it")
    options = parser.parse_args(arguments)
    path = options.screen / "batches" / f"{options.batch}.json"
    try:
        names: list[str] = json.loads(path.read_text())["ligands"]
        with flux_mpi.Handle() as handle:
            spans, failed = dock_all(handle, options.screen.resolve(), names)
            report: dict[str, Any] = {
                "ligands": names,
                "uri": handle.attr_get("local-uri"),
                "level": int(handle.attr_get("instance-level")),
                "jobs": [asdict(span) for span in spans],
                "failed": failed,
            }
        write_json(path, report)
    except (OSError, ValueError, KeyError) as error:
        print(f"batch.py: {error}", file=sys.stderr)
        return 1
    for name, why in failed.items():
        print(f"{name}: {why}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
