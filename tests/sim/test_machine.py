"""A thousand brokers in one process: the code of a real instance under a virtual clock."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from flux_mpi.formats import fluid
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.message.errors import FluxError
from flux_mpi.sim.machine import Machine

sys.path.insert(0, os.path.dirname(__file__))
from campaign import run_campaign

SIZE = 1000


def spec(*command, **request):
    request.setdefault("nslots", 1)
    return Jobspec.from_command(list(command), environment={}, cwd="/", **request).to_dict()


@pytest.fixture(scope="module")
def thousand():
    return Machine(SIZE, cores=4, fanout=16)


def test_a_thousand_brokers_form_the_tree(thousand):
    status = thousand.rpc("overlay.status", {})
    assert status["status"] == "full"
    seen, stack = set(), [status]
    while stack:
        node = stack.pop()
        assert len(node["children"]) <= 16
        seen.add(node["rank"])
        stack.extend(node["children"])
    assert seen == set(range(SIZE))
    info = thousand.rpc("resource.info", {})
    assert (info["nnodes"], info["ncores"]) == (SIZE, 4 * SIZE)


def test_any_rank_reaches_any_other(thousand):
    for at, to in ((0, 999), (999, 0), (500, 17), (17, 501)):
        assert thousand.rpc("broker.ping", {"n": at}, rank=to, at=at)["rank"] == to


def test_ten_thousand_jobs_run_each_exactly_once(thousand):
    before = sum(link.spawned for link in thousand.links)
    arrays = thousand.submit(spec("sleep", "0.5"), 10_000, at=700)
    statuses = thousand.wait_all(arrays, at=700)
    assert len(statuses) == 10_000
    assert set(statuses.values()) == {0}
    assert sum(link.spawned for link in thousand.links) - before == 10_000
    stats = thousand.rpc("job-manager.stats")
    assert stats["active_jobs"] == 0
    allocated = thousand.rpc("resource.status")["allocated"]
    assert not allocated["execution"]["R_lite"]


def test_a_lost_interior_broker_hangs_nobody():
    machine = Machine(SIZE, cores=1, fanout=8)
    interior = 3
    below = machine.tree.subtree(interior)
    assert len(below) > 8
    # Calls under way across the gap in both directions, and a stream; jobs on every core.
    arrays = machine.submit(spec("sleep", "100"), SIZE)
    machine.run(until=lambda: sum(link.spawned for link in machine.links) == SIZE)
    down = machine.start_rpc("exec.output", {"id": 0, "follow": True}, rank=below[-1], stream=True)
    waiting = machine.start_rpc("job-manager.wait-all", {"ids": arrays}, at=below[-1], stream=True)
    machine.remove(interior)
    late = machine.start_rpc("broker.ping", {}, rank=below[-1])
    cut_off = machine.start_rpc("broker.ping", {}, rank=0, at=below[1])
    machine.run(seconds=30)
    for answers in (down, waiting, late, cut_off):
        assert [answer.errnum for answer in answers[-1:]] == [errno.EHOSTUNREACH]
    # Who is cut off ends; who is not goes on, without those that are gone.
    assert set(machine.left) == set(below) - {interior}
    status = machine.rpc("overlay.status", {})
    assert status["status"] == "degraded"
    statuses = machine.wait_all(arrays, at=999 if 999 not in below else 998)
    lost = [status for status in statuses.values() if status]
    assert len(statuses) == SIZE
    assert len(lost) == len(below)
    # What is left still runs jobs, and those that went with the lost ranks say why.
    again = machine.wait_all(machine.submit(spec("true"), 2 * SIZE))
    assert set(again.values()) == {0}
    assert len(again) == 2 * SIZE
    failed = next(jobid for jobid, status in statuses.items() if status)
    log = machine.rpc("job-info.lookup", {"id": failed, "keys": ["eventlog"]})["eventlog"]
    exceptions = [json.loads(line) for line in log.splitlines() if '"exception"' in line]
    assert exceptions[0]["context"]["type"] == "node-failure"


def test_unknown_ranks_and_services_are_refused_at_once(thousand):
    for rank in (SIZE, 10**9):
        with pytest.raises(FluxError) as caught:
            thousand.rpc("broker.ping", {}, rank=rank, at=321)
        assert caught.value.errno == errno.EHOSTUNREACH
    with pytest.raises(FluxError) as caught:
        thousand.rpc("nothing.here", {}, at=321)
    assert caught.value.errno == errno.ENOSYS


def test_an_orderly_shutdown_takes_everyone_along():
    machine = Machine(64, fanout=3)
    machine.submit(spec("sleep", "1000"), 100)
    machine.run(until=lambda: any(link.spawned for link in machine.links))
    machine.rpc("instance.shutdown", {})
    machine.run(seconds=60)
    assert set(machine.left) == set(range(64))
    assert all(orderly for _, orderly in machine.left.values())


def test_ids_of_an_array_are_consecutive(thousand):
    [(first, count)] = thousand.submit(spec("true"), 2000)
    assert count == 2000
    statuses = thousand.wait_all([(first, count)])
    assert set(statuses) == {fluid.nth(first, k) for k in range(2000)}


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="needs an mpiexec")
def test_event_logs_are_those_of_four_real_ranks():
    machine = Machine(4, nodes=1, cores=2)
    simulated = run_campaign(machine.rpc, machine.stream_some)
    script = os.path.join(os.path.dirname(__file__), "campaign.py")
    real = subprocess.run(
        ["mpiexec", "-n", "4", sys.executable, "-m", "flux_mpi", "start", "--cores-per-rank=2",
         sys.executable, script],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert real.returncode == 0, real.stderr
    assert simulated == json.loads(real.stdout)
    assert len(simulated) > 15


def test_a_metered_broker_is_busy_as_long_as_its_code_takes() -> None:
    """With a clock that ticks a millisecond at each look, every turn costs some."""
    ticks = iter(range(10**9))
    free, metered = Machine(2), Machine(2, meter=lambda: next(ticks) * 1e-3)
    times = []
    for machine in (free, metered):
        began = machine.reactor.now()
        machine.wait_all(machine.submit(spec("sleep", "1"), 3))
        times.append(machine.reactor.now() - began)
    assert times[0] < 1.01
    assert times[1] > times[0] + 0.01


def test_a_supervisor_that_takes_time_to_start_tasks() -> None:
    machine = Machine(1, cores=10, spawn_s=0.5)
    began = machine.reactor.now()
    machine.wait_all(machine.submit(spec("sleep", "1"), 10))
    assert 6.0 <= machine.reactor.now() - began < 6.1
