"""A scheduler of one's own: every job gets whole nodes, the first that are free, for itself.

``pip install examples/scheduler_plugin``, then start with ``--conf sched.scheduler=roomy``.
"""

from __future__ import annotations

from flux_mpi.formats.idset import EMPTY, IDSet
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.base import Scheduler
from flux_mpi.sched.placement import Part, Placement


class Roomy(Scheduler):
    def __init__(self, config) -> None:
        self.spare = int(config.get("roomy-spare", 0))  # --conf sched.roomy-spare=1
        self.all, self.up, self.busy = RSet(), EMPTY, {}

    def update(self, resources, up=None) -> None:
        self.all, self.up = resources, resources.ranks if up is None else up

    def set_up(self, ranks) -> None:
        self.up = ranks

    def nodes(self, shape) -> int:
        cores = min((len(ids) for ids in self.all.cores.values()), default=1)
        return shape.nnodes or -(-shape.ncores // cores) or 1

    def feasible(self, shape):
        most = len(self.all.cores) - self.spare
        if self.all and self.nodes(shape) > most:
            return f"unsatisfiable request: need {self.nodes(shape)} whole nodes, there are {most}"
        return None

    def alloc(self, shape, count, now, duration=None):
        free = [rank for rank in self.all.cores if rank in self.up and rank not in self.busy]
        placements, n = [], self.nodes(shape)
        while len(placements) < count and len(free) - self.spare >= n:
            ranks, free = free[:n], free[n:]
            left = [shape.nslots // n + (i < shape.nslots % n) for i in range(n)]
            gpus = [self.all.gpus.get(rank, EMPTY).mask for rank in ranks]
            parts = [Part(r, s, self.all.cores[r].mask, g) for r, s, g in zip(ranks, left, gpus)]
            placements.append(Placement(parts, [self.all.hosts[rank] for rank in ranks]))
            self.busy.update(dict.fromkeys(ranks, placements[-1]))
        return placements

    def free(self, placements) -> None:
        gone = {id(placement) for placement in placements}
        self.busy = {rank: each for rank, each in self.busy.items() if id(each) not in gone}

    def hello(self, running):
        self.busy.update({part.rank: each for each in running for part in each.parts})
        return []

    def allocated(self) -> RSet:
        return self.all.subset(IDSet(self.busy))

    def explain(self, shape) -> str:
        return f"needs {self.nodes(shape)} whole nodes"
