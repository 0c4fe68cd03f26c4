"""``flux-mpi barrier``: wait until others are there too."""

from __future__ import annotations

from flux_mpi.cli.common import connect
from flux_mpi.cli.options import Arguments, Command, duration, integer, value


def run(args: Arguments) -> int:
    (name,) = args.operands
    if args.nprocs is None:
        args.command.fail("option --nprocs is missing: how many are to meet")
    timeout = None if args.timeout == float("inf") else args.timeout
    with connect() as handle:
        handle.barrier(name, args.nprocs, timeout)
    return 0


COMMAND = Command(
    "barrier",
    "Wait until so many participants are in a barrier.",
    (
        value(
            "-n",
            "--nprocs",
            metavar="N",
            convert=integer(1),
            help="How many are to meet; all must say the same number.",
        ),
        value("-t", "--timeout", metavar="FSD", convert=duration, help="Give up after this."),
    ),
    operands="NAME",
    minimum=1,
    maximum=1,
    description="""
    Any N clients of the instance meet, on whatever rank and of whatever job; the name may be used
    again at once. When one of them ends, gives up or is lost with its broker, the command fails
    for all that are in it, and says who that was.
    """,
    examples=(
        ("flux-mpi barrier -n 4 loaded", "In a script that four tasks run."),
        (
            "flux-mpi barrier -n 2 -t 5m step-$i || exit",
            "Two jobs go on together, or both stop.",
        ),
    ),
    run=run,
)
