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
from functools import partial

from flux_mpi.broker.broker import Broker
from flux_mpi.broker.logring import DEBUG, ERR, WARNING
from flux_mpi.message.codec import FrameDecoder, encode
from flux_mpi.message.errors import ProtocolError
from flux_mpi.message.message import FIRST_CLIENT, RESPONSE, Message, pack

RECEIVE = 256 * 1024
READ_ROUNDS = 4
"""Reads from one client in one turn: a flood from one must not starve the others."""
OUTPUT_LIMIT = 256 << 20
"""Bytes that may wait for a client that does not read, before it is dropped."""
RESERVED_FDS = 64
"""Descriptors kept free for the broker's own needs."""


class _Client:
    __slots__ = ("number", "sock", "uid", "decoder", "out", "sent", "blocked")

    def __init__(self, number: int, sock: socket.socket, uid: int, limit: int) -> None:
        self.number = number
        self.sock = sock
        self.uid = uid
        self.decoder = FrameDecoder(limit)
        self.out: list[bytes] = []
        self.sent = 0
        self.blocked = False


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


class ClientServer:
    """Accepts clients on ``path`` and joins them to ``broker``."""

    def __init__(
        self, broker: Broker, path: str, *, uid: int | None = None, max_clients: int | None = None
    ) -> None:
        self.broker = broker
        self.path = path
        self.uid = os.geteuid() if uid is None else uid
        self.max_clients = max_clients or max(16, raise_descriptor_limit() - RESERVED_FDS)
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
        broker.attach_clients(self.send)
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
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._spare >= 0:
                    self._accept_to_refuse()
                    continue
                self.broker.log(ERR, "connector-local", f"accept: {error.strerror}")
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
            sock.setblocking(False)
            client = _Client(next(self._numbers), sock, uid, self.broker.frame_limit)
            self._clients[client.number] = client
            self.broker.reactor.add_reader(sock.fileno(), partial(self._read, client))

    def _accept_to_refuse(self) -> None:
        os.close(self._spare)
        self._spare = -1
        with contextlib.suppress(OSError):
            self._refuse_full(self._sock.accept()[0])
        with contextlib.suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _refuse_full(self, sock: socket.socket) -> None:
        count = len(self._clients)
        self.broker.log(ERR, "connector-local", f"refused a client: {count} are connected")
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
            client.sent += len(frame)
            if not client.blocked:
                self._dirty[number] = client

    def backlog(self, number: int) -> int:
        """Bytes that wait for a client to read."""
        client = self._clients.get(number)
        return client.sent if client else 0

    def flush(self) -> None:
        """Write what this turn produced."""
        if self._dirty:
            dirty = list(self._dirty.values())
            self._dirty.clear()
            for client in dirty:
                self._write(client)

    def _write(self, client: _Client) -> None:
        if client.number not in self._clients or not client.out:
            return
        data = b"".join(client.out) if len(client.out) > 1 else client.out[0]
        try:
            written = client.sock.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            written = 0
        except OSError:
            self._drop(client)
            return
        reactor = self.broker.reactor
        client.sent = len(data) - written
        if not client.sent:
            client.out.clear()
            if client.blocked:
                client.blocked = False
                reactor.remove_writer(client.sock.fileno())
            return
        client.out = [data[written:]]
        if client.sent > OUTPUT_LIMIT:
            self.broker.log(
                WARNING,
                "connector-local",
                f"dropped a client that left {client.sent} bytes unread",
            )
            self._drop(client)
        elif not client.blocked:
            client.blocked = True
            reactor.add_writer(client.sock.fileno(), lambda: self._write(client))

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
