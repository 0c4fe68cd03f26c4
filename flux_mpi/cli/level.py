"""Options before the command: which instance of a hierarchy it talks to (flux(1)).

They change ``FLUX_URI`` and ``FLUX_KVS_NAMESPACE`` of this process, so that every command, and what
it starts, goes there without knowing.
"""

from __future__ import annotations

import errno
import os

from flux_mpi.cli.options import PROGRAM, Command, UsageError, count, flag, value
from flux_mpi.client.uri import instance_uri, socket_path
from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class _Front(Command):
    """What stands before a command has no name of its own."""

    @property
    def path(self) -> str:
        return PROGRAM


OPTIONS = _Front(
    PROGRAM,
    "Options before a command.",
    (
        value(
            "--uri",
            metavar="URI",
            help="Talk to the instance at local://PATH instead of that of FLUX_URI.",
        ),
        count(
            "-p",
            "--parent",
            help="Talk to the enclosing instance (may be repeated: to the one around that).",
        ),
        flag("-r", "--root", help="Talk to the outermost instance."),
        flag("-V", "--version", help="Print version information."),
    ),
    operands="COMMAND...",
    posix=True,
)


def choose(words: Sequence[str]) -> list[str]:
    """Takes the options off ``words`` and does what they say; returns the command's own.

    Raises UsageError and FluxError.
    """
    args = OPTIONS.parse(words)
    if args.version:
        return ["version"]
    if not args.operands:
        raise UsageError("flux-mpi: a command is missing.  See 'flux-mpi help'")
    try:
        if args.uri is not None:
            socket_path(args.uri)
            os.environ["FLUX_URI"] = args.uri
            # What it names is a job's of the instance that we are leaving.
            os.environ.pop("FLUX_KVS_NAMESPACE", None)
        if args.root:
            while ascend():
                continue
        else:
            for _ in range(args.parent):
                if not ascend():
                    raise FluxError(
                        errno.ENOENT,
                        f"--parent: the instance at {instance_uri()} has no parent: it is no job "
                        "of another",
                    )
    except FluxError as error:
        raise UsageError(f"flux-mpi: ERROR: {error}", 1) from None
    return args.operands


def ascend() -> bool:
    """Makes the enclosing instance the one to talk to; False when there is none."""
    from flux_mpi.client.handle import Handle

    with Handle() as handle:
        attributes = handle.attr_list()
    uri = attributes.get("parent-uri")
    if uri is None:
        return False
    os.environ["FLUX_URI"] = uri
    # The part of the parent's store that is this instance's, as it is a job there.
    namespace = attributes.get("parent-kvs-namespace")
    if namespace is None:
        os.environ.pop("FLUX_KVS_NAMESPACE", None)
    else:
        os.environ["FLUX_KVS_NAMESPACE"] = namespace
    return True
