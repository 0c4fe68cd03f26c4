"""``flux-mpi exec``: run a command on brokers' nodes, outside any job."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time

from flux_mpi.cli.attaching import TWICE_S, has_input
from flux_mpi.cli.common import connect, parse_id, say
from flux_mpi.cli.options import Arguments, Command, UsageError, flag, value
from flux_mpi.client.attach import LineWriter, ranks_of
from flux_mpi.client.info import exit_status, signal_text
from flux_mpi.formats.idset import IDSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.client.handle import Future, Handle

PROG = "flux-exec"
CHUNK = 1 << 16
WINDOW = 64
"""Chunks of standard input under way to all ranks together."""


def run(args: Arguments) -> int:
    with connect() as handle:
        ranks = target_ranks(handle, args)
        session = _Session(handle, ranks, args)
        return session.run()


def target_ranks(handle: Handle, args: Arguments) -> IDSet:
    """The ranks to run on. Raises UsageError for ones that are not there."""
    if args.jobid is not None:
        job = parse_id(args.jobid, PROG)
        resources = handle.call("job-info.lookup", {"id": job, "keys": ["R"]})["R"]
        nodes = ranks_of(resources)
        chosen = _parse(args.rank, IDSet(range(len(nodes))), "--rank")
        chosen = chosen - _parse(args.exclude, IDSet(), "--exclude")
        found = IDSet(nodes[at] for at in chosen if at < len(nodes))
    else:
        size = handle.size
        found = _parse(args.rank, IDSet(range(size)), "--rank")
        beyond = [rank for rank in found if rank >= size]
        if beyond:
            raise UsageError(
                f"{PROG}: ERROR: --rank: {beyond[0]} is not a rank: the instance has 0-{size - 1}",
                1,
            )
        found = found - _parse(args.exclude, IDSet(), "--exclude")
    if not found:
        raise UsageError(f"{PROG}: ERROR: no ranks to run on", 1)
    return found


def _parse(text: str | None, default: IDSet, option: str) -> IDSet:
    if text is None or text == "all":
        return default
    try:
        return IDSet.parse(text)
    except ValueError as error:
        raise UsageError(f"{PROG}: ERROR: {option}: invalid idset {text!r}: {error}", 1) from None


class _Session:
    """The same command on several ranks, and the traffic with them."""

    def __init__(self, handle: Handle, ranks: IDSet, args: Arguments) -> None:
        self.handle = handle
        self.args = args
        self.writer = LineWriter(label=args.label_io)
        self.pids: dict[int, int] = {}
        self.open: dict[int, Future] = {}
        self.worst = 0
        self.ended: dict[str, list[int]] = {}
        self.unsent: list[int] = []
        self.feeding = not args.noinput and has_input()
        self.in_flight = 0
        self.interrupted = 0.0
        request = {"argv": args.operands, "cwd": args.dir or os.getcwd()}
        for rank in ranks:
            self.open[rank] = handle.rpc(
                "rexec.exec",
                request,
                rank,
                streaming=True,
                callback=lambda future, rank=rank: self._answer(rank, future),  # type: ignore[misc]
            )

    def run(self) -> int:
        wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        caught = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, lambda *_: None) for number in caught}
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.handle.fileno(), select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        listening = False
        try:
            while self.open:
                started = len(self.pids) == len(self.open) and bool(self.open)
                wanted = self.feeding and started and self.in_flight < WINDOW
                if wanted != listening:
                    listening = self._listen(poll, wanted)
                for fd, _ in poll.poll():
                    if fd == wakeup:
                        for number in os.read(wakeup, 256):
                            if self._signal(number):
                                return 128 + number
                    elif fd == 0 and listening:
                        self._feed()
                    else:
                        self.handle.dispatch(0.0)
                        self.handle._check()
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(wakeup)
            os.close(write)
        self.writer.flush()
        sys.stdout.flush()
        if not self.args.quiet:
            for text, ranks in self.ended.items():
                say(f"{IDSet(ranks).bracketed()}: {text}")
        return self.worst

    def _listen(self, poll: Any, wanted: bool) -> bool:
        if not wanted:
            poll.unregister(0)
            return False
        try:
            poll.register(0, select.POLLIN)
        except OSError:
            self.feeding = False
            return False
        return True

    def _answer(self, rank: int, future: Future) -> None:
        try:
            answer = future.get()
        except OSError as error:
            self.open.pop(rank, None)
            self.pids.pop(rank, None)
            if error.errno != errno.ENODATA:
                code = {errno.ENOENT: 127, errno.EACCES: 126}.get(error.errno or 0, 1)
                self.worst = max(self.worst, code)
                say(f"{PROG}: rank {rank}: {error}")
            return
        if "pid" in answer:
            self.pids[rank] = answer["pid"]
            if self.args.verbose:
                say(f"{PROG}: rank {rank}: started pid {answer['pid']}")
            if not self.feeding:
                self.handle.send(
                    "rexec.write", {"pid": answer["pid"], "data": b"", "eof": True}, rank
                )
        elif "status" in answer:
            self.pids.pop(rank, None)
            code = exit_status(answer["status"])
            self.worst = max(self.worst, code)
            if code:
                text = signal_text(code - 128) if code > 128 else f"Exit {code}"
                self.ended.setdefault(text, []).append(rank)
        else:
            self.writer(0.0, answer["stream"], rank, answer["data"])

    def _feed(self) -> None:
        try:
            data = os.read(0, CHUNK)
        except OSError:
            data = b""
        if not data:
            self.feeding = False
        for rank, pid in self.pids.items():
            self.in_flight += 1
            self.handle.rpc(
                "rexec.write",
                {"pid": pid, "data": data, "eof": not data},
                rank,
                callback=self._fed,
            )

    def _fed(self, future: Future) -> None:
        self.in_flight -= 1
        try:
            future.get()
        except OSError:
            # A command that has ended or closed its input takes no more: that is its business.
            return

    def _signal(self, number: int) -> bool:
        """Forwards a signal; True when the user insists on leaving."""
        now = time.monotonic()
        if number == signal.SIGINT and now - self.interrupted < TWICE_S:
            return True
        self.interrupted = now
        if number == signal.SIGINT:
            say(f"{PROG}: interrupt (Ctrl+C) one more time within 2s to exit")
        for rank, pid in self.pids.items():
            self.handle.send("rexec.kill", {"pid": pid, "signum": number}, rank)
        return False


COMMAND = Command(
    "exec",
    "Run a command on brokers' nodes, outside any job; exit with the largest status.",
    (
        value("-r", "--rank", metavar="IDSET", help="On these ranks (default: all)."),
        value("-x", "--exclude", metavar="IDSET", help="Not on these ranks."),
        value("-j", "--jobid", metavar="JOBID", help="On the nodes of a job; ranks index them."),
        flag("-l", "--label-io", help="Put the rank before each line."),
        flag("-n", "--noinput", help="Do not forward standard input."),
        value("-d", "--dir", metavar="DIR", help="Working directory (default: this one)."),
        flag("-q", "--quiet", help="Do not report exit statuses."),
        flag("-v", "--verbose", help="Report process ids."),
    ),
    operands="COMMAND [ARGS...]",
    minimum=1,
    posix=True,
    run=run,
)
