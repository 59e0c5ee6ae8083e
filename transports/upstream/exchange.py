"""HTTP/1.1 towards an upstream: one request and its answer, over a Trio stream.

The law of this file: bytes in, bytes out, no pool and no clock of its own but the one for writes.
`read_some` returns all the body bytes that one read of the socket brought, so that a burst of
chunks is one batch for the pipeline. Parsing is httptools' (llhttp, strict).

Everything that goes wrong is a `Truncated` (the connection broke) or a `RemoteProtocolError` (what
came is not HTTP). Body bytes that came before it are handed out first.
"""

from __future__ import annotations

from collections.abc import Iterable

import httptools
import trio

from nursling.engine.errors import ConnectTimeout, NurslingError, RemoteProtocolError, Truncated

from ..reading import receive_some


WRITE_SIZE = 65536
"""One write: the write clock wants progress, not the whole body."""


class Exchange:
    """One request and its answer. A `Source` of the pipeline, once `ask` has returned."""

    def __init__(self, stream: trio.abc.Stream, *, max_head_bytes: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names in lower case; a repeated header is joined by commas."""
        self._stream = stream
        self._parser = httptools.HttpResponseParser(self)
        self._head_budget = max_head_bytes
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
        if any(b"\r" in line or b"\n" in line for line in lines):
            raise ValueError("a line break in the head of a request")
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        try:
            await self._send(head + body[:WRITE_SIZE], write_timeout)
            for start in range(WRITE_SIZE, len(body), WRITE_SIZE):
                await self._send(body[start : start + WRITE_SIZE], write_timeout)
        except trio.BrokenResourceError:
            pass  # an early refusal (413) may have been sent before the connection was cut
        while not self._headed:
            await self._read_head()

    async def _read_head(self) -> None:
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
        while not self._body:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return b""
            data = await self._receive()
            if data:
                self._feed(data)
            elif self._until_eof:
                self._complete = True
            else:
                self._failure = Truncated("the upstream closed the connection inside its reply")
        data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        return data

    async def _send(self, data: bytes, patience: float) -> None:
        with trio.move_on_after(patience) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise ConnectTimeout(f"the upstream took no byte of the request for {patience:g} s")

    async def _receive(self) -> bytes:
        try:
            return await receive_some(self._stream)
        except trio.BrokenResourceError:
            self._failure = Truncated("the connection to the upstream broke")
            raise self._failure from None

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
        chunked = self.headers.get("transfer-encoding", "").lower().endswith("chunked")
        self._until_eof = not chunked and "content-length" not in self.headers
        if self._until_eof:
            self._keep_alive = self._keep_alive and status in {204, 304}

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if not self._complete:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Take the answer as whole."""
        self._complete = self._headed
