"""Instances inside instances: made on any ranks, complete in themselves, and gone afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.client.handle import Handle
from flux_mpi.formats.fluid import encode

Instance = Any
Wait = Callable[..., Any]


def slots(nslots: int, nnodes: int | None = None, cores: int = 1) -> list[dict[str, Any]]:
    """Resources: so many slots, on so many whole ranks if that is said."""
    slot = {
        "type": "slot",
        "count": nslots,
        "label": "task",
        "with": [{"type": "core", "count": cores}],
    }
    if nnodes is None:
        return [slot]
    return [{"type": "node", "count": nnodes, "exclusive": True, "with": [{**slot, "count": 1}]}]


def jobspec(
    command: list[str],
    folder: Path,
    env: dict[str, str],
    *,
    nslots: int = 1,
    nnodes: int | None = None,
    options: tuple[str, ...] = (),
    duration: float = 0.0,
    output: str | None = "child.out",
) -> dict[str, Any]:
    """A job that is an instance whose initial program is ``command``."""
    shell: dict[str, Any] = {"per-resource": {"type": "node", "count": 1}}
    if output is not None:
        shell["output"] = {"stdout": {"type": "file", "path": str(folder / output)}}
    return {
        "version": 1,
        "resources": slots(nslots, nnodes),
        "tasks": [
            {
                "command": ["flux-mpi", "broker", *options, *command],
                "slot": "task",
                "count": {"per_slot": 1},
            }
        ],
        "attributes": {
            "system": {
                "duration": duration,
                "cwd": str(folder),
                "environment": env,
                "shell": {"options": shell},
            }
        },
    }


class Nest:
    """What tests do with children of one instance."""

    def __init__(self, outer: Instance, folder: Path) -> None:
        self.outer = outer
        self.folder = folder

    def submit(self, *command: str, count: int = 1, **how: Any) -> list[int]:
        env = {k: v for k, v in self.outer.env.items() if not k.startswith("FLUX_")}
        spec = jobspec(list(command), self.folder, env, **how)
        answer = self.outer.handle.call(
            "job-ingest.submit", {"entries": [{"jobspec": spec, "count": count}]}
        )
        from flux_mpi.formats.fluid import nth

        return [nth(first, k) for first, n in answer["arrays"] for k in range(n)]

    def status(self, jobid: int) -> int:
        """The exit code of a job once it has ended."""
        future = self.outer.handle.rpc(
            "job-manager.wait-all", {"ids": [[jobid, 1]]}, streaming=True
        )
        status = int(future.get(60)["done"][0][1])
        return status >> 8 if status >= 0 else status

    def run(self, *command: str, **how: Any) -> str:
        """Run a child to its end, which must be a good one; its output."""
        (jobid,) = self.submit(*command, **how)
        assert self.status(jobid) == 0, (self.log(jobid), self.outer.stderr)
        return (self.folder / how.get("output", "child.out")).read_text()

    def shell(self, script: str, **how: Any) -> str:
        return self.run("sh", "-c", script, **how)

    def log(self, jobid: int) -> str:
        return str(
            self.outer.handle.call("job-info.lookup", {"id": jobid, "keys": ["eventlog"]})[
                "eventlog"
            ]
        )

    def files(self) -> list[str]:
        """Folders of children that are there now."""
        return sorted(str(path) for path in self.outer.tmp.glob("flux-mpi-*/i*"))


@pytest.fixture
def nest(flux: Instance, tmp_path: Path) -> Iterator[Nest]:
    found = Nest(flux, tmp_path)
    yield found
    flux.settle()
    deadline = time.monotonic() + 10
    while found.files() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found.files() == []


# -- what a child is ------------------------------------------------------------------------------


def test_a_child_of_one_core(nest: Nest) -> None:
    text = nest.shell(
        "echo size $(flux-mpi getattr size); echo level $(flux-mpi getattr instance-level);"
        "echo over $(flux-mpi getattr transport); flux-mpi resource list -n -o '{ncores}' -s free;"
        "flux-mpi run printenv FLUX_JOB_ID_PATH"
    )
    assert re.search(r"^size 1$", text, re.M)
    assert re.search(r"^level 1$", text, re.M)
    assert re.search(r"^over loopback$", text, re.M)
    assert re.search(r"^/ƒ\w+/ƒ\w+$", text, re.M)
    assert "\n1\n" in text.replace(" ", "")


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_a_child_of_whole_ranks(nest: Nest, ranks: int) -> None:
    text = nest.shell(
        "echo size $(flux-mpi getattr size) over $(flux-mpi getattr transport);"
        f"flux-mpi run -N{ranks} -l flux-mpi getattr rank; flux-mpi overlay status --summary",
        nnodes=ranks,
    )
    lines = text.splitlines()
    assert lines[0] == f"size {ranks} over communicator"
    found = sorted(line.split(": ") for line in lines[1:-1])
    assert found == [[str(rank), str(rank)] for rank in range(ranks)]
    assert lines[-1] == "full"


def test_a_child_sees_only_what_it_was_given(nest: Nest) -> None:
    """Its cores have the ids that they have in the parent, and it can ask for no more of them."""
    everything = nest.outer.handle.call("resource.info")["ncores"]
    text = nest.shell(
        "flux-mpi run -n2 true && echo two; flux-mpi run -n3 true 2>&1 || echo not three", nslots=2
    )
    assert everything > 2
    assert "two\n" in text
    assert "not three" in text


def test_it_has_its_own_store_events_log_and_queue(nest: Nest) -> None:
    nest.outer("kvs", "put", "here=parent")
    text = nest.shell(
        "flux-mpi kvs get here 2>&1; flux-mpi kvs put here=child; flux-mpi kvs get here;"
        "flux-mpi run true; flux-mpi jobs -n -a -o '{name}'; "
        "flux-mpi queue disable -m 'just here' >/dev/null"
    )
    lines = text.splitlines()
    assert "no such key" in lines[0]
    assert lines[1:] == ["child", "true"]
    assert nest.outer.out("kvs", "get", "here") == "parent"
    nest.outer("run", "true")  # its queue is not ours
    nest.outer("kvs", "unlink", "here")


def test_the_initial_program_knows_where_it_is(nest: Nest) -> None:
    """flux-environment(7): an initial program has no job variables, but who encloses it."""
    (jobid,) = nest.submit("env")
    assert nest.status(jobid) == 0
    text = (nest.folder / "child.out").read_text()
    found = dict(line.split("=", 1) for line in text.splitlines() if line.startswith("FLUX_"))
    uri = found.pop("FLUX_URI")
    assert uri.startswith("local:///")
    assert found == {
        "FLUX_ENCLOSING_ID": encode(jobid),
        "FLUX_PARENT_URI": found["FLUX_PARENT_URI"],
    }
    assert found["FLUX_PARENT_URI"] in {nest.outer.uri_of(rank) for rank in range(4)}


def test_siblings_on_the_same_ranks_do_not_meet(nest: Nest) -> None:
    """Interleaved: each has a core of every rank."""
    script = (
        "for i in 1 2 3; do flux-mpi run -N4 -n4 true || exit 1; done;"
        "flux-mpi kvs put mine=$FLUX_ENCLOSING_ID;"
        "test $(flux-mpi kvs get mine) = $FLUX_ENCLOSING_ID"
    )
    ids = []
    for number in range(2):
        env = {k: v for k, v in nest.outer.env.items() if not k.startswith("FLUX_")}
        spec = jobspec(["sh", "-c", script], nest.folder, env, output=f"{number}.out")
        spec["resources"] = [
            {
                "type": "node",
                "count": 4,
                "with": [
                    {
                        "type": "slot",
                        "count": 1,
                        "label": "task",
                        "with": [{"type": "core", "count": 1}],
                    }
                ],
            }
        ]
        answer = nest.outer.handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]})
        ids += [first for first, _ in answer["arrays"]]
    assert [nest.status(jobid) for jobid in ids] == [0, 0]


# -- any depth ------------------------------------------------------------------------------------

DESCEND = """
import json, os, sys
from flux_mpi.client.handle import Handle
depth, ranks = int(sys.argv[1]), int(sys.argv[2])
handle = Handle()
print(handle.attr_get("instance-level"), handle.attr_get("size"), flush=True)
if not depth:
    sys.exit(7)
