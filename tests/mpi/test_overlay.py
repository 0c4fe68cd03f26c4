"""Brokers over a real communicator: what goes in comes out, whatever its size and pace."""

import contextlib
import errno
import gc
import itertools
import os
import tempfile
import weakref

import pytest

from flux_mpi.broker.broker import Broker
from flux_mpi.overlay.mpi import CHUNK, CREDITS, RETURN_AT, MPITransport
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor.epoll import EpollReactor
from flux_mpi.reactor.scope import Scope

pytestmark = pytest.mark.mpi(min_size=2)


def comm():
    from mpi4py import MPI

    return MPI.COMM_WORLD


# What one test leaves unreceived must not reach the next.
tags = itertools.count(1)


@contextlib.contextmanager
def broker(fanout=2, doorbell=True, **options):
    """A broker on every rank that offers ``echo``; drains on the way out."""
    with tempfile.TemporaryDirectory() as rundir:
        reactor = EpollReactor()
        transport = MPITransport.boot(
            comm(), reactor, rundir, os.uname().nodename,
            doorbell=doorbell, tag=next(tags), **options,
        )  # fmt: skip
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
            transport.discard()  # tests part without a farewell
            assert not failures


def turn_until(this, done, bound_s=20):
    """Turn this rank alone."""
    deadline = this.reactor.monotonic() + bound_s
    while not done():
        this.reactor.turn(0.002)
        assert this.reactor.monotonic() < deadline, "it never came"


def serve_until_all(this, done):
    """Turn until every rank is ``done``; all keep serving the others meanwhile."""
    arrived = None
    deadline = this.reactor.monotonic() + 20
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


@pytest.mark.parametrize("doorbell", [True, False])
def test_a_peer_that_takes_nothing_is_sent_no_more_than_its_credits(doorbell):
    """Rank 1 stands still: what waits for it waits at rank 0, and hinders nobody else."""
    messages, size = 10 * CREDITS, CHUNK - 100
    with broker(doorbell=doorbell) as this:
        seen = []
        this.register("sink", {"put": lambda request: seen.append(request.payload[0])})
        others = [rank for rank in range(this.size) if rank != 1 and this.tree.parent(rank) != 1]
        describe = this.transport.describe
        gate = comm().Dup()
        if this.rank == 1:
            gate.recv(source=0)
        elif this.rank == 0:
            for number in range(messages):
                this.send("sink.put", [number, bytes(size)], rank=1)
            answers = []
            for rank in others:
                this.rpc("echo.back", rank, lambda r: answers.append(r.check()), rank=rank)
            turn_until(this, lambda: len(answers) == len(others) and not describe(1)["credits"])
            link = describe(1)
            assert link["stalls"] > 0
            assert link["sent_bytes"] <= CREDITS * CHUNK
            assert link["sent_bytes"] + link["backlog"] > messages * size
            assert not this.transport.drained()
            gate.send(None, dest=1)
        serve_until_all(this, lambda: this.rank != 1 or len(seen) == messages)
        assert seen == (list(range(messages)) if this.rank == 1 else [])
        if this.rank == 0:
            turn_until(this, lambda: describe(1)["credits"] > CREDITS - RETURN_AT)
            turn_until(this, this.transport.drained)
            assert describe(1)["backlog"] == 0
        gate.Free()


def test_the_last_words_of_a_peer_come_before_its_loss():
    with broker() as this:
        heard = []
        this.register("sink", {"put": lambda request: heard.append(len(request.payload))})
        this.on_peer_lost.append(lambda peer, why: heard.append((peer, why)))
        everyone_up(this)
        if this.rank == 1:
            this.send("sink.put", bytes(3 * CHUNK), rank=0)
            turn_until(this, this.transport.drained)
            this.transport.close()  # as its process would that ends
        expected = {0: 2, 3: 1, 4: 1}.get(this.rank, 0)
        serve_until_all(this, lambda: len(heard) == expected)
        lost = (1, "its process ended")
        assert heard == {0: [3 * CHUNK, lost], 3: [lost], 4: [lost]}.get(this.rank, [])
        if this.rank == 0:
            errors = []
            this.rpc("echo.back", None, lambda r: errors.append(r.errnum), rank=1)
            assert errors == [errno.EHOSTUNREACH]


def test_a_peer_without_a_bell_is_lost_when_it_falls_silent():
    """And one that merely has nothing to say is not."""
    with broker(doorbell=False, lost_after_s=2.0) as this:
        lost, answers = [], []
        this.on_peer_lost.append(lambda peer, why: lost.append(peer))
        this.register("never", {"answers": lambda request: None})
        everyone_up(this)
        gate = comm().Dup()
        if this.rank == 1:
            gate.recv(source=0)
            this.transport.close()
        elif this.rank == 0:
            this.rpc("never.answers", None, lambda r: answers.append(r.errnum), rank=1)
            turn_until(this, lambda: bool(answers))
            assert answers == [errno.EHOSTUNREACH]
            gate.send(None, dest=1)
        serve_until_all(this, lambda: this.rank not in (0, 3, 4) or bool(lost))
        assert lost == ([1] if this.rank in (0, 3, 4) else [])
        gate.Free()


def everyone_up(this):
    """Bells are hung and heard: every neighbour has answered."""
    answers = []
    neighbours = [*this.children, *([] if this.parent is None else [this.parent])]
    for rank in neighbours:
        this.rpc("echo.back", rank, lambda r: answers.append(r.check()), rank=rank)
    serve_until_all(this, lambda: len(answers) == len(neighbours))


def test_what_is_kept_of_a_closed_transport_does_not_keep_its_broker():
    with tempfile.TemporaryDirectory() as rundir:
        reactor = EpollReactor()
        scope = Scope(reactor)
        transport = MPITransport.boot(comm(), scope, rundir, os.uname().nodename, tag=next(tags))
        this = Broker(scope, transport, Tree(transport.hosts, 2), uid=os.getuid())
        this.open()
        reactor.turn(0.002)
        scope.call_soon(this.open)  # never called
        transport.close()
        scope.close()
        scope.call_soon(this.open)
        reactor.turn(0.002)
        reactor.close()
        comm().Barrier()
        transport.discard()
        gone = weakref.ref(this)
        del this
        gc.collect()
        assert gone() is None
