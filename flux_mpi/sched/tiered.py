"""When the match kernel is compiled: never on small machines, in the background on large ones.

Importing Numba costs half a second and tens of megabytes. A machine of a few nodes is matched in
microseconds without it, and a large one must serve its first job before the compiler is done.
Which tier runs never changes a result: both are the same function over the same memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from flux_mpi.sched import kernels

Kernel = Callable[..., int]

SMALL = 64
"""Up to this many nodes the interpreted kernel is quick enough for good."""

LARGE = 1024
"""From this many nodes on it is compiled at once."""

WORK_LIMIT = 500_000
"""Nodes visited by the interpreted kernel before it is compiled: about 50 ms of work."""


def compile_place() -> Kernel:
    """The compiled ``kernels.place``; loads it from Numba's cache when it is there.

    Raises ImportError without Numba. Takes 0.5 s (cached) to several seconds.
    """
    from numba import int64, njit

    words = int64[::1]
    signature = int64(*[int64] * 9, *[words] * 10, int64, words, words, int64)
    compiled: Kernel = njit(signature, cache=True)(kernels.place)
    return compiled


class Tier:
    """Holds the kernel to call; swaps in the compiled one when it is ready.

    ``policy``: ``auto`` as above, ``never`` or ``always`` (from the first use on).
    """

    def __init__(
        self, policy: str = "auto", compiler: Callable[[], Kernel] = compile_place
    ) -> None:
        if policy not in ("auto", "never", "always"):
            raise ValueError(f"kernel policy: expected auto, never or always, found {policy!r}")
        self.policy = policy
        self.place: Kernel = kernels.place
        self.compiled = False
        self.failure: Exception | None = None
        self._compiler = compiler
        self._work = 0
        self._thread: threading.Thread | None = None
        self._result: Kernel | None = None

    def worked(self, n_nodes: int, visits: int) -> None:
        """Account for interpreted work on a machine of ``n_nodes``; decide whether to compile."""
        if self.policy == "never" or self.compiled or self._thread is not None:
            return
        self._work += visits
        if self.policy == "always" or (
            n_nodes > SMALL and (n_nodes >= LARGE or self._work > WORK_LIMIT)
        ):
            self._thread = threading.Thread(target=self._compile, name="compile", daemon=True)
            self._thread.start()

    def poll(self) -> bool:
        """Take the compiled kernel if it is ready; True when that changed ``place`` just now."""
        if self.compiled or self._result is None:
            return False
        self.place = self._result
        self.compiled = True
        return True

    def wait(self, timeout_s: float) -> None:
        """Wait for a compilation under way (for tests and benchmarks)."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _compile(self) -> None:
        try:
            self._result = self._compiler()
        except Exception as error:  # whatever the compiler's trouble is, matching goes on without
            self.failure = error
