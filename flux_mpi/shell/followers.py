"""Tasks that are to start when another one has ended: chains, each link in at most one.

Loaded by the supervisor: standard library only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux_mpi.shell.wire import Entry


class Followers:
    """Spawn commands by the task that each follows; a follower may itself be followed."""

    def __init__(self) -> None:
        self._entry: dict[int, Entry] = {}  # of who follows this task
        self._before: dict[int, int] = {}  # whom this task follows

    def __len__(self) -> int:
        return len(self._entry)

    def __contains__(self, tid: int) -> bool:
        return tid in self._before

    def add(self, before: int, entry: Entry) -> None:
        """Let the task of this spawn command follow ``before``, which has not ended."""
        while before in self._entry:  # never two at once in one place: behind whoever is there
            before = self._entry[before][1]
        self._entry[before] = entry
        self._before[entry[1]] = before

    def pop(self, tid: int) -> Entry | None:
        """This task has ended: the spawn command of who follows it, if anyone."""
        entry = self._entry.pop(tid, None)
        if entry is not None:
            del self._before[entry[1]]
        return entry

    def remove(self, tid: int) -> bool:
        """Take a follower out of its chain; False when it is none (any more)."""
        before = self._before.pop(tid, None)
        if before is None:
            return False
        del self._entry[before]
        behind = self._entry.pop(tid, None)
        if behind is not None:
            self._entry[before] = behind
            self._before[behind[1]] = before
        return True

    def clear(self) -> list[int]:
        """Drop all; their task ids."""
        tids = list(self._before)
        self._entry.clear()
        self._before.clear()
        return tids
