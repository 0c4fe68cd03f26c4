"""``flux-mpi queue``: show and control the queues, or the one without a name."""

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
    repeat,
    value,
)
from flux_mpi.view.table import Format, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flux_mpi.client.handle import Handle
    from flux_mpi.formats.rv1 import RSet

PROG = "flux-queue"

_START = "?:{queuem:<8.8} ?:{parent:<8.8} {enabled:>2} {started:>2} "
_TIMES = "{defaults.timelimit!F:>8} {limits.timelimit!F:>8} "
FORMATS = {
    "default": (
        "Default flux-queue list format string",
        f"{_START}{_TIMES}{{limits.range.effective.nnodes:>10}} "
        "{limits.range.effective.ncores:>10} {limits.range.effective.ngpus:>10}",
    ),
    "policy": (
        "The limits as configured, and the queue policy",
        f"{_START}{_TIMES}{{limits.range.nnodes:>10}} {{limits.range.ncores:>10}} "
        "{limits.range.ngpus:>10} {policy:>12}",
    ),
    "nodes": (
        "Counts of all, up, down, allocated and free nodes",
        f"{_START}{{resources.all.nnodes:>6}} {{resources.up.nnodes:>10}} "
        "{resources.down.nnodes:>10} {resources.allocated.nnodes:>11} "
        "{resources.free.nnodes:>10}",
    ),
}
SIZES = ("nnodes", "ncores", "ngpus")
PAUSED = "parent"
"""Why a virtual queue that is started does not start jobs."""


def _queue_of(args: Arguments) -> str | None:
    """The queue that was named, by option or as an operand."""
    names = list(args.operands)
    if args.queue:
        if names:
            raise UsageError(
                f"{PROG}: ERROR: Conflicting queues specified as --queue={args.queue} "
                f"and {names[0]}",
                1,
            )
        names = [args.queue]
    if len(names) > 1:
        raise UsageError(f"{PROG}: ERROR: unrecognized arguments: {' '.join(names[1:])}", 2)
    return names[0] if names else None


def _statuses(
    handle: Handle, name: str | None, everyone: bool, verb: str
) -> list[tuple[str, dict[str, Any]]]:
    """(name, status) of a queue, or of all of them."""
    names = handle.call("job-manager.queue-list", {})["queues"]
    if name is not None and name not in names:
        raise UsageError(f"{PROG}: ERROR: {verb}: {name!r} is not a valid queue", 1)
    if name is not None and not everyone:
        names = [name]
    return [
        (each, handle.call("job-manager.queue-status", {"name": each} if each else {}))
        for each in names or [""]
    ]


def _submission(name: str, status: dict[str, Any]) -> str:
    text = "Job submission is enabled"
    if not status["enable"]:
        text = f"Job submission is disabled: {status.get('disable_reason') or ''}"
    return f"{name}: {text}" if name else text


def _scheduling(name: str, status: dict[str, Any]) -> str:
    text = "Scheduling is started"
    if not status["start"]:
        why = status.get("stop_reason")
        text = f"Scheduling is stopped: {why}" if why else "Scheduling is stopped"
    return f"{name}: {text}" if name else text


def _details(statuses: list[tuple[str, dict[str, Any]]]) -> list[str]:
    counts = statuses[0][1].get("counts") or {}
    return [
        f"{counts.get('alloc_queued', 0)} alloc requests queued",
        f"{counts.get('alloc_pending', 0)} alloc requests pending to scheduler",
        f"{counts.get('running', 0)} running jobs",
    ]


def status(args: Arguments) -> int:
    with connect() as handle:
        statuses = _statuses(handle, _queue_of(args), bool(args.verbose or args.all), "status")
    lines = []
    for name, found in statuses:
        lines += [_submission(name, found), _scheduling(name, found)]
    if args.verbose:
        lines += _details(statuses)
    print("\n".join(lines))
    return 0


