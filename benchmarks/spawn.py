"""How fast supervisors alone start, reap and report tasks, beside what this machine can do at all.

In turns: a bare C ``posix_spawn`` loop over /bin/true (a Python loop where there is no C compiler),
and as many /bin/true through 1, 2 and 4 supervisors, each task with captured output, an
environment, a working directory and CPU binding of its own. The broker of each supervisor is a
stand-in that does nothing but keep its share of the tasks in flight.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import BenchmarkError, Row, cpu_seconds, main, program, rate, run, spawn_loop

PYTHON_LOOP = """
import os, sys, time
left, most = int(sys.argv[1]), int(sys.argv[2])
total, running, start = left, 0, time.perf_counter()
while left or running:
    if left and running < most:
        os.posix_spawn("/bin/true", ["/bin/true"], os.environ)
        left, running = left - 1, running + 1
    else:
        os.wait()
        running -= 1
print(total / (time.perf_counter() - start))
"""

BROKER = """
import os, socket, sys
from flux_mpi.shell import wire
tasks, most, cpus = int(sys.argv[1]), int(sys.argv[2]), tuple(os.sched_getaffinity(0))
line = socket.socket(fileno=int(os.environ[wire.SUPERVISOR_FD_VAR]))
line.setblocking(True)
unpacker, commands, number = wire.Unpacker(), [["env", 1, dict(os.environb)]], 0

def work(tasks):
    global number
    begun = ended = 0
    while ended < tasks:
        while begun < tasks and begun - ended < most:
            begun, number = begun + 1, number + 1
            job = b"f%d" % number
            delta = {b"FLUX_JOB_ID": job, b"FLUX_JOB_ID_PATH": b"/" + job}
            where = [b"/tmp", cpus, "null", "pipe", "pipe"]
            commands.append(["spawn", number, [b"true"], 1, delta, *where])
        if commands:
            line.sendall(wire.pack(commands))
            commands.clear()
        for report in unpacker.feed(line.recv(1 << 16)):
            if report[0] == "exited":
                ended += 1
            elif report[0] == "failed":
                sys.exit(f"a task could not be started: {report}")

work(10)
print("ready", flush=True)
sys.stdin.readline()
work(tasks)
print("done", flush=True)
sys.stdin.readline()
"""

SUPERVISOR = """
import os, sys
from flux_mpi.shell.supervisor import supervise
sys.exit(supervise([sys.executable, *sys.argv[1:]], os.environ))
"""


def bare_loop(tasks: int, in_flight: int, folder: Path) -> float:
    """Tasks a second of the machine's own limit: a C loop, or Python's without a C compiler."""
    try:
        program("cc")
    except BenchmarkError:
        return float(run([sys.executable, "-c", PYTHON_LOOP, str(tasks), str(in_flight)]))
    return spawn_loop(tasks, in_flight, folder)


def supervisors(count: int, tasks: int, in_flight: int, folder: Path) -> tuple[float, float]:
    """(tasks a second in all, CPU microseconds of a supervisor for each)."""
    broker = folder / "broker.py"
    broker.write_text(BROKER)
    each = max(1, in_flight // count)
    share = tasks // count
    command = [sys.executable, "-c", SUPERVISOR, str(broker), str(share), str(each)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for process in processes:
            _expect(process, "ready")
        pids = [process.pid for process in processes]
        cpu_s = cpu_seconds(pids)
        began = time.perf_counter()
        for process in processes:
            _tell(process)
        for process in processes:
            _expect(process, "done")
        elapsed = time.perf_counter() - began
        cpu_s = cpu_seconds(pids) - cpu_s
        for process in processes:
            _tell(process)
            process.wait(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return share * count / elapsed, cpu_s / (share * count) * 1e6


def _expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    found = process.stdout.readline().strip()
    if found != word:
        raise BenchmarkError(f"a supervisor's broker said {found!r} instead of {word!r}")


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def measure(options: argparse.Namespace) -> list[Row]:
    tasks, in_flight = options.tasks, options.in_flight
    rows = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        bare_loop(100, in_flight, folder)  # built, and the program is in the page cache
        for count in (1, 2, 4):
            bare, ours, cpu_us = [], [], []
            for _ in range(options.repeats):
                bare.append(bare_loop(tasks, in_flight, folder))
                per_s, used_us = supervisors(count, tasks, in_flight, folder)
                ours.append(per_s)
                cpu_us.append(used_us)
            share = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
            rows.append(
                Row(
                    f"{tasks:,} × /bin/true, {count} supervisor{'s' if count > 1 else ''} alone",
                    f"{rate(statistics.median(ours))} = {share:.0%} of the bare loop; "
                    f"{statistics.median(cpu_us):.0f} µs CPU a task",
                    f"{rate(statistics.median(bare))} bare loop, {in_flight} in flight",
                    "",
                    "≥ 70 % of the bare loop",
                    share >= 0.7,
                )
            )
    return rows


if __name__ == "__main__":
    main(measure, __doc__, {"--tasks": 1000, "--in-flight": 4, "--repeats": 3})
