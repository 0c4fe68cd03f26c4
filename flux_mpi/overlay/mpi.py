"""The overlay's links over an MPI communicator.

No call in here blocks. Each link is a byte stream cut into buffers of at most ``CHUNK`` bytes,
which MPICH's shared memory takes eagerly (measured: 8,100 bytes go at once, 8,192 wait for the
receiver to take part). A receiver gives *credits* back as it takes buffers in: MPICH stalls a
sender's traffic to everyone once about 64 small messages to one peer lie undrained.

MPI has no descriptor to sleep on, so neighbours on one node also hold a stream socket, the
*bell*. A ring says how many buffers were sent in all: a receiver that has had fewer keeps
probing, because a message can take more of MPI's progress than a fixed number of probes gives it
(measured: over UCX, three empty probes after a ring miss one in some hundreds). The end of a bell
says "that process is gone", at once and without heartbeats. Links without a bell (other nodes, or
a bell that failed) are polled, and carry an empty buffer now and then: MPI never tells that a peer
has died, only silence does.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgpack
from mpi4py import MPI

from flux_mpi.message.errors import FluxError
from flux_mpi.overlay.transport import Transport
from flux_mpi.reactor import Reactor

CHUNK = 8000
"""Bytes of stream in one buffer."""
CREDITS = 16
"""Buffers a peer may have undrained."""
RETURN_AT = 8
"""Credits given back at the latest once this many buffers were taken in."""
HEADER = struct.Struct(">I")
"""Each buffer begins with the credits it gives back."""
COUNT = struct.Struct(">I")
COUNT_MASK = 0xFFFFFFFF
BACKLOG_LIMIT = 512 << 20
"""Bytes that may wait for a peer that takes nothing, before it is given up."""
END_GRACE_S = 1.0
"""How long to look for what a process announced before it ended."""
BEATS = 6
"""Signs of life sent in the time after which a silent peer is given up."""
DIAL_BOUND_S = 10
"""How long a peer's bell may take to be answered; it is polled instead."""
EMPTY_PROBES = 3
"""Consecutive empty probes before sleeping: fewer leave messages behind a bell already heard."""

# MPICH has no such errors: there the names stand for ERR_UNKNOWN.
_DEATHS = frozenset((MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING)) - {MPI.ERR_UNKNOWN}

# Why a polling loop with a pause: at start-up there is no bell yet, a blocking collective would
# burn the cores that late ranks need to start, and MPI offers no third way.
_BOOT_PAUSE_S = 0.0005


class _Link:
    __slots__ = (
        "peer", "queue", "queued", "credits", "taken", "bell", "incoming", "rung", "announced",
        "muted", "ended", "last", "heard", "spoke", "sent_bytes", "received_bytes", "sent_buffers",
        "received_buffers", "stalls",
    )  # fmt: skip

    def __init__(self, peer: int, now: float) -> None:
        self.peer = peer
        self.muted = False  # a ring did not fit: the peer has yet to hear of our latest
        self.ended: float | None = None  # its process is gone: until when to wait for its last
        self.last = False  # what is queued is the last that it is sent
        self.heard = self.spoke = now
        self.queue: deque[bytes | memoryview] = deque()
        self.queued = 0
        self.credits = CREDITS
        self.taken = 0
        self.bell: socket.socket | None = None
        self.incoming: deque[tuple[Any, bytearray]] = deque()
        self.sent_bytes = self.received_bytes = 0
        self.sent_buffers = self.received_buffers = 0
        self.stalls = 0
        self.rung = bytearray()
        self.announced = 0


