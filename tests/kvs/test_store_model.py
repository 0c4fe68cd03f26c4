"""The store against an oracle of plain nested dicts, copied whole after each commit."""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.kvs.store import MAX_LINKS, Limits, Store
from flux_mpi.kvs.tree import weight
from flux_mpi.message.errors import ServiceError

# In the oracle a directory is a dict, a value ("v", data), a link ("l", components).


class Refused(Exception):
    pass


def oracle_find(root: dict, parts: list[str], follow: bool = True, hops: int = 0) -> Any:
    node: Any = root
    for i, name in enumerate(parts):
        if not isinstance(node, dict) or name not in node:
            return None
        node = node[name]
        rest = parts[i + 1 :]
        if isinstance(node, tuple) and node[0] == "l" and (rest or follow):
            if hops == MAX_LINKS:
                raise Refused(errno.ELOOP)
            return oracle_find(root, node[1] + rest, follow, hops + 1)
    return node


def oracle_apply(root: dict, parts: list[str], verb: str, data: Any, hops: int = 0) -> None:
    node = root
    for i, name in enumerate(parts[:-1]):
        child = node.get(name)
        if isinstance(child, tuple) and child[0] == "l":
            if hops == MAX_LINKS:
                raise Refused(errno.ELOOP)
            oracle_apply(root, child[1] + parts[i + 1 :], verb, data, hops + 1)
            return
        if not isinstance(child, dict):
            if verb == "unlink":
                return
            child = node[name] = {}
        node = child
    name = parts[-1]
    old = node.get(name)
    if verb == "unlink":
        node.pop(name, None)
    elif verb == "mkdir":
        node[name] = {}
    elif verb == "symlink":
        node[name] = ("l", data)
    elif verb == "append" and old is not None:
        if isinstance(old, dict):
            raise Refused(errno.EISDIR)
        if old[0] == "l":
            raise Refused(errno.EOPNOTSUPP)
        if not isinstance(old[1], str):
            raise Refused(errno.EINVAL)
        node[name] = ("v", old[1] + data)
    else:
        node[name] = ("v", data)


def apply_all(root: dict, ops: list[tuple[list[str], str, Any]]) -> None:
    for parts, verb, data in ops:
        oracle_apply(root, parts, verb, data)


def plain(node: Any) -> Any:
    """What a recursive listing shows of the oracle's ``node``."""
    if isinstance(node, dict):
        return {name: plain(child) for name, child in node.items()}
    return ".".join(node[1]) or "." if node[0] == "l" else node[1]


names = st.sampled_from("abc")
paths = st.lists(names, min_size=1, max_size=4)
values = st.one_of(st.text("xy", max_size=3), st.integers(0, 2), st.none(), st.just({"k": [1]}))
operations = st.one_of(
    st.tuples(paths, st.just("put"), values),
    st.tuples(paths, st.just("append"), st.text("xy", max_size=2)),
    st.tuples(paths, st.just("unlink"), st.none()),
    st.tuples(paths, st.just("mkdir"), st.none()),
    st.tuples(paths, st.just("symlink"), st.lists(names, max_size=3)),
)
commits = st.lists(st.lists(operations, min_size=1, max_size=5), max_size=12)


def wire(op: tuple[list[str], str, Any]) -> list[Any]:
    parts, verb, data = op
    if verb == "symlink":
        data = ".".join(data) or "."
    key = ".".join(parts)
    return [key, data] if verb == "put" else [key, data, verb]


def attempt(call: Callable[[], Any]) -> tuple[int, Any]:
    """``(0, result)``, or the error's number and None."""
    try:
        return 0, call()
    except ServiceError as error:
        return error.errno or -1, None
    except Refused as refused:
        return refused.args[0], None


def check_same(store: Store, root: dict, probes: list[list[str]], version: int | None) -> None:
    assert store.listdir("primary", ".", recursive=True, version=version)[0] == plain(root)
    for parts in probes:
        key = ".".join(parts)
        errnum, expected = attempt(lambda parts=parts: oracle_find(root, parts))
        if not errnum:
            errnum = errno.ENOENT if expected is None else errno.EISDIR
        found = attempt(lambda key=key: store.get("primary", key, version=version))
        if isinstance(expected, tuple):
            assert found == (0, expected[1])
            assert type(found[1]) is type(expected[1])
        else:
            assert found == (errnum, None)


