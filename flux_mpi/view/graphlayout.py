"""Where boxes of a resource graph lie in a picture: sizes from the leaves up, places from the top.

Siblings of a type form a grid; small leaves are cells, others chips with a label. What would be
too small to see is summed up: a tile stands for a vertex and all below it.
"""

from __future__ import annotations

import math

from flux_mpi.view.graphtree import Box

MAX_BOXES = 20_000
"""A picture with more boxes sums up its deepest level."""

CELL = 11.0
CHIP_H = 16.0
CELL_GAP = 2.0
GAP = 3.0
PAD = 8.0
MIN_W = 126.0
BETWEEN = 9.0
"""Between containers, where lines of other subsystems run."""
TITLE_H = 18.0
FONT = 11.0
SMALL_FONT = 8.5

LARGE, MEDIUM, SMALL = 60, 1500, 1 << 62
"""Up to how many tiles have bars with numbers, bars with a name, and only colour."""

ASPECT = 1.6
"""Width to height that grids aim for."""


def text_width(text: str, font: float) -> float:
    """An estimate, on the safe side for the usual sans-serif fonts."""
    return 0.61 * font * len(text)


def shorten(text: str, font: float, width: float) -> str:
    """As much of ``text`` as fits, with an ellipsis for the rest."""
    most = int(width / (0.61 * font))
    if len(text) <= most:
        return text
    return f"{text[: most - 1]}…" if most > 1 else ""


_NESTED, _CELLS, _CHIPS = range(3)


def _kind(box: Box) -> int:
    if box.children:
        return _NESTED
    return _CELLS if is_cell(box) else _CHIPS


def _grouped(box: Box) -> list[tuple[int, list[Box]]]:
    """The children of ``box`` by kind, then by type in the order in which types came."""
    groups: dict[tuple[int, str], list[Box]] = {}
    for child in box.children:
        groups.setdefault((_kind(child), child.type), []).append(child)
    return sorted(((kind, group) for (kind, _), group in groups.items()), key=lambda x: x[0])


def is_cell(box: Box) -> bool:
    """Whether a leaf is so small that it has no label: one of many of its kind."""
    return box.size == 1 and not box.children and box.type == "core"


def cut(roots: list[Box], depth: int | None) -> None:
    """Mark as tiles the vertices whose children are not drawn.

    ``depth`` levels below the roots are drawn, or as many as `MAX_BOXES` allows.
    """
    level = list(roots)
    count = len(level)
    at = 0
    while level:
        below = [child for box in level for child in box.children]
        count += len(below)
        if below and (at >= depth if depth is not None else count > MAX_BOXES):
            for box in level:
                box.tile = bool(box.children)
            return
        level = below
        at += 1


def drawn(roots: list[Box]) -> list[Box]:
    """The boxes that are drawn, parents first."""
    found: list[Box] = []
    stack = list(reversed(roots))
    while stack:
        box = stack.pop()
        found.append(box)
        if not box.tile:
            stack.extend(reversed(box.children))
    return found


def place(roots: list[Box], x: float, y: float) -> tuple[float, float]:
    """Give every drawn box its size and place from (``x``, ``y``) on; returns width and height."""
    order = drawn(roots)
    tiles = sum(box.tile for box in order)
    for box in reversed(order):
        if box.tile:
            box.w, box.h = tile_size(box, tiles)
        elif not box.children:
            box.w, box.h = _leaf_size(box)
        else:
            _arrange(box)
    width, height = _grid(roots, BETWEEN)
    for root in roots:
        root.x += x
        root.y += y
    for box in order:
        if not box.tile:
            for child in box.children:
                child.x += box.x
                child.y += box.y
    return width, height


def tile_size(box: Box, tiles: int) -> tuple[float, float]:
    types = max(len(box.usage), 1)
    if tiles <= LARGE:
        return 150.0, TITLE_H + 14.0 * types + PAD - 2
    if tiles <= MEDIUM:
        return 62.0, 13.0 + 5.0 * types
    return 14.0, 14.0


def _leaf_size(box: Box) -> tuple[float, float]:
    if is_cell(box):
        return CELL, CELL
    longest = box.name if box.size == 1 else f"{box.name} {box.size}/{box.size} {box.unit}".rstrip()
    return max(text_width(longest[:24], SMALL_FONT) + 8, 26.0), CHIP_H


