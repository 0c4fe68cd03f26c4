"""The rank agent: jobs from the root in, commands to the supervisor out, and the way back.

Pure: it owns no descriptor and no clock. ``start``, ``kill``, ``stdin`` and ``reports`` take what
came from outside; ``commands`` (for the supervisor) and ``events`` (for the root's
``job-exec.report``) collect what goes out, and whoever sends them empties them.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flux_mpi.formats import fluid
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.templates import expand_shell
from flux_mpi.shell import affinity
from flux_mpi.shell.affinity import Topology
from flux_mpi.shell.env import encode, encode_all
from flux_mpi.shell.output import LabelledFile, OutputStore
from flux_mpi.shell.plan import APPEND, CAPTURE, FILE, NONE, TRUNCATE, Plan, PlanError, Stream
from flux_mpi.shell.scratch import Scratch

CREDIT_STEP = 32 * 1024
"""Output is acknowledged to the supervisor in steps of this many bytes."""


class _Job:
    """One job's tasks on this rank."""

    __slots__ = (
        "id",
        "key",
        "nodeid",
        "first_task",
        "ntasks",
        "tids",
        "started",
        "start_sent",
        "pids",
        "left",
        "exits",
        "error",
        "tmpdir",
        "limit",
        "sinks",
        "owed",
        "last",
        "reads_stdin",
        "fed",
        "after",
        "nested",
    )

    def __init__(self, jobid: int, key: int, nodeid: int, first_task: int, ntasks: int) -> None:
        self.id = jobid
        self.key = key
        self.nodeid = nodeid
        self.first_task = first_task
        self.ntasks = ntasks
        self.tids: list[int] = []
        self.started = 0
        self.start_sent = False
        self.pids = [0] * ntasks
        self.left = 0
        self.exits: list[list[int]] = []
        self.error: tuple[int, str] | None = None
        self.tmpdir = ""
        self.limit = 0
        self.sinks: tuple[LabelledFile | None, LabelledFile | None] | None = None
        self.owed: dict[int, int] | None = None  # task id -> bytes not yet acknowledged
        self.last = 0.0
        self.reads_stdin = False
        self.fed: list[_Feed] | None = None
        self.after = 0  # the task that it is leased to follow; 0: it starts at once
        self.nested: _Nested | None = None  # the job is an instance


class _Feed:
    """Input on its way to tasks, and whom to tell when they have taken it."""

    __slots__ = ("waiting", "done")

    def __init__(self, waiting: dict[int, int], done: Callable[[], object]) -> None:
        self.waiting = waiting
        self.done = done


class _Nested:
    """What waits in a job that is an instance until its program can be started."""

    __slots__ = ("operands", "early")

    def __init__(self) -> None:
        self.operands: tuple[Any, ...] = ()
        self.early: list[tuple[str | None, bytes, bool, Callable[[], object]]] = []


class Birth(NamedTuple):
    """An instance that is to be made here, for a job of this one."""

    jobid: int
    argv: list[str]
    """The options of its broker, and then its initial program (``flux-mpi broker`` left out)."""
    rank: int
    """Which of its ranks this one becomes."""
    ranks: list[int]
    """This instance's ranks that become its ranks."""
    cores: str
    gpus: str
    expiration: float
    """Unix time at which the job is ended; 0 = never."""
    graph: dict[str, Any] | None
    """Its resources as JGF, if there is more to them than cores and GPUs of ranks."""
    env: dict[bytes, bytes]
    """The environment of the job, for its initial program."""
    cwd: str


