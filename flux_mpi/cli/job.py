"""``flux-mpi job``: attach to, inspect, wait for and signal jobs."""

from __future__ import annotations

import errno
import os
import sys
import time

from flux_mpi.cli import pending
from flux_mpi.cli.common import Ids, connect, parse_id, parse_signal, say
from flux_mpi.cli.options import (
    EVENT_FORMATS,
    Arguments,
    Command,
    Option,
    UsageError,
    count,
    duration,
    flag,
    idset,
    integer,
    repeat,
    value,
)
from flux_mpi.client import info
from flux_mpi.formats import fluid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from flux_mpi.client.handle import Handle
    from flux_mpi.formats.eventlog import Event

PROG = "flux-job"
NO_LIMIT = 0xFFFFFFFF
"""What ``timeleft`` prints when there is no limit, as Flux does."""


# -- attach ---------------------------------------------------------------------------------------


def attach(args: Arguments) -> int:
    job = parse_id(args.operands[0])
    from flux_mpi.cli.attaching import Session, has_input, terminal_for

    with connect() as handle:
        session = Session(
            handle,
            job,
            terminal=None if args.read_only else terminal_for(handle, job),
            label=args.label_io,
            unbuffered=args.unbuffered,
            show_events=args.show_events or args.verbose > 1,
            show_exec=args.show_exec or args.verbose > 2,
            feed_stdin=has_input(),
            stdin_ranks=None if args.stdin_ranks is None else str(args.stdin_ranks),
            read_only=args.read_only,
            until=args.wait_event,
        )
        return session.run()


# -- looking --------------------------------------------------------------------------------------


def show_info(args: Arguments) -> int:
    job, key = parse_id(args.operands[0]), args.operands[1]
    how = {"original": True} if args.original else {"base": True} if args.base else {}
    with connect() as handle:
        found = handle.call("job-info.lookup", {"id": job, "keys": [key], **how})[key]
    print(_document(found))
    return 0


def memo(args: Arguments) -> int:
    job = parse_id(args.operands[0])
    noted: dict[str, Any] = {}
    for text in args.operands[1:]:
        key, equals, value = text.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(
                f"{PROG}: ERROR: memo: expected KEY=VALUE, found {text!r}"
                + ("" if equals else ": there is no value"),
                1,
            )
        if value == "-":
            value = sys.stdin.read()
        _put(noted, key.split("."), _json_or_text(value))
    from flux_mpi.client.jobs import memo as note

    with connect() as handle:
        note(job, noted, volatile=args.volatile, handle=handle)
    return 0


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = into.get(name)
        if not isinstance(inner, dict):
            inner = into[name] = {}
        into = inner
    into[path[-1]] = value


def _json_or_text(text: str) -> Any:
    import json

    try:
        return json.loads(text, parse_constant=lambda name: _refuse(name))
    except ValueError:
        return text


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _document(found: Any) -> str:
    """A looked-up object as text: JSON on one line, an event log as lines of it."""
    if isinstance(found, str):
        return found.rstrip("\n")
    if isinstance(found, bytes):
        return found.decode(errors="replace").rstrip("\n")
    import json

    if isinstance(found, list) and all(isinstance(item, dict) and "name" in item for item in found):
        return "\n".join(json.dumps(item, separators=(",", ":")) for item in found)
    return json.dumps(found)


def _path(text: str) -> str:
    """``exec`` is short for ``guest.exec.eventlog``."""
    if text in ("exec", "input", "output"):
        return "guest.exec.eventlog" if text == "exec" else f"guest.{text}"
    return text


def _events(handle: Handle, job: int, path: str, follow: bool) -> Iterator[Event]:
    """The events of a log, and with ``follow`` those to come."""
    from flux_mpi.formats.eventlog import Event, parse_log

    if path == "guest.output":
        yield from _output_events(handle, job)
        return
    if not follow:
        found = handle.call("job-info.lookup", {"id": job, "keys": [path]})[path]
        if isinstance(found, str):
            yield from parse_log(found)
        else:
            for item in found:
                yield Event.parse(item)
        return
    stream = handle.rpc("job-info.eventlog-watch", {"id": job, "path": path}, streaming=True)
    try:
        for chunk in stream:
            for item in chunk["events"]:
                yield Event.parse(item)
    finally:
        stream.cancel()


