"""Hierarchies on simulated machines: the code of real instances, three levels deep."""

from __future__ import annotations

import errno
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from flux_mpi.formats.jobspec import Jobspec
from flux_mpi.instance.hosting import Child
from flux_mpi.instance.node import Node
from flux_mpi.message.errors import FluxError
from flux_mpi.sim.machine import Machine

OK = errno.ENODATA


def instances(nodes: Iterable[Node]) -> Iterator[Child]:
    """All child instances below these brokers, by their rank 0; those above come first."""
    for node in nodes:
        for child in tuple(node.hosting.children.values()) if node.hosting is not None else ():
            if child.birth.rank == 0:
                yield child
            if child.node is not None:
                yield from instances([child.node])


class Study:
    """An ensemble of ``member ID`` commands on 8 ranks of 4 cores, and who ran when."""

    def __init__(
        self,
        seconds: float | Callable[[int], float] = 0.01,
        status: Callable[[int], int] = lambda member: 0,
        ranks: int = 8,
        cores: int = 4,
    ) -> None:
        self.ran: Counter[int] = Counter()
        self.seconds = seconds if callable(seconds) else lambda member: seconds
        self.status = status
        self.machine = Machine(ranks, cores=cores, duration=self.duration)
        self.responses: list[Any] = []

    def duration(self, argv: list[str]) -> tuple[float, int]:
        if argv[0] != "member":
            return 0.001, 0
        member = int(argv[1])
        self.ran[member] += 1
        return self.seconds(member), self.status(member)

    def begin(self, topology: str | list[int], count: int = 0, **payload: Any) -> None:
        spec = Jobspec.from_command(["member", "{cc}"], environment={"A": "b"}, cwd="/")
        payload = {"jobspec": spec.to_dict(), "topology": topology, **payload}
        if count:
            payload["count"] = count
        self.responses = self.machine.start_rpc("ensemble.run", payload, stream=True)
        self.began = self.machine.reactor.now()

    @property
    def over(self) -> bool:
        return bool(self.responses) and self.responses[-1].errnum != 0

    @property
    def done(self) -> int:
        return self.responses[-1].payload["done"] if self.responses else 0

    def until(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        self.machine.run(seconds, until=condition)

    def end(self, seconds: float = 600.0) -> dict[str, Any]:
        self.until(lambda: self.over, seconds)
        assert self.responses[-1].errnum == OK, self.responses[-1].text
        self.took = self.machine.reactor.now() - self.began
        result: dict[str, Any] = self.responses[-2].payload["result"]
        return result

    def run(self, topology: str | list[int], count: int = 0, **payload: Any) -> dict[str, Any]:
        self.begin(topology, count, **payload)
        return self.end()

    def assert_nothing_left(self) -> None:
        self.machine.run(seconds=30)
        assert not self.living
        assert self.machine.rpc("job-manager.stats")["active_jobs"] == 0
        assert not self.machine.rpc("resource.status")["allocated"]["execution"]["R_lite"]
        assert self.machine.rpc("ensemble.list") == {"runs": []}
        assert not self.machine.nodes[0].root.ensembles._tokens

    @property
    def living(self) -> list[Child]:
        """All child instances there are."""
        return list(instances(self.machine.nodes))

    def leaves(self) -> list[Child]:
        """Those of them that run members."""
        return [child for child in self.living if _chunks(child) is not None]

    def children(self) -> list[Child]:
        """Those on the first level."""
        return [child for child in self.living if child.hosting.node in self.machine.nodes]


def _chunks(child: Child) -> list[Any] | None:
    """What a leaf has in its queue; None for others, and for those that are not ready."""
    root = child.node.root if child.node is not None else None
    body = root.ensembles.upward.body if root is not None and root.ensembles.upward else None
    return list(body._chunks.values()) if hasattr(body, "_chunks") else None


def crash(child: Child) -> None:
    """End an instance at once, with all that runs in it."""
    child.signal(signal.SIGKILL)


@pytest.mark.parametrize("topology", ["1", "8", "2x4", "4x8", "2x2x2", "3", [2, 16]])
def test_every_member_runs_once_on_any_shape(topology: Any) -> None:
    study = Study()
    result = study.run(topology, 2000)
    assert (result["count"], result["failed"], result["status"]) == (2000, 0, 0)
    assert study.ran == Counter(range(2000))
    assert result["times"]["count"] == 2000
    assert result["times"]["mean"] == pytest.approx(0.01)
    levels = [int(n) for n in topology.split("x")] if isinstance(topology, str) else topology
    expected, instances = [1], 1
    for children in levels if topology != "1" else ():
        instances *= children
        expected.append(instances)
    assert [level["instances"] for level in result["levels"]] == expected
    assert result["levels"][-1]["jobs"] == 2000
    assert len(result["records"]) == sum(expected)
    assert {row["njobs"] for row in result["records"] if row["treeid"] == "tree"} == {2000}
    assert study.took < 2000 * 0.01 / 32 + 0.1 * len(levels) + 0.25
    study.assert_nothing_left()


def test_statuses_come_up_in_aggregate_and_the_first_failures_by_name() -> None:
    study = Study(status=lambda member: 9 if member == 1234 else (member % 10 == 7) * (3 << 8))
    result = study.run("2x4", members="1000-1999")
    assert (result["count"], result["failed"]) == (1000, 101)
    assert result["codes"] == {3: 100, 137: 1}
    assert result["status"] == 137
    assert result["failures"][:3] == [[1007, 3, ""], [1017, 3, ""], [1027, 3, ""]]
    assert [1234, 137, ""] in result["failures"]


def test_progress_is_told_ten_times_a_second_at_most() -> None:
    study = Study()
    result = study.run("2x4", 3000)
    progress = [response.payload for response in study.responses[:-2]]
    assert len(progress) <= 10 * study.took + 3
    assert [told["done"] for told in progress] == sorted(told["done"] for told in progress)
    assert {told["total"] for told in progress} == {3000}
    assert max(told["running"] for told in progress) > 16
    assert max(told["workers"] for told in progress) == 2
    assert progress[-1]["rate"] == pytest.approx(result["rate"], rel=0.5)


@pytest.mark.parametrize("seconds", [0.1, 0.01, 0.002])
def test_messages_follow_time_and_not_jobs(seconds: float) -> None:
    study = Study(seconds)
    result = study.run("2x4", int(1.2 * 32 / seconds))
    for level in result["levels"][1:]:
        # Five reports a second, and chunks of half a second of work; smaller ones at the end.
        assert level["messages"] < level["instances"] * (study.took * 25 + 20)


def test_long_members_keep_all_cores_busy_to_the_end() -> None:
    study = Study(10.0)
    study.run("2x4", 96)
    assert study.took < 3 * 10.0 + 1.0


@pytest.mark.parametrize("topology", ["8", "2x4"])
def test_what_is_not_begun_moves_to_who_idles(topology: str) -> None:
    # One of them slows down to a fiftieth with a second of work in its hands.
    study = Study()
    study.begin(topology, 6000)
    study.until(lambda: study.done > 3000)

    def slowly(argv: list[str]) -> tuple[float, int]:
        seconds, status = study.duration(argv)
        return 50 * seconds, status

    study.machine.links[5]._duration = slowly  # each leaf has a rank of its own
    result = study.end()
    assert study.ran == Counter(range(6000))
    assert sum(level["moved"] for level in result["levels"]) > 0
    # Alone it would take more than 10 s for what it had.
    assert study.took < 6000 * 0.01 / 32 + 4


@pytest.mark.parametrize("topology", ["8", "2x4"])
def test_a_leaf_that_dies_is_replaced_and_its_members_run_again(topology: str) -> None:
    study = Study()
    study.begin(topology, 5000)
    study.until(lambda: study.done > 1000)
    crash(study.leaves()[1])
    result = study.end()
    assert (result["count"], result["failed"], result["lost"]) == (5000, 0, 0)
    assert set(study.ran) == set(range(5000))
    again = sum(count - 1 for count in study.ran.values())
    assert sum(level["rerun"] for level in result["levels"]) >= again > 0
    assert sum(level["lost"] for level in result["levels"]) == 1
    assert sum(level["replaced"] for level in result["levels"]) == 1
    study.assert_nothing_left()


def test_records_count_the_members_of_each_instance_once() -> None:
    study = Study(0.5)
    study.begin("2", 400)
    study.until(lambda: study.done > 60)
    victim = study.leaves()[0]
    victim.signal(signal.SIGKILL)
    result = study.end()
    assert result["levels"][0]["replaced"] + result["levels"][1]["replaced"] == 1
    below = [row["njobs"] for row in result["records"][1:]]
    assert len(below) == 3
    assert sum(below) == result["levels"][1]["jobs"]


def test_answered_calls_to_the_parent_are_forgotten() -> None:
    study = Study(0.5)
    study.begin("4", 2000)
    study.until(lambda: study.done > 800)
    calls = [child._upstream._open for child in study.leaves() if child._upstream is not None]
    assert len(calls) == 4
    assert all(len(each) <= 2 for each in calls)  # that to join, and perhaps a report


def test_an_interior_instance_that_dies_takes_its_leaves_along_and_nothing_is_forgotten() -> None:
    study = Study()
    study.begin("2x4", 5000)
    study.until(lambda: study.done > 1000)
    crash(study.children()[0])
    result = study.end()
    assert (result["count"], result["failed"]) == (5000, 0)
    assert set(study.ran) == set(range(5000))
    assert result["levels"][1]["replaced"] == 1
    assert [level["instances"] for level in result["levels"][:2]] == [1, 3]
    study.assert_nothing_left()


def test_an_instance_that_ends_when_all_is_done_is_no_loss() -> None:
    study = Study()
    study.begin("2", 3)
    study.until(study.leaves)
    branch, _ = next(iter(study.machine.nodes[0].root.ensembles._tokens.values()))
    study.until(lambda: branch._stopped is not None)
    assert branch.children[1].state == "ready"
    crash(study.children()[1])
    result = study.end()
    assert (result["count"], result["failed"]) == (3, 0)
    assert [level["lost"] for level in result["levels"]] == [0, 0]
    study.assert_nothing_left()


def test_a_member_that_kills_its_instance_is_given_up_after_some_time() -> None:
    study = Study()

    def seconds(member: int) -> float:
        if member == 77:
            # Whichever leaf has just begun it.
            leaf = next(child for child in study.leaves() if _runs(child, 77))
            study.machine.reactor.call_soon(lambda: crash(leaf))
        return 0.01

    study.seconds = seconds
    result = study.run("8", 3000, retries=2)
    assert study.ran[77] == 3
    assert result["count"] == 3000
    assert 1 <= result["lost"] <= 4, "it, and at most what ran beside it"
    assert result["failed"] == result["lost"]
    lost = [member for member, _, why in result["failures"] if "lost 3 times" in why]
    assert 77 in lost
    assert set(study.ran) == set(range(3000))
    study.assert_nothing_left()


def _runs(child: Child, member: int) -> bool:
    return any(member in chunk.members for chunk in _chunks(child) or ())


def test_when_no_instance_can_be_had_members_are_lost_with_the_reason() -> None:
    study = Study()
    study.begin("4", 400, retries=1)
    crashed: set[Child] = set()
    while not study.over:
        study.until(lambda: study.over or set(study.living) - crashed)
        for child in study.living:
            if child not in crashed:
                crash(child)
        crashed.update(study.living)
    result = study.end()
    assert len(crashed) == 8, "each place is filled once more"
    assert (result["lost"], result["failed"], result["status"]) == (400, 400, 1)
    assert "no child instance is left" in result["failures"][0][2]
    study.assert_nothing_left()


def test_a_lost_node_costs_a_child_that_is_not_replaced() -> None:
    study = Study()
    study.begin("8", 6000)
    study.until(lambda: study.done > 1000)
    study.machine.remove(5)
    result = study.end()
    assert (result["count"], result["failed"]) == (6000, 0)
    assert set(study.ran) == set(range(6000))
    assert [level["replaced"] for level in result["levels"]] == [0, 0]


def test_members_on_a_lost_node_of_a_leaf_run_again() -> None:
    study = Study(0.2)
    study.begin("1", 320)
    study.until(lambda: study.done > 100)
    study.machine.remove(7)
    result = study.end()
    assert (result["count"], result["failed"]) == (320, 0)
    assert result["levels"][0]["rerun"] == 4
    assert study.ran.total() == 324


def test_a_cancel_ends_all_levels_and_tells_what_was_done() -> None:
    study = Study()
    study.begin("2x4", 20_000)
    study.until(lambda: study.done > 2000)
    run = study.responses[-1].payload["run"]
    assert study.machine.rpc("ensemble.cancel", {"run": run, "why": "enough"}) == {}
    result = study.end()
    assert study.took < 3.0
    assert result["count"] == 20_000
    assert 2000 < result["count"] - result["canceled"] < 15_000
    assert result["failures"][-1][2] == "canceled: enough"
    assert result["status"] == 1
    study.assert_nothing_left()


@pytest.mark.parametrize("topology", ["1", "2x4", "auto"])
@pytest.mark.parametrize("after", [0.0, 0.06, 0.5])
def test_when_nobody_listens_any_more_all_of_it_ends(topology: str, after: float) -> None:
    study = Study(0.5)
    node = study.machine.nodes[0]
    spec = Jobspec.from_command(["member", "{cc}"], environment={}, cwd="/").to_dict()
    call = node.broker.rpc(
        "ensemble.run",
        {"jobspec": spec, "count": 5000, "topology": topology},
        study.responses.append,
        streaming=True,
    )
    node.reactor.call_soon(lambda: None)
    study.machine.reactor.run(seconds=after)
    node.reactor.call_soon(call.cancel)
    study.machine.run(seconds=5)
    study.assert_nothing_left()
    assert len(study.ran) < 1000


def test_auto_looks_at_the_first_members_and_then_divides() -> None:
    study = Study(0.0005)
    study.machine.nodes[0].root.ensembles.cpus = 8
    result = study.run("auto", 15_000)
    assert (result["count"], result["failed"]) == (15_000, 0)
    assert study.ran == Counter(range(15_000))
    assert result["topology"] not in ("1", "auto")
    assert "15000 members of 0.5 ms" in result["why"]
    assert result["levels"][0]["jobs"] > 0, "the first look was not for nothing"
    states = {response.payload["state"] for response in study.responses[:-2]}
    assert "running" in states
    study.assert_nothing_left()


def test_auto_stays_on_one_level_for_long_members() -> None:
    study = Study(5.0)
    study.machine.nodes[0].root.ensembles.cpus = 8
    result = study.run("auto", 100)
    assert result["topology"] == "1"
    assert "bound by its cores" in result["why"]
    assert study.took < 4 * 5.0 + 0.1
    assert study.ran == Counter(range(100))


def test_an_instance_with_a_limit_runs_in_one_child() -> None:
    study = Study(0.1)
    result = study.run("1", 64, nnodes=2, ncores=2)
    assert [level["ncores"] for level in result["levels"]] == [4, 4]
    assert study.took > 64 * 0.1 / 4


def test_two_ensembles_share_an_instance() -> None:
    study = Study(0.05)
    study.begin("4", 500)
    first = study.responses
    study.begin("4", members="500-999")
    study.until(lambda: len(study.machine.rpc("ensemble.list")["runs"]) == 2)
    study.end()
    study.until(lambda: first[-1].errnum != 0)
    assert first[-2].payload["result"]["count"] == 500
    assert study.ran == Counter(range(1000))
    study.assert_nothing_left()


def test_a_token_opens_one_place_once() -> None:
    study = Study()
    study.begin("4", 50_000)
    study.until(lambda: study.done > 100)
    for payload in ({"token": "nonsense"}, {"token": 5}, {}):
        with pytest.raises(FluxError) as raised:
            next(iter(study.machine.stream("ensemble.join", payload)))
        assert raised.value.errno == errno.ENOENT
    token = next(iter(study.machine.nodes[0].root.ensembles._tokens))
    with pytest.raises(FluxError) as raised:
        next(iter(study.machine.stream("ensemble.join", {"token": token})))
    assert raised.value.errno == errno.EEXIST


@pytest.mark.parametrize(
    "report",
    [
        {"ended": "49999", "tally": {"count": 1}},
        {"ended": "0-1", "tally": {"count": 5}},
        {"ended": "x", "tally": {"count": 0}},
        {"ended": "", "tally": {"count": "many"}},
        {"ended": "", "tally": {}, "final": True, "levels": 5},
    ],
)
def test_a_child_that_reports_nonsense_is_lost_and_costs_nothing_else(report: Any) -> None:
    study = Study()
    study.begin("4", 5_000)
    study.until(lambda: study.done > 500)
    token = next(iter(study.machine.nodes[0].root.ensembles._tokens))
    with pytest.raises(FluxError) as raised:
        study.machine.rpc("ensemble.report", {"token": token, **report})
    assert raised.value.errno == errno.EPROTO
    result = study.end()
    assert (result["count"], result["failed"]) == (5000, 0)
    assert result["levels"][1]["lost"] == 1
    assert set(study.ran) == set(range(5000))
    study.assert_nothing_left()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_dies_when_every_member_ends_once(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.choice([50, 500, 3000])
    seconds = {member: rng.choice([0.002, 0.01, 0.05, 0.4]) for member in range(count)}
    study = Study(
        lambda member: seconds[member],
        lambda member: (member % 50 == 49) << 8,
    )
    study.begin(rng.choice(["2", "8", "2x4", "4x8", "2x2x2", "3x5"]), count)
    for _ in range(rng.randrange(6)):
        study.machine.reactor.run(seconds=rng.expovariate(3.0))
        if not study.over and study.living:
            crash(rng.choice(study.living))
    result = study.end()
    assert (result["count"], result["lost"]) == (count, 0)
    assert result["codes"] == ({1: count // 50} if count >= 50 else {})
    assert set(study.ran) == set(range(count))
    study.assert_nothing_left()
