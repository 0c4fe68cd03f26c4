"""The virtual screen: its parts, the whole with made-up scores, and with AutoDock Vina if present.

What runs in an instance here is the example as its users start it, on one broker.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "docking"))

import engines
import merge
import picture
import prepare
import utilisation
from screening import Ligand, Screen, divide, read_result, read_smiles, result_path, write_json
from utilisation import Instance, Span, Timeline

import flux_mpi

EXAMPLE = Path(__file__).parents[2] / "examples" / "docking"
LIMIT_S = 100
"""For one screen; a busy machine takes that long to start an instance or two."""
pytestmark = pytest.mark.timeout(300)
CHEMISTRY = all(importlib.util.find_spec(name) for name in ("vina", "meeko", "rdkit"))
CHILD = "batch" if hasattr(flux_mpi, "batch") else "start"
WAYS = [
    "start",
    pytest.param(
        "batch",
        marks=pytest.mark.skipif(
            not hasattr(flux_mpi, "batch"), reason="there is no flux_mpi.batch yet"
        ),
    ),
]


def ligands(*costs: int) -> list[Ligand]:
    return [Ligand(f"m{k}", "C" * (k + 1), atoms=cost) for k, cost in enumerate(costs)]


# -- the screen as data ---------------------------------------------------------------------------


def test_the_ligands_that_come_with_it_are_different_molecules() -> None:
    found = read_smiles(prepare.LIGANDS)
    assert len(found) >= 60
    assert len({each.name for each in found}) == len({each.smiles for each in found}) == len(found)
    assert next(each.name for each in found if each.note == "Abl inhibitor") == "imatinib"
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*") if "__" not in str(path)) < 3e5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# only this\n\n", "no ligands"),
        ("C methane\nCC\n", "line 2: expected 'SMILES NAME', found 'CC'"),
        ("C ../methane\n", r"line 1: the name '\.\./methane' cannot be a file's"),
    ],
)
def test_a_bad_line_of_smiles_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "some.smi"
    path.write_text(text)
    with pytest.raises(ValueError, match=why):
        read_smiles(path)


def test_a_senseless_screen_is_refused() -> None:
    with pytest.raises(ValueError, match="two ligands are called 'm0'"):
        Screen((*ligands(1), *ligands(1)))
    with pytest.raises(ValueError, match="exhaustiveness: 0"):
        Screen((), exhaustiveness=0)
    with pytest.raises(ValueError, match="no box"):
        Screen((), size=(10.0, 0.0, 10.0))


def test_a_screen_survives_its_file(tmp_path: Path) -> None:
    screen = Screen(tuple(ligands(3, 4)), centre=(1.0, 2.0, 3.5), seed=5)
    screen.save(tmp_path)
    assert Screen.load(tmp_path) == screen


@pytest.mark.parametrize("children", [1, 2, 7])
def test_batches_hold_every_ligand_once_and_shrink(children: int) -> None:
    given = read_smiles(prepare.LIGANDS)
    given = [Ligand(each.name, each.smiles, atoms=len(each.smiles)) for each in given]
    batches = divide(given, children)
    dealt = [ligand for batch in batches for ligand in batch]
    assert sorted(dealt, key=given.index) == given
    costs = [sum(ligand.cost for ligand in batch) for batch in batches]
    # A child that starts the last batch is never far behind one that started another.
    assert costs[-1] < max(costs[0] / 3, 1.5 * dealt[-1].cost)
    # Nor does a long list make as many children.
    assert len(divide(ligands(*[20] * 5000), children)) < 9 * children
    assert dealt == sorted(dealt, key=lambda ligand: -ligand.cost)


def test_as_many_equal_batches_as_asked_for() -> None:
    batches = divide(ligands(9, 8, 7, 6, 5, 4), 2, batches=3)
    assert [[ligand.atoms for ligand in batch] for batch in batches] == [[9, 6], [8, 5], [7, 4]]
    assert len(divide(ligands(1, 1), 2, batches=5)) == 2  # and none without ligands
    assert divide([], 2) == []
    with pytest.raises(ValueError, match="0 children"):
        divide([], 0)


def docked(folder: Path, screen: Screen, ligand: Ligand, *scores: float) -> None:
    result_path(folder, ligand.name).parent.mkdir(exist_ok=True)
    result_path(folder, ligand.name, "pdbqt").write_text(f"poses of {ligand.name}")
    result = {"smiles": ligand.smiles, "settings": screen.settings(), "seconds": 1.5}
    write_json(result_path(folder, ligand.name), {**result, "scores": list(scores)})


def test_only_a_whole_result_of_these_settings_counts(tmp_path: Path) -> None:
    screen = Screen(tuple(ligands(3, 4)))
    first, second = screen.ligands
    docked(tmp_path, screen, first, -7.5)
    found = read_result(tmp_path, screen, first)
    assert found is not None
    assert found["scores"] == [-7.5]
    more = Screen(tuple(ligands(3, 4, 5)))  # further ligands do not change what these mean
    assert read_result(tmp_path, more, first) is not None
    assert read_result(tmp_path, Screen(screen.ligands, exhaustiveness=2), first) is None
    assert read_result(tmp_path, screen, Ligand(first.name, "CCCO")) is None
    assert read_result(tmp_path, screen, second) is None
    docked(tmp_path, screen, second, float("nan"))
    assert read_result(tmp_path, screen, second) is None
    whole = result_path(tmp_path, first.name).read_text()
    result_path(tmp_path, first.name).write_text(whole[:-9])
    assert read_result(tmp_path, screen, first) is None


def test_the_merge_ranks_and_keeps_the_best_poses(tmp_path: Path) -> None:
    screen = Screen(tuple(ligands(10, 20, 30)))
    for ligand, score in zip(screen.ligands, (-5.0, -9.0, -7.0)):
        docked(tmp_path, screen, ligand, score, score + 1)
    merge.merge(tmp_path, screen, top=3)
    merge.merge(tmp_path, screen, top=2)
    with (tmp_path / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == merge.COLUMNS
    assert [(row["rank"], row["ligand"], row["score"], row["per_atom"]) for row in rows] == [
        ("1", "m1", "-9.0", "-0.45"),
        ("2", "m2", "-7.0", "-0.233"),
        ("3", "m0", "-5.0", "-0.5"),
    ]
    assert {path.name: path.read_text() for path in (tmp_path / "top").iterdir()} == {
        "01-m1.pdbqt": "poses of m1",
        "02-m2.pdbqt": "poses of m2",
    }


# -- utilisation ----------------------------------------------------------------------------------

TIMELINE = Timeline(
    "two children",
    4,
    10.0,
    (
        Instance(Span("batch 0", 11.0, 15.0, 2), (Span("a", 12.0, 15.0), Span("b", 12.0, 13.0))),
        Instance(Span("batch 1", 12.0, 20.0, 2), (Span("c", 13.0, 20.0, 2),)),
    ),
)


def test_utilisation_is_of_cores_and_seconds() -> None:
    assert TIMELINE.wall_s == 10.0
    assert TIMELINE.of_machine() == pytest.approx((3 + 1 + 14) / 40)
    assert TIMELINE.of_held() == pytest.approx((3 + 1 + 14) / (8 + 16))
    assert "45.00% of all cores over that time, 75.00% of what" in utilisation.summary(TIMELINE)
    assert Timeline.from_json(json.loads(json.dumps(TIMELINE.as_json()))) == TIMELINE
    nothing = Timeline("none", 4, 1.0)
    assert (nothing.wall_s, nothing.of_machine(), nothing.of_held()) == (0.0, 0.0, 0.0)


def test_steps_add_up_what_runs() -> None:
    assert utilisation.steps(TIMELINE.busy()) == [(12.0, 2), (13.0, 3), (15.0, 2), (20.0, 0)]
    assert utilisation.steps([Span("a", 1.0, 2.0), Span("b", 2.0, 3.0)]) == [(1.0, 1), (3.0, 0)]
    assert utilisation.steps([Span("never", 2.0, 2.0)]) == []


def test_lanes_do_not_overlap() -> None:
    spans = [Span("late", 5, 6), Span("long", 0, 4), Span("short", 1, 2), Span("next", 2, 5)]
    assert utilisation.lanes(spans) == [0, 0, 1, 1]


def test_the_picture_has_a_box_for_each_docking() -> None:
    drawn = Timeline("<&>", 4, 10.0, TIMELINE.instances)
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(picture.draw(drawn))
    titles = [title.text for title in root.iter(f"{svg}title")]
    assert titles == ["a, 3.00 s", "b, 1.00 s", "c, 7.00 s"]
    texts = {text.text for text in root.iter(f"{svg}text")}
    assert {"45.0% of 4 cores used", "batch 0", "batch 1", "10 s", "4"} <= texts
    ElementTree.fromstring(picture.draw(Timeline("nothing ran", 2, 1.0)))


# -- engines --------------------------------------------------------------------------------------

FAKE_VINA = """#!/bin/sh
echo "$@" > {seen}
while [ $# -gt 0 ]; do [ "$1" = --out ] && out=$2; shift; done
{act}
"""


@pytest.fixture
def no_vina(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Vina; programs can be put into the folder that is returned."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "vina" else original(name, *a)
    )
    monkeypatch.setattr(engines.shutil, "which", lambda name: _program(folder / name))
    return folder


def _program(path: Path) -> str | None:
    return str(path) if path.exists() else None


def fake_vina(folder: Path, act: str) -> Path:
    seen = folder.parent / "seen"
    program = folder / "vina"
    program.write_text(FAKE_VINA.format(seen=seen, act=act))
    program.chmod(0o755)
    return seen


def test_without_vina_it_says_what_to_install(no_vina: Path) -> None:
    for wanted in ("auto", "package", "program"):
        with pytest.raises(engines.EngineError, match=r"pip install 'flux-mpi\[docking\]'"):
            engines.choose(wanted)
    assert engines.choose("stand-in") == "stand-in"
    with pytest.raises(engines.EngineError, match="'magic' is not one of auto, package, program"):
        engines.choose("magic")


def test_the_program_is_used_when_there_is_no_package(no_vina: Path, tmp_path: Path) -> None:
    pose = r"MODEL 1\nREMARK VINA RESULT:    -8.25      0.000      0.000\nENDMDL\n"
    seen = fake_vina(no_vina, f"printf '{pose}' > \"$out\"")
    assert engines.choose("auto") == "program"
    screen = Screen((), centre=(1.0, 2.0, 3.0), size=(4.0, 5.0, 6.0), exhaustiveness=7, seed=8)
    found = engines.program(screen, tmp_path / "r.pdbqt", Ligand("m", "C"), "ROOT\n")
    assert found.scores == [-8.25]
    assert found.poses.startswith("MODEL 1")
    said = seen.read_text()
    for words in (
        "--center_x 1.0 --size_x 4.0 --center_y 2.0 --size_y 5.0 --center_z 3.0 --size_z 6.0",
        f"--receptor {tmp_path / 'r.pdbqt'} ",
        "--exhaustiveness 7 --seed 8 --num_modes 3 --cpu 1",
    ):
        assert words in said


def test_a_program_that_fails_is_quoted(no_vina: Path, tmp_path: Path) -> None:
    fake_vina(no_vina, "echo 'PDBQT parsing error' >&2; exit 3")
    with pytest.raises(engines.EngineError, match="vina ended with 3: PDBQT parsing error"):
        engines.program(Screen(()), tmp_path, Ligand("m", "C"), "")
    fake_vina(no_vina, ': > "$out"')
    with pytest.raises(engines.EngineError, match="no pose"):
        engines.program(Screen(()), tmp_path, Ligand("m", "C"), "")


# -- in an instance -------------------------------------------------------------------------------


def command(out: Path, *options: str) -> list[str]:
    start = [sys.executable, "-m", "flux_mpi", "start", "--cores-per-rank=2"]
    return [*start, sys.executable, str(EXAMPLE / "screen.py"), f"--out={out}", *options]


def environment() -> dict[str, str]:
    outer = ("FLUX_", "PMI_", "PMIX_", "OMPI_", "PRTE_", "MPI", "HYDRA_")
    return {k: v for k, v in os.environ.items() if not k.startswith(outer)} | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "LC_ALL": "C.UTF-8",
    }


def screen(out: Path, *options: str, engine: str = "stand-in") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, f"--engine={engine}", *options),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def ranking(out: Path) -> list[tuple[str, str]]:
    with (out / "ranking.csv").open() as file:
        return [(row["ligand"], row["score"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("child", WAYS)
def test_a_hierarchy_finds_what_one_instance_finds(tmp_path: Path, child: str) -> None:
    flat = screen(tmp_path / "flat", "--flat", "--limit=8")
    assert flat.returncode == 0, flat.stdout + flat.stderr
    deep = screen(
        tmp_path / "deep", f"--child={child}", "--limit=8", "--batches=3", "--cores-per-batch=1"
    )
    assert deep.returncode == 0, deep.stdout + deep.stderr
    assert len(ranking(tmp_path / "flat")) == 8
    assert ranking(tmp_path / "deep") == ranking(tmp_path / "flat")
    assert len(list((tmp_path / "deep" / "top").iterdir())) == 8

    timeline = Timeline.from_json(json.loads((tmp_path / "deep" / "timeline.json").read_text()))
    assert [len(each.jobs) for each in timeline.instances] == [3, 3, 2]
    assert [each.held.cores for each in timeline.instances] == [1, 1, 1]
    for each in timeline.instances:
        held = each.held
        assert all(held.start <= job.start < job.end <= held.end for job in each.jobs)
        assert max(level for _, level in utilisation.steps(each.jobs)) == 1  # it has one core
    assert max(level for _, level in utilisation.steps(timeline.held())) == 2
    assert 0 < timeline.of_machine() <= timeline.of_held() < 1
    for k in range(3):  # each ran in an instance of its own, one level down
        report = json.loads((tmp_path / "deep" / "batches" / f"{k}.json").read_text())
        assert report["level"] == 1
    assert f"{timeline.of_machine():.2%} of all cores" in deep.stdout

    timeline = Timeline.from_json(json.loads((tmp_path / "flat" / "timeline.json").read_text()))
    assert [len(each.jobs) for each in timeline.instances] == [8]
    ElementTree.parse(tmp_path / "flat" / "utilisation.svg")


@pytest.mark.parametrize("mode", [["--flat"], [f"--child={CHILD}", "--batches=2"]])
def test_failures_are_listed_and_a_second_run_does_only_what_is_left(
    tmp_path: Path, mode: list[str]
) -> None:
    given = tmp_path / "some.smi"
    given.write_text("CC ethane\nCCC fails\nCCCC butane\nCCCCC pentane\n")
    out = tmp_path / "out"
    first = screen(out, f"--ligands={given}", *mode)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "  fails: fails: the stand-in fails for a ligand of this name" in first.stdout
    assert {name for name, _ in ranking(out)} == {"ethane", "butane", "pentane"}

    kept = result_path(out, "ethane").stat().st_mtime_ns
    result_path(out, "butane").write_text('{"ligand": ')  # as a full disk leaves it
    given.write_text("CC ethane\nCCCC butane\nCCCCC pentane\nCCCCCC hexane\n")
    second = screen(out, f"--ligands={given}", *mode)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "4 ligands, 2 of them docked earlier" in second.stdout
    assert {name for name, _ in ranking(out)} == {"ethane", "butane", "pentane", "hexane"}
    assert result_path(out, "ethane").stat().st_mtime_ns == kept

    third = screen(out, f"--ligands={given}", *mode)
    assert third.returncode == 0, third.stdout + third.stderr
    assert "4 of them docked earlier" in third.stdout
    assert "wall" not in third.stdout  # nothing was run


@pytest.mark.parametrize("child", WAYS)
def test_an_interrupt_keeps_what_is_docked(tmp_path: Path, child: str) -> None:
    given = tmp_path / "many.smi"
    given.write_text("".join(f"{'C' * (80 + k)} m{k}\n" for k in range(300)))
    process = subprocess.Popen(
        command(
            tmp_path / "out", "--engine=stand-in", f"--child={child}", "--cores-per-batch=1",
            "--batches=2", f"--ligands={given}",
        ),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + LIMIT_S
        while not list((tmp_path / "out" / "results").glob("*.json")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"nothing docked in {LIMIT_S} s"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C reaches all of a terminal's foreground
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode != 0, output
    made = Screen.load(tmp_path / "out")
    docked = [each for each in made.ligands if read_result(tmp_path / "out", made, each)]
    assert 0 < len(docked) < 300


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--ligands=/nonexistent"], "No such file or directory: '/nonexistent'"),
        ([f"--receptor={EXAMPLE / 'ligands.smi'}"], "no ATOM line"),
        (["--limit=0"], "--limit: 0 is not a number of at least 1"),
        (["--cores-per-batch=99"], "--cores-per-batch: 99, but this instance has 2 cores"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, options: list[str], why: str) -> None:
    done = screen(tmp_path, *options)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_an_instance_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "screen.py"), f"--out={tmp_path}", "--engine=stand-in"],
        env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "FLUX_URI is not set" in done.stderr


@pytest.mark.skipif(not CHEMISTRY, reason="no vina, meeko and rdkit: pip install '.[docking]'")
def test_the_real_thing(tmp_path: Path) -> None:
    given = tmp_path / "small.smi"
    lines = (EXAMPLE / "ligands.smi").read_text().splitlines()
    given.write_text("\n".join(x for x in lines if {"caffeine", "isoniazid"} & set(x.split())))
    found = {}
    for name, mode in (("flat", ["--flat"]), ("deep", [f"--child={CHILD}", "--batches=2"])):
        done = screen(tmp_path / name, f"--ligands={given}", *mode, engine="auto")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "engine: package" in done.stdout
        found[name] = dict(ranking(tmp_path / name))
    assert found["deep"] == found["flat"]  # seeded: the same wherever it ran
    assert all(-9.0 < float(score) < -3.0 for score in found["flat"].values())
    made = Screen.load(tmp_path / "flat")
    assert [(each.name, each.atoms, each.torsions) for each in made.ligands] == [
        ("caffeine", 14, 0),
        ("isoniazid", 10, 2),
    ]
    poses = list((tmp_path / "flat" / "top").iterdir())
    assert len(poses) == 2
    assert all("ATOM" in path.read_text() for path in poses)
