"""A graph that changes while jobs run, and jobs that files give resources to or take them from."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from flux_mpi.formats.request import MatchJobspec, Request
from flux_mpi.resource.graph import DOWN, UP, ResourceGraph
from flux_mpi.resource.readers import load
from flux_mpi.resource.writers import create_writer, to_jgf
from flux_mpi.resource.writers.jgf import JgfWriter
from flux_mpi.sched.bookings import Growth, MatchError
from flux_mpi.sched.graphtier import GraphTier
from flux_mpi.sched.matcher import Matcher
from tests.sched.oracle import (
    Part,
    Recorder,
    check_points,
    machines,
    number,
    plant,
    state,
)
from tests.sched.test_matcher_random import (
    FILTERS,
    POLICIES,
    Play,
    Step,
    check_counts,
    judged,
    scenes,
    steps,
)

policies = st.sampled_from(POLICIES)
filters = st.sampled_from(FILTERS)


def request(*resources: Request, duration: float = 10.0) -> MatchJobspec:
    return MatchJobspec(list(resources), duration)


def slots(n: int, *inside: Request) -> Request:
    return Request("slot", n, n, children=list(inside))


def cores(n: int) -> Request:
    return Request("core", n, n)


def small(nodes: int = 2, each: int = 2) -> Play:
    """A cluster of nodes with cores."""
    node = [Part("node", 1, [Part("core") for _ in range(each)]) for _ in range(nodes)]
    return Play(Part("cluster", 1, node), "low")


def free_everywhere(matcher: Matcher) -> bool:
    """Whether nobody has anything."""
    return all(not changes and not held for held, changes, _ in state(matcher).values())


# -- growing, shrinking, going up and down ---------------------------------------------------------


def grow(draw: Any, play: Play) -> None:
    """Attach something new below some vertex."""
    spot = draw(st.sampled_from([p for p in play.root.all() if p.parts] or [play.root]))
    if spot.type in ("cluster", "rack"):
        spot.parts.append(Part("node", 1, [Part("core"), Part(draw(st.sampled_from(LEAVES)))]))
    else:
        spot.parts += [Part(kind) for kind in draw(st.lists(st.sampled_from(LEAVES), max_size=2))]
    number(play.root, play.graph.n_vertices)
    play.matcher.attach(json.dumps(to_jgf(_whole(play))))


LEAVES = ("core", "gpu", "licence")


def _whole(play: Play) -> ResourceGraph:
    """The graph as it should be: with the numbers that vertices have, whatever was removed."""
    graph = ResourceGraph()
    parts = play.world.by_vertex
    for vertex in range(max(parts) + 1):
        part = parts.get(vertex, Part("gone"))
        up = UP if part.up else DOWN
        graph.add_vertex(
            part.type,
            part.type,
            vertex,
            size=part.size,
            rank=part.rank,
            status=up,
            properties=part.properties,
        )
        if part.above is not None:
            graph.add_edge(part.above.vertex, vertex)
    graph.remove(set(range(max(parts) + 1)) - parts.keys())
    graph.set_root("containment", play.root.vertex)
    graph.freeze()
    return graph


def shrink(draw: Any, play: Play) -> None:
    """Remove a vertex and all below it, by its path or by its rank."""
    candidates = [part for part in play.root.all() if part.above is not None]
    if len(candidates) < 2:
        return
    part = draw(st.sampled_from(candidates))
    gone = {below.vertex for below in part.all()}
    if part.type == "node" and draw(st.booleans()):
        play.matcher.remove_ranks([part.rank])
    else:
        play.matcher.remove_path(play.graph.path(part.vertex) or "")
    assert part.above is not None
    part.above.parts.remove(part)
    for job_id, grant in list(play.world.grants.items()):
        if grant.taken & gone:
            grant.taken -= gone
            if not grant.taken:
                del play.world.grants[job_id]


def mark(draw: Any, play: Play) -> None:
    """Let a vertex be up or down."""
    part = draw(st.sampled_from(list(play.root.all())[1:] or [play.root]))
    part.up = draw(st.booleans())
    status = UP if part.up else DOWN
    if part.type == "node" and draw(st.booleans()):
        play.matcher.mark_ranks([part.rank], status)
    else:
        play.matcher.mark_path(play.graph.path(part.vertex) or "", status)


CHANGES = {"grow": grow, "shrink": shrink, "mark": mark}


@settings(max_examples=150, deadline=None)
@given(st.data(), policies)
def test_a_graph_that_changes_is_matched_as_it_is(data: st.DataObject, policy: str) -> None:
    play = Play(data.draw(machines()), policy)
    for _ in range(data.draw(st.integers(1, 10))):
        change = data.draw(st.sampled_from((*CHANGES, "", "", "", "")))
        if change:
            CHANGES[change](data.draw, play)
        else:
            judged(play, data.draw(steps(play.root)))
        assert set(play.matcher.bookings) == set(play.world.grants)
        play.world.check_disjoint()
        check_points(play.matcher)
    check_counts(play, range(play.now, play.now + 12))
    for job_id in list(play.world.grants):
        play.cancel(job_id)
    assert free_everywhere(play.matcher)
    assert check_points(play.matcher) == 0


@settings(max_examples=80, deadline=None)
@given(st.data(), policies, filters)
def test_aggregates_stay_exact_whatever_changes(
    data: st.DataObject, policy: str, prune: str
) -> None:
    play = Play(data.draw(machines(mixed=True)), policy, prune)
    for _ in range(data.draw(st.integers(1, 8))):
        change = data.draw(st.sampled_from((*CHANGES, "", "", "")))
        if change:
            CHANGES[change](data.draw, play)
        else:
            play.run(data.draw(steps(play.root, True)))
        check_counts(play, range(play.now, play.now + 8, 2))


def test_what_was_down_is_taken_when_it_is_up_again() -> None:
    play = small()
    one = request(slots(1, cores(2)))
    play.matcher.mark_ranks([0, 7], DOWN)
    play.matcher.mark_path("/cluster0/node4", DOWN)
    assert play.match("allocate", one).status == "busy"
    assert play.match("satisfiability", one).status == "matched"
    play.matcher.mark_path("/cluster0/node4", UP)
    assert play.match("allocate", one).status == "matched"
    assert play.last.taken.keys() == {5, 6}
    assert play.match("allocate", one).status == "busy"
    play.matcher.mark_ranks([0], UP)
    assert play.match("allocate", one).status == "matched"


def test_a_job_on_what_goes_down_keeps_it() -> None:
    play = small()
    play.match("allocate", request(slots(1, cores(2))))
    play.matcher.mark_path("/cluster0/node1", DOWN)
    assert play.matcher.allocations(2) == [1]
    play.cancel(1)
    assert free_everywhere(play.matcher)


def test_more_nodes_than_are_up_are_refused_until_they_are() -> None:
    play = Play(small().root, "low", "ALL:core,ALL:node")
    both = request(Request("node", 2, 2, children=[slots(1, cores(1))]))
    play.matcher.mark_ranks([1], DOWN)
    assert play.match("allocate", both).status == "busy"
    assert play.match("allocate_orelse_reserve", both).status == "busy"
    play.matcher.mark_ranks([1], DOWN)
    play.matcher.mark_ranks([1], UP)
    assert play.match("allocate", both).status == "matched"


def test_a_job_loses_only_what_is_removed() -> None:
    play = small()
    play.match("allocate", request(slots(4, cores(1))))
    play.match("allocate_orelse_reserve", request(slots(1, cores(2))))
    assert play.matcher.used(0, 0, 0) == 4
    play.matcher.remove_path("/cluster0/node1")
    assert set(play.matcher.bookings) == {1}, "who had all of it there has nothing left"
    assert play.matcher.tracked(0) == [("core", 2)]
    assert play.matcher.used(0, 0, 0) == 2
    assert play.matcher.allocations(5) == [1]
    assert play.matcher.tags(0) == [1]


@pytest.mark.parametrize("change", ["remove_path", "mark_path"])
def test_a_path_that_is_not_there_is_refused(change: str) -> None:
    play = small()
    before = state(play.matcher)
    for path in ("", "/", "/cluster0/node9", "node1", "/" + "x" * 10_000):
        with pytest.raises(MatchError, match=r"^path: no vertex .*in the graph$") as error:
            getattr(play.matcher, change)(path, *([DOWN] if change == "mark_path" else []))
        assert len(str(error.value)) < 300
    assert state(play.matcher) == before


def test_removing_refuses_unknown_ranks_and_the_root() -> None:
    play = small()
    before = state(play.matcher)
    with pytest.raises(MatchError, match="rank 9: no vertex in the graph has it"):
        play.matcher.remove_ranks([0, 9])
    with pytest.raises(MatchError, match="the root of the graph cannot be removed"):
        play.matcher.remove_path("/cluster0")
    with pytest.raises(MatchError, match="the root of the graph cannot be removed"):
        play.matcher.remove_ranks([0, -1])
    assert state(play.matcher) == before
    play.match("allocate", request(slots(2, cores(2))))
    assert len(play.last.taken) == 4


@pytest.mark.parametrize("text", ["", "{", "[]", '{"graph": {}}', '{"graph": {"nodes": [1]}}'])
def test_what_makes_no_graph_is_not_attached(text: str) -> None:
    play = small()
    play.match("allocate", request(slots(1, cores(2))))
    before = state(play.matcher)
    with pytest.raises(MatchError, match="jgf"):
        play.matcher.attach(text)
    assert state(play.matcher) == before
    assert play.match("allocate", request(slots(1, cores(2)))).status == "matched"


def test_a_job_that_holds_nothing_does_not_mind_growth() -> None:
    play = small()
    assert play.match("allocate", request(cores(1))).status == "matched"
    assert play.last.taken == {}
    play.root.parts[0].parts.append(Part("licence"))
    number(play.root)
    play.matcher.attach(json.dumps(to_jgf(_whole(play))))
    assert set(play.matcher.bookings) == {1}
    play.cancel(1)
    assert free_everywhere(play.matcher)


def test_a_job_that_had_all_of_a_node_does_not_have_what_comes_to_it() -> None:
    play = small(1, 2)
    play.match("allocate", request(Request("node", 1, 1, exclusive=True, children=[cores(2)])))
    play.root.parts[0].parts.append(Part("core"))
    number(play.root, play.graph.n_vertices)
    play.matcher.attach(json.dumps(to_jgf(_whole(play))))
    assert play.matcher.tracked(0) == [("core", 3)]
    assert play.matcher.used(0, 0, 0) == 2
    assert play.matcher.allocations(4) == []
    # The node itself is still taken exclusively.
    assert play.match("allocate", request(slots(1, cores(1)))).status == "busy"
    play.cancel(1)
    assert free_everywhere(play.matcher)


# -- what Fluxion remembers of a smaller graph -----------------------------------------------------


def grown(as_fluxion: bool) -> Play:
    """A full node whose job ends at 10, and a second node that comes while it runs."""
    root = Part("cluster", 1, [Part("node", 1, [Part("core"), Part("core")])])
    play = Play(root, "low", as_fluxion=as_fluxion)
    play.match("allocate", request(slots(2, cores(1)), duration=10))
    root.parts.append(Part("node", 1, [Part("core"), Part("core")]))
    number(root)
    play.matcher.attach(json.dumps(to_jgf(_whole(play))))
    return play


def test_a_start_is_hidden_from_what_was_too_large_before_the_graph_grew() -> None:
    large = request(slots(3, cores(1)), duration=5)
    outcome = grown(False).match("allocate_orelse_reserve", large)
    assert (outcome.status, outcome.at) == ("matched", 10)
    assert grown(True).match("allocate_orelse_reserve", large).status == "busy"


def test_what_was_small_enough_before_is_found() -> None:
    play = grown(True)
    play.match("allocate", request(slots(2, cores(1)), duration=4))
    outcome = play.match("allocate_orelse_reserve", request(slots(2, cores(1)), duration=7))
    assert (outcome.status, outcome.at) == ("matched", 4)
    outcome = play.match("allocate_orelse_reserve", request(slots(2, cores(1)), duration=7))
    assert (outcome.status, outcome.at) == ("matched", 10)


def test_a_job_across_a_hidden_start_makes_it_known() -> None:
    play = grown(True)
    play.match("allocate", request(slots(1, cores(1)), duration=20))
    outcome = play.match("allocate_orelse_reserve", request(slots(3, cores(1)), duration=5))
    assert (outcome.status, outcome.at) == ("matched", 10)


def test_growth_remembers_the_first_that_was_left() -> None:
    growth = Growth()
    assert not growth.hides(10, 5)
    growth.changed({10: 3, 20: 7})
    growth.changed({10: 9, 30: 1})
    assert [growth.hides(at, 5) for at in (10, 20, 30, 40)] == [True, False, True, False]
    growth.spanned(10, 30)
    assert [growth.hides(at, 5) for at in (10, 20, 30)] == [False, False, True]
    growth.spanned(30, 30)
    assert growth.hides(30, 5)


# -- resources named by a file --------------------------------------------------------------------


def _texts(play: Play, todo: list[Step], format: str) -> list[tuple[int, str]]:
    """What each job of some steps was told to have, in a format."""
    told = []
    for step in todo:
        play.last = Recorder(play.graph)
        writer = create_writer(format, play.graph)
        job_id = len(told) + 1
        outcome = play.matcher.match(step.op, step.job, job_id, writer, play.now)
        if outcome.status == "matched":
            told.append((job_id, writer.emit()))
    return told


@settings(max_examples=100, deadline=None)
@given(
    scenes(5, mixed=True, wide=True, ops=("allocate", "allocate_orelse_reserve")),
    policies,
    st.sampled_from(("jgf", "jgf_shorthand")),
    st.booleans(),
)
def test_what_a_writer_tells_an_update_takes(
    scene: tuple[Part, list[Step]], policy: str, format: str, in_order: bool
) -> None:
    root, todo = scene
    play = Play(root, policy)
    told = _texts(play, todo, format)
    event(f"{len(told)} jobs")
    again = Matcher(plant(root), policy="low", tier=GraphTier(0, "never"))
    for job_id, text in told if in_order else reversed(told):
        booking = play.matcher.bookings[job_id]
        if text:
            outcome = again.update(
                job_id,
                text,
                format,
                booking.start,
                booking.end - booking.start,
                Recorder(again.graph),
                reserve=not booking.allocated,
            )
            assert outcome.status == "matched", outcome.message
    if format == "jgf":
        assert state(again) == state(play.matcher)
    else:
        # Shorthand gives all that is below a vertex taken exclusively, be it asked for or not.
        for vertex in range(again.graph.n_vertices):
            assert set(play.matcher.allocations(vertex)) <= set(again.allocations(vertex))
            assert set(play.matcher.reservations(vertex)) <= set(again.reservations(vertex))
    # What is taken cannot be given again, and a refusal changes nothing.
    before = state(again)
    for job_id, text in told:
        booking = play.matcher.bookings[job_id]
        if text and any('"exclusive": true' in part for part in text.split("metadata")):
            other = again.update(99, text, format, booking.start, 1, None)
            assert other.status == "invalid"
    assert state(again) == before
    for job_id in list(again.bookings):
        again.cancel(job_id)
    assert free_everywhere(again)
    assert check_points(again) == 0


R = {
    "version": 1,
    "execution": {
        "R_lite": [{"rank": "0-2", "children": {"core": "0-3", "gpu": "0"}}],
        "nodelist": ["host[0-2]"],
        "starttime": 0,
        "expiration": 0,
    },
}


@pytest.mark.parametrize("policy", ["first", "low", "hinodex"])
def test_r_written_for_a_job_gives_it_the_same_again(policy: str) -> None:
    first, second = (Matcher(load(json.dumps(R), "rv1exec"), policy=policy) for _ in range(2))
    todo = [
        request(slots(3, cores(1)), duration=7),
        request(Request("node", 1, 1, children=[slots(1, cores(2), Request("gpu"))]), duration=3),
        request(Request("node", 1, 1, exclusive=True, children=[cores(1)]), duration=5),
    ]
    matched = 0
    for job_id, job in enumerate(todo):
        writer = create_writer("rv1_nosched", first.graph)
        if first.match("allocate", job, job_id, writer, 2).status == "matched":
            text = writer.emit()
            outcome = second.update(job_id, text, "rv1exec", 2, int(job.duration), None)
            assert outcome.status == "matched", outcome.message
            matched += 1
    assert matched >= 2

    def held(matcher: Matcher) -> list[Any]:
        # R names what can be told by its id; whether the node is taken too it does not say.
        graph = matcher.graph
        return [
            (graph.path(u), sorted(matcher.allocations(u)))
            for kind in ("core", "gpu")
            for u in graph.of_type(kind)
        ]

    assert held(first) == held(second)


def test_an_update_that_makes_no_sense_changes_nothing() -> None:
    play = small()
    writer = create_writer("jgf", play.graph)
    play.matcher.match("allocate", request(slots(1, cores(2))), 1, writer, 0)
    text = writer.emit()
    before = state(play.matcher)
    for job_id, given_, format in (
        (1, text, "jgf"),
        (2, text, "jgf"),
        (2, text.replace("node1", "node9"), "jgf"),
        (2, text, "rv1exec"),
        (2, text[:-9], "jgf"),
        (2, "", "jgf"),
    ):
        outcome = play.matcher.update(job_id, given_, format, 0, 10, None)
        assert outcome.status == "invalid"
        assert outcome.message
        assert "\n" not in outcome.message
    assert state(play.matcher) == before
    assert set(play.matcher.bookings) == {1}


@settings(max_examples=100, deadline=None)
@given(
    scenes(6, mixed=True, wide=True, ops=("allocate", "allocate_orelse_reserve")),
    policies,
    filters,
    st.data(),
)
def test_a_job_gives_back_rank_by_rank(
    scene: tuple[Part, list[Step]], policy: str, prune: str, data: st.DataObject
) -> None:
    root, todo = scene
    play = Play(root, policy, prune)
    for step in todo:
        play.run(step)
    parts = play.world.by_vertex
    for _ in range(3):
        held = sorted(
            {
                (job_id, parts[vertex].rank)
                for job_id, grant in play.world.grants.items()
                for vertex in grant.taken
                if parts[vertex].rank >= 0
            }
        )
        if not held:
            break
        job_id, rank = data.draw(st.sampled_from(held))
        grant = play.world.grants[job_id]
        there = sorted(v for v in grant.taken if parts[v].rank == rank)
        writer = JgfWriter(play.graph)
        for vertex in data.draw(st.lists(st.sampled_from(there), min_size=1, unique=True)):
            writer.vertex(1, vertex, parts[vertex].size, True, False)
        done = play.matcher.partial_cancel(job_id, writer.emit(), "jgf")
        # With one vertex of a rank all of it goes.
        grant.taken -= set(there)
        assert done == (not grant.taken)
        if done:
            del play.world.grants[job_id]
        assert set(play.matcher.bookings) == set(play.world.grants)
        check_points(play.matcher)
        check_counts(play, range(0, 14, 2))
        for vertex in there:
            assert job_id not in play.matcher.allocations(vertex)
    for step in todo:
        judged(play, step._replace(op="allocate"))
        play.world.check_disjoint()
    for job_id in list(play.world.grants):
        play.cancel(job_id)
    assert free_everywhere(play.matcher)
    assert check_points(play.matcher) == 0


def test_a_release_that_makes_no_sense_changes_nothing() -> None:
    play = small()
    play.match("allocate", request(slots(1, cores(2))))
    before = state(play.matcher)

    def naming(vertex: int) -> str:
        writer = JgfWriter(play.graph)
        writer.vertex(1, vertex, 1, True, False)
        return writer.emit()

    for job_id, text, message in (
        (7, naming(2), "job 7 has no resources"),
        (1, naming(5), "job 1 does not hold core5"),
        (1, naming(1), "job 1 does not hold node1"),
        (1, "{", "jgf"),
    ):
        with pytest.raises(MatchError, match=message):
            play.matcher.partial_cancel(job_id, text, "jgf")
    with pytest.raises(MatchError, match=r"partial-cancel format: expected one of .*'grug'"):
        play.matcher.partial_cancel(1, naming(2), "grug")
    assert state(play.matcher) == before
    assert play.matcher.partial_cancel(1, naming(2), "jgf")
    assert free_everywhere(play.matcher)
    with pytest.raises(KeyError):
        play.matcher.cancel(1)
