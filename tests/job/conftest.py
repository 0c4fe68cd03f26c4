"""Fakes to drive the job room with: a machine, submissions, a broker without messages."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from flux_mpi.broker.service import Handler, Request, Response, Rpc, ServiceError
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.formats.rv1 import RSet
from flux_mpi.job.ingest import Ingest
from flux_mpi.job.manager import Actions, Manager
from flux_mpi.job.service import JobService
from flux_mpi.message.message import ANY, REQUEST, STREAMING, Message, pack, unpack
from flux_mpi.reactor.simulated import SimulatedReactor
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.tiered import Tier


def machine(ranks: int, cores: int, gpus: int = 0) -> RSet:
    return RSet(
        dict.fromkeys(range(ranks), IDSet(range(cores))),
        dict.fromkeys(range(ranks), IDSet(range(gpus))),
        {rank: f"node{rank}" for rank in range(ranks)},
    )


def entry(
    command: list[str] | None = None,
    count: int | None = None,
    params: dict[str, Any] | None = None,
    mock: float | str | None = None,
    **how: Any,
) -> dict[str, Any]:
    """One entry of ``job-ingest.submit``; ``how`` is what ``Jobspec.from_command`` takes."""
    attributes = dict(how.pop("attributes", {}))
    if mock is not None:
        attributes["system.exec.test.run_duration"] = mock
    how.setdefault("cwd", "/work dir")
    how.setdefault("environment", {"PATH": "/bin"})
    spec = Jobspec.from_command(command or ["true"], attributes=attributes, **how)
    out: dict[str, Any] = {"jobspec": spec.to_dict()}
    if count is not None:
        out["count"] = count
    if params is not None:
        out["params"] = params
    return out


class Core:
    """A manager with a machine and a clock that the test moves."""

    def __init__(self, ranks: int = 4, cores: int = 2, gpus: int = 0, **how: Any) -> None:
        self.scheduler = BitmapScheduler(Tier("never"))
        self.manager = Manager(self.scheduler, epoch=1000.0, **how)
        self.now = 1000.0
        self.ingest = Ingest(how.get("queues"))
        self.actions: list[Actions] = []
        self.scheduler.update(machine(ranks, cores, gpus))
        self.manager.resources_changed(self.now)

    def submit(
        self,
        command: list[str] | None = None,
        *,
        urgency: int = 16,
        flags: int = 0,
        turn: bool = True,
        **how: Any,
    ) -> int:
        """Submit one array; returns its first id."""
        entries, urgency, flags = self.ingest.parse(
            {"entries": [entry(command, **how)], "urgency": urgency, "flags": flags}
        )
        ((first, _),) = self.manager.submit(entries, self.now, urgency=urgency, flags=flags)
        if turn:
            self.turn()
        return first

    def turn(self, after: float = 0.0) -> Actions:
        self.now += after
        self.manager.turn(self.now)
        actions = self.manager.take()
        self.actions.append(actions)
        return actions

    def run(self, until: float) -> None:
        """Turn whenever the manager wants to, up to a time."""
        while True:
            deadline = self.manager.next_deadline()
            if self.manager.dirty:
                self.turn()
            elif deadline is not None and deadline <= until:
                self.turn(max(0.0, deadline - self.now))
            else:
                break
        self.now = until

    def report(self, *events: list[Any]) -> Actions:
        self.manager.report([list(event) for event in events], self.now)
        return self.turn()

    def finish(self, jobid: int, status: int = 0, nodes: int = 1) -> Actions:
        """The job's nodes report start and exit."""
        for node in range(nodes):
            self.manager.report([[jobid, "start", self.now, node, [1]]], self.now)
        for node in range(nodes):
            self.manager.report([[jobid, "exit", self.now, node, [[node, 1, status]]]], self.now)
        return self.turn()

    def state(self, jobid: int) -> str:
        jobs, k = self.manager.find(jobid)
        return jobs.state_of(k).name

    def log(self, jobid: int) -> list[str]:
        """The names of the job's events."""
        return [name for _, name, _ in self.events(jobid)]

    def events(self, jobid: int) -> list[tuple[float, str, dict[str, Any]]]:
        from flux_mpi.job.eventlogs import event_log

        jobs, k = self.manager.find(jobid)
        return event_log(jobs, k, self.manager.store.ledger)

    def context(self, jobid: int, name: str) -> dict[str, Any]:
        """The context of the job's last event of that name."""
        return [context for _, event, context in self.events(jobid) if event == name][-1]

    def started(self) -> list[int]:
        """The jobs that all turns so far have sent to ranks or leased to them, in order."""
        return [
            job[0]
            for actions in self.actions
            for start in actions.starts.values()
            for job in [*start.jobs, *(row for _, row in start.leases)]
        ]

    def current(self) -> int | None:
        """A job that runs or, where the one before it has ended, is about to."""
        execution = self.manager.exec
        return next(iter([*execution.running, *execution.leased]), None)

    def leased(self) -> list[int]:
        """The jobs on lease now, in order."""
        return sorted(self.manager.exec.leased)

    def kills(self) -> list[tuple[int, int, int]]:
        return [kill for actions in self.actions for kill in actions.kills]

    def answers(self, token: object) -> list[Any]:
        """(payload or errno, text) of everything that was answered to a token."""
        return [
            (answer.errnum, answer.text) if answer.errnum else answer.payload
            for actions in self.actions
            for answer in actions.answers
            if answer.token == token
        ]


