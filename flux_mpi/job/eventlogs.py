"""Event logs, materialised: what the columns and the sparse events of a job say (RFC 18, 21)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from flux_mpi.formats import fluid
from flux_mpi.formats.taskmap import Taskmap
from flux_mpi.job.arrays import ALLOCATED, NO_ROW, NO_STATUS, STARTED, SUBMITTED, JobArray, Ledger
from flux_mpi.sched.placement import Placement

LogEvent = tuple[float, str, dict[str, Any]]
"""(timestamp, name, context); an empty context is left out when written."""

_NONE: dict[str, Any] = {}
RELEASE = {"ranks": "all", "final": True}
PRIORITY_MAX = 4294967295
URGENCY_EXPEDITE = 31


def priority_of(urgency: int) -> int:
    """The priority that an urgency gives: itself, but 31 (expedite) comes before everything."""
    return PRIORITY_MAX if urgency >= URGENCY_EXPEDITE else urgency


def submit_events(jobs: JobArray) -> list[LogEvent]:
    """The four events that every job starts with."""
    t = jobs.t_submit
    context = {
        "userid": jobs.userid,
        "urgency": jobs.urgency,
        "flags": jobs.flags,
        "version": 1,
    }
    return [
        (t, "submit", context),
        (t, "validate", _NONE),
        (t, "depend", _NONE),
        (t, "priority", {"priority": priority_of(jobs.urgency)}),
    ]


def alloc_context(placement: Placement) -> dict[str, Any]:
    """The context of ``alloc`` (RFC 27 annotations)."""
    return {"annotations": {"sched": {"resource_summary": placement.summary}}}


def event_log(jobs: JobArray, k: int, ledger: Ledger) -> list[LogEvent]:
    """All events of member ``k`` so far."""
    log = submit_events(jobs)
    extras = jobs.extra_events(k) if jobs.extras or jobs.ranges else []
    log += [event[2:] for event in extras if event[1] == SUBMITTED]
    row = jobs.row(k)
    if row == NO_ROW:
        return log
    placement = ledger.placement[row]
    if placement is not None:
        log.append((ledger.t_alloc[row], "alloc", alloc_context(placement)))
        log += [event[2:] for event in extras if event[1] == ALLOCATED]
        if ledger.t_start[row]:
            log.append((ledger.t_start[row], "start", _NONE))
        log += [event[2:] for event in extras if event[1] == STARTED]
    t_end = ledger.t_end[row]
    if t_end:
        if ledger.status[row] != NO_STATUS:
            log.append((ledger.t_finish[row], "finish", {"status": ledger.status[row]}))
        if placement is not None:
            t_free = ledger.t_finish[row] if ledger.handed_on[row] else t_end
            log.append((t_free, "release", RELEASE))
            log.append((t_free, "free", _NONE))
        log.append((t_end, "clean", _NONE))
    return log


def exec_event_log(jobs: JobArray, k: int, ledger: Ledger) -> list[LogEvent]:
    """``guest.exec.eventlog``: what the execution of member ``k`` went through so far."""
    row = jobs.row(k)
    placement = None if row == NO_ROW else ledger.placement[row]
    if placement is None:
        return []
    t_alloc, t_start, t_end = ledger.t_alloc[row], ledger.t_start[row], ledger.t_end[row]
    log: list[LogEvent] = [(t_alloc, "init", _NONE), (t_alloc, "starting", _NONE)]
    if t_start and jobs.mock is None:
        jobid = fluid.encode(jobs.id(k), "f58plain")
        leader = placement.parts[0].rank
        log.append(
            (
                t_start,
                "shell.init",
                {
                    "service": f"{jobs.userid}-shell-{jobid}",
                    "leader-rank": leader,
                    "size": placement.nnodes,
                },
            )
        )
        taskmap = Taskmap.from_counts(tasks_per_node(jobs, placement))
        log.append((t_start, "shell.start", {"taskmap": taskmap.to_dict()}))
    if t_end and ledger.status[row] != NO_STATUS:
        t_finish = ledger.t_finish[row]
        locals_of = _local_ids(jobs, placement)
        for rank, pid, status in ledger.exits.get(row, ()):
            log.append((t_finish, "shell.task-exit", _task_exit(rank, locals_of, pid, status)))
        log.append((t_finish, "complete", {"status": ledger.status[row]}))
        log.append((t_end, "done", _NONE))
    return log


def _local_ids(jobs: JobArray, placement: Placement) -> list[int]:
    return [local for count in tasks_per_node(jobs, placement) for local in range(count)]


def _task_exit(rank: int, locals_of: list[int], pid: int, status: int) -> dict[str, Any]:
    signaled = status & 0x7F
    return {
        "localid": locals_of[rank] if 0 <= rank < len(locals_of) else 0,
        "rank": rank,
        "state": "Exited",
        "pid": pid,
        "wait_status": status,
        "signaled": signaled,
        "exitcode": 128 + signaled if signaled else status >> 8,
    }


def tasks_per_node(jobs: JobArray, placement: Placement) -> list[int]:
    """How many tasks each part of a placement runs, in its order.

    Tasks follow slots; a total that does not divide goes to the nodes as evenly as can be, the
    first ones getting the rest, as Flux's shells do; per-resource counts follow the allocation.
    """
    shape = jobs.shape
    parts = placement.parts
    per = jobs.jobspec.options.get("per-resource")
    if isinstance(per, dict):
        count = int(per.get("count", 1))
        if per.get("type") == "core":
            return [count * part.cores.bit_count() for part in parts]
        return [count] * len(parts)
    if shape.graph:
        return _tasks_of_graph(jobs, placement)
    if len(parts) == 1:
        return [shape.ntasks]
    if shape.ntasks == shape.nslots and sum(part.slots for part in parts) == shape.nslots:
        return [part.slots for part in parts]
    each, rest = divmod(shape.ntasks, len(parts))
    return [each + (i < rest) for i in range(len(parts))]


def _tasks_of_graph(jobs: JobArray, placement: Placement) -> list[int]:
    """Tasks on each part when how many slots there are is only known by what was allocated."""
    parts = placement.parts
    count = jobs.jobspec.tasks[0]["count"]
    if "per_slot" in count:
        return [part.slots * int(count["per_slot"]) for part in parts]
    if "per_resource" in count:
        each = int(count["per_resource"]["count"])
        if count["per_resource"]["type"] == "node":
            return [each] * len(parts)
        gpus = count["per_resource"]["type"] == "gpu"
        return [each * (part.gpus if gpus else part.cores).bit_count() for part in parts]
    each, rest = divmod(int(count["total"]), len(parts))
    return [each + (i < rest) for i in range(len(parts))]


def as_dict(event: LogEvent) -> dict[str, Any]:
    """An event as RFC 18 has it: without a context when that is empty."""
    timestamp, name, context = event
    if context:
        return {"timestamp": timestamp, "name": name, "context": context}
    return {"timestamp": timestamp, "name": name}


def as_text(events: Iterable[LogEvent]) -> str:
    """RFC 18 text: one JSON object a line."""
    return "".join(
        json.dumps(as_dict(event), separators=(",", ":"), ensure_ascii=False) + "\n"
        for event in events
    )
