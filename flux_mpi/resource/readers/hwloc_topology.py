"""Topologies as hwloc exports them to XML (versions 1 and 2), and as hwloc 2 gives them back.

Reading such a file, hwloc 2 does more than parse: it turns NUMA nodes from levels of the tree into
memory beside it, drops what the process was not allowed to use, and merges levels of groups and
caches that add no structure. What is numbered how, and what hangs where, depends on all of this,
so it is done here too. (hwloc's topology-xml.c and topology.c, as of 2.9, tell how.)
"""

from __future__ import annotations

from flux_mpi.resource.readers.errors import ReaderError, refusal, shown
from flux_mpi.resource.readers.xmltree import Element, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = "hwloc"

# Types by the name that they have in a file, in lower case.
_TYPES = {
    "machine": "Machine",
    "system": "Machine",
    "numanode": "NUMANode",
    "node": "NUMANode",
    "memcache": "MemCache",
    "package": "Package",
    "socket": "Package",
    "die": "Die",
    "core": "Core",
    "pu": "PU",
    "group": "Group",
    "tile": "Group",
    "module": "Group",
    "cache": "Cache",
    "misc": "Misc",
    "bridge": "Bridge",
    "pcidev": "PCIDev",
    "osdev": "OSDev",
    **{f"l{k}cache": f"L{k}Cache" for k in range(1, 6)},
    **{f"l{k}dcache": f"L{k}Cache" for k in range(1, 6)},
    **{f"l{k}ucache": f"L{k}Cache" for k in range(1, 6)},
    **{f"l{k}icache": f"L{k}iCache" for k in range(1, 4)},
}
_MEMORY = ("NUMANode", "MemCache")
_IO = ("Bridge", "PCIDev", "OSDev")
_SPECIAL = (*_MEMORY, *_IO, "Misc")
_NO_CPUSET = (*_IO, "Misc")

# Of two merged levels that could both go, the one of the lower number does.
_PRIORITY = {"Machine": 90, "Package": 40, "Die": 30, "Core": 60, "PU": 100, "Group": 0}
_DATA_CACHE, _INSTRUCTION_CACHE = 20, 19

# Kinds of group that hwloc tells apart.
_KIND_MEMORY = 1001
_KIND_DIE = 104

_KNOWN_OSDEV = range(7)
OSDEV_BLOCK, OSDEV_GPU, OSDEV_DMA, OSDEV_COPROC = 0, 1, 4, 5
"""Values of `Object.osdev`."""

MAX_OBJECTS = 1 << 20
"""More objects than this in one file are refused."""

_MAX_LEVELS = 512


class Object:
    """One object: what it is, and what is below it in each of the four kinds of children."""

    __slots__ = (
        "cache_size",
        "children",
        "complete",
        "cpuset",
        "dont_merge",
        "index",
        "infos",
        "io",
        "kind",
        "line",
        "memory",
        "name",
        "nodeset",
        "osdev",
        "parent",
        "subtype",
        "type",
    )

    def __init__(self, type: str, line: int) -> None:
        self.type = type
        self.line = line
        self.index = 0
        """Its number among those of its level."""
        self.name = ""
        self.subtype = ""
        self.infos: dict[str, str] = {}
        self.cpuset: int | None = None
        self.complete: int | None = None
        self.nodeset: int | None = None
        self.cache_size = 0
        self.osdev = -1
        self.kind = (0, 0)
        self.dont_merge = False
        self.parent: Object | None = None
        self.children: list[Object] = []
        self.memory: list[Object] = []
        self.io: list[Object] = []

    @property
    def place(self) -> str:
        """Where it is in the file, for messages."""
        return f"line {self.line} object {self.type}"

    def below(self) -> list[Object]:
        """All that is below it, in hwloc's order: normal objects, memory, devices."""
        return self.children + self.memory + self.io


def read(text: str) -> Object:
    """The root of the topology in ``text``; raises `ReaderError`."""
    document = parse(FORMAT, text)
    if document.tag not in ("topology", "root"):
        raise refusal(FORMAT, f"line {document.line}", "a <topology>", f"<{document.tag}>")
    version = document.attributes.get("version", "1.0")
    major = version.partition(".")[0]
    if major not in ("1", "2"):
        raise refusal(FORMAT, f"line {document.line} version", "1 or 2", version)
    first = next(iter(document.children), None)
    if first is None or first.tag != "object":
        raise ReaderError(f"{FORMAT}: line {document.line}: expected an <object>, found none")
    root = _Import(int(major)).run(first)
    _restrict(root, first)
    levels = _levels(root)
    _merge_levels(levels)
    _number(levels)
    return levels[0][0]


# -- import -------------------------------------------------------------------------------------


