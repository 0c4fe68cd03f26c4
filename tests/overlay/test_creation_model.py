"""Every order in which creations on three ranks may go, may be cancelled, and may fail.

``FLUX_MPI_MODEL=long`` also explores what takes minutes: 22 million steps.
"""

from __future__ import annotations

import os
import sys

import pytest

from flux_mpi.instance import world
from flux_mpi.instance.world import World
from flux_mpi.overlay import creation
from flux_mpi.overlay.creation import COMMUNICATOR, CONTEXT, Enter, Gate, Ready, Registrar

sys.path.insert(0, os.path.dirname(__file__))
from creation_model import Scenario, Wrong, explore

BOTH = frozenset({0, 1})
FIRST = frozenset({0})

NEIGHBOURS = ((0, 1), (1, 2))
"""Of two levels: the leader of the second is not the leader of the first."""
OPPOSITE = ((0, 1, 2), (2, 1, 0))
"""All ranks twice, led from either end."""
MIXED = ((0, 1, 2), (2, 1))
RING = ((0, 1), (1, 2), (2, 0))
"""Each of three overlaps with both others, and no two have the same leader."""

SMALL = {
    "all goes well": Scenario(OPPOSITE),
    "all goes well in a ring": Scenario(RING),
    "all goes well through rank 0": Scenario(OPPOSITE, links="star"),
    "all goes well in a chain": Scenario(OPPOSITE, links="chain"),
    "one is cancelled": Scenario(OPPOSITE, cancels=FIRST),
    "one of a ring is cancelled": Scenario(RING, cancels=FIRST),
    "both are cancelled": Scenario(NEIGHBOURS, cancels=BOTH),
    "a rank dies": Scenario(MIXED, crashes=1),
    "a rank dies in a star": Scenario(MIXED, crashes=1, links="star"),
    "a rank dies in a chain": Scenario(NEIGHBOURS, crashes=1, links="chain"),
    "a rank dies and nobody above knows": Scenario(MIXED, crashes=1, deaf=True),
    "a rank dies while one is cancelled": Scenario(NEIGHBOURS, crashes=1, cancels=FIRST),
    "two ranks die": Scenario(NEIGHBOURS, crashes=2),
    "bounds pass": Scenario(NEIGHBOURS, expiries=2),
    "a broker above ends": Scenario(NEIGHBOURS, drops=1, cancels=FIRST),
    "MPI has no more": Scenario(NEIGHBOURS, mpi_fails=True, cancels=FIRST),
    "instances end and others take their place": Scenario(RING, ends=True, limit=1),
    "one is ordered again": Scenario(NEIGHBOURS, cancels=FIRST, again=True),
}

LARGE = {
    "a rank dies, all ranks twice": Scenario(OPPOSITE, crashes=1),
    "a rank dies, all ranks twice, not led by the root": Scenario(
        ((1, 2, 0), (2, 1, 0)), crashes=1
    ),
    "a rank dies in a ring": Scenario(RING, crashes=1),
    "a rank dies in a ring, in a star": Scenario(RING, crashes=1, links="star"),
    "a rank dies in a ring, of which one is cancelled": Scenario(RING, crashes=1, cancels=FIRST),
    "a rank dies in a chain of all ranks": Scenario(MIXED, crashes=1, links="chain"),
    "both are cancelled, on all ranks": Scenario(OPPOSITE, cancels=BOTH),
    "two ranks die, all ranks twice": Scenario(MIXED, crashes=2),
    "all of it": Scenario(
        NEIGHBOURS, crashes=1, cancels=BOTH, expiries=1, drops=1, mpi_fails=True, limit=1
    ),
    "instances of a ring end, and a rank dies": Scenario(RING, crashes=1, ends=True, limit=1),
}


def modes(scenario: Scenario) -> set[str]:
    """How children came up in the ends of all orders."""
    found = explore(scenario)
    print(found)
    assert found.complete
    return set(found.modes)


