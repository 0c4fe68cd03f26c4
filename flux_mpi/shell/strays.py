"""Finding what tasks left behind when there is no supervisor any more to adopt it.

A supervisor that is killed takes the kernel's knowledge of who descends from whom with it. What is
left is the environment that each process was started with: tasks of jobs carry ``FLUX_JOB_ID`` and
the ``FLUX_URI`` of the broker that ran them.
"""

from __future__ import annotations

import os
import signal

ROUNDS = 10
"""A process may fork while we look: look again as long as there was something, so often at most."""


def find(uri: str) -> list[int]:
    """Process ids of tasks, or their descendants, of the broker with this URI."""
    mark = b"FLUX_URI=" + uri.encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue  # gone, or another user's
        if mark in variables and any(entry.startswith(b"FLUX_JOB_ID=") for entry in variables):
            found.append(int(name))
    return found


def end(uri: str) -> int:
    """Kill them all; returns how many there were."""
    killed: set[int] = set()
    for _ in range(ROUNDS):
        pids = [pid for pid in find(uri) if pid != os.getpid()]
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
            killed.add(pid)
    return len(killed)
