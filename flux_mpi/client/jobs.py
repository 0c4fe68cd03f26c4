"""Jobs as Python calls: submit, wait, list, cancel.

Each function takes ``handle``; without one it connects to ``FLUX_URI`` for the call. Errors are
FluxError (an OSError) with the instance's own words.
"""

from __future__ import annotations

import os
from collections.abc import Sequence as _Sequence

from flux_mpi.client.handle import Handle
from flux_mpi.client.info import (
    ACTIVE,
    INACTIVE,
    JobInfo,
    exit_status,
    filter_masks,
)
from flux_mpi.formats import fluid
from flux_mpi.formats.jobspec import Jobspec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from flux_mpi.formats.idset import IDSet

    Command = str | Sequence[str] | Jobspec | Mapping[str, Any]
    Ids = "int | str | JobArray | Iterable[int | str]"

FLAG_DEBUG, FLAG_WAITABLE, FLAG_NOVALIDATE = 2, 4, 8
URGENCY_DEFAULT = 16


class JobID(int):
    """A job's id: an int that prints as users know it (``ƒ…``)."""

    @property
    def f58(self) -> str:
        return fluid.encode(self)

    def __str__(self) -> str:
        return fluid.encode(self)

    def __repr__(self) -> str:
        return f"JobID({fluid.encode(self)!r})"

    def __format__(self, spec: str) -> str:
        return format(fluid.encode(self), spec)


class JobArray(_Sequence):
    """The ids of one submission; a million of them take no more room than one."""

    __slots__ = ("_starts", "ranges")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self.ranges = [(int(first), int(count)) for first, count in ranges]
        """(first id, number of consecutive ids)."""
        self._starts = [0]
        for _, count in self.ranges:
            self._starts.append(self._starts[-1] + count)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return [self[at] for at in range(*k.indices(len(self)))]
        if k < 0:
            k += len(self)
        if not 0 <= k < len(self):
            raise IndexError(f"the array has {len(self)} jobs, there is no number {k}")
        from bisect import bisect_right

        at = bisect_right(self._starts, k) - 1
        return JobID(fluid.nth(self.ranges[at][0], k - self._starts[at]))

    def __iter__(self) -> Iterator[JobID]:
        for first, count in self.ranges:
            for k in range(count):
                yield JobID(fluid.nth(first, k))

    def index(self, value: int, start: int = 0, stop: int | None = None) -> int:
        """The position of a job in the array. Raises ValueError when it is none of them."""
        for (first, count), offset in zip(self.ranges, self._starts):
            try:
                k = fluid.index(first, value)
            except ValueError:
                continue
            if 0 <= k < count:
                return offset + k
        raise ValueError(f"job {fluid.encode(value)} is not of this array")

    def __contains__(self, value: object) -> bool:
        try:
            self.index(int(value))  # type: ignore[call-overload]
        except (TypeError, ValueError):
            return False
        return True

    def __repr__(self) -> str:
        if not self.ranges:
            return "JobArray()"
        return f"JobArray({fluid.encode(self.ranges[0][0])!r}, {len(self)} jobs)"


class JobResult:
    """How a job ended."""

    __slots__ = ("id", "note", "status")

    def __init__(self, id: int, status: int | None, note: str | None = None) -> None:
        self.id = JobID(id)
        self.status = status
        """Wait status (as of ``os.waitpid``) of its worst task; None when none ever ran."""
        self.note = note
        """The text of the exception that ended it, if one did."""

    @property
    def success(self) -> bool:
        return self.status == 0 and self.note is None

    @property
    def returncode(self) -> int:
        """Exit status; minus the signal's number when one ended it; 1 when it never ran."""
        if self.status is None or self.status < 0:
            return 1
        if os.WIFSIGNALED(self.status):
            return -os.WTERMSIG(self.status)
        return os.WEXITSTATUS(self.status)

    @property
    def exit_status(self) -> int:
        """As a shell says it: 128 + n for signal n; 1 when it never ran."""
        return 1 if self.status is None or self.status < 0 else exit_status(self.status)

    def __repr__(self) -> str:
        note = f", {self.note!r}" if self.note else ""
        return f"<job {self.id} {'ok' if self.success else f'status {self.exit_status}'}{note}>"


