"""``flux-mpi tree``: what it asks for, refuses, prints and exits with."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.cli.main import main
from flux_mpi.client.tree import TreeResult
from flux_mpi.message.errors import FluxError
from flux_mpi.view.treereport import summary, table
from tests.client.fakebroker import FakeBroker, Request, streaming

LEVEL = {
    "instances": 1, "ncores": 8, "jobs": 0, "chunks": 0, "moved": 0, "lost": 0, "replaced": 0,
    "rerun": 0, "messages": 0, "start": 0.0,
}  # fmt: skip
RECORD = {
    "treeid": "tree", "begin": 1000.0, "end": 1002.5, "njobs": 10, "nnodes": 2, "ncores": 8,
    "ngpus": 2, "lost": 0,
}  # fmt: skip
RESULT: dict[str, Any] = {
    "count": 10,
    "failed": 0,
    "lost": 0,
    "canceled": 0,
    "status": 0,
    "codes": {},
    "failures": [],
    "begin": 1000.0,
    "wall": 2.5,
    "rate": 4.0,
    "times": {
        "count": 10, "total": 1.0, "mean": 0.1, "min": 0.05, "median": 0.13, "max": 0.5,
        "histogram": {17: 10},
    },
    "topology": "2",
    "why": "",
    "levels": [LEVEL, {**LEVEL, "instances": 2, "jobs": 10, "chunks": 5, "start": 0.3}],
    "records": [RECORD, {**RECORD, "treeid": "tree.1", "njobs": 4}],
}  # fmt: skip


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str], broker: FakeBroker) -> Any:
    broker.handlers.setdefault("ensemble.run", streaming({"result": RESULT}))

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["tree", *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_it_runs_and_says_how_it_went(broker: FakeBroker, out: Any) -> None:
    status, text, err = out("-T2", "-J10", "--", "member", "{cc}")
    assert (status, err) == (0, "")
    assert text == (
        "members: 10, 0 failed\n"
        "wall time: 2.50 s, 4.0 members/s\n"
        "run time: mean 100 ms, median about 130 ms, max 500 ms\n"
        "topology: 2\n"
        "LEVEL INSTANCES CORES JOBS CHUNKS MOVED LOST RERUN  START\n"
        "    0         1     8    0      0     0    0     0      -\n"
        "    1         2     8   10      5     0    0     0 150 ms\n"
    )
    asked = broker.payload("ensemble.run")
    assert (asked["topology"], asked["count"]) == ("2", 10)
    assert asked["jobspec"]["tasks"][0]["command"] == ["member", "{cc}"]


def test_the_default_is_one_member_on_one_level(broker: FakeBroker, out: Any) -> None:
    assert out("--quiet", "x") == (0, "", "")
    asked = broker.payload("ensemble.run")
    assert (asked["topology"], asked["count"]) == ("1", 1)
    assert "conf" not in asked


@pytest.mark.parametrize("words", [["--jobs=7"], ["--njobs", "7"], ["-J7"]])
def test_members_are_counted_in_three_spellings(
    broker: FakeBroker, out: Any, words: list[str]
) -> None:
    assert out("--quiet", *words, "x")[0] == 0
    assert broker.payload("ensemble.run")["count"] == 7


def test_options_of_the_hierarchy_and_of_members(broker: FakeBroker, out: Any) -> None:
    status, _, err = out(
        *("--quiet", "-T4x8", "--members=5-9", "-N2", "-c3", "-g1", "-Xroot", "--retries=0"),
        *("-Qeasy:default:fcfs", "-Pqueue-depth=5,reservation-depth=6:default:queue-depth=7"),
        *("-Mlow", "--expected-time=20ms", "--urgency=20"),
        *("-n2", "--cores-per-task=3", "-t1m", "--job-name=m", "--env=A={cc}", "--", "x", "-J3"),
    )
    assert (status, err) == (0, "")
    asked = broker.payload("ensemble.run")
    spec = asked.pop("jobspec")
    assert asked == {
        "topology": "4x8",
        "members": "5-9",
        "nnodes": 2,
        "ncores": 3,
        "ngpus": 1,
        "name": "root",
        "retries": 0,
        "expected_time": 0.02,
        "urgency": 20,
        "conf": [
            {
                "sched": {
                    "queue-policy": "easy",
                    "match-policy": "low",
                    "queue-params": {"queue-depth": 5},
                    "policy-params": {"reservation-depth": 6},
                }
            },
            {},
            {"sched": {"queue-policy": "fcfs", "queue-params": {"queue-depth": 7}}},
        ],
    }
    assert spec["tasks"][0]["command"] == ["x", "-J3"]
    assert spec["resources"][0]["count"] == 2
    system = spec["attributes"]["system"]
    assert (system["duration"], system["job"]) == (60.0, {"name": "m"})
    assert system["environment"]["A"] == "{cc}"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["-J0", "x"], "--njobs: 0 is not allowed: must be at least 1"),
        (["-Jmany", "x"], "--njobs: invalid int value 'many'"),
        (["-J3"], "job command and arguments are missing"),
        (["-l", "-T2", "x"], "--leaf and --topology exclude each other"),
        (["-l", "-Qeasy", "x"], "--leaf and --queue-policy exclude each other"),
        (["--members=1-3", "-J3", "x"], "--members and --njobs exclude each other"),
        (["-Qeasy::fcfs", "x"], "'easy::fcfs' names no policy for level 2"),
        (["-Pdepth=4", "x"], "invalid value 'depth=4': expected KEY=N"),
        (["-Pqueue-depth=many", "x"], "invalid value 'queue-depth=many'"),
        (["--expected-time=soon", "x"], "--expected-time: "),
        (["--perf-format={treeid}", "x"], "--perf-format needs --perf-out"),
        (["-o-", "--perf-format={nonsense}", "x"], "there is no field 'nonsense'"),
        (["-o-", "--perf-format={", "x"], "--perf-format: '{'"),
        (["-o-", "--perf-format={njobs:%%}", "x"], "--perf-format: "),
        (["-o/nonexistent/report", "x"], "--perf-out: /nonexistent/report: No such file"),
        (["-f/tmp", "x"], "--flux-logs is not supported"),
        (["-r/tmp", "x"], "--flux-rundir is not supported"),
        (["--urgency=99", "x"], "--urgency: 99 is not allowed"),
        (["--retries=-1", "x"], "--retries"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    broker: FakeBroker, out: Any, words: list[str], what: str
) -> None:
    status, text, err = out(*words)
    assert (status, text) == (1, "")
    assert err.startswith("flux-tree: ERROR: ")
    assert what in err
    assert "ensemble.run" not in broker.topics()


def test_nodes_of_a_member_are_no_option(broker: FakeBroker, out: Any) -> None:
    status, _, err = out("--exclusive", "x")
    assert status == 2
    assert "unrecognized option --exclusive" in err


def test_what_the_instance_refuses_is_said(broker: FakeBroker, out: Any) -> None:
    def refuse(request: Request) -> None:
        raise FluxError(errno.EINVAL, "topology: 64 instances were asked for, there are 8 cores")

    broker.handlers["ensemble.run"] = refuse
    assert out("-T64", "x") == (
        1,
        "",
        "flux-tree: ERROR: topology: 64 instances were asked for, there are 8 cores\n",
    )


def test_it_exits_with_the_largest_status_and_names_the_first_failures(
    broker: FakeBroker, out: Any
) -> None:
    result = {
        **RESULT,
        "failed": 43,
        "lost": 2,
        "status": 137,
        "codes": {3: 40, 137: 1, 1: 2},
        "failures": [
            *([member, 3, ""] for member in range(9)),
            [9, 137, ""],
            [10, 1, "lost: it died"],
            [11, 1, "lost: it died"],
        ],
    }
    broker.handlers["ensemble.run"] = streaming({"result": result})
    status, text, _ = out("x")
    assert status == 137
    assert text.splitlines()[:4] == [
        "members: 10, 43 failed (2 lost with their instances, largest exit code 137)",
        "  exit code 3: 0,1,2,3,4,5,6,7,…",
        "  exit code 137: 9",
        "  exit code 1: 10,11: lost: it died",
    ]


def test_only_so_many_ways_to_fail_are_listed() -> None:
    failures = [[member, 1, f"reason {member}"] for member in range(9)]
    text = summary(TreeResult({**RESULT, "failed": 9, "codes": {1: 9}, "failures": failures}))
    assert "  exit code 1: 4: reason 4\n  … and failed in 4 other ways\n" in text
    assert "reason 5" not in text


def test_a_report_is_written_as_json(broker: FakeBroker, out: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert out("--quiet", "-T2", "-J10", f"-o{path}", "--", "member", "{cc}")[0] == 0
    report = json.loads(path.read_text())
    assert report["command"] == ["member", "{cc}"]
    assert report["asked"] == {"topology": "2", "count": 10, "urgency": 16}
    assert report["levels"][1]["instances"] == 2
    assert report["times"]["histogram"] == {"17": 10}
    assert report["records"][0]["treeid"] == "tree"


def test_or_as_lines_of_ones_own(out: Any) -> None:
    form = "{treeid:<8s}|{elapse:>14.2f}|{njobs:>6d}|{my_nodes:d}|{my_cores}|{my_gpus}|{match}"
    status, text, _ = out("--quiet", "-o-", f"--perf-format={form}", "x")
    assert status == 0
    assert text == (
        "TreeID  |  Elapsed(sec)| NJobs|NNodes|CPN|GPN|Match(usec)\n"
        "tree    |          2.50|    10|2|4|1|0.0\n"
        "tree.1  |          2.50|     4|2|4|1|0.0\n"
    )


def test_the_default_columns_of_flux_tree_can_be_had() -> None:
    form = (
        "{treeid:<15s} {elapse:>20f} {begin:>20f} {end:>20f} {match:>15f} {njobs:>15d} "
        "{my_nodes:>5d} {my_cores:>4d} {my_gpus:>4d}"
    )
    title, line = table([RECORD], form).splitlines()
    assert title.split()[:3] == ["TreeID", "Elapsed(sec)", "Begin(Epoch)"]
    assert line.split() == (
        ["tree", "2.500000", "1000.000000", "1002.500000", "0.000000", "10", "2", "4", "1"]
    )


def test_a_dry_run_says_what_would_be_done(broker: FakeBroker, out: Any) -> None:
    broker.handlers["ensemble.plan"] = {"topology": "4", "why": "so"}
    status, text, _ = out("--dry-run", "-Tauto", "-J5", "x")
    assert (status, json.loads(text)) == (0, {"topology": "4", "why": "so"})
    assert broker.payload("ensemble.plan")["topology"] == "auto"
    assert "ensemble.run" not in broker.topics()


def test_why_a_shape_was_chosen_is_said_once(broker: FakeBroker, out: Any) -> None:
    told = {"run": 1, "done": 0, "failed": 0, "running": 0, "total": 10, "why": "because"}
    result = {**RESULT, "why": "because"}
    broker.handlers["ensemble.run"] = streaming(told, told, {"result": result})
    assert out("-Tauto", "-J10", "x")[2] == "flux-tree: because\n"


def test_it_is_said_even_if_all_is_over_at_once(broker: FakeBroker, out: Any) -> None:
    broker.handlers["ensemble.run"] = streaming({"result": {**RESULT, "why": "because"}})
    assert out("-Tauto", "-J10", "x")[2] == "flux-tree: because\n"
    assert out("-Tauto", "-J10", "--quiet", "x")[2] == ""


def test_an_interrupt_cancels_and_still_tells_what_was_done(broker: FakeBroker, out: Any) -> None:
    runs: list[Request] = []

    def run(request: Request) -> None:
        runs.append(request)
        request.respond({"run": 4, "done": 1, "failed": 0, "running": 2, "total": 10})
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    def cancel(request: Request) -> None:
        request.respond({})
        result = {**RESULT, "failed": 9, "canceled": 9, "codes": {1: 9}, "status": 1}
        runs[0].respond({"result": result})
        runs[0].end()

    broker.handlers |= {"ensemble.run": run, "ensemble.cancel": cancel}
    before = signal.getsignal(signal.SIGINT)
    status, text, err = out("-J10", "x")
    assert status == 130
    assert text.startswith("members: 10, 9 failed (9 canceled)\n")
    assert "interrupted: canceling" in err
    assert broker.payload("ensemble.cancel")["run"] == 4
    assert signal.getsignal(signal.SIGINT) is before
