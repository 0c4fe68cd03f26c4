"""The supervisor as a process: real tasks, real signals, a scripted broker."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
Survivors = Callable[[], list[str]]
Eventually = Callable[..., bool]


def test_a_task_runs_and_its_output_precedes_its_exit(start: Start) -> None:
    run = start("""
        broker.spawn(7, "sh", "-c", "echo out; echo err >&2; exit 3")
        end = broker.ended(7)
        order = [entry[0] for entry in broker.log]
        say(order=order, status=end[2], out=broker.output(7).decode(),
            err=broker.output(7, 2).decode(), maxrss=end[6])
        sys.exit(5)
    """)
    said = run.said()
    assert said["order"][0] == "started"
    assert said["order"][-1] == "exited"
    assert os.waitstatus_to_exitcode(said["status"]) == 3
    assert (said["out"], said["err"]) == ("out\n", "err\n")
    assert said["maxrss"] > 0
    assert run.end() == 5


def test_big_output_is_complete_and_held_back_without_credit(start: Start) -> None:
    run = start("""
        broker.credit = False
        broker.spawn(1, "sh", "-c", "head -c 3000000 /dev/zero; echo end >&2")
        while len(broker.output(1)) < 262144:
            broker.read()
        held = len(broker.output(1))
        # The supervisor answers in order: had it read on, that would have come before this.
        broker.spawn(2, "true")
        broker.ended(2)
        still = len(broker.output(1))
        ended = any(e[0] == "exited" and e[1] == 1 for e in broker.log)
        broker.credit = True
        broker.send(["credit", 1, still])
        broker.ended(1)
        say(held=held, still=still, ended=ended, all=len(broker.output(1)),
            err=broker.output(1, 2).decode())
    """)
    said = run.said()
    assert said["held"] == said["still"] == 262144
    assert not said["ended"]
    assert said["all"] == 3000000
    assert said["err"] == "end\n"
    assert run.end() == 0


def test_output_left_in_the_pipe_outlives_the_task(start: Start) -> None:
    run = start("""
        broker.credit = False
        broker.spawn(1, "head", "-c", "300000", "/dev/zero")  # the rest fits into the pipe
        while len(broker.output(1)) < 262144:
            broker.read()
        broker.spawn(2, "true")
        broker.ended(2)
        broker.send(["credit", 1, 1000000])
        end = broker.ended(1)
        say(all=len(broker.output(1)), status=end[2])
    """)
    assert run.said() == {"all": 300000, "status": 0}
    assert run.end() == 0


def test_standard_input_is_fed_with_back_pressure(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    run = start(
        """
        data = b"x" * 1000000
        broker.spawn(1, "sh", "-c", "read go < $FIFO; wc -c", delta={b"FIFO": b"fifo"},
                     cwd=os.environ["DIR"].encode(), stdin="pipe")
        broker.send(["stdin", 1, data, False], ["stdin", 1, data, True])
        broker.wait("fed", tid=1)
        before = sum(e[2] for e in broker.log if e[0] == "fed")
        with open(os.environ["DIR"] + "/fifo", "w") as fifo:
            fifo.write("go\\n")
        broker.ended(1)
        say(before=before, after=sum(e[2] for e in broker.log if e[0] == "fed"),
            out=broker.output(1).decode())
    """,
        DIR=str(tmp_path),
    )
    said = run.said()
    assert 0 < said["before"] < 2000000
    assert said["after"] == 2000000
    assert said["out"].strip() == "2000000"
    assert run.end() == 0


def test_killing_signals_the_whole_group(start: Start, survivors: Survivors) -> None:
    run = start("""
        broker.spawn(1, "sh", "-c", "sleep 100 & sleep 100 & echo up; wait")
        broker.wait("output", tid=1)
        broker.send(["kill", 1, signal.SIGTERM])
        say(status=broker.ended(1)[2])
    """)
    assert run.said()["status"] == signal.SIGTERM
    assert run.end() == 0
    assert survivors() == []


def test_a_task_that_ignores_term_is_killed_at_shutdown(start: Start, survivors: Survivors) -> None:
    run = start("""
        broker.spawn(1, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
        broker.wait("output", tid=1)
        broker.send(["shutdown", 0.3])
        say(status=broker.ended(1)[2])
        broker.spawn(2, "true")
        say(late=broker.ended(2)[:3])
    """)
    assert run.said()["status"] == signal.SIGKILL
    assert run.said()["late"] == ["failed", 2, errno.ESHUTDOWN]
    assert run.end() == 0
    assert survivors() == []


def test_a_background_process_that_keeps_the_pipe_is_ended(
    start: Start, survivors: Survivors
) -> None:
    run = start("""
        broker.spawn(1, "sh", "-c", "sleep 1000 & echo hi")
        end = broker.ended(1)
        say(status=end[2], out=broker.output(1).decode())
    """)
    assert run.said() == {"status": 0, "out": "hi\n"}
    assert run.end() == 0
    assert survivors() == []


def test_a_daemon_left_by_a_finished_job_is_found_and_ended(
    start: Start, survivors: Survivors, eventually: Eventually
) -> None:
    run = start("""
        daemon = "(setsid sleep 1000 >/dev/null 2>&1 </dev/null &)"
        broker.spawn(1, "sh", "-c", daemon, delta={b"FLUX_JOB_ID": b"f1"})
        broker.spawn(2, "sh", "-c", daemon + "; echo up; sleep 1000",
                     delta={b"FLUX_JOB_ID": b"f2"})
        broker.ended(1)
        broker.wait("output", tid=2)
        say(ready=True)
        sys.stdin.read() if not sys.stdin.isatty() else None
        broker.wait("signal")
    """)
    run.said()

    def sleepers() -> int:
        return len([line for line in survivors() if line.startswith("sleep 1000")])

    # The daemon of job f1 goes, f2 still runs and keeps its own.
    assert eventually(lambda: sleepers() == 2)
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 0
    assert survivors() == []


def test_a_daemon_that_keeps_the_pipe_does_not_hold_up_the_job(
    start: Start, survivors: Survivors, eventually: Eventually
) -> None:
    run = start("""
        broker.spawn(1, "sh", "-c", "setsid sleep 1000 & echo hi", delta={b"FLUX_JOB_ID": b"f1"})
        say(status=broker.ended(1)[2])
        broker.wait("signal")
    """)
    assert run.said()["status"] == 0
    assert eventually(lambda: not [line for line in survivors() if line.startswith("sleep")])
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 0


@pytest.mark.parametrize(
    ("argv", "number", "what"),
    [
        (["/no/such/cmd"], errno.ENOENT, "/no/such/cmd"),
        (["no-such-cmd"], errno.ENOENT, "no-such-cmd"),
        (["/etc/passwd"], errno.EACCES, "/etc/passwd"),
        (["true", "x" * 3_000_000], errno.E2BIG, "true"),
    ],
)
def test_what_cannot_be_started_says_why(
    start: Start, argv: list[str], number: int, what: str
) -> None:
    long = len(argv) > 1
    run = start(f"""
        argv = {argv[:1]!r} + (["x" * 3000000] if {long} else [])
        broker.spawn(1, *argv)
        say(end=broker.ended(1))
    """)
    assert run.said()["end"] == ["failed", 1, number, what]
    assert run.end() == 0


def test_places_that_do_not_exist_say_which(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    run = start(f"""
        broker.spawn(1, "true", cwd=b"/no/such/dir")
        broker.spawn(2, "true", out=["file", b"/no/such/dir/out", os.O_WRONLY | os.O_CREAT])
        broker.spawn(3, "true", stdin=["file", b"/no/such/input", os.O_RDONLY])
        broker.spawn(4, {str(script)!r})
        broker.spawn(5, "true", out=["file", b"/tmp", os.O_WRONLY | os.O_CREAT])
        say(ends=[broker.ended(n)[1:] for n in range(1, 5)], fifth=broker.ended(5)[1:])
    """)
    said = run.said()
    assert said["ends"] == [
        [1, errno.ENOENT, "working directory /no/such/dir"],
        [2, errno.ENOENT, "/no/such/dir/out"],
        [3, errno.ENOENT, "/no/such/input"],
        [4, errno.ENOENT, f"{script}: interpreter /no/such/interpreter"],
    ]
    assert said["fifth"] == [5, errno.EISDIR, "/tmp"]
    assert run.end() == 0


def test_path_is_the_tasks_own(start: Start, tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tool").write_text(f"#!/bin/sh\necho {name}\n")
        (folder / "tool").chmod(0o755)
    (tmp_path / "one" / "plain").write_text("echo $0 $1 shell\n")  # no "#!": as execvp does
    (tmp_path / "one" / "plain").chmod(0o755)
    run = start(f"""
        one, two = {str(tmp_path / "one").encode()!r}, {str(tmp_path / "two").encode()!r}
        broker.spawn(1, "tool", delta={{b"PATH": one}})
        broker.spawn(2, "tool", delta={{b"PATH": two + b":" + one}})
        broker.spawn(3, "tool", delta={{b"PATH": b"."}}, cwd=two)
        broker.spawn(4, "plain", "arg", delta={{b"PATH": one}})
        broker.spawn(5, "true", env={{}})
        for n in range(1, 6):
            broker.ended(n)
        say(out=[broker.output(n).decode() for n in range(1, 5)], bare=broker.ended(5)[2])
    """)
    said = run.said()
    assert said["out"] == ["one\n", "two\n", "two\n", f"{tmp_path}/one/plain arg shell\n"]
    assert said["bare"] == 0
    assert run.end() == 0


def test_a_moved_command_is_found_again(start: Start, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tool = tmp_path / name / "tool"
        tool.write_text(f"#!/bin/sh\necho {name}\n")
        tool.chmod(0o755)
    run = start(f"""
        path = {f"{tmp_path}/a:{tmp_path}/b".encode()!r}
        broker.spawn(1, "tool", delta={{b"PATH": path}})
        broker.ended(1)
        os.unlink({str(tmp_path / "a" / "tool")!r})
        broker.spawn(2, "tool", delta={{b"PATH": path}})
        broker.ended(2)
        say(out=[broker.output(n).decode() for n in (1, 2)])
    """)
    assert run.said()["out"] == ["a\n", "b\n"]
    assert run.end() == 0


def test_files_directories_binding_and_limits(start: Start, tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    everywhere = sorted(os.sched_getaffinity(0))
    (tmp_path / "in").write_text("input\n")
    run = start(f"""
        here = {str(tmp_path).encode()!r}
        both = ["file", b"out", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC]
        show = "cat; pwd; echo oops >&2; ulimit -c"
        broker.spawn(1, "sh", "-c", show, cwd=here, stdin=["file", b"in", os.O_RDONLY], out=both,
                     err=both, limits={{"core": 77 * 512}})
        broker.ended(1)
        code = "import os; print(*sorted(os.sched_getaffinity(0)))"
        broker.spawn(2, sys.executable, "-c", code, cpus=({cpu},))
        broker.spawn(3, sys.executable, "-c", code)
        broker.spawn(4, "sh", "-c", "ulimit -c")
        for n in (2, 3, 4):
            broker.ended(n)
        say(bound=broker.output(2).decode(), free=broker.output(3).decode(),
            limit=broker.output(4).decode(), now=os.readlink(f"/proc/{{os.getppid()}}/cwd"))
    """)
    said = run.said()
    assert (tmp_path / "out").read_text() == f"input\n{tmp_path}\noops\n77\n"
    assert said["bound"].split() == [str(cpu)]
    assert said["free"].split() == [str(n) for n in everywhere]
    assert said["limit"].strip() != "77"
    assert said["now"] == os.getcwd()  # it holds on to no job's directory
    assert run.end() == 0


def test_tasks_of_one_batch_do_not_share_places(start: Start, tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    run = start(f"""
        code = "import os; print(os.getcwd(), len(os.sched_getaffinity(0)))"
        words = [sys.executable.encode(), b"-c", code.encode()]
        env = {{k.encode(): v.encode() for k, v in os.environ.items()}}
        places = [({str(tmp_path).encode()!r}, ({cpu},)), (b"", None), (b"/", None)]
        broker.send(["env", 1, env], *(
            ["spawn", tid, words, 1, {{}}, cwd, cpus, "null", "pipe", "pipe"]
            for tid, (cwd, cpus) in enumerate(places)
        ))
        for tid in range(3):
            broker.ended(tid)
        say(out=[broker.output(tid).decode().split() for tid in range(3)])
    """)
    everywhere = str(len(os.sched_getaffinity(0)))
    assert run.said()["out"] == [
        [str(tmp_path), "1"],
        [os.getcwd(), everywhere],
        ["/", everywhere],
    ]
    assert run.end() == 0


def test_more_tasks_than_the_soft_limit_of_open_files(start: Start) -> None:
    run = start("""
        import resource
        pid = os.getppid()
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (40, hard))
        for tid in range(1, 31):
            broker.spawn(tid, "sh", "-c", "read x; ulimit -n", stdin="pipe")
        for tid in range(1, 31):
            broker.wait("started", "failed", tid=tid)
        for tid in range(1, 31):
            broker.send(["stdin", tid, b"", True])
        ends = [broker.ended(tid)[0] for tid in range(1, 31)]
        limits = {broker.output(tid).decode() for tid in range(1, 31)}
        say(ends=sorted(set(ends)), limits=sorted(limits))
    """)
    assert run.said() == {"ends": ["exited"], "limits": ["40\n"]}
    assert run.end() == 0


def test_tasks_inherit_no_descriptor_and_default_signals(start: Start) -> None:
    code = (
        "import os, signal; "
        "print(sorted(int(n) for n in os.listdir('/proc/self/fd') if int(n) > 2)[:-1], "
        "open('/proc/self/status').read().split('SigBlk:')[1].split()[0], "
        "open('/proc/self/status').read().split('SigIgn:')[1].split()[0], "
        "os.getpid() == os.getpgrp())"
    )
    run = start(f"""
        leak = os.open("/dev/null", os.O_RDONLY)
        broker.spawn(1, sys.executable, "-c", {code!r})
        broker.ended(1)
        say(out=broker.output(1).decode())
    """)
    fds, blocked, ignored, leader = run.said()["out"].split()
    assert fds == "[]"
    assert int(blocked, 16) == 0
    # Python itself ignores two, and the C library two of its own.
    ours = {int(signal.SIGPIPE), int(signal.SIGXFSZ), 32, 33}
    assert {n for n in range(1, 65) if int(ignored, 16) >> n - 1 & 1} <= ours
    assert leader == "True"
    assert run.end() == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_the_brokers_business(start: Start, signum: int) -> None:
    run = start("""
        say(ready=True)
        entry = broker.wait("signal")
        sys.exit(100 + entry[1])
    """)
    run.said()
    run.process.send_signal(signum)
    assert run.end() == 100 + signum


def test_the_second_signal_ends_everything_at_once(start: Start, survivors: Survivors) -> None:
    run = start("""
        broker.spawn(1, "sh", "-c", "trap '' TERM INT; echo up; while :; do sleep 1; done")
        broker.wait("output", tid=1)
        say(ready=True)
        broker.wait("signal")
        time.sleep(0.3)  # longer than two deliveries of one Ctrl-C are apart
        say(heard=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)
    """)
    run.said()
    run.process.send_signal(signal.SIGINT)
    run.said()
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 128 + signal.SIGINT
    assert survivors() == []


def test_a_killed_broker_takes_its_tasks_and_directory_along(
    start: Start, survivors: Survivors, tmp_path: Path
) -> None:
    rundir = tmp_path / "rundir"
    (rundir / "deep").mkdir(parents=True)
    (rundir / "deep" / "socket").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (rundir / "link").symlink_to(outside)
    run = start(f"""
        broker.send(["rundir", {str(rundir)!r}])
        broker.spawn(1, "sh", "-c", "setsid sleep 1000 & echo up; sleep 1000")
        broker.wait("output", tid=1)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert run.end() == 128 + signal.SIGKILL
    assert survivors() == []
    assert not rundir.exists()
    assert (outside / "precious").exists()


