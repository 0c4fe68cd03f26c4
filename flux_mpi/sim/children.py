"""Child instances of simulated machines: each a machine of its own, on the same clock.

A job whose command is ``flux-mpi broker --ensemble=TOKEN`` becomes an instance on the job's
resources, at any depth. What a real one does to come up is not simulated: it takes ``start_s``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flux_mpi.broker.service import Response, Rpc
from flux_mpi.formats import fluid
from flux_mpi.sim.launcher import Duration, Kill, behaviour
from flux_mpi.sim.machine import Machine

OPTION = "--ensemble="
SIGKILL, SIGTERM = 9, 15


class Upstream:
    """A child's way to the services of its parent: what is said takes ``latency_s`` to arrive."""

    def __init__(self, parent: Machine, latency_s: float) -> None:
        self._parent = parent
        self._latency_s = latency_s
        self.child: Machine | None = None
        self.calls = 0
        self._open: list[Rpc] = []
        self._closed = False

    def rpc(
        self,
        topic: str,
        payload: Any,
        callback: Callable[[Response], object],
        *,
        streaming: bool = False,
    ) -> None:
        """Call a service of the parent."""
        node = self._parent.nodes[0]

        def ask() -> None:
            if not self._closed:
                call = node.broker.rpc(topic, payload, answered, streaming=streaming)
                if streaming:
                    self._open.append(call)

        def answered(response: Response) -> None:
            child = self.child
            if child is not None and not self._closed:
                child.lane(child.nodes[0]).call_later(self._latency_s, lambda: callback(response))

        self.calls += 1
        self._parent.lane(node).call_later(self._latency_s, ask)

    def close(self) -> None:
        """The child is gone, and its connection with it."""
        if not self._closed:
            self._closed = True
            lane = self._parent.lane(self._parent.nodes[0])
            for call in self._open:
                lane.call_later(self._latency_s, call.cancel)


class Child:
    """One child instance, from its job's start to its end."""

    def __init__(self, family: Children, parent: Machine, jobid: int, token: str) -> None:
        self.parent = parent
        self.jobid = jobid
        self.upstream = Upstream(parent, family.latency_s)
        self.machine: Machine | None = None
        self.ends: list[Callable[[int], object]] = []
        self._family = family
        self._token = token
        self._over = False
        parent.lane(parent.nodes[0]).call_later(family.start_s, self._begin)

    def _begin(self) -> None:
        root = self.parent.nodes[0].root
        if self._over or root is None:
            return
        jobs, k = root.jobs.manager.find(self.jobid)
        placement = root.jobs.manager.store.ledger.placement[jobs.row(k)]
        assert placement is not None
        self.machine = self.upstream.child = machine = Machine(
            len(placement.parts),
            cores=[part.cores.bit_count() for part in placement.parts],
            hosts=placement.hosts,
            duration=self._family.duration_of(self),
            reactor=self.parent.reactor,
            ensemble=(self.upstream, self._token),
            settle=False,
        )
        machine.on_left = self._left
        self._family.attach(machine)

    def _left(self, rank: int, status: int, orderly: bool) -> None:
        if rank == 0:
            self._end(status << 8)

    def kill(self, signum: int) -> None:
        """A signal: TERM ends it in good order, KILL at once."""
        machine = self.machine
        if signum == SIGTERM and machine is not None and not self._over:
            node = machine.nodes[0]
            machine.lane(node).call_soon(lambda: node.life.signalled(signum))
        elif signum in (SIGTERM, SIGKILL):
            self.crash(signum)

    def crash(self, signum: int = SIGKILL) -> None:
        """It dies with all that runs in it."""
        if self.machine is not None:
            self._family.forget(self.machine)
            for rank in range(len(self.machine.nodes)):
                self.machine.remove(rank)
        self._end(signum)

    def _end(self, status: int) -> None:
        if not self._over:
            self._over = True
            self._family.ended(self)
            self.upstream.close()
            for end in self.ends:
                end(status)


class Children:
    """All child instances below a machine. ``duration`` is how long their tasks take."""

    def __init__(
        self,
        machine: Machine,
        *,
        start_s: float = 0.05,
        latency_s: float = 1e-4,
        duration: Duration = behaviour,
    ) -> None:
        self.start_s = start_s
        self.latency_s = latency_s
        self.living: list[Child] = []
        self.born = 0
        self.spoken = 0
        """Calls that children which have ended made to their parents."""
        self.duration_of: Callable[[Child], Duration] = lambda child: duration
        """How long the tasks of one of them take."""
        self._by_job: dict[tuple[int, int], Child] = {}
        self._over: dict[Machine, set[int]] = {}
        self.attach(machine)

    def attach(self, machine: Machine) -> None:
        """Let jobs of this machine become instances."""
        for link in machine.links:
            link.host = lambda argv, env, end: self._host(machine, argv, env, end)

    def _host(
        self,
        machine: Machine,
        argv: list[str],
        env: dict[str, str],
        end: Callable[[int], object],
    ) -> Kill | None:
        token = next((word[len(OPTION) :] for word in argv if word.startswith(OPTION)), None)
        if argv[:2] != ["flux-mpi", "broker"] or token is None:
            return None
        jobid = fluid.parse(env["FLUX_JOB_ID"])
        if jobid in self._over.get(machine, ()):
            # Another task of its job died before this one began.
            machine.reactor.call_soon(lambda: end(SIGKILL))
            return lambda signum: None
        child = self._by_job.get((id(machine), jobid))
        if child is None:
            child = self._by_job[id(machine), jobid] = Child(self, machine, jobid, token)
            self.living.append(child)
            self.born += 1
        child.ends.append(end)
        return child.kill

    def ended(self, child: Child) -> None:
        """A child instance is over."""
        self.living.remove(child)
        self.spoken += child.upstream.calls
        del self._by_job[id(child.parent), child.jobid]
        self._over.setdefault(child.parent, set()).add(child.jobid)

    def forget(self, machine: Machine) -> None:
        """All that is below a machine dies with it."""
        for child in [child for child in self.living if child.parent is machine]:
            child.crash()

    def of(self, machine: Machine) -> list[Child]:
        """The child instances of a machine, by the order of their jobs."""
        return sorted(
            (child for child in self.living if child.parent is machine),
            key=lambda child: child.jobid,
        )
