"""What is wrong must end well: an error that says so, and an instance that lives on."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flux_mpi.client.handle import Handle
from flux_mpi.message.codec import encode
from flux_mpi.message.errors import FluxError
from flux_mpi.message.message import CONTROL, EVENT, REQUEST, RESPONSE, STREAMING, Message, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Instance = Any
    Outside = Callable[..., subprocess.CompletedProcess[str]]

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
NOBODY = 65534


# -- no instance ----------------------------------------------------------------------------------

COMMANDS = [
    ["getattr", "rank"],
    ["jobs"],
    ["submit", "true"],
    ["run", "true"],
    ["cancel", "f1"],
    ["job", "attach", "f1"],
    ["kvs", "get", "x"],
    ["resource", "list"],
    ["queue", "status"],
    ["exec", "true"],
    ["dmesg"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_instance_named(outside: Outside, words: list[str]) -> None:
    done = outside("flux-mpi", *words, status=1)
    assert "FLUX_URI is not set" in done.stderr
    assert "flux-mpi start" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("ssh://host/path", "on another host"),
        ("local://relative/path", "must be absolute"),
        ("local:///no/such/socket", "no such socket"),
        ("local://" + "/x" * 200, "too long"),
        ("local:///", "cannot connect"),
        ("nonsense", "expected local://PATH"),
    ],
)
def test_a_uri_that_leads_nowhere(outside: Outside, uri: str, says: str) -> None:
    done = outside("flux-mpi", "getattr", "rank", env={"FLUX_URI": uri}, status=1)
    assert says in done.stderr
    assert uri in done.stderr


def test_a_stale_socket(outside: Outside, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "stale"))
    listener.close()
    env = {"FLUX_URI": f"local://{tmp_path}/stale"}
    done = outside("flux-mpi", "jobs", env=env, status=1)
    assert "that instance has died" in done.stderr


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\5hello", b""])
def test_a_foreign_socket(outside: Outside, tmp_path: Path, answer: bytes) -> None:
    """Someone listens there, but it is no broker: it answers otherwise, or hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "foreign"))
    listener.listen()

    def serve() -> None:
        client, _ = listener.accept()
        client.recv(1)
        if answer:
            client.sendall(answer)
        client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    env = {"FLUX_URI": f"local://{tmp_path}/foreign"}
    done = outside("flux-mpi", "jobs", env=env, status=1)
    assert "broker" in done.stderr or "protocol" in done.stderr
    assert "Traceback" not in done.stderr
    thread.join(10)
    listener.close()


def test_an_instance_that_has_ended(start: Callable[..., Instance]) -> None:
    instance = start(size=0)
    assert instance.stop() == 0
    done = instance("jobs", status=1)
    assert "that instance has ended" in done.stderr


# -- another user ---------------------------------------------------------------------------------

AS_NOBODY = """
import os, sys
from flux_mpi.client.handle import Handle
from flux_mpi.client.jobs import submit
from flux_mpi.message.errors import FluxError
os.setgid(65534)
os.setuid(65534)
try:
    with Handle(sys.argv[1]) as handle:
        print(handle.call("attr.get", {"name": "rank"}, timeout=30))
except FluxError as error:
    print(error.errno, error)
"""


@root_only
def test_another_user_cannot_reach_the_socket(flux: Instance) -> None:
    said = flux.python(AS_NOBODY, flux.uri)
    assert said.startswith(f"{errno.EACCES} ")
    assert "belongs to another user" in said


@root_only
def test_another_user_who_can_is_refused_and_logged(start: Callable[..., Instance]) -> None:
    instance = start(size=0)
    path = instance.uri.removeprefix("local://")
    os.chmod(path, 0o666)
    os.chmod(os.path.dirname(path), 0o711)
    os.chmod(instance.tmp, 0o711)
    said = instance.python(AS_NOBODY, instance.uri)
    assert said.startswith(f"{errno.EPERM} ")
    assert "another user" in said
    assert f"refused a connection of uid {NOBODY}" in instance.out("dmesg")
    assert instance.alive()


