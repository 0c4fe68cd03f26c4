"""Real instances for the end-to-end tests, and the promise that nothing of them stays behind.

``flux`` is an instance of four ranks shared by the session; ``start`` makes throw-away ones.
Everything that is started carries a token in its environment, so that what an instance leaves
behind can be told from what others run on this machine. Every wait has a bound.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.client.handle import Handle

BIN = Path(sys.executable).parent
TOKEN = "FLUX_MPI_TEST_TOKEN"
START_S = 60.0
"""A busy machine may take this long to start an instance."""
COMMAND_S = 60.0
END_S = 45.0
FOREIGN = re.compile(r"^(FLUX_|PMI_|PMIX_|OMPI_|PRTE_|HYDRA?_|MPI|SLURM_)")


@functools.cache
def program(name: str) -> str:
    """The path of an installed program; the test's own Python comes first."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is neither beside {sys.executable} nor on PATH"
    return found


@functools.cache
def open_mpi() -> bool:
    """Whether the MPI under test is Open MPI."""
    text = subprocess.run(
        [program("mpiexec"), "--version"], capture_output=True, text=True, timeout=COMMAND_S
    ).stdout
    return "open" in text.lower()


def clean_environ(token: str, tmp: Path | str) -> dict[str, str]:
    """This process's environment, without traces of any instance or launcher around it."""
    env = {k: v for k, v in os.environ.items() if not FOREIGN.match(k)}
    env.update(
        {
            "PATH": f"{BIN}{os.pathsep}{env['PATH']}",
            "TMPDIR": str(tmp),
            "LC_ALL": "C.UTF-8",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
            TOKEN: token,
        }
    )
    return env


def processes(token: str) -> list[int]:
    """Processes that were started with ``token``, or by one that was; zombies do not count."""
    mark = f"{TOKEN}={token}".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(int(pid))
    return found


