"""Named queues, their limits and policies, in a real instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Instance = Any

CONFIG = """
[policy.jobspec.defaults.system]
duration = "1h"
queue = "batch"

[policy.limits]
duration = "8h"
job-size.max.nnodes = 2

[queues.batch]
policy.scheduler.queue-policy = "easy"

[queues.debug]
policy.limits.duration = "30m"
policy.jobspec.defaults.system.duration = "5m"

[queues.urgent]
parent = "batch"
"""


@pytest.fixture
def site(start: Callable[..., Instance], tmp_path: Path) -> Instance:
    """Two ranks of two cores with three queues."""
    path = tmp_path / "queues.toml"
    path.write_text(CONFIG)
    return start("--cores-per-rank=2", f"--conf={path}", size=2)


def test_queues_from_a_file(site: Instance) -> None:
    lines = [line.split() for line in site.out("queue", "list").splitlines()]
    assert lines[0] == [
        *("QUEUE", "PARENT", "EN", "ST", "TDEFAULT", "TLIMIT", "NNODES", "NCORES", "NGPUS")
    ]
    assert [(line[0], line[-5:]) for line in lines[1:]] == [
        ("batch*", ["1h", "8h", "0-2", "0-4", "0-0"]),
        ("debug", ["5m", "30m", "0-2", "0-4", "0-0"]),
        ("urgent", ["1h", "8h", "0-2", "0-4", "0-0"]),
    ]
    site("run", "-q", "debug", "true")
    site("bulksubmit", "--quiet", "--wait", "--queue=urgent", "true", ":::", "a", "b")
    site("submit", "--quiet", "--wait", "true")
    listed = site.out("jobs", "-an", "-o", "{queue} {duration}").splitlines()
    assert listed == ["batch 3600.0", "urgent 3600.0", "urgent 3600.0", "debug 300.0"]
    assert len(site.out("jobs", "-an", "--queue=urgent").splitlines()) == 2

    for words, expected in (
        (["-q", "nope"], "Invalid queue 'nope' specified"),
        (["-N3", "-n3"], "requested nnodes (3) exceeds policy limit of 2 for queue batch"),
        (["-q", "debug", "-t1h"], "requested duration (1h) exceeds policy limit of 30m for queue"),
    ):
        done = site("submit", *words, "true", status=1)
        assert done.stderr.startswith(f"flux-submit: ERROR: {expected}")

    assert (
        site.out("queue", "stop", "batch", "-m", "later") == "batch: Scheduling is stopped: later"
    )
    waiting = site.out("submit", "--queue=urgent", "true")
    site("run", "--queue=debug", "true")
    assert site.out("jobs", "-no", "{id.f58} {queue} {status_abbrev}") == f"{waiting} urgent S"
    assert site.out("queue", "disable", "-q", "debug", "-m", "maint") == (
        "debug: Job submission is disabled: maint"
    )
    done = site("submit", "--queue=debug", "true", status=1)
    assert "job submission to debug is disabled: maint" in done.stderr
    site("queue", "start", status=1)
    site("queue", "start", "--all")
    site("queue", "drain")
    assert site.out("queue", "idle") == "0 jobs"


def test_easy_backfill(start: Callable[..., Instance]) -> None:
    """The head waits for all cores; a short job passes it, and one that would put it off does not.

    The head is told when it can expect to start.
    """
    flux = start("--cores-per-rank=2", "--conf=sched.queue-policy=easy", size=2)
    blocker = flux.out("submit", "-n3", "-t", "60s", "sleep", "60")
    head = flux.out("submit", "-n4", "-t", "60s", "true")
    long = flux.out("submit", "-n1", "-t", "10m", "true")
    flux("run", "-n1", "-t", "5s", "true")  # would wait for ever behind the head
    shown = dict(
        line.split(maxsplit=1)
        for line in flux.out(
            "jobs", "-no", "{id.f58} {status_abbrev} {contextual_info}"
        ).splitlines()
    )
    assert shown[head].startswith("S eta:")
    assert shown[long].split() == ["S"]
    flux("cancel", blocker)
    flux("job", "wait-event", long, "clean")
    flux("job", "wait-event", head, "clean")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("sched.queue-policy=sjf", "configuration: sched.queue-policy: found 'sjf', allowed: "),
        ("sched.scheduler=magic", "configuration: sched.scheduler: found 'magic', allowed: "),
        ("queues.a.requires=x", "configuration: queues.a.requires: found 'x', allowed: "),
        ("sched-fluxion-qmanager.queue-params=queue-depth=0", "queue-depth: found '0', allowed: "),
    ],
)
def test_what_is_wrong_with_the_configuration(
    start: Callable[..., Instance], setting: str, expected: str
) -> None:
    instance = start(f"--conf={setting}", size=1, wait=False)
    assert instance.process.wait(30) == 1
    (line,) = instance.stderr.splitlines()
    assert expected in line
