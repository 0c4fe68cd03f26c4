"""``flux-mpi getattr``: print a broker attribute."""

from __future__ import annotations

from flux_mpi.cli.attributes import get
from flux_mpi.cli.options import Command, integer, value

RANK = value(
    "-r", "--rank", metavar="RANK", convert=integer(0), help="Of this rank's broker, not the own."
)

COMMAND = Command(
    "getattr",
    "Print a broker attribute.",
    (RANK,),
    operands="NAME",
    minimum=1,
    maximum=1,
    examples=(("flux-mpi getattr size", "How many brokers the instance has."),),
    run=get,
)
