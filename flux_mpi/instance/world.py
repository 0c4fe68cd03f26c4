"""The processes of one launch as the soil of child instances: who makes their transports.

Every process of an ``mpiexec`` has one ``World``, whatever instances it hosts. It carries out what
the cores of ``overlay/creation.py`` decide, with requests between the brokers of the outermost
instance, whose ranks are those of the world; a ``Maker`` makes what is agreed on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flux_mpi.broker.broker import Broker
from flux_mpi.broker.service import Request, Response, Rpc
from flux_mpi.message.errors import ServiceError
from flux_mpi.overlay.creation import (
    COMMUNICATOR,
    Abort,
    AskTicket,
    Created,
    Enter,
    Failed,
    Gate,
    Go,
    Leader,
    LeaderAction,
    Prepare,
    Ready,
    Refuse,
    Registrar,
    Release,
    Up,
)
from flux_mpi.overlay.creation import Action as GateAction
from flux_mpi.overlay.transport import Transport
from flux_mpi.reactor import Reactor, Timer

PREPARE_BOUND_S = 30.0
"""How long a creation may wait for its members to be told of it."""
ENTER_BOUND_S = 5.0
"""How long members may take to make what was agreed on; one that hangs keeps the others."""


class Maker(Protocol):
    """Makes transports of child instances."""

    limit: int
    """How many communicators there may be at once; 0: it makes none."""

    def bell(self, folder: str) -> Any:
        """What neighbours ring, with the attribute ``path``; None: they poll. Raises OSError."""

    def make(
        self,
        birth: Newborn,
        mode: str,
        ticket: int,
        done: Callable[[Transport | None, str], object],
    ) -> None:
        """Make the transport of ``birth`` and call ``done(transport, "")``, or ``done(None, why)``.

        Never blocks; with mode COMMUNICATOR it may never call back, if a member dies.
        """

    def free(self, transport: Transport, orderly: bool) -> None:
        """An instance has ended here; ``orderly``: no message of it is on its way."""


@dataclass(eq=False, slots=True)
class Newborn:
    """A child instance of several ranks on its way: what this process knows of it."""

    key: str
    """Its path of job ids, which no other instance of this world has."""
    members: list[int]
    """Ranks of the world, by rank of the child."""
    index: int
    """The rank that this process becomes."""
    reactor: Reactor
    """Its own scope."""
    bell: Any
    done: Callable[[Transport | None, str], object]
    """Called once: with its transport, or with why there is none."""
    hosts: list[str] = field(default_factory=list)
    bells: list[str] = field(default_factory=list)
    mode: str = ""
    transport: Transport | None = None
    asked: Request | None = None


class World:
    """This process's part in all creations; ``broker`` is that of the outermost instance."""

    def __init__(self, broker: Broker, hosts: Sequence[str], maker: Maker | None) -> None:
        self.broker = broker
        self.hosts = list(hosts)
        self.maker = maker
        self.gate = Gate(maker.limit if maker is not None else 0)
        self.damaged = False
        """Whether a rank is lost (rank 0 knows)."""
        self._newborn: dict[str, Newborn] = {}
        self._asked: dict[str, Request] = {}  # of children that nobody here has ordered yet
        self._courses: dict[str, _Course] = {}
        self._registrar = Registrar()
        self._queued: dict[str, Request] = {}
        methods = {"prepare": self._prepare, "go": self._go, "abort": self._abort}
        if broker.rank == 0:
            broker.register("world", {**methods, "ticket": self._ticket})
        else:
            broker.register("world", methods)

    # -- for who hosts instances ----------------------------------------------------------------

    def create(self, newborn: Newborn) -> None:
        """Have a transport made; every member must be told to. `forget` it when it has ended."""
        self._wake()
        newborn.hosts = [self.hosts[member] for member in newborn.members]
        key = newborn.key
        self._newborn[key] = newborn
        asked = self._asked.pop(key, None)
        if asked is not None:
            newborn.asked = asked
        self._carry_out(self.gate.born(key))
        if newborn.index == 0 and key in self._newborn:
            course = self._courses[key] = _Course(self, newborn)
            course.start()

    def give_up(self, key: str, why: str) -> None:
        """Give a creation up that is under way. Idempotent; nothing happens once it is up."""
        self._wake()
        course = self._courses.get(key)
        if course is not None:
            course.give_up()
        self._carry_out(self.gate.abandon(key, why))

    def forget(self, key: str, orderly: bool) -> None:
        """The instance has ended here, or never came to be."""
        newborn = self._newborn.pop(key, None)
        if newborn is None:
            return
        if newborn.transport is not None and self.maker is not None:
            self.maker.free(newborn.transport, orderly)
        elif newborn.bell is not None:
            newborn.bell.close()
        self.gate.forget(key, orderly)

    def _wake(self) -> None:
        """Let the hooks of the outermost broker follow, which send off what is said here: we may
        be called from those of another instance, when they have had their turn."""
        self.broker.reactor.call_soon(lambda: None)

    # -- the members' side ----------------------------------------------------------------------

    def _prepare(self, request: Request) -> None:
        key, ticket = str(request.payload["key"]), int(request.payload["ticket"])
        self._ask(key, request)
        self._carry_out(self.gate.prepare(key, ticket))

    def _go(self, request: Request) -> None:
        payload = request.payload
        key = str(payload["key"])
        newborn = self._newborn.get(key)
        if newborn is not None:
            newborn.bells = list(payload["bells"])
        self._ask(key, request)
        self._carry_out(self.gate.go(key, str(payload["mode"])))

    def _ask(self, key: str, request: Request) -> None:
        newborn = self._newborn.get(key)
        if newborn is not None:
            newborn.asked = request
        else:
            self._asked[key] = request
        request.on_close(lambda: self._leader_gone(key, request))

    def _leader_gone(self, key: str, request: Request) -> None:
        newborn = self._newborn.get(key)
        asked = newborn.asked if newborn is not None else self._asked.get(key)
        if asked is request:
            self._carry_out(self.gate.abandon(key, "its first rank is gone"))
            self._asked.pop(key, None)

    def _abort(self, request: Request) -> None:
        self._carry_out(self.gate.abandon(str(request.payload["key"]), "it was given up"))

    def _carry_out(self, actions: Sequence[GateAction]) -> None:
        for action in actions:
            key = action.key
            newborn = self._newborn.get(key)
            if isinstance(action, Ready):
                assert newborn is not None
                path = newborn.bell.path if newborn.bell is not None else ""
                self._answer(key, {"able": action.able, "bell": path})
            elif isinstance(action, Enter):
                assert newborn is not None
                self._enter(newborn, action)
            elif isinstance(action, Created):
                self._answer(key, {})
            elif isinstance(action, Refuse):
                asked = self._take_request(key)
                if asked is not None:
                    asked.error(errno.ECANCELED, f"instance {key}: {action.why}")
            elif isinstance(action, Failed):
                assert newborn is not None
                newborn.done(None, action.why)
            elif isinstance(action, Up):
                assert newborn is not None
                newborn.done(newborn.transport, "")

    def _enter(self, newborn: Newborn, action: Enter) -> None:
        assert self.maker is not None
        newborn.mode = action.mode
        key = newborn.key

        def done(transport: Transport | None, why: str) -> None:
            if self._newborn.get(key) is not newborn or not self.gate.entering(key):
                # Given up meanwhile. What has come late is nobody's.
                if action.mode == COMMUNICATOR:
                    self.gate.loosened()
                if transport is not None and self.maker is not None:
                    self.maker.free(transport, False)
                return
            newborn.transport = transport
            if transport is None:
                self._carry_out(self.gate.failed(key, why))
            else:
                self._carry_out(self.gate.entered(key))

        self.maker.make(newborn, action.mode, action.ticket, done)

    def _take_request(self, key: str) -> Request | None:
        newborn = self._newborn.get(key)
        if newborn is None:
            return self._asked.pop(key, None)
        asked, newborn.asked = newborn.asked, None
        return asked

    def _answer(self, key: str, payload: dict[str, Any]) -> None:
        asked = self._take_request(key)
        if asked is not None:
            asked.respond(payload)

    # -- the root's side ------------------------------------------------------------------------

    def _ticket(self, request: Request) -> None:
        """Answered with a ticket when it is its turn; held until the requester cancels."""
        key = str(request.payload["key"])
        members = sum(1 << int(member) for member in set(request.payload["members"]))
        if key in self._queued:
            raise ServiceError(errno.EEXIST, f"instance {key}: its creation is under way already")
        self._queued[key] = request
        grants = self._registrar.request(key, members)
        request.on_close(lambda: self._released(key))
        self._grant(grants)

    def _released(self, key: str) -> None:
        self._queued.pop(key, None)
        self._grant(self._registrar.release(key))

    def _grant(self, grants: Sequence[Any]) -> None:
        for grant in grants:
            request = self._queued.get(grant.key)
            if request is not None:
                request.respond({"ticket": grant.ticket, "damaged": self.damaged})


