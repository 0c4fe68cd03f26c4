"""Brokers over a real communicator: what goes in comes out, whatever its size and pace."""

import contextlib
import os
import tempfile

import pytest

from flux_mpi.broker.broker import Broker
from flux_mpi.overlay.mpi import CHUNK, MPITransport
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor.epoll import EpollReactor

pytestmark = pytest.mark.mpi(min_size=2)


def comm():
    from mpi4py import MPI

    return MPI.COMM_WORLD


@contextlib.contextmanager
def broker(fanout=2, doorbell=True):
    """A broker on every rank that offers ``echo``; drains on the way out."""
    with tempfile.TemporaryDirectory() as rundir:
        reactor = EpollReactor()
        transport = MPITransport(comm(), reactor, rundir, os.uname().nodename, doorbell=doorbell)
        this = Broker(reactor, transport, Tree(transport.hosts, fanout), uid=os.getuid())
        failures = []
        reactor.on_error = failures.append
        this.register("echo", {"back": lambda request: request.respond(request.payload)})
        this.open()
        try:
            yield this
        finally:
            comm().Barrier()
            transport.close()
            reactor.close()
            comm().Barrier()
            assert not failures


def serve_until_all(this, done):
    """Turn until every rank is ``done``; all keep serving the others meanwhile."""
    arrived = None
    deadline = this.reactor.monotonic() + 12
    while True:
        this.reactor.turn(0.002)
        assert this.reactor.monotonic() < deadline, "the ranks did not finish"
        if arrived is None:
            if done():
                arrived = comm().Ibarrier()
        elif arrived.Test():
            return


@pytest.mark.parametrize("doorbell", [True, False])
def test_every_rank_reaches_every_rank(doorbell):
    with broker(doorbell=doorbell) as this:
        answers = {}
        for to in range(this.size):
            this.rpc(
                "echo.back", [this.rank, to], lambda r, to=to: answers.update({to: r.check()}),
                rank=to,
            )  # fmt: skip
        serve_until_all(this, lambda: len(answers) == this.size)
        assert answers == {to: [this.rank, to] for to in range(this.size)}


@pytest.mark.parametrize("doorbell", [True, False])
def test_frames_of_any_size_arrive_whole(doorbell):
    sizes = [0, 1, CHUNK - 100, CHUNK, CHUNK + 1, 3 * CHUNK + 17, 1_000_000]
    with broker(doorbell=doorbell) as this:
        to = (this.rank + 1) % this.size
        got = []
        for size in sizes:
            this.rpc("echo.back", bytes(size), lambda r: got.append(len(r.check())), rank=to)
        serve_until_all(this, lambda: len(got) == len(sizes))
        assert got == sizes


def test_a_flood_is_ordered_and_leaves_nothing_behind():
    count = 5000
    with broker() as this:
        seen = []
        this.register("sink", {"put": lambda request: seen.append(request.payload)})
        if this.rank:
            for number in range(count):
                this.send("sink.put", [this.rank, number], rank=0)
        expected = count * (this.size - 1) if this.rank == 0 else 0
        serve_until_all(this, lambda: len(seen) >= expected)
        for rank in range(1, this.size):
            numbers = [number for sender, number in seen if sender == rank]
            assert numbers == (list(range(count)) if this.rank == 0 else [])


def test_events_reach_everyone_in_one_order():
    per_rank = 50
    with broker() as this:
        seen = []
        this.subscribe("tick", lambda topic, seq, payload: seen.append((seq, tuple(payload))))
        comm().Barrier()
        for number in range(per_rank):
            this.publish("tick", [this.rank, number])
        serve_until_all(this, lambda: len(seen) == per_rank * this.size)
        assert [seq for seq, _ in seen] == list(range(seen[0][0], seen[0][0] + len(seen)))
        everyone = comm().allgather([payload for _, payload in seen])
        assert all(order == everyone[0] for order in everyone)


def test_a_service_of_nobody_is_refused_at_once():
    with broker() as this:
        errors = []
        this.rpc("nothing.here", None, lambda r: errors.append(r.errnum))
        this.rpc("echo.back", None, lambda r: errors.append(r.errnum), rank=this.size)
        serve_until_all(this, lambda: len(errors) == 2)
        assert sorted(errors) == [38, 113]  # ENOSYS, EHOSTUNREACH
