"""Child instances: how fast they come and go, what they cost, and what work they take off one.

References in the same run: a bare C posix_spawn loop (for real jobs), one level of the same
instance (for mock jobs), and a supervisor with a broker started anew (for a child's start).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from _common import (
    BenchmarkError,
    Instance,
    Row,
    environment,
    main,
    memory_kib,
    milliseconds,
    program,
    rate,
    run,
    spawn_loop,
    timed,
)

import flux_mpi
from flux_mpi.client.batch import child_jobspec, wait_ready

MOCK = {"system.exec.test.run_duration": "0.001s"}


def submit(handle: flux_mpi.Handle, count: int, command: list[str], **shape: object) -> list[int]:
    """Submit ``count`` child instances; [first id, count]."""
    spec = child_jobspec(command, environment=environment(), cwd="/", **shape).to_dict()
    request = {"entries": [{"jobspec": spec, "count": count}]}
    first, number = handle.call("job-ingest.submit", request)["arrays"][0]
    return [first, number]


def wait(handle: flux_mpi.Handle, array: list[int]) -> None:
    """Wait until all have ended, and well."""
    left = array[1]
    for batch in handle.rpc("job-manager.wait-all", {"ids": [array]}, streaming=True):
        left -= len(batch["done"])
        bad = [each for each in batch["done"] if each[1]]
        if bad:
            raise BenchmarkError(f"a child ended with {bad[0]}")
    if left:
        raise BenchmarkError(f"{left} children have not ended")


def first_command(handle: flux_mpi.Handle, ranks: int, folder: Path, repeats: int) -> list[float]:
    """Seconds from the submit of a child of so many ranks until its program has spoken."""
    fifo = folder / "first"
    if not fifo.exists():
        os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    times = []
    try:
        for _ in range(repeats):
            began = time.perf_counter()
            shape = {"nodes": ranks, "exclusive": True} if ranks > 1 else {}
            array = submit(handle, 1, ["sh", "-c", f"echo >{fifo}"], **shape)
            os.read(reader, 1)
            times.append(time.perf_counter() - began)
            wait(handle, array)
    finally:
        os.close(reader)
    return times


def come_and_go(handle: flux_mpi.Handle, count: int) -> float:
    """One-rank children a second, from the submit until all are gone."""

    def once() -> None:
        wait(handle, submit(handle, count, ["/bin/true"]))

    return count / timed(once)


def anew() -> float:
    """Seconds to start an instance of one rank the other way: processes of its own."""
    return timed(lambda: run([program("flux-mpi"), "start", "/bin/true"]))


def extra_memory(handle: flux_mpi.Handle, rank: int, count: int) -> tuple[int, float]:
    """KiB of a broker for its first child, and for each further one."""
    pid = int(handle.attr_get("broker.pid", rank=rank))
    steps = [memory_kib(pid)]
    arrays = []
    for _ in range(1 + count):
        spec = child_jobspec([], environment={}, cwd="/").to_dict()
        spec["attributes"]["system"]["constraints"] = {"ranks": [str(rank)]}
        request = {"entries": [{"jobspec": spec}]}
        array = handle.call("job-ingest.submit", request)["arrays"][0]
        wait_ready(handle, array[0], 30)
        arrays.append(array)
        steps.append(memory_kib(pid))
    for array in arrays:
        handle.call(
            "job-manager.raise",
            {"ids": [array], "type": "cancel", "severity": 0, "note": "measured"},
        )
    return steps[1] - steps[0], (steps[-1] - steps[1]) / count


def ensemble(
    handle: flux_mpi.Handle, jobs: int, topology: str, *, mock: bool
) -> tuple[float, float]:
    """Jobs a second over a topology: with the children's start and end, and without."""
    result = flux_mpi.tree(
        ["/nowhere/none" if mock else "/bin/true"],
        jobs=jobs,
        topology=topology,
        handle=handle,
        attributes=MOCK if mock else None,
    )
    if result.failed or result.count != jobs:
        raise BenchmarkError(f"{result}: {result.failures[:1]}")
    starting = max((level.get("start") or 0.0 for level in result.levels), default=0.0)
    return result.rate, jobs / max(1e-9, result.wall_s - starting)


