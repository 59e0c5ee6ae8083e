"""Our own transport: when a request is sent once more, and what HTTP/1.1 brings besides."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trustme

from nursling.engine.errors import ConnectTimeout, NurslingError, RemoteProtocolError, Truncated
from nursling.engine.limits import Limits
from nursling.transports import wire
from nursling.transports.upstream.client import Endpoint, HttpClient, HttpUpstream
from nursling.transports.upstream.direct import may_repeat
from nursling.transports.upstream.pool import Origin, dialer
from nursling.transports.wire import Wire, wire_of
from support.fake_upstream import (
    Chunk,
    Close,
    Send,
    Stall,
    Step,
    fake_upstream,
    head,
    stream,
    whole,
)


BODY = {"model": "m"}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def upstream_at(client: HttpClient, base_url: str, **limits: Any) -> HttpUpstream:
    return client.upstream(Endpoint(provider="p", base_url=base_url, limits=Limits(**limits)))


async def ask(upstream: HttpUpstream, body: dict[str, Any] = BODY) -> tuple[int, bytes]:
    async with upstream.open(body, path="/x", stream=True) as source:
        data = b""
        while piece := await source.read_some():
            data += piece
        return source.status, data


@pytest.mark.parametrize(
    ("method", "kept", "heard", "sent", "confirmed", "may"),
    [
        # Safe: nobody has got the request.
        ("POST", True, False, True, 0, True),
        ("POST", True, False, False, 0, True),
        ("POST", True, False, False, 100, True),  # of a part of it
        ("POST", True, False, False, None, True),
        # Nobody can know what was done with it.
        ("POST", True, False, True, 1, False),
        ("POST", True, False, True, 333, False),
        ("POST", True, False, True, None, False),
        # Somebody has begun to answer.
        ("POST", True, True, True, 0, False),
        ("GET", True, True, True, 0, False),
        # What only reads may be read again.
        ("GET", True, False, True, 333, True),
        ("GET", True, False, True, None, True),
        # A fresh connection would break as this one did.
        ("POST", False, False, False, 0, False),
        ("POST", False, False, True, None, False),
        ("GET", False, False, True, None, False),
    ],
)
def test_the_rule(  # noqa: PLR0917 - a table's columns
    method: str, kept: bool, heard: bool, sent: bool, confirmed: int | None, may: bool
) -> None:
    """A request is sent once more only if nothing can have been done with it."""
    assert may_repeat(method, kept=kept, heard=heard, sent=sent, confirmed=confirmed) is may


Serve = Callable[[trio.SocketStream], Awaitable[None]]


class Crossing:
    """An upstream whose first connections play one script each; later ones answer everything."""

    def __init__(self, *first: Serve) -> None:
        self.first = list(first)
        self.connections = 0
        self.requests = 0
        """Answered, or read whole."""
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, connection: trio.SocketStream) -> None:
        self.connections += 1
        try:
            if self.first:
                await self.first.pop(0)(connection)
            while await self.answer(connection):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        connection.socket.close()

    async def request(self, connection: trio.SocketStream) -> bool:
        data = b""
        while b"\r\n\r\n" not in data or (not data.endswith(b"}") and b"GET" not in data):
            more = await connection.receive_some()
            if not more:
                return False
            data += more
        self.requests += 1
        return True

    async def answer(self, connection: trio.SocketStream) -> bool:
        if not await self.request(connection):
            return False
        await connection.send_all(ANSWER)
        return True


def crossing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no end of a connection be seen before the request is on its way: it is crossing."""
    monkeypatch.setattr(wire, "_has_news", lambda _: False)


