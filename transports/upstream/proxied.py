"""httpx's requests, carried through a proxy by httpx's own transport.

The law of this file: what stock httpx and httpcore do otherwise than we need is set right here, and
nobody above can tell the two transports apart.

* Their pool loses slots when requests are cancelled that queue in it (httpcore#1093): it has no
  limit, so nothing queues; how many requests there are at once is decided in `client.py`.
* It closes idle connections when another request comes, only: `Proxies.sweep` has a clock.
* Its bodies are chains of async generators, which must not be left half-read: trio would end the
  inner ones later, somewhere else (trio#265). So the connection is closed first, and then the
  chain is read on to the error that this gives (`_Answer.aclose`).
* It gives back a connection with bytes behind the answer, and h11 reads them as the next one: some
  other client's, then. `_spoil` looks for them, in private names: hence `httpcore<1.1`.
* Its write clock is for one write: a request is given to it in slices, so that each of them has it.

A read brings one HTTP chunk: stock httpx keeps the rest of what the socket brought to itself. And a
request is sent once: which bytes the other side has got is the proxy's affair, not ours to know.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from operator import attrgetter
from typing import Any, NoReturn

import h11
import httpx
import trio

from nursling.engine.errors import (
    ConnectFailed,
    ConnectTimeout,
    NurslingError,
    RemoteProtocolError,
    Truncated,
)
from nursling.engine.limits import Limits

from ..secret import Secret
from .pool import NOT_THERE, reason_of


SLICE_BYTES = 64 * 1024
"""Of a request's body, per write."""

LONGEST_REASON = 200
"""Characters of a proxy's words that the log quotes."""

_protocol_of = attrgetter("_httpcore_stream._stream._connection._h11_state")

StockTransport = Callable[[Secret, ssl.SSLContext, Limits], httpx.AsyncBaseTransport]
"""Makes httpx's transport for the URL of a proxy."""


def stock_transport(
    proxy: Secret, context: ssl.SSLContext, limits: Limits
) -> httpx.AsyncHTTPTransport:
    """Make httpx's own transport: HTTP/1.1, certificates verified, nothing from the environment."""
    url = httpx.URL(proxy.reveal())
    return httpx.AsyncHTTPTransport(
        verify=context,
        trust_env=False,
        proxy=httpx.Proxy(url, ssl_context=context if url.scheme == "https" else None),
        limits=httpx.Limits(
            max_connections=None,
            max_keepalive_connections=None,
            keepalive_expiry=limits.keep_alive,
        ),
    )


class Proxies:
    """All proxies of one engine."""

    def __init__(self, stock: StockTransport, context: ssl.SSLContext, limits: Limits) -> None:
        self._stock = stock
        self._context = context
        self._keep_alive = limits.keep_alive
        self._limits = limits
        self._known: dict[Secret, Proxied] = {}
        self._rested = trio.Event()

    def through(self, proxy: Secret) -> Proxied:
        """Return what carries requests through the proxy of this URL."""
        if proxy not in self._known:
            self._known[proxy] = Proxied(
                lambda: self._stock(proxy, self._context, self._limits), self._note_rest
            )
        return self._known[proxy]

    async def sweep(self) -> NoReturn:
        """Close a proxy's connections when none has been used for `keep_alive`, for ever."""
        while True:
            rests = [one.resting_since for one in self._known.values()]
            soonest = min(rests, default=math.inf) + self._keep_alive
            self._rested = trio.Event()
            with trio.move_on_at(soonest):
                await self._rested.wait()
            for one in list(self._known.values()):
                if one.resting_since + self._keep_alive <= trio.current_time():
                    await one.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        for one in self._known.values():
            await one.aclose()

    def _note_rest(self) -> None:
        self._rested.set()


