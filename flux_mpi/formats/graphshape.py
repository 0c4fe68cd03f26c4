"""Requests that nodes, slots, cores and GPUs at fixed counts cannot express, as a `Shape`.

Its ``graph`` is the resources section (RFC 14) as canonical JSON: equal requests have equal text.
Of labels only those survive that mean something: that of the slot that tasks run in is ``task``,
other slots are ``other``, and other resources keep theirs.
"""

from __future__ import annotations

import json

from flux_mpi.formats.counts import Count
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.jobspec import Jobspec, JobspecError, constraint_text, task_total

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from flux_mpi.formats.shape import Shape

TASK_SLOT, OTHER_SLOT = "task", "other"

SLOTS = ("slot", "xor_slot")
"""What tasks run in; of the latter, which are Fluxion's, a job gets one of several."""

LARGEST = 1 << 40
"""More than this of anything is refused rather than counted."""

MAX_CHOICES = 64
"""Most counts of a set with gaps: each is another request to try."""

_TEXT_LIMIT = 200


def graph_shape(spec: Jobspec) -> Shape:
    """The shape of any request. Numbers are those of the minimum counts.

    Raises `JobspecError` for a choice of single resources (``id``), a slot or what is in it to be
    shared, and counts whose product or whose choices are beyond all bounds.
    """
    from flux_mpi.formats.shape import Shape

    label = spec.tasks[0]["slot"]
    resources = [
        _canonical(vertex, f"resources[{i}]", label, False)
        for i, vertex in enumerate(spec.resources)
    ]
    choices = 1
    for vertex in _all(resources):
        if isinstance(vertex["count"], dict) and "ids" in vertex["count"]:
            choices *= len(IDSet.parse(vertex["count"]["ids"]))
    if choices > MAX_CHOICES:
        raise JobspecError("resources", f"{choices} choices of counts", f"at most {MAX_CHOICES}")
    totals: dict[str, int] = {}
    _add_up(resources, 1, totals)
    slots = max(1, totals.get("", 0))
    nodes, cores, gpus = (totals.get(name, 0) for name in ("node", "core", "gpu"))
    return Shape(
        nnodes=nodes,
        nslots=slots,
        slots_per_node=slots // nodes if nodes and not slots % nodes else 0,
        cores=-(-cores // slots),
        gpus=-(-gpus // slots),
        exclusive=_any_exclusive_node(resources),
        ntasks=task_total(spec, nodes, slots, cores, gpus),
        constraint=constraint_text(spec),
        graph=json.dumps(resources, sort_keys=True, separators=(",", ":")),
    )


def _canonical(vertex: dict[str, Any], field: str, label: str, in_slot: bool) -> dict[str, Any]:
    if "id" in vertex:
        raise JobspecError(f"{field}.id", repr(vertex["id"])[:48], "no choice of single resources")
    is_slot = vertex["type"] in SLOTS
    if (is_slot or in_slot) and vertex.get("exclusive") is False:
        raise JobspecError(f"{field}.exclusive", "false", "slots that are not shared")
    kept: dict[str, Any] = {"type": vertex["type"], "count": _count(vertex, field)}
    if "exclusive" in vertex:
        kept["exclusive"] = vertex["exclusive"]
    if vertex.get("unit"):
        kept["unit"] = vertex["unit"]
    if is_slot:
        mine = vertex["label"] == label or vertex["type"] == "xor_slot"
        kept["label"] = TASK_SLOT if mine else OTHER_SLOT
    elif vertex.get("label"):
        kept["label"] = vertex["label"]
    children = vertex.get("with")
    if children:
        kept["with"] = [
            _canonical(child, f"{field}.with[{i}]", label, in_slot or is_slot)
            for i, child in enumerate(children)
        ]
    return kept


def _count(vertex: dict[str, Any], field: str) -> int | dict[str, Any]:
    """A number, or the range that another spelling of a count means."""
    count = Count.parse(vertex["count"])
    if count.ids is not None and len(count.ids) != count.ids.last - count.ids.first + 1:
        if len(count.ids) > MAX_CHOICES:
            raise JobspecError(
                f"{field}.count", f"{len(count.ids)} counts", f"a range, or at most {MAX_CHOICES}"
            )
        return {"ids": str(count.ids)}
    if count.fixed:
        return count.minimum
    found: dict[str, Any] = {"min": count.minimum}
    if count.maximum is not None:
        found["max"] = count.maximum
    if count.operator != "+" or count.operand != 1:
        found |= {"operator": count.operator, "operand": count.operand}
    return found


def _all(resources: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for vertex in resources:
        yield vertex
        yield from _all(vertex.get("with", ()))


def choices(document: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The documents that sets of counts with gaps stand for, the largest counts first."""
    found: list[list[dict[str, Any]]] = [[]]
    for vertex in document:
        count = vertex["count"]
        counts = [count]
        if isinstance(count, dict) and "ids" in count:
            counts = sorted(IDSet.parse(count["ids"]), reverse=True)
        below = choices(vertex.get("with", []))
        each = [
            {**vertex, "count": one, **({"with": inside} if inside else {})}
            for one in counts
            for inside in below
        ]
        found = [[*chosen, one] for chosen in found for one in each]
    return found


def least(count: int | dict[str, Any]) -> int:
    """The smallest acceptable one."""
    if isinstance(count, int):
        return count
    return IDSet.parse(count["ids"]).first if "ids" in count else int(count["min"])


def _add_up(resources: Iterable[dict[str, Any]], times: int, totals: dict[str, int]) -> None:
    """Units of each type at the minimum counts; slots that tasks run in under ""."""
    for vertex in resources:
        units = times * least(vertex["count"])
        if units > LARGEST:
            raise JobspecError("resources", "more than can be counted", f"at most {LARGEST}")
        kind = vertex["type"]
        if kind in SLOTS:
            kind = "" if vertex["label"] == TASK_SLOT else "slot"
        totals[kind] = totals.get(kind, 0) + units
        _add_up(vertex.get("with", ()), units, totals)


def totals(graph: str) -> dict[str, int]:
    """Units of each type that a shape's graph asks for at least; slots are not among them."""
    found: dict[str, int] = {}
    _add_up(json.loads(graph), 1, found)
    found.pop("", None)
    found.pop("slot", None)
    return found


def has_alternatives(graph: str) -> bool:
    """Whether there are slots of which a job gets one."""
    return any(vertex["type"] == "xor_slot" for vertex in _all(json.loads(graph)))


def types_in_slots(graph: str) -> set[str]:
    """The types that slots with tasks are made of, whatever lies how deep."""
    found: set[str] = set()
    stack = [(vertex, False) for vertex in json.loads(graph)]
    while stack:
        vertex, inside = stack.pop()
        if inside:
            found.add(vertex["type"])
        inside |= vertex["type"] in SLOTS and vertex["label"] == TASK_SLOT
        stack.extend((child, inside) for child in vertex.get("with", ()))
    return found


def _any_exclusive_node(resources: Iterable[dict[str, Any]]) -> bool:
    return any(
        (vertex["type"] == "node" and vertex.get("exclusive", False))
        or _any_exclusive_node(vertex.get("with", ()))
        for vertex in resources
    )


def text(graph: str) -> str:
    """A shape's graph in the words of RFC 46, such as ``rack/node=2/slot/[core=2;ssd]``."""
    words = _words(json.loads(graph))
    return words if len(words) <= _TEXT_LIMIT else words[: _TEXT_LIMIT - 3] + "..."


def _words(resources: list[dict[str, Any]]) -> str:
    parts = []
    for vertex in resources:
        word = vertex["type"]
        count = vertex["count"]
        if count != 1:
            choice = isinstance(count, dict) and "ids" in count
            word += f"={count['ids'] if choice else Count.parse(count)}"
        if vertex.get("exclusive"):
            word += "{exclusive}"
        if "with" in vertex:
            word += f"/{_words(vertex['with'])}"
        parts.append(word)
    return parts[0] if len(parts) == 1 else f"[{';'.join(parts)}]"
