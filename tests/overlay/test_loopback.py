"""The transport inside one process keeps what every transport promises."""

from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.overlay.loopback import Network, single
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor.simulated import SimulatedReactor


def joined(size, fanout=2, latency_s=0.001):
    reactor = SimulatedReactor(start=0.0)
    network = Network(reactor, ["n"] * size, latency_s)
    tree = Tree(network.hosts, fanout)
    got, lost = [], []
    for rank in range(size):
        transport = network.transport(rank)
        transport.on_data = lambda peer, data, rank=rank: got.append((rank, peer, bytes(data)))
        transport.on_lost = lambda peer, why, rank=rank: lost.append((rank, peer))
        reactor.at_turn_end(transport.flush)
        transport.connect(tree.parent(rank), tree.children(rank))
    return reactor, network, got, lost


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=9))))
def test_each_stream_arrives_whole_and_in_order(sent):
    reactor, network, got, _ = joined(3)
    for peer, data in sent:
        network.nodes[0].send(peer, data)
    assert network.nodes[0].backlog(1) == sum(len(d) for p, d in sent if p == 1)
    network.nodes[0].flush()
    reactor.run()
    for peer in (1, 2):
        assert b"".join(d for rank, _, d in got if rank == peer) == b"".join(
            d for p, d in sent if p == peer
        )
    assert network.nodes[0].backlog(1) == 0
    assert network.nodes[0].drained()


def test_nothing_arrives_within_the_sender_s_turn():
    reactor, network, got, _ = joined(2, latency_s=0.5)
    network.nodes[1].send(0, b"x")
    network.nodes[1].flush()
    assert got == []
    reactor.run()
    assert (got, reactor.now()) == ([(0, 1, b"x")], 0.5)


def test_the_neighbours_of_a_removed_rank_learn_and_nobody_else():
    reactor, network, got, lost = joined(7)
    network.nodes[1].send(0, b"queued, and lost with it")
    network.remove(1)
    network.remove(1)
    reactor.run()
    assert sorted(lost) == [(0, 1), (3, 1), (4, 1)]
    assert got == []
    network.nodes[0].send(1, b"to nobody")
    network.nodes[0].flush()
    reactor.run()
    assert got == []


def test_nothing_is_taken_from_a_dropped_peer():
    reactor, network, got, lost = joined(2)
    network.nodes[1].send(0, b"under way")
    network.nodes[1].flush()
    network.nodes[0].drop(1)
    reactor.run()
    assert (got, lost) == ([], [])


def test_strangers_have_no_link():
    reactor, network, got, _ = joined(7)
    network.nodes[3].send(6, b"x")
    network.nodes[3].flush()
    reactor.run()
    assert got == []
    assert network.nodes[3].backlog(6) == 0


def test_a_lone_broker_has_nobody():
    transport = single(SimulatedReactor(), "n1")
    assert (transport.rank, transport.size, transport.hosts, transport.cards) == (
        0,
        1,
        ["n1"],
        [None],
    )
    transport.connect(None, [])
    transport.flush()
    transport.close()
