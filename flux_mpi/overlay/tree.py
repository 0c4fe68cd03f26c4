"""The shape of the overlay: a k-ary tree of node leaders, and below each the ranks of its node.

Links that leave a node are dearer than those that do not, so one rank a node (the *leader*, its
lowest) speaks for the others. Both levels are k-ary: rank 0 leads its node and roots the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from flux_mpi.message.errors import FluxError

DEFAULT_FANOUT = 32


class Tree:
    """Parents and children of ``len(hosts)`` ranks; ``hosts[rank]`` names each rank's node."""

    def __init__(self, hosts: Sequence[str], fanout: int = DEFAULT_FANOUT) -> None:
        if fanout < 1:
            raise FluxError(22, f"fanout: {fanout} is not allowed, it must be at least 1")
        self.size = len(hosts)
        self.fanout = fanout
        members: dict[str, list[int]] = {}
        for rank, host in enumerate(hosts):
            members.setdefault(host, []).append(rank)
        self.parents: list[int] = [-1] * self.size
        self._children: list[list[int]] = [[] for _ in range(self.size)]
        leaders = [ranks[0] for ranks in members.values()]
        for family in (leaders, *members.values()):
            for i in range(1, len(family)):
                self._adopt(family[(i - 1) // fanout], family[i])

    def _adopt(self, parent: int, child: int) -> None:
        self.parents[child] = parent
        self._children[parent].append(child)

    def parent(self, rank: int) -> int | None:
        """The rank above, None for the root."""
        parent = self.parents[rank]
        return None if parent < 0 else parent

    def children(self, rank: int) -> list[int]:
        """The ranks directly below, in order."""
        return self._children[rank]

    def next_hop(self, here: int, to: int) -> int | None:
        """The neighbour of ``here`` on the way to ``to``: a child or the parent; None = here."""
        if to == here:
            return None
        at = to
        while at >= 0:
            above = self.parents[at]
            if above == here:
                return at
            at = above
        return self.parents[here]

    def level(self, rank: int) -> int:
        """Hops from the root."""
        hops, at = 0, rank
        while self.parents[at] >= 0:
            at = self.parents[at]
            hops += 1
        return hops

    def subtree(self, rank: int) -> list[int]:
        """``rank`` and everything below it, in ascending order."""
        out, stack = [], [rank]
        while stack:
            at = stack.pop()
            out.append(at)
            stack.extend(self._children[at])
        out.sort()
        return out

    @property
    def maxlevel(self) -> int:
        """Hops from the root to the farthest rank."""
        levels = [0] * self.size
        deepest = 0
        stack = [0]
        while stack:
            at = stack.pop()
            for child in self._children[at]:
                levels[child] = levels[at] + 1
                deepest = max(deepest, levels[child])
                stack.append(child)
        return deepest
