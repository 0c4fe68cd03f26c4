"""The lowest level: members become jobs of this instance, in arrays of a chunk each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flux_mpi.ensemble.levels import level
from flux_mpi.ensemble.shape import Machine, capacity
from flux_mpi.ensemble.spec import Spec
from flux_mpi.ensemble.tally import CANCELED, Tally, exit_code
from flux_mpi.ensemble.window import Outcome, Window
from flux_mpi.ensemble.world import Answer, Owner, World
from flux_mpi.formats import fluid
from flux_mpi.formats.idset import EMPTY, IDSet

CANCEL_NOTE = "the ensemble was canceled"


class Chunk:
    """Members that were submitted together: member number *k* is the job *k* after ``first``."""

    __slots__ = ("first", "left", "members")

    def __init__(self, first: int, members: IDSet) -> None:
        self.first = first
        self.members = members
        self.left = len(members)


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
        self._fresh = Tally()
        self._ended: list[IDSet] = []
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
        return len(self.window.held)

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
        """Return members that were not submitted."""
        self._owner.returned(self.window.take_back(count))

    def take_report(self) -> tuple[IDSet, Tally]:
        """The members that ended since the last call, and how."""
        ended = IDSet.from_ranges(pair for ids in self._ended for pair in ids.ranges())
        tally, self._fresh, self._ended = self._fresh, Tally(), []
        return ended, tally

    def release(self) -> None:
        """Nobody will want members back any more: put all into the queue."""
        self.window.bounded = False
        self._pump()

    def cancel(self, why: str) -> None:
        """End the jobs; what was not submitted never is."""
        self._canceled = why
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
            self._ended.append(members)

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
        first, nth, index = chunk.first, chunk.members.nth, fluid.index
        outcomes: list[Outcome] = [
            (
                nth(index(first, jobid)),
                exit_code(status) if status else 0,
                note or "",
                -1.0 if seconds is None else seconds,
            )
            for jobid, status, note, seconds in done
        ]
        chunk.left -= len(outcomes)
        if not chunk.left:
            del self._chunks[chunk.first]
        now = self._world.reactor.monotonic()
        if self._canceled:
            self.window.retries = 0
        ended, tally = self.window.ended(outcomes, now)
        self._fresh.add(tally)
        if ended is not EMPTY:
            self._ended.append(ended)
        self._pump()
        self._owner.changed()
