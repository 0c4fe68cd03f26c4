"""The commands and the Python client against a real instance of one broker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flux_mpi
from flux_mpi.client import workers
from flux_mpi.client.workers import MemberError, Workers, WorkersError
from flux_mpi.message.errors import FluxError

FLUX = [sys.executable, "-m", "flux_mpi"]
LIMIT_S = 60


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    """An instance with four pretended cores; ends when its initial program's input does."""
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    environ.pop("FLUX_URI", None)
    with subprocess.Popen(
        [*FLUX, "start", "--cores-per-rank=4", "sh", "-c", "echo $FLUX_URI; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found = process.stdout.readline().strip()
        assert found.startswith("local:///"), found
        yield found
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(LIMIT_S)


@pytest.fixture(autouse=True)
def inside(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUX_URI", uri)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), *sys.path]))


def flux(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FLUX, *words],
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def test_run_shows_output_and_exits_with_the_jobs_status() -> None:
    found = flux("run", "-n3", "-l", "sh", "-c", "echo out; echo err >&2; exit $FLUX_TASK_RANK")
    assert found.returncode == 2
    assert sorted(found.stdout.splitlines()) == ["0: out", "1: out", "2: out"]
    assert sorted(found.stderr.splitlines()) == [
        "0: err",
        "1: err",
        "2: err",
        "flux-job: task(s) exited with exit code 2",
    ]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "kill -9 $$"], 137, "flux-job: task(s) Killed\n"),
        (["/no/such/cmd"], 127, "start failed: /no/such/cmd: No such file or directory\n"),
        (["/etc/passwd"], 126, "start failed: /etc/passwd: Permission denied\n"),
        (["-n", "100", "true"], 1, "type=alloc severity=0 unsatisfiable request: need 100 slot(s)"),
        (["-t", "0.1s", "sleep", "60"], 142, "type=timeout severity=0 resource allocation expired"),
    ],
)
def test_exit_statuses_are_those_of_flux(words: list[str], status: int, text: str) -> None:
    found = flux("run", *words)
    assert (found.returncode, text in found.stderr) == (status, True), found.stderr


def test_input_reaches_the_tasks_and_nothing_is_lost() -> None:
    data = "".join(f"line {k}\n" for k in range(100_000))
    found = flux("run", "cat", stdin=data)
    assert found.returncode == 0
    assert found.stdout == data
    found = flux("run", "-n3", "-l", "--input=1", "cat", stdin="only one\n")
    assert found.stdout == "1: only one\n"


