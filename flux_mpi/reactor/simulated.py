"""A reactor whose clock jumps: time passes only when nothing is left to do at this instant."""

from __future__ import annotations

from flux_mpi.reactor.base import Callback, Reactor


class SimulatedReactor(Reactor):
    """Runs any number of brokers in one thread under virtual time; has no file descriptors."""

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        super().__init__()
        self._time = start

    def now(self) -> float:
        return self._time

    def monotonic(self) -> float:
        return self._time

    def add_reader(self, fd: int, callback: Callback) -> None:
        raise NotImplementedError("a simulated reactor watches no descriptors")

    def add_writer(self, fd: int, callback: Callback) -> None:
        raise NotImplementedError("a simulated reactor watches no descriptors")

    def remove_writer(self, fd: int) -> None:
        """Nothing to do: no descriptor was ever watched."""

    def remove(self, fd: int) -> None:
        """Nothing to do: no descriptor was ever watched."""

    def turn(self) -> bool:
        """One turn; False when neither a call nor a timer is left."""
        if not self._soon:
            due = self._next_due()
            if due is None:
                return False
            self._time = max(self._time, due)
        self._run_due()
        self._run_hooks()
        return True

    def run(self, seconds: float | None = None, until: float | None = None) -> None:
        """Turn until nothing is left, ``stop`` was called, or virtual time would pass the bound.

        ``seconds`` is a length of virtual time, ``until`` an instant of it.
        """
        bound = self._time + seconds if seconds is not None else until
        self._stopped = False
        while not self._stopped:
            if not self._soon:
                due = self._next_due()
                if bound is not None and (due is None or due > bound):
                    self._time = max(self._time, bound)
                    break
                if due is None:
                    break
            self.turn()
