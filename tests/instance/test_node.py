"""Whole nodes on a simulated machine: who leaves, who is missed, and what a user may set."""

import pytest

from flux_mpi.formats.idset import IDSet
from flux_mpi.instance.lifecycle import LEFT, RUN
from flux_mpi.instance.node import PART_BOUND_S
from flux_mpi.message.errors import FluxError
from flux_mpi.sim.machine import Machine


@pytest.fixture
def machine():
    return Machine(7, fanout=2)


def states(machine):
    status, stack = {}, [machine.rpc("overlay.status")]
    while stack:
        node = stack.pop()
        status[node["rank"]] = node["status"]
        stack += node["children"]
    return status


def end(machine):
    machine.rpc("instance.shutdown")
    expected = len(machine.nodes)
    machine.run(until=lambda: len(machine.left) == expected)


def test_everyone_leaves_in_good_order_leaves_first(machine):
    end(machine)
    assert set(machine.left.values()) == {(0, True)}
    assert set(list(machine.left)[:4]) == {3, 4, 5, 6}


def test_the_levels_are_logged_and_all_run(machine):
    machine.rpc("broker.ping", rank=6)
    assert {node.life.level for node in machine.nodes} == {RUN}
    end(machine)
    assert {node.life.level for node in machine.nodes} == {LEFT}


@pytest.mark.parametrize(("rank", "gone"), [(3, {3}), (1, {1, 3, 4})])
def test_who_leaves_unasked_is_missed_like_one_that_crashed(machine, rank, gone):
    machine.nodes[rank].life.abort(1)
    machine.nodes[rank].reactor.touch()
    machine.run(until=lambda: set(machine.left) == gone)
    machine.run(seconds=1)
    assert {r for r, status in states(machine).items() if status == "lost"} == gone
    assert set(IDSet.parse(machine.rpc("resource.status")["offline"])) == gone
    with pytest.raises(FluxError, match=f"rank {rank}"):
        machine.rpc("broker.ping", rank=rank)
    for each in range(7):
        if each not in gone:
            assert machine.rpc("broker.ping", rank=each)["rank"] == each


def test_the_rest_ends_in_good_order_after_a_crash(machine):
    machine.remove(1)
    machine.run(seconds=1)
    machine.rpc("instance.shutdown")
    machine.run(until=lambda: {0, 2, 5, 6} <= set(machine.left))
    assert [machine.left[rank] for rank in (0, 2, 5, 6)] == [(0, True)] * 4
    assert {machine.left[rank] for rank in (3, 4)} == {(1, False)}, "cut off from the root"


def test_a_parent_that_never_answers_holds_nobody_for_long(machine):
    machine.nodes[1].broker.control("bye", lambda message, peer: None)
    before = machine.reactor.now()
    machine.nodes[3].life.shutdown()
    machine.nodes[3].reactor.touch()
    machine.run(until=lambda: 3 in machine.left)
    assert machine.reactor.now() - before == pytest.approx(PART_BOUND_S, abs=0.1)


def test_errors_of_all_ranks_come_together_at_the_root(machine):
    for level in (3, 6):
        machine.rpc("log.append", {"level": level, "text": f"from five: {level}"}, rank=5)
    machine.run(seconds=1)
    texts = [entry[4] for entry in machine.rpc("log.dmesg", rank=0)["entries"]]
    assert "from five: 3" in texts
    assert "from five: 6" not in texts
    machine.rpc("attr.set", {"name": "log-forward-level", "value": "6"}, rank=5)
    machine.rpc("log.append", {"level": 6, "text": "now too"}, rank=5)
    machine.run(seconds=1)
    (entry,) = [e for e in machine.rpc("log.dmesg", rank=0)["entries"] if e[4] == "now too"]
    assert entry[1:4] == [6, "user", 5]


def test_attributes_are_those_of_the_rank(machine):
    for rank in (0, 1, 6):
        attrs = machine.rpc("attr.list", rank=rank)["attrs"]
        assert (attrs["rank"], attrs["size"]) == (str(rank), "7")
        assert attrs["tbon.level"] == str(machine.tree.level(rank))
        assert (attrs["tbon.maxlevel"], attrs["tbon.fanout"]) == ("2", "2")
        assert attrs["tbon.topo"] == "kary:2"
        assert attrs["hostname"] == f"node{rank}"
        assert attrs["hostlist"] == "node[0-6]"


def test_bounds_can_be_set_while_it_runs(machine):
    """With jobs that do not end, cleanup takes as long as it is let."""
    machine.rpc("attr.set", {"name": "broker.cleanup-timeout", "value": "90s"})
    machine.nodes[0].root.jobs.stop = lambda now, done: None
    before = machine.reactor.now()
    machine.rpc("instance.shutdown")
    machine.run(until=lambda: 0 in machine.left)
    assert machine.reactor.now() - before == pytest.approx(90, abs=5)
    assert machine.left[0] == (0, False)