@given(commits, st.lists(paths, max_size=5))
@settings(max_examples=150, deadline=None)
def test_every_version_shows_what_the_oracle_held(
    history: list[list[tuple[list[str], str, Any]]], probes: list[list[str]]
) -> None:
    store = Store()
    root: dict = {}
    versions = [copy.deepcopy(root)]
    for ops in history:
        trial = copy.deepcopy(root)
        expected, _ = attempt(lambda: apply_all(trial, ops))  # noqa: B023
        got, done = attempt(lambda: store.commit("primary", [wire(op) for op in ops]))  # noqa: B023
        assert got == expected
        if not ops:
            assert done.version == len(versions) - 1
        elif not expected:
            root = trial
            versions.append(copy.deepcopy(root))
            assert done.version == len(versions) - 1
        check_same(store, root, probes, None)
    for version, held in enumerate(versions):
        check_same(store, held, probes, version)
    # The books are right: what is charged is what is there.
    namespace = store.namespace("primary")
    assert (
        store.bytes
        == namespace.bytes
        == weight("", namespace.root) - weight("", type(namespace.root)())
    )


@given(commits)
@settings(max_examples=150, deadline=None)
def test_watches_hear_what_they_should(
    history: list[list[tuple[list[str], str, Any]]],
) -> None:
    store = Store()
    keys = ["a", "a.b", "b.c"]
    heard: dict[tuple[str, str], list[Any]] = {}
    live: dict[tuple[str, str], bool] = {}
    for key in keys:
        for mode in ("plain", "uniq", "full", "append"):
            heard[key, mode], live[key, mode] = [], True
            flags = {} if mode == "plain" else {mode: True}
            _, notices = store.watch("primary", key, (key, mode), waitcreate=True, **flags)
            assert notices == []

    def current(key: str) -> tuple[int, Any]:
        return attempt(lambda: store.get("primary", key))

    for ops in history:
        before = {key: current(key) for key in keys}
        failed, done = attempt(lambda: store.commit("primary", [wire(op) for op in ops]))  # noqa: B023
        if failed:
            assert {key: current(key) for key in keys} == before
            continue
        named = {".".join(parts) for parts, _, _ in ops}
        told = {}
        for token, errnum, payload in done.notices:
            assert token not in told, "one notice a watch and commit"
            assert live[token], "no notice after the end"
            told[token] = errnum
            live[token] = errnum == 0
            if errnum == 0:
                assert payload["version"] == done.version
                heard[token].append(payload["value"])
        for key in keys:
            errnum, value = current(key)
            assert (key, "plain") not in told or key in named
            if errnum or key not in named:
                continue
            # The key is there and was named: whoever still watches it knows what it holds.
            if live[key, "plain"]:
                assert told[key, "plain"] == 0
                assert heard[key, "plain"][-1] == value
            if live[key, "uniq"]:
                assert heard[key, "uniq"][-1] == value
            if live[key, "append"] and isinstance(value, str):
                assert "".join(heard[key, "append"]) == value
        for key in keys:
            errnum, value = current(key)
            if live[key, "full"] and not errnum:
                assert heard[key, "full"][-1] == value
    for (_, mode), values_heard in heard.items():
        if mode in ("uniq", "full"):
            assert all((type(x), x) != (type(y), y) for x, y in pairwise(values_heard))


@given(st.lists(st.text("xyz", max_size=3), min_size=1, max_size=20), st.integers(0, 19))
def test_appends_add_up(pieces: list[str], begin: int) -> None:
    store = Store()
    got: list[str] = []
    for i, piece in enumerate(pieces):
        if i == begin:
            _, first = store.watch("primary", "log", None, append=True, waitcreate=True)
            got += [notice.payload["value"] for notice in first]
        done = store.commit("primary", [["log", piece, "append"]])
        got += [notice.payload["value"] for notice in done.notices]
        assert store.get("primary", "log") == "".join(pieces[: i + 1])
    if begin < len(pieces):
        assert "".join(got) == "".join(pieces)


@given(commits)
@settings(max_examples=50, deadline=None)
def test_a_store_without_room_refuses_and_keeps_what_it_has(
    history: list[list[tuple[list[str], str, Any]]],
) -> None:
    store = Store(Limits(total=1500, history=600))
    for ops in history:
        before = store.listdir("primary", ".", recursive=True)
        failed, _ = attempt(lambda: store.commit("primary", [wire(op) for op in ops]))  # noqa: B023
        if failed:
            assert store.listdir("primary", ".", recursive=True) == before
        assert store.bytes <= 1500
        assert store.history_bytes <= 600
