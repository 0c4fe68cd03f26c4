"""Paths of vertices: those that a file gives, and the vertex that a path means."""

from __future__ import annotations

from flux_mpi.resource.graph import ResourceGraph

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def settle(graph: ResourceGraph, wanted: list[tuple[int, str, str]]) -> None:
    """Let each ``(vertex, subsystem, path)`` be so, where the edges of a frozen graph say other.

    A path that is set changes those that follow from it below, hence the repetition.
    """
    again = True
    while again:
        again = False
        for vertex, subsystem, path in wanted:
            if graph.path(vertex, subsystem) != path:
                graph.set_path(vertex, subsystem, path)
                again = True


class Finder:
    """Finds vertices of a frozen graph by path, remembering what it met on the way."""

    def __init__(self, graph: ResourceGraph) -> None:
        self._graph = graph
        self._found: dict[tuple[str, str], list[int]] = {}
        self._below: dict[tuple[str, int], dict[str, list[int]]] = {}

    def find(self, path: str, rank: int, fits: Callable[[int], bool] | None = None) -> int:
        """The (first) vertex with this path in some subsystem, and this rank; -1: none.

        With ``fits``, the first for which that is true.
        """
        graph = self._graph
        for number in graph.roots:
            subsystem = graph.subsystems[number]
            for vertex in self._by_edges(path, subsystem):
                if (
                    graph.ranks[vertex] == rank
                    and graph.path(vertex, subsystem) == path
                    and (fits is None or fits(vertex))
                ):
                    return vertex
        # A path that a file gives need not be what the edges say.
        for vertex in graph.find_path(path):
            if graph.ranks[vertex] == rank and (fits is None or fits(vertex)):
                return vertex
        return -1

    def _by_edges(self, path: str, subsystem: str) -> list[int]:
        known = self._found.get((subsystem, path))
        if known is not None:
            return known
        above, slash, name = path.rpartition("/")
        found: list[int] = []
        if slash and not above:
            root = self._graph.root(subsystem)
            if root is not None and self._graph.name(root) == name:
                found = [root]
        elif slash:
            # Parents first, without recursion: a path may have thousands of names.
            missing = [path]
            while above and (subsystem, above) not in self._found and above.rpartition("/")[0]:
                missing.append(above)
                above = above.rpartition("/")[0]
            for part in reversed(missing):
                above, _slash, name = part.rpartition("/")
                parents = (
                    self._found[subsystem, above]
                    if (subsystem, above) in self._found
                    else self._by_edges(above, subsystem)
                )
                found = [v for x in parents for v in self._children(subsystem, x).get(name, ())]
                self._found[subsystem, part] = found
        self._found[subsystem, path] = found
        return found

    def _children(self, subsystem: str, vertex: int) -> dict[str, list[int]]:
        known = self._below.get((subsystem, vertex))
        if known is None:
            known = self._below[subsystem, vertex] = {}
            for child in self._graph.children(vertex, subsystem):
                known.setdefault(self._graph.name(child), []).append(child)
        return known
