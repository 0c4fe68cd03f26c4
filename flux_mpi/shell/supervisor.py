"""The process that a launcher starts on each rank: it starts the broker, and tasks for it.

A supervisor is small, single-threaded and outlives its broker, so that a killed broker takes down
neither the MPI job nor the accounting for the tasks of its node. It decides nothing by itself: it
carries out the broker's commands (``spawner.py``) and reports, until the broker has ended and no
task is left. Then it removes the broker's run directory if the broker could not, and answers the
launcher in its place (``standin.py``).

Standard library only, and as little of it as possible before the broker is started: its import
time is part of an instance's start-up, its memory part of every rank's.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import time

from flux_mpi.shell import rundir
from flux_mpi.shell.spawner import GRACE_S, Spawner
from flux_mpi.shell.standin import ACK_BOUND_S, StandIn
from flux_mpi.shell.system import System
from flux_mpi.shell.wire import RECEIVE, SUPERVISOR_FD_VAR, Unpacker, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SPAWNS_A_TURN = 8
"""Tasks started before looking at signals, output and commands again."""
BROKER_BOUND_S = 20.0
"""How long a broker may take to end after its launcher is gone, before it is killed."""
SETTLE_S = 1.0
"""How long after starting the broker a supervisor without tasks sees to the kernel's help."""
END_BOUND_S = 5.0
"""How long killed processes may take to disappear before the supervisor leaves without them."""
SAME_SIGNAL_S = 0.2
"""A launcher and a terminal may both deliver one Ctrl-C: a repetition this soon is the same one."""

