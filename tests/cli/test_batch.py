"""``batch``: scripts, directives and options, and the jobspec that they add up to."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.cli.main import main
from tests.client.fakebroker import FakeBroker

PLAIN = ("--env=-*", "--rlimit=-*")
JOB = 1 << 24
HELLO = "#!/bin/sh\nhostname\n"


@pytest.fixture
def dry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """``batch --dry-run WORDS``, in a directory of its own: the jobspec."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))

    def run(*words: str) -> dict[str, Any]:
        status = main(["batch", "--dry-run", *PLAIN, *words])
        printed = capsys.readouterr()
        assert (status, printed.err) == (0, "")
        found: dict[str, Any] = json.loads(printed.out)
        return found

    return run


@pytest.fixture
def refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., str]:
    """``batch WORDS`` with an instance that is not there: what it says on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLUX_URI", raising=False)

    def run(*words: str, status: int = 1) -> str:
        assert main(["batch", *words]) == status
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    return run


def script(text: str, name: str = "job.sh") -> str:
    Path(name).write_text(text)
    return name


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def command(spec: dict[str, Any]) -> list[str]:
    found: list[str] = spec["tasks"][0]["command"]
    return found


def system(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["attributes"]["system"]
    return found


def conf(spec: dict[str, Any]) -> Any:
    return system(spec)["files"]["conf.json"]["data"]


# -- jobspecs --------------------------------------------------------------------------------------


def test_the_jobspec_that_flux_prints(dry: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    # As "flux batch --dry-run -N2 --wrap sleep 1" prints it, but for the program's name, options
    # of Flux's shell that ours has not, and the word that Flux repeats as the script's argument.
    assert dry("-N2", "--wrap", "sleep", "1") == {
        "resources": [
            {
                "type": "node",
                "count": 2,
                "exclusive": True,
                "with": [
                    {
                        "type": "slot",
                        "count": 1,
                        "with": [{"type": "core", "count": 1}],
                        "label": "task",
                    }
                ],
            }
        ],
        "tasks": [
            {
                "command": ["flux-mpi", "broker", "{{tmpdir}}/script"],
                "slot": "task",
                "count": {"per_slot": 1},
            }
        ],
        "attributes": {
            "system": {
                "duration": 0,
                "environment": {},
                "cwd": str(tmp_path),
                "job": {"name": "sleep"},
                "shell": {
                    "options": {
                        "output": {"stdout": {"type": "file", "path": "flux-{{id}}.out"}},
                        "per-resource": {"type": "node", "count": 1},
                    }
                },
                "files": {
                    "script": {
                        "mode": 33216,
                        "data": "#!/bin/sh\nsleep 1\n",
                        "encoding": "utf-8",
                    }
                },
            }
        },
        "version": 1,
    }


def test_a_script_and_its_arguments(dry: Callable[..., dict[str, Any]]) -> None:
    spec = dry("-n4", "-c2", "-g1", script(HELLO), "-n", "--flag", "x y")
    assert command(spec) == ["flux-mpi", "broker", "{{tmpdir}}/script", "-n", "--flag", "x y"]
    assert system(spec)["files"]["script"]["data"] == HELLO
    assert system(spec)["job"] == {"name": "job.sh"}
    assert spec["resources"] == [
        {
            "type": "slot",
            "count": 4,
            "with": [{"type": "core", "count": 2}, {"type": "gpu", "count": 1}],
            "label": "task",
        }
    ]


def test_resources(dry: Callable[..., dict[str, Any]]) -> None:
    name = script(HELLO)
    assert dry(name)["resources"][0]["count"] == 1
    (node,) = dry("-N2", "-n4", name)["resources"]
    assert (node["count"], node.get("exclusive"), node["with"][0]["count"]) == (2, None, 2)
    (node,) = dry("-N2", "-n2", "-x", name)["resources"]
    assert node["exclusive"] is True
    assert dry("-N2", "-n3", name)["tasks"][0]["count"] == {"total": 3}


def test_a_script_on_standard_input(
    dry: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"#!/bin/sh\n# flux: -n3\nhostname\n")
    spec = dry()
    assert system(spec)["job"] == {"name": "batch"}
    assert command(spec) == ["flux-mpi", "broker", "{{tmpdir}}/script"]
    assert spec["resources"][0]["count"] == 3


def test_wrapping(dry: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dry("--wrap", "hostname;", "echo", "$HOME", "# flux: -n8")
    assert system(spec)["files"]["script"]["data"] == (
        "#!/bin/sh\nhostname; echo $HOME # flux: -n8\n"
    )
    assert spec["resources"][0]["count"] == 1
    stdin(monkeypatch, b"# flux: -n2\nhostname\n")
    spec = dry("--wrap")
    assert system(spec)["files"]["script"]["data"] == "#!/bin/sh\n# flux: -n2\nhostname\n"
    assert spec["resources"][0]["count"] == 2


def test_where_output_goes(dry: Callable[..., dict[str, Any]]) -> None:
    name = script(HELLO)

    def output(*words: str) -> Any:
        return system(dry(*words, name))["shell"]["options"].get("output")

    assert output() == {"stdout": {"type": "file", "path": "flux-{{id}}.out"}}
    assert output("--output=o")["stdout"]["path"] == "o"
    assert output("--error=e") == {
        "stdout": {"type": "file", "path": "flux-{{id}}.out"},
        "stderr": {"type": "file", "path": "e"},
    }
    assert output("--output=none") is None
    assert output("--output=kvs", "--error=e") == {"stderr": {"type": "file", "path": "e"}}
    assert "input" not in system(dry(name))["shell"]["options"]
    spec = dry("--input=in", name)
    assert system(spec)["shell"]["options"]["input"]["stdin"] == {"type": "file", "path": "in"}


def test_options_shared_with_submit(dry: Callable[..., dict[str, Any]]) -> None:
    found = dry(
        "-t1h", "--job-name=n", "--queue=q", "--bank=b", "--cwd=/w", "--setattr=user.x=1",
        "-o", "verbose=2", "--env=A=1", "--dependency=afterok:f1", "--requires=rank:0",
        "--signal=USR2@2m", script(HELLO),
    )  # fmt: skip
    of_system = system(found)
    assert of_system["duration"] == 3600.0
    assert of_system["job"] == {"name": "n"}
    assert (of_system["queue"], of_system["bank"], of_system["cwd"]) == ("q", "b", "/w")
    assert of_system["environment"] == {"A": "1"}
    assert found["attributes"]["user"] == {"x": 1}
    assert of_system["shell"]["options"]["verbose"] == 2
    assert of_system["shell"]["options"]["signal"] == {"signum": 12, "timeleft": 120.0}
    assert of_system["dependencies"] == [{"scheme": "afterok", "value": "f1"}]
    assert of_system["constraints"] == {"ranks": ["0"]}


def test_brokers_options_and_configuration(dry: Callable[..., dict[str, Any]]) -> None:
    Path("c.toml").write_text("[sched]\nqueue-policy = 'easy'\n[tbon]\nfanout = 2\n")
    spec = dry(
        "--broker-opts=-Sa=1,-v", "--conf=c.toml", "--conf=tbon.fanout=3", "--broker-opts=-Sb=2",
        script(HELLO),
    )  # fmt: skip
    assert command(spec) == [
        "flux-mpi", "broker", "-Sa=1", "-v", "-Sb=2", "-c{{tmpdir}}/conf.json",
        "{{tmpdir}}/script",
    ]  # fmt: skip
    assert system(spec)["files"]["conf.json"] == {
        "mode": 33152,
        "data": {"sched": {"queue-policy": "easy"}, "tbon": {"fanout": 3}},
    }


def test_added_files(dry: Callable[..., dict[str, Any]]) -> None:
    Path("in.txt").write_text("x\n")
    files = system(dry("--add-file=in.txt", "--add-file=y:600=a\nb", script(HELLO)))["files"]
    assert set(files) == {"script", "in.txt", "y"}
    assert (files["in.txt"]["data"], files["y"]["data"]) == ("x\n", "a\nb")


def test_a_script_from_dos(dry: Callable[..., dict[str, Any]]) -> None:
    Path("dos.sh").write_bytes(b"#!/bin/sh\r\n# flux: -n2\r\nhostname\r\n")
    spec = dry("dos.sh")
    assert system(spec)["files"]["script"]["data"] == "#!/bin/sh\n# flux: -n2\nhostname\n"
    assert spec["resources"][0]["count"] == 2


def test_a_script_at_the_limit(dry: Callable[..., dict[str, Any]]) -> None:
    text = HELLO + "#" * ((8 << 20) - len(HELLO))
    assert system(dry(script(text)))["files"]["script"]["data"] == text


# -- directives ------------------------------------------------------------------------------------


def test_directives_give_options(dry: Callable[..., dict[str, Any]]) -> None:
    spec = dry(
        script(
            "#!/bin/sh\n"
            "# flux: -N2 -n4    # four slots\n"
            "# flux: --job-name='my job' --env=A=1\n"
            "# flux: # --queue=x\n"
            "# flux: --output=job.out\n"
            "hostname\n"
        )
    )
    assert spec["resources"][0]["count"] == 2
    of_system = system(spec)
    assert of_system["job"] == {"name": "my job"}
    assert "queue" not in of_system
    assert of_system["shell"]["options"]["output"]["stdout"]["path"] == "job.out"


def test_the_command_line_wins_over_directives(dry: Callable[..., dict[str, Any]]) -> None:
    name = script(
        "#!/bin/sh\n# flux: -n4 -c3 --job-name=a --conf=x.y=1 --conf=x.z=2\n"
        "# flux: --env=A=1 --env=B=1 --setattr=user.k=1\n"
    )
    spec = dry("--job-name=b", "-n2", "--conf=x.y=3", "--env=B=2", "--setattr=user.k=2", name)
    assert spec["resources"][0]["count"] == 2
    assert spec["resources"][0]["with"][0]["count"] == 3
    assert system(spec)["job"] == {"name": "b"}
    assert conf(spec) == {"x": {"y": 3, "z": 2}}
    assert spec["attributes"]["user"] == {"k": 2}
    # Rules apply in their order, those of the command line last.
    assert system(spec)["environment"]["B"] == "2"


def test_later_directives_win_over_earlier_ones(dry: Callable[..., dict[str, Any]]) -> None:
    spec = dry(script("#!/bin/sh\n# flux: -n4\n# flux: -n5 --env-remove=X\n# flux: --env=Y=1\n"))
    assert spec["resources"][0]["count"] == 5


def test_configuration_of_several_lines(dry: Callable[..., dict[str, Any]]) -> None:
    spec = dry(
        script(
            '#!/bin/sh\n# flux: --conf="""\n# flux: [resource]\n# flux: exclude = "0"\n'
            '# flux: """\n# flux: --conf=\'\'\'\n# flux: {"a":\n# flux:   {"b": 1}}\n'
            "# flux: '''\n# flux: --conf=a.c=2\n"
        )
    )
    assert conf(spec) == {"resource": {"exclude": "0"}, "a": {"b": 1, "c": 2}}


