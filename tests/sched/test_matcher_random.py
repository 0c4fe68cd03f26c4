"""The matcher against the oracle, on small machines and requests at random."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from flux_mpi.formats.request import MatchJobspec
from flux_mpi.sched import reach
from flux_mpi.sched.bookings import Outcome
from flux_mpi.sched.graphtier import GraphTier
from flux_mpi.sched.matcher import CENTURY, Matcher
from tests.sched.oracle import (
    FAR,
    Grant,
    Part,
    Recorder,
    View,
    World,
    check_points,
    complete,
    jobs,
    machines,
    plant,
    state,
)

POLICIES = (
    "first",
    "firstnode",
    "firstnodex",
    "high",
    "low",
    "lonode",
    "hinode",
    "lonodex",
    "hinodex",
    "locality",
    "variation",
    "policy=low stop_on_1_matches=true",
)
FILTERS = ("ALL:core", "ALL:core,cluster:node", "rack:gpu,node:core,ALL:memory", "ALL:node")

policies = st.sampled_from(POLICIES)
filters = st.sampled_from(FILTERS)
ends = st.sampled_from((CENTURY, 8))


def whole_types(policy: str) -> frozenset[str]:
    return frozenset({"node"}) if policy.endswith("nodex") else frozenset()


class Step(NamedTuple):
    """One thing to do: match (``op``) a job, or cancel one (``op`` is ""); time goes on first."""

    op: str
    job: MatchJobspec
    which: int
    later: int


OPS = (
    "allocate",
    "allocate_orelse_reserve",
    "allocate_with_satisfiability",
    "allocate_orelse_reserve",
    "allocate",
    "satisfiability",
    "without_allocating",
    "without_allocating_future",
    "",
    "",
)


def steps(root: Part, wide: bool = False, ops: tuple[str, ...] = OPS) -> st.SearchStrategy[Step]:
    """Something to do with a machine."""
    return st.builds(
        Step,
        st.sampled_from(ops),
        jobs(root, wide),
        st.integers(0, 5),
        st.sampled_from((0, 0, 0, 1, 3)),
    )


@st.composite
def scenes(
    draw: Any, most: int, *, mixed: bool = False, wide: bool = False, ops: tuple[str, ...] = OPS
) -> tuple[Part, list[Step]]:
    """A machine, and what to do with it."""
    root = draw(machines(mixed=mixed))
    return root, draw(st.lists(steps(root, wide, ops), min_size=1, max_size=most))


@pytest.fixture(scope="module", params=["small", "large"], autouse=True)
def size(request: pytest.FixtureRequest) -> Iterator[str]:
    """Large graphs are prepared and searched in other ways: let these small ones be large too."""
    with patch.object(reach, "MANY", 0 if request.param == "large" else reach.MANY):
        yield request.param


class Play:
    """A matcher and the oracle's world side by side."""

    def __init__(
        self,
        root: Part,
        policy: str = "first",
        prune_filters: str = "ALL:core",
        tier: str = "never",
        **options: Any,
    ) -> None:
        self.root = root
        self.graph = plant(root)
        self.policy = policy
        self.world = World(root)
        self.matcher = Matcher(
            self.graph,
            policy=policy,
            prune_filters=prune_filters,
            tier=GraphTier(self.graph.n_vertices, tier),
            **options,
        )
        self.counted = {kind for kind, _ in self.matcher.tracked(root.vertex)} | {"licence"}
        self.now = 0
        self.last = Recorder(self.graph)
        self._next = 1

    def run(self, step: Step) -> Outcome | None:
        self.now += step.later
        if step.op:
            return self.match(step.op, step.job)
        if self.world.grants:
            ids = sorted(self.world.grants)
            self.cancel(ids[step.which % len(ids)])
        return None

    def match(self, op: str, job: MatchJobspec) -> Outcome:
        """Match without a look at the oracle, which learns what was taken."""
        self.last = Recorder(self.graph)
        job_id = self._next
        outcome = self.matcher.match(op, job, job_id, self.last, self.now)
        if outcome.status == "matched" and op.startswith("allocate"):
            self._next += 1
            self.world.grants[job_id] = Grant(
                outcome.at,
                min(outcome.at + int(job.duration), self.matcher.expiration),
                outcome.at == self.now,
                set(self.last.taken),
            )
        return outcome

    def cancel(self, job_id: int) -> None:
        self.matcher.cancel(job_id)
        del self.world.grants[job_id]

    def view(self, outcome: Outcome, job: MatchJobspec) -> View:
        end = outcome.at + int(job.duration)
        return View(outcome.at, end, outcome.at == self.now, constraint=job.constraint)


