"""Broker attributes, named as in flux-broker-attributes(7)."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from flux_mpi.message.errors import FluxError

SETTABLE = frozenset(
    {
        "log-level",
        "log-stderr-level",
        "log-stderr-mode",
        "log-forward-level",
        "log-critical-level",
        "log-ring-size",
        "broker.cleanup-timeout",
        "broker.shutdown-timeout",
    }
)
"""Attributes of ours that may change at run time; names we do not know may be set freely."""


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
        """Set as a user may; raises FluxError (EPERM) for what only the broker sets."""
        if name in self._fixed:
            raise FluxError(errno.EPERM, f"attribute {name}: read-only")
        self._values[name] = str(value)

    def remove(self, name: str) -> None:
        """Unset; raises FluxError (EPERM, ENOENT)."""
        if name in self._fixed:
            raise FluxError(errno.EPERM, f"attribute {name}: read-only")
        if self._values.pop(name, None) is None:
            raise FluxError(errno.ENOENT, f"attribute {name}: no such attribute")

    def items(self) -> Iterator[tuple[str, str]]:
        """All, by name."""
        return iter(sorted(self._values.items()))

    def __contains__(self, name: str) -> bool:
        return name in self._values
