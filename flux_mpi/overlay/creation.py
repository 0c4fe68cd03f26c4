"""How ranks agree to make a communicator for a child instance: pure, events in and actions out.

``MPI_Comm_create_group`` blocks each member until the last one has entered. Two members that enter
two creations in opposite order wait for each other for ever, and one that never enters keeps all
others. So a creation goes through these steps::

    leader                      world's root            members (the leader is one of them)
      | -- ticket(members) ------> |
      | <------ granted ---------- |    once no creation with an earlier ticket and a common member
      |                                 is under way: one total order, and nobody is in two at once
      | -- prepare(ticket) ----------------------------> |   a request that is open until the end
      | <---------------------------- ready(able) ------ |   it was born there; or refused
      | -- go(mode) -----------------------------------> |
      | <---------------------------- created ---------- |   or failed
      | -- release --------------> |

``mode`` is COMMUNICATOR if all members are able to make one, else CONTEXT: the child then shares
a communicator with others and keeps its messages apart by their tag, which takes nobody's consent.

``ready`` is a promise to enter: the ``go`` may be on its way, and others enter with it. So who is
cancelled then (`Gate.cancel`, `Leader.cancel`) goes on until the leader, who is cancelled as well,
says that it is over, or all are in: an instance that is there ends as any other does. Before
``ready`` a cancel ends a creation without a trace.

A member may die before it has entered: those that did cannot leave the call any more. Their brokers
go on without the thread that made it (`Gate.abandon`), say that they are not able, and use contexts
until it comes back.

A ticket may be released, because its leader died, while a ``prepare`` or ``go`` of it is still on
its way. They must not be followed: a member says ready to no ticket before one that it has said
ready to, and enters only for the last one.

``tests/overlay/creation_model.py`` tries all orders in which all this may happen to three ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

COMMUNICATOR, CONTEXT, LOOPBACK = "communicator", "context", "loopback"


@dataclass(slots=True)
class _Entry:
    members: int
    granted: bool = False


class Registrar:
    """The world's root: hands out tickets. ``members`` are bit masks of ranks of the world."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}  # in the order of their tickets
        self._last = 0

    def __len__(self) -> int:
        return len(self._entries)

    def request(self, members: int) -> int:
        """A creation wants its turn; returns its ticket. Raises ValueError without members."""
        if members <= 0:
            raise ValueError("a creation without members")
        self._last += 1
        self._entries[self._last] = _Entry(members)
        return self._last

    def release(self, ticket: int) -> None:
        """A creation is over, done or given up. Idempotent."""
        self._entries.pop(ticket, None)

    def grant(self) -> list[int]:
        """The tickets whose turn it is now, and was not before."""
        found = []
        busy = 0
        for ticket, entry in self._entries.items():
            if not entry.granted and not entry.members & busy:
                entry.granted = True
                found.append(ticket)
            busy |= entry.members
        return found


# -- members ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """Answer the leader's ``prepare``: born here; ``able`` to make a communicator."""

    key: str
    able: bool


@dataclass(frozen=True, slots=True)
class Enter:
    """Make the communicator or context of ``key``; then say `Gate.entered` or `Gate.failed`."""

    key: str
    mode: str
    ticket: int


@dataclass(frozen=True, slots=True)
class Created:
    """Answer the leader's ``go``: the transport is there."""

    key: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer what the leader asks with an error."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Tell whoever waits for the child here that it will not come to be."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Up:
    """Tell whoever waits for the child here that its transport is there."""

    key: str


Action = Ready | Enter | Created | Refuse | Failed | Up

# What a birth of this process may be in.
_ASKED, _BORN, _READY, _ENTERING, _UP, _OVER = range(6)


@dataclass(slots=True)
class _Birth:
    state: int
    ticket: int = 0
    mode: str = ""


