"""The job manager: what becomes of every job (RFC 21). Pure: requests and reports in, actions out.

Requests (``submit``, ``raise_exception``, …) and reports change the state at once; ``turn`` then
does what the changes allow for everything at once: it frees, schedules and dispatches; ``take``
hands out the actions of one or several turns. Batches of an array's consecutive members are handled
by slices, so that a job of mock execution costs a few microseconds. Nothing here reads a clock:
every call is told the time, which never steps back.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any

from flux_mpi.formats import fluid
from flux_mpi.job import memos
from flux_mpi.job.arrays import (
    ALLOCATED,
    DETACHED,
    NO_ROW,
    NO_STATUS,
    STARTED,
    SUBMITTED,
    JobArray,
    Store,
)
from flux_mpi.job.eventlogs import RELEASE, alloc_context, priority_of, submit_events
from flux_mpi.job.execroot import ExecRoot, ExecStart, Running
from flux_mpi.job.ingest import Entry
from flux_mpi.job.journal import Entry as JournalEntry
from flux_mpi.job.journal import Journal
from flux_mpi.job.leases import PATIENCE_S, Leases, leasable
from flux_mpi.job.queueconfig import QueueSettings
from flux_mpi.job.queues import Queues
from flux_mpi.job.states import Result, State, follow
from flux_mpi.job.waits import Answer, Token, Waits
from flux_mpi.message.errors import ServiceError
from flux_mpi.sched.base import Scheduler
from flux_mpi.sched.placement import Placement

SIGKILL, SIGALRM, SIGTERM = 9, 14, 15
MAX_KILLS = 8
URGENCY_DEFAULT, URGENCY_HOLD, URGENCY_MAX = 16, 0, 31

# The state bytes that are written below, each the outcome of events that the table allows.
_QUEUED = follow(State.NEW, "submit", "validate", "depend", "priority")
_RUN = follow(_QUEUED, "alloc")
_STARTED = follow(_RUN, "start")
_EXCEPTION = follow(_RUN, "exception")
_ENDED = follow(_RUN, "finish", "release", "free", "clean")
_ENDED_EARLY = follow(_QUEUED, "exception", "clean")
assert follow(_EXCEPTION, "start", "finish", "release", "free", "clean") == _ENDED == _ENDED_EARLY
assert _RUN == _STARTED
assert follow(_QUEUED, "urgency", "priority") == _QUEUED


@dataclass(slots=True)
class Actions:
    """What is to be done in the world."""

    starts: dict[int, ExecStart] = field(default_factory=dict)
    """``exec.start`` for each rank."""
    kills: list[tuple[int, int, int]] = field(default_factory=list)
    """``exec.kill``: (rank, job id, signal)."""
    forgets: dict[int, list[int]] = field(default_factory=dict)
    """``exec.forget``: keys of specifications for each rank."""
    recalls: dict[int, list[int]] = field(default_factory=dict)
    """``exec.recall``: ids on lease for each rank."""
    answers: list[Answer] = field(default_factory=list)
    events: list[JournalEntry] = field(default_factory=list)
    """What happened, if anyone watches."""


@dataclass(slots=True)
class _MockBatch:
    """Consecutive members in mock execution, placed together."""

    jobs: JobArray
    k: int
    count: int
    row: int


@dataclass(slots=True)
class Counts:
    """Running totals, so that nobody has to count a million jobs."""

    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    results: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(Result, 0))

    @property
    def active(self) -> int:
        return sum(self.states.values()) - self.states[State.INACTIVE]

    @property
    def running(self) -> int:
        return self.states[State.RUN] + self.states[State.CLEANUP]


class Manager:
    """All jobs of an instance. ``epoch`` is the time that job ids count from."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        epoch: float = 0.0,
        kill_timeout: float = 5.0,
        generator_id: int = 0,
        owner: int = 0,
        queues: QueueSettings | None = None,
    ) -> None:
        self.sched = scheduler
        self.kill_timeout = kill_timeout
        self.owner = owner
        self.store = Store()
        self.queue = Queues(queues)
        self.queue.check_scheduler(scheduler)
        self.expiration = inf
        """When the instance ends, if that is known."""
        self.journal = Journal()
        self.waits = Waits(self)
        self.exec = ExecRoot()
        self.leases = Leases()
        self.counts = Counts()
        self.mocks: dict[int, _MockBatch] = {}
        """By first ledger row."""
        self._ids = fluid.Generator(generator_id)
        self._epoch = epoch
        self._frees: list[Placement] = []
        self._timers: list[tuple[float, int, str, Any]] = []
        self._sequence = itertools.count()
        self._schedulable = False
        self._dirty = False
        self._lease_timer = False
        self._doomed: dict[int, list[tuple[str, str, int | None]]] = {}
        """What ends jobs on lease as soon as it is known where they are: (type, note, user)."""
        self._drains: list[Token] = []
        self._idles: list[Token] = []

    # -- finding jobs ---------------------------------------------------------------------------

    def find(self, jobid: object) -> tuple[JobArray, int]:
        """The array and member of a job. Raises ServiceError: EPROTO, or ENOENT naming the id."""
        if not isinstance(jobid, int) or isinstance(jobid, bool):
            raise ServiceError(errno.EPROTO, f"id: expected a job id, found {jobid!r}")
        found = self.store.find(jobid)
        if found is None:
            raise ServiceError(errno.ENOENT, f"{_shown(jobid)}: unknown job id")
        return found

    def waiting(self) -> Iterator[tuple[JobArray, int, int]]:
        """All that wait, on lease or not, as runs (array, member, how many), by priority and id.

        Nothing must change meanwhile.
        """
        leased = self.exec.leased.values()
        return self.queue.ordered([(running.jobs, running.k, 1) for running in leased])

    # -- submission -----------------------------------------------------------------------------

    def submit(
        self,
        entries: Sequence[Entry],
        now: float,
        *,
        userid: int = 0,
        urgency: int = URGENCY_DEFAULT,
        flags: int = 0,
    ) -> list[tuple[int, int]]:
        """Take in checked entries; returns (first id, count) of each. A request that the machine
        can never meet is taken in too, and fails with an exception.

        Raises ServiceError(EINVAL) while submission is disabled.
        """
        for name in {entry.jobspec.queue for entry in entries}:
            self.queue.check_open(name or "")
        arrays = []
        milliseconds = max(0, int((now - self._epoch) * 1000))
        for entry in entries:
            jobs = JobArray(
                self._ids.take(entry.count, milliseconds),
                entry.count,
                entry.jobspec,
                entry.shape,
                params=entry.params,
                userid=userid,
                urgency=urgency,
                flags=flags,
                t_submit=now,
                mock=entry.mock,
                mock_status=entry.mock_status,
            )
            self.store.add(jobs)
            self.counts.states[_QUEUED] += jobs.count
            self.waits.submitted(jobs)
            if self.journal.users:
                for time, name, context in submit_events(jobs):
                    self.journal.add(jobs, 0, jobs.count, time, name, context)
            self.queue.push_array(jobs)
            arrays.append((jobs.first, jobs.count))
            self._refuse_infeasible(jobs, now)
        self._changed(schedule=True)
        return arrays

    def _refuse_infeasible(self, jobs: JobArray, now: float) -> None:
        reason = self.sched.feasible(jobs.shape)
        if reason is not None:
            self._raise(jobs, 0, jobs.count, "alloc", 0, reason, None, now)

    def resources_changed(self, now: float) -> None:
        """The scheduler was told of other resources: what is queued may have become impossible,
        or possible to start."""
        self.leases.recall()
        for jobs in {id(jobs): jobs for jobs, _, _ in self.waiting()}.values():
            self._refuse_infeasible(jobs, now)
        self._changed(schedule=True)

    def usable_changed(self) -> None:
        """Other ranks than before may be used."""
        self.leases.recall()
        self._changed(schedule=True)

    # -- requests about jobs --------------------------------------------------------------------

    def raise_exception(
        self,
        first: int,
        count: int,
        kind: str,
        severity: int,
        note: str,
        userid: int | None,
        now: float,
    ) -> dict[int, str]:
        """Raise an exception on consecutive ids; returns what was wrong, by id."""
        errors: dict[int, str] = {}
        known = 0
        for jobs, lo, hi in self.store.segments(first, count):
            known += hi - lo
            self._raise(jobs, lo, hi, kind, severity, note, userid, now, errors)
        for k in range(known, count):
            if len(errors) >= 1000:  # the caller wants to know what is wrong, not a million times
                break
            errors[fluid.nth(first, k)] = "unknown job id"
        return errors

    def raise_all(
        self,
        states: int,
        kind: str,
        severity: int,
        note: str,
        userid: int | None,
        now: float,
        *,
        owner: int | None = None,
        dry_run: bool = False,
    ) -> int:
        """Raise an exception on all active jobs in ``states`` (of user ``owner``); how many."""
        total = 0
        for jobs in self.store.arrays:
            if not jobs.active or (owner is not None and jobs.userid != owner):
                continue
            k = 0
            while k < jobs.count:
                n = jobs.run_length(k, jobs.count)
                code = jobs.state[k] & 127
                if code & states and code != State.INACTIVE:
                    total += n
                    if not dry_run:
                        self._raise(jobs, k, k + n, kind, severity, note, userid, now)
                k += n
        return total

    def set_urgency(self, jobid: int, urgency: int, userid: int, now: float) -> int:
        """Change a waiting job's urgency; returns the old one. Raises ServiceError."""
        jobs, k = self.find(jobid)
        state = jobs.state_of(k)
        if state == State.INACTIVE:
            raise ServiceError(errno.EINVAL, f"{_shown(jobid)}: job is inactive")
        if state != _QUEUED:
            raise ServiceError(
                errno.EINVAL,
                f"{_shown(jobid)}: urgency cannot be changed once resources are allocated",
            )
        self.leases.recall()  # this one, or those that it overtakes
        old = jobs.urgency_of(k)
        jobs.urgencies[k] = urgency
        jobs.state[k] = follow(_QUEUED, "urgency", "priority") | DETACHED
        for name, context in (
            ("urgency", {"urgency": urgency, "userid": userid}),
            ("priority", {"priority": priority_of(urgency)}),
        ):
            self._extra(jobs, k, SUBMITTED, now, name, context)
        if jobid not in self.exec.leased:
            self.queue.push_member(jobs, k)
        self._changed(schedule=True)
        return old

    def memo(
        self, jobid: int, memo: object, now: float, uid: int, *, volatile: bool = False
    ) -> None:
        """Note something on an active job (RFC 21): ``{key: value}``, where None removes the key.

        A volatile memo is shown like any other, but is not in the event log. Raises ServiceError:
        ENOENT, EPERM unless ``uid`` owns the job or the instance, EPROTO when the memo is none,
        EINVAL when it is empty or too long or the job inactive.
        """
        jobs, k = self.find(jobid)
        if uid not in (jobs.userid, self.owner):
            raise ServiceError(errno.EPERM, "only the owner may add a memo to the jobs of others")
        if jobs.state_of(k) == State.INACTIVE:
            raise ServiceError(errno.EINVAL, f"{_shown(jobid)}: job is inactive")
        fresh = memos.parse(memo)
        kept = jobs.memos or {}
        merged = memos.merge(kept.get(k, {}), fresh)
        if merged:
            kept[k] = merged
        else:
            kept.pop(k, None)
        jobs.memos = kept or None
        if volatile:
            self.journal.add(jobs, k, 1, now, "memo", fresh)
        else:
            self._extra(jobs, k, self._stage(jobs, k), now, "memo", fresh)
        self._changed()

    def _stage(self, jobs: JobArray, k: int) -> int:
        """How far the regular events of an active member's log have come."""
        row = jobs.row(k)
        if row == NO_ROW:
            return SUBMITTED
        return STARTED if self.store.ledger.t_start[row] else ALLOCATED

    def kill(self, jobid: int, signum: int) -> None:
        """Signal the tasks of a running job. Raises ServiceError."""
        jobs, k = self.find(jobid)
        state = jobs.state_of(k)
        if state == State.INACTIVE:
            raise ServiceError(errno.EINVAL, f"{_shown(jobid)}: job is inactive")
        if not state & (State.RUN | State.CLEANUP):
            raise ServiceError(errno.EINVAL, f"{_shown(jobid)}: job is not running")
        running = self.exec.running.get(jobid)
        if running is not None:
            self.exec.kill(running, signum)
            self._dirty = True

    def kill_mock(self, jobid: int, signum: int, now: float) -> None:
        """A signal ends a job in mock execution as it would a real task."""
        jobs, k = self.find(jobid)
        if jobs.mock is not None and jobs.state_of(k) == State.RUN and signum:
            self._finish(jobs, k, 1, jobs.row(k), (128 + signum) << 8, now, now)
            self._changed(schedule=True)

    # -- the queues -----------------------------------------------------------------------------

    def enable(self, enable: bool, reason: str = "", name: str | None = None) -> None:
        """Accept submissions to a queue, or to all, or refuse them with ``reason``."""
        for lane in self.queue.select(name):
            lane.enable(enable, reason)

    def start(self, start: bool, reason: str = "", name: str | None = None) -> None:
        """Start jobs of a queue, or of all, or keep them queued."""
        for lane in self.queue.select(name):
            lane.start(start, reason)
        if self.stopping:
            self.leases.recall()
        self._changed(schedule=True)

    @property
    def stopping(self) -> bool:
        """Whether jobs of a stopped queue are on lease, and may yet begin."""
        return any(not self.queue.lane_of(jobs).serving for jobs in self.leases.lent)

    def recall(self) -> bool:
        """Take back what is on lease; whether anything is. What comes back waits as before, and
        until all is settled nothing is leased again."""
        self.leases.recall()
        self._dirty = True
        return self.leases.out > 0

    def wait_drained(self, token: Token) -> None:
        """Answer when no job is active."""
        self._drains.append(token)
        self._dirty = True

    def wait_idle(self, token: Token) -> None:
        """Answer ``{pending}`` when nothing runs."""
        self._idles.append(token)
        self._dirty = True

    def forget_waiter(self, token: Token) -> None:
        """Whoever held the token no longer waits."""
        self.waits.cancel(token)
        for tokens in (self._drains, self._idles):
            if token in tokens:
                tokens.remove(token)

    def wait_changed(self) -> None:
        """A wait was added: the next turn may have answers."""
        self._dirty = True

    # -- reports --------------------------------------------------------------------------------

    def report(self, events: Iterable[list[Any]], now: float) -> None:
        """What ranks say of their tasks. Raises ValueError when malformed; the events before the
        malformed one have had their effect."""
        returned = False
        settled: list[Running] = []
        for outcome in self.exec.report(events):
            running = outcome.running
            if outcome.kind in ("begun", "returned"):
                settled.append(running)
                if outcome.kind == "begun":
                    self._begun(running, outcome.time, now)
                else:
                    returned = True
                    self._returned(running)
                continue
            jobs, k, row = running.jobs, running.k, running.row
            # The ranks know best when it was, but their clocks may differ from ours.
            then = min(now, max(outcome.time, self._last_time(jobs, k, row)))
            if outcome.kind == "started":
                self._start(jobs, k, 1, row, then)
            elif outcome.kind == "memo":
                try:
                    self.memo(running.id, outcome.memo, then, self.owner)
                except ServiceError as error:  # as malformed as any other event
                    raise ValueError(str(error)) from None
            elif outcome.kind == "failed":
                # The shell has started, only the task has not: that is how Flux logs it.
                self._start(jobs, k, 1, row, then)
                self._raise(jobs, k, k + 1, "exec", 0, outcome.note, None, then)
            else:
                self._ended(running, then, now)
        if self._doomed:
            self._carry_out_dooms(settled, now)
        # While placements pass from one job to the next on their rank, nothing else can start.
        self._changed(schedule=bool(self._frees) or returned)

    def _last_time(self, jobs: JobArray, k: int, row: int) -> float:
        """The time of the latest event of a running member."""
        ledger = self.store.ledger
        last = ledger.t_start[row] or ledger.t_alloc[row]
        if jobs.extras:
            for _, _, time, _, _ in jobs.extras.get(k, ()):
                last = max(last, time)
        return last

    def lost(self, ranks: int, now: float, why: str = "lost contact with broker") -> None:
        """These ranks (a bitmask) are gone with all that ran there.

        Members on lease there wait again: as far as anyone knows they had not begun.
        """
        ids, unused = self.leases.lost(ranks)
        leased = [self.exec.leased.pop(jobid) for jobid in ids]
        self._frees += unused
        for running in leased:
            self.queue.push_member(running.jobs, running.k)
        self._carry_out_dooms(leased, now)
        for running, rank in self.exec.lost(ranks):
            host = running.placement.hosts[
                [part.rank for part in running.placement.parts].index(rank)
            ]
            jobs, k = running.jobs, running.k
            note = f"{why} {rank} (host {host})"
            self._raise(jobs, k, k + 1, "node-failure", 0, note, None, now)
            if self.exec.gone(running):
                self._ended(running, now, now)
        for batch in list(self.mocks.values()):
            for i in range(batch.count):
                jobs, k = batch.jobs, batch.k + i
                placement = self.store.ledger.placement[batch.row + i]
                if jobs.state[k] == _RUN and placement is not None:
                    hit = placement.ranks_mask & ranks
                    if hit:
                        rank = hit.bit_length() - 1
                        self._raise(jobs, k, k + 1, "node-failure", 0, f"{why} {rank}", None, now)
        for jobs in self.store.arrays:
            if jobs.active:
                jobs.sent_to &= ~ranks
        self._changed(schedule=True)

    # -- the turn -------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether a turn has anything to do but expired timers."""
        return self._dirty

    def next_deadline(self) -> float | None:
        """When a turn is needed even if nothing happens."""
        return self._timers[0][0] if self._timers else None

    def due(self, now: float) -> bool:
        """Whether a turn has anything to do."""
        return self._dirty or (bool(self._timers) and self._timers[0][0] <= now)

    def turn(self, now: float) -> None:
        """Do all that is due: end, free, schedule. `take` then says what follows for the world."""
        self._expire(now)
        if self._frees:
            self.sched.free(self._frees)
            self._frees.clear()
        self._dirty = False
        if self._schedulable:
            self._schedulable = False
            if self.queue.cycle(self.sched, now, self._allocated, self.expiration):
                self._changed(schedule=True)
            leases = self.leases
            if leases.out and not leases.paused and self.queue.precede(leases.lent):
                leases.recall()  # what comes now comes first
        if self.leases.hungry and self.leases.ready():
            self._lease(now)

    def take(self) -> Actions:
        """What is to be done since the last call, the work of several turns together."""
        actions = Actions()
        actions.starts, actions.kills, actions.forgets = self.exec.take()
        actions.recalls = self.leases.take_recalls()
        actions.answers = self.waits.take()
        if self._drains or self._idles:
            self._answer_drains(actions.answers)
        actions.events = self.journal.take()
        return actions

    def _lease(self, now: float) -> None:
        """Who is next does not fit: let it follow its like where they run."""
        leases = self.leases
        head = self.queue.next(leases.limit())
        if head is None or head[0].state[head[1]] != _QUEUED:
            leases.hungry.clear()
            return
        jobs, first, n = head
        count = 0
        for slot, after, jobid, k in leases.grant(jobs, first, n, now):
            self.exec.lease(jobs, k, jobid, slot.placement, after)
            count += 1
        if count:
            jobs.state[first : first + count] = bytes([_QUEUED | DETACHED]) * count
            if not self._lease_timer:
                self._lease_timer = True
                self._at(now + PATIENCE_S, "leases", None)

    def _answer_drains(self, answers: list[Answer]) -> None:
        if self._drains and not self.counts.active:
            answers += [Answer(token) for token in self._drains]
            self._drains.clear()
        if self._idles and not self.counts.running:
            payload = {"pending": self.counts.active}
            answers += [Answer(token, payload) for token in self._idles]
            self._idles.clear()

    def _changed(self, *, schedule: bool = False) -> None:
        self._dirty = True
        self._schedulable |= schedule

    # -- transitions ----------------------------------------------------------------------------

    def _allocated(self, jobs: JobArray, k: int, placements: list[Placement], now: float) -> None:
        """Members ``k``…, which are queued one after the other, start with these placements."""
        row = self._enter_run(jobs, k, placements, now)
        n = len(placements)
        if jobs.mock is not None:
            self._start(jobs, k, n, row, now)
            self.mocks[row] = _MockBatch(jobs, k, n, row)
            self._at(now + jobs.mock, "mock", row)
            return
        ends = min(self.expiration, now + jobs.duration if jobs.duration else inf)
        self.exec.dispatch(jobs, k, row, placements, 0.0 if ends == inf else ends)
        if leasable(jobs) and self.queue.in_order(jobs):
            self.leases.opened(jobs, k, placements, now)

    def _enter_run(self, jobs: JobArray, k: int, placements: list[Placement], now: float) -> int:
        """SCHED → RUN for members ``k``…; the first of their ledger rows."""
        n = len(placements)
        ledger = self.store.ledger
        row = ledger.add(jobs.index, k, placements, n, now)
        jobs.set_rows(k, n, row)
        jobs.running += n
        if n == 1:
            jobs.state[k] = _RUN
        else:
            jobs.state[k : k + n] = bytes([_RUN]) * n
        self.counts.states[_QUEUED] -= n
        self.counts.states[_RUN] += n
        if self.journal.users:
            self.journal.add(jobs, k, n, now, "alloc", lambda i: alloc_context(placements[i]))
        if jobs.duration and (jobs.mock is None or jobs.mock > jobs.duration):
            self._at(now + jobs.duration, "limit", (jobs, k, n))
        if jobs.warning is not None:
            ends = min(self.expiration, now + jobs.duration if jobs.duration else inf)
            if ends != inf:  # what has less time left than it wants is told at once, as by Flux
                self._at(ends - jobs.warning[1], "warning", (jobs, k, n))
        return row

    def _begun(self, running: Running, time: float, now: float) -> None:
        """A member on lease runs, with the placement of the one before it."""
        jobs, k = running.jobs, running.k
        slot = self.leases.begun(running.id, now)
        earliest = max(time, slot.since, jobs.t_submit)
        if jobs.extras or jobs.ranges:
            for _, _, other, _, _ in jobs.extra_events(k):
                earliest = max(earliest, other)
        slot.since = min(now, earliest)
        running.row = self._enter_run(jobs, k, [running.placement], slot.since)

    def _returned(self, running: Running) -> None:
        """A member on lease is back before it began: it waits as before, on its own."""
        unused = self.leases.returned(running.id)
        if unused is not None:
            self._frees.append(unused)
        self.queue.push_member(running.jobs, running.k)

    def _carry_out_dooms(self, settled: list[Running], now: float) -> None:
        """Raise what was to be raised on jobs while they were on lease."""
        for running in settled:
            for kind, note, userid in self._doomed.pop(running.id, ()):
                self._raise(running.jobs, running.k, running.k + 1, kind, 0, note, userid, now)

    def _start(self, jobs: JobArray, k: int, n: int, row: int, now: float) -> None:
        """Tasks run; the state stays what it is (RUN, or CLEANUP after an early exception)."""
        if not self.store.ledger.t_start[row]:
            self.store.ledger.set_start(row, n, now)
            self.journal.add(jobs, k, n, now, "start")

    def _ended(self, running: Running, then: float, now: float) -> None:
        """All tasks of a real job have ended, at that time."""
        jobs, row = running.jobs, running.row
        self._start(jobs, running.k, 1, row, then)
        if jobs.state[running.k] == _RUN:  # what was ended early says nothing about the others
            jobs.took(running.took)
        if running.exits:
            self.store.ledger.exits[row] = running.exits
        status = running.failure or running.status
        free = not self.leases.ended(running.id, then)
        self._finish(jobs, running.k, 1, row, status, then, now, free=free)

    def _finish(
        self,
        jobs: JobArray,
        k: int,
        n: int,
        row: int,
        status: int,
        then: float,
        now: float,
        *,
        free: bool = True,
    ) -> None:
        """RUN or CLEANUP → INACTIVE for members ``k``… in the same state, with rows ``row``…

        Not ``free``: the (single) placement passed to another job as it finished.
        """
        ledger = self.store.ledger
        was = State(jobs.state[k])
        if n == 1:
            jobs.state[k] = _ENDED
            if free:
                placement = ledger.placement[row]
                assert placement is not None
                self._frees.append(placement)
            else:
                ledger.handed_on[row] = 1
        else:
            jobs.state[k : k + n] = bytes([_ENDED]) * n
            self._frees += ledger.placement[row : row + n]  # type: ignore[arg-type]
        ledger.set_end(row, n, status, then, now)
        jobs.running -= n
        self.counts.states[was] -= n
        self._inactive(jobs, k, n)
        if self.journal.users:
            self.journal.add(jobs, k, n, then, "finish", {"status": status})
            self.journal.add(jobs, k, n, now if free else then, "release", RELEASE)
            self.journal.add(jobs, k, n, now if free else then, "free")
            self.journal.add(jobs, k, n, now, "clean")

    def _inactive(self, jobs: JobArray, k: int, n: int) -> None:
        self.counts.states[State.INACTIVE] += n
        if jobs.extras or jobs.ranges:
            for m in range(k, k + n):
                self.counts.results[self.result(jobs, m)] += 1
        else:
            self.counts.results[self.result(jobs, k)] += n
        jobs.active -= n
        self.waits.inactive(jobs, k, n)
        if not jobs.active and jobs.sent_to:
            self.exec.forget(jobs)

    def _raise(
        self,
        jobs: JobArray,
        lo: int,
        hi: int,
        kind: str,
        severity: int,
        note: str,
        userid: int | None,
        now: float,
        errors: dict[int, str] | None = None,
    ) -> None:
        """Raise an exception on members ``lo``…``hi - 1``, whatever state each is in."""
        context: dict[str, Any] = {"type": kind, "severity": severity, "note": note}
        if userid is not None:
            context["userid"] = userid
        k = lo
        while k < hi:
            n = jobs.run_length(k, hi)
            state = State(jobs.state[k] & 127)
            if state == State.INACTIVE:
                if errors is not None:
                    for m in range(k, k + n):
                        if len(errors) >= 1000:
                            break
                        errors[jobs.id(m)] = "job is inactive"
            elif (
                state == _QUEUED
                and self.leases.out
                and severity == 0
                and (jobs.id(k) in self.exec.leased)
            ):
                n = 1
                self.leases.recall_around(jobs.id(k))
                self._doomed.setdefault(jobs.id(k), []).append((kind, note, userid))
            elif state == _QUEUED:
                if self.leases.out and severity == 0:
                    n = self._not_leased(jobs, k, n)
                self._shared_extra(jobs, k, n, SUBMITTED, now, "exception", context)
                if severity == 0:
                    self._ended_early(jobs, k, n, now)
            else:
                for m in range(k, k + n):
                    self._raise_running(jobs, m, state, context, now)
            k += n
        self._changed(schedule=True)

    def _not_leased(self, jobs: JobArray, k: int, n: int) -> int:
        """How many of members ``k``…, all of which wait, come before the first on lease."""
        if not jobs.state[k] & DETACHED:
            return n
        leased = self.exec.leased
        return next((i for i in range(1, n) if jobs.id(k + i) in leased), n)

    def _raise_running(
        self, jobs: JobArray, k: int, state: State, context: dict[str, Any], now: float
    ) -> None:
        row = jobs.row(k)
        self._extra(jobs, k, self._stage(jobs, k), now, "exception", context)
        if context["severity"] or state != _RUN:
            return
        jobs.state[k] = _EXCEPTION
        self.counts.states[_RUN] -= 1
        self.counts.states[State(_EXCEPTION)] += 1
        signum = SIGALRM if context["type"] == "timeout" else SIGTERM
        if jobs.mock is not None:
            self._finish(jobs, k, 1, row, (128 + signum) << 8, now, now)
            return
        running = self.exec.running.get(jobs.id(k))
        if running is not None:
            self.exec.kill(running, signum)
            self._at(now + self.kill_timeout, "kill", running.id)

    def _ended_early(self, jobs: JobArray, k: int, n: int, now: float) -> None:
        """SCHED → INACTIVE after an exception: it never had resources."""
        ledger = self.store.ledger
        row = ledger.add(jobs.index, k, None, n, now)
        jobs.set_rows(k, n, row)
        jobs.state[k : k + n] = bytes([_ENDED_EARLY]) * n
        ledger.set_end(row, n, NO_STATUS, 0.0, now)
        self.counts.states[_QUEUED] -= n
        self._inactive(jobs, k, n)
        self.journal.add(jobs, k, n, now, "clean")

    def _extra(
        self, jobs: JobArray, k: int, stage: int, now: float, name: str, context: dict[str, Any]
    ) -> None:
        """Record an event that not every job has."""
        event = (next(self._sequence), stage, now, name, context)
        jobs.extras.setdefault(k, []).append(event)
        self.journal.add(jobs, k, 1, now, name, context)

    def _shared_extra(
        self,
        jobs: JobArray,
        k: int,
        n: int,
        stage: int,
        now: float,
        name: str,
        context: dict[str, Any],
    ) -> None:
        event = (next(self._sequence), stage, now, name, context)
        if n < 32:  # few: found faster by member; many: one entry for all
            for m in range(k, k + n):
                jobs.extras.setdefault(m, []).append(event)
        else:
            jobs.ranges.append((k, k + n, event))
        self.journal.add(jobs, k, n, now, name, context)

    # -- timers ---------------------------------------------------------------------------------

    def _at(self, time: float, kind: str, what: Any) -> None:
        heappush(self._timers, (time, next(self._sequence), kind, what))
        # Limits of jobs long over would otherwise pile up until they are due.
        if len(self._timers) > 4096 and len(self._timers) > 4 * (self.counts.running + 1):
            self._timers = [timer for timer in self._timers if self._pertinent(timer)]
            heapify(self._timers)

    def _pertinent(self, timer: tuple[float, int, str, Any]) -> bool:
        _, _, kind, what = timer
        if kind == "leases":
            return True
        if kind in ("limit", "warning"):
            jobs, k, n = what
            return bool(jobs.state.count(_RUN, k, k + n) or jobs.state.count(_EXCEPTION, k, k + n))
        return what in (self.exec.running if kind == "kill" else self.mocks)

    def _expire(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, _, kind, what = heappop(timers)
            if kind == "mock":
                self._mock_ended(self.mocks.pop(what), now)
            elif kind == "leases":
                self._lease_timer = self.leases.out > 0
                if self._lease_timer:
                    self.leases.recall_overdue(now)
                    self._at(now + PATIENCE_S, "leases", None)
            elif kind == "limit":
                jobs, k, n = what
                for m in range(k, k + n):
                    if jobs.state[m] == _RUN:
                        self._raise(
                            jobs, m, m + 1, "timeout", 0, "resource allocation expired", None, now
                        )
            elif kind == "warning":
                jobs, k, n = what
                for m in range(k, k + n):
                    told = self.exec.running.get(jobs.id(m)) if jobs.state[m] == _RUN else None
                    if told is not None:
                        self.exec.kill(told, jobs.warning[0])
            else:
                running = self.exec.running.get(what)
                if running is not None and running.kills < MAX_KILLS:
                    running.kills += 1
                    self.exec.kill(running, SIGKILL)
                    self._at(now + self.kill_timeout, "kill", what)
            timers = self._timers  # `_at` may have replaced it

    def _mock_ended(self, batch: _MockBatch, now: float) -> None:
        jobs, k, n, row = batch.jobs, batch.k, batch.count, batch.row
        if jobs.state.count(_RUN, k, k + n) == n:
            self._finish(jobs, k, n, row, jobs.mock_status, now, now)
        else:
            for i in range(n):
                if jobs.state[k + i] == _RUN:
                    self._finish(jobs, k + i, 1, row + i, jobs.mock_status, now, now)
        self._changed(schedule=True)

    # -- results --------------------------------------------------------------------------------

    def result(self, jobs: JobArray, k: int) -> Result:
        """How an inactive member ended."""
        exception = jobs.exception(k)
        if exception is not None and exception["severity"] > 0:
            exception = None if self.status(jobs, k) == 0 else exception
        if exception is None:
            return Result.COMPLETED if self.status(jobs, k) == 0 else Result.FAILED
        if exception["type"] == "cancel":
            return Result.CANCELED
        return Result.TIMEOUT if exception["type"] == "timeout" else Result.FAILED

    def status(self, jobs: JobArray, k: int) -> int:
        """The wait status of an inactive member; NO_STATUS when it never ran."""
        row = jobs.row(k)
        return NO_STATUS if row == NO_ROW else self.store.ledger.status[row]

    def wait_payload(self, jobs: JobArray, k: int) -> dict[str, Any]:
        """The answer to ``job-manager.wait``."""
        payload: dict[str, Any] = {
            "id": jobs.id(k),
            "success": self.result(jobs, k) == Result.COMPLETED,
            "status": self.status(jobs, k),
        }
        exception = jobs.exception(k)
        if exception is not None and exception["severity"] == 0:
            payload["exception"] = {key: exception[key] for key in ("type", "severity", "note")}
        return payload

    def done_entry(self, jobs: JobArray, k: int) -> list[Any]:
        """An entry of ``job-manager.wait-all``: [id, status] and what exception ended it."""
        entry: list[Any] = [jobs.id(k), self.status(jobs, k)]
        if jobs.extras or jobs.ranges:
            exception = jobs.exception(k)
            if exception is not None and exception["severity"] == 0:
                note = exception["note"]
                entry.append(f"{exception['type']}: {note}" if note else exception["type"])
        return entry

    def timed_entry(self, jobs: JobArray, k: int) -> list[Any]:
        """The same with what an exception says, or None, and the seconds that it ran."""
        entry = self.done_entry(jobs, k)
        if len(entry) == 2:
            entry.append(None)
        row = jobs.row(k)
        if entry[1] == NO_STATUS or row == NO_ROW:
            entry.append(None)
        else:
            ledger = self.store.ledger
            began = ledger.t_start[row] or ledger.t_alloc[row]
            entry.append(max(0.0, ledger.t_finish[row] - began))
        return entry


def _shown(jobid: int) -> str:
    return fluid.encode(jobid) if 0 <= jobid <= fluid.MAX_FLUID else str(jobid)
