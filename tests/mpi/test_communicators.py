"""Communicators of child instances, made in threads of their own."""

import errno
import os
import threading

import pytest

from flux_mpi.instance.communicators import Communicators
from flux_mpi.instance.world import Newborn
from flux_mpi.overlay.creation import COMMUNICATOR
from flux_mpi.reactor.epoll import EpollReactor

pytestmark = pytest.mark.mpi(min_size=1)
BOUND_S = 20


def create(maker, reactor, ticket):
    """What comes of a child of all ranks."""
    members = list(range(maker._comm.Get_size()))
    hosts = ["here"] * len(members)
    found = []
    birth = Newborn(f"/{ticket}", members, maker._comm.Get_rank(), reactor, None, print, hosts)
    birth.bells = [""] * len(members)
    maker.make(birth, COMMUNICATOR, ticket, lambda *made: found.append(made))
    deadline = reactor.monotonic() + BOUND_S
    while not found:
        reactor.turn(0.002)
        assert reactor.monotonic() < deadline, "it never came"
    return found[0]


@pytest.fixture
def maker():
    from mpi4py import MPI

    reactor = EpollReactor()
    yield Communicators(MPI.COMM_WORLD, reactor, doorbell=False), reactor
    reactor.close()


def test_a_communicator_of_all(maker):
    transport, why = create(*maker, 1)
    assert why == ""
    assert transport.comm.Get_size() == maker[0]._comm.Get_size()
    assert maker[0].blocked == 0
    maker[0].free(transport, True)


@pytest.mark.parametrize("lacking", ["descriptor", "thread"])
def test_without_a_descriptor_or_a_thread_there_is_none(maker, monkeypatch, lacking):
    def refuse(*args):
        if lacking == "descriptor":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        raise RuntimeError("can't start new thread")

    if lacking == "descriptor":
        monkeypatch.setattr(os, "eventfd", refuse)
    else:
        monkeypatch.setattr(threading.Thread, "start", refuse)
    transport, why = create(*maker, 2)
    assert transport is None
    assert why
    assert maker[0].blocked == 0
    monkeypatch.undo()
    transport, why = create(*maker, 3)
    assert why == ""
    maker[0].free(transport, True)