def _switch(topic: str, key: str, on: bool) -> Callable[[Arguments], int]:
    def run(args: Arguments) -> int:
        verb = args.command.name
        name = _queue_of(args)
        request: dict[str, Any] = {key: on, "all": args.all}
        if name:
            request["name"] = name
        if not on and args.message:
            request["reason"] = args.message
        elif not on and key == "enable":
            request["reason"] = "disabled by administrator"
        with connect() as handle:
            statuses = _statuses(handle, name, True, verb)
            if not name and not args.all and statuses[0][0]:
                hint = "Named queues are defined. Specify queues or use --all."
                if key == "enable":
                    hint = f"{verb}: Use --all to apply this command to all queues"
                raise UsageError(f"{PROG}: ERROR: {hint}", 1)
            handle.call(topic, request)
            if args.quiet:
                return 0
            statuses = _statuses(handle, name, bool(args.verbose), verb)
        say = _submission if key == "enable" else _scheduling
        lines = [say(each, found) for each, found in statuses]
        if args.verbose and key == "start":
            lines += _details(statuses)
        print("\n".join(lines))
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
    if not args.quiet or pending:
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
    "parent": "PARENT",
    "policy": "POLICY",
    "submission": "SUBMIT",
    "scheduling": "SCHED",
    "enabled": "EN",
    "enabled.ascii": "EN",
    "started": "ST",
    "started.ascii": "ST",
    "defaults.timelimit": "TDEFAULT",
    "limits.timelimit": "TLIMIT",
    **{f"limits.range.{kind}{name}": name.upper() for kind in ("", "effective.") for name in SIZES},
    **{
        f"limits.{bound}.{name}": f"{bound.upper()}{name[1:].upper()}"
        for bound in ("min", "max")
        for name in SIZES
    },
    **{
        f"resources.{state}.{name}": name[1:].upper()
        + ("" if state == "all" else f":{state[:5].upper()}")
        for state in ("all", "up", "down", "allocated", "free")
        for name in SIZES
    },
}
FIELDS = {name: _Field(name, heading) for name, heading in _HEADINGS.items()}


def _rows(handle: Handle, names: list[str]) -> list[dict[str, Any]]:
    from flux_mpi.cli.resource import LIST_STATES, View
    from flux_mpi.formats.constraint import matching_ranks

    listed = handle.call("job-manager.queue-list", {})
    for name in names:
        if name not in listed["queues"]:
            raise UsageError(f"{PROG}: ERROR: list: {name!r} is not a valid queue", 1)
    view = View(handle)
    states = {state: view.scheduler(state) for state in LIST_STATES}
    rows = []
    for name in names or listed["queues"] or [""]:
        answer = handle.call("job-manager.queue-status", {"name": name} if name else {})
        resources = states
        if answer["requires"]:
            ranks = matching_ranks({"properties": answer["requires"]}, view.all)
            resources = {key: each.subset(each.ranks & ranks) for key, each in states.items()}
        row = _row(name, answer, resources)
        if name and name == listed.get("default"):
            row["queuem"] = f"{name}*"
        rows.append(row)
    return rows


def _row(name: str, answer: dict[str, Any], resources: dict[str, RSet]) -> dict[str, Any]:
    paused = answer.get("blocked") == PAUSED
    limits = answer["limits"]
    row: dict[str, Any] = {
        "queue": name,
        "queuem": name,
        "parent": answer.get("parent") or "",
        "policy": answer["policy"],
        "submission": "enabled" if answer["enable"] else "disabled",
        "scheduling": "started" if answer["start"] else "stopped" + " (parent)" * paused,
        "enabled": _mark(answer["enable"]),
        "started": _mark(answer["start"], paused),
        "enabled.ascii": "y" if answer["enable"] else "n",
        "started.ascii": "y" if answer["start"] else "np"[paused],
        "defaults.timelimit": answer["defaults"]["duration"] or float("inf"),
        "limits.timelimit": limits["duration"],
    }
    for state, found in resources.items():
        for size in SIZES:
            row[f"resources.{state}.{size}"] = getattr(found, size)
    for size in SIZES:
        least, most = limits["min"][size], limits["max"][size]
        row[f"limits.min.{size}"] = least
        row[f"limits.max.{size}"] = f"{most:g}"
        row[f"limits.range.{size}"] = f"{least}-{most:g}"
        effective = min(most, row[f"resources.all.{size}"])
        row[f"limits.range.effective.{size}"] = f"{least}-{effective:g}"
    return row


