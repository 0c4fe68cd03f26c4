"""Put the results of all batches together: a ranked table, and the poses of the best ligands.

    python examples/docking/merge.py out/docking/hierarchy

``screen.py`` does this by itself.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from screening import Ligand, Screen, read_result, result_path, write_text

COLUMNS = ("rank", "ligand", "score", "per_atom", "atoms", "torsions", "seconds", "note", "smiles")
"""Of ranking.csv: ``score`` in kcal/mol, the best first; ``per_atom`` is that per heavy atom."""


def rank(folder: Path, screen: Screen) -> list[tuple[Ligand, dict[str, Any]]]:
    """The ligands that have a result, the best first."""
    found = [
        (ligand, result)
        for ligand in screen.ligands
        if (result := read_result(folder, screen, ligand)) is not None
    ]
    return sorted(found, key=lambda pair: (min(pair[1]["scores"]), pair[0].name))


def merge(folder: Path, screen: Screen, top: int) -> list[tuple[Ligand, dict[str, Any]]]:
    """Write ranking.csv, and the poses of the ``top`` best into top/; returns the ranking."""
    ranking = rank(folder, screen)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, (ligand, result) in enumerate(ranking, 1):
        score = min(result["scores"])
        per_atom = round(score / ligand.atoms, 3) if ligand.atoms else ""
        writer.writerow(
            [
                *(place, ligand.name, score, per_atom, ligand.atoms, ligand.torsions),
                *(result["seconds"], ligand.note, ligand.smiles),
            ]
        )
    write_text(folder / "ranking.csv", table.getvalue())
    best = folder / "top"
    shutil.rmtree(best, ignore_errors=True)  # of an earlier ranking
    best.mkdir(parents=True)
    for place, (ligand, _) in enumerate(ranking[:top], 1):
        shutil.copyfile(
            result_path(folder, ligand.name, "pdbqt"), best / f"{place:02}-{ligand.name}.pdbqt"
        )
    return ranking


def table(ranking: Sequence[tuple[Ligand, dict[str, Any]]], top: int) -> str:
    """The best as text."""
    lines = [f"{'rank':>4} {'kcal/mol':>8}  {'ligand':16} what it is"]
    for place, (ligand, result) in enumerate(ranking[:top], 1):
        lines.append(f"{place:4} {min(result['scores']):8.2f}  {ligand.name:16} {ligand.note}")
    return "\n".join(line.rstrip() for line in lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Rank what a screen has docked so far.")
    parser.add_argument("screen", type=Path, help="folder of the screen")
    parser.add_argument("--top", type=int, default=10, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        screen = Screen.load(options.screen)
        ranking = merge(options.screen, screen, options.top)
    except (OSError, ValueError) as error:
        print(f"merge.py: {error}", file=sys.stderr)
        return 1
    print(f"{len(ranking)} of {len(screen.ligands)} ligands\n{table(ranking, options.top)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
