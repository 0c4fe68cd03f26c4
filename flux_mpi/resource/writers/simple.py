"""Indented text for people: one vertex a line, deeper ones further right."""

from __future__ import annotations

from flux_mpi.resource.writers.base import Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from flux_mpi.resource.graph import ResourceGraph

_INDENT = "      "
_LEVEL = "---"


class SimpleWriter(Writer):
    """Vertices as they are emitted, children first: ``name[units:x]``, or ``s`` for shared."""

    _marks = ("s", "x")

    def __init__(self, graph: ResourceGraph) -> None:
        super().__init__(graph)
        self._lines: list[str] = []
        self._prefixes = [_INDENT]

    def vertex(
        self,
        depth: int,
        vertex: int,
        needs: int,
        exclusive: bool,
        exclusive_parent: bool,
        *,
        extra: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        prefixes = self._prefixes
        while len(prefixes) <= depth:
            prefixes.append(prefixes[-1] + _LEVEL)
        mark = self._marks[exclusive]
        self._lines.append(f"{prefixes[depth]}{self.graph.name(vertex)}[{needs}:{mark}]\n")

    def _text(self) -> str:
        return "".join(self._lines)

    def _object(self, text: str) -> object:
        return text

    def _reset(self) -> None:
        self._lines.clear()


class PrettySimpleWriter(SimpleWriter):
    """The same upside down, so that parents come first, and with whole words."""

    _marks = ("shared", "exclusive")

    def _text(self) -> str:
        return "".join(reversed(self._lines))
