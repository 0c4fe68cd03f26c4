"""The picture that ``top`` shows, without a terminal."""

from __future__ import annotations

import os
from typing import Any

import pytest

from flux_mpi.view import top

NOW = 1000.0


def job(number: int, **known: Any) -> dict[str, Any]:
    return {
        "id": number,
        "userid": os.getuid(),
        "state": 16,
        "name": f"job{number}",
        "ntasks": 2,
        "nnodes": 1,
        "t_run": NOW - 60 * number,
        **known,
    }


def shot(**known: Any) -> top.Snapshot:
    amounts = {"all": (4, 16, 0), "allocated": (2, 8, 0), "down": (1, 4, 0)}
    return top.Snapshot(
        attrs={"size": "4", "version": "1.2", "broker.starttime": f"{NOW - 120}"},
        stats={"job_states": {"sched": 5, "run": 2, "inactive": 7}, "successful": 4, "failed": 3},
        resources={
            state: dict(zip(("nnodes", "ncores", "ngpus"), numbers))
            for state, numbers in amounts.items()
        },
        **known,
    )


def lines(snapshot: top.Snapshot, **how: Any) -> list[str]:
    return top.plain(top.picture(snapshot, NOW, **how)).splitlines()


def test_the_summary() -> None:
    found = lines(shot(title="ƒ1/ƒ2", expiration=NOW + 90))
    assert found[0].split() == ["ƒ1/ƒ2", "1.5m", "left"]
    assert found[1].split() == ["nodes", "[|||||||||||||", "|||||||2/4]", "5", "pending"]
    assert found[2].split() == ["cores", "[||||||||||||", "||||||8/16]", "2", "running"]
    assert found[3].split() == ["gpus", "[", "0/0]", "4", "complete,", "3", "failed"]
    assert found[5].split() == ["size:", "4", "uptime:", "2m", "1.2"]
    assert "7 inactive" in lines(shot(), details=False)[3]
    assert lines(shot())[0].split() == [".", "∞"]
    assert lines(shot(trouble="no answer"))[4] == "no answer"
    assert lines(shot(trouble="no answer"), note="more urgent")[4] == "more urgent"


def test_a_long_path_shows_its_end() -> None:
    title = lines(shot(title="/".join(["ƒabcdefgh"] * 20)), width=60)[0]
    assert title.startswith("…")
    assert title.rstrip(" ∞").endswith("ƒabcdefgh")
    assert len(title) == 60


def test_jobs_and_the_one_that_is_selected() -> None:
    child = job(2, annotations={"user": {"uri": "ssh://x/y"}})
    snapshot = shot(jobs=[job(1), child, job(3, name="a\x1b[2Jb")])
    found = lines(snapshot)
    assert found[7].split()[:5] == ["1", *found[7].split()[1:2], "R", "2", "1"]
    assert found[7].split()[5:] == ["1m", "job1"]
    assert found[9].endswith("a?[2Jb"), "a name cannot write on the terminal"
    styles = [line[0][1] for line in top.picture(snapshot, NOW, cursor=1)[7:]]
    assert styles == [top.PLAIN, top.SELECTED_INSTANCE, top.PLAIN]
    styles = [line[0][1] for line in top.picture(snapshot, NOW, cursor=0)[7:]]
    assert styles == [top.SELECTED, top.INSTANCE, top.PLAIN]


@pytest.mark.parametrize(
    ("cursor", "shown"), [(None, [0, 1, 2]), (0, [0, 1, 2]), (2, [0, 1, 2]), (9, [7, 8, 9])]
)
def test_the_selected_job_is_always_on_the_screen(cursor: int | None, shown: list[int]) -> None:
    snapshot = shot(jobs=[job(k) for k in range(10)])
    found = lines(snapshot, height=top.SUMMARY_LINES + 3, cursor=cursor)
    assert [line.split()[-1] for line in found[7:]] == [f"job{k}" for k in shown]


def test_queues_have_a_column_when_they_have_names() -> None:
    snapshot = shot(jobs=[job(1, queue="batch")], queues=True, queue="batch")
    found = lines(snapshot)
    assert found[6].split()[:2] == ["JOBID", "QUEUE"]
    assert found[7].split()[1] == "batch"
    assert "queue: batch" in found[5]
    assert "QUEUE" not in lines(shot())[6]


def test_no_line_is_wider_than_the_screen() -> None:
    snapshot = shot(jobs=[job(1, name="x" * 500)], title="y" * 500, trouble="z" * 500)
    for width in (60, 80, 200):
        for line in top.picture(snapshot, NOW, width=width):
            assert len("".join(text for text, _ in line)) <= width