def check_counts(play: Play, times: range) -> None:
    """Fail unless aggregates are what the oracle counts."""
    for part in play.root.all():
        tracked = play.matcher.tracked(part.vertex)
        for i, (kind, total) in enumerate(tracked):
            assert total == play.world.total(part, kind)
            # What is counted only since nothing lies below it any more is not for older jobs.
            for at in times if kind in play.counted else ():
                assert play.matcher.used(part.vertex, i, at) == play.world.used(part, kind, at)


# -- one match ------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(scenes(5, ops=("allocate",)), policies, filters)
def test_match_now_is_valid_and_found_if_there_is_one(
    scene: tuple[Part, list[Step]], policy: str, prune: str
) -> None:
    root, [*before, (_, job, _, _)] = scene
    play = Play(root, policy, prune)
    for other in before:
        play.match("allocate", other.job)
    view = View(0, int(job.duration), constraint=job.constraint)
    exists = play.world.exists(job.resources, view)
    outcome = play.match("without_allocating", job)
    event(outcome.status)
    if outcome.status == "matched":
        assert exists
        play.world.check(job.resources, play.last, view, whole_types(policy))
    else:
        assert outcome.status == "busy"
        assert not exists or not complete(job.resources, root, False)


@settings(max_examples=120, deadline=None)
@given(scenes(5, mixed=True, wide=True, ops=("allocate",)), policies)
def test_any_match_is_valid(scene: tuple[Part, list[Step]], policy: str) -> None:
    root, todo = scene
    play = Play(root, policy)
    for _, job, _, _ in todo:
        world = World(root)
        world.grants = dict(play.world.grants)
        outcome = play.match("allocate", job)
        event(outcome.status)
        if outcome.status == "matched":
            view = play.view(outcome, job)
            world.check(job.resources, play.last, view, whole_types(policy))
        elif complete(job.resources, root, False):
            event("complete")
            view = View(0, int(job.duration), constraint=job.constraint)
            assert not world.exists(job.resources, view)


@settings(max_examples=60, deadline=None)
@given(scenes(1), policies)
def test_satisfiability_asks_what_is_there_at_all(
    scene: tuple[Part, list[Step]], policy: str
) -> None:
    root, [(_, job, _, _)] = scene
    play = Play(root, policy)
    play.match("allocate", job)
    view = View(FAR, FAR + 1, False, True, job.constraint)
    exists = play.world.exists(job.resources, view)
    outcome = play.match("satisfiability", job)
    if outcome.status == "matched":
        assert exists
    else:
        assert outcome.status == "unsatisfiable"
        assert not exists or not complete(job.resources, root, False)


# -- one after another ----------------------------------------------------------------------------


def judged(play: Play, step: Step) -> Outcome | None:
    """Do a step; fail unless it does what the oracle says."""
    play.now += step.later
    step = step._replace(later=0)
    if not step.op:
        return play.run(step)
    world = World(play.root)
    world.grants = dict(play.world.grants)
    op, job, now = step.op, step.job, play.now
    duration = int(job.duration)
    known = complete(job.resources, play.root, world.overdue(now))
    outcome = play.match(op, job)
    event(f"{op} {outcome.status}")
    later = op in ("allocate_orelse_reserve", "without_allocating_future")
    if outcome.status == "matched" and op != "satisfiability":
        assert later or outcome.at == now
        world.check(job.resources, play.last, play.view(outcome, job), whole_types(play.policy))
        assert play.last.span in ((outcome.at, outcome.at + duration), (0, 0))
        if known:
            first = world.first_time(job.resources, now, duration, job.constraint)
            assert outcome.at == first
    elif known and outcome.status != "matched":
        if op != "satisfiability":
            view = View(now, now + duration, constraint=job.constraint)
            assert not world.exists(job.resources, view)
        if later:
            assert world.first_time(job.resources, now, duration, job.constraint) is None
        if op in ("allocate", "without_allocating"):
            assert outcome.status == "busy"
        else:
            ever = View(FAR, FAR + 1, False, True, job.constraint)
            expected = {"busy" if world.exists(job.resources, ever) else "unsatisfiable"}
            if world.too_many_nodes(job.resources, job.constraint):
                expected.add("unsatisfiable" if op == "allocate_with_satisfiability" else "busy")
            assert outcome.status in expected
    return outcome


