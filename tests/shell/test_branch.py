"""A share of the line to the supervisor: what it ends is its own, and all of it."""

from __future__ import annotations

from typing import Any

from flux_mpi.reactor.simulated import SimulatedReactor
from flux_mpi.shell.branch import Branch
from flux_mpi.sim.launcher import SimulatedLink


class Share:
    """A branch of a simulated line, and what was reported to it."""

    def __init__(self, reactor: SimulatedReactor, link: SimulatedLink) -> None:
        self.reactor = reactor
        self.link = link
        self.branch = Branch(link, reactor)  # type: ignore[arg-type]  # the same face
        self.reports: list[list[Any]] = []
        self.branch.take = self.reports.append
        self.emptied: list[float] = []

    def spawn(self, seconds: int, after: int = 0) -> int:
        tid = self.branch.next_tid()
        self.order(tid, seconds, after)
        return tid

    def order(self, tid: int, seconds: int, after: int = 0) -> None:
        entry = ["spawn", tid, [b"sleep", b"%d" % seconds]]
        self.branch.command(["after", after, entry] if after else entry)

    def of(self, kind: str) -> list[int]:
        return [report[1] for report in self.reports if report[0] == kind]

    def empty_after(self) -> float:
        """Seconds until no task of it is left."""
        began = self.reactor.monotonic()
        ends: list[float] = []
        self.branch.when_empty(lambda: ends.append(self.reactor.monotonic()))
        self.reactor.run(seconds=10_000)
        (end,) = ends
        return end - began


def shares() -> tuple[Share, Share]:
    reactor = SimulatedReactor()
    link = SimulatedLink(reactor)
    return Share(reactor, link), Share(reactor, link)


def test_it_ends_its_own_tasks_and_no_others() -> None:
    mine, other = shares()
    a, b, foreign = mine.spawn(1000), mine.spawn(1000), other.spawn(50)
    mine.branch.shutdown(0.0)
    assert mine.empty_after() == 0
    assert mine.of("exited") == [a, b]
    assert other.of("exited") == [foreign]
    assert other.reports[-1][2] == 0


def test_who_was_to_follow_a_killed_task_never_starts() -> None:
    mine, _ = shares()
    first = mine.spawn(1000)
    second = mine.spawn(1000, after=first)
    third = mine.spawn(1000, after=second)
    mine.branch.shutdown(0.0)
    assert mine.empty_after() == 0
    assert mine.of("started") == [first]
    assert sorted(mine.of("returned")) == [second, third]


def test_what_was_ordered_in_the_same_turn_is_killed_too() -> None:
    """Commands of an agent leave at the end of the turn: after the kill."""
    mine, _ = shares()
    tid = mine.branch.next_tid()
    mine.branch.shutdown(0.0)
    mine.order(tid, 1000)
    assert mine.empty_after() == 0
    assert mine.of("exited") == [tid]


def test_what_is_ordered_later_is_killed_too() -> None:
    """Another rank may go on for a while, and send more."""
    mine, _ = shares()
    mine.branch.shutdown(0.0)
    mine.reactor.run(seconds=1)
    tid = mine.spawn(1000)
    assert mine.empty_after() == 0
    assert mine.of("exited") == [tid]


def test_a_grace_period_is_granted_once() -> None:
    mine, _ = shares()
    mine.branch.shutdown(2.0)
    mine.spawn(1000)
    assert mine.empty_after() == 2
    mine.spawn(1000)
    assert mine.empty_after() == 0
