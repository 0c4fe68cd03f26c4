"""What the configuration says of queues, and how it is told what is wrong with it."""

from __future__ import annotations

import re
from math import inf
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.instance.config import load
from flux_mpi.job.queueconfig import parse
from flux_mpi.message.errors import FluxError
from flux_mpi.sched.policy import Params


def test_without_configuration_there_is_one_queue_without_a_name() -> None:
    settings = parse({})
    assert not settings.named
    (queue,) = settings.queues.values()
    assert (queue.name, queue.policy.name, queue.params) == ("", "fcfs", Params())
    assert queue.limits.duration == inf
    assert queue.limits.most == {"nnodes": inf, "ncores": inf, "ngpus": inf}


def test_the_policy_of_the_one_queue() -> None:
    fluxion = {
        "queue-policy": "hybrid",
        "queue-params": {"queue-depth": 8192, "max-queue-depth": 1000},
        "policy-params": "reservation-depth=8,max-reservation-depth=100",
    }
    for config in ({"sched-fluxion-qmanager": fluxion}, {"sched": fluxion}):
        queue = parse(config).queues[""]
        assert queue.policy.name == "hybrid"
        assert queue.params == Params(8192, 1000, 8, 100)
        assert queue.params.considered == 1000
    both = {"sched-fluxion-qmanager": fluxion, "sched": {"queue-policy": "easy", "kernel": "auto"}}
    assert parse(both).queues[""].policy.name == "easy"
    assert parse({"policy": {"limits": {"duration": "8h"}}}).queues[""].limits.duration == 28800


CONFIG: dict[str, Any] = {
    "policy": {
        "jobspec": {"defaults": {"system": {"duration": "1h", "queue": "batch"}}},
        "limits": {"duration": "8h", "job-size": {"max": {"nnodes": 16, "ngpus": 4}}},
    },
    "queues": {
        "urgent": {"parent": "batch", "policy": {"limits": {"duration": "1h"}}},
        "debug": {
            "requires": ["debug"],
            "policy": {
                "limits": {"duration": "30m", "job-size": {"max": {"ngpus": -1}}},
                "jobspec": {"defaults": {"system": {"duration": 300}}},
                "scheduler": {"queue-policy": "conservative", "priority": 1},
            },
        },
        "batch": {
            "requires": ["batch", "amd"],
            "policy": {"limits": {"job-size": {"min": {"ncores": 2}}}},
        },
    },
    "sched-fluxion-qmanager": {
        "queue-policy": "easy",
        "queue-policy-per-queue": "batch:hybrid debug:fcfs",
        "queue-params-per-queue": "batch:queue-depth=7,max-queue-depth=9",
    },
}


def test_named_queues_inherit_and_override() -> None:
    settings = parse(CONFIG)
    assert settings.named
    assert settings.default == "batch"
    assert list(settings.queues) == ["urgent", "debug", "batch"]
    debug, batch, urgent = (settings.queues[name] for name in ("debug", "batch", "urgent"))
    assert debug.requires == ("debug",)
    assert (debug.limits.duration, debug.default_duration) == (1800, 300)
    assert debug.limits.most == {"nnodes": 16, "ncores": inf, "ngpus": inf}
    assert (debug.policy.name, debug.priority) == ("conservative", 1)
    assert (batch.policy.name, batch.params) == ("hybrid", Params(7, 9))
    assert (batch.limits.duration, batch.default_duration) == (28800, 3600)
    assert batch.limits.least["ncores"] == 2
    assert (urgent.parent, urgent.requires) == ("batch", ("batch", "amd"))
    assert (urgent.limits.duration, urgent.limits.least["ncores"]) == (3600, 2)


def test_the_only_queue_is_the_default_one() -> None:
    assert parse({"queues": {"all": {}}}).default == "all"
    assert parse({"queues": {"all": {}, "few": {}}}).default == ""


