from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.resource.discovery import discover, format_cpulist, parse_cpulist

from .conftest import machine

if TYPE_CHECKING:
    from .conftest import Plant

GIB = 1 << 30


@pytest.mark.parametrize("modern", [True, False])
def test_a_core_is_a_physical_core_with_all_its_threads(plant: Plant, modern: bool) -> None:
    root = plant(machine(2, 2, 3, 2, modern=modern))
    topology = discover(root, affinity=range(24), environ={}, hostname="n1")
    assert topology.hostname == "n1"
    assert [core.cpus for core in topology.cores] == [(i, i + 12) for i in range(12)]
    assert [core.numa for core in topology.cores] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [core.package for core in topology.cores] == [0] * 6 + [1] * 6
    assert topology.cpus == frozenset(range(24))


def test_only_cpus_of_the_affinity_mask_count(plant: Plant) -> None:
    topology = discover(plant(machine(1, 1, 4, 2)), affinity=[1, 2, 6], environ={})
    assert [core.cpus for core in topology.cores] == [(1,), (2, 6)]


def test_cores_come_in_the_order_of_packages_and_numa_nodes(plant: Plant) -> None:
    # CPU numbers that alternate between two packages, as some firmware gives them.
    files = {}
    for cpu in range(6):
        base = f"sys/devices/system/cpu/cpu{cpu}/topology"
        files[f"{base}/core_cpus_list"] = str(cpu)
        files[f"{base}/physical_package_id"] = str(cpu % 2)
    topology = discover(plant(files), affinity=range(6), environ={})
    assert [core.cpus[0] for core in topology.cores] == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("garbage", ["", "x", "1-", "5-y"])
def test_without_topology_files_each_cpu_is_a_core(plant: Plant, garbage: str) -> None:
    root = plant({"sys/devices/system/cpu/cpu1/topology/core_cpus_list": garbage})
    topology = discover(root, affinity=[0, 1], environ={})
    assert [core.cpus for core in topology.cores] == [(0,), (1,)]
    assert (topology.memory, topology.cpu_quota, topology.gpus) == (0, None, ())


def test_this_machine() -> None:
    topology = discover()
    assert topology.cpus == os.sched_getaffinity(0)
    assert topology.memory > 0


@pytest.mark.parametrize(
    ("files", "memory", "quota"),
    [
        ({"proc/self/cgroup": "0::/a/b\n"}, GIB, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "500000000\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            500000000,
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "0::/../..\n",
                "sys/fs/cgroup/memory.max": "700000000\n",
                "sys/fs/cgroup/cpu.max": "max 100000\n",
            },
            700000000,
            None,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/job\n2:cpu,cpuacct:/job\n1:name=systemd:/\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "600000000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            600000000,
            2.0,
        ),
        ({"proc/self/cgroup": "garbage\n\n:::\n"}, GIB, None),
    ],
)
def test_cgroup_limits(
    plant: Plant, files: dict[str, str], memory: int, quota: float | None
) -> None:
    topology = discover(plant(machine(1, 1, 1, 1) | files), affinity=[0], environ={})
    assert (topology.memory, topology.cpu_quota) == (memory, quota)


def nvidia(minor: int, address: str, uuid: str, numa: int) -> dict[str, str]:
    return {
        f"proc/driver/nvidia/gpus/{address}/information": (
            f"Model: \t\t NVIDIA\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n"
        ),
        f"dev/nvidia{minor}": "",
        f"sys/bus/pci/devices/{address}/numa_node": f"{numa}\n",
        "dev/nvidiactl": "",
    }


TWO = nvidia(1, "0000:17:00.0", "GPU-aaaa", 0) | nvidia(0, "0000:65:00.0", "GPU-bbbb", 1)


