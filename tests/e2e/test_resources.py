"""What an instance has, who may use it, and where jobs are put."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from flux_mpi.formats.idset import IDSet

if TYPE_CHECKING:
    from collections.abc import Callable

    Instance = Any


def table(text: str) -> dict[str, list[str]]:
    """``resource list``: columns by state."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}


def allocation(flux: Instance, jobid: str) -> dict[int, set[int]]:
    """Cores by rank."""
    resources = json.loads(flux.out("job", "info", jobid, "R"))
    return {
        rank: set(IDSet.parse(group["children"]["core"]))
        for group in resources["execution"]["R_lite"]
        for rank in IDSet.parse(str(group["rank"]))
    }


# -- what there is --------------------------------------------------------------------------------


def test_list_and_info(flux: Instance) -> None:
    header = flux.out("resource", "list").splitlines()[0]
    assert header.split() == ["STATE", "NNODES", "NCORES", "NGPUS", "NODELIST"]
    assert flux.out("resource", "info") == "4 Nodes, 16 Cores, 0 GPUs"
    text = flux.out("resource", "list", "-no", "{state} {nnodes} {ncores} {ngpus} {ranks}")
    assert [line.split() for line in text.splitlines()] == [
        ["free", "4", "16", "0", "0-3"],
        ["allocated", "0", "0", "0"],
        ["down", "0", "0", "0"],
    ]
    flux("submit", "--quiet", "--wait-event=alloc", "-n5", "sleep", "60")
    found = table(flux.out("resource", "list"))
    assert found["allocated"][:3] == ["2", "5", "0"]
    assert found["free"][1] == "11"


def test_r_is_version_1(flux: Instance) -> None:
    resources = json.loads(flux.out("resource", "R"))
    assert resources["version"] == 1
    assert resources["execution"]["R_lite"] == [{"rank": "0-3", "children": {"core": "0-3"}}]
    assert resources["execution"]["starttime"] == 0.0
    assert len(resources["execution"]["nodelist"]) == 1
    assert json.loads(flux.out("resource", "list", "--json"))["resources"][0]["ncores"] == 16


def test_ranks_of_a_node_share_its_cores(start: Callable[..., Instance]) -> None:
    """Nothing emulated: all ranks together have what one of them would have alone."""
    import os

    cpus = len(os.sched_getaffinity(0))
    instance = start(size=2)
    assert instance.handle.call("resource.info")["nnodes"] == 2
    cores = instance.handle.call("resource.info")["ncores"]
    assert cores <= max(2, cpus)  # one each at least, even where there is only one


# -- drained --------------------------------------------------------------------------------------


def test_drained_nodes_get_no_jobs(flux: Instance) -> None:
    flux("resource", "drain", "3", "bad", "node")
    header, line = flux.out("resource", "drain").splitlines()
    assert header.split() == ["TIME", "STATE", "REASON", "NODELIST"]
    assert re.match(r"^\w{3}\d\d \d\d:\d\d +drained +bad node +\S+$", line)
    assert table(flux.out("resource", "list"))["down"][:2] == ["1", "4"]
    status = flux.out("resource", "status")
    assert re.search(r"^ *drained +\S+ +1 ", status, re.MULTILINE)
    # Twelve cores are left; what needs sixteen waits, and is not refused.
    seen = flux.out("run", "-N3", "-n3", "flux-mpi", "getattr", "rank").split()
    assert sorted(seen) == ["0", "1", "2"]
    jobid = flux.out("submit", "-n16", "true")
    assert flux.states()["sched"] == 1
    assert "already drained" in flux("resource", "drain", "3", "again", status=1).stderr
    flux("resource", "undrain", "3")
    assert "not drained" in flux("resource", "undrain", "3", status=1).stderr
    flux("job", "attach", jobid)
    log = flux.out("resource", "eventlog")
    assert re.search(r'^\d+\.\d+ drain idset="3" .*reason="bad node"', log, re.MULTILINE)
    assert re.search(r'^\d+\.\d+ undrain idset="3"', log, re.MULTILINE)


def test_a_node_that_is_drained_while_a_job_runs_there(flux: Instance) -> None:
    jobid = flux.out("submit", "--wait-event=start", "-N4", "-n4", "sleep", "60")
    flux("resource", "drain", "1")
    assert "draining" in flux.out("resource", "drain")
    flux("cancel", jobid)
    flux("job", "wait-event", jobid, "clean")
    assert re.search(r" drained ", flux.out("resource", "drain"))


def test_no_such_rank(flux: Instance) -> None:
    assert "out of range" in flux("resource", "drain", "99", status=1).stderr
    flux("resource", "drain", "no-such-host", status=1)
    assert flux.handle.call("resource.status")["drained"] == {}


# -- where jobs are put ---------------------------------------------------------------------------


def test_nodes_are_taken_whole_without_ntasks(flux: Instance) -> None:
    jobid = flux.out("submit", "-N2", "--wait", "true")
    given = allocation(flux, jobid)
    assert list(given.values()) == [{0, 1, 2, 3}] * 2


