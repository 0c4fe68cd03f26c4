"""What every broker offers: broker, attr, log, event, service, config, overlay, barrier, groups."""

from __future__ import annotations

import errno
import os
from typing import Any

from flux_mpi.broker.barrier_service import BarrierService
from flux_mpi.broker.broker import Broker
from flux_mpi.broker.group_service import GroupService
from flux_mpi.broker.logring import LEVELS, Entry
from flux_mpi.broker.membership import Membership
from flux_mpi.broker.service import Request, ask_root, client_of
from flux_mpi.message.errors import ServiceError
from flux_mpi.message.message import pack


def _text(payload: Any, field: str, default: str | None = None) -> str:
    """``payload[field]`` as a string; raises ServiceError (EPROTO) naming what was found."""
    value = payload.get(field, default) if isinstance(payload, dict) else default
    if not isinstance(value, str):
        raise ServiceError(errno.EPROTO, f"{field}: a string is required, found {value!r}")
    return value


class BrokerServices:
    """Registers the services; keeps what they need beyond the broker itself."""

    def __init__(
        self, broker: Broker, config: dict[str, Any], membership: Membership | None
    ) -> None:
        self.broker = broker
        self.config = config
        self.membership = membership
        self.started = broker.reactor.now()
        broker.register("broker", {"info": self.info, "stats": self.stats})
        broker.register(
            "attr",
            {
                "get": self.attr_get,
                "set": self.attr_set,
                "list": self.attr_list,
                "rm": self.attr_remove,
            },
        )
        broker.register(
            "log", {"append": self.log_append, "dmesg": self.log_dmesg, "clear": self.log_clear}
        )
        broker.register("event", {"publish": self.event_publish, "subscribe": self.event_subscribe})
        broker.register("service", {"add": self.service_add, "remove": self.service_remove})
        broker.register("config", {"get": lambda request: request.respond(self.config)})
        broker.register("overlay", {"peers": self.overlay_peers})
        if membership is not None:
            above = {"status": self.overlay_status, "errors": self.overlay_errors}
        else:
            above = {"status": self._ask_root, "errors": self._ask_root}
        broker.register("overlay", above)
        BarrierService(broker)
        GroupService(broker)

    def _ask_root(self, request: Request) -> None:
        ask_root(self.broker, request)

    # -- broker ---------------------------------------------------------------------------------

    def info(self, request: Request) -> None:
        attrs = self.broker.attrs
        now = self.broker.reactor.now()
        request.respond(
            {
                "rank": self.broker.rank,
                "size": self.broker.size,
                "level": int(attrs.get("tbon.level", "0")),
                "depth": int(attrs.get("instance-level", "0")),
                "hostname": attrs.get("hostname", ""),
                "pid": os.getpid(),
                "uptime": now - self.started,
                "starttime": self.started,
                "version": attrs.get("version", ""),
                "owner": self.broker.uid,
            }
        )

    def stats(self, request: Request) -> None:
        broker = self.broker
        request.respond(
            {
                **broker.counters,
                "inflight": broker.router.inflight,
                "clients": broker.count_clients(),
                "overlay": self._links(),
                "services": sorted(broker.router.services),
                "event_seq": broker.events.last,
            }
        )

    # -- attr -----------------------------------------------------------------------------------

    def attr_get(self, request: Request) -> None:
        request.respond({"value": self.broker.attrs.get(_text(request.payload, "name"))})

    def attr_set(self, request: Request) -> None:
        name, value = _text(request.payload, "name"), _text(request.payload, "value")
        self.broker.attrs.set(name, value)
        if name == "log-ring-size":
            self.broker.ring.resize(int(value))
        request.respond()

    def attr_remove(self, request: Request) -> None:
        self.broker.attrs.remove(_text(request.payload, "name"))
        request.respond()

    def attr_list(self, request: Request) -> None:
        request.respond({"attrs": dict(self.broker.attrs.items())})

    # -- log ------------------------------------------------------------------------------------

    def log_append(self, request: Request) -> None:
        payload = request.payload
        level = payload.get("level", 6) if isinstance(payload, dict) else 6
        if type(level) is not int or not 0 <= level < len(LEVELS):
            raise ServiceError(errno.EINVAL, f"level: {level!r} is not allowed, 0-7 is")
        self.broker.log(level, _text(payload, "component", "user"), _text(payload, "text"))
        request.respond()

    def log_dmesg(self, request: Request) -> None:
        request.respond({"entries": self.broker.ring.entries()})
        if not request.streaming:
            return
        if not (isinstance(request.payload, dict) and request.payload.get("follow")):
            request.error(errno.ENODATA)
            return

        def show(entry: Entry) -> None:
            request.respond({"entries": [entry]})

        request.on_close(self.broker.ring.follow(show))

    def log_clear(self, request: Request) -> None:
        self.broker.ring.clear()
        request.respond()

    # -- event ----------------------------------------------------------------------------------

    def event_publish(self, request: Request) -> None:
        """Climbs to the root, which alone numbers events, so that the answer carries the number."""
        broker = self.broker
        if broker.parent is None:
            topic = _text(request.payload, "topic")
            payload = request.payload.get("payload")
            packed = None if payload is None else pack(payload)
            request.respond({"seq": broker.publish_packed(topic, packed, request.uid)})
            return
        self._ask_root(request)

    def event_subscribe(self, request: Request) -> None:
        if not request.streaming:
            raise ServiceError(errno.EPROTO, "event.subscribe: a streaming request is required")

        def deliver(topic: str, seq: int, payload: Any) -> None:
            request.respond({"topic": topic, "seq": seq, "payload": payload})

        request.on_close(self.broker.subscribe(_text(request.payload, "topic", ""), deliver))
        request.respond({"topic": "", "seq": self.broker.events.last, "payload": None})

    # -- service --------------------------------------------------------------------------------

    def service_add(self, request: Request) -> None:
        name = _text(request.payload, "service")
        owner = client_of(request)
        if name in self.broker.router.services:
            raise ServiceError(errno.EEXIST, f"service {name}: offered already")
        if not name or "." in name or len(name) > 128:
            raise ServiceError(
                errno.EINVAL, f"service {name!r}: a name of 1-128 characters without '.' is needed"
            )
        self.broker.router.offer(name, owner)
        request.respond()

    def service_remove(self, request: Request) -> None:
        name = _text(request.payload, "service")
        if self.broker.router.services.get(name) != client_of(request):
            raise ServiceError(errno.ENOENT, f"service {name}: not offered by this client")
        self.broker.router.withdraw(name)
        request.respond()

    # -- overlay --------------------------------------------------------------------------------

    def overlay_peers(self, request: Request) -> None:
        broker = self.broker
        request.respond(
            {
                "rank": broker.rank,
                "parent": broker.parent,
                "children": sorted(broker.children),
                "links": self._links(),
            }
        )

    def _links(self) -> dict[str, dict[str, object]]:
        broker = self.broker
        peers = sorted(broker.children)
        if broker.parent is not None:
            peers.insert(0, broker.parent)
        return {str(peer): broker.transport.describe(peer) for peer in peers}

    def overlay_status(self, request: Request) -> None:
        assert self.membership is not None
        payload = request.payload or {}
        rank = payload.get("rank", 0) if isinstance(payload, dict) else 0
        if type(rank) is not int or not 0 <= rank < self.broker.size:
            raise ServiceError(
                errno.EINVAL, f"rank: {rank!r} is not allowed, 0-{self.broker.size - 1} is"
            )
        transport = self.broker.attrs.get("transport", "unknown")
        request.respond({**self.membership.describe(rank), "transport": transport})

    def overlay_errors(self, request: Request) -> None:
        assert self.membership is not None
        request.respond({"errors": self.membership.errors()})