def _output_events(handle: Handle, job: int) -> Iterator[Event]:
    """The output so far, as the events of an RFC 24 output log."""
    from flux_mpi.client.attach import ranks_of
    from flux_mpi.formats.eventlog import Event

    resources = handle.call("job-info.lookup", {"id": job, "keys": ["R"]})["R"]
    streams = [
        handle.rpc("exec.output", {"id": job, "follow": False}, rank, streaming=True)
        for rank in ranks_of(resources)
    ]
    entries = [entry for stream in streams for chunk in stream for entry in chunk["entries"]]
    for when, stream_name, task, data in sorted(entries, key=lambda entry: entry[0]):
        context: dict[str, Any] = {
            "stream": {1: "stdout", 2: "stderr"}.get(stream_name, stream_name),
            "rank": str(task),
        }
        if data:
            context["data"] = data.decode(errors="replace")
        else:
            context["eof"] = True
        yield Event(when, "data", context)


class _Printer:
    """Prints events as ``eventlog`` and ``wait-event`` do."""

    def __init__(self, args: Arguments) -> None:
        from flux_mpi.formats.eventlog import Formatter, dumps_json

        self._json = dumps_json if args.format == "json" and not args.human else None
        self._formatter = Formatter("human" if args.human else args.time_format)

    def __call__(self, event: Event) -> None:
        text = self._json(event) if self._json is not None else self._formatter.format(event)
        sys.stdout.write(text.rstrip("\n") + "\n")


def eventlog(args: Arguments) -> int:
    job = parse_id(args.operands[0])
    show = _Printer(args)
    with connect() as handle:
        for event in _events(handle, job, _path(args.path), args.follow):
            show(event)
            if args.follow:
                sys.stdout.flush()
    return 0


def wait_event(args: Arguments) -> int:
    job, name = parse_id(args.operands[0]), args.operands[1]
    path = args.path
    if name.startswith("exec.") and path == "eventlog":
        path, name = "exec", name[len("exec.") :]
    wanted = [_match(text, args) for text in args.match_context or ()]
    show = _Printer(args)
    left = args.count
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    from flux_mpi.formats.eventlog import Event

    with connect() as handle:
        stream = handle.rpc(
            "job-info.eventlog-watch", {"id": job, "path": _path(path)}, streaming=True
        )
        while True:
            try:
                chunk = stream.get(None if deadline is None else deadline - time.monotonic())
            except TimeoutError:
                say(f"{PROG}: wait-event timeout on event '{name}'")
                return 1
            except OSError as error:
                if error.errno == errno.ENODATA:
                    say(f"{PROG}: event '{name}' never received")
                    return 1
                raise
            for item in chunk["events"]:
                event = Event.parse(item)
                context = event.context or {}
                if event.name == name and all(_fits(context, key, val) for key, val in wanted):
                    left -= 1
                    if left == 0:
                        if not args.quiet:
                            show(event)
                        return 0
                if args.verbose:
                    show(event)
                    sys.stdout.flush()


def _match(text: str, args: Arguments) -> tuple[str, str]:
    key, equals, val = text.partition("=")
    if not equals:
        args.command.fail(f"--match-context: invalid value {text!r}: expected KEY=VAL")
    return key, val


def _fits(context: dict[str, Any], key: str, text: str) -> bool:
    from flux_mpi.formats.eventlog import compact

    if key not in context:
        return False
    return compact(context[key]) == text or str(context[key]) == text


# -- waiting --------------------------------------------------------------------------------------


def status(args: Arguments) -> int:
    from flux_mpi.client.jobs import as_completed

    jobs = [parse_id(text) for text in args.operands]
    ids = Ids()
    worst = 0
    found: list[dict[str, Any]] = []
    with connect() as handle:
        for result in as_completed(jobs, handle=handle):
            code = result.exit_status
            if result.note is not None and args.exception_exit_code is not None:
                code = args.exception_exit_code
            elif not code and not result.success:
                code = 1
            worst = max(worst, code)
            if args.json:
                found.append(
                    {"id": int(result.id), "waitstatus": result.status, "note": result.note}
                )
            elif args.verbose:
                say(f"{ids(result.id)}: {_outcome(result.status, result.note)}")
    for one in found:
        import json

        print(json.dumps(one))
    return worst


def _outcome(wait_status: int | None, note: str | None) -> str:
    if wait_status is None or wait_status < 0:
        return f"exception: {note}" if note else "never ran"
    return info.status_text(wait_status)


