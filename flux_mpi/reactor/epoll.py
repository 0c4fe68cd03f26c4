"""The real reactor: ``epoll`` for file descriptors, polled sources for what has none.

MPI offers no descriptor to wait on (measured in neither MPICH nor Open MPI), so a transport whose
peers cannot ring a doorbell registers as a *polled source*: while hot it is polled in every turn,
then ever more rarely, up to ``POLL_MAX``.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from flux_mpi.reactor.base import Callback, Reactor

POLL_HOT_S = 0.001
"""How long after the last message a polled source is polled without sleeping in between."""
FINE_S = 0.02
"""Waits shorter than this are worth a second system call that does not round to milliseconds."""
SPIN_S = 100e-6
"""How long to keep looking after a turn in which something happened, before sleeping: waking an
idle core takes tens of microseconds, and a round trip does that several times."""
POLL_MIN_S = 50e-6
POLL_MAX_S = 0.010


class EpollReactor(Reactor):
    """An event loop over epoll, for one thread."""

    def __init__(self) -> None:
        super().__init__()
        self._lively = False
        self.may_spin: Callable[[], bool] = lambda: False
        """Whether this process may use a core that nobody needs; asked before each spin."""
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._polled: dict[object, Callable[[], bool]] = {}
        self._pause = POLL_MIN_S
        self._hot_until = 0.0

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def add_reader(self, fd: int, callback: Callback) -> None:
        known = fd in self._readers
        self._readers[fd] = callback
        if not known:
            self._epoll.register(fd, select.EPOLLIN)

    def add_writer(self, fd: int, callback: Callback) -> None:
        self._writers[fd] = callback
        self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def remove_writer(self, fd: int) -> None:
        if self._writers.pop(fd, None) is not None and fd in self._readers:
            self._epoll.modify(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        self._writers.pop(fd, None)
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def set_polled(self, source: Callable[[], bool] | None, owner: object = None) -> None:
        if source is None:
            self._polled.pop(owner, None)
            return
        if self._polled.get(owner) == source:
            return
        self._polled[owner] = source
        self._pause = POLL_MIN_S
        self._hot_until = time.monotonic() + POLL_HOT_S

    def run(self) -> None:
        """Turn until ``stop``."""
        self._stopped = False
        while not self._stopped:
            self.turn()

    def turn(self, longest: float | None = None) -> None:
        """One turn; waits at most ``longest`` seconds (None = until something happens)."""
        timeout = longest
        if self._soon:
            timeout = 0.0
        else:
            due = self._next_due()
            if due is not None:
                wait = max(0.0, due - time.monotonic())
                timeout = wait if timeout is None else min(timeout, wait)
            if self._polled:
                pause = 0.0 if time.monotonic() < self._hot_until else self._pause
                timeout = pause if timeout is None else min(timeout, pause)
        if timeout is not None and 0 < timeout < FINE_S:
            # epoll.poll rounds up to milliseconds; select on the epoll descriptor does not.
            select.select((self._epoll.fileno(),), (), (), timeout)
            timeout = 0.0
        events = self._look(timeout)
        if not events:
            events = self._epoll.poll(timeout)
        self._lively = bool(events)
        readers, writers = self._readers, self._writers
        for fd, mask in events:
            if mask & select.EPOLLOUT:
                callback = writers.get(fd)
                if callback is not None:
                    self._call(callback)
            if mask & ~select.EPOLLOUT:
                callback = readers.get(fd)
                if callback is not None:
                    self._call(callback)
        if self._polled:
            found = [source() for source in tuple(self._polled.values())]  # each gets its turn
            if any(found):
                self._hot_until = time.monotonic() + POLL_HOT_S
                self._pause = POLL_MIN_S
            else:
                self._pause = min(POLL_MAX_S, self._pause * 2)
        self._run_due()
        self._run_hooks()

    def _look(self, timeout: float | None) -> list[tuple[int, int]]:
        """Events that come within ``SPIN_S`` of others, without having slept in between."""
        if not self._lively or timeout == 0.0 or not self.may_spin():
            return []
        until = time.monotonic() + (SPIN_S if timeout is None else min(SPIN_S, timeout))
        poll = self._epoll.poll
        events = poll(0)
        while not events and time.monotonic() < until:
            events = poll(0)
        return events

    def close(self) -> None:
        """Give the epoll descriptor back; the watched ones stay their owners'."""
        self._readers.clear()
        self._writers.clear()
        self._epoll.close()
