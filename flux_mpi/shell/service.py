"""The services ``exec.*`` and ``rexec.*`` of every rank (``docs/protocol.md``): thin.

Requests are translated into calls of the agent and of the link; what collects there in a turn of
the loop leaves together at its end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any, Protocol

from flux_mpi.broker.service import Broker, Request, ServiceError
from flux_mpi.shell import strays
from flux_mpi.shell.affinity import Topology
from flux_mpi.shell.agent import Agent, Birth
from flux_mpi.shell.env import scrub_job
from flux_mpi.shell.link import Link, Process
from flux_mpi.shell.output import OutputStore, Spool, Watcher
from flux_mpi.shell.scratch import Scratch

ERR = 3


class Nursery(Protocol):
    """Makes the instances that jobs are, and ends them."""

    def begin(self, birth: Birth) -> None:
        """Make it; the agent's `instance_up` or `instance_down` is called when it is done."""

    def program_ended(self, jobid: int, status: int) -> None:
        """Its initial program has ended, with this wait status."""

    def signal(self, jobid: int, signum: int) -> None:
        """Its job was signalled."""


class ExecService:
    """Offers ``exec`` and ``rexec`` on a broker.

    ``topology`` says what the rank's cores and GPUs are; None = emulated, nothing is bound.
    ``rundir`` is the broker's run directory: spool and jobs' temporary directories go
    there. ``uri`` is what tasks get as ``FLUX_URI``; ``path`` this instance's ``FLUX_JOB_ID_PATH``;
    ``surroundings`` variables that tell of the job in which the instance is.
    """

    def __init__(
        self,
        broker: Broker,
        link: Link,
        *,
        hostname: str,
        rundir: str,
        uri: str,
        topology: Topology | None = None,
        path: str = "/",
        surroundings: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._broker = broker
        self._link = link
        self._uri = uri
        self._environ = os.environ if environ is None else environ
        self._surroundings = dict(surroundings or {})
        self.store = OutputStore(Spool(os.path.join(rundir, "output")))
        self.agent = Agent(
            rank=broker.rank,
            hostname=hostname,
            next_tid=link.next_tid,
            store=self.store,
            topology=topology,
            uri=uri,
            path=path,
            scratch=Scratch(rundir) if rundir else None,
            surroundings=self._surroundings,
        )
        self.nursery: Nursery | None = None
        self._watchers: dict[tuple[int, ...], Watcher] = {}
        self._commands: dict[int, _Remote] = {}
        link.take = self.agent.report
        link.after_reports = self.turn
        link.sweep = lambda: strays.end(uri)
        broker.register(
            "exec",
            {
                "start": self._start,
                "recall": self._recall,
                "kill": self._kill,
                "stdin": self._stdin,
                "forget": self._forget,
                "output": self._output,
                "ack": self._ack,
            },
        )
        broker.register(
            "rexec",
            {
                "exec": self._rexec,
                "kill": self._rexec_kill,
                "write": self._rexec_write,
                "list": self._rexec_list,
            },
        )
        broker.reactor.at_turn_end(self.turn)

    def announce(self, hello: Mapping[str, Any]) -> None:
        """Tell the root that this rank runs jobs: ``{cores, gpus, memory, hostname}``."""
        self._broker.send("job-exec.hello", {"rank": self._broker.rank, **hello}, rank=0)

    def turn(self) -> None:
        """Send on what has collected in this turn."""
        agent = self.agent
        moved, more = self.store.deliver()
        if moved:
            agent.release(moved)
        if more:
            self._broker.reactor.call_soon(_nothing)
        if agent.births or agent.signals or agent.ended:
            self._nested()
        if agent.commands:
            self._link.extend(agent.commands)
            agent.commands.clear()
            self._link.flush()
        if agent.events:
            events, agent.events = agent.events, []
            self._broker.send("job-exec.report", {"events": events}, rank=0)
            # As a turn-end hook we may come after the one that sends messages off.
            self._broker.reactor.call_soon(_nothing)

    def _nested(self) -> None:
        """Pass on what concerns jobs that are instances."""
        agent, nursery = self.agent, self.nursery
        births, agent.births = agent.births, []
        signals, agent.signals = agent.signals, []
        ended, agent.ended = agent.ended, []
        if nursery is None:
            now = self._broker.reactor.now()
            for birth in births:
                agent.instance_down(
                    birth.jobid, now, error=(errno.ENOTSUP, "no instance can be made here")
                )
            return
        for birth in births:
            nursery.begin(birth)
        for jobid, status in ended:
            nursery.program_ended(jobid, status)
        for jobid, signum in signals:
            nursery.signal(jobid, signum)

    def close(self) -> None:
        """Give the spool back."""
        self.store.close()

    # -- exec -----------------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        payload = request.payload
        specs: dict[int, dict[str, Any]] = payload.get("specs") or {}
        leases = payload.get("leases", ())
        self.agent.start(specs, payload["jobs"], self._broker.reactor.now(), leases)

    def _recall(self, request: Request) -> None:
        self.agent.recall([int(jobid) for jobid in request.payload["ids"]])

    def _kill(self, request: Request) -> None:
        payload = request.payload
        if not self.agent.kill(_integer(payload, "id"), _signal(payload)):
            request.error(errno.ENOENT, f"job {payload['id']} has no task on this rank")
            return
        request.respond({})

    def _forget(self, request: Request) -> None:
        self.agent.forget([int(key) for key in request.payload["keys"]])

    def _stdin(self, request: Request) -> None:
        payload = request.payload
        data = payload.get("data") or b""
        if isinstance(data, str):
            data = data.encode()
        ranks = payload.get("ranks")
        try:
            wrong = self.agent.stdin(
                _integer(payload, "id"),
                None if ranks is None else str(ranks),
                data,
                bool(payload.get("eof")),
                lambda: request.respond({}),
            )
        except ValueError as error:
            raise ServiceError(errno.EINVAL, f"ranks: {error}") from None
        if wrong is not None:
            code = errno.EINVAL if self.agent.has(payload["id"]) else errno.ENOENT
            raise ServiceError(code, wrong)

    def _output(self, request: Request) -> None:
        payload = request.payload
        jobid = _integer(payload, "id")
        if self.store.gone(jobid):
            raise ServiceError(errno.ENOENT, f"output of job {jobid} is no longer kept")
        key = _watch_key(request, payload.get("key", 0))

        def end() -> None:
            self._watchers.pop(key, None)
            request.error(errno.ENODATA)

        def close() -> None:
            self._watchers.pop(key, None)
            if watcher is not None:
                self.store.unwatch(watcher)

        watcher = self.store.watch(
            jobid,
            self.agent.has(jobid),
            lambda entries: request.respond({"entries": entries}),
            end,
            follow=bool(payload.get("follow")),
            window=max(0, int(payload.get("window") or 0)),
        )
        if watcher is not None:
            request.on_close(close)
            if watcher.window:
                self._watchers[key] = watcher

    def _ack(self, request: Request) -> None:
        payload = request.payload
        watcher = self._watchers.get(_watch_key(request, payload.get("key", 0)))
        if watcher is not None:
            self.store.acknowledge(watcher, _integer(payload, "bytes"))

    # -- rexec ----------------------------------------------------------------------------------

    def _rexec(self, request: Request) -> None:
        payload = request.payload
        argv = payload.get("argv")
        if not isinstance(argv, list) or not argv or not all(isinstance(w, str) for w in argv):
            raise ServiceError(errno.EINVAL, "argv: expected a list of strings, not empty")
        env = payload.get("env")
        environ = scrub_job(self._environ if env is None else env)
        environ["FLUX_URI"] = self._uri
        environ.update(self._surroundings)
        remote = _Remote(self, request)
        remote.process = self._link.run(
            argv,
            env=environ,
            cwd=payload.get("cwd") or "",
            stdin="pipe",
            on_start=remote.started,
            on_output=remote.output,
            on_exit=remote.exited,
            on_fail=remote.failed,
            on_fed=remote.fed,
        )
        request.on_close(remote.abandoned)

    def _remote(self, request: Request) -> _Remote:
        pid = _integer(request.payload, "pid")
        remote = self._commands.get(pid)
        if remote is None:
            raise ServiceError(errno.ENOENT, f"no process {pid} was started by exec on this rank")
        return remote

    def _rexec_kill(self, request: Request) -> None:
        self._remote(request).kill(_signal(request.payload))
        request.respond({})

    def _rexec_write(self, request: Request) -> None:
        data = request.payload.get("data") or b""
        if isinstance(data, str):
            data = data.encode()
        remote = self._remote(request)
        remote.write(data, bool(request.payload.get("eof")), request)

    def _rexec_list(self, request: Request) -> None:
        procs = [remote.describe(pid) for pid, remote in sorted(self._commands.items())]
        request.respond({"rank": self._broker.rank, "procs": procs})


class _Remote:
    """One remote command and the request it belongs to."""

    def __init__(self, service: ExecService, request: Request) -> None:
        self._service = service
        self._request = request
        self._writes: list[tuple[int, Request]] = []
        self.process: Process | None = None
        self._abandoned = False

    def started(self, pid: int) -> None:
        self._service._commands[pid] = self
        self._request.respond({"pid": pid})
        if self._abandoned:
            self.kill(9)

    def output(self, stream: int, data: bytes) -> None:
        self._request.respond({"stream": stream, "data": data})

    def exited(self, status: int) -> None:
        self._forget()
        self._request.respond({"status": status})
        self._request.error(errno.ENODATA)

    def failed(self, errnum: int, what: str) -> None:
        self._forget()
        self._request.error(errnum, f"{what}: {os.strerror(errnum)}")

    def abandoned(self) -> None:
        """Who asked for it is gone: so shall it be."""
        self._abandoned = True
        self.kill(9)

    def kill(self, signum: int) -> None:
        if self.process is not None:
            self.process.kill(signum)

    def write(self, data: bytes, eof: bool, request: Request) -> None:
        assert self.process is not None
        self.process.write(data, eof)
        if data:
            self._writes.append((len(data), request))
        else:
            request.respond({})

    def fed(self, count: int) -> None:
        """It has taken input: answer those whose input that was."""
        while self._writes and count:
            left, request = self._writes[0]
            if left > count:
                self._writes[0] = (left - count, request)
                return
            count -= left
            self._writes.pop(0)
            request.respond({})

    def describe(self, pid: int) -> dict[str, Any]:
        assert self.process is not None
        return {"pid": pid, "cmd": self.process.argv[0], "argv": self.process.argv}

    def _forget(self) -> None:
        if self.process is not None:
            self._service._commands.pop(self.process.pid, None)
        for _, request in self._writes:
            request.respond({})
        self._writes.clear()


def _watch_key(request: Request, key: object) -> tuple[int, ...]:
    """Names a watcher: who asked, by the way there, and the number they gave it."""
    return (*request.message.route, int(key) if isinstance(key, int) else 0)


def _integer(payload: Any, name: str) -> int:
    value = payload.get(name) if isinstance(payload, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ServiceError(errno.EINVAL, f"{name}: expected an integer, found {value!r}")
    return value


def _signal(payload: Any) -> int:
    signum = _integer(payload, "signum")
    if not 0 <= signum <= 64:
        raise ServiceError(errno.EINVAL, f"signum: expected 0..64, found {signum}")
    return signum


def _nothing() -> None:
    """Makes the loop turn once more without waiting."""
