"""The connection: requests, streams, events, services, threads, and how it breaks."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flux_mpi.client import handle as handle_module
from flux_mpi.client.handle import Handle
from flux_mpi.client.uri import instance_uri, socket_path
from flux_mpi.message.codec import encode
from flux_mpi.message.errors import FluxError
from flux_mpi.message.message import RESPONSE, STREAMING, Message, pack
from tests.client.fakebroker import FakeBroker, Request, streaming

ROOT = str(Path(__file__).resolve().parents[2])


def test_a_request_gets_its_answer(broker: FakeBroker) -> None:
    broker.handlers["x.double"] = lambda r: r.respond(r.payload * 2)
    with Handle() as handle:
        assert handle.call("x.double", 21) == 42
        assert handle.call("x.double", "ab", rank=3) == "abab"
    assert broker.requests == [("x.double", 21, -1), ("x.double", "ab", 3)]


def test_answers_in_another_order_reach_their_requests(broker: FakeBroker) -> None:
    held: list[Request] = []

    def hold(request: Request) -> None:
        held.append(request)
        if len(held) == 3:
            for late in reversed(held):
                late.respond(late.payload)

    broker.handlers["x.hold"] = hold
    with Handle() as handle:
        futures = [handle.rpc("x.hold", k) for k in range(3)]
        assert [future.get() for future in futures] == [0, 1, 2]
        assert futures[0].get() == 0, "an answer can be asked for again"


def test_an_error_carries_number_and_text(broker: FakeBroker) -> None:
    broker.handlers["x.fail"] = lambda r: r.error(errno.EPERM, "not you")
    with Handle() as handle:
        with pytest.raises(OSError, match="not you") as caught:
            handle.call("x.fail")
        assert caught.value.errno == errno.EPERM
        with pytest.raises(FluxError, match="no such service") as caught:
            handle.call("nothing.here")
        assert caught.value.errno == errno.ENOSYS


def test_a_stream_is_iterated_to_its_end(broker: FakeBroker) -> None:
    broker.handlers["x.count"] = streaming(1, 2, 3)
    with Handle() as handle:
        stream = handle.rpc("x.count", streaming=True)
        assert list(stream) == [1, 2, 3]
        with pytest.raises(FluxError) as caught:
            stream.get()
        assert caught.value.errno == errno.ENODATA


def test_an_error_in_a_stream_is_raised(broker: FakeBroker) -> None:
    def handler(request: Request) -> None:
        request.respond(1)
        request.error(errno.EIO, "broke")

    broker.handlers["x.s"] = handler
    with Handle() as handle:
        stream = handle.rpc("x.s", streaming=True)
        assert next(stream) == 1
        with pytest.raises(FluxError, match="broke"):
            next(stream)


def test_cancel_tells_the_service_and_drops_late_answers(broker: FakeBroker) -> None:
    broker.handlers["x.s"] = lambda r: r.respond("first")
    with Handle() as handle:
        stream = handle.rpc("x.s", streaming=True)
        assert stream.get() == "first"
        stream.cancel()
        stream.cancel()
        broker.wait_for(lambda: broker.controls)
        assert [(m.topic, m.tag) for m in broker.controls] == [("cancel", stream.tag)]
        broker.connections[0].send(Message(RESPONSE, "x.s", pack("late"), tag=stream.tag))
        handle.call("broker.ping", {})
        assert not stream.ready()


def test_a_timeout_leaves_the_request_usable(broker: FakeBroker) -> None:
    held: list[Request] = []
    broker.handlers["x.hold"] = held.append
    with Handle() as handle:
        future = handle.rpc("x.hold")
        with pytest.raises(TimeoutError, match=r"x\.hold: no answer within 0\.01 s"):
            future.get(0.01)
        held[0].respond("now")
        assert future.get() == "now"
        with pytest.raises(TimeoutError):
            handle.call("x.hold", timeout=0.01)
        broker.wait_for(lambda: broker.controls)


def test_then_is_called_for_each_answer(broker: FakeBroker) -> None:
    broker.handlers["x.count"] = streaming(1, 2)
    seen: list[object] = []

    def take(future: handle_module.Future) -> None:
        try:
            seen.append(future.get())
        except FluxError as error:
            seen.append(error.errno)

    with Handle() as handle:
        handle.rpc("x.count", streaming=True, callback=take)
        handle.run(lambda: len(seen) == 3)
    assert seen == [1, 2, errno.ENODATA]


def test_attributes(broker: FakeBroker) -> None:
    broker.handlers["attr.list"] = {"attrs": {"size": "4"}}
    broker.handlers["attr.set"] = lambda r: r.error(errno.EPERM, "size: read-only")
    with Handle() as handle:
        assert (handle.rank, handle.size) == (0, 4)
        assert handle.attr_list() == {"size": "4"}
        with pytest.raises(FluxError, match="nosuch: no such attribute"):
            handle.attr_get("nosuch")
        with pytest.raises(FluxError, match="read-only"):
            handle.attr_set("size", "5")


def test_events_of_several_prefixes_come_once(broker: FakeBroker) -> None:
    def subscribe(request: Request) -> None:
        request.respond({"topic": "", "seq": 6, "payload": None})
        if request.payload["topic"] == "a.b":
            for connection in broker.connections:
                for open_request in list(connection.open.values()):
                    open_request.respond({"topic": "a.b.c", "seq": 7, "payload": {"x": 1}})
            request.respond({"topic": "a.b.d", "seq": 8, "payload": None})

    broker.handlers["event.subscribe"] = subscribe
    with Handle() as handle:
        events = handle.events("a", "a.b")
        assert next(events) == ("a.b.c", 7, {"x": 1})
        assert next(events) == ("a.b.d", 8, None)
        events.close()  # type: ignore[attr-defined]
        broker.wait_for(lambda: len(broker.controls) == 2)


def test_a_service_answers_requests_and_hears_of_leavers(broker: FakeBroker) -> None:
    broker.handlers["service.add"] = lambda r: r.respond()
    broker.handlers["service.remove"] = lambda r: r.respond()
    gone: list[object] = []

    def boom(request: object) -> None:
        raise FluxError(errno.EINVAL, "no")

    with Handle() as handle:
        service = handle.service(
            "mine",
            {
                "echo": lambda request: request.respond(request.payload),
                "watch": lambda request: request.respond("open"),
                "boom": boom,
            },
            gone.append,
        )
        assert broker.payload("service.add") == {"service": "mine"}

        def answers() -> list[tuple[object, int]]:
            return [
                (body, number) for topic, body, number in broker.requests if topic == "response"
            ]

        broker.ask("mine.echo", {"k": 1}, tag=5)
        broker.ask("mine.boom", None, tag=6)
        broker.ask("mine.nosuch", None, tag=7)
        broker.ask("mine.watch", None, tag=8, flags=STREAMING)
        while len(answers()) < 4:
            handle.dispatch(0.05)
        assert answers()[0] == ({"k": 1}, 0)
        assert answers()[1] == ("no", errno.EINVAL)
        assert answers()[2][1] == errno.ENOSYS
        assert answers()[3] == ("open", 0)
        broker.connections[0].send(Message(4, "cancel", tag=8, route=[1 << 32]))
        while not gone:
            handle.dispatch(0.05)
        assert gone == [(8, (1 << 32,))]
        service.close()
        assert broker.payload("service.remove") == {"service": "mine"}


def test_threads_share_a_handle(broker: FakeBroker) -> None:
    broker.handlers["x.double"] = lambda r: r.respond(r.payload * 2)
    wrong: list[object] = []
    with Handle() as handle:

        def work(base: int) -> None:
            for k in range(base, base + 100):
                found = handle.call("x.double", k, timeout=30)
                if found != 2 * k:
                    wrong.append((k, found))

        threads = [threading.Thread(target=work, args=(base * 1000,)) for base in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_many_large_requests_do_not_block_both_sides(broker: FakeBroker) -> None:
    broker.handlers["x.echo"] = lambda r: r.respond(r.payload)
    text = "x" * 50_000
    with Handle() as handle:
        futures = [handle.rpc("x.echo", text) for _ in range(100)]
        assert all(future.get() == text for future in futures)


@pytest.mark.parametrize("payload", [{"a": object()}, "\udc80", 1 << 70])
def test_what_cannot_be_sent_is_refused_here(broker: FakeBroker, payload: object) -> None:
    with Handle() as handle:
        with pytest.raises(FluxError, match=r"x\.y") as caught:
            handle.rpc("x.y", payload)
        assert caught.value.errno == errno.EINVAL
        assert handle.call("broker.ping", {"seq": 1})["seq"] == 1


def test_a_broker_that_ends_is_told_to_all_who_wait(broker: FakeBroker) -> None:
    broker.handlers["x.hold"] = lambda r: None
    with Handle() as handle:
        handle.call("broker.ping", {})
        futures = [handle.rpc("x.hold") for _ in range(3)]
        broker.drop()
        for future in futures:
            with pytest.raises(FluxError, match="lost the connection") as caught:
                future.get(10)
            assert caught.value.errno == errno.ECONNRESET
        with pytest.raises(FluxError, match="lost the connection"):
            handle.rpc("x.hold")


def test_a_closed_handle_says_so(broker: FakeBroker) -> None:
    handle = Handle()
    future = handle.rpc("x.hold")
    handle.close()
    handle.close()
    with pytest.raises(FluxError, match="closed"):
        future.get()
    with pytest.raises(FluxError, match="closed"):
        handle.call("broker.ping", {})


# -- no instance, or not ours ----------------------------------------------------------------------


def test_no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLUX_URI", raising=False)
    with pytest.raises(FluxError, match=r"FLUX_URI is not set.*flux-mpi start") as caught:
        Handle()
    assert caught.value.errno == errno.ENOENT
    assert instance_uri("local:///x") == "local:///x"


@pytest.mark.parametrize("uri", ["ftp://host/x", "ssh://host", "local://relative", "/just/a/path"])
def test_uris_that_cannot_be_used(uri: str) -> None:
    with pytest.raises(FluxError, match="cannot use the URI"):
        socket_path(uri)
    assert socket_path("local:///run/x") == "/run/x"
    assert socket_path("local://@name") == "\0name"


def test_stale_missing_and_foreign_sockets(tmp_path: Path) -> None:
    with pytest.raises(FluxError, match="no such socket: that instance has ended"):
        Handle(f"local://{tmp_path}/none")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(f"{tmp_path}/stale")
    stale.close()
    with pytest.raises(FluxError, match="stale socket"):
        Handle(f"local://{tmp_path}/stale")
    (tmp_path / "file").write_text("")
    with pytest.raises(FluxError, match="cannot connect"):
        Handle(f"local://{tmp_path}/file")


def _listener(path: Path, reply: bytes, close: bool) -> threading.Thread:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(1)

    def serve() -> None:
        with sock:
            peer, _ = sock.accept()
            with peer:
                if reply:
                    peer.sendall(reply)
                if not close:
                    while peer.recv(1 << 16):
                        pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_somebody_else_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _listener(tmp_path / "http", b"HTTP/1.1 400 Bad Request\r\n\r\n", close=False)
    with Handle(f"local://{tmp_path}/http") as handle, pytest.raises(FluxError) as caught:
        handle.call("broker.ping", {})
    assert caught.value.errno == errno.EPROTO
    assert "does not speak flux-mpi's protocol" in str(caught.value)

    _listener(tmp_path / "hangup", b"", close=True)
    with (
        pytest.raises(FluxError, match="closed the connection at once"),
        Handle(f"local://{tmp_path}/hangup") as handle,
    ):
        handle.call("broker.ping", {})

    monkeypatch.setattr(handle_module, "HELLO_TIMEOUT_S", 0.05)
    _listener(tmp_path / "silent", b"", close=False)
    with (
        Handle(f"local://{tmp_path}/silent") as handle,
        pytest.raises(FluxError, match="answered nothing"),
    ):
        handle.call("broker.ping", {})


def test_the_brokers_reason_for_refusing_is_shown(tmp_path: Path) -> None:
    refusal = encode(Message(RESPONSE, "", pack("another user's"), errnum=errno.EPERM))
    _listener(tmp_path / "no", refusal, close=True)
    with (
        pytest.raises(FluxError, match=r"refused by local://.*another user's") as caught,
        Handle(f"local://{tmp_path}/no") as handle,
    ):
        handle.call("broker.ping", {})
    assert caught.value.errno == errno.EPERM


@pytest.mark.skipif(os.getuid() != 0, reason="only root can pretend to be somebody else")
def test_a_socket_served_by_another_user_is_not_trusted(broker: FakeBroker) -> None:
    os.chmod(broker.path, 0o777)
    os.chmod(os.path.dirname(broker.path), 0o777)
    code = (
        "import os, sys\n"
        "from flux_mpi.client import handle\n"
        "os.setuid(65534)\n"
        # Root may be trusted; pretend that the peer is a third user.
        "handle.struct.unpack = lambda *a: (1, 12345, 0)\n"
        "try: handle.Handle(sys.argv[1])\n"
        "except OSError as e: print(e)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, broker.uri], capture_output=True, text=True, timeout=60
    )
    assert "served by uid 12345, and you are uid 65534" in found.stdout, found.stderr


# -- import cost -----------------------------------------------------------------------------------


def test_importing_flux_mpi_loads_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import flux_mpi\n"
        "print(sorted(m for m in set(sys.modules) - before if m != '__future__'))\n"
        "flux_mpi.Handle; flux_mpi.submit; flux_mpi.FluxExecutor; flux_mpi.Workers\n"
        "print(sorted({'numpy', 'numba', 'mpi4py'} & set(sys.modules)))\n"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {ROOT!r})\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout.split("\n")[:2] == ["['flux_mpi']", "[]"]


def test_the_sync_path_needs_no_heavy_module() -> None:
    code = (
        "import sys; sys.argv = ['flux-mpi']\n"
        "import flux_mpi.cli.main, flux_mpi.cli.submit, flux_mpi.cli.jobs, flux_mpi.cli.run\n"
        "heavy = {'asyncio', 'argparse', 'subprocess', 'concurrent.futures', 'inspect',\n"
        "         'dataclasses', 'threading', 'socket', 'logging', 'pathlib'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {ROOT!r})\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_unknown_names_are_attribute_errors() -> None:
    import flux_mpi

    with pytest.raises(AttributeError, match="nosuch"):
        flux_mpi.nosuch  # noqa: B018
    assert "Handle" in dir(flux_mpi)
