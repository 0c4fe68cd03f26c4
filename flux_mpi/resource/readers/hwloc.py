"""hwloc XML: a cluster of one node, with the parts of the machine that a list allows below it.

Objects that are no resources, or not on the list, are left out, and what is below them hangs from
what is above them. The mapping is Fluxion's (flux-sched, resource/readers).
"""

from __future__ import annotations

from flux_mpi.resource.graph import CONTAINMENT, ResourceGraph
from flux_mpi.resource.readers import hostname
from flux_mpi.resource.readers.errors import (
    MAX_SIZE,
    ReaderError,
    checked_name,
    refusal,
)
from flux_mpi.resource.readers.hwloc_topology import (
    FORMAT,
    OSDEV_BLOCK,
    OSDEV_COPROC,
    OSDEV_GPU,
    Object,
    described,
    info,
    read,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

# By hwloc's type: the resource's type, its basename, and the name by which a list allows it.
_PLAIN = {
    "Group": ("group", "group", "group"),
    "NUMANode": ("numanode", "numanode", "numanode"),
    "Package": ("socket", "socket", "socket"),
    "L1Cache": ("cache", "L1cache", "L1cache"),
    "L2Cache": ("cache", "L2cache", "L2cache"),
    "L3Cache": ("cache", "L3cache", "L3cache"),
    "Core": ("core", "core", "core"),
    "PU": ("pu", "pu", "pu"),
}


class _Resource:
    """What an object is as a vertex."""

    __slots__ = ("basename", "id", "name", "properties", "size", "type")

    def __init__(self, type: str, basename: str, id: int) -> None:
        self.type = type
        self.basename = basename
        self.id = id
        self.name: str | None = None
        self.size = 1
        self.properties: dict[str, str] = {}


def load(text: str, *, allowlist: Container[str] | None = None, rank: int = -1) -> ResourceGraph:
    """The graph of a topology, frozen; of an empty text, a cluster alone.

    Raises `ReaderError`.
    """
    if not -1 <= rank < 1 << 31:
        raise refusal(FORMAT, "rank", f"an integer from -1 to {(1 << 31) - 1}", rank)
    graph = ResourceGraph()
    cluster = graph.add_vertex("cluster", "cluster", 0)
    graph.set_root(CONTAINMENT, cluster)
    if text:
        n_nodes = 0
        stack = [(read(text), cluster)]
        while stack:
            obj, above = stack.pop()
            found = _resource(obj, allowlist)
            if found is not None:
                own = rank
                if found.type == "node" and rank == -1:
                    own = n_nodes
                    n_nodes += 1
                vertex = graph.add_vertex(
                    found.type,
                    found.basename,
                    found.id,
                    size=found.size,
                    rank=own,
                    name=found.name,
                    properties=found.properties,
                )
                graph.add_edge(above, vertex)
                above = vertex
            stack += [(child, above) for child in reversed(obj.below())]
    graph.freeze()
    return graph


def _resource(obj: Object, allowlist: Container[str] | None) -> _Resource | None:
    """What an object is as a vertex, None when it is none."""

    def allowed(name: str) -> bool:
        # A list without a name allows everything; one that cannot say whether it is empty has some.
        return not allowlist or name in allowlist

    if obj.type == "Machine":
        host = info(obj, "HostName")
        return _node(obj, host) if host is not None and allowed("node") else None
    if obj.type in _PLAIN:
        type, basename, name = _PLAIN[obj.type]
        if not allowed(name):
            return None
        found = _Resource(type, basename, obj.index)
        if type == "cache":
            found.size = _size(obj, "cache_size", obj.cache_size // 1024)
        return found
    if obj.type == "OSDev":
        if obj.osdev == OSDEV_COPROC or (obj.osdev == OSDEV_GPU and obj.name.startswith("rsmi")):
            return _gpu(obj) if allowed("gpu") else None
        if obj.osdev == OSDEV_BLOCK:
            return _storage(obj) if allowed("storage") else None
    return None


def _node(obj: Object, host: str) -> _Resource:
    place = f"{obj.place} info HostName"
    basename, id = hostname.split(FORMAT, place, checked_name(FORMAT, place, host))
    found = _Resource("node", basename, id)
    found.name = host
    return found


def _gpu(obj: Object) -> _Resource:
    """A GPU is known by the number in its device's name, as hwloc has none for GPUs alone."""
    name = obj.name
    id = obj.index
    if not name:
        raise refusal(FORMAT, f"{obj.place} name", "a device's name", None)
    if name.startswith(("cuda", "rsmi")):
        id = _leading_integer(name[4:])
    elif name.startswith("opencl"):
        # Platform and device: opencl0d1.
        _platform, d, device = name[6:].partition("d")
        if not d:
            raise refusal(FORMAT, f"{obj.place} name", "opencl, a number, d, a number", name)
        id = _leading_integer(device)
    if not -(1 << 31) <= id < 1 << 31:
        raise refusal(FORMAT, f"{obj.place} name", "a number of 32 bits", name)
    return _Resource("gpu", "gpu", id)


def _storage(obj: Object) -> _Resource:
    """A block device, its size in GB: hwloc has it in units of 1000 bytes."""
    text = info(obj, "Size")
    if text is None:
        raise ReaderError(f"{FORMAT}: {described(obj)}: expected an info Size, found none")
    kilobytes = _leading_integer(text)
    if kilobytes <= 0:
        raise refusal(FORMAT, f"{described(obj)} info Size", "a size in kB", text)
    found = _Resource("storage", "storage", obj.index)
    found.size = _size(obj, "info Size", kilobytes // 1_000_000)
    place = f"{described(obj)} info LinuxDeviceID"
    device = info(obj, "LinuxDeviceID")
    found.properties["LinuxDeviceID"] = checked_name(
        FORMAT, place, "-1" if device is None else device, empty=True
    )
    return found


def _size(obj: Object, what: str, size: int) -> int:
    if not 0 <= size <= MAX_SIZE:
        raise refusal(FORMAT, f"{described(obj)} {what}", f"a size up to {MAX_SIZE}", size)
    return size


def _leading_integer(text: str) -> int:
    """What C's atoi makes of it: the integer that it begins with, or 0."""
    text = text.lstrip(" \t\n\v\f\r")
    sign = text[:1] if text[:1] in ("+", "-") else ""
    end = len(sign)
    while end < len(text) and end < 20 and text[end] in "0123456789":
        end += 1
    return int(text[:end]) if end > len(sign) else 0