def starts(options: argparse.Namespace, folder: Path) -> list[Row]:
    rows = []
    with Instance(1) as _, flux_mpi.Handle() as handle:
        come_and_go(handle, 20)
        one = statistics.median(first_command(handle, 1, folder, options.repeats))
        sustained = come_and_go(handle, options.children)
    fresh = statistics.median(anew() for _ in range(3))
    beside = f"{milliseconds(fresh)} an instance of its own processes, start to end"
    rows.append(
        Row(
            "child on one rank: submit to first command",
            milliseconds(one),
            beside,
            "0.8–1.5 s",
            "≤ 40 ms",
            one <= 0.04,
        )
    )
    rows.append(
        Row(
            f"{options.children} one-rank children made and ended, one at a time",
            rate(sustained),
            f"{rate(1 / fresh)} instances of their own",
            "< 1/s",
            "≥ 50/s",
            sustained >= 50,
        )
    )
    with Instance(16, "--cores-per-rank=1") as _, flux_mpi.Handle() as handle:
        first_command(handle, 16, folder, 3)
        many = statistics.median(first_command(handle, 16, folder, options.repeats))
    rows.append(
        Row(
            "child on 16 ranks: submit to first command",
            milliseconds(many),
            beside,
            "~5 s",
            "≤ 150 ms",
            many <= 0.15,
        )
    )
    with Instance(2, "--cores-per-rank=16") as _, flux_mpi.Handle() as handle:
        base = memory_kib(int(handle.attr_get("broker.pid", rank=1)))
        first, further = extra_memory(handle, 1, 10)
    rows.append(
        Row(
            "extra memory for a child on a rank that has a broker",
            f"{further / 1024:.2f} MB; the first one, with the code of a root, {first / 1024:.1f}",
            f"{base / 1024:.0f} MB the broker",
            "~12 MB",
            "≤ 1 MB",
            further <= 1024,
        )
    )
    return rows


def levels(options: argparse.Namespace, folder: Path) -> list[Row]:
    rows = []
    with Instance(16, "--cores-per-rank=4") as _, flux_mpi.Handle() as handle:
        ensemble(handle, 1000, "1", mock=True)
        found: dict[str, list[tuple[float, float]]] = {"1": [], "4": [], "4x4": []}
        for _ in range(options.rounds):
            for topology, rates in found.items():
                rates.append(ensemble(handle, options.mock, topology, mock=True))
    one = statistics.median(r for r, _ in found["1"])
    for topology, words in (("4", "two levels, 4 children"), ("4x4", "three levels, 4x4")):
        whole = statistics.median(r for r, _ in found[topology])
        running = statistics.median(r for _, r in found[topology])
        rows.append(
            Row(
                f"{options.mock:,} mock jobs, 16 ranks of 4 cores, {words}",
                f"{rate(whole)} = {whole / one:.2f}× one level; once all are up {rate(running)}",
                f"{rate(one)} one level",
                "139 → 86/s",
                "never slower, ≥ 20,000/s",
                whole >= one and whole >= 20_000,
            )
        )
    with Instance(4, "--cores-per-rank=4") as _, flux_mpi.Handle() as handle:
        spawn_loop(100, 4, folder)
        ensemble(handle, 200, "4", mock=False)
        bare, single, four = [], [], []
        for _ in range(options.rounds):
            bare.append(spawn_loop(options.real, 4, folder))
            single.append(ensemble(handle, options.real, "1", mock=False)[0])
            four.append(ensemble(handle, options.real, "4", mock=False))
    limit = statistics.median(bare)
    share = statistics.median(r / b for (r, _), b in zip(four, bare, strict=True))
    flat = statistics.median(r / b for r, b in zip(single, bare, strict=True))
    rows.append(
        Row(
            f"{options.real:,} × /bin/true, 4 ranks, 4 children",
            f"{rate(statistics.median(r for r, _ in four))} = {share:.0%} of the C loop; "
            f"one level {flat:.0%}",
            f"{rate(limit)} bare C posix_spawn loop, 4 in flight",
            "36 → 30/s",
            "≥ 80 %",
            share >= 0.8,
        )
    )
    return rows


def measure(options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        return [*starts(options, folder), *levels(options, folder)]


if __name__ == "__main__":
    main(
        measure,
        __doc__,
        {
            "--repeats": 15,
            "--children": 200,
            "--mock": 200_000,
            "--real": 5_000,
            "--rounds": 3,
        },
    )
