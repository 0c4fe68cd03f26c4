"""Concrete resources, R version 1 (RFC 20): which cores and GPUs of which ranks, and their hosts.

What an instance owns, what a job holds and what is free are all an `RSet`.
"""

from __future__ import annotations

import json

from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import EMPTY, IDSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

MAX_RANKS = 1 << 22
"""More ranks than this in one R are refused rather than expanded."""

ILLEGAL_IN_PROPERTY = "!&'\"^`|()"


class RSetError(ValueError):
    """An R that cannot be accepted; the text names the key, what was found, what is allowed."""


def _fail(key: str, found: object, allowed: str) -> RSetError:
    shown = "nothing" if found is None else repr(found)
    return RSetError(
        f"R: {key}: expected {allowed}, found {shown if len(shown) <= 64 else shown[:61] + '...'}"
    )


def _idset(text: object, key: str) -> IDSet:
    if not isinstance(text, str):
        raise _fail(key, text, "an idset (RFC 22)")
    try:
        return IDSet.parse(text)
    except ValueError as err:
        raise RSetError(f"R: {key}: {err}") from None


class RSet:
    """Resources by rank. Treat it as immutable: operations return new sets.

    * ``cores[rank]`` and ``gpus[rank]``: `IDSet` of logical ids; every rank is in ``cores``, only
      ranks with GPUs are in ``gpus``
    * ``hosts[rank]``: host name
    * ``properties[name]``: the ranks that have the property (RFC 31)
    * ``nslots``: slots of a scheduler's allocation, None when it is no allocation
    * ``starttime``, ``expiration``: Unix seconds, 0 when unset
    * ``scheduling``: the scheduler's own data, passed on unread, or None
    """

    __slots__ = (
        "cores",
        "expiration",
        "gpus",
        "hosts",
        "nslots",
        "properties",
        "scheduling",
        "starttime",
    )

    def __init__(
        self,
        cores: Mapping[int, IDSet] | None = None,
        gpus: Mapping[int, IDSet] | None = None,
        hosts: Mapping[int, str] | None = None,
        *,
        properties: Mapping[str, IDSet] | None = None,
        nslots: int | None = None,
        starttime: float = 0.0,
        expiration: float = 0.0,
        scheduling: dict[str, Any] | None = None,
    ) -> None:
        """Ranks with neither cores nor GPUs are left out; every other rank needs a host name.

        Raises `RSetError` when one has none.
        """
        gpus = gpus or {}
        named = hosts or {}
        mine: dict[int, IDSet] = dict(cores or {})
        for rank in gpus:
            mine.setdefault(rank, EMPTY)
        ranks = sorted(rank for rank, ids in mine.items() if ids or gpus.get(rank))
        for rank in ranks:
            if rank not in named:
                raise RSetError(f"R: nodelist: expected a host for rank {rank}, found nothing")
        self.cores: dict[int, IDSet] = {rank: mine[rank] for rank in ranks}
        self.gpus: dict[int, IDSet] = {rank: gpus[rank] for rank in ranks if gpus.get(rank)}
        self.hosts: dict[int, str] = {rank: named[rank] for rank in ranks}
        self.properties: dict[str, IDSet] = {}
        if properties:
            here = self.ranks
            for name, owners in properties.items():
                if owners & here:
                    self.properties[name] = owners & here
        self.nslots = nslots
        self.starttime = starttime
        self.expiration = expiration
        self.scheduling = scheduling

    @classmethod
    def parse(cls, obj: Mapping[str, Any] | str | bytes) -> RSet:
        """The set in ``obj``, a JSON object of RFC 20 or its text; raises `RSetError`."""
        if isinstance(obj, (str, bytes)):
            try:
                obj = json.loads(obj)
            except (ValueError, RecursionError) as err:
                raise RSetError(f"R: expected a JSON object, found no JSON ({err})") from None
        if not isinstance(obj, dict):
            raise RSetError(f"R: expected a JSON object, found {type(obj).__name__}")
        version = obj.get("version")
        if version != 1 or isinstance(version, bool):
            raise _fail("version", version, "1")
        execution = obj.get("execution")
        if not isinstance(execution, dict):
            raise _fail("execution", execution, "an object")
        cores, gpus = _parse_rlite(execution.get("R_lite"))
        ranks = IDSet(cores)
        names = _parse_nodelist(execution.get("nodelist"))
        if len(names) != len(ranks):
            raise _fail(
                "execution.nodelist", len(names), f"one host for each of {len(ranks)} ranks"
            )
        nslots = execution.get("nslots")
        if nslots is not None and (not isinstance(nslots, int) or isinstance(nslots, bool)):
            raise _fail("execution.nslots", nslots, "an integer above 0")
        if nslots is not None and nslots < 1:
            raise _fail("execution.nslots", nslots, "an integer above 0")
        times = {}
        for key in ("starttime", "expiration"):
            value = execution.get(key, 0.0)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < float("inf"):
                raise _fail(f"execution.{key}", value, "Unix seconds, or 0")
            times[key] = float(value)
        if times["starttime"] and 0 < times["expiration"] <= times["starttime"]:
            raise _fail("execution.expiration", times["expiration"], "a time after starttime")
        scheduling = obj.get("scheduling")
        if scheduling is not None and not isinstance(scheduling, dict):
            raise _fail("scheduling", scheduling, "an object")
        return cls(
            cores,
            gpus,
            dict(zip(ranks, names, strict=True)),
            properties=_parse_properties(execution.get("properties"), ranks),
            nslots=nslots,
            scheduling=scheduling,
            **times,
        )

    def to_dict(
        self, starttime: float | None = None, expiration: float | None = None
    ) -> dict[str, Any]:
        """R as a JSON object, in the order in which Flux prints it; times default to the set's."""
        execution: dict[str, Any] = {
            "R_lite": [
                {
                    "rank": str(ranks),
                    "children": {"core": str(cores), **({"gpu": str(gpus)} if gpus else {})},
                }
                for ranks, cores, gpus in self.groups()
            ],
            "starttime": float(self.starttime if starttime is None else starttime),
            "expiration": float(self.expiration if expiration is None else expiration),
        }
        if self.nslots is not None:
            execution["nslots"] = self.nslots
        execution["nodelist"] = [str(self.hostlist)] if self.hosts else []
        if self.properties:
            execution["properties"] = {name: str(ids) for name, ids in self.properties.items()}
        obj: dict[str, Any] = {"version": 1, "execution": execution}
        if self.scheduling is not None:
            obj["scheduling"] = self.scheduling
        return obj

    def groups(self) -> list[tuple[IDSet, IDSet, IDSet]]:
        """``(ranks, cores, gpus)``, ranks with equal resources together, by smallest rank."""
        alike: dict[tuple[IDSet, IDSet], list[int]] = {}
        for rank, cores in self.cores.items():
            alike.setdefault((cores, self.gpus.get(rank, EMPTY)), []).append(rank)
        return [(IDSet(ranks), cores, gpus) for (cores, gpus), ranks in alike.items()]

    def summary(self) -> str:
        """In a few words, as in an ``alloc`` event: ``rank[0-1]/core[0-3],gpu0 rank2/core0``."""
        words = []
        for ranks, cores, gpus in self.groups():
            children = []
            if cores:
                children.append(f"core{cores.bracketed()}")
            if gpus:
                children.append(f"gpu{gpus.bracketed()}")
            words.append(f"rank{ranks.bracketed()}/{','.join(children)}")
        return " ".join(words)

    @property
    def ranks(self) -> IDSet:
        return IDSet(self.cores)

    @property
    def hostlist(self) -> Hostlist:
        """The hosts in the order of their ranks, one for each rank."""
        return Hostlist(self.hosts.values())

    @property
    def nnodes(self) -> int:
        """Number of ranks."""
        return len(self.cores)

    @property
    def ncores(self) -> int:
        return sum(map(len, self.cores.values()))

    @property
    def ngpus(self) -> int:
        return sum(map(len, self.gpus.values()))

    def ranks_of(self, hosts: Hostlist) -> IDSet:
        """The ranks on any of ``hosts``."""
        names = set(hosts)
        return IDSet(rank for rank, host in self.hosts.items() if host in names)

    def subset(self, ranks: Iterable[int]) -> RSet:
        """Only those of ``ranks`` that are here."""
        wanted = ranks if isinstance(ranks, (IDSet, set, frozenset)) else set(ranks)
        return self._with(
            {rank: ids for rank, ids in self.cores.items() if rank in wanted},
            {rank: ids for rank, ids in self.gpus.items() if rank in wanted},
        )

    def _with(
        self,
        cores: dict[int, IDSet],
        gpus: dict[int, IDSet],
        hosts: Mapping[int, str] | None = None,
        properties: Mapping[str, IDSet] | None = None,
    ) -> RSet:
        return RSet(
            cores,
            gpus,
            self.hosts if hosts is None else hosts,
            properties=self.properties if properties is None else properties,
            starttime=self.starttime,
            expiration=self.expiration,
            scheduling=self.scheduling,
        )

    def __or__(self, other: RSet) -> RSet:
        """All of both; raises `RSetError` when a rank is on different hosts in them."""
        if not isinstance(other, RSet):
            return NotImplemented
        for rank, host in other.hosts.items():
            if self.hosts.get(rank, host) != host:
                raise RSetError(
                    f"R: rank {rank} is on {self.hosts[rank]} in one set and on {host} in the other"
                )
        properties = dict(self.properties)
        for name, ranks in other.properties.items():
            properties[name] = properties.get(name, EMPTY) | ranks
        return self._with(
            _merge(self.cores, other.cores),
            _merge(self.gpus, other.gpus),
            {**self.hosts, **other.hosts},
            properties,
        )

    def __sub__(self, other: RSet) -> RSet:
        """What is here and not in ``other``; ranks with nothing left are gone."""
        if not isinstance(other, RSet):
            return NotImplemented
        return self._with(
            {rank: ids - other.cores.get(rank, EMPTY) for rank, ids in self.cores.items()},
            {rank: ids - other.gpus.get(rank, EMPTY) for rank, ids in self.gpus.items()},
        )

    def __and__(self, other: RSet) -> RSet:
        """What is in both."""
        if not isinstance(other, RSet):
            return NotImplemented
        return self._with(
            {rank: ids & other.cores.get(rank, EMPTY) for rank, ids in self.cores.items()},
            {rank: ids & other.gpus.get(rank, EMPTY) for rank, ids in self.gpus.items()},
        )

    def reranked(self) -> RSet:
        """The same resources with ranks 0, 1, … in their order: R as a child instance sees it."""
        new = {rank: i for i, rank in enumerate(self.cores)}
        return self._with(
            {new[rank]: ids for rank, ids in self.cores.items()},
            {new[rank]: ids for rank, ids in self.gpus.items()},
            {new[rank]: host for rank, host in self.hosts.items()},
            {name: IDSet(new[r] for r in ranks) for name, ranks in self.properties.items()},
        )

    def __bool__(self) -> bool:
        return bool(self.cores)

    def __eq__(self, other: object) -> bool:
        """Equal resources on equal hosts; times, slots and properties do not count."""
        if not isinstance(other, RSet):
            return NotImplemented
        return (self.cores, self.gpus, self.hosts) == (other.cores, other.gpus, other.hosts)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<RSet {self.summary() or 'empty'}>"


