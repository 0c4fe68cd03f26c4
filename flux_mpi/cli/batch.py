"""``flux-mpi batch``: submit a script that runs in an instance of its own."""

from __future__ import annotations

import sys

from flux_mpi.cli.children import GROUPS, ChildBuilder
from flux_mpi.cli.common import Ids, connect
from flux_mpi.cli.options import Arguments, Command, HelpRequested, UsageError, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.cli.submission import JobError

PROG = "flux-batch"
DEFAULT_OUTPUT = "flux-{{id}}.out"
KEPT = ("none", "kvs")
"""Values of ``--output`` and ``--error`` with which output is not written to a file."""


def run(args: Arguments) -> int:
    builder = ChildBuilder(PROG)
    source = _Source(builder, args)
    options = source.options
    try:
        spec = builder.child(options, source.arguments, script=source.script)
        # Before connecting: what is wrong with the command line needs no instance.
        builder.urgency(options["urgency"])
        builder.flags(options)
    except UsageError as error:
        raise source.located(error) from None
    if options["dry_run"]:
        import json

        print(json.dumps(spec))
        return 0
    with connect() as handle:
        job = builder.submit(handle, spec, options)
    if not options["quiet"]:
        print(Ids()(job))
    return 0


class _Source:
    """A script, from wherever it comes, and the options that it and the command line give."""

    def __init__(self, builder: ChildBuilder, args: Arguments) -> None:
        self._builder = builder
        self._lines: dict[str, int] = {}
        words = args.operands
        self.name = words[0] if words else "stdin"
        self.arguments = words[1:] if words and not args.wrap else []
        directed = None
        if words and args.wrap:
            # As it is, for the shell that reads it: a command line, no script with directives.
            data = (" ".join(words) + "\n").encode("utf-8", "surrogateescape")
            self.script = self._text(data, wrap=True)
        else:
            self.script = self._text(self._read(words), wrap=args.wrap)
            # Without the line that --wrap has added: lines are numbered as the user sees them.
            user = self.script.partition("\n")[2] if args.wrap else self.script
            directed = self._directives(user)
        if directed is not None:
            directed.override(args)
            for dest in args.given:
                self._lines.pop(dest, None)
            args = directed
        self.options: dict[str, Any] = dict(vars(args))
        options = self.options
        if options["job_name"] is None:
            options["job_name"] = self.name if words else "batch"
        if options["output"] is None:
            options["output"] = DEFAULT_OUTPUT
        for stream in ("output", "error"):
            if options[stream] in KEPT:
                options[stream] = None

    def _read(self, words: list[str]) -> bytes:
        from flux_mpi.cli import childconf
        from flux_mpi.client.batch import FILE_LIMIT

        if not words:
            data = sys.stdin.buffer.read(FILE_LIMIT + 1)
            if len(data) > FILE_LIMIT:
                raise self._builder.fail(
                    f"stdin: more than the {FILE_LIMIT >> 20} MiB that fit in a jobspec: keep data "
                    "in files that the script opens"
                )
            return data
        try:
            return childconf.read_file(self.name)
        except ValueError as error:
            raise self._builder.fail(str(error)) from None

    def _text(self, data: bytes, wrap: bool) -> str:
        from flux_mpi.client.batch import ScriptError, script_text

        try:
            return script_text(data, self.name, wrap=wrap)
        except ScriptError as error:
            raise self._builder.fail(str(error)) from None

    # -- directives (RFC 36) ----------------------------------------------------------------------

    def _directives(self, script: str) -> Arguments | None:
        """What the directives of a script give; None when it has none."""
        if "flux:" not in script and "FLUX:" not in script:
            return None
        from flux_mpi.formats.directives import DirectiveError, parse

        try:
            directives = parse(script)
        except DirectiveError as error:
            reason = str(error).removeprefix(f"line {error.lineno}: ")
            raise self._at(error.lineno, reason) from None
        found: Arguments | None = None
        for directive in directives:
            lineno = directive.lineno
            try:
                given = COMMAND.parse(directive.args)
            except HelpRequested:
                raise self._at(lineno, "--help makes no sense in a script") from None
            except UsageError as error:
                raise self._at(lineno, error.reason) from None
            if given.operands:
                word = given.operands[0]
                raise self._at(lineno, f"unexpected word {word[:64]!r}: expected options only")
            if given.wrap:
                raise self._at(lineno, "--wrap makes no sense in a script: give it with batch")
            self._lines.update(dict.fromkeys(given.given, lineno))
            if found is None:
                found = given
            else:
                found.override(given)
        return found

    def _at(self, lineno: int, reason: str) -> JobError:
        return self._builder.fail(f"{self.name}:{lineno}: {reason}")

    def located(self, error: UsageError) -> UsageError:
        """``error`` with the line of the directive whose option it names, if it was one's."""
        name = error.reason.split(":", 1)[0].split(" ", 1)[0]
        for option in COMMAND.options:
            if name in option.names and option.dest in self._lines:
                return self._at(self._lines[option.dest], error.reason)
        return error


COMMAND = Command(
    "batch",
    "Submit a script that runs in an instance of its own, and print the job's id.",
    operands="[SCRIPT [ARGS...]]",
    posix=True,
    value_status=1,
    groups=[
        *GROUPS[:2],
        (
            "Script",
            (
                flag(
                    "--wrap",
                    help="Make a /bin/sh script of the words that follow, or of standard input.",
                ),
            ),
        ),
        *GROUPS[2:],
    ],
    description="""
    SCRIPT is copied when it is submitted; without one it is read from standard input. It runs on
    the first node of what is allocated, as the initial program of an instance that has just these
    resources and ends with it. What flux-mpi commands in it do, they do there. Output goes to
    flux-{{id}}.out unless --output says otherwise (none or kvs: flux-mpi job attach shows it).

    Lines of the script such as "# flux: -N4 --job-name=x" give options (RFC 36); those
    of the command line win.
    """,
    examples=(
        ("flux-mpi batch -N4 workflow.sh input", "The script gets 4 whole nodes to itself."),
        ("flux-mpi batch -n8 --wrap './prepare && flux-mpi run -n8 ./solve'", "No script needed."),
        ("flux-mpi batch -n32 --conf=sched.queue-policy=easy jobs.sh", "With a policy of its own."),
    ),
    run=run,
)
