"""A resource graph as a file for other tools: AT&T Graphviz's dot, or GraphML."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from flux_mpi.resource.graph import ResourceGraph

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns \
http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">
"""

_KEYS = (
    ("basename", "string"),
    ("id", "long"),
    ("member_of", "string"),
    ("name", "string"),
    ("paths", "string"),
    ("props", "string"),
    ("size", "long"),
    ("type", "string"),
    ("uniq_id", "long"),
    ("unit", "string"),
)
"""Data of a node and their types; an edge has only ``member_of``."""


def write_graph(graph: ResourceGraph, path: str) -> None:
    """Writes ``path``, in the format that its ending names. Raises OSError."""
    lines = _graphml(graph) if path.endswith(".graphml") else _dot(graph)
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(lines)


def _dot(graph: ResourceGraph) -> Iterator[str]:
    numbers = {vertex: i for i, vertex in enumerate(graph.vertices())}
    yield "digraph G {\n"
    for vertex, i in numbers.items():
        yield f"{i}[label={_quoted(graph.name(vertex))}];\n"
    for vertex, i in numbers.items():
        for edge in graph.edges_from(vertex):
            label = _quoted(graph.subsystem(edge))
            yield f"{i}->{numbers[graph.target(edge)]} [label={label}];\n"
    yield "}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _graphml(graph: ResourceGraph) -> Iterator[str]:
    from xml.sax.saxutils import escape

    numbers = {vertex: i for i, vertex in enumerate(graph.vertices())}
    yield _HEAD
    for i, (key, kind) in enumerate(_KEYS):
        yield f'  <key id="key{i}" for="node" attr.name="{key}" attr.type="{kind}" />\n'
    of_edge = len(_KEYS)
    yield f'  <key id="key{of_edge}" for="edge" attr.name="member_of" attr.type="string" />\n'
    yield '  <graph id="G" edgedefault="directed" parse.nodeids="canonical" '
    yield 'parse.edgeids="canonical" parse.order="nodesfirst">\n'
    for vertex, i in numbers.items():
        yield f'    <node id="n{i}">\n'
        for k, text in enumerate(_values(graph, vertex)):
            yield f'      <data key="key{k}">{escape(text)}</data>\n'
        yield "    </node>\n"
    count = 0
    for vertex, i in numbers.items():
        for edge in graph.edges_from(vertex):
            target = numbers[graph.target(edge)]
            name = graph.subsystem(edge)
            yield f'    <edge id="e{count}" source="n{i}" target="n{target}">\n'
            yield f'      <data key="key{of_edge}">{escape(_pairs({name: name}))}</data>\n'
            yield "    </edge>\n"
            count += 1
    yield "  </graph>\n</graphml>\n"


def _values(graph: ResourceGraph, vertex: int) -> tuple[str, ...]:
    """In the order of `_KEYS`."""
    paths = graph.paths(vertex)
    return (
        graph.basename(vertex),
        str(graph.ids[vertex]),
        _pairs({name: name for name in paths}),
        graph.name(vertex),
        _pairs(paths),
        _pairs(graph.properties.get(vertex, {})),
        str(graph.sizes[vertex]),
        graph.type(vertex),
        str(graph.uniq[vertex]),
        graph.unit(vertex),
    )


def _pairs(pairs: dict[str, str]) -> str:
    return f"{{{','.join(f'{key}={value}' for key, value in sorted(pairs.items()))}}}"
