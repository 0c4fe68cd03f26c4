"""What a listing says about a job, in the names and with the derived values Flux users know.

A job is the record of ``job-list.list`` (a dict; absent keys are unknown). ``FIELDS`` maps each
field name to how it is headed, which attributes it must be asked with, and how it is computed;
``JobInfo`` is the same for programs.
"""

from __future__ import annotations

import os
import pwd
import time

from flux_mpi.formats import duration, fluid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Record = dict[str, Any]

NEW, DEPEND, PRIORITY, SCHED, RUN, CLEANUP, INACTIVE = 1, 2, 4, 8, 16, 32, 64
PENDING, RUNNING = DEPEND | PRIORITY | SCHED, RUN | CLEANUP
ACTIVE = PENDING | RUNNING
COMPLETED, FAILED, CANCELED, TIMEOUT = 1, 2, 4, 8

STATES = {
    NEW: ("NEW", "N", "\U0001f381"),
    DEPEND: ("DEPEND", "D", "\U0001f6d1"),
    PRIORITY: ("PRIORITY", "P", "\U0001f6a6"),
    SCHED: ("SCHED", "S", "\U0001f4c5"),
    RUN: ("RUN", "R", "\U0001f3c3"),
    CLEANUP: ("CLEANUP", "C", "\U0001f5d1"),
    INACTIVE: ("INACTIVE", "I", "\U0001f480"),
}
"""Long name, letter and picture of each state (RFC 21)."""

RESULTS = {
    COMPLETED: ("COMPLETED", "CD", "\U0001f600"),
    FAILED: ("FAILED", "F", "\U0001f4a9"),
    CANCELED: ("CANCELED", "CA", "\U0001f4a5"),
    TIMEOUT: ("TIMEOUT", "TO", "⌛"),
}
"""Long name, letters and picture of each result."""

FILTERS: dict[str, tuple[int, int]] = {
    "depend": (DEPEND, 0),
    "priority": (PRIORITY, 0),
    "sched": (SCHED, 0),
    "run": (RUN, 0),
    "cleanup": (CLEANUP, 0),
    "inactive": (INACTIVE, 0),
    "pending": (PENDING, 0),
    "running": (RUNNING, 0),
    "active": (ACTIVE, 0),
    "completed": (INACTIVE, COMPLETED),
    "failed": (INACTIVE, FAILED),
    "canceled": (INACTIVE, CANCELED),
    "timeout": (INACTIVE, TIMEOUT),
}
"""What a filter word asks for: a mask of states, and one of results (0: any)."""

_names: dict[int, str] = {}


def filter_masks(words: str) -> tuple[int, int]:
    """The masks of states and results for ``pending,failed``.

    Raises ValueError naming a word that is none, and the words there are.
    """
    states = results = 0
    everything = False
    for word in words.lower().split(","):
        if word not in FILTERS:
            raise ValueError(
                f"{word!r} is no state or result: expected some of {','.join(FILTERS)}"
            )
        state, result = FILTERS[word]
        states |= state
        results |= result
        everything |= bool(state & INACTIVE) and not result
    # "inactive" asks for every result, whatever else was named.
    return states, 0 if everything else results


def username(userid: int) -> str:
    """The name of a user, or the number when the system knows none."""
    name = _names.get(userid)
    if name is None:
        try:
            name = pwd.getpwuid(userid).pw_name
        except KeyError:
            name = str(userid)
        _names[userid] = name
    return name


def status(job: Record, which: int = 0) -> str:
    """The state of an active job, the result of an inactive one."""
    state = job.get("state", 0)
    if state == INACTIVE:
        return result(job, which)
    return STATES[state][which] if state in STATES else ""


def state(job: Record, which: int = 0) -> str:
    found = job.get("state", 0)
    return STATES[found][which] if found in STATES else ""


def result(job: Record, which: int = 0) -> str:
    found = job.get("result", 0)
    return RESULTS[found][which] if found in RESULTS else ""


def returncode(job: Record) -> int | str:
    """Exit status; minus the signal that ended it; −128 when canceled before it ran; '' so far."""
    wait_status = job.get("waitstatus")
    if wait_status is None:
        return {CANCELED: -128, FAILED: 1, TIMEOUT: 1}.get(job.get("result", 0), "")
    if os.WIFSIGNALED(wait_status):
        return -os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)


