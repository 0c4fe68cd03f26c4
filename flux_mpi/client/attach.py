"""Following one job: its events, and the output of its tasks from every rank they run on.

Output does not pass through the root: this side asks each rank of the job for it, once the job has
started; ranks replay what came before.
"""

from __future__ import annotations

import errno
import os
import sys

from flux_mpi.client.info import exit_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flux_mpi.client.handle import Future, Handle

    Output = Callable[[float, int, int, bytes], object]

STDOUT, STDERR = 1, 2

WINDOW = 1 << 20
"""Bytes of a rank's output that may be on their way before we say that they have been written."""


class Attachment:
    """One job being followed; feed it by reading ``handle`` until ``done``.

    ``on_output(time, stream, task rank, data)`` gets the tasks' bytes as they come (``b""`` = that
    stream's end, if the rank says so), ``on_event(log, event)`` the events of the ``eventlog`` and
    ``on_problem(text)`` what could not be read. ``until`` names the event after which the event
    log is left (``clean`` reads it to the end).
    """

    def __init__(
        self,
        handle: Handle,
        jobid: int,
        *,
        on_output: Output | None = None,
        on_event: Callable[[str, dict[str, Any]], object] | None = None,
        on_problem: Callable[[str], object] | None = None,
        exec_events: bool = False,
        until: str = "finish",
    ) -> None:
        self.handle = handle
        self.jobid = jobid
        self.until = until
        self.started = False
        self.left = False
        """True once the event ``until`` was seen, or the log has ended."""
        self.error: Exception | None = None
        """Why the job cannot be followed, if so."""
        self.status: int | None = None
        """Wait status, once it has finished."""
        self.exception: dict[str, Any] | None = None
        """The context of the fatal exception, if there was one."""
        self.t0 = 0.0
        """When it was submitted."""
        self.ranks: list[int] | None = None
        self._asked = self._opened = False
        self._on_output = on_output
        self._on_event = on_event
        self._on_problem = on_problem
        self._outputs: dict[int, Future] = {}
        self._open = 1
        self._logs = [self._watch("eventlog", self._event)]
        if exec_events:
            self._open += 1
            self._logs.append(self._watch("guest.exec.eventlog", self._exec_event))

    def _watch(self, path: str, take: Callable[[dict[str, Any]], None]) -> Future:
        def answer(future: Future) -> None:
            try:
                chunk = future.get()
            except OSError as error:
                if path == "eventlog":
                    self.left = True
                    if error.errno != errno.ENODATA and self.error is None:
                        self.error = error
                self._close()
                return
            for event in chunk["events"]:
                take(event)

        return self.handle.rpc(
            "job-info.eventlog-watch",
            {"id": self.jobid, "path": path},
            streaming=True,
            callback=answer,
        )

    @property
    def done(self) -> bool:
        """Nothing more will come, or the caller's event has been seen and all output read."""
        if self.error is not None:
            return True
        return self.left and not self._outputs and not (self._asked and self.ranks is None)

    @property
    def exit_status(self) -> int:
        """As a shell would say it; 1 after a fatal exception without a task's status."""
        if self.status is not None:
            code = exit_status(self.status)
            return code if code or self.exception is None else 1
        return 1 if self.exception is not None or self.error is not None else 0

    def detach(self) -> None:
        """Ends the streams that are still open."""
        for future in [*self._logs, *self._outputs.values()]:
            future.cancel()
        self._outputs.clear()

    # -- events -----------------------------------------------------------------------------------

    def _event(self, event: dict[str, Any]) -> None:
        name = event["name"]
        context = event.get("context") or {}
        if not self.t0:
            self.t0 = event["timestamp"]
        if name == "alloc" and self._on_output is not None:
            self._ask_ranks()
        elif name == "start":
            self.started = True
            self._open_outputs()
        elif name == "exception" and context.get("severity") == 0 and self.exception is None:
            self.exception = context
        elif name == "finish":
            self.status = context.get("status", 0)
            # A job whose start failed may still have said something.
            self.started = True
            self._open_outputs()
        if self._on_event is not None:
            self._on_event("job", event)
        if name == self.until or name == "clean":
            self.left = True

    def _exec_event(self, event: dict[str, Any]) -> None:
        if self._on_event is not None:
            self._on_event("exec", event)

    def _close(self) -> None:
        self._open -= 1

    # -- output -----------------------------------------------------------------------------------

    def _ask_ranks(self) -> None:
        if self._asked:
            return
        self._asked = True

        def answer(future: Future) -> None:
            try:
                resources = future.get()["R"]
            except OSError as error:
                self.ranks = []
                self._problem(f"cannot find out where the job runs: {error}")
                return
            self.ranks = ranks_of(resources)
            self._open_outputs()

        self.handle.rpc("job-info.lookup", {"id": self.jobid, "keys": ["R"]}, callback=answer)

    def _open_outputs(self) -> None:
        if self._opened or not self.started or self.ranks is None or self._on_output is None:
            return
        self._opened = True
        # What we follow more than one job by on this connection.
        rank_key = self._logs[0].tag
        for rank in self.ranks:
            self._outputs[rank] = self.handle.rpc(
                "exec.output",
                {"id": self.jobid, "follow": True, "window": WINDOW, "key": rank_key},
                rank,
                streaming=True,
                callback=lambda future, rank=rank: self._output(rank, future),  # type: ignore[misc]
            )

    def _output(self, rank: int, future: Future) -> None:
        assert self._on_output is not None
        try:
            entries = future.get()["entries"]
        except OSError as error:
            self._outputs.pop(rank, None)
            if error.errno not in (errno.ENODATA, errno.ENOENT):
                self._problem(f"rank {rank}: output lost: {error}")
            elif error.errno == errno.ENOENT and self.status == 0:
                self._problem(f"rank {rank}: output is no longer kept")
            return
        size = 0
        for when, stream, task, data in entries:
            self._on_output(when, STDERR if stream in (2, "stderr") else STDOUT, task, data)
            size += len(data)
        if size:
            # A reader slower than the tasks slows the tasks down: nothing piles up in between.
            self.handle.send("exec.ack", {"key": self._logs[0].tag, "bytes": size}, rank)

    def _problem(self, text: str) -> None:
        if self._on_problem is not None:
            self._on_problem(text)

    # -- input ------------------------------------------------------------------------------------

    def write_stdin(
        self,
        data: bytes,
        eof: bool = False,
        tasks: str | None = None,
        callback: Callable[[Future], object] | None = None,
    ) -> int:
        """Sends ``data`` to the tasks (``tasks``: an idset of task ranks; default all).

        ``callback`` is called for each rank when it has taken the data. Returns their number.
        """
        request: dict[str, Any] = {"id": self.jobid, "data": data, "eof": eof}
        if tasks is not None:
            request["ranks"] = tasks
        for rank in self.ranks or ():
            self.handle.rpc("exec.stdin", request, rank, callback=callback)
        return len(self.ranks or ())


