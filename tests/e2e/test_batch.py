"""Child instances from outside: ``flux-mpi batch``, ``flux-mpi alloc`` and ``flux_mpi.batch``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flux_mpi
from flux_mpi.client.batch import ScriptError
from tests.e2e.conftest import Instance
from tests.shell.farterminal import Far
from tests.shell.farterminal import far as far

LIMIT_S = 60.0

WHERE = """#!/bin/sh
echo level=$(flux-mpi getattr instance-level)
echo size=$(flux-mpi getattr size)
echo cores=$(flux-mpi resource list -n -s free -o '{ncores}')
"""
"""A script that tells which instance it is in, and what that has."""


def script(folder: Path, text: str, name: str = "job.sh") -> str:
    path = folder / name
    path.write_text(text)
    return name


def finished(flux: Instance, text: str) -> flux_mpi.client.jobs.JobResult:
    return flux_mpi.wait(text.strip(), LIMIT_S, handle=flux.handle)


def ready(flux: Instance, job: Any) -> str:
    """The URI of a job's instance, once that is ready."""
    return flux_mpi.child_uri(str(job), LIMIT_S, handle=flux.handle)


def output(flux: Instance, job: str) -> str:
    """What the batch job wrote to its file."""
    return (flux.folder / f"flux-{job.strip()}.out").read_text()


# -- batch -----------------------------------------------------------------------------------------


def test_a_script_has_an_instance_of_its_own(flux: Instance) -> None:
    job = flux.out("batch", "-n3", script(flux.folder, WHERE))
    assert finished(flux, job).success
    lines = output(flux, job).splitlines()
    assert {"level=1", "cores=3"} <= set(lines)


def test_whole_nodes_are_a_broker_each(flux: Instance) -> None:
    job = flux.out("batch", "-N2", script(flux.folder, WHERE))
    assert finished(flux, job).success
    assert {"level=1", "size=2", "cores=8"} <= set(output(flux, job).splitlines())


def test_jobs_of_the_script_run_in_it(flux: Instance) -> None:
    text = (
        "#!/bin/sh\nflux-mpi run -n4 sh -c 'echo task $FLUX_TASK_RANK'\n"
        "flux-mpi jobs -ano '{name}'\n"
    )
    job = flux.out("batch", "-n4", script(flux.folder, text))
    assert finished(flux, job).success
    assert sorted(output(flux, job).splitlines()) == ["sh", *(f"task {n}" for n in range(4))]
    # Here there was one job, and that is called as its script.
    assert flux.out("jobs", "-ano", "{name}", job) == "job.sh"


def test_arguments_directives_and_the_command_line(flux: Instance) -> None:
    text = (
        "#!/bin/sh\n# flux: -n2 --job-name=directed --output=named.out\n"
        'echo "$# $2"\nflux-mpi resource list -n -s free -o "{ncores}"\n'
    )
    job = flux.out("batch", "-n3", script(flux.folder, text), "a", "b c")
    assert finished(flux, job).success
    assert (flux.folder / "named.out").read_text() == "2 b c\n3\n"
    assert flux.out("jobs", "-ano", "{name}", job) == "directed"


def test_wrapping(flux: Instance) -> None:
    job = flux.out("batch", "-n2", "--wrap", "flux-mpi getattr instance-level; echo $0 >&2")
    assert finished(flux, job).success
    first, second = output(flux, job).splitlines()
    assert first == "1"
    assert second.endswith("/script")  # stderr goes to the same file
    job = flux("batch", "-n1", "--wrap", "--output=o", stdin="echo from stdin\n").stdout
    assert finished(flux, job).success
    assert (flux.folder / "o").read_text() == "from stdin\n"


def test_output_that_is_kept(flux: Instance) -> None:
    job = flux.out("batch", "-n1", "--output=kvs", "--wrap", "echo out; echo err >&2; exit 3")
    done = flux("job", "attach", job, status=3)
    assert done.stdout == "out\n"
    assert done.stderr.splitlines()[0] == "err"


@pytest.mark.parametrize(
    ("line", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -signal.SIGKILL), ("exec /no/such", 127)],
)
def test_the_scripts_status_is_the_jobs(flux: Instance, line: str, status: int) -> None:
    job = flux.out("batch", "-n1", "--wrap", line)
    code = finished(flux, job).returncode
    assert code == status or (status < 0 and code == 128 - status)


def test_an_interpreter_that_is_not_there(flux: Instance) -> None:
    job = flux.out("batch", "-n1", script(flux.folder, "#!/no/such/shell\n"))
    assert finished(flux, job).returncode == 127


