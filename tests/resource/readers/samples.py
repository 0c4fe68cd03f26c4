"""Small inputs for the readers, and graphs put into a form that tests can compare."""

from __future__ import annotations

import json
from typing import Any

from flux_mpi.resource.graph import ResourceGraph

KEYS = """
  <key id="root" for="node" attr.name="root" attr.type="int"><default>0</default></key>
  <key id="type" for="node" attr.name="type" attr.type="string"/>
  <key id="basename" for="node" attr.name="basename" attr.type="string"/>
  <key id="unit" for="node" attr.name="unit" attr.type="string"/>
  <key id="size" for="node" attr.name="size" attr.type="long"><default>1</default></key>
  <key id="subsystem" for="node" attr.name="subsystem" attr.type="string">
    <default>containment</default></key>
  <key id="e_subsystem" for="edge" attr.name="e_subsystem" attr.type="string">
    <default>containment</default></key>
  <key id="gen_method" for="edge" attr.name="gen_method" attr.type="string">
    <default>MULTIPLY</default></key>
  <key id="id_scope" for="edge" attr.name="id_scope" attr.type="int"><default>0</default></key>
  <key id="id_start" for="edge" attr.name="id_start" attr.type="int"><default>0</default></key>
  <key id="id_stride" for="edge" attr.name="id_stride" attr.type="int"><default>1</default></key>
  <key id="multi_scale" for="edge" attr.name="multi_scale" attr.type="int">
    <default>1</default></key>
  <key id="as_tgt_subsystem" for="edge" attr.name="as_tgt_subsystem" attr.type="string">
    <default>containment</default></key>
  <key id="as_tgt_uplvl" for="edge" attr.name="as_tgt_uplvl" attr.type="int">
    <default>1</default></key>
  <key id="as_src_uplvl" for="edge" attr.name="as_src_uplvl" attr.type="int">
    <default>1</default></key>
"""


def kind(name: str, type: str | None = None, **data: object) -> str:
    """A recipe vertex; its type and basename are its name unless told."""
    values = {"type": type or name, "basename": type or name, **data}
    return f'<node id="{name}">{_data(values)}</node>\n'


def edge(source: str, target: str, **data: object) -> str:
    """A recipe edge."""
    return f'<edge id="e" source="{source}" target="{target}">{_data(data)}</edge>\n'


def _data(values: dict[str, Any]) -> str:
    return "".join(f'<data key="{key}">{value}</data>' for key, value in values.items())


def recipe(*parts: str, keys: str = KEYS, directed: str = "directed") -> str:
    """A GRUG recipe of `kind` and `edge`."""
    body = "".join(parts)
    return f'<graphml>{keys}<graph id="g" edgedefault="{directed}">{body}</graph></graphml>'


def small() -> str:
    """A cluster of one rack, two nodes, with two sockets of three cores and a gpu each."""
    return recipe(
        kind("cluster", root=1, basename="mine"),
        kind("rack"),
        kind("node"),
        kind("socket"),
        kind("core"),
        kind("gpu"),
        kind("memory", size=4, unit="GB"),
        edge("cluster", "rack"),
        edge("rack", "node", multi_scale=2, id_scope=1),
        edge("node", "socket", multi_scale=2),
        edge("socket", "core", multi_scale=3, id_scope=1),
        edge("socket", "gpu", multi_scale=1, id_scope=1),
        edge("socket", "memory", multi_scale=2, id_scope=1),
    )


def node(key: int, type: str, path: str | dict[str, Any], /, **metadata: Any) -> dict[str, Any]:
    """A JGF node."""
    paths = {"containment": path} if isinstance(path, str) else path
    return {"id": str(key), "metadata": {"type": type, "paths": paths, **metadata}}


def link(source: int, target: int, subsystem: str | None = None) -> dict[str, Any]:
    """A JGF edge."""
    made: dict[str, Any] = {"source": str(source), "target": str(target)}
    if subsystem is not None:
        made["metadata"] = {"subsystem": subsystem}
    return made


def jgf(nodes: list[Any], edges: list[Any], **more: Any) -> str:
    """A JGF document."""
    return json.dumps({"graph": {"nodes": nodes, "edges": edges}, **more})


def dump(graph: ResourceGraph, *, exclusive: bool = False, only: set[int] | None = None) -> str:
    """A graph (or some vertices of it, and the edges between them) as JGF with every key."""
    nodes = [
        {
            "id": str(graph.uniq[v]),
            "metadata": {
                "type": graph.type(v),
                "basename": graph.basename(v),
                "name": graph.name(v),
                "id": graph.ids[v],
                "uniq_id": graph.uniq[v],
                "rank": graph.ranks[v],
                "status": graph.status(v),
                "exclusive": exclusive,
                "unit": graph.unit(v),
                "size": graph.sizes[v],
                "paths": graph.paths(v),
                "properties": graph.properties.get(v, {}),
            },
        }
        for v in graph.vertices()
        if only is None or v in only
    ]
    edges = [
        link(graph.uniq[v], graph.uniq[graph.target(e)], graph.subsystem(e))
        for v in graph.vertices()
        for e in graph.edges_from(v)
        if only is None or (v in only and graph.target(e) in only)
    ]
    return jgf(nodes, edges)


def vertex(graph: ResourceGraph, v: int) -> tuple[Any, ...]:
    """All that a graph knows of a vertex."""
    return (
        graph.type(v),
        graph.basename(v),
        graph.name(v),
        graph.ids[v],
        graph.uniq[v],
        graph.ranks[v],
        graph.sizes[v],
        graph.unit(v),
        graph.status(v),
        graph.properties.get(v, {}),
        graph.paths(v),
    )


def whole(graph: ResourceGraph) -> tuple[Any, ...]:
    """All that a graph knows."""
    return (
        [vertex(graph, v) for v in graph.vertices()],
        [
            [(graph.target(e), graph.subsystem(e)) for e in graph.edges_from(v)]
            for v in graph.vertices()
        ],
        {graph.subsystems[s]: root for s, root in graph.roots.items()},
    )


def names(graph: ResourceGraph, subsystem: str = "containment") -> list[str]:
    """The paths of a subsystem, in the order of the vertices."""
    found = [graph.path(v, subsystem) for v in graph.vertices()]
    return [path for path in found if path is not None]
