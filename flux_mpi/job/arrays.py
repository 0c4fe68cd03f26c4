"""The job store: arrays of jobs, compact while they wait, columns once they have run.

An array keeps its jobspec once and one byte a waiting member. A member that leaves the queue gets a
row in the ledger, whose columns are typed arrays shared by all jobs; members that start together
get consecutive rows, so that a batch is recorded by slice assignments. Unusual events are sparse.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from flux_mpi.formats import fluid
from flux_mpi.formats.jobspec import Jobspec, Shape
from flux_mpi.job.states import State
from flux_mpi.sched.placement import Placement

DETACHED = 128
"""Flag in a member's state byte: its urgency is not the array's, so it is queued on its own."""

NO_ROW = -1
NO_STATUS = -1

# How far the regular events of a member's log have come; extra events remember when they came.
SUBMITTED, ALLOCATED, STARTED = 0, 1, 2

ExtraEvent = tuple[int, int, float, str, dict[str, Any]]
"""(sequence, stage, timestamp, name, context); sequences order the events of one member."""


class JobArray:
    """Jobs submitted as one: equal but for their parameters. A single job is an array of one."""

    __slots__ = (
        "index",
        "first",
        "count",
        "jobspec",
        "shape",
        "params",
        "userid",
        "urgency",
        "flags",
        "t_submit",
        "duration",
        "warning",
        "mock",
        "mock_status",
        "state",
        "rows",
        "cursor",
        "active",
        "extras",
        "ranges",
        "urgencies",
        "memos",
        "reaped",
        "sent_to",
        "running",
        "pace",
        "listing",
    )

    def __init__(
        self,
        first: int,
        count: int,
        jobspec: Jobspec,
        shape: Shape,
        *,
        params: dict[str, Any] | None = None,
        userid: int = 0,
        urgency: int = 16,
        flags: int = 0,
        t_submit: float = 0.0,
        mock: float | None = None,
        mock_status: int = 0,
    ) -> None:
        self.index = -1
        self.first = first
        self.count = count
        self.jobspec = jobspec
        self.shape = shape
        self.params = params
        self.userid = userid
        self.urgency = urgency
        self.flags = flags
        self.t_submit = t_submit
        self.duration = jobspec.duration
        self.warning = jobspec.warning
        self.mock = mock
        """Seconds of mock execution; None: real tasks."""
        self.mock_status = mock_status
        self.state = bytearray([State.SCHED]) * count
        self.rows: array[int] | None = None
        """Ledger row of each member, NO_ROW while it waits; None while all do."""
        self.cursor = 0
        """Members before this one have left the queue (or are detached)."""
        self.active = count
        self.extras: dict[int, list[ExtraEvent]] = {}
        self.ranges: list[tuple[int, int, ExtraEvent]] = []
        """Events that many consecutive members share: (first, end, event)."""
        self.urgencies: dict[int, int] = {}
        self.memos: dict[int, dict[str, Any]] | None = None
        """What the memos on a member come to; None while there is none on any."""
        self.reaped: bytearray | None = None
        self.sent_to = 0
        """Bitmask of the ranks that were sent the task specification."""
        self.running = 0
        """Members that hold resources."""
        self.pace = float("inf")
        """Seconds that members take on a rank, the latest counting most; infinite: not known."""
        self.listing: dict[str, Any] | None = None

    def id(self, k: int) -> int:
        """The job id of member ``k``."""
        return fluid.nth(self.first, k) if k else self.first

    def row(self, k: int) -> int:
        """Member ``k``'s row in the ledger, or NO_ROW."""
        return NO_ROW if self.rows is None else self.rows[k]

    def set_rows(self, k: int, count: int, row: int) -> None:
        """Members ``k``… have the ``count`` rows from ``row`` on."""
        if self.rows is None:
            self.rows = array("i", [NO_ROW]) * self.count
        if count == 1:
            self.rows[k] = row
        else:
            self.rows[k : k + count] = array("i", range(row, row + count))

    def state_of(self, k: int) -> State:
        return State(self.state[k] & 127)

    def urgency_of(self, k: int) -> int:
        return self.urgencies.get(k, self.urgency) if self.urgencies else self.urgency

    def took(self, seconds: float) -> None:
        """A member ran for so long."""
        known = self.pace != float("inf")
        self.pace = self.pace + (seconds - self.pace) / 8 if known else seconds

    def run_length(self, k: int, end: int) -> int:
        """How many members from ``k`` on, before ``end``, have the same state byte as ``k``."""
        code = self.state[k : k + 1]
        at = k
        while at < end:
            window = self.state[at : min(end, at + 8192)]
            same = len(window) - len(window.lstrip(code))
            at += same
            if same < len(window):
                break
        return at - k

    def extra_events(self, k: int) -> list[ExtraEvent]:
        """The unusual events of member ``k``, in order."""
        events = [event for lo, hi, event in self.ranges if lo <= k < hi]
        own = self.extras.get(k)
        if own:
            events += own
            if len(events) > len(own):
                events.sort(key=lambda event: event[0])
        return events

    def exception(self, k: int) -> dict[str, Any] | None:
        """The context of the exception that decides member ``k``'s result: the first of the most
        severe (RFC 21: the first of severity 0 is the root cause)."""
        if not self.extras and not self.ranges:
            return None
        worst: dict[str, Any] | None = None
        for _, _, _, name, context in self.extra_events(k):
            if name == "exception" and (worst is None or context["severity"] < worst["severity"]):
                worst = context
        return worst


