"""How communicators of children are agreed on: each core alone (all together: see the model)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.overlay.creation import (
    COMMUNICATOR,
    CONTEXT,
    Abort,
    AskTicket,
    Created,
    Enter,
    Failed,
    Gate,
    Go,
    Leader,
    Prepare,
    Ready,
    Refuse,
    Registrar,
    Release,
    Up,
)

# -- the registrar --------------------------------------------------------------------------------


def ask(registrar: Registrar, *members: int) -> int:
    return registrar.request(sum(1 << member for member in members))


def test_apart_creations_go_on_at_once():
    registrar = Registrar()
    tickets = [ask(registrar, 0, 1), ask(registrar, 2, 3), ask(registrar, 4)]
    assert registrar.grant() == tickets
    assert registrar.grant() == []


def test_overlapping_creations_wait_for_each_other():
    registrar = Registrar()
    first, second = ask(registrar, 0, 1), ask(registrar, 1, 2)
    assert registrar.grant() == [first]
    registrar.release(first)
    assert registrar.grant() == [second]


def test_nobody_overtakes_one_that_waits_for_the_same_ranks():
    """Or a large creation would starve behind small ones."""
    registrar = Registrar()
    small, large, late, apart = (
        ask(registrar, 0),
        ask(registrar, 0, 1, 2),
        ask(registrar, 2),
        ask(registrar, 3),
    )
    assert registrar.grant() == [small, apart]
    registrar.release(small)
    assert registrar.grant() == [large]
    registrar.release(large)
    assert registrar.grant() == [late]


def test_one_that_gives_up_in_the_queue_lets_those_behind_it_pass():
    registrar = Registrar()
    first, second, third = ask(registrar, 0), ask(registrar, 0, 1), ask(registrar, 1)
    assert registrar.grant() == [first]
    registrar.release(second)
    assert registrar.grant() == [third]


def test_release_is_idempotent():
    registrar = Registrar()
    ticket = ask(registrar, 0)
    registrar.grant()
    for _ in range(2):
        registrar.release(ticket)
        assert len(registrar) == 0
    registrar.release(99)


def test_tickets_are_never_reused():
    registrar = Registrar()
    first = ask(registrar, 0)
    registrar.release(first)
    assert ask(registrar, 0) > first


@pytest.mark.parametrize("members", [0, -1])
def test_a_creation_has_members(members: int):
    registrar = Registrar()
    with pytest.raises(ValueError, match="members"):
        registrar.request(members)
    assert len(registrar) == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.integers(1, 31)),
        st.tuples(st.just("release"), st.integers(0, 11)),
    ),
    max_size=40,
)


@given(steps)
def test_who_has_its_turn_is_exactly_who_is_first_on_all_its_ranks(taken):
    registrar = Registrar()
    members: dict[int, int] = {}  # of those not released, in the order of their tickets
    granted: set[int] = set()
    for what, number in taken:
        if what == "request":
            ticket = registrar.request(number)
            assert all(ticket > other for other in members)
            members[ticket] = number
        elif members:
            ticket = list(members)[number % len(members)]
            registrar.release(ticket)
            del members[ticket]
            granted.discard(ticket)
        new = registrar.grant()
        assert granted.isdisjoint(new)
        granted.update(new)
        first = {
            ticket
            for ticket, mine in members.items()
            if not any(mine & its for other, its in members.items() if other < ticket)
        }
        assert granted == first
        assert len(registrar) == len(members)


@given(st.lists(st.integers(1, 31), min_size=1, max_size=12), st.randoms())
def test_everybody_has_its_turn_in_the_end(wanted, random):
    """In whatever order those whose turn it is end."""
    registrar = Registrar()
    tickets = {registrar.request(members): members for members in wanted}
    turns: list[int] = []
    running: list[int] = []
    while len(turns) < len(tickets):
        new = registrar.grant()
        turns += new
        running += new
        assert running, "all wait for each other"
        together = [tickets[ticket] for ticket in running]
        assert sum(together) == sum({1 << n for m in together for n in range(5) if m >> n & 1})
        registrar.release(running.pop(random.randrange(len(running))))
    assert sorted(turns) == sorted(tickets)
    for rank in range(5):
        here = [ticket for ticket in turns if tickets[ticket] >> rank & 1]
        assert here == sorted(here)


# -- a member -------------------------------------------------------------------------------------


def ready(gate: Gate, key: str, ticket: int = 1) -> None:
    gate.born(key)
    assert gate.prepare(key, ticket) == [Ready(key, True)]


def inside(gate: Gate, key: str, ticket: int = 1) -> None:
    ready(gate, key, ticket)
    assert gate.go(key, COMMUNICATOR, ticket) == [Enter(key, COMMUNICATOR, ticket)]


def up(gate: Gate, key: str, ticket: int = 1) -> None:
    inside(gate, key, ticket)
    assert gate.entered(key) == [Created(key), Up(key)]


def test_the_way_of_a_member():
    gate = Gate(9)
    assert gate.born("a") == []
    assert gate.prepare("a", 7) == [Ready("a", True)]
    assert gate.go("a", COMMUNICATOR, 7) == [Enter("a", COMMUNICATOR, 7)]
    assert gate.entering("a")
    assert gate.entered("a") == [Created("a"), Up("a")]
    assert (gate.live, gate.wedged, gate.able, gate.entering("a")) == (1, 0, True, False)
    gate.forget("a", True)
    assert (gate.live, len(gate)) == (0, 0)


def test_a_leader_may_ask_before_the_order_has_come():
    gate = Gate(9)
    assert gate.prepare("a", 7) == []
    assert gate.born("a") == [Ready("a", True)]
    assert gate.go("a", COMMUNICATOR, 7) == [Enter("a", COMMUNICATOR, 7)]


def test_a_context_takes_no_communicator():
    gate = Gate(0)
    gate.born("a")
    assert gate.prepare("a", 1) == [Ready("a", False)]
    assert gate.go("a", CONTEXT, 1) == [Enter("a", CONTEXT, 1)]
    assert gate.entered("a") == [Created("a"), Up("a")]
    assert gate.live == 0
    gate.forget("a", True)
    assert gate.live == 0


def test_ordered_twice():
    gate = Gate(9)
    gate.born("a")
    with pytest.raises(ValueError, match="a: ordered twice"):
        gate.born("a")
    gate.prepare("a", 1)
    with pytest.raises(ValueError, match="ordered twice"):
        gate.born("a")


def test_the_same_key_again_once_it_was_forgotten():
    gate = Gate(9)
    up(gate, "a", 1)
    gate.forget("a", True)
    up(gate, "a", 2)
    assert gate.live == 1


def test_prepared_twice():
    gate = Gate(9)
    ready(gate, "a")
    assert gate.prepare("a", 2) == [Refuse("a", "prepared twice")]
    assert gate.go("a", COMMUNICATOR, 1) == [Enter("a", COMMUNICATOR, 1)]


def test_asked_for_one_that_is_over():
    gate = Gate(9)
    gate.born("a")
    assert gate.cancel("a", "no need") == [Failed("a", "no need")]
    assert gate.prepare("a", 1) == [Refuse("a", "it is over here")]


def test_asked_for_one_that_was_forgotten():
    """It waits for an order, as any; whoever ended it here ends it at its leader too."""
    gate = Gate(9)
    gate.born("a")
    gate.cancel("a", "no need")
    gate.forget("a", False)
    assert gate.prepare("a", 1) == []
    assert gate.abandon("a", "given up", 1) == [Refuse("a", "given up")]
    assert len(gate) == 0


def test_go_for_one_that_is_not_ready():
    gate = Gate(9)
    assert gate.go("a", COMMUNICATOR, 1) == []
    gate.born("a")
    assert gate.go("a", COMMUNICATOR, 1) == []
    gate.prepare("a", 1)
    assert gate.go("a", COMMUNICATOR, 2) == []  # of another run
    assert gate.go("a", COMMUNICATOR, 1) == [Enter("a", COMMUNICATOR, 1)]
    assert gate.go("a", COMMUNICATOR, 1) == []
    gate.entered("a")
    assert gate.go("a", COMMUNICATOR, 1) == []


def test_one_at_a_time():
    gate = Gate(9)
    inside(gate, "a", 1)
    gate.born("b")
    assert gate.prepare("b", 2) == [Ready("b", False)]
    gate.entered("a")
    assert gate.able


def test_no_more_than_the_limit():
    gate = Gate(1)
    up(gate, "a")
    gate.born("b")
    assert gate.prepare("b", 2) == [Ready("b", False)]
    gate.forget("a", True)
    ready(gate, "c", 3)


def test_a_communicator_that_was_left_counts_for_good():
    gate = Gate(1)
    up(gate, "a")
    gate.forget("a", False)
    assert (gate.live, gate.able) == (1, False)


def test_the_go_of_a_turn_that_is_over_is_not_followed():
    """Its leader is dead: others of its members may be in another creation by now."""
    gate = Gate(9)
    ready(gate, "a", 1)
    ready(gate, "b", 2)
    over = [Refuse("a", "its turn is over"), Failed("a", "its turn is over")]
    assert gate.go("a", COMMUNICATOR, 1) == over
    assert gate.go("b", COMMUNICATOR, 2) == [Enter("b", COMMUNICATOR, 2)]


def test_the_go_of_a_context_can_be_followed_at_any_time():
    gate = Gate(9)
    ready(gate, "a", 1)
    inside(gate, "b", 2)
    assert gate.go("a", CONTEXT, 1) == [Enter("a", CONTEXT, 1)]
    assert gate.entered("a") == [Created("a"), Up("a")]
    assert not gate.able  # still in b
    assert gate.entered("b") == [Created("b"), Up("b")]


@pytest.mark.parametrize("order", ["born first", "asked first"])
def test_no_promise_to_an_older_turn(order: str):
    """Its leader is dead, or the newer one could not have begun; and that one is promised."""
    gate = Gate(9)
    ready(gate, "new", 2)
    if order == "born first":
        gate.born("old")
        actions = gate.prepare("old", 1)
    else:
        gate.prepare("old", 1)
        actions = gate.born("old")
    assert actions == [Refuse("old", "its turn is over"), Failed("old", "its turn is over")]
    assert gate.go("new", COMMUNICATOR, 2) == [Enter("new", COMMUNICATOR, 2)]


def test_mpi_has_no_communicator():
    gate = Gate(9)
    inside(gate, "a")
    assert gate.failed("a", "too many") == [Refuse("a", "too many"), Failed("a", "too many")]
    assert (gate.live, gate.wedged, gate.able) == (0, 0, True)


def test_answers_of_mpi_that_nobody_awaits():
    gate = Gate(9)
    assert gate.entered("a") == gate.failed("a", "") == []
    ready(gate, "a")
    assert gate.entered("a") == gate.failed("a", "") == []
    assert not gate.entering("a")
    assert not gate.entering("b")


def test_a_cancel_before_ready_ends_it():
    gate = Gate(9)
    gate.born("a")
    assert gate.cancel("a", "no need") == [Failed("a", "no need")]
    assert gate.cancel("a", "no need") == []
    assert gate.cancel("b", "no need") == []


def test_a_cancel_does_not_break_a_promise():
    """The go may be on its way, and others may have entered."""
    gate = Gate(9)
    ready(gate, "a")
    assert gate.cancel("a", "no need") == []
    assert gate.go("a", COMMUNICATOR, 1) == [Enter("a", COMMUNICATOR, 1)]
    assert gate.cancel("a", "no need") == []
    assert gate.entered("a") == [Created("a"), Up("a")]
    assert gate.cancel("a", "no need") == []


def test_given_up_while_ready():
    gate = Gate(9)
    ready(gate, "a")
    assert gate.abandon("a", "why", 1) == [Refuse("a", "why"), Failed("a", "why")]
    assert gate.abandon("a", "why", 1) == []
    assert gate.able


def test_given_up_before_the_order_has_come():
    gate = Gate(9)
    gate.prepare("a", 1)
    assert gate.abandon("a", "why") == [Refuse("a", "why")]
    assert gate.born("a") == []


def test_given_up_by_the_leader_of_another_run():
    gate = Gate(9)
    gate.born("a")
    assert gate.abandon("a", "why", 1) == []
    gate.prepare("a", 2)
    assert gate.abandon("a", "why", 1) == []
    assert gate.abandon("a", "why", 2) != []


def test_given_up_while_a_call_is_blocked():
    """Nothing new is entered until it comes back, whatever it brings."""
    gate = Gate(9)
    inside(gate, "a")
    assert gate.abandon("a", "why") == [Refuse("a", "why"), Failed("a", "why")]
    assert (gate.wedged, gate.able, gate.entering("a")) == (1, False, False)
    gate.forget("a", False)
    gate.born("b")
    assert gate.prepare("b", 2) == [Ready("b", False)]
    assert gate.entered("a") == []
    gate.loosened(False)
    assert (gate.wedged, gate.live, gate.able) == (0, 0, True)


def test_what_a_blocked_call_brings_late_is_counted():
    gate = Gate(1)
    inside(gate, "a")
    gate.abandon("a", "why")
    gate.loosened(True)
    assert (gate.wedged, gate.live, gate.able) == (0, 1, False)


def test_given_up_while_a_context_is_made():
    gate = Gate(9)
    ready(gate, "a")
    gate.go("a", CONTEXT, 1)
    assert gate.abandon("a", "why") == [Refuse("a", "why"), Failed("a", "why")]
    assert (gate.wedged, gate.able) == (0, True)


def test_one_that_is_up_is_not_given_up():
    gate = Gate(9)
    up(gate, "a")
    assert gate.abandon("a", "why") == gate.cancel("a", "why") == []
    assert gate.live == 1


def test_forget_is_idempotent():
    gate = Gate(9)
    up(gate, "a")
    for _ in range(2):
        gate.forget("a", True)
        assert (gate.live, len(gate)) == (0, 0)


# -- the leader -----------------------------------------------------------------------------------


def granted(size: int, damaged: bool = False) -> Leader:
    leader = Leader(size)
    assert leader.start() == [AskTicket()]
    assert leader.granted(5, damaged) == [Prepare(index, 5) for index in range(size)]
    return leader


def went(size: int) -> Leader:
    leader = granted(size)
    actions = [leader.ready(index, True) for index in range(size)]
    assert actions == [*[[]] * (size - 1), [Go(index, COMMUNICATOR) for index in range(size)]]
    return leader


ABORTS = [Abort(0), Abort(1)]


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_the_way_of_a_leader(readies, creations):
    leader = granted(4)
    for index in readies[:-1]:
        assert leader.ready(index, True) == []
    assert leader.ready(readies[-1], True) == [Go(index, COMMUNICATOR) for index in range(4)]
    for index in creations[:-1]:
        assert leader.created(index) == []
    assert leader.created(creations[-1]) == [Release()]


@pytest.mark.parametrize("unable", [0, 1])
def test_all_have_contexts_if_one_cannot_have_a_communicator(unable: int):
    leader = granted(2)
    assert leader.ready(0, unable != 0) == []
    assert leader.ready(1, unable != 1) == [Go(0, CONTEXT), Go(1, CONTEXT)]


def test_all_have_contexts_in_a_world_that_has_lost_a_rank():
    leader = granted(2, damaged=True)
    leader.ready(0, True)
    assert leader.ready(1, True) == [Go(0, CONTEXT), Go(1, CONTEXT)]


@pytest.mark.parametrize("end", [Leader.cancel, Leader.give_up])
def test_given_up_before_its_turn(end):
    leader = Leader(2)
    leader.start()
    assert end(leader) == [Release()]
    assert leader.given_up
    assert end(leader) == []
    assert leader.granted(5, False) == []


@pytest.mark.parametrize("end", [Leader.cancel, Leader.give_up])
def test_given_up_while_members_are_asked(end):
    """The turn ends when nobody is asked any more."""
    leader = granted(2)
    leader.ready(0, True)
    assert end(leader) == ABORTS
    assert end(leader) == []
    assert leader.failed(1) == [Release()]


def test_given_up_while_the_answer_is_on_its_way():
    leader = granted(2)
    leader.ready(0, True)
    assert leader.give_up() == ABORTS
    assert leader.ready(1, True) == [Release()]


def test_a_cancel_comes_too_late_once_all_are_ready():
    leader = went(2)
    assert leader.cancel() == []
    assert not leader.given_up
    assert leader.created(0) == []
    assert leader.created(1) == [Release()]


def test_given_up_while_members_enter():
    leader = went(2)
    assert leader.give_up() == ABORTS
    assert leader.created(0) == []
    assert leader.failed(1) == [Release()]


def test_a_member_that_refuses_ends_it():
    leader = granted(2)
    assert leader.failed(0) == ABORTS
    assert leader.failed(1) == [Release()]


def test_the_last_one_asked_refuses():
    leader = granted(2)
    leader.ready(0, True)
    assert leader.failed(1) == [*ABORTS, Release()]


def test_a_member_that_is_lost_while_others_enter():
    leader = went(3)
    assert leader.created(0) == []
    assert leader.failed(1) == [Abort(0), Abort(1), Abort(2)]
    assert leader.failed(2) == [Release()]


def test_what_comes_after_the_end():
    leader = went(2)
    leader.created(0)
    assert leader.created(1) == [Release()]
    assert leader.created(1) == leader.failed(0) == leader.give_up() == leader.cancel() == []
    assert not leader.given_up


answers = st.lists(
    st.sampled_from(["ready", "unable", "created", "failed", "cancel", "give up"]), max_size=12
)


@given(answers, st.randoms())
def test_a_turn_ends_once_and_only_when_nobody_is_asked_or_enters(taken, random):
    """Whatever members answer, each as the protocol lets it."""
    leader = granted(3)
    states = ["asked"] * 3
    releases = 0

    def took(actions):
        nonlocal releases
        if any(isinstance(action, Go) for action in actions):
            assert states == ["ready"] * 3
            states[:] = ["entering"] * 3
        if any(isinstance(action, Abort) for action in actions):
            assert [a.index for a in actions if isinstance(a, Abort)] == [0, 1, 2]
        if Release() in actions:
            releases += 1
            assert not {"asked", "entering"} & set(states)
        assert releases <= 1

    for what in [*taken, *["created", "failed"] * 6]:
        if what == "cancel":
            took(leader.cancel())
        elif what == "give up":
            took(leader.give_up())
        elif what in ("ready", "unable") and "asked" in states:
            index = random.choice([i for i, state in enumerate(states) if state == "asked"])
            states[index] = "ready"
            took(leader.ready(index, what == "ready"))
        elif what == "created" and "entering" in states:
            index = random.choice([i for i, state in enumerate(states) if state == "entering"])
            states[index] = "up"
            took(leader.created(index))
        elif what == "failed":
            index = random.choice(range(3))
            if states[index] in ("asked", "entering"):
                states[index] = "over"
                took(leader.failed(index))
    for index in range(3):
        if states[index] in ("asked", "entering"):
            states[index] = "over"
            took(leader.failed(index))
    took(leader.give_up())
    assert releases == 1
