"""GraphML recipes of GRUG: attributes with their types and defaults, as Boost's reader has them."""

from __future__ import annotations

from flux_mpi.resource.readers.errors import (
    MAX_SIZE,
    ReaderError,
    checked_name,
    refusal,
    shown,
)
from flux_mpi.resource.readers.xmltree import Element, parse

FORMAT = "grug"

_INT = ("int", -(1 << 31), (1 << 31) - 1)
_LONG = ("long", -(1 << 63), (1 << 63) - 1)
_STRING = ("string", 0, 0)

_OF_NODES = {
    "root": _INT,
    "type": _STRING,
    "basename": _STRING,
    "size": _LONG,
    "unit": _STRING,
    "subsystem": _STRING,
}
_OF_EDGES = {
    "e_subsystem": _STRING,
    "relation": _STRING,
    "rrelation": _STRING,
    "gen_method": _STRING,
    "id_scope": _INT,
    "id_start": _INT,
    "id_stride": _INT,
    "multi_scale": _INT,
    "as_tgt_subsystem": _STRING,
    "as_tgt_uplvl": _INT,
    "as_src_uplvl": _INT,
}
_ATTRIBUTE_TYPES = ("boolean", "int", "long", "float", "double", "string")
_KEY_KINDS = ("graph", "node", "edge", "hyperedge", "port", "endpoint", "all", "graphml")
_METHODS = ("MULTIPLY", "ASSOCIATE_IN", "ASSOCIATE_BY_PATH_IN")


class _Key:
    """A GraphML <key>: what it is for, the attribute it stands for, its type, its default."""

    __slots__ = ("default", "kind", "name", "type")

    def __init__(self, kind: str, name: str, type: str, default: str | None) -> None:
        self.kind = kind
        self.name = name
        self.type = type
        self.default = default


class _Values:
    """Attributes of one element of the recipe: integers and strings by name, 0 or "" if unset."""

    def __init__(self, table: dict[str, tuple[str, int, int]], place: str) -> None:
        self._table = table
        self.place = place
        self._numbers: dict[str, int] = {}
        self._strings: dict[str, str] = {}

    def put(self, key: _Key, value: str) -> None:
        """Raises `ReaderError` where Boost would throw."""
        place = f"{self.place} {shown(key.name)}"
        if key.name not in self._table:
            raise refusal(FORMAT, self.place, f"one of {', '.join(self._table)}", key.name)
        type, low, high = self._table[key.name]
        if key.type not in (type, "string"):
            raise refusal(FORMAT, place, f"attr.type {type}", key.type)
        if type == "string":
            self._strings[key.name] = checked_name(FORMAT, place, value, empty=True)
            return
        # Strings convert, and an empty one is 0; an int that is empty is no int.
        self._numbers[key.name] = (
            0 if key.type == "string" and not value else _integer(place, value, low, high)
        )

    def number(self, name: str) -> int:
        return self._numbers.get(name, 0)

    def string(self, name: str) -> str:
        return self._strings.get(name, "")


def _integer(place: str, text: str, low: int, high: int) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if digits.isascii() and digits.isdigit() and len(digits) <= 20 and low <= int(text) <= high:
        return int(text)
    raise refusal(FORMAT, place, f"an integer from {low} to {high}", text)


class RecipeVertex:
    """A vertex of the recipe: one kind of resource, and the recipe edges that leave it."""

    __slots__ = ("basename", "edges", "place", "root", "size", "subsystem", "type", "unit")

    def __init__(self, values: _Values) -> None:
        self.place = place = values.place
        self.type = checked_name(FORMAT, f"{place} 'type'", values.string("type"))
        self.basename = values.string("basename")
        self.unit = values.string("unit")
        self.subsystem = values.string("subsystem")
        self.root = values.number("root") != 0
        self.size = values.number("size")
        if not 0 <= self.size <= MAX_SIZE:
            raise refusal(FORMAT, f"{place} 'size'", f"an integer from 0 to {MAX_SIZE}", self.size)
        self.edges: list[RecipeEdge] = []


