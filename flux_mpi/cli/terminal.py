"""The user's terminal while it stands for one far away: raw, and telling how large it is."""

from __future__ import annotations

import os
import termios

from flux_mpi.formats.ptystream import escape, window_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Terminal:
    """The terminal at a descriptor. Who calls ``enter`` must see to it that ``leave`` follows."""

    DETACH = b"\x1c"
    """Typed by itself (ctrl-backslash), it leaves the far terminal alone, as in Flux."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self._saved: Any = None
        self._told: tuple[int, int] | None = None

    @property
    def raw(self) -> bool:
        """Whether all that is typed belongs to the far side now."""
        return self._saved is not None

    def enter(self) -> None:
        """Pass on every byte as it is typed, and show every byte as it comes."""
        import tty

        saved = termios.tcgetattr(self.fd)
        if self._saved is None:
            self._saved = saved
        # Now, and not when all is written: what was typed ahead must not be lost, and a terminal
        # that has been stopped must not stop us.
        tty.setraw(self.fd, termios.TCSANOW)

    def leave(self) -> None:
        """Give the terminal back as it was. Idempotent."""
        saved, self._saved = self._saved, None
        self._told = None
        if saved is not None:
            try:
                termios.tcsetattr(self.fd, termios.TCSANOW, saved)
            except termios.error:
                return  # it has been hung up: there is nobody to give it back to

    def size(self) -> tuple[int, int]:
        """Columns and rows; zeros when it does not know."""
        try:
            found = os.get_terminal_size(self.fd)
        except OSError:
            return 0, 0
        return found.columns, found.lines

    def resized(self) -> bytes:
        """What tells the far side the size; nothing if it has been told that already."""
        size = self.size()
        if size == self._told:
            return b""
        self._told = size
        return window_size(*size)

    @staticmethod
    def encode(typed: bytes) -> bytes:
        """Typed bytes as the far side reads them."""
        return escape(typed)


def is_terminal(fd: int) -> bool:
    """Whether there is a terminal at ``fd``; False when it is closed."""
    try:
        return os.isatty(fd)
    except OSError:
        return False