def test_directives_in_a_docstring(dry: Callable[..., dict[str, Any]]) -> None:
    spec = dry(script('#!/usr/bin/env python3\n"""\nflux: -n3\n"""\nprint()\n', "x.py"))
    assert spec["resources"][0]["count"] == 3


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("# flux: -n4\n# flux: --nosuch=1\n", "job.sh:3: unrecognized option --nosuch"),
        ("\n# flux: -n\n", "job.sh:3: option --nslots needs a value"),
        ("# flux: --quiet=3\n", "job.sh:2: option --quiet takes no value"),
        ("# flux: -n4 hostname\n", "job.sh:2: unexpected word 'hostname': expected options only"),
        ("# flux: hostname\n", "job.sh:2: unknown directive 'hostname'"),
        ("# flux: --job-name='x\n", "job.sh:2: no closing quotation"),
        ("# flux: -n1\n## flux: -n2\n", "job.sh:3: sentinel changed"),
        ("# flux: -n1\necho\n# flux: -n2\n", "job.sh:4: orphan"),
        ('# flux: --conf="""\n# flux: a = 1\necho\n', "job.sh:4: expected '# flux:' inside"),
        ('# flux: --conf="""\n# flux: a = 1\n', "job.sh:2: unterminated triple quote"),
        ('#\n# flux: --conf="""\n# flux: a = = 1\n# flux: """\n', "job.sh:3: --conf: not TOML"),
        ("# flux: --help\n", "job.sh:2: --help makes no sense in a script"),
        ("# flux: -n1 --wrap\n", "job.sh:2: --wrap makes no sense in a script"),
        # Values are read when all options are known; the line is named all the same.
        ("# flux: -n0\n", "job.sh:2: --nslots: 0 is not allowed: must be at least 1"),
        ("#\n# flux: -N0\n", "job.sh:3: --nodes: 0 is not allowed: must be at least 1"),
        ("# flux: -N two\n", "job.sh:2: --nodes: invalid int value 'two'"),
        ("# flux: -c0\n", "job.sh:2: --cores-per-slot: 0 is not allowed"),
        ("# flux: -t 1x\n", "job.sh:2: --time-limit: invalid Flux standard duration '1x'"),
        ("# flux: --urgency=77\n", "job.sh:2: --urgency: 77 is not allowed"),
        ("# flux: --flags=x\n", "job.sh:2: --flags: unknown flag 'x'"),
        ("# flux: -x\n", "job.sh:2: --exclusive can only be used with --nodes"),
        ("# flux: --env=A=$NOSUCHVAR\n", "job.sh:2: --env: variable 'NOSUCHVAR' is not set"),
        ("# flux: --requires=a|\n", "job.sh:2: --requires:"),
        ("# flux: --broker-opts=x\n", "job.sh:2: --broker-opts: 'x' is no option"),
        ("# flux: --conf=nosuch\n", "job.sh:2: --conf: 'nosuch' is neither"),
        ("# flux: --add-file=/no/such\n", "job.sh:2: --add-file: /no/such: No such file"),
    ],
)
def test_errors_name_file_and_line(refused: Callable[..., str], lines: str, text: str) -> None:
    found = refused(script(f"#!/bin/sh\n{lines}"))
    assert found.startswith(f"flux-batch: ERROR: {text}")
    assert found.count("\n") == 1


