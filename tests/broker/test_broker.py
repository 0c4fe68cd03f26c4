"""Brokers joined by the loopback transport: calls, events, services and what can go wrong."""

import errno

import pytest

from flux_mpi.broker.membership import Membership
from flux_mpi.broker.services import BrokerServices
from flux_mpi.message.codec import encode
from flux_mpi.message.errors import FluxError, ServiceError
from flux_mpi.message.message import EVENT, NORESPONSE, REQUEST, STREAMING, Message, pack

from .harness import ENDED, UID, Fleet


@pytest.fixture
def fleet():
    fleet = Fleet(["n"] * 7)
    for broker in fleet.brokers:
        root = broker.rank == 0
        membership = Membership(fleet.tree, fleet.network.hosts, 0.0) if root else None
        BrokerServices(broker, {"table": {"key": 1}}, membership)
        broker.attrs.define("rank", broker.rank)
        for name, value in (("log-level", 7), ("log-ring-size", 1024)):
            broker.attrs.set(name, value)
    return fleet


def ask(fleet, at, topic, payload=None, rank=-1):
    client = fleet.client(at)
    tag = client.ask(topic, payload, rank=rank)
    fleet.run()
    return client.answer(tag)


# -- calls --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("to", range(7))
def test_every_rank_answers_every_rank(fleet, at, to):
    errnum, body = ask(fleet, at, "broker.ping", {"seq": 5, "pad": "x"}, to)
    assert errnum == 0
    assert (body["seq"], body["pad"], body["rank"], body["userid"]) == (5, "x", to, UID)
    assert len(body["route"]) == fleet.tree.level(at) + fleet.tree.level(to) - 2 * len(
        set(above(fleet.tree, at)) & set(above(fleet.tree, to))
    )


def above(tree, rank):
    """``rank`` and the ranks above it, but the root."""
    out = []
    while rank:
        out.append(rank)
        rank = tree.parent(rank)
    return out


def test_a_request_to_anyone_climbs_to_who_offers_it(fleet):
    fleet.brokers[2].register("kvs", {"get": lambda request: request.respond("two")})
    fleet.brokers[0].register("kvs", {"get": lambda request: request.respond("root")})
    assert [ask(fleet, at, "kvs.get")[1] for at in range(7)] == [
        "root", "root", "two", "root", "root", "two", "two",
    ]  # fmt: skip
    client = fleet.client(5)
    tag = client.ask("kvs.get", flags=4)  # UPSTREAM of 5 is 2
    fleet.run()
    assert client.answer(tag) == (0, "two")


@pytest.mark.parametrize(
    ("topic", "rank", "errnum"),
    [
        ("nothing.here", -1, errno.ENOSYS),
        ("nothing.here", 4, errno.ENOSYS),
        ("broker.nothing", -1, errno.ENOSYS),
        ("broker.ping", 7, errno.EHOSTUNREACH),
        ("", -1, errno.ENOSYS),
        (".", -1, errno.ENOSYS),
    ],
)
def test_what_nobody_offers_is_refused(fleet, topic, rank, errnum):
    assert ask(fleet, 5, topic, rank=rank)[0] == errnum


def test_a_broker_calls_as_its_owner_and_checks_its_answers(fleet):
    fleet.brokers[6].register("who", {"asks": lambda request: request.respond(request.uid)})
    answers = []
    fleet.brokers[3].rpc("who.asks", None, answers.append, rank=6)
    fleet.brokers[3].rpc("who.else", None, answers.append, rank=6)
    fleet.run()
    assert answers[0].check() == UID
    with pytest.raises(FluxError, match=r"who\.else: the service has no such method"):
        answers[1].check()


def test_a_client_cannot_choose_its_uid_or_route(fleet):
    fleet.brokers[0].register(
        "who", {"asks": lambda request: request.respond([request.uid, request.message.route[1:]])}
    )
    client = fleet.client(3)
    client.send(Message(REQUEST, "who.asks", tag=1, uid=0, route=[1, 2, 3]))
    fleet.run()
    assert client.answer(1) == (0, [UID, [3, 1]])


