"""What a job's tasks see, say and end with."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Instance = Any


def lines(text: str) -> list[str]:
    return sorted(text.splitlines())


# -- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("exit 0", 0, ""),
        ("exit 42", 42, "flux-job: task(s) exited with exit code 42"),
        ("kill -KILL $$", 137, "flux-job: task(s) Killed"),
        ("kill -TERM $$", 143, "flux-job: task(s) Terminated"),
        ("kill -SEGV $$", 139, "flux-job: task(s) Segmentation fault"),
    ],
)
def test_run_ends_as_its_task_does(flux: Instance, script: str, status: int, said: str) -> None:
    done = flux("run", "sh", "-c", script, status=status)
    assert done.stderr.strip() == said
    assert done.stdout == ""


def test_the_largest_status_of_the_tasks_counts(flux: Instance) -> None:
    flux("run", "-n4", "sh", "-c", "exit $FLUX_TASK_RANK", status=3)


def test_a_command_that_is_not_there_is_127(flux: Instance) -> None:
    done = flux("run", "/no/such/cmd", status=127)
    assert re.search(
        r"^\d+\.\d{3}s: job\.exception ƒ\w+ type=exec severity=0 .*"
        r"start failed: /no/such/cmd: No such file or directory$",
        done.stderr,
        re.MULTILINE,
    )
    assert "flux-job: task(s) exited with exit code 127" in done.stderr
    flux("run", "no-such-command-on-path", status=127)


def test_a_file_that_cannot_be_executed_is_126(flux: Instance, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    done = flux("run", "./data", status=126)
    assert "start failed: ./data: Permission denied" in done.stderr
    assert "flux-job: task(s) exited with exit code 126" in done.stderr


def test_a_time_limit_ends_with_142(flux: Instance) -> None:
    done = flux("run", "-t", "0.3s", "sleep", "60", status=142)
    assert "type=timeout severity=0 resource allocation expired" in done.stderr
    assert "flux-job: task(s) Alarm clock" in done.stderr
    listed = flux.out("jobs", "-a", "-n", "-c1", "-o", "{status_abbrev} {result} {returncode}")
    assert listed == "TO TIMEOUT 142"


def test_a_task_that_ignores_the_time_limits_signal_is_killed(flux: Instance) -> None:
    script = "trap '' ALRM TERM; while :; do sleep 0.2; done"
    done = flux("run", "-t", "0.3s", "sh", "-c", script, status=None)
    assert done.returncode in (137, 142)
    assert "type=timeout" in done.stderr


# -- what it sees ---------------------------------------------------------------------------------


def test_the_environment_of_a_task(flux: Instance) -> None:
    flux("run", "-N2", "-n4", "--output=env.{{taskid}}", "env")
    envs = [
        dict(line.split("=", 1) for line in (flux.folder / f"env.{n}").read_text().splitlines())
        for n in range(4)
    ]
    ids = {env["FLUX_JOB_ID"] for env in envs}
    assert len(ids) == 1
    assert ids.pop().startswith("ƒ")
    for n, env in enumerate(envs):
        assert env["FLUX_TASK_RANK"] == str(n)
        assert env["FLUX_TASK_LOCAL_ID"] == str(n % 2)
        assert env["FLUX_JOB_SIZE"] == "4"
        assert env["FLUX_JOB_NNODES"] == "2"
        assert env["FLUX_KVS_NAMESPACE"].startswith("job-")
        assert env["FLUX_URI"].startswith("local://")
    assert envs[0]["FLUX_URI"] == envs[1]["FLUX_URI"] != envs[2]["FLUX_URI"] == envs[3]["FLUX_URI"]
    assert envs[0]["FLUX_JOB_TMPDIR"] != envs[2]["FLUX_JOB_TMPDIR"]


def test_the_launchers_variables_are_gone(flux: Instance) -> None:
    """A task that finds them would take itself for a rank of the instance's own MPI job."""
    # The supervisor's environment has them for sure: it was started by mpiexec.
    launched = flux.out(
        "exec", "-r1", "sh", "-c", "cat /proc/$(flux-mpi getattr broker.pid)/environ"
    )
    foreign = re.compile(
        r"^(PMI_|PMIX_|OPAL_|HYDRA_|HYDI_|MPIR_|MPIEXEC|MPI_LOCAL|MPICH|FLUX_MPI_SUPERVISOR)"
        r"|^(OMPI_(?!ALLOW)|PRTE_(?!ALLOW|MCA_rmaps_default_mapping_policy))"
    )
    assert any(foreign.match(word) for word in launched.split("\0"))
    seen = flux.out("run", "env").splitlines()
    assert [line for line in seen if foreign.match(line)] == []


