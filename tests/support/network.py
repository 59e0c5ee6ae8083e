"""Any streams as the network of httpcore, so that stock httpx runs without a socket."""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httpcore
import httpx
import trio

from nursling.engine.errors import ConnectFailed
from nursling.engine.limits import Limits
from nursling.transports.secret import Secret
from nursling.transports.upstream.proxied import StockTransport, stock_transport
from nursling.transports.wire import Wire


Connect = Callable[[str], Awaitable[tuple[trio.abc.Stream, Wire]]]
"""Connects to a host; the wire answers whether there is news. Raises `ConnectFailed`."""


def stock_on(connect: Connect) -> StockTransport:
    """Make what makes httpx's own transport, on this network."""

    def stock(proxy: Secret, context: ssl.SSLContext, limits: Limits) -> httpx.AsyncBaseTransport:
        transport = stock_transport(proxy, context, limits)
        transport._pool._network_backend = _Backend(connect)
        return transport

    return stock


class _Backend(httpcore.AsyncNetworkBackend):
    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    async def connect_tcp(self, host: str, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        try:
            return _Stream(*await self._connect(host))
        except ConnectFailed as error:
            raise httpcore.ConnectError(str(error)) from error


class _Stream(httpcore.AsyncNetworkStream):
    """As httpcore's own for Trio, but for TLS."""

    def __init__(self, stream: trio.abc.Stream, wire: Wire) -> None:
        self._stream = stream
        self._wire = wire

    async def read(self, max_bytes: int, *_: object, **__: object) -> bytes:
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError from error

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - the name is httpcore's
    ) -> None:
        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._wire.has_news() if info == "is_readable" else None
