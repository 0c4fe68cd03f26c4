"""Match policies: what makes one candidate better than another.

A policy gives each vertex a score, and says how scores compare: among what lies below a vertex,
within a slot, and over the whole graph. Known by name, or as text like
``policy=low node_centric=true``; a package adds its own with an entry point of the group
``flux_mpi.match_policies`` that loads a `MatchPolicy` or a callable that returns one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import NamedTuple

from flux_mpi.resource.graph import V_PARENT, V_TYPE, V_WIDTH, ResourceGraph
from flux_mpi.sched.scalars import ORDER_GREATER, ORDER_INTERVAL, ORDER_LESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Score = Callable[[ResourceGraph, str], "array[int]"]
"""Scores of all vertices (64 bits each, above zero) of a graph walked by a subsystem."""

ENTRY_POINTS = "flux_mpi.match_policies"

NODE_FACTOR = 10_000
"""What makes a node's id outweigh the ids of what is in it."""

MANY = 4096
"""From so many vertices on NumPy is worth loading."""

WORST_CLASS = 9999
"""Performance class of vertices without one."""


def by_id(graph: ResourceGraph, subsystem: str) -> array[int]:
    """A vertex counts by its own id."""
    if graph.n_vertices > MANY:
        import numpy as np

        return array("q", (np.frombuffer(graph.ids, dtype="q") + 2).tobytes())
    return array("q", [id + 2 for id in graph.ids])


def by_node(graph: ResourceGraph, subsystem: str) -> array[int]:
    """What is in a node counts by the node's id first, then by its own."""
    if graph.n_vertices > MANY:
        return _by_node_at_once(graph)
    scores = by_id(graph, subsystem)
    node = graph.types.find("node")
    v = graph.v
    for vertex in range(graph.n_vertices):
        if v[vertex * V_WIDTH + V_TYPE] != node or not graph.alive(vertex):
            continue
        tie = abs(graph.uniq[vertex] % NODE_FACTOR - 1)
        factor = (graph.ids[vertex] + 2) * NODE_FACTOR + tie
        for below in graph.below(vertex, subsystem):
            if below != vertex:
                scores[below] += factor
    return scores


def _by_node_at_once(graph: ResourceGraph) -> array[int]:
    """`by_node` of many vertices, by NumPy, along the edges that V_PARENT gives."""
    import numpy as np

    v = np.frombuffer(graph.v, dtype="i").reshape(-1, V_WIDTH)
    ids = np.frombuffer(graph.ids, dtype="q")
    uniq = np.frombuffer(graph.uniq, dtype="q")
    nodes = np.flatnonzero(v[:, V_TYPE] == graph.types.find("node"))
    own = np.zeros(len(ids), dtype="q")
    own[nodes] = (ids[nodes] + 2) * NODE_FACTOR + np.abs(uniq[nodes] % NODE_FACTOR - 1)
    edges = v[:, V_PARENT]
    parents = np.where(edges >= 0, np.frombuffer(graph.sources, dtype="i")[edges], -1)
    scores = ids + 2
    below = np.flatnonzero(parents >= 0)
    above = parents[below]
    while len(below):
        scores[below] += own[above]
        above = parents[above]
        inside = above >= 0
        below, above = below[inside], above[inside]
    return array("q", scores.tobytes())


def by_class(graph: ResourceGraph, subsystem: str) -> array[int]:
    """A vertex counts by its property ``perf_class``, 0 to 9999."""
    scores = array("q", [1 + WORST_CLASS]) * graph.n_vertices
    for vertex, properties in graph.properties.items():
        if "perf_class" in properties:
            scores[vertex] = 1 + _leading_int(properties["perf_class"])
    return scores


def _leading_int(text: str) -> int:
    digits = text.strip()
    sign = digits[:1] in ("+", "-")
    end = int(sign)
    while end < len(digits) and digits[end].isdigit() and digits[end].isascii():
        end += 1
    if end == int(sign) or end > 12:
        return WORST_CLASS
    value = int(digits[:end])
    return value if 0 <= value <= WORST_CLASS else WORST_CLASS


