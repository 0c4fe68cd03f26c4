"""A virtual screen as a hierarchy of instances.

    mpiexec -n 4 flux-mpi start python examples/docking/screen.py

Prepares the ligands, deals them out into batches, gives each batch a child instance that docks
them with a scheduler of its own, merges and ranks the results, and draws how well the cores were
used. ``--flat`` docks them all in this one instance instead. Stop it at any time: a second run
docks only what has no result yet.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import engines
import picture
import utilisation
from batch import dock_all, history
from children import WAYS, start_child
from merge import merge, table
from prepare import add_options, prepare
from screening import Ligand, Screen, divide, last_line, read_result, write_json, write_text
from utilisation import Instance, Span, Timeline

import flux_mpi
from flux_mpi.client import jobs


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A small virtual screen with AutoDock Vina, as a hierarchy of instances."
    )
    parser.add_argument(
        "--flat", action="store_true", help="no children: every docking is a job of this instance"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="results folder (default: out/docking/hierarchy, or out/docking/flat)",
    )
    parser.add_argument(
        "--batches",
        type=int,
        default=0,
        metavar="N",
        help="that many equal batches (default: as many as needed, smaller and smaller ones)",
    )
    parser.add_argument(
        "--cores-per-batch",
        type=int,
        default=0,
        metavar="N",
        help="cores of a child instance (default: those of a rank)",
    )
    parser.add_argument(
        "--child",
        choices=WAYS,
        default=WAYS[0],
        help="children as 'flux-mpi batch' makes them, or jobs that call 'flux-mpi start' "
        "(default: %(default)s)",
    )
    parser.add_argument("--top", type=int, default=10, metavar="N", help="default: %(default)s")
    add_options(parser)
    options = parser.parse_args(arguments)
    for name, least in (("batches", 0), ("cores_per_batch", 0), ("top", 1)):
        if getattr(options, name) < least:
            parser.error(
                f"--{name.replace('_', '-')}: {getattr(options, name)} is not at least {least}"
            )
    return options


def flat(handle: flux_mpi.Handle, folder: Path, ligands: Sequence[Ligand]) -> Timeline:
    """Dock all in this instance. Returns how it went; failures are in the results' .err files."""
    cores = int(handle.call("resource.info", {})["ncores"])
    ordered = [ligand.name for ligand in sorted(ligands, key=lambda each: -each.cost)]
    ended = 0

    def told(name: str, why: str) -> None:
        nonlocal ended
        ended += 1
        if why:
            print(f"{name}: {why}", flush=True)
        elif ended % 10 == 0 or ended == len(ordered):
            print(f"{ended} of {len(ordered)} ligands", flush=True)

    began = time.time()
    spans, _ = dock_all(handle, folder, ordered, told)
    held = Span("all cores", began, max([began, *(span.end for span in spans)]), cores)
    return Timeline("one instance", cores, began, (Instance(held, tuple(spans)),))


def hierarchy(
    handle: flux_mpi.Handle, folder: Path, ligands: Sequence[Ligand], options: argparse.Namespace
) -> Timeline:
    """Dock each batch in a child instance. Returns how it went, from the logs of all instances."""
    info = handle.call("resource.info", {})
    cores = int(info["ncores"])
    each = options.cores_per_batch or max(1, cores // int(info["nnodes"]))
    if each > cores:
        raise ValueError(f"--cores-per-batch: {each}, but this instance has {cores} cores")
    batches = divide(ligands, max(1, cores // each), options.batches)
    for stale in (folder / "batches").glob("*"):
        stale.unlink()
    for k, batch in enumerate(batches):
        write_json(folder / "batches" / f"{k}.json", {"ligands": [ligand.name for ligand in batch]})
    children: list[int] = []
    running = True
    try:
        for k in range(len(batches)):
            children.append(start_child(handle, folder, k, each, options.child))
        for number, result in enumerate(jobs.as_completed(children, handle=handle), 1):
            k = children.index(result.id)
            print(
                f"{number} of {len(batches)} batches: {k}, with {len(batches[k])} ligands, "
                + ("done" if result.success else f"failed: {_why(folder, k, result)}"),
                flush=True,
            )
        running = False
    finally:
        if running and children:
            with suppress(OSError):  # unless the instance has ended already
                flux_mpi.cancel(children, "the screen was interrupted", handle=handle)
    instances, submitted = [], []
    for k, child in enumerate(children):
        times, held = history(handle, child)
        submitted.append(times["submit"])
        if held:
            span = Span(f"batch {k}", times["alloc"], times["free"], held)
            report = json.loads((folder / "batches" / f"{k}.json").read_text())
            spans = tuple(Span(**job) for job in report.get("jobs", ()))
            instances.append(Instance(span, spans))
    way = f"{len(batches)} child instances of {each} core{'s' * (each > 1)}"
    return Timeline(way, cores, min(submitted), tuple(instances))


def _why(folder: Path, k: int, result: jobs.JobResult) -> str:
    return last_line(folder / "batches" / f"{k}.log") or result.note or str(result)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    # An instance that is told to stop sends its initial program SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = options.out or Path("out/docking", "flat" if options.flat else "hierarchy")
    folder = out.resolve()
    try:
        with flux_mpi.Handle() as handle:
            screen = prepare(options, folder)
            return run(handle, folder, screen, options, out)
    except KeyboardInterrupt:
        print("stopped; what is docked is kept: run this again to go on from there")
        return 130
    except (OSError, ValueError, engines.EngineError) as error:
        print(f"screen.py: {error}", file=sys.stderr)
        return 1


def run(
    handle: flux_mpi.Handle, folder: Path, screen: Screen, options: argparse.Namespace, out: Path
) -> int:
    """Dock what is left, merge, draw, and say how it went; the exit status."""
    left = [each for each in screen.ligands if read_result(folder, screen, each) is None]
    print(
        f"{len(screen.ligands)} ligands, {len(screen.ligands) - len(left)} of them docked earlier; "
        f"engine: {screen.engine}",
        flush=True,
    )
    if left:
        if options.flat:
            timeline = flat(handle, folder, left)
        else:
            timeline = hierarchy(handle, folder, left, options)
        write_json(folder / "timeline.json", timeline.as_json())
        write_text(folder / "utilisation.svg", picture.draw(timeline))
        print(f"\n{utilisation.summary(timeline)}")
    ranking = merge(folder, screen, options.top)
    print(f"\n{table(ranking, options.top)}\n")
    docked = {ligand.name for ligand, _ in ranking}
    missing = [ligand.name for ligand in screen.ligands if ligand.name not in docked]
    if missing:
        print("not docked (run this again to try them again):")
        for name in missing:
            print(f"  {name}: {last_line(folder / 'results' / f'{name}.err') or 'was not tried'}")
    print(f"ranking in {out / 'ranking.csv'}, poses in {out / 'top'}", end="")
    print(f", cores over time in {out / 'utilisation.svg'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
