"""Warm workers: a Python function for many inputs, in processes that import once.

>>> with Workers("model:simulate", ntasks=4) as workers:
...     for outcome in workers.map(range(240)):
...         print(outcome.index, outcome.error or outcome.value)

The workers are jobs of the instance, an array submitted at once; each takes members, one after the
other, from a service that this process offers through its broker. A member that raises is an
outcome like any other. A worker that dies is replaced, and its member tried again a bounded number
of times. Inputs and results are pickled; functions go by name.
"""

from __future__ import annotations

import errno
import os
import pickle
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from flux_mpi.client.handle import Future, Handle, Request
from flux_mpi.client.info import status_text
from flux_mpi.client.jobs import JobArray, cancel, make_jobspec, submit_entries
from flux_mpi.formats import fluid
from flux_mpi.message.errors import FluxError

CHUNK_S = 0.05
"""Members shorter than this travel several at a time."""
PREFETCH_BELOW_S = 0.2
"""Workers with members shorter than this get the next ones before they are done with these."""
LIMIT = 48 << 20
"""Longest pickled input or result, bytes: a message holds 64 MiB."""
CLOSE_S = 10.0
"""How long workers may take to end before their jobs are canceled."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Set to the cores of a worker unless the environment says otherwise."""


class WorkersError(RuntimeError):
    """No worker can be had: the function cannot be loaded, or the jobs do not start."""