def runtime(job: Record) -> float:
    """Seconds it has run, or ran."""
    started: float = job.get("t_run", 0.0)
    if not started:
        return 0.0
    return float(job.get("t_cleanup") or time.time()) - started


def remaining(job: Record) -> float:
    """Seconds until it expires; 0 when it does not run or has no limit."""
    expiration: float = job.get("expiration", 0.0)
    if job.get("state") != RUN or not expiration:
        return 0.0
    return max(0.0, expiration - time.time())


def dependencies(job: Record) -> list[str]:
    """As texts; a begin time as a time of day."""
    shown = []
    for text in job.get("dependencies") or ():
        if text.startswith("begin-time="):
            when = time.localtime(float(text[len("begin-time=") :]))
            today = time.localtime()
            same = (when.tm_year, when.tm_yday) == (today.tm_year, today.tm_yday)
            text = "begin@" + time.strftime("%H:%M" if same else "%b%d-%H:%M", when)
            if when.tm_sec:
                text += time.strftime(":%S", when)
        shown.append(text)
    return shown


def annotation(job: Record, path: str) -> Any:
    """``sched.reason_pending`` and the like; '' when absent."""
    found: Any = job.get("annotations") or {}
    for name in path.split(".") if path else ():
        if not isinstance(found, dict) or name not in found:
            return ""
        found = found[name]
    return found


def uri(job: Record) -> str:
    """Where the instance is that a job is, as it said itself; '' when it is none."""
    found = annotation(job, "user.uri")
    return found if isinstance(found, str) else ""


def _local(text: str) -> str:
    from flux_mpi.client.uri import to_local

    try:
        return to_local(text) if text else ""
    except OSError:
        return text  # anybody may call a memo so


def contextual_info(job: Record) -> str:
    """Where it runs, or why it does not run yet."""
    found = job.get("state", 0)
    if found == PRIORITY:
        return "priority-wait"
    if found == DEPEND:
        return f"depends:{','.join(dependencies(job))}"
    if found == SCHED:
        estimate = annotation(job, "sched.t_estimate")
        if isinstance(estimate, (int, float)) and estimate:
            left = estimate - time.time()
            return f"eta:{duration.short(left)}" if left > 0 else "eta:now"
        if job.get("urgency") == 0:
            return "held"
        return "priority-hold" if job.get("priority") == 0 else ""
    nodelist: str = job.get("nodelist", "")
    return nodelist


def contextual_time(job: Record) -> float:
    """How long it may run while it waits, how long it has run afterwards."""
    if job.get("state", 0) & PENDING:
        limit: float = job.get("duration", 0.0)
        return limit
    return runtime(job)


def signal_text(signum: int) -> str:
    """``Terminated`` and the like."""
    import signal

    try:
        return signal.strsignal(signum) or f"Signal {signum}"
    except ValueError:
        return f"Signal {signum}"


def inactive_reason(job: Record) -> str:
    """Why it ended."""
    if job.get("state") != INACTIVE:
        return ""
    outcome = job.get("result")
    note = job.get("exception_note", "")
    if outcome == CANCELED:
        return f"Canceled: {note}" if note and job.get("exception_type") == "cancel" else "Canceled"
    if outcome == TIMEOUT:
        return "Timeout"
    code = returncode(job)
    if outcome == FAILED:
        kind = job.get("exception_type", "")
        if job.get("exception_occurred") and kind != "exec" and not job.get("exception_severity"):
            return f"Exception: type={kind}{f' note={note}' if note else ''}"
        if isinstance(code, int) and (code < 0 or code > 128):
            return signal_text(-code if code < 0 else code - 128)
        if code == 126:
            return "Command invoked cannot execute"
        if code == 127:
            return "command not found"
    return f"Exit {code}"


def exit_status(wait_status: int) -> int:
    """What a shell would call it: 128+n for a signal."""
    if os.WIFSIGNALED(wait_status):
        return 128 + os.WTERMSIG(wait_status)
    return os.WEXITSTATUS(wait_status)