@pytest.mark.parametrize(
    ("handler", "errnum", "words"),
    [
        (lambda request: request.payload["missing"], errno.EPROTO, "KeyError"),
        (lambda request: 1 // 0, errno.EPROTO, "ZeroDivisionError"),
    ],
)
def test_a_handler_that_fails_answers_and_is_logged(fleet, handler, errnum, words):
    fleet.brokers[1].register("bad", {"luck": handler})
    assert ask(fleet, 3, "bad.luck", {})[0] == errnum
    (logged,) = [e[4] for e in fleet.brokers[1].ring.entries() if "failed" in e[4]]
    assert words in logged


def test_a_handler_may_answer_by_raising(fleet):
    def refuse(request):
        raise ServiceError(errno.EBUSY, "not now")

    fleet.brokers[0].register("busy", {"now": refuse})
    assert ask(fleet, 3, "busy.now") == (errno.EBUSY, "not now")
    assert fleet.errors() == []


def test_garbage_in_a_payload_is_the_asker_s_error(fleet):
    client = fleet.client(0)
    client.send(Message(REQUEST, "attr.get", b"\xc1", tag=1))
    fleet.run()
    assert client.answer(1)[0] == errno.EPROTO


def test_a_failing_callback_costs_others_nothing(fleet):
    """Two answers in one buffer: what goes wrong with the first must not lose the second."""
    got = []
    broker = fleet.brokers[1]
    broker.rpc("broker.ping", None, lambda response: 1 // 0, rank=0)
    broker.rpc("broker.ping", None, got.append, rank=0)
    fleet.run()
    assert len(got) == 1
    assert any("ZeroDivisionError" in e[4] for e in broker.ring.entries())


def test_a_failing_control_handler_costs_the_next_message_nothing(fleet):
    got = []
    fleet.brokers[0].control("bad", lambda message, peer: message.body["x"])
    fleet.brokers[0].control("good", lambda message, peer: got.append((message.body, peer)))
    fleet.brokers[1].send_control(0, "bad", 5)
    fleet.brokers[1].send_control(0, "good", 6)
    fleet.brokers[1].send_control(0, "unknown")
    fleet.run()
    assert got == [(6, 1)]


def test_a_closing_service_that_fails_costs_others_nothing(fleet):
    closed = []

    def hold(request):
        request.on_close(lambda: closed.append(request.payload) or [][request.payload])

    fleet.brokers[0].register("hold", {"on": hold})
    client = fleet.client(0)
    for number in range(3):
        client.ask("hold.on", number)
    client.leave()
    assert sorted(closed) == [0, 1, 2]
    assert fleet.brokers[0].router.inflight == 0


def test_a_cancelled_call_is_not_called_back(fleet):
    held, got = [], []
    fleet.brokers[0].register("hold", {"on": held.append})
    call = fleet.brokers[5].rpc("hold.on", None, got.append)
    fleet.run()
    call.cancel()
    call.cancel()
    held[0].respond("late")
    fleet.run()
    assert got == []
    assert not held[0].open
    assert [broker.router.inflight for broker in fleet.brokers] == [0] * 7


def test_nothing_too_long_for_a_frame_is_sent(fleet):
    broker, limit = fleet.brokers[3], fleet.brokers[3].frame_limit
    for send in (
        lambda: broker.rpc("broker.ping", bytes(limit), pytest.fail, rank=0),
        lambda: broker.send("broker.ping", bytes(limit), rank=0),
        lambda: broker.publish("tick", bytes(limit)),
    ):
        with pytest.raises(FluxError, match="over the limit") as caught:
            send()
        assert caught.value.errno == errno.EMSGSIZE
    assert not broker._calls
    fleet.brokers[0].register("big", {"answer": lambda request: request.respond(bytes(limit))})
    assert ask(fleet, 3, "big.answer")[0] == errno.EMSGSIZE
    assert ask(fleet, 3, "broker.ping", rank=0)[0] == 0, "the link is unharmed"


def test_a_payload_that_cannot_be_packed_leaves_no_call_behind(fleet):
    with pytest.raises(TypeError):
        fleet.brokers[3].rpc("broker.ping", object(), pytest.fail)
    assert not fleet.brokers[3]._calls


# -- neighbours ---------------------------------------------------------------------------------


def test_garbage_from_a_neighbour_ends_that_link_only(fleet):
    lost = []
    fleet.brokers[0].on_peer_lost.append(lambda peer, why: lost.append((peer, why)))
    fleet.network.nodes[1].send(0, encode(Message(REQUEST, "broker.ping", tag=1))[:-1] + b"\xc1")
    fleet.network.nodes[1].send(0, b"\xff" * 50)
    fleet.run()
    ((peer, why),) = lost
    assert (peer, why[:13]) == (1, "sent garbage:")
    assert ask(fleet, 0, "broker.ping", rank=1)[0] == errno.EHOSTUNREACH
    assert ask(fleet, 0, "broker.ping", rank=2)[0] == 0


def test_a_neighbour_that_left_answers_no_more(fleet):
    held = []
    fleet.brokers[1].register("hold", {"on": held.append})
    client = fleet.client(0)
    open_tag = client.ask("hold.on", rank=1)
    fleet.run()
    lost = []
    fleet.brokers[0].on_peer_lost.append(lambda *all: lost.append(all))
    fleet.brokers[0].farewell(1)
    assert client.answer(open_tag) == (errno.EHOSTUNREACH, "hold.on: rank 1 has left")
    assert ask(fleet, 0, "broker.ping", rank=3)[0] == errno.EHOSTUNREACH
    assert lost == []
    assert 1 not in fleet.brokers[0].children


def test_the_callers_below_and_above_a_lost_rank_hear_of_it(fleet):
    held = []
    for rank in (0, 3):
        fleet.brokers[rank].register("hold", {"on": held.append})
    down, up = fleet.client(0), fleet.client(3)
    down_tag, up_tag = down.ask("hold.on", rank=3), up.ask("hold.on", rank=0)
    fleet.run()
    fleet.network.remove(1)
    fleet.run()
    assert down.answer(down_tag)[0] == errno.EHOSTUNREACH
    assert up.answer(up_tag)[0] == errno.EHOSTUNREACH
    assert not any(request.open for request in held)


# -- events -------------------------------------------------------------------------------------


def test_events_of_all_ranks_reach_all_in_one_order(fleet):
    seen = {broker.rank: [] for broker in fleet.brokers}
    for broker in fleet.brokers:
        broker.subscribe(
            "t.", lambda topic, seq, payload, r=broker.rank: seen[r].append((seq, payload))
        )
    for number in range(5):
        for broker in fleet.brokers:
            broker.publish("t.x", [broker.rank, number])
        fleet.brokers[3].publish("other", None)
    fleet.run()
    assert all(events == seen[0] for events in seen.values())
    assert len(seen[0]) == 35
    for rank in range(7):
        assert [p[1] for _, p in seen[0] if p[0] == rank] == list(range(5))


def test_a_client_subscribes_publishes_and_stops(fleet):
    client, other = fleet.client(3), fleet.client(6)
    tag = client.stream("event.subscribe", {"topic": "my."})
    fleet.run()
    publish = other.ask("event.publish", {"topic": "my.news", "payload": {"x": 1}})
    other.ask("event.publish", {"topic": "elsewhere", "payload": None})
    fleet.run()
    assert other.answer(publish) == (0, {"seq": 1})
    started, news = client.answers(tag)
    assert started[1]["topic"] == ""
    assert news == (0, {"topic": "my.news", "seq": 1, "payload": {"x": 1}})
    client.cancel(tag)
    other.ask("event.publish", {"topic": "my.news", "payload": None})
    fleet.run()
    assert len(client.answers(tag)) == 2
    assert fleet.brokers[3].subscriptions._all == []


def test_a_subscription_ends_with_its_client(fleet):
    client = fleet.client(3)
    client.stream("event.subscribe", {"topic": ""})
    client.ask("event.subscribe", {"topic": ""}, flags=STREAMING | NORESPONSE)
    client.leave()
    assert fleet.brokers[3].subscriptions._all == []


def test_missed_events_are_asked_for_again(fleet):
    seen = []
    leaf, parent = fleet.brokers[3], fleet.brokers[1]
    leaf.subscribe("", lambda topic, seq, payload: seen.append(seq))
    fleet.brokers[0].publish("tick", 1)
    fleet.run()
    links, parent.children = parent.children, set()
    fleet.brokers[0].publish("tick", 2)
    fleet.brokers[0].publish("tick", 3)
    fleet.run()
    parent.children = links
    fleet.brokers[0].publish("tick", 4)
    fleet.run()
    assert seen == [1, 2, 3, 4]


def test_events_that_nobody_has_any_more_are_skipped_and_told(fleet):
    seen = []
    leaf, parent = fleet.brokers[3], fleet.brokers[1]
    leaf.subscribe("", lambda topic, seq, payload: seen.append(seq))
    fleet.brokers[0].publish("tick", 1)
    fleet.run()
    links, parent.children = parent.children, set()
    fleet.brokers[0].publish("tick", 2)
    fleet.run()
    parent.children = links
    parent.events._history.clear()
    fleet.brokers[0].publish("tick", 3)
    fleet.run()
    assert seen == [1, 3]
    assert "1 events are lost" in leaf.ring.entries()[-1][4]


def test_events_from_below_are_not_believed(fleet):
    seen = []
    fleet.brokers[0].subscribe("", lambda *all: seen.append(all))
    fleet.brokers[1].to_peer(0, Message(EVENT, "forged", tag=1))
    fleet.run()
    assert seen == []


# -- the services of every broker ----------------------------------------------------------------


def test_attributes_by_message(fleet):
    assert ask(fleet, 3, "attr.get", {"name": "rank"}) == (0, {"value": "3"})
    assert ask(fleet, 3, "attr.get", {"name": "nix"})[0] == errno.ENOENT
    assert ask(fleet, 3, "attr.get", {"name": 5})[0] == errno.EPROTO
    assert ask(fleet, 3, "attr.get", [])[0] == errno.EPROTO
    assert ask(fleet, 3, "attr.set", {"name": "rank", "value": "4"})[0] == errno.EPERM
    assert ask(fleet, 3, "attr.set", {"name": "log-ring-size", "value": "0"})[0] == errno.EINVAL
    assert ask(fleet, 3, "attr.set", {"name": "mine", "value": "1"}) == (0, None)
    assert ask(fleet, 3, "attr.list")[1]["attrs"]["mine"] == "1"
    assert ask(fleet, 3, "attr.rm", {"name": "mine"}) == (0, None)
    assert "mine" not in ask(fleet, 3, "attr.list")[1]["attrs"]


def test_the_log_by_message(fleet):
    for number in range(5):
        assert ask(fleet, 2, "log.append", {"level": 4, "text": f"n{number}"}) == (0, None)
    assert ask(fleet, 2, "log.append", {"level": 8, "text": "x"})[0] == errno.EINVAL
    assert ask(fleet, 2, "log.append", {"level": 4})[0] == errno.EPROTO
    assert ask(fleet, 2, "attr.set", {"name": "log-ring-size", "value": "2"})[0] == 0
    entries = ask(fleet, 2, "log.dmesg")[1]["entries"]
    assert [entry[1:] for entry in entries] == [[4, "user", 2, "n3"], [4, "user", 2, "n4"]]
    assert ask(fleet, 2, "log.clear") == (0, None)
    assert ask(fleet, 2, "log.dmesg") == (0, {"entries": []})


def test_only_levels_of_interest_are_kept(fleet):
    ask(fleet, 2, "attr.set", {"name": "log-level", "value": "4"})
    for level in (3, 4, 5):
        ask(fleet, 2, "log.append", {"level": level, "text": "x"})
    assert [entry[1] for entry in fleet.brokers[2].ring.entries()] == [3, 4]


def test_dmesg_ends_or_follows(fleet):
    broker, client = fleet.brokers[2], fleet.client(2)
    broker.log(6, "a", "old")
    ending, following = client.stream("log.dmesg"), client.stream("log.dmesg", {"follow": True})
    broker.log(6, "a", "new")
    assert len(client.answers(ending)) == 2
    assert client.answers(ending)[-1] == ENDED
    assert [body["entries"][0][4] for _, body in client.answers(following)] == ["old", "new"]
    client.cancel(following)
    broker.log(6, "a", "newer")
    assert len(client.answers(following)) == 2


def test_a_client_offers_a_service(fleet):
    owner, asker = fleet.client(1), fleet.client(5)
    owner.ask("service.add", {"service": "mine"})
    tag = asker.ask("mine.do", {"x": 1}, rank=1)
    fleet.run()
    (request,) = owner.requests()
    assert (request.topic, request.body, request.uid) == ("mine.do", {"x": 1}, UID)
    owner.send(request.answer("done"))
    fleet.run()
    assert asker.answer(tag) == (0, "done")
    tag = owner.ask("service.remove", {"service": "mine"})
    assert owner.answer(tag) == (0, None)
    assert ask(fleet, 5, "mine.do", rank=1)[0] == errno.ENOSYS


def test_who_may_offer_what(fleet):
    owner, other = fleet.client(1), fleet.client(1)
    owner.ask("service.add", {"service": "mine"})
    for name, errnum in (
        ("mine", errno.EEXIST), ("broker", errno.EEXIST), ("", errno.EINVAL),
        ("a.b", errno.EINVAL), ("x" * 129, errno.EINVAL), (None, errno.EPROTO),
    ):  # fmt: skip
        assert other.answer(other.ask("service.add", {"service": name}))[0] == errnum
    assert other.answer(other.ask("service.remove", {"service": "mine"}))[0] == errno.ENOENT
    assert ask(fleet, 3, "service.add", {"service": "x"}, 1)[0] == errno.EPERM
    owner.leave()
    assert other.answer(other.ask("service.add", {"service": "mine"})) == (0, None)


def test_a_broker_tells_about_itself(fleet):
    fleet.client(4)
    info = ask(fleet, 4, "broker.info")[1]
    assert (info["rank"], info["size"], info["owner"]) == (4, 7, UID)
    stats = ask(fleet, 4, "broker.stats")[1]
    assert stats["clients"] == 3
    assert stats["inflight"] == 1
    assert set(stats["overlay"]) == {"1"}
    assert "attr" in stats["services"]
    assert ask(fleet, 4, "config.get") == (0, {"table": {"key": 1}})
    peers = ask(fleet, 1, "overlay.peers")[1]
    assert (peers["parent"], peers["children"], set(peers["links"])) == (0, [3, 4], {"0", "3", "4"})


def test_the_root_tells_how_the_tree_stands(fleet):
    status = ask(fleet, 4, "overlay.status")[1]
    assert (status["rank"], status["status"], len(status["children"])) == (0, "offline", 2)
    assert ask(fleet, 4, "overlay.status", {"rank": 2})[1]["rank"] == 2
    for bad in (7, -1, "1", None, True):
        assert ask(fleet, 4, "overlay.status", {"rank": bad})[0] == errno.EINVAL
    assert ask(fleet, 4, "overlay.errors") == (0, {"errors": []})


def test_messages_that_clients_may_not_send_are_ignored(fleet):
    client = fleet.client(1)
    client.send(Message(EVENT, "forged", tag=1))
    client.send(Message(4, "shutdown"))
    client.send(Message(4, "publish", pack(["x", None])))
    client.send(Message(2, "broker.ping", tag=3, route=[0, 1]))
    fleet.run()
    assert client.got == []
    assert fleet.errors() == []
    assert fleet.brokers[0].events.last == 0
