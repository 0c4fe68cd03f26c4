"""What a job asks for: the numbers that the scheduler's bitmap door works with, or a graph.

Apart from `jobspec` because dataclasses are slow to import and commands never need it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """One request of nodes, slots, cores and GPUs; hashable, so that equal requests are one.

    A job is `nslots` slots of `cores` cores and `gpus` GPUs each. With `nnodes`, they lie
    `slots_per_node` on each of that many nodes (``nslots == nnodes * slots_per_node``); with
    ``nnodes == 0`` (then ``slots_per_node == 0``) wherever there is room. `exclusive` takes the
    nodes whole. `constraint` is the RFC 31 object as canonical JSON, or "".

    `graph` is "" for a request that these numbers say in full; else it is the resources of the
    jobspec as canonical JSON (see `graphshape`), and the numbers are what can be told of them.
    """

    nnodes: int
    nslots: int
    slots_per_node: int
    cores: int
    gpus: int
    exclusive: bool
    ntasks: int
    constraint: str = ""
    graph: str = ""

    @property
    def ncores(self) -> int:
        """Cores asked for in all (exclusive nodes may hold more)."""
        return self.nslots * self.cores

    @property
    def ngpus(self) -> int:
        """GPUs asked for in all."""
        return self.nslots * self.gpus

    def text(self) -> str:
        """The request in words, e.g. ``2 exclusive nodes with 4 slots of 2 cores, 1 GPU each``."""
        if self.graph:
            from flux_mpi.formats.graphshape import text

            return text(self.graph) + (f" where {self.constraint}" if self.constraint else "")
        slots = self.slots_per_node if self.nnodes else self.nslots
        size = _plural(self.cores, "core")
        if self.gpus:
            size += ", " + _plural(self.gpus, "GPU")
        words = f"{_plural(slots, 'slot')} of {size}"
        if slots > 1:
            words += " each"
        if self.nnodes:
            kind = "exclusive node" if self.exclusive else "node"
            words = f"{_plural(self.nnodes, kind)} with {words}"
        if self.constraint:
            words += f" where {self.constraint}"
        return words


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
