"""Jobs that talk: barriers and groups of tasks of any job on any rank, and across levels."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from flux_mpi.client.handle import Handle
from flux_mpi.message.errors import FluxError

if TYPE_CHECKING:
    from collections.abc import Callable

    Instance = Any

LIMIT_S = 30


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def entered(instance: Instance, name: str) -> int:
    rows = instance.handle.call("barrier.status", {"name": name})["barriers"]
    return rows[0][1] if rows else 0


# -- barriers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 4])
def test_tasks_of_different_jobs_meet_again_and_again(
    start: Callable[..., Instance], size: int
) -> None:
    """Two jobs with a task a rank; what one writes before a barrier the other reads after it."""
    instance = start("--cores-per-rank=2", size=size)
    ranks = max(size, 1)
    code = (
        "import sys, os, flux_mpi\n"
        "me, rank, nprocs = sys.argv[1], os.environ['FLUX_TASK_RANK'], int(sys.argv[2])\n"
        "with flux_mpi.Handle() as handle:\n"
        "    kvs = flux_mpi.KVS(handle, 'primary')\n"
        "    other = 'b' if me == 'a' else 'a'\n"
        "    for step in range(20):\n"
        "        kvs.put(f'{me}.{rank}', step)\n"
        "        handle.barrier('written', nprocs, timeout=60)\n"
        "        assert kvs.get(f'{other}.{rank}') == step\n"
        "        handle.barrier('read', nprocs, timeout=60)\n"
    )
    jobs = [
        instance.popen(
            "run",
            "-N",
            str(ranks),
            "-n",
            str(ranks),
            sys.executable,
            "-c",
            code,
            me,
            str(2 * ranks),
        )
        for me in "ab"
    ]
    assert [finish(job) for job in jobs] == [(0, "", "")] * 2
    assert instance.handle.call("barrier.status", {})["barriers"] == []


def test_shell_tasks_meet(flux: Instance) -> None:
    script = "flux-mpi barrier -n 4 loaded && echo $FLUX_TASK_RANK"
    done = flux("run", "-N4", "-n4", "sh", "-c", script)
    assert sorted(done.stdout.split()) == ["0", "1", "2", "3"]


def test_a_task_that_ends_in_a_barrier_fails_it_and_is_named(
    flux: Instance, wait_until: Callable[..., Any]
) -> None:
    waiting = [flux.popen("barrier", "-n", "4", "doomed") for _ in range(2)]
    job = flux.out("submit", "-n1", "flux-mpi", "barrier", "-n", "4", "doomed")
    wait_until(lambda: entered(flux, "doomed") == 3, "all three are in the barrier", LIMIT_S)
    flux("cancel", job)
    for process in waiting:
        status, out, err = finish(process)
        assert (status, out) == (1, "")
        assert err.startswith(f"flux-barrier: ERROR: barrier doomed: {job}.0 on rank ")
        assert err.endswith(" left it, when 3 of 4 had entered\n")
    flux("barrier", "-n", "1", "doomed")


def test_who_gives_up_says_how_far_it_was_and_frees_the_others(
    flux: Instance, wait_until: Callable[..., Any]
) -> None:
    patient = flux.popen("barrier", "-n", "3", "slow")
    wait_until(lambda: entered(flux, "slow") == 1, "one is in the barrier", LIMIT_S)
    done = flux("barrier", "-n", "3", "--timeout=0.1s", "slow", status=1)
    assert done.stderr == ("flux-barrier: ERROR: barrier slow: 2 of 3 have entered after 0.1 s\n")
    status, _, err = finish(patient)
    assert status == 1
    assert "left it, when 2 of 3 had entered" in err


def test_who_means_another_number_is_refused(
    flux: Instance, wait_until: Callable[..., Any]
) -> None:
    first = flux.popen("barrier", "-n", "2", "b")
    wait_until(lambda: entered(flux, "b") == 1, "one is in the barrier", LIMIT_S)
    done = flux("barrier", "-n", "3", "b", status=1)
    assert "barrier b: nprocs: 3 is not allowed, as 1 entered with nprocs 2" in done.stderr
    flux("barrier", "-n", "2", "b")
    assert finish(first) == (0, "", "")


@pytest.mark.parametrize("victim", [1, 3])
def test_a_lost_broker_fails_the_barriers_of_its_clients_and_leaves_their_groups(
    start: Callable[..., Instance], wait_until: Callable[..., Any], victim: int
) -> None:
    """Fan-out 1, so that rank 1 has 2 and 3 below it."""
    instance = start("--cores-per-rank=1", "--fanout=1", size=4)
    handles = [Handle(instance.uri_of(rank)) for rank in range(4)]
    try:
        for rank, handle in enumerate(handles):
            handle.join_group("g", f"m.{rank}")
        inside = [h.rpc("barrier.enter", {"name": "b", "nprocs": 9}) for h in handles]
        wait_until(lambda: entered(instance, "b") == 4, "all are in the barrier", LIMIT_S)
        os.kill(instance.broker_pid(victim), signal.SIGKILL)
        for rank in range(victim):
            with pytest.raises(FluxError) as caught:
                inside[rank].get(LIMIT_S)
            assert f"barrier b: rank {victim} was lost with {4 - victim}" in str(caught.value)
            assert "when 4 of 9 had entered" in str(caught.value)
        left = [f"m.{rank}" for rank in range(victim)]
        for rank in range(victim):
            for change in handles[rank].watch_group("g"):
                if change.members == left:
                    break
    finally:
        for handle in handles:
            handle.close()


# -- groups ----------------------------------------------------------------------------------------


def test_a_task_is_a_member_for_as_long_as_its_command_runs(
    flux: Instance, wait_until: Callable[..., Any]
) -> None:
    script = "flux-mpi group join workers -- flux-mpi barrier -n 5 go"
    job = flux.out("submit", "-N4", "-n4", "sh", "-c", script)
    everyone = [f"{job}.{rank}" for rank in range(4)]
    shown = flux.out("group", "watch", "--size=4", "--timeout=30s", "workers")
    assert sorted(shown.splitlines()) == [f"+{member}" for member in everyone]
    assert flux.out("group", "get", "workers").splitlines() == everyone
    assert flux.out("exec", "-r", "3", "flux-mpi", "group", "get", "-c", "workers") == "4"
    flux("group", "leave", "-m", everyone[1], "workers")
    assert flux.out("group", "get", "-c", "workers") == "3"
    flux("barrier", "-n", "5", "go")
    assert flux.out("job", "status", job) == ""
    wait_until(lambda: not flux.handle.group("workers"), "all have left", LIMIT_S)


def test_a_watcher_sees_a_cancelled_job_leave(flux: Instance) -> None:
    watch = flux.handle.watch_group("workers")
    assert next(watch).members == []
    job = flux.out("submit", "-N2", "-n2", "flux-mpi", "group", "join", "workers", "sleep", "100")
    seen: set[str] = set()
    while len(seen) < 2:
        seen |= set(next(watch).joined)
    assert seen == {f"{job}.0", f"{job}.1"}
    flux("cancel", job)
    while next(watch).members:
        continue
    watch.close()  # type: ignore[attr-defined]


# -- across levels ---------------------------------------------------------------------------------


def test_a_child_talks_to_its_parent(flux: Instance) -> None:
    """By option, from the child's program and from a task of the child."""
    script = (
        "flux-mpi getattr size; flux-mpi --parent getattr size; flux-mpi -r getattr size; "
        "flux-mpi -p kvs put talked=1; flux-mpi -p kvs get talked; "
        "flux-mpi -p kvs get --namespace=primary talked || echo own; "
        "flux-mpi run flux-mpi -p getattr size; "
        "flux-mpi -p -p getattr size; echo $?"
    )
    done = flux("run", "-n1", "flux-mpi", "start", "sh", "-c", script)
    assert done.stdout.split() == ["1", "4", "4", "1", "own", "4", "1"]
    assert "has no parent" in done.stderr


