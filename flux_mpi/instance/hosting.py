"""Child instances in this process: jobs of an instance that are instances themselves.

A child's broker is one more ``Node`` on the same loop, with a scope of the reactor, a share of the
line to the supervisor and a transport of its own; so it costs no process, and its start no more
than some messages. It is gone completely once its job has ended.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from flux_mpi.broker.clients import ClientServer
from flux_mpi.broker.logring import ERR
from flux_mpi.broker.service import Response, Rpc
from flux_mpi.formats import fluid
from flux_mpi.formats.idset import IDSet
from flux_mpi.instance import config as configuration
from flux_mpi.instance.enclosing import remote_uri
from flux_mpi.instance.lifecycle import LEFT, exit_status
from flux_mpi.instance.node import Node, Settings
from flux_mpi.instance.options import StartOptions, UsageError, parse
from flux_mpi.instance.program import Ended
from flux_mpi.instance.world import Newborn, World
from flux_mpi.message.errors import FluxError
from flux_mpi.overlay.creation import LOOPBACK
from flux_mpi.overlay.loopback import single
from flux_mpi.overlay.transport import Transport
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor import Reactor
from flux_mpi.reactor.scope import Scope
from flux_mpi.shell import rundir
from flux_mpi.shell.agent import Birth
from flux_mpi.shell.branch import Branch
from flux_mpi.shell.env import encode_all, path_with_us
from flux_mpi.shell.link import Link

ENDING = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
"""Signals that end an instance in good order; others are for its program."""


class Door(Protocol):
    """Lets clients in."""

    def close(self) -> None:
        """Lets nobody in any more, and those who are out."""


class House:
    """What all instances of this process share."""

    def __init__(
        self,
        reactor: Reactor,
        link: Link,
        *,
        rundir: str,
        uid: int,
        say: Callable[[str], object],
    ) -> None:
        self.reactor = reactor
        self.link = link
        self.rundir = rundir
        self.uid = uid
        self.say = say
        self.world: World | None = None
        self.nodes: dict[Node, None] = {}
        self._folders = 0

    def folder(self) -> str:
        """A new directory for an instance's sockets. Raises OSError.

        All lie side by side: the path of a socket has room for 107 bytes, whatever the depth.
        """
        self._folders += 1
        path = os.path.join(self.rundir, f"i{self._folders}")
        os.mkdir(path, 0o700)
        return path

    def remove(self, folder: str) -> None:
        """An instance's directory is not needed any more."""
        rundir.remove(folder)

    def door(self, node: Node, folder: str) -> Door:
        """Let clients in to ``node``, whose URI names a socket in ``folder``. Raises OSError."""
        return ClientServer(node.broker, os.path.join(folder, f"local-{node.broker.rank}"))

    def has_spare_cores(self) -> bool:
        """Whether no task of any instance here wants a core."""
        spare = [node.has_spare_cores() for node in self.nodes]  # each keeps its own time
        return all(spare)


class Hosting:
    """The children of ``node`` on this rank; ``members`` are its ranks in the world."""

    def __init__(self, house: House, node: Node, members: Sequence[int]) -> None:
        self.house = house
        self.node = node
        self.members = list(members)
        self.children: dict[int, Child] = {}
        node.hosting = self
        node.exec.nursery = self
        node.broker.subscribe("resource.", self._resources_changed)

    def begin(self, birth: Birth) -> None:
        """See ``shell.service.Nursery``."""
        child = self.children[birth.jobid] = Child(self, birth)
        child.begin()

    def program_ended(self, jobid: int, status: int) -> None:
        """See ``shell.service.Nursery``."""
        child = self.children.get(jobid)
        if child is not None:
            child.program.over(exit_status(status))

    def signal(self, jobid: int, signum: int) -> None:
        """See ``shell.service.Nursery``."""
        child = self.children.get(jobid)
        if child is not None:
            child.signal(signum)

    def _resources_changed(self, topic: str, seq: int, payload: Any) -> None:
        """Ranks of this instance were drained, or are used again: so are their children's."""
        ranks = IDSet.parse(payload["ranks"])
        if self.node.broker.rank in ranks:
            drained = topic == "resource.drain"
            for child in tuple(self.children.values()):
                child.inherit(drained, payload["reason"])

    def abort(self) -> None:
        """End all children at once."""
        for child in tuple(self.children.values()):
            child.signal(signal.SIGKILL)

    def close(self) -> None:
        """The process is about to end: give back what children still have."""
        for child in tuple(self.children.values()):
            child.close()


