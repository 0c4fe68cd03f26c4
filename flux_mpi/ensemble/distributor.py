"""Who of an ensemble's members goes where: the core of every level above the leaves.

A distributor owns the members that nobody below it has in hand (the *pool*), and knows of each
*worker* (a child instance) what it was given and has not reported. The same class serves the top,
which is given all members at once, and the levels between, which are workers of another one
themselves and get members as they use them up. Pure: told what happens, it says what to do.

Workers are given members in chunks that keep about `HORIZON_S` of work in their hands, more they
never need: chunks grow with how fast a worker proved to be and shrink as the pool runs out, so that
all end together (guided self-scheduling). Members of long run time are given one a core. What a
worker has not begun can be taken back for one that idles.

Members run at least once: what a lost worker had not reported goes back into the pool, begun or
not, until it has been lost too often (`retries`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import ceil, exp

from flux_mpi.ensemble.tally import CANCELED, LOST, Tally
from flux_mpi.formats.idset import EMPTY, IDSet

HORIZON_S = 1.0
"""Work that a worker has ahead of what it runs, in seconds of its own pace."""
LEAST_S = 0.05
"""A chunk is no smaller than so much work, or messages would follow jobs; nor is it worth to take
less from one worker for another."""
MEMORY_S = 1.0
"""How long a worker's pace is averaged over."""
RETRIES = 3
"""How often a member is given out again after a worker that had it was lost."""

Name = Hashable


@dataclass(frozen=True, slots=True)
class Give:
    """Hand these members to a worker; it shall report at the latest when it has fewer than
    ``low`` left."""

    worker: Name
    members: IDSet
    low: int


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Ask a worker to return up to so many members that it has not begun."""

    worker: Name
    count: int


@dataclass(frozen=True, slots=True)
class Return:
    """What `Distributor.take_back` asked for; may be less, or nothing."""

    members: IDSet


@dataclass(frozen=True, slots=True)
class Stranded:
    """Members wait, but no worker is left or will come: call `Distributor.give_up`, or leave."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Every member has ended; nothing follows."""

    result: Tally


Action = Give | TakeBack | Return | Stranded | Finished


@dataclass(slots=True, eq=False)
class Worker:
    """A child, as it is known from its reports."""

    name: Name
    capacity: int
    """Members that it can run at a time."""
    held: dict[int, IDSet] = field(default_factory=dict)
    """Members given and not reported, by how often they were lost before."""
    in_hand: int = 0
    """How many these are."""
    done: int = 0
    """Members reported."""
    unstarted: int = 0
    """Members that it could return, as it said last."""
    running: int = 0
    """Members that run there, as it said last."""
    rate: float = 0.0
    """Members a second, averaged; 0 until the first have ended."""
    since: float = 0.0
    """When its last report with members came, or it got work after having none."""
    fed: bool = False
    """It got its share of what there was; more follows when it reports."""
    asked: bool = False
    """Members have been asked back, and it has not answered."""
    reserved: list[tuple[Name, int]] = field(default_factory=list)
    """For whom they were asked back, and how many."""


