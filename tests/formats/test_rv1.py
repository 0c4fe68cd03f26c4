"""RFC 20: the example of the RFC, what Flux prints, and sets of (rank, kind, id) as the oracle."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.hostlist import Hostlist
from flux_mpi.formats.idset import IDSet
from flux_mpi.formats.rv1 import RSet, RSetError

RFC_EXAMPLE = {
    "version": 1,
    "execution": {
        "R_lite": [{"rank": "19-22", "children": {"core": "0-47", "gpu": "0-7"}}],
        "nodelist": ["node[186-189]"],
        "nslots": 32,
        "starttime": 1676560542,
        "expiration": 1676562342,
    },
}

FLUX_INSTANCE = (
    '{"version": 1, "execution": {"R_lite": [{"rank": "0-3", "children": {"core": "0-1"}}], '
    '"starttime": 0.0, "expiration": 0.0, "nodelist": ["vm,vm,vm,vm"]}}'
)
FLUX_JOB = (
    '{"version": 1, "execution": {"R_lite": [{"rank": "0", "children": {"core": "0-1"}}], '
    '"starttime": 1795323862.2403972, "expiration": 0.0, "nslots": 2, "nodelist": ["vm"]}}'
)

id_sets = st.frozensets(st.integers(0, 7), max_size=4).map(IDSet)
rsets = st.builds(
    lambda cores, gpus: RSet(cores, gpus, {rank: f"n{rank}" for rank in range(6)}),
    st.dictionaries(st.integers(0, 5), id_sets),
    st.dictionaries(st.integers(0, 5), id_sets),
)


def atoms(rset: RSet) -> set[tuple[int, str, int]]:
    """Every core and GPU as a triple."""
    return {
        (rank, kind, i)
        for kind, table in (("core", rset.cores), ("gpu", rset.gpus))
        for rank, ids in table.items()
        for i in ids
    }


def test_the_example_of_the_rfc() -> None:
    rset = RSet.parse(RFC_EXAMPLE)
    assert str(rset.ranks) == "19-22"
    assert (rset.nnodes, rset.ncores, rset.ngpus, rset.nslots) == (4, 192, 32, 32)
    assert str(rset.hostlist) == "node[186-189]"
    assert rset.hosts[20] == "node187"
    assert str(rset.cores[19]) == "0-47"
    assert str(rset.gpus[22]) == "0-7"
    assert (rset.starttime, rset.expiration) == (1676560542, 1676562342)
    assert rset.summary() == "rank[19-22]/core[0-47],gpu[0-7]"
    assert rset.to_dict() == RFC_EXAMPLE
    assert RSet.parse(json.dumps(RFC_EXAMPLE)) == rset


@pytest.mark.parametrize("text", [FLUX_JOB])
def test_what_flux_prints_is_printed_alike(text: str) -> None:
    assert json.dumps(RSet.parse(text).to_dict()) == text


def test_hosts_that_repeat_stay_in_the_order_of_ranks() -> None:
    rset = RSet.parse(FLUX_INSTANCE)
    assert json.dumps(rset.to_dict()) == FLUX_INSTANCE
    assert rset.ranks_of(Hostlist.parse("vm")) == IDSet(range(4))
    assert rset.to_dict(starttime=5, expiration=7)["execution"]["expiration"] == 7.0


def test_summaries_are_those_of_alloc_events() -> None:
    hosts = {0: "a", 1: "b", 2: "c"}
    two = IDSet([0, 1])
    assert RSet({0: IDSet([0])}, None, hosts).summary() == "rank0/core0"
    assert RSet({0: two}, None, hosts).summary() == "rank0/core[0-1]"
    mixed = RSet({0: two, 1: two, 2: IDSet([0])}, {2: IDSet([1])}, hosts)
    assert mixed.summary() == "rank[0-1]/core[0-1] rank2/core0,gpu1"
    assert RSet().summary() == ""


def test_entries_may_come_in_any_order() -> None:
    obj = copy.deepcopy(RFC_EXAMPLE)
    execution: dict[str, Any] = obj["execution"]  # type: ignore[assignment]
    execution["R_lite"] = [
        {"rank": "3", "children": {"core": "0"}},
        {"rank": "0-1", "children": {"core": "0-1"}},
        {"rank": "3", "children": {"core": "2", "gpu": "0"}},
    ]
    execution["nodelist"] = ["x0", "x[1,9]"]
    rset = RSet.parse(obj)
    assert rset.summary() == "rank[0-1]/core[0-1] rank3/core[0,2],gpu0"
    assert rset.hosts == {0: "x0", 1: "x1", 3: "x9"}


@given(rsets)
def test_r_round_trips(rset: RSet) -> None:
    again = RSet.parse(json.dumps(rset.to_dict()))
    assert again == rset
    assert atoms(again) == atoms(rset)
    assert rset.ncores + rset.ngpus == len(atoms(rset))
    assert bool(rset) == bool(atoms(rset))


@given(rsets, rsets)
def test_the_algebra_is_that_of_sets(a: RSet, b: RSet) -> None:
    assert atoms(a | b) == atoms(a) | atoms(b)
    assert atoms(a & b) == atoms(a) & atoms(b)
    assert atoms(a - b) == atoms(a) - atoms(b)
    assert set((a - b).cores) == {rank for rank, _, _ in atoms(a) - atoms(b)}
    assert (a - b) | (a & b) == a


@given(rsets, st.frozensets(st.integers(0, 5)))
def test_subsets_and_new_ranks(rset: RSet, ranks: frozenset[int]) -> None:
    part = rset.subset(ranks)
    assert atoms(part) == {atom for atom in atoms(rset) if atom[0] in ranks}
    moved = part.reranked()
    assert list(moved.cores) == list(range(part.nnodes))
    assert list(moved.hosts.values()) == list(part.hosts.values())
    assert list(moved.cores.values()) == list(part.cores.values())


def test_properties_follow_their_ranks() -> None:
    cores = {rank: IDSet([0]) for rank in range(4)}
    hosts = {rank: f"n{rank}" for rank in range(4)}
    rset = RSet(cores, None, hosts, properties={"ssd": IDSet([1, 3]), "gone": IDSet([9])})
    assert rset.properties == {"ssd": IDSet([1, 3])}
    assert RSet.parse(rset.to_dict()).properties == rset.properties
    assert rset.subset([2, 3]).properties == {"ssd": IDSet([3])}
    assert rset.subset([2, 3]).reranked().properties == {"ssd": IDSet([1])}
    assert rset.subset([0]).properties == {}
    assert (rset.subset([1]) | rset.subset([3])).properties == {"ssd": IDSet([1, 3])}


def test_a_rank_is_on_one_host() -> None:
    one = RSet({0: IDSet([0])}, None, {0: "a"})
    other = RSet({0: IDSet([1])}, None, {0: "b"})
    with pytest.raises(RSetError, match="rank 0 is on a in one set and on b"):
        _ = one | other
    with pytest.raises(RSetError, match="host for rank 0"):
        RSet({0: IDSet([0])})


def test_the_scheduler_s_own_data_rides_along() -> None:
    obj = {**json.loads(FLUX_JOB), "scheduling": {"graph": {"nodes": []}}}
    assert RSet.parse(obj).to_dict()["scheduling"] == {"graph": {"nodes": []}}


def test_an_empty_set_is_written_and_read() -> None:
    empty = RSet()
    assert not empty
    assert RSet.parse(empty.to_dict()) == empty


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("version", 2, r"version: expected 1, found 2"),
        ("version", None, "version"),
        ("version", True, "version"),
        ("execution", None, "execution: expected an object"),
        ("execution.R_lite", None, "R_lite: expected a list, found nothing"),
        ("execution.R_lite", [7], r"R_lite\[0\]: expected an object"),
        ("execution.R_lite.0.rank", 3, r"R_lite\[0\].rank: expected an idset"),
        ("execution.R_lite.0.rank", "3-1", "does not ascend"),
        ("execution.R_lite.0.rank", "0-99999999", "at most"),
        ("execution.R_lite.0.children", [], "children: expected an object"),
        ("execution.R_lite.0.children", {"gpu": "0"}, "children.core"),
        ("execution.R_lite.0.children", {"core": "0", "disk": "1"}, "only core and gpu"),
        ("execution.R_lite.0.children", {"core": ""}, "at least one id"),
        ("execution.R_lite.0.children.core", "x", "children.core: idset 'x'"),
        ("execution.R_lite.0.children.gpu", 0, "children.gpu"),
        ("execution.nodelist", None, "nodelist: expected a list"),
        ("execution.nodelist", ["a"], "one host for each of 4 ranks, found 1"),
        ("execution.nodelist", ["n[0-9999999999]"], "one host for each of 4 ranks"),
        ("execution.nodelist", [1], r"nodelist\[0\]"),
        ("execution.nodelist", ["a["], "one pair of brackets"),
        ("execution.nslots", 0, "nslots"),
        ("execution.nslots", "1", "nslots"),
        ("execution.nslots", True, "nslots"),
        ("execution.starttime", "now", "starttime"),
        ("execution.starttime", -1, "starttime"),
        ("execution.expiration", float("inf"), "expiration"),
        ("execution.expiration", 5, "after starttime"),
        ("execution.properties", [], "properties: expected an object"),
        ("execution.properties", {"a|b": "19"}, "properties"),
        ("execution.properties", {"ssd": "0"}, "ranks out of 19-22"),
        ("execution.properties", {"ssd": 0}, "properties.ssd"),
        ("scheduling", [], "scheduling"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, complaint: str) -> None:
    obj: Any = copy.deepcopy(RFC_EXAMPLE)
    node = obj
    *parents, last = path.split(".")
    for key in parents:
        node = node[int(key) if key.isdigit() else key]
    node[last] = value
    with pytest.raises(RSetError, match=complaint) as caught:
        RSet.parse(obj)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("document", ["", "[]", "{", "[" * 100_000, b"\xff", "null"])
def test_what_is_no_json_object_is_refused(document: str | bytes) -> None:
    with pytest.raises(RSetError, match="expected a JSON object"):
        RSet.parse(document)
