"""The lowest level: members become jobs of this instance, in arrays of a chunk each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flux_mpi.ensemble.levels import level
from flux_mpi.ensemble.shape import Machine, capacity
from flux_mpi.ensemble.spec import Spec
from flux_mpi.ensemble.tally import CANCELED, Tally, exit_code
from flux_mpi.ensemble.window import Window
from flux_mpi.ensemble.world import Answer, Owner, World
from flux_mpi.formats import fluid
from flux_mpi.formats.idset import EMPTY, IDSet

CANCEL_NOTE = "the ensemble was canceled"
MOVED_NOTE = "another instance has cores to spare for it"
MOST_WITHDRAWN = 1000
"""Jobs withdrawn from the queue at a time."""


class Chunk:
    """Members that were submitted together: member number *k* is the job *k* after ``first``."""

    __slots__ = ("end", "first", "left", "members")

    def __init__(self, first: int, members: IDSet) -> None:
        self.first = first
        self.members = members
        self.left = len(members)
        self.end = len(members)
        """Members from this number on have been withdrawn."""

    def named(self, done: list[list[Any]]) -> list[int]:
        """The members whose jobs these are."""
        numbers = fluid.indexes(self.first, [entry[0] for entry in done])
        members = self.members
        if members.last - members.first + 1 == len(members):
            first = members.first
            return [first + number for number in numbers]
        return [members.nth(number) for number in numbers]


class Leaf:
    """Runs members here. ``bounded``: keeps back what can wait, so that it can be returned."""

    def __init__(
        self, world: World, spec: Spec, owner: Owner, machine: Machine, *, bounded: bool
    ) -> None:
        self._world = world
        self._spec = spec
        self._owner = owner
        self._machine = machine
        self._jobspec = spec.members(machine)
        self._chunks: dict[int, Chunk] = {}
        self._open = False
        self._canceled = ""
        self._leaving: dict[int, int] = {}
        """Members that are on their way out of the queue, by job id..."""
        self._back = EMPTY
        """...and those that are to be returned with them."""
        self._asked = self._raising = False
        """Members have been asked back; a request to withdraw some is under way."""
        self._fresh = Tally()
        self._ended: list[int] = []
        self.window = Window(
            capacity(spec.shape, machine),
            bounded=bounded,
            expected=spec.expected,
            retries=spec.retries,
        )

    # -- what a body offers ---------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        return self.window.capacity

    @property
    def left(self) -> int:
        return self.window.left

    @property
    def running(self) -> int:
        return self.window.running

    @property
    def unstarted(self) -> int:
        return len(self.window.held) + self.window.spare

    def start(self) -> None:
        """Whether members can ever run here is asked first, once for all of them."""
        self._world.rpc("sched.feasibility", {"jobspec": self._jobspec}, self._feasible)

    def _feasible(self, answer: Answer) -> None:
        if answer.errnum:
            self._owner.failed(answer.text)
            return
        self._open = True
        self._owner.ready()
        self._pump()

    def give(self, members: IDSet) -> None:
        """Members to run, once it is known that they can be."""
        self.window.give(members)
        if self._canceled:
            self._drop()
        self._pump()

    def take_back(self, count: int) -> None:
        """Return members that were not submitted, and then the last of those that were."""
        self._asked = True
        self._back |= self.window.take_back(count)
        self._withdraw(min(count - len(self._back), self.window.spare, MOST_WITHDRAWN))
        self._return()

    def _return(self) -> None:
        """Return what was asked back, once it is known of all of it whether it had begun."""
        if self._asked and not self._raising and not self._leaving:
            self._asked = False
            back, self._back = self._back, EMPTY
            self._owner.returned(back)

    def _withdraw(self, count: int) -> None:
        """Take members out of the queue, the last ones first."""
        ids: list[list[int]] = []
        for chunk in reversed(self._chunks.values()):
            if count < 1:
                break
            begin = max(0, chunk.end - count)
            count -= chunk.end - begin
            for k in range(begin, chunk.end):
                self._leaving[fluid.nth(chunk.first, k)] = chunk.members.nth(k)
            if begin < chunk.end:
                ids.append([fluid.nth(chunk.first, begin), chunk.end - begin])
            chunk.end = begin
        if not ids:
            return

        def raised(answer: Answer) -> None:
            self._raising = False
            # Those had ended before, or all had: what became of them is told as always.
            errors = self._leaving if answer.errnum else answer.payload["errors"]
            for jobid in [int(jobid) for jobid in errors]:
                self._leaving.pop(jobid, None)
            self._return()

        self._raising = True
        self._world.rpc(
            "job-manager.raise",
            {"ids": ids, "type": "cancel", "severity": 0, "note": MOVED_NOTE},
            raised,
        )

    def take_report(self) -> tuple[IDSet, Tally]:
        """The members that ended since the last call, and how."""
        ended = IDSet(self._ended)
        return ended, self.take_tally()

    def take_tally(self) -> Tally:
        """How members ended, where nobody asks which these were."""
        tally, self._fresh, self._ended = self._fresh, Tally(), []
        return tally

    def release(self) -> None:
        """Nobody will want members back any more: put all into the queue."""
        self.window.bounded = False
        self._pump()

    def cancel(self, why: str) -> None:
        """End the jobs; what was not submitted never is."""
        self._canceled = why
        self._leaving.clear()
        self._drop()
        ids = [[chunk.first, len(chunk.members)] for chunk in self._chunks.values()]
        if ids:
            self._world.rpc(
                "job-manager.raise",
                {"ids": ids, "type": "cancel", "severity": 0, "note": why or CANCEL_NOTE},
                lambda answer: None,
            )
        self._owner.changed()

    def stop(self, done: Callable[[], object]) -> None:
        """There is nothing below a leaf."""
        self._world.reactor.call_soon(done)

    def levels(self) -> list[dict[str, Any]]:
        return [level(rerun=self.window.rerun)]

    def records(self) -> list[list[Any]]:
        return []

    # -- jobs -----------------------------------------------------------------------------------

    def _drop(self) -> None:
        members = self.window.take_back(len(self.window.held))
        if members:
            self._fresh.give_up(members, CANCELED, self._canceled)
            self._ended += members

    def _pump(self) -> None:
        while self._open and (members := self.window.due(self._world.reactor.monotonic())):
            self._submit(members)

    def _submit(self, members: IDSet) -> None:
        entry = {
            "jobspec": self._jobspec,
            "count": len(members),
            "params": {"cc": str(members)},
        }

        def submitted(answer: Answer) -> None:
            if answer.errnum:
                self._owner.failed(f"members cannot be submitted: {answer.text}")
                return
            ((first, count),) = answer.payload["arrays"]
            self._follow(Chunk(first, members), count)

        self._world.rpc(
            "job-ingest.submit", {"entries": [entry], "urgency": self._spec.urgency}, submitted
        )

    def _follow(self, chunk: Chunk, count: int) -> None:
        self._chunks[chunk.first] = chunk

        def ended(answer: Answer) -> None:
            if not answer.errnum:
                self._take(chunk, answer.payload["done"])
            elif chunk.left:
                self._owner.failed(f"jobs are no longer known: {answer.text}")

        self._world.rpc(
            "job-manager.wait-all",
            {"ids": [[chunk.first, count]], "times": True},
            ended,
            streaming=True,
        )
        if self._canceled:  # while the submission was under way
            self.cancel(self._canceled)

    def _take(self, chunk: Chunk, done: list[list[Any]]) -> None:
        chunk.left -= len(done)
        if not chunk.left:
            del self._chunks[chunk.first]
        if self._leaving:
            done = self._let_go(done)
        members = chunk.named(done)
        seconds = [entry[3] for entry in done if entry[3] is not None]
        failures = [
            (member, exit_code(entry[1]) if entry[1] else 0, entry[2] or "")
            for member, entry in zip(members, done, strict=True)
            if entry[1] or entry[2]
        ]
        if self._canceled:
            self.window.retries = 0
        now = self._world.reactor.monotonic()
        ended, tally = self.window.ended(members, seconds, failures, now)
        self._fresh.add(tally)
        self._ended += ended
        self._pump()
        self._owner.changed()

    def _let_go(self, done: list[list[Any]]) -> list[list[Any]]:
        """Jobs that were withdrawn have not ended here, even if one or the other had just begun."""
        ended, back = [], []
        for entry in done:
            member = self._leaving.pop(entry[0], None)
            if member is not None and (entry[2] or "").startswith("cancel"):
                back.append(member)
            else:
                ended.append(entry)
        self.window.withdrawn(len(back))
        self._back |= IDSet(back)
        self._return()
        return ended
