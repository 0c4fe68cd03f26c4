"""The spawner's decisions, over a fake operating system and a clock that the test turns."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

import pytest

from flux_mpi.shell.spawner import (
    GRACE_S,
    HOLD_LEASED_S,
    HOLD_S,
    LINGER_S,
    SWEEP_S,
    WINDOW,
    Spawner,
)
from flux_mpi.shell.system import SpawnError

TERM, KILL = int(signal.SIGTERM), int(signal.SIGKILL)


class FakeSystem:
    """Processes that do what the test says; pipes are lists of bytes."""

    null = 0

    def __init__(self) -> None:
        self.pids = 1000
        self.fds = 10
        self.spawned: list[dict[str, Any]] = []
        self.pipes: dict[int, list[bytes]] = {}
        self.ended: set[int] = set()
        self.open_fds: set[int] = set()
        self.groups: dict[int, int] = {}
        self.signals: list[tuple[int, int]] = []
        self.deaf: set[int] = set()
        self.adopted: dict[int, bytes | dict[bytes, bytes] | None] = {}
        self.refuse: SpawnError | None = None
        self.accept = 1 << 30
        self.written = b""

    def enter(self, cwd: bytes) -> None:
        if cwd == b"/missing":
            raise SpawnError(errno.ENOENT, "working directory /missing")

    def settle(self) -> None:
        pass

    def pipe(self, keep: int) -> tuple[int, int]:
        self.fds += 2
        ends = (self.fds, self.fds + 1)
        self.open_fds |= set(ends)
        self.pipes[ends[0]] = []
        return ends

    def open(self, path: bytes, flags: int) -> int:
        self.fds += 1
        self.open_fds.add(self.fds)
        return self.fds

    def close(self, fd: int) -> None:
        self.open_fds.remove(fd)

    def spawn(self, argv: Any, env: Any, cpus: Any, stdio: Any, limits: Any) -> int:
        if self.refuse is not None:
            raise self.refuse
        self.pids += 1
        self.groups[self.pids] = 1
        self.spawned.append({"argv": argv, "env": env, "stdio": stdio, "pid": self.pids})
        return self.pids

    def read(self, fd: int, most: int) -> bytes | None:
        queue = self.pipes[fd]
        if not queue:
            return b"" if fd in self.ended else None
        data = queue.pop(0)
        if len(data) > most:
            queue.insert(0, data[most:])
        return data[:most]

    def write(self, fd: int, data: bytes) -> int | None:
        if self.accept < 0:
            return None
        count = min(self.accept, len(data))
        self.accept -= count
        self.written += data[:count]
        return count

    def kill_group(self, pgid: int, signum: int) -> bool:
        if not self.groups.get(pgid):
            return False
        if signum:
            self.signals.append((pgid, int(signum)))
        return True

    def kill(self, pid: int, signum: int) -> None:
        self.signals.append((pid, int(signum)))

    def children(self) -> list[int]:
        return list(self.adopted)

    def group_of(self, pid: int) -> int:
        return pid

    def variable(self, pid: int, name: bytes) -> bytes | None:
        found = self.adopted[pid]
        if isinstance(found, dict):
            return found.get(name)
        return found if name == b"FLUX_JOB_ID" else None

    def give_terminal(self, pgid: int) -> bool:
        return False


class Bench:
    """A spawner with its fake world."""

    def __init__(self) -> None:
        self.system = FakeSystem()
        self.now = 100.0
        self.watched: dict[int, bool] = {}
        self.spawner = Spawner(
            self.system,  # type: ignore[arg-type]
            self.watched.__setitem__,
            self.watched.__delitem__,
            lambda: self.now,
            lambda: 5.0,
        )

    def spawn(self, tid: int, *, stdin: Any = "null", out: Any = "pipe", job: bytes = b"f1") -> int:
        delta = {b"FLUX_JOB_ID": job} if job else {}
        self.spawner.command(
            ["spawn", tid, [b"cmd"], None, delta, b"", None, stdin, out, out],
        )
        self.spawner.pump(8)
        return self.system.pids

    def outputs(self, index: int = -1) -> tuple[int, int]:
        """Our read ends of a task's stdout and stderr."""
        _, out, err = self.system.spawned[index]["stdio"]
        return out - 1, err - 1

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.spawner.before_wait()
        self.spawner.tick()

    def die(self, pid: int, status: int = 0, leader_only: bool = False) -> bool:
        if not leader_only:
            self.system.groups[pid] = 0
        return self.spawner.reaped(pid, status, 0.5, 0.25, 1234)

    def reports(self) -> list[list[Any]]:
        found = list(self.spawner.reports)
        self.spawner.reports.clear()
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_short_task_is_never_watched(bench: Bench) -> None:
    pid = bench.spawn(1)
    out, err = bench.outputs()
    bench.system.pipes[out].append(b"hi")
    bench.system.ended |= {out, err}
    bench.spawner.before_wait()
    assert bench.watched == {}
    assert bench.die(pid, 256)
    assert bench.reports() == [
        ["started", 1, pid, 5.0],
        ["output", 1, 1, b"hi"],
        ["exited", 1, 256, 5.0, 0.5, 0.25, 1234],
    ]
    assert bench.spawner.idle
    assert bench.system.open_fds == set()