def test_there_is_no_parent_of_the_outermost(flux: Instance) -> None:
    done = flux("--parent", "getattr", "size", status=1)
    assert done.stderr.startswith("flux-mpi: ERROR: --parent: the instance at local://")
    assert flux.out("--root", "getattr", "size") == "4"
    with pytest.raises(FluxError, match="has no parent"):
        flux.handle.parent()


def test_tasks_of_a_child_and_of_its_parent_meet(flux: Instance) -> None:
    """Two levels below in one barrier and one group: by ``Handle.parent``, ``Handle(uri)``."""
    code = (
        "import os\n"
        "from flux_mpi import Handle\n"
        "with Handle() as here, here.parent() as above, Handle(above.uri) as too:\n"
        "    assert (here.size, above.size, too.size) == (1, 4, 4)\n"
        "    assert too.kvs.namespace == 'primary' != here.kvs.namespace\n"
        "    print(above.join_group('family'), flush=True)\n"
        "    above.barrier('family', 2, timeout=60)\n"
        "    too.kvs.put('from-below', os.environ['FLUX_JOB_ID_PATH'])\n"
        "    above.barrier('family', 2, timeout=60)\n"
    )
    words = ["run", "-n1", "flux-mpi", "start", "flux-mpi", "run", sys.executable, "-c", code]
    below = flux.popen(*words)
    flux.handle.barrier("family", 2, timeout=60)
    (member,) = flux.handle.group("family")
    flux.handle.barrier("family", 2, timeout=60)
    status, out, err = finish(below)
    assert (status, out) == (0, f"{member}\n"), err
    path = flux.handle.kvs.get("from-below")
    flux.handle.kvs.unlink("from-below")
    assert member == f"{path}.0"
    assert path.startswith("/ƒ")
    assert path.count("/ƒ") == 2


def test_the_uri_option_reaches_another_instance(
    flux: Instance, start: Callable[..., Instance]
) -> None:
    other = start(size=0)
    assert flux.out("--uri", other.uri, "getattr", "size") == "1"
    with contextlib.closing(Handle(other.uri)) as handle:
        assert handle.size == 1
