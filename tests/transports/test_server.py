"""The guarded server on real sockets: what kills stock Hypercorn, and clients that leave.

After every case the server answers a plain request, and nothing is left of the case.
"""

from __future__ import annotations

import gc
import socket
import struct
from typing import Never

import pytest
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from structlog.testing import capture_logs

from nursling.engine.events import Ended, Finished
from nursling.engine.limits import Limits
from nursling.transports.http.protocol import Protocol
from nursling.transports.http.server import Connection
from support.gateway import (
    post,
    read_to_end,
    read_until,
    serving,
    until,
)
from support.hosting import BEGUN, CHAT, FOREVER, HEAD, QUICK, flood, hosting, idle_connections
from support.toy import HELLO, Script, Step, line, opening, words


async def test_a_connection_that_is_over_leaves_no_garbage() -> None:
    """What a connection held is free at its end: no collector has to find it."""
    async with hosting(m=Script(HELLO)) as (_, served):
        gc.collect()
        gc.disable()
        try:
            answer = await served.raw(post(CHAT, head=b"Connection: close\r\n"))
            assert answer.startswith(b"HTTP/1.1 200")
            await until(lambda: not living(Connection))
            assert not living(Protocol)
        finally:
            gc.enable()


def living(kind: type) -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, kind)]


# Inputs that kill a stock server, or should have an answer.


