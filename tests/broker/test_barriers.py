"""Barriers: the cores over random trees, and the service on brokers that come and go."""

import errno
from collections import defaultdict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.broker.barrier_service import BarrierService
from flux_mpi.broker.barriers import Barriers, Entry, Gathering
from flux_mpi.broker.services import BrokerServices
from flux_mpi.message.message import NORESPONSE

from .harness import Fleet

# -- the cores, on a tree of queues ----------------------------------------------------------------


class Net:
    """The cores of all brokers of a tree; what is under way on each link is ours to move."""

    def __init__(self, parents):
        self.parents = parents  # parents[0] is None
        self.root = Barriers()
        self.gathering = {rank: Gathering() for rank in range(1, len(parents))}
        self.up = defaultdict(deque)  # by child
        self.down = defaultdict(deque)  # by child
        self.below = {}  # (child, batch id) → entry at the parent
        self.batches = {}  # (child, batch id) → batch at the child
        self.sent = defaultdict(int)
        self.outcomes = defaultdict(list)  # client → [(errnum, value)]

    def enter(self, rank, client, name, nprocs, count=1):
        entry = Entry(name, nprocs, count, client)
        self._enter(rank, entry)
        return entry

    def _enter(self, rank, entry):
        if rank == 0:
            self._tell(self.root.enter(entry))
        else:
            self.gathering[rank].enter(entry)

    def lose(self, rank, entry, why):
        if rank == 0:
            self._tell(self.root.lose(entry, why))
            return
        batch = self.gathering[rank].lose(entry, why)
        if batch is not None:
            self.up[rank].append(("abort", batch.id, why))

    def flush(self, rank):
        for batch in self.gathering[rank].flush():
            self.batches[rank, batch.id] = batch
            self.up[rank].append(("gather", batch.name, batch.nprocs, batch.count, batch.id))
            self.sent[rank] += 1
            if batch.lost:
                self.up[rank].append(("abort", batch.id, batch.lost))

    def climb(self, child):
        """Let the first message on the way up from ``child`` arrive."""
        what, *rest = self.up[child].popleft()
        parent = self.parents[child]
        if what == "gather":
            name, nprocs, count, batch = rest
            entry = Entry(name, nprocs, count, (child, batch))
            self.below[child, batch] = entry
            self._enter(parent, entry)
        else:
            batch, why = rest
            entry = self.below.get((child, batch))
            if entry is not None:
                self.lose(parent, entry, why)

    def descend(self, child):
        """Let the first answer on the way down to ``child`` arrive."""
        batch, errnum, value = self.down[child].popleft()
        done = self.batches.pop((child, batch))
        self._tell(self.gathering[child].answered(done, errnum, value))

    def _tell(self, outcomes):
        for entry, errnum, value in outcomes:
            if isinstance(entry.key, tuple):
                child, batch = entry.key
                del self.below[child, batch]
                self.down[child].append((batch, errnum, value))
            else:
                assert errnum or value == entry.count == 1
                self.outcomes[entry.key].append((errnum, value))

    def moves(self):
        """Everything that could happen next."""
        for rank, core in self.gathering.items():
            if not core.idle:
                yield (self.flush, rank)
            if self.up[rank]:
                yield (self.climb, rank)
            if self.down[rank]:
                yield (self.descend, rank)

    def settle(self, choose=lambda moves: moves[0]):
        while moves := list(self.moves()):
            move, rank = choose(moves)
            move(rank)


@st.composite
def trees(draw):
    size = draw(st.integers(1, 9))
    return [None, *(draw(st.integers(0, child - 1)) for child in range(1, size))]


@given(trees(), st.data())
@settings(deadline=None, max_examples=150)
def test_nobody_passes_before_all_have_come_however_messages_travel(parents, data):
    """Each client goes through several barriers of one name; only the last may be missing some."""
    nprocs = data.draw(st.integers(1, 8))
    where = data.draw(st.lists(st.integers(0, len(parents) - 1), min_size=nprocs, max_size=nprocs))
    rounds = data.draw(st.integers(1, 4))
    net = Net(parents)
    entered = [0] * nprocs

    def passed(client):
        return len(net.outcomes[client])

    def can_enter():
        return [c for c in range(nprocs) if entered[c] == passed(c) < rounds]

    while True:
        moves = list(net.moves()) + [(None, client) for client in can_enter()]
        if not moves:
            break
        move, at = data.draw(st.sampled_from(moves))
        if move is None:
            entered[at] += 1
            net.enter(where[at], at, "b", nprocs)
        else:
            move(at)
        assert max(map(passed, range(nprocs))) <= min(entered)
    assert [passed(client) for client in range(nprocs)] == [rounds] * nprocs
    assert all(errnum == 0 for each in net.outcomes.values() for errnum, _ in each)
    assert net.root.status() == []
    assert all(core.under_way == 0 for core in net.gathering.values())


