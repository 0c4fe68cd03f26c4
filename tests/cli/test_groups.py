"""barrier, group and the options before a command, against a fake broker."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.cli.main import main
from tests.client.fakebroker import FakeBroker, streaming


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command; returns (status, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


# -- barrier ---------------------------------------------------------------------------------------


def test_barrier(broker: FakeBroker, out: Any) -> None:
    broker.handlers["barrier.enter"] = lambda r: r.respond()
    assert out("barrier", "-n3", "b") == (0, "", "")
    assert broker.payload("barrier.enter")["nprocs"] == 3
    assert out("barrier", "--nprocs=3", "--timeout=inf", "b")[0] == 0
    broker.handlers["barrier.enter"] = lambda r: r.error(errno.ECONNABORTED, "barrier b: gone")
    assert out("barrier", "-n3", "b") == (1, "", "flux-barrier: ERROR: barrier b: gone\n")
    broker.handlers["barrier.enter"] = lambda r: None
    broker.handlers["barrier.status"] = {"barriers": [["b", 1, 3]]}
    late = "flux-barrier: ERROR: barrier b: 1 of 3 have entered after 0.02 s\n"
    assert out("barrier", "-n3", "-t", "20ms", "b") == (1, "", late)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["b"], "option --nprocs is missing"),
        (["-n3"], "NAME is missing"),
        (["-n0", "b"], "--nprocs: 0 is not allowed: must be at least 1"),
        (["-nx", "b"], "--nprocs: invalid int value 'x'"),
        (["-n1", "-t", "soon", "b"], "invalid Flux standard duration 'soon'"),
        (["-n1", "a", "b"], "unexpected argument 'b'"),
    ],
)
def test_barrier_command_lines_that_make_no_sense(out: Any, words: list[str], says: str) -> None:
    status, text, err = out("barrier", *words)
    assert (status, text) == (2, "")
    assert says in err


# -- group -----------------------------------------------------------------------------------------


@pytest.fixture
def groups(broker: FakeBroker) -> FakeBroker:
    broker.handlers["groups.join"] = lambda r: r.respond()
    broker.handlers["groups.leave"] = lambda r: r.respond()
    broker.handlers["groups.get"] = {"members": ["j.9", "j.10"]}
    return broker


def test_a_member_stays_as_long_as_the_command_runs(
    groups: FakeBroker, out: Any, tmp_path: Path
) -> None:
    """The command sees that it was joined before, on a connection that is still open."""
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w').write('ran'); raise SystemExit(7)"
    assert out("group", "join", "g", "--", sys.executable, "-c", code)[0] == 7
    assert mark.read_text() == "ran"
    assert groups.payload("groups.join")["name"] == "g"
    assert out("group", "join", "-m", "me", "g", "sh", "-c", "kill -TERM $$")[0] == 128 + 15
    assert groups.payload("groups.join")["member"] == "me"


def test_signals_reach_the_command(groups: FakeBroker, out: Any, tmp_path: Path) -> None:
    script = 'trap "exit 5" TERM; kill -TERM $PPID; sleep 20 & wait'
    assert out("group", "join", "g", "--", "sh", "-c", script)[0] == 5
    assert groups.topics() == ["groups.join"]
    assert tmp_path.exists()


def test_a_command_that_cannot_be_run(groups: FakeBroker, out: Any, tmp_path: Path) -> None:
    assert out("group", "join", "g", "--", "/no/such/cmd") == (
        127, "", "flux-group: ERROR: /no/such/cmd: No such file or directory\n"
    )  # fmt: skip
    assert out("group", "join", "g", str(tmp_path))[0] == 126
    groups.handlers["groups.join"] = lambda r: r.error(errno.EEXIST, "group g: me is in it")
    mark = tmp_path / "mark"
    status, _, err = out("group", "join", "g", "touch", str(mark))
    assert (status, err) == (1, "flux-group: ERROR: group g: me is in it\n")
    assert not mark.exists(), "nothing runs that is no member"


@pytest.mark.parametrize("words", [["g"], ["g", "--"]])
def test_a_membership_needs_a_command(out: Any, words: list[str]) -> None:
    status, _, err = out("group", "join", *words)
    assert status == 2
    assert "COMMAND is missing: a membership lasts as long as a command runs" in err


def test_leave_and_get(groups: FakeBroker, out: Any) -> None:
    assert out("group", "leave", "-m", "j.9", "g") == (0, "", "")
    assert groups.payload("groups.leave") == {"name": "g", "member": "j.9"}
    assert out("group", "get", "g") == (0, "j.9\nj.10\n", "")
    assert out("group", "get", "-c", "g") == (0, "2\n", "")
    groups.handlers["groups.get"] = {"members": []}
    assert out("group", "get", "nobody") == (0, "", "")


def test_watch(groups: FakeBroker, out: Any) -> None:
    story = (
        {"members": ["a", "b"]},
        {"joined": ["c"], "left": ["a"]},
        {"joined": ["d"], "left": []},
    )
    groups.handlers["groups.get"] = streaming(*story)
    assert out("group", "watch", "-s3", "g") == (0, "+a\n+b\n-a\n+c\n+d\n", "")
    assert out("group", "watch", "-s2", "g") == (0, "+a\n+b\n", "")
    groups.handlers["groups.get"] = lambda r: r.respond(story[0])
    assert out("group", "watch", "-s3", "-t", "0.02s", "g") == (
        1, "+a\n+b\n", "flux-group: ERROR: group g: 2 members after 0.02 s\n"
    )  # fmt: skip


# -- options before the command --------------------------------------------------------------------


@pytest.fixture
def family(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The broker, as an instance inside a parent inside a grandparent."""
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="fb-") as one,
        tempfile.TemporaryDirectory(prefix="fb-") as two,
    ):
        parent, grandparent = FakeBroker(Path(one)), FakeBroker(Path(two))
        broker.attrs.update({"parent-uri": parent.uri, "parent-kvs-namespace": "job-7"})
        parent.attrs.update({"parent-uri": grandparent.uri})
        for size, each in enumerate((broker, parent, grandparent), 1):
            each.attrs["size"] = str(size)
            each.handlers["attr.list"] = lambda r, each=each: r.respond({"attrs": each.attrs})
            each.handlers["kvs.lookup"] = {"value": "x"}
        # What the command changes in the environment is this process's, here.
        monkeypatch.setenv("FLUX_URI", broker.uri)
        monkeypatch.setenv("FLUX_KVS_NAMESPACE", "job-1")
        yield broker, parent, grandparent
        parent.close()
        grandparent.close()


