"""What tasks print, kept on the rank where they run: captured, replayed, followed.

Recent output is in memory; beyond ``MEMORY_A_JOB`` a job's goes to the *spool*, a log of segment
files in the broker's run directory, and so does that of finished jobs when all together exceed
``MEMORY_TOTAL``. When the spool is full its oldest segment goes: who asks for what was in it is
told so. An entry is ``[time, stream, task rank, data]``, ``stream`` 1 for stdout, 2 for stderr.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
from collections import deque
from collections.abc import Callable
from typing import Any

Entry = list[Any]
Ref = tuple[int, int, int]
"""Where the spool keeps a blob: segment, offset, length."""

MEMORY_A_JOB = 64 * 1024
MEMORY_TOTAL = 16 << 20
SEGMENT = 64 << 20
SPOOL_TOTAL = 4 << 30
JOBS_KEPT = 100_000
"""Finished jobs with output whose output is kept, per rank."""
STREAM_LIMIT = 1 << 30
"""Bytes kept of each stream of a job (shell option ``output.limit``)."""
ENTRY_COST = 64
"""What an entry costs beyond its data, bytes, in these accounts."""
BATCH = 256 * 1024
"""Most bytes in one response to a watcher."""
TURN_BATCHES = 4
"""Responses to one watcher before others have their turn."""
LAG_LIMIT = 4 << 20
"""A job waits for a flow-controlled watcher that is this many bytes behind."""


class Spool:
    """An append-only log of blobs in segment files, bounded by dropping the oldest segments."""

    def __init__(self, folder: str, segment: int = SEGMENT, total: int = SPOOL_TOTAL) -> None:
        self._folder = folder
        self._segment = segment
        self._most = max(2, total // segment)
        self._first = 0
        self._fds: deque[int] = deque()
        self._used = 0

    def append(self, blob: bytes) -> Ref:
        """Keep ``blob``; returns its (segment, offset, length). Raises OSError.

        When the disk is full the oldest segments make room.
        """
        while True:
            try:
                return self._append(blob)
            except OSError as error:
                if error.errno != errno.ENOSPC or len(self._fds) < 2:
                    raise
                self._drop_oldest()

    def _append(self, blob: bytes) -> Ref:
        if not self._fds or self._used + len(blob) > self._segment:
            self._open_next()
        offset = self._used
        view = memoryview(blob)
        while view:
            view = view[os.pwrite(self._fds[-1], view, offset + len(blob) - len(view)) :]
        self._used += len(blob)
        return self._first + len(self._fds) - 1, offset, len(blob)

    def _open_next(self) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        path = os.path.join(self._folder, f"segment-{self._first + len(self._fds)}")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.unlink(path)  # gone with us, however we end
        self._fds.append(fd)
        self._used = 0
        while len(self._fds) > self._most:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        os.close(self._fds.popleft())
        self._first += 1

    def read(self, where: Ref) -> bytes | None:
        """The blob kept at ``where``; None when it has been dropped."""
        segment, offset, length = where
        if segment < self._first:
            return None
        parts = []
        while length:
            part = os.pread(self._fds[segment - self._first], length, offset)
            if not part:
                return None
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    @property
    def oldest(self) -> int:
        """The number of the oldest segment that is kept."""
        return self._first

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())


class Watcher:
    """One reader of a job's output.

    ``send(entries)`` delivers, ``end()`` says that all has been delivered. ``window`` is the number
    of bytes that may be on their way unacknowledged; 0 = no flow control.
    """

    __slots__ = (
        "job",
        "send",
        "end",
        "follow",
        "window",
        "unacked",
        "had",
        "chunk",
        "index",
        "done",
    )

    def __init__(
        self,
        job: JobOutput,
        send: Callable[[list[Entry]], object],
        end: Callable[[], object],
        follow: bool,
        window: int,
    ) -> None:
        self.job = job
        self.send = send
        self.end = end
        self.follow = follow
        self.window = window
        self.unacked = 0
        self.had = 0
        self.chunk = 0
        self.index = 0
        self.done = False


class JobOutput:
    """The output of one job's tasks on this rank."""

    __slots__ = (
        "id",
        "refs",
        "tail",
        "tail_bytes",
        "totals",
        "cut",
        "kept",
        "open",
        "watchers",
        "task",
    )

    def __init__(self, jobid: int) -> None:
        self.id = jobid
        self.refs: list[Ref] = []
        self.tail: list[Entry] = []
        self.tail_bytes = 0
        self.totals = [0, 0, 0]
        self.cut = [0, 0, 0]
        self.kept = 0
        self.open = True
        self.watchers: list[Watcher] = []
        self.task = 0


