"""Looking into many instances at once, some of which cannot be."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.client import hierarchy, info
from flux_mpi.client.handle import Handle
from flux_mpi.formats import fluid
from flux_mpi.message.errors import FluxError

REQUEST = {"states": 48, "attrs": sorted({"name", *hierarchy.NEEDED})}


def names(instance: hierarchy.Instance) -> dict[str, list[str]]:
    """Names of jobs by the path of their instance."""
    return {
        "/".join(map(fluid.encode, each.path)): [job["name"] for job in each.jobs]
        for each in instance.each()
    }


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """The URI of somebody who takes connections and never says a word."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        yield f"local://{tmp_path}/s"


def test_all_levels_are_found(family: Any) -> None:
    with Handle() as handle:
        found = hierarchy.walk(handle, hierarchy.Plan(REQUEST))
    assert names(found) == {
        "": ["flux", "sleep", "sleep"],
        "ƒ2": ["flux", "sleep"],
        "ƒ2/ƒ2": ["sleep", "sleep"],
    }
    assert not any(each.error for each in found.each())
    assert family["ƒ2/ƒ2"].payload("job-list.list") == REQUEST


@pytest.mark.parametrize(("levels", "depth"), [(0, 1), (1, 2), (2, 3), (9, 3)])
def test_going_down_is_bounded(family: Any, levels: int, depth: int) -> None:
    with Handle() as handle:
        found = hierarchy.walk(handle, hierarchy.Plan(REQUEST, levels=levels))
    assert len(found.each()) == depth
    assert [len(each.path) for each in found.each()] == list(range(depth))


def test_ids_are_of_the_first_instance_only(family: Any) -> None:
    ids = [fluid.parse("ƒ2"), fluid.parse("ƒ99")]
    with Handle() as handle:
        found = hierarchy.walk(handle, hierarchy.Plan({**REQUEST, "ids": ids}))
    assert names(found)[""] == ["flux"]
    assert found.unknown == ids[1:]
    assert names(found)["ƒ2"] == ["flux", "sleep"]


def test_one_that_hangs_one_that_is_gone_and_one_that_refuses_spoil_nothing(
    family: Any, silent: str
) -> None:
    family.job("", "ƒ5", name="hangs", annotations={"user": {"uri": silent}})
    family.job("", "ƒ6", name="gone", annotations={"user": {"uri": "ssh://localhost/no/such"}})
    family.job("", "ƒ7", name="far", annotations={"user": {"uri": "ssh://far-away/x"}})
    family.job("", "ƒ8", name="nonsense", annotations={"user": {"uri": "whatever"}})
    refusing = family.add("ƒ9")
    refusing.handlers["job-list.list"] = lambda request: request.error(1, "not for you")
    family.job("", "ƒ9", name="refuses")
    began = time.monotonic()
    with Handle() as handle:
        found = hierarchy.walk(handle, hierarchy.Plan(REQUEST), timeout_s=0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert len(names(found)["ƒ2/ƒ2"]) == 2
    errors = {fluid.encode(each.path[-1]): each.error for each in found.each() if each.error}
    assert errors.pop("ƒ5") == "no answer within 0.5 s"
    assert "that instance has ended" in errors.pop("ƒ6")
    assert "on another host" in errors.pop("ƒ7")
    assert "cannot use the URI" in errors.pop("ƒ8")
    assert errors == {"ƒ9": "not for you"}


def test_one_that_takes_nobody_any_more_delays_nobody_for_long(
    family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hierarchy, "QUEUE_S", 0.1)
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as other:
        full.bind(str(tmp_path / "s"))
        full.listen(0)
        other.connect(str(tmp_path / "s"))
        for jobid in ("ƒ5", "ƒ6", "ƒ7"):
            family.job("", jobid, annotations={"user": {"uri": f"local://{tmp_path}/s"}})
        began = time.monotonic()
        with Handle() as handle:
            found = hierarchy.walk(handle, hierarchy.Plan(REQUEST))
    assert time.monotonic() - began < 3
    assert len(names(found)["ƒ2/ƒ2"]) == 2
    errors = [each.error for each in found.each() if each.error]
    assert len(errors) == 3
    assert all("queue of new clients is full" in error for error in errors)


def test_one_that_dies_while_it_is_asked(family: Any) -> None:
    def die(request: Any) -> None:
        request.respond({"jobs": []})
        family["ƒ2"].drop()

    family["ƒ2"].handlers["job-list.list"] = die
    with Handle() as handle:
        found = hierarchy.walk(handle, hierarchy.Plan(REQUEST))
    (child,) = found.children.values()
    assert "lost the connection" in child.error
    assert child.jobs == []


def test_the_first_instance_must_answer(family: Any) -> None:
    family[""].handlers["job-list.list"] = lambda request: request.error(1, "no")
    with Handle() as handle, pytest.raises(FluxError, match="no"):
        hierarchy.walk(handle, hierarchy.Plan(REQUEST))


def test_many_are_asked_with_few_descriptors(family: Any) -> None:
    crowd = hierarchy.Crowd(at_once=2)
    most = 0
    answers: list[Any] = []

    def done(found: dict[str, Any], error: str) -> None:
        nonlocal most
        most = max(most, len(crowd._visits) + 1)
        answers.append(error or found)

    for _ in range(20):
        crowd.ask(family["ƒ2"].uri, {"stats": ("job-list.stats", {}, False)}, done)
    crowd.run()
    assert (len(answers), most) == (20, 2)
    assert all(answer["stats"]["job_states"]["run"] == 2 for answer in answers)


def test_jobs_of_others_are_left_alone_unless_asked_for(family: Any) -> None:
    family.jobs[""][0]["userid"] = os.getuid() + 1
    with Handle() as handle:
        assert len(hierarchy.walk(handle, hierarchy.Plan(REQUEST)).each()) == 1
        assert len(hierarchy.walk(handle, hierarchy.Plan(REQUEST, everyone=True)).each()) == 3


def test_details_of_instances_without_going_down(family: Any) -> None:
    with Handle() as handle:
        plan = hierarchy.Plan(REQUEST, levels=0, details=True)
        jobs = hierarchy.walk(handle, plan).jobs
    assert ["instance" in job for job in jobs] == [True, False, False]
    values = {
        name: info.field(f"instance.{name}").get(jobs[0])  # type: ignore[union-attr]
        for name in (
            "stats",
            "stats.total",
            "stats.running",
            "progress",
            "utilization",
            "gpu_utilization",
            "resources.all.ncores",
            "resources.up.nnodes",
            "resources.down.nnodes",
            "resources.allocated.ncores",
            "resources.free.ncores",
            "resources.all.ngpus",
        )
    }
    assert values == {
        "stats": "PD:0 R:2 CD:0 F:0",
        "stats.total": 2,
        "stats.running": 2,
        "progress": 0.0,
        "utilization": 0.125,
        "gpu_utilization": "",
        "resources.all.ncores": 16,
        "resources.up.nnodes": 3,
        "resources.down.nnodes": 1,
        "resources.allocated.ncores": 2,
        "resources.free.ncores": 10,
        "resources.all.ngpus": 0,
    }
    for name in ("instance.stats", "instance.utilization", "instance.resources.up.ncores"):
        assert info.field(name).get(jobs[1]) == ""  # type: ignore[union-attr]
    for name in ("instance", "instance.x", "instance.resources.up.x", "instance.stats.x"):
        assert info.field(name) is None