class MemberError(RuntimeError):
    """A member failed in its worker; the text is the exception there, ``detail`` its traceback."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail

    def __reduce__(self) -> tuple[type[MemberError], tuple[str, str]]:
        return MemberError, (str(self), self.detail)


class Outcome:
    """How one member ended."""

    __slots__ = ("detail", "error", "index", "item", "seconds", "value", "worker")

    def __init__(
        self,
        index: int,
        item: Any,
        value: Any = None,
        error: str = "",
        detail: str = "",
        seconds: float = 0.0,
        worker: str = "",
    ) -> None:
        self.index = index
        """Its place among the inputs."""
        self.item = item
        """The input."""
        self.value = value
        """What the function returned."""
        self.error = error
        """What went wrong; empty when nothing did."""
        self.detail = detail
        """The traceback, if the function raised."""
        self.seconds = seconds
        """Time spent in the function."""
        self.worker = worker
        """The job id of the worker."""

    @property
    def ok(self) -> bool:
        return not self.error

    def result(self) -> Any:
        """The value; raises MemberError when the member failed."""
        if self.error:
            raise MemberError(self.error, self.detail)
        return self.value

    def __repr__(self) -> str:
        return f"<member {self.index} {self.error or 'ok'}>"


class _Member:
    """One input; ``key`` is its own for the life of the pool, ``index`` its place in one map()."""

    __slots__ = ("blob", "index", "item", "key", "round", "tries")

    def __init__(self, key: int, round: int, index: int, item: Any, blob: bytes) -> None:
        self.key = key
        self.round = round
        self.index = index
        self.item = item
        self.blob = blob
        self.tries = 0


class _Worker:
    """A worker that has called: its open request, and the members it has."""

    __slots__ = ("job", "key", "members", "request")

    def __init__(self, request: Request, job: int) -> None:
        self.request = request
        self.key = request.key
        self.job = job
        self.members: dict[int, _Member] = {}


class Workers:
    """A pool of warm workers; use it in a ``with`` block.

    ``function`` is ``"module:name"`` or an importable function of one argument. ``initializer``
    (the same) runs once in each worker, before its first member. ``ntasks`` workers are started
    (default: one for each ``cores_per_task`` cores of the instance). ``retries`` is how often a
    member is tried again after its worker died. ``env`` adds to this process's environment,
    ``output`` is a file for what workers print (``{{id}}`` in it is the worker's job id).

    Raises FluxError without an instance, WorkersError when no worker can be had.
    """

    def __init__(
        self,
        function: str | Callable[[Any], Any],
        ntasks: int | None = None,
        *,
        initializer: str | Callable[[], Any] | None = None,
        cores_per_task: int = 1,
        gpus_per_task: int = 0,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        output: str | None = None,
        retries: int = 1,
        name: str = "workers",
        handle: Handle | None = None,
    ) -> None:
        self._setup: dict[str, Any] = {
            "function": _reference(function),
            "initializer": None if initializer is None else _reference(initializer),
            "path": [os.path.abspath(entry) if entry else os.getcwd() for entry in sys.path],
            "main": _main_file(function, initializer),
        }
        self.retries = retries
        self._own_handle = handle is None
        self.handle = handle or Handle()
        try:
            if ntasks is None:
                cores = self.handle.call("resource.info", {})["ncores"]
                ntasks = max(1, int(cores) // cores_per_task)
            self.ntasks = ntasks
            self._rank = self.handle.rank
        except BaseException:
            self._close_handle()
            raise
        environ = {variable: str(cores_per_task) for variable in THREADS}
        environ.update(os.environ)
        environ.update(env or {})
        self._service_name = f"workers-{os.getpid()}-{os.urandom(4).hex()}"
        self._spec = make_jobspec(
            [
                sys.executable,
                "-m",
                "flux_mpi.client.workers",
                self._service_name,
                str(self._rank),
            ],
            cores_per_task=cores_per_task,
            gpus_per_task=gpus_per_task,
            env=environ,
            cwd=cwd,
            output=output,
            error=output,
            name=name,
        ).to_dict()
        self._workers: dict[tuple[int, tuple[int, ...]], _Worker] = {}
        self._queue: deque[_Member] = deque()
        self._serial = 0
        self._round = 0
        self._ready: deque[Outcome] = deque()
        self._live: set[int] = set()
        self._seconds = 0.0
        self._measured = 0
        self._useless = 0
        self._failure: str | None = None
        self._closing = False
        try:
            self._service = self.handle.service(
                self._service_name,
                {"work": self._hello, "done": self._done, "failed": self._failed},
                self._gone,
            )
            self._start(ntasks)
        except BaseException:
            self._close_handle()
            raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(cancel=kind is not None)

    # -- members ----------------------------------------------------------------------------------

    def map(self, items: Iterable[Any], *, ordered: bool = False) -> Iterator[Outcome]:
        """An Outcome for each item, as members end, or in the order of the items.

        Leaving the loop early gives up the members that have not begun. Raises WorkersError when
        there is no worker to be had, FluxError when the instance goes away.
        """
        members = []
        self._round += 1
        for index, item in enumerate(items):
            blob = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
            if len(blob) > LIMIT:
                raise ValueError(
                    f"item {index} is {len(blob)} bytes pickled, over the limit of {LIMIT}: "
                    "pass the name of a file"
                )
            self._serial += 1
            members.append(_Member(self._serial, self._round, index, item, blob))
        self._queue.extend(members)
        left = len(members)
        held: dict[int, Outcome] = {}
        following = 0
        try:
            self._distribute()
            while left:
                while not self._ready:
                    if self._failure is not None:
                        raise WorkersError(self._failure)
                    self.handle._check()
                    self.handle.dispatch(None)
                outcome = self._ready.popleft()
                left -= 1
                if not ordered:
                    yield outcome
                    continue
                held[outcome.index] = outcome
                while following in held:
                    yield held.pop(following)
                    following += 1
        finally:
            # Members of this round that are still out there count for nobody from now on.
            self._round += 1
            self._queue.clear()
            self._ready.clear()

    def _distribute(self) -> None:
        """Gives members to workers that can take some."""
        if not self._queue:
            return
        mean = self._seconds / self._measured if self._measured else None
        depth = 2 if mean is not None and mean < PREFETCH_BELOW_S else 1
        for level in range(depth):
            for worker in list(self._workers.values()):
                if not self._queue:
                    return
                size = 1
                if mean is not None:
                    fair = len(self._queue) // (4 * max(1, len(self._workers)))
                    size = max(1, min(fair, int(CHUNK_S / max(mean, 1e-6))))
                if len(worker.members) > level * size:
                    continue
                self._give(worker, size)

    def _give(self, worker: _Worker, size: int) -> None:
        chunk: list[list[Any]] = []
        room = LIMIT
        while self._queue and len(chunk) < size and len(self._queue[0].blob) <= room:
            member = self._queue.popleft()
            room -= len(member.blob)
            worker.members[member.key] = member
            chunk.append([member.key, member.blob])
        if chunk:
            worker.request.respond({"members": chunk})

    # -- what workers say -------------------------------------------------------------------------

    def _hello(self, request: Request) -> None:
        if self._closing:
            request.error(errno.ENODATA)
            return
        worker = _Worker(request, fluid.parse(request.payload["job"]))
        request.respond({"setup": self._setup})
        self._workers[worker.key] = worker
        self._distribute()

    def _done(self, request: Request) -> None:
        payload = request.payload
        job = fluid.parse(payload["job"])
        worker = next((each for each in self._workers.values() if each.job == job), None)
        for key, ok, blob, seconds in payload["results"]:
            member = worker.members.pop(key, None) if worker is not None else None
            if member is None:
                continue  # given to another worker meanwhile
            self._useless = 0
            self._seconds += seconds
            self._measured += 1
            if member.round != self._round:
                continue
            shown = fluid.encode(job)
            try:
                found = pickle.loads(blob)
            except Exception as error:
                ok, found = False, (f"the result cannot be unpickled: {error!r}", "")
            if ok:
                outcome = Outcome(member.index, member.item, found, seconds=seconds, worker=shown)
            else:
                outcome = Outcome(
                    member.index,
                    member.item,
                    error=found[0],
                    detail=found[1],
                    seconds=seconds,
                    worker=shown,
                )
            self._ready.append(outcome)
        self._distribute()

    def _failed(self, request: Request) -> None:
        """A worker cannot load the function: no other will."""
        self._failure = str(request.payload["error"])

    def _gone(self, key: tuple[int, tuple[int, ...]]) -> None:
        worker = self._workers.pop(key, None)
        if worker is not None:
            self._requeue(worker, "the worker died")
            self._distribute()

    def _requeue(self, worker: _Worker, why: str) -> None:
        """The members of a dead worker: the first may have killed it, the rest had not begun."""
        members, worker.members = list(worker.members.values()), {}
        for position, member in enumerate(members):
            if member.round != self._round:
                continue
            if position == 0:
                member.tries += 1
            if member.tries > self.retries:
                self._ready.append(
                    Outcome(
                        member.index,
                        member.item,
                        error=f"{why} ({fluid.encode(worker.job)}), {member.tries} time"
                        f"{'s' if member.tries != 1 else ''}",
                        worker=fluid.encode(worker.job),
                    )
                )
            else:
                self._queue.appendleft(member)

    # -- the workers' jobs ------------------------------------------------------------------------

    def _start(self, count: int) -> None:
        array = submit_entries([{"jobspec": self._spec, "count": count}], handle=self.handle)
        self._live.update(int(job) for job in array)
        self._follow(array)

    def _follow(self, array: JobArray) -> None:
        def ended(stream: Future) -> None:
            try:
                done = stream.get()["done"]
            except FluxError:
                return  # all have ended, or the connection has, which map() will find out
            for entry in done:
                self._job_ended(entry[0], entry[1], entry[2] if len(entry) > 2 else None)

        ids = [list(pair) for pair in array.ranges]
        self.handle.rpc("job-manager.wait-all", {"ids": ids}, streaming=True, callback=ended)

    def _job_ended(self, job: int, status: int | None, note: str | None) -> None:
        self._live.discard(job)
        if self._closing:
            return
        why = note or (f"task {status_text(status)}" if status else "it ended")
        for key, worker in list(self._workers.items()):
            if worker.job == job:
                del self._workers[key]
                self._requeue(worker, f"the worker died: {why}")
        self._useless += 1
        if self._useless > 2 * self.ntasks + self.retries:
            # One after the other ends without having finished a member.
            self._failure = f"workers keep dying: {why}"
            return
        if self._failure is None:

            def started(future: Future) -> None:
                try:
                    replacement = JobArray(future.get()["arrays"])
                except FluxError as error:
                    if not self._live:
                        self._failure = f"no worker is left, and no other can be started: {error}"
                    return
                self._live.update(int(job) for job in replacement)
                self._follow(replacement)

            self.handle.rpc(
                "job-ingest.submit",
                {"entries": [{"jobspec": self._spec}], "urgency": 16, "flags": 0},
                callback=started,
            )
        self._distribute()

    def close(self, cancel: bool = False) -> None:
        """Ends the workers; ``cancel`` does not wait for members that are running. Idempotent."""
        if self._closing:
            return
        self._closing = True
        try:
            for worker in self._workers.values():
                worker.request.error(errno.ENODATA)
            deadline = time.monotonic() + (0.0 if cancel else CLOSE_S)
            while self._live and (left := deadline - time.monotonic()) > 0:
                self.handle._check()
                self.handle.dispatch(left)
            if self._live:
                self._cancel_jobs()
            self._service.close()
        except (FluxError, TimeoutError):
            # The instance has gone, and its jobs with it.
            pass
        finally:
            self._close_handle()

    def _cancel_jobs(self) -> None:
        cancel(sorted(self._live), "the pool of workers has been closed", handle=self.handle)

    def _close_handle(self) -> None:
        if self._own_handle:
            self.handle.close()


def map(
    function: str | Callable[[Any], Any],
    items: Iterable[Any],
    ntasks: int | None = None,
    **how: Any,
) -> Iterator[Outcome]:
    """``Workers(function, ntasks, **how).map(items)`` for once."""
    ordered = bool(how.pop("ordered", False))
    with Workers(function, ntasks, **how) as workers:
        yield from workers.map(items, ordered=ordered)


# -- references to functions ----------------------------------------------------------------------


def _reference(function: str | Callable[..., Any]) -> str:
    """``module:qualified.name``. Raises ValueError for what a worker could not import."""
    if isinstance(function, str):
        module, colon, name = function.partition(":")
        if not colon or not module or not name:
            raise ValueError(f"invalid function {function!r}: expected 'module:name'")
        return function
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__qualname__", "")
    if not module or not name or "<" in name:
        raise ValueError(
            f"{function!r} cannot be imported by a worker: use a function at the top of a module"
        )
    return f"{module}:{name}"


def _main_file(*functions: str | Callable[..., Any] | None) -> str | None:
    """The script to load, when a function (or a class of an input) lives in ``__main__``."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    named = any(
        function is not None and _reference(function).startswith("__main__:")
        for function in functions
    )
    if path is None:
        if named:
            raise ValueError("functions of an interactive session cannot be imported by a worker")
        return None
    return os.path.abspath(path) if named else None


