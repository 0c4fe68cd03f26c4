"""A level between: members are spread over child instances, each a job of this one.

A child instance introduces itself (`Branch.join`) with the token that its job was started with,
is told what the ensemble is, says when it is ready, and gets members as the distributor wants.
Two things tell that a child is gone: its stream ends, or its job does, whichever comes first.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flux_mpi.ensemble.distributor import (
    Distributor,
    Finished,
    Give,
    Return,
    Stranded,
    TakeBack,
)
from flux_mpi.ensemble.levels import (
    MAX_RECORDS,
    add_levels,
    check_levels,
    check_records,
    level,
)
from flux_mpi.ensemble.shape import Machine, Part, capacity, divide
from flux_mpi.ensemble.spec import Spec
from flux_mpi.ensemble.tally import Tally, exit_code
from flux_mpi.ensemble.world import ERR, INFO, WARNING, Answer, Cancelable, Owner, Stream, World
from flux_mpi.formats import fluid
from flux_mpi.formats.idset import IDSet

STOP_S = 10.0
"""Child instances get so long to end by themselves, and as long again after a cancel."""

PENDING, JOINED, READY, ENDING, LOST, GONE = "pending", "joined", "ready", "ending", "lost", "gone"
"""A child's job is submitted; it has introduced itself; it runs members; it has said its last; its
stream has ended before that; its job has ended."""


@dataclass(slots=True, eq=False)
class Child:
    """The place of one child instance; several may hold it one after the other."""

    index: int
    part: Part
    name: str
    token: str = ""
    jobid: int = 0
    state: str = PENDING
    stream: Stream | None = None
    wished: float = 0.0
    begun: float = 0.0
    """When it was ready first."""
    heard: float = 0.0
    jobs: int = 0
    replaced: int = 0
    nnodes: int = 0
    ncores: int = 0
    ngpus: int = 0
    why: str = ""
    levels: list[dict[str, Any]] = field(default_factory=list)


Tokens = dict[str, tuple["Branch", Child]]


class Branch:
    """Runs members by child instances. ``tokens`` is where the service finds whose a token is."""

    def __init__(
        self, world: World, spec: Spec, owner: Owner, machine: Machine, tokens: Tokens
    ) -> None:
        self._world = world
        self._spec = spec
        self._owner = owner
        self._machine = machine
        self._tokens = tokens
        self._capacity = capacity(spec.shape, machine)
        parts = divide(machine, spec.topology[0])
        self.children = [
            Child(index, part, f"{spec.name}.{index + 1}") for index, part in enumerate(parts)
        ]
        self._by_job: dict[int, Child] = {}
        self.distributor = Distributor(
            retries=spec.retries,
            expected=spec.expected,
            capacity=self._capacity,
            depth=len(spec.topology) - 1,
        )
        self._level = level()
        self._below: list[dict[str, Any]] = []
        self._records: list[list[Any]] = []
        self._ready = False
        self._canceled = ""
        self._why = ""
        """What became of the child that was lost last."""
        self._stopped: Callable[[], object] | None = None
        self._timer: Cancelable | None = None

    # -- what a body offers ---------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def left(self) -> int:
        return self.distributor.outstanding

    @property
    def running(self) -> int:
        return self.distributor.running

    @property
    def unstarted(self) -> int:
        return self.distributor.unstarted

    @property
    def workers(self) -> int:
        """Children that run members."""
        return len(self.distributor.workers)

    def start(self) -> None:
        """Submit the children's jobs."""
        self.distributor.expect(len(self.children), self._now())
        self._submit(self.children)

    def give(self, members: IDSet) -> None:
        """Members to run."""
        self.distributor.add(members, self._now())
        self._carry_out()

    def seal(self) -> None:
        """All members have been given."""
        self.distributor.seal(self._now())
        self._carry_out()

    def take_back(self, count: int) -> None:
        """Return members that nobody below has begun."""
        self.distributor.take_back(count, self._now())
        self._carry_out()

    def take_report(self) -> tuple[IDSet, Tally]:
        """The members that ended since the last call, and how."""
        return self.distributor.take_report()

    def take_tally(self) -> Tally:
        """How members ended, where nobody asks which these were."""
        return self.distributor.take_report()[1]

    def cancel(self, why: str) -> None:
        """End the children with all they run."""
        self._canceled = why or "the ensemble was canceled"
        self.distributor.cancel(self._canceled, self._now())
        self._carry_out()
        self._cancel_jobs(self._canceled)
        self._owner.changed()

    def give_up(self, why: str) -> None:
        """No child is left: members that wait never run."""
        self.distributor.give_up(why, self._now())
        self._carry_out()

    def stop(self, done: Callable[[], object]) -> None:
        """Tell the children to end, and call back when their jobs have."""
        self._stopped = done
        pending = []
        for child in self.children:
            if child.stream is not None and child.state in (JOINED, READY):
                self._level["messages"] += 1
                child.stream.respond({"stop": True})
            elif child.jobid in self._by_job:
                pending.append(child)
        self._cancel_jobs("the ensemble has ended", pending)
        self._timer = self._world.reactor.call_later(STOP_S, self._stop_late)
        self._check_stopped()

    def levels(self) -> list[dict[str, Any]]:
        self._level["chunks"] = self.distributor.chunks
        self._level["moved"] = self.distributor.moved
        mine = level(rerun=self.distributor.rerun)
        return [mine, self._level, *self._below[1:]]

    def records(self) -> list[list[Any]]:
        return self._records

    # -- children's jobs ------------------------------------------------------------------------

    def _now(self) -> float:
        return self._world.reactor.monotonic()

    def _jobspec(self, child: Child) -> dict[str, Any]:
        """The job that becomes a child instance."""
        system = self._spec.jobspec["attributes"]["system"]
        environment = dict(system.get("environment") or {})
        environment.pop("FLUX_JOB_CC", None)  # a tag, which is for members
        command = ["flux-mpi", "broker", f"--ensemble={child.token}"]
        attributes: dict[str, Any] = {}
        conf = self._spec.conf[0] if self._spec.conf else {}
        if conf:
            command.append("-c{{tmpdir}}/conf.json")
            attributes["files"] = {"conf.json": {"mode": 0o100600, "data": conf}}
        jobspec = child.part.jobspec(
            command,
            environment=environment,
            cwd=system.get("cwd"),
            name=child.name,
            queue=system.get("queue"),
            constraints=system.get("constraints"),
        )
        jobspec["attributes"]["system"].update(attributes)
        return jobspec

    def _submit(self, children: list[Child]) -> None:
        entries = []
        for child in children:
            child.token = secrets.token_hex(8)
            child.state = PENDING
            child.wished = self._now()
            child.begun = 0.0
            child.jobs = 0
            child.why = ""
            self._tokens[child.token] = (self, child)
            entries.append({"jobspec": self._jobspec(child)})

        def submitted(answer: Answer) -> None:
            if answer.errnum:
                for child in children:
                    self._retire(child)
                self._why = f"child instances cannot be submitted: {answer.text}"
                self._expect()
                return
            arrays = answer.payload["arrays"]
            ids = [fluid.nth(first, k) for first, count in arrays for k in range(count)]
            for child, jobid in zip(children, ids, strict=True):
                child.jobid = jobid
                self._by_job[jobid] = child
            self._world.rpc(
                "job-manager.wait-all",
                {"ids": arrays},
                self._jobs_ended,
                streaming=True,
            )
            if self._canceled or self._stopped is not None:
                self._cancel_jobs(self._canceled or "the ensemble has ended", children)

        self._world.rpc(
            "job-ingest.submit", {"entries": entries, "urgency": self._spec.urgency}, submitted
        )

    def _cancel_jobs(self, why: str, children: list[Child] | None = None) -> None:
        chosen = self.children if children is None else children
        ids = [[child.jobid, 1] for child in chosen if child.jobid in self._by_job]
        if ids:
            self._world.rpc(
                "job-manager.raise",
                {"ids": ids, "type": "cancel", "severity": 0, "note": why},
                lambda answer: None,
            )

    def _jobs_ended(self, answer: Answer) -> None:
        if answer.errnum not in (0, errno.ENODATA):
            self._world.log(ERR, "ensemble", f"child instances are lost sight of: {answer.text}")
            for child in self.children:
                if child.jobid in self._by_job:
                    self._job_ended(child, answer.text)
        elif not answer.errnum:
            for jobid, status, *note in answer.payload["done"]:
                ended = self._by_job.get(jobid)
                if ended is not None:
                    code = exit_code(status) if status else 0
                    why = note[0] if note else f"its job ended with exit code {code}"
                    self._job_ended(ended, why)

    def _job_ended(self, child: Child, why: str) -> None:
        """A child's job is over: all that it had is free again, and may be had once more."""
        del self._by_job[child.jobid]
        orderly = child.state == ENDING
        if not orderly:
            self._lose(child, why)
        self._retire(child)
        if not orderly and not self._canceled and self._stopped is None:
            self._replace(child)
        self._check_stopped()

    def _retire(self, child: Child) -> None:
        self._tokens.pop(child.token, None)
        child.state = GONE

    # -- a child that is lost -------------------------------------------------------------------

    def _lose(self, child: Child, why: str) -> None:
        """A child has not said its last, and no longer can."""
        if child.state in (LOST, ENDING, GONE):
            return
        why = f"{child.name}: {child.why or why}"
        self._why = why
        stream, child.stream = child.stream, None
        was_ready = child.state == READY
        child.state = LOST
        if stream is not None:
            stream.error(errno.ECONNRESET, why)
        if was_ready:
            # One that came when all was done, and was canceled as not needed, is no loss.
            missed = self._stopped is None
            self._level["lost"] += missed
            self._record(child, lost=missed)
            if missed and not self._canceled:
                self._world.log(WARNING, "ensemble", f"lost {why}")
            self.distributor.lost(child.index, why, self._now())
            self._carry_out()
            self._owner.changed()

    def _stream_ended(self, child: Child, stream: Stream) -> None:
        """The connection to a child broke, or it was canceled."""
        if child.stream is stream:
            child.stream = None
            self._lose(child, "lost contact with it")
            self._cancel_jobs("its ensemble lost contact with it", [child])
            self._expect()

    def _replace(self, child: Child) -> None:
        """Start another one in the place of a lost one, if there are cores for it."""
        if child.replaced >= self._spec.retries:
            self._expect()
            return
        child.replaced += 1
        child.state = PENDING  # it counts as one that may come until that is known

        def told(answer: Answer) -> None:
            if self._canceled or self._stopped is not None:
                child.state = GONE
            elif answer.errnum or not self._has_room(child, Machine.of(answer.payload)):
                child.state = GONE
                self._world.log(WARNING, "ensemble", f"{child.name} cannot be replaced")
                self._expect()
            else:
                self._level["replaced"] += 1
                self._submit([child])

        self._world.rpc("resource.status", {}, told)
        self._expect()

    def _has_room(self, child: Child, machine: Machine) -> bool:
        """Whether a child would find its resources if no other jobs than children had any."""
        others = [c.part for c in self.children if c is not child and c.state not in (GONE, LOST)]
        parts = [*others, child.part]
        nodes = sum(part.nnodes for part in parts if part.exclusive)
        cores = sum(part.ncores for part in parts if not part.exclusive)
        return nodes <= machine.ranks and cores <= machine.ncores

    def _expect(self) -> None:
        """Tell the distributor how many children may still come."""
        coming = 0
        for child in self.children:
            replaceable = child.state == LOST and child.replaced < self._spec.retries
            coming += child.state in (PENDING, JOINED) or replaceable
        self.distributor.expect(coming, self._now())
        self._carry_out()

    # -- what children say ----------------------------------------------------------------------

    def join(self, child: Child, stream: Stream, payload: dict[str, Any]) -> Callable[[], object]:
        """A child introduces itself; returns what to call when its stream ends.

        Raises ValueError when one with the same token has before.
        """
        if child.state != PENDING:
            raise ValueError(f"{child.name} has joined already")
        child.state = JOINED
        child.stream = stream
        child.nnodes, child.ncores, child.ngpus = (
            int(payload.get(name) or 0) for name in ("nnodes", "ncores", "ngpus")
        )
        self._level["messages"] += 2
        stream.respond({"run": self._spec.child(child.index).to_wire()})
        if self._stopped is not None:
            stream.respond({"stop": True})
        return lambda: self._stream_ended(child, stream)

    def report(self, child: Child, payload: dict[str, Any]) -> None:
        """A child reports. Raises ValueError for what makes no sense; it is lost then."""
        self._level["messages"] += 1
        child.heard = self._now()
        if child.state not in (JOINED, READY):
            return
        if payload.get("failed"):
            child.why = str(payload["failed"])
            self._lose(child, child.why)
            self._cancel_jobs(child.why, [child])
            self._expect()
            return
        try:
            self._take(child, payload)
        except ValueError as error:
            self._lose(child, f"its report makes no sense: {error}")
            self._cancel_jobs("its report makes no sense", [child])
            self._expect()
            raise
        self._carry_out()
        self._owner.changed()

    def _take(self, child: Child, payload: dict[str, Any]) -> None:
        now = self._now()
        ready = payload.get("ready")
        if ready and child.state == JOINED:
            child.state = READY
            child.begun = now
            self._level["instances"] += 1
            self._level["ncores"] += child.ncores
            self._level["start"] += now - child.wished
            self.distributor.join(child.index, int(ready), now)
            if not self._ready:
                self._ready = True
                self._owner.ready()
        if child.state == READY:
            ended = IDSet.parse(payload.get("ended") or "")
            tally = Tally.from_wire(payload.get("tally") or {})
            self.distributor.report(
                child.index,
                ended,
                tally,
                now,
                unstarted=int(payload.get("unstarted") or 0),
                running=int(payload.get("running") or 0),
            )
            child.jobs += len(ended)
            self._level["jobs"] += len(ended)
        if payload.get("final"):
            self._final(child, payload)

    def _final(self, child: Child, payload: dict[str, Any]) -> None:
        """A child has ended all that was below it."""
        add_levels(self._below, check_levels(payload.get("levels") or []))
        records = check_records(payload.get("records") or [])
        if child.state == READY:
            self._record(child, lost=False)
        self._records += records[: MAX_RECORDS - len(self._records)]
        child.state = ENDING
        stream, child.stream = child.stream, None
        if self._below:
            self._level["rerun"] = self._below[0]["rerun"]
        if stream is not None:
            self._level["messages"] += 1
            stream.error(errno.ENODATA)

    def returned(self, child: Child, payload: dict[str, Any]) -> None:
        """A child returns members. Raises ValueError for what makes no sense."""
        self._level["messages"] += 1
        if child.state != READY:
            return
        members = IDSet.parse(payload.get("members") or "")
        unstarted = int(payload.get("unstarted") or 0)
        self.distributor.returned(child.index, members, self._now(), unstarted=unstarted)
        self._carry_out()

    def _record(self, child: Child, lost: bool) -> None:
        if len(self._records) >= MAX_RECORDS:
            return
        now, unix = self._now(), self._world.reactor.now()
        begin = unix - (now - child.begun)
        counts = [child.jobs, child.nnodes, child.ncores, child.ngpus, int(lost)]
        self._records.append([child.name, begin, unix, *counts])

    # -- what the distributor wants -------------------------------------------------------------

    def _carry_out(self) -> None:
        while actions := self.distributor.take():
            for action in actions:
                if isinstance(action, (Give, TakeBack)):
                    self._tell(action)
                elif isinstance(action, Return):
                    self._owner.returned(action.members)
                elif isinstance(action, Stranded):
                    self._stranded()
                elif isinstance(action, Finished):
                    self._owner.changed()

    def _tell(self, action: Give | TakeBack) -> None:
        assert isinstance(action.worker, int)
        child = self.children[action.worker]
        if child.stream is None:
            return  # it is about to be lost, and what it had will be given out again
        self._level["messages"] += 1
        if isinstance(action, Give):
            child.stream.respond({"give": str(action.members), "low": action.low})
        else:
            child.stream.respond({"take_back": action.count})

    def _stranded(self) -> None:
        if self._canceled:
            return
        why = "no child instance is left"
        self._owner.failed(f"{why}: {self._why}" if self._why else why)

    # -- the end --------------------------------------------------------------------------------

    def _check_stopped(self) -> None:
        if self._stopped is not None and not self._by_job:
            done, self._stopped = self._stopped, lambda: None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            done()

    def _stop_late(self) -> None:
        names = ", ".join(child.name for child in self._by_job.values())
        self._world.log(INFO, "ensemble", f"not ended by themselves: {names[:200]}")
        self._cancel_jobs("it did not end with its ensemble", list(self._by_job.values()))
        self._timer = self._world.reactor.call_later(STOP_S, self._give_up_stopping)

    def _give_up_stopping(self) -> None:
        self._by_job.clear()
        self._check_stopped()