@given(trees(), st.data())
@settings(deadline=None, max_examples=150)
def test_more_than_are_needed_are_the_beginning_of_the_next(parents, data):
    nprocs = data.draw(st.integers(1, 4))
    count = data.draw(st.integers(0, 15))
    net = Net(parents)
    for client in range(count):
        net.enter(data.draw(st.integers(0, len(parents) - 1)), client, "b", nprocs)
        while moves := list(net.moves()):
            if data.draw(st.booleans()):
                break
            move, at = data.draw(st.sampled_from(moves))
            move(at)
        done = sum(map(len, net.outcomes.values()))
        assert done % nprocs == 0 or list(net.moves()), "part of a barrier was released for good"
    net.settle(lambda moves: data.draw(st.sampled_from(moves)))
    done = sum(map(len, net.outcomes.values()))
    assert done == count // nprocs * nprocs
    assert all(len(each) <= 1 for each in net.outcomes.values())
    left = count % nprocs
    assert net.root.status() == ([("b", left, nprocs)] if left else [])


@given(trees(), st.data())
@settings(deadline=None, max_examples=150)
def test_a_lost_participant_fails_those_in_with_it_and_no_other_barrier(parents, data):
    nprocs = data.draw(st.integers(2, 8))
    where = data.draw(st.lists(st.integers(0, len(parents) - 1), min_size=nprocs, max_size=nprocs))
    net = Net(parents)
    entries = {}
    loser = data.draw(st.integers(0, nprocs - 2))
    for client in range(nprocs - 1):  # one never comes
        entries[client] = net.enter(where[client], client, "b", nprocs)
        net.enter(where[client], f"other {client}", "other", nprocs - 1)
        while moves := list(net.moves()):
            if data.draw(st.booleans()):
                break
            move, at = data.draw(st.sampled_from(moves))
            move(at)
    # Those that have not been told to the root when the loss is may still come in before it.
    net.lose(where[loser], entries[loser], "somebody left it")
    net.settle(lambda moves: data.draw(st.sampled_from(moves)))
    told = {c: net.outcomes[c] for c in range(nprocs - 1)}
    assert [errnum for errnum, _ in told[loser]] == [errno.ECONNABORTED]
    waiting = [c for c, each in told.items() if not each]
    assert net.root.status() == ([("b", len(waiting), nprocs)] if waiting else [])
    for each in told.values():
        for errnum, text in each:
            assert errnum == errno.ECONNABORTED
            assert text.startswith("barrier b: somebody left it, when ")
            assert text.endswith(f" of {nprocs} had entered")
    for client in range(nprocs - 1):
        assert net.outcomes[f"other {client}"] == [(0, 1)]


def test_a_subtree_is_one_message_on_its_link():
    parents = [None, 0, 1, 1, 2, 2]
    net = Net(parents)
    for rank in range(6):
        for k in range(10):
            net.enter(rank, rank * 10 + k, "b", 60)
    for rank in (5, 4, 3, 2, 1):  # each broker's turn ends after it heard those below
        net.flush(rank)
        net.climb(rank)
    assert dict(net.sent) == dict.fromkeys(range(1, 6), 1)
    net.settle()
    assert sum(map(len, net.outcomes.values())) == 60


def test_a_loss_among_those_that_were_too_many_fails_the_next_barrier():
    """Three at one broker, a barrier of two: the third is lost before it is asked for again."""
    net = Net([None, 0])
    third = [net.enter(1, client, "b", 2) for client in "abc"][-1]
    net.flush(1)
    net.climb(1)  # a and b are released; c is in nobody's count until its broker hears so
    net.lose(1, third, "c left it")
    net.settle()
    assert net.outcomes["a"] == net.outcomes["b"] == [(0, 1)]
    text = "barrier b: c left it, when 1 of 2 had entered"
    assert net.outcomes["c"] == [(errno.ECONNABORTED, text)]
    assert net.root.status() == []