def ranks_of(resources: Any) -> list[int]:
    """The broker ranks of an R object (RFC 20), or of its JSON text."""
    if isinstance(resources, (str, bytes)):
        import json

        resources = json.loads(resources)
    from flux_mpi.formats.idset import IDSet

    found: list[int] = []
    for entry in resources["execution"]["R_lite"]:
        found += IDSet.parse(str(entry["rank"]))
    return found


class LineWriter:
    """Writes tasks' output line by line, so that lines of several tasks do not mix.

    ``label`` puts ``RANK: `` before each line; ``unbuffered`` writes what comes as it comes.
    ``write(stream, data)`` defaults to this process's stdout and stderr.
    """

    def __init__(
        self,
        label: bool = False,
        unbuffered: bool = False,
        write: Callable[[int, bytes], object] | None = None,
        prefix: str = "",
    ) -> None:
        self.label = label
        self.unbuffered = unbuffered and not label
        self.prefix = prefix
        self._write = write or write_standard
        self._partial: dict[tuple[int, int], bytes] = {}

    def __call__(self, when: float, stream: int, task: int, data: bytes) -> None:
        if self.unbuffered:
            self._write(stream, data)
            return
        key = (stream, task)
        held = self._partial.pop(key, b"")
        if not data:
            if held:
                self._write(stream, self._labelled(held, task))
            return
        data = held + data if held else data
        end = data.rfind(b"\n") + 1
        if end < len(data):
            self._partial[key] = data[end:]
        if end:
            self._write(stream, self._labelled(data[:end], task))

    def flush(self) -> None:
        """Writes what was not ended by a newline."""
        for (stream, task), held in sorted(self._partial.items()):
            self._write(stream, self._labelled(held, task))
        self._partial.clear()

    def _labelled(self, data: bytes, task: int) -> bytes:
        if not self.label:
            return data
        mark = f"{self.prefix}{task}: ".encode()
        # Not splitlines(): it would also split at carriage returns, as of progress bars.
        ended = data.endswith(b"\n")
        lines = (data[:-1] if ended else data).split(b"\n")
        return b"".join(mark + line + b"\n" for line in lines)


def write_standard(stream: int, data: bytes) -> None:
    """All of ``data`` to this process's stdout or stderr."""
    target = sys.stderr if stream == STDERR else sys.stdout
    target.flush()
    fd = STDERR if stream == STDERR else STDOUT
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def print_output(label: bool = False) -> LineWriter:
    """A writer of output to this process's own stdout and stderr."""
    return LineWriter(label)
