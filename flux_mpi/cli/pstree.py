"""``flux-mpi pstree``: show jobs as a tree."""

from __future__ import annotations

import os
import sys

from flux_mpi.cli.common import connect, parse_id, terminal_width
from flux_mpi.cli.jobs import COUNT, FILTER, NO_HEADER, fetch, write
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, value
from flux_mpi.client import info
from flux_mpi.view.table import Format, FormatError, cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DETAILS = (
    "{id.f58:>12} {username:<8.8} {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6h} {runtime!F:>8h} "
)


def run(args: Arguments) -> int:
    everything = args.all or bool(args.operands)
    label = args.label or ("{name}:{status_abbrev}" if args.all else "{name}")
    details = args.detail_format or (DETAILS if args.extended else "")
    try:
        labels = Format(label, info.field)
        columns = Format(details, info.field) if details else None
    except FormatError as error:
        raise UsageError(f"flux-pstree: ERROR: Error in user format: {error}", 1) from None
    attrs = {"state", "result", *labels.attrs, *(columns.attrs if columns is not None else ())}
    states, results = args.filter or (
        (info.ACTIVE | info.INACTIVE, 0) if everything else (info.RUNNING, 0)
    )
    request: dict[str, Any] = {
        "max_entries": args.count,
        "states": states,
        "results": results,
        "attrs": sorted(attrs),
        "userid": os.getuid(),
    }
    if args.operands:
        ids = [parse_id(text, "flux-pstree") for text in args.operands]
        request = {**request, "ids": ids, "max_entries": len(ids)}
        del request["userid"]
    with connect() as handle:
        records, unknown = fetch(handle, request)
    if unknown:
        raise UsageError(f"flux-pstree: ERROR: JobID {unknown[0]} unknown", 1)
    width = 0 if args.long or not sys.stdout.isatty() else terminal_width()
    lines = draw(records, labels, columns, args)
    write("".join(f"{cut(line, width)}\n" for line in lines))
    return 0


def draw(
    records: list[dict[str, Any]], labels: Format, columns: Format | None, args: Arguments
) -> list[str]:
    """The tree, alike leaves together unless each has details of its own."""
    texts = list(labels.table(records, header=False))
    skip_root = args.skip_root == "yes" or (
        args.skip_root != "no" and (columns is not None or bool(args.operands))
    )
    if columns is not None:
        rows = list(columns.table(records, header=not args.no_header))
        head, rows = (rows[:1], rows[1:]) if not args.no_header else ([], rows)
        return [line.rstrip() for line in head] + [
            f"{row} {text}" for row, text in zip(rows, texts)
        ]
    if not args.no_combine:
        counts: dict[str, int] = {}
        for text in texts:
            counts[text] = counts.get(text, 0) + 1
        texts = [f"{n}*[{text}]" if n > 1 else text for text, n in counts.items()]
    if skip_root:
        return texts
    tee, end = ("|-- ", "`-- ") if args.ascii else ("├── ", "└── ")
    lines = ["."]
    for at, text in enumerate(texts):
        lines.append((end if at == len(texts) - 1 else tee) + text)
    return lines


COMMAND = Command(
    "pstree",
    "Show running jobs as a tree.",
    (
        flag("-a", "--all", help="Jobs in all states."),
        COUNT,
        FILTER,
        flag("-x", "--extended", help="Print details of each job."),
        value("--detail-format", metavar="FORMAT", help="Details in a format of your own."),
        flag("-l", "--long", help="Do not cut long lines."),
        NO_HEADER,
        flag("-X", "--no-combine", help="Show alike jobs one by one."),
        value("-o", "--label", metavar="FORMAT", help="What to show of each job."),
        value(
            "--skip-root",
            metavar="yes|no",
            choices=("yes", "no"),
            help="Leave out the instance itself.",
        ),
        flag("--ascii", help="Draw with ASCII characters."),
    ),
    operands="[JOBID...]",
    run=run,
)
