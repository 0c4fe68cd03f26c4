"""``flux-mpi cancel``: cancel jobs, by id or by state."""

from __future__ import annotations

import os

from flux_mpi.cli.common import Ids, connect, parse_ids, say
from flux_mpi.cli.jobs import USER
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, value
from flux_mpi.client import info

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PENDING_ONLY = ("depend", "priority", "sched", "run", "pending", "running", "active")


def states_mask(text: str) -> int:
    """A mask of active states. Raises ValueError."""
    mask = 0
    for word in text.lower().split(","):
        if word not in PENDING_ONLY:
            raise ValueError(f"invalid state {word!r}: expected some of {','.join(PENDING_ONLY)}")
        mask |= info.FILTERS[word][0]
    return mask


def run(args: Arguments) -> int:
    selecting = args.all or args.user is not None or args.states is not None
    if args.operands and selecting:
        raise UsageError("flux-cancel: ERROR: job ids and --all, --user or --states: not both", 1)
    if not args.operands and not selecting:
        raise UsageError("flux-cancel: ERROR: no target jobs: give job ids or --all", 1)
    note = args.message or ""
    with connect() as handle:
        if selecting:
            return select(handle, args, note)
        jobs = parse_ids(args.operands, args.command)
        if args.dry_run:
            print(f"flux-cancel: Would cancel {len(jobs)} job{'s' if len(jobs) != 1 else ''}")
            return 0
        from flux_mpi.client.jobs import ranges

        answer = handle.call(
            "job-manager.raise",
            {"ids": ranges(jobs), "type": "cancel", "severity": 0, "note": note},
        )
        return report(answer.get("errors") or {}, "flux-cancel: ERROR")


def select(handle: Any, args: Arguments, note: str) -> int:
    request = {
        "states": args.states or info.ACTIVE,
        "type": "cancel",
        "severity": 0,
        "note": note,
        "dry_run": args.dry_run,
    }
    if args.user is None:
        request["userid"] = os.getuid()
    elif args.user >= 0:
        request["userid"] = args.user
    answer = handle.call("job-manager.raise-all", request)
    found, errors = answer["count"], answer.get("errors") or {}
    if args.dry_run:
        plural = "s" if found != 1 else ""
        if found or not args.quiet:
            say(f"flux-cancel: Command matched {found} job{plural}")
    elif found or not args.quiet:
        failed = len(errors) if isinstance(errors, dict) else int(errors)
        plural = "s" if found != 1 else ""
        say(f"flux-cancel: Canceled {found} job{plural} ({failed} errors)")
    return 1 if errors else 0


def report(errors: dict[Any, str], prefix: str) -> int:
    """Prints what went wrong for each job; the exit status."""
    ids = Ids()
    for job, text in errors.items():
        shown = ids(int(job))
        # The instance may or may not have named the job already.
        say(f"{prefix}: {text}" if shown in text else f"{prefix}: {shown}: {text}")
    return 1 if errors else 0


COMMAND = Command(
    "cancel",
    "Cancel jobs: they get SIGTERM, then SIGKILL.",
    (
        flag("--all", help="All your active jobs."),
        USER,
        value(
            "-S",
            "--states",
            metavar="STATES",
            convert=states_mask,
            help="Jobs in these states: depend, priority, sched, run, pending, running, active.",
        ),
        value("-m", "--message", metavar="NOTE", help="Say why; shown with the job."),
        flag("-n", "--dry-run", help="Only say how many jobs would be canceled."),
        flag("-q", "--quiet", help="Say nothing when no job matches."),
    ),
    operands="[JOBID...]",
    run=run,
)
