"""A request's body as it is read: what it costs to hold (its clocks and sizes: test_app.py)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import trio

from nursling.engine.limits import Limits
from nursling.transports.http.body import read_body


SIZE = 40_000


class Crumbs:
    """A request whose body comes two bytes at a time, each pair in a chunk of its own."""

    scheme = "http"

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._pieces: Iterator[bytes] = (bytes(bytearray(b"ab")) for _ in range(SIZE // 2))

    async def read(self) -> bytes | None:
        """See `Incoming`."""
        await trio.lowlevel.checkpoint()
        return next(self._pieces, None)

    def watch(self) -> None:
        """See `Incoming`."""


async def test_crumbs_take_no_more_than_their_bytes() -> None:
    """A body of twenty thousand pieces needs the memory of its bytes, not of so many objects."""
    tracemalloc.start()
    try:
        body = await read_body(Crumbs(), Limits())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert body == b"ab" * (SIZE // 2)
    assert peak < 12 * SIZE
