"""The life of one broker, from joining to leaving: pure, told what happened, says what to do.

The root waits for its ranks, runs the initial program, ends what still runs, and takes the tree
down from the leaves: a broker leaves once all below it have. Every wait has a bound; whoever
drives this core calls ``expired`` when the bound of the present level has passed.
"""

from __future__ import annotations

import signal
from typing import Protocol

JOIN, RUN, CLEANUP, SHUTDOWN, LEFT = "join", "run", "cleanup", "shutdown", "left"


class World(Protocol):
    """What a lifecycle does to the world."""

    def enter(self, level: str) -> None:
        """The level has changed: start its clock, log it."""

    def start_program(self) -> None:
        """Run the initial program."""

    def stop_program(self, now: bool) -> None:
        """End the initial program: politely, or at once."""

    def stop_jobs(self, now: bool) -> None:
        """Take no more jobs, end those there are: politely, or at once."""

    def stop_tree(self) -> None:
        """Tell the children to shut down."""

    def leave(self, status: int, orderly: bool) -> None:
        """Say goodbye to the parent and end this broker with ``status``."""


class Lifecycle:
    """One broker's level; ``children`` are the ranks directly below."""

    def __init__(self, world: World, *, root: bool, children: set[int]) -> None:
        self.world = world
        self.root = root
        self.children = set(children)
        self.level = JOIN
        self.status = 0
        self.orderly = True
        self._program_started = False
        self._program_ended = False
        self._jobs_ended = False
        self._signals = 0

    # -- what happened --------------------------------------------------------------------------

    def joined(self) -> None:
        """All ranks are there (root), or the link to the parent is open."""
        if self.level == JOIN:
            self._enter(RUN)
            if self.root:
                self._program_started = True
                self.world.start_program()

    def program_ended(self, status: int) -> None:
        """The initial program has ended; ``status`` as a shell reports it."""
        self._program_ended = True
        if self.level == RUN:
            self.status = status
            self._clean_up()
        else:
            self._cleaned()

    def jobs_ended(self) -> None:
        """No job is left."""
        self._jobs_ended = True
        self._cleaned()

    def signalled(self, signum: int) -> None:
        """A signal, here or relayed from another rank: the first is polite, the second is not."""
        if not self.root:
            return
        self._signals += 1
        if self._signals > 1:
            self.abort(128 + signum)
        elif self.level in (JOIN, RUN):
            self.status = 128 + signum
            self._clean_up()

    def shutdown(self) -> None:
        """Someone asked for an orderly end (root), or the parent says it is time (others)."""
        if not self.root:
            self._shut_down()
        elif self.level in (JOIN, RUN):
            self._clean_up()

    def child_gone(self, rank: int) -> None:
        """A child said goodbye or was lost."""
        self.children.discard(rank)
        if self.level == SHUTDOWN and not self.children:
            self._leave()

    def parent_lost(self) -> None:
        """Cut off from the root: nothing here can be reported any more, so end it."""
        if self.level != LEFT:
            self.orderly = False
            self.status = self.status or 1
            self._shut_down()

    def failed(self, status: int) -> None:
        """Joining went wrong."""
        self.status = status
        self.abort(status)

    def abort(self, status: int) -> None:
        """End everything at once; while shutting down already, wait for nobody any more."""
        if self.level == LEFT:
            return
        self.status = status
        self.orderly = False
        if self.level == SHUTDOWN:
            self._leave()
            return
        self.world.stop_jobs(now=True)
        self.world.stop_program(now=True)
        self._shut_down()

    def expired(self) -> None:
        """The bound of the present level has passed."""
        if self.level == JOIN:
            self.failed(1)
        elif self.level == CLEANUP:
            self.orderly = False
            self.world.stop_jobs(now=True)
            self.world.stop_program(now=True)
            self._shut_down()
        elif self.level == SHUTDOWN:
            self.orderly = False
            self._leave()

    # -- what to do -----------------------------------------------------------------------------

    def _enter(self, level: str) -> None:
        self.level = level
        self.world.enter(level)

    def _clean_up(self) -> None:
        self._enter(CLEANUP)
        if not self._program_started:
            self._program_ended = True  # it never will
        elif not self._program_ended:
            self.world.stop_program(now=False)
        self.world.stop_jobs(now=False)
        self._cleaned()

    def _cleaned(self) -> None:
        if self.level == CLEANUP and self._program_ended and self._jobs_ended:
            self._shut_down()

    def _shut_down(self) -> None:
        if self.level in (SHUTDOWN, LEFT):
            return
        self._enter(SHUTDOWN)
        self.world.stop_tree()
        if not self.children:
            self._leave()

    def _leave(self) -> None:
        self._enter(LEFT)
        self.world.leave(self.status, self.orderly)


def exit_status(wait_status: int) -> int:
    """A wait status as a shell reports it: the exit code, or 128 + the signal's number."""
    code = wait_status >> 8
    signum = wait_status & 0x7F
    return 128 + signum if signum else code


def signal_name(signum: int) -> str:
    """``SIGINT`` and so on, for messages."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
