"""The door for clients: a Unix-domain socket that only the instance's owner may use.

Bytes go in and out of each connection without ever blocking the broker. A client that sends
garbage, or does not read what it asked for, is dropped; the broker lives on.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import socket
import struct
from collections import deque
from functools import partial

from flux_mpi.broker.broker import Broker
from flux_mpi.broker.logring import DEBUG, ERR, WARNING
from flux_mpi.message.codec import FrameDecoder, encode
from flux_mpi.message.errors import ProtocolError
from flux_mpi.message.message import FIRST_CLIENT, RESPONSE, Message, pack

RECEIVE = 64 * 1024
"""Bytes asked of one ``recv``: beyond 128 KiB the allocator maps memory anew each time."""
READ_ROUNDS = 4
"""Reads from one client in one turn: a flood from one must not starve the others."""
OUTPUT_LIMIT = 256 << 20
"""Bytes that may wait for a client that does not read, before it is dropped."""
BUFFERS = 256
"""Messages handed to the kernel in one call, at most."""
WRITE_ROUNDS = 16
"""Writes to one client in one turn."""
RESERVED_FDS = 64
"""Descriptors kept free for the broker's own needs."""
ACCEPT_PAUSE_S = 0.2
"""How long to let new clients wait when the system has no descriptor at all left for us."""


class _Client:
    __slots__ = ("number", "sock", "uid", "decoder", "out", "waiting", "blocked")

    def __init__(self, number: int, sock: socket.socket, uid: int, limit: int) -> None:
        self.number = number
        self.sock = sock
        self.uid = uid
        self.decoder = FrameDecoder(limit)
        self.out: deque[bytes | memoryview] = deque()
        self.waiting = 0  # bytes in out
        self.blocked = False


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard):
        hard = 1 << 20
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


