"""Brokers, their tree, and what travels over it."""

from __future__ import annotations

import errno
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from flux_mpi.client.handle import Handle
from flux_mpi.message.errors import FluxError

if TYPE_CHECKING:
    from collections.abc import Callable

    Instance = Any


# -- attributes and uptime ------------------------------------------------------------------------


def test_attributes(flux: Instance) -> None:
    assert flux.out("getattr", "size") == "4"
    assert flux.out("getattr", "rank") == "0"
    assert flux.out("getattr", "instance-level") == "0"
    assert flux.out("getattr", "local-uri") == flux.uri
    listed = dict(line.split(None, 1) for line in flux.out("lsattr", "-v").splitlines())
    for name in ("broker.pid", "hostname", "hostlist", "rundir", "tbon.fanout", "version"):
        assert listed[name] == flux.out("getattr", name)
    assert sorted(listed) == flux.out("lsattr").splitlines()
    done = flux("getattr", "no.such.attribute", status=1)
    assert "no.such.attribute" in done.stderr


def test_attributes_can_be_set_or_not(flux: Instance) -> None:
    flux("setattr", "my.own", "x y")
    assert flux.out("getattr", "my.own") == "x y"
    done = flux("setattr", "rank", "7", status=1)
    assert "rank" in done.stderr
    assert flux.out("getattr", "rank") == "0"


def test_every_rank_has_its_own(flux: Instance) -> None:
    done = flux("exec", "-r", "all", "-l", "flux-mpi", "getattr", "rank")
    assert sorted(done.stdout.splitlines()) == [f"{n}: {n}" for n in range(4)]


def test_uptime_and_overlay(flux: Instance) -> None:
    assert re.match(
        r"^\d\d:\d\d:\d\d run [\d.]+\w+, +owner \S+, +depth 0, +size 4$", flux.out("uptime")
    )
    first, *rest = flux.out("overlay", "status").splitlines()
    assert re.match(r"^0 \S+: full$", first)
    assert [re.match(r"^[├└]─ (\d) \S+: full$", line).group(1) for line in rest] == ["1", "2", "3"]  # type: ignore[union-attr]
    assert flux.out("overlay", "errors") == ""


# -- requests -------------------------------------------------------------------------------------


def test_ping(flux: Instance) -> None:
    for rank in range(4):
        text = flux.out("ping", "--count=2", "--interval=0", str(rank)).splitlines()
        assert text[0] == f"flux-ping {rank}!broker"
        for seq, line in enumerate(text[1:]):
            assert re.match(rf"^{rank}!broker\.ping pad=0 seq={seq} time=\d+\.\d+ ms \(.*\)$", line)
        assert len(text) == 3


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("size", [0, 100, 1 << 20])
def test_payloads_come_back_whole(flux: Instance, rank: int, size: int) -> None:
    answer = flux.handle.call("broker.ping", {"pad": "x" * size}, rank=rank)
    assert answer["pad"] == "x" * size
    assert answer["rank"] == rank


def test_every_rank_reaches_every_rank(flux: Instance) -> None:
    for here in range(4):
        with Handle(flux.uri_of(here)) as handle:
            assert handle.rank == here
            futures = [handle.rpc("broker.ping", {"seq": there}, there) for there in range(4)]
            assert [future.get(30)["rank"] for future in futures] == [0, 1, 2, 3]
            # And the services of the root from anywhere.
            assert handle.call("resource.info")["nnodes"] == 4


def test_many_requests_at_a_time_are_answered_in_their_order(flux: Instance) -> None:
    futures = [flux.handle.rpc("broker.ping", {"seq": n}, 3) for n in range(2000)]
    assert [future.get(60)["seq"] for future in futures] == list(range(2000))


@pytest.mark.parametrize(
    ("topic", "rank", "errnum"),
    [
        ("no-such-service.method", -1, errno.ENOSYS),
        ("no-such-service.method", 0, errno.ENOSYS),
        ("no-such-service.method", 3, errno.ENOSYS),
        ("broker.no-such-method", 2, errno.ENOSYS),
        ("kvs.no-such-method", -1, errno.ENOSYS),
        ("kvs.lookup", 3, errno.ENOSYS),
        ("broker.ping", 4, errno.EHOSTUNREACH),
        ("broker.ping", 1 << 31, errno.EHOSTUNREACH),
        ("nodots", -1, errno.ENOSYS),
        ("", -1, errno.ENOSYS),
    ],
)
def test_nothing_is_left_unanswered(flux: Instance, topic: str, rank: int, errnum: int) -> None:
    for here in (0, 2):
        with Handle(flux.uri_of(here)) as handle, pytest.raises(FluxError) as caught:
            handle.call(topic, {}, rank, timeout=30)
        assert caught.value.errno in (errnum, errno.EPROTO if not topic else errnum)


