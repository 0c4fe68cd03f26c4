"""The queues of an instance, as configured: who may submit what, and which policy decides (RFC 33).

::

    [policy.jobspec.defaults.system]
    duration = "1h"
    queue = "batch"

    [policy.limits]                         # of all queues, unless they say otherwise
    duration = "8h"                         # "0": unlimited
    job-size.max.nnodes = 16                # -1: unlimited

    [queues.debug]
    requires = ["debug"]                    # properties of its nodes
    policy.limits.duration = "30m"
    policy.scheduler.queue-policy = "fcfs"
    policy.scheduler.priority = 1           # served before queues of a lower one

    [queues.batch]
    requires = ["batch"]

    [queues.urgent]
    parent = "batch"                        # another name for batch, with rules of its own

    [sched-fluxion-qmanager]                # or [sched], which wins
    queue-policy = "easy"
    queue-params = "queue-depth=64"         # or a table
    policy-params.reservation-depth = 8
    queue-policy-per-queue = "batch:hybrid debug:fcfs"
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any

from flux_mpi.formats import duration
from flux_mpi.formats.rv1 import ILLEGAL_IN_PROPERTY
from flux_mpi.message.errors import FluxError
from flux_mpi.sched import plugins
from flux_mpi.sched.policy import Fcfs, Params, Policy

SIZES = ("nnodes", "ncores", "ngpus")
QMANAGER = "sched-fluxion-qmanager"
_PARAMS = {
    "queue-params": ("queue-depth", "max-queue-depth"),
    "policy-params": ("reservation-depth", "max-reservation-depth"),
}
_SCHEDULING = ("queue-policy", *_PARAMS)


@dataclass(frozen=True)
class Limits:
    """What a job may ask for. Without a limit, a maximum is infinite and a minimum 0."""

    most: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SIZES, inf))
    least: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SIZES, 0))
    duration: float = inf


@dataclass(frozen=True)
class QueueConfig:
    """One queue; the one without a name has the name ""."""

    name: str = ""
    requires: tuple[str, ...] = ()
    parent: str = ""
    limits: Limits = field(default_factory=Limits)
    default_duration: float = 0.0
    """Given to jobs that name no duration; 0: none."""
    policy: type[Policy] = Fcfs
    params: Params = field(default_factory=Params)
    priority: int = 0


@dataclass(frozen=True)
class QueueSettings:
    """All queues. Either there is one without a name, or all have names."""

    queues: dict[str, QueueConfig] = field(default_factory=lambda: {"": QueueConfig()})
    default: str = ""
    """Where jobs go that name no queue; "" among named queues: they are refused."""

    @property
    def named(self) -> bool:
        return "" not in self.queues


def parse(config: dict[str, Any]) -> QueueSettings:
    """The queues that a configuration describes. Raises FluxError EINVAL naming the key, what was
    found and what is allowed."""
    everyone = _policy(_table(config, "policy", "policy"), "policy", QueueConfig())
    everyone = _scheduling(_table(config, QMANAGER, QMANAGER), QMANAGER, everyone, ("queues",))
    everyone = _scheduling(_table(config, "sched", "sched"), "sched", everyone, None)
    system = _path(config, "policy", "jobspec", "defaults", "system")
    default = system.get("queue", "")
    tables = _table(config, "queues", "queues")
    if not tables:
        if default:
            raise _wrong(
                "policy.jobspec.defaults.system.queue", default, "no name without [queues]"
            )
        return QueueSettings({"": everyone})
    queues: dict[str, QueueConfig] = {}
    # Parents first: the others inherit from them.
    for name, entry in sorted(tables.items(), key=lambda item: _is_virtual(item[1])):
        queues[name] = _queue(name, entry, tables, queues, everyone, config)
    if default and default not in queues:
        raise _wrong(
            "policy.jobspec.defaults.system.queue", default, f"a queue: {', '.join(tables)}"
        )
    queues = {name: queues[name] for name in tables}
    return QueueSettings(queues, default or (next(iter(queues)) if len(queues) == 1 else ""))


def _is_virtual(entry: Any) -> bool:
    return isinstance(entry, dict) and "parent" in entry


def _queue(
    name: str,
    entry: Any,
    tables: dict[str, Any],
    queues: dict[str, QueueConfig],
    everyone: QueueConfig,
    config: dict[str, Any],
) -> QueueConfig:
    where = f"queues.{name}"
    _check(entry, where, ("requires", "policy", "parent"))
    own = _table(entry, "policy", f"{where}.policy")
    if "queue" in _path(own, "jobspec", "defaults", "system"):
        raise FluxError(
            errno.EINVAL,
            f"configuration: {where}.policy.jobspec.defaults.system.queue: "
            "a queue has no default queue; allowed: duration",
        )
    if "parent" in entry:
        parent = entry["parent"]
        real = [other for other in tables if not _is_virtual(tables[other])]
        if parent not in real:
            raise _wrong(f"{where}.parent", parent, f"a queue without one: {', '.join(real)}")
        for key in ("requires",):
            if key in entry:
                raise _wrong(f"{where}.{key}", entry[key], "none, for it has a parent")
        if "scheduler" in own:
            raise _wrong(f"{where}.policy.scheduler", "a table", "none, for it has a parent")
        inherited = replace(queues[parent], parent=parent)
    else:
        inherited = everyone
        for key in (QMANAGER, "sched"):
            inherited = _per_queue(_table(config, key, key), key, name, inherited, tables)
        requires = entry.get("requires", [])
        if type(requires) is not list or not all(type(each) is str and each for each in requires):
            raise _wrong(f"{where}.requires", requires, "an array of property names")
        for each in requires:
            if any(letter in ILLEGAL_IN_PROPERTY for letter in each):
                raise _wrong(
                    f"{where}.requires", each, f"a name without any of {ILLEGAL_IN_PROPERTY}"
                )
        inherited = replace(inherited, requires=tuple(requires))
    return replace(_policy(own, f"{where}.policy", inherited), name=name)


# -- tables ---------------------------------------------------------------------------------------


def _policy(table: dict[str, Any], where: str, base: QueueConfig) -> QueueConfig:
    """A ``policy`` table on top of what holds without it."""
    _check(table, where, ("jobspec", "limits", "scheduler"))
    jobspec = _table(table, "jobspec", f"{where}.jobspec")
    _check(jobspec, f"{where}.jobspec", ("defaults",))
    defaults = _table(jobspec, "defaults", f"{where}.jobspec.defaults")
    _check(defaults, f"{where}.jobspec.defaults", ("system",))
    system = _table(defaults, "system", f"{where}.jobspec.defaults.system")
    _check(system, f"{where}.jobspec.defaults.system", ("duration", "queue"))
    if not isinstance(system.get("queue", ""), str):
        raise _wrong(f"{where}.jobspec.defaults.system.queue", system["queue"], "a name")
    standard = base.default_duration
    if "duration" in system:
        standard = _seconds(system["duration"], f"{where}.jobspec.defaults.system.duration")
        standard = 0.0 if standard == inf else standard
    limits = _limits(_table(table, "limits", f"{where}.limits"), f"{where}.limits", base.limits)
    found = replace(base, limits=limits, default_duration=standard)
    scheduler = _table(table, "scheduler", f"{where}.scheduler")
    return _scheduling(scheduler, f"{where}.scheduler", found, ("priority",), strict=True)


def _limits(table: dict[str, Any], where: str, base: Limits) -> Limits:
    _check(table, where, ("duration", "job-size"))
    longest = base.duration
    if "duration" in table:
        longest = _seconds(table["duration"], f"{where}.duration") or inf
    sizes = _table(table, "job-size", f"{where}.job-size")
    _check(sizes, f"{where}.job-size", ("max", "min"))
    found = {}
    for kind, before, unlimited in (("max", base.most, inf), ("min", base.least, 0)):
        at = f"{where}.job-size.{kind}"
        bounds = _table(sizes, kind, at)
        _check(bounds, at, SIZES)
        found[kind] = dict(before)
        for key, value in bounds.items():
            if type(value) is not int or value < -1:
                raise _wrong(f"{at}.{key}", value, "a number of at least 0, or -1 for no limit")
            found[kind][key] = unlimited if value == -1 else value
    return Limits(found["max"], found["min"], longest)


def _scheduling(
    table: dict[str, Any],
    where: str,
    base: QueueConfig,
    others: tuple[str, ...] | None,
    *,
    strict: bool = False,
) -> QueueConfig:
    """``queue-policy`` and its parameters; ``others``: keys allowed besides (None: any)."""
    if others is not None:
        per_queue = () if strict else tuple(f"{key}-per-queue" for key in _SCHEDULING)
        _check(table, where, (*_SCHEDULING, *others, *per_queue))
    else:
        # Other keys are the scheduler's; but what looks like one of these is a slip.
        known = (*_SCHEDULING, *(f"{key}-per-queue" for key in _SCHEDULING))
        ours = {key: None for key in table if str(key).startswith(("queue-", "policy-"))}
        _check(ours, where, known)
    found = base
    if "queue-policy" in table:
        found = replace(found, policy=_policy_class(table["queue-policy"], f"{where}.queue-policy"))
    for key in _PARAMS:
        if key in table:
            found = replace(found, params=_params(table[key], key, f"{where}.{key}", found.params))
    if "priority" in table and strict:
        if type(table["priority"]) is not int:
            raise _wrong(f"{where}.priority", table["priority"], "a whole number")
        found = replace(found, priority=table["priority"])
    return found


def _per_queue(
    table: dict[str, Any],
    where: str,
    name: str,
    base: QueueConfig,
    tables: dict[str, Any],
) -> QueueConfig:
    """What ``queue-policy-per-queue = "NAME:VALUE …"`` and its like say of one queue."""
    found = base
    for key in _SCHEDULING:
        at = f"{where}.{key}-per-queue"
        text = table.get(f"{key}-per-queue", "")
        if not isinstance(text, str):
            raise _wrong(at, text, "NAME:VALUE, several separated by spaces")
        for word in text.split():
            queue, colon, value = word.partition(":")
            if not colon or queue not in tables:
                raise _wrong(at, word, f"QUEUE:VALUE with a queue of {', '.join(tables)}")
            if queue != name:
                continue
            if key == "queue-policy":
                found = replace(found, policy=_policy_class(value, at))
            else:
                found = replace(found, params=_params(value, key, at, found.params))
    return found


def _policy_class(name: Any, where: str) -> type[Policy]:
    try:
        return plugins.policy(name, where)
    except plugins.PluginError as error:
        raise FluxError(errno.EINVAL, f"configuration: {error}") from None


def _params(value: Any, kind: str, where: str, base: Params) -> Params:
    """Parameters as a table, or as ``"key=value,key=value"``."""
    if isinstance(value, str):
        pairs = [word.partition("=") for word in value.split(",") if word.strip()]
        value = {key.strip(): text.strip() for key, _, text in pairs}
    if not isinstance(value, dict):
        raise _wrong(where, value, "a table, or text such as queue-depth=32")
    _check(value, where, _PARAMS[kind])
    changed: dict[str, int] = {}
    known = {each.name for each in fields(Params)}
    for key, text in value.items():
        number = int(text) if isinstance(text, str) and text.isdecimal() else text
        if type(number) is not int or number < 1:
            raise _wrong(f"{where}.{key}", text, "a number of at least 1")
        name = key.replace("-", "_")
        assert name in known
        changed[name] = number
    return replace(base, **changed)


# -- little helpers -------------------------------------------------------------------------------


def _table(within: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """The table at ``key``, empty if there is none."""
    table = within.get(key, {})
    if not isinstance(table, dict):
        raise _wrong(where, table, "a table")
    return table


def _path(table: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A table within tables that have been checked."""
    for key in keys:
        table = table.get(key, {})
    return table


def _check(table: Any, where: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(table, dict):
        raise _wrong(where, table, "a table")
    for key in table:
        if key not in allowed:
            raise FluxError(
                errno.EINVAL,
                f"configuration: {where}.{key}: unknown key, allowed: {', '.join(allowed)}",
            )


def _seconds(value: Any, where: str) -> float:
    try:
        return duration.parse(value)
    except ValueError:
        raise _wrong(where, value, "a duration such as 30m or 1.5h") from None


def _wrong(where: str, found: Any, allowed: str) -> FluxError:
    text = repr(found)
    if len(text) > 64:
        text = text[:61] + "..."
    return FluxError(errno.EINVAL, f"configuration: {where}: found {text}, allowed: {allowed}")
