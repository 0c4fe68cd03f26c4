"""A pseudo-terminal between pipes: driven as a job's node would, without any instance."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flux_mpi.formats.ptystream import escape, window_size
from tests.shell.farterminal import LIMIT_S, Far, gone, session_of, until
from tests.shell.farterminal import far as far


def test_the_program_leads_a_session_on_a_terminal(far: Callable[..., Far]) -> None:
    one = far("sh", "-c", "test -t 0 && test -t 1 && test -t 2 && tty && ps -o pid=,sid= -p $$")
    shown, status = one.rest()
    assert status == 0
    lines = shown.replace(b"\r", b"").split(b"\n")
    assert lines[0].startswith(b"/dev/pts/")
    pid, session = lines[1].split()
    assert pid == session


def test_what_is_typed_arrives_and_is_echoed(far: Callable[..., Far]) -> None:
    one = far("cat")
    one.type(b"hello\r")
    one.see(b"hello\r\nhello\r\n")  # the terminal's echo, and cat's
    one.type(b"\x04")
    assert one.rest() == (b"", 0)


def test_every_byte_arrives(far: Callable[..., Far]) -> None:
    source = (
        "import os, sys, tty; tty.setraw(0); os.write(1, b'go')\n"
        "data = b''\n"
        "while len(data) < 1024: data += os.read(0, 1024)\n"
        "os.write(1, data)"
    )
    one = far(sys.executable, "-c", source)
    one.see(b"go")
    every = bytes(range(256)) * 4
    one.type(escape(every[:700]) + window_size(90, 30) + escape(every[700:]))
    assert one.rest() == (every, 0)


def test_window_sizes(far: Callable[..., Far]) -> None:
    one = far("--size=132x43", "sh", "-c", 'trap "stty size" WINCH; stty size; read x; read y')
    one.see(b"43 132\r\n")
    one.type(window_size(80, 24))
    one.see(b"24 80\r\n")
    one.type(window_size(255, 65535))
    one.see(b"65535 255\r\n")


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -KILL $$", -signal.SIGKILL),
        ("kill -SEGV $$", -signal.SIGSEGV),
    ],
)
def test_it_ends_as_the_program_does(far: Callable[..., Far], script: str, status: int) -> None:
    assert far("sh", "-c", script).rest()[1] == status


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["/no/such/program"], 127, b"flux-mpi pty: /no/such/program: No such file or directory"),
        (["/etc/passwd"], 126, b"flux-mpi pty: /etc/passwd: Permission denied"),
        ([""], 126, b"flux-mpi pty: ''"),
    ],
)
def test_a_program_that_cannot_be_run(
    far: Callable[..., Far], words: list[str], status: int, text: bytes
) -> None:
    shown, found = far(*words).rest()
    assert found == status
    assert text in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "the command is missing"),
        (["--size=80x24"], "the command is missing"),
        (["--size=80", "cat"], "invalid option '--size=80'"),
        (["--size=80x70000", "cat"], "invalid option '--size=80x70000'"),
        (["-x", "cat"], "invalid option '-x'"),
    ],
)
def test_a_bad_command_line(far: Callable[..., Far], words: list[str], text: str) -> None:
    one = far(*words)
    assert one.rest() == (b"", 2)
    assert text in one.stderr


def test_an_interrupt_that_is_typed_reaches_what_runs_in_front(far: Callable[..., Far]) -> None:
    # With job control, as in an interactive shell: the shell itself survives.
    one = far("bash", "--norc", "--noprofile", "-i")
    one.type(b"echo ready-$((1+1)); cat\r")
    one.see(b"ready-2")
    one.see(b"\n")
    one.type(b"x\r")
    one.see(b"x\r\nx\r\n")  # cat is there
    one.type(b"\x03")
    one.see(b"$ ")  # not before: an interrupt throws away what is typed and not yet read
    one.type(b"echo status-$?; exit 5\r")
    one.see(b"status-130")
    assert one.rest()[1] == 5


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(far: Callable[..., Far], signum: int) -> None:
    one = far("sh", "-c", f'trap "echo got it; exit 9" {int(signum)}; echo ready; read x')
    one.see(b"ready")
    one.process.send_signal(signum)
    shown, status = one.rest()
    assert b"got it" in shown
    assert status == 9


def test_a_shell_that_does_not_hear_it_loses_its_terminal(far: Callable[..., Far]) -> None:
    one = far("--hangup", "sh", "-c", "trap '' HUP TERM; echo ready; read x; exit 6")
    one.see(b"ready\r\n")
    one.process.terminate()
    assert one.rest() == (b"", 6)


@pytest.mark.parametrize("waits", ["for a command", "for what is typed"])
def test_a_shell_is_hung_up_when_it_is_to_end(far: Callable[..., Far], waits: str) -> None:
    # bash -i ignores SIGTERM.
    one = far("--hangup", "bash", "--norc", "--noprofile", "-i")
    command = "exec sleep 987" if waits == "for a command" else "exit"
    # Said by the command itself: a shell that is just starting one knows nothing of it.
    one.type(f"sh -c 'echo re\"\"ady; {command}'\r".encode())
    one.see(b"ready\r\n")
    if waits == "for what is typed":
        one.see(b"$ ")
    one.process.terminate()
    assert one.rest()[1] == -signal.SIGHUP


def test_when_it_is_killed_the_session_is_hung_up(far: Callable[..., Far], tmp_path: Path) -> None:
    one = far("bash", "--norc", "--noprofile", "-i")
    one.type(f"sh -c 'echo $PPID $$ > {tmp_path}/pids; echo rea\"\"dy; exec sleep 987'\r".encode())
    one.see(b"ready\r\n")
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert not any(map(gone, pids))
    one.process.kill()
    assert until(lambda: all(map(gone, pids)))


def test_a_process_left_behind_does_not_keep_it(far: Callable[..., Far], tmp_path: Path) -> None:
    one = far("sh", "-c", f'(trap "" HUP; exec sleep 987) & echo $! > {tmp_path}/pid; echo done')
    shown, status = one.rest()
    pid = int((tmp_path / "pid").read_text())
    try:
        assert (shown, status) == (b"done\r\n", 0)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_all_output_comes_before_the_end(far: Callable[..., Far]) -> None:
    # Far more than a pipe and a terminal hold, to a reader that begins late.
    one = far("sh", "-c", "stty -opost; seq 200000")
    time.sleep(0.2)
    shown, status = one.rest()
    assert status == 0
    assert shown == b"".join(b"%d\n" % n for n in range(1, 200_001))


def test_an_interrupt_gets_past_output_that_nobody_reads(far: Callable[..., Far]) -> None:
    one = far("sh", "-c", "trap 'exit 3' INT; while :; do echo yes; done")
    one.see(b"yes")
    # The pipe, and all that is held for it, have filled up by now or soon.
    time.sleep(0.3)
    one.type(b"\x03")
    assert one.rest()[1] == 3


def test_input_that_nobody_reads_does_not_keep_output_back(far: Callable[..., Far]) -> None:
    one = far("sh", "-c", "stty raw -echo; echo ready; sleep 0.5; echo late; exec sleep 987")
    one.see(b"ready")
    one.type(b"x" * 60_000)
    one.see(b"late")


def test_the_end_of_input_is_typed(far: Callable[..., Far]) -> None:
    one = far("sh", "-c", "cat; echo ended; cat; echo again")
    one.type(b"unfinished")
    one.end()
    one.see(b"unfinished")
    one.see(b"ended")


def test_a_shell_reads_commands_from_a_pipe_and_ends_with_it(far: Callable[..., Far]) -> None:
    one = far("bash", "--norc", "--noprofile", "-i")
    one.type(b"echo in-$((40+2))\nexit 4\n")
    one.end()
    shown, status = one.rest()
    assert b"in-42" in shown
    assert status == 4


def test_when_nobody_reads_any_more_the_terminal_is_hung_up(
    far: Callable[..., Far], tmp_path: Path
) -> None:
    script = (
        f'echo $$ > {tmp_path}/pid; trap "echo hup > {tmp_path}/hup; exit 0" HUP; '
        "sh -c 'echo ready; exec sleep 987' & wait"
    )
    one = far("sh", "-c", script)
    one.see(b"ready")
    session = int((tmp_path / "pid").read_text())
    assert one.process.stdout is not None
    one.process.stdout.close()
    assert one.process.wait(LIMIT_S) == 0
    assert (tmp_path / "hup").read_text() == "hup\n"
    assert until(lambda: not session_of(session))


def test_a_program_may_close_its_terminal_and_open_it_again(far: Callable[..., Far]) -> None:
    one = far(
        "sh", "-c", "exec <&- >&- 2>&-; sleep 0.2; exec </dev/tty >/dev/tty; echo back; exit 6"
    )
    shown, status = one.rest()
    assert (shown, status) == (b"back\r\n", 6)
