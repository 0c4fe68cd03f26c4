"""What is said about an ensemble that has ended: a summary, and a line for each instance."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.client.tree import TreeResult

FIELDS = (
    ("treeid", "TreeID"),
    ("elapse", "Elapsed(sec)"),
    ("begin", "Begin(Epoch)"),
    ("end", "End(Epoch)"),
    ("match", "Match(usec)"),
    ("njobs", "NJobs"),
    ("my_nodes", "NNodes"),
    ("my_cores", "CPN"),
    ("my_gpus", "GPN"),
)
"""Fields of ``--perf-format`` as flux-tree(1) has them, with their titles."""


def fields(record: dict[str, Any]) -> dict[str, Any]:
    """What ``--perf-format`` can show of an instance."""
    nodes = max(1, record["nnodes"])
    return {
        "treeid": record["treeid"],
        "elapse": record["end"] - record["begin"],
        "begin": record["begin"],
        "end": record["end"],
        "match": 0.0,  # not measured for each instance
        "njobs": record["njobs"],
        "my_nodes": record["nnodes"],
        "my_cores": record["ncores"] // nodes,
        "my_gpus": record["ngpus"] // nodes,
    }


def table(records: list[dict[str, Any]], text: str) -> str:
    """A line for each instance, and one of titles."""
    # Titles are text: what is said about numbers goes, the width stays.
    titles = re.sub(r"(\{\w+:[^{}]*?)(?:\.\d+)?[a-zA-Z%]?\}", r"\1}", text)
    lines = [titles.format(**dict(FIELDS))]
    lines += [text.format(**fields(record)) for record in records]
    return "".join(line + "\n" for line in lines)


MAX_GROUPS = 5
MAX_NAMED = 8
"""Of failures, in the summary."""

LEVELS = (
    ("INSTANCES", "instances"),
    ("CORES", "ncores"),
    ("JOBS", "jobs"),
    ("CHUNKS", "chunks"),
    ("MOVED", "moved"),
    ("LOST", "lost"),
    ("RERUN", "rerun"),
)
"""Columns about the levels, in the summary."""


def summary(result: TreeResult) -> str:
    """What is said at the end."""
    lines = [f"members: {result.count}, {result.failed} failed{_codes(result)}"]
    lines += _failures(result)
    lines.append(f"wall time: {_span(result.wall_s)}, {result.rate:.1f} members/s")
    times = result.raw["times"]
    if times["count"]:
        lines.append(
            f"run time: mean {_span(times['mean'])}, median about {_span(times['median'])}, "
            f"max {_span(times['max'])}"
        )
    lines.append(f"topology: {result.topology}")
    if len(result.levels) > 1:
        rows = [["LEVEL", *(title for title, _ in LEVELS), "START"]]
        for number, level in enumerate(result.levels):
            start = level["start"] / level["instances"] if level["instances"] else 0.0
            cells = [f"{level[key]:.0f}" for _, key in LEVELS]
            rows.append([str(number), *cells, _span(start) if number else "-"])
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows:
            lines.append(" ".join(cell.rjust(width) for cell, width in zip(row, widths)))
    return "".join(line + "\n" for line in lines)


def _failures(result: TreeResult) -> list[str]:
    """A line for each way to fail, with the first members that did."""
    groups: dict[tuple[int, str], list[int]] = {}
    for failure in result.failures:
        groups.setdefault((failure.returncode, failure.why), []).append(failure.member)
    lines = []
    for (code, why), members in list(groups.items())[:MAX_GROUPS]:
        # Of failures without an exception it is known how many there are, named or not.
        alone = not why and sum(1 for other, _ in groups if other == code) == 1
        total = result.codes[code] if alone else len(members)
        shown = members[:MAX_NAMED]
        named = ",".join(map(str, shown)) + (",…" if total > len(shown) else "")
        lines.append(f"  exit code {code}: {named}{': ' + why if why else ''}")
    if len(groups) > MAX_GROUPS:
        lines.append(f"  … and failed in {len(groups) - MAX_GROUPS} other ways")
    return lines


def _codes(result: TreeResult) -> str:
    words = []
    others = result.failed - result.lost - result.canceled
    if result.canceled:
        words.append(f"{result.canceled} canceled")
    if result.lost:
        words.append(f"{result.lost} lost with their instances")
    if others:
        words.append(f"largest exit code {result.returncode}")
    return f" ({', '.join(words)})" if words else ""


def _span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