def test_mpi_programs_start_as_singletons(flux: Instance) -> None:
    program = "from mpi4py import MPI; print(MPI.COMM_WORLD.size)"
    # Open MPI 5 leaves the shared memory of a singleton behind, whoever starts it: make none.
    assert flux.out("run", "--env=OMPI_MCA_btl=self", sys.executable, "-c", program) == "1"


def test_the_callers_environment_and_folder_come_along(flux: Instance, tmp_path: Path) -> None:
    below = tmp_path / "a b"
    below.mkdir()
    assert flux.out("run", "pwd", cwd=below) == str(below)
    assert flux.out("run", "--cwd=/", "pwd") == "/"
    assert flux.out("run", "sh", "-c", "echo $COLOUR", env={"COLOUR": "green"}) == "green"


def test_environment_rules(flux: Instance) -> None:
    seen = flux.out("run", "--env=-*", "--env=A=1", "--env=B=$A/2", "/usr/bin/env").splitlines()
    assert "A=1" in seen
    assert not [line for line in seen if line.startswith(("HOME=", "TMPDIR="))]
    kept = {"KEEP_ME": "1", "DROP_ME": "1"}
    seen = flux.out("run", "--env-remove=DROP_*", "env", env=kept).splitlines()
    assert "KEEP_ME=1" in seen
    assert "DROP_ME=1" not in seen


def test_limits(flux: Instance) -> None:
    assert flux.out("run", "--rlimit=nofile=123", "sh", "-c", "ulimit -n") == "123"


def test_emulated_cores_bind_nothing(flux: Instance) -> None:
    mask = "import os; print(len(os.sched_getaffinity(0)))"
    here = flux.execute([sys.executable, "-c", mask]).stdout.strip()
    assert flux.out("run", sys.executable, "-c", mask) == here


def test_real_cores_bind_tasks(start: Callable[..., Instance]) -> None:
    """Tasks may use the cores of their job, one by one if asked; and all cores if so told."""
    instance = start(size=0)
    cpus = os.sched_getaffinity(0)
    ncores = instance.handle.call("resource.info")["ncores"]
    assert 1 <= ncores <= len(cpus)
    mask = "import os; print(sorted(os.sched_getaffinity(0)))"

    def seen(*options: str) -> list[list[int]]:
        text = instance.out("run", *options, sys.executable, "-c", mask)
        return [json.loads(line) for line in text.splitlines()]

    (one,) = seen("-n1")
    assert len(one) == len(cpus) // ncores
    each = seen(f"-n{ncores}", "-o", "cpu-affinity=per-task")
    assert len(each) == ncores
    everything = [cpu for mine in each for cpu in mine]
    assert len(everything) == len(set(everything))  # no two tasks share a CPU
    assert seen(f"-c{ncores}") == [sorted(everything)]
    assert seen(f"-n{ncores}") == [sorted(everything)] * ncores
    assert seen("-o", "cpu-affinity=off") == [sorted(cpus)]


# -- what it says ---------------------------------------------------------------------------------


def test_output_and_labels(flux: Instance) -> None:
    done = flux("run", "-n4", "-l", "sh", "-c", "echo task $FLUX_TASK_RANK; echo oops >&2")
    assert lines(done.stdout) == [f"{n}: task {n}" for n in range(4)]
    assert lines(done.stderr) == [f"{n}: oops" for n in range(4)]


def test_every_node_of_a_job_speaks(flux: Instance) -> None:
    done = flux("run", "-N4", "-n4", "flux-mpi", "getattr", "rank")
    assert lines(done.stdout) == ["0", "1", "2", "3"]


def test_much_output_arrives_whole(flux: Instance) -> None:
    """More than pipes and windows hold, from two ranks at a time, byte for byte."""
    count = 200_000
    done = flux("run", "-N2", "-n2", "-l", "seq", str(count), limit_s=100)
    for task in ("0", "1"):
        mine = [line[3:] for line in done.stdout.splitlines() if line.startswith(f"{task}: ")]
        assert mine == [str(n) for n in range(1, count + 1)]


def test_output_without_a_newline_and_bytes_that_are_no_text(flux: Instance) -> None:
    assert flux("run", "printf", "no newline").stdout == "no newline"
    done = flux("run", "printf", r"\377\000\n")
    assert done.stdout.encode(errors="surrogateescape") == b"\xff\0\n"


