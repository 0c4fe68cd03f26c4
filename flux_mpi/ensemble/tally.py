"""What is known of members that have ended, in aggregate: ten cost as much as a million.

Tallies are made where members run, travel upward in reports, and add up on the way: no level above
a leaf ever hears of a single member that ended well.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from math import frexp, inf
from typing import Any

from flux_mpi.formats.idset import IDSet

FAILURES = 32
"""Failed members that are named, those with the lowest ids; the others are only counted."""
BUCKETS = 64
"""Of the histogram of run times: bucket *b* is for 2^(b−1) µs up to 2^b µs, 0 for less."""
LOST, CANCELED = "lost", "canceled"


def exit_code(status: int) -> int:
    """What a shell would say of a wait status: 128 + n for signal n; 1 when no task ever ran."""
    if status < 0:
        return 1
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Tally:
    """Counts, times and the first failures of members that have ended."""

    __slots__ = (
        "canceled",
        "codes",
        "count",
        "failures",
        "histogram",
        "longest",
        "lost",
        "seconds",
        "shortest",
        "timed",
    )

    def __init__(self) -> None:
        self.count = 0
        """Members that ended, however they did."""
        self.codes: dict[int, int] = {}
        """How many failed with which exit code (see `exit_code`)."""
        self.lost = 0
        """Of those that failed: instances that had them were lost too often."""
        self.canceled = 0
        """Of those that failed: canceled, most of them before they began."""
        self.failures: list[tuple[int, int, str]] = []
        """(member, exit code, why if an exception ended it), ascending, at most `FAILURES`."""
        self.timed = 0
        """Members whose run time is known: those that ran."""
        self.seconds = 0.0
        """Run time of these in all."""
        self.longest = 0.0
        self.shortest = inf
        self.histogram: dict[int, int] = {}
        """How many ran how long, by bucket (see `BUCKETS`)."""

    @property
    def failed(self) -> int:
        """Members that did not end well, whatever the reason."""
        return sum(self.codes.values())

    @property
    def status(self) -> int:
        """The largest exit code."""
        return max(self.codes, default=0)

    def ended(self, count: int, seconds: Sequence[float]) -> None:
        """``count`` members ended, well or not; those that ran took so long each."""
        self.count += count
        if not seconds:
            return
        self.timed += len(seconds)
        self.seconds += sum(seconds)
        self.longest = max(self.longest, max(seconds))
        self.shortest = min(self.shortest, min(seconds))
        for at, count in Counter([frexp(each * 1e6)[1] for each in seconds]).items():
            at = min(BUCKETS - 1, max(0, at))
            self.histogram[at] = self.histogram.get(at, 0) + count

    def fail(self, member: int, code: int, why: str = "") -> None:
        """A member, counted by `ended`, did not end well."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self._name([(member, code, why)])

    def give_up(self, members: IDSet, kind: str, why: str) -> None:
        """Members ended without ever having an exit code: ``kind`` is `LOST` or `CANCELED`."""
        count = len(members)
        if not count:
            return
        self.count += count
        self.codes[1] = self.codes.get(1, 0) + count
        if kind == LOST:
            self.lost += count
        else:
            self.canceled += count
        self._name([(member, 1, f"{kind}: {why}") for member in members.take(FAILURES)])

    def _name(self, failures: list[tuple[int, int, str]]) -> None:
        if len(self.failures) >= FAILURES and failures[0][0] > self.failures[-1][0]:
            return
        self.failures = sorted(self.failures + failures)[:FAILURES]

    def add(self, other: Tally) -> None:
        """Members that ended elsewhere."""
        self.count += other.count
        for code, count in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + count
        self.lost += other.lost
        self.canceled += other.canceled
        if other.failures:
            self._name(other.failures)
        self.timed += other.timed
        self.seconds += other.seconds
        self.longest = max(self.longest, other.longest)
        self.shortest = min(self.shortest, other.shortest)
        for at, count in other.histogram.items():
            self.histogram[at] = self.histogram.get(at, 0) + count

    # -- on the wire ----------------------------------------------------------------------------

    def to_wire(self) -> dict[str, Any]:
        """As it travels in reports: what is zero is left out."""
        wire: dict[str, Any] = {"count": self.count}
        if self.codes:
            wire["codes"] = self.codes
            wire["failures"] = [list(failure) for failure in self.failures]
        if self.lost:
            wire["lost"] = self.lost
        if self.canceled:
            wire["canceled"] = self.canceled
        if self.timed:
            wire["times"] = [self.timed, self.seconds, self.shortest, self.longest]
            wire["histogram"] = self.histogram
        return wire

    @classmethod
    def from_wire(cls, wire: Any) -> Tally:
        """Raises ValueError naming the field that makes no sense."""
        if not isinstance(wire, dict):
            raise ValueError(f"tally: expected an object, found {type(wire).__name__}")
        tally = cls()
        tally.count = _count(wire.get("count", 0), "count")
        tally.codes = _counts(wire.get("codes", {}), "codes", 255)
        tally.lost = _count(wire.get("lost", 0), "lost")
        tally.canceled = _count(wire.get("canceled", 0), "canceled")
        tally.histogram = _counts(wire.get("histogram", {}), "histogram", BUCKETS - 1)
        failures = wire.get("failures", [])
        if not isinstance(failures, list) or len(failures) > FAILURES:
            raise ValueError(f"tally: failures: expected at most {FAILURES} of them")
        for entry in failures:
            if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[2], str):
                raise ValueError(f"tally: failures: expected [member, code, why], found {entry!r}")
            member, code = _count(entry[0], "failures"), _count(entry[1], "failures")
            tally.failures.append((member, code, entry[2]))
        times = wire.get("times")
        if times is not None:
            if not isinstance(times, list) or len(times) != 4:
                raise ValueError(f"tally: times: expected four numbers, found {times!r}"[:200])
            tally.timed = _count(times[0], "times")
            tally.seconds, tally.shortest, tally.longest = map(float, times[1:])
        if tally.failed > tally.count or tally.timed > tally.count:
            raise ValueError(f"tally: more failures or times than the {tally.count} members")
        return tally

    # -- for people -----------------------------------------------------------------------------

    @property
    def mean(self) -> float:
        """Seconds that a member ran on average; 0 when none did."""
        return self.seconds / self.timed if self.timed else 0.0

    def quantile(self, q: float) -> float:
        """The run time that the fraction ``q`` stays below, to a factor of two; 0 when none ran."""
        left = q * self.timed
        for at in sorted(self.histogram):
            left -= self.histogram[at]
            if left <= 0:
                return min(self.longest, 2.0**at / 1e6)
        return self.longest


def _count(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"tally: {field}: expected a count, found {value!r}"[:200])
    return value


def _counts(value: Any, field: str, last: int) -> dict[int, int]:
    if not isinstance(value, dict):
        raise ValueError(f"tally: {field}: expected counts by number, found {value!r}"[:200])
    counts = {_count(key, field): _count(count, field) for key, count in value.items()}
    if counts and max(counts) > last:
        raise ValueError(f"tally: {field}: expected numbers up to {last}, found {max(counts)}")
    return counts
