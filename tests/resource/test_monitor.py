from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.idset import IDSet
from flux_mpi.resource.inventory import ResourceError
from flux_mpi.resource.monitor import Monitor

HOSTS = ["n0", "n1", "n2", "n2"]


def hello(host: str = "n0", cores: Any = "0-1", gpus: Any = "", memory: Any = 100) -> dict:
    return {"cores": cores, "gpus": gpus, "memory": memory, "hostname": host}


def everyone(**options: Any) -> Monitor:
    monitor = Monitor(HOSTS, 1.0, **options)
    for rank, host in enumerate(HOSTS):
        monitor.hello(rank, hello(host), 2.0)
    monitor.define(3.0)
    return monitor


def log(monitor: Monitor) -> list[tuple[float, str, dict[str, Any]]]:
    return [(e["timestamp"], e["name"], e["context"]) for e in monitor.events]


def refused(errnum: int, says: str, call: Any, *args: Any) -> None:
    with pytest.raises(ResourceError) as raised:
        call(*args)
    assert raised.value.errnum == errnum, raised.value
    assert says in str(raised.value)


def test_the_log_of_a_start_as_flux_writes_it() -> None:
    monitor = Monitor(["vm"] * 4, 1.0)
    monitor.hello(0, hello("vm"), 2.0)
    monitor.flush(2.0)
    for rank in (1, 2, 3):
        assert not monitor.settled
        monitor.hello(rank, hello("vm"), 3.0)
    assert monitor.settled
    monitor.define(4.0)
    monitor.drain("3", "bad node", None, 5.0)
    monitor.undrain("3", None, None, 6.0)
    assert log(monitor) == [
        (1.0, "restart", {"ranks": "0-3", "online": "", "nodelist": "vm,vm,vm,vm"}),
        (2.0, "online", {"idset": "0"}),
        (4.0, "online", {"idset": "1-3"}),
        (4.0, "resource-define", {"method": "dynamic-discovery"}),
        (
            5.0,
            "drain",
            {"idset": "3", "nodelist": "vm", "reason": "bad node", "overwrite": 0},
        ),
        (6.0, "undrain", {"idset": "3", "nodelist": "vm", "overwrite": 0}),
    ]
    assert monitor.resource_set().to_dict() == {
        "version": 1,
        "execution": {
            "R_lite": [{"rank": "0-3", "children": {"core": "0-1"}}],
            "starttime": 0.0,
            "expiration": 0.0,
            "nodelist": ["vm,vm,vm,vm"],
        },
    }


def test_r_holds_cores_gpus_properties_and_expiration() -> None:
    monitor = Monitor(HOSTS, 1.0, properties={"fast": IDSet([1, 3])}, expiration=99.0)
    monitor.hello(0, hello("n0", cores=2), 2.0)
    monitor.hello(1, hello("n1", cores="0-3", gpus="0-1", memory=50), 2.0)
    execution = monitor.resource_set().to_dict()["execution"]
    assert execution["R_lite"] == [
        {"rank": "0", "children": {"core": "0-1"}},
        {"rank": "1", "children": {"core": "0-3", "gpu": "0-1"}},
    ]
    assert execution["nodelist"] == ["n[0-1]"]
    assert execution["properties"] == {"fast": "1"}
    assert execution["expiration"] == 99.0
    assert monitor.inventory.totals() == {"nnodes": 2, "ncores": 6, "ngpus": 2, "memory": 150}
    assert str(monitor.inventory.missing) == "2-3"
    monitor.update_expiration(120.0, 3.0)
    assert monitor.resource_set().expiration == 120.0
    assert log(monitor)[-1] == (3.0, "resource-update", {"expiration": 120})


def test_ranks_lost_before_they_reported_are_not_waited_for() -> None:
    monitor = Monitor(HOSTS, 1.0)
    for rank in (0, 1, 3):
        monitor.hello(rank, hello(HOSTS[rank]), 2.0)
    assert not monitor.settled
    assert monitor.lost([2], 3.0) == IDSet()
    assert monitor.settled
    monitor.define(3.0)
    assert str(monitor.resource_set().ranks) == "0-1,3"
    # It comes after all: R grows, and the log says so.
    assert monitor.hello(2, hello("n2"), 4.0)
    assert str(monitor.resource_set().ranks) == "0-3"
    monitor.flush(4.0)
    assert [name for _, name, _ in log(monitor)] == [
        "restart",
        "online",
        "resource-define",
        "online",
        "resource-define",
    ]