def status_text(wait_status: int) -> str:
    """``exited with exit code 3``, ``Killed``: as said of the tasks of a job."""
    code = exit_status(wait_status)
    return f"exited with exit code {code}" if code <= 128 else signal_text(code - 128)


def _raw(name: str, missing: Any = "") -> Callable[[Record], Any]:
    def get(job: Record) -> Any:
        found = job.get(name)
        return missing if found is None else found

    return get


def _id(form: str) -> Callable[[Record], str]:
    # What is no job, the outermost instance, has no id.
    return lambda job: "." if job["id"] is None else fluid.encode(job["id"], form)


INSTANCE = "instance"
"""What a field needs besides attributes of a job: its instance is to be asked."""


class Field:
    """A column: its heading, the attributes to ask for, and the value for a record."""

    __slots__ = ("attrs", "get", "heading")

    def __init__(self, heading: str, attrs: tuple[str, ...], get: Callable[[Record], Any]) -> None:
        self.heading = heading
        self.attrs = attrs
        self.get = get


_SR = ("state", "result")

FIELDS: dict[str, Field] = {
    "id": Field("JOBID", (), _raw("id")),
    **{
        f"id.{form}": Field("JOBID", (), _id(form))
        for form in ("f58", "f58plain", "dec", "hex", "dothex", "kvs", "words", "emoji")
    },
    "userid": Field("UID", ("userid",), _raw("userid")),
    "username": Field("USER", ("userid",), lambda job: username(job.get("userid", -1))),
    "urgency": Field("URG", ("urgency",), _raw("urgency")),
    "priority": Field("PRI", ("priority",), _raw("priority")),
    "state": Field("STATE", ("state",), state),
    "state_single": Field("S", ("state",), lambda job: state(job, 1)),
    "state_emoji": Field("STATE", ("state",), lambda job: state(job, 2)),
    "name": Field("NAME", ("name",), _raw("name")),
    "cwd": Field("CWD", ("cwd",), _raw("cwd")),
    "queue": Field("QUEUE", ("queue",), _raw("queue")),
    "project": Field("PROJECT", ("project",), _raw("project")),
    "bank": Field("BANK", ("bank",), _raw("bank")),
    "ntasks": Field("NTASKS", ("ntasks",), _raw("ntasks")),
    "ncores": Field("NCORES", ("ncores",), _raw("ncores")),
    "ngpus": Field("NGPUS", ("ngpus",), _raw("ngpus")),
    "duration": Field("DURATION", ("duration",), _raw("duration", 0.0)),
    "nnodes": Field("NNODES", ("nnodes",), _raw("nnodes")),
    "expiration": Field("EXPIRATION", ("expiration",), _raw("expiration", 0.0)),
    "t_remaining": Field("T_REMAINING", ("expiration", "state"), remaining),
    "ranks": Field("RANKS", ("ranks",), _raw("ranks")),
    "nodelist": Field("NODELIST", ("nodelist",), _raw("nodelist")),
    "success": Field("SUCCESS", ("success",), _raw("success")),
    "result": Field("RESULT", ("result",), result),
    "result_abbrev": Field("RS", ("result",), lambda job: result(job, 1)),
    "result_emoji": Field("RESULT", ("result",), lambda job: result(job, 2)),
    **{
        name: Field(name.upper(), (name,), _raw(name, 0.0))
        for name in (
            "t_submit",
            "t_depend",
            "t_priority",
            "t_sched",
            "t_run",
            "t_cleanup",
            "t_inactive",
        )
    },
    "runtime": Field("RUNTIME", ("t_run", "t_cleanup"), runtime),
    "status": Field("STATUS", _SR, status),
    "status_abbrev": Field("ST", _SR, lambda job: status(job, 1)),
    "status_emoji": Field("STATUS", _SR, lambda job: status(job, 2)),
    "waitstatus": Field("WSTATUS", ("waitstatus",), _raw("waitstatus")),
    "returncode": Field("RC", ("waitstatus", "result"), returncode),
    **{
        f"exception.{name}": Field(
            f"EXCEPTION-{name.upper()}", (f"exception_{name}",), _raw(f"exception_{name}")
        )
        for name in ("occurred", "severity", "type", "note")
    },
    "annotations": Field("ANNOTATIONS", ("annotations",), lambda job: _json(annotation(job, ""))),
    "uri": Field("URI", ("annotations",), lambda job: uri(job)),
    "uri.local": Field("URI", ("annotations",), lambda job: _local(uri(job))),
    "dependencies": Field(
        "DEPENDENCIES", ("dependencies",), lambda job: ",".join(dependencies(job))
    ),
    "contextual_info": Field(
        "INFO",
        ("state", "dependencies", "annotations", "nodelist", "priority", "urgency"),
        contextual_info,
    ),
    "contextual_time": Field("TIME", ("state", "t_run", "t_cleanup", "duration"), contextual_time),
    "inactive_reason": Field(
        "INACTIVE-REASON",
        (
            "state",
            "result",
            "waitstatus",
            "exception_occurred",
            "exception_severity",
            "exception_type",
            "exception_note",
        ),
        inactive_reason,
    ),
}
"""Every field name of a format string but those below ``annotations``, ``sched`` and ``user``."""

