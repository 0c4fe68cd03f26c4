"""``flux-mpi uri``: find out where an instance is."""

from __future__ import annotations

from flux_mpi.cli.options import Arguments, Command, UsageError, flag
from flux_mpi.client.target import SCHEMES, TargetError, resolve
from flux_mpi.client.uri import to_local, to_remote


def run(args: Arguments) -> int:
    if args.local and args.remote:
        raise UsageError("flux-uri: ERROR: choose only one of --local, --remote", 1)
    try:
        uri = resolve(args.operands[0], wait=args.wait)
    except TargetError as error:
        raise UsageError(f"flux-uri: ERROR: {error}", 1) from None
    print(to_remote(uri) if args.remote else to_local(uri) if args.local else uri)
    return 0


COMMAND = Command(
    "uri",
    "Print the URI of an instance: of a job that is one, of the one around this, of a process.",
    (
        flag("--remote", help="In the form ssh://HOST/PATH."),
        flag("--local", help="In the form local://PATH, good on the host of the instance only."),
        flag("--wait", help="Wait until the job has started its instance."),
    ),
    operands="TARGET",
    minimum=1,
    maximum=1,
    description=f"""
    TARGET is a path of job ids from this instance down (ID or ID/ID), / for the outermost
    instance, .. for the one around this one, . for this one, or a combination; or it starts with a
    scheme: {"; ".join(f"{name}: {text}" for name, text in SCHEMES.items())}.

    ?local, ?remote and ?wait after it mean the same as the options. With FLUX_URI_RESOLVE_LOCAL in
    the environment every URI is printed in its local form.
    """,
    examples=(
        ("FLUX_URI=$(flux-mpi uri --local ƒ1234) flux-mpi jobs", "The jobs of a child instance."),
        ("flux-mpi uri /", "The outermost instance, from a job at any depth."),
        ("flux-mpi uri pid:12345", "The instance that a process belongs to."),
    ),
    run=run,
)
