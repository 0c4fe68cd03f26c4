"""Who waits for what in a namespace, and what a commit has to tell them. No I/O."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from flux_mpi.kvs.tree import Dir, Entry, Leaf, Link, Rope
from flux_mpi.message.errors import ServiceError


class Watcher:
    """Someone who wants to hear of changes to one key.

    ``token`` belongs to the caller and comes back in each `Notice`.
    """

    __slots__ = (
        "ns",
        "key",
        "parts",
        "full",
        "uniq",
        "append",
        "waitcreate",
        "initial",
        "uid",
        "token",
        "last",
        "active",
    )

    def __init__(
        self,
        ns: str,
        key: str,
        parts: list[str],
        token: Any,
        *,
        full: bool,
        uniq: bool,
        append: bool,
        waitcreate: bool,
        initial: bool,
        uid: int | None,
    ) -> None:
        self.ns = ns
        self.key = key
        self.parts = parts
        self.token = token
        self.full = full
        self.uniq = uniq
        self.append = append
        self.waitcreate = waitcreate
        self.initial = initial
        self.uid = uid
        self.last: Leaf | None = None
        self.active = True


class VersionWaiter:
    """Someone who waits for a namespace to reach ``version``."""

    __slots__ = ("ns", "version", "token")

    def __init__(self, ns: str, version: int, token: Any) -> None:
        self.ns = ns
        self.version = version
        self.token = token


class Notice(NamedTuple):
    """What to tell the holder of ``token``: ``payload``, or the error that ends its wait."""

    token: Any
    errnum: int
    payload: Any


def _error(watcher: Watcher, errnum: int, text: str) -> Notice:
    watcher.active = False
    return Notice(watcher.token, errnum, text)


class WatchTable:
    """The watchers and version waiters of one namespace name, whether or not it exists yet."""

    __slots__ = ("direct", "full", "waiters")

    def __init__(self) -> None:
        self.direct: dict[str, dict[Watcher, None]] = {}
        self.full: dict[Watcher, None] = {}
        self.waiters: dict[VersionWaiter, None] = {}

    def __bool__(self) -> bool:
        return bool(self.direct or self.full or self.waiters)

    def add(self, watcher: Watcher) -> None:
        if watcher.full:
            self.full[watcher] = None
        else:
            self.direct.setdefault(watcher.key, {})[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        """Forget ``watcher``; nothing happens when it is not here."""
        watcher.active = False
        self.full.pop(watcher, None)
        same_key = self.direct.get(watcher.key)
        if same_key is not None:
            same_key.pop(watcher, None)
            if not same_key:
                del self.direct[watcher.key]

    def touched(self, keys: Iterable[str]) -> list[Watcher]:
        """Whom a commit that named ``keys`` (in normal form) may concern, each once."""
        found: dict[Watcher, None] = {}
        direct = self.direct
        if direct:
            for key in keys:
                same_key = direct.get(key)
                if same_key is not None:
                    found.update(same_key)
        found.update(self.full)
        return list(found)

    def everyone(self) -> list[Watcher]:
        return [*self.full, *(watcher for group in self.direct.values() for watcher in group)]

    def reached(self, version: int) -> list[Notice]:
        """Version waiters served by ``version``, removed from the table."""
        done = [waiter for waiter in self.waiters if waiter.version <= version]
        for waiter in done:
            del self.waiters[waiter]
        return [Notice(waiter.token, 0, {"version": version}) for waiter in done]


def look(
    watcher: Watcher,
    resolve: Callable[[Watcher], Entry | None],
    version: int,
    *,
    first: bool,
) -> Notice | None:
    """What ``watcher`` must hear now that its namespace is at ``version``; None for nothing.

    ``resolve`` finds the watched entry or raises ServiceError. ``first``: the watch begins, so
    its errors are the caller's to raise. A notice with an error ends the watch.
    """
    try:
        entry = resolve(watcher)
    except ServiceError as error:
        if first:
            raise
        return _error(watcher, error.errno or errno.EIO, str(error))
    last = watcher.last
    if entry is None:
        if last is None and watcher.waitcreate:
            return None
        text = f"{watcher.key}: no such key" if last is None else f"{watcher.key}: key removed"
        if first:
            raise ServiceError(errno.ENOENT, text)
        return _error(watcher, errno.ENOENT, text)
    if isinstance(entry, (Dir, Link)):
        if first:
            raise ServiceError(errno.EISDIR, f"{watcher.key}: is a directory")
        return _error(watcher, errno.EISDIR, f"{watcher.key}: is a directory")
    watcher.last = entry
    if last is None:
        if first and not watcher.initial:
            return None
        return Notice(watcher.token, 0, {"value": entry.read(), "version": version})
    if watcher.append:
        if entry is last:
            return None
        added = entry.added_since(last) if isinstance(entry, Rope) else None
        if added is None:
            return _error(
                watcher,
                errno.EINVAL,
                f"{watcher.key}: overwritten while its appends were watched",
            )
        return Notice(watcher.token, 0, {"value": added, "version": version})
    if (watcher.full or watcher.uniq) and (entry is last or same_value(entry, last)):
        return None
    return Notice(watcher.token, 0, {"value": entry.read(), "version": version})


def same_value(a: Leaf, b: Leaf) -> bool:
    """Whether two leaves hold the same: ``1``, ``1.0`` and ``True`` are three values."""
    if a.size != b.size:
        return False
    x, y = a.read(), b.read()
    if type(x) is not type(y):
        return False
    return repr(x) == repr(y) if isinstance(x, (list, dict)) else bool(x == y)
