"""The broker's process: from the words after ``start`` to an exit status.

Thin: reads options and configuration, brings MPI up where there is more than one rank, puts the
node together on the real reactor, runs it, and leaves in an order that leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

from flux_mpi.broker.clients import ClientServer
from flux_mpi.broker.logring import DEBUG, ERR, INFO, WARNING
from flux_mpi.instance import config as configuration
from flux_mpi.instance import enclosing, launcher
from flux_mpi.instance.deadline import ends_within
from flux_mpi.instance.hosting import Hosting, House
from flux_mpi.instance.lifecycle import RUN
from flux_mpi.instance.node import Node, Settings
from flux_mpi.instance.options import StartOptions, UsageError, parse
from flux_mpi.instance.world import World
from flux_mpi.message.errors import FluxError
from flux_mpi.overlay.creation import COMMUNICATOR, LOOPBACK
from flux_mpi.overlay.loopback import single
from flux_mpi.overlay.transport import Transport
from flux_mpi.overlay.tree import DEFAULT_FANOUT, Tree
from flux_mpi.reactor.epoll import EpollReactor
from flux_mpi.resource.discovery import discover
from flux_mpi.resource.division import RankResources, claim, divide
from flux_mpi.shell import rundir
from flux_mpi.shell.env import path_with_us
from flux_mpi.shell.link import Link

SOCKET_PATH_LIMIT = 100
"""Longest usable socket path: the kernel's 107 bytes, less what our names may still grow."""
MPICH_SEGMENTS = "/dev/shm/mpich_shm_"
OPENMPI_SEGMENTS = "/dev/shm/sm_segment."
KILL_TIMEOUT_S = 5.0
"""``exec.kill-timeout`` of an instance that is in no other's job."""
FINALIZE_BOUND_S = 20.0
"""``MPI_Finalize`` waits for every rank; one that died unseen must not keep us."""


class StartError(Exception):
    """The instance cannot start; the text says why and what to do."""


class RankError(StartError):
    """This rank cannot start, others perhaps can."""


def main() -> int:
    """Run the broker of this rank; returns its exit status."""
    launch = launcher.detect()
    process: _Process | None = None
    try:
        options = parse(sys.argv[1:])
        process = _Process(options, _settings(options, launch), launch)
        return process.run()
    except RankError as error:
        _say(f"rank {launch.rank}: {error}")
        return 1
    except (UsageError, StartError, FluxError, configuration.ConfigError) as error:
        # What is wrong on one rank mostly is on all: say it once.
        if launch.rank == 0:
            _say(str(error))
        return 1
    finally:
        if process is not None:
            process.remove_rundir()


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"flux-mpi: {text}\n".encode(errors="surrogateescape"))


def _settings(options: StartOptions, launch: launcher.Launch) -> Settings:
    if options.ensemble:
        raise StartError("start: --ensemble is only for instances that an ensemble makes")
    config = configuration.load(options.conf)
    configuration.check(config)
    command = options.command
    if launch.rank == 0 and not command:
        if not os.isatty(0):
            raise StartError(
                "start: no COMMAND was given, and standard input is no terminal for a shell"
            )
        command = [os.environ.get("SHELL") or "/bin/sh", "-i"]
    elif len(command) == 1 and " " in command[0] and not os.access(command[0], os.X_OK):
        # One word with spaces in it is a line for the shell, as with Flux.
        command = [os.environ.get("SHELL") or "/bin/sh", "-c", command[0]]
    environ = _own_environment()
    depth = enclosing.level(environ)
    if depth:
        # Given up before whoever runs our job gives up on us.
        execution = config.setdefault("exec", {})
        if isinstance(execution, dict):
            execution.setdefault("kill-timeout", enclosing.patience(KILL_TIMEOUT_S, depth))
    if options.statedir is not None:
        _make_folder("--statedir", options.statedir)
        options.setattr.setdefault("statedir", os.path.abspath(options.statedir))
    get = configuration.get
    asked = configuration.fanout(config, options.setattr, DEFAULT_FANOUT)
    return Settings(
        config=config,
        attributes=options.setattr,
        fanout=options.fanout or asked,
        command=command,
        environ=environ,
        cwd=os.getcwd(),
        join_timeout_s=get(config, "broker.join-timeout", 60.0),
        cleanup_timeout_s=get(config, "broker.cleanup-timeout", 20.0),
        shutdown_timeout_s=get(config, "broker.shutdown-timeout", 10.0),
        kill_grace_s=get(config, "broker.kill-grace", enclosing.patience(2.0, depth)),
        stderr_level=(ERR, INFO, DEBUG)[min(options.verbose, 2)],
        frame_limit=get(config, "broker.max-frame", 64 << 20),
        boot_method=launch.launcher or "single",
    )


def _own_environment() -> dict[str, str]:
    """The environment for programs: ours, with ``flux-mpi`` to be found on PATH."""
    environ = dict(os.environ)
    environ["PATH"] = path_with_us(environ.get("PATH"))
    return environ


