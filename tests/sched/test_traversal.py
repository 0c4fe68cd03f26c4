"""Small kernels of the search against their contracts, and how requests become rows of integers."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.formats.request import MatchJobspec, Request
from flux_mpi.resource.graph import Names
from flux_mpi.sched.matcher import Matcher
from flux_mpi.sched.requestrows import (
    OP_PLUS,
    R_EXCLUSIVE,
    R_FROM,
    R_IS_SLOT,
    R_LABEL,
    R_MAX,
    R_MIN,
    R_MOST,
    R_NEED,
    R_OPERAND,
    R_OPERATOR,
    R_PRUNES,
    R_TO,
    R_TYPE,
    X_FALSE,
    X_TRUE,
    X_UNSAID,
    count_for,
)
from flux_mpi.sched.requests import MAX_VARIANTS, MOST, Compiler, Table, variants
from tests.sched.oracle import Part, Recorder, acceptable, plant

TYPES = ("cluster", "core", "socket", "gpu", "node", "slot")


def compiled(*resources: Request, flexible: bool = False, tracked: str = "core gpu") -> Table:
    columns = {type: column for column, type in enumerate(tracked.split())}
    return Compiler(Names(TYPES), columns, flexible).table(resources)


def rows(table: Table) -> list[list[int]]:
    return [
        list(table.rows[at : at + table.width]) for at in range(0, len(table.rows), table.width)
    ]


def of(type: str, *children: Request, n: int = 1, **more: object) -> Request:
    return Request(type, n, n, children=list(children), **more)  # type: ignore[arg-type]


# -- counts ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(0, 50),
    st.sampled_from("+*^"),
    st.integers(1, 5),
    st.integers(0, 60),
)
def test_the_largest_acceptable_count_is_taken(
    least: int, more: int, operator: str, operand: int, have: int
) -> None:
    request = Request("core", least, least + more, operator, operand)
    table = compiled(request)
    expected = max((count for count in acceptable(request) if count <= have), default=0)
    assert count_for(table.rows, 0, have) == expected


def test_large_counts_neither_overflow_nor_take_long() -> None:
    for operator in "+*^":
        for operand in (2, 3, 1 << 31, MOST):
            row = compiled(Request("core", 2, MOST, operator, operand)).rows
            assert 2 <= row[R_MOST] <= MOST
            assert count_for(row, 0, 1) == 0
            assert count_for(row, 0, 2) == 2


def test_no_count_fits_where_the_least_is_more_than_the_most() -> None:
    assert count_for(compiled(Request("core", 5, 4)).rows, 0, 100) == 0


# -- rows -----------------------------------------------------------------------------------------


def test_what_is_in_a_resource_lies_in_rows_of_its_own() -> None:
    table = compiled(
        of("node", of("slot", of("core", n=2), of("gpu")), n=3), of("socket", exclusive=True)
    )
    node, socket, slot, core, gpu = rows(table)
    assert table.top == 2
    names = Names(TYPES)
    assert [names[row[R_TYPE]] for row in rows(table)] == ["node", "socket", "slot", "core", "gpu"]
    assert [(row[R_FROM], row[R_TO]) for row in (node, slot)] == [(2, 3), (3, 5)]
    assert all(row[R_FROM] == row[R_TO] for row in (socket, core, gpu))
    assert [row[R_IS_SLOT] for row in rows(table)] == [0, 0, 1, 0, 0]
    assert [row[R_PRUNES] for row in rows(table)] == [1, 0, 1, 0, 0]
    assert node[R_NEED:] == [2, 1]
    assert (node[R_MIN], node[R_MAX], node[R_OPERATOR], node[R_OPERAND]) == (3, 3, OP_PLUS, 1)
    assert table.needs == [6, 3]
    assert table.whole_types == {"socket"}


def test_exclusive_may_be_said_either_way_or_not_at_all() -> None:
    table = compiled(of("node"), of("core", exclusive=True), of("gpu", exclusive=False))
    assert [row[R_EXCLUSIVE] for row in rows(table)] == [X_UNSAID, X_TRUE, X_FALSE]


def test_types_that_no_vertex_has_differ_from_each_other() -> None:
    table = compiled(of("tape"), of("disk"), of("tape"))
    tape, disk, again = (row[R_TYPE] for row in rows(table))
    assert tape == again
    assert tape != disk
    assert max(tape, disk) < -1


def test_labels_are_numbered() -> None:
    table = compiled(of("node", of("core", label="b"), label="a"), of("gpu", label="b"))
    assert table.labels == ["", "a", "b"]
    node, gpu, core = rows(table)
    assert (node[R_LABEL], gpu[R_LABEL], core[R_LABEL]) == (1, 2, 2)


def test_a_resource_used_twice_counts_twice() -> None:
    core = of("core", n=2)
    assert compiled(of("node", core), of("socket", core)).needs == [4, 0]


# -- alternatives ---------------------------------------------------------------------------------


def shapes(resources: list[Request]) -> list[tuple[str, object]]:
    return [(resource.type, shapes(resource.children)) for resource in resources]


def test_without_flexibility_a_request_is_what_it_is() -> None:
    request = [of("xor_slot", of("core"))]
    assert [shapes(v) for v in variants(request, False)] == [[("xor_slot", [("core", [])])]]


def test_each_alternative_is_tried_in_turn() -> None:
    request = [of("node", of("xor_slot", of("core")), of("xor_slot", of("gpu")), of("ssd"))]
    assert [shapes(v) for v in variants(request, True)] == [
        [("node", [("ssd", []), ("slot", [(kind, [])])])] for kind in ("core", "gpu")
    ]
    # The request itself stays as it was.
    assert request[0].children[0].type == "xor_slot"


def test_alternatives_in_several_places_multiply() -> None:
    pair = [of("xor_slot", of("core")), of("xor_slot", of("gpu"))]
    assert len(variants([of("rack", *pair), of("node", *pair)], True)) == 4
    nested = [of("xor_slot", of("node", *pair)), of("xor_slot", of("socket"))]
    assert len(variants(nested, True)) == 3


def test_too_many_alternatives_are_refused() -> None:
    pair = [of("xor_slot", of("core")), of("xor_slot", of("gpu"))]
    request = [of(f"type{i}", *pair) for i in range(11)]
    with pytest.raises(ValueError, match=f"xor_slot: expected at most {MAX_VARIANTS}"):
        variants(request, True)
    assert len(variants(request[:9], True)) == 1 << 9


def test_alternatives_need_what_the_least_of_them_needs() -> None:
    both, one = of("slot", of("core", n=4), of("gpu")), of("slot", of("core", n=2))
    assert compiled(of("node", both, one), flexible=True).needs == [2, 0]
    # As in Fluxion, what an earlier one has not is still needed when a later one has it.
    assert compiled(of("node", one, both), flexible=True).needs == [2, 1]


def test_alternatives_of_too_many_types_are_refused() -> None:
    request = of("slot", *(of(f"type{i}") for i in range(30)))
    with pytest.raises(ValueError, match="slot: expected alternatives of at most"):
        compiled(request, flexible=True)
    compiled(request)


def matched(job: list[Request], cores: int, gpus: int, traverser: str) -> array[int] | None:
    """The cores and GPUs that a request takes of one node, or None."""
    parts = [Part("core") for _ in range(cores)] + [Part("gpu") for _ in range(gpus)]
    graph = plant(Part("cluster", 1, [Part("node", 1, parts)]))
    matcher = Matcher(graph, policy="low", traverser=traverser)
    found = Recorder(graph)
    outcome = matcher.match("allocate", MatchJobspec(job, 1.0), 1, found, 0)
    if outcome.status != "matched":
        return None
    taken = [graph.type(vertex) for vertex in found.taken]
    return array("q", [taken.count("core"), taken.count("gpu")])


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=2, max_size=3, unique=True),
    st.integers(1, 4),
)
def test_slots_of_alternatives_are_found_if_there_are_so_many(
    cores: int, gpus: int, kinds: list[tuple[int, int]], n: int
) -> None:
    """Each of ``n`` slots is one of ``kinds`` of (cores, gpus), whichever there is room for."""
    kinds.sort(
        key=lambda kind: kind[1] == 0
    )  # see test_alternatives_need_what_the_least_of_them_needs
    job = [of("slot", of("core", n=c), *([of("gpu", n=g)] if g else []), n=n) for c, g in kinds]

    def most(left_cores: int, left_gpus: int) -> int:
        return max(
            (
                1 + most(left_cores - c, left_gpus - g)
                for c, g in kinds
                if c <= left_cores and g <= left_gpus
            ),
            default=0,
        )

    found = matched([of("node", *job)], cores, gpus, "flexible")
    assert (found is not None) == (most(cores, gpus) >= n)
    if found is not None:
        assert any(
            sum(c for c, _ in choice) == found[0] and sum(g for _, g in choice) == found[1]
            for choice in _choices(kinds, n)
        )


def _choices(kinds: list[tuple[int, int]], n: int) -> list[list[tuple[int, int]]]:
    if n == 0:
        return [[]]
    return [[kind, *rest] for kind in kinds for rest in _choices(kinds, n - 1)]


def test_one_of_exclusive_alternatives_is_taken() -> None:
    job = [of("xor_slot", of("core", n=4)), of("xor_slot", of("core"), of("gpu", n=2), n=2)]
    assert list(matched(job, 4, 4, "flexible") or ()) == [4, 0]
    assert list(matched(job, 3, 4, "flexible") or ()) == [2, 4]
    assert matched(job, 3, 3, "flexible") is None
