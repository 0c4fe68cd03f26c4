"""``flux-mpi pstree``: show jobs as a tree, those of jobs that are instances below them."""

from __future__ import annotations

import os
import time

from flux_mpi.cli.common import (
    Elsewhere,
    connect,
    id_form,
    job_paths,
    shown_path,
    terminal_width,
)
from flux_mpi.cli.jobs import COUNT, FILTER, LEVEL, NO_HEADER, write
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, value
from flux_mpi.client import hierarchy, info
from flux_mpi.message.errors import FluxError
from flux_mpi.view.table import Format, FormatError, cut
from flux_mpi.view.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.client.handle import Handle

PROG = "flux-pstree"
DETAILS = {
    "default": (
        "{id.f58:>12} {username:<8.8} {status_abbrev:>2.2} {ntasks:>6h} {nnodes:>6h} "
        "{runtime!F:>8h}"
    ),
    "resources": (
        "{id.f58:>12} {instance.resources.all.nnodes:>5} {instance.resources.allocated.nnodes:>5} "
        "{instance.resources.all.ncores:>5} {instance.resources.allocated.ncores:>5} "
        "{instance.resources.all.ngpus:>5} {instance.resources.allocated.ngpus:>5}"
    ),
    "progress": (
        "{id.f58:>12} {ntasks:>6h} {instance.stats.total:>6} {instance.progress!P:>5} "
        "{instance.utilization!P:>5} {instance.gpu_utilization!P:>5} {runtime!H:>10}"
    ),
    "stats": "{id.f58:>12} {instance.stats:^25} {runtime!H:>10}",
}
"""What ``--details`` names."""


class _Formats:
    """How jobs are shown: labels of leaves and of parents, and what stands before them."""

    def __init__(self, args: Arguments) -> None:
        label = args.label or ("{name}:{status_abbrev}" if args.all else "{name}")
        parent = args.parent_label or args.label or "{name}"
        if args.parent_ids:
            parent = "{id.f58} " + parent
        details = args.detail_format
        if details is None and (args.details or args.extended):
            details = DETAILS[args.details or "default"]
        self.label = _format(label)
        self.parent = _format(parent)
        self.details = _format(details) if details is not None else None

    @property
    def attrs(self) -> set[str]:
        found = self.label.attrs | self.parent.attrs
        return found | (self.details.attrs if self.details is not None else set())

    def prefix(self, job: dict[str, Any]) -> str:
        return f"{self.details.line(job)} " if self.details is not None else ""


def _format(text: str) -> Format:
    if id_form() == "f58plain":
        text = text.replace("{id.f58:", "{id.f58plain:").replace("{id.f58}", "{id.f58plain}")
    try:
        return Format(text, info.field)
    except FormatError as error:
        raise UsageError(f"{PROG}: ERROR: Error in user format: {error}", 1) from None


def run(args: Arguments) -> int:
    if args.ascii and args.compact:
        raise UsageError(f"{PROG}: ERROR: Choose only one of --ascii, --compact", 1)
    formats = _Formats(args)
    # The first instance is left out of what has columns, and when jobs of it are asked for.
    skip_root = args.skip_root == "yes" or (
        args.skip_root != "no" and (formats.details is not None or bool(args.operands))
    )
    details = info.INSTANCE in formats.attrs
    with connect() as handle:
        root = Tree(".") if skip_root else _root(handle, formats, details)
        for where, ids in job_paths(args.operands, PROG).items() or [("", None)]:
            with Elsewhere(handle, where) as other:
                found = hierarchy.walk(other, make_plan(args, formats.attrs, ids))
            if found.unknown:
                raise UsageError(
                    f"{PROG}: ERROR: JobID {shown_path(where, found.unknown[0])} unknown", 1
                )
            _grow(root, found, formats)
    if not args.no_combine:
        root.combine()
    style = "ascii" if args.ascii else "compact" if args.compact else "box"
    lines = list(root.lines(style, skip_root=skip_root))
    if formats.details is not None:
        lines = [line.rstrip() for line in lines]
        if not args.no_header:
            lines.insert(0, next(formats.details.table([], header=True)).rstrip())
    width = 0 if args.long else terminal_width(0)
    write("".join(f"{cut(line, width)}\n" for line in lines))
    return 0