class Distributor:
    """One level. ``expected`` is how long a member runs, in seconds, if somebody knows;
    ``capacity`` how many members all workers together will run at a time, where that is known
    before they come; ``depth`` how many levels are below the workers: these need more in hand."""

    def __init__(
        self,
        *,
        retries: int = RETRIES,
        expected: float | None = None,
        capacity: int = 0,
        depth: int = 0,
    ) -> None:
        self.retries = retries
        self.expected = expected
        self.planned = capacity
        self.horizon = HORIZON_S * (1 + depth)
        self.workers: dict[Name, Worker] = {}
        self.outstanding = 0
        """Members given to this level, neither ended nor returned."""
        self.total = Tally()
        """All members that have ended below here."""
        self.chunks = 0
        """Chunks given out."""
        self.moved = 0
        """Members taken from one worker for others."""
        self.rerun = 0
        """Members put back into the pool because a worker was lost."""
        self._pool: list[IDSet] = [EMPTY] * (retries + 1)
        """Members to give out, by how often they were lost; those never lost come first."""
        self._hungry: dict[Name, None] = {}
        self._owed = 0
        """How many members have been asked back from above and not returned."""
        self._back = EMPTY
        self._coming = 1
        self._sealed = False
        self._finished = False
        self._canceled = ""
        self._fresh = Tally()
        self._ended: list[IDSet] = []
        self._actions: list[Action] = []

    # -- what is asked --------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Members in the pool."""
        return sum(map(len, self._pool))

    @property
    def running(self) -> int:
        """Members that run below here, as far as reported."""
        return sum(worker.running for worker in self.workers.values())

    @property
    def unstarted(self) -> int:
        """Members that could be returned."""
        below = sum(worker.unstarted for worker in self.workers.values())
        return len(self._pool[0]) + below

    @property
    def capacity(self) -> int:
        """Members that all workers can run at a time."""
        return max(self.planned, sum(worker.capacity for worker in self.workers.values()))

    def take(self) -> list[Action]:
        """What to do, since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def take_report(self) -> tuple[IDSet, Tally]:
        """The members that ended since the last call, and how."""
        ended = IDSet.from_ranges(pair for ids in self._ended for pair in ids.ranges())
        tally, self._fresh, self._ended = self._fresh, Tally(), []
        return ended, tally

    # -- from above -----------------------------------------------------------------------------

    def add(self, members: IDSet, now: float) -> None:
        """Members to see to."""
        self._pool[0] |= members
        self.outstanding += len(members)
        if self._canceled:
            self._drop_pool(CANCELED, self._canceled)
        self._act(now)

    def seal(self, now: float) -> None:
        """No more members will be added: `Finished` follows when all have ended."""
        self._sealed = True
        self._act(now)

    def take_back(self, count: int, now: float) -> None:
        """Somebody else has cores to spare: return up to so many members that nobody has begun."""
        if count < 1:
            self._actions.append(Return(EMPTY))
        else:
            self._owed = count
            self._act(now)

    def cancel(self, why: str, now: float) -> None:
        """Give out nothing any more; members of workers that are lost from now on were canceled.

        It is for the caller to end the workers.
        """
        self._canceled = why or "canceled"
        self._drop_pool(CANCELED, self._canceled)
        self._act(now)

    def give_up(self, why: str, now: float) -> None:
        """Nobody will ever run what is in the pool."""
        self._drop_pool(LOST, why)
        self._act(now)

    # -- from below -----------------------------------------------------------------------------

    def expect(self, workers: int, now: float) -> None:
        """So many workers, besides those that are there, may still come."""
        self._coming = workers
        self._act(now)

    def join(self, name: Name, capacity: int, now: float) -> None:
        """A worker is ready to run ``capacity`` members at a time. Raises ValueError."""
        if name in self.workers:
            raise ValueError(f"worker {name} has joined already")
        if capacity < 1:
            raise ValueError(f"worker {name}: a capacity of at least 1 is needed, not {capacity}")
        self.workers[name] = Worker(name, capacity, since=now)
        self._hungry[name] = None
        self._act(now)

    def report(
        self,
        name: Name,
        ended: IDSet,
        tally: Tally,
        now: float,
        *,
        unstarted: int = 0,
        running: int = 0,
        capacity: int = 0,
    ) -> None:
        """Members of a worker have ended. ``unstarted`` and ``running`` are of those it still has.

        Raises ValueError, and changes nothing, when it reports what it does not have.
        """
        worker = self.workers[name]
        if tally.count != len(ended):
            raise ValueError(f"worker {name}: {tally.count} results for {len(ended)} members")
        self._let_go(worker, ended)
        worker.fed = False
        worker.unstarted = min(unstarted, worker.in_hand)
        worker.running = min(running, worker.in_hand)
        if capacity:
            worker.capacity = capacity
        if ended:
            self._measure(worker, len(ended), now)
            worker.done += len(ended)
            self._count(ended, tally)
        self._look_at(worker)
        self._act(now)

    def returned(self, name: Name, members: IDSet, now: float, *, unstarted: int = 0) -> None:
        """The answer to `TakeBack`. Raises ValueError as `report` does."""
        worker = self.workers[name]
        self._let_go(worker, members)
        worker.asked = False
        reserved, worker.reserved = worker.reserved, []
        # One that has nothing to return now has nothing before it says otherwise.
        worker.unstarted = min(unstarted, worker.in_hand) if members else 0
        self._pool[0] |= members
        if self._canceled:
            self._drop_pool(CANCELED, self._canceled)
        for thief, count in reserved:
            taker = self.workers.get(thief)
            if taker is not None and self._pool[0] and not self._owed:
                self.moved += self._give(taker, 0, min(count, len(self._pool[0])), now)
        self._look_at(worker)
        self._act(now)

    def lost(self, name: Name, why: str, now: float) -> None:
        """A worker is gone. What it has not reported is given out again, or given up."""
        worker = self.workers.pop(name)
        self._hungry.pop(name, None)
        # What it was to be told and has not been, it never will be.
        self._actions = [
            action
            for action in self._actions
            if not isinstance(action, Give | TakeBack) or action.worker != name
        ]
        for attempts, members in worker.held.items():
            if self._canceled:
                self._give_up(members, CANCELED, self._canceled)
            elif attempts < self.retries:
                self._pool[attempts + 1] |= members
                self.rerun += len(members)
            else:
                times = f"{attempts + 1} times" if attempts else "once"
                self._give_up(members, LOST, f"the instances that had it were lost {times}: {why}")
        self._act(now)

    # -- inside ---------------------------------------------------------------------------------

    def _act(self, now: float) -> None:
        if self._owed:
            self._settle()
        if self.waiting and self._hungry:
            self._serve(now)
        if not self.waiting:
            if self._hungry and not self._owed:
                self._steal()
        elif not self.workers and not self._coming:
            self._actions.append(Stranded())
        if self._sealed and not self.outstanding and not self._finished:
            self._finished = True
            self._actions.append(Finished(self.total))

    def _let_go(self, worker: Worker, members: IDSet) -> None:
        """Members leave a worker's hands; raises ValueError when they are not in them."""
        if not members:
            return
        left, held = members, {}
        for attempts, mine in worker.held.items():
            hit = mine & left
            if hit:
                held[attempts] = mine - hit
                left = left - hit
        if left:
            raise ValueError(f"worker {worker.name} does not have {str(left)[:64]}")
        for attempts, mine in held.items():
            if mine:
                worker.held[attempts] = mine
            else:
                del worker.held[attempts]
        worker.in_hand -= len(members)

    def _count(self, ended: IDSet, tally: Tally) -> None:
        self._ended.append(ended)
        self._fresh.add(tally)
        self.total.add(tally)
        self.outstanding -= len(ended)

    def _drop_pool(self, kind: str, why: str) -> None:
        for attempts, members in enumerate(self._pool):
            self._pool[attempts] = EMPTY
            self._give_up(members, kind, why)

    def _give_up(self, members: IDSet, kind: str, why: str) -> None:
        if members:
            tally = Tally()
            tally.give_up(members, kind, why)
            self._count(members, tally)

    # -- how fast a worker is -------------------------------------------------------------------

    def _measure(self, worker: Worker, count: int, now: float) -> None:
        passed = max(now - worker.since, 1e-3)
        weight = 1.0 if not worker.rate else 1 - exp(-passed / MEMORY_S)
        worker.rate += weight * (count / passed - worker.rate)
        worker.since = now

    def _pace(self, worker: Worker) -> float:
        """Members a second; of its siblings while its own is not known, 0 when none is."""
        if worker.rate:
            return worker.rate
        known = [other for other in self.workers.values() if other.rate]
        if known:
            rate, capacity = (
                sum(other.rate for other in known),
                sum(other.capacity for other in known),
            )
            return rate / capacity * worker.capacity
        return worker.capacity / max(self.expected, 0.001) if self.expected else 0.0

    def _low(self, worker: Worker, pace: float) -> int:
        return worker.capacity + int(pace * self.horizon / 2)

    def _look_at(self, worker: Worker) -> None:
        if worker.in_hand < self._low(worker, self._pace(worker)):
            self._hungry[worker.name] = None
        else:
            self._hungry.pop(worker.name, None)

    # -- giving ---------------------------------------------------------------------------------

    def _serve(self, now: float) -> None:
        """Give from the pool to all that want more, those with the least in hand first."""
        hungry = [
            worker
            for worker in map(self.workers.__getitem__, self._hungry)
            if not worker.fed or worker.in_hand < worker.capacity
        ]
        if len(hungry) > 1:
            hungry.sort(key=lambda worker: worker.in_hand / worker.capacity)
        capacity = self.capacity
        for worker in hungry:
            pace = self._pace(worker)
            for attempts, members in enumerate(self._pool):
                want = worker.capacity + int(pace * self.horizon) - worker.in_hand
                if members and want > 0:
                    # Half of a fair share: others come later, and may prove faster. What a level
                    # between has is only the near future, of which a share is right.
                    fair = ceil(len(members) * worker.capacity / capacity)
                    if self._sealed:
                        fair = ceil(fair / 2)
                    idle = worker.capacity - worker.in_hand
                    # One of them may be what ended those that had it: few together find out sooner,
                    # and at the last attempt no more than can run may be given up with it.
                    if attempts:
                        want = max(idle, want >> 2 * attempts)
                        if attempts == self.retries:
                            want = idle
                    if want < 1:
                        continue
                    self._give(
                        worker, attempts, min(want, max(fair, idle, int(pace * LEAST_S))), now
                    )
            worker.fed = True
            self._look_at(worker)
            if not self.waiting:
                break

    def _give(self, worker: Worker, attempts: int, count: int, now: float) -> int:
        members = self._pool[attempts].take(max(count, 1))
        self._pool[attempts] -= members
        if not worker.in_hand:
            worker.since = now
        worker.held[attempts] = worker.held.get(attempts, EMPTY) | members
        worker.in_hand += len(members)
        low = self._low(worker, self._pace(worker))
        last = self._actions[-1] if self._actions else None
        if isinstance(last, Give) and last.worker == worker.name:
            self._actions[-1] = Give(worker.name, last.members | members, low)
        else:
            self.chunks += 1
            self._actions.append(Give(worker.name, members, low))
        return len(members)

    # -- taking back ----------------------------------------------------------------------------

    def _settle(self) -> None:
        """Collect what is asked back from above; members that were lost before stay here, where
        that is known of them."""
        fresh = self._pool[0]
        members = fresh - fresh.take(len(fresh) - self._owed) if len(fresh) > self._owed else fresh
        if members:
            self._pool[0] = fresh - members
            self._back |= members
            self.outstanding -= len(members)
            self._owed -= len(members)
        if self._owed:
            if any(worker.asked for worker in self.workers.values()):
                return
            wanted = self._owed
            for worker in sorted(self.workers.values(), key=lambda worker: -worker.unstarted):
                if not worker.unstarted or wanted <= 0:
                    break
                self._ask_back(worker, min(wanted, worker.unstarted))
                wanted -= worker.unstarted
            if wanted < self._owed:
                return
        self._actions.append(Return(self._back))
        self._owed, self._back = 0, EMPTY

    def _ask_back(self, worker: Worker, count: int) -> None:
        worker.asked = True
        self._actions.append(TakeBack(worker.name, count))

    def _steal(self) -> None:
        """The pool is dry and workers idle: let all that is not begun end at the same time."""
        served = {name for worker in self.workers.values() for name, _ in worker.reserved}
        idle = [
            worker
            for worker in map(self.workers.__getitem__, self._hungry)
            if worker.in_hand < worker.capacity and worker.name not in served
        ]
        busy = [
            worker
            for worker in self.workers.values()
            if worker.unstarted and worker.in_hand > worker.capacity and not worker.asked
        ]
        if not idle or not busy:
            return
        paces = {worker.name: self._pace(worker) for worker in (*idle, *busy)}
        if not all(paces.values()):
            paces = {worker.name: float(worker.capacity) for worker in (*idle, *busy)}
        even = sum(worker.unstarted for worker in busy) / sum(paces.values())
        needs = deque((worker.name, ceil(even * paces[worker.name] - 1e-9)) for worker in idle)
        busy.sort(key=lambda worker: -worker.unstarted / paces[worker.name])
        for victim in busy:
            pace = paces[victim.name]
            if victim.unstarted / pace < LEAST_S:
                break
            spare = ceil(victim.unstarted - even * pace - 1e-9)
            while spare > 0 and needs:
                name, need = needs.popleft()
                count = min(spare, need)
                victim.reserved.append((name, count))
                spare -= count
                if count < need:
                    needs.appendleft((name, need - count))
            if victim.reserved:
                self._ask_back(victim, sum(count for _, count in victim.reserved))
