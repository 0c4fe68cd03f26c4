"""What the analysis makes of a plate: how far it is, and what the simulation is to do next. Pure.

The heater is regulated so that a probe far from it gets to a target temperature; once it stays
there, the simulation is told to stop.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

PROBE = (0.55, 0.55)
"""Where the temperature is wanted: x and y as shares of the plate's width."""
GAIN, RESET = 0.1, 0.005
"""Of the controller: power for a kelvin that is missing now, and for each that was before."""
CALM_ROUNDS = 3
"""Rounds in a row that have to be good before the simulation is stopped."""


@dataclass(frozen=True)
class Decision:
    """What the simulation is told about a round."""

    round: int
    power: float
    stop: bool
    probe: float
    change: float
    """Of the hottest-changing cell since the round before, in K."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Steering:
    """A controller with memory; feed it each round once, in order."""

    target: float = 45.0
    tolerance: float = 0.05
    _missed: float = 0.0
    _calm: int = 0
    _before: np.ndarray | None = field(default=None, repr=False)

    def decide(self, round: int, plate: np.ndarray) -> Decision:
        """``tolerance`` is in K: of the probe, and of what may still change in a round."""
        probe = probe_of(plate)
        before = plate if self._before is None else self._before
        change = float(np.abs(plate - before).max())
        missing = self.target - probe
        self._missed += missing
        self._before = plate
        good = abs(missing) <= self.tolerance and change <= self.tolerance and round > 1
        self._calm = self._calm + 1 if good else 0
        power = max(0.0, GAIN * missing + RESET * self._missed)
        return Decision(round, power, self._calm >= CALM_ROUNDS, probe, change)


def probe_of(plate: np.ndarray) -> float:
    """The temperature at the probe, °C."""
    size = len(plate) - 1
    return float(plate[round(PROBE[1] * size), round(PROBE[0] * size)])
