"""What the configuration says about the graph scheduler.

::

    [sched]
    match-policy = "lonode"            # Fluxion's names; default: first
    prune-filters = "ALL:core,ALL:node"
    traverser = "simple"               # or flexible

    [resource]
    graph = "site.graphml"             # a file that says more than R
    graph-format = "grug"              # default: by its content

Fluxion's own table ``[sched-fluxion-resource]`` means the same by its own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

MATCH_POLICY, PRUNE_FILTERS, TRAVERSER = "first", "ALL:core,ALL:node,ALL:gpu", "simple"

FORMATS = ("grug", "jgf", "jgf_shorthand", "rv1exec", "hwloc")
"""Of the file."""

_FLUXION = "sched-fluxion-resource"

_NAMES = {
    "match-policy": ("match-policy",),
    "prune-filters": ("prune-filters",),
    "traverser": ("traverser", "traverser-policy"),
}
"""Keys of ``[sched]``, with those of Fluxion's table that mean the same."""

_IGNORED = frozenset(
    ("load-whitelist", "load-allowlist", "match-format", "match-subsystems", "reserve-vtx-vec")
)
"""Keys of Fluxion's table that have no meaning here, or whose meaning is fixed."""


class SettingsError(ValueError):
    """The text names the key, what was found and what is allowed."""


class GraphSettings(NamedTuple):
    """``usual``: nobody asked for anything that only the graph door can do."""

    match_policy: str = MATCH_POLICY
    prune_filters: str = PRUNE_FILTERS
    traverser: str = TRAVERSER
    file: str = ""
    format: str | None = None
    key: str = "resource.graph"
    """Where the file was named."""
    kernel: str = "auto"
    """When kernels are compiled: see `tiered`."""

    @property
    def usual(self) -> bool:
        return (self.match_policy, self.traverser) == (MATCH_POLICY, TRAVERSER)


def parse(config: Mapping[str, Any]) -> GraphSettings:
    """The settings in an instance's configuration. Raises `SettingsError`."""
    sched = _table(config, "sched")
    fluxion = _table(config, _FLUXION)
    resource = _table(config, "resource")
    for key in fluxion:
        known = {name for names in _NAMES.values() for name in names}
        if key not in known | _IGNORED | {"load-file", "load-format"}:
            allowed = ", ".join(sorted(known | _IGNORED | {"load-file", "load-format"}))
            raise SettingsError(f"{_FLUXION}.{key}: found an unknown key, allowed: {allowed}")
    found: dict[str, str] = {}
    for key, names in _NAMES.items():
        for where, table, name in (
            *((_FLUXION, fluxion, name) for name in names),
            ("sched", sched, key),
        ):
            if name in table:
                found[key] = _word(table[name], f"{where}.{name}")
    policy = found.get("match-policy", MATCH_POLICY)
    traverser = found.get("traverser", TRAVERSER)
    _check_policy(policy, sched, fluxion)
    if traverser not in ("simple", "flexible"):
        key = "sched.traverser" if "traverser" in sched else f"{_FLUXION}.traverser"
        raise SettingsError(f"{key}: found {traverser!r}, allowed: simple, flexible")
    filters = found.get("prune-filters", "")
    filters = f"{PRUNE_FILTERS},{filters}" if filters else PRUNE_FILTERS
    _check_filters(filters, sched)
    file, file_key = "", "resource.graph"
    format_key, named = "resource.graph-format", resource.get("graph-format")
    if "load-file" in fluxion:
        file = _word(fluxion["load-file"], f"{_FLUXION}.load-file")
        file_key = f"{_FLUXION}.load-file"
    if "graph" in resource:
        file, file_key = _word(resource["graph"], "resource.graph"), "resource.graph"
    if named is None and "load-format" in fluxion:
        named, format_key = fluxion["load-format"], f"{_FLUXION}.load-format"
    if named is not None and named not in FORMATS:
        raise SettingsError(f"{format_key}: found {named!r}, allowed: {', '.join(FORMATS)}")
    if named is not None and not file:
        raise SettingsError(f"{format_key}: found {named!r}, allowed: nothing without a graph")
    kernel = str(sched.get("kernel", "auto"))
    return GraphSettings(policy, filters, traverser, file, named, file_key, kernel)


def _table(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = config.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{name}: found {table!r}, allowed: a table")
    return table


def _word(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{key}: found {value!r}, allowed: a string")
    return value


def _check_policy(policy: str, sched: Mapping[str, Any], fluxion: Mapping[str, Any]) -> None:
    if policy == MATCH_POLICY:
        return
    from flux_mpi.sched import policies

    try:
        policies.policy(policy)
    except ValueError as error:
        key = "sched.match-policy" if "match-policy" in sched else f"{_FLUXION}.match-policy"
        raise SettingsError(f"{key}: {error}") from None


def _check_filters(filters: str, sched: Mapping[str, Any]) -> None:
    if filters == PRUNE_FILTERS:
        return
    from flux_mpi.sched.filters import Filters

    try:
        Filters(filters)
    except ValueError as error:
        key = "sched.prune-filters" if "prune-filters" in sched else f"{_FLUXION}.prune-filters"
        raise SettingsError(f"{key}: {error}") from None