_LAUNCHER_LOST = signal.SIGRTMIN + 5
_LAUNCHER_VARS = ("PMI_FD", "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
_INSISTENT = (signal.SIGINT, signal.SIGTERM)

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def supervise(
    broker_argv: list[str],
    env: Mapping[str, str],
    *,
    on_exit: Callable[[int], None] | None = None,
) -> int:
    """Run a broker and whatever it asks for; returns the exit code for the launcher.

    ``broker_argv`` and ``env`` start the broker, which finds the number of its end of the socket
    pair in ``FLUX_MPI_SUPERVISOR_FD``. The result is the broker's exit code, 128 + n if signal n
    killed it or made us give up; 0 for a killed one whose instance lived on and ended without it.
    ``on_exit`` is called with the broker's exit code as soon as it
    has ended. Raises ``OSError`` if the broker cannot be started.
    """
    return Supervisor(env, on_exit).run(broker_argv)


class Supervisor:
    """The loop around one broker and one ``Spawner``."""

    def __init__(
        self, env: Mapping[str, str], on_exit: Callable[[int], None] | None = None
    ) -> None:
        self._env = dict(env)
        self._on_exit = on_exit
        self._epoll = select.epoll()
        self._system = System()
        self._clock = time.monotonic
        self.spawner = Spawner(self._system, self._watch, self._unwatch, self._clock, time.time)
        self._broker_pid = 0
        self._broker_code: int | None = None
        self._broker_killed = False
        self._link: socket.socket | None = None
        self._unpacker = Unpacker()
        self._outgoing = bytearray()
        self._link_writing = False
        self._run_directory: str | None = None
        self._stand_in: StandIn | None = None
        self._stand_in_wanted = False
        self._heard: dict[int, float] = {}
        self._broker_due: float | None = None
        self._ack_due: float | None = None
        self._settle_due: float | None = None
        self._leave_due: float | None = None  # 0 = it has passed: leave even if tasks do not
        self._wake = -1
        self._child_ended = False
        self._given_up = 0
        self._parent = os.getppid()

    # -- life -----------------------------------------------------------------------------------

    def run(self, broker_argv: list[str]) -> int:
        """Start the broker and turn until it and its tasks are gone; returns the exit code."""
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        old_wakeup = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        old_handlers = {}
        for signum in (*_FORWARDED, signal.SIGCHLD, _LAUNCHER_LOST):
            old_handlers[signum] = signal.signal(signum, _noticed)
        for signum in (signal.SIGTTOU, signal.SIGTTIN, signal.SIGPIPE):
            old_handlers[signum] = signal.signal(signum, signal.SIG_IGN)
        try:
            self._start_broker(broker_argv)
            self._settle_due = self._clock() + SETTLE_S
            _keep_to_ourselves()
            self._epoll.register(wake_read, select.EPOLLIN)
            self._wake = wake_read
            while self._turn():
                pass
            self._end()
        finally:
            signal.set_wakeup_fd(old_wakeup)
            for signum, handler in old_handlers.items():
                signal.signal(signum, handler)
            self._epoll.close()
            os.close(wake_read)
            os.close(wake_write)
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._given_up:
            return 128 + self._given_up
        env = self._env
        answered = self._stand_in is not None and self._stand_in.acknowledged
        if self._broker_killed and (
            (answered and env.get("PMI_RANK", "0") != "0")
            # Open MPI's launcher sees by itself that a rank did not finalize.
            or env.get("OMPI_COMM_WORLD_RANK", "0") != "0"
        ):
            # The instance goes on without this rank, or has ended. How, its rank 0 says: launchers
            # merge the codes of all ranks, and 128 + 9 from here would spoil that one.
            return 0
        return self._broker_code if self._broker_code is not None else 1

    def _start_broker(self, argv: list[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        ours.setblocking(False)
        theirs.setblocking(False)
        os.set_inheritable(theirs.fileno(), True)
        env = dict(self._env)
        env[SUPERVISOR_FD_VAR] = str(theirs.fileno())
        # Its own group: a terminal's Ctrl-C comes to us alone, and a launcher that kills our group
        # leaves a broker that can end the tasks when it sees that we are gone.
        self._broker_pid = os.posix_spawnp(
            argv[0],
            argv,
            env,
            setpgroup=0,
            setsigmask=(),
            setsigdef=(*_FORWARDED, signal.SIGCHLD, signal.SIGTTOU, signal.SIGTTIN),
        )
        self.spawner.spare.add(self._broker_pid)
        theirs.close()
        self._link = ours
        self._epoll.register(ours.fileno(), select.EPOLLIN)

    def _turn(self) -> bool:
        """One turn of the loop; False when everything is over."""
        spawner = self.spawner
        if self._broker_pid == 0 and self._tasks_over() and self._launcher_satisfied():
            return False
        spawner.before_wait()
        if spawner.reports and not spawner.pending and spawner.hurried:
            self._send()
        for fd, events in self._epoll.poll(self._timeout()):
            if fd == self._wake:
                self._signals()
            elif self._link is not None and fd == self._link.fileno():
                if events & select.EPOLLOUT:
                    self._send()
                if events & ~select.EPOLLOUT:
                    self._receive()
            elif self._stand_in is not None and fd == self._stand_in.fileno():
                self._stand_in_speaks()
            else:
                spawner.ready(fd)
        if self._child_ended:
            self._reap()
        spawner.pump(SPAWNS_A_TURN)  # after the ends: what follows them starts in the same turn
        self._on_time()
        return True

    def _settle_in(self) -> None:
        """Have the kernel give us orphaned descendants and tell us of our launcher's end.

        Not before the first task or a quiet moment: it takes ``ctypes``, and with it 10 ms that the
        brokers of a starting instance need more.
        """
        self._settle_due = None
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if any(name in self._env for name in _LAUNCHER_VARS):
            _prctl(_PR_SET_PDEATHSIG, _LAUNCHER_LOST)
            if os.getppid() != self._parent:
                self._launcher_lost()

    def _tasks_over(self) -> bool:
        return self.spawner.idle or (self._leave_due == 0.0)

    def _launcher_satisfied(self) -> bool:
        return self._stand_in is None or self._stand_in.over or self._given_up > 0

    def _timeout(self) -> float:
        """How long to wait, seconds; -1 = until something happens."""
        if self.spawner.pending:
            return 0.0
        due = self.spawner.deadline()
        for other in (self._broker_due, self._ack_due, self._leave_due, self._settle_due):
            if other and (due is None or other < due):
                due = other
        return -1.0 if due is None else max(0.0, due - self._clock())

    def _on_time(self) -> None:
        self.spawner.tick()
        now = self._clock()
        if self._broker_due is not None and now >= self._broker_due:
            self._broker_due = None
            self._kill_broker()
        if self._settle_due is not None and now >= self._settle_due:
            self._settle_in()
        if self._leave_due and now >= self._leave_due:
            self._leave_due = 0.0
        if self._ack_due is not None and now >= self._ack_due:
            self._ack_due = None
            if self._stand_in is not None:
                self._stand_in.over = True

    def _end(self) -> None:
        """Leave nothing behind: no process, no run directory, no unanswered launcher."""
        bound = self._clock() + END_BOUND_S
        while self.spawner.kill_everything() and self._clock() < bound:
            self._epoll.poll(0.01)  # until the children that we killed have become waitable
            _drain(self._wake)
            self._reap()
        if self._stand_in is not None:
            self._stand_in.close()
        if self._link is not None:
            self._link.close()
            self._link = None

    # -- the broker -----------------------------------------------------------------------------

    def _receive(self) -> None:
        """Read commands; each goes to the spawner, a few are for the supervisor itself."""
        assert self._link is not None
        try:
            data = self._link.recv(RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        try:
            for entry in self._unpacker.feed(data):
                if entry[0] == "rundir":
                    self._run_directory = entry[1]
                elif entry[0] == "stand-in":
                    self._stand_in_wanted = True
                else:
                    if self._settle_due is not None:
                        self._settle_in()
                    self.spawner.command(entry)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            # A broker that talks nonsense is not to be trusted with processes.
            sys.stderr.write(f"flux-mpi supervisor: the broker sent nonsense: {error}\n")
            self._kill_broker()

    def _send(self) -> None:
        """Send the reports of this turn as one frame, and what could not be sent before."""
        spawner = self.spawner
        if self._link is None:
            spawner.take_reports()
            return
        if spawner.reports:
            self._outgoing += pack(spawner.take_reports())
        try:
            while self._outgoing:
                sent = self._link.send(self._outgoing)
                del self._outgoing[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._hang_up()
            return
        if bool(self._outgoing) != self._link_writing:
            self._link_writing = bool(self._outgoing)
            mask = select.EPOLLIN | (select.EPOLLOUT if self._link_writing else 0)
            self._epoll.modify(self._link.fileno(), mask)

    def _hang_up(self) -> None:
        """The broker's end is closed: it has ended, or is about to."""
        if self._link is None:
            return
        self._epoll.unregister(self._link.fileno())
        self._link.close()
        self._link = None
        self._outgoing.clear()
        self.spawner.shutdown(GRACE_S)
        if self._broker_pid and self._broker_due is None:
            self._broker_due = self._clock() + BROKER_BOUND_S

    def _kill_broker(self) -> None:
        if self._broker_pid:
            self._system.kill_group(self._broker_pid, signal.SIGKILL)
            self._system.kill(self._broker_pid, signal.SIGKILL)

    def _broker_ended(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._broker_killed = by_signal = code < 0
        self._broker_code = 128 - code if by_signal else code
        self.spawner.spare.discard(self._broker_pid)
        self._broker_pid = 0
        self._broker_due = None
        self._leave_due = self._clock() + GRACE_S + END_BOUND_S
        if self._link is not None:
            self._receive_rest()
            self._hang_up()
        if self._run_directory is not None:
            rundir.remove(self._run_directory)
        if (by_signal or self._stand_in_wanted) and not self._given_up:
            self._stand_in = StandIn.from_environment(self._env)
            if self._stand_in is not None and not self._stand_in.over:
                self._epoll.register(self._stand_in.fileno(), select.EPOLLIN)
        if self._on_exit is not None:
            self._on_exit(self._broker_code)

    def _receive_rest(self) -> None:
        """A broker may have died right after its last commands, such as "rundir"."""
        while self._link is not None:
            readable, _, _ = select.select([self._link], [], [], 0)
            if not readable:
                return
            self._receive()

    # -- signals and children -------------------------------------------------------------------

    def _signals(self) -> None:
        """Signals that arrived since the last turn, from the wakeup descriptor."""
        for signum in _drain(self._wake):
            if signum == signal.SIGCHLD:
                self._child_ended = True
            elif signum == _LAUNCHER_LOST:
                if os.getppid() != self._parent:
                    self._launcher_lost()
            elif signum in _FORWARDED:
                self._signalled(signum)

    def _signalled(self, signum: int) -> None:
        """The first one goes to the broker, which knows how to end; the second one is final."""
        now = self._clock()
        last = max((self._heard.get(other, -1.0) for other in _INSISTENT), default=-1.0)
        repeated = signum in _INSISTENT and last >= 0.0
        if repeated and now - last < SAME_SIGNAL_S:
            return
        self._heard[signum] = now
        if repeated or self._broker_pid == 0:
            self._give_up(signum)
        else:
            self.spawner.reports.append(["signal", int(signum)])

    def _give_up(self, signum: int) -> None:
        self._given_up = int(signum)
        self._kill_broker()
        self.spawner.shutdown(0.0)

    def _launcher_lost(self) -> None:
        """Nobody waits for us any more: an orderly end, within a bound."""
        if self._stand_in is not None:
            self._stand_in.over = True
        if self._broker_pid:
            self.spawner.reports.append(["signal", int(signal.SIGTERM)])
            if self._broker_due is None:
                self._broker_due = self._clock() + BROKER_BOUND_S

    def _reap(self) -> None:
        self._child_ended = False
        spawner = self.spawner
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._broker_pid:
                self._broker_ended(status)
            else:
                spawner.reaped(pid, status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss)

    def _stand_in_speaks(self) -> None:
        stand_in = self._stand_in
        assert stand_in is not None
        stand_in.readable()
        if stand_in.over:
            self._epoll.unregister(stand_in.fileno())
            self._ack_due = None
        elif stand_in.finalizing and self._ack_due is None:
            self._ack_due = self._clock() + ACK_BOUND_S

    # -- descriptors ----------------------------------------------------------------------------

    def _watch(self, fd: int, writing: bool) -> None:
        try:
            self._epoll.register(fd, select.EPOLLOUT if writing else select.EPOLLIN)
        except PermissionError:
            return  # a regular file, always ready: never the case for our pipes

    def _unwatch(self, fd: int) -> None:
        self._epoll.unregister(fd)


def _noticed(signum: int, frame: object) -> None:
    """Python must have a handler for the wakeup descriptor to be written; that is all."""


def _drain(fd: int) -> bytes:
    """The signal numbers on the wakeup descriptor."""
    seen = b""
    while True:
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return seen
        seen += data
        if len(data) < 4096:
            return seen


def _prctl(option: int, value: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        if code != errno.EINVAL:  # a kernel or sandbox without it: we do what we can
            raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def _keep_to_ourselves() -> None:
    """Descriptors that the launcher left open are for the broker, not for the tasks."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                continue  # the one that listed the directory
