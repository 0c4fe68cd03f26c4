"""``flux-mpi pty``: a pseudo-terminal on the node where a program runs, for somebody elsewhere.

``flux-mpi alloc`` wraps an interactive program in it. The program becomes the leader of a session
of its own on the terminal made here; what comes on standard input is typed there, window sizes
among it (``formats/ptystream.py``), and what the terminal shows goes to standard output. Signals
are passed on, and when the program ends, so does this process, in the same way. Should it be
killed, the kernel hangs the terminal up.

Runs on compute nodes, once a session: standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time

from flux_mpi.formats.ptystream import Decoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = "usage: flux-mpi pty [--size=COLUMNSxROWS] [--hangup] COMMAND [ARGS...]"
EXIT_USAGE, EXIT_CANNOT_RUN, EXIT_NOT_FOUND = 2, 126, 127

CHUNK = 4096
"""Bytes moved at a time: a pipe that can be written to takes as many without blocking."""
TYPED_MOST, SHOWN_MOST = 1 << 16, 1 << 18
"""Bytes held at most for a program, or a reader, that takes none."""

PASSED_ON = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGINT,
    signal.SIGQUIT,
)
FOREGROUND_ONLY = (signal.SIGINT, signal.SIGQUIT)
"""As when typed: a shell that waits for a command does not end with it."""
HANGUP_S = 0.5
"""How long a shell may take to end after SIGHUP before its terminal is taken away."""


def main(words: Sequence[str]) -> int:
    """Run ``flux-mpi pty WORDS``; the exit status. Ends by the signal that ended the program."""
    columns = rows = 0
    hangup = False
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word == "--hangup":
            hangup = True
            continue
        width, x, height = word.removeprefix("--size=").partition("x")
        if not (word.startswith("--size=") and x and _is_size(width) and _is_size(height)):
            sys.stderr.write(f"flux-mpi pty: invalid option {word!r}\n{USAGE}\n")
            return EXIT_USAGE
        columns, rows = int(width), int(height)
    if not rest:
        sys.stderr.write(f"flux-mpi pty: the command is missing\n{USAGE}\n")
        return EXIT_USAGE
    try:
        status = host(rest, columns, rows, hangup=hangup)
    except OSError as error:
        sys.stderr.write(f"flux-mpi pty: cannot make a terminal: {error.strerror}\n")
        return EXIT_CANNOT_RUN
    return _end_like(status)


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= 0xFFFF


def _end_like(status: int) -> int:
    """End by the signal of a wait status, or return its exit status."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    import resource

    signum = os.WTERMSIG(status)
    # The program has left its core already.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if signum != signal.SIGKILL:
        signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    return 128 + signum


def host(
    argv: list[str],
    columns: int = 0,
    rows: int = 0,
    stdin: int = 0,
    stdout: int = 1,
    *,
    hangup: bool = False,
) -> int:
    """Run ``argv`` on a new terminal until it ends; its wait status.

    With ``hangup`` it is an interactive shell, which ignores SIGTERM: it gets SIGHUP instead, and
    soon afterwards it has no terminal any more.
    Handles signals meanwhile, so it must be called in the main thread. Raises OSError when there
    is no terminal or process to be had.
    """
    master, slave = os.openpty()
    resize(master, columns, rows)
    child = os.fork()
    if child == 0:
        _become(argv, slave)
    return _Host(child, master, slave, stdin, stdout, hangup).run()