def test_lines_of_standard_input_are_the_users(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"#!/bin/sh\n# flux: -q\n")
    assert refused().startswith("flux-batch: ERROR: stdin:2: option --queue needs a value")
    stdin(monkeypatch, b"# flux: -n0\n")
    assert refused("--wrap").startswith("flux-batch: ERROR: stdin:1: --nslots: 0")
    stdin(monkeypatch, b"#\n# flux: '\n")
    assert refused("--wrap").startswith("flux-batch: ERROR: stdin:2: no closing quotation")


def test_what_the_command_line_says_is_not_a_directives_fault(refused: Callable[..., str]) -> None:
    name = script("#!/bin/sh\n# flux: -n4 --env=A=1\n")
    assert refused("-n0", name).startswith("flux-batch: ERROR: --nslots: 0 is not allowed")
    assert refused("--env=A=$NOSUCHVAR", name).startswith("flux-batch: ERROR: --env: variable")


# -- bad scripts and options -----------------------------------------------------------------------


def test_scripts_that_are_none(refused: Callable[..., str]) -> None:
    assert refused(script("hostname\n")).startswith(
        "flux-batch: ERROR: job.sh: batch script does not appear to start with '#!'"
    )
    Path("empty").touch()
    assert "empty: batch script does not appear to start with '#!'" in refused("empty")
    Path("binary").write_bytes(b"\x7fELF\x02\x01\0\0")
    assert "binary: does not appear to be a script: it contains NUL bytes" in refused("binary")
    Path("latin").write_bytes("#!/bin/sh\n# é".encode("latin-1"))
    assert "latin: does not appear to be a script: byte 12 (0xe9) is no UTF-8" in refused("latin")


