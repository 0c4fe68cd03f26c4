"""Groups: the cores against a plain model, and the service on brokers that come and go."""

import errno
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_mpi.broker.groups import Groups, Updates, Watched
from flux_mpi.broker.services import BrokerServices

from .harness import Fleet

# -- the cores -------------------------------------------------------------------------------------


def test_members_come_and_go():
    groups = Groups()
    assert groups.members("g") == []
    assert groups.apply([["join", "g", f"ƒA.{k}", 1, 7] for k in (10, 9, 0)]) == []
    assert groups.members("g") == ["ƒA.0", "ƒA.9", "ƒA.10"]
    assert groups.apply([["leave", "g", "ƒA.9"], ["leave", "g", "ƒA.9"]]) == [
        (1, errno.ENOENT, "group g: ƒA.9 is not in it")
    ]
    assert groups.changes() == {"g": (["ƒA.0", "ƒA.10"], [])}, "who came and went is no change"
    assert groups.changes() == {}
    groups.apply([["gone", 1, 7]])
    assert groups.changes() == {"g": ([], ["ƒA.0", "ƒA.10"])}
    assert groups.members("g") == []
    assert not groups._groups
    assert not groups._of


def test_a_name_is_one_member_s():
    groups = Groups()
    assert groups.apply([["join", "g", "a", 1, 7], ["join", "g", "a", 2, 7]]) == [
        (1, errno.EEXIST, "group g: a is in it already, from rank 1")
    ]
    groups.apply([["gone", 2, 7]])  # who was refused takes nobody else away
    assert groups.members("g") == ["a"]
    groups.apply([["leave", "g", "a"], ["join", "g", "a", 2, 8], ["gone", 1, 7]])
    assert groups.members("g") == ["a"], "what was once its own is another's now"
    assert groups.apply([["unheard-of"]]) == [
        (0, errno.EPROTO, "groups: an unknown change 'unheard-of'")
    ]


def test_lost_ranks_take_their_clients_along():
    groups = Groups()
    for rank in range(6):
        groups.apply([["join", group, f"{rank}", rank, 1] for group in ("g", "h")])
    groups.changes()
    groups.apply([["lost", "1-2,5"]])
    assert groups.members("g") == groups.members("h") == ["0", "3", "4"]
    assert groups.changes() == dict.fromkeys("gh", ([], ["1", "2", "5"]))


NAMES = st.sampled_from("ab")
ORIGINS = st.tuples(st.integers(0, 2), st.integers(0, 1))
OPS = st.one_of(
    st.builds(lambda g, m, o: ["join", g, m, *o], NAMES, NAMES, ORIGINS),
    st.builds(lambda g, m: ["leave", g, m], NAMES, NAMES),
    st.builds(lambda o: ["gone", *o], ORIGINS),
    st.builds(lambda r: ["lost", str(r)], st.integers(0, 2)),
)


@given(st.lists(st.lists(OPS, max_size=6), max_size=8))
@settings(deadline=None)
def test_groups_are_what_a_plain_dict_says_and_changes_add_up(turns):
    groups, model = Groups(), {}
    seen = {name: Watched() for name in "ab"}
    for ops in turns:
        refused = {at for at, _, _ in groups.apply(ops)}
        for at, op in enumerate(ops):
            ok = True
            if op[0] == "join":
                ok = tuple(op[1:3]) not in model
                model.setdefault(tuple(op[1:3]), tuple(op[3:]))
            elif op[0] == "leave":
                ok = model.pop(tuple(op[1:]), None) is not None
            elif op[0] == "gone":
                model = {k: o for k, o in model.items() if o != tuple(op[1:])}
            else:
                model = {k: o for k, o in model.items() if str(o[0]) != op[1]}
            assert ok == (at not in refused)
        for group, (joined, left) in groups.changes().items():
            assert not set(joined) & set(left)
            seen[group].change(joined, left)
        for name in "ab":
            assert groups.members(name) == sorted(m for g, m in model if g == name)
            assert seen[name].members == groups.members(name)


