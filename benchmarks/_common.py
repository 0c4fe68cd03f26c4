"""What the benchmarks share: an instance to measure, references to measure beside it, and rows.

A benchmark is a file with ``measure(options) -> list[Row]``, given to ``main()``. Each row is an
answer of this run, a reference timed in the same run, and what Flux 0.88 (built from source) took
on the same kind of machine, two cores; absolute figures of a shared machine vary, ratios less so.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
"""Where this interpreter's scripts are: flux-mpi and, with the MPI wheels, mpiexec."""

START_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0


@dataclass(frozen=True)
class Row:
    """One line of the table: texts to show, and whether the target was met (None: no target)."""

    question: str
    ours: str
    reference: str
    flux: str = ""
    target: str = ""
    met: bool | None = None


class BenchmarkError(RuntimeError):
    """The measurement could not be made; the text says what happened."""


def program(name: str) -> str:
    """The full path of a command beside this interpreter or on PATH."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise BenchmarkError(f"{name} is neither in {BIN} nor on PATH")
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without an instance around it, and what Open MPI insists on."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("FLUX_")}
    env["PATH"] = f"{BIN}{os.pathsep}{env.get('PATH', '')}"
    for name, value in {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }.items():
        env.setdefault(name, value)
    env.update(extra or {})
    return env


class Instance:
    """``with Instance(4, "--cores-per-rank=1") as instance``: N brokers, up and reachable.

    Inside the block ``FLUX_URI`` is set, so that ``flux_mpi.Handle()`` finds it.
    """

    def __init__(self, ranks: int, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.ranks = ranks
        self._options = options
        self._env = environment(env)
        self.uri = ""
        self.pid = 0
        self._outer_uri: str | None = None

    def __enter__(self) -> Instance:
        self._folder = tempfile.mkdtemp(prefix="flux-mpi-bench-")
        ready, self._stop = f"{self._folder}/ready", f"{self._folder}/stop"
        os.mkfifo(ready)
        os.mkfifo(self._stop)
        script = 'printf "%s\\n" "$FLUX_URI" >"$1"; read -r _ <"$2"; exit 0'
        command = [
            *(program("mpiexec"), "-n", str(self.ranks)),
            *(program("flux-mpi"), "start", *self._options),
            *("/bin/sh", "-c", script, "sh", ready, self._stop),
        ]
        listening = os.open(ready, os.O_RDONLY | os.O_NONBLOCK)
        self._process = subprocess.Popen(
            command, env=self._env, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.pid = self._process.pid
        try:
            self.uri = self._read_uri(listening)
        except BaseException:
            self._end()
            raise
        finally:
            os.close(listening)
        self._outer_uri = os.environ.get("FLUX_URI")
        os.environ["FLUX_URI"] = self.uri
        return self

    def _read_uri(self, listening: int) -> str:
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        deadline = time.monotonic() + START_LIMIT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if poll.poll(200):
                text = os.read(listening, 4096).decode().strip()
                if text:
                    return text
        status = self._process.poll()
        how = f"ended with {status}" if status is not None else f"was not up in {START_LIMIT_S} s"
        raise BenchmarkError(f"an instance of {self.ranks} brokers {how}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._outer_uri is None:
            os.environ.pop("FLUX_URI", None)
        else:
            os.environ["FLUX_URI"] = self._outer_uri
        self._end()

    def _end(self) -> None:
        try:
            if self._process.poll() is None and self.uri:
                # Without a reader (the initial program has died) opening fails instead of waiting.
                try:
                    os.close(os.open(self._stop, os.O_WRONLY | os.O_NONBLOCK))
                except OSError:
                    self._process.send_signal(signal.SIGTERM)
            self._process.wait(STOP_LIMIT_S if self.uri else 1.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self.uri:
                print(f"an instance of {self.ranks} had to be killed", file=sys.stderr)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


def run(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, limit_s: float = 120.0
) -> str:
    """Run a command to its end; its stdout. Raises BenchmarkError with its last words."""
    try:
        done = subprocess.run(
            command,
            env=dict(env) if env is not None else environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{' '.join(command)}: not finished in {limit_s:g} s") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise BenchmarkError(f"{' '.join(command)}: exit {done.returncode}: {''.join(words)}")
    return done.stdout


def spawn_loop(count: int, in_flight: int, folder: Path) -> float:
    """/bin/true a second of a bare C posix_spawn loop, built in ``folder`` when first called."""
    binary = folder / "spawn_loop"
    if not binary.exists():
        run([program("cc"), "-O2", "-o", str(binary), str(HERE / "spawn_loop.c")])
    return float(run([str(binary), str(count), str(in_flight), "/bin/true"]))


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action()`` took."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def median_of(repeats: int, action: Callable[[], object]) -> float:
    """Median seconds of ``repeats`` calls."""
    return statistics.median(timed(action) for _ in range(repeats))


def process_tree(pid: int) -> list[int]:
    """``pid`` and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue  # it has ended meanwhile
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry))
    tree, queue = [], [pid]
    while queue:
        one = queue.pop()
        tree.append(one)
        queue += children.get(one, [])
    return tree


def cpu_seconds(pids: Iterable[int]) -> float:
    """Seconds that the threads of these processes have run, to the nanosecond.

    Clock ticks would not do: an idle broker wakes for a few microseconds.
    """
    spent_ns = 0
    for pid in pids:
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                spent_ns += int((thread / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it has ended meanwhile
    return spent_ns * 1e-9


def memory_kib(pid: int, kind: str = "Pss") -> int:
    """Memory of a process from smaps_rollup: ``Pss`` shares what several map, ``Rss`` does not."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1])
    raise BenchmarkError(f"process {pid} has no {kind}")


def rate(per_second: float) -> str:
    return f"{per_second:,.0f}/s"


def milliseconds(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.3f} ms" if ms < 1 else f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    heads = ("question", "flux-mpi", "reference, same run", "Flux 0.88", "target", "")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        mark = "" if row.met is None else "met" if row.met else "**missed**"
        cells = (row.question, row.ours, row.reference, row.flux, row.target, mark)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    measure: Callable[[argparse.Namespace], list[Row]],
    description: str,
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Read options (``{"--name": default}``), measure, print; exits 1 when that was not possible.

    A missed target is printed and no error: it depends on what else the machine does.
    """
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    for name, default in (arguments or {}).items():
        parser.add_argument(name, type=type(default), default=default, help=f"default: {default}")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    try:
        rows = measure(options)
    except (BenchmarkError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print(table(rows))
