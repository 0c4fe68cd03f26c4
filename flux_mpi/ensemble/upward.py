"""A child instance's tie to the level above: gets members, reports what became of them, ends.

Reports are few whatever the members' run time: one each interval at most, one before that only when
little is left to do; and never two under way, so that a slow parent gets fewer and longer ones.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from flux_mpi.ensemble.branch import Branch, Tokens
from flux_mpi.ensemble.leaf import Leaf
from flux_mpi.ensemble.shape import Machine
from flux_mpi.ensemble.spec import Spec
from flux_mpi.ensemble.world import ERR, WARNING, Answer, Body, Caller, Cancelable, World
from flux_mpi.formats.idset import IDSet
from flux_mpi.message.errors import FluxError

URGENT_S = 0.01
"""The least time between two reports, when there is little left to do."""


class Upward:
    """One child instance's part in an ensemble of its parent. ``finish(status)`` ends the
    instance; it is called once."""

    def __init__(
        self,
        world: World,
        upstream: Caller,
        token: str,
        finish: Callable[[int], object],
        tokens: Tokens,
    ) -> None:
        self._world = world
        self._upstream = upstream
        self._token = token
        self._finish: Callable[[int], object] | None = finish
        self._tokens = tokens
        self._machine: Machine | None = None
        self._spec: Spec | None = None
        self.body: Body | None = None
        self._low = 0
        self._asked = False
        """Since the last members came, the parent has been told that few are left."""
        self._ready = 0
        self._early: list[dict[str, Any]] = []
        """What the parent said before the body could be asked."""
        self._in_flight = False
        self._changed = False
        self._last = -1e9
        self._timer: Cancelable | None = None
        self._failure = ""
        self._confessed = False
        self._final = False

    def start(self) -> None:
        """This instance can run jobs: find out what it has, and introduce it."""
        self._world.rpc("resource.status", {}, self._resources)

    def _resources(self, answer: Answer) -> None:
        try:
            if answer.errnum:
                raise ValueError(answer.text)
            machine = self._machine = Machine.of(answer.payload)
        except ValueError as error:
            self._leave(1, f"its resources are not known: {error}")
            return
        self._upstream.rpc(
            "ensemble.join",
            {
                "token": self._token,
                "nnodes": machine.ranks,
                "ncores": machine.ncores,
                "ngpus": machine.ngpus,
            },
            self._told,
            streaming=True,
        )

    def _told(self, answer: Answer) -> None:
        """What the parent says."""
        if answer.errnum == errno.ENODATA:
            self._leave(0)
        elif answer.errnum:
            self._leave(1, f"the instance above: {answer.text}")
        elif "run" in answer.payload:
            self._begin(answer.payload["run"])
        elif self.body is not None:
            self._do(answer.payload)

    def _begin(self, run: dict[str, Any]) -> None:
        assert self._machine is not None
        try:
            spec = self._spec = Spec.from_wire(run)
            if spec.topology:
                self.body = Branch(self._world, spec, self, self._machine, self._tokens)
            else:
                self.body = Leaf(self._world, spec, self, self._machine, bounded=True)
        except (ValueError, FluxError) as error:
            self.failed(str(error))
            return
        self.body.start()

    def _do(self, order: dict[str, Any]) -> None:
        assert self.body is not None
        if "give" in order:
            self._low = int(order.get("low") or 0)
            self._asked = False
            self.body.give(IDSet.parse(order["give"]))
        if "take_back" in order:
            self.body.take_back(int(order["take_back"]))
        if order.get("stop"):
            self.body.stop(self._stopped)

    # -- what the body says ---------------------------------------------------------------------

    def ready(self) -> None:
        """The body can run members."""
        assert self.body is not None
        self._ready = self.body.capacity
        self._send()

    def returned(self, members: IDSet) -> None:
        """Members that nobody here has begun go back."""
        assert self.body is not None
        if self._finish is None:
            return
        payload = {
            "token": self._token,
            "members": str(members),
            "unstarted": self.body.unstarted,
        }
        self._upstream.rpc("ensemble.return", payload, self._answered_return)

    def failed(self, why: str) -> None:
        """Members cannot be run here: somebody else must."""
        if not self._failure:
            self._failure = why
            self._send()

    def changed(self) -> None:
        """Report, now or as soon as it is time for it."""
        if self._in_flight or self._spec is None:
            self._changed = True
            return
        assert self.body is not None
        left = self.body.left
        # Asked once, the parent gives as soon as it can.
        urgent = (left < self._low and not self._asked) or not left
        due = self._last + (URGENT_S if urgent else self._spec.interval)
        delay = due - self._world.reactor.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        # Not at once: more may have ended in this turn of the loop.
        self._timer = self._world.reactor.call_later(max(0.0, delay), self._send)

    def close(self) -> None:
        """Say nothing any more: what still runs here ends with the instance, and the parent, which
        will take it for lost, has others run it."""
        self._finish = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stopped(self) -> None:
        self._final = True
        self._send()

    # -- reports --------------------------------------------------------------------------------

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._in_flight or self._finish is None:
            self._changed = True
            return
        self._changed = False
        payload: dict[str, Any] = {"token": self._token}
        if self._failure:
            payload["failed"] = self._failure
            self._confessed = True
        elif self.body is not None:
            ended, tally = self.body.take_report()
            self._asked = self.body.left < self._low
            payload |= {
                "ended": str(ended),
                "tally": tally.to_wire(),
                "unstarted": self.body.unstarted,
                "running": self.body.running,
            }
            if self._ready:
                payload["ready"], self._ready = self._ready, 0
            if self._final:
                payload |= {
                    "final": True,
                    "levels": self.body.levels(),
                    "records": self.body.records(),
                }
        self._in_flight = True
        self._last = self._world.reactor.monotonic()
        self._upstream.rpc("ensemble.report", payload, self._answered)

    def _answered(self, answer: Answer) -> None:
        self._in_flight = False
        if answer.errnum:
            self._leave(1, f"the instance above refused a report: {answer.text}")
        elif self._confessed:
            self._leave(1, self._failure)
        elif self._failure or (self._final and self._changed):
            self._send()
        elif self._changed:
            self.changed()

    def _answered_return(self, answer: Answer) -> None:
        if answer.errnum:
            self._leave(1, f"the instance above took nothing back: {answer.text}")

    def _leave(self, status: int, why: str = "") -> None:
        finish, self._finish = self._finish, None
        if finish is None:
            return
        if status:
            self._world.log(ERR if self.body is None else WARNING, "ensemble", f"left: {why}")
        if self._timer is not None:
            self._timer.cancel()
        finish(status)
