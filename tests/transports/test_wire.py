"""A connection's writes: whole, or ended by a client that takes nothing; on sockets and memory."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from nursling.transports.http.wire import Gone, SocketWire, Stalled, StreamWire, wire_of


Pair = Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    client = trio.socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    await client.connect(listener.getsockname())
    server, _ = await listener.accept()
    listener.close()
    return trio.SocketStream(server), trio.SocketStream(client)


async def memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return trio.testing.lockstep_stream_pair()


@pytest.mark.parametrize("pair", [tcp_pair, memory_pair])
async def test_write_and_read_whole(pair: Pair) -> None:
    """What is written arrives whole, in order, in both ways of writing; `finish` is an end."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    data = bytes(range(256)) * 4000
    got = bytearray()

    async def take() -> None:
        async for piece in theirs:
            got.extend(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        rest = data[wire.write_now(data) :]
        await wire.write_all(rest, 5)
        await wire.finish()
    assert got == data
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, b"back")
        assert await wire.read_some() == b"back"
    await theirs.aclose()
    assert await wire.read_some() == b""
    await wire.close()


@pytest.mark.parametrize("pair", [tcp_pair, memory_pair])
async def test_a_client_that_takes_nothing_is_stalled(pair: Pair) -> None:
    """After `patience` without progress the write is given up."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    started = trio.current_time()
    with pytest.raises(Stalled):
        await wire.write_all(b"x" * 10_000_000, 0.1)
    assert 0.1 <= trio.current_time() - started < 1
    await wire.close()
    await theirs.aclose()


async def test_patience_begins_with_the_last_byte_taken() -> None:
    """A client that stops reading is given up one `patience` later, not nearly two."""
    ours, theirs = await tcp_pair()
    wire = SocketWire(ours)
    stopped = 0.0

    async def read_a_little() -> None:
        nonlocal stopped
        while trio.current_time() - started < 0.2:
            await theirs.receive_some(2000)
            await trio.sleep(0.02)
        stopped = trio.current_time()

    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        nursery.start_soon(read_a_little)
        with pytest.raises(Stalled):
            await wire.write_all(b"x" * 10_000_000, 1)
        assert 0.7 < trio.current_time() - stopped < 1.5
    await wire.close()
    await theirs.aclose()


async def test_a_slow_client_is_not_stalled() -> None:
    """Bytes that leave the kernel's queue count, though the socket is long not yet writable."""
    ours, theirs = await tcp_pair()
    # A third of this buffer must be free for `writable`: 0.2 s at this client's speed.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    ours.setsockopt(socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, 2**31 - 1)
    wire = SocketWire(ours)
    size, got = 4_000_000, 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.write_all, b"x" * size, 0.1)
        while got < size:
            got += len(await theirs.receive_some(15_000))
            await trio.sleep(0.003)
    await wire.close()
    await theirs.aclose()


@pytest.mark.parametrize("pair", [tcp_pair, memory_pair])
async def test_a_client_that_is_gone(pair: Pair) -> None:
    """Writing to nobody is `Gone`; reading is the end; finishing and closing do not mind."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    await theirs.aclose()
    with pytest.raises(Gone):
        await wire.write_all(b"x" * 10_000_000, 1)
    assert await wire.read_some() == b""
    await wire.finish()
    await wire.close()
    await wire.finish()
    assert await wire.read_some() == b""
    with pytest.raises(Gone):
        await wire.write_all(b"x", 1)


@pytest.mark.parametrize("pair", [tcp_pair, memory_pair])
async def test_closing_wakes_the_writer(pair: Pair) -> None:
    """Closed by another task, a stuck write ends at once, though it is shielded."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    ended = trio.Event()

    async def write() -> None:
        with pytest.raises(Gone):
            await wire.write_all(b"x" * 10_000_000, 60)
        ended.set()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(0.05)
            await wire.close()
            await ended.wait()
    await theirs.aclose()


async def test_a_cancelled_write_is_whole() -> None:
    """A cancellation waits for the write: half a chunk would corrupt the connection."""
    ours, theirs = trio.testing.memory_stream_pair()
    wire = StreamWire(ours)
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.write_all(b"x" * 100_000, 5)
    await wire.close()
    assert len(await theirs.receive_some()) == 100_000
