"""``flux-mpi tree``: run a command for many members, spread over a hierarchy of instances.

Options are those of flux-tree(1) where they have a meaning here, and those of ``submit`` that
describe a job, in their long form where both use a letter.
"""

from __future__ import annotations

import os
import sys

from flux_mpi.cli.common import connect, say, terminal_width
from flux_mpi.cli.options import Arguments, Command, Option, flag, integer, value
from flux_mpi.cli.submission import GROUPS, Builder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from flux_mpi.client.handle import Handle
    from flux_mpi.client.tree import Ensemble, TreeResult

PROG = "flux-tree"
POLL_S = 0.2
"""How often an interrupt is looked for."""

HIERARCHY = (
    value(
        "-T",
        "--topology",
        metavar="AxBxC",
        help="Child instances on each level, such as 4x8; 1 for none (default); or auto.",
    ),
    value("-J", "--njobs", "--jobs", metavar="N", convert=integer(1), help="Members (default 1)."),
    value("--members", metavar="IDSET", help="The members' ids, instead of 0 to N-1."),
    flag("-l", "--leaf", help="Run all members in this instance, as -T1 does."),
    value("-N", "--nnodes", metavar="N", convert=integer(1), help="Nodes to use (default all)."),
    value(
        "-c",
        "--ncores-per-node",
        metavar="N",
        convert=integer(1),
        help="Cores to use of each node (default all).",
    ),
    value(
        "-g",
        "--ngpus-per-node",
        metavar="N",
        convert=integer(0),
        help="GPUs to use of each node (default all).",
    ),
    value(
        "-Q",
        "--queue-policy",
        metavar="POLICY[:…]",
        help="Queue policy of the instances on each level of children, such as easy:fcfs.",
    ),
    value(
        "-P",
        "--queue-params",
        metavar="KEY=N[,…][:…]",
        help="Queue parameters on each level, such as queue-depth=5:queue-depth=8.",
    ),
    value("-M", "--match-policy", metavar="POLICY[:…]", help="Match policy on each level."),
    value(
        "--expected-time",
        metavar="FSD",
        help="How long a member runs, such as 10ms, for -T auto (default: it is measured).",
    ),
    value(
        "--retries",
        metavar="N",
        convert=integer(0, 100),
        help="How often a member whose instance was lost runs again (default 3).",
    ),
    value("-X", "--prefix", metavar="NAME", help="Name of the tree's root in reports (tree)."),
)
REPORT = (
    value("-o", "--perf-out", metavar="FILE", help="Write a report as JSON (- is stdout)."),
    value(
        "--perf-format",
        metavar="FORMAT",
        help="Instead a line for each instance, with {treeid}, {elapse}, {njobs} and so on.",
    ),
    flag("--quiet", help="Show neither progress nor the summary."),
    flag("-d", "--dry-run", help="Print what would be done as JSON, and do nothing."),
)
LOGS = (
    value("-f", "--flux-logs", metavar="DIR", help="Refused: see flux-mpi dmesg."),
    value("-r", "--flux-rundir", metavar="DIR", help="Refused: instances share their rank's."),
)

_TAKEN = {name for group in (HIERARCHY, REPORT, LOGS) for option in group for name in option.names}
_LEFT_OUT = {
    # The nodes of a member would be ambiguous beside those of the hierarchy.
    "nodes",
    "exclusive",
    "tasks_per_node",
    "tasks_per_core",
    "gpus_per_node",
    "cores",
    # These are of single jobs.
    "flags",
    "dependency",
    "begin_time",
    "label_io",
    "unbuffered",
    "verbose",
    "dry_run",
    "debug",
    "quiet",
}


def _of_members(options: tuple[Option, ...]) -> tuple[Option, ...]:
    """Options of ``submit``, without the letters that mean something else here."""
    kept = []
    for option in options:
        if option.dest not in _LEFT_OUT:
            names = [name for name in option.names if name not in _TAKEN]
            kept.append(
                Option(
                    names,
                    option.kind,
                    option.help,
                    metavar=option.metavar,
                    dest=option.dest,
                    convert=option.convert,
                    default=option.default,
                )
            )
    return tuple(kept)