def test_slots_are_what_was_asked_for(flux: Instance) -> None:
    jobid = flux.out("submit", "-N2", "-n4", "-c2", "--wait", "true")
    given = allocation(flux, jobid)
    assert len(given) == 2
    assert all(len(cores) == 4 for cores in given.values())
    jobid = flux.out("submit", "-n3", "-c3", "--wait", "true")
    given = allocation(flux, jobid)
    assert sum(len(cores) for cores in given.values()) == 9


def test_small_jobs_keep_whole_nodes_free(flux: Instance) -> None:
    jobs = [flux.out("submit", "--wait-event=alloc", "-n1", "sleep", "60") for _ in range(4)]
    ranks = {rank for job in jobs for rank in allocation(flux, job)}
    assert len(ranks) == 1
    cores = [core for job in jobs for found in allocation(flux, job).values() for core in found]
    assert sorted(cores) == [0, 1, 2, 3]
    assert len(allocation(flux, flux.out("submit", "--wait", "-N3", "true"))) == 3


def test_no_core_is_given_twice(flux: Instance) -> None:
    flux("submit", "--quiet", "--cc=1-40", "-n1", "-c2", "--wait-event=submit", "sleep", "0.05")
    flux("queue", "drain")
    events = []
    for job in flux.handle.rpc("job-list.list", {"max_entries": 40, "states": 127, "results": 15},
                               streaming=True):  # fmt: skip
        for each in job["jobs"]:
            resources = json.loads(flux.out("job", "info", str(each["id"]), "R"))
            (group,) = resources["execution"]["R_lite"]
            cores = [(group["rank"], c) for c in IDSet.parse(group["children"]["core"])]
            assert len(cores) == 2
            events.append((each["t_run"], each["t_cleanup"], cores))
        break
    assert len(events) == 40
    for begin, end, cores in events:
        for other_begin, other_end, others in events:
            if other_begin < begin < other_end:
                assert not set(cores) & set(others), (begin, end, other_begin, other_end)


def test_a_larger_job_is_not_starved(flux: Instance) -> None:
    """First in, first out: what is behind it does not overtake."""
    flux("submit", "--quiet", "-n16", "sleep", "0.3")
    big = flux.out("submit", "-n16", "true")
    small = flux.out("submit", "-n1", "true")
    flux("queue", "drain")

    def allocated(jobid: str) -> float:
        log = flux.out("job", "eventlog", jobid)
        found = re.search(r"^(\d+\.\d+) alloc", log, re.MULTILINE)
        assert found
        return float(found.group(1))

    assert allocated(big) <= allocated(small)


@pytest.mark.parametrize(
    ("words", "asked", "found"),
    [
        (["-N5"], "5 exclusive node(s)", "only 4"),
        (["-n17"], "17 slot(s) of 1 core(s)", "only 16"),
        (["-n1", "-c5"], "1 slot(s) of 5 core(s)", "only 0"),
        (["-n1", "-g1"], "1 GPU(s)", "only 0"),
        (["-N4", "-n4", "-c5"], "4 node(s) with 5 cores each", "only 0"),
        (["--requires=no-such-property"], "", "only 0"),
        (["--requires=rank:9"], "", ""),
    ],
)
def test_what_can_never_run_is_refused(
    flux: Instance, words: list[str], asked: str, found: str
) -> None:
    done = flux("run", *words, "true", status=1)
    assert "unsatisfiable request" in done.stderr
    assert asked in done.stderr
    assert found in done.stderr
    assert flux.out("jobs") == flux.out("jobs").splitlines()[0]  # none waits for ever
    submitted = flux("submit", *words, "true", status=None)
    if submitted.returncode == 0:  # as with Flux: an id, and a job that has failed
        done = flux("job", "attach", submitted.stdout.strip(), status=1)
        assert "unsatisfiable" in done.stderr
    else:
        assert "unsatisfiable" in submitted.stderr


def test_requires(flux: Instance) -> None:
    assert flux.out("run", "--requires=rank:2", "flux-mpi", "getattr", "rank") == "2"
    seen = flux.out("run", "-N2", "-n2", "--requires=-rank:0-1", "flux-mpi", "getattr", "rank")
    assert sorted(seen.split()) == ["2", "3"]


def test_gpus_are_given_out(start: Callable[..., Instance]) -> None:
    instance = start("--cores-per-rank=2", "--gpus-per-rank=2", size=2)
    assert instance.out("resource", "info") == "2 Nodes, 4 Cores, 4 GPUs"
    jobid = instance.out("submit", "-n2", "-g2", "--wait", "true")
    resources = json.loads(instance.out("job", "info", jobid, "R"))
    gpus = {
        (rank, gpu)
        for group in resources["execution"]["R_lite"]
        for rank in IDSet.parse(str(group["rank"]))
        for gpu in IDSet.parse(group["children"]["gpu"])
    }
    assert gpus == {(0, 0), (0, 1), (1, 0), (1, 1)}
    instance("run", "-n1", "-g3", "true", status=1)
    script = "echo $CUDA_VISIBLE_DEVICES"
    assert instance.out("run", "-n1", "-g2", "sh", "-c", script) == "0,1"