class _Course:
    """The leader's side of one creation."""

    def __init__(self, world: World, newborn: Newborn) -> None:
        self._world = world
        self._newborn = newborn
        self._leader = Leader(len(newborn.members))
        self._bells = [""] * len(newborn.members)
        self._ticket: Rpc | None = None
        self._bound: Timer | None = None

    def start(self) -> None:
        """Begin."""
        self._do(self._leader.start())

    def give_up(self) -> None:
        """End it; the members are told."""
        self._do(self._leader.give_up())

    def _do(self, actions: Sequence[LeaderAction]) -> None:
        rpc = self._world.broker.rpc
        newborn = self._newborn
        for action in actions:
            if isinstance(action, AskTicket):
                payload = {"key": newborn.key, "members": newborn.members}
                self._ticket = rpc("world.ticket", payload, self._granted, rank=0, streaming=True)
            elif isinstance(action, Prepare):
                self._limit(PREPARE_BOUND_S)
                self._ask(action.index, "prepare", {"ticket": action.ticket}, self._ready)
            elif isinstance(action, Go):
                self._limit(ENTER_BOUND_S)
                more = {"mode": action.mode, "bells": self._bells}
                self._ask(action.index, "go", more, self._created)
            elif isinstance(action, Abort):
                rank = newborn.members[action.index]
                self._world.broker.send("world.abort", {"key": newborn.key}, rank=rank)
            elif isinstance(action, Release):
                self._release()

    def _ask(
        self,
        index: int,
        what: str,
        more: dict[str, Any],
        answer: Callable[[int, Response], object],
    ) -> None:
        payload = {"key": self._newborn.key, **more}
        rank = self._newborn.members[index]

        def answered(response: Response) -> None:
            if response.errnum:
                self._do(self._leader.failed(index))
            else:
                answer(index, response)

        self._world.broker.rpc(f"world.{what}", payload, answered, rank=rank)

    def _granted(self, response: Response) -> None:
        if response.errnum:
            self._do(self._leader.give_up())
            self._world.give_up(self._newborn.key, response.text)
            return
        self._do(self._leader.granted(response.payload["ticket"], response.payload["damaged"]))

    def _ready(self, index: int, response: Response) -> None:
        self._bells[index] = response.payload["bell"]
        self._do(self._leader.ready(index, response.payload["able"]))

    def _created(self, index: int, response: Response) -> None:
        self._do(self._leader.created(index))

    def _limit(self, seconds: float) -> None:
        if self._bound is not None:
            self._bound.cancel()
        # Not in the child's own scope: its end must not keep others from their turn.
        self._bound = self._world.broker.reactor.call_later(seconds, self._expired)

    def _expired(self) -> None:
        self._bound = None
        if self._leader.given_up:  # those that were told to give up have not answered either
            self._release()
        else:
            self._limit(ENTER_BOUND_S)
            self.give_up()

    def _release(self) -> None:
        if self._bound is not None:
            self._bound.cancel()
            self._bound = None
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        courses = self._world._courses
        if courses.get(self._newborn.key) is self:
            del courses[self._newborn.key]
