"""``flux-mpi pgrep`` and ``pkill``: find, or cancel, jobs by name or range of ids."""

from __future__ import annotations

import os

from flux_mpi.cli.cancel import report
from flux_mpi.cli.common import Ids, connect
from flux_mpi.cli.jobs import (
    COUNT,
    FILTER,
    FORMAT,
    NO_HEADER,
    QUEUE,
    USER,
    fetch,
    job_format,
    write,
)
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, integer, value
from flux_mpi.client import info
from flux_mpi.client.hierarchy import detail
from flux_mpi.formats import fluid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flux_mpi.client.handle import Handle


def matcher(expressions: list[str], prog: str) -> Callable[[dict[str, Any]], bool]:
    """A test for all of ``expressions``: names (regex) and ranges ``ID..ID``. Raises UsageError."""
    import re

    ranges: list[tuple[int, int]] = []
    patterns = []
    for text in expressions:
        first, dots, last = text.partition("..")
        if dots and not text.startswith("name:"):
            try:
                ranges.append((fluid.parse(first), fluid.parse(last)))
                continue
            except ValueError:
                pass
        try:
            patterns.append(re.compile(text.removeprefix("name:")))
        except re.error as error:
            raise UsageError(f"{prog}: ERROR: expression error: {error}: {text!r}", 2) from None
    return lambda job: (
        all(low <= job["id"] <= high for low, high in ranges)
        and all(pattern.search(job.get("name", "")) for pattern in patterns)
    )


def find(
    handle: Handle, args: Arguments, attrs: set[str], everything: bool, prog: str
) -> list[dict[str, Any]]:
    matches = matcher(args.operands, prog)
    states, results = args.filter or (
        (info.ACTIVE | info.INACTIVE, 0) if everything else (info.ACTIVE, 0)
    )
    request: dict[str, Any] = {
        "max_entries": args.max_entries,
        "states": states,
        "results": results,
        "attrs": sorted({"name", *attrs} - {info.INSTANCE}),
    }
    if args.A or (args.user is not None and args.user < 0):
        pass
    else:
        request["userid"] = os.getuid() if args.user is None else args.user
    if args.queue:
        request["queue"] = args.queue
    records, _ = fetch(handle, request)
    found = [record for record in records if matches(record)]
    found = found[: args.count] if args.count else found
    if info.INSTANCE in attrs:
        detail(handle, found)
    return found


def pgrep(args: Arguments) -> int:
    table = job_format(args.format, None, "flux-pgrep", "FLUX_PGREP_FORMAT_DEFAULT")
    with connect() as handle:
        records = find(handle, args, table.attrs, args.a, "flux-pgrep")
    if not records:
        return 1
    if args.format is None and "FLUX_PGREP_FORMAT_DEFAULT" not in os.environ:
        ids = Ids()
        write("".join(f"{ids(record['id'])}\n" for record in records))
    else:
        lines = table.table(table.sort(records), header=not args.no_header)
        write("".join(f"{line}\n" for line in lines))
    return 0


def pkill(args: Arguments) -> int:
    from flux_mpi.client.jobs import JobArray, ranges

    with connect() as handle:
        records = find(handle, args, set(), False, "flux-pkill")
        if not records:
            return 1
        jobs = sorted(record["id"] for record in records)
        answer = handle.call(
            "job-manager.raise",
            {"ids": ranges(jobs), "type": "cancel", "severity": 0, "note": args.message or ""},
        )
        status = report(answer.get("errors") or {}, "flux-pkill: ERROR")
        if args.wait:
            from flux_mpi.cli.waiting import Waiter

            array = JobArray([(first, count) for first, count in ranges(jobs)])
            Waiter(handle, array, None, 0).wait()
        return status


_SELECT = (
    flag("-A", help="Jobs of all users."),
    USER,
    FILTER,
    QUEUE,
    COUNT,
    value(
        "--max-entries",
        metavar="N",
        default=1000,
        convert=integer(0),
        help="Consider at most N jobs (default 1000; 0: all).",
    ),
)

COMMAND = Command(
    "pgrep",
    "Find jobs by name.",
    (
        flag("-a", help="Jobs in all states, inactive ones too."),
        *_SELECT,
        FORMAT,
        NO_HEADER,
    ),
    operands="EXPRESSION...",
    minimum=1,
    description="""
    An EXPRESSION is a regular expression for the name, or a range of ids ID..ID; all must match.
    Exits 1 when no job matches.
    """,
    run=pgrep,
)

PKILL = Command(
    "pkill",
    "Cancel jobs by name.",
    (
        *_SELECT,
        flag("-w", "--wait", help="Wait until the jobs have ended."),
        value("-m", "--message", metavar="NOTE", help="Say why; shown with the job."),
    ),
    operands="EXPRESSION...",
    minimum=1,
    run=pkill,
)
