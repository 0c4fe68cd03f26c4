"""The published experiment on hierarchies: 4,096 short jobs on 1 to 1,152 cores and beyond.

One level: one scheduler for all cores. Two levels: an instance for each 32 cores. Three levels: in
each of these, an instance for each core. Published were 45 and 60 times the throughput of a
traditional scheduler with two and three levels.

*Real* points run on this machine, whatever it has: cores beyond that are pretended. *Simulated*
points run the same brokers on simulated nodes of 32 cores: each is charged what its code takes of
this machine's time, in this run; a supervisor starts tasks as fast as a bare C posix_spawn loop did
here a moment before. ``--plot FILE.svg`` draws both.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import BenchmarkError, Instance, Row, main, rate, spawn_loop

import flux_mpi
from flux_mpi.sim.machine import Machine

PER_NODE = 32
TRADITIONAL = 35.0
"""Jobs a second of the best of sbatch, job arrays and srun steps of Slurm 22.05 on two cores."""
SPEC = {
    "version": 1,
    "resources": [
        {"type": "slot", "count": 1, "label": "t", "with": [{"type": "core", "count": 1}]}
    ],
    "tasks": [{"command": ["true"], "slot": "t", "count": {"per_slot": 1}}],
    "attributes": {"system": {"duration": 0}},
}


def topologies(cores: int) -> dict[int, str]:
    """Topology by number of levels, as far as they differ."""
    nodes = max(1, cores // PER_NODE)
    found = {1: "1"}
    if nodes > 1:
        found[2] = str(nodes)
    if cores > 1:
        found[3] = f"{nodes}x{min(cores, PER_NODE)}" if nodes > 1 else str(cores)
    return found


def simulated(cores: int, topology: str, jobs: int, spawn_s: float, run_s: float) -> float:
    """Jobs a second on a simulated machine."""
    nodes = max(1, cores // PER_NODE)
    gc.collect()
    gc.disable()  # of this one process, on behalf of thousands that have little to collect
    try:
        machine = Machine(
            nodes,
            cores=min(cores, PER_NODE),
            meter=time.thread_time,
            spawn_s=spawn_s,
            duration=lambda argv: (run_s, 0),
        )
        request = {"jobspec": SPEC, "count": jobs, "topology": topology}
        *_, last = machine.stream("ensemble.run", request)
        result = last["result"]
    finally:
        gc.enable()
    if result["count"] != jobs or result["failed"]:
        raise BenchmarkError(f"{cores} cores, {topology}: {result}")
    return float(result["rate"])


def real(cores: int, topology: str, jobs: int) -> float:
    """Jobs a second here, on ranks of 32 pretended cores."""
    ranks = max(1, cores // PER_NODE)
    with Instance(ranks, f"--cores-per-rank={min(cores, PER_NODE)}"), flux_mpi.Handle() as handle:
        result = flux_mpi.tree(["/bin/true"], jobs=jobs, topology=topology, handle=handle)
    if result.failed or result.count != jobs:
        raise BenchmarkError(f"{cores} cores, {topology}: {result}")
    return result.rate


def measure(options: argparse.Namespace) -> list[Row]:
    points: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        one = statistics.median(spawn_loop(500, 1, folder) for _ in range(3))
        four = statistics.median(spawn_loop(1000, 4, folder) for _ in range(3))
    spawn_s = 1 / four
    run_s = max(1e-4, 1 / one - spawn_s)
    for cores in map(int, options.real.split(",")):
        for level, topology in topologies(cores).items():
            found = real(cores, topology, options.jobs)
            points.append({"cores": cores, "levels": level, "rate": found, "real": True})
    for cores in map(int, options.simulated.split(",")):
        for level, topology in topologies(cores).items():
            if level == 3 and cores > options.most:
                continue
            found = simulated(cores, topology, options.jobs, spawn_s, run_s)
            points.append({"cores": cores, "levels": level, "rate": found, "real": False})
    if options.points:
        Path(options.points).write_text(json.dumps(points, indent=1))
    if options.plot:
        plot(Path(options.plot), points, options.jobs, four)
    rows = []
    for cores in sorted({point["cores"] for point in points}):
        for kind in (True, False):
            here = [p for p in points if p["cores"] == cores and p["real"] is kind]
            if not here:
                continue
            shown = ", ".join(f"{p['levels']}: {rate(p['rate'])}" for p in here)
            best = max(p["rate"] for p in here)
            rows.append(
                Row(
                    f"{options.jobs:,} jobs on {cores:,} cores, {'real' if kind else 'simulated'}",
                    f"{shown} (levels)",
                    f"{rate(four)} bare C posix_spawn loop",
                    "",
                    f"{best / TRADITIONAL:.0f}× {TRADITIONAL:.0f}/s",
                )
            )
    return rows


def plot(path: Path, points: list[dict[str, Any]], jobs: int, spawn: float) -> None:
    """Draw jobs a second over cores. Raises BenchmarkError when the file exists."""
    if path.exists():
        raise BenchmarkError(f"--plot: {path} exists and is not overwritten")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    colors = {1: "#888888", 2: "#1f77b4", 3: "#d62728"}
    words = {1: "one level", 2: "two levels (32-core instances)", 3: "to one-core instances"}
    for level, color in colors.items():
        for kind, style, name in ((False, "-o", "simulated"), (True, "s", "real, here")):
            here = sorted(
                (p["cores"], p["rate"]) for p in points if (p["levels"], p["real"]) == (level, kind)
            )
            if here:
                axes.plot(
                    *zip(*here),
                    style,
                    color=color,
                    mfc=color if kind else "none",
                    label=f"{words[level]}, {name}",
                )
    axes.axhline(spawn, color="black", linestyle=":", linewidth=1)
    axes.text(1, spawn * 1.08, "bare C posix_spawn loop on this machine", fontsize=8)
    axes.axhline(TRADITIONAL, color="black", linestyle="--", linewidth=1)
    axes.text(1, TRADITIONAL * 1.08, "Slurm 22.05 on this machine", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("cores (32 a node)")
    axes.set_ylabel(f"jobs/s, {jobs:,} × /bin/true")
    axes.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main(
        measure,
        __doc__,
        {
            "--jobs": 4096,
            "--real": "1,2,4,8,16,32,64,128",
            "--simulated": "1,2,4,8,16,32,64,128,256,512,1152,2304,4608",
            "--most": 1152,
            "--points": "",
            "--plot": "",
        },
    )
