"""Jobs as ``concurrent.futures``: an executor whose futures are jobs of an instance.

>>> with FluxExecutor() as executor:
...     future = executor.submit(["./simulate", "42"], ntasks=4)
...     future.jobid(), future.result()

One thread owns the connection. What is submitted while it is busy goes to the instance as one
request, and ends are reported in batches, so that thousands of futures cost little.
"""

from __future__ import annotations

import concurrent.futures
import errno
import itertools
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from flux_mpi.client.handle import Future, Handle
from flux_mpi.client.jobs import FLAG_WAITABLE, URGENCY_DEFAULT, JobID, JobResult, make_jobspec
from flux_mpi.formats import fluid
from flux_mpi.message.errors import FluxError

LOGGER = logging.getLogger(__name__)

EVENTS = frozenset(
    {
        "submit",
        "validate",
        "depend",
        "priority",
        "alloc",
        "start",
        "finish",
        "release",
        "free",
        "clean",
        "exception",
        "urgency",
    }
)
"""Events that a future can be asked to call back for (RFC 21)."""


class JobException(Exception):
    """A job ended by an exception: ``type``, ``severity`` and ``note`` as in RFC 21."""

    def __init__(self, note: str, type: str = "", severity: int = 0) -> None:
        super().__init__(note)
        self.note = note
        self.type = type
        self.severity = severity

    def __str__(self) -> str:
        if not self.type:
            return self.note
        return f"type={self.type} severity={self.severity} {self.note}".rstrip()


class FluxExecutorFuture(concurrent.futures.Future):
    """A job. ``result()`` is its return code: the exit status, or minus a signal's number.

    A fatal job exception is raised by ``result()`` as a JobException, a refused submission as a
    FluxError.
    """

    EVENTS = EVENTS

    def __init__(self, executor: FluxExecutor) -> None:
        super().__init__()
        self._executor = executor
        self._id: JobID | None = None
        self._id_error: BaseException | None = None
        self._id_known = threading.Event()
        self._id_callbacks: list[Callable[[FluxExecutorFuture], object]] = []
        self._event_callbacks: dict[str, list[Callable[..., object]]] = {}
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._watching = False
        self._guard = threading.Lock()

    def jobid(self, timeout: float | None = None) -> JobID:
        """The job's id; waits until the instance has given one.

        Raises concurrent.futures.TimeoutError after ``timeout`` seconds, CancelledError when the
        future was cancelled before, and what the submission raised.
        """
        if not self._id_known.wait(timeout):
            raise concurrent.futures.TimeoutError(f"no job id within {timeout:g} s")
        if self._id_error is not None:
            raise self._id_error
        assert self._id is not None
        return self._id

    def add_jobid_callback(self, callback: Callable[[FluxExecutorFuture], object]) -> None:
        """Calls ``callback(future)`` once the id is known (or known not to come)."""
        with self._guard:
            if not self._id_known.is_set():
                self._id_callbacks.append(callback)
                return
        self._call(callback)

    def add_event_callback(
        self, event: str, callback: Callable[[FluxExecutorFuture, Any], object]
    ) -> None:
        """Calls ``callback(future, event)`` for each such event, past ones included.

        ``event`` is a dict ``{timestamp, name, context?}`` there. Raises ValueError for a name
        that is not in ``EVENTS``.
        """
        if event not in EVENTS:
            raise ValueError(
                f"unknown event {event!r}: expected one of {', '.join(sorted(EVENTS))}"
            )
        with self._guard:
            past = [seen for name, seen in self._events if name == event]
            self._event_callbacks.setdefault(event, []).append(callback)
            start, self._watching = not self._watching, True
        for seen in past:
            self._call(callback, seen)
        if start:
            self._executor._watch(self)

    def cancel(self) -> bool:
        """Cancels a job that has not been submitted yet; False, and a canceled job, otherwise.

        A job that the instance already knows gets a cancel exception, and ``result()`` then
        raises JobException.
        """
        if super().cancel():
            self._set_id(None, concurrent.futures.CancelledError())
            return True
        if not self.done():
            self._executor._cancel(self)
        return False

    # -- called by the executor's thread ----------------------------------------------------------

    def _set_id(self, id: int | None, error: BaseException | None = None) -> None:
        with self._guard:
            if self._id_known.is_set():
                return
            self._id = None if id is None else JobID(id)
            self._id_error = error
            self._id_known.set()
            callbacks, self._id_callbacks = self._id_callbacks, []
        for callback in callbacks:
            self._call(callback)

    def _set_event(self, event: dict[str, Any]) -> None:
        name = event["name"]
        with self._guard:
            self._events.append((name, event))
            callbacks = list(self._event_callbacks.get(name, ()))
        for callback in callbacks:
            self._call(callback, event)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(self, *args)
        except Exception:
            LOGGER.exception("a callback of %r failed", self)


