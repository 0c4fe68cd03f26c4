"""Timers, deferred calls and hooks, on both reactors."""

import random

import pytest

from flux_mpi.reactor.base import COMPACT_AT
from flux_mpi.reactor.epoll import EpollReactor
from flux_mpi.reactor.simulated import SimulatedReactor


@pytest.fixture(params=["simulated", "epoll"])
def reactor(request):
    if request.param == "simulated":
        yield SimulatedReactor()
        return
    real = EpollReactor()
    yield real
    real.close()


def turn_until(reactor, done, turns=10_000):
    for _ in range(turns):
        if done():
            return
        reactor.turn()
    raise AssertionError("it never came")


def test_timers_run_in_the_order_they_are_due(reactor):
    ran = []
    for ms in (3, 1, 2, 1):
        reactor.call_later(ms / 1000, lambda ms=ms: ran.append(ms))
    turn_until(reactor, lambda: len(ran) == 4)
    assert ran == [1, 1, 2, 3]


def test_a_cancelled_timer_never_runs(reactor):
    ran = []
    timer = reactor.call_later(0.001, lambda: ran.append("cancelled"))
    assert timer.active
    timer.cancel()
    timer.cancel()
    assert not timer.active
    last = reactor.call_later(0.002, lambda: ran.append("kept"))
    turn_until(reactor, lambda: bool(ran))
    assert ran == ["kept"]
    assert not last.active
    last.cancel()


def test_a_timer_set_by_a_timer_waits_for_the_next_turn(reactor):
    """Even when it is due at once: on a simulated clock the turn would otherwise never end."""
    ran = []

    def again():
        ran.append(len(hooks))
        reactor.call_later(0, again)

    hooks = []
    reactor.at_turn_end(lambda: hooks.append(None))
    reactor.call_later(0, again)
    turn_until(reactor, lambda: len(ran) == 5)
    assert len(set(ran)) == 5


def test_a_deferred_call_that_defers_itself_runs_once_a_turn(reactor):
    ran = []

    def again():
        ran.append(None)
        reactor.call_soon(again)

    reactor.call_soon(again)
    for expected in (1, 2, 3):
        reactor.turn()
        assert len(ran) == expected


def test_hooks_run_after_the_turn_s_calls_in_order_of_registration(reactor):
    order = []
    reactor.at_turn_end(lambda: order.append("first"))
    reactor.at_turn_end(lambda: order.append("second"))
    reactor.call_soon(lambda: order.append("call"))
    reactor.turn()
    assert order == ["call", "first", "second"]


def test_a_failing_callback_is_reported_and_the_rest_run(reactor):
    errors, ran = [], []
    reactor.on_error = errors.append
    reactor.call_soon(lambda: 1 // 0)
    reactor.call_soon(lambda: ran.append("soon"))
    reactor.at_turn_end(lambda: [][0])
    reactor.at_turn_end(lambda: ran.append("hook"))
    reactor.turn()
    assert ran == ["soon", "hook"]
    assert [type(error) for error in errors] == [ZeroDivisionError, IndexError]


def test_cancelled_timers_do_not_pile_up(reactor):
    """A bound of an hour on each of many requests, all answered at once."""
    kept = reactor.call_later(3600, lambda: None)
    for _ in range(50 * COMPACT_AT):
        reactor.call_later(3600, lambda: None).cancel()
    assert kept.active
    assert len(reactor._timers) <= 2 * COMPACT_AT + 2


def test_compaction_loses_no_timer(reactor):
    chance = random.Random(7)
    ran, expected, timers = [], [], []
    for number in range(4 * COMPACT_AT):
        timers.append(
            (number, reactor.call_later(chance.random() / 100, lambda n=number: ran.append(n)))
        )
        if chance.random() < 0.8:
            _, victim = timers.pop(chance.randrange(len(timers)))
            victim.cancel()
    expected = [number for number, _ in timers]
    turn_until(reactor, lambda: len(ran) >= len(expected))
    assert sorted(ran) == expected


def test_simulated_time_passes_only_when_nothing_is_left_to_do():
    reactor = SimulatedReactor(start=100.0)
    seen = []
    reactor.call_later(50, lambda: seen.append(reactor.now()))
    reactor.call_soon(lambda: seen.append(reactor.now()))
    reactor.run()
    assert seen == [100.0, 150.0]
    assert not reactor.turn()


def test_simulated_time_stops_at_its_bound():
    reactor = SimulatedReactor(start=0.0)
    ran = []
    for at in (1, 2, 3):
        reactor.call_later(at, lambda at=at: ran.append(at))
    reactor.run(seconds=2)
    assert ran == [1, 2]
    assert reactor.now() == 2
    reactor.run(until=2.5)
    assert (ran, reactor.now()) == ([1, 2], 2.5)
    reactor.call_soon(reactor.stop)
    reactor.run()
    assert ran == [1, 2]
    reactor.run()
    assert ran == [1, 2, 3]
