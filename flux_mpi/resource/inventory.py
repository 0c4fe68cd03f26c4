"""What each rank reported to have, and the instance's R (RFC 20, version 1) made of it."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import EMPTY, IDSet
from flux_mpi.formats.rv1 import RSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_CHILDREN = 1 << 20
"""Most cores or GPUs that one rank may report."""

MAX_TARGETS = 1 << 20
"""Most host names taken in one request."""


class ResourceError(Exception):
    """A request that cannot be met: POSIX number and text, in Flux's words."""

    def __init__(self, errnum: int, text: str) -> None:
        super().__init__(text)
        self.errnum = errnum


class Report(NamedTuple):
    """What a rank said hello with."""

    cores: IDSet
    gpus: IDSet
    memory: int
    """Bytes; 0 when unknown."""
    hostname: str


def parse_report(info: Any) -> Report:
    """The payload of ``job-exec.hello``: ``{cores, gpus, memory, hostname}``.

    ``cores`` and ``gpus`` are idsets as text, or counts. Raises ResourceError EPROTO naming the
    field.
    """
    if type(info) is not dict:
        raise ResourceError(errno.EPROTO, f"hello must be a map, found {type(info).__name__}")
    memory = info.get("memory", 0)
    hostname = info.get("hostname")
    if type(memory) is not int or memory < 0:
        raise ResourceError(errno.EPROTO, f"memory must be bytes, found {memory!r}")
    if type(hostname) is not str or not hostname:
        raise ResourceError(errno.EPROTO, f"hostname must be a string, found {hostname!r}")
    cores = _ids(info, "cores")
    if not cores:
        raise ResourceError(errno.EPROTO, "cores: a rank needs one core at least, found none")
    return Report(cores, _ids(info, "gpus"), memory, hostname)


def _ids(info: Mapping[str, Any], name: str) -> IDSet:
    value = info.get(name, "")
    try:
        if type(value) is int and value >= 0:
            ids = IDSet(range(value)) if value else EMPTY
        elif type(value) is str:
            ids = IDSet.parse(value)
        else:
            raise ValueError(f"expected an idset or a count, found {value!r}")
    except ValueError as error:
        raise ResourceError(errno.EPROTO, f"{name}: {error}") from None
    if len(ids) > MAX_CHILDREN:
        raise ResourceError(errno.EPROTO, f"{name}: {len(ids)} of them, at most {MAX_CHILDREN}")
    return ids


class Inventory:
    """The reports of an instance's ranks, by rank."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """``hosts``: the host name of each rank, as the overlay knows it."""
        self.hosts = list(hosts)
        self.size = len(self.hosts)
        self._reports: dict[int, Report] = {}

    def __len__(self) -> int:
        return len(self._reports)

    @property
    def missing(self) -> IDSet:
        """The ranks that have not reported."""
        return IDSet(rank for rank in range(self.size) if rank not in self._reports)

    def report(self, rank: int, report: Report) -> bool:
        """Record ``report``; False when it says nothing new. Raises ResourceError EINVAL."""
        if not 0 <= rank < self.size:
            raise ResourceError(errno.EINVAL, f"rank {rank} is out of range 0-{self.size - 1}")
        if self._reports.get(rank) == report:
            return False
        self._reports[rank] = report
        self.hosts[rank] = report.hostname
        return True

    def resource_set(
        self, properties: Mapping[str, IDSet] | None = None, *, expiration: float = 0.0
    ) -> RSet:
        """R of the ranks that have reported.

        ``properties``: ranks by property (RFC 31), those that have not reported left out.
        ``expiration``: Unix time, 0 for none.
        """
        reports = sorted(self._reports.items())
        return RSet(
            {rank: report.cores for rank, report in reports},
            {rank: report.gpus for rank, report in reports if report.gpus},
            {rank: report.hostname for rank, report in reports},
            properties=properties,
            expiration=expiration,
        )

    def totals(self) -> dict[str, int]:
        """``{nnodes, ncores, ngpus, memory}`` of the ranks that have reported; memory in bytes."""
        reports = self._reports.values()
        return {
            "nnodes": len(reports),
            "ncores": sum(len(report.cores) for report in reports),
            "ngpus": sum(len(report.gpus) for report in reports),
            "memory": sum(report.memory for report in reports),
        }

    def nodelist(self, ranks: IDSet) -> str:
        """The host names of ``ranks`` as a hostlist."""
        return str(Hostlist(self.hosts[rank] for rank in ranks))

    def targets(self, text: Any) -> IDSet:
        """The ranks that ``text`` names: an idset of ranks, or a hostlist.

        A host with several ranks stands for all of them. Raises ResourceError EINVAL (or EPROTO
        when it is no text) in Flux's words.
        """
        if type(text) is not str:
            raise ResourceError(errno.EPROTO, f"targets must be a string, found {text!r}")
        try:
            ranks = IDSet.parse(text)
        except ValueError:
            ranks = self._hosts_to_ranks(text)
        if not ranks:
            raise ResourceError(errno.EINVAL, "idset is empty")
        if ranks.last >= self.size:
            raise ResourceError(errno.EINVAL, "idset is out of range")
        return ranks

    def _hosts_to_ranks(self, text: str) -> IDSet:
        try:
            hosts = Hostlist.parse(text)
            if len(hosts) > MAX_TARGETS:
                raise ValueError(f"{len(hosts)} hosts, at most {MAX_TARGETS}")
            wanted = list(hosts)
        except ValueError as error:
            raise ResourceError(errno.EINVAL, f"invalid targets: {error}") from None
        by_host: dict[str, list[int]] = {}
        for rank, host in enumerate(self.hosts):
            by_host.setdefault(host, []).append(rank)
        unknown = [host for host in wanted if host not in by_host]
        if unknown:
            names = str(Hostlist(dict.fromkeys(unknown)))
            names = names if len(names) <= 200 else names[:197] + "..."
            raise ResourceError(errno.EINVAL, f"invalid targets: invalid hosts: {names}")
        return IDSet(rank for host in wanted for rank in by_host[host])