@given(st.data())
@settings(deadline=None)
def test_every_source_hears_what_became_of_its_own(data):
    """Changes of many sources through a chain of two brokers, in random company."""
    groups, chain = Groups(), [Updates(), Updates()]
    asked, told, up = {}, {}, [deque(), deque()]

    def flush(at):
        update = chain[at].flush()
        if update is None:
            return
        if at:
            chain[at - 1].add(update.ops, (at, update))
        else:
            up[0].append((update, groups.apply(update.ops)))

    def answer(at, update, refused):
        for source, mine in chain[at].answered(update, refused):
            if isinstance(source, tuple):
                answer(source[0], source[1], mine)
            else:
                told[source] = mine

    for number in range(data.draw(st.integers(0, 12))):
        member = data.draw(NAMES)
        ops = [["join", "g", member, 0, number], ["leave", "g", f"no {number}"]]
        asked[number] = ops
        chain[data.draw(st.integers(0, 1))].add(ops, number)
        for at in (1, 0):
            if data.draw(st.booleans()):
                flush(at)
        if up[0] and data.draw(st.booleans()):
            answer(0, *up[0].popleft())
    flush(1)
    flush(0)
    while up[0]:
        answer(0, *up[0].popleft())
    assert set(told) == set(asked)
    for number, mine in told.items():
        assert mine[-1] == (1, errno.ENOENT, f"group g: no {number} is not in it")
        assert [at for at, _, _ in mine] in ([0, 1], [1])
    joined = sum(len(mine) == 1 for mine in told.values())
    assert joined == len(groups.members("g"))
    assert [each.under_way for each in chain] == [0, 0]


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


def ask(fleet, client, method, name="g", **more):
    tag = client.ask(f"groups.{method}", {"name": name, **more})
    fleet.run()
    return client.answer(tag)


def members(fleet, rank=4, name="g"):
    errnum, body = ask(fleet, fleet.client(rank), "get", name)
    assert errnum == 0
    return body["members"]


def join(fleet, rank, member, name="g"):
    client = fleet.client(rank)
    assert ask(fleet, client, "join", name, member=member) == (0, None)
    return client


def test_who_joined_is_seen_from_everywhere_until_it_leaves(fleet):
    clients = [join(fleet, rank, f"m.{rank}") for rank in range(7)]
    everyone = [f"m.{rank}" for rank in range(7)]
    assert [members(fleet, rank) for rank in range(7)] == [everyone] * 7
    clients[5].leave()
    clients[0].leave()
    fleet.run()
    assert ask(fleet, clients[6], "leave", member="m.6") == (0, None)
    assert members(fleet) == ["m.1", "m.2", "m.3", "m.4"]
    assert members(fleet, name="unknown") == []
    assert [broker.router.inflight for broker in fleet.brokers] == [0] * 7


def test_who_has_joined_sees_itself_at_once(fleet):
    client = fleet.client(6)
    client.ask("groups.join", {"name": "g", "member": "me"}, tag=1)
    while not client.answers(1):
        fleet.reactor.turn()
    assert members(fleet, 6) == ["me"]


def test_errors_name_what_was_wrong(fleet):
    join(fleet, 5, "a")
    client = fleet.client(3)
    assert ask(fleet, client, "join", member="a") == (
        errno.EEXIST,
        "group g: a is in it already, from rank 5",
    )
    assert ask(fleet, client, "leave", member="b") == (
        errno.ENOENT,
        "group g: b is not in it",
    )
    assert ask(fleet, client, "join", member="") == (
        errno.EINVAL,
        "groups.join: member: 1 to 256 characters are required, found 0",
    )
    assert ask(fleet, client, "get", name=3)[1].endswith("a string is required, found 3")
    client.leave()
    fleet.run()
    assert members(fleet) == ["a"]
    tag = fleet.client(3).ask("groups.join", {"name": "g", "member": "x"}, rank=0)
    fleet.run()
    assert members(fleet) == ["a"], "only a broker's own clients can join there"
    assert tag


def test_anybody_may_end_a_membership_by_name(fleet):
    holder = join(fleet, 5, "a")
    assert ask(fleet, fleet.client(1), "leave", member="a") == (0, None)
    join(fleet, 2, "a")
    holder.leave()
    fleet.run()
    assert members(fleet) == ["a"]


