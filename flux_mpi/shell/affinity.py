"""Dividing a job's cores and GPUs on one rank among its tasks there.

Semantics of the shell options ``cpu-affinity`` and ``gpu-affinity`` (flux-shell-options(7)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from flux_mpi.formats.idset import IDSet

ON, OFF, PER_TASK, MAP = "on", "off", "per-task", "map"


class AffinityError(ValueError):
    """A cpu-affinity or gpu-affinity option that makes no sense; the text says why."""


def parse(option: str, value: object) -> tuple[str, tuple[IDSet, ...]]:
    """(mode, the sets of ``map:``) of an affinity option's value; None = the default, ``on``.

    ``verbose`` and ``dry-run`` words before the mode are accepted; ``dry-run`` binds nothing.
    Raises AffinityError.
    """
    if value is None or value is True or value == 1:
        return ON, ()
    if value is False or value == 0:
        return OFF, ()
    if not isinstance(value, str):
        raise AffinityError(f"{option}: expected a word, found {value!r}")
    rest = value
    dry = False
    while True:
        word, comma, tail = rest.partition(",")
        if word not in ("verbose", "dry-run"):
            break
        dry = dry or word == "dry-run"
        rest = tail if comma else ON
    if rest in (ON, OFF, PER_TASK):
        return (OFF if dry else rest), ()
    if rest.startswith("map:"):
        try:
            sets = tuple(_parse_set(item) for item in rest[4:].split(";"))
        except ValueError as error:
            raise AffinityError(f"{option}: {value!r}: {error}") from None
        return (OFF if dry else MAP), sets
    raise AffinityError(f"{option}: expected on, off, per-task or map:LIST, found {value!r}")


def _parse_set(text: str) -> IDSet:
    """One entry of ``map:``: an idset, or a bitmask in hexadecimal."""
    text = text.strip()
    if text.startswith("0x"):
        return IDSet.from_mask(int(text.replace(",", ""), 16))
    return IDSet.parse(text)


def divide(ids: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """``parts`` shares of ``ids``: contiguous and as even as can be.

    With fewer ids than parts they are shared, as evenly as can be.
    """
    count = len(ids)
    if count == 0:
        return [()] * parts
    if count < parts:
        return [(ids[part * count // parts],) for part in range(parts)]
    bounds = [part * count // parts for part in range(parts + 1)]
    return [tuple(ids[a:b]) for a, b in pairwise(bounds)]


class Topology:
    """Which CPUs make up the logical cores of this rank; none = cores are emulated: no binding.

    ``gpu_names`` are its GPUs as the vendor's runtime calls them, ``gpu_variable`` the environment
    variable in which that runtime looks for those it may use.
    """

    def __init__(
        self,
        cpus_of_core: Mapping[int, Sequence[int]] | None = None,
        *,
        gpu_names: Sequence[str] = (),
        gpu_variable: str = "CUDA_VISIBLE_DEVICES",
    ) -> None:
        self.gpu_names = tuple(gpu_names)
        self.gpu_variable = gpu_variable.encode()
        self._cpus_of_core = {k: tuple(v) for k, v in (cpus_of_core or {}).items()}
        self._cache: dict[str, tuple[int, ...] | None] = {}

    @property
    def binds(self) -> bool:
        return bool(self._cpus_of_core)

    def cpus(self, cores: str | None) -> tuple[int, ...] | None:
        """CPU numbers of an idset of cores; None = do not bind."""
        if cores is None or not self._cpus_of_core:
            return None
        if cores not in self._cache:
            if len(self._cache) > 4096:
                self._cache.clear()
            self._cache[cores] = self._of(IDSet.parse(cores))
        return self._cache[cores]

    def _of(self, cores: Sequence[int] | IDSet) -> tuple[int, ...] | None:
        found = sorted({cpu for core in cores for cpu in self._cpus_of_core.get(core, ())})
        return tuple(found) or None

    def shares(
        self, mode: str, sets: Sequence[IDSet], cores: str | None, ntasks: int
    ) -> list[tuple[int, ...] | None]:
        """For each of ``ntasks`` local tasks the CPUs it may use, or None."""
        if mode == OFF:
            return [None] * ntasks
        if mode == MAP:
            # The user's own numbers, and the user's own responsibility; the last one repeats.
            return [tuple(sets[min(task, len(sets) - 1)]) or None for task in range(ntasks)]
        if mode == PER_TASK and cores is not None and self._cpus_of_core:
            shares = divide(list(IDSet.parse(cores)), ntasks)
            return [self._of(share) for share in shares]
        return [self.cpus(cores)] * ntasks


def gpu_shares(
    mode: str, sets: Sequence[IDSet], gpus: str, ntasks: int, names: Sequence[str] = ()
) -> list[str]:
    """For each of ``ntasks`` local tasks the GPUs it shall see; "-1" = none.

    ``names``: what the vendor's runtime calls the rank's GPU 0, 1, …; without, their numbers.
    """
    if mode == MAP:
        # The user's own numbers, and the user's own responsibility; the last one repeats.
        shares = [tuple(sets[min(task, len(sets) - 1)]) for task in range(ntasks)]
        return [",".join(map(str, share)) or "-1" for share in shares]
    ids = list(IDSet.parse(gpus)) if gpus else []
    shares = divide(ids, ntasks) if mode == PER_TASK else [tuple(ids)] * ntasks
    return [
        ",".join(names[gpu] if gpu < len(names) else str(gpu) for gpu in share) or "-1"
        for share in shares
    ]
