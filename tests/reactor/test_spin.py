"""Looking again before sleeping changes when a process sleeps, never what it does."""

import os

from flux_mpi.reactor.epoll import EpollReactor


def test_what_comes_while_spinning_is_handled_and_timers_keep_their_time():
    reactor = EpollReactor()
    asked = []
    reactor.may_spin = lambda: asked.append(1) or True
    r, w = os.pipe()
    seen = []
    try:
        reactor.add_reader(r, lambda: seen.append(os.read(r, 1)))
        os.write(w, b"a")
        reactor.turn(1.0)
        assert seen == [b"a"]
        os.write(w, b"b")
        reactor.turn(1.0)
        assert seen == [b"a", b"b"]
        assert asked
        fired = []
        reactor.call_later(0.00005, lambda: fired.append(1))
        reactor.turn(1.0)
        assert fired == [1]
    finally:
        reactor.remove(r)
        os.close(r)
        os.close(w)
        reactor.close()


def test_an_idle_reactor_sleeps_without_asking():
    reactor = EpollReactor()
    asked = []
    reactor.may_spin = lambda: asked.append(1) or True
    reactor.turn(0.001)
    reactor.turn(0.001)
    assert not asked
    reactor.close()
