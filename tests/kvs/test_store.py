"""The store's errors, limits, namespaces and waits, one by one."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from flux_mpi.kvs.store import Limits, Store
from flux_mpi.message.errors import ServiceError


def refused(errnum: int, call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ServiceError) as raised:
        call(*args, **kwargs)
    assert raised.value.errno == errnum, raised.value
    return str(raised.value)


def put(store: Store, **values: Any) -> int:
    return store.commit(
        "primary", [[key.replace("__", "."), value] for key, value in values.items()]
    ).version


def test_a_commit_is_all_or_nothing() -> None:
    store = Store()
    put(store, a__b=1)
    refused(errno.EISDIR, store.commit, "primary", [["c", 1], ["a", "x", "append"]])
    refused(errno.ENOENT, store.get, "primary", "c")
    assert store.namespace("primary").version == 1


def test_an_empty_commit_changes_no_version() -> None:
    store = Store()
    assert store.commit("primary", []).version == 0


def test_keys_are_normalised() -> None:
    store = Store()
    store.commit("primary", [[".a..b.", 1]])
    assert store.get("primary", "a.b") == 1
    assert store.listdir("primary", ".", recursive=True) == ({"a": {"b": 1}}, ["a"], {})


def test_lookup_errors() -> None:
    store = Store()
    put(store, a__b=1)
    assert "nosuchkey" in refused(errno.ENOENT, store.get, "primary", "nosuchkey")
    refused(errno.ENOENT, store.get, "primary", "a.b.c")
    refused(errno.EISDIR, store.get, "primary", "a")
    refused(errno.EISDIR, store.get, "primary", ".")
    refused(errno.ENOTDIR, store.listdir, "primary", "a.b")
    refused(errno.ENOENT, store.listdir, "primary", "x")
    refused(errno.EINVAL, store.readlink, "primary", "a.b")
    refused(errno.ENOENT, store.readlink, "primary", "x")
    refused(errno.ENOTSUP, store.get, "nowhere", "a")
    refused(errno.EINVAL, store.get, "primary", "")


@pytest.mark.parametrize(
    ("op", "errnum", "says"),
    [
        ("a", errno.EPROTO, "[key, value]"),
        ([], errno.EPROTO, "[key, value]"),
        (["a"], errno.EPROTO, "[key, value]"),
        (["a", 1, "put", 2], errno.EPROTO, "[key, value]"),
        ([1, 2], errno.EPROTO, "found 1"),
        (["a", 1, "swap"], errno.EPROTO, "swap"),
        (["a", 1, 7], errno.EPROTO, "found 7"),
        (["", 1], errno.EINVAL, "empty"),
        (["a\0b", 1], errno.EINVAL, "NUL"),
        ([".", 1], errno.EINVAL, "root"),
        ([".", None, "unlink"], errno.EINVAL, "root"),
        (["a", 5, "symlink"], errno.EPROTO, "found 5"),
        (["a", "x:y::b", "symlink"], errno.EINVAL, "x:y"),
        (["a", 5, "append"], errno.EINVAL, "int"),
        (["a", b"x", "append"], errno.EINVAL, "bytes to str"),
        (["n", "x", "append"], errno.EINVAL, "str to int"),
        (["d", "x", "append"], errno.EISDIR, "d"),
        (["l", "x", "append"], errno.EOPNOTSUPP, "link"),
        (["out.x", 1], errno.EINVAL, "other"),
        (["loop.x", 1], errno.ELOOP, "links"),
        (["k" * 5000, 1], errno.ENAMETOOLONG, "5000"),
        ([".".join("k" * 65), 1], errno.ENAMETOOLONG, "65 levels"),
        (["big", "x" * 101], errno.EFBIG, "101"),
        (["a", "x" * 99, "append"], errno.EFBIG, "101"),
    ],
)
def test_bad_operations_say_what_was_found(op: Any, errnum: int, says: str) -> None:
    store = Store(Limits(value=100))
    store.create_namespace("other")
    put(store, a="xy", n=1, d__e=1)
    links = [["l", "a", "symlink"], ["out", "other::z", "symlink"], ["loop", "loop", "symlink"]]
    store.commit("primary", links)
    before = store.listdir("primary", ".", recursive=True)
    assert says in refused(errnum, store.commit, "primary", [["fine", 1], op])
    assert store.listdir("primary", ".", recursive=True) == before


@pytest.mark.parametrize("ops", [None, "ops", {"a": 1}, 7])
def test_ops_must_be_a_list(ops: Any) -> None:
    refused(errno.EPROTO, Store().commit, "primary", ops)


def test_more_operations_than_allowed() -> None:
    store = Store(Limits(ops=2))
    refused(errno.EPROTO, store.commit, "primary", [["a", 1]] * 3)


def test_links_do_not_make_trees_deeper_than_allowed() -> None:
    store = Store(Limits(depth=4))
    store.commit("primary", [["a.b.c", "x", "mkdir"], ["l", "a.b.c", "symlink"]])
    store.commit("primary", [["l.d", 1]])
    refused(errno.ENAMETOOLONG, store.commit, "primary", [["l.d.e", 1]])


def test_links_across_namespaces_and_to_the_root() -> None:
    store = Store()
    store.create_namespace("other", owner=7)
    store.commit("other", [["x.y", "there"]])
    store.commit("primary", [["far", "other::x", "symlink"], ["top", ".", "symlink"], ["v", 1]])
    assert store.get("primary", "far.y") == "there"
    assert store.get("primary", "top.top.v") == 1
    assert store.readlink("primary", "far") == "other::x"
    tree, dirs, links = store.listdir("primary", ".", recursive=True)
    assert (tree, dirs) == ({"far": "other::x", "top": ".", "v": 1}, [])
    assert links == {"far": "other::x", "top": "."}
    assert store.listdir("primary", "far")[0] == {"y": "there"}
    # Who may not enter the other namespace does not get there by a link either.
    store.create_namespace("mine", owner=9)
    store.commit("mine", [["far", "other::x", "symlink"]], uid=9)
    refused(errno.EPERM, store.get, "mine", "far.y", uid=9)
    # Unlink and put at the end of a key are about the link itself.
    store.commit("primary", [["far", None, "unlink"], ["top", 2]])
    assert store.get("other", "x.y") == "there"
    assert store.get("primary", "top") == 2


def test_a_map_as_value_is_told_from_a_directory() -> None:
    store = Store()
    store.commit("primary", [["d.value", {"x": 1}], ["d.dir.x", 1]])
    tree, dirs, _ = store.listdir("primary", "d", recursive=True)
    assert tree == {"value": {"x": 1}, "dir": {"x": 1}}
    assert dirs == ["dir"]
    assert store.listdir("primary", "d")[:2] == ({"value": {"x": 1}, "dir": {}}, ["dir"])


def test_a_listing_over_the_limit_is_refused() -> None:
    store = Store(Limits(listing=1000))
    store.commit("primary", [[f"d{i}.x", "y" * 300] for i in range(4)])
    refused(errno.EOVERFLOW, store.listdir, "primary", ".", recursive=True)
    assert len(store.listdir("primary", ".")[0]) == 4


def test_access_by_user() -> None:
    store = Store(owner=100)
    store.create_namespace("guest", owner=200)
    store.commit("guest", [["a", 1]], uid=200)
    store.commit("guest", [["a", 2]], uid=100)
    refused(errno.EPERM, store.commit, "guest", [["a", 3]], uid=300)
    refused(errno.EPERM, store.get, "primary", "a", uid=200)
    refused(errno.EPERM, store.watch, "primary", "a", None, uid=200)
    refused(errno.EPERM, store.wait_version, "primary", 9, None, uid=200)
    assert store.get("guest", "a", uid=200) == 2


def test_namespaces_come_and_go() -> None:
    store = Store(Limits(namespaces=2))
    store.create_namespace("x")
    refused(errno.EEXIST, store.create_namespace, "x")
    refused(errno.EEXIST, store.create_namespace, "primary")
    refused(errno.ENOSPC, store.create_namespace, "y")
    refused(errno.EINVAL, store.create_namespace, "a:b")
    store.commit("x", [["a", "y" * 1000]])
    assert [ns.name for ns in store.namespaces()] == ["primary", "x"]
    store.remove_namespace("x")
    assert (store.bytes, store.history_bytes) == (0, 0)
    refused(errno.ENOTSUP, store.remove_namespace, "x")
    refused(errno.ENOTSUP, store.remove_namespace, "primary")


def test_versions_are_kept_for_a_while() -> None:
    store = Store(Limits(history_commits=3))
    for i in range(6):
        put(store, a=i)
    assert [store.get("primary", "a", version=v) for v in (3, 4, 5, 6)] == [2, 3, 4, 5]
    assert "3 is the oldest" in refused(errno.ESTALE, store.get, "primary", "a", version=2)
    refused(errno.EINVAL, store.get, "primary", "a", version=7)
    refused(errno.EINVAL, store.get, "primary", "a", version=-1)


def test_old_versions_give_way_to_new_data() -> None:
    store = Store(Limits(total=3000))
    for _ in range(20):
        put(store, a="x" * 2000)
    assert store.get("primary", "a") == "x" * 2000
    refused(errno.ENOSPC, store.commit, "primary", [["b", "x" * 2000]])
    store.commit("primary", [["a", None, "unlink"], ["b", "x" * 2000]])


def test_watch_begins_with_the_value_or_its_error() -> None:
    store = Store()
    put(store, a=1, d__x=1)
    _, now = store.watch("primary", "a", "w")
    assert now == [("w", 0, {"value": 1, "version": 1})]
    assert store.watch("primary", "a", "w", initial=False)[1] == []
    refused(errno.ENOENT, store.watch, "primary", "b", None)
    refused(errno.EISDIR, store.watch, "primary", "d", None)
    refused(errno.ENOTSUP, store.watch, "nowhere", "b", None)


def test_a_removed_key_ends_its_watch() -> None:
    store = Store()
    put(store, a=1)
    store.watch("primary", "a", "w")
    [notice] = store.commit("primary", [["a", None, "unlink"]]).notices
    assert notice[:2] == ("w", errno.ENOENT)
    assert store.commit("primary", [["a", 1]]).notices == []


def test_a_full_watch_sees_its_parent_replaced() -> None:
    store = Store()
    store.commit("primary", [["one.x", 1], ["two.x", 2], ["cur", "one", "symlink"]])
    store.watch("primary", "cur.x", "full", full=True)
    store.watch("primary", "cur.x", "direct")
    done = store.commit("primary", [["cur", "two", "symlink"]])
    assert done.notices == [("full", 0, {"value": 2, "version": 2})]


def test_an_overwrite_ends_a_watch_of_appends() -> None:
    store = Store()
    store.commit("primary", [["log", "a"]])
    store.watch("primary", "log", "w", append=True)
    assert store.commit("primary", [["log", "b", "append"], ["log", "c", "append"]]).notices == [
        ("w", 0, {"value": "bc", "version": 2})
    ]
    [notice] = store.commit("primary", [["log", "new"]]).notices
    assert notice[:2] == ("w", errno.EINVAL)


def test_a_failed_commit_leaves_no_appended_parts_behind() -> None:
    store = Store()
    store.commit("primary", [["log", "a"], ["log", "b", "append"], ["d.x", 1]])
    store.watch("primary", "log", "w", append=True)
    refused(errno.EISDIR, store.commit, "primary", [["log", "BAD", "append"], ["d", "", "append"]])
    [notice] = store.commit("primary", [["log", "c", "append"]]).notices
    assert notice.payload["value"] == "c"
    assert store.get("primary", "log") == "abc"


def test_waiting_for_a_namespace_that_is_not_there_yet() -> None:
    store = Store(owner=1)
    _, now = store.watch("later", "k", "w", waitcreate=True)
    _, other = store.watch("later", "k", "stranger", waitcreate=True, uid=5)
    assert now == other == []
    [notice] = store.create_namespace("later")
    assert notice[:2] == ("stranger", errno.EPERM)
    assert store.commit("later", [["k", 1]]).notices == [("w", 0, {"value": 1, "version": 1})]
    gone = store.remove_namespace("later")
    assert [notice[:2] for notice in gone] == [("w", errno.ENOTSUP)]


def test_unwatch() -> None:
    store = Store()
    watcher, _ = store.watch("primary", "a", "w", waitcreate=True)
    waiter = store.wait_version("primary", 1, "v")
    assert waiter is not None
    store.unwatch(watcher)
    store.unwatch(watcher)
    store.unwatch(waiter)
    assert store.commit("primary", [["a", 1]]).notices == []


def test_waiting_for_a_version() -> None:
    store = Store()
    assert store.wait_version("primary", 0, "now") is None
    assert store.wait_version("primary", 2, "two") is not None
    assert put(store, a=1) == 1
    assert store.commit("primary", [["a", 2]]).notices == [("two", 0, {"version": 2})]


def test_archiving_a_namespace() -> None:
    store = Store()
    store.create_namespace("job-1")
    store.commit("job-1", [["a.b", "x"]])
    store.watch("job-1", "a.b", "w")
    total = store.bytes
    done = store.archive("job-1", "job.1.guest")
    assert [notice[:2] for notice in done.notices] == [("w", errno.ENOTSUP)]
    assert store.get("primary", "job.1.guest.a.b") == "x"
    assert not store.has_namespace("job-1")
    assert store.bytes == store.namespace("primary").bytes > total
    store.create_namespace("job-2")
    store.archive("job-2", "job.2.guest")
    refused(errno.ENOENT, store.listdir, "primary", "job.2")