@pytest.mark.parametrize("payload", [None, [], "text", 3, {"wrong": 1}])
def test_services_survive_nonsense(flux: Instance, payload: object) -> None:
    topics = [
        "attr.get", "attr.set", "log.append", "log.forward", "event.publish", "event.subscribe",
        "service.add", "service.remove", "kvs.commit", "kvs.lookup", "kvs.watch",
        "kvs.namespace-create", "resource.drain", "resource.undrain", "job-ingest.submit",
        "job-manager.wait", "job-manager.kill", "job-manager.raise", "job-manager.raise-all",
        "job-manager.urgency", "job-manager.queue-enable", "job-manager.queue-start",
        "job-info.lookup", "job-info.eventlog-watch", "job-exec.hello", "job-exec.report",
        "exec.start", "exec.kill", "exec.stdin", "exec.forget", "exec.output", "rexec.exec",
        "rexec.kill", "rexec.write", "sched.feasibility", "instance.signal", "instance.lost",
    ]  # fmt: skip
    answered = {}
    for topic in topics:
        future = flux.handle.rpc(
            topic, payload, streaming=topic.endswith(("watch", "output", "subscribe"))
        )
        try:
            answered[topic] = future.get(30)
        except FluxError as error:
            answered[topic] = error.errno
        finally:
            future.cancel()
    # What cannot be understood is refused, and never taken for an empty request that succeeds.
    strict = ["attr.get", "attr.set", "kvs.commit", "kvs.lookup", "job-ingest.submit",
              "job-manager.kill", "job-manager.raise", "job-info.lookup", "resource.drain",
              "rexec.exec"]  # fmt: skip
    refused = (errno.EPROTO, errno.EINVAL)
    assert {topic: answered[topic] for topic in strict if answered[topic] not in refused} == {}
    assert flux.alive()


def test_streams_can_be_cancelled(flux: Instance) -> None:
    with Handle(flux.uri_of(2)) as handle:
        before = handle.call("broker.stats", {}, 0)
        for _ in range(50):
            stream = handle.rpc("event.subscribe", {"topic": "nothing."}, streaming=True)
            stream.cancel()
            watch = handle.rpc("kvs.watch", {"ns": "primary", "key": "x.y", "waitcreate": True},
                               streaming=True)  # fmt: skip
            watch.cancel()
        assert handle.call("broker.ping", {"seq": 1}, 0)["seq"] == 1
        after = handle.call("broker.stats", {}, 0)
    assert after.get("inflight", 0) <= before.get("inflight", 0) + 2


# -- services of clients --------------------------------------------------------------------------


def test_a_client_offers_a_service(flux: Instance) -> None:
    import threading

    served = Handle(flux.uri_of(3))
    asked = []

    def double(request: Any) -> None:
        asked.append(request.payload)
        request.respond({"twice": request.payload["n"] * 2})

    service = served.service("doubler", {"double": double})
    try:
        thread = threading.Thread(target=lambda: served.run(lambda: len(asked) >= 2), daemon=True)
        thread.start()
        assert flux.handle.call("doubler.double", {"n": 21}, 3, timeout=30) == {"twice": 42}
        with Handle(flux.uri_of(1)) as other:
            assert other.call("doubler.double", {"n": 1}, 3, timeout=30) == {"twice": 2}
        thread.join(30)
        with pytest.raises(FluxError) as caught, Handle(flux.uri_of(3)) as rival:
            rival.service("doubler", {})
        assert caught.value.errno == errno.EEXIST
    finally:
        service.close()
        served.close()
    with pytest.raises(FluxError) as caught:
        flux.handle.call("doubler.double", {"n": 1}, 3, timeout=30)
    assert caught.value.errno == errno.ENOSYS


def test_the_end_of_a_serving_client_is_told_to_those_who_wait(flux: Instance) -> None:
    served = Handle(flux.uri_of(1))
    served.service("mute", {"ask": lambda request: None})
    future = flux.handle.rpc("mute.ask", {}, 1)
    assert flux.handle.call("broker.ping", {}, 1)  # the question has passed by now
    served.close()
    with pytest.raises(FluxError):
        future.get(30)


# -- events ---------------------------------------------------------------------------------------


