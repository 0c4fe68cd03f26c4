"""Configuration as text: TOML documents, ``key=value`` words, and one table merged into another.

Reading files is not this room's business; ``instance/config.py`` and ``cli/childconf.py`` do it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot be read; the text names the file or key."""


def _tomllib() -> Any:
    """The TOML reader; loaded by who is given configuration, not by every process that is not."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib


def parse_toml(text: str | bytes) -> dict[str, Any]:
    """The tables of a TOML document. Raises ConfigError saying where it is none."""
    tomllib = _tomllib()
    try:
        found: dict[str, Any] = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML: {error}") from None
    except RecursionError:
        raise ConfigError("not TOML: nested too deeply") from None
    return found


def parse_json(text: str | bytes) -> dict[str, Any]:
    """The object of a JSON document. Raises ConfigError saying where it is none."""
    import json

    try:
        found = json.loads(text)
    except RecursionError:
        raise ConfigError("not JSON: nested too deeply") from None
    except ValueError as error:  # no UTF-8 either
        raise ConfigError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"expected a JSON object, found a {type(found).__name__}")
    return found


def value(text: str) -> Any:
    """The TOML value that ``text`` is, or else the text itself: ``easy`` needs no quotes."""
    tomllib = _tomllib()
    try:
        read = tomllib.loads(f"v = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return read["v"] if len(read) == 1 else text  # more than one line is no value


def set_key(config: dict[str, Any], key: str, found: Any) -> None:
    """Set ``a.b.c`` to a value, making the tables around it. Raises ConfigError."""
    *tables, last = key.split(".")
    if not all(tables) or not last:
        raise ConfigError(f"{key!r} is no key: names joined by dots are required")
    for name in tables:
        below = config.setdefault(name, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{key}: {name} is set to a value already, not a table")
        config = below
    config[last] = found


def merge(into: dict[str, Any], new: dict[str, Any], path: str = "") -> None:
    """Add ``new`` to ``into``, table by table; new values win. Raises ConfigError.

    ``path`` is what precedes the keys in errors, with its dot.
    """
    for key, found in new.items():
        if isinstance(found, dict):
            below = into.setdefault(key, {})
            if not isinstance(below, dict):
                raise ConfigError(f"{path}{key} is both a value and a table")
            merge(below, found, f"{path}{key}.")
        else:
            into[key] = found