class Call:
    """A request made of the service under test, and what came back."""

    def __init__(self, request: Request, got: list[Message]) -> None:
        self.request = request
        self._got = got

    @property
    def payloads(self) -> list[Any]:
        return [message.body for message in self._got if not message.errnum]

    @property
    def payload(self) -> Any:
        (payload,) = self.payloads
        return payload

    @property
    def error(self) -> tuple[int, str] | None:
        """(errno, text), or None."""
        for message in self._got:
            if message.errnum:
                return message.errnum, message.body or ""
        return None

    @property
    def answered(self) -> bool:
        return bool(self._got)

    def close(self) -> None:
        self.request.close()


class FakeBroker:
    """A broker of rank 0 without links: collects what is sent, takes requests from the test."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 4
        self.reactor = SimulatedReactor(1_700_000_000.0)
        self.handlers: dict[str, Handler] = {}
        self.sent: list[tuple[int, str, Any]] = []
        self.logs: list[tuple[int, str, str]] = []
        self._tags = itertools.count(1)

    def register(self, name: str, methods: dict[str, Handler]) -> None:
        for method, handler in methods.items():
            self.handlers[f"{name}.{method}"] = handler

    def send(self, topic: str, payload: Any, *, rank: int = ANY) -> None:
        self.sent.append((rank, topic, unpack(pack(payload), strict_map_key=False)))

    def rpc(self, *args: Any, **options: Any) -> Rpc:
        raise NotImplementedError("the job services call nobody")

    def publish(self, topic: str, payload: Any) -> None:
        raise NotImplementedError("the job services publish nothing")

    def subscribe(self, prefix: str, callback: Callable[[str, int, Any], object]) -> None:
        raise NotImplementedError("the job services subscribe to nothing")

    def log(self, level: int, component: str, text: str) -> None:
        self.logs.append((level, component, text))

    @property
    def attrs(self) -> Any:
        return {}

    # -- for tests ------------------------------------------------------------------------------

    def call(
        self, topic: str, payload: Any = None, *, streaming: bool = False, uid: int = 0
    ) -> Call:
        """Hand a request to the service and run the loop's turn."""
        got: list[Message] = []
        message = Message(
            REQUEST,
            topic,
            None if payload is None else pack(payload),
            flags=STREAMING if streaming else 0,
            tag=next(self._tags),
            uid=uid,
        )
        request = Request(message, got.append)
        try:
            self.handlers[topic](request)
        except ServiceError as error:
            request.error(error.errno or 0, str(error))
        self.turn()
        return Call(request, got)

    def turn(self) -> None:
        """One turn without waiting."""
        self.reactor.call_soon(lambda: None)
        self.reactor.turn()

    def run(self, seconds: float) -> None:
        self.reactor.run(seconds=seconds)
        self.turn()

    def take(self, topic: str) -> list[tuple[int, Any]]:
        """(rank, payload) of what was sent so far with this topic; forgets it."""
        found = [(rank, payload) for rank, t, payload in self.sent if t == topic]
        self.sent = [item for item in self.sent if item[1] != topic]
        return found


class World:
    """The job services on a fake broker with four nodes of two cores."""

    def __init__(self, **options: Any) -> None:
        self.broker = FakeBroker()
        self.service = JobService(self.broker, scheduler=BitmapScheduler(Tier("never")), **options)
        self.service.define(machine(4, 2), IDSet(range(4)))
        self.call = self.broker.call

    def submit(self, *entries: dict[str, Any], **options: Any) -> list[list[int]]:
        call = self.call("job-ingest.submit", {"entries": list(entries), **options})
        assert call.error is None, call.error
        return call.payload["arrays"]

    def finish(self, jobid: int, status: int = 0, seconds: float = 1.0) -> None:
        self.call(
            "job-exec.report",
            {
                "events": [
                    [jobid, "start", 1.0, 0, [10]],
                    [jobid, "exit", 1.0 + seconds, 0, [[0, 10, status]]],
                ]
            },
        )


@pytest.fixture
def make_entry() -> Callable[..., dict[str, Any]]:
    return entry


@pytest.fixture
def make_core() -> type[Core]:
    return Core


@pytest.fixture
def core() -> Core:
    """Four nodes of two cores."""
    return Core()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def make_machine() -> Callable[..., RSet]:
    return machine


__all__ = ["Response"]
