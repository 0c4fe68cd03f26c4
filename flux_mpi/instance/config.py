"""The instance's configuration: TOML files and ``key=value`` words, merged in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flux_mpi.formats import configtext
from flux_mpi.formats.configtext import ConfigError as ConfigError

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
_SCHED = frozenset(
    (
        "scheduler", "kernel", "match-policy", "prune-filters", "traverser",
        "queue-policy", "queue-policy-per-queue", "queue-params", "policy-params",
    )
)  # fmt: skip
"""Keys of ``[sched]`` that the built-in schedulers and policies read; a plug-in may have others."""
_BUILT_IN = ("graph", "bitmap")

_TABLES = frozenset(
    (
        *_KEYS, "policy", "queues", "resource", "sched",
        # Flux's own, flux-config(5).
        "access", "archive", "bootstrap", "content", "heartbeat", "ingest", "job-manager", "kvs",
        "systemd",
    )
)  # fmt: skip


def check(config: dict[str, Any], inherited: dict[str, Any] | None = None) -> None:
    """Refuse keys that nobody reads, and tables that are known by another name.

    A table that resembles none of ours may be a plug-in's, or for programs that ask with
    ``config.get``. ``inherited``: what ``config`` is put over; it may name the scheduler. Raises
    ConfigError naming the key.
    """
    scheduler = get(inherited or {}, "sched.scheduler", None)
    for name, table in config.items():
        if name in _SCHED and not isinstance(table, dict):
            raise ConfigError(f"--conf: {name}: is not known, sched.{name} is")
        if name == "sched" and isinstance(table, dict):
            if table.get("scheduler", scheduler) in (None, *_BUILT_IN):
                _check_keys(name, table, _SCHED)
            continue
        if name not in _TABLES and not name.startswith("sched-"):
            similar = _like(name, _TABLES, anything=False)
            if similar:
                raise ConfigError(f"--conf: {name}: unknown table{similar}")
        if name not in _KEYS:
            continue
        if not isinstance(table, dict):
            raise ConfigError(f"--conf: {name}: a table is required, found {table!r:.60}")
        _check_keys(name, table, _KEYS[name])


def _check_keys(name: str, table: dict[str, Any], known: frozenset[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"--conf: {name}.{key}: unknown key{_like(key, known)}")


def _like(word: str, known: Iterable[str], *, anything: bool = True) -> str:
    """Which known names ``word`` resembles; if none: all of them, or ``anything`` is enough."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word, names, cutoff=0.75)
    if not close and not anything:
        return ""
    return f", known: {', '.join(close or names)}"


def load(words: Sequence[str]) -> dict[str, Any]:
    """Merge ``words``: each is a TOML or JSON file, or ``a.b.c=VALUE`` with a TOML value or text.

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


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with what ``over`` says put over it; neither is changed. Raises ConfigError."""
    found: dict[str, Any] = {}
    configtext.merge(found, base)
    tbon, newer = found.get("tbon"), over.get("tbon")
    if isinstance(tbon, dict) and isinstance(newer, dict) and "topo" in newer:
        tbon.pop("fanout", None)  # two names of one thing: the older must not win
    try:
        configtext.merge(found, over)
    except ConfigError as error:
        raise ConfigError(f"--conf: {error}") from None
    return found


def fanout(config: dict[str, Any], attributes: dict[str, str], default: int) -> int:
    """The fan-out K of the tree that attributes, or else the configuration, ask for.

    Both know it as ``tbon.fanout`` (K) and ``tbon.topo`` (``kary:K``, as in Flux), of which the
    first wins; attributes that say so are taken out. Raises ConfigError for other trees, except
    those of Flux that a site's file may name: they say nothing of ours.
    """
    topo, text = attributes.pop("tbon.topo", ""), attributes.pop("tbon.fanout", "")
    if not (topo or text):
        topo = get(config, "tbon.topo", "")
        if not topo or get(config, "tbon.fanout", None) is not None:
            return int(get(config, "tbon.fanout", default))
        if topo.partition(":")[0] in ("binomial", "custom", "mincrit"):
            return default
    if topo and not topo.startswith("kary:"):
        raise ConfigError(f"tbon.topo: {topo!r} is not allowed, the tree is a kary:K")
    text = text or topo.removeprefix("kary:")
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"tbon.fanout: a number is required, found {text!r}")
    return int(text) or 1 << 20  # kary:0 is a tree of one level


def _file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    read = configtext.parse_json if path.endswith(".json") else configtext.parse_toml
    try:
        return read(text)
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
