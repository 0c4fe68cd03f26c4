"""A client's connection to its broker: requests out, responses in, over one Unix socket.

The core is blocking and has no thread of its own: whoever waits for an answer reads the socket and
hands what it reads to whom it belongs. Several threads may use one handle: one of the waiting ones
reads (the leader), the others sleep until their answer is there or the leadership is free.

Import cost matters here (every command line pays it), so this file uses ``_socket`` and
``_thread``, the C halves of the standard modules, and neither ``socket`` nor ``threading``.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import os
import select
import struct
import time
from collections import deque

from flux_mpi.client.uri import instance_uri, socket_path
from flux_mpi.message.codec import FrameDecoder, encode
from flux_mpi.message.errors import FluxError, ProtocolError
from flux_mpi.message.message import (
    ANY,
    CONTROL,
    EVENT,
    NORESPONSE,
    REQUEST,
    RESPONSE,
    STREAMING,
    UPSTREAM,
    Message,
    pack,
    unpack,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from flux_mpi.client.groups import GroupChange
    from flux_mpi.client.kvs import KVS
    from flux_mpi.client.tree import TreeResult

CHUNK = 1 << 16
"""Bytes read from the socket at a time: beyond 128 KiB the allocator maps memory anew each time."""

HELLO_TIMEOUT_S = 30.0
"""A listener that answers nothing at all for this long is no broker of ours."""

_DONTWAIT = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL


class Future:
    """The answer, or stream of answers, to one request.

    ``get()`` waits for the next answer; iterating a stream ends normally when the service says so
    (ENODATA); ``then()`` calls back instead.
    """

    __slots__ = (
        "_answers",
        "_callback",
        "_done",
        "_handle",
        "_waiter",
        "streaming",
        "tag",
        "topic",
    )

    def __init__(self, handle: Handle, tag: int, topic: str, streaming: bool) -> None:
        self._handle = handle
        self.tag = tag
        self.topic = topic
        self.streaming = streaming
        self._answers: deque[tuple[int, bytes | None]] = deque()
        self._done = False
        self._callback: Callable[[Future], object] | None = None
        self._waiter: Any = None

    def __repr__(self) -> str:
        return f"<Future {self.topic!r} {'done' if self._done else 'pending'}>"

    def ready(self) -> bool:
        """True when ``get()`` would not wait."""
        return bool(self._answers)

    def done(self) -> bool:
        """True when no further answer will come (there may be some left to ``get``)."""
        return self._done

    def get(self, timeout: float | None = None) -> Any:
        """The next answer's payload, decoded.

        ``timeout`` is in seconds. Raises TimeoutError, FluxError with the service's error number
        and text (ENODATA at the normal end of a stream), or FluxError(ECONNRESET) when the
        broker has gone.
        """
        if not self._answers:
            if self._done and self.streaming:
                raise FluxError(errno.ENODATA)
            self._handle._wait(self, timeout)
        # A single answer may be asked for again; what a stream says is consumed.
        errnum, payload = self._answers.popleft() if self.streaming else self._answers[0]
        if errnum:
            raise FluxError(errnum, _error_text(payload))
        return None if payload is None else unpack(payload, strict_map_key=False)

    def then(self, callback: Callable[[Future], object]) -> Future:
        """Calls ``callback(self)`` for each answer, when someone reads the handle.

        That is anyone in ``get()``, or ``Handle.run()``. Answers already here are delivered now.
        """
        self._callback = callback
        for _ in range(len(self._answers)):
            callback(self)
        return self

    def cancel(self) -> None:
        """Tells the service that nobody wants the rest; what was on its way is dropped."""
        if not self._done:
            self._done = True
            self._handle._forget(self)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self.get()
        except FluxError as error:
            if error.errno == errno.ENODATA:
                raise StopIteration from None
            raise


class Request:
    """A request that another client or a broker sent to a service of this client."""

    __slots__ = ("_handle", "_message", "closed")

    def __init__(self, handle: Handle, message: Message) -> None:
        self._handle = handle
        self._message = message
        self.closed = False

    @property
    def topic(self) -> str:
        return self._message.topic

    @property
    def key(self) -> tuple[int, tuple[int, ...]]:
        """What a later cancel of this request is recognised by."""
        return self._message.tag, tuple(self._message.route)

    @property
    def payload(self) -> Any:
        return self._message.body

    @property
    def streaming(self) -> bool:
        return bool(self._message.flags & STREAMING)

    def respond(self, payload: object = None) -> None:
        """Answers; many times on a stream. Nothing happens once the requester has gone."""
        if not self.closed and not self._message.flags & NORESPONSE:
            self._handle._send(self._message.answer(payload))
            if not self.streaming:
                self.closed = True

    def error(self, errnum: int, text: str = "") -> None:
        """Ends the request; ``error(ENODATA)`` ends a stream normally."""
        if not self.closed and not self._message.flags & NORESPONSE:
            self.closed = True
            self._handle._send(self._message.failure(errnum, text))


class Service:
    """A service that this client offers; ``close()`` withdraws it."""

    def __init__(
        self,
        handle: Handle,
        name: str,
        methods: Mapping[str, Callable[[Request], object]],
        on_close: Callable[[tuple[int, tuple[int, ...]]], object] | None,
    ) -> None:
        self.name = name
        self.methods = dict(methods)
        self.on_close = on_close
        self._handle = handle
        self.open: dict[tuple[int, tuple[int, ...]], Request] = {}

    def close(self) -> None:
        if self._handle._services.pop(self.name, None) is not None and not self._handle.closed:
            self._handle.rpc("service.remove", {"service": self.name}).get()


class Handle:
    """A connection to the nearest broker of an instance.

    ``uri`` is ``local://PATH``; by default it comes from ``FLUX_URI``. Use it in a ``with`` block,
    or call ``close()``. Raises FluxError saying what is wrong when there is no instance, the
    socket is stale, or it belongs to somebody else; EAGAIN when nobody takes the connection for
    ``patience_s`` seconds.
    """

    def __init__(self, uri: str | None = None, *, patience_s: float = HELLO_TIMEOUT_S) -> None:
        self.uri = instance_uri(uri)
        self.closed = False
        self._failure: FluxError | None = None
        self._tag = 0
        self._futures: dict[int, Future] = {}
        self._services: dict[str, Service] = {}
        self._decoder = FrameDecoder()
        self._sending = _thread.allocate_lock()
        self._reading = _thread.allocate_lock()
        self._followers: list[Any] = []
        self._heard = False
        self._backlog: list[Message] = []
        self._socket = _connect(self.uri, patience_s)
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        try:
            # Its answer is not waited for: it only proves that a broker is there (see _read).
            self._send(Message(REQUEST, "broker.ping", pack({}), tag=0xFFFFFFFF))
        except FluxError:
            self._socket.close()
            raise

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Handle {self.uri}{' closed' if self.closed else ''}>"

    def close(self) -> None:
        """Closes the connection; the broker then drops all that it had open for us."""
        if not self.closed:
            self.closed = True
            self._socket.close()
            # Who closes wants to hear no more; whoever waits in get() is told.
            for future in self._futures.values():
                future._callback = None
            self._break(FluxError(errno.ECONNRESET, "the handle has been closed"))

    def fileno(self) -> int:
        """The socket, for ``select`` and ``poll``."""
        return self._socket.fileno()

    # -- requests ---------------------------------------------------------------------------------

    def rpc(
        self,
        topic: str,
        payload: object = None,
        rank: int = ANY,
        *,
        streaming: bool = False,
        upstream: bool = False,
        callback: Callable[[Future], object] | None = None,
    ) -> Future:
        """Sends a request and returns its Future at once.

        ``rank`` is a broker's, or ANY for the nearest that offers the service. ``callback`` is
        ``Future.then`` without the race. Raises FluxError(EINVAL) when the payload cannot be
        packed, and the connection's error when it is broken.
        """
        flags = (STREAMING if streaming else 0) | (UPSTREAM if upstream else 0)
        with self._sending:
            self._tag = tag = self._tag % 0xFFFFFFF0 + 1
        future = Future(self, tag, topic, streaming)
        future._callback = callback
        self._futures[tag] = future
        try:
            self._send(
                Message(REQUEST, topic, _pack(payload, topic), flags=flags, tag=tag, target=rank)
            )
        except FluxError:
            self._futures.pop(tag, None)
            raise
        return future

    def send(self, topic: str, payload: object = None, rank: int = ANY) -> None:
        """A request to which no answer is wanted."""
        self._send(Message(REQUEST, topic, _pack(payload, topic), flags=NORESPONSE, target=rank))

    def call(
        self, topic: str, payload: object = None, rank: int = ANY, timeout: float | None = None
    ) -> Any:
        """``rpc(…).get(timeout)``; a request that timed out is cancelled."""
        future = self.rpc(topic, payload, rank)
        try:
            return future.get(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def dispatch(self, timeout: float | None = 0.0) -> bool:
        """Reads once what is there, waiting up to ``timeout`` seconds (None: for ever) for it.

        Callbacks run in here. Returns False when nothing came. Not to be called by two threads.
        """
        with self._reading:
            return self._read(timeout)

    def run(self, until: Callable[[], bool]) -> None:
        """Dispatches until ``until()`` is true. Raises when the connection breaks."""
        while not until():
            self._check()
            self.dispatch(None)

    # -- everyday services ------------------------------------------------------------------------

    def attr_get(self, name: str, rank: int = ANY) -> str:
        """A broker attribute. Raises FluxError(ENOENT) naming it when there is none."""
        value: str = self.call("attr.get", {"name": name}, rank)["value"]
        return value

    def attr_set(self, name: str, value: str, rank: int = ANY) -> None:
        """Sets a broker attribute. Raises FluxError(EPERM) when it is read-only."""
        self.call("attr.set", {"name": name, "value": value}, rank)

    def attr_list(self, rank: int = ANY) -> dict[str, str]:
        """All broker attributes by name."""
        attrs: dict[str, str] = self.call("attr.list", {}, rank)["attrs"]
        return attrs

    @property
    def rank(self) -> int:
        """The rank of the broker that this handle is connected to."""
        return int(self.attr_get("rank"))

    @property
    def size(self) -> int:
        """Brokers in the instance."""
        return int(self.attr_get("size"))

    @property
    def kvs(self) -> KVS:
        """The instance's key-value store."""
        from flux_mpi.client.kvs import KVS

        return KVS(self)

    def tree(self, command: Any, **how: Any) -> TreeResult:
        """Runs a command for each member of an ensemble, over a hierarchy of instances.

        ``how`` is what `flux_mpi.tree` takes: ``jobs`` or ``members``, ``topology``, and so on.
        """
        from flux_mpi.client.tree import tree

        return tree(command, handle=self, **how)

    def publish(self, topic: str, payload: object = None) -> int:
        """Publishes an event to the whole instance; returns its sequence number."""
        sequence: int = self.call("event.publish", {"topic": topic, "payload": payload})["seq"]
        return sequence

    def events(self, *prefixes: str) -> Iterator[tuple[str, int, Any]]:
        """Events whose topic starts with one of ``prefixes`` (none given: all events).

        Yields (topic, sequence, payload); subscribed when this returns.
        """
        streams = [
            self.rpc("event.subscribe", {"topic": prefix}, streaming=True)
            for prefix in prefixes or ("",)
        ]
        # The broker serves a client's requests in order: once this is answered, all are subscribed.
        self.call("broker.ping", {})
        return self._events(streams)

    def _events(self, streams: list[Future]) -> Iterator[tuple[str, int, Any]]:
        try:
            last = -1
            while True:
                ready = next((s for s in streams if s._answers), None)
                if ready is None:
                    self._check()
                    self.dispatch(None)
                    continue
                event = ready.get()
                if not event.get("topic"):
                    continue  # the acknowledgement of a subscription
                if len(streams) > 1:
                    # One event may match several prefixes: it is reported once.
                    if event["seq"] <= last:
                        continue
                    last = event["seq"]
                yield event["topic"], event["seq"], event.get("payload")
        finally:
            for stream in streams:
                stream.cancel()

    def parent(self) -> Handle:
        """A connection to the enclosing instance, of which this one is a job.

        Raises FluxError(ENOENT) when this instance is no job of another.
        """
        try:
            uri = self.attr_get("parent-uri")
        except FluxError as error:
            if error.errno != errno.ENOENT:
                raise
            raise FluxError(
                errno.ENOENT, f"the instance at {self.uri} has no parent: it is no job of another"
            ) from None
        return Handle(uri)

    # -- jobs that talk ---------------------------------------------------------------------------

    def barrier(self, name: str, nprocs: int, timeout: float | None = None) -> None:
        """Waits until ``nprocs`` participants are in the barrier ``name``; all then go on.

        They may be any clients of any rank: tasks of different jobs, threads with a call each.
        The name is free again at once. ``timeout`` is in seconds.

        Raises FluxError(ECONNABORTED), saying who, in all that are in it when one of them
        disconnects, gives up or is lost with its broker; FluxError(EINVAL) when others entered
        with another ``nprocs``; TimeoutError, saying how many have entered, when it takes longer
        than ``timeout``: that fails it for the others too.
        """
        from flux_mpi.client.groups import barrier

        barrier(self, name, nprocs, timeout)

    def join_group(self, name: str, member: str | None = None) -> str:
        """Makes this connection a member of group ``name`` until it leaves or closes.

        Returns the member's name: ``member``, by default ``JOBID.taskrank`` in a task and
        ``HOST:PID`` elsewhere. Raises FluxError(EEXIST) when somebody of that name is in it.
        """
        if member is None:
            from flux_mpi.client.groups import own_name

            member = own_name(self.uri)
        self.call("groups.join", {"name": name, "member": member})
        return member

    def leave_group(self, name: str, member: str | None = None) -> None:
        """Ends a membership in group ``name``: that of ``member`` (default as in `join_group`).

        Raises FluxError(ENOENT) when nobody of that name is in it.
        """
        if member is None:
            from flux_mpi.client.groups import own_name

            member = own_name(self.uri)
        self.call("groups.leave", {"name": name, "member": member})

    def group(self, name: str) -> list[str]:
        """The members of group ``name``, sorted (tasks of a job by rank); empty: nobody."""
        members: list[str] = self.call("groups.get", {"name": name})["members"]
        return members

    def watch_group(self, name: str) -> Iterator[GroupChange]:
        """The members of group ``name`` now, and after each change: a ``GroupChange`` each.

        Watching has begun when this returns; it ends when the iterator is closed or let go.
        """
        from flux_mpi.client.groups import changes

        return changes(self.rpc("groups.get", {"name": name}, streaming=True))

    # -- services of this client ------------------------------------------------------------------

    def service(
        self,
        name: str,
        methods: Mapping[str, Callable[[Request], object]],
        on_close: Callable[[tuple[int, tuple[int, ...]]], object] | None = None,
    ) -> Service:
        """Offers a service on this client's broker; ``methods`` are called with a ``Request``.

        They run in whichever thread reads the handle. ``on_close(key)`` tells that the requester
        of an open stream has gone or cancelled. Raises FluxError(EEXIST) for a taken name.
        """
        service = Service(self, name, methods, on_close)
        self._services[name] = service
        try:
            self.call("service.add", {"service": name})
        except FluxError:
            del self._services[name]
            raise
        return service

    # -- the socket -------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failure is not None:
            raise FluxError(self._failure.errno or errno.ECONNRESET, str(self._failure))

    def _send(self, message: Message) -> None:
        self._check()
        frame = encode(message)
        failure = None
        with self._sending:
            try:
                sent = self._socket.send(frame, _DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                failure = error
                sent = len(frame)
            if sent < len(frame):
                try:
                    self._send_rest(memoryview(frame)[sent:])
                except OSError as error:
                    failure = error
        if failure is not None:
            self._break_unless_told(failure)
            self._check()

    def _break_unless_told(self, failure: OSError) -> None:
        """The broker has hung up on us; what it said before may tell why."""
        if self._reading.acquire(False):
            try:
                while self._readable.poll(0) and self._receive() is None:
                    pass
                backlog, self._backlog = self._backlog, []
            finally:
                self._reading.release()
            for message in backlog:
                self._dispatch(message)
        self._break(self._lost(failure))

    def _send_rest(self, rest: memoryview) -> None:
        """Sends when the socket is full, and reads meanwhile.

        A broker may stop reading from a client that does not take its answers; were we not to
        read here, both would wait for ever. What is read is dispatched later: callbacks may send.
        """
        both = select.poll()
        both.register(self._socket, select.POLLOUT | select.POLLIN)
        while rest:
            _, events = both.poll()[0]
            if events & select.POLLIN and self._reading.acquire(False):
                try:
                    lost = self._receive()
                finally:
                    self._reading.release()
                if lost is not None:
                    raise lost
            if events & (select.POLLOUT | select.POLLERR | select.POLLHUP):
                try:
                    rest = rest[self._socket.send(rest, _DONTWAIT) :]
                except BlockingIOError:
                    continue

    def _forget(self, future: Future) -> None:
        self._futures.pop(future.tag, None)
        if self._failure is None:
            self._send(Message(CONTROL, "cancel", tag=future.tag))

    def _lost(self, cause: OSError | None = None) -> FluxError:
        if not self._heard:
            return FluxError(
                errno.ECONNREFUSED,
                f"the broker at {self.uri} closed the connection at once: it serves its owner "
                f"only (you are uid {os.getuid()}), or is no flux-mpi broker",
            )
        reason = f" ({os.strerror(cause.errno)})" if cause is not None and cause.errno else ""
        return FluxError(
            errno.ECONNRESET, f"lost the connection to {self.uri}: the broker has ended{reason}"
        )

    def _break(self, failure: FluxError) -> None:
        """No further message will come: everybody who waits is told."""
        if self._failure is None:
            self._failure = failure
        for future in list(self._futures.values()):
            self._deliver(future, failure.errno or errno.ECONNRESET, pack(str(failure)), True)
        self._futures.clear()
        for service in self._services.values():
            for request in service.open.values():
                request.closed = True
            service.open.clear()

    def _wait(self, future: Future, timeout: float | None) -> None:
        """Returns when ``future`` has an answer; reads the socket, or lets another thread do it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not future._answers:
            self._check()
            if future._done:
                raise FluxError(errno.ECANCELED, f"{future.topic}: the request was cancelled")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"{future.topic}: no answer within {timeout:g} s")
            if self._reading.acquire(False):
                try:
                    # Another reader may have delivered it between the check and the lock.
                    if not future._answers and future._done is False:
                        self._read(left)
                finally:
                    self._reading.release()
                    self._wake_follower()
            else:
                event = _thread.allocate_lock()
                event.acquire()
                future._waiter = event
                self._followers.append(event)
                # The leader may have finished between our failed acquire and the append.
                if not self._reading.locked() or future._answers:
                    self._wake_follower()
                event.acquire(True, -1 if left is None else left)
                future._waiter = None
                if event in self._followers:
                    self._followers.remove(event)

    def _wake_follower(self) -> None:
        while self._followers:
            try:
                event = self._followers.pop()
            except IndexError:
                return
            if event.locked():
                _release(event)
                return

    def _read(self, timeout: float | None) -> bool:
        """Reads once and dispatches; False when ``timeout`` passed without a byte."""
        if not self._backlog:
            limit = timeout
            if not self._heard and (timeout is None or timeout > HELLO_TIMEOUT_S):
                limit = HELLO_TIMEOUT_S
            # Rounded up, so that a deadline just ahead is no busy loop.
            wait_ms = None if limit is None else -int(-limit * 1000 // 1)
            if limit is not None and not self._readable.poll(wait_ms):
                if limit != timeout:
                    self._break(
                        FluxError(
                            errno.ETIMEDOUT,
                            f"{self.uri} answered nothing in {limit:g} s: it is no flux-mpi "
                            "broker, or one that hangs",
                        )
                    )
                return False
            failure = self._receive()
            if failure is not None:
                self._break(failure)
                return False
        messages, self._backlog = self._backlog, []
        for message in messages:
            self._dispatch(message)
        return True

    def _receive(self) -> FluxError | None:
        """Adds what the socket holds to the backlog (waits for a first byte)."""
        try:
            data = self._socket.recv(CHUNK)
        except OSError as error:
            return self._lost(error)
        if not data:
            return self._lost()
        try:
            self._backlog += self._decoder.feed(data)
        except ProtocolError as error:
            return FluxError(
                errno.EPROTO, f"{self.uri} does not speak flux-mpi's protocol: {error}"
            )
        self._heard = True
        return None

    def _dispatch(self, message: Message) -> None:
        kind = message.kind
        if kind == RESPONSE:
            future = self._futures.get(message.tag)
            if message.tag == 0 and message.errnum:
                # Not an answer: why the broker is about to close this connection.
                text = _error_text(message.payload) or os.strerror(message.errnum)
                self._break(FluxError(message.errnum, f"refused by {self.uri}: {text}"))
            elif future is not None:
                last = not future.streaming or message.errnum != 0
                if last:
                    self._futures.pop(message.tag, None)
                self._deliver(future, message.errnum, message.payload, last)
        elif kind == REQUEST:
            self._serve(message)
        elif kind == CONTROL:
            self._closed_by_peer(message)
        elif kind == EVENT:
            pass  # events come as answers to event.subscribe

    def _deliver(self, future: Future, errnum: int, payload: bytes | None, last: bool) -> None:
        future._answers.append((errnum, payload))
        if last:
            future._done = True
        waiter = future._waiter
        if waiter is not None and waiter.locked():
            _release(waiter)
        if future._callback is not None:
            future._callback(future)

    def _serve(self, message: Message) -> None:
        service_name, _, method = message.topic.rpartition(".")
        service = self._services.get(service_name)
        request = Request(self, message)
        handler = service.methods.get(method) if service is not None else None
        if service is None or handler is None:
            request.error(errno.ENOSYS, f"{message.topic}: no such method")
            return
        if request.streaming:
            service.open[request.key] = request
        try:
            handler(request)
        except FluxError as error:
            request.error(error.errno or errno.EPROTO, str(error))
        except Exception as error:
            # The requester must not hang because our handler is broken.
            request.error(errno.EPROTO, f"{message.topic}: {type(error).__name__}: {error}")
            raise

    def _closed_by_peer(self, message: Message) -> None:
        """``cancel`` names one request; ``disconnect`` all that came by a route."""
        route = tuple(message.route)
        for service in self._services.values():
            for key in list(service.open):
                tag, path = key
                if message.topic == "disconnect":
                    gone = path[: len(route)] == route
                else:
                    gone = tag == message.tag and path == route
                if gone:
                    service.open.pop(key).closed = True
                    if service.on_close is not None:
                        service.on_close(key)


def _release(lock: Any) -> None:
    try:
        lock.release()
    except RuntimeError:
        # Two threads may both have seen it locked; one release is enough.
        return


def _pack(payload: object, topic: str) -> bytes | None:
    if payload is None:
        return None
    try:
        return pack(payload)
    except UnicodeEncodeError as error:
        raise FluxError(
            errno.EINVAL, f"{topic}: a string is not valid UTF-8: {error.object!r}"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise FluxError(errno.EINVAL, f"{topic}: the payload cannot be sent: {error}") from None


def _error_text(payload: bytes | None) -> str:
    if payload is None:
        return ""
    try:
        text = unpack(payload)
    except ValueError:
        return ""
    return text if isinstance(text, str) else str(text)


def _connect(uri: str, patience_s: float = HELLO_TIMEOUT_S) -> _socket.socket:
    """The connected socket. Raises FluxError that says what is wrong with ``uri``."""
    path = socket_path(uri)
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        # Bounds how long to wait in the queue of a broker that takes no clients; not a time-out of
        # Python's, with which there would be no waiting at all. Nothing is sent by blocking calls.
        limit = struct.pack("ll", int(patience_s), int(patience_s % 1 * 1e6))
        channel.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, limit)
        channel.connect(path)
        _, peer_uid, _ = struct.unpack(
            "iii", channel.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        )
    except OSError as error:
        channel.close()
        reasons = {
            errno.ENOENT: "there is no such socket: that instance has ended",
            errno.ECONNREFUSED: "nobody listens there: that instance has died (a stale socket)",
            errno.EACCES: "permission denied: that instance belongs to another user",
            errno.EPROTOTYPE: "that is not a broker's socket",
            errno.ENOTSOCK: "that is not a socket",
            errno.EAGAIN: "the broker's queue of new clients is full: try again",
            errno.EMFILE: "this process has no file descriptor left",
        }
        reason = reasons.get(error.errno or 0, str(error.strerror or error))
        raise FluxError(error.errno or errno.EINVAL, f"cannot connect to {uri}: {reason}") from None
    if peer_uid not in (os.getuid(), 0):
        channel.close()
        raise FluxError(
            errno.EPERM,
            f"cannot trust {uri}: it is served by uid {peer_uid}, and you are uid {os.getuid()}",
        )
    return channel
