"""What a study leaves behind: results.csv, fan.png and a summary."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study import METRICS, SCENARIOS, Study

COLOURS = {
    "baseline": "#b3452c",
    "distancing": "#c98a1b",
    "testing": "#2c6fa8",
    "combined": "#3b7d4f",
}


@dataclass
class Tally:
    """How the run went. Seconds are wall-clock; ``busy_s`` adds up those of the members."""

    members: int
    resumed: int
    way: str
    slots: int
    wall_s: float = 0.0
    busy_s: float = 0.0
    completed: int = 0
    failures: dict[int, str] = field(default_factory=dict)


def write_csv(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """A row a finished member, in the order of their numbers; appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with scratch.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "scenario", "beta", "seed", *METRICS, "seconds"])
        for result in results:
            member, metrics = result["member"], result["metrics"]
            writer.writerow(
                [member["index"], member["scenario"], member["beta"], member["seed"]]
                + [metrics[name] for name in METRICS]
                + [result["seconds"]]
            )
    scratch.replace(path)


def draw_fan(path: Path, study: Study, results: Sequence[dict[str, Any]]) -> None:
    """One panel a scenario: the median over its members and the bands of 5-95 and 25-75 %."""
    import matplotlib

    matplotlib.use("Agg")  # nobody is looking: there may be no display
    import numpy as np
    from matplotlib import pyplot as plt

    curves = {
        scenario: np.array(
            [
                result["curves"]["infectious"]
                for result in results
                if result["member"]["scenario"] == scenario
            ],
            dtype=float,
        )
        * (100.0 / study.pop_size)
        for scenario in study.scenarios
    }
    columns = min(2, len(study.scenarios))
    rows = -(-len(study.scenarios) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(5.2 * columns, 3.2 * rows + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    days = np.arange(study.n_days + 1)
    for axis, scenario in zip(axes.flat, study.scenarios, strict=False):
        colour = COLOURS[scenario]
        sample = curves[scenario]
        if len(sample):
            low, lower, median, upper, high = np.percentile(sample, [5, 25, 50, 75, 95], axis=0)
            axis.fill_between(days, low, high, color=colour, alpha=0.18, lw=0, label="5–95 %")
            axis.fill_between(days, lower, upper, color=colour, alpha=0.32, lw=0, label="25–75 %")
            axis.plot(days, median, color=colour, lw=2.2, label="median")
            axis.legend(loc="upper right", frameon=False, fontsize=8)
        axis.set_title(f"{SCENARIOS[scenario]}  ({len(sample)} members)", loc="left", fontsize=10.5)
        axis.grid(True, color="#dddddd", lw=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, study.n_days)
        axis.set_ylim(bottom=0)
    for axis in axes.flat[len(study.scenarios) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("day")
    for axis in axes[:, 0]:
        axis.set_ylabel("infectious, % of people")
    figure.suptitle(
        f"{study.pop_size:,} agents, transmission probability {min(study.betas):g} to "
        f"{max(study.betas):g} a contact, {study.seeds} seeds",
        fontsize=11.5,
        x=0.01,
        ha="left",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.stem}.{os.getpid()}.tmp.png")
    figure.savefig(scratch, dpi=150)
    plt.close(figure)
    scratch.replace(path)


def summary(study: Study, results: Sequence[dict[str, Any]], tally: Tally, out: Path) -> str:
    """The closing text: how the run went, what the scenarios did, and where the files are."""
    ran = tally.completed + len(tally.failures)
    lines = [
        f"members      {tally.members} = {len(study.scenarios)} scenarios × "
        f"{len(study.betas)} transmission × {study.seeds} seeds"
        + ("" if tally.members == len(study) else f" (the first {tally.members})"),
        f"finished     {len(results)} ({tally.completed} now, {tally.resumed} from earlier runs), "
        f"{len(tally.failures)} failed",
        f"wall         {tally.wall_s:.1f} s, {tally.way} on {tally.slots} slots",
    ]
    if ran and tally.wall_s > 0:
        share = tally.busy_s / (tally.wall_s * tally.slots)
        lines.append(f"utilisation  {share:.0%} of the slots' time was spent inside members")
        lines.append(f"rate         {ran / tally.wall_s:.2f} members/s")
    lines.append("")
    lines.append(f"{'scenario':34} {'infections a head, median (5-95 %)':>36}")
    for scenario in study.scenarios:
        sample = sorted(
            result["metrics"]["infections_per_head"]
            for result in results
            if result["member"]["scenario"] == scenario
        )
        text = (
            f"{_quantile(sample, 0.5):.2f} ({_quantile(sample, 0.05):.2f}-"
            f"{_quantile(sample, 0.95):.2f})"
            if sample
            else "no member finished"
        )
        lines.append(f"{SCENARIOS[scenario]:34} {text:>36}")
    if tally.failures:
        lines.append("")
        lines.append("failed (run again to repeat them):")
        lines += [f"  {index:5}  {why}" for index, why in sorted(tally.failures.items())]
    lines.append("")
    lines.append(f"results in {out / 'results.csv'} and {out / 'fan.png'}")
    return "\n".join(lines)


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
