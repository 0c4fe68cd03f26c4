"""Which ranks can be used, and why not: online, drained, excluded, with the log of it (RFC 44).

Pure: what happened goes in with its time, and events come out. Ranks that come and go in one turn
share an event, so `flush` is called at the end of each.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, NamedTuple

from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import EMPTY, IDSet
from flux_mpi.resource.inventory import Inventory, ResourceError, parse_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flux_mpi.formats.rv1 import RSet

LOG_LIMIT = 20_000
"""Events kept: a rank that comes and goes all day must not fill the memory."""

REASON_LIMIT = 4096
"""Longest reason for a drain, characters."""

OVERWRITE = {None: 0, "update": 0, "overwrite": 1, "force-overwrite": 2}
"""What each mode of a request means as RFC 44's ``overwrite``."""


class Drained(NamedTuple):
    """Since when a rank is drained (Unix time), and why."""

    timestamp: float
    reason: str | None


class Monitor:
    """The state of an instance's ranks."""

    def __init__(
        self,
        hosts: Sequence[str],
        now: float,
        *,
        exclude: IDSet = EMPTY,
        properties: Mapping[str, IDSet] | None = None,
        expiration: float = 0.0,
    ) -> None:
        """``hosts`` by rank; ``exclude``: ranks never to be used; ``expiration``: Unix time or 0.

        ``properties``: ranks by property (RFC 31).
        """
        self.inventory = Inventory(hosts)
        self.exclude = exclude
        self.properties = dict(properties or {})
        self.expiration = expiration
        self.defined = False
        """Whether R is complete enough to schedule with."""
        self.events: deque[dict[str, Any]] = deque(maxlen=LOG_LIMIT)
        self._fresh: list[dict[str, Any]] = []
        self._online: set[int] = set()
        self._came: set[int] = set()
        self._went: set[int] = set()
        self._given_up: set[int] = set()
        self._drained: dict[int, Drained] = {}
        self._sets: dict[str, IDSet] = {}
        self._resources: RSet | None = None
        everyone = self._all
        self._post(
            now,
            "restart",
            ranks=str(everyone),
            online="",
            nodelist=self.inventory.nodelist(everyone),
        )

    # -- what there is

    @property
    def size(self) -> int:
        return self.inventory.size

    @property
    def _all(self) -> IDSet:
        return IDSet(range(self.size)) if self.size else EMPTY

    @property
    def online(self) -> IDSet:
        """The ranks that have joined and were not lost since."""
        found = self._sets.get("online")
        if found is None:
            found = self._sets["online"] = IDSet(self._online)
        return found

    @property
    def offline(self) -> IDSet:
        return self._all - self.online

    @property
    def drained(self) -> IDSet:
        """The ranks that an administrator took out of scheduling."""
        found = self._sets.get("drained")
        if found is None:
            found = self._sets["drained"] = IDSet(self._drained)
        return found

    @property
    def up(self) -> IDSet:
        """The ranks that jobs may be given: online, not drained, not excluded."""
        found = self._sets.get("up")
        if found is None:
            found = self._sets["up"] = self.online - self.drained - self.exclude
        return found

    @property
    def settled(self) -> bool:
        """Whether no more reports are to be expected: each rank has reported or was lost."""
        missing = self.size - len(self.inventory)
        return missing <= len(self._given_up) and self.inventory.missing <= IDSet(self._given_up)

    def resource_set(self) -> RSet:
        """R of the instance, of the ranks that have reported so far."""
        if self._resources is None:
            self._resources = self.inventory.resource_set(
                self.properties, expiration=self.expiration
            )
        return self._resources

    def drain_info(self) -> dict[str, list[Any]]:
        """``{ranks: [timestamp, reason]}``, ranks drained together in one idset."""
        groups: dict[Drained, list[int]] = {}
        for rank, drained in sorted(self._drained.items()):
            groups.setdefault(drained, []).append(rank)
        return {
            str(IDSet(ranks)): [drained.timestamp, drained.reason or ""]
            for drained, ranks in groups.items()
        }

    # -- ranks come and go

    def hello(self, rank: int, info: Any, now: float) -> bool:
        """``rank`` is there and reports what it has; whether that changed a defined R.

        Raises ResourceError EPROTO or EINVAL.
        """
        changed = self.inventory.report(rank, parse_report(info))
        if changed:
            self._resources = None
        self._given_up.discard(rank)
        if rank in self._went:
            self.flush(now)
        if rank not in self._online:
            self._online.add(rank)
            self._came.add(rank)
            self._sets.clear()
        if changed and self.defined:
            # Late, or back with other hardware: R is what it is from now on.
            self.define(now)
            return True
        return False

    def lost(self, ranks: Iterable[int], now: float) -> IDSet:
        """``ranks`` are gone; those of them that were online."""
        ranks = list(ranks)
        self._given_up.update(ranks)
        gone = {rank for rank in ranks if rank in self._online}
        if gone & self._came:
            self.flush(now)
        if gone:
            self._online -= gone
            self._went |= gone
            self._sets.clear()
        return IDSet(gone)

    def define(self, now: float, method: str = "dynamic-discovery") -> None:
        """R is what the ranks have reported by now; ``method`` as RFC 44 names them."""
        self.flush(now)
        self.defined = True
        self._post(now, "resource-define", method=method)

    def flush(self, now: float) -> None:
        """Record who came and went since the last time."""
        if self._came:
            self._post(now, "online", idset=str(IDSet(self._came)))
            self._came.clear()
        if self._went:
            self._post(now, "offline", idset=str(IDSet(self._went)))
            self._went.clear()

    def update_expiration(self, expiration: float, now: float) -> None:
        """The instance now ends at ``expiration`` (Unix time; 0: no end)."""
        self.expiration = expiration
        self._resources = None
        self._post(now, "resource-update", expiration=int(expiration))

    # -- drain

    def drain(self, targets: Any, reason: Any, mode: Any, now: float) -> IDSet:
        """Take ranks out of scheduling; returns them all.

        ``mode``: None refuses ranks that are drained already; ``update`` gives those a reason that
        have none; ``overwrite`` changes the reason, ``force-overwrite`` the time as well. Raises
        ResourceError: EEXIST, EINVAL, EPROTO.
        """
        ranks = self.inventory.targets(targets)
        overwrite = _overwrite(mode)
        reason = _reason(reason)
        excluded = ranks & self.exclude
        already = EMPTY
        if mode is None:
            already = IDSet(
                rank for rank in ranks if (was := self._drained.get(rank)) and was.reason
            )
        if already or excluded:
            wrong = already | excluded
            state = " or ".join(["already drained"] * bool(already) + ["excluded"] * bool(excluded))
            raise ResourceError(
                errno.EEXIST if already else errno.EINVAL, f"{_ranks(wrong)} {state}"
            )
        self._drain(ranks, reason, overwrite, now)
        context = {"idset": str(ranks), "nodelist": self.inventory.nodelist(ranks)}
        if reason is not None:
            context["reason"] = reason
        self._post(now, "drain", **context, overwrite=overwrite)
        return ranks

    def undrain(self, targets: Any, reason: Any, mode: Any, now: float) -> IDSet:
        """Give ranks back to scheduling; returns them all.

        Without a ``mode`` those that are not drained are refused. Raises ResourceError as `drain`.
        """
        ranks = self.inventory.targets(targets)
        overwrite = _overwrite(mode)
        reason = _reason(reason)
        others = ranks - self.drained
        if mode is None and others:
            raise ResourceError(errno.EEXIST, f"{_ranks(others)} not drained")
        self._undrain(ranks)
        context: dict[str, Any] = {
            "idset": str(ranks),
            "nodelist": self.inventory.nodelist(ranks),
            "overwrite": overwrite,
        }
        if reason is not None:
            context["reason"] = reason
        self._post(now, "undrain", **context)
        return ranks

    def _drain(self, ranks: Iterable[int], reason: str | None, overwrite: int, now: float) -> None:
        for rank in ranks:
            was = self._drained.get(rank)
            if was is None:
                self._drained[rank] = Drained(now, reason)
            elif overwrite or was.reason is None:
                self._drained[rank] = Drained(now if overwrite == 2 else was.timestamp, reason)
        self._sets.clear()

    def _undrain(self, ranks: Iterable[int]) -> None:
        for rank in ranks:
            self._drained.pop(rank, None)
        self._sets.clear()

    # -- the log

    def _post(self, now: float, name: str, **context: Any) -> None:
        event = {"timestamp": now, "name": name, "context": context}
        self.events.append(event)
        self._fresh.append(event)

    @property
    def pending(self) -> bool:
        """Whether there is anything to `flush` or `take_events`."""
        return bool(self._fresh or self._came or self._went)

    def take_events(self) -> list[dict[str, Any]]:
        """The events since the last call, oldest first."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def replay(self, events: Iterable[Mapping[str, Any]], now: float) -> None:
        """Take up the drains that an earlier run of this instance logged.

        Ranks may have changed hosts since: a drained host is found by its name, and forgotten when
        it is gone. Excluded ranks do not stay drained. Raises ResourceError EPROTO.
        """
        for number, event in enumerate(events, 1):
            try:
                name, when, context = event["name"], event["timestamp"], event["context"]
                if name not in ("drain", "undrain"):
                    continue
                ranks = self._moved(context["idset"], context["nodelist"])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ResourceError(
                    errno.EPROTO, f"resource event log, line {number}: {error!r}"
                ) from None
            if name == "drain":
                self._drain(ranks, context.get("reason"), context.get("overwrite", 1), when)
            else:
                self._undrain(ranks)
        both = self.drained & self.exclude
        if both:
            self._undrain(both)
            self._post(
                now, "undrain", idset=str(both), nodelist=self.inventory.nodelist(both), overwrite=0
            )

    def _moved(self, idset: str, nodelist: str) -> list[int]:
        hosts = self.inventory.hosts
        old_hosts = Hostlist.parse(nodelist)
        ranks = []
        for place, rank in enumerate(IDSet.parse(idset)):
            host = old_hosts.nth(place)
            if rank < self.size and hosts[rank] == host:
                ranks.append(rank)
            elif host in hosts:
                ranks.append(hosts.index(host))
        return ranks


def _overwrite(mode: Any) -> int:
    try:
        return OVERWRITE[mode]
    except (KeyError, TypeError):
        raise ResourceError(
            errno.EINVAL,
            f"Invalid mode specified: {mode!r}, allowed: update, overwrite, force-overwrite",
        ) from None


def _reason(reason: Any) -> str | None:
    if reason is None or reason == "":
        return None
    if type(reason) is not str:
        raise ResourceError(errno.EPROTO, f"reason must be a string, found {reason!r}")
    if len(reason) > REASON_LIMIT:
        raise ResourceError(
            errno.EINVAL, f"reason has {len(reason)} characters, at most {REASON_LIMIT}"
        )
    return reason


def _ranks(ranks: IDSet) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {ranks}"
