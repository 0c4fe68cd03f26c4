"""The processes of one launch as the soil of child instances: who makes their transports.

Every process of an ``mpiexec`` has one ``World``, whatever instances it hosts. It carries out what
the cores of ``overlay/creation.py`` decide, with requests between the brokers of the outermost
instance, whose ranks are those of the world; a ``Maker`` makes what is agreed on.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from flux_mpi.broker.broker import Broker
from flux_mpi.broker.service import Request, Response, Rpc
from flux_mpi.message.errors import ServiceError
from flux_mpi.overlay.creation import (
    COMMUNICATOR,
    CONTEXT,
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
        self._queued: dict[int, Request] = {}  # by their ticket
        methods = {
            "prepare": self._prepare,
            "go": self._go,
            "abort": self._abort,
            "stats": self._stats,
        }
        if broker.rank == 0:
            methods |= {"ticket": self._ticket, "lost": self._lost}
        broker.register("world", methods)
        broker.on_peer_lost.append(self._peer_lost)

    # -- for who hosts instances ----------------------------------------------------------------

    def create(self, newborn: Newborn) -> None:
        """Have a transport made; every member must be told to. `forget` it when it has ended.

        Raises ValueError when it is there already.
        """
        key = newborn.key
        if key in self._newborn:
            raise ValueError(f"instance {key}: ordered twice")
        self._wake()
        newborn.hosts = [self.hosts[member] for member in newborn.members]
        newborn.asked = self._asked.pop(key, None)
        self._newborn[key] = newborn
        self._carry_out(self.gate.born(key))
        if newborn.index == 0:
            course = self._courses[key] = _Course(self, newborn)
            course.start()

    def cancel(self, key: str, why: str) -> None:
        """A creation that may be under way is not wanted any more; every member must be told to.

        Idempotent. It may be up before all have heard, and then ends as any instance does.
        """
        self._wake()
        course = self._courses.get(key)
        if course is not None:
            course.cancel(why)
        self._carry_out(self.gate.cancel(key, why))

    def forget(self, key: str, orderly: bool) -> None:
        """The instance has ended here, or never came to be."""
        newborn = self._newborn.get(key)
        if newborn is None:
            return
        if newborn.transport is None:
            self._give_up(key, "it has ended here")
        del self._newborn[key]
        if newborn.transport is not None and self.maker is not None:
            self.maker.free(newborn.transport, orderly)
        elif newborn.bell is not None:
            newborn.bell.close()
        self.gate.forget(key, orderly)

    def _give_up(self, key: str, why: str) -> None:
        """End a creation whatever its state."""
        self._wake()
        course = self._courses.get(key)
        if course is not None:
            course.give_up(why)
        self._carry_out(self.gate.abandon(key, why))

    def _wake(self) -> None:
        """Let the hooks of the outermost broker follow, which send off what is said here: we may
        be called from those of another instance, when they have had their turn."""
        self.broker.reactor.call_soon(_nothing)

    # -- the members' side ----------------------------------------------------------------------

    def _prepare(self, request: Request) -> None:
        """Answered once the child was ordered here; ends, with no data, when it has a transport."""
        key, ticket = str(request.payload["key"]), int(request.payload["ticket"])
        newborn = self._newborn.get(key)
        asked = newborn.asked if newborn is not None else self._asked.get(key)
        if asked is not None:
            raise ServiceError(errno.EEXIST, f"instance {key}: prepared twice")
        if newborn is not None:
            newborn.asked = request
        else:
            self._asked[key] = request
        request.on_close(partial(self._leader_gone, key, request))
        self._carry_out(self.gate.prepare(key, ticket))

    def _go(self, request: Request) -> None:
        payload = request.payload
        key = str(payload["key"])
        newborn = self._newborn.get(key)
        if newborn is not None:
            newborn.bells = list(payload["bells"])
        self._carry_out(self.gate.go(key, str(payload["mode"]), int(payload["ticket"])))

    def _abort(self, request: Request) -> None:
        payload = request.payload
        key, why = str(payload["key"]), str(payload["why"])
        self._carry_out(self.gate.abandon(key, why, int(payload["ticket"])))

    def _leader_gone(self, key: str, request: Request) -> None:
        newborn = self._newborn.get(key)
        asked = newborn.asked if newborn is not None else self._asked.get(key)
        if asked is request:
            self._carry_out(self.gate.abandon(key, "its first rank is gone"))

    def _carry_out(self, actions: Sequence[GateAction]) -> None:
        for action in actions:
            key = action.key
            newborn = self._newborn.get(key)
            if isinstance(action, Ready):
                assert newborn is not None
                assert newborn.asked is not None
                path = newborn.bell.path if newborn.bell is not None else ""
                newborn.asked.respond({"able": action.able, "bell": path})
            elif isinstance(action, Enter):
                assert newborn is not None
                self._enter(newborn, action)
            elif isinstance(action, Created):
                self._end_request(key, errno.ENODATA)
            elif isinstance(action, Refuse):
                self._end_request(key, errno.ECANCELED, action.why)
            elif isinstance(action, Failed):
                assert newborn is not None
                newborn.done(None, action.why)
            elif isinstance(action, Up):
                assert newborn is not None
                newborn.done(newborn.transport, "")

    def _enter(self, newborn: Newborn, action: Enter) -> None:
        assert self.maker is not None
        newborn.mode = action.mode
        done = partial(self._made, newborn)
        self.maker.make(newborn, action.mode, action.ticket, done)

    def _made(self, newborn: Newborn, transport: Transport | None, why: str) -> None:
        key = newborn.key
        if self._newborn.get(key) is not newborn or not self.gate.entering(key):
            # Given up meanwhile. What has come late is nobody's.
            if newborn.mode == COMMUNICATOR:
                self.gate.loosened(transport is not None)
            if transport is not None and self.maker is not None:
                self.maker.free(transport, False)
            return
        newborn.transport = transport
        if transport is None:
            self._carry_out(self.gate.failed(key, why))
        else:
            self._carry_out(self.gate.entered(key))

    def _end_request(self, key: str, errnum: int, text: str = "") -> None:
        """Give the leader the last answer."""
        newborn = self._newborn.get(key)
        if newborn is not None:
            asked, newborn.asked = newborn.asked, None
        else:
            asked = self._asked.pop(key, None)
        if asked is not None:
            asked.error(errnum, text)

    def _stats(self, request: Request) -> None:
        """What there is here, for people and tests."""
        gate = self.gate
        request.respond(
            {
                "communicators": gate.live,
                "limit": gate.limit,
                "blocked": gate.wedged,
                "instances": len(self._newborn),
                "contexts": sum(born.mode == CONTEXT for born in self._newborn.values()),
                "creations": len(self._courses),
                "waiting": len(self._asked),
                "tickets": len(self._registrar),
                "damaged": self.damaged,
            }
        )

    # -- the root's side ------------------------------------------------------------------------

    def _ticket(self, request: Request) -> None:
        """Answered when it is its turn; its ticket is held until the requester cancels."""
        members = sum(1 << int(member) for member in set(request.payload["members"]))
        ticket = self._registrar.request(members)
        self._queued[ticket] = request
        request.on_close(partial(self._released, ticket))
        self._grant()

    def _released(self, ticket: int) -> None:
        del self._queued[ticket]
        self._registrar.release(ticket)
        self._grant()

    def _grant(self) -> None:
        for ticket in self._registrar.grant():
            self._queued[ticket].respond({"ticket": ticket, "damaged": self.damaged})

    def _peer_lost(self, peer: int, why: str) -> None:
        if self.broker.rank:
            self.broker.send("world.lost", {"rank": peer}, rank=0)
        else:
            self.damaged = True

    def _lost(self, request: Request) -> None:
        self.damaged = True


class _Course:
    """The leader's side of one creation."""

    def __init__(self, world: World, newborn: Newborn) -> None:
        self._world = world
        self._key = newborn.key
        self._members = newborn.members
        self._leader = Leader(len(newborn.members))
        self._bells = [""] * len(newborn.members)
        self._why = ""
        self._ticket: Rpc | None = None
        self._asked: list[Rpc] = []
        self._bound: Timer | None = None
        self._todo: deque[LeaderAction] = deque()
        self._doing = False

    def start(self) -> None:
        """Begin."""
        self._do(self._leader.start())

    def cancel(self, why: str) -> None:
        """See ``Leader.cancel``."""
        self._why = self._why or why
        self._do(self._leader.cancel())

    def give_up(self, why: str) -> None:
        """End it; the members are told."""
        self._why = self._why or why
        self._do(self._leader.give_up())

    def _do(self, actions: Sequence[LeaderAction]) -> None:
        # Members of this very process answer while we still ask others: all in its turn.
        self._todo.extend(actions)
        if self._doing:
            return
        self._doing = True
        try:
            while self._todo:
                self._act(self._todo.popleft())
        finally:
            self._doing = False

    def _act(self, action: LeaderAction) -> None:
        payload: dict[str, Any] = {"key": self._key, "ticket": self._leader.ticket}
        broker = self._world.broker
        if isinstance(action, AskTicket):
            payload["members"] = self._members
            self._ticket = broker.rpc(
                "world.ticket", payload, self._granted, rank=0, streaming=True
            )
            return
        if isinstance(action, Release):
            self._release()
            return
        rank = self._members[action.index]
        if isinstance(action, Prepare):
            if not action.index:
                self._limit(PREPARE_BOUND_S)
            answered = partial(self._answered, action.index)
            self._asked.append(
                broker.rpc("world.prepare", payload, answered, rank=rank, streaming=True)
            )
        elif isinstance(action, Go):
            if not action.index:
                self._limit(ENTER_BOUND_S)
            payload |= {"mode": action.mode, "bells": self._bells}
            broker.send("world.go", payload, rank=rank)
        elif isinstance(action, Abort):
            payload["why"] = self._why
            broker.send("world.abort", payload, rank=rank)

    def _granted(self, response: Response) -> None:
        if response.errnum:  # the world's root is gone: no child can be made any more
            self.give_up(response.text)
            self._world._carry_out(self._world.gate.abandon(self._key, response.text))
            return
        self._do(self._leader.granted(response.payload["ticket"], response.payload["damaged"]))

    def _answered(self, index: int, response: Response) -> None:
        if not response.errnum:
            self._bells[index] = response.payload["bell"]
            self._do(self._leader.ready(index, response.payload["able"]))
        elif response.errnum == errno.ENODATA:
            self._do(self._leader.created(index))
        else:
            self._why = self._why or f"rank {self._members[index]}: {response.text}"
            self._do(self._leader.failed(index))

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
            self.give_up("it took too long")

    def _release(self) -> None:
        if self._bound is not None:
            self._bound.cancel()
            self._bound = None
        for rpc in self._asked:
            rpc.cancel()
        self._asked.clear()
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        courses = self._world._courses
        if courses.get(self._key) is self:
            del courses[self._key]


def _nothing() -> None:
    """Makes the loop turn."""
