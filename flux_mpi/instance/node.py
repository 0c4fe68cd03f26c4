"""One broker of an instance put together: its services, its agent, its life.

Everything that touches the world is handed in: the reactor, the transport, the link to the
supervisor, the door for clients. A simulation hands in others and runs the very same code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_mpi import __version__
from flux_mpi.broker.attributes import parse_timeout
from flux_mpi.broker.broker import Broker
from flux_mpi.broker.logring import CRIT, DEBUG, ERR, INFO, LEVELS, Entry
from flux_mpi.broker.membership import Membership
from flux_mpi.broker.service import Request
from flux_mpi.broker.services import BrokerServices
from flux_mpi.instance import enclosing
from flux_mpi.instance.lifecycle import CLEANUP, JOIN, LEFT, SHUTDOWN, Lifecycle
from flux_mpi.instance.program import InitialProgram, NoProgram, Program
from flux_mpi.message.message import Message
from flux_mpi.overlay.transport import Transport
from flux_mpi.overlay.tree import DEFAULT_FANOUT, Tree
from flux_mpi.reactor import Reactor, Timer
from flux_mpi.resource.division import RankResources
from flux_mpi.shell.affinity import Topology
from flux_mpi.shell.env import SURROUNDINGS, scrub_job
from flux_mpi.shell.service import ExecService

if TYPE_CHECKING:
    from flux_mpi.ensemble.world import Caller
    from flux_mpi.instance.hosting import Hosting
    from flux_mpi.instance.root import Root
    from flux_mpi.shell.link import Link

QUIET_S = 0.1
"""How long no task must have run here before this broker uses a core to answer sooner."""
PART_BOUND_S = 3.0
"""How long a broker that leaves waits until its parent has heard so and all is sent."""


class Settings:
    """What an instance is started with; the same on every rank."""

    def __init__(
        self,
        *,
        config: dict[str, Any] | None = None,
        attributes: Mapping[str, str] | None = None,
        fanout: int = DEFAULT_FANOUT,
        command: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        cwd: str = "",
        join_timeout_s: float = 60.0,
        cleanup_timeout_s: float = 20.0,
        shutdown_timeout_s: float = 10.0,
        kill_grace_s: float = 2.0,
        stderr_level: int = ERR,
        frame_limit: int = 64 << 20,
        boot_method: str = "single",
        expiration: float = 0.0,
    ) -> None:
        self.config = config or {}
        self.attributes = dict(attributes or {})
        self.fanout = fanout
        self.command = list(command)
        self.environ = dict(os.environ if environ is None else environ)
        self.cwd = cwd
        self.join_timeout_s = join_timeout_s
        self.cleanup_timeout_s = cleanup_timeout_s
        self.shutdown_timeout_s = shutdown_timeout_s
        self.kill_grace_s = kill_grace_s
        self.stderr_level = stderr_level
        self.frame_limit = frame_limit
        self.boot_method = boot_method
        self.expiration = expiration
        """Unix time at which the instance will be ended; 0: none is known."""


class Node:
    """One rank. ``leave(status, orderly)`` is called once, when it is time to end the process."""

    def __init__(
        self,
        reactor: Reactor,
        transport: Transport,
        tree: Tree,
        link: Link,
        resources: RankResources,
        settings: Settings,
        *,
        rundir: str,
        uri: str,
        uid: int,
        leave: Callable[[int, bool], object],
        say: Callable[[str], object] = lambda text: None,
        program: Program | None = None,
        ensemble: tuple[Caller, str] | None = None,
    ) -> None:
        """``ensemble``: for rank 0 of an instance that was started for an ensemble of its parent,
        the parent's services and the token that it was started with."""
        self.ensemble = ensemble
        self.reactor = reactor
        self.settings = settings
        self.resources = resources
        self.rundir = rundir
        self.uri = uri
        self.link = link
        self.on_enter: list[Callable[[str], object]] = []
        """Called with each new level of this broker's life."""
        self._leave = leave
        self._say = say
        self._timer: Timer | None = None
        self._said_bye = False
        self._last_busy = 0.0
        self._parted = False
        self._leaving: tuple[int, bool] | None = None
        self.broker = broker = Broker(
            reactor, transport, tree, uid=uid, frame_limit=settings.frame_limit
        )
        self.hosts = transport.hosts
        self.membership = (
            Membership(tree, transport.hosts, reactor.now()) if broker.rank == 0 else None
        )
        self._define_attributes(tree)
        broker.ring.follow(self._logged)
        BrokerServices(broker, settings.config, self.membership)
        self.root: Root | None = None
        if broker.rank == 0:
            # Before the agent, whose turn must come after the manager's (docs/architecture.md).
            # Imported here, so that no other rank loads a scheduler, nor the NumPy it counts with.
            from flux_mpi.instance.root import Root

            self.root = Root(self)
            broker.register("log", {"forward": self._forwarded})
        self.exec = ExecService(
            broker,
            link,
            hostname=resources.hostname,
            rundir=rundir,
            uri=uri,
            path=broker.attrs.get("jobid-path"),
            surroundings=self.surroundings(),
            topology=_topology(resources),
            environ=settings.environ,
        )
        if program is None and settings.command:
            program = InitialProgram(
                link,
                reactor,
                settings.command,
                environ={**scrub_job(settings.environ), **self.surroundings()},
                uri=uri,
                cwd=settings.cwd,
                grace_s=settings.kill_grace_s,
                say=say,
            )
        self.program = program or NoProgram(reactor)
        self.hosting: Hosting | None = None
        self.life = Lifecycle(self, root=broker.rank == 0, children=set(broker.children))
        link.on_signal = self._signalled
        link.on_lost = self._supervisor_lost
        broker.on_peer_lost.append(self._peer_lost)
        broker.control("shutdown", lambda message, peer: self.life.shutdown())
        broker.control("bye", self._bye)
        broker.control("farewell", self._farewell)

    def open(self) -> None:
        """Begin: link up with the neighbours and announce what this rank has.

        Register whatever else acts at a turn's end before; the transport must come last.
        """
        self.broker.open()
        self.enter(JOIN)
        self.exec.announce(self.resources.hello(self.broker.rank))
        if self.broker.rank:
            self.life.joined()

    def has_spare_cores(self) -> bool:
        """Whether no task of ours wants the cores here: then this broker may keep one awake.

        Not between one task and the next either: on a busy node other ranks' tasks want them.
        """
        now = self.reactor.monotonic()
        if self.exec.agent.busy or (self.root is not None and self.root.jobs.running):
            self._last_busy = now
        return now - self._last_busy > QUIET_S

    # -- attributes -----------------------------------------------------------------------------

    def _define_attributes(self, tree: Tree) -> None:
        broker, settings = self.broker, self.settings
        environ = settings.environ
        depth = enclosing.level(environ)
        path = environ["FLUX_JOB_ID_PATH"] if depth else "/"
        defaults: dict[str, object] = {
            "broker.cleanup-timeout": f"{settings.cleanup_timeout_s:g}s",
            "broker.shutdown-timeout": f"{settings.shutdown_timeout_s:g}s",
            "log-critical-level": CRIT,
            "log-forward-level": ERR,
            "log-level": DEBUG,
            "log-ring-size": 1024,
            "log-stderr-level": settings.stderr_level,
            "log-stderr-mode": "leader",
        }
        for name, value in defaults.items():
            broker.attrs.set(name, value)
        for name, value in {
            "broker.boot-method": settings.boot_method,
            "broker.pid": os.getpid(),
            "broker.quorum": broker.size,
            "broker.starttime": f"{self.reactor.now():.2f}",
            "hostlist": _hostlist(self.hosts),
            "hostname": self.resources.hostname,
            "instance-level": depth,
            "jobid-path": path,
            "local-uri": self.uri,
            "rank": broker.rank,
            "rundir": self.rundir,
            "security.owner": broker.uid,
            "size": broker.size,
            "tbon.descendants": len(tree.subtree(broker.rank)) - 1,
            "tbon.fanout": tree.fanout,
            "tbon.level": tree.level(broker.rank),
            "tbon.maxlevel": tree.maxlevel,
            "tbon.topo": f"kary:{tree.fanout}",
            "version": __version__,
        }.items():
            broker.attrs.define(name, value)
        if depth:
            broker.attrs.define("jobid", environ["FLUX_JOB_ID"])
            if environ.get("FLUX_URI"):
                broker.attrs.define("parent-uri", environ["FLUX_URI"])
            if environ.get("FLUX_KVS_NAMESPACE"):
                broker.attrs.define("parent-kvs-namespace", environ["FLUX_KVS_NAMESPACE"])
        for name, text in settings.attributes.items():
            broker.attrs.set(name, text)  # refuses what is not the user's to say
        broker.ring.resize(int(broker.attrs.get("log-ring-size")))

    def surroundings(self) -> dict[str, str]:
        """What tells a program of this instance in which job of which other one the instance is."""
        attrs = self.broker.attrs
        named = dict(zip(SURROUNDINGS, ("jobid", "parent-uri")))
        return {name: attrs.get(key) for name, key in named.items() if key in attrs}

    # -- log ------------------------------------------------------------------------------------

    def _logged(self, entry: Entry) -> None:
        attrs = self.broker.attrs
        _, level, component, rank, text = entry
        here = rank == self.broker.rank
        if here and self.broker.rank and level <= int(attrs.get("log-forward-level")):
            self.broker.send("log.forward", list(entry), rank=0)
        shown = level <= int(attrs.get("log-stderr-level"))
        if attrs.get("log-stderr-mode") == "local":
            shown = shown and here
        else:
            shown = shown and self.broker.rank == 0
        if shown or (here and level <= int(attrs.get("log-critical-level"))):
            self._say(f"{component}.{LEVELS[level]}[{rank}]: {text}")

    def _forwarded(self, request: Request) -> None:
        when, level, component, rank, text = request.payload
        self.broker.ring.append(
            (float(when), min(max(int(level), 0), DEBUG), str(component), int(rank), str(text))
        )

    # -- what happens ---------------------------------------------------------------------------

    def _signalled(self, signum: int) -> None:
        if self.root is not None:
            self.root.signalled(signum, 0)
        else:
            # A launcher signals all of its ranks; the root counts each signal once.
            self.broker.send("instance.signal", {"signum": signum, "rank": self.broker.rank})

    def _supervisor_lost(self) -> None:
        self.broker.log(ERR, "broker", "the supervisor of this rank is gone")
        self.life.abort(1)

    def _peer_lost(self, peer: int, why: str) -> None:
        if peer == self.broker.parent:
            self._parted = True
            if not self._said_bye:
                self.broker.log(ERR, "overlay", f"lost the parent, rank {peer}: {why}")
                self.life.parent_lost()
            return
        if self.life.level not in (SHUTDOWN, LEFT):
            self.broker.log(ERR, "overlay", f"lost rank {peer}: {why}")
        self._child_gone(peer, why)

    def _bye(self, message: Message, peer: int) -> None:
        if peer not in self.broker.children:
            return
        self.broker.farewell(peer)
        if self.life.level in (SHUTDOWN, LEFT):
            self.life.child_gone(peer)
        else:
            # Nobody asked it to. What ran there and below is as gone as after a crash.
            self.broker.log(ERR, "overlay", f"rank {peer} has left")
            self._child_gone(peer, "it has left")

    def _child_gone(self, peer: int, why: str) -> None:
        if self.root is not None:
            self.root.link_lost(peer, why)
        else:
            self.broker.send("instance.lost", {"rank": peer, "why": why}, rank=0)
        self.life.child_gone(peer)

    def _farewell(self, message: Message, peer: int) -> None:
        if peer == self.broker.parent:
            # Not another word to it, not even of what was taken in: it may be gone by then.
            self.broker.transport.drop(peer)
            self._parted = True

    # -- the world of the lifecycle -------------------------------------------------------------

    def enter(self, level: str) -> None:
        """The lifecycle's level has changed."""
        self.broker.log(DEBUG, "broker", f"{level}")
        for follow in self.on_enter:
            follow(level)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        bound: float | None = None
        if level == JOIN:
            bound = self.settings.join_timeout_s
        elif level in (CLEANUP, SHUTDOWN):
            bound = parse_timeout(self.broker.attrs.get(f"broker.{level}-timeout"))
        if bound is not None:
            self._timer = self.reactor.call_later(bound, self._expired)

    def _expired(self) -> None:
        level = self.life.level
        text = f"{level}: not done in time"
        if level == JOIN and self.membership is not None:
            missing = ", ".join(map(str, self.membership.ranks("offline")))
            text = f"ranks that did not come up in time: {missing}"
        self.broker.log(ERR, "broker", text)
        self.life.expired()

    def start_program(self) -> None:
        """Run the initial program, if there is one to run."""
        if self.settings.command:
            self.broker.log(INFO, "broker", f"running {' '.join(self.settings.command)}")
        self.program.start(self.life.program_ended)
        if self.root is not None and self.ensemble is not None:
            self.root.ensembles.start()

    def stop_program(self, now: bool) -> None:
        """End the initial program."""
        self.program.stop(now)

    def stop_jobs(self, now: bool) -> None:
        """Take no more jobs and end those there are."""
        if self.root is not None:
            self.root.stop_jobs(now)
        if now:
            self.link.shutdown(0.0)
            if self.hosting is not None:
                self.hosting.abort()

    def stop_tree(self) -> None:
        """Pass the order to shut down on."""
        for child in tuple(self.broker.children):
            self.broker.send_control(child, "shutdown")

    def leave(self, status: int, orderly: bool) -> None:
        """All below have left: say so to the parent, and go."""
        self._said_bye = True
        if self.broker.parent is None:
            self._parted = True
        else:
            self.broker.send_control(self.broker.parent, "bye")
        self.link.shutdown(self.settings.kill_grace_s if orderly else 0.0)
        if self.hosting is not None:
            self.hosting.abort()  # what is left: in good order there is nothing
        # What was said must have gone out: that is known after the transport's own hook.
        self._leaving = (status, orderly)
        self.reactor.at_turn_end(self._leave_when_parted)
        self.reactor.call_later(PART_BOUND_S, self._leave_now)
        self.reactor.call_soon(lambda: None)

    def _leave_when_parted(self) -> None:
        hosting = self.hosting
        if hosting is not None and hosting.children:
            return
        if self._parted and self.broker.transport.drained():
            self._leave_now()

    def _leave_now(self) -> None:
        if self._leaving is not None:
            status, orderly = self._leaving
            self._leaving = None
            self._leave(status, orderly)


def _hostlist(hosts: Sequence[str]) -> str:
    from flux_mpi.formats.hostlist import Hostlist

    return str(Hostlist(hosts))


def _topology(resources: RankResources) -> Topology:
    """What the agent must know to bind tasks to this rank's cores and show them its GPUs."""
    cpus = {core: sorted(cpus) for core, cpus in enumerate(resources.cores)}
    amd = any(gpu.vendor == "amd" for gpu in resources.gpus)
    return Topology(
        cpus if resources.binding else None,
        gpu_names=[gpu.device for gpu in resources.gpus],
        gpu_variable="ROCR_VISIBLE_DEVICES" if amd else "CUDA_VISIBLE_DEVICES",
    )
