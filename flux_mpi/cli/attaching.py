"""Staying with a job on a terminal: output, input, events, signals; for ``run`` and ``attach``.

One loop waits for the broker, for standard input and for signals (through a wakeup descriptor:
a handler could otherwise strike in the middle of a message).
"""

from __future__ import annotations

import os
import select
import signal
import stat
import time

from flux_mpi.cli.common import Ids, say
from flux_mpi.client.attach import Attachment, LineWriter
from flux_mpi.client.info import status_text
from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux_mpi.cli.terminal import Terminal
    from flux_mpi.client.handle import Future, Handle

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2)
TWICE_S = 2.0
"""Two interrupts within this time cancel the job."""
OF_TERMINALS = (signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP, signal.SIGQUIT)
"""What matters besides while the terminal stands for a far one."""
STDIN_CHUNK = 1 << 16
STDIN_WINDOW = 8
"""Chunks of standard input on their way to a task at a time."""


def has_input() -> bool:
    """False when standard input is closed or /dev/null: then the tasks need not be fed."""
    try:
        found = os.fstat(0)
    except OSError:
        return False
    return not (stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3))


def terminal_for(handle: Handle, job: int) -> Terminal | None:
    """This process's terminal, if there is one and the job's program runs on a far one."""
    from flux_mpi.cli.terminal import Terminal, is_terminal

    if not is_terminal(0):
        return None
    try:
        spec = handle.call("job-info.lookup", {"id": job, "keys": ["jobspec"]})["jobspec"]
    except FluxError:
        return None  # whoever attaches will be told what is wrong
    system = (spec.get("attributes") or {}).get("system") or {}
    options = (system.get("shell") or {}).get("options") or {}
    pty = options.get("pty")
    return Terminal() if isinstance(pty, dict) and pty.get("interactive") else None


