"""Ordered lists of host names in their compact form, ``n[1-3],x`` (RFC 29).

Names are kept as runs of consecutive numbers behind a prefix: a hundred thousand nodes in order
are one entry, and nothing is expanded unless it is iterated.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

MAX_NUMBER = (1 << 63) - 1
"""Largest number in brackets; longer digits at the end of a name are just part of the name."""

_NAME = re.compile(r"(.*?)([0-9]*)", re.ASCII | re.DOTALL)
_EXPRESSION = re.compile(r"(?:[^\[\],\s]|\[[^\]]*\]?|\])+")
_PRINTABLE = re.compile(r"[!-~]*")


class _Run:
    """``prefix`` ``lo``..``hi`` ``suffix``; numbers are padded to ``width`` (0 = no number)."""

    __slots__ = ("hi", "lo", "prefix", "suffix", "width")

    def __init__(self, prefix: str, lo: int, hi: int, width: int, suffix: str = "") -> None:
        self.prefix = prefix
        self.lo = lo
        self.hi = hi
        self.width = width
        self.suffix = suffix

    def __len__(self) -> int:
        return self.hi - self.lo + 1

    def number(self, value: int) -> str:
        return f"{value:0{self.width}d}" if self.width else ""

    def name(self, k: int) -> str:
        return f"{self.prefix}{self.number(self.lo + k)}{self.suffix}"

    def fits(self, other: _Run) -> bool:
        """Whether ``other``'s numbers look the same when padded as mine are."""
        return (
            self.prefix == other.prefix
            and self.suffix == other.suffix
            and bool(self.width)
            and bool(other.width)
            and (self.width == other.width or len(str(other.lo)) >= max(self.width, other.width))
        )

    def key(self) -> tuple[str, str, int, int]:
        return (self.prefix, self.suffix, self.lo, self.width)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:61] + "...")


def _split(name: str) -> _Run:
    match = _NAME.fullmatch(name)
    assert match is not None  # the pattern matches any text
    prefix, digits = match.groups()
    if not digits or len(digits) > 18:
        return _Run(name, 0, 0, 0)
    return _Run(prefix, int(digits), int(digits), len(digits))


