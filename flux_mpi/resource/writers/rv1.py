"""R of version 1 (RFC 20), with and without the graph that Fluxion adds to it (RFC 40)."""

from __future__ import annotations

from flux_mpi.resource.writers.base import Writer
from flux_mpi.resource.writers.jgf import JgfShorthandWriter, JgfWriter
from flux_mpi.resource.writers.rlite import RliteWriter
from flux_mpi.resource.writers.text import json_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from flux_mpi.resource.graph import ResourceGraph


class Rv1NoschedWriter(RliteWriter):
    """R with the keys ``version`` and ``execution`` only."""

    def __init__(self, graph: ResourceGraph) -> None:
        super().__init__(graph)
        self._start = 0
        self._end = 0

    def times(self, start: int, end: int) -> None:
        self._start, self._end = start, end

    def execution(self) -> str:
        text = super().execution()
        return f'{text}, "starttime": {self._start}, "expiration": {self._end}}}'

    def _text(self) -> str:
        return "" if self.empty else f'{{"version": 1, "execution": {self.execution()}}}\n'

    def _reset(self) -> None:
        super()._reset()
        self._start = self._end = 0


class Rv1Writer(Writer):
    """R with the selection as a graph under ``scheduling``, and ``attributes`` if there are any.

    Attributes are told with the request that they came with, and with no later one.
    """

    def __init__(self, graph: ResourceGraph) -> None:
        super().__init__(graph)
        self._execution = Rv1NoschedWriter(graph)
        self._scheduling = self._create_jgf(graph)
        self._attributes: dict[str, str] = {}

    def _create_jgf(self, graph: ResourceGraph) -> JgfWriter:
        return JgfWriter(graph)

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
        self._execution.take(vertex)
        self._scheduling.vertex(
            depth, vertex, needs, exclusive, exclusive_parent, extra=extra, labels=labels
        )

    def edge(self, depth: int, edge: int, exclusive_parent: bool) -> None:
        self._scheduling.edge(depth, edge, exclusive_parent)

    def times(self, start: int, end: int) -> None:
        self._execution.times(start, end)

    def attribute(self, key: str, value: str) -> None:
        self._attributes[key] = value

    def _text(self) -> str:
        if self._execution.empty or self._scheduling.empty:
            return ""
        text = (
            f'{{"version": 1, "execution": {self._execution.execution()}, '
            f'"scheduling": {self._scheduling.body()}'
        )
        if self._attributes:
            words = json_object(self._attributes)
            text = f'{text}, "attributes": {{"system": {{"scheduler": {words}}}}}'
        return f"{text}}}\n"

    def _reset(self) -> None:
        self._execution._reset()
        self._scheduling._reset()
        self._attributes.clear()


class Rv1ShorthandWriter(Rv1Writer):
    """The same with what lies below a whole vertex left out of ``scheduling``."""

    def _create_jgf(self, graph: ResourceGraph) -> JgfWriter:
        return JgfShorthandWriter(graph)