below = max(1, ranks // 2)
with open("spec.json") as file:  # of one core, and of whole ranks
    spec = json.load(file)[below > 1]
if below > 1:
    spec["resources"][0]["count"] = below
spec["tasks"][0]["command"][2:] = [sys.executable, sys.argv[0], str(depth - 1), str(below)]
stdout = spec["attributes"]["system"]["shell"]["options"]["output"]["stdout"]
stdout["path"] = f"level{depth}.out"
first = handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]})["arrays"][0][0]
done = handle.rpc("job-manager.wait-all", {"ids": [[first, 1]]}, streaming=True).get(60)
sys.exit(done["done"][0][1] >> 8)
"""


def descend(nest: Nest, depth: int, ranks: int) -> int:
    """A child in which a child is made in which ...; the id of the outermost."""
    path = nest.folder / "descend.py"
    path.write_text(DESCEND)
    env = {k: v for k, v in nest.outer.env.items() if not k.startswith("FLUX_")}
    specs = [jobspec([], nest.folder, env, nnodes=nnodes) for nnodes in (None, 2)]
    (nest.folder / "spec.json").write_text(json.dumps(specs))
    command = (sys.executable, str(path), str(depth - 1), str(ranks))
    (jobid,) = nest.submit(
        *command, nnodes=ranks if ranks > 1 else None, output=f"level{depth}.out"
    )
    return jobid


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_children_of_children(nest: Nest, depth: int) -> None:
    """Four ranks, then two, then one, then one again; the status of the innermost comes out."""
    assert nest.status(descend(nest, depth, 4)) == 7
    found = [
        (nest.folder / f"level{level}.out").read_text().split() for level in range(depth, 0, -1)
    ]
    sizes = ["4", "2", "1", "1"]
    assert found == [[str(at + 1), sizes[at]] for at in range(depth)]


@pytest.mark.parametrize("size", [1, 16, 64])
def test_four_levels_on_any_number_of_ranks(
    start: Callable[..., Instance], tmp_path: Path, size: int, on_open_mpi: bool
) -> None:
    """All ranks, half of them, a quarter, an eighth; then all at once on ranks of their own."""
    if on_open_mpi:
        size = min(size, 16)  # its mpiexec takes half a minute for more than that on two cores
    outer = start("--cores-per-rank=2", size=size)
    nest = Nest(outer, tmp_path)
    assert nest.status(descend(nest, 4, size)) == 7
    found = [(tmp_path / f"level{level}.out").read_text().split() for level in range(4, 0, -1)]
    assert found == [[str(at + 1), str(max(1, size >> at))] for at in range(4)]
    ids = [*nest.submit("true", nnodes=max(1, size // 2)), *nest.submit("true", count=size)]
    assert [nest.status(jobid) for jobid in ids] == [0] * (size + 1)
    assert outer.stop() == 0
    outer.assert_nothing_left()


def test_depth_100(nest: Nest) -> None:
    assert nest.status(descend(nest, 100, 1)) == 7
    assert (nest.folder / "level1.out").read_text().split() == ["100", "1"]


# -- its own way ----------------------------------------------------------------------------------


def test_a_configuration_of_its_own(nest: Nest) -> None:
    text = nest.shell(
        "flux-mpi getattr tbon.fanout; python3 -c 'from flux_mpi.client.handle import Handle;"
        ' print(Handle().call("config.get"))\'',
        nnodes=4,
        options=("--conf=sched.queue-policy=easy", "--conf=tbon.fanout=2"),
    )
    assert text.splitlines()[0] == "2"
    assert "easy" in text
    assert "easy" not in str(nest.outer.handle.call("config.get"))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--conf=sched.queue-policy=swift", "swift"),
        ("--conf=brocker.kill-grace=1", "brocker: unknown table, known: broker"),
        ("--conf=broker.kil-grace=1", "broker.kil-grace: unknown key, known: kill-grace"),
        ("--conf=broker.kill-grace=soon", "float is required"),
        ("--conf=sched.queue-policyy=easy", "sched.queue-policyy: unknown key, known: queue-pol"),
        ("--conf=queue-policy=easy", "queue-policy: is not known, sched.queue-policy is"),
        ("--conf=/nowhere.toml", "/nowhere.toml: No such file"),
        ("--frobnicate", "unrecognized option --frobnicate"),
        ("-Srank=1", "read-only"),
        ("--cores-per-rank=9", "--cores-per-rank: not for an instance that has what its job"),
    ],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_bad_options_fail_the_job_and_nothing_else(
    nest: Nest, option: str, said: str, ranks: int
) -> None:
    (jobid,) = nest.submit("true", options=(option,), nnodes=ranks if ranks > 1 else None)
    assert nest.status(jobid) != 0
    assert said in nest.log(jobid)
    nest.outer("run", "true")


# -- its end --------------------------------------------------------------------------------------


def test_the_status_of_the_program_is_the_job_s(nest: Nest) -> None:
    (jobid,) = nest.submit("sh", "-c", "exit 3", nnodes=2)
    assert nest.status(jobid) == 3


def test_a_program_that_is_killed(nest: Nest) -> None:
    (jobid,) = nest.submit("sh", "-c", "kill -9 $$", nnodes=2)
    assert nest.status(jobid) == 128 + signal.SIGKILL


def test_a_program_that_cannot_be_started(nest: Nest) -> None:
    (jobid,) = nest.submit("/nowhere/program", nnodes=2)
    assert nest.status(jobid) == 127
    assert "No such file or directory" in nest.log(jobid)


BELOW = """
import json, subprocess, sys
from flux_mpi.client.handle import Handle
if int(sys.argv[1]):
    with open("spec.json") as file:
        spec = json.load(file)
    handle = Handle()
    first = handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]})["arrays"][0][0]
    handle.rpc("job-manager.wait-all", {"ids": [[first, 1]]}, streaming=True).get()
