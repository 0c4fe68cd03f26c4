"""The instance from asyncio: ``await`` for answers, ``async for`` over streams.

>>> async with AsyncHandle() as handle:
...     await handle.rpc("broker.ping", {"seq": 1})
...     job = await handle.submit(["hostname"])
...     (await handle.wait(job)).returncode
...     async for event in handle.job_events(job):
...         print(event["name"])
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

from flux_mpi.client.groups import (
    STATUS_TIMEOUT_S,
    GroupChange,
    View,
    entry,
    own_name,
    timed_out,
)
from flux_mpi.client.handle import _connect, _error_text, _pack
from flux_mpi.client.jobs import (
    FLAG_WAITABLE,
    URGENCY_DEFAULT,
    JobArray,
    JobID,
    JobResult,
    make_jobspec,
    ranges,
)
from flux_mpi.client.uri import instance_uri
from flux_mpi.formats import fluid
from flux_mpi.message.codec import FrameDecoder, encode
from flux_mpi.message.errors import FluxError, ProtocolError
from flux_mpi.message.message import ANY, CONTROL, REQUEST, RESPONSE, STREAMING, Message, unpack


class AsyncHandle:
    """A connection that belongs to one event loop; open it with ``async with``."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = instance_uri(uri)
        self._tag = 0
        self._single: dict[int, asyncio.Future[Any]] = {}
        self._streams: dict[int, asyncio.Queue[tuple[int, bytes | None]]] = {}
        self._failure: FluxError | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._protocol: _Protocol | None = None

    async def __aenter__(self) -> AsyncHandle:
        import socket

        # The checks of who is at the other end are those of the blocking handle.
        channel = _connect(self.uri)
        loop = asyncio.get_running_loop()
        plain = socket.socket(fileno=os.dup(channel.fileno()))
        channel.close()
        plain.setblocking(False)
        transport, protocol = await loop.create_unix_connection(lambda: _Protocol(self), sock=plain)
        self._transport, self._protocol = transport, protocol
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; whoever still waits gets an error."""
        if self._transport is not None:
            self._transport.close()
        self._break(FluxError(errno.ECONNRESET, "the handle has been closed"))

    # -- requests ---------------------------------------------------------------------------------

    async def rpc(self, topic: str, payload: object = None, rank: int = ANY) -> Any:
        """The answer to one request. Raises FluxError. Cancelling the task cancels the request."""
        tag = self._next()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._single[tag] = future
        try:
            await self._send(Message(REQUEST, topic, _pack(payload, topic), tag=tag, target=rank))
            return await future
        except asyncio.CancelledError:
            self._cancel(tag)
            raise
        finally:
            self._single.pop(tag, None)

    async def stream(
        self, topic: str, payload: object = None, rank: int = ANY
    ) -> AsyncIterator[Any]:
        """The answers of a stream, until it ends. Leaving the loop cancels the request."""
        tag = self._next()
        queue: asyncio.Queue[tuple[int, bytes | None]] = asyncio.Queue()
        self._streams[tag] = queue
        ended = False
        try:
            await self._send(
                Message(
                    REQUEST, topic, _pack(payload, topic), flags=STREAMING, tag=tag, target=rank
                )
            )
            while True:
                errnum, raw = await queue.get()
                if errnum:
                    ended = True
                    if errnum == errno.ENODATA:
                        return
                    raise FluxError(errnum, _error_text(raw))
                yield None if raw is None else unpack(raw, strict_map_key=False)
        finally:
            self._streams.pop(tag, None)
            if not ended:
                self._cancel(tag)

    async def events(self, prefix: str = "") -> AsyncIterator[tuple[str, int, Any]]:
        """(topic, sequence, payload) of events whose topic begins with ``prefix``."""
        async for event in self.stream("event.subscribe", {"topic": prefix}):
            if event.get("topic"):
                yield event["topic"], event["seq"], event.get("payload")

    async def attr_get(self, name: str, rank: int = ANY) -> str:
        value: str = (await self.rpc("attr.get", {"name": name}, rank))["value"]
        return value

    # -- jobs that talk ---------------------------------------------------------------------------

    async def barrier(self, name: str, nprocs: int, timeout: float | None = None) -> None:
        """As ``Handle.barrier``. Cancelling the task fails the barrier for the others."""
        request = asyncio.ensure_future(self.rpc("barrier.enter", entry(self.uri, name, nprocs)))
        try:
            done, _ = await asyncio.wait([request], timeout=timeout)
            found = None
            if not done:
                ask = self.rpc("barrier.status", {"name": name})
                try:
                    found = await asyncio.wait_for(ask, STATUS_TIMEOUT_S)
                except (asyncio.TimeoutError, FluxError):
                    pass  # that it timed out is the news, not how far it was
            if not request.done():
                assert timeout is not None
                raise timed_out(name, nprocs, timeout, found)
            await request
        finally:
            if not request.done():
                request.cancel()
                await asyncio.wait([request])

    async def join_group(self, name: str, member: str | None = None) -> str:
        """As ``Handle.join_group``."""
        member = own_name(self.uri) if member is None else member
        await self.rpc("groups.join", {"name": name, "member": member})
        return member

    async def leave_group(self, name: str, member: str | None = None) -> None:
        """As ``Handle.leave_group``."""
        member = own_name(self.uri) if member is None else member
        await self.rpc("groups.leave", {"name": name, "member": member})

    async def group(self, name: str) -> list[str]:
        """As ``Handle.group``."""
        members: list[str] = (await self.rpc("groups.get", {"name": name}))["members"]
        return members

    async def watch_group(self, name: str) -> AsyncIterator[GroupChange]:
        """As ``Handle.watch_group``; watching begins when the first is asked for."""
        view = View()
        async for answer in self.stream("groups.get", {"name": name}):
            yield view.take(answer)

    # -- jobs -------------------------------------------------------------------------------------

    async def submit(
        self,
        command: Any,
        *,
        urgency: int = URGENCY_DEFAULT,
        waitable: bool = False,
        flags: int = 0,
        count: int | None = None,
        **how: Any,
    ) -> Any:
        """As ``flux_mpi.submit``: a JobID, or with ``count`` a JobArray."""
        entry: dict[str, Any] = {"jobspec": make_jobspec(command, **how).to_dict()}
        if count is not None:
            entry["count"] = count
        answer = await self.rpc(
            "job-ingest.submit",
            {
                "entries": [entry],
                "urgency": urgency,
                "flags": flags | (FLAG_WAITABLE if waitable else 0),
            },
        )
        array = JobArray(answer["arrays"])
        return array if count is not None else array[0]

    async def wait(self, job: int | str) -> JobResult:
        """How a job ended, once it has."""
        number = fluid.parse(job)
        async for result in self.as_completed(number):
            return result
        raise FluxError(errno.ENOENT, f"{fluid.encode(number)}: unknown job id")

    async def as_completed(self, jobs: Any) -> AsyncIterator[JobResult]:
        """A JobResult for each of ``jobs`` as it ends."""
        async for batch in self.stream("job-manager.wait-all", {"ids": ranges(jobs)}):
            for done in batch["done"]:
                yield JobResult(done[0], done[1], done[2] if len(done) > 2 else None)

    async def job_events(self, job: int | str) -> AsyncIterator[Mapping[str, Any]]:
        """The events of a job: past ones, then as they come, until it is inactive."""
        request = {"id": fluid.parse(job), "path": "eventlog"}
        async for chunk in self.stream("job-info.eventlog-watch", request):
            for event in chunk["events"]:
                yield event

    async def cancel(self, job: int | str, note: str = "") -> None:
        """Cancels a job. Raises FluxError(ENOENT) when it is unknown."""
        number = JobID(fluid.parse(job))
        answer = await self.rpc(
            "job-manager.raise",
            {"ids": [[int(number), 1]], "type": "cancel", "severity": 0, "note": note},
        )
        for text in (answer.get("errors") or {}).values():
            raise FluxError(errno.ENOENT, text)

    # -- the connection ---------------------------------------------------------------------------

    def _next(self) -> int:
        self._tag = self._tag % 0xFFFFFFF0 + 1
        return self._tag

    def _check(self) -> None:
        if self._failure is not None:
            raise FluxError(self._failure.errno or errno.ECONNRESET, str(self._failure))
        if self._transport is None:
            raise FluxError(
                errno.ENOTCONN, "the handle is not open: use 'async with AsyncHandle()'"
            )

    async def _send(self, message: Message) -> None:
        self._check()
        assert self._transport is not None
        assert self._protocol is not None
        self._transport.write(encode(message))
        await self._protocol.writable.wait()

    def _cancel(self, tag: int) -> None:
        if self._failure is None and self._transport is not None:
            self._transport.write(encode(Message(CONTROL, "cancel", tag=tag)))

    def _dispatch(self, message: Message) -> None:
        if message.kind != RESPONSE:
            return
        if message.tag == 0 and message.errnum:
            text = _error_text(message.payload)
            self._break(FluxError(message.errnum, f"refused by {self.uri}: {text}"))
            return
        queue = self._streams.get(message.tag)
        if queue is not None:
            queue.put_nowait((message.errnum, message.payload))
            return
        future = self._single.get(message.tag)
        if future is None or future.done():
            return
        if message.errnum:
            future.set_exception(FluxError(message.errnum, _error_text(message.payload)))
        else:
            future.set_result(message.body)

    def _break(self, failure: FluxError) -> None:
        if self._failure is None:
            self._failure = failure
        text = str(self._failure)
        code = self._failure.errno or errno.ECONNRESET
        for future in self._single.values():
            if not future.done():
                future.set_exception(FluxError(code, text))
        for queue in self._streams.values():
            queue.put_nowait((code, _pack(text, "")))


class _Protocol(asyncio.Protocol):
    """Bytes in, messages out; holds writers back while the socket is full."""

    def __init__(self, handle: AsyncHandle) -> None:
        self._handle = handle
        self._decoder = FrameDecoder()
        self.writable = asyncio.Event()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            self._handle._break(
                FluxError(
                    errno.EPROTO,
                    f"{self._handle.uri} does not speak flux-mpi's protocol: {error}",
                )
            )
            self._handle.close()
            return
        for message in messages:
            self._handle._dispatch(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        self._handle._break(
            FluxError(
                errno.ECONNRESET,
                f"lost the connection to {self._handle.uri}: the broker has ended",
            )
        )

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()
