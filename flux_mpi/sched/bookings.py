"""What a matcher tells and keeps of jobs: outcomes, bookings, and what growth hides."""

from __future__ import annotations

from array import array
from typing import NamedTuple


class MatchError(ValueError):
    """An operation that cannot be done: the text says on what and why."""


class Outcome(NamedTuple):
    """How a match ended: ``matched`` (from ``at`` on), ``busy`` (not now), ``unsatisfiable``
    (never) or ``invalid`` (see ``message``)."""

    status: str
    at: int = 0
    message: str = ""


class Booking:
    """What a job holds from ``start`` to ``end``: rows of `takewalk.walk`, those of vertices that
    are not below one that is taken whole."""

    __slots__ = ("rows", "n_rows", "start", "end", "allocated")

    def __init__(
        self, rows: array[int], n_rows: int, start: int, end: int, allocated: bool
    ) -> None:
        self.rows = rows
        self.n_rows = n_rows
        self.start = start
        self.end = end
        self.allocated = allocated


class Growth:
    """What Fluxion remembers of the root's timeline from before the graph grew or shrank.

    It keeps points ordered by what is left of the root's first counted type, and does not order
    them anew when totals change: until a later job spans it, a point from before does not count as
    a start for requests that were too large for it then.
    """

    def __init__(self) -> None:
        self._left: dict[int, int] = {}

    def changed(self, left: dict[int, int]) -> None:
        """Totals change now; ``left``: by point in time, what is left before that."""
        self._left = {**left, **self._left}

    def spanned(self, start: int, end: int) -> None:
        """A span was put in or taken out."""
        for time in [time for time in self._left if start <= time < end]:
            del self._left[time]

    def hides(self, time: int, need: int) -> bool:
        """Whether a point is passed over for a request that needs so much."""
        return self._left.get(time, need) < need
