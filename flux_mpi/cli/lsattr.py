"""``flux-mpi lsattr``: list broker attributes."""

from __future__ import annotations

from flux_mpi.cli.attributes import list_
from flux_mpi.cli.getattr import RANK
from flux_mpi.cli.options import Command, flag

COMMAND = Command(
    "lsattr",
    "List broker attributes.",
    (flag("-v", "--values", help="Show their values too."), RANK),
    run=list_,
)
