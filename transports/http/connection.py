"""Quart's ASGI connections, with the two things that Quart does too early or not at all.

`Answer`: Quart sends the status before a body is entered, too late for a status that depends on
the upstream. An `Answer` sends its own start message, from within its own nursery (hot-path law:
the task that opens a nursery closes it, no generator in between). Quart-trio's watcher of
`http.disconnect` cancels it when the client leaves.

`Stamp`: what every answer carries, whoever wrote it: the request's id, our own time up to the
headers, CORS. It is put on the start message, so no handler can forget it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol, cast

from quart_trio.asgi import TrioASGIHTTPConnection, TrioASGIWebsocketConnection
from quart_trio.wrappers import TrioResponse

from nursling.engine import jsontext
from nursling.engine.errors import UpgradeRefused
from nursling.engine.formats.openai_errors import render_error

from .asgi import Message, Receive, Send
from .express import express_of
from .gateway import REFUSAL_HEADERS, UPGRADE_REFUSED, Gateway, MakeRunner
from .incoming import incoming_of
from .stamps import Headers, new_request_id, own_request_id, stamps


_NAME = re.compile(r"[a-z0-9-]+")


def header_pairs(headers: dict[str, str]) -> Headers:
    """Write headers for ASGI: names checked, values printable ASCII, bounded, one line each."""
    return [
        (name.encode(), safe_value(value))
        for name, value in headers.items()
        if _NAME.fullmatch(name) and name != "set-cookie"
    ]


def safe_value(value: str, limit: int = 1024) -> bytes:
    """Write any text as a header's value: what is not printable ASCII is escaped, the rest cut."""
    text = "".join(char if " " <= char <= "~" else repr(char)[1:-1] for char in value[:limit])
    return text.encode("ascii", "backslashreplace")[:limit].strip()


def header_of(scope: MutableMapping[str, Any], name: bytes) -> str | None:
    """Find a header of an ASGI scope."""
    value = next((value for key, value in scope["headers"] if key.lower() == name), None)
    return None if value is None else value.decode("latin-1")


class Stamp:
    """What one request is known by: its id, and the clock of our own time."""

    def __init__(self, app: Gateway, scope: MutableMapping[str, Any]) -> None:
        self._app = app
        self._scope = scope
        self._started = time.perf_counter()
        self._waited = 0.0
        self.status = 0
        self.express = express_of(scope)
        self.undelivered = False
        """Whether the server has said that something sent did not reach the client."""
        self.request_id = own_request_id(scope["headers"]) or new_request_id(
            app.new_identity().token
        )

    @property
    def elapsed(self) -> float:
        """Seconds since the request's head was read."""
        return time.perf_counter() - self._started

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Time in here is the client's or the upstream's, not ours."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - since

    def on(self, send: Send) -> Send:
        """Wrap `send` so that the start message carries the stamp.

        An `OSError` is how a server says that the client is gone (ASGI 2.4): it is noted, and the
        watcher of `http.disconnect` ends the request.
        """

        async def stamped(message: Message) -> None:
            if message["type"].endswith("response.start"):
                self.status = message["status"]
                message = {**message, "headers": [*message["headers"], *self._headers()]}
                self._app.metrics.requests.labels(self._route(), self.status).inc()
            try:
                await send(message)
            except OSError:
                self.undelivered = True

        return stamped

    def _headers(self) -> Headers:
        more = list(self._app.origins.headers(header_of(self._scope, b"origin")))
        if self.status == 401:
            more.append(("www-authenticate", "Bearer"))  # RFC 9110 §15.5.2
        ours = stamps(self.request_id, self.elapsed - self._waited)
        return ours + [(name.encode(), value.encode("latin-1")) for name, value in more]

    def _route(self) -> str:
        return self._app.route_of(self._scope["path"])


class Runner(Protocol):
    """Something that answers a request by itself."""

    async def run(self, send: Send, stamp: Stamp) -> None:
        """Send the start message, the body and its end."""
        ...


class Answer(TrioResponse):
    """A response that is sent by its `runner`."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(b"")
        self.runner = runner
        self.timeout = None  # the clocks are in `limits.py`; Quart's own cuts streams silently


class HTTPConnection(TrioASGIHTTPConnection):
    """One HTTP request of our app.

    Quart's way to a view costs about as much as all the rest of a small request. What is answered
    by a `Runner` needs none of it, and goes there directly, unless an embedder has put hooks of
    their own before the app's requests.
    """

    app: Gateway

    async def __call__(self, receive: Any, send: Any) -> None:
        """Serve it; every answer is stamped."""
        scope = cast("MutableMapping[str, Any]", self.scope)
        self._stamp = Stamp(self.app, scope)
        make = self.app.runner_at(scope)
        if make is not None:
            await self._run(make, receive, self._stamp.on(send))
            return
        # Quart reads its own limit here and now, and a reload may have changed ours.
        self.app.config["MAX_CONTENT_LENGTH"] = self.app.engine.limits.max_body_bytes
        await super().__call__(receive, cast("Any", self._stamp.on(send)))

    async def _run(self, make: MakeRunner, receive: Receive, send: Send) -> None:
        scope = cast("MutableMapping[str, Any]", self.scope)
        async with incoming_of(scope, receive) as incoming:
            await cast("Runner", make(incoming)).run(send, self._stamp)

    async def _send_response(self, send: Any, response: Any) -> None:
        """Let an `Answer` answer for itself."""
        if isinstance(response, Answer):
            await response.runner.run(send, self._stamp)
        else:
            await super()._send_response(send, response)


class WebSocketConnection(TrioASGIWebsocketConnection):
    """A WebSocket handshake under a server that hands it to us: refused with a true 426.

    Our own server never gets here: it reads the upgrade as the plain request that it also is.
    """

    app: Gateway

    async def __call__(self, receive: Any, send: Any) -> None:  # noqa: ARG002 - ASGI's signature
        """Refuse it, with a body where the server can carry one."""
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await send({"type": "websocket.close"})
            return
        stamped = Stamp(self.app, cast("MutableMapping[str, Any]", self.scope)).on(send)
        body = jsontext.dumps(render_error(UpgradeRefused(UPGRADE_REFUSED).info()))
        headers = {"content-type": "application/json", **REFUSAL_HEADERS}
        await stamped(
            {
                "type": "websocket.http.response.start",
                "status": UpgradeRefused.status,
                "headers": header_pairs(headers),
            }
        )
        await send({"type": "websocket.http.response.body", "body": body})
