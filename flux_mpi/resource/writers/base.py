"""What each writer of a selection offers to the walk that emits it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence

    from flux_mpi.resource.graph import ResourceGraph

EXCLUSIVE, EXCLUSIVE_PARENT = 1, 2
"""Bits of the flags that `Writer.replay` takes."""


class WriterError(ValueError):
    """A selection that the format cannot express: the text says which vertex and why."""


class Writer(ABC):
    """Takes what a walk emits, then tells it all at once; good for one request after another.

    The walk is post-order: a vertex comes after everything below it, an edge after its target.
    """

    def __init__(self, graph: ResourceGraph) -> None:
        self.graph = graph

    @abstractmethod
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
        """``needs`` units of a vertex, ``depth`` levels down (the root is at 1).

        ``extra`` are totals of what is below, by type; ``labels`` come from the jobspec.
        """

    def edge(self, depth: int, edge: int, exclusive_parent: bool) -> None:  # noqa: B027
        """An edge whose target was emitted; ``exclusive_parent``: its source is taken whole."""

    def replay(
        self,
        items: Sequence[int],
        depths: Sequence[int],
        needs: Sequence[int],
        flags: Sequence[int],
    ) -> None:
        """A whole walk: columns of equal length with a row for each call of `vertex` and `edge`.

        ``items`` has vertices, and edges as ``~edge``; ``flags`` are EXCLUSIVE and
        EXCLUSIVE_PARENT. Lists are faster than arrays. Formats that name only nodes and cores
        do this much faster than call by call.
        """
        vertex, edge = self.vertex, self.edge
        for item, depth, need, flag in zip(items, depths, needs, flags):
            if item >= 0:
                vertex(depth, item, need, bool(flag & EXCLUSIVE), bool(flag & EXCLUSIVE_PARENT))
            else:
                edge(depth, ~item, bool(flag & EXCLUSIVE_PARENT))

    def times(self, start: int, end: int) -> None:  # noqa: B027
        """From when until when the selection is taken, in seconds."""

    def attribute(self, key: str, value: str) -> None:  # noqa: B027
        """A word for the scheduler, such as the queue."""

    def emit(self) -> str:
        """The text for a file or a screen, with its newline; the writer is as new afterwards.

        "" when nothing was matched, and when the format cannot express it: see `emit_json`.
        """
        try:
            return self._text()
        except WriterError:
            return ""
        finally:
            self._reset()

    def emit_json(self) -> object | None:
        """The same as an object, or a str where the format is text for people; None for "".

        The writer is as new afterwards. Raises `WriterError`.
        """
        try:
            text = self._text()
        finally:
            self._reset()
        return self._object(text) if text else None

    def _object(self, text: str) -> object:
        found: object = json.loads(text)
        return found

    @abstractmethod
    def _text(self) -> str:
        """What `emit` returns. Raises `WriterError`."""

    @abstractmethod
    def _reset(self) -> None:
        """Forget what was emitted."""


class WholeWriter(Writer):
    """A writer that names some vertices with what is below them, and nothing in between.

    Who knows that a vertex is taken with everything below it calls `whole` once instead of
    emitting all that; other vertices go to `take`.
    """

    @abstractmethod
    def take(self, vertex: int) -> None:
        """All that a vertex means to this format."""

    @abstractmethod
    def gathers(self, vertex: int) -> bool:
        """Whether `whole` may be called for a vertex."""

    @abstractmethod
    def whole(self, vertex: int, below: array[int]) -> None:
        """A vertex and everything below it: ``below`` has that in the order of emission."""