def test_events_reach_every_rank_in_one_order_without_gaps(flux: Instance) -> None:
    handles = [Handle(flux.uri_of(rank)) for rank in range(4)]
    try:
        streams = [h.rpc("event.subscribe", {"topic": "e2e."}, streaming=True) for h in handles]
        for h in handles:
            h.call("broker.ping", {}, 0)  # subscribed by now
        import threading

        def publish(rank: int) -> None:
            with Handle(flux.uri_of(rank)) as source:
                for n in range(50):
                    source.publish("e2e.x", [rank, n])

        threads = [threading.Thread(target=publish, args=(rank,)) for rank in range(4)]
        for thread in threads:
            thread.start()
        heard = []
        for stream in streams:
            mine: list[tuple[int, Any]] = []
            while len(mine) < 200:
                event = stream.get(60)
                if event.get("topic"):
                    mine.append((event["seq"], event["payload"]))
            heard.append(mine)
        for thread in threads:
            thread.join(30)
        assert heard[0] == heard[1] == heard[2] == heard[3]
        seqs = [seq for seq, _ in heard[0]]
        assert seqs == sorted(set(seqs))
        for rank in range(4):  # each source's own order is kept
            assert [n for _, (r, n) in heard[0] if r == rank] == list(range(50))
    finally:
        for h in handles:
            h.close()


def test_event_commands(flux: Instance) -> None:
    listener = flux.popen("event", "sub", "--count=2", "e2e.cmd")
    sent = 0
    # The listener may need a moment to subscribe: what is published before it did is not for it.
    while listener.poll() is None and sent < 500:
        flux.handle.publish("e2e.cmd.a", {"n": sent})
        sent += 1
        try:
            listener.wait(0.05)
        except Exception:
            continue
    out, err = listener.communicate(timeout=30)
    assert listener.returncode == 0, err
    first, second = out.splitlines()
    assert first.split("\t")[0].split(" ")[0] == "e2e.cmd.a"
    assert (
        json.loads(first[first.index("{") :])["n"] + 1
        == json.loads(second[second.index("{") :])["n"]
    )
    flux("event", "pub", "e2e.cmd.b", '{"x": 1}')


# -- exec -----------------------------------------------------------------------------------------


def test_exec_statuses_and_streams(flux: Instance) -> None:
    done = flux("exec", "-r", "1,3", "-l", "sh", "-c", "echo out; echo err >&2")
    assert sorted(done.stdout.splitlines()) == ["1: out", "3: out"]
    assert sorted(done.stderr.splitlines()) == ["1: err", "3: err"]
    flux("exec", "-r", "2", "sh", "-c", "exit 3", status=3)
    flux("exec", "-r", "0-1", "sh", "-c", "exit $(flux-mpi getattr rank)", status=1)
    assert flux("exec", "-r", "1", "/no/such/cmd", status=127).stdout == ""
    flux("exec", "-r", "9", "true", status=None)
    assert flux("exec", "-r", "9", "true", status=None).returncode != 0
    assert flux.out("exec", "-r", "2", "-d", "/", "pwd") == "/"
    assert flux("exec", "-r", "1", "cat", stdin="fed\n").stdout == "fed\n"
    done = flux("exec", "-x", "1-3", "flux-mpi", "getattr", "rank")
    assert done.stdout == "0\n"


def test_exec_ends_what_it_started(flux: Instance, wait_until: Callable[..., Any]) -> None:
    running = flux.popen("exec", "-r", "2", "sh", "-c", "echo up; exec sleep 100")
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"

    def there() -> list[Any]:
        found: list[Any] = flux.handle.call("rexec.list", {}, 2)["procs"]
        return found

    assert len(there()) == 1
    running.kill()
    running.communicate(timeout=30)
    wait_until(lambda: not there(), "the command of a lost client has ended", 30)


# -- the log --------------------------------------------------------------------------------------


def test_dmesg(flux: Instance) -> None:
    flux("logger", "--severity=info", "a note from the test")
    text = flux.out("dmesg")
    assert re.search(
        r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+\.info\[0\]: a note from the test$",
        text,
        re.MULTILINE,
    )
    assert "broker.info[0]: running sh -c" in text
    assert re.search(r"^\[.*\] \S+\.info\[0\]: a note", flux.out("dmesg", "-H"), re.MULTILINE)


def test_errors_of_other_ranks_are_told_at_the_root(flux: Instance) -> None:
    mark = {"level": 3, "component": "e2e", "text": "trouble on rank 3"}
    flux.handle.call("log.append", mark, 3)
    flux.handle.call("broker.ping", {}, 3)
    assert "e2e.err[3]: trouble on rank 3" in flux.out("dmesg")