def wait(args: Arguments) -> int:
    if args.all and args.operands:
        args.command.fail("a job id and --all exclude each other")
    ids = Ids()
    failed = False
    with connect() as handle:
        request: dict[str, Any] = (
            {"id": parse_id(args.operands[0], PROG, 2)} if args.operands else {}
        )
        while True:
            try:
                answer = handle.call("job-manager.wait", request)
            except OSError as error:
                if args.all and error.errno == errno.ECHILD:
                    return 1 if failed else 0
                say(f"{PROG}: {error}")
                return 2
            success = answer["success"]
            failed = failed or not success
            text = _wait_text(answer)
            shown = ids(answer["id"])
            if args.all:
                if not success or args.verbose:
                    say(f"{shown}: {text}")
                continue
            if not args.operands:
                print(shown)
            if not success:
                say(f"{PROG}: {text}")
            return 0 if success else 1


def _wait_text(answer: dict[str, Any]) -> str:
    exception = answer.get("exception")
    wait_status = answer.get("status")
    if exception and (not wait_status or wait_status < 0):
        note = exception.get("note", "")
        return f"Fatal exception type={exception.get('type')} {note}".rstrip()
    if not wait_status:
        return "job completed successfully"
    return f"task(s) {info.status_text(wait_status)}"


# -- acting ---------------------------------------------------------------------------------------


def kill(args: Arguments) -> int:
    failures = 0
    with connect() as handle:
        asked = [
            (text, handle.rpc("job-manager.kill", {"id": parse_id(text), "signum": args.signal}))
            for text in args.operands
        ]
        for text, future in asked:
            try:
                future.get()
            except OSError as error:
                failures += 1
                say(f"{PROG}: kill {text}: {error}")
    return 1 if failures else 0


def killall(args: Arguments) -> int:
    from flux_mpi.client.jobs import list_records

    with connect() as handle:
        request = {"max_entries": 0, "states": info.RUN, "results": 0, "attrs": []}
        if args.user is None:
            request["userid"] = os.getuid()
        elif args.user >= 0:
            request["userid"] = args.user
        jobs = [record["id"] for record in list_records(request, handle=handle)]
        if not args.force:
            say(f"{PROG}: Command matched {len(jobs)} jobs (-f to confirm)")
            return 0
        failures = 0
        for future in [
            handle.rpc("job-manager.kill", {"id": job, "signum": args.signal}) for job in jobs
        ]:
            try:
                future.get()
            except OSError:
                # It may have ended in between; the count tells.
                failures += 1
        if jobs:
            say(f"{PROG}: Killed {len(jobs) - failures} jobs ({failures} errors)")
    return 1 if failures else 0


def cancel(args: Arguments) -> int:
    args.type, args.severity = "cancel", 0
    return raise_exception(args)


def raise_exception(args: Arguments) -> int:
    words = list(args.operands)
    jobs: list[int] = []
    while words:
        try:
            jobs.append(fluid.parse(words[0]))
        except ValueError:
            break
        words.pop(0)
    if not jobs:
        raise UsageError(f"{PROG}: invalid job id {words[0]!r}", 1)
    if words and args.message is not None:
        raise UsageError(f"{PROG}: give the message with --message or after the ids, not both", 2)
    from flux_mpi.client.jobs import ranges

    note = args.message if args.message is not None else " ".join(words)
    with connect() as handle:
        answer = handle.call(
            "job-manager.raise",
            {"ids": ranges(jobs), "type": args.type, "severity": args.severity, "note": note},
        )
    errors = answer.get("errors") or {}
    ids = Ids()
    for job, text in errors.items():
        shown = ids(int(job))
        bare = text.removeprefix(f"{shown}: ")
        say(f"{PROG}: {args.command.name} {shown}: {bare}")
    return 1 if errors else 0


def raise_all(args: Arguments) -> int:
    from flux_mpi.cli.cancel import report

    request = {
        "states": args.states,
        "type": args.operands[0],
        "severity": args.severity,
        "note": " ".join(args.operands[1:]),
        "dry_run": not args.force,
    }
    if args.user is None:
        request["userid"] = os.getuid()
    elif args.user >= 0:
        request["userid"] = args.user
    with connect() as handle:
        answer = handle.call("job-manager.raise-all", request)
    if not args.force:
        say(f"{PROG}: Command matched {answer['count']} jobs (-f to confirm)")
        return 0
    say(f"{PROG}: Raised exception on {answer['count']} jobs")
    return report(answer.get("errors") or {}, PROG)


