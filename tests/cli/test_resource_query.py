"""The session of ``resource-query``: its language, its book of jobs, what it tells and where.

What is matched is the matcher's matter; here a stand-in gives whole nodes, one after another.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flux_mpi.cli import rq_commands
from flux_mpi.cli.options import UsageError
from flux_mpi.cli.resource_query import COMMAND
from flux_mpi.cli.rq_graph import write_graph
from flux_mpi.cli.rq_session import Session
from flux_mpi.resource.graph import ResourceGraph

RULE = "INFO: =============================\n"


def machine() -> ResourceGraph:
    """A cluster of two nodes with two cores each."""
    graph = ResourceGraph()
    cluster = graph.add_vertex("cluster", "tiny", 0)
    graph.set_root("containment", cluster)
    for i in range(2):
        node = graph.add_vertex("node", "node", i, rank=i)
        graph.add_edge(cluster, node)
        for k in range(2):
            graph.add_edge(node, graph.add_vertex("core", "core", k, rank=i))
    graph.freeze()
    return graph


class Outcome(SimpleNamespace):
    """As a tuple: status, at, message."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.status, self.at, self.message))


def outcome(status: str, at: int = 0, message: str = "") -> Outcome:
    return Outcome(status=status, at=at, message=message)


class FakeMatcher:
    """Gives node0, then node1, then reserves node0 at 100 s; more than two are unsatisfiable."""

    subsystems = ("containment",)

    def __init__(self) -> None:
        self.graph = machine()
        self.preorder, self.postorder = 3, 2
        self.held: dict[int, int] = {}
        self.reserved: dict[int, int] = {}

    def _emit(self, writer: Any, node: int) -> None:
        for core in self.graph.children(node):
            writer.vertex(3, core, 1, True, False)
        writer.vertex(2, node, 1, True, False)
        writer.vertex(1, 0, 1, False, False)

    def match(self, op: str, job: Any, job_id: int, writer: Any, at: int = 0) -> Outcome:
        if job.duration > 1000:
            return outcome("invalid", message="the job outlives the graph")
        if job.resources[0].min > 2:
            return outcome("unsatisfiable")
        if op == "satisfiability":
            return outcome("matched")
        free = [n for n in self.graph.of_type("node") if n not in self.held.values()]
        if not free and op not in ("allocate_orelse_reserve", "without_allocating_future"):
            return outcome("busy")
        node, at = (free[0], 0) if free else (self.graph.of_type("node")[0], 100)
        if not op.startswith("without"):
            (self.reserved if at else self.held)[job_id] = node
        self._emit(writer, node)
        return outcome("matched", at)

    def update(
        self, job_id: int, text: str, format: str, at: int, duration: int, writer: Any
    ) -> Outcome:
        if "node1" not in text:
            raise ValueError("graph.nodes: expected a list")
        self.held[job_id] = node = self.graph.of_type("node")[1]
        self._emit(writer, node)
        return outcome("matched", at)

    def cancel(self, job_id: int) -> None:
        if self.held.pop(job_id, None) is None:
            del self.reserved[job_id]

    def partial_cancel(self, job_id: int, text: str, format: str) -> bool:
        if text == "bad":
            raise ValueError("bad R")
        if text == "all":
            del self.held[job_id]
        return text == "all"

    def attach(self, text: str, format: str = "jgf") -> None:
        raise ValueError("no JGF")

    def remove_path(self, path: str) -> None:
        if path != "/tiny0/node1":
            raise ValueError(f"no path {path}")

    def remove_ranks(self, ranks: Iterable[int]) -> None:
        if list(ranks) != [1]:
            raise ValueError("no such ranks")

    def mark_path(self, path: str, status: int) -> None:
        for vertex in self.graph.find_path(path):
            self.graph.set_status(vertex, status)

    # What find asks.

    def allocations(self, vertex: int) -> list[int]:
        return [job for job, node in self.held.items() if node == vertex]

    def reservations(self, vertex: int) -> list[int]:
        return [job for job, node in self.reserved.items() if node == vertex]

    def tags(self, vertex: int) -> list[int]:
        return []

    def spans(self, vertex: int) -> list[int]:
        return self.allocations(vertex)

    def tracked(self, vertex: int) -> list[tuple[str, int]]:
        return {"cluster": [("node", 2), ("core", 4)], "node": [("core", 2)]}.get(
            self.graph.type(vertex), []
        )

    def used(self, vertex: int, index: int, at: int) -> int:
        return 2 if at == 0 and vertex in self.held.values() else 0

    def planned(self, vertex: int, job_id: int) -> list[int]:
        return [2]