def test_lost_and_back_again() -> None:
    monitor = everyone()
    monitor.take_events()
    assert not monitor.pending
    assert monitor.lost([1, 2], 5.0) == IDSet([1, 2])
    assert (str(monitor.up), str(monitor.offline)) == ("0,3", "1-2")
    assert monitor.lost([1], 5.0) == IDSet()
    assert not monitor.hello(1, hello("n1"), 5.0), "nothing new about R"
    monitor.lost([1], 5.0)
    monitor.flush(5.0)
    assert [(e["name"], e["context"]["idset"]) for e in monitor.take_events()] == [
        ("offline", "1-2"),
        ("online", "1"),
        ("offline", "1"),
    ]
    assert str(monitor.resource_set().ranks) == "0-3", "a lost rank stays in R"


def test_a_rank_that_comes_back_with_other_hardware_changes_r() -> None:
    monitor = everyone()
    monitor.lost([1], 5.0)
    assert monitor.hello(1, hello("m1", cores="0-7"), 6.0)
    assert monitor.resource_set().ncores == 14
    assert monitor.inventory.targets("m1") == IDSet([1])


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (None, "map"),
        ([], "map"),
        (hello(cores="1-"), "cores"),
        (hello(cores=-1), "cores"),
        (hello(cores=True), "cores"),
        (hello(cores=""), "cores"),
        (hello(cores="0-99999999"), "cores"),
        (hello(gpus=1.5), "gpus"),
        (hello(memory="1G"), "memory"),
        (hello(memory=-1), "memory"),
        (hello(host=""), "hostname"),
        ({"cores": 1}, "hostname"),
    ],
)
def test_a_malformed_hello_names_the_field(info: Any, says: str) -> None:
    monitor = Monitor(HOSTS, 1.0)
    refused(errno.EPROTO, says, monitor.hello, 0, info, 2.0)
    assert monitor.online == IDSet()


@pytest.mark.parametrize("rank", [-1, 4, 1 << 70])
def test_hello_of_a_rank_that_is_none(rank: int) -> None:
    refused(errno.EINVAL, "out of range", Monitor(HOSTS, 1.0).hello, rank, hello(), 2.0)


@pytest.mark.parametrize(
    ("targets", "ranks"),
    [("2", "2"), ("0-1,3", "0-1,3"), ("[0-1]", "0-1"), ("n2", "2-3"), ("n[0,2]", "0,2-3")],
)
def test_targets_are_ranks_or_hosts(targets: str, ranks: str) -> None:
    monitor = everyone()
    assert str(monitor.drain(targets, "x", None, 5.0)) == ranks
    assert str(monitor.drained) == ranks
    assert log(monitor)[-1][2]["idset"] == ranks


@pytest.mark.parametrize(
    ("targets", "errnum", "says"),
    [
        ("99", errno.EINVAL, "idset is out of range"),
        ("0-4", errno.EINVAL, "idset is out of range"),
        ("", errno.EINVAL, "idset is empty"),
        ("nohost", errno.EINVAL, "invalid targets: invalid hosts: nohost"),
        ("n[0,8-9]", errno.EINVAL, "invalid hosts: n[8-9]"),
        ("n[1", errno.EINVAL, "invalid targets"),
        ("n[0-999999999]", errno.EINVAL, "invalid targets"),
        (3, errno.EPROTO, "targets"),
        (None, errno.EPROTO, "targets"),
    ],
)
def test_bad_targets_in_flux_words(targets: Any, errnum: int, says: str) -> None:
    monitor = everyone()
    refused(errnum, says, monitor.drain, targets, "x", None, 5.0)
    refused(errnum, says, monitor.undrain, targets, None, None, 5.0)
    assert not monitor.drained


def test_drain_modes() -> None:
    monitor = everyone()
    monitor.drain("0", "first", None, 10.0)
    monitor.drain("1", None, None, 11.0)
    refused(errno.EEXIST, "rank 0 already drained", monitor.drain, "0", "again", None, 12.0)
    refused(errno.EEXIST, "rank 0 already drained", monitor.drain, "0-2", "again", None, 12.0)
    assert monitor.drain_info() == {"0": [10.0, "first"], "1": [11.0, ""]}
    # A drain without a reason may be given one.
    monitor.drain("1", "why", None, 13.0)
    monitor.drain("0-2", "update", "update", 14.0)
    assert monitor.drain_info() == {
        "0": [10.0, "first"],
        "1": [11.0, "why"],
        "2": [14.0, "update"],
    }
    monitor.drain("0-1", "other", "overwrite", 15.0)
    assert monitor.drain_info()["0"] == [10.0, "other"]
    monitor.drain("0-1", "forced", "force-overwrite", 16.0)
    assert monitor.drain_info() == {"0-1": [16.0, "forced"], "2": [14.0, "update"]}
    assert [event[2]["overwrite"] for event in log(monitor) if event[1] == "drain"] == [
        0,
        0,
        0,
        0,
        1,
        2,
    ]
    assert str(monitor.up) == "3"
    refused(errno.EINVAL, "mode", monitor.drain, "3", "x", "gently", 17.0)
    refused(errno.EINVAL, "mode", monitor.drain, "3", "x", ["update"], 17.0)
    refused(errno.EPROTO, "reason", monitor.drain, "3", 5, None, 17.0)
    refused(errno.EINVAL, "reason", monitor.drain, "3", "x" * 5000, None, 17.0)


