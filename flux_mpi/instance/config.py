"""The instance's configuration: TOML files and ``key=value`` words, merged in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flux_mpi.formats import configtext
from flux_mpi.formats.configtext import ConfigError as ConfigError


def load(words: Sequence[str]) -> dict[str, Any]:
    """Merge ``words``: each is a TOML file, or ``a.b.c=VALUE`` with a TOML value (or bare text).

    Later words win. Raises ConfigError.
    """
    config: dict[str, Any] = {}
    for word in words:
        key, eq, value = word.partition("=")
        try:
            if eq and "/" not in key:
                configtext.set_key(config, key.strip(), configtext.value(value))
            else:
                configtext.merge(config, _file(word))
        except ConfigError as error:
            raise ConfigError(f"--conf: {error}") from None
    return config


def _file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        return configtext.parse_toml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


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
