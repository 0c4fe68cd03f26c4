"""What a service sees of its broker: requests to answer, and calls to make.

A service is any object whose methods take a ``Request``. ``Broker`` is the interface they are
written against, so that tests can hand them something smaller.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flux_mpi.message.errors import FluxError, ServiceError
from flux_mpi.message.message import ANY, FIRST_CLIENT, NORESPONSE, STREAMING, Message, unpack
from flux_mpi.reactor import Reactor

__all__ = [
    "ANY",
    "Broker",
    "Handler",
    "Request",
    "Response",
    "Rpc",
    "ServiceError",
    "ask_root",
    "child_of",
    "client_of",
]


class Request:
    """A request handed to a service; answer it with ``respond`` or ``error``."""

    __slots__ = ("message", "_send", "_open", "_closers", "_payload")

    def __init__(self, message: Message, send: Callable[[Message], None]) -> None:
        self.message = message
        self._send = send
        self._open = not message.flags & NORESPONSE
        self._closers: list[Callable[[], object]] | None = None
        self._payload: Any = self

    @property
    def topic(self) -> str:
        return self.message.topic

    @property
    def uid(self) -> int:
        """User id of who asks, as the broker that took the request in saw it."""
        return self.message.uid

    @property
    def payload(self) -> Any:
        """What was asked, decoded once."""
        if self._payload is self:
            raw = self.message.payload
            self._payload = None if raw is None else unpack(raw, strict_map_key=False)
        return self._payload

    @property
    def streaming(self) -> bool:
        return bool(self.message.flags & STREAMING)

    @property
    def open(self) -> bool:
        """False once answered for good, cancelled, or when no answer is wanted."""
        return self._open

    def respond(self, payload: Any = None) -> None:
        """Answer; on a stream, any number of times. A no-op once closed."""
        if self._open:
            if not self.message.flags & STREAMING:
                self._open = False
            self._send(self.message.answer(payload))

    def error(self, errnum: int, text: str = "") -> None:
        """End the request with an error; ENODATA ends a stream normally. A no-op once closed."""
        if self._open:
            self._open = False
            self._send(self.message.failure(errnum, text))

    def on_close(self, callback: Callable[[], object]) -> None:
        """Call back when the requester cancels, disconnects or is lost.

        At once, if the request is closed already: nobody would come to call it later.
        """
        if not self._open:
            callback()
            return
        if self._closers is None:
            self._closers = []
        self._closers.append(callback)

    def close(self) -> None:
        """The requester is gone: nothing more is sent. Called by the broker."""
        if self._open:
            self._open = False
            closers, self._closers = self._closers, None
            for callback in closers or ():
                callback()


class Response:
    """An answer to a call of ours."""

    __slots__ = ("message", "_payload")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._payload: Any = self

    @property
    def errnum(self) -> int:
        """0, or a POSIX error number (ENODATA: the stream has ended)."""
        return self.message.errnum

    @property
    def text(self) -> str:
        """The error's text."""
        body = self.message.body if self.message.errnum else ""
        return body if isinstance(body, str) else ""

    @property
    def payload(self) -> Any:
        if self._payload is self:
            self._payload = self.message.body
        return self._payload

    def check(self) -> Any:
        """The payload; raises FluxError when the answer is an error."""
        if self.errnum:
            raise FluxError(self.errnum, self.text)
        return self.payload


class Rpc:
    """A call of ours under way."""

    __slots__ = ("tag", "topic", "callback", "streaming", "_cancel")

    def __init__(
        self,
        tag: int,
        topic: str,
        callback: Callable[[Response], object],
        streaming: bool,
        cancel: Callable[[Rpc], None],
    ) -> None:
        self.tag = tag
        self.topic = topic
        self.callback = callback
        self.streaming = streaming
        self._cancel = cancel

    def cancel(self) -> None:
        """Want no more answers; the service is told. Idempotent."""
        self._cancel(self)


Handler = Callable[[Request], object]


class Broker(Protocol):
    """What services may ask of the broker that hosts them."""

    rank: int
    size: int
    reactor: Reactor

    def register(self, name: str, methods: Mapping[str, Handler]) -> None:
        """Offer service ``name``: topic ``name.method`` goes to ``methods[method]``."""

    def rpc(
        self,
        topic: str,
        payload: Any,
        callback: Callable[[Response], object],
        *,
        rank: int = ANY,
        streaming: bool = False,
    ) -> Rpc:
        """Call a service; ``callback`` gets every response, errors too."""

    def send(self, topic: str, payload: Any, *, rank: int = ANY) -> None:
        """Call a service that shall not answer."""

    def publish(self, topic: str, payload: Any) -> None:
        """Publish an event to the whole instance."""

    def subscribe(
        self, prefix: str, callback: Callable[[str, int, Any], object]
    ) -> Callable[[], None]:
        """Call ``callback(topic, sequence, payload)`` for events whose topic starts so.

        Returns how to stop.
        """

    def log(self, level: int, component: str, text: str) -> None:
        """Write to the log ring (levels of syslog: 3 err, 4 warning, 6 info, 7 debug)."""

    @property
    def attrs(self) -> Any:
        """The broker's attributes: ``get(name)``, ``set(name, value)``, ``items()``."""


def ask_root(broker: Broker, request: Request) -> None:
    """Have the root answer: a method of its own of a service that every rank offers."""

    def answer(response: Response) -> None:
        if response.errnum:
            request.error(response.errnum, response.text)
        else:
            request.respond(response.payload)

    call = broker.rpc(request.topic, request.payload, answer, rank=0)
    request.on_close(call.cancel)


def client_of(request: Request) -> int:
    """The client of this very broker that asks. Raises ServiceError (EPERM) when it is none."""
    route = request.message.route
    if len(route) != 1 or route[0] < FIRST_CLIENT:
        raise ServiceError(errno.EPERM, "only a client of this very broker can do that")
    return route[0]


def child_of(request: Request) -> int:
    """The broker right below that asks. Raises ServiceError (EPERM) when somebody else does."""
    route = request.message.route
    if len(route) != 1 or route[0] >= FIRST_CLIENT:
        raise ServiceError(errno.EPERM, f"{request.topic}: is between brokers")
    return route[0]
