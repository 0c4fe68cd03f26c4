"""The bitmap scheduler: what it allocates, takes back, refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.placement import Part, Placement
from flux_mpi.sched.tiered import Tier

Resources = Callable[..., RSet]
Request = Callable[..., Shape]


@pytest.fixture
def four(resources: Resources) -> BitmapScheduler:
    """Four nodes of two cores, as in the samples of what Flux prints."""
    scheduler = BitmapScheduler(Tier("never"))
    scheduler.update(resources([(2, 0)] * 4))
    return scheduler


def test_without_resources_nothing_is_allocated_and_nothing_refused(shape: Request) -> None:
    scheduler = BitmapScheduler()
    assert scheduler.feasible(shape(100)) is None
    assert scheduler.alloc(shape(), 1, 0.0) == []


def test_single_core_jobs_fill_one_node_after_the_other(
    four: BitmapScheduler, shape: Request
) -> None:
    placements = four.alloc(shape(), 20, 0.0)
    assert [p.summary for p in placements] == [
        f"rank{rank}/core{core}" for rank in range(4) for core in range(2)
    ]


def test_equal_placements_are_one_object(four: BitmapScheduler, shape: Request) -> None:
    (first,) = four.alloc(shape(), 1, 0.0)
    four.free([first])
    assert four.alloc(shape(), 1, 0.0)[0] is first


def test_a_placement_says_what_flux_prints(four: BitmapScheduler, shape: Request) -> None:
    (placement,) = four.alloc(shape(slots=5), 1, 0.0)
    assert placement.summary == "rank[0-1]/core[0-1] rank2/core0"
    assert placement.ranks == "0-2"
    assert placement.nodelist == "node[0-2]"
    assert (placement.nnodes, placement.ncores, placement.ngpus, placement.nslots) == (3, 5, 0, 5)
    assert placement.id_texts == (("0-1", ""), ("0-1", ""), ("0", ""))
    assert placement.rset.to_dict(1.0, 2.0) == {
        "version": 1,
        "execution": {
            "R_lite": [
                {"rank": "0-1", "children": {"core": "0-1"}},
                {"rank": "2", "children": {"core": "0"}},
            ],
            "starttime": 1.0,
            "expiration": 2.0,
            "nslots": 5,
            "nodelist": ["node[0-2]"],
        },
    }


def test_exclusive_takes_whole_empty_nodes(four: BitmapScheduler, shape: Request) -> None:
    (held,) = four.alloc(shape(), 1, 0.0)
    placements = four.alloc(shape(nnodes=1, exclusive=True), 5, 0.0)
    assert [p.summary for p in placements] == [f"rank{r}/core[0-1]" for r in (1, 2, 3)]
    four.free([held])
    assert len(four.alloc(shape(nnodes=1, exclusive=True), 5, 0.0)) == 1


def test_exclusive_slots_without_nodes_get_a_node_each(four: BitmapScheduler) -> None:
    (placement,) = four.alloc(Shape(0, 3, 0, 1, 0, True, 3), 1, 0.0)
    assert placement.nnodes == 3
    assert placement.ncores == 6


def test_ranks_that_may_not_be_used_get_nothing_new_and_keep_what_they_have(
    four: BitmapScheduler, shape: Request
) -> None:
    (held,) = four.alloc(shape(), 1, 0.0)
    four.set_up(IDSet([2]))
    assert [p.ranks for p in four.alloc(shape(), 9, 0.0)] == ["2", "2"]
    assert four.allocated().summary() == "rank0/core0 rank2/core[0-1]"
    four.free([held])
    assert four.allocated().summary() == "rank2/core[0-1]"


def test_feasibility_counts_what_is_down(four: BitmapScheduler, shape: Request) -> None:
    four.set_up(IDSet())
    assert four.feasible(shape(slots=8)) is None


@pytest.mark.parametrize(
    ("request_of", "reason"),
    [
        (
            {"slots": 100},
            "need 100 slot(s) of 1 core(s), only 8 such slot(s) available (total cores: 8)",
        ),
        ({"nnodes": 100, "exclusive": True}, "need 100 exclusive node(s), only 4 eligible"),
        ({"nnodes": 5}, "need 5 node(s) with 1 cores each, only 4 eligible"),
        (
            {"nnodes": 1, "gpus": 2},
            "need 1 node(s) with 1 cores and 2 GPUs each, only 0 eligible",
        ),
        ({"gpus": 1}, "need 1 slot(s) with 1 GPU(s) each, only 0 available (total GPUs: 0)"),
        (
            {"cores": 3},
            "need 1 slot(s) of 3 core(s), only 0 such slot(s) available (total cores: 8)",
        ),
        (
            {"constraint": '{"properties":["nosuchprop"]}'},
            "need 1 slot(s) of 1 core(s), only 0 such slot(s) available (total cores: 0)",
        ),
    ],
)
def test_what_can_never_run_is_refused_in_flux_words(
    four: BitmapScheduler, shape: Request, request_of: dict[str, object], reason: str
) -> None:
    request = shape(**request_of)
    assert four.feasible(request) == f"unsatisfiable request: {reason}"
    assert four.alloc(request, 1, 0.0) == []


@pytest.mark.parametrize(
    ("constraint", "ranks"),
    [
        ('{"properties":["fast"]}', "1-2"),
        ('{"properties":["^fast"]}', "0,3"),
        ('{"hostlist":["node[0,2]"]}', "0,2"),
        ('{"ranks":["3"]}', "3"),
        ('{"not":[{"ranks":["0"]}]}', "1-3"),
        ('{"and":[{"properties":["fast"]},{"not":[{"ranks":["1"]}]}]}', "2"),
        ('{"or":[{"ranks":["0"]},{"hostlist":["node3"]}]}', "0,3"),
    ],
)
def test_constraints_choose_nodes(
    resources: Resources, shape: Request, constraint: str, ranks: str
) -> None:
    scheduler = BitmapScheduler()
    scheduler.update(resources([(1, 0)] * 4, {"fast": "1-2"}))
    placements = scheduler.alloc(shape(constraint=constraint), 9, 0.0)
    assert str(IDSet(part.rank for p in placements for part in p.parts)) == ranks
    scheduler.set_up(IDSet())
    assert scheduler.alloc(shape(constraint=constraint), 9, 0.0) == []


def test_hosts_that_do_not_exist_are_named(four: BitmapScheduler, shape: Request) -> None:
    request = shape(constraint='{"not":[{"hostlist":["node[0-1],nohost"]}]}')
    assert four.invalid(request) == (
        "host constraint contains invalid hosts: host 'nohost' not found"
    )
    assert four.invalid(shape(constraint='{"hostlist":["node[0-3]"]}')) is None
    assert BitmapScheduler().invalid(request) is None


def test_freeing_twice_is_an_error(four: BitmapScheduler, shape: Request) -> None:
    (held,) = four.alloc(shape(), 1, 0.0)
    four.free([held])
    with pytest.raises(ValueError, match="not allocated"):
        four.free([held])


def test_explain_names_what_is_asked_and_what_is_found(
    four: BitmapScheduler, shape: Request
) -> None:
    four.alloc(shape(slots=7), 1, 0.0)
    text = four.explain(shape(slots=2))
    assert "2 slots of 1 core" in text
    assert "1 cores free on 4 usable nodes, 0 of them empty" in text


def test_new_resources_keep_what_is_allocated(
    four: BitmapScheduler, resources: Resources, shape: Request
) -> None:
    held = four.alloc(shape(), 3, 0.0)
    four.update(resources([(70, 1)] * 2 + [(2, 0)] * 4))
    assert four.allocated().summary() == "rank0/core[0-1] rank1/core0"
    four.free(held)
    assert not four.allocated()


def test_hello_marks_what_ran_and_refuses_what_does_not_fit(four: BitmapScheduler) -> None:
    running = Placement([Part(1, 1, 0b10, 0)], ["node1"])
    again = Placement([Part(1, 1, 0b10, 0)], ["node1"])
    foreign = Placement([Part(9, 1, 0b1, 0)], ["node9"])
    assert four.hello([running, again, foreign]) == [again, foreign]
    assert four.allocated().summary() == "rank1/core1"
    four.free([running])
    assert not four.allocated()


def test_many_nodes_for_one_job_need_more_output_than_a_batch(
    resources: Resources, shape: Request
) -> None:
    scheduler = BitmapScheduler(Tier("never"))
    scheduler.update(resources([(1, 0)] * 5000))
    (placement,) = scheduler.alloc(shape(nnodes=5000), 2, 0.0)
    assert placement.ranks == "0-4999"
    scheduler.free([placement])
    assert len(scheduler.alloc(shape(), 6000, 0.0)) == 5000


Machine = st.lists(st.tuples(st.integers(1, 70), st.integers(0, 3)), min_size=1, max_size=5)
Requests = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(1, 5), st.integers(1, 20), st.integers(0, 1), st.booleans()
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(Machine, Requests, st.randoms(use_true_random=False))
def test_allocations_never_overlap_and_freeing_in_any_order_restores_everything(
    nodes: list[tuple[int, int]],
    requests: list[tuple[int, int, int, int, bool]],
    random: object,
) -> None:
    resources = RSet(
        {rank: IDSet(range(cores)) for rank, (cores, _) in enumerate(nodes)},
        {rank: IDSet(range(gpus)) for rank, (_, gpus) in enumerate(nodes)},
        dict.fromkeys(range(len(nodes)), "h"),
    )
    scheduler = BitmapScheduler(Tier("never"))
    scheduler.update(resources)
    before = [list(words) for words in scheduler._faces[:6]]
    held: list[Placement] = []
    for nnodes, slots, cores, gpus, exclusive in requests:
        total = slots * nnodes if nnodes else slots
        request = Shape(
            nnodes, total, slots if nnodes else 0, cores, gpus, exclusive and nnodes > 0, total
        )
        found = scheduler.alloc(request, 3, 0.0)
        # Feasible on an idle machine is exactly what the idle machine places.
        idle = BitmapScheduler(Tier("never"))
        idle.update(resources)
        assert bool(idle.alloc(request, 1, 0.0)) == (scheduler.feasible(request) is None)
        held += found
    used: set[tuple[int, str, int]] = set()
    for placement in held:
        for part in placement.parts:
            for kind, mask in (("core", part.cores), ("gpu", part.gpus)):
                for j in IDSet.from_mask(mask):
                    assert (part.rank, kind, j) not in used
                    used.add((part.rank, kind, j))
    assert scheduler.allocated().ncores == sum(1 for _, kind, _ in used if kind == "core")
    random.shuffle(held)  # type: ignore[attr-defined]
    scheduler.free(held)
    assert [list(words) for words in scheduler._faces[:6]] == before


def test_which_part_of_a_constraint_rules_nodes_out(resources: Resources) -> None:
    scheduler = BitmapScheduler(Tier("never"))
    scheduler.update(resources([(2, 0)] * 4, {"big": "2-3", "new": "0-2"}), IDSet([0, 1, 2]))
    constraint = '{"and":[{"properties":["big","new"]},{"not":[{"ranks":["0"]}]}]}'
    request = Shape(0, 1, 0, 1, 0, False, 1, constraint)
    assert scheduler.explain(request).splitlines()[1:] == [
        f"the constraint {constraint} rules out 3 of 4 nodes "
        '({"properties":["big"]}: 2, {"properties":["new"]}: 1, {"not":[{"ranks":["0"]}]}: 1); '
        "of the others 1 can be used now",
        "1 of 4 nodes is down, drained or excluded",
    ]


def test_a_graph_is_not_for_the_bitmap_door(four: BitmapScheduler) -> None:
    graph = '[{"count":1,"type":"rack","with":[{"count":2,"label":"task","type":"slot"}]}]'
    request = Shape(0, 2, 0, 1, 0, False, 2, "", graph)
    assert four.feasible(request) == (
        "unsatisfiable request: rack/slot=2: the bitmap scheduler knows nodes, cores and GPUs at "
        "fixed counts only (sched.scheduler = graph knows more)"
    )
