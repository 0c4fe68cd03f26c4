"""From rows of what was taken to a writer: each vertex, and after it the edge that leads to it."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from flux_mpi.resource.writers.base import EXCLUSIVE, EXCLUSIVE_PARENT, WholeWriter, Writer
from flux_mpi.sched.takewalk import (
    O_ABOVE,
    O_DEPTH,
    O_EDGE,
    O_EXCLUSIVE,
    O_FIRST,
    O_INDEX,
    O_NEEDS,
    O_WHOLE,
)


def replay(writer: Writer, rows: array[int], width: int) -> None:
    """All rows at once."""
    items: list[int] = []
    depths: list[int] = []
    flags: list[int] = []
    for vertex, edge, depth, exclusive, above in zip(
        rows[O_INDEX::width],
        rows[O_EDGE::width],
        rows[O_DEPTH::width],
        rows[O_EXCLUSIVE::width],
        rows[O_ABOVE::width],
    ):
        items += (vertex, ~edge)
        depths += (depth, depth - 1)
        flags += (EXCLUSIVE * exclusive + EXCLUSIVE_PARENT * above, EXCLUSIVE_PARENT * above)
    needs = [0] * len(items)
    needs[::2] = rows[O_NEEDS::width]
    n = max(0, len(items) - 1)  # to the root no edge leads
    writer.replay(items[:n], depths[:n], needs[:n], flags[:n])


def labelled(writer: Writer, rows: array[int], width: int, label_of: Callable[[int], str]) -> None:
    """Row by row, with the labels that the request gave to some."""
    for base in range(0, len(rows), width):
        index, depth = rows[base + O_INDEX], rows[base + O_DEPTH]
        above = rows[base + O_ABOVE] != 0
        label = label_of(index)
        writer.vertex(
            depth,
            index,
            rows[base + O_NEEDS],
            rows[base + O_EXCLUSIVE] != 0,
            above,
            labels={"label": label} if label else None,
        )
        if rows[base + O_EDGE] >= 0:
            writer.edge(depth - 1, rows[base + O_EDGE], above)


def wholes(writer: WholeWriter, rows: array[int], width: int) -> None:
    """Vertices that are taken with all below them by one word, and not each part of them."""
    told: list[tuple[int, array[int] | None]] = []
    i = len(rows) // width - 1
    while i >= 0:
        base = i * width
        vertex = rows[base + O_INDEX]
        if rows[base + O_WHOLE] and writer.gathers(vertex):
            i = rows[base + O_FIRST]
            told.append((vertex, rows[i * width + O_INDEX : base : width]))
        else:
            told.append((vertex, None))
        i -= 1
    for vertex, below in reversed(told):
        if below is None:
            writer.take(vertex)
        else:
            writer.whole(vertex, below)