class _Submission:
    """What waits to be sent: several with the same flags make one request."""

    __slots__ = ("flags", "future", "jobspec", "urgency")

    def __init__(
        self, future: FluxExecutorFuture, jobspec: dict[str, Any], urgency: int, flags: int
    ) -> None:
        self.future = future
        self.jobspec = jobspec
        self.urgency = urgency
        self.flags = flags


class FluxExecutor(concurrent.futures.Executor):
    """Submits jobs; see the module. ``uri`` defaults to ``FLUX_URI``.

    Raises FluxError when there is no instance. ``thread_name_prefix`` names the one thread.
    """

    EVENTS = EVENTS
    _numbers = itertools.count()

    def __init__(self, uri: str | None = None, *, thread_name_prefix: str = "FluxExecutor") -> None:
        self._handle = Handle(uri)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._commands: deque[Callable[[], None]] = deque()
        self._pending: deque[_Submission] = deque()
        self._jobs: dict[int, FluxExecutorFuture] = {}
        self._unanswered = 0
        self._stopping = False
        self._broken: FluxError | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"{thread_name_prefix}-{next(self._numbers)}", daemon=True
        )
        self._thread.start()

    # -- any thread -------------------------------------------------------------------------------

    def submit(  # type: ignore[override]
        self,
        command: Any,
        *,
        urgency: int = URGENCY_DEFAULT,
        waitable: bool = False,
        flags: int = 0,
        **how: Any,
    ) -> FluxExecutorFuture:
        """A job from a command (list of words) or a Jobspec; ``how`` as of ``flux_mpi.submit``.

        Raises JobspecError at once for a bad request, RuntimeError after ``shutdown`` or when the
        connection is lost.
        """
        spec = make_jobspec(command, **how).to_dict()
        future = FluxExecutorFuture(self)
        with self._lock:
            if self._broken is not None and self._broken.errno != errno.ESHUTDOWN:
                raise RuntimeError(f"the executor is broken: {self._broken}")
            if self._stopping:
                raise RuntimeError("cannot schedule new futures after shutdown")
            bits = flags | (FLAG_WAITABLE if waitable else 0)
            wake = not self._pending
            self._pending.append(_Submission(future, spec, urgency, bits))
        if wake:
            self._wake()
        return future

    def attach(self, jobid: int | str) -> FluxExecutorFuture:
        """A future for a job that somebody else submitted."""
        number = fluid.parse(jobid)
        future = FluxExecutorFuture(self)
        future._set_id(number)
        future.set_running_or_notify_cancel()

        def follow() -> None:
            self._jobs[number] = future
            self._wait_for([[number, 1]], [future])

        self._enqueue(follow)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more jobs; with ``wait`` returns when all have ended.

        ``cancel_futures`` cancels those that have not been submitted, and running ones' jobs.
        """
        with self._lock:
            self._stopping = True
        if cancel_futures:

            def cancel_all() -> None:
                for submission in list(self._pending):
                    submission.future.cancel()
                for future in list(self._jobs.values()):
                    future.cancel()

            self._enqueue(cancel_all, late=True)
        self._wake()
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def _enqueue(self, command: Callable[[], None], late: bool = False) -> None:
        with self._lock:
            if self._broken is not None:
                raise RuntimeError(f"the executor is broken: {self._broken}")
            if self._stopping and not late:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._commands.append(command)
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except (BlockingIOError, OSError):
            # The pipe is full (it will wake up anyway), or the thread has ended.
            return

    def _cancel(self, future: FluxExecutorFuture) -> None:
        def cancel() -> None:
            if future._id is not None and not future.done():
                self._handle.rpc(
                    "job-manager.raise",
                    {
                        "ids": [[int(future._id), 1]],
                        "type": "cancel",
                        "severity": 0,
                        "note": "cancelled by the executor",
                    },
                )

        try:
            self._enqueue(cancel, late=True)
        except RuntimeError:
            # A broken executor fails all its futures on its own.
            return

    def _watch(self, future: FluxExecutorFuture) -> None:
        """Follows the event log of a job, once somebody asks for its events."""

        def watch() -> None:
            def answer(stream: Future) -> None:
                try:
                    events = stream.get()["events"]
                except OSError:
                    return  # the log has ended; why the job did is told elsewhere
                for event in events:
                    if event["name"] in EVENTS:
                        future._set_event(event)

            if future._id is not None:
                self._handle.rpc(
                    "job-info.eventlog-watch",
                    {"id": int(future._id), "path": "eventlog"},
                    streaming=True,
                    callback=answer,
                )

        def when_known(known: FluxExecutorFuture) -> None:
            if known._id is not None:
                try:
                    self._enqueue(watch, late=True)
                except RuntimeError:
                    return

        future.add_jobid_callback(when_known)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._handle.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        try:
            while not self._idle():
                for fd, _ in poll.poll():
                    if fd == self._wake_read:
                        os.read(self._wake_read, 4096)
                    else:
                        self._handle.dispatch(0.0)
                        self._handle._check()
                while self._commands:
                    self._commands.popleft()()
                self._send_pending()
        except FluxError as error:
            self._fail(error)
        except Exception as error:
            LOGGER.exception("the executor's thread failed")
            self._fail(FluxError(errno.EPROTO, f"{type(error).__name__}: {error}"))
        finally:
            self._handle.close()
            with self._lock:
                if self._broken is None:
                    self._broken = FluxError(errno.ESHUTDOWN, "it has been shut down")
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _idle(self) -> bool:
        with self._lock:
            return (
                self._stopping
                and not self._pending
                and not self._commands
                and not self._jobs
                and not self._unanswered
            )

    def _fail(self, error: FluxError) -> None:
        with self._lock:
            self._broken = error
            waiting = [submission.future for submission in self._pending]
            self._pending.clear()
        for future in [*waiting, *self._jobs.values()]:
            future._set_id(None, error)
            if not future.done():
                future.set_running_or_notify_cancel() if not future.running() else None
                future.set_exception(error)
        self._jobs.clear()

    def _send_pending(self) -> None:
        """All that waits, as one request for each run of equal urgency and flags."""
        while True:
            with self._lock:
                batch: list[_Submission] = []
                while self._pending and (
                    not batch
                    or (self._pending[0].urgency, self._pending[0].flags)
                    == (batch[0].urgency, batch[0].flags)
                ):
                    batch.append(self._pending.popleft())
            if not batch:
                return
            batch = [item for item in batch if item.future.set_running_or_notify_cancel()]
            if batch:
                self._submit(batch)

    def _submit(self, batch: list[_Submission]) -> None:
        self._unanswered += 1
        # Futures whose submission is under way must fail with the connection too.
        for item in batch:
            self._jobs[-id(item.future)] = item.future

        def answer(future: Future) -> None:
            self._unanswered -= 1
            for item in batch:
                self._jobs.pop(-id(item.future), None)
            try:
                arrays = future.get()["arrays"]
            except FluxError as error:
                if len(batch) > 1 and error.errno in (errno.EINVAL, errno.EPROTO):
                    # One bad jobspec refuses the whole request: find out which.
                    for item in batch:
                        self._submit([item])
                    return
                for item in batch:
                    item.future._set_id(None, error)
                    item.future.set_exception(error)
                return
            ids = [fluid.nth(first, k) for first, count in arrays for k in range(count)]
            for item, job in zip(batch, ids):
                self._jobs[job] = item.future
                item.future._set_id(job)
            self._wait_for(arrays, [item.future for item in batch])

        self._handle.rpc(
            "job-ingest.submit",
            {
                "entries": [{"jobspec": item.jobspec} for item in batch],
                "urgency": batch[0].urgency,
                "flags": batch[0].flags,
            },
            callback=answer,
        )

    def _wait_for(self, ids: list[list[int]], futures: list[FluxExecutorFuture]) -> None:
        def answer(stream: Future) -> None:
            try:
                done = stream.get()["done"]
            except FluxError as error:
                if error.errno != errno.ENODATA:
                    for future in futures:
                        if not future.done():
                            if future._id is not None:
                                self._jobs.pop(int(future._id), None)
                            future.set_exception(error)
                return
            for entry in done:
                self._finish(JobResult(entry[0], entry[1], entry[2] if len(entry) > 2 else None))

        self._handle.rpc("job-manager.wait-all", {"ids": ids}, streaming=True, callback=answer)

    def _finish(self, result: JobResult) -> None:
        future = self._jobs.pop(int(result.id), None)
        if future is None or future.done():
            return
        if result.note is not None:
            future.set_exception(_exception(result.note))
        else:
            future.set_result(result.returncode)


def _exception(note: str) -> JobException:
    """The instance's text ``cancel: why`` taken apart."""
    kind, colon, rest = note.partition(": ")
    return JobException(rest, kind) if colon and " " not in kind else JobException(note)
