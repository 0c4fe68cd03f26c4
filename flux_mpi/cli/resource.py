"""``flux-mpi resource``: list resources; drain and undrain nodes."""

from __future__ import annotations

import sys

from flux_mpi.cli.common import (
    choose_format,
    connect,
    print_formats,
    say,
)
from flux_mpi.cli.options import (
    EVENT_FORMATS,
    Arguments,
    Command,
    UsageError,
    count,
    duration,
    flag,
    integer,
    repeat,
    value,
)
from flux_mpi.client.resources import STATES as LIST_STATES
from flux_mpi.client.resources import ResourceStatus
from flux_mpi.view.table import Format, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from flux_mpi.client.handle import Handle
    from flux_mpi.formats.idset import IDSet
    from flux_mpi.formats.rv1 import RSet

PROG = "flux-resource"
STATUS_STATES = (
    "avail",
    "exclude",
    "draining",
    "drained",
    "drain",
    "allocated",
    "offline",
    "online",
    "all",
)

_LIST = "{state:>10} ?+:{queue:<5} ?:{propertiesx:<10.10+} {nnodes:>6} +:{ncores:>6} ?+:{ngpus:>5} "
LIST_FORMATS = {
    "default": ("Default flux-resource list format string", _LIST + "{nodelist}"),
    "rlist": ("Format including resource list details", _LIST + "{rlist}"),
}
STATUS_FORMATS = {
    "default": (
        "Default flux-resource status format string",
        "{state:>12} {up:>2} {nnodes:>6} {nodelist}",
    ),
    "long": (
        "Long flux-resource status format string",
        "{state:>12} {up:>2} {nnodes:>6} +:{reason:<30.30} {nodelist}",
    ),
}
DRAIN_FORMATS = {
    "default": (
        "Default flux-resource drain format string",
        "{timestamp!d:%b%d %R::<12} {state:<8.8} {reason:<30.30+} {nodelist}",
    ),
    "long": (
        "Long flux-resource drain format string",
        "{timestamp!d:%b%d %R::<12} {state:<8.8} {ranks:<8.8+} +:{reason:<30.30} {nodelist}",
    ),
}


class View(ResourceStatus):
    """What ``resource.status`` said."""

    def __init__(self, handle: Handle) -> None:
        super().__init__(handle.call("resource.status", {}))

    def include(self, targets: str | None) -> IDSet | None:
        """The ranks of an idset or hostlist; None when there is no such restriction."""
        if targets is None:
            return None
        from flux_mpi.formats.hostlist import Hostlist
        from flux_mpi.formats.idset import IDSet

        try:
            return IDSet.parse(targets)
        except ValueError:
            pass
        try:
            return IDSet(self.all.ranks_of(Hostlist.parse(targets)))
        except ValueError:
            raise UsageError(
                f"{PROG}: ERROR: --include: invalid targets {targets!r}: "
                "expected an idset of ranks or a hostlist",
                1,
            ) from None


class _Field:
    """A column over rows that are dicts."""

    attrs: tuple[str, ...] = ()

    def __init__(self, name: str, heading: str) -> None:
        self.heading = heading
        self.get: Callable[[dict[str, Any]], Any] = lambda row: row[name]


def _fields(**headings: str) -> dict[str, _Field]:
    return {name: _Field(name, heading) for name, heading in headings.items()}


LIST_FIELDS = _fields(
    state="STATE",
    queue="QUEUE",
    properties="PROPERTIES",
    propertiesx="PROPERTIES",
    nnodes="NNODES",
    ncores="NCORES",
    ngpus="NGPUS",
    ranks="RANKS",
    nodelist="NODELIST",
    rlist="LIST",
)
STATUS_FIELDS = _fields(
    state="STATE",
    statex="STATE",
    nnodes="NNODES",
    ranks="RANKS",
    nodelist="NODELIST",
    reason="REASON",
    timestamp="TIME",
    status="STATUS",
    up="UP",
)
STATUS_FIELDS["up.ascii"] = _Field("ascii", "UP")


def _table(
    args: Arguments, named: dict[str, tuple[str, str]], fields: dict[str, _Field], variable: str
) -> Format:
    try:
        return Format(choose_format(args.format, named, variable), fields.get)
    except FormatError as error:
        raise UsageError(f"{PROG}: ERROR: Error in user format: {error}", 1) from None


def _print(table: Format, rows: list[dict[str, Any]], header: bool) -> None:
    for line in table.table(table.sort(rows), header=header):
        print(line)


def _states(text: str | None, default: Iterable[str], known: tuple[str, ...]) -> list[str]:
    found = list(default) if text is None else text.lower().split(",")
    for state in found:
        if state not in known:
            raise UsageError(
                f"{PROG}: ERROR: Invalid resource state {state!r}: expected {', '.join(known)}", 1
            )
    return found


