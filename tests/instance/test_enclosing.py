"""The connection to the instance around this one, to a fake one."""

from __future__ import annotations

import errno
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.instance import enclosing
from flux_mpi.instance.enclosing import Enclosing
from flux_mpi.message.errors import FluxError
from flux_mpi.reactor.epoll import EpollReactor
from tests.client.fakebroker import FakeBroker


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        fake = FakeBroker(Path(folder))
        yield fake
        fake.close()


@pytest.fixture
def reactor() -> EpollReactor:
    return EpollReactor()


def turn(reactor: EpollReactor, until: Any) -> None:
    """Run the loop until something is true; not for ever."""
    deadline = time.monotonic() + 20

    def look() -> None:
        if until():
            reactor.stop()
        else:
            assert time.monotonic() < deadline
            reactor.call_later(0.01, look)

    reactor.call_soon(look)
    reactor.run()


def R(expiration: Any) -> dict[str, Any]:
    return {"id": 1, "R": {"version": 1, "execution": {"expiration": expiration}}}


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, 0),
        ({"FLUX_JOB_ID_PATH": "/ƒ1"}, 0),
        ({"FLUX_JOB_ID": "ƒ1", "FLUX_JOB_ID_PATH": "/ƒ1"}, 1),
        ({"FLUX_JOB_ID": "ƒ2", "FLUX_JOB_ID_PATH": "/ƒ1/ƒ2"}, 2),
        ({"FLUX_JOB_ID": "ƒ2"}, 0),
    ],
)
def test_the_level_is_how_many_jobs_are_around(environ: dict[str, str], level: int) -> None:
    assert enclosing.level(environ) == level


def test_grace_periods_nest() -> None:
    periods = [enclosing.patience(5.0, depth) for depth in range(12)]
    assert periods[:3] == [5.0, 2.5, 1.25]
    for outer, inner in itertools.pairwise(periods):
        assert 0 < inner <= outer


def test_remote_uris() -> None:
    assert enclosing.remote_uri("local:///tmp/x/local-0", "node7") == "ssh://node7/tmp/x/local-0"


@pytest.mark.parametrize(("said", "found"), [(123.5, 123.5), (0, 0.0), (-1, 0.0), ("x", 0.0)])
def test_when_the_job_must_end(broker: FakeBroker, said: Any, found: float) -> None:
    broker.handlers["job-info.lookup"] = R(said)
    around = Enclosing(broker.uri, "ƒabc")
    assert around.expiration() == found
    assert broker.payload("job-info.lookup") == {"id": fluid.parse("ƒabc"), "keys": ["R"]}
    around.close()
    around.close()


def test_where_nobody_is() -> None:
    with pytest.raises(FluxError, match="No such file"):
        Enclosing("local:///no/such/socket", "ƒabc")
    with pytest.raises(FluxError, match="expected local://PATH"):
        Enclosing("ssh://host/x", "ƒabc")
    with pytest.raises(ValueError, match="garbage"):
        Enclosing("local:///no/such/socket", "garbage!")


def test_who_refuses_hangs_up_or_says_nothing(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.handlers["job-info.lookup"] = lambda request: request.error(errno.ENOENT, "unknown job")
    with pytest.raises(FluxError, match="unknown job"):
        Enclosing(broker.uri, "ƒabc").expiration()
    broker.handlers["job-info.lookup"] = lambda request: broker.drop()
    with pytest.raises(FluxError, match="hung up"):
        Enclosing(broker.uri, "ƒabc").expiration()
    broker.handlers["job-info.lookup"] = lambda request: request.connection.send_bytes(b"x" * 100)
    with pytest.raises(FluxError, match="hung up"):
        Enclosing(broker.uri, "ƒabc").expiration()
    monkeypatch.setattr(enclosing, "ANSWER_S", 0.1)
    broker.handlers["job-info.lookup"] = lambda request: None
    with pytest.raises(FluxError, match="no answer"):
        Enclosing(broker.uri, "ƒabc").expiration()


def test_it_is_told_where_we_are(broker: FakeBroker, reactor: EpollReactor) -> None:
    broker.handlers["job-info.lookup"] = R(0)
    answers: list[Any] = []
    broker.handlers["job-manager.memo"] = {}
    around = Enclosing(broker.uri, "ƒabc")
    around.expiration()
    around.follow(reactor, lambda: answers.append("lost"))
    around.announce("ssh://here/x", lambda answer, wrong: answers.append((answer, wrong)))
    turn(reactor, lambda: answers)
    broker.handlers["job-manager.memo"] = lambda request: request.error(22, "job is inactive")
    around.announce("ssh://here/x", lambda answer, wrong: answers.append((answer, wrong)))
    turn(reactor, lambda: len(answers) == 2)
    assert answers == [({}, ""), (None, "job is inactive")]
    assert broker.payload("job-manager.memo") == {
        "id": fluid.parse("ƒabc"),
        "memo": {"uri": "ssh://here/x"},
    }
    around.close()


def test_its_end_is_noticed_once(broker: FakeBroker, reactor: EpollReactor) -> None:
    events: list[str] = []
    around = Enclosing(broker.uri, "ƒabc")
    around.follow(reactor, lambda: events.append("lost"))
    around.announce("ssh://here/x", lambda answer, wrong: events.append(wrong))
    broker.handlers["job-manager.memo"] = lambda request: None
    threading.Timer(0.05, broker.drop).start()
    turn(reactor, lambda: "lost" in events)
    around.announce("ssh://here/x", lambda answer, wrong: events.append("unsent"))
    around.close()
    assert events == ["it has hung up", "lost", "unsent"] or events[1:] == ["lost", "unsent"]
