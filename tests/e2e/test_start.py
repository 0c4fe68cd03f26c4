"""An instance comes up under every launcher, and ends with its initial program's status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Instance = Any
    Outside = Callable[..., subprocess.CompletedProcess[str]]


def test_under_mpiexec_one_broker_a_rank(start: Callable[..., Instance]) -> None:
    instance = start("--cores-per-rank=1", size=3)
    assert instance.out("getattr", "size") == "3"
    assert instance.alive()
    pids = {instance.broker_pid(rank) for rank in range(3)}
    assert len(pids) == 3


@pytest.mark.parametrize("status", [0, 7])
def test_one_broker_without_a_launcher(outside: Outside, status: int) -> None:
    script = f"flux-mpi getattr size; flux-mpi run echo ran; exit {status}"
    done = outside("flux-mpi", "start", "sh", "-c", script, status=status)
    assert done.stdout == "1\nran\n"
    assert done.stderr == ""


def test_test_size_starts_mpiexec_itself(outside: Outside) -> None:
    script = "flux-mpi run -N3 -n3 -l flux-mpi getattr rank; exit 9"
    done = outside("flux-mpi", "start", "--test-size=3", "sh", "-c", script, status=9)
    assert sorted(done.stdout.splitlines()) == ["0: 0", "1: 1", "2: 2"]


def test_the_initial_program_has_flux_uri_and_standard_input(outside: Outside) -> None:
    done = outside("flux-mpi", "start", "sh", "-c", "echo $FLUX_URI; cat", stdin="to the program\n")
    uri, *rest = done.stdout.splitlines()
    assert uri.startswith("local:///")
    assert rest == ["to the program"]
    # Not "cat": Open MPI's mpiexec does not forward the end of its input.
    done = outside("flux-mpi", "start", "-s2", "head", "-n1", stdin="through mpiexec\n")
    assert done.stdout == "through mpiexec\n"


def test_the_initial_program_sees_no_launcher(outside: Outside) -> None:
    done = outside("flux-mpi", "start", "-s2", "env")
    assert not re.search(r"^(PMI_|PMIX_|HYDI|MPIR_|FLUX_MPI_SUPERVISOR)", done.stdout, re.MULTILINE)


def test_one_word_with_spaces_is_a_line_for_the_shell(outside: Outside) -> None:
    assert outside("flux-mpi", "start", "echo $((6 * 7)); exit 3", status=3).stdout == "42\n"


def test_a_program_that_cannot_be_started(outside: Outside, tmp_path: Path) -> None:
    done = outside("flux-mpi", "start", "/no/such/program", status=127)
    assert "/no/such/program" in done.stderr
    (tmp_path / "data").write_text("x")
    assert "./data" in outside("flux-mpi", "start", "./data", status=126).stderr


def test_without_a_command_a_terminal_is_needed(outside: Outside) -> None:
    done = outside("flux-mpi", "start", status=1)
    assert "no COMMAND" in done.stderr
    assert "terminal" in done.stderr


def test_an_initial_program_that_is_killed(outside: Outside) -> None:
    assert outside("flux-mpi", "start", "sh", "-c", "kill -KILL $$", status=137).stdout == ""
    outside("flux-mpi", "start", "-s2", "sh", "-c", "kill -TERM $$", status=143)


def test_jobs_that_still_run_end_with_the_program(outside: Outside) -> None:
    """The program's end is the instance's: what runs is cancelled, what waits never starts."""
    script = (
        "flux-mpi submit --quiet --wait-event=start sleep 100;"
        "flux-mpi submit --quiet --cc=1-50 -n1 sleep 100; exit 4"
    )
    outside("flux-mpi", "start", "-s2", "--cores-per-rank=2", "sh", "-c", script, status=4)


def test_options_reach_the_instance(start: Callable[..., Instance], tmp_path: Path) -> None:
    (tmp_path / "conf.toml").write_text('[table]\nkey = "value"\n[other]\nn = 1\n')
    state = tmp_path / "state"
    instance = start(
        "-S", "my.attr=mine", "--setattr=log-stderr-level=2",
        "--conf", str(tmp_path / "conf.toml"), "--conf=other.n=2",
        "--fanout=1", "--cores-per-rank=3", "--gpus-per-rank=2", f"--statedir={state}", size=3,
    )  # fmt: skip
    assert instance.out("getattr", "my.attr") == "mine"
    assert instance.out("getattr", "log-stderr-level") == "2"
    assert instance.out("getattr", "tbon.maxlevel") == "2"
    assert instance.out("resource", "info") == "3 Nodes, 9 Cores, 6 GPUs"
    config = instance.handle.call("config.get")
    assert config["table"] == {"key": "value"}
    assert config["other"] == {"n": 2}
    assert state.is_dir()
    tree = instance.out("overlay", "status").splitlines()
    assert [re.sub(r"^[ │├└─]*", "", line).split()[0] for line in tree] == ["0", "1", "2"]
    assert [len(re.match(r"^[ │├└─]*", line).group()) for line in tree] == [0, 3, 6]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--no-such-option", "true"], 2, "--no-such-option"),
        (["--fanout=0", "true"], 2, "--fanout"),
        (["--fanout=x", "true"], 2, "--fanout"),
        (["--test-size"], 2, "--test-size"),
        (["-S", "novalue", "true"], 2, "novalue"),
        (["--conf=/no/such.toml", "true"], 1, "/no/such.toml"),
        (["--conf=broken.toml", "true"], 1, "broken.toml"),
        (["--conf=broker.max-frame=many", "true"], 1, "broker.max-frame"),
        (["-S", "rundir=/proc/nothing", "true"], 1, "/proc/nothing"),
        (["--statedir=/proc/nothing", "true"], 1, "/proc/nothing"),
    ],
)
def test_bad_options_say_what_is_wrong(
    outside: Outside, tmp_path: Path, words: list[str], status: int, says: str
) -> None:
    (tmp_path / "broken.toml").write_text("[[[")
    if any("broken.toml" in word for word in words):
        words = [f"--conf={tmp_path}/broken.toml", "true"]
    done = outside("flux-mpi", "start", *words, status=status)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_every_rank_is_told_once_under_mpiexec(outside: Outside) -> None:
    done = outside("mpiexec", "-n", "3", "flux-mpi", "start", "--bogus", "true", status=None)
    assert done.returncode != 0
    assert done.stderr.count("--bogus") == 1


def test_mpiexec_missing(outside: Outside, tmp_path: Path) -> None:
    """A Python with no mpiexec beside it, and none on PATH."""
    import flux_mpi

    lonely = tmp_path / "bin"
    lonely.mkdir()
    (lonely / "python3").symlink_to(os.path.realpath(sys.executable))
    env = {
        "PATH": "/nonexistent",
        "PYTHONPATH": os.pathsep.join(
            [os.path.dirname(os.path.dirname(flux_mpi.__file__)), *filter(None, sys.path)]
        ),
    }
    words = ("-m", "flux_mpi", "start", "--test-size=2", "true")
    done = outside(str(lonely / "python3"), *words, env=env, status=127)
    assert "no mpiexec found" in done.stderr
    assert "pip install" in done.stderr


def test_a_launcher_that_mpi_does_not_know(outside: Outside) -> None:
    """srun without a PMI that this MPI speaks starts singletons: say so, and what to do."""
    env = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "1"}
    done = outside("flux-mpi", "start", "true", env=env, status=1)
    assert "4 ranks" in done.stderr
    assert "srun --mpi=" in done.stderr


def test_an_instance_inside_a_job_knows_its_place(flux: Instance) -> None:
    script = (
        "flux-mpi getattr instance-level; flux-mpi getattr jobid-path; "
        "flux-mpi getattr parent-uri; flux-mpi run echo inner"
    )
    done = flux("run", "-n1", "flux-mpi", "start", "sh", "-c", script)
    level, path, parent, inner = done.stdout.splitlines()
    assert level == "1"
    assert path == "/" + flux.out("job", "last")
    assert parent.startswith("local:///")
    assert inner == "inner"


def test_sigterm_to_the_launcher_ends_it_in_order(start: Callable[..., Instance]) -> None:
    instance = start("--cores-per-rank=1", size=2)
    instance("submit", "--quiet", "--wait-event=start", "sleep", "100")
    instance.note_shared_memory()
    instance.process.send_signal(signal.SIGTERM)
    assert instance.wait() != 0


def test_shutdown_from_a_client(start: Callable[..., Instance]) -> None:
    instance = start("--cores-per-rank=1", size=2)
    instance.note_shared_memory()
    instance("shutdown", status=None)
    assert instance.wait() in (0, 143, 129)


def test_version_tells_the_broker_and_the_uri(flux: Instance) -> None:
    text = flux.out("version")
    assert re.search(r"^commands:\s+\d+\.\d+\.\d+", text, re.MULTILINE)
    assert re.search(rf"^FLUX_URI:\s+{re.escape(flux.uri)}$", text, re.MULTILINE)
    rundir = flux.out("getattr", "rundir")
    assert os.stat(rundir).st_mode & 0o077 == 0
    assert json.dumps(sorted(os.listdir(rundir)))
