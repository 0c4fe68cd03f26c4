"""Submissions, checked: what reaches the manager is complete and can be run (RFC 25)."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from flux_mpi.formats import duration, templates
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec, JobspecError, Shape
from flux_mpi.job import queuerules
from flux_mpi.job.queueconfig import QueueSettings
from flux_mpi.job.states import JobFlags
from flux_mpi.message.errors import ServiceError

MAX_COUNT = 1 << 24
"""Members of one array: their state bytes alone are then 16 MiB."""

_FLAGS = int(JobFlags.DEBUG | JobFlags.WAITABLE | JobFlags.NOVALIDATE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A checked entry of a submission."""

    jobspec: Jobspec
    shape: Shape
    count: int = 1
    params: dict[str, Any] | None = None
    mock: float | None = None
    mock_status: int = 0


class Ingest:
    """Parses submissions; equal shapes and equal environments become one object."""

    def __init__(self, queues: QueueSettings | None = None) -> None:
        self._queues = queues or QueueSettings()
        self._shapes: dict[Shape, Shape] = {}
        self._environments: dict[frozenset[tuple[str, str]], dict[str, str]] = {}

    def parse(self, payload: Any) -> tuple[list[Entry], int, int]:
        """(entries, urgency, flags) of ``job-ingest.submit``.

        Raises ServiceError(EINVAL) naming the entry and the field.
        """
        if not isinstance(payload, dict) or not isinstance(payload.get("entries"), list):
            raise ServiceError(errno.EPROTO, "entries: expected a list of jobspecs to submit")
        urgency = check_urgency(payload.get("urgency", 16))
        flags = payload.get("flags", 0)
        if not _is_int(flags) or flags & ~_FLAGS:
            raise ServiceError(errno.EINVAL, f"flags: expected a mask of {_FLAGS}, found {flags!r}")
        entries = payload["entries"]
        if not entries:
            raise ServiceError(errno.EINVAL, "entries: expected at least one, found none")
        parsed = []
        for i, entry in enumerate(entries):
            try:
                parsed.append(self._entry(entry))
            except JobspecError as error:
                where = f"entry {i + 1} of {len(entries)}: " if len(entries) > 1 else ""
                raise ServiceError(errno.EINVAL, f"{where}{error}") from None
        return parsed, urgency, flags

    def _entry(self, entry: Any) -> Entry:
        if not isinstance(entry, dict):
            raise JobspecError("entry", type(entry).__name__, "an object with a jobspec")
        jobspec = Jobspec.parse(entry.get("jobspec"))  # type: ignore[arg-type]
        queue = queuerules.complete(jobspec, self._queues)
        shape = jobspec.shape
        queuerules.check(jobspec, shape, queue)
        if len(self._shapes) >= 4096:
            self._shapes.clear()
        shape = self._shapes.setdefault(shape, shape)
        self._share_environment(jobspec)
        if jobspec.dependencies:
            raise JobspecError(
                "attributes.system.dependencies",
                f"scheme {jobspec.dependencies[0].get('scheme')!r}",
                "no dependencies, which this instance does not support",
            )
        count = entry.get("count", 1)
        if not _is_int(count) or not 1 <= count <= MAX_COUNT:
            raise JobspecError("count", repr(count)[:64], f"a number of 1 to {MAX_COUNT} jobs")
        params = check_params(entry.get("params"), count)
        check_templates(jobspec, params)
        mock, status = mock_execution(jobspec)
        return Entry(jobspec, shape, count, params, mock, status)

    def _share_environment(self, jobspec: Jobspec) -> None:
        """Thousands of single jobs come with the same hundred variables: keep them once."""
        environment = jobspec.system.get("environment")
        if not environment:
            return
        key = frozenset(environment.items())
        if len(self._environments) >= 64 and key not in self._environments:
            self._environments.clear()
        jobspec.system["environment"] = self._environments.setdefault(key, environment)


def check_urgency(urgency: Any) -> int:
    """An urgency 0…31 (−1 is hold, 32 expedite). Raises ServiceError(EINVAL)."""
    if not _is_int(urgency) or not -1 <= urgency <= 32:
        raise ServiceError(errno.EINVAL, "urgency range is [0:31]")
    return min(31, max(0, int(urgency)))


def check_params(params: Any, count: int) -> dict[str, Any] | None:
    """The parameters of an array's members. Raises JobspecError."""
    if params is None:
        return None
    if not isinstance(params, dict) or len(params) != 1 or next(iter(params)) not in ("cc", "rows"):
        raise JobspecError("params", repr(params)[:64], "either cc or rows")
    if "cc" in params:
        try:
            ids = IDSet.parse(params["cc"])
        except ValueError as error:
            raise JobspecError("params.cc", str(error), "an idset (RFC 22)") from None
        if len(ids) != count:
            raise JobspecError("params.cc", f"{len(ids)} ids", f"one for each of {count} jobs")
        return params
    rows = params["rows"]
    if not isinstance(rows, list) or len(rows) != count:
        found = f"{len(rows)} rows" if isinstance(rows, list) else type(rows).__name__
        raise JobspecError("params.rows", found, f"one for each of {count} jobs")
    for i, row in enumerate(rows):
        if not isinstance(row, list) or not all(isinstance(cell, str) for cell in row):
            raise JobspecError(f"params.rows[{i}]", repr(row)[:64], "a list of strings")
    return params


def check_templates(jobspec: Jobspec, params: dict[str, Any] | None) -> None:
    """Refuse tags that cannot be filled in for some member. Raises JobspecError."""
    if params is None or not templates.has_tags(jobspec.to_dict()):
        return
    examples: list[dict[str, Any]] = [{"cc": 0}]
    if "rows" in params:
        # What a tag can refer to depends on how many inputs there are, not on what they say.
        examples = [{"row": row} for row in {len(row): row for row in params["rows"]}.values()]
    for example in examples:
        try:
            templates.expand(jobspec.to_dict(), seq=0, **example)
        except templates.TemplateError as error:
            raise JobspecError("template", str(error), "tags that the parameters fill") from None


def mock_execution(jobspec: Jobspec) -> tuple[float | None, int]:
    """(seconds, wait status) of ``attributes.system.exec.test``; seconds None: not mocked.

    Raises JobspecError.
    """
    field = "attributes.system.exec.test"
    execution = jobspec.system.get("exec")
    test = execution.get("test") if isinstance(execution, dict) else None
    if test is None:
        return None, 0
    if not isinstance(test, dict):
        raise JobspecError(field, repr(test)[:64], "an object with run_duration")
    seconds = test.get("run_duration", jobspec.duration)
    if isinstance(seconds, str):
        try:
            seconds = duration.parse(seconds)
        except ValueError as error:
            raise JobspecError(f"{field}.run_duration", str(error), "a duration") from None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds >= 0:
        raise JobspecError(f"{field}.run_duration", repr(seconds)[:64], "seconds, at least 0")
    status = test.get("wait_status", 0)
    if not _is_int(status) or not 0 <= status <= 0xFFFF:
        raise JobspecError(f"{field}.wait_status", repr(status)[:64], "a wait status")
    return float(seconds), status


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