def test_scripts_that_cannot_be_read(refused: Callable[..., str]) -> None:
    assert refused("nosuch.sh") == "flux-batch: ERROR: nosuch.sh: No such file or directory\n"
    Path("folder").mkdir()
    assert refused("folder") == "flux-batch: ERROR: folder: Is a directory\n"
    Path("loop").symlink_to("loop")
    assert "loop: Too many levels of symbolic links" in refused("loop")


def test_a_script_that_is_too_large(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("huge.sh", "wb") as file:
        file.write(b"#!/bin/sh\n")
        file.truncate(50 << 20)
    assert refused("huge.sh") == (
        "flux-batch: ERROR: huge.sh: 50.0 MiB is too large: at most 8 MiB fit in a jobspec; keep "
        "data in files that the job opens\n"
    )
    stdin(monkeypatch, b"#!/bin/sh\n" + b"#" * (8 << 20))
    assert "stdin: more than the 8 MiB that fit in a jobspec" in refused()
    # A device has no size and no end.
    assert "/dev/zero: 8.0 MiB is too large" in refused("/dev/zero")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-n0"], "--nslots: 0 is not allowed: must be at least 1"),
        (["-n-1"], "--nslots: -1 is not allowed: must be at least 1"),
        (["-nx"], "--nslots: invalid int value 'x': expected a number of at least 1"),
        (["-N0"], "--nodes: 0 is not allowed: must be at least 1"),
        (["-c0"], "--cores-per-slot: 0 is not allowed: must be at least 1"),
        (["-g-1"], "--gpus-per-slot: -1 is not allowed: must be at least 0"),
        (["-N3", "-n2"], "--nodes: 3 is more than the number of slots, 2"),
        (["-x"], "--exclusive can only be used with --nodes"),
        (["--conf=a=1", "--conf=a.b=2"], "--conf: a is both a value and a table"),
        (["--conf=/no/such.toml"], "--conf: /no/such.toml: No such file"),
        (["--add-file=script=x"], "--add-file: the name 'script' is reserved"),
        (["--broker-opts=a,b"], "--broker-opts: 'a' is no option"),
        (["--urgency=x"], "--urgency: invalid value 'x'"),
        (["--flags=x"], "--flags: unknown flag 'x'"),
    ],
)
def test_bad_options(refused: Callable[..., str], words: list[str], text: str) -> None:
    found = refused(*words, script(HELLO))
    assert found.startswith(f"flux-batch: ERROR: {text}")


