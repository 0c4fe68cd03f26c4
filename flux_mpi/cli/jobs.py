"""``flux-mpi jobs``: list jobs."""

from __future__ import annotations

import os
import sys
import time

from flux_mpi.cli.common import (
    choose_format,
    colored,
    connect,
    id_form,
    parse_id,
    parse_since,
    parse_user,
    print_formats,
    say,
    terminal_width,
)
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, integer, optional, value
from flux_mpi.client import info
from flux_mpi.view.table import Format, FormatError, cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.client.handle import Handle

_START = "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} "
_END = "{contextual_time!F:>8h} {contextual_info}"
FORMATS = {
    "default": (
        "Default flux-jobs format string",
        f"{_START}{{status_abbrev:>2.2}} {{ntasks:>6}} {{nnodes:>6h}} {_END}",
    ),
    "cute": (
        "Cute flux-jobs format string (default with emojis)",
        f"{_START}{{status_emoji:>5.5}} {{ntasks:>6}} {{nnodes:>6h}} {_END}",
    ),
    "long": (
        "Extended flux-jobs format string",
        f"{_START}{{status:>9.9}} {{ntasks:>6}} {{nnodes:>6h}} {{t_submit!d:%b%d %R::>12}} "
        f"{{t_remaining!F:>12h}} {_END}",
    ),
    "deps": (
        "Show job urgency, priority, and dependencies",
        "{id.f58:>12} ?:{queue:<8.8} {name:<10.10+} {urgency:<3} {priority:<12} {state:<8.8} "
        "{dependencies}",
    ),
    "endreason": (
        "Show why each job ended",
        f"{_START}{{status_abbrev:>2.2}} {{t_inactive!d:%b%d %R::>12h}} {{inactive_reason}}",
    ),
}
COLORS = {
    info.COMPLETED: "\033[01;32m",
    info.FAILED: "\033[01;31m",
    info.CANCELED: "\033[37m",
    info.TIMEOUT: "\033[01;31m",
}


def run(args: Arguments) -> int:
    if args.format == "help":
        print_formats("flux-jobs", FORMATS)
        return 0
    if args.json and (args.stats or args.stats_only):
        raise UsageError("flux-jobs: ERROR: --json incompatible with --stats or --stats-only", 1)
    table = job_format(args.format, args.sort, "flux-jobs", "FLUX_JOBS_FORMAT_DEFAULT")
    with connect() as handle:
        if args.stats or args.stats_only:
            active = print_stats(handle)
            if args.stats_only:
                return 0 if active else 1
        request = make_request(args, handle)
        if not args.json:
            request["attrs"] = sorted({"state", "result", "userid", *table.attrs})
        records, unknown = fetch(handle, request)
    for job in unknown:
        say(f"JobID {job} unknown")
    if args.operands and not records:
        return 1
    truncated = 0 < args.count < len(records)
    if truncated:
        del records[args.count :]
    table.sort(records)
    if args.json:
        print_json(records, single=len(args.operands) == 1)
        return 1 if unknown else 0
    lines = list(table.table(records, header=not args.no_header))
    width = terminal_width() if args.width == 0 else args.width
    if width > 0:
        lines = [cut(line, width) for line in lines]
    if colored(args.color):
        offset = 0 if args.no_header else 1
        for at, record in enumerate(records):
            color = COLORS.get(record.get("result") or 0)
            if color:
                lines[at + offset] = f"{color}{lines[at + offset]}\033[0;0m"
    lines.append("")
    write("\n".join(lines))
    if truncated and not args.no_header:
        sys.stdout.flush()
        say(f"warning: output truncated at {args.count} jobs.")
        say("Use --count to increase returned results or use filters to alter results.")
    return 1 if unknown else 0


def write(text: str) -> None:
    """To stdout, whatever it can show: names of jobs may hold any character."""
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode(encoding, "backslashreplace"))


