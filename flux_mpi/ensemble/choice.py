"""Which hierarchy suits an ensemble: a small model of what limits it, and the best shape in it.

One instance hands out as many members a second as its rank 0 can see to. Members that run long
leave it idle: then every level more is only a delay. Short members on many cores keep it busy: then
more instances see to more members, as far as there are processors for them. The model knows
three bounds (cores, schedulers, processors), and what starting instances costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from flux_mpi.ensemble.shape import Machine, capacity, divide, leaf, topology_text
from flux_mpi.formats.shape import Shape

SERVE_S = 40e-6
"""Processor time of an instance's rank 0 for one member that is a process."""
SERVE_MOCK_S = 12e-6
"""For one whose execution is mocked."""
SPAWN_S = 700e-6
"""Processor time of a node for a process that does nothing (posix_spawn, exec, exit, wait)."""
START_S = 0.15
"""From the wish for a child instance to its first member."""
START_EACH_S = 0.005
"""What each sibling adds to that."""
GAIN = 0.8
"""More levels must take less than this much of the time of one: the model is not exact."""
MAX_FANOUT = 64
"""Most children of one instance; more, and it would be kept busy by them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A topology and why it was chosen."""

    topology: list[int]
    why: str


@dataclass(frozen=True, slots=True)
class Work:
    """An ensemble as the model sees it."""

    count: int
    shape: Shape
    seconds: float
    """How long a member runs."""
    mock: bool = False


def estimate(work: Work, machine: Machine, topology: list[int], cpus: int) -> tuple[float, str]:
    """How long it would take in seconds, and what it would be bound by. ``cpus``: processors of a
    host. Raises ValueError when it cannot be divided so, or members would not fit."""
    smallest = leaf(machine, topology)
    if work.shape.ncores > smallest.ncores or work.shape.nnodes > smallest.ranks:
        raise ValueError("members do not fit")
    instances = prod(topology)
    at_a_time = min(capacity(work.shape, machine), instances * capacity(work.shape, smallest))
    serve = SERVE_MOCK_S if work.mock else SERVE_S
    spawn = 0.0 if work.mock else SPAWN_S * max(1, work.shape.ntasks)
    processors = machine.hosts * cpus
    bounds = {
        "cores": work.seconds / at_a_time,
        "schedulers": serve / instances,
        "processors": (serve + spawn) / processors,
    }
    bound = max(bounds, key=lambda name: bounds[name])
    start = sum(START_S + START_EACH_S * parts for parts in topology)
    return start + work.count * bounds[bound], bound


def candidates(machine: Machine) -> Iterator[list[int]]:
    """Shapes worth a look: one, two or three levels that divide the machine evenly."""
    yield []
    ranks = machine.ranks
    if not ranks:
        return
    wholes = [parts for parts in range(2, min(ranks, MAX_FANOUT) + 1) if ranks % parts == 0]
    cores = min(machine.cores)
    shares = [n for n in range(2, cores + 1) if cores % n == 0]
    for parts in wholes:
        yield [parts]
    for share in shares:
        if ranks * share <= MAX_FANOUT:
            yield [ranks * share]
    for parts in wholes:
        below = ranks // parts
        for inner in [n for n in range(2, below + 1) if below % n == 0]:
            if inner <= MAX_FANOUT:
                yield [parts, inner]
        for share in shares:
            if below * share <= MAX_FANOUT:
                yield [parts, below * share]


def choose(work: Work, machine: Machine, cpus: int) -> Choice:
    """The best shape, one level unless another is clearly faster."""
    flat, bound = estimate(work, machine, [], cpus)
    best: list[int] = []
    time, best_bound = flat, bound
    for topology in candidates(machine):
        try:
            found, limit = estimate(work, machine, topology, cpus)
        except ValueError:
            continue
        # Of two that are equally fast, the one with fewer instances.
        if found < time * (1 - 1e-9) or (found <= time and prod(topology) < prod(best)):
            best, time, best_bound = topology, found, limit
    task = f"{work.count} members of {_span(work.seconds)} on {machine.text()}"
    if not best or time > GAIN * flat:
        why = f"{task}: one level, bound by its {_name(bound)}"
        if bound == "schedulers" and best:
            why += f"; {topology_text(best)} would take {_span(time)} instead of {_span(flat)}"
        return Choice([], why)
    parts = divide(machine, best[0])
    each = f"{parts[0].ncores} core{'s' if parts[0].ncores != 1 else ''}"
    return Choice(
        best,
        f"{task}: one level would be bound by its {_name(bound)} and take {_span(flat)}; "
        f"{topology_text(best)} ({best[0]} instances of {each}) is bound by its "
        f"{_name(best_bound)} and takes {_span(time)}",
    )


def _name(bound: str) -> str:
    return "scheduler" if bound == "schedulers" else bound


def _span(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s"