def chip_label(box: Box) -> str:
    """``memory0 2/4 GB``: the name, and for a pool what of it is taken."""
    if box.size == 1:
        return box.name
    taken = min(sum(box.jobs.values()), box.size)
    return f"{box.name} {taken}/{box.size} {box.unit}".rstrip()


def _arrange(box: Box) -> None:
    """Stack the groups of children below the title, in coordinates of the box."""
    groups = _grouped(box)
    inner = max(text_width(title_of(box), FONT), MIN_W)
    for kind, group in groups:
        if kind == _CELLS:
            inner = max(inner, _natural(group))
        elif kind == _CHIPS:
            inner = max(inner, max(chip.w for chip in group))
        else:
            inner = max(inner, _grid(group, _between(group))[0])
    y = TITLE_H + 2.0
    for kind, group in groups:
        if kind == _CELLS:
            w, h = _cells(group, inner)
        elif kind == _CHIPS:
            w, h = _chips(group, inner)
        else:
            w, h = _grid(group, _between(group))
        for child in group:
            child.x += PAD + (inner - w) / 2
            child.y += y
        y += h + GAP
    box.w, box.h = inner + 2 * PAD, y - GAP + PAD


def _between(group: list[Box]) -> float:
    """Small tiles lie near each other: lines lead to what they are in."""
    return BETWEEN if group[0].w > 100 else 6.0 if group[0].w > 20 else GAP


def _natural(cells: list[Box]) -> float:
    """The width of cells that nothing else in their box makes wider."""
    columns = _columns(len(cells), CELL, CELL)
    return columns * (CELL + CELL_GAP) - CELL_GAP


def _cells(cells: list[Box], width: float) -> tuple[float, float]:
    """Cells in as few rows as fit, rows of one length; returns width and height."""
    most = max(1, int((width + CELL_GAP) / (CELL + CELL_GAP)))
    rows = math.ceil(len(cells) / most)
    columns = math.ceil(len(cells) / rows)
    for i, cell in enumerate(cells):
        cell.x = (i % columns) * (CELL + CELL_GAP)
        cell.y = (i // columns) * (CELL + CELL_GAP)
    return columns * (CELL + CELL_GAP) - CELL_GAP, rows * (CELL + CELL_GAP) - CELL_GAP


def _chips(chips: list[Box], width: float) -> tuple[float, float]:
    """Chips in lines that they fill."""
    widest = max(_leaf_size(chip)[0] for chip in chips)
    most = max(1, int((width + GAP) / (widest + GAP)))
    lines = math.ceil(len(chips) / most)
    columns = math.ceil(len(chips) / lines)
    each = (width + GAP) / columns - GAP
    for i, chip in enumerate(chips):
        chip.w = each
        chip.x = (i % columns) * (each + GAP)
        chip.y = (i // columns) * (CHIP_H + GAP)
    return width, lines * (CHIP_H + GAP) - GAP


def title_of(box: Box) -> str:
    return box.name[:40]


def _grid(boxes: list[Box], gap: float) -> tuple[float, float]:
    """Boxes in rows of one number of columns; returns width and height of the whole."""
    w = max(box.w for box in boxes)
    h = max(box.h for box in boxes)
    columns = _columns(len(boxes), w + gap, h + gap)
    y = 0.0
    for start in range(0, len(boxes), columns):
        row = boxes[start : start + columns]
        high = max(box.h for box in row)
        for i, box in enumerate(row):
            box.x = i * (w + gap)
            box.y = y
            # Equal frames look calmer than ragged ones.
            if box.children and not box.tile:
                for child in box.children:
                    child.x += (w - box.w) / 2
                box.w, box.h = w, high
        y += high + gap
    return min(columns, len(boxes)) * (w + gap) - gap, y - gap


def _columns(count: int, w: float, h: float) -> int:
    """Columns for ``count`` boxes: nearly `ASPECT`, and the last row nearly full."""
    best, least = 1, math.inf
    for columns in range(1, min(count, 4096) + 1):
        rows = math.ceil(count / columns)
        if columns > 1 and math.ceil(count / (columns - 1)) == rows:
            continue  # The same rows with a longer gap at the end.
        shape = abs(math.log(columns * w / (rows * h * ASPECT)))
        waste = 5 * (rows * columns - count) / count
        if waste and count >= 16:
            waste += 0.35  # Many in full rows look best, and most groups are made to have them.
        cost = shape + waste
        if cost < least:
            best, least = columns, cost
    return best
