"""``flux-mpi setattr``: set a broker attribute."""

from __future__ import annotations

from flux_mpi.cli.attributes import set_
from flux_mpi.cli.options import Command, flag

COMMAND = Command(
    "setattr",
    "Set a broker attribute, or remove it.",
    (flag("-e", "--expunge", help="Remove the attribute."),),
    operands="NAME [VALUE]",
    minimum=1,
    maximum=2,
    run=set_,
)
