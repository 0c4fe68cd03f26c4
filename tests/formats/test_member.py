"""Names of members: their order, and what is no name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.member import order, problem, task


def test_tasks_are_in_the_order_of_their_ranks() -> None:
    names = [task("ƒA", rank) for rank in range(12)]
    assert names[10] == "ƒA.10"
    names.reverse()
    assert sorted(names, key=order) == names[::-1]
    assert sorted(["vm:12", "a.b", "a.2", "a.10", "a", "9"], key=order) == [
        "9", "a", "a.2", "a.10", "a.b", "vm:12",
    ]  # fmt: skip


@given(st.lists(st.text(max_size=6)))
def test_the_order_is_total(names: list[str]) -> None:
    ordered = sorted(names, key=order)
    names.reverse()
    assert sorted(names, key=order) == ordered


@pytest.mark.parametrize("name", ["a", "ƒA.0", "with space", "x" * 256])
def test_names(name: str) -> None:
    assert problem(name) == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (None, "a string is required, found None"),
        (b"x", "a string is required, found b'x'"),
        ("", "1 to 256 characters are required, found 0"),
        ("x" * 257, "found 257"),
        ("a\tb", "control characters are not allowed, found 'a\\tb'"),
        ("\x7f", "control characters"),
    ],
)
def test_what_is_no_name(name: object, says: str) -> None:
    assert says in problem(name)
