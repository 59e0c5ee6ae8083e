"""HTTP upstreams: who is asked, with which headers, and how many at once.

The law of this file: it alone knows httpx. httpx makes the requests (URLs, headers); the sockets
below are ours (`pool.py`, `exchange.py`), which is faster, reads a burst as one batch, and leaves
no half-read async generators behind. What httpx does by default and a gateway must not is off:
proxies from the environment, redirects, cookies, compressed replies, URLs in the log.

A connection's limiter token and socket are given back whatever happens. A request waits for a
token, a name, a TCP and a TLS connection under one clock, `connect_timeout`; from then on the
clocks are the pipeline's.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec
import trio

from nursling.engine import jsontext
from nursling.engine.errors import ConnectFailed, ConnectTimeout, RemoteProtocolError, UpstreamError
from nursling.engine.limits import DEFAULT_LIMITS, Limits, clock

from ..secret import Secret
from ..version import VERSION
from .exchange import Exchange
from .pool import Dial, Origin, Pool, dialer


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One API to ask, with everything that belongs to asking it."""

    provider: str
    """Its name in the configuration: for messages, and for the cap on its requests."""
    base_url: str
    api_key: Secret | None = None
    headers: Mapping[str, Secret] = {}
    max_streams: int = 0
    """Requests at once over all endpoints of this provider; 0 = no cap."""
    limits: Limits = DEFAULT_LIMITS


