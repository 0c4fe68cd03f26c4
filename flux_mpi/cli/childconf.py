"""What ``--conf`` and ``--add-file`` of ``batch`` and ``alloc`` mean, and reading files for them.

Errors are ValueErrors that name the file or key; the parser adds the name of the option.
"""

from __future__ import annotations

import os

from flux_mpi.client.batch import CONF, FILE_LIMIT, FILE_MODE, SCRIPT, check_size, file_entry
from flux_mpi.formats import configtext
from flux_mpi.formats.configtext import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

SUFFIXES = (".toml", ".json")
PROGRAMS = ("flux-mpi", "flux")
"""Whose named configurations are looked for, the first first."""


def read_file(path: str) -> bytes:
    """A file that is to travel in a jobspec. Raises ValueError: unreadable, or too large."""
    try:
        with open(path, "rb") as file:
            # A regular file tells its size at once; of others no more is read than can be used.
            size = os.fstat(file.fileno()).st_size
            check_size(size, path)
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    check_size(len(data), path)
    return data


# -- --conf ----------------------------------------------------------------------------------------


def parse(text: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The configuration that one ``--conf`` names or is: see flux-batch(1).

    Several lines are a document in TOML or JSON; ``KEY=VAL`` sets one key (VAL is JSON, TOML, or
    bare text); a name that ends in ``.toml`` or ``.json``, or a path, is a file; any other name is
    looked for in the user's and the system's configuration directories. Raises ConfigError.
    """
    key, equals, raw = text.partition("=")
    if "\n" in text:
        config = _document(text)
    elif equals and "/" not in key:
        config = {}
        configtext.set_key(config, key.strip(), _value(raw))
    elif text.endswith(SUFFIXES) or "/" in text:
        config = _file(text)
    else:
        config = _file(_named(text, os.environ if environ is None else environ))
    _check_values(config, "")
    return config


def combine(parts: Iterable[dict[str, Any]] | None) -> dict[str, Any] | None:
    """All uses of ``--conf`` as one configuration, the later ones winning; None without any.

    Raises ConfigError for a key that is both a value and a table.
    """
    config: dict[str, Any] | None = None
    for part in parts or ():
        config = {} if config is None else config
        configtext.merge(config, part)
    return config


def _document(text: str) -> dict[str, Any]:
    return (configtext.parse_json if text.lstrip()[:1] == "{" else configtext.parse_toml)(text)


def _value(raw: str) -> Any:
    import json

    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return configtext.value(raw)


def _file(path: str) -> dict[str, Any]:
    try:
        data = read_file(path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    read = configtext.parse_json if path.endswith(".json") else configtext.parse_toml
    try:
        return read(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _named(name: str, environ: Mapping[str, str]) -> str:
    """The file of a named configuration. Raises ConfigError listing where it was looked for."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
    system = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    folders = [
        os.path.join(folder, program, "config")
        for folder in [home, *filter(None, system.split(":"))]
        for program in PROGRAMS
    ]
    for folder in folders:
        for suffix in SUFFIXES:
            path = os.path.join(folder, name + suffix)
            if os.path.isfile(path):
                return path
    raise ConfigError(
        f"{name!r} is neither KEY=VAL nor a .toml or .json file, and there is no {name}.toml or "
        f"{name}.json in {', '.join(folders)}"
    )


def _check_values(found: Any, key: str) -> None:
    """Refuse what TOML has and JSON, in which configurations travel, has not."""
    if isinstance(found, dict):
        for name, value in found.items():
            _check_values(value, f"{key}.{name}" if key else name)
    elif isinstance(found, list):
        for n, value in enumerate(found):
            _check_values(value, f"{key}[{n}]")
    elif isinstance(found, float):
        if found - found != 0.0:  # inf and nan
            raise ConfigError(f"{key}: {found} is not allowed: numbers must be finite")
    elif not isinstance(found, (str, int)) and found is not None:
        raise ConfigError(
            f"{key}: a {type(found).__name__} is not allowed: write dates and times in quotes"
        )


# -- --add-file ------------------------------------------------------------------------------------


def parse_file(text: str) -> tuple[str, dict[str, Any]]:
    """Name and RFC 37 object of ``[NAME[:PERMS]=]ARG``: see flux-batch(1). Raises ValueError.

    ARG is the content if it has a line end and a NAME, else the path of a file.
    """
    head, equals, arg = text.partition("=")
    name, colon, perms = head.partition(":")
    if not equals:
        name, colon, perms, arg = os.path.basename(text), "", "", text
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"invalid name {name!r} in {text[:64]!r}: expected that of a plain file")
    if name in (SCRIPT, CONF):
        raise ValueError(f"the name {name!r} is reserved: give another, NAME={arg[:64]}")
    mode = FILE_MODE
    if colon:
        if not perms or perms.strip("01234567") or int(perms, 8) > 0o7777:
            raise ValueError(f"invalid permissions {perms!r} of {name}: expected octal, as 0644")
        mode = (FILE_MODE & ~0o7777) | int(perms, 8)
    if equals and "\n" in arg:
        data = arg.encode("utf-8", "surrogateescape")
        check_size(len(data), name)
    else:
        data = read_file(arg)
    return name, file_entry(data, mode)
