"""The first level: gives all members to what is below, and tells whoever asked how it goes."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Any

from flux_mpi.ensemble.branch import Branch, Tokens
from flux_mpi.ensemble.choice import Work, choose
from flux_mpi.ensemble.leaf import Leaf
from flux_mpi.ensemble.levels import RECORD
from flux_mpi.ensemble.shape import Machine, topology_text
from flux_mpi.ensemble.spec import Spec
from flux_mpi.ensemble.tally import Tally
from flux_mpi.ensemble.world import Body, Cancelable, Stream, World
from flux_mpi.formats.idset import IDSet

PROGRESS_S = 0.1
"""The least time between two messages about progress."""
RATE_S = 3.0
"""How far back the rate in these looks."""
PROBE_S = 1.0
"""A first look at how long members take ends after this time, or once every core has run one."""
PROBE_LEAST = 4
"""Members that must have ended before the others are believed to be like them, if that is soon."""


class Top:
    """One ensemble. ``done()`` is called when all is over, whether anybody still listens or not."""

    def __init__(
        self,
        world: World,
        number: int,
        spec: Spec,
        members: IDSet,
        machine: Machine,
        tokens: Tokens,
        stream: Stream,
        done: Callable[[], object],
        *,
        auto: bool = False,
        cpus: int = 1,
        why: str = "",
    ) -> None:
        self._world = world
        self.number = number
        self.spec = spec
        self.members = members
        self._machine = machine
        self._tokens = tokens
        self._stream = stream
        self._done = done
        self._auto = auto
        self._cpus = cpus
        self._why = why
        self._probe: Leaf | None = None
        self._body: Body | None = None
        self.state = "starting"
        self.total = Tally()
        self._began = world.reactor.monotonic()
        self._begin_unix = world.reactor.now()
        self._wall = 0.0
        self._told = -1e9
        self._timer: Cancelable | None = None
        self._window: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._canceled = ""
        self._error = ""

    def start(self) -> None:
        """Begin; the stream is told from now on."""
        if self._auto and self.spec.expected is None:
            self.state = "probing"
            self._probe = Leaf(self._world, self.spec, self, self._machine, bounded=True)
            self._world.reactor.call_later(PROBE_S, self._probed)
            self._probe.start()
            self._probe.give(self.members)
        else:
            if self._auto:
                assert self.spec.expected is not None
                self._choose(self.spec.expected)
            self._begin(self.members)
        self.changed()

    def _begin(self, members: IDSet) -> None:
        """Run ``members`` with the topology that is set now."""
        if not self.spec.topology:
            self._body = Leaf(self._world, self.spec, self, self._machine, bounded=False)
            self._body.start()
            self._body.give(members)
            return
        branch = Branch(self._world, self.spec, self, self._machine, self._tokens)
        self._body = branch
        branch.start()
        branch.give(members)
        if self._probe is None:
            branch.seal()

    # -- auto: a first look ---------------------------------------------------------------------

    def _choose(self, seconds: float) -> None:
        work = Work(len(self.members), self.spec.shape, seconds, self.spec.mock)
        choice = choose(work, self._machine, self._cpus)
        self._why = choice.why
        self.spec = self.spec.divided(choice.topology, seconds)

    def _probed(self) -> None:
        """Enough is known of the members' run time, or it is time."""
        if self.state != "probing" or self._probe is None or self._canceled:
            return
        self.state = "running"
        mean = self.total.mean or (self._world.reactor.monotonic() - self._began)
        self._choose(mean)
        if not self.spec.topology:
            self._probe.release()
            return
        # What is in the queue here runs here; the rest goes to the children.
        held = self._probe.window.take_back(len(self._probe.window.held))
        self.state = "starting"
        self._begin(held)
        self._told = -1e9
        self.changed()

    # -- what the bodies say --------------------------------------------------------------------

    @property
    def _bodies(self) -> list[Body]:
        return [body for body in (self._probe, self._body) if body is not None]

    def ready(self) -> None:
        """Members can run."""
        if self.state == "starting":
            self.state = "running"
        self.changed()

    def returned(self, members: IDSet) -> None:
        """Nobody asks for members back here."""

    def failed(self, why: str) -> None:
        """No child instance is left, or this instance cannot run members."""
        if isinstance(self._body, Branch):
            self._body.give_up(why)
            return
        self._error = self._error or why
        self._world.reactor.call_soon(self._fail)

    def _fail(self) -> None:
        self.cancel(self._error)
        self._end()

    def changed(self) -> None:
        """Members may have ended."""
        for body in self._bodies:
            self.total.add(body.take_tally())
        if self.state == "probing":
            assert self._probe is not None
            enough = max(PROBE_LEAST, self._probe.capacity)
            if self.total.count >= min(enough, len(self.members)):
                self._probed()
        if self.total.count >= len(self.members) and self.state not in ("stopping", "ended"):
            self._finish()
        elif self._timer is None and self.state != "ended":
            delay = max(0.0, self._told + PROGRESS_S - self._world.reactor.monotonic())
            self._timer = self._world.reactor.call_later(delay, self._tell)

    def cancel(self, why: str) -> None:
        """End everything; the result follows as always."""
        if self.state in ("stopping", "ended") or self._canceled:
            return
        self._canceled = why or "canceled"
        for body in self._bodies:
            body.cancel(self._canceled)

    # -- progress and result --------------------------------------------------------------------

    def progress(self) -> dict[str, Any]:
        """How it goes."""
        now = self._world.reactor.monotonic()
        while len(self._window) > 2 and now - self._window[0][0] > RATE_S:
            self._window.popleft()
        then, count = self._window[0]
        told: dict[str, Any] = {
            "run": self.number,
            "state": self.state,
            "done": self.total.count,
            "failed": self.total.failed,
            "running": sum(body.running for body in self._bodies),
            "total": len(self.members),
            "elapsed": now - self._began,
            "rate": (self.total.count - count) / (now - then) if now > then else 0.0,
            "topology": topology_text(self.spec.topology),
            "workers": self._body.workers if isinstance(self._body, Branch) else 0,
        }
        if self._why:
            told["why"] = self._why
        return told

    def _tell(self) -> None:
        self._timer = None
        if self.state == "ended":
            return
        self._told = self._world.reactor.monotonic()
        self._stream.respond(self.progress())
        self._window.append((self._told, self.total.count))

    def _finish(self) -> None:
        """All members have ended; what ran them has to."""
        self.state = "stopping"
        self._wall = self._world.reactor.monotonic() - self._began
        left = len(self._bodies)

        def stopped() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._end()

        if not left:
            self._end()
        for body in self._bodies:
            body.stop(stopped)

    def result(self) -> dict[str, Any]:
        """The final statistics."""
        total = self.total
        levels = self._body.levels() if self._body is not None else []
        if levels:
            levels[0]["instances"] = 1
            levels[0]["ncores"] = self._machine.ncores
            levels[0]["jobs"] = total.count - (levels[1]["jobs"] if len(levels) > 1 else 0)
        machine = self._machine
        end = self._begin_unix + self._wall
        sizes = [machine.ranks, machine.ncores, machine.ngpus]
        records = [[self.spec.name, self._begin_unix, end, total.count, *sizes, 0]]
        for body in self._bodies:
            records += body.records()
        return {
            "count": total.count,
            "failed": total.failed,
            "lost": total.lost,
            "canceled": total.canceled,
            "status": total.status,
            "codes": dict(sorted(total.codes.items())),
            "failures": [list(failure) for failure in total.failures],
            "begin": self._begin_unix,
            "wall": self._wall,
            "rate": total.count / self._wall if self._wall else 0.0,
            "times": {
                "count": total.timed,
                "total": total.seconds,
                "mean": total.mean,
                "min": total.shortest if total.timed else 0.0,
                "median": total.quantile(0.5),
                "max": total.longest,
                "histogram": dict(sorted(total.histogram.items())),
            },
            "topology": topology_text(self.spec.topology),
            "why": self._why,
            "levels": levels,
            "records": [dict(zip(RECORD, row, strict=True)) for row in records],
        }

    def _end(self) -> None:
        if self.state == "ended":
            return
        self.state = "ended"
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._error:
            self._stream.error(errno.EINVAL, self._error)
        else:
            self._stream.respond({"result": self.result()})
            self._stream.error(errno.ENODATA)
        self._done()