@root_only
def test_a_socket_of_another_user_is_not_trusted(outside: Outside, tmp_path: Path) -> None:
    """Whoever can put a socket where FLUX_URI points must not get our jobs' environment."""
    path = f"/tmp/flux-e2e-{os.getpid()}"
    source = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        "s.bind(sys.argv[1]); s.listen(); print('up', flush=True); c, _ = s.accept(); "
        "c.settimeout(20); print(c.recv(1), flush=True)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", source, path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        os.chmod(path, 0o666)
        other = ("setpriv", "--reuid=65533", "--clear-groups", sys.executable)
        done = outside(*other, "-c", "import flux_mpi.cli.main", status=None)
        if done.returncode:
            pytest.skip("this Python cannot be run by another user")
        env = {"FLUX_URI": f"local://{path}"}
        done = outside(*other, "-m", "flux_mpi", "getattr", "rank", env=env, status=1)
        assert "served by uid 65534" in done.stderr
        assert server.communicate(timeout=30)[0] == "b''\n"  # it was told nothing
    finally:
        server.kill()
        server.wait()
        os.unlink(path)


# -- frames ---------------------------------------------------------------------------------------


def raw(uri: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(uri.removeprefix("local://"))  # waits while the broker is busy with others
    channel.settimeout(30)
    return channel


def framed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


GARBAGE = {
    "text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length of 1 GiB": struct.pack(">I", 1 << 30) + b"x" * 1000,
    "the longest length": b"\xff" * 64,
    "no message": framed(b""),
    "no msgpack": framed(b"\xc1" * 20),
    "not an array": framed(pack({"kind": 1})),
    "too short an array": framed(pack([1, 2, 3])),
    "too long an array": framed(pack([1] * 50)),
    "wrong types": framed(pack(["1", "0", 7, "x", None, {}, "route", [], "payload"])),
    "an unknown kind": framed(pack([99, 0, "broker.ping", 1, -1, 0, [], 0, None])),
    "a topic that is no text": framed(pack([1, 0, b"\xff\xfe", 1, -1, 0, [], 0, None])),
    "a huge tag": framed(pack([1, 0, "broker.ping", 1 << 63, -1, 0, [], 0, None])),
    "a huge rank": framed(pack([1, 0, "broker.ping", 1, 1 << 62, 0, [], 0, None])),
    "deep nesting": framed(b"\x91" * 100_000 + b"\xc0"),
    "a huge array header": framed(b"\xdd\xff\xff\xff\xff"),
    "a payload that is no msgpack": framed(
        pack([1, 0, "broker.ping", 1, -1, 0, [], 0, b"\xc1\xc1"])
    ),
    "a deeply nested payload": framed(
        pack([1, 0, "broker.ping", 1, -1, 0, [], 0, b"\x91" * 100_000 + b"\xc0"])
    ),
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("rank", [0, 3])
def test_garbage_ends_that_client_only(flux: Instance, name: str, rank: int) -> None:
    uri = flux.uri_of(rank)
    with Handle(uri) as other:
        other.call("broker.ping", {"seq": 0}, timeout=30)
        with raw(uri) as channel:
            channel.sendall(GARBAGE[name])
            channel.shutdown(socket.SHUT_WR)
            answers = b""
            while True:  # an answer (an error), or the end; never silence
                try:
                    data = channel.recv(1 << 16)
                except ConnectionResetError:
                    break
                if not data:
                    break
                answers += data
        assert len(answers) < 10_000
        assert other.call("broker.ping", {"seq": 1}, timeout=30)["seq"] == 1
    assert flux.alive()


def test_a_dropped_client_is_told_in_the_log(flux: Instance) -> None:
    with raw(flux.uri) as channel:
        channel.sendall(struct.pack(">I", 1 << 30))
        assert channel.recv(1) == b""  # at once: not after a gigabyte
    assert "dropped a client" in flux.out("dmesg")
    assert str(1 << 30) in flux.out("dmesg")


def test_a_truncated_frame_keeps_nobody_waiting(flux: Instance) -> None:
    """Half a frame and then nothing, on many connections, while others work."""
    whole = encode(Message(REQUEST, "broker.ping", pack({"pad": "x" * 1000}), tag=1))
    held = [raw(flux.uri) for _ in range(50)]
    try:
        for n, channel in enumerate(held):
            channel.sendall(whole[: 1 + n * 17])
        assert flux.alive()
        for n, channel in enumerate(held):  # whoever completes it is answered
            channel.sendall(whole[1 + n * 17 :])
            assert len(channel.recv(1 << 16)) > 1000
    finally:
        for channel in held:
            channel.close()
    assert flux.alive()


def test_a_frame_in_single_bytes(flux: Instance) -> None:
    with raw(flux.uri) as channel:
        for byte in encode(Message(REQUEST, "broker.ping", pack({"seq": 5}), tag=9)):
            channel.sendall(bytes([byte]))
        assert channel.recv(1 << 16)


@pytest.mark.parametrize("kind", [RESPONSE, EVENT, CONTROL])
def test_messages_that_no_client_may_send(flux: Instance, kind: int) -> None:
    """Forged answers, events and orders to a broker do nothing."""
    topics = ["", "broker.ping", "shutdown", "bye", "cancel", "disconnect", "publish", "hello"]
    with Handle(flux.uri) as listener, raw(flux.uri) as channel:
        events = listener.rpc("event.subscribe", {"topic": ""}, streaming=True)
        listener.call("broker.ping", {}, 0)
        for topic in topics:
            for tag in (0, 1, 77):
                message = Message(kind, topic, pack(["x", None]), tag=tag, route=[1, 2], uid=0)
                try:
                    channel.sendall(encode(message))
                except (BrokenPipeError, ConnectionResetError):
                    break
        assert flux.alive()
        mark = flux.handle.publish("e2e.mark", {})
        while True:
            event = events.get(30)
            if event.get("topic"):
                assert (event["topic"], event["seq"]) == ("e2e.mark", mark)
                break


def test_a_forged_route_and_uid_are_not_believed(flux: Instance) -> None:
    with raw(flux.uri) as channel:
        forged = Message(REQUEST, "broker.ping", pack({}), tag=3, route=[0, 2, 1 << 33], uid=4711)
        channel.sendall(encode(forged))
        answer = channel.recv(1 << 16)
    assert b"userid" in answer
    assert pack(4711) not in answer
    assert flux.alive()


def test_a_client_that_does_not_read_hurts_nobody(flux: Instance) -> None:
    request = encode(
        Message(REQUEST, "event.subscribe", pack({"topic": ""}), flags=STREAMING, tag=1)
    )
    with raw(flux.uri) as channel:
        channel.sendall(request)
        for _ in range(64):
            flux.handle.publish("e2e.flood", "x" * (1 << 18))
        assert flux.alive()
    assert flux.alive()


def test_a_payload_over_the_limit_is_refused_here(flux: Instance) -> None:
    with pytest.raises(FluxError) as caught:
        flux.handle.call("broker.ping", {"pad": "x" * (70 << 20)}, timeout=60)
    assert caught.value.errno in (errno.EMSGSIZE, errno.EPROTO, errno.ECONNRESET)
    flux.close_handle()
    assert flux.alive()


# -- many clients ---------------------------------------------------------------------------------


@pytest.fixture
def descriptors() -> Iterator[int]:
    """As many open files as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_clients(flux: Instance, descriptors: int) -> None:
    count = min(10_000, descriptors - 200)
    if count < 1000:
        pytest.skip(f"this process may open {descriptors} files only")
    ping = encode(Message(REQUEST, "broker.ping", pack({}), tag=1))
    clients: list[socket.socket] = []
    refused = 0
    try:
        for _ in range(count):
            channel = raw(flux.uri)
            channel.sendall(ping)
            clients.append(channel)
        for channel in clients:
            answer = channel.recv(1 << 12)
            assert answer, "a client was dropped without a word"
            refused += b"clients" in answer
        assert flux.handle.call("broker.ping", {"seq": 3}, timeout=60)["seq"] == 3
    finally:
        for channel in clients:
            channel.close()
    assert refused == 0 or refused < count
    assert flux.out("run", "echo", "still here") == "still here"


def test_more_clients_than_files(
    start: Callable[..., Instance], wait_until: Callable[..., Any]
) -> None:
    """A broker that may open only so many files says so to those it turns away."""
    instance = start(size=0, limits="ulimit -n 300")
    clients = []

    def fill() -> None:
        for _ in range(400):
            clients.append(Handle(instance.uri))
            clients[-1].call("broker.ping", {}, timeout=30)

    try:
        with pytest.raises(FluxError, match=r"clients.*open files") as caught:
            fill()
        assert caught.value.errno == errno.EMFILE
        assert len(clients) > 100
        assert clients[0].call("broker.ping", {"seq": 1}, timeout=30)["seq"] == 1
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: instance("getattr", "rank", status=None).returncode == 0, "room again", 30)
    assert instance.out("run", "echo", "well") == "well"
    assert re.search(r"refus\w+ .*client", instance.out("dmesg"))


# -- jobspecs -------------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "version": 1,
    "resources": [
        {
            "type": "node",
            "count": 1,
            "with": [
                {
                    "type": "slot",
                    "label": "task",
                    "count": 1,
                    "with": [{"type": "core", "count": 1}],
                }
            ],
        }
    ],
    "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
    "attributes": {"system": {"duration": 0, "cwd": "/", "environment": {}}},
}

REQUIRED: list[tuple[Any, ...]] = [
    ("version",),
    ("resources",),
    ("resources", 0, "type"),
    ("resources", 0, "count"),
    ("resources", 0, "with"),
    ("resources", 0, "with", 0, "label"),
    ("resources", 0, "with", 0, "count"),
    ("resources", 0, "with", 0, "with"),
    ("resources", 0, "with", 0, "with", 0, "type"),
    ("resources", 0, "with", 0, "with", 0, "count"),
    ("tasks",),
    ("tasks", 0, "command"),
    ("tasks", 0, "slot"),
    ("tasks", 0, "count"),
    ("attributes",),
    ("attributes", "system"),
    ("attributes", "system", "duration"),
]

OPTIONAL: list[tuple[Any, ...]] = [
    ("attributes", "system", "cwd"),
    ("attributes", "system", "environment"),
]


def refusal(flux: Instance, spec: object) -> FluxError:
    with pytest.raises(FluxError) as caught:
        flux.handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]}, timeout=30)
    return caught.value


def errno_of(flux: Instance, spec: object) -> int:
    """0, or why it was refused."""
    try:
        flux.handle.call("job-ingest.submit", {"entries": [{"jobspec": spec}]}, timeout=30)
    except FluxError as error:
        return error.errno or -1
    return 0


def holder(spec: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        spec = spec[key]
    return spec


def named(path: tuple[Any, ...], error: FluxError) -> bool:
    """Whether the error says where it is: the field itself or what it is in."""
    found = [str(key) for key in path[-3:] if isinstance(key, str)]
    return str(error).startswith("jobspec: ") and any(key in str(error) for key in found[-2:])


def test_the_jobspec_these_tests_break_is_a_good_one(flux: Instance) -> None:
    answer = flux.handle.call("job-ingest.submit", {"entries": [{"jobspec": SPEC}]}, timeout=30)
    flux("job", "attach", str(answer["arrays"][0][0]))


@pytest.mark.parametrize("path", REQUIRED, ids=lambda path: ".".join(map(str, path)))
def test_a_field_that_is_missing_is_named(flux: Instance, path: tuple[Any, ...]) -> None:
    spec = copy.deepcopy(SPEC)
    del holder(spec, path)[path[-1]]
    error = refusal(flux, spec)
    assert error.errno == errno.EINVAL
    assert named(path, error)


@pytest.mark.parametrize("wrong", ["text", -1, 1.5, None, True, [], {}, [None]], ids=repr)
@pytest.mark.parametrize("path", REQUIRED + OPTIONAL, ids=lambda path: ".".join(map(str, path)))
def test_a_field_of_the_wrong_type_is_named(
    flux: Instance, path: tuple[Any, ...], wrong: object
) -> None:
    right = {
        ("attributes", "system", "duration"): (float, int),
        ("attributes", "system", "cwd"): (str,),
        ("attributes", "system", "environment"): (dict,),
        ("resources", 0, "with", 0, "label"): (str,),
        # There may be resources of any type; whether there are is for the scheduler to say.
        ("resources", 0, "type"): (str,),
        ("resources", 0, "with", 0, "with", 0, "type"): (str,),
        ("tasks", 0, "slot"): (),
    }
    spec = copy.deepcopy(SPEC)
    holder(spec, path)[path[-1]] = wrong
    allowed = right.get(path, ())
    if type(wrong) in allowed and wrong != -1:
        # Right after all; a label must also be what the task names, and a path absolute.
        status = errno_of(flux, spec)
        assert status in (0, errno.EINVAL)
        return
    error = refusal(flux, spec)
    assert error.errno == errno.EINVAL
    assert named(path, error)


@pytest.mark.parametrize("spec", [None, "text", 7, [], {}, {"version": 2}, {"version": 999}])
def test_what_is_no_jobspec_at_all(flux: Instance, spec: object) -> None:
    assert refusal(flux, spec).errno == errno.EINVAL


@pytest.mark.parametrize(
    "entry",
    [
        {"count": 0},
        {"count": -1},
        {"count": "3"},
        {"count": 1 << 40},
        {"params": {"cc": "1-3"}, "count": 5},
        {"params": {"cc": "not an idset"}, "count": 1},
        {"params": {"rows": [["a"], 3]}, "count": 2},
        {"params": {"unknown": 1}, "count": 1},
    ],
    ids=str,
)
def test_arrays_that_make_no_sense(flux: Instance, entry: dict[str, Any]) -> None:
    before = flux.states()["total"]
    with pytest.raises(FluxError) as caught:
        flux.handle.call("job-ingest.submit", {"entries": [{"jobspec": SPEC, **entry}]}, timeout=30)
    assert caught.value.errno in (errno.EINVAL, errno.EPROTO, errno.E2BIG, errno.ENOMEM)
    assert flux.states()["total"] == before


def test_one_bad_jobspec_refuses_the_whole_request(flux: Instance) -> None:
    before = flux.states()["total"]
    bad = copy.deepcopy(SPEC)
    bad["tasks"] = []
    with pytest.raises(FluxError):
        flux.handle.call(
            "job-ingest.submit", {"entries": [{"jobspec": SPEC}, {"jobspec": bad}]}, timeout=30
        )
    assert flux.states()["total"] == before


# -- options and ids ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["run"], ["submit"], ["bulksubmit"], ["jobs"], ["cancel"], ["kvs", "get"], ["exec"],
        ["resource", "list"], ["queue", "status"], ["job", "attach"], ["job", "list"], ["ping"],
        ["getattr"], ["dmesg"], ["overlay", "status"], ["uptime"], ["version"], ["start"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_unknown_option_is_2(flux: Instance, words: list[str]) -> None:
    done = flux(*words, "--no-such-option", "x", status=2)
    assert "--no-such-option" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["no-such-command"], 1, "no-such-command"),
        (["submit"], 1, "command"),
        (["run", "-n", "foo", "true"], 1, "foo"),
        (["run", "-n0", "true"], 1, "0"),
        (["run", "-n"], 2, "needs a value"),
        (["run", "-t", "1x", "true"], 1, "1x"),
        (["run", "-t", "-1", "true"], 1, "-1"),
        (["submit", "--urgency=99", "true"], 1, "urgency"),
        (["submit", "-q", "no-such-queue", "true"], 1, "no-such-queue"),
        (["submit", "--cc=x-y", "true"], 1, "x-y"),
        (["submit", "--flags=nonsense", "true"], 1, "nonsense"),
        (["run", "--requires=((", "true"], 1, "(("),
        (["run", "--env-file=/no/such", "true"], 1, "/no/such"),
        (["run", "--rlimit=bogus=1", "true"], 1, "bogus"),
        (["bulksubmit", "echo", "{3}", ":::", "a"], 1, "3"),
        (["jobs", "-o", "{nosuch}"], 1, "nosuch"),
        (["jobs", "-o", "{id"], 1, ""),
        (["jobs", "-f", "nonsense"], None, "nonsense"),
        (["jobs", "--sort=nonsense"], None, "nonsense"),
        (["job", "no-such-subcommand"], 2, "no-such-subcommand"),
        (["job", "id", "???"], 1, "???"),
        (["ping", "99", "--count=1"], 1, "99"),
        (["ping", "nosuch", "--count=1"], 1, "nosuch"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else None,
)
def test_usage_errors(flux: Instance, words: list[str], status: int | None, says: str) -> None:
    done = flux(*words, status=status)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 6


BY_ID = [
    ["cancel"],
    ["jobs"],
    ["watch"],
    ["job", "attach"],
    ["job", "eventlog"],
    ["job", "kill"],
    ["job", "raise"],
    ["job", "status"],
    ["job", "taskmap"],
    ["job", "timeleft"],
    ["job", "wait"],
]


@pytest.mark.parametrize("words", BY_ID, ids=" ".join)
def test_an_unknown_job_id(flux: Instance, words: list[str]) -> None:
    done = flux(*words, "f1234", status=None)
    assert done.returncode in (1, 2)
    assert "unknown" in done.stderr
    assert "234" in done.stderr


def test_more_that_need_an_id(flux: Instance) -> None:
    for words in (
        ["info", "f1234", "R"],
        ["wait-event", "f1234", "clean"],
        ["urgency", "f1234", "5"],
    ):
        assert "unknown" in flux("job", *words, status=1).stderr


def test_an_id_of_another_instance(flux: Instance, start: Callable[..., Instance]) -> None:
    other = start(size=0)
    theirs = other.out("submit", "--wait", "true")
    assert "unknown" in flux("job", "attach", theirs, status=1).stderr
    assert "unknown" in flux("cancel", theirs, status=1).stderr
    # Nor does an array's arithmetic reach beyond its own members.
    ours = int(flux.out("job", "id", "--to=dec", flux.out("submit", "--cc=1-3", "true").split()[0]))
    for near in (ours - 1, ours + 3, ours + (1 << 40)):
        assert "unknown" in flux("job", "info", str(near), "R", status=1).stderr


# -- tasks that cannot run ------------------------------------------------------------------------


def test_a_working_directory_that_is_not_there(flux: Instance) -> None:
    done = flux("run", "--cwd=/no/such/dir", "true", status=None)
    assert done.returncode != 0
    assert "/no/such/dir: No such file or directory" in done.stderr


@pytest.mark.parametrize("option", ["--output", "--error", "--input"])
def test_files_that_cannot_be_opened(flux: Instance, option: str) -> None:
    done = flux("run", f"{option}=/no/such/dir/file", "true", status=None)
    assert done.returncode != 0
    assert "/no/such/dir/file: No such file or directory" in done.stderr


def test_an_output_folder_that_cannot_be_written(flux: Instance) -> None:
    done = flux("run", "--output=/proc/e2e", "true", status=None)  # not even root can
    assert done.returncode != 0
    assert "/proc/e2e" in done.stderr


def test_a_full_disk(flux: Instance) -> None:
    done = flux("run", "--output=/dev/full", "sh", "-c", "echo lost; exit 3", status=None)
    assert done.returncode in (2, 3)  # the task's own: it is told when it writes
    assert flux.alive()


def test_an_argument_list_over_the_kernels_limit(flux: Instance) -> None:
    for words in (["true", "x" * 200_000], ["true", *["y" * 1000] * 5000]):
        (entry,) = flux.handle.call(
            "job-ingest.submit",
            {"entries": [{"jobspec": {**SPEC, "tasks": [{**SPEC["tasks"][0], "command": words}]}}]},
            timeout=30,
        )["arrays"]
        done = flux("job", "attach", str(entry[0]), status=126)
        assert "Argument list too long" in done.stderr
    assert flux.out("run", "echo", "next") == "next"


def test_a_command_with_a_null_byte(flux: Instance) -> None:
    spec = copy.deepcopy(SPEC)
    spec["tasks"][0]["command"] = ["echo", "a\0b"]
    assert errno_of(flux, spec) in (0, errno.EINVAL)
    flux("queue", "drain")  # if it was taken, it has ended
    assert flux.out("run", "echo", "next") == "next"


def test_json_and_text_that_is_no_utf8(flux: Instance) -> None:
    done = flux.execute(
        [os.fsencode(sys.executable), b"-m", b"flux_mpi", b"run", b"printf", b"%s", b"\xff\xfe"],
        status=None,
    )
    if done.returncode == 0:
        assert done.stdout.encode(errors="surrogateescape") == b"\xff\xfe"
    else:
        assert "Traceback" not in done.stderr
    assert json.loads(flux.out("jobs", "--json", "-a", "-c1"))["jobs"] is not None
