"""A child instance's tie to the level above, with a parent that says what the test wants."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from flux_mpi.ensemble.service import EnsembleService
from flux_mpi.ensemble.spec import INTERVAL_S, Spec
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.sim.machine import Machine

SPEC = Spec(Jobspec.from_command(["sleep", "0.5"], environment={}, cwd="/").to_dict())


class Answer:
    def __init__(self, payload: Any = None, errnum: int = 0, text: str = "") -> None:
        self.payload, self.errnum, self.text = payload, errnum, text


class Parent:
    """Stands where the services of the instance above are; answers at once, unless told not to."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.calls: list[tuple[str, Any]] = []
        self.told: Callable[[Any], object] | None = None
        self.answer = Answer({})
        self.held: list[Callable[[Any], object]] | None = None

    def rpc(
        self,
        topic: str,
        payload: Any,
        callback: Callable[[Any], object],
        *,
        streaming: bool = False,
    ) -> None:
        self.calls.append((topic, payload))
        if streaming:
            self.told = callback
        elif self.held is not None:
            self.held.append(callback)
        else:
            self.lane.call_soon(lambda: callback(self.answer))

    @property
    def lane(self) -> Any:
        return self.machine.nodes[0].reactor

    def say(self, payload: Any = None, errnum: int = 0, text: str = "") -> None:
        assert self.told is not None
        told = self.told
        self.lane.call_soon(lambda: told(Answer(payload, errnum, text)))
        self.machine.reactor.run(seconds=0.01)

    def reports(self) -> list[Any]:
        return [payload for topic, payload in self.calls if topic == "ensemble.report"]


class Child:
    def __init__(self) -> None:
        self.machine = Machine(2, cores=2)
        self.parent = Parent(self.machine)
        self.finished: list[int] = []
        self.service = EnsembleService(
            self.machine.nodes[0].broker,
            upstream=self.parent,
            token="secret",
            finish=self.finished.append,
        )
        self.service.start()
        self.machine.nodes[0].reactor.call_soon(lambda: None)
        self.machine.reactor.run(seconds=0.01)

    def begin(self, spec: Spec = SPEC) -> None:
        self.parent.say({"run": spec.to_wire()})


@pytest.fixture
def child() -> Child:
    return Child()


def test_it_introduces_itself_with_its_token_and_what_it_has(child: Child) -> None:
    assert child.parent.calls == [
        ("ensemble.join", {"token": "secret", "nnodes": 2, "ncores": 4, "ngpus": 0})
    ]
    child.begin()
    (ready,) = child.parent.reports()
    assert (ready["token"], ready["ready"], ready["ended"]) == ("secret", 4, "")


def test_it_runs_what_it_is_given_and_reports_when_little_is_left(child: Child) -> None:
    child.begin()
    child.parent.say({"give": "10-17", "low": 5})
    child.machine.reactor.run(seconds=0.55)
    reports = child.parent.reports()[1:]
    assert [report["ended"] for report in reports] == ["10-11", "12-13"]
    assert sum(report["tally"]["times"][0] for report in reports) == 4, "fewer than five are left"
    child.machine.reactor.run(seconds=0.55)
    assert [report["ended"] for report in child.parent.reports()[3:]] == ["14-15", "16-17"]


def test_it_reports_in_intervals_while_there_is_enough(child: Child) -> None:
    spec = Spec(Jobspec.from_command(["sleep", "0.01"], environment={}, cwd="/").to_dict())
    child.begin(spec)
    child.parent.say({"give": "0-3999", "low": 10})
    before = len(child.parent.reports())
    child.machine.reactor.run(seconds=2.0)
    assert len(child.parent.reports()) - before <= 2.0 / INTERVAL_S + 2


