"""Three ways to run the members that are left; each yields outcomes as members end.

``jobs``: a job a member, a process each, which any program in any language can be.
``workers``: one job of long-lived Python processes that import Covasim once and take members.
``local``: a process pool without flux-mpi, to compare with and to develop the study.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from study import Study, run_member

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


def compute(study_path: str, index: int, fail: Sequence[int] = ()) -> float:
    """One member inside a process that has more to do: a warm worker or a pool. Its seconds."""
    path = Path(study_path)
    study = Study.load(path)
    return run_member(study, study.member(index), path.parent / "members", fail)


def local(task: Task) -> Generator[Outcome, None, None]:
    path, fail = str(task.out / "study.json"), sorted(task.fail)
    with ProcessPoolExecutor(task.slots) as pool:
        futures = {pool.submit(compute, path, index, fail): index for index in task.pending}
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
    """How many members this way runs at a time: a core each."""
    return len(os.sched_getaffinity(0))


WAYS: dict[str, Callable[[Task], Generator[Outcome, None, None]]] = {"local": local}
TITLES = {"local": "a process pool"}
