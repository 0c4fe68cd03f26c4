"""The instance around this one, when this one was started in a job of flux-mpi.

Rank 0 asks it when the job ends, tells it where to find this instance, and stays connected to learn
of its end: nobody could reach or end what would be left of it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from flux_mpi.formats import fluid
from flux_mpi.message.codec import FrameDecoder, encode
from flux_mpi.message.errors import FluxError, ProtocolError
from flux_mpi.message.message import REQUEST, RESPONSE, Message, pack, unpack
from flux_mpi.reactor import Reactor

SCHEME = "local://"
ANSWER_S = 5.0
"""How long the enclosing instance may take to answer while this one waits to start."""
CHUNK = 1 << 16

Answer = Callable[[Any, str], object]
"""Called with an answer's payload and '', or None and what went wrong."""


def level(environ: Mapping[str, str]) -> int:
    """How many instances are around one that is started with ``environ``: 0 outside of any job."""
    if not environ.get("FLUX_JOB_ID"):
        return 0
    return len([part for part in environ.get("FLUX_JOB_ID_PATH", "").split("/") if part])


def patience(seconds: float, depth: int) -> float:
    """What remains of a grace period ``depth`` levels down: half of it at each.

    Who ends a job kills what has not ended after its own period; an instance in it must have ended
    its jobs before, or they would be nobody's.
    """
    return float(seconds / (1 << min(depth, 10)))


def remote_uri(uri: str, host: str) -> str:
    """The form of a local URI that can be used from other hosts."""
    return f"ssh://{host}{uri.removeprefix(SCHEME)}"


class Enclosing:
    """A connection to the broker that runs the job ``jobid`` in which this instance is.

    Raises FluxError when there is no such broker, and ValueError for what is no job id.
    """

    def __init__(self, uri: str, jobid: str) -> None:
        self.jobid = fluid.parse(jobid)
        self.lost = False
        self._decoder = FrameDecoder()
        self._asked: dict[int, Answer] = {}
        self._tag = 0
        self._reactor: Reactor | None = None
        self._on_lost: Callable[[], object] = lambda: None
        if not uri.startswith(SCHEME):
            raise FluxError(errno.EINVAL, f"cannot use FLUX_URI={uri!r}: expected local://PATH")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        limit = struct.pack("ll", int(ANSWER_S), int(ANSWER_S % 1 * 1e6))
        try:
            # Many may start at once; a time-out of Python's would not wait for them to be accepted.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._socket.connect(uri[len(SCHEME) :])
            self._socket.settimeout(ANSWER_S)
        except OSError as error:
            self._socket.close()
            raise FluxError(error.errno or errno.EINVAL, f"{uri}: {error.strerror}") from None

    def close(self) -> None:
        """Hang up."""
        if not self.lost:
            self.lost = True
            if self._reactor is not None:
                self._reactor.remove(self._socket.fileno())
            self._socket.close()

    # -- before the loop ------------------------------------------------------------------------

    def expiration(self) -> float:
        """The Unix time at which the job must end; 0 when it has no limit.

        Raises FluxError when the job is unknown, not ours, or nobody answers within ``ANSWER_S``.
        """
        answer: list[tuple[Any, str]] = []
        self._ask(
            "job-info.lookup",
            {"id": self.jobid, "keys": ["R"]},
            lambda payload, wrong: answer.append((payload, wrong)),
        )
        try:
            while not answer and not self.lost:
                self._take(self._socket.recv(CHUNK))
        except OSError as error:
            raise FluxError(errno.ETIMEDOUT, f"no answer: {error}") from None
        payload: Any = None
        payload, wrong = answer[0] if answer else (None, "it has hung up")
        if wrong:
            raise FluxError(errno.EPROTO, wrong)
        try:
            return max(0.0, float(payload["R"]["execution"]["expiration"]))
        except (KeyError, TypeError, ValueError):
            return 0.0

    # -- in the loop ----------------------------------------------------------------------------

    def follow(self, reactor: Reactor, on_lost: Callable[[], object]) -> None:
        """Have the loop take what it says from now on; ``on_lost`` is called at its end."""
        self._reactor = reactor
        self._on_lost = on_lost
        self._socket.setblocking(False)
        reactor.add_reader(self._socket.fileno(), self._readable)

    def announce(self, uri: str, done: Answer) -> None:
        """Note on the job where this instance is (a ``memo``)."""
        self._ask("job-manager.memo", {"id": self.jobid, "memo": {"uri": uri}}, done)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._take(data)
        if self.lost:
            self._on_lost()

    def _ask(self, topic: str, payload: dict[str, Any], done: Answer) -> None:
        self._tag += 1
        self._asked[self._tag] = done
        frame = encode(Message(REQUEST, topic, pack(payload), tag=self._tag))
        try:
            # A few hundred bytes on a socket that is otherwise silent: they fit its buffer.
            self._socket.sendall(frame)
        except OSError as error:
            del self._asked[self._tag]
            done(None, os.strerror(error.errno or errno.EPIPE))

    def _take(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data) if data else []
        except ProtocolError:
            data, messages = b"", []  # no broker of ours
        for message in messages:
            if message.kind != RESPONSE:
                continue
            done = self._asked.pop(message.tag, None)
            body = None if message.payload is None else unpack(message.payload)
            if message.tag == 0 and message.errnum:
                self._end(str(body))  # it refuses us, and says why
                return
            if done is not None:
                done(None if message.errnum else body, str(body) if message.errnum else "")
        if not data:
            self._end("it has hung up")

    def _end(self, why: str) -> None:
        self.close()
        asked, self._asked = self._asked, {}
        for done in asked.values():
            done(None, why)
