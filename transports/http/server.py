"""Hypercorn, guarded: the loop over a connection, and the server of all of them.

From Hypercorn come the HTTP/1.1 state machine, the ASGI streams (both in `protocol.py`) and the
lifespan. Its loop over a socket (`TCPServer`) and its `serve` are not used: each of their methods
had to be replaced, so here is our own loop, which subclasses and patches nothing global; a program
that runs its own Hypercorn beside us notices nothing. The reasons, each with its test:

* one client that stops reading made the server unstoppable (hypercorn#262): writes are bounded;
* a stray byte after a WebSocket upgrade (hypercorn#225), a malformed h2c upgrade or a non-ASCII
  HTTP/2 path (anycorn#68) killed the process: no WebSocket, no HTTP/2, and an exception here ends
  its own connection only;
* `Connection: close` was not honoured under quart-trio (hypercorn#330), because the disconnect
  that Hypercorn posts cancels the very task that closes: recycling a connection is shielded;
* Content-Length beside Transfer-Encoding (request smuggling), unbounded headers, no cap on
  connections: all refused in `Protocol` and `Server`;
* an answer that came before its request's end (413, 503) was lost in a reset: we linger.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework

from nursling.engine.limits import DEFAULT_LIMITS, Limits, clock

from ..wire import Gone, Stalled, Wire, wire_of
from .listening import listen, secured, tls_context, url_of
from .protocol import Journal, Protocol, error_answer


_log: structlog.stdlib.BoundLogger = structlog.get_logger("nursling.http.server")


class Connection:
    """One client's connection: what Hypercorn's `TCPServer` is, with bounds."""

    def __init__(self, server: Server, wire: Wire) -> None:
        self.wire = wire
        self.busy = False
        """Whether a request is at work."""
        self.broken = False
        """Whether a write has failed: nothing of what is written arrives any more."""
        self._server = server
        self._limits = server.limits
        self._writing = trio.Lock()
        self._backlog = b""  # what `write_now` has taken, and the wire has not
        self._reading = trio.CancelScope()
        self._finishing = False
        self._fresh = True  # no request has come on it yet
        self._tasks = TaskGroup()
        self._protocol = Protocol(self, server, self._tasks)

    async def run(self) -> None:
        """Serve the connection until either side ends it. Raises no `Exception`."""
        limits = self._limits
        try:
            with trio.CancelScope() as everything:
                async with self._tasks:
                    self._wait_for_head()
                    with self._reading:
                        await self._read()
                    await self._lost()
                    # The client is gone: whatever still works for it has this long to clean up.
                    everything.deadline = _in(limits.close_timeout)
        except* Exception as group:  # noqa: BLE001 - ends this connection and nothing else
            where = "".join(traceback.format_tb(_leaf(group).__traceback__))
            _log.error("connection_bug", bug=f"{type(_leaf(group)).__qualname__}\n{where}")
        finally:
            self._server.rest(self)
            with trio.CancelScope(shield=True, deadline=_in(limits.close_timeout)):
                await self.wire.close()
            del self._protocol  # it knows us: tied, both would wait for the garbage collector

    async def send(self, event: Event) -> None:
        """Take what the protocol wants done. Never cancelled half-way."""
        match event:
            case RawData():
                await self._write(event.data)
            case Closed():
                await self._finish()
            case Updated(idle=True):
                self._wait_for_head()
                self._server.rest(self)
                if self._server.draining:  # it began between this answer's head and its end
                    self.close_if_idle()
            case _:  # no longer idle
                self._fresh = False
                self._reading.deadline = math.inf
                self._server.work(self)

    def close_if_idle(self) -> None:
        """Close if a request was at work and none is: there is nothing to wait for.

        A client that has only just connected is heard: its request may be under way (a probe of
        `/readyz`, say), and `head_timeout` is all that it has.
        """
        if not self.busy and not self._fresh:
            self._reading.cancel()

    async def _read(self) -> None:
        """Feed the protocol; after our last word, only throw away what comes, for a while."""
        end = math.inf
        data = b"?"
        while data:
            try:
                data = await self.wire.read_some()
            except Gone:
                data = b""  # broken or closed, it is the client's end all the same
            if not self._finishing:
                await self._protocol.handle(RawData(data))
            else:
                end = min(end, _in(self._limits.head_timeout))
                self._reading.deadline = min(_in(self._limits.close_timeout), end)

    @property
    def free(self) -> bool:
        """Whether `write_now` may be called: nobody writes, and nothing waits to be written."""
        return self.wire.prompt and not self._backlog and not self._writing.locked()

    def write_now(self, data: bytes) -> bool:
        """Write without waiting; False if a rest is left, for `flush` or the next event."""
        self._backlog = data[self.wire.write_now(data) :]
        return not self._backlog

    async def flush(self) -> None:
        """Write what `write_now` has left, as long as it takes."""
        await self._write(b"")

    async def _write(self, data: bytes) -> None:
        # Most writes fit into the socket's buffer: they cost one system call and no scheduling
        # (a third of the cost of a small event, measured).
        if self._writing.locked():
            with trio.CancelScope(shield=True):  # bounded: the holder's own write is
                await self._writing.acquire()
        else:
            self._writing.acquire_nowait()
        try:
            data, self._backlog = self._backlog + data, b""
            data = data[self.wire.write_now(data) :]
            if data:
                await self.wire.write_all(data, self._limits.write_timeout)
        except Gone:
            self.broken = True
            self._reading.cancel()  # it may wait for a next request's turn, behind unread bytes
            await self._lost()
        except Stalled:
            _log.warning("client_stalled", seconds=self._limits.write_timeout)
            await self._cut()
        finally:
            self._writing.release()

    async def _finish(self) -> None:
        """Say that this was all; the reader lingers until the client has closed, or a while.

        Closing at once, with bytes of the request unread, would reset the connection, and the
        client might never see the answer.
        """
        if self._finishing:
            return
        self._finishing = True
        self._reading.deadline = _in(self._limits.close_timeout)
        self._server.rest(self)
        with trio.CancelScope(shield=True, deadline=_in(self._limits.close_timeout)):
            await self.wire.finish()
            await self._protocol.handle(Closed())

    async def _cut(self) -> None:
        self.broken = True
        self._reading.cancel()
        with trio.CancelScope(shield=True, deadline=_in(self._limits.close_timeout)):
            await self.wire.close()
            await self._protocol.handle(Closed())

    async def _lost(self) -> None:
        """Tell the app that its client is gone."""
        with trio.CancelScope(shield=True, deadline=_in(self._limits.close_timeout)):
            await self._protocol.handle(Closed())

    def _wait_for_head(self) -> None:
        """A request's head, or the next request, has this long to arrive."""
        self._reading.deadline = _in(clock(self._limits.head_timeout))