def test_standard_input(flux: Instance) -> None:
    assert flux("run", "cat", stdin="hello\n").stdout == "hello\n"
    done = flux("run", "-n3", "-l", "cat", stdin="all\n")
    assert lines(done.stdout) == ["0: all", "1: all", "2: all"]
    big = "0123456789abcde\n" * 200_000  # more than any buffer on the way
    assert flux("run", "wc", "-c", stdin=big).stdout.strip() == str(len(big))
    # A task that does not read must not make run wait for ever.
    assert flux("run", "true", stdin=big).returncode == 0


def test_input_from_a_file(flux: Instance, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from a file\n")
    assert flux("run", "--input=in", "cat").stdout == "from a file\n"


def test_output_files(flux: Instance, tmp_path: Path) -> None:
    flux("run", "--output=out.txt", "--error=err.txt", "sh", "-c", "echo out; echo err >&2")
    assert (tmp_path / "out.txt").read_text() == "out\n"
    assert (tmp_path / "err.txt").read_text() == "err\n"
    # Without --error, both go to the output file.
    flux("run", "--output=both.txt", "sh", "-c", "echo out; echo err >&2")
    assert lines((tmp_path / "both.txt").read_text()) == ["err", "out"]


def test_output_templates(flux: Instance, tmp_path: Path) -> None:
    done = flux("submit", "-n2", "--wait", "--output=o.{{id}}.{{taskid}}", "--job-name=nom",
                "sh", "-c", "echo $FLUX_TASK_RANK")  # fmt: skip
    jobid = done.stdout.strip()
    assert (tmp_path / f"o.{jobid}.0").read_text() == "0\n"
    assert (tmp_path / f"o.{jobid}.1").read_text() == "1\n"
    flux("run", "--job-name=nom", "--output={{name}}-{{id.dec}}.txt", "true")
    last = flux.out("job", "id", "--to=dec", flux.out("job", "last"))
    assert (tmp_path / f"nom-{last}.txt").exists()


def test_output_is_kept_for_attach(flux: Instance) -> None:
    jobid = flux.out("submit", "-n2", "--wait", "sh", "-c", "echo out; echo err >&2")
    for _ in range(2):  # as often as one likes
        done = flux("job", "attach", jobid)
        assert done.stdout == "out\nout\n"
        assert done.stderr == "err\nerr\n"


def test_attach_shows_what_a_running_job_says(flux: Instance, tmp_path: Path) -> None:
    script = "echo early; while [ ! -e go ]; do sleep 0.05; done; echo late; exit 5"
    jobid = flux.out("submit", "sh", "-c", script)
    attached = flux.popen("job", "attach", jobid)
    assert attached.stdout is not None
    assert attached.stdout.readline() == "early\n"
    (tmp_path / "go").touch()
    out, err = attached.communicate(timeout=60)
    assert out == "late\n"
    assert err == "flux-job: task(s) exited with exit code 5\n"
    assert attached.returncode == 5


def test_run_passes_signals_on(flux: Instance, wait_until: Callable[..., Any]) -> None:
    running = flux.popen("run", "sh", "-c", "trap 'echo got it; exit 3' USR1; echo up; "
                         "while :; do sleep 0.05; done")  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGUSR1)
    out, _ = running.communicate(timeout=60)
    assert out == "got it\n"
    assert running.returncode == 3


def test_ctrl_c_twice_cancels_what_run_waits_for(flux: Instance) -> None:
    running = flux.popen("run", "sh", "-c", "echo up; sleep 60")
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGINT)
    assert "ctrl-C within 2s to cancel" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert "type=cancel" in err
    assert running.returncode == 143


def test_a_job_has_a_folder_of_its_own(flux: Instance) -> None:
    seen = flux.out("run", "sh", "-c", 'echo $FLUX_JOB_TMPDIR; touch "$FLUX_JOB_TMPDIR/x"')
    assert os.path.isabs(seen)
    assert not os.path.exists(seen)  # it went with the job


def test_verbose_run_tells_the_events(flux: Instance) -> None:
    said = flux("run", "-vvv", "true").stderr
    assert re.search(r"^jobid: ƒ\w+$", said, re.MULTILINE)
    for event in ("job.submit", "job.alloc", "job.start", "job.finish", "job.clean"):
        assert re.search(rf"^\d+\.\d{{3}}s: {re.escape(event)}\b", said, re.MULTILINE), event
    assert re.search(r'exec\.shell\.task-exit \{.*"state":"Exited"', said)