class _Program:
    """The initial program of a child: a task of its job, with the job's output and input."""

    def __init__(self, child: Child, command: Sequence[str]) -> None:
        self._child = child
        self._command = list(command)
        self._ended: Ended | None = None

    def start(self, ended: Ended) -> None:
        self._ended = ended
        self._child.started(self._command)

    def stop(self, now: bool) -> None:
        child = self._child
        if not self._command:
            self.over(0)
            return
        if now:
            child.signal_program(signal.SIGKILL)
            return
        child.signal_program(signal.SIGTERM)
        child.signal_program(signal.SIGCONT)
        child.scope.call_later(child.grace_s, self._insist)

    def _insist(self) -> None:
        if self._ended is not None:
            self._child.signal_program(signal.SIGKILL)

    def over(self, status: int) -> None:
        """It has ended. Idempotent."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self._child.scope.call_soon(lambda: ended(status))


class Upstream:
    """A child's way to the services of its parent, whose broker is in this process."""

    def __init__(self, parent: Node, scope: Scope) -> None:
        self._parent = parent
        self._scope = scope
        self._open: dict[Rpc, None] = {}

    def rpc(
        self,
        topic: str,
        payload: Any,
        callback: Callable[[Response], object],
        *,
        streaming: bool = False,
    ) -> Rpc:
        """Call a service of the parent; answers come in the child's own turns."""

        call: Rpc | None = None
        over = False

        def answered(response: Response) -> None:
            nonlocal over
            if response.errnum or not streaming:
                over = True
                if call is not None:
                    self._open.pop(call, None)
            self._scope.call_soon(lambda: callback(response))

        call = self._parent.broker.rpc(topic, payload, answered, streaming=streaming)
        if not over:  # a service of this very rank answers at once
            self._open[call] = None
        # What goes out leaves with the parent's hooks, which may have had their turn.
        self._parent.reactor.call_soon(lambda: None)
        return call

    def close(self) -> None:
        """The child is gone: nothing that it asked is wanted any more."""
        for call in self._open:
            call.cancel()
        self._open.clear()
        self._parent.reactor.call_soon(lambda: None)


