"""The spawner: commands in, reports out, the operating system behind an object.

A *task* is one process that leads its own process group. Its life here::

    pending --spawn--> running --reaped--> draining --end of output--> reported ("exited")

What a task may leave behind, and what becomes of it:

* more output in its pipes: read to the end, however slowly credits come;
* a background process that keeps a pipe open: after ``LINGER_S`` without output its group gets
  TERM, then KILL after ``GRACE_S``; if it escaped from the group the pipe is closed;
* members of its group without a pipe: TERM at once, KILL after ``GRACE_S``;
* daemons that left the group: they become our children (we are a subreaper), are recognised by
  ``FLUX_JOB_ID`` in their environment as belonging to no running job, and get the same.

Loaded by the supervisor: standard library only. Times are seconds of a monotonic clock, except
those inside reports.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import deque

from flux_mpi.shell.followers import Followers
from flux_mpi.shell.system import SpawnError, System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flux_mpi.shell.wire import Entry

WINDOW = 256 * 1024
"""Bytes of a task's output that may be on their way to the broker, both streams together."""
CHUNK = 64 * 1024
"""Most bytes of output in one report."""
LINGER_S = 1.0
"""How long the output of a task that has exited may pause before its group is ended."""
FRESH_S = 0.003
"""How long a new task runs before its output is watched and its start told without its end; this
for each task that runs beside it, but never more than ``FRESH_MOST_S``."""
FRESH_MOST_S = 0.03
HOLD_S = 0.002
"""How long the end of a short task may wait for others, so that one message tells of all..."""
HOLD_TASKS = 2
"""...while at least so many other short tasks run..."""
HOLD_LEASED_S = 0.01
"""...and so long while others are at hand to follow each that ends."""
_PATIENT = frozenset(("started", "exited"))
GRACE_S = 2.0
"""Between TERM and KILL for what tasks leave behind."""
SWEEP_S = 0.5
"""From the end of a job to the search for daemons it left; also the least time between two."""

JOB_ID = b"FLUX_JOB_ID"
ENCLOSING_ID = b"FLUX_ENCLOSING_ID"


class Task:
    """One process started for the broker, until its end is reported."""

    __slots__ = (
        "tid",
        "pid",
        "job",
        "outputs",
        "watched",
        "credit",
        "feed",
        "stdin",
        "stdin_eof",
        "stdin_watched",
        "ending",
        "due",
        "stage",
        "foreground",
    )

    def __init__(self, tid: int, job: bytes | None) -> None:
        self.tid = tid
        self.pid = 0
        self.job = job
        self.outputs: dict[int, int] = {}  # descriptor -> 1 or 2, while open
        self.watched = False
        self.credit = WINDOW
        self.feed: deque[bytes] | None = None  # what is still to be written to its stdin
        self.stdin = -1
        self.stdin_eof = False
        self.stdin_watched = False
        self.ending: list[Any] | None = None  # wait status, time, user s, system s, maxrss kB
        self.due = 0.0
        self.stage = 0
        self.foreground = False


