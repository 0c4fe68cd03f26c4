"""Schedulers and queue policies by name: ours, and those of installed packages.

A package offers a scheduler under the entry point group ``flux_mpi.schedulers``: something that,
called with the instance's ``[sched]`` table, returns a `Scheduler`; and a queue policy under
``flux_mpi.queue_policies``: a subclass of `Policy`. Ours win over others of the same name, and
other packages are only looked for when a name is none of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flux_mpi.sched import policy as policies
from flux_mpi.sched.base import Scheduler
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.policy import Policy
from flux_mpi.sched.tiered import Tier

SCHEDULERS, POLICIES = "flux_mpi.schedulers", "flux_mpi.queue_policies"

Maker = Callable[[Mapping[str, Any]], Scheduler]


class PluginError(ValueError):
    """There is no such plug-in, or it is not what it should be."""


def graph(config: Mapping[str, Any], instance: Mapping[str, Any] | None = None) -> Scheduler:
    """The scheduler of graphs, and of nodes, cores and GPUs without one; see `settings`."""
    from flux_mpi.sched import settings
    from flux_mpi.sched.graph import GraphScheduler

    tier = Tier(str(config.get("kernel", "auto")))
    found = settings.parse({**(instance or {}), "sched": config})
    if not found.file:
        return GraphScheduler(found, None, tier)
    from flux_mpi.resource import owngraph

    try:
        source = owngraph.read(found.file, found.format)
    except owngraph.OwnGraphError as error:
        raise settings.SettingsError(f"{found.key}: {error}") from None
    return GraphScheduler(found, source, tier)


def bitmap(config: Mapping[str, Any]) -> Scheduler:
    """The scheduler of nodes, cores and GPUs; ``sched.kernel``: see `Tier`."""
    return BitmapScheduler(Tier(str(config.get("kernel", "auto"))))


BUILT_IN: dict[str, Maker] = {"graph": graph, "bitmap": bitmap}

DEFAULT = "graph"


def scheduler(config: Mapping[str, Any], instance: Mapping[str, Any] | None = None) -> Scheduler:
    """The scheduler that ``sched.scheduler`` names. ``config`` is the table ``[sched]``, and
    ``instance`` all of the configuration. Raises PluginError."""
    name = config.get("scheduler", DEFAULT)
    make = BUILT_IN.get(name) if isinstance(name, str) else None
    if make is None:
        make = _load("sched.scheduler", name, SCHEDULERS, BUILT_IN)
    try:
        made = graph(config, instance) if make is graph else make(config)
    except ValueError as error:
        raise PluginError(str(error) if _names_key(error) else f"sched: {error}") from None
    if not isinstance(made, Scheduler):
        raise PluginError(
            f"sched.scheduler: {name!r} makes a {type(made).__name__}, which is no Scheduler"
        )
    return made


def _names_key(error: ValueError) -> bool:
    from flux_mpi.sched.settings import SettingsError

    return isinstance(error, SettingsError)


def policy(name: Any, key: str) -> type[Policy]:
    """The queue policy of that name; ``key`` is where it was configured. Raises PluginError."""
    found = policies.BUILT_IN.get(name) if isinstance(name, str) else None
    if found is None:
        found = _load(key, name, POLICIES, policies.BUILT_IN)
        if not (isinstance(found, type) and issubclass(found, Policy)):
            raise PluginError(f"{key}: {name!r} is no queue policy, but {found!r}"[:200])
    return found


def _load(key: str, name: Any, group: str, known: Mapping[str, Any]) -> Any:
    # Not needed by an instance that uses what is built in, and slow to import.
    from importlib.metadata import entry_points

    offered = entry_points(group=group)
    for entry in offered:
        if entry.name == name:
            try:
                return entry.load()
            except Exception as error:  # whatever it is, it is the plug-in's and must be named
                raise PluginError(f"{key}: {name!r} ({entry.value}): {error}") from error
    allowed = ", ".join(sorted({*known, *offered.names}))
    raise PluginError(f"{key}: found {name!r}, allowed: {allowed}")
