"""What this machine lets this process use: cores, GPUs, memory. Standard library only.

Every rank runs this at start-up, so it reads few and small files. All of it works below a root
folder, ``/`` or a copy of ``/sys`` and ``/proc``. What cannot be read is left out, not guessed.

A *core* is a physical core, as in hwloc and Flux: the CPUs (hardware threads) of it that the
affinity mask allows.
"""

from __future__ import annotations

import os
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" with a number of about this size or more."""


class Core(NamedTuple):
    """A physical core with the CPUs of it that may be used, ascending. −1 where not known."""

    package: int
    numa: int
    cpus: tuple[int, ...]


class Gpu(NamedTuple):
    """A GPU that may be used."""

    vendor: str
    """``nvidia``, ``amd``, or ``emulated``."""
    device: str
    """Its name in ``CUDA_VISIBLE_DEVICES`` or ``ROCR_VISIBLE_DEVICES``."""
    numa: int
    identity: str
    """What tells it from the node's other GPUs: UUID, PCI address, or its name."""


class Topology(NamedTuple):
    """What one process may use of its node, before the node's ranks have shared it out."""

    hostname: str
    cores: tuple[Core, ...]
    """In the order of packages, then NUMA nodes, then CPU numbers."""
    gpus: tuple[Gpu, ...]
    memory: int
    """Bytes: the machine's, or the cgroup's limit where that is less; 0 when unknown."""
    cpu_quota: float | None
    """CPUs' worth of time that the cgroup grants; None without a limit. For information only."""

    @property
    def cpus(self) -> frozenset[int]:
        """All CPUs of all cores."""
        return frozenset(cpu for core in self.cores for cpu in core.cpus)


class _Tree:
    """Small text files below a root folder; what cannot be read is None."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def text(self, *parts: str) -> str | None:
        try:
            with open(self.path(*parts), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            # Absent, or not ours to read: both mean that this source has nothing to say.
            return None

    def number(self, *parts: str) -> int | None:
        text = self.text(*parts)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def names(self, *parts: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(*parts)))
        except OSError:
            return []


def parse_cpulist(text: str) -> list[int]:
    """CPU numbers of a kernel list such as ``0-3,8``, ascending. Raises ValueError."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return sorted(set(cpus))


def format_cpulist(cpus: Iterable[int]) -> str:
    """The inverse of `parse_cpulist`."""
    parts: list[str] = []
    first = last = -2
    for cpu in [*sorted(set(cpus)), None]:
        if cpu is not None and cpu == last + 1:
            last = cpu
            continue
        if first >= 0:
            parts.append(str(first) if first == last else f"{first}-{last}")
        if cpu is not None:
            first = last = cpu
    return ",".join(parts)


def discover(
    root: str = "/",
    *,
    affinity: Collection[int] | None = None,
    environ: Mapping[str, str] | None = None,
    hostname: str | None = None,
) -> Topology:
    """Look at this node as this process may use it.

    ``affinity``: CPUs (default: this process's own mask). ``environ`` holds the variables that
    hide GPUs (default: this process's). Raises nothing: at worst each CPU is taken for a core.
    """
    tree = _Tree(root)
    environ = os.environ if environ is None else environ
    cpus = sorted(os.sched_getaffinity(0) if affinity is None else affinity)
    memory, quota = _limits(tree)
    return Topology(
        hostname=os.uname().nodename if hostname is None else hostname,
        cores=_cores(tree, cpus),
        gpus=(*_nvidia(tree, environ), *_amd(tree, environ)),
        memory=memory,
        cpu_quota=quota,
    )


# -- cores


def _cores(tree: _Tree, cpus: list[int]) -> tuple[Core, ...]:
    base = "sys/devices/system/cpu"
    numa = _numa_of_cpus(tree)
    allowed = set(cpus)
    seen: set[int] = set()
    cores: list[Core] = []
    for cpu in cpus:
        if cpu in seen:
            continue
        topology = f"{base}/cpu{cpu}/topology"
        # The first is the kernel's present name for the second.
        text = tree.text(topology, "core_cpus_list") or tree.text(topology, "thread_siblings_list")
        try:
            siblings = parse_cpulist(text or "")
        except ValueError:
            siblings = []
        mine = sorted({cpu, *(sibling for sibling in siblings if sibling in allowed)} - seen)
        seen.update(mine)
        package = tree.number(topology, "physical_package_id")
        cores.append(Core(-1 if package is None else package, numa.get(cpu, -1), tuple(mine)))
    return tuple(sorted(cores))


def _numa_of_cpus(tree: _Tree) -> dict[int, int]:
    base = "sys/devices/system/node"
    numa: dict[int, int] = {}
    for name in tree.names(base):
        if name.startswith("node") and name[4:].isdigit():
            try:
                cpus = parse_cpulist(tree.text(base, name, "cpulist") or "")
            except ValueError:
                continue
            numa.update(dict.fromkeys(cpus, int(name[4:])))
    return numa


# -- memory and CPU time


