"""The coupled examples on a real instance, small."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

FOLDER = Path(__file__).parents[2] / "examples" / "coupled"
BIN = Path(sys.executable).parent
LIMIT_S = 240


def instance(
    ranks: int, script: str, *options: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    programs = [shutil.which(name, path=path) for name in ("mpiexec", "flux-mpi")]
    assert all(programs), f"mpiexec and flux-mpi must be in {path}"
    mpiexec, flux = map(str, programs)
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("FLUX_", "PMI_", "OMPI_"))},
        "PATH": path,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        **environ,
    }
    return subprocess.run(
        [mpiexec, "-n", str(ranks), flux, "start", "--cores-per-rank=2", sys.executable,
         str(FOLDER / script), *options],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
        check=False,
    )  # fmt: skip


def couple(ranks: int, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return instance(ranks, "couple.py", "--size=24", f"--out={out}", *options)


RESULTS = ("result.json", "plate.npy", "history.csv")


def test_the_result_is_the_same_however_it_is_run(tmp_path: Path) -> None:
    """One rank or four, one task or three, a quick analysis or a slow one."""
    found = []
    for at, (ranks, *options) in enumerate(
        ((1, "--tasks=1"), (4, "--tasks=3"), (2, "--tasks=2", "--think=0.02"))
    ):
        out = tmp_path / str(at)
        done = couple(ranks, out, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "stopped by the analysis after " in done.stdout
        found.append([(out / name).read_bytes() for name in RESULTS])
    assert found[0] == found[1] == found[2]
    result = json.loads(found[0][0])
    assert result["converged"]
    assert 20 < result["rounds"] < 150
    rows = list(csv.DictReader(found[0][2].decode().splitlines()))
    assert [int(row["round"]) for row in rows] == list(range(1, result["rounds"] + 1))
    # The power was changed while it ran, and the last one that was obeyed is in the result.
    assert len({row["power"] for row in rows}) > 10
    assert float(rows[-3]["power"]) == result["power"]
    assert abs(float(rows[-3]["probe_celsius"]) - 45.0) <= 0.05


def test_when_one_of_the_two_fails_the_other_does_not_wait_for_ever(tmp_path: Path) -> None:
    done = couple(2, tmp_path, "--fail-at=5")
    assert done.returncode == 1
    first, second = done.stderr.strip().splitlines()[:2]
    assert first == (
        "couple.py: analyse failed with status 1: analyse.py: failing, because --fail-at says so"
    )
    assert second.startswith("couple.py: simulate was ended: ")
    assert "the other job of the pair has failed" in second
    assert not (tmp_path / "result.json").exists()


def test_too_few_cores_for_both_are_told(tmp_path: Path) -> None:
    done = couple(1, tmp_path, "--tasks=3")
    assert done.returncode == 1
    assert "3 tasks and the analysis need 4 cores, and this instance has 2" in done.stderr


def test_what_does_not_converge_is_told(tmp_path: Path) -> None:
    done = couple(1, tmp_path, "--tasks=1", "--rounds=6")
    assert done.returncode == 1
    # Not at the beginning: Open MPI's mpiexec once passed on what went to stderr before it.
    assert "not converged after 6 rounds of 8 steps" in done.stdout
    assert json.loads((tmp_path / "result.json").read_text())["rounds"] == 6


SMALL = ("--first=5", "--batch=3", "--batches=2")


@pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None,
    reason="scikit-learn is not installed: pip install '.[examples]'",
)
def test_a_search_chooses_its_members_and_finds_the_same_again(tmp_path: Path) -> None:
    best = []
    for ranks in (1, 4):
        out = tmp_path / str(ranks)
        done = instance(ranks, "search.py", "--first=6", "--batch=4", "--batches=4", f"--out={out}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("batch ") == 5
        with (out / "results.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["member"]) for row in rows] == list(range(22))
        assert [int(row["batch"]) for row in rows] == [0] * 6 + sorted([1, 2, 3, 4] * 4)
        scores = [float(row["score_kelvin"]) for row in rows]
        best.append(json.loads((out / "best.json").read_text()))
        assert best[-1]["score_kelvin"] == min(scores)
        assert min(scores[6:]) < min(scores[:6]), "what was chosen is better than what was spread"
    assert best[0] == pytest.approx(best[1], rel=1e-9)


def test_without_scikit_learn_it_says_so_or_chooses_at_random(tmp_path: Path) -> None:
    package = tmp_path / "without" / "sklearn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('as if it were not there')\n")
    path = os.pathsep.join([str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = instance(1, "search.py", *SMALL, f"--out={tmp_path}", PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stderr.startswith("search.py: scikit-learn is not installed (as if it were not")
    assert "--pick random" in done.stderr
    done = instance(1, "search.py", *SMALL, "--pick=random", f"--out={tmp_path}", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "best.json").read_text())["members"] == 11