class MatchPolicy(NamedTuple):
    """One policy. ``first`` stops a search as soon as enough is found, most available parts first;
    ``volatile`` scores depend on properties and are made anew for each match."""

    scores: Score = by_id
    vertex_order: int = ORDER_GREATER
    graph_order: int = ORDER_GREATER
    slot_order: int = ORDER_GREATER
    first: bool = False
    volatile: bool = False
    node_centric: bool = False
    whole_types: frozenset[str] = frozenset()
    """Types of which each vertex is taken with all that is below it."""


def _ranked(order: int, **options: bool) -> MatchPolicy:
    node_centric = options.get("node_centric", False)
    return MatchPolicy(
        by_node if node_centric else by_id,
        order,
        order,
        order,
        first=options.get("stop_on_1_matches", False),
        node_centric=node_centric,
        whole_types=frozenset({"node"}) if options.get("node_exclusive") else frozenset(),
    )


_NAMED = {
    "first": "policy=high node_centric=true stop_on_1_matches=true",
    "firstnode": "policy=high node_centric=true stop_on_1_matches=true",
    "firstnodex": "policy=high node_centric=true node_exclusive=true stop_on_1_matches=true",
    "high": "policy=high",
    "low": "policy=low",
    "lonode": "policy=low node_centric=true",
    "hinode": "policy=high node_centric=true",
    "lonodex": "policy=low node_centric=true node_exclusive=true",
    "hinodex": "policy=high node_centric=true node_exclusive=true",
}

_SINGLE = {
    "locality": MatchPolicy(graph_order=ORDER_INTERVAL),
    "variation": MatchPolicy(by_class, ORDER_LESS, ORDER_LESS, ORDER_GREATER, volatile=True),
}

_FLAGS = ("node_centric", "node_exclusive", "stop_on_1_matches")


def names() -> list[str]:
    """The policies that have a name, plug-ins included."""
    return sorted({*_NAMED, *_SINGLE, *_plugins()})


def policy(text: str) -> MatchPolicy:
    """The policy of a name or of ``key=value`` options.

    Raises ValueError naming what was found and what is allowed.
    """
    if text in _SINGLE:
        return _SINGLE[text]
    if text in _NAMED:
        return _custom(_NAMED[text])
    if "=" in text:
        return _custom(text)
    plugin = _plugins().get(text)
    if plugin is None:
        raise ValueError(
            f"match policy: expected one of {', '.join(names())}, or options such as "
            f"'policy=low node_centric=true', found {text[:80]!r}"
        )
    try:
        found = plugin.load()
    except Exception as error:  # whatever it is, it is the plug-in's and must be named
        raise ValueError(f"match policy {text} ({plugin.value}): {error}") from error
    found = found if isinstance(found, MatchPolicy) else found()
    if not isinstance(found, MatchPolicy):
        raise ValueError(
            f"match policy {text}: expected the entry point {plugin.value} to give a MatchPolicy, "
            f"found {type(found).__name__}"
        )
    return found


def _custom(text: str) -> MatchPolicy:
    order: int | None = None
    flags: dict[str, bool] = {}
    for option in text.split():
        key, equals, value = option.partition("=")
        if key == "policy" and value in ("high", "low"):
            order = ORDER_GREATER if value == "high" else ORDER_LESS
        elif key == "policy":
            raise ValueError(f"match policy: policy: expected high or low, found {value[:40]!r}")
        elif key not in _FLAGS:
            allowed = ", ".join(("policy", *_FLAGS))
            raise ValueError(f"match policy: expected options {allowed}, found {key[:40]!r}")
        elif value not in ("true", "false"):
            raise ValueError(
                f"match policy: {key}: expected true or false, found "
                f"{value[:40]!r}" + ("" if equals else " (no value)")
            )
        else:
            flags[key] = value == "true"
    if order is None:
        raise ValueError(f"match policy: expected policy=high or policy=low, found {text[:80]!r}")
    return _ranked(order, **flags)


def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
