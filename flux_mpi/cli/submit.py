"""``flux-mpi submit``: submit a job, or copies of it as one array, and print the ids."""

from __future__ import annotations

import sys

from flux_mpi.cli.common import Ids, connect, say
from flux_mpi.cli.options import Arguments, Command, Option, flag, value
from flux_mpi.cli.submission import GROUPS, Builder, JobError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.cli.arrays import Copies, Member

PROG = "flux-submit"

BULK: tuple[Option, ...] = (
    value("--cc", metavar="IDSET", help="A copy for each id: {cc} and FLUX_JOB_CC are the id."),
    value("--bcc", metavar="IDSET", help="As --cc, without FLUX_JOB_CC."),
    flag("--wait", help="Wait until all jobs have ended; exit with the largest status."),
    value("--wait-event", metavar="NAME", help="Wait until all jobs have had this event."),
    flag("--watch", help="Show the output of all jobs (implies --wait)."),
    flag("--progress", help="Show a progress bar (with --wait: of completion)."),
    flag("--jps", help="Show jobs per second in the progress bar."),
    value("--log", metavar="FILE", help="Write ids and messages to FILE ({cc} allowed)."),
    value("--log-stderr", metavar="FILE", help="Write messages to FILE."),
)


def run(args: Arguments) -> int:
    builder = Builder(PROG)
    options = vars(args)
    command = args.operands
    if args.cc is None and args.bcc is None:
        spec = builder.build(options, command)
        if args.dry_run:
            print_json(spec)
            return 0
        return send(args, builder, [{"jobspec": spec}], None)
    ids = cc_ids(builder, options)
    from flux_mpi.cli.arrays import Copies, TagError, entries, fill

    members = Copies(ids)
    try:
        found = entries(builder, options, command, members, ids, set_cc=args.cc is not None)
        if args.dry_run:
            for entry in found:
                for member in members if len(found) == 1 else members[:1]:
                    print_json(fill(entry["jobspec"], member, len(members)))
            return 0
    except TagError as error:
        raise builder.fail(str(error)) from None
    return send(args, builder, found, members)


def cc_ids(builder: Builder, options: dict[str, Any]) -> Any:
    """The idset of ``--cc`` or ``--bcc``."""
    from flux_mpi.formats.idset import IDSet

    cc, bcc = options.get("cc"), options.get("bcc")
    if cc is not None and bcc is not None:
        raise builder.fail("specify only one of --cc or --bcc")
    name, text = ("--cc", cc) if cc is not None else ("--bcc", bcc)
    assert text is not None
    try:
        ids = IDSet.parse(text)
    except ValueError as error:
        raise builder.fail(f"{name}: {error}") from None
    if not ids:
        raise builder.fail(f"{name}: the idset is empty: expected ids such as 0-9")
    return ids


def print_json(found: Any) -> None:
    import json

    print(json.dumps(found))


def send(
    args: Arguments,
    builder: Builder,
    entries: list[dict[str, Any]],
    members: list[Member] | Copies | None,
) -> int:
    """Submits, prints the ids, and waits as asked."""
    options = vars(args)
    request = {
        "entries": entries,
        "urgency": builder.urgency(args.urgency),
        "flags": builder.flags(options),
    }
    waits = args.wait or args.watch or args.wait_event
    log_paths = _log_paths(args, members)
    with connect() as handle:
        watcher = None
        if args.watch:
            from flux_mpi.cli.waiting import Watcher, file_sinks

            paths: dict[int, tuple[str | None, str | None]] = {}
            watcher = Watcher(
                handle,
                label=args.label_io,
                events=args.verbose > 1,
                sinks=file_sinks(paths) if log_paths else None,
                unbuffered=args.unbuffered,
                verbose=args.verbose,
            )
            watcher.begin()
        answer = handle.call("job-ingest.submit", request)
        if not waits and not log_paths and not args.progress:
            if not args.quiet:
                print_ids(answer["arrays"])
            return 0
        from flux_mpi.cli.waiting import Waiter, make_progress, wait_event
        from flux_mpi.client.jobs import JobArray

        array = JobArray(answer["arrays"])
        if not args.quiet:
            if log_paths:
                _log_ids(array, log_paths)
            else:
                print_ids(array.ranges)
            sys.stdout.flush()
        progress = make_progress(len(array), args.jps) if args.progress else None
        if not waits:
            if progress is not None:
                progress.update(len(array), 0)
                progress.finish()
            return 0
        if watcher is not None:
            if log_paths:
                paths.update(zip(map(int, array), log_paths))
            watcher.progress = progress
            watcher.add(map(int, array))
            return watcher.wait()
        if args.wait_event and args.wait_event != "clean":
            return wait_event(handle, array, args.wait_event, progress)
        return Waiter(handle, array, progress, args.verbose).wait()


def print_ids(arrays: Any) -> None:
    """One id a line, all in one write."""
    from flux_mpi.formats.fluid import nth

    ids = Ids()
    sys.stdout.write(
        "".join([ids(nth(first, k)) + "\n" for first, count in arrays for k in range(count)])
    )


def _log_paths(
    args: Arguments, members: list[Member] | Copies | None
) -> list[tuple[str | None, str | None]]:
    """For each member, the files of ``--log`` and ``--log-stderr``; empty when not asked for."""
    if args.log is None and args.log_stderr is None:
        return []
    if members is None:
        return [(args.log, args.log_stderr)]
    from flux_mpi.cli.arrays import fill

    total = len(members)
    return [
        (
            None if args.log is None else fill(args.log, member, total),
            None if args.log_stderr is None else fill(args.log_stderr, member, total),
        )
        for member in members
    ]


def _log_ids(array: Any, paths: list[tuple[str | None, str | None]]) -> None:
    ids = Ids()
    texts: dict[str | None, list[str]] = {}
    for job, (path, _) in zip(array, paths):
        texts.setdefault(path, []).append(ids(job) + "\n")
    for path, lines in texts.items():
        if path is None:
            sys.stdout.write("".join(lines))
            continue
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:
            say(f"{PROG}: WARNING: --log: {path}: {error.strerror}")


__all__ = ["BULK", "COMMAND", "JobError", "cc_ids", "print_ids", "send"]

COMMAND = Command(
    "submit",
    "Submit a job, or an array of jobs, and print its id.",
    operands="COMMAND [ARGS...]",
    posix=True,
    value_status=1,
    groups=[*GROUPS, ("Arrays and waiting", BULK)],
    examples=(
        ("flux-mpi submit -n4 ./simulate", "Prints the id of a job of 4 tasks."),
        ("flux-mpi submit --cc=1-100 --wait ./member {cc}", "100 jobs as one array; waits."),
    ),
    run=run,
)
