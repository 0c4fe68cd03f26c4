"""How well cores were used: spans of time in which cores were held, and in which jobs ran on them.

Pure arithmetic over spans that come from event logs; ``picture.py`` draws it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Span:
    """``cores`` from ``start`` to ``end`` (Unix time, s): a job, or what an instance was given."""

    name: str
    start: float
    end: float
    cores: int = 1

    @property
    def core_seconds(self) -> float:
        return max(0.0, self.end - self.start) * self.cores


@dataclass(frozen=True)
class Instance:
    """An instance that ran jobs: the cores it held, and the jobs on them."""

    held: Span
    jobs: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """A whole screen: ``cores`` there were in all, the instances, and when the first job came."""

    way: str
    cores: int
    submitted: float
    instances: tuple[Instance, ...] = field(default=())

    @property
    def ended(self) -> float:
        """When the last core was given back, or the last job ended (Unix time, s)."""
        ends = [span.end for each in self.instances for span in (each.held, *each.jobs)]
        return max(ends, default=self.submitted)

    @property
    def wall_s(self) -> float:
        return self.ended - self.submitted

    def busy(self) -> list[Span]:
        return [job for each in self.instances for job in each.jobs]

    def held(self) -> list[Span]:
        return [each.held for each in self.instances]

    def of_machine(self) -> float:
        """The share of all cores, from the first submission to the end, that ran dockings."""
        whole = self.wall_s * self.cores
        return sum(span.core_seconds for span in self.busy()) / whole if whole else 0.0

    def of_held(self) -> float:
        """The share of what the instances held that ran dockings."""
        whole = sum(span.core_seconds for span in self.held())
        return sum(span.core_seconds for span in self.busy()) / whole if whole else 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Timeline:
        """What ``as_json`` made. Raises KeyError and TypeError for anything else."""
        instances = tuple(
            Instance(Span(**each["held"]), tuple(Span(**job) for job in each["jobs"]))
            for each in fields["instances"]
        )
        return cls(**{**fields, "instances": instances})


def steps(spans: Iterable[Span]) -> list[tuple[float, int]]:
    """``(time, cores from then on)``: the sum of the spans over time, ending with 0."""
    changes: dict[float, int] = {}
    for span in spans:
        if span.end > span.start:
            changes[span.start] = changes.get(span.start, 0) + span.cores
            changes[span.end] = changes.get(span.end, 0) - span.cores
    found, level = [], 0
    for time in sorted(changes):
        if changes[time]:
            level += changes[time]
            found.append((time, level))
    return found


def lanes(spans: Sequence[Span]) -> list[int]:
    """A row for each span, such that those of a row do not overlap: the lowest that is free."""
    ends: list[float] = []
    rows = [0] * len(spans)
    for k in sorted(range(len(spans)), key=lambda k: (spans[k].start, spans[k].end)):
        free = (row for row, end in enumerate(ends) if end <= spans[k].start)
        row = next(free, len(ends))
        if row == len(ends):
            ends.append(0.0)
        ends[row] = spans[k].end
        rows[k] = row
    return rows


def summary(timeline: Timeline) -> str:
    """The figures as text."""
    jobs = timeline.busy()
    times = sorted(job.end - job.start for job in jobs)
    lines = [f"way          {timeline.way}, on {timeline.cores} cores"]
    if times:
        middle = times[len(times) // 2]
        lines.append(
            f"dockings     {len(times)}, of {times[0]:.2f} to {times[-1]:.2f} s "
            f"(median {middle:.2f} s)"
        )
    lines += [
        f"wall         {timeline.wall_s:.2f} s from the first submission to the last core's return",
        f"utilisation  {timeline.of_machine():.2%} of all cores over that time, "
        f"{timeline.of_held():.2%} of what instances held",
    ]
    return "\n".join(lines)
