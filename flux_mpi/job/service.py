"""The job services of rank 0: job-ingest, job-manager, job-list, job-info, job-exec and sched.

The thin shell around `Manager`: it decodes requests, tells it the time, carries out its actions and
answers. The only module of this package that knows a broker.
"""

from __future__ import annotations

import base64
import errno
import json
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from flux_mpi.broker.service import Broker, Handler, Request, ServiceError
from flux_mpi.formats import duration, fluid
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec, JobspecError
from flux_mpi.formats.rv1 import RSet
from flux_mpi.job import eventlogs, explaining, listing, owners, queueconfig, queuerules
from flux_mpi.job.arrays import NO_ROW, JobArray
from flux_mpi.job.digest import Digests
from flux_mpi.job.ingest import Ingest, check_urgency
from flux_mpi.job.journal import Entry as JournalEntry
from flux_mpi.job.manager import SIGKILL, Actions, Manager
from flux_mpi.job.states import ACTIVE, State
from flux_mpi.message.errors import FluxError
from flux_mpi.reactor import Timer
from flux_mpi.sched import plugins
from flux_mpi.sched.base import Scheduler

LIST_CHUNK = 5000
MAX_PICTURE = 20_000
"""Vertices of a graph that are told at once: some 5 MB."""
EVENT_CHUNK = 10_000
MAX_TURNS = 64
"""Turns of the manager in one turn of the loop, when mock jobs end sooner than it turns."""
LONGEST_S = 0.005
"""How long those may take together."""

SETTLE_S = 2.0
"""How long a request waits for what is on lease to be returned; a rank may hang."""

INFO, WARNING, ERR = 6, 4, 3

Hello = Callable[[int, dict[str, Any]], object]


