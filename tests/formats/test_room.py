"""The rules of this room: no other room, no I/O, nothing that makes commands start slowly."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flux_mpi.formats

FOLDER = Path(str(flux_mpi.formats.__file__)).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def imported(source: str) -> set[str]:
    """Every module that the source imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("module", MODULES)
def test_a_format_needs_only_formats(module: str) -> None:
    names = imported((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    ours = {name for name in names if name.split(".")[0] == "flux_mpi"}
    assert all(name.split(".")[1] == "formats" for name in ours)
    assert not names & {"os", "io", "socket", "subprocess", "logging", "mpi4py", "numpy", "numba"}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "shape"])
def test_loading_a_format_is_cheap(module: str) -> None:
    heavy = ("typing", "dataclasses", "inspect", "enum", "datetime", "shlex", "argparse")
    code = (
        "import sys, re, json; before = set(sys.modules);"  # what every command has anyway
        f"import flux_mpi.formats.{module};"
        f"print([m for m in {heavy!r} if m in set(sys.modules) - before])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=FOLDER.parents[1],
    )
    assert done.stdout.strip() == "[]"
