"""R_lite (RFC 20): cores and GPUs of nodes by rank, equal nodes together."""

from __future__ import annotations

import sys
from array import array
from operator import itemgetter

from flux_mpi.resource.graph import V_TYPE, V_WIDTH
from flux_mpi.resource.writers.base import WholeWriter, WriterError
from flux_mpi.resource.writers.text import hostlist, idset, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flux_mpi.resource.graph import ResourceGraph

_REDUCED = ("core", "gpu")
"""Types told by their ids, in this order."""

_GATHERED = ("node", "storage_node")
"""Types that own what was reduced before them."""

_rank = itemgetter(0)

MAX_WHOLES = 4096
"""Kinds of nodes whose text is kept."""


class RliteWriter(WholeWriter):
    """``[{"rank": "0-1", "children": {"core": "0-7"}}]``.

    A node without any core or GPU, and a core outside of any node, is not told.
    """

    def __init__(self, graph: ResourceGraph) -> None:
        super().__init__(graph)
        self._ids: tuple[list[int], ...] = tuple([] for _ in _REDUCED)
        # By number of the type: the list its ids go to, or None for what gathers them.
        self._roles: dict[int, list[int] | None] = {}
        for name, ids in zip(_REDUCED, self._ids):
            self._roles[graph.types.number(name)] = ids
        for name in _GATHERED:
            self._roles[graph.types.number(name)] = None
        # Children of nodes that were told whole, by signature.
        self._wholes: dict[bytes, str] = {}
        # Children as JSON text to the ranks and names of nodes with just these.
        self._nodes: dict[str, list[tuple[int, str]]] = {}
        self._properties: dict[str, list[int]] = {}
        # What is wrong is told at the end: a walk goes on to where it has changed the graph.
        self._error = ""

    def vertex(
        self,
        depth: int,
        vertex: int,
        needs: int,
        exclusive: bool,
        exclusive_parent: bool,
        *,
        extra: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.take(vertex)

    def take(self, vertex: int) -> None:
        """All that a vertex means to this format."""
        graph = self.graph
        type_ = graph.v[vertex * V_WIDTH + V_TYPE]
        if type_ in self._roles:
            ids = self._roles[type_]
            if ids is None:
                self._gather(vertex)
            else:
                ids.append(graph.ids[vertex])

    def replay(
        self,
        items: Sequence[int],
        depths: Sequence[int],
        needs: Sequence[int],
        flags: Sequence[int],
    ) -> None:
        v, ids, roles = self.graph.v, self.graph.ids, self._roles
        for item in items:
            if item >= 0:
                type_ = v[item * V_WIDTH + V_TYPE]
                if type_ in roles:
                    found = roles[type_]
                    if found is None:
                        self._gather(item)
                    else:
                        found.append(ids[item])

    def gathers(self, vertex: int) -> bool:
        role = self.graph.v[vertex * V_WIDTH + V_TYPE]
        return role in self._roles and self._roles[role] is None

    def whole(self, vertex: int, below: array[int]) -> None:
        key = self._signature(below)
        children = self._wholes.get(key)
        if children is None or any(self._ids):
            for part in below:
                self.take(part)
            children = self._children(vertex)
            if len(self._wholes) < MAX_WHOLES:
                self._wholes[key] = children
        self._tell(vertex, children)

    def _signature(self, below: array[int]) -> bytes:
        """Equal for vertices of equal types and ids: nodes of a machine are mostly alike."""
        if "numpy" not in sys.modules:
            v, ids = self.graph.v, self.graph.ids
            types = array("i", [v[part * V_WIDTH + V_TYPE] for part in below])
            return types.tobytes() + array("q", [ids[part] for part in below]).tobytes()
        import numpy as np

        views = self.graph.views()
        parts = np.frombuffer(below, dtype="q")
        types = views["v"].take(parts * V_WIDTH + V_TYPE)
        found: bytes = types.tobytes() + views["ids"].take(parts).tobytes()
        return found

    def _gather(self, vertex: int) -> None:
        """The cores and GPUs since the last node are this one's."""
        self._tell(vertex, self._children(vertex))

    def _children(self, vertex: int) -> str:
        """The JSON text of the cores and GPUs since the last node."""
        parts = []
        for name, ids in zip(_REDUCED, self._ids):
            if ids:
                text = idset(ids)
                parts.append(f'"{name}": "{text}"')
                if text[0] == "-" and not self._error:
                    owner = self.graph.name(vertex)
                    self._error = f"R: a {name} of {owner} has no id; R needs one, 0 or more"
                ids.clear()
        return ", ".join(parts)

    def _tell(self, vertex: int, children: str) -> None:
        if not children:
            return
        graph = self.graph
        rank = graph.ranks[vertex]
        found = self._nodes.get(children)
        if found is None:
            found = self._nodes[children] = []
        found.append((rank, graph.name(vertex)))
        for key, value in graph.properties.get(vertex, {}).items():
            word = f"{key}={value}" if value else key
            self._properties.setdefault(word, []).append(rank)

    @property
    def empty(self) -> bool:
        """Whether there is no node with anything to tell."""
        return not self._nodes

    def body(self) -> str:
        """The JSON array. Raises `WriterError` for a node without a rank, a core without an id."""
        if self._error:
            raise WriterError(self._error)
        parts = []
        # In the order of the JSON text of children, closing brace included.
        for children, nodes in sorted((f"{{{key}}}", nodes) for key, nodes in self._nodes.items()):
            parts.append(f'{{"rank": "{self._ranks(nodes)}", "children": {children}}}')
        return f"[{', '.join(parts)}]"

    def _ranks(self, nodes: list[tuple[int, str]]) -> str:
        text = idset([rank for rank, _ in nodes])
        if text[0] == "-":
            name = min(nodes)[1]
            raise WriterError(f"R: {name} has no rank; R needs one for each node")
        return text

    def execution(self) -> str:
        """Text for the object ``execution`` of R up to its properties, without its end."""
        text = self.body()
        nodes = [node for found in self._nodes.values() for node in found]
        nodes.sort(key=_rank)
        try:
            hosts = hostlist([name for _, name in nodes])
        except ValueError as err:
            raise WriterError(f"R: {err}") from None
        text = f'{{"R_lite": {text}, "nodelist": [{quote(hosts)}]'
        if self._properties:
            properties = ", ".join(
                f"{quote(word)}: {quote(idset(ranks))}"
                for word, ranks in sorted(self._properties.items())
            )
            text = f'{text}, "properties": {{{properties}}}'
        return text

    def _text(self) -> str:
        return "" if self.empty else f"{self.body()}\n"

    def _reset(self) -> None:
        for ids in self._ids:
            ids.clear()
        self._nodes.clear()
        self._properties.clear()
        self._error = ""
