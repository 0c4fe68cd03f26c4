"""Commands that look into instances below this one, on a family of fake ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_mpi import __version__
from flux_mpi.cli.main import main
from flux_mpi.formats import fluid

FLUX = [sys.executable, "-m", "flux_mpi"]
HERE = os.uname().nodename
LIMIT_S = 60


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command; returns (status, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def hung(family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more job at the top, whose instance never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        family.job("", "ƒ5", name="hung", annotations={"user": {"uri": f"local://{tmp_path}/s"}})
        monkeypatch.setattr(
            "flux_mpi.client.hierarchy.walk.__kwdefaults__", {"timeout_s": 0.3, "at_once": 64}
        )
        yield


# -- pstree -------------------------------------------------------------------------------------


def test_pstree_goes_down(family: Any, out: Any) -> None:
    assert out("pstree")[1].splitlines() == [
        ".",
        "├── flux",
        "│   ├── flux",
        "│   │   └── 2*[sleep]",
        "│   └── sleep",
        "└── 2*[sleep]",
    ]
    assert out("pstree", "-L1", "-C")[1].splitlines() == [
        ".",
        "├─flux",
        "│ ├─flux",
        "│ └─sleep",
        "└─2*[sleep]",
    ]
    assert out("pstree", "-L", "0", "--ascii", "-X")[1].splitlines() == [
        ".",
        "|-- flux",
        "|-- sleep",
        "`-- sleep",
    ]


def test_pstree_labels(family: Any, out: Any) -> None:
    family.jobs["ƒ2"][1]["state"] = 64
    family.jobs["ƒ2"][1]["result"] = 1
    assert out("pstree", "-a", "-p")[1].splitlines() == [
        ". .",
        "├── ƒ2 flux",
        "│   ├── ƒ2 flux",
        "│   │   └── 2*[sleep:R]",
        "│   └── sleep:CD",
        "└── 2*[sleep:R]",
    ]
    lines = out("pstree", "--skip-root=yes", "--parent-label", "{name} {instance.stats}")[1]
    assert lines.splitlines()[:2] == ["flux PD:0 R:1 CD:1 F:0", "└── flux PD:0 R:2 CD:0 F:0"]
    lines = out("pstree", "-o", "{id.f58}", "ƒ2/ƒ2")[1]
    assert lines.splitlines() == ["ƒ2", "├── ƒ3", "└── ƒ4"]


def test_pstree_with_details(family: Any, out: Any) -> None:
    lines = out("pstree", "-x")[1].splitlines()
    assert lines[0].split() == "JOBID USER ST NTASKS NNODES RUNTIME".split()  # noqa: SIM905
    shown = [line.split()[0] + " " + line[48:].strip() for line in lines[1:]]
    assert shown == [
        "ƒ2 flux",
        "ƒ2 ├── flux",
        "ƒ3 │   ├── sleep",
        "ƒ4 │   └── sleep",
        "ƒ3 └── sleep",
        "ƒ3 sleep",
        "ƒ4 sleep",
    ]
    lines = out("pstree", "-nd", "progress", "--skip-root=no")[1].splitlines()
    assert lines[0].split()[:5] == [".", "4", "3", "0%", "12.5%"]
    assert [line.split()[2:5] for line in lines[1:3]] == [["2", "0%", "12.5%"]] * 2
    assert "invalid value" in out("pstree", "-d", "nonsense")[2]
    assert "Error in user format" in out("pstree", "-o", "{nonsense}")[2]
    assert out("pstree", "--ascii", "-C")[0] == 1


def test_pstree_names_its_own_job(family: Any, out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_URI", family["ƒ2"].uri)
    assert out("pstree", "-p")[1].splitlines()[:2] == ["ƒ2 flux", "├── ƒ2 flux"]
    # The one around it has ended: it is shown all the same.
    family["ƒ2"].attrs["parent-uri"] = "local:///no/such"
    assert out("pstree")[1].splitlines()[:2] == [".", "├── flux"]


def test_pstree_shows_what_does_not_answer(family: Any, out: Any, hung: None) -> None:
    os.unlink(family["ƒ2/ƒ2"].path)
    status, text, err = out("pstree", "-l")
    assert (status, err) == (0, "")
    lines = text.splitlines()
    assert lines[2].startswith(f"│   ├── flux [cannot connect to ssh://{HERE}/")
    assert "└── hung [no answer within 0.3 s]" in lines
    assert len(lines) == 6


# -- jobs ---------------------------------------------------------------------------------------


def test_jobs_of_the_whole_hierarchy(family: Any, out: Any) -> None:
    assert out("jobs", "-R", "-o", "{id.f58:>6} {name}")[1].splitlines() == [
        " JOBID NAME",
        "    ƒ2 flux",
        "    ƒ3 sleep",
        "    ƒ4 sleep",
        "",
        "ƒ2:",
        "    ƒ2 flux",
        "    ƒ3 sleep",
        "",
        "ƒ2/ƒ2:",
        "    ƒ3 sleep",
        "    ƒ4 sleep",
    ]
    assert len(out("jobs", "-R", "-L1", "-no", "{name}")[1].splitlines()) == 3 + 4
    assert len(out("jobs", "-R", "-L0", "-no", "{name}")[1].splitlines()) == 3
    lines = out("jobs", "-Rno", "{name}", "--stats")[1].splitlines()
    assert lines[5:7] == ["ƒ2:", "2 running, 0 completed, 0 failed, 0 pending"]
    assert out("jobs", "-R", "-no", "{id.f58}", "ƒ2")[1].splitlines()[:4] == [
        "ƒ2",
        "",
        "ƒ2:",
        "ƒ2",
    ]


def test_columns_are_the_same_in_every_part(family: Any, out: Any) -> None:
    family.jobs["ƒ2/ƒ2"][0]["queue"] = "batch"
    text = out("jobs", "-R", "-o", "?:{queue:<8.8} +:{name}.")[1].splitlines()
    assert text[0] == "QUEUE    NAME ."
    assert text[1] == "         flux ."
    assert "batch    sleep." in text


def test_jobs_as_json_are_nested(family: Any, out: Any, hung: None) -> None:
    found = json.loads(out("jobs", "-R", "--json")[1])["jobs"]
    assert [job["jobid"] for job in found] == ["ƒ2", "ƒ3", "ƒ4", "ƒ5"]
    assert [job["jobid"] for job in found[0]["jobs"]] == ["ƒ2", "ƒ3"]
    assert [job["name"] for job in found[0]["jobs"][0]["jobs"]] == ["sleep", "sleep"]
    assert found[0]["uri"] == f"ssh://{HERE}{family['ƒ2'].path}"
    assert "user" not in found[0]["annotations"]
    assert "jobs" not in found[1]
    assert found[3]["error"] == "no answer within 0.3 s"


def test_jobs_lists_the_rest_when_one_does_not_answer(family: Any, out: Any, hung: None) -> None:
    status, text, _ = out("jobs", "-Rno", "{name}")
    assert status == 0
    lines = text.splitlines()
    assert lines[-2:] == ["ƒ5:", "cannot be listed: no answer within 0.3 s"]
    assert "ƒ2/ƒ2:" in lines


def test_paths_to_jobs(family: Any, out: Any) -> None:
    show = ("jobs", "-no", "{id.f58} {name}")
    assert out(*show, "ƒ2/ƒ3")[1] == "ƒ3 sleep\n"
    assert out(*show, "ƒ2/ƒ2/ƒ4", "ƒ3", "ƒ2/ƒ2/ƒ3")[1].splitlines() == [
        "ƒ3 sleep",
        "ƒ4 sleep",
        "ƒ3 sleep",
    ]
    assert out(*show, "ƒ2/")[1].splitlines() == ["ƒ2 flux", "ƒ3 sleep"]
    status, text, err = out(*show, "ƒ2/ƒ99", "ƒ3")
    assert (status, text, err) == (1, "ƒ3 sleep\n", "JobID ƒ2/ƒ99 unknown\n")
    status, _, err = out(*show, "ƒ3/ƒ4")
    assert (status, "job ƒ3 has told no URI" in err) == (1, True)
    assert json.loads(out("jobs", "--json", "ƒ2/ƒ3")[1])["name"] == "sleep"


def test_fields_of_instances(family: Any, out: Any, hung: None) -> None:
    text = out("jobs", "-o", "{id.f58} {instance.utilization!P} {instance.progress!P} {uri.local}")
    assert text[1].splitlines() == [
        "JOBID CORE% PROG URI",
        f"ƒ2 12.5% 0% {family['ƒ2'].uri}",
        "ƒ3   ",
        "ƒ4   ",
        f"ƒ5   {family.jobs[''][3]['annotations']['user']['uri']}",
    ]
    assert "instance" not in family[""].payload("job-list.list")["attrs"]
    assert out("pgrep", "-no", "{name} {instance.stats.total}", "flux")[1] == "flux 2\n"
    assert "Unknown format field: instance.x" in out("jobs", "-o", "{instance.x}")[2]


def test_memos_in_formats(family: Any, out: Any) -> None:
    family.jobs[""][1]["annotations"] = {"user": {"step": 7, "deep": {"er": "x"}}}
    shown = out("jobs", "-no", "{user.step}|{user.deep.er}|{annotations.user.step}|{user}", "ƒ3")
    assert shown[1] == '7|x|7|{"step": 7, "deep": {"er": "x"}}\n'


# -- uri ----------------------------------------------------------------------------------------


def test_uri(family: Any, out: Any) -> None:
    child = family["ƒ2"]
    assert out("uri", "ƒ2") == (0, f"ssh://{HERE}{child.path}\n", "")
    assert out("uri", "--local", "ƒ2")[1] == f"{child.uri}\n"
    assert out("uri", "--remote", "/")[1] == f"ssh://{HERE}{family[''].path}\n"
    assert out("uri", "--local", "--remote", "ƒ2")[0] == 1
    status, text, err = out("uri", "ƒ3")
    assert (status, text) == (1, "")
    assert err.startswith("flux-uri: ERROR: job ƒ3 has told no URI")
    assert out("uri")[0] == 2
    assert out("uri", "a", "b")[0] == 2


# -- proxy --------------------------------------------------------------------------------------


@pytest.fixture
def proxied(family: Any) -> Any:
    for broker in family.brokers.values():
        broker.handlers["broker.info"] = {"version": __version__}
        broker.handlers["event.subscribe"] = lambda request: request.respond({"topic": ""})
    return family


def proxy(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FLUX, "proxy", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
        **options,
    )


def test_proxy_runs_a_command_in_another_instance(
    proxied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_JOB_ID", "ƒabc")
    monkeypatch.setenv("FLUX_KVS_NAMESPACE", "job-1")
    monkeypatch.setenv("FLUX_PROXY_REMOTE", "somewhere")
    done = proxy("ƒ2/ƒ2", "sh", "-c", "env | grep ^FLUX_ | sort; exit 7")
    assert done.returncode == 7
    assert done.stdout.splitlines() == [
        "FLUX_ENCLOSING_ID=ƒ2",
        f"FLUX_URI={proxied['ƒ2/ƒ2'].uri}",
    ]
    assert proxy("/", "sh", "-c", "echo $FLUX_URI").stdout == f"{proxied[''].uri}\n"
    assert proxy("ƒ2", "sh", "-c", "kill -9 $$").returncode == 137
    assert proxy("ƒ2", "/no/such/command").returncode == 127
    assert proxy("ƒ2", "/etc/passwd").returncode == 126


def test_proxy_starts_a_shell_by_default(proxied: Any, tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\necho $FLUX_URI\n")
    shell.chmod(0o700)
    done = proxy("ƒ2", env={**os.environ, "SHELL": str(shell)})
    assert (done.returncode, done.stdout) == (0, f"{proxied['ƒ2'].uri}\n")


def test_proxy_refuses_other_hosts_and_other_versions(proxied: Any) -> None:
    proxied.job("", "ƒ7", annotations={"user": {"uri": "ssh://far-away/x/local-0"}})
    done = proxy("ƒ7", "true")
    assert done.returncode == 1
    assert "ssh far-away FLUX_URI=local:///x/local-0" in done.stderr
    proxied["ƒ2"].handlers["broker.info"] = {"version": "99"}
    done = proxy("ƒ2", "true")
    assert (done.returncode, "flux-mpi 99" in done.stderr) == (1, True)
    done = proxy("--force", "ƒ2", "true")
    assert (done.returncode, "WARNING" in done.stderr) == (0, True)
    assert proxy().returncode == 2
    assert "not a valid job id" in proxy("true!").stderr


@pytest.mark.parametrize(("option", "status"), [([], 129), (["--nohup"], 0)])
def test_proxy_hangs_up_when_the_instance_ends(
    proxied: Any, option: list[str], status: int
) -> None:
    script = "echo up; read line; exit 0"
    with subprocess.Popen(
        [*FLUX, "proxy", *option, "ƒ2", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "up\n"
        proxied["ƒ2"].drop()
        assert "lost the connection" in process.stderr.readline()
        if option:
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(LIMIT_S) == status


def test_proxy_connects_again(proxied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [*FLUX, "proxy", "--reconnect", "ƒ2", "sh", "-c", "echo up; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        proxied["ƒ2"].drop()
        assert "lost the connection" in process.stderr.readline()
        assert process.stderr.readline() == f"flux-proxy: reconnected to {proxied['ƒ2'].uri}\n"
        process.communicate("\n", timeout=LIMIT_S)
        assert process.returncode == 0


def test_proxy_passes_signals_on(proxied: Any) -> None:
    script = "trap 'echo got it; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*FLUX, "proxy", "ƒ2", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.stdout.read() == "got it\n"
        assert process.wait(LIMIT_S) == 3


# -- top ----------------------------------------------------------------------------------------


@pytest.fixture
def watched(family: Any) -> Any:
    for broker in family.brokers.values():
        broker.handlers["resource.journal"] = lambda request: request.respond({"events": []})
        broker.handlers["job-manager.events-journal"] = lambda request: None
        broker.handlers["job-manager.queue-list"] = {"queues": []}
    return family


def test_top_prints_one_picture_when_this_is_no_terminal(watched: Any, out: Any) -> None:
    watched.jobs[""][1]["t_run"] = time.time() - 90
    status, text, err = out("top")
    assert (status, err) == (0, "")
    lines = text.splitlines()
    assert lines[0].split() == [".", "∞"]
    assert lines[1].split() == ["nodes", "[|||||||", "|||||||1/4]", "0", "pending"]
    assert lines[2].split()[-3:] == ["||||||2/16]", "3", "running"]
    assert lines[5].split()[:2] == ["size:", "4"]
    assert lines[6].split() == "JOBID USER ST NTASKS NNODES RUNTIME NAME".split()  # noqa: SIM905
    assert [line.split()[0] for line in lines[7:]] == ["ƒ3", "ƒ2", "ƒ4"], "newest first"
    assert lines[7].split()[5][:2] == "1."
    assert out("top", "ƒ2/ƒ2")[1].splitlines()[5].split()[2:4] == ["depth:", "2"]


def test_top_of_what_is_not_there(watched: Any, out: Any) -> None:
    assert "job ƒ3 has told no URI" in out("top", "ƒ3")[2]
    assert "unknown queue 'x': expected one of none has a name" in out("top", "-q", "x")[2]
    watched[""].handlers["job-manager.queue-list"] = {"queues": ["batch", "debug"]}
    assert "expected one of batch, debug" in out("top", "-q", "x")[2]
    assert "queue: debug" in out("top", "-q", "debug")[1]
    assert watched[""].payload("job-list.list")["queue"] == "debug"
    watched[""].handlers["job-list.stats"] = lambda request: request.error(1, "not for you")
    assert "not for you" in out("top")[1]


# -- memo ---------------------------------------------------------------------------------------


def test_job_memo(broker: Any, out: Any) -> None:
    broker.handlers["job-manager.memo"] = {}
    words = ("a=1", "b=text", "c.d=[1, 2]", "c.e=null", "f=", "g=x=y", "h=NaN")
    assert out("job", "memo", "ƒ2", *words) == (0, "", "")
    assert broker.payload("job-manager.memo") == {
        "id": fluid.parse("ƒ2"),
        "memo": {
            "a": 1,
            "b": "text",
            "c": {"d": [1, 2], "e": None},
            "f": "",
            "g": "x=y",
            "h": "NaN",
        },
        "volatile": False,
    }
    assert out("job", "memo", "--volatile", "ƒ2", "a=1")[0] == 0
    assert broker.payload("job-manager.memo")["volatile"] is True
    for wrong in ("a", "=1", "a..b=1", ".=1"):
        status, _, err = out("job", "memo", "ƒ2", wrong)
        assert (status, f"expected KEY=VALUE, found {wrong!r}" in err) == (1, True)
    assert out("job", "memo", "ƒ2")[0] == 2
    broker.handlers["job-manager.memo"] = lambda request: request.error(22, "ƒ2: job is inactive")
    assert out("job", "memo", "ƒ2", "a=1") == (1, "", "flux-job: ERROR: ƒ2: job is inactive\n")