class Proxied(httpx.AsyncBaseTransport):
    """Carries requests through one proxy. It reads and gives the extensions that `Direct` does."""

    def __init__(
        self, make: Callable[[], httpx.AsyncBaseTransport], on_rest: Callable[[], None]
    ) -> None:
        self._make = make
        self._on_rest = on_rest
        self._stock: httpx.AsyncBaseTransport | None = None
        self._at_work = 0
        self.resting_since = math.inf
        """When the last request was over; infinite with one at work, or nothing to close."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Connect, send, and wait for the head of the answer."""
        limits: Limits = request.extensions["limits"]
        connecting: trio.CancelScope = request.extensions["connecting"]

        async def trace(event: str, info: dict[str, Any]) -> None:
            # A tunnel is made with a request of its own, which is part of connecting.
            sending = event == "http11.send_request_headers.started"
            if sending and info["request"].method != b"CONNECT":
                connecting.deadline = math.inf

        request.extensions["trace"] = trace
        request.extensions["timeout"] = {"write": limits.write_timeout or None}
        request.stream = _Slices(request.content)
        if self._stock is None:
            self._stock = self._make()
        self._at_work += 1
        self.resting_since = math.inf
        try:
            response = await self._stock.handle_async_request(request)
            answer = _Answer(response, self.rest, limits)
        except httpx.LocalProtocolError as error:
            self.rest()
            raise ValueError(f"a request that cannot be written: {error}") from None
        except httpx.HTTPError as error:
            self.rest()
            if connecting.deadline < math.inf:
                raise ConnectFailed(NOT_THERE, detail=_why(error)) from None
            raise error_of(error, limits) from None
        except BaseException:
            self.rest()
            raise
        return httpx.Response(answer.status, stream=answer, extensions={"source": answer})

    def rest(self) -> None:
        """One request is over."""
        self._at_work -= 1
        if not self._at_work:
            self.resting_since = trio.current_time()
            self._on_rest()

    async def aclose(self) -> None:
        """Close all connections. The next request makes new ones."""
        stock, self._stock = self._stock, None
        self.resting_since = math.inf
        if stock is not None:
            await stock.aclose()


class _Answer(httpx.AsyncByteStream):
    """One answer. A `Source` of the pipeline."""

    def __init__(self, response: httpx.Response, over: Callable[[], None], limits: Limits) -> None:
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._over = over
        self._limits = limits
        self._parts: AsyncIterator[bytes] | None = None
        self._whole = False
        self._failure: NurslingError | None = None

    async def read_some(self) -> bytes:
        """Return the next chunk; `b""` at the end of the answer."""
        if self._failure is not None:
            raise self._failure
        if self._parts is None:
            assert isinstance(self._response.stream, httpx.AsyncByteStream)  # noqa: S101 - a type
            self._parts = aiter(self._response.stream)
        try:
            while not self._whole:
                if part := await anext(self._parts):
                    return part
        except StopAsyncIteration:
            self._whole = True
        except httpx.HTTPError as error:
            self._failure = error_of(error)
            raise self._failure from None
        return b""

    async def aclose(self) -> None:
        """Give the connection back if the answer was read to its end, else close it."""
        try:
            with trio.move_on_after(self._limits.close_timeout, shield=True):
                if self._whole:
                    _spoil(self._response)
                else:
                    await self._response.extensions["network_stream"].aclose()
                    with suppress(StopAsyncIteration, httpx.HTTPError):
                        while self._parts is not None:
                            await anext(self._parts)
                await self._response.aclose()
        finally:
            self._over()


def _spoil(response: httpx.Response) -> None:
    """Make httpcore close the connection if more came on it than the answer."""
    protocol: h11.Connection = _protocol_of(response.stream)
    if protocol.trailing_data[0]:
        protocol.send_failed()


class _Slices(httpx.AsyncByteStream):
    """A request's body. An iterator and no generator: it may be left half-read."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._place = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._place = 0
        return self

    async def __anext__(self) -> bytes:
        part = self._body[self._place : self._place + SLICE_BYTES]
        if not part:
            raise StopAsyncIteration
        self._place += len(part)
        return part


def error_of(error: httpx.HTTPError, limits: Limits | None = None) -> NurslingError:
    """Say an error of httpx in our words. httpx tells an early end from nonsense only by its text.

    h11 quotes what it could not read, but no more than the line that it is in.
    """
    text = str(error)
    match error:
        case httpx.WriteTimeout():
            seconds = 0 if limits is None else limits.write_timeout
            return ConnectTimeout(f"the upstream took no byte of the request for {seconds:g} s")
        case httpx.RemoteProtocolError() if text.startswith("Server disconnected"):
            return Truncated("the upstream closed the connection before it answered")
        case httpx.RemoteProtocolError() if text.startswith("peer closed connection"):
            return Truncated("the upstream closed the connection inside its reply")
        case httpx.RemoteProtocolError():
            return RemoteProtocolError(f"the upstream does not speak HTTP: {text}")
        case _:
            return Truncated("the connection to the upstream broke")


def _why(error: httpx.HTTPError) -> str:
    """Say for the log why there is no connection."""
    if isinstance(error, httpx.ProxyError):
        return f"the proxy refuses: {str(error)[:LONGEST_REASON]}"
    return f"cannot connect through the proxy: {reason_of(error)}"