class Shell:
    """A session with what it told: `out` (the matches), and stdout and stderr."""

    def __init__(self, capsys: Any, format: str = "simple", elapse: bool = False) -> None:
        self.capsys = capsys
        self.file = io.StringIO()
        self.matcher = FakeMatcher()
        self.session = Session(self.matcher, format, self.file, elapse=elapse)  # type: ignore[arg-type]
        self.over = False
        self.stdout = self.stderr = ""

    def __call__(self, *lines: str) -> str:
        """Runs lines; returns what went into the file of matches."""
        start = self.file.tell()
        for line in lines:
            self.over = rq_commands.execute(self.session, line)
        self.stdout, self.stderr = self.capsys.readouterr()
        return self.file.getvalue()[start:]


@pytest.fixture
def shell(capsys: Any) -> Shell:
    return Shell(capsys)


@pytest.fixture
def job(tmp_path: Path) -> str:
    return jobspec(tmp_path / "job.json")


def jobspec(path: Path, count: int = 1, type: str = "node", duration: int = 60) -> str:
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "resources": [{"type": type, "count": count, "exclusive": True}],
                "attributes": {"system": {"duration": duration}},
                "tasks": [],
            }
        )
    )
    return str(path)


def told(job_id: int, state: str = "ALLOCATED", at: str = "Now") -> str:
    return f"{RULE}INFO: JOBID={job_id}\nINFO: RESOURCES={state}\nINFO: SCHEDULED AT={at}\n{RULE}"


def tree(node: str) -> str:
    return (
        f"      ---------core0[1:x]\n      ---------core1[1:x]\n"
        f"      ------{node}[1:x]\n      ---tiny0[1:s]\n"
    )


def test_match(shell: Shell, job: str) -> None:
    assert shell(f"match allocate {job}") == tree("node0") + told(1)
    assert shell(f"m allocate {job}") == tree("node1") + told(2)
    busy = f"{RULE}INFO: No matching resources found\nINFO: JOBID=3\n{RULE}"
    assert shell(f"match allocate {job}") == busy
    reserved = shell(f"match allocate_orelse_reserve {job}")
    assert reserved == tree("node0") + told(4, "RESERVED", "100")
    assert (shell.stdout, shell.stderr) == ("", "")
    assert not shell.session.refused


def test_match_without_allocating(shell: Shell, job: str) -> None:
    expected = tree("node0") + told(1, "MATCHED")
    assert shell(f"match without_allocating {job}") == expected
    assert shell(f"match without_allocating_future {job}") == expected
    assert shell(f"match allocate {job}") == tree("node0") + told(1)
    shell("list")
    assert shell.stdout.count("\n") == 1


