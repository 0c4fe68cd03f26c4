"""Workload logs in the Standard Workload Format (Chapin et al. 1999) of the archives of logs.

A line a job of 18 numbers, -1 for unknown; lines that begin with ``;`` are a header of
``Name: value`` pairs and notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

FIELDS = 18


@dataclass(frozen=True, slots=True)
class LoggedJob:
    """What a replay needs of a job. Seconds; submission counts from the log's begin."""

    number: int
    submit: float
    run: float
    processors: int
    limit: float
    """What the user asked for; at least ``run``, as no log's clock is perfect."""


@dataclass(slots=True)
class Log:
    """A workload log."""

    jobs: list[LoggedJob] = field(default_factory=list)
    """By time of submission."""
    header: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    """Jobs that never ran, or of which the log does not say for how long or on how much."""

    @property
    def processors(self) -> int:
        """What the machine had, or what the largest job used where the log does not say."""
        for name in ("MaxProcs", "MaxNodes"):
            words = self.header.get(name, "").split()
            if words and words[0].isdecimal() and int(words[0]) > 0:
                return int(words[0])
        return max((job.processors for job in self.jobs), default=0)


def parse(lines: Iterable[str]) -> Log:
    """Read a log. Raises ValueError naming the line and what is wrong with it."""
    log = Log()
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if line.startswith(";"):
            name, colon, value = line.lstrip("; \t").partition(":")
            if colon and name.strip() and " " not in name.strip():
                log.header.setdefault(name.strip(), value.strip())
        elif line:
            job = _job(line.split(), number)
            if job is None:
                log.skipped += 1
            else:
                log.jobs.append(job)
    log.jobs.sort(key=lambda job: (job.submit, job.number))
    return log


def _job(words: list[str], line: int) -> LoggedJob | None:
    if len(words) != FIELDS:
        raise ValueError(f"line {line}: expected {FIELDS} numbers, found {len(words)} words")
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"line {line}: {error}") from None
    if not all(abs(value) < 1e15 for value in values):
        raise ValueError(f"line {line}: expected finite numbers below 1e15")
    number, submit, _, run, allocated, _, _, requested, limit = values[:9]
    processors = int(allocated if allocated > 0 else requested)
    if run < 0 or processors <= 0 or submit < 0:
        return None
    return LoggedJob(int(number), submit, run, processors, max(run, limit))
