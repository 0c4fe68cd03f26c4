"""Memos: brief data that somebody has noted on a job (RFC 21), such as its instance's URI. Pure.

Each memo is an object whose keys replace those of earlier ones; ``null`` removes a key. What they
come to is shown as ``annotations.user`` (RFC 27). Few jobs have any, so they are kept by member.
"""

from __future__ import annotations

import errno
import json
import sys
from typing import Any

from flux_mpi.message.errors import ServiceError

LIMIT = 1 << 14
"""Bytes of one memo as JSON, and of all that one job's come to: they are kept for good."""


def parse(memo: Any) -> dict[str, Any]:
    """A memo as a request has it, made of nothing but JSON's types.

    Raises ServiceError: EPROTO when it is none, EINVAL when it is empty or too long.
    """
    if not isinstance(memo, dict):
        raise ServiceError(
            errno.EPROTO, f"memo: expected an object of keys and values, found {memo!r}"[:200]
        )
    try:
        text = json.dumps(memo, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ServiceError(errno.EPROTO, f"memo: not JSON: {error}"[:200]) from None
    if not memo:
        raise ServiceError(errno.EINVAL, "memo: expected at least one key, found none")
    _check_size(len(text))
    # Read back, so that no other type is left in it; thousands of jobs have the same keys.
    parsed: dict[str, Any] = json.loads(text, object_pairs_hook=_shared_keys)
    return parsed


def _shared_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {sys.intern(key): value for key, value in pairs}


def merge(old: dict[str, Any], memo: dict[str, Any]) -> dict[str, Any]:
    """What ``old`` and a later memo come to; neither is changed. It may be ``memo`` itself: the
    first of a job is kept once, as its event.

    Raises ServiceError(EINVAL) when that is too long.
    """
    if not old and all(isinstance(value, (str, int, float)) for value in memo.values()):
        return memo
    merged = _merge(old, memo)
    _check_size(len(json.dumps(merged)))
    return merged


def _merge(old: dict[str, Any], memo: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in memo.items():
        if isinstance(value, dict):
            before = merged.get(key)
            value = _merge(before if isinstance(before, dict) else {}, value) or None
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _check_size(size: int) -> None:
    if size > LIMIT:
        raise ServiceError(errno.EINVAL, f"memo: at most {LIMIT} bytes are kept, found {size}")
