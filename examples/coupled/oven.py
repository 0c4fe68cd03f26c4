"""What the search looks for: a heater that brings a workpiece to one temperature, evenly. Pure.

A candidate is where the heater stands on the plate and how strong it is. Its score is how far the
workpiece is from what is wanted, in K (root mean square), and more where the plate gets too hot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from plate import Heater, steady

BOUNDS = {"x": (0.10, 0.90), "y": (0.10, 0.90), "power": (0.20, 2.50)}
"""The parameters of a candidate, with the smallest and largest value of each."""
WORKPIECE = (0.50, 0.80, 0.45, 0.75)
"""Left, right, top, bottom; shares of the plate's width."""
WANTED, TOO_HOT = 80.0, 110.0
"""°C"""


def score(candidate: Sequence[float], size: int = 32) -> float:
    """The smaller the better, in K."""
    x, y, power = candidate
    field = steady(size, Heater(x, y), power)
    left, right, top, bottom = (round(share * (size - 1)) for share in WORKPIECE)
    off = field[top : bottom + 1, left : right + 1] - WANTED
    excess = max(0.0, float(field.max()) - TOO_HOT)
    return float(np.sqrt((off**2).mean())) + 0.5 * excess


def scaled(unit: np.ndarray) -> np.ndarray:
    """Points of the unit cube, a row each, as candidates."""
    low, high = np.array(list(BOUNDS.values())).T
    return low + unit * (high - low)