class Bell:
    """A socket that neighbours ring: bound before anyone is told its path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(path)
            self.socket.listen(256)
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)

    def close(self) -> None:
        """Nobody rings it any more. Idempotent."""
        self.socket.close()


class MPITransport(Transport):
    """Links among the ranks of an instance, over ``comm`` with messages of one ``tag``.

    ``hosts``, ``bells`` (paths of sockets, empty: it has none) and ``cards`` are everyone's, by
    rank. ``peers`` gives the rank in ``comm`` of each rank of the instance; None: they are the
    same. ``bell`` is this rank's own, and the transport's to close.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        reactor: Reactor,
        rank: int,
        hosts: list[str],
        bells: list[str],
        *,
        bell: Bell | None = None,
        cards: list[Any] | None = None,
        tag: int = 1,
        peers: list[int] | None = None,
        lost_after_s: float = 60.0,
    ) -> None:
        super().__init__()
        self.comm = comm
        self.reactor = reactor
        self.rank = rank
        self.size = len(hosts)
        self.tag = tag
        self.hosts = hosts
        self.cards = cards or [None] * self.size
        self._bells = bells
        self._bell = bell
        self._peers = peers
        self._ranks = None if peers is None else {peer: i for i, peer in enumerate(peers)}
        self._status = MPI.Status()
        self._links: dict[int, _Link] = {}
        self._dirty: set[int] = set()
        self._beat_s = lost_after_s / BEATS
        self._lost_after_s = lost_after_s
        # Sends under way, and receives from dropped peers; a request keeps its buffer alive.
        self._unfinished: deque[tuple[MPI.Request, int]] = deque()
        self._receiving = 0
        self._strangers: dict[socket.socket, bytearray] = {}
        self._closed = False

    @classmethod
    def boot(
        cls,
        comm: MPI.Comm,
        reactor: Reactor,
        rundir: str,
        hostname: str,
        *,
        tag: int = 1,
        card: Any = None,
        doorbell: bool = True,
        timeout_s: float = 60.0,
        lost_after_s: float = 60.0,
    ) -> MPITransport:
        """The transport of all ranks of ``comm``, which learn about each other: collective.

        Bells are made in ``rundir`` (a folder of this process alone, mode 0700). ``card`` is what
        this rank wants the others to know (msgpack). Raises FluxError (ETIMEDOUT).
        """
        size = comm.Get_size()
        bell = Bell(os.path.join(rundir, "bell")) if doorbell and size > 1 else None
        mine = [hostname, bell.path if bell else "", card]
        everyone = _exchange(comm, mine, time.monotonic() + timeout_s)
        return cls(
            comm,
            reactor,
            comm.Get_rank(),
            [each[0] for each in everyone],
            [each[1] for each in everyone],
            bell=bell,
            cards=[each[2] for each in everyone],
            tag=tag,
            lost_after_s=lost_after_s,
        )

    # -- opening --------------------------------------------------------------------------------

    def connect(self, parent: int | None, children: Iterable[int]) -> None:
        now = self.reactor.monotonic()
        for peer in children:
            self._links[peer] = _Link(peer, now)
        if parent is not None:
            link = self._links[parent] = _Link(parent, now)
            path = self._bells[parent]
            if path and self._bells[self.rank] and self.hosts[parent] == self.hosts[self.rank]:
                self._dial(link, path)
        if self._bell is not None:
            self.reactor.add_reader(self._bell.socket.fileno(), self._accept)
        self._watch()
        self.reactor.call_later(self._beat_s, self._beat)

    def _dial(self, link: _Link, path: str) -> None:
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A non-blocking connect would fail where the peer's queue is full for a moment.
        bell.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", DIAL_BOUND_S, 0))
        try:
            bell.connect(path)
            bell.setblocking(False)
            bell.send(self.rank.to_bytes(4, "big"))
        except OSError:
            bell.close()  # another container or mount: the link is polled instead
            return
        self._attach(link, bell)

    def _accept(self) -> None:
        while self._bell is not None:
            try:
                bell, _ = self._bell.socket.accept()
            except OSError:
                return
            bell.setblocking(False)
            credentials = bell.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if struct.unpack("3i", credentials)[1] != os.geteuid():
                bell.close()
                continue
            self._strangers[bell] = bytearray()
            self.reactor.add_reader(bell.fileno(), partial(self._introduce, bell))
            self._introduce(bell)

    def _introduce(self, bell: socket.socket) -> None:
        said = self._strangers.get(bell)
        if said is None:
            return
        try:
            data = bell.recv(4 - len(said))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        said += data
        if data and len(said) < 4:
            return
        del self._strangers[bell]
        self.reactor.remove(bell.fileno())
        link = self._links.get(int.from_bytes(said, "big")) if len(said) == 4 else None
        if link is None or link.bell is not None:
            bell.close()
            return
        self._attach(link, bell)

    def _attach(self, link: _Link, bell: socket.socket) -> None:
        link.bell = bell
        self.reactor.add_reader(bell.fileno(), lambda: self._rung(link))
        self._ring(link)  # what went out before this bell was heard of came without a ring
        self._watch()
        self._receive()

    # -- waiting --------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Poll if, and only if, something can arrive or finish without a bell."""
        blind = bool(self._unfinished or self._receiving) or any(
            link.bell is None or link.muted or self._owed(link) for link in self._links.values()
        )
        self.reactor.set_polled(self._poll if blind and not self._closed else None)

    def _poll(self) -> bool:
        before = len(self._unfinished)
        self._reap()
        busy = self._receive() > 0 or len(self._unfinished) < before
        if not busy:
            for link in list(self._links.values()):
                if link.ended is not None:
                    self._settle(link)
                elif link.muted or self._owed(link):
                    self._ring(link)  # wakes the sender: its MPI may have to take part
        self._watch()
        return busy

    def _ring(self, link: _Link) -> None:
        """Say how many buffers went out."""
        if link.bell is None:
            return
        link.muted = False
        try:
            link.bell.send(COUNT.pack(link.sent_buffers & COUNT_MASK))
        except BlockingIOError:
            link.muted = True  # many rings unread: ring again later, with the count of then
        except OSError:
            pass  # a broken bell is seen by its reader

    def _rung(self, link: _Link) -> None:
        bell = link.bell
        if bell is None:
            return
        try:
            data = bell.recv(4096)
            gone = not data
        except BlockingIOError:
            return
        except OSError:
            data, gone = b"", True
        link.rung += data
        whole = len(link.rung) // COUNT.size * COUNT.size
        if whole:
            (link.announced,) = COUNT.unpack_from(link.rung, whole - COUNT.size)
            del link.rung[:whole]
        if gone:
            self._silence(link)
            link.ended = self.reactor.monotonic() + END_GRACE_S
        self._receive()
        if gone:
            self._settle(link)
        if gone or self._owed(link):
            self._watch()

    def _silence(self, link: _Link) -> None:
        if link.bell is not None:
            self.reactor.remove(link.bell.fileno())
            link.bell.close()
            link.bell = None

    def _settle(self, link: _Link) -> None:
        """The peer's process has ended: it is lost once its last words are taken in."""
        if self._links.get(link.peer) is not link or link.ended is None:
            return
        if not self._owed(link) or self.reactor.monotonic() >= link.ended:
            self._lose(link, "its process ended")

    def _beat(self) -> None:
        """Give a sign of life on links that have no bell, and miss it in others."""
        if self._closed:
            return
        now = self.reactor.monotonic()
        for link in list(self._links.values()):
            if link.bell is not None or link.ended is not None:
                link.heard = now
            elif now - link.heard >= self._lost_after_s:
                self._lose(link, f"it was not heard for {now - link.heard:.0f} s")
            elif now - link.spoke >= self._beat_s / 2 and not link.last:
                self._isend(link, b"")
        self.reactor.call_later(self._beat_s, self._beat)

    @staticmethod
    def _owed(link: _Link) -> bool:
        """Whether the peer has announced more than has arrived."""
        behind = (link.announced - link.received_buffers) & COUNT_MASK
        return 0 < behind <= COUNT_MASK // 2

    def _lose(self, link: _Link, why: str) -> None:
        if self._links.get(link.peer) is not link:
            return
        self.drop(link.peer)
        self.on_lost(link.peer, why)

    # -- receiving ------------------------------------------------------------------------------

    def _receive(self) -> int:
        """Take in what has arrived; returns how many buffers."""
        status = self._status
        count = empty = 0
        if self._receiving:
            for link in list(self._links.values()):
                self._complete(link)
        while empty < EMPTY_PROBES and not self._closed:
            message = self._probe()
            if message is None:
                empty += 1
                continue
            empty = 0
            count += 1
            buffer = bytearray(status.Get_count(MPI.BYTE))
            peer = status.Get_source()
            if self._ranks is not None:
                peer = self._ranks.get(peer, -1)
            request = message.Irecv([buffer, MPI.BYTE])
            sender = self._links.get(peer)
            if sender is None:  # a late buffer of a dropped peer: take it out of MPI's way
                self._unfinished.append((request, -1))
                continue
            sender.heard = self.reactor.monotonic()
            if not sender.incoming and self._test(request):
                self._take(sender, buffer)
            else:
                sender.incoming.append((request, buffer))
                self._receiving += 1
                self._complete(sender)
        if self._receiving:
            self._watch()
        return count

    def _complete(self, link: _Link) -> None:
        while link.incoming:
            done = self._test(link.incoming[0][0])
            if done is False:
                return
            self._receiving -= 1
            _, buffer = link.incoming.popleft()
            if done:
                self._take(link, buffer)

    def _take(self, link: _Link, buffer: bytearray) -> None:
        (returned,) = HEADER.unpack_from(buffer)
        if returned:
            link.credits += returned
            if link.queue:
                self._dirty.add(link.peer)
        link.received_buffers += 1
        if len(buffer) == HEADER.size:
            return
        link.taken += 1
        link.received_bytes += len(buffer) - HEADER.size
        if link.taken >= RETURN_AT:
            self._dirty.add(link.peer)
        self.on_data(link.peer, bytes(memoryview(buffer)[HEADER.size :]))

    # -- sending --------------------------------------------------------------------------------

    def send(self, peer: int, data: bytes) -> None:
        link = self._links.get(peer)
        if link is None:
            return
        link.queue.append(data)
        link.queued += len(data)
        self._dirty.add(peer)

    def flush(self) -> None:
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, set()
        for peer in dirty:
            link = self._links.get(peer)
            if link is not None:
                self._flush(link)
        if self._unfinished:
            self._reap()
            if self._unfinished:
                self._watch()

    def _flush(self, link: _Link) -> None:
        sent = False
        while link.queue and link.credits:
            link.credits -= 1
            self._isend(link, self._cut(link))
            sent = True
        if link.queue:
            link.stalls += 1
            if link.queued > BACKLOG_LIMIT:
                # Not from here: what follows from a loss may want to send.
                self.reactor.call_soon(partial(self._lose, link, "it takes nothing any more"))
        if link.taken >= RETURN_AT:
            # Nothing to say but "go on": costs no credit, and there are never more than a few.
            self._isend(link, b"")
            sent = True
        if sent:
            self._ring(link)
        if link.last and not link.queue:
            self.drop(link.peer)

    def _cut(self, link: _Link) -> bytes:
        """The next buffer's worth of the link's queue."""
        queue, room = link.queue, CHUNK
        parts: list[bytes | memoryview] = []
        while queue and len(queue[0]) <= room:
            room -= len(queue[0])
            parts.append(queue.popleft())
        if queue and room:
            head = memoryview(queue[0])  # a view: cutting a 64 MiB frame must not copy its rest
            parts.append(head[:room])
            queue[0] = head[room:]
        part = b"".join(parts)
        link.queued -= len(part)
        return part

    def _isend(self, link: _Link, part: bytes) -> None:
        buffer = HEADER.pack(link.taken) + part
        link.taken = 0
        try:
            peer = link.peer if self._peers is None else self._peers[link.peer]
            request = self.comm.Isend([buffer, MPI.BYTE], peer, self.tag)
        except MPI.Exception as error:
            self._go_on(error)
            return  # to someone who has died: its link will be lost as well
        link.sent_buffers += 1
        link.sent_bytes += len(part)
        link.spoke = self.reactor.monotonic()
        if not self._over(request):
            self._unfinished.append((request, link.peer))

    def _reap(self) -> None:
        for _ in range(len(self._unfinished)):
            request, peer = self._unfinished.popleft()
            if not self._over(request):
                self._unfinished.append((request, peer))

    # -- MPI that tells of deaths -----------------------------------------------------------------

    # Open MPI under ``mpiexec --with-ft ulfm`` fails calls that a dead rank may concern. Bells and
    # silence tell us of deaths, as with any MPI; here it only matters to go on.

    def _probe(self) -> MPI.Message | None:
        try:
            return self.comm.Improbe(MPI.ANY_SOURCE, self.tag, self._status)
        except MPI.Exception as error:
            self._go_on(error)
            return None

    def _test(self, request: MPI.Request) -> bool | None:
        """Whether a request is done; None: it never will be."""
        try:
            return bool(request.Test())
        except MPI.Exception as error:
            self._go_on(error)
            return False if error.Get_error_class() == MPI.ERR_PROC_FAILED_PENDING else None

    def _over(self, request: MPI.Request) -> bool:
        return self._test(request) is not False

    def _go_on(self, error: MPI.Exception) -> None:
        if error.Get_error_class() not in _DEATHS:
            raise error
        self.comm.Ack_failed(self.comm.Get_failed().Get_size())

    # -- the rest -------------------------------------------------------------------------------

    def backlog(self, peer: int) -> int:
        link = self._links.get(peer)
        return link.queued if link else 0

    def drained(self) -> bool:
        # What a dropped peer was sent may never arrive, and need not.
        return not any(link.queue for link in self._links.values()) and not any(
            peer in self._links for _, peer in self._unfinished
        )

    def release(self, peer: int) -> None:
        link = self._links.get(peer)
        if link is not None:
            link.last = True
            self._dirty.add(peer)

    def describe(self, peer: int) -> dict[str, object]:
        link = self._links.get(peer)
        if link is None:
            return {}
        return {
            "backlog": link.queued,
            "credits": link.credits,
            "bell": link.bell is not None,
            "sent_bytes": link.sent_bytes,
            "received_bytes": link.received_bytes,
            "sent_buffers": link.sent_buffers,
            "received_buffers": link.received_buffers,
            "stalls": link.stalls,
        }

    def drop(self, peer: int) -> None:
        link = self._links.pop(peer, None)
        if link is None:
            return
        self._dirty.discard(peer)
        self._receiving -= len(link.incoming)
        self._unfinished.extend((request, -1) for request, _ in link.incoming)
        link.incoming.clear()
        self._silence(link)
        self._watch()

    def close(self) -> None:
        if self._closed:
            return
        for peer in list(self._links):
            self.drop(peer)
        for bell in self._strangers:
            self.reactor.remove(bell.fileno())
            bell.close()
        self._strangers.clear()
        if self._bell is not None:
            self.reactor.remove(self._bell.socket.fileno())
            self._bell.close()
            self._bell = None
        self._closed = True
        self.reactor.set_polled(None)
        # It may be kept for the sake of what comes late: not so the broker that this was for.
        self.on_data = lambda peer, data: None
        self.on_lost = lambda peer, why: None
        self.discard()

    def discard(self) -> int:
        """Take in what has come on closed links and throw it away; returns how many buffers.

        MPICH refuses to finalize while a message lies unreceived.
        """
        count = empty = 0
        while empty < EMPTY_PROBES:
            message = self._probe()
            if message is None:
                empty += 1
                continue
            empty = 0
            count += 1
            buffer = bytearray(self._status.Get_count(MPI.BYTE))
            request = message.Irecv([buffer, MPI.BYTE])
            if not self._over(request):
                self._unfinished.append((request, -1))
        return count


