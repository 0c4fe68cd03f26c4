"""The operating system as the spawner sees it: start, signal, read and look around.

The spawner's decisions live in ``spawner.py`` and are tested with a fake of this class. Loaded by
the supervisor: standard library only.
"""

from __future__ import annotations

import errno
import os
import signal
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEFAULT_PATH = b"/bin:/usr/bin"
"""Where ``execvp`` looks when the task's environment has no PATH."""

RESET_SIGNALS = [
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGTTOU,
    signal.SIGTTIN,
    signal.SIGTSTP,
    signal.SIGUSR1,
    signal.SIGUSR2,
]
"""What a task gets back in its default disposition: Python and the supervisor changed some."""

LATE_LIMITS = {"as": (b"v", 1024), "data": (b"d", 1024), "nofile": (b"n", 1)}
"""Limits that would hit the supervisor during the spawn, and the shell's options and units for
them: a shell sets them and becomes the task."""


class SpawnError(Exception):
    """A task could not be started: ``errnum`` says why, ``what`` names the culprit."""

    def __init__(self, errnum: int, what: str) -> None:
        super().__init__(f"{what}: {os.strerror(errnum)}")
        self.errnum = errnum
        self.what = what


def encode(text: str | bytes) -> bytes:
    """Bytes for the kernel, the same whatever the locale of the launcher was."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """The inverse of ``encode``."""
    return data.decode("utf-8", "surrogateescape")


class System:
    """Linux, for one single-threaded supervisor."""

    def __init__(self) -> None:
        try:
            self._home = os.getcwd()
        except FileNotFoundError:
            self._home = "/"
        self._cwd: bytes | None = None
        self._all_cpus = frozenset(os.sched_getaffinity(0))
        self._everywhere = tuple(sorted(self._all_cpus))
        self._cpus: tuple[int, ...] | None = None
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._found: dict[tuple[bytes, bytes], bytes] = {}
        self._raised_from: int | None = None
        self._own_limits: dict[str, int | None] = {}

    # -- starting -------------------------------------------------------------------------------

    def enter(self, cwd: bytes) -> None:
        """Make ``cwd`` the directory that the next task starts in (``posix_spawn`` has no other
        way to say it); b"" = the supervisor's own. Raises ``SpawnError``."""
        if not cwd:
            self._go_home()
        elif cwd != self._cwd:
            self._cwd = None
            try:
                os.chdir(cwd)
            except OSError as error:
                raise SpawnError(
                    error.errno or errno.EIO, f"working directory {decode(cwd)}"
                ) from error
            self._cwd = cwd

    def settle(self) -> None:
        """After a batch of spawns: be ourselves again, and hold on to no directory of a job."""
        self._go_home()
        if self._cpus is not None:
            self._cpus = None
            os.sched_setaffinity(0, self._all_cpus)

    def _go_home(self) -> None:
        if self._cwd is not None:
            self._cwd = None
            try:
                os.chdir(self._home)
            except OSError:
                os.chdir("/")

    def spawn(
        self,
        argv: list[bytes],
        env: Mapping[bytes, bytes],
        cpus: tuple[int, ...] | None,
        stdio: tuple[int, int, int],
        limits: Mapping[str, int] | None = None,
    ) -> int:
        """Start ``argv`` in the entered directory as the leader of a new process group.

        ``cpus`` are CPU numbers it may use, ``stdio`` descriptors of ours that become its 0, 1, 2.
        Returns its process id; raises ``SpawnError`` with the errno that ``execvp`` would give.
        """
        name = argv[0]
        path = name if b"/" in name else self._search(name, env.get(b"PATH", DEFAULT_PATH))
        if cpus == self._everywhere:
            cpus = None
        if cpus != self._cpus:
            self._bind(cpus)
        if limits:
            limits = self._differing(limits)
        if limits and not limits.keys().isdisjoint(LATE_LIMITS):
            path, argv = self._behind_a_shell(path, argv, limits)
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(stdio)]
        old = self._lower_limits(limits) if limits else None
        try:
            pid = self._spawn(path, argv, env, actions)
        except OSError as error:
            pid = self._spawn_other_way(error, path, argv, env, actions)
        except ValueError as error:  # an embedded NUL
            raise SpawnError(errno.EINVAL, decode(name)) from error
        finally:
            if old:
                self._restore_limits(old)
        if self._raised_from is not None and "nofile" not in (limits or {}):
            self._lower_again(pid, self._raised_from)
        return pid

    @staticmethod
    def _spawn(
        path: bytes,
        argv: list[bytes],
        env: Mapping[bytes, bytes],
        actions: Sequence[tuple[int, ...]],
    ) -> int:
        return os.posix_spawn(
            path,
            argv,
            env,
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=RESET_SIGNALS,
        )

    def _spawn_other_way(
        self,
        error: OSError,
        path: bytes,
        argv: list[bytes],
        env: Mapping[bytes, bytes],
        actions: Sequence[tuple[int, ...]],
    ) -> int:
        """What ``execvp`` does next: look again, or hand a script without ``#!`` to the shell."""
        name = argv[0]
        try:
            if error.errno == errno.ENOEXEC:
                return self._spawn(b"/bin/sh", [b"/bin/sh", path, *argv[1:]], env, actions)
            if error.errno == errno.ENOENT and b"/" not in name:
                search = env.get(b"PATH", DEFAULT_PATH)
                self._found.pop((search, name), None)  # it has moved since we found it
                again = self._search(name, search)
                if again != path:
                    return self._spawn(again, argv, env, actions)
        except OSError as second:
            error = second
        what = decode(name)
        if error.errno == errno.ENOENT and os.path.exists(path):
            what = f"{what}: interpreter{_interpreter(path)}"
        raise SpawnError(error.errno or errno.EIO, what) from error

    def _search(self, name: bytes, search: bytes) -> bytes:
        """The file that PATH leads to. Raises ``SpawnError`` ENOENT, or EACCES if that is all."""
        found = self._found.get((search, name))
        if found is not None:
            return found
        errnum = errno.ENOENT
        absolute = True
        for folder in search.split(b":") if name else ():
            if not folder.startswith(b"/"):
                absolute = False  # it depends on where the task starts: do not remember it
            path = os.path.join(folder, name)
            try:
                if not stat.S_ISREG(os.stat(path).st_mode):
                    continue
            except OSError as error:
                if error.errno == errno.EACCES:
                    errnum = errno.EACCES
                continue
            if os.access(path, os.X_OK):
                if absolute:
                    if len(self._found) > 4096:
                        self._found.clear()
                    self._found[search, name] = path
                return path
            errnum = errno.EACCES
        raise SpawnError(errnum, decode(name))

    def _bind(self, cpus: tuple[int, ...] | None) -> None:
        """A task inherits what we are bound to, from its very first instruction."""
        try:
            os.sched_setaffinity(0, self._all_cpus if cpus is None else cpus)
        except OSError as error:
            listed = ",".join(map(str, cpus or ()))
            raise SpawnError(error.errno or errno.EINVAL, f"binding to CPUs {listed}") from error
        self._cpus = cpus

    # -- resource limits ------------------------------------------------------------------------

    def _differing(self, limits: Mapping[str, int]) -> dict[str, int]:
        """Those of ``limits`` that a task would not inherit anyway."""
        import resource

        own = self._own_limits
        for name in limits:
            if name not in own:
                which = getattr(resource, f"RLIMIT_{name.upper()}", None)
                own[name] = None if which is None else resource.getrlimit(which)[0]
        if self._raised_from is not None:
            own["nofile"] = self._raised_from
        return {name: value for name, value in limits.items() if value != own[name]}

    @staticmethod
    def _lower_limits(limits: Mapping[str, int]) -> list[tuple[int, tuple[int, int]]]:
        """Set soft limits on ourselves for the task to inherit; returns what to restore."""
        import resource

        old: list[tuple[int, tuple[int, int]]] = []
        for name, value in limits.items():
            which = getattr(resource, f"RLIMIT_{name.upper()}", None)
            if which is None or name in LATE_LIMITS:
                continue
            soft, hard = resource.getrlimit(which)
            if hard != resource.RLIM_INFINITY and (value < 0 or value > hard):
                value = hard
            if value != soft:
                old.append((which, (soft, hard)))
                resource.setrlimit(which, (value, hard))
        return old

    @staticmethod
    def _restore_limits(old: list[tuple[int, tuple[int, int]]]) -> None:
        import resource

        for which, pair in old:
            resource.setrlimit(which, pair)

    @staticmethod
    def _behind_a_shell(
        path: bytes, argv: list[bytes], limits: Mapping[str, int]
    ) -> tuple[bytes, list[bytes]]:
        """The command that sets ``LATE_LIMITS`` and then becomes ``argv``. Raises SpawnError."""
        if not os.access(path, os.X_OK):
            # The shell would say so with a message of its own.
            errnum = errno.EACCES if os.path.exists(path) else errno.ENOENT
            raise SpawnError(errnum, decode(argv[0]))
        script = b""
        for name, (option, unit) in LATE_LIMITS.items():
            if name in limits:
                value = b"unlimited" if limits[name] < 0 else b"%d" % (limits[name] // unit)
                script += b"ulimit -S -%s %s; " % (option, value)
        return b"/bin/sh", [b"sh", b"-c", script + b'exec "$@"', b"sh", path, *argv[1:]]

    @staticmethod
    def _lower_again(pid: int, soft: int) -> None:
        """We raised our limit of open files for ourselves only; the task gets what it was.

        Just after the spawn: lowered before it, the descriptors we hold would make it fail.
        """
        import resource

        try:
            hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError):
            return  # it has ended already

    # -- descriptors ----------------------------------------------------------------------------

    @property
    def null(self) -> int:
        """A descriptor of /dev/null, for reading and writing."""
        return self._null

    @staticmethod
    def open(path: bytes, flags: int) -> int:
        """Open a task's file, relative to the entered directory. Raises ``SpawnError``.

        Without O_NONBLOCK a FIFO that nobody has opened yet would stop the whole supervisor.
        """
        try:
            fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise SpawnError(error.errno or errno.EIO, decode(path)) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.set_blocking(fd, True)
        return fd

    def pipe(self, keep: int) -> tuple[int, int]:
        """(read end, write end); end number ``keep`` is ours and does not block.

        Raises ``SpawnError``, but not before the limit of open files has been raised.
        """
        try:
            ends = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EMFILE and self._raise_descriptor_limit():
                return self.pipe(keep)
            raise SpawnError(error.errno or errno.EMFILE, "pipe") from error
        os.set_blocking(ends[keep], False)
        return ends

    def _raise_descriptor_limit(self) -> bool:
        """Use the hard limit of open files ourselves; tasks go on getting the soft one."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self._raised_from is not None or soft == hard:
            return False
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._raised_from = soft
        return True

    @staticmethod
    def close(fd: int) -> None:
        os.close(fd)

    @staticmethod
    def read(fd: int, most: int) -> bytes | None:
        """Up to ``most`` bytes; b"" at the end of file, None when there is nothing now."""
        try:
            return os.read(fd, most)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    @staticmethod
    def write(fd: int, data: bytes | memoryview) -> int | None:
        """How many bytes were taken; None when nobody reads any more."""
        try:
            return os.write(fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            return None

    # -- processes ------------------------------------------------------------------------------

    @staticmethod
    def kill_group(pgid: int, signum: int) -> bool:
        """Signal a process group (0 = only ask); False when it has no member."""
        try:
            os.killpg(pgid, signum)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # it is there, but changed its user
        return True

    @staticmethod
    def kill(pid: int, signum: int) -> None:
        """Signal one process; it may be gone or not be ours to signal."""
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            return

    @staticmethod
    def children() -> list[int]:
        """Process ids of our children, adopted ones included."""
        me = os.getpid()
        try:
            with open(f"/proc/self/task/{me}/children", "rb") as file:
                return [int(word) for word in file.read().split()]
        except OSError:
            return _children_by_stat(me)

    @staticmethod
    def group_of(pid: int) -> int:
        """A process's group, or 0 when it is gone."""
        try:
            return os.getpgid(pid)
        except ProcessLookupError:
            return 0

    @staticmethod
    def variable(pid: int, name: bytes) -> bytes | None:
        """A variable of the environment that a process was started with, if we may see it."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read()
        except OSError:
            return None
        key = name + b"="
        for entry in environ.split(b"\0"):
            if entry.startswith(key):
                return entry[len(key) :]
        return None

    # -- the terminal ---------------------------------------------------------------------------

    @staticmethod
    def give_terminal(pgid: int) -> bool:
        """Put a group in the terminal's foreground; False when stdin is no terminal of ours."""
        try:
            if not os.isatty(0):
                return False
            os.tcsetpgrp(0, pgid)
        except OSError:
            return False
        System.kill_group(pgid, signal.SIGCONT)  # it may have stopped for want of the terminal
        return True

    @staticmethod
    def take_terminal() -> None:
        """Be the foreground group again."""
        try:
            os.tcsetpgrp(0, os.getpgrp())
        except OSError:
            return


def _interpreter(path: bytes) -> str:
    """ " NAME" of the interpreter that a script asks for, or nothing."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return ""
    words = line[2:].split()
    return f" {decode(words[0])}" if line.startswith(b"#!") and words else ""


def _children_by_stat(parent: int) -> list[int]:
    """For kernels without CONFIG_PROC_CHILDREN."""
    found = []
    for name in _numeric(os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(name))
    return found


def _numeric(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if name.isdigit())
