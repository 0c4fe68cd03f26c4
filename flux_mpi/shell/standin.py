"""Answering an MPICH launcher in the place of a broker that can no longer do it.

Hydra ends the whole MPI job when a process that it started leaves without finalizing. The process
that it started is the supervisor, which still holds ``PMI_FD``: it enters the closing barrier and
finalizes for the dead broker (PMI-1, RFC 13), and the other ranks live on. The barrier ends when
they all have come to it, that is when the instance ends; until then this costs nothing.

Loaded by the supervisor: standard library only.
"""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ACK_BOUND_S = 5.0
"""How long the launcher may take to acknowledge the finalization, once all ranks are there."""


class StandIn:
    """The last words of a rank on its PMI connection: feed it, until it is ``over``."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.over = False
        self.finalizing = False
        self.acknowledged = False
        """The launcher knows that this rank has finalized: the rest of the job ended in order."""
        self._say(b"cmd=barrier_in\n")

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> StandIn | None:
        """For the launcher that ``environ`` names, if it is one that needs a stand-in."""
        try:
            connection = socket.socket(fileno=os.dup(int(environ["PMI_FD"])))
        except (KeyError, ValueError, OSError):
            return None
        connection.setblocking(False)
        return StandIn(connection)

    def fileno(self) -> int:
        return self._connection.fileno()

    def readable(self) -> None:
        """The launcher said something, or hung up."""
        try:
            data = self._connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.over = True
            return
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if b"cmd=barrier_out" in line and not self.finalizing:
                self.finalizing = True
                self._say(b"cmd=finalize\n")
            elif b"cmd=finalize_ack" in line:
                self.acknowledged = self.over = True

    def _say(self, line: bytes) -> None:
        try:
            self._connection.sendall(line)
        except OSError:
            self.over = True

    def close(self) -> None:
        self._connection.close()
