"""Planning beside the bitmaps: when what runs will end, what is reserved, where one may start.

Nothing is kept, and nothing costs, until a policy that plans tells how long its jobs run. Then
every allocation leaves its expected end here, and the first reservation of a cycle makes a profile
of what will be free (`profile.py`) from them; it lives until the last reservation is released.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil
from typing import NamedTuple

from flux_mpi.sched.base import Reservation
from flux_mpi.sched.machine import Machine
from flux_mpi.sched.profile import Admission, Need, Profile

FOREVER_S = 1e9
"""How long something without a limit is expected to run: it ends, but after all that has one."""

JUST_AFTER_S = 1e-6
"""What is reserved begins this much after now, at the earliest."""

OVERDUE_S = 1.0
"""What should have ended by now, such as tasks that are being killed, is expected to in this."""


class Load(NamedTuple):
    """What one part of an allocation takes of a node."""

    node: int
    cores: int
    gpus: int


class Planner:
    """Expected ends and reservations. ``free()``: the cores and GPUs free now, by node."""

    def __init__(self, free: Callable[[], tuple[Sequence[int], Sequence[int]]]) -> None:
        self._free = free
        self._machine = Machine()
        self._up: Sequence[int] = ()
        self._loads: dict[int, dict[float, list[int]]] = {}
        self._ends: dict[int, float] = {}
        self._constraints: dict[str, None] = {}
        self._kinds: array[int] | None = None
        self._sizes: list[tuple[int, int]] = []
        self._counts: list[int] = []
        self._members: list[list[int]] = []
        self._classes: dict[str, tuple[int, ...]] = {}
        self._profile: Profile | None = None
        self._reservations: list[tuple[Reservation, Need]] = []
        self._floors = _Floors()

    # -- what there is --------------------------------------------------------------------------

    def define(self, machine: Machine) -> None:
        """The machine is another. What runs on ranks that are still there goes on."""
        before, self._machine = self._machine, machine
        loads = {machine.node_of(before.ranks[node]): users for node, users in self._loads.items()}
        self._loads = {node: users for node, users in loads.items() if node is not None}
        self.set_up(())

    def set_up(self, up: Sequence[int]) -> None:
        """1 for each node that may be used. Reservations are void: they may have used others."""
        self._up = up
        self._kinds = None
        self._forget()

    def know(self, constraint: str) -> None:
        """Requests may have this constraint: nodes that differ by it are different."""
        if constraint and constraint not in self._constraints:
            self._constraints[constraint] = None
            if not self._reservations:
                self._kinds = None

    # -- what runs ------------------------------------------------------------------------------

    def started(self, key: int, loads: Iterable[Load], now: float, end: float) -> None:
        """An allocation, known as ``key``, is expected to end then."""
        self._ends[key] = end
        profile = self._profile
        if profile is not None and not self._reservations:
            profile = self._profile = None
        kinds = self._kinds
        for load in loads:
            node, cores, gpus = load.node, load.cores, load.gpus
            users = self._loads.setdefault(node, {})
            use = users.get(end)
            if use is None:
                users[end] = [cores, gpus]
            else:
                use[0] += cores
                use[1] += gpus
            if profile is not None and kinds is not None and kinds[node] >= 0:
                profile.run(kinds[node], node, now, max(end, now), cores, gpus)

    def freed(self, key: int, loads: Iterable[Load]) -> None:
        """It has ended. While there are reservations, the plan does not know of it yet."""
        end = self._ends.pop(key, None)
        if end is None:
            return
        if not self._reservations:
            self._profile = None
        for load in loads:
            users = self._loads.get(load.node)
            use = users.get(end) if users else None
            if users is None or use is None:
                continue
            use[0] -= load.cores
            use[1] -= load.gpus
            if use[0] <= 0 and use[1] <= 0:
                del users[end]
                if not users:
                    del self._loads[load.node]

    @property
    def following(self) -> bool:
        """Whether any allocation has told its end."""
        return bool(self._ends)

    # -- reservations ---------------------------------------------------------------------------

    @property
    def holding(self) -> bool:
        """Whether anything is reserved."""
        return bool(self._reservations)

    def reserve(self, need: Need, now: float, duration: float) -> Reservation | None:
        """Hold what is needed at the earliest time after now; None: at no time."""
        profile = self._made(now)
        duration = min(duration, FOREVER_S)
        after = max(self._floors.get(need, duration), now + JUST_AFTER_S)
        found = profile.reserve(need, after, duration)
        if found is None:
            if not self._reservations:
                self._profile = None
            return None
        start = found[0]
        self._floors.put(need, duration, start)
        reservation = Reservation(start, start + duration)
        self._reservations.append((reservation, need))
        return reservation

    def release(self, reservations: Iterable[Reservation]) -> None:
        """Give these back; what is void already is no error."""
        gone = {id(reservation) for reservation in reservations}
        kept = [held for held in self._reservations if id(held[0]) not in gone]
        if len(kept) == len(self._reservations):
            return
        profile = self._profile
        self._forget()
        if not kept or profile is None:
            return
        # What stays is taken again; should it not fit together in that order, nothing is given up.
        again = self._made(profile.now)
        fits = all(again.take(need, held.start, held.end) is not None for held, need in kept)
        self._profile = again if fits else profile
        self._reservations = kept

    def admit(self, need: Need, now: float, duration: float) -> Admission | None:
        """Where something may start now beside what is reserved; None: nowhere."""
        if duration >= FOREVER_S:
            duration = 2 * FOREVER_S  # longer than all that runs without a limit already
        return self._made(now).admit(need, now, now + duration)

    def members(self, kind: int) -> Sequence[int]:
        """The nodes of a class."""
        return self._members[kind]

    def others(self, kinds: Iterable[int]) -> Iterator[int]:
        """The nodes of all other classes."""
        chosen = set(kinds)
        for kind, nodes in enumerate(self._members):
            if kind not in chosen:
                yield from nodes

    def classes(self, constraint: str) -> tuple[int, ...]:
        """The classes of usable nodes that meet a constraint."""
        self._partition()
        found = self._classes.get(constraint)
        if found is None:
            kinds: Iterable[int] = range(len(self._sizes))
            if constraint:
                # A constraint that came after the nodes were told apart may split a class; such a
                # class is left out until they are again.
                matching = self._machine.matching(constraint)
                kinds = [
                    kind for kind in kinds if all(matching[node] for node in self._members[kind])
                ]
            found = self._classes[constraint] = tuple(kinds)
        return found

    def _forget(self) -> None:
        self._profile = None
        self._reservations = []
        self._floors.clear()

    def _partition(self) -> None:
        """Tell nodes apart by what they have and which constraints they meet."""
        if self._kinds is not None:
            return
        machine = self._machine
        matching = [machine.matching(text) for text in self._constraints]
        known: dict[tuple[int, ...], int] = {}
        self._kinds = array("q", [-1]) * machine.size
        self._sizes, self._members = [], []
        self._classes.clear()
        for node in range(machine.size):
            if not self._up[node]:
                continue
            sort = (machine.core_counts[node], machine.gpu_counts[node])
            key = (*sort, *(meets[node] for meets in matching))
            kind = known.get(key)
            if kind is None:
                kind = known[key] = len(self._sizes)
                self._sizes.append(sort)
                self._members.append([])
            self._kinds[node] = kind
            self._members[kind].append(node)
        self._counts = [len(nodes) for nodes in self._members]

    def _made(self, now: float) -> Profile:
        """The profile as of now."""
        if self._profile is not None:
            return self._profile
        self._partition()
        kinds = self._kinds
        assert kinds is not None
        core_counts, gpu_counts = self._machine.core_counts, self._machine.gpu_counts
        core_free, gpu_free = self._free()
        soon = now + OVERDUE_S
        busy: dict[tuple[int, float], int] = {}
        shared = []
        for node, kind in enumerate(kinds):
            cores = core_counts[node] - core_free[node]
            gpus = gpu_counts[node] - gpu_free[node]
            if kind < 0 or not (cores or gpus):
                continue
            users = []
            for end, use in self._loads.get(node, {}).items():
                # Less than it said, if some of that is no longer part of the machine.
                use_cores, use_gpus = min(use[0], cores), min(use[1], gpus)
                cores -= use_cores
                gpus -= use_gpus
                users.append((end if end > now else soon, use_cores, use_gpus))
            if cores or gpus:  # by something that never told when it would end
                users.append((now + FOREVER_S, cores, gpus))
            if len(users) == 1 and users[0][1] >= core_counts[node]:
                busy[kind, users[0][0]] = busy.get((kind, users[0][0]), 0) + 1
            else:
                shared.append((kind, node, users))
        self._floors.clear()
        self._profile = Profile(
            now,
            self._sizes,
            self._counts,
            [(kind, end, count) for (kind, end), count in busy.items()],
            shared,
        )
        return self._profile


class _Floors:
    """What is known of the earliest starts: within a cycle there is only ever less to have, so a
    request that asks for as much for as long starts no earlier than one before it.

    Requests are compared when they differ in nothing but the number of nodes or slots; numbers
    and durations by powers of two.
    """

    def __init__(self) -> None:
        self._tables: dict[Need, dict[tuple[int, int], float]] = {}
        self._equal: dict[tuple[Need, float], float] = {}

    def clear(self) -> None:
        self._tables.clear()
        self._equal.clear()

    def get(self, need: Need, duration: float) -> float:
        """No start is earlier than this."""
        equal = self._equal.get((need, duration), 0.0)
        kind, number = _kind(need)
        table = self._tables.get(kind)
        if table is None:
            return equal
        at = (number.bit_length() - 1, max(0, int(duration)).bit_length() - 1)
        return max(equal, table.get(at, 0.0))

    def put(self, need: Need, duration: float, start: float) -> None:
        """This request starts then and no earlier."""
        self._equal[need, duration] = start
        kind, number = _kind(need)
        table = self._tables.setdefault(kind, {})
        lowest = (number - 1).bit_length(), max(0, ceil(duration) - 1).bit_length()
        for size in range(lowest[0], _SIZES):
            for length in range(lowest[1], _LENGTHS):
                if table.get((size, length), 0.0) >= start:
                    break  # nor is anything that is longer still any earlier
                table[size, length] = start


_SIZES, _LENGTHS = 22, 31


def _kind(need: Need) -> tuple[Need, int]:
    """The request without its number of nodes or slots, and that."""
    if need.nodes:
        return need._replace(nodes=1), need.nodes
    return need._replace(slots=1), need.slots
