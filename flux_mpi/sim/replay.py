"""A workload log through the real job manager and scheduler, under a clock of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.formats.rv1 import RSet
from flux_mpi.job.ingest import Ingest
from flux_mpi.job.manager import Manager
from flux_mpi.job.queueconfig import parse
from flux_mpi.job.states import Result
from flux_mpi.sched import plugins
from flux_mpi.sim.swf import LoggedJob

SHORT_S = 10.0
"""Jobs shorter than this count as this long in a slowdown, or the shortest would decide it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a log. Seconds; means are over jobs."""

    utilisation: float
    """Of the processors, from the first submission to the last: what a policy leaves to do after
    that says more of the last few jobs than of it."""
    mean_wait: float
    bounded_slowdown: float
    makespan: float
    """From the first submission to the last end."""
    completed: int
    turns: int
    starts: dict[int, float]
    """When each job started, by its number in the log."""

    def no_worse_than(self, other: Outcome) -> bool:
        """On each of the three measures."""
        return (
            self.utilisation >= other.utilisation - 1e-9
            and self.mean_wait <= other.mean_wait + 1e-9
            and self.bounded_slowdown <= other.bounded_slowdown + 1e-9
        )


def replay(
    jobs: Sequence[LoggedJob],
    processors: int,
    config: Mapping[str, Any] | None = None,
    *,
    node_cores: int = 1,
) -> Outcome:
    """Run the jobs on ``processors`` cores in nodes of ``node_cores``, with an instance's
    configuration. Jobs larger than the machine are cut down to it."""
    settings = parse(dict(config or {}))
    scheduler = plugins.scheduler((config or {}).get("sched", {}), config)
    nodes = max(1, processors // node_cores)
    scheduler.update(
        RSet(
            dict.fromkeys(range(nodes), IDSet(range(node_cores))),
            {},
            {rank: f"node{rank}" for rank in range(nodes)},
        )
    )
    manager = Manager(scheduler, queues=settings)
    manager.resources_changed(0.0)
    ingest = Ingest(settings)
    numbers: dict[int, LoggedJob] = {}
    at = turns = 0
    while at < len(jobs) or manager.next_deadline() is not None:
        times = [time for time in (manager.next_deadline(),) if time is not None]
        if at < len(jobs):
            times.append(jobs[at].submit)
        now = min(times)
        while at < len(jobs) and jobs[at].submit <= now:
            job = jobs[at]
            at += 1
            entries, _, _ = ingest.parse({"entries": [_entry(job, nodes * node_cores)]})
            ((first, _),) = manager.submit(entries, now)
            numbers[first] = job
        manager.turn(now)
        turns += 1
        while manager.dirty:
            manager.turn(now)
            turns += 1
        manager.take()
    return _outcome(manager, numbers, nodes * node_cores, turns)


def _entry(job: LoggedJob, processors: int) -> dict[str, Any]:
    spec = Jobspec.from_command(
        ["job"],
        ntasks=min(job.processors, processors),
        duration=job.limit,
        cwd="/",
        environment={},
        attributes={"system.exec.test.run_duration": job.run},
    )
    return {"jobspec": spec.to_dict()}


def _outcome(
    manager: Manager, numbers: Mapping[int, LoggedJob], processors: int, turns: int
) -> Outcome:
    ledger = manager.store.ledger
    work = waits = slowdowns = end = 0.0
    begin = min((job.submit for job in numbers.values()), default=0.0)
    until = max((job.submit for job in numbers.values()), default=0.0)
    starts: dict[int, float] = {}
    for jobid, job in numbers.items():
        jobs, k = manager.find(jobid)
        row = jobs.row(k)
        placement = ledger.placement[row]
        if placement is None:
            continue
        start, finish = ledger.t_start[row], ledger.t_finish[row]
        starts[job.number] = start
        end = max(end, finish)
        work += max(0.0, min(finish, until) - start) * placement.ncores
        wait = start - job.submit
        waits += wait
        slowdowns += max(1.0, (wait + finish - start) / max(finish - start, SHORT_S))
    count = max(1, len(starts))
    return Outcome(
        utilisation=work / (processors * (until - begin)) if until > begin else 0.0,
        mean_wait=waits / count,
        bounded_slowdown=slowdowns / count,
        makespan=end - begin,
        completed=manager.counts.results[Result.COMPLETED],
        turns=turns,
        starts=starts,
    )
