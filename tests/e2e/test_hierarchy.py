"""Instances that are jobs of instances: seen and reached from every level, and gone with their job.

Each inner instance here is a process, or several under ``mpiexec``, of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flux_mpi.client.handle import Handle

if TYPE_CHECKING:
    from tests.e2e.conftest import Instance
else:
    Instance = Any

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Wait = Callable[..., Any]

INNER = ("flux-mpi", "start", "--cores-per-rank=4")
ANSWER_S = 5.0
"""How long one that hangs may delay those that look into a hierarchy."""


def begin(flux: Instance, *command: str, under: str = "", options: tuple[str, ...] = ()) -> str:
    """Submit an inner instance that runs ``command``, into job ``under``: its path, once up."""
    words = ["submit", *options, *INNER, *command]
    outer = ["proxy", under] if under else []
    jobid = flux.out(*outer, *(["flux-mpi"] if under else []), *words)
    path = f"{under}/{jobid}" if under else jobid
    if under:
        up(flux, under, jobid)
    else:
        flux("uri", "--wait", jobid)
    return path


def up(flux: Instance, under: str, jobid: str) -> None:
    flux("proxy", under, "flux-mpi", "uri", "--wait", jobid)


def local(flux: Instance, path: str) -> str:
    return flux.out("uri", "--local", path)


def pids(uri: str) -> tuple[int, int]:
    """Process ids of a broker and of its supervisor."""
    with Handle(uri) as handle:
        broker = int(handle.attr_get("broker.pid"))
    stat = Path(f"/proc/{broker}/stat").read_text()
    return broker, int(stat.rpartition(")")[2].split()[1])


def ended(flux: Instance, jobid: str) -> bool:
    return flux.out("jobs", "-no", "{state}", jobid) == "INACTIVE"


def of(flux: Instance, text: str) -> list[str]:
    """Command lines of processes of this test that contain ``text``."""
    from tests.e2e.conftest import describe, processes

    return [line for line in map(describe, processes(flux.token)) if text in line]


# -- who knows whom -----------------------------------------------------------------------------


def test_an_instance_in_a_job_knows_where_it_is(flux: Instance, tmp_path: Path) -> None:
    script = 'env | grep "^FLUX_" | sort > env; flux-mpi lsattr -v > attrs; exec sleep 300'
    path = begin(flux, "sh", "-c", script)
    uri = local(flux, path)
    jobid = flux.out("job", "id", "--to=f58", path)
    with Handle(uri) as handle:
        attrs = handle.attr_list()
        assert handle.call("broker.info", {})["level"] == 0
    assert attrs["instance-level"] == "1"
    assert (attrs["jobid"], attrs["jobid-path"]) == (jobid, f"/{jobid}")
    assert attrs["parent-uri"] in [flux.uri_of(rank) for rank in range(4)]
    env = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert env == {
        "FLUX_URI": uri,
        "FLUX_ENCLOSING_ID": jobid,
        "FLUX_PARENT_URI": attrs["parent-uri"],
        **({"FLUX_MPI_TEST_TOKEN": flux.token} if "FLUX_MPI_TEST_TOKEN" in env else {}),
    }
    inside = flux.out("proxy", path, "flux-mpi", "run", "sh", "-c", 'env | grep "^FLUX_"')
    task = dict(line.split("=", 1) for line in inside.splitlines())
    assert task["FLUX_ENCLOSING_ID"] == jobid
    assert task["FLUX_PARENT_URI"] == attrs["parent-uri"]
    assert task["FLUX_JOB_ID_PATH"] == f"/{jobid}/{task['FLUX_JOB_ID']}"
    events = [json.loads(line) for line in flux.out("job", "info", path, "eventlog").splitlines()]
    (memo,) = [event for event in events if event["name"] == "memo"]
    assert memo["context"] == {"uri": f"ssh://{os.uname().nodename}{uri.removeprefix('local://')}"}
    shown = flux.out("jobs", "-no", "{uri.local} {user.uri}", jobid)
    assert shown == f"{uri} {memo['context']['uri']}"


def test_three_levels_from_every_level(flux: Instance) -> None:
    one = begin(flux, "sleep", "300", options=("--job-name=one", "-c2"))
    two = begin(flux, "sleep", "300", under=one, options=("--job-name=two",))
    flux("proxy", two, "flux-mpi", "submit", "--quiet", "--cc=1-2", "sleep", "300")
    flux("proxy", one, "flux-mpi", "submit", "--quiet", "--job-name=leaf", "sleep", "300")
    root = flux.out("uri", "/")
    tree = flux.out("pstree").splitlines()
    assert tree == [
        ".",
        "└── one",
        "    ├── leaf",
        "    └── two",
        "        └── 2*[sleep]",
    ]
    ids = flux.out("jobs", "-Rno", "{name}").splitlines()
    assert ids == ["one", "", f"{one}:", "leaf", "two", "", f"{two}:", "sleep", "sleep"]
    uris = {path: local(flux, path) for path in (one, two)}
    assert uris[two] == flux.out("proxy", one, "flux-mpi", "uri", "--local", two.split("/")[1])
    # From a job at the bottom, and from the programs in between.
    for where, up_one in ((two, uris[one]), (one, root)):
        run = ("proxy", where, "flux-mpi", "run")
        assert flux.out(*run, "flux-mpi", "uri", "--local", "/") == root
        assert flux.out(*run, "flux-mpi", "uri", "--local", "..") == up_one
        assert flux.out(*run, "flux-mpi", "uri", "--local", "/" + two) == uris[two]
        seen = flux.out(*run, "flux-mpi", "proxy", "/", "flux-mpi", "pstree").splitlines()
        assert seen[:2] == tree[:2]
        assert tree[-1] in seen
    assert flux.out("proxy", two, "flux-mpi", "pstree").splitlines() == ["two", "└── 2*[sleep]"]
    assert flux.out("jobs", "-no", "{name}", f"{two}/").splitlines() == ["sleep", "sleep"]
    assert flux.out("jobs", "-no", "{name}", two) == "two"
    assert flux.out("jobs", "-no", "{instance.stats.running}", one) == "2"
    assert "depth: 2" in flux.out("top", two)
    # Into a running child from outside.
    done = flux.execute(
        ["sh", "-c", f"FLUX_URI=$(flux-mpi uri --local {two}) flux-mpi run hostname"]
    )
    assert done.stdout.strip()
    # A cancel at the top reaches the bottom.
    began = time.monotonic()
    flux("cancel", one)
    flux("job", "wait-event", one, "clean")
    assert time.monotonic() - began < 10
    assert of(flux, "sleep 300") == []


def test_an_inner_instance_of_several_ranks(
    flux: Instance, wait_until: Wait, on_open_mpi: bool
) -> None:
    words = ("mpiexec", "-n", "2", *INNER, "sleep", "300")
    jobid = flux.out("submit", "--job-name=wide", *words)
    flux("uri", "--wait", jobid)
    proxy = ("proxy", jobid, "flux-mpi")
    assert flux.out(*proxy, "getattr", "size") == "2"
    assert flux.out(*proxy, "run", "-N2", "-n2", "flux-mpi", "getattr", "parent-uri")
    inner = flux.out(*proxy, "submit", *words[:-2], "sleep", "301")
    up(flux, jobid, inner)
    assert flux.out("proxy", f"{jobid}/{inner}", "flux-mpi", "getattr", "jobid-path") == (
        f"/{jobid}/{inner}"
    )
    assert "wide" in flux.out("pstree")
    began = time.monotonic()
    if on_open_mpi:
        # Told to end, its mpiexec kills its ranks a second later, and leaves their segments.
        flux("shutdown", f"{jobid}/{inner}")
        flux("proxy", jobid, "flux-mpi", "job", "wait-event", inner, "clean")
        flux("shutdown", jobid)
    else:
        flux("cancel", jobid)
    flux("job", "wait-event", jobid, "clean")
    assert time.monotonic() - began < 10
    # An mpiexec that is killed may end before its ranks have.
    wait_until(lambda: of(flux, "sleep 30") == [], "nothing of it is left", 15)


def test_instances_in_brokers_and_of_their_own_are_seen_alike(flux: Instance) -> None:
    """Two levels that the brokers host themselves, and a process in the innermost."""
    hosted = ("-o", "per-resource.type=node", "flux-mpi", "broker", "sleep", "300")
    one = flux.out("submit", "--job-name=one", "-n4", *hosted)
    flux("uri", "--wait", one)
    inner = flux.out("proxy", one, "flux-mpi", "submit", "--job-name=two", "-n3", *hosted)
    up(flux, one, inner)
    two = f"{one}/{inner}"
    three = begin(flux, "sleep", "301", under=two, options=("--job-name=three",))
    flux("proxy", three, "flux-mpi", "submit", "--quiet", "sleep", "302")
    assert flux.out("pstree").splitlines() == [
        ".",
        "└── one",
        "    └── two",
        "        └── three",
        "            └── sleep",
    ]
    run = ("proxy", three, "flux-mpi", "run", "flux-mpi")
    assert flux.out(*run, "uri", "/") == flux.out("uri", "/")
    assert flux.out(*run, "uri", "--local", "..") == local(flux, two)
    assert flux.out(*run, "getattr", "jobid-path") == f"/{three}"
    assert flux.out("jobs", "-no", "{instance.resources.all.ncores}", two) == "3"
    flux("cancel", one)
    flux("job", "wait-event", one, "clean")
    assert of(flux, "sleep 30") == []


# -- limits -------------------------------------------------------------------------------------


def expiration(flux: Instance, path: str) -> float:
    with Handle(local(flux, path)) as handle:
        found: float = handle.call("resource.status", {})["expiration"]
        return found


def test_an_instance_ends_with_its_job(flux: Instance) -> None:
    one = begin(flux, "sleep", "300", options=("-t120s",))
    (limit,) = {float(flux.out("jobs", "-no", "{expiration}", one))}
    assert expiration(flux, one) == pytest.approx(limit)
    two = begin(flux, "sleep", "300", under=one)
    short = begin(flux, "sleep", "300", under=one, options=("-t30s",))
    long = begin(flux, "sleep", "300", under=one, options=("-t1h",))
    assert expiration(flux, two) == pytest.approx(limit)
    assert expiration(flux, long) == pytest.approx(limit)
    assert expiration(flux, short) < limit - 30
    left = flux.out("proxy", two, "flux-mpi", "run", "flux-mpi", "job", "timeleft")
    assert 0 < int(left) <= 120


def test_a_time_limit_ends_what_is_below(flux: Instance, tmp_path: Path) -> None:
    script = "trap 'echo orderly > told; exit 0' TERM HUP; sleep 300 & wait"
    jobid = begin(flux, "sh", "-c", script, options=("-t6s", "--job-name=limited"))
    begin(flux, "sleep", "300", under=jobid)
    done = flux("job", "status", jobid, status=None, limit_s=60)
    assert done.returncode == 142
    assert (tmp_path / "told").read_text() == "orderly\n"
    assert of(flux, "sleep 300") == []
    assert flux.out("jobs", "-no", "{result}", jobid) == "TIMEOUT"


def test_a_cancel_ends_an_instance_in_order(
    flux: Instance, tmp_path: Path, wait_until: Wait
) -> None:
    script = "trap 'echo orderly > told; exit 0' TERM HUP; : > told.set; sleep 300 & wait"
    jobid = begin(flux, "sh", "-c", script)
    inner = flux.out("proxy", jobid, "flux-mpi", "submit", "sh", "-c", script.replace("told", "2"))
    flux("proxy", jobid, "flux-mpi", "job", "wait-event", inner, "start")
    for name in ("told.set", "2.set"):
        wait_until((tmp_path / name).exists, "the shells have set their traps")
    flux("cancel", jobid)
    flux("job", "wait-event", jobid, "clean")
    assert (tmp_path / "told").read_text() == "orderly\n"
    assert (tmp_path / "2").read_text() == "orderly\n"
    assert flux("job", "status", jobid, status=None).returncode == 143


def test_what_ignores_every_signal_is_killed_from_the_bottom_up(
    flux: Instance, tmp_path: Path, wait_until: Wait
) -> None:
    stubborn = "trap '' TERM HUP INT; : > set; while :; do sleep 0.1; done; : stubborn"
    one = begin(flux, "sleep", "300")
    two = begin(flux, "sleep", "300", under=one)
    jobid = flux.out("proxy", two, "flux-mpi", "submit", "sh", "-c", stubborn)
    flux("proxy", two, "flux-mpi", "job", "wait-event", jobid, "start")
    wait_until((tmp_path / "set").exists, "it has set its trap")
    assert of(flux, ": stubborn")
    began = time.monotonic()
    flux("cancel", one)
    flux("job", "wait-event", one, "clean")
    assert time.monotonic() - began < 5, "before the outer instance had to kill the inner one"
    assert of(flux, ": stubborn") == []
    assert flux("job", "status", one, status=None).returncode == 143


# -- ends and deaths ----------------------------------------------------------------------------


def test_an_instance_that_has_ended_is_no_longer_there(flux: Instance) -> None:
    jobid = begin(flux, "sh", "-c", "flux-mpi run true; sleep 0.5; exit 5")
    assert flux("job", "status", jobid, status=None).returncode == 5
    assert flux.out("pstree", "-a", jobid) == "flux-mpi:F"
    assert "is not running" in flux("uri", jobid, status=1).stderr
    assert "is not running" in flux("proxy", jobid, "true", status=1).stderr
    assert "is not running" in flux("top", jobid, status=1).stderr
    assert "is not running" in flux("jobs", f"{jobid}/", status=1).stderr
    assert flux.out("jobs", "-R", "-no", "{name}", jobid) == "flux-mpi"
    waited = flux("uri", "--wait", jobid)
    assert waited.stdout.startswith("ssh://"), "its log still tells where it was"


def test_waiting_for_the_uri_of_what_is_no_instance(flux: Instance) -> None:
    jobid = flux.out("submit", "sleep", "1")
    assert "has told no URI" in flux("uri", "--wait", jobid, status=1).stderr
    held = flux.out("submit", "--urgency=hold", "true")
    with flux.popen("uri", "--wait", held) as waiting:
        time.sleep(0.5)
        assert waiting.poll() is None
        flux("cancel", held)
        assert waiting.wait(30) == 1


def test_looking_while_instances_come_and_go(flux: Instance) -> None:
    """Whatever is half up or half down, whoever looks gets a list, and in time."""
    flux("submit", "--quiet", "--cc=1-6", *INNER, "sleep", "0.5")
    looks = 0
    deadline = time.monotonic() + 60
    while not flux.idle() and time.monotonic() < deadline:
        for words in (("pstree", "-a"), ("jobs", "-R"), ("top",)):
            began = time.monotonic()
            done = flux(*words)
            assert time.monotonic() - began < ANSWER_S + 3
            assert done.stderr == ""
        looks += 1
    assert looks
    assert flux.idle()


@pytest.mark.parametrize("victim", ["broker", "supervisor", "both"])
def test_a_killed_inner_instance_takes_only_its_own(
    start: Callable[..., Instance], wait_until: Wait, victim: str
) -> None:
    flux = start("--cores-per-rank=4", size=1)
    one = begin(flux, "sleep", "300")
    two = begin(flux, "sleep", "301", under=one)
    flux("proxy", two, "flux-mpi", "submit", "--quiet", "sleep", "302")
    other = flux.out("submit", "sleep", "303")
    broker, supervisor = pids(local(flux, one))
    for pid in (broker,) * (victim != "supervisor") + (supervisor,) * (victim != "broker"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ended(flux, one), "its job has ended", 30)
    wait_until(lambda: not [*of(flux, "sleep 301"), *of(flux, "sleep 302")], "all below ended", 30)
    wait_until(lambda: not of(flux, "sleep 300"), "its program has ended", 30)
    assert flux.out("jobs", "-no", "{state}", other) == "RUN"
    assert flux.out("pstree") == ".\n└── sleep"
    flux("cancel", other)
    flux("queue", "drain")
    # A broker that has lost its supervisor may still be on its way out.
    wait_until(
        lambda: sum(path.is_dir() for path in flux.tmp.glob("flux-mpi-*")) == 1,
        "only the outer instance's own folder is left",
        30,
    )


def test_the_end_of_the_outer_instance_is_the_end_of_the_inner_ones(
    start: Callable[..., Instance], wait_until: Wait
) -> None:
    flux = start("--cores-per-rank=4", size=1)
    one = begin(flux, "sleep", "300")
    two = begin(flux, "sleep", "301", under=one)
    flux("proxy", two, "flux-mpi", "submit", "--quiet", "sleep", "302")
    assert flux.stop() == 0
    flux.assert_nothing_left()


def test_inner_instances_of_a_killed_one_end_too(
    start: Callable[..., Instance], wait_until: Wait
) -> None:
    """Broker and supervisor at once: nobody is left who could end what they ran."""
    flux = start("--cores-per-rank=4", size=1)
    one = begin(flux, "sleep", "300")
    two = begin(flux, "sleep", "301", under=one)
    flux("proxy", two, "flux-mpi", "submit", "--quiet", "sleep", "302")
    broker, supervisor = pids(flux.uri)
    own = Path(flux.handle.attr_get("rundir"))
    flux.close_handle()
    os.kill(supervisor, signal.SIGKILL)
    os.kill(broker, signal.SIGKILL)
    wait_until(lambda: not of(flux, "sleep 30"), "all below have ended", 40)
    wait_until(lambda: list(flux.tmp.glob("flux-mpi-*")) == [own], "only its own is left", 20)
    assert list(own.glob("*/flux-mpi-*")) == []
    flux.kill()  # nobody could end its program, nor remove this:
    shutil.rmtree(own)


def test_one_that_hangs_is_shown_with_its_error(flux: Instance) -> None:
    good = begin(flux, "sleep", "300", options=("--job-name=good",))
    flux("proxy", good, "flux-mpi", "submit", "--quiet", "sleep", "300")
    bad = begin(flux, "sleep", "300", options=("--job-name=bad",))
    broker, _ = pids(local(flux, bad))
    os.kill(broker, signal.SIGSTOP)
    try:
        for words, says in (
            (("pstree", "-l"), "bad [no answer within 5 s]"),
            (("jobs", "-R"), "cannot be listed: no answer within 5 s"),
            (("jobs", "-no", "{name}:{instance.stats}"), "bad:"),
        ):
            began = time.monotonic()
            text = flux(*words).stdout
            assert time.monotonic() - began < ANSWER_S + 4
            assert says in text
            assert "good" in text
        assert "PD:0 R:1 CD:0 F:0" in text
        for words in (("proxy", bad, "true"), ("top", bad)):
            began = time.monotonic()
            assert "no answer within" in flux(*words, status=1).stderr
            assert time.monotonic() - began < ANSWER_S + 4
        assert flux.out("uri", "--local", bad).startswith("local://"), "that need not ask it"
    finally:
        os.kill(broker, signal.SIGCONT)
    assert "bad [" not in flux.out("pstree")


def test_a_proxy_ends_with_its_instance(flux: Instance) -> None:
    path = begin(flux, "sleep", "300")
    with flux.popen("proxy", path, "sh", "-c", "echo up; exec sleep 300") as proxy:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == "up\n"
        flux("cancel", path)
        assert proxy.wait(30) == 129
        assert proxy.stderr is not None
        assert "Sending SIGHUP" in proxy.stderr.read()


def test_variables_that_name_no_job_do_no_harm(
    outside: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    env = {"FLUX_JOB_ID": "ƒabc", "FLUX_JOB_ID_PATH": "/ƒabc", "FLUX_URI": "local:///no/such"}
    done = outside(
        "flux-mpi", "start", "sh", "-c", "flux-mpi run echo fine; flux-mpi dmesg", env=env
    )
    assert "fine" in done.stdout
    assert "not known to the instance of job ƒabc: local:///no/such: No such file" in done.stdout


# -- top ----------------------------------------------------------------------------------------


def test_top_on_a_terminal(flux: Instance) -> None:
    import pty

    path = begin(flux, "sleep", "300", options=("--job-name=child",))
    flux("proxy", path, "flux-mpi", "submit", "--quiet", "--job-name=inside", "sleep", "300")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(flux.folder)
        os.environ.clear()
        os.environ.update({**flux.env, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"})
        os.execvp("flux-mpi", ["flux-mpi", "top"])
    os.set_blocking(terminal, False)
    seen = b""

    def shows(text: str) -> bool:
        nonlocal seen
        try:
            seen += os.read(terminal, 1 << 16)
        except BlockingIOError:
            pass
        return text.encode() in seen

    def wait(text: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + 20
        while not shows(text):
            assert time.monotonic() < deadline, f"{text!r} not in {seen!r}"
            time.sleep(0.02)
        seen = b""

    try:
        wait("child")
        os.write(terminal, b"j\n")
        wait("inside")
        flux("proxy", path, "flux-mpi", "submit", "--quiet", "--job-name=newcomer", "sleep", "300")
        wait("newcomer")  # without a key: the instance said that something has happened
        os.write(terminal, b"q")
        wait("child")
        os.write(terminal, b"\n")
        wait("inside")
        flux("cancel", path)
        wait("has ended")  # and the outer one is shown again
        os.write(terminal, b"q")
        deadline = time.monotonic() + 20
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            shows("")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
