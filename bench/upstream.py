"""The mock upstream: a process that says precomputed replies. `python -m bench.upstream`.

The law of this file: it must cost next to nothing per event, since it shares its core with the
load generator. So there is no framework: one epoll loop, and one `send` per write of the plan.
A saturated stream sends one write whenever its socket takes one, in turn with the others; a paced
one sends by the clock, and later writes do not drift when one is late.

It prints its port and ends when its standard input does, that is with its parent.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import json
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httptools

from .order import stamped
from .plan import PATHS, parse_plan
from .processes import announce
from .script import whole, writes


BACKLOG = 4096
READ_SIZE = 65536
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
ERROR = (
    b'{"error":{"message":"this upstream says the plans of the benchmark, and nothing else",'
    b'"type":"invalid_request_error"}}'
)
JSON_HEAD = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

Streamed = tuple[Iterable[bytes], float]
"""The writes of a stream's body, at least one, and the seconds between them (0 = none)."""

Answer = Streamed | bytes
"""A stream, or the JSON of a whole reply."""


class Loop:
    """The epoll loop: sockets that are ready, and streams whose time has come.

    `answer` is asked for each request: its path and body -> its answer, or None to refuse it.
    """

    def __init__(self, answer: Callable[[str, bytes], Answer | None]) -> None:
        self.answer = answer
        self.selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, Stream]] = []
        self._ticket = itertools.count()  # streams are not ordered; those of one time are
        self._open = True

    def listen(self) -> int:
        """Accept connections; return the port."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, None)
        return int(listener.getsockname()[1])

    def at(self, when: float, stream: Stream) -> None:
        """Have `stream` send its next write at this time."""
        heapq.heappush(self._due, (when, next(self._ticket), stream))

    def run(self) -> None:
        """Serve until standard input ends."""
        self.selector.register(sys.stdin, selectors.EVENT_READ, self)
        while self._open:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, ready in self.selector.select(wait):
                if key.data is None:
                    self._accept(key.fileobj)
                elif key.data is self:
                    self._open = False
                else:
                    key.data.on_ready(ready)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2].send_next()

    def _accept(self, listener: Any) -> None:
        with contextlib.suppress(OSError):  # it may have gone already
            sock, _ = listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(sock, selectors.EVENT_READ, Stream(self, sock))


class Stream:
    """One connection: a request, its stream, the next request."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._body: list[bytes] = []
        self._writes: Iterator[bytes] = iter(())
        self._rest = b""  # of a write that the socket did not take whole
        self._interval = 0.0
        self._next = 0.0
        self._events = selectors.EVENT_READ
        self._closed = False

    def on_ready(self, ready: int) -> None:
        """The socket can be read, or written, or both."""
        if ready & selectors.EVENT_READ:
            try:
                data = self._sock.recv(READ_SIZE)
                self._parser.feed_data(data)
            except (OSError, httptools.HttpParserError):
                data = b""
            if not data:
                self._close()
        if ready & selectors.EVENT_WRITE:
            self.send_next()

    def send_next(self) -> None:
        """Send the next write, or what is left of the last one."""
        if self._closed:
            return
        data = self._rest or next(self._writes, b"")
        if not data:
            self._wait_for(selectors.EVENT_READ)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        self._rest = data[sent:]
        if self._rest or not self._interval:
            self._wait_for(selectors.EVENT_READ | selectors.EVENT_WRITE)
        else:
            self._wait_for(selectors.EVENT_READ)
            self._next += self._interval
            self._loop.at(self._next, self)

    # What httptools calls.

    def on_url(self, url: bytes) -> None:
        """Part of the request's path."""
        self._path += url.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        """Part of the request's body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is here: answer it."""
        path, body = self._path, b"".join(self._body)
        self._path = ""
        self._body.clear()
        found = self._loop.answer(path, body)
        if found is None:
            self._start(iter([JSON_HEAD % (b"400 Bad Request", len(ERROR)) + ERROR]), 0.0)
        elif isinstance(found, bytes):
            self._start(iter([JSON_HEAD % (b"200 OK", len(found)) + found]), 0.0)
        else:
            pieces, interval = iter(found[0]), found[1]
            self._start(itertools.chain([HEAD + next(pieces)], pieces), interval)

    def _start(self, pieces: Iterator[bytes], interval: float) -> None:
        self._writes = pieces
        self._interval = interval
        self._next = time.monotonic()
        self.send_next()

    def _wait_for(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.selector.modify(self._sock, events, self)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.selector.unregister(self._sock)
            self._sock.close()


_whole = functools.cache(whole)


def answer(path: str, body: bytes) -> Answer | None:
    """Say the plan that the request's model names; None: it names none."""
    try:
        request: Any = json.loads(body)
        plan = parse_plan(request["model"])
        usage = (request.get("stream_options") or {}).get("include_usage") is True
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if plan is None or path != PATHS[plan.api]:
        return None
    if request.get("stream") is not True:
        return _whole(plan)
    pieces: Iterable[bytes] = writes(plan, usage and plan.api == "chat")
    if plan.dress == "stamped":  # as each one leaves
        pieces = (stamped(one, time.monotonic_ns()) for one in pieces)
    return pieces, plan.interval


def main() -> None:
    """Announce the port, and serve."""
    loop = Loop(answer)
    announce(loop.listen())
    loop.run()


if __name__ == "__main__":
    main()
