"""The invariant: any bytes, cut anywhere, are frames or `EventTooLarge`, the same for every cut.

A frame is within the budget, and its name is one line.
"""

from __future__ import annotations

import random
import zlib

from nursling.engine.errors import EventTooLarge
from nursling.engine.sse import Frame, SSEDecoder
from support.cuts import cut_at


BUDGET = 256
SEEDS = [
    b'event: a\ndata: {"a": 1}\n\n: beat\n\ndata: 1\ndata:2\n\nid: 7\nretry: 3\n\ndata: [DONE]\n\n',
    b"\xef\xbb\xbfdata: 1\r\n\r\ndata\r\rdata:\n\n\xef\xbb\xbfdata: \xf0\x9f\xe2\x80\xa8\n\n",
    b"data: " + b"x" * 245 + b"\n\ndata: 1\nevent: " + b"y" * 230 + b"\n\ndata: the last",
]


def check(data: bytes) -> None:
    """Hold the decoder to it."""
    rng = random.Random(zlib.crc32(data))
    whole = _outcome([data])
    cuts = [rng.randrange(len(data) + 1) for _ in range(8)]
    assert _outcome(cut_at(data, cuts)) == whole
    assert _outcome([data[at : at + 1] for at in range(len(data))]) == whole
    for name, text in whole[0]:
        assert len(name) + len(text) <= BUDGET
        assert not set(name) & set(b"\r\n")


def _outcome(chunks: list[bytes]) -> tuple[list[Frame], bool]:
    frames: list[Frame] = []
    decoder = SSEDecoder(BUDGET)
    try:
        for chunk in chunks:
            decoder.feed(chunk, frames)
        return frames + decoder.close(), False
    except EventTooLarge:
        return frames, True
