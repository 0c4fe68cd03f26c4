"""``flux-mpi jobs``: list jobs."""

from __future__ import annotations

import os
import sys
import time

from flux_mpi.cli.common import (
    Elsewhere,
    Ids,
    choose_format,
    colored,
    connect,
    id_form,
    job_paths,
    parse_since,
    parse_user,
    print_formats,
    say,
    shown_path,
    terminal_width,
)
from flux_mpi.cli.options import (
    Arguments,
    Command,
    Option,
    UsageError,
    flag,
    integer,
    optional,
    value,
)
from flux_mpi.client import hierarchy, info
from flux_mpi.view.table import Format, FormatError, cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
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
INSTANCE_COLOR = "\033[01;34m"


def run(args: Arguments) -> int:
    if args.format == "help":
        print_formats("flux-jobs", FORMATS)
        return 0
    if args.json and (args.stats or args.stats_only):
        raise UsageError("flux-jobs: ERROR: --json incompatible with --stats or --stats-only", 1)
    args.recursive = args.recursive or args.recurse_all
    table = job_format(args.format, args.sort, "flux-jobs", "FLUX_JOBS_FORMAT_DEFAULT")
    with connect() as handle:
        if args.stats or args.stats_only:
            active = print_stats(handle)
            if args.stats_only:
                return 0 if active else 1
        found = [
            (where, look(handle, where, ids, args, table.attrs))
            for where, ids in (job_paths(args.operands, "flux-jobs") or {"": []}).items()
        ]
    unknown = [shown_path(where, job) for where, instance in found for job in instance.unknown]
    for job in unknown:
        say(f"JobID {job} unknown")
    first = hierarchy.Instance()
    for _, instance in found:
        first.jobs += instance.jobs
        first.children.update(instance.children)
    if args.operands and unknown and not first.jobs:
        return 1
    truncated = 0 < args.count < len(first.jobs) and not args.operands
    if args.json:
        jobs = shown_jobs(first, args, table)
        single = len(args.operands) == 1 and not found[0][1].listed
        print_json([_with_children(job, first, args, table) for job in jobs], single)
        return 1 if unknown else 0
    write("".join(f"{line}\n" for line in listing(first, args, table)))
    if truncated and not args.no_header:
        sys.stdout.flush()
        say(f"warning: output truncated at {args.count} jobs.")
        say("Use --count to increase returned results or use filters to alter results.")
    return 1 if unknown else 0


def look(
    handle: Handle, where: str, ids: list[int], args: Arguments, attrs: set[str]
) -> hierarchy.Instance:
    """The jobs of an instance that were asked for, and with --recursive those below."""
    with Elsewhere(handle, where) as other:
        request = make_request(args, other, ids)
        if not args.json:
            needed = {"state", "result", "userid", *attrs}
            if args.recursive:
                needed |= hierarchy.NEEDED
            request["attrs"] = sorted(needed - {info.INSTANCE})
        plan = hierarchy.Plan(
            request,
            levels=args.level if args.recursive else 0,
            details=info.INSTANCE in attrs,
            stats=args.stats and args.recursive,
            everyone=args.recurse_all,
        )
        if ids:
            plan.below = make_request(args, other, [])
            if "attrs" in request:
                plan.below["attrs"] = request["attrs"]
        found = hierarchy.walk(other, plan, at_once=args.threads)
        found.listed = not ids
        return found


def shown_jobs(
    instance: hierarchy.Instance, args: Arguments, table: Format
) -> list[dict[str, Any]]:
    """The jobs of one instance in the order, and to the number, that was asked for."""
    jobs = instance.jobs
    if args.count and instance.listed:
        jobs = jobs[: args.count]
    return table.sort(list(jobs))


def listing(first: hierarchy.Instance, args: Arguments, table: Format) -> Iterator[str]:
    """The lines of the list: the first instance's jobs, then those of the instances among them."""
    sections = list(_sections(first, args, table))
    jobs = [job for _, _, shown in sections for job in shown]
    # One table for all, so that columns are as wide, or left out, in each part of it.
    rows = table.table(jobs, header=not args.no_header)
    width = terminal_width() if args.width == 0 else args.width
    color = colored(args.color)
    if not args.no_header:
        yield cut(next(rows), width)
    for title, note, shown in sections:
        if title:
            yield ""
            yield title
        if note:
            yield note
        for job in shown:
            line = cut(next(rows), width)
            chosen = COLORS.get(job.get("result") or 0)
            if chosen is None and hierarchy.is_instance(job):
                chosen = INSTANCE_COLOR
            yield f"{chosen}{line}\033[0;0m" if color and chosen else line


