"""Two doors, one state: what the graph door decides, held against the bitmap door's decisions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec, Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.resource import owngraph, readers
from flux_mpi.resource.graph import CONTAINMENT, ResourceGraph
from flux_mpi.sched.graph import GraphScheduler
from flux_mpi.sched.placement import Part, Placement
from flux_mpi.sched.settings import FORMATS, GraphSettings, SettingsError, parse
from flux_mpi.sched.tiered import Tier
from flux_mpi.sched.translate import Slots, count_slots
from tests.sched.running import ODD, bitmap_door, could_start, fill

POLICIES = ("low", "high", "lonode", "hinode")

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def shapes(draw: Any) -> Shape:
    nodes = draw(st.integers(0, 3))
    slots = draw(st.integers(1, 4))
    cores = draw(st.integers(1, 3))
    gpus = draw(st.sampled_from([0, 0, 0, 1]))
    exclusive = draw(st.booleans()) if nodes else draw(st.sampled_from([False, False, True]))
    constraint = draw(st.sampled_from(["", "", ODD, '{"hostlist":["node[0-1]"]}']))
    total = slots * nodes if nodes else slots
    return Shape(nodes, total, slots if nodes else 0, cores, gpus, exclusive, total, constraint)


@st.composite
def machines(draw: Any) -> RSet:
    size = draw(st.integers(1, 4))
    sizes = [(draw(st.integers(1, 4)), draw(st.integers(0, 2))) for _ in range(size)]
    return RSet(
        {rank: IDSet(range(cores)) for rank, (cores, _) in enumerate(sizes)},
        {rank: IDSet(range(gpus)) for rank, (_, gpus) in enumerate(sizes) if gpus},
        {rank: f"node{rank}" for rank in range(size)},
        properties={"odd": IDSet(rank for rank in range(size) if rank % 2)},
    )


def graph_door(resources: RSet, policy: str = "low", up: IDSet | None = None) -> GraphScheduler:
    scheduler = GraphScheduler(GraphSettings(match_policy=policy), None, Tier("never"))
    scheduler.update(resources, up)
    assert scheduler.door is not None
    return scheduler


def check(placement: Placement, shape: Shape, resources: RSet) -> None:
    """What was placed is what was asked for."""
    parts = placement.parts
    assert list(parts) == sorted(parts)
    for part in parts:
        cores, gpus = part.cores.bit_count(), part.gpus.bit_count()
        assert cores >= part.slots * shape.cores
        assert gpus >= part.slots * shape.gpus
        if shape.exclusive:
            assert part.cores == resources.cores[part.rank].mask
        else:
            assert (cores, gpus) == (part.slots * shape.cores, part.slots * shape.gpus)
    if shape.nnodes:
        assert len(parts) == shape.nnodes
        assert {part.slots for part in parts} == {shape.slots_per_node}
    assert placement.nslots == shape.nslots
    assert list(placement.hosts) == [resources.hosts[part.rank] for part in parts]


def check_no_overlap(running: list[Placement]) -> None:
    taken: dict[tuple[int, str], int] = {}
    for placement in running:
        for part in placement.parts:
            for kind, mask in (("core", part.cores), ("gpu", part.gpus)):
                assert not taken.get((part.rank, kind), 0) & mask
                taken[part.rank, kind] = taken.get((part.rank, kind), 0) | mask


@many
@given(
    resources=machines(),
    policy=st.sampled_from(POLICIES),
    work=st.lists(st.tuples(shapes(), st.integers(0, 3)), min_size=1, max_size=12),
)
def test_both_doors_agree_on_what_fits(
    resources: RSet, policy: str, work: list[tuple[Shape, int]]
) -> None:
    graph = graph_door(resources, policy)
    running: list[Placement] = []
    for shape, gone in work:
        if graph.feasible(shape) is not None:
            assert bitmap_door(resources, []).feasible(shape) is not None
        fits = bitmap_door(resources, running).alloc(shape, 1, 0.0)
        found = graph.alloc(shape, 1, 0.0)
        assert bool(found) == bool(fits)
        for placement in found:
            check(placement, shape, resources)
            running.append(placement)
        check_no_overlap(running)
        assert graph.allocated() == bitmap_door(resources, running).allocated()
        if gone < len(running):
            graph.free([running.pop(gone)])
    graph.free(running)
    assert not graph.allocated()


jobs = st.tuples(shapes(), st.integers(1, 9))


@many
@given(resources=machines(), work=st.lists(jobs, max_size=6), job=jobs)
def test_a_reservation_is_at_the_earliest_time(
    resources: RSet, work: list[tuple[Shape, int]], job: tuple[Shape, int]
) -> None:
    scheduler = graph_door(resources)
    running = fill(scheduler, work)
    shape, duration = job
    if could_start(resources, running, shape, 0.0):
        return  # nobody reserves for what can start
    reservation = scheduler.reserve(shape, 0.0, float(duration))
    times = sorted({end for _, end in running})
    possible = [when for when in times if could_start(resources, running, shape, when)]
    assert (reservation.start if reservation else None) == (possible[0] if possible else None)


@many
@given(
    resources=machines(),
    work=st.lists(jobs, max_size=6),
    first=jobs,
    later=st.lists(jobs, min_size=1, max_size=8),
)
def test_what_starts_beside_a_reservation_leaves_it_in_peace(
    resources: RSet,
    work: list[tuple[Shape, int]],
    first: tuple[Shape, int],
    later: list[tuple[Shape, int]],
) -> None:
    scheduler = graph_door(resources)
    running = fill(scheduler, work)
    if could_start(resources, running, first[0], 0.0):
        return
    reservation = scheduler.reserve(first[0], 0.0, float(first[1]))
    if reservation is None:
        return
    for shape, duration in later:
        found = scheduler.alloc(shape, 2, 0.0, float(duration))
        running += [(placement, float(duration)) for placement in found]
        check_no_overlap([placement for placement, _ in running])
        assert could_start(resources, running, first[0], reservation.start)
    scheduler.release([reservation])
    scheduler.free([placement for placement, _ in running])
    assert not scheduler.allocated()


@many
@given(
    resources=machines(),
    steps=st.lists(
        st.tuples(st.integers(0, 4), shapes(), st.integers(0, 15)), min_size=1, max_size=15
    ),
    opened=st.integers(0, 6),
    linger=st.sampled_from([0.0, 2.0, 99.0]),
)
def test_nothing_is_booked_twice_whatever_happens(
    resources: RSet, steps: list[tuple[int, Shape, int]], opened: int, linger: float
) -> None:
    """Starts, ends, ranks that go down, resources that come and go, and the door that opens midway
    and closes again."""
    scheduler = GraphScheduler(None, None, Tier("never"))
    scheduler.linger_s = linger
    scheduler.update(resources)
    running: list[Placement] = []
    here, up = resources, resources.ranks
    for now, (what, shape, number) in enumerate(steps):
        if now == opened:
            assert scheduler.feasible(asking({"type": "rack", "count": 1})) is not None
            running += scheduler.alloc(asking({"type": "node", "count": "1-2"}), 1, float(now), 2.0)
            assert scheduler.door is not None
        if what <= 1:
            kept = [[part for part in p.parts if part.rank in here.ranks] for p in running]
            left = [Placement(parts, ["x"] * len(parts)) for parts in kept if parts]
            fits = bitmap_door(here, left, up).alloc(shape, 1, now)
            found = scheduler.alloc(shape, 1, float(now), 2.0)
            assert bool(found) == bool(fits)
            running += found
        elif what == 2 and running:
            scheduler.free([running.pop(number % len(running))])
        elif what == 3:
            up = IDSet(rank for rank in here.ranks if number >> rank & 1)
            scheduler.set_up(up)
        elif what == 4:
            here = resources.subset(rank for rank in resources.ranks if number >> rank & 1)
            up = here.ranks
            scheduler.update(here, up)
        check_no_overlap(running)
    scheduler.free(running)
    assert not scheduler.allocated()


# -- graphs ------------------------------------------------------------------------------------


def asking(*resources: dict[str, Any], constraint: str = "", **task: Any) -> Shape:
    """The shape of a request; its innermost resource gets a slot of one core if it has none."""
    document = json.loads(json.dumps(resources))
    if "slot" not in json.dumps(document):
        inner = document[0]
        while "with" in inner:
            inner = inner["with"][0]
        core = {"type": "core", "count": 1}
        inner["with"] = [{"type": "slot", "count": 1, "label": "t", "with": [core]}]
    system = {"constraints": json.loads(constraint)} if constraint else {}
    return Jobspec.parse(
        {
            "version": 9999,
            "resources": document,
            "tasks": [{"command": ["x"], "slot": "t", "count": task or {"per_slot": 1}}],
            "attributes": {"system": system},
        }
    ).shape


def near(bb: int, nodes: int = 1) -> Shape:
    """Nodes of one rack with so many units of burst buffer there."""
    node = {"type": "node", "count": nodes, "with": [{"type": "core", "count": 1}]}
    buffer = {"type": "bb", "count": bb, "unit": "GB"}
    slot = {"type": "slot", "count": 1, "label": "t", "with": [node, buffer]}
    return asking({"type": "rack", "count": 1, "with": [slot]})


def site(racks: int = 2, nodes: int = 2, cores: int = 2, *, named: bool = True) -> ResourceGraph:
    """Racks of nodes, each rack with five burst buffers of 20 GB."""
    graph = ResourceGraph()
    cluster = graph.add_vertex("cluster", "cluster", 0)
    graph.set_root(CONTAINMENT, cluster)
    for r in range(racks):
        rack = graph.add_vertex("rack", "rack", r)
        graph.add_edge(cluster, rack)
        for k in range(5):
            graph.add_edge(rack, graph.add_vertex("bb", "bb", k, size=20, unit="GB"))
        for n in range(nodes):
            number = r * nodes + n
            node = graph.add_vertex("node", "n", number, rank=number if named else -1)
            graph.add_edge(rack, node)
            for k in range(cores):
                graph.add_edge(node, graph.add_vertex("core", "core", k + 8))
    graph.freeze()
    return graph


@pytest.fixture
def racks(resources: Callable[..., RSet]) -> GraphScheduler:
    """Four nodes of two cores in two racks with 100 GB of burst buffer each."""
    scheduler = GraphScheduler(None, site(), Tier("never"))
    scheduler.update(resources([(2, 0)] * 4, {"big": "2-3"}))
    return scheduler


def test_storage_near_the_compute(racks: GraphScheduler) -> None:
    (first,) = racks.alloc(near(60), 1, 0.0, 10.0)
    (second,) = racks.alloc(near(60), 1, 0.0, 20.0)
    assert {first.parts[0].rank // 2, second.parts[0].rank // 2} == {0, 1}
    assert racks.alloc(near(60), 1, 0.0, 10.0) == []
    assert first.extras == {"bb": 60}
    assert racks.others() == {
        "rack": {"total": 2, "allocated": 0, "down": 0},
        "bb": {"total": 200, "allocated": 120, "down": 0},
    }
    graph = first.to_dict(0.0, 0.0)["scheduling"]["graph"]
    assert [node["metadata"]["type"] for node in graph["nodes"]].count("bb") == 3
    reservation = racks.reserve(near(60), 0.0, 10.0)
    assert reservation is not None
    assert reservation.start == 10.0
    assert len(racks.alloc(near(40), 9, 0.0, 30.0)) == 1  # more would take what is reserved
    racks.release([reservation])
    assert len(racks.alloc(near(40), 9, 0.0, 30.0)) == 1
    racks.free([first])
    assert racks.alloc(near(60), 1, 10.0, 5.0)


def test_what_should_have_ended_is_not_given_away(racks: GraphScheduler) -> None:
    running = racks.alloc(near(100), 2, 0.0, 10.0)
    assert len(running) == 2
    assert racks.alloc(near(20), 1, 50.0, 1.0) == []
    reservation = racks.reserve(near(20), 50.5, 1.0)
    assert reservation is not None
    assert 51.0 <= reservation.start <= 53.0


def test_ordinary_jobs_share_the_graph(racks: GraphScheduler, shape: Callable[..., Shape]) -> None:
    assert len(racks.alloc(shape(1, 2), 3, 0.0, 5.0)) == 3
    assert len(racks.alloc(near(20), 3, 0.0, 5.0)) == 1
    assert racks.alloc(shape(), 1, 0.0, 5.0) == []  # a node in a slot is the job's alone


def test_what_is_impossible_is_said(racks: GraphScheduler) -> None:
    def why(request: Shape) -> str:
        return racks.feasible(request) or ""

    assert "there is no switch in the graph, only bb, cluster, core, node, rack" in why(
        asking({"type": "switch", "count": 1})
    )
    assert "needs 5 node, the graph has 4" in why(asking({"type": "node", "count": "5-9"}))
    assert "does not fit into 2 rack, 200 bb, 4 node, 8 core" in why(near(120))
    assert "rack/slot/[node=3/core;bb=20] does not fit" in why(near(20, 3))
    only = {"type": "slot", "count": 1, "label": "t", "with": [{"type": "bb", "count": 1}]}
    assert "no task could run" in why(asking(only))
    rack = {"type": "rack", "count": 1, "with": [{"type": "node", "count": 2}]}
    assert why(asking(rack, constraint='{"properties":["big"]}')) == ""
    ssd = '{"properties":["ssd"]}'
    assert f"does not fit on the 0 of 4 nodes that meet {ssd}" in why(asking(rack, constraint=ssd))


def test_why_it_waits(racks: GraphScheduler) -> None:
    racks.alloc(near(60), 2, 0.0, 10.0)
    text = racks.explain(near(60))
    assert "80 of 200 bb free" in text
    assert "4 usable nodes" in text
    assert racks.outlook(near(60), 0.0, 10.0) == "by the plan it could start in 10s"
    racks.set_up(IDSet([0, 2]))
    rack = {"type": "rack", "count": 1, "with": [{"type": "node", "count": 1}]}
    lines = racks.explain(asking(rack, constraint='{"properties":["big"]}')).splitlines()
    assert lines[1:] == [
        'the constraint {"properties":["big"]} rules out 2 of 4 nodes; '
        "of the others 1 can be used now",
        "2 of 4 nodes are down, drained or excluded",
    ]


def test_ranges_and_choices_take_what_there_is(racks: GraphScheduler) -> None:
    (all_of_them,) = racks.alloc(asking({"type": "node", "count": "2-9"}), 1, 0.0)
    assert all_of_them.ranks == "0-3"
    assert all_of_them.nslots == 4
    (two,) = racks.alloc(asking({"type": "node", "count": "2,3,7"}), 1, 0.0)
    assert two.nnodes == 3
    assert racks.alloc(asking({"type": "node", "count": "2,3,7"}), 1, 0.0) == []


def test_down_ranks_get_nothing_and_count_as_there(racks: GraphScheduler) -> None:
    racks.set_up(IDSet([0, 1]))
    assert [p.ranks for p in racks.alloc(near(20), 9, 0.0)] in (["0", "1"], ["1", "0"])
    assert racks.feasible(near(20, 2)) is None
    assert racks.reserve(near(20, 2), 0.0, 5.0) is not None
    racks.set_up(IDSet([2, 3]))
    assert racks.alloc(near(20, 2), 1, 0.0)


def test_a_file_without_ranks_is_taken_in_order(resources: Callable[..., RSet]) -> None:
    scheduler = GraphScheduler(None, site(named=False), Tier("never"))
    scheduler.update(resources([(2, 0)] * 4))
    (placement,) = scheduler.alloc(asking({"type": "node", "count": 4}), 1, 0.0)
    assert placement.summary == "rank[0-3]/core1"  # the file's core9 is the rank's core1


def test_a_rank_that_is_no_longer_what_the_file_says(
    racks: GraphScheduler, resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    (job,) = racks.alloc(near(100), 1, 0.0)
    racks.update(resources([(2, 0), (3, 0), (2, 0)]))
    assert racks.others()["bb"]["allocated"] == 100
    assert len(racks.alloc(shape(), 9, 0.0)) == (2 if job.ranks in ("0", "2") else 4)
    racks.free([job])
    racks.update(resources([(2, 0)] * 4))
    assert racks.alloc(near(100), 1, 0.0)


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([(2, 0)] * 3, "found 4 nodes in the graph, the first too many is n3, allowed: 3"),
        ([(2, 0)] * 5, "found 4 nodes in the graph, allowed: 5"),
        (
            [(2, 0), (3, 0), (2, 0), (2, 0)],
            "node n1 (rank 1, node1): found 2 cores in the graph, allowed: 3",
        ),
        (
            [(2, 0), (2, 0), (2, 1), (2, 0)],
            "node n2 (rank 2, node2): found 0 gpus in the graph, allowed: 1",
        ),
    ],
)
def test_a_file_of_another_machine(
    resources: Callable[..., RSet], nodes: list[tuple[int, int]], text: str
) -> None:
    graph = site()
    with pytest.raises(owngraph.OwnGraphError) as caught:
        owngraph.matched(graph, resources(nodes))
    assert text in str(caught.value)
    assert graph.ranks[graph.of_type("node")[3]] == 3
    assert graph.ranks[graph.of_type("core")[3]] == -1


def test_the_format_of_a_file_is_guessed() -> None:
    assert owngraph.guess_format('{"graph": {"nodes": []}}') == "jgf"
    assert owngraph.guess_format('{"version": 1, "execution": {}}') == "rv1exec"
    assert owngraph.guess_format("<?xml version='1.0'?>\n<graphml/>") == "grug"
    assert owngraph.guess_format("<?xml version='1.0'?>\n<topology/>") == "hwloc"
    assert set(FORMATS) <= set(readers.FORMATS)


def test_what_runs_on_a_removed_part_is_told_apart(
    resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    scheduler = GraphScheduler(None, None, Tier("never"))
    scheduler.update(resources([(2, 0)] * 4))
    (job,) = scheduler.alloc(shape(cores=2, nnodes=3), 1, 0.0)
    assert scheduler.remark(job) == ""
    scheduler.set_up(IDSet([1, 2, 3]))
    assert scheduler.remark(job) == (
        "rank 0 is down, drained or excluded: nothing new starts there"
    )
    scheduler.update(resources([(2, 0)] * 1))
    assert scheduler.remark(job) == "ranks 1-2 are no longer part of the instance"
    scheduler.update(resources([(2, 0)] * 4))
    assert scheduler.allocated().ncores == 6  # it came back, and the job with it
    assert [found.ranks for found in scheduler.alloc(shape(cores=2), 9, 1.0)] == ["3"]
    scheduler.free([job])
    assert len(scheduler.alloc(shape(cores=2), 9, 1.0)) == 3


def test_the_door_stays_open_for_what_lost_a_core(
    resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    scheduler = GraphScheduler(None, None, Tier("never"))
    scheduler.linger_s = 0.0
    scheduler.update(resources([(2, 0)] * 2))
    (job,) = scheduler.alloc(shape(cores=2), 1, 0.0)
    scheduler.free(scheduler.alloc(asking({"type": "node", "count": "1-2"}), 1, 1.0))
    scheduler.update(resources([(1, 0), (2, 0)]))
    assert len(scheduler.alloc(shape(), 9, 5.0)) == 2
    assert scheduler.door is not None
    scheduler.free([job])
    assert len(scheduler.alloc(shape(), 9, 6.0)) == 1
    assert scheduler.door is None


def test_what_has_no_limit_is_waited_for_last(
    resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    scheduler = graph_door(resources([(2, 0)]))
    (job,) = scheduler.alloc(shape(), 1, 1e9, inf)
    reservation = scheduler.reserve(shape(cores=2), 1e9, inf)
    assert reservation is not None
    assert scheduler.alloc(shape(), 1, 1e9, inf) == []  # it might outlast the other
    (short,) = scheduler.alloc(shape(), 1, 1e9, 1e6)
    assert scheduler.outlook(shape(cores=2), 1e9) == (
        "by the plan it starts when jobs without a time limit end"
    )
    scheduler.release([reservation])
    scheduler.free([job, short])


def test_the_graph_door_closes_when_nobody_needs_it(
    resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    scheduler = GraphScheduler(None, None, Tier("never"))
    scheduler.update(resources([(2, 0)] * 2))
    (before,) = scheduler.alloc(shape(), 1, 0.0, 50.0)
    range_of_nodes = asking({"type": "node", "count": "1-2"})
    assert scheduler.feasible(range_of_nodes) is None
    assert scheduler.door is None  # whether it could run can be told without it
    (odd,) = scheduler.alloc(range_of_nodes, 1, 1.0, 5.0)
    assert scheduler.door is not None
    (beside,) = scheduler.alloc(shape(), 1, 20.0, 30.0)
    assert scheduler.door is not None
    scheduler.free([odd])
    (after,) = scheduler.alloc(shape(), 1, 21.0, 30.0)
    assert scheduler.door is None
    reservation = scheduler.reserve(shape(cores=2, nnodes=2), 22.0, 5.0)
    assert reservation is not None
    assert reservation.start == 51.0
    scheduler.free([before, beside, after])
    assert not scheduler.allocated()


def test_a_restart_finds_what_ran(racks: GraphScheduler, shape: Callable[..., Shape]) -> None:
    ran = Placement([Part(0, 1, 3, 0), Part(1, 1, 1, 0)], ["node0", "node1"])
    gone = Placement([Part(7, 1, 1, 0)], ["node7"])
    twice = Placement([Part(1, 1, 1, 0)], ["node1"])
    assert racks.hello([ran, gone, twice]) == [gone, twice]
    assert racks.allocated().ncores == 3
    assert len(racks.alloc(shape(), 9, 0.0)) == 5
    racks.free([ran])
    with pytest.raises(ValueError, match="is not allocated"):
        racks.free([ran])


def test_what_a_slot_does_not_divide_it_has_whole(racks: GraphScheduler) -> None:
    def of(*inside: dict[str, Any], kind: str = "slot", label: str = "t") -> dict[str, Any]:
        return {"type": kind, "count": 1, "label": label, "with": list(inside)}

    (node,) = racks.alloc(asking(of({"type": "node", "count": 1})), 1, 0.0)
    assert (node.ncores, node.nslots) == (2, 1)
    (rack,) = racks.alloc(asking(of({"type": "rack", "count": 1})), 1, 0.0)
    assert (rack.ncores, rack.nslots) == (4, 1)
    assert rack.extras == {"rack": 1, "bb": 100}
    racks.free([node])
    nodes = asking(of({"type": "node", "count": {"min": 1, "max": 4}}))
    (rest,) = racks.alloc(nodes, 1, 0.0)
    assert [(part.cores, part.slots) for part in rest.parts] == [(3, 1), (3, 0)]


def test_alternatives_need_the_flexible_traverser(resources: Callable[..., RSet]) -> None:
    def either(cores: int, label: str) -> dict[str, Any]:
        inside = [{"type": "core", "count": cores}]
        return {"type": "xor_slot", "count": 1, "label": label, "with": inside}

    request = asking({"type": "node", "count": 1, "with": [either(9, "s"), either(2, "t")]})
    for traverser in ("simple", "flexible"):
        scheduler = GraphScheduler(GraphSettings(traverser=traverser), site(), Tier("never"))
        scheduler.update(resources([(2, 0)] * 4))
        if traverser == "simple":
            assert "sched.traverser = flexible" in (scheduler.feasible(request) or "")
        else:
            assert scheduler.feasible(request) is None
            assert [p.ncores for p in scheduler.alloc(request, 1, 0.0)] == [2]


def test_a_picture_says_who_has_what(racks: GraphScheduler) -> None:
    (job,) = racks.alloc(near(60), 1, 0.0, 10.0)
    reservation = racks.reserve(near(100, 2), 0.0, 10.0)
    assert reservation is not None
    found = racks.picture([(job, "ƒ1")], [(reservation, "ƒ2")], None, 99)
    assert found is not None
    names = {node["id"]: node["metadata"] for node in found["graph"]["nodes"]}
    bb = [s for id, s in found["states"].items() if names[id]["type"] == "bb"]
    assert sum(state.get("jobs", {}).get("ƒ1", 0) for state in bb) == 60
    assert sum(state.get("reserved", {}).get("ƒ2", 0) for state in bb) == 100
    part = racks.picture([(job, "ƒ1")], [], "/cluster0/rack1/", 99)
    assert part is not None
    paths = [node["metadata"]["paths"]["containment"] for node in part["graph"]["nodes"]]
    assert "/cluster0/rack1" in paths
    assert "/cluster0/rack0" not in paths
    assert len(part["graph"]["edges"]) == len(part["graph"]["nodes"]) - 1
    with pytest.raises(ValueError, match=r"no vertex has the path .*begin with /cluster0"):
        racks.picture([], [], "/nowhere", 99)
    with pytest.raises(ValueError, match=r"has 25 vertices, of which at most 9 .*/cluster0/rack0"):
        racks.picture([], [], None, 9)


def test_a_picture_of_the_bitmap_door(
    resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    scheduler = GraphScheduler(None, None, Tier("never"))
    assert scheduler.picture([], [], None, 99) is None
    scheduler.update(resources([(2, 1), (2, 0)]))
    (job,) = scheduler.alloc(shape(cores=2, gpus=1), 1, 0.0)
    found = scheduler.picture([(job, "ƒ1")], [], None, 99)
    assert found is not None
    assert len(found["graph"]["nodes"]) == 8
    assert [state["jobs"] for state in found["states"].values()] == [{"ƒ1": 1}] * 3
    assert scheduler.door is None


def test_settings_by_either_name() -> None:
    ours = {"sched": {"match-policy": "low", "prune-filters": "rack:bb", "traverser": "flexible"}}
    theirs = {
        "sched-fluxion-resource": {
            "match-policy": "low",
            "prune-filters": "rack:bb",
            "traverser": "flexible",
            "match-format": "rv1",
        }
    }
    assert parse(ours) == parse(theirs)
    assert parse(ours).prune_filters.endswith(",rack:bb")
    assert not parse(ours).usual
    both = {**ours, "sched-fluxion-resource": {"match-policy": "high", "load-file": "a"}}
    assert parse(both)[0] == "low"
    assert parse(both).file == "a"
    assert parse({}).usual


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"sched": {"match-policy": "best"}}, "sched.match-policy: "),
        ({"sched": {"match-policy": 3}}, "sched.match-policy: found 3, allowed: a string"),
        ({"sched": {"prune-filters": "core"}}, "sched.prune-filters: "),
        ({"sched": {"traverser": "x"}}, "sched.traverser: found 'x', allowed: simple, flexible"),
        ({"resource": {"graph": 1}}, "resource.graph: found 1, allowed: a string"),
        (
            {"resource": {"graph-format": "jgf"}},
            "resource.graph-format: found 'jgf', allowed: noth",
        ),
        (
            {"resource": {"graph": "a", "graph-format": "x"}},
            "resource.graph-format: found 'x', allowed: grug, jgf",
        ),
        (
            {"sched-fluxion-resource": {"load-file": "a", "load-format": "x"}},
            "sched-fluxion-resource.load-format: found 'x'",
        ),
        ({"sched-fluxion-resource": {"x": 1}}, "sched-fluxion-resource.x: found an unknown key"),
        ({"sched-fluxion-resource": 1}, "sched-fluxion-resource: found 1, allowed: a table"),
    ],
)
def test_settings_that_make_no_sense(config: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(config)
    assert str(caught.value).startswith(text)


mixed = st.one_of(
    st.builds(near, st.integers(1, 5).map(lambda n: 20 * n), st.integers(1, 2)),
    st.builds(
        lambda slots, cores: Shape(0, slots, 0, cores, 0, False, slots),
        st.integers(1, 5),
        st.integers(1, 2),
    ),
    st.integers(1, 3).map(lambda n: asking({"type": "node", "count": f"{n}-4"})),
    st.integers(1, 4).map(lambda n: Shape(n, n, 1, 1, 0, True, n)),
)


@many
@given(
    work=st.lists(st.tuples(mixed, st.integers(1, 9)), max_size=6),
    first=st.tuples(mixed, st.integers(1, 9)),
    later=st.lists(st.tuples(mixed, st.integers(1, 9)), min_size=1, max_size=8),
)
def test_reservations_of_graphs_hold(
    work: list[tuple[Shape, int]], first: tuple[Shape, int], later: list[tuple[Shape, int]]
) -> None:
    """Whatever starts beside it, what has a reservation can start when that says."""
    scheduler = GraphScheduler(None, site(), Tier("never"))
    ranks = range(4)
    scheduler.update(RSet({r: IDSet(range(2)) for r in ranks}, {}, {r: f"node{r}" for r in ranks}))
    running = fill(scheduler, work)
    shape, duration = first
    found = scheduler.alloc(shape, 1, 0.0, float(duration))
    if found:
        return
    reservation = scheduler.reserve(shape, 0.0, float(duration))
    assert (reservation is None) == (scheduler.feasible(shape) is not None)
    if reservation is None:
        return
    for other, seconds in later:
        more = scheduler.alloc(other, 2, 0.0, float(seconds))
        running += [(placement, float(seconds)) for placement in more]
        check_no_overlap([placement for placement, _ in running])
    start = reservation.start
    scheduler.release([reservation])
    scheduler.free([placement for placement, end in running if end <= start])
    assert scheduler.alloc(shape, 1, start, float(duration))


def test_slots_of_parts() -> None:
    taken = [(0, 0b1111, 0), (1, 0b11, 0), (2, 0b1, 0)]

    def slots(*known: int) -> list[int]:
        return [part.slots for part in count_slots(Slots(*known), taken)]

    assert slots(1, 0, 0, 0, 7) == [4, 2, 1]
    assert slots(1, 0, 0, 0, 5) == [4, 1, 0]
    assert slots(1, 0, 0, 2, 6) == [2, 2, 2]
    assert slots(1, 0, 3, 0, 1) == [1, 0, 0]
    assert slots(1, 0, 1, 0, 0) == [1, 1, 1]
    assert slots(2, 0, 0, 0, 0) == [2, 1, 1]
    assert slots(0, 0, 0, 0, 9) == [3, 3, 3]


def test_small_instances_load_nothing_heavy() -> None:
    """Neither the graph door, as long as nobody needs it, nor NumPy once someone does."""
    script = """
import json, sys
from flux_mpi.sched import plugins
from flux_mpi.formats.rv1 import RSet
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec
ids = IDSet(range(4))
scheduler = plugins.scheduler({}, {})
scheduler.update(RSet({r: ids for r in range(4)}, {}, {r: f"n{r}" for r in range(4)}))
spec = Jobspec.from_command(["x"], ntasks=2)
assert scheduler.alloc(spec.shape, 1, 0.0, 5.0)
assert not {"flux_mpi.sched.matcher", "flux_mpi.resource.graph"} & set(sys.modules), "bitmap"
spec.resources[0]["with"][0] = {"type": "core", "count": {"min": 1, "max": 3}}
spec = Jobspec.parse({**spec.to_dict(), "version": 2})
assert scheduler.alloc(spec.shape, 1, 0.0, 5.0)
assert "flux_mpi.sched.matcher" in sys.modules
assert not {"numpy", "numba"} & set(sys.modules), "graph"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
