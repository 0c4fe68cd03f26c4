"""The door for clients, over real sockets."""

import errno
import os
import socket
import stat
import subprocess
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_mpi.broker.broker import Broker
from flux_mpi.broker.clients import RECEIVE, ClientServer
from flux_mpi.message.codec import FrameDecoder, encode
from flux_mpi.message.message import CONTROL, REQUEST, STREAMING, Message, pack
from flux_mpi.overlay.loopback import single
from flux_mpi.overlay.tree import Tree
from flux_mpi.reactor.epoll import EpollReactor

TURNS = 20_000


class Door:
    """A lone broker with a door, turned by hand."""

    def __init__(self, folder, **options):
        self.reactor = EpollReactor()
        self.broker = Broker(self.reactor, single(self.reactor, "n"), Tree(["n"]), uid=os.geteuid(),
                             frame_limit=1 << 20)  # fmt: skip
        self.path = os.path.join(folder, "local-0")
        self.held = []
        self.broker.register(
            "test",
            {
                "echo": lambda request: request.respond(request.payload),
                "hold": self._hold,
                "flood": self._flood,
            },
        )
        self.server = ClientServer(self.broker, self.path, **options)
        self.broker.open()

    def _hold(self, request):
        self.held.append(request)

    def _flood(self, request):
        for _ in range(request.payload["count"]):
            request.respond(bytes(request.payload["size"]))

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        sock.setblocking(False)
        return Peer(self, sock)

    def turn_until(self, done):
        for _ in range(TURNS):
            if done():
                return
            self.reactor.turn(0.001)
        raise AssertionError("it never came")

    def log(self):
        return [entry[4] for entry in self.broker.ring.entries()]

    def close(self):
        self.server.close()
        self.reactor.close()


class Peer:
    """The other end of a connection."""

    def __init__(self, door, sock):
        self.door, self.sock = door, sock
        self.decoder = FrameDecoder()
        self.got = []
        self.ended = False

    def read(self):
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data:
            self.got += self.decoder.feed(data)
        else:
            self.ended = True

    def send(self, data):
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self.door.reactor.turn(0.001)

    def ask(self, topic, payload=None, *, tag=1, flags=0):
        self.send(encode(Message(REQUEST, topic, pack(payload), tag=tag, flags=flags)))

    def wait(self, count):
        def done():
            self.read()
            return len(self.got) >= count

        self.door.turn_until(done)
        return self.got

    def wait_for_the_end(self):
        def done():
            self.read()
            return self.ended

        self.door.turn_until(done)


@pytest.fixture
def make_door(tmp_path):
    doors = []

    def make(**options):
        doors.append(Door(tmp_path, **options))
        return doors[-1]

    yield make
    for door in doors:
        door.close()


@pytest.fixture
def door(make_door):
    return make_door()


def works(door):
    """Whether somebody new is served."""
    peer = door.connect()
    peer.ask("test.echo", "hello")
    assert peer.wait(1)[0].body == "hello"
    peer.sock.close()
    return True


def test_only_the_owner_may_open_the_socket(door):
    assert stat.S_IMODE(os.stat(door.path).st_mode) == 0o600


def test_requests_are_answered_in_order(door):
    peer = door.connect()
    peer.send(b"".join(
        encode(Message(REQUEST, "test.echo", pack(n), tag=n)) for n in range(1, 501)
    ))  # fmt: skip
    assert [(m.tag, m.body) for m in peer.wait(500)] == [(n, n) for n in range(1, 501)]


def test_big_frames_pass_both_ways(door):
    peer = door.connect()
    payload = os.urandom(door.broker.frame_limit - 1000)
    peer.ask("test.echo", payload)
    assert peer.wait(1)[0].body == payload


