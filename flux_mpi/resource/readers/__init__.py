"""Readers of resource graphs: GRUG recipes, JGF and its shorthand, R version 1, hwloc XML.

What they accept, and the vertices and edges that they make in which order, are Fluxion's. Every
file is checked as a whole: an error leaves nothing behind.
"""

from __future__ import annotations

from flux_mpi.resource.graph import ResourceGraph
from flux_mpi.resource.readers.changes import Allocation, Release
from flux_mpi.resource.readers.errors import ReaderError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

__all__ = [
    "FORMATS",
    "Allocation",
    "ReaderError",
    "Release",
    "attach",
    "load",
    "read_allocation",
    "read_release",
]

FORMATS = ("grug", "hwloc", "jgf", "jgf_shorthand", "rv1exec", "rv1exec_force")
"""The formats that `load` knows."""

_JGF = ("jgf", "jgf_shorthand")
_RV1 = ("rv1exec", "rv1exec_force")


def load(
    text: str, format: str, *, allowlist: Container[str] | None = None, rank: int = -1
) -> ResourceGraph:
    """The graph that ``text`` describes, frozen.

    ``allowlist``: the types to keep (hwloc; other formats have no such choice and ignore it).
    ``rank``: the rank that all vertices of an hwloc topology get, -1 to number its nodes from 0.
    Raises `ReaderError`.
    """
    if format == "grug":
        from flux_mpi.resource.readers import grug

        return grug.load(text)
    if format in _JGF:
        from flux_mpi.resource.readers import jgf

        if rank != -1:
            raise ReaderError(f"{format}: rank: expected -1, found {rank}: a vertex says its own")
        return jgf.load(text, format)
    if format in _RV1:
        from flux_mpi.resource.readers import rv1exec

        return rv1exec.load(text, format)
    if format == "hwloc":
        from flux_mpi.resource.readers import hwloc

        return hwloc.load(text, allowlist=allowlist, rank=rank)
    raise _unknown(format, FORMATS)


def attach(graph: ResourceGraph, text: str, format: str) -> list[int]:
    """Grow ``graph`` by the vertices of ``text`` that it has not, with their edges; freezes it.

    A vertex is in the graph already when one of its paths is, with the same rank. Returns the new
    vertices. Raises `ReaderError`, and then the graph is what it was.
    """
    if format in _JGF:
        from flux_mpi.resource.readers import jgf

        return jgf.attach(graph, text, format)
    raise _unknown(format, _JGF, "attach ")


def read_allocation(graph: ResourceGraph, text: str, format: str) -> Allocation:
    """The resources of ``graph`` that ``text`` gives to a job; raises `ReaderError`."""
    if format == "jgf":
        from flux_mpi.resource.readers import jgf

        return jgf.read_allocation(graph, text)
    if format == "jgf_shorthand":
        from flux_mpi.resource.readers import jgf_shorthand

        return jgf_shorthand.read_allocation(graph, text)
    if format in _RV1:
        from flux_mpi.resource.readers import rv1exec

        return rv1exec.read_allocation(graph, text, format)
    raise _unknown(format, _JGF + _RV1, "update ")


def read_release(graph: ResourceGraph, text: str, format: str) -> Release:
    """The resources of ``graph`` that a job gives back by ``text``; raises `ReaderError`."""
    if format == "jgf":
        from flux_mpi.resource.readers import jgf

        return jgf.read_release(graph, text)
    if format == "jgf_shorthand":
        from flux_mpi.resource.readers import jgf_shorthand

        return jgf_shorthand.read_release(graph, text)
    if format in _RV1:
        from flux_mpi.resource.readers import rv1exec

        return rv1exec.read_release(text, format)
    raise _unknown(format, _JGF + _RV1, "partial-cancel ")


def _unknown(format: str, known: tuple[str, ...], what: str = "") -> ReaderError:
    return ReaderError(f"{what}format: expected one of {', '.join(known)}, found {shown(format)}")
