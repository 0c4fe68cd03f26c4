"""RFC 29: its vectors, and a plain list of names as the oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.hostlist import Hostlist

VECTORS = [
    ("", ""),
    ("foox,fooy,fooz", "foox,fooy,fooz"),
    ("[1-3,5-6]", "1,2,3,5,6"),
    ("foo[1-5]", "foo1,foo2,foo3,foo4,foo5"),
    ("foo[0-4]-eth2", "foo0-eth2,foo1-eth2,foo2-eth2,foo3-eth2,foo4-eth2"),
    ("foo1,foo1,foo1", "foo1,foo1,foo1"),
    ("[00-02]", "00,01,02"),
    ("[00-2]", "00,01,02"),
    ("foo[1,1,2,1]", "foo1,foo1,foo2,foo1"),
    # The rule for leading zeros, as the text of the RFC gives it.
    ("[005,4,11-13]", "005,004,011,012,013"),
]

names = st.builds(
    lambda prefix, number, suffix: f"{prefix}{number}{suffix}",
    st.sampled_from(["", "n", "node", "a-b", "x0y"]),
    st.one_of(
        st.integers(0, 12).map(str),
        st.sampled_from(["", "00", "01", "002", "099", "100", "0100", "1" * 25]),
    ),
    st.sampled_from(["", "", "", "-eth2", "z"]),
).filter(bool)
lists = st.lists(names, max_size=12)


@pytest.mark.parametrize(("text", "expanded"), VECTORS)
def test_the_vectors_of_the_rfc(text: str, expanded: str) -> None:
    assert ",".join(Hostlist.parse(text)) == expanded
    assert Hostlist.parse(expanded) == Hostlist.parse(text)
    assert list(Hostlist.parse(str(Hostlist.parse(text)))) == list(Hostlist.parse(text))


@pytest.mark.parametrize(
    ("hosts", "compact"),
    [
        ([], ""),
        (["vm", "vm", "vm"], "vm,vm,vm"),
        (["n1", "n2", "n3", "x"], "n[1-3],x"),
        (["n1", "n3", "n4"], "n[1,3-4]"),
        (["n9", "n10", "n11"], "n[9-11]"),
        (["n09", "n10", "n11"], "n[09-11]"),
        (["n1", "n02"], "n1,n02"),
        (["n098", "n099", "n100"], "n[098-100]"),
        (["n2", "n1"], "n[2,1]"),
        (["n1", "n1"], "n[1,1]"),
        (["n1", "m2", "n2"], "n1,m2,n2"),
        (["1", "2"], "[1-2]"),
    ],
)
def test_names_are_printed_compactly(hosts: list[str], compact: str) -> None:
    assert str(Hostlist(hosts)) == compact
    assert list(Hostlist.parse(compact)) == hosts


@given(lists)
def test_it_is_the_list_of_its_names(hosts: list[str]) -> None:
    hostlist = Hostlist(hosts)
    assert list(hostlist) == hosts
    assert len(hostlist) == len(hosts)
    assert bool(hostlist) == bool(hosts)
    assert [hostlist[i] for i in range(-len(hosts), len(hosts))] == hosts + hosts
    assert list(hostlist[1:4]) == hosts[1:4]
    assert list(Hostlist.parse(str(hostlist))) == hosts
    assert Hostlist.parse(",".join(hosts)) == hostlist
    assert hostlist.copy() == hostlist
    for host in [*hosts, "n", "n01", "zz"]:
        assert hostlist.find(host) == (hosts.index(host) if host in hosts else -1)
        assert hostlist.find_all(host) == [i for i, name in enumerate(hosts) if name == host]
        assert (host in hostlist) == (host in hosts)


@given(lists, lists)
def test_append_delete_and_uniq(hosts: list[str], more: list[str]) -> None:
    both = Hostlist(hosts)
    kept = both.copy()
    assert both.append(",".join(more)) == len(more)
    assert list(both) == hosts + more
    assert list(kept) == hosts, "a copy does not change with its origin"
    left = hosts + more
    removed = 0
    for host in more:
        if host in left:
            left.remove(host)
            removed += 1
    assert both.delete(Hostlist(more)) == removed
    assert list(both) == left
    unique = kept.uniq()
    assert sorted(unique) == sorted(set(hosts))
    assert len(unique) == len(set(hosts))


def test_sorting_is_by_number() -> None:
    assert str(Hostlist.parse("n10,n9,a2,n1,n9").sort()) == "a2,n[1,9,9-10]"
    assert str(Hostlist.parse("n10,n9,a2,n1,n9").uniq()) == "a2,n[1,9-10]"


def test_a_name_with_a_range_inside_is_found() -> None:
    hosts = Hostlist.parse("a,foo[0-4]-eth2,b[01-03]x")
    assert hosts.find("foo3-eth2") == 4
    assert hosts.find("b02x") == 7
    for absent in ("foo5-eth2", "foo03-eth2", "b2x", "foo-eth2", "foo٣-eth2"):
        assert hosts.find(absent) == -1


def test_white_space_separates_too() -> None:
    assert list(Hostlist.parse(" a\tb, c\n")) == ["a", "b", "c"]


def test_a_huge_list_stays_small() -> None:
    hosts = Hostlist.parse("node[1-1000000000]")
    assert len(hosts) == 10**9
    assert hosts[999_999_999] == "node1000000000"
    assert hosts.find("node123456") == 123455
    assert str(hosts) == "node[1-1000000000]"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("n[1-3", "one pair of brackets"),
        ("n1]", "unmatched"),
        ("n]1[", "one pair"),
        ("n[[1]]", "one pair"),
        ("n[1][2]", "one pair"),
        ("n[]", "expected a number"),
        ("n[a]", "expected a number in brackets, found 'a'"),
        ("n[1-]", "expected a number"),
        ("n[-1]", "expected a number"),
        ("n[1,,2]", "expected a number"),
        ("n[3-1]", "does not ascend"),
        ("n[1-2-3]", "expected a number"),
        ("n[1 2]", "printable"),
        ("n[²]", "printable"),
        ("nœud", "printable ASCII"),
        ("n[" + "9" * 30 + "]", "is above"),
    ],
)
def test_bad_text_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Hostlist.parse(text)
    assert len(str(caught.value)) < 250
    with pytest.raises(ValueError, match="expected a string"):
        Hostlist.parse(None)  # type: ignore[arg-type]


def test_there_is_no_host_beyond_the_ends() -> None:
    hosts = Hostlist.parse("n[1-3]")
    for k in (3, -4):
        with pytest.raises(IndexError):
            hosts.nth(k)
