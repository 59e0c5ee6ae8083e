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
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from nursling.engine.errors import ConnectFailed
from nursling.engine.limits import DEFAULT_LIMITS, Limits

from ..wire import Wire, wire_of


Origin = tuple[str, str, int]
"""Scheme, host, port."""

Dial = Callable[[Origin], Awaitable[Wire]]
"""Opens a connection, TLS included. Raises `ConnectFailed`, whose `detail` has the reason."""

NOT_THERE = "no connection to the upstream"
"""All that a client is told: addresses and certificates are the operator's affair."""


class Pool:
    """The idle connections, by origin; the last one used is the first to be used again."""

    def __init__(self, dial: Dial, limits: Limits = DEFAULT_LIMITS) -> None:
        self.dial = dial
        """Opens a connection that is not of the pool."""
        self._limits = limits
        self._idle: dict[Origin, deque[tuple[float, Wire]]] = {}
        """With the time of its expiry; the oldest first. No origin is without a connection."""
        self._filled = trio.Event()

    async def take(self, origin: Origin) -> Wire | None:
        """Return a kept connection that is open as far as we can see, if there is one.

        One on which bytes or an end wait is of no use any more: nobody asked for them.
        """
        while origin in self._idle:
            expiry, wire = self._pop(origin, newest=True)
            if expiry > trio.current_time() and not wire.has_news():
                return wire
            await wire.close()
        return None

    def give_back(self, origin: Origin, wire: Wire) -> Wire | None:
        """Keep a connection for the next request.

        Past `max_idle` it takes the place of the oldest, which the caller is given to close.
        """
        idle = self._idle.setdefault(origin, deque())
        idle.append((trio.current_time() + self._limits.keep_alive, wire))
        self._filled.set()
        if len(idle) > self._limits.max_idle:
            return self._pop(origin)[1]
        return None

    async def sweep(self) -> NoReturn:
        """Close connections when their time is over, for ever: without it they wait for traffic.

        So also those go whose origin is not asked any more, since a reload say.
        """
        while True:
            while not self._idle:
                self._filled = trio.Event()
                await self._filled.wait()
            await trio.sleep_until(min(idle[0][0] for idle in self._idle.values()))
            for origin in [*self._idle]:
                while self._expired(origin):
                    await self._pop(origin)[1].close()

    async def aclose(self) -> None:
        """Close all idle connections."""
        while self._idle:
            await self._pop(next(iter(self._idle)))[1].close()

    def _expired(self, origin: Origin) -> bool:
        return origin in self._idle and self._idle[origin][0][0] <= trio.current_time()

    def _pop(self, origin: Origin, *, newest: bool = False) -> tuple[float, Wire]:
        idle = self._idle[origin]
        entry = idle.pop() if newest else idle.popleft()
        if not idle:
            del self._idle[origin]
        return entry


def dialer(context: ssl.SSLContext) -> Dial:
    """Make the real `Dial`: TCP with happy eyeballs, and TLS for `https`."""

    async def dial(origin: Origin) -> Wire:
        scheme, host, port = origin
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            why = f"cannot connect to {host}:{port}: {reason_of(error)}"
            raise ConnectFailed(NOT_THERE, detail=why) from error
        if scheme == "http":
            return wire_of(stream)
        # https_compatible: HTTP does not wait for a close_notify, so closing cannot hang.
        secured: trio.SSLStream[trio.SocketStream] = trio.SSLStream(
            stream, context, server_hostname=host, https_compatible=True
        )
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            why = f"no TLS with {host}:{port}: {reason_of(error.__cause__)}"
            raise ConnectFailed(NOT_THERE, detail=why) from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return wire_of(secured)

    return dial


def reason_of(error: BaseException | None) -> str:
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
                error = error.__cause__ or error.__context__  # httpcore's pool hides the cause
    return "the connection broke"