class Agent:
    """Runs jobs' tasks on one rank, through its supervisor.

    ``next_tid`` hands out task ids that nobody else uses; ``uri`` becomes ``FLUX_URI``; ``path`` is
    this instance's ``FLUX_JOB_ID_PATH`` (``/`` when it is nobody's job); ``scratch`` has
    jobs' temporary directories (None = they get none); ``surroundings``: variables that tell of the
    job in which this instance is.
    """

    def __init__(
        self,
        *,
        rank: int,
        hostname: str,
        next_tid: Callable[[], int],
        store: OutputStore,
        topology: Topology | None = None,
        uri: str = "",
        path: str = "/",
        scratch: Scratch | None = None,
        surroundings: Mapping[str, str] | None = None,
    ) -> None:
        self.rank = rank
        self.hostname = hostname
        self.store = store
        self.commands: list[list[Any]] = []
        self.events: list[list[Any]] = []
        self.births: list[Birth] = []
        """Instances to be made; who makes them tells `instance_up` and `instance_down`."""
        self.signals: list[tuple[int, int]] = []
        """(job id, signal) for jobs that are instances."""
        self.ended: list[tuple[int, int]] = []
        """(job id, wait status) of instances' initial programs that have ended."""
        self._next_tid = next_tid
        self._topology = topology or Topology()
        self._path = encode(path.rstrip("/") + "/")
        self._scratch = scratch
        self._common: dict[bytes, bytes] = {}
        if uri:
            self._common[b"FLUX_URI"] = encode(uri)
        self._common.update(encode_all(surroundings or {}))
        self._plans: dict[int, Plan] = {}
        self._specs: dict[int, dict[str, Any]] = {}
        self._forgotten: set[int] = set()
        self._in_use: dict[int, int] = {}
        self._jobs: dict[int, _Job] = {}
        self._tasks: dict[int, tuple[_Job, int]] = {}

    @property
    def busy(self) -> bool:
        """Whether tasks run here, or are about to."""
        return bool(self._tasks)

    # -- from the root --------------------------------------------------------------------------

    def start(
        self,
        specs: dict[int, dict[str, Any]],
        jobs: list[list[Any]],
        now: float,
        leases: Iterable[tuple[int, list[Any]]] = (),
    ) -> None:
        """Carry out ``exec.start``; ``now`` is Unix time. What cannot start becomes an event.

        ``leases`` are jobs that are to start when another one, named first, has ended.
        """
        for key, spec in specs.items():
            self._specs[int(key)] = spec
            self._plans.pop(int(key), None)
        for row in jobs:
            self._start(row, now)
        for after, row in leases:
            before = self._jobs.get(after)
            self._start(row, now, before.tids[-1] if before is not None and before.tids else 0)

    def _start(self, row: list[Any], now: float, after: int = 0) -> None:
        jobid, key, member, nodeid, first_task, ntasks, cores, gpus, nnodes, size = row[:10]
        if jobid in self._jobs:
            return  # told twice: it runs already
        plan = self._plans.get(key)
        if plan is None:
            spec = self._specs.get(key)
            if spec is None:
                text = f"task {first_task} (host {self.hostname}): start failed: no spec {key}"
                self.events.append([jobid, "error", now, nodeid, errno.ENOENT, text])
                return
            try:
                plan = Plan(key, spec, nnodes, size)
            except (PlanError, KeyError, TypeError, AttributeError, ValueError) as error:
                text = f"task {first_task} (host {self.hostname}): start failed: {error}"
                self.events.append([jobid, "error", now, nodeid, errno.EINVAL, text])
                return
            plan.env.update(self._common)
            if plan.gpu_mode != affinity.OFF and not plan.instance:
                plan.env[self._topology.gpu_variable] = b"-1"  # no GPU that is not the job's
                plan.env.setdefault(b"CUDA_DEVICE_ORDER", b"PCI_BUS_ID")
            self._plans[key] = plan
            del self._specs[key]
        if not plan.sent:
            plan.sent = True
            self.commands.append(["env", key, plan.env])
        job = _Job(jobid, key, nodeid, first_task, ntasks)
        job.limit = plan.output_limit
        job.last = now
        job.after = after
        self._jobs[jobid] = job
        self._in_use[key] = self._in_use.get(key, 0) + 1
        try:
            if plan.instance:
                self._begin_instance(job, plan, member, cores or "", gpus or "", row)
            else:
                self._spawn(job, plan, member, cores, gpus or "", nnodes, size)
        except (OSError, ValueError, LookupError, TypeError) as error:
            self._refuse(job, error, now)

    def _spawn(
        self,
        job: _Job,
        plan: Plan,
        member: int,
        cores: str | None,
        gpus: str,
        nnodes: int,
        size: int,
    ) -> None:
        """Command the job's tasks. Raises OSError, ValueError, LookupError before the first."""
        f58 = fluid.encode(job.id).encode()
        delta = plan.variables(member) if plan.env_tags else {}
        delta[b"FLUX_JOB_ID"] = f58
        delta[b"FLUX_JOB_ID_PATH"] = self._path + f58
        delta[b"FLUX_KVS_NAMESPACE"] = b"job-%d" % job.id
        self._make_tmpdir(job, plan)
        if job.tmpdir:
            delta[b"FLUX_JOB_TMPDIR"] = encode(job.tmpdir)
        if nnodes != plan.nnodes:
            delta[b"FLUX_JOB_NNODES"] = b"%d" % nnodes
        if size != plan.size:
            delta[b"FLUX_JOB_SIZE"] = b"%d" % size
        stdin = _stdin_of(plan)
        job.reads_stdin = stdin == "pipe"
        if not (plan.tagged or gpus) and plan.captured and plan.stdin != FILE and job.ntasks == 1:
            # The common case, and the one that must be cheap.
            cpus = None if plan.cpu_mode == affinity.OFF else self._topology.cpus(cores)
            if plan.cpu_mode == affinity.MAP:
                cpus = self._topology.shares(plan.cpu_mode, plan.cpu_sets, cores, 1)[0]
            if job.first_task:
                delta[b"FLUX_TASK_RANK"] = b"%d" % job.first_task
            self._command(job, 0, plan, plan.argv, delta, plan.cwd, cpus, stdin, "pipe", "pipe")
            return
        for local, operands in enumerate(
            self._many(job, plan, member, cores, gpus, nnodes, size, delta, stdin)
        ):
            self._command(job, local, plan, *operands)

    def _make_tmpdir(self, job: _Job, plan: Plan) -> None:
        """Give the job its temporary directory, and what its jobspec puts there. Raises OSError."""
        if self._scratch is not None:
            job.tmpdir = self._scratch.take()
            if plan.files:
                _put_files(job.tmpdir, plan)

    # -- instances ------------------------------------------------------------------------------

    def _begin_instance(
        self, job: _Job, plan: Plan, member: int, cores: str, gpus: str, row: list[Any]
    ) -> None:
        """Order the instance that the job is. Raises OSError, ValueError, LookupError."""
        nnodes, size, more = row[8], row[9], row[10]
        self._make_tmpdir(job, plan)
        runs = plan.member(member)
        expand = self._expander(job, runs.name, nnodes, size, cores, gpus)
        nested = job.nested = _Nested()
        if not job.nodeid:  # here its program will run
            (operands,) = self._many(
                job, plan, member, None, gpus, nnodes, size, {}, _stdin_of(plan), bound=False
            )
            nested.operands = operands[2:]
        job.reads_stdin = plan.stdin == "service"
        job.left = 1  # ends with the instance
        self.births.append(
            Birth(
                job.id,
                [expand(word, 0) for word in runs.argv[2:]],
                job.nodeid,
                list(more["ranks"]),
                cores,
                gpus,
                float(more.get("expiration") or 0.0),
                more.get("graph"),
                {**plan.env, **(plan.variables(member) if plan.env_tags else {})},
                expand(runs.cwd, 0),
            )
        )

    def instance_up(
        self, jobid: int, now: float, memo: dict[str, Any] | None = None, pid: int = 0
    ) -> None:
        """A job's instance runs here. ``memo``: what its root has to say; ``pid``: of who runs it.
        A start is told now unless a program follows (`launch`)."""
        job = self._jobs.get(jobid)
        if job is None:
            return
        job.last = max(job.last, now)
        if memo is not None:
            self.events.append([job.id, "memo", now, job.nodeid, memo])
        if pid:
            job.pids[0] = pid
            self._say_started(job)

    def launch(self, jobid: int, argv: list[str], delta: dict[bytes, bytes]) -> None:
        """Start the initial program of a job's instance, with the job's own output and input."""
        job = self._jobs.get(jobid)
        if job is None or job.nested is None:
            return
        nested, plan = job.nested, self._plans[job.key]
        words = [encode(word) for word in argv]
        cwd, *rest = nested.operands
        self._command(job, 0, plan, words, delta, cwd, *rest)
        for ranks, data, eof, done in nested.early:
            self.stdin(jobid, ranks, data, eof, done)
        nested.early.clear()

    def signal_program(self, jobid: int, signum: int) -> None:
        """Signal the initial program of a job's instance."""
        job = self._jobs.get(jobid)
        if job is not None:
            self._signal_tasks(job, signum)

    def instance_down(
        self, jobid: int, now: float, status: int = 0, error: tuple[int, str] | None = None
    ) -> None:
        """Nothing of a job's instance is left here. ``status``: its wait status, if no program's
        says it; ``error``: (errno, text) of why it could not be made."""
        job = self._jobs.get(jobid)
        if job is None or job.nested is None:
            return
        for _, _, _, done in job.nested.early:
            done()
        if error is not None and job.error is None:
            job.error = (error[0], self._start_failed(job.first_task, error[1]))
        if status and not job.exits:
            job.exits.append([job.first_task, job.pids[0], status])
        job.last = max(job.last, now)
        job.left -= 1
        if not job.left:
            self._finish(job, job.last)

    def _many(
        self,
        job: _Job,
        plan: Plan,
        index: int,
        cores: str | None,
        gpus: str,
        nnodes: int,
        size: int,
        delta: dict[bytes, bytes],
        stdin: Any,
        *,
        bound: bool = True,
    ) -> list[tuple[Any, ...]]:
        """Operands of the spawn command of each task, in full generality."""
        member = plan.member(index)
        mode = plan.cpu_mode if bound else affinity.OFF
        cpus = self._topology.shares(mode, plan.cpu_sets, cores, job.ntasks)
        visible: list[str] | None = None
        if plan.gpu_mode != affinity.OFF:
            names = self._topology.gpu_names
            visible = affinity.gpu_shares(plan.gpu_mode, plan.gpu_sets, gpus, job.ntasks, names)
        expand = self._expander(job, member.name, nnodes, size, cores, gpus)
        cwd = expand(member.cwd, 0)
        if member.stdout.label or member.stderr.label:
            self._open_sinks(job, plan, member.stdout, member.stderr, expand, cwd)
        found = []
        for local in range(job.ntasks):
            task_delta = dict(delta)
            task_delta[b"FLUX_TASK_RANK"] = b"%d" % (job.first_task + local)
            task_delta[b"FLUX_TASK_LOCAL_ID"] = b"%d" % local
            if visible is not None:
                task_delta[self._topology.gpu_variable] = visible[local].encode()
            argv = [encode(expand(word, local)) for word in member.argv]
            out = self._target(plan, member.stdout, expand, local, job.nodeid)
            err = self._target(plan, member.stderr, expand, local, job.nodeid)
            if isinstance(out, list) and isinstance(err, list) and out[1] == err[1]:
                err = out  # one open file for both
            if plan.stdin == FILE:
                stdin = ["file", encode(expand(member.stdin_path, local)), os.O_RDONLY]
            found.append((argv, task_delta, encode(cwd), cpus[local], stdin, out, err))
        return found

    def _expander(
        self, job: _Job, name: str, nnodes: int, size: int, cores: str | None, gpus: str
    ) -> Callable[[str, int], str]:
        """Fills the job shell's tags (flux-submit(1), MUSTACHE TEMPLATES) for a local task."""

        def expand(text: str, local: int) -> str:
            if "{{" not in text:
                return text
            return expand_shell(
                text,
                jobid=job.id,
                name=name,
                nnodes=nnodes,
                size=size,
                nodeid=job.nodeid,
                hostname=self.hostname,
                broker_rank=self.rank,
                cores=cores or "",
                gpus=gpus,
                taskid=job.first_task + local,
                localid=local,
                tmpdir=job.tmpdir,
            )

        return expand

    @staticmethod
    def _target(
        plan: Plan, stream: Stream, expand: Callable[[str, int], str], local: int, nodeid: int
    ) -> Any:
        """The spawn command's operand for an output stream."""
        if stream.kind == CAPTURE or stream.label:
            return "pipe"
        if stream.kind == NONE:
            return "null"
        if stream.kind != FILE:
            return "inherit"
        # A file of several tasks is truncated by the first of them only.
        first = stream.by_task or (local == 0 and (stream.by_node or nodeid == 0))
        flags = TRUNCATE if plan.truncate and first else APPEND
        return ["file", encode(expand(stream.path, local)), flags]

    @staticmethod
    def _open_sinks(
        job: _Job,
        plan: Plan,
        stdout: Stream,
        stderr: Stream,
        expand: Callable[[str, int], str],
        cwd: str,
    ) -> None:
        """Open the labelled files: their lines are put together here. Raises OSError."""
        opened: dict[str, LabelledFile] = {}
        sinks: list[LabelledFile | None] = []
        for stream in (stdout, stderr):
            if stream.kind != FILE or not stream.label:
                sinks.append(None)
                continue
            path = os.path.join(cwd, expand(stream.path, 0))
            if path not in opened:
                first = stream.by_task or stream.by_node or job.nodeid == 0
                flags = TRUNCATE if plan.truncate and first else APPEND
                opened[path] = LabelledFile(path, flags)
            sinks.append(opened[path])
        job.sinks = (sinks[0], sinks[1])

    def _command(
        self,
        job: _Job,
        local: int,
        plan: Plan,
        argv: list[bytes],
        delta: dict[bytes, bytes],
        cwd: bytes,
        cpus: tuple[int, ...] | None,
        stdin: Any,
        stdout: Any,
        stderr: Any,
    ) -> None:
        tid = self._next_tid()
        entry = ["spawn", tid, argv, plan.key, delta, cwd, cpus, stdin, stdout, stderr]
        if plan.limits is not None:
            entry.append(plan.limits)
        self.commands.append(["after", job.after, entry] if job.after else entry)
        self._tasks[tid] = (job, job.first_task + local)
        job.tids.append(tid)
        job.left += 1

    def _refuse(self, job: _Job, error: Exception, now: float) -> None:
        """Nothing of the job could be commanded."""
        if isinstance(error, OSError):
            errnum = error.errno or errno.EIO
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        else:
            errnum, what = errno.EINVAL, str(error)
        job.error = (errnum, self._start_failed(job.first_task, what))
        if job.after:  # what is wrong with it is to be said in its turn, which others wait for
            plan = self._plans[job.key]
            self._command(job, 0, plan, [], {}, b"", None, "null", "null", "null")
        else:
            self._finish(job, now)

    def _start_failed(self, task: int, what: str) -> str:
        return f"task {task} (host {self.hostname}): start failed: {what}"

    def forget(self, keys: list[int]) -> None:
        """Carry out ``exec.forget``: those specs are not needed any more."""
        for key in keys:
            self._specs.pop(key, None)
            if self._in_use.get(key):
                self._forgotten.add(key)  # when its last job here has ended
            else:
                self._drop(key)

    def _drop(self, key: int) -> None:
        plan = self._plans.pop(key, None)
        if plan is not None and plan.sent:
            self.commands.append(["forget", key])

    def recall(self, jobids: Iterable[int]) -> None:
        """Carry out ``exec.recall``: those of these jobs that have not begun are to be returned."""
        tids = [
            tid
            for jobid in jobids
            if (job := self._jobs.get(jobid)) is not None and job.after and not job.started
            for tid in job.tids
        ]
        if tids:
            self.commands.append(["recall", tids])

    def kill(self, jobid: int, signum: int) -> bool:
        """Signal the job's process groups here; False when it has none."""
        job = self._jobs.get(jobid)
        if job is None:
            return False
        if job.nested is not None:
            self.signals.append((jobid, signum))
        else:
            self._signal_tasks(job, signum)
        return True

    def _signal_tasks(self, job: _Job, signum: int) -> None:
        for tid in job.tids:
            if tid in self._tasks:
                self.commands.append(["kill", tid, int(signum)])

    def kill_all(self, signum: int) -> int:
        """Signal the tasks of every job here; returns the number of jobs."""
        for jobid in self._jobs:
            self.kill(jobid, signum)
        return len(self._jobs)

    def stdin(
        self,
        jobid: int,
        ranks: str | None,
        data: bytes,
        eof: bool,
        done: Callable[[], object],
    ) -> str | None:
        """Feed tasks; ``done()`` is called when they have taken ``data``. Returns what is wrong.

        ``ranks`` is an idset of task ranks, None = all. The end of the input ends that of every
        task: one that was not addressed would otherwise wait for ever.
        """
        job = self._jobs.get(jobid)
        if job is None:
            return "no such job here"
        if not job.reads_stdin:
            return "the job's tasks read no input (input.stdin.type is not 'service')"
        wanted = None if ranks is None else IDSet.parse(ranks)
        if job.nested is not None and not job.tids:
            if job.nodeid:
                done()  # its program runs on another rank
            else:
                job.nested.early.append((ranks, data, eof, done))
            return None
        waiting: dict[int, int] = {}
        for tid in job.tids:
            found = self._tasks.get(tid)
            if found is None:
                continue
            chosen = wanted is None or found[1] in wanted
            if chosen and data:
                self.commands.append(["stdin", tid, data, eof])
                waiting[tid] = len(data)
            elif eof:
                self.commands.append(["stdin", tid, b"", True])
        if waiting:
            if job.fed is None:
                job.fed = []
            job.fed.append(_Feed(waiting, done))
        else:
            done()
        return None

    # -- from the supervisor --------------------------------------------------------------------

    def report(self, entry: list[Any]) -> None:
        """Take one report about a task of ours."""
        found = self._tasks.get(entry[1])
        if found is None:
            return
        kind = entry[0]
        job, task = found
        if kind == "started":
            job.pids[task - job.first_task] = entry[2]
            job.started += 1
            job.last = entry[3]
            if job.started == job.ntasks and job.error is None:
                self._say_started(job)
        elif kind == "output":
            self._output(job, task, entry[1], entry[2], entry[3])
        elif kind == "exited":
            self._exited(job, task, entry)
        elif kind == "failed":
            self._failed(job, task, entry)
        elif kind == "fed":
            self._taken(job, entry[1], entry[2])
        elif kind == "returned":
            del self._tasks[entry[1]]
            self.events.append([job.id, "returned", job.last, job.nodeid])
            self._drop_job(job)

    def _say_started(self, job: _Job) -> None:
        job.start_sent = True
        self.events.append([job.id, "start", job.last, job.nodeid, job.pids])

    def _exited(self, job: _Job, task: int, entry: list[Any]) -> None:
        tid, status, when = entry[1], entry[2], entry[3]
        job.exits.append([task, job.pids[task - job.first_task], status])
        job.last = when
        del self._tasks[tid]
        job.left -= 1
        if job.fed:
            self._taken(job, tid, 1 << 62)
        if job.nested is not None:
            self.ended.append((job.id, status))
        if not job.left:
            self._finish(job, when)

    def _failed(self, job: _Job, task: int, entry: list[Any]) -> None:
        tid, errnum, what = entry[1], entry[2], entry[3]
        del self._tasks[tid]
        job.left -= 1
        if job.error is None:
            job.error = (errnum, self._start_failed(task, f"{what}: {os.strerror(errnum)}"))
            for other in job.tids:
                if other in self._tasks:
                    self.commands.append(["kill", other, int(signal.SIGKILL)])
        if job.fed:
            self._taken(job, tid, 1 << 62)
        if job.nested is not None:
            self.ended.append((job.id, 127 << 8))
        if not job.left:
            self._finish(job, job.last)

    def _output(self, job: _Job, task: int, tid: int, stream: int, data: bytes) -> None:
        if not data:
            return
        sink = job.sinks[stream - 1] if job.sinks is not None else None
        if sink is not None:
            try:
                sink.write(stream, task, data)
            except OSError as error:
                text = f"flux-shell: ERROR: output file: {error.strerror}\n".encode()
                self.store.append(job.id, job.last, 2, task, text, job.limit)
                self._close_sinks(job)
        else:
            self.store.append(job.id, job.last, stream, task, data, job.limit)
        owed = job.owed
        if owed is None:
            owed = job.owed = {}
        count = owed.get(tid, 0) + len(data)
        if count >= CREDIT_STEP and not self.store.held_back(job.id):
            self.commands.append(["credit", tid, count])
            count = 0
        owed[tid] = count

    def release(self, jobids: set[int]) -> None:
        """Watchers of these jobs have moved on: let tasks that waited for them go on."""
        for jobid in jobids:
            job = self._jobs.get(jobid)
            if job is None or not job.owed or self.store.held_back(jobid):
                continue
            for tid, count in job.owed.items():
                if count >= CREDIT_STEP:
                    if tid in self._tasks:
                        self.commands.append(["credit", tid, count])
                    job.owed[tid] = 0

    def _taken(self, job: _Job, tid: int, count: int) -> None:
        """A task has taken input (or never will): tell who waits for that, in order."""
        if not job.fed:
            return
        for feed in job.fed:
            left = feed.waiting.get(tid)
            if left is None:
                continue
            if left > count:
                feed.waiting[tid] = left - count
                break
            del feed.waiting[tid]
            count -= left
            if not count:
                break
        while job.fed and not job.fed[0].waiting:
            job.fed.pop(0).done()

    # -- ends -----------------------------------------------------------------------------------

    def _finish(self, job: _Job, when: float) -> None:
        """All tasks of the job here have ended, and their output is complete."""
        self._close_sinks(job)
        if job.error is not None:
            errnum, text = job.error
            self.events.append([job.id, "error", when, job.nodeid, errnum, text])
        else:
            if not job.start_sent:  # killed before it could start
                self._say_started(job)
            self.events.append([job.id, "exit", when, job.nodeid, sorted(job.exits)])
        self.store.finish(job.id, when)
        self._drop_job(job)

    def _drop_job(self, job: _Job) -> None:
        """Nothing of the job is left here."""
        del self._jobs[job.id]
        if self._scratch is not None and job.tmpdir and not self._scratch.give_back(job.tmpdir):
            self._remove_full(job.tmpdir)
        key = job.key
        left = self._in_use[key] - 1
        if left:
            self._in_use[key] = left
        else:
            del self._in_use[key]
            if key in self._forgotten:
                self._forgotten.discard(key)
                self._drop(key)

    def _remove_full(self, path: str) -> None:
        """A job left files behind: removing them may take long, so another process does it."""
        argv = [b"rm", b"-rf", b"--", encode(path)]
        env = {b"PATH": encode(os.defpath)}
        entry = ["spawn", self._next_tid(), argv, None, env, b"/", None, "null", "null", "null"]
        self.commands.append(entry)

    @staticmethod
    def _close_sinks(job: _Job) -> None:
        if job.sinks is None:
            return
        for sink in {id(sink): sink for sink in job.sinks if sink is not None}.values():
            try:
                sink.close()
            except OSError:
                continue  # nowhere is left to say so: the disk is full, or the server gone
        job.sinks = None

    # -- looking in -----------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Jobs with tasks here."""
        return len(self._jobs)

    def has(self, jobid: int) -> bool:
        """Has this job tasks here now?"""
        return jobid in self._jobs

    def pids(self) -> list[int]:
        """Process ids (and group ids) of the tasks that run here, as far as known."""
        return [pid for job in self._jobs.values() for pid in job.pids if pid]


def _stdin_of(plan: Plan) -> str:
    return "pipe" if plan.stdin == "service" else "null"


def _put_files(folder: str, plan: Plan) -> None:
    """Write the files of the jobspec. Raises OSError."""
    for file in plan.files:
        path = os.path.join(folder, file.name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, file.mode)
        with os.fdopen(fd, "wb") as out:
            os.fchmod(fd, file.mode)
            out.write(file.data)