class OutputStore:
    """Captured output of the jobs that run, or ran, on this rank."""

    def __init__(
        self,
        spool: Spool,
        *,
        memory_a_job: int = MEMORY_A_JOB,
        memory_total: int = MEMORY_TOTAL,
        jobs_kept: int = JOBS_KEPT,
    ) -> None:
        self._spool = spool
        self._memory_a_job = memory_a_job
        self._memory_total = memory_total
        self._jobs_kept = jobs_kept
        self._live: dict[int, JobOutput] = {}
        # A finished job is only its packed entries, or where they are in the spool.
        self._finished: dict[int, bytes | tuple[Ref, ...]] = {}
        self._order: deque[int] = deque()
        self._in_memory: deque[int] = deque()
        self._memory = 0
        self._evicted: set[int] = set()
        self._evicted_up_to = -1
        self._dirty: dict[JobOutput, None] = {}

    # -- writing --------------------------------------------------------------------------------

    def append(
        self, jobid: int, when: float, stream: int, task: int, data: bytes, limit: int
    ) -> None:
        """Keep ``data``; what exceeds ``limit`` bytes a stream is counted and told at the end."""
        job = self._live.get(jobid)
        if job is None:
            job = self._live[jobid] = JobOutput(jobid)
            job.task = task
        total = job.totals[stream]
        job.totals[stream] = total + len(data)
        if total + len(data) > limit:
            kept = max(0, limit - total)
            if not job.cut[stream]:
                self._note(job, when, f"{_NAMES[stream]} will be truncated, limit exceeded")
            job.cut[stream] += len(data) - kept
            data = data[:kept]
            if not data:
                return
        self._add(job, [when, stream, task, data])

    def _add(self, job: JobOutput, entry: Entry) -> None:
        job.tail.append(entry)
        job.kept += len(entry[3])
        size = len(entry[3]) + ENTRY_COST
        job.tail_bytes += size
        self._memory += size
        if job.tail_bytes > self._memory_a_job:
            self._spill(job)
        if job.watchers:
            self._dirty[job] = None

    def _note(self, job: JobOutput, when: float, text: str) -> None:
        """A word of the shell's own, where the user will see it."""
        self._add(job, [when, 2, job.task, f"flux-shell: WARN: {text}\n".encode()])

    def _spill(self, job: JobOutput) -> None:
        """Move a running job's tail to the spool; what cannot be written is lost, and said to be.

        A watcher in the middle of the tail is then in the middle of that chunk: same numbers.
        """
        self._memory -= job.tail_bytes
        job.tail_bytes = 0
        tail, job.tail = job.tail, []
        try:
            job.refs.append(self._spool.append(marshal.dumps(tail)))
        except OSError as error:
            job.tail = [_lost(tail, error)]
            job.tail_bytes = ENTRY_COST
            self._memory += ENTRY_COST
            for watcher in job.watchers:
                if watcher.chunk == len(job.refs):
                    watcher.index = 0

    def finish(self, jobid: int, when: float) -> None:
        """All tasks of the job here have ended, and their output is complete."""
        job = self._live.pop(jobid, None)
        if job is None:
            return
        for stream in (1, 2):
            if job.cut[stream]:
                text = f"{job.cut[stream]} of {job.totals[stream]} bytes truncated"
                self._note(job, when, f"{_NAMES[stream]}: {text}")
        job.open = False
        if job.watchers:
            self._dirty[job] = None
        self._memory -= job.tail_bytes
        if job.refs:
            if job.tail:
                try:
                    job.refs.append(self._spool.append(marshal.dumps(job.tail)))
                    job.tail = []
                except OSError:
                    job.refs.append((-1, 0, job.tail_bytes))  # reads as "no longer kept"
            self._finished[jobid] = tuple(job.refs)
        elif job.tail:
            packed = marshal.dumps(job.tail)
            self._finished[jobid] = packed
            self._in_memory.append(jobid)
            self._memory += len(packed) + ENTRY_COST
        else:
            return  # nothing was said, and nobody need be remembered
        self._order.append(jobid)
        while self._memory > self._memory_total and self._in_memory:
            self._to_spool(self._in_memory.popleft())
        while len(self._order) > self._jobs_kept:
            self._evict(self._order.popleft())

    def _to_spool(self, jobid: int) -> None:
        """Move a finished job's output out of memory."""
        packed = self._finished.get(jobid)
        if not isinstance(packed, bytes):
            return
        self._memory -= len(packed) + ENTRY_COST
        try:
            self._finished[jobid] = (self._spool.append(packed),)
        except OSError:
            self._finished[jobid] = ((-1, 0, len(packed)),)  # reads as "no longer kept"

    def _evict(self, jobid: int) -> None:
        packed = self._finished.pop(jobid)
        if isinstance(packed, bytes):
            self._memory -= len(packed) + ENTRY_COST
        self._evicted.add(jobid)
        if len(self._evicted) > self._jobs_kept:
            # Ids grow with time: what is not known below this mark may have been evicted.
            self._evicted_up_to = max(self._evicted)
            self._evicted.clear()

    # -- reading --------------------------------------------------------------------------------

    def _find(self, jobid: int) -> JobOutput | None:
        """The output of a job, running or finished, if there is any."""
        job = self._live.get(jobid)
        packed = self._finished.get(jobid) if job is None else None
        if packed is not None:
            job = JobOutput(jobid)
            job.open = False
            if isinstance(packed, bytes):
                job.tail = marshal.loads(packed)
            else:
                job.refs = list(packed)
        return job

    def gone(self, jobid: int) -> bool:
        """Was this job's output here, and has been dropped?"""
        return jobid in self._evicted or (
            jobid <= self._evicted_up_to and jobid not in self._finished
        )

    def watch(
        self,
        jobid: int,
        running: bool,
        send: Callable[[list[Entry]], object],
        end: Callable[[], object],
        *,
        follow: bool,
        window: int = 0,
    ) -> Watcher | None:
        """Replay a job's output and, with ``follow``, go on until it ends.

        ``running`` says whether the job has tasks here now. Returns None, after ``end()``, when
        there is nothing to wait for.
        """
        job = self._find(jobid)
        if job is None:
            if not running or not follow:
                end()
                return None
            job = self._live[jobid] = JobOutput(jobid)
        watcher = Watcher(job, send, end, follow, window)
        job.watchers.append(watcher)
        self._dirty[job] = None
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """The reader is gone."""
        watcher.done = True
        with contextlib.suppress(ValueError):
            watcher.job.watchers.remove(watcher)
        self._dirty[watcher.job] = None  # it may have held the job back

    def acknowledge(self, watcher: Watcher, count: int) -> None:
        """The reader has taken ``count`` bytes."""
        watcher.unacked = max(0, watcher.unacked - count)
        self._dirty[watcher.job] = None

    def held_back(self, jobid: int) -> bool:
        """Does a flow-controlled watcher lag so far behind that the job should wait?"""
        job = self._live.get(jobid)
        if job is None or not job.watchers:
            return False
        return any(w.window and w.follow and job.kept - w.had > LAG_LIMIT for w in job.watchers)

    def deliver(self) -> tuple[set[int], bool]:
        """Send watchers what is new.

        Returns the jobs whose watchers moved on, and whether there is more to send right away.
        """
        if not self._dirty:
            return set(), False
        dirty, self._dirty = self._dirty, {}
        for job in dirty:
            for watcher in list(job.watchers):
                if self._pump(watcher):
                    self._dirty[job] = None
        return {job.id for job in dirty}, bool(self._dirty)

    def _pump(self, watcher: Watcher) -> bool:
        """Send one watcher what it may have; True when it should get more in the next turn."""
        job = watcher.job
        for _ in range(TURN_BATCHES):
            if watcher.done:
                return False
            if watcher.window and watcher.unacked >= watcher.window:
                return False
            entries, size = self._next(watcher)
            if not entries:
                if not job.open or not watcher.follow:
                    watcher.done = True
                    job.watchers.remove(watcher)
                    watcher.end()
                return False
            watcher.unacked += size
            watcher.had += size
            watcher.send(entries)
        return True

    def _next(self, watcher: Watcher) -> tuple[list[Entry], int]:
        """Up to ``BATCH`` bytes of what the watcher has not had, and their number."""
        job = watcher.job
        found: list[Entry] = []
        size = 0
        while size < BATCH:
            if watcher.chunk < len(job.refs):
                chunk = self._load(job, watcher)
                at_end = False
            else:
                chunk, at_end = job.tail, True
            while watcher.index < len(chunk) and size < BATCH:
                entry = chunk[watcher.index]
                watcher.index += 1
                size += len(entry[3])
                found.append(entry)
            if at_end:
                break
            if watcher.index >= len(chunk):
                watcher.chunk += 1
                watcher.index = 0
        return found, size

    def _load(self, job: JobOutput, watcher: Watcher) -> list[Entry]:
        blob = self._spool.read(job.refs[watcher.chunk])
        if blob is not None:
            entries: list[Entry] = marshal.loads(blob)
            return entries
        oldest = self._spool.oldest
        lost = 0
        while watcher.chunk < len(job.refs) and job.refs[watcher.chunk][0] < oldest:
            lost += job.refs[watcher.chunk][2]
            watcher.chunk += 1
        watcher.chunk -= 1
        watcher.index = 0
        watcher.had += lost
        text = f"flux-shell: WARN: {lost} bytes of older output are no longer kept\n"
        return [[0.0, 2, job.task, text.encode()]]

    def close(self) -> None:
        """Give the spool back."""
        self._spool.close()


_NAMES = ("", "stdout", "stderr")


def _lost(entries: list[Entry], error: OSError) -> Entry:
    """What takes the place of entries that could not be kept."""
    count = sum(len(entry[3]) for entry in entries)
    text = f"flux-shell: WARN: {count} bytes of output lost: {error.strerror}\n"
    return [entries[0][0], 2, entries[0][2], text.encode()]


class LabelledFile:
    """An output file whose lines get the rank of their task put before them (``--label-io``)."""

    def __init__(self, path: str, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
        self._partial: dict[tuple[int, int], bytes] = {}

    def write(self, stream: int, task: int, data: bytes) -> None:
        """Add output of a task; lines are written when they are complete. Raises OSError."""
        key = (stream, task)
        data = self._partial.pop(key, b"") + data
        whole, newline, rest = data.rpartition(b"\n")
        if rest:
            self._partial[key] = rest
        if newline:
            label = b"%d: " % task
            self._write(b"".join(label + line + b"\n" for line in whole.split(b"\n")))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        """Write what was left without a newline, and close. Raises OSError."""
        try:
            for (_, task), data in sorted(self._partial.items()):
                self._write(b"%d: %s\n" % (task, data))
        finally:
            os.close(self._fd)
