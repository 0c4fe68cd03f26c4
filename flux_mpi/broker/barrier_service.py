"""The ``barrier.*`` requests of ``docs/protocol.md``: the shell around ``barriers``.

What enters at a broker that is not the root goes up as ``barrier.gather``, one request for all
that came together; its answer comes back the same way. So a release reaches those who wait, and
nobody else, and the loss of a broker on the way is the router's to tell.
"""

from __future__ import annotations

import errno
from typing import Any

from flux_mpi.broker.barriers import Barriers, Batch, Entry, Gathering, Outcome
from flux_mpi.broker.broker import Broker
from flux_mpi.broker.pacing import Pacer
from flux_mpi.broker.service import Request, Response, ServiceError, ask_root, child_of
from flux_mpi.formats.member import problem


class BarrierService:
    """Offers ``barrier`` on one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._below: dict[tuple[int, int], Entry] = {}
        """The batches of children that are not answered, by child and number of the batch."""
        if broker.parent is None:
            self._root: Barriers | None = Barriers()
        else:
            self._root = None
            self._gathering = Gathering()
            self._pacer = Pacer(broker.reactor, self._flush)
            self._calls: dict[Batch, int] = {}
        broker.register(
            "barrier",
            {
                "enter": self._enter,
                "gather": self._gather,
                "abort": self._abort,
                "status": self._status,
            },
        )

    # -- requests -------------------------------------------------------------------------------

    def _enter(self, request: Request) -> None:
        payload = request.payload if isinstance(request.payload, dict) else {}
        name, nprocs = payload.get("name"), payload.get("nprocs")
        wrong = problem(name)
        if wrong:
            raise ServiceError(errno.EINVAL, f"barrier: name: {wrong}")
        if type(nprocs) is not int or nprocs < 1:
            raise ServiceError(
                errno.EINVAL,
                f"barrier {name}: nprocs: {nprocs!r} is not allowed, an integer of at least 1 is",
            )
        if not request.open:
            return  # who wants no answer cannot wait
        who = payload.get("who", "a client")
        wrong = problem(who)
        if wrong:
            raise ServiceError(errno.EINVAL, f"barrier {name}: who: {wrong}")
        entry = Entry(str(name), nprocs, 1, (request, None))
        self._add(entry)
        request.on_close(lambda: self._lose(entry, f"{who} on rank {self._broker.rank} left it"))

    def _gather(self, request: Request) -> None:
        """A child's batch: ``{name, nprocs, count, batch}`` → ``{count}``."""
        child = child_of(request)
        payload = request.payload
        key = (child, int(payload["batch"]))
        entry = Entry(
            str(payload["name"]), int(payload["nprocs"]), int(payload["count"]), (request, key)
        )
        self._below[key] = entry
        self._add(entry)
        # A child never cancels: it aborts, and says why. So this is the end of the link to it.
        request.on_close(lambda: self._lose_child(child, entry))

    def _abort(self, request: Request) -> None:
        """One of a child's batch is gone: ``{batch, why}``, not answered."""
        payload = request.payload
        entry = self._below.get((child_of(request), int(payload["batch"])))
        if entry is not None:  # else its answer is on the way
            self._lose(entry, str(payload["why"]))

    def _status(self, request: Request) -> None:
        if self._root is None:
            ask_root(self._broker, request)
            return
        name = request.payload.get("name") if isinstance(request.payload, dict) else None
        found = self._root.status()
        request.respond({"barriers": [row for row in found if name is None or row[0] == name]})

    # -- what the cores say ---------------------------------------------------------------------

    def _add(self, entry: Entry) -> None:
        if self._root is not None:
            self._tell(self._root.enter(entry))
        else:
            self._gathering.enter(entry)
            self._pacer.want(self._gathering.under_way)

    def _lose(self, entry: Entry, why: str) -> None:
        if self._root is not None:
            self._tell(self._root.lose(entry, why))
            return
        batch = self._gathering.lose(entry, why)
        if batch is not None:
            self._send_abort(batch, why)

    def _lose_child(self, child: int, entry: Entry) -> None:
        # Each of its batches is lost, one after the other; the first tells of all.
        others = [each for (rank, _), each in self._below.items() if rank == child]
        count = sum(each.count for each in others if each.name == entry.name)
        self._lose(entry, f"rank {child} was lost with {count} that were in it")

    def _flush(self) -> None:
        for batch in self._gathering.flush():
            self._send(batch)

    def _send(self, batch: Batch) -> None:
        def answer(response: Response) -> None:
            value: Any = _text(batch, response) if response.errnum else response.payload["count"]
            self._tell(self._gathering.answered(batch, response.errnum, value))
            if not self._gathering.idle:
                self._pacer.want(self._gathering.under_way)

        assert self._broker.parent is not None
        self._broker.rpc(
            "barrier.gather",
            {
                "name": batch.name,
                "nprocs": batch.nprocs,
                "count": batch.count,
                "batch": batch.id,
            },
            answer,
            rank=self._broker.parent,
        )
        if batch.lost:
            self._send_abort(batch, batch.lost)

    def _send_abort(self, batch: Batch, why: str) -> None:
        assert self._broker.parent is not None
        self._broker.send(
            "barrier.abort", {"batch": batch.id, "why": why}, rank=self._broker.parent
        )

    def _tell(self, outcomes: list[Outcome]) -> None:
        for entry, errnum, value in outcomes:
            request, key = entry.key
            if key is not None:
                self._below.pop(key, None)
            if errnum:
                request.error(errnum, value)
            elif key is not None:
                request.respond({"count": value})
            else:
                request.respond()


def _text(batch: Batch, response: Response) -> str:
    # What the router says of a broker that is gone names no barrier.
    text, ours = response.text, f"barrier {batch.name}: "
    return text if text.startswith(ours) else ours + text
