"""Lists of jobs with Flux's attribute names: a snapshot of rows, made into records when sent."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any

from flux_mpi.formats import fluid, templates
from flux_mpi.formats.idset import IDSet
from flux_mpi.job.arrays import NO_ROW, NO_STATUS, JobArray
from flux_mpi.job.eventlogs import alloc_context, priority_of, tasks_per_node
from flux_mpi.job.ingest import MAX_COUNT
from flux_mpi.job.manager import Manager
from flux_mpi.job.states import ACTIVE, PENDING, RUNNING, Result, State
from flux_mpi.message.errors import ServiceError
from flux_mpi.sched.placement import Placement

ATTRIBUTES = (
    "userid",
    "urgency",
    "priority",
    "t_submit",
    "t_depend",
    "t_priority",
    "t_sched",
    "t_run",
    "t_cleanup",
    "t_inactive",
    "state",
    "name",
    "cwd",
    "queue",
    "project",
    "bank",
    "ntasks",
    "ncores",
    "ngpus",
    "duration",
    "nnodes",
    "ranks",
    "nodelist",
    "success",
    "exception_occurred",
    "exception_type",
    "exception_severity",
    "exception_note",
    "result",
    "expiration",
    "annotations",
    "waitstatus",
    "dependencies",
)
"""What ``attrs`` may name, besides ``all``."""

ALL_STATES = int(ACTIVE | State.INACTIVE)
ANY_USER = 0xFFFFFFFF
_FROM_ARRAY = frozenset(
    {"userid", "t_submit", "t_depend", "t_priority", "t_sched", "cwd", "queue", "project", "bank"}
    | {"ntasks", "duration", "name"}
)


@dataclass(slots=True)
class Query:
    """A parsed ``job-list.list`` request."""

    max_entries: int = 0
    states: int = ALL_STATES
    results: int = 0
    userid: int | None = None
    name: str | None = None
    queue: str | None = None
    since: float = 0.0
    ids: list[int] | None = None
    ranks: int = 0
    attrs: frozenset[str] = field(default_factory=lambda: frozenset(ATTRIBUTES))

    @classmethod
    def parse(cls, payload: Any) -> Query:
        """Raises ServiceError naming the field."""
        payload = {} if payload is None else payload
        if not isinstance(payload, dict):
            raise ServiceError(errno.EPROTO, "job-list.list: expected an object")
        query = cls()
        query.max_entries = _number(payload, "max_entries", 0)
        query.states = _number(payload, "states", 0) or ALL_STATES
        query.results = _number(payload, "results", 0)
        userid = _number(payload, "userid", -1)
        query.userid = None if userid in (-1, ANY_USER) else userid
        for key in ("name", "queue"):
            value = payload.get(key)
            if value is not None and not isinstance(value, str):
                raise ServiceError(errno.EPROTO, f"{key}: expected a string, found {value!r}")
            setattr(query, key, value)
        since = payload.get("since") or 0.0
        if not isinstance(since, (int, float)):
            raise ServiceError(errno.EPROTO, f"since: expected Unix seconds, found {since!r}")
        query.since = float(since)
        if payload.get("ids") is not None:
            query.ids = list(_expand_ids(payload["ids"]))
        if payload.get("ranks") is not None:
            try:
                query.ranks = IDSet.parse(payload["ranks"]).mask
            except ValueError as error:
                raise ServiceError(errno.EINVAL, f"ranks: {error}") from None
        attrs = payload.get("attrs")
        if attrs is not None:
            if not isinstance(attrs, list):
                raise ServiceError(errno.EPROTO, f"attrs: expected a list, found {attrs!r}")
            if "all" not in attrs:
                for name in attrs:
                    if name not in ATTRIBUTES and name != "id":
                        raise ServiceError(errno.EINVAL, f"{name} is not a valid attribute")
                query.attrs = frozenset(attrs)
        return query


def _number(payload: dict[str, Any], key: str, default: int) -> int:
    value = payload.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise ServiceError(errno.EPROTO, f"{key}: expected a number, found {value!r}")
    return value


def _expand_ids(ids: Any) -> Iterator[int]:
    """Ids, and [first, count] pairs."""
    if not isinstance(ids, list):
        raise ServiceError(errno.EPROTO, f"ids: expected a list, found {ids!r}")
    for item in ids:
        if isinstance(item, int):
            yield item
        elif (
            isinstance(item, list)
            and len(item) == 2
            and all(isinstance(number, int) for number in item)
            and item[1] <= MAX_COUNT
        ):
            for k in range(item[1]):
                yield fluid.nth(item[0], k)
        else:
            raise ServiceError(errno.EPROTO, f"ids: expected a job id, found {item!r}"[:200])


Member = tuple[JobArray, int]


class Listing:
    """One list under way: `chunk` makes the next records, until it returns none.

    Pending jobs come first, in the order of the queue, then running ones and then inactive ones,
    newest first. Which jobs are listed is settled when the list is made; what is said about
    each, when its record is.
    """

    def __init__(self, manager: Manager, query: Query) -> None:
        self._manager = manager
        self._query = query
        self._left = query.max_entries or -1
        self._record = record_maker(manager, query.attrs)
        self._queues = manager.queue.names_of(query.queue)
        self.unknown: list[int] = []
        """Ids asked for that are no jobs."""
        if query.ids is not None:
            members = []
            for jobid in query.ids:
                found = manager.store.find(jobid)
                if found is None:
                    self.unknown.append(jobid)
                else:
                    members.append(found)
            self._members: Iterator[Member] = iter(members)
        else:
            self._members = self._select()

    def chunk(self, size: int) -> list[dict[str, Any]]:
        """Up to ``size`` records."""
        records: list[dict[str, Any]] = []
        matches = self._matches
        for jobs, k in self._members:
            if not matches(jobs, k):
                continue
            records.append(self._record(jobs, k))
            self._left -= 1
            if self._left == 0:
                self._members = iter(())
                break
            if len(records) == size:
                break
        return records

    def _select(self) -> Iterator[Member]:
        """The members in question. Takes its snapshot now, and yields from it later."""
        states = self._query.states
        store = self._manager.store
        ledger = store.ledger
        runs = list(self._manager.waiting()) if states & PENDING else []
        rows: list[int] = []
        if states & RUNNING:
            rows = sorted(
                [running.row for running in self._manager.exec.running.values()]
                + [
                    batch.row + i
                    for batch in self._manager.mocks.values()
                    for i in range(batch.count)
                ],
                reverse=True,
            )
        ended = len(ledger.inactive) if states & State.INACTIVE else 0
        since = self._query.since

        def members() -> Iterator[Member]:
            for jobs, k, n in runs:
                for m in range(k, k + n):
                    yield jobs, m
            for row in rows:
                yield store.at_row(row)
            for i in range(ended - 1, -1, -1):
                row = ledger.inactive[i]
                if since and ledger.t_end[row] <= since:
                    return
                yield store.at_row(row)

        return members()

    def _matches(self, jobs: JobArray, k: int) -> bool:
        query = self._query
        if query.userid is not None and jobs.userid != query.userid:
            return False
        if self._queues is not None and jobs.jobspec.queue not in self._queues:
            return False
        code = jobs.state[k] & 127
        if query.ids is None and not code & query.states:
            return False
        if (
            query.results
            and code == State.INACTIVE
            and not self._manager.result(jobs, k) & query.results
        ):
            return False
        if query.ranks:
            row = jobs.row(k)
            placement = None if row == NO_ROW else self._manager.store.ledger.placement[row]
            if placement is None or not placement.ranks_mask & query.ranks:
                return False
        return query.name is None or job_name(jobs, k) == query.name


def job_name(jobs: JobArray, k: int) -> str:
    """The name of one member, its parameters filled in."""
    name = jobs.jobspec.name
    return expand(name, jobs, k) if jobs.params and "{" in name else name


def expand(obj: Any, jobs: JobArray, k: int) -> Any:
    """``obj`` with the template tags of member ``k`` filled in, in every string of it."""
    params = jobs.params
    if not params:
        return obj
    if "cc" in params:
        return templates.expand(obj, cc=IDSet.parse(params["cc"]).nth(k), seq=k, nseq=jobs.count)
    return templates.expand(obj, row=params["rows"][k], seq=k, nseq=jobs.count)


def record_maker(
    manager: Manager, attrs: frozenset[str]
) -> Callable[[JobArray, int], dict[str, Any]]:
    """A function (array, member) → record with ``id`` and those of ``attrs`` that are known."""
    ledger = manager.store.ledger
    shared = attrs & _FROM_ARRAY
    bases: dict[int, dict[str, Any]] = {}
    places: dict[int, dict[str, Any]] = {}
    times = {"t_run", "t_cleanup", "t_inactive"} & attrs
    exceptional = {
        "success",
        "result",
        "exception_occurred",
        "exception_type",
        "exception_severity",
        "exception_note",
    } & attrs
    expected = manager.queue.expected() if "annotations" in attrs else {}
    placed = {"nnodes", "ncores", "ngpus", "ranks", "nodelist", "annotations", "expiration"} & attrs

    def record(jobs: JobArray, k: int) -> dict[str, Any]:
        base = bases.get(jobs.index)
        if base is None:
            base = bases[jobs.index] = {
                key: value for key, value in _base(jobs).items() if key in shared
            }
        out = base.copy()
        code = jobs.state[k] & 127
        row = jobs.row(k)
        out["id"] = jobs.id(k)
        if "state" in attrs:
            out["state"] = code
        if "name" in attrs and "name" not in out:
            out["name"] = job_name(jobs, k)
        if "urgency" in attrs:
            out["urgency"] = jobs.urgency_of(k)
        if "priority" in attrs:
            out["priority"] = priority_of(jobs.urgency_of(k))
        if "dependencies" in attrs:
            out["dependencies"] = []
        if "cwd" in out and jobs.params and "{" in out["cwd"]:
            out["cwd"] = expand(out["cwd"], jobs, k)
        placement = None if row == NO_ROW else ledger.placement[row]
        if placed:
            if placement is None:
                if "nnodes" in attrs and jobs.shape.nnodes:
                    out["nnodes"] = jobs.shape.nnodes
                if "ncores" in attrs:
                    out["ncores"] = jobs.shape.ncores
                if "ngpus" in attrs and jobs.shape.ngpus:
                    out["ngpus"] = jobs.shape.ngpus
                if row == NO_ROW and out["id"] in expected:
                    out["annotations"] = {"sched": {"t_estimate": expected[out["id"]]}}
            else:
                facts = places.get(id(placement))
                if facts is None:
                    facts = places[id(placement)] = _place(placement, attrs)
                out.update(facts)
                if jobs.shape.graph and "ntasks" in attrs:
                    out["ntasks"] = sum(tasks_per_node(jobs, placement))
                if "expiration" in attrs:
                    out["expiration"] = expiration(manager, jobs, ledger.t_alloc[row])
            if jobs.memos is not None and k in jobs.memos and "annotations" in attrs:
                out["annotations"] = {**out.get("annotations", {}), "user": jobs.memos[k]}
        if row == NO_ROW:
            return out
        t_end = ledger.t_end[row]
        exception = jobs.exception(k) if jobs.extras or jobs.ranges else None
        if times:
            if placement is not None and "t_run" in attrs:
                out["t_run"] = ledger.t_alloc[row]
            if "t_cleanup" in attrs and code & (State.CLEANUP | State.INACTIVE):
                out["t_cleanup"] = _t_cleanup(jobs, k, ledger.t_finish[row])
            if t_end and "t_inactive" in attrs:
                out["t_inactive"] = t_end
        if t_end:
            if "waitstatus" in attrs and ledger.status[row] != NO_STATUS:
                out["waitstatus"] = ledger.status[row]
            if exceptional:
                result = manager.result(jobs, k)
                if "success" in attrs:
                    out["success"] = result is Result.COMPLETED
                if "result" in attrs:
                    out["result"] = int(result)
                if "exception_occurred" in attrs:
                    out["exception_occurred"] = exception is not None
                if exception is not None:
                    for key in ("type", "severity", "note"):
                        if f"exception_{key}" in attrs:
                            out[f"exception_{key}"] = exception[key]
        return out

    return record


def _place(placement: Placement, attrs: frozenset[str]) -> dict[str, Any]:
    """What a placement has to say to the attributes asked for."""
    facts: dict[str, Any] = {
        "nnodes": placement.nnodes,
        "ncores": placement.ncores,
        "ranks": placement.ranks,
        "nodelist": placement.nodelist,
        "annotations": alloc_context(placement)["annotations"],
    }
    if placement.ngpus:
        facts["ngpus"] = placement.ngpus
    return {key: value for key, value in facts.items() if key in attrs}


def _base(jobs: JobArray) -> dict[str, Any]:
    """The attributes that an array's members have in common."""
    if jobs.listing is None:
        system = jobs.jobspec.system
        t = jobs.t_submit
        base: dict[str, Any] = {
            "userid": jobs.userid,
            "t_submit": t,
            "t_depend": t,
            "t_priority": t,
            "t_sched": t,
            "ntasks": jobs.shape.ntasks,
            "duration": jobs.duration,
        }
        if not jobs.params:
            base["name"] = jobs.jobspec.name
        for key in ("cwd", "queue", "project", "bank"):
            if isinstance(system.get(key), str):
                base[key] = system[key]
        jobs.listing = base
    return jobs.listing