_HEADINGS = {
    "sched.t_estimate": "T_ESTIMATE",
    "sched.reason_pending": "REASON",
    "sched.resource_summary": "RESOURCES",
}


COUNTED = ("nnodes", "ncores", "ngpus")
RESOURCE_STATES = ("all", "up", "down", "allocated", "free")
_STATS = (
    *("depend", "priority", "sched", "run", "cleanup", "inactive", "total"),
    *("successful", "failed", "timeout", "canceled", "pending", "running", "active"),
)


def job_counts(stats: Record) -> dict[str, int]:
    """The answer of ``job-list.stats``, flat and with the sums that people think in."""
    found = {**(stats.get("job_states") or {})}
    for name in ("successful", "failed", "timeout", "canceled"):
        found[name] = stats.get(name, 0)
    found["pending"] = sum(found.get(name, 0) for name in ("depend", "priority", "sched"))
    found["running"] = found.get("run", 0) + found.get("cleanup", 0)
    found["active"] = found["pending"] + found["running"]
    return found


def resource_counts(job: Record) -> dict[str, dict[str, int]]:
    """``{state: {nnodes, ncores, ngpus}}`` of the instance that a job is."""
    instance = job["instance"]
    if "counts" not in instance:
        from flux_mpi.client.resources import ResourceStatus

        instance["counts"] = ResourceStatus(instance["resources"]).counts()
    found: dict[str, dict[str, int]] = instance["counts"]
    return found


def _share(job: Record, what: str) -> float | str:
    counts = resource_counts(job)
    total = counts["all"][what]
    return counts["allocated"][what] / total if total else ""


def _progress(job: Record) -> float | str:
    counts = job_counts(job["instance"]["stats"])
    total = counts.get("total", 0)
    return counts.get("inactive", 0) / total if total else ""


def _stats_text(job: Record) -> str:
    counts = job_counts(job["instance"]["stats"])
    return (
        f"PD:{counts['pending']} R:{counts['running']} "
        f"CD:{counts['successful']} F:{counts['failed']}"
    )


_INSTANCE: dict[str, tuple[str, Callable[[Record], Any]]] = {
    "stats": ("STATS", _stats_text),
    "utilization": ("CORE%", lambda job: _share(job, "ncores")),
    "gpu_utilization": ("GPU%", lambda job: _share(job, "ngpus")),
    "progress": ("PROG", _progress),
}
_COUNT_HEADINGS = {"up": "UP", "down": "DOWN", "allocated": "USED", "free": "FREE"}