def _list_row(state: str, resources: RSet) -> dict[str, Any]:
    return {
        "state": state,
        "queue": "",
        "properties": "",
        "propertiesx": "",
        "nnodes": resources.nnodes,
        "ncores": resources.ncores,
        "ngpus": resources.ngpus,
        "ranks": str(resources.ranks),
        "nodelist": str(resources.hostlist),
        "rlist": resources.summary(),
    }


def list_(args: Arguments) -> int:
    if args.format == "help":
        print_formats("flux-resource list", LIST_FORMATS)
        return 0
    states = _states(args.states, ("free", "allocated", "down"), LIST_STATES)
    table = _table(args, LIST_FORMATS, LIST_FIELDS, "FLUX_RESOURCE_LIST_FORMAT_DEFAULT")
    with connect() as handle:
        view = View(handle)
    ranks = view.include(args.include)
    rows = []
    for state in states:
        resources = view.scheduler(state)
        if ranks is not None:
            resources = resources.subset(resources.ranks & ranks)
        skip = args.skip_empty or (ranks is not None and not args.no_skip_empty)
        if resources or not skip:
            rows.append(_list_row(state, resources))
    if args.json:
        import json

        print(json.dumps({"resources": rows, **({"others": view.others} if view.others else {})}))
        return 0
    _print(table, rows, not args.no_header)
    if view.others and args.format is None and ranks is None:
        _print_others(view.others, states, not args.no_header)
    return 0


def _print_others(others: dict[str, dict[str, int]], states: list[str], header: bool) -> None:
    """Units of each other type, by state."""
    numbers: dict[str, Callable[[dict[str, int]], int]] = {
        "free": lambda one: max(0, one["total"] - one["allocated"] - one["down"]),
        "allocated": lambda one: one["allocated"],
        "down": lambda one: one["down"],
        "up": lambda one: one["total"] - one["down"],
        "all": lambda one: one["total"],
    }
    width = max(10, *map(len, others))
    if header:
        print()
        print(f"{'TYPE':>{width}} " + " ".join(f"{state.upper():>9}" for state in states))
    for kind, one in others.items():
        cells = " ".join(f"{numbers[state](one):>9}" for state in states)
        print(f"{kind:>{width}} {cells}")


def graph(args: Arguments) -> int:
    """Draw the graph that the scheduler matches on."""
    from flux_mpi.view import graphpicture

    path = args.operands[0] if args.operands else None
    if args.output is None and sys.stdout.isatty():
        raise UsageError(
            f"{PROG}: ERROR: a picture is not for a terminal: name a file with -o FILE.svg", 1
        )
    request = {} if path is None else {"path": path}
    with connect() as handle:
        document = handle.call("sched.graph", request)
        view = View(handle)
    states = document["states"]
    drained, offline = view.drained_ranks, view.offline | view.exclude
    for node in document["graph"]["nodes"]:
        metadata = node["metadata"]
        if metadata["type"] == "node" and metadata["rank"] >= 0:
            rank = metadata["rank"]
            status = "down" if rank in offline else "drained" if rank in drained else "up"
            states.setdefault(node["id"], {})["status"] = status
            metadata.pop("status", None)
    try:
        svg = graphpicture.draw(
            {"graph": document["graph"]},
            states,
            title=_title(view, path),
            root=path,
            depth=args.depth,
        )
        if args.output is None:
            sys.stdout.write(svg)
        else:
            graphpicture.write(args.output, svg, force=args.force)
    except graphpicture.PictureError as error:
        raise UsageError(f"{PROG}: ERROR: {error}", 1) from None
    return 0


def _title(view: View, path: str | None) -> str:
    total = view.all
    nodes = f"{total.nnodes} node{'s' if total.nnodes != 1 else ''}"
    return f"{path or 'Resources'} · {nodes}, {total.ncores} cores" + (
        f", {total.ngpus} GPUs" if total.ngpus else ""
    )


def info(args: Arguments) -> int:
    states = _states(args.states, ("all",), LIST_STATES)
    with connect() as handle:
        view = View(handle)
    ranks = view.include(args.include)
    total = _union(view, states, ranks)

    def plural(number: int, word: str) -> str:
        return f"{number} {word}{'s' if number != 1 else ''}"

    print(
        f"{plural(total.nnodes, 'Node')}, {plural(total.ncores, 'Core')}, "
        f"{plural(total.ngpus, 'GPU')}"
    )
    return 0


def _union(view: View, states: list[str], ranks: IDSet | None) -> RSet:
    total = view.scheduler(states[0])
    for state in states[1:]:
        total = total | view.scheduler(state)
    return total if ranks is None else total.subset(total.ranks & ranks)