def expiration(manager: Manager, jobs: JobArray, t_alloc: float) -> float:
    """When a job that was allocated then must end, with its instance at the latest; 0: no limit."""
    end = min(t_alloc + jobs.duration if jobs.duration else inf, manager.expiration)
    return 0.0 if end == inf else end


def _t_cleanup(jobs: JobArray, k: int, t_finish: float) -> float:
    """When a job left RUN (or the queue): at its fatal exception, or when it finished."""
    for _, _, time, name, context in jobs.extra_events(k) if jobs.extras or jobs.ranges else ():
        if name == "exception" and context["severity"] == 0:
            return time
    return t_finish


def stats(manager: Manager) -> dict[str, Any]:
    """The answer to ``job-manager.stats`` and ``job-list.stats``."""
    states = manager.counts.states
    results = manager.counts.results
    job_states = {state.name.lower(): states[state] for state in State if state is not State.NEW}
    job_states["total"] = sum(job_states.values())
    return {
        "job_states": job_states,
        "successful": results[Result.COMPLETED],
        "failed": results[Result.FAILED],
        "canceled": results[Result.CANCELED],
        "timeout": results[Result.TIMEOUT],
        "inactive_purged": 0,
        "active_jobs": manager.counts.active,
        "inactive_jobs": states[State.INACTIVE],
        "queues": [],
    }
