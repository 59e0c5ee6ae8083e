"""Clients from npm against the running gateway: OpenAI's SDK, its Agents SDK, Vercel's AI SDK.

Each is a script of `npm/` that runs a tool loop and prints what it heard. They read the wire more
strictly than Python's do: the AI SDK checks every chunk and event with a schema.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from support.fake_upstream import Close, Script, stream, whole
from support.live import KEY, Live, answered, kind, live, run, script, text_of
from support.npm import Npm
from support.scripted import APIS, Api, ChatReply


pytestmark = pytest.mark.slow


class Client(NamedTuple):
    """A script, and which of its models it uses."""

    script: str
    api: str

    @property
    def wire(self) -> Api:
        """What it speaks."""
        return "responses" if self.api in {"responses", "stored"} else "chat"


CLIENTS = [
    Client("openai.mjs", "chat"),
    Client("openai.mjs", "responses"),
    Client("agents.mjs", "chat"),
    Client("agents.mjs", "responses"),
    Client("ai.mjs", "chat"),
    Client("ai.mjs", "responses"),
    Client("ai.mjs", "stored"),
    Client("ai.mjs", "compatible"),
]
STORED = Client("ai.mjs", "stored")

each_client = pytest.mark.parametrize(
    "client", CLIENTS, ids=lambda client: f"{client.script.removesuffix('.mjs')}-{client.api}"
)
each_upstream = pytest.mark.parametrize("upstream", APIS, ids=lambda api: f"over-{api}")
each_way = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


async def hear(npm: Npm, client: Client, at: Live, *, streamed: bool) -> dict[str, Any]:
    asked = {"url": at.url, "key": KEY, "api": client.api, "streamed": streamed}
    done = await run([*npm.script(client.script), json.dumps(asked)])
    assert done.status == 0, done.errors
    heard: dict[str, Any] = json.loads(done.out)
    return heard


def turns(names: tuple[str, ...], upstream: Api, client: Client, *, streamed: bool) -> list[Script]:
    return [script(name, upstream, client.wire, streamed=streamed) for name in names]


@each_client
@each_upstream
@each_way
async def test_the_tool_loop(npm: Npm, client: Client, upstream: Api, streamed: bool) -> None:
    """Text and a call, the tool's answer, the final text; usage is that of both turns."""
    names = ("text and tool call", "unicode")
    async with live(upstream, *turns(names, upstream, client, streamed=streamed)) as at:
        heard = await hear(npm, client, at, streamed=streamed)
    assert "error" not in heard, heard["error"]
    assert heard["text"] == text_of("unicode")
    assert heard["cities"] == ["Tokyo"]
    if streamed:
        assert "".join(heard["deltas"]) == "".join(text_of(name) for name in names)
        assert len(heard["deltas"]) > len(names)
    assert answered(at.upstream.requests[1].json()) == {"call_tokyo": "Sunny in Tokyo."}
    assert heard["tokens"] == 16


@each_client
@each_upstream
@each_way
async def test_two_tools_at_once(npm: Npm, client: Client, upstream: Api, streamed: bool) -> None:
    """Parallel calls are two calls, each with its own answer."""
    names = ("parallel tool calls, interleaved", "text")
    async with live(upstream, *turns(names, upstream, client, streamed=streamed)) as at:
        heard = await hear(npm, client, at, streamed=streamed)
    assert "error" not in heard, heard["error"]
    assert heard["text"] == text_of("text")
    assert heard["cities"] == ["Tokyo", "Paris \U0001f5fc"]
    assert answered(at.upstream.requests[1].json()) == {
        "call_tokyo": "Sunny in Tokyo.",
        "call_paris": "Sunny in Paris \U0001f5fc.",
    }


HEARS = {
    ("openai.mjs", "responses"): {"reasoning, raw", "reasoning, summary"},
    ("agents.mjs", "responses"): {"reasoning, summary"},
    ("ai.mjs", "responses"): {"reasoning, summary"},
    ("ai.mjs", "stored"): {"reasoning, summary"},
    ("ai.mjs", "compatible"): {"reasoning, raw", "reasoning, summary"},
}
"""The reasoning that a client has eyes for. The others read none, or `reasoning` of a message."""