@pytest.mark.parametrize(
    ("variable", "devices", "uuids"),
    [
        (None, ["0", "1"], ["GPU-aaaa", "GPU-bbbb"]),
        ("1,0", ["1", "0"], ["GPU-bbbb", "GPU-aaaa"]),
        ("1", ["1"], ["GPU-bbbb"]),
        ("GPU-b,0", ["GPU-b", "0"], ["GPU-bbbb", "GPU-aaaa"]),
        ("GPU-", [], []),
        ("0,0", ["0"], ["GPU-aaaa"]),
        ("0,7,1", ["0"], ["GPU-aaaa"]),
        ("", [], []),
        ("-1", [], []),
        ("NoDevFiles", [], []),
        ("MIG-1/2/3,1", ["MIG-1/2/3", "1"], ["MIG-1/2/3", "GPU-bbbb"]),
    ],
)
def test_nvidia_gpus_as_the_cuda_runtime_would_see_them(
    plant: Plant, variable: str | None, devices: list[str], uuids: list[str]
) -> None:
    environ = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    gpus = discover(plant(TWO), affinity=[0], environ=environ).gpus
    assert [gpu.device for gpu in gpus] == devices
    assert [gpu.identity for gpu in gpus] == uuids
    assert {gpu.vendor for gpu in gpus} <= {"nvidia"}


def test_nvidia_gpus_whose_device_is_not_in_the_container(plant: Plant) -> None:
    files = {name: text for name, text in TWO.items() if name != "dev/nvidia1"}
    [gpu] = discover(plant(files), affinity=[0], environ={}).gpus
    assert (gpu.device, gpu.numa, gpu.identity) == ("0", 1, "GPU-bbbb")


def test_nvidia_gpus_by_their_devices_alone(plant: Plant) -> None:
    gpus = discover(plant({"dev/nvidia0": "", "dev/nvidia3": ""}), affinity=[0], environ={}).gpus
    assert [(gpu.device, gpu.identity) for gpu in gpus] == [("0", "nvidia0"), ("1", "nvidia3")]


def amd(node: int, gpu_id: int, minor: int, unique: int) -> dict[str, str]:
    base = f"sys/class/kfd/kfd/topology/nodes/{node}"
    return {
        f"{base}/gpu_id": f"{gpu_id}\n",
        f"{base}/properties": f"simd_count 1\ndrm_render_minor {minor}\nunique_id {unique}\n",
        f"dev/dri/renderD{minor}": "",
        f"sys/class/drm/renderD{minor}/device/numa_node": "0\n",
    }


FOUR_AMD = {
    "sys/class/kfd/kfd/topology/nodes/0/gpu_id": "0\n",
    **amd(1, 111, 128, 0xA1),
    **amd(2, 222, 129, 0xA2),
    **amd(10, 333, 130, 0xA3),
}


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        ({}, ["0", "1", "2"]),
        ({"ROCR_VISIBLE_DEVICES": "2,0"}, ["2", "0"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-00000000000000a2"}, ["GPU-00000000000000a2"]),
        ({"ROCR_VISIBLE_DEVICES": "2,0", "HIP_VISIBLE_DEVICES": "1"}, ["0"]),
        ({"ROCR_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_amd_gpus(plant: Plant, environ: dict[str, str], devices: list[str]) -> None:
    gpus = discover(plant(FOUR_AMD), affinity=[0], environ=environ).gpus
    assert [gpu.device for gpu in gpus] == devices
    assert {gpu.vendor for gpu in gpus} <= {"amd"}


def test_amd_gpus_whose_device_is_not_in_the_container(plant: Plant) -> None:
    files = {name: text for name, text in FOUR_AMD.items() if name != "dev/dri/renderD129"}
    gpus = discover(plant(files), affinity=[0], environ={}).gpus
    assert [gpu.identity[-2:] for gpu in gpus] == ["a1", "a3"]


@given(st.sets(st.integers(0, 300)))
def test_cpulists_round_trip(cpus: set[int]) -> None:
    assert parse_cpulist(format_cpulist(cpus)) == sorted(cpus)


def test_discovery_needs_the_standard_library_only() -> None:
    code = (
        "import sys, flux_mpi.resource.division\n"
        "heavy = {'numpy', 'numba', 'mpi4py', 'msgpack', 'dataclasses'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
