"""The shape of the tree, against what it promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.message.errors import FluxError
from flux_mpi.overlay.tree import Tree

hostnames = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60)
fanouts = st.integers(1, 8)


@given(hostnames, fanouts)
def test_every_rank_reaches_every_rank(hosts, fanout):
    tree = Tree(hosts, fanout)
    for here in range(tree.size):
        neighbours = {*tree.children(here), tree.parent(here)}
        for to in range(tree.size):
            at, hops = here, 0
            while (hop := tree.next_hop(at, to)) is not None:
                assert hop in {*tree.children(at), tree.parent(at)}
                at, hops = hop, hops + 1
                assert hops <= tree.level(here) + tree.level(to)
            assert at == to
            if here != to:
                assert tree.next_hop(here, to) in neighbours


@given(hostnames, fanouts)
def test_the_lowest_rank_of_a_node_leads_it(hosts, fanout):
    tree = Tree(hosts, fanout)
    leaders = {hosts.index(host) for host in hosts}
    for rank in range(1, tree.size):
        parent = tree.parent(rank)
        assert parent is not None
        assert parent < rank
        if rank in leaders:
            assert parent in leaders
        else:
            assert hosts[parent] == hosts[rank], "only leaders have links that leave the node"


@given(hostnames, fanouts)
def test_no_rank_has_more_children_than_the_fanout_of_each_of_its_families(hosts, fanout):
    tree = Tree(hosts, fanout)
    for rank in range(tree.size):
        on_node = [child for child in tree.children(rank) if hosts[child] == hosts[rank]]
        elsewhere = [child for child in tree.children(rank) if hosts[child] != hosts[rank]]
        assert len(on_node) <= fanout
        assert len(elsewhere) <= fanout


@given(hostnames, fanouts)
def test_levels_and_subtrees_agree(hosts, fanout):
    tree = Tree(hosts, fanout)
    assert tree.subtree(0) == list(range(tree.size))
    assert tree.maxlevel == max(tree.level(rank) for rank in range(tree.size))
    for rank in range(tree.size):
        below = [child for each in tree.children(rank) for child in tree.subtree(each)]
        assert tree.subtree(rank) == sorted([rank, *below])
        for child in tree.children(rank):
            assert tree.level(child) == tree.level(rank) + 1


def test_on_one_node_it_is_the_complete_k_ary_tree():
    tree = Tree(["n"] * 40, 3)
    assert tree.parents == [-1, *((rank - 1) // 3 for rank in range(1, 40))]
    assert tree.children(1) == [4, 5, 6]
    assert tree.parent(0) is None


def test_a_fanout_of_one_is_a_chain_of_any_length():
    tree = Tree(["n"] * 3000, 1)
    assert tree.maxlevel == 2999
    assert tree.next_hop(0, 2999) == 1
    assert len(tree.subtree(1)) == 2999


def test_a_fanout_of_none_is_refused():
    with pytest.raises(FluxError, match="fanout: 0 is not allowed"):
        Tree(["n"], 0)
