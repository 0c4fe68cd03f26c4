"""From options to jobspecs and arrays."""

from __future__ import annotations

import io
import json
import resource
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.cli import bulksubmit, run, submit
from flux_mpi.cli.main import main
from flux_mpi.cli.options import UsageError
from flux_mpi.cli.submission import Builder
from tests.client.fakebroker import FakeBroker


def jobspec(*words: str) -> dict[str, Any]:
    args = run.COMMAND.parse(words)
    return Builder("flux-run").build(vars(args), args.operands)


def system(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = jobspec(*words)["attributes"]["system"]
    return found


def options(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = system(*words)["shell"]["options"]
    return found


def refused(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        jobspec(*words)
    assert caught.value.status == 1
    return str(caught.value)


def test_the_jobspec_that_flux_prints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    found = jobspec(
        "-n2",
        "-c2",
        "-t",
        "5m",
        "--job-name=foo",
        "--setattr=foo.bar=1",
        "-o",
        "verbose=2",
        "--env=-*",
        "--env=A=1",
        "--rlimit=-*,core=0",
        "hostname",
    )
    # Key for key and in this order: as "flux run --dry-run" prints it.
    assert json.dumps(found) == (
        '{"resources": [{"type": "slot", "count": 2, "with": [{"type": "core", "count": 2}], '
        '"label": "task"}], "tasks": [{"command": ["hostname"], "slot": "task", '
        '"count": {"per_slot": 1}}], "attributes": {"system": {"duration": 300.0, '
        f'"environment": {{"A": "1"}}, "cwd": "{tmp_path}", "job": {{"name": "foo"}}, '
        '"shell": {"options": {"rlimit": {"core": 0}, "verbose": 2}}, "foo": {"bar": 1}}}, '
        '"version": 1}'
    )


def test_nodes_and_tasks() -> None:
    (node,) = jobspec("-N2", "-n4", "-g1", "x")["resources"]
    assert (node["type"], node["count"], node.get("exclusive")) == ("node", 2, None)
    assert node["with"][0]["count"] == 2
    assert {"type": "gpu", "count": 1} in node["with"][0]["with"]
    (node,) = jobspec("-N2", "x")["resources"]
    assert node["exclusive"] is True
    assert jobspec("-N2", "-n3", "x")["tasks"][0]["count"] == {"total": 3}
    (node,) = jobspec("-N2", "-n2", "-x", "x")["resources"]
    assert node["exclusive"] is True


def test_tasks_by_resource() -> None:
    found = jobspec("--cores=8", "-N2", "--tasks-per-node=3", "x")
    assert found["attributes"]["system"]["shell"]["options"]["per-resource"] == {
        "type": "node",
        "count": 3,
    }
    found = jobspec("--cores=4", "--tasks-per-core=2", "x")
    assert found["resources"][0]["count"] == 4
    assert jobspec("-N2", "--tasks-per-node=3", "x")["resources"][0]["exclusive"] is True


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "job command and arguments are missing"),
        (["-n", "foo", "x"], "--ntasks: invalid int value 'foo'"),
        (["-n0", "x"], "--ntasks: 0 is not allowed"),
        (["-N3", "-n2", "x"], "--nodes: 3 is more than the number of tasks, 2"),
        (["-x", "x"], "--exclusive can only be used with --nodes"),
        (["--cores=2", "-n2", "x"], "--ntasks and --cores exclude each other"),
        (["--tasks-per-node=2", "x"], "--tasks-per-node needs --nodes or --cores"),
        (["--gpus-per-node=1", "--cores=1", "x"], "--gpus-per-node can only be used with --nodes"),
        (["-N1", "--tasks-per-node=1", "--tasks-per-core=1", "x"], "exclude each other"),
        (["-t", "1x", "x"], "--time-limit: invalid Flux standard duration '1x'"),
        (["-t", "-5", "x"], "--time-limit: -5 is not allowed"),
        (["--dependency=x", "x"], "--dependency: invalid URI 'x'"),
        (["--begin-time=soon", "x"], "--begin-time: invalid datetime 'soon'"),
        (["--requires=a|", "x"], "--requires:"),
        (["--signal=NOSUCH@5", "x"], "--signal: invalid signal 'NOSUCH'"),
        (["--setattr==1", "x"], "--setattr: invalid value '=1'"),
        (["--rlimit=nosuch=1", "x"], "--rlimit: unknown limit 'nosuch'"),
        (["--rlimit=nofile=lots", "x"], "--rlimit: nofile: invalid value 'lots'"),
        (["--env=A=$NOSUCHVAR", "x"], "--env: variable 'NOSUCHVAR' is not set"),
        (["--env=/(/", "x"], "--env: invalid regex"),
        (["--env-file=/nosuch", "x"], "--env-file: /nosuch: No such file"),
        (["--setattr=^a=/nosuch", "x"], "--setattr: /nosuch: No such file"),
    ],
)
def test_what_is_refused(words: list[str], text: str) -> None:
    found = refused(*words)
    assert found.startswith("flux-run: ERROR: ")
    assert text in found