def _exchange(comm: MPI.Comm, mine: list[Any], deadline: float) -> list[list[Any]]:
    """Everyone's card, by rank. Raises FluxError (ETIMEDOUT)."""
    packed = msgpack.packb(mine)
    longest = bytearray(4)
    _await(
        comm,
        comm.Iallreduce(
            [len(packed).to_bytes(4, sys.byteorder), 1, MPI.INT32_T],
            [longest, 1, MPI.INT32_T],
            MPI.MAX,
        ),
        deadline,
    )
    width = int.from_bytes(longest, sys.byteorder)
    everyone = bytearray(width * comm.Get_size())
    _await(
        comm,
        comm.Iallgather([packed.ljust(width, b"\0"), width, MPI.BYTE], [everyone, width, MPI.BYTE]),
        deadline,
    )
    cards = []
    for at in range(0, len(everyone), width):
        reader = msgpack.Unpacker()
        reader.feed(everyone[at : at + width])
        cards.append(reader.unpack())  # what pads a shorter card is left unread
    return cards


def _await(comm: MPI.Comm, request: MPI.Request, deadline: float) -> None:
    while not request.Test():
        if time.monotonic() > deadline:
            raise FluxError(errno.ETIMEDOUT, f"not all {comm.Get_size()} ranks came up in time")
        time.sleep(_BOOT_PAUSE_S)
