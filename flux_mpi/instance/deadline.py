"""A bound for a call that may never return and never lets another thread run."""

from __future__ import annotations

import contextlib
import faulthandler
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STATUS = 1
"""Exit status of a process whose call did not return in time."""


@contextlib.contextmanager
def ends_within(bound_s: float) -> Iterator[None]:
    """End this process with ``STATUS``, at once and without clean-up, if the body takes longer.

    ``bound_s`` is in seconds. mpi4py holds the interpreter's lock in ``MPI_Finalize``, so a thread
    of Python's cannot watch it; that of ``faulthandler`` needs no lock. There is one of those a
    process: do not nest.
    """
    with open(os.devnull, "wb") as nowhere:
        faulthandler.dump_traceback_later(bound_s, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
