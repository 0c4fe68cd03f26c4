"""Which ranks are up, as the root knows it, and how the tree stands (after RFC 5's wording)."""

from __future__ import annotations

from collections.abc import Iterable

from flux_mpi.overlay.tree import Tree

OFFLINE, ONLINE, LOST = "offline", "online", "lost"


class Membership:
    """The state of each rank and since when, Unix time."""

    def __init__(self, tree: Tree, hosts: list[str], now: float) -> None:
        self.tree = tree
        self.hosts = hosts
        # With why it was lost: empty for one that merely stood below another.
        self._state: list[tuple[str, float, str]] = [(OFFLINE, now, "")] * tree.size

    def online(self, rank: int, now: float) -> None:
        """``rank`` said hello."""
        self._state[rank] = (ONLINE, now, "")

    def lost(self, rank: int, now: float, why: str) -> list[int]:
        """``rank`` is gone, and with it all below it; returns those that were not gone before."""
        newly = [r for r in self.tree.subtree(rank) if self._state[r][0] != LOST]
        for each in newly:
            self._state[each] = (LOST, now, why if each == rank else "")
        return newly

    def ranks(self, state: str) -> list[int]:
        """The ranks in ``state``, ascending."""
        return [rank for rank, entry in enumerate(self._state) if entry[0] == state]

    def state(self, rank: int) -> str:
        return self._state[rank][0]

    def errors(self) -> list[dict[str, object]]:
        """What went wrong: the ranks lost on their own account."""
        return [
            {"rank": rank, "hostname": self.hosts[rank], "time": since, "error": why}
            for rank, (state, since, why) in enumerate(self._state)
            if state == LOST and why
        ]

    def describe(self, rank: int = 0) -> dict[str, object]:
        """``overlay.status``: the subtree of ``rank`` as nested objects.

        full = all below are there; partial = some have not come yet; degraded = some were lost.
        """
        # Post-order without recursion: a fan-out of 1 makes a tree as deep as the instance.
        nodes: dict[int, dict[str, object]] = {}
        for each in reversed(self._preorder(rank)):
            state, since, _ = self._state[each]
            children = [nodes[child] for child in self.tree.children(each)]
            nodes[each] = {
                "rank": each,
                "hostname": self.hosts[each],
                "status": self._summary(state, (str(c["status"]) for c in children)),
                "since": since,
                "children": children,
            }
        return nodes[rank]

    @staticmethod
    def _summary(state: str, below: Iterable[str]) -> str:
        if state != ONLINE:
            return state
        statuses = set(below)
        if statuses & {LOST, "degraded"}:
            return "degraded"
        if statuses & {OFFLINE, "partial"}:
            return "partial"
        return "full"

    def _preorder(self, rank: int) -> list[int]:
        out, stack = [], [rank]
        while stack:
            at = stack.pop()
            out.append(at)
            stack.extend(reversed(self.tree.children(at)))
        return out