def _instance_field(name: str) -> Field | None:
    """A field of jobs that are instances; of others it is empty."""
    parts = name.split(".")[1:]
    get: Callable[[Record], Any]
    if len(parts) == 1 and parts[0] in _INSTANCE:
        heading, get = _INSTANCE[parts[0]]
    elif len(parts) == 2 and parts[0] == "stats" and parts[1] in _STATS:
        heading = "NJOBS" if parts[1] == "total" else parts[1].upper()
        get = lambda job: job_counts(job["instance"]["stats"]).get(parts[1], 0)  # noqa: E731
    elif (
        len(parts) == 3
        and parts[0] == "resources"
        and parts[1] in RESOURCE_STATES
        and parts[2] in COUNTED
    ):
        heading = _COUNT_HEADINGS.get(parts[1], parts[2][1:].upper())
        get = lambda job: resource_counts(job)[parts[1]][parts[2]]  # noqa: E731
    else:
        return None
    return Field(
        heading,
        ("annotations", "state", "userid", INSTANCE),
        lambda job: get(job) if "instance" in job else "",
    )


def field(name: str) -> Field | None:
    """The field called ``name``, with those of the annotations; None when there is none."""
    known = FIELDS.get(name)
    if known is not None:
        return known
    top = name.split(".", 1)[0]
    if top == "annotations":
        path = name[len("annotations.") :]
        heading = _HEADINGS.get(path, path.upper())
    elif top in ("sched", "user"):
        path = name
        heading = _HEADINGS.get(path, path.upper())
    elif top == "instance":
        return _instance_field(name)
    else:
        return None
    return Field(heading, ("annotations",), lambda job: _json(annotation(job, path)))


def _json(found: Any) -> Any:
    if isinstance(found, dict):
        if not found:
            return ""
        import json

        return json.dumps(found)
    return found


_JSON_NAMES = (
    "t_depend",
    "t_priority",
    "t_sched",
    "t_run",
    "t_cleanup",
    "t_inactive",
    "duration",
    "expiration",
    "name",
    "cwd",
    "queue",
    "project",
    "bank",
    "ntasks",
    "ncores",
    "ngpus",
    "nnodes",
    "priority",
    "ranks",
    "nodelist",
    "success",
    "waitstatus",
    "id",
    "t_submit",
    "t_remaining",
    "state",
    "result",
    "username",
    "userid",
    "urgency",
    "runtime",
    "status",
    "returncode",
)


class JobInfo:
    """A job as ``flux_mpi.jobs()`` lists it: every field is an attribute.

    >>> job.id, job.status, job.runtime, job.returncode, job.nodelist
    """

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        self.record = record

    def __getattr__(self, name: str) -> Any:
        found = FIELDS.get(name)
        if found is None:
            raise AttributeError(f"a job has no field {name!r}")
        return found.get(self.record)

    @property
    def jobid(self) -> str:
        """The id as users know it (F58)."""
        return fluid.encode(self.record["id"])

    @property
    def dependencies(self) -> list[str]:
        return dependencies(self.record)

    @property
    def uri(self) -> str:
        """Where its instance is; '' when it is none, or has not said so."""
        return uri(self.record)

    @property
    def annotations(self) -> dict[str, Any]:
        found: dict[str, Any] = self.record.get("annotations") or {}
        return found

    @property
    def exception(self) -> dict[str, Any]:
        """``{"occurred": False}``, or with severity, type and note."""
        if not self.record.get("exception_occurred"):
            return {"occurred": False}
        return {
            "occurred": True,
            "severity": self.record.get("exception_severity", 0),
            "type": self.record.get("exception_type", ""),
            "note": self.record.get("exception_note", ""),
        }

    def to_dict(self) -> dict[str, Any]:
        """What ``jobs --json`` prints: known values only."""
        found: dict[str, Any] = {}
        for name in _JSON_NAMES:
            value = FIELDS[name].get(self.record)
            unset = value == "" or (
                value == 0 and (name[:2] == "t_" or name in ("runtime", "expiration"))
            )
            if not unset:
                found[name] = value
        found["dependencies"] = self.dependencies
        found["jobid"] = self.jobid
        found["annotations"] = self.annotations
        if self.uri:
            # Said once: what an instance notes of itself is no news as an annotation.
            found["uri"] = self.uri
            user = {key: value for key, value in self.annotations["user"].items() if key != "uri"}
            found["annotations"] = {**self.annotations, "user": user}
            if not user:
                del found["annotations"]["user"]
        found["exception"] = self.exception
        return found

    def __repr__(self) -> str:
        return f"<job {self.jobid} {self.status}>"
