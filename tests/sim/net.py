"""A network of memory: bounded pipes with latency, in virtual time.

The law of this file: an `End` keeps the contract of a Trio stream (a cancelled read loses nothing;
closing is immediate and breaks the other side's writes) and nothing else; all that goes *wrong* on
a network is in `faults.py`. Every I/O point takes a few extra checkpoints, drawn from the seed, so
that tasks meet in many orders.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field

import trio

from nursling.transports.wire import StreamWire


@dataclass
class Chance:
    """The seed's randomness, for everything that happens while a world runs."""

    random: random.Random

    async def jitter(self) -> None:
        """Take no, one or several turns of the scheduler."""
        for _ in range(self.random.choice((0, 0, 1, 2, 5))):
            await trio.lowlevel.checkpoint()


@dataclass
class Pipe:
    """Bytes in one direction."""

    chance: Chance
    capacity: int
    latency: float
    sent: int = 0
    """Bytes that the writer has handed over so far."""
    taken: int = 0
    """Bytes that the reader has taken so far."""
    longest_block: float = 0.0
    """The longest time that a writer has waited without any progress, seconds."""
    reader_closed: bool = False
    writer_closed: bool = False
    broken: bool = False
    left: bytes = b""
    """What had arrived, and was not read, when the reader closed."""
    _chunks: deque[tuple[float, bytes]] = field(default_factory=deque)
    """With the time at which they arrive."""
    _end: float = math.inf
    """When the end of the bytes arrives."""
    _news: trio.Event = field(default_factory=trio.Event)
    _room: trio.Event = field(default_factory=trio.Event)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        left = bytes(data)
        await trio.lowlevel.checkpoint()
        await self.chance.jitter()
        while left:
            if self.writer_closed:
                raise trio.ClosedResourceError
            if self.reader_closed or self.broken:
                raise trio.BrokenResourceError
            part = left[: max(0, self.capacity - (self.sent - self.taken))]
            if part:
                left = left[len(part) :]
                self.sent += len(part)
                self._chunks.append((trio.current_time() + self.latency, part))
                self._wake_reader()
            else:
                await self._wait_for_room()

    def write_now(self, data: bytes) -> int:
        """Write what fits, as a kernel does; now and then less, as it may."""
        if self.writer_closed or self.reader_closed or self.broken:
            return 0
        room = max(0, self.capacity - (self.sent - self.taken))
        if self.chance.random.random() < 0.1:
            room = min(room, self.chance.random.randrange(len(data) + 1))
        part = bytes(data[:room])
        if part:
            self.sent += len(part)
            self._chunks.append((trio.current_time() + self.latency, part))
            self._wake_reader()
        return len(part)

    async def _wait_for_room(self) -> None:
        since = trio.current_time()
        self._room = trio.Event()
        try:
            await self._room.wait()
        finally:
            self.longest_block = max(self.longest_block, trio.current_time() - since)

    async def read(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        await self.chance.jitter()
        while True:
            if self.reader_closed:
                raise trio.ClosedResourceError
            now = trio.current_time()
            if self._chunks and self._chunks[0][0] <= now:
                return self._take(size)
            if not self._chunks and self._end <= now:
                if self.broken:
                    raise trio.BrokenResourceError
                return b""
            arrival = self._chunks[0][0] if self._chunks else self._end
            self._news = trio.Event()
            with trio.move_on_at(arrival):
                await self._news.wait()

    def _take(self, size: int) -> bytes:
        """Take what has arrived, as one read of a socket does."""
        now, taken = trio.current_time(), bytearray()
        while self._chunks and self._chunks[0][0] <= now and len(taken) < size:
            arrival, data = self._chunks.popleft()
            room = size - len(taken)
            taken += data[:room]
            if len(data) > room:
                self._chunks.appendleft((arrival, data[room:]))
        self.taken += len(taken)
        self._room.set()
        return bytes(taken)

    def end(self) -> None:
        """No more will be written."""
        if not self.writer_closed:
            self.writer_closed = True
            self._end = trio.current_time() + self.latency
            self._wake()

    def reset(self) -> None:
        """The connection is gone: what is under way may still arrive, the end does not."""
        self.broken = True
        self.writer_closed = True
        self._end = min(self._end, trio.current_time() + self.latency)
        if self.chance.random.random() < 0.5:  # an RST may overtake what it follows
            self._chunks.clear()
        self._wake()

    def stop_reading(self) -> None:
        """The reader is gone for good."""
        if not self.reader_closed:
            self.left = self._arrived()
            self.reader_closed = True
        self._wake()

    @property
    def has_news(self) -> bool:
        """Whether something can be read at once."""
        return bool(self._arrived()) or self._end <= trio.current_time()

    @property
    def confirmed(self) -> int:
        """Bytes that the reader's system has got."""
        return self.taken + len(self.left if self.reader_closed else self._arrived())

    def _arrived(self) -> bytes:
        now = trio.current_time()
        return b"".join(data for arrival, data in self._chunks if arrival <= now)

    def _wake(self) -> None:
        self._wake_reader()
        self._room.set()

    def _wake_reader(self) -> None:
        self._news.set()


class End(trio.abc.HalfCloseableStream):
    """One end of a connection."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.closed_at: float | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.outgoing.write(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.outgoing.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.incoming.read(max_bytes or 65536)

    async def aclose(self) -> None:
        if self.closed_at is None:
            self.closed_at = trio.current_time()
            self.outgoing.end()
            self.incoming.stop_reading()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Cut the connection with an RST."""
        if self.closed_at is None:
            self.closed_at = trio.current_time()
            self.outgoing.reset()
            self.incoming.stop_reading()


class EndWire(StreamWire):
    """The connection object of an end: it knows what a kernel would know."""

    prompt = True

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self._end = end

    def write_now(self, data: bytes) -> int:
        return self._end.outgoing.write_now(data)

    def has_news(self) -> bool:
        return self._end.incoming.has_news

    def acknowledged(self) -> int:
        return self._end.outgoing.confirmed


def connection(chance: Chance, *, capacity: int, latency: float) -> tuple[End, End]:
    """Make the two ends of a connection. `capacity` bytes are under way at most, each way."""
    there, back = (Pipe(chance, capacity, latency) for _ in range(2))
    return End(back, there), End(there, back)


class Listener(trio.abc.Listener[End]):
    """Where a server waits for connections of this network."""

    def __init__(self) -> None:
        self._dialled, self._arriving = trio.open_memory_channel[End](100)

    def connect(self, end: End) -> None:
        """Hand the server its end of a new connection. Raises `OSError` if it is not listening."""
        try:
            self._dialled.send_nowait(end)
        except (trio.BrokenResourceError, trio.WouldBlock):
            raise ConnectionRefusedError from None

    async def accept(self) -> End:
        return await self._arriving.receive()

    async def aclose(self) -> None:
        self._arriving.close()
        await trio.lowlevel.checkpoint()
