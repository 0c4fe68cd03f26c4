"""The router alone: a tree of seven, and an outlet that writes down what comes out."""

import errno

import pytest

from flux_mpi.broker.router import LOCAL, Router
from flux_mpi.message.message import (
    ANY,
    CONTROL,
    FIRST_CLIENT,
    NORESPONSE,
    REQUEST,
    RESPONSE,
    STREAMING,
    UPSTREAM,
    Message,
)
from flux_mpi.overlay.tree import Tree

CLIENT, OTHER = FIRST_CLIENT, FIRST_CLIENT + 1
TREE = Tree(["n"] * 7, 2)  # 0: 1 2, 1: 3 4, 2: 5 6


class Outlet:
    def __init__(self):
        self.out, self.served, self.closed = [], [], []

    def to_peer(self, rank, message):
        self.out.append((rank, message))

    def to_client(self, client, message):
        self.out.append((client, message))

    def to_caller(self, message):
        self.out.append((None, message))

    def to_service(self, request):
        self.served.append(request)

    def close(self, request):
        self.closed.append(request)
        request.close()

    def only(self):
        (entry,) = self.out
        self.out.clear()
        return entry


@pytest.fixture
def outlet():
    return Outlet()


@pytest.fixture
def router(outlet):
    router = Router(1, TREE, outlet, payload_limit=100)
    router.services["here"] = LOCAL
    return router


def request(topic="svc.do", target=ANY, tag=7, flags=0, route=()):
    return Message(REQUEST, topic, target=target, tag=tag, flags=flags, route=list(route))


def response(tag=7, route=(), errnum=0):
    return Message(RESPONSE, "svc.do", tag=tag, route=list(route), errnum=errnum)


@pytest.mark.parametrize(("target", "hop"), [(0, 0), (2, 0), (6, 0), (3, 3), (4, 4), (ANY, 0)])
def test_a_request_takes_the_next_hop(router, outlet, target, hop):
    router.request(request(target=target), CLIENT)
    to, message = outlet.only()
    assert (to, message.route) == (hop, [CLIENT])
    assert router.inflight == 1


def test_a_service_here_takes_what_is_for_anyone_and_for_this_rank(router, outlet):
    router.request(request("here.do"), CLIENT)
    router.request(request("here.do", target=1, tag=8), 3)
    assert [r.message.route for r in outlet.served] == [[CLIENT], [3]]
    assert outlet.out == []


def test_upstream_skips_the_service_here_but_not_the_next(router, outlet):
    router.request(request("here.do", flags=UPSTREAM), CLIENT)
    to, message = outlet.only()
    assert (to, message.flags) == (0, 0)


@pytest.mark.parametrize(
    ("rank", "target", "flags", "errnum", "words"),
    [
        (1, 1, 0, errno.ENOSYS, "svc: no such service on rank 1"),
        (0, ANY, 0, errno.ENOSYS, "svc: no such service"),
        (0, ANY, UPSTREAM, errno.ENOSYS, "svc: no such service"),
        (1, 7, 0, errno.EHOSTUNREACH, "rank 7: no such rank, the instance has 0-6"),
        (1, -2, 0, errno.EHOSTUNREACH, "rank -2: no such rank"),
        (1, 1 << 60, 0, errno.EHOSTUNREACH, "no such rank"),
    ],
)
def test_what_cannot_be_is_refused_at_once(outlet, rank, target, flags, errnum, words):
    router = Router(rank, TREE, outlet)
    router.request(request(target=target, flags=flags), CLIENT)
    to, message = outlet.only()
    assert (to, message.tag, message.errnum) == (CLIENT, 7, errnum)
    assert words in message.body
    assert router.inflight == 0
    router.request(request(target=target, flags=flags | NORESPONSE), CLIENT)
    assert outlet.out == []


def test_a_request_that_nobody_waits_for_leaves_no_trace(router, outlet):
    router.request(request(target=3, flags=NORESPONSE), CLIENT)
    router.request(request("here.do", flags=NORESPONSE), CLIENT)
    assert len(outlet.out) == 1
    assert not outlet.served[0].open
    outlet.served[0].respond("x")
    outlet.served[0].error(1)
    assert len(outlet.out) == 1
    assert router.inflight == 0


def test_a_stream_that_nobody_hears_is_dropped(router, outlet):
    router.request(request("here.do", flags=NORESPONSE | STREAMING), CLIENT)
    router.request(request(target=3, flags=NORESPONSE | STREAMING), CLIENT)
    assert (outlet.out, outlet.served) == ([], [])


def test_a_response_retraces_the_route(router, outlet):
    router.request(request(target=3, route=[CLIENT, 5, 2]), 0)
    outlet.out.clear()
    router.response(response(route=[CLIENT, 5, 2, 0]), 3)
    to, message = outlet.only()
    assert (to, message.route) == (0, [CLIENT, 5, 2])
    assert router.inflight == 0
    router.response(response(route=[CLIENT, 5, 2, 0]), 3)
    assert outlet.out == []


@pytest.mark.parametrize("forger", [0, 4, CLIENT, OTHER, LOCAL])
def test_an_answer_from_elsewhere_is_dropped(router, outlet, forger):
    router.request(request(target=3), CLIENT)
    outlet.out.clear()
    router.response(response(route=[CLIENT]), forger)
    assert outlet.out == []
    assert router.inflight == 1


def test_a_stream_stays_open_until_an_error_ends_it(router, outlet):
    router.request(request(target=3, flags=STREAMING), CLIENT)
    outlet.out.clear()
    for errnum, inflight in ((0, 1), (0, 1), (errno.ENODATA, 0)):
        router.response(response(route=[CLIENT], errnum=errnum), 3)
        assert outlet.only()[1].errnum == errnum
        assert router.inflight == inflight


