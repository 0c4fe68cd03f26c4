"""Barriers and groups over a real communicator, with clients of every rank."""

import contextlib
import itertools
import os
import tempfile
import types

import pytest

from flux_mpi.broker.broker import Broker
from flux_mpi.broker.services import BrokerServices
from flux_mpi.message.message import FIRST_CLIENT, REQUEST, STREAMING, Message, pack
from flux_mpi.overlay.mpi import MPITransport
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor.epoll import EpollReactor

pytestmark = pytest.mark.mpi(min_size=1)

# What one test leaves unreceived must not reach the next; nor another file's.
tags = itertools.count(1001)
BOUND_S = 20


def comm():
    from mpi4py import MPI

    return MPI.COMM_WORLD


@contextlib.contextmanager
def broker(fanout=2):
    """A broker with its services on every rank, and ``ask`` for clients of its own."""
    with tempfile.TemporaryDirectory() as rundir:
        reactor = EpollReactor()
        transport = MPITransport.boot(comm(), reactor, rundir, os.uname().nodename, tag=next(tags))
        this = Broker(reactor, transport, Tree(transport.hosts, fanout), uid=os.getuid())
        for name in ("log-level", "log-ring-size"):
            this.attrs.set(name, "7")
        BrokerServices(this, {}, None)
        answers = {}
        numbers = itertools.count(FIRST_CLIENT)

        def take(client, message):
            answers[client].append((message.errnum, message.body))

        this.attach_clients(take, lambda: len(answers))

        def ask(topic, payload, streaming=False):
            client = types.SimpleNamespace(number=next(numbers))
            client.answers = answers[client.number] = []
            flags = STREAMING if streaming else 0
            message = Message(REQUEST, topic, pack(payload), tag=1, flags=flags)
            this.from_client(client.number, os.getuid(), message)
            return client

        this.open()
        try:
            yield this, ask
        finally:
            comm().Barrier()
            transport.close()
            reactor.close()
            comm().Barrier()
            transport.discard()  # tests part without a farewell


def serve(this, done):
    """Turn until every rank is ``done``; all keep serving the others meanwhile."""
    arrived = None
    deadline = this.reactor.monotonic() + BOUND_S
    while True:
        this.reactor.turn(0.002)
        assert this.reactor.monotonic() < deadline, "the ranks did not finish"
        if arrived is None:
            if done():
                arrived = comm().Ibarrier()
        elif arrived.Test():
            return


@pytest.mark.parametrize("fanout", [1, 2])
def test_clients_of_all_ranks_meet_again_and_again(fanout):
    """Five clients a rank go through twenty barriers of one name, each at its own pace."""
    rounds, clients = 20, 5
    nprocs = clients * comm().size
    with broker(fanout) as (this, ask):
        passed = [0] * clients
        waiting = {}

        def go_on():
            for k in range(clients):
                if k in waiting and waiting[k].answers:
                    assert waiting.pop(k).answers == [(0, None)]
                    passed[k] += 1
                if k not in waiting and passed[k] < rounds:
                    waiting[k] = ask("barrier.enter", {"name": "b", "nprocs": nprocs})
            assert max(passed) - min(passed) <= 1, "somebody went on before all had come"
            return min(passed) == rounds

        serve(this, go_on)
        assert this.router.inflight == 0


def test_who_leaves_a_barrier_fails_it_on_every_rank():
    with broker() as (this, ask):
        mine = ask("barrier.enter", {"name": "b", "nprocs": 99})
        last = comm().size - 1
        if this.rank == last:
            leaver = ask("barrier.enter", {"name": "b", "nprocs": 99, "who": "the one"})
        status = []

        def all_in():
            if not status:
                status.append(ask("barrier.status", {"name": "b"}))
            if status[0].answers:
                _, body = status[0].answers[0]
                if body["barriers"] == [["b", comm().size + 1, 99]]:
                    return True
                status.clear()
            return False

        serve(this, all_in)
        if this.rank == last:
            this.client_gone(leaver.number)
        serve(this, lambda: bool(mine.answers))
        ((errnum, text),) = mine.answers
        assert errnum
        assert f"the one on rank {last} left it" in text


def test_a_group_is_the_same_from_every_rank_and_shrinks_with_it():
    size, here = comm().size, comm().rank
    with broker() as (this, ask):
        watch = ask("groups.get", {"name": "g"}, streaming=True)
        joined = ask("groups.join", {"name": "g", "member": f"m.{here}"})
        members = set()

        def seen(expected):
            while watch.answers:
                errnum, body = watch.answers.pop(0)
                assert errnum == 0
                members.difference_update(body.get("left", []))
                members.update(body.get("members", body.get("joined")))
            return members == expected

        serve(this, lambda: seen({f"m.{rank}" for rank in range(size)}))
        assert joined.answers == [(0, None)]
        if here % 2:
            this.client_gone(joined.number)
        even = [f"m.{rank}" for rank in range(0, size, 2)]
        serve(this, lambda: seen(set(even)))
        get = ask("groups.get", {"name": "g"})
        serve(this, lambda: bool(get.answers))
        assert get.answers == [(0, {"members": even})]
