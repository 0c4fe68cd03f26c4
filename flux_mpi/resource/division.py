"""Sharing a node out among the broker ranks on it. Pure: the same on each of them.

Ranks that a launcher bound to CPUs of their own keep them; ranks that may all use the same CPUs
get equal, contiguous pieces. Ranks agree without a message more than one exchange of `claim`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from flux_mpi.resource.discovery import Gpu, Topology, format_cpulist, parse_cpulist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence
    from typing import TypeVar

    T = TypeVar("T", bound=Hashable)

MAX_EMULATED = 1 << 16
"""Most cores or GPUs that a rank may pretend to have."""


class RankResources(NamedTuple):
    """What one rank gives out."""

    hostname: str
    cores: tuple[frozenset[int], ...]
    """The CPUs of each core; its place here is the core's id in R."""
    gpus: tuple[Gpu, ...]
    """Its place here is the GPU's id in R."""
    memory: int
    """Bytes; 0 when unknown."""
    binding: bool
    """Whether tasks may be bound: not when cores are emulated or shared with other ranks."""
    given: tuple[str, str] | None = None
    """The ids of the cores and GPUs that an instance may use here, as idsets; None: all."""

    def part(self, cores: str, gpus: str) -> RankResources:
        """What a child instance gets that was allocated these cores and GPUs (idsets).

        It calls them by the same ids. Its memory is in proportion to its cores.
        """
        count = len(parse_cpulist(cores))
        memory = self.memory * count // max(1, len(self.cores_given))
        return self._replace(given=(cores, gpus), memory=memory)

    @property
    def cores_given(self) -> Sequence[int]:
        """The ids of the cores that may be used here."""
        return range(len(self.cores)) if self.given is None else parse_cpulist(self.given[0])

    def hello(self, rank: int) -> dict[str, Any]:
        """The payload of ``job-exec.hello``; ids as idsets."""
        cores, gpus = self.given or (
            format_cpulist(range(len(self.cores))),
            format_cpulist(range(len(self.gpus))),
        )
        return {
            "rank": rank,
            "cores": cores,
            "gpus": gpus,
            "memory": self.memory,
            "hostname": self.hostname,
        }


def claim(topology: Topology) -> list[Any]:
    """What a rank must tell the others on its node before `divide`: plain lists and strings."""
    return [format_cpulist(topology.cpus), [gpu.identity for gpu in topology.gpus]]


def divide(
    topology: Topology,
    local_index: int,
    local_size: int,
    *,
    claims: Sequence[Sequence[Any]] | None = None,
    cores_per_rank: int | None = None,
    gpus_per_rank: int | None = None,
) -> RankResources:
    """The part of this node that belongs to rank ``local_index`` of the ``local_size`` here.

    ``claims``: the `claim` of each, by local index; without them all are taken to share what this
    one sees. ``cores_per_rank`` and ``gpus_per_rank`` replace what was found by that many emulated
    ones. Raises ValueError for impossible numbers or claims.
    """
    if not 0 <= local_index < local_size:
        raise ValueError(f"local rank {local_index} of {local_size} ranks on this node")
    for what, count, least in (("cores", cores_per_rank, 1), ("gpus", gpus_per_rank, 0)):
        if count is not None and not least <= count <= MAX_EMULATED:
            raise ValueError(f"{what} per rank must be {least} to {MAX_EMULATED}, found {count}")
    if claims is not None and len(claims) != local_size:
        raise ValueError(f"{len(claims)} claims from {local_size} ranks on this node")
    if cores_per_rank is None:
        cores, binding = _share_cores(topology, local_index, local_size, claims)
    else:
        cores, binding = (frozenset[int](),) * cores_per_rank, False
    if gpus_per_rank is None:
        gpus = _share_gpus(topology, local_index, local_size, claims)
    else:
        gpus = tuple(Gpu("emulated", str(i), -1, str(i)) for i in range(gpus_per_rank))
        binding = False
    return RankResources(topology.hostname, cores, gpus, topology.memory // local_size, binding)


def _share_cores(
    topology: Topology, index: int, size: int, claims: Sequence[Sequence[Any]] | None
) -> tuple[tuple[frozenset[int], ...], bool]:
    cores = [frozenset(core.cpus) for core in topology.cores]
    if not cores:
        raise ValueError("no CPU is available to this process")
    sharing, position = size, index
    if claims is not None:
        masks = [frozenset(parse_cpulist(claimed[0])) for claimed in claims]
        mine = masks[index]
        overlapping = [i for i, mask in enumerate(masks) if mask & mine]
        if any(masks[i] != mine for i in overlapping):
            return _pick_cores(cores, masks, index)
        sharing, position = len(overlapping), overlapping.index(index)
    if sharing > len(cores):
        return (cores[position % len(cores)],), False
    return tuple(_piece(cores, position, sharing)), True


def _pick_cores(
    cores: list[frozenset[int]], masks: list[frozenset[int]], index: int
) -> tuple[tuple[frozenset[int], ...], bool]:
    """Masks that overlap in part: each CPU goes to one of the ranks that may use it."""
    mine = _hand_out(masks)[index]
    picked = [part for core in cores if (part := core & mine)]
    if not picked:
        return (cores[0],), False
    return tuple(picked), True


def _share_gpus(
    topology: Topology, index: int, size: int, claims: Sequence[Sequence[Any]] | None
) -> tuple[Gpu, ...]:
    # Pieces follow the NUMA order of the cores, so that a rank's GPUs are near its cores.
    gpus = sorted(topology.gpus, key=lambda gpu: gpu.numa)
    if claims is None:
        return tuple(_piece(gpus, index, size))
    sets = [frozenset(claimed[1]) for claimed in claims]
    mine = sets[index]
    overlapping = [i for i, others in enumerate(sets) if others & mine]
    if any(sets[i] != mine for i in overlapping):
        kept = _hand_out(sets)[index]
        return tuple(gpu for gpu in gpus if gpu.identity in kept)
    if not overlapping:
        return ()
    return tuple(_piece(gpus, overlapping.index(index), len(overlapping)))


def _piece(items: Sequence[Any], index: int, size: int) -> Sequence[Any]:
    """Piece ``index`` of ``size`` contiguous ones whose lengths differ by at most one."""
    count = len(items)
    return items[index * count // size : (index + 1) * count // size]


def _hand_out(sets: Sequence[Collection[T]]) -> list[set[T]]:
    """Give each item to one of those that claim it: whoever has least so far, then the first."""
    given: list[set[T]] = [set() for _ in sets]
    for item in sorted({item for claimed in sets for item in claimed}):  # type: ignore[type-var]
        takers = [i for i, claimed in enumerate(sets) if item in claimed]
        given[min(takers, key=lambda i: (len(given[i]), i))].add(item)
    return given
