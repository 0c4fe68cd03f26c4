"""The ``resource.*`` requests and what the job room is told, on a broker that only registers."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

import pytest

from flux_mpi.broker.service import Handler, Request, ServiceError
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.rv1 import RSet
from flux_mpi.message.message import REQUEST, STREAMING, Message, pack
from flux_mpi.reactor.simulated import SimulatedReactor
from flux_mpi.resource.service import ResourceService

HOSTS = ["n0", "n1", "n2"]
OWNER = 500


class FakeBroker:
    def __init__(self) -> None:
        self.reactor = SimulatedReactor()
        self.methods: dict[str, Handler] = {}
        self.logged: list[str] = []
        self.published: list[tuple[str, Any]] = []

    def publish(self, topic: str, payload: Any) -> None:
        self.published.append((topic, payload))

    def register(self, name: str, methods: dict[str, Handler]) -> None:
        self.methods.update({f"{name}.{method}": handler for method, handler in methods.items()})

    def log(self, level: int, component: str, text: str) -> None:
        self.logged.append(text)

    def call(
        self, topic: str, body: Any = None, *, uid: int = OWNER, flags: int = 0
    ) -> tuple[Request, list[tuple[int, Any]]]:
        answers: list[tuple[int, Any]] = []
        message = Message(REQUEST, topic, pack(body), tag=1, uid=uid, flags=flags)
        request = Request(message, lambda m: answers.append((m.errnum, m.body)))
        try:
            self.methods[topic](request)
        except ServiceError as error:
            request.error(error.errno or -1, str(error))
        return request, answers

    def ask(self, topic: str, body: Any = None, *, uid: int = OWNER) -> Any:
        [(errnum, payload)] = self.call(topic, body, uid=uid)[1]
        if errnum:
            raise ServiceError(errnum, payload)
        return payload


class FakeJobs:
    """The job room: keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def define(self, resources: RSet, up: IDSet) -> None:
        self.told.append(("define", resources.summary(), str(up)))

    def change(self, up: IDSet) -> None:
        self.told.append(("change", str(up)))

    def lost(self, ranks: IDSet) -> None:
        self.told.append(("lost", str(ranks)))

    def take(self) -> list[tuple[Any, ...]]:
        told, self.told = self.told, []
        return told


class World:
    def __init__(self, **options: Any) -> None:
        self.broker = FakeBroker()
        self.jobs = FakeJobs()
        self.recorded: list[str] = []
        self.service = ResourceService(
            self.broker,  # type: ignore[arg-type]
            HOSTS,
            self.jobs,
            owner=OWNER,
            keeper=self,
            define_after=30.0,
            **options,
        )

    def keep(self, key: str, value: Any) -> None:
        assert key == "resource.R"
        self.kept_r = RSet.parse(value)

    def keep_events(self, key: str, events: Iterable[dict[str, Any]]) -> None:
        assert key == "resource.eventlog"
        self.recorded.extend(event["name"] for event in events)

    def hello(self, *ranks: int) -> None:
        for rank in ranks:
            info = {"cores": "0-3", "gpus": "", "memory": 10, "hostname": HOSTS[rank]}
            self.service.hello(rank, info)


@pytest.fixture
def world() -> World:
    world = World()
    world.hello(0, 1, 2)
    world.service.turn_end()
    world.jobs.take()
    world.recorded.clear()
    return world


def test_scheduling_begins_when_all_have_reported() -> None:
    world = World()
    world.hello(0, 1)
    world.service.turn_end()
    assert world.jobs.take() == []
    world.hello(2)
    assert world.jobs.take() == [("define", "rank[0-2]/core[0-3]", "0-2")]
    world.service.turn_end()
    assert world.jobs.take() == []
    assert world.recorded == ["restart", "online", "online", "resource-define"]
    assert world.kept_r == world.service.monitor.resource_set()


def test_a_rank_that_hangs_is_not_waited_for_for_ever() -> None:
    world = World()
    world.hello(0, 2)
    world.broker.reactor.run(29.0)
    assert world.jobs.take() == []
    world.broker.reactor.run(2.0)
    assert world.jobs.take() == [("define", "rank[0,2]/core[0-3]", "0,2")]
    assert "ranks 1 have not reported" in world.broker.logged[-1]
    world.hello(1)
    assert world.jobs.take() == [("define", "rank[0-2]/core[0-3]", "0-2")]


