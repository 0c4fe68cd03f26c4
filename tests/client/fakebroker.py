"""A broker in a thread: speaks the frames of docs/protocol.md, answers from a table of handlers."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flux_mpi.message.codec import FrameDecoder, encode
from flux_mpi.message.errors import FluxError, ProtocolError
from flux_mpi.message.message import (
    CONTROL,
    NORESPONSE,
    REQUEST,
    RESPONSE,
    STREAMING,
    Message,
    pack,
)


class Request:
    """What a handler is given."""

    def __init__(self, connection: Connection, message: Message) -> None:
        self.connection = connection
        self.message = message
        self.cancelled = False

    @property
    def payload(self) -> Any:
        return self.message.body

    def respond(self, payload: Any = None) -> None:
        if not self.message.flags & NORESPONSE:
            self.connection.send(self.message.answer(payload))

    def error(self, errnum: int, text: str = "") -> None:
        if not self.message.flags & NORESPONSE:
            self.connection.send(self.message.failure(errnum, text))

    def end(self) -> None:
        self.error(errno.ENODATA)


class Connection:
    def __init__(self, broker: FakeBroker, sock: socket.socket) -> None:
        self.broker = broker
        self.sock = sock
        self.open: dict[int, Request] = {}
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        self.send_bytes(encode(message))

    def send_bytes(self, data: bytes) -> None:
        with self._lock:
            try:
                self.sock.sendall(data)
            except OSError:
                return  # the client has gone

    def serve(self) -> None:
        decoder = FrameDecoder()
        while True:
            try:
                data = self.sock.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            try:
                messages = decoder.feed(data)
            except ProtocolError:
                self.sock.close()
                return
            for message in messages:
                self.broker.take(self, message)


class FakeBroker:
    """``handlers`` maps topics to functions of a Request; a dict or list answers as it is."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "local-0")
        self.handlers: dict[str, Callable[[Request], object] | dict[str, Any]] = {
            "broker.ping": lambda request: request.respond({**(request.payload or {}), "rank": 0}),
            "attr.get": self._attr,
            "attr.list": lambda request: request.respond({"attrs": self.attrs}),
        }
        self.attrs = {
            "rank": "0",
            "size": "4",
            "version": "0",
            "hostlist": "node[0-3]",
            "instance-level": "0",
            "local-uri": f"local://{self.path}",
            "security.owner": str(os.getuid()),
        }
        self.requests: list[tuple[str, Any, int]] = []
        """(topic, payload, target) of all requests but pings, in order."""
        self.controls: list[Message] = []
        self.connections: list[Connection] = []
        self._changed = threading.Condition()
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(self.path)
        self._sock.listen(16)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def uri(self) -> str:
        return f"local://{self.path}"

    def close(self) -> None:
        # shutdown() wakes the thread that is in accept(); close() alone would not.
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self.drop()
        self._thread.join(5)

    def drop(self) -> None:
        """Hangs up on every client."""
        for connection in self.connections:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def wait_for(self, what: Callable[[], object], timeout: float = 10.0) -> None:
        """Until ``what()`` is true; it is looked at after each message."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(what()), timeout), "it did not happen"

    def topics(self) -> list[str]:
        return [topic for topic, _, _ in self.requests]

    def payload(self, topic: str) -> Any:
        """The payload of the last request to ``topic``."""
        return next(payload for name, payload, _ in reversed(self.requests) if name == topic)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            connection = Connection(self, sock)
            self.connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def take(self, connection: Connection, message: Message) -> None:
        with self._changed:
            if message.kind == CONTROL:
                self.controls.append(message)
                request = connection.open.pop(message.tag, None)
                if request is not None:
                    request.cancelled = True
            elif message.kind == REQUEST:
                if message.topic != "broker.ping":
                    self.requests.append((message.topic, message.body, message.target))
            elif message.kind == RESPONSE:
                self.requests.append(("response", message.body, message.errnum))
            self._changed.notify_all()
        if message.kind != REQUEST:
            return
        request = Request(connection, message)
        if message.flags & STREAMING:
            connection.open[message.tag] = request
        handler = self.handlers.get(message.topic)
        if handler is None:
            request.error(errno.ENOSYS, f"{message.topic}: no such service")
        elif callable(handler):
            try:
                handler(request)
            except FluxError as error:
                request.error(error.errno or errno.EPROTO, str(error))
        else:
            request.respond(handler)

    def ask(self, topic: str, payload: Any, tag: int, flags: int = 0) -> None:
        """Sends a request to the client that offers the service."""
        self.connections[-1].send(
            Message(REQUEST, topic, pack(payload), tag=tag, flags=flags, route=[1 << 32])
        )

    def _attr(self, request: Request) -> None:
        name = request.payload["name"]
        if name not in self.attrs:
            raise FluxError(errno.ENOENT, f"{name}: no such attribute")
        request.respond({"value": self.attrs[name]})


def streaming(*payloads: Any) -> Callable[[Request], object]:
    """A handler that answers with these and ends the stream."""

    def handler(request: Request) -> None:
        for payload in payloads:
            request.respond(payload)
        request.end()

    return handler


def uid() -> int:
    return os.getuid()
