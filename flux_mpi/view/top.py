"""One picture of an instance and its running jobs, as ``flux-mpi top`` shows it. Pure.

A line is a list of spans (text, style); who draws it on a terminal gives styles their colours, and
who prints it forgets them.
"""

from __future__ import annotations

from flux_mpi.client import info
from flux_mpi.formats.duration import short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Line = list[tuple[str, str]]

PLAIN, TITLE, USED, DOWN, DIM = "plain", "title", "used", "down", "dim"
GOOD, BAD, HEADING, INSTANCE = "good", "bad", "heading", "instance"
SELECTED, SELECTED_INSTANCE = "selected", "selected-instance"

SUMMARY_LINES = 7
"""Lines above the first job: title, bars, a blank one, facts, and the heading of the list."""
BAR_WIDTH = 36
LEAST_WIDTH = 60


class Snapshot:
    """What is known of an instance at one moment."""

    def __init__(
        self,
        *,
        title: str = "",
        attrs: dict[str, str] | None = None,
        stats: dict[str, Any] | None = None,
        resources: dict[str, dict[str, int]] | None = None,
        expiration: float = 0.0,
        jobs: list[dict[str, Any]] | None = None,
        queues: bool = False,
        queue: str = "",
        trouble: str = "",
    ) -> None:
        self.title = title
        """The path of job ids down to it; '' for the first instance."""
        self.attrs = attrs or {}
        self.counts = info.job_counts(stats or {})
        self.resources = resources or {}
        """``{state: {nnodes, ncores, ngpus}}``."""
        self.expiration = expiration
        """Unix time, 0: no end is known."""
        self.jobs = jobs or []
        """Records of the jobs that run, in the order shown."""
        self.queues = queues
        """Whether queues have names."""
        self.queue = queue
        """The one queue whose jobs are shown; '' for all."""
        self.trouble = trouble
        """Why this is not up to date."""


def picture(
    shot: Snapshot,
    now: float,
    *,
    width: int = 80,
    height: int = 0,
    ids: Any = str,
    cursor: int | None = None,
    details: bool = True,
    note: str = "",
) -> list[Line]:
    """The lines to show at Unix time ``now``, ``height`` of them at most (0: all there are).

    ``cursor`` is the index of the selected job, which is always shown. ``details``: tell
    successful jobs from failed ones. ``ids`` makes text of a job id. ``note`` is told instead of
    the trouble there is.
    """
    width = max(width, LEAST_WIDTH)
    lines = [_title(shot, now, width)]
    failed = sum(shot.counts.get(name, 0) for name in ("failed", "canceled", "timeout"))
    complete = shot.counts.get("successful", 0)
    right: list[Line] = [
        [(f"{shot.counts.get('pending', 0):>7} pending", PLAIN)],
        [(f"{shot.counts.get('running', 0):>7} running", PLAIN)],
        [(f"{shot.counts.get('inactive', 0):>7} inactive", PLAIN)],
    ]
    if details:
        right[2] = [
            (f"{complete:>7}", GOOD if complete else PLAIN),
            (" complete,", PLAIN),
            (f"{failed:>7}", BAD if failed else PLAIN),
            (" failed", PLAIN),
        ]
    for name, key, counts in zip(("nodes", "cores", "gpus"), info.COUNTED, right):
        amounts = {state: found.get(key, 0) for state, found in shot.resources.items()}
        bar = _bar(name, amounts, min(BAR_WIDTH, width - 38))
        lines.append([("    ", PLAIN), *bar, ("   ", PLAIN), *counts])
    trouble = (note or shot.trouble)[:width]
    lines += [[(trouble, BAD)] if trouble else [], _facts(shot, now, width)]
    lines.append([(_row(shot, width, _HEADINGS).ljust(width), HEADING)])
    room = len(shot.jobs) if height <= 0 else max(0, height - SUMMARY_LINES)
    first = 0 if cursor is None else max(0, cursor - room + 1)
    for at, job in enumerate(shot.jobs[first : first + room], first):
        instance = info.uri(job) != ""
        if at == cursor:
            style = SELECTED_INSTANCE if instance else SELECTED
        else:
            style = INSTANCE if instance else PLAIN
        lines.append([(_row(shot, width, _cells(job, now, ids)), style)])
    return lines


def plain(lines: list[Line]) -> str:
    """The picture without styles."""
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)


def _title(shot: Snapshot, now: float, width: int) -> Line:
    left = shot.expiration - now
    end = f"{short(left)} left" if shot.expiration and left > 0 else "∞"
    room = width - len(end) - 2
    title = shot.title or "."
    if len(title) > room:
        title = "…" + title[len(title) - room + 1 :]  # the end of a path says where one is
    return [(title.center(room), TITLE), (f"  {end}", PLAIN)]


def _bar(name: str, amounts: dict[str, int], width: int) -> Line:
    """``name [||||    ||12/128]``: used from the left, down from the right."""
    total, down = amounts.get("all", 0), amounts.get("down", 0)
    used = min(amounts.get("allocated", 0), total)
    prefix, suffix = f"{name:>5} [", f"{used}/{total}]"
    slots = max(0, width - len(prefix) - len(suffix))
    of_used = -(-used * slots // total) if total else 0
    of_down = min(slots - of_used, -(-down * slots // total)) if total else 0
    return [
        (prefix, PLAIN),
        ("|" * of_used, USED),
        (" " * (slots - of_used - of_down), PLAIN),
        ("|" * of_down, DOWN),
        (suffix, PLAIN),
    ]


def _facts(shot: Snapshot, now: float, width: int) -> Line:
    attrs = shot.attrs
    parts = [f" size: {attrs.get('size', '?')}"]
    if attrs.get("instance-level", "0") != "0":
        parts.append(f"depth: {attrs['instance-level']}")
    if attrs.get("broker.starttime"):
        parts.append(f"uptime: {short(max(0.0, now - float(attrs['broker.starttime'])))}")
    if shot.queue:
        parts.append(f"queue: {shot.queue}")
    text = "   ".join(parts)
    version = attrs.get("version", "")
    return [(text.ljust(width - len(version) - 1) + version, DIM)]


_HEADINGS = ("JOBID", "QUEUE", "USER", "ST", "NTASKS", "NNODES", "RUNTIME", "NAME")


def _cells(job: dict[str, Any], now: float, ids: Any) -> tuple[str, ...]:
    started = job.get("t_run", 0.0)
    return (
        ids(job["id"]),
        job.get("queue") or "",
        info.username(job.get("userid", -1)),
        info.state(job, 1),
        str(job.get("ntasks", "")),
        str(job.get("nnodes", "")),
        short(max(0.0, now - started)) if started else "",
        job.get("name", ""),
    )


def _row(shot: Snapshot, width: int, cells: tuple[str, ...]) -> str:
    jobid, queue, user, state, ntasks, nnodes, runtime, name = cells
    middle = f"{queue[:8]:>8} " if shot.queues else ""
    row = f"{jobid:>13} {middle}{user[:8]:>8} {state:>2} {ntasks:>6} {nnodes:>6} {runtime[:7]:>7} "
    # What a name holds must not move the cursor of a terminal.
    clean = "".join(char if char.isprintable() else "?" for char in name)
    return (row + clean)[:width]
