"""A screen as files: what is docked into what, and where everything about it lies.

Everything here is plain data and the standard library, so that a test, a plot or a job can read a
screen without the chemistry that prepared it. Below the folder of a screen:

    screen.json             what is docked, and how (Screen)
    receptor.pdbqt  ligands/NAME.pdbqt
    batches/K.json          the ligands of a batch; K.log: what its child instance said
    results/NAME.json       how a ligand docked; NAME.pdbqt: its poses; NAME.err: why it did not
    timeline.json           when which cores were held and used
    ranking.csv  top/  utilisation.svg
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SINGLE_THREADED = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a docking: it has one core, and the screen is the parallelism."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Ligand:
    """A small molecule. ``atoms`` are heavy ones; ``torsions`` are the bonds that docking turns."""

    name: str
    smiles: str
    note: str = ""
    atoms: int = 0
    torsions: int = 0

    @property
    def cost(self) -> float:
        """How long it is expected to dock, in s of one fast core at exhaustiveness 1.

        Starting takes 1 s; the rest is a fit over what Vina's number of steps depends on.
        """
        return 1.0 + (self.atoms * (50 + self.atoms + 10 * self.torsions) / 1700) ** 2


@dataclass(frozen=True)
class Screen:
    """What is docked, and how. Lengths are in Å, ``seed`` makes a docking repeatable."""

    ligands: tuple[Ligand, ...]
    engine: str = "package"
    centre: tuple[float, float, float] = (11.0, 90.5, 57.5)
    size: tuple[float, float, float] = (22.0, 24.0, 28.0)
    exhaustiveness: int = 1
    poses: int = 3
    seed: int = 2718
    receptor_sum: str = ""
    """A digest of the receptor's text: results of another receptor are none of this screen."""

    def __post_init__(self) -> None:
        names = [ligand.name for ligand in self.ligands]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two ligands are called {name!r}: names must differ")
        for what in ("exhaustiveness", "poses", "seed"):
            if getattr(self, what) < 1:
                raise ValueError(f"{what}: {getattr(self, what)} is not a number of at least 1")
        if not all(math.isfinite(x) for x in self.centre + self.size) or min(self.size) <= 0:
            raise ValueError(f"no box: centre {self.centre}, size {self.size} (Å)")

    def ligand(self, name: str) -> Ligand:
        """The ligand of that name. Raises ValueError when there is none."""
        for ligand in self.ligands:
            if ligand.name == name:
                return ligand
        raise ValueError(f"the screen has no ligand {name!r}")

    def settings(self) -> dict[str, Any]:
        """All that a result depends on but the ligand, as JSON has it."""
        fields = asdict(self)
        del fields["ligands"]
        plain: dict[str, Any] = json.loads(json.dumps(fields))
        return plain

    def save(self, folder: Path) -> None:
        write_json(folder / "screen.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Screen:
        """The screen in ``folder``. Raises OSError and ValueError."""
        fields: dict[str, Any] = json.loads((folder / "screen.json").read_text())
        fields["ligands"] = tuple(Ligand(**each) for each in fields["ligands"])
        for name in ("centre", "size"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def read_smiles(path: Path) -> list[Ligand]:
    """Lines of ``SMILES NAME [what it is]``; '#' begins a comment line.

    Raises OSError, and ValueError naming the line.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split(None, 2)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise ValueError(f"{path}, line {number}: expected 'SMILES NAME', found {line!r}")
        if not NAME.fullmatch(words[1]):
            raise ValueError(
                f"{path}, line {number}: the name {words[1]!r} cannot be a file's: letters, "
                "digits and '._+-' can"
            )
        found.append(Ligand(words[1], words[0], words[2].strip() if len(words) > 2 else ""))
    if not found:
        raise ValueError(f"{path}: no ligands")
    return found


def result_path(folder: Path, name: str, kind: str = "json") -> Path:
    return folder / "results" / f"{name}.{kind}"


def read_result(folder: Path, screen: Screen, ligand: Ligand) -> dict[str, Any] | None:
    """How ``ligand`` docked; None when it must (still, or again) be docked.

    A file that is cut off, or of other settings, is no result.
    """
    try:
        result = json.loads(result_path(folder, ligand.name).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(result, Mapping) or result.get("settings") != screen.settings():
        return None
    scores = result.get("scores")
    whole = (
        result.get("smiles") == ligand.smiles
        and isinstance(scores, list)
        and len(scores) > 0
        and all(isinstance(x, float | int) and math.isfinite(x) for x in scores)
        and result_path(folder, ligand.name, "pdbqt").exists()
    )
    return dict(result) if whole else None


def divide(ligands: Iterable[Ligand], children: int, batches: int = 0) -> list[list[Ligand]]:
    """Batches for ``children`` child instances at a time, the costly ligands first.

    Each batch is half of a child's fair share of the work that is left, so that the last ones are
    small and the children end together; but none is planned smaller than an eighth of the first,
    as each costs the start of a child. With ``batches``, that many of about equal cost.
    Raises ValueError for fewer than 1 child, or fewer than 0 batches.
    """
    if children < 1 or batches < 0:
        raise ValueError(f"cannot divide among {children} children, in {batches} batches")
    waiting = sorted(ligands, key=lambda ligand: (-ligand.cost, ligand.name))
    if batches:
        dealt = [waiting[k::batches] for k in range(batches)]
        return [batch for batch in dealt if batch]
    left = whole = sum(ligand.cost for ligand in waiting)
    found: list[list[Ligand]] = []
    at = 0
    while at < len(waiting):
        share, taken, begin = max(left, whole / 8) / (2 * children), 0.0, at
        while at < len(waiting) and (at == begin or taken + waiting[at].cost / 2 < share):
            taken += waiting[at].cost
            at += 1
        left -= taken
        found.append(waiting[begin:at])
    return found


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value))


def write_text(path: Path, text: str) -> None:
    """Write atomically: readers, and a run that was interrupted, see the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def last_line(path: Path) -> str:
    """The last line that says something; '' when there is none, or no such file."""
    try:
        lines: Sequence[str] = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
