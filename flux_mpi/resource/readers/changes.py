"""What a reader learns about a graph that it does not change: an allocation, or a release.

Written out rather than made by `dataclasses`, whose import a short command would pay for.
"""

from __future__ import annotations


class Allocation:
    """Resources that a job is given by a file (an update).

    * ``vertices``: ``(vertex, needs, exclusive)`` in the order of the file: an exclusive one gets
      a span of ``needs`` units, any other is only walked through and must be wholly free
    * ``edges``: ``(edge, needs, exclusive)``: the edges that the walk must follow
    * ``root``: needs and exclusive of the root of the containment hierarchy; ``(0, False)`` when
      no edge of the file leaves it, and then there is nothing to walk
    * ``roots``: the same for the root of each subsystem that has an edge in the file
    """

    __slots__ = ("edges", "root", "roots", "vertices")

    def __init__(
        self,
        vertices: list[tuple[int, int, bool]] | None = None,
        edges: list[tuple[int, int, bool]] | None = None,
        root: tuple[int, bool] = (0, False),
        roots: dict[str, tuple[int, bool]] | None = None,
    ) -> None:
        self.vertices = vertices if vertices is not None else []
        self.edges = edges if edges is not None else []
        self.root = root
        self.roots = roots if roots is not None else {}

    def __repr__(self) -> str:
        return f"Allocation({self.vertices!r}, {self.edges!r}, {self.root!r}, {self.roots!r})"


class Release:
    """Resources that a job gives back before its end (a partial cancel).

    * ``vertices``: those whose spans are released, in the order of the file (JGF)
    * ``ranks``: the ranks that give back everything (R), or that `vertices` belong to (JGF)
    """

    __slots__ = ("ranks", "vertices")

    def __init__(self, vertices: list[int] | None = None, ranks: set[int] | None = None) -> None:
        self.vertices = vertices if vertices is not None else []
        self.ranks = ranks if ranks is not None else set()

    def __repr__(self) -> str:
        return f"Release({self.vertices!r}, {self.ranks!r})"
