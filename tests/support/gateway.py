"""The HTTP side under test: a wire format one can read, an engine of scripts, raw clients.

The format `plain` speaks JSON events upstream (as `toy` does) and, towards the client, frames of
one event each, so that a test reads off what was encoded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
import trio.testing

from nursling.engine.accumulate import FinishedReply
from nursling.engine.errors import BadRequest, ErrorInfo, ModelNotFound, Unauthorized
from nursling.engine.events import Event
from nursling.engine.formats.base import Encoder, Format, Identity
from nursling.engine.formats.openai_errors import render_error
from nursling.engine.formats.responses.recall import Recall
from nursling.engine.limits import Limits
from nursling.engine.pipeline import Target
from nursling.engine.request import Message, Request, Text
from nursling.transports.gate import Gate
from nursling.transports.http.app import create_app
from nursling.transports.http.gateway import Gateway, Record
from nursling.transports.http.server import Server, serve
from support.toy import HELLO, Script, ToyFormat


BEAT = b": beat\n\n"

PATIENCE = 30.0
"""Seconds after which a test with real sockets is lost. What must be fast says so itself; a loaded
machine that measures coverage is slow."""


class PlainEncoder:
    def encode(self, events: list[Event]) -> bytes:
        return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)

    def beat(self) -> bytes:
        return BEAT


class PlainFormat(ToyFormat):
    def __init__(self, name: str = "chat", path: str = "/chat/completions") -> None:
        self.name = name
        self.path = path

    def parse_request(self, body: Any) -> Request:
        if not isinstance(body.get("model"), str):
            raise BadRequest("model is missing", param="model")
        items = [Message(role="user", content=[Text(str(body.get("say", "")))])]
        return Request(model=body["model"], items=list(items), stream=body.get("stream", False))

    def encoder(self, request: Request, identity: Identity) -> Encoder:
        return PlainEncoder()

    def render_reply(
        self, reply: FinishedReply, request: Request, identity: Identity
    ) -> dict[str, Any]:
        return {"id": reply.id, "text": reply.text}

    def render_error(self, error: ErrorInfo) -> dict[str, Any]:
        return render_error(error)


class ScriptedEngine:
    """Every model is a script, or a bug to raise."""

    def __init__(self, limits: Limits, **models: Script | Exception) -> None:
        self.limits = limits
        self.scripts = models
        self.gate = Gate(limits.max_streams)
        self.keys = OpenKeys()
        self.recall = Recall(limits)
        self.formats: Mapping[str, Format] = {
            "chat": PlainFormat(),
            "responses": PlainFormat("responses", "/responses"),
        }

    def resolve(self, model: str) -> Target:
        script = self.scripts.get(model)
        if script is None:
            raise ModelNotFound(f"no model {model}", param="model")
        if isinstance(script, Exception):
            raise script
        return Target(
            upstream=script,
            format=ToyFormat(),
            model=model,
            provider="scripted",
            limits=self.limits,
        )

    def models(self) -> list[dict[str, Any]]:
        return [{"id": name, "object": "model"} for name in self.scripts]


class OpenKeys:
    def check(self, headers: Mapping[str, str]) -> str:
        return "anyone"


class OneKey:
    def check(self, headers: Mapping[str, str]) -> str:
        if headers.get("authorization") != "Bearer right":
            raise Unauthorized("no key, or a wrong one")
        return "laptop"


class World:
    """An app over scripts, with what it logged; `ask` calls it by ASGI, without any socket."""

    def __init__(
        self, limits: Limits | None = None, *, keys: Any = None, app: Any = None, **models: Any
    ) -> None:
        self.limits = limits or Limits()
        self.engine = ScriptedEngine(self.limits, **(models or {"m": Script(HELLO)}))
        self.records: list[Record] = []
        counter = iter(range(1, 1_000_000))
        self.app: Gateway = create_app(
            self.engine,
            keys=keys or OpenKeys(),
            log=self.records.append,
            new_identity=lambda: Identity(f"{next(counter):032x}", 1),
            **(app or {}),
        )

    def assert_clean(self) -> None:
        """No slot and no connection to an upstream is left."""
        assert self.app.engine.gate.open == 0
        assert self.app.metrics.in_flight._value.get() == 0
        for script in self.engine.scripts.values():
            assert not isinstance(script, Script) or script.open_now == 0

    @asynccontextmanager
    async def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        kind: str = "http",
        beside: bool = False,
        **scope: Any,
    ) -> AsyncGenerator[Call, None]:
        """Hold an ASGI call open; leaving disconnects the client and checks what is left.

        `beside`: another call is open still, so there is something left.
        """
        call = Call(method, path, headers or {}, kind, scope)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run, self.app)
            yield call
            call.leave()
        if not beside:
            self.assert_clean()

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **scope: Any,
    ) -> Call:
        """Make a whole call; `body` is bytes, or JSON."""
        if body is not None and not isinstance(body, bytes):
            body = msgspec.json.encode(body)
            headers = {"content-type": "application/json", **(headers or {})}
        async with self.call(method, path, headers, **scope) as call:
            call.send(body or b"")
            await call.over.wait()
        return call


class Call:
    """One ASGI call, seen from the server's side."""

    def __init__(
        self, method: str, path: str, headers: Mapping[str, str], kind: str, scope: dict[str, Any]
    ) -> None:
        query = path.partition("?")
        self.scope = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": query[0],
            "raw_path": query[0].encode(),
            "query_string": query[2].encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {},
            "state": {},
            **scope,
        }
        self.over = trio.Event()
        self.started = trio.Event()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.times: list[float] = []
        self.ended = False
        self._inbox, self._outbox = trio.open_memory_channel[dict[str, Any]](100)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    def send(self, data: bytes, *, more: bool = False) -> None:
        self._inbox.send_nowait({"type": "http.request", "body": data, "more_body": more})

    def leave(self) -> None:
        self._inbox.send_nowait({"type": "http.disconnect"})

    async def run(self, app: Any) -> None:
        await app(self.scope, self._outbox.receive, self._take)
        self.over.set()

    async def _take(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        if message["type"].endswith("response.start"):
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.started.set()
        elif message["type"] == "websocket.close":
            self.ended = True
        else:
            self.pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                self.ended = True
                self.over.set()


@asynccontextmanager
async def connected(
    world: World, server: Server | None = None, *, size: int | None = None
) -> AsyncGenerator[trio.abc.Stream, None]:
    """Be one client. `size` bounds what the connection holds unread (default: no bound)."""
    server = server or Server(world.app, world.limits, tls=False)
    ours, theirs = (
        trio.testing.memory_stream_pair() if size is None else trio.testing.lockstep_stream_pair()
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, ours)
        yield theirs
        await theirs.aclose()
    assert not server.connections
    world.assert_clean()


class Served:
    """A world behind a real server on a free port of the loopback."""

    def __init__(self, url: str, stop: trio.Event, now: trio.Event) -> None:
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.stop = stop
        self.now = now

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, read until the server closes."""
        async with await self.connect() as stream:
            await stream.send_all(data)
            return await read_to_end(stream)

    async def ok(self) -> bool:
        """Whether a plain request is answered."""
        answer = await self.raw(
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        return answer.startswith(b"HTTP/1.1 200")


@asynccontextmanager
async def serving(
    app: Any,
    limits: Limits,
    *,
    on_drain: Callable[[], None] = lambda: None,
    on_drained: Callable[[], None] = lambda: None,
    **options: Any,
) -> AsyncGenerator[Served, None]:
    """Serve an app; leaving stops it at once, and fails if that takes long or leaves a task."""
    stop, now = trio.Event(), trio.Event()
    await trio.testing.wait_all_tasks_blocked()  # those of the engine around us have all begun
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:

        async def run(task_status: Any) -> None:
            await serve(
                app,
                host="127.0.0.1",
                port=0,
                limits=limits,
                stop=stop,
                now=now,
                on_drain=on_drain,
                on_drained=on_drained,
                task_status=task_status,
                **options,
            )

        urls = await nursery.start(run)
        yield Served(urls[0], stop, now)
        stop.set()
        now.set()
        nursery.cancel_scope.deadline = trio.current_time() + PATIENCE
    assert not nursery.cancel_scope.cancelled_caught, "the server did not stop"
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def read_to_end(stream: trio.abc.ReceiveStream, seconds: float = PATIENCE) -> bytes:
    data = b""
    with trio.fail_after(seconds):
        try:
            async for piece in stream:
                data += piece
        except trio.BrokenResourceError:
            data += b"<reset>"
    return data


async def read_until(
    stream: trio.abc.ReceiveStream, mark: bytes, seconds: float = PATIENCE
) -> bytes:
    data = b""
    with trio.fail_after(seconds):
        while mark not in data:
            piece = await stream.receive_some(65536)
            assert piece, data
            data += piece
    return data


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Wait until something is so; return how long it took."""
    started = trio.current_time()
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event of its own
            await trio.sleep(0.001)
    return trio.current_time() - started


def post(body: Any, *, path: str = "/v1/chat/completions", head: bytes = b"") -> bytes:
    """Write a request."""
    text = msgspec.json.encode(body)
    return (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n%s\r\n%s"
    ) % (path.encode(), len(text), head, text)
