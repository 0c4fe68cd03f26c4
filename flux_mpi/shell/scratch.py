"""Jobs' temporary directories (``FLUX_JOB_TMPDIR``): one a job on each rank, empty at its start.

Making and removing a directory costs more than all the rest of a short job in the broker (0.1 ms
on an ordinary file system), so one that a job left as it found it serves the next.
"""

from __future__ import annotations

import os
import stat
import time

SPARE = 256
"""Unused directories kept."""
SETTLED_NS = 100_000_000
"""A change later than this after another one cannot have the same time: clocks of file systems
tick in milliseconds."""


class Scratch:
    """Directories below ``folder``, which must exist when the first is taken."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._free: list[str] = []
        self._made = 0
        self._empty_since: dict[str, int] = {}
        """Directories seen empty, and when they had last changed then."""

    def take(self) -> str:
        """An empty directory that only its owner may enter. Raises OSError."""
        if self._free:
            return self._free.pop()
        path = f"{self._folder}/jobtmp-{self._made}"
        os.mkdir(path, 0o700)
        self._made += 1
        return path

    def give_back(self, path: str) -> bool:
        """A job has ended; False when its directory is not as it was and must be removed."""
        try:
            clean = self._is_clean(path)
        except FileNotFoundError:
            self._empty_since.pop(path, None)
            return True  # the job removed it
        except OSError:
            clean = False
        if clean and len(self._free) < SPARE:
            self._free.append(path)
            return True
        self._empty_since.pop(path, None)
        if clean:
            os.rmdir(path)
        return clean

    def _is_clean(self, path: str) -> bool:
        found = os.lstat(path)
        if stat.S_IMODE(found.st_mode) != 0o700:
            return False
        changed = found.st_mtime_ns
        if self._empty_since.get(path) == changed:
            return True
        if os.listdir(path):
            return False
        if time.time_ns() - changed > SETTLED_NS:
            self._empty_since[path] = changed
        return True
