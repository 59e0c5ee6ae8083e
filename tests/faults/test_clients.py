"""Faults of clients, byte by byte on a memory stream, in virtual time.

Whatever a client does, it holds nothing for longer than a clock allows, and nobody else notices.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from nursling.engine.events import Ended, Finished
from nursling.engine.limits import Limits
from nursling.transports.http.server import Server
from support.gateway import Served, World, connected, post, read_to_end, read_until, serving
from support.toy import Script, Step, line, opening, words


CHAT = {"model": "m", "stream": True}
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
BEGUN = line(*opening(), *words("x"))
FOREVER = 3600.0
HANDSHAKE = (
    b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)


# Clients that leave.


@pytest.mark.fault(19, "S")
@pytest.mark.parametrize(
    ("steps", "heartbeat", "freed"),
    [
        ([BEGUN, 20.0, line(*words("y")), FOREVER], 0, 20),  # at the next write
        ([BEGUN, FOREVER], 15, 15),  # at the next beat, which is a write
        ([BEGUN, FOREVER], 0, 120),  # without any write, at the idle clock
        ([FOREVER], 0, 120),
    ],
)
async def test_junk_behind_a_request(
    steps: list[Step], heartbeat: float, freed: float, autojump_clock: MockClock
) -> None:
    """Unread junk hides that its client has left; the next write or the idle clock tells."""
    script = Script(*steps)
    world = World(Limits(heartbeat=heartbeat), m=script)
    server = Server(world.app, world.limits, tls=False)
    async with connected(world, server) as client:
        await client.send_all(post(CHAT) + b"\x00junk GET /livez")
        await trio.sleep(1)
        assert script.open_now == 1
        await client.aclose()
        await trio.sleep(freed)
        assert script.closed_at == pytest.approx(freed, abs=0.1)
        assert not server.connections
        assert len(script.asked) == 1
        assert len(world.records) == 1


@pytest.mark.fault(17, "S")
async def test_a_client_that_stops_reading(autojump_clock: MockClock) -> None:
    """Its upstream is read a few batches far and no further; at 30 s both are let go."""
    script = Script(BEGUN, *[line(*words("y" * 50_000))] * 1000)
    world = World(m=script)
    async with connected(world, size=0) as client:
        await client.send_all(post(CHAT))
        await client.receive_some(100)
        began = trio.current_time()
        await trio.sleep(29)
        assert script.reads < 20
        assert script.open_now == 1
        await trio.sleep(2)
        assert script.open_now == 0
        assert script.closed_at == pytest.approx(began + 30, abs=1)
    assert world.records[0].outcome == "client_gone"


# Slow clients.


@pytest.mark.fault(20, "S")
async def test_a_crowd_of_slow_clients(autojump_clock: MockClock) -> None:
    """50 clients that drip heads and bodies are sent away in time; a good one is served at once.

    A head has 5 s whatever drips in, a body 30 s and what its few bytes are worth.
    """
    world = World()
    server = Server(world.app, world.limits, tls=False)
    ends: dict[str, list[float]] = {"head": [], "body": []}

    async def drip(kind: str, start: bytes, data: bytes, pause: float, answer: bytes) -> None:
        ours, client = trio.testing.memory_stream_pair()
        beside.start_soon(server.handle, ours)
        try:
            await client.send_all(start)
            for byte in data:
                await client.send_all(bytes([byte]))
                await trio.sleep(pause)
        except trio.BrokenResourceError:
            pass
        assert (await read_to_end(client, 100)).startswith(answer)
        ends[kind].append(trio.current_time())
        await client.aclose()

    head = post(CHAT).partition(b"\r\n\r\n")[0].replace(b"Length: ", b"Length: 9")
    dripping = head + b"\r\n\r\n"
    async with trio.open_nursery() as beside, trio.open_nursery() as slow:
        for _ in range(25):
            slow.start_soon(drip, "head", b"", GET, 1.0, b"")
            slow.start_soon(drip, "body", dripping, b" " * 60, 1.0, b"HTTP/1.1 408 ")
        for _ in range(40):
            await trio.sleep(2)
            began = trio.current_time()
            ours, good = trio.testing.memory_stream_pair()
            beside.start_soon(server.handle, ours)
            await good.send_all(GET)
            await read_until(good, b"ok\n")
            assert trio.current_time() == began
            await good.aclose()
    assert all(end <= 6 for end in ends["head"])
    assert all(30 <= end <= 40 for end in ends["body"])
    assert len(ends["head"]) == len(ends["body"]) == 25
    world.assert_clean()


# Bodies.


def asking(head: bytes, body: bytes = b"") -> bytes:
    return b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n" + body


def trickle(count: int) -> bytes:
    return b"1\r\nx\r\n" * count


GOOD = b'd\r\n{"model":"m"}\r\n0\r\n\r\n'
"""A body in chunks that would be served, were it not for its head."""

BODIES = {
    "good": (asking(b"Transfer-Encoding: chunked\r\nConnection: close\r\n", GOOD), 200),
    "declared over the limit": (asking(b"Content-Length: 101\r\n"), 413),
    "declared far over the limit": (asking(b"Content-Length: 99999999999999999999\r\n"), 413),
    "over the limit in chunks": (
        asking(b"Transfer-Encoding: chunked\r\n", b"65\r\n" + b"x" * 101 + b"\r\n"), 413),
    "over the limit in a trickle": (asking(b"Transfer-Encoding: chunked\r\n", trickle(101)), 413),
    "both lengths": (
        asking(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", GOOD), 400),
    "both lengths, the other way": (
        asking(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", GOOD), 400),
    "two lengths": (asking(b"Content-Length: 2\r\nContent-Length: 20\r\n", b"{}"), 400),
    "a length that is none": (asking(b"Content-Length: 2x\r\n", b"{}"), 400),
    "a length under zero": (asking(b"Content-Length: -2\r\n", b"{}"), 400),
    "a chunk without a size": (asking(b"Transfer-Encoding: chunked\r\n", b"{}\r\n0\r\n\r\n"), 400),
    "shorter than it says": (asking(b"Content-Length: 50\r\n", b'{"model": "m"}'), 408),
    "longer than it says": (asking(b"Content-Length: 5\r\n", b'{"model": "m"}'), 400),
}  # fmt: skip


@pytest.mark.fault(35, "S")
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", BODIES)
async def test_a_false_body(name: str, cut: bool, autojump_clock: MockClock) -> None:
    """A body that is too large or not what its head says is refused, unparsed, and the last."""
    data, status = BODIES[name]
    script = Script(line(*opening(), *words("x"), Finished(0, "stop"), Ended()))
    world = World(Limits(max_body_bytes=100), m=script)
    async with connected(world) as client:
        try:
            for piece in [data[at : at + 1] for at in range(len(data))] if cut else [data]:
                await client.send_all(piece)
                await trio.testing.wait_all_tasks_blocked()
        except trio.BrokenResourceError:
            pass  # closed before we had said all
        answer = await read_to_end(client, 100)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert trio.current_time() <= 40
    assert len(script.asked) == (status == 200)


# Too many.


@pytest.mark.fault(21, "S")
async def test_a_crowd_of_connections(autojump_clock: MockClock) -> None:
    """Of 200 at once those within the cap are served, and no more are ever held.

    The others are turned away: with a 503 where the kernel takes it at once, as a real socket does.
    """
    world = World(Limits(max_connections=40, max_refused=10))
    server = Server(world.app, world.limits, tls=False)
    answers: list[bytes] = []

    async def knock() -> None:
        ours, client = trio.testing.memory_stream_pair()
        beside.start_soon(handle, ours)
        try:
            await client.send_all(GET)
            answer = await client.receive_some(4096)
        except trio.BrokenResourceError:
            answer = b""
        answers.append(bytes(answer))
        assert trio.current_time() == 0
        await trio.sleep(1)
        assert len(server.connections) == 40
        await client.aclose()

    async def handle(ours: trio.abc.Stream) -> None:
        async with ours:  # as `serve_listeners` does
            await server.handle(ours)

    async with trio.open_nursery() as beside, trio.open_nursery() as clients:
        for _ in range(200):
            clients.start_soon(knock)
    statuses = [answer[9:12] for answer in answers]
    assert (statuses.count(b"200"), statuses.count(b"")) == (40, 160)
    assert not server.connections


@pytest.mark.slow
@pytest.mark.fault(21, "R")
async def test_a_storm_of_connections() -> None:
    """Real sockets: the cap holds, 503 comes fast, and whoever comes after the storm is served."""
    limits = Limits(max_connections=40, max_refused=20)
    world = World(limits)
    answers: list[bytes] = []

    async def knock(served: Served) -> None:
        async with await served.connect() as client:
            began = trio.current_time()
            try:
                await client.send_all(GET)
                answer = await client.receive_some(4096)
            except trio.BrokenResourceError:
                answer = b""
            answers.append(bytes(answer))
            assert trio.current_time() - began < 5
            await everybody.wait()

    async with serving(world.app, limits) as served:
        everybody = trio.Event()
        async with trio.open_nursery() as clients:
            for _ in range(300):
                clients.start_soon(knock, served)
            with trio.fail_after(30):
                while len(answers) < 300:  # noqa: ASYNC110 - what is awaited has no event
                    await trio.sleep(0.01)
            everybody.set()
        statuses = [answer[9:12] for answer in answers]
        assert statuses.count(b"200") == 40
        assert statuses.count(b"503") >= 20
        await trio.sleep(0.1)
        assert await served.ok()


# WebSockets.


@pytest.mark.fault(57, "R")
async def test_deflate_is_not_negotiated() -> None:
    """A handshake that offers compression gets a plain 426 and no extension."""
    world = World()
    async with serving(world.app, Limits()) as served:
        answer = await served.raw(HANDSHAKE)
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"sec-websocket" not in answer.lower()
    assert b"deflate" not in answer