def _resolve(reference: str) -> Callable[..., Any]:
    import importlib

    module, _, name = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{reference} is not callable")
    result: Callable[..., Any] = found
    return result


def _load_main(path: str) -> None:
    """The driver's script as a module, without running what is under ``if __name__ == …``."""
    import runpy
    import types

    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


# -- inside a worker ------------------------------------------------------------------------------


def serve(service: str, rank: int) -> int:
    """A worker's life: call the driver, load the function, take members until told to stop."""
    import signal

    # The driver decides what an interrupt means; it ends the workers when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = os.environ.get("FLUX_JOB_ID", "0")
    with Handle() as handle:
        stream = handle.rpc(
            f"{service}.work", {"job": job, "pid": os.getpid()}, rank, streaming=True
        )
        try:
            setup = stream.get()["setup"]
            try:
                function = _prepare(setup)
            except BaseException as error:
                text = f"cannot load {setup['function']}: {type(error).__name__}: {error}"
                handle.call(f"{service}.failed", {"error": text}, rank, timeout=CLOSE_S)
                traceback.print_exc()
                return 1
            for message in stream:
                results: list[list[Any]] = []
                begun = time.perf_counter()
                for key, blob in message["members"]:
                    results.append([key, *_run(function, blob)])
                    if time.perf_counter() - begun > CHUNK_S:
                        handle.send(f"{service}.done", {"job": job, "results": results}, rank)
                        results, begun = [], time.perf_counter()
                if results:
                    handle.send(f"{service}.done", {"job": job, "results": results}, rank)
        except FluxError:
            # The driver or the instance has gone: nobody wants the rest.
            return 0
    return 0


def _prepare(setup: dict[str, Any]) -> Callable[[Any], Any]:
    known = set(sys.path)
    sys.path[:0] = [entry for entry in setup["path"] if entry not in known]
    if setup["main"]:
        _load_main(setup["main"])
    function = _resolve(setup["function"])
    if setup["initializer"]:
        _resolve(setup["initializer"])()
    return function


def _run(function: Callable[[Any], Any], blob: bytes) -> tuple[bool, bytes, float]:
    """(went well, pickled result or (error, traceback), seconds)."""
    begun = time.perf_counter()
    try:
        value = function(pickle.loads(blob))
        seconds = time.perf_counter() - begun
        packed = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        if len(packed) > LIMIT:
            raise ValueError(
                f"the result is {len(packed)} bytes pickled, over the limit of {LIMIT}: "
                "write it to a file and return its name"
            )
        return True, packed, seconds
    except Exception as error:
        seconds = time.perf_counter() - begun
        told = (f"{type(error).__name__}: {error}", traceback.format_exc())
        return False, pickle.dumps(told), seconds


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], int(sys.argv[2])))