def test_undrain() -> None:
    monitor = everyone()
    monitor.drain("0-1", "x", None, 10.0)
    refused(errno.EEXIST, "ranks 2-3 not drained", monitor.undrain, "1-3", None, None, 11.0)
    refused(errno.EEXIST, "rank 2 not drained", monitor.undrain, "2", None, None, 11.0)
    monitor.undrain("1-3", "fixed", "update", 12.0)
    assert str(monitor.drained) == "0"
    assert log(monitor)[-1] == (
        12.0,
        "undrain",
        {"idset": "1-3", "nodelist": "n[1-2,2]", "overwrite": 0, "reason": "fixed"},
    )


def test_excluded_ranks_are_not_used_and_cannot_be_drained() -> None:
    monitor = everyone(exclude=IDSet([0]))
    assert str(monitor.up) == "1-3"
    refused(errno.EINVAL, "rank 0 excluded", monitor.drain, "0-1", "x", None, 5.0)
    refused(errno.EINVAL, "rank 0 excluded", monitor.drain, "0", "x", "overwrite", 5.0)
    monitor.drain("1", "x", None, 5.0)
    refused(
        errno.EEXIST, "ranks 0-1 already drained or excluded", monitor.drain, "0-1", "x", None, 5.0
    )


def test_replay_follows_hosts_that_changed_ranks() -> None:
    old = everyone()
    old.drain("1-2", "bad", None, 10.0)
    old.drain("0", "gone", None, 11.0)
    old.undrain("2", None, None, 12.0)
    new = Monitor(["n9", "n2", "n1"], 20.0)
    new.replay(list(old.events), 20.0)
    assert new.drain_info() == {"2": [10.0, "bad"]}
    excluded = Monitor(HOSTS, 20.0, exclude=IDSet([1]))
    excluded.replay(list(old.events), 20.0)
    assert str(excluded.drained) == "0"
    assert log(excluded)[-1][1:] == ("undrain", {"idset": "1", "nodelist": "n1", "overwrite": 0})


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"name": "drain", "timestamp": 1.0},
        {"name": "drain", "timestamp": 1.0, "context": {"idset": "x", "nodelist": "n0"}},
        {"name": "drain", "timestamp": 1.0, "context": {"idset": "0-1", "nodelist": "n0"}},
        {"name": "undrain", "timestamp": 1.0, "context": {"idset": "0"}},
    ],
)
def test_replay_of_a_broken_log_names_the_line(event: dict[str, Any]) -> None:
    refused(errno.EPROTO, "line 1", Monitor(HOSTS, 1.0).replay, [event], 2.0)


targets = st.sets(st.integers(0, 3), min_size=1).map(lambda ranks: str(IDSet(ranks)))
modes = st.sampled_from([None, "update", "overwrite", "force-overwrite"])
reasons = st.sampled_from([None, "a", "b"])
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["drain", "undrain"]), targets, reasons, modes),
        st.tuples(st.sampled_from(["hello", "lost"]), st.integers(0, 3)),
    ),
    max_size=30,
)


@given(steps)
def test_the_state_is_a_fold_of_the_log(history: list[tuple[Any, ...]]) -> None:
    monitor = everyone()
    for now, step in enumerate(history, 10):
        before = (monitor.drain_info(), len(monitor.events))
        try:
            if step[0] == "hello":
                monitor.hello(step[1], hello(HOSTS[step[1]]), now)
            elif step[0] == "lost":
                monitor.lost([step[1]], now)
            else:
                getattr(monitor, step[0])(*step[1:], now)
        except ResourceError:
            assert (monitor.drain_info(), len(monitor.events)) == before
    monitor.flush(99.0)
    again = Monitor(HOSTS, 100.0)
    again.replay(list(monitor.events), 100.0)
    assert again.drain_info() == monitor.drain_info()
    online: set[int] = set()
    for event in monitor.events:
        if event["name"] == "online":
            ranks = set(IDSet.parse(event["context"]["idset"]))
            assert not online & ranks
            online |= ranks
        elif event["name"] == "offline":
            ranks = set(IDSet.parse(event["context"]["idset"]))
            assert ranks <= online
            online -= ranks
    assert IDSet(online) == monitor.online
    assert monitor.up == monitor.online - monitor.drained
