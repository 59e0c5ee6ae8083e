"""HTTP/1.1 on one connection: Hypercorn's state machine over h11, with what it lacks.

The law of this file: what reaches the app is one unambiguous request, and every answer, also one
from below the app, has a reason phrase, an id and a body that says what was wrong. A head is
written together with the first piece of its body, one system call for a short answer; ASGI says
that an answer does not begin before that anyway.
"""

from __future__ import annotations

import re
import secrets
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, cast
from typing import Protocol as Interface  # "protocol" is HTTP here

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.logging import Logger
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveEvent,
    ASGISendEvent,
    ConnectionState,
    H11SendableEvent,
    HTTPScope,
    Scope,
)

from nursling.engine import jsontext
from nursling.engine.errors import ErrorInfo
from nursling.engine.formats.openai_errors import render_error
from nursling.engine.limits import Limits

from ..wire import Wire
from .express import EXTENSION, Express
from .stamps import Headers, new_request_id, own_request_id, stamps


MAX_BLANK = 4
"""Bytes of empty lines before a request line that are ignored (RFC 9112 §2.2)."""

Send = Callable[[ASGISendEvent | None], Awaitable[None]]

_CHUNKED = b"\r\ntransfer-encoding: chunked\r\n"
_AUTHORITY = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


class Refused(Exception):
    """A request that does not reach the app: answered with `status`, then closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ClientGone(OSError):
    """What the app sends does not arrive any more. ASGI 2.4 wants an `OSError` for it."""


class Talk(h11.Connection):
    """h11's view of a connection, which does not listen behind a client's last request.

    After `Connection: close` a server must not look at what follows (RFC 9112 §9.6); h11 calls it
    an error, and a stray line break would cost the client its answer (hypercorn#203).
    """

    def next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        """Return the next event; behind the last request there is only the end."""
        if self.their_state is h11.MUST_CLOSE:
            return h11.ConnectionClosed() if self.trailing_data[1] else h11.NEED_DATA
        return super().next_event()


class Journal(Logger):
    """What Hypercorn would say, said as the rest of the program does; never with a message."""

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Hypercorn's signature
        """Log that an app has raised: type and stack, as a message may quote what people wrote."""
        error = sys.exception()
        stack = "".join(traceback.format_tb(error.__traceback__)) if error else ""
        bug = f"{type(error).__qualname__}\n{stack}"
        structlog.get_logger("nursling.http.server").error("app_bug", bug=bug)


class Stream(HTTPStream):
    """One request's way to the app and back."""

    left: Callable[[], None] | None = None
    """Called when the client leaves, by an app that receives nothing any more."""

    async def handle(self, event: StreamEvent) -> None:
        """Take a part of the request, or its end."""
        if self.left is None:
            await super().handle(event)
        elif isinstance(event, StreamClosed):
            self.closed = True
            if self.state is not ASGIHTTPState.CLOSED:
                self.left()

    async def _send_error_response(self, status_code: int) -> None:
        """Answer for an app that has ended without an answer."""
        head, body = error_answer(
            status_code, "the app gave no answer", since=time.perf_counter(),
            request=self.scope["headers"],
        )  # fmt: skip
        await self.send(Response(stream_id=STREAM_ID, headers=head, status_code=status_code))
        await self.send(Body(stream_id=STREAM_ID, data=body))
        await self.send(EndBody(stream_id=STREAM_ID))
        self.state = ASGIHTTPState.CLOSED


class ShortWay:
    """The `Express` of one answer. It knows the protocol only: a stream would be tied to itself."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._number = protocol.keep_alive_requests

    @property
    def free(self) -> bool:
        """See `Express`."""
        protocol = self._protocol
        return protocol.keep_alive_requests == self._number and protocol.free

    def write_now(self, data: bytes) -> bool:
        """See `Express`."""
        return self._protocol.write_now(data)

    async def flush(self) -> None:
        """See `Express`."""
        await self._protocol.flush()

    def on_leaving(self, call: Callable[[], None]) -> None:
        """See `Express`."""
        stream = self._protocol.stream
        if self._protocol.keep_alive_requests != self._number or stream is None or stream.closed:
            call()
        elif isinstance(stream, Stream):
            stream.left = call


class Spawner(TaskGroup):
    """Starts the app. Here a scope passes that Hypercorn has made, and is added to."""

    def __init__(self, tasks: TaskGroup, express: Express) -> None:
        super().__init__()
        self._tasks = tasks
        self._express = express

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Scope, send: Send
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start it, and return what takes the parts of the request."""
        cast("HTTPScope", scope)["extensions"][EXTENSION] = cast("Any", self._express)
        return await self._tasks.spawn_app(app, config, scope, send)


class Connection(Interface):
    """What is known here of the connection that is served."""

    wire: Wire
    broken: bool

    @property
    def free(self) -> bool:
        """Whether `write_now` may be called."""
        ...

    def write_now(self, data: bytes) -> bool:
        """Write without waiting; False if a rest is left, which `flush` writes."""
        ...

    async def flush(self) -> None:
        """Write the rest, as long as it takes."""
        ...

    async def send(self, event: Event) -> None:
        """Take what the protocol wants done."""
        ...


class Server(Interface):
    """What is known here of the server that it belongs to."""

    app: AppWrapper
    config: Config
    context: WorkerContext
    state: dict[str, Any]
    limits: Limits
    tls: bool
    draining: bool


class Protocol(H11Protocol):
    """HTTP/1.1 and nothing else."""

    def __init__(self, connection: Connection, server: Server, task_group: TaskGroup) -> None:
        super().__init__(
            server.app,
            server.config,
            server.context,
            task_group,
            ConnectionState(server.state.copy()),
            server.tls,
            connection.wire.client,
            connection.wire.server,
            connection.send,
        )
        self.connection = self._new_talk()
        self._connection = connection
        self._tasks = task_group
        self._server = server
        self._request: Headers = []
        self._since = time.perf_counter()
        self._blank = 0
        self._head = b""
        self._chunked = False

    async def handle(self, event: Event) -> None:
        """Take bytes, or the end of the connection."""
        if isinstance(event, RawData):
            self._since = time.perf_counter()
            if event.data and self.connection.their_state is h11.MUST_CLOSE:
                return
            if event.data and self._between_requests():
                event = RawData(self._without_blank_lines(event.data))
                if not event.data:  # h11 would take nothing for the end
                    return
        try:
            await super().handle(event)
        except Refused as refused:
            await self._send_error(refused.status, refused.message)
            await self.send(Closed())

    def _new_talk(self) -> Talk:
        return Talk(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    def _between_requests(self) -> bool:
        h11_connection = self.connection
        return h11_connection.their_state is h11.IDLE and not h11_connection.trailing_data[0]

    def _without_blank_lines(self, data: bytes) -> bytes:
        """Take away what old clients put behind a body; h11 knows no such mercy."""
        found = len(data) - len(data.lstrip(b"\r\n"))
        skipped = min(found, MAX_BLANK - self._blank)
        self._blank += skipped
        return data[skipped:]

    async def _check_protocol(self, event: h11.Request) -> None:
        """Look at the head. Hypercorn switches to HTTP/2 here; we never do."""
        self._request = list(event.headers)
        names = {name for name, _ in event.headers}
        if {b"content-length", b"transfer-encoding"} <= names:
            raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
        if event.http_version not in {b"1.0", b"1.1"}:
            raise Refused(505, "this version of HTTP is not spoken here")
        size = sum(len(name) + len(value) + 4 for name, value in event.headers)
        if (
            len(event.headers) > self._server.limits.max_headers
            or size + len(event.target) > self._server.limits.max_head_bytes
        ):
            raise Refused(431, "the request's head is too large")

    async def _create_stream(self, request: h11.Request) -> None:
        """Hand a request to the app. A WebSocket handshake is one too: the app refuses it."""
        self._blank = 0
        target = _AUTHORITY.sub(b"", request.target, count=1) or b"/"
        if not target.startswith((b"/", b"*")):
            target = b"/" + target
        self.keep_alive_requests += 1
        self.stream = Stream(
            self.app,
            self.config,
            self.context,
            Spawner(self._tasks, ShortWay(self)),
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=self._request,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=target,
                state=self.connection_state,
            )
        )

    async def stream_send(self, event: StreamEvent) -> None:
        """Take what the app sends, and say so if this answer is the connection's last.

        It is while draining, and if the request's body is not read to its end: what follows on the
        connection then is the rest of that body.
        Raises `ClientGone`, towards the app, if what it sent cannot arrive.
        """
        if isinstance(event, Response):
            headers = [*event.headers, *self.config.response_headers("h11")]
            if self._is_last():
                headers.append((b"connection", b"close"))
            await self._send_h11_event(head_of(event.status_code, headers))
        else:
            await super().stream_send(event)
        if self._connection.broken and isinstance(event, Body | EndBody):
            raise ClientGone

    def _is_last(self) -> bool:
        """Whether no request may follow on the connection."""
        return (
            self._server.draining
            or self.connection.their_state is h11.SEND_BODY
            or self.keep_alive_requests >= self.config.keep_alive_max_requests
        )

    @property
    def free(self) -> bool:
        """Whether `write_now` may be called: inside a body, with nothing held back."""
        inside = self.connection.our_state is h11.SEND_BODY and not self._head
        return inside and self._connection.free

    def write_now(self, data: bytes) -> bool:
        """Write a piece of the body; False if a part of it waits.

        A chunk is framed here (RFC 9112 §7.1): it changes nothing in h11's state.
        """
        if self._chunked:
            return self._connection.write_now(b"%x\r\n%b\r\n" % (len(data), data))
        return self._connection.write_now(self.connection.send(h11.Data(data=data)) or b"")

    async def flush(self) -> None:
        """Write what waits. Raises `ClientGone` if it cannot arrive."""
        await self._connection.flush()
        if self._connection.broken:
            raise ClientGone

    async def _maybe_recycle(self) -> None:
        """Make ready for the next request, or close.

        Hypercorn tells the app of the disconnect here, upon which quart-trio cancels the task that
        we are in (hypercorn#330), so this is shielded.
        """
        self._request = []
        timeout = self._server.limits.close_timeout
        with trio.CancelScope(shield=True, deadline=trio.current_time() + timeout):
            await super()._maybe_recycle()
            # The reader goes on at our next checkpoint: there is none before the end of this.
            self._drop_blank_lines()
            return
        await self.send(Closed())

    def _drop_blank_lines(self) -> None:
        """Take away the empty lines that h11 holds already, pipelined behind the last request."""
        data, closed = self.connection.trailing_data
        if self.connection.their_state is h11.IDLE and data.startswith((b"\r", b"\n")):
            self.connection = self._new_talk()
            rest = self._without_blank_lines(data)
            if rest:
                self.connection.receive_data(rest)
            if closed:
                self.connection.receive_data(b"")

    async def _send_error_response(self, status_code: int) -> None:
        """Answer what h11 could not parse."""
        await self._send_error(status_code, "the request is not valid HTTP")

    async def _send_error(self, status: int, message: str) -> None:
        head, body = error_answer(status, message, since=self._since, request=self._request)
        headers = [*head, *self.config.response_headers("h11")]
        await self._send_h11_event(head_of(status, headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Write an event, a head with what follows it."""
        if isinstance(event, h11.InformationalResponse):  # Hypercorn's, without a phrase
            event = head_of(event.status_code, event.headers)
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            self._chunked = _CHUNKED in data.lower()
            return
        data, self._head = self._head + data, b""
        if data:
            await self.send(RawData(data))


def head_of(
    status: int, headers: Iterable[tuple[bytes, bytes]]
) -> h11.Response | h11.InformationalResponse:
    """Make the head of an answer, with its phrase."""
    kind = h11.Response if status >= 200 else h11.InformationalResponse
    return kind(status_code=status, headers=list(headers), reason=phrase_of(status).encode())


def error_answer(
    status: int,
    message: str,
    *,
    since: float,
    request: Iterable[tuple[bytes, bytes]] = (),
    retry: bool = False,
) -> tuple[Headers, bytes]:
    """Write an error of the HTTP layer itself: headers and body.

    `since`: when its cause came, by `time.perf_counter`. `request`: the request's headers, if they
    could be read.
    """
    kind, code = "invalid_request_error", phrase_of(status).lower().replace(" ", "_")
    if retry:
        kind = code = "overloaded"
    elif status >= 500:
        kind = "server_error"
    info = ErrorInfo(message=message, type=kind, code=code, status=status)
    body = jsontext.dumps(render_error(info))
    request_id = own_request_id(request) or new_request_id(secrets.token_hex(16))
    head = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *stamps(request_id, time.perf_counter() - since),
    ]
    return [*head, (b"retry-after", b"1")] if retry else head, body


def phrase_of(status: int) -> str:
    """Return the standard phrase of a status, or nothing."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