def show_r(args: Arguments) -> int:
    import json

    states = _states(args.states, ("all",), LIST_STATES)
    with connect() as handle:
        view = View(handle)
    total = _union(view, states, view.include(args.include))
    print(json.dumps(total.to_dict(0.0, view.expiration)))
    return 0


def status(args: Arguments) -> int:
    if args.format == "help":
        print_formats("flux-resource status", STATUS_FORMATS)
        return 0
    states = _states(args.states, ("avail", "exclude", "draining", "drained"), STATUS_STATES)
    table = _table(args, STATUS_FORMATS, STATUS_FIELDS, "FLUX_RESOURCE_STATUS_FORMAT_DEFAULT")
    with connect() as handle:
        view = View(handle)
    rows = status_rows(view, view.include(args.include))
    wanted = set(states)
    if "drain" in wanted:
        wanted |= {"drained", "draining"}
    if "all" not in wanted:
        rows = [row for row in rows if row["statex"] in wanted or row["status"] in wanted]
    rows = [
        row for row in rows if row["nnodes"] or (args.no_skip_empty and row["statex"] in wanted)
    ]
    if args.json:
        import json

        print(json.dumps({"resources": rows}))
        return 0
    _print(table, rows, not args.no_header)
    return 0


def status_rows(view: View, include: IDSet | None) -> list[dict[str, Any]]:
    """A row for each state, reason and online status that differ."""
    everyone = view.online | view.offline | view.all.ranks
    busy = view.allocated.ranks
    drained = view.drained_ranks
    groups: list[tuple[str, IDSet, float, str]] = [
        ("avail", everyone - view.exclude - drained, 0.0, ""),
        ("exclude", view.exclude, 0.0, ""),
    ]
    for ranks, (when, reason) in view.drained.items():
        groups.append(("draining", ranks & busy, when, reason))
        groups.append(("drained", ranks - busy, when, reason))
    rows = []
    for state, ranks, when, reason in groups:
        if include is not None:
            ranks = ranks & include
        for up, part in ((True, ranks - view.offline), (False, ranks & view.offline)):
            if not part and not (up and state == "avail"):
                continue
            rows.append(
                {
                    "state": state if up else f"{state}*",
                    "statex": state,
                    "status": "online" if up else "offline",
                    "up": _mark(up),
                    "ascii": "y" if up else "n",
                    "nnodes": len(part),
                    "ranks": str(part),
                    "nodelist": _hosts(view, part),
                    "reason": reason,
                    "timestamp": when or "",
                }
            )
    return rows


def _mark(up: bool) -> str:
    mark = "✔" if up else "✗"
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return mark if encoding == "utf8" else "y" if up else "n"


def _hosts(view: View, ranks: IDSet) -> str:
    return str(view.all.subset(view.all.ranks & ranks).hostlist)


def drain(args: Arguments) -> int:
    if not args.operands:
        if args.format == "help":
            print_formats("flux-resource drain", DRAIN_FORMATS)
            return 0
        table = _table(args, DRAIN_FORMATS, STATUS_FIELDS, "FLUX_RESOURCE_DRAIN_FORMAT_DEFAULT")
        with connect() as handle:
            view = View(handle)
        rows = [
            row
            for row in status_rows(view, view.include(args.include))
            if row["statex"] in ("drained", "draining")
        ]
        _print(table, rows, not args.no_header)
        return 0
    request = _target(args)
    with connect() as handle:
        handle.call("resource.drain", request)
    return 0


def undrain(args: Arguments) -> int:
    request = _target(args)
    with connect() as handle:
        handle.call("resource.undrain", request)
    return 0


def _target(args: Arguments) -> dict[str, Any]:
    if args.force and args.update:
        args.command.fail("--force and --update exclude each other")
    request: dict[str, Any] = {"targets": args.operands[0]}
    if len(args.operands) > 1:
        request["reason"] = " ".join(args.operands[1:])
    if args.update:
        request["mode"] = "update"
    elif args.force:
        request["mode"] = "force-overwrite" if args.force > 1 else "overwrite"
    return request


def eventlog(args: Arguments) -> int:
    import time

    from flux_mpi.formats.eventlog import Event, Formatter, dumps_json

    human = args.human
    formatter = Formatter("human" if human else args.time_format)
    wanted = [text.partition("=") for text in args.match_context or ()]
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    with connect() as handle:
        view = View(handle) if args.include else None
        ranks = view.include(args.include) if view is not None else None
        stream = handle.rpc(
            "resource.journal", {"follow": args.follow or args.wait is not None}, streaming=True
        )
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                for item in next_events(stream, left):
                    event = Event.parse(item)
                    if ranks is not None and not _touches(event.context or {}, ranks):
                        continue
                    hit = event.name == args.wait and all(
                        str((event.context or {}).get(key)) == val for key, _, val in wanted
                    )
                    if args.wait is None or hit:
                        if args.format == "json" and not human:
                            print(dumps_json(event).rstrip("\n"))
                        else:
                            print(formatter.format(event))
                        sys.stdout.flush()
                    if hit:
                        return 0
        except StopIteration:
            return 0
        except TimeoutError:
            say(f"{PROG}: ERROR: no event {args.wait!r} within {args.timeout:g}s")
            return 1


