"""How large chunks are, who gets them, and what moves: single decisions of a distributor."""

from __future__ import annotations

import pytest

from flux_mpi.ensemble.distributor import (
    HORIZON_S,
    RETRIES,
    Distributor,
    Finished,
    Give,
    Return,
    Stranded,
    TakeBack,
)
from flux_mpi.ensemble.tally import Tally
from flux_mpi.formats.idset import EMPTY, IDSet


def ids(first: int, last: int) -> IDSet:
    return IDSet(range(first, last + 1))


def ended(members: IDSet, seconds: float = 0.01) -> Tally:
    tally = Tally()
    tally.ended(len(members), [seconds] * len(members))
    return tally


def report(core: Distributor, name: object, members: IDSet, now: float, **how: int) -> None:
    core.report(name, members, ended(members), now, **how)


def given(core: Distributor) -> dict[object, IDSet]:
    found: dict[object, IDSet] = {}
    for action in core.take():
        assert isinstance(action, Give), action
        found[action.worker] = found.get(action.worker, EMPTY) | action.members
    return found


def steady(core: Distributor, name: object, rate: float, until: float) -> None:
    """Let a worker end ``rate`` members a second of those it has, told every 0.1 s."""
    now = core.workers[name].since
    while now < until:
        now += 0.1
        held = core.workers[name].held.get(0, EMPTY)
        report(core, name, held.take(int(rate / 10)), now)
        core.take()


def test_at_first_everyone_gets_one_a_core() -> None:
    core = Distributor()
    core.add(ids(0, 999), 0.0)
    core.join("a", 4, 0.0)
    core.join("b", 2, 0.0)
    assert given(core) == {"a": ids(0, 3), "b": ids(4, 5)}
    assert (core.outstanding, core.waiting) == (1000, 994)


def test_an_expected_time_is_believed_before_any_is_measured() -> None:
    core = Distributor(expected=0.01, capacity=8)
    core.add(ids(0, 99_999), 0.0)
    core.join("a", 4, 0.0)
    (give,) = core.take()
    assert isinstance(give, Give)
    assert len(give.members) == 4 + 400 * HORIZON_S
    assert give.low == 4 + 200 * HORIZON_S


@pytest.mark.parametrize("rate", [10, 100, 1000])
def test_in_steady_state_there_is_a_second_of_work_ahead(rate: int) -> None:
    core = Distributor()
    core.add(ids(0, 99_999), 0.0)
    core.join("a", 10, 0.0)
    core.take()
    steady(core, "a", rate, 10.0)
    in_hand = core.workers["a"].in_hand
    assert 10 + 0.4 * rate <= in_hand <= 10 + 1.1 * rate
    before = core.chunks
    steady(core, "a", rate, 20.0)
    assert core.chunks - before <= 10 * 2.5, "a chunk each half second, whatever the rate"


def test_members_of_long_run_time_are_not_hoarded() -> None:
    core = Distributor(capacity=8)
    core.add(ids(0, 99), 0.0)
    core.join("a", 4, 0.0)
    core.take()
    report(core, "a", ids(0, 3), 60.0)
    assert given(core) == {"a": ids(4, 7)}


def test_as_the_pool_runs_out_chunks_shrink() -> None:
    core = Distributor(expected=0.001, capacity=40)
    core.add(ids(0, 9999), 0.0)
    core.seal(0.0)
    sizes = []
    for name in range(10):
        core.join(name, 4, 0.0)
        (give,) = core.take()
        assert isinstance(give, Give)
        sizes.append(len(give.members))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 500, "half of a tenth"
    assert core.waiting > 5000


def test_chunks_do_not_shrink_to_single_members() -> None:
    core = Distributor(expected=0.001, capacity=1000)
    core.add(ids(0, 999), 0.0)
    core.seal(0.0)
    core.join("a", 1, 0.0)
    (give,) = core.take()
    assert isinstance(give, Give)
    assert len(give.members) == 50, "0.05 s of work"


def test_a_late_worker_is_believed_to_be_like_its_siblings() -> None:
    core = Distributor()
    core.add(ids(0, 99_999), 0.0)
    core.join("a", 4, 0.0)
    core.take()
    steady(core, "a", 400, 5.0)
    core.join("b", 2, 5.0)
    (give,) = core.take()
    assert isinstance(give, Give)
    assert len(give.members) == pytest.approx(202, rel=0.15)


def test_when_the_pool_is_dry_idle_workers_get_their_share_of_the_others() -> None:
    core = Distributor(expected=0.01, capacity=4)
    core.add(ids(0, 399), 0.0)
    core.join("a", 4, 0.0)
    core.join("b", 4, 0.0)
    core.join("c", 4, 0.0)
    assert core.waiting == 0
    core.take()
    mine = core.workers["a"].held[0]
    for name in ("b", "c"):
        if core.workers[name].in_hand:
            report(core, name, core.workers[name].held[0], 0.5)
    assert core.take() == []
    report(core, "a", mine.take(10), 0.6, unstarted=300)
    (ask,) = core.take()
    assert isinstance(ask, TakeBack)
    assert ask.worker == "a"
    assert 150 <= ask.count <= 200, "two of three equal parts"
    report(core, "a", EMPTY, 0.65, unstarted=300)
    assert core.take() == [], "it has been asked already"
    last = mine - mine.take(len(mine) - ask.count)
    core.returned("a", last, 0.7)
    found = given(core)
    assert set(found) == {"b", "c"}
    assert found["b"] | found["c"] == last
    assert abs(len(found["b"]) - len(found["c"])) <= 1 + ask.count // 10
    assert core.moved == len(last)


