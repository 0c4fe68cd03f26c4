"""Events: numbered by the root, delivered to everyone in that order without gaps (RFC 3).

Pure: an ``EventLog`` says what to deliver and what to ask for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from flux_mpi.message.message import EVENT, Message, unpack

HISTORY = 1024
"""Events kept for neighbours that missed some."""

Subscriber = Callable[[str, int, Any], object]


class EventLog:
    """The events that one broker has seen, in order."""

    def __init__(self) -> None:
        self.last = 0
        """Sequence number of the newest event delivered here."""
        self._history: deque[Message] = deque(maxlen=HISTORY)

    def number(self, topic: str, payload: bytes | None, uid: int) -> Message:
        """The root's part: make the next event."""
        event = Message(EVENT, topic, payload, tag=self.last + 1, uid=uid)
        self._accept(event)
        return event

    def receive(self, event: Message) -> tuple[bool, int | None]:
        """Another's part: ``(deliver, ask)``.

        ``deliver`` is True for exactly the next event. ``ask`` is the first number to request
        again when some are missing; one already seen is neither.
        """
        if event.tag <= self.last:
            return False, None
        if event.tag > self.last + 1 and self.last:
            return False, self.last + 1
        self._accept(event)  # the first event ever seen sets the count: nothing before concerns us
        return True, None

    def since(self, first: int) -> list[Message]:
        """The kept events from number ``first`` on."""
        return [event for event in self._history if event.tag >= first]

    def _accept(self, event: Message) -> None:
        self.last = event.tag
        self._history.append(event)


class Subscriptions:
    """Who wants which topics: a prefix each, as in RFC 3's subscriptions."""

    def __init__(self) -> None:
        self._all: list[tuple[str, Subscriber]] = []

    def add(self, prefix: str, subscriber: Subscriber) -> Callable[[], None]:
        """Deliver topics that start with ``prefix``; returns how to stop."""
        entry = (prefix, subscriber)
        self._all.append(entry)

        def remove() -> None:
            if entry in self._all:
                self._all.remove(entry)

        return remove

    def deliver(self, event: Message) -> None:
        """Call every subscriber that wants ``event``."""
        matching = [call for prefix, call in self._all if event.topic.startswith(prefix)]
        if matching:
            body = None if event.payload is None else unpack(event.payload, strict_map_key=False)
            for call in matching:
                call(event.topic, event.tag, body)
