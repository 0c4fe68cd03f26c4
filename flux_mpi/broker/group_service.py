"""The ``groups.*`` requests of ``docs/protocol.md``: the shell around ``groups``."""

from __future__ import annotations

import errno
from typing import Any

from flux_mpi.broker.broker import Broker
from flux_mpi.broker.groups import Groups, Op, Update, Updates, Watched
from flux_mpi.broker.pacing import Pacer
from flux_mpi.broker.service import (
    Request,
    Response,
    Rpc,
    ServiceError,
    ask_root,
    child_of,
    client_of,
)
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.member import problem


class _Watch:
    """Those who watch one group here, and (elsewhere than at the root) what they are told."""

    __slots__ = ("call", "requests", "watched")

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.watched = Watched()
        self.call: Rpc | None = None


class GroupService:
    """Offers ``groups`` on one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._groups = Groups() if broker.parent is None else None
        self._updates = Updates()
        self._pacer = Pacer(broker.reactor, self._flush)
        self._joined: set[int] = set()
        """Clients of ours that joined a group: the root must hear of their end."""
        self._below: set[int] = set()
        """Children that told of changes at or below them."""
        self._watches: dict[str, _Watch] = {}
        broker.register(
            "groups",
            {"join": self._join, "leave": self._leave, "get": self._get, "update": self._update},
        )
        broker.on_client_gone.append(self._client_gone)
        broker.on_child_gone.append(self._child_gone)

    # -- who is in ------------------------------------------------------------------------------

    def _join(self, request: Request) -> None:
        client = client_of(request)
        group, member = _field(request, "name"), _field(request, "member")
        self._joined.add(client)
        self._change([["join", group, member, self._broker.rank, client]], request)

    def _leave(self, request: Request) -> None:
        self._change([["leave", _field(request, "name"), _field(request, "member")]], request)

    def _update(self, request: Request) -> None:
        """What changed at a child and below: ``{ops}`` → ``{refused: [[index, errnum, text]]}``."""
        self._below.add(child_of(request))
        self._change(request.payload["ops"], request)

    def _client_gone(self, client: int) -> None:
        if client in self._joined:
            self._joined.discard(client)
            self._change([["gone", self._broker.rank, client]], None)

    def _child_gone(self, child: int) -> None:
        if child in self._below:
            self._below.discard(child)
            ranks = IDSet(self._broker.tree.subtree(child))
            self._change([["lost", str(ranks)]], None)

    def _change(self, ops: list[Op], source: Request | None) -> None:
        if self._groups is not None:
            _answer(source, self._groups.apply(ops))
            self._pacer.want(0)
        else:
            self._updates.add(ops, source)
            self._pacer.want(self._updates.under_way)

    def _flush(self) -> None:
        if self._groups is not None:
            self._tell_changes()
            return
        update = self._updates.flush()
        if update is not None:
            self._send(update)

    def _send(self, update: Update) -> None:
        def answer(response: Response) -> None:
            if response.errnum:
                failed = (response.errnum, response.text)
                refused = [(at, *failed) for at in range(len(update.ops))]
            else:
                refused = response.payload["refused"]
            for source, mine in self._updates.answered(update, refused):
                _answer(source, mine)

        assert self._broker.parent is not None
        self._broker.rpc("groups.update", {"ops": update.ops}, answer, rank=self._broker.parent)

    # -- who wants to know ----------------------------------------------------------------------

    def _get(self, request: Request) -> None:
        group = _field(request, "name")
        if request.streaming:
            self._watch(group, request)
        elif self._groups is None:
            ask_root(self._broker, request)
        else:
            request.respond({"members": self._groups.members(group)})

    def _watch(self, group: str, request: Request) -> None:
        if self._groups is not None:
            self._tell_changes()  # to those who watch already: it must not be news to this one
        watch = self._watches.get(group)
        if watch is None:
            watch = self._watches[group] = _Watch()
        watch.requests.append(request)
        if self._groups is not None:
            request.respond({"members": self._groups.members(group)})
        elif watch.watched.known:
            request.respond({"members": watch.watched.members})
        request.on_close(lambda: self._unwatch(group, watch, request))
        if self._groups is None and watch.call is None:
            watch.call = self._broker.rpc(
                "groups.get",
                {"name": group},
                lambda response: self._told(group, watch, response),
                rank=self._parent,
                streaming=True,
            )

    def _told(self, group: str, watch: _Watch, response: Response) -> None:
        """The broker above tells of a group that somebody watches here."""
        if response.errnum:
            self._watches.pop(group, None)
            for request in watch.requests:
                request.error(response.errnum, response.text)
            return
        payload: dict[str, Any] = response.payload
        if "members" in payload:
            watch.watched.reset(payload["members"])
        else:
            watch.watched.change(payload["joined"], payload["left"])
        for request in tuple(watch.requests):
            request.respond(payload)

    def _unwatch(self, group: str, watch: _Watch, request: Request) -> None:
        watch.requests.remove(request)
        if not watch.requests:
            if self._watches.get(group) is watch:
                del self._watches[group]
            if watch.call is not None:
                watch.call.cancel()

    def _tell_changes(self) -> None:
        assert self._groups is not None
        for group, (joined, left) in self._groups.changes().items():
            watch = self._watches.get(group)
            for request in tuple(watch.requests) if watch is not None else ():
                request.respond({"joined": joined, "left": left})

    @property
    def _parent(self) -> int:
        assert self._broker.parent is not None
        return self._broker.parent


def _field(request: Request, field: str) -> str:
    payload = request.payload if isinstance(request.payload, dict) else {}
    value = payload.get(field)
    wrong = problem(value)
    if wrong:
        raise ServiceError(errno.EINVAL, f"{request.topic}: {field}: {wrong}")
    return str(value)


def _answer(source: Request | None, refused: list[tuple[int, int, str]]) -> None:
    if source is None:
        return
    if source.topic == "groups.update":
        source.respond({"refused": refused})
    elif refused:
        _, errnum, text = refused[0]
        source.error(errnum, text)
    else:
        source.respond()
