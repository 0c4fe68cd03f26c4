"""``flux-mpi queue``: show and control the queue. There is one, without a name."""

from __future__ import annotations

import sys

from flux_mpi.cli.common import choose_format, colored, connect, print_formats
from flux_mpi.cli.options import (
    Arguments,
    Command,
    UsageError,
    count,
    duration,
    flag,
    optional,
    value,
)
from flux_mpi.view.table import Format, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flux_mpi.client.handle import Handle

PROG = "flux-queue"

FORMATS = {
    "default": (
        "Default flux-queue list format string",
        "?:{queuem:<8.8} {enabled:>2} {started:>2} {defaults.timelimit!F:>8} "
        "{limits.timelimit!F:>8} {limits.range.effective.nnodes:>10} "
        "{limits.range.effective.ncores:>10} {limits.range.effective.ngpus:>10}",
    ),
    "resources": (
        "Show counts of resources",
        "?:{queuem:<8.8} {enabled:>2} {started:>2} {resources.all.nnodes:>6} "
        "{resources.up.nnodes:>6} {resources.down.nnodes:>6} {resources.allocated.nnodes:>6} "
        "{resources.free.nnodes:>6}",
    ),
}


def _check_name(args: Arguments, verb: str) -> None:
    names = list(args.operands)
    if args.queue:
        names += args.queue.split(",")
    if names:
        raise UsageError(f"{PROG}: ERROR: {verb}: {names[0]!r} is not a valid queue", 1)


def _lines(answer: dict[str, Any]) -> list[str]:
    """What Flux says about the queue's two switches."""
    enable, start = answer["enable"], answer["start"]
    why = answer.get("enable_reason")
    submission = f"Job submission is {'enabled' if enable else 'disabled'}"
    if not enable and why:
        submission += f": {why}"
    why = answer.get("start_reason")
    scheduling = f"Scheduling is {'started' if start else 'stopped'}"
    if not start and why:
        scheduling += f": {why}"
    return [submission, scheduling]


def _details(answer: dict[str, Any]) -> list[str]:
    counts = answer.get("counts") or {}
    return [
        f"{counts.get('alloc_queued', 0)} alloc requests queued",
        f"{counts.get('alloc_pending', 0)} alloc requests pending to scheduler",
        f"{counts.get('running', 0)} running jobs",
    ]


def status(args: Arguments) -> int:
    _check_name(args, "status")
    with connect() as handle:
        answer = handle.call("job-manager.queue-status", {})
    lines = _lines(answer)
    if args.verbose:
        lines += _details(answer)
    print("\n".join(lines))
    return 0


def _switch(topic: str, key: str, on: bool, line: int) -> Callable[[Arguments], int]:
    def run(args: Arguments) -> int:
        _check_name(args, args.command.name)
        request: dict[str, Any] = {key: on}
        if not on:
            request["reason"] = args.message or ""
            if key == "enable" and not args.message:
                raise UsageError(
                    f"{PROG}: ERROR: disable: a reason is required: use --message=REASON", 1
                )
        with connect() as handle:
            handle.call(topic, request)
            answer = handle.call("job-manager.queue-status", {})
        if not args.quiet:
            print(_lines(answer)[line])
            if args.verbose:
                print("\n".join(_details(answer)))
        return 0

    return run


def drain(args: Arguments) -> int:
    with connect() as handle:
        handle.call("job-manager.drain", {}, timeout=args.timeout)
    return 0


def idle(args: Arguments) -> int:
    with connect() as handle:
        answer = handle.call("job-manager.idle", {}, timeout=args.timeout)
        pending = answer.get("pending") if isinstance(answer, dict) else None
        if pending is None:
            states = handle.call("job-manager.stats", {})["job_states"]
            pending = sum(states.get(name, 0) for name in ("depend", "priority", "sched"))
    if not args.quiet:
        print(f"{pending} jobs")
    return 0


class _Field:
    attrs: tuple[str, ...] = ()

    def __init__(self, name: str, heading: str) -> None:
        self.heading = heading
        self.get: Callable[[dict[str, Any]], Any] = lambda row: row[name]


_HEADINGS = {
    "queue": "QUEUE",
    "queuem": "QUEUE",
    "submission": "SUBMIT",
    "scheduling": "SCHED",
    "enabled": "EN",
    "enabled.ascii": "EN",
    "started": "ST",
    "started.ascii": "ST",
    "defaults.timelimit": "TDEFAULT",
    "limits.timelimit": "TLIMIT",
    **{
        f"limits.range.{kind}{name}": name.upper()
        for kind in ("", "effective.")
        for name in ("nnodes", "ncores", "ngpus")
    },
    **{
        f"resources.{state}.{name}": heading
        for state, heading in (
            ("all", "TOTAL"),
            ("up", "UP"),
            ("down", "DOWN"),
            ("allocated", "ALLOC"),
            ("free", "FREE"),
        )
        for name in ("nnodes", "ncores", "ngpus")
    },
}
FIELDS = {name: _Field(name, heading) for name, heading in _HEADINGS.items()}