def test_two_routes_may_use_one_tag(router, outlet):
    router.request(request(target=3), CLIENT)
    router.request(request(target=3), OTHER)
    router.request(request(target=3), 0)
    assert router.inflight == 3


def test_a_tag_used_twice_ends_both(router, outlet):
    router.request(request("here.do"), CLIENT)
    router.request(request("here.do"), CLIENT)
    to, message = outlet.only()
    assert (to, message.errnum) == (CLIENT, errno.EPROTO)
    assert outlet.closed == outlet.served
    assert router.inflight == 0


def test_a_cancel_follows_its_request(router, outlet):
    router.request(request(target=3), CLIENT)
    outlet.out.clear()
    router.cancel(Message(CONTROL, "cancel", tag=7), CLIENT)
    to, message = outlet.only()
    assert (to, message.kind, message.topic) == (3, CONTROL, "cancel")
    assert (message.tag, message.route) == (7, [CLIENT])
    router.cancel(Message(CONTROL, "cancel", tag=7), CLIENT)
    router.cancel(Message(CONTROL, "cancel", tag=7), OTHER)
    router.response(response(route=[CLIENT]), 3)
    assert outlet.out == []


def test_a_cancel_closes_the_request_at_its_service(router, outlet):
    router.request(request("here.do"), 3)
    router.cancel(Message(CONTROL, "cancel", tag=7), 3)
    assert outlet.closed == outlet.served
    outlet.served[0].respond("late")
    assert outlet.out == []


def test_a_lost_neighbour_answers_what_it_owes_and_wants_nothing(router, outlet):
    router.request(request(target=3, tag=1), CLIENT)
    router.request(request(target=3, tag=2), None)
    router.request(request(target=4, tag=3), CLIENT)
    router.request(request("here.do", tag=4), 3)
    router.request(request(target=4, tag=5), 3)
    outlet.out.clear()
    router.peer_gone(3)
    answers = {(to, m.tag): m.errnum for to, m in outlet.out if m.kind == RESPONSE}
    assert answers == {(CLIENT, 1): errno.EHOSTUNREACH, (None, 2): errno.EHOSTUNREACH}
    cancels = [(to, m.tag) for to, m in outlet.out if m.kind == CONTROL]
    assert cancels == [(4, 5)]
    assert outlet.closed == outlet.served
    assert router.inflight == 1


def test_nothing_is_sent_to_a_lost_neighbour(router, outlet):
    router.request(request("here.do", tag=1), 3)
    router.unreachable.add(3)
    outlet.served[0].respond()
    router.request(request(target=3, tag=2), CLIENT)
    to, message = outlet.only()
    assert (to, message.errnum) == (CLIENT, errno.EHOSTUNREACH)
    assert message.body == "rank 3: rank 3 on the way is gone"


def test_a_client_that_goes_takes_its_requests_along(router, outlet):
    router.request(request("here.do", tag=1), CLIENT)
    router.request(request(target=3, tag=2), CLIENT)
    router.request(request(target=3, tag=3), OTHER)
    outlet.out.clear()
    router.client_gone(CLIENT)
    assert [(to, m.kind, m.tag) for to, m in outlet.out] == [(3, CONTROL, 2)]
    assert outlet.closed == outlet.served
    assert router.inflight == 1
    router.client_gone(CLIENT)
    assert len(outlet.out) == 1


def test_a_client_may_offer_a_service(router, outlet):
    router.offer("svc", OTHER)
    router.request(request(target=1), 3)
    assert outlet.only()[0] == OTHER
    router.response(response(route=[3]), OTHER)
    assert outlet.only()[0] == 3
    router.request(request(tag=8), CLIENT)
    router.cancel(Message(CONTROL, "cancel", tag=8), CLIENT)
    assert [(to, m.kind) for to, m in outlet.out] == [(OTHER, REQUEST), (OTHER, CONTROL)]


@pytest.mark.parametrize("withdrawn", [False, True])
def test_what_a_client_was_asked_fails_when_it_goes(router, outlet, withdrawn):
    router.offer("svc", OTHER)
    router.request(request(target=1), 3)
    outlet.out.clear()
    if withdrawn:
        router.withdraw("svc")
    router.client_gone(OTHER)
    to, message = outlet.only()
    assert (to, message.errnum) == (3, errno.ECONNRESET)
    assert "svc" not in router.services
    assert router.inflight == 0


def test_answered_requests_of_a_client_are_not_remembered(router, outlet):
    for tag in range(100):
        router.request(request(target=3, tag=tag), CLIENT)
        router.response(response(tag=tag, route=[CLIENT]), 3)
    assert not router._of_client.get(CLIENT)
    assert not router._flights


@pytest.mark.parametrize("flags", [0, STREAMING])
def test_an_answer_that_fits_no_frame_becomes_an_error(router, outlet, flags):
    router.request(request("here.do", flags=flags), CLIENT)
    served = outlet.served[0]
    served.respond(bytes(101))
    to, message = outlet.only()
    assert (to, message.errnum) == (CLIENT, errno.EMSGSIZE)
    assert "here.do: an answer of 103 bytes is over the limit of 100" in message.body
    assert not served.open
    assert router.inflight == 0
    served.respond("more")
    assert outlet.out == []


def test_a_message_that_goes_round_in_circles_is_stopped(router, outlet):
    router.request(request(target=3, route=[CLIENT, *range(7)]), 0)
    to, message = outlet.only()
    assert (to, message.errnum) == (0, errno.ELOOP)