def _number(digits: str, expression: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(
            f"hostlist {_shown(expression)}: expected a number in brackets, found {_shown(digits)}"
        )
    if len(digits) > 19 or int(digits) > MAX_NUMBER:
        raise ValueError(f"hostlist {_shown(expression)}: {_shown(digits)} is above {MAX_NUMBER}")
    return int(digits)


def _parse_expression(text: str) -> list[_Run]:
    if not _PRINTABLE.fullmatch(text):
        raise ValueError(f"hostlist {_shown(text)}: expected printable ASCII characters only")
    prefix, bracket, rest = text.partition("[")
    if not bracket:
        if "]" in text:
            raise ValueError(f"hostlist {_shown(text)}: unmatched bracket")
        return [_split(text)]
    numbers, bracket, suffix = rest.partition("]")
    if not bracket or "]" in prefix + suffix or "[" in numbers + suffix:
        raise ValueError(f"hostlist {_shown(text)}: expected one pair of brackets in a name")
    runs: list[_Run] = []
    first_width = 0
    for part in numbers.split(","):
        low, dash, high = part.partition("-")
        lo = _number(low, text)
        hi = _number(high, text) if dash else lo
        if hi < lo:
            raise ValueError(f"hostlist {_shown(text)}: range {part!r} does not ascend")
        if not runs and low.startswith("0"):
            first_width = len(low)
        width = max(first_width, len(low) if low.startswith("0") else 1)
        runs.append(_Run(prefix, lo, hi, width, suffix))
    return runs


class Hostlist:
    """An ordered list of host names; names may repeat (several ranks on one host).

    Iterates over names; ``hosts[i]`` is a name and ``hosts[a:b]`` a `Hostlist`.
    """

    __slots__ = ("_cum", "_runs")

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._runs: list[_Run] = []
        self._cum: list[int] | None = None
        for host in hosts:
            self._add(_split(host))

    @classmethod
    def parse(cls, text: str) -> Hostlist:
        """The list that RFC 29 ``text`` names; commas or white space part its expressions.

        Raises ValueError saying what was found.
        """
        if not isinstance(text, str):
            raise ValueError(f"hostlist: expected a string, found {type(text).__name__}")
        new = cls()
        for expression in _EXPRESSION.findall(text):
            for run in _parse_expression(expression):
                new._add(run)
        return new

    def _add(self, run: _Run) -> None:
        self._cum = None
        if self._runs:
            last = self._runs[-1]
            if run.lo == last.hi + 1 and last.fits(run):
                # A copy may share the run, so it is replaced and not stretched.
                self._runs[-1] = _Run(last.prefix, last.lo, run.hi, last.width, last.suffix)
                return
        self._runs.append(run)

    def append(self, hosts: str | Hostlist) -> int:
        """Add the names in ``hosts`` at the end; returns how many. ValueError as in `parse`."""
        more = Hostlist.parse(hosts) if isinstance(hosts, str) else hosts
        count = len(more)
        for run in list(more._runs):
            self._add(run)
        return count

    def _cumulative(self) -> list[int]:
        if self._cum is None:
            self._cum = list(accumulate((len(run) for run in self._runs), initial=0))
        return self._cum

    def __len__(self) -> int:
        return self._cumulative()[-1]

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __iter__(self) -> Iterator[str]:
        for run in list(self._runs):
            if run.width:
                head, width, tail = run.prefix, run.width, run.suffix
                for value in range(run.lo, run.hi + 1):
                    yield f"{head}{value:0{width}d}{tail}"
            else:
                yield run.name(0)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Hostlist(self.nth(i) for i in range(*index.indices(len(self))))
        return self.nth(index)

    def nth(self, k: int) -> str:
        """Name number ``k`` from 0 (negative: from the end); raises IndexError."""
        cum = self._cumulative()
        at = k + cum[-1] if k < 0 else k
        if not 0 <= at < cum[-1]:
            raise IndexError(f"hostlist: no host number {k} of {cum[-1]}")
        i = bisect_right(cum, at) - 1
        return self._runs[i].name(at - cum[i])

    def find(self, host: str) -> int:
        """Where ``host`` first is, counted from 0; -1 when it is not in the list."""
        return next(self._places(host), -1)

    def find_all(self, host: str) -> list[int]:
        """Everywhere that ``host`` is, ascending."""
        return list(self._places(host))

    def _places(self, host: str) -> Iterator[int]:
        at = 0
        wanted = _split(host)
        for run in self._runs:
            if run.suffix:
                if host.startswith(run.prefix) and host.endswith(run.suffix):
                    digits = host[len(run.prefix) : len(host) - len(run.suffix)]
                    if digits.isascii() and digits.isdigit() and len(digits) < 20:
                        value = int(digits)
                        if run.lo <= value <= run.hi and run.number(value) == digits:
                            yield at + value - run.lo
            elif run.prefix == wanted.prefix and run.lo <= wanted.lo <= run.hi:
                k = wanted.lo - run.lo
                if run.name(k) == host:
                    yield at + k
            at += len(run)

    def __contains__(self, host: object) -> bool:
        return isinstance(host, str) and self.find(host) >= 0

    def delete(self, hosts: str | Hostlist) -> int:
        """Remove each name in ``hosts`` once; returns how many there were."""
        names = list(self)
        removed = 0
        for host in Hostlist.parse(hosts) if isinstance(hosts, str) else list(hosts):
            try:
                names.remove(host)
            except ValueError:
                continue
            removed += 1
        if removed:
            self._runs = Hostlist(names)._runs
            self._cum = None
        return removed

    def sort(self) -> Hostlist:
        """Sort by prefix, then number (``n9`` before ``n10``); returns self."""
        return self._rebuild(sorted((_split(name) for name in self), key=_Run.key))

    def uniq(self) -> Hostlist:
        """Sort as `sort` and drop repeats; returns self."""
        names = {run.name(0): run for run in (_split(name) for name in self)}
        return self._rebuild(sorted(names.values(), key=_Run.key))

    def _rebuild(self, runs: list[_Run]) -> Hostlist:
        self._runs, self._cum = [], None
        for run in runs:
            self._add(run)
        return self

    def copy(self) -> Hostlist:
        new = Hostlist()
        new._runs = list(self._runs)
        return new

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hostlist):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        parts: list[str] = []
        i = 0
        while i < len(self._runs):
            first = self._runs[i]
            group = [first]
            i += 1
            while i < len(self._runs) and first.fits(self._runs[i]):
                group.append(self._runs[i])
                i += 1
            if len(group) == 1 and len(first) == 1:
                parts.append(first.name(0))
                continue
            numbers = ",".join(
                first.number(run.lo)
                if run.lo == run.hi
                else f"{first.number(run.lo)}-{first.number(run.hi)}"
                for run in group
            )
            parts.append(f"{first.prefix}[{numbers}]{first.suffix}")
        return ",".join(parts)

    def __repr__(self) -> str:
        return f"Hostlist.parse({str(self)!r})"
