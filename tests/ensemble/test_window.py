"""What a leaf submits when, what it can return, and what it runs again."""

from __future__ import annotations

from flux_mpi.ensemble.window import AHEAD_S, Window
from flux_mpi.formats.idset import EMPTY, IDSet


def ids(first: int, last: int) -> IDSet:
    return IDSet(range(first, last + 1))


def end(window: Window, members: IDSet, now: float, seconds: float = 0.01) -> None:
    window.ended(list(members), [seconds] * len(members), [], now)


def test_one_a_core_until_it_is_known_how_long_they_take() -> None:
    window = Window(4)
    window.give(ids(0, 999))
    assert window.due(0.0) == ids(0, 3)
    assert window.due(0.0) == EMPTY
    assert (window.left, window.running, len(window.held)) == (1000, 4, 996)


def test_a_known_time_is_believed_at_once() -> None:
    window = Window(4, expected=0.01)
    window.give(ids(0, 999))
    assert window.due(0.0) == ids(0, 3 + int(400 * AHEAD_S))


def test_short_members_are_submitted_half_a_second_ahead_in_few_chunks() -> None:
    window = Window(4)
    window.give(ids(0, 9999))
    queue = list(window.due(0.0))
    now, chunks, low = 0.0, 0, len(window.held)
    while now < 5.0:
        now += 0.02
        ended, queue = IDSet(queue[:8]), queue[8:]  # 400 a second
        end(window, ended, now)
        new = window.due(now)
        chunks += bool(new)
        queue += new
        if now > 2.0:  # the pace is an average of the last second
            low = min(low, len(queue))
    assert low >= 0.8 * 400 * AHEAD_S / 2
    assert len(queue) <= 4 + 450 * AHEAD_S
    assert chunks < 5.0 * 5


def test_long_members_are_submitted_one_a_core() -> None:
    window = Window(4)
    window.give(ids(0, 99))
    now = 0.0
    queue = window.due(now)
    for _ in range(5):
        now += 10.0
        end(window, queue, now, 10.0)
        queue = window.due(now)
        assert len(queue) <= 4 + 1


def test_unbounded_submits_all_at_once() -> None:
    window = Window(4, bounded=False)
    window.give(ids(0, 99_999))
    assert len(window.due(0.0)) == 100_000
    assert window.spare == 0


def test_the_last_members_are_returned_first() -> None:
    window = Window(2)
    window.give(ids(0, 9))
    window.due(0.0)
    assert window.take_back(3) == ids(7, 9)
    assert window.take_back(100) == ids(2, 6)
    assert window.take_back(1) == EMPTY
    assert window.left == 2


def test_what_is_deep_in_the_queue_can_be_spared() -> None:
    window = Window(4, expected=0.01)
    window.give(ids(0, 999))
    queued = len(window.due(0.0))
    assert window.spare == queued - 4 - 40, "0.1 s of work stays"
    window.withdrawn(window.spare)
    assert window.spare == 0


def test_members_of_a_lost_node_run_again_up_to_a_limit() -> None:
    window = Window(2, retries=1)
    window.give(ids(0, 1))
    window.due(0.0)
    lost = (0, 1, "node-failure: lost contact with broker 3")
    ended, tally = window.ended([0, 1], [0.5, 0.1], [lost], 1.0)
    assert (ended, tally.count, tally.timed, tally.failed) == ([1], 1, 1, 0)
    assert window.due(1.0) == IDSet([0])
    ended, tally = window.ended([0], [0.5], [lost], 2.0)
    assert (ended, tally.count, tally.lost) == ([0], 1, 1)
    assert tally.failures[0][2].startswith("lost: node-failure")
    assert window.left == 0


def test_exceptions_are_failures_whatever_the_status() -> None:
    window = Window(4)
    window.give(ids(0, 3))
    window.due(0.0)
    failures = [
        (0, 0, "timeout: resource allocation expired"),
        (1, 1, "cancel: by somebody"),
        (2, 3, ""),
    ]
    ended, tally = window.ended([0, 1, 2, 3], [1.0, 0.2, 0.2], failures, 1.0)
    assert ended == [0, 1, 2, 3]
    assert (tally.count, tally.failed, tally.canceled, tally.timed) == (4, 3, 1, 3)
    assert tally.codes == {1: 2, 3: 1}
