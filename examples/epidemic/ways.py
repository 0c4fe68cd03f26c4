"""Three ways to run the members that are left; each yields outcomes as members end.

``jobs``: a job a member, a process each, which any program in any language can be.
``workers``: one job of long-lived Python processes that import Covasim once and take members.
``local``: a process pool without flux-mpi, to compare with and to develop the study.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from study import Study, load_covasim, read_member, run_member

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Outcome:
    """How one member ended: ``error`` is empty when it finished; ``seconds`` were spent in it."""

    index: int
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Task:
    """What a way is to do: the members left of a study, and where their files go."""

    study: Study
    pending: Sequence[int]
    out: Path
    slots: int
    fail: frozenset[int] = frozenset()


Item = tuple[str, int, tuple[int, ...]]
"""What a worker is sent: the file of the study, a member's number, and those that are to fail."""


def compute(item: Item) -> float:
    """One member inside a process that has more to do: a warm worker or a pool. Its seconds."""
    path = Path(item[0])
    study = Study.load(path)
    return run_member(study, study.member(item[1]), path.parent / "members", item[2])


def warm_up() -> None:
    """Once in each worker, so that no member waits for it."""
    load_covasim()


def _items(task: Task) -> list[Item]:
    fail = tuple(sorted(task.fail))
    return [(str(task.out / "study.json"), index, fail) for index in task.pending]


def workers(task: Task) -> Generator[Outcome, None, None]:
    """Long-lived workers, a job of the instance each; this process hands out the members."""
    import flux_mpi

    (task.out / "logs").mkdir(parents=True, exist_ok=True)
    with flux_mpi.Workers(
        compute,
        min(task.slots, len(task.pending)),
        initializer=warm_up,
        name="epidemic",
        output=str(task.out / "logs" / "worker-{{id.f58plain}}.log"),
    ) as pool:
        for outcome in pool.map(_items(task)):
            yield Outcome(task.pending[outcome.index], outcome.seconds, outcome.error)
    for log in (task.out / "logs").glob("worker-*.log"):
        if log.stat().st_size == 0:  # as most have nothing to say
            log.unlink()


def jobs(task: Task) -> Generator[Outcome, None, None]:
    """One array of jobs, a process each; what a member says when it fails is in its log file."""
    import flux_mpi
    from flux_mpi.client.jobs import as_completed
    from flux_mpi.formats.idset import IDSet

    logs = task.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE / "member.py"), "--study", str(task.out / "study.json")]
    command += ["--index", "{cc}", "--fail", ",".join(map(str, sorted(task.fail)))]
    members = sorted(task.pending)
    with flux_mpi.Handle() as handle:
        array = flux_mpi.submit(
            command,
            cc=IDSet(members),
            name="member-{cc}",
            output="/dev/null",
            error=str(logs / "{cc}.err"),
            handle=handle,
        )
        running = True
        try:
            for result in as_completed(array, handle=handle):
                index = members[array.index(result.id)]
                log = logs / f"{index}.err"
                if result.success:
                    log.unlink(missing_ok=True)
                    yield Outcome(index, _seconds(task, index))
                else:
                    yield Outcome(index, 0.0, _last_line(log) or result.note or str(result))
            running = False
        finally:
            if running:  # interrupted: nobody wants the rest
                with contextlib.suppress(OSError):  # unless the instance has ended already
                    flux_mpi.cancel(array, "the study was interrupted", handle=handle)


def _seconds(task: Task, index: int) -> float:
    result = read_member(task.study, task.study.member(index), task.out / "members")
    return float(result["seconds"]) if result else 0.0


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def local(task: Task) -> Generator[Outcome, None, None]:
    """A process pool of the standard library: this machine only, and nobody to ask how it goes."""
    with ProcessPoolExecutor(task.slots, initializer=warm_up) as pool:
        futures = {pool.submit(compute, item): item[1] for item in _items(task)}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    yield Outcome(futures[future], future.result())
                else:
                    yield Outcome(futures[future], 0.0, f"{type(error).__name__}: {error}")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def slots(mode: str) -> int:
    """How many members this way runs at a time: one a core. Raises OSError without an instance."""
    if mode == "local":
        return len(os.sched_getaffinity(0))
    import flux_mpi

    with flux_mpi.Handle() as handle:
        return int(handle.call("resource.info", {})["ncores"])


WAYS: dict[str, Callable[[Task], Generator[Outcome, None, None]]] = {
    "jobs": jobs,
    "local": local,
    "workers": workers,
}
TITLES = {
    "jobs": "a job and a process a member",
    "local": "a process pool without flux-mpi",
    "workers": "warm workers",
}