def _mark(on: bool, paused: bool = False) -> str:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        return "y" if on else "np"[paused]
    return "✔" if on else "✗⏸"[paused]


def list_(args: Arguments) -> int:
    if args.format == "help":
        print_formats("flux-queue list", FORMATS)
        return 0
    try:
        table = Format(
            choose_format(args.format, FORMATS, "FLUX_QUEUE_LIST_FORMAT_DEFAULT"), FIELDS.get
        )
    except FormatError as error:
        raise UsageError(f"{PROG}: ERROR: Error in user format: {error}", 1) from None
    names = [name for text in args.queue or () for name in text.split(",") if name]
    with connect() as handle:
        rows = _rows(handle, names)
    if args.json:
        import json

        shown = [{key: val for key, val in row.items() if val != float("inf")} for row in rows]
        print(json.dumps({"queues": shown}))
        return 0
    colours = colored(args.color)
    for line in table.table(table.sort(rows), header=not args.no_header):
        if colours:
            for mark, code in (("✔", 32), ("✗", 31), ("⏸", 33)):
                line = line.replace(mark, f"\033[01;{code}m{mark}\033[0;0m")
        print(line)
    return 0


ALL = flag("-a", "--all", help="All queues.")
QUEUE = value("-q", "--queue", metavar="NAME", help="A queue by name.")
QUIET = flag("--quiet", help="Print nothing.")
VERBOSE = count("-v", "--verbose", help="Print what the job manager is at.")
MESSAGE = value("-m", "--message", metavar="REASON", help="Why; shown to users.")
TIMEOUT = value("-t", "--timeout", metavar="FSD", convert=duration, help="Give up after this.")
NOCHECKPOINT = flag("--nocheckpoint", help="Accepted; the state of a queue is not kept yet.")

COMMAND = Command(
    "queue",
    "Show and control the queues.",
    subcommands=(
        Command(
            "list",
            "Show which queues take and run jobs, and their limits.",
            (
                repeat("-q", "--queue", metavar="NAME,...", help="Only these queues."),
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
            (ALL, QUEUE, VERBOSE),
            operands="[QUEUE]",
            run=status,
        ),
        Command(
            "enable",
            "Accept jobs.",
            (ALL, QUEUE, QUIET, VERBOSE),
            operands="[QUEUE]",
            run=_switch("job-manager.queue-enable", "enable", True),
        ),
        Command(
            "disable",
            "Accept no more jobs.",
            (ALL, QUEUE, MESSAGE, QUIET, VERBOSE, NOCHECKPOINT),
            operands="[QUEUE]",
            run=_switch("job-manager.queue-enable", "enable", False),
        ),
        Command(
            "start",
            "Start jobs.",
            (ALL, QUEUE, QUIET, VERBOSE),
            operands="[QUEUE]",
            run=_switch("job-manager.queue-start", "start", True),
        ),
        Command(
            "stop",
            "Start no more jobs; running ones go on.",
            (ALL, QUEUE, MESSAGE, QUIET, VERBOSE, NOCHECKPOINT),
            operands="[QUEUE]",
            run=_switch("job-manager.queue-start", "start", False),
        ),
        Command("drain", "Wait until no job is active.", (TIMEOUT,), run=drain),
        Command(
            "idle",
            "Wait until no job is running; prints how many wait.",
            (TIMEOUT, flag("--quiet", help="Print nothing unless jobs wait.")),
            run=idle,
        ),
    ),
)
