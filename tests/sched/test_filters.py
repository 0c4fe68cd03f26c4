"""Which types are counted where."""

from __future__ import annotations

import pytest

from flux_mpi.resource.graph import Names
from flux_mpi.sched.filters import Filters

TYPES = ("cluster", "core", "socket", "gpu", "node")


def counted(specification: str, anchor: str, types: tuple[str, ...] = TYPES) -> list[str]:
    return Filters(specification).at(anchor, Names(types))


def test_all_counts_everywhere_but_at_itself() -> None:
    assert counted("ALL:core", "cluster") == ["core"]
    assert counted("ALL:core", "rack") == ["core"]
    assert counted("ALL:core", "core") == []


def test_an_anchor_counts_where_it_is() -> None:
    specification = "ALL:core,cluster:node,rack:gpu"
    assert counted(specification, "cluster") == ["node", "core"]
    assert counted(specification, "rack") == ["gpu", "core"]
    assert counted(specification, "node") == ["core"]


def test_types_have_columns_in_the_order_in_which_they_are_named() -> None:
    filters = Filters("ALL:gpu,cluster:node,ALL:core,node:gpu")
    assert filters.types == {"gpu": 0, "node": 1, "core": 2}


def test_what_counts_at_a_vertex_comes_in_the_order_of_types() -> None:
    assert counted("ALL:gpu,ALL:core,ALL:node", "cluster") == ["core", "gpu", "node"]
    assert counted("cluster:node,cluster:gpu,ALL:core", "cluster") == ["gpu", "node", "core"]


def test_everywhere_makes_an_anchor_needless() -> None:
    for specification in ("cluster:core,ALL:core", "ALL:core,cluster:core"):
        assert counted(specification, "cluster") == ["core"]
        assert counted(specification, "node") == ["core"]


def test_leaves_are_counted_at_the_cluster() -> None:
    filters = Filters("ALL:core")
    filters.add_leaves(["gpu", "core", "ssd"])
    names = Names((*TYPES, "ssd"))
    assert filters.at("cluster", names) == ["gpu", "ssd", "core"]
    assert filters.at("node", names) == ["core"]


def test_types_that_no_vertex_has_are_no_trouble() -> None:
    names = Names(TYPES)
    filters = Filters("ALL:tape,ALL:core,cluster:disk,cluster:robot")
    assert filters.at("cluster", names) == ["disk", "robot", "core", "tape"]
    assert list(names) == list(TYPES)


def test_blanks_are_passed_over() -> None:
    assert Filters(" ALL : core , cluster:no de").types == {"core": 0, "node": 1}


@pytest.mark.parametrize(
    "bad", ["", "core", "ALL:", ":core", "ALL:core,", "ALL:core,,rack:gpu", " : "]
)
def test_nonsense_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"^prune filters: expected HIGH:LOW pairs .*, found '"):
        Filters(bad)


def test_a_refusal_is_short() -> None:
    with pytest.raises(ValueError, match="prune filters") as error:
        Filters("x" * 10_000)
    assert len(str(error.value)) < 200
