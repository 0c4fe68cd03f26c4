"""The epidemic study on a real instance, small: both ways, failures, resumption, Ctrl-C."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        importlib.util.find_spec("covasim") is None,
        reason="covasim is not installed: pip install '.[epidemic]'",
    ),
]

DRIVER = Path(__file__).parents[2] / "examples" / "epidemic" / "run.py"
BIN = Path(sys.executable).parent
MEMBERS = 4
SMALL = ("--pop-size=200", "--days=20", "--betas=0.016,0.020", "--seeds=60")
LIMIT_S = 240


def command(out: Path, *options: str, members: int = MEMBERS) -> list[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    programs = [shutil.which(name, path=path) for name in ("mpiexec", "flux-mpi")]
    assert all(programs), f"mpiexec and flux-mpi must be in {path}"
    mpiexec, flux = map(str, programs)
    study = [*SMALL, f"--members={members}", f"--out={out}", *options]
    return [
        *(mpiexec, "-n", "2", flux, "start", "--cores-per-rank=1"),
        *(sys.executable, str(DRIVER), *study),
    ]


@pytest.fixture
def env() -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("FLUX_", "PMI_", "OMPI_"))},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }


def study(
    env: dict[str, str], out: Path, *options: str, members: int = MEMBERS
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, *options, members=members),
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def finished(out: Path) -> dict[int, dict[str, object]]:
    return {
        int(path.stem): json.loads(path.read_text()) for path in (out / "members").glob("[0-9]*")
    }


@pytest.mark.parametrize("mode", ["jobs", "workers"])
def test_failures_are_listed_and_a_second_run_does_only_what_is_left(
    env: dict[str, str], tmp_path: Path, mode: str
) -> None:
    first = study(env, tmp_path, f"--mode={mode}", "--fail=1")
    assert first.returncode == 1, first.stderr
    assert "1 failed" in first.stdout
    assert "MemberFailed" in first.stdout
    assert set(finished(tmp_path)) == {0, 2, 3}

    kept = {k: (tmp_path / f"members/{k}.json").stat().st_mtime_ns for k in (0, 3)}
    (tmp_path / "members/2.json").write_text('{"study": ')  # as a full disk leaves it
    second = study(env, tmp_path, f"--mode={mode}")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "(2 now, 2 from earlier runs), 0 failed" in second.stdout
    assert set(finished(tmp_path)) == set(range(MEMBERS))
    for k, when in kept.items():
        assert (tmp_path / f"members/{k}.json").stat().st_mtime_ns == when
    with (tmp_path / "results.csv").open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(MEMBERS))
    assert (tmp_path / "fan.png").read_bytes().startswith(b"\x89PNG")


def test_both_ways_compute_the_same(env: dict[str, str], tmp_path: Path) -> None:
    found = {}
    for mode in ("jobs", "workers"):
        done = study(env, tmp_path / mode, f"--mode={mode}", members=2)
        assert done.returncode == 0, done.stdout + done.stderr
        found[mode] = {k: each["metrics"] for k, each in finished(tmp_path / mode).items()}
    assert found["jobs"] == found["workers"]


@pytest.mark.parametrize("mode", ["jobs", "workers"])
def test_an_interrupt_keeps_what_is_finished(
    env: dict[str, str], tmp_path: Path, mode: str
) -> None:
    many = 400  # far more than can end before the interrupt
    process = subprocess.Popen(
        command(tmp_path, f"--mode={mode}", members=many),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "members").glob("[0-9]*.json")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no member finished in 120 s"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C reaches all of a terminal's foreground
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode != 0, output
    kept = finished(tmp_path)  # every file parses
    assert 0 < len(kept) < many
    assert all(len(each["curves"]["infectious"]) == 21 for each in kept.values())  # type: ignore[index]
