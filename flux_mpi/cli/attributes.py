"""Broker attributes: the code of ``getattr``, ``setattr`` and ``lsattr``."""

from __future__ import annotations

import errno

from flux_mpi.cli.common import connect
from flux_mpi.cli.options import Arguments, UsageError
from flux_mpi.message.errors import FluxError
from flux_mpi.message.message import ANY


def get(args: Arguments) -> int:
    name = args.operands[0]
    with connect() as handle:
        try:
            print(handle.attr_get(name, ANY if args.rank is None else args.rank))
        except FluxError as error:
            if error.errno != errno.ENOENT:
                raise
            raise UsageError(
                f"flux-getattr: ERROR: {name}: no such attribute ('flux-mpi lsattr' lists them)", 1
            ) from None
    return 0


def set_(args: Arguments) -> int:
    if args.expunge:
        if len(args.operands) != 1:
            args.command.fail("--expunge takes one attribute name")
        with connect() as handle:
            handle.call("attr.rm", {"name": args.operands[0]})
        return 0
    if len(args.operands) != 2:
        args.command.fail("expected an attribute name and a value")
    with connect() as handle:
        handle.attr_set(args.operands[0], args.operands[1])
    return 0


def list_(args: Arguments) -> int:
    with connect() as handle:
        attrs = handle.attr_list(ANY if args.rank is None else args.rank)
    for name in sorted(attrs):
        print(f"{name:<39} {attrs[name]}" if args.values else name)
    return 0