def _merge(one: dict[int, IDSet], other: dict[int, IDSet]) -> dict[int, IDSet]:
    merged = dict(one)
    for rank, ids in other.items():
        merged[rank] = merged[rank] | ids if rank in merged else ids
    return merged


def _parse_rlite(entries: object) -> tuple[dict[int, IDSet], dict[int, IDSet]]:
    if not isinstance(entries, list):
        raise _fail("execution.R_lite", entries, "a list")
    cores: dict[int, IDSet] = {}
    gpus: dict[int, IDSet] = {}
    for i, entry in enumerate(entries):
        key = f"execution.R_lite[{i}]"
        if not isinstance(entry, dict):
            raise _fail(key, entry, "an object")
        ranks = _idset(entry.get("rank"), f"{key}.rank")
        if len(ranks) > MAX_RANKS or len(cores) > MAX_RANKS:
            raise _fail(f"{key}.rank", len(ranks), f"at most {MAX_RANKS} ranks")
        children = entry.get("children")
        if not isinstance(children, dict):
            raise _fail(f"{key}.children", children, "an object")
        for child in children:
            if child not in ("core", "gpu"):
                raise _fail(f"{key}.children", child, "only core and gpu")
        core = _idset(children.get("core"), f"{key}.children.core")
        gpu = _idset(children["gpu"], f"{key}.children.gpu") if "gpu" in children else EMPTY
        if not core and not gpu:
            raise _fail(f"{key}.children.core", children.get("core"), "at least one id")
        for rank in ranks:
            cores[rank] = cores[rank] | core if rank in cores else core
            if gpu:
                gpus[rank] = gpus[rank] | gpu if rank in gpus else gpu
    return cores, gpus


def _parse_nodelist(entries: object) -> Hostlist:
    if not isinstance(entries, list):
        raise _fail("execution.nodelist", entries, "a list of hostlists")
    names = Hostlist()
    for i, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise _fail(f"execution.nodelist[{i}]", entry, "a hostlist (RFC 29)")
        try:
            names.append(entry)
        except ValueError as err:
            raise RSetError(f"R: execution.nodelist[{i}]: {err}") from None
    return names


def _parse_properties(obj: object, ranks: IDSet) -> dict[str, IDSet]:
    if obj is None:
        return {}
    if not isinstance(obj, dict):
        raise _fail("execution.properties", obj, "an object")
    properties = {}
    for name, text in obj.items():
        if not isinstance(name, str) or not name or any(c in ILLEGAL_IN_PROPERTY for c in name):
            raise _fail("execution.properties", name, f"names without any of {ILLEGAL_IN_PROPERTY}")
        owners = _idset(text, f"execution.properties.{name[:32]}")
        if not owners <= ranks:
            raise _fail(f"execution.properties.{name[:32]}", text, f"ranks out of {ranks}")
        properties[name] = owners
    return properties
