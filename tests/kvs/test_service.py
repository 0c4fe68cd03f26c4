"""The ``kvs.*`` requests, through messages, on a broker that only registers."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from flux_mpi.broker.service import Handler, Request, ServiceError
from flux_mpi.formats.eventlog import parse_log
from flux_mpi.kvs.service import KvsService
from flux_mpi.kvs.store import Limits, Store
from flux_mpi.message.message import REQUEST, STREAMING, Message, pack

UID = os.geteuid()


class Call:
    """A request under way and the answers it got: ``(errnum, payload or text)``."""

    def __init__(self, handler: Handler, topic: str, body: Any, *, uid: int, flags: int) -> None:
        self.answers: list[tuple[int, Any]] = []
        message = Message(REQUEST, topic, pack(body), tag=1, uid=uid, flags=flags)
        self.request = Request(message, self._answer)
        try:
            handler(self.request)
        except ServiceError as error:
            self.request.error(error.errno or -1, str(error))

    def _answer(self, message: Message) -> None:
        self.answers.append((message.errnum, message.body))


class FakeBroker:
    def __init__(self) -> None:
        self.methods: dict[str, Handler] = {}
        self.logged: list[str] = []

    def register(self, name: str, methods: dict[str, Handler]) -> None:
        self.methods.update({f"{name}.{method}": handler for method, handler in methods.items()})

    def log(self, level: int, component: str, text: str) -> None:
        self.logged.append(text)

    def stream(self, topic: str, *, uid: int = UID, flags: int = STREAMING, **body: Any) -> Call:
        return Call(self.methods[topic], topic, body, uid=uid, flags=flags)

    def ask(self, topic: str, *, uid: int = UID, **body: Any) -> Any:
        [(errnum, payload)] = self.stream(topic, uid=uid, flags=0, **body).answers
        if errnum:
            raise ServiceError(errnum, payload)
        return payload


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def kvs(broker: FakeBroker) -> KvsService:
    return KvsService(
        broker,  # type: ignore[arg-type]
        job_owner=lambda jobid: UID if jobid < 1000 else None,
        job_key=lambda jobid: f"job.0000.{jobid:04x}",
    )


def refused(errnum: int, broker: FakeBroker, topic: str, **body: Any) -> str:
    with pytest.raises(ServiceError) as raised:
        broker.ask(topic, **body)
    assert raised.value.errno == errnum
    return str(raised.value)


def test_put_get_dir_link(broker: FakeBroker, kvs: KvsService) -> None:
    ops = [["a.b", {"k": 1}], ["a.c", "x"], ["l", "a", "symlink"], ["a.d", None, "mkdir"]]
    assert broker.ask("kvs.commit", ns="primary", ops=ops) == {"version": 1}
    assert broker.ask("kvs.lookup", ns="primary", key="l.b") == {"value": {"k": 1}}
    assert broker.ask("kvs.lookup", key="l", readlink=True) == {"target": "a"}
    assert broker.ask("kvs.lookup", ns="primary", key=".", dir=True, recursive=True) == {
        "dir": {"a": {"b": {"k": 1}, "c": "x", "d": {}}, "l": "a"},
        "dirs": ["a", "a.d"],
        "links": {"l": "a"},
    }
    assert broker.ask("kvs.commit", ns="primary", ops=[["a", None, "unlink"]]) == {"version": 2}
    assert broker.ask("kvs.lookup", key="a.c", version=1) == {"value": "x"}
    refused(errno.ENOENT, broker, "kvs.lookup", ns="primary", key="a.c")
    assert broker.ask("kvs.getroot", ns="primary") == {"version": 2, "owner": UID}


@pytest.mark.parametrize(
    ("topic", "body", "says"),
    [
        ("kvs.commit", {"ns": "primary"}, "ops"),
        ("kvs.commit", {"ns": 3, "ops": []}, "ns"),
        ("kvs.lookup", {"ns": "primary"}, "key"),
        ("kvs.lookup", {"key": "a", "version": "1"}, "version"),
        ("kvs.lookup", {"key": "a", "version": True}, "version"),
        ("kvs.wait-version", {"ns": "primary"}, "version"),
        ("kvs.namespace-create", {}, "ns"),
        ("kvs.namespace-create", {"ns": "x", "owner": "me"}, "owner"),
        ("kvs.namespace-remove", {}, "ns"),
        ("kvs.watch", {"key": "a"}, "stream"),
    ],
)
def test_malformed_requests_name_the_field(
    broker: FakeBroker, kvs: KvsService, topic: str, body: dict[str, Any], says: str
) -> None:
    assert says in refused(errno.EPROTO, broker, topic, **body)


@pytest.mark.parametrize("body", [None, [], "x", 7])
def test_a_payload_that_is_no_map(broker: FakeBroker, kvs: KvsService, body: Any) -> None:
    for topic in ("kvs.commit", "kvs.lookup", "kvs.getroot", "kvs.wait-version"):
        call = Call(broker.methods[topic], topic, body, uid=UID, flags=0)
        assert call.answers[0][0] == errno.EPROTO


def test_watch_streams_until_the_key_goes(broker: FakeBroker, kvs: KvsService) -> None:
    call = broker.stream("kvs.watch", ns="primary", key="a", waitcreate=True)
    assert call.answers == []
    kvs.put("a", 1)
    broker.ask("kvs.commit", ns="primary", ops=[["a", 1]])
    kvs.apply([["a", None, "unlink"]])
    assert [errnum for errnum, _ in call.answers] == [0, 0, errno.ENOENT]
    assert [payload["version"] for _, payload in call.answers[:2]] == [1, 2]
    kvs.put("a", 2)
    assert len(call.answers) == 3


def test_a_watch_that_was_cancelled_is_forgotten(broker: FakeBroker, kvs: KvsService) -> None:
    call = broker.stream("kvs.watch", ns="primary", key="a", waitcreate=True)
    wait = broker.stream("kvs.wait-version", flags=0, ns="primary", version=1)
    call.request.close()
    wait.request.close()
    kvs.put("a", 1)
    assert call.answers == wait.answers == []
    assert kvs.store._watches == {}


def test_wait_version(broker: FakeBroker, kvs: KvsService) -> None:
    call = broker.stream("kvs.wait-version", flags=0, ns="primary", version=1)
    assert call.answers == []
    kvs.put("a", 1)
    assert call.answers == [(0, {"version": 1})]
    assert broker.ask("kvs.wait-version", ns="primary", version=1) == {"version": 1}


def test_namespaces(broker: FakeBroker, kvs: KvsService) -> None:
    broker.ask("kvs.namespace-create", ns="mine", owner=77)
    refused(errno.EEXIST, broker, "kvs.namespace-create", ns="mine")
    assert broker.ask("kvs.commit", uid=77, ns="mine", ops=[["a", 1]]) == {"version": 1}
    refused(errno.EPERM, broker, "kvs.commit", uid=78, ns="mine", ops=[["a", 1]])
    refused(errno.EPERM, broker, "kvs.namespace-create", uid=77, ns="more")
    refused(errno.EPERM, broker, "kvs.namespace-remove", uid=77, ns="mine")
    assert broker.ask("kvs.namespace-list")["namespaces"] == [
        {"namespace": "primary", "owner": UID, "flags": 0, "version": 0},
        {"namespace": "mine", "owner": 77, "flags": 0, "version": 1},
    ]
    broker.ask("kvs.namespace-remove", ns="mine")
    refused(errno.ENOTSUP, broker, "kvs.getroot", ns="mine")


def test_a_jobs_namespace_lives_as_long_as_the_job(broker: FakeBroker, kvs: KvsService) -> None:
    broker.ask("kvs.commit", ns="job-5", ops=[["out", "hello"]])
    watch = broker.stream("kvs.watch", ns="job-6", key="k", waitcreate=True)
    for unknown in ("job-1000", "job-05", "job-", "job-x", "job-٣", "job-" + "9" * 30):
        refused(errno.ENOTSUP, broker, "kvs.lookup", ns=unknown, key="a")
    kvs.close_jobs([4, 5, 6])
    assert broker.ask("kvs.lookup", key="job.0000.0005.guest.out") == {"value": "hello"}
    assert [errnum for errnum, _ in watch.answers] == [errno.ENOTSUP]
    assert len(broker.ask("kvs.namespace-list")["namespaces"]) == 1


def test_what_has_ended_is_closed(broker: FakeBroker) -> None:
    active = {5, 6}
    kvs = KvsService(broker, job_owner=lambda jobid: UID if jobid in active else None)  # type: ignore[arg-type]
    broker.ask("kvs.commit", ns="job-5", ops=[["out", 1]])
    broker.ask("kvs.commit", ns="job-6", ops=[["out", 2]])
    active.remove(5)
    kvs.close_ended()
    assert broker.ask("kvs.lookup", key="job.5.guest.out") == {"value": 1}
    assert broker.ask("kvs.lookup", ns="job-6", key="out") == {"value": 2}
    refused(errno.ENOTSUP, broker, "kvs.lookup", ns="job-5", key="out")


def test_a_full_store_does_not_keep_dead_jobs(broker: FakeBroker) -> None:
    store = Store(Limits(total=1200), owner=UID)
    kvs = KvsService(broker, store, job_owner=lambda jobid: UID)  # type: ignore[arg-type]
    broker.ask("kvs.commit", ns="job-5", ops=[["out", "x" * 700]])
    kvs.close_jobs([5])
    assert store.bytes == 0
    assert "job-5" in broker.logged[0]


def test_stats(broker: FakeBroker, kvs: KvsService) -> None:
    kvs.put("a", "x" * 1000)
    stats = broker.ask("kvs.stats")
    assert stats["bytes"] > 1000
    assert stats["namespaces"] == {"primary": 1}


def test_event_logs_are_kept_as_lines(broker: FakeBroker, kvs: KvsService) -> None:
    first = {"timestamp": 1.5, "name": "drain", "context": {"reason": "bad ƒ"}}
    second = {"timestamp": 2.0, "name": "undrain"}
    kvs.keep_events("resource.eventlog", [first])
    kvs.keep_events("resource.eventlog", [])
    kvs.keep_events("resource.eventlog", [second])
    text = broker.ask("kvs.lookup", key="resource.eventlog")["value"]
    assert [event.to_dict() for event in parse_log(text)] == [first, second]


def test_records_that_find_no_room_are_logged(broker: FakeBroker) -> None:
    kvs = KvsService(broker, Store(Limits(value=5), owner=UID))  # type: ignore[arg-type]
    kvs.keep("a", "x" * 6)
    kvs.keep_events("log", [{"timestamp": 1.0, "name": "a"}])
    assert len(broker.logged) == 2
    refused(errno.ENOENT, broker, "kvs.lookup", key="a")