def test_a_lost_subtree_is_no_longer_in(fleet):
    for rank in range(7):
        join(fleet, rank, f"m.{rank}")
    watcher = fleet.client(3)
    tag = watcher.stream("groups.get", {"name": "g"})
    fleet.run()
    fleet.network.remove(2)
    fleet.run()
    left = [f"m.{rank}" for rank in (2, 5, 6)]
    assert watcher.answers(tag)[1:] == [(0, {"joined": [], "left": left})]
    assert members(fleet) == ["m.0", "m.1", "m.3", "m.4"]


def test_a_subtree_that_left_is_no_longer_in(fleet):
    join(fleet, 6, "m.6")
    join(fleet, 1, "m.1")
    fleet.brokers[2].farewell(6)
    fleet.run()
    assert members(fleet) == ["m.1"]


def test_the_end_of_who_joined_nothing_is_nobody_s_business(fleet):
    before = [broker.counters["sent"] for broker in fleet.brokers]
    fleet.client(6).leave()
    fleet.network.remove(5)
    fleet.run()
    after = [broker.counters["sent"] for broker in fleet.brokers]
    assert after == before


def told(client, tag):
    assert all(errnum == 0 for errnum, _ in client.answers(tag))
    return [body for _, body in client.answers(tag)]


def test_watchers_hear_the_members_and_then_what_changes(fleet):
    join(fleet, 1, "first")
    watchers = [fleet.client(rank) for rank in (0, 3, 6, 6)]
    tags = [watcher.stream("groups.get", {"name": "g"}) for watcher in watchers]
    fleet.run()
    second = join(fleet, 6, "second")
    late = fleet.client(6)
    late_tag = late.stream("groups.get", {"name": "g"})
    fleet.run()
    second.leave()
    fleet.run()
    news = [{"joined": ["second"], "left": []}, {"joined": [], "left": ["second"]}]
    for watcher, tag in zip(watchers, tags, strict=True):
        assert told(watcher, tag) == [{"members": ["first"]}, *news]
    assert told(late, late_tag) == [{"members": ["first", "second"]}, news[1]]


def test_those_who_watch_at_a_broker_are_one_watcher_above(fleet):
    watchers = [fleet.client(6) for _ in range(20)]
    tags = [watcher.stream("groups.get", {"name": "g"}) for watcher in watchers]
    fleet.run()
    sent = [broker.counters["sent"] for broker in fleet.brokers]
    join(fleet, 1, "m")
    assert all(told(w, t)[-1] == {"joined": ["m"], "left": []} for w, t in zip(watchers, tags))
    after = [broker.counters["sent"] for broker in fleet.brokers]
    assert after[2] - sent[2] == 1
    for watcher, tag in zip(watchers[1:], tags[1:], strict=True):
        watcher.cancel(tag)
    fleet.run()
    assert [fleet.brokers[rank].router.inflight for rank in (0, 2, 6)] == [1, 2, 2]
    watchers[0].leave()
    fleet.run()
    assert [broker.router.inflight for broker in fleet.brokers] == [0] * 7
    assert not any(told(w, t)[2:] for w, t in zip(watchers, tags))
    fresh = fleet.client(6)
    tag = fresh.stream("groups.get", {"name": "g"})
    fleet.run()
    assert told(fresh, tag) == [{"members": ["m"]}]


def test_many_that_join_together_are_few_messages(fleet):
    watcher = fleet.client(0)
    tag = watcher.stream("groups.get", {"name": "g"})
    fleet.run()
    sent = fleet.brokers[6].counters["sent"]
    clients = [fleet.client(6) for _ in range(200)]
    for k, client in enumerate(clients):
        client.ask("groups.join", {"name": "g", "member": f"m.{k}"}, tag=1)
    fleet.run()
    assert all(client.answer(1) == (0, None) for client in clients)
    assert fleet.brokers[6].counters["sent"] - sent == 1
    assert told(watcher, tag)[1:] == [{"joined": [f"m.{k}" for k in range(200)], "left": []}]


def test_a_watch_below_a_lost_broker_ends_with_an_error(fleet):
    watcher = fleet.client(6)
    tag = watcher.stream("groups.get", {"name": "g"})
    fleet.run()
    fleet.network.remove(2)
    fleet.run()
    assert watcher.answers(tag)[-1] == (errno.EHOSTUNREACH, "groups.get: rank 2 was lost")
