"""Many brokers on one simulated clock, each with a loop of its own.

A broker expects its turn-end hooks to run after its own callbacks. With thousands on one reactor,
running everyone's hooks after every callback would cost more than the work itself, so each broker
gets a *lane*: its hooks run only after turns in which something of its own ran.
"""

from __future__ import annotations

from collections.abc import Callable

from flux_mpi.reactor.base import Callback, Reactor, Timer
from flux_mpi.reactor.simulated import SimulatedReactor


class Lanes:
    """Hands out lanes of one simulated reactor."""

    def __init__(self, reactor: SimulatedReactor) -> None:
        self.reactor = reactor
        self._active: dict[Lane, None] = {}
        reactor.at_turn_end(self._turn_end)

    def lane(self) -> Lane:
        """A new lane."""
        return Lane(self.reactor, self._active)

    def _turn_end(self) -> None:
        while self._active:
            lanes = list(self._active)
            self._active.clear()
            for lane in lanes:
                lane.end_turn()


class Lane(Reactor):
    """One broker's view of a shared simulated reactor."""

    def __init__(self, reactor: SimulatedReactor, active: dict[Lane, None]) -> None:
        super().__init__()
        self._reactor = reactor
        self._active_lanes = active
        self.closed = False

    def now(self) -> float:
        return self._reactor.now()

    def monotonic(self) -> float:
        return self._reactor.monotonic()

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        return self._reactor.call_later(seconds, self.wrap(callback))

    def call_soon(self, callback: Callback) -> None:
        self._reactor.call_soon(self.wrap(callback))

    def wrap(self, callback: Callback) -> Callable[[], None]:
        """``callback`` as something that happens in this lane: its hooks run afterwards."""

        def run() -> None:
            if not self.closed:
                self._active_lanes[self] = None
                self._call(callback)

        return run

    def touch(self) -> None:
        """Something was done to this lane's broker from outside: let its hooks run."""
        self.call_soon(lambda: None)

    def end_turn(self) -> None:
        """Run the hooks."""
        if not self.closed:
            self._run_hooks()

    def stop(self) -> None:
        """The broker has left: nothing of it runs any more."""
        self.closed = True

    def add_reader(self, fd: int, callback: Callback) -> None:
        raise NotImplementedError("a simulated broker watches no descriptors")

    def add_writer(self, fd: int, callback: Callback) -> None:
        raise NotImplementedError("a simulated broker watches no descriptors")

    def remove_writer(self, fd: int) -> None:
        """Nothing to do: no descriptor was ever watched."""

    def remove(self, fd: int) -> None:
        """Nothing to do: no descriptor was ever watched."""