def changed(path: str, value: Any) -> dict[str, Any]:
    config: dict[str, Any] = {"queues": {"batch": {}, "debug": {}}}
    at = config
    *tables, last = path.split("/")
    for name in tables:
        at = at.setdefault(name, {})
    at[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("sched/queue-policy", "sjf", "sched.queue-policy: found 'sjf', allowed: conservative, e"),
        ("sched/queue-policy", 3, "sched.queue-policy: found 3"),
        ("sched/queue-polcy", "easy", "sched.queue-polcy: unknown key, allowed: queue-policy, "),
        ("sched", "easy", "sched: found 'easy', allowed: a table"),
        ("sched/queue-params", 3, "sched.queue-params: found 3, allowed: a table, or text"),
        ("sched/queue-params", "depth=3", "sched.queue-params.depth: unknown key, allowed: queue"),
        ("sched/policy-params/reservation-depth", 0, "reservation-depth: found 0, allowed: a num"),
        ("sched/queue-params", "queue-depth=x", "sched.queue-params.queue-depth: found 'x'"),
        ("sched-fluxion-qmanager/queue-polcy", "easy", "queue-polcy: unknown key, allowed: queue-"),
        ("sched/queue-policy-per-queue", "nope:easy", "per-queue: found 'nope:easy', allowed: Q"),
        ("sched/queue-policy-per-queue", 1, "sched.queue-policy-per-queue: found 1"),
        ("queues", [], "queues: found [], allowed: a table"),
        ("queues/batch", 3, "queues.batch: found 3, allowed: a table"),
        ("queues/batch/hosts", "x", "queues.batch.hosts: unknown key, allowed: requires, policy"),
        ("queues/batch/requires", "x", "queues.batch.requires: found 'x', allowed: an array"),
        ("queues/batch/requires", ["a|b"], "queues.batch.requires: found 'a|b', allowed: a name"),
        ("queues/batch/parent", "nope", "queues.batch.parent: found 'nope', allowed: a queue wit"),
        ("queues/batch/parent", "batch", "queues.batch.parent: found 'batch'"),
        ("queues/v", {"parent": "batch", "requires": ["x"]}, "queues.v.requires: found ['x'], all"),
        ("queues/v", {"parent": "batch", "policy": {"scheduler": {}}}, "queues.v.policy.scheduler"),
        ("policy/limits/duration", "3x", "policy.limits.duration: found '3x', allowed: a duration"),
        ("policy/limits/duration", [], "policy.limits.duration: found []"),
        ("policy/limits/size", 3, "policy.limits.size: unknown key, allowed: duration, job-size"),
        ("policy/limits/job-size/max/nnodes", -2, "max.nnodes: found -2, allowed: a number of at"),
        ("policy/limits/job-size/max/nnodes", True, "max.nnodes: found True"),
        ("policy/limits/job-size/max/nodes", 3, "max.nodes: unknown key, allowed: nnodes, ncores"),
        ("policy/access/allow-user", ["me"], "policy.access: unknown key"),
        ("policy/scheduler/priority", "high", "policy.scheduler.priority: found 'high', allowed"),
        ("policy/jobspec/defaults/system/queue", "nope", "system.queue: found 'nope', allowed: a"),
        ("policy/jobspec/defaults/system/queue", 3, "system.queue: found 3, allowed: a name"),
        ("policy/jobspec/defaults/system/duration", "x", "system.duration: found 'x'"),
        ("policy/jobspec/defaults/user", {}, "defaults.user: unknown key, allowed: system"),
        ("queues/batch/policy/jobspec/defaults/system/queue", "debug", "has no default queue"),
    ],
)  # fmt: skip
def test_errors_name_the_key_what_was_found_and_what_is_allowed(
    path: str, value: Any, expected: str
) -> None:
    with pytest.raises(FluxError, match=re.escape(expected)) as caught:
        parse(changed(path, value))
    assert str(caught.value).startswith("configuration: ")
    assert "\n" not in str(caught.value)


def test_a_default_queue_needs_queues() -> None:
    config = {"policy": {"jobspec": {"defaults": {"system": {"queue": "batch"}}}}}
    with pytest.raises(FluxError, match="found 'batch', allowed: no name without"):
        parse(config)


def test_the_documentation_is_right(tmp_path: Path) -> None:
    """Every table of docs/queues.md that configures an instance is one that it would take."""
    text = (Path(__file__).parents[2] / "docs" / "queues.md").read_text(encoding="utf-8")
    blocks = [
        block for block in re.findall(r"```toml\n(.*?)```", text, re.S) if "plugin" not in block
    ]
    assert len(blocks) == 3
    for number, block in enumerate(blocks[:2]):
        path = tmp_path / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        settings = parse(load([str(path)]))
    assert settings.queues["batch"].policy.name == "hybrid"
    assert settings.queues["urgent"].limits.duration == 7200
    assert settings.default == "batch"
