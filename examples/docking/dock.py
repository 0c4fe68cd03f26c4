"""Dock one ligand of a prepared screen: what a job of the screen runs.

python examples/docking/dock.py --screen out/docking/mine --ligand aspirin
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import engines
from screening import Screen, result_path, write_json, write_text


def dock(folder: Path, name: str) -> float:
    """Dock it and write its two result files; returns its best score (kcal/mol).

    The JSON file is written last: where it is, the result is whole. Raises OSError, ValueError
    for a ligand that the screen does not have, EngineError.
    """
    began = time.perf_counter()
    screen = Screen.load(folder)
    ligand = screen.ligand(name)
    pdbqt = (folder / "ligands" / f"{name}.pdbqt").read_text()
    docked = engines.ENGINES[screen.engine](screen, folder / "receptor.pdbqt", ligand, pdbqt)
    write_text(result_path(folder, name, "pdbqt"), docked.poses)
    write_json(
        result_path(folder, name),
        {
            "ligand": name,
            "smiles": ligand.smiles,
            "settings": screen.settings(),
            "scores": docked.scores,
            "seconds": round(time.perf_counter() - began, 3),
        },
    )
    return docked.scores[0]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Dock one ligand of a prepared screen.")
    parser.add_argument("--screen", type=Path, required=True, help="folder of the screen")
    parser.add_argument("--ligand", required=True, metavar="NAME")
    options = parser.parse_args(arguments)
    try:
        score = dock(options.screen, options.ligand)
    except (OSError, ValueError, RuntimeError) as error:  # Vina's own are RuntimeErrors
        print(f"{options.ligand}: {error}", file=sys.stderr)
        return 1
    print(f"{options.ligand} {score:.2f} kcal/mol")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
