"""``ensemble.*``: the requests of clients and of child instances, on the rank 0 of each instance.

Thin: what a request says is checked here, and handed to whom it concerns.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flux_mpi.broker.service import Broker, Handler, Request, ServiceError
from flux_mpi.ensemble.branch import Child, Tokens
from flux_mpi.ensemble.choice import Work, choose
from flux_mpi.ensemble.shape import AUTO, Machine, check_fits, divide, leaf, topology_text
from flux_mpi.ensemble.spec import Spec
from flux_mpi.ensemble.top import Top
from flux_mpi.ensemble.upward import Upward
from flux_mpi.ensemble.world import Answer, Caller
from flux_mpi.formats.idset import IDSet

MAX_MEMBERS = 1 << 32


class EnsembleService:
    """The ensembles of one instance. ``owner`` is who may ask for them (default: this process's
    user); ``cpus`` how many processors a host has (default: as many as this process may use).

    A child instance that was started for an ensemble of its parent has the ``upstream`` to call
    the parent's services, the ``token`` that it was started with, and ``finish(status)``, which
    ends it; `start` is called when it can run jobs.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        owner: int | None = None,
        upstream: Caller | None = None,
        token: str = "",
        finish: Callable[[int], object] | None = None,
        cpus: int | None = None,
    ) -> None:
        self.broker = broker
        self.owner = os.geteuid() if owner is None else owner
        self.cpus = cpus or len(os.sched_getaffinity(0))
        self.runs: dict[int, Top] = {}
        self._number = 0
        self._tokens: Tokens = {}
        self.upward: Upward | None = None
        if upstream is not None:
            assert finish is not None, "what a parent started must know how to end"
            self.upward = Upward(broker, upstream, token, finish, self._tokens)

    def handlers(self) -> dict[str, Handler]:
        """The methods of the service ``ensemble``, to be registered."""
        return {
            "run": self.run,
            "plan": self.plan,
            "cancel": self.cancel,
            "list": self.list,
            "join": self.join,
            "report": self.report,
            "return": self.returned,
        }

    def start(self) -> None:
        """This instance can run jobs: if it was started for an ensemble, it sets to work."""
        if self.upward is not None:
            self.upward.start()

    def close(self) -> None:
        """This instance is about to end its jobs: that is nothing that its members did."""
        if self.upward is not None:
            self.upward.close()

    # -- clients --------------------------------------------------------------------------------

    def run(self, request: Request) -> None:
        """Run an ensemble; progress, then the result."""
        if not request.streaming:
            raise ServiceError(errno.EPROTO, f"{request.topic} answers often: ask for a stream")
        self._checked(request, lambda plan: self._run(request, plan))

    def _run(self, request: Request, plan: _Plan) -> None:
        self._number += 1
        number = self._number
        top = Top(
            self.broker,
            number,
            plan.spec,
            plan.members,
            plan.machine,
            self._tokens,
            request,
            lambda: self.runs.pop(number, None),
            auto=plan.auto,
            cpus=self.cpus,
            why=plan.why,
        )
        self.runs[number] = top
        request.on_close(lambda: top.cancel("whoever asked for it has gone"))
        top.start()

    def plan(self, request: Request) -> None:
        """What `run` would do."""

        def answer(plan: _Plan) -> None:
            spec, machine, why = plan.spec, plan.machine, plan.why
            if plan.auto:
                if spec.expected is None:
                    why = "auto without an expected time: decided when the first members have ended"
                else:
                    work = Work(len(plan.members), spec.shape, spec.expected, spec.mock)
                    choice = choose(work, machine, self.cpus)
                    spec, why = spec.divided(choice.topology, spec.expected), choice.why
            levels, below = [], machine
            for parts in spec.topology:
                each = divide(below, parts)
                below = each[-1].machine(below)
                levels.append({"instances": parts, "nnodes": below.ranks, "ncores": below.ncores})
            request.respond(
                {
                    "topology": topology_text(spec.topology),
                    "why": why,
                    "count": len(plan.members),
                    "machine": machine.text(),
                    "levels": levels,
                    "jobspec": spec.members(leaf(machine, spec.topology)),
                }
            )

        self._checked(request, answer)

    def cancel(self, request: Request) -> None:
        """End an ensemble; who waits for it gets its result."""
        self._allowed(request)
        body = _body(request)
        number = body.get("run")
        top = self.runs.get(number) if isinstance(number, int) else None
        if top is None:
            raise ServiceError(errno.ENOENT, f"run: there is no ensemble {number!r}")
        top.cancel(str(body.get("why") or ""))
        request.respond({})

    def list(self, request: Request) -> None:
        """The ensembles there are, and how they go."""
        request.respond({"runs": [top.progress() for top in self.runs.values()]})

    # -- child instances ------------------------------------------------------------------------

    def join(self, request: Request) -> None:
        """A child instance introduces itself."""
        branch, child = self._child(request)
        if not request.streaming:
            raise ServiceError(errno.EPROTO, f"{request.topic} answers often: ask for a stream")
        try:
            gone = branch.join(child, request, _body(request))
        except ValueError as error:
            raise ServiceError(errno.EEXIST, str(error)) from None
        request.on_close(gone)

    def report(self, request: Request) -> None:
        """A child instance says what became of its members."""
        branch, child = self._child(request)
        try:
            branch.report(child, _body(request))
        except ValueError as error:
            raise ServiceError(errno.EPROTO, str(error)) from None
        request.respond({})

    def returned(self, request: Request) -> None:
        """A child instance returns members that it has not begun."""
        branch, child = self._child(request)
        try:
            branch.returned(child, _body(request))
        except ValueError as error:
            raise ServiceError(errno.EPROTO, str(error)) from None
        request.respond({})

    def _child(self, request: Request) -> tuple[Any, Child]:
        self._allowed(request)
        token = _body(request).get("token")
        found = self._tokens.get(token) if isinstance(token, str) else None
        if found is None:
            raise ServiceError(errno.ENOENT, "token: no ensemble here waits for this instance")
        return found

    # -- requests -------------------------------------------------------------------------------

    def _allowed(self, request: Request) -> None:
        if request.uid != self.owner:
            raise ServiceError(errno.EPERM, "only the instance owner may run ensembles")

    def _checked(self, request: Request, then: Callable[[_Plan], object]) -> None:
        """Check a request, find out what there is, and go on."""
        self._allowed(request)
        body = _body(request)
        auto = body.get("topology") == AUTO
        spec = Spec.from_wire({**body, "topology": None} if auto else body)
        members = _members(body)

        def resources(answer: Answer) -> None:
            if not request.open:
                return
            try:
                if answer.errnum:
                    raise ValueError(answer.text)
                whole = Machine.of(answer.payload)
                machine = whole.limited(*(_limit(body, name) for name in LIMITS))
                then(_plan(spec, members, machine, whole, auto))
            except ValueError as error:
                request.error(errno.EINVAL, str(error))

        self.broker.rpc("resource.status", {}, resources)


