"""Jobs' temporary directories (``FLUX_JOB_TMPDIR``): one a job on each rank, empty at its start.

Making and removing a directory costs more than all the rest of a short job in the broker (0.1 ms
on an ordinary file system), so one that a job left as it found it serves the next.
"""

from __future__ import annotations

import os
import stat

SPARE = 256
"""Unused directories kept."""


class Scratch:
    """Directories below ``folder``, which must exist when the first is taken."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._free: list[str] = []
        self._made = 0

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
            if stat.S_IMODE(os.lstat(path).st_mode) != 0o700 or os.listdir(path):
                return False
        except FileNotFoundError:
            return True  # the job removed it
        except OSError:
            return False
        if len(self._free) < SPARE:
            self._free.append(path)
        else:
            os.rmdir(path)
        return True