def test_configuration_and_files_arrive(flux: Instance) -> None:
    text = (
        '#!/bin/sh\n# flux: --conf="""\n# flux: [sched]\n# flux: queue-policy = "easy"\n'
        '# flux: """\ncat "$1"\nexec python3 get.py\n'
    )
    (flux.folder / "get.py").write_text(
        "import flux_mpi, json\n"
        "with flux_mpi.Handle() as handle: print(json.dumps(handle.call('config.get')))\n"
    )
    job = flux.out(
        "batch",
        "-n1",
        "--conf=tbon.fanout=3",
        "--add-file=in.txt=a\nb\n",
        script(flux.folder, text),
        "{{tmpdir}}/in.txt",
    )
    assert finished(flux, job).success, output(flux, job)
    first, second, config = output(flux, job).splitlines()
    assert (first, second) == ("a", "b")
    found = json.loads(config)
    assert found["sched"]["queue-policy"] == "easy"
    assert found["tbon"] == {"fanout": 3}


def test_input_from_a_file(flux: Instance) -> None:
    (flux.folder / "in").write_text("typed\n")
    job = flux.out("batch", "-n1", "--input=in", "--wrap", "cat")
    assert finished(flux, job).success
    assert output(flux, job) == "typed\n"


def test_a_time_limit(flux: Instance) -> None:
    job = flux.out("batch", "-n1", "-t", "0.5s", "--wrap", "flux-mpi run sleep 987")
    result = finished(flux, job)
    assert not result.success
    assert "expired" in (result.note or "")
    assert result.exit_status == 142


def test_what_does_not_fit_is_refused_at_once(flux: Instance) -> None:
    name = script(flux.folder, WHERE)
    for words in (("-n1000",), ("-N100",), ("-n1", "-c1000"), ("-n1", "-g8")):
        done = flux("batch", *words, name, status=None)
        if done.returncode == 0:
            assert "unsatisfiable" in (finished(flux, done.stdout).note or "")
        else:
            assert "unsatisfiable" in done.stderr
    assert flux.alive()


def test_bad_scripts_make_no_job(flux: Instance) -> None:
    before = flux.states()["total"]
    script(flux.folder, "echo\n", "none.sh")
    (flux.folder / "huge.sh").write_bytes(b"#!/bin/sh\n")
    os.truncate(flux.folder / "huge.sh", 50 << 20)
    script(flux.folder, "#!/bin/sh\n#\n# flux: --nosuch\n", "directive.sh")
    for name, text in (
        ("none.sh", "none.sh: batch script does not appear to start with '#!'"),
        ("huge.sh", "huge.sh: 50.0 MiB is too large: at most 8 MiB"),
        ("directive.sh", "directive.sh:3: unrecognized option --nosuch"),
        ("/bin/ls", "/bin/ls: does not appear to be a script"),
        (".", ".: Is a directory"),
        ("nosuch.sh", "nosuch.sh: No such file or directory"),
    ):
        done = flux("batch", "-n1", name, status=1)
        assert done.stderr.startswith(f"flux-batch: ERROR: {text}")
    assert flux.states()["total"] == before


def test_a_script_at_the_limit_travels(flux: Instance) -> None:
    head = "#!/bin/sh\necho ok; exit\n"
    job = flux.out("batch", "-n1", script(flux.folder, head + "#" * ((8 << 20) - len(head))))
    assert finished(flux, job).success
    assert output(flux, job) == "ok\n"


# -- alloc -----------------------------------------------------------------------------------------


def test_a_command(flux: Instance) -> None:
    done = flux("alloc", "-n2", "sh", "-c", "flux-mpi getattr instance-level; exit 5", status=5)
    assert done.stdout == "1\n"
    assert done.stderr == "flux-job: task(s) exited with exit code 5\n"
    done = flux("alloc", "-v", "-n1", "true")
    assert done.stderr.startswith("jobid: ƒ")


def test_a_command_reads_what_alloc_is_given(flux: Instance) -> None:
    text = "".join(f"line {n}\n" for n in range(200_000))
    assert flux("alloc", "-N2", "cat", stdin=text).stdout == text


def test_a_shell_needs_a_terminal(flux: Instance) -> None:
    done = flux("alloc", "-n1", status=1)
    assert "stdin is not a tty - can't run interactive shell" in done.stderr


def test_working_in_it(flux: Instance, far: Callable[..., Far]) -> None:
    command = "stty -g > before; flux-mpi alloc -n2; echo status=$?; stty -g > after"
    env = {**flux.env, "SHELL": "/bin/sh", "PS1": "$ "}
    one = far("--size=100x30", "sh", "-c", f"cd {flux.folder}; {command}", env=env)
    one.type(b"echo level-$(flux-mpi getattr instance-level); stty size\r")
    one.see(b"level-1\r\n30 100\r\n")
    one.type(b"flux-mpi run -n2 echo task; echo do''ne\r")
    one.see(b"task\r\ntask\r\n")
    one.see(b"done\r\n")  # until then what is typed is input of the job
    one.type(b"exit 6\r")
    one.see(b"status=6\r\n")
    assert one.rest()[1] == 0
    assert (flux.folder / "after").read_text() == (flux.folder / "before").read_text()


