"""Looking into many instances at once: jobs that are instances, their jobs, and so on down.

One thread asks all of them together. Each has a bounded time to answer, so that one that hangs
costs the others nothing; what cannot be asked is told by ``Instance.error``.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections import deque

from flux_mpi.client.handle import Handle
from flux_mpi.client.info import RUN, uri
from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flux_mpi.client.handle import Future

    Record = dict[str, Any]
    Question = tuple[str, Any, bool]

TIMEOUT_S = 5.0
"""How long an instance may take to answer, from when it was asked."""
QUEUE_S = 0.5
"""How long an instance may take to accept us: meanwhile no other is asked."""
AT_ONCE = 64
"""Instances that are asked at the same time; each takes a file descriptor."""
DEEPEST = 999
NEEDED = frozenset({"state", "userid", "annotations"})
"""Attributes that tell which jobs are instances, and whose."""


class Instance:
    """An instance, its jobs, and those of them that are instances."""

    def __init__(self, uri: str = "", path: tuple[int, ...] = ()) -> None:
        self.uri = uri
        self.path = path
        """Ids of the jobs from the first instance down to this one."""
        self.jobs: list[Record] = []
        self.unknown: list[int] = []
        """Ids that were asked for, and that it does not know."""
        self.children: dict[int, Instance] = {}
        """By job id: those that were looked into, whether they could be or not."""
        self.stats: dict[str, Any] = {}
        self.error = ""
        """Why it could not be asked."""
        self.listed = True
        """Whether its jobs are what a filter let through, not single ones asked for by id."""

    def each(self) -> list[Instance]:
        """This one and all below, in the order of the jobs."""
        found = [self]
        for job in self.jobs:
            child = self.children.get(job["id"])
            if child is not None:
                found += child.each()
        return found


class Plan:
    """What to ask every instance for.

    ``request`` is that of ``job-list.list``; its ``attrs`` must hold ``NEEDED``. ``levels``: how
    far below the first instance to go. ``details``: put into each record of an instance what its
    ``instance.*`` fields need. ``stats``: counts of jobs of each instance. ``everyone``: look into
    the instances of other users too (they refuse, unless you are root). Set ``below`` for another
    request to the children than the same without ``ids``.
    """

    def __init__(
        self,
        request: dict[str, Any],
        *,
        levels: int = DEEPEST,
        details: bool = False,
        stats: bool = False,
        everyone: bool = False,
    ) -> None:
        self.request = request
        self.levels = levels
        self.details = details
        self.stats = stats
        self.everyone = everyone
        self.below = {key: value for key, value in request.items() if key != "ids"}


def is_instance(job: Record, everyone: bool = True) -> bool:
    """Whether a job runs and has said where its instance is (not ``everyone``'s: your own only)."""
    return (
        job.get("state") == RUN
        and bool(uri(job))
        and (everyone or job.get("userid") == os.getuid())
    )


def walk(
    handle: Handle, plan: Plan, *, timeout_s: float = TIMEOUT_S, at_once: int = AT_ONCE
) -> Instance:
    """The instance behind ``handle`` and those below, as ``plan`` says, ``at_once`` at a time.

    The first one must answer: raises its FluxError. Time limits do not apply to it.
    """
    crowd = Crowd(timeout_s, at_once)
    root = Instance(handle.uri)
    found = _ask(handle, _questions(plan, plan.request, jobs=True, details=False))
    _take(root, found, plan, plan.request)
    _descend(crowd, root, plan, 0)
    crowd.run()
    return root


def detail(handle: Handle, jobs: list[Record], *, timeout_s: float = TIMEOUT_S) -> None:
    """Put into the records of instances what their ``instance.*`` fields need."""
    crowd = Crowd(timeout_s)
    root = Instance(handle.uri)
    root.jobs = jobs
    _descend(crowd, root, Plan({}, levels=0, details=True), 0)
    crowd.run()


def _questions(
    plan: Plan, request: dict[str, Any], *, jobs: bool, details: bool
) -> dict[str, Question]:
    questions: dict[str, Question] = {}
    if jobs:
        questions["jobs"] = ("job-list.list", request, True)
    if details or (jobs and plan.stats):
        questions["stats"] = ("job-list.stats", {}, False)
    if details:
        questions["resources"] = ("resource.status", {}, False)
    return questions


def _ask(handle: Handle, questions: dict[str, Question]) -> dict[str, Any]:
    """Ask one instance and wait."""
    found: dict[str, Any] = {}
    futures = {
        name: handle.rpc(topic, payload, streaming=streaming)
        for name, (topic, payload, streaming) in questions.items()
    }
    for name, future in futures.items():
        if not future.streaming:
            found[name] = future.get()
            continue
        parts: list[Any] = []
        try:
            for part in future:
                parts.append(part)
        except FluxError as error:
            if error.errno != errno.ENOENT:
                raise
        found[name] = parts
    return found


def _take(instance: Instance, found: dict[str, Any], plan: Plan, request: dict[str, Any]) -> None:
    """Put answers where they belong."""
    instance.jobs = [job for part in found.get("jobs", ()) for job in part["jobs"]]
    if plan.stats:
        instance.stats = found.get("stats") or {}
    if "ids" in request:
        known = {job["id"] for job in instance.jobs}
        instance.unknown = [job for job in request["ids"] if job not in known]


def _descend(crowd: Crowd, instance: Instance, plan: Plan, level: int) -> None:
    """Have those jobs of ``instance`` asked that are instances."""
    deeper = level < plan.levels
    if not deeper and not plan.details:
        return
    questions = _questions(plan, plan.below, jobs=deeper, details=plan.details)
    for job in instance.jobs:
        if not is_instance(job, plan.everyone):
            continue
        child = Instance(uri(job), (*instance.path, job["id"]))
        if deeper:
            instance.children[job["id"]] = child

        def done(
            found: dict[str, Any], error: str, child: Instance = child, job: Record = job
        ) -> None:
            child.error = error
            if error:
                return
            if plan.details:
                job["instance"] = {"stats": found["stats"], "resources": found["resources"]}
            if deeper:
                _take(child, found, plan, plan.below)
                _descend(crowd, child, plan, level + 1)

        crowd.ask(child.uri, questions, done)


class Crowd:
    """Asks instances, many at a time, each within ``timeout_s``."""

    def __init__(self, timeout_s: float = TIMEOUT_S, at_once: int = AT_ONCE) -> None:
        self.timeout_s = timeout_s
        self.at_once = at_once
        self._waiting: deque[tuple[str, dict[str, Question], Callable[..., None]]] = deque()
        self._visits: dict[int, _Visit] = {}
        self._poll = select.poll()

    def ask(
        self,
        uri: str,
        questions: dict[str, Question],
        done: Callable[[dict[str, Any], str], None],
    ) -> None:
        """``done(answers by name, error)`` is called from ``run``, once; it may ask more."""
        self._waiting.append((uri, questions, done))

    def run(self) -> None:
        """Return when everybody has answered or run out of time."""
        while self._waiting or self._visits:
            while self._waiting and len(self._visits) < self.at_once:
                self._begin(*self._waiting.popleft())
            if not self._visits:
                continue
            now = time.monotonic()
            soonest = min(visit.deadline for visit in self._visits.values())
            for fd, _ in self._poll.poll(max(0.0, soonest - now) * 1000 + 1):
                self._visits[fd].read()
            now = time.monotonic()
            for fd, visit in list(self._visits.items()):
                if not visit.over and now >= visit.deadline:
                    visit.error = f"no answer within {self.timeout_s:g} s"
                if visit.over:
                    self._end(fd, visit)

    def _begin(
        self,
        uri: str,
        questions: dict[str, Question],
        done: Callable[[dict[str, Any], str], None],
    ) -> None:
        try:
            handle = Handle(uri, patience_s=min(QUEUE_S, self.timeout_s))
        except FluxError as error:
            done({}, str(error))
            return
        visit = _Visit(handle, time.monotonic() + self.timeout_s, done)
        self._visits[handle.fileno()] = visit
        self._poll.register(handle.fileno(), select.POLLIN)
        visit.ask(questions)

    def _end(self, fd: int, visit: _Visit) -> None:
        self._poll.unregister(fd)
        del self._visits[fd]
        visit.handle.close()
        visit.done({} if visit.error else visit.found, visit.error)


class _Visit:
    """One instance that is being asked."""

    def __init__(
        self, handle: Handle, deadline: float, done: Callable[[dict[str, Any], str], None]
    ) -> None:
        self.handle = handle
        self.deadline = deadline
        self.done = done
        self.found: dict[str, Any] = {}
        self.error = ""
        self._open = 0

    @property
    def over(self) -> bool:
        return bool(self.error) or not self._open

    def ask(self, questions: dict[str, Question]) -> None:
        try:
            for name, (topic, payload, streaming) in questions.items():
                if streaming:
                    self.found[name] = []
                self._open += 1
                self.handle.rpc(
                    topic,
                    payload,
                    streaming=streaming,
                    callback=lambda future, name=name: self._answer(name, future),  # type: ignore[misc]
                )
        except FluxError as error:
            self.error = str(error)

    def read(self) -> None:
        """Take in what has arrived."""
        self.handle.dispatch(0)

    def _answer(self, name: str, future: Future) -> None:
        try:
            answer = future.get()
        except FluxError as error:
            self._open -= 1
            if not (future.streaming and error.errno == errno.ENODATA):
                self.error = self.error or str(error)
            return
        if future.streaming:
            self.found[name].append(answer)
        else:
            self._open -= 1
            self.found[name] = answer