def resize(fd: int, columns: int, rows: int) -> None:
    """Tell a terminal how large its window is; who is in its foreground gets SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _become(argv: list[str], slave: int) -> None:
    """In the child: lead a session on the terminal, and run. Does not return."""
    try:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        # What Python ignores, the program shall not.
        for signum in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, os.fsencode(f"flux-mpi pty: {argv[0]}: {error.strerror}\n"))
        os._exit(EXIT_NOT_FOUND if error.errno == errno.ENOENT else EXIT_CANNOT_RUN)
    except ValueError as error:  # an empty name, a NUL
        os.write(2, os.fsencode(f"flux-mpi pty: {argv[0]!r}: {error}\n"))
    os._exit(EXIT_CANNOT_RUN)


class _Host:
    """The traffic between a terminal and two pipes.

    Nothing here blocks but ``poll``: a program that does not read must not keep its output back,
    nor a slow reader of it an interrupt that was typed.
    """

    def __init__(
        self, child: int, master: int, slave: int, stdin: int, stdout: int, hangup: bool
    ) -> None:
        self.child = child
        self.master = master
        # Kept open: a program may close its terminal and open it again.
        self.slave = slave
        self.stdin = stdin
        self.stdout = stdout
        self._typed = bytearray()
        self._shown = bytearray()
        self._last_typed = b""
        self._decoder = Decoder()
        self._hangup = hangup
        self._hangup_at: float | None = None
        self._input_open = True
        self._reader_gone = False
        os.set_blocking(master, False)

    def run(self) -> int:
        """Until the program has ended and all that it has shown is written; its wait status."""
        wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        previous = {signum: signal.signal(signum, _wake) for signum in (signal.SIGCHLD, *PASSED_ON)}
        try:
            status = self._turn(wakeup)
            self._drain()
        finally:
            signal.set_wakeup_fd(-1)
            for signum, handler in previous.items():
                signal.signal(signum, handler)
            for fd in (wakeup, write, self.slave, self.master):
                if fd >= 0:
                    os.close(fd)
        return status

    def _turn(self, wakeup: int) -> int:
        while True:
            # First, as it may have ended before we could hear of it.
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                return status
            for fd, events in self._poll(wakeup):
                if fd == wakeup:
                    for signum in os.read(wakeup, 512):
                        self._signal(signum)
                elif fd == self.stdout:
                    if events & (select.POLLERR | select.POLLNVAL):
                        self._lose_reader()
                    else:
                        self._write_shown()
                elif self.master < 0:
                    break  # it was closed just now
                elif fd == self.stdin:
                    self._read_typed()
                else:
                    if events & select.POLLOUT:
                        self._write_typed()
                    if events & (select.POLLIN | select.POLLERR | select.POLLHUP):
                        self._read_shown()
            if self._hangup_at is not None and time.monotonic() >= self._hangup_at:
                self._close_terminal()

    def _poll(self, wakeup: int) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        if self.master >= 0:
            terminal = 0 if len(self._shown) >= SHOWN_MOST else select.POLLIN
            poll.register(self.master, terminal | (select.POLLOUT if self._typed else 0))
            if self._input_open and len(self._typed) < TYPED_MOST:
                poll.register(self.stdin, select.POLLIN)
        if not self._reader_gone:
            # Without output, to hear when nobody reads it any more.
            poll.register(self.stdout, select.POLLOUT if self._shown else 0)
        if self._hangup_at is None:
            return poll.poll()
        return poll.poll(max(0.0, self._hangup_at - time.monotonic()) * 1000 + 1)

    # -- towards the program ----------------------------------------------------------------------

    def _read_typed(self) -> None:
        try:
            data = os.read(self.stdin, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._input_open = False
            self._end_input()
        for item in self._decoder.feed(data):
            if isinstance(item, bytes):
                self._typed += item
                self._last_typed = item[-1:]
            else:
                resize(self.master, *item)
        if self._typed:
            self._write_typed()

    def _end_input(self) -> None:
        """As a person does: the end-of-file character, twice where a line has been begun."""
        end = termios.tcgetattr(self.slave)[6][termios.VEOF]
        self._typed += end if self._last_typed in (b"", b"\n", b"\r", end) else end * 2
        if self._typed:
            self._write_typed()

    def _write_typed(self) -> None:
        try:
            del self._typed[: os.write(self.master, self._typed[:CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            self._typed.clear()  # it has just ended

    # -- from the program -------------------------------------------------------------------------

    def _read_shown(self) -> bool:
        """Reads what is there; False when there is nothing (more)."""
        try:
            data = os.read(self.master, CHUNK)
        except OSError:  # EAGAIN; EIO once nobody has the terminal open
            return False
        self._shown += data
        return bool(data)

    def _write_shown(self) -> None:
        try:
            del self._shown[: os.write(self.stdout, self._shown[:CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            self._lose_reader()

    def _lose_reader(self) -> None:
        """Nobody sees the terminal any more: the program hears so, and what runs in front."""
        # The kernel tells the leader of the session only.
        self._signal(signal.SIGHUP)
        self._reader_gone = True
        self._shown.clear()
        self._close_terminal()

    def _close_terminal(self) -> None:
        """Hang up. Who still uses the terminal reads its end, and cannot write. Idempotent."""
        self._hangup_at = None
        self._typed.clear()
        if self.master < 0:
            return
        if not self._reader_gone:
            while len(self._shown) < SHOWN_MOST and self._read_shown():
                pass
        os.close(self.slave)
        os.close(self.master)
        self.slave = self.master = -1

    def _drain(self) -> None:
        """The program has ended: write what is left, wherever it still is."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1
        while not self._reader_gone:
            more = self.master >= 0 and self._read_shown()
            while self._shown:
                poll = select.poll()
                poll.register(self.stdout, select.POLLOUT)
                poll.poll()
                self._write_shown()
            if not more:
                return

    # -- signals ----------------------------------------------------------------------------------

    def _signal(self, signum: int) -> None:
        if signum not in PASSED_ON:
            return
        try:
            foreground = os.tcgetpgrp(self.master) if self.master >= 0 else 0
        except OSError:
            foreground = 0
        targets = {self.child: signum}
        if self._hangup and signum in (signal.SIGTERM, signal.SIGHUP):
            # Not both to the shell: one of two signals at once may get lost in its line editing,
            # as now and then does the only one.
            targets[self.child] = signal.SIGHUP
            if self._hangup_at is None:
                self._hangup_at = time.monotonic() + HANGUP_S
        if foreground > 1 and foreground != self.child:
            if signum in FOREGROUND_ONLY:
                targets.clear()
            targets[foreground] = signum
        for group, what in targets.items():
            try:
                os.killpg(group, what)
            except (ProcessLookupError, PermissionError):
                continue  # it has just ended, or become somebody else's


def _wake(signum: int, frame: object) -> None:
    """The wakeup descriptor tells the loop; the handler only keeps the default from happening."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