def run(args: Arguments) -> int:
    builder = Builder(PROG)
    options = vars(args)
    for dest, why in (
        ("flux_logs", "instances keep their logs in memory: read them with flux-mpi dmesg"),
        ("flux_rundir", "child instances have no run directory of their own"),
    ):
        if options[dest] is not None:
            raise builder.fail(f"--{dest.replace('_', '-')} is not supported: {why}")
    spec = builder.build(options, args.operands)
    request = _request(builder, args, spec)
    if args.perf_format is not None:
        if args.perf_out is None:
            raise builder.fail("--perf-format needs --perf-out")
        _check_format(builder, args.perf_format)
    with connect() as handle:
        if args.dry_run:
            import json

            print(json.dumps(handle.call("ensemble.plan", request)))
            return 0
        # Before anything runs: a report that cannot be written would be noticed too late.
        report = _open(builder, args.perf_out)
        try:
            result, interrupted = _follow(handle, request, args.quiet)
            if report is not None:
                _write(report, result, request, args)
        finally:
            if report is not None and report is not sys.stdout:
                report.close()
    if not args.quiet:
        from flux_mpi.view.treereport import summary

        sys.stdout.write(summary(result))
    return 130 if interrupted else result.returncode


def _request(builder: Builder, args: Arguments, spec: dict[str, Any]) -> dict[str, Any]:
    from flux_mpi.client.tree import tree_request

    if args.leaf:
        for dest in ("topology", "queue_policy", "queue_params", "match_policy"):
            if getattr(args, dest) is not None:
                raise builder.fail(f"--leaf and --{dest.replace('_', '-')} exclude each other")
    if args.members is not None and args.njobs is not None:
        raise builder.fail("--members and --njobs exclude each other")
    expected = args.expected_time
    if expected is not None:
        from flux_mpi.formats import duration

        try:
            expected = duration.parse(expected)
        except ValueError as error:
            raise builder.fail(f"--expected-time: {error}") from None
    conf = _configurations(builder, args)
    return tree_request(
        spec,
        jobs=args.njobs,
        members=args.members,
        topology=args.topology or "1",
        expected_time=expected,
        retries=args.retries,
        conf=conf or None,
        urgency=builder.urgency(args.urgency),
        nnodes=args.nnodes,
        ncores=args.ncores_per_node,
        ngpus=args.ngpus_per_node,
        name=args.prefix,
    )


PARAMS = {
    "queue-depth": "queue-params",
    "max-queue-depth": "queue-params",
    "reservation-depth": "policy-params",
    "max-reservation-depth": "policy-params",
}


def _configurations(builder: Builder, args: Arguments) -> list[dict[str, Any]]:
    """What ``-Q``, ``-P`` and ``-M`` say for each level of children."""
    levels: list[dict[str, Any]] = []

    def put(level: int, key: str, found: Any) -> None:
        while len(levels) <= level:
            levels.append({})
        table = levels[level].setdefault("sched", {})
        if isinstance(found, dict):
            table.setdefault(key, {}).update(found)
        else:
            table[key] = found

    for name, key, text in (
        ("--queue-policy", "queue-policy", args.queue_policy),
        ("--match-policy", "match-policy", args.match_policy),
    ):
        for level, word in enumerate(text.split(":") if text is not None else ()):
            if not word:
                raise builder.fail(f"{name}: {text!r} names no policy for level {level + 1}")
            if word != "default":
                put(level, key, word)
    text = args.queue_params
    for level, words in enumerate(text.split(":") if text is not None else ()):
        for word in words.split(",") if words != "default" else ():
            key, _, number = word.partition("=")
            if key not in PARAMS or not (number.isascii() and number.isdigit()):
                raise builder.fail(
                    f"--queue-params: invalid value {word!r}: expected KEY=N, with one of "
                    f"{', '.join(PARAMS)}"
                )
            put(level, PARAMS[key], {key: int(number)})
    return levels


# -- running ---------------------------------------------------------------------------------------