def _limits(tree: _Tree) -> tuple[int, float | None]:
    """``(bytes of memory, CPUs' worth of time or None)`` after the cgroup's limits."""
    memory = 0
    for line in (tree.text("proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            fields = line.split()
            if len(fields) >= 2 and fields[1].isdigit():
                memory = int(fields[1]) * 1024
            break
    limits: list[int] = []
    quotas: list[float] = []
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in _ancestors(path):
                limits += _positive(tree.text("sys/fs/cgroup", folder, "memory.max"))
                quotas += _quota(tree.text("sys/fs/cgroup", folder, "cpu.max"))
        names = controllers.split(",")
        for folder in _ancestors(path):
            if "memory" in names:
                limits += _positive(
                    tree.text("sys/fs/cgroup/memory", folder, "memory.limit_in_bytes")
                )
            if "cpu" in names:
                here = os.path.join("sys/fs/cgroup/cpu", folder)
                quota = tree.text(here, "cpu.cfs_quota_us")
                period = tree.text(here, "cpu.cfs_period_us")
                if quota and period:
                    quotas += _quota(f"{quota.strip()} {period.strip()}")
    limit = min(limits, default=0)
    if limit:
        memory = min(memory, limit) if memory else limit
    return memory, min(quotas, default=None)


def _ancestors(path: str) -> Iterator[str]:
    """A cgroup's folder and those above it, the mount's own last; relative paths."""
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        # Seen from inside a cgroup namespace, what is above its root has no name here.
        parts = []
    for count in range(len(parts), -1, -1):
        yield "/".join(parts[:count])


def _positive(text: str | None) -> list[int]:
    text = (text or "").strip()
    return [int(text)] if text.isdigit() and 0 < int(text) < UNLIMITED else []


def _quota(text: str | None) -> list[float]:
    quota, _, period = (text or "").strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(quota) and int(period):
        return [int(quota) / int(period)]
    return []


# -- GPUs


def _nvidia(tree: _Tree, environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """NVIDIA GPUs, numbered in the order of their PCI addresses."""
    minors = {
        int(name[6:])
        for name in tree.names("dev")
        if name.startswith("nvidia") and name[6:].isdigit()
    }
    base = "proc/driver/nvidia/gpus"
    found: list[Gpu] = []
    uuids: list[str] = []
    for address in tree.names(base):
        facts = {
            key.strip(): value.strip()
            for key, _, value in (
                line.partition(":")
                for line in (tree.text(base, address, "information") or "").splitlines()
            )
        }
        minor = facts.get("Device Minor", "")
        if minor.isdigit() and int(minor) not in minors:
            # The driver shows a container all GPUs; it may use those whose device it was given.
            continue
        uuid = facts.get("GPU UUID", "")
        uuids.append(uuid if uuid.startswith("GPU-") and "?" not in uuid else "")
        numa = tree.number("sys/bus/pci/devices", address.lower(), "numa_node")
        index = str(len(found))
        found.append(Gpu("nvidia", index, -1 if numa is None else numa, uuids[-1] or address))
    if not found:
        found = [
            Gpu("nvidia", str(index), -1, f"nvidia{minor}")
            for index, minor in enumerate(sorted(minors))
        ]
        uuids = [""] * len(found)
    return _visible(found, uuids, environ.get("CUDA_VISIBLE_DEVICES"))


def _amd(tree: _Tree, environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """AMD GPUs, numbered in the order of the kernel driver's nodes."""
    base = "sys/class/kfd/kfd/topology/nodes"
    found: list[Gpu] = []
    uuids: list[str] = []
    numbers = [int(name) for name in tree.names(base) if name.isdigit()]
    for number in sorted(numbers):
        # 0 for CPUs; not readable where the device cgroup hides the GPU.
        if not tree.number(base, str(number), "gpu_id"):
            continue
        facts: dict[str, int] = {}
        for line in (tree.text(base, str(number), "properties") or "").splitlines():
            key, _, value = line.partition(" ")
            if value.strip().isdigit():
                facts[key] = int(value)
        minor = facts.get("drm_render_minor", 0)
        if minor and not os.path.exists(tree.path(f"dev/dri/renderD{minor}")):
            continue
        unique = facts.get("unique_id", 0)
        uuids.append(f"GPU-{unique:016x}" if unique else "")
        numa = tree.number("sys/class/drm", f"renderD{minor}", "device/numa_node")
        index = str(len(found))
        identity = uuids[-1] or f"kfd{number}"
        found.append(Gpu("amd", index, -1 if numa is None else numa, identity))
    visible = _visible(found, uuids, environ.get("ROCR_VISIBLE_DEVICES"))
    hip = environ.get("HIP_VISIBLE_DEVICES")
    # HIP counts among what ROCR left; the device keeps the name that ROCR knows.
    return _visible(list(visible), [gpu.identity for gpu in visible], hip, keep=True)


def _visible(
    found: list[Gpu], uuids: list[str], variable: str | None, *, keep: bool = False
) -> tuple[Gpu, ...]:
    """Those of ``found`` that ``variable`` names, in its order.

    As the vendors' runtimes read it: numbers or (the start of) UUIDs, and the first that names
    nothing, or one for the second time, ends the list. Each keeps the name it was given there.
    """
    if variable is None:
        return tuple(found)
    chosen: list[Gpu] = []
    for word in variable.split(","):
        word = word.strip()
        if word.startswith("MIG-"):
            # A slice of a GPU has no files of its own: it is there if the variable says so.
            matching = [Gpu("nvidia", word, -1, word)]
        elif word.isdigit():
            matching = [found[int(word)]] if int(word) < len(found) else []
        else:
            matching = [
                gpu
                for gpu, uuid in zip(found, uuids)
                if word.startswith("GPU-") and uuid.lower().startswith(word.lower())
            ]
        if len(matching) != 1 or any(matching[0].identity == gpu.identity for gpu in chosen):
            break
        chosen.append(matching[0] if keep else matching[0]._replace(device=word))
    return tuple(chosen)
