"""Reading a connection: what comes, how it ends, and that a read takes no more than its bytes."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from nursling.transports.reading import MOST, RECORD, receive_some


Pair = Callable[[], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]


async def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    client = trio.socket.socket()
    await client.connect(listener.getsockname())
    server, _ = await listener.accept()
    listener.close()
    return trio.SocketStream(server), trio.SocketStream(client)


async def memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return trio.testing.memory_stream_pair()


@pytest.mark.parametrize(("pair", "most"), [(socket_pair, MOST), (memory_pair, RECORD)])
async def test_all_of_it_in_order(pair: Pair, most: int) -> None:
    """Every byte comes once and in order, in bounded pieces, and the end is no byte, again too."""
    ours, theirs = await pair()
    data = bytes(range(251)) * 4000
    got: list[bytes] = []

    async def tell() -> None:
        await theirs.send_all(data)
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        while piece := await receive_some(ours):
            got.append(piece)
    assert b"".join(got) == data
    assert max(map(len, got)) <= most
    assert await receive_some(ours) == b""
    await ours.aclose()


async def test_connections_share_no_bytes() -> None:
    """Connections that are read at the same time keep what is theirs, also when read again."""
    pairs = [await socket_pair() for _ in range(8)]
    got: dict[int, list[bytes]] = {number: [] for number in range(8)}

    async def take(number: int) -> None:
        while piece := await receive_some(pairs[number][0]):
            got[number].append(piece)

    async with trio.open_nursery() as nursery:
        for number in got:
            nursery.start_soon(take, number)
        for length in (9, 5000, 3):
            for number, (_, theirs) in enumerate(pairs):
                await theirs.send_all(bytes([number]) * length)
            await trio.testing.wait_all_tasks_blocked()
        for _, theirs in pairs:
            await theirs.aclose()
    assert all(b"".join(got[number]) == bytes([number]) * 5012 for number in got)
    for ours, _ in pairs:
        await ours.aclose()


async def test_small_read_takes_small_room() -> None:
    """Ten bytes never take the room of the most that could have come: it would tear the heap."""
    ours, theirs = await socket_pair()
    await theirs.send_all(b"0123456789")
    assert await receive_some(ours) == b"0123456789"  # the room that all reads share is there now
    await theirs.send_all(b"0123456789")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert await receive_some(ours) == b"0123456789"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < RECORD
    await theirs.aclose()
    await ours.aclose()


async def test_cancelled_read_loses_nothing() -> None:
    """A read that is cancelled while it waits, or before, leaves the bytes to the next one."""
    ours, theirs = await socket_pair()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_some, ours)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await theirs.send_all(b"kept")
    with trio.CancelScope() as scope:
        scope.cancel()
        await receive_some(ours)
    assert scope.cancelled_caught
    assert await receive_some(ours) == b"kept"
    await theirs.aclose()
    await ours.aclose()


async def test_ends_that_are_not_clean() -> None:
    """A reset is `BrokenResourceError`; closing on our side, before or meanwhile, is `Closed…`."""
    ours, theirs = await socket_pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await receive_some(ours)
    await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await receive_some(ours)

    ours, theirs = await socket_pair()
    seen: list[type[Exception]] = []

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError) as caught:
            await receive_some(ours)
        seen.append(caught.type)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await receive_some(ours)
        await ours.aclose()
    assert seen == [trio.ClosedResourceError]
    await theirs.aclose()
