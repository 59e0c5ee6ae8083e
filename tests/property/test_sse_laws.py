"""The law: any bytes, cut anywhere, mean what the WHATWG standard says they mean.

`by_the_standard` is §9.2.6 of HTML read naively: all bytes at once, line by line. Our decoder has
to find the same frames, whatever the bytes and the cuts; and its budget must not see the cuts.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nursling.engine.errors import EventTooLarge
from nursling.engine.sse import BOM, Frame, SSEDecoder
from support.cuts import CUTS, cut_at


PIECES = st.sampled_from(
    [
        *(b"data", b"data:", b"data: 1", b"event", b"event: e", b"id: 7", b"retry", b"foo:"),
        *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b":", b" ", b"x", b"\x00"),
        *(BOM, BOM[:1], BOM[1:], b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b"\xff"),
    ]
)
STREAMS = st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60)


def by_the_standard(stream: bytes) -> list[Frame]:
    """The events of a stream that breaks off: an event whose blank line is missing is none."""
    found: list[Frame] = []
    name, data = b"", b""
    *lines, _ = re.split(rb"\r\n|\n|\r", stream.removeprefix(BOM))
    for line in lines:
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            if data:
                found.append((name, data[:-1]))
            name, data = b"", b""
        elif field == b"event":
            name = value
        elif field == b"data":
            data += value + b"\n"
    return found


@pytest.mark.fault(22, "V")
@settings(max_examples=1000)
@given(STREAMS, CUTS)
@example(BOM + BOM + b"data: 1\n\n", [1])
@example(b"data: 1\r\n\r\ndata\r\rdata:\n\n", [8, 9])
@example(b"data: 1\ndata: 2\n\ndata: 3\n\n", [])
def test_any_bytes_cut_anywhere_are_what_the_standard_says(stream: bytes, cuts: list[int]) -> None:
    """Frames before the end, and what `close` hands over as if its blank line had come."""
    decoder = SSEDecoder(1 << 20)
    frames: list[Frame] = []
    for chunk in cut_at(stream, cuts):
        decoder.feed(chunk, frames)
    assert frames == by_the_standard(stream)
    frames += decoder.close()
    assert frames == by_the_standard(stream + b"\n\n")


@pytest.mark.fault(25, "V")
@settings(max_examples=500)
@given(STREAMS, CUTS, st.integers(1, 40))
def test_the_budget_sees_no_cuts(stream: bytes, cuts: list[int], budget: int) -> None:
    """Whether an event is too large, and which frames came before it, is the bytes' affair."""

    def outcome(chunks: list[bytes]) -> tuple[list[Frame], bool]:
        frames: list[Frame] = []
        decoder = SSEDecoder(budget)
        try:
            for chunk in chunks:
                decoder.feed(chunk, frames)
            return frames + decoder.close(), False
        except EventTooLarge:
            return frames, True

    assert outcome(cut_at(stream, cuts)) == outcome([stream])
