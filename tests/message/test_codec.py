"""Frames: any cut of the stream gives the same messages, and no bytes do worse than an error."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.message.codec import TOPIC_LIMIT, FrameDecoder, decode, encode
from flux_mpi.message.errors import ProtocolError
from flux_mpi.message.message import CONTROL, REQUEST, Message, pack

numbers = st.integers(-(1 << 63), (1 << 64) - 1)

messages = st.builds(
    Message,
    st.integers(REQUEST, CONTROL),
    st.text(max_size=40),
    st.none() | st.binary(max_size=300),
    flags=st.integers(0, 7),
    tag=numbers,
    target=st.integers(-1, 1 << 32),
    errnum=st.integers(0, 200),
    route=st.lists(st.integers(0, 1 << 40), max_size=6),
    uid=st.integers(-1, 1 << 32),
)


def fields(message):
    return tuple(getattr(message, name) for name in Message.__slots__)


@given(messages)
def test_a_message_survives_its_frame(message):
    frame = encode(message)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert fields(decode(frame[4:])) == fields(message)


@given(st.lists(messages, max_size=6), st.data())
def test_any_cut_of_the_stream_gives_the_same_messages(sent, data):
    stream = b"".join(map(encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = FrameDecoder()
    got = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)]):
        got += decoder.feed(stream[begin:end])
    assert [fields(m) for m in got] == [fields(m) for m in sent]
    assert decoder.pending == 0


def test_what_is_incomplete_waits():
    frame = encode(Message(REQUEST, "a.b", bytes(100)))
    decoder = FrameDecoder()
    for at in range(len(frame) - 1):
        assert decoder.feed(frame[at : at + 1]) == []
        assert decoder.pending == at + 1
    assert [m.topic for m in decoder.feed(frame[-1:])] == ["a.b"]


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_garbage_is_an_error_or_waits_for_more(chunks):
    decoder = FrameDecoder(limit=1 << 16)
    try:
        for chunk in chunks:
            for message in decoder.feed(chunk):
                assert REQUEST <= message.kind <= CONTROL
    except ProtocolError:
        pass


anything = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@given(anything)
def test_well_formed_msgpack_of_the_wrong_shape_is_an_error(value):
    packed = msgpack.packb(value)
    try:
        message = decode(packed)
    except ProtocolError:
        return
    assert [message.kind, message.flags, message.topic] == value[:3]


def test_a_frame_over_the_limit_is_refused_before_it_has_come():
    with pytest.raises(ProtocolError, match=r"1073741824 bytes is over the limit of 67108864"):
        FrameDecoder().feed((1 << 30).to_bytes(4, "big"))


def test_a_frame_of_exactly_the_limit_is_taken():
    frame = encode(Message(REQUEST, "x"))
    assert FrameDecoder(limit=len(frame) - 4).feed(frame)
    with pytest.raises(ProtocolError):
        FrameDecoder(limit=len(frame) - 5).feed(frame)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0), (0, 5), (0, True), (0, "1"), (1, None), (2, b"topic"), (2, 7), (3, 1.5),
        (2, "x" * (TOPIC_LIMIT + 1)), (4, "any"), (5, None), (6, None), (6, ["a"]), (6, [1.0]),
        (7, None), (8, "text"), (8, [1]),
    ],
)  # fmt: skip
def test_each_field_is_checked(at, value):
    good = [REQUEST, 0, "a.b", 1, -1, 0, [], 0, b""]
    decode(msgpack.packb(good))
    good[at] = value
    with pytest.raises(ProtocolError):
        decode(msgpack.packb(good))


def test_deep_nesting_is_an_error_not_a_crash():
    with pytest.raises(ProtocolError):
        decode(b"\x91" * 100_000 + b"\xc0")
    message = Message(REQUEST, "a.b", b"\x91" * 100_000 + b"\xc0")
    with pytest.raises(msgpack.StackError):
        _ = message.body


def test_a_payload_is_unpacked_only_on_demand():
    nonsense = Message(REQUEST, "a.b", b"\xc1")
    (message,) = FrameDecoder().feed(encode(nonsense))
    assert message.payload == b"\xc1"
    with pytest.raises(msgpack.FormatError):
        _ = message.body


def test_answers_go_back_the_way_the_request_came():
    request = Message(REQUEST, "a.b", pack([1]), tag=9, route=[1 << 32, 3], uid=7)
    answer, failure = request.answer({"x": 1}), request.failure(2, "gone")
    for response in (answer, failure):
        assert (response.tag, response.route, response.uid) == (9, [1 << 32, 3], 7)
        assert response.route is not request.route
    assert (answer.errnum, answer.body) == (0, {"x": 1})
    assert (failure.errnum, failure.body) == (2, "gone")
    assert request.failure(2).payload is None


@pytest.mark.parametrize(
    ("topic", "service"),
    [("kvs.lookup", "kvs"), ("a.b.c", "a.b"), ("plain", "plain"), ("", ""), (".x", ".x")],
)
def test_the_service_is_the_topic_up_to_its_last_dot(topic, service):
    assert Message(REQUEST, topic).service == service