def test_clients_do_not_hear_each_other(door):
    peers = [door.connect() for _ in range(5)]
    for number, peer in enumerate(peers):
        peer.ask("test.echo", number, tag=7)
    assert [peer.wait(1)[0].body for peer in peers] == [0, 1, 2, 3, 4]
    assert len(door.server) == 5
    assert door.broker.count_clients() == 5


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff" * 64, "over the limit"),
        ((1 << 30).to_bytes(4, "big"), "a frame of 1073741824 bytes is over the limit"),
        (b"\0\0\0\3abc", "not a message of nine fields"),
        (b"GET / HTTP/1.1\r\n\r\n", "over the limit"),
        (b"\0\0\0\0", "not a message"),
    ],
)
def test_garbage_drops_that_client_only(door, data, words):
    other = door.connect()
    other.ask("test.hold")
    door.turn_until(lambda: door.held)
    peer = door.connect()
    peer.send(data)
    peer.wait_for_the_end()
    assert any(words in text for text in door.log()), door.log()
    assert works(door)
    door.held[0].respond("still here")
    assert other.wait(1)[0].body == "still here"


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(min_size=1, max_size=400))
def test_no_bytes_hurt_the_broker(door, data):
    peer = door.connect()
    peer.send(data)
    peer.sock.shutdown(socket.SHUT_WR)
    peer.wait_for_the_end()
    peer.sock.close()
    door.turn_until(lambda: len(door.server) == 0)
    assert not any("callback" in text for text in door.log())


def test_a_truncated_frame_is_forgotten_with_its_client(door):
    peer = door.connect()
    peer.send(encode(Message(REQUEST, "test.hold", tag=1))[:-3])
    door.reactor.turn(0.01)
    peer.sock.close()
    door.turn_until(lambda: len(door.server) == 0)
    assert door.held == []


def test_who_hangs_up_is_forgotten_with_all_requests(door):
    closed = []
    peer = door.connect()
    for tag in (1, 2):
        peer.ask("test.hold", tag=tag)
    door.turn_until(lambda: len(door.held) == 2)
    for request in door.held:
        request.on_close(lambda: closed.append(1))
    peer.sock.close()
    door.turn_until(lambda: len(closed) == 2)
    assert door.broker.router.inflight == 0
    door.held[0].respond("to nobody")
    assert works(door)


def test_a_cancel_by_message(door):
    peer = door.connect()
    peer.ask("test.hold", tag=4)
    door.turn_until(lambda: door.held)
    peer.send(encode(Message(CONTROL, "cancel", tag=4)))
    door.turn_until(lambda: not door.held[0].open)


def test_another_user_is_told_and_turned_away(make_door):
    door = make_door(uid=os.geteuid() + 1)
    peer = door.connect()
    peer.wait_for_the_end()
    (refusal,) = peer.got
    assert (refusal.tag, refusal.errnum) == (0, errno.EPERM)
    assert refusal.body == "this instance belongs to another user"
    assert f"refused a connection of uid {os.geteuid()}" in door.log()
    assert len(door.server) == 0


def test_one_client_too_many_is_told_and_turned_away(make_door):
    door = make_door(max_clients=3)
    peers = [door.connect() for _ in range(3)]
    door.turn_until(lambda: len(door.server) == 3)
    for _ in range(2):
        late = door.connect()
        late.wait_for_the_end()
        assert (late.got[0].tag, late.got[0].errnum) == (0, errno.EMFILE)
        assert "the broker has 3 clients" in late.got[0].body
    assert len([text for text in door.log() if "refusing" in text]) == 1
    peers[0].sock.close()
    door.turn_until(lambda: len(door.server) == 2)
    assert works(door)


def test_a_client_that_does_not_read_blocks_nobody_and_loses_nothing(door):
    slow = door.connect()
    slow.ask("test.flood", {"count": 64, "size": 1 << 16}, flags=STREAMING)
    assert works(door)
    number = next(iter(door.server._clients))
    door.turn_until(lambda: door.server._clients[number].blocked)
    assert 0 < door.server.backlog(number) < 64 * (1 << 17)
    assert len(slow.wait(64)) == 64
    door.turn_until(lambda: door.server.backlog(number) == 0)
    assert not door.server._clients[number].blocked
    slow.ask("test.echo", "and on", tag=2)
    assert slow.wait(65)[-1].body == "and on"