def test_unknown_options(refused: Callable[..., str]) -> None:
    for word in ("--nosuch", "--ntasks=2", "--taskmap=cyclic", "--cc=1-2"):
        found = refused(word, script(HELLO), status=2)
        assert f"unrecognized option {word.partition('=')[0]}" in found


# -- submission ------------------------------------------------------------------------------------


@pytest.fixture
def ingest(broker: FakeBroker) -> FakeBroker:
    broker.handlers["job-ingest.submit"] = {"arrays": [[JOB, 1]]}
    return broker


def test_submitting_prints_the_id(
    ingest: FakeBroker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    name = script("#!/bin/sh\n# flux: --urgency=20 --flags=debug\n")
    assert main(["batch", "--flags=waitable", name]) == 0
    assert capsys.readouterr() == ("ƒ2UzHM\n", "")
    request = ingest.payload("job-ingest.submit")
    assert (request["urgency"], request["flags"]) == (20, 4)
    (entry,) = request["entries"]
    assert set(entry) == {"jobspec"}
    assert command(entry["jobspec"]) == ["flux-mpi", "broker", "{{tmpdir}}/script"]
    assert main(["batch", "--quiet", name]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_large_script_fits_in_a_request(
    ingest: FakeBroker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = HELLO + "#" * ((8 << 20) - len(HELLO))
    assert main(["batch", "--quiet", script(text)]) == 0
    (entry,) = ingest.payload("job-ingest.submit")["entries"]
    assert system(entry["jobspec"])["files"]["script"]["data"] == text


def test_an_instance_that_refuses(
    broker: FakeBroker,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    broker.handlers["job-ingest.submit"] = lambda r: r.error(22, "unsatisfiable request")
    assert main(["batch", script(HELLO)]) == 1
    assert capsys.readouterr() == ("", "flux-batch: ERROR: unsatisfiable request\n")