def _unsigned(text: str | None) -> int:
    """What C's strtoul makes of it: the digits that it begins with."""
    digits = (text or "").strip()
    end = 0
    while end < len(digits) and end < 20 and digits[end] in "0123456789":
        end += 1
    return int(digits[:end] or "0")


def _bitmap(format_place: str, text: str) -> int:
    """A set of bits as an integer, -1 below for one that never ends."""
    bits = 0
    words = text.split(",")
    if words[0] == "0xf...f":
        bits = -1
        words = words[1:]
    try:
        for word in words:
            value = int(word, 16) if word else 0
            if not 0 <= value < 1 << 32:
                raise ValueError(word)
            bits = (bits << 32) | value
    except ValueError:
        raise refusal(FORMAT, format_place, "a bitmap of hexadecimal words", text) from None
    return bits


class _Import:
    """Objects from elements."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._n_objects = 0
        self.root: Object | None = None

    def run(self, element: Element) -> Object:
        """The root; raises `ReaderError`."""
        # The depth of elements is bounded where they are parsed, so recursion is safe.
        self._object(element, None)
        assert self.root is not None
        if not self.root.cpuset:
            raise refusal(FORMAT, f"{self.root.place} cpuset", "a set of PUs", None)
        return self.root

    def _object(self, element: Element, parent: Object | None) -> None:
        self._n_objects += 1
        if self._n_objects > MAX_OBJECTS:
            raise refusal(FORMAT, f"line {element.line}", f"at most {MAX_OBJECTS} objects", "more")
        obj, ignored = self._read(element, parent)
        children = self._subelements(element, obj)
        if parent is not None:
            self._check_place(obj, parent)
            if self._version < 2:
                parent = self._place_of_v1(obj, parent)
        elif self._version < 2 and obj.type == "NUMANode":
            # Version 1 could leave the machine out.
            machine = Object("Machine", element.line)
            machine.cpuset = machine.complete = obj.cpuset
            machine.infos = dict(obj.infos)
            machine.nodeset = obj.nodeset
            self.root = parent = machine
        self._check_sets(obj)
        if obj.type in ("Misc", "MemCache") or (obj.type == "OSDev" and obj.osdev == OSDEV_DMA):
            ignored = ignored or parent is not None
        if parent is None:
            self.root = obj
        elif not ignored:
            obj.parent = parent
            _list_for(parent, obj).append(obj)
        here = parent if ignored and parent is not None else obj
        for child in children:
            self._object(child, here)
        _reorder(obj.children)

    def _read(self, element: Element, parent: Object | None) -> tuple[Object, bool]:
        """The object with its attributes, and whether it is passed over."""
        attributes = element.attributes
        given = attributes.get("type")
        type = _TYPES.get((given or "").lower())
        if type is None or ((given or "").lower() == "system" and parent is not None):
            raise refusal(FORMAT, f"line {element.line} object type", "one that hwloc has", given)
        obj = Object(type, element.line)
        obj.name = attributes.get("name", "")
        obj.subtype = attributes.get("subtype", "")
        for key in ("cpuset", "nodeset"):
            if key in attributes:
                setattr(obj, key, _bitmap(f"{obj.place} {key}", attributes[key]))
        if "complete_cpuset" in attributes:
            obj.complete = _bitmap(f"{obj.place} complete_cpuset", attributes["complete_cpuset"])
        depth = _unsigned(attributes.get("depth"))
        cache_type = _unsigned(attributes.get("cache_type"))
        obj.cache_size = _unsigned(attributes.get("cache_size"))
        if type == "Cache":
            instruction = cache_type == 2
            if not 1 <= depth <= (3 if instruction else 5):
                raise refusal(FORMAT, f"{obj.place} depth", "a cache level", depth)
            obj.type = f"L{depth}{'i' if instruction else ''}Cache"
        elif type == "Group":
            obj.kind = (_unsigned(attributes.get("kind")), _unsigned(attributes.get("subkind")))
            obj.dont_merge = attributes.get("dont_merge", "0") != "0"
            if obj.kind[0] == _KIND_DIE or obj.subtype == "Die":
                obj.type = "Die"
        elif type == "OSDev":
            obj.osdev = _unsigned(attributes.get("osdev_type"))
            if obj.osdev not in _KNOWN_OSDEV:
                raise refusal(FORMAT, f"{obj.place} osdev_type", "0 to 6", obj.osdev)
        elif type == "Machine" and parent is not None:
            obj.type = "Group"
        elif type == "Misc" and self._version < 2 and obj.cpuset is not None:
            obj.type = "Group"  # version 1 put annotations of the tree there
        return obj, self._lacks_sets(obj, attributes)

    def _lacks_sets(self, obj: Object, attributes: dict[str, str]) -> bool:
        """Whether a group of version 1 is incomplete, and passed over; others must not be."""
        if self._version >= 2:
            return False
        for key in ("cpuset", "nodeset"):
            if (key in attributes) != (f"complete_{key}" in attributes):
                if obj.type == "Group":
                    return True
                raise refusal(FORMAT, obj.place, f"{key} with complete_{key}", "one of them")
        if "nodeset" in attributes and "cpuset" not in attributes:
            if obj.type == "Group":
                return True
            raise refusal(FORMAT, f"{obj.place} cpuset", "a bitmap", None)
        return False

    def _subelements(self, element: Element, obj: Object) -> list[Element]:
        """The objects below; takes in what else is there."""
        for sub in element.children:
            if sub.tag == "info":
                name = sub.attributes.get("name")
                if name is not None and "value" in sub.attributes:
                    obj.infos.setdefault(name, sub.attributes["value"])
                    if self._version < 2 and name == "Type":
                        obj.subtype = sub.attributes["value"]
            elif sub.tag not in ("object", "page_type", "distances", "userdata"):
                raise refusal(FORMAT, f"line {sub.line}", "an <object> or <info>", f"<{sub.tag}>")
        return [sub for sub in element.children if sub.tag == "object"]

    def _check_place(self, obj: Object, parent: Object) -> None:
        type, above = obj.type, parent.type
        if type in _IO:
            good = above != "Misc" and (self._version < 2 or above not in _MEMORY)
        elif type in _MEMORY and self._version >= 2:
            good = above not in _NO_CPUSET
        elif type != "Misc":
            allowed = ("NUMANode",) if self._version < 2 else ()
            good = above not in _SPECIAL or above in allowed
        else:
            good = True
        if not good:
            raise refusal(FORMAT, obj.place, "a parent that may have one", parent.type)

    def _place_of_v1(self, obj: Object, parent: Object) -> Object:
        """Where an object of version 1 goes in the tree of version 2."""
        if parent.type == "NUMANode":
            assert parent.parent is not None
            parent = parent.parent
        if obj.type == "NUMANode" and obj.complete != parent.complete:
            # Memory is beside what is near to it: if nothing is, a group is made to be that.
            # Only the fast memory of a Knights Landing is known to be so to the slow one.
            fast = obj.subtype == "MCDRAM" and not obj.complete
            if not (fast and len(parent.memory) == 1 and not parent.memory[0].subtype):
                group = Object("Group", obj.line)
                group.cpuset = group.complete = obj.cpuset
                group.nodeset = obj.nodeset
                group.kind = (_KIND_MEMORY, 0)
                group.parent = parent
                parent.children.append(group)
                return group
        return parent

    def _check_sets(self, obj: Object) -> None:
        special = obj.type in _NO_CPUSET
        if not special and obj.cpuset is None and obj.type != "MemCache":
            raise refusal(FORMAT, f"{obj.place} cpuset", "a bitmap", None)
        if special and obj.cpuset is not None:
            raise refusal(FORMAT, f"{obj.place} cpuset", "none", "one")
        if obj.type == "NUMANode" and obj.nodeset is None:
            raise refusal(FORMAT, f"{obj.place} nodeset", "a bitmap", None)
        if obj.complete is None:
            obj.complete = obj.cpuset


def _list_for(parent: Object, obj: Object) -> list[Object]:
    if obj.type in _MEMORY:
        return parent.memory
    return parent.io if obj.type in _IO else parent.children


def _reorder(children: list[Object]) -> None:
    """Normal children go by their first PU; those without one go last."""

    def first(obj: Object) -> tuple[bool, int]:
        bits = obj.complete or 0
        return (not bits, (bits & -bits).bit_length())

    ordered = sorted(children, key=first)
    if ordered != children:
        children[:] = ordered


# -- what is left of it -------------------------------------------------------------------------


def _restrict(root: Object, element: Element) -> None:
    """Leave out what was not allowed, and see to it that there is memory."""
    allowed = []
    for key, all in (("allowed_cpuset", root.cpuset), ("allowed_nodeset", root.nodeset)):
        told = element.attributes.get(key)
        everything = -1 if all is None else all
        allowed.append(everything & _bitmap(f"{root.place} {key}", told) if told else everything)
    n_numa = sum(obj.type == "NUMANode" for obj in _walk(root))
    if not n_numa:
        numa = Object("NUMANode", root.line)
        numa.cpuset = numa.complete = root.cpuset
        numa.nodeset = 1
        allowed[1] = 1
        near = next((x for x in root.children if x.cpuset == root.cpuset and x.type != "PU"), root)
        numa.parent = near
        near.memory.append(numa)
    _remove_empty(root, allowed[0], allowed[1])
    if not any(obj.type == "PU" for obj in _walk(root)) and not (root.cpuset or 0) & allowed[0]:
        raise refusal(FORMAT, f"{root.place} allowed_cpuset", "a PU of the machine", "none")


def _walk(root: Object) -> Iterator[Object]:
    stack = [root]
    while stack:
        obj = stack.pop()
        yield obj
        stack += reversed(obj.below())


def _remove_empty(obj: Object, cpus: int, nodes: int) -> bool:
    """Remove objects without PUs (memory: without itself) from below; whether obj is one."""
    obj.children = [x for x in obj.children if not _remove_empty(x, cpus, nodes)]
    obj.memory = [x for x in obj.memory if not _remove_empty(x, cpus, nodes)]
    if obj.children or obj.memory or obj.io:
        return False
    if obj.type in _MEMORY:
        return not (obj.nodeset or 0) & nodes
    return not (obj.cpuset or 0) & cpus


# -- levels -------------------------------------------------------------------------------------


def _kind(obj: Object) -> tuple[str, tuple[int, int]]:
    """Objects of one kind share a level."""
    return obj.type, obj.kind


def _levels(root: Object) -> list[list[Object]]:
    """The normal objects level by level, the root's first."""
    kinds: dict[int, set[tuple[str, tuple[int, int]]]] = {}

    def inside(obj: Object) -> set[tuple[str, tuple[int, int]]]:
        """The kinds strictly below ``obj``."""
        known = kinds.get(id(obj))
        if known is None:
            known = set()
            for child in obj.children:
                known.add(_kind(child))
                known |= inside(child)
            kinds[id(obj)] = known
        return known

    levels = [[root]]
    objects = list(root.children)
    while objects:
        # PUs stay at the bottom: they are the topmost only when nothing else is left.
        top = next((x for x in objects if x.type != "PU"), objects[0])
        for obj in objects:
            if _kind(obj) != _kind(top) and _kind(top) in inside(obj):
                top = obj
        level: list[Object] = []
        rest: list[Object] = []
        for obj in objects:
            if _kind(obj) == _kind(top):
                level.append(obj)
                rest += obj.children
            else:
                rest.append(obj)
        levels.append(level)
        if len(levels) > _MAX_LEVELS:
            raise refusal(FORMAT, level[0].place, f"at most {_MAX_LEVELS} levels", "more")
        objects = rest
    return levels


