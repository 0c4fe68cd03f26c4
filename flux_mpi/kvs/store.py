"""The store: namespaces, lookups, transactions, versions and watches. No I/O, no clock.

Semantics follow Flux: a key's missing directories are made, and a plain value in the way gives way
to one; unlinking what is not there is no error; a link is followed in the middle of a key always,
at its end by lookups only, and by a write never into another namespace.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from flux_mpi.kvs.keys import check_namespace, join, shown, split, split_target
from flux_mpi.kvs.tree import (
    ENTRY_OVERHEAD,
    Dir,
    Entry,
    Link,
    Rope,
    Undo,
    Value,
    View,
    listing,
    roll_back,
    size_of,
    weight,
)
from flux_mpi.kvs.watch import Notice, VersionWaiter, Watcher, WatchTable, look
from flux_mpi.message.errors import ServiceError

PRIMARY = "primary"
"""The namespace that is always there."""

MAX_LINKS = 10
"""Links followed in one walk before it is taken for a cycle (ELOOP), as in Flux."""


class Limits(NamedTuple):
    """What one store may hold. Sizes in bytes."""

    value: int = 32 << 20
    total: int = 1 << 30
    depth: int = 64
    ops: int = 100_000
    namespaces: int = 100_000
    listing: int = 32 << 20
    history: int = 16 << 20
    """Old values kept so that earlier versions can be looked up."""
    history_commits: int = 64
    """Earlier versions kept, a namespace."""


class Commit(NamedTuple):
    """The outcome of a transaction: the namespace's new version, and whom to tell what."""

    version: int
    notices: list[Notice]


class Namespace:
    """One tree with its owner (uid) and version: the number of commits it has seen."""

    __slots__ = ("name", "owner", "root", "version", "bytes", "history")

    def __init__(self, name: str, owner: int) -> None:
        self.name = name
        self.owner = owner
        self.root = Dir()
        self.version = 0
        self.bytes = 0
        self.history: deque[tuple[Undo, int]] = deque()
        """How to undo the last commits, newest last, with the bytes each record keeps alive."""


class _Op(NamedTuple):
    parts: list[str]
    entry: Entry | None
    """What to put; None removes."""
    append: Any
    """With a Value in ``entry``: add it to what is there."""


