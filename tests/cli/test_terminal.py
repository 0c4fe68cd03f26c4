"""The user's terminal standing for a far one: raw meanwhile, and given back in every case.

The far side is a real ``flux-mpi pty``, and so is the near terminal; a fake broker lies between.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flux_mpi.cli.terminal import Terminal, is_terminal
from flux_mpi.formats.ptystream import window_size
from flux_mpi.shell.ptyhost import resize
from tests.cli.farjob import CLIENT, JOB_TEXT, SCRIPT, Job, Near
from tests.cli.farjob import attach as attach
from tests.cli.farjob import job as job
from tests.client.fakebroker import FakeBroker, Request
from tests.shell.farterminal import LIMIT_S, until
from tests.shell.farterminal import far as far

# -- a terminal by itself --------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    for fd in (master, slave):
        with contextlib.suppress(OSError):
            os.close(fd)


def test_a_terminal_is_raw_and_then_as_it_was(pair: tuple[int, int]) -> None:
    master, slave = pair
    before = termios.tcgetattr(slave)
    terminal = Terminal(slave)
    terminal.enter()
    assert terminal.raw
    os.write(master, b"\x03\x1a\r")  # neither signals nor newlines are made of them
    assert os.read(slave, 10) == b"\x03\x1a\r"
    os.write(slave, b"\n")
    assert os.read(master, 10) == b"\n"  # and nothing was echoed
    terminal.enter()  # again, as after a stop: the first state is what is given back
    terminal.leave()
    assert not terminal.raw
    assert termios.tcgetattr(slave) == before
    terminal.leave()


def test_a_size_is_told_once(pair: tuple[int, int]) -> None:
    _, slave = pair
    resize(slave, 80, 24)
    terminal = Terminal(slave)
    terminal.enter()
    assert terminal.size() == (80, 24)
    assert terminal.resized() == window_size(80, 24)
    assert terminal.resized() == b""
    resize(slave, 81, 24)
    assert terminal.resized() == window_size(81, 24)
    terminal.leave()


def test_a_terminal_that_is_gone_is_left_in_peace(pair: tuple[int, int]) -> None:
    master, slave = pair
    terminal = Terminal(slave)
    terminal.enter()
    os.close(master)
    terminal.leave()
    assert terminal.size() == (0, 0)


def test_what_is_a_terminal(pair: tuple[int, int]) -> None:
    assert is_terminal(pair[1])
    reading, writing = os.pipe()
    assert not is_terminal(reading)
    os.close(reading)
    os.close(writing)
    assert not is_terminal(reading)


# -- two terminals with a broker between them ------------------------------------------------------


def test_a_shell_far_away(job: Job, attach: Callable[..., Near]) -> None:
    job.start("bash", "--norc", "--noprofile", "-i")
    one = attach()
    one.type(b"echo far-$((40+2))\r")
    one.see(b"far-42\r\n")
    one.type(b"stty size\r")
    one.see(b"30 100\r\n")
    one.type(window_size(111, 33))
    one.type(b"stty size\r")
    one.see(b"33 111\r\n")
    one.type(b"echo go''ing; cat\r")
    one.see(b"going\r\n")
    one.type(b"ready\r")
    one.see(b"ready\r\nready\r\n")
    one.type(b"\x03")
    one.see(b"$ ")
    one.type(b"echo code-$?\r")
    one.see(b"code-130")
    one.type(b"exit 7\r")
    assert one.ended() == 7


def test_the_size_comes_first(job: Job, attach: Callable[..., Near]) -> None:
    job.start("sh", "-c", "echo ready; read x")
    one = attach()
    one.see(b"ready")
    one.type(b"\xff\xff\r")  # the near terminal's escape of one 0xff
    assert one.ended() == 0
    assert b"".join(job.stdin) == window_size(100, 30) + b"\xff\xff\r"


def test_before_the_job_starts_the_terminal_is_the_users(
    job: Job, attach: Callable[..., Near]
) -> None:
    one = attach()
    assert until(lambda: "job-info.eventlog-watch" in job.broker.topics())
    one.type(b"\x03")
    one.see(b"one more ctrl-C within 2s to cancel or ctrl-Z to detach\r\n")
    one.type(b"\x03")
    one.see(b"canceling job...\r\n")
    assert job.cancelled.wait(LIMIT_S)
    job.start("sh", "-c", "exit 3")
    assert one.ended() == 3


def test_detaching_leaves_the_job_alone(job: Job, attach: Callable[..., Near]) -> None:
    job.start("sh", "-c", "echo ready; exec sleep 987")
    one = attach()
    one.see(b"ready")
    one.type(b"\x1c")
    one.see(b"flux-job: detaching...\r\n")
    assert one.ended() == 0
    assert job.program is not None
    assert job.program.process.poll() is None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_go_to_the_job(job: Job, attach: Callable[..., Near], signum: int) -> None:
    job.start("sh", "-c", f'trap "echo got it; exit 9" {int(signum)}; echo ready; read x')
    one = attach()
    one.see(b"ready")
    os.kill(one.pid, signum)
    one.see(b"got it\r\n")
    assert one.ended() == 9


def test_a_job_that_a_signal_ends(job: Job, attach: Callable[..., Near]) -> None:
    job.start("sh", "-c", "kill -KILL $$")
    one = attach()
    one.see(b"flux-job: task(s) Killed\r\n")
    assert one.ended() == 137


def test_the_terminal_is_given_back_when_the_broker_dies(
    job: Job, attach: Callable[..., Near]
) -> None:
    job.start("sh", "-c", "echo ready; exec sleep 987")
    one = attach()
    one.see(b"ready")
    job.broker.drop()
    one.see(b"lost the connection")
    assert one.ended() == 1


def test_the_terminal_is_given_back_to_who_kills_the_client(
    job: Job, attach: Callable[..., Near]
) -> None:
    job.start("sh", "-c", "echo ready; exec sleep 987")
    one = attach()
    one.see(b"ready")
    os.kill(one.pid, signal.SIGQUIT)
    assert one.ended() == 128 + signal.SIGQUIT


def test_stopping_and_going_on(job: Job, attach: Callable[..., Near]) -> None:
    # Only a shell with job control can stop the client and have it back.
    job.start("sh", "-c", "echo ready; read x; stty size; echo got $x; exit 4")
    script = f"""
    set -m
    echo "<$(stty -g)>"
    sh -c 'echo $$ > client; exec {CLIENT}'
    echo "stopped=$?" "<$(stty -g)>"
    stty rows 35
    fg >/dev/null
    echo "status=$?" "<$(stty -g)>"
    """
    one = attach(f"exec bash -c '{script.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'")
    one.see(b"ready")
    os.kill(one.pid, signal.SIGTSTP)
    one.see(b"stopped=")
    one.see(b" ")
    assert one._settings() == one.settings
    one.type(b"more\r")
    one.see(b"35 100\r\ngot more\r\n")
    assert one.ended() == 4


def test_without_a_terminal_nothing_is_escaped(job: Job) -> None:
    job.start("sh", "-c", "stty raw -echo; read x; exit 5")
    done = subprocess.run(
        [sys.executable, "-m", "flux_mpi", "job", "attach", JOB_TEXT],
        input=b"a\n",
        capture_output=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 5
    assert job.stdin[0] == b"a\n"


def test_who_only_reads_keeps_the_terminal(job: Job, attach: Callable[..., Near]) -> None:
    job.start("sh", "-c", "echo ready; sleep 0.3; exit 2")
    one = attach(SCRIPT.replace("attach", "attach --read-only"))
    one.see(b"ready")
    assert one.ended() == 2
    assert job.stdin == []


def test_an_unknown_job(broker: FakeBroker, attach: Callable[..., Near]) -> None:
    def unknown(request: Request) -> Any:
        request.error(2, f"{JOB_TEXT}: unknown job")

    broker.handlers.update({"job-info.lookup": unknown, "job-info.eventlog-watch": unknown})
    one = attach()
    one.see(b"Failed to attach to")
    assert one.ended() == 1