def urgency(args: Arguments) -> int:
    from flux_mpi.cli.submission import URGENCIES

    text, wanted = args.operands
    job = parse_id(text)
    if wanted in URGENCIES:
        number = URGENCIES[wanted]
    elif wanted.isdigit() and int(wanted) <= 31:
        number = int(wanted)
    else:
        raise UsageError(
            f"{PROG}: invalid urgency {wanted!r}: expected 0 to 31, hold, default or expedite", 1
        )
    with connect() as handle:
        old = handle.call("job-manager.urgency", {"id": job, "urgency": number}).get("old")
    if args.verbose:
        names = {val: name for name, val in URGENCIES.items()}
        say(f"old urgency: {names.get(old, old)}")
    return 0


# -- ids and lists --------------------------------------------------------------------------------


def convert_ids(args: Arguments) -> int:
    texts = args.operands or [line.strip() for line in sys.stdin if line.strip()]
    form = args.to or Ids()._form
    failures = 0
    for text in texts:
        try:
            print(fluid.encode(fluid.parse(text), form))
        except ValueError as error:
            failures += 1
            say(f"{PROG}: {error}")
    return 1 if failures else 0


def last(args: Arguments) -> int:
    from flux_mpi.client.jobs import list_records

    text = args.operands[0] if args.operands else "1"
    try:
        chosen = _slice(text)
    except ValueError:
        args.command.fail(f"invalid number or slice {text!r}: expected N or [START:STOP:STEP]")
    request = {
        "max_entries": 0,
        "states": info.ACTIVE | info.INACTIVE,
        "results": 0,
        "userid": os.getuid(),
        "attrs": [],
    }
    with connect() as handle:
        jobs = sorted(
            (record["id"] for record in list_records(request, handle=handle)), reverse=True
        )
    if not jobs:
        raise UsageError(f"{PROG}: job history is empty", 1)
    ids = Ids()
    print("\n".join(ids(job) for job in jobs[chosen]))
    return 0


def _slice(text: str) -> slice:
    if not text.startswith("["):
        number = int(text)
        if number < 1:
            raise ValueError(text)
        return slice(0, number)
    if not text.endswith("]"):
        raise ValueError(text)
    parts = [int(part) if part.strip() else None for part in text[1:-1].split(":")]
    if len(parts) == 1:
        start = parts[0]
        if start is None:
            raise ValueError(text)
        return slice(start, start + 1 if start != -1 else None)
    if len(parts) > 3 or (len(parts) == 3 and parts[2] == 0):
        raise ValueError(text)
    return slice(*parts)


def list_jobs(args: Arguments) -> int:
    import json

    from flux_mpi.client.jobs import list_records

    states, results = (info.ACTIVE, 0) if args.filter is None else args.filter
    if args.all:
        states, results = info.ACTIVE | info.INACTIVE, 0
    request: dict[str, Any] = {"max_entries": args.count, "states": states, "results": results}
    if args.user is None:
        request["userid"] = os.getuid()
    elif args.user >= 0:
        request["userid"] = args.user
    if args.operands:
        ids = [parse_id(text) for text in args.operands]
        request = {
            "ids": ids,
            "max_entries": len(ids),
            "states": info.ACTIVE | info.INACTIVE,
            "results": 0,
        }
    with connect() as handle:
        for record in list_records(request, handle=handle):
            print(json.dumps(record))
    return 0


def stats(args: Arguments) -> int:
    import json

    with connect() as handle:
        found = handle.call("job-list.stats", {})
    found.setdefault("queues", [])
    print(json.dumps(found, separators=(",", ":")))
    return 0


def _job_of_environment() -> int | None:
    text = os.environ.get("FLUX_JOB_ID")
    return None if text is None else fluid.parse(text)


