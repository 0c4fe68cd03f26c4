"""Frames: a message as bytes and back, on a stream of any cut.

A frame is a 4-byte big-endian length and one msgpack array of nine fields. Sockets and MPI links
carry the same frames, so one decoder serves both.
"""

from __future__ import annotations

import msgpack

from flux_mpi.message.errors import ProtocolError
from flux_mpi.message.message import CONTROL, REQUEST, Message

TYPE_CHECKING = False  # the typing module costs every command 5 ms
if TYPE_CHECKING:
    from typing import Any

DEFAULT_LIMIT = 64 << 20
"""Longest frame taken from a peer, bytes."""
TOPIC_LIMIT = 4096
"""Longest topic, characters: what a frame holds besides its payload must stay small."""


def encode(m: Message) -> bytes:
    """``m`` as one frame, length included.

    Raises OverflowError when a field does not fit its type.
    """
    body: bytes = msgpack.packb(
        (m.kind, m.flags, m.topic, m.tag, m.target, m.errnum, m.route, m.uid, m.payload),
        use_bin_type=True,
    )
    return len(body).to_bytes(4, "big") + body


def decode(frame: bytes | memoryview) -> Message:
    """The message in ``frame`` (without its length). Raises ProtocolError."""
    try:
        fields: Any = msgpack.unpackb(frame, use_list=True)
        kind, flags, topic, tag, target, errnum, route, uid, payload = fields
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not a message of nine fields: {error}") from None
    # Peers may be anyone with the owner's uid: a wrong type must not reach the routing code.
    if not (
        type(kind) is int
        and REQUEST <= kind <= CONTROL
        and type(flags) is int
        and type(topic) is str
        and len(topic) <= TOPIC_LIMIT
        and type(tag) is int
        and type(target) is int
        and type(errnum) is int
        and type(route) is list
        and all(type(hop) is int for hop in route)
        and type(uid) is int
        and (payload is None or type(payload) is bytes)
    ):
        raise ProtocolError(
            f"a message field has the wrong type: kind {kind!r:.20}, topic {topic!r:.80}"
        )
    return Message(
        kind,
        topic,
        payload,
        flags=flags,
        tag=tag,
        target=target,
        errnum=errnum,
        route=route,
        uid=uid,
    )


class FrameDecoder:
    """Cuts a byte stream into messages; keeps what is not complete yet."""

    __slots__ = ("_buffer", "limit")

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._buffer = bytearray()
        self.limit = limit

    def feed(self, data: bytes | memoryview) -> list[Message]:
        """The messages that ``data`` completes.

        Raises ProtocolError on a frame longer than ``limit`` or one that is no message; the
        stream is then useless and its peer must be dropped.
        """
        buffer = self._buffer
        if not buffer and len(data) >= 4:
            # The usual case: whole frames and nothing left over; do not copy into the buffer.
            source: bytes | bytearray | memoryview = data
        else:
            buffer += data
            source = buffer
        out: list[Message] = []
        position, end = 0, len(source)
        with memoryview(source) as view:
            while end - position >= 4:
                length = int.from_bytes(view[position : position + 4], "big")
                if length > self.limit:
                    raise ProtocolError(
                        f"a frame of {length} bytes is over the limit of {self.limit}"
                    )
                if end - position - 4 < length:
                    break
                with view[position + 4 : position + 4 + length] as frame:
                    out.append(decode(frame))
                position += 4 + length
            rest = bytes(view[position:]) if source is not buffer else b""
        if source is buffer:
            del buffer[:position]
        elif rest:
            buffer += rest
        return out

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame held back."""
        return len(self._buffer)
