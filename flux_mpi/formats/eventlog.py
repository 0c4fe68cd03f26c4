"""Event logs: one JSON object a line (RFC 18; the events of jobs are in RFC 21)."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

TIMESTAMPS = ("raw", "human", "iso", "offset")


class EventError(ValueError):
    """A line or object that is no event of RFC 18; the text says why."""


class Event:
    """Something that happened: ``timestamp`` (Unix seconds, above 0), ``name``, ``context``.

    ``context`` is None when there is none (an empty one is the same).
    """

    __slots__ = ("context", "name", "timestamp")

    def __init__(
        self, timestamp: float, name: str, context: Mapping[str, Any] | None = None
    ) -> None:
        self.timestamp = timestamp
        self.name = name
        self.context = dict(context) if context else None

    @classmethod
    def parse(cls, obj: object) -> Event:
        """The event in a decoded JSON object; raises `EventError`."""
        if not isinstance(obj, dict):
            raise EventError(f"event: expected an object, found {type(obj).__name__}")
        for key in obj:
            if key not in ("timestamp", "name", "context"):
                raise EventError(f"event: expected only timestamp, name, context, found {key!r}")
        timestamp, name, context = obj.get("timestamp"), obj.get("name"), obj.get("context")
        if (
            not isinstance(timestamp, (int, float))
            or isinstance(timestamp, bool)
            or not 0 < timestamp < float("inf")
        ):
            raise EventError(f"event: timestamp: expected seconds above 0, found {timestamp!r}")
        if not isinstance(name, str) or not name:
            raise EventError(f"event: name: expected text, found {name!r}")
        if context is not None and not isinstance(context, dict):
            raise EventError(f"event: context: expected an object, found {type(context).__name__}")
        return cls(timestamp, name, context)

    def to_dict(self) -> dict[str, Any]:
        """The event as a JSON object, without ``context`` when there is none."""
        obj: dict[str, Any] = {"timestamp": self.timestamp, "name": self.name}
        if self.context:
            obj["context"] = self.context
        return obj

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Event({self.timestamp!r}, {self.name!r}, {self.context!r})"


def compact(value: object) -> str:
    """``value`` as JSON without spaces, the way event logs have it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def dumps_json(event: Event) -> str:
    """The event as one line of a log, without the newline."""
    return compact(event.to_dict())


def parse_json(line: str) -> Event:
    """The event in one line of a log; raises `EventError`."""
    try:
        obj = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise EventError(f"event: expected a JSON object, found {line[:48]!r} ({err})") from None
    return Event.parse(obj)


def dumps_log(events: Iterable[Event]) -> str:
    """A whole log: every line ends with a newline."""
    return "".join(dumps_json(event) + "\n" for event in events)


def parse_log(text: str) -> list[Event]:
    """Every event of a log; raises `EventError` (also when its last line is unfinished)."""
    lines = text.split("\n")
    if lines.pop():
        raise EventError(f"eventlog: line {len(lines) + 1} is unfinished")
    events = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(parse_json(line))
        except EventError as err:
            raise EventError(f"eventlog: line {number}: {err}") from None
    return events


def context_text(event: Event) -> str:
    """The context as words: ``userid=0 note="so so"``, values as compact JSON."""
    return " ".join(f"{key}={compact(value)}" for key, value in (event.context or {}).items())


def format_text(event: Event) -> str:
    """``1795323862.215075 submit userid=0 urgency=16``: seconds, name, context as key=JSON."""
    return Formatter().format(event)


class Formatter:
    """Prints events for people, one line each.

    ``timestamps``: ``raw`` Unix seconds; ``offset`` seconds since the first event printed (or
    since ``t0``); ``human`` date and minute when the minute changes, else the seconds since that
    line; ``iso`` ISO 8601 in local time. Raises ValueError for another word.
    """

    __slots__ = ("_minute", "_t0", "_timestamps")

    def __init__(self, timestamps: str = "raw", t0: float | None = None) -> None:
        if timestamps not in TIMESTAMPS:
            raise ValueError(
                f"time format: expected one of {' '.join(TIMESTAMPS)}, found {timestamps!r}"
            )
        self._timestamps = timestamps
        self._t0 = t0
        self._minute: tuple[str, float] | None = None

    def format(self, event: Event) -> str:
        """The line for ``event``, without a newline."""
        words = [self._time(event.timestamp), event.name]
        if event.context:
            words.append(context_text(event))
        return " ".join(words)

    def _time(self, timestamp: float) -> str:
        if self._timestamps == "raw":
            return f"{timestamp:.6f}"
        if self._timestamps == "offset":
            if self._t0 is None:
                self._t0 = timestamp
            return f"{timestamp - self._t0:.6f}"
        from flux_mpi.formats import timefmt

        if self._timestamps == "iso":
            return timefmt.iso_precise(timestamp)
        # The year is part of the comparison though not of what is printed.
        minute = timefmt.iso(timestamp)[:-3]
        if self._minute is not None and self._minute[0] == minute:
            return f"[{timestamp - self._minute[1]:+11.6f}]"
        self._minute = (minute, timestamp)
        return f"[{timefmt.short(timestamp)}]"
