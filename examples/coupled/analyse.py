"""The analysis job: looks at the plate while it is being simulated, and steers the simulation.

It hears of each round by an event, takes the rows that the simulation's tasks left in the store,
and publishes what is to be done: another power for the heater, or that it is enough. That it runs
beside the simulation costs it no file and no restart.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import names
import numpy as np
from steering import Decision, Steering

import flux_mpi


def run(options: argparse.Namespace, handle: flux_mpi.Handle) -> list[Decision]:
    """Decides about each round until the simulation has ended; returns all decisions."""
    kvs = flux_mpi.KVS(handle, "primary")
    written = handle.events(names.WRITTEN)  # before the start, so that none is missed
    handle.join_group(names.ANALYSIS)
    handle.barrier(names.START, options.tasks + 1, timeout=names.PATIENCE_S)
    steering = Steering(options.target, options.tolerance)
    made: list[Decision] = []
    for _, _, payload in written:
        number = payload["round"]
        if number is None:
            break
        parts = kvs.dir(f"{names.ROOT}.rows.{number}")
        rows = [np.frombuffer(parts[key]) for key in sorted(parts, key=int)]
        decision = steering.decide(number, np.concatenate(rows).reshape(options.size, options.size))
        time.sleep(options.think)
        made.append(decision)
        # For whoever looks at it from outside: flux-mpi kvs get coupled.decision
        kvs.put(f"{names.ROOT}.decision", decision.as_json())
        handle.publish(names.STEER, decision.as_json())
        if number == options.fail_at:
            raise SystemExit("analyse.py: failing, because --fail-at says so")
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Steer the simulation of a heated plate.")
    parser.add_argument("--size", type=int, required=True, help="rows and columns of the plate")
    parser.add_argument("--tasks", type=int, required=True, help="of the simulation")
    parser.add_argument("--target", type=float, required=True, help="at the probe, in °C")
    parser.add_argument("--tolerance", type=float, required=True, help="in K")
    parser.add_argument("--out", type=Path, required=True, help="folder for history.csv")
    parser.add_argument("--think", type=float, default=0.0, help="pretend to need so many seconds")
    parser.add_argument("--fail-at", type=int, help="fail at this round, to see what happens")
    options = parser.parse_args()
    with flux_mpi.Handle() as handle:
        made = run(options, handle)
    with (options.out / "history.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["round", "probe_celsius", "change_kelvin", "power"])
        table.writerows([d.round, d.probe, d.change, d.power] for d in made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
