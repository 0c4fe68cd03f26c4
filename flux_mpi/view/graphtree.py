"""A resource graph in JGF (RFC 40), read into a tree of boxes for a picture.

States are told beside the graph, by vertex id:
``{"4": {"status": "down", "jobs": {"ƒ5": 1}, "reserved": {"ƒ9": 1}}}``. ``status`` is up, drained
or down and holds for all that is below; ``jobs`` and ``reserved`` are units held by job;
``exclusive`` says that the same jobs hold all that is below, too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

CONTAINMENT = "containment"

STATUSES = ("up", "drained", "down")
"""From best to worst: a vertex is no better off than what it lies in."""


class PictureError(ValueError):
    """A document that is no graph, or a picture that cannot be drawn of it."""


class Usage:
    """Units of one type: how many there are, who holds them, and how many nobody can have."""

    __slots__ = ("down", "drained", "jobs", "reserved", "total", "unit")

    def __init__(self) -> None:
        self.total = 0
        self.unit = ""
        self.jobs: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.drained = 0
        self.down = 0

    @property
    def taken(self) -> int:
        return min(sum(self.jobs.values()), self.total)

    @property
    def free(self) -> int:
        """What an immediate request could get."""
        return max(self.total - self.taken - self.drained - self.down, 0)

    def add(self, other: Usage) -> None:
        self.total += other.total
        self.unit = other.unit
        self.drained += other.drained
        self.down += other.down
        for job, units in other.jobs.items():
            self.jobs[job] = self.jobs.get(job, 0) + units
        for job, units in other.reserved.items():
            self.reserved[job] = self.reserved.get(job, 0) + units


class Box:
    """A vertex, and where it is drawn: ``x``, ``y``, ``w``, ``h`` in pixels of the picture."""

    __slots__ = (
        "children",
        "depth",
        "exclusive",
        "h",
        "id",
        "jobs",
        "name",
        "parent",
        "path",
        "reserved",
        "size",
        "status",
        "tile",
        "type",
        "unit",
        "usage",
        "w",
        "x",
        "y",
    )

    def __init__(self, id: str, metadata: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self.id = id
        self.type = str(metadata.get("type", ""))
        name = metadata.get("name")
        if name is None:
            number = metadata.get("id", -1)
            base = metadata.get("basename", self.type)
            name = base if number == -1 else f"{base}{number}"
        self.name = str(name)
        self.path = f"/{self.name}"
        self.size = _units(metadata.get("size", 1), f"size of {self.name[:64]}")
        self.unit = str(metadata.get("unit", ""))
        self.status = _status(metadata, state, self.name)
        self.jobs = _held(state, "jobs", self.name)
        self.reserved = _held(state, "reserved", self.name)
        self.exclusive = bool(state.get("exclusive"))
        self.children: list[Box] = []
        self.parent: Box | None = None
        self.depth = 0
        self.tile = False
        """Drawn as a sum of what is below instead of with it."""
        self.usage: dict[str, Usage] = {}
        """Of leaves at and below this one, by type."""
        self.x = self.y = self.w = self.h = 0.0

    def walk(self) -> Iterator[Box]:
        """This box and all below it, parents first."""
        stack = [self]
        while stack:
            box = stack.pop()
            yield box
            stack.extend(reversed(box.children))

    def contains(self, other: Box) -> bool:
        at: Box | None = other
        while at is not None:
            if at is self:
                return True
            at = at.parent
        return False


class Link:
    """An edge of a subsystem other than the one that boxes are nested by."""

    __slots__ = ("source", "subsystem", "target")

    def __init__(self, subsystem: str, source: Box, target: Box) -> None:
        self.subsystem = subsystem
        self.source = source
        self.target = target


class Tree:
    """The boxes below ``roots``, the links between them, and ``outside``: boxes that only links
    lead to, by subsystem."""

    def __init__(self, roots: list[Box], links: list[Link], outside: dict[str, list[Box]]) -> None:
        self.roots = roots
        self.links = links
        self.outside = outside


def read(
    document: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]], root: str | None
) -> Tree:
    """The tree to draw: all of it, or what is below the vertex with the path ``root``.

    Raises `PictureError` saying what was expected where.
    """
    boxes, told = _read_nodes(document, states)
    edges = _read_edges(document, boxes)
    below: dict[str, dict[str, list[Box]]] = {}
    targets: dict[str, set[str]] = {}
    for subsystem, source, target in edges:
        below.setdefault(subsystem, {}).setdefault(source.id, []).append(target)
        targets.setdefault(subsystem, set()).add(target.id)
    contained = below.get(CONTAINMENT, {})
    held = targets.get(CONTAINMENT, set())
    linked = {box.id for name, *ends in edges if name != CONTAINMENT for box in ends}
    roots = [
        box
        for box in boxes.values()
        if box.id not in held
        and (box.id in contained or CONTAINMENT in told[box.id] or box.id not in linked)
    ]
    if not roots:
        raise PictureError("graph.edges: expected a vertex that no other contains, found cycles")
    nested = [contained]
    if root is not None:
        subsystem, start = _find(root, boxes, told, below, roots)
        roots = [start]
        start.path = "/" + root.strip("/")
        if subsystem != CONTAINMENT:
            nested.append(below[subsystem])
    inside = _nest(roots, nested)
    _inherit(roots)
    links = [
        Link(subsystem, source, target)
        for subsystem, source, target in edges
        if subsystem != CONTAINMENT and target.parent is not source
    ]
    return _with_outside(roots, links, inside)


def _read_nodes(
    document: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Box], dict[str, Mapping[str, str]]]:
    """Boxes by id, and the paths that the document tells of each."""
    boxes: dict[str, Box] = {}
    told: dict[str, Mapping[str, str]] = {}
    for i, node in enumerate(_list(document, "nodes")):
        metadata = node.get("metadata") if isinstance(node, dict) else None
        if not isinstance(metadata, dict) or "id" not in node:
            raise PictureError(f"graph.nodes[{i}]: expected an object with id and metadata")
        id_ = str(node["id"])
        if id_ in boxes:
            raise PictureError(f"graph.nodes[{i}]: expected ids that differ, found {id_!r} again")
        boxes[id_] = Box(id_, metadata, states.get(id_, {}))
        paths = metadata.get("paths", {})
        told[id_] = paths if isinstance(paths, dict) else {}
    if not boxes:
        raise PictureError("graph.nodes: expected at least one vertex")
    return boxes, told


def _read_edges(document: Mapping[str, Any], boxes: dict[str, Box]) -> list[tuple[str, Box, Box]]:
    edges = []
    for i, edge in enumerate(_list(document, "edges")):
        if not isinstance(edge, dict):
            raise PictureError(f"graph.edges[{i}]: expected an object")
        ends = [boxes.get(str(edge.get(key))) for key in ("source", "target")]
        if ends[0] is None or ends[1] is None:
            raise PictureError(
                f"graph.edges[{i}]: expected ids of vertices, found "
                f"{edge.get('source')!r} and {edge.get('target')!r}"
            )
        metadata = edge.get("metadata")
        subsystem = metadata.get("subsystem") if isinstance(metadata, dict) else None
        edges.append((str(subsystem or CONTAINMENT), ends[0], ends[1]))
    return edges


def _find(
    path: str,
    boxes: dict[str, Box],
    told: dict[str, Mapping[str, str]],
    below: dict[str, dict[str, list[Box]]],
    roots: list[Box],
) -> tuple[str, Box]:
    """The subsystem and the vertex that ``path`` names."""
    wanted = "/" + path.strip("/")
    for id_, paths in told.items():
        for subsystem, found in paths.items():
            if found == wanted and (subsystem in below or subsystem == CONTAINMENT):
                return subsystem, boxes[id_]
    names = wanted.split("/")[1:]
    at = [box for box in roots if box.name == names[0]]
    for name in names[1:]:
        contained = below.get(CONTAINMENT, {})
        at = [child for box in at for child in contained.get(box.id, []) if child.name == name]
    if not at:
        tops = ", ".join(sorted(f"/{box.name[:64]}" for box in roots)[:8])
        raise PictureError(f"no vertex has the path {wanted[:256]}; paths begin with {tops}")
    return CONTAINMENT, at[0]


def _nest(roots: list[Box], nested: list[dict[str, list[Box]]]) -> set[str]:
    """Put boxes into one another, each once; returns the ids of those inside."""
    inside = {box.id for box in roots}
    queue = list(roots)
    for box in queue:
        for below in nested:
            for child in below.get(box.id, ()):
                if child.id not in inside:
                    inside.add(child.id)
                    child.parent = box
                    child.depth = box.depth + 1
                    child.path = f"{box.path}/{child.name}"
                    box.children.append(child)
                    queue.append(child)
    return inside


def _inherit(roots: list[Box]) -> None:
    """Hand states down, then sum up what leaves there are."""
    order: list[Box] = []
    for root in roots:
        order.extend(root.walk())
    for box in order:
        for child in box.children:
            child.status = max(child.status, box.status, key=STATUSES.index)
            if box.exclusive and not child.jobs and not child.reserved:
                child.exclusive = True
                child.jobs = dict.fromkeys(box.jobs, child.size)
                child.reserved = dict.fromkeys(box.reserved, child.size)
    for box in reversed(order):
        if not box.children:
            box.usage = {box.type: _usage(box)}
        for child in box.children:
            for name, usage in child.usage.items():
                box.usage.setdefault(name, Usage()).add(usage)


def _usage(box: Box) -> Usage:
    usage = Usage()
    usage.total = box.size
    usage.unit = box.unit
    usage.jobs = dict(box.jobs)
    usage.reserved = dict(box.reserved)
    idle = usage.total - usage.taken
    if box.status == "down":
        usage.down = idle
    elif box.status == "drained":
        usage.drained = idle
    return usage


def _with_outside(roots: list[Box], links: list[Link], inside: set[str]) -> Tree:
    """Keep links that lead into what is drawn, and boxes outside that they come from."""
    shown = set(inside)
    kept: list[Link] = []
    rest = links
    while True:
        more = [x for x in rest if x.target.id in shown]
        if not more:
            break
        kept += more
        rest = [x for x in rest if x.target.id not in shown]
        shown.update(x.source.id for x in more)
    outside: dict[str, list[Box]] = {}
    seen = set(inside)
    for link in kept:
        for box in (link.source, link.target):
            if box.id not in seen:
                seen.add(box.id)
                box.usage = {box.type: _usage(box)}
                outside.setdefault(link.subsystem, []).append(box)
    return Tree(roots, kept, outside)


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    graph = document.get("graph")
    found = graph.get(key) if isinstance(graph, dict) else None
    if not isinstance(found, list):
        raise PictureError(f"graph.{key}: expected a list, found {type(found).__name__}")
    return found


def _units(value: object, what: str) -> int:
    if not isinstance(value, int) or value < 0:
        raise PictureError(f"{what}: expected an integer, 0 or more, found {str(value)[:64]!r}")
    return value


def _status(metadata: Mapping[str, Any], state: Mapping[str, Any], name: str) -> str:
    found = state.get("status", "down" if metadata.get("status") == 1 else "up")
    if found not in STATUSES:
        raise PictureError(
            f"status of {name[:64]}: expected {', '.join(STATUSES)}, found {found!r}"
        )
    return str(found)


def _held(state: Mapping[str, Any], key: str, name: str) -> dict[str, int]:
    found = state.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise PictureError(f"{key} of {name[:64]}: expected units by job, found {found!r}")
    return {str(job): _units(units, f"{key} of {name[:64]}") for job, units in found.items()}
