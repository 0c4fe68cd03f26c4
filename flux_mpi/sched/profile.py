"""What will be free, and from when: availability over time, for reservations that hold.

Nodes that are alike and taken whole are interchangeable: a *pool* counts how many of a class are
free, as a step function, and a reservation only lowers the count in its window. Which nodes it gets
is settled when it starts; as the count never falls below zero, there will be enough. A node shared
by jobs that leave part of it free is a *bin* for as long as any of them is there: one node less
in its pool, with its own step function of what is in use. So the cost of a plan grows with the
steps it crosses, not with the nodes it takes. A node whose cores are all in use counts as taken
whole, though GPUs may be left: a request without cores may then start later than it could.

Pure: nothing here reads a clock or knows the scheduler's bitmaps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import inf
from typing import NamedTuple

from flux_mpi.sched.steps import Steps


class Need(NamedTuple):
    """A request in the profile's terms."""

    nodes: int
    """Distinct nodes with ``slots`` slots each; 0: ``slots`` slots wherever there is room."""
    slots: int
    cores: int
    gpus: int
    exclusive: bool
    classes: tuple[int, ...]
    """The classes of nodes that may serve it."""


class Bin:
    """A node shared by jobs in ``[begin, end)``; ``node`` is -1 until one of them runs."""

    __slots__ = ("kind", "node", "begin", "end", "times", "cores", "gpus")

    def __init__(self, kind: int, node: int, begin: float, end: float) -> None:
        self.kind = kind
        self.node = node
        self.begin = begin
        self.end = end
        self.times = [begin]
        """When what is in use changes, with the cores and GPUs in use from then on; at last 0."""
        self.cores = [0]
        self.gpus = [0]

    def peak(self, begin: float, end: float) -> tuple[int, int]:
        """The most cores and GPUs in use at any time in the window."""
        times = self.times
        p = max(bisect_right(times, begin) - 1, 0)
        cores, gpus = self.cores[p], self.gpus[p]
        p += 1
        while p < len(times) and times[p] < end:
            cores = max(cores, self.cores[p])
            gpus = max(gpus, self.gpus[p])
            p += 1
        return cores, gpus

    def add(self, begin: float, end: float, cores: int, gpus: int) -> None:
        """Use that much more in a window that meets the bin's own, or makes it longer."""
        if begin < self.times[0]:
            self.times.insert(0, begin)
            self.cores.insert(0, 0)
            self.gpus.insert(0, 0)
        self.begin = min(self.begin, begin)
        self.end = max(self.end, end)
        p = self._cut(begin)
        self._cut(end)
        while p < len(self.times) and self.times[p] < end:
            self.cores[p] += cores
            self.gpus[p] += gpus
            p += 1

    def _cut(self, time: float) -> int:
        p = bisect_right(self.times, time) - 1
        if self.times[p] == time:
            return p
        p += 1
        self.times.insert(p, time)
        self.cores.insert(p, self.cores[p - 1])
        self.gpus.insert(p, self.gpus[p - 1])
        return p


class PoolTake(NamedTuple):
    """So many nodes of a class in a window; ``cores`` of them, none if they become bins."""

    kind: int
    begin: float
    end: float
    nodes: int
    cores: int = 0


class BinTake(NamedTuple):
    """Part of a shared node in a window; ``before`` was the bin's own window."""

    bin: Bin
    begin: float
    end: float
    cores: int
    gpus: int
    before: tuple[float, float]


Take = PoolTake | BinTake


class Admission(NamedTuple):
    """Where something may start now."""

    spare: dict[int, int]
    """So many of the wholly free nodes of each class, and no more."""
    bins: list[tuple[Bin, int, int]]
    """So many cores and GPUs of these shared nodes, and no more."""
    barred: list[Bin]
    """Nothing of these."""


