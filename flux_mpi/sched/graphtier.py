"""When the kernels of the graph door are compiled, and what memory they are handed.

As in `tiered`: interpreted on small graphs and until the compiler is done, compiled on large ones;
which it is never changes a result.
"""

from __future__ import annotations

import atexit
import sys
import threading
import types
from array import array
from collections.abc import Callable
from typing import Any

from flux_mpi.resource import graph
from flux_mpi.sched import (
    arena,
    booking,
    introsort,
    pruning,
    requestrows,
    scalars,
    search,
    selection,
    slots,
    takewalk,
    timeline,
)

SMALL = 4_000
"""Graphs of up to so many vertices are searched quickly enough for good."""

WORK_LIMIT = 400_000
"""Vertices visited by interpreted kernels before they are compiled: a second or two of work."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

HELPER_LIMIT_S = 300.0
"""Bound of compiling in a process of its own."""

LOADING_LIMIT_S = 10.0
"""Bound of the wait for kernels that are being loaded when the interpreter ends."""

Kernels = dict[str, Callable[..., Any]]

KERNELS = ("request", "bounds", "walk", "carriers_of", "book", "release", "reweigh", "first_time")
"""What the matcher calls; all else is called by these."""

_MODULES = (
    timeline,
    introsort,
    requestrows,
    arena,
    pruning,
    slots,
    search,
    selection,
    takewalk,
    booking,
)

_NARROW = frozenset(("v", "e", "out", "by_weight", "sources"))
_WIDE = frozenset(
    "ew x p s w ok req d rows uniq needs below last starts best kept".split()  # noqa: SIM905
)
"""Arguments that are arrays of 32 and of 64 bits, wherever they occur; others are integers."""

_lock = threading.Lock()
_compiled: Kernels = {}


def interpreted() -> Kernels:
    """The kernels as they are written."""
    return {
        name: getattr(module, name)
        for module in _MODULES
        for name in KERNELS
        if name in vars(module)
    }


def compile_all() -> Kernels:
    """The kernels compiled, from Numba's cache when they are there.

    Raises ImportError without Numba. Takes about a second (cached) to twenty. Once a process.
    """
    with _lock:
        if not _compiled:
            _compiled.update(_compile())
    return _compiled


def _compile() -> Kernels:
    """The kernels by Numba. A cached one contains what it calls, so that the rest is not even
    loaded; otherwise every function is compiled, each with its callees compiled before it."""
    from numba.core.errors import TypingError

    # Numba keys its cache by a function's own file and code. What is compiled in of other files,
    # constants and other functions, comes to the key as the content of a closure that nothing uses.
    stamp = types.CellType(_fingerprint())
    functions = {
        name: function
        for module in _MODULES
        for name, function in vars(module).items()
        if isinstance(function, types.FunctionType) and function.__module__ == module.__name__
    }
    try:
        return {name: _compiled_one(functions[name], {}, stamp) for name in KERNELS}
    except TypingError:
        pass  # one was not cached, and does not know what it calls
    made: dict[str, Any] = {}
    for name, function in functions.items():
        made[name] = _compiled_one(function, made, stamp)
    return {name: made[name] for name in KERNELS}


def _compiled_one(
    function: types.FunctionType, callees: dict[str, Any], stamp: types.CellType
) -> Any:
    from numba import int32, int64, njit, void

    scope = {**function.__globals__, **callees}
    code = function.__code__.replace(co_freevars=("stamp",))
    twin = types.FunctionType(code, scope, function.__name__, None, (stamp,))
    twin.__annotations__ = {}
    twin.__module__ = function.__module__
    twin.__qualname__ = function.__qualname__
    result = void if function.__annotations__["return"] == "None" else int64
    signature = result(
        *(
            int32[::1] if a in _NARROW else int64[::1] if a in _WIDE else int64
            for a in function.__code__.co_varnames[: function.__code__.co_argcount]
        )
    )
    try:
        return njit(signature, cache=True)(twin)
    except RuntimeError:  # there is no place for a cache that we may write to
        return njit(signature)(twin)


def _fingerprint() -> str:
    """Differs whenever the kernels or their constants do."""
    import hashlib

    digest = hashlib.sha256()
    for module in (graph, scalars, *_MODULES):
        for name, value in sorted(vars(module).items()):
            if isinstance(value, int):
                digest.update(f"{name}={value};".encode())
            elif isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                digest.update(value.__code__.co_code)
                digest.update(repr(value.__code__.co_consts).encode())
                digest.update(repr(value.__code__.co_names).encode())
    return digest.hexdigest()


class GraphTier:
    """The kernels to call. ``policy``: ``auto`` as above, ``never``, or ``always`` (at once)."""

    def __init__(self, n_vertices: int, policy: str = "auto") -> None:
        if policy not in ("auto", "never", "always"):
            raise ValueError(f"kernel policy: expected auto, never or always, found {policy!r}")
        self.policy = policy
        self.kernels = interpreted()
        self.compiled = False
        self.failure: Exception | None = None
        self._work = 0
        self._helper: subprocess.Popen[bytes] | None = None
        self._leaving = False
        self._thread: threading.Thread | None = None
        self._result: Kernels | None = None
        if policy == "always":
            self._compile()
            self.poll()
        elif policy == "auto" and n_vertices > SMALL:
            self._start()

    def worked(self, visits: int) -> None:
        """Account for interpreted work; decide whether to compile."""
        if self.policy == "auto" and not self.compiled and self._thread is None:
            self._work += visits
            if self._work > WORK_LIMIT:
                self._start()

    def poll(self) -> bool:
        """Take the compiled kernels if they are ready; True when that changed anything just now."""
        if self.compiled or self._result is None:
            return False
        self.kernels = self._result
        self.compiled = True
        return True

    def wait(self, timeout_s: float) -> None:
        """Wait for a compilation under way."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        self.poll()

    def face(self, words: array[int]) -> Any:
        """What kernels are handed of an array: itself, or NumPy's view of its memory."""
        if not self.compiled:
            return words
        import numpy

        return numpy.frombuffer(words, dtype=words.typecode) if len(words) else _empty(words)

    def _start(self) -> None:
        """Compile beside the work: in a process of its own when that takes long, for a thread
        would hold up this one all the while, and could not be stopped when this one ends."""
        import subprocess

        atexit.register(self._leave)
        if not _is_cached():
            code = f"from {__name__} import compile_all; compile_all()"
            self._helper = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._thread = threading.Thread(target=self._compile, name="compile", daemon=True)
        self._thread.start()

    def _compile(self) -> None:
        try:
            if self._helper is not None:
                self._helper.wait(HELPER_LIMIT_S)
            if not self._leaving:
                self._result = compile_all()
        except Exception as error:  # whatever the compiler's trouble is, matching goes on without
            self.failure = error

    def _leave(self) -> None:
        """The interpreter ends: no compiler may be at work in it then."""
        self._leaving = True
        if self._helper is not None and self._helper.poll() is None:
            self._helper.kill()
            self._helper.wait()
        if self._thread is not None:
            self._thread.join(LOADING_LIMIT_S)


def _is_cached() -> bool:
    """Whether Numba has probably compiled the kernels before."""
    from pathlib import Path

    source = Path(search.__file__)
    indices = source.parent.glob("__pycache__/search.search-*.nbi")
    since = source.stat().st_mtime
    return any(index.stat().st_mtime >= since for index in indices)


def _empty(words: array[int]) -> Any:
    import numpy

    return numpy.zeros(0, dtype=words.typecode)