@pytest.fixture
def at(family: Any, out: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setenv("FLUX_URI", family[0].uri)
        monkeypatch.setenv("FLUX_KVS_NAMESPACE", "job-1")
        found: tuple[int, str, str] = out(*words)
        return found

    return run


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ([], "1"),
        (["-p"], "2"),
        (["--parent"], "2"),
        (["--par"], "2"),
        (["-pp"], "3"),
        (["-p", "--parent"], "3"),
        (["-r"], "3"),
        (["--root", "-p"], "3"),
    ],
)
def test_commands_talk_to_the_instance_that_is_chosen(
    at: Any, options: list[str], size: str
) -> None:
    assert at(*options, "getattr", "size") == (0, f"{size}\n", "")


def test_the_namespace_is_what_the_child_has_in_its_parent(family: Any, at: Any) -> None:
    for options, which, namespace in (
        ([], 0, "job-1"),
        (["-p"], 1, "job-7"),
        (["-p", "-p"], 2, "primary"),
        ([f"--uri={family[1].uri}"], 1, "primary"),
    ):
        assert at(*options, "kvs", "get", "k")[0] == 0
        assert family[which].payload("kvs.lookup")["ns"] == namespace


def test_uri_is_where_parent_begins(family: Any, at: Any) -> None:
    assert at("--uri", family[1].uri, "getattr", "size")[1] == "2\n"
    assert at("--uri", family[1].uri, "-p", "getattr", "size")[1] == "3\n"


def test_what_the_command_starts_goes_there_too(family: Any, at: Any) -> None:
    family[1].handlers["groups.join"] = lambda r: r.respond()
    assert (
        at("-p", "group", "join", "g", "--", "sh", "-c", f"[ $FLUX_URI = {family[1].uri} ]")[0] == 0
    )
    assert os.environ["FLUX_URI"] == family[1].uri


def test_there_may_be_no_parent(family: Any, at: Any) -> None:
    status, text, err = at("-ppp", "getattr", "size")
    assert (status, text) == (1, "")
    assert err == (
        f"flux-mpi: ERROR: --parent: the instance at {family[2].uri} has no parent: it is no job "
        "of another\n"
    )


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (
            ["--uri=ssh://x", "getattr", "size"],
            1,
            "cannot use the URI 'ssh://x': expected ssh://HOST/PATH",
        ),
        (["--uri=local:///none", "-p", "getattr", "size"], 1, "flux-mpi: ERROR: cannot connect to"),
        (["-p"], 2, "a command is missing"),
        (["--bogus", "jobs"], 2, "unrecognized option --bogus"),
        (["--uri"], 2, "option --uri needs a value (URI)"),
        (["-p", "jobz"], 1, "'jobz' is not a flux-mpi command"),
    ],
)
def test_options_that_make_no_sense(at: Any, words: list[str], status: int, says: str) -> None:
    found, text, err = at(*words)
    assert (found, text) == (status, "")
    assert says in err


def test_help_and_version_may_follow_options(at: Any) -> None:
    assert at("-p", "--help")[1] == at("help")[1]
    assert at("-p", "-V", "getattr")[1] == at("version")[1]
