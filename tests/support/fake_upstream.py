r"""A scripted upstream on 127.0.0.1: raw bytes, cuts, stalls and resets, on real sockets.

    async with fake_upstream(stream(b"data: {}\n\n", DONE)) as upstream:
        ... ask upstream.base_url ...
        upstream.requests[0].json()

A script is a list of steps; each request takes the next script, the last one serves the rest.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import trio


DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Send:
    """Write these bytes as they are."""

    data: bytes


@dataclass(frozen=True)
class Chunk:
    """Write these bytes as one HTTP chunk."""

    data: bytes


@dataclass(frozen=True)
class Stall:
    """Say nothing more, until the client is gone."""


@dataclass(frozen=True)
class Wait:
    """Say nothing, until the test sets this event."""

    event: trio.Event


@dataclass(frozen=True)
class Reset:
    """Cut the connection with an RST."""


@dataclass(frozen=True)
class Close:
    """Close the connection, cleanly as TCP goes."""


Step = Send | Chunk | Stall | Wait | Reset | Close
Script = Sequence[Step]


def head(status: int = 200, headers: Mapping[str, str] | None = None) -> Send:
    """A status line and headers."""
    lines = [f"HTTP/1.1 {status} Scripted"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return Send("\r\n".join([*lines, "", ""]).encode("latin-1"))


def whole(body: bytes | dict[str, Any], status: int = 200, **headers: str) -> list[Step]:
    """An answer of known length; header names may be written with `_`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    length = {"content-type": "application/json", "content-length": str(len(data))}
    return [head(status, {**length, **named}), Send(data)]


def stream(*chunks: bytes | Step, end: bool = True, **headers: str) -> list[Step]:
    """An event stream in HTTP chunks; `end=False` leaves the terminating chunk out."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    base = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    steps: list[Step] = [head(200, {**base, **named})]
    steps += [Chunk(chunk) if isinstance(chunk, bytes) else chunk for chunk in chunks]
    return [*steps, Send(b"0\r\n\r\n")] if end else steps


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    absolute: bool = False
    """Whether it named its host in its first line, as a proxy is asked."""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeUpstream:
    """The running server, and what it has seen."""

    scripts: list[Script]
    port: int = 0
    tls: bool = False
    requests: list[Asked] = field(default_factory=list)
    connections: int = 0
    """Accepted so far."""
    open: int = 0
    """Open now."""
    _idle: trio.Event = field(default_factory=trio.Event)

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    async def wait_closed(self, seconds: float = 5) -> None:
        """Wait until no connection is open."""
        with trio.fail_after(seconds):
            while self.open:
                self._idle = trio.Event()
                await self._idle.wait()

    async def serve(self, connection: trio.SocketStream, tls: ssl.SSLContext | None) -> None:
        self.connections += 1
        self.open += 1
        try:
            peer: trio.abc.Stream = connection
            if tls is not None:
                peer = trio.SSLStream(connection, tls, server_side=True, https_compatible=True)
            await self._converse(peer, connection.socket)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            self._idle.set()
            connection.socket.close()

    async def _converse(self, peer: trio.abc.Stream, sock: Any) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = await peer.receive_some()
                if not data:
                    return
                buffer += data
            raw, _, buffer = buffer.partition(b"\r\n\r\n")
            first, *lines = raw.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ", 2)
            headers = {
                name.lower(): value.strip()
                for name, _, value in (text.partition(":") for text in lines)
            }
            length = int(headers.get("content-length", "0"))
            while len(buffer) < length:
                data = await peer.receive_some()
                if not data:
                    return
                buffer += data
            absolute = not target.startswith("/")
            if absolute:
                target = urlunsplit(("", "", *urlsplit(target)[2:]))
            self.requests.append(Asked(method, target, headers, buffer[:length], absolute))
            buffer = buffer[length:]
            script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
            for step in script:
                match step:
                    case Send(data):
                        await peer.send_all(data)
                    case Chunk(data):
                        await peer.send_all(b"%x\r\n%b\r\n" % (len(data), data))
                    case Stall():
                        while await peer.receive_some():
                            pass
                        return
                    case Wait(event):
                        await event.wait()
                    case Reset():
                        linger = struct.pack("ii", 1, 0)
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        return
                    case Close():
                        return


@asynccontextmanager
async def fake_upstream(
    *scripts: Script, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[FakeUpstream, None]:
    """Run a scripted upstream on a free port of 127.0.0.1."""
    upstream = FakeUpstream(list(scripts), tls=tls is not None)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    upstream.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:

        async def handle(connection: trio.SocketStream) -> None:
            await upstream.serve(connection, tls)

        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield upstream
        nursery.cancel_scope.cancel()
