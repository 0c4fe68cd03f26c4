"""docs/tutorial.md promises that its commands run as they stand: run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BIN = Path(sys.executable).parent
LIMIT_S = 150

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LIMIT_S + 30)]


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL
    )


def in_instance(tmp_path: Path, *program: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FLUX_", "PMI_", "OMPI_"))}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    env["PYTHONUTF8"] = "1"
    flux = shutil.which("flux-mpi", path=env["PATH"])
    assert flux, f"flux-mpi must be in {env['PATH']}"
    return subprocess.run(
        [flux, "start", "--test-size=4", "--cores-per-rank=2", *program],
        env=env,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_every_shell_command_runs(tmp_path: Path) -> None:
    script = tmp_path / "tutorial.sh"
    script.write_text("set -e\n" + "\n".join(blocks("sh")))
    done = in_instance(tmp_path, "/bin/bash", str(script))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for expected in (
        "task 3 of 4",
        "the exit status was 3",
        "refused with 1",
        "hello",
        "196",  # 14 squared
        "out of time: 142",
        "fan is loud",
        "└── inner",
        "PD:0 R:2 CD:1 F:0",
        "tutorial local:///",
    ):
        assert expected in said, f"{expected!r} is missing from:\n{said}"


def test_the_python_part_runs(tmp_path: Path) -> None:
    script = tmp_path / "tutorial.py"
    script.write_text("\n".join(blocks("python")))
    done = in_instance(tmp_path, sys.executable, str(script))
    assert done.returncode == 0, done.stderr
    assert "10 of 20 succeeded" in done.stdout
    assert "[0, 0, 0, 0]" in done.stdout
    assert "'rank': 3" in done.stdout
