"""Interpreted and compiled kernels of the graph door: which are called, and that it is all one."""

from __future__ import annotations

import types
from array import array
from collections.abc import Iterator

import numpy as np
import pytest

from flux_mpi.formats.request import MatchJobspec, Request
from flux_mpi.sched import graphtier, introsort, scalars, timeline
from flux_mpi.sched.graphtier import GraphTier
from flux_mpi.sched.matcher import Matcher
from tests.sched.oracle import Part, Recorder, plant, state


def machine() -> Part:
    return Part("cluster", 1, [Part("node", 1, [Part("core") for _ in range(4)]) for _ in range(3)])


def job(cores: int, nodes: int = 1) -> MatchJobspec:
    slot = Request("slot", 1, 1, children=[Request("core", cores, cores)])
    return MatchJobspec([Request("node", nodes, nodes, children=[slot])], 10.0)


def played(tier: GraphTier, swap: GraphTier | None = None) -> list[object]:
    """What a matcher answers, and the state it ends in; it may go on with another tier."""
    graph = plant(machine())
    matcher = Matcher(graph, tier=tier)
    told: list[object] = []
    for i, (cores, nodes) in enumerate([(2, 3), (1, 1), (3, 1), (4, 2), (2, 2), (4, 1)]):
        if swap is not None and i == 3:
            matcher._tier = swap
            matcher._faces = None
        found = Recorder(graph)
        told.append(
            (matcher.match("allocate_orelse_reserve", job(cores, nodes), i, found, 0), found.rows)
        )
        if i == 4:
            matcher.cancel(1)
    return [*told, state(matcher)]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that does not work."""

    def compile_all() -> graphtier.Kernels:
        raise ImportError("no compiler here")

    monkeypatch.setattr(graphtier, "compile_all", compile_all)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="expected auto, never or always, found 'now'"):
        GraphTier(1, "now")


def test_all_kernels_are_there_from_the_start() -> None:
    tier = GraphTier(1, "never")
    assert set(tier.kernels) == set(graphtier.KERNELS)
    assert not tier.compiled
    assert not tier.poll()


@pytest.mark.usefixtures("broken")
def test_matching_goes_on_where_the_compiler_fails() -> None:
    tier = GraphTier(1, "always")
    assert isinstance(tier.failure, ImportError)
    assert not tier.compiled
    assert set(tier.kernels) == set(graphtier.KERNELS)
    assert played(tier) == played(GraphTier(1, "never"))


@pytest.mark.usefixtures("broken")
def test_a_failure_in_the_background_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphtier, "_is_cached", lambda: True)
    tier = GraphTier(graphtier.SMALL + 1)
    tier.wait(60.0)
    assert isinstance(tier.failure, ImportError)
    assert not tier.compiled
    # It is not tried again and again.
    tier.worked(10 * graphtier.WORK_LIMIT)
    assert played(tier) == played(GraphTier(1, "never"))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[GraphTier]:
    """The tiers that began to compile, which none really does."""
    tiers: list[GraphTier] = []

    def start(tier: GraphTier) -> None:
        tiers.append(tier)
        tier.policy = "never"

    monkeypatch.setattr(GraphTier, "_start", start)
    return tiers


def test_small_graphs_are_compiled_for_only_when_there_is_much_to_do(
    started: list[GraphTier],
) -> None:
    tier = GraphTier(graphtier.SMALL)
    tier.worked(graphtier.WORK_LIMIT)
    assert started == []
    tier.worked(1)
    assert started == [tier]


def test_large_graphs_are_compiled_for_at_once(started: list[GraphTier]) -> None:
    tier = GraphTier(graphtier.SMALL + 1)
    assert started == [tier]


def test_who_never_compiles_never_does(started: list[GraphTier]) -> None:
    GraphTier(10 * graphtier.SMALL, "never").worked(10 * graphtier.WORK_LIMIT)
    assert started == []


def test_interpreted_kernels_get_the_arrays_themselves() -> None:
    words = array("q", [1, 2])
    assert GraphTier(1, "never").face(words) is words


@pytest.mark.timeout(600)  # to compile from scratch takes a while where others work too
def test_compiled_kernels_get_views_of_the_same_memory() -> None:
    tier = GraphTier(1, "always")
    assert tier.failure is None
    assert tier.compiled
    for code in "iq":
        words = array(code, [1, 2])
        face = tier.face(words)
        assert isinstance(face, np.ndarray)
        face[1] = 7
        assert list(words) == [1, 7]
        assert face.dtype == np.dtype(code)
        assert tier.face(array(code)).dtype == np.dtype(code)


@pytest.mark.timeout(600)
def test_swapping_tiers_changes_nothing() -> None:
    plain = played(GraphTier(1, "never"))
    assert played(GraphTier(1, "always")) == plain
    assert played(GraphTier(1, "never"), GraphTier(1, "always")) == plain
    assert played(GraphTier(1, "always"), GraphTier(1, "never")) == plain


# -- what compiled kernels are known by -----------------------------------------------------------


@pytest.fixture
def mark() -> Iterator[str]:
    before = graphtier._fingerprint()
    yield before
    assert graphtier._fingerprint() == before


@pytest.mark.parametrize(
    ("module", "name"),
    [(scalars, "S_TICK"), (timeline, "P_UNITS"), (introsort, "SMALL"), (scalars, "KIND_RESERVE")],
)
def test_a_constant_that_changes_changes_the_fingerprint(
    mark: str, module: types.ModuleType, name: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, getattr(module, name) + 1)
        assert graphtier._fingerprint() != mark


def test_a_kernel_that_changes_changes_the_fingerprint(mark: str) -> None:
    def level(p: object, pw: int, head: int, at: int, column: int) -> int:
        return 0

    level.__module__ = timeline.__name__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "level", level)
        assert graphtier._fingerprint() != mark


def test_what_is_no_kernel_leaves_the_fingerprint(mark: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "__doc__", "Something else.")
        assert graphtier._fingerprint() == mark
