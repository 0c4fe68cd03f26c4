"""What a reader says when it refuses: one line with format, place, what is allowed, what found."""

from __future__ import annotations

MAX_NAME = 1024
"""Longest type, name, basename, unit, subsystem or property, in characters."""

MAX_PATH = 1 << 16
"""Longest path of a vertex, in characters."""

MAX_SIZE = (1 << 32) - 1
"""Largest size of a vertex: pools are counted in 32 bits without sign."""

MAX_VERTICES = 1 << 24
"""A recipe that makes more vertices, or edges, than this is refused before it makes any."""


class ReaderError(ValueError):
    """A file that cannot be accepted; nothing of it is kept."""


def shown(value: object) -> str:
    """``value`` as a message shows it: quoted, one line, not too long."""
    if isinstance(value, str):
        return repr(value if len(value) <= 64 else value[:61] + "...")
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 64 else text[:61] + "..."


def refusal(format: str, place: str, allowed: str, found: object) -> ReaderError:
    """The error for a value that is not what it must be."""
    return ReaderError(f"{format}: {place}: expected {allowed}, found {shown(found)}")


def checked_name(format: str, place: str, text: object, *, empty: bool = False) -> str:
    """``text`` if it will do as a name: printable in one line, encodable, of bounded length.

    Raises `ReaderError`.
    """
    if not isinstance(text, str):
        raise refusal(format, place, "a string", text)
    if len(text) > MAX_NAME:
        raise refusal(
            format, place, f"at most {MAX_NAME} characters", f"{text[:16]}... of {len(text)}"
        )
    if not text and not empty:
        raise refusal(format, place, "a name", text)
    if not text.isascii() or not text.isprintable():
        _check_characters(format, place, text)
    return text


def checked_path(format: str, place: str, text: object) -> str:
    """``text`` if it will do as the path of a vertex; raises `ReaderError`."""
    if not isinstance(text, str):
        raise refusal(format, place, "a path", text)
    if len(text) > MAX_PATH:
        raise refusal(
            format, place, f"at most {MAX_PATH} characters", f"{text[:16]}... of {len(text)}"
        )
    if not text.isascii() or not text.isprintable():
        _check_characters(format, place, text)
    return text


def _check_characters(format: str, place: str, text: str) -> None:
    if any(c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in text):
        raise refusal(format, place, "no control characters or lone surrogates", text)
