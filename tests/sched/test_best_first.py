"""On large graphs a search begins with the best: it must find what a walk of everything finds."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from flux_mpi.formats.request import MatchJobspec, Request
from flux_mpi.resource.graph import DOWN, ResourceGraph
from flux_mpi.sched.bookings import Outcome
from flux_mpi.sched.graphtier import GraphTier
from flux_mpi.sched.matcher import Matcher
from flux_mpi.sched.takewalk import O_INDEX, O_TAKEN

pytestmark = pytest.mark.timeout(600)  # kernels may have to be compiled first

RACKS, NODES, CORES, GPUS = 6, 64, 12, 2


def machine(seed: int, *, sockets: bool = False) -> ResourceGraph:
    """Racks of nodes with ids of their own in no order, some down, some smaller than others."""
    rng = random.Random(seed)
    graph = ResourceGraph()
    root = graph.add_vertex("cluster", "cluster", 0)
    graph.set_root("containment", root)
    ids = list(range(RACKS * NODES))
    rng.shuffle(ids)
    for r in range(RACKS):
        rack = graph.add_vertex("rack", "rack", r)
        graph.add_edge(root, rack)
        for n in range(NODES):
            id = ids[r * NODES + n]
            status = DOWN if rng.random() < 0.05 else 0
            node = graph.add_vertex("node", "node", id, rank=id, status=status)
            graph.add_edge(rack, node)
            parts = [node]
            if sockets:
                parts = []
                for k in range(2):
                    parts.append(graph.add_vertex("socket", "socket", k))
                    graph.add_edge(node, parts[-1])
            for k, part in enumerate(parts):
                for c in range(rng.choice((CORES, CORES, CORES // 2)) // len(parts)):
                    core = graph.add_vertex("core", "core", c + k * CORES)
                    graph.add_edge(part, core)
                for g in range(GPUS // len(parts)):
                    gpu = graph.add_vertex("gpu", "gpu", g + k * GPUS)
                    graph.add_edge(part, gpu)
    graph.freeze()
    return graph


def exactly(type: str, count: int, *children: Request) -> Request:
    return Request(type, count, count, "+", 1, None, "", "", "", list(children))


def requests(rng: random.Random, sockets: bool) -> Request:
    cores = exactly("core", rng.randint(1, 6))
    inside = [cores, exactly("gpu", 1)] if rng.random() < 0.4 else [cores]
    slot = exactly("slot", rng.randint(1, 3), *inside)
    kind = rng.random()
    if kind < 0.4:
        return slot
    if kind < 0.5 and sockets:
        return exactly("socket", rng.randint(1, 5), slot)
    return exactly("node", rng.randint(1, 20), exactly("slot", 1, *inside))


@pytest.mark.parametrize("policy", ["low", "high", "lonode", "hinode", "lonodex", "hinodex"])
@pytest.mark.parametrize("sockets", [False, True])
def test_the_best_is_found_without_looking_at_all(
    policy: str, sockets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{policy} {sockets}")
    tier = GraphTier(0, "always")
    assert tier.compiled, tier.failure
    quick = Matcher(machine(7, sockets=sockets), policy=policy, tier=tier)
    full = Matcher(machine(7, sockets=sockets), policy=policy, tier=tier)
    monkeypatch.setattr(full, "_starts", lambda table: None)
    began_with_best = 0
    visited = {quick: 0, full: 0}
    for job_id in range(1, 120):
        job = MatchJobspec([requests(rng, sockets)], duration=100)
        found = {}
        for matcher in (quick, full):
            found[matcher] = matcher.match("allocate", job, job_id, None)
            visited[matcher] += matcher.preorder
        assert found[quick] == found[full]
        if found[quick].status == "matched":
            began_with_best += quick._starts(quick._compile(job)[0][0]) is not None
            assert total(quick, job_id) == total(full, job_id)
            if quick.policy.node_centric:
                # No two candidates are equal: it is the very same choice.
                assert quick.bookings[job_id].rows == full.bookings[job_id].rows
            else:
                same_choice(quick, full, job_id, job)
        if rng.random() < 0.4 and quick.bookings:
            gone = rng.choice(sorted(quick.bookings))
            for matcher in (quick, full):
                matcher.cancel(gone)
    assert began_with_best > 50
    assert visited[quick] < visited[full]


def same_choice(quick: Matcher, full: Matcher, job_id: int, job: MatchJobspec) -> None:
    """Equal candidates may be exchanged for each other; let both go on from one state."""
    if quick.bookings[job_id].rows != full.bookings[job_id].rows:
        for matcher in (quick, full):
            matcher.cancel(job_id)


def total(matcher: Matcher, job_id: int) -> int:
    """What the vertices that a job took score together, by their own ids and their node's."""
    graph = matcher.graph
    return sum(
        graph.ids[row[O_INDEX]]
        for row in matcher._all_rows(matcher.bookings[job_id])
        if row[O_TAKEN]
    )


def test_small_graphs_are_walked_whole() -> None:
    graph = ResourceGraph()
    root = graph.add_vertex("cluster", "cluster", 0)
    graph.set_root("containment", root)
    for n in range(3):
        node = graph.add_vertex("node", "node", n)
        graph.add_edge(root, node)
        graph.add_edge(node, graph.add_vertex("core", "core", 0))
    graph.freeze()
    matcher = Matcher(graph, policy="low", tier=GraphTier(0, "never"))
    job = MatchJobspec([exactly("slot", 1, exactly("core", 1))], duration=10)
    assert matcher._starts(matcher._compile(job)[0][0]) is None
    outcomes = [matcher.match("allocate", job, k, None) for k in range(4)]
    assert outcomes[:3] == [Outcome("matched", 0)] * 3
    assert outcomes[3].status == "busy"
    # Lowest ids first: the nodes' cores are equal, so any order of nodes will do, each once.
    taken = [
        tuple(sorted(row[O_INDEX] for row in matcher._all_rows(b)))
        for b in matcher.bookings.values()
    ]
    assert all(a != b for a, b in pairwise(sorted(taken)))
