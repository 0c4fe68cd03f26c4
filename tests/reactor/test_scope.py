"""Scopes: several tenants on one loop, none of which disturbs the others or outlives its end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from flux_mpi.reactor.base import Reactor
from flux_mpi.reactor.epoll import EpollReactor
from flux_mpi.reactor.scope import Scope
from flux_mpi.reactor.simulated import SimulatedReactor


@pytest.fixture
def epoll() -> Iterator[EpollReactor]:
    reactor = EpollReactor()
    yield reactor
    reactor.close()


def settle(reactor: EpollReactor, turns: int = 10) -> None:
    for _ in range(turns):
        reactor.turn(0.01)


def test_hooks_of_a_scope_run_only_after_turns_of_its_own(epoll: EpollReactor) -> None:
    one, other = Scope(epoll), Scope(epoll)
    ran: list[str] = []
    epoll.at_turn_end(lambda: ran.append("base"))
    one.at_turn_end(lambda: ran.append("one"))
    other.at_turn_end(lambda: ran.append("other"))
    settle(epoll)
    ran.clear()
    one.call_soon(lambda: None)
    epoll.turn(0.01)
    assert ran == ["base", "one"]


def test_timers_come_in_order_and_wake_the_loop() -> None:
    base = SimulatedReactor()
    scope = Scope(base)
    came: list[tuple[str, float]] = []
    scope.call_later(2.0, lambda: came.append(("b", base.monotonic())))
    scope.call_later(1.0, lambda: came.append(("a", base.monotonic())))
    gone = scope.call_later(1.5, lambda: came.append(("gone", 0.0)))
    gone.cancel()
    start = base.monotonic()
    while base.turn():
        pass
    assert [(name, at - start) for name, at in came] == [("a", 1.0), ("b", 2.0)]


def test_a_timer_of_a_timer() -> None:
    base = SimulatedReactor()
    scope = Scope(base)
    start = base.monotonic()
    came: list[float] = []

    def again() -> None:
        came.append(base.monotonic() - start)
        if len(came) < 3:
            scope.call_later(1.0, again)

    scope.call_later(1.0, again)
    while base.turn():
        pass
    assert came == [1.0, 2.0, 3.0]


def test_a_scope_of_a_scope_is_its_sibling(epoll: EpollReactor) -> None:
    outer = Scope(epoll)
    inner = Scope(outer)
    ran: list[str] = []
    inner.call_soon(lambda: ran.append("inner"))
    outer.close()
    settle(epoll)
    assert ran == ["inner"]


def test_closed_it_is_never_called_again(epoll: EpollReactor) -> None:
    scope = Scope(epoll)
    ran: list[str] = []
    readable, writable = os.pipe()
    try:
        scope.add_reader(readable, lambda: ran.append("reader"))
        scope.call_later(0.0, lambda: ran.append("timer"))
        scope.call_soon(lambda: ran.append("soon"))
        scope.at_turn_end(lambda: ran.append("hook"))
        scope.set_polled(lambda: bool(ran.append("polled")))
        os.write(writable, b"x")
        scope.close()
        scope.close()
        settle(epoll)
        assert ran == []
        epoll.add_reader(readable, lambda: ran.append("anew"))  # the base has forgotten it
        epoll.turn(0.1)
        epoll.remove(readable)
        assert ran == ["anew"]
    finally:
        os.close(readable)
        os.close(writable)


def test_one_that_closes_itself_in_a_callback(epoll: EpollReactor) -> None:
    scope = Scope(epoll)
    ran: list[str] = []
    scope.at_turn_end(lambda: ran.append("hook"))
    scope.call_soon(scope.close)
    scope.call_soon(lambda: ran.append("after"))
    settle(epoll)
    assert "after" not in ran


def test_polled_sources_of_several_owners(epoll: EpollReactor) -> None:
    first, second = Scope(epoll), Scope(epoll)
    polls: dict[str, int] = {"base": 0, "first": 0, "second": 0}

    def source(name: str) -> bool:
        polls[name] += 1
        return False

    epoll.set_polled(lambda: source("base"))
    first.set_polled(lambda: source("first"))
    second.set_polled(lambda: source("second"))
    settle(epoll, 3)
    assert all(count >= 3 for count in polls.values())
    first.set_polled(None)
    before = dict(polls)
    settle(epoll, 3)
    assert polls["first"] == before["first"]
    assert polls["second"] > before["second"]
    assert polls["base"] > before["base"]


def test_setting_the_same_source_again_does_not_keep_the_loop_hot(epoll: EpollReactor) -> None:
    scope = Scope(epoll)
    polls = []

    def source() -> bool:
        polls.append(1)
        scope.set_polled(source)  # as a transport does after each look
        return False

    scope.set_polled(source)
    deadline = epoll.monotonic() + 0.2
    while epoll.monotonic() < deadline:
        epoll.turn(0.05)
    assert len(polls) < 2000  # a hot loop polls some hundred thousand times


def test_errors_stay_within_the_scope(epoll: EpollReactor) -> None:
    scope = Scope(epoll)
    seen: list[BaseException] = []
    scope.on_error = seen.append
    ran: list[str] = []

    def fail() -> None:
        raise RuntimeError("mine")

    scope.call_soon(fail)
    scope.call_soon(lambda: ran.append("next"))
    settle(epoll)
    assert [str(error) for error in seen] == ["mine"]
    assert ran == ["next"]


def test_a_reactor_that_polls_nothing_says_so() -> None:
    base: Reactor = SimulatedReactor()
    with pytest.raises(NotImplementedError, match="polls nothing"):
        base.set_polled(lambda: False)
