"""Broker attributes, named as in flux-broker-attributes(7)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from flux_mpi.formats import duration
from flux_mpi.message.errors import FluxError


def parse_timeout(text: str) -> float | None:
    """A bound in seconds: a duration (RFC 23), or None for ``none``. Raises ValueError."""
    if text == "none":
        return None
    seconds = duration.parse(text)
    return None if seconds == float("inf") else seconds


_LEVELS = frozenset(map(str, range(-1, 8)))


def _level(text: str) -> None:
    if text not in _LEVELS:
        raise ValueError("a severity of 0-7, or -1 for none, is required")


def _ring_size(text: str) -> None:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1_000_000:
        raise ValueError("a number of 1-1000000 is required")


def _mode(text: str) -> None:
    if text not in ("leader", "local"):
        raise ValueError("'leader' or 'local' is required")


SETTABLE: dict[str, Callable[[str], object]] = {
    "log-critical-level": _level,
    "log-forward-level": _level,
    "log-level": _level,
    "log-ring-size": _ring_size,
    "log-stderr-level": _level,
    "log-stderr-mode": _mode,
    "broker.cleanup-timeout": parse_timeout,
    "broker.shutdown-timeout": parse_timeout,
}
"""Attributes of ours that may change at run time, each with what raises ValueError for a text
that is not allowed; names we do not know may be set freely."""


class Attributes:
    """Name → text. What the broker set itself is read-only unless in ``SETTABLE``."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._fixed: set[str] = set()

    def define(self, name: str, value: object) -> None:
        """Set an attribute that only the broker may change."""
        self._values[name] = str(value)
        if name not in SETTABLE:
            self._fixed.add(name)

    def get(self, name: str, default: str | None = None) -> str:
        """The value of ``name``; raises FluxError (ENOENT) when unset and no default is given."""
        value = self._values.get(name, default)
        if value is None:
            raise FluxError(errno.ENOENT, f"attribute {name}: no such attribute")
        return value

    def set(self, name: str, value: object) -> None:
        """Set as a user may.

        Raises FluxError: EPERM for what only the broker sets, EINVAL for what would not work.
        """
        if name in self._fixed:
            raise FluxError(errno.EPERM, f"attribute {name}: read-only")
        text = str(value)
        check = SETTABLE.get(name)
        if check is not None:
            try:
                check(text)
            except ValueError as error:
                raise FluxError(
                    errno.EINVAL, f"attribute {name}: {text!r} is not allowed: {error}"
                ) from None
        self._values[name] = text

    def remove(self, name: str) -> None:
        """Unset; raises FluxError (EPERM, ENOENT)."""
        if name in self._fixed or name in SETTABLE:
            raise FluxError(errno.EPERM, f"attribute {name}: the broker needs it")
        if self._values.pop(name, None) is None:
            raise FluxError(errno.ENOENT, f"attribute {name}: no such attribute")

    def items(self) -> Iterator[tuple[str, str]]:
        """All, by name."""
        return iter(sorted(self._values.items()))

    def __contains__(self, name: str) -> bool:
        return name in self._values
