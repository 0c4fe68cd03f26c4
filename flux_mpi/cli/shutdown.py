"""``flux-mpi shutdown``: shut the instance down."""

from __future__ import annotations

from flux_mpi.cli.common import connect
from flux_mpi.cli.options import Arguments, Command


def run(args: Arguments) -> int:
    with connect() as handle:
        handle.call("instance.shutdown", {"reason": " ".join(args.operands)})
    return 0


COMMAND = Command(
    "shutdown",
    "Shut the instance down: running jobs are canceled, then all brokers end.",
    operands="[REASON...]",
    run=run,
)
