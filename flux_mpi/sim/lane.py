"""Many brokers on one simulated clock, each with a loop of its own.

A broker expects its turn-end hooks to run after its own callbacks. With thousands on one reactor,
running everyone's hooks after every callback would cost more than the work itself, so each broker
gets a *lane*: its hooks run only after turns in which something of its own ran.

A lane may be *metered*: what its broker's code takes of this process's time is charged to the lane
in virtual time, during which nothing else happens in it. Then a busy broker is a bottleneck as it
would be in reality, at the speed of this very code on this machine.
"""

from __future__ import annotations

from collections.abc import Callable

from flux_mpi.reactor.base import Callback, Reactor, Timer
from flux_mpi.reactor.simulated import SimulatedReactor

Meter = Callable[[], float]
"""A clock of what this thread has done, seconds."""


class Lanes:
    """Hands out lanes of one simulated reactor."""

    def __init__(self, reactor: SimulatedReactor, meter: Meter | None = None) -> None:
        self.reactor = reactor
        self._meter = meter
        self._active: dict[Lane, None] = {}
        reactor.at_turn_end(self._turn_end)

    def lane(self) -> Lane:
        """A new lane."""
        return Lane(self.reactor, self._active, self._meter)

    def _turn_end(self) -> None:
        while self._active:
            lanes = list(self._active)
            self._active.clear()
            for lane in lanes:
                lane.end_turn()


class Lane(Reactor):
    """One broker's view of a shared simulated reactor."""

    def __init__(
        self, reactor: SimulatedReactor, active: dict[Lane, None], meter: Meter | None = None
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._active_lanes = active
        self._meter = meter
        self._free_at = self._debt = 0.0
        self.spent = 0.0
        """Seconds that its broker's code took in all, if it is metered."""
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

        if self._meter is None:
            return run
        return lambda: self._charged(run)

    def _charged(self, run: Callable[[], None]) -> None:
        """Run something once the broker has done what came before, and charge what it takes."""
        now = self._reactor.monotonic()
        if now < self._free_at:
            self._reactor.call_later(self._free_at - now, lambda: self._charged(run))
            return
        self._charge(run)

    def _charge(self, run: Callable[[], None]) -> None:
        assert self._meter is not None
        began = self._meter()
        run()
        took = self._meter() - began
        self.spent += took
        self._debt += took

    def touch(self) -> None:
        """Something was done to this lane's broker from outside: let its hooks run."""
        self.call_soon(lambda: None)

    def end_turn(self) -> None:
        """Run the hooks."""
        if self.closed:
            return
        if self._meter is None:
            self._run_hooks()
            return
        self._charge(self._run_hooks)
        self._free_at = max(self._free_at, self._reactor.monotonic()) + self._debt
        self._debt = 0.0

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
