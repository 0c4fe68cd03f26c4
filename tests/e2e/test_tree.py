"""Ensembles on a real instance: what many members do, on which level, and how they are ended."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Instance, describe, processes

API = """
import sys, flux_mpi
with flux_mpi.Handle() as handle:
    seen = []
    result = handle.tree(["sh", "-c", "exit $(({cc} % 4))"], members="8-15", progress=seen.append)
print(result.count, result.failed, result.returncode, result.codes, result.topology)
print([failure.member for failure in result.failures])
"""


def test_two_thousand_members_on_one_level(flux: Instance) -> None:
    text = flux.out("tree", "--topology", "1", "--jobs", "2000", "--", "/bin/true")
    assert text.startswith("members: 2000, 0 failed\n")
    assert text.endswith("topology: 1")
    states = flux.states()
    assert states["total"] == states["inactive"]


def test_each_member_knows_which_it_is(flux: Instance) -> None:
    script = 'echo "{cc} $FLUX_JOB_CC $FLUX_TREE_ID $FLUX_TREE_NCORES_PER_NODE" > out.{cc}'
    flux("tree", "--members=3,7-9", "--quiet", "-Xroot", "--", "sh", "-c", script)
    assert {path.name: path.read_text() for path in flux.folder.glob("out.*")} == {
        f"out.{cc}": f"{cc} {cc} root 4\n" for cc in (3, 7, 8, 9)
    }


def test_the_largest_status_is_its_own(flux: Instance) -> None:
    done = flux("tree", "-J50", "--", "sh", "-c", "exit $(({cc} % 6))", status=5)
    assert "members: 50, 41 failed (largest exit code 5)" in done.stdout
    assert "  exit code 5: 5,11,17,23,29,35,…" in done.stdout
    done = flux("tree", "-J3", "--", "no-such-program", status=127)
    assert "exit code 127: 0,1,2" in done.stdout


def test_a_report_has_the_numbers(flux: Instance, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    flux("tree", "-J40", "--quiet", f"-o{path}", "--", "sleep", "0.05")
    report = json.loads(path.read_text())
    assert report["times"]["count"] == 40
    assert 0.05 <= report["times"]["mean"] < 1.0
    assert report["wall"] >= 40 * 0.05 / 16
    assert report["levels"][0]["jobs"] == 40
    assert [row["njobs"] for row in report["records"]] == [40]


def test_it_can_be_called_from_python(flux: Instance) -> None:
    lines = flux.python(API).splitlines()
    assert lines == ["8 6 3 {1: 2, 2: 2, 3: 2} 1", "[9, 10, 11, 13, 14, 15]"]


def test_an_interrupt_cancels_all_members(flux: Instance, wait_until: Any) -> None:
    command = flux.popen("tree", "-J500", "--", "sleep", "30")
    wait_until(lambda: flux.states()["run"] == 16, "every core has one")
    os.kill(command.pid, signal.SIGINT)
    text, errors = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "interrupted: canceling" in errors
    assert "members: 500, 500 failed (500 canceled)" in text
    wait_until(flux.idle, "nothing is left")


def test_a_client_that_is_killed_takes_its_ensemble_along(flux: Instance, wait_until: Any) -> None:
    command = flux.popen("tree", "-J500", "--", "sleep", "30")
    wait_until(lambda: flux.states()["run"] == 16, "every core has one")
    command.kill()
    command.communicate(timeout=30)
    wait_until(flux.idle, "nothing is left")
    wait_until(lambda: not flux.handle.call("ensemble.list")["runs"], "nor of the ensemble")


def test_auto_measures_and_says_why(flux: Instance) -> None:
    done = flux("tree", "-Tauto", "-J200", "--", "true")
    assert "flux-tree: 200 members of" in done.stderr
    assert "on 16 cores (4 ranks of 4)" in done.stderr


def test_what_cannot_be_divided_so_is_refused(flux: Instance) -> None:
    done = flux("tree", "-T64", "-J5", "true", status=1)
    assert done.stderr == (
        "flux-tree: ERROR: topology: 64 instances were asked for, there are 16 cores "
        "(4 ranks of 4): each needs one core at least\n"
    )
    done = flux("tree", "-J5", "-n99", "true", status=1)
    assert "a member needs 99 cores" in done.stderr
    assert flux.idle()


# -- child instances ------------------------------------------------------------------------------

SHAPES = """
import flux_mpi
with flux_mpi.Handle() as handle:
    for topology in ("2", "4x2", "2x2x2", "3", "16"):
        result = handle.tree(["sh", "-c", "exit $(({cc} % 5 == 4))"], jobs=200, topology=topology)
        # Members are short: some instances may come too late to get any.
        most = [1]
        for parts in topology.split("x"):
            most.append(most[-1] * int(parts))
        found = [level["instances"] for level in result.levels]
        assert all(1 <= there <= limit for there, limit in zip(found, most, strict=True)), found
        print(topology, result.count, result.failed, result.levels[-1]["jobs"])