def _mergeable(type: str) -> bool:
    return type == "Group" or type.endswith("Cache")


def _priority(type: str) -> int:
    if type.endswith("iCache"):
        return _INSTRUCTION_CACHE
    return _DATA_CACHE if type.endswith("Cache") else _PRIORITY[type]


def _merge_levels(levels: list[list[Object]]) -> None:
    """Merge each level into a neighbour that has the same structure, from the bottom up."""
    for i in range(len(levels) - 1, 0, -1):
        above, level = levels[i - 1], levels[i]
        type1, type2 = above[0].type, level[0].type
        drop_parent = _mergeable(type1) and not any(
            type1 == "Group" and x.dont_merge for x in above
        )
        drop_child = _mergeable(type2) and not any(type1 == "Group" and x.dont_merge for x in level)
        if not drop_parent and not drop_child:
            continue
        if drop_parent and drop_child:
            drop_parent = _priority(type1) < _priority(type2)
        if not _same_structure(above, level):
            continue
        for parent, child in zip(above, level):
            if drop_parent:
                _replace_parent(parent, child)
            else:
                _replace_child(parent, child)
        del levels[i - 1 if drop_parent else i]


def _same_structure(above: list[Object], level: list[Object]) -> bool:
    return len(above) == len(level) and all(
        parent is child.parent
        and len(parent.children) == 1
        and not (level[0].type == "PU" and parent.memory)
        for parent, child in zip(above, level)
    )


def _replace_child(parent: Object, child: Object) -> None:
    parent.children = child.children
    parent.memory += child.memory
    parent.io += child.io
    for obj in parent.below():
        obj.parent = parent


def _replace_parent(parent: Object, child: Object) -> None:
    grandparent = child.parent = parent.parent
    if grandparent is not None:
        at = next(k for k, x in enumerate(grandparent.children) if x is parent)
        grandparent.children[at] = child
    child.memory = parent.memory + child.memory
    child.io = parent.io + child.io
    for obj in child.memory + child.io:
        obj.parent = child


def _number(levels: list[list[Object]]) -> None:
    """Number objects: in their level, and memory and devices among all of their type."""
    for level in levels:
        for index, obj in enumerate(level):
            obj.index = index
    counts: dict[str, int] = {}
    for obj in _walk(levels[0][0]):
        if obj.type in _SPECIAL:
            obj.index = counts.get(obj.type, 0)
            counts[obj.type] = obj.index + 1


def info(obj: Object, name: str) -> str | None:
    """The information of this name that the file has of an object."""
    return obj.infos.get(name)


def described(obj: Object) -> str:
    """An object as messages name it."""
    return f"{obj.place} {shown(obj.name)}" if obj.name else obj.place
