from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.shell.wire import HEADER, Unpacker, pack

entries = st.lists(
    st.lists(st.one_of(st.text(), st.binary(), st.integers(), st.floats(allow_nan=False))),
    max_size=5,
)


@given(st.lists(entries, max_size=4), st.integers(1, 50))
def test_frames_survive_any_division(frames: list[list[list[object]]], step: int) -> None:
    stream = b"".join(pack(frame) for frame in frames)
    unpacker = Unpacker()
    found = []
    for start in range(0, len(stream), step):
        found += unpacker.feed(stream[start : start + step])
    assert found == [entry for frame in frames for entry in frame]


@pytest.mark.parametrize(
    "data", [b"\xff" * 8, HEADER.pack(3) + b"xyz", HEADER.pack(0), pack([])[:4] + b"N"]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    unpacker = Unpacker()
    with pytest.raises(ValueError, match="frame"):
        unpacker.feed(data + b"\0" * 8)
