"""A live gateway before a scripted upstream, for clients that are no Trio programs.

    async with live("chat", script("tool call", "chat", "responses"), ...) as at:
        await in_asyncio(client, at.url)            # asyncio, in a thread of its own
        out = await run([node, "script.mjs", at.url])    # any program

Real sockets on the loopback; leaving asserts that the gateway holds no request any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import trio

from nursling.transports import config_from_dict, open_engine
from nursling.transports.http.app import create_app
from nursling.transports.http.server import serve
from nursling.transports.keys import Keys

from .conformance import cut
from .fake_upstream import FakeUpstream, Script, fake_upstream, stream, whole
from .kinds import KINDS, Kind
from .scripted import Api, Json


KEY = "sk-test-of-the-gateway"
MODEL = "m"
"""What clients ask for to get the scripts; `demo` is there too."""

T = TypeVar("T")


@dataclass
class Live:
    """The gateway's address, what it was asked, and what stands behind it."""

    url: str
    """Ends in `/v1`."""
    upstream: FakeUpstream
    asked: list[Json]
    """The bodies of requests, as clients sent them."""


@asynccontextmanager
async def live(
    upstream_api: Api, *scripts: Script, key: str | None = KEY, seconds: float = 30
) -> AsyncGenerator[Live, None]:
    """The gateway, and an upstream of this API that serves these scripts. All within `seconds`."""
    with trio.fail_after(seconds):
        async with fake_upstream(*scripts) as upstream:
            api = {"chat": "openai-completions", "responses": "openai-responses"}[upstream_api]
            config = config_from_dict(
                {
                    "keys": [{"name": "test", "secret": key}] if key else [],
                    "providers": {"up": {"api": api, "base_url": upstream.base_url}},
                    "models": [{"id": MODEL, "provider": "up"}, {"id": "demo", "provider": "demo"}],
                },
                environ={},
            )
            async with open_engine(config) as engine, trio.open_nursery() as nursery:
                app = create_app(engine, keys=Keys(config.keys), hosts=())
                asked: list[Json] = []
                [url] = await nursery.start(_serve, _overheard(app, asked))
                yield Live(f"{url}/v1", upstream, asked)
                nursery.cancel_scope.cancel()
            assert engine.gate.open == 0


def _overheard(app: Any, asked: list[Json]) -> Any:
    """The app, with the bodies of its requests written down."""

    async def listen(scope: Any, receive: Any, send: Any) -> None:
        body = b""

        async def hear() -> Any:
            nonlocal body
            message = await receive()
            if message["type"] == "http.request":
                body += message["body"]
                if body and not message["more_body"]:
                    asked.append(json.loads(body))
            return message

        await app(scope, hear, send)

    return listen


async def _serve(app: Any, task_status: Any) -> None:
    never = trio.Event()
    await serve(app, host="127.0.0.1", port=0, stop=never, now=never, task_status=task_status)


def kind(name: str) -> Kind:
    """The kind of content of this name."""
    return next(one for one in KINDS if one.name == name)


def text_of(name: str) -> str:
    """The text that a kind of content says."""
    return kind(name).said.texts[0]


def script(name: str, upstream: Api, client: Api, *, streamed: bool = True) -> Script:
    """The upstream's answer with this kind of content; a stream is cut at odd places."""
    reply = kind(name).upstream(upstream, client)
    assert reply is not None
    # OpenAI's stream helpers parse a call's arguments as soon as another call grows.
    reply = replace(reply, interleaved=False)
    if streamed:
        return stream(*cut(reply.stream(), name))
    return whole(reply.whole())


def answered(body: Json) -> dict[str, str]:
    """The id of each tool call in a request -> what the tool said, in either API."""
    if "messages" in body:
        results = [message for message in body["messages"] if message["role"] == "tool"]
        return {result["tool_call_id"]: _words(result["content"]) for result in results}
    results = [item for item in body["input"] if item.get("type") == "function_call_output"]
    return {result["call_id"]: _words(result["output"]) for result in results}


def _words(content: str | list[Json]) -> str:
    """The text of a content, whether or not it is written in parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


async def in_asyncio(ask: Callable[..., Coroutine[Any, Any, T]], *args: Any, **named: Any) -> T:
    """Run an asyncio program in a thread; the clock of `live` does not wait for it."""
    return await trio.to_thread.run_sync(
        lambda: asyncio.run(ask(*args, **named)), abandon_on_cancel=True
    )


class Done(NamedTuple):
    """A program that has ended."""

    status: int
    out: str
    errors: str


async def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Done:
    """Run a program to its end, with nothing to read.

    It gets our environment and `env`, but no keys of other services and no proxies.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "CODEX_")) and not name.lower().endswith("_proxy")
    }
    done = await trio.run_process(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
