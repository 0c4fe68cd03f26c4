"""One message: a request, a response, an event or a control message (after RFC 3).

``payload`` stays packed until someone asks for ``body``: a broker that only forwards never
decodes what it carries.
"""

from __future__ import annotations

import msgpack

TYPE_CHECKING = False  # the typing module costs every command 5 ms
if TYPE_CHECKING:
    from typing import Any

REQUEST = 1
RESPONSE = 2
EVENT = 3
CONTROL = 4

STREAMING = 1
NORESPONSE = 2
UPSTREAM = 4

ANY = -1
"""Target of a request that the nearest broker offering the service shall answer."""

FIRST_CLIENT = 1 << 32
"""Route elements below this are ranks; from here on they number a broker's clients."""

# msgpack bounds the nesting of what it unpacks itself (about 500 levels): a deeper payload is an
# error, not a crash.
unpack = msgpack.unpackb


def pack(value: Any) -> bytes:
    """``value`` as msgpack; raises TypeError or ValueError for what msgpack cannot hold."""
    return msgpack.packb(value, use_bin_type=True)


class Message:
    """One message; fields as in ``docs/protocol.md``."""

    __slots__ = ("kind", "flags", "topic", "tag", "target", "errnum", "route", "uid", "payload")

    def __init__(
        self,
        kind: int,
        topic: str,
        payload: bytes | None = None,
        *,
        flags: int = 0,
        tag: int = 0,
        target: int = ANY,
        errnum: int = 0,
        route: list[int] | None = None,
        uid: int = -1,
    ) -> None:
        self.kind = kind
        self.flags = flags
        self.topic = topic
        self.tag = tag
        self.target = target
        self.errnum = errnum
        self.route: list[int] = [] if route is None else route
        self.uid = uid
        self.payload = payload

    @property
    def body(self) -> Any:
        """The payload, decoded (``None`` when there is none)."""
        return None if self.payload is None else unpack(self.payload, strict_map_key=False)

    @property
    def service(self) -> str:
        """The service a request asks: its topic up to the last dot."""
        return self.topic.rpartition(".")[0] or self.topic

    def answer(self, payload: Any = None) -> Message:
        """A response to this request that carries ``payload``."""
        return Message(
            RESPONSE,
            self.topic,
            None if payload is None else pack(payload),
            tag=self.tag,
            route=list(self.route),
            uid=self.uid,
        )

    def failure(self, errnum: int, text: str = "") -> Message:
        """A response to this request that reports an error."""
        return Message(
            RESPONSE,
            self.topic,
            pack(text) if text else None,
            tag=self.tag,
            errnum=errnum,
            route=list(self.route),
            uid=self.uid,
        )

    def __repr__(self) -> str:
        kind = {1: "request", 2: "response", 3: "event", 4: "control"}.get(self.kind, self.kind)
        return (
            f"<{kind} {self.topic!r} tag={self.tag} target={self.target} errnum={self.errnum} "
            f"route={self.route} {len(self.payload or b'')} bytes>"
        )