LIMITS = ("nnodes", "ncores", "ngpus")


class _Plan:
    """A request that makes sense."""

    def __init__(self, spec: Spec, members: IDSet, machine: Machine, auto: bool, why: str) -> None:
        self.spec = spec
        self.members = members
        self.machine = machine
        self.auto = auto
        self.why = why


def _plan(spec: Spec, members: IDSet, machine: Machine, whole: Machine, auto: bool) -> _Plan:
    """Raises ValueError when the machine cannot be divided so, or members do not fit."""
    if not machine.ranks:
        raise ValueError("there is no rank that jobs could run on")
    if not auto and len(spec.conf) > len(spec.topology):
        raise ValueError(
            f"conf: configurations for {len(spec.conf)} levels of child instances were given, "
            f"{topology_text(spec.topology)} has {len(spec.topology)}"
        )
    check_fits(spec.shape, machine, spec.topology)
    if machine.ncores < whole.ncores and not spec.topology:
        if auto:
            raise ValueError(
                f"topology: auto uses all there is, {whole.text()}, and not only {machine.text()}"
            )
        # This instance has more than is to be used: one child that has as much runs all members.
        spec = replace(spec, topology=[1])
    return _Plan(spec, members, machine, auto, "")


def _limit(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"{name}: expected a number, found {value!r}"[:200])
    return value


def _members(body: dict[str, Any]) -> IDSet:
    """Which members there are. Raises ServiceError(EINVAL)."""
    count, text = body.get("count"), body.get("members")
    if (count is None) == (text is None):
        raise ServiceError(errno.EINVAL, "members: expected either a count or an idset of them")
    if text is not None:
        try:
            members = IDSet.parse(text)
        except ValueError as error:
            raise ServiceError(errno.EINVAL, f"members: {error}") from None
        count = len(members)
    else:
        members = None
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_MEMBERS:
        raise ServiceError(
            errno.EINVAL, f"count: expected 1 to {MAX_MEMBERS} members, found {count!r}"
        )
    return IDSet(range(count)) if members is None else members


def _body(request: Request) -> dict[str, Any]:
    payload = request.payload
    if not isinstance(payload, dict):
        raise ServiceError(
            errno.EPROTO, f"{request.topic}: expected an object, found {type(payload).__name__}"
        )
    return payload
