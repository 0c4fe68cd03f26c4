"""A task of the simulation job: a strip of the plate, which it advances round by round.

A round is ``STEPS`` steps. Each task writes its rows into the store, meets the others at a barrier,
and takes the rows around its own from what they wrote. The analysis reads the same rows. What it
decides comes as events, in the same order to all tasks, so all stop after the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import names
import numpy as np
from plate import ROOM, Heater, advance, heating, strip

import flux_mpi


class Strip:
    """The rows of one task, and how it gets those around them."""

    def __init__(self, kvs: flux_mpi.KVS, size: int, task: int, tasks: int) -> None:
        self.kvs = kvs
        self.size = size
        self.task, self.tasks = task, tasks
        self.first, self.last = strip(size, task, tasks)
        # With the neighbours' rows that a round needs, as far as the plate goes.
        self.above = min(names.STEPS, self.first)
        self.below = min(names.STEPS, size - self.last)
        self.rows = np.full((self.last - self.first, size), ROOM)
        self.source = heating(size, Heater(), self.first - self.above, self.last + self.below)

    def advance(self, number: int, power: float) -> None:
        """Round ``number``; the one before must be written by all."""
        parts = [self.rows]
        if self.above:
            parts.insert(0, self._rows_of(number - 1, self.task - 1)[-self.above :])
        if self.below:
            parts.append(self._rows_of(number - 1, self.task + 1)[: self.below])
        block = advance(np.vstack(parts), power * self.source, names.STEPS)
        self.rows = block[self.above : len(block) - self.below]

    def write(self, number: int) -> None:
        """Put the rows where the others and the analysis find them."""
        self.kvs.put(names.rows_key(number, self.task), self.rows.tobytes())

    def _rows_of(self, number: int, task: int) -> np.ndarray:
        data = self.kvs.get(names.rows_key(number, task))
        return np.frombuffer(data).reshape(-1, self.size)


def decisions(events: Iterator[tuple[str, int, Any]]) -> Iterator[dict[str, Any]]:
    """What the analysis has decided, round after round."""
    for _, _, payload in events:
        yield payload


def run(options: argparse.Namespace, handle: flux_mpi.Handle) -> dict[str, Any]:
    """All rounds; returns what is known at the end, the same in every task."""
    task, tasks = int(os.environ["FLUX_TASK_RANK"]), int(os.environ["FLUX_JOB_SIZE"])
    kvs = flux_mpi.KVS(handle, "primary")  # not the job's own: the analysis is another job
    mine = Strip(kvs, options.size, task, tasks)
    steering = decisions(handle.events(names.STEER))  # before the start, so that none is missed
    handle.join_group(names.SIMULATION)
    mine.write(0)
    handle.barrier(names.START, tasks + 1, timeout=names.PATIENCE_S)

    power, decision, number = 0.0, None, 0
    while number < options.rounds:
        number += 1
        mine.advance(number, power)
        mine.write(number)
        handle.barrier(names.ROUND, tasks)
        if task == 0:
            handle.publish(names.WRITTEN, {"round": number})
        if number > names.LAG:
            decision = next(steering)
            power = decision["power"]
            if task == 0:  # nobody needs the rows of that round any more
                kvs.unlink(f"{names.ROOT}.rows.{decision['round']}")
            if decision["stop"]:
                break
    return {
        "rounds": number,
        "converged": bool(decision and decision["stop"]),
        "power": power,
        "size": options.size,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate a heated plate, steered from outside.")
    parser.add_argument("--size", type=int, required=True, help="rows and columns of the plate")
    parser.add_argument("--rounds", type=int, required=True, help="give up after so many")
    parser.add_argument("--out", type=Path, required=True, help="folder for result.json, plate.npy")
    options = parser.parse_args()
    with flux_mpi.Handle() as handle:
        result = run(options, handle)
        if os.environ["FLUX_TASK_RANK"] == "0":
            kvs = flux_mpi.KVS(handle, "primary")
            parts = kvs.dir(f"{names.ROOT}.rows.{result['rounds']}")
            plate = np.vstack(
                [
                    np.frombuffer(parts[key]).reshape(-1, options.size)
                    for key in sorted(parts, key=int)
                ]
            )
            np.save(options.out / "plate.npy", plate)
            result["hottest"] = float(plate.max())
            (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
            handle.publish(names.WRITTEN, {"round": None})  # the analysis can go, too
    return 0


if __name__ == "__main__":
    sys.exit(main())
