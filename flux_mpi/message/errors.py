"""Errors that cross the wire: a POSIX number and a text that names what was wrong (RFC 6)."""

from __future__ import annotations

import errno as _errno
import os


class FluxError(OSError):
    """A request failed, or could not be made.

    An ``OSError`` so that ``errno`` and ``strerror`` work as everywhere else; Python then picks the
    subclass-free form, which keeps ``except FluxError`` meaningful.
    """

    def __init__(self, errnum: int, text: str = "") -> None:
        super().__init__(errnum, text or os.strerror(errnum))

    def __str__(self) -> str:
        return self.strerror or os.strerror(self.errno or 0)

    @property
    def code(self) -> str:
        """The symbolic name, such as ``ENOENT``."""
        return _errno.errorcode.get(self.errno or 0, str(self.errno))


class ServiceError(FluxError):
    """Raised by a service's handler to answer its request with an error."""


class ProtocolError(ValueError):
    """Bytes that are no frame of ours: the peer that sent them is dropped."""