def make_plan(args: Arguments, attrs: set[str], ids: list[int] | None) -> hierarchy.Plan:
    """What to ask each instance for; the first one for ``ids`` only, if there are any."""
    states, results = args.filter or (
        (info.ACTIVE | info.INACTIVE, 0) if args.all else (info.RUNNING, 0)
    )
    request: dict[str, Any] = {
        "max_entries": args.count,
        "states": states,
        "results": results,
        "attrs": sorted({"result", *hierarchy.NEEDED, *attrs} - {info.INSTANCE}),
        "userid": os.getuid(),
    }
    plan = hierarchy.Plan(request, levels=args.level, details=info.INSTANCE in attrs)
    if ids:
        everything = {"states": info.ACTIVE | info.INACTIVE, "results": 0}
        plan.request = {**request, **everything, "ids": ids, "max_entries": len(ids)}
        del plan.request["userid"]
    return plan


def _grow(tree: Tree, instance: hierarchy.Instance, formats: _Formats) -> None:
    """Hang the jobs of an instance below ``tree``."""
    for job in instance.jobs:
        child = instance.children.get(job["id"])
        parent = hierarchy.is_instance(job)
        node = Tree((formats.parent if parent else formats.label).line(job), formats.prefix(job))
        tree.children.append(node)
        if child is not None:
            if child.error:
                node.label += f" [{child.error}]"
            _grow(node, child, formats)


def _root(handle: Handle, formats: _Formats, details: bool) -> Tree:
    """The first instance: the job that it is, or a dot."""
    record = _own_job(handle)
    if details:
        questions = [handle.rpc("job-list.stats", {}), handle.rpc("resource.status", {})]
        stats, resources = (future.get(hierarchy.TIMEOUT_S) for future in questions)
        record["instance"] = {"stats": stats, "resources": resources}
    return Tree(formats.parent.line(record), formats.prefix(record))


def _own_job(handle: Handle) -> dict[str, Any]:
    """The record of the job that an instance is in the one around it, or what comes closest."""
    from flux_mpi.client.handle import Handle
    from flux_mpi.formats import fluid

    attrs = handle.attr_list()
    if attrs.get("jobid") and attrs.get("parent-uri"):
        try:
            with Handle(attrs["parent-uri"]) as parent:
                request = {"ids": [fluid.parse(attrs["jobid"])]}
                record: dict[str, Any]
                (record,) = parent.call("job-list.list", request, timeout=hierarchy.TIMEOUT_S)[
                    "jobs"
                ]
                return record
        except (FluxError, TimeoutError):
            pass  # it has ended or hangs: then this one is shown as if it were the outermost
    size = int(attrs["size"])
    return {
        "id": None,
        "name": ".",
        "state": info.RUN,
        "userid": int(attrs["security.owner"]),
        "ntasks": size,
        "nnodes": size,
        "nodelist": attrs["hostlist"],
        "t_run": float(attrs.get("broker.starttime", time.time())),
        "annotations": {"user": {"uri": attrs["local-uri"]}},
    }


COMMAND = Command(
    "pstree",
    "Show running jobs as a tree, the jobs of instances below them.",
    (
        flag("-a", "--all", help="Jobs in all states."),
        COUNT,
        FILTER,
        flag("-x", "--extended", help="Print details of each job."),
        value(
            "-d",
            "--details",
            metavar="NAME",
            choices=tuple(DETAILS),
            help="Print other details: default, resources, progress or stats.",
        ),
        value("--detail-format", metavar="FORMAT", help="Details in a format of your own."),
        flag("-l", "--long", help="Do not cut long lines."),
        LEVEL,
        flag("-p", "--parent-ids", help="Put the job id before the label of an instance."),
        NO_HEADER,
        flag("-X", "--no-combine", help="Show alike jobs one by one."),
        value("-o", "--label", metavar="FORMAT", help="What to show of each job."),
        value("--parent-label", metavar="FORMAT", help="What to show of jobs that are instances."),
        value(
            "--skip-root",
            metavar="yes|no",
            choices=("yes", "no"),
            help="Leave out the first instance itself.",
        ),
        flag("-C", "--compact", help="Draw narrow trees."),
        flag("--ascii", help="Draw with ASCII characters."),
    ),
    operands="[JOBID...]",
    description="""
    A JOBID may be a path of ids from this instance down. An instance that cannot be asked is shown
    with the reason; each is given 5 s to answer.
    """,
    examples=(
        ("flux-mpi pstree -x", "Who runs what, and for how long."),
        ("flux-mpi pstree -a -d progress", "How far every instance of the hierarchy has got."),
        (
            "flux-mpi pstree --skip-root=no --parent-label='{name} {instance.stats}'",
            "Counts of jobs beside each instance.",
        ),
    ),
    run=run,
)
