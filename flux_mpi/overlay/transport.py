"""What carries bytes between neighbours of the tree.

A transport is an ordered, reliable stream of bytes per neighbour. It neither knows frames nor
routes: the broker cuts frames out of the streams, whatever carries them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

DataCallback = Callable[[int, bytes], None]
LostCallback = Callable[[int, str], None]


class Transport(ABC):
    """The links of one rank."""

    rank: int
    size: int
    hosts: list[str]
    """The node of each rank, by rank."""
    cards: list[Any]
    """What each rank told the others when it came up, by rank."""

    def __init__(self) -> None:
        self.on_data: DataCallback = lambda peer, data: None
        self.on_lost: LostCallback = lambda peer, why: None

    @abstractmethod
    def connect(self, parent: int | None, children: Iterable[int]) -> None:
        """Open the links to this rank's neighbours in the tree."""

    @abstractmethod
    def send(self, peer: int, data: bytes) -> None:
        """Queue ``data`` for ``peer``; it leaves with the next ``flush``. Unknown peer: dropped."""

    @abstractmethod
    def flush(self) -> None:
        """Hand over what is queued, as far as each peer's credits go."""

    @abstractmethod
    def backlog(self, peer: int) -> int:
        """Bytes queued for ``peer`` that it has not taken yet."""

    def drained(self) -> bool:
        """Whether all that was sent has left, so that this process may end without losing any."""
        return True

    @abstractmethod
    def drop(self, peer: int) -> None:
        """Forget the link to ``peer``: nothing more is sent to it or taken from it."""

    def release(self, peer: int) -> None:
        """Send ``peer`` what is queued for it, nothing after that, and then forget the link."""
        self.flush()
        self.drop(peer)

    @abstractmethod
    def close(self) -> None:
        """Close every link. Idempotent."""

    def describe(self, peer: int) -> dict[str, object]:
        """Counters of one link, for people."""
        return {"backlog": self.backlog(peer)}
