"""A model of how child instances get their communicators, explored state by state.

What runs in it is the product: ``World`` with its ``Registrar``, ``Gate`` and ``Leader``, and the
``Router`` and the calls of a broker, one of each a rank. The model brings what is around them:
links that keep their order but not each other's, orders to be born and to end that arrive at any
time and in any order, ``MPI_Comm_create_group``, deaths. From each state every event that may come
next is tried, until no new state is found.

A rank is a function: its state and what happens to it give its next state and what it sends. Each
is computed once, by the real classes, and then remembered; so a state of the whole is a tuple of
numbers and costs some microseconds.
"""

from __future__ import annotations

import itertools
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

from flux_mpi.broker.broker import Broker
from flux_mpi.broker.router import Router
from flux_mpi.broker.service import Response, Rpc
from flux_mpi.instance.world import Newborn, World
from flux_mpi.message.message import REQUEST, STREAMING, Message, pack
from flux_mpi.overlay.creation import COMMUNICATOR, CONTEXT
from flux_mpi.overlay.tree import Tree

RANKS = 3
PAIRS = list(itertools.permutations(range(RANKS), 2))
END = -1
"""In a link: the sender's process has ended."""
Event = tuple[Any, ...]


class Wrong(AssertionError):
    """A state that must not be. The text says how to get there."""


@dataclass(frozen=True)
class Scenario:
    """What may happen in one exploration."""

    creations: tuple[tuple[int, ...], ...]
    """Members of each, as ranks; the first leads."""
    links: str = "mesh"
    """``mesh``: each pair of ranks has its own; ``star``: all by way of rank 0; ``chain``."""
    crashes: int = 0
    """How many ranks may die, at any time; of what they said last, any part may be lost."""
    deaf: bool = False
    """Whether nobody above ends an instance that has lost a rank: the protocol must."""
    cancels: frozenset[int] = frozenset()
    """Creations that are cancelled, on each of their ranks at any time."""
    expiries: int = 0
    """How many bounds may pass, however soon."""
    drops: int = 0
    """How often the broker above an instance on its way may end on one rank."""
    mpi_fails: bool = False
    """Whether MPI may be unable to make a communicator (all members see it)."""
    ends: bool = False
    """Whether instances that came up end again, on each rank at any time."""
    again: bool = False
    """Whether the first creation is ordered once more when it has failed everywhere."""
    limit: int = 9
    """Communicators that a rank may have."""

    @property
    def plans(self) -> dict[str, tuple[int, ...]]:
        """The creations by the keys that they get: ``a``, ``b``, …"""
        return {chr(97 + i): members for i, members in enumerate(self.creations)}


# -- a rank ----------------------------------------------------------------------------------------


class _Shared(Tree):
    """A tree that copies of a rank have in common."""

    def __init__(self, links: str) -> None:
        super().__init__(["host"] * RANKS, 1 if links == "chain" else RANKS)
        self.links = links

    def __reduce__(self) -> Any:
        return tree, (self.links,)


class _Mesh(_Shared):
    """Where each rank is a neighbour of all."""

    def next_hop(self, here: int, to: int) -> int | None:
        return None if here == to else to


@cache
def tree(links: str) -> Tree:
    return (_Mesh if links == "mesh" else _Shared)(links)


class _Timer:
    """A bound that a scenario may let pass."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class _Reactor:
    def call_later(self, seconds: float, callback: Callable[[], object]) -> _Timer:
        return _Timer(callback)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Only wakes the loop."""


class _Broker(Broker):
    """The calls and the router of a broker; its bytes stay messages."""

    def __init__(self, rank: int, links: str) -> None:
        self.rank = rank
        self.size = RANKS
        self.uid = 0
        self.frame_limit = 1 << 20
        self.reactor = _Reactor()  # type: ignore[assignment]
        self.router = Router(rank, tree(links), self)
        self.parent = None
        self.on_peer_lost = []
        self.on_child_gone = []
        self.children = set()
        self.called: dict[tuple[Any, ...], int] = {}
        self.posted: list[tuple[int, Message]] = []
        self._handlers = {}
        self._calls = {}
        self._decoders = {}

    def rpc(
        self,
        topic: str,
        payload: Any,
        callback: Callable[[Response], object],
        *,
        rank: int = -1,
        streaming: bool = False,
    ) -> Rpc:
        # As in a broker, but for the tag: it must not depend on what else has been called.
        name = (topic, payload["key"], payload.get("ticket", 0), rank)
        self.called[name] = count = self.called.get(name, 0) + 1
        tag: Any = (*name, count)
        call = self._calls[tag] = Rpc(tag, topic, callback, streaming, self._cancel_call)
        flags = STREAMING if streaming else 0
        message = Message(REQUEST, topic, pack(payload), flags=flags, tag=tag, target=rank, uid=0)
        self.router.request(message, None)
        return call

    def to_caller(self, message: Message) -> None:
        call = self._calls.get(message.tag)
        if call is None:
            return
        if message.errnum or not call.streaming:
            del self._calls[message.tag]
        call.callback(Response(message))

    def to_peer(self, rank: int, message: Message) -> None:
        self.posted.append((rank, message))

    def _callback_failed(self, error: BaseException) -> None:
        raise error

    def deliver(self, peer: int, message: Message) -> None:
        if message.topic == "cancel":
            self.router.cancel(message, peer)
        else:
            self._take(message, peer)