def test_unsatisfiable(shell: Shell, job: str, tmp_path: Path) -> None:
    big = jobspec(tmp_path / "big.json", 3)
    assert shell(f"match allocate_with_satisfiability {big}") == (
        f"{RULE}INFO: No matching resources found\nINFO: Unsatisfiable request\n"
        f"INFO: JOBID=1\n{RULE}"
    )
    assert shell(f"match satisfiability {big}") == f"{RULE}INFO: Unsatisfiable request\n{RULE}"
    assert shell(f"match satisfiability {job}") == f"{RULE}INFO: Satisfiable request\n{RULE}"
    assert shell(f"match allocate {job}").endswith(told(2))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"count": 0}, "Jobspec error for 1: jobspec: resources[0].count: expected"),
        ({"type": "unicorn"}, "resources[0].type: expected a type that the graph has, found 'uni"),
    ],
)
def test_a_jobspec_that_is_none(shell: Shell, tmp_path: Path, kind: Any, message: str) -> None:
    bad = jobspec(tmp_path / "bad.json", **kind)
    expected = f"{RULE}INFO: No matching resources found\nINFO: JOBID=1\n{RULE}"
    assert shell(f"match allocate {bad}") == expected
    assert shell.stderr.startswith("match_allocate: ERROR: ")
    assert message in shell.stderr
    assert shell.stderr.count("\n") == 1
    assert shell.session.refused
    assert shell(f"match allocate {bad}") == expected, "it has taken no job id"


def test_types_of_prune_filters_are_known(shell: Shell, tmp_path: Path) -> None:
    shell.session.filters = {"unicorn"}
    shell(f"match allocate {jobspec(tmp_path / 'job.json', type='unicorn')}")
    assert not shell.session.refused


def test_an_invalid_match_takes_no_job_id(shell: Shell, job: str, tmp_path: Path) -> None:
    assert shell(f"match allocate {jobspec(tmp_path / 'long.json', duration=2000)}").endswith(
        f"JOBID=1\n{RULE}"
    )
    assert shell.stderr == "match_allocate: ERROR: the job outlives the graph\n"
    assert shell(f"match allocate {job}").endswith(told(1))


def test_multi_match_ends_with_the_first_failure(shell: Shell, job: str, tmp_path: Path) -> None:
    big = jobspec(tmp_path / "big.json", 3)
    found = shell(f"multi-match allocate {job} {tmp_path}/none {big} {job}")
    assert found.count("JOBID") == 2
    assert "can't open" in shell.stderr
    assert shell(f"M allocate {job} {job}").count("JOBID") == 2


def test_elapsed_time_goes_to_stdout(capsys: Any, job: str) -> None:
    shell = Shell(capsys, elapse=True)
    assert shell(f"match allocate {job}") == tree("node0") + told(1)
    first, *visits = shell.stdout.splitlines()
    assert first.startswith("INFO: ELAPSE=0.0")
    assert visits == ["INFO: PREORDER VISIT COUNT=3", "INFO: POSTORDER VISIT COUNT=2"]
    shell(f"match satisfiability {job}")
    assert shell.stdout.splitlines()[1:] == visits
    shell(f"match allocate {job}")
    assert "INFO: ELAPSE=" in shell(f"match allocate {job}")


def test_cancel(shell: Shell, job: str) -> None:
    shell(*[f"match allocate_orelse_reserve {job}"] * 3)
    assert shell("cancel 1") == ""
    stats = f'{RULE}INFO: CANCEL PREORDER COUNT="3"\nINFO: CANCEL POSTORDER COUNT="2"\n{RULE}'
    assert shell("c 3 stats") == stats
    shell("info 1", "info 2")
    assert [line.split(", ")[1] for line in shell.stdout.splitlines()] == ["CANCELED", "ALLOCATED"]
    shell("cancel 3", "cancel 99")
    assert shell.stderr == ("cancel: ERROR: nonexistent job 3\ncancel: ERROR: nonexistent job 99\n")
    assert shell(f"match allocate {job}").endswith(told(4))


