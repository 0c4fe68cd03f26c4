"""The expression language of ``find``."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from flux_mpi.formats import fluid
from flux_mpi.sched.criteria import parse


@dataclass
class Vertex:
    name: str = "node1"
    down: bool = False
    allocated: bool = False
    reserved: bool = False
    properties: set[str] = field(default_factory=set)
    allocations: set[int] = field(default_factory=set)
    reservations: set[int] = field(default_factory=set)
    tags: set[int] = field(default_factory=set)
    spans: set[int] = field(default_factory=set)


UP = Vertex()
BUSY = Vertex("node2", allocated=True, allocations={7}, spans={7}, properties={"fast"})
DOWN = Vertex("node3", down=True, reserved=True, reservations={8}, tags={8})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("status=up", "UB"),
        ("status=down", "D"),
        ("status=DOWN", "D"),
        ("sched-now=allocated", "B"),
        ("sched-now=free", "UD"),
        ("sched-future=reserved", "D"),
        ("sched-future=free", "UB"),
        ("agfilter=true", "UBD"),
        ("agfilter=f", ""),
        ("names=node[1-2]", "UB"),
        ("names=NODE3,x", "D"),
        ("names=", ""),
        ("jobid-alloc=7", "B"),
        ("jobid-span=7", "B"),
        ("jobid-reserved=8", "D"),
        ("jobid-tag=0x8", "D"),
        ("jobid-alloc=8", ""),
        ("property=Fast", "B"),
        ("property=slow", ""),
        ("status=up and sched-now=free", "U"),
        ("status=up sched-now=free", "U"),
        ("status=down or sched-now=allocated", "BD"),
        ("  status=up\t and  sched-now=free  ", "U"),
        # from left to right, whatever the words
        ("status=down or sched-now=allocated and names=node2", "B"),
        ("status=down or (sched-now=allocated and names=node9)", "D"),
        ("(status=down or sched-now=allocated) and (names=node2)", "B"),
        ("( ( status=up ) )", "UB"),
        ("(status=up)\t(names=node1)", "U"),
    ],
)
def test_matches(text: str, found: str) -> None:
    criteria = parse(text)
    vertices = {"U": UP, "B": BUSY, "D": DOWN}
    assert "".join(key for key, v in vertices.items() if criteria.matches(v)) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("()", "empty"),
        ("status", "KEY=VALUE"),
        ("and", "KEY=VALUE"),
        ("status=sideways", "status: expected up or down"),
        ("sched-now=reserved", "sched-now"),
        ("sched-future=allocated", "sched-future"),
        ("agfilter=maybe", "agfilter"),
        ("jobid-alloc=", "jobid-alloc"),
        ("jobid-tag=-3", "jobid-tag"),
        ("property=", "property"),
        ("names=a[1", "names"),
        ("colour=red", "unknown predicate 'colour'"),
        ("status=up and", "after 'and'"),
        ("status=up or or status=up", "KEY=VALUE"),
        ("(status=up", "not closed"),
        ("status=up)", "status"),
        ("(status=up)and status=up", "white space"),
        ("(status=up) )", "KEY=VALUE"),
        ("(" * 10_000 + "status=up" + ")" * 10_000, "parentheses"),
    ],
)
def test_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"criteria ") as error:
        parse(text)
    assert problem in str(error.value)
    assert len(str(error.value)) < 300


def test_the_use_of_aggregates_is_asked_for_by_what_comes_last() -> None:
    assert parse("agfilter=t").agfilter
    assert not parse("agfilter=t and agfilter=false").agfilter
    assert not parse("status=up").agfilter
    assert parse("jobid-span=3 and (agfilter=true or jobid-tag=4)").job_id == 4
    assert parse("agfilter=true").job_id == 0


def test_job_ids_in_any_spelling() -> None:
    job = 123_456_789
    view = Vertex(allocations={job})
    for form in ("dec", "hex", "dothex", "f58plain", "words"):
        assert parse(f"jobid-alloc={fluid.encode(job, form)}").matches(view), form


def test_a_long_chain() -> None:
    text = " or ".join(["status=down"] * 20_000)
    assert not parse(text).matches(UP)
    assert parse(text).matches(DOWN)
