"""Which task of a job is on which of its nodes (RFC 34).

A map is a list of blocks ``[nodeid, nnodes, ppn, repeat]``: beginning at node ``nodeid``, each of
``nnodes`` nodes in turn gets the next ``ppn`` tasks, and all of that ``repeat`` times.
"""

from __future__ import annotations

import json
import re

from flux_mpi.formats.idset import IDSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

MAX_TASKS = 1 << 28

_PMI_BLOCK = re.compile(r"\(([0-9]+),([0-9]+),([0-9]+)\)")


class TaskmapError(ValueError):
    """Text or JSON that is no task map, or a question that a map cannot answer."""


class Taskmap:
    """An immutable task map; without blocks the mapping is unknown."""

    __slots__ = ("_blocks",)

    def __init__(self, blocks: Iterable[Sequence[int]] = ()) -> None:
        """Raises `TaskmapError` for a block that is not four counts."""
        self._blocks: list[tuple[int, int, int, int]] = []
        for i, block in enumerate(blocks):
            if (
                not isinstance(block, (list, tuple))
                or len(block) != 4
                or any(not isinstance(n, int) or isinstance(n, bool) for n in block)
                or block[0] < 0
                or min(block[1:]) < 1
            ):
                raise TaskmapError(
                    f"taskmap: block {i}: expected [nodeid, nnodes, ppn, repeat], found "
                    f"{repr(block)[:64]}"
                )
            nodeid, nnodes, ppn, repeat = block
            self._blocks.append((nodeid, nnodes, ppn, repeat))
        if self.ntasks > MAX_TASKS or self.nnodes > MAX_TASKS:
            raise TaskmapError(f"taskmap: more than {MAX_TASKS} tasks or nodes")

    @classmethod
    def parse(cls, obj: object) -> Taskmap:
        """The map in a JSON array, the object around it, their text, a PMI-1 mapping
        (``(vector,(0,4,2))``, RFC 13), or a raw map (``0-1;2-3``). Raises `TaskmapError`.
        """
        if isinstance(obj, str):
            text = obj.strip()
            if text.startswith("("):
                return cls._parse_pmi(text)
            if not text.startswith(("[", "{")):
                return cls._parse_raw(text)
            try:
                obj = json.loads(text)
            except (ValueError, RecursionError) as err:
                raise TaskmapError(f"taskmap: {text[:48]!r} is no JSON ({err})") from None
        if isinstance(obj, dict):
            version = obj.get("version")
            if version != 1 or isinstance(version, bool):
                raise TaskmapError(f"taskmap: version: expected 1, found {repr(version)[:32]}")
            if "map" not in obj:
                raise TaskmapError("taskmap: map: expected a list, found nothing")
            obj = obj["map"]
        if not isinstance(obj, (list, tuple)):
            raise TaskmapError(f"taskmap: expected a list of blocks, found {type(obj).__name__}")
        return cls(obj)

    @classmethod
    def _parse_pmi(cls, text: str) -> Taskmap:
        body = "".join(text.split())
        inner = body[len("(vector") : -1]
        if (
            not body.startswith("(vector,")
            or body[-1] != ")"
            or inner.replace(",(", "(") != "".join(m[0] for m in _PMI_BLOCK.finditer(inner))
        ):
            raise TaskmapError(
                f"taskmap: expected (vector,(nodeid,nnodes,ppn),…), found {text[:48]!r}"
            )
        new = cls()
        for match in _PMI_BLOCK.finditer(inner):
            new._append(int(match[1]), int(match[2]), int(match[3]))
        return cls(new._blocks)

    @classmethod
    def _parse_raw(cls, text: str) -> Taskmap:
        try:
            return cls.from_tasks([IDSet.parse(part) for part in text.split(";")])
        except ValueError as err:
            raise TaskmapError(f"taskmap: {text[:48]!r}: {err}") from None

    @classmethod
    def from_tasks(cls, nodes: Sequence[IDSet]) -> Taskmap:
        """The map in which node *i* has the tasks ``nodes[i]``.

        Raises `TaskmapError` unless the tasks are 0, 1, … with none missing or twice.
        """
        runs = sorted(
            (first, last, node)
            for node, tasks in enumerate(nodes)
            for first, last in tasks.ranges()
        )
        new = cls()
        expected = 0
        for first, last, node in runs:
            if first != expected:
                what = "is missing" if first > expected else "is on two nodes"
                raise TaskmapError(f"taskmap: task {min(first, expected)} {what}")
            expected = last + 1
            new._append(node, 1, last - first + 1)
        return new

    @classmethod
    def from_counts(cls, counts: Iterable[int]) -> Taskmap:
        """Tasks in blocks: node *i* has the next ``counts[i]`` of them."""
        new = cls()
        for node, count in enumerate(counts):
            if count:
                new._append(node, 1, count)
        return new

    @classmethod
    def cyclic(cls, counts: Sequence[int], stride: int = 1) -> Taskmap:
        """Round robin, ``stride`` tasks at a time, until node *i* has ``counts[i]`` of them."""
        if stride < 1:
            raise TaskmapError(f"taskmap: cyclic: expected a stride of at least 1, found {stride}")
        new = cls()
        left = list(counts)
        while any(left):
            for node, count in enumerate(left):
                if count:
                    new._append(node, 1, min(stride, count))
                    left[node] -= min(stride, count)
        return new

    def _append(self, nodeid: int, nnodes: int, ppn: int) -> None:
        """Add a block that happens once, and join it with those before where that says the same."""
        blocks = self._blocks
        if blocks:
            start, count, per, repeat = blocks[-1]
            if repeat == 1 and per == ppn and start + count == nodeid:
                blocks.pop()
                nodeid, nnodes = start, count + nnodes
            elif repeat == 1 and count == 1 and nnodes == 1 and start == nodeid:
                # One node twice in a row has just so many tasks more.
                blocks[-1] = (start, 1, per + ppn, 1)
                return
        if blocks and blocks[-1][:3] == (nodeid, nnodes, ppn):
            blocks[-1] = (nodeid, nnodes, ppn, blocks[-1][3] + 1)
        else:
            blocks.append((nodeid, nnodes, ppn, 1))

    @property
    def unknown(self) -> bool:
        return not self._blocks

    @property
    def ntasks(self) -> int:
        return sum(nnodes * ppn * repeat for _, nnodes, ppn, repeat in self._blocks)

    @property
    def nnodes(self) -> int:
        """The number of nodes, counting from 0 to the last that the map names."""
        return max((nodeid + nnodes for nodeid, nnodes, _, _ in self._blocks), default=0)

    def nodeid(self, task: int) -> int:
        """The node of ``task``; raises `TaskmapError` when it is not in the map."""
        first = 0
        for nodeid, nnodes, ppn, repeat in self._blocks:
            size = nnodes * ppn * repeat
            if first <= task < first + size:
                return nodeid + (task - first) // ppn % nnodes
            first += size
        raise TaskmapError(f"taskmap: no task {task}: it has {first} tasks")

    def tasks(self, nodeid: int) -> IDSet:
        """The tasks of node ``nodeid``; empty when the map does not have it."""
        return IDSet.from_ranges(self._runs(nodeid))

    def _runs(self, node: int) -> Iterator[tuple[int, int]]:
        first = 0
        for nodeid, nnodes, ppn, repeat in self._blocks:
            if nodeid <= node < nodeid + nnodes:
                for turn in range(repeat):
                    at = first + (turn * nnodes + node - nodeid) * ppn
                    yield at, at + ppn - 1
            first += nnodes * ppn * repeat

    def to_list(self) -> list[list[int]]:
        """The RFC 34 array."""
        return [list(block) for block in self._blocks]

    def to_dict(self) -> dict[str, Any]:
        """The array in its object: ``{"version": 1, "map": […]}``."""
        return {"version": 1, "map": self.to_list()}

    def raw(self) -> str:
        """The tasks of each node as idsets with semicolons between; "" when unknown."""
        return ";".join(str(self.tasks(node)) for node in range(self.nnodes))

    def pmi(self) -> str:
        """The PMI-1 ``PMI_process_mapping`` (RFC 13); "" when unknown."""
        if self.unknown:
            return ""
        blocks = [
            f"({nodeid},{nnodes},{ppn})"
            for nodeid, nnodes, ppn, repeat in self._blocks
            for _ in range(repeat)
        ]
        return f"(vector,{','.join(blocks)})"

    def __str__(self) -> str:
        return json.dumps(self.to_list(), separators=(",", ":"))

    def __repr__(self) -> str:
        return f"Taskmap({self.to_list()})"

    def __eq__(self, other: object) -> bool:
        """Equal when they are written alike (equal maps made by this module are)."""
        if not isinstance(other, Taskmap):
            return NotImplemented
        return self._blocks == other._blocks

    def __hash__(self) -> int:
        return hash(tuple(self._blocks))
