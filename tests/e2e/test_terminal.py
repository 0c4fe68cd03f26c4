"""A far terminal through real brokers: ``flux-mpi pty`` as a job, and who attaches to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flux_mpi
from flux_mpi.formats.ptystream import window_size
from tests.e2e.conftest import Instance
from tests.shell.farterminal import Far
from tests.shell.farterminal import far as far

OPTIONS = {"pty.interactive": 1, "input.stdin.type": "service"}


@pytest.fixture
def shell(flux: Instance, far: Callable[..., Far], tmp_path: Path) -> Callable[..., Any]:
    """``shell(*words)``: a job on a far terminal of rank 3, and a near one attached to it."""

    def start(*words: str) -> tuple[Any, Far]:
        job = flux_mpi.submit(
            ["flux-mpi", "pty", "--size=80x24", "--", *words],
            handle=flux.handle,
            env={**flux.env, "PS1": "$ "},
            options=OPTIONS,
            attributes={"constraints": {"ranks": ["3"]}},
        )
        return job, attach(job)

    def attach(job: Any) -> Far:
        client = f"echo $$ > client; exec flux-mpi job attach {job}"
        script = f"stty -g > before; sh -c '{client}'; echo status=$?; stty -g > after"
        return far("--size=100x30", "sh", "-c", f"cd {tmp_path}; {script}", env=flux.env)

    start.attach = attach  # type: ignore[attr-defined]
    return start


def end(one: Far, tmp_path: Path) -> int:
    """The client's status; it must have left its terminal as it was."""
    one.see(b"status=")
    status = int(one.see(b"\r\n"))
    assert one.rest()[1] == 0
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()
    return status


def test_a_shell_on_another_rank(flux: Instance, shell: Any, tmp_path: Path) -> None:
    job, one = shell("bash", "--norc", "--noprofile", "-i")
    one.type(b"echo rank-$(flux-mpi getattr rank); stty size; tty\r")
    one.see(b"rank-3\r\n30 100\r\n/dev/")
    one.type(window_size(111, 33))
    one.type(b"stty size\r")
    one.see(b"33 111\r\n")
    one.type(b"echo go''ing; cat\r")
    one.see(b"going\r\n")
    one.type(b"x\r")
    one.see(b"x\r\nx\r\n")
    one.type(b"\x03")
    one.see(b"$ ")
    one.type(b"exit 7\r")
    assert end(one, tmp_path) == 7
    assert flux_mpi.wait(job, 60, handle=flux.handle).returncode == 7


def test_leaving_and_coming_back(flux: Instance, shell: Any, tmp_path: Path) -> None:
    job, one = shell("bash", "--norc", "--noprofile", "-i")
    one.type(b"value=$((40+2)); echo set-$value\r")
    one.see(b"set-42\r\n")
    one.type(b"\x1c")
    one.see(b"flux-job: detaching...\r\n")
    assert end(one, tmp_path) == 0
    again = shell.attach(job)
    again.see(b"set-42\r\n")  # what was shown before is shown again
    again.type(b"echo still-$value; exit\r")
    again.see(b"still-42\r\n")
    assert end(again, tmp_path) == 0


def test_every_byte_both_ways(shell: Any, tmp_path: Path) -> None:
    source = (
        "import os, tty; tty.setraw(0); os.write(1, b'go')\n"
        "data = b''\n"
        "while len(data) < 200000: data += os.read(0, 65536)\n"
        "os.write(1, b'<'); os.write(1, bytes(b ^ 1 for b in data)); os.write(1, b'>')\n"
    )
    _, one = shell("python3", "-c", source)
    one.see(b"go")
    data = (bytes(range(0x20, 0x100)) * 1000)[:200_000]
    from flux_mpi.formats.ptystream import escape

    one.type(escape(data))
    one.see(b"<")
    shown = one.see(b"status=")
    assert shown.startswith(bytes(byte ^ 1 for byte in data) + b">")


@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_the_job_ends_and_the_terminal_is_given_back(
    flux: Instance, shell: Any, tmp_path: Path, how: str
) -> None:
    job, one = shell("bash", "--norc", "--noprofile", "-i")
    one.type(b"sh -c 'echo re\"\"ady; exec sleep 987'\r")
    one.see(b"ready")
    if how == "cancel":
        flux_mpi.cancel(job, "enough", handle=flux.handle)
        one.see(b"type=cancel severity=0 enough")
    else:
        flux_mpi.kill(job, signal.SIGKILL, handle=flux.handle)
    assert end(one, tmp_path) in (128 + signal.SIGKILL, 128 + signal.SIGHUP, 128 + signal.SIGTERM)


def test_the_client_is_hung_up(flux: Instance, shell: Any, tmp_path: Path) -> None:
    # As when a connection breaks: the shell far away is told, and ends.
    job, one = shell("bash", "--norc", "--noprofile", "-i")
    one.type(b"echo re''ady\r")
    one.see(b"ready")
    os.kill(int((tmp_path / "client").read_text()), signal.SIGHUP)
    assert flux_mpi.wait(job, 60, handle=flux.handle).returncode != 0
    assert end(one, tmp_path) != 0