else:
    subprocess.run(sys.argv[2:])
"""


def running_below(nest: Nest, wait_until: Wait, ranks: int = 2, depth: int = 2) -> tuple[int, int]:
    """A child (of a child …) with a job in it; the id of the outermost, the pid of the job."""
    inner = (
        f"echo $$ > {nest.folder}/pid.new; mv {nest.folder}/pid.new {nest.folder}/pid; sleep 300"
    )
    words = ["flux-mpi", "run", "sh", "-c", inner]
    path = nest.folder / "below.py"
    path.write_text(BELOW)
    env = {k: v for k, v in nest.outer.env.items() if not k.startswith("FLUX_")}
    spec = jobspec([sys.executable, str(path), "0", *words], nest.folder, env)
    (nest.folder / "spec.json").write_text(json.dumps(spec))
    command = (sys.executable, str(path), str(depth - 1), *words)
    (jobid,) = nest.submit(*command, nnodes=ranks)
    pid_path = nest.folder / "pid"
    wait_until(pid_path.exists, "the innermost job runs")
    return jobid, int(pid_path.read_text())


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_a_cancel_reaches_everything_below(nest: Nest, wait_until: Wait) -> None:
    jobid, pid = running_below(nest, wait_until)
    nest.outer("cancel", encode(jobid))
    wait_until(lambda: gone(pid), "the innermost task has ended")
    assert nest.status(jobid) != 0
    assert '"type":"cancel"' in nest.log(jobid)


def test_a_time_limit_reaches_everything_below(nest: Nest, wait_until: Wait) -> None:
    (jobid,) = nest.submit("flux-mpi", "run", "sleep", "300", nnodes=2, duration=1.5)
    nest.status(jobid)
    assert '"type":"timeout"' in nest.log(jobid)


def test_a_child_knows_when_it_ends(nest: Nest) -> None:
    text = nest.shell(
        "python3 -c 'from flux_mpi.client.handle import Handle;"
        ' print(Handle().call("resource.status")["expiration"])\'',
        duration=500.0,
    )
    assert 400 < float(text) - time.time() < 510


def test_a_drain_reaches_the_child(nest: Nest, wait_until: Wait) -> None:
    """What is drained above is drained below, and comes back with it."""
    (jobid,) = nest.submit("sh", "-c", f"echo $FLUX_URI > {nest.folder}/uri; sleep 300", nnodes=4)
    path = nest.folder / "uri"
    wait_until(lambda: path.exists() and path.read_text().strip(), "the child is up")
    with Handle(path.read_text().strip()) as child:
        nest.outer("resource", "drain", "2", "smoke")
        wait_until(lambda: child.call("resource.status")["drained"], "the child knows")
        ((ranks, (_, reason)),) = child.call("resource.status")["drained"].items()
        assert (ranks, reason) == ("2", "by the enclosing instance: smoke")
        nest.outer("resource", "undrain", "2")
        wait_until(lambda: not child.call("resource.status")["drained"], "it is back there too")
    nest.outer("cancel", encode(jobid))
    nest.status(jobid)


def test_other_signals_are_for_the_program(nest: Nest, wait_until: Wait) -> None:
    script = (
        f"trap 'echo got it; exit 5' USR1; echo up > {nest.folder}/up; while :; do sleep 0.05; done"
    )
    (jobid,) = nest.submit("sh", "-c", script)
    wait_until((nest.folder / "up").exists, "the program is up")
    nest.outer("job", "kill", "-s", "USR1", encode(jobid))
    assert nest.status(jobid) == 5
    assert (nest.folder / "child.out").read_text().endswith("got it\n")


def test_shutdown_from_inside(nest: Nest) -> None:
    (jobid,) = nest.submit("sh", "-c", "flux-mpi shutdown; sleep 60", nnodes=2)
    began = time.monotonic()
    nest.status(jobid)
    assert time.monotonic() - began < 30


def test_without_a_program_it_stays_until_it_is_told_to_end(nest: Nest, wait_until: Wait) -> None:
    (jobid,) = nest.submit(nnodes=2)
    wait_until(lambda: '"name":"start"' in nest.log(jobid), "it is up")
    nest.outer("cancel", encode(jobid))
    nest.status(jobid)


def test_a_child_larger_than_its_parent_is_refused(nest: Nest) -> None:
    (jobid,) = nest.submit("true", nnodes=99)
    assert nest.status(jobid) != 0
    assert "unsatisfiable" in nest.log(jobid)


# -- on the same communicator ----------------------------------------------------------------------


def test_beyond_the_limit_of_communicators(start: Callable[..., Instance], tmp_path: Path) -> None:
    """Then children keep their messages apart by a tag, and work as well."""
    outer = start("--cores-per-rank=2", "--conf=overlay.max-communicators=1", size=3)
    nest = Nest(outer, tmp_path)
    script = (
        "echo over $(flux-mpi getattr transport); flux-mpi overlay status -v;"
        "flux-mpi run -N3 -n3 -l flux-mpi getattr rank; sleep {}"
    )
    env = {k: v for k, v in outer.env.items() if not k.startswith("FLUX_")}
    ids = []
    for number, pause in enumerate((1, 0)):
        spec = jobspec(["sh", "-c", script.format(pause)], tmp_path, env, output=f"{number}.out")
        spec["resources"] = [
            {
                "type": "node",
                "count": 3,
                "with": [
                    {
                        "type": "slot",
                        "count": 1,
                        "label": "task",
                        "with": [{"type": "core", "count": 1}],
                    }
                ],
            }
        ]
        answer = outer.handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]})
        ids += [first for first, _ in answer["arrays"]]
    assert [nest.status(jobid) for jobid in ids] == [0, 0]
    texts = [(tmp_path / f"{number}.out").read_text() for number in range(2)]
    assert {text.splitlines()[0] for text in texts} == {"over communicator", "over context"}
    for text in texts:
        assert sorted(line for line in text.splitlines() if ": " in line and line[0] in "012")[-1]
        assert all(f"{rank}: {rank}" in text for rank in range(3))
    assert any("over a context" in text for text in texts)
    assert outer.stop() == 0


# -- deaths ----------------------------------------------------------------------------------------


def test_the_parent_ends_with_children_running(
    start: Callable[..., Instance], tmp_path: Path, wait_until: Wait
) -> None:
    outer = start("--cores-per-rank=2", size=3)
    nest = Nest(outer, tmp_path)
    _, pid = running_below(nest, wait_until, ranks=3)
    assert outer.stop() == 0
    assert gone(pid)
    outer.assert_nothing_left()


def test_a_broker_of_a_child_is_killed(
    start: Callable[..., Instance], tmp_path: Path, wait_until: Wait
) -> None:
    """The job fails at once; who is left of the child goes, and the parent goes on."""
    outer = start("--cores-per-rank=2", size=4)
    nest = Nest(outer, tmp_path)
    (jobid,) = nest.submit(
        "sh", "-c", f"echo up > {tmp_path}/up; flux-mpi run -N4 sleep 300", nnodes=4
    )
    wait_until((tmp_path / "up").exists, "the child is up")
    os.kill(outer.broker_pid(2), signal.SIGKILL)
    began = time.monotonic()
    assert nest.status(jobid) != 0
    assert time.monotonic() - began < 15
    assert "node-failure" in nest.log(jobid)
    text = nest.shell("flux-mpi run -N2 -n2 true && echo fine", nnodes=2, output="after.out")
    assert text == "fine\n"
    outer.stop()


def test_a_broker_dies_while_a_child_is_made(
    start: Callable[..., Instance], tmp_path: Path, wait_until: Wait
) -> None:
    """One that hangs keeps a creation waiting; once it is dead, the others give it up at once."""
    outer = start("--cores-per-rank=2", size=4)
    nest = Nest(outer, tmp_path)
    pid = outer.broker_pid(3)
    os.kill(pid, signal.SIGSTOP)
    (jobid,) = nest.submit("true", nnodes=4)
    wait_until(lambda: len(nest.files()) == 3, "three of four know of it")
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    assert nest.status(jobid) != 0
    assert time.monotonic() - began < 10
    wait_until(lambda: nest.files() == [], "nothing is left of it")
    assert nest.run("echo", "fine", nnodes=3) == "fine\n"
    outer.stop()


def test_a_cancel_while_a_child_is_made(
    start: Callable[..., Instance], tmp_path: Path, wait_until: Wait
) -> None:
    outer = start("--cores-per-rank=2", size=5)
    nest = Nest(outer, tmp_path)
    pid = outer.broker_pid(2)
    os.kill(pid, signal.SIGSTOP)
    (jobid,) = nest.submit("true", nnodes=3)  # on ranks 0 to 2
    wait_until(lambda: len(nest.files()) == 2, "two of three know of it")
    outer("cancel", encode(jobid))
    wait_until(lambda: nest.files() == [], "they have given it up")
    # Who does not need the one that hangs is not kept by it.
    assert nest.run("echo", "fine", nnodes=2) == "fine\n"
    os.kill(pid, signal.SIGCONT)
    assert nest.status(jobid) != 0
    assert nest.run("echo", "fine", nnodes=5, output="again.out") == "fine\n"
    assert outer.stop() == 0
    outer.assert_nothing_left()


def test_the_first_broker_of_a_child_dies(
    start: Callable[..., Instance], tmp_path: Path, wait_until: Wait
) -> None:
    outer = start("--cores-per-rank=2", size=4)
    nest = Nest(outer, tmp_path)
    env = {k: v for k, v in outer.env.items() if not k.startswith("FLUX_")}
    spec = jobspec(["sh", "-c", f"echo up > {tmp_path}/up; sleep 300"], tmp_path, env, nnodes=3)
    spec["attributes"]["system"]["constraints"] = {"ranks": ["1-3"]}
    answer = outer.handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]})
    jobid = answer["arrays"][0][0]
    wait_until((tmp_path / "up").exists, "the child is up")
    os.kill(outer.broker_pid(1), signal.SIGKILL)
    assert nest.status(jobid) != 0
    wait_until(lambda: nest.files() == [], "nothing is left of it")
    assert nest.run("echo", "fine", nnodes=3, output="after.out") == "fine\n"
    outer.stop()


def test_hundreds_leave_nothing(start: Callable[..., Instance], tmp_path: Path) -> None:
    """Neither descriptors, nor threads, nor communicators, nor folders."""
    outer = start("--cores-per-rank=4", size=2)
    nest = Nest(outer, tmp_path)

    def used() -> list[tuple[int, int]]:
        pids = [outer.broker_pid(rank) for rank in range(2)]
        return [
            (len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")))
            for pid in pids
        ]

    def batch(count: int) -> None:
        ids = nest.submit("true", count=count, nnodes=2, output=None)
        ids += nest.submit("true", count=count, output=None)
        for jobid in ids:
            assert nest.status(jobid) == 0

    batch(10)
    before = used()
    batch(150)
    assert nest.files() == []
    assert used() == before
    # Small instances pay for no compiler, and not for NumPy either.
    for rank in range(2):
        maps = Path(f"/proc/{outer.broker_pid(rank)}/maps").read_text()
        assert "llvmlite" not in maps
        assert "numpy" not in maps
    assert outer.stop() == 0
    outer.assert_nothing_left()
