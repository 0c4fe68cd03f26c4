"""Shapes as requests of the graph door, and how many slots each part of what they get has. Pure."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from flux_mpi.formats import graphshape
from flux_mpi.formats.graphshape import SLOTS, TASK_SLOT
from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.request import UNBOUNDED, Request
from flux_mpi.sched.placement import Part


class Slots(NamedTuple):
    """What is known of the slots that tasks run in, before anything is matched."""

    cores: int = 0
    """Of one slot, at least."""
    gpus: int = 0
    nodes: int = 0
    """Above 0: a slot has whole nodes in it, so many."""
    per_node: int = 0
    """Above 0: each node has exactly so many."""
    total: int = 0
    """Above 0: there are exactly so many."""


class Ask(NamedTuple):
    """A shape in the graph door's terms."""

    choices: list[list[Request]]
    """Resources to ask for: the first of these that can be had."""
    slots: Slots
    spread: int = 0
    """Above 0: so many slots, each within one node, any number of them on a node. One request
    cannot say that: the choice asks for one node and as many of the slots as it can take."""


def ask(shape: Shape, containers: Container[str] = ()) -> Ask:
    """What the graph door is asked for a shape. ``containers``: types with something below them,
    which a slot has whole when it does not say what of it."""
    if shape.graph:
        document = json.loads(shape.graph)
        choices = graphshape.choices(document)
        requests = [[_request(vertex) for vertex in each] for each in choices]
        for each in requests:
            _take_whole(each, containers, False)
        return Ask(requests, _slots(document))
    inside = [_request({"type": "core", "count": shape.cores})]
    if shape.gpus:
        inside.append(_request({"type": "gpu", "count": shape.gpus}))
    nodes, per_node = shape.nnodes, shape.slots_per_node
    if shape.exclusive and not nodes:
        nodes, per_node = shape.nslots, 1  # each slot has a node to itself
    slots = Slots(shape.cores, shape.gpus, 0, per_node, shape.nslots)
    if nodes:
        node = Request("node", nodes, nodes, exclusive=True if shape.exclusive else None)
        node.children = [_slot(per_node, per_node, inside)]
        return Ask([[node]], slots)
    if shape.cores == 1 and not shape.gpus:
        return Ask([[_slot(shape.nslots, shape.nslots, inside)]], slots)
    return Ask([spread(shape, shape.nslots)], slots, shape.nslots)


def spread(shape: Shape, most: int) -> list[Request]:
    """One node with as many slots of a shape as it can take, ``most`` at most."""
    inside = [_request({"type": "core", "count": shape.cores})]
    if shape.gpus:
        inside.append(_request({"type": "gpu", "count": shape.gpus}))
    return [Request("node", children=[_slot(1, most, inside)])]


def _slot(least: int, most: int, inside: list[Request]) -> Request:
    return Request("slot", least, most, label=TASK_SLOT, children=inside)


def _request(vertex: dict[str, Any]) -> Request:
    count = vertex["count"]
    request = Request(vertex["type"])
    if isinstance(count, int):
        request.min = request.max = min(count, UNBOUNDED)
    else:
        request.min = min(count["min"], UNBOUNDED)
        request.max = min(count.get("max", UNBOUNDED), UNBOUNDED)
        request.operator = count.get("operator", "+")
        request.operand = count.get("operand", 1)
    request.exclusive = vertex.get("exclusive")
    request.unit = vertex.get("unit", "")
    request.label = vertex.get("label", "")
    request.children = [_request(child) for child in vertex.get("with", ())]
    return request


def _take_whole(resources: list[Request], containers: Container[str], in_slot: bool) -> None:
    for request in resources:
        if in_slot and not request.children and request.type in containers:
            request.exclusive = True
        _take_whole(request.children, containers, in_slot or request.type in SLOTS)


def _slots(document: list[dict[str, Any]]) -> Slots:
    """What a graph says of the slot with tasks (of the first, if there are several)."""
    for way in _ways(document, ()):
        slot = way[-1]
        if slot["type"] not in SLOTS or slot["label"] != TASK_SLOT:
            continue
        totals: dict[str, int] = {}
        _count_below(slot, 1, totals)
        total = per_node = 1
        below_node = False
        for vertex in way:
            count = vertex["count"]
            fixed = isinstance(count, int)
            total = total * count if fixed else 0
            per_node = per_node * count if fixed else 0
            if vertex["type"] == "node":
                per_node, below_node = 1, True
        return Slots(
            totals.get("core", 0),
            totals.get("gpu", 0),
            totals.get("node", 0),
            per_node if below_node else 0,
            total,
        )
    return Slots()


def _ways(
    resources: Sequence[dict[str, Any]], above: tuple[dict[str, Any], ...]
) -> Iterable[tuple[dict[str, Any], ...]]:
    """Each vertex with all above it, from the top."""
    for vertex in resources:
        way = (*above, vertex)
        yield way
        yield from _ways(vertex.get("with", ()), way)


def _count_below(vertex: dict[str, Any], times: int, totals: dict[str, int]) -> None:
    for child in vertex.get("with", ()):
        units = times * graphshape.least(child["count"])
        totals[child["type"]] = totals.get(child["type"], 0) + units
        _count_below(child, units, totals)


def count_slots(slots: Slots, taken: Sequence[tuple[int, int, int]]) -> list[Part]:
    """Parts of what was taken, as (rank, cores, gpus) with bitmasks, each with its slots.

    Where the request says neither how many slots there are nor how many a node has, there are as
    many as the cores or GPUs of a part are enough for.
    """
    n = len(taken)
    counts = [_room(slots, cores, gpus) for _, cores, gpus in taken]
    if slots.per_node:
        counts = [slots.per_node] * n
    elif slots.nodes:
        # A slot begins on its first node, and its tasks run there.
        step = max(slots.nodes, n // slots.total if slots.total else 1)
        counts = [int(i % step == 0) for i in range(n)]
    elif slots.total and sum(counts) != slots.total:
        counts = _fill(counts, slots.total)
    return [Part(rank, k, cores, gpus) for (rank, cores, gpus), k in zip(taken, counts)]


def _room(slots: Slots, cores: int, gpus: int) -> int:
    """How many slots so much is enough for; at least one, for something runs there."""
    each = ((cores, slots.cores), (gpus, slots.gpus))
    most = [mask.bit_count() // units for mask, units in each if units]
    return max(1, min(most, default=1))


def _fill(room: list[int], total: int) -> list[int]:
    """``total`` slots where there is room for them; what is left over goes round from the first."""
    counts = []
    for most in room:
        counts.append(min(most, total))
        total -= counts[-1]
    if total and counts:
        each, rest = divmod(total, len(counts))
        counts = [count + each + (i < rest) for i, count in enumerate(counts)]
    return counts