@each_client
@each_upstream
@each_way
@pytest.mark.parametrize("name", ["reasoning, raw", "reasoning, summary"])
async def test_reasoning(
    npm: Npm, client: Client, upstream: Api, name: str, streamed: bool
) -> None:
    """A client that reads reasoning finds it; none finds it in the text."""
    async with live(upstream, *turns((name,), upstream, client, streamed=streamed)) as at:
        heard = await hear(npm, client, at, streamed=streamed)
    assert "error" not in heard, heard["error"]
    assert heard["text"] == text_of(name)
    said = kind(name).expected(upstream, "responses")
    if name in HEARS.get(client, ()):
        assert (said.thought or said.summaries[0]) in heard["reasoning"]
    else:
        assert not heard.get("reasoning")


ERROR = {
    "message": "Too long.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}


@each_client
@each_upstream
@each_way
async def test_an_error(npm: Npm, client: Client, upstream: Api, streamed: bool) -> None:
    """An upstream's 400 is the client's own exception, with its status, code and param."""
    async with live(upstream, whole({"error": ERROR}, 400)) as at:
        heard = await hear(npm, client, at, streamed=streamed)
    error = heard["error"]
    assert (error["status"], error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "messages",
    )
    assert "Too long." in error["message"]


@each_client
@each_upstream
async def test_a_stream_that_breaks(npm: Npm, client: Client, upstream: Api) -> None:
    """The client raises: half an answer is no answer."""
    reply = kind("text").upstream(upstream, client.wire)
    assert reply is not None
    half = reply.stream()[: -len(reply.stream()) // 2]
    async with live(upstream, [*stream(half, end=False), Close()]) as at:
        heard = await hear(npm, client, at, streamed=True)
    assert heard["error"]["message"]
    assert "text" not in heard


@each_way
async def test_items_by_reference(npm: Npm, streamed: bool) -> None:
    """What was said before may be named by its id, where the upstream keeps it."""
    names = ("text and tool call", "unicode")
    scripts = turns(names, "responses", STORED, streamed=streamed)
    async with live("responses", *scripts) as at:
        heard = await hear(npm, STORED, at, streamed=streamed)
    assert heard["text"] == text_of("unicode")
    second = at.upstream.requests[1].json()["input"]
    assert {"type": "item_reference", "id": "msg_up_0"} in second


def says(city: str, **more: Any) -> ChatReply:
    arguments = json.dumps({"city": city})
    call = {"name": "get_weather", "arguments": arguments}
    calls = [{"id": f"call_{city}", "type": "function", "function": call}]
    return ChatReply(({**more, "tool_calls": calls},), finish="tool_calls")


@each_way
async def test_items_that_only_we_can_know(npm: Npm, streamed: bool) -> None:
    """A chat upstream keeps nothing: what the client names is told it whole, reasoning too."""
    replies = [
        says("Tokyo", content="Let me see.", reasoning_content="Where?"),
        says("Paris"),
        ChatReply(({"content": "Sunny."},)),
    ]
    scripts = [stream(one.stream()) if streamed else whole(one.whole()) for one in replies]
    async with live("chat", *scripts) as at:
        heard = await hear(npm, STORED, at, streamed=streamed)
    assert "error" not in heard, heard["error"]
    assert (heard["text"], heard["cities"]) == ("Sunny.", ["Tokyo", "Paris"])
    named = [item["id"] for item in at.asked[2]["input"] if item.get("type") == "item_reference"]
    assert [own.partition("_")[0] for own in named] == ["rs", "msg"]
    _, first, _, second, _ = at.upstream.requests[2].json()["messages"]
    assert first["content"] == "Let me see."
    assert first["reasoning_content"] == "Where?"
    for message, city in [(first, "Tokyo"), (second, "Paris")]:
        [call] = message["tool_calls"]
        assert call["id"] == f"call_{city}"
        assert json.loads(call["function"]["arguments"]) == {"city": city}
