"""``flux-mpi bulksubmit``: a job for each input, with the syntax of GNU parallel."""

from __future__ import annotations

import sys

from flux_mpi.cli.options import Arguments, Command, flag, repeat, value
from flux_mpi.cli.submission import GROUPS, STRUCTURAL, TEMPLATED, Builder
from flux_mpi.cli.submit import BULK, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from flux_mpi.cli.arrays import Member

PROG = "flux-bulksubmit"
DELIMITER = ":::"
LIMIT = 10_000_000
"""More combinations of inputs than this are a mistake."""

_SHOWN = {
    "queue": "-q",
    "bank": "-B",
    "ntasks": "-n",
    "nodes": "-N",
    "cores_per_task": "-c",
    "gpus_per_task": "-g",
    "time_limit": "-t",
    "setopt": "-o ",
    "wait_event": "--wait-event=",
}
"""How options show in what ``--dry-run`` prints, where it is not ``--name=``."""


def run(args: Arguments) -> int:
    from flux_mpi.cli.arrays import Member, Methods, TagError, entries, map_texts, number_tags

    builder = Builder(PROG)
    options = dict(vars(args))
    command, rows = inputs(builder, args)
    if not rows:
        raise builder.fail("no jobs provided for bulk submission: the inputs are empty")
    width = len(rows[0])
    methods = Methods(args.define or (), builder.fail)
    names = [*STRUCTURAL, *TEMPLATED, "env", "cc", "bcc", "log", "log_stderr"]
    try:

        def explicit(text: str) -> str:
            return methods.rewrite(number_tags(text, width), width)

        for name in names:
            if name in options and options[name] is not None:
                options[name] = map_texts(options[name], explicit)
        command = map_texts(command, explicit)
        extended = [methods.extend(row) for row in rows] if methods.columns else rows
        members = [Member(row, seq, None) for seq, row in enumerate(extended)]
        if args.shuffle:
            import random

            # Members keep their {seq}: it says which input they are, not when they run.
            members, command, options = _keep_seq(members, command, options, names)
            random.shuffle(members)
        if args.verbose or args.dry_run:
            _explain(options, command, members, names)
            if args.dry_run:
                return 0
        if options.get("cc") is not None or options.get("bcc") is not None:
            found, members = _with_cc(builder, options, command, members)
        else:
            found = entries(builder, options, command, members)
    except TagError as error:
        raise builder.fail(str(error)) from None
    args.__dict__.update({name: options[name] for name in ("log", "log_stderr")})
    # Options that were templates have done their work in the entries.
    if options.get("urgency") and "{" in str(options["urgency"]):
        raise builder.fail("--urgency: tags are not supported here: submit in several calls")
    return send(args, builder, found, members)


def inputs(builder: Builder, args: Arguments) -> tuple[list[str], list[list[str]]]:
    """The command, and a row of inputs for each job."""
    words = list(args.operands)
    separator: str | None = args.sep.encode().decode("unicode_escape")
    if separator is not None and separator.lower() == "none":
        separator = None
    cuts = [at for at, word in enumerate(words) if _is_delimiter(word)] + [len(words)]
    command = words[: cuts[0]] or ["{}"]
    combined: list[list[str]] = []
    links: list[tuple[int, list[str]]] = []
    for number, start in enumerate(cuts[:-1]):
        mark, values = words[start], words[start + 1 : cuts[number + 1]]
        if mark.startswith(DELIMITER + ":"):
            if len(values) != 1:
                raise builder.fail(
                    f"{mark}: {len(values)} arguments found: expected one file name, or -"
                )
            values = _read(builder, values[0], separator)
        if mark.endswith("+"):
            if not values:
                raise builder.fail(f"{mark}: linked inputs are empty")
            links.append((number, values))
        else:
            combined.append(values)
    if not combined:
        if links:
            raise builder.fail(f"{DELIMITER}+ needs inputs to be linked to")
        combined = [_read(builder, "-", separator)]
    total = 1
    for values in combined:
        total *= len(values)
    if total > LIMIT:
        raise builder.fail(f"{total} combinations of inputs: at most {LIMIT} are allowed")
    from itertools import product

    rows = [list(row) for row in product(*combined)]
    for position, values in links:
        for at, row in enumerate(rows):
            row.insert(position, values[at % len(values)])
    return command, rows