async def serving(
    upstream: Crossing, use: Callable[[HttpClient], Awaitable[None]], **limits: Any
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    upstream.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery, HttpClient(limits=Limits(**limits)) as client:
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        with trio.fail_after(5):
            await use(client)
        nursery.cancel_scope.cancel()


def linger(connection: trio.SocketStream) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("size", [10, 10_000_000])
async def test_a_request_that_crosses_with_the_end(
    reset: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept connection that was closed meanwhile costs nothing: the next one answers."""
    crossing(monkeypatch)
    closed = trio.Event()

    async def once(connection: trio.SocketStream) -> None:
        await upstream.answer(connection)
        if reset:
            linger(connection)
        connection.socket.close()
        closed.set()
        raise trio.ClosedResourceError

    upstream = Crossing(once)

    async def use(client: HttpClient) -> None:
        asker = upstream_at(client, upstream.base_url)
        assert await ask(asker) == (200, b"{}")
        await closed.wait()
        assert await ask(asker, {"text": "x" * size}) == (200, b"{}")
        assert (upstream.connections, upstream.requests) == (2, 2)
        assert asker._limiter.borrowed_tokens == 0

    await serving(upstream, use)


async def test_a_request_that_was_read_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that reads a request and closes may have done its work: the client decides."""
    crossing(monkeypatch)

    async def reads(connection: trio.SocketStream) -> None:
        await upstream.answer(connection)
        await upstream.request(connection)
        connection.socket.close()
        raise trio.ClosedResourceError

    upstream = Crossing(reads)

    async def use(client: HttpClient) -> None:
        asker = upstream_at(client, upstream.base_url)
        await ask(asker)
        with pytest.raises(Truncated, match="before it answered"):
            await ask(asker)
        assert (upstream.connections, upstream.requests) == (1, 2)

    await serving(upstream, use)


async def test_a_part_of_an_answer_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte of an answer, and the request has been heard."""
    crossing(monkeypatch)

    async def begins(connection: trio.SocketStream) -> None:
        await upstream.answer(connection)
        await upstream.request(connection)
        await connection.send_all(b"H")
        connection.socket.close()
        raise trio.ClosedResourceError

    upstream = Crossing(begins)

    async def use(client: HttpClient) -> None:
        asker = upstream_at(client, upstream.base_url)
        await ask(asker)
        with pytest.raises(Truncated, match="before it answered"):
            await ask(asker)
        assert upstream.connections == 1

    await serving(upstream, use)


async def test_what_only_reads_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of models is asked for once more, whatever became of the first time."""
    crossing(monkeypatch)

    async def reads(connection: trio.SocketStream) -> None:
        await upstream.answer(connection)
        await upstream.request(connection)
        connection.socket.close()
        raise trio.ClosedResourceError

    upstream = Crossing(reads)

    async def use(client: HttpClient) -> None:
        asker = upstream_at(client, upstream.base_url)
        await ask(asker)
        with pytest.raises(RemoteProtocolError, match="is not one"):
            await asker.models()
        assert (upstream.connections, upstream.requests) == (2, 3)

    await serving(upstream, use)


async def test_once_more_is_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh connection's failure is the answer, and a fresh one is never called stale."""
    crossing(monkeypatch)

    async def once(connection: trio.SocketStream) -> None:
        await upstream.answer(connection)
        connection.socket.close()
        raise trio.ClosedResourceError

    async def never(connection: trio.SocketStream) -> None:
        connection.socket.close()
        raise trio.ClosedResourceError

    upstream = Crossing(once, never)

    async def use(client: HttpClient) -> None:
        asker = upstream_at(client, upstream.base_url)
        await ask(asker)
        with pytest.raises(Truncated):
            await ask(asker)
        assert upstream.connections == 2

    await serving(upstream, use)


async def test_the_connect_clock_is_over_the_second_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Going to the network again is connecting again, with its clock."""
    ours, theirs = trio.testing.memory_stream_pair()
    dialled = 0

    async def dial(origin: Origin) -> Wire:
        nonlocal dialled
        dialled += 1
        if dialled == 2:
            await trio.sleep_forever()
        return Confirming(ours)

    class Confirming(wire.StreamWire):
        def acknowledged(self) -> int:
            return 7

    async with HttpClient(dial) as client:
        asker = upstream_at(client, "http://h.example")
        await theirs.send_all(ANSWER)
        await ask(asker)
        await trio.sleep(1)
        await theirs.aclose()
        started = trio.current_time()
        with (
            trio.fail_after(100),
            pytest.raises(ConnectTimeout, match="no connection to 'p' within 10 s"),
        ):
            await ask(asker)
        assert trio.current_time() == started + 10
        assert asker._limiter.borrowed_tokens == 0


async def test_an_upstream_that_is_silent_is_not_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A kept connection without an end and without a word is waited for: no clock repeats."""
    ours, theirs = trio.testing.memory_stream_pair()
    dialled: list[Origin] = []

    async def dial(origin: Origin) -> Wire:
        dialled.append(origin)
        return wire_of(ours)

    async with HttpClient(dial) as client:
        asker = upstream_at(client, "http://h.example")
        await theirs.send_all(ANSWER)
        await ask(asker)
        with trio.move_on_after(1000) as scope:
            await ask(asker)
        assert scope.cancelled_caught
        assert len(dialled) == 1


async def test_surplus_inside_a_record_spoils_a_connection() -> None:
    """Bytes that TLS has decoded already, behind an answer, are seen before it is used again."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    size = 3 * wire.SLICE_BYTES
    first = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!"
    async with (
        fake_upstream([Send(first), Send(surplus)], whole(b"2"), tls=server_side) as server,
        HttpClient(dialer(trusting)) as client,
    ):
        asker = upstream_at(client, server.base_url)
        assert (await ask(asker))[1] == b"x" * size
        assert await ask(asker) == (200, b"2")
        assert server.connections == 2


async def test_a_refusal_is_heard_by_who_is_still_sending() -> None:
    """An upstream that refuses, reads no more and does not close costs no write clock."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    closed = trio.Event()

    async def refuse(connection: trio.SocketStream) -> None:
        await connection.receive_some(1000)
        await connection.send_all(b"HTTP/1.1 413 Too Big\r\nContent-Length: 2\r\n\r\n{}")
        await closed.wait()
        connection.socket.close()

    async with trio.open_nursery() as nursery, HttpClient() as client:
        nursery.start_soon(trio.serve_listeners, refuse, [listener])
        with trio.fail_after(5):
            asker = upstream_at(client, f"http://127.0.0.1:{port}")
            assert await ask(asker, {"text": "x" * 30_000_000}) == (413, b"{}")
        assert not client._direct._pool._idle
        closed.set()
        nursery.cancel_scope.cancel()


async def test_an_answer_that_begins_early_ends_well() -> None:
    """A success that begins before the request is whole gets the rest of the request."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    text = "x" * 20_000_000
    took = 0

    async def begin(connection: trio.SocketStream) -> None:
        nonlocal took
        took = len(await connection.receive_some(1000))
        await connection.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        while took < len(text):
            took += len(await connection.receive_some())
        await connection.send_all(b"cd")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery, HttpClient() as client:
        nursery.start_soon(trio.serve_listeners, begin, [listener])
        with trio.fail_after(20):
            asker = upstream_at(client, f"http://127.0.0.1:{port}")
            assert await ask(asker, {"text": text}) == (200, b"abcd")
        assert took > len(text)
        nursery.cancel_scope.cancel()


ODD: dict[str, tuple[list[Step], tuple[int, bytes], bool]] = {
    "several interim answers": (
        [head(100), head(100), head(103, {"link": "x"}), head(102), *whole(b"{}")],
        (200, b"{}"),
        True,
    ),
    "extensions of chunks": (
        [*stream(end=False), Send(b'2;a=b;c="d"\r\nab\r\n0;x\r\n\r\n')],
        (200, b"ab"),
        True,
    ),
    "trailers": (
        [*stream(b"ab", end=False), Send(b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n")],
        (200, b"ab"),
        True,
    ),
    "no content": ([head(204)], (204, b""), True),
    "no content that has a length": ([head(204, {"content-length": "5"})], (204, b""), True),
    "HTTP/1.0": ([Send(b"HTTP/1.0 200 OK\r\n\r\nab"), Close()], (200, b"ab"), False),
    "HTTP/1.0 with a length": (
        [Send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab")],
        (200, b"ab"),
        False,
    ),
    "HTTP/1.0 that keeps alive": (
        [Send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab")],
        (200, b"ab"),
        True,
    ),
    "connection: close": ([*whole(b"ab", connection="Close")], (200, b"ab"), False),
    "nothing": ([head(200, {"content-length": "0"})], (200, b""), True),
    "coded twice in words": (
        [head(200, {"transfer-encoding": "Chunked"}), Chunk(b"ab"), Send(b"0\r\n\r\n")],
        (200, b"ab"),
        True,
    ),
}


@pytest.mark.parametrize("case", ODD)
async def test_what_http_allows(case: str) -> None:
    """Each answer is read as the standard says, and its connection used again if it says so."""
    script, answer, again = ODD[case]
    async with fake_upstream(script) as server, HttpClient() as client:
        asker = upstream_at(client, server.base_url)
        assert await ask(asker) == answer
        assert await ask(asker) == answer
        assert server.connections == (1 if again else 2)


BAD: dict[str, tuple[list[Step], str]] = {
    "a coding that nobody asked for": (
        [head(200, {"transfer-encoding": "gzip, chunked"}), Chunk(b"\x1f\x8b")],
        "a coding of its own",
    ),
    "a coding without chunks": (
        [head(200, {"transfer-encoding": "gzip"}), Send(b"\x1f\x8b"), Close()],
        "a coding of its own|speak HTTP",
    ),
    "a length and chunks": (
        [head(200, {"content-length": "2", "transfer-encoding": "chunked"}), Chunk(b"ab")],
        "speak HTTP",
    ),
    "two lengths": (
        [Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")],
        "speak HTTP",
    ),
    "interim answers without end": (
        [head(103, {"link": "x" * 1000}) for _ in range(200)],
        "too long",
    ),
    "a trailer without end": (
        [*stream(b"ab", end=False), Send(b"0\r\nX: " + b"x" * 1_000_000)],
        "endless trailer",
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_http_does_not_allow(case: str) -> None:
    """It is refused by name, and its connection is not used again."""
    script, words = BAD[case]
    async with fake_upstream([*script, Stall()]) as server, HttpClient() as client:
        with trio.fail_after(5), pytest.raises(NurslingError, match=words):
            await ask(upstream_at(client, server.base_url))
        await server.wait_closed()