def test_two_interrupts_cancel() -> None:
    with subprocess.Popen(
        [*FLUX, "run", "sh", "-c", "echo up; sleep 300"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert "one more ctrl-C within 2s to cancel" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 143
        assert "type=cancel severity=0 interrupted by ctrl-C" in process.stderr.read()


def test_other_signals_are_forwarded() -> None:
    script = "trap 'echo got it; exit 7' USR1; echo up; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [*FLUX, "run", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.read() == "got it\n"
        assert process.wait(LIMIT_S) == 7


def test_an_array_from_submission_to_listing(tmp_path: Path) -> None:
    found = flux(
        "submit",
        "--cc=1-20",
        "--wait",
        "--job-name=array-{cc}",
        f"--output={tmp_path}/{{cc}}.out",
        "sh",
        "-c",
        "echo {cc} $FLUX_JOB_CC; test {cc} -ne 13",
    )
    ids = found.stdout.split()
    assert (found.returncode, len(ids)) == (1, 20)
    assert {path.read_text() for path in tmp_path.iterdir()} == {f"{k} {k}\n" for k in range(1, 21)}
    listed = flux("jobs", "-no", "{name} {status_abbrev} {returncode}", *ids).stdout.splitlines()
    assert "array-13 F 1" in listed
    assert sum(line.endswith("CD 0") for line in listed) == 19
    assert flux("job", "info", ids[4], "jobspec").stdout.count("echo 5 $FLUX_JOB_CC") == 1


def test_bulksubmit_with_inputs_and_sizes() -> None:
    found = flux("bulksubmit", "--watch", "-n", "{0}", "echo", "{1}", ":::", "1", "2", ":::", "a")
    assert found.returncode == 0
    assert sorted(found.stdout.splitlines()[2:]) == ["a", "a", "a"]


def test_waiting_attaching_and_events() -> None:
    job = flux("submit", "--flags=waitable", "sh", "-c", "echo said; exit 3").stdout.strip()
    assert flux("job", "wait", job).returncode == 1
    assert flux("job", "wait", job).returncode == 2
    found = flux("job", "attach", job)
    assert (found.returncode, found.stdout) == (3, "said\n")
    assert flux("job", "status", job).returncode == 3
    names = [line.split()[1] for line in flux("job", "eventlog", job).stdout.splitlines()]
    expected = "submit validate depend priority alloc start finish release free clean"
    assert " ".join(names) == expected
    assert flux("watch", job).stdout == "said\n"


def test_cancel_and_raise() -> None:
    job = flux("submit", "--wait-event=start", "sleep", "300").stdout.strip()
    assert flux("cancel", "-m", "enough", job).returncode == 0
    assert flux("job", "attach", job).returncode == 143
    reason = flux("jobs", "-no", "{status} {inactive_reason}", job).stdout
    assert reason == "CANCELED Canceled: enough\n"
    assert flux("cancel", job).returncode == 1


# -- Python ----------------------------------------------------------------------------------------


def test_python_calls() -> None:
    array = flux_mpi.submit(["sh", "-c", "exit {cc}"], cc="0-4")
    assert [result.returncode for result in flux_mpi.wait_all(array)] == [0, 1, 2, 3, 4]
    job = flux_mpi.submit(["sleep", "300"])
    with pytest.raises(TimeoutError):
        flux_mpi.wait(job, timeout=0.05)
    assert [one.id for one in flux_mpi.jobs() if one.id == job]
    assert flux_mpi.cancel(job, "no more") == {}
    result = flux_mpi.wait(job)
    assert not result.success
    assert result.note == "cancel: no more"
    with flux_mpi.Handle() as handle:
        handle.kvs.put("client.x", {"a": [1, 2]})
        assert handle.kvs.get("client.x") == {"a": [1, 2]}
        assert handle.kvs.exists("client")
        assert not handle.kvs.exists("nothing")
        assert handle.kvs.ls("client") == ["x"]
        with pytest.raises(FluxError):
            handle.kvs.get("nothing")


def test_the_executor() -> None:
    with flux_mpi.FluxExecutor() as executor:
        futures = [executor.submit(["sh", "-c", f"exit {k}"]) for k in range(10)]
        assert [future.result(LIMIT_S) for future in futures] == list(range(10))
        seen: list[str] = []
        future = executor.submit(["true"])
        for name in ("submit", "start", "clean"):
            future.add_event_callback(name, lambda one, event: seen.append(event["name"]))
        assert future.result(LIMIT_S) == 0
        with pytest.raises(flux_mpi.JobException, match="unsatisfiable"):
            executor.submit(["true"], ntasks=1000).result(LIMIT_S)
    assert seen == ["submit", "start", "clean"]


def test_asyncio() -> None:
    async def main() -> list[int]:
        async with flux_mpi.AsyncHandle() as handle:
            jobs = [await handle.submit(["sh", "-c", f"exit {k}"]) for k in range(3)]
            results = await asyncio.gather(*(handle.wait(job) for job in jobs))
            return [result.returncode for result in results]

    assert asyncio.run(asyncio.wait_for(main(), LIMIT_S)) == [0, 1, 2]


MODEL = """
import os
LOADED = []
def prepare():
    LOADED.append("once")
def work(x):
    if x == 5:
        raise ValueError("five is bad")
    if x == 7:
        os._exit(9)
    if x == 8:
        return lambda: None
    return x * x, len(LOADED), os.environ["OMP_NUM_THREADS"]
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "warm_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return "warm_model:work"


def test_warm_workers(model: str) -> None:
    with Workers(model, 2, initializer="warm_model:prepare") as pool:
        outcomes = {outcome.index: outcome for outcome in pool.map(range(12))}
        assert [one.index for one in pool.map([1, 2, 3, 4], ordered=True)] == [0, 1, 2, 3]
    assert len(outcomes) == 12
    good = [index for index, outcome in outcomes.items() if outcome.ok]
    assert sorted(good) == [0, 1, 2, 3, 4, 6, 9, 10, 11]
    assert outcomes[4].result() == (16, 1, "1")
    assert outcomes[5].error == "ValueError: five is bad"
    assert "in work" in outcomes[5].detail
    with pytest.raises(MemberError, match="five is bad"):
        outcomes[5].result()
    assert "the worker died" in outcomes[7].error
    assert outcomes[7].error.endswith("2 times")
    assert "pickle" in outcomes[8].error.lower() or "lambda" in outcomes[8].error
    # All their jobs are gone, too.
    assert flux_mpi.jobs() == []


def test_many_small_members_and_leaving_early(model: str) -> None:
    with Workers(model, 2) as pool:
        for k, outcome in enumerate(pool.map([1] * 5000)):
            assert outcome.value[0] == 1
            if k == 100:
                break
        # What is left of the first map must not be taken for results of the second.
        assert [outcome.value[0] for outcome in pool.map([2] * 3000)] == [4] * 3000
    assert sum(o.ok for o in workers.map(model, [1, 2, 3], 1)) == 3


def test_workers_that_cannot_be_had(model: str) -> None:
    with (
        pytest.raises(WorkersError, match="No module named 'nosuchmodule'"),
        Workers("nosuchmodule:f", 2) as pool,
    ):
        list(pool.map([1]))
    with (
        pytest.raises(WorkersError, match=r"workers keep dying.*unsatisfiable"),
        Workers(model, 2, cores_per_task=1000) as pool,
    ):
        list(pool.map([1]))
    for bad in ("nocolon", lambda x: x):
        with pytest.raises(ValueError, match=r"module|imported"):
            Workers(bad, 1)
