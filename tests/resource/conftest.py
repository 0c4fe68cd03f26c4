"""Copies of ``/sys`` and ``/proc`` in miniature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Plant = Callable[[Mapping[str, str]], str]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write files below a root folder, whose path is returned."""

    def write(files: Mapping[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    return write


def machine(
    packages: int, numa_per_package: int, cores_per_numa: int, threads: int, *, modern: bool = True
) -> dict[str, str]:
    """The files of a machine whose second threads are numbered after all first ones."""
    files: dict[str, str] = {}
    cores = packages * numa_per_package * cores_per_numa
    nodes: dict[int, list[int]] = {}
    for core in range(cores):
        node = core // cores_per_numa
        cpus = [core + thread * cores for thread in range(threads)]
        nodes.setdefault(node, []).extend(cpus)
        for cpu in cpus:
            base = f"sys/devices/system/cpu/cpu{cpu}/topology"
            name = "core_cpus_list" if modern else "thread_siblings_list"
            files[f"{base}/{name}"] = ",".join(map(str, cpus)) + "\n"
            files[f"{base}/physical_package_id"] = f"{node // numa_per_package}\n"
    for node, cpus in nodes.items():
        name = f"sys/devices/system/node/node{node}/cpulist"
        files[name] = ",".join(map(str, sorted(cpus))) + "\n"
    files["proc/meminfo"] = "MemTotal:       1048576 kB\nMemFree: 1 kB\n"
    return files