class Store:
    """All namespaces of an instance.

    A ``uid`` of None is the instance itself; any other may enter the namespaces it owns, and
    ``owner``, the instance's, all of them. Errors are ServiceError with Flux's numbers: ENOENT,
    EISDIR, ENOTDIR, EEXIST, ELOOP, EPERM, ENOTSUP for an unknown namespace; EPROTO for a malformed
    transaction; EFBIG, ENOSPC, ENAMETOOLONG, EOVERFLOW for what is over a limit.
    """

    def __init__(self, limits: Limits | None = None, *, owner: int = 0) -> None:
        self.limits = limits or Limits()
        self.owner = owner
        self.bytes = 0
        self.history_bytes = 0
        self._namespaces: dict[str, Namespace] = {PRIMARY: Namespace(PRIMARY, owner)}
        self._watches: dict[str, WatchTable] = {}

    # -- namespaces

    def has_namespace(self, name: str) -> bool:
        return name in self._namespaces

    def namespace(self, name: str, uid: int | None = None) -> Namespace:
        """The namespace ``name``; raises ServiceError ENOTSUP or EPERM."""
        found = self._namespaces.get(name) if type(name) is str else None
        if found is None:
            check_namespace(name)
            raise ServiceError(errno.ENOTSUP, f"namespace {shown(name)} does not exist")
        if uid is not None and uid != self.owner and uid != found.owner:
            raise ServiceError(
                errno.EPERM, f"namespace {name} belongs to user {found.owner}, not to {uid}"
            )
        return found

    def namespaces(self) -> list[Namespace]:
        """All namespaces, the primary first, then by age."""
        return list(self._namespaces.values())

    def create_namespace(self, name: str, owner: int | None = None) -> list[Notice]:
        """An empty namespace; raises ServiceError EEXIST, EINVAL, ENOSPC."""
        check_namespace(name)
        if name in self._namespaces:
            raise ServiceError(errno.EEXIST, f"namespace {name} already exists")
        if len(self._namespaces) >= self.limits.namespaces:
            raise ServiceError(
                errno.ENOSPC, f"there are {len(self._namespaces)} namespaces, the most allowed"
            )
        new = Namespace(name, self.owner if owner is None else owner)
        self._namespaces[name] = new
        table = self._watches.get(name)
        if table is None:
            return []
        # Watches that waited for the namespace itself: who may not enter must hear it now.
        return table.reached(new.version) + self._tell(new, table, table.everyone())

    def remove_namespace(self, name: str) -> list[Notice]:
        """Drop a namespace and all in it; its watches end with ENOTSUP.

        Raises ServiceError ENOTSUP when it is unknown or the primary.
        """
        gone = self.namespace(name)
        if name == PRIMARY:
            raise ServiceError(errno.ENOTSUP, f"namespace {PRIMARY} cannot be removed")
        del self._namespaces[name]
        self.bytes -= gone.bytes
        self._forget_history(gone, 0)
        table = self._watches.pop(name, None)
        if table is None:
            return []
        text = f"namespace {name} was removed"
        waiting: list[Watcher | VersionWaiter] = [*table.everyone(), *table.waiters]
        for watcher in table.everyone():
            watcher.active = False
        return [Notice(item.token, errno.ENOTSUP, text) for item in waiting]

    def archive(self, name: str, key: str) -> Commit:
        """Move what namespace ``name`` holds to directory ``key`` of the primary one.

        Costs no copy. Watches of ``name`` end as in `remove_namespace`; an empty one leaves
        nothing behind. Raises ServiceError.
        """
        namespace = self.namespace(name)
        if namespace.root.entries:
            commit = self._apply(
                self._namespaces[PRIMARY], [_Op(split(key), namespace.root, None)], [key]
            )
        else:
            commit = Commit(self._namespaces[PRIMARY].version, [])
        return Commit(commit.version, commit.notices + self.remove_namespace(name))

    # -- reading

    def get(self, ns: str, key: str, *, uid: int | None = None, version: int | None = None) -> Any:
        """The value of ``key``, now or at an earlier ``version``.

        Raises ServiceError ENOENT, EISDIR, ELOOP, ESTALE (that version is no longer kept).
        """
        namespace = self.namespace(ns, uid)
        entry = self._find(namespace, split(key), uid=uid, view=self._view(namespace, version))
        if entry is None:
            raise ServiceError(errno.ENOENT, f"{shown(key)}: no such key")
        if isinstance(entry, (Dir, Link)):
            raise ServiceError(errno.EISDIR, f"{shown(key)}: is a directory")
        return entry.read()

    def listdir(
        self,
        ns: str,
        key: str,
        *,
        recursive: bool = False,
        uid: int | None = None,
        version: int | None = None,
    ) -> tuple[dict[str, Any], Sequence[str], dict[str, str]]:
        """Contents, subdirectories and links of directory ``key``, as `tree.listing` gives them.

        Raises ServiceError ENOENT, ENOTDIR, ELOOP, ESTALE, EOVERFLOW.
        """
        namespace = self.namespace(ns, uid)
        view = self._view(namespace, version)
        entry = self._find(namespace, split(key), uid=uid, view=view)
        if entry is None:
            raise ServiceError(errno.ENOENT, f"{shown(key)}: no such key")
        if not isinstance(entry, Dir):
            raise ServiceError(errno.ENOTDIR, f"{shown(key)}: is not a directory")
        return listing(entry, recursive, view, self.limits.listing)

    def readlink(
        self, ns: str, key: str, *, uid: int | None = None, version: int | None = None
    ) -> str:
        """Where the link ``key`` points; raises ServiceError ENOENT, or EINVAL when it is none."""
        namespace = self.namespace(ns, uid)
        view = self._view(namespace, version)
        entry = self._find(namespace, split(key), uid=uid, view=view, follow=False)
        if entry is None:
            raise ServiceError(errno.ENOENT, f"{shown(key)}: no such key")
        if not isinstance(entry, Link):
            raise ServiceError(errno.EINVAL, f"{shown(key)}: is not a symbolic link")
        return entry.target

    def _view(self, namespace: Namespace, version: int | None) -> View | None:
        if version is None or version == namespace.version:
            return None
        back = namespace.version - version
        if version < 0 or back < 0:
            raise ServiceError(
                errno.EINVAL,
                f"version {version} of namespace {namespace.name} is yet to come: "
                f"it is at {namespace.version}",
            )
        kept = len(namespace.history)
        if back > kept:
            raise ServiceError(
                errno.ESTALE,
                f"version {version} of namespace {namespace.name} is no longer kept: "
                f"{namespace.version - kept} is the oldest, {namespace.version} the latest",
            )
        records = list(namespace.history)[kept - back :]
        return View(undo for undo, _ in reversed(records))

    def _find(
        self,
        namespace: Namespace,
        parts: Sequence[str],
        *,
        uid: int | None = None,
        view: View | None = None,
        follow: bool = True,
    ) -> Entry | None:
        """The entry at ``parts``; None when there is none. Raises ServiceError ELOOP."""
        root: Dir = namespace.root
        node: Entry = root
        todo = list(reversed(parts))
        links = 0
        while todo:
            name = todo.pop()
            if not isinstance(node, Dir):
                return None
            entry = node.entries.get(name) if view is None else view.get(node, name)
            if entry is None:
                return None
            if isinstance(entry, Link) and (todo or follow):
                links += 1
                if links > MAX_LINKS:
                    raise ServiceError(
                        errno.ELOOP,
                        f"{shown(join(list(parts)))}: more than {MAX_LINKS} links to follow",
                    )
                if entry.ns is not None and entry.ns != namespace.name:
                    # Another namespace has its own versions: it is read as it is now.
                    namespace, view = self.namespace(entry.ns, uid), None
                    root = namespace.root
                node = root
                todo.extend(reversed(entry.parts))
            else:
                node = entry
        return node

    # -- writing

    def commit(self, ns: str, ops: Any, *, uid: int | None = None) -> Commit:
        """Apply ``ops`` in order, all or none; an empty list changes nothing.

        ``ops``: lists as in the protocol, ``[key, value]`` or ``[key, value, verb]`` with the verbs
        ``unlink``, ``symlink``, ``append`` and ``mkdir``. Raises ServiceError, which names the
        offending operation.
        """
        namespace = self.namespace(ns, uid)
        if type(ops) is not list or len(ops) > self.limits.ops:
            found = f"{len(ops)} of them" if type(ops) is list else type(ops).__name__
            raise ServiceError(
                errno.EPROTO, f"ops: need a list of at most {self.limits.ops}, found {found}"
            )
        if not ops:
            return Commit(namespace.version, [])
        parsed = [self._parse(op) for op in ops]
        return self._apply(namespace, parsed, [join(op.parts) for op in parsed])

    def _parse(self, op: Any) -> _Op:
        if type(op) is not list or not 2 <= len(op) <= 3:
            raise ServiceError(
                errno.EPROTO,
                f"an operation is [key, value] or [key, value, verb], found {shown(op)}",
            )
        parts = split(op[0])
        if not parts:
            raise ServiceError(errno.EINVAL, f"key {shown(op[0])}: the root cannot be replaced")
        self._check_depth(parts)
        verb = op[2] if len(op) == 3 else "put"
        if verb == "put" or verb == "append":
            value = op[1]
            size = size_of(value)
            if size > self.limits.value:
                raise ServiceError(
                    errno.EFBIG,
                    f"{shown(op[0])}: a value of {size} bytes, at most {self.limits.value}",
                )
            if verb == "append" and type(value) is not str and type(value) is not bytes:
                raise ServiceError(
                    errno.EINVAL,
                    f"{shown(op[0])}: only a string or bytes can be appended, "
                    f"found {type(value).__name__}",
                )
            return _Op(parts, Value(value, size), verb == "append")
        if verb == "unlink":
            return _Op(parts, None, False)
        if verb == "symlink":
            return _Op(parts, Link(*split_target(op[1])), False)
        if verb == "mkdir":
            return _Op(parts, Dir(), False)
        raise ServiceError(
            errno.EPROTO,
            f"{shown(op[0])}: verb must be put, append, unlink, symlink or mkdir, "
            f"found {shown(verb)}",
        )

    def _apply(self, namespace: Namespace, ops: list[_Op], keys: Iterable[str]) -> Commit:
        undo: Undo = []
        delta = kept = 0
        try:
            for op in ops:
                change, old = self._change(namespace, op, undo)
                delta += change
                kept += old
            if delta > 0:
                self._make_room(delta)
        except Exception:
            roll_back(undo)
            raise
        namespace.version += 1
        namespace.bytes += delta
        self.bytes += delta
        kept += ENTRY_OVERHEAD * len(undo)
        namespace.history.append((undo, kept))
        self.history_bytes += kept
        if len(namespace.history) > self.limits.history_commits:
            self._forget_history(namespace, self.limits.history_commits)
        while self.history_bytes > self.limits.history and namespace.history:
            self._forget_history(namespace, len(namespace.history) - 1)
        table = self._watches.get(namespace.name)
        if table is None:
            return Commit(namespace.version, [])
        notices = table.reached(namespace.version) if table.waiters else []
        notices += self._tell(namespace, table, table.touched(keys))
        return Commit(namespace.version, notices)

    def _change(self, namespace: Namespace, op: _Op, undo: Undo) -> tuple[int, int]:
        """Apply one operation; ``(bytes more in the tree, bytes that only ``undo`` keeps)``."""
        root = node = namespace.root
        path = op.parts
        new = op.entry
        more = kept = index = links = 0
        while index < len(path) - 1:
            name = path[index]
            child = node.entries.get(name)
            index += 1
            if isinstance(child, Dir):
                node = child
            elif isinstance(child, Link):
                links += 1
                if links > MAX_LINKS:
                    raise ServiceError(
                        errno.ELOOP,
                        f"{shown(join(op.parts))}: more than {MAX_LINKS} links to follow",
                    )
                if child.ns is not None and child.ns != namespace.name:
                    raise ServiceError(
                        errno.EINVAL,
                        f"{shown(join(op.parts))}: cannot write through a link to namespace "
                        f"{child.ns}",
                    )
                path, index, node = child.parts + path[index:], 0, root
                self._check_depth(path)
            elif new is None:
                return more, kept
            else:
                below = Dir()
                undo.append((node, name, child))
                node.entries[name] = below
                more += weight(name, below)
                if child is not None:
                    old = weight(name, child)
                    more -= old
                    kept += old
                node = below
        name = path[-1]
        present = node.entries.get(name)
        if new is None:
            if present is None:
                return more, kept
            undo.append((node, name, present))
            del node.entries[name]
            old = weight(name, present)
            return more - old, kept + old
        if op.append and present is not None:
            undo.append((node, name, present))
            longer = node.entries[name] = self._appended(op, present)
            return more + weight(name, longer) - weight(name, present), kept
        undo.append((node, name, present))
        node.entries[name] = new
        more += weight(name, new)
        if present is not None:
            old = weight(name, present)
            more -= old
            kept += old
        return more, kept

    def _check_depth(self, path: list[str]) -> None:
        if len(path) > self.limits.depth:
            raise ServiceError(
                errno.ENAMETOOLONG,
                f"{shown(join(path))}: {len(path)} levels, at most {self.limits.depth}",
            )

    def _appended(self, op: _Op, present: Entry) -> Rope:
        key = shown(join(op.parts))
        added = op.entry
        assert isinstance(added, Value)
        if isinstance(present, Link):
            raise ServiceError(errno.EOPNOTSUPP, f"{key}: cannot append to a symbolic link")
        if isinstance(present, Dir):
            raise ServiceError(errno.EISDIR, f"{key}: is a directory")
        size = present.size + added.size
        if size > self.limits.value:
            raise ServiceError(
                errno.EFBIG, f"{key}: would grow to {size} bytes, at most {self.limits.value}"
            )
        kind = type(present.parts[0] if isinstance(present, Rope) else present.data)
        if kind is not type(added.data):
            raise ServiceError(
                errno.EINVAL,
                f"{key}: cannot append {type(added.data).__name__} to {kind.__name__}",
            )
        if isinstance(present, Rope):
            present.parts.append(added.data)
            return Rope(present.parts, present.count + 1, size, present.origin)
        assert isinstance(present, Value)
        return Rope([present.data, added.data], 2, size, present)

    def _make_room(self, more: int) -> None:
        need = self.bytes + more + self.history_bytes - self.limits.total
        if need <= 0:
            return
        for namespace in self._namespaces.values():
            # Old versions are a convenience; new data comes first.
            self._forget_history(namespace, 0)
        if self.bytes + more > self.limits.total:
            raise ServiceError(
                errno.ENOSPC,
                f"the store holds {self.bytes} bytes of at most {self.limits.total}: "
                f"no room for {more} more",
            )

    def _forget_history(self, namespace: Namespace, keep: int) -> None:
        while len(namespace.history) > keep:
            self.history_bytes -= namespace.history.popleft()[1]

    # -- waiting

    def watch(
        self,
        ns: str,
        key: str,
        token: Any,
        *,
        full: bool = False,
        uniq: bool = False,
        append: bool = False,
        waitcreate: bool = False,
        initial: bool = True,
        uid: int | None = None,
    ) -> tuple[Watcher, list[Notice]]:
        """Begin to watch ``key``; the notices are what to tell at once.

        ``full`` hears of changes by way of a parent or a link too; ``uniq`` only of new values;
        ``append`` only the data added. Without ``waitcreate`` the key must exist. A removed key
        ends the watch with ENOENT. Raises ServiceError like `get`.
        """
        check_namespace(ns)
        parts = split(key)
        watcher = Watcher(
            ns,
            join(parts),
            parts,
            token,
            full=full,
            uniq=uniq,
            append=append,
            waitcreate=waitcreate,
            initial=initial,
            uid=uid,
        )
        notice = None
        if ns in self._namespaces or not waitcreate:
            namespace = self.namespace(ns, uid)
            notice = look(watcher, self._resolve, namespace.version, first=True)
        self._watches.setdefault(ns, WatchTable()).add(watcher)
        return watcher, [] if notice is None else [notice]

    def unwatch(self, watcher: Watcher | VersionWaiter) -> None:
        """End a watch or a wait; nothing happens when it has ended."""
        table = self._watches.get(watcher.ns)
        if table is None:
            return
        if isinstance(watcher, VersionWaiter):
            table.waiters.pop(watcher, None)
        else:
            table.remove(watcher)
        if not table:
            del self._watches[watcher.ns]

    def wait_version(
        self, ns: str, version: int, token: Any, *, uid: int | None = None
    ) -> VersionWaiter | None:
        """Wait until ``ns`` is at ``version`` or later; None when it is already."""
        if self.namespace(ns, uid).version >= version:
            return None
        waiter = VersionWaiter(ns, version, token)
        self._watches.setdefault(ns, WatchTable()).waiters[waiter] = None
        return waiter

    def _resolve(self, watcher: Watcher) -> Entry | None:
        namespace = self.namespace(watcher.ns, watcher.uid)
        return self._find(namespace, watcher.parts, uid=watcher.uid)

    def _tell(
        self, namespace: Namespace, table: WatchTable, watchers: list[Watcher]
    ) -> list[Notice]:
        notices: list[Notice] = []
        for watcher in watchers:
            notice = look(watcher, self._resolve, namespace.version, first=False)
            if notice is not None:
                notices.append(notice)
                if not watcher.active:
                    table.remove(watcher)
        if not table:
            self._watches.pop(namespace.name, None)
        return notices