class Child:
    """One child instance on this rank, from the order to make it until nothing of it is left."""

    def __init__(self, hosting: Hosting, birth: Birth) -> None:
        self.hosting = hosting
        self.birth = birth
        self.scope = Scope(hosting.house.reactor)
        self.path = f"{hosting.node.broker.attrs.get('jobid-path').rstrip('/')}/" + fluid.encode(
            birth.jobid
        )
        self.members = [hosting.members[rank] for rank in birth.ranks]
        self.node: Node | None = None
        self.program = _Program(self, ())
        self.grace_s = 0.0
        self._branch: Branch | None = None
        self._door: Door | None = None
        self._folder = ""
        self._options = StartOptions()
        self._settled = hosting.node.settings  # until its own are read
        self._newborn: Newborn | None = None
        self._mode = LOOPBACK
        self._error: tuple[int, str] | None = None
        self._early: list[int] = []  # signals that came before its broker
        self._drain: tuple[bool, str] | None = None  # the last word on that, if it did as well
        self._status = 0
        self._orderly = False
        self._uri = ""
        self._upstream: Upstream | None = None
        self._ended = False

    # -- its beginning --------------------------------------------------------------------------

    def begin(self) -> None:
        """Get it a transport, and put it together."""
        self._try(self._begin)

    def _try(self, step: Callable[[], object]) -> None:
        """Take a step towards it; whatever goes wrong in it, the job must hear and end."""
        try:
            step()
        except Exception as error:
            known = isinstance(error, (OSError, UsageError, configuration.ConfigError))
            text = str(error) if known else f"{type(error).__name__}: {error}"
            self._fail(getattr(error, "errno", None) or errno.EINVAL, text)

    def _begin(self) -> None:
        house = self.hosting.house
        self._folder = house.folder()
        # Before a communicator is made: what is wrong with them is wrong on every member.
        options = self._options = _options(self.birth.argv)
        self._settled = self._settings(options)
        if len(self.members) == 1:
            self._grow(single(self.scope, self.hosting.node.resources.hostname))
            return
        world = house.world
        if world is None or world.maker is None:
            raise FluxError(errno.ENOTSUP, "this instance has no ranks to share")
        self._newborn = Newborn(
            self.path,
            self.members,
            self.birth.rank,
            self.scope,
            world.maker.bell(self._folder),
            self._transport_made,
        )
        world.create(self._newborn)

    def _transport_made(self, transport: Transport | None, why: str) -> None:
        if transport is None:
            self._fail(errno.ECONNABORTED, f"the instance could not be made: {why}")
            return
        assert self._newborn is not None
        self._mode = self._newborn.mode
        self._try(lambda: self._grow(transport))

    def _grow(self, transport: Transport) -> None:
        """Put its broker together."""
        parent, house = self.hosting.node, self.hosting.house
        self._branch = branch = Branch(house.link, self.scope)
        options, settings = self._options, self._settled
        self.grace_s = settings.kill_grace_s
        self._uri = f"local://{self._folder}/local-{transport.rank}"
        self.node = node = Node(
            self.scope,
            transport,
            Tree(transport.hosts, settings.fanout),
            branch,  # type: ignore[arg-type]  # the same face
            parent.resources.part(self.birth.cores, self.birth.gpus),
            settings,
            rundir=self._folder,
            uri=self._uri,
            uid=house.uid,
            leave=self._left,
            say=lambda text: house.say(f"{self.path}: {text}"),
            program=self.program,
            ensemble=self._ensemble(options, transport.rank),
        )
        self._door = house.door(node, self._folder)
        node.broker.attrs.define("transport", self._mode)
        house.nodes[node] = None
        Hosting(house, node, self.members)
        node.open()
        if transport.rank:
            self._tell(pid=os.getpid())
        if self._drain is not None:
            self.inherit(*self._drain)
        for signum in self._early:
            self.signal(signum)

    def _ensemble(self, options: StartOptions, rank: int) -> tuple[Upstream, str] | None:
        """For rank 0 of an instance that works for an ensemble: the parent's services, a token."""
        if not options.ensemble or rank:
            return None
        self._upstream = Upstream(self.hosting.node, self.scope)
        return self._upstream, options.ensemble

    def _settings(self, options: StartOptions) -> Settings:
        """What the parent has, what the job says, and what the broker's options say."""
        parent = self.hosting.node.settings
        inherited, own = _inherited(parent.config), configuration.load(options.conf)
        configuration.check(own, inherited)
        config = configuration.merged(inherited, own)
        if self.birth.graph is not None:
            path = os.path.join(self._folder, "graph.json")
            with open(path, "x", encoding="utf-8") as file:
                json.dump(self.birth.graph, file)
            config = configuration.merged({"resource": {"graph": path}}, config)
        self.program = _Program(self, options.command)
        return settings_of_child(
            parent,
            options,
            config,
            environ=self._environ(),
            cwd=self.birth.cwd,
            expiration=self.birth.expiration,
        )

    def _environ(self) -> dict[str, str]:
        environ = {os.fsdecode(k): os.fsdecode(v) for k, v in self.birth.env.items()}
        environ["FLUX_JOB_ID"] = fluid.encode(self.birth.jobid)
        environ["FLUX_JOB_ID_PATH"] = self.path
        environ["FLUX_URI"] = self.hosting.node.uri
        environ["FLUX_KVS_NAMESPACE"] = f"job-{self.birth.jobid}"
        environ["PATH"] = path_with_us(environ.get("PATH"))
        return environ

    # -- its program ----------------------------------------------------------------------------

    def started(self, command: Sequence[str]) -> None:
        """The instance runs: the parent is told, and its program started."""
        node = self.hosting.node
        memo = {"uri": remote_uri(self._uri, node.resources.hostname)}
        self._tell(memo, pid=0 if command else os.getpid())
        if command:
            own = self.node
            assert own is not None
            delta = encode_all(
                {
                    "PATH": own.settings.environ["PATH"],
                    "FLUX_URI": self._uri,
                    **own.surroundings(),
                }
            )
            self._in_parent(lambda: node.exec.agent.launch(self.birth.jobid, list(command), delta))

    def signal_program(self, signum: int) -> None:
        """Signal its initial program."""
        agent = self.hosting.node.exec.agent
        self._in_parent(lambda: agent.signal_program(self.birth.jobid, signum))

    def _tell(self, memo: dict[str, Any] | None = None, pid: int = 0) -> None:
        node = self.hosting.node
        self._in_parent(
            lambda: node.exec.agent.instance_up(
                self.birth.jobid, node.reactor.now(), memo=memo, pid=pid
            )
        )

    def _in_parent(self, action: Callable[[], object]) -> None:
        """Do something to the parent's agent, and let the parent's hooks follow."""
        self.hosting.node.reactor.call_soon(action)

    def inherit(self, drained: bool, reason: str) -> None:
        """What it has here may not be used for new jobs, or may be again."""
        node = self.node
        if node is None:
            self._drain = drained, reason
            return
        payload = {"rank": node.broker.rank, "drained": drained, "reason": reason}
        self.scope.call_soon(lambda: node.broker.send("resource.inherit", payload, rank=0))

    # -- its end --------------------------------------------------------------------------------

    def signal(self, signum: int) -> None:
        """Its job was signalled."""
        node = self.node
        if node is None:
            if signum in ENDING or signum == signal.SIGKILL:
                world = self.hosting.house.world
                self._early.append(signum)
                if self._newborn is not None and world is not None:
                    world.cancel(self.path, "the job was ended")
                self._status = self._status or 128 + signum
            return
        if signum == signal.SIGKILL:
            self.scope.call_soon(lambda: node.life.abort(128 + signum))
        elif signum in ENDING:
            self.scope.call_soon(lambda: node.life.signalled(signum))
        elif signum:
            self.signal_program(signum)

    def _left(self, status: int, orderly: bool) -> None:
        """Its broker has nothing more to do."""
        self._status, self._orderly = status, orderly
        assert self._branch is not None
        self._branch.when_empty(self._dismantle)

    def _fail(self, errnum: int, text: str) -> None:
        self._error = (errnum, text)
        self.hosting.house.reactor.call_soon(self._dismantle)

    def _dismantle(self) -> None:
        """Nothing of it runs any more: tell the parent."""
        if self._ended:
            return
        node, jobid = self.hosting.node, self.birth.jobid
        if self._error is not None:
            node.broker.log(ERR, "hosting", f"instance {self.path}: {self._error[1]}")
        # Rank 0 says how it ended; the others have only ended.
        status = self._status << 8 if not self.birth.rank else 0
        try:
            self.close()
        finally:  # whatever cannot be given back, the job is over
            self._in_parent(
                lambda: node.exec.agent.instance_down(
                    jobid, node.reactor.now(), status=status, error=self._error
                )
            )

    def close(self) -> None:
        """Give back all that it has. Idempotent."""
        if self._ended:
            return
        self._ended = True
        house = self.hosting.house
        node = self.node
        if node is not None:
            if node.hosting is not None:
                node.hosting.close()
            node.exec.close()
            house.nodes.pop(node, None)
            node.broker.transport.flush()
            if node.life.level != LEFT:
                self._orderly = False
        if self._door is not None:
            self._door.close()
        if self._newborn is not None and house.world is not None:
            house.world.forget(self.path, self._orderly)
        elif node is not None:
            node.broker.transport.close()
        if self._branch is not None:
            self._branch.close()
        if self._upstream is not None:
            self._upstream.close()
        self.scope.close()
        if self._folder:
            house.remove(self._folder)
        self.hosting.children.pop(self.birth.jobid, None)


