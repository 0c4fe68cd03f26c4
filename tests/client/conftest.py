"""A fake broker for each test, or a family of them, with FLUX_URI pointing to it."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.message.message import STREAMING
from tests.client.fakebroker import FakeBroker, Request


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroker]:
    # Not tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        fake = FakeBroker(Path(folder))
        monkeypatch.setenv("FLUX_URI", fake.uri)
        yield fake
        fake.close()


class Family:
    """Fake instances that are jobs of each other: ``family[""]``, ``family["ƒ2"]``…

    Each has the jobs that `job` gave it; all answer what the commands that look into them ask.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.brokers: dict[str, FakeBroker] = {}
        self.jobs: dict[str, list[dict[str, Any]]] = {}
        self.add("")

    def __getitem__(self, path: str) -> FakeBroker:
        return self.brokers[path]

    def add(self, path: str) -> FakeBroker:
        """An instance at this path of job ids."""
        folder = self._folder / str(len(self.brokers))
        folder.mkdir()
        broker = self.brokers[path] = FakeBroker(folder)
        self.jobs[path] = []
        broker.attrs["instance-level"] = str(len(path.split("/")) if path else 0)
        if path:
            outer, _, jobid = path.rpartition("/")
            broker.attrs["parent-uri"] = self.brokers[outer].uri
            broker.attrs["jobid"] = jobid
        broker.handlers["job-list.list"] = lambda request: self._list(path, request)
        broker.handlers["job-list.stats"] = lambda request: request.respond(self._stats(path))
        broker.handlers["resource.status"] = RESOURCES
        return broker

    def job(self, path: str, jobid: str, **known: Any) -> dict[str, Any]:
        """A job of the instance at ``path``; one that is an instance itself if there is one."""
        job = {
            "id": fluid.parse(jobid),
            "userid": os.getuid(),
            "state": 16,
            "name": "sleep",
            "ntasks": 1,
            "nnodes": 1,
            "t_submit": 1.0,
            "t_run": STARTED,
            **known,
        }
        inner = self.brokers.get(f"{path}/{jobid}" if path else jobid)
        if inner is not None:
            host = os.uname().nodename
            job.setdefault("annotations", {"user": {"uri": f"ssh://{host}{inner.path}"}})
        self.jobs[path].append(job)
        return job

    def _list(self, path: str, request: Request) -> None:
        asked = request.payload
        jobs = [
            job
            for job in self.jobs[path]
            if job["id"] in asked.get("ids", [job["id"]])
            and job["state"] & (asked.get("states") or 127)
        ]
        missing = [one for one in asked.get("ids", []) if one not in [job["id"] for job in jobs]]
        if not request.message.flags & STREAMING:
            if missing:
                request.error(errno.ENOENT, "unknown job id")
            else:
                request.respond({"jobs": jobs})
            return
        request.respond({"jobs": jobs})
        request.error(errno.ENOENT if missing else errno.ENODATA, "")

    def _stats(self, path: str) -> dict[str, Any]:
        states = [job["state"] for job in self.jobs[path]]
        return {
            "job_states": {
                "sched": states.count(8),
                "run": states.count(16),
                "inactive": states.count(64),
                "total": len(states),
            },
            "successful": states.count(64),
            "failed": 0,
            "canceled": 0,
            "timeout": 0,
        }

    def close(self) -> None:
        for broker in self.brokers.values():
            broker.close()


STARTED = time.time() - 100
RESOURCES = {
    "R": {
        "version": 1,
        "execution": {
            "R_lite": [{"rank": "0-3", "children": {"core": "0-3"}}],
            "starttime": 0.0,
            "expiration": 0.0,
            "nodelist": ["node[0-3]"],
        },
    },
    "allocated": {
        "version": 1,
        "execution": {
            "R_lite": [{"rank": "0", "children": {"core": "0-1"}}],
            "starttime": 0.0,
            "expiration": 0.0,
            "nodelist": ["node0"],
        },
    },
    "online": "0-2",
    "offline": "3",
}
"""16 cores on 4 nodes, of which one is offline and one half in use."""


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    """An instance with three jobs: ƒ2 is an instance with two, of which ƒ2 is an instance too."""
    with tempfile.TemporaryDirectory(prefix="fam-") as folder:
        found = Family(Path(folder))
        for path in ("ƒ2", "ƒ2/ƒ2"):
            found.add(path)
        for path, jobs in (("", "ƒ2 ƒ3 ƒ4"), ("ƒ2", "ƒ2 ƒ3"), ("ƒ2/ƒ2", "ƒ3 ƒ4")):
            for jobid in jobs.split():
                inner = (f"{path}/{jobid}" if path else jobid) in found.brokers
                found.job(path, jobid, name="flux" if inner else "sleep")
        monkeypatch.setenv("FLUX_URI", found[""].uri)
        monkeypatch.delenv("FLUX_URI_RESOLVE_LOCAL", raising=False)
        yield found
        found.close()
