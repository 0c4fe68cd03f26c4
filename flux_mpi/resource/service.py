"""The ``resource.*`` requests of ``docs/protocol.md``, answered from a `Monitor`. Rank 0 only."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from flux_mpi.broker.service import Broker, Request, ServiceError
from flux_mpi.formats.eventlog import compact
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.rv1 import RSet
from flux_mpi.resource.config import ResourceConfig
from flux_mpi.resource.inventory import ResourceError
from flux_mpi.resource.monitor import Monitor

DEFINE_AFTER = 60.0
"""Seconds after which R is what has reported until then: a rank that hangs must not hang all."""

INFO, WARNING = 6, 4


class Listener(Protocol):
    """Who must know what can be scheduled: the job room.

    ``define`` comes first, once every rank has reported, and again if R ever changes; the other
    two only after it.
    """

    def define(self, resources: RSet, up: IDSet) -> None:
        """The instance has ``resources``, of which the ranks in ``up`` can be used now."""

    def change(self, up: IDSet) -> None:
        """From now on the ranks in ``up`` can be used, and no others. Running jobs go on."""

    def lost(self, ranks: IDSet) -> None:
        """``ranks`` are gone with what ran there; `change` has been called."""


class Keeper(Protocol):
    """Where records are kept: the key-value store."""

    def keep(self, key: str, value: Any) -> None:
        """Put ``value``; must not raise."""

    def keep_events(self, key: str, events: Iterable[dict[str, Any]]) -> None:
        """Append RFC 18 events to the event log at ``key``; must not raise."""


class ResourceService:
    """The resource service of an instance."""

    def __init__(
        self,
        broker: Broker,
        hosts: Sequence[str],
        listener: Listener,
        *,
        config: ResourceConfig | None = None,
        expiration: float = 0.0,
        allocated: Callable[[], RSet] | None = None,
        others: Callable[[], dict[str, dict[str, int]]] | None = None,
        keeper: Keeper | None = None,
        define_after: float = DEFINE_AFTER,
        owner: int | None = None,
    ) -> None:
        """``hosts``: host name by rank. ``allocated()``: what jobs hold now. ``others()``: what
        there is beside nodes, cores and GPUs, by type.

        ``keeper`` gets ``resource.R`` and ``resource.eventlog``, as in Flux. ``define_after``:
        seconds to wait for ranks that do not report. ``owner``: uid who may drain (default: this
        process's).
        """
        config = config or ResourceConfig()
        self.broker = broker
        self.listener = listener
        self.allocated = allocated
        self._others = others
        self.owner = os.geteuid() if owner is None else owner
        self._keeper = keeper
        self._journals: dict[Request, None] = {}
        self._inherited: set[int] = set()
        """Ranks drained because the enclosing instance drained them."""
        self._up = IDSet()
        self.monitor = Monitor(
            hosts,
            broker.reactor.now(),
            exclude=config.exclude,
            properties=config.properties,
            expiration=expiration,
        )
        broker.register(
            "resource",
            {
                "status": self.status,
                "info": self.info,
                "drain": self.drain,
                "undrain": self.undrain,
                "journal": self.journal,
                "inherit": self.inherit,
            },
        )
        self._deadline = broker.reactor.call_later(define_after, self._define_late)
        broker.reactor.at_turn_end(self.turn_end)

    # -- what happens to ranks

    def hello(self, rank: int, info: Any) -> None:
        """The agent of ``rank`` announces itself (``job-exec.hello``). Raises ServiceError."""
        now = self.broker.reactor.now()
        try:
            changed = self.monitor.hello(rank, info, now)
        except ResourceError as error:
            raise ServiceError(error.errnum, str(error)) from None
        if changed:
            self._defined()
        else:
            self._define_when_settled()

    def lost(self, ranks: Iterable[int]) -> None:
        """``ranks`` are gone, and what ran there with them."""
        gone = self.monitor.lost(ranks, self.broker.reactor.now())
        if not self.monitor.defined:
            self._define_when_settled()
        elif gone:
            self._changed()
            self.listener.lost(gone)

    def define(self, method: str = "dynamic-discovery") -> None:
        """R is complete: begin to schedule."""
        self._deadline.cancel()
        self.monitor.define(self.broker.reactor.now(), method)
        self._defined()

    def turn_end(self) -> None:
        """Log and tell what happened in this turn of the loop; called after each."""
        monitor = self.monitor
        if not monitor.pending:
            return
        monitor.flush(self.broker.reactor.now())
        events = monitor.take_events()
        if self._keeper is not None:
            self._keeper.keep_events("resource.eventlog", events)
        for request in self._journals:
            request.respond({"events": events})
        if monitor.defined:
            self._changed()

    def _define_when_settled(self) -> None:
        if self.monitor.settled and not self.monitor.defined:
            self.define()

    def _define_late(self) -> None:
        if self.monitor.defined:
            return
        inventory = self.monitor.inventory
        self.broker.log(
            WARNING,
            "resource",
            f"ranks {inventory.missing} have not reported: going on with {len(inventory)} of "
            f"{inventory.size}",
        )
        self.define()

    def _defined(self) -> None:
        self._up = self.monitor.up
        resources = self.monitor.resource_set()
        if self._keeper is not None:
            self._keeper.keep("resource.R", compact(resources.to_dict()))
        self.listener.define(resources, self._up)

    def _changed(self) -> None:
        up = self.monitor.up
        if up is not self._up and up != self._up:
            self._up = up
            self.listener.change(up)

    # -- requests

    def status(self, request: Request) -> None:
        monitor = self.monitor
        allocated = RSet() if self.allocated is None else self.allocated()
        others = self._others() if self._others is not None else {}
        request.respond(
            {
                "R": monitor.resource_set().to_dict(),
                "allocated": allocated.to_dict(),
                "drained": monitor.drain_info(),
                "online": str(monitor.online),
                "offline": str(monitor.offline),
                "exclude": str(monitor.exclude),
                "expiration": monitor.expiration,
                **({"others": others} if others else {}),
            }
        )

    def info(self, request: Request) -> None:
        request.respond(self.monitor.inventory.totals())

    def drain(self, request: Request) -> None:
        body = self._owner_body(request)
        ranks = self._try(self.monitor.drain, body)
        self._changed_by(request, "drain", ranks, body.get("reason"))

    def undrain(self, request: Request) -> None:
        body = self._owner_body(request)
        ranks = self._try(self.monitor.undrain, body)
        self._changed_by(request, "undrain", ranks, body.get("reason"))

    def inherit(self, request: Request) -> None:
        """The enclosing instance has drained the resources of a rank, or given them back."""
        body = self._owner_body(request)
        rank, now = int(body["rank"]), self.broker.reactor.now()
        if not body.get("drained"):
            if rank not in self._inherited:
                return
            self._inherited.discard(rank)
            ranks = self.monitor.undrain(str(rank), None, "update", now)
            self._changed_by(request, "undrain", ranks, None)
        elif rank not in self.monitor.drained and rank not in self.monitor.exclude:
            self._inherited.add(rank)
            reason = f"by the enclosing instance: {body.get('reason') or 'no reason given'}"
            ranks = self.monitor.drain(str(rank), reason, "update", now)
            self._changed_by(request, "drain", ranks, reason)

    def journal(self, request: Request) -> None:
        if not request.streaming:
            raise ServiceError(
                errno.EPROTO, "resource.journal answers many times: ask for a stream"
            )
        body = request.payload
        # What is not told yet would come twice.
        self.turn_end()
        request.respond({"events": list(self.monitor.events)})
        if type(body) is dict and body.get("follow"):
            self._journals[request] = None
            request.on_close(lambda: self._journals.pop(request, None))
        else:
            request.error(errno.ENODATA)

    # -- helpers

    def _try(self, act: Callable[[Any, Any, Any, float], IDSet], body: dict[str, Any]) -> IDSet:
        try:
            return act(
                body.get("targets"),
                body.get("reason"),
                body.get("mode"),
                self.broker.reactor.now(),
            )
        except ResourceError as error:
            raise ServiceError(error.errnum, str(error)) from None

    def _changed_by(self, request: Request, what: str, ranks: IDSet, reason: Any) -> None:
        why = f": {reason}" if reason else ""
        self.broker.log(INFO, "resource", f"{what} {ranks} by user {request.uid}{why}")
        # For the ranks that host child instances on what is concerned.
        self.broker.publish(f"resource.{what}", {"ranks": str(ranks), "reason": reason or ""})
        # The scheduler must know before the caller does.
        if self.monitor.defined:
            self._changed()
        request.respond({})

    def _owner_body(self, request: Request) -> dict[str, Any]:
        if request.uid != self.owner:
            raise ServiceError(errno.EPERM, "only the instance owner may drain or undrain")
        body = request.payload
        if type(body) is not dict:
            raise ServiceError(
                errno.EPROTO, f"{request.topic}: the payload must be a map, found {body!r}"
            )
        return body
