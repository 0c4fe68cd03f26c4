"""Typed bytes and window sizes in one stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_mpi.formats.ptystream import Decoder, escape, window_size

SIZES = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
# The bytes that mean something, more often than chance would have them.
TYPED = st.lists(st.sampled_from(b"\xff\xfa\xf0\x1fab"), min_size=1, max_size=12).map(bytes)


def read(stream: bytes, cuts: list[int]) -> list[bytes | tuple[int, int]]:
    decoder = Decoder()
    items: list[bytes | tuple[int, int]] = []
    places = sorted({0, *(cut % (len(stream) + 1) for cut in cuts), len(stream)})
    for start, end in pairwise(places):
        items += decoder.feed(stream[start:end])
    return joined(items)


def joined(items: list[bytes | tuple[int, int]]) -> list[bytes | tuple[int, int]]:
    """Neighbouring bytes in one piece."""
    found: list[bytes | tuple[int, int]] = []
    for item in items:
        if found and isinstance(item, bytes) and isinstance(found[-1], bytes):
            found[-1] += item
        else:
            found.append(item)
    return found


@given(st.lists(st.one_of(TYPED, SIZES), max_size=8), st.lists(st.integers(0, 1000), max_size=8))
def test_what_is_sent_arrives_however_it_is_cut(
    items: list[bytes | tuple[int, int]], cuts: list[int]
) -> None:
    stream = b"".join(
        escape(item) if isinstance(item, bytes) else window_size(*item) for item in items
    )
    assert read(stream, cuts) == joined(items)


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=8))
def test_any_bytes_are_read_and_cuts_change_nothing(stream: bytes, cuts: list[int]) -> None:
    assert read(stream, cuts) == joined(Decoder().feed(stream))


def test_the_window_size_is_that_of_rfc_1073() -> None:
    # The example of the RFC: 80 columns and 24 rows.
    assert window_size(80, 24) == bytes([255, 250, 31, 0, 80, 0, 24, 255, 240])
    assert window_size(255, 70_000) == bytes(
        [255, 250, 31, 0, 255, 255, 255, 255, 255, 255, 255, 240]
    )


@pytest.mark.parametrize(
    "command",
    [
        b"\xff\xf1",  # NOP
        b"\xff\xfb\x1f",  # WILL NAWS
        b"\xff\xfa\x18\x00xterm\xff\xf0",  # terminal type
        b"\xff\xfa\x1f\x00\x50\xff\xf0",  # a size cut short
        b"\xff\xfa\x1f\x00\x50\x00\x18\x00\xff\xf0",  # a size too long
        b"\xff\xfa" + b"x" * 63,  # longer than any of ours
    ],
)
def test_other_commands_are_dropped(command: bytes) -> None:
    assert joined(Decoder().feed(b"a" + command + b"b")) == [b"ab"]
