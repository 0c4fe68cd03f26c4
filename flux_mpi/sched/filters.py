"""Pruning filters: which types of resources each type of vertex keeps count of below it.

``ALL:core,cluster:node`` keeps cores in mind everywhere and nodes at the cluster. The root's type
("cluster") always counts the types of all leaves as well.
"""

from __future__ import annotations

from collections.abc import Iterable

from flux_mpi.resource.graph import Names

ANY = "*"


class Filters:
    """What is counted where. Raises ValueError for a specification that makes no sense."""

    def __init__(self, specification: str) -> None:
        self._anchors: dict[str, set[str]] = {}
        self.types: dict[str, int] = {}
        """Every type that is counted anywhere, to its column."""
        for pair in specification.split(","):
            high, colon, low = pair.partition(":")
            high, low = "".join(high.split()), "".join(low.split())
            if not colon or not high or not low:
                raise ValueError(
                    f"prune filters: expected HIGH:LOW pairs such as ALL:core, found {pair[:60]!r}"
                )
            self.add(ANY if high == "ALL" else high, low)

    def add(self, anchor: str, counted: str) -> None:
        """Let vertices of type ``anchor`` (or ANY) count what is of type ``counted``."""
        everywhere = self._anchors.get(ANY, set())
        if anchor == ANY:
            for types in self._anchors.values():
                types.discard(counted)
            self._anchors.setdefault(ANY, set()).add(counted)
        elif counted not in everywhere:
            self._anchors.setdefault(anchor, set()).add(counted)
        self.types.setdefault(counted, len(self.types))

    def add_leaves(self, types: Iterable[str]) -> None:
        """Types of vertices with nothing below them."""
        for type in types:
            if type not in self.types:
                self.add("cluster", type)

    def at(self, anchor: str, names: Names) -> list[str]:
        """What vertices of a type count, in the order that counts when the last one decides."""

        def place(type: str) -> int:
            number = names.find(type)  # types that the graph lacks come last
            return number if number >= 0 else len(names) + self.types[type]

        found = sorted(self._anchors.get(anchor, ()), key=place)
        return found + [
            type for type in sorted(self._anchors.get(ANY, ()), key=place) if type != anchor
        ]
