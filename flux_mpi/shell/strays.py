"""Finding what tasks left behind when there is no supervisor any more to adopt it.

A supervisor that is killed takes the kernel's knowledge of who descends from whom with it. What is
left is the environment that each process was started with: tasks of jobs carry ``FLUX_JOB_ID`` and
the ``FLUX_URI`` of the broker that ran them. When a job was an instance of its own, what that ran
carries the URI of the broker that ran the job as ``FLUX_PARENT_URI``, and another ``FLUX_URI``.
"""

from __future__ import annotations

import os
import signal

from flux_mpi.shell import rundir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 10
"""A process may fork while we look: look again as long as there was something, so often at most."""


class Found:
    """Processes of a broker's jobs, of the instances among them, and so on down."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.uris: set[str] = set()
        """Of the brokers that some of them were run by, besides the one that was asked for."""


def find(uri: str) -> Found:
    """Tasks, and their descendants, of the broker with this URI and of all below it."""
    processes = list(_environments())
    brokers = {uri}
    while True:
        inner = {own for _, own, parent, _ in processes if parent in brokers and own} - brokers
        if not inner:
            break
        brokers |= inner
    found = Found()
    found.uris = brokers - {uri}
    found.pids = [
        pid
        for pid, own, parent, of_a_job in processes
        if parent in brokers or (own in brokers and of_a_job)
    ]
    return found


def _environments() -> Iterator[tuple[int, str, str, bool]]:
    """(pid, FLUX_URI, FLUX_PARENT_URI, whether it is of a job) of every process that tells."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:
            continue  # gone, or another user's
        known = {}
        for entry in entries:
            if entry.startswith(b"FLUX_"):
                key, _, text = entry.partition(b"=")
                known[key] = os.fsdecode(text)
        if known:
            yield (
                int(name),
                known.get(b"FLUX_URI", ""),
                known.get(b"FLUX_PARENT_URI", ""),
                b"FLUX_JOB_ID" in known,
            )


def end(uri: str) -> int:
    """Kill them all, and remove what their brokers kept in files; returns how many there were."""
    killed: set[int] = set()
    uris: set[str] = set()
    for _ in range(ROUNDS):
        found = find(uri)
        uris |= found.uris
        pids = [pid for pid in found.pids if pid != os.getpid()]
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
            killed.add(pid)
    for each in uris:
        folder = os.path.dirname(each.removeprefix("local://"))
        if rundir.is_one(folder):
            rundir.remove(folder)
    return len(killed)
