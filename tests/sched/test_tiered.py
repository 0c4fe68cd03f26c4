"""When the kernel is compiled, and that doing so changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from flux_mpi.formats.jobspec import Shape
from flux_mpi.formats.rv1 import RSet
from flux_mpi.sched import kernels
from flux_mpi.sched.bitmap import BitmapScheduler
from flux_mpi.sched.tiered import LARGE, SMALL, WORK_LIMIT, Tier


class Compiler:
    """Stands for Numba: hands out ``place``, when allowed to."""

    def __init__(self) -> None:
        self.calls = 0
        self.allowed = threading.Event()

    def __call__(self) -> Callable[..., int]:
        self.calls += 1
        assert self.allowed.wait(10)

        def compiled(*args: object) -> int:
            return kernels.place(*args)  # type: ignore[arg-type]

        return compiled


@pytest.mark.parametrize(
    ("policy", "nodes", "work", "expected"),
    [
        ("auto", SMALL, 100 * WORK_LIMIT, False),
        ("auto", SMALL + 1, WORK_LIMIT, False),
        ("auto", SMALL + 1, WORK_LIMIT + 1, True),
        ("auto", LARGE, 1, True),
        ("never", LARGE, 100 * WORK_LIMIT, False),
        ("always", 1, 1, True),
    ],
)
def test_policy(policy: str, nodes: int, work: int, expected: bool) -> None:
    compiler = Compiler()
    compiler.allowed.set()
    tier = Tier(policy, compiler)
    tier.worked(nodes, work)
    tier.wait(10)
    assert tier.poll() is expected
    assert tier.compiled is expected
    assert compiler.calls == int(expected)


def test_the_interpreted_kernel_serves_while_the_other_is_made(
    resources: Callable[..., RSet], shape: Callable[..., Shape]
) -> None:
    pytest.importorskip("numpy")
    compiler = Compiler()
    scheduler = BitmapScheduler(Tier("always", compiler))
    scheduler.update(resources([(4, 1)] * 3))
    reference = BitmapScheduler(Tier("never"))
    reference.update(resources([(4, 1)] * 3))
    first = scheduler.alloc(shape(), 2, 0.0)
    assert not scheduler.tier.compiled
    compiler.allowed.set()
    scheduler.tier.wait(10)
    second = scheduler.alloc(shape(gpus=1), 2, 0.0)
    assert scheduler.tier.compiled
    assert first == reference.alloc(shape(), 2, 0.0)
    assert second == reference.alloc(shape(gpus=1), 2, 0.0)
    scheduler.free(first + second)
    assert not scheduler.allocated()
    scheduler.update(resources([(4, 1)] * 2))
    assert len(scheduler.alloc(shape(), 100, 0.0)) == 8


def test_a_compiler_that_fails_leaves_the_interpreted_kernel() -> None:
    def broken() -> Callable[..., int]:
        raise RuntimeError("no compiler here")

    tier = Tier("always", broken)
    tier.worked(1, 1)
    tier.wait(10)
    assert not tier.poll()
    assert tier.place is kernels.place
    assert "no compiler" in str(tier.failure)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match="sometimes"):
        Tier("sometimes")
