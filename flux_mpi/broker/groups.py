"""Groups: named sets of clients. Pure cores; ``group_service`` carries what they say.

The root knows who is in which group (`Groups`); every other broker gathers what changes at it and
below and passes it on (`Updates`). Who watches a group does so at the nearest broker: it keeps
what it was told (`Watched`), and asks the broker above for the changes once for all that watch.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.member import order

Origin = tuple[int, int]
"""Who a member is: the rank of its broker, and its client number there."""

Op = list[Any]
"""A change, as it travels: ``["join", group, member, rank, client]``, ``["leave", group, member]``,
``["gone", rank, client]``, ``["lost", ranks as an idset]``."""

Change = tuple[list[str], list[str]]
"""(joined, left), each in order."""


class Groups:
    """The root's part: who is in which group, and what changed since that was last told."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Origin]] = {}
        self._of: dict[Origin, set[tuple[str, str]]] = {}
        self._before: dict[str, dict[str, bool]] = {}

    def members(self, group: str) -> list[str]:
        """The members of ``group``, in order; nobody is in a group that nobody joined."""
        return sorted(self._groups.get(group, ()), key=order)

    def apply(self, ops: Iterable[Op]) -> list[tuple[int, int, str]]:
        """Carry out changes in their order; (index, errnum, text) for each that is refused."""
        refused = []
        for at, op in enumerate(ops):
            problem = self._apply(op)
            if problem is not None:
                refused.append((at, *problem))
        return refused

    def _apply(self, op: Op) -> tuple[int, str] | None:
        what, *rest = op
        if what == "join":
            group, member, rank, client = rest
            return self._join(group, member, (rank, client))
        if what == "leave":
            return self._leave(*rest)
        if what == "gone":
            rank, client = rest
            self._drop((rank, client))
        elif what == "lost":
            ranks = IDSet.parse(rest[0])
            for origin in [origin for origin in self._of if origin[0] in ranks]:
                self._drop(origin)
        else:
            return errno.EPROTO, f"groups: an unknown change {what!r}"
        return None

    def _join(self, group: str, member: str, origin: Origin) -> tuple[int, str] | None:
        members = self._groups.setdefault(group, {})
        if member in members:
            rank = members[member][0]
            return errno.EEXIST, f"group {group}: {member} is in it already, from rank {rank}"
        members[member] = origin
        self._of.setdefault(origin, set()).add((group, member))
        self._note(group, member, was=False)
        return None

    def _leave(self, group: str, member: str) -> tuple[int, str] | None:
        origin = self._groups.get(group, {}).get(member)
        if origin is None:
            return errno.ENOENT, f"group {group}: {member} is not in it"
        self._remove(group, member)
        self._of[origin].discard((group, member))
        if not self._of[origin]:
            del self._of[origin]
        return None

    def _drop(self, origin: Origin) -> None:
        for group, member in self._of.pop(origin, ()):
            self._remove(group, member)

    def _remove(self, group: str, member: str) -> None:
        members = self._groups[group]
        del members[member]
        if not members:
            del self._groups[group]
        self._note(group, member, was=True)

    def _note(self, group: str, member: str, was: bool) -> None:
        # Only how it was when last told matters: who came and went in between is no change.
        self._before.setdefault(group, {}).setdefault(member, was)

    def changes(self) -> dict[str, Change]:
        """What changed in which group since the last call; groups without change are left out."""
        found: dict[str, Change] = {}
        for group, before in self._before.items():
            now = self._groups.get(group, {})
            joined = [member for member, was in before.items() if not was and member in now]
            left = [member for member, was in before.items() if was and member not in now]
            if joined or left:
                found[group] = (sorted(joined, key=order), sorted(left, key=order))
        self._before = {}
        return found


Answer = tuple[Any, list[tuple[int, int, str]]]
"""(whose changes, those refused as (index among its own, errnum, text))."""


@dataclass(eq=False, slots=True)
class Update:
    """Changes that travel together, and whose they are."""

    ops: list[Op] = field(default_factory=list)
    parts: list[tuple[Any, int]] = field(default_factory=list)
    """(source, how many of the changes are its) in order."""


class Updates:
    """Every other broker's part in changing groups: it gathers, and tells what has become of it."""

    def __init__(self) -> None:
        self._next = Update()
        self.under_way = 0
        """Updates that were sent and are not answered yet."""

    def add(self, ops: list[Op], source: Any) -> None:
        """Changes that ``source`` wants; `flush` when they are to be passed on."""
        self._next.ops += ops
        self._next.parts.append((source, len(ops)))

    def flush(self) -> Update | None:
        """What is to be sent up now, if anything is."""
        if not self._next.parts:
            return None
        update, self._next = self._next, Update()
        self.under_way += 1
        return update

    def answered(self, update: Update, refused: Iterable[tuple[int, int, str]]) -> list[Answer]:
        """The broker above has answered: what to tell each source."""
        self.under_way -= 1
        answers: list[Answer] = []
        by_index = {at: (errnum, text) for at, errnum, text in refused}
        first = 0
        for source, count in update.parts:
            mine = [
                (at - first, *by_index[at]) for at in range(first, first + count) if at in by_index
            ]
            answers.append((source, mine))
            first += count
        return answers


class Watched:
    """What a broker other than the root was told of a group that somebody watches there."""

    def __init__(self) -> None:
        self.known = False
        self._members: set[str] = set()

    def reset(self, members: Iterable[str]) -> None:
        """These are all members."""
        self.known = True
        self._members = set(members)

    def change(self, joined: Iterable[str], left: Iterable[str]) -> None:
        """These came and went."""
        self._members.difference_update(left)
        self._members.update(joined)

    @property
    def members(self) -> list[str]:
        return sorted(self._members, key=order)
