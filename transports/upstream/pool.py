"""Connections to upstreams: opened with one clock, kept for a short while, never queued for.

The law of this file: a stream is either in the hands of one request or idle here, and whoever
waits for a connection waits for the network only. How many requests an upstream gets at once is
decided before (`client.py`): a pool that queues loses slots on cancellation (httpcore#1093), and
one that scans all its connections per request is quadratic (httpcore PR 1035).
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable

import trio

from nursling.engine.errors import ConnectFailed
from nursling.engine.limits import DEFAULT_LIMITS, Limits


Origin = tuple[str, str, int]
"""Scheme, host, port."""

Dial = Callable[[Origin], Awaitable[trio.abc.Stream]]
"""Opens a connection, TLS included. Raises `ConnectFailed`."""


class Pool:
    """The idle connections, by origin; the last one used is the first to be used again."""

    def __init__(self, dial: Dial, limits: Limits = DEFAULT_LIMITS) -> None:
        self._dial = dial
        self._limits = limits
        self._idle: dict[Origin, list[tuple[float, trio.abc.Stream]]] = {}

    async def take(self, origin: Origin) -> trio.abc.Stream:
        """Return a connection that is open as far as we can see. Raises `ConnectFailed`."""
        idle = self._idle.get(origin, [])
        while idle:
            expiry, stream = idle.pop()
            if expiry > trio.current_time() and not _has_news(stream):
                return stream
            await trio.aclose_forcefully(stream)
        self._idle.pop(origin, None)
        return await self._dial(origin)

    async def give_back(self, origin: Origin, stream: trio.abc.Stream) -> None:
        """Keep a connection for the next request, and close those that waited too long."""
        now = trio.current_time()
        idle = self._idle.setdefault(origin, [])
        idle.append((now + self._limits.keep_alive, stream))
        while idle and (idle[0][0] <= now or len(idle) > self._limits.max_idle):
            await trio.aclose_forcefully(idle.pop(0)[1])

    async def aclose(self) -> None:
        """Close all idle connections."""
        while self._idle:
            _, idle = self._idle.popitem()
            for _, stream in idle:
                await trio.aclose_forcefully(stream)


def dialer(context: ssl.SSLContext) -> Dial:
    """Make the real `Dial`: TCP with happy eyeballs, and TLS for `https`."""

    async def dial(origin: Origin) -> trio.abc.Stream:
        scheme, host, port = origin
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {host}:{port}: {_reason(error)}") from error
        if scheme == "http":
            return stream
        # https_compatible: HTTP does not wait for a close_notify, so closing cannot hang.
        secured: trio.SSLStream[trio.SocketStream] = trio.SSLStream(
            stream, context, server_hostname=host, https_compatible=True
        )
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise ConnectFailed(f"no TLS with {host}:{port}: {_reason(error.__cause__)}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured

    return dial


def _has_news(stream: trio.abc.Stream) -> bool:
    """Whether bytes or an end wait on an idle connection: either way it is of no use any more."""
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return isinstance(stream, trio.SocketStream) and stream.socket.is_readable()


def _reason(error: BaseException | None) -> str:
    """Say why there is no connection, in the words of the operating system or of OpenSSL."""
    while error is not None:
        match error:
            case ssl.SSLCertVerificationError():
                return f"the certificate does not verify: {error.verify_message}"
            case ssl.SSLError():
                return getattr(error, "reason", None) or "the handshake failed"
            case socket.gaierror():
                return "the name is unknown"
            case OSError() if error.errno:
                return os.strerror(error.errno)
            case BaseExceptionGroup():
                error = error.exceptions[0]
            case _:
                error = error.__cause__
    return "the connection broke"
