"""The key-value store from the command line and from Python."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from flux_mpi.message.errors import FluxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Instance = Any


@pytest.fixture(autouse=True)
def _tidy(flux: Instance) -> Iterator[None]:
    yield
    for key in ("e2e", "link"):
        if flux.handle.kvs.exists(key):
            flux.handle.kvs.unlink(key)


def test_put_get_list_unlink(flux: Instance) -> None:
    flux("kvs", "put", "e2e.a.b=1", "e2e.a.c=text", 'e2e.d={"k": [1, 2]}')
    assert flux.out("kvs", "get", "e2e.a.b") == "1"
    assert flux.out("kvs", "get", "e2e.a.c", "e2e.d").splitlines() == ["text", '{"k": [1, 2]}']
    assert flux.out("kvs", "ls", "e2e").split() == ["a", "d"]
    assert flux.out("kvs", "dir", "e2e").splitlines() == ["e2e.a.", 'e2e.d = {"k": [1, 2]}']
    assert flux.out("kvs", "dir", "-R", "e2e.a").splitlines() == ["e2e.a.b = 1", "e2e.a.c = text"]
    assert "Directory not empty" in flux("kvs", "unlink", "e2e.a", status=1).stderr
    flux("kvs", "unlink", "e2e.a.b")
    flux("kvs", "unlink", "-R", "e2e")
    assert "e2e.a.c" in flux("kvs", "get", "e2e.a.c", status=1).stderr


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["get", "e2e.nothing"], 1, "e2e.nothing"),
        (["get", "e2e"], 1, "directory"),
        (["ls", "e2e.nothing"], 1, "e2e.nothing"),
        (["get", "--namespace=nowhere", "x"], 1, "nowhere"),
        (["put", "no-value"], 2, "no-value"),
        (["unlink", "e2e.nothing"], 1, "e2e.nothing"),
    ],
)
def test_errors_name_the_key(flux: Instance, words: list[str], status: int, says: str) -> None:
    flux("kvs", "put", "e2e.there=1")
    done = flux("kvs", *words, status=status)
    assert says in done.stderr
    assert done.stdout == ""


def test_values_of_every_kind_come_back(flux: Instance) -> None:
    kvs = flux.handle.kvs
    for value in (None, True, -1, 1.5, "text ƒ", [1, [2]], {"a": {"b": None}}, b"\xff\x00", "", {}):
        kvs.put("e2e.value", value)
        assert kvs.get("e2e.value") == value
    big = "x" * (8 << 20)
    kvs.put("e2e.value", big)
    assert kvs.get("e2e.value") == big


def test_a_commit_is_all_or_nothing_and_numbered(flux: Instance) -> None:
    kvs = flux.handle.kvs
    version = kvs.update({"e2e.a": 1, "e2e.b": 2})
    assert kvs.version == version
    with pytest.raises(FluxError):
        kvs.commit([["e2e.a", 9], ["e2e.b", None, "no-such-operation"]])
    assert (kvs.get("e2e.a"), kvs.get("e2e.b"), kvs.version) == (1, 2, version)
    assert kvs.put("e2e.a", 3) == version + 1
    assert kvs.get("e2e.a", version=version) == 1


def test_every_rank_sees_a_commit(flux: Instance) -> None:
    flux("exec", "-r", "3", "flux-mpi", "kvs", "put", "e2e.from=3")
    done = flux("exec", "-r", "all", "flux-mpi", "kvs", "get", "e2e.from")
    assert done.stdout.split() == ["3"] * 4


def test_links(flux: Instance) -> None:
    flux("kvs", "put", "e2e.target=found")
    flux("kvs", "link", "e2e.target", "e2e.link")
    assert flux.out("kvs", "get", "e2e.link") == "found"
    assert flux.out("kvs", "readlink", "e2e.link") == "e2e.target"


def test_watch(flux: Instance) -> None:
    flux("kvs", "put", "e2e.w=0")
    watching = flux.popen("kvs", "watch", "--count=4", "e2e.w")
    assert watching.stdout is not None
    assert watching.stdout.readline() == "0\n"
    for n in (1, 2, 3):
        flux.handle.kvs.put("e2e.w", n)
        assert watching.stdout.readline() == f"{n}\n"
    watching.communicate(timeout=30)
    assert watching.returncode == 0


def test_a_watch_misses_nothing(flux: Instance) -> None:
    kvs = flux.handle.kvs
    stream = kvs.watch("e2e.count", waitcreate=True)
    for n in range(200):
        kvs.put("e2e.count", n)
    assert [stream.get(30)["value"] for _ in range(200)] == list(range(200))
    stream.cancel()


def test_namespaces(flux: Instance) -> None:
    flux("kvs", "namespace", "create", "e2e-ns")
    try:
        flux("kvs", "put", "--namespace=e2e-ns", "k=there")
        assert flux.out("kvs", "get", "--namespace=e2e-ns", "k") == "there"
        assert flux.out("kvs", "get", "k", env={"FLUX_KVS_NAMESPACE": "e2e-ns"}) == "there"
        flux("kvs", "get", "k", status=1)
        assert "e2e-ns" in flux.out("kvs", "namespace", "list")
        flux("kvs", "namespace", "create", "e2e-ns", status=1)
    finally:
        flux("kvs", "namespace", "remove", "e2e-ns")
    assert "e2e-ns" not in flux.out("kvs", "namespace", "list")


def test_a_job_has_a_namespace_while_it_lives(
    flux: Instance, wait_until: Callable[..., Any]
) -> None:
    script = "flux-mpi kvs put mine=$FLUX_JOB_SIZE && flux-mpi kvs get mine"
    jobid = flux.out("submit", "--wait", "-n1", "sh", "-c", script)
    assert flux.out("job", "attach", jobid) == "1"
    assert not flux.handle.kvs.exists("mine")

    def namespaces() -> list[str]:
        listed = flux.handle.call("kvs.namespace-list")["namespaces"]
        return [each["namespace"] for each in listed if each["namespace"].startswith("job-")]

    wait_until(lambda: not namespaces(), "the namespace has gone with its job", 30)
    key = flux.out("job", "id", "--to=kvs", jobid)
    assert flux.out("kvs", "get", f"{key}.guest.mine") == "1"


def test_the_instance_keeps_its_resources_there(flux: Instance) -> None:
    stored = flux.out("kvs", "get", "resource.R")
    assert json.loads(stored)["execution"]["R_lite"][0]["rank"] == "0-3"
