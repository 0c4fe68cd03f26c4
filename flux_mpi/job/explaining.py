"""Why a job does not run: what it waits for, and when it could start. Pure."""

from __future__ import annotations

from math import inf

from flux_mpi.formats import duration, fluid
from flux_mpi.job.arrays import NO_ROW, JobArray
from flux_mpi.job.manager import Manager
from flux_mpi.job.states import State

COUNTED = 10_000
"""Jobs ahead are counted up to this."""


def job(manager: Manager, jobs: JobArray, k: int, now: float) -> str:
    """A line for each reason why member ``k`` does not run, or what has become of it."""
    state = jobs.state_of(k)
    name = fluid.encode(jobs.id(k))
    if state == State.INACTIVE:
        result = manager.result(jobs, k).name.lower()
        exception = jobs.exception(k)
        note = f" ({exception['type']}: {exception['note']})" if exception else ""
        return f"{name} is inactive: {result}{note}"
    if state & (State.RUN | State.CLEANUP):
        row = jobs.row(k)
        placement = None if row == NO_ROW else manager.store.ledger.placement[row]
        where = placement.summary if placement is not None else "nothing"
        since = duration.format(max(0.0, now - manager.store.ledger.t_alloc[row]))
        doing = "is running" if state == State.RUN else "is ending"
        remark = manager.sched.remark(placement) if placement is not None else ""
        return f"{name} {doing}: for {since} on {where}" + (f"\n{remark}" if remark else "")
    return "\n".join(_waiting(manager, jobs, k, now))


def _waiting(manager: Manager, jobs: JobArray, k: int, now: float) -> list[str]:
    name = fluid.encode(jobs.id(k))
    lines = []
    lane = manager.queue.lane_of(jobs)
    queue = f"queue {lane.name}" if lane.name else "the queue"
    held = not jobs.urgency_of(k)
    if held:
        lines.append(f"{name} is held: its urgency is 0")
    if not lane.serving:
        stopped = lane if not lane.started or lane.parent is None else lane.parent
        why = f": {stopped.stop_reason}" if stopped.stop_reason else ""
        lines.append(f"{queue} is stopped{why}")
    if not lines:
        lines += _ahead(manager, jobs, k, queue)
    lines.append(manager.sched.explain(jobs.shape))
    if held or not lane.serving:
        return lines
    start = manager.queue.expected().get(jobs.id(k))
    if start is not None:
        lines.append(f"by the plan it starts in {_until(start, now)}")
    elif manager.queue.plans:
        outlook = manager.sched.outlook(jobs.shape, now, jobs.duration or inf)
        if outlook:
            lines.append(outlook)
    return lines


def _ahead(manager: Manager, jobs: JobArray, k: int, queue: str) -> list[str]:
    """How many jobs come before, and what that means."""
    lane = manager.queue.lane_of(jobs)
    served = lane.parent or lane
    ahead = 0
    for other, first, n in manager.waiting():
        here = manager.queue.lane_of(other)
        if (here.parent or here) is not served:
            continue
        if other is jobs and first <= k < first + n:
            ahead += k - first
            break
        ahead += n
        if ahead >= COUNTED:
            break
    name = fluid.encode(jobs.id(k))
    if not ahead:
        return [f"{name} is the first of {queue}"]
    count = f"{ahead} job{'s' if ahead > 1 else ''}" if ahead < COUNTED else f"{COUNTED}+ jobs"
    rule = (
        "it starts before them only if that delays none with a reservation"
        if served.policy.depth
        else "none starts before them"
    )
    return [f"{name} has {count} ahead of it in {queue} ({served.policy.name}: {rule})"]


def _until(start: float, now: float) -> str:
    return duration.format(max(0.0, start - now))