def test_what_would_be_done_in_no_time_is_left_where_it_is() -> None:
    core = Distributor(expected=0.001)
    core.add(ids(0, 99), 0.0)
    core.join("a", 4, 0.0)
    core.join("b", 4, 0.0)
    core.take()
    report(core, "a", core.workers["a"].held[0].take(4), 0.01, unstarted=10)
    assert core.take() == [], "10 members are 25 ms of work"


def test_a_worker_that_returns_nothing_is_not_asked_again_before_it_reports() -> None:
    core = Distributor(expected=1.0)
    core.add(ids(0, 1), 0.0)
    core.join("a", 1, 0.0)
    assert given(core) == {"a": ids(0, 1)}
    report(core, "a", EMPTY, 0.1, unstarted=1)
    core.take_back(5, 0.1)
    assert core.take() == [TakeBack("a", 1)]
    core.returned("a", EMPTY, 0.2, unstarted=1)
    assert core.take() == [Return(EMPTY)]
    core.take_back(5, 0.3)
    assert core.take() == [Return(EMPTY)]
    report(core, "a", EMPTY, 0.4, unstarted=1)
    core.take_back(5, 0.4)
    assert core.take() == [TakeBack("a", 1)]


def test_the_level_above_gets_members_from_the_pool_and_from_workers() -> None:
    core = Distributor(expected=1.0)
    core.join("a", 2, 0.0)
    core.add(ids(0, 9), 0.0)
    assert given(core) == {"a": ids(0, 3)}
    report(core, "a", EMPTY, 0.1, unstarted=2)
    core.take_back(8, 0.2)
    assert core.take() == [TakeBack("a", 2)]
    core.returned("a", ids(2, 3), 0.3)
    assert core.take() == [Return(ids(2, 9))]
    assert core.outstanding == 2
    core.take_back(1, 0.4)
    assert core.take() == [Return(EMPTY)]


def test_members_of_a_lost_worker_are_given_out_again_a_few_at_a_time() -> None:
    core = Distributor(expected=0.004)
    core.add(ids(0, 999), 0.0)
    sizes = []
    for name in range(3):
        core.join(name, 4, 0.0)
        held = core.workers[name].held
        sizes.append({attempts: len(members) for attempts, members in held.items()})
        core.lost(name, "it died", 1.0)
    assert sizes == [{0: 1000}, {1: 1004 >> 2}, {1: 1004 >> 2, 2: (1004 - 251) >> 4}]
    assert core.outstanding == 1000


def test_at_their_last_attempt_no_more_are_given_than_can_run() -> None:
    core = Distributor(expected=0.001, retries=1)
    core.add(ids(0, 999), 0.0)
    core.join("a", 4, 0.0)
    core.lost("a", "it died", 1.0)
    core.join("b", 4, 2.0)
    assert given(core) == {"b": ids(0, 3)}
    core.lost("b", "it died", 3.0)
    assert core.total.lost == 4
    assert core.outstanding == 996


def test_a_member_is_lost_after_as_many_retries_as_allowed() -> None:
    core = Distributor(retries=1)
    core.add(ids(5, 5), 0.0)
    core.seal(0.0)
    for name in range(2):
        core.join(name, 1, 0.0)
        assert given(core) == {name: ids(5, 5)}
        core.lost(name, f"{name} died", 1.0)
    (finished,) = core.take()
    assert isinstance(finished, Finished)
    assert finished.result.lost == finished.result.failed == 1
    why = "lost: the instances that had it were lost 2 times: 1 died"
    assert finished.result.failures == [(5, 1, why)]
    members, tally = core.take_report()
    assert (members, tally.count) == (ids(5, 5), 1)


def test_what_a_lost_worker_had_reported_is_not_given_out_again() -> None:
    core = Distributor()
    core.add(ids(0, 3), 0.0)
    core.join("a", 4, 0.0)
    core.take()
    report(core, "a", IDSet([0, 2]), 0.1)
    core.lost("a", "it died", 0.2)
    core.join("b", 4, 0.3)
    assert given(core) == {"b": IDSet([1, 3])}


def test_when_nobody_is_left_or_will_come_it_says_so() -> None:
    core = Distributor()
    core.add(ids(0, 3), 0.0)
    core.seal(0.0)
    core.join("a", 4, 0.0)
    core.expect(1, 0.0)
    core.take()
    core.lost("a", "it died", 1.0)
    assert core.take() == [], "one may come yet"
    core.expect(0, 2.0)
    assert core.take() == [Stranded()]
    core.give_up("nobody is left", 3.0)
    (finished,) = core.take()
    assert isinstance(finished, Finished)
    assert finished.result.lost == 4


def test_a_worker_that_reports_what_it_does_not_have_changes_nothing() -> None:
    core = Distributor()
    core.add(ids(0, 9), 0.0)
    core.join("a", 4, 0.0)
    core.join("b", 4, 0.0)
    core.take()
    for members in (ids(4, 5), ids(3, 4), ids(100, 100)):
        with pytest.raises(ValueError, match="does not have"):
            report(core, "a", members, 1.0)
    with pytest.raises(ValueError, match="2 results for 1 members"):
        core.report("a", ids(0, 0), ended(ids(0, 1)), 1.0)
    with pytest.raises(ValueError, match="does not have"):
        core.returned("b", ids(0, 0), 1.0)
    assert core.outstanding == 10
    assert core.total.count == 0
    assert core.workers["a"].in_hand == 4


def test_names_and_capacities_are_checked() -> None:
    core = Distributor()
    core.join("a", 1, 0.0)
    with pytest.raises(ValueError, match="joined already"):
        core.join("a", 1, 0.0)
    with pytest.raises(ValueError, match="at least 1"):
        core.join("b", 0, 0.0)


def test_the_default_gives_a_member_four_chances() -> None:
    assert RETRIES == 3
