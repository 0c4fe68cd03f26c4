"""The epidemic study's design, its resumption and its progress bar, without Covasim or brokers."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "epidemic"))

from progress import Progress
from report import Tally, summary, write_csv
from study import (
    METRICS,
    SCENARIOS,
    MemberFailed,
    Study,
    member_path,
    read_member,
    run_member,
    write_json,
)

STUDY = Study(pop_size=100, n_days=4, betas=(0.01, 0.02), seeds=3)


def result_of(study: Study, index: int, **changes: Any) -> dict[str, Any]:
    return {
        "study": asdict(study),
        "member": asdict(study.member(index)),
        "metrics": dict.fromkeys(METRICS, 1),
        "curves": dict.fromkeys(("infectious", "infections"), [0] * (study.n_days + 1)),
        "seconds": 0.5,
        **changes,
    }


def test_members_cover_the_whole_design_once() -> None:
    points = {(m.scenario, m.beta, m.seed) for m in STUDY.members()}
    assert len(points) == len(STUDY) == len(SCENARIOS) * 2 * 3
    assert [m.index for m in STUDY.members()] == list(range(len(STUDY)))
    assert len(Study()) >= 200


def test_the_first_members_already_span_scenarios_and_transmission() -> None:
    first = STUDY.members()[: len(SCENARIOS) * 2]
    assert {(m.scenario, m.beta) for m in first} == {
        (scenario, beta) for scenario in SCENARIOS for beta in STUDY.betas
    }


@pytest.mark.parametrize("index", [-1, 24, 10**9])
def test_a_member_that_is_not_there_is_named(index: int) -> None:
    with pytest.raises(IndexError, match=f"no member {index}: .* 0 to 23"):
        STUDY.member(index)


@pytest.mark.parametrize("changes", [{"seeds": 0}, {"betas": ()}, {"scenarios": ("hope",)}])
def test_a_senseless_design_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|unknown scenario 'hope'"):
        Study(**changes)


def test_a_design_survives_its_file(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", STUDY.as_json())
    assert Study.load(tmp_path / "study.json") == STUDY


def test_a_finished_member_is_recognised(tmp_path: Path) -> None:
    write_json(member_path(tmp_path, 5), result_of(STUDY, 5))
    found = read_member(STUDY, STUDY.member(5), tmp_path)
    assert found is not None
    assert found["seconds"] == 0.5


def test_more_seeds_keep_what_was_finished(tmp_path: Path) -> None:
    write_json(member_path(tmp_path, 5), result_of(STUDY, 5))
    larger = Study(pop_size=100, n_days=4, betas=(0.01, 0.02), seeds=9)
    assert read_member(larger, larger.member(5), tmp_path) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        json.dumps(result_of(STUDY, 4)),  # another member's
        json.dumps(result_of(Study(pop_size=200, n_days=4, betas=(0.01, 0.02)), 5)),
        json.dumps(result_of(STUDY, 5, metrics={})),
        json.dumps(result_of(STUDY, 5, metrics=dict.fromkeys(METRICS, float("nan")))),
        json.dumps(result_of(STUDY, 5, curves={"infectious": [1], "infections": [1]})),
        json.dumps(result_of(STUDY, 5))[:-40],  # cut off
    ],
)
def test_what_is_no_result_of_this_member_is_run_again(tmp_path: Path, text: str) -> None:
    member_path(tmp_path, 5).write_text(text)
    assert read_member(STUDY, STUDY.member(5), tmp_path) is None


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_a_member_told_to_fail_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(MemberFailed, match="member 3"):
        run_member(STUDY, STUDY.member(3), tmp_path, {3})
    assert not member_path(tmp_path, 3).exists()


def test_results_are_a_row_a_member(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", [result_of(STUDY, k) for k in (0, 7)])
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "index,scenario,beta,seed," + ",".join(METRICS) + ",seconds"
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "7"]


def test_the_summary_lists_every_failure_and_counts_what_was_resumed(tmp_path: Path) -> None:
    results = [result_of(STUDY, k) for k in range(22)]
    tally = Tally(24, 10, "jobs", 2, wall_s=10.0, busy_s=15.0, completed=12)
    tally.failures = {22: "ValueError: no", 23: "Killed"}
    text = summary(STUDY, results, tally, tmp_path)
    assert "22 (12 now, 10 from earlier runs), 2 failed" in text
    assert "75%" in text
    assert "1.40 members/s" in text
    assert "22  ValueError: no" in text
    assert "23  Killed" in text


def test_progress_says_how_many_how_quick_and_how_long() -> None:
    clock = iter([0.0, *[10.0] * 99])
    progress = Progress(40, io.StringIO(), clock=lambda: next(clock), width=8)
    for k in range(20):
        progress.add(ok=k != 3)
    assert progress.text() == "[████····] 20/40 · 2.0 members/s · 10 s left · 1 failed"


def test_a_log_file_gets_lines_not_redraws() -> None:
    stream = io.StringIO()
    progress = Progress(2, stream, clock=lambda: 1.0)
    progress.add(True)
    progress.add(True)
    progress.close()
    assert "\r" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