def test_a_broker_killed_right_after_its_commands_is_understood(
    start: Start, survivors: Survivors, tmp_path: Path
) -> None:
    rundir = tmp_path / "rundir"
    rundir.mkdir()
    run = start(f"""
        broker.spawn(1, "sleep", "1000")
        broker.send(["rundir", {str(rundir)!r}])
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert run.end() == 128 + signal.SIGKILL
    assert survivors() == []
    assert not rundir.exists()


def test_a_killed_supervisor_is_noticed_by_its_broker(
    start: Start, survivors: Survivors, eventually: Eventually
) -> None:
    run = start("""
        from flux_mpi.reactor.epoll import EpollReactor
        from flux_mpi.shell.link import Link
        broker.sock.detach()
        reactor = EpollReactor()
        link = Link.from_environment(reactor, os.environ)
        link.run(["sleep", "1000"], env=dict(os.environ), on_start=lambda pid: say(pid=pid))
        link.on_lost = reactor.stop
        reactor.run()
    """)
    run.said()
    run.process.kill()
    run.process.wait(timeout=20)
    assert eventually(lambda: survivors() == []), survivors()


def test_a_broker_that_talks_nonsense_is_killed(start: Start, survivors: Survivors) -> None:
    run = start("""
        broker.spawn(1, "sleep", "1000")
        broker.wait("started")
        broker.sock.sendall(b"\\xff" * 64)
        time.sleep(60)
    """)
    assert run.end() == 128 + signal.SIGKILL
    assert "nonsense" in run.process.stderr.read()
    assert survivors() == []


def test_a_broker_that_cannot_be_started_raises(tmp_path: Path) -> None:
    from flux_mpi.shell.supervisor import supervise

    with pytest.raises(FileNotFoundError):
        supervise([str(tmp_path / "missing")], {})


KILLED = 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("how", "rank", "code"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "0", KILLED),
        ("os.kill(os.getpid(), signal.SIGKILL)", "3", 0),  # rank 0 tells how it all ended
        ("sys.exit(4)", "3", 4),
    ],
)
def test_the_launcher_is_answered_in_the_brokers_place(
    start: Start, how: str, rank: str, code: int
) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    run = start(
        f"""
        if {how!r}.startswith("sys"):
            broker.send(["stand-in"])
        {how}
        """,
        pass_fds=(theirs.fileno(),),
        PMI_FD=str(theirs.fileno()),
        PMI_RANK=rank,
    )
    theirs.close()
    assert ours.recv(100) == b"cmd=barrier_in\n"
    ours.sendall(b"cmd=barrier_")  # lines may come in pieces
    ours.sendall(b"out\n")
    assert ours.recv(100) == b"cmd=finalize\n"
    ours.sendall(b"cmd=finalize_ack\n")
    assert run.end() == code
    ours.close()


def test_a_launcher_that_is_gone_is_not_waited_for(start: Start) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    run = start(
        "os.kill(os.getpid(), signal.SIGKILL)",
        pass_fds=(theirs.fileno(),),
        PMI_FD=str(theirs.fileno()),
    )
    theirs.close()
    assert ours.recv(100) == b"cmd=barrier_in\n"
    ours.close()
    assert run.end() == 128 + signal.SIGKILL


def test_an_initial_program_inherits_what_the_launcher_gave(start: Start) -> None:
    run = start("""
        broker.spawn(1, "sh", "-c", 'echo "{\\\\"from\\\\": \\\\"task\\\\"}"', stdin="inherit",
                     out="inherit", err="inherit")
        broker.ended(1)
        say(reports=[entry[0] for entry in broker.log])
    """)
    assert run.said() == {"from": "task"}
    assert run.said() == {"reports": ["started", "exited"]}
    assert run.end() == 0


def test_an_initial_program_has_the_terminal_while_it_runs(start: Start) -> None:
    master, slave = os.openpty()
    run = start(
        """
        ask = 'read x; echo $x; read y; echo $y; exit 3'
        broker.spawn(1, "sh", "-c", ask, stdin="inherit")
        broker.wait("output", tid=1)
        say(first=broker.output(1).decode())
        say(status=broker.ended(1)[2], all=broker.output(1).decode())
        broker.spawn(2, "sh", "-c", "trap 'exit 7' INT; echo up; while :; do sleep 0.1; done",
                     stdin="inherit")
        broker.wait("output", tid=2)
        say(up=True)
        say(status=broker.ended(2)[2], signals=[e for e in broker.log if e[0] == "signal"])
        broker.wait("signal")
        """,
        tty=os.ttyname(slave),
    )
    os.write(master, b"hello\n")
    assert run.said() == {"first": "hello\n"}
    assert os.tcgetpgrp(master) != run.process.pid
    os.write(master, b"again\n")
    assert run.said() == {"status": 3 << 8, "all": "hello\nagain\n"}
    assert run.said() == {"up": True}
    os.write(master, b"\x03")  # Ctrl-C is for the program in the foreground
    assert run.said() == {"status": 7 << 8, "signals": []}
    assert os.tcgetpgrp(master) == run.process.pid
    os.write(master, b"\x03")  # and now for us
    assert run.end() == 0
    os.close(master)
    os.close(slave)


def test_tasks_that_follow_each_other_need_no_broker_in_between(start: Start) -> None:
    running = start("""
        broker.spawn(1, "sh", "-c", "read x; echo first", stdin="pipe")
        for tid in (2, 3, 4):
            words = [b"sh", b"-c", b"echo %d" % tid]
            entry = ["spawn", tid, words, 1, {}, b"", None, "null", "pipe", "pipe"]
            broker.send(["after", tid - 1, entry])
        broker.wait("started", tid=1)
        broker.send(["recall", [3]])
        broker.wait("returned", tid=3)
        broker.send(["stdin", 1, b"x\\n", True])
        statuses = [broker.ended(tid)[2] for tid in (1, 2, 4)]
        order = [entry[:2] for entry in broker.log if entry[0] in ("started", "exited")]
        say(statuses=statuses, order=order, outputs=[str(broker.output(t)) for t in (1, 2, 4)])
    """)
    said = running.said()
    assert said["statuses"] == [0, 0, 0]
    assert said["outputs"] == [str(b"first\n"), str(b"2\n"), str(b"4\n")]
    assert said["order"] == [[what, tid] for tid in (1, 2, 4) for what in ("started", "exited")]
    assert running.end() == 0


def test_the_supervisor_loads_little() -> None:
    import subprocess

    code = (
        "import sys; before = set(sys.modules); import flux_mpi.shell.supervisor; "
        "print(*sorted(set(sys.modules) - before))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name for name in found if name.startswith("flux_mpi")}
    assert ours <= {
        "flux_mpi",
        "flux_mpi.shell",
        "flux_mpi.shell.followers",
        "flux_mpi.shell.rundir",
        "flux_mpi.shell.supervisor",
        "flux_mpi.shell.spawner",
        "flux_mpi.shell.standin",
        "flux_mpi.shell.system",
        "flux_mpi.shell.wire",
    }
    assert not {"typing", "dataclasses", "ctypes", "asyncio", "subprocess", "logging"} & set(found)


def test_the_programs_mode_bits_survive(tmp_path: Path) -> None:
    """A file that a task creates has the mode that the umask leaves."""
    from flux_mpi.shell.system import System

    fd = System.open(os.fsencode(tmp_path / "out"), os.O_WRONLY | os.O_CREAT)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o666 & ~mask
    os.close(fd)


def test_a_limit_that_is_ours_already_costs_nothing() -> None:
    """Submitters send all their limits: only those that differ may put a shell before the task."""
    import resource

    from flux_mpi.shell.system import System

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    core = resource.getrlimit(resource.RLIMIT_CORE)[0]
    system = System()
    assert system._differing({"nofile": soft, "core": core}) == {}
    assert system._differing({"nofile": soft - 1, "core": core}) == {"nofile": soft - 1}