def next_events(stream: Any, timeout: float | None) -> list[dict[str, Any]]:
    """The events of the next answer; StopIteration at the end of the log."""
    import errno

    try:
        events: list[dict[str, Any]] = stream.get(timeout)["events"]
    except OSError as error:
        if error.errno == errno.ENODATA:
            raise StopIteration from None
        raise
    return events


def _touches(context: dict[str, Any], ranks: IDSet) -> bool:
    from flux_mpi.formats.idset import IDSet

    text = context.get("idset", context.get("ranks"))
    return text is None or bool(IDSet.parse(text) & ranks)


INCLUDE = value("-i", "--include", metavar="TARGETS", help="Only these ranks or hosts.")
STATES = value(
    "-s", "--states", metavar="STATE,...", help="Only these: up, down, allocated, free, all."
)
FORMAT = value("-o", "--format", metavar="FORMAT", help="A named format ('help'), or a string.")
NO_HEADER = flag("-n", "--no-header", help="No header line.")
JSON = flag("--json", help="Print JSON.")
SKIP = (
    flag("--skip-empty", help="Leave out lines without resources."),
    flag("--no-skip-empty", help="Print them even with --include."),
)
MODES = (
    count("-f", "--force", help="Overwrite the reason; twice: the time too."),
    flag("-u", "--update", help="Leave those as they are that are so already."),
)

COMMAND = Command(
    "resource",
    "List resources; drain and undrain nodes.",
    subcommands=(
        Command(
            "list",
            "Show the scheduler's view: free, allocated and down resources.",
            (STATES, INCLUDE, FORMAT, NO_HEADER, JSON, *SKIP),
            description="""
            Fields: state, nnodes, ncores, ngpus, ranks, nodelist, rlist, properties, queue.
            """,
            run=list_,
        ),
        Command(
            "info",
            "Count nodes, cores and GPUs on one line.",
            (STATES, INCLUDE),
            run=info,
        ),
        Command(
            "status",
            "Show the administrator's view: which nodes are available, drained, offline.",
            (
                value(
                    "-s",
                    "--states",
                    metavar="STATE,...",
                    help=f"Only these: {', '.join(STATUS_STATES)}.",
                ),
                INCLUDE,
                FORMAT,
                NO_HEADER,
                JSON,
                *SKIP,
            ),
            description="""
            Fields: state, statex, status, up, up.ascii, nnodes, ranks, nodelist, timestamp, reason.
            """,
            run=status,
        ),
        Command(
            "drain",
            "Keep jobs off nodes; without targets, list drained nodes.",
            (*MODES, INCLUDE, FORMAT, NO_HEADER),
            operands="[TARGETS [REASON...]]",
            run=drain,
        ),
        Command(
            "undrain",
            "Give drained nodes back to the scheduler.",
            MODES,
            operands="TARGETS [REASON...]",
            minimum=1,
            run=undrain,
        ),
        Command(
            "R",
            "Print the resource set as JSON (RFC 20).",
            (STATES, INCLUDE),
            run=show_r,
        ),
        Command(
            "graph",
            "Draw the graph of the resources, coloured by state and job.",
            (
                value(
                    "-o",
                    "--output",
                    metavar="FILE",
                    help="Write to FILE.svg or FILE.png (default: SVG to standard output).",
                ),
                value(
                    "-d",
                    "--depth",
                    metavar="N",
                    convert=integer(0),
                    help="Levels to draw; what is deeper is summed up (default: as many as fit).",
                ),
                flag("-f", "--force", help="Overwrite FILE."),
            ),
            operands="[PATH]",
            maximum=1,
            description="""
            PATH, such as /cluster0/rack1, draws what is below that vertex only.
            """,
            run=graph,
        ),
        Command(
            "eventlog",
            "Print the log of what happened to resources.",
            (
                *EVENT_FORMATS,
                flag("-H", "--human", help="For people."),
                flag("-F", "--follow", help="Go on with new events."),
                value("-w", "--wait", metavar="EVENT", help="Wait for this event and print it."),
                repeat(
                    "-m", "--match-context", metavar="KEY=VAL", help="Only if its context has this."
                ),
                value(
                    "-t", "--timeout", metavar="FSD", convert=duration, help="Give up after this."
                ),
                INCLUDE,
            ),
            run=eventlog,
        ),
    ),
)
