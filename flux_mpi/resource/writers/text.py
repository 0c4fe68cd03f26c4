"""Pieces of JSON text as jansson prints them, and sets of numbers and hosts inside of it."""

from __future__ import annotations

import re

from flux_mpi.formats.hostlist import Hostlist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SPECIAL = re.compile(r'["\\\x00-\x1f]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r"}
_ESCAPES |= {"\t": "\\t"}
_DIGITS = "0123456789"
_PLAIN = re.compile(r"[!-+\--Z\\^-~]*")


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    return _ESCAPES.get(char) or f"\\u{ord(char):04X}"


def quote(text: str) -> str:
    """A JSON string: what is not ASCII stays as it is."""
    return f'"{text}"' if text.isalnum() else f'"{_SPECIAL.sub(_escape, text)}"'


def json_object(mapping: Mapping[str, str]) -> str:
    """A JSON object of strings, its keys in the order of their bytes."""
    members = ", ".join(f"{quote(key)}: {quote(mapping[key])}" for key in sorted(mapping))
    return f"{{{members}}}"


def idset(ids: Iterable[int]) -> str:
    """Ids, none negative, as an idset (RFC 22): any order, repeats count once."""
    ordered = sorted(ids)
    if not ordered:
        return ""
    first, last = ordered[0], ordered[-1]
    if first == last:
        return str(first)
    if last - first == len(ordered) - 1 and len(set(ordered)) == len(ordered):
        return f"{first}-{last}"
    parts: list[str] = []
    low = high = first
    for value in ordered:
        if value > high + 1:
            parts.append(str(low) if low == high else f"{low}-{high}")
            low = value
        high = value
    parts.append(str(low) if low == high else f"{low}-{high}")
    return ",".join(parts)


def hostlist(names: list[str]) -> str:
    """Names in their order as a hostlist (RFC 29); a name may be a hostlist itself.

    Raises ValueError for a name that is none.
    """
    first, last = names[0], names[-1]
    if len(names) == 1 and _PLAIN.fullmatch(first):
        return first
    prefix = first.rstrip(_DIGITS)
    digits = first[len(prefix) :]
    # Nearly always hosts are numbered one after another: comparing is faster than parsing.
    if digits and len(digits) < 18 and _PLAIN.fullmatch(prefix):
        width = len(digits)
        low = int(digits)
        if digits[0] != "0" or width == 1:
            expected = [f"{prefix}{n}" for n in range(low, low + len(names))]
        else:
            expected = [f"{prefix}{n:0{width}d}" for n in range(low, low + len(names))]
            if len(last) != len(first):
                expected = []
        if names == expected:
            return f"{prefix}[{digits}-{last[len(prefix) :]}]"
    hosts = Hostlist()
    for name in names:
        hosts.append(name)
    return str(hosts)
