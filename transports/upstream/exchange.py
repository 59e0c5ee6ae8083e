"""HTTP/1.1 towards an upstream: one request and its answer, over a connection.

The law of this file: bytes in, bytes out, no pool and no clock of its own but the one for writes.
`read_some` returns all the body bytes that one read of the connection brought, so that a burst of
chunks is one batch for the pipeline. Parsing is httptools' (llhttp, strict).

Everything that goes wrong is a `Truncated` (the connection broke) or a `RemoteProtocolError` (what
came is not HTTP). Body bytes that came before it are handed out first.
"""

from __future__ import annotations

from collections.abc import Iterable

import httptools
import trio

from nursling.engine.errors import ConnectTimeout, NurslingError, RemoteProtocolError, Truncated

from ..wire import Gone, Stalled, Wire


class Exchange:
    """One request and its answer. A `Source` of the pipeline, once `ask` has returned."""

    def __init__(self, wire: Wire, *, max_head_bytes: int) -> None:
        self.wire = wire
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names in lower case; a repeated header is joined by commas."""
        self.sent = False
        """Whether the whole request was handed to the connection."""
        self.heard = False
        """Whether a byte of an answer has come."""
        self._parser = httptools.HttpResponseParser(self)
        self._max_head_bytes = self._head_budget = max_head_bytes
        self._headed = False
        self._complete = False
        self._until_eof = False
        self._keep_alive = False
        self._body: list[bytes] = []
        self._failure: NurslingError | None = None

    @property
    def reusable(self) -> bool:
        """Whether the answer was read to its end and the connection may carry another request."""
        return self._complete and self._keep_alive and self._failure is None

    def let_go(self) -> None:
        """Nothing is read any more; called once.

        The parser knows us, as we know it: tied, both would wait for the garbage collector.
        """
        del self._parser

    async def ask(
        self,
        method: bytes,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        *,
        write_timeout: float,
    ) -> None:
        """Send the request, and wait for the head of the answer (as long as it takes).

        Raises `Truncated`, `RemoteProtocolError`, and `ConnectTimeout` if the upstream does not
        take the request.
        """
        lines = [b"%b %b HTTP/1.1" % (method, target)]
        lines += [b"%b: %b" % header for header in headers]
        head = b"\r\n".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1:
            raise ValueError("a line break in the head of a request")
        request = head + b"\r\n\r\n" + body
        written = self.wire.write_now(request)
        if written < len(request):
            await self._send_rest(memoryview(request)[written:], write_timeout)
        else:
            self.sent = True
        while not self._headed:
            await self._read_head()
        if not self.sent:
            self._keep_alive = False

    async def _send_rest(self, rest: memoryview, patience: float) -> None:
        """Send what did not fit at once, with an ear for an answer that comes before its end.

        An upstream may refuse a request (413) whose body it does not take. Without that ear both
        sides would wait: it for nothing more, we for the write clock. RFC 9112 §9.5.
        """
        stalled = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear_refusal, nursery.cancel_scope)
            try:
                await self.wire.write_all(rest, patience, shield=False)
                self.sent = True
            except Gone:
                pass  # the refusal may have been sent before the connection was cut
            except Stalled:
                stalled = True
            nursery.cancel_scope.cancel()
        if stalled:
            raise ConnectTimeout(f"the upstream took no byte of the request for {patience:g} s")

    async def _hear_refusal(self, sending: trio.CancelScope) -> None:
        """Read up to the head of the answer; if it is no success, stop sending."""
        try:
            while not self._headed:
                await self._read_head()
        except NurslingError as error:
            self._failure = error
        if self._failure is not None or self.status >= 300:
            sending.cancel()

    async def _read_head(self) -> None:
        if self._failure is not None:
            raise self._failure
        data = await self._receive()
        if not data:
            raise Truncated("the upstream closed the connection before it answered")
        self._head_budget -= len(data)
        self._feed(data)
        if self._headed:
            return
        if self._head_budget <= 0:
            raise RemoteProtocolError("the head of the upstream's answer is too long")
        if self._failure is not None:
            raise self._failure

    async def read_some(self) -> bytes:
        """Return the body bytes that one read brings; `b""` at the end of the answer."""
        budget = self._max_head_bytes  # of what is no body: extensions of chunks, trailers
        while not self._body:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return b""
            data = await self._receive()
            budget -= len(data)
            if data:
                self._feed(data)
                if budget <= 0 and not self._body and not self._complete:
                    self._failure = RemoteProtocolError("the reply has an endless trailer")
            elif self._until_eof:
                self._complete = True
            else:
                self._failure = Truncated("the upstream closed the connection inside its reply")
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        return data

    async def _receive(self) -> bytes:
        try:
            data = await self.wire.read_some()
        except Gone:
            self._failure = Truncated("the connection to the upstream broke")
            raise self._failure from None
        self.heard = self.heard or bool(data)
        return data

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._failure = RemoteProtocolError("the upstream wants to speak another protocol")
        except httptools.HttpParserError as error:
            if self._complete:
                self._keep_alive = False  # bytes behind the answer: not part of it, and not wanted
            else:
                self._failure = RemoteProtocolError(f"the upstream does not speak HTTP: {error}")

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Notice an answer that nobody asked for: this connection carries no other request."""
        if self._complete:
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        if self._headed:
            return  # a trailer
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Take the head as read, unless it is an interim answer (100, 103)."""
        if self._complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.headers.clear()
            return
        self.status = status
        self._headed = True
        self._keep_alive = self._parser.should_keep_alive()
        coding = self.headers.get("transfer-encoding", "").lower()
        if coding not in {"", "chunked"}:
            self._failure = RemoteProtocolError("the upstream's reply is in a coding of its own")
        self._until_eof = not coding and "content-length" not in self.headers
        if self._until_eof:
            self._keep_alive = self._keep_alive and status in {204, 304}

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if not self._complete:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Take the answer as whole."""
        self._complete = self._headed
