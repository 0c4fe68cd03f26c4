"""Dispatch: placements become tasks for ranks, and the ranks' reports become starts and ends.

Pure bookkeeping of what really runs; the manager decides what a start or an end means.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flux_mpi.job.arrays import NO_ROW, JobArray
from flux_mpi.job.eventlogs import tasks_per_node
from flux_mpi.sched.placement import Placement

NOT_FOUND, NOT_EXECUTABLE = 127, 126
SIGKILL = 9


@dataclass(slots=True)
class ExecStart:
    """The tasks that one rank is to start, and the specifications it has not got yet."""

    specs: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: list[list[Any]] = field(default_factory=list)
    leases: list[list[Any]] = field(default_factory=list)
    """[id of the job that it follows, as in ``jobs``] of each that is only leased."""


@dataclass(slots=True)
class Running:
    """A job with tasks: which of its nodes (bits by the job's own node number) are still due."""

    id: int
    jobs: JobArray
    k: int
    row: int
    placement: Placement
    starting: int
    pending: int
    started: bool = False
    began: float = 0.0
    took: float = 0.0
    """When its last node started, by that one's clock, and how long it then ran, by the same clock
    if there is but one node."""
    status: int = 0
    exits: list[list[int]] = field(default_factory=list)
    failure: int = 0
    """Status of a task that could not be started: it explains the job better than the signals
    that its other tasks were then ended with."""
    kills: int = 0
    """How often it was killed with SIGKILL."""

    def pending_ranks(self) -> list[int]:
        """The ranks that still have tasks of it."""
        return [
            part.rank for node, part in enumerate(self.placement.parts) if self.pending >> node & 1
        ]


class Outcome(NamedTuple):
    """What a report means for a job: ``started``, ``failed`` (with a note) or ``ended``; ``memo``:
    what an instance that runs as this job has to say; for one on
    lease before all others ``begun``, or only ``returned``."""

    kind: str
    running: Running
    time: float
    note: str = ""
    memo: dict[str, Any] | None = None


class ExecRoot:
    """The root's side of execution."""

    def __init__(self) -> None:
        self.running: dict[int, Running] = {}
        self.leased: dict[int, Running] = {}
        """Jobs on lease: running as soon as their rank says so, with a ledger row only then."""
        self._starts: dict[int, ExecStart] = {}
        self._kills: list[tuple[int, int, int]] = []
        self._forgets: dict[int, list[int]] = {}

    # -- to the ranks ---------------------------------------------------------------------------

    def dispatch(
        self,
        jobs: JobArray,
        k: int,
        row: int,
        placements: Iterable[Placement],
        expiration: float = 0.0,
    ) -> None:
        """Start members ``k``… with these placements; their ledger rows begin at ``row``.

        Jobs that are instances are told ``expiration``, when they are ended (0 = never).
        """
        key = jobs.first
        starts = self._starts
        nested = jobs.jobspec.is_instance
        plain = not jobs.shape.graph and "per-resource" not in jobs.jobspec.options
        for placement in placements:
            jobid = jobs.id(k)
            parts = placement.parts
            nnodes = len(parts)
            every = (1 << nnodes) - 1
            if plain and nnodes == 1:
                size = jobs.shape.ntasks
                counts = [size]
            else:
                # An instance has one broker on each of its ranks, whatever its slots are.
                counts = [1] * nnodes if nested else tasks_per_node(jobs, placement)
                size = sum(counts)
                if 0 in counts:  # nobody there has anything to report
                    every = sum(1 << node for node, count in enumerate(counts) if count)
            self.running[jobid] = Running(jobid, jobs, k, row, placement, every, every)
            first = 0
            for node, (part, (cores, gpus)) in enumerate(zip(parts, placement.id_texts)):
                ntasks = counts[node]
                if not ntasks:
                    continue
                start = starts.get(part.rank)
                if start is None or not jobs.sent_to >> part.rank & 1:
                    start = self._start_on(part.rank, jobs)
                entry = [jobid, key, k, node, first, ntasks, cores, gpus, nnodes, size]
                if nested:
                    more: dict[str, Any] = {
                        "ranks": [other.rank for other in parts],
                        "expiration": expiration,
                    }
                    if placement.scheduling and not node:
                        more["graph"] = placement.subgraph()
                    entry.append(more)
                start.jobs.append(entry)
                first += ntasks
            k += 1
            row += 1

    def lease(self, jobs: JobArray, k: int, jobid: int, placement: Placement, after: int) -> None:
        """Have member ``k``, of one task on one node, start there when job ``after`` has ended."""
        self.leased[jobid] = Running(jobid, jobs, k, NO_ROW, placement, 1, 1)
        cores, gpus = placement.id_texts[0]
        start = self._start_on(placement.parts[0].rank, jobs)
        start.leases.append([after, [jobid, jobs.first, k, 0, 0, 1, cores, gpus, 1, 1]])

    def _start_on(self, rank: int, jobs: JobArray) -> ExecStart:
        """What ``rank`` is to start, with this array's specification if it has not got that."""
        start = self._starts.get(rank)
        if start is None:
            start = self._starts[rank] = ExecStart()
        if not jobs.sent_to >> rank & 1:
            jobs.sent_to |= 1 << rank
            start.specs[jobs.first] = task_spec(jobs)
        return start

    def kill(self, running: Running, signum: int) -> None:
        """Signal the tasks of a job wherever it still has some."""
        for rank in running.pending_ranks():
            self._kills.append((rank, running.id, signum))

    def forget(self, jobs: JobArray) -> None:
        """No member of this array will run again: ranks may drop its specification."""
        mask, rank = jobs.sent_to, 0
        while mask:
            if mask & 1:
                self._forgets.setdefault(rank, []).append(jobs.first)
            mask >>= 1
            rank += 1
        jobs.sent_to = 0

    def take(
        self,
    ) -> tuple[dict[int, ExecStart], list[tuple[int, int, int]], dict[int, list[int]]]:
        """What is to be sent since the last call: starts, kills (rank, id, signal), forgets."""
        out = self._starts, self._kills, self._forgets
        self._starts, self._kills, self._forgets = {}, [], {}
        return out

    # -- from the ranks -------------------------------------------------------------------------

    def report(self, events: Iterable[list[Any]]) -> list[Outcome]:
        """What these reports complete, in order. Reports of unknown jobs or nodes are ignored:
        they are of jobs given up on. Raises ValueError when one is malformed."""
        outcomes: list[Outcome] = []
        for event in events:
            try:
                jobid, kind, time, node = event[0], event[1], float(event[2]), event[3]
            except (IndexError, TypeError, ValueError):
                raise ValueError(f"job-exec.report: malformed event {event!r}") from None
            running = self.running.get(jobid)
            if running is None and jobid in self.leased:
                running = self._leased(jobid, kind, time, outcomes)
            if running is None or not 0 <= node < len(running.placement.parts):
                continue
            bit = 1 << node
            if not running.pending & bit:
                continue
            if kind == "start":
                running.starting &= ~bit
                running.began = time
            elif kind == "exit":
                running.starting &= ~bit
                running.pending &= ~bit
                status = running.status
                for exited in event[4]:
                    code = shell_status(exited[2])
                    if code > status:
                        status = code
                running.status = status
                running.exits += event[4]
            elif kind == "memo":
                outcomes.append(Outcome("memo", running, time, memo=event[4]))
                continue
            elif kind == "error":
                running.starting &= ~bit
                running.pending &= ~bit
                code = NOT_FOUND if event[4] == errno.ENOENT else NOT_EXECUTABLE
                running.failure = running.failure or code << 8
                running.starting = 0
                outcomes.append(Outcome("failed", running, time, str(event[5])))
            else:
                raise ValueError(f"job-exec.report: unknown kind of event {kind!r}")
            if not running.starting and not running.started:
                running.started = True
                if kind != "error":
                    outcomes.append(Outcome("started", running, time))
            if not running.pending:
                running.took = max(0.0, time - (running.began or time))
                del self.running[jobid]
                outcomes.append(Outcome("ended", running, time))
        return outcomes

    def _leased(
        self, jobid: int, kind: str, time: float, outcomes: list[Outcome]
    ) -> Running | None:
        """The first report of a job on lease: it runs now, or was given back."""
        if kind not in ("start", "exit", "error", "returned"):
            return None
        running = self.leased.pop(jobid)
        if kind == "returned":
            outcomes.append(Outcome("returned", running, time))
            return None
        self.running[jobid] = running
        outcomes.append(Outcome("begun", running, time))
        return running

    def lost(self, ranks: int) -> list[tuple[Running, int]]:
        """The jobs with tasks on these ranks (a bitmask), each with one such rank; their tasks
        there count as killed. The caller ends those that have none left (``gone``)."""
        hit = []
        for running in self.running.values():
            if not running.placement.ranks_mask & ranks:
                continue
            where = -1
            for node, part in enumerate(running.placement.parts):
                if running.pending >> node & 1 and ranks >> part.rank & 1:
                    running.pending &= ~(1 << node)
                    running.starting &= ~(1 << node)
                    where = part.rank
            if where >= 0:
                running.status = max(running.status, (128 + SIGKILL) << 8)
                hit.append((running, where))
        return hit

    def gone(self, running: Running) -> bool:
        """Whether no tasks are left; it is then dropped."""
        if running.pending:
            return False
        self.running.pop(running.id, None)
        return True


def shell_status(wait_status: int) -> int:
    """A task's wait status as the job shell exits with: a signal n becomes exit code 128 + n."""
    signum = wait_status & 0x7F
    return (128 + signum) << 8 if signum else wait_status


def task_spec(jobs: JobArray) -> dict[str, Any]:
    """What a rank needs to run members of an array, templates unexpanded."""
    spec = jobs.jobspec
    more: dict[str, Any] = {}
    if spec.is_instance:
        more["instance"] = True
    if spec.files:
        more["files"] = spec.files
    return {
        **more,
        "command": spec.command,
        "env": spec.environment,
        "cwd": spec.cwd,
        "options": spec.options,
        "params": jobs.params,
        "job_name": spec.name,
    }
