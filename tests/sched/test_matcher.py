"""What a matcher answers, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from flux_mpi.formats.request import MatchJobspec, Request
from flux_mpi.resource.graph import ResourceGraph
from flux_mpi.sched.bookings import Outcome
from flux_mpi.sched.graphtier import GraphTier
from flux_mpi.sched.matcher import CENTURY, OPERATIONS, Matcher
from flux_mpi.sched.matcher import MAX_TRACKED as MOST_TRACKED
from tests.sched.oracle import Part, Recorder, check_points, plant, state


def of(type: str, *children: Request, n: int = 1, **more: Any) -> Request:
    return Request(type, n, n, children=list(children), **more)


def job(*resources: Request, duration: float = 10.0, **more: Any) -> MatchJobspec:
    return MatchJobspec(list(resources), duration, **more)


def cores(n: int, slots: int = 1) -> Request:
    return of("slot", of("core", n=n), n=slots)


def machine(nodes: int = 3, each: int = 2) -> Part:
    """Vertex 0 is the cluster; each node is followed by its cores."""
    return Part(
        "cluster",
        1,
        [Part("node", 1, [Part("core") for _ in range(each)]) for _ in range(nodes)],
    )


class Bench:
    """A matcher, asked in short."""

    def __init__(self, root: Part | ResourceGraph, **options: Any) -> None:
        self.graph = root if isinstance(root, ResourceGraph) else plant(root)
        options.setdefault("tier", GraphTier(self.graph.n_vertices, "never"))
        self.matcher = Matcher(self.graph, **options)
        self.next = 0
        self.found = Recorder(self.graph)

    def __call__(self, job: MatchJobspec, op: str = "allocate", at: int = 0) -> Outcome:
        self.found = Recorder(self.graph)
        outcome = self.matcher.match(op, job, self.next, self.found, at)
        self.next += outcome.status == "matched" and op.startswith("allocate")
        return outcome

    def takes(self, job: MatchJobspec, op: str = "allocate", at: int = 0) -> list[str]:
        """Names of what was taken exclusively, sorted."""
        outcome = self(job, op, at)
        assert outcome.status == "matched", outcome
        return sorted(self.graph.name(vertex) for vertex in self.found.taken)


# -- what makes no sense --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"traverser": "fast"}, "traverser: expected one of simple, flexible, found 'fast'"),
        ({"subsystems": ()}, "subsystems: expected 1 to 7, found 0"),
        ({"subsystems": ["containment"] * 8}, "subsystems: expected 1 to 7, found 8"),
        ({"subsystems": ["power"]}, "with a root in the graph \\(containment\\), found 'power'"),
        ({"policy": "fast"}, "match policy: expected one of"),
        ({"prune_filters": "core"}, "prune filters: expected HIGH:LOW"),
        (
            {"prune_filters": ",".join(f"ALL:t{i}" for i in range(MOST_TRACKED + 1))},
            f"prune filters: expected at most {MOST_TRACKED} types to count",
        ),
    ],
)
def test_a_matcher_refuses_what_makes_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Matcher(plant(machine()), **options)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"match: expected one of allocate, .*, found 'take'"):
        Bench(machine())(job(cores(1)), "take")


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (job(), "resources: expected at least one, found none"),
        (job(cores(1), duration=-1.0), "duration: expected at most"),
        (job(cores(1), duration=float(CENTURY + 1)), "duration: expected at most"),
    ],
)
def test_requests_that_make_no_sense_are_invalid(
    op: str, asked: MatchJobspec, message: str
) -> None:
    bench = Bench(machine())
    before = state(bench.matcher)
    outcome = bench(asked, op)
    assert outcome.status == "invalid"
    assert outcome.message.startswith(message)
    assert state(bench.matcher) == before


def test_a_job_gets_resources_once() -> None:
    bench = Bench(machine())
    bench(job(cores(1)))
    bench.next = 0
    for op in OPERATIONS[:3]:
        assert bench(job(cores(1)), op).message == "job 0 has resources already"
    assert bench(job(cores(1)), "without_allocating").status == "matched"
    assert bench(job(cores(1)), "satisfiability").status == "matched"


def test_too_many_alternatives_are_invalid() -> None:
    pair = [of("xor_slot", of("core")), of("xor_slot", of("gpu"))]
    outcome = Bench(machine(), traverser="flexible")(job(*(of(f"t{i}", *pair) for i in range(12))))
    assert outcome.status == "invalid"
    assert outcome.message.startswith("xor_slot")


def test_a_type_that_no_vertex_has_is_never_there() -> None:
    bench = Bench(machine())
    assert bench(job(of("tape"))).status == "busy"
    assert bench(job(of("tape")), "satisfiability").status == "unsatisfiable"
    assert bench(job(of("tape")), "allocate_orelse_reserve").status == "unsatisfiable"


def test_siblings_of_one_type_are_never_matched() -> None:
    bench = Bench(machine())
    twice = job(of("node", of("core", exclusive=True), of("core", exclusive=True)))
    assert bench(twice).status == "busy"
    assert bench(twice, "satisfiability").status == "unsatisfiable"


def test_a_request_may_be_deep() -> None:
    deep = of("core")
    for _ in range(60):
        deep = of("node", deep)
    assert Bench(machine())(job(deep), "satisfiability").status == "unsatisfiable"


# -- which of those that fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "first", "second"),
    [
        ("low", ["core2", "core3"], ["core5"]),
        ("high", ["core8", "core9"], ["core6"]),
        ("lonode", ["core2", "core3"], ["core5"]),
        ("hinode", ["core8", "core9"], ["core6"]),
        ("first", ["core8", "core9"], ["core6"]),
        ("lonodex", ["core2", "core3", "node1"], ["core5", "core6", "node4"]),
        ("hinodex", ["core8", "core9", "node7"], ["core5", "core6", "node4"]),
    ],
)
def test_policies_choose_by_number(policy: str, first: list[str], second: list[str]) -> None:
    bench = Bench(machine(), policy=policy)
    assert bench.takes(job(cores(2))) == first
    assert bench.takes(job(cores(1))) == second


def test_the_first_policy_goes_where_most_is_left() -> None:
    bench = Bench(machine(2, 3), policy="first")
    assert bench.takes(job(cores(1))) == ["core8"]
    assert bench.takes(job(cores(1))) == ["core4"]
    assert bench.takes(job(cores(1)))[0] in ("core7", "core3")


def test_variation_goes_by_a_property_that_may_change() -> None:
    root = machine(3, 1)
    bench = Bench(root, policy="variation")
    for node, score in ((1, "7"), (3, "2"), (5, "4")):
        bench.graph.set_property(node, "perf_class", score)
    one = job(of("node", cores(1)))
    assert bench.takes(one, "without_allocating") == ["core4"]
    bench.graph.set_property(5, "perf_class", "1")
    assert bench.takes(one, "without_allocating") == ["core6"]


def test_locality_keeps_neighbours_together() -> None:
    root = machine(5, 1)
    bench = Bench(root, policy="locality")
    bench.graph.ids[1:2], bench.graph.ids[3:4] = bench.graph.ids[3:4], bench.graph.ids[1:2]
    three = job(of("node", cores(1), n=2))
    bench(three)
    assert len({bench.graph.ids[v] for v in bench.found.shared}) == 3


def test_racks_are_passed_by_where_nothing_is_asked_of_them() -> None:
    racks = [Part("rack", 1, machine(2, 1).parts) for _ in range(2)]
    bench = Bench(Part("cluster", 1, racks), policy="low")
    assert bench.takes(job(of("node", cores(1), n=3))) == ["core3", "core5", "core8"]
    names = {bench.graph.name(vertex) for vertex in bench.found.shared}
    assert names == {"cluster0", "rack1", "node2", "node4", "rack6", "node7"}


# -- what is taken --------------------------------------------------------------------------------


def test_what_is_not_taken_exclusively_is_only_told() -> None:
    bench = Bench(machine(1, 2))
    assert bench(job(of("node", cores(1)))).status == "matched"
    assert {bench.graph.name(v) for v in bench.found.shared} == {"cluster0", "node1"}
    assert bench.found.rows[-1] == (0, 10)
    assert bench(job(of("node", cores(1)))).status == "matched"
    assert bench(job(of("node", cores(1)))).status == "busy"


def test_an_exclusive_node_comes_with_all_that_is_in_it() -> None:
    bench = Bench(machine(2, 3), policy="low")
    assert bench.takes(job(of("node", of("core"), exclusive=True))) == [
        "core2",
        "core3",
        "core4",
        "node1",
    ]
    assert bench.takes(job(cores(1))) == ["core6"]
    assert bench(job(of("node", of("core"), exclusive=True))).status == "busy"
    bench.matcher.cancel(1)
    assert bench(job(of("node", of("core"), exclusive=True))).status == "matched"


def test_who_is_in_a_slot_cannot_be_shared() -> None:
    bench = Bench(machine())
    shared = job(of("slot", of("core", exclusive=False)))
    assert bench(shared).status == "busy"
    assert bench(shared, "satisfiability").status == "unsatisfiable"


def test_pools_are_taken_whole() -> None:
    node = Part("node", 1, [Part("memory", 4), Part("memory", 4), Part("core")])
    bench = Bench(Part("cluster", 1, [node]), policy="low")
    assert bench.takes(job(of("slot", of("memory", n=5)))) == ["memory2", "memory3"]
    bench.matcher.cancel(0)
    assert bench.takes(job(of("slot", of("memory", n=1)))) == ["memory2"]
    assert bench.found.taken == {2: 4}
    assert bench(job(of("slot", of("memory", n=5)))).status == "busy"
    assert bench.takes(job(of("slot", of("memory", n=3)))) == ["memory3"]


def test_labels_are_told_with_what_they_are_for() -> None:
    bench = Bench(machine(), policy="low")
    bench(job(of("node", of("slot", of("core", label="fast")), label="mine")))
    told = {row[1]: row[5] for row in bench.found.rows if len(row) == 6}
    assert told == {2: {"label": "fast"}, 1: {"label": "mine"}, 0: None}
    bench(job(of("node", cores(1))))
    assert not any(row[5] for row in bench.found.rows if len(row) == 6)


def test_a_queue_is_told() -> None:
    bench = Bench(machine())
    bench(job(cores(1), queue="debug"))
    assert bench.found.words == {"queue": "debug"}


def test_no_one_has_a_part_of_two_nodes_that_another_has() -> None:
    """A disk hangs on two nodes, whose cores do not differ otherwise."""
    graph = plant(machine(2, 1))
    disk, other = (graph.add_vertex("ssd", "ssd", i) for i in range(2))
    spare = graph.add_vertex("node", "node", 9)
    for source, target in ((1, disk), (3, disk), (0, spare), (spare, other)):
        graph.add_edge(source, target)
    graph.freeze()
    for policy in ("low", "high", "first"):
        bench = Bench(graph, policy=policy)
        both = job(of("slot", of("ssd"), of("core")))
        assert bench(both).status == "matched"
        assert disk in bench.found.taken
        assert bench(both).status == "busy"
        assert bench(both, "allocate_orelse_reserve").at == 10
        bench.matcher.cancel(0)
        assert bench(both).status == "matched"


# -- constraints ----------------------------------------------------------------------------------


def test_constraints_are_of_nodes() -> None:
    bench = Bench(machine(), policy="low")
    bench.graph.set_property(4, "big", "")
    for constraint, taken in (
        ({"properties": ["big"]}, "core5"),
        ({"properties": ["^big"]}, "core2"),
        ({"hostlist": ["node[7-8]"]}, "core8"),
        ({"ranks": ["1-2"]}, "core5"),
        ({"not": [{"ranks": ["0-1"]}]}, "core8"),
        ({}, "core2"),
    ):
        found = bench.takes(job(cores(1), constraint=constraint), "without_allocating")
        assert found == [taken]
    nowhere = job(cores(1), constraint={"properties": ["huge"]})
    assert bench(nowhere).status == "busy"
    assert bench(nowhere, "satisfiability").status == "unsatisfiable"


def test_a_property_that_is_set_counts_at_once() -> None:
    bench = Bench(machine(), policy="low")
    big = job(cores(1), constraint={"properties": ["big"]})
    assert bench(big).status == "busy"
    bench.graph.set_property(4, "big", "")
    assert bench.takes(big) == ["core5"]


# -- time -----------------------------------------------------------------------------------------


def test_a_job_ends_when_it_said() -> None:
    bench = Bench(machine(1, 1))
    bench(job(cores(1), duration=2.5))
    assert bench.found.span == (0, 3)
    bench.matcher.cancel(0)
    bench(job(cores(1), duration=0.0))
    assert bench.found.span == (0, CENTURY)


def test_a_reservation_is_where_the_job_first_fits() -> None:
    bench = Bench(machine(1, 2))
    bench(job(cores(1), duration=10))
    bench(job(cores(1), duration=20))
    assert bench(job(cores(1), duration=5), "allocate_orelse_reserve").at == 10
    assert bench(job(cores(2), duration=5), "allocate_orelse_reserve").at == 20
    assert bench(job(cores(1), duration=5), "allocate_orelse_reserve").at == 15
    assert bench(job(cores(1), duration=6), "allocate_orelse_reserve").at == 25
    assert bench(job(cores(1)), "without_allocating_future").at == 25
    assert bench(job(cores(3), duration=5), "allocate_orelse_reserve").status == "unsatisfiable"


def test_a_short_job_goes_before_a_reservation_and_a_long_one_does_not() -> None:
    bench = Bench(machine(1, 2))
    bench(job(cores(1), duration=10))
    bench(job(cores(2), duration=5), "allocate_orelse_reserve")
    assert bench(job(cores(1), duration=11)).status == "busy"
    assert bench(job(cores(1), duration=10)).status == "matched"


def test_what_a_job_holds_past_its_end_is_not_given_away_now() -> None:
    bench = Bench(machine(1, 1))
    bench(job(cores(1), duration=10))
    assert bench(job(cores(1)), at=10).status == "busy"
    assert bench(job(cores(1)), "without_allocating", at=10).status == "busy"
    bench.matcher.cancel(0)
    assert bench(job(cores(1)), at=10).status == "matched"


@pytest.mark.parametrize("policy", ["low", "first"])
def test_nothing_starts_when_the_graph_has_ended(policy: str) -> None:
    bench = Bench(machine(1, 1), policy=policy, expiration=100)
    empty = state(bench.matcher)
    assert bench(job(cores(1), duration=101)).status == "invalid"
    bench(job(cores(1), duration=60))
    assert bench(job(cores(1), duration=60), "allocate_orelse_reserve").at == 60
    assert bench.found.span == (60, 100)
    full = state(bench.matcher)
    for op in ("allocate", "allocate_orelse_reserve", "without_allocating_future"):
        assert bench(job(cores(1), duration=1), op).status == "busy"
        assert bench(job(cores(1), duration=1), op, at=100).status == "busy"
        assert bench(job(cores(1), duration=1), op, at=500).status == "busy"
    assert bench(job(cores(1), duration=1), "satisfiability", at=500).status == "matched"
    assert state(bench.matcher) == full
    for job_id in (1, 0):
        bench.matcher.cancel(job_id)
    assert state(bench.matcher) == empty
    assert check_points(bench.matcher) == 0


@pytest.mark.parametrize("policy", ["low", "first"])
def test_a_job_without_a_limit_ends_with_the_graph(policy: str) -> None:
    bench = Bench(machine(1, 1), policy=policy)
    assert bench(job(cores(1), duration=0.0), at=7).status == "matched"
    assert bench.found.span == (7, CENTURY)
    assert [bench.matcher.used(0, 0, at) for at in (6, 7, CENTURY - 1, CENTURY)] == [0, 1, 1, 0]
    assert bench(job(cores(1)), "allocate_orelse_reserve", at=8).status == "busy"
    bench.matcher.cancel(0)
    assert check_points(bench.matcher) == 0


# -- asking ---------------------------------------------------------------------------------------


def test_who_has_what_can_be_asked() -> None:
    bench = Bench(machine(1, 2), policy="low")
    bench(job(cores(1), duration=10))
    bench(job(cores(2), duration=10), "allocate_orelse_reserve")
    matcher = bench.matcher
    assert (matcher.allocations(2), matcher.reservations(2)) == ([0], [1])
    assert (matcher.allocations(3), matcher.reservations(3)) == ([], [1])
    assert matcher.allocations(1) == []
    assert sorted(matcher.tags(1)) == sorted(matcher.spans(0)) == [0, 1]
    assert matcher.spans(2) == []
    assert matcher.tracked(0) == [("core", 2)]
    assert matcher.tracked(2) == []
    assert [matcher.used(0, 0, at) for at in (0, 9, 10, 19, 20)] == [1, 1, 2, 2, 0]
    assert [matcher.planned(1, job_id) for job_id in (0, 1, 2)] == [[1], [2], []]


def test_visits_are_counted() -> None:
    bench = Bench(machine(), policy="low")
    bench(job(cores(1)))
    assert (bench.matcher.preorder, bench.matcher.postorder) == (10, 10)
    bench(job(cores(1), constraint={"ranks": ["0"]}))
    assert bench.matcher.postorder < bench.matcher.preorder < 10
    bench(job())
    assert (bench.matcher.preorder, bench.matcher.postorder) == (0, 0)
    bench.matcher.cancel(0)
    assert bench.matcher.preorder >= bench.matcher.postorder > 0


# -- larger than what was set aside ---------------------------------------------------------------


def test_memory_grows_with_what_is_asked_for() -> None:
    root = machine(60, 20)
    bench = Bench(root, policy="low")
    everything = job(of("node", cores(20), n=60))
    later = job(of("node", cores(1, 20), n=60))
    empty = state(bench.matcher)
    assert len(bench.takes(everything)) == 1200
    for i in range(3):
        assert bench(later, "allocate_orelse_reserve").at == 10 * (i + 1)
    assert len(bench.found.taken) == 1200
    for i in range(4):
        bench.matcher.cancel(i)
    assert state(bench.matcher) == empty
    assert check_points(bench.matcher) == 0


@pytest.mark.parametrize("policy", ["low", "high", "lonode", "hinodex", "first", "locality"])
def test_a_large_graph_is_matched_like_the_small_one_it_begins_with(policy: str) -> None:
    """More than 4096 vertices, of which all but three nodes are busy."""
    small, large = Bench(machine(3, 4), policy=policy), Bench(machine(900, 4), policy=policy)
    for node in range(3, 900):
        large.graph.set_status(1 + 5 * node, 1)
    todo = [
        job(cores(2)),
        job(of("node", cores(1), n=2)),
        job(of("node", of("core"), exclusive=True)),
        job(cores(1, 4)),
        job(cores(1)),
    ]
    for asked in todo:
        for op in ("allocate", "allocate_orelse_reserve"):
            assert small(asked, op) == large(asked, op)
            assert small.found.taken == large.found.taken
            assert small.found.shared == large.found.shared
