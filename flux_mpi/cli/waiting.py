"""Waiting for many jobs: ``--wait``, ``--wait-event``, ``--watch``, ``--progress``; ``watch``."""

from __future__ import annotations

import errno
import os
import sys
import time

from flux_mpi.cli.common import Ids, say, terminal_width
from flux_mpi.client.attach import Attachment, LineWriter
from flux_mpi.client.jobs import JobArray, JobResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from flux_mpi.client.handle import Future, Handle
    from flux_mpi.view.progress import Progress

WINDOW = 128
"""Jobs whose output is followed at a time."""
POLL_S = 0.5
"""How often a progress bar asks how many jobs are running."""


def make_progress(total: int, jps: bool, started: float | None = None) -> Progress | None:
    """A bar on the terminal, or None with Flux's warning when there is no terminal."""
    stream = next((s for s in (sys.stdout, sys.stderr) if s.isatty()), None)
    if stream is None:
        say("flux-submit: WARNING: stdout is not a tty. Ignoring --progress option")
        return None
    from flux_mpi.view.progress import Progress

    return Progress(stream, total, jps=jps, width=terminal_width(), started=started)


class Waiter:
    """Waits for an array to end; keeps counts, the worst exit status, and draws the bar."""

    def __init__(
        self, handle: Handle, array: JobArray, progress: Progress | None, verbose: int
    ) -> None:
        self.handle = handle
        self.array = array
        self.progress = progress
        self.verbose = verbose
        self.done = self.failed = self.running = 0
        self.status = 0
        self._ids = Ids()
        self._stats: Future | None = None
        self._asked = 0.0

    def wait(self) -> int:
        """The largest exit status of all jobs. Bounded by the jobs' own ends."""
        ranges = [list(pair) for pair in self.array.ranges]
        stream = self.handle.rpc("job-manager.wait-all", {"ids": ranges}, streaming=True)
        try:
            while self.done < len(self.array):
                try:
                    batch = stream.get(POLL_S if self.progress is not None else None)
                except TimeoutError:
                    batch = {"done": []}
                except OSError as error:
                    if error.errno == errno.ENODATA:
                        break
                    raise
                for done in batch["done"]:
                    self.take(JobResult(done[0], done[1], done[2] if len(done) > 2 else None))
                self.draw()
        finally:
            stream.cancel()
            if self.progress is not None:
                self.running = 0
                self.draw()
                self.progress.finish()
        return self.status

    def take(self, result: JobResult) -> None:
        self.done += 1
        if result.success:
            return
        self.failed += 1
        code = result.exit_status or 1
        self.status = max(self.status, code)
        if self.verbose:
            why = result.note or f"task(s) exited with exit code {code}"
            if self.progress is not None:
                self.progress.clear()
            say(f"{self._ids(result.id)}: {why}")

    def draw(self) -> None:
        if self.progress is None:
            return
        now = time.monotonic()
        if self._stats is None and now - self._asked >= POLL_S:
            self._asked = now
            self._stats = self.handle.rpc("job-manager.stats", {})
        if self._stats is not None and self._stats.ready():
            states = self._stats.get().get("job_states") or {}
            self._stats = None
            busy = states.get("run", 0) + states.get("cleanup", 0)
            self.running = min(busy, len(self.array) - self.done)
        self.progress.update(self.done, self.failed, self.running)


