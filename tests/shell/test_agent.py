"""The agent: what the root says goes in, what the supervisor is told comes out, and back."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from flux_mpi.formats import fluid
from flux_mpi.shell.affinity import Topology
from flux_mpi.shell.agent import CREDIT_STEP, Agent
from flux_mpi.shell.output import OutputStore, Spool
from flux_mpi.shell.plan import APPEND, TRUNCATE
from flux_mpi.shell.scratch import Scratch

KEY = 1000 << 24
NOW = 50.0


class Bench:
    """An agent, and a supervisor played by the test."""

    def __init__(self, folder: Path, **how: Any) -> None:
        numbers = itertools.count(1)
        self.env: dict[int, dict[bytes, bytes]] = {}
        self.store = OutputStore(Spool(str(folder / "spool")))
        self.agent = Agent(
            rank=3,
            hostname="vm",
            next_tid=lambda: next(numbers),
            store=self.store,
            topology=Topology({core: (core,) for core in range(4)}),
            uri="local:///run/x",
            **how,
        )

    def start(
        self,
        *,
        command: list[str] | None = None,
        member: int = 0,
        nodeid: int = 0,
        first: int = 0,
        ntasks: int = 1,
        cores: str | None = "0",
        gpus: str = "",
        nnodes: int = 1,
        size: int | None = None,
        **spec: Any,
    ) -> list[list[Any]]:
        """Start one job; returns the spawn commands."""
        full = {
            "command": ["cmd", "arg"] if command is None else command,
            "env": {"HOME": "/h", "PMI_RANK": "9"},
            "cwd": "/work",
            "options": {},
            "params": None,
            "job_name": None,
            **spec,
        }
        size = ntasks if size is None else size
        row = [KEY + member, KEY, member, nodeid, first, ntasks, cores, gpus, nnodes, size]
        self.agent.start({KEY: full}, [row], NOW)
        return [entry for entry in self.take() if entry[0] == "spawn"]

    def take(self) -> list[list[Any]]:
        commands = list(self.agent.commands)
        self.agent.commands.clear()
        self.env = {entry[1]: entry[2] for entry in commands if entry[0] == "env"} or self.env
        return commands

    def events(self) -> list[list[Any]]:
        events = list(self.agent.events)
        self.agent.events.clear()
        return events

    def started(self, tid: int, pid: int, when: float = 51.0) -> None:
        self.agent.report(["started", tid, pid, when])

    def exited(self, tid: int, status: int = 0, when: float = 52.0) -> None:
        self.agent.report(["exited", tid, status, when, 0.0, 0.0, 100])

    def whole_env(self, spawn: list[Any]) -> dict[bytes, bytes]:
        return {**self.env[KEY], **spawn[4]}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def lease(bench: Bench, after: int, member: int, **spec: Any) -> list[list[Any]]:
    """Lease a member of the array that `Bench.start` has started; the commands."""
    row = [KEY + member, KEY, member, 0, 0, 1, "0", "", 1, 1]
    bench.agent.start({}, [], NOW, [[after, row]])
    return bench.take()


def test_a_lease_follows_the_task_before_it(bench: Bench) -> None:
    (first,) = bench.start()
    ((word, before, second),) = lease(bench, KEY, 1)
    assert (word, before, second[0]) == ("after", first[1], "spawn")
    assert second[2] == first[2]
    assert second[4][b"FLUX_JOB_ID"] == fluid.encode(KEY + 1).encode()
    assert lease(bench, KEY + 1, 2)[0][1] == second[1]
    bench.started(first[1], 7)
    bench.exited(first[1])
    bench.started(second[1], 8)
    bench.exited(second[1], 256)
    assert [event[:2] for event in bench.events()] == [
        [KEY, "start"],
        [KEY, "exit"],
        [KEY + 1, "start"],
        [KEY + 1, "exit"],
    ]


def test_a_lease_behind_what_has_ended_starts_at_once(bench: Bench) -> None:
    (first,) = bench.start()
    bench.started(first[1], 7)
    bench.exited(first[1])
    (spawn,) = lease(bench, KEY, 1)
    assert spawn[0] == "spawn"


def test_a_lease_can_be_taken_back_until_it_begins(tmp_path: Path) -> None:
    bench = Bench(tmp_path, scratch=Scratch(str(tmp_path)))
    (first,) = bench.start()
    ((_, _, second),) = lease(bench, KEY, 1)
    ((_, _, third),) = lease(bench, KEY + 1, 2)
    bench.started(first[1], 7)
    bench.exited(first[1])
    bench.started(second[1], 8)
    bench.events()
    bench.agent.recall([KEY, KEY + 1, KEY + 2, KEY + 3])
    assert bench.take() == [["recall", [third[1]]]]
    bench.agent.report(["returned", third[1]])
    assert [event[:2] for event in bench.events()] == [[KEY + 2, "returned"]]
    assert not bench.agent.has(KEY + 2)
    # The same job may come again, and the array can still be forgotten.
    row = [KEY + 2, KEY, 2, 0, 0, 1, "0", "", 1, 1]
    bench.agent.start({}, [row], NOW)
    (again,) = bench.take()
    bench.agent.forget([KEY])
    for spawn in (second, again):
        bench.exited(spawn[1])
    assert bench.take() == [["forget", KEY]]
    assert not bench.agent.busy


def test_a_lease_that_cannot_start_says_so_in_its_turn(bench: Bench) -> None:
    spec = {"command": ["cmd", "{cc}"], "params": {"cc": "0-1"}}
    (first,) = bench.start(**spec)
    ((_, _, broken),) = lease(bench, KEY, 2)  # the array has no such member
    ((_, before, third),) = lease(bench, KEY + 2, 1)
    assert before == broken[1]
    assert bench.events() == []
    bench.started(first[1], 7)
    bench.exited(first[1])
    assert broken[2] == []
    bench.agent.report(["failed", broken[1], errno.EINVAL, "an empty command"])
    bench.started(third[1], 8)
    start, exit_, error, _ = bench.events()
    assert [start[:2], exit_[:2], error[:2]] == [[KEY, "start"], [KEY, "exit"], [KEY + 2, "error"]]
    assert "empty" not in error[5]


def test_one_task_from_start_to_exit(bench: Bench) -> None:
    (spawn,) = bench.start()
    assert spawn[2] == [b"cmd", b"arg"]
    assert spawn[5:] == [b"/work", (0,), "null", "pipe", "pipe"]
    env = bench.whole_env(spawn)
    f58 = fluid.encode(KEY).encode()
    assert env == {
        b"HOME": b"/h",
        b"FLUX_URI": b"local:///run/x",
        b"FLUX_JOB_ID": f58,
        b"FLUX_JOB_ID_PATH": b"/" + f58,
        b"FLUX_JOB_SIZE": b"1",
        b"FLUX_JOB_NNODES": b"1",
        b"FLUX_TASK_RANK": b"0",
        b"FLUX_TASK_LOCAL_ID": b"0",
        b"FLUX_KVS_NAMESPACE": b"job-%d" % KEY,
        b"CUDA_VISIBLE_DEVICES": b"-1",
        b"CUDA_DEVICE_ORDER": b"PCI_BUS_ID",
    }
    bench.started(1, 4321)
    bench.exited(1, 256)
    assert bench.events() == [
        [KEY, "start", 51.0, 0, [4321]],
        [KEY, "exit", 52.0, 0, [[0, 4321, 256]]],
    ]
    assert bench.agent.running == 0


def test_several_tasks_on_a_second_node(bench: Bench) -> None:
    spawns = bench.start(
        nodeid=1, first=4, ntasks=2, nnodes=2, size=6, cores="0-3", gpus="0-1",
        options={"cpu-affinity": "per-task", "gpu-affinity": "per-task"},
    )  # fmt: skip
    assert [spawn[6] for spawn in spawns] == [(0, 1), (2, 3)]
    envs = [bench.whole_env(spawn) for spawn in spawns]
    for name, values in {
        b"FLUX_TASK_RANK": [b"4", b"5"],
        b"FLUX_TASK_LOCAL_ID": [b"0", b"1"],
        b"FLUX_JOB_SIZE": [b"6", b"6"],
        b"FLUX_JOB_NNODES": [b"2", b"2"],
        b"CUDA_VISIBLE_DEVICES": [b"0", b"1"],
    }.items():
        assert [env[name] for env in envs] == values
    bench.started(1, 11)
    assert bench.events() == []
    bench.started(2, 12)
    assert bench.events() == [[KEY, "start", 51.0, 1, [11, 12]]]
    bench.exited(2, 9)
    assert bench.events() == []
    bench.exited(1, 0)
    assert bench.events() == [[KEY, "exit", 52.0, 1, [[4, 11, 0], [5, 12, 9]]]]


@pytest.mark.parametrize(
    ("option", "cpus"),
    [("on", (0, 1)), ("off", None), ("map:2", (2,)), ("dry-run,per-task", None)],
)
def test_binding_of_a_single_task(bench: Bench, option: str, cpus: object) -> None:
    (spawn,) = bench.start(cores="0-1", options={"cpu-affinity": option})
    assert spawn[6] == cpus


def test_no_cores_no_binding(bench: Bench) -> None:
    assert [spawn[6] for spawn in bench.start(cores=None, ntasks=2)] == [None, None]


def test_one_failed_start_ends_the_others(bench: Bench) -> None:
    bench.start(ntasks=3, first=6)
    bench.started(1, 11)
    bench.started(2, 12)
    bench.agent.report(["failed", 3, errno.ENOENT, "/no/such/cmd"])
    assert bench.take() == [["kill", 1, 9], ["kill", 2, 9]]
    bench.exited(1, 9)
    assert bench.events() == []
    bench.exited(2, 9)
    text = "task 8 (host vm): start failed: /no/such/cmd: No such file or directory"
    assert bench.events() == [[KEY, "error", 52.0, 0, errno.ENOENT, text]]


def test_killed_before_it_started_is_a_start_and_an_exit(bench: Bench) -> None:
    bench.start()
    assert bench.agent.kill(KEY, signal.SIGTERM)
    assert bench.take() == [["kill", 1, 15]]
    bench.exited(1, 15)
    assert bench.events() == [
        [KEY, "start", 52.0, 0, [0]],
        [KEY, "exit", 52.0, 0, [[0, 0, 15]]],
    ]
    assert not bench.agent.kill(KEY, 15)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"options": {"cpu-affinity": "sideways"}}, "cpu-affinity"),
        ({"options": {"output": {"limit": "much"}}}, "output.limit"),
        ({"options": {"output": {"stdout": {"type": "tape"}}}}, "tape"),
        ({"options": {"output": {"stdout": {"type": "file"}}}}, "path"),
        ({"options": {"rlimit": {"patience": 3}}}, "patience"),
        ({"command": ["{3}"], "params": {"rows": [["a"]]}}, "no input 3"),
        ({"command": ["{}"], "params": {"rows": []}}, "start failed"),
    ],
)
def test_a_spec_that_makes_no_sense_is_an_error(
    bench: Bench, spec: dict[str, Any], words: str
) -> None:
    assert bench.start(**spec) == []
    (event,) = bench.events()
    assert event[:2] == [KEY, "error"]
    assert event[4] == errno.EINVAL
    assert words in event[5]
    assert bench.agent.running == 0


def test_a_missing_spec_is_an_error(bench: Bench) -> None:
    bench.agent.start({}, [[5, 4, 0, 0, 0, 1, "0", "", 1, 1]], NOW)
    assert bench.events()[0][:2] == [5, "error"]


def test_members_of_an_array_get_their_own(bench: Bench) -> None:
    spec: dict[str, Any] = {
        "command": ["sim", "{cc}", "awk '{print $1}'", "{{id}}"],
        "env": {"FLUX_JOB_CC": "{cc}", "F": "() { :; }"},
        "cwd": "/work/{cc}",
        "params": {"cc": "5,7,9"},
    }
    spawns = bench.start(member=1, **spec)
    row = [KEY + 2, KEY, 2, 0, 0, 1, "0", "", 1, 1]
    bench.agent.start({}, [row], NOW)
    second = next(entry for entry in bench.take() if entry[0] == "spawn")
    f58 = fluid.encode(KEY + 1).encode()
    assert spawns[0][2] == [b"sim", b"7", b"awk '{print $1}'", f58]
    assert second[2][:2] == [b"sim", b"9"]
    assert (spawns[0][5], second[5]) == (b"/work/7", b"/work/9")
    assert bench.whole_env(spawns[0])[b"FLUX_JOB_CC"] == b"7"
    assert bench.whole_env(second)[b"FLUX_JOB_CC"] == b"9"
    assert bench.whole_env(second)[b"F"] == b"() { :; }"


def test_rows_of_bulksubmit(bench: Bench) -> None:
    rows = [["a.c", "1"], ["b/x.c", "2"]]
    (spawn,) = bench.start(
        member=1, command=["cc", "{0}", "-O{1}", "{0./%}", "{seq}"], params={"rows": rows}
    )
    assert spawn[2] == [b"cc", b"b/x.c", b"-O2", b"x", b"1"]


def output(**streams: Any) -> dict[str, Any]:
    return {"output": streams}


def test_one_file_for_all_tasks_is_truncated_once(bench: Bench) -> None:
    spawns = bench.start(ntasks=2, options=output(stdout={"type": "file", "path": "out.{{id}}"}))
    path = b"out." + fluid.encode(KEY).encode()
    assert spawns[0][8] == ["file", path, TRUNCATE]
    assert spawns[0][9] == spawns[0][8]  # stderr goes where stdout goes
    assert spawns[1][8] == ["file", path, APPEND]


def test_files_of_tasks_nodes_and_streams(bench: Bench) -> None:
    spawns = bench.start(
        nodeid=1, first=2, ntasks=2, nnodes=2, size=4,
        options=output(stdout={"type": "file", "path": "o.{{taskid}}"},
                       stderr={"type": "file", "path": "e.{{node.id}}.{{node.name}}"}),
    )  # fmt: skip
    assert [spawn[8] for spawn in spawns] == [
        ["file", b"o.2", TRUNCATE],
        ["file", b"o.3", TRUNCATE],
    ]
    assert [spawn[9] for spawn in spawns] == [
        ["file", b"e.1.vm", TRUNCATE],
        ["file", b"e.1.vm", APPEND],
    ]


def test_only_the_first_node_truncates_a_shared_file(bench: Bench) -> None:
    (spawn,) = bench.start(nodeid=1, nnodes=2, options=output(stdout={"path": "out"}))
    assert spawn[8] == ["file", b"out", APPEND]


def test_append_mode_none_and_captured_stderr(bench: Bench) -> None:
    options = output(mode="append", stdout={"type": "file", "path": "out"}, stderr={"type": "kvs"})
    (spawn,) = bench.start(options=options)
    assert spawn[8:10] == [["file", b"out", APPEND], "pipe"]
    bench.agent.kill(KEY, 9)
    bench.exited(1)
    (spawn,) = bench.start(options=output(stdout={"type": "none"}))
    assert spawn[8:10] == ["null", "null"]


def test_options_may_be_spelled_with_dots(bench: Bench) -> None:
    (spawn,) = bench.start(options={"output.mode": "append", "output": {"stdout": {"path": "o"}}})
    assert spawn[8] == ["file", b"o", APPEND]


def test_labelled_files_are_put_together_here(bench: Bench, tmp_path: Path) -> None:
    stdout = {"type": "file", "path": "out.{{name}}", "label": True}
    spawns = bench.start(ntasks=2, cwd=str(tmp_path), options=output(stdout=stdout))
    assert [spawn[8:10] for spawn in spawns] == [["pipe", "pipe"]] * 2
    for tid, data in ((1, b"a\nb"), (2, b"c\n"), (1, b"\n")):
        bench.agent.report(["output", tid, 1, data])
    bench.started(1, 11)
    bench.started(2, 12)
    bench.exited(1)
    bench.exited(2)
    assert (tmp_path / "out.cmd").read_text() == "0: a\n1: c\n0: b\n"
    assert bench.events()[-1][1] == "exit"


def test_a_labelled_file_that_cannot_be_opened_is_a_failed_start(
    bench: Bench, tmp_path: Path
) -> None:
    stdout = {"type": "file", "path": "no/such/out", "label": True}
    assert bench.start(cwd=str(tmp_path), options=output(stdout=stdout)) == []
    (event,) = bench.events()
    assert event[4] == errno.ENOENT
    assert f"start failed: {tmp_path}/no/such/out: No such file or directory" in event[5]


def test_captured_output_can_be_read_and_credit_is_returned(bench: Bench) -> None:
    bench.start()
    bench.started(1, 11)
    got: list[Any] = []
    bench.store.watch(KEY, True, got.extend, lambda: got.append("end"), follow=True)
    bench.agent.report(["output", 1, 1, b"hello"])
    bench.agent.report(["output", 1, 2, b"x" * CREDIT_STEP])
    bench.store.deliver()
    assert [entry[1:3] for entry in got] == [[1, 0], [2, 0]]
    assert bench.take() == [["credit", 1, CREDIT_STEP + 5]]
    bench.exited(1)
    bench.store.deliver()
    assert got[-1] == "end"


def test_credit_waits_for_a_slow_reader(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux_mpi.shell.output.LAG_LIMIT", 1000)
    bench.start()
    watcher = bench.store.watch(KEY, True, lambda _: None, lambda: None, follow=True, window=1)
    assert watcher is not None
    for _ in range(3):
        bench.agent.report(["output", 1, 1, b"x" * CREDIT_STEP])
    assert [entry[0] for entry in bench.take()] == []
    while not bench.agent.commands:
        bench.store.acknowledge(watcher, 1 << 20)
        moved, _ = bench.store.deliver()
        assert moved
        bench.agent.release(moved)
    assert sum(entry[2] for entry in bench.take()) == 3 * CREDIT_STEP


def test_input_goes_to_whom_it_is_for(bench: Bench) -> None:
    options = {"input": {"stdin": {"type": "service"}}}
    spawns = bench.start(ntasks=2, options=options)
    assert [spawn[7] for spawn in spawns] == ["pipe", "pipe"]
    done: list[str] = []
    assert bench.agent.stdin(KEY, None, b"all", False, lambda: done.append("all")) is None
    assert bench.agent.stdin(KEY, "1", b"one", True, lambda: done.append("one")) is None
    assert bench.take() == [
        ["stdin", 1, b"all", False],
        ["stdin", 2, b"all", False],
        ["stdin", 1, b"", True],  # nothing more will come for it either
        ["stdin", 2, b"one", True],
    ]
    bench.agent.report(["fed", 2, 5])
    assert done == []
    bench.agent.report(["fed", 1, 3])
    assert done == ["all"]
    bench.exited(2)
    assert done == ["all", "one"]


def test_input_for_those_who_read_none(bench: Bench) -> None:
    bench.start()
    assert "input.stdin" in str(bench.agent.stdin(KEY, None, b"x", False, lambda: None))
    assert bench.agent.stdin(KEY + 9, None, b"x", False, lambda: None) == "no such job here"


def test_input_from_a_file(bench: Bench) -> None:
    options = {"input": {"stdin": {"type": "file", "path": "in.{{taskid}}"}}}
    (spawn,) = bench.start(first=3, options=options)
    assert spawn[7] == ["file", b"in.3", os.O_RDONLY]


def test_limits_that_differ_are_passed_on(bench: Bench) -> None:
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    (spawn,) = bench.start(options={"rlimit": {"nofile": soft, "core": 12345}})
    assert spawn[10] == {"core": 12345}


def test_specs_are_dropped_when_their_last_job_has_ended(bench: Bench) -> None:
    bench.start()
    bench.agent.forget([KEY])
    assert bench.take() == []
    bench.exited(1)
    assert bench.take() == [["forget", KEY]]
    bench.start()
    bench.exited(2)
    bench.agent.forget([KEY, 77])
    assert bench.take() == [["forget", KEY]]


def test_temporary_directories(tmp_path: Path) -> None:
    bench = Bench(tmp_path, scratch=Scratch(str(tmp_path)))
    (spawn,) = bench.start(command=["ls", "{{tmpdir}}"])
    tmpdir = bench.whole_env(spawn)[b"FLUX_JOB_TMPDIR"]
    assert spawn[2] == [b"ls", tmpdir]
    assert os.listdir(tmpdir) == []
    (Path(os.fsdecode(tmpdir)) / "left").touch()
    bench.exited(1)
    (removal,) = bench.take()
    assert removal[2] == [b"rm", b"-rf", b"--", tmpdir]
    bench.agent.report(["exited", removal[1], 0, 1.0, 0.0, 0.0, 0])  # nobody's task: ignored
    assert [event[1] for event in bench.events()] == ["start", "exit"]


def test_a_nested_instances_path_and_all_jobs_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, path="/ƒABC", surroundings={"FLUX_ENCLOSING_ID": "ƒABC"})
    (spawn,) = bench.start()
    env = bench.whole_env(spawn)
    assert env[b"FLUX_JOB_ID_PATH"].decode() == f"/ƒABC/{fluid.encode(KEY)}"
    assert env[b"FLUX_ENCLOSING_ID"].decode() == "ƒABC"
    bench.started(1, 11)
    assert bench.agent.pids() == [11]
    assert bench.agent.kill_all(9) == 1
    assert bench.take() == [["kill", 1, 9]]
