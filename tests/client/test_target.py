"""Which instance a target means, asked of a family of fake ones."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.client import uri
from flux_mpi.client.target import TargetError, resolve
from flux_mpi.message.errors import FluxError

HERE = os.uname().nodename


def remote(broker: Any) -> str:
    return f"ssh://{HERE}{broker.path}"


# -- URIs ---------------------------------------------------------------------------------------


def test_uris_have_a_local_and_a_remote_form() -> None:
    assert uri.to_local("ssh://node7/tmp/x/local-0") == "local:///tmp/x/local-0"
    assert uri.to_local("local:///tmp/x") == "local:///tmp/x"
    assert uri.to_remote("local:///tmp/x") == f"ssh://{HERE}/tmp/x"
    assert uri.to_remote("local:///tmp/x", "node7") == "ssh://node7/tmp/x"
    assert uri.to_remote("ssh://node8/tmp/x", "node7") == "ssh://node8/tmp/x"


@pytest.mark.parametrize("bad", ["", "x", "http://a/b", "ssh://", "ssh://host", "local://x/y"])
def test_what_is_no_uri_is_refused(bad: str) -> None:
    with pytest.raises(FluxError, match="cannot use the URI") as caught:
        uri.split(bad)
    assert caught.value.errno == errno.EINVAL


def test_a_remote_uri_of_this_host_is_as_good_as_a_local_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "node7.cluster", "", "", "")))
    monkeypatch.delenv("FLUX_URI_RESOLVE_LOCAL", raising=False)
    for host in ("node7", "node7.cluster", "NODE7", "me@node7:22", "localhost"):
        assert uri.socket_path(f"ssh://{host}/tmp/x") == "/tmp/x"
    for host in ("node77", "node7.other", "node"):
        with pytest.raises(FluxError, match=f"another host.*ssh {host} FLUX_URI=local:///tmp/x"):
            uri.socket_path(f"ssh://{host}/tmp/x")
    monkeypatch.setenv("FLUX_URI_RESOLVE_LOCAL", "1")
    assert uri.socket_path("ssh://elsewhere/tmp/x") == "/tmp/x"


# -- paths --------------------------------------------------------------------------------------


def test_paths_lead_down_and_up(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = family["ƒ2"], family["ƒ2/ƒ2"]
    for target, found in {
        "": family[""].uri,
        ".": family[""].uri,
        "..": family[""].uri,
        "/": family[""].uri,
        "ƒ2": remote(one),
        "f2": remote(one),
        "./ƒ2": remote(one),
        "/ƒ2": remote(one),
        "jobid:ƒ2": remote(one),
        "ƒ2/ƒ2": remote(two),
        "jobid:/ƒ2/ƒ2": remote(two),
        "ƒ2/ƒ2/..": remote(one),
        "ƒ2?local": one.uri,
        "ƒ2/ƒ2?local": two.uri,
        "/?remote": remote(family[""]),
    }.items():
        assert resolve(target) == found, target
    monkeypatch.setenv("FLUX_URI", two.uri)
    for target, found in {
        ".": two.uri,
        "..": one.uri,
        "../..": family[""].uri,
        "../../..": family[""].uri,
        "/": family[""].uri,
        "../ƒ2": remote(two),
    }.items():
        assert resolve(target) == found, target


def test_the_environment_may_ask_for_local_uris(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_URI_RESOLVE_LOCAL", "1")
    family.jobs[""][0]["annotations"] = {"user": {"uri": f"ssh://far-away{family['ƒ2'].path}"}}
    assert resolve("ƒ2") == family["ƒ2"].uri
    assert resolve("ƒ2/ƒ2") == family["ƒ2/ƒ2"].uri


def test_uris_are_targets(family: Any) -> None:
    assert resolve("local:///a/b") == "local:///a/b"
    assert resolve("ssh://far/a/b") == "ssh://far/a/b"
    assert resolve("ssh://far/a/b?local") == "local:///a/b"
    assert resolve("local:///a/b?remote") == f"ssh://{HERE}/a/b"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("ƒ3", "job ƒ3 has told no URI"),
        ("ƒ99", "job ƒ99 not found"),
        ("ƒ2/ƒ99", "job ƒ99 not found"),
        ("ƒ2/ƒ3/ƒ4", "job ƒ3 has told no URI"),
        ("gar!bage", "'gar!bage' is not a valid job id"),
        ("ƒ2/x y", "'x y' is not a valid job id"),
        ("slurm:12", "Slurm job cannot be looked up yet"),
        ("lsf:12", "LSF job cannot be looked up yet"),
        ("pbs:12", "unknown scheme: expected one of jobid, pid, local, ssh"),
        ("ƒ2?what", "unknown query"),
        ("ƒ2?local&remote", "only one of"),
        ("pid:x", "expected the number of a process"),
        ("pid:999999999", "no such process"),
    ],
)
def test_targets_that_are_none(family: Any, target: str, says: str) -> None:
    with pytest.raises(TargetError, match=says.replace("?", r"\?")):
        resolve(target)


def test_a_job_that_has_ended_is_no_target(family: Any) -> None:
    family.jobs[""][0]["state"] = 64
    with pytest.raises(TargetError, match="job ƒ2 is not running"):
        resolve("ƒ2")


def test_a_child_on_another_host_cannot_be_walked_through(family: Any) -> None:
    family.jobs[""][0]["annotations"] = {"user": {"uri": f"ssh://far-away{family['ƒ2'].path}"}}
    assert resolve("ƒ2") == f"ssh://far-away{family['ƒ2'].path}"
    with pytest.raises(FluxError, match="another host"):
        resolve("ƒ2/ƒ2")


def test_waiting_for_the_memo_that_tells(family: Any) -> None:
    family.jobs[""][0].pop("annotations")
    asked = threading.Event()
    waiting: list[Any] = []

    def watch(request: Any) -> None:
        waiting.append(request)
        request.respond({"events": [{"name": "submit", "timestamp": 1.0}]})
        asked.set()

    family[""].handlers["job-info.eventlog-watch"] = watch

    def tell() -> None:
        asked.wait(10)
        for context in ({"note": 1}, {"uri": remote(family["ƒ2"])}):
            event = {"name": "memo", "timestamp": 2.0, "context": context}
            waiting[0].respond({"events": [event]})

    teller = threading.Thread(target=tell)
    teller.start()
    assert resolve("ƒ2", wait=True) == remote(family["ƒ2"])
    teller.join()


def test_waiting_for_a_job_that_ends_without_telling(family: Any) -> None:
    def watch(request: Any) -> None:
        request.respond({"events": [{"name": "finish", "timestamp": 1.0}]})
        request.end()

    family[""].handlers["job-info.eventlog-watch"] = watch
    with pytest.raises(TargetError, match="job ƒ3 has told no URI"):
        resolve("ƒ3?wait")


# -- processes ----------------------------------------------------------------------------------


def test_a_process_belongs_to_the_instance_in_its_environment() -> None:
    environ = {**os.environ, "FLUX_URI": "local:///tmp/x/local-0"}
    with subprocess.Popen(["sleep", "60"], env=environ) as process:
        try:
            assert resolve(f"pid:{process.pid}") == "local:///tmp/x/local-0"
            assert resolve(f"pid:{process.pid}?remote") == f"ssh://{HERE}/tmp/x/local-0"
        finally:
            process.kill()


def test_a_broker_and_its_parent_belong_to_what_it_serves(tmp_path: Path) -> None:
    """Their environment would name the instance around."""
    path = tmp_path / "local-0"
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "print(flush=True); sys.stdin.read()"
    )
    environ = {**os.environ, "FLUX_URI": "local:///around/local-0"}
    script = f"{sys.executable} -c '{code}' {path}; true"
    with subprocess.Popen(
        ["sh", "-c", script],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdout.readline()
        assert resolve(f"pid:{shell.pid}") == f"local://{path}"
        shell.stdin.close()
        shell.wait(30)


def test_a_process_of_no_instance() -> None:
    environ = {name: text for name, text in os.environ.items() if name != "FLUX_URI"}
    with subprocess.Popen(["sleep", "60"], env=environ) as process:
        try:
            with pytest.raises(TargetError, match="has no FLUX_URI"):
                resolve(f"pid:{process.pid}")
        finally:
            process.kill()


def test_nobody_answers_on_the_way(
    family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux_mpi.client.target.TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        family.jobs[""][0]["annotations"] = {"user": {"uri": f"local://{tmp_path}/s"}}
        with pytest.raises(TimeoutError):
            resolve("ƒ2/ƒ2")