def test_it_has_one_report_under_way_at_a_time(child: Child) -> None:
    spec = Spec(Jobspec.from_command(["sleep", "0.01"], environment={}, cwd="/").to_dict())
    child.begin(spec)
    child.parent.held = []
    child.parent.say({"give": "0-99", "low": 1000})
    child.machine.reactor.run(seconds=1.0)
    assert len(child.parent.held) == 1, "the parent is slow"
    first = child.parent.reports()[-1]["tally"]["count"]
    held, child.parent.held = child.parent.held, None
    child.parent.lane.call_soon(lambda: held[0](Answer({})))
    child.machine.reactor.run(seconds=1.0)
    assert child.parent.reports()[-1]["tally"]["count"] == 100 - first


def test_it_returns_members_that_nobody_has_begun(child: Child) -> None:
    child.begin()
    child.parent.say({"give": "0-19", "low": 1})
    child.parent.say({"take_back": 6})
    topic, payload = child.parent.calls[-1]
    assert (topic, payload["members"], payload["unstarted"]) == ("ensemble.return", "14-19", 10)


def test_it_also_returns_what_waits_in_its_queue(child: Child) -> None:
    spec = Spec(SPEC.jobspec, expected=0.002)
    child.begin(spec)
    child.parent.say({"give": "0-499", "low": 1})
    child.parent.say({"take_back": 450})
    child.machine.reactor.run(seconds=0.1)
    topic, payload = child.parent.calls[-1]
    assert topic == "ensemble.return"
    assert payload["members"] == "204-499", "0.1 s of work stays"
    stats = child.machine.rpc("job-manager.stats")
    assert stats["canceled"] == 296
    assert child.parent.reports()[-1]["tally"] == {"count": 0}


def test_told_to_stop_it_says_its_last_and_then_ends(child: Child) -> None:
    child.begin()
    child.parent.say({"give": "0-3", "low": 1})
    child.machine.reactor.run(seconds=1.0)
    child.parent.say({"stop": True})
    assert child.parent.reports()[-1]["final"] is True
    assert child.finished == []
    child.parent.say(errnum=errno.ENODATA)
    child.parent.say(errnum=errno.ENODATA)
    assert child.finished == [0]


def test_what_its_own_end_does_to_members_it_does_not_report(child: Child) -> None:
    child.begin()
    child.parent.say({"give": "0-9", "low": 20})
    before = len(child.parent.calls)
    child.service.close()
    everything = {"states": 62, "type": "cancel", "severity": 0, "note": "shutting down"}
    assert child.machine.rpc("job-manager.raise-all", everything)["count"] == 4
    child.parent.say({"take_back": 3})
    child.machine.reactor.run(seconds=1.0)
    assert len(child.parent.calls) == before
    assert child.finished == []


def test_when_the_parent_is_gone_it_ends_too(child: Child) -> None:
    child.begin()
    child.parent.say(errnum=errno.EHOSTUNREACH, text="no route")
    assert child.finished == [1]


def test_when_the_parent_wants_no_report_of_it_it_ends(child: Child) -> None:
    child.parent.answer = Answer(None, errno.ENOENT, "no ensemble here waits for this instance")
    child.begin()
    assert child.finished == [1]


def test_what_it_cannot_run_it_says_before_it_ends(child: Child) -> None:
    child.begin(Spec(Jobspec.from_command(["x"], ntasks=9, environment={}, cwd="/").to_dict()))
    assert "unsatisfiable request" in child.parent.reports()[-1]["failed"]
    assert child.finished == [1]


def test_it_ends_when_it_is_told_nonsense(child: Child) -> None:
    child.parent.say({"run": {"jobspec": 5}})
    assert "jobspec" in child.parent.reports()[-1]["failed"]
    assert child.finished == [1]


def test_a_level_that_cannot_be_divided_is_an_error_of_the_child(child: Child) -> None:
    child.begin(Spec(SPEC.jobspec, topology=[64]))
    assert "64 instances were asked for" in child.parent.reports()[-1]["failed"]
    assert child.finished == [1]
