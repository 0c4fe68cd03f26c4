"""Points in time as text: Unix seconds in, the local time zone out, as Flux prints it.

No clock is read here: whoever calls says what time it is.
"""

from __future__ import annotations

import re
import time

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FRACTION = re.compile(r"\.[0-9]+", re.ASCII)
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?\s*(am|pm)?", re.IGNORECASE)


def short(timestamp: float) -> str:
    """``Nov22 05:04``, independent of the locale."""
    t = time.localtime(timestamp)
    return f"{_MONTHS[t.tm_mon - 1]}{t.tm_mday:02d} {t.tm_hour:02d}:{t.tm_min:02d}"


def clock(timestamp: float) -> str:
    """``05:04:17``."""
    t = time.localtime(timestamp)
    return f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"


def iso(timestamp: float) -> str:
    """``2026-11-22T05:04:17``, whole seconds without a zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(timestamp))


def iso_precise(timestamp: float) -> str:
    """``2026-11-22T05:04:17.250000+01:00``, microseconds and zone (``Z`` for UTC)."""
    micros = round(timestamp * 1_000_000)
    seconds, micros = divmod(micros, 1_000_000)
    offset = time.localtime(seconds).tm_gmtoff
    sign, minutes = ("-", -offset // 60) if offset < 0 else ("+", offset // 60)
    zone = f"{sign}{minutes // 60:02d}:{minutes % 60:02d}" if offset else "Z"
    return f"{iso(seconds)}.{micros:06d}{zone}"


def hms(seconds: float) -> str:
    """``1:02:03`` or ``2 days, 1:02:03``; above zero at least one second is shown."""
    whole = 1 if 0 < seconds < 1 else round(seconds)
    days, rest = divmod(whole, 86400)
    text = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    if days:
        text = f"{days} day{'s' if abs(days) != 1 else ''}, {text}"
    return text


def parse_datetime(text: str, now: float) -> float:
    """The time that ``text`` names, seen from ``now``, for options such as ``--begin-time``.

    ``now``, ``+FSD`` and ``-FSD`` (RFC 23), seconds as ``@1795323839``, ISO 8601
    (``2026-11-22``, ``2026-11-22 05:04``, ``…T05:04:17+01:00``), ``5:04pm``, ``today`` and
    ``tomorrow`` with or without a time of day (a time of day alone is the next one).
    Raises ValueError.
    """
    from flux_mpi.formats import duration

    word = text.strip()
    lower = word.lower()
    if lower == "now":
        return now
    if word[:1] in ("+", "-"):
        span = duration.parse(word[1:].lstrip())
        if span == duration.INFINITY:
            raise ValueError(f"invalid datetime {text!r}: expected a finite duration")
        return now + span if word[0] == "+" else now - span
    if word[:1] == "@":
        return duration.parse(word[1:])
    day, _, rest = lower.partition(" ")
    if day in ("today", "tomorrow"):
        seconds = _time_of_day(rest.strip() or "0:00", text)
        return _midnight(now, 1 if day == "tomorrow" else 0) + seconds
    if _CLOCK.fullmatch(lower):
        seconds = _time_of_day(lower, text)
        when = _midnight(now, 0) + seconds
        return when if when >= now else _midnight(now, 1) + seconds
    from datetime import datetime

    # Before Python 3.11, fromisoformat knows no Z and wants six digits behind the point.
    if word[-1:] in ("Z", "z"):
        word = word[:-1] + "+00:00"
    word = _FRACTION.sub(lambda match: match[0][:7].ljust(7, "0"), word)
    try:
        return datetime.fromisoformat(word).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"invalid datetime {text[:64]!r}: expected now, +DURATION, a time of day, "
            "today or tomorrow with one, or YYYY-MM-DD HH:MM"
        ) from None


def _midnight(now: float, days: int) -> float:
    t = time.localtime(now)
    return time.mktime((t.tm_year, t.tm_mon, t.tm_mday + days, 0, 0, 0, 0, 0, -1))


def _time_of_day(text: str, whole: str) -> float:
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid datetime {whole[:64]!r}: {text[:32]!r} is no time of day")
    hour = int(match[1])
    if match[4]:
        if not 1 <= hour <= 12:
            raise ValueError(f"invalid datetime {whole[:64]!r}: no hour {hour} with {match[4]}")
        hour = hour % 12 + (12 if match[4] == "pm" else 0)
    return hour * 3600.0 + int(match[2]) * 60 + int(match[3] or 0)
