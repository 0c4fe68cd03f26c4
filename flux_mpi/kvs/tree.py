"""What a namespace is made of: directories, values and links, and what undoes a change to them.

Directories change in place, so a commit costs its own size and not that of its directories. Each
change leaves an undo record; records roll a failed commit back, and, laid over the tree as a
`View`, show it as it was at an earlier version.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from flux_mpi.kvs.keys import SEPARATOR, join
from flux_mpi.message.errors import ServiceError
from flux_mpi.message.message import pack

ENTRY_OVERHEAD = 200
"""Bytes that an entry is taken to cost beside its name and value (about, CPython 3.11)."""

PART_OVERHEAD = 64
"""Bytes that each append is taken to cost beside what it adds."""


class Dir:
    """A directory: names to entries."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}


class Value:
    """A value as it was put: any object that msgpack holds. Never changed once stored."""

    __slots__ = ("data", "size")

    def __init__(self, data: Any, size: int) -> None:
        self.data = data
        self.size = size

    @property
    def cost(self) -> int:
        return self.size

    def read(self) -> Any:
        return self.data


class Rope:
    """A value that grows by appends: the first ``count`` of ``parts``.

    Successive ropes of a key share the list, so an append costs what it adds however long the
    value is, and older ropes stay what they were.
    """

    __slots__ = ("parts", "count", "size", "origin")

    def __init__(self, parts: list[Any], count: int, size: int, origin: Value | None) -> None:
        self.parts = parts
        self.count = count
        self.size = size
        self.origin = origin
        """The plain value that the first append found, if any."""

    @property
    def cost(self) -> int:
        return self.size + PART_OVERHEAD * self.count

    def read(self, start: int = 0) -> Any:
        """The value from part ``start`` on."""
        parts = self.parts[start : self.count]
        return type(self.parts[0])().join(parts)

    def added_since(self, old: Entry) -> Any:
        """What was appended to ``old`` to make this; None when it was not made so."""
        if isinstance(old, Rope) and old.parts is self.parts:
            return self.read(old.count)
        if isinstance(old, Value) and old is self.origin:
            return self.read(1)
        return None


class Link:
    """A symbolic link to ``parts`` from the root of ``ns`` (None: the namespace it is in)."""

    __slots__ = ("ns", "parts", "size")

    def __init__(self, ns: str | None, parts: list[str]) -> None:
        self.ns = ns
        self.parts = parts
        self.size = len(self.target)

    @property
    def cost(self) -> int:
        return self.size

    @property
    def target(self) -> str:
        """As it is written: ``key`` or ``ns::key``."""
        key = join(self.parts)
        return key if self.ns is None else f"{self.ns}{SEPARATOR}{key}"


Leaf: TypeAlias = "Value | Rope"
Entry: TypeAlias = "Dir | Value | Rope | Link"
Undo: TypeAlias = "list[tuple[Dir, str, Entry | None]]"


def size_of(value: Any) -> int:
    """Bytes that ``value`` takes, nearly. Raises ServiceError EINVAL for what msgpack refuses."""
    kind = type(value)
    if kind is str:
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return len(value)
    if value is None or kind is int or kind is float or kind is bool:
        return 8
    try:
        return len(pack(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ServiceError(errno.EINVAL, f"a value cannot be stored: {error}") from None


def weight(name: str, entry: Entry) -> int:
    """Bytes that ``entry`` under ``name`` takes with all that is below it."""
    if not isinstance(entry, Dir):
        return ENTRY_OVERHEAD + len(name) + entry.cost
    total = ENTRY_OVERHEAD + len(name)
    todo = [entry]
    while todo:
        for child_name, child in todo.pop().entries.items():
            total += ENTRY_OVERHEAD + len(child_name)
            if isinstance(child, Dir):
                todo.append(child)
            else:
                total += child.cost
    return total


def roll_back(undo: Undo) -> None:
    """Take back the changes that ``undo`` recorded, newest first."""
    for directory, name, old in reversed(undo):
        if old is None:
            del directory.entries[name]
        else:
            directory.entries[name] = old
            if isinstance(old, Rope):
                # Parts that only the failed commit appended must not come back by the next append.
                del old.parts[old.count :]


class View:
    """A tree as it was before the commits that ``records`` can undo."""

    __slots__ = ("_before",)

    def __init__(self, records: Iterable[Undo]) -> None:
        """``records``: newest commit first."""
        before: dict[int, dict[str, Entry | None]] = {}
        for undo in records:
            for directory, name, old in reversed(undo):
                # Going back in time, the last word is the oldest.
                before.setdefault(id(directory), {})[name] = old
        self._before = before

    def get(self, directory: Dir, name: str) -> Entry | None:
        changed = self._before.get(id(directory))
        if changed is not None and name in changed:
            return changed[name]
        return directory.entries.get(name)

    def items(self, directory: Dir) -> Iterator[tuple[str, Entry]]:
        changed = self._before.get(id(directory), {})
        for name, entry in directory.entries.items():
            if name not in changed:
                yield name, entry
        for name, old in changed.items():
            if old is not None:
                yield name, old


def listing(
    directory: Dir, recursive: bool, view: View | None, limit: int
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """The contents of ``directory``: ``({name: value | {…}}, directories, links)``.

    The last two name, by their key relative to ``directory``, the entries that are directories,
    and the links with their targets: in the first, a map may be either a value or a directory.
    Raises ServiceError EOVERFLOW when it would hold more than ``limit`` bytes.
    """
    tree: dict[str, Any] = {}
    dirs: list[str] = []
    links: dict[str, str] = {}
    total = 0
    todo: list[tuple[Dir, dict[str, Any], str]] = [(directory, tree, "")]
    while todo:
        here, out, prefix = todo.pop()
        entries = here.entries.items() if view is None else view.items(here)
        for name, entry in entries:
            total += 8 + len(name)
            if isinstance(entry, Dir):
                below: dict[str, Any] = {}
                out[name] = below
                dirs.append(prefix + name)
                if recursive:
                    todo.append((entry, below, f"{prefix}{name}."))
            elif isinstance(entry, Link):
                out[name] = links[prefix + name] = entry.target
                total += entry.size
            else:
                total += entry.size
                if total <= limit:
                    out[name] = entry.read()
        if total > limit:
            raise ServiceError(
                errno.EOVERFLOW,
                f"this listing is over {limit} bytes: list the directories below it one by one",
            )
    dirs.sort()
    return tree, dirs, links