class JobService:
    """The job services of an instance.

    ``config`` is the instance's configuration: ``exec.kill-timeout`` (seconds or a duration,
    default 5 s), ``sched.scheduler`` and what that understands (`plugins.py`), and the queues
    (`queueconfig.py`). ``on_hello(rank, info)`` is told of each rank's agent; it may raise
    ServiceError. Raises FluxError when the configuration makes no sense.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        config: dict[str, Any] | None = None,
        scheduler: Scheduler | None = None,
        on_hello: Hello | None = None,
        owner: int = 0,
    ) -> None:
        self.broker = broker
        self.reactor = broker.reactor
        config = config or {}
        # Unix time that never steps back, whatever happens to the machine's clock.
        self._offset = self.reactor.now() - self.reactor.monotonic()
        self._time = 0.0
        queues = queueconfig.parse(config)
        if scheduler is None:
            scheduler = _scheduler(config)
        self.scheduler = scheduler
        self.manager = Manager(
            scheduler,
            epoch=self.now(),
            kill_timeout=_seconds(_setting(config, "exec", "kill-timeout", 5.0)),
            owner=owner,
            queues=queues,
        )
        self.on_hello = on_hello
        self._ingest = Ingest(queues)
        self._timer: Timer | None = None
        self._digests = Digests(self.reactor)
        self._timer_due = 0.0
        self._unsettled: list[tuple[Handler, Request]] = []
        """Requests that wait until nothing is on lease, or for ``SETTLE_S``."""
        self._settling: Timer | None = None
        self._journals: dict[Request, None] = {}
        self._watches: dict[int, list[_Watch]] = {}
        self._on_empty: list[Callable[[], object]] = []
        self._register()
        self.reactor.at_turn_end(self.turn_end)

    def _register(self) -> None:
        register = self.broker.register
        register("job-ingest", {"submit": self.submit})
        register("job-exec", {"hello": self.hello, "report": self.report})
        register(
            "sched",
            {"feasibility": self.feasibility, "explain": self.explain, "graph": self.graph},
        )
        register("job-list", {"list": self.list_jobs, "stats": self.stats})
        register("job-info", {"lookup": self.lookup, "eventlog-watch": self.eventlog_watch})
        register(
            "job-manager",
            {
                "wait": self.wait,
                "wait-all": self.wait_all,
                "kill": self.kill,
                "memo": self.memo,
                "raise": self.raise_,
                "raise-all": self.raise_all,
                "urgency": self.urgency,
                "drain": self.drain,
                "idle": self.idle,
                "queue-list": self.queue_list,
                "queue-status": self.queue_status,
                "queue-enable": self.queue_enable,
                "queue-start": self.queue_start,
                "stats": self.stats,
                "events-journal": self.events_journal,
            },
        )

    def now(self) -> float:
        """Unix time, never stepping back. What happens next happens at this time or later."""
        self._time = self._offset + self.reactor.monotonic()
        return self._time

    # -- what the instance tells ----------------------------------------------------------------

    def define(self, resources: RSet, up: IDSet) -> None:
        """The instance has these resources, and the ranks in ``up`` can be used now.

        Raises FluxError when what is configured does not fit them.
        """
        try:
            self.scheduler.update(resources, up)
        except ValueError as error:
            raise FluxError(errno.EINVAL, f"configuration: resource.graph: {error}") from None
        self.manager.expiration = resources.expiration or inf
        self.manager.resources_changed(self.now())

    def change(self, up: IDSet) -> None:
        """From now on the ranks in ``up`` can be used for new jobs, and no others."""
        self.scheduler.set_up(up)
        self.manager.usable_changed()

    def lost(self, ranks: IDSet) -> None:
        """These ranks are gone: their jobs fail."""
        self.manager.lost(ranks.mask, self.now())

    def allocated(self) -> RSet:
        """What jobs hold now."""
        return self.scheduler.allocated()

    def others(self) -> dict[str, dict[str, int]]:
        """Resources beside nodes, cores and GPUs: see `Scheduler.others`."""
        return self.scheduler.others()

    @property
    def running(self) -> int:
        """How many jobs hold resources."""
        return self.manager.counts.running

    def stop(self, now: bool, on_empty: Callable[[], object]) -> None:
        """Take no more jobs and end those there are (at once: SIGKILL); then call back."""
        self.manager.enable(False, "the instance is shutting down")
        self._on_empty.append(on_empty)
        time = self.now()
        self.manager.raise_all(
            int(ACTIVE), "cancel", 0, "the instance is shutting down", None, time
        )
        if now:
            for running in self.manager.exec.running.values():
                self.manager.exec.kill(running, SIGKILL)
        self.manager.wait_changed()
        self.reactor.call_soon(lambda: None)  # a turn must follow even if nothing else happens

    # -- the loop -------------------------------------------------------------------------------

    def turn_end(self) -> None:
        """Run after each turn of the loop: everything that arrived is acted on at once."""
        manager = self.manager
        now = self._offset + self.reactor.monotonic()
        if self._unsettled and not manager.leases.out:
            self._settle()
        if manager.due(now):
            for _ in range(MAX_TURNS):
                # Timers are acted on at the time they were due, not when this loop got to it:
                # short mock jobs then follow each other without the kernel's delays in between.
                deadline = manager.next_deadline()
                if deadline is not None and deadline <= now:
                    self._time = max(self._time, deadline)
                elif manager.dirty:
                    self._time = now
                else:
                    break
                manager.turn(self._time)
                if self._offset + self.reactor.monotonic() - now > LONGEST_S:
                    break  # others wait for their turn
            self._carry_out(manager.take())
            if self._on_empty and not manager.counts.active:
                callbacks, self._on_empty = self._on_empty, []
                for callback in callbacks:
                    callback()
        self._arm(now)

    def _settle(self) -> None:
        """Nothing is on lease any more, or a rank is silent: carry out what waited for that."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        unsettled, self._unsettled = self._unsettled, []
        for handler, request in unsettled:
            try:
                handler(request)
            except ServiceError as error:
                request.error(error.errno or errno.EINVAL, str(error))

    def _after_leases(self, request: Request, handler: Handler) -> None:
        """Carry out a request once it is known of all jobs whether they have begun."""
        if self.manager.recall():
            self._unsettled.append((handler, request))
            if self._settling is None:
                self._settling = self.reactor.call_later(SETTLE_S, self._settle)
        else:
            handler(request)

    def _arm(self, now: float) -> None:
        deadline = now if self.manager.dirty else self.manager.next_deadline()
        if deadline is None or deadline == float("inf"):
            return
        if self._timer is not None:
            if self._timer.active and self._timer_due <= deadline:
                return
            self._timer.cancel()
        self._timer_due = deadline
        self._timer = self.reactor.call_later(deadline - now, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None  # the turn-end hook that follows does what is due

    def _carry_out(self, actions: Actions) -> None:
        send = self.broker.send
        for rank, start in actions.starts.items():
            payload: dict[str, Any] = {"specs": start.specs, "jobs": start.jobs}
            if start.leases:
                payload["leases"] = start.leases
            send("exec.start", payload, rank=rank)
        for rank, ids in actions.recalls.items():
            send("exec.recall", {"ids": ids}, rank=rank)
        for rank, jobid, signum in actions.kills:
            send("exec.kill", {"id": jobid, "signum": signum}, rank=rank)
        for rank, keys in actions.forgets.items():
            send("exec.forget", {"keys": keys}, rank=rank)
        if actions.events:
            self._publish(actions.events)
        for answer in actions.answers:
            request: Any = answer.token
            if not answer.final:
                self._digests.add(request, answer.payload["done"])
            elif answer.errnum:
                self._digests.end(request)
                request.error(answer.errnum, answer.text)
            else:
                request.respond(answer.payload)

    # -- submission -----------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        entries, urgency, flags = self._ingest.parse(request.payload)
        for entry in entries:
            reason = self.scheduler.invalid(entry.shape)
            if reason is not None:
                raise ServiceError(errno.EINVAL, reason)
        arrays = self.manager.submit(
            entries, self.now(), userid=request.uid, urgency=urgency, flags=flags
        )
        request.respond({"arrays": arrays})

    def feasibility(self, request: Request) -> None:
        shape = self._jobspec(request).shape
        reason = self.scheduler.invalid(shape) or self.scheduler.feasible(shape)
        if reason is not None:
            raise ServiceError(errno.EINVAL, reason)
        request.respond()

    def explain(self, request: Request) -> None:
        """Why a job does not run, or a jobspec would not start now."""
        body = _body(request)
        if "id" in body:
            jobs, k = self.manager.find(body["id"])
            text = explaining.job(self.manager, jobs, k, self.now())
        else:
            text = self.scheduler.explain(self._jobspec(request).shape)
        request.respond({"text": text})

    def graph(self, request: Request) -> None:
        """The graph of the resources, or a part of it, with who has what."""
        path = _body(request).get("path")
        if path is not None and not isinstance(path, str):
            raise ServiceError(errno.EPROTO, f"path: expected text, found {path!r}"[:200])
        running, reserved = owners.running(self.manager), owners.reserved(self.manager)
        try:
            found = self.scheduler.picture(running, reserved, path, MAX_PICTURE)
        except ValueError as error:
            raise ServiceError(errno.EINVAL, str(error)) from None
        if found is None:
            name = type(self.scheduler).__name__
            raise ServiceError(errno.EOPNOTSUPP, f"{name} has no graph of the resources to show")
        request.respond(found)

    def _jobspec(self, request: Request) -> Jobspec:
        try:
            jobspec = Jobspec.parse(_body(request).get("jobspec"))  # type: ignore[arg-type]
            queuerules.complete(jobspec, self.manager.queue.settings)
            jobspec.shape  # noqa: B018 - raises what the caller must be told
        except JobspecError as error:
            raise ServiceError(errno.EINVAL, str(error)) from None
        return jobspec

    # -- execution ------------------------------------------------------------------------------

    def hello(self, request: Request) -> None:
        body = _body(request)
        rank = _int(body, "rank")
        if self.on_hello is not None:
            self.on_hello(rank, body)
        request.respond({})

    def report(self, request: Request) -> None:
        events = _body(request).get("events")
        if not isinstance(events, list):
            raise ServiceError(errno.EPROTO, f"events: expected a list, found {events!r}"[:200])
        try:
            self.manager.report(events, self.now())
        except (ValueError, TypeError, IndexError) as error:
            self.broker.log(ERR, "job-exec", f"a report makes no sense: {error}")
            raise ServiceError(errno.EPROTO, str(error)) from None
        request.respond()

    # -- job-manager ----------------------------------------------------------------------------

    def wait(self, request: Request) -> None:
        jobid = _body(request).get("id")
        if jobid is None:
            self.manager.waits.wait_any(request)
        else:
            jobs, k = self.manager.find(jobid)
            self.manager.waits.wait_one(request, jobs, k)
        self._waiting(request)

    def wait_all(self, request: Request) -> None:
        _streaming(request)
        body = _body(request)
        ids = body.get("ids")
        store = self.manager.store
        segments: list[tuple[JobArray, int, int]] = []
        if ids is None:
            for jobs in store.arrays:
                if jobs.active:
                    segments += _active_runs(jobs)
        else:
            for first, count in _ranges(ids):
                found = list(store.segments(first, count))
                if sum(hi - lo for _, lo, hi in found) < count:
                    known = sum(hi - lo for _, lo, hi in found)
                    self.manager.find(fluid.nth(first, known))  # raises ENOENT naming it
                segments += found
        self.manager.waits.wait_all(request, segments, bool(body.get("times")))
        self._waiting(request)

    def _waiting(self, request: Request) -> None:
        def forget() -> None:
            self.manager.forget_waiter(request)
            self._digests.forget(request)

        request.on_close(forget)
        self.manager.wait_changed()

    def kill(self, request: Request) -> None:
        body = _body(request)
        jobid, signum = _int(body, "id"), _int(body, "signum")
        if not 0 <= signum <= 64:
            raise ServiceError(errno.EINVAL, f"signum: expected 1 to 64, found {signum}")
        self._may_change(request, jobid)
        self.manager.kill(jobid, signum)
        self.manager.kill_mock(jobid, signum, self.now())
        request.respond()

    def memo(self, request: Request) -> None:
        body = _body(request)
        volatile = body.get("volatile", False)
        if not isinstance(volatile, bool):
            raise ServiceError(errno.EPROTO, f"volatile: expected a bool, found {volatile!r}"[:200])
        jobid = _int(body, "id")
        self.manager.memo(jobid, body.get("memo"), self.now(), request.uid, volatile=volatile)
        request.respond()

    def raise_(self, request: Request) -> None:
        body = _body(request)
        kind, severity, note = _exception(body)
        now = self.now()
        errors: dict[int, str] = {}
        for first, count in _ranges(body.get("ids")):
            for jobs, _, _ in self.manager.store.segments(first, count):
                self._may_change(request, jobs.first)
            errors |= self.manager.raise_exception(
                first, count, kind, severity, note, request.uid, now
            )
        request.respond({"errors": errors})

    def raise_all(self, request: Request) -> None:
        body = _body(request)
        kind, severity, note = _exception(body)
        states = _int(body, "states")
        userid = body.get("userid")
        owner = None if userid in (None, -1, listing.ANY_USER) else _int(body, "userid")
        if request.uid != self.manager.owner and owner != request.uid:
            raise ServiceError(errno.EPERM, "only the owner may raise on the jobs of others")
        count = self.manager.raise_all(
            states,
            kind,
            severity,
            note,
            request.uid,
            self.now(),
            owner=owner,
            dry_run=bool(body.get("dry_run")),
        )
        request.respond({"count": count, "errors": 0})

    def urgency(self, request: Request) -> None:
        body = _body(request)
        jobid = _int(body, "id")
        urgency = check_urgency(body.get("urgency"))
        self._may_change(request, jobid)

        def change(request: Request) -> None:
            old = self.manager.set_urgency(jobid, urgency, request.uid, self.now())
            request.respond({"old": old})

        self._after_leases(request, change)

    def _may_change(self, request: Request, jobid: int) -> None:
        jobs, _ = self.manager.find(jobid)
        if request.uid not in (jobs.userid, self.manager.owner):
            raise ServiceError(errno.EPERM, "only the owner may change the jobs of others")

    def drain(self, request: Request) -> None:
        self.manager.wait_drained(request)
        self._waiting(request)

    def idle(self, request: Request) -> None:
        self.manager.wait_idle(request)
        self._waiting(request)

    def queue_list(self, request: Request) -> None:
        settings = self.manager.queue.settings
        queues = [name for name in settings.queues if name]
        lanes = self.manager.queue.select(None)
        request.respond(
            {
                "queues": queues,
                "default": settings.default,
                "enable": any(lane.enabled for lane in lanes),
                "start": any(lane.serving for lane in lanes),
            }
        )

    def queue_status(self, request: Request) -> None:
        manager = self.manager
        name = _name(_body(request))
        if name is None and manager.queue.settings.named:
            raise ServiceError(errno.EINVAL, "a named queue is required")
        (lane,) = manager.queue.select(name)
        status: dict[str, Any] = lane.status()
        queued = pending = 0
        for jobs, k, n in manager.waiting():
            if not jobs.urgency_of(k):
                break
            if manager.queue.lane_of(jobs).serving:
                pending += n
            else:
                queued += n
        status["counts"] = {
            "alloc_queued": queued,
            "alloc_pending": pending,
            "running": manager.counts.running,
            "active": manager.counts.active,
        }
        request.respond(status)

    def queue_enable(self, request: Request) -> None:
        body = self._owner_body(request)
        reason = str(body.get("reason") or "")
        if not body.get("enable") and not reason:
            raise ServiceError(errno.EINVAL, "reason is required for disable")
        name = self._queue_name(body)
        self.manager.enable(bool(body.get("enable")), reason, name)
        request.respond()

    def queue_start(self, request: Request) -> None:
        body = self._owner_body(request)
        name = self._queue_name(body)
        start = bool(body.get("start"))
        self.manager.start(start, str(body.get("reason") or ""), name)
        if not start and self.manager.stopping:
            self._after_leases(request, Request.respond)  # once answered, nothing starts any more
        else:
            request.respond()

    def _queue_name(self, body: dict[str, Any]) -> str | None:
        """Which queue a request is about; None: all. Raises ServiceError EINVAL."""
        name = _name(body)
        self.manager.queue.select(name, bool(body.get("all")))
        return name

    def _owner_body(self, request: Request) -> dict[str, Any]:
        if request.uid != self.manager.owner:
            raise ServiceError(errno.EPERM, "only the owner may change the queue")
        return _body(request)

    def stats(self, request: Request) -> None:
        request.respond(listing.stats(self.manager))

    # -- lists ----------------------------------------------------------------------------------

    def list_jobs(self, request: Request) -> None:
        found = listing.Listing(self.manager, listing.Query.parse(request.payload))
        if not request.streaming:
            if found.unknown:
                self.manager.find(found.unknown[0])  # raises ENOENT naming it
            request.respond({"jobs": found.chunk(1 << 62)})
            return

        def send_chunk() -> None:
            if not request.open:
                return
            records = found.chunk(LIST_CHUNK)
            if records:
                request.respond({"jobs": records})
            if len(records) < LIST_CHUNK:
                if found.unknown:
                    self.manager.find(found.unknown[0])
                request.error(errno.ENODATA)
            else:
                self.reactor.call_soon(send_chunk)  # others get their turn in between

        send_chunk()

    # -- job-info -------------------------------------------------------------------------------

    def lookup(self, request: Request) -> None:
        body = _body(request)
        jobs, k = self.manager.find(body.get("id"))
        keys = body.get("keys")
        if not isinstance(keys, list):
            raise ServiceError(errno.EPROTO, f"keys: expected a list of names, found {keys!r}")
        answer: dict[str, Any] = {"id": jobs.id(k)}
        for key in keys:
            answer[key] = self._look_up(jobs, k, key, bool(body.get("original")))
        request.respond(answer)

    def _look_up(self, jobs: JobArray, k: int, key: Any, original: bool) -> Any:
        ledger = self.manager.store.ledger
        if key == "jobspec":
            spec = listing.expand(jobs.jobspec.to_dict(), jobs, k)
            return spec if original else _without_environment(spec)
        if key == "R":
            row = jobs.row(k)
            placement = None if row == NO_ROW else ledger.placement[row]
            if placement is None:
                raise ServiceError(errno.ENOENT, "R: the job has no resources")
            t_alloc = ledger.t_alloc[row]
            return placement.to_dict(t_alloc, listing.expiration(self.manager, jobs, t_alloc))
        if key == "eventlog":
            return eventlogs.as_text(eventlogs.event_log(jobs, k, ledger))
        if key == "guest.exec.eventlog":
            log = eventlogs.exec_event_log(jobs, k, ledger)
            if not log:
                raise ServiceError(errno.ENOENT, f"{key}: the job has not started")
            return eventlogs.as_text(log)
        if key == "J":
            return _wrapped(listing.expand(jobs.jobspec.to_dict(), jobs, k), jobs.userid)
        raise ServiceError(errno.ENOENT, f"{key!r}: a job has no such key")

    def eventlog_watch(self, request: Request) -> None:
        _streaming(request)
        body = _body(request)
        jobs, k = self.manager.find(body.get("id"))
        path = body.get("path", "eventlog")
        if path not in ("eventlog", "guest.exec.eventlog"):
            raise ServiceError(errno.ENOENT, f"path: a job has no event log {path!r}")
        watch = _Watch(request, jobs, k, path == "guest.exec.eventlog")
        if self._feed(watch):
            self._watches.setdefault(jobs.id(k), []).append(watch)
            self.manager.journal.users += 1
            request.on_close(lambda: self._unwatch(watch))

    def _feed(self, watch: _Watch) -> bool:
        """Send what is new; False when the log is complete and the stream ended."""
        make = eventlogs.exec_event_log if watch.execution else eventlogs.event_log
        log = make(watch.jobs, watch.k, self.manager.store.ledger)
        fresh = log[watch.sent :]
        if fresh:
            watch.sent = len(log)
            watch.request.respond({"events": [eventlogs.as_dict(event) for event in fresh]})
        if watch.jobs.state_of(watch.k) == State.INACTIVE:
            watch.request.error(errno.ENODATA)
            return False
        return True

    def _unwatch(self, watch: _Watch) -> None:
        jobid = watch.jobs.id(watch.k)
        watches = self._watches.get(jobid)
        if watches is not None and watch in watches:
            watches.remove(watch)
            self.manager.journal.users -= 1
            if not watches:
                del self._watches[jobid]

    def events_journal(self, request: Request) -> None:
        _streaming(request)
        if _body(request).get("full"):
            self._send_history(request)
        self._journals[request] = None
        self.manager.journal.users += 1
        request.on_close(lambda: self._close_journal(request))

    def _send_history(self, request: Request) -> None:
        """Every event of every job so far."""
        events = []
        ledger = self.manager.store.ledger
        for jobs in self.manager.store.arrays:
            for k in range(jobs.count):
                jobid = jobs.id(k)
                for event in eventlogs.event_log(jobs, k, ledger):
                    events.append((jobid, *event))
                if len(events) >= EVENT_CHUNK:
                    request.respond({"events": events})
                    events = []
        if events:
            request.respond({"events": events})

    def _close_journal(self, request: Request) -> None:
        if self._journals.pop(request, self) is None:
            self.manager.journal.users -= 1

    def _publish(self, entries: Iterable[JournalEntry]) -> None:
        """Tell those who watch what happened in a turn."""
        touched: dict[_Watch, None] = {}
        events: list[tuple[int, float, str, dict[str, Any]]] = []
        for entry in entries:
            if self._journals:
                events += entry.expand()
            if self._watches:
                if entry.n <= len(self._watches):
                    for k in range(entry.k, entry.k + entry.n):
                        for watch in self._watches.get(entry.jobs.id(k), ()):
                            touched[watch] = None
                else:
                    for watches in self._watches.values():
                        for watch in watches:
                            if watch.jobs is entry.jobs and 0 <= watch.k - entry.k < entry.n:
                                touched[watch] = None
        for at in range(0, len(events), EVENT_CHUNK):
            for request in self._journals:
                request.respond({"events": events[at : at + EVENT_CHUNK]})
        for watch in touched:
            if not self._feed(watch):
                self._unwatch(watch)


class _Watch:
    """Someone who follows one job's event log, and how much of it was sent."""

    __slots__ = ("request", "jobs", "k", "execution", "sent")

    def __init__(self, request: Request, jobs: JobArray, k: int, execution: bool) -> None:
        self.request = request
        self.jobs = jobs
        self.k = k
        self.execution = execution
        self.sent = 0


# -- payloads --------------------------------------------------------------------------------------


def _body(request: Request) -> dict[str, Any]:
    payload = request.payload
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise ServiceError(
            errno.EPROTO, f"{request.topic}: expected an object, found {type(payload).__name__}"
        )
    return payload


def _streaming(request: Request) -> None:
    if not request.streaming:
        raise ServiceError(errno.EPROTO, f"{request.topic} answers many times: ask for a stream")


def _int(body: dict[str, Any], key: str) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ServiceError(errno.EPROTO, f"{key}: expected a number, found {value!r}"[:200])
    return value


def _name(body: dict[str, Any]) -> str | None:
    """The queue that a request names. Raises ServiceError(EPROTO)."""
    name = body.get("name")
    if name is not None and not isinstance(name, str):
        raise ServiceError(errno.EPROTO, f"name: expected a queue, found {name!r}"[:200])
    return name or None


def _ranges(ids: Any) -> list[tuple[int, int]]:
    """``[[first, count], …]``. Raises ServiceError(EPROTO)."""
    if not isinstance(ids, list):
        raise ServiceError(errno.EPROTO, f"ids: expected [[first, count], …], found {ids!r}"[:200])
    ranges = []
    for item in ids:
        if not (
            isinstance(item, list)
            and len(item) == 2
            and all(isinstance(number, int) and number >= 0 for number in item)
        ):
            raise ServiceError(errno.EPROTO, f"ids: expected [first, count], found {item!r}"[:200])
        ranges.append((item[0], item[1]))
    return ranges


def _exception(body: dict[str, Any]) -> tuple[str, int, str]:
    """(type, severity, note) of an exception to raise. Raises ServiceError(EPROTO)."""
    kind, note = body.get("type"), body.get("note") or ""
    severity = body.get("severity", 0)
    if not isinstance(kind, str) or not kind or any(c.isspace() or c == "=" for c in kind):
        raise ServiceError(errno.EPROTO, f"type: expected one word without =, found {kind!r}")
    if not isinstance(severity, int) or isinstance(severity, bool) or not 0 <= severity <= 7:
        raise ServiceError(errno.EPROTO, f"severity: expected 0 to 7, found {severity!r}")
    if not isinstance(note, str):
        raise ServiceError(errno.EPROTO, f"note: expected text, found {note!r}"[:200])
    return kind, severity, note


def _active_runs(jobs: JobArray) -> list[tuple[JobArray, int, int]]:
    runs = []
    k = 0
    while k < jobs.count:
        n = jobs.run_length(k, jobs.count)
        if jobs.state[k] != State.INACTIVE:
            runs.append((jobs, k, k + n))
        k += n
    return runs


def _without_environment(spec: dict[str, Any]) -> dict[str, Any]:
    """The jobspec as it is shown: who asks for it wants the request, not a hundred variables."""
    attributes = spec.get("attributes") or {}
    system = attributes.get("system") or {}
    if "environment" not in system:
        return spec
    shown = {key: value for key, value in system.items() if key != "environment"}
    return {**spec, "attributes": {**attributes, "system": shown}}


def _wrapped(spec: dict[str, Any], userid: int) -> str:
    """J (RFC 15): the jobspec as it would be signed, with the mechanism ``none``."""
    header = f"version\0i1\0userid\0i{userid}\0mechanism\0snone\0".encode()
    payload = json.dumps(spec, separators=(",", ":"), ensure_ascii=False).encode()
    return ".".join(base64.b64encode(part).decode() for part in (header, payload)) + ".none"


def _scheduler(config: dict[str, Any]) -> Scheduler:
    """The scheduler that is configured. Raises FluxError."""
    try:
        return plugins.scheduler(config.get("sched", {}), config)
    except plugins.PluginError as error:
        raise FluxError(errno.EINVAL, f"configuration: {error}") from None


def _setting(config: dict[str, Any], table: str, key: str, default: Any) -> Any:
    section = config.get(table)
    return section.get(key, default) if isinstance(section, dict) else default


def _seconds(value: Any) -> float:
    return duration.parse(value) if isinstance(value, str) else float(value)