def test_another_nprocs_is_refused_and_harms_nobody():
    net = Net([None, 0, 0])
    net.enter(1, "a", "b", 2)
    net.settle()
    net.enter(2, "x", "b", 3)
    net.enter(1, "y", "b", 3)
    net.settle()
    text = "barrier b: nprocs: 3 is not allowed, as 1 entered with nprocs 2"
    assert net.outcomes["x"] == net.outcomes["y"] == [(errno.EINVAL, text)]
    net.enter(2, "c", "b", 2)
    net.settle()
    assert net.outcomes["a"] == net.outcomes["c"] == [(0, 1)]
    net.enter(1, "a", "b", 1)  # the name is free for any number now
    net.settle()
    assert net.outcomes["a"] == [(0, 1), (0, 1)]


# -- the service -----------------------------------------------------------------------------------


@pytest.fixture
def fleet():
    fleet = Fleet(["n"] * 7)
    for broker in fleet.brokers:
        BrokerServices(broker, {}, None)
        broker.attrs.define("rank", broker.rank)
        for name, value in (("log-level", 7), ("log-ring-size", 1024)):
            broker.attrs.set(name, value)
    yield fleet
    assert fleet.errors() == []


def enter(fleet, rank, nprocs, name="b", **more):
    client = fleet.client(rank)
    client.tag = client.ask("barrier.enter", {"name": name, "nprocs": nprocs, **more})
    return client


def open_requests(fleet):
    return [broker.router.inflight for broker in fleet.brokers]


@pytest.mark.parametrize("rounds", [1, 3])
def test_clients_of_all_ranks_meet_again_and_again(fleet, rounds):
    for number in range(rounds):
        clients = [enter(fleet, rank, 14) for rank in range(7)]
        fleet.run()
        assert not any(client.answers(client.tag) for client in clients)
        last = [enter(fleet, rank, 14) for rank in range(7)]
        fleet.run()
        assert [client.answer(client.tag) for client in clients + last] == [(0, None)] * 14, number
        assert open_requests(fleet) == [0] * 7


def test_many_at_a_rank_are_few_messages(fleet):
    sent = [broker.counters["sent"] for broker in fleet.brokers]
    clients = [enter(fleet, 6, 100) for _ in range(50)]
    fleet.run()
    for client in [enter(fleet, 6, 100) for _ in range(50)]:
        clients.append(client)
        fleet.run(1e-5)  # one by one, each in a turn of its own
    fleet.run()
    assert all(client.answer(client.tag) == (0, None) for client in clients)
    assert fleet.brokers[6].counters["sent"] - sent[6] < 10


def test_what_was_asked_badly_is_refused_with_what_is_allowed(fleet):
    def ask(payload):
        client = fleet.client(5)
        tag = client.ask("barrier.enter", payload)
        fleet.run()
        return client.answer(tag)

    for payload, words in (
        (None, "barrier: name: a string is required, found None"),
        ({"name": 5, "nprocs": 1}, "name: a string is required, found 5"),
        ({"name": "", "nprocs": 1}, "name: 1 to 256 characters are required, found 0"),
        ({"name": "x" * 257, "nprocs": 1}, "found 257"),
        ({"name": "a\nb", "nprocs": 1}, "control characters are not allowed"),
        ({"name": "b"}, "barrier b: nprocs: None is not allowed, an integer of at least 1 is"),
        ({"name": "b", "nprocs": 0}, "nprocs: 0 is not allowed"),
        ({"name": "b", "nprocs": True}, "nprocs: True is not allowed"),
        ({"name": "b", "nprocs": 1.5}, "nprocs: 1.5 is not allowed"),
        ({"name": "b", "nprocs": 1, "who": 7}, "barrier b: who: a string is required, found 7"),
    ):
        errnum, text = ask(payload)
        assert errnum == errno.EINVAL
        assert words in text


@pytest.mark.parametrize("leaver", [0, 2, 6])
@pytest.mark.parametrize("how", ["leave", "cancel"])
def test_who_leaves_fails_it_for_all_and_is_named(fleet, leaver, how):
    clients = [enter(fleet, rank, 8) for rank in range(7) if rank != leaver]
    gone = enter(fleet, leaver, 8, who="ƒAB.3")
    fleet.run()
    if how == "leave":
        gone.leave()
    else:
        gone.cancel(gone.tag)
    fleet.run()
    text = f"barrier b: ƒAB.3 on rank {leaver} left it, when 7 of 8 had entered"
    assert [client.answer(client.tag) for client in clients] == [(errno.ECONNABORTED, text)] * 6
    assert open_requests(fleet) == [0] * 7
    again = [enter(fleet, rank, 3) for rank in (6, 5, 4)]
    fleet.run()
    assert [client.answer(client.tag) for client in again] == [(0, None)] * 3