def test_a_rank_lost_at_the_start_is_not_waited_for() -> None:
    world = World()
    world.hello(0, 1)
    world.service.lost([2])
    assert world.jobs.take() == [("define", "rank[0-1]/core[0-3]", "0-1")]


def test_a_bad_hello_is_refused(world: World) -> None:
    with pytest.raises(ServiceError, match="out of range"):
        world.service.hello(7, {"cores": 1, "hostname": "n"})


def test_lost_ranks_are_told_after_the_change(world: World) -> None:
    world.service.lost([1, 2])
    assert world.jobs.take() == [("change", "0"), ("lost", "1-2")]
    world.service.lost([1, 2])
    world.hello(2)
    world.service.turn_end()
    assert world.jobs.take() == [("change", "0,2")]
    assert world.recorded == ["offline", "online"]


def test_the_scheduler_knows_of_a_drain_before_the_caller(world: World) -> None:
    world.jobs.change = lambda up: world.recorded.append(f"up {up}")  # type: ignore[method-assign]
    _, answers = world.broker.call("resource.drain", {"targets": "1", "reason": "bad"})
    assert answers == [(0, {})]
    assert world.recorded == ["up 0,2"]
    assert world.broker.ask("resource.undrain", {"targets": "n1"}) == {}
    world.service.turn_end()
    assert world.recorded == ["up 0,2", "up 0-2", "drain", "undrain"]
    assert "drain 1 by user 500: bad" in world.broker.logged


def test_status(world: World) -> None:
    world.service.allocated = lambda: world.service.monitor.resource_set().subset([1])
    world.broker.ask("resource.drain", {"targets": "1-2", "reason": "bad"})
    world.service.lost([0])
    now = world.broker.reactor.now()
    status = world.broker.ask("resource.status")
    assert status["R"]["execution"]["R_lite"] == [{"rank": "0-2", "children": {"core": "0-3"}}]
    assert status["allocated"]["execution"]["R_lite"] == [
        {"rank": "1", "children": {"core": "0-3"}}
    ]
    rest = {key: status[key] for key in ("drained", "online", "offline", "exclude", "expiration")}
    assert rest == {
        "drained": {"1-2": [now, "bad"]},
        "online": "1-2",
        "offline": "0",
        "exclude": "",
        "expiration": 0.0,
    }
    assert world.broker.ask("resource.info") == {
        "nnodes": 3,
        "ncores": 12,
        "ngpus": 0,
        "memory": 30,
    }


def test_status_before_anyone_reported() -> None:
    status = World().broker.ask("resource.status")
    assert status["R"]["execution"]["R_lite"] == []
    assert status["offline"] == "0-2"


@pytest.mark.parametrize(
    ("body", "uid", "errnum"),
    [
        ({"targets": "1"}, OWNER + 1, errno.EPERM),
        (None, OWNER, errno.EPROTO),
        ({}, OWNER, errno.EPROTO),
        ({"targets": "99"}, OWNER, errno.EINVAL),
        ({"targets": "1", "mode": "x"}, OWNER, errno.EINVAL),
    ],
)
def test_refusals(world: World, body: Any, uid: int, errnum: int) -> None:
    for topic in ("resource.drain", "resource.undrain"):
        with pytest.raises(ServiceError) as raised:
            world.broker.ask(topic, body, uid=uid)
        assert raised.value.errno == errnum
    assert world.jobs.take() == []


def test_the_journal_ends_unless_followed(world: World) -> None:
    _, answers = world.broker.call("resource.journal", {}, flags=STREAMING)
    assert [errnum for errnum, _ in answers] == [0, errno.ENODATA]
    names = [event["name"] for event in answers[0][1]["events"]]
    assert names == ["restart", "online", "resource-define"]
    _, answers = world.broker.call("resource.journal", {})
    assert [errnum for errnum, _ in answers] == [errno.EPROTO]


def test_a_followed_journal_tells_each_event_once(world: World) -> None:
    world.service.lost([2])
    request, answers = world.broker.call("resource.journal", {"follow": True}, flags=STREAMING)
    world.broker.ask("resource.drain", {"targets": "1"})
    world.service.turn_end()
    world.service.turn_end()
    names = [[event["name"] for event in payload["events"]] for _, payload in answers]
    assert names == [["restart", "online", "resource-define", "offline"], ["drain"]]
    request.close()
    world.broker.ask("resource.undrain", {"targets": "1"})
    world.service.turn_end()
    assert len(answers) == 2
