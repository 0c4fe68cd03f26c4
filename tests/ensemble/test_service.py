"""Requests to ``ensemble.*``: what is refused, and what a child instance is made of."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from flux_mpi.broker.service import Request
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.message.errors import FluxError, ServiceError
from flux_mpi.message.message import REQUEST, STREAMING, Message, pack
from flux_mpi.sim.machine import Machine


def spec(*command: str, **how: Any) -> dict[str, Any]:
    how = {"environment": {"A": "b"}, "cwd": "/here", **how}
    return Jobspec.from_command(list(command or ("x",)), **how).to_dict()


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(4, cores=4)


def refused(machine: Machine, topic: str, payload: Any) -> tuple[int, str]:
    with pytest.raises(FluxError) as raised:
        next(iter(machine.stream(topic, payload)))
    assert raised.value.errno is not None
    return raised.value.errno, str(raised.value)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"jobspec": None}, "jobspec: document: expected a JSON object, found null"),
        ({"jobspec": {}}, "jobspec: version"),
        ({"count": 0}, "count: expected 1 to 4294967296 members, found 0"),
        ({"count": "5"}, "count: expected"),
        ({"count": True}, "count: expected"),
        ({"count": None}, "either a count or an idset"),
        ({"members": "1-3"}, "either a count or an idset"),
        ({"count": None, "members": "3-1"}, "members: idset '3-1'"),
        ({"count": None, "members": ""}, "found 0"),
        ({"topology": "4x"}, "joined by x, such as 4x8, or auto"),
        ({"topology": "64"}, r"64 instances were asked for, there are 16 cores (4 ranks of 4)"),
        ({"topology": "4x8"}, "topology: level 2 of 4x8: 8 instances"),
        ({"topology": 7}, "topology: expected text such as 4x8, found 7"),
        ({"expected_time": 0}, "expected_time: expected seconds above 0, found 0"),
        ({"expected_time": "soon"}, "soon"),
        ({"expected_time": [1]}, "expected_time"),
        ({"retries": -1}, "retries: expected 0 to 100, found -1"),
        ({"retries": 1.5}, "retries"),
        ({"urgency": 99}, "urgency: expected 0 to 31"),
        ({"name": 5}, "name: expected a short text"),
        ({"conf": 5}, "conf: expected an object for each level"),
        ({"conf": [5]}, "conf: expected an object for each level"),
        ({"conf": [{}, {}], "topology": "4"}, "configurations for 2 levels"),
        ({"conf": {"a": 1}}, "configurations for 1 levels of child instances were given, 1 has 0"),
        ({"nnodes": 5}, "nnodes: 5 of them were asked for, there are 4"),
        ({"nnodes": "2"}, "nnodes: expected a number"),
        ({"ncores": 5}, "ncores-per-node: 5 on each node were asked for, there are 4"),
        ({"nnodes": 2, "topology": "auto"}, "auto uses all there is"),
        ({"jobspec": spec(ntasks=17)}, "a member needs 17 cores"),
        ({"jobspec": spec("x", "{seq}")}, "template: {seq} means nothing in an ensemble"),
        ({"jobspec": spec(cwd="/tmp/{seq1}")}, "template: {seq} means nothing"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    machine: Machine, change: dict[str, Any], what: str
) -> None:
    payload = {"jobspec": spec(), "count": 10, **change}
    for topic in ("ensemble.run", "ensemble.plan"):
        number, text = refused(machine, topic, payload)
        assert number == errno.EINVAL
        assert what in text
    assert machine.rpc("ensemble.list") == {"runs": []}


def test_requests_of_the_wrong_form(machine: Machine) -> None:
    payload = {"jobspec": spec(), "count": 1}
    with pytest.raises(FluxError) as raised:
        machine.rpc("ensemble.run", payload)
    assert raised.value.errno == errno.EPROTO
    for topic in ("run", "plan", "join", "report", "return", "cancel"):
        assert refused(machine, f"ensemble.{topic}", [1])[0] == errno.EPROTO
    for number in (5, None, "x"):
        assert refused(machine, "ensemble.cancel", {"run": number})[0] == errno.ENOENT
    for topic in ("report", "return"):
        assert refused(machine, f"ensemble.{topic}", {"token": "x"})[0] == errno.ENOENT


@pytest.mark.parametrize("method", ["run", "plan", "cancel", "join", "report", "return"])
def test_others_may_not_ask(machine: Machine, method: str) -> None:
    root = machine.nodes[0].root
    assert root is not None
    message = Message(
        REQUEST, f"ensemble.{method}", pack({}), tag=1, uid=os.getuid() + 1, flags=STREAMING
    )
    with pytest.raises(ServiceError) as raised:
        root.ensembles.handlers()[method](Request(message, lambda answer: None))
    assert raised.value.errno == errno.EPERM


def test_jobs_that_this_instance_can_never_run_end_it_with_the_reason(machine: Machine) -> None:
    # Numbers alone do not tell: a task of two cores on each of eight nodes, of which there are 4.
    wanted = spec(ntasks=4, nnodes=4, cores_per_task=4, constraints={"properties": ["none"]})
    number, text = refused(machine, "ensemble.run", {"jobspec": wanted, "count": 3})
    assert number == errno.EINVAL
    assert "unsatisfiable request" in text
    assert machine.rpc("ensemble.list") == {"runs": []}


def test_a_plan_says_what_would_be_done(machine: Machine) -> None:
    plan = machine.rpc(
        "ensemble.plan", {"jobspec": spec("x", "{cc}"), "count": 10, "topology": "2x4"}
    )
    jobspec = plan.pop("jobspec")
    assert plan == {
        "topology": "2x4",
        "why": "",
        "count": 10,
        "machine": "16 cores (4 ranks of 4)",
        "levels": [
            {"instances": 2, "nnodes": 2, "ncores": 8},
            {"instances": 4, "nnodes": 1, "ncores": 2},
        ],
    }
    assert jobspec["attributes"]["system"]["environment"] == {
        "A": "b",
        "FLUX_JOB_CC": "{cc}",
        "FLUX_TREE_ID": "tree",
        "FLUX_TREE_JOBSCRIPT_INDEX": "{cc}",
        "FLUX_TREE_NNODES": "1",
        "FLUX_TREE_NCORES_PER_NODE": "2",
        "FLUX_TREE_NGPUS_PER_NODE": "0",
    }


def test_a_plan_of_auto_needs_an_expected_time(machine: Machine) -> None:
    request = {"jobspec": spec(), "count": 10, "topology": "auto"}
    assert "decided when the first members" in machine.rpc("ensemble.plan", request)["why"]
    plan = machine.rpc("ensemble.plan", {**request, "expected_time": "5s"})
    assert plan["topology"] == "1"
    assert "10 members of 5 s on 16 cores (4 ranks of 4): one level" in plan["why"]


def child_jobs(machine: Machine, **request: Any) -> list[dict[str, Any]]:
    """The jobspecs of the child instances that an ensemble asks for."""
    node = machine.nodes[0]
    before = {job["id"] for job in _jobs(machine)}
    call = node.broker.rpc("ensemble.run", request, lambda answer: None, streaming=True)
    node.reactor.call_soon(lambda: None)
    machine.run(until=lambda: len(_jobs(machine)) > len(before))
    ids = [job["id"] for job in _jobs(machine) if job["id"] not in before]
    keys = {"keys": ["jobspec"], "original": True}
    found = [machine.rpc("job-info.lookup", {"id": jobid, **keys})["jobspec"] for jobid in ids]
    node.reactor.call_soon(call.cancel)
    machine.run(seconds=30)
    assert machine.rpc("job-manager.stats")["active_jobs"] == 0
    return sorted(found, key=lambda spec: spec["attributes"]["system"]["job"]["name"])


def _jobs(machine: Machine) -> list[dict[str, Any]]:
    query = {"max_entries": 0, "states": 127, "results": 0, "attrs": ["name"]}
    jobs: list[dict[str, Any]] = machine.rpc("job-list.list", query)["jobs"]
    return jobs


def test_a_child_instance_is_a_job_of_this_one(machine: Machine) -> None:
    conf = {"sched": {"queue-policy": "easy"}}
    specs = child_jobs(
        machine,
        jobspec=spec("x", "{cc}", environment={"A": "b", "FLUX_JOB_CC": "{cc}"}),
        count=10,
        topology="2x4",
        conf=[conf],
        name="root",
        retries=0,
    )
    assert len(specs) == 2
    tokens = set()
    for number, found in enumerate(specs, 1):
        system = found["attributes"]["system"]
        program, verb, token, option = found["tasks"][0]["command"]
        assert (program, verb, option) == ("flux-mpi", "broker", "-c{{tmpdir}}/conf.json")
        assert token.startswith("--ensemble=")
        tokens.add(token)
        assert system["files"] == {"conf.json": {"mode": 0o100600, "data": conf}}
        assert system["environment"] == {"A": "b"}, "no tag of a member's"
        assert system["cwd"] == "/here"
        assert system["job"] == {"name": f"root.{number}"}
        assert system["shell"]["options"]["per-resource"] == {"type": "node", "count": 1}
        (resource,) = found["resources"]
        assert (resource["type"], resource["count"], resource["exclusive"]) == ("node", 2, True)
    assert len(tokens) == 2


def test_without_configuration_it_needs_no_file(machine: Machine) -> None:
    (found, *_) = child_jobs(machine, jobspec=spec(), count=5, topology="4", retries=0)
    assert "files" not in found["attributes"]["system"]
    assert len(found["tasks"][0]["command"]) == 3
