"""What a terminal says to a program far away: bytes that were typed, and the size of its window.

Both travel in one stream, the standard input of ``flux-mpi pty``, in the way of telnet: 0xff (IAC)
announces a command (RFC 854) and is doubled where it is a byte that was typed; the window's size
is the subnegotiation NAWS (RFC 1073), ``ff fa 1f WIDTH HEIGHT ff f0`` with 16-bit numbers. 0xff is
no part of any UTF-8 text, so a stream without commands can mostly be sent as it is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Item: TypeAlias = bytes | tuple[int, int]

IAC, SE, SB, NAWS = 0xFF, 0xF0, 0xFA, 0x1F
LONGEST = 64
"""A subnegotiation longer than this is none of ours: it is dropped."""


def escape(data: bytes) -> bytes:
    """Typed bytes as they travel."""
    return data.replace(b"\xff", b"\xff\xff")


def window_size(columns: int, rows: int) -> bytes:
    """The command that says how large the window is now (numbers beyond 65,535 are cut)."""
    numbers = b"".join(min(max(n, 0), 0xFFFF).to_bytes(2, "big") for n in (columns, rows))
    return b"\xff\xfa\x1f" + escape(numbers) + b"\xff\xf0"


class Decoder:
    """Cuts the stream into typed bytes and sizes ``(columns, rows)``, however it is chunked.

    Other commands of telnet are dropped.
    """

    def __init__(self) -> None:
        self._command: bytearray | None = None
        """The command under way, from its IAC on."""

    def feed(self, data: bytes) -> list[Item]:
        """What ``data`` adds, in order; neighbouring bytes in one piece."""
        if self._command is None and IAC not in data:
            return [data] if data else []
        items: list[Item] = []
        typed = bytearray()
        for byte in data:
            if self._command is None:
                if byte == IAC:
                    self._command = bytearray([byte])
                else:
                    typed.append(byte)
                continue
            self._command.append(byte)
            if self._command == b"\xff\xff":
                typed.append(IAC)
                self._command = None
                continue
            if not self._complete(self._command):
                continue
            size = _size_of(bytes(self._command))
            self._command = None
            if size is not None:
                if typed:
                    items.append(bytes(typed))
                    typed.clear()
                items.append(size)
        if typed:
            items.append(bytes(typed))
        return items

    @staticmethod
    def _complete(command: bytearray) -> bool:
        kind = command[1]
        if kind != SB:
            # WILL, WONT, DO and DONT (251 to 254) name an option; the others stand alone.
            return len(command) == (3 if 251 <= kind <= 254 else 2)
        # It ends at IAC SE; IAC IAC inside it is a byte of it.
        ended = command[-1] == SE and _odd_iacs(command[2:-1])
        return ended or len(command) > LONGEST


def _odd_iacs(data: bytes | bytearray) -> bool:
    """Whether the last of ``data`` is an IAC that is not doubled."""
    return (len(data) - len(data.rstrip(b"\xff"))) % 2 == 1


def _size_of(command: bytes) -> tuple[int, int] | None:
    if command[:3] != b"\xff\xfa\x1f":
        return None
    numbers = command[3:-2].replace(b"\xff\xff", b"\xff")
    if len(numbers) != 4:
        return None
    return int.from_bytes(numbers[:2], "big"), int.from_bytes(numbers[2:], "big")
