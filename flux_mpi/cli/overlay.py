"""``flux-mpi overlay``: the tree of brokers and their health."""

from __future__ import annotations

import time

from flux_mpi.cli.common import colored, connect
from flux_mpi.cli.jobs import COLOR
from flux_mpi.cli.options import (
    Arguments,
    Command,
    UsageError,
    count,
    duration,
    flag,
    integer,
    value,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Node = dict[str, Any]

STATES = ("full", "partial", "degraded", "offline", "lost")
COLORS = {"partial": "\033[34m", "degraded": "\033[33m", "offline": "\033[33m", "lost": "\033[31m"}


def status(args: Arguments) -> int:
    with connect() as handle:
        if args.wait is not None:
            tree = _wait(handle, args)
        else:
            tree = handle.call("overlay.status", {"rank": args.rank}, timeout=args.timeout or None)
    color = colored(args.color)
    if args.summary:
        print(tree["status"])
        return 0
    for prefix, node in _walk(tree, pretty=not args.no_pretty, down=args.down):
        text = node["status"]
        more = ""
        if args.verbose:
            from flux_mpi.formats.duration import short

            more = f" for {short(time.time() - node['since'])}"
            if node is tree and "transport" in tree:
                more += f", over a {tree['transport']}"
        if color and text in COLORS:
            text = f"{COLORS[text]}{text}\033[0m"
        print(f"{prefix}{node['rank']} {node['hostname']}: {text}{more}")
    return 0


def _wait(handle: Any, args: Arguments) -> Node:
    """Asks until the subtree is in the wanted state, bounded by ``--timeout``."""
    deadline = None if not args.timeout else time.monotonic() + args.timeout
    while True:
        tree: Node = handle.call("overlay.status", {"rank": args.rank})
        if tree["status"] == args.wait:
            return tree
        if deadline is not None and time.monotonic() >= deadline:
            raise UsageError(
                f"flux-overlay: ERROR: still {tree['status']}, not {args.wait}, "
                f"after {args.timeout:g}s",
                1,
            )
        # Reading the socket for a while is how we wait: it also notices the broker's end.
        handle.dispatch(0.1)
        handle._check()


def _walk(root: Node, pretty: bool, down: bool) -> Iterator[tuple[str, Node]]:
    """Nodes with what to draw before them; no recursion, since a chain may be very deep."""
    stack: list[tuple[Node, str, str]] = [(root, "", "")]
    while stack:
        node, mark, indent = stack.pop()
        yield (mark if pretty else ""), node
        children = [child for child in node["children"] if not down or child["status"] != "full"]
        for at in range(len(children) - 1, -1, -1):
            final = at == len(children) - 1
            stack.append(
                (
                    children[at],
                    indent + ("└─ " if final else "├─ "),
                    indent + ("   " if final else "│  "),
                )
            )


def errors(args: Arguments) -> int:
    with connect() as handle:
        found = handle.call("overlay.errors", {}, timeout=args.timeout or None)["errors"]
    by_text: dict[str, list[str]] = {}
    for entry in found:
        by_text.setdefault(entry["error"], []).append(entry["hostname"])
    from flux_mpi.formats.hostlist import Hostlist

    for text, hosts in by_text.items():
        print(f"{Hostlist(hosts)}: {text}")
    return 0


def lookup(args: Arguments) -> int:
    from flux_mpi.formats.hostlist import Hostlist
    from flux_mpi.formats.idset import IDSet

    target = args.operands[0]
    with connect() as handle:
        tree = handle.call("overlay.status", {"rank": 0})
    hosts = {node["rank"]: node["hostname"] for _, node in _walk(tree, False, False)}
    try:
        ranks = IDSet.parse(target)
    except ValueError:
        try:
            names = set(Hostlist.parse(target))
        except ValueError:
            raise UsageError(
                f"flux-overlay: ERROR: {target!r} is neither an idset nor a hostlist", 1
            ) from None
        unknown = names - set(hosts.values())
        if unknown:
            raise UsageError(f"flux-overlay: ERROR: unknown host {sorted(unknown)[0]}", 1) from None
        print(IDSet(rank for rank, host in hosts.items() if host in names))
        return 0
    for rank in ranks:
        if rank not in hosts:
            raise UsageError(f"flux-overlay: ERROR: {rank} is not a valid rank in this instance", 1)
    print(Hostlist(hosts[rank] for rank in ranks))
    return 0


def parent_of(args: Arguments) -> int:
    text = args.operands[0]
    with connect() as handle:
        tree = handle.call("overlay.status", {"rank": 0})
    for _, node in _walk(tree, False, False):
        for child in node["children"]:
            if str(child["rank"]) == text:
                print(node["rank"])
                return 0
    if text == "0":
        raise UsageError("flux-overlay: ERROR: 0 has no parent", 1)
    raise UsageError(f"flux-overlay: ERROR: {text!r} is not a valid rank in this instance", 1)


TIMEOUT = value(
    "-t", "--timeout", metavar="FSD", default=0.0, convert=duration, help="Give up after this."
)

COMMAND = Command(
    "overlay",
    "Show the tree of brokers and their health.",
    subcommands=(
        Command(
            "status",
            "Show the tree and the status of each subtree.",
            (
                value(
                    "-r",
                    "--rank",
                    metavar="RANK",
                    default=0,
                    convert=integer(0),
                    help="Begin at this rank (default 0).",
                ),
                count("-v", "--verbose", help="Show for how long."),
                TIMEOUT,
                flag("--summary", help="Only the status of the whole."),
                flag("--down", help="Only subtrees that are not full."),
                flag("--no-pretty", help="Do not draw the tree."),
                value(
                    "-w",
                    "--wait",
                    metavar="STATE",
                    choices=STATES,
                    help="Wait until it is full, partial, degraded, offline or lost.",
                ),
                COLOR,
            ),
            run=status,
        ),
        Command("errors", "Say why brokers were lost.", (TIMEOUT,), run=errors),
        Command(
            "lookup",
            "Ranks of hosts, or hosts of ranks.",
            operands="HOSTS|RANKS",
            minimum=1,
            maximum=1,
            run=lookup,
        ),
        Command(
            "parentof",
            "The parent of a rank in the tree.",
            operands="RANK",
            minimum=1,
            maximum=1,
            run=parent_of,
        ),
    ),
)
