#!/usr/bin/env python3
"""What a job costs rank 0: the job manager alone, under a simulated clock.

Prints jobs/s and µs a job for mock execution and for dispatch to ranks (reports made up, nothing
sent), the time to take in an array, the bytes that a waiting member occupies, and the time to place
one job on a large machine with the match kernel interpreted and compiled.

    python benchmarks/manager.py [--jobs N] [--ranks N] [--cores N] [--match [NODES …]] [--profile]
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec, Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.job.ingest import Ingest
from flux_mpi.job.manager import Manager
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.tiered import Tier


def make(ranks: int, cores: int) -> Manager:
    scheduler = BitmapScheduler()
    scheduler.update(
        RSet.parse(
            {
                "version": 1,
                "execution": {
                    "R_lite": [{"rank": f"0-{ranks - 1}", "children": {"core": f"0-{cores - 1}"}}],
                    "nodelist": [f"node[0-{ranks - 1}]"],
                },
            }
        )
    )
    return Manager(scheduler, epoch=0.0)


def entry(count: int, mock: float | None) -> dict[str, object]:
    attributes = {"system.exec.test.run_duration": mock} if mock is not None else {}
    spec = Jobspec.from_command(["true"], cwd="/", environment={}, attributes=attributes)
    return {"entries": [{"jobspec": spec.to_dict(), "count": count}]}


def submit(manager: Manager, count: int, mock: float | None, now: float) -> None:
    entries, urgency, flags = Ingest().parse(entry(count, mock))
    manager.submit(entries, now, urgency=urgency, flags=flags)


def run_mock(ranks: int, cores: int, count: int, mock: float) -> float:
    """Seconds to run ``count`` mock jobs to the end."""
    manager = make(ranks, cores)
    now = 1.0
    begin = time.perf_counter()
    submit(manager, count, mock, now)
    while True:
        manager.turn(now)
        manager.take()
        deadline = manager.next_deadline()
        if deadline is None:
            break
        now = max(now, deadline)
    elapsed = time.perf_counter() - begin
    assert manager.counts.active == 0
    assert len(manager.store.ledger.inactive) == count
    return elapsed


def run_dispatch(ranks: int, cores: int, count: int, batch: int) -> float:
    """Seconds for ``count`` jobs with tasks, the ranks' reports coming ``batch`` at a time."""
    manager = make(ranks, cores)
    now = 1.0
    begin = time.perf_counter()
    submit(manager, count, None, now)
    pending: list[int] = []
    while manager.counts.active:
        manager.turn(now)
        actions = manager.take()
        for start in actions.starts.values():
            pending += [job[0] for job in start.jobs]
            pending += [job[0] for _, job in start.leases]
        now += 0.001
        events: list[list[object]] = []
        if actions.recalls:
            asked = {jobid for ids in actions.recalls.values() for jobid in ids}
            events += [[jobid, "returned", now, 0] for jobid in pending if jobid in asked]
            pending = [jobid for jobid in pending if jobid not in asked]
        for jobid in pending[:batch]:
            events.append([jobid, "start", now, 0, [1]])
            events.append([jobid, "exit", now, 0, [[0, 1, 0]]])
        del pending[:batch]
        manager.report(events, now)
    return time.perf_counter() - begin


def match(nodes: int, policy: str) -> list[tuple[str, float]]:
    """(request, seconds) to place one job, on a machine of 48 cores and 8 GPUs a node, half of
    whose cores are taken."""
    scheduler = BitmapScheduler(Tier(policy))
    scheduler.update(
        RSet(
            dict.fromkeys(range(nodes), IDSet(range(48))),
            dict.fromkeys(range(nodes), IDSet(range(8))),
            {rank: f"node{rank}" for rank in range(nodes)},
        )
    )
    scheduler.alloc(Shape(0, 1, 0, 1, 0, False, 1), 24 * nodes, 0.0)
    scheduler.tier.wait(120)
    results = []
    for text, shape in (
        ("1 core", Shape(0, 1, 0, 1, 0, False, 1)),
        ("1 node", Shape(1, 1, 1, 1, 0, True, 1)),
        ("64 nodes", Shape(64, 64, 1, 1, 0, True, 64)),
        ("1,000 slots of 2 cores, 1 GPU", Shape(0, 1000, 0, 2, 1, False, 1000)),
    ):
        scheduler.free(scheduler.alloc(shape, 1, 0.0))
        best = float("inf")
        for _ in range(5):
            begin = time.perf_counter()
            placements = scheduler.alloc(shape, 1, 0.0)
            best = min(best, time.perf_counter() - begin)
            scheduler.free(placements)
        results.append((text, best))
    return results


def waiting_bytes(count: int) -> float:
    """Bytes a waiting member occupies."""
    manager = make(4, 4)
    manager.start(False)
    submit(manager, 1, None, 1.0)
    tracemalloc.start()
    submit(manager, count, None, 1.0)
    manager.turn(1.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--cores", type=int, default=16, help="of each rank (default 16)")
    parser.add_argument(
        "--match", type=int, nargs="*", default=[1024, 16384], help="nodes of machines to match on"
    )
    parser.add_argument("--profile", action="store_true", help="profile the mock run")
    args = parser.parse_args()
    if args.profile:
        import cProfile
        import pstats

        profile = cProfile.Profile()
        profile.runcall(run_dispatch, args.ranks, args.cores, args.jobs, 4)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    for cores in sorted({4, args.cores, 64}):
        for count in (args.jobs, 10 * args.jobs):
            seconds = min(run_mock(args.ranks, cores, count, 0.001) for _ in range(3))
            print(
                f"mock      {args.ranks} × {cores:2} cores, {count:7} jobs: "
                f"{count / seconds:9,.0f} jobs/s  {seconds / count * 1e6:5.1f} µs a job"
            )
    for batch in (1, 4, 16):
        seconds = min(run_dispatch(args.ranks, args.cores, args.jobs, batch) for _ in range(3))
        print(
            f"dispatch  {args.ranks} × {args.cores:2} cores, reports of {batch:2} jobs: "
            f"{args.jobs / seconds:9,.0f} jobs/s  {seconds / args.jobs * 1e6:5.1f} µs a job"
        )
    manager = make(args.ranks, args.cores)
    begin = time.perf_counter()
    submit(manager, 100_000, None, 1.0)
    print(f"submit    100,000 members: {(time.perf_counter() - begin) * 1e3:.1f} ms")
    print(f"memory    {waiting_bytes(100_000):.1f} bytes a waiting member")
    for nodes in args.match:
        for policy in ("never", "always"):
            how = {"never": "interpreted", "always": "compiled"}[policy]
            for text, seconds in match(nodes, policy):
                print(f"match     {nodes:6} nodes, {how:11}: {text}: {seconds * 1e6:,.0f} µs")


if __name__ == "__main__":
    main()
