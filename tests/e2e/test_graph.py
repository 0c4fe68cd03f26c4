"""An instance whose resources are a graph from a file: storage near the compute, and who waits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Instance = Any

RACKS, NODES, CORES, BUFFERS = 2, 2, 2, 5


def site() -> dict[str, Any]:
    """JGF: two racks of two nodes of two cores, with five burst buffers of 20 GB each."""
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, str]] = []

    def vertex(kind: str, number: int, above: int | None, **more: Any) -> int:
        parent = nodes[above]["metadata"]["paths"]["containment"] if above is not None else ""
        metadata = {
            "type": kind,
            "basename": kind,
            "name": f"{kind}{number}",
            "id": number,
            "rank": -1,
            "paths": {"containment": f"{parent}/{kind}{number}"},
            **more,
        }
        nodes.append({"id": str(len(nodes)), "metadata": metadata})
        if above is not None:
            edges.append({"source": str(above), "target": str(len(nodes) - 1)})
        return len(nodes) - 1

    cluster = vertex("cluster", 0, None)
    for r in range(RACKS):
        rack = vertex("rack", r, cluster)
        for b in range(BUFFERS):
            vertex("bb", b, rack, size=20, unit="GB")
        for n in range(r * NODES, (r + 1) * NODES):
            node = vertex("node", n, rack, rank=n)
            for c in range(CORES):
                vertex("core", c, node, rank=n)
    return {"graph": {"nodes": nodes, "edges": edges}}


def near(gb: int, command: list[str], duration: float = 60.0, **attributes: Any) -> str:
    """A jobspec: a node with so much burst buffer in its rack."""
    node = {"type": "node", "count": 1, "with": [{"type": "core", "count": 1}]}
    inside = [node, {"type": "bb", "count": gb, "unit": "GB"}]
    slot = {"type": "slot", "count": 1, "label": "t", "with": inside}
    return json.dumps(
        {
            "version": 9999,
            "resources": [{"type": "rack", "count": 1, "with": [slot]}],
            "tasks": [{"command": command, "slot": "t", "count": {"per_slot": 1}}],
            "attributes": {"system": {"duration": duration, "cwd": "/", **attributes}},
        }
    )


@pytest.fixture
def racks(start: Callable[..., Instance], tmp_path: Path) -> Instance:
    """Four ranks of two cores in two racks; what fits does not wait for what does not."""
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site()))
    return start(
        f"--cores-per-rank={CORES}",
        f"--conf=resource.graph={path}",
        "--conf=sched.queue-policy=easy",
        size=RACKS * NODES,
    )


def submit(flux: Instance, *spec: Any, **more: Any) -> str:
    jobid: str = flux.out("job", "submit", stdin=near(*spec, **more))
    return jobid


def metadata(flux: Instance, jobid: str) -> list[dict[str, Any]]:
    resources = json.loads(flux.out("job", "info", jobid, "R"))
    return [node["metadata"] for node in resources["scheduling"]["graph"]["nodes"]]


def test_storage_near_the_compute_and_one_who_waits(racks: Instance, tmp_path: Path) -> None:
    first = submit(racks, 60, ["sleep", "60"])
    second = submit(racks, 60, ["sleep", "60"], 120.0)
    third = submit(racks, 60, ["hostname"])
    for job in (first, second):
        racks("job", "wait-event", "-q", "-t", "30", job, "start")
        held = metadata(racks, job)
        assert sum(one.get("size", 1) for one in held if one["type"] == "bb") == 60
        (rack,) = (one["paths"]["containment"] for one in held if one["type"] == "rack")
        assert all(one["paths"]["containment"].startswith(rack) for one in held[:-1])
    listed = racks.out("resource", "list").splitlines()
    assert [line.split() for line in listed[-3:]] == [
        ["TYPE", "FREE", "ALLOCATED", "DOWN"],
        ["rack", "2", "0", "0"],
        ["bb", "80", "120", "0"],
    ]
    told = racks.out("job", "explain", third).splitlines()
    assert told[0].endswith("is the first of the queue")
    assert told[1].startswith("needs rack/slot/[node/core;bb=60]; found 2 of 2 rack free, 80 of")
    assert told[-1].startswith("by the plan it starts in ")
    running = racks.out("job", "explain", first)
    assert " is running: for " in running
    # Beside the reservation: an ordinary job, and one that needs less storage.
    racks("run", "-t", "10s", "-n2", "true")
    small = submit(racks, 40, ["true"], 5.0)
    assert racks("job", "attach", small).returncode == 0
    picture = tmp_path / "x.svg"
    racks("resource", "graph", "-o", str(picture))
    svg = picture.read_text()
    assert svg.startswith("<svg")
    for text in (first, second, third, "rack1", "60 bb"):
        assert text in svg
    refused = racks("resource", "graph", "-o", str(picture), status=1)
    assert "not overwritten without --force" in refused.stderr
    part = racks.out("resource", "graph", "/cluster0/rack1")
    assert "rack1" in part
    assert "rack0" not in part
    racks("cancel", first)
    assert racks("job", "attach", third).returncode == 0
    assert "is inactive: completed" in racks.out("job", "explain", third)
    assert "is inactive: canceled" in racks.out("job", "explain", first)
    racks("cancel", second)


def test_drained_racks_and_constraints(racks: Instance) -> None:
    racks("resource", "drain", "0-1", "moving")
    job = submit(racks, 100, ["sleep", "60"])
    racks("job", "wait-event", "-q", "-t", "30", job, "start")
    assert {one["rank"] for one in metadata(racks, job)} <= {-1, 2, 3}
    held_back = submit(racks, 20, ["true"], constraints={"ranks": ["0-1"]})
    told = racks.out("job", "explain", held_back)
    assert 'the constraint {"ranks":["0-1"]} rules out 2 of 4 nodes' in told
    assert "of the others 0 can be used now" in told
    assert "2 of 4 nodes are down, drained or excluded" in told
    racks("resource", "undrain", "0-1")
    assert racks("job", "attach", held_back).returncode == 0
    racks("cancel", job)


def test_what_can_never_be_is_refused_in_words(racks: Instance) -> None:
    for spec, text in (
        (near(120, ["true"]), "does not fit into 2 rack, 200 bb, 4 node, 8 core"),
        (near(20, ["true"]).replace('"bb"', '"ssd"'), "there is no ssd in the graph"),
    ):
        job = racks.out("job", "submit", stdin=spec)
        assert text in racks("job", "attach", job, status=1).stderr
        assert text in racks.out("job", "explain", job)


def test_ranges_take_what_is_free_and_python_submits_them(start: Callable[..., Instance]) -> None:
    flux = start("--cores-per-rank=2", size=2)
    flux("submit", "--quiet", "--wait-event=start", "-N1", "--exclusive", "sleep", "60")
    script = """