@settings(max_examples=120, deadline=None)
@given(scenes(10), policies)
def test_each_step_does_what_the_oracle_says(scene: tuple[Part, list[Step]], policy: str) -> None:
    root, todo = scene
    play = Play(root, policy)
    for step in todo:
        judged(play, step)
        play.world.check_disjoint()


@settings(max_examples=70, deadline=None)
@given(scenes(10, mixed=True, wide=True), policies, filters, ends)
def test_jobs_never_share_and_counts_stay_exact(
    scene: tuple[Part, list[Step]], policy: str, prune: str, end: int
) -> None:
    root, todo = scene
    play = Play(root, policy, prune, expiration=end)
    held: dict[int, Grant] = {}
    for step in todo:
        play.run(step)
        play.world.check_disjoint()
        check_points(play.matcher)
        # What was given or promised before is so still.
        for job_id, grant in held.items():
            assert play.world.grants.get(job_id, grant) == grant
        held = dict(play.world.grants)
        assert set(play.matcher.bookings) == set(held)
        for job_id, grant in held.items():
            booking = play.matcher.bookings[job_id]
            assert (booking.start, booking.end) == (grant.start, grant.end)
            assert booking.allocated == grant.allocated
    check_counts(play, range(play.now + 20))


@settings(max_examples=70, deadline=None)
@given(scenes(10, mixed=True, wide=True), policies, filters, ends, st.randoms())
def test_cancelling_in_any_order_restores_the_state(
    scene: tuple[Part, list[Step]], policy: str, prune: str, end: int, random: Any
) -> None:
    root, todo = scene
    play = Play(root, policy, prune, expiration=end)
    empty = state(play.matcher)
    for step in todo:
        before = state(play.matcher)
        outcome = play.run(step)
        if outcome is not None and (
            outcome.status != "matched" or not step.op.startswith("allocate")
        ):
            assert state(play.matcher) == before
        elif outcome is not None and step.which == 0:
            play.cancel(max(play.world.grants))
            assert state(play.matcher) == before
    order = list(play.world.grants)
    random.shuffle(order)
    for job_id in order:
        play.cancel(job_id)
        check_points(play.matcher)
    assert state(play.matcher) == empty
    assert check_points(play.matcher) == 0


@settings(max_examples=60, deadline=None)
@given(scenes(10, ops=("allocate_orelse_reserve",)), policies)
def test_a_match_now_leaves_reservations_alone(scene: tuple[Part, list[Step]], policy: str) -> None:
    root, [(_, late, _, _), *several] = scene
    play = Play(root, policy)
    for step in several:
        play.match("allocate_orelse_reserve", step.job)
    promised = {id: grant for id, grant in play.world.grants.items() if not grant.allocated}
    event(f"{min(2, len(promised))} reservations")
    taken = {id: play.matcher.bookings[id].rows[:] for id in promised}
    play.match("allocate", late)
    play.world.check_disjoint()
    for job_id, grant in promised.items():
        assert play.world.grants[job_id] == grant
        assert play.matcher.bookings[job_id].rows == taken[job_id]
        for vertex in grant.taken:
            assert job_id in play.matcher.reservations(vertex)


# -- two tiers ------------------------------------------------------------------------------------


def diary(play: Play, todo: list[Step], swap_at: int = -1) -> list[Any]:
    """All that can be told about some steps."""
    told: list[Any] = []
    for i, step in enumerate(todo):
        if i == swap_at:
            play.matcher._tier = GraphTier(play.graph.n_vertices, "always")
            play.matcher._faces = None
        outcome = play.run(step)
        told.append(
            (
                outcome,
                play.last.rows,
                play.matcher.preorder,
                play.matcher.postorder,
                array("i", play.graph.by_weight),
                state(play.matcher),
            )
        )
    return told


@pytest.mark.timeout(600)  # to compile from scratch takes a while where others work too
@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None)
@given(scenes(8, mixed=True, wide=True), filters, st.integers(0, 5), st.sampled_from((0, 0, 1)))
def test_compiled_kernels_do_the_same(
    policy: str, scene: tuple[Part, list[Step]], prune: str, swap_at: int, flexible: int
) -> None:
    root, todo = scene
    traverser = "flexible" if flexible else "simple"
    plain = diary(Play(root, policy, prune, traverser=traverser), todo)
    always = Play(root, policy, prune, "always", traverser=traverser)
    assert always.matcher._tier.compiled
    assert diary(always, todo) == plain
    # Nothing changes either where the compiler is done in the middle of it.
    assert diary(Play(root, policy, prune, traverser=traverser), todo, swap_at) == plain
