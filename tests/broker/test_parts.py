"""The broker's smaller parts: events, attributes, log ring, membership, requests."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.broker.attributes import SETTABLE, Attributes, parse_timeout
from flux_mpi.broker.events import EventLog, Subscriptions
from flux_mpi.broker.logring import TEXT_LIMIT, LogRing
from flux_mpi.broker.membership import Membership
from flux_mpi.broker.service import Request, Response
from flux_mpi.message.errors import FluxError, ServiceError
from flux_mpi.message.message import EVENT, NORESPONSE, REQUEST, STREAMING, Message, pack
from flux_mpi.overlay.tree import Tree


def event(number, payload=None):
    return Message(EVENT, "tick", payload, tag=number)


class TestEvents:
    def test_the_root_numbers_from_one(self):
        log = EventLog()
        assert [log.number("tick", None, 0).tag for _ in range(3)] == [1, 2, 3]
        assert log.last == 3

    @given(st.data())
    def test_events_come_gap_free_whatever_the_link_loses_or_doubles(self, data):
        """What the child asks for again comes after what was under way already."""
        root, child = EventLog(), EventLog()
        wire = [root.number("tick", None, 0)]
        delivered = []
        for _ in range(data.draw(st.integers(0, 30))):
            wire.append(root.number("tick", None, 0))
            fate = data.draw(st.sampled_from(["ok", "ok", "lost", "doubled"]))
            if fate == "lost":
                wire.pop()
            elif fate == "doubled":
                wire.append(wire[-1])
        wire.append(root.number("tick", None, 0))  # the last one tells of those before
        asks = 0
        while wire:
            deliver, ask = child.receive(wire.pop(0))
            if deliver:
                delivered.append(child.last)
            elif ask is not None:
                asks += 1
                skip, again = root.since(ask)
                assert skip == 0
                wire += again
        assert delivered == list(range(delivered[0], root.last + 1))
        assert asks <= len(delivered), "each gap is asked for once"

    def test_what_is_no_longer_kept_is_skipped_not_asked_for_ever(self):
        root, child = EventLog(keep=3), EventLog()
        events = [root.number("tick", None, 0) for _ in range(10)]
        assert child.receive(events[0]) == (True, None)
        assert child.receive(events[9]) == (False, 2)
        skip, again = root.since(2)
        assert (skip, [e.tag for e in again]) == (7, [8, 9, 10])
        assert child.skip(skip) == 6
        assert all(child.receive(each) == (True, None) for each in again)
        assert child.skip(3) == 0
        assert child.last == 10

    def test_memory_is_bounded_by_bytes_as_well(self):
        log = EventLog(keep=1000, keep_bytes=10_000)
        for _ in range(100):
            log.number("tick", bytes(1000), 0)
        skip, kept = log.since(1)
        assert (skip, len(kept)) == (90, 10)
        log.number("tick", bytes(50_000), 0)
        assert len(log.since(1)[1]) == 1

    def test_a_leaf_keeps_none(self):
        log = EventLog(keep=0)
        log.receive(event(5))
        assert log.since(5) == (5, [])

    def test_subscribers_get_their_prefix_until_they_stop(self):
        subscriptions, got = Subscriptions(pytest.fail), []
        stop = subscriptions.add("job.", lambda *all: got.append(all))
        subscriptions.add("", lambda topic, *_: got.append(topic))
        subscriptions.deliver(Message(EVENT, "job.x", pack({"id": 1}), tag=4))
        subscriptions.deliver(Message(EVENT, "heartbeat", tag=5))
        stop()
        stop()
        subscriptions.deliver(Message(EVENT, "job.y", tag=6))
        assert got == [("job.x", 4, {"id": 1}), "job.x", "heartbeat", "job.y"]

    def test_one_failing_subscriber_keeps_events_from_no_other(self):
        errors, got = [], []
        subscriptions = Subscriptions(errors.append)
        subscriptions.add("", lambda *_: 1 // 0)
        subscriptions.add("", lambda *_: got.append(1))
        subscriptions.deliver(event(1))
        assert got == [1]
        assert [type(e) for e in errors] == [ZeroDivisionError]

    def test_a_subscriber_may_stop_itself(self):
        subscriptions, got = Subscriptions(pytest.fail), []

        def once(*_):
            got.append(1)
            stop()

        stop = subscriptions.add("", once)
        subscriptions.add("", lambda *_: got.append(2))
        subscriptions.deliver(event(1))
        subscriptions.deliver(event(2))
        assert got == [1, 2, 2]


class TestAttributes:
    def test_what_the_broker_defines_is_read_only(self):
        attrs = Attributes()
        attrs.define("rank", 3)
        assert (attrs.get("rank"), "rank" in attrs) == ("3", True)
        for act in (lambda: attrs.set("rank", 4), lambda: attrs.remove("rank")):
            with pytest.raises(FluxError) as caught:
                act()
            assert caught.value.errno == errno.EPERM

    def test_what_the_user_sets_is_the_user_s(self):
        attrs = Attributes()
        attrs.set("b", 1)
        attrs.set("a", "x")
        attrs.set("a", "y")
        assert list(attrs.items()) == [("a", "y"), ("b", "1")]
        attrs.remove("a")
        for act in (lambda: attrs.get("a"), lambda: attrs.remove("a")):
            with pytest.raises(FluxError, match="attribute a: no such attribute") as caught:
                act()
            assert caught.value.errno == errno.ENOENT
        assert attrs.get("a", "default") == "default"

    @pytest.mark.parametrize(
        ("name", "good", "bad"),
        [
            ("log-level", ["0", "7", "-1"], ["8", "-2", "", "err", " 3", "1.0", "٣"]),
            ("log-stderr-mode", ["leader", "local"], ["", "both"]),
            ("log-ring-size", ["1", "1000000"], ["0", "-1", "1000001", "", "many", "²"]),
            ("broker.shutdown-timeout", ["none", "5s", "1.5m", "0", "inf"], ["", "soon", "-1s"]),
        ],
    )
    def test_what_would_not_work_is_refused(self, name, good, bad):
        attrs = Attributes()
        attrs.define(name, "initial")
        for value in good:
            attrs.set(name, value)
            assert attrs.get(name) == value
        for value in bad:
            with pytest.raises(FluxError, match=f"attribute {name}: ") as caught:
                attrs.set(name, value)
            assert caught.value.errno == errno.EINVAL
        assert attrs.get(name) == good[-1]
        with pytest.raises(FluxError):
            attrs.remove(name)

    @given(st.sampled_from(sorted(SETTABLE)), st.text(max_size=8))
    def test_any_text_is_either_taken_or_refused(self, name, text):
        attrs = Attributes()
        try:
            attrs.set(name, text)
        except FluxError:
            assert name not in attrs
        else:
            assert attrs.get(name) == text

    def test_timeouts(self):
        assert [parse_timeout(t) for t in ("none", "inf", "2m", "0")] == [None, None, 120.0, 0.0]


class TestLogRing:
    def entry(self, number, text="text"):
        return (float(number), 6, "test", 0, text)

    def test_the_newest_are_kept(self):
        ring = LogRing(3)
        for number in range(5):
            ring.append(self.entry(number))
        assert [e[0] for e in ring.entries()] == [2.0, 3.0, 4.0]
        ring.resize(2)
        assert [e[0] for e in ring.entries()] == [3.0, 4.0]
        ring.resize(4)
        ring.append(self.entry(5))
        assert [e[0] for e in ring.entries()] == [3.0, 4.0, 5.0]
        ring.clear()
        assert ring.entries() == []

    def test_a_long_text_is_cut(self):
        ring = LogRing()
        ring.append(self.entry(0, "x" * (TEXT_LIMIT + 1)))
        assert ring.entries()[0][4] == "x" * TEXT_LIMIT + "…"

    def test_followers_see_what_comes_until_they_stop(self):
        ring, seen = LogRing(), []
        ring.append(self.entry(0))
        stop = ring.follow(lambda e: seen.append(e[0]))
        ring.append(self.entry(1))
        ring.clear()
        stop()
        stop()
        ring.append(self.entry(2))
        assert seen == [1.0]

    def test_a_follower_may_stop_itself(self):
        ring, seen = LogRing(), []
        stop = ring.follow(lambda e: (seen.append("first"), stop()))
        ring.follow(lambda e: seen.append("second"))
        ring.append(self.entry(0))
        assert seen == ["first", "second"]


class TestMembership:
    def members(self, size=7):
        hosts = [f"n{rank}" for rank in range(size)]
        return Membership(Tree(hosts, 2), hosts, 10.0)

    def status(self, members, rank=0):
        out, stack = {}, [members.describe(rank)]
        while stack:
            node = stack.pop()
            out[node["rank"]] = node["status"]
            stack += node["children"]
        return out

    def test_all_start_offline_and_come_one_by_one(self):
        members = self.members()
        assert set(self.status(members).values()) == {"offline"}
        for rank in range(7):
            assert self.status(members)[0] == ("offline" if rank == 0 else "partial")
            members.online(rank, 11.0)
        assert set(self.status(members).values()) == {"full"}
        assert members.ranks("online") == list(range(7))

    def test_who_is_lost_takes_the_subtree_along_once(self):
        members = self.members()
        for rank in range(7):
            members.online(rank, 11.0)
        assert members.lost(3, 12.0, "its process ended") == [3]
        assert members.lost(1, 13.0, "below par") == [1, 4]
        assert members.lost(1, 14.0, "again") == []
        assert members.ranks("lost") == [1, 3, 4]
        status = self.status(members)
        assert [status[rank] for rank in range(7)] == [
            "degraded", "lost", "full", "lost", "lost", "full", "full",
        ]  # fmt: skip
        errors = [(e["rank"], e["hostname"], e["time"], e["error"]) for e in members.errors()]
        assert errors == [(1, "n1", 13.0, "below par"), (3, "n3", 12.0, "its process ended")]

    def test_a_subtree_can_be_asked_for(self):
        members = self.members()
        members.online(1, 11.0)
        node = members.describe(1)
        assert (node["hostname"], node["since"]) == ("n1", 11.0)
        assert [child["rank"] for child in node["children"]] == [3, 4]
        assert members.state(1) == "online"

    def test_a_deep_tree_is_described_without_recursion(self):
        hosts = ["n"] * 3000
        node, depth = Membership(Tree(hosts, 1), hosts, 0.0).describe(), 0
        while node["children"]:
            (node,) = node["children"]
            depth += 1
        assert depth == 2999


class TestRequest:
    def make(self, flags=0, payload=None):
        sent = []
        message = Message(REQUEST, "a.b", payload, flags=flags, tag=3, uid=5)
        return Request(message, sent.append), sent

    def test_it_is_answered_once(self):
        request, sent = self.make()
        request.respond(1)
        request.respond(2)
        request.error(5)
        assert [(m.errnum, m.body) for m in sent] == [(0, 1)]
        assert not request.open

    def test_a_stream_is_answered_until_it_is_ended(self):
        request, sent = self.make(STREAMING)
        request.respond(1)
        request.respond(2)
        request.error(errno.ENODATA)
        request.respond(3)
        assert [m.errnum for m in sent] == [0, 0, errno.ENODATA]

    def test_closing_calls_back_once_and_silences(self):
        request, sent = self.make(STREAMING)
        closed = []
        request.on_close(lambda: closed.append(1))
        request.on_close(lambda: closed.append(2))
        request.close()
        request.close()
        request.respond(1)
        assert (closed, sent) == ([1, 2], [])

    @pytest.mark.parametrize("flags", [NORESPONSE, 0])
    def test_what_is_registered_too_late_is_called_at_once(self, flags):
        request, _ = self.make(flags)
        request.close()
        closed = []
        request.on_close(lambda: closed.append(1))
        assert closed == [1]

    def test_an_answered_request_does_not_call_back(self):
        request, _ = self.make()
        closed = []
        request.on_close(lambda: closed.append(1))
        request.respond()
        request.close()
        assert closed == []

    def test_the_payload_is_decoded_once(self):
        request, _ = self.make(payload=pack({"x": [1]}))
        assert request.payload is request.payload
        assert (request.payload, request.uid, request.topic) == ({"x": [1]}, 5, "a.b")

    def test_a_response_tells_its_error(self):
        request = Message(REQUEST, "a.b", tag=3)
        assert Response(request.answer([1])).check() == [1]
        with pytest.raises(FluxError, match="no such thing") as caught:
            Response(request.failure(errno.ENOENT, "no such thing")).check()
        assert caught.value.code == "ENOENT"
        assert Response(request.failure(errno.ENOENT)).text == ""

    def test_errors_read_well(self):
        assert str(ServiceError(errno.ENOENT)) == "No such file or directory"
        assert ServiceError(99999, "odd").code == "99999"
        assert isinstance(ServiceError(1, "x"), OSError)
