"""Children on a simulated machine: the same code as under MPI, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from flux_mpi.instance import hosting
from flux_mpi.sim.children import SimulatedHouse
from flux_mpi.sim.machine import Machine


def child(command: list[str], *, nnodes: int | None = None) -> dict[str, Any]:
    slot = {"type": "slot", "count": 1, "label": "t", "with": [{"type": "core", "count": 1}]}
    resources = [slot]
    if nnodes is not None:
        resources = [{"type": "node", "count": nnodes, "exclusive": True, "with": [slot]}]
    return {
        "version": 1,
        "resources": resources,
        "tasks": [
            {
                "command": ["flux-mpi", "broker", *command],
                "slot": "t",
                "count": {"per_slot": 1},
            }
        ],
        "attributes": {"system": {"duration": 0}},
    }


@pytest.mark.parametrize("nnodes", [None, 2, 7, 16])
def test_a_child_runs_its_program_and_ends(nnodes: int | None) -> None:
    machine = Machine(16, cores=2)
    arrays = machine.submit(child(["sleep", "5"], nnodes=nnodes))
    began = machine.reactor.now()
    assert set(machine.wait_all(arrays).values()) == {0}
    assert 5 <= machine.reactor.now() - began < 6
    assert all(node.hosting is not None and not node.hosting.children for node in machine.nodes)


def test_the_status_of_its_program() -> None:
    machine = Machine(4)
    assert set(machine.wait_all(machine.submit(child(["exit", "3"], nnodes=4))).values()) == {
        3 << 8
    }


@pytest.mark.parametrize(
    "options", [["--fanout=2"], ["-Stbon.fanout=2"], ["-S", "tbon.topo=kary:2"]]
)
def test_the_tree_of_its_brokers(options: list[str]) -> None:
    machine = Machine(7, fanout=6)
    machine.submit(child([*options, "sleep", "100"], nnodes=7))
    machine.run(seconds=1)
    host = machine.nodes[0].hosting
    assert host is not None
    (born,) = host.children.values()
    assert born.node is not None
    assert sorted(born.node.broker.children) == [1, 2]


def test_many_on_overlapping_ranks() -> None:
    machine = Machine(8, cores=4)
    arrays = []
    for nnodes in (8, 3, 2, 5, 1, 8):
        arrays += machine.submit(child(["sleep", "1"], nnodes=nnodes), 3)
    done = machine.wait_all(arrays)
    assert len(done) == 18
    assert set(done.values()) == {0}


def test_a_rank_is_lost_with_a_child_on_it() -> None:
    machine = Machine(6)
    arrays = machine.submit(child(["sleep", "100"], nnodes=6))
    machine.run(seconds=1)
    machine.remove(4)
    assert 0 not in machine.wait_all(arrays).values()
    again = machine.submit(child(["sleep", "1"], nnodes=4))
    assert set(machine.wait_all(again).values()) == {0}


@pytest.mark.parametrize("nnodes", [None, 3])
def test_a_defect_in_the_making_ends_the_job_and_no_other(
    monkeypatch: pytest.MonkeyPatch, nnodes: int | None
) -> None:
    machine = Machine(4, cores=2)
    real = hosting.Node

    def broken(*args: Any, **how: Any) -> Any:
        if "bad" in how["program"]._command:
            raise RuntimeError("out of luck")
        return real(*args, **how)

    monkeypatch.setattr(hosting, "Node", broken)
    bad = machine.submit(child(["sleep", "1", "bad"], nnodes=nnodes), 2)
    good = machine.submit(child(["sleep", "1"], nnodes=nnodes), 2)
    assert set(machine.wait_all(bad).values()) == {126 << 8}
    assert set(machine.wait_all(good).values()) == {0}
    assert all(node.hosting is not None and not node.hosting.children for node in machine.nodes)
    log = [entry[4] for entry in machine.nodes[0].broker.ring.entries()]
    assert any("RuntimeError: out of luck" in text for text in log)


def test_what_cannot_be_given_back_keeps_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(2)

    def broken(house: SimulatedHouse, folder: str) -> None:
        raise RuntimeError("stuck")

    monkeypatch.setattr(SimulatedHouse, "remove", broken)
    arrays = machine.submit(child(["sleep", "1"]))
    assert set(machine.wait_all(arrays).values()) == {0}


def test_a_drain_while_a_child_is_made_reaches_it() -> None:
    machine = Machine(4, latency_s=0.1)
    arrays = machine.submit(child(["sleep", "100"], nnodes=4))
    host = machine.nodes[2].hosting
    assert host is not None
    machine.run(until=lambda: bool(host.children))
    (unborn,) = host.children.values()
    assert unborn.node is None
    unborn.inherit(True, "smoke")
    root = machine.nodes[0].hosting
    assert root is not None
    machine.run(seconds=10)
    (born,) = root.children.values()
    assert born.node is not None
    assert born.node.root is not None
    assert list(born.node.root.resources.monitor.drained) == [2]
    assert set(machine.wait_all(arrays).values()) == {0}