class RecipeEdge:
    """An edge of the recipe: how vertices of the target are made below those of the source."""

    __slots__ = (
        "id_scope",
        "id_start",
        "id_stride",
        "in_subsystem",
        "method",
        "place",
        "scale",
        "source",
        "source_up",
        "subsystem",
        "target",
        "target_up",
    )

    def __init__(self, values: _Values, source: int, target: int) -> None:
        self.place = place = values.place
        self.source = source
        self.target = target
        self.method = values.string("gen_method")
        if self.method not in _METHODS:
            raise refusal(FORMAT, f"{place} 'gen_method'", " or ".join(_METHODS), self.method)
        self.subsystem = values.string("e_subsystem")
        self.in_subsystem = values.string("as_tgt_subsystem")
        self.target_up = values.number("as_tgt_uplvl")
        self.source_up = values.number("as_src_uplvl")
        self.id_scope = values.number("id_scope")
        self.id_start = values.number("id_start")
        self.id_stride = values.number("id_stride")
        self.scale = values.number("multi_scale")
        if self.scale < 0:
            raise refusal(FORMAT, f"{place} 'multi_scale'", "0 or more", self.scale)


def read(text: str) -> list[RecipeVertex]:
    """The recipe's vertices in the order of the file, with their edges in that order.

    Raises `ReaderError`.
    """
    document = parse(FORMAT, text)
    if document.tag != "graphml":
        raise refusal(FORMAT, f"line {document.line}", "a <graphml> element", f"<{document.tag}>")
    keys: dict[str, _Key] = {}
    for element in document.children:
        if element.tag == "key":
            keys[element.attributes.get("id", "")] = _read_key(element)
    graph = next((x for x in document.children if x.tag == "graph"), None)
    if graph is None:
        raise ReaderError(f"{FORMAT}: line {document.line}: expected a <graph>, found none")
    vertices: list[RecipeVertex] = []
    numbers: dict[str, int] = {}
    for element in graph.children:
        if element.tag == "node":
            name = _attribute(element, "id")
            if name in numbers:
                raise refusal(FORMAT, f"line {element.line} node", "each id once", name)
            numbers[name] = len(vertices)
            place = f"line {element.line} node {shown(name)}"
            vertices.append(RecipeVertex(_values(element, keys, "node", _OF_NODES, place)))
    default = _attribute(graph, "edgedefault")
    for element in graph.children:
        if element.tag == "edge":
            ends = []
            for which in ("source", "target"):
                name = _attribute(element, which)
                if name not in numbers:
                    raise refusal(FORMAT, f"line {element.line} edge {which}", "a node's id", name)
                ends.append(numbers[name])
            told = element.attributes.get("directed", "")
            if (told or default) != ("true" if told else "directed"):
                raise refusal(
                    FORMAT, f"line {element.line} edge", "a directed edge", told or default
                )
            place = f"line {element.line} edge {shown(element.attributes.get('id', ''))}"
            edge = RecipeEdge(_values(element, keys, "edge", _OF_EDGES, place), ends[0], ends[1])
            vertices[edge.source].edges.append(edge)
    return vertices


def _read_key(element: Element) -> _Key:
    kind = element.attributes.get("for", "")
    if kind not in _KEY_KINDS:
        raise refusal(
            FORMAT, f"line {element.line} key for", f"one of {' '.join(_KEY_KINDS)}", kind
        )
    default = next((x.text for x in element.children if x.tag == "default"), None)
    attributes = element.attributes
    key = _Key(kind, attributes.get("attr.name", ""), attributes.get("attr.type", ""), default)
    if default is not None and key.type not in _ATTRIBUTE_TYPES:
        raise refusal(
            FORMAT, f"line {element.line} key attr.type", " or ".join(_ATTRIBUTE_TYPES), key.type
        )
    return key


def _attribute(element: Element, name: str) -> str:
    if name not in element.attributes:
        raise ReaderError(
            f"{FORMAT}: line {element.line}: expected <{element.tag}> with {name}, found none"
        )
    return element.attributes[name]


def _values(
    element: Element,
    keys: dict[str, _Key],
    kind: str,
    table: dict[str, tuple[str, int, int]],
    place: str,
) -> _Values:
    values = _Values(table, place)
    for key in keys.values():
        if key.kind == kind and key.default is not None:
            values.put(key, key.default)
    for data in element.children:
        if data.tag == "data":
            name = _attribute(data, "key")
            if name not in keys:
                raise refusal(FORMAT, f"line {data.line} data key", "the id of a <key>", name)
            values.place = f"{place} line {data.line}" if data.line != element.line else place
            values.put(keys[name], data.text)
            values.place = place
    return values
