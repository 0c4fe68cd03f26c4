"""SMILES and a receptor become PDBQT files: 3D by RDKit (ETKDG, seeded), atom types by Meeko.

    python examples/docking/prepare.py --out out/docking/mine

``screen.py`` does this by itself.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import engines
from screening import Ligand, Screen, read_smiles, write_text

HERE = Path(__file__).resolve().parent
LIGANDS = HERE / "ligands.smi"
RECEPTOR = HERE / "receptor" / "abl.pdbqt.gz"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what is docked, and how."""
    fields = Screen(())
    parser.add_argument(
        "--ligands", type=Path, default=LIGANDS, metavar="FILE", help="lines of SMILES NAME [NOTE]"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N ligands")
    parser.add_argument(
        "--receptor", type=Path, default=RECEPTOR, metavar="FILE", help="PDBQT, or that with .gz"
    )
    for name, value in (("centre", fields.centre), ("size", fields.size)):
        parser.add_argument(
            f"--{name}",
            type=_triple,
            default=value,
            metavar="X,Y,Z",
            help=f"{name} of the box in Å (default: {','.join(f'{x:g}' for x in value)})",
        )
    parser.add_argument(
        "--exhaustiveness",
        type=int,
        default=fields.exhaustiveness,
        metavar="N",
        help="how long Vina searches (default: %(default)s; its own is 8)",
    )
    parser.add_argument("--seed", type=int, default=fields.seed, help="default: %(default)s")
    parser.add_argument(
        "--engine",
        default="auto",
        choices=["auto", *engines.ENGINES],
        help="Vina as Python package or as program, or made-up scores (default: %(default)s)",
    )


def _triple(text: str) -> tuple[float, float, float]:
    x, y, z = (float(word) for word in text.split(","))
    return x, y, z


def prepare(options: argparse.Namespace, folder: Path) -> Screen:
    """Make the screen in ``folder``; what is there already and is the same is kept.

    Raises OSError; ValueError naming a ligand or option; EngineError when something is missing.
    """
    engine = engines.choose(options.engine)
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit: {options.limit} is not a number of at least 1")
    ligands = read_smiles(options.ligands)[: options.limit]
    receptor = _receptor(options.receptor)
    screen = Screen(
        tuple(ligands),
        engine=engine,
        centre=options.centre,
        size=options.size,
        exhaustiveness=options.exhaustiveness,
        seed=options.seed,
        receptor_sum=hashlib.sha256(receptor.encode()).hexdigest()[:16],
    )
    known = _known(folder, screen)
    write_text(folder / "receptor.pdbqt", receptor)
    make = _plain if engine == "stand-in" else _chemistry
    ready = []
    for ligand in ligands:
        found = known.get((ligand.name, ligand.smiles))
        if found is None:
            found, pdbqt = make(ligand, screen.seed)
            write_text(folder / "ligands" / f"{ligand.name}.pdbqt", pdbqt)
        ready.append(replace(found, note=ligand.note))
    screen = replace(screen, ligands=tuple(ready))
    screen.save(folder)
    return screen


def _known(folder: Path, screen: Screen) -> dict[tuple[str, str], Ligand]:
    """The ligands that an earlier run has prepared in the same way."""
    try:
        earlier = Screen.load(folder)
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    if (earlier.engine == "stand-in", earlier.seed) != (screen.engine == "stand-in", screen.seed):
        return {}
    return {
        (ligand.name, ligand.smiles): ligand
        for ligand in earlier.ligands
        if (folder / "ligands" / f"{ligand.name}.pdbqt").exists()
    }


def _receptor(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("ascii")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if "\nATOM" not in f"\n{text}":
        raise ValueError(f"{path}: no ATOM line, so this is no PDBQT of a receptor")
    return text


def _chemistry(ligand: Ligand, seed: int) -> tuple[Ligand, str]:
    try:
        from meeko import MoleculePreparation, PDBQTWriterLegacy
        from rdkit import Chem, RDLogger
        from rdkit.Chem import AllChem
    except ImportError as error:
        raise engines.EngineError(
            f"{error}: pip install 'flux-mpi[docking]'; --engine=stand-in needs none"
        ) from None
    RDLogger.DisableLog("rdApp.*")  # what is wrong with a molecule is said below, once
    molecule = Chem.MolFromSmiles(ligand.smiles)
    if molecule is None:
        raise ValueError(f"{ligand.name}: {ligand.smiles!r} is no SMILES that RDKit understands")
    atoms = molecule.GetNumAtoms()
    molecule = Chem.AddHs(molecule)
    how = AllChem.ETKDGv3()
    how.randomSeed = seed
    if AllChem.EmbedMolecule(molecule, how) != 0:
        raise ValueError(f"{ligand.name}: RDKit finds no shape for {ligand.smiles}")
    AllChem.MMFFOptimizeMolecule(molecule)
    setup = MoleculePreparation().prepare(molecule)[0]
    pdbqt, fine, why = PDBQTWriterLegacy.write_string(setup)
    if not fine:
        raise ValueError(f"{ligand.name}: {why.strip()}")
    turns = sum(line.startswith("BRANCH") for line in pdbqt.splitlines())
    return replace(ligand, atoms=atoms, torsions=turns), pdbqt


def _plain(ligand: Ligand, seed: int) -> tuple[Ligand, str]:
    """For the stand-in, which asks for nothing but that molecules differ: letters are atoms."""
    atoms = sum(letter.isalpha() and letter != "H" for letter in ligand.smiles)
    return replace(ligand, atoms=atoms, torsions=atoms // 4), "REMARK stand-in\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Prepare a screen for docking.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the screen")
    add_options(parser)
    options = parser.parse_args(arguments)
    try:
        screen = prepare(options, options.out)
    except (OSError, ValueError, engines.EngineError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    print(f"{len(screen.ligands)} ligands and a receptor in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