class Profile:
    """What is free from ``now`` on.

    ``sizes``: cores and GPUs of a node of each class; ``counts``: how many nodes there are of it.
    ``busy``: (class, until, how many) nodes that are taken whole. ``shared``: (class, node, its
    users as (until, cores, GPUs)).
    """

    def __init__(
        self,
        now: float,
        sizes: Sequence[tuple[int, int]],
        counts: Sequence[int],
        busy: Iterable[tuple[int, float, int]] = (),
        shared: Iterable[tuple[int, int, Iterable[tuple[float, int, int]]]] = (),
    ) -> None:
        self.now = now
        self.sizes = sizes
        free = list(counts)
        returns: list[dict[float, int]] = [{} for _ in sizes]
        self.bins: list[Bin] = []
        self.bin_of: dict[int, Bin] = {}
        """The bins of nodes in use, by node."""
        for kind, until, count in busy:
            free[kind] -= count
            returns[kind][until] = returns[kind].get(until, 0) + count
        for kind, node, users in shared:
            shared_bin = Bin(kind, node, now, now)
            for until, cores, gpus in users:
                shared_bin.add(now, until, cores, gpus)
            free[kind] -= 1
            returns[kind][shared_bin.end] = returns[kind].get(shared_bin.end, 0) + 1
            self.bins.append(shared_bin)
            self.bin_of[node] = shared_bin
        self.pools = [
            Steps(now, count, sorted(later.items())) for count, later in zip(free, returns)
        ]
        self._totals: list[Steps] | None = None

    # -- what a node can hold -------------------------------------------------------------------

    def capacity(self, need: Need, kind: int) -> tuple[int, bool]:
        """(members' nodes, or slots, that an empty node holds; whether that takes it whole)."""
        cores, gpus = self.sizes[kind]
        if need.exclusive or not need.nodes:
            each_cores, each_gpus = need.cores, need.gpus
        else:
            each_cores, each_gpus = need.cores * need.slots, need.gpus * need.slots
        if need.exclusive:
            return int(cores >= each_cores * need.slots and gpus >= each_gpus * need.slots), True
        many = _times(cores, gpus, each_cores, each_gpus, need.slots)
        if need.nodes:
            many = min(many, 1)
        return many, bool(many) and each_cores >= cores

    def room(self, need: Need, shared: Bin, begin: float, end: float) -> int:
        """The same for what is left of a shared node in the window."""
        if need.exclusive:
            return 0
        cores, gpus = self.sizes[shared.kind]
        used_cores, used_gpus = shared.peak(begin, end)
        cores -= used_cores
        gpus -= used_gpus
        if need.nodes:
            fits = cores >= need.cores * need.slots and gpus >= need.gpus * need.slots
            return int(fits)
        return _times(cores, gpus, need.cores, need.gpus, need.slots)

    # -- taking and giving back -----------------------------------------------------------------

    def take(self, need: Need, begin: float, end: float) -> list[Take] | None:
        """Take what is needed in the window; None, and nothing taken: it is not there."""
        left = need.nodes or need.slots
        holding = [(kind, *self.capacity(need, kind)) for kind in need.classes]
        parts = {kind for kind, many, whole in holding if many and not whole}
        rooms = self._rooms(need, parts, begin, end)
        # Look first, as far as needed: what does not suffice need not be taken and given back.
        found: list[tuple[Bin, int]] = []
        bound = sum(
            many * max(0, self.pools[kind].minimum(begin, end)) for kind, many, _ in holding if many
        )
        while bound < left:
            more = next(rooms, None)
            if more is None:
                return None
            found.append(more)
            bound += more[1]
        takes: list[Take] = []
        fresh = 0
        # Nodes that are shared anyway come first.
        for shared, room in chain(found, rooms):
            stretched = self._stretch(shared, begin, end)
            if stretched is None:
                continue
            for extra in stretched:
                self._take_pool(extra, takes)
            slots = min(room, left)
            self._use(shared, need, slots, begin, end, takes)
            left -= slots
            if not left:
                return takes
        for kind, many, whole in holding:
            if not many:
                continue
            count = min(self.pools[kind].minimum(begin, end), -(-left // many))
            if count <= 0:
                continue
            cores = count * self.sizes[kind][0] if whole else 0
            self._take_pool(PoolTake(kind, begin, end, count, cores), takes)
            if whole:
                left -= count
            else:
                for _ in range(count):
                    broken = Bin(kind, -1, begin, end)
                    self.bins.append(broken)
                    fresh += 1
                    slots = min(many, left)
                    self._use(broken, need, slots, begin, end, takes)
                    left -= slots
            if left <= 0:
                return takes
        self._undo(takes, fresh)
        return None

    def _rooms(
        self, need: Need, kinds: set[int], begin: float, end: float
    ) -> Iterator[tuple[Bin, int]]:
        """The shared nodes with room in the window, and how much."""
        if not kinds:
            return
        for shared in self.bins:
            if shared.begin < end and begin < shared.end and shared.kind in kinds:
                room = self.room(need, shared, begin, end)
                if room:
                    yield shared, room

    def _count(self, kind: int, begin: float, end: float, cores: int) -> None:
        if self._totals is not None:
            self._totals[kind].add(begin, end, cores)  # even 0: GPUs may be what changes then

    def _take_pool(self, take: PoolTake, takes: list[Take]) -> None:
        self.pools[take.kind].add(take.begin, take.end, -take.nodes)
        self._count(take.kind, take.begin, take.end, -take.cores)
        takes.append(take)

    def _stretch(self, shared: Bin, begin: float, end: float) -> list[PoolTake] | None:
        """What makes a bin cover the window; None: its pool has no node to spare for that."""
        stretched = []
        if begin < shared.begin:
            stretched.append(PoolTake(shared.kind, begin, shared.begin, 1))
        if shared.end < end:
            stretched.append(PoolTake(shared.kind, shared.end, end, 1))
        pool = self.pools[shared.kind]
        if any(pool.minimum(extra.begin, extra.end) < 1 for extra in stretched):
            return None
        return stretched

    def _use(
        self, shared: Bin, need: Need, slots: int, begin: float, end: float, takes: list[Take]
    ) -> None:
        times = need.slots if need.nodes else slots
        cores, gpus = need.cores * times, need.gpus * times
        takes.append(BinTake(shared, begin, end, cores, gpus, (shared.begin, shared.end)))
        shared.add(begin, end, cores, gpus)
        self._count(shared.kind, begin, end, -cores)

    def _undo(self, takes: list[Take], fresh: int) -> None:
        """Give back what was taken last, with the ``fresh`` bins made for it."""
        for take in reversed(takes):
            if isinstance(take, PoolTake):
                self.pools[take.kind].add(take.begin, take.end, take.nodes)
                self._count(take.kind, take.begin, take.end, take.cores)
            else:
                self._count(take.bin.kind, take.begin, take.end, take.cores)
                take.bin.add(take.begin, take.end, -take.cores, -take.gpus)
                take.bin.begin, take.bin.end = take.before
        if fresh:
            del self.bins[-fresh:]

    def run(self, kind: int, node: int, begin: float, end: float, cores: int, gpus: int) -> None:
        """Something now runs on a node until ``end``; it was admitted."""
        self._count(kind, begin, end, -cores)
        shared = self.bin_of.get(node)
        size = self.sizes[kind]
        if shared is None:
            self.pools[kind].add(begin, end, -1)
            if cores < size[0] or gpus < size[1]:
                shared = self.bin_of[node] = Bin(kind, node, begin, end)
                self.bins.append(shared)
                shared.add(begin, end, cores, gpus)
            return
        if shared.end < end:
            self.pools[kind].add(shared.end, end, -1)
        shared.add(begin, end, cores, gpus)

    # -- now ------------------------------------------------------------------------------------

    def admit(self, need: Need, begin: float, end: float) -> Admission | None:
        """Where something may start now and run until ``end`` without touching what is taken;
        None: nowhere near enough room."""
        if self._totals is not None and not need.exclusive:
            free = sum(max(0, self._totals[kind].minimum(begin, end)) for kind in need.classes)
            if free < need.cores * need.slots * max(1, need.nodes):
                return None  # which most of the time spares a look at every shared node
        spare: dict[int, int] = {}
        bins: list[tuple[Bin, int, int]] = []
        barred: list[Bin] = []
        room = 0
        for kind in need.classes:
            many, whole = self.capacity(need, kind)
            if not many:
                continue
            pool = self.pools[kind]
            free = pool.minimum(begin, end)
            if not whole:
                stretched: list[tuple[Bin, int]] = []
                soonest = end
                for shared in self.bin_of.values():
                    if shared.kind != kind:
                        continue
                    fits = self.room(need, shared, begin, min(end, max(begin, shared.end)))
                    if not fits:
                        barred.append(shared)
                    elif shared.end >= end:
                        bins.append((shared, *self._rest(shared, begin, end)))
                        room += fits
                    else:
                        stretched.append((shared, fits))
                        soonest = min(soonest, shared.end)
                if stretched:
                    # Each needs its node for longer than it is shared now.
                    later = max(0, pool.minimum(soonest, end))
                    for shared, fits in stretched[:later]:
                        bins.append((shared, *self._rest(shared, begin, end)))
                        room += fits
                    barred += [shared for shared, _ in stretched[later:]]
                    used = min(later, len(stretched))
                    free = later - used
                    if begin < soonest:
                        free = min(free, pool.minimum(begin, soonest))
            else:
                barred += [shared for shared in self.bin_of.values() if shared.kind == kind]
            spare[kind] = max(0, free)
            room += many * spare[kind]
        if room < (need.nodes or need.slots):
            return None
        return Admission(spare, bins, barred)

    def _rest(self, shared: Bin, begin: float, end: float) -> tuple[int, int]:
        """The cores and GPUs that nobody uses at any time in the window."""
        cores, gpus = self.sizes[shared.kind]
        used_cores, used_gpus = shared.peak(begin, end)
        return cores - used_cores, gpus - used_gpus

    # -- when -----------------------------------------------------------------------------------

    def reserve(self, need: Need, after: float, duration: float) -> tuple[float, list[Take]] | None:
        """Take what is needed at the earliest time from ``after`` on; (when, what), or None."""
        useful = [kind for kind in need.classes if self.capacity(need, kind)[0]]
        if not useful:
            return None
        if all(self.capacity(need, kind)[1] for kind in useful):
            pools = [self.pools[kind] for kind in useful]
            when = _together(pools, need.nodes or need.slots, after, duration)
            if when is None:
                return None
            takes = self.take(need, when, when + duration)
            assert takes is not None
            return when, takes
        # Every change that can help changes how many cores are free, if cores are asked for.
        cores = need.cores * need.slots * max(1, need.nodes)
        totals = self._total_cores()
        begin: float | None = after
        while begin is not None and begin < inf:
            if cores:
                begin = _together([totals[kind] for kind in useful], cores, begin, duration)
                if begin is None:
                    return None
            takes = self.take(need, begin, begin + duration)
            if takes is not None:
                return begin, takes
            later = [totals[kind].next_after(begin) for kind in useful]
            if not cores:
                later += [pool.next_after(begin) for pool in self.pools]
                later += [time for shared in self.bins for time in shared.times if time > begin]
            begin = min(later)
        return None

    def _total_cores(self) -> list[Steps]:
        """How many cores are free in each class, kept from the first time it is asked for."""
        if self._totals is None:
            changes: list[dict[float, int]] = [{} for _ in self.sizes]
            for (size, _), pool, later in zip(self.sizes, self.pools, changes):
                before = 0
                for time, count in pool.items():
                    later[time] = later.get(time, 0) + (count - before) * size
                    before = count
            for shared in self.bins:
                later, size = changes[shared.kind], self.sizes[shared.kind][0]
                before = 0
                for time, used in zip(shared.times, shared.cores):
                    free = size - used if shared.begin <= time < shared.end else 0
                    later[time] = later.get(time, 0) + free - before
                    before = free
                later[shared.end] = later.get(shared.end, 0) - before
            self._totals = []
            for later in changes:
                now, *others = sorted(later.items())
                self._totals.append(Steps(now[0], now[1], others))
        return self._totals


def _together(pools: Sequence[Steps], count: int, after: float, duration: float) -> float | None:
    """When there is so much in all of these together, each at its least in the duration."""
    if len(pools) == 1:
        return pools[0].first(count, after, duration)
    begin = after
    while begin < inf:
        if sum(max(0, pool.minimum(begin, begin + duration)) for pool in pools) >= count:
            return begin
        begin = min(pool.next_after(begin) for pool in pools)
    return None


def _times(cores: int, gpus: int, each_cores: int, each_gpus: int, most: int) -> int:
    """How often a slot fits, ``most`` times at most."""
    if each_cores:
        most = min(most, cores // each_cores)
    if each_gpus:
        most = min(most, gpus // each_gpus)
    return max(0, most)
