"""The example of a third-party scheduler: installed as its users would, found, and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "scheduler_plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the plug-in is installed, into a folder of its own."""
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "target"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--disable-pip-version-check", "--target", str(target), str(source)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    path = os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def test_it_is_as_short_as_promised() -> None:
    assert len((EXAMPLE / "roomy.py").read_text(encoding="utf-8").splitlines()) < 60


CODE = """
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.formats.rv1 import RSet
from flux_mpi.job.ingest import Ingest
from flux_mpi.job.manager import Manager
from flux_mpi.sched import plugins

scheduler = plugins.scheduler({"scheduler": "roomy", "roomy-spare": 1})
nodes = range(4)
scheduler.update(
    RSet(dict.fromkeys(nodes, IDSet(range(2))), {}, {rank: f"node{rank}" for rank in nodes})
)
manager = Manager(scheduler)

def submit(count, **how):
    how |= {"cwd": "/", "environment": {}, "attributes": {"system.exec.test.run_duration": 1.0}}
    spec = Jobspec.from_command(["true"], **how).to_dict()
    entries, _, _ = Ingest().parse({"entries": [{"jobspec": spec, "count": count}]})
    manager.submit(entries, 1.0)
    manager.turn(1.0)

submit(2)
submit(3, ntasks=4)
submit(1, ntasks=9)
print(scheduler.allocated().ranks, manager.counts.running, manager.counts.active)
while (when := manager.next_deadline()) is not None:
    manager.turn(when)
print({result.name: n for result, n in manager.counts.results.items() if n}, manager.sched.busy)
"""


def test_it_schedules(installed: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=installed, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["0-1 2 5", "{'COMPLETED': 5, 'FAILED': 1} {}"]


def test_it_is_only_found_when_installed() -> None:
    from flux_mpi.sched import plugins

    with pytest.raises(plugins.PluginError, match=r"found 'roomy', allowed: bitmap"):
        plugins.scheduler({"scheduler": "roomy"})


def test_a_broken_plugin_is_named(installed: dict[str, str], tmp_path: Path) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[flux_mpi.schedulers]\ngone = no_such_module:X\nodd = builtins:dict\n"
        "[flux_mpi.queue_policies]\nodd = builtins:dict\n"
    )
    code = (
        "from flux_mpi.sched import plugins\n"
        "for make in (lambda: plugins.scheduler({'scheduler': 'gone'}),\n"
        "             lambda: plugins.scheduler({'scheduler': 'odd'}),\n"
        "             lambda: plugins.policy('odd', 'sched.queue-policy')):\n"
        "    try: make()\n"
        "    except plugins.PluginError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**installed, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "sched.scheduler: 'gone' (no_such_module:X): No module named 'no_such_module'",
        "sched.scheduler: 'odd' makes a dict, which is no Scheduler",
        "sched.queue-policy: 'odd' is no queue policy, but <class 'dict'>",
    ]
