"""JSON as the readers want it: no key twice, no NaN, integers of 64 bits, any depth survived."""

from __future__ import annotations

import json

from flux_mpi.resource.readers.errors import ReaderError, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INT64 = 1 << 63


class _Duplicate(ValueError):
    """A key that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _value in pairs:
            if key in seen:
                raise _Duplicate(key)
            seen.add(key)
    return made


def _constant(name: str) -> Any:
    raise ValueError(f"expected a JSON value, found {name}")


def parse(format: str, text: str) -> dict[str, Any]:
    """The object that ``text`` is; raises `ReaderError` with line and column."""
    try:
        found = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as err:
        place = f"line {err.lineno} column {err.colno}"
        raise ReaderError(f"{format}: {place}: expected JSON, found none ({err.msg})") from None
    except _Duplicate as err:
        raise refusal(format, "JSON object", "each key once", err.args[0]) from None
    except RecursionError:
        raise ReaderError(f"{format}: expected JSON, found values nested too deep") from None
    except ValueError as err:
        raise ReaderError(f"{format}: JSON: {err}"[:200]) from None
    if not isinstance(found, dict):
        raise refusal(format, "top level", "a JSON object", found)
    return found


def integer(
    format: str, place: str, value: object, low: int = -INT64, high: int = INT64 - 1
) -> int:
    """``value`` if it is an integer from ``low`` to ``high``; raises `ReaderError`."""
    if type(value) is not int or not low <= value <= high:
        raise refusal(format, place, f"an integer from {low} to {high}", value)
    return value


def array(format: str, place: str, value: object) -> list[Any]:
    """``value`` if it is an array; raises `ReaderError`."""
    if not isinstance(value, list):
        raise refusal(format, place, "an array", value)
    return value


def mapping(format: str, place: str, value: object) -> dict[str, Any]:
    """``value`` if it is an object; raises `ReaderError`."""
    if not isinstance(value, dict):
        raise refusal(format, place, "an object", value)
    return value
