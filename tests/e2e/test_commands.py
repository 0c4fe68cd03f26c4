"""The command line as such: help, prefixes, JSON, completion, what a script relies on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Instance = Any
    Outside = Callable[..., subprocess.CompletedProcess[str]]

REQUIRED = [
    "start", "run", "submit", "bulksubmit", "jobs", "job", "cancel", "resource", "queue", "kvs",
    "exec", "ping", "getattr", "lsattr", "setattr", "dmesg", "uptime", "version", "overlay", "help",
]  # fmt: skip
SUBCOMMANDS = {
    "job": ["attach", "info", "eventlog", "wait", "wait-event", "status", "kill", "cancel", "raise",
            "urgency", "id", "last"],
    "queue": ["status", "drain", "idle", "stop", "start"],
    "resource": ["list", "info", "status", "drain", "undrain"],
    "kvs": ["put", "get", "dir", "unlink", "watch"],
}  # fmt: skip


def test_help_without_an_instance(outside: Outside) -> None:
    for words in (["help"], ["--help"], []):
        text = outside("flux-mpi", *words).stdout
        for name in REQUIRED:
            assert re.search(rf"^  {name} ", text, re.MULTILINE), name


def test_every_command_explains_itself(outside: Outside) -> None:
    for name in REQUIRED:
        text = outside("flux-mpi", name, "--help").stdout
        assert text.startswith("Usage: flux-mpi "), name
        assert outside("flux-mpi", "help", name).stdout == text, name
    for name, below in SUBCOMMANDS.items():
        text = outside("flux-mpi", name, "--help").stdout
        for each in below:
            assert re.search(rf"^  {each} ", text, re.MULTILINE), (name, each)
            help_text = outside("flux-mpi", name, each, "--help").stdout
            assert help_text.startswith(f"Usage: flux-mpi {name} {each}"), (name, each)


def test_help_of_what_is_not_there(outside: Outside) -> None:
    assert "nonsense" in outside("flux-mpi", "help", "nonsense", status=1).stderr
    assert "nonsense" in outside("flux-mpi", "nonsense", status=1).stderr


def test_as_a_module(outside: Outside) -> None:
    done = outside(sys.executable, "-m", "flux_mpi", "version")
    assert re.match(r"^commands:\s+\d", done.stdout)


def test_long_options_may_be_shortened(flux: Instance) -> None:
    spec = json.loads(flux.out("submit", "--ntas=2", "--cores-per=2", "--dry", "true"))
    assert spec["resources"][0]["count"] == 2
    assert spec["resources"][0]["with"][0]["count"] == 2
    ambiguous = flux("submit", "--en=A=1", "true", status=None)
    if ambiguous.returncode:
        assert "--env" in ambiguous.stderr
    assert "ambiguous" in flux("run", "--cores", "1", "--e", "x", "true", status=2).stderr


def test_options_and_arguments_in_every_form(flux: Instance) -> None:
    expected = json.loads(flux.out("submit", "--dry-run", "-n", "2", "-c", "3", "cmd", "-n9"))
    for words in (
        ["-n2", "-c3"],
        ["--ntasks=2", "--cores-per-task=3"],
        ["--ntasks", "2", "--cores-per-task", "3"],
        ["-n2", "--cores-per-task=3", "--"],
    ):
        found = json.loads(flux.out("submit", "--dry-run", *words, "cmd", "-n9"))
        assert found["resources"] == expected["resources"], words
        assert found["tasks"] == expected["tasks"], words
    assert expected["tasks"][0]["command"] == ["cmd", "-n9"]  # what follows is the command's own


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "-a", "--json"],
        ["resource", "list", "--json"],
        ["job", "stats"],
        ["resource", "R"],
        ["kvs", "getroot"],
        ["kvs", "namespace", "list", "--json"],
    ],
    ids=" ".join,
)
def test_json_is_json(flux: Instance, words: list[str]) -> None:
    flux("submit", "--quiet", "--wait", "--cc=1-3", "true")
    assert isinstance(json.loads(flux.out(*words)), dict)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(outside: Outside, shell: str) -> None:
    done = outside("flux-mpi", "completion", shell, status=None)
    assert done.returncode == 0, done.stderr
    assert "flux-mpi" in done.stdout


def test_bash_completes_commands_and_options(outside: Outside) -> None:
    script = """
source <(flux-mpi completion bash)
complete_for() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    local f; f=$(complete -p flux-mpi | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f flux-mpi "${@: -1}" ""
    echo "${COMPREPLY[*]}"; }
complete_for flux-mpi su
complete_for flux-mpi submit --ntas
complete_for flux-mpi job att
"""
    done = outside("bash", "-c", script)
    commands, options, below = done.stdout.splitlines()
    assert "submit" in commands.split()
    assert "--ntasks" in options
    assert "attach" in below


def test_no_colour_and_no_bar_outside_a_terminal(flux: Instance) -> None:
    flux("submit", "--quiet", "--wait", "false", status=1)
    for words in (["jobs", "-a"], ["resource", "status"], ["queue", "list"], ["dmesg"]):
        done = flux(*words)
        assert "\x1b" not in done.stdout, words
    assert "\x1b" in flux("jobs", "-a", "--color=always").stdout


def test_a_terminal_gets_a_progress_bar(flux: Instance) -> None:
    import pty

    control, terminal = pty.openpty()
    words = ["bulksubmit", "--quiet", "--wait", "--progress", "true", ":::", *map(str, range(20))]
    running = flux.popen(*words, stderr=terminal, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    os.close(terminal)
    seen = b""
    while True:
        try:
            data = os.read(control, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(control)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "100" in (seen.decode(errors="replace") + out)


def test_an_interactive_shell_on_a_terminal(outside: Outside, tmp_path: Any) -> None:
    """``flux-mpi start`` on a terminal is a shell in an instance; its end is the instance's."""
    script = tmp_path / "terminal.py"
    script.write_text(
        "import os, pty, sys, time\n"
        "pid, fd = pty.fork()\n"
        "if pid == 0:\n"
        "    os.execvp('flux-mpi', ['flux-mpi', 'start'])\n"
        "os.write(fd, b'flux-mpi getattr size; tty; exit 5\\n')\n"
        "out = b''\n"
        "try:\n"
        "    while data := os.read(fd, 4096): out += data\n"
        "except OSError: pass\n"
        "sys.stdout.write(out.decode(errors='replace'))\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    env = {"SHELL": "/bin/sh", "PS1": "> ", "ENV": ""}
    done = outside(sys.executable, str(script), env=env, status=5)
    assert re.search(r"^(> )?1\r?$", done.stdout, re.MULTILINE)
    assert "/dev/pts/" in done.stdout


def test_watch_and_pstree(flux: Instance) -> None:
    assert flux.out("watch", flux.out("submit", "echo", "watched")) == "watched"
    flux("submit", "--quiet", "--cc=1-2", "--wait-event=start", "sleep", "60")
    assert "2*[sleep" in flux.out("pstree", "-a")
    assert flux.out("pstree").splitlines()[0] == "."


def test_commands_load_nothing_heavy(flux: Instance) -> None:
    source = (
        "import sys; sys.argv = ['flux-mpi', *sys.argv[1:]]\n"
        "from flux_mpi.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('mpi4py', 'numpy', 'numba', 'asyncio', 'argparse')\n"
        "sys.stderr.write(' '.join(name for name in heavy if name in sys.modules))\n"
    )
    for words in (["submit", "true"], ["run", "true"], ["jobs", "-a", "-c0"], ["resource", "list"]):
        assert flux.execute([sys.executable, "-c", source, *words]).stderr == "", words
