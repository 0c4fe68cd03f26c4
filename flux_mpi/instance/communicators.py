"""Transports of child instances over MPI: sub-communicators, or contexts on the world's.

``MPI_Comm_create_group`` blocks until every member has called it, so a thread of its own does it,
one for each creation; the broker's loop goes on meanwhile. The cores of ``overlay/creation.py`` see
to it that all members come at about the same time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

from flux_mpi.instance.world import Newborn
from flux_mpi.overlay.creation import CONTEXT
from flux_mpi.overlay.mpi import Bell, MPITransport
from flux_mpi.overlay.transport import Transport
from flux_mpi.reactor import Reactor

LIVE_LIMIT = 1500
"""Communicators at once: MPICH has 2,048 context ids, of which a group must find a common one."""
FIRST_TAG = 16
"""Contexts have the tags from here on; the outermost instance has tag 1."""


class Communicators:
    """Makes what children of the instance on ``comm`` talk over. ``doorbell``: as for that one."""

    def __init__(
        self,
        comm: MPI.Intracomm,
        reactor: Reactor,
        *,
        doorbell: bool = True,
        lost_after_s: float = 60.0,
        limit: int = LIVE_LIMIT,
    ) -> None:
        self._comm = comm
        self._group = comm.Get_group()
        self._reactor = reactor
        self._doorbell = doorbell
        self._lost_after_s = lost_after_s
        threads = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self.limit = limit if threads else 0
        self._tags = int(comm.Get_attr(MPI.TAG_UB) or 32767) - FIRST_TAG
        self._left: list[MPITransport] = []
        """Transports of instances that did not end in good order: messages may yet come."""
        self.blocked = 0
        """Threads that have not come back."""

    def bell(self, folder: str) -> Bell | None:
        """What a member's neighbours ring. Raises OSError."""
        return Bell(os.path.join(folder, "bell")) if self._doorbell else None

    def make(
        self,
        birth: Newborn,
        mode: str,
        ticket: int,
        done: Callable[[Transport | None, str], object],
    ) -> None:
        """See ``world.Maker``."""
        # Downwards: of several calls on one communicator Open MPI lets the lowest tag go on, so one
        # that a death has left inside keeps none with a later ticket.
        tag = FIRST_TAG + self._tags - 1 - ticket % self._tags
        if mode == CONTEXT:
            done(self._transport(birth, self._comm, tag, birth.members), "")
            return
        group = self._group.Incl(birth.members)
        self.blocked += 1

        def made(comm: MPI.Comm | None, why: str) -> None:
            self.blocked -= 1
            group.Free()
            # The same tag for its messages: MPICH may hand what was left unreceived on a freed
            # communicator to the next one with its number.
            done(None if comm is None else self._transport(birth, comm, tag, None), why)

        try:
            _in_thread(self._reactor, lambda: self._comm.Create_group(group, tag), made)
        except (OSError, RuntimeError) as error:  # no descriptor or no thread is left to us
            made(None, str(error))

    def _transport(
        self, birth: Newborn, comm: MPI.Comm, tag: int, peers: list[int] | None
    ) -> MPITransport:
        return MPITransport(
            comm,
            birth.reactor,
            birth.index,
            birth.hosts,
            birth.bells,
            bell=birth.bell,
            tag=tag,
            peers=peers,
            lost_after_s=self._lost_after_s,
        )

    def free(self, transport: Transport, orderly: bool) -> None:
        """See ``world.Maker``."""
        assert isinstance(transport, MPITransport)
        transport.close()
        if not orderly:
            # A message on its way to a freed communicator could reach the next one with its number.
            self._left.append(transport)
        elif transport.comm != self._comm:
            transport.comm.Free()

    def discard(self) -> None:
        """Take in what has come late: MPI does not finalize over messages nobody received."""
        for transport in self._left:
            transport.discard()


def _in_thread(
    reactor: Reactor, call: Callable[[], Any], then: Callable[[Any, str], object]
) -> None:
    """Run ``call`` in a thread, and ``then(result, "")`` or ``then(None, why)`` in the loop.

    Raises OSError or RuntimeError when there can be no thread.
    """
    import threading  # brokers without children of several ranks do without

    done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    result: list[Any] = [None, ""]

    def work() -> None:
        try:
            result[0] = call()
        except MPI.Exception as error:
            result[1] = str(error)
        os.eventfd_write(done, 1)

    def finish() -> None:
        thread.join()
        reactor.remove(done)
        os.close(done)
        then(*result)

    # A daemon: one that somebody's death keeps in MPI must not keep this process.
    thread = threading.Thread(target=work, name="create-group", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        os.close(done)
        raise
    reactor.add_reader(done, finish)
