"""Keys and link targets as text: ``a.b.c`` names an entry, ``.`` the root (RFC 11).

Repeated, leading and trailing dots do not count, so ``.a..b.`` is ``a.b``.
"""

from __future__ import annotations

import errno
from typing import Any

from flux_mpi.message.errors import ServiceError

MAX_KEY = 4096
"""Longest key, characters."""

MAX_NAME = 255
"""Longest namespace name, characters."""

SEPARATOR = "::"
"""Parts a link's target namespace from its key."""


def shown(text: object, limit: int = 80) -> str:
    """``text`` quoted for an error message, cut so that a hostile key cannot fill the log."""
    quoted = repr(text)
    return quoted if len(quoted) <= limit else quoted[: limit - 3] + "..."


def split(key: Any) -> list[str]:
    """The path components of ``key``; ``[]`` for the root.

    Raises ServiceError: EPROTO when it is no string, EINVAL when empty or with a NUL,
    ENAMETOOLONG over `MAX_KEY` characters.
    """
    if type(key) is not str:
        raise ServiceError(errno.EPROTO, f"key must be a string, found {shown(key)}")
    if len(key) > MAX_KEY:
        raise ServiceError(
            errno.ENAMETOOLONG, f"key {shown(key)} has {len(key)} characters, at most {MAX_KEY}"
        )
    if not key or "\0" in key:
        raise ServiceError(errno.EINVAL, f"key {shown(key)} is empty or has a NUL character")
    parts = key.split(".")
    return [part for part in parts if part] if "" in parts else parts


def join(parts: list[str]) -> str:
    """The normal form of a key, the inverse of `split`."""
    return ".".join(parts) or "."


def split_target(target: Any) -> tuple[str | None, list[str]]:
    """``(namespace or None, path components)`` of a link's ``target``: ``key`` or ``ns::key``.

    Raises ServiceError like `split`.
    """
    if type(target) is not str:
        raise ServiceError(errno.EPROTO, f"link target must be a string, found {shown(target)}")
    name, separator, key = target.partition(SEPARATOR)
    if not separator:
        return None, split(target)
    return check_namespace(name), split(key)


def check_namespace(name: Any) -> str:
    """``name`` if it may name a namespace; raises ServiceError EPROTO or EINVAL."""
    if type(name) is not str:
        raise ServiceError(errno.EPROTO, f"namespace must be a string, found {shown(name)}")
    if not name or len(name) > MAX_NAME or "\0" in name or ":" in name:
        raise ServiceError(
            errno.EINVAL,
            f"namespace {shown(name)}: need 1 to {MAX_NAME} characters, no ':' and no NUL",
        )
    return name
