"""A graph, or a part of it, with who has what: what `flux-mpi resource graph` draws. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flux_mpi.resource.graph import ResourceGraph
from flux_mpi.resource.writers import to_jgf

Claims = Iterable[tuple[str, Iterable[tuple[int, int]]]]
"""Names of jobs, each with vertices and the units of them that it has."""


class TooLarge(ValueError):
    """More vertices than may be told at once; the text says how many."""


def picture(
    graph: ResourceGraph, running: Claims, reserved: Claims, path: str | None, most: int
) -> dict[str, Any]:
    """``{graph, states}``: JGF of all, or of what is below and above the vertex with a path, and by
    vertex id the units that jobs have (``jobs``) or will have (``reserved``).

    Raises `TooLarge`, and ValueError when no vertex has the path.
    """
    kept = _part(graph, path) if path else None
    size = len(kept) if kept is not None else sum(1 for _ in graph.vertices())
    if size > most:
        raise TooLarge(
            f"{path or 'the graph'} has {size} vertices, of which at most {most} can be drawn: "
            f"name a part of it by its path, such as {_example(graph, path)}"
        )
    states: dict[str, dict[str, dict[str, int]]] = {}
    for key, claims in (("jobs", running), ("reserved", reserved)):
        for name, held in claims:
            for vertex, units in held:
                if kept is None or vertex in kept:
                    state = states.setdefault(str(graph.uniq[vertex]), {}).setdefault(key, {})
                    state[name] = state.get(name, 0) + units
    return {**to_jgf(graph, kept), "states": states}


def _above(graph: ResourceGraph, vertex: int, subsystem: str) -> set[int]:
    """What a vertex is part of."""
    found = set()
    edge = graph.parent_edge(vertex, subsystem)
    while edge is not None:
        found.add(graph.sources[edge])
        edge = graph.parent_edge(graph.sources[edge], subsystem)
    return found


def _part(graph: ResourceGraph, path: str) -> set[int]:
    """What has a path, what is below that, and what is above."""
    found = graph.find_path("/" + path.strip("/"))
    if not found:
        tops = ", ".join(f"/{graph.name(root)}" for root in graph.roots.values())
        raise ValueError(f"no vertex has the path {path[:256]!r}; paths begin with {tops}")
    kept: set[int] = set()
    for number in graph.roots:
        subsystem = graph.subsystems[number]
        for vertex in found:
            kept.update(graph.below(vertex, subsystem))
            kept |= _above(graph, vertex, subsystem)
    return kept


def _example(graph: ResourceGraph, path: str | None) -> str:
    """The path of something smaller."""
    at = graph.find_path("/" + path.strip("/"))[0] if path else graph.root()
    if at is None:
        return "/"
    children = graph.children(at)
    return graph.path(children[0] if children else at) or "/"