def test_a_task_that_lasts_is_watched_and_starts_are_told(bench: Bench) -> None:
    bench.spawn(1)
    assert not bench.spawner.hurried  # its end may come within moments: tell both at once
    bench.pass_time(0.01)
    assert set(bench.watched) == set(bench.outputs())
    assert bench.spawner.hurried
    assert bench.spawner.deadline() is None


def test_output_beyond_the_credit_stays_in_the_pipe(bench: Bench) -> None:
    bench.spawn(1)
    out, err = bench.outputs()
    bench.pass_time(0.01)
    bench.system.pipes[out] += [b"x" * WINDOW, b"rest"]
    while out in bench.watched:
        bench.spawner.ready(out)
    got = b"".join(entry[3] for entry in bench.reports() if entry[0] == "output")
    assert len(got) == WINDOW
    assert err not in bench.watched  # one window for both streams
    bench.spawner.command(["credit", 1, 100])
    assert set(bench.watched) == {out, err}
    bench.spawner.ready(out)
    assert bench.reports() == [["output", 1, 1, b"rest"]]


def test_an_ended_task_waits_for_credit_without_a_deadline(bench: Bench) -> None:
    pid = bench.spawn(1)
    out, err = bench.outputs()
    bench.system.pipes[out] += [b"x" * WINDOW, b"rest"]
    bench.system.ended |= {out, err}
    bench.die(pid)
    assert bench.reports()[-1][0] == "output"
    bench.spawner.before_wait()
    assert bench.spawner.deadline() is None
    bench.spawner.command(["credit", 1, 100])
    assert [entry[0] for entry in bench.reports()] == ["output", "exited"]


def test_a_silent_holder_of_the_pipe_gets_term_then_kill(bench: Bench) -> None:
    pid = bench.spawn(1)
    out, err = bench.outputs()
    bench.die(pid, leader_only=True)
    bench.pass_time(LINGER_S / 2)
    bench.system.pipes[out].append(b"late")
    bench.spawner.ready(out)  # it speaks: the patience starts anew
    bench.pass_time(LINGER_S * 0.75)
    assert bench.system.signals == []
    bench.pass_time(LINGER_S)
    assert (pid, TERM) in bench.system.signals
    assert not any(entry[0] == "exited" for entry in bench.reports())
    bench.pass_time(GRACE_S)
    assert (pid, KILL) in bench.system.signals
    bench.system.groups[pid] = 0
    bench.system.ended |= {out, err}
    bench.spawner.ready(out)
    bench.spawner.ready(err)
    assert bench.reports()[-1][0] == "exited"


def test_a_holder_that_left_the_group_loses_the_pipe(bench: Bench) -> None:
    pid = bench.spawn(1)
    bench.die(pid)
    bench.pass_time(LINGER_S + 0.1)
    assert bench.reports()[-1][0] == "exited"
    assert bench.system.open_fds == set()


def test_a_group_left_without_a_pipe_does_not_hold_up_the_report(bench: Bench) -> None:
    pid = bench.spawn(1, out="null")
    bench.die(pid, leader_only=True)
    assert bench.reports()[-1][0] == "exited"
    assert bench.system.signals[0] == (pid, TERM)
    bench.pass_time(GRACE_S)
    assert bench.system.signals[-1] == (pid, KILL)