def timeleft(args: Arguments) -> int:
    job = parse_id(args.operands[0]) if args.operands else _job_of_environment()
    left = float("inf")
    if job is not None:
        from flux_mpi.client.jobs import list_records

        request = {
            "ids": [job],
            "max_entries": 1,
            "states": info.ACTIVE | info.INACTIVE,
            "results": 0,
            "attrs": ["state", "expiration"],
        }
        with connect() as handle:
            records = list_records(request, handle=handle)
        if not records:
            raise UsageError(f"{PROG}: {Ids()(job)}: unknown job id", 1)
        state, expiration = records[0].get("state", 0), records[0].get("expiration", 0.0)
        if state & info.PENDING:
            raise UsageError(f"{PROG}: {Ids()(job)}: job has not started", 1)
        if state == info.INACTIVE:
            left = 0.0
        elif expiration:
            left = max(0.0, expiration - time.time())
    if args.human:
        from flux_mpi.formats.duration import short

        print("infinity" if left == float("inf") else short(left))
    else:
        print(NO_LIMIT if left == float("inf") else int(left))
    return 0


def taskmap(args: Arguments) -> int:
    from flux_mpi.formats.taskmap import Taskmap

    text = args.operands[0]
    hosts: list[str] = []
    try:
        if "[" in text or "(" in text or text.startswith("{"):
            found = Taskmap.parse(text)
        else:
            found, hosts = _job_taskmap(parse_id(text))
    except ValueError as error:
        raise UsageError(f"{PROG}: {error}", 1) from None
    if args.taskids is not None:
        print(found.tasks(args.taskids))
    elif args.ntasks is not None:
        print(len(found.tasks(args.ntasks)))
    elif args.nodeid is not None:
        print(found.nodeid(args.nodeid))
    elif args.hostname is not None:
        if not hosts:
            raise UsageError(f"{PROG}: --hostname needs a job id", 1)
        print(hosts[found.nodeid(args.hostname)])
    elif args.to == "hosts":
        if not hosts:
            raise UsageError(f"{PROG}: --to=hosts needs a job id", 1)
        for node, host in enumerate(hosts):
            print(f"{host}: {found.tasks(node)}")
    elif args.to == "multiline":
        for task in range(found.ntasks):
            print(f"{task}: {found.nodeid(task)}")
    elif args.to in ("raw", "pmi"):
        print(found.raw() if args.to == "raw" else found.pmi())
    else:
        print(str(found))
    return 0


def _job_taskmap(job: int) -> tuple[Any, list[str]]:
    """The task map that the job's start event reports, and its nodes' host names."""
    from flux_mpi.formats.rv1 import RSet
    from flux_mpi.formats.taskmap import Taskmap

    with connect() as handle:
        found = handle.rpc("job-info.lookup", {"id": job, "keys": ["R"]})
        stream = handle.rpc(
            "job-info.eventlog-watch", {"id": job, "path": "guest.exec.eventlog"}, streaming=True
        )
        for chunk in stream:
            for event in chunk["events"]:
                if event["name"] == "shell.start":
                    hosts = list(RSet.parse(found.get()["R"]).hostlist)
                    return Taskmap.parse(event["context"]["taskmap"]), hosts
    raise UsageError(f"{PROG}: {Ids()(job)}: the job never started", 1)


# -- the table ------------------------------------------------------------------------------------


def _user(text: str) -> int:
    from flux_mpi.cli.common import parse_user

    found = parse_user(text)
    return -1 if found is None else found


def _states(text: str) -> int:
    from flux_mpi.cli.cancel import states_mask

    return states_mask(text)


EVENT_FORMAT: tuple[Option, ...] = (
    *EVENT_FORMATS,
    flag("-H", "--human", help="For people: the same as -f text -T human."),
    value("-p", "--path", metavar="PATH", default="eventlog", help="Another log: exec, output."),
)
SIGNAL = value(
    "-s",
    "--signal",
    metavar="SIG",
    default=15,
    convert=parse_signal,
    help="The signal, by name or number (default SIGTERM).",
)
SEVERITY = value(
    "-s",
    "--severity",
    metavar="N",
    default=0,
    convert=integer(0, 7),
    help="Severity, 0 (fatal, the default) to 7.",
)
MESSAGE = value("-m", "--message", metavar="NOTE", help="A note for the exception.")
OF_USER = value("-u", "--user", metavar="USER", convert=_user, help="Jobs of this user, or all.")

