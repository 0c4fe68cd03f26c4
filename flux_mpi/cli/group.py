"""``flux-mpi group``: who is there, for shell tasks."""

from __future__ import annotations

import errno
import sys

from flux_mpi.cli.common import connect, say
from flux_mpi.cli.options import Arguments, Command, UsageError, duration, flag, integer, value
from flux_mpi.client.groups import View

PROG = "flux-group"

MEMBER = value(
    "-m",
    "--member",
    metavar="NAME",
    help="The member's name (default: JOBID.taskrank in a task, else HOST:PID).",
)


def join(args: Arguments) -> int:
    name, *command = args.operands
    if command[:1] == ["--"]:
        del command[0]
    if not command:
        args.command.fail("COMMAND is missing: a membership lasts as long as a command runs")
    with connect() as handle:
        handle.join_group(name, args.member)
        return _execute(command)


def _execute(command: list[str]) -> int:
    """The exit status of ``command``, to which signals that would end us are passed on."""
    import signal
    import subprocess

    early: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def forward(signum: int, frame: object) -> None:
        if child is None:
            early.append(signum)
        else:
            child.send_signal(signum)

    def leave_it(signum: int, frame: object) -> None:
        """A terminal's Ctrl-C reaches the command by itself; whether that ends it is its say."""

    handlers = dict.fromkeys(("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"), forward)
    handlers["SIGINT"] = leave_it
    # What is ignored (nohup, a script's background) stays so, for the command as well.
    before = {
        name: signal.signal(signal.Signals[name], call)
        for name, call in handlers.items()
        if signal.getsignal(signal.Signals[name]) is not signal.SIG_IGN
    }
    try:
        child = subprocess.Popen(command)
        for signum in early:
            child.send_signal(signum)
        status = child.wait()
    except OSError as error:
        say(f"{PROG}: ERROR: {command[0]}: {error.strerror}")
        return 127 if error.errno == errno.ENOENT else 126
    finally:
        for name, call in before.items():
            signal.signal(signal.Signals[name], call)
    return status if status >= 0 else 128 - status


def leave(args: Arguments) -> int:
    with connect() as handle:
        handle.leave_group(args.operands[0], args.member)
    return 0


def get(args: Arguments) -> int:
    with connect() as handle:
        members = handle.group(args.operands[0])
    if args.count:
        print(len(members))
    else:
        sys.stdout.writelines(f"{member}\n" for member in members)
    return 0


def watch(args: Arguments) -> int:
    import time

    bounded = args.timeout not in (None, float("inf"))
    deadline = time.monotonic() + args.timeout if bounded else None
    name = args.operands[0]
    view, size = View(), 0
    with connect() as handle:
        stream = handle.rpc("groups.get", {"name": name}, streaming=True)
        while args.size is None or size < args.size:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                change = view.take(stream.get(left))
            except TimeoutError:
                text = f"group {name}: {size} members after {args.timeout:g} s"
                raise UsageError(f"{PROG}: ERROR: {text}", 1) from None
            size = len(change.members)
            sys.stdout.writelines(f"-{member}\n" for member in change.left)
            sys.stdout.writelines(f"+{member}\n" for member in change.joined)
            sys.stdout.flush()
    return 0


COMMAND = Command(
    "group",
    "Join and leave groups, and see who is in them.",
    subcommands=(
        Command(
            "join",
            "Be a member of a group for as long as a command runs.",
            (MEMBER,),
            operands="NAME [--] COMMAND...",
            minimum=1,
            posix=True,
            description="""
            Exits with the status of COMMAND (128 + n for signal n, 126 or 127 when it cannot be
            run). The membership also ends when the process, its job or its broker does.
            """,
            examples=(("flux-mpi group join solvers -- ./solve input.dat", "In a task's script."),),
            run=join,
        ),
        Command(
            "leave",
            "End a membership; the command that it was joined with runs on.",
            (MEMBER,),
            operands="NAME",
            minimum=1,
            maximum=1,
            run=leave,
        ),
        Command(
            "get",
            "Print the members of a group, one a line.",
            (flag("-c", "--count", help="Only how many there are."),),
            operands="NAME",
            minimum=1,
            maximum=1,
            run=get,
        ),
        Command(
            "watch",
            "Print +MEMBER for the members of a group and those who join, -MEMBER when one leaves.",
            (
                value(
                    "-s",
                    "--size",
                    metavar="N",
                    convert=integer(1),
                    help="End once there are at least N members.",
                ),
                value(
                    "-t",
                    "--timeout",
                    metavar="FSD",
                    convert=duration,
                    help="Fail after this.",
                ),
            ),
            operands="NAME",
            minimum=1,
            maximum=1,
            run=watch,
        ),
    ),
)
