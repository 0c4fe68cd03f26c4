"""A broker's life: every path, and random ones, end in LEFT exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.instance.lifecycle import (
    CLEANUP,
    JOIN,
    LEFT,
    RUN,
    SHUTDOWN,
    Lifecycle,
    exit_status,
    signal_name,
)


class World:
    def __init__(self, *, root=True, children=()):
        self.done = []
        self.life = Lifecycle(self, root=root, children=set(children))

    def enter(self, level):
        self.done.append(level)

    def start_program(self):
        self.done.append("start")

    def stop_program(self, now):
        self.done.append("kill program" if now else "stop program")

    def stop_jobs(self, now):
        self.done.append("kill jobs" if now else "stop jobs")

    def stop_tree(self):
        self.done.append("stop tree")

    def leave(self, status, orderly):
        self.done.append(("leave", status, orderly))

    def new(self):
        """What was done since the last look."""
        done, self.done = self.done, []
        return done


def running(**options):
    world = World(**options)
    world.life.joined()
    world.new()
    return world


def test_the_ordinary_life_of_a_root():
    world = World(children={1, 2})
    life = world.life
    assert life.level == JOIN
    life.joined()
    assert world.new() == [RUN, "start"]
    life.joined()
    assert world.new() == []
    life.program_ended(3)
    assert world.new() == [CLEANUP, "stop jobs"]
    life.jobs_ended()
    assert world.new() == [SHUTDOWN, "stop tree"]
    life.child_gone(1)
    assert world.new() == []
    life.child_gone(2)
    assert world.new() == [LEFT, ("leave", 3, True)]


def test_the_ordinary_life_of_a_leaf():
    world = World(root=False)
    world.life.joined()
    assert world.new() == [RUN]
    world.life.shutdown()
    assert world.new() == [SHUTDOWN, "stop tree", LEFT, ("leave", 0, True)]


def test_a_broker_in_between_waits_for_those_below():
    world = running(root=False, children={3})
    world.life.shutdown()
    assert world.new() == [SHUTDOWN, "stop tree"]
    world.life.shutdown()
    world.life.child_gone(3)
    assert world.new() == [LEFT, ("leave", 0, True)]


def test_children_that_left_before_are_not_waited_for():
    world = running(children={1})
    world.life.child_gone(1)
    world.life.program_ended(0)
    world.life.jobs_ended()
    assert world.done[-1] == ("leave", 0, True)


def test_a_signal_ends_the_program_and_the_jobs_politely():
    world = running()
    world.life.signalled(2)
    assert world.new() == [CLEANUP, "stop program", "stop jobs"]
    world.life.jobs_ended()
    assert world.new() == []
    world.life.program_ended(143)
    assert world.new() == [SHUTDOWN, "stop tree", LEFT, ("leave", 130, True)]


def test_a_second_signal_is_not_polite():
    world = running(children={1})
    world.life.signalled(2)
    world.new()
    world.life.signalled(15)
    assert world.new() == ["kill jobs", "kill program", SHUTDOWN, "stop tree"]
    world.life.child_gone(1)
    assert world.new() == [LEFT, ("leave", 143, False)]


def test_a_second_signal_while_shutting_down_waits_for_nobody():
    world = running(children={1})
    world.life.signalled(2)
    world.life.program_ended(0)
    world.life.jobs_ended()
    assert world.life.level == SHUTDOWN
    world.new()
    world.life.signalled(2)
    assert world.new() == [LEFT, ("leave", 130, False)]


def test_a_signal_before_the_program_runs_does_not_wait_for_it():
    world = World()
    world.life.signalled(2)
    assert world.new() == [CLEANUP, "stop jobs"]
    world.life.jobs_ended()
    assert world.new() == [SHUTDOWN, "stop tree", LEFT, ("leave", 130, True)]
    world.life.joined()
    assert world.new() == []


def test_a_signal_during_cleanup_keeps_the_program_s_status():
    world = running()
    world.life.program_ended(3)
    world.life.signalled(2)
    world.life.jobs_ended()
    assert world.done[-1] == ("leave", 3, True)


def test_other_ranks_leave_signals_to_the_root():
    world = running(root=False)
    world.life.signalled(2)
    world.life.signalled(2)
    assert world.new() == []


def test_a_shutdown_by_request_ends_the_program_too():
    world = running()
    world.life.shutdown()
    assert world.new() == [CLEANUP, "stop program", "stop jobs"]
    world.life.program_ended(129)
    world.life.jobs_ended()
    assert world.done[-1] == ("leave", 0, True)


def test_ranks_that_do_not_come_end_it():
    world = World(children={1})
    world.life.expired()
    assert world.new() == ["kill jobs", "kill program", SHUTDOWN, "stop tree"]
    world.life.expired()
    assert world.new() == [LEFT, ("leave", 1, False)]


def test_jobs_that_do_not_end_are_killed():
    world = running()
    world.life.program_ended(0)
    world.new()
    world.life.expired()
    assert world.new() == [
        "kill jobs", "kill program", SHUTDOWN, "stop tree", LEFT, ("leave", 0, False),
    ]  # fmt: skip


def test_nothing_expires_while_running():
    world = running()
    world.life.expired()
    assert world.new() == []


def test_a_lost_parent_ends_what_is_below():
    world = running(root=False, children={3})
    world.life.parent_lost()
    assert world.new() == [SHUTDOWN, "stop tree"]
    world.life.child_gone(3)
    assert world.new() == [LEFT, ("leave", 1, False)]
    world.life.parent_lost()
    assert world.new() == []


events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["joined", "jobs_ended", "shutdown", "parent_lost", "expired"])),
        st.tuples(st.just("program_ended"), st.integers(0, 255)),
        st.tuples(st.just("signalled"), st.sampled_from([1, 2, 15])),
        st.tuples(st.just("child_gone"), st.integers(0, 3)),
        st.tuples(st.just("abort"), st.integers(1, 255)),
        st.tuples(st.just("failed"), st.integers(1, 255)),
    ),
    max_size=20,
)


@given(st.booleans(), st.sets(st.integers(0, 3)), events)
def test_every_life_ends_once_whatever_happens(root, children, events):
    world = World(root=root, children=children)
    life = world.life
    for name, *arguments in events:
        getattr(life, name)(*arguments)
    # What comes to everyone in the end: the program ends, or someone asks, or a bound passes.
    life.joined()
    life.program_ended(0)
    life.shutdown()
    life.expired()
    life.expired()
    assert life.level == LEFT
    entered = [step for step in world.done if step in (JOIN, RUN, CLEANUP, SHUTDOWN, LEFT)]
    order = [RUN, CLEANUP, SHUTDOWN, LEFT]
    assert entered == sorted(set(entered), key=order.index), "levels only ever rise"
    assert world.done.count("start") <= 1
    assert world.done.count("stop tree") == 1
    assert [step[0] for step in world.done if isinstance(step, tuple)] == ["leave"]
    before = list(world.done)
    for name, *arguments in events:
        getattr(life, name)(*arguments)
    assert world.done == before, "nothing happens after the end"


@pytest.mark.parametrize(
    ("wait_status", "code"), [(0, 0), (3 << 8, 3), (9, 137), (15 | 0x80, 143), (255 << 8, 255)]
)
def test_statuses_read_as_a_shell_has_them(wait_status, code):
    assert exit_status(wait_status) == code


def test_signals_have_names():
    assert [signal_name(n) for n in (2, 15, 99)] == ["SIGINT", "SIGTERM", "signal 99"]