COMMAND = Command(
    "job",
    "Attach to, inspect, wait for, signal one or more jobs.",
    subcommands=(
        Command(
            "attach",
            "Show a job's output, feed it input, and exit with its status.",
            (
                flag("-l", "--label-io", help="Put the task's rank before each line."),
                flag(
                    "-u", "--unbuffered", help="Do not hold output back until a line is complete."
                ),
                value(
                    "-i",
                    "--stdin-ranks",
                    metavar="RANKS",
                    convert=idset,
                    help="Send standard input to these tasks only.",
                ),
                flag("-r", "--read-only", help="Neither read standard input nor catch signals."),
                value(
                    "-w",
                    "--wait-event",
                    metavar="EVENT",
                    default="finish",
                    help="Stay until this event (default finish).",
                ),
                flag("-E", "--show-events", help="Show the job's events on stderr."),
                flag("-X", "--show-exec", help="Show the execution events on stderr."),
                count("-v", "--verbose", help="Say more."),
            ),
            operands="JOBID",
            minimum=1,
            maximum=1,
            run=attach,
        ),
        Command(
            "cancel",
            "Cancel jobs.",
            (MESSAGE,),
            operands="JOBID... [NOTE...]",
            minimum=1,
            run=cancel,
        ),
        Command(
            "eventlog",
            "Print a job's event log.",
            (*EVENT_FORMAT, flag("-F", "--follow", help="Go on until the job is inactive.")),
            operands="JOBID",
            minimum=1,
            maximum=1,
            run=eventlog,
        ),
        Command(
            "id",
            "Convert job ids from any spelling to another.",
            (
                value(
                    "--to",
                    metavar="FORM",
                    choices=fluid.FORMS,
                    help="f58, f58plain, dec, hex, dothex, kvs, words or emoji.",
                ),
            ),
            operands="[JOBID...]",
            description="Without arguments, ids are read from standard input, one a line.",
            run=convert_ids,
        ),
        Command(
            "explain",
            "Say why a job does not run: what it waits for, and when it could start.",
            operands="JOBID...",
            minimum=1,
            run=pending.explain,
        ),
        Command(
            "info",
            "Print a job's jobspec, R, event log.",
            (
                flag("-o", "--original", help="jobspec: as it was submitted."),
                flag("-b", "--base", help="jobspec or R: without later updates."),
            ),
            operands="JOBID KEY",
            minimum=2,
            maximum=2,
            description="KEY is jobspec, R, eventlog, J or guest.exec.eventlog.",
            run=show_info,
        ),
        Command(
            "kill",
            "Send a signal to running jobs.",
            (SIGNAL,),
            operands="JOBID...",
            minimum=1,
            run=kill,
        ),
        Command(
            "killall",
            "Send a signal to all running jobs.",
            (SIGNAL, OF_USER, flag("-f", "--force", help="Really do it.")),
            run=killall,
        ),
        Command(
            "last",
            "Print the id of the job submitted last.",
            operands="[N|[START:STOP:STEP]]",
            maximum=1,
            description="With N the last N ids, with a slice those of the list, newest first.",
            run=last,
        ),
        Command(
            "list",
            "Print jobs as JSON, one a line.",
            (
                flag("-a", "--all", help="Jobs in all states."),
                value(
                    "-c",
                    "--count",
                    metavar="N",
                    default=1000,
                    convert=integer(0),
                    help="At most N jobs (default 1000; 0: all).",
                ),
                value(
                    "-f",
                    "--filter",
                    metavar="STATE|RESULT",
                    convert=info.filter_masks,
                    help="Only jobs in these states or with these results.",
                ),
                OF_USER,
            ),
            operands="[JOBID...]",
            run=list_jobs,
        ),
        Command(
            "memo",
            "Note something on a job, for all to see.",
            (flag("--volatile", help="Not in the event log: gone when the instance restarts."),),
            operands="JOBID KEY=VALUE...",
            minimum=2,
            description="""
            Shown as annotations.user.KEY; a dot in KEY leads into an object. VALUE is JSON, or a
            text when it is none; null removes KEY, and - reads the value from standard input.
            """,
            examples=(
                ("flux-mpi job memo ƒ1234 step=17", "'flux-mpi jobs -o {user.step}' prints it."),
            ),
            run=memo,
        ),
        Command(
            "raise",
            "Raise an exception on jobs.",
            (
                SEVERITY,
                value("-t", "--type", metavar="TYPE", default="cancel", help="Type (cancel)."),
                MESSAGE,
            ),
            operands="JOBID... [NOTE...]",
            minimum=1,
            run=raise_exception,
        ),
        Command(
            "raiseall",
            "Raise an exception on many jobs.",
            (
                value(
                    "-s",
                    "--severity",
                    metavar="N",
                    default=7,
                    convert=integer(0, 7),
                    help="Severity, 0 (fatal) to 7 (the default).",
                ),
                OF_USER,
                value(
                    "-S",
                    "--states",
                    metavar="STATES",
                    default=info.ACTIVE,
                    convert=_states,
                    help="Jobs in these states (default active).",
                ),
                flag("-f", "--force", help="Really do it."),
            ),
            operands="TYPE [NOTE...]",
            minimum=1,
            run=raise_all,
        ),
        Command(
            "stats",
            "Print counts of jobs as JSON.",
            run=stats,
        ),
        Command(
            "status",
            "Wait for jobs and exit with the largest status.",
            (
                value(
                    "-e",
                    "--exception-exit-code",
                    metavar="N",
                    convert=integer(0, 255),
                    help="The exit code of jobs that an exception ended.",
                ),
                flag("-j", "--json", help="Print JSON."),
                count("-v", "--verbose", help="Say how each job ended."),
            ),
            operands="JOBID...",
            minimum=1,
            run=status,
        ),
        Command(
            "submit",
            "Submit a jobspec (RFC 14) as it is written, and print the job's id.",
            (
                value(
                    "-u",
                    "--urgency",
                    metavar="N",
                    default=16,
                    convert=integer(0, 31),
                    help="Urgency, 0 (held) to 31 (default 16).",
                ),
                value(
                    "-f",
                    "--flags",
                    metavar="FLAG,...",
                    default=0,
                    convert=pending.flags_of,
                    help="Flags of the job: debug, waitable, novalidate.",
                ),
            ),
            operands="[FILE]",
            maximum=1,
            description="""
            FILE is JSON; without it, or with -, it is read from standard input. Nothing is added:
            neither this environment nor this directory.
            """,
            run=pending.submit,
        ),
        Command(
            "taskmap",
            "Show which node runs which tasks.",
            (
                value("--taskids", metavar="NODEID", convert=integer(0), help="Tasks of a node."),
                value("--ntasks", metavar="NODEID", convert=integer(0), help="Their number."),
                value("--nodeid", metavar="TASKID", convert=integer(0), help="The task's node."),
                value("--hostname", metavar="TASKID", convert=integer(0), help="Its host."),
                value(
                    "--to",
                    metavar="FORM",
                    choices=("raw", "pmi", "multiline", "hosts"),
                    help="raw, pmi, multiline or hosts.",
                ),
            ),
            operands="JOBID|TASKMAP",
            minimum=1,
            maximum=1,
            run=taskmap,
        ),
        Command(
            "timeleft",
            "Print the seconds left of a job's time limit.",
            (flag("-H", "--human", help="Print a duration such as 1.5h."),),
            operands="[JOBID]",
            maximum=1,
            run=timeleft,
        ),
        Command(
            "urgency",
            "Change a job's urgency.",
            (count("-v", "--verbose", help="Print the old urgency."),),
            operands="JOBID N|hold|default|expedite",
            minimum=2,
            maximum=2,
            run=urgency,
        ),
        Command(
            "wait",
            "Wait for waitable jobs (submitted with --flags=waitable).",
            (
                flag("-a", "--all", help="Wait for all waitable jobs."),
                count("-v", "--verbose", help="Report successful jobs too."),
            ),
            operands="[JOBID]",
            maximum=1,
            description="Exits 1 when the job failed, 2 when there is nothing to wait for.",
            run=wait,
        ),
        Command(
            "wait-event",
            "Wait until an event is in a job's log.",
            (
                *EVENT_FORMAT,
                value(
                    "-t", "--timeout", metavar="FSD", convert=duration, help="Give up after this."
                ),
                repeat(
                    "-m", "--match-context", metavar="KEY=VAL", help="Only if its context has this."
                ),
                value(
                    "-c",
                    "--count",
                    metavar="N",
                    default=1,
                    convert=integer(1),
                    help="Wait for the N-th such event.",
                ),
                flag("-q", "--quiet", help="Do not print the event."),
                count("-v", "--verbose", help="Print all events before it."),
            ),
            operands="JOBID EVENT",
            minimum=2,
            maximum=2,
            run=wait_event,
        ),
    ),
)
