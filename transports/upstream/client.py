"""HTTP upstreams: who is asked, with which headers, and how many at once.

The law of this file: httpx makes the requests (URLs, headers), and one of two transports of httpx
carries them: ours (`direct.py`), or httpx's own for an upstream behind a proxy (`proxied.py`). No
client of httpx stands between (it costs more than all the rest of a request), so what such a client
does by default and a gateway must not, does not happen: proxies from the environment, redirects,
cookies, compressed replies, URLs in the log.

A connection's limiter token and socket are given back whatever happens. A request waits for a
token, a name, a TCP and a TLS connection under one clock, `connect_timeout`; from then on the
clocks are the pipeline's.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec
import trio

from nursling.engine import jsontext
from nursling.engine.errors import ConnectFailed, ConnectTimeout, RemoteProtocolError, UpstreamError
from nursling.engine.limits import DEFAULT_LIMITS, Limits, clock
from nursling.engine.pipeline import Source

from ..secret import Secret
from ..version import VERSION
from .direct import Direct
from .pool import Dial, dialer
from .proxied import Proxies, StockTransport, stock_transport


JSON = "application/json"
EVENTS = "text/event-stream"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One API to ask, with everything that belongs to asking it."""

    provider: str
    """Its name in the configuration: for messages, and for the cap on its requests."""
    base_url: str
    api_key: Secret | None = None
    headers: Mapping[str, Secret] = {}
    max_streams: int = 0
    """Requests at once over all endpoints of this provider; 0 = no cap."""
    proxy: Secret | None = None
    """The URL of a proxy to go through: secret, as it may hold a password."""
    limits: Limits = DEFAULT_LIMITS


class HttpClient:
    """All connections of one engine. Makes the upstreams; use it as an async context manager.

    `dial` and `stock` make the connections, `tls` says whom to trust; a simulation has its own.
    """

    def __init__(
        self,
        dial: Dial | None = None,
        limits: Limits = DEFAULT_LIMITS,
        *,
        stock: StockTransport = stock_transport,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        _quiet("httpx")
        _quiet("httpcore")
        context = tls or _tls()
        self._direct = Direct(dial or dialer(context), limits)
        self._proxies = Proxies(stock, context, limits)
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._direct.aclose()
        await self._proxies.aclose()

    async def sweep(self) -> NoReturn:
        """Close what is idle for too long, for ever. A task for whoever owns this client."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._direct.sweep)
            await self._proxies.sweep()

    def upstream(self, endpoint: Endpoint) -> HttpUpstream:
        """Make an upstream. All of one provider share its cap; the last one asked sets it."""
        limiter = self._limiters.setdefault(endpoint.provider, trio.CapacityLimiter(math.inf))
        through = self._proxies.through(endpoint.proxy) if endpoint.proxy else self._direct
        return HttpUpstream(endpoint, through, limiter)


class HttpUpstream:
    """An `Upstream` of the engine, over HTTP."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: httpx.AsyncBaseTransport,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self.endpoint = endpoint
        self._transport = transport
        self._limiter = limiter
        self._urls: dict[str, httpx.URL] = {}
        configured = {name: value.reveal() for name, value in endpoint.headers.items()}
        if endpoint.api_key:
            configured["authorization"] = f"Bearer {endpoint.api_key.reveal()}"
        ours = {
            "host": httpx.URL(endpoint.base_url).netloc.decode("ascii"),
            "accept-encoding": "identity",
            "user-agent": f"nursling/{VERSION}",
        }
        asking = {**ours, "content-type": JSON}
        self._listing = httpx.Headers({**ours, "accept": JSON, **configured})
        self._streamed = httpx.Headers({**asking, "accept": EVENTS, **configured})
        self._whole = httpx.Headers({**asking, "accept": JSON, **configured})

    def open(self, body: dict[str, Any], *, path: str, stream: bool) -> Conversation:
        """Send a request; enter with the head of the answer. See `Upstream.open`.

        Raises `ConnectFailed`, `ConnectTimeout`, `Truncated` (no answer), `RemoteProtocolError`
        (an answer that is not HTTP, or compressed) and `UpstreamError` (a redirect).
        """
        headers = self._streamed if stream else self._whole
        return self._converse("POST", path, headers, jsontext.dumps(body))

    async def models(self) -> list[str]:
        """Ask for the ids of its models (`GET /models`). Raises `UpstreamError`."""
        limits = self.endpoint.limits
        text = b""
        with trio.move_on_after(clock(limits.connect_timeout)) as scope:
            async with self._converse("GET", "/models", self._listing) as source:
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

    def _converse(
        self, method: str, path: str, headers: httpx.Headers, body: bytes = b""
    ) -> Conversation:
        url = self._urls.get(path)
        if url is None:  # parsing it costs more than sending
            url = self._urls[path] = httpx.URL(url_of(self.endpoint.base_url, path))
        # With `stream=` httpx adds no headers of its own, which it would do anew for each request.
        request = httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(body))
        request.read()
        if body:
            request.headers["content-length"] = str(len(body))
        return Conversation(self.endpoint, request, self._transport, self._limiter)


class Conversation(AbstractAsyncContextManager[Source]):
    """One request and its answer: entered with the head of the answer, left with nothing held."""

    def __init__(
        self,
        endpoint: Endpoint,
        request: httpx.Request,
        transport: httpx.AsyncBaseTransport,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._endpoint = endpoint
        self._request = request
        self._transport = transport
        self._limiter = limiter
        self._held = False
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> Source:
        try:
            await self._send()
            return self._source()
        except BaseException:
            await self._let_go()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._let_go()

    async def _send(self) -> None:
        """Wait for a token, a connection and the head of the answer."""
        limits, provider = self._endpoint.limits, self._endpoint.provider
        with trio.move_on_after(clock(limits.connect_timeout)) as connecting:
            await self._hold()
            self._request.extensions = {"connecting": connecting, "limits": limits}
            try:
                self._response = await self._transport.handle_async_request(self._request)
            except ConnectFailed as error:
                message = f"no connection to {provider!r}"
                raise ConnectFailed(message, detail=error.detail) from None
        if self._response is None:
            why = "no connection to" if self._held else "no free slot at"
            raise ConnectTimeout(f"{why} {provider!r} within {limits.connect_timeout:g} s")

    async def _hold(self) -> None:
        most = self._endpoint.max_streams or math.inf
        if self._limiter.total_tokens != most:
            self._limiter.total_tokens = most
        try:
            self._limiter.acquire_on_behalf_of_nowait(self)
        except trio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(self)
        self._held = True

    def _source(self) -> Source:
        assert self._response is not None  # noqa: S101 - else `_send` has raised
        source: Source = self._response.extensions["source"]
        if 300 <= source.status < 400:
            message = f"the upstream redirects (status {source.status}), which is not followed"
            raise UpstreamError(message)
        if source.headers.get("content-encoding", "identity").lower() != "identity":
            raise RemoteProtocolError("the upstream's reply is compressed, unasked")
        return source

    async def _let_go(self) -> None:
        """Give everything back. What the request held, its body above all, is free at once."""
        try:
            if self._response is not None:
                assert isinstance(self._response.stream, httpx.AsyncByteStream)  # noqa: S101 - a type
                await self._response.stream.aclose()
        finally:
            if self._held:
                self._limiter.release_on_behalf_of(self)


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
