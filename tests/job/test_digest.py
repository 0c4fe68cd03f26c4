"""Results of many jobs reach their stream complete, in order, and seldom."""

from flux_mpi.job.digest import HOLD_S, Digests
from flux_mpi.reactor.simulated import SimulatedReactor


class Stream:
    def __init__(self):
        self.open = True
        self.told = []

    def respond(self, payload):
        self.told.append(payload["done"])


def test_the_first_goes_at_once_and_the_rest_together():
    reactor, stream = SimulatedReactor(), Stream()
    digests = Digests(reactor)
    for job in range(100):
        digests.add(stream, [[job, 0]])
    assert stream.told == [[[0, 0]]]
    reactor.run(seconds=HOLD_S * 2)
    assert [len(done) for done in stream.told] == [1, 99]
    assert [entry[0] for done in stream.told for entry in done] == list(range(100))


def test_the_last_never_waits():
    reactor, stream = SimulatedReactor(), Stream()
    digests = Digests(reactor)
    digests.add(stream, [[0, 0]])
    digests.add(stream, [[1, 0]])
    digests.end(stream)
    assert stream.told == [[[0, 0]], [[1, 0]]]
    reactor.run(seconds=1)
    assert len(stream.told) == 2


def test_a_slow_trickle_is_not_held_back():
    reactor, stream = SimulatedReactor(), Stream()
    digests = Digests(reactor)
    for job in range(3):
        digests.add(stream, [[job, 0]])
        assert len(stream.told) == job + 1
        reactor.run(seconds=2 * HOLD_S)


def test_who_has_gone_is_told_nothing():
    reactor, stream = SimulatedReactor(), Stream()
    digests = Digests(reactor)
    digests.add(stream, [[0, 0]])
    digests.add(stream, [[1, 0]])
    digests.forget(stream)
    reactor.run(seconds=1)
    assert stream.told == [[[0, 0]]]
