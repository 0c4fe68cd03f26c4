"""``flux-mpi job submit`` and ``explain``: into the queue as it is written, and why still there."""

from __future__ import annotations

import sys

from flux_mpi.cli.common import Ids, connect, parse_id
from flux_mpi.cli.options import Arguments, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROG = "flux-job"
FLAGS = ("debug", "waitable", "novalidate")


def submit(args: Arguments) -> int:
    """Submit a jobspec, JSON or YAML, from a file or standard input, as it is."""
    from flux_mpi.client import jobs
    from flux_mpi.formats import yamltext
    from flux_mpi.formats.jobspec import Jobspec, JobspecError

    path = args.operands[0] if args.operands else "-"
    try:
        spec = Jobspec.parse(yamltext.load(_read(path)))
    except JobspecError as error:
        raise UsageError(f"{PROG}: ERROR: {'stdin' if path == '-' else path}: {error}", 1) from None
    with connect() as handle:
        job = jobs.submit(spec, handle=handle, urgency=args.urgency, flags=args.flags)
        print(Ids()(job))
    return 0


def _read(path: str) -> str:
    try:
        if path == "-":
            return sys.stdin.buffer.read().decode()
        with open(path, "rb") as file:
            return file.read().decode()
    except OSError as error:
        raise UsageError(f"{PROG}: ERROR: {path}: {error.strerror}", 1) from None
    except UnicodeDecodeError:
        raise UsageError(f"{PROG}: ERROR: {path}: expected text in UTF-8", 1) from None


def flags_of(text: str) -> int:
    """The bits of ``debug,waitable,…``. Raises ValueError."""
    bits = 0
    for name in text.split(","):
        if name not in FLAGS:
            raise ValueError(f"expected some of {', '.join(FLAGS)}, found {name[:40]!r}")
        bits |= 2 << FLAGS.index(name)
    return bits


def explain(args: Arguments) -> int:
    """Say why a job does not run, or what else has become of it."""
    with connect() as handle:
        for text in args.operands:
            answer: dict[str, Any] = handle.call("sched.explain", {"id": parse_id(text)})
            lines = answer["text"].splitlines()
            prefix = f"{text}: " if len(args.operands) > 1 else ""
            for line in lines:
                print(f"{prefix}{line}")
    return 0
