"""Finding what is left of jobs, also of those that were instances, by what it was started with."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.shell import rundir, strays


@pytest.fixture
def processes() -> Iterator[Any]:
    """``processes(name, FLUX_URI=…)`` starts one with that, and no other FLUX variables."""
    started: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str, **environ: str) -> int:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FLUX_")}
        started[name] = subprocess.Popen(["sleep", "100"], env={**clean, **environ})
        return started[name].pid

    start.alive = lambda: {name for name, one in started.items() if one.poll() is None}  # type: ignore[attr-defined]
    yield start
    for process in started.values():
        process.kill()
        process.wait()


def test_jobs_their_instances_and_what_those_run_are_found(processes: Any, tmp_path: Path) -> None:
    here = uuid.uuid4().hex
    top, one, other = (f"local:///{here}/{name}/local-0" for name in "abc")
    folder = rundir.make(str(tmp_path))
    two = f"local://{folder}/local-0"
    processes("program of the top", FLUX_URI=top)
    processes("task of the top", FLUX_URI=top, FLUX_JOB_ID="ƒ1")
    processes("broker of one", FLUX_URI=top, FLUX_JOB_ID="ƒ2")
    processes("program of one", FLUX_URI=one, FLUX_PARENT_URI=top, FLUX_ENCLOSING_ID="ƒ2")
    processes("broker of two", FLUX_URI=one, FLUX_PARENT_URI=top, FLUX_JOB_ID="ƒ1")
    processes("task of two", FLUX_URI=two, FLUX_PARENT_URI=one, FLUX_JOB_ID="ƒ1")
    processes("user's shell at one", FLUX_URI=one)
    processes("task of another", FLUX_URI=other, FLUX_JOB_ID="ƒ1")
    processes("nobody's")
    assert strays.find(top).uris == {one, two}
    assert strays.end(top) == 5
    assert processes.alive() == {
        "program of the top",
        "user's shell at one",
        "task of another",
        "nobody's",
    }
    assert not os.path.exists(folder), "what a killed broker kept is gone"
    assert strays.end(top) == 0


def test_only_run_directories_are_removed(processes: Any, tmp_path: Path) -> None:
    top = f"local:///{uuid.uuid4().hex}/local-0"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "local-0").touch()
    processes("x", FLUX_URI=f"local://{precious}/local-0", FLUX_PARENT_URI=top)
    assert strays.end(top) == 1
    assert (precious / "local-0").exists()
