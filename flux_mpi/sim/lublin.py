"""Workloads out of a published model, where no log of a real machine is at hand.

U. Lublin and D. G. Feitelson, "The workload on parallel supercomputers: modeling the
characteristics of rigid jobs", Journal of Parallel and Distributed Computing 63 (2003): sizes are
two-stage uniform in their logarithm, with many serial jobs and powers of two; run times
hyper-gamma in theirs, larger jobs being longer; arrivals gamma in theirs, faster by day than by
night. The parameters are those that the paper found for three machines together. It says nothing
of what users ask for: limits are 1 to 5 times the run time, as in A. W. Mu'alem and
D. G. Feitelson (2001).
"""

from __future__ import annotations

from math import ceil, exp, log, log2
from random import Random

from flux_mpi.sim.swf import Log, LoggedJob

SERIAL, POWER_OF_TWO = 0.244, 0.576
SIZE_LOW, SIZE_BEND, SIZE_BELOW = 0.8, 2.5, 0.86
"""Least log2 of a parallel size; how far the bend lies below the machine's; share below it."""

SHORT, LONG = (4.2, 0.94), (312.0, 0.03)
MIX = (-0.0054, 0.78)
"""Share of short jobs, as a line over the size."""
LONGEST = 12.0
"""Log of the longest run time, 45 hours."""

ARRIVALS = (10.2303 * 1.0225, 0.4871)
DAY = (8.1737, 3.9631)
HALF_HOUR, HALF_HOURS, DAWN = 1800.0, 48, 11

ESTIMATE = 4.0
SHORTEST_LIMIT = 60.0


def generate(jobs: int, processors: int, load: float, seed: int) -> Log:
    """So many jobs for a machine of so many processors that they would keep ``load`` of it busy
    from the first submission to the last."""
    random = Random(seed)
    cycle = _daily_cycle()
    made = []
    time, work = 8 * 3600.0, 0.0
    for number in range(1, jobs + 1):
        size = _size(random, processors)
        run = _run_time(random, size)
        limit = max(SHORTEST_LIMIT, ceil(run * random.uniform(1.0, 1.0 + ESTIMATE)))
        time += exp(random.gammavariate(*ARRIVALS)) / cycle[int(time / HALF_HOUR) % HALF_HOURS]
        made.append((number, time, run, size, limit))
        work += run * size
    begin = made[0][1]
    stretch = work / (load * processors) / max(1.0, made[-1][1] - begin)
    found = Log(header={"MaxProcs": str(processors)})
    for number, time, run, size, limit in made:
        found.jobs.append(LoggedJob(number, (time - begin) * stretch, run, size, limit))
    return found


def _size(random: Random, processors: int) -> int:
    if processors == 1 or random.random() < SERIAL:
        return 1
    high = log2(processors)
    bend = max(SIZE_LOW, high - SIZE_BEND)
    if random.random() < SIZE_BELOW:
        exponent = random.uniform(SIZE_LOW, bend)
    else:
        exponent = random.uniform(bend, high)
    if random.random() < POWER_OF_TWO:
        exponent = round(exponent)
    return min(processors, max(1, round(2**exponent)))


def _run_time(random: Random, size: int) -> float:
    slope, base = MIX
    share = min(1.0, max(0.0, slope * size + base))
    while True:
        logarithm = random.gammavariate(*(SHORT if random.random() < share else LONG))
        if logarithm <= LONGEST:
            return max(1.0, round(exp(logarithm)))


def _daily_cycle() -> list[float]:
    """How busy each half hour of a day is, 1 on average."""
    alpha, beta = DAY
    weights = []
    for bucket in range(HALF_HOURS):
        x = bucket + 0.5 + (HALF_HOURS if bucket < DAWN else 0)
        weights.append(exp((alpha - 1) * log(x) - x / beta))
    mean = sum(weights) / HALF_HOURS
    return [max(0.02, weight / mean) for weight in weights]
