"""The instance's configuration: TOML files and ``key=value`` words, merged in order."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any


def _tomllib() -> Any:
    """The TOML reader; loaded by who is given configuration, not by every rank that is not."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib


class ConfigError(ValueError):
    """A configuration that cannot be read; the text names the file or key."""


# The keys of tables that only we read. What else may be in a site's file for Flux is left alone.
_KEYS: dict[str, frozenset[str]] = {
    "broker": frozenset(
        ("join-timeout", "cleanup-timeout", "shutdown-timeout", "kill-grace", "max-frame")
    ),
    "overlay": frozenset(("doorbell", "timeout", "max-communicators")),
    "exec": frozenset(
        (
            "kill-timeout", "max-kill-count", "term-signal", "kill-signal", "barrier-timeout",
            "imp", "job-shell", "method", "service", "service-override", "testexec",
            "sdexec-properties", "sdexec-constrain-resources", "sdexec-stop-timer-sec",
            "sdexec-stop-timer-signal",
        )
    ),
    "tbon": frozenset(
        (
            "fanout", "topo", "torpid_min", "torpid_max", "tcp_user_timeout", "connect_timeout",
            "interface-hint", "child_rcvhwm", "zmqdebug", "zmq_io_threads", "prefertcp",
        )
    ),
}  # fmt: skip
_TABLES = frozenset(
    (
        *_KEYS, "policy", "queues", "resource", "sched",
        # Flux's own, flux-config(5).
        "access", "archive", "bootstrap", "content", "heartbeat", "ingest", "job-manager", "kvs",
        "systemd",
    )
)  # fmt: skip


def check(config: dict[str, Any]) -> None:
    """Refuse keys that nobody reads, and tables that are known by another name.

    A table that resembles none of ours may be a plug-in's, or for programs that ask with
    ``config.get``. Raises ConfigError naming the key.
    """
    for name, table in config.items():
        if name not in _TABLES and not name.startswith("sched-"):
            similar = _like(name, _TABLES, anything=False)
            if similar:
                raise ConfigError(f"--conf: {name}: unknown table{similar}")
        if name not in _KEYS:
            continue
        if not isinstance(table, dict):
            raise ConfigError(f"--conf: {name}: a table is required, found {table!r:.60}")
        for key in table:
            if key not in _KEYS[name]:
                raise ConfigError(f"--conf: {name}.{key}: unknown key{_like(key, _KEYS[name])}")


def _like(word: str, known: Iterable[str], *, anything: bool = True) -> str:
    """Which known names ``word`` resembles; if none: all of them, or ``anything`` is enough."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word, names, cutoff=0.75)
    if not close and not anything:
        return ""
    return f", known: {', '.join(close or names)}"


def load(words: Sequence[str]) -> dict[str, Any]:
    """Merge ``words``: each is a TOML file, or ``a.b.c=VALUE`` with a TOML value (or bare text).

    Later words win. Raises ConfigError.
    """
    config: dict[str, Any] = {}
    for word in words:
        key, eq, value = word.partition("=")
        if eq and "/" not in key:
            _set(config, key.strip(), _value(value))
        else:
            _merge(config, _file(word), "")
    return config


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with what ``over`` says put over it; neither is changed. Raises ConfigError."""
    found = {
        key: merged(value, {}) if isinstance(value, dict) else value for key, value in base.items()
    }
    _merge(found, over, "")
    return found


def _json(path: str) -> dict[str, Any]:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise ConfigError(f"--conf: {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--conf: {path}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"--conf: {path}: an object is required, found {found!r:.60}")
    return found


def _file(path: str) -> dict[str, Any]:
    if path.endswith(".json"):
        return _json(path)
    tomllib = _tomllib()
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--conf: {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--conf: {path}: not TOML: {error}") from None


def _value(text: str) -> Any:
    tomllib = _tomllib()
    try:
        read = tomllib.loads(f"v = {text}")
    except tomllib.TOMLDecodeError:
        return text  # `--conf queue.policy=easy` without the quotes that TOML wants
    return read["v"] if len(read) == 1 else text  # more than one line is no value


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    if not all(tables) or not last:
        raise ConfigError(f"--conf: {key!r} is no key: names joined by dots are required")
    for name in tables:
        below = config.setdefault(name, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--conf: {key}: {name} is set to a value already, not a table")
        config = below
    config[last] = value


def _merge(into: dict[str, Any], new: dict[str, Any], path: str) -> None:
    for key, value in new.items():
        if isinstance(value, dict):
            below = into.setdefault(key, {})
            if not isinstance(below, dict):
                raise ConfigError(f"--conf: {path}{key} is both a value and a table")
            _merge(below, value, f"{path}{key}.")
        else:
            into[key] = value


def get(config: dict[str, Any], key: str, default: Any) -> Any:
    """The value at ``a.b.c``; raises ConfigError when its type is not that of ``default``."""
    found: Any = config
    for name in key.split("."):
        if not isinstance(found, dict) or name not in found:
            return default
        found = found[name]
    if default is not None and not _fits(found, default):
        raise ConfigError(f"--conf: {key}: {type(default).__name__} is required, found {found!r}")
    return found


def _fits(value: Any, like: Any) -> bool:
    if isinstance(like, bool) or isinstance(value, bool):
        return isinstance(like, bool) and isinstance(value, bool)
    return isinstance(value, (int, float) if isinstance(like, float) else type(like))