class Gate:
    """One process as a member of any number of creations.

    ``limit``: communicators that may be live here at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.live = 0
        """Communicators of children that are there now."""
        self.wedged = 0
        """Calls that nobody awaits any more, and that somebody's death may block for good."""
        self._births: dict[str, _Birth] = {}
        self._promised = 0
        self._inside: str | None = None

    def __len__(self) -> int:
        return len(self._births)

    @property
    def able(self) -> bool:
        """Whether this process could enter a creation now."""
        return not self.wedged and self._inside is None and self.live < self.limit

    def born(self, key: str) -> list[Action]:
        """The parent has ordered the child here. Raises ValueError if it has before."""
        birth = self._births.get(key)
        if birth is None:
            self._births[key] = _Birth(_BORN)
            return []
        if birth.state != _ASKED:
            raise ValueError(f"creation {key}: ordered twice")
        return self._ready(key, birth)

    def prepare(self, key: str, ticket: int) -> list[Action]:
        """The leader asks whether the child was ordered here; answered once it was."""
        birth = self._births.get(key)
        if birth is None:
            self._births[key] = _Birth(_ASKED, ticket)
            return []
        if birth.state != _BORN:
            return [Refuse(key, "it is over here" if birth.state == _OVER else "prepared twice")]
        birth.ticket = ticket
        return self._ready(key, birth)

    def _ready(self, key: str, birth: _Birth) -> list[Action]:
        birth.state = _READY
        if birth.ticket < self._promised:
            return self._over(key, "its turn is over")  # to say ready would break the promise
        self._promised = birth.ticket
        return [Ready(key, self.able)]

    def go(self, key: str, mode: str, ticket: int) -> list[Action]:
        """The leader says that all are ready."""
        birth = self._births.get(key)
        if birth is None or birth.state != _READY or birth.ticket != ticket:
            return []  # its leader has been told
        if mode == COMMUNICATOR and (ticket != self._promised or not self.able):
            # Its leader is dead and the turn is another's: whoever follows it waits for ever.
            return self._over(key, "its turn is over")
        birth.state = _ENTERING
        birth.mode = mode
        if mode == COMMUNICATOR:
            self._inside = key
        return [Enter(key, mode, birth.ticket)]

    def entered(self, key: str) -> list[Action]:
        """What ``Enter`` asked for is there."""
        birth = self._births.get(key)
        if birth is None or birth.state != _ENTERING:
            return []
        self._leave(key)
        self.live += birth.mode == COMMUNICATOR
        birth.state = _UP
        return [Created(key), Up(key)]

    def failed(self, key: str, why: str) -> list[Action]:
        """What ``Enter`` asked for cannot be had."""
        birth = self._births.get(key)
        if birth is None or birth.state != _ENTERING:
            return []
        self._leave(key)
        return self._over(key, why)

    def cancel(self, key: str, why: str) -> list[Action]:
        """The child is not wanted any more, here or anywhere. Idempotent.

        Nothing happens here once the leader has heard that it is ready.
        """
        birth = self._births.get(key)
        if birth is None or birth.state != _BORN:
            return []
        return self._over(key, why)

    def abandon(self, key: str, why: str, ticket: int = 0) -> list[Action]:
        """Give a creation up: the leader says so or is gone, or nobody here awaits it. Idempotent.

        ``ticket``: only if it is that one's. One that is up stays so: it ends as any child does.
        """
        birth = self._births.get(key)
        if birth is None or birth.state in (_UP, _OVER) or ticket not in (0, birth.ticket):
            return []
        if birth.state == _ASKED:
            del self._births[key]
            return [Refuse(key, why)]
        self.wedged += self._leave(key)
        return self._over(key, why)

    def _leave(self, key: str) -> bool:
        """Await no call for this creation any more; whether one was."""
        if self._inside != key:
            return False
        self._inside = None
        return True

    def _over(self, key: str, why: str) -> list[Action]:
        birth = self._births[key]
        asked = birth.state in (_READY, _ENTERING)
        birth.state = _OVER
        return [*([Refuse(key, why)] if asked else []), Failed(key, why)]

    def entering(self, key: str) -> bool:
        """Whether what ``Enter`` asked for is awaited here."""
        birth = self._births.get(key)
        return birth is not None and birth.state == _ENTERING

    def loosened(self, made: bool) -> None:
        """A blocked call has returned after all; ``made``: with a communicator, which stays."""
        self.wedged -= 1
        self.live += made

    def forget(self, key: str, freed: bool) -> None:
        """Nothing of the child is left here; ``freed``: nor of its communicator. Idempotent.

        One that is awaited must have been abandoned.
        """
        birth = self._births.pop(key, None)
        if freed and birth is not None and birth.state == _UP and birth.mode == COMMUNICATOR:
            self.live -= 1


# -- the leader ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AskTicket:
    """Ask the world's root for a ticket."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask member ``index`` whether it is ready."""

    index: int
    ticket: int


@dataclass(frozen=True, slots=True)
class Go:
    """Tell member ``index`` to enter."""

    index: int
    mode: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Tell member ``index`` to give up."""

    index: int


@dataclass(frozen=True, slots=True)
class Release:
    """Give the ticket back."""


LeaderAction = AskTicket | Prepare | Go | Abort | Release


@dataclass(slots=True)
class Leader:
    """The course of one creation with ``size`` members, by their index."""

    size: int
    ticket: int = 0
    mode: str = COMMUNICATOR
    _waiting: set[int] = field(default_factory=set)
    _went: bool = False
    _given_up: bool = False
    _released: bool = False

    @property
    def given_up(self) -> bool:
        return self._given_up

    def start(self) -> list[LeaderAction]:
        """Begin."""
        return [AskTicket()]

    def granted(self, ticket: int, damaged: bool) -> list[LeaderAction]:
        """It is our turn. ``damaged``: a rank of the world is lost."""
        if self._given_up:
            return self._release()
        self.ticket = ticket
        if damaged:
            self.mode = CONTEXT
        self._waiting = set(range(self.size))
        return [Prepare(index, ticket) for index in range(self.size)]

    def ready(self, index: int, able: bool) -> list[LeaderAction]:
        """A member was born and waits."""
        self._waiting.discard(index)
        if not able:
            self.mode = CONTEXT
        if self._given_up:
            return self._when_all_answered()
        if self._waiting:
            return []
        self._went = True
        self._waiting = set(range(self.size))
        return [Go(index, self.mode) for index in range(self.size)]

    def created(self, index: int) -> list[LeaderAction]:
        """A member has its transport."""
        self._waiting.discard(index)
        return self._when_all_answered()

    def failed(self, index: int) -> list[LeaderAction]:
        """A member refused, failed or is lost."""
        self._waiting.discard(index)
        if self._given_up:
            return self._when_all_answered()
        return self.give_up()

    def cancel(self) -> list[LeaderAction]:
        """The child is not wanted any more. Idempotent; nothing happens once all are ready."""
        return [] if self._went else self.give_up()

    def give_up(self) -> list[LeaderAction]:
        """End it, whoever waits in it; all are told. Idempotent."""
        if self._given_up or self._released:
            return []
        self._given_up = True
        if not self.ticket:
            return self._release()
        return [*(Abort(index) for index in range(self.size)), *self._when_all_answered()]

    def _when_all_answered(self) -> list[LeaderAction]:
        """Nobody is between ``go`` and ``created`` any more: others may have their turn."""
        if self._waiting or not (self._went or self._given_up):
            return []
        return self._release()

    def _release(self) -> list[LeaderAction]:
        if self._released:
            return []
        self._released = True
        return [Release()]
