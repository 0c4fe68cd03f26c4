"""A heated plate: explicit finite differences of the heat equation, whole or in strips of rows.

Pure NumPy; nothing here knows how the strips are run. The plate is square, its edges are held at
room temperature, a heater warms a round spot, and it loses heat to the room all over. Times are in
steps, powers in kelvin a step at the centre of the heater, temperatures in °C.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROOM = 20.0
"""Of the edges, of the surroundings, and of the plate at the beginning; °C."""
CONDUCTION = 0.2
"""Share of the difference between neighbours that flows in a step; beyond 0.25 it is unstable."""
LOSS = 0.002
"""Share of its excess over the room that a cell loses in a step."""
STEADY = 1e-7
"""A plate of which no cell changes by more in a step, in K, is as good as steady."""


@dataclass(frozen=True)
class Heater:
    """Where it is and how large, as shares of the plate's width."""

    x: float = 0.35
    y: float = 0.40
    radius: float = 0.15


def heating(size: int, heater: Heater, first: int = 0, last: int | None = None) -> np.ndarray:
    """What the heater gives to rows ``first`` to ``last`` of ``size`` at a power of 1."""
    rows = np.arange(first, size if last is None else last)[:, None]
    columns = np.arange(size)[None, :]
    distance2 = (columns / (size - 1) - heater.x) ** 2 + (rows / (size - 1) - heater.y) ** 2
    return np.exp(-distance2 / heater.radius**2)


def strip(size: int, part: int, parts: int) -> tuple[int, int]:
    """The rows (first, one past the last) of strip ``part`` of ``parts``.

    Raises ValueError when there are more parts than rows.
    """
    if not 0 < parts <= size:
        raise ValueError(f"parts: {parts} is not allowed, 1 to {size} are (a row each)")
    return size * part // parts, size * (part + 1) // parts


def advance(block: np.ndarray, source: np.ndarray, steps: int) -> np.ndarray:
    """``block`` after ``steps`` steps with ``source`` added in each; its edges stay as they are.

    Where an edge row is not the plate's but a cut, what is within ``steps`` rows of it is wrong
    afterwards: give a strip as many rows of its neighbours, and take them off again.
    """
    block = block.copy()
    for _ in range(steps):
        inner = block[1:-1, 1:-1]
        flow = block[:-2, 1:-1] + block[2:, 1:-1] + block[1:-1, :-2] + block[1:-1, 2:] - 4 * inner
        block[1:-1, 1:-1] = inner + CONDUCTION * flow - LOSS * (inner - ROOM) + source[1:-1, 1:-1]
    return block


def steady(size: int, heater: Heater, power: float, limit: int = 20_000) -> np.ndarray:
    """The whole plate once nothing changes any more (or after ``limit`` steps)."""
    field = np.full((size, size), ROOM)
    source = power * heating(size, heater)
    for _ in range(limit // 20):
        before = field
        field = advance(field, source, 20)
        if float(np.abs(field - before).max()) < 20 * STEADY:
            break
    return field