def describe(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        return f"{pid}: {words.decode(errors='replace').strip()[:160]}"
    return f"{pid}: gone"


def shared_memory(pid: int) -> set[str]:
    """The files in /dev/shm that a process has mapped."""
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text()
        return set(re.findall(r"(/dev/shm/\S+)$", maps, re.MULTILINE))
    return set()


def until(condition: Callable[[], Any], what: str, limit_s: float = START_S) -> Any:
    """What ``condition`` returns once it is true. Fails after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {limit_s:g} s: {what}")
        time.sleep(0.01)


class Instance:
    """A running instance and the ways to talk to it."""

    def __init__(
        self, folder: Path, command: Sequence[str], env: dict[str, str], size: int, token: str
    ) -> None:
        self.folder = folder
        self.size = size
        self.token = token
        self.tmp = Path(env["TMPDIR"])
        self.shm: set[str] = set()
        self.stderr_path = folder / "instance.err"
        self.stdout_path = folder / "instance.out"
        # Not its standard input: not every mpiexec forwards the end of that.
        os.mkfifo(folder / "hold")
        self._hold: int | None = os.open(folder / "hold", os.O_RDWR | os.O_CLOEXEC)
        with self.stderr_path.open("wb") as err, self.stdout_path.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                env=env,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.uri = ""
        self.env = dict(env)
        self._handle: Handle | None = None

    # -- coming up ------------------------------------------------------------------------------

    def wait_for_uri(self) -> None:
        path = self.folder / "uri"

        def found() -> str:
            if self.process.poll() is not None:
                pytest.fail(f"the instance ended with {self.process.returncode}: {self.stderr}")
            return path.read_text().strip() if path.exists() else ""

        self.uri = until(found, "the instance is up")
        self.env = {**self.env, "FLUX_URI": self.uri}

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    @property
    def stdout(self) -> str:
        return self.stdout_path.read_text(errors="replace")

    # -- talking to it --------------------------------------------------------------------------

    def __call__(
        self,
        *words: str,
        status: int | None = 0,
        stdin: str | bytes | None = None,
        env: dict[str, str | None] | None = None,
        cwd: Path | None = None,
        limit_s: float = COMMAND_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``flux-mpi WORDS``; its exit status must be ``status`` (None: any)."""
        return self.execute(
            [program("flux-mpi"), *words],
            status=status, stdin=stdin, env=env, cwd=cwd, limit_s=limit_s,
        )  # fmt: skip

    def execute(
        self,
        command: Sequence[str],
        *,
        status: int | None = 0,
        stdin: str | bytes | None = None,
        env: dict[str, str | None] | None = None,
        cwd: Path | None = None,
        limit_s: float = COMMAND_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run any command as a user of this instance would."""
        changed = {**self.env, **(env or {})}
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            command,
            env={k: v for k, v in changed.items() if v is not None},
            cwd=cwd or self.folder,
            input=b"" if data is None else data,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
        text = subprocess.CompletedProcess(
            done.args,
            done.returncode,
            done.stdout.decode(errors="surrogateescape"),
            done.stderr.decode(errors="surrogateescape"),
        )
        if status is not None:
            assert text.returncode == status, (
                f"{command}: {text.returncode}\n{text.stdout}\n{text.stderr}"
            )
        return text

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """``flux-mpi WORDS`` in the background; ended with the test's instance at the latest."""
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        return subprocess.Popen(
            [program("flux-mpi"), *words],
            env={**self.env, **options.pop("env", {})},
            cwd=self.folder,
            text=True,
            start_new_session=True,
            **options,
        )

    def out(self, *words: str, **options: Any) -> str:
        """The standard output of ``flux-mpi WORDS``, stripped."""
        return self(*words, **options).stdout.strip()

    def python(self, source: str, *words: str, **options: Any) -> str:
        """The output of a Python program that talks to this instance."""
        return self.execute([sys.executable, "-c", source, *words], **options).stdout

    @property
    def handle(self) -> Handle:
        if self._handle is None:
            self._handle = Handle(self.uri)
        return self._handle

    def uri_of(self, rank: int) -> str:
        return self.handle.attr_get("local-uri", rank=rank)

    def broker_pid(self, rank: int) -> int:
        return int(self.handle.attr_get("broker.pid", rank=rank))

    def alive(self) -> bool:
        """Whether every broker still answers."""
        return all(
            self.handle.call("broker.ping", {"seq": n}, rank=n, timeout=COMMAND_S)["rank"] == n
            for n in range(self.size)
        )

    def states(self) -> dict[str, int]:
        states: dict[str, int] = self.handle.call("job-manager.stats")["job_states"]
        return states

    def idle(self) -> bool:
        states = self.states()
        return states["total"] == states["inactive"]

    def settle(self) -> None:
        """Put everything back that a test may have changed, and wait until no job is active."""
        call = self.handle.call
        call("job-manager.queue-enable", {"enable": True})
        call("job-manager.queue-start", {"start": True})
        drained = call("resource.status")["drained"]
        for ranks in drained:
            call("resource.undrain", {"targets": ranks})
        if not self.idle():
            everything = {"states": 62, "type": "cancel", "severity": 0, "note": "test ended"}
            call("job-manager.raise-all", everything)
            until(self.idle, "all jobs are inactive")

    # -- going down -----------------------------------------------------------------------------

    def note_shared_memory(self) -> None:
        for pid in processes(self.token):
            self.shm |= shared_memory(pid)

    def close_handle(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def interrupt(self, signum: int = signal.SIGINT) -> None:
        """As a terminal does: the signal goes to the whole foreground process group."""
        os.killpg(self.process.pid, signum)

    def wait(self, limit_s: float = END_S) -> int:
        """The exit status, once it has ended."""
        self.close_handle()
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            left = "\n".join(map(describe, processes(self.token)))
            pytest.fail(f"still running after {limit_s:g} s:\n{left}\n{self.stderr}")

    def let_go(self) -> None:
        """Let the initial program end."""
        self.close_handle()
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None

    def stop(self) -> int:
        """End the initial program, and so the instance; returns its exit status."""
        self.note_shared_memory()
        self.let_go()
        return self.wait()

    def leftovers(self) -> list[str]:
        """What is still there: processes, files in /dev/shm, run directories."""
        found = [describe(pid) for pid in processes(self.token)]
        found += [path for path in self.shm if os.path.exists(path)]
        if self.tmp.is_dir():
            found += [str(path) for path in self.tmp.glob("flux-mpi-*")]
        return found

    def assert_nothing_left(self) -> None:
        # Processes that were just killed need a moment to disappear from /proc.
        deadline = time.monotonic() + 10
        while self.leftovers() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.leftovers() == []

    def kill(self) -> None:
        """Whatever happened: nothing of ours may outlive the test."""
        self.let_go()
        deadline = time.monotonic() + 10
        while (pids := processes(self.token)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for path in self.shm:
            with contextlib.suppress(OSError):
                os.unlink(path)


KEEP_ALIVE = (
    "sh",
    "-c",
    'exec 3< hold; echo $$ > pid; echo "$FLUX_URI" > uri.new; mv uri.new uri; exec cat <&3',
)
"""An initial program that tells its instance's URI and ends when nobody holds it any more."""


def launch(
    folder: Path,
    *options: str,
    size: int = 4,
    command: Sequence[str] = KEEP_ALIVE,
    env: dict[str, str] | None = None,
    limits: str = "",
    wait: bool = True,
) -> Instance:
    """Start an instance under mpiexec (``size`` 0: one broker without it).

    ``limits`` is a line for the shell that starts it, such as ``ulimit -n 100``.
    """
    token = uuid.uuid4().hex
    tmp = Path(tempfile.mkdtemp(prefix="fx", dir="/tmp"))  # short: it holds sockets
    # Open MPI's ends all ranks when one has died, unless it is told not to.
    options_of_mpiexec = ["--continuous"] if size and open_mpi() else []
    launcher = [program("mpiexec"), *options_of_mpiexec, "-n", str(size)] if size else []
    words = [*launcher, program("flux-mpi"), "start", *options, *command]
    if limits:
        words = ["/bin/sh", "-c", f'{limits}; exec "$@"', "sh", *words]
    instance = Instance(
        folder, words, {**clean_environ(token, tmp), **(env or {})}, size or 1, token
    )
    if wait:
        try:
            instance.wait_for_uri()
        except BaseException:
            instance.kill()
            shutil.rmtree(tmp, ignore_errors=True)
            raise
    return instance


@pytest.fixture(scope="session")
def shared_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    instance = launch(tmp_path_factory.mktemp("shared"), "--cores-per-rank=4")
    try:
        yield instance
        assert instance.stop() == 0, instance.stderr
        instance.assert_nothing_left()
    finally:
        instance.kill()
        shutil.rmtree(instance.tmp, ignore_errors=True)


@pytest.fixture
def flux(shared_instance: Instance, tmp_path: Path) -> Iterator[Instance]:
    """Four ranks of four (emulated) cores, idle and as started; commands run in ``tmp_path``."""
    home = shared_instance.folder
    shared_instance.folder = tmp_path
    try:
        yield shared_instance
    finally:
        shared_instance.folder = home
    shared_instance.settle()
    assert shared_instance.process.poll() is None, shared_instance.stderr
    assert shared_instance.alive()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Instance]]:
    """``start(*options, size=4, command=..., env=..., wait=True)``: an instance of one's own."""
    started: list[Instance] = []

    def start(*options: str, **keywords: Any) -> Instance:
        folder = tmp_path / f"instance{len(started)}"
        folder.mkdir()
        instance = launch(folder, *options, **keywords)
        started.append(instance)
        return instance

    try:
        yield start
        for instance in started:
            if instance.process.poll() is None:
                instance.stop()
            instance.assert_nothing_left()
    finally:
        for instance in started:
            instance.kill()
            shutil.rmtree(instance.tmp, ignore_errors=True)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run a command outside any instance: ``outside(*words, status=0, env=..., stdin=...)``."""
    token = uuid.uuid4().hex
    tmp = Path(tempfile.mkdtemp(prefix="fx", dir="/tmp"))
    base = clean_environ(token, tmp)

    def run(
        *words: str,
        status: int | None = 0,
        env: dict[str, str] | None = None,
        stdin: str = "",
        limit_s: float = START_S,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program(words[0]), *words[1:]] if "/" not in words[0] else list(words),
            env={**base, **(env or {})},
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        if status is not None:
            assert done.returncode == status, f"{words}: {done.returncode}\n{done}"
        return done

    try:
        yield run
        deadline = time.monotonic() + 10
        while processes(token) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [describe(pid) for pid in processes(token)] == []
        assert list(tmp.glob("flux-mpi-*")) == []
    finally:
        for pid in processes(token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(tmp, ignore_errors=True)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """``wait_until(condition, what, limit_s=60)``: what it returns once it is true."""
    return until


@pytest.fixture(scope="session")
def on_open_mpi() -> bool:
    return open_mpi()