def test_cancelling_a_shell_gives_the_terminal_back(
    flux: Instance, far: Callable[..., Far]
) -> None:
    command = "stty -g > before; flux-mpi alloc -n1; echo status=$?; stty -g > after"
    env = {**flux.env, "SHELL": "/bin/bash", "PS1": "$ "}
    one = far("sh", "-c", f"cd {flux.folder}; {command}", env=env)
    one.type(b"echo level $(flux-mpi getattr instance-level) re''ady\r")
    one.see(b"level 1 ready\r\n")
    flux("cancel", "-m", "enough", "--all")
    one.see(b"type=cancel severity=0 enough\r\n")
    one.see(b"status=")
    assert int(one.see(b"\r\n")) > 128
    assert one.rest()[1] == 0
    assert (flux.folder / "after").read_text() == (flux.folder / "before").read_text()


def test_two_interrupts_cancel_it(flux: Instance) -> None:
    process = flux.popen("alloc", "-n1", "sh", "-c", "echo ready; exec sleep 987")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert "one more ctrl-C within 2s" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_S)
    assert "canceling job" in err
    assert process.returncode != 0


def test_in_the_background(flux: Instance, wait_until: Callable[..., Any]) -> None:
    done = flux("alloc", "-v", "-n2", "--bg")
    job = done.stdout.strip()
    whats = [line.partition("s: ")[2] for line in done.stderr.splitlines()]
    assert whats == [
        "waiting for resources", "resources allocated", "waiting for instance", "ready",
    ]  # fmt: skip
    env: dict[str, str | None] = {"FLUX_URI": ready(flux, job)}
    assert flux.out("getattr", "instance-level", env=env) == "1"
    assert flux.out("run", "-n2", "echo", "x", env=env) == "x\nx"
    flux("shutdown", env=env)
    assert finished(flux, job).success
    assert flux.alive()


def test_shutting_down_what_a_target_names(flux: Instance) -> None:
    outer = flux.out("alloc", "-n1", "--bg")
    inner = flux.out("alloc", "-n1", "--bg", env={"FLUX_URI": ready(flux, outer)})
    flux("shutdown", f"{outer}/{inner}", "done with it")
    flux("job", "wait-event", "-t", "30", inner, "clean", env={"FLUX_URI": ready(flux, outer)})
    assert flux.alive()
    error = flux("shutdown", "maintenance", status=1).stderr
    assert error == "flux-shutdown: ERROR: 'maintenance' is not a valid job id\n"
    flux("shutdown", outer)
    assert finished(flux, outer).success
    assert flux.alive()


def test_in_the_background_with_a_command(flux: Instance) -> None:
    job = flux.out("alloc", "-n1", "--bg", "sh", "-c", "exit 4")
    assert finished(flux, job).returncode == 4


def test_cancelling_what_runs_in_the_background(flux: Instance) -> None:
    job = flux.out("alloc", "-n1", "--bg")
    flux("cancel", job)
    assert not finished(flux, job).success
    assert flux.alive()


def test_more_than_there_is_in_the_background(flux: Instance) -> None:
    done = flux("alloc", "-n1000", "--bg", status=1)
    assert "unsatisfiable" in done.stderr
    assert done.stdout == ""


# -- from Python -----------------------------------------------------------------------------------


def test_children_from_python(flux: Instance) -> None:
    job = flux_mpi.batch(None, nslots=2, handle=flux.handle, env=flux.env)
    with flux_mpi.Handle(ready(flux, job)) as child:
        assert child.attr_get("instance-level") == "1"
        inner = flux_mpi.submit(["true"], handle=child, count=10)
        assert all(result.success for result in flux_mpi.wait_all(inner, handle=child))
    flux_mpi.cancel(job, handle=flux.handle)
    assert not flux_mpi.wait(job, LIMIT_S, handle=flux.handle).success


def test_a_script_from_python(flux: Instance) -> None:
    job = flux_mpi.batch(
        "#!/bin/sh\necho $1; cat $(dirname $0)/data\n",
        ["arg"],
        files={"data": b"content\n"},
        handle=flux.handle,
        env=flux.env,
        cwd=flux.folder,
        output="out",
    )
    assert flux_mpi.wait(job, LIMIT_S, handle=flux.handle).success
    assert (flux.folder / "out").read_text() == "arg\ncontent\n"
    with pytest.raises(ScriptError, match="does not appear to start with"):
        flux_mpi.batch("echo\n", handle=flux.handle)


def test_a_child_of_a_child(flux: Instance) -> None:
    inner = "flux-mpi alloc -n1 flux-mpi getattr instance-level"
    job = flux.out("batch", "-n2", "--wrap", f"{inner}; flux-mpi getattr instance-level")
    assert finished(flux, job).success
    assert output(flux, job) == "2\n1\n"


def test_the_client_dies_and_the_instance_goes_on(
    flux: Instance, wait_until: Callable[..., Any]
) -> None:
    process = flux.popen("alloc", "-n1", "sh", "-c", "echo ready; exec sleep 987")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=LIMIT_S)
    (job,) = flux.out("jobs", "-no", "{id}").split()
    flux("cancel", job)
    assert not finished(flux, job).success
    assert subprocess.run(["true"], check=False).returncode == 0