class _Interrupts:
    """Counts SIGINT and SIGTERM: the first is passed on, the second not waited for."""

    def __enter__(self) -> _Interrupts:
        import signal

        self.count = 0
        self._old = {
            number: signal.signal(number, self._caught)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _caught(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt

    def __exit__(self, *details: object) -> None:
        import signal

        for number, old in self._old.items():
            signal.signal(number, old)


def _follow(handle: Handle, request: dict[str, Any], quiet: bool) -> tuple[TreeResult, bool]:
    """Run it and show how it goes; the result, and whether it was interrupted."""
    from flux_mpi.client.tree import Ensemble

    bar = None if quiet else _bar(request)
    told = ""
    canceled = False
    with _Interrupts() as interrupts:
        ensemble = Ensemble(handle, request)
        try:
            while True:
                if interrupts.count and not canceled:
                    canceled = True
                    _cancel(ensemble)
                try:
                    if not ensemble.step(POLL_S):
                        break
                except TimeoutError:
                    continue
                now = ensemble.last
                why = now.get("why") or ""
                if why != told and not quiet:
                    told = why
                    if bar is not None:
                        bar.clear()
                    say(f"{PROG}: {why}")
                if bar is not None:
                    bar.update(now["done"], now["failed"], now["running"])
        finally:
            result = ensemble._result
            if bar is not None:
                if result is not None:
                    bar.update(result.count, result.failed, 0, force=True)
                bar.finish()
    result = ensemble.result()
    if result.why != told and not quiet:
        say(f"{PROG}: {result.why}")  # it was over before it could be told
    return result, canceled


def _cancel(ensemble: Ensemble) -> None:
    say(f"{PROG}: interrupted: canceling; interrupt again to leave at once")
    ensemble.cancel("interrupted")


def _bar(request: dict[str, Any]) -> Any:
    stream = next((s for s in (sys.stdout, sys.stderr) if s.isatty()), None)
    if stream is None:
        return None
    from flux_mpi.view.progress import Progress

    total = request.get("count")
    if total is None:
        from flux_mpi.formats.idset import IDSet

        try:
            total = len(IDSet.parse(request["members"]))
        except ValueError:
            return None  # the instance will say what is wrong with it
    return Progress(stream, total, jps=True, width=terminal_width())


# -- reports ---------------------------------------------------------------------------------------


def _check_format(builder: Builder, text: str) -> None:
    from flux_mpi.view.treereport import FIELDS, fields

    example = {"treeid": "tree", "nnodes": 1, "ncores": 1, "ngpus": 0, "njobs": 1}
    try:
        text.format(**fields({**example, "begin": 0.0, "end": 1.0}))
    except (KeyError, IndexError) as error:
        raise builder.fail(
            f"--perf-format: there is no field {error}: expected some of "
            f"{', '.join(name for name, _ in FIELDS)}"
        ) from None
    except ValueError as error:
        raise builder.fail(f"--perf-format: {text!r}: {error}") from None


def _open(builder: Builder, path: str | None) -> TextIO | None:
    if path is None:
        return None
    if path == "-":
        return sys.stdout
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise builder.fail(f"--perf-out: {path}: {error.strerror}") from None


def _write(stream: TextIO, result: TreeResult, request: dict[str, Any], args: Arguments) -> None:
    if args.perf_format is not None:
        from flux_mpi.view.treereport import table

        stream.write(table(result.records, args.perf_format))
        return
    import json

    asked = {key: found for key, found in request.items() if key != "jobspec"}
    report = {"command": args.operands, "cwd": os.getcwd(), "asked": asked, **result.raw}
    stream.write(json.dumps(report, indent=1) + "\n")


COMMAND = Command(
    "tree",
    "Run a command for many members, spread over a hierarchy of instances.",
    operands="COMMAND [ARGS...]",
    posix=True,
    value_status=1,
    description="""
    Each member is a job that runs COMMAND; {cc} in it, and FLUX_JOB_CC in its environment, is the
    member's id. With -T4x8 four child instances divide the resources and each of them has eight
    more, which run the members; -Tauto chooses by itself. Instances get members as they use them
    up, and those that run dry get some of their siblings'. What an instance had that is lost runs
    again: members run at least once.

    Exit status: the largest of all members; 130 after an interrupt, which cancels everything below.
    """,
    groups=[
        ("Hierarchy", HIERARCHY),
        ("Reports", REPORT),
        *(
            (f"Members: {title[:1].lower()}{title[1:]}", kept)
            for title, group in GROUPS
            if (kept := _of_members(group))
        ),
        ("Not supported", LOGS),
    ],
    examples=(
        ("flux-mpi tree -T4x8 -J100000 -- ./member {cc}", "32 instances run 100,000 members."),
        (
            "flux-mpi tree -T auto -J5000 -o report.json -- ./simulate --seed={cc}",
            "Chooses the shape, and writes a report.",
        ),
    ),
    run=run,
)
