"""The gateway before a scripted HTTP upstream, in virtual time and without any socket.

    async with stack("chat", Wire(*sse(b"data: ..."), RST)) as gateway:
        call = await gateway.ask("responses", stream=True)

Real: app, pipeline, formats, httpx and the connection pool. Scripted: what each connection to the
upstream brings. Leaving asserts that no slot, no request and no connection is left.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from prometheus_client import CollectorRegistry

from nursling.engine.limits import Limits
from nursling.transports import wire
from nursling.transports.config import config_from_dict
from nursling.transports.engine import Engine
from nursling.transports.http.app import create_app
from nursling.transports.http.gateway import Gateway, Record
from nursling.transports.upstream.client import HttpClient
from nursling.transports.upstream.pool import Origin

from .gateway import Call, OpenKeys
from .kinds import TEXT
from .network import stock_on
from .scripted import Api, ChatReply, Json, ResponsesReply


PATHS: dict[Api, str] = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
NAMES: dict[Api, str] = {"chat": "openai-completions", "responses": "openai-responses"}
ORIGIN: Origin = ("https", "upstream.example", 443)
PROXIED = False
"""Whether the way to the upstream leads through a proxy, which is it: see `proxied`."""
KEY = "sk-canary-of-the-upstream"
SILENCE = math.inf
RST = trio.BrokenResourceError("reset")

Step = bytes | float | Exception
"""What a connection does next: bring bytes, be silent for seconds, or break."""


class Wire(trio.abc.Stream):
    """One connection to the upstream; the script's end is a FIN."""

    def __init__(self, *steps: Step) -> None:
        self.sent = b""
        self.closed_at: float | None = None
        self.left = list(steps)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while self.left:
            match self.left.pop(0):
                case bytes(data):
                    return data
                case Exception() as broken:
                    raise broken
                case seconds:
                    await trio.sleep(seconds)
        return b""

    async def aclose(self) -> None:
        if self.closed_at is None:
            self.closed_at = trio.current_time()
        await trio.lowlevel.checkpoint()


def http(body: bytes, status: int = 200, **headers: str) -> list[Step]:
    """A whole answer; names of headers may be written with `_`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"content-type": "application/json", "content-length": str(len(body)), **named}
    return [head(status, named) + body]


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode()


def sse(*steps: Step, end: bool = True) -> list[Step]:
    """An event stream, one HTTP chunk for each piece; without `end` its last chunk is missing."""
    opened = head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
    made = [chunked(step) if isinstance(step, bytes) else step for step in steps]
    return [opened, *made, *([b"0\r\n\r\n"] if end else [])]


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def good(api: Api, text: str = TEXT) -> bytes:
    """The stream of a reply that says this."""
    if api == "chat":
        return ChatReply(({"content": text},)).stream()
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "id": "msg_up", "status": "completed", "role": "assistant"}
    return ResponsesReply(({**message, "content": [part]},)).stream()


TOLD = "The ho"


def begun(api: Api) -> bytes:
    """A stream up to the middle of a frame, with `TOLD` told."""
    frames = good(api).split(b"\n\n")
    told = next(number for number, one in enumerate(frames) if b'"The"' in one)
    return b"\n\n".join(frames[: told + 3])[:-9]


class Stack:
    """The gateway under test."""

    def __init__(self, app: Gateway, records: list[Record]) -> None:
        self.app = app
        self.records = records
        self.dialled: list[Origin] = []

    @property
    def registry(self) -> CollectorRegistry:
        return self.app.metrics.registry

    def ends(self, reason: str) -> float:
        """How many exchanges were counted with this end."""
        labels = {"reason": reason}
        return self.registry.get_sample_value("nursling_stream_ends_total", labels) or 0.0

    async def ask(self, client: Api, *, stream: bool, **more: Any) -> Call:
        """Make one whole call as a client of this API."""
        async with self.calling(client, stream=stream, **more) as call:
            await call.over.wait()
        return call

    @asynccontextmanager
    async def calling(
        self, client: Api, *, stream: bool, **more: Any
    ) -> AsyncGenerator[Call, None]:
        """Hold a call open; leaving is the client's leaving."""
        said: Json = {"messages": [{"role": "user", "content": "Hi"}]}
        body = {"model": "m", "stream": stream, **(said if client == "chat" else {"input": "Hi"})}
        call = Call("POST", PATHS[client], {"content-type": "application/json"}, "http", {})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run, self.app)
            call.send(msgspec.json.encode({**body, **more}))
            yield call
            call.leave()


@asynccontextmanager
async def stack(
    upstream: Api, *connections: Wire | Exception | float, limits: Limits | None = None, **more: Any
) -> AsyncGenerator[Stack, None]:
    """The gateway; each dial gets the next connection, fails with the error, or takes so long."""
    way = {"base_url": "https://upstream.example/v1"}
    if PROXIED:
        way = {"base_url": "http://elsewhere.example/v1", "proxy": "http://upstream.example:443"}
    config = config_from_dict(
        {
            "providers": {
                "up": {"api": NAMES[upstream], **way, "api_key": KEY, "max_streams": 1, **more},
            },
            "models": [{"id": "m", "provider": "up"}],
        },
        environ={},
    )  # fmt: skip
    config = msgspec.structs.replace(config, limits=limits or Limits())
    waiting = list(connections)

    async def connect(host: str) -> tuple[trio.abc.Stream, wire.Wire]:
        made = await dial(("https", host, 443))
        assert isinstance(made, wire.StreamWire)
        return made._stream, made

    async def dial(origin: Origin) -> wire.Wire:
        made.dialled.append(origin)
        match waiting.pop(0):
            case Wire() as stream:
                return wire.wire_of(stream)
            case Exception() as error:
                raise error
            case seconds:
                await trio.sleep(seconds)
                raise AssertionError("the dial was waited for")

    records: list[Record] = []
    async with HttpClient(dial, config.limits, stock=stock_on(connect)) as client:
        engine = Engine(config, client, {})
        made = Stack(create_app(engine, keys=OpenKeys(), log=records.append), records)
        yield made
        assert engine.gate.open == 0
        assert made.registry.get_sample_value("nursling_streams_in_flight") == 0
        assert all(limiter.borrowed_tokens == 0 for limiter in client._limiters.values())
    for connection in connections:
        assert not isinstance(connection, Wire) or connection.closed_at is not None