def test_partial_cancel(shell: Shell, job: str, tmp_path: Path) -> None:
    shell(*[f"match allocate_orelse_reserve {job}"] * 3)
    for text in ("part", "all", "bad"):
        (tmp_path / text).write_text(text)
    assert shell(f"partial-cancel 1 jgf {tmp_path}/part stats") == (
        f'{RULE}INFO: PARTIAL CANCEL PREORDER COUNT="3"\n'
        f'INFO: PARTIAL CANCEL POSTORDER COUNT="2"\n{RULE}'
    )
    assert 1 in shell.session.allocations
    shell(f"pc 1 rv1exec {tmp_path}/all")
    assert 1 not in shell.session.allocations
    assert shell.session.jobs[1].state == "CANCELED"
    shell(
        f"pc 3 jgf {tmp_path}/all",
        f"pc 9 jgf {tmp_path}/all",
        f"pc 2 grug {tmp_path}/all",
        f"pc 2 jgf {tmp_path}/none",
        f"pc 2 jgf {tmp_path}/bad",
    )
    assert [line.split(" ", 3)[1] for line in shell.stderr.splitlines()] == [
        "reservations",
        "nonexistent",
        "unsupported",
        "can't",
        "error",
    ]


def test_update(shell: Shell, job: str, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text("node1")
    assert shell(f"update allocate jgf {file} 7 0 60") == tree("node1") + told(7)
    assert shell(f"match allocate {job}") == tree("node0") + told(8)
    assert shell(f"u reserve rv1exec {file} 20 50 60") == tree("node1") + told(20, "RESERVED", "50")
    shell(
        f"update allocate jgf {file} 7 0 60",
        f"update free jgf {file} 9 0 60",
        f"update allocate grug {file} 9 0 60",
        f"update allocate jgf {file} 9 -1 60",
        f"update allocate jgf {file} 9 0 0",
        f"update allocate jgf {file} nine 0 60",
        f"update allocate jgf {file} 9 0",
    )
    errors = shell.stderr.splitlines()
    words = ["existing", "subcmd", "reader", "time", "duration", "jobid", "malformed"]
    for error, word in zip(errors, words, strict=True):
        assert word in error
    file.write_text("nothing")
    assert shell(f"update allocate jgf {file} 30 0 60").endswith(f"INFO: JOBID=30\n{RULE}")
    assert "expected a list" in shell.stderr
    assert shell.session.refused
    assert shell.session.next_id == 31


def test_properties(shell: Shell) -> None:
    assert shell("get-property /tiny0/node0") == (
        "No properties were found for /tiny0/node0 (vtx's uniq_id=1).\n"
    )
    assert shell("p /tiny0/node0 class=2", "set-property /tiny0/node0 arch=a=b") == ""
    assert shell("g /tiny0/node0") == "arch=a=b\nclass=2\n"
    assert shell("p /tiny0/node9 class=2") == (
        "Couldn't find path /tiny0/node9 in resource graph.\n"
    )
    assert shell("g /tiny0/node9") == "Could not find path /tiny0/node9 in resource graph.\n"
    wrong = "Incorrect input format. \nPlease use `set-property <resource> PROPERTY=VALUE`.\n"
    for words in ("class", "=2", "class="):
        assert shell(f"set-property /tiny0/node0 {words}") == wrong


def test_status(shell: Shell) -> None:
    assert shell("set-status /tiny0/node1 down") == ""
    assert shell("get-status /tiny0/node1", "e /tiny0/node0") == (
        "/tiny0/node1 is down\n/tiny0/node0 is up\n"
    )
    assert shell("t /tiny0/node1 up", "e /tiny0/node1") == "/tiny0/node1 is up\n"
    assert shell("t /none up") == "Could not find path /none in resource graph.\n"
    shell("t /tiny0/node1 sideways")
    assert "unrecognized status" in shell.stderr


def test_find(shell: Shell, job: str) -> None:
    shell(f"match allocate {job}", "set-status /tiny0/node1 down")
    end = f'{RULE}INFO: EXPRESSION="status=down"\n{RULE}'
    below = "      ---------core0[1:x]\n      ---------core1[1:x]\n"
    assert (
        shell("find  status=down") == f"{below}      ------node1[1:x]\n      ---tiny0[1:x]\n{end}"
    )
    assert shell("f sched-now=allocated and names=node0").startswith("      ------node0[1:x]\n")
    assert shell("f names=nobody").startswith(RULE)
    assert shell("f status=sideways") == ""
    assert shell.stderr.startswith("find: ERROR: criteria 'status=sideways': status: expected")


def test_find_with_the_use_of_aggregates(capsys: Any, job: str) -> None:
    shell = Shell(capsys, "jgf")
    shell(f"match allocate {job}")
    found = json.loads(shell("find agfilter=t").splitlines()[0])["graph"]["nodes"]
    assert [node["metadata"]["agfilter"] for node in found] == [
        {"core": "used:2, total:2"},
        {"core": "used:0, total:2"},
        {"core": "used:0, total:4", "node": "used:0, total:2"},
    ]
    found = json.loads(shell("find jobid-span=1 and agfilter=t").splitlines()[0])["graph"]["nodes"]
    assert [node["metadata"]["type"] for node in found] == ["node"]


def test_changes_of_the_graph(shell: Shell, tmp_path: Path) -> None:
    assert shell("remove /tiny0/node1 true", "remove 1 false") == ""
    assert shell.stderr == ""
    (tmp_path / "g.json").write_text("{}")
    shell(
        "remove /none true",
        "remove 5 false",
        "remove x false",
        "remove 1 maybe",
        f"attach {tmp_path}/g.json",
    )
    assert len(shell.stderr.splitlines()) == 5
    assert "no path /none" in shell.stderr
    assert rq_commands.COMMANDS[3].short == "j"
    assert shell.session.refused


def test_list_info_and_stat(shell: Shell, job: str) -> None:
    shell("stat")
    assert shell.stdout == (
        "INFO: Num. of Jobs Matched: 0\nINFO: Min. Match Time: 0\n"
        "INFO: Max. Match Time: 0\nINFO: Avg. Match Time: 0\n"
    )
    shell(*[f"match allocate_orelse_reserve {job}"] * 3)
    shell("list")
    lines = [line.split(", ") for line in shell.stdout.splitlines()]
    assert [line[:4] for line in lines] == [
        ["INFO: 1", "ALLOCATED", "0", job],
        ["INFO: 2", "ALLOCATED", "0", job],
        ["INFO: 3", "RESERVED", "100", job],
    ]
    shell("i 9", "stat")
    assert shell.stderr == "info: ERROR: nonexistent job 9\n"
    shown = dict(line[6:].split(": ") for line in shell.stdout.splitlines())
    assert shown["Num. of Jobs Matched"] == "3"
    least, most, mean = (float(shown[f"{word} Match Time"]) for word in ("Min.", "Max.", "Avg."))
    assert 0 < least <= mean <= most < 1


def test_cat(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x: 1\ny: 2")
    shell(f"cat {tmp_path}/a")
    assert shell.stdout == f"x: 1\ny: 2\nINFO: Jobspec in {tmp_path}/a\n"
    shell("cat /none")
    assert shell.stderr == "ERROR: can't open /none: No such file or directory\n"


def test_help(shell: Shell) -> None:
    shell("help")
    assert shell.stdout.count("INFO: ") == len(rq_commands.COMMANDS)
    shell("h pc")
    assert shell.stdout.startswith("INFO: partial-cancel (pc) -- ")
    shell("help me")
    assert shell.stdout == "ERROR: unknown command: me\n"


def test_lines_that_are_no_commands(shell: Shell) -> None:
    assert shell("", "   ", "# match", "\t") == ""
    assert shell.stderr == ""
    shell("mach allocate x", "xyzzy", "match allocate", "match sometimes x", "cancel", "stat now")
    assert shell.stderr.splitlines()[0] == "ERROR: unknown command 'mach': did you mean match?"
    assert "help" in shell.stderr.splitlines()[1]
    assert len(shell.stderr.splitlines()) == 6
    assert not shell.over
    shell("quit")
    assert shell.over
    shell("q now")
    assert shell.over


def test_odd_bytes_pass_through(shell: Shell) -> None:
    shell("get-property /\udcff\u00a0x")
    assert "Could not find path /\udcff\u00a0x in" in shell.file.getvalue()


def test_options() -> None:
    arguments = COMMAND.parse(
        ["-L", __file__, "-S", "c+pa", "-p", "ALL:core", "-p", "ALL:gpu", "-r", "9", "-ed"]
    )
    assert arguments.match_subsystems == ("containment", "power")
    assert arguments.prune_filters == ["ALL:core", "ALL:gpu"]
    assert arguments.elapse_time
    assert arguments.disable_prompt
    defaults = COMMAND.parse([])
    assert defaults.load_format == "grug"
    assert defaults.match_format == "simple"
    assert defaults.match_policy == "first"
    assert defaults.match_subsystems == ("containment",)


@pytest.mark.parametrize(
    "words",
    [
        ["-L", "/none"],
        ["-L", "/"],
        ["-f", "xml"],
        ["-F", "xml"],
        ["-g", "xml"],
        ["-S", "XX"],
        ["-Z"],
        ["-L"],
        ["operand"],
    ],
)
def test_options_that_are_none(words: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        COMMAND.parse(words)
    assert error.value.status == 1


def test_a_reservation_of_room_out_of_range(capsys: Any) -> None:
    for text in ("-1", "2000001"):
        assert COMMAND.parse([f"--reserve-vtx-vec={text}"]).reserve_vtx_vec == 0
        assert text in capsys.readouterr().err
    assert COMMAND.parse(["-r", "many"]).reserve_vtx_vec == 0


def test_the_graph_as_dot(tmp_path: Path) -> None:
    graph = machine()
    graph.remove([1])
    graph.freeze()
    write_graph(graph, str(tmp_path / "g.dot"))
    text = (tmp_path / "g.dot").read_text()
    assert text.startswith('digraph G {\n0[label="tiny0"];\n1[label="core0"];\n')
    assert '0->3 [label="containment"];\n' in text
    assert text.endswith("}\n")


def test_the_graph_as_graphml(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    graph = machine()
    graph.properties[1] = {"a": "<&>"}
    write_graph(graph, str(tmp_path / "g.graphml"))
    root = ElementTree.parse(tmp_path / "g.graphml").getroot()
    space = "{http://graphml.graphdrawing.org/xmlns}"
    names = {key.get("id"): key.get("attr.name") for key in root.iter(f"{space}key")}
    nodes = [
        {names[data.get("key")]: data.text or "" for data in node}
        for node in root.iter(f"{space}node")
    ]
    assert len(nodes) == 7
    assert nodes[1]["props"] == "{a=<&>}"
    assert nodes[1]["paths"] == "{containment=/tiny0/node0}"
    assert (nodes[1]["type"], nodes[1]["id"], nodes[1]["size"]) == ("node", "0", "1")
    assert len(list(root.iter(f"{space}edge"))) == 6


# The whole command, on a real graph.

GRUG = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="root" for="node" attr.name="root" attr.type="int"><default>0</default></key>
  <key id="type" for="node" attr.name="type" attr.type="string"/>
  <key id="basename" for="node" attr.name="basename" attr.type="string"/>
  <key id="size" for="node" attr.name="size" attr.type="long"/>
  <key id="subsystem" for="node" attr.name="subsystem" attr.type="string"/>
  <key id="e_subsystem" for="edge" attr.name="e_subsystem" attr.type="string"/>
  <key id="relation" for="edge" attr.name="relation" attr.type="string"/>
  <key id="rrelation" for="edge" attr.name="rrelation" attr.type="string"/>
  <key id="id_scope" for="edge" attr.name="id_scope" attr.type="int"/>
  <key id="id_start" for="edge" attr.name="id_start" attr.type="int"/>
  <key id="id_stride" for="edge" attr.name="id_stride" attr.type="int"/>
  <key id="gen_method" for="edge" attr.name="gen_method" attr.type="string"/>
  <key id="multi_scale" for="edge" attr.name="multi_scale" attr.type="int"/>
  <graph id="tiny" edgedefault="directed">
    <node id="cluster">
      <data key="root">1</data><data key="type">cluster</data><data key="basename">tiny</data>
      <data key="size">1</data><data key="subsystem">containment</data>
    </node>
    <node id="node">
      <data key="type">node</data><data key="basename">node</data>
      <data key="size">1</data><data key="subsystem">containment</data>
    </node>
    <edge id="e" source="cluster" target="node">
      <data key="e_subsystem">containment</data>
      <data key="relation">contains</data><data key="rrelation">in</data>
      <data key="id_scope">0</data><data key="id_start">0</data><data key="id_stride">1</data>
      <data key="gen_method">MULTIPLY</data><data key="multi_scale">2</data>
    </edge>
  </graph>
</graphml>
"""


def resource_query(where: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    (where / "tiny.graphml").write_text(GRUG)
    return subprocess.run(
        [sys.executable, "-m", "flux_mpi", "resource-query", "-L", "tiny.graphml", *words],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=where,
        check=False,
    )


def test_a_session(tmp_path: Path, job: str) -> None:
    (tmp_path / "out").write_text("what was there before")
    script = f"match allocate {job}\nfind sched-now=allocated\nhelp quit\nquit\nmatch"
    done = resource_query(tmp_path, script, "-P", "high", "-t", "out", "-o", "g", "-g", "DOT", "-e")
    assert (done.returncode, done.stderr) == (0, "")
    node = "      ------node1[1:{}]\n      ---tiny0[1:{}]\n"
    find = f'{node.format("x", "x")}{RULE}INFO: EXPRESSION="sched-now=allocated"\n{RULE}'
    text = (tmp_path / "out").read_text()
    assert text == node.format("x", "s") + told(1) + find
    lines = done.stdout.splitlines()
    assert lines[0].startswith("INFO: Graph Load Time: 0.")
    assert lines[1:3] == ["INFO: Vertex Count: 3", "INFO: Edge Count: 2"]
    assert lines[-2].startswith("INFO: quit (q) -- ")
    assert lines[-1] == "INFO: Write the target graph of the matcher..."
    assert '0->1 [label="containment"];' in (tmp_path / "g.dot").read_text()


def test_a_session_without_end(tmp_path: Path, job: str) -> None:
    done = resource_query(tmp_path, f"match allocate {job}\nfly\ninfo 1", "-F", "pretty_simple")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "      ---tiny0[1:shared]"
    assert lines[-1].startswith(f"INFO: 1, ALLOCATED, 0, {job}, ")
    assert done.stderr == "ERROR: unknown command 'fly': 'help' lists the commands\n"


def test_a_property_counts_at_once(tmp_path: Path, job: str) -> None:
    spec = json.loads(Path(job).read_text())
    spec["attributes"]["system"]["constraints"] = {"properties": ["fast"]}
    Path(job).write_text(json.dumps(spec))
    match = f"match allocate {job}\n"
    done = resource_query(tmp_path, f"{match}set-property /tiny0/node1 fast=1\n{match}quit\n")
    assert done.stdout.startswith(f"{RULE}INFO: No matching resources found\n")
    assert "      ------node1[1:x]\n" in done.stdout


def test_a_session_in_which_input_is_refused(tmp_path: Path) -> None:
    bad = jobspec(tmp_path / "bad.json", -1)
    done = resource_query(tmp_path, f"match allocate {bad}\nquit\n")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "resources[0].count" in done.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-f", "jgf"], "tiny.graphml"),
        (["-P", "best"], "best"),
        (["-T", "lazy"], "lazy"),
        (["-S", "PA"], "power"),
        (["-t", "none/out"], "none/out"),
    ],
)
def test_a_session_that_does_not_begin(tmp_path: Path, words: list[str], found: str) -> None:
    done = resource_query(tmp_path, "quit\n", *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("flux-resource-query: ERROR: ")
    assert found in done.stderr
    assert done.stderr.count("\n") == 1
