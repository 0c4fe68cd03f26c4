"""Ensembles: one command run for many members, spread over a hierarchy of instances by itself.

>>> with flux_mpi.Handle() as handle:
...     result = handle.tree(["./member", "{cc}"], jobs=100_000, topology="4x8")
>>> result.failed, result.rate, result.mean_s
"""

from __future__ import annotations

from flux_mpi.client.handle import Handle
from flux_mpi.client.jobs import URGENCY_DEFAULT, _Borrowed, make_jobspec
from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from flux_mpi.client.jobs import Command
    from flux_mpi.formats.idset import IDSet


class TreeFailure:
    """A member that did not end well."""

    __slots__ = ("member", "returncode", "why")

    def __init__(self, member: int, returncode: int, why: str) -> None:
        self.member = member
        self.returncode = returncode
        """Exit status as a shell says it: 128 + n for signal n; 1 when it never ran."""
        self.why = why
        """What the exception said that ended it, or ``""``."""

    def __repr__(self) -> str:
        why = f", {self.why!r}" if self.why else ""
        return f"<member {self.member} status {self.returncode}{why}>"


class TreeResult:
    """How an ensemble ended. ``raw`` has all numbers, as `docs/protocol.md` names them."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.count: int = raw["count"]
        """Members that ended, however they did."""
        self.failed: int = raw["failed"]
        self.lost: int = raw["lost"]
        """Of those: instances that had them were lost too often."""
        self.canceled: int = raw["canceled"]
        """Of those: canceled."""
        self.returncode: int = raw["status"]
        """The largest exit status of all members."""
        self.codes: dict[int, int] = dict(raw["codes"])
        """How many failed with which exit status."""
        self.failures = [TreeFailure(*failure) for failure in raw["failures"]]
        """The failed members with the lowest ids; the others are counted in ``codes`` only."""
        self.wall_s: float = raw["wall"]
        self.rate: float = raw["rate"]
        """Members a second."""
        self.mean_s: float = raw["times"]["mean"]
        """How long a member ran."""
        self.max_s: float = raw["times"]["max"]
        self.topology: str = raw["topology"]
        self.why: str = raw["why"]
        """Why that topology, if it was chosen by itself."""
        self.levels: list[dict[str, Any]] = raw["levels"]
        """Numbers of each level, the first one's first."""
        self.records: list[dict[str, Any]] = raw["records"]
        """One for each instance."""

    @property
    def success(self) -> bool:
        """Whether every member ended well."""
        return not self.failed

    def __repr__(self) -> str:
        return f"<tree {self.topology}: {self.count} members, {self.failed} failed>"


class Ensemble:
    """An ensemble under way; made by `start_tree`. Iterate for its progress, ask for `result`."""

    def __init__(self, handle: Handle, request: Mapping[str, Any]) -> None:
        self.handle = handle
        self.number = 0
        """Its number in the instance; 0 until the first progress came."""
        self.last: dict[str, Any] = {}
        """The latest progress: ``done``, ``failed``, ``running``, ``total``, ``rate``…"""
        self._result: TreeResult | None = None
        self._stream = handle.rpc("ensemble.run", dict(request), streaming=True)

    def step(self, timeout: float | None = None) -> bool:
        """Wait for the next progress; False once there is a result instead.

        Raises TimeoutError after ``timeout`` seconds, FluxError when it could not be run.
        """
        if self._result is not None:
            return False
        answer = self._stream.get(timeout)
        if "result" in answer:
            self._result = TreeResult(answer["result"])
            return False
        self.last = answer
        self.number = answer["run"]
        return True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while self.step():
            yield self.last

    def result(self) -> TreeResult:
        """Waits until all members have ended. Raises FluxError when it could not be run."""
        while self.step():
            pass
        assert self._result is not None
        return self._result

    def cancel(self, why: str = "") -> None:
        """End all members and what runs them; `result` then tells what was done before."""
        while not self.number and self.step():
            pass
        if self._result is None:
            try:
                self.handle.call("ensemble.cancel", {"run": self.number, "why": why})
            except FluxError:
                # It has just ended by itself, and its result is on the way.
                if not self._stream.ready():
                    raise

    def abandon(self) -> None:
        """Want nothing more of it: it is canceled, and nobody hears how it ended."""
        self._stream.cancel()


def tree_request(
    jobspec: Mapping[str, Any],
    *,
    jobs: int | None = None,
    members: str | IDSet | None = None,
    topology: str | Sequence[int] = "1",
    expected_time: float | str | None = None,
    retries: int | None = None,
    conf: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    urgency: int = URGENCY_DEFAULT,
    nnodes: int | None = None,
    ncores: int | None = None,
    ngpus: int | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """The payload of ``ensemble.run`` and ``ensemble.plan``; see `tree` for what it means."""
    request: dict[str, Any] = {
        "jobspec": dict(jobspec),
        "topology": topology if isinstance(topology, str) else list(topology),
        "urgency": urgency,
    }
    if members is not None:
        request["members"] = str(members)
    if jobs is not None or members is None:
        request["count"] = 1 if jobs is None else jobs
    if conf is not None:
        request["conf"] = dict(conf) if hasattr(conf, "keys") else [dict(each) for each in conf]
    for key, value in (
        ("expected_time", expected_time),
        ("retries", retries),
        ("nnodes", nnodes),
        ("ncores", ncores),
        ("ngpus", ngpus),
        ("name", name),
    ):
        if value is not None:
            request[key] = value
    return request


_PLAN = (
    *("jobs", "members", "topology", "expected_time", "retries", "conf", "urgency"),
    *("nnodes", "ncores", "ngpus", "name"),
)
"""Parameters of `tree_request`; all others describe a member."""


def start_tree(handle: Handle, command: Command, **how: Any) -> Ensemble:
    """Begins an ensemble, with the parameters of `tree`, and does not wait for it."""
    plan = {key: how.pop(key) for key in _PLAN if key in how}
    spec = make_jobspec(command, **how)
    return Ensemble(handle, tree_request(spec.to_dict(), **plan))


def tree(
    command: Command,
    *,
    handle: Handle | None = None,
    progress: Callable[[dict[str, Any]], object] | None = None,
    **how: Any,
) -> TreeResult:
    """Runs a command (a list of words, or a Jobspec) for each member of an ensemble.

    ``jobs`` is how many members there are (ids from 0), or ``members`` which (an idset). In the
    command, ``{cc}`` is the member's id, as is ``FLUX_JOB_CC`` in its environment. ``topology`` is
    how many child instances there are on each level (``"4x8"``), ``"1"`` for none, or ``"auto"``,
    which looks at the resources and the members' run time (``expected_time``, seconds or Flux
    standard duration, or measured). ``retries`` is how often a member runs again whose instance
    was lost: members run at least once. ``conf`` is a configuration for the child instances, or
    one for each level. ``nnodes``, ``ncores``, ``ngpus`` use so many nodes, and of each so much.
    ``progress`` is called with the latest numbers, ten times a second at most. Other parameters
    are those of ``submit``.

    Raises JobspecError and FluxError; a member that fails is no error.
    """
    with _Borrowed(handle) as connection:
        ensemble = start_tree(connection, command, **how)
        try:
            for numbers in ensemble:
                if progress is not None:
                    progress(numbers)
            return ensemble.result()
        except BaseException:
            ensemble.abandon()
            raise