def test_time_limits() -> None:
    assert system("-t", "2", "x")["duration"] == 120
    assert system("-t", "90s", "x")["duration"] == 90
    assert system("-t", "inf", "x")["duration"] == 0
    assert system("x")["duration"] == 0


def test_shell_options() -> None:
    found = options("-o", "a.b=c", "-o", "flag", "-o", 'j={"x":[1]}', "-o", "t=true", "x")
    assert (found["a"], found["flag"], found["j"], found["t"]) == ({"b": "c"}, 1, {"x": [1]}, True)
    found = options("--output=o", "--error=e", "-l", "-u", "--input=/i", "x")
    assert found["output"]["stdout"] == {
        "type": "file",
        "path": "o",
        "label": True,
        "buffer": {"type": "none"},
    }
    assert found["output"]["stderr"]["path"] == "e"
    assert found["input"]["stdin"] == {"type": "file", "path": "/i"}
    assert "input" not in options("--input=0-3", "x")
    assert options("--taskmap=cyclic:2", "x")["taskmap"] == {"scheme": "cyclic", "value": "2"}
    assert options("--signal=USR2@2m", "x")["signal"] == {"signum": 12, "timeleft": 120.0}
    assert options("--signal=@3", "x")["signal"] == {"signum": 10, "timeleft": 3.0}


def test_attributes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"k": [1, 2]}')
    found = jobspec(
        "--setattr=x.y=text",
        "--setattr=user.z=2",
        f"--setattr=^f={tmp_path}/a.json",
        "--bank=b",
        "--dependency=afterok:f1?opt=1",
        "--begin-time=@100",
        "--requires=rank:0-1",
        "x",
    )["attributes"]
    assert found["user"] == {"z": 2}
    assert found["system"]["x"] == {"y": "text"}
    assert found["system"]["f"] == {"k": [1, 2]}
    assert found["system"]["bank"] == "b"
    assert found["system"]["dependencies"] == [
        {"scheme": "afterok", "value": "f1", "opt": "1"},
        {"scheme": "begin-time", "value": "100.0"},
    ]
    assert found["system"]["constraints"] == {"ranks": ["0-1"]}


def test_environment_rules_apply_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("AA", "1"), ("AB", "2"), ("B", "3")):
        monkeypatch.setenv(name, text)
    (tmp_path / "rules").write_text("-A*\n\nAB\nNEW=${B}x$$\n")
    assert system("x")["environment"]["AA"] == "1"
    found = system("--env-remove=AA", "x")["environment"]
    assert "AA" not in found
    assert found["AB"] == "2"
    assert system("--env=-*", "--env=/A.$/", "x")["environment"] == {"AA": "1", "AB": "2"}
    found = system("--env=-*", "--env=P=/bin", "--env=P=$P:/x", "x")["environment"]
    assert found == {"P": "/bin:/x"}
    assert system("--env=C=1", "--env-remove=*", "--env=D={{tmpdir}}", "x")["environment"] == {
        "D": "{{tmpdir}}"
    }
    found = system("--env-remove=*", f"--env-file={tmp_path}/rules", "x")["environment"]
    assert found == {"AB": "2", "NEW": "3x$"}


def test_limits() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert options("x")["rlimit"]["nofile"] == soft
    assert options("--rlimit=-*", "--rlimit=nofile=7,core=inf", "x")["rlimit"] == {
        "nofile": 7,
        "core": -1,
    }
    assert set(options("--rlimit=-*,mem*", "x")["rlimit"]) == {"memlock"}


