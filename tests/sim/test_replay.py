"""Workload logs: read, made, and run through every queue policy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.sim import lublin, swf
from flux_mpi.sim.replay import replay
from flux_mpi.sim.swf import LoggedJob

LOG = """\
; Version: 2.2
;     MaxProcs: 128 (of 130)
; Note: Queue: not a field, as it stands in a note
; A sentence: with a colon

3 20 -1 30 4 -1 -1 8 60 -1 1 1 1 -1 1 -1 -1 -1
1  0  5 10.5 -1 -1 -1 2 -1 -1 1 1 1 -1 1 -1 -1 -1
2 10 -1 -1 4 -1 -1 4 60 -1 5 1 1 -1 1 -1 -1 -1
4 30 -1 10 0 -1 -1 -1 60 -1 1 1 1 -1 1 -1 -1 -1
"""


def test_a_log_is_read() -> None:
    log = swf.parse(LOG.splitlines())
    assert log.jobs == [LoggedJob(1, 0.0, 10.5, 2, 10.5), LoggedJob(3, 20.0, 30.0, 4, 60.0)]
    assert log.skipped == 2
    assert log.header["Version"] == "2.2"
    assert "A sentence" not in log.header
    assert log.processors == 128
    assert swf.parse(LOG.splitlines()[5:]).processors == 4
    assert swf.parse([]).processors == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 2 3", "line 2: expected 18 numbers, found 3 words"),
        ("1 x" + " -1" * 16, "line 2: could not convert string to float: 'x'"),
        ("1 nan" + " -1" * 16, "line 2: expected finite numbers"),
        ("1 1e300" + " -1" * 16, "line 2: expected finite numbers"),
    ],
)
def test_what_is_wrong_with_a_log(line: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        swf.parse(["; Version: 2", line])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), processors=st.sampled_from([1, 7, 128]))
def test_the_model_makes_what_was_asked_for(seed: int, processors: int) -> None:
    log = lublin.generate(200, processors, 0.8, seed)
    assert len(log.jobs) == 200
    assert log.processors == processors
    assert all(1 <= job.processors <= processors for job in log.jobs)
    assert all(1 <= job.run <= job.limit for job in log.jobs)
    submits = [job.submit for job in log.jobs]
    assert submits == sorted(submits)
    work = sum(job.run * job.processors for job in log.jobs)
    assert work / (processors * (submits[-1] - submits[0])) == pytest.approx(0.8)
    assert lublin.generate(200, processors, 0.8, seed) == log


POLICIES = ("fcfs", "easy", "conservative", "hybrid")


def test_a_replay_by_hand() -> None:
    jobs = [
        LoggedJob(1, 0, 100, 3, 100),
        LoggedJob(2, 10, 50, 4, 50),
        LoggedJob(3, 20, 5, 1, 20),  # could pass the one before it
    ]
    plain = replay(jobs, 4)
    assert plain.starts == {1: 0, 2: 100, 3: 150}
    assert plain.makespan == 155
    assert plain.mean_wait == pytest.approx((0 + 90 + 130) / 3)
    assert plain.bounded_slowdown == pytest.approx((1 + 140 / 50 + 135 / 10) / 3)
    assert plain.utilisation == pytest.approx(3 / 4)  # as long as anything was submitted
    assert plain.completed == 3
    easy = replay(jobs, 4, {"sched": {"queue-policy": "easy"}})
    assert easy.starts == {1: 0, 2: 100, 3: 20}
    assert easy.no_worse_than(plain)
    assert not plain.no_worse_than(easy)


@pytest.mark.parametrize("node_cores", [1, 4])
def test_backfilling_pays(node_cores: int) -> None:
    log = lublin.generate(400, 64, 0.9, 7)
    found = {
        name: replay(log.jobs, 64, {"sched": {"queue-policy": name}}, node_cores=node_cores)
        for name in POLICIES
    }
    for name in POLICIES:
        assert found[name].completed == 400
        assert found[name].no_worse_than(found["fcfs"])
    assert found["easy"].mean_wait < found["fcfs"].mean_wait


def test_a_job_larger_than_the_machine_gets_all_of_it() -> None:
    jobs = [LoggedJob(1, 0, 10, 99, 10), LoggedJob(2, 10, 1, 1, 1)]
    assert replay(jobs, 4).utilisation == 1.0