class Watcher:
    """Copies the output of many jobs here, each as it starts; follows the instance's journal.

    ``begin()`` must be called before the jobs are submitted, so that no start is missed.
    """

    def __init__(
        self,
        handle: Handle,
        *,
        label: bool = False,
        events: bool = False,
        sinks: Callable[[int], Callable[[int, bytes], object] | None] | None = None,
        unbuffered: bool = False,
        verbose: int = 0,
    ) -> None:
        self.handle = handle
        self.label = label
        self.unbuffered = unbuffered
        self.events = events
        self.verbose = verbose
        self.status = 0
        self.done = self.failed = self.running = 0
        self.progress: Progress | None = None
        self._sinks = sinks
        self._ids = Ids()
        self._journal: Future | None = None
        self._waiting: set[int] = set()
        self._ready: list[int] = []
        self._open: dict[int, tuple[Attachment, LineWriter]] = {}
        # Jobs heard of before we know which are ours; None once we do.
        self._early: set[int] | None = None

    def begin(self) -> None:
        self._early = set()
        self._journal = self.handle.rpc(
            "job-manager.events-journal", {}, streaming=True, callback=self._take
        )

    def add(self, jobs: Iterable[int]) -> None:
        """Jobs just submitted, of which the journal will tell."""
        early, self._early = self._early or set(), None
        for job in jobs:
            if job in early:
                self._ready.append(job)
            else:
                self._waiting.add(job)
        self._more()

    def follow(self, jobs: Iterable[int]) -> None:
        """Jobs that may have started long ago."""
        self._ready += jobs
        self._more()

    def _take(self, future: Future) -> None:
        for job, _, name, context in future.get()["events"]:
            fatal = name == "exception" and (context or {}).get("severity") == 0
            if name in ("start", "finish", "clean") or fatal:
                if job in self._waiting:
                    self._waiting.discard(job)
                    self._ready.append(job)
                elif self._early is not None:
                    self._early.add(job)
        self._more()

    def _more(self) -> None:
        while self._ready and len(self._open) < WINDOW:
            job = self._ready.pop(0)
            sink = self._sinks(job) if self._sinks is not None else None
            writer = LineWriter(
                self.label,
                self.unbuffered,
                write=sink or self._write,
                prefix=f"{self._ids(job)}: " if self.label else "",
            )
            self.running += 1
            self._open[job] = (
                Attachment(
                    self.handle,
                    job,
                    on_output=writer,
                    on_event=lambda log, event, job=job: self._event(job, log, event),  # type: ignore[misc]
                    on_problem=lambda text, job=job: say(f"{self._ids(job)}: {text}"),  # type: ignore[misc]
                    until="clean",
                ),
                writer,
            )

    def _write(self, stream: int, data: bytes) -> None:
        if self.progress is not None:
            self.progress.clear()
        from flux_mpi.client.attach import write_standard

        write_standard(stream, data)

    def _event(self, job: int, log: str, event: dict[str, Any]) -> None:
        context = event.get("context") or {}
        if event["name"] == "exception":
            attachment = self._open[job][0] if job in self._open else None
            t0 = attachment.t0 if attachment is not None else event["timestamp"]
            say(
                f"{event['timestamp'] - t0:.3f}s: job.exception {self._ids(job)} "
                f"type={context.get('type')} severity={context.get('severity')} "
                f"{context.get('note', '')}".rstrip()
            )
        elif self.events:
            import json

            more = f" {json.dumps(context, separators=(',', ':'))}" if context else ""
            say(f"{self._ids(job)}: {event['timestamp']:.3f} {event['name']}{more}")

    def wait(self) -> int:
        """Until every job has ended and its output is written; the largest exit status."""
        try:
            while self._waiting or self._ready or self._open:
                self.handle._check()
                self.handle.dispatch(POLL_S if self.progress is not None else None)
                self._reap()
        finally:
            if self._journal is not None:
                self._journal.cancel()
            if self.progress is not None:
                self.progress.finish()
        return self.status

    def _reap(self) -> None:
        for job in [job for job, (attachment, _) in self._open.items() if attachment.done]:
            attachment, writer = self._open.pop(job)
            writer.flush()
            attachment.detach()
            self.done += 1
            self.running -= 1
            if attachment.error is not None:
                say(f"{self._ids(job)}: {attachment.error}")
            code = attachment.exit_status
            if code:
                self.failed += 1
                if self.verbose:
                    say(f"{self._ids(job)}: task(s) exited with exit code {code}")
            self.status = max(self.status, code)
        self._more()
        if self.progress is not None:
            self.progress.update(self.done, self.failed, self.running)


def wait_event(handle: Handle, array: JobArray, name: str, progress: Progress | None) -> int:
    """Until every job of ``array`` has had the event; 1 if one ended without it.

    ``exec.NAME`` looks in the execution event log.
    """
    path = "eventlog"
    if name.startswith("exec."):
        path, name = "guest.exec.eventlog", name[len("exec.") :]
    ids = Ids()
    total, done, failed = len(array), 0, 0
    todo = iter(array)
    open_streams: dict[int, Future] = {}

    def take(job: int, future: Future) -> None:
        nonlocal done, failed
        if job not in open_streams:
            return
        seen = False
        try:
            seen = any(event["name"] == name for event in future.get()["events"])
        except OSError as error:
            failed += 1
            why = "" if error.errno == errno.ENODATA else f": {error}"
            say(f"{ids(job)}: job ended before the event {name!r}{why}")
            seen = True
        if seen:
            open_streams.pop(job).cancel()
            done += 1

    while done < total:
        while len(open_streams) < WINDOW and (job := next(todo, None)) is not None:
            stream = handle.rpc(
                "job-info.eventlog-watch", {"id": int(job), "path": path}, streaming=True
            )
            open_streams[job] = stream
            stream.then(lambda future, job=job: take(job, future))  # type: ignore[misc]
        handle._check()
        handle.dispatch(None)
        if progress is not None:
            progress.update(done, failed)
    if progress is not None:
        progress.finish()
    return 1 if failed else 0


def file_sinks(
    paths: dict[int, tuple[str | None, str | None]],
) -> Callable[[int], Callable[[int, bytes], object] | None]:
    """For ``--log`` and ``--log-stderr``: a writer for each job that has a file."""
    files: dict[str, int] = {}

    def descriptor(path: str) -> int:
        if path not in files:
            files[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        return files[path]

    def sink(job: int) -> Callable[[int, bytes], object] | None:
        out, err = paths.get(job, (None, None))
        if out is None and err is None:
            return None

        def write(stream: int, data: bytes) -> None:
            path = err if stream == 2 and err is not None else out
            if path is None:
                sys.stdout.flush()
                os.write(stream, data)
            else:
                os.write(descriptor(path), data)

        return write

    return sink