def test_urgency_and_flags() -> None:
    builder = Builder("flux-run")
    assert [builder.urgency(text) for text in (None, "hold", "expedite", "7")] == [16, 0, 31, 7]
    assert builder.flags({"flags": "waitable,debug"}) == 6
    assert builder.flags({"debug": True}) == 2
    with pytest.raises(UsageError, match="99 is not allowed"):
        builder.urgency("99")
    with pytest.raises(UsageError, match="expected 0 to 31, hold"):
        builder.urgency("high")
    with pytest.raises(UsageError, match="unknown flag 'x': expected some of debug,waitable"):
        builder.flags({"flags": "x"})


# -- arrays ----------------------------------------------------------------------------------------


@pytest.fixture
def ingest(broker: FakeBroker) -> FakeBroker:
    def take(request: Any) -> None:
        first, arrays = 1 << 24, []
        for entry in request.payload["entries"]:
            arrays.append([first, entry.get("count", 1)])
            first += entry.get("count", 1)
        request.respond({"arrays": arrays})

    broker.handlers["job-ingest.submit"] = take
    return broker


def entries(broker: FakeBroker) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = broker.payload("job-ingest.submit")["entries"]
    return found


def commands(entry: dict[str, Any]) -> list[str]:
    found: list[str] = entry["jobspec"]["tasks"][0]["command"]
    return found


def test_an_array_of_a_million_is_one_entry(
    ingest: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["submit", "--quiet", "--cc=1-1000000", "--job-name=j{cc}", "echo", "{cc}", "{}"]) == 0
    )
    (entry,) = entries(ingest)
    assert (entry["count"], entry["params"]) == (1_000_000, {"cc": "1-1000000"})
    assert commands(entry) == ["echo", "{cc}", "{}"]
    system = entry["jobspec"]["attributes"]["system"]
    assert system["job"] == {"name": "j{cc}"}
    assert system["environment"]["FLUX_JOB_CC"] == "{cc}"
    assert capsys.readouterr().out == ""


def test_bcc_leaves_the_environment_alone(
    ingest: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "--bcc=0-2", "x"]) == 0
    (entry,) = entries(ingest)
    assert "FLUX_JOB_CC" not in entry["jobspec"]["attributes"]["system"]["environment"]
    assert capsys.readouterr().out.split() == ["ƒ2UzHM", "ƒ2UzHN", "ƒ2UzHP"]
    assert (entry["count"], entry["params"]) == (3, {"cc": "0-2"})


