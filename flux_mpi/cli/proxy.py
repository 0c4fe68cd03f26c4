"""``flux-mpi proxy``: run a command, or a shell, that talks to another instance."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

from flux_mpi import __version__
from flux_mpi.cli.common import say
from flux_mpi.cli.options import Arguments, Command, UsageError, flag
from flux_mpi.client.handle import Handle
from flux_mpi.client.target import TIMEOUT_S, TargetError, resolve
from flux_mpi.client.uri import SCHEME, socket_path
from flux_mpi.message.errors import FluxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux_mpi.client.handle import Future

PROG = "flux-proxy"
RETRY_S = 2.0
"""How long between two attempts to connect again."""
OF_THE_JOB = (
    "FLUX_JOB_ID",
    "FLUX_JOB_ID_PATH",
    "FLUX_JOB_SIZE",
    "FLUX_JOB_NNODES",
    "FLUX_JOB_TMPDIR",
    "FLUX_TASK_RANK",
    "FLUX_TASK_LOCAL_ID",
    "FLUX_KVS_NAMESPACE",
    "FLUX_ENCLOSING_ID",
    "FLUX_PARENT_URI",
    "FLUX_PROXY_REMOTE",
)
"""What is true of this process in its own instance, and not of the command in the other one."""
PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


def run(args: Arguments) -> int:
    target, command = args.operands[0], args.operands[1:]
    try:
        path = socket_path(resolve(target))
    except TargetError as error:
        raise UsageError(f"{PROG}: ERROR: {error}", 1) from None
    uri = SCHEME + (f"@{path[1:]}" if path.startswith("\0") else path)
    handle = Handle(uri)
    try:
        _check_version(handle, args.force)
        environ = {name: text for name, text in os.environ.items() if name not in OF_THE_JOB}
        environ["FLUX_URI"] = uri
        enclosing = handle.attr_list().get("jobid")
        if enclosing:
            environ["FLUX_ENCLOSING_ID"] = enclosing
        command = command or [os.environ.get("SHELL") or "/bin/sh"]
        return _Proxy(handle, uri, args).run(command, environ)
    finally:
        handle.close()


def _check_version(handle: Handle, force: bool) -> None:
    theirs = handle.call("broker.info", {}, timeout=TIMEOUT_S)["version"]
    if theirs == __version__:
        return
    text = f"the instance is of flux-mpi {theirs}, and this is {__version__}"
    if not force:
        raise UsageError(f"{PROG}: ERROR: {text} (--force to go on)", 1)
    say(f"{PROG}: WARNING: {text}")


def _bond(handle: Handle) -> Future:
    """A stream of events that nobody publishes: it ends when the connection does."""
    return handle.rpc("event.subscribe", {"topic": "proxy.none"}, streaming=True)


class _Proxy:
    """A command that runs, and the connection that tells whether its instance still does."""

    def __init__(self, handle: Handle, uri: str, args: Arguments) -> None:
        self._handle: Handle | None = handle
        self._bond = _bond(handle)
        self._uri = uri
        self._args = args
        self._retry: float | None = None

    def run(self, command: list[str], environ: dict[str, str]) -> int:
        """The exit status of ``command``, as a shell reports it."""
        wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A terminal sends Ctrl-C to us too: it is for the command.
        caught = (*PASSED_ON, signal.SIGCHLD, signal.SIGINT, signal.SIGQUIT)
        previous = {number: signal.signal(number, lambda *_: None) for number in caught}
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            sys.stdout.flush()
            try:
                child = subprocess.Popen(command, env=environ)
            except OSError as error:
                say(f"{PROG}: {command[0]}: {error.strerror}")
                return 127 if isinstance(error, FileNotFoundError) else 126
            return self._wait(child, wakeup)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(wakeup)
            os.close(write)

    def _wait(self, child: subprocess.Popen[bytes], wakeup: int) -> int:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        assert self._handle is not None
        poll.register(self._handle.fileno(), select.POLLIN)
        while child.poll() is None:
            left = None if self._retry is None else max(0.0, self._retry - time.monotonic()) * 1000
            for fd, _ in poll.poll(left):
                if fd != wakeup:
                    self._listen(fd, poll, child)
                    continue
                for signum in os.read(wakeup, 4096):
                    if signum in PASSED_ON and child.poll() is None:
                        child.send_signal(signum)
            if self._retry is not None and time.monotonic() >= self._retry:
                self._reconnect(poll)
        code = child.returncode
        return 128 - code if code < 0 else code

    def _listen(self, fd: int, poll: select.poll, child: subprocess.Popen[bytes]) -> None:
        """The connection has something to say: most likely that this is its end."""
        assert self._handle is not None
        self._handle.dispatch(0)
        if not self._bond.done():
            return
        try:
            for _ in self._bond:
                continue
            why = f"{self._uri} has ended"
        except FluxError as error:
            why = str(error)
        poll.unregister(fd)
        self._handle.close()
        self._handle = None
        say(f"{PROG}: {why}")
        if self._args.reconnect:
            self._retry = time.monotonic() + RETRY_S
        elif not self._args.nohup:
            say(f"{PROG}: Sending SIGHUP to child processes")
            child.send_signal(signal.SIGHUP)
            child.send_signal(signal.SIGCONT)

    def _reconnect(self, poll: select.poll) -> None:
        self._retry = None
        try:
            self._handle = Handle(self._uri)
            self._bond = _bond(self._handle)
        except FluxError:
            self._retry = time.monotonic() + RETRY_S
            return
        poll.register(self._handle.fileno(), select.POLLIN)
        say(f"{PROG}: reconnected to {self._uri}")


COMMAND = Command(
    "proxy",
    "Run a command, or a shell, that talks to another instance.",
    (
        flag("-f", "--force", help="Go on with an instance of another version of flux-mpi."),
        flag("-n", "--nohup", help="Send no SIGHUP to the command when the instance has ended."),
        flag("--reconnect", help="When the connection is lost, try again every 2 s instead."),
    ),
    operands="TARGET [COMMAND...]",
    minimum=1,
    posix=True,
    description="""
    TARGET is what 'flux-mpi uri' takes: a job that is an instance, a path of job ids, a URI.
    COMMAND (default: $SHELL) gets its address in FLUX_URI; this command ends with its exit status.
    Instances on other hosts are refused: run 'ssh HOST flux-mpi proxy local://PATH ...' for them.
    """,
    examples=(
        ("flux-mpi proxy ƒ1234 flux-mpi submit hostname", "Submit into a child instance."),
        ("flux-mpi proxy ƒ1234/ƒ567", "A shell in an instance two levels down."),
        ("flux-mpi proxy / flux-mpi pstree", "The whole hierarchy, seen from a job."),
    ),
    run=run,
)
