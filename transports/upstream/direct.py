"""httpx's requests, carried over our own connections. The default way to an upstream.

The law of this file: a request is sent once. It is sent again only if what came of the first time
was nothing, on a connection that we had kept, and if that is safe: `may_repeat` is the rule, with
its reasons.

It makes nothing of its own: httpx has made the request, `exchange.py` speaks HTTP, `pool.py` keeps
the connections.
"""

from __future__ import annotations

import math

import httpx
import trio

from nursling.engine.errors import Truncated
from nursling.engine.limits import Limits, clock

from ..wire import Wire
from .exchange import Exchange
from .pool import Dial, Origin, Pool


class Direct(httpx.AsyncBaseTransport):
    """Carries requests to the hosts that they name.

    Two extensions of a request are for us: `limits`, and `connecting`, the cancel scope that is the
    connect clock; its deadline is lifted when there is a connection. The answer is for the pipeline
    to read: it is the extension `source` of the response, and `aclose` of the response's stream
    gives everything back, shielded, within `close_timeout`.
    """

    def __init__(self, dial: Dial, limits: Limits) -> None:
        self._pool = Pool(dial, limits)
        self.sweep = self._pool.sweep

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Connect, send, and wait for the head of the answer."""
        url = request.url
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        limits: Limits = request.extensions["limits"]
        connecting: trio.CancelScope = request.extensions["connecting"]
        kept = await self._pool.take(origin)
        if kept is not None:
            connecting.deadline = math.inf
            if answer := await self._ask(kept, request, limits, kept=True):
                return self._response(origin, answer, limits)
            connecting.deadline = trio.current_time() + clock(limits.connect_timeout)
        wire = await self._pool.dial(origin)
        connecting.deadline = math.inf
        answer = await self._ask(wire, request, limits, kept=False)
        assert answer is not None  # noqa: S101 - a connection that was not kept is never stale
        return self._response(origin, answer, limits)

    async def aclose(self) -> None:
        """Close all idle connections."""
        await self._pool.aclose()

    async def _ask(
        self, wire: Wire, request: httpx.Request, limits: Limits, *, kept: bool
    ) -> Exchange | None:
        """Send a request; `None` = nothing came of it, and it may be sent again."""
        before = wire.acknowledged() if kept else None
        exchange = Exchange(wire, max_head_bytes=limits.max_head_bytes)
        try:
            await exchange.ask(
                request.method.encode(),
                request.url.raw_path,
                request.headers.raw,
                request.content,
                write_timeout=clock(limits.write_timeout),
            )
        except BaseException as error:
            after = wire.acknowledged() if kept else None
            exchange.let_go()
            await _close(wire, limits)
            if isinstance(error, Truncated) and may_repeat(
                request.method,
                kept=kept,
                heard=exchange.heard,
                sent=exchange.sent,
                confirmed=None if before is None or after is None else after - before,
            ):
                return None
            raise
        return exchange

    def _response(self, origin: Origin, exchange: Exchange, limits: Limits) -> httpx.Response:
        # Without the answer's headers httpx can neither keep a cookie nor follow a redirect.
        return httpx.Response(
            exchange.status,
            stream=_Body(exchange, self._pool, origin, limits),
            extensions={"source": exchange},
        )


class _Body(httpx.AsyncByteStream):
    """The end of an answer. httpx never reads the body: the pipeline reads the exchange itself."""

    def __init__(self, exchange: Exchange, pool: Pool, origin: Origin, limits: Limits) -> None:
        self._exchange = exchange
        self._pool = pool
        self._origin = origin
        self._limits = limits

    async def aclose(self) -> None:
        """Give the connection back if it is good for another request, else close it."""
        self._exchange.let_go()
        over: Wire | None = self._exchange.wire
        if self._exchange.reusable:
            over = self._pool.give_back(self._origin, self._exchange.wire)
        if over is not None:
            await _close(over, self._limits)


def may_repeat(method: str, *, kept: bool, heard: bool, sent: bool, confirmed: int | None) -> bool:
    """Whether a request whose connection ended without an answer may be sent once more.

    `kept`: it was a connection that had carried a request before. `heard`: a byte of an answer has
    come. `sent`: all of the request was handed to the connection. `confirmed`: how many of its
    bytes the other side's system has acknowledged; `None` = this one does not tell.

    Upstreams close connections that nobody uses, and a request may cross with that end. This is
    nobody's failure, and the next connection is as good as any. But a generation costs money: it
    must not be asked for twice. RFC 9110 §9.2.2 lets a client repeat what is not idempotent if it
    knows "that the original request was never applied". So:

    * Not on a fresh connection: whatever ended it would end the next one. Not behind a byte of an
      answer: somebody has begun to work.
    * What only reads (GET): yes.
    * Not wholly sent: yes. Whoever has the part of it has no request: its body is shorter than its
      head says. (A refusal that was lost with the connection is told again.)
    * Wholly sent, and not one byte acknowledged: yes. A FIN says how much its sender's system had
      received before it: nothing, then, and behind a close nobody reads. This is proof. An RST
      carries no such word; but a system acknowledges within half a second (RFC 9293 §3.8.6.3;
      Linux 40 ms), so a server that had read the request has dropped it in less: no work was done.
    * Else no, as in Go's `net/http` (which repeats no POST that has left) and nginx (no POST
      without `non_idempotent`). curl and browsers repeat here, and may ask twice.
    """
    if not kept or heard:
        return False
    return method == "GET" or not sent or confirmed == 0


async def _close(wire: Wire, limits: Limits) -> None:
    deadline = trio.current_time() + limits.close_timeout
    with trio.CancelScope(shield=True, deadline=deadline):
        await wire.close()
