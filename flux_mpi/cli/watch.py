"""``flux-mpi watch``: show the output of jobs, running or finished."""

from __future__ import annotations

import os
import time

from flux_mpi.cli.common import connect, parse_id, parse_since
from flux_mpi.cli.jobs import FILTER, SINCE, fetch
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, integer, value
from flux_mpi.client import info

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(args: Arguments) -> int:
    from flux_mpi.cli.waiting import Watcher, make_progress

    request: dict[str, Any] = {"max_entries": args.count, "results": 0, "attrs": ["t_submit"]}
    if args.operands:
        ids = [parse_id(text, "flux-watch", 2) for text in args.operands]
        request.update(ids=ids, states=info.ACTIVE | info.INACTIVE, max_entries=len(ids))
    else:
        if args.filter:
            request["states"], request["results"] = args.filter
        elif args.all or args.since:
            request["states"] = info.ACTIVE | info.INACTIVE
        elif args.active:
            request["states"] = info.ACTIVE
        else:
            raise UsageError(
                "flux-watch: ERROR: no jobs to watch: give job ids, --active, --all or --filter", 2
            )
        request["userid"] = os.getuid()
        if args.since:
            try:
                request["since"] = parse_since(args.since, time.time())
            except ValueError as error:
                raise UsageError(f"flux-watch: ERROR: --since: {error}", 2) from None
    with connect() as handle:
        records, unknown = fetch(handle, request)
        if unknown:
            raise UsageError(f"flux-watch: ERROR: JobID {unknown[0]} unknown", 1)
        if not records:
            return 0
        watcher = Watcher(handle, label=args.label_io, verbose=args.verbose)
        if args.progress:
            started = min(record.get("t_submit") or time.time() for record in records)
            watcher.progress = make_progress(len(records), args.jps, started)
        watcher.follow(sorted(record["id"] for record in records))
        return watcher.wait()


COMMAND = Command(
    "watch",
    "Show the output of jobs as it appears; exit with the largest status.",
    (
        flag("-a", "--active", help="All your active jobs."),
        flag("-A", "--all", help="All your jobs, inactive ones too."),
        value(
            "-c",
            "--count",
            metavar="N",
            default=1000,
            convert=integer(0),
            help="At most N jobs (default 1000; 0: all).",
        ),
        SINCE,
        FILTER,
        flag("-l", "--label-io", help="Put job and task before each line."),
        flag("-v", "--verbose", help="Say how failed jobs ended."),
        flag("--progress", help="Show a progress bar."),
        flag("--jps", help="Show jobs per second in the progress bar."),
    ),
    operands="[JOBID...]",
    run=run,
)