def test_daemons_of_ended_jobs_are_swept_and_of_running_ones_spared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.spawner, "_own_job", b"outer")
    one = bench.spawn(1, out="null", job=b"f1")
    bench.spawn(2, out="null", job=b"f2")
    bench.system.adopted = {50: b"f1", 51: b"f2", 52: b"outer", 53: None}
    bench.die(one)
    bench.pass_time(SWEEP_S)
    assert [pid for pid, signum in bench.system.signals if signum == TERM] == [50]
    bench.pass_time(GRACE_S)
    assert (50, KILL) in bench.system.signals
    del bench.system.adopted[50]
    assert not bench.spawner.reaped(50, 9, 0, 0, 0)
    bench.pass_time(SWEEP_S)
    bench.spawner.take_reports()
    assert bench.spawner.deadline() is None


def test_programs_of_instances_that_were_jobs_are_swept_with_these(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no tasks of a job; of one that never ran here nothing is known."""
    monkeypatch.setattr(bench.spawner, "_own_job", b"outer")
    one = bench.spawn(1, out="null", job=b"f1")
    bench.spawn(2, out="null", job=b"f2")
    names = {50: b"f1", 51: b"f2", 52: b"outer", 53: b"f3"}
    bench.system.adopted = {pid: {b"FLUX_ENCLOSING_ID": job} for pid, job in names.items()}
    bench.die(one)
    bench.pass_time(SWEEP_S)
    assert [pid for pid, signum in bench.system.signals if signum == TERM] == [50]


def test_ends_of_short_tasks_wait_for_each_other_but_not_long(bench: Bench) -> None:
    spawner = bench.spawner
    first, *others = (bench.spawn(tid) for tid in range(1, 5))
    bench.system.ended |= {fd for index in range(4) for fd in bench.outputs(index)}
    assert not spawner.hurried  # nothing but starts
    bench.die(first)
    assert not spawner.hurried
    due = spawner.deadline()
    assert due is not None
    bench.pass_time(HOLD_S)
    assert spawner.hurried
    kinds = [entry[0] for entry in spawner.take_reports()]
    assert kinds == ["started"] * 4 + ["exited"]
    bench.die(others[0])
    bench.die(others[1])
    assert spawner.hurried  # one is left: nobody to wait for
    assert [entry[0] for entry in spawner.take_reports()] == ["exited"] * 2


def test_the_end_of_a_lone_task_is_told_at_once(bench: Bench) -> None:
    pid = bench.spawn(1)
    bench.system.ended |= set(bench.outputs())
    assert not bench.spawner.hurried
    bench.die(pid)
    assert bench.spawner.hurried


def follow(bench: Bench, before: int, *tids: int, out: Any = "pipe") -> None:
    """Each of ``tids`` is to follow the one before it."""
    for tid in tids:
        spawn = ["spawn", tid, [b"%d" % tid], None, {}, b"", None, "null", out, out]
        bench.spawner.command(["after", before, spawn])
        before = tid
    bench.spawner.pump(8)


def test_what_follows_a_task_starts_when_it_has_ended(bench: Bench) -> None:
    pid = bench.spawn(1)
    follow(bench, 1, 2, 3)
    assert len(bench.system.spawned) == 1
    bench.system.ended |= set(bench.outputs())
    bench.die(pid)
    bench.spawner.pump(8)
    assert [entry[:2] for entry in bench.reports()] == [
        ["started", 1],
        ["exited", 1],
        ["started", 2],
    ]
    assert bench.system.spawned[-1]["argv"] == [b"2"]
    assert not bench.spawner.idle


def test_what_follows_waits_for_the_end_of_output(bench: Bench) -> None:
    pid = bench.spawn(1)
    follow(bench, 1, 2)
    bench.die(pid, leader_only=True)  # something keeps its pipes open
    bench.spawner.pump(8)
    assert len(bench.system.spawned) == 1
    bench.system.ended |= set(bench.outputs())
    for fd in bench.outputs():
        bench.spawner.ready(fd)
    bench.spawner.pump(8)
    assert len(bench.system.spawned) == 2


def test_what_follows_a_task_that_has_ended_starts_at_once(bench: Bench) -> None:
    pid = bench.spawn(1)
    bench.system.ended |= set(bench.outputs())
    bench.die(pid)
    follow(bench, 1, 2)
    assert [entry[:2] for entry in bench.reports()][-1] == ["started", 2]


def test_what_follows_a_task_that_cannot_start_starts(bench: Bench) -> None:
    bench.spawner.command(["spawn", 1, [b"a"], None, {}, b"/missing", None, "null", "null", "null"])
    follow(bench, 1, 2)
    assert [entry[:2] for entry in bench.reports()] == [["failed", 1], ["started", 2]]
    bench.spawner.command(["spawn", 3, [], None, {}, b"", None, "null", "null", "null"])
    follow(bench, 3, 4)
    assert [entry[:2] for entry in bench.reports()] == [["failed", 3], ["started", 4]]


def test_what_follows_a_task_killed_before_it_started_starts(bench: Bench) -> None:
    bench.spawner.command(["spawn", 1, [b"a"], None, {}, b"", None, "null", "null", "null"])
    bench.spawner.command(["after", 1, ["spawn", 2, [b"b"], None, {}, b"", None, *["null"] * 3]])
    bench.spawner.command(["kill", 2, TERM])  # it is not there yet
    bench.spawner.command(["kill", 1, TERM])
    bench.spawner.pump(8)
    assert [entry[:2] for entry in bench.reports()] == [["exited", 1], ["started", 2]]


def test_followers_can_be_taken_back(bench: Bench) -> None:
    pid = bench.spawn(1)
    follow(bench, 1, 2, 3, 4)
    bench.spawner.command(["recall", [3, 1, 99]])
    assert bench.spawner.hurried  # whoever asked waits for it
    assert [entry[:2] for entry in bench.reports()] == [["started", 1], ["returned", 3]]
    bench.system.ended |= set(bench.outputs())
    bench.die(pid)
    bench.spawner.pump(8)
    bench.spawner.command(["recall", [2, 4]])  # the first has begun
    assert [entry[:2] for entry in bench.reports()] == [
        ["exited", 1],
        ["started", 2],
        ["returned", 4],
    ]


def test_a_shutdown_gives_followers_back(bench: Bench) -> None:
    pid = bench.spawn(1)
    follow(bench, 1, 2, 3)
    bench.spawner.shutdown(0.0)
    bench.system.ended |= set(bench.outputs())
    bench.die(pid, KILL)
    bench.spawner.pump(8)
    assert sorted(entry[:2] for entry in bench.reports()) == [
        ["exited", 1],
        ["returned", 2],
        ["returned", 3],
        ["started", 1],
    ]
    assert bench.spawner.idle


def test_ends_wait_for_company_while_others_follow(bench: Bench) -> None:
    pid = bench.spawn(1)
    follow(bench, 1, 2, 3)
    bench.system.ended |= set(bench.outputs())
    bench.die(pid)
    bench.spawner.pump(8)
    spawner = bench.spawner
    assert not spawner.hurried
    spawner._fresh.clear()
    spawner._fresh.append((bench.now + 1.0, spawner._tasks[2]))  # as if many ran beside it
    assert spawner.deadline() == pytest.approx(bench.now + HOLD_LEASED_S)
    bench.now += HOLD_LEASED_S
    assert spawner.hurried
    spawner.take_reports()
    bench.system.ended |= set(bench.outputs())
    bench.die(bench.system.pids)
    bench.spawner.pump(8)
    assert spawner.hurried  # nothing follows the one that runs now: let more be sent


def test_an_end_that_nothing_follows_is_told_at_once(bench: Bench) -> None:
    first = bench.spawn(1)
    bench.system.ended |= set(bench.outputs())
    second = bench.spawn(2, out="null")
    follow(bench, 2, 3, 4)
    bench.die(second)
    bench.spawner.pump(8)
    assert not bench.spawner.hurried
    bench.die(first)  # these cores are idle
    assert bench.spawner.hurried


def test_killing_what_has_not_started_keeps_it_from_starting(bench: Bench) -> None:
    bench.spawner.command(["spawn", 1, [b"a"], None, {}, b"", None, "null", "null", "null"])
    bench.spawner.command(["spawn", 2, [b"b"], None, {}, b"", None, "null", "null", "null"])
    bench.spawner.command(["kill", 1, TERM])
    bench.spawner.command(["kill", 2, int(signal.SIGUSR1)])  # harmless: it starts all the same
    bench.spawner.command(["kill", 99, TERM])
    bench.spawner.pump(8)
    assert [entry[:3] for entry in bench.reports()] == [
        ["exited", 1, TERM],
        ["started", 2, bench.system.pids],
    ]


def test_a_refused_spawn_leaks_no_descriptor(bench: Bench) -> None:
    bench.system.refuse = SpawnError(errno.ENOENT, "cmd")
    bench.spawn(1, stdin="pipe")
    bench.system.refuse = None
    bench.spawner.command(["spawn", 2, [b"a"], None, {}, b"/missing", None, "null", "pipe", "pipe"])
    bench.spawner.command(["spawn", 3, [], None, {}, b"", None, "null", "null", "null"])
    bench.spawner.pump(8)
    assert bench.reports() == [
        ["failed", 1, errno.ENOENT, "cmd"],
        ["failed", 2, errno.ENOENT, "working directory /missing"],
        ["failed", 3, errno.EINVAL, "an empty command"],
    ]
    assert bench.system.open_fds == set()
    assert bench.spawner.idle


def test_one_file_for_both_streams_is_opened_once(bench: Bench) -> None:
    bench.spawn(1, out=["file", b"out", os.O_WRONLY])
    stdio = bench.system.spawned[0]["stdio"]
    assert stdio[1] == stdio[2]
    assert bench.system.open_fds == set()  # the task has it, we do not keep it


def test_input_is_written_as_the_pipe_takes_it(bench: Bench) -> None:
    pid = bench.spawn(1, stdin="pipe")
    writing = bench.system.spawned[0]["stdio"][0] + 1
    bench.reports()
    bench.system.accept = 3
    bench.spawner.command(["stdin", 1, b"hello", False])
    bench.spawner.command(["stdin", 1, b"world", True])
    assert bench.reports() == [["fed", 1, 3]]
    assert bench.watched == {writing: True}
    bench.system.accept = 100
    bench.spawner.ready(writing)
    assert bench.system.written == b"helloworld"
    assert bench.reports() == [["fed", 1, 7]]
    assert bench.watched == {}
    assert writing not in bench.system.open_fds  # that was its end of file
    bench.spawner.command(["stdin", 1, b"more", False])
    assert bench.reports() == [["fed", 1, 4]]  # nobody waits for what cannot be read
    bench.spawner.command(["stdin", 77, b"who", False])
    assert bench.reports() == [["fed", 77, 3]]
    assert bench.die(pid)


def test_a_task_that_closes_its_input_swallows_the_rest(bench: Bench) -> None:
    bench.spawn(1, stdin="pipe")
    bench.system.accept = -1
    bench.reports()
    bench.spawner.command(["stdin", 1, b"hello", False])
    assert bench.reports() == [["fed", 1, 5]]


def test_shutdown_terms_then_kills_and_starts_nothing_more(bench: Bench) -> None:
    pid = bench.spawn(1, out="null")
    bench.spawner.command(["spawn", 2, [b"b"], None, {}, b"", None, "null", "null", "null"])
    bench.spawner.command(["shutdown", 1.5])
    bench.spawn(3)
    assert [entry[:3] for entry in bench.reports()] == [
        ["started", 1, pid],
        ["failed", 2, errno.ESHUTDOWN],
        ["failed", 3, errno.ESHUTDOWN],
    ]
    assert bench.system.signals[0] == (pid, TERM)
    bench.pass_time(1.6)
    assert bench.system.signals[-1] == (pid, KILL)
    assert bench.spawner.kill_everything() is False


def test_environments_are_layered(bench: Bench) -> None:
    bench.spawner.command(["env", 7, {b"A": b"1", b"B": b"1"}])
    command = ["spawn", 1, [b"c"], 7, {b"B": b"2"}, b"", None, "null", "null", "null"]
    bench.spawner.command(command)
    bench.spawner.pump(1)
    bench.spawner.command(["forget", 7])
    bench.spawner.command([*command[:1], 2, *command[2:]])
    bench.spawner.pump(1)
    envs = [entry["env"] for entry in bench.system.spawned]
    assert envs == [{b"A": b"1", b"B": b"2"}, {b"B": b"2"}]


def test_an_unknown_command_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="no such command"):
        bench.spawner.command(["dance"])