class _Maker:
    """Makes transports out of nothing, and communicators when the model's MPI has."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.entered: list[tuple[int, str, str, tuple[int, ...]]] = []
        self.waiting: dict[int, tuple[str, Callable[[Any, str], object]]] = {}
        """By ticket: what to call when MPI has."""
        self.there: list[tuple[str, int]] = []
        """(key, ticket) of communicators that are there, or left for good."""

    def make(
        self, birth: Newborn, mode: str, ticket: int, done: Callable[[Any, str], object]
    ) -> None:
        self.entered.append((ticket, birth.key, mode, tuple(birth.members)))
        if mode == CONTEXT:
            done((mode, birth.key, ticket), "")
        else:
            if self.waiting:
                raise Wrong(f"{birth.key} is entered in the midst of {self.waiting}")
            self.waiting[ticket] = (birth.key, done)

    def made(self, ticket: int, fails: bool) -> None:
        key, done = self.waiting.pop(ticket)
        if fails:
            done(None, "MPI has no more of them")
        else:
            self.there.append((key, ticket))
            done((COMMUNICATOR, key, ticket), "")

    def free(self, transport: Any, orderly: bool) -> None:
        mode, key, ticket = transport
        if mode == COMMUNICATOR and orderly:
            self.there.remove((key, ticket))


class Rank:
    """One process, and what may happen to it."""

    def __init__(self, rank: int, links: str, limit: int) -> None:
        self.broker = _Broker(rank, links)
        self.maker = _Maker(limit)
        self.world = World(self.broker, ["host"] * RANKS, self.maker)  # type: ignore[arg-type]
        self.told: dict[str, str] = {}
        """What became of each creation here: ``up`` or ``failed``."""
        self.gone: set[str] = set()
        """Creations of which nothing is left here."""

    def _hear(self, key: str, transport: Any, why: str) -> None:
        if key in self.told:
            raise Wrong(f"{key} is said to be {self.told[key]}, and then something else")
        self.told[key] = "failed" if transport is None else "up"

    def do_birth(self, key: str, members: tuple[int, ...]) -> None:
        index = members.index(self.broker.rank)
        hear = partial(self._hear, key)
        reactor: Any = None
        self.world.create(Newborn(key, list(members), index, reactor, None, hear))

    def do_deliver(self, source: int, message: Message) -> None:
        self.broker.deliver(source, message)

    def do_lose(self, peer: int) -> None:
        self.broker._peer_lost(peer, "its process ended")

    def do_leave(self, ticket: int, fails: bool) -> None:
        self.maker.made(ticket, fails)

    def do_cancel(self, key: str) -> None:
        self.world.cancel(key, "it was cancelled")

    def do_forget(self, key: str) -> None:
        self.gone.add(key)
        self.world.forget(key, self.told[key] == "up")

    def do_drop(self, key: str) -> None:
        self.world.forget(key, False)
        self.gone.add(key)

    def do_again(self, key: str) -> None:
        self.gone.discard(key)
        del self.told[key]

    def do_expire(self, key: str) -> None:
        timer = self.world._courses[key]._bound
        assert isinstance(timer, _Timer)
        callback, timer.callback = timer.callback, None
        assert callback is not None
        callback()

    def essence(self) -> Any:
        """All that what it will do depends on."""
        world, broker, maker = self.world, self.broker, self.maker
        gate, registrar = world.gate, world._registrar
        return (
            broker.rank,
            tuple(
                (key, birth.state, birth.ticket, birth.mode)
                for key, birth in sorted(gate._births.items())
            ),
            (gate.live, gate.wedged, gate._promised, gate._inside, world.damaged),
            tuple(
                (key, newborn.mode, newborn.transport, _request(newborn.asked))
                for key, newborn in sorted(world._newborn.items())
            ),
            tuple((key, _request(asked)) for key, asked in sorted(world._asked.items())),
            tuple(_course(key, course) for key, course in sorted(world._courses.items())),
            tuple(
                (ticket, entry.members, entry.granted)
                for ticket, entry in registrar._entries.items()
            ),
            registrar._last,
            tuple((ticket, _request(asked)) for ticket, asked in sorted(world._queued.items())),
            frozenset(
                (key, flight.to, flight.source, _request(flight.request))
                for key, flight in broker.router._flights.items()
            ),
            frozenset(broker.router.unreachable),
            frozenset(broker._calls),
            frozenset(item for item in broker.called.items() if item[1] > 1),
            tuple((ticket, key) for ticket, (key, _) in maker.waiting.items()),
            frozenset(maker.there),
            frozenset(self.told.items()),
            frozenset(self.gone),
        )


def _request(request: Any) -> Any:
    return None if request is None else (request.message.tag, request.open)


def _course(key: str, course: Any) -> Any:
    leader = course._leader
    assert not course._todo
    return (
        key,
        (leader.ticket, leader.mode, frozenset(leader._waiting)),
        (leader._went, leader._given_up, leader._released),
        (course._ticket is not None, course._bound is not None, len(course._asked)),
    )


class View:
    """What the model must know about a state of a rank."""

    def __init__(self, rank: Rank, blob: bytes) -> None:
        world, maker = rank.world, rank.maker
        gate = world.gate
        self.rank = rank.broker.rank
        self.blob = blob
        self.told = dict(rank.told)
        self.gone = frozenset(rank.gone)
        self.awaited = [key for key in world._newborn if key not in rank.told]
        self.failed = [
            key for key, how in rank.told.items() if how == "failed" and key not in self.gone
        ]
        self.up = [key for key, how in rank.told.items() if how == "up" and key not in self.gone]
        self.bounds = [key for key, course in world._courses.items() if course._bound is not None]
        self.unready = {key for key in self.awaited if gate._births[key].ticket == 0}
        self.wrong = ""
        """What must never be."""
        if gate.wedged < 0 or not 0 <= gate.live <= gate.limit:
            self.wrong = f"{gate.wedged} wedged, {gate.live} live"
        elif len(maker.waiting) != gate.wedged + (gate._inside is not None):
            self.wrong = f"in {maker.waiting}, and its gate does not know"
        self.left = ""
        """What must not be there in the end."""
        for name, what in {
            "courses": world._courses,
            "requests of leaders": world._asked,
            "requests for a ticket": world._queued,
            "tickets": dict.fromkeys(world._registrar._entries),
            "calls": rank.broker._calls,
            "flights": rank.broker.router._flights,
            "births": {
                key: birth for key, birth in gate._births.items() if key not in world._newborn
            },
        }.items():
            if what:
                self.left += f" {name}: {list(what)}"
        if gate.live != len(maker.there):
            self.left += f" {len(maker.there)} communicators, and its gate counts {gate.live}"


class Outcome(NamedTuple):
    """What something does to a rank."""

    rank: int
    """The number of its new state."""
    posted: tuple[tuple[int, int], ...]
    """(to, number of message)."""
    entered: tuple[tuple[int, str, str, tuple[int, ...]], ...]
    """(ticket, key, mode, members)."""


class Ranks:
    """All states of ranks that were met, and what leads from one to another."""

    def __init__(self, links: str, limit: int) -> None:
        self.views: list[View] = []
        self._numbers: dict[Any, int] = {}
        self._messages: list[Any] = []
        self._message_numbers: dict[Any, int] = {}
        self._steps: dict[tuple[int, Event], Outcome] = {}
        self.first = tuple(self._number(Rank(rank, links, limit)) for rank in range(RANKS))

    def _number(self, rank: Rank) -> int:
        essence = rank.essence()
        number = self._numbers.get(essence)
        if number is None:
            number = self._numbers[essence] = len(self.views)
            self.views.append(View(rank, pickle.dumps(rank, 5)))
        return number

    def _message(self, message: Message) -> int:
        # Texts are for people.
        payload = None if message.errnum else message.body
        if isinstance(payload, dict):
            payload.pop("why", None)
        fields = (message.kind, message.flags, message.topic, message.tag, message.target)
        essence = (*fields, message.errnum, tuple(message.route), repr(payload))
        number = self._message_numbers.get(essence)
        if number is None:
            number = self._message_numbers[essence] = len(self._messages)
            self._messages.append(pickle.dumps(message, 5))
        return number

    def step(self, number: int, event: Event) -> Outcome:
        """What ``event`` (a method's name and operands) does to a rank in this state."""
        known = self._steps.get((number, event))
        if known is not None:
            return known
        rank: Rank = pickle.loads(self.views[number].blob)
        kind, *operands = event
        if kind == "deliver":
            operands[1] = pickle.loads(self._messages[operands[1]])
        getattr(rank, f"do_{kind}")(*operands)
        posted, rank.broker.posted = rank.broker.posted, []
        entered, rank.maker.entered = rank.maker.entered, []
        outcome = Outcome(
            self._number(rank),
            tuple((to, self._message(message)) for to, message in posted),
            tuple(entered),
        )
        self._steps[number, event] = outcome
        return outcome


# -- the whole -------------------------------------------------------------------------------------


class Call(NamedTuple):
    """One collective call of ``MPI_Comm_create_group``; ranks as bits."""

    ticket: int
    key: str
    members: int
    entered: int = 0
    inside: int = 0
    fails: bool | None = None
    broken: bool = False
    """A member died in it, and the others do not come back."""

    @property
    def complete(self) -> bool:
        return self.entered == self.members and not self.broken


class State(NamedTuple):
    """All three ranks and what is between them."""

    ranks: tuple[int | None, ...]
    links: tuple[tuple[int, ...], ...]
    """What is on its way, for each of PAIRS."""
    calls: tuple[Call, ...]
    modes: frozenset[tuple[int, str, str]]
    """(ticket, key, mode) that members of a creation went for."""
    orders: frozenset[tuple[str, int]]
    """Births that are still to come."""
    cancels: frozenset[tuple[str, int]]
    hurt: frozenset[str]
    """Creations that a bound, or the end of a broker above, has ended."""
    crashes: int
    expiries: int
    drops: int
    again: bool


class System:
    """What may happen to a state, and what comes of it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.plans = scenario.plans
        self.ranks = Ranks(scenario.links, scenario.limit)
        everyone = frozenset((k, rank) for k, members in self.plans.items() for rank in members)
        cancelled = {chr(97 + i) for i in scenario.cancels}
        self.first = State(
            self.ranks.first,
            ((),) * len(PAIRS),
            (),
            frozenset(),
            everyone,
            frozenset(it for it in everyone if it[0] in cancelled),
            frozenset(),
            scenario.crashes,
            scenario.expiries,
            scenario.drops,
            scenario.again,
        )

    def living(self, state: State) -> Iterator[View]:
        for number in state.ranks:
            if number is not None:
                yield self.ranks.views[number]

    def doomed(self, state: State) -> set[str]:
        """Creations that whoever ordered them ends everywhere: one that has lost a rank, all when
        the world's root is lost, one that has ended on a rank already."""
        dead = {rank for rank, number in enumerate(state.ranks) if number is None}
        if 0 in dead or (dead and self.scenario.links == "chain"):
            return set(self.plans)
        found = {key for key, members in self.plans.items() if dead & set(members)}
        found |= state.hurt
        if self.scenario.again and not state.again:
            # What is late of the first run may end the second.
            found |= {key for view in self.living(state) for key in view.told if key == "a"}
        return found

    # -- what may happen next -------------------------------------------------------------------

    def next(self, state: State) -> Iterator[tuple[Event, State]]:
        """Each event that may come next, and the state after it."""
        for at, link in enumerate(state.links):
            if link:
                source, to = PAIRS[at]
                links = _replaced(state.links, at, link[1:])
                what = ("lose", source) if link[0] == END else ("deliver", source, link[0])
                yield ("deliver", source, to), self._step(state._replace(links=links), to, what)
        for key, rank in state.orders:
            orders = state.orders - {(key, rank)}
            what = ("birth", key, self.plans[key])
            yield ("birth", key, rank), self._step(state._replace(orders=orders), rank, what)
        for call in state.calls:
            if call.complete:
                yield from self._leavings(state, call)
        doomed = set() if self.scenario.deaf else self.doomed(state)
        for view in self.living(state):
            rank = view.rank
            for key in (*view.failed, *(view.up if self.scenario.ends else ())):
                yield ("forget", key, rank), self._step(state, rank, ("forget", key))
            for key in view.awaited:
                if key in doomed or (key, rank) in state.cancels:
                    after = self._step(state, rank, ("cancel", key))
                    if after != state:
                        yield ("cancel", key, rank), after
            if state.expiries:
                for key in view.bounds:
                    after = state._replace(expiries=state.expiries - 1, hurt=state.hurt | {key})
                    yield ("expire", key, rank), self._step(after, rank, ("expire", key))
            if state.drops:
                for key in view.awaited:
                    after = state._replace(drops=state.drops - 1, hurt=state.hurt | {key})
                    yield ("drop", key, rank), self._step(after, rank, ("drop", key))
        if state.crashes:
            yield from self._deaths(state)
        if state.again:
            yield from self._again(state)

    def _leavings(self, state: State, call: Call) -> Iterator[tuple[Event, State]]:
        for rank in range(RANKS):
            if not call.inside >> rank & 1:
                continue
            for fails in (False, True):
                if call.fails not in (None, fails) or (fails and not self.scenario.mpi_fails):
                    continue
                now = call._replace(inside=call.inside & ~(1 << rank), fails=fails)
                rest = [it for it in state.calls if it is not call]
                calls = (*rest, now) if now.inside else tuple(rest)
                what = ("leave", call.ticket, fails)
                yield (
                    ("leave", call.key, rank, fails),
                    self._step(state._replace(calls=tuple(sorted(calls))), rank, what),
                )

    def _deaths(self, state: State) -> Iterator[tuple[Event, State]]:
        for rank, number in enumerate(state.ranks):
            if number is None:
                continue
            # Of what it has said last, some may not have left it.
            sent = [at for at, (source, _) in enumerate(PAIRS) if source == rank]
            lengths = [range(len(state.links[at]) + 1) for at in sent]
            shared = any(call.complete and call.inside >> rank & 1 for call in state.calls)
            # Nor may the orders that it was to pass on.
            mute = not self.scenario.deaf and any(
                rank == 0 or rank in self.plans[key] for key, _ in state.orders
            )
            for kept in itertools.product(*lengths):
                for breaks in (False, True)[: 1 + shared]:
                    for silent in (False, True)[: 1 + mute]:
                        after = self._dead(state, rank, dict(zip(sent, kept)), breaks, silent)
                        yield ("crash", rank, kept, breaks, silent), after

    def _dead(
        self, state: State, rank: int, kept: dict[int, int], breaks: bool, silent: bool
    ) -> State:
        near = tree(self.scenario.links)
        links = list(state.links)
        for at, (source, to) in enumerate(PAIRS):
            if to == rank:
                links[at] = ()
            elif source == rank and state.ranks[to] is not None:
                news = (END,) if near.next_hop(rank, to) == to else ()
                links[at] = (*state.links[at][: kept[at]], *news)
        calls = []
        for call in state.calls:
            broken = call.broken or (breaks and bool(call.inside >> rank & 1))
            now = call._replace(inside=call.inside & ~(1 << rank), broken=broken)
            if now.inside:
                calls.append(now)
        return state._replace(
            ranks=_replaced(state.ranks, rank, None),
            links=tuple(links),
            calls=tuple(calls),
            orders=frozenset(
                (key, to)
                for key, to in state.orders
                if to != rank and not (silent and (rank == 0 or rank in self.plans[key]))
            ),
            cancels=frozenset((key, to) for key, to in state.cancels if to != rank),
            crashes=state.crashes - 1,
        )

    def _again(self, state: State) -> Iterator[tuple[Event, State]]:
        views = [self.ranks.views[number] for number in state.ranks if number is not None]
        ranks = self.plans["a"]
        if len(views) == RANKS and all(
            "a" in views[rank].gone and views[rank].told["a"] == "failed" for rank in ranks
        ):
            after = state._replace(
                again=False, orders=state.orders | {("a", rank) for rank in ranks}
            )
            for rank in ranks:
                after = self._step(after, rank, ("again", "a"))
            yield ("again", "a"), after

    def _step(self, state: State, rank: int, what: Event) -> State:
        number = state.ranks[rank]
        assert number is not None
        outcome = self.ranks.step(number, what)
        if outcome.rank != number:
            state = state._replace(ranks=_replaced(state.ranks, rank, outcome.rank))
        if outcome.posted:
            links = list(state.links)
            for to, message in outcome.posted:
                if state.ranks[to] is not None:
                    at = PAIRS.index((rank, to))
                    links[at] = (*links[at], message)
            state = state._replace(links=tuple(links))
        for ticket, key, mode, members in outcome.entered:
            if members != self.plans[key] or any(
                it[0] == ticket and it != (ticket, key, mode) for it in state.modes
            ):
                raise Wrong(f"rank {rank} makes another {key} than others do: {mode}")
            state = state._replace(modes=state.modes | {(ticket, key, mode)})
            if mode == COMMUNICATOR:
                state = state._replace(calls=_entered(state.calls, ticket, key, members, rank))
        view = self.ranks.views[outcome.rank]
        if view.wrong:
            raise Wrong(f"rank {rank}: {view.wrong}")
        if state.cancels:
            # One that changes nothing here changes nothing later: heard or not is the same.
            vain = {
                (key, to)
                for key, to in state.cancels - state.orders
                if to == rank and self._in_vain(outcome.rank, key)
            }
            if vain:
                state = state._replace(cancels=state.cancels - vain)
        return state

    def _in_vain(self, number: int, key: str) -> bool:
        """Whether a cancel changes nothing."""
        if key not in self.ranks.views[number].awaited:
            return True
        outcome = self.ranks.step(number, ("cancel", key))
        return outcome.rank == number and not outcome.posted

    # -- what must hold in the end --------------------------------------------------------------

    def check_end(self, state: State) -> None:
        """Nothing more can happen: is all as it should be? Raises Wrong."""
        doomed = self.doomed(state)
        for view in self.living(state):
            waits = [
                key for key in view.awaited if not (self.scenario.deaf and key in view.unready)
            ]
            if waits:
                raise Wrong(f"rank {view.rank} waits for {waits} for ever")
            if view.left:
                raise Wrong(f"rank {view.rank} has in the end{view.left}")
        for call in state.calls:
            if call.key not in doomed:
                raise Wrong(f"ranks {call.inside:b} (bits) are stuck in {call.key}")
        for key, members in self.plans.items():
            if key in doomed:
                continue
            ends = {self.ranks.views[state.ranks[rank]].told.get(key) for rank in members}
            if len(ends) > 1:
                raise Wrong(f"{key} ends differently on its ranks: {ends}")
            wanted = ord(key) - 97 not in self.scenario.cancels
            if wanted and not self.scenario.mpi_fails and ends != {"up"}:
                raise Wrong(f"{key} fails for no reason")


def _replaced(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _entered(
    calls: tuple[Call, ...], ticket: int, key: str, members: Iterable[int], rank: int
) -> tuple[Call, ...]:
    call = Call(ticket, key, sum(1 << member for member in members))
    for other in calls:
        if other.ticket == ticket:
            call = other
    rest = [other for other in calls if other.ticket != ticket]
    bit = 1 << rank
    call = call._replace(entered=call.entered | bit, inside=call.inside | bit)
    return tuple(sorted([*rest, call]))


# -- the search ------------------------------------------------------------------------------------


@dataclass
class Found:
    """What an exploration has seen."""

    states: int = 0
    steps: int = 0
    ends: int = 0
    rank_states: int = 0
    modes: frozenset[str] = frozenset()
    complete: bool = True
    seconds: float = 0.0


def explore(scenario: Scenario, *, bound: int = 0) -> Found:
    """Go through all states of ``scenario`` (at most ``bound``, if given). Raises Wrong."""
    began = time.monotonic()
    system = System(scenario)
    seen = {hash(system.first)}  # 64 bits tell millions of states apart, and take less room
    came: list[tuple[int, Event]] = [(-1, ())]
    todo = [(0, system.first)]
    steps = ends = 0
    modes: set[str] = set()
    event: Event = ()
    while todo and not (bound and len(seen) > bound):
        here, state = todo.pop()
        quiet = True
        event = ()
        try:
            for event, after in system.next(state):
                quiet = False
                steps += 1
                mark = hash(after)
                if mark not in seen:
                    seen.add(mark)
                    came.append((here, event))
                    todo.append((len(came) - 1, after))
            if quiet:
                ends += 1
                modes |= {mode for _, _, mode in state.modes}
                system.check_end(state)
        except Exception as error:
            after_what = [] if quiet else [event, "and then"]
            text = "\n  ".join(map(str, [*_trace(came, here), *after_what]))
            raise Wrong(f"{type(error).__name__}: {error}, after\n  {text}") from error
    return Found(
        len(seen),
        steps,
        ends,
        len(system.ranks.views),
        frozenset(modes),
        not todo,
        time.monotonic() - began,
    )


def _trace(came: list[tuple[int, Event]], here: int) -> list[Event]:
    trace = []
    while here > 0:
        here, event = came[here]
        trace.append(event)
    return trace[::-1]
