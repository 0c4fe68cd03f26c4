"""Barriers and groups as a client sees them: names, changes, and what a timeout tells."""

from __future__ import annotations

import os

from flux_mpi.formats import member
from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from flux_mpi.client.handle import Future, Handle

STATUS_TIMEOUT_S = 1.0
"""How long to ask who is awaited, once a barrier has timed out."""


def own_name(uri: str, environ: Mapping[str, str] | None = None) -> str:
    """What this process is called in groups and barriers of the instance at ``uri``.

    ``JOBID.taskrank`` for a task, with the path of ids when it talks to an instance other than
    that of its job (an id is one instance's); ``HOST:PID`` for whoever is no task.
    """
    environ = os.environ if environ is None else environ
    job, rank = environ.get("FLUX_JOB_ID"), environ.get("FLUX_TASK_RANK")
    if not job or not rank:
        return f"{os.uname().nodename}:{os.getpid()}"
    if uri != environ.get("FLUX_URI"):
        job = environ.get("FLUX_JOB_ID_PATH") or job
    return member.task(job, rank)


class GroupChange:
    """Who is in a group now, and how that differs from what was told before."""

    __slots__ = ("joined", "left", "members")

    def __init__(self, members: list[str], joined: list[str], left: list[str]) -> None:
        self.members = members
        """All members, the tasks of a job in the order of their ranks."""
        self.joined = joined
        """Those who are new; all of them in the first change."""
        self.left = left
        """Those who are gone."""

    def __repr__(self) -> str:
        return f"<GroupChange {len(self.members)} members, +{self.joined} -{self.left}>"


class View:
    """Adds up the answers of a ``groups.get`` stream."""

    def __init__(self) -> None:
        self._members: set[str] = set()

    def take(self, answer: Mapping[str, Any]) -> GroupChange:
        """The change that ``answer`` tells."""
        if "members" in answer:
            joined, left = list(answer["members"]), []
            self._members = set(joined)
        else:
            joined, left = answer["joined"], answer["left"]
            self._members.difference_update(left)
            self._members.update(joined)
        return GroupChange(sorted(self._members, key=member.order), joined, left)


def changes(stream: Future) -> Iterator[GroupChange]:
    """The changes that a ``groups.get`` stream tells; cancels it when no longer wanted."""
    view = View()
    try:
        for answer in stream:
            yield view.take(answer)
    finally:
        stream.cancel()


def barrier(handle: Handle, name: str, nprocs: int, timeout: float | None) -> None:
    """See ``Handle.barrier``."""
    future = handle.rpc("barrier.enter", entry(handle.uri, name, nprocs))
    try:
        future.get(timeout)
        return
    except TimeoutError:
        if timeout is None:
            raise
    except BaseException:
        # Interrupted: others must not wait for who does not wait for them.
        future.cancel()
        raise
    found = None
    try:
        found = handle.call("barrier.status", {"name": name}, timeout=STATUS_TIMEOUT_S)
    except (TimeoutError, FluxError):
        pass  # that it timed out is the news, not why nobody can say how far it was
    if future.ready():
        future.get()  # it came at the last moment
        return
    future.cancel()
    raise timed_out(name, nprocs, timeout, found)


def entry(uri: str, name: str, nprocs: int) -> dict[str, Any]:
    """The payload of ``barrier.enter``."""
    return {"name": name, "nprocs": nprocs, "who": own_name(uri)}


def timed_out(name: str, nprocs: int, timeout: float, status: Any) -> TimeoutError:
    """What a barrier that took too long is told as; ``status`` is that of ``barrier.status``."""
    rows = status["barriers"] if status else []
    how_far = "".join(f": {entered} of {of} have entered" for _, entered, of in rows)
    how_far = how_far or f": not all {nprocs} have entered"
    return TimeoutError(f"barrier {name}{how_far} after {timeout:g} s")