WS = (
    b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.fault(47, "R")
async def test_stray_byte_later_kills_nothing() -> None:
    """The 426 comes at once, and bytes sent after it meet a closed door."""
    async with hosting() as (_, served):
        async with await served.connect() as stream:
            await stream.send_all(WS)
            answer = await read_until(stream, b"websocket_unsupported")
            assert answer.startswith(b"HTTP/1.1 426 ")
            assert b"upgrade: HTTP/1.1\r\n" in answer
            try:
                for _ in range(3):
                    await stream.send_all(b"\x00")
            except trio.BrokenResourceError:
                pass
        assert await served.ok()


async def test_two_answers_for_two_requests_in_one_segment() -> None:
    """Pipelined requests are answered in order, each in full."""
    one = b"GET /livez HTTP/1.1\r\n" + HEAD + b"\r\n"
    two = post({"model": "m"}, head=b"Connection: close\r\n")
    async with hosting() as (world, served):
        answer = await served.raw(one + one + two)
        assert answer.count(b"HTTP/1.1 200") == 3
        assert answer.endswith(b'{"id":"r1","text":"hello"}')
        assert world.records[0].outcome == "ok"


@pytest.mark.parametrize("whole", [True, False])
async def test_an_empty_line_behind_a_body(whole: bool) -> None:
    """RFC 9112 §2.2: what old clients put behind a body is ignored, however it arrives."""
    one = post({"model": "m"}) + b"\r\n"
    last = b"GET /livez HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n"
    async with hosting() as (_, served), await served.connect() as stream:
        if whole:
            await stream.send_all(one + one + last)
        for _ in range(0 if whole else 2):
            await stream.send_all(one[:-2])
            await read_until(stream, b"hello")
            for byte in (b"\r", b"\n"):
                await stream.send_all(byte)
                await trio.sleep(0.02)
        if not whole:
            await stream.send_all(last)
        answer = await read_to_end(stream)
        assert answer.count(b"HTTP/1.1 200 OK") == (3 if whole else 1)
        assert answer.endswith(b"ok\n")


async def test_a_refusal_below_the_app_keeps_the_clients_id() -> None:
    """An id that the client gave its request is on the refusal too, if the head could be read."""
    head = b"Host: localhost\r\nX-Request-Id: mine-1\r\n"
    both = b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with hosting() as (_, served):
        answer = await served.raw(b"POST / HTTP/1.1\r\n" + head + both)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nx-request-id: mine-1\r\n" in answer


async def test_an_app_without_an_answer() -> None:
    """A foreign app that ends in silence is a stamped 500 with a body; its bug has a log line."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> Never:
        raise RuntimeError("canary")

    with capture_logs() as logs:
        async with serving(app, QUICK) as served:
            answer = await served.raw(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"\r\nx-request-id: req_" in answer
    assert b'"type":"server_error"' in answer
    bugs = [entry["bug"] for entry in logs if entry["event"] == "app_bug"]
    assert bugs[-1].startswith("RuntimeError\n")


async def test_connection_is_kept_and_timed_out() -> None:
    """A connection is used again; idle for `head_timeout`, it is closed without a word."""
    async with hosting() as (_, served), await served.connect() as stream:
        for _ in range(3):
            await stream.send_all(post({"model": "m"}))
            assert b"200" in await read_until(stream, b"hello")
        started = trio.current_time()
        assert await read_to_end(stream) == b""
        assert 0.3 < trio.current_time() - started < 1.5


async def test_connection_close_gives_eof() -> None:
    """Every `Connection: close` ends in EOF, streamed or whole (hypercorn#330)."""
    async with hosting() as (_, served):
        for body in (CHAT, {"model": "m"}):
            for _ in range(10):
                answer = await served.raw(post(body, head=b"Connection: close\r\n"))
                assert answer.startswith(b"HTTP/1.1 200")
                assert b"<reset>" not in answer


async def test_http_1_0_is_streamed_to() -> None:
    """An old client gets the stream without chunks, ended by the connection's end."""
    async with hosting() as (_, served):
        answer = await served.raw(post(CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body.startswith(b"data: ")
        assert body.endswith(b"}\n\n")


async def test_slow_headers() -> None:
    """A head that does not arrive in time closes the connection; drips do not extend it."""
    async with hosting() as (_, served), await served.connect() as stream:
        started = trio.current_time()
        try:
            for byte in b"GET /livez HTTP/1.1\r\nHost: localhost\r\n":
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.05)
        except trio.BrokenResourceError:
            pass
        assert await read_to_end(stream) in {b"", b"<reset>"}
        assert 0.4 < trio.current_time() - started < 1.5
        assert await served.ok()


async def test_slow_body() -> None:
    """A body that stops gets a 408 that arrives, and the connection ends."""
    async with hosting() as (world, served):
        answer = await served.raw(post(CHAT)[:-3])
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"request_timeout" in answer
        await idle_connections(world, served)


@pytest.mark.parametrize("declared", [True, False])
async def test_too_large_a_body_hears_its_413(declared: bool) -> None:
    """The refusal reaches a client that is still sending: no reset takes it away."""
    size = 3 * QUICK.max_body_bytes
    length = b"Content-Length: %d\r\n" % size if declared else b"Transfer-Encoding: chunked\r\n"
    async with hosting() as (_, served), await served.connect() as stream:
        await stream.send_all(b"POST /v1/responses HTTP/1.1\r\n" + HEAD + length + b"\r\n")
        piece = b"x" * 65536
        for _ in range(size // len(piece)):
            await stream.send_all(piece if declared else b"10000\r\n" + piece + b"\r\n")
        answer = await read_to_end(stream)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"<reset>" not in answer


async def test_a_large_body_passes() -> None:
    """Bodies of megabytes are fine."""
    body = {"model": "m", "say": "é" * 400_000}
    async with hosting() as (_, served):
        assert b"hello" in await served.raw(post(body, head=b"Connection: close\r\n"))


async def test_expect_continue() -> None:
    """A client that asks first is told to go on."""
    data = post({"model": "m"}, head=b"Expect: 100-continue\r\nConnection: close\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    async with hosting() as (_, served), await served.connect() as stream:
        await stream.send_all(head + b"\r\n\r\n")
        assert b"100" in await read_until(stream, b"\r\n\r\n")
        await stream.send_all(body)
        assert b"hello" in await read_to_end(stream)


# Clients that leave.


@pytest.mark.fault(18, "R")
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("steps", [[FOREVER], [BEGUN, FOREVER]])
async def test_client_gone_releases_the_upstream(how: str, stream: bool, steps: list[Step]) -> None:
    """Whatever way the client goes, the upstream is closed within 100 ms."""
    script = Script(*steps)
    async with hosting(m=script) as (world, served):
        client = await served.connect()
        await client.send_all(post({"model": "m", "stream": stream}))
        if stream and len(steps) > 1:
            await read_until(client, b"data: ")
        await until(lambda: script.open_now == 1)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half-close":
            await client.send_eof()
        else:
            await client.aclose()
        assert await until(lambda: script.open_now == 0) < 0.1
        await idle_connections(world, served)
        assert world.records[0].outcome == "client_gone"
        await client.aclose()
        assert await served.ok()


@pytest.mark.fault(17, "R")
async def test_client_that_does_not_read_is_cut() -> None:
    """A client that takes nothing for `write_timeout` is cut, and its upstream released."""
    script = flood()
    async with hosting(m=script) as (world, served), await served.connect() as stream:
        await stream.send_all(post(CHAT))
        await until(lambda: script.open_now == 1)
        took = await until(lambda: script.open_now == 0)
        assert QUICK.write_timeout * 0.9 < took < QUICK.write_timeout + 1
        await idle_connections(world, served)
        assert world.records[0].outcome == "client_gone"
        assert script.reads < 400  # the upstream was held back
        assert await served.ok()


@pytest.mark.parametrize("how", ["stuck", "reset"])
async def test_a_whole_reply_that_did_not_arrive(how: str) -> None:
    """A reply that was cut, or whose client left while it was written, is not `ok`."""
    reply = line(*opening(), *words("z" * 20_000_000), Finished(0, "stop"), Ended())
    with capture_logs() as logs:
        async with hosting(m=Script(reply)) as (world, served):
            stream = await served.connect()
            await stream.send_all(post({"model": "m"}))
            await until(lambda: world.app.engine.gate.open == 1)
            await read_until(stream, b"{")
            if how == "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await stream.aclose()
            await until(lambda: bool(world.records))
            assert (world.records[0].outcome, world.records[0].status) == ("client_gone", 200)
            await stream.aclose()
            assert await served.ok()
    stalls = [entry for entry in logs if entry["event"] == "client_stalled"]
    assert [entry["seconds"] for entry in stalls] == [0.4] * (how == "stuck")


async def test_client_that_reads_slowly_is_not_cut() -> None:
    """Progress counts: a client slower than `write_timeout` for the whole gets the whole."""
    limits = Limits(write_timeout=0.3, close_timeout=0.3)
    text = "z" * 3_000_000
    reply = line(*opening(), *words(text), Finished(0, "stop"), Ended())
    async with hosting(limits, m=Script(reply)) as (_, served):
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        await sock.connect(("127.0.0.1", served.port))
        stream = trio.SocketStream(sock)
        await stream.send_all(post({"model": "m"}, head=b"Connection: close\r\n"))
        size, started = 0, trio.current_time()
        while piece := await stream.receive_some(60_000):
            size += len(piece)
            await trio.sleep(0.02)
        await stream.aclose()
    assert trio.current_time() - started > 2 * limits.write_timeout
    assert size > len(text)


async def test_a_tiny_window_is_not_cut() -> None:
    """A client whose window is nearly always shut, but moves, is not cut by the kernel either.

    The reply is far from over when the test has seen enough: several times `write_timeout`.
    """
    limits = Limits(write_timeout=1, close_timeout=0.3)
    reply = line(*opening(), *words("z" * 6_000_000), Finished(0, "stop"), Ended())
    async with hosting(limits, m=Script(reply)) as (world, served):
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        await sock.connect(("127.0.0.1", served.port))
        stream = trio.SocketStream(sock)
        await stream.send_all(post({"model": "m"}))
        started = trio.current_time()
        while trio.current_time() - started < 4:
            assert await stream.receive_some(500)
            await trio.sleep(0.1)
        await stream.aclose()
        await idle_connections(world, served)


async def test_pipelined_bytes_and_gone() -> None:
    """A client with unread bytes behind its request, gone, is noticed at the next write."""
    drip: list[Step] = [0.05, line(*words("y"))]
    script = Script(BEGUN, *drip * 200)
    async with hosting(m=script) as (world, served):
        stream = await served.connect()
        await stream.send_all(post(CHAT) + b"GET /livez")
        await read_until(stream, b"data: ")
        await stream.aclose()
        await until(lambda: script.open_now == 0)
        await idle_connections(world, served)
