"""Canaries: the bugs of stock Hypercorn that the guard works round. One that passes may go."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope
from quart_trio import QuartTrio

from support.gateway import read_to_end


@asynccontextmanager
async def stock(
    app: ASGIFramework, **settings: Any
) -> AsyncGenerator[tuple[int, trio.Event, trio.Event], None]:
    """Serve with stock Hypercorn; yields the port, the event to stop by, the event of its end."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = config.accesslog = None
    for name, value in settings.items():
        setattr(config, name, value)
    stop, ended = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def run(task_status: trio.TaskStatus[list[str]]) -> None:
            try:
                await serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)
            finally:
                ended.set()

        (url,) = await nursery.start(run)
        yield int(url.rpartition(":")[2]), stop, ended
        stop.set()
        nursery.cancel_scope.cancel()


async def ok(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok", "more_body": False})


@pytest.mark.xfail(strict=True, reason="hypercorn#225")
async def test_a_stray_byte_after_an_upgrade() -> None:
    """The process survives a byte that is no frame."""
    async with stock(ok) as (port, _, ended):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"\r\n\x00"
            )
            with trio.move_on_after(1):
                await ended.wait()
        assert not ended.is_set()


@pytest.mark.xfail(strict=True, reason="hypercorn, no report: binascii.Error in the h2c upgrade")
async def test_a_malformed_h2c_upgrade() -> None:
    """The process survives settings that are not base64."""
    async with stock(ok) as (port, _, ended):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n"
                b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: a\r\n\r\n"
            )
            with trio.move_on_after(1):
                await ended.wait()
        assert not ended.is_set()


@pytest.mark.xfail(strict=True, reason="hypercorn#330")
async def test_connection_close_under_quart_trio() -> None:
    """The connection ends behind its answer."""
    app = QuartTrio("canary")

    @app.get("/")
    async def root() -> str:
        return "ok"

    async with stock(app) as (port, _, _):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with trio.move_on_after(1) as scope:
                await read_to_end(stream)
        assert not scope.cancelled_caught


@pytest.mark.xfail(strict=True, reason="hypercorn#262: send_all is shielded, without a deadline")
async def test_stopping_with_a_client_that_does_not_read() -> None:
    """The server stops within its graceful timeout."""

    async def flood(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

    async with stock(flood, graceful_timeout=0.1) as (port, stop, ended):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.3)
        stop.set()
        with trio.move_on_after(1):
            await ended.wait()
        in_time = ended.is_set()
        await stream.aclose()  # or it would never end
    assert in_time
