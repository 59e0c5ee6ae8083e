"""The guarded server's clocks, exactly: a connection over memory streams, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypercorn.events import RawData
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from trio.testing import MockClock

from nursling.engine.events import Ended, Finished
from nursling.engine.limits import Limits
from nursling.transports.http.server import Connection, Server
from nursling.transports.wire import wire_of
from support.gateway import World, connected, post, read_to_end, read_until
from support.toy import HELLO, Script, line, opening, words


GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT = {"model": "m", "stream": True}


@pytest.mark.fault(20, "S")
async def test_head_timeout(autojump_clock: MockClock) -> None:
    """Five seconds for a head, drips or not."""
    async with connected(World()) as client:
        for byte in GET[:4]:
            await client.send_all(bytes([byte]))
            await trio.sleep(1.2)
        assert await read_to_end(client) == b""
        assert trio.current_time() == pytest.approx(5)


async def test_idle_timeout_begins_anew_with_each_request(autojump_clock: MockClock) -> None:
    """A kept connection has five seconds after each answer."""
    async with connected(World()) as client:
        for _ in range(3):
            await trio.sleep(4)
            await client.send_all(GET)
            await read_until(client, b"ok\n")
        assert await read_to_end(client, 10) == b""
        assert trio.current_time() == pytest.approx(17)


async def test_no_clock_while_a_request_is_at_work(autojump_clock: MockClock) -> None:
    """A client that is silent while we stream is not cut (hypercorn#103)."""
    world = World(m=Script(HELLO, before=[100.0]))
    async with connected(world) as client:
        await client.send_all(post(CHAT))
        assert b"Ended" in await read_until(client, b"0\r\n\r\n", 200)
        assert trio.current_time() == pytest.approx(100)


@pytest.mark.fault(17, "S")
async def test_write_timeout(autojump_clock: MockClock) -> None:
    """A client that takes nothing is cut after 30 s, and its upstream let go."""
    script = Script(line(*opening(), *words("x")), 3600.0)
    world = World(m=script)
    async with connected(world, size=0) as client:
        await client.send_all(post(CHAT))
        await trio.sleep(29.9)
        assert script.open_now == 1
        await trio.sleep(0.2)
        assert script.open_now == 0
        assert world.records[0].outcome == "client_gone"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_short_answer_is_one_write(stream: bool, autojump_clock: MockClock) -> None:
    """The head and the first piece of the body leave together."""
    async with connected(World(), size=0) as client:
        await client.send_all(post({"model": "m", "stream": stream}))
        piece = await client.receive_some(100_000)
        assert piece.startswith(b"HTTP/1.1 200 OK\r\n")
        assert (b"Ended" if stream else b"hello") in piece
        if stream:
            await read_until(client, b"0\r\n\r\n")


async def test_a_client_that_is_stuck_at_the_formal_end(autojump_clock: MockClock) -> None:
    """Also the last chunk must be taken for a reply to be `ok`."""
    world = World()
    async with connected(world, size=0) as client:
        await client.send_all(post(CHAT))
        got = b""
        while b"Ended" not in got:
            got += await client.receive_some(100_000)
        await trio.sleep(31)
        assert not got.endswith(b"0\r\n\r\n")
        assert world.records[0].outcome == "client_gone"


@pytest.mark.fault(17, "S")
async def test_write_progress(autojump_clock: MockClock) -> None:
    """A client that takes a slice every 20 s gets the whole, however long it takes."""
    reply = line(*opening(), *words("x" * 100_000), Finished(0, "stop"), Ended())
    async with connected(World(m=Script(reply)), size=0) as client:
        await client.send_all(post(CHAT))
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            await trio.sleep(20)
            piece = await client.receive_some(20_000)
            assert piece
            got += piece
    assert len(got) > 100_000
    assert trio.current_time() > 100


async def test_an_app_that_leaves_its_inbox_full(autojump_clock: MockClock) -> None:
    """An app that ends without reading does not hold its connection: it is closed."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await trio.sleep(1)  # the inbox fills
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"early", "more_body": False})

    server = Server(app, Limits(), tls=False)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, ours)
        await theirs.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n")
        for _ in range(40):
            await theirs.send_all(b"x")
            await trio.testing.wait_all_tasks_blocked()
        answer = await read_to_end(theirs, 20)
        assert b"early" in answer
        assert b"connection: close" in answer.lower()
    assert not server.connections


async def test_an_app_that_answers_while_cancelled(autojump_clock: MockClock) -> None:
    """An answer given inside a cancelled scope is whole, and its connection is used again."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"late", "more_body": False})

    server = Server(app, Limits(), tls=False)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, ours)
        for _ in range(2):
            await theirs.send_all(GET)
            assert b"late" in await read_until(theirs, b"0\r\n\r\n")
        assert await read_to_end(theirs, 10) == b""
        assert trio.current_time() == pytest.approx(5)
    assert not server.connections


