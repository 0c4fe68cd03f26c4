"""What the shells of an ensemble see of the world; a broker is one, and so is a test's fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from flux_mpi.ensemble.tally import Tally
from flux_mpi.formats.idset import IDSet

INFO, WARNING, ERR = 6, 4, 3


class Cancelable(Protocol):
    """A timer, or a call under way."""

    def cancel(self) -> None:
        """Hear no more of it. Idempotent."""


class Answer(Protocol):
    """An answer to a call."""

    @property
    def errnum(self) -> int:
        """0, or a POSIX error number; ENODATA: a stream has ended."""

    @property
    def text(self) -> str:
        """The error's text."""

    @property
    def payload(self) -> Any: ...


class Clock(Protocol):
    """Time and deferred calls, as a reactor offers them."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
    def call_later(self, seconds: float, callback: Callable[[], object]) -> Cancelable: ...
    def call_soon(self, callback: Callable[[], object]) -> None: ...


class Caller(Protocol):
    """Where services can be called: this instance, or the one above it."""

    def rpc(
        self,
        topic: str,
        payload: Any,
        callback: Callable[[Any], object],
        *,
        streaming: bool = False,
    ) -> Any:
        """Call a service; ``callback`` gets every `Answer`. Returns a `Cancelable`."""


class World(Caller, Protocol):
    """This instance."""

    @property
    def reactor(self) -> Clock: ...

    def log(self, level: int, component: str, text: str) -> None:
        """Write to the log ring."""


class Stream(Protocol):
    """A request that is answered many times, on the side of who answers."""

    def respond(self, payload: Any = None) -> None: ...
    def error(self, errnum: int, text: str = "") -> None: ...


class Owner(Protocol):
    """Who is told by a body (a leaf or a branch) what happens."""

    def changed(self) -> None:
        """There may be something to report."""

    def ready(self) -> None:
        """Members can be run from now on."""

    def returned(self, members: IDSet) -> None:
        """What was asked back."""

    def failed(self, why: str) -> None:
        """Members can be run no longer, or never could."""


class Body(Protocol):
    """What runs members: a leaf by itself, a branch by its children."""

    @property
    def capacity(self) -> int:
        """Members that run at a time."""

    @property
    def left(self) -> int:
        """Members given that have not ended."""

    @property
    def running(self) -> int: ...

    @property
    def unstarted(self) -> int:
        """Members that could be returned."""

    def start(self) -> None:
        """Get ready; `Owner.ready` follows."""

    def give(self, members: IDSet) -> None: ...

    def take_back(self, count: int) -> None:
        """`Owner.returned` follows."""

    def take_report(self) -> tuple[IDSet, Tally]:
        """The members that ended since the last call, and how."""

    def take_tally(self) -> Tally:
        """The same where nobody asks which members these were."""

    def cancel(self, why: str) -> None:
        """End all members; they are reported as canceled."""

    def stop(self, done: Callable[[], object]) -> None:
        """No more members will come, and all have ended: end what is below, then call back."""

    def levels(self) -> list[dict[str, Any]]:
        """Numbers of this level and of each below; see `levels.Level`."""

    def records(self) -> list[list[Any]]:
        """A row for each instance below, as far as kept; see `levels.RECORD`."""