def _make_folder(name: str, path: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise RankError(f"{name}: cannot make {path}: {error.strerror}") from None


def _make_rundir(settings: Settings) -> str:
    wanted = settings.attributes.pop("rundir", None)
    if wanted is not None:
        _make_folder("rundir", wanted)
        if len(os.fsencode(wanted)) + 40 > SOCKET_PATH_LIMIT:
            raise RankError(f"rundir: {wanted} is too long for a socket's path")
    # A job's own directory is removed with the job, whatever becomes of us.
    around = os.environ.get("FLUX_JOB_TMPDIR")
    bases = ((wanted, 40), (around, 28), (os.environ.get("TMPDIR"), 40))
    base = next((base for base, room in bases if base and _can_hold_sockets(base, room)), "/tmp")
    try:
        # There by a short name, which leaves room for the paths of instances further down.
        return rundir.make(base, short=base == around)
    except OSError as error:
        raise RankError(f"cannot make a run directory in {base}: {error.strerror}") from None


def _can_hold_sockets(base: str, room: int) -> bool:
    """Whether names of so many bytes below ``base`` make paths that a socket may have."""
    return len(os.fsencode(base)) + room <= SOCKET_PATH_LIMIT and os.path.isdir(base)


def _unlink_mapped(prefix: str) -> None:
    """Remove the files that this process has mapped and whose path starts with ``prefix``."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            paths = {line.split(None, 5)[5].strip() for line in maps if prefix in line}
    except OSError:
        return
    for path in paths:
        if path.startswith(prefix):
            with contextlib.suppress(OSError):
                os.unlink(path)


class _Process:
    """This rank's process around its node."""

    def __init__(self, options: StartOptions, settings: Settings, launch: launcher.Launch) -> None:
        self.options = options
        self.settings = settings
        self.launch = launch
        self.rundir = ""
        self.reactor = EpollReactor()
        self.mpi: Any = None
        self.communicators: Any = None
        self._status = 1
        self._orderly = False
        self._apart = ""
        """Why this instance is no part of a hierarchy, although its environment names one."""

    def run(self) -> int:
        """Start, turn until the node leaves, end."""
        link = Link.from_environment(self.reactor, os.environ)
        if link is None:
            raise StartError("a broker is started by 'flux-mpi start', never by itself")
        # Before there is anything to clean up: a launcher that gives up ends us in the midst of it.
        comm = self._init_mpi() if self.launch.size > 1 else None
        self.rundir = _make_rundir(self.settings)
        link.set_run_directory(self.rundir)
        link.flush()
        transport, resources = self._connect(comm)
        around = self._look_around() if transport.rank == 0 else None
        tree = Tree(transport.hosts, self.settings.fanout)
        path = os.path.join(self.rundir, f"local-{transport.rank}")
        node = Node(
            self.reactor,
            transport,
            tree,
            link,
            resources,
            self.settings,
            rundir=self.rundir,
            uri=f"local://{path}",
            uid=os.geteuid(),
            leave=self._leave,
            say=_say,
        )
        node.broker.attrs.define("transport", LOOPBACK if comm is None else COMMUNICATOR)
        house = House(self.reactor, link, rundir=self.rundir, uid=os.geteuid(), say=_say)
        house.nodes[node] = None
        house.world = World(node.broker, transport.hosts, self._maker(comm))
        hosting = Hosting(house, node, range(transport.size))
        self.reactor.may_spin = house.has_spare_cores
        door = ClientServer(node.broker, path)
        if around is not None:
            self._join_hierarchy(node, around)
        elif self._apart:
            node.broker.log(WARNING, "broker", self._apart)
        node.open()
        try:
            self.reactor.run()
        finally:
            hosting.close()
            node.exec.close()
            door.close()
            if around is not None:
                around.close()
        transport.flush()
        link.flush()
        self._finish(transport, link)
        # How the instance ended, rank 0 alone says: launchers merge the codes of all ranks, and one
        # that was cut off from the root must not spoil that of an instance that went on without it.
        return self._status if transport.rank == 0 else 0

    def _look_around(self) -> enclosing.Enclosing | None:
        """The instance in whose job this one is, if so; our end is known then."""
        environ = self.settings.environ
        if not enclosing.level(environ):
            return None
        around = None
        try:
            around = enclosing.Enclosing(environ.get("FLUX_URI", ""), environ["FLUX_JOB_ID"])
            self.settings.expiration = around.expiration()
        except (FluxError, ValueError) as error:
            # The user's own variables may say anything: no reason not to start.
            self._apart = f"not known to the instance of job {environ['FLUX_JOB_ID']}: {error}"
            if around is not None:
                around.close()
            return None
        return around

    def _join_hierarchy(self, node: Node, around: enclosing.Enclosing) -> None:
        """Tell the enclosing instance where we are once we serve, and end when it does."""
        log = node.broker.log

        def announced(answer: Any, wrong: str) -> None:
            if wrong:
                log(ERR, "broker", f"the enclosing instance took no memo of our URI: {wrong}")

        def entered(level: str) -> None:
            if level == RUN:
                uri = enclosing.remote_uri(node.uri, node.resources.hostname)
                around.announce(uri, announced)

        def lost() -> None:
            log(ERR, "broker", "the enclosing instance is gone: there is nobody to run for")
            assert node.root is not None
            node.root.signalled(signal.SIGTERM, 0)

        around.follow(self.reactor, lost)
        node.on_enter.append(entered)

    def _leave(self, status: int, orderly: bool) -> None:
        self._status, self._orderly = status, orderly
        self.reactor.stop()

    # -- up -------------------------------------------------------------------------------------

    def remove_rundir(self) -> None:
        """Remove this broker's directory. Idempotent."""
        if self.rundir:
            rundir.remove(self.rundir)

    def _connect(self, comm: Any) -> tuple[Transport, RankResources]:
        topology = discover()
        cores, gpus = self.options.cores_per_rank, self.options.gpus_per_rank
        if comm is None:
            resources = divide(topology, 0, 1, cores_per_rank=cores, gpus_per_rank=gpus)
            return single(self.reactor, topology.hostname), resources
        from flux_mpi.overlay.mpi import MPITransport

        transport = MPITransport.boot(
            comm,
            self.reactor,
            self.rundir,
            topology.hostname,
            card=claim(topology),
            doorbell=configuration.get(self.settings.config, "overlay.doorbell", True),
            timeout_s=self.settings.join_timeout_s,
            lost_after_s=configuration.get(self.settings.config, "overlay.timeout", 60.0),
        )
        # MPICH removes the name when the last rank finalizes; where one is killed it would stay for
        # good. Every rank of the node has mapped it by now.
        _unlink_mapped(MPICH_SEGMENTS)
        here = [rank for rank, host in enumerate(transport.hosts) if host == topology.hostname]
        resources = divide(
            topology,
            here.index(transport.rank),
            len(here),
            claims=[transport.cards[rank] for rank in here],
            cores_per_rank=cores,
            gpus_per_rank=gpus,
        )
        return transport, resources

    def _maker(self, comm: Any) -> Any:
        """Who makes the transports of child instances; None: they have one rank each."""
        if comm is None:
            return None
        from flux_mpi.instance.communicators import LIVE_LIMIT, Communicators

        get = configuration.get
        self.communicators = Communicators(
            comm,
            self.reactor,
            doorbell=get(self.settings.config, "overlay.doorbell", True),
            lost_after_s=get(self.settings.config, "overlay.timeout", 60.0),
            limit=get(self.settings.config, "overlay.max-communicators", LIVE_LIMIT),
        )
        return self.communicators

    def _init_mpi(self) -> Any:
        import mpi4py

        mpi4py.rc.initialize = False
        mpi4py.rc.finalize = False
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise StartError(
                f"MPI cannot be loaded: {error}; install one with: pip install 'flux-mpi[mpich]'"
            ) from None
        # Communicators of child instances are made in threads of their own, which wait. MPICH's are
        # to leave the cores to others (measured: one that waits takes 13 % of a core, not 65).
        # Open MPI's own setting of the kind gains nothing there, and makes its ranks end later than
        # its mpiexec waits for them.
        os.environ.setdefault("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
        self.mpi = MPI
        trap = launcher.singleton_trap(self.launch, MPI.COMM_WORLD.Get_size())
        if trap is not None:
            if MPI.COMM_WORLD.Get_size() == 1:
                # Or its shared memory would stay; alone, it waits for nobody.
                _unlink_mapped(OPENMPI_SEGMENTS)
                MPI.Finalize()
            raise StartError(trap)
        return MPI.COMM_WORLD

    # -- down -----------------------------------------------------------------------------------

    def _finish(self, transport: Transport, link: Link) -> None:
        if self.mpi is None:
            return
        # Open MPI's are mapped when first used, so not before. Its launcher removes them, if it is
        # not what was killed.
        _unlink_mapped(OPENMPI_SEGMENTS)
        assert self.communicators is not None
        if not self._orderly or link.lost or self.communicators.blocked:
            # Someone is missing: MPI_Finalize would wait for them for ever. Without the supervisor
            # the launcher takes us for dead, and its other ranks with us: it answers no more.
            link.finalize_for_us()
            link.flush()
            return
        transport.close()
        self.communicators.discard()
        # Before, as MPI ends this process at once when it finds that the launcher is gone.
        self.remove_rundir()
        try:
            with ends_within(FINALIZE_BOUND_S):
                self.mpi.Finalize()
        except self.mpi.Exception:
            # MPICH will not when a message was left unreceived, as by a peer that was lost.
            link.finalize_for_us()
            link.flush()
