"""Paths of the vertices that a GRUG recipe generates, without a string for each of a million."""

from __future__ import annotations

from bisect import bisect_right

from flux_mpi.resource.graph import ResourceGraph

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Run:
    """Vertices made by one MULTIPLY: ``scale`` below each of ``sources``, with as many edges.

    Vertex ``first + k`` hangs from ``sources[k // scale]`` by edge ``edge + k``.
    """

    __slots__ = ("edge", "first", "scale", "sources", "subsystem")

    def __init__(
        self, first: int, edge: int, sources: Sequence[int], scale: int, subsystem: str
    ) -> None:
        self.first = first
        self.edge = edge
        self.sources = sources
        self.scale = scale
        self.subsystem = subsystem

    def __len__(self) -> int:
        return len(self.sources) * self.scale


class GeneratedPaths:
    """The path of each vertex in each subsystem.

    A vertex gets the path of its source, as that is when it is made, with its name behind it. An
    association gives its target another path, whereupon what hangs from it keeps the old one: as
    long as that has not happened, paths need not be kept, as they can be told from the runs.
    """

    def __init__(self, graph: ResourceGraph, *, all_told: bool) -> None:
        self._graph = graph
        self._runs: list[Run] = []
        self._told: dict[str, dict[int, str]] = {}
        # What others' paths were made from; of the vertices that have a path only in `_told`.
        self._sources: dict[str, set[int]] = {}
        self._all_told = all_told

    def add_root(self, subsystem: str, vertex: int) -> None:
        """A root was made."""
        self._told.setdefault(subsystem, {})[vertex] = f"/{self._graph.name(vertex)}"
        self._sources.setdefault(subsystem, set()).add(vertex)

    def add_run(self, run: Run) -> None:
        """Vertices were made."""
        self._runs.append(run)
        if self._all_told:
            self._tell(run)
        elif not isinstance(run.sources, range):
            self._sources.setdefault(run.subsystem, set()).update(run.sources)

    def _run_of(self, vertex: int) -> Run | None:
        at = bisect_right(self._runs, vertex, key=lambda run: run.first) - 1
        if at >= 0 and vertex - self._runs[at].first < len(self._runs[at]):
            return self._runs[at]
        return None

    def first_edge(self, source: int, target: int) -> int | None:
        """The edge between them with which ``target`` was made."""
        run = self._run_of(target)
        if run is None or run.sources[(target - run.first) // run.scale] != source:
            return None
        return run.edge + target - run.first

    def get(self, subsystem: str, vertex: int) -> str:
        """The path, "" when there is none."""
        told = self._told.get(subsystem, {})
        if self._all_told:
            return told.get(vertex, "")
        names: list[str] = []
        at = vertex
        while at not in told:
            run = self._run_of(at)
            if run is None or run.subsystem != subsystem:
                break
            names.append(f"/{self._graph.name(at)}")
            at = run.sources[(at - run.first) // run.scale]
        return told.get(at, "") + "".join(reversed(names))

    def redirect(self, subsystem: str, vertex: int, path: str) -> None:
        """Give a vertex another path."""
        if not self._all_told:
            run = self._run_of(vertex)
            made_here = run is not None and run.subsystem == subsystem
            if made_here or vertex in self._sources.get(subsystem, ()):
                self.tell_all()
        self._told.setdefault(subsystem, {})[vertex] = path

    def tell_all(self) -> None:
        """From now on, keep the path of each vertex, whatever edges and other paths become."""
        if self._all_told:
            return
        self._all_told = True
        for run in self._runs:
            self._tell(run)

    def _tell(self, run: Run) -> None:
        told = self._told.setdefault(run.subsystem, {})
        name, first, scale = self._graph.name, run.first, run.scale
        for k in range(len(run)):
            # Not one that was redirected already, which is an association's doing.
            if first + k not in told:
                above = told.get(run.sources[k // scale], "")
                told[first + k] = f"{above}/{name(first + k)}"

    def told(self) -> list[tuple[int, str, str]]:
        """``(vertex, subsystem, path)`` of each that the edges may not tell."""
        return [
            (vertex, subsystem, path)
            for subsystem, paths in self._told.items()
            for vertex, path in paths.items()
        ]


def prefix(path: str, up: int) -> str:
    """``path`` without its last ``up`` names, with a slash at its end; "" if it has no more."""
    if up >= path.count("/"):
        return ""
    if up <= 0:
        return path if path.endswith("/") else path + "/"
    return path.rsplit("/", up)[0] + "/"