class Spawner:
    """Starts, feeds, reads, signals and buries tasks.

    ``system`` is a ``System``; ``watch(fd, writing)`` and ``unwatch(fd)`` tell the loop which
    descriptors to wait for; ``clock`` is monotonic, ``wall`` gives Unix time. Reports collect in
    ``reports``; who sends them empties it.
    """

    def __init__(
        self,
        system: System,
        watch: Callable[[int, bool], None],
        unwatch: Callable[[int], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.reports: list[Entry] = []
        self.system = system
        self._watch = watch
        self._unwatch = unwatch
        self._clock = clock
        self._wall = wall
        self._pending: deque[Entry] = deque()
        self._tasks: dict[int, Task] = {}
        self._by_pid: dict[int, Task] = {}
        self._by_fd: dict[int, Task] = {}
        self._fresh: deque[tuple[float, Task]] = deque()
        self._followers = Followers()
        self._dry = False  # a task ended without a follower since the last reports
        self._held_since: float | None = None
        self._draining: dict[int, Task] = {}
        self._jobs: dict[bytes, int] = {}
        self._ended: set[bytes] = set()  # jobs that ended since the last sweep
        self._leftover: dict[int, float] = {}  # process groups that got TERM, and when KILL is due
        self._doomed: dict[int, float] = {}  # daemons, likewise; infinity = KILL was sent
        self._sweep_due: float | None = None
        self._kill_due: float | None = None
        self._closed = False
        self._bases: dict[Any, dict[bytes, bytes]] = {}
        self._own_job = os.environb.get(JOB_ID)
        self.spare: set[int] = set()
        """Children that are nobody's leftovers: the broker."""
        self._commands: dict[str, Callable[[Entry], None]] = {
            "env": self._on_env,
            "forget": self._on_forget,
            "spawn": self._on_spawn,
            "after": self._on_after,
            "recall": self._on_recall,
            "kill": self._on_kill,
            "stdin": self._on_stdin,
            "credit": self._on_credit,
            "shutdown": lambda entry: self.shutdown(entry[1]),
        }

    # -- commands -------------------------------------------------------------------------------

    def command(self, entry: Entry) -> None:
        """Carry out one command of the broker. Raises ``ValueError`` if there is no such one."""
        handler = self._commands.get(entry[0])
        if handler is None:
            raise ValueError(f"no such command: {entry[0]!r}")
        handler(entry)

    @property
    def pending(self) -> bool:
        """Are there tasks waiting to be spawned?"""
        return bool(self._pending)

    @property
    def hurried(self) -> bool:
        """Is there something to report that should not wait for the end of fresh tasks?

        What starts now most likely ends within ``FRESH_S``: both are then reported at once.
        """
        if not self._fresh or any(entry[0] not in _PATIENT for entry in self.reports):
            return True
        if self._held_since is None:
            return False  # nothing but starts
        # While others run, nobody waits for this end to have work: let a few more join it.
        if self._dry or not self._followers:
            others = sum(1 for _, task in self._fresh if task.ending is None)
            if others < HOLD_TASKS:
                return True
        return self._clock() >= self._held_since + self._hold_s

    @property
    def _hold_s(self) -> float:
        return HOLD_LEASED_S if self._followers and not self._dry else HOLD_S

    def take_reports(self) -> list[Entry]:
        """What is to be reported; the caller sends it."""
        reports, self.reports = self.reports, []
        self._held_since = None
        self._dry = False
        return reports

    @property
    def idle(self) -> bool:
        """Is no task left, pending, running or unreported?"""
        return not self._tasks and not self._pending

    def _on_env(self, entry: Entry) -> None:
        self._bases[entry[1]] = entry[2]

    def _on_forget(self, entry: Entry) -> None:
        self._bases.pop(entry[1], None)

    def _on_spawn(self, entry: Entry) -> None:
        self._pending.append(entry)

    def _on_after(self, entry: Entry) -> None:
        _, tid, spawn = entry
        alive = tid in self._tasks or tid in self._followers
        if alive or any(waiting[1] == tid for waiting in self._pending):
            self._followers.add(tid, spawn)
        else:
            self._pending.append(spawn)

    def _on_recall(self, entry: Entry) -> None:
        for tid in entry[1]:
            if self._followers.remove(tid):
                self.reports.append(["returned", tid])

    def _over(self, tid: int) -> None:
        """A task has ended, or never began: whoever follows it is next."""
        follower = self._followers.pop(tid)
        if follower is not None:
            self._pending.appendleft(follower)
        else:
            self._dry = True

    def _on_kill(self, entry: Entry) -> None:
        _, tid, signum = entry
        task = self._tasks.get(tid)
        if task is not None:
            # Until it is reaped its pid cannot be another's; a drained one's group may linger on.
            self.system.kill_group(task.pid, signum)
            return
        for waiting in self._pending:
            if waiting[1] == tid:
                if signum in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    self._pending.remove(waiting)
                    self.reports.append(["exited", tid, int(signum), self._wall(), 0.0, 0.0, 0])
                    self._over(tid)
                return

    def _on_stdin(self, entry: Entry) -> None:
        _, tid, data, eof = entry
        task = self._tasks.get(tid)
        if task is None and any(waiting[1] == tid for waiting in self._pending):
            self.pump(len(self._pending))  # it is to be started first
            task = self._tasks.get(tid)
        if task is None or task.stdin < 0:
            if data:
                self.reports.append(["fed", tid, len(data)])  # nobody reads it: gone
            return
        if task.feed is None:
            task.feed = deque()
        if data:
            task.feed.append(data)
        task.stdin_eof = task.stdin_eof or eof
        self.writable(task.stdin)

    def _on_credit(self, entry: Entry) -> None:
        task = self._tasks.get(entry[1])
        if task is None:
            return
        blocked = task.credit <= 0
        task.credit += entry[2]
        if blocked and task.credit > 0 and task.outputs:
            if task.ending is not None:
                self._drain(task)
            else:
                self._watch_outputs(task)

    def shutdown(self, grace_s: float) -> None:
        """End every task: TERM now, KILL after ``grace_s``; start no more."""
        self._closed = True
        for tid in self._followers.clear():
            self.reports.append(["returned", tid])
        while self._pending:
            tid = self._pending.popleft()[1]
            self.reports.append(["failed", tid, errno.ESHUTDOWN, "supervisor"])
        self._signal_all(signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
        due = self._clock() + grace_s
        if grace_s > 0 and (self._kill_due is None or due < self._kill_due):
            self._kill_due = due

    def _signal_all(self, signum: int) -> None:
        for task in self._tasks.values():
            self.system.kill_group(task.pid, signum)
            if signum == signal.SIGTERM:
                self.system.kill_group(task.pid, signal.SIGCONT)  # a stopped one must hear it
        for pgid in self._leftover:
            self.system.kill_group(pgid, signum)

    # -- spawning -------------------------------------------------------------------------------

    def pump(self, most: int) -> None:
        """Start up to ``most`` pending tasks."""
        pending = self._pending
        if not pending:
            return
        while pending and most > 0:
            most -= 1
            self._start(pending.popleft())
        self.system.settle()

    def _start(self, entry: Entry) -> None:
        tid, argv, env_key, delta, cwd, cpus, stdin, stdout, stderr = entry[1:10]
        limits = entry[10] if len(entry) > 10 else None
        if self._closed:
            self.reports.append(["failed", tid, errno.ESHUTDOWN, "supervisor"])
            return
        if not argv:
            self.reports.append(["failed", tid, errno.EINVAL, "an empty command"])
            self._over(tid)
            return
        env = {**self._bases.get(env_key, {}), **delta}
        task = Task(tid, delta.get(JOB_ID))
        system = self.system
        theirs: list[int] = []  # to close once the task has them
        try:
            system.enter(cwd)
            fds = self._open_stdio(task, (stdin, stdout, stderr), theirs)
            task.pid = pid = system.spawn(argv, env, cpus, fds, limits)
        except SpawnError as error:
            self.reports.append(["failed", tid, error.errnum, error.what])
            for fd in task.outputs:
                self._by_fd.pop(fd, None)
                system.close(fd)
            if task.stdin >= 0:
                self._by_fd.pop(task.stdin, None)
                system.close(task.stdin)
            self._over(tid)
            return
        finally:
            for fd in theirs:
                system.close(fd)
        self.reports.append(["started", tid, pid, self._wall()])
        self._tasks[tid] = task
        self._by_pid[pid] = task
        self._leftover.pop(pid, None)
        if task.job is not None:
            self._jobs[task.job] = self._jobs.get(task.job, 0) + 1
        if task.outputs:
            # Among many each takes longer.
            fresh = min(FRESH_S * (1 + len(self._by_pid)), FRESH_MOST_S)
            self._fresh.append((self._clock() + fresh, task))
        if stdin == "inherit":
            task.foreground = system.give_terminal(pid)

    def _open_stdio(
        self, task: Task, wanted: tuple[Any, Any, Any], theirs: list[int]
    ) -> tuple[int, int, int]:
        """Descriptors for a task's 0, 1 and 2. Raises ``SpawnError``."""
        system = self.system
        fds: list[int] = []
        for number, what in enumerate(wanted):
            if what == "pipe":
                reading, writing = system.pipe(0 if number else 1)
                if number:
                    task.outputs[reading] = number
                    self._by_fd[reading] = task
                    fd = writing
                else:
                    task.stdin = writing
                    self._by_fd[writing] = task
                    fd = reading
                theirs.append(fd)
            elif what == "null":
                fd = system.null
            elif what == "inherit":
                fd = number
            elif number == 2 and what == wanted[1]:
                fd = fds[1]  # one open file for both keeps their order, and truncates it once
            else:
                fd = system.open(what[1], what[2])
                theirs.append(fd)
            fds.append(fd)
        return fds[0], fds[1], fds[2]

    # -- input and output -----------------------------------------------------------------------

    def before_wait(self) -> None:
        """About to wait: tasks that have run for a while have earned being watched.

        A short task has ended by then, and its pipes are read once and never watched, which
        saves two wake-ups a task.
        """
        fresh = self._fresh
        while fresh and (fresh[0][1].ending is not None or fresh[0][0] <= self._clock()):
            task = fresh.popleft()[1]
            if task.ending is None and task.credit > 0:
                self._watch_outputs(task)

    def _watch_outputs(self, task: Task) -> None:
        if not task.watched:
            task.watched = True
            for fd in task.outputs:
                self._watch(fd, False)

    def _unwatch_outputs(self, task: Task) -> None:
        if task.watched:
            task.watched = False
            for fd in task.outputs:
                self._unwatch(fd)

    def ready(self, fd: int) -> None:
        """A watched descriptor can be read or written."""
        task = self._by_fd.get(fd)
        if task is None:
            return
        if fd == task.stdin:
            self.writable(fd)
        elif fd in task.outputs:
            self._read(task, fd)
            if task.ending is not None:
                self._settle_drained(task)

    def _read(self, task: Task, fd: int) -> None:
        """Read what is there, as far as the credit goes."""
        stream = task.outputs[fd]
        while task.credit > 0:
            data = self.system.read(fd, min(CHUNK, task.credit))
            if data is None:
                return
            if not data:
                self._close_output(task, fd)  # reported by "exited", which comes after it
                return
            task.credit -= len(data)
            self.reports.append(["output", task.tid, stream, data])
            if task.ending is not None:
                task.due = self._clock() + LINGER_S  # it still says something: wait on
            if len(data) < CHUNK and task.ending is None:
                return  # most likely all there is; epoll knows better if not
        self._unwatch_outputs(task)  # leave the rest in the pipe: that holds the task back

    def _close_output(self, task: Task, fd: int) -> None:
        if task.watched:
            self._unwatch(fd)
        del task.outputs[fd]
        del self._by_fd[fd]
        self.system.close(fd)

    def writable(self, fd: int) -> None:
        """Write on to a task's standard input."""
        task = self._by_fd.get(fd)
        if task is None or task.feed is None:
            return
        feed = task.feed
        fed = 0
        broken = False
        while feed:
            data = feed[0]
            count = self.system.write(fd, data)
            if count is None:
                fed += sum(map(len, feed))
                feed.clear()
                broken = True
                break
            fed += count
            if count < len(data):
                feed[0] = data[count:]
                break
            feed.popleft()
        if fed:
            self.reports.append(["fed", task.tid, fed])
        if broken or (not feed and task.stdin_eof):
            self._close_stdin(task)
        elif bool(feed) != task.stdin_watched:
            task.stdin_watched = bool(feed)
            if feed:
                self._watch(fd, True)
            else:
                self._unwatch(fd)

    def _close_stdin(self, task: Task) -> None:
        if task.stdin < 0:
            return
        if task.stdin_watched:
            self._unwatch(task.stdin)
            task.stdin_watched = False
        del self._by_fd[task.stdin]
        self.system.close(task.stdin)
        task.stdin = -1
        if task.feed:
            self.reports.append(["fed", task.tid, sum(map(len, task.feed))])
            task.feed.clear()

    # -- ends -----------------------------------------------------------------------------------

    def reaped(self, pid: int, status: int, user_s: float, system_s: float, maxrss_kb: int) -> bool:
        """A child has been waited for; False when it was no task of ours."""
        task = self._by_pid.pop(pid, None)
        if task is None:
            if self._doomed.pop(pid, None) is None and pid not in self.spare:
                self._sweep_soon()  # an adopted one: it may have left its own behind
            return False
        task.ending = [status, self._wall(), user_s, system_s, maxrss_kb]
        if task.foreground:
            self.system.take_terminal()
        if task.stdin >= 0:
            self._close_stdin(task)
        if task.outputs:
            task.due = self._clock() + LINGER_S
            self._drain(task)
        else:
            self._finish(task)
        return True

    def _drain(self, task: Task) -> None:
        for fd in list(task.outputs):
            self._read(task, fd)
        self._settle_drained(task)

    def _settle_drained(self, task: Task) -> None:
        """After a read of a task that has exited: is it over, or who keeps its pipe open?"""
        if not task.outputs:
            self._draining.pop(task.tid, None)
            self._finish(task)
            return
        self._draining[task.tid] = task
        if task.credit > 0:
            self._watch_outputs(task)

    def _finish(self, task: Task) -> None:
        assert task.ending is not None
        self.reports.append(["exited", task.tid, *task.ending])
        if self._held_since is None:
            self._held_since = self._clock()
        del self._tasks[task.tid]
        self._over(task.tid)
        if self.system.kill_group(task.pid, 0) and task.stage < 2:
            self.system.kill_group(task.pid, signal.SIGTERM)
            self.system.kill_group(task.pid, signal.SIGCONT)
            self._leftover[task.pid] = self._clock() + GRACE_S
        job = task.job
        if job is not None:
            left = self._jobs[job] - 1
            if left:
                self._jobs[job] = left
            else:
                del self._jobs[job]
                self._ended.add(job)
                self._sweep_soon()

    def _sweep_soon(self) -> None:
        if self._sweep_due is None:
            self._sweep_due = self._clock() + SWEEP_S

    # -- time -----------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When ``tick`` is next needed, or None."""
        due: list[float] = [self._fresh[0][0]] if self._fresh else []
        if self._held_since is not None and self.reports:
            due.append(self._held_since + self._hold_s)
        if self._sweep_due is not None:
            due.append(self._sweep_due)
        if self._kill_due is not None:
            due.append(self._kill_due)
        if self._draining:
            due += [task.due for task in self._draining.values() if task.credit > 0]
        if self._leftover:
            due.append(min(self._leftover.values()))
        if self._doomed:
            due.append(min(self._doomed.values()))
        soonest = min(due, default=None)
        return None if soonest is None or soonest == float("inf") else soonest

    def tick(self) -> None:
        """Do what has become due."""
        now = self._clock()
        if self._kill_due is not None and now >= self._kill_due:
            self._kill_due = None
            self._signal_all(signal.SIGKILL)
        if self._draining:
            for task in list(self._draining.values()):
                if task.credit > 0 and now >= task.due:
                    self._escalate(task, now)
        if self._leftover:
            for pgid in [pgid for pgid, due in self._leftover.items() if now >= due]:
                del self._leftover[pgid]
                self.system.kill_group(pgid, signal.SIGKILL)
        if self._doomed:
            for pid in [pid for pid, due in self._doomed.items() if now >= due]:
                self._doomed[pid] = float("inf")
                self.system.kill(pid, signal.SIGKILL)
        if self._sweep_due is not None and now >= self._sweep_due:
            self._sweep_due = None
            self._sweep(now)

    def _escalate(self, task: Task, now: float) -> None:
        """Somebody holds the pipe of a task that has exited, and is silent."""
        if task.stage == 0 and self.system.kill_group(task.pid, signal.SIGTERM):
            self.system.kill_group(task.pid, signal.SIGCONT)
            task.stage, task.due = 1, now + GRACE_S
        elif task.stage == 1 and self.system.kill_group(task.pid, signal.SIGKILL):
            task.stage, task.due = 2, now + LINGER_S
        else:  # not in its group any more: let go of the pipe, the sweep finds it
            task.stage = 2
            for fd in list(task.outputs):
                self._close_output(task, fd)
            self._settle_drained(task)

    def _sweep(self, now: float) -> None:
        """Find daemons of jobs that have ended among our (adopted) children, and end them."""
        for pid in self.system.children():
            if pid in self._by_pid or pid in self.spare or pid in self._doomed:
                continue
            group = self.system.group_of(pid)
            if group in self._by_pid or group in self._leftover:
                continue
            job = self.system.variable(pid, JOB_ID)
            if job is None:
                # What an instance ran beside its jobs names only the job that the instance was.
                job = self.system.variable(pid, ENCLOSING_ID)
                if job not in self._ended:
                    continue
            if job == self._own_job or job in self._jobs:
                continue
            self.system.kill(pid, signal.SIGTERM)
            self.system.kill(pid, signal.SIGCONT)
            self._doomed[pid] = now + GRACE_S
        if self._doomed:
            self._sweep_due = now + SWEEP_S  # what they leave behind comes to us in turn
        else:
            self._ended.clear()

    def kill_everything(self) -> bool:
        """KILL all that is left, adopted children included; False when there is nothing."""
        self._signal_all(signal.SIGKILL)
        left = [pid for pid in self.system.children() if pid not in self.spare]
        for pid in left:
            group = self.system.group_of(pid)
            if group == pid:
                self.system.kill_group(pid, signal.SIGKILL)
            self.system.kill(pid, signal.SIGKILL)
        return bool(left)