def _sections(
    instance: hierarchy.Instance, args: Arguments, table: Format
) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """(title, remark, jobs) of an instance, and of those below."""
    title = "/".join(map(Ids(), instance.path)) + ":" if instance.path else ""
    if instance.error:
        yield title, f"cannot be listed: {instance.error}", []
        return
    jobs = shown_jobs(instance, args, table)
    yield title, stats_line(instance.stats) if title and args.stats else "", jobs
    for job in jobs:
        child = instance.children.get(job["id"])
        if child is not None:
            yield from _sections(child, args, table)


def _with_children(
    job: dict[str, Any], instance: hierarchy.Instance, args: Arguments, table: Format
) -> dict[str, Any]:
    """A job as JSON, with its own jobs in it when it is an instance that was looked into."""
    found = info.JobInfo(job).to_dict()
    child = instance.children.get(job["id"])
    if child is not None:
        found["jobs"] = [
            _with_children(each, child, args, table) for each in shown_jobs(child, args, table)
        ]
        if child.error:
            found["error"] = child.error
    return found


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


def make_request(args: Arguments, handle: Handle, ids: list[int]) -> dict[str, Any]:
    """What to ask ``job-list.list`` for: ``ids``, or what the options say."""
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
    if ids:
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
    found = {record["id"] for record in records}
    return records, [Ids()(job) for job in request["ids"] if job not in found]


def stats_line(stats: dict[str, Any]) -> str:
    """Counts of jobs, as Flux words them."""
    counts = info.job_counts(stats)
    failed = sum(counts[name] for name in ("failed", "canceled", "timeout"))
    return (
        f"{counts['running']} running, {counts['successful']} completed, {failed} failed, "
        f"{counts['pending']} pending"
    )


def print_stats(handle: Handle) -> bool:
    """One line of counts; returns whether any job is active."""
    stats = handle.call("job-list.stats", {})
    print(f"{stats_line(stats)}, {stats.get('inactive_purged', 0)} inactive purged")
    return bool(info.job_counts(stats)["active"])


def print_json(found: list[dict[str, Any]], single: bool) -> None:
    """``{"jobs": […]}``, or the one job that was asked for."""
    import json

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
LEVEL = value(
    "-L",
    "--level",
    metavar="N",
    default=hierarchy.DEEPEST,
    convert=integer(0),
    help="Go down N levels of instances only.",
)


def _color(*names: str) -> Option:
    return optional(
        *names,
        metavar="WHEN",
        const="always",
        choices=("always", "never", "auto"),
        help="Colours: always, never, or auto (the default).",
    )


COLOR = _color("-L", "--color")
"""Of commands whose -L means nothing else."""

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
        _color("--color"),
        flag("-R", "--recursive", help="List the jobs of instances among them too, and so on."),
        LEVEL,
        flag("--recurse-all", help="The same, and try those of other users too."),
        value(
            "--threads",
            metavar="N",
            default=hierarchy.AT_ONCE,
            convert=integer(1),
            help=f"Ask at most N instances at the same time (default {hierarchy.AT_ONCE}).",
        ),
        flag("--stats", help="Print counts before the list."),
        flag("--stats-only", help="Print counts only; exit 1 when no job is active."),
    ),
    operands="[JOBID...]",
    description="""
    Fields of a format: id (.f58 .dec .hex .dothex .kvs .words .emoji .f58plain), userid, username,
    urgency, priority, state, state_single, status, status_abbrev, name, cwd, queue, ntasks, ncores,
    nnodes, ranks, nodelist, duration, expiration, t_remaining, t_submit, t_depend, t_priority,
    t_sched, t_run, t_cleanup, t_inactive, runtime, success, result, result_abbrev, waitstatus,
    returncode, exception.occurred, .severity, .type, .note, annotations, sched.*, user.*, uri,
    uri.local, dependencies, contextual_info, contextual_time, inactive_reason.

    Of jobs that are instances: instance.stats (.total .pending .running .successful .failed ...),
    instance.progress, instance.utilization, instance.gpu_utilization,
    instance.resources.STATE.COUNT with all, up, down, allocated or free and nnodes, ncores or
    ngpus. They ask each instance; one that does not answer within 5 s leaves them empty.

    A JOBID may be a path: ID/ID is a job of the instance that is job ID, and ID/ all jobs of it.

    Conversions: !d !D (dates), !F !H (durations), !P (percent). A type ending in h shows a hyphen
    for what is unset; a trailing + marks a cut. ?: before a column drops it when it is empty for
    all jobs, +: makes it as wide as needed.
    """,
    examples=(
        ("flux-mpi jobs -a -f failed -o endreason", "Why jobs failed."),
        ("flux-mpi jobs -o '{id.f58} {nodelist:h} {runtime!H}'", "A format of one's own."),
        ("flux-mpi jobs -R --stats", "The jobs of the whole hierarchy, with counts."),
        ("flux-mpi jobs -o '{id.f58} {name} {instance.progress!P}'", "How far instances are."),
    ),
    run=run,
)
