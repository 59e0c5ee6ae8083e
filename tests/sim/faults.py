"""What goes wrong on a connection: one stream wrapper for each fault.

Each wraps any stream and spoils one thing; they stack. Times are seconds, places are bytes counted
from when the wrapper was put on. A refused connection has no stream: `world.py` refuses to dial.
"""

from __future__ import annotations

from abc import abstractmethod

import trio

from .net import Chance, End


GARBAGE = b"\x00\xff}{garbage\r\n\r\n"
"""Neither HTTP, nor JSON in any place: a NUL is legal in none of them."""


class Cut(Exception):
    """The fault has struck: this side has no more to say."""


class Wrapper(trio.abc.HalfCloseableStream):
    """A stream that leaves everything as it is."""

    def __init__(self, inner: trio.abc.HalfCloseableStream) -> None:
        self.inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.inner.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self.inner.aclose()


class Slicer(Wrapper):
    """Reads bring as little as it pleases."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, chance: Chance, most: int) -> None:
        super().__init__(inner)
        self._chance = chance
        self._most = most

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        size = self._chance.random.randint(1, self._most)
        return await super().receive_some(min(size, max_bytes or size))


class PartialWriter(Wrapper):
    """Writes go out in pieces, other tasks between them."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, chance: Chance, most: int) -> None:
        super().__init__(inner)
        self._chance = chance
        self._most = most

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        left = bytes(data)
        while left:
            size = self._chance.random.randint(1, self._most)
            await self.inner.send_all(left[:size])
            await self._chance.jitter()
            left = left[size:]


class SlowReader(Wrapper):
    """Takes little, and takes its time."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, *, size: int, pause: float) -> None:
        super().__init__(inner)
        self._size = size
        self._pause = pause

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep(self._pause)
        return await super().receive_some(min(self._size, max_bytes or self._size))


class Latency(Wrapper):
    """Every write is late."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, delay: float) -> None:
        super().__init__(inner)
        self._delay = delay

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(self._delay)
        await super().send_all(data)


class _After(Wrapper):
    """Something happens when so many bytes have been written."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, place: int) -> None:
        super().__init__(inner)
        self._left = place

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        text = bytes(data)
        if len(text) < self._left:
            self._left -= len(text)
            await self.inner.send_all(text)
            return
        await self.inner.send_all(text[: self._left])
        await self._strike(text[self._left :])

    @abstractmethod
    async def _strike(self, rest: bytes) -> None:
        """Do it. `rest`: what would have followed."""


class Fin(_After):
    """The connection ends in the middle: inside a body of known length, that is truncation."""

    async def _strike(self, rest: bytes) -> None:
        await self.inner.aclose()
        raise Cut


class Reset(_After):
    """The connection is cut with an RST."""

    def __init__(self, inner: End, place: int) -> None:
        super().__init__(inner, place)
        self._end = inner

    async def _strike(self, rest: bytes) -> None:
        self._end.reset()
        raise Cut


class Stall(_After):
    """Nothing more comes, and nothing ends, until the other side has closed."""

    async def _strike(self, rest: bytes) -> None:
        try:
            while await self.inner.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
        raise Cut


class Garbage(_After):
    """Bytes that mean nothing, in the middle of those that do."""

    async def _strike(self, rest: bytes) -> None:
        self._left = 1 << 60
        await self.inner.send_all(GARBAGE + rest)


class HalfClose(_After):
    """We say that we will write no more, and go on reading."""

    async def _strike(self, rest: bytes) -> None:
        self._left = 1 << 60
        await self.inner.send_eof()