import flux_mpi
core = {"type": "core", "count": 1}
slot = {"type": "slot", "count": 2, "label": "t", "with": [core]}
node = {"type": "node", "count": {"min": 1, "max": 2}, "with": [slot]}
task = {"command": ["true"], "slot": "t", "count": {"per_slot": 1}}
spec = {"version": 2, "resources": [node], "tasks": [task], "attributes": {}}
print(flux_mpi.submit(spec))
"""
    job = flux.python(script).strip()
    flux("job", "attach", job)
    assert flux.out("jobs", "-n", "-o", "{ntasks} {nnodes} {ncores}", job) == "2 1 2"
    flux("cancel", "--all", "--quiet")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["resource.graph=/nowhere"], "resource.graph: found '/nowhere': No such file"),
        (["resource.graph=SITE"], "found 4 nodes in the graph, the first too many is node2, all"),
        (["resource.graph=SITE", "resource.graph-format=dot"], "graph-format: found 'dot', allow"),
        (["resource.graph=SITE", "resource.graph-format=grug"], "site.json': grug:"),
        (["sched.match-policy=best"], "sched.match-policy: "),
        (["sched.prune-filters=core"], "sched.prune-filters: prune filters: expected HIGH:LOW"),
        (["sched.traverser=both"], "sched.traverser: found 'both', allowed: simple, flexible"),
        (["sched-fluxion-resource.what=1"], "sched-fluxion-resource.what: found an unknown key"),
    ],
)
def test_bad_configurations_do_not_start(
    start: Callable[..., Instance], tmp_path: Path, words: list[str], text: str
) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps(site()))
    options = (f"--conf={word.replace('SITE', str(path))}" for word in words)
    flux = start("--cores-per-rank=2", *options, size=2, wait=False)
    assert flux.wait() != 0
    assert text in flux.stderr
    assert "Traceback" not in flux.stderr


def test_a_child_schedules_the_part_of_the_graph_that_it_was_given(
    racks: Instance, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """Its nodes have its own ranks, and its storage is what its job asked for."""
    command = [
        "flux-mpi",
        "broker",
        "sh",
        "-c",
        f"flux-mpi resource list > {tmp_path}/list; echo $FLUX_URI > {tmp_path}/new;"
        f"mv {tmp_path}/new {tmp_path}/uri; sleep 60",
    ]
    environment = {k: v for k, v in racks.env.items() if not k.startswith("FLUX_")}
    blocker = submit(racks, 20, ["sleep", "60"])  # so that the child is not on rank 0
    child = submit(racks, 60, command, environment=environment)
    racks("job", "wait-event", "-q", "-t", "30", child, "start")
    uri = tmp_path / "uri"
    wait_until(uri.exists, "the child is up")
    held = metadata(racks, child)
    with_storage = sum(one.get("size", 1) for one in held if one["type"] == "bb")
    listed = [line.split() for line in (tmp_path / "list").read_text().splitlines()]
    assert ["bb", str(with_storage), "0", "0"] in listed
    inside = {"FLUX_URI": uri.read_text().strip()}
    # 40 GB can be had there, 80 cannot.
    one = racks.out("job", "submit", stdin=near(40, ["true"]), env=inside)
    racks("job", "wait-event", "-q", "-t", "30", one, "clean", env=inside)
    info = json.loads(racks.out("job", "info", one, "R", env=inside))
    assert info["execution"]["R_lite"][0]["rank"] == "0"
    two = racks.out("job", "submit", stdin=near(80, ["true"]), env=inside)
    racks("job", "wait-event", "-q", "-t", "30", two, "exception", env=inside)
    racks("cancel", child, blocker)