async def test_an_app_that_does_not_end(autojump_clock: MockClock) -> None:
    """An app that ignores the disconnect is cancelled a second later."""
    cancelled_at = None

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        nonlocal cancelled_at
        try:
            await trio.sleep_forever()
        finally:
            cancelled_at = trio.current_time()

    server = Server(app, Limits(), tls=False)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, ours)
        await theirs.send_all(GET)
        await trio.sleep(10)
        await theirs.aclose()
    assert cancelled_at == pytest.approx(11)


async def test_lingering_is_bounded(autojump_clock: MockClock) -> None:
    """After our last word the client has a while to close; sending for ever does not extend it."""
    world = World(Limits(max_body_bytes=10))
    async with connected(world) as client:
        await client.send_all(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\n"
                              b"Content-Length: 999999\r\n\r\n")  # fmt: skip
        await read_until(client, b"request_too_large")

        async def send_for_ever() -> None:
            while True:
                await client.send_all(b"x" * 100)
                await trio.sleep(0.5)

        with pytest.raises(trio.BrokenResourceError):
            await send_for_ever()
        assert 5 <= trio.current_time() <= 6.5


async def test_writers_take_turns(autojump_clock: MockClock) -> None:
    """Two tasks that write at once do not mix their bytes."""
    server = Server(World().app, Limits(), tls=False)
    ours, theirs = trio.testing.lockstep_stream_pair()
    connection = Connection(server, wire_of(ours))
    async with trio.open_nursery() as nursery:
        for letter in b"ab":
            nursery.start_soon(connection.send, RawData(bytes([letter]) * 40_000))
        got = b""
        while len(got) < 80_000:
            got += await theirs.receive_some(5000)
    assert got in {b"a" * 40_000 + b"b" * 40_000, b"b" * 40_000 + b"a" * 40_000}


async def test_turning_away_is_bounded(autojump_clock: MockClock) -> None:
    """Beyond the cap a few may wait for their 503 to be read; the rest are closed at once."""
    world = World(Limits(max_connections=0))
    server = Server(world.app, world.limits, tls=False)
    async with trio.open_nursery() as nursery:
        kept = [trio.testing.memory_stream_pair() for _ in range(Limits().max_refused)]
        for ours, _ in kept:
            nursery.start_soon(server.handle, ours)
        await trio.testing.wait_all_tasks_blocked()
        ours, _ = trio.testing.memory_stream_pair()
        await server.handle(ours)
        assert trio.current_time() == 0
    assert trio.current_time() == pytest.approx(1)


@pytest.mark.fault(40, "S")
async def test_a_draining_connection_is_closed_behind_its_answer(autojump_clock: MockClock) -> None:
    """While draining every answer is the last of its connection, and idle ones close at once."""
    world = World(m=Script(HELLO, before=[10.0]))
    server = Server(world.app, world.limits, tls=False)
    async with connected(world, server) as client:
        await client.send_all(post({"model": "m"}))
        await trio.sleep(1)
        server.drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.rested)
            answer = await read_to_end(client, 20)
        assert b"connection: close" in answer.lower()
        assert b"hello" in answer
    assert trio.current_time() == pytest.approx(10)


@pytest.mark.parametrize("apart", [False, True])
async def test_bytes_behind_the_last_request(apart: bool, autojump_clock: MockClock) -> None:
    """What follows a request that says `Connection: close` costs it nothing (hypercorn#203)."""
    world = World(m=Script(HELLO, before=[1.0]))
    async with connected(world) as client:
        request = post(CHAT, head=b"Connection: close\r\n")
        await client.send_all(request if apart else request + b"\r\nGET / HT")
        for _ in range(100 if apart else 0):
            await client.send_all(b"x" * 1000)
            await trio.testing.wait_all_tasks_blocked()
        answer = await read_to_end(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"0\r\n\r\n")
    assert world.records[0].outcome == "ok"


async def test_who_has_just_connected_is_heard_in_a_drain(autojump_clock: MockClock) -> None:
    """A request under way when the drain begins is answered; a connection that idles is closed."""
    world = World()
    server = Server(world.app, world.limits, tls=False)
    pairs = [trio.testing.memory_stream_pair() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for ours, _ in pairs:
            nursery.start_soon(server.handle, ours)
        used, fresh, silent = (theirs for _, theirs in pairs)
        await used.send_all(GET)
        await read_until(used, b"ok\n")
        server.drain()
        assert await read_to_end(used) == b""
        assert trio.current_time() == 0
        await fresh.send_all(GET)
        answer = await read_to_end(fresh)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert await read_to_end(silent) == b""
        assert trio.current_time() == pytest.approx(5)
    assert not server.connections
