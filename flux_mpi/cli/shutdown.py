"""``flux-mpi shutdown``: shut an instance down, this one or another (flux-shutdown(1))."""

from __future__ import annotations

from flux_mpi.cli.common import connect
from flux_mpi.cli.options import Arguments, Command, UsageError
from flux_mpi.client.handle import Handle
from flux_mpi.client.target import TargetError, resolve

PROG = "flux-shutdown"


def run(args: Arguments) -> int:
    target, reason = args.operands[:1], " ".join(args.operands[1:])
    try:
        # What names no instance must not end this one, which is what a reason would do.
        handle = Handle(resolve(target[0])) if target else connect()
    except TargetError as error:
        raise UsageError(f"{PROG}: ERROR: {error}", 1) from None
    with handle:
        handle.call("instance.shutdown", {"reason": reason})
    return 0


COMMAND = Command(
    "shutdown",
    "Shut an instance down: running jobs are canceled, then all brokers end.",
    operands="[TARGET [REASON...]]",
    description="""
    TARGET is what 'flux-mpi uri' takes: a job that is an instance, a path of job ids, a URI;
    without one it is the instance that this command runs in.
    """,
    examples=(("flux-mpi shutdown ƒ1234/ƒ567", "An instance two levels down, and no other."),),
    run=run,
)
