"""Frames between a broker and its supervisor: a 4-byte big-endian length, then ``marshal``.

Both ends are the same Python on the same machine and inherit the socket pair, so the fastest
built-in codec is also a safe one. A frame carries a list of commands or of reports (see
``docs/protocol.md``). Loaded by the supervisor: standard library only, and little of it.
"""

from __future__ import annotations

import marshal
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Entry: TypeAlias = list[Any]
    """A command or report: its name, then its operands, as ``docs/protocol.md`` lists them."""

HEADER = struct.Struct(">I")
FRAME_LIMIT = 256 * 1024 * 1024
"""Longest frame accepted, bytes; a longer one means that the peer is broken."""

RECEIVE = 64 * 1024
"""Bytes to ask of one ``recv``: for more than 128 KiB the allocator maps and unmaps memory each
time, which takes five times as long as the rest of the call."""

SUPERVISOR_FD_VAR = "FLUX_MPI_SUPERVISOR_FD"
"""Environment variable that tells a broker the number of its end of the socket pair."""


def pack(entries: list[Entry]) -> bytes:
    """One frame holding ``entries``."""
    body = marshal.dumps(entries)
    return HEADER.pack(len(body)) + body


class Unpacker:
    """Turns a byte stream back into entries."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Entry]:
        """Entries completed by ``data``, in order.

        Raises ``ValueError`` when the stream holds no frame of ours.
        """
        buffer = self._buffer
        buffer += data
        entries: list[Entry] = []
        start = 0
        while len(buffer) - start >= 4:
            (length,) = HEADER.unpack_from(buffer, start)
            if length > FRAME_LIMIT:
                raise ValueError(f"a frame of {length} bytes is over the limit of {FRAME_LIMIT}")
            end = start + 4 + length
            if len(buffer) < end:
                break
            body = bytes(buffer[start + 4 : end])
            try:
                decoded = marshal.loads(body)
            except (EOFError, TypeError, ValueError) as error:
                raise ValueError(f"not a frame: {error}") from error
            if not isinstance(decoded, list):
                raise ValueError(f"a frame holds a list, not a {type(decoded).__name__}")
            entries += decoded
            start = end
        del buffer[:start]
        return entries
