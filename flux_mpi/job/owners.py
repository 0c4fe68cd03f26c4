"""Which job has which placement or reservation, for what tells people about resources. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from flux_mpi.formats import fluid
from flux_mpi.job.manager import Manager
from flux_mpi.job.states import State
from flux_mpi.sched.base import Reservation
from flux_mpi.sched.placement import Placement


def running(manager: Manager) -> Iterator[tuple[Placement, str]]:
    """What runs where, with the job's id."""
    for each in manager.exec.running.values():
        yield each.placement, fluid.encode(each.id)
    placements = manager.store.ledger.placement
    for batch in manager.mocks.values():
        for i in range(batch.count):
            placement = placements[batch.row + i]
            if placement is not None and batch.jobs.state_of(batch.k + i) == State.RUN:
                yield placement, fluid.encode(batch.jobs.id(batch.k + i))


def reserved(manager: Manager) -> Iterator[tuple[Reservation, str]]:
    """What is reserved for which job, as of the last cycle."""
    for lane in manager.queue.lanes.values():
        for each in lane.policy.reserved:
            jobs, k = each.run.ticket
            yield each.reservation, fluid.encode(jobs.id(k + each.k))