def job_format(text: str | None, sort: str | None, prog: str, variable: str) -> Format:
    """The table format that was asked for. Raises UsageError in Flux's words."""
    chosen = choose_format(text, FORMATS, variable)
    if id_form() == "f58plain":
        chosen = chosen.replace("{id.f58:", "{id.f58plain:").replace("{id.f58}", "{id.f58plain}")
    try:
        table = Format(chosen, info.field)
        if sort:
            table.set_sort(sort)
    except FormatError as error:
        raise UsageError(f"{prog}: ERROR: Error in user format: {error}", 1) from None
    return table


def make_request(args: Arguments, handle: Handle) -> dict[str, Any]:
    """What to ask ``job-list.list`` for, from the options."""
    filters = args.filter
    since = 0.0
    if args.since:
        try:
            since = parse_since(args.since, time.time())
        except ValueError as error:
            raise UsageError(f"flux-jobs: ERROR: --since: {error}", 1) from None
    everything = args.a or args.A or (args.since and not filters)
    if filters and args.a:
        say("flux-jobs: WARNING: Both -a and --filter specified, ignoring -a")
    if filters:
        states, results = filters
    elif everything:
        states, results = info.ACTIVE | info.INACTIVE, 0
    else:
        states, results = info.ACTIVE, 0
    count = args.count
    request: dict[str, Any] = {
        # One more than wanted shows whether there are more.
        "max_entries": count + 1 if count else 0,
        "states": states,
        "results": results,
    }
    if args.operands:
        ids = [parse_id(text, "flux-jobs") for text in args.operands]
        request.update(ids=ids, states=info.ACTIVE | info.INACTIVE, results=0, max_entries=len(ids))
        return request
    user = None if args.A or (args.include and args.user is None) else args.user
    if user is None and not args.A and not args.include:
        request["userid"] = os.getuid()
    elif isinstance(user, int) and user >= 0:
        request["userid"] = user
    if args.name:
        request["name"] = args.name
    if since:
        request["since"] = since
    if args.queue:
        request["queue"] = args.queue
    if args.include:
        request["ranks"] = target_ranks(handle, args.include)
    return request


def target_ranks(handle: Handle, text: str) -> str:
    """An idset of ranks from an idset or a hostlist. Raises UsageError."""
    from flux_mpi.formats.idset import IDSet

    try:
        return str(IDSet.parse(text))
    except ValueError:
        pass
    from flux_mpi.formats.hostlist import Hostlist
    from flux_mpi.formats.rv1 import RSet

    try:
        hosts = Hostlist.parse(text)
    except ValueError:
        raise UsageError(
            f"flux-jobs: ERROR: -i/--include: invalid targets: {text}: "
            "expected an idset of ranks or a hostlist",
            1,
        ) from None
    resources = RSet.parse(handle.call("resource.status", {})["R"])
    return str(IDSet(resources.ranks_of(hosts)))


