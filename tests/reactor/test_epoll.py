"""The real reactor: descriptors that become ready, and sources that can only be polled."""

import os
import socket

import pytest

from flux_mpi.reactor.epoll import POLL_MAX_S, POLL_MIN_S, EpollReactor


@pytest.fixture
def reactor():
    real = EpollReactor()
    yield real
    real.close()


@pytest.fixture
def pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def test_a_reader_is_called_while_there_is_something_to_read(reactor, pair):
    here, there = pair
    got = []
    reactor.add_reader(here.fileno(), lambda: got.append(here.recv(1)))
    there.send(b"ab")
    reactor.turn(1)
    reactor.turn(1)
    assert got == [b"a", b"b"]
    reactor.remove(here.fileno())
    there.send(b"c")
    reactor.turn(0)
    assert got == [b"a", b"b"]


def test_a_hang_up_reaches_the_reader(reactor, pair):
    here, there = pair
    got = []
    reactor.add_reader(here.fileno(), lambda: got.append(here.recv(1)))
    there.close()
    reactor.turn(1)
    assert got == [b""]


def test_a_writer_is_called_until_it_is_removed(reactor, pair):
    here, _ = pair
    calls = []
    reactor.add_reader(here.fileno(), lambda: calls.append("read"))
    reactor.add_writer(here.fileno(), lambda: calls.append("write"))
    reactor.turn(1)
    reactor.remove_writer(here.fileno())
    reactor.remove_writer(here.fileno())
    reactor.turn(0)
    assert calls == ["write"]


def test_a_callback_may_remove_and_close_another_of_the_same_turn(reactor):
    pairs = [socket.socketpair() for _ in range(2)]
    closed = []

    def close_all():
        for here, _ in pairs:
            if here.fileno() >= 0:
                reactor.remove(here.fileno())
                here.close()
                closed.append(here)

    for here, there in pairs:
        reactor.add_reader(here.fileno(), close_all)
        there.send(b"x")
    reactor.turn(1)
    assert len(closed) == 2
    reactor.turn(0)
    for _, there in pairs:
        there.close()


def test_a_reader_may_be_replaced(reactor, pair):
    here, there = pair
    calls = []
    reactor.add_reader(here.fileno(), lambda: calls.append("old"))
    reactor.add_reader(here.fileno(), lambda: calls.append("new"))
    there.send(b"x")
    reactor.turn(1)
    assert calls == ["new"]


def test_run_turns_until_stopped(reactor):
    reactor.call_later(0.001, reactor.stop)
    reactor.run()
    assert reactor._next_due() is None


def test_a_turn_waits_no_longer_than_told(reactor):
    reactor.turn(0)  # would wait for ever without a bound: there is nothing to wait for


def test_a_polled_source_is_polled_ever_more_rarely_until_it_has_something(reactor):
    answers = []
    reactor.set_polled(lambda: answers.pop() if answers else False)
    reactor._hot_until = 0.0
    for _ in range(20):
        reactor.turn()
    assert reactor._pause == POLL_MAX_S
    answers.append(True)
    reactor.turn()
    assert reactor._pause == POLL_MIN_S
    reactor.set_polled(None)
    reactor.turn(0)


def test_remove_is_idempotent(reactor):
    read, write = os.pipe()
    reactor.add_reader(read, lambda: None)
    reactor.remove(read)
    reactor.remove(read)
    os.close(read)
    os.close(write)
