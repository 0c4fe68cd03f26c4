"""``flux-mpi run``: submit a job and stay with it until it ends."""

from __future__ import annotations

import sys

from flux_mpi.cli.common import Ids, connect, say
from flux_mpi.cli.options import Arguments, Command, value
from flux_mpi.cli.submission import GROUPS, Builder, is_idset

PROG = "flux-run"


def run(args: Arguments) -> int:
    builder = Builder(PROG)
    options = vars(args)
    spec = builder.build(options, args.operands)
    if args.dry_run:
        import json

        print(json.dumps(spec))
        return 0
    urgency, flags = builder.urgency(args.urgency), builder.flags(options)
    from flux_mpi.cli.attaching import Session, has_input

    ranks = None
    if args.input is not None and is_idset(args.input):
        ranks = None if args.input == "all" else args.input
    feed = has_input() and (args.input is None or is_idset(args.input))
    if feed:
        shell = spec["attributes"]["system"].setdefault("shell", {}).setdefault("options", {})
        shell.setdefault("input", {}).setdefault("stdin", {"type": "service"})
    with connect() as handle:
        answer = handle.call(
            "job-ingest.submit",
            {"entries": [{"jobspec": spec}], "urgency": urgency, "flags": flags},
        )
        job = answer["arrays"][0][0]
        if args.verbose:
            say(f"jobid: {Ids()(job)}")
        session = Session(
            handle,
            job,
            label=args.label_io,
            unbuffered=args.unbuffered,
            show_events=args.verbose > 1,
            show_exec=args.verbose > 2,
            feed_stdin=feed,
            stdin_ranks=ranks,
            until=args.wait_event or "finish",
        )
        sys.stdout.flush()
        return session.run()


COMMAND = Command(
    "run",
    "Run a job, show its output, and exit with its status.",
    operands="COMMAND [ARGS...]",
    posix=True,
    value_status=1,
    groups=[
        *GROUPS,
        (
            "Waiting",
            (value("--wait-event", metavar="NAME", help="Stay until this event (finish)."),),
        ),
    ],
    examples=(
        ("flux-mpi run hostname", "One task on one core."),
        ("flux-mpi run -N2 -n8 -t 10m ./simulate input.dat", "8 tasks on 2 nodes, 10 minutes."),
    ),
    run=run,
)