def _is_delimiter(word: str) -> bool:
    return word in (DELIMITER, DELIMITER + ":", DELIMITER + "+", DELIMITER + ":+")


def _read(builder: Builder, path: str, separator: str | None) -> list[str]:
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except OSError as error:
        raise builder.fail(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise builder.fail(f"{path}: not UTF-8 text: {error.reason}") from None
    return [item for item in text.split(separator) if item]


def _keep_seq(
    members: list[Member], command: list[str], options: dict[str, Any], names: list[str]
) -> tuple[list[Member], list[str], dict[str, Any]]:
    from flux_mpi.cli.arrays import _pin_seq, _with_seq, map_texts

    pin = _pin_seq(members)
    options = {
        name: map_texts(found, pin) if name in names else found for name, found in options.items()
    }
    return _with_seq(members), [pin(word) for word in command], options


def _with_cc(
    builder: Builder, options: dict[str, Any], command: list[str], members: list[Member]
) -> tuple[list[dict[str, Any]], list[Member]]:
    """Copies of each member: an entry a row of inputs, an array over its ids."""
    from flux_mpi.cli.arrays import Copies, Member, entries, fill, map_texts
    from flux_mpi.cli.submit import cc_ids

    found: list[dict[str, Any]] = []
    every: list[Member] = []
    total = len(members)
    for member in members:

        def filled(text: str, member: Member = member) -> str:
            kept = text.replace("{cc}", "\1cc\1")
            one: str = fill(kept, member, total)
            return one.replace("\1cc\1", "{cc}")

        here = {name: map_texts(val, filled) for name, val in options.items()}
        ids = cc_ids(builder, here)
        copies = Copies(ids)
        words = [part for word in command for part in filled(word).split("\0")]
        found += entries(builder, here, words, copies, ids, set_cc=here.get("cc") is not None)
        every += [Member(member.row, member.seq, cc) for cc in ids]
    return found, every


def _explain(
    options: dict[str, Any], command: list[str], members: list[Member], names: list[str]
) -> None:
    """What would be submitted: the options that vary, and the command."""
    from flux_mpi.cli.arrays import fill, has_tags

    total = len(members)
    varying = [name for name in names if name != "command" and has_tags(options.get(name))]
    varying += [name for name in ("cc", "bcc") if options.get(name) and name not in varying]

    def lines() -> Iterator[str]:
        for member in members:
            words = []
            for name in varying:
                found = fill(options[name], member, total)
                shown = _SHOWN.get(name, f"--{name.replace('_', '-')}=")
                words += [
                    f"{shown}{one}" for one in (found if isinstance(found, list) else [found])
                ]
            words += fill(command, member, total)
            yield f"bulksubmit: submit {' '.join(words)}\n"

    sys.stdout.writelines(lines())
    sys.stdout.flush()


COMMAND = Command(
    "bulksubmit",
    "Submit a job for each input, as xargs or GNU parallel do.",
    operands="COMMAND [ARGS...] [::: INPUT...]",
    posix=True,
    value_status=1,
    description="""
    Inputs follow ::: on the command line, are read from a file with ::::, or come from standard
    input, one a line. Several lists are combined, each with each; :::+ and ::::+ link a list to
    the one before instead.

    {} is the input ({0}, {1} with several); {.%} without its extension; {./} its basename; {./%}
    both; {.//} its folder; {seq} and {seq1} count the jobs from 0 and from 1.
    """,
    groups=[
        *GROUPS,
        ("Arrays and waiting", BULK),
        (
            "Inputs",
            (
                flag("--shuffle", help="Submit in random order."),
                value(
                    "--sep",
                    metavar="STRING",
                    default="\\n",
                    help="What separates inputs in files (newline; none: any white space).",
                ),
                repeat(
                    "--define",
                    metavar="NAME=CODE",
                    help="A method for tags: {.NAME} is Python's CODE, of x.",
                ),
            ),
        ),
    ],
    examples=(
        ("seq 1 4 | flux-mpi bulksubmit echo {}", "Four jobs."),
        ("flux-mpi bulksubmit ./fit {} --out {./%}.csv ::: data/*.nc", "One job a file."),
    ),
    run=run,
)
