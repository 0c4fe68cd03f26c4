"""``flux-mpi dmesg``: print the brokers' log."""

from __future__ import annotations

import sys

from flux_mpi.cli.common import colored, connect
from flux_mpi.cli.jobs import COLOR
from flux_mpi.cli.options import Arguments, Command, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")


class _Lines:
    """Log entries as lines: with full times, or for people with those since the last minute."""

    def __init__(self, human: bool, delta: bool, color: bool) -> None:
        self.human = human
        self.delta = delta
        self.color = color
        self._minute = ""
        self._last = 0.0

    def __call__(self, entry: Any) -> str:
        when, level, component, rank, text = entry
        name = LEVELS[level] if 0 <= level < len(LEVELS) else str(level)
        line = f"{self._time(when)} {component}.{name}[{rank}]: {text}"
        if not self.color or level > 4:
            return line
        return f"\033[{'33' if level == 4 else '01;31'}m{line}\033[0m"

    def _time(self, when: float) -> str:
        from flux_mpi.formats import timefmt

        if not self.human:
            import time

            micros = round(when * 1e6)
            date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000))
            return f"{date}.{micros % 1_000_000:06}Z"
        minute = timefmt.short(when)
        if minute != self._minute:
            self._minute, self._last = minute, when
            return f"[{minute}]"
        since = when - self._last
        if self.delta:
            self._last = when
        return f"[{since:+11.6f}]"


def run(args: Arguments) -> int:
    lines = _Lines(args.human or args.delta, args.delta, args.human and colored(args.color))
    with connect() as handle:
        if args.clear:
            handle.call("log.clear", {})
            return 0
        stream = handle.rpc("log.dmesg", {"follow": args.follow or args.new}, streaming=True)
        skip = args.new
        for chunk in stream:
            if skip:
                # The first answer is what there was before.
                skip = False
                continue
            sys.stdout.write("".join(f"{lines(entry)}\n" for entry in chunk["entries"]))
            sys.stdout.flush()
        if args.read_clear:
            handle.call("log.clear", {})
    return 0


COMMAND = Command(
    "dmesg",
    "Print the log of this node's broker; on rank 0 also what others reported.",
    (
        flag("-C", "--clear", help="Clear the log."),
        flag("-c", "--read-clear", help="Print the log, then clear it."),
        flag("-f", "--follow", help="Go on with new entries."),
        flag("-n", "--new", help="Only new entries."),
        flag("-H", "--human", help="For people: short times."),
        flag("-d", "--delta", help="With --human: times since the entry before."),
        COLOR,
    ),
    run=run,
)
