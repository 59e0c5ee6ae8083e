"""The connection object, held to one contract on real sockets, under TLS, and on memory."""

from __future__ import annotations

import functools
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
import trustme

from nursling.transports.wire import Gone, SocketWire, Stalled, StreamWire, wire_of
from support.gateway import until


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


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("h.example").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def tls_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ours, theirs = await tcp_pair()
    for_server, for_client = contexts()
    server = trio.SSLStream(ours, for_server, server_side=True, https_compatible=True)
    client = trio.SSLStream(theirs, for_client, server_hostname="h.example", https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.do_handshake)
    return server, client


async def memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return trio.testing.lockstep_stream_pair()


each_pair = pytest.mark.parametrize("pair", [tcp_pair, tls_pair, memory_pair])


@each_pair
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
        nursery.start_soon(theirs.send_all, b"back")
        assert await wire.read_some() == b"back"
        await wire.finish()
    assert got == data
    await theirs.aclose()
    assert await wire.read_some() == b""
    await wire.close()


@each_pair
async def test_a_cancelled_read_loses_nothing(pair: Pair) -> None:
    """What comes after a read was cancelled is there for the next one."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.read_some)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, b"kept")
        assert await wire.read_some() == b"kept"
    await wire.close()
    await theirs.aclose()


@each_pair
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


@each_pair
async def test_a_client_that_is_gone(pair: Pair) -> None:
    """Writing to nobody is `Gone`; reading is the end; finishing and closing do not mind."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    await theirs.aclose()
    with pytest.raises(Gone):
        await wire.write_all(b"x" * 10_000_000, 1)
    await wire.finish()
    await wire.close()
    await wire.finish()
    with pytest.raises(Gone):
        await wire.read_some()
    assert wire.write_now(b"x") == 0
    with pytest.raises(Gone):
        await wire.write_all(b"x", 1)
    assert wire.acknowledged() is None


@each_pair
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


@each_pair
async def test_a_write_without_a_shield_is_cancelled(pair: Pair) -> None:
    """Whoever closes the connection when cancelled does not wait for its write."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    with trio.fail_after(5), trio.move_on_after(0.05) as scope:
        await wire.write_all(b"x" * 10_000_000, 60, shield=False)
    assert scope.cancelled_caught
    await wire.close()
    await trio.aclose_forcefully(theirs)


@pytest.mark.parametrize("pair", [tcp_pair, tls_pair])
async def test_a_reset_is_no_end(pair: Pair) -> None:
    """A connection that was cut is `Gone` to its reader: only a FIN is an end."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    below = theirs.transport_stream if isinstance(theirs, trio.SSLStream) else theirs
    assert isinstance(below, trio.SocketStream)
    below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    below.socket.close()
    with pytest.raises(Gone):
        await wire.read_some()
    await wire.close()


@pytest.mark.parametrize("pair", [tcp_pair, tls_pair])
async def test_news_are_seen_without_reading(pair: Pair) -> None:
    """Bytes and the end are told apart from silence, and neither is taken."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    await theirs.send_all(b"1")  # under TLS it takes the tickets of the handshake along
    assert await wire.read_some() == b"1"
    assert not wire.has_news()
    await theirs.send_all(b"2")
    await until(wire.has_news)
    assert await wire.read_some() == b"2"
    assert not wire.has_news()
    await theirs.aclose()
    await until(wire.has_news)
    assert await wire.read_some() == b""
    await wire.close()


@pytest.mark.parametrize("pair", [tcp_pair, tls_pair])
async def test_bytes_that_nobody_has_got_are_not_acknowledged(pair: Pair) -> None:
    """What reaches a system is confirmed by it; what comes behind its FIN is not."""
    ours, theirs = await pair()
    wire = wire_of(ours)
    begun = wire.acknowledged()
    if begun is None:
        return  # this system does not tell, and then nothing is ever sent twice
    await wire.write_all(b"x" * 10, 5)
    assert await theirs.receive_some() == b"x" * 10
    await theirs.send_all(b"y")
    assert await wire.read_some() == b"y"
    taken = wire.acknowledged()
    assert taken is not None
    assert taken > begun
    await theirs.aclose()
    await until(wire.has_news)
    await wire.write_all(b"x" * 10, 5)
    assert await wire.read_some() == b""
    assert wire.acknowledged() == taken
    await wire.close()


def test_memory_knows_neither() -> None:
    """Where one cannot know, the answers say so."""
    wire = wire_of(trio.testing.memory_stream_pair()[0])
    assert (wire.has_news(), wire.acknowledged()) == (False, None)


async def test_a_cancelled_write_is_whole() -> None:
    """A cancellation waits for the write: half a chunk would corrupt the connection."""
    ours, theirs = trio.testing.memory_stream_pair()
    wire = StreamWire(ours)
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.write_all(b"x" * 100_000, 5)
    await wire.close()
    assert len(await theirs.receive_some()) == 100_000