class Session:
    """A job, a terminal, and the traffic between them; ``run()`` returns the exit status.

    With ``terminal``, the job's program runs under ``flux-mpi pty``: once it has started, the
    terminal is in raw mode and stands for that one. It is given back however this ends.
    """

    def __init__(
        self,
        handle: Handle,
        job: int,
        *,
        label: bool = False,
        unbuffered: bool = False,
        show_events: bool = False,
        show_exec: bool = False,
        feed_stdin: bool = False,
        stdin_ranks: str | None = None,
        read_only: bool = False,
        until: str = "finish",
        writer: LineWriter | None = None,
        terminal: Terminal | None = None,
    ) -> None:
        self.handle = handle
        self.job = job
        self.text = Ids()(job)
        self.show_events = show_events
        self.show_exec = show_exec
        self.read_only = read_only
        self.stdin_ranks = stdin_ranks
        self.writer = writer or LineWriter(label, unbuffered or terminal is not None)
        self._terminal = terminal
        self._feed = feed_stdin and not read_only
        self._in_flight = 0
        self._interrupted = 0.0
        self._poll = select.poll()
        self._poll.register(handle.fileno(), select.POLLIN)
        self._polls_stdin = False
        self._detached = False
        # Events are printed, so they are read to the end when asked for.
        self.attachment = Attachment(
            handle,
            job,
            on_output=self.writer,
            on_event=self._event,
            on_problem=lambda text: self._say(f"flux-job: {self.text}: {text}"),
            exec_events=show_exec,
            until="clean" if show_events and until == "finish" else until,
        )

    def run(self) -> int:
        """Until the job has ended and all its output has been written."""
        wakeup, previous = self._catch_signals()
        try:
            while not self.attachment.done and not self._detached:
                self._choose_terminal()
                self._choose_stdin()
                for fd, events in self._poll.poll():
                    if fd == wakeup:
                        for signum in os.read(wakeup, 512):
                            self._signal(signum)
                    elif fd == 0 and self._polls_stdin and events:
                        self._read_stdin()
                    else:
                        self.handle.dispatch(0.0)
                        self.handle._check()
        finally:
            # Before signals may end this process again.
            if self._terminal is not None:
                self._terminal.leave()
            self._restore_signals(wakeup, previous)
        self.writer.flush()
        self.attachment.detach()
        return 0 if self._detached else self._report()

    def _report(self) -> int:
        attachment = self.attachment
        if attachment.error is not None:
            why = str(attachment.error).removeprefix(f"{self.text}: ")
            say(f"flux-job: Failed to attach to {self.text}: {why}")
            return 1
        if attachment.status:
            say(f"flux-job: task(s) {status_text(attachment.status)}")
        return attachment.exit_status

    def _say(self, text: str) -> None:
        # A raw terminal does not return to the first column by itself.
        say(text + "\r" if self._terminal is not None and self._terminal.raw else text)

    # -- events -----------------------------------------------------------------------------------

    def _event(self, log: str, event: dict[str, Any]) -> None:
        name = event["name"]
        context = event.get("context")
        elapsed = event["timestamp"] - self.attachment.t0
        if log == "job" and name == "exception" and context:
            note = context.get("note", "")
            self._say(
                f"{elapsed:.3f}s: job.exception {self.text} type={context.get('type')} "
                f"severity={context.get('severity')} {note}".rstrip()
            )
        elif (log == "job" and self.show_events) or (log == "exec" and self.show_exec):
            import json

            more = f" {json.dumps(context, separators=(',', ':'))}" if context else ""
            self._say(f"{elapsed:.3f}s: {log}.{name}{more}")

    # -- standard input ---------------------------------------------------------------------------

    def _choose_stdin(self) -> None:
        """Listens to standard input only while the job can take more."""
        wanted = (
            self._feed
            and self.attachment.started
            and bool(self.attachment.ranks)
            and self._in_flight < STDIN_WINDOW
        )
        if wanted == self._polls_stdin:
            return
        if wanted:
            try:
                self._poll.register(0, select.POLLIN)
            except OSError:
                self._feed = False
                return
        else:
            self._poll.unregister(0)
        self._polls_stdin = wanted

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, STDIN_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._feed = False
        if self._terminal is not None and self._terminal.raw:
            if data[:1] == self._terminal.DETACH:
                self._terminal.leave()
                self._detach()
                return
            data = self._terminal.encode(data)
        self._send_stdin(data)

    def _send_stdin(self, data: bytes) -> None:
        self._in_flight += self.attachment.write_stdin(
            data, eof=not data, tasks=self.stdin_ranks, callback=self._stdin_taken
        )

    def _stdin_taken(self, future: Future) -> None:
        self._in_flight -= 1
        try:
            future.get()
        except OSError:
            # The task does not read, or has ended: as a shell does, say nothing.
            return

    # -- a far terminal ---------------------------------------------------------------------------

    def _choose_terminal(self) -> None:
        """Hands the terminal over once somebody is there to take it."""
        attachment = self.attachment
        if (
            self._terminal is None
            or self._terminal.raw
            or not (self._feed and attachment.started and attachment.ranks)
            or attachment.left
        ):
            return
        self._terminal.enter()
        # They may have been given back while ctrl-C and ctrl-Z were ours.
        for signum in OF_TERMINALS:
            signal.signal(signum, _ignore)
        self._send_size()

    def _send_size(self) -> None:
        assert self._terminal is not None
        told = self._terminal.resized()
        if told:
            self._send_stdin(told)

    def _terminal_signal(self, signum: int) -> None:
        """One of OF_TERMINALS, of which only the first comes from the terminal while it is raw."""
        terminal = self._terminal
        assert terminal is not None
        if signum in (signal.SIGTSTP, signal.SIGQUIT):
            # Whoever looks at the terminal meanwhile, or afterwards, must find it as it was.
            raw = terminal.raw
            terminal.leave()
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            if raw:
                signal.signal(signum, _ignore)
                terminal.enter()
        elif signum == signal.SIGCONT and terminal.raw:
            terminal.enter()  # the shell may have changed it
        if terminal.raw:
            self._send_size()

    # -- signals ----------------------------------------------------------------------------------

    def _catch_signals(self) -> tuple[int, dict[int, Any]]:
        wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._write_end = write
        caught = [] if self.read_only else [signal.SIGINT, *FORWARDED]
        if self._terminal is not None:
            caught += OF_TERMINALS
        previous: dict[int, Any] = {
            int(signum): signal.signal(signum, _ignore)
            for signum in caught
            # What the parent had us ignore (nohup) stays so.
            if signal.getsignal(signum) is not signal.SIG_IGN
        }
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._poll.register(wakeup, select.POLLIN)
        return wakeup, previous

    def _restore_signals(self, wakeup: int, previous: dict[int, Any]) -> None:
        signal.set_wakeup_fd(-1)
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        os.close(wakeup)
        os.close(self._write_end)

    def _signal(self, signum: int) -> None:
        if self.read_only:
            return
        if signum == signal.SIGINT:
            now = time.monotonic()
            if now - self._interrupted > TWICE_S:
                self._interrupted = now
                self._say("flux-job: one more ctrl-C within 2s to cancel or ctrl-Z to detach")
                # While the question stands, ctrl-Z means detach and not stop.
                signal.signal(signal.SIGTSTP, _ignore)
                return
            self._say("flux-job: canceling job...")
            self.handle.rpc(
                "job-manager.raise",
                {
                    "ids": [[self.job, 1]],
                    "type": "cancel",
                    "severity": 0,
                    "note": "interrupted by ctrl-C",
                },
            )
        elif signum == signal.SIGTSTP and time.monotonic() - self._interrupted <= TWICE_S:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            self._detach()
        elif signum in OF_TERMINALS and self._terminal is not None:
            self._terminal_signal(signum)
        elif signum == signal.SIGTSTP:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
        elif signum in FORWARDED:
            self.handle.rpc("job-manager.kill", {"id": self.job, "signum": signum})

    def _detach(self) -> None:
        say("flux-job: detaching...")
        self._detached = True


def _ignore(signum: int, frame: object) -> None:
    """The wakeup descriptor tells the loop; the handler only keeps the default from happening."""
