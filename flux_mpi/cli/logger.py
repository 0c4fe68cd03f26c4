"""``flux-mpi logger``: write a line to the brokers' log."""

from __future__ import annotations

from flux_mpi.cli.common import connect
from flux_mpi.cli.dmesg import LEVELS
from flux_mpi.cli.options import Arguments, Command, value
from flux_mpi.message.message import ANY


def run(args: Arguments) -> int:
    with connect() as handle:
        handle.call(
            "log.append",
            {
                "level": LEVELS.index(args.severity),
                "component": args.appname,
                "text": " ".join(args.operands),
            },
            ANY,
        )
    return 0


COMMAND = Command(
    "logger",
    "Write a line to the broker's log.",
    (
        value(
            "-s",
            "--severity",
            metavar="LEVEL",
            default="info",
            choices=LEVELS,
            help=f"One of {', '.join(LEVELS)}.",
        ),
        value("-n", "--appname", metavar="NAME", default="logger", help="Who speaks."),
    ),
    operands="MESSAGE...",
    minimum=1,
    run=run,
)
