"""100,000 members submitted as one array: seconds, and memory a waiting member takes at rank 0.

Reference in the same run: 1,000 members submitted one request each, pipelined.
"""

from __future__ import annotations

import argparse
import statistics
import time

from _common import Instance, Row, main, memory_kib, milliseconds, rate

import flux_mpi
from flux_mpi.client.jobs import cancel, make_jobspec


def measure(options: argparse.Namespace) -> list[Row]:
    count, single = options.members, options.single
    seconds: list[float] = []
    with Instance(options.ranks) as _, flux_mpi.Handle() as handle:
        pid = int(handle.attr_get("broker.pid", 0))
        handle.call("job-manager.queue-start", {"start": False, "reason": "they are to wait"})
        cancel(flux_mpi.submit(["true"], count=100, handle=handle), handle=handle)
        before = memory_kib(pid, "Rss")
        arrays = []
        for _ in range(options.repeats):
            began = time.perf_counter()
            arrays.append(flux_mpi.submit(["echo", "{cc}"], cc=f"1-{count}", handle=handle))
            seconds.append(time.perf_counter() - began)
        waiting = handle.call("job-manager.stats", {})["active_jobs"]
        bytes_each = 1024 * (memory_kib(pid, "Rss") - before) / waiting

        # One request a member, all on their way before the first answer.
        jobspec = make_jobspec(["true"]).to_dict()
        began = time.perf_counter()
        futures = [
            handle.rpc("job-ingest.submit", {"entries": [{"jobspec": jobspec}]})
            for _ in range(single)
        ]
        for future in futures:
            future.get(60)
        one_by_one = single / (time.perf_counter() - began)
    taken = statistics.median(seconds)
    return [
        Row(
            f"submit of {count:,} members as one array",
            f"{milliseconds(taken)} ({rate(count / taken)})",
            f"{rate(one_by_one)} when each is a request of its own",
            "450–1,110/s",
            "≤ 1 s",
            taken <= 1,
        ),
        Row(
            "memory a waiting member",
            f"{bytes_each:.0f} bytes",
            f"over {waiting:,} waiting",
            "",
            "≤ 200 bytes",
            bytes_each <= 200,
        ),
    ]


if __name__ == "__main__":
    main(measure, __doc__, {"--members": 100_000, "--single": 1000, "--ranks": 1, "--repeats": 5})
