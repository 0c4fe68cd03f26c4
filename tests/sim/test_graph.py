"""An instance on a graph under a virtual clock: requests of all kinds in one queue."""

import json
import random

import pytest

from flux_mpi.formats import fluid
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.sim.machine import Machine

RACKS, NODES, CORES = 4, 4, 4


def site() -> str:
    """Racks of nodes with eight burst buffers each, as JGF text."""
    nodes, edges = [], []

    def vertex(kind, number, above, **more):
        nodes.append(
            {
                "id": str(len(nodes)),
                "metadata": {
                    "type": kind,
                    "id": number,
                    "rank": -1,
                    "paths": {"containment": f"{above[1] if above else ''}/{kind}{number}"},
                    **more,
                },
            }
        )
        found = len(nodes) - 1, nodes[-1]["metadata"]["paths"]["containment"]
        if above:
            edges.append({"source": str(above[0]), "target": str(found[0])})
        return found

    cluster = vertex("cluster", 0, None)
    for r in range(RACKS):
        rack = vertex("rack", r, cluster)
        for b in range(8):
            vertex("bb", b, rack)
        for n in range(NODES):
            node = vertex("node", r * NODES + n, rack, rank=r * NODES + n)
            for c in range(CORES):
                vertex("core", c, node)
    return json.dumps({"graph": {"nodes": nodes, "edges": edges}})


def near(nodes, buffers, seconds, per_node=False):
    count = {"per_resource": {"type": "node", "count": 1}} if per_node else {"per_slot": 1}
    inside = [{"type": "node", "count": nodes}, {"type": "bb", "count": buffers}]
    slot = {"type": "slot", "count": 1, "label": "t", "with": inside}
    return {
        "version": 9999,
        "resources": [{"type": "rack", "count": 1, "with": [slot]}],
        "tasks": [{"command": ["sleep", str(seconds)], "slot": "t", "count": count}],
        "attributes": {"system": {"duration": seconds + 5, "cwd": "/", "environment": {}}},
    }


def plain(seconds, **how):
    return Jobspec.from_command(
        ["sleep", str(seconds)], environment={}, cwd="/", duration=seconds + 5, **how
    ).to_dict()


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "site.json"
    path.write_text(site())
    config = {"resource": {"graph": str(path)}, "sched": {"queue-policy": "easy"}}
    return Machine(RACKS * NODES, cores=CORES, config=config)


def held(machine, job):
    """What a job had: (vertex path or core) of everything."""
    resources = machine.rpc("job-info.lookup", {"id": job, "keys": ["R"]})["R"]
    found = set()
    for group in resources["execution"]["R_lite"]:
        for rank in IDSet.parse(group["rank"]):
            found |= {(rank, core) for core in IDSet.parse(group["children"]["core"])}
    for node in resources.get("scheduling", {"graph": {"nodes": []}})["graph"]["nodes"]:
        if node["metadata"]["type"] == "bb":
            found.add(node["metadata"]["paths"]["containment"])
    return found


def test_no_two_jobs_ever_hold_the_same(machine):
    random.seed(3)
    arrays = []
    for _ in range(60):
        seconds = random.randint(1, 40)
        kind = random.randrange(4)
        if kind == 0:
            spec = near(random.randint(1, 3), random.randint(1, 6), seconds)
        elif kind == 1:
            spec = plain(seconds, nslots=random.randint(1, 6), cores_per_task=2)
        elif kind == 2:
            nodes = random.randint(1, 4)
            spec = plain(seconds, nslots=nodes, nnodes=nodes, exclusive=True)
        else:
            spec = plain(seconds, nslots=random.randint(1, 9))
        arrays += machine.submit(spec, at=random.randrange(16))
    statuses = machine.wait_all(arrays)
    assert set(statuses.values()) == {0}
    request = {"max_entries": 0, "states": 64, "results": 15, "attrs": ["all"]}
    (answer,) = machine.stream("job-list.list", request)
    spans = [(job["t_run"], job["t_inactive"], held(machine, job["id"])) for job in answer["jobs"]]
    assert len(spans) == 60
    for i, (start, end, mine) in enumerate(spans):
        assert mine
        for other_start, other_end, theirs in spans[:i]:
            if start < other_end and other_start < end:
                assert not mine & theirs
    status = machine.rpc("resource.status")
    assert not status["allocated"]["execution"]["R_lite"]
    assert status["others"]["bb"] == {"total": 32, "allocated": 0, "down": 0}


def test_a_lost_broker_takes_its_jobs_and_nothing_else(machine):
    arrays = [machine.submit(near(4, 1, 100, True))[0] for _ in range(RACKS)]
    wide = machine.submit(near(4, 8, 1))
    machine.run(5.0)
    by_rank = {}
    for job, _ in arrays:
        for rank, _ in (each for each in held(machine, job) if isinstance(each, tuple)):
            by_rank[rank] = job
    assert len(by_rank) == RACKS * NODES
    machine.remove(15)
    statuses = machine.wait_all([(by_rank[15], 1)])
    assert set(statuses.values()) != {0}
    assert set(machine.wait_all(wide).values()) == {0}
    later = machine.submit(near(4, 8, 50, True), RACKS)
    machine.run(5.0)
    text = machine.rpc("sched.explain", {"id": fluid.nth(later[0][0], RACKS - 1)})["text"]
    assert "1 of 16 nodes is down, drained or excluded" in text
    assert set(machine.wait_all(later).values()) == {0}
    assert machine.rpc("resource.status")["others"]["rack"]["total"] == RACKS