def jobid(job: int | str) -> JobID:
    """Any spelling of a job id (RFC 19). Raises ValueError."""
    return JobID(fluid.parse(job))


def ranges(jobs: Any) -> list[list[int]]:
    """``[[first, count], …]`` of an id, a JobArray or several ids, runs joined."""
    if isinstance(jobs, (int, str)):
        return [[fluid.parse(jobs), 1]]
    if isinstance(jobs, JobArray):
        return [list(pair) for pair in jobs.ranges]
    found: list[list[int]] = []
    for job in jobs:
        number = fluid.parse(job)
        if found:
            first, count = found[-1]
            if (
                fluid.generator(first) == fluid.generator(number)
                and fluid.index(first, number) == count
            ):
                found[-1][1] += 1
                continue
        found.append([number, 1])
    return found


class _Borrowed:
    """``with`` a given handle, or one opened for the block."""

    __slots__ = ("_given", "_own")

    def __init__(self, given: Handle | None) -> None:
        self._given = given
        self._own: Handle | None = None

    def __enter__(self) -> Handle:
        if self._given is not None:
            return self._given
        self._own = Handle()
        return self._own

    def __exit__(self, *details: object) -> None:
        if self._own is not None:
            self._own.close()


def make_jobspec(
    command: Command,
    *,
    ntasks: int = 1,
    nodes: int | None = None,
    cores_per_task: int = 1,
    gpus_per_task: int = 0,
    exclusive: bool = False,
    time_limit: float | str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    output: str | None = None,
    error: str | None = None,
    input: str | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Jobspec:
    """The jobspec of a command; see ``submit`` for the parameters.

    Raises JobspecError (a ValueError) naming the field.
    """
    if isinstance(command, Jobspec):
        return command
    if isinstance(command, dict):
        return Jobspec.parse(command)
    words = [command] if isinstance(command, str) else [str(word) for word in command]
    return Jobspec.from_command(
        words,
        ntasks=ntasks,
        nnodes=nodes,
        cores_per_task=cores_per_task,
        gpus_per_task=gpus_per_task,
        exclusive=exclusive,
        **common_fields(
            time_limit=time_limit,
            cwd=cwd,
            env=env,
            output=output,
            error=error,
            input=input,
            name=name,
            options=options,
            attributes=attributes,
        ),
    )


def common_fields(
    *,
    time_limit: float | str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    output: str | None = None,
    error: str | None = None,
    input: str | None = None,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What every kind of job may say, as keywords of ``Jobspec.from_command``; see ``submit``."""
    limit = 0.0
    if isinstance(time_limit, str):
        from flux_mpi.formats import duration

        limit = duration.parse(time_limit)
    elif time_limit is not None:
        limit = float(time_limit)
    shell: dict[str, Any] = dict(options or {})
    for stream, path in (("output.stdout", output), ("output.stderr", error)):
        if path is not None:
            shell[f"{stream}.type"] = "file"
            shell[f"{stream}.path"] = path
    if input is not None:
        shell["input.stdin.type"] = "file"
        shell["input.stdin.path"] = input
    common: dict[str, Any] = {
        "duration": 0.0 if limit == float("inf") else limit,
        "environment": dict(os.environ if env is None else env),
        "cwd": os.fspath(cwd) if cwd is not None else os.getcwd(),
        "name": name,
        "options": shell or None,
    }
    if attributes:
        common["attributes"] = attributes
    return common


def submit(
    command: Command,
    *,
    handle: Handle | None = None,
    urgency: int = URGENCY_DEFAULT,
    waitable: bool = False,
    flags: int = 0,
    count: int | None = None,
    cc: str | IDSet | None = None,
    rows: Sequence[Sequence[str]] | None = None,
    **how: Any,
) -> Any:
    """Submits a command (a list of words, or a Jobspec): returns its JobID.

    ``how`` is ``ntasks``, ``nodes``, ``cores_per_task``, ``gpus_per_task``, ``exclusive``,
    ``time_limit`` (s, or Flux standard duration), ``cwd``, ``env`` (default: this process's),
    ``output``, ``error``, ``input`` (files, with ``{{id}}``-like templates), ``name``,
    ``options`` (of the job shell) and ``attributes``.

    With ``count``, ``cc`` (an idset; ``{cc}`` in the command becomes the member's id) or ``rows``
    (lists of texts for ``{0}``, ``{1}``…), it is an array: one request however many members, and
    a JobArray of ids is returned. Raises JobspecError and FluxError.
    """
    spec = make_jobspec(command, **how)
    entry: dict[str, Any] = {"jobspec": spec.to_dict()}
    if cc is not None:
        from flux_mpi.formats.idset import IDSet

        members = IDSet.parse(cc) if isinstance(cc, str) else cc
        entry["count"] = len(members)
        entry["params"] = {"cc": str(members)}
    elif rows is not None:
        entry["count"] = len(rows)
        entry["params"] = {"rows": [[str(cell) for cell in row] for row in rows]}
    elif count is not None:
        entry["count"] = count
    array = submit_entries(
        [entry], handle=handle, urgency=urgency, flags=flags | (FLAG_WAITABLE if waitable else 0)
    )
    return array if "count" in entry else array[0]


def submit_entries(
    entries: list[dict[str, Any]],
    *,
    handle: Handle | None = None,
    urgency: int = URGENCY_DEFAULT,
    flags: int = 0,
) -> JobArray:
    """Submits ``{jobspec, count?, params?}`` entries as they are, in one request."""
    with _Borrowed(handle) as connection:
        answer = connection.call(
            "job-ingest.submit", {"entries": entries, "urgency": urgency, "flags": flags}
        )
    return JobArray(answer["arrays"])


def as_completed(jobs: Any, *, handle: Handle | None = None) -> Iterator[JobResult]:
    """A JobResult for each of ``jobs`` as it ends.

    The request is made when the first is asked for. Raises FluxError(ENOENT) naming an id that the
    instance does not know.
    """
    with _Borrowed(handle) as connection:
        stream = connection.rpc("job-manager.wait-all", {"ids": ranges(jobs)}, streaming=True)
        try:
            for batch in stream:
                for done in batch["done"]:
                    yield JobResult(done[0], done[1], done[2] if len(done) > 2 else None)
        finally:
            stream.cancel()


def wait(
    job: int | str, timeout: float | None = None, *, handle: Handle | None = None
) -> JobResult:
    """Waits until a job is inactive. Raises TimeoutError after ``timeout`` seconds."""
    number = fluid.parse(job)
    with _Borrowed(handle) as connection:
        stream = connection.rpc("job-manager.wait-all", {"ids": [[number, 1]]}, streaming=True)
        try:
            import time

            deadline = None if timeout is None else time.monotonic() + timeout
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    batch = stream.get(left)
                except TimeoutError:
                    raise TimeoutError(
                        f"{fluid.encode(number)}: still active after {timeout:g} s"
                    ) from None
                for done in batch["done"]:
                    return JobResult(done[0], done[1], done[2] if len(done) > 2 else None)
        finally:
            stream.cancel()


def wait_all(jobs: Any, *, handle: Handle | None = None) -> list[JobResult]:
    """Waits for all of ``jobs``; the results are in the order of ``jobs``."""
    found = {int(result.id): result for result in as_completed(jobs, handle=handle)}
    order = jobs if not isinstance(jobs, (int, str)) else [jobs]
    return [found[fluid.parse(job)] for job in order]


def result(job: int | str, *, handle: Handle | None = None) -> JobResult:
    """How a job ended; waits for that."""
    return wait(job, handle=handle)


def jobs(
    filters: str = "pending,running",
    *,
    handle: Handle | None = None,
    ids: Iterable[int | str] | None = None,
    max_entries: int = 1000,
    user: int | None = None,
    name: str | None = None,
    since: float = 0.0,
    attrs: Iterable[str] | None = None,
) -> list[JobInfo]:
    """The jobs in the given states and results (as of ``flux-mpi jobs -f``), newest first.

    ``max_entries`` 0 is no limit; ``since`` a Unix time; ``user`` a uid. Raises ValueError for an
    unknown filter.
    """
    states, results = filter_masks(filters) if ids is None else (ACTIVE | INACTIVE, 0)
    request: dict[str, Any] = {"max_entries": max_entries, "states": states, "results": results}
    if ids is not None:
        request["ids"] = [fluid.parse(job) for job in ids]
    if user is not None:
        request["userid"] = user
    if name is not None:
        request["name"] = name
    if since:
        request["since"] = since
    if attrs is not None:
        request["attrs"] = sorted(attrs)
    return [JobInfo(record) for record in list_records(request, handle=handle)]


def list_records(
    request: Mapping[str, Any], *, handle: Handle | None = None
) -> list[dict[str, Any]]:
    """The raw records of ``job-list.list``."""
    with _Borrowed(handle) as connection:
        records: list[dict[str, Any]] = []
        for chunk in connection.rpc("job-list.list", dict(request), streaming=True):
            records += chunk["jobs"]
        return records


def raise_exception(
    jobs: Any,
    type: str,
    severity: int = 0,
    note: str = "",
    *,
    handle: Handle | None = None,
) -> dict[int, str]:
    """Raises a job exception (RFC 21); returns what went wrong, by job id."""
    with _Borrowed(handle) as connection:
        answer = connection.call(
            "job-manager.raise",
            {"ids": ranges(jobs), "type": type, "severity": severity, "note": note},
        )
    return {int(job): text for job, text in (answer.get("errors") or {}).items()}


def cancel(jobs: Any, note: str = "", *, handle: Handle | None = None) -> dict[int, str]:
    """Cancels jobs; returns what went wrong, by job id (empty: nothing)."""
    return raise_exception(jobs, "cancel", 0, note, handle=handle)


def kill(job: int | str, signum: int = 15, *, handle: Handle | None = None) -> None:
    """Sends a signal to all tasks of a running job."""
    with _Borrowed(handle) as connection:
        connection.call("job-manager.kill", {"id": fluid.parse(job), "signum": signum})


def memo(
    job: int | str,
    values: Mapping[str, Any],
    *,
    volatile: bool = False,
    handle: Handle | None = None,
) -> None:
    """Notes values on a job, shown as ``annotations.user`` (RFC 21); None removes a key.

    Volatile ones are not in its event log. Raises FluxError: ENOENT, EPERM, EINVAL when inactive.
    """
    with _Borrowed(handle) as connection:
        request = {"id": fluid.parse(job), "memo": dict(values), "volatile": volatile}
        connection.call("job-manager.memo", request)


def lookup(job: int | str, *keys: str, handle: Handle | None = None, **how: Any) -> dict[str, Any]:
    """``job-info.lookup``: ``jobspec``, ``R``, ``eventlog``… by key."""
    with _Borrowed(handle) as connection:
        found: dict[str, Any] = connection.call(
            "job-info.lookup", {"id": fluid.parse(job), "keys": list(keys), **how}
        )
    return found


def attach(job: int | str, *, handle: Handle | None = None) -> int:
    """Copies a job's output to this process's, and returns its exit status when it has ended."""
    from flux_mpi.client.attach import Attachment, print_output

    with _Borrowed(handle) as connection:
        attachment = Attachment(connection, fluid.parse(job), on_output=print_output())
        connection.run(lambda: attachment.done)
        return attachment.exit_status