class HttpClient:
    """All connections of one engine. Makes the upstreams; use it as an async context manager."""

    def __init__(self, dial: Dial | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        _quiet("httpx")
        self._pool = Pool(dial or dialer(_tls()), limits)
        self._httpx = httpx.AsyncClient(
            transport=_Transport(self._pool),
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - every clock is ours, and none of them is httpx's
            headers={"accept-encoding": "identity", "user-agent": f"nursling/{VERSION}"},
        )
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._httpx.aclose()
        await self._pool.aclose()

    async def sweep(self) -> NoReturn:
        """Close what is idle for too long, for ever. A task for whoever owns this client."""
        await self._pool.sweep()

    def upstream(self, endpoint: Endpoint) -> HttpUpstream:
        """Make an upstream. All of one provider share its cap; the last one asked sets it."""
        limiter = self._limiters.setdefault(endpoint.provider, trio.CapacityLimiter(math.inf))
        return HttpUpstream(endpoint, self._httpx, limiter)


class HttpUpstream:
    """An `Upstream` of the engine, over HTTP."""

    def __init__(
        self, endpoint: Endpoint, client: httpx.AsyncClient, limiter: trio.CapacityLimiter
    ) -> None:
        self.endpoint = endpoint
        self._client = client
        self._limiter = limiter
        self._headers = {name: value.reveal() for name, value in endpoint.headers.items()}
        if endpoint.api_key:
            self._headers["authorization"] = f"Bearer {endpoint.api_key.reveal()}"

    @asynccontextmanager
    async def open(
        self, body: dict[str, Any], *, path: str, stream: bool
    ) -> AsyncGenerator[Exchange, None]:
        """Send a request; enter with the head of the answer. See `Upstream.open`.

        Raises `ConnectFailed`, `ConnectTimeout`, `Truncated` (no answer), `RemoteProtocolError`
        (an answer that is not HTTP, or compressed) and `UpstreamError` (a redirect).
        """
        request = self._client.build_request(
            "POST",
            url_of(self.endpoint.base_url, path),
            content=jsontext.dumps(body),
            headers={
                "content-type": "application/json",
                "accept": "text/event-stream" if stream else "application/json",
                **self._headers,
            },
        )
        async with self._send(request) as source:
            yield source

    async def models(self) -> list[str]:
        """Ask for the ids of its models (`GET /models`). Raises `UpstreamError`."""
        limits = self.endpoint.limits
        url = url_of(self.endpoint.base_url, "/models")
        request = self._client.build_request(
            "GET", url, headers={"accept": "application/json", **self._headers}
        )
        text = b""
        with trio.move_on_after(clock(limits.connect_timeout)) as scope:
            async with self._send(request) as source:
                while len(text) <= limits.max_reply_bytes and (data := await source.read_some()):
                    text += data
                if source.status != 200:
                    raise UpstreamError(f"the upstream answered with status {source.status}")
        if scope.cancelled_caught:
            raise ConnectTimeout(f"no list of models within {limits.connect_timeout:g} s")
        try:
            return [str(entry["id"]) for entry in jsontext.loads(text)["data"]]
        except (ValueError, TypeError, KeyError):
            raise RemoteProtocolError("the upstream's list of models is not one") from None

    @asynccontextmanager
    async def _send(self, request: httpx.Request) -> AsyncGenerator[Exchange, None]:
        limits = self.endpoint.limits
        borrower = object()
        response: httpx.Response | None = None
        held = False
        try:
            with trio.move_on_after(clock(limits.connect_timeout)) as connecting:
                self._limiter.total_tokens = self.endpoint.max_streams or math.inf
                await self._limiter.acquire_on_behalf_of(borrower)
                held = True
                request.extensions = {"connecting": connecting, "limits": limits}
                try:
                    response = await self._client.send(request, stream=True)
                except ConnectFailed as error:
                    message = f"no connection to {self.endpoint.provider!r}"
                    raise ConnectFailed(message, detail=error.detail) from None
            if response is None:
                why = "no connection to" if held else "no free slot at"
                message = f"{why} {self.endpoint.provider!r} within {limits.connect_timeout:g} s"
                raise ConnectTimeout(message)
            source: Exchange = response.extensions["exchange"]
            if 300 <= source.status < 400:
                message = f"the upstream redirects (status {source.status}), which is not followed"
                raise UpstreamError(message)
            if source.headers.get("content-encoding", "identity").lower() != "identity":
                raise RemoteProtocolError("the upstream's reply is compressed, unasked")
            yield source
        finally:
            if response is not None:
                with trio.move_on_after(limits.close_timeout, shield=True):
                    await response.aclose()
                # httpx ties a response to its stream and back. The request's whole body hangs on
                # it, and would wait for the garbage collector, which a busy process calls late.
                response.stream = httpx.ByteStream(b"")
            if held:
                self._limiter.release_on_behalf_of(borrower)


class _Transport(httpx.AsyncBaseTransport):
    """Carries httpx's requests over our connections."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Connect, send, and wait for the head of the answer."""
        url = request.url
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        limits: Limits = request.extensions["limits"]
        stream = await self._pool.take(origin)
        exchange = Exchange(stream, max_head_bytes=limits.max_head_bytes)
        try:
            connecting: trio.CancelScope = request.extensions["connecting"]
            connecting.deadline = math.inf
            await exchange.ask(
                request.method.encode(),
                url.raw_path,
                request.headers.raw,
                request.content,
                write_timeout=clock(limits.write_timeout),
            )
        except BaseException:
            exchange.let_go()
            await trio.aclose_forcefully(stream)
            raise
        # Without the answer's headers httpx can neither keep a cookie nor follow a redirect.
        return httpx.Response(
            exchange.status,
            stream=_Body(exchange, self._pool, origin, stream),
            extensions={"exchange": exchange},
        )


class _Body(httpx.AsyncByteStream):
    """The end of an answer. httpx never reads the body: the pipeline reads the exchange itself."""

    def __init__(
        self, exchange: Exchange, pool: Pool, origin: Origin, stream: trio.abc.Stream
    ) -> None:
        self._exchange = exchange
        self._pool = pool
        self._origin = origin
        self._stream = stream

    async def aclose(self) -> None:
        """Give the connection back if it is good for another request, else close it."""
        self._exchange.let_go()
        if self._exchange.reusable:
            await self._pool.give_back(self._origin, self._stream)
        else:
            await trio.aclose_forcefully(self._stream)


def url_of(base_url: str, path: str) -> str:
    """Put a format's path behind a base URL, before its query."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


def _tls() -> ssl.SSLContext:
    """Trust what the system trusts (`SSL_CERT_FILE` included) and certifi's list."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _quiet(logger: str) -> None:
    """Keep URLs, whose query may hold a key, out of a log whose level nobody has chosen."""
    if logging.getLogger(logger).level == logging.NOTSET:
        logging.getLogger(logger).setLevel(logging.WARNING)
