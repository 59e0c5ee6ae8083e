"""A proxy on 127.0.0.1 that makes tunnels (CONNECT), on real sockets.

async with tunnel() as proxy:
    ... proxy.url ... proxy.asked[0].headers["proxy-authorization"] ...
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from .fake_upstream import Asked


@dataclass
class Tunnel:
    """The running proxy, and what it was asked."""

    answer: bytes | None
    """What it says in place of making a tunnel; `b""` = nothing at all."""
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, client: trio.SocketStream) -> None:
        self.open += 1
        try:
            async with client:
                await self._serve(client)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1

    async def _serve(self, client: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await client.receive_some()
            if not data:
                return
            head += data
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        self.asked.append(Asked(method, target, headers, b""))
        if self.answer is not None:
            await client.send_all(self.answer)
            while await client.receive_some():
                pass
            return
        host, _, port = target.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as server:
            await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, server, client, nursery.cancel_scope)
                await _pump(client, server, nursery.cancel_scope)


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        async for data in source:
            await sink.send_all(data)
    except trio.BrokenResourceError:
        pass
    both.cancel()


@asynccontextmanager
async def tunnel(answer: bytes | None = None) -> AsyncGenerator[Tunnel, None]:
    """Run a proxy on a free port of 127.0.0.1."""
    proxy = Tunnel(answer)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