"""


def test_members_are_spread_over_levels_of_instances(flux: Instance) -> None:
    assert flux.python(SHAPES).splitlines() == [
        "2 200 40 200",
        "4x2 200 40 200",
        "2x2x2 200 40 200",
        "3 200 40 200",
        "16 200 40 200",
    ]
    assert flux.idle()


def test_a_member_sees_the_instance_that_runs_it(flux: Instance) -> None:
    script = 'echo "$FLUX_TREE_ID $FLUX_TREE_NCORES_PER_NODE $(flux-mpi getattr size)" > out.{cc}'
    flux("tree", "-T4x2", "-J40", "--quiet", "--", "sh", "-c", script)
    found = {path.read_text() for path in flux.folder.glob("out.*")}
    assert len(list(flux.folder.glob("out.*"))) == 40
    assert found <= {f"tree.{a}.{b} 2 1\n" for a in (1, 2, 3, 4) for b in (1, 2)}
    assert len(found) > 1


def test_instances_are_configured_level_by_level(flux: Instance) -> None:
    script = (
        'python3 -c "import flux_mpi; '
        "print(flux_mpi.Handle().call('config.get')['sched']['queue-policy'])\" > out.{cc}"
    )
    flux("tree", "-T2x2", "-Qeasy:conservative", "-J4", "--quiet", "--", "sh", "-c", script)
    texts = {path.read_text() for path in flux.folder.glob("out.*")}
    assert texts == {"conservative\n"}


def test_a_child_instance_that_is_cancelled_is_replaced(flux: Instance, wait_until: Any) -> None:
    script = "echo x >> out.{cc}; sleep 0.05"
    command = flux.popen("tree", "-T4", "-J600", "--", "sh", "-c", script)
    wait_until(lambda: len(list(flux.folder.glob("out.*"))) > 100, "some have begun")
    (child,) = flux.out("pgrep", "^tree.2$").split()
    flux("cancel", child)
    text, errors = command.communicate(timeout=60)
    assert command.returncode == 0, errors
    assert text.startswith("members: 600, 0 failed\n")
    assert len(list(flux.folder.glob("out.*"))) == 600
    assert text.splitlines()[-1].split()[6] == "1", "of the level's instances, one was lost"
    wait_until(flux.idle, "nothing is left")


def test_an_interrupt_ends_all_levels(flux: Instance, wait_until: Any) -> None:
    command = flux.popen("tree", "-T2x2", "-J500", "--", "sh", "-c", "echo > out.{cc}; sleep 30")
    wait_until(lambda: len(list(flux.folder.glob("out.*"))) == 16, "every core has one")
    os.kill(command.pid, signal.SIGINT)
    text, _ = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "members: 500, 500 failed (500 canceled)" in text
    wait_until(flux.idle, "nothing is left")
    assert not any("sleep 30" in describe(pid) for pid in processes(flux.token))
