"""Match policies by name, as options and from other packages."""

from __future__ import annotations

import importlib.metadata
from array import array
from importlib.metadata import EntryPoint

import pytest

from flux_mpi.resource.graph import ResourceGraph
from flux_mpi.sched import policies
from flux_mpi.sched.matcher import Matcher
from flux_mpi.sched.policies import MatchPolicy, policy
from flux_mpi.sched.scalars import ORDER_GREATER, ORDER_INTERVAL, ORDER_LESS
from tests.sched.oracle import Part, plant

NAMES = [
    "first",
    "firstnode",
    "firstnodex",
    "high",
    "hinode",
    "hinodex",
    "locality",
    "lonode",
    "lonodex",
    "low",
    "variation",
]


def machine() -> ResourceGraph:
    """Vertex 0 is the cluster; nodes are 1 and 4, the cores below them 2, 3 and 5."""
    return plant(
        Part(
            "cluster",
            1,
            [
                Part("node", 1, [Part("core"), Part("core")], {"perf_class": "3"}),
                Part("node", 1, [Part("core")]),
            ],
        )
    )


def test_names_are_those_of_fluxion() -> None:
    assert policies.names() == sorted(NAMES)
    assert all(isinstance(policy(name), MatchPolicy) for name in NAMES)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("low", "policy=low"),
        ("high", "policy=high"),
        ("lonode", "policy=low node_centric=true"),
        ("hinode", "policy=high node_centric=true"),
        ("lonodex", "node_exclusive=true policy=low node_centric=true"),
        ("hinodex", "policy=high node_centric=true node_exclusive=true"),
        ("first", "policy=high node_centric=true stop_on_1_matches=true"),
        ("firstnode", "policy=high   node_centric=true stop_on_1_matches=true"),
        ("firstnodex", "policy=high node_centric=true node_exclusive=true stop_on_1_matches=true"),
        ("low", "policy=low node_centric=false stop_on_1_matches=false node_exclusive=false"),
        ("high", "policy=low policy=high"),
    ],
)
def test_names_stand_for_options(name: str, options: str) -> None:
    assert policy(name) == policy(options)


def test_options_mean_what_they_say() -> None:
    low, high = policy("policy=low"), policy("policy=high stop_on_1_matches=true")
    assert {low.vertex_order, low.graph_order, low.slot_order} == {ORDER_LESS}
    assert {high.vertex_order, high.graph_order, high.slot_order} == {ORDER_GREATER}
    assert (low.first, high.first) == (False, True)
    assert low.whole_types == frozenset()
    assert policy("policy=low node_exclusive=true").whole_types == {"node"}
    assert policy("locality").graph_order == ORDER_INTERVAL
    assert policy("variation").volatile


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected one of first, .*, found ''"),
        ("firs", r"expected one of .*, found 'firs'"),
        ("Low", r"expected one of .*, found 'Low'"),
        ("policy=middle", r"policy: expected high or low, found 'middle'"),
        ("policy=", r"policy: expected high or low, found ''"),
        ("node_centric=true", r"expected policy=high or policy=low, found 'node_centric=true'"),
        ("policy=low node_centric=yes", r"node_centric: expected true or false, found 'yes'"),
        ("policy=low node_centric", r"node_centric: .* true or false, found '' \(no value\)"),
        ("policy=low colour=red", r"expected options policy, .*, found 'colour'"),
    ],
)
def test_nonsense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^match policy: " + message):
        policy(text)


def test_a_refusal_is_one_short_line() -> None:
    for text in ("x" * 9999, "policy=" + "x" * 9999, "policy=low x=" + "\n" * 9999, "\n"):
        with pytest.raises(ValueError, match="match policy") as error:
            policy(text)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400


def test_vertices_score_by_their_ids() -> None:
    graph = machine()
    assert list(policies.by_id(graph, "containment")) == [2, 3, 4, 5, 6, 7]


def test_what_is_in_a_node_scores_by_the_node_first() -> None:
    scores = policies.by_node(machine(), "containment")
    assert list(scores[:2]) == [2, 3]
    assert scores[4] == 6
    assert scores[2] < scores[3] < scores[5]
    # Whatever ids the cores have, the node decides.
    graph = machine()
    graph.ids[2] = 9_000
    scores = policies.by_node(graph, "containment")
    assert scores[2] < scores[5]


@pytest.mark.parametrize(
    ("text", "score"),
    [("0", 0), ("7", 7), (" 7", 7), ("+7", 7), ("12 apples", 12), ("9999", 9999)]
    + [(bad, 9999) for bad in ("", "fast", "-1", "10000", "9" * 5000, "+", "²")],
)
def test_performance_classes_are_numbers_or_the_worst(text: str, score: int) -> None:
    graph = machine()
    graph.properties[1] = {"perf_class": text}
    scores = policies.by_class(graph, "containment")
    assert scores[1] == 1 + score
    assert scores[4] == 1 + 9999


# -- from other packages --------------------------------------------------------------------------


def by_age(graph: ResourceGraph, subsystem: str) -> array[int]:
    return array("q", range(graph.n_vertices, 0, -1))


OLDEST = MatchPolicy(by_age)


def make_oldest() -> MatchPolicy:
    return OLDEST


def make_nothing() -> None:
    pass


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What three packages offer."""
    here = __name__
    points = [
        EntryPoint("oldest", f"{here}:OLDEST", policies.ENTRY_POINTS),
        EntryPoint("made", f"{here}:make_oldest", policies.ENTRY_POINTS),
        EntryPoint("bad", f"{here}:make_nothing", policies.ENTRY_POINTS),
        EntryPoint("first", f"{here}:OLDEST", policies.ENTRY_POINTS),
    ]

    def entry_points(*, group: str) -> list[EntryPoint]:
        return points if group == policies.ENTRY_POINTS else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setattr(EntryPoint, "load", lambda point: globals()[point.attr])


@pytest.mark.usefixtures("plugins")
def test_a_package_adds_a_policy_or_what_makes_one() -> None:
    assert policy("oldest") is OLDEST
    assert policy("made") is OLDEST
    assert {"oldest", "made"} < set(policies.names())


@pytest.mark.usefixtures("plugins")
def test_no_package_takes_a_name_that_there_is() -> None:
    assert policy("first") is not OLDEST


@pytest.mark.usefixtures("plugins")
def test_a_package_that_gives_no_policy_is_named() -> None:
    message = r"match policy bad: expected the entry point .*:make_nothing to give a MatchPolicy"
    with pytest.raises(ValueError, match=message):
        policy("bad")


@pytest.mark.usefixtures("plugins")
def test_a_refusal_names_the_policies_of_packages() -> None:
    with pytest.raises(ValueError, match=r"made, oldest, variation"):
        policy("olde")


@pytest.mark.usefixtures("plugins")
def test_a_matcher_goes_by_a_policy_of_a_package() -> None:
    matcher = Matcher(machine(), policy="oldest")
    assert matcher.policy is OLDEST
