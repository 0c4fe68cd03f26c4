"""Machines and requests to match on, made up in any size."""

from __future__ import annotations

import json
from typing import Any

RACK = 64
"""Nodes of a rack."""

_KEYS = (
    ("root", "node", "int", "0"),
    ("type", "node", "string", ""),
    ("basename", "node", "string", ""),
    ("size", "node", "long", "1"),
    ("subsystem", "node", "string", "containment"),
    ("e_subsystem", "edge", "string", "containment"),
    ("relation", "edge", "string", "contains"),
    ("rrelation", "edge", "string", "in"),
    ("id_scope", "edge", "int", "0"),
    ("id_start", "edge", "int", "0"),
    ("id_stride", "edge", "int", "1"),
    ("gen_method", "edge", "string", "MULTIPLY"),
    ("multi_scale", "edge", "int", "1"),
)


def recipe(nodes: int, *, sockets: bool = False, cores: int = 48, gpus: int = 8) -> str:
    """A GRUG recipe: racks of 64 nodes with cores and GPUs, in two sockets if asked."""
    levels = [("cluster", "rack", max(1, nodes // RACK), 0), ("rack", "node", min(nodes, RACK), 1)]
    if sockets:
        levels += [("node", "socket", 2, 0)]
        levels += [("socket", "core", cores // 2, 1), ("socket", "gpu", gpus // 2, 1)]
    else:
        levels += [("node", "core", cores, 0), ("node", "gpu", gpus, 0)]
    keys = "".join(
        f'<key id="{key}" for="{of}" attr.name="{key}" attr.type="{kind}">'
        + (f"<default>{default}</default>" if default else "")
        + "</key>"
        for key, of, kind, default in _KEYS
    )
    types = dict.fromkeys(["cluster", *(below for _, below, _, _ in levels)])
    vertices = "".join(
        f'<node id="{name}">'
        + ('<data key="root">1</data>' if name == "cluster" else "")
        + f'<data key="type">{name}</data><data key="basename">{name}</data></node>'
        for name in types
    )
    edges = "".join(
        f'<edge id="{above}2{below}" source="{above}" target="{below}">'
        f'<data key="id_scope">{scope}</data><data key="multi_scale">{count}</data></edge>'
        for above, below, count, scope in levels
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
        f'{keys}<graph id="machine" edgedefault="directed">{vertices}{edges}</graph></graphml>'
    )


def resource(type: str, count: int, *inside: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One entry of a jobspec's resources."""
    return {"type": type, "count": count, **({"with": list(inside)} if inside else {}), **more}


def jobspec(*resources: dict[str, Any], duration: float = 3600) -> str:
    """A jobspec (RFC 14) as JSON text."""
    return json.dumps(
        {
            "version": 1,
            "resources": list(resources),
            "attributes": {"system": {"duration": duration}},
            "tasks": [{"command": ["app"], "slot": "task", "count": {"per_slot": 1}}],
        }
    )


def one_core(duration: float = 3600) -> str:
    return jobspec(resource("slot", 1, resource("core", 1), label="task"), duration=duration)


def whole_nodes(count: int, duration: float = 3600) -> str:
    """Nodes with all their 48 cores and 8 GPUs: 57 vertices each."""
    slot = resource("slot", 1, resource("core", 48), resource("gpu", 8), label="task")
    return jobspec(resource("node", count, slot), duration=duration)


def racks(duration: float = 3600) -> str:
    """Two racks, two nodes in each, two slots of a socket's 8 cores and a GPU in each."""
    socket = resource("socket", 1, resource("core", 8), resource("gpu", 1))
    slot = resource("slot", 2, socket, label="task")
    return jobspec(resource("rack", 2, resource("node", 2, slot)), duration=duration)
