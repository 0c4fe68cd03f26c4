"""The ``[resource]`` table of the configuration: ranks to leave alone, and properties.

::

    [resource]
    exclude = "0"                    # idset of ranks, or hostlist
    graph = "site.graphml"           # what there is besides; read by the scheduler (`owngraph`)

    [[resource.config]]
    hosts = "node[1-8]"
    properties = ["batch", "amd"]
"""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import EMPTY, IDSet
from flux_mpi.formats.rv1 import ILLEGAL_IN_PROPERTY
from flux_mpi.resource.inventory import Inventory, ResourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class ResourceConfig(NamedTuple):
    """What the configuration says about an instance's ranks."""

    exclude: IDSet = EMPTY
    properties: dict[str, IDSet] | None = None
    """Ranks by property (RFC 31)."""


def parse_config(table: Any, hosts: Sequence[str]) -> ResourceConfig:
    """Read the ``[resource]`` table (None when there is none) for ranks on ``hosts``.

    Raises ResourceError EINVAL naming the key, what was found and what is allowed.
    """
    if table is None:
        return ResourceConfig()
    _check(table, "resource", {"exclude", "config", "graph", "graph-format"})
    inventory = Inventory(hosts)
    exclude = EMPTY
    if table.get("exclude"):
        try:
            exclude = inventory.targets(table["exclude"])
        except ResourceError as error:
            raise _wrong("resource.exclude", str(error)) from None
    entries = table.get("config", [])
    if type(entries) is not list:
        raise _wrong("resource.config", f"need an array of tables, found {entries!r}")
    properties: dict[str, IDSet] = {}
    for number, entry in enumerate(entries):
        where = f"resource.config[{number}]"
        _check(entry, where, {"hosts", "properties"})
        # Hosts that this instance was not given are no error: the file may be the cluster's.
        named = set(_hosts(entry.get("hosts"), where))
        ranks = IDSet(rank for rank, host in enumerate(hosts) if host in named)
        for name in _names(entry.get("properties", []), where):
            properties[name] = properties.get(name, EMPTY) | ranks
    return ResourceConfig(exclude, properties)


def _hosts(text: Any, where: str) -> list[str]:
    try:
        return list(Hostlist.parse(text))
    except ValueError as error:
        raise _wrong(f"{where}.hosts", str(error)) from None


def _names(names: Any, where: str) -> list[str]:
    if type(names) is not list or not all(type(name) is str and name for name in names):
        raise _wrong(f"{where}.properties", f"need an array of strings, found {names!r}")
    for name in names:
        bad = [letter for letter in name if letter in ILLEGAL_IN_PROPERTY]
        if bad:
            raise _wrong(f"{where}.properties", f"{name!r} has the illegal character {bad[0]!r}")
    return names


def _check(table: Any, where: str, allowed: set[str]) -> None:
    if type(table) is not dict:
        raise _wrong(where, f"need a table, found {table!r}")
    for key in table:
        if key not in allowed:
            raise _wrong(f"{where}.{key}", f"unknown key, allowed: {', '.join(sorted(allowed))}")


def _wrong(where: str, text: str) -> ResourceError:
    return ResourceError(errno.EINVAL, f"configuration: {where}: {text}")
