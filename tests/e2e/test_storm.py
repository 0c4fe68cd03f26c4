"""Many children at once, on the same ranks, from several levels, of which many are cancelled.

``FLUX_MPI_STORM=N`` makes N children a thread, instead of a few (there are 12 threads).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Instance = Any

CHILDREN = int(os.environ.get("FLUX_MPI_STORM", "0"))
THREADS = 4
"""In each of three instances."""
LIMIT_S = 60.0 + 1.5 * CHILDREN

STORM = """
import json, os, random, sys, threading, time
from flux_mpi.client.handle import Handle

seed, threads, count, where, limit_s = json.loads(sys.argv[1])
environ = {k: v for k, v in os.environ.items() if not k.startswith("FLUX_")}
found = {"ended": 0, "cancelled": 0, "wrong": []}
lock = threading.Lock()

def jobspec(ranks, command):
    slot = {"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}
    return {
        "version": 1,
        "resources": [{"type": "node", "count": len(ranks), "with": [slot]}],
        "tasks": [{"command": ["flux-mpi", "broker", *command], "slot": "task",
                   "count": {"per_slot": 1}}],
        "attributes": {"system": {
            "duration": 0, "cwd": os.getcwd(), "environment": environ,
            "constraints": {"ranks": [",".join(map(str, ranks))]},
            "shell": {"options": {"per-resource": {"type": "node", "count": 1}}}}},
    }

def work(number):
    chance = random.Random(1000 * seed + number)
    with Handle() as handle:
        for turn in range(count):
            command = chance.choice([["true"], ["sleep", f"{chance.uniform(0, 0.05):.3f}"], []])
            ranks = chance.choice(where)
            entry = {"jobspec": jobspec(ranks, command)}
            jobid = handle.call("job-ingest.submit", {"entries": [entry]})["arrays"][0][0]
            cancel = not command or chance.random() < 0.4
            if cancel:
                time.sleep(chance.choice([0, chance.uniform(0, 0.02), chance.uniform(0, 0.1)]))
                handle.call("job-manager.raise", {
                    "ids": [[jobid, 1]], "type": "cancel", "severity": 0, "note": "storm"})
            future = handle.rpc("job-manager.wait-all", {"ids": [[jobid, 1]]}, streaming=True)
            try:
                status = future.get(limit_s)["done"][0][1]
            except TimeoutError:
                status = "hangs"
            future.cancel()
            log = ""
            if status == "hangs" or status and not cancel:
                log = handle.call("job-info.lookup", {"id": jobid, "keys": ["eventlog"]})
            with lock:
                found["cancelled" if cancel else "ended"] += 1
                if log:
                    found["wrong"].append([jobid, ranks, command, cancel, status, log["eventlog"]])

workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(json.dumps(found))
"""

DELAYS = """
import random, sys
if "flux_mpi.instance" in " ".join(sys.orig_argv[:4]):
    from collections import deque
    from flux_mpi.instance.hosting import Hosting
    from flux_mpi.instance.world import World

    # What leaders say arrives in its order, and sometimes late: later than other orders.
    def delayed(method):
        def take(self, request):
            queue = self.__dict__.setdefault("late", deque())
            queue.append((method, request))
            if len(queue) == 1:
                later(self, queue)
        return take

    def later(self, queue):
        def run():
            method, request = queue.popleft()
            if queue:
                later(self, queue)
            method(self, request)
        delay = random.uniform(0, 0.004) if random.random() < 0.7 else 0.0
        self.broker.reactor.call_later(delay, run)

    # Orders to end hit creations in any state, on each rank in another.
    signal = Hosting.signal
    def signalled(self, jobid, signum):
        delay = random.uniform(0, 0.05) if random.random() < 0.7 else 0.0
        self.house.reactor.call_later(delay, lambda: signal(self, jobid, signum))
    Hosting.signal = signalled

    for name in ("_prepare", "_go", "_abort"):
        setattr(World, name, delayed(getattr(World, name)))
"""
"""In every broker: sitecustomize.py."""

OUTER = [[0, 1], [1, 2], [0, 1, 2, 3], [2, 3], [3]]
"""Of the outer instance: sets of its ranks that overlap."""
INNER = [([0, 1, 2, 3], [[0, 1], [1, 2, 3], [0, 1, 2, 3]]), ([1, 2, 3], [[0, 1], [1, 2], [0, 2]])]
"""Of two children: their ranks in the outer instance, and sets of their own ranks."""


DEAF = """
import sys
if "flux_mpi.instance" in " ".join(sys.orig_argv[:4]):
    from flux_mpi.instance.world import World

    go = World._go
    World._go = lambda self, request: self.broker.rank == 2 or go(self, request)
"""
"""Rank 2 does not hear that it is to enter."""


def hooked(folder: Path, text: str) -> dict[str, str]:
    """The environment of an instance whose brokers run ``text`` before all else."""
    (folder / "sitecustomize.py").write_text(text)
    paths = filter(None, [str(folder), os.environ.get("PYTHONPATH")])
    return {"PYTHONPATH": os.pathsep.join(paths)}


def child(
    folder: Path, name: str, ranks: list[int], command: list[str], env: dict[str, str]
) -> Any:
    slot = {"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 4}]}
    return {
        "version": 1,
        "resources": [{"type": "node", "count": len(ranks), "with": [slot]}],
        "tasks": [
            {
                "command": ["flux-mpi", "broker", *command],
                "slot": "task",
                "count": {"per_slot": 1},
            }
        ],
        "attributes": {
            "system": {
                "duration": 0,
                "cwd": str(folder),
                "environment": env,
                "constraints": {"ranks": [",".join(map(str, ranks))]},
                "shell": {
                    "options": {
                        "per-resource": {"type": "node", "count": 1},
                        "output": {
                            "stdout": {"type": "file", "path": str(folder / f"{name}.out")},
                            "stderr": {"type": "file", "path": str(folder / f"{name}.err")},
                        },
                    }
                },
            }
        },
    }


def usage(outer: Instance) -> list[dict[str, int]]:
    """What each broker has: descriptors, threads, and communicators."""
    found = []
    for rank in range(outer.size):
        pid = outer.broker_pid(rank)
        stats = outer.handle.call("world.stats", rank=rank)
        stats["descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        stats["threads"] = len(os.listdir(f"/proc/{pid}/task"))
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        stats["kilobytes"] = int(rollup.split("Pss:")[1].split()[0])
        found.append(stats)
    return found


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("limit", [1500, 3])
def test_a_storm_of_children(
    start: Callable[..., Instance],
    tmp_path: Path,
    wait_until: Callable[..., Any],
    limit: int,
) -> None:
    conf = f"--conf=overlay.max-communicators={limit}"
    outer = start("--cores-per-rank=16", conf, env=hooked(tmp_path, DELAYS))
    before = usage(outer)
    count = CHILDREN or 8
    script = tmp_path / "storm.py"
    script.write_text(STORM)
    env = {k: v for k, v in outer.env.items() if not k.startswith("FLUX_")}

    def command(seed: int, where: list[list[int]]) -> list[str]:
        return [sys.executable, str(script), json.dumps([seed, THREADS, count, where, LIMIT_S])]

    began = time.monotonic()
    inner = []
    for number, (ranks, where) in enumerate(INNER):
        spec = child(tmp_path, f"inner{number}", ranks, command(number, where), env)
        inner += outer.handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]})["arrays"]
    most = {"communicators": 0, "contexts": 0, "blocked": 0}
    with subprocess.Popen(command(99, OUTER), env=outer.env, stdout=subprocess.PIPE) as storm:
        while storm.poll() is None:
            assert time.monotonic() - began < 2 * LIMIT_S
            time.sleep(0.05)
            for stats in (outer.handle.call("world.stats", rank=rank) for rank in range(4)):
                most = {name: max(number, stats[name]) for name, number in most.items()}
        assert storm.stdout is not None
        texts = [storm.stdout.read().decode()]
    future = outer.handle.rpc("job-manager.wait-all", {"ids": inner}, streaming=True)
    done: list[Any] = []
    while len(done) < len(inner):
        done += future.get(LIMIT_S)["done"]
    future.cancel()
    texts += [(tmp_path / f"inner{number}.out").read_text() for number in range(len(INNER))]
    took = time.monotonic() - began
    assert [status for _, status, *_ in done] == [0, 0], (done, texts)
    found = [json.loads(text) for text in texts]
    assert [it["wrong"] for it in found] == [[], [], []], outer.stderr
    assert [it["ended"] + it["cancelled"] for it in found] == [THREADS * count] * 3

    wait_until(outer.idle, "all jobs are inactive")
    wait_until(lambda: not list(outer.tmp.glob("flux-mpi-*/i*")), "no folder is left", 10)
    wait_until(lambda: all(not it["instances"] for it in usage(outer)), "all are forgotten", 10)
    after = usage(outer)
    text = f"{3 * THREADS * count} children in {took:.1f} s"
    print(text, most, found, *before, *after, sep="\n")
    assert most["communicators"] <= limit
    assert (most["contexts"] > 0) == (limit < 10)
    for was, now in zip(before, after):
        assert now["descriptors"] <= was["descriptors"] + 1
        assert now["threads"] <= was["threads"] + 1
        assert now["blocked"] == now["creations"] == now["waiting"] == now["tickets"] == 0
        assert not now["damaged"]
    assert outer.stop() == 0


def test_a_broker_is_killed_while_others_wait_for_it_in_mpi(
    start: Callable[..., Instance], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """They go on without the thread that is lost there, and their children use contexts."""
    outer = start("--cores-per-rank=4", env=hooked(tmp_path, DEAF))
    env = {k: v for k, v in outer.env.items() if not k.startswith("FLUX_")}

    def submit(name: str, ranks: list[int], *command: str) -> int:
        spec = child(tmp_path, name, ranks, list(command), env)
        answer = outer.handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]})
        return int(answer["arrays"][0][0])

    def status(jobid: int) -> int:
        wait = {"ids": [[jobid, 1]]}
        future = outer.handle.rpc("job-manager.wait-all", wait, streaming=True)
        return int(future.get(30)["done"][0][1])

    before = usage(outer)
    jobid = submit("lost", [0, 1, 2, 3], "true")
    wait_until(
        lambda: all(usage(outer)[rank]["threads"] > before[rank]["threads"] for rank in (0, 1, 3)),
        "all others wait in MPI",
    )
    os.kill(outer.broker_pid(2), signal.SIGKILL)
    began = time.monotonic()
    assert status(jobid) != 0
    assert time.monotonic() - began < 2
    rest = [outer.handle.call("world.stats", rank=rank) for rank in (0, 1, 3)]
    assert [it["blocked"] for it in rest] == [1, 1, 1]
    assert [it["instances"] + it["creations"] + it["tickets"] for it in rest] == [0, 0, 0]
    assert rest[0]["damaged"]
    command = ["sh", "-c", "flux-mpi getattr transport; flux-mpi run -N3 -n3 true && echo fine"]
    assert status(submit("next", [0, 1, 3], *command)) == 0, outer.stderr
    assert (tmp_path / "next.out").read_text() == "context\nfine\n"
    outer.stop()