class ClientServer:
    """Accepts clients on ``path`` and joins them to ``broker``.

    Its turn-end hook must come after those of the services that answer clients in theirs.
    """

    def __init__(
        self,
        broker: Broker,
        path: str,
        *,
        uid: int | None = None,
        max_clients: int | None = None,
        output_limit: int = OUTPUT_LIMIT,
    ) -> None:
        self.broker = broker
        self.path = path
        self.uid = os.geteuid() if uid is None else uid
        self.max_clients = max_clients or max(16, raise_descriptor_limit() - RESERVED_FDS)
        self.output_limit = output_limit
        self._full = False
        self._numbers = itertools.count(FIRST_CLIENT)
        self._clients: dict[int, _Client] = {}
        self._dirty: dict[int, _Client] = {}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # Given back for a moment when descriptors run out, so that a client can be told so.
        self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        mask = os.umask(0o177)
        try:
            self._sock.bind(path)
        finally:
            os.umask(mask)
        self._sock.listen(512)
        broker.attach_clients(self.send, self.__len__)
        broker.reactor.add_reader(self._sock.fileno(), self._accept)
        broker.reactor.at_turn_end(self.flush)

    def __len__(self) -> int:
        return len(self._clients)

    # -- coming ---------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(64):
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._accept_to_refuse():
                    continue
                self.broker.log(ERR, "connector-local", f"accept: {error.strerror}")
                self._pause()
                return
            _, uid, _ = struct.unpack(
                "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            )
            if uid != self.uid:
                self.broker.log(WARNING, "connector-local", f"refused a connection of uid {uid}")
                self._refuse(sock, errno.EPERM, "this instance belongs to another user")
                continue
            if len(self._clients) >= self.max_clients:
                self._refuse_full(sock)
                continue
            self._full = False
            sock.setblocking(False)
            client = _Client(next(self._numbers), sock, uid, self.broker.frame_limit)
            self._clients[client.number] = client
            self.broker.reactor.add_reader(sock.fileno(), partial(self._read, client))

    def _pause(self) -> None:
        """The listening socket stays readable while nothing can be accepted: do not spin on it."""
        reactor = self.broker.reactor
        reactor.remove(self._sock.fileno())
        reactor.call_later(ACCEPT_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self.broker.reactor.add_reader(self._sock.fileno(), self._accept)

    def _accept_to_refuse(self) -> bool:
        """Use the spare descriptor to tell a client why; False when it could not be done."""
        if self._spare < 0:
            return self._keep_spare()
        os.close(self._spare)
        self._spare = -1
        try:
            self._refuse_full(self._sock.accept()[0])
        except BlockingIOError:
            pass
        except OSError:
            return False
        return self._keep_spare()

    def _keep_spare(self) -> bool:
        try:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def _refuse_full(self, sock: socket.socket) -> None:
        count = len(self._clients)
        if not self._full:  # not once for each of ten thousand
            self._full = True
            self.broker.log(ERR, "connector-local", f"refusing clients: {count} are connected")
        self._refuse(
            sock,
            errno.EMFILE,
            f"the broker has {count} clients, no more fit its limit of open files",
        )

    def _refuse(self, sock: socket.socket, errnum: int, why: str) -> None:
        refusal = Message(RESPONSE, "", pack(why), errnum=errnum)
        with contextlib.suppress(OSError):
            sock.send(encode(refusal), socket.MSG_DONTWAIT)
        sock.close()

    # -- in -------------------------------------------------------------------------------------

    def _read(self, client: _Client) -> None:
        broker = self.broker
        for _ in range(READ_ROUNDS):
            try:
                data = client.sock.recv(RECEIVE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._drop(client)
                return
            try:
                messages = client.decoder.feed(data)
            except ProtocolError as error:
                broker.log(WARNING, "connector-local", f"dropped a client: {error}")
                self._drop(client)
                return
            for message in messages:
                broker.from_client(client.number, client.uid, message)
            if len(data) < RECEIVE:
                return

    # -- out ------------------------------------------------------------------------------------

    def send(self, number: int, message: Message) -> None:
        """Queue ``message`` for a client; unknown clients are gone ones."""
        client = self._clients.get(number)
        if client is not None:
            frame = encode(message)
            client.out.append(frame)
            client.waiting += len(frame)
            if not client.blocked or client.waiting > self.output_limit:
                self._dirty[number] = client

    def backlog(self, number: int) -> int:
        """Bytes that wait for a client to read."""
        client = self._clients.get(number)
        return client.waiting if client else 0

    def flush(self) -> None:
        """Write what this turn produced."""
        while self._dirty:  # again: the end of a client may be the answer to another's request
            dirty = list(self._dirty.values())
            self._dirty.clear()
            for client in dirty:
                self._write(client)

    def _write(self, client: _Client) -> None:
        if client.number not in self._clients:
            return
        out = client.out
        try:
            for _ in range(WRITE_ROUNDS):
                if not out:
                    break
                if len(out) == 1:
                    written = client.sock.send(out[0], socket.MSG_NOSIGNAL)
                else:
                    parts = list(itertools.islice(out, BUFFERS))
                    written = client.sock.sendmsg(parts, (), socket.MSG_NOSIGNAL)
                client.waiting -= written
                while written:
                    head = out[0]
                    if written < len(head):
                        out[0] = memoryview(head)[written:]
                        break
                    written -= len(head)
                    out.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if client.waiting > self.output_limit:
            self.broker.log(
                WARNING,
                "connector-local",
                f"dropped a client that left {client.waiting} bytes unread",
            )
            self._drop(client)
        elif client.blocked != bool(out):
            client.blocked = bool(out)
            if client.blocked:
                self.broker.reactor.add_writer(client.sock.fileno(), partial(self._write, client))
            else:
                self.broker.reactor.remove_writer(client.sock.fileno())

    # -- going ----------------------------------------------------------------------------------

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.number, None) is None:
            return
        self._dirty.pop(client.number, None)
        self.broker.reactor.remove(client.sock.fileno())
        client.sock.close()
        self.broker.client_gone(client.number)

    def close(self) -> None:
        """Flush what can be, close every connection, remove the socket. Idempotent."""
        if self._sock.fileno() < 0:
            return
        self.flush()
        self.broker.log(DEBUG, "connector-local", f"closing, {len(self._clients)} clients left")
        self.broker.reactor.remove(self._sock.fileno())
        self._sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        for client in list(self._clients.values()):
            self._drop(client)
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