def test_a_client_that_never_reads_is_dropped(make_door):
    door = make_door(output_limit=1 << 20)
    slow = door.connect()
    slow.ask("test.hold", flags=STREAMING)
    door.turn_until(lambda: door.held)
    (request,) = door.held

    def flooded():
        request.respond(bytes(100_000))
        return len(door.server) == 0

    door.turn_until(flooded)
    assert not request.open
    assert any("bytes unread" in text for text in door.log())
    assert works(door)


def test_the_end_of_one_client_answers_another_in_the_same_turn(door):
    """Nothing else will happen then: an answer left for the next turn would be left for ever."""
    provider, asker = door.connect(), door.connect()
    provider.ask("service.add")  # not offered in this broker: any error will do
    provider.wait(1)
    number = min(door.server._clients)
    door.broker.router.offer("mine", number)
    asker.ask("mine.x", tag=9)
    provider.wait(2)
    provider.sock.close()
    door.broker.router.request(Message(REQUEST, "mine.y", tag=5), None)  # its write will fail
    door.turn_until(lambda: len(door.server) == 1)
    asker.read()
    assert [(m.tag, m.errnum) for m in asker.got] == [(9, errno.ECONNRESET)]


def test_a_flood_of_one_starves_no_other(door):
    flood, other = door.connect(), door.connect()
    door.turn_until(lambda: len(door.server) == 2)
    frame = encode(Message(REQUEST, "test.hold", pack(bytes(50_000)), tag=1, flags=2))
    data = memoryview(frame * (40 * RECEIVE // len(frame)))
    while data:
        try:
            data = data[flood.sock.send(data) :]
        except BlockingIOError:
            break
    other.ask("test.echo", 1)
    for _ in range(3):
        door.reactor.turn(0.001)
    other.read()
    assert len(other.got) == 1


def test_closing_is_idempotent_and_leaves_nothing(door):
    peer = door.connect()
    peer.ask("test.hold")
    door.turn_until(lambda: door.held)
    door.server.close()
    door.server.close()
    assert not os.path.exists(door.path)
    assert not door.held[0].open
    peer.wait_for_the_end()


def test_running_out_of_descriptors_is_told_and_survived(tmp_path):
    """In a process of its own, for the limit is the process's."""
    code = textwrap.dedent(
        """
        import errno, os, resource, socket, sys
        from flux_mpi.broker.broker import Broker
        from flux_mpi.broker.clients import ClientServer
        from flux_mpi.message.codec import FrameDecoder
        from flux_mpi.overlay.loopback import single
        from flux_mpi.overlay.tree import Tree
        from flux_mpi.reactor.epoll import EpollReactor

        reactor = EpollReactor()
        broker = Broker(reactor, single(reactor, "n"), Tree(["n"]), uid=os.geteuid())
        path = sys.argv[1] + "/local-0"
        server = ClientServer(broker, path, max_clients=1000)
        socks = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, used + 10))
        refused = 0
        for sock in socks:
            sock.connect(path)
            reactor.turn(0.01)
            sock.setblocking(False)
            try:
                (message,) = FrameDecoder().feed(sock.recv(4096))
            except BlockingIOError:
                continue
            assert (message.tag, message.errnum) == (0, errno.EMFILE), message
            refused += 1
        accepted = len(server)
        assert accepted + refused == 40, (accepted, refused)
        assert 5 <= accepted <= 12, accepted
        for sock in socks[:20]:
            sock.close()
        for _ in range(50):
            reactor.turn(0.001)
        late = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for sock in late:
            sock.connect(path)
        for _ in range(50):
            reactor.turn(0.001)
        assert len(server) == 2, len(server)
        # With not even a spare one left it must not spin.
        os.close(server._spare)
        server._spare = -1
        hogs = []
        try:
            while True:
                hogs.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        os.close(hogs.pop())
        last = socket.socket(socket.AF_UNIX)
        last.connect(path)
        for _ in range(3):
            reactor.turn(0.01)
        logged = sum("accept" in entry[4] for entry in broker.ring.entries())
        assert logged == 1, logged
        for hog in hogs:
            os.close(hog)
        while len(server) < 3:
            reactor.turn(1)
        server.close()
        print("fine")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
