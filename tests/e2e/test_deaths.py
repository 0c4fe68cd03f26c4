"""Interrupts, kills and losses: who must end ends, who can go on goes on, nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flux_mpi.client.handle import Handle
from flux_mpi.message.errors import FluxError

if TYPE_CHECKING:
    from collections.abc import Callable

    Instance = Any
    Wait = Callable[..., Any]

POLITE = "trap 'echo ended > polite; exit 0' TERM; echo up > up; while :; do sleep 0.05; done"
STUBBORN = "trap '' TERM; echo $$ > stubborn; while :; do sleep 0.05; done"


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def spoken(path: Path) -> Callable[[], str]:
    """The content of a file once it is there and complete."""
    return lambda: path.read_text().strip() if path.exists() else ""


# -- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 2])
def test_one_interrupt_is_an_orderly_end(
    start: Callable[..., Instance], wait_until: Wait, size: int, on_open_mpi: bool
) -> None:
    """Running jobs get SIGTERM, then SIGKILL; the status is that of an interrupt."""
    instance = start("--cores-per-rank=2", "--conf=exec.kill-timeout=0.5", size=size)
    instance("submit", "--quiet", "sh", "-c", POLITE)
    instance("submit", "--quiet", "sh", "-c", STUBBORN)
    wait_until(spoken(instance.folder / "up"), "the polite job is up")
    stubborn = int(wait_until(spoken(instance.folder / "stubborn"), "the stubborn one too"))
    instance.note_shared_memory()
    instance.close_handle()
    instance.interrupt()
    # Open MPI's mpiexec says 1 whatever its ranks say when it was interrupted.
    assert instance.wait() == (1 if size and on_open_mpi else 130)
    assert (instance.folder / "polite").read_text() == "ended\n"
    assert gone(stubborn)


@pytest.mark.parametrize("size", [0, 2])
def test_two_interrupts_are_the_end_at_once(
    start: Callable[..., Instance], wait_until: Wait, size: int, on_open_mpi: bool
) -> None:
    if size and on_open_mpi:
        pytest.skip("one is enough for Open MPI's mpiexec, which then kills its ranks")
    instance = start("--cores-per-rank=2", "--conf=exec.kill-timeout=600.0",
                     "--conf=broker.cleanup-timeout=600.0", size=size)  # fmt: skip
    instance("submit", "--quiet", "sh", "-c", STUBBORN)
    stubborn = int(wait_until(spoken(instance.folder / "stubborn"), "the job is up"))
    instance.note_shared_memory()
    log = instance.handle.rpc("log.dmesg", {"follow": True}, streaming=True)
    instance.interrupt()
    # The second one is another one only once the first has been taken.
    heard = ""
    while "SIGINT" not in heard:
        heard += str(log.get(30))
    time.sleep(0.6)  # sooner, it would be the same Ctrl-C delivered twice
    assert not gone(stubborn)
    assert instance.process.poll() is None
    begun = time.monotonic()
    instance.interrupt()
    # mpiexec is interrupted twice as well: it kills its ranks, and says what it likes.
    status = instance.wait(60)
    assert size or status == 130
    wait_until(lambda: gone(stubborn), "the job has ended", 30)
    assert time.monotonic() - begun < 100  # and not the 600 s that politeness may take


def test_a_terminal_hangs_up(start: Callable[..., Instance]) -> None:
    instance = start("--cores-per-rank=1", size=2)
    instance("submit", "--quiet", "--wait-event=start", "sleep", "100")
    instance.note_shared_memory()
    instance.close_handle()
    instance.interrupt(signal.SIGHUP)
    assert instance.wait() != 0


def test_an_initial_program_that_is_killed_ends_the_instance(
    start: Callable[..., Instance],
) -> None:
    instance = start("--cores-per-rank=1", size=2)
    instance("submit", "--quiet", "--wait-event=start", "sleep", "100")
    instance.note_shared_memory()
    os.kill(int((instance.folder / "pid").read_text()), signal.SIGKILL)
    assert instance.wait() == 137


# -- tasks ----------------------------------------------------------------------------------------


def test_a_task_that_ignores_sigterm_is_killed(
    start: Callable[..., Instance], wait_until: Wait
) -> None:
    instance = start("--conf=exec.kill-timeout=0.3", size=0)
    jobid = instance.out("submit", "sh", "-c", STUBBORN)
    pid = int(wait_until(spoken(instance.folder / "stubborn"), "the job is up"))
    instance("cancel", jobid)
    done = instance("job", "attach", jobid, status=137)
    assert "type=cancel" in done.stderr
    assert gone(pid)


@pytest.mark.parametrize("holds", ["> /dev/null 2>&1", ""], ids=["silent", "holding its output"])
def test_a_daemon_that_a_job_leaves_behind_ends_with_it(
    flux: Instance, wait_until: Wait, holds: str
) -> None:
    script = f"setsid sh -c 'echo $$ > daemon; exec sleep 1000' {holds} & " + (
        "while [ ! -s daemon ]; do sleep 0.02; done; echo done"
    )
    done = flux("run", "sh", "-c", script)
    assert done.stdout == "done\n"
    daemon = int((flux.folder / "daemon").read_text())
    wait_until(lambda: gone(daemon), "the daemon has ended", 30)


def test_children_end_with_a_cancelled_job(flux: Instance, wait_until: Wait) -> None:
    script = "sleep 1000 & echo $! > child; wait"
    jobid = flux.out("submit", "sh", "-c", script)
    child = int(wait_until(spoken(flux.folder / "child"), "the job is up"))
    flux("cancel", jobid)
    flux("job", "wait-event", jobid, "clean")
    wait_until(lambda: gone(child), "the child has ended", 30)


def test_a_task_killed_from_outside(flux: Instance, wait_until: Wait) -> None:
    jobid = flux.out("submit", "sh", "-c", "echo $$ > pid; exec sleep 100")
    os.kill(int(wait_until(spoken(flux.folder / "pid"), "the job is up")), signal.SIGKILL)
    done = flux("job", "attach", jobid, status=137)
    assert done.stderr == "flux-job: task(s) Killed\n"


# -- clients --------------------------------------------------------------------------------------


def test_a_client_that_goes_in_mid_stream(flux: Instance, wait_until: Wait) -> None:
    """A job goes on when who looked at it is gone, and nothing of them is kept."""
    script = "echo up; i=0; while :; do i=$((i+1)); echo $i; done"
    jobid = flux.out("submit", "sh", "-c", script)
    for _ in range(3):
        watcher = flux.popen("job", "attach", jobid)
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "up\n"
        watcher.kill()
        watcher.communicate(timeout=30)
    for words in (["event", "sub"], ["kvs", "watch", "--waitcreate", "e2e.never"], ["dmesg", "-f"]):
        watcher = flux.popen(*words)
        time.sleep(0.2)
        watcher.kill()
        watcher.communicate(timeout=30)
    assert flux.alive()
    assert flux.out("jobs", "-n", "-o", "{status_abbrev}", jobid) == "R"
    clients = [flux.handle.call("broker.stats", {}, rank)["clients"] for rank in range(4)]
    assert sum(clients) <= 3
    flux("cancel", jobid)
    flux("job", "wait-event", jobid, "clean")


def test_the_end_of_a_pipe_ends_the_command(flux: Instance) -> None:
    """``flux-mpi … | head`` stops without a word."""
    flux("submit", "--quiet", "--wait", "--cc=1-300", "true")
    listing = flux.popen("jobs", "-a", "-c0")
    assert listing.stdout is not None
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.stderr is not None
    assert listing.stderr.read() == ""
    assert listing.wait(30) in (0, 1, 141, -signal.SIGPIPE)


# -- brokers --------------------------------------------------------------------------------------


def test_a_killed_leaf_costs_only_its_jobs(
    start: Callable[..., Instance], wait_until: Wait
) -> None:
    instance = start("--cores-per-rank=2")
    job = "echo $$ > pid.$FLUX_TASK_RANK; exec sleep 1000"
    there = instance.out("submit", "--requires=rank:3", "sh", "-c", job)
    wait_until(spoken(instance.folder / "pid.0"), "the job is up")
    spread = instance.out("submit", "-N4", "-n4", "-c1", "--wait-event=start", "sleep", "1000")
    elsewhere = instance.out("submit", "--requires=rank:1", "sh", "-c",
                             "while [ ! -e go ]; do sleep 0.05; done; echo fine")  # fmt: skip
    instance.note_shared_memory()
    os.kill(instance.broker_pid(3), signal.SIGKILL)

    for jobid in (there, spread):
        done = instance("job", "attach", jobid, status=None)
        assert done.returncode != 0
        assert "type=node-failure severity=0" in done.stderr
    task = int((instance.folder / "pid.0").read_text())
    wait_until(lambda: gone(task), "its tasks have ended", 30)

    # The rest goes on.
    (instance.folder / "go").touch()
    assert instance.out("job", "attach", elsewhere) == "fine"
    assert sorted(instance.out("run", "-N3", "-n3", "flux-mpi", "getattr", "rank").split()) == [
        "0", "1", "2",
    ]  # fmt: skip
    assert re.search(r"^ *down +1 ", instance.out("resource", "list"), re.MULTILINE)
    tree = instance.out("overlay", "status")
    assert re.search(r"3 \S+: lost", tree)
    assert re.search(r"^0 \S+: (partial|degraded)", tree)
    with pytest.raises(FluxError):
        instance.handle.call("broker.ping", {}, 3, timeout=30)
    # Four nodes may come back: who asks for them waits, and can be cancelled.
    waiting = instance.out("submit", "-N4", "true")
    instance("cancel", waiting)
    instance("job", "attach", waiting, status=1)
    assert "lost rank 3" in instance.out("dmesg")
    assert instance.stop() == 0


def test_a_killed_interior_broker_takes_its_subtree_only(start: Callable[..., Instance]) -> None:
    """A chain 0–1–2–3: with 1 go 2 and 3, which cannot report to anyone any more."""
    instance = start("--cores-per-rank=1", "--fanout=1")
    below = instance.out("submit", "--requires=rank:3", "--wait-event=start", "sleep", "1000")
    pending = instance.handle.rpc("exec.output", {"id": 1, "follow": True}, 3, streaming=True)
    instance.note_shared_memory()
    os.kill(instance.broker_pid(1), signal.SIGKILL)
    done = instance("job", "attach", below, status=None)
    assert "type=node-failure" in done.stderr
    with pytest.raises(FluxError):
        pending.get(30)
    assert instance.out("run", "flux-mpi", "getattr", "rank") == "0"
    assert instance.stop() == 0


def test_a_killed_root_ends_everything(start: Callable[..., Instance]) -> None:
    instance = start("--cores-per-rank=1")
    instance("submit", "--quiet", "--cc=1-4", "-n1", "--wait-event=start", "sleep", "1000")
    waiting = Handle(instance.uri_of(2))
    stream = waiting.rpc("kvs.watch", {"ns": "primary", "key": "x", "waitcreate": True},
                         streaming=True)  # fmt: skip
    instance.note_shared_memory()
    os.kill(instance.broker_pid(0), signal.SIGKILL)
    assert instance.wait() != 0
    with pytest.raises(FluxError):  # whoever waited is told
        stream.get(30)
    waiting.close()


def test_a_killed_supervisor(start: Callable[..., Instance]) -> None:
    """Without the process that started them, a broker and its tasks cannot go on."""
    instance = start("--cores-per-rank=1", size=3)
    jobid = instance.out("submit", "--requires=rank:2", "--wait-event=start", "sleep", "1000")
    supervisor = parent_of(instance.broker_pid(2))
    instance.note_shared_memory()
    os.kill(supervisor, signal.SIGKILL)
    # A launcher may end the whole job for it; if not, the instance loses one rank.
    try:
        done = instance("job", "attach", jobid, status=None)
        assert done.returncode != 0
    except subprocess.TimeoutExpired:
        pytest.fail("nobody told the client")
    if instance.process.poll() is None:
        instance.let_go()
    instance.wait()


def test_a_killed_launcher(start: Callable[..., Instance]) -> None:
    """SIGKILL leaves mpiexec no time to tell its ranks: they notice, and nothing stays."""
    instance = start("--cores-per-rank=1", size=3)
    instance("submit", "--quiet", "--wait-event=start", "sleep", "1000")
    instance.note_shared_memory()
    instance.process.kill()
    assert instance.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 40
    while instance.leftovers() and time.monotonic() < deadline:
        time.sleep(0.05)
    instance.assert_nothing_left()


def test_a_stopped_leaf_hangs_nobody(start: Callable[..., Instance]) -> None:
    """A broker that is silent but not dead: the others go on without it."""
    instance = start("--cores-per-rank=1", size=3)
    pid = instance.broker_pid(2)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert instance.out("run", "--requires=rank:1", "flux-mpi", "getattr", "rank") == "1"
        with pytest.raises((TimeoutError, FluxError)):
            instance.handle.call("broker.ping", {}, 2, timeout=1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert instance.handle.call("broker.ping", {}, 2, timeout=30)["rank"] == 2
    assert instance.stop() == 0