def test_cc_errors(ingest: FakeBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--cc=1", "--bcc=1", "x"]) == 1
    assert main(["submit", "--cc=x", "x"]) == 1
    assert main(["submit", "--cc=", "x"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "flux-submit: ERROR: specify only one of --cc or --bcc"
    assert errors[1].startswith("flux-submit: ERROR: --cc: ")
    assert "empty" in errors[2]
    assert ingest.requests == []


def test_dry_run_prints_each_member(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--dry-run", "--cc=1,3", "echo", "{cc}"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["tasks"][0]["command"] for line in lines] == [["echo", "1"], ["echo", "3"]]


def bulk(*words: str) -> int:
    return main(["bulksubmit", "--quiet", *words])


def test_bulksubmit_combines_and_links_inputs(ingest: FakeBroker) -> None:
    assert bulk("echo", "{1}", "{0}", ":::", "1", "2", ":::", "3", "4") == 0
    (entry,) = entries(ingest)
    assert entry["params"]["rows"] == [["1", "3"], ["1", "4"], ["2", "3"], ["2", "4"]]
    assert commands(entry) == ["echo", "{1}", "{0}"]
    assert bulk("echo", "{0}", "{1}", ":::", "1", "2", "3", ":::+", "a", "b") == 0
    assert entries(ingest)[0]["params"]["rows"] == [["1", "a"], ["2", "b"], ["3", "a"]]


def test_bulksubmit_reads_files_and_stdin(
    ingest: FakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text("a b\n\nc\n")
    assert bulk("echo", "{}", "::::", f"{tmp_path}/in") == 0
    assert entries(ingest)[0]["params"]["rows"] == [["a b"], ["c"]]
    assert bulk("--sep=none", "echo", "::::", f"{tmp_path}/in") == 0
    assert entries(ingest)[0]["params"]["rows"] == [["a"], ["b"], ["c"]]
    monkeypatch.setattr("sys.stdin", io.StringIO("x\ny\n"))
    assert bulk("echo", "{./%}") == 0
    assert entries(ingest)[0]["params"]["rows"] == [["x"], ["y"]]
    assert commands(entries(ingest)[0]) == ["echo", "{0./%}"]


def test_members_that_ask_for_different_things_are_entries_of_their_own(
    ingest: FakeBroker,
) -> None:
    assert bulk("-n", "{0}", "echo", "{1}", "{seq}", ":::", "1", "2", ":::", "a", "b") == 0
    one, two = entries(ingest)
    assert [e["jobspec"]["resources"][0]["count"] for e in (one, two)] == [1, 2]
    assert [e["count"] for e in (one, two)] == [2, 2]
    # {seq} counts over the whole submission, so it has become an input.
    assert commands(two) == ["echo", "{1}", "{2}"]
    assert [row[2] for row in two["params"]["rows"]] == ["2", "3"]


def test_defined_methods_are_inputs(ingest: FakeBroker) -> None:
    assert bulk("--define=pow=2**int(x)", "-n", "{.pow}", "echo", "{.pow}", ":::", "0", "3") == 0
    one, two = entries(ingest)
    assert [e["jobspec"]["resources"][0]["count"] for e in (one, two)] == [1, 8]
    assert two["params"]["rows"][0][:2] == ["3", "8"]
    assert commands(two) == ["echo", "{1}"]
    assert bulk("--define=two=x.split(',')", "echo", "{.two}", ":::", "a,b", "c") == 0
    assert [commands(entry) for entry in entries(ingest)] == [["echo", "a", "b"], ["echo", "c"]]


def test_bulksubmit_with_copies(ingest: FakeBroker) -> None:
    assert bulk("--cc=0-{}", "echo", "{}", "{cc}", ":::", "1", "2") == 0
    one, two = entries(ingest)
    assert [e["params"] for e in (one, two)] == [{"cc": "0-1"}, {"cc": "0-2"}]
    assert commands(two) == ["echo", "2", "{cc}"]


def test_bulksubmit_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["bulksubmit", "--dry-run", "-n", "{1}", "echo", "{0}", ":::", "a", ":::", "2", "3"])
        == 0
    )
    assert capsys.readouterr().out == (
        "bulksubmit: submit -n2 echo a\nbulksubmit: submit -n3 echo a\n"
    )
    assert main(["bulksubmit", "--dry-run", ":::", "1", "2"]) == 0
    assert capsys.readouterr().out == "bulksubmit: submit 1\nbulksubmit: submit 2\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["echo", "{1}", ":::", "a"], "there is no input 1"),
        (["echo", "{.nosuch}", ":::", "a"], "unknown method .nosuch"),
        (["--define=x", "echo", ":::", "a"], "--define: invalid value 'x'"),
        (["--define=x=(", "echo", ":::", "a"], "--define: x:"),
        (["--define=x=1/0", "echo", "{.x}", ":::", "a"], "ZeroDivisionError"),
        (["echo", "::::", "/nosuch"], "/nosuch: No such file"),
        (["echo", "::::", "a", "b"], "expected one file name"),
        (["echo", ":::+", "a"], ":::+ needs inputs"),
        (["echo", "::::", "/dev/null"], "no jobs provided"),
        (["--urgency={}", "echo", ":::", "1"], "--urgency: tags are not supported"),
    ],
)
def test_bulksubmit_errors(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bulksubmit", *words]) == 1
    assert text in capsys.readouterr().err


def test_tags_in_the_inherited_environment_are_not_ours(
    ingest: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATTERN", "find {} -name {cc}")
    monkeypatch.setenv("FUNC", "() { echo ${HOME}; }")
    assert main(["submit", "--quiet", "--cc=1-2", "x", "{cc}"]) == 0
    for entry, cc in zip(entries(ingest), "12", strict=True):
        assert "params" not in entry
        system = entry["jobspec"]["attributes"]["system"]
        assert system["environment"]["PATTERN"] == "find {} -name {cc}"
        assert system["environment"]["FLUX_JOB_CC"] == cc
        assert commands(entry) == ["x", cc]


def test_the_tables_of_the_three_commands_agree() -> None:
    shared = {option.dest for option in run.COMMAND.options} - {"wait_event"}
    assert shared <= {option.dest for option in submit.COMMAND.options}
    assert {option.dest for option in submit.COMMAND.options} <= {
        option.dest for option in bulksubmit.COMMAND.options
    }