class Server:
    """All connections of one listener."""

    def __init__(self, app: ASGIFramework, limits: Limits, *, tls: bool) -> None:
        self.app: AppWrapper = ASGIWrapper(app)
        self.limits = limits
        self.tls = tls
        self.draining = False
        self.state: dict[str, Any] = {}
        self.context = WorkerContext(None)
        self.config = Config()
        self.config.accesslog = None  # its atoms hold the query string
        self.config.logger_class = Journal
        self.config.include_server_header = False
        self.config.h11_max_incomplete_size = limits.max_head_bytes
        self.config.keep_alive_max_requests = limits.max_requests
        self.connections: set[Connection] = set()
        self._turned_away = 0
        self._working: set[Connection] = set()
        self._resting = trio.Event()
        self._resting.set()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one accepted connection."""
        if len(self.connections) >= self.limits.max_connections:
            await self._turn_away(wire_of(stream))
            return
        if isinstance(stream, trio.SSLStream):
            try:
                with trio.fail_after(clock(self.limits.head_timeout)):
                    await stream.do_handshake()
            except (trio.BrokenResourceError, trio.TooSlowError):
                return  # whoever called us closes the stream
        connection = Connection(self, wire_of(stream))
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)

    async def _turn_away(self, wire: Wire) -> None:
        """Say 503 to a connection beyond the cap, if there is time for it."""
        if self.tls or self._turned_away >= self.limits.max_refused:
            return
        started = time.perf_counter()
        head, body = error_answer(503, "too many connections", since=started, retry=True)
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in head)
        wire.write_now(b"HTTP/1.1 503 Service Unavailable\r\n" + lines + b"\r\n" + body)
        self._turned_away += 1
        try:
            with trio.move_on_after(self.limits.close_timeout):
                await wire.finish()
                while await wire.read_some():
                    pass
        except Gone:
            return  # it did not wait for the answer
        finally:
            self._turned_away -= 1

    def work(self, connection: Connection) -> None:
        """A request has begun."""
        connection.busy = True
        if not self._working:
            self._resting = trio.Event()
        self._working.add(connection)

    def rest(self, connection: Connection) -> None:
        """A request has ended."""
        connection.busy = False
        self._working.discard(connection)
        if not self._working:
            self._resting.set()

    def drain(self) -> None:
        """Close what is idle; what is at work closes behind its answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.close_if_idle()

    async def rested(self) -> None:
        """Wait until no request is at work."""
        while self._working:
            await self._resting.wait()

    async def abort(self) -> None:
        """Close every socket under whoever uses it."""
        for connection in list(self.connections):
            await connection.wire.close()


