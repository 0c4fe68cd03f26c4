"""How long a round trip takes: client to its own broker, to rank 15 of 16, and to the KVS.

Reference: the same bytes echoed by a bare Unix-socket server written in Python, in the same run.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable

from _common import BenchmarkError, Instance, Row, main, milliseconds

import flux_mpi
from flux_mpi.message.codec import encode
from flux_mpi.message.message import REQUEST, Message, pack


def echo_round_trip(payload: bytes, repeats: int) -> float:
    """Median seconds for ``payload`` to a child process and back over a Unix stream socket."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while data := theirs.recv(1 << 16):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()

    def once() -> None:
        ours.sendall(payload)
        missing = len(payload)
        while missing:
            missing -= len(ours.recv(1 << 16))

    try:
        return _median(once, repeats)
    finally:
        ours.close()
        os.waitpid(child, 0)


def _median(once: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(options: argparse.Namespace) -> list[Row]:
    repeats, last = options.repeats, options.ranks - 1
    frame = encode(Message(REQUEST, "broker.ping", pack({"seq": 0}), tag=1))
    reference = echo_round_trip(frame, repeats)
    with Instance(options.ranks) as _, flux_mpi.Handle() as handle:
        if handle.call("broker.ping", {}, last)["rank"] != last:
            raise BenchmarkError(f"rank {last} did not answer for itself")
        own = _median(lambda: handle.call("broker.ping", {"seq": 0}), repeats)
        far = _median(lambda: handle.call("broker.ping", {"seq": 0}, last), repeats)
        commit = {"ns": "primary", "ops": [["bench.key", "x" * 32]]}
        lookup = {"ns": "primary", "key": "bench.key"}
        put = _median(lambda: handle.call("kvs.commit", commit), repeats)
        if handle.call("kvs.lookup", lookup)["value"] != "x" * 32:
            raise BenchmarkError("the key-value store gave something else back")
        get = _median(lambda: handle.call("kvs.lookup", lookup), repeats)
    echo = f"{milliseconds(reference)} bare socket echo"
    return [
        Row(
            "RPC round trip, client ↔ own broker",
            f"{milliseconds(own)} ({own / reference:.1f}×)",
            echo,
            "0.19 ms",
            "≤ 0.15 ms",
            own <= 0.15e-3,
        ),
        Row(
            f"RPC round trip, rank 0 → rank {last} of {options.ranks}",
            f"{milliseconds(far)} ({far / reference:.1f}×)",
            echo,
            "0.49 ms",
            "≤ 0.45 ms",
            far <= 0.45e-3,
        ),
        Row("KVS put + commit", milliseconds(put), echo, "2.1 ms", "≤ 0.4 ms", put <= 0.4e-3),
        Row("KVS get", milliseconds(get), echo, "0.25 ms", "≤ 0.2 ms", get <= 0.2e-3),
    ]


if __name__ == "__main__":
    main(measure, __doc__, {"--ranks": 16, "--repeats": 2000})
