"""Who docks: AutoDock Vina, as a Python package or as a program, or a stand-in without chemistry.

Each engine is a function ``(screen, receptor, ligand, pdbqt) -> Docked``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from screening import Ligand, Screen

SCORE = re.compile(r"^REMARK VINA RESULT:\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Docked:
    """The poses, best first: their scores (kcal/mol, the lower the better), and their PDBQT."""

    scores: list[float]
    poses: str


class EngineError(RuntimeError):
    """No engine, or one that failed; says what to do."""


def package(screen: Screen, receptor: Path, ligand: Ligand, pdbqt: str) -> Docked:
    """The Python package ``vina``."""
    from vina import Vina

    vina = Vina(sf_name="vina", cpu=1, seed=screen.seed, verbosity=0)
    vina.set_receptor(str(receptor))
    vina.set_ligand_from_string(pdbqt)
    vina.compute_vina_maps(center=list(screen.centre), box_size=list(screen.size))
    vina.dock(exhaustiveness=screen.exhaustiveness, n_poses=screen.poses)
    poses = vina.poses(n_poses=screen.poses)
    return Docked(_scores(poses), poses)


def program(screen: Screen, receptor: Path, ligand: Ligand, pdbqt: str) -> Docked:
    """The program ``vina``, e.g. of Debian's package autodock-vina."""
    with tempfile.TemporaryDirectory(prefix="dock-") as scratch:
        given, found = Path(scratch, "ligand.pdbqt"), Path(scratch, "poses.pdbqt")
        given.write_text(pdbqt)
        command = ["vina", "--receptor", str(receptor), "--ligand", str(given)]
        for axis, middle, length in zip("xyz", screen.centre, screen.size):
            command += [f"--center_{axis}", str(middle), f"--size_{axis}", str(length)]
        command += ["--exhaustiveness", str(screen.exhaustiveness), "--seed", str(screen.seed)]
        command += ["--num_modes", str(screen.poses), "--cpu", "1", "--out", str(found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing said"]
            raise EngineError(f"vina ended with {done.returncode}: {said[0]}")
        poses = found.read_text()
    return Docked(_scores(poses), poses)


def stand_in(screen: Screen, receptor: Path, ligand: Ligand, pdbqt: str) -> Docked:
    """No docking: takes 5 ms a torsion and makes scores up, always the same for a molecule.

    To try the workflow where Vina is not. A ligand called ``fails`` fails.
    """
    if ligand.name == "fails":
        raise EngineError("the stand-in fails for a ligand of this name")
    time.sleep(0.005 * (1 + ligand.torsions))
    noise = hashlib.sha256(f"{ligand.smiles} {screen.seed}".encode()).digest()
    scores = sorted(-2.0 - ligand.atoms / 8 - byte / 256 for byte in noise[: screen.poses])
    poses = "".join(
        f"MODEL {k}\nREMARK VINA RESULT: {score:9.3f} 0.000 0.000\nENDMDL\n"
        for k, score in enumerate(scores, 1)
    )
    return Docked(_scores(poses), poses)


def _scores(poses: str) -> list[float]:
    found = [float(score) for score in SCORE.findall(poses)]
    if not found:
        raise EngineError("vina found no pose in the box")
    return found


ENGINES: dict[str, Callable[[Screen, Path, Ligand, str], Docked]] = {
    "package": package,
    "program": program,
    "stand-in": stand_in,
}


def choose(wanted: str) -> str:
    """The engine to use for ``wanted``: ``auto`` is the package, or else the program.

    Raises EngineError when it is not installed, or there is none of that name.
    """
    there = {
        "package": importlib.util.find_spec("vina") is not None,
        "program": shutil.which("vina") is not None,
        "stand-in": True,
    }
    if wanted == "auto":
        wanted = "package" if there["package"] else "program"
    if wanted not in ENGINES:
        raise EngineError(f"engine: {wanted!r} is not one of auto, {', '.join(ENGINES)}")
    if not there[wanted]:
        raise EngineError(
            "AutoDock Vina is not installed: pip install 'flux-mpi[docking]', or Debian's package "
            "autodock-vina; --engine=stand-in needs none"
        )
    return wanted