def _row(handle: Handle) -> dict[str, Any]:
    from flux_mpi.cli.resource import LIST_STATES, View

    answer = handle.call("job-manager.queue-status", {})
    view = View(handle)
    row: dict[str, Any] = {
        "queue": "",
        "queuem": "",
        "submission": "enabled" if answer["enable"] else "disabled",
        "scheduling": "started" if answer["start"] else "stopped",
        "enabled": _mark(answer["enable"]),
        "started": _mark(answer["start"]),
        "enabled.ascii": "y" if answer["enable"] else "n",
        "started.ascii": "y" if answer["start"] else "n",
        "defaults.timelimit": float("inf"),
        "limits.timelimit": float("inf"),
    }
    for state in LIST_STATES:
        resources = view.scheduler(state)
        for name in ("nnodes", "ncores", "ngpus"):
            row[f"resources.{state}.{name}"] = getattr(resources, name)
    for name in ("nnodes", "ncores", "ngpus"):
        row[f"limits.range.{name}"] = "0-inf"
        row[f"limits.range.effective.{name}"] = f"0-{row[f'resources.all.{name}']}"
    return row


def _mark(on: bool) -> str:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        return "y" if on else "n"
    return "✔" if on else "✗"


def list_(args: Arguments) -> int:
    if args.format == "help":
        print_formats("flux-queue list", FORMATS)
        return 0
    if args.queue:
        _check_name(args, "list")
    try:
        table = Format(
            choose_format(args.format, FORMATS, "FLUX_QUEUE_LIST_FORMAT_DEFAULT"), FIELDS.get
        )
    except FormatError as error:
        raise UsageError(f"{PROG}: ERROR: Error in user format: {error}", 1) from None
    with connect() as handle:
        row = _row(handle)
    if args.json:
        import json

        shown = {key: val for key, val in row.items() if val != float("inf")}
        print(json.dumps({"queues": [shown]}))
        return 0
    for line in table.table([row], header=not args.no_header):
        if colored(args.color):
            line = line.replace("✔", "\033[01;32m✔\033[0;0m").replace("✗", "\033[01;31m✗\033[0;0m")
        print(line)
    return 0


ALL = flag("-a", "--all", help="All queues (there is one).")
QUEUE = value("-q", "--queue", metavar="NAME", help="A queue by name.")
QUIET = flag("--quiet", help="Print nothing.")
VERBOSE = count("-v", "--verbose", help="Print what the job manager is at.")
MESSAGE = value("-m", "--message", metavar="REASON", help="Why; shown to users.")
TIMEOUT = value("--timeout", metavar="FSD", convert=duration, help="Give up after this.")
NOCHECKPOINT = flag("--nocheckpoint", help="Accepted; the state of a queue is not kept yet.")

COMMAND = Command(
    "queue",
    "Show and control the queue.",
    subcommands=(
        Command(
            "list",
            "Show whether the queue takes and runs jobs, and its limits.",
            (
                QUEUE,
                flag("-n", "--no-header", help="No header line."),
                value("-o", "--format", metavar="FORMAT", help="A named format, or a string."),
                flag("--json", help="Print JSON."),
                optional(
                    "-L",
                    "--color",
                    metavar="WHEN",
                    const="always",
                    choices=("always", "never", "auto"),
                    help="Colours: always, never or auto.",
                ),
            ),
            run=list_,
        ),
        Command(
            "status",
            "Say whether jobs are accepted and scheduled.",
            (QUEUE, VERBOSE),
            run=status,
        ),
        Command(
            "enable",
            "Accept jobs.",
            (ALL, QUEUE, QUIET, VERBOSE),
            operands="[QUEUE]",
            run=_switch("job-manager.queue-enable", "enable", True, 0),
        ),
        Command(
            "disable",
            "Accept no more jobs.",
            (ALL, QUEUE, MESSAGE, QUIET, VERBOSE, NOCHECKPOINT),
            operands="[QUEUE]",
            run=_switch("job-manager.queue-enable", "enable", False, 0),
        ),
        Command(
            "start",
            "Start jobs.",
            (ALL, QUEUE, QUIET, VERBOSE),
            operands="[QUEUE]",
            run=_switch("job-manager.queue-start", "start", True, 1),
        ),
        Command(
            "stop",
            "Start no more jobs; running ones go on.",
            (ALL, QUEUE, MESSAGE, QUIET, VERBOSE, NOCHECKPOINT),
            operands="[QUEUE]",
            run=_switch("job-manager.queue-start", "start", False, 1),
        ),
        Command("drain", "Wait until no job is active.", (TIMEOUT,), run=drain),
        Command("idle", "Wait until no job is running.", (TIMEOUT, QUIET), run=idle),
    ),
)
