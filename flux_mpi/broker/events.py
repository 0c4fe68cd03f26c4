"""Events: numbered by the root, delivered to everyone in that order without gaps (RFC 3).

Pure: an ``EventLog`` says what to deliver and what to ask for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from flux_mpi.message.message import EVENT, Message, unpack

HISTORY = 1024
"""Events kept for neighbours that missed some, at most."""
HISTORY_BYTES = 16 << 20
"""Payload bytes that the kept events may hold together."""

Subscriber = Callable[[str, int, Any], object]


class EventLog:
    """The events that one broker has seen, in order.

    ``keep`` = 0 for one that has nobody to resend them to.
    """

    def __init__(self, keep: int = HISTORY, keep_bytes: int = HISTORY_BYTES) -> None:
        self.last = 0
        """Sequence number of the newest event delivered here."""
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._history: deque[Message] = deque()
        self._history_bytes = 0
        self._asked = 0

    def number(self, topic: str, payload: bytes | None, uid: int) -> Message:
        """The root's part: make the next event."""
        event = Message(EVENT, topic, payload, tag=self.last + 1, uid=uid)
        self._accept(event)
        return event

    def receive(self, event: Message) -> tuple[bool, int | None]:
        """Another's part: ``(deliver, ask)``.

        ``deliver`` is True for exactly the next event. ``ask`` is the first number to request
        again when some are missing, once for each gap; one already seen is neither.
        """
        if event.tag <= self.last:
            return False, None
        if event.tag > self.last + 1 and self.last:
            missing = self.last + 1
            if self._asked == missing:
                return False, None
            self._asked = missing
            return False, missing
        self._accept(event)  # the first event ever seen sets the count: nothing before concerns us
        return True, None

    def since(self, first: int) -> tuple[int, list[Message]]:
        """``(skip, events)``: the kept events from number ``first`` on.

        ``skip`` is the number of the last one wanted that is no longer kept; 0 = none is missing.
        """
        events = [event for event in self._history if event.tag >= first]
        oldest = events[0].tag if events else self.last + 1
        return (oldest - 1 if oldest > first else 0), events

    def skip(self, to: int) -> int:
        """The events up to number ``to`` cannot be had any more; returns how many that are."""
        count = max(0, to - self.last)
        self.last += count
        return count

    def _accept(self, event: Message) -> None:
        self.last = event.tag
        if not self._keep:
            return
        history = self._history
        history.append(event)
        self._history_bytes += len(event.payload or b"")
        while len(history) > self._keep or (
            self._history_bytes > self._keep_bytes and len(history) > 1
        ):
            self._history_bytes -= len(history.popleft().payload or b"")


class Subscriptions:
    """Who wants which topics: a prefix each, as in RFC 3's subscriptions."""

    def __init__(self, on_error: Callable[[BaseException], object]) -> None:
        self._all: list[tuple[str, Subscriber]] = []
        self._on_error = on_error

    def add(self, prefix: str, subscriber: Subscriber) -> Callable[[], None]:
        """Deliver topics that start with ``prefix``; returns how to stop."""
        entry = (prefix, subscriber)
        self._all.append(entry)

        def remove() -> None:
            if entry in self._all:
                self._all.remove(entry)

        return remove

    def deliver(self, event: Message) -> None:
        """Call every subscriber that wants ``event``; one that fails keeps it from no other."""
        matching = [call for prefix, call in self._all if event.topic.startswith(prefix)]
        if matching:
            body = None if event.payload is None else unpack(event.payload, strict_map_key=False)
            for call in matching:
                try:
                    call(event.topic, event.tag, body)
                except Exception as error:  # whatever it is, it is that subscriber's
                    self._on_error(error)
