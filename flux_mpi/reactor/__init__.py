"""One thread's event loop, real or simulated."""

from flux_mpi.reactor.base import Reactor, Timer

__all__ = ["Reactor", "Timer"]