def _options(words: Sequence[str]) -> StartOptions:
    """The options of a child's broker. Raises UsageError, also for those that make no sense."""
    options = parse(words)
    for name in ("statedir", "test_size", "cores_per_rank", "gpus_per_rank"):
        if getattr(options, name) is not None:
            shown = name.replace("_", "-")
            raise UsageError(f"--{shown}: not for an instance that has what its job was given")
    return options


def _inherited(config: dict[str, Any]) -> dict[str, Any]:
    """What of a parent's configuration its children get: all but what its own resources are."""
    found = {name: table for name, table in config.items() if name != "resource"}
    fluxion = found.get("sched-fluxion-resource")
    if isinstance(fluxion, dict):
        found["sched-fluxion-resource"] = {
            key: value for key, value in fluxion.items() if not key.startswith("load-")
        }
    return found


def settings_of_child(
    parent: Settings,
    options: StartOptions,
    config: dict[str, Any],
    *,
    environ: dict[str, str],
    cwd: str,
    expiration: float,
) -> Settings:
    """A child's settings: its parent's unless its options or configuration say otherwise.

    Raises ConfigError, UsageError.
    """
    get = configuration.get
    asked = configuration.fanout(config, options.setattr, parent.fanout)
    return Settings(
        config=config,
        attributes=options.setattr,
        fanout=options.fanout or asked,
        environ=environ,
        cwd=cwd,
        join_timeout_s=get(config, "broker.join-timeout", parent.join_timeout_s),
        cleanup_timeout_s=get(config, "broker.cleanup-timeout", parent.cleanup_timeout_s),
        shutdown_timeout_s=get(config, "broker.shutdown-timeout", parent.shutdown_timeout_s),
        kill_grace_s=get(config, "broker.kill-grace", parent.kill_grace_s),
        stderr_level=parent.stderr_level,
        frame_limit=parent.frame_limit,
        boot_method="parent",
        expiration=expiration,
    )
