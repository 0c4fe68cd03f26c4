"""A broker's run directory: its sockets, spool and jobs' scratch, gone when it ends.

Loaded by the supervisor, which removes it when the broker could not: standard library only, and
little of it (``tempfile`` and ``shutil`` would cost every rank 2 MB and 10 ms).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ATTEMPTS = 16
PREFIX = "flux-mpi-"


def make(base: str, short: bool = False) -> str:
    """A new directory in ``base`` that only its owner may enter. Raises OSError.

    ``short``: by a name of 7 letters, where nobody has to tell it from others.
    """
    for attempt in range(ATTEMPTS):
        name = f"f{os.urandom(3).hex()}" if short else PREFIX + os.urandom(5).hex()
        path = os.path.join(base, name)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            break
    return path


def is_one(path: str) -> bool:
    """Whether ``path`` is called as those that `make` makes."""
    return os.path.isabs(path) and os.path.basename(path).startswith(PREFIX)


def remove(path: str) -> None:
    """Remove a directory and all in it; never follows a symbolic link, never fails."""
    for folder, folders, files in os.walk(path, topdown=False):
        for name in files:
            _quietly(os.unlink, os.path.join(folder, name))
        for name in folders:
            inner = os.path.join(folder, name)
            _quietly(os.unlink if os.path.islink(inner) else os.rmdir, inner)
    _quietly(os.rmdir, path)


def _quietly(action: Callable[[str], None], path: str) -> None:
    try:
        action(path)
    except OSError:
        return