def test_who_leaves_before_anybody_was_told_fails_it_too(fleet):
    other = enter(fleet, 1, 3)
    fleet.run()
    enter(fleet, 6, 3, who="hasty").leave()
    fleet.run()
    assert other.answer(other.tag) == (
        errno.ECONNABORTED,
        "barrier b: hasty on rank 6 left it, when 2 of 3 had entered",
    )


def test_who_leaves_after_the_release_harms_nobody(fleet):
    clients = [enter(fleet, rank, 2) for rank in (5, 6)]
    fleet.run()
    for client in clients:
        assert client.answer(client.tag) == (0, None)
        client.leave()
    later = enter(fleet, 3, 2)
    fleet.run()
    assert later.answers(later.tag) == []


def test_a_lost_subtree_fails_what_its_clients_were_in(fleet):
    """Rank 2 dies, with 5 and 6 below it."""
    inside = [enter(fleet, rank, 9) for rank in (0, 1, 3, 4)]
    below = []
    for rank in (2, 5, 6):  # each in a batch of its own
        below.append(enter(fleet, rank, 9))
        fleet.run()
    elsewhere = [enter(fleet, rank, 3, "other") for rank in (0, 4)]
    fleet.run()
    fleet.network.remove(2)
    fleet.run()
    for client in inside:
        errnum, text = client.answer(client.tag)
        assert errnum == errno.ECONNABORTED
        assert text == "barrier b: rank 2 was lost with 3 that were in it, when 7 of 9 had entered"
    for client in below[1:]:
        errnum, text = client.answer(client.tag)
        assert (errnum, text) == (errno.EHOSTUNREACH, "barrier b: barrier.gather: rank 2 was lost")
    assert not any(client.answers(client.tag) for client in elsewhere)
    last = enter(fleet, 3, 3, "other")
    fleet.run()
    assert [c.answer(c.tag) for c in [*elsewhere, last]] == [(0, None)] * 3


def test_who_wants_no_answer_is_not_in(fleet):
    client = fleet.client(5)
    client.ask("barrier.enter", {"name": "b", "nprocs": 2}, flags=NORESPONSE)
    other = enter(fleet, 6, 2)
    fleet.run()
    assert other.answers(other.tag) == []


@pytest.mark.parametrize("topic", ["barrier.gather", "barrier.abort", "groups.update"])
@pytest.mark.parametrize("at", [0, 3])
def test_clients_cannot_pass_for_brokers(fleet, topic, at):
    client = fleet.client(at)
    tag = client.ask(topic, {"name": "b", "nprocs": 1, "count": 5, "batch": 1, "ops": []}, rank=0)
    fleet.run()
    if at == 0:
        assert client.answer(tag)[0] == errno.EPERM
    else:
        assert client.answer(tag) == (errno.EPERM, f"{topic}: is between brokers")


def test_status_tells_who_is_awaited(fleet):
    clients = [enter(fleet, 6, 3, name) for name in ("x", "y", "y")]
    fleet.run()

    def status(payload):
        client = fleet.client(3)
        tag = client.ask("barrier.status", payload)
        fleet.run()
        return client.answer(tag)[1]["barriers"]

    assert status(None) == [["x", 1, 3], ["y", 2, 3]]
    assert status({"name": "y"}) == [["y", 2, 3]]
    assert status({"name": "z"}) == []
    assert not any(client.answers(client.tag) for client in clients)


def test_a_thousand_brokers_are_few_messages_to_each():
    """A client a broker, fan-out 32: none hears more than twice from each of its children."""
    fleet = Fleet(["n"] * 1000, fanout=32)
    for broker in fleet.brokers:
        BarrierService(broker)
    clients = [enter(fleet, rank, 1000) for rank in range(1000)]
    fleet.run()
    assert all(client.answer(client.tag) == (0, None) for client in clients)
    received = [broker.counters["received"] for broker in fleet.brokers]
    most = [1 + 2 * len(fleet.tree.children(rank)) + 2 for rank in range(1000)]
    assert all(count <= bound for count, bound in zip(received, most, strict=True))
    assert sum(received) < 1000 + 2 * 1040
    assert fleet.errors() == []
