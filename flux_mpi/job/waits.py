"""Who waits for which jobs to end: one job, any waitable job, many jobs, or all of them.

Tokens stand for whoever asked; the answers go back with them. Each waitable job is reaped once.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from flux_mpi.job.arrays import JobArray
from flux_mpi.job.states import JobFlags, State
from flux_mpi.message.errors import ServiceError

Token = Hashable
_INACTIVE = int(State.INACTIVE)


@dataclass(slots=True)
class Answer:
    """What to tell the holder of a token; ``final`` False: more will follow."""

    token: Token
    payload: Any = None
    errnum: int = 0
    text: str = ""
    final: bool = True


class Outcomes(Protocol):
    """Where the results of ended jobs come from."""

    def wait_payload(self, jobs: JobArray, k: int) -> dict[str, Any]:
        """The answer to ``job-manager.wait`` for an inactive member."""

    def done_entry(self, jobs: JobArray, k: int) -> list[Any]:
        """The entry of ``wait-all`` for an inactive member."""

    def timed_entry(self, jobs: JobArray, k: int) -> list[Any]:
        """The same with its note (or None) and the seconds that it ran (None: never)."""


@dataclass(slots=True)
class _WaitAll:
    token: Token
    entry: Callable[[JobArray, int], list[Any]]
    left: int = 0
    done: list[list[Any]] = field(default_factory=list)


class Waits:
    """All waits of an instance."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        self._one: dict[tuple[int, int], Token] = {}
        self._any: deque[Token] = deque()
        self._zombies: deque[tuple[JobArray, int, int]] = deque()
        self._unreaped = 0
        """Waitable jobs, active or not, that nobody has reaped."""
        self._all: dict[int, list[tuple[int, int, _WaitAll]]] = {}
        """By array: (from, end, wait) of the members that a wait-all names."""
        self._members: dict[tuple[int, int], list[_WaitAll]] = {}
        """The same for single members, of which one array may have thousands waited for."""
        self._groups: dict[Token, _WaitAll] = {}
        self._dirty: dict[Token, _WaitAll] = {}
        self._answers: list[Answer] = []

    # -- requests -------------------------------------------------------------------------------

    def submitted(self, jobs: JobArray) -> None:
        """Count a new array's members if they are waitable."""
        if jobs.flags & JobFlags.WAITABLE:
            jobs.reaped = bytearray(jobs.count)
            self._unreaped += jobs.count

    def wait_one(self, token: Token, jobs: JobArray, k: int) -> None:
        """Answer when this job is inactive. Raises ServiceError(ECHILD)."""
        if jobs.reaped is None:
            raise ServiceError(errno.ECHILD, "job was not submitted with the waitable flag")
        if jobs.reaped[k]:
            raise ServiceError(errno.ECHILD, "job was waited for already")
        if (jobs.index, k) in self._one:
            raise ServiceError(errno.ECHILD, "job id already has a waiter")
        if jobs.state[k] == _INACTIVE:
            self._reap(token, jobs, k)
        else:
            self._one[jobs.index, k] = token
        self._refuse_surplus()

    def wait_any(self, token: Token) -> None:
        """Answer with the next waitable job that is inactive, ECHILD when there is none."""
        while self._zombies:
            jobs, k, end = self._zombies[0]
            assert jobs.reaped is not None
            k = jobs.reaped.find(0, k, end)
            if k < 0:
                self._zombies.popleft()
                continue
            self._zombies[0] = (jobs, k, end)
            self._reap(token, jobs, k)
            return
        self._any.append(token)
        self._refuse_surplus()

    def wait_all(
        self, token: Token, segments: Iterable[tuple[JobArray, int, int]], times: bool = False
    ) -> None:
        """Answer in batches with every member of ``segments`` that is or becomes inactive."""
        entry = self._outcomes.timed_entry if times else self._outcomes.done_entry
        group = _WaitAll(token, entry)
        for jobs, lo, hi in segments:
            inactive = jobs.state.count(_INACTIVE, lo, hi)
            if inactive:
                k = jobs.state.find(_INACTIVE, lo, hi)
                while k >= 0:
                    group.done.append(entry(jobs, k))
                    k = jobs.state.find(_INACTIVE, k + 1, hi)
            if inactive < hi - lo:
                group.left += hi - lo - inactive
                if hi - lo == 1:
                    self._members.setdefault((jobs.index, lo), []).append(group)
                else:
                    self._all.setdefault(jobs.index, []).append((lo, hi, group))
        self._groups[token] = group
        self._dirty[token] = group

    def cancel(self, token: Token) -> None:
        """Whoever held the token no longer waits."""
        for key, waiting in list(self._one.items()):
            if waiting == token:
                del self._one[key]
        if token in self._any:
            self._any.remove(token)
        group = self._groups.pop(token, None)
        if group is not None:
            self._dirty.pop(token, None)
            self._drop(group)

    # -- what happened --------------------------------------------------------------------------

    def inactive(self, jobs: JobArray, k: int, count: int) -> None:
        """Members ``k``… have become inactive."""
        waiting = self._all.get(jobs.index)
        if waiting is not None:
            for lo, hi, group in waiting:
                lo, hi = max(lo, k), min(hi, k + count)
                if lo < hi:
                    group.done += [group.entry(jobs, m) for m in range(lo, hi)]
                    group.left -= hi - lo
                    self._dirty[group.token] = group
        if self._members:
            for m in range(k, k + count):
                for group in self._members.pop((jobs.index, m), ()):
                    group.done.append(group.entry(jobs, m))
                    group.left -= 1
                    self._dirty[group.token] = group
        if jobs.reaped is not None:
            self._inactive_waitable(jobs, k, count)

    def _inactive_waitable(self, jobs: JobArray, k: int, count: int) -> None:
        end = k + count
        start = k
        if self._one or self._any:
            for m in range(k, end):
                token = self._one.pop((jobs.index, m), None) if self._one else None
                if token is None:
                    if not self._any:
                        continue
                    token = self._any.popleft()
                self._reap(token, jobs, m)
                if m == start:
                    start += 1
        if start < end:
            last = self._zombies[-1] if self._zombies else None
            if last is not None and last[0] is jobs and last[2] == start:
                self._zombies[-1] = (jobs, last[1], end)
            else:
                self._zombies.append((jobs, start, end))

    def take(self) -> list[Answer]:
        """The answers that are due, batched since the last call."""
        for group in self._dirty.values():
            if group.done:
                self._answers.append(Answer(group.token, {"done": group.done}, final=False))
                group.done = []
            if group.left == 0:
                self._answers.append(Answer(group.token, None, errno.ENODATA, ""))
                self._groups.pop(group.token, None)
                self._drop(group)
        self._dirty.clear()
        answers, self._answers = self._answers, []
        return answers

    # -- inside ---------------------------------------------------------------------------------

    def _reap(self, token: Token, jobs: JobArray, k: int) -> None:
        assert jobs.reaped is not None
        jobs.reaped[k] = 1
        self._unreaped -= 1
        self._answers.append(Answer(token, self._outcomes.wait_payload(jobs, k)))

    def _refuse_surplus(self) -> None:
        """There are never more who wait for any job than jobs they could get."""
        while self._any and len(self._any) + len(self._one) > self._unreaped:
            self._answers.append(
                Answer(self._any.pop(), None, errno.ECHILD, "there are no more waitable jobs")
            )

    def _drop(self, group: _WaitAll) -> None:
        for index, waiting in list(self._all.items()):
            kept = [entry for entry in waiting if entry[2] is not group]
            if kept:
                self._all[index] = kept
            else:
                del self._all[index]
        if group.left:
            for member, groups in list(self._members.items()):
                kept_groups = [other for other in groups if other is not group]
                if kept_groups:
                    self._members[member] = kept_groups
                else:
                    del self._members[member]