def fetch(handle: Handle, request: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The records, and the ids asked for that are unknown."""
    records: list[dict[str, Any]] = []
    try:
        for chunk in handle.rpc("job-list.list", request, streaming=True):
            records += chunk["jobs"]
    except OSError as error:
        import errno

        if error.errno != errno.ENOENT or "ids" not in request:
            raise
    if "ids" not in request:
        return records, []
    from flux_mpi.cli.common import Ids

    found = {record["id"] for record in records}
    return records, [Ids()(job) for job in request["ids"] if job not in found]


def print_stats(handle: Handle) -> bool:
    """One line of counts; returns whether any job is active."""
    stats = handle.call("job-list.stats", {})
    states = stats.get("job_states") or {}
    pending = sum(states.get(name, 0) for name in ("depend", "priority", "sched"))
    running = states.get("run", 0) + states.get("cleanup", 0)
    failed = sum(stats.get(name, 0) for name in ("failed", "canceled", "timeout"))
    print(
        f"{running} running, {stats.get('successful', 0)} completed, {failed} failed, "
        f"{pending} pending, {stats.get('inactive_purged', 0)} inactive purged"
    )
    return bool(pending + running)


def print_json(records: list[dict[str, Any]], single: bool) -> None:
    """``{"jobs": […]}``, or the one job that was asked for."""
    import json

    found = [info.JobInfo(record).to_dict() for record in records]
    if single:
        if found:
            print(json.dumps(found[0]))
    else:
        print(json.dumps({"jobs": found}))


def user_option(text: str) -> int:
    found = parse_user(text)
    return -1 if found is None else found


FILTER = value(
    "-f",
    "--filter",
    metavar="STATE|RESULT",
    convert=info.filter_masks,
    help="Only jobs in these states or with these results, comma-separated.",
)
COUNT = value(
    "-c",
    "--count",
    metavar="N",
    default=1000,
    convert=integer(0),
    help="At most N jobs (default 1000; 0: all).",
)
SINCE = value(
    "--since",
    metavar="WHEN",
    help="Only jobs active since WHEN, such as -1h, yesterday, 2027-01-31 15:30 (implies -a).",
)
QUEUE = value("-q", "--queue", metavar="QUEUE", help="Only jobs in this queue.")
USER = value(
    "-u",
    "--user",
    metavar="USER",
    convert=user_option,
    help="Only jobs of this user, or of all.",
)
NAME = value("--name", metavar="NAME", help="Only jobs of this name.")
FORMAT = value(
    "-o",
    "--format",
    metavar="FORMAT",
    help="A named format ('help' lists them) or a string such as '{id.f58} {name} {runtime!F}'.",
)
NO_HEADER = flag("-n", "--no-header", help="No header line.")
COLOR = optional(
    "-L",
    "--color",
    metavar="WHEN",
    const="always",
    choices=("always", "never", "auto"),
    help="Colours: always, never, or auto (the default).",
)

COMMAND = Command(
    "jobs",
    "List jobs; by default your pending and running ones.",
    (
        flag("-a", help="Jobs in all states, inactive ones too."),
        flag("-A", help="Jobs of all users, in all states."),
        COUNT,
        FILTER,
        SINCE,
        NO_HEADER,
        USER,
        NAME,
        QUEUE,
        value("-i", "--include", metavar="HOSTS|RANKS", help="Only jobs that use these nodes."),
        FORMAT,
        value(
            "--sort",
            metavar="KEY,...",
            help="Sort by these fields; -KEY sorts in descending order.",
        ),
        optional(
            "-w",
            "--width",
            metavar="N",
            const=0,
            default=-1,
            convert=integer(),
            help="Cut lines at N columns (no N: those of the terminal).",
        ),
        flag("--json", help="Print JSON."),
        COLOR,
        flag("--stats", help="Print counts before the list."),
        flag("--stats-only", help="Print counts only; exit 1 when no job is active."),
    ),
    operands="[JOBID...]",
    description="""
    Fields of a format: id (.f58 .dec .hex .dothex .kvs .words .emoji .f58plain), userid, username,
    urgency, priority, state, state_single, status, status_abbrev, name, cwd, queue, ntasks, ncores,
    nnodes, ranks, nodelist, duration, expiration, t_remaining, t_submit, t_depend, t_priority,
    t_sched, t_run, t_cleanup, t_inactive, runtime, success, result, result_abbrev, waitstatus,
    returncode, exception.occurred, .severity, .type, .note, annotations, sched.*, user.*,
    dependencies, contextual_info, contextual_time, inactive_reason.

    Conversions: !d !D (dates), !F !H (durations), !P (percent). A type ending in h shows a hyphen
    for what is unset; a trailing + marks a cut. ?: before a column drops it when it is empty for
    all jobs, +: makes it as wide as needed.
    """,
    examples=(
        ("flux-mpi jobs -a -f failed -o endreason", "Why jobs failed."),
        ("flux-mpi jobs -o '{id.f58} {nodelist:h} {runtime!H}'", "A format of one's own."),
    ),
    run=run,
)