class Ledger:
    """One row for each member that left the queue; columns grow together.

    Times are Unix seconds, 0 when it did not happen; ``status`` is a wait status or NO_STATUS.
    """

    __slots__ = (
        "owner",
        "member",
        "t_alloc",
        "t_start",
        "t_finish",
        "t_end",
        "status",
        "handed_on",
        "placement",
        "exits",
        "inactive",
    )

    def __init__(self) -> None:
        self.owner = array("i")
        self.member = array("i")
        self.t_alloc = array("d")
        self.t_start = array("d")
        self.t_finish = array("d")
        """When the tasks had ended, as far as the ranks' clocks can be believed."""
        self.t_end = array("d")
        """When it became inactive here."""
        self.status = array("i")
        self.handed_on = bytearray()
        """1: its resources passed to the next job as it finished, and were never free."""
        self.placement: list[Placement | None] = []
        self.exits: dict[int, list[list[int]]] = {}
        """For rows of real jobs that ended: [task rank, pid, wait status] of every task."""
        self.inactive = array("i")
        """Rows in the order in which their jobs became inactive."""

    def __len__(self) -> int:
        return len(self.placement)

    def add(
        self, owner: int, k: int, placements: list[Placement] | None, count: int, now: float
    ) -> int:
        """Rows for members ``k``…; returns the first. ``placements`` None: never allocated."""
        row = len(self.placement)
        if count == 1:
            self.owner.append(owner)
            self.member.append(k)
            self.t_alloc.append(now if placements is not None else 0.0)
            self.t_start.append(0.0)
            self.t_finish.append(0.0)
            self.t_end.append(0.0)
            self.status.append(NO_STATUS)
            self.handed_on.append(0)
            self.placement.append(placements[0] if placements is not None else None)
            return row
        zeros = array("d", bytes(8 * count))
        self.owner.extend(array("i", [owner]) * count)
        self.member.extend(array("i", range(k, k + count)))
        self.t_alloc.extend(zeros if placements is None else array("d", [now]) * count)
        self.t_start.extend(zeros)
        self.t_finish.extend(zeros)
        self.t_end.extend(zeros)
        self.status.extend(array("i", [NO_STATUS]) * count)
        self.handed_on.extend(bytes(count))
        self.placement.extend([None] * count if placements is None else placements)
        return row

    def set_start(self, row: int, count: int, now: float) -> None:
        _fill(self.t_start, "d", row, count, now)

    def set_end(self, row: int, count: int, status: int, finish: float, now: float) -> None:
        """They finished then (0: they never ran) and are the next to be inactive, now."""
        _fill(self.t_finish, "d", row, count, finish)
        _fill(self.t_end, "d", row, count, now)
        _fill(self.status, "i", row, count, status)
        if count == 1:
            self.inactive.append(row)
        else:
            self.inactive.extend(array("i", range(row, row + count)))


def _fill(column: array[Any], code: str, row: int, count: int, value: float) -> None:
    if count == 1:
        column[row] = value
    else:
        column[row : row + count] = array(code, [value]) * count


class Store:
    """All arrays and the ledger; finds jobs by id."""

    def __init__(self) -> None:
        self.arrays: list[JobArray] = []
        self.ledger = Ledger()
        self._firsts: list[int] = []

    def add(self, jobs: JobArray) -> None:
        """Take in an array; ids must ascend (one generator makes them). Raises ValueError."""
        if self._firsts and jobs.first <= self._firsts[-1]:
            raise ValueError(f"job id {jobs.first} is not above {self._firsts[-1]}")
        jobs.index = len(self.arrays)
        self.arrays.append(jobs)
        self._firsts.append(jobs.first)

    def find(self, jobid: int) -> tuple[JobArray, int] | None:
        """The array and member of a job, or None."""
        at = bisect_right(self._firsts, jobid) - 1
        if at < 0:
            return None
        jobs = self.arrays[at]
        try:
            k = fluid.index(jobs.first, jobid)
        except ValueError:  # of another generator: not a job of this instance
            return None
        return (jobs, k) if 0 <= k < jobs.count else None

    def at_row(self, row: int) -> tuple[JobArray, int]:
        """The array and member that a ledger row belongs to."""
        return self.arrays[self.ledger.owner[row]], self.ledger.member[row]

    def segments(self, first: int, count: int) -> Iterator[tuple[JobArray, int, int]]:
        """The parts (array, from, end) of the ``count`` ids from ``first`` on that exist."""
        while count > 0:
            found = self.find(first)
            if found is None:
                return
            jobs, k = found
            n = min(count, jobs.count - k)
            yield jobs, k, k + n
            count -= n
            first = fluid.nth(first, n)