async def serve(
    app: ASGIFramework,
    *,
    host: str,
    port: int,
    stop: trio.Event,
    now: trio.Event,
    limits: Limits = DEFAULT_LIMITS,
    tls_cert: Path | str | None = None,
    tls_key: Path | str | None = None,
    on_drain: Callable[[], None] = lambda: None,
    on_drained: Callable[[], None] = lambda: None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Bind, and serve an ASGI app until `stop`, as `serve_on` does.

    `task_status` reports the bound addresses as URLs (port 0 = any free one).
    Raises `OSError` if it cannot bind, `ssl.SSLError` if the certificate cannot be used.
    """
    tls = None if tls_cert is None else tls_context(tls_cert, tls_key)
    sockets = await listen(host, port, limits)
    urls = [url_of(listener, "http" if tls is None else "https") for listener in sockets]
    await serve_on(
        app,
        secured(sockets, tls),
        stop=stop,
        now=now,
        limits=limits,
        tls=tls is not None,
        on_drain=on_drain,
        on_drained=on_drained,
        on_serving=lambda: task_status.started(urls),
    )


async def serve_on(
    app: ASGIFramework,
    listeners: Iterable[trio.abc.Listener[Any]],
    *,
    stop: trio.Event,
    now: trio.Event,
    limits: Limits = DEFAULT_LIMITS,
    tls: bool = False,
    on_drain: Callable[[], None] = lambda: None,
    on_drained: Callable[[], None] = lambda: None,
    on_serving: Callable[[], None] = lambda: None,
    on_closed: Callable[[], None] = lambda: None,
) -> None:
    """Serve an ASGI app on listeners until `stop`, then drain; `now` ends the drain at once.

    `on_serving` is called when the app has started up and connections are being accepted, and
    `on_closed` whenever one of these is over. Drain:
    `on_drain` is called (the app refuses new work; the listeners stay open so that `/readyz` can
    say so), then requests at work have `drain_timeout`. Past it `on_drained` is called (the app
    ends them with an error), and `close_timeout` later every connection is closed.
    """
    server = Server(app, limits, tls=tls)

    async def handle(stream: trio.abc.Stream) -> None:
        try:
            await server.handle(stream)
        finally:
            on_closed()

    async with _lifespan(server), trio.open_nursery() as connections:
        try:
            async with trio.open_nursery() as accepting:
                for listener in listeners:
                    # `serve_listeners` waits a little when we are out of descriptors.
                    accepting.start_soon(
                        partial(
                            trio.serve_listeners,
                            handle,
                            [listener],
                            handler_nursery=connections,
                        )
                    )
                on_serving()
                await stop.wait()
                on_drain()
                server.drain()
                with trio.move_on_after(limits.drain_timeout):
                    await _either(server.rested, now.wait)
                accepting.cancel_scope.cancel()
            on_drained()
            with trio.move_on_after(limits.close_timeout):
                await _either(server.rested, now.wait)
        finally:
            with trio.CancelScope(shield=True, deadline=_in(limits.close_timeout)):
                await server.abort()
            connections.cancel_scope.deadline = _in(limits.close_timeout)


@asynccontextmanager
async def _lifespan(server: Server) -> AsyncGenerator[None]:
    """Run the app's lifespan around the serving."""
    lifespan = Lifespan(server.app, server.config, cast("Any", server.state))
    async with trio.open_nursery() as nursery:
        await nursery.start(lifespan.handle_lifespan)
        with suppress(trio.ClosedResourceError):  # an app without a lifespan may simply return
            await lifespan.wait_for_startup()
        yield
        with suppress(trio.ClosedResourceError):
            await lifespan.wait_for_shutdown()
        nursery.cancel_scope.cancel()


async def _either(*waits: Callable[[], Any]) -> None:
    """Wait until one of several is over."""
    async with trio.open_nursery() as nursery:

        async def wait(one: Callable[[], Any]) -> None:
            await one()
            nursery.cancel_scope.cancel()

        for one in waits:
            nursery.start_soon(wait, one)


def _leaf(error: BaseException) -> BaseException:
    """Find the first plain exception of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _in(seconds: float) -> float:
    return trio.current_time() + seconds