@pytest.mark.parametrize("name", SMALL)
def test_no_order_of_events_is_wrong(name: str):
    assert COMMUNICATOR in modes(SMALL[name])


def test_without_a_communicator_there_are_contexts():
    assert modes(Scenario(NEIGHBOURS, limit=0)) == {CONTEXT}
    assert modes(Scenario(NEIGHBOURS, limit=1)) == {COMMUNICATOR, CONTEXT}


def test_a_world_that_has_lost_a_rank_uses_contexts():
    assert CONTEXT not in modes(Scenario(NEIGHBOURS, cancels=BOTH))
    assert CONTEXT in modes(Scenario(NEIGHBOURS, crashes=1))


@pytest.mark.skipif(os.environ.get("FLUX_MPI_MODEL") != "long", reason="FLUX_MPI_MODEL=long")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LARGE)
def test_no_order_of_many_events_is_wrong(name: str):
    modes(LARGE[name])


# -- what the model would find --------------------------------------------------------------------


def wrong(scenario: Scenario, *words: str) -> None:
    with pytest.raises(Wrong) as found:
        explore(scenario)
    assert any(word in str(found.value) for word in words), found.value


def test_without_an_order_members_wait_for_each_other(monkeypatch):
    def all_at_once(self):
        found = [ticket for ticket, entry in self._entries.items() if not entry.granted]
        for ticket in found:
            self._entries[ticket].granted = True
        return found

    monkeypatch.setattr(Registrar, "grant", all_at_once)
    wrong(Scenario(NEIGHBOURS), "is entered in the midst of", "are stuck in")


def test_a_cancel_that_breaks_a_promise_leaves_others_stuck(monkeypatch):
    monkeypatch.setattr(Gate, "cancel", Gate.abandon)
    wrong(Scenario(NEIGHBOURS, cancels=FIRST), "are stuck in a")


def test_a_promise_to_an_older_turn_breaks_that_to_a_newer_one(monkeypatch):
    def promise(self, key, birth):
        birth.state = creation._READY
        self._promised = birth.ticket
        return [Ready(key, self.able)]

    monkeypatch.setattr(Gate, "_ready", promise)
    wrong(Scenario(RING, crashes=1), "are stuck in")


def test_a_go_from_the_dead_is_followed(monkeypatch):
    def go(self, key, mode, ticket):
        birth = self._births.get(key)
        if birth is None or birth.state != creation._READY or birth.ticket != ticket:
            return []
        birth.state, birth.mode = creation._ENTERING, mode
        if mode == COMMUNICATOR:
            self._inside = key
        return [Enter(key, mode, birth.ticket)]

    monkeypatch.setattr(Gate, "go", go)
    wrong(Scenario(RING, crashes=1), "is entered in the midst of", "are stuck in")


def test_members_of_the_leader_s_process_must_not_answer_in_between(monkeypatch):
    """The root leads, and a member is dead: all is over before the ticket's number is known."""

    def nested(self, actions):
        for action in actions:
            self._act(action)

    monkeypatch.setattr(world._Course, "_do", nested)
    wrong(Scenario(NEIGHBOURS, crashes=1), "tickets: [1]")


def test_a_communicator_that_comes_late_is_counted(monkeypatch):
    def loosened(self, made):
        self.wedged -= 1

    monkeypatch.setattr(Gate, "loosened", loosened)
    wrong(Scenario(NEIGHBOURS, expiries=1), "1 communicators, and its gate counts 0")


def test_members_that_are_not_told_of_their_leader_s_death_wait(monkeypatch):
    def _leader_gone(self, key, request):
        """Does nothing."""

    monkeypatch.setattr(World, "_leader_gone", _leader_gone)
    wrong(Scenario(NEIGHBOURS, crashes=1, deaf=True), "waits for", "requests of leaders")


def test_one_that_is_forgotten_on_its_way_is_given_up(monkeypatch):
    monkeypatch.setattr(World, "_give_up", lambda self, key, why: None)
    wrong(Scenario(NEIGHBOURS, drops=1), "its gate does not know", "in the end", "stuck")
