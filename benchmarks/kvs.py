"""What the key-value store costs: a put with its commit, a get, a watch, from one client.

Reference: each call is timed next to a bare Unix-socket echo of the very same bytes, in turns in
one run, so that what else the machine does falls on both; the ratio is what to compare. Beside
them, what rank 0 itself spends on a request, without sockets.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

from _common import BenchmarkError, Instance, Row, main, milliseconds

import flux_mpi
from flux_mpi.broker.service import Handler, Request
from flux_mpi.kvs.service import KvsService
from flux_mpi.message.codec import encode
from flux_mpi.message.message import REQUEST, Message, pack

PUT_TARGET_S = 0.4e-3
GET_TARGET_S = 0.2e-3


class Echo:
    """A child process that sends back what it gets."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._child = os.fork()
        if self._child == 0:
            self._socket.close()
            while data := theirs.recv(1 << 16):
                theirs.sendall(data)
            os._exit(0)
        theirs.close()

    def __call__(self, data: bytes) -> None:
        """One round trip of ``data``."""
        self._socket.sendall(data)
        missing = len(data)
        while missing:
            missing -= len(self._socket.recv(1 << 16))

    def close(self) -> None:
        self._socket.close()
        os.waitpid(self._child, 0)


def in_turns(repeats: int, *actions: Callable[[], object]) -> list[float]:
    """Median seconds of each action, called one after the other ``repeats`` times."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(repeats):
        for action, taken in zip(actions, times):
            began = time.perf_counter()
            action()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


class _NoBroker:
    """What `KvsService` needs of a broker to be called without one."""

    def __init__(self) -> None:
        self.methods: dict[str, Handler] = {}

    def register(self, name: str, methods: dict[str, Handler]) -> None:
        self.methods = methods


def service_cost(method: str, payload: Any, repeats: int) -> float:
    """Seconds that rank 0 spends on a ``kvs`` request, decoding and encoding included."""
    broker = _NoBroker()
    KvsService(broker)  # type: ignore[arg-type]
    uid = os.geteuid()
    handler, packed = broker.methods[method], pack(payload)
    broker.methods["commit"](
        Request(Message(REQUEST, "kvs.commit", pack(commit_of("x")), uid=uid), lambda m: None)
    )
    sent: list[bytes] = []

    def send(answer: Message) -> None:
        sent.append(encode(answer))

    began = time.perf_counter()
    for tag in range(repeats):
        handler(Request(Message(REQUEST, f"kvs.{method}", packed, tag=tag, uid=uid), send))
    taken = time.perf_counter() - began
    if len(sent) != repeats:
        raise BenchmarkError(f"kvs.{method} answered {len(sent)} of {repeats} requests")
    return taken / repeats


def commit_of(value: str) -> dict[str, Any]:
    return {"ns": "primary", "ops": [["bench.a.key", value]]}


def measure(options: argparse.Namespace) -> list[Row]:
    repeats, value = options.repeats, "x" * options.size
    commit, lookup = commit_of(value), {"ns": "primary", "key": "bench.a.key"}
    frames = {
        name: encode(Message(REQUEST, f"kvs.{name}", pack(body), tag=1))
        for name, body in (("commit", commit), ("lookup", lookup))
    }
    echo = Echo()
    try:
        with Instance(options.ranks, "--cores-per-rank=1"), flux_mpi.Handle() as handle:
            put, put_echo = in_turns(
                repeats,
                lambda: handle.call("kvs.commit", commit),
                lambda: echo(frames["commit"]),
            )
            get, get_echo = in_turns(
                repeats,
                lambda: handle.call("kvs.lookup", lookup),
                lambda: echo(frames["lookup"]),
            )
            if handle.call("kvs.lookup", lookup)["value"] != value:
                raise BenchmarkError("the key-value store gave something else back")
            watch = handle.rpc("kvs.watch", lookup, streaming=True)
            watch.get(10.0)

            def heard() -> None:
                handle.call("kvs.commit", commit)
                watch.get(10.0)

            watched, watched_echo = in_turns(repeats, heard, lambda: echo(frames["commit"]))
            watch.cancel()
            many = [[f"bench.many.k{i}", value] for i in range(1000)]
            (bulk,) = in_turns(
                20, lambda: handle.call("kvs.commit", {"ns": "primary", "ops": many})
            )
    finally:
        echo.close()
    own_put = service_cost("commit", commit, repeats)
    own_get = service_cost("lookup", lookup, repeats)

    def row(question: str, ours: float, reference: float, own: float | None = None) -> list[str]:
        inside = "" if own is None else f", {own * 1e6:.0f} µs of it the service"
        return [
            question,
            f"{milliseconds(ours)} ({ours / reference:.1f}×{inside})",
            f"{milliseconds(reference)} bare socket echo of the same bytes",
        ]

    return [
        Row(
            *row("KVS put + commit", put, put_echo, own_put),
            "2.1 ms",
            "≤ 0.4 ms",
            put <= PUT_TARGET_S,
        ),
        Row(*row("KVS get", get, get_echo, own_get), "0.25 ms", "≤ 0.2 ms", get <= GET_TARGET_S),
        Row(*row("KVS put + commit until a watch has heard it", watched, watched_echo)),
        Row(
            "KVS commit of 1,000 keys",
            f"{milliseconds(bulk)} ({bulk / len(many) * 1e6:.1f} µs a key)",
            "",
        ),
    ]


if __name__ == "__main__":
    main(measure, __doc__, {"--ranks": 4, "--repeats": 2000, "--size": 32})
