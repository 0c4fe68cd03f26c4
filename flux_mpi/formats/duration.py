"""Spans of time as people write them: Flux Standard Duration (RFC 23), `1.5h`, `30`, `inf`."""

from __future__ import annotations

import re

INFINITY = float("inf")

_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# What C99 strtod takes, hexadecimal included, but neither signs below zero nor nan.
_NUMBER = re.compile(
    r"\+?(?:(0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?)"
    r"|((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?))([a-zA-Z]*)",
    re.IGNORECASE | re.ASCII,
)


def parse(text: str | float) -> float:
    """Seconds that ``text`` means; a number is taken as seconds.

    Raises ValueError saying what was found. Infinity is a duration (without a unit), nan is not.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if not text >= 0:
            raise ValueError(f"invalid Flux standard duration {text!r}: expected at least 0")
        return float(text)
    if not isinstance(text, str):
        raise ValueError(f"invalid Flux standard duration: found {type(text).__name__}")
    if text.lower() in ("inf", "infinity", "+inf", "+infinity"):
        return INFINITY
    match = _NUMBER.fullmatch(text)
    if match is None or match[3] not in _UNITS:
        shown = repr(text if len(text) <= 64 else text[:61] + "...")
        raise ValueError(
            f"invalid Flux standard duration {shown}: expected a number and one of ms s m h d"
        )
    try:
        number = float.fromhex(match[1]) if match[1] else float(match[2])
    except OverflowError:
        number = INFINITY
    return number * _UNITS[match[3]]


def format(seconds: float, digits: int = 6) -> str:
    """``seconds`` in its largest unit, to ``digits`` significant digits: ``1.5h``, ``37ms``.

    Reading it with `parse` gives the same duration to that precision. Raises ValueError below 0
    and for nan.
    """
    if not seconds >= 0:
        raise ValueError(f"duration: expected at least 0 seconds, found {seconds}")
    if seconds == INFINITY:
        return "inf"
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.{digits}g}ms"
    value, unit = _scaled(seconds)
    return f"{value:.{digits}g}{unit}"


def short(seconds: float) -> str:
    """``seconds`` as a column of ``flux jobs`` has it: ``0.037s``, ``1.768s``, ``5m``.

    Below a millisecond it is ``0s``.
    """
    if seconds == INFINITY:
        return "inf"
    if not seconds >= 1e-3:
        return "0s"
    if seconds < 10:
        return f"{seconds:.3f}s"
    value, unit = _scaled(seconds)
    return f"{value:.4g}{unit}"


def _scaled(seconds: float) -> tuple[float, str]:
    for unit, limit in (("s", 60.0), ("m", 3600.0), ("h", 86400.0)):
        if seconds < limit:
            return seconds / _UNITS[unit], unit
    return seconds / 86400.0, "d"
