"""``flux-mpi alloc``: an instance of one's own, to work in or to run a command in."""

from __future__ import annotations

import os
import sys

from flux_mpi.cli.children import GROUPS, ChildBuilder
from flux_mpi.cli.common import Ids, connect, say
from flux_mpi.cli.options import Arguments, Command, flag
from flux_mpi.cli.terminal import Terminal, is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.client.handle import Handle

PROG = "flux-alloc"


def run(args: Arguments) -> int:
    from flux_mpi.cli.attaching import Session, has_input

    builder = ChildBuilder(PROG)
    options: dict[str, Any] = dict(vars(args))
    program: list[str] = args.operands
    terminal = None
    feed = False
    shell: dict[str, Any] = {}
    if not args.bg:
        here = is_terminal(0)
        if not program and not here and not args.dry_run:
            raise builder.fail(
                "stdin is not a tty - can't run interactive shell: give a COMMAND, or --bg for an "
                "instance in the background"
            )
        # A command whose output goes elsewhere is not one to sit before.
        if here and (not program or is_terminal(1)):
            terminal = Terminal()
            shell["pty.interactive"] = 1
        program = _program(program, terminal)
        feed = terminal is not None or has_input()
        if feed:
            shell["input.stdin.type"] = "service"
    spec = builder.child(options, program, shell=shell)
    builder.urgency(args.urgency)
    builder.flags(options)
    if args.dry_run:
        import json

        print(json.dumps(spec))
        return 0
    with connect() as handle:
        job = builder.submit(handle, spec, options)
        if args.bg:
            return _background(handle, job, args)
        if args.verbose:
            say(f"jobid: {Ids()(job)}")
        session = Session(
            handle,
            job,
            unbuffered=args.unbuffered,
            show_events=args.verbose > 1,
            show_exec=args.verbose > 2,
            feed_stdin=feed,
            # The other ranks have no program to read it.
            stdin_ranks="0",
            terminal=terminal,
        )
        sys.stdout.flush()
        return session.run()


def _program(words: list[str], terminal: Terminal | None) -> list[str]:
    """The initial program: the command or a shell, on a terminal of its own if we have one."""
    shell = os.environ.get("SHELL") or "/bin/sh"
    interactive = not words
    if interactive:
        words = [shell]
    if terminal is None:
        return words
    if not interactive and len(words) == 1 and " " in words[0] and not os.access(words[0], os.X_OK):
        # One word with spaces in it is a line for the shell, as with "flux-mpi start".
        words = [shell, "-c", words[0]]
    columns, rows = terminal.size()
    how = [f"--size={columns}x{rows}", *(["--hangup"] if interactive else [])]
    return ["flux-mpi", "pty", *how, "--", *words]


def _background(handle: Handle, job: int, args: Arguments) -> int:
    """Waits until the instance is ready for jobs, and prints the job's id."""
    import errno
    import time

    from flux_mpi.client.batch import wait_ready
    from flux_mpi.message.errors import FluxError

    text = Ids()(job)
    t0 = 0.0

    def tell(when: float, what: str) -> None:
        if args.verbose:
            say(f"{text}: {when:6.3f}s: {what}")

    def event(found: dict[str, Any]) -> None:
        nonlocal t0
        t0 = t0 or found["timestamp"]
        if found["name"] == "alloc":
            tell(found["timestamp"] - t0, "resources allocated")
        elif found["name"] == "memo" and "uri" in (found.get("context") or {}):
            tell(found["timestamp"] - t0, "waiting for instance")

    tell(0.0, "waiting for resources")
    try:
        wait_ready(handle, job, on_event=event)
    except KeyboardInterrupt:
        say(f"\r{text}: Interrupt: canceling job")
        cancel = {"type": "cancel", "severity": 0, "note": "interrupted by ctrl-C"}
        handle.call("job-manager.raise", {"ids": [[job, 1]], **cancel})
        return 1
    except FluxError as error:
        if error.errno != errno.ECHILD:
            raise
        _show_what_was_said(handle, job)
        say(f"{PROG}: ERROR: {error}")
        return 1
    tell(time.time() - t0, "ready")
    print(text)
    return 0


def _show_what_was_said(handle: Handle, job: int) -> None:
    """All output of a job that has ended, on stderr: why it did may be there."""
    from flux_mpi.cli.attaching import Session
    from flux_mpi.client.attach import LineWriter, write_standard

    writer = LineWriter(write=lambda stream, data: write_standard(2, data))
    Session(handle, job, read_only=True, writer=writer).run()


COMMAND = Command(
    "alloc",
    "Start an instance of one's own and work in it, or run a command in it.",
    operands="[COMMAND [ARGS...]]",
    posix=True,
    value_status=1,
    groups=[
        *GROUPS[:2],
        (
            "Attaching",
            (
                flag(
                    "--bg",
                    help="Print the job's id once the instance is ready, and leave it running.",
                ),
                # Its output goes through here and nowhere else, so of STDIO only this makes sense.
                flag(
                    "-u", "--unbuffered", help="Do not hold output back until a line is complete."
                ),
            ),
        ),
        *((title, group) for title, group in GROUPS[2:] if title != "Standard I/O"),
    ],
    description="""
    Waits until the resources are allocated, runs COMMAND on the first node of them, as the initial
    program of an instance that has just these resources, and exits with its status. Without
    COMMAND it is a shell, for which standard input must be a terminal; ctrl-\\ typed by itself
    leaves it running, and flux-mpi job attach comes back to it.

    With --bg the instance runs until COMMAND ends; without one, until its time limit, until it is
    cancelled or shut down.
    """,
    examples=(
        ("flux-mpi alloc -N2", "A shell in an instance of two whole nodes."),
        ("flux-mpi alloc -n16 ./workflow", "Runs the workflow on 16 cores of its own."),
        ("flux-mpi alloc -n4 --bg", "An instance to submit to; prints its job's id."),
    ),
    run=run,
)
