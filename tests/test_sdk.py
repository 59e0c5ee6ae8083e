"""The official OpenAI SDK against the running gateway, in front of scripted upstreams.

Real sockets on the loopback, the whole stack, and a client that we did not write: streams, bodies,
tools, errors and the SDK's own stream helpers, over both kinds of upstream.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import openai
import pytest
import trio
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseCompletedEvent
from pydantic import BaseModel

from nursling.transports import config_from_dict, open_engine
from nursling.transports.http.app import create_app
from nursling.transports.http.server import serve
from nursling.transports.keys import Keys
from support.conformance import cut
from support.fake_upstream import (
    Close,
    FakeUpstream,
    Script,
    Stall,
    fake_upstream,
    stream,
    whole,
)
from support.kinds import KINDS, ROME, Kind, function_tool, namespace_tool
from support.scripted import APIS, Api, ChatReply, ResponsesReply


# At `[DONE]` the SDK leaves its generators, and those of its HTTP client, to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator '(openai|httpx|httpcore):ResourceWarning"
)

KEY = "sk-test-of-the-gateway"
SECONDS = 30


class Person(BaseModel):
    """What a structured answer holds."""

    name: str


@dataclass
class Desk:
    """A client of the gateway, and what stands behind it."""

    client: AsyncOpenAI
    upstream: FakeUpstream


@asynccontextmanager
async def desk(upstream_api: Api, *scripts: Script) -> AsyncGenerator[Desk, None]:
    """The SDK, the gateway, and an upstream of this API that serves these scripts."""
    with trio.fail_after(SECONDS):
        async with fake_upstream(*scripts) as upstream:
            api = {"chat": "openai-completions", "responses": "openai-responses"}[upstream_api]
            config = config_from_dict(
                {
                    "keys": [{"name": "test", "secret": KEY}],
                    "providers": {
                        "up": {"api": api, "base_url": upstream.base_url, "api_key": "sk-upstream"}
                    },
                    "models": [{"id": "m", "provider": "up"}],
                },
                environ={},
            )
            async with open_engine(config) as engine, trio.open_nursery() as nursery:
                app = create_app(engine, keys=Keys(config.keys), hosts=())
                [url] = await nursery.start(_serve, app)
                async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
                    yield Desk(client, upstream)
                nursery.cancel_scope.cancel()
            assert engine.gate.open == 0


async def _serve(app: Any, task_status: Any) -> None:
    never = trio.Event()
    await serve(app, host="127.0.0.1", port=0, stop=never, now=never, task_status=task_status)


def kind(name: str) -> Kind:
    return next(one for one in KINDS if one.name == name)


def script(name: str, upstream: Api, client: Api, *, streamed: bool = True) -> Script:
    """The upstream's answer with this kind of content, cut at odd places."""
    reply = kind(name).upstream(upstream, client)
    assert reply is not None
    # The SDK's stream helpers parse a call's arguments as soon as another call grows.
    reply = replace(reply, interleaved=False)
    if streamed:
        return stream(*cut(reply.stream(), name))
    return whole(reply.whole())


def text_of(name: str) -> str:
    return kind(name).said.texts[0]


HI: Any = [{"role": "user", "content": "Hello."}]
each_upstream = pytest.mark.parametrize("upstream", APIS, ids=lambda api: f"over-{api}")


# Chat completions.


@each_upstream
async def test_chat_streamed(upstream: Api) -> None:
    """Chunks come one by one, and say the text, the finish and the usage."""
    async with desk(upstream, script("unicode", upstream, "chat")) as at:
        answer = await at.client.chat.completions.create(
            model="m", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in answer]
        words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(words) == text_of("unicode")
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 8
        assert at.upstream.requests[0].headers["authorization"] == "Bearer sk-upstream"


@each_upstream
async def test_chat_whole(upstream: Api) -> None:
    """A body is asked as a body, and arrives as one."""
    async with desk(upstream, script("text", upstream, "chat", streamed=False)) as at:
        completion = await at.client.chat.completions.create(model="m", messages=HI)
        assert completion.choices[0].message.content == text_of("text")
        assert completion.usage is not None
        assert completion.usage.total_tokens == 8
        assert not at.upstream.requests[0].json().get("stream")


@each_upstream
async def test_chat_stream_helper_with_tools(upstream: Api) -> None:
    """The SDK's accumulator finds both calls, their arguments parsed."""
    name = "parallel tool calls, interleaved"
    tools: Any = [function_tool("chat", "get_weather")]
    async with desk(upstream, script(name, upstream, "chat")) as at:
        async with at.client.chat.completions.stream(model="m", messages=HI, tools=tools) as events:
            types = [event.type async for event in events]
            final = await events.get_final_completion()
        calls = final.choices[0].message.tool_calls or []
        assert [call.id for call in calls] == ["call_tokyo", "call_paris"]
        cities = [json.loads(call.function.arguments)["city"] for call in calls]
        assert cities == ["Tokyo", "Paris \U0001f5fc"]
        assert types.count("tool_calls.function.arguments.done") == 2
        assert final.choices[0].finish_reason == "tool_calls"


@each_upstream
async def test_chat_tool_turn(upstream: Api) -> None:
    """A call is made, its result is sent back, and the answer follows."""
    tools: Any = [function_tool("chat", "get_weather")]
    scripts = [
        script("tool call", upstream, "chat", streamed=False),
        script("text", upstream, "chat", streamed=False),
    ]
    async with desk(upstream, *scripts) as at:
        first = await at.client.chat.completions.create(model="m", messages=HI, tools=tools)
        [call] = first.choices[0].message.tool_calls or []
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Sunny."}
        said: Any = first.choices[0].message.model_dump(exclude_none=True)
        second = await at.client.chat.completions.create(
            model="m",
            messages=[*HI, said, result],
            tools=tools,
        )
        assert second.choices[0].message.content == text_of("text")
        asked = json.dumps(at.upstream.requests[1].json())
        assert "call_tokyo" in asked
        assert "Sunny." in asked


# Responses.


@each_upstream
async def test_responses_streamed(upstream: Api) -> None:
    """The events are the SDK's, in order, and the last one holds the whole response."""
    async with desk(upstream, script("unicode", upstream, "responses")) as at:
        events = [
            event
            async for event in await at.client.responses.create(
                model="m", input="Hello.", stream=True
            )
        ]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        last = events[-1]
        assert isinstance(last, ResponseCompletedEvent)
        assert last.response.output_text == text_of("unicode")
        assert last.response.usage is not None
        assert last.response.usage.total_tokens == 8


@each_upstream
async def test_responses_whole(upstream: Api) -> None:
    """A body is asked as a body, and `output_text` finds the text."""
    async with desk(upstream, script("text", upstream, "responses", streamed=False)) as at:
        response = await at.client.responses.create(model="m", input="Hello.")
        assert isinstance(response, Response)
        assert response.output_text == text_of("text")
        assert response.status == "completed"


@each_upstream
async def test_responses_stream_helper_with_tools(upstream: Api) -> None:
    """The SDK's accumulator finds both calls in the final response."""
    name = "parallel tool calls, interleaved"
    tools: Any = [function_tool("responses", "get_weather")]
    async with desk(upstream, script(name, upstream, "responses")) as at:
        async with at.client.responses.stream(model="m", input="Hello.", tools=tools) as events:
            async for _ in events:
                pass
            final = await events.get_final_response()
        calls = [item for item in final.output if item.type == "function_call"]
        assert [call.call_id for call in calls] == ["call_tokyo", "call_paris"]
        assert json.loads(calls[1].arguments) == {"city": "Paris \U0001f5fc"}


@each_upstream
async def test_responses_tools_in_a_namespace(upstream: Api) -> None:
    """Each call has its tool's namespace from the first event on; the upstream had the tool."""
    tools: Any = [namespace_tool(ROME)]
    name = "call of a tool in a namespace"
    async with desk(upstream, script(name, upstream, "responses")) as at:
        async with at.client.responses.stream(model="m", input="Hello.", tools=tools) as events:
            seen = [event async for event in events]
            final = await events.get_final_response()
        [added] = [event.item for event in seen if event.type == "response.output_item.added"]
        [call] = [item for item in final.output if item.type == "function_call"]
        assert added.type == "function_call"
        assert (added.namespace, added.name) == (call.namespace, call.name)
        assert (call.namespace, call.name) == (ROME.namespace, ROME.name)
        [offered] = at.upstream.requests[0].json()["tools"]
        joined = offered.get("function", {}).get("name")
        assert joined == ("mcp__weather__get_weather" if upstream == "chat" else None)


@each_upstream
async def test_responses_reasoning_stays_apart(upstream: Api) -> None:
    """Reasoning is an item of its own, and no part of the text."""
    async with desk(upstream, script("reasoning, raw", upstream, "responses")) as at:
        async with at.client.responses.stream(model="m", input="Hello.") as events:
            final = await events.get_final_response()
        [reasoning] = [item for item in final.output if item.type == "reasoning"]
        assert reasoning.content is not None
        assert reasoning.content[0].text == "A horse, so feet."
        assert final.output_text == text_of("text")


@each_upstream
async def test_responses_structured_output(upstream: Api) -> None:
    """`text_format` parses: the schema went up, and JSON came back."""
    said = '{"name": "Ada"}'
    reply: ChatReply | ResponsesReply = ChatReply(({"content": said},))
    if upstream == "responses":
        part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
        reply = ResponsesReply(({**message, "content": [part]},))
    async with desk(upstream, whole(reply.whole())) as at:
        response = await at.client.responses.parse(model="m", input="Hello.", text_format=Person)
        assert response.output_parsed == Person(name="Ada")
        assert "Person" in json.dumps(at.upstream.requests[0].json())


# Errors.


LIMIT = {
    "error": {
        "message": "Slow down.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
}


@each_upstream
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_a_rate_limit_with_its_headers(upstream: Api, streamed: bool) -> None:
    """429, code, `retry-after` and `x-ratelimit-*` of the upstream reach the SDK's exception."""
    answer = whole(LIMIT, 429, retry_after="7", x_ratelimit_remaining_requests="0")
    async with desk(upstream, answer) as at:
        for ask in (
            lambda: at.client.chat.completions.create(model="m", messages=HI, stream=streamed),
            lambda: at.client.responses.create(model="m", input="Hello.", stream=streamed),
        ):
            with pytest.raises(openai.RateLimitError) as caught:
                await ask()
            assert caught.value.code == "rate_limit_exceeded"
            assert caught.value.response.headers["retry-after"] == "7"
            assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
            assert "Slow down." in caught.value.message


@each_upstream
async def test_an_unknown_model(upstream: Api) -> None:
    """404 `model_not_found`, and nobody is asked."""
    async with desk(upstream, whole(b"")) as at:
        for ask in (
            lambda: at.client.chat.completions.create(model="horse", messages=HI),
            lambda: at.client.responses.create(model="horse", input="Hello."),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                await ask()
            assert caught.value.code == "model_not_found"
        assert at.upstream.requests == []


async def test_a_wrong_key() -> None:
    """401, and nobody is asked."""
    async with desk("chat", whole(b"")) as at:
        stranger = at.client.with_options(api_key="sk-wrong")
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="m", messages=HI)
        assert at.upstream.requests == []


async def test_what_the_upstream_cannot_do() -> None:
    """Two answers of a Responses upstream are 501; an earlier response at a chat one is 400."""
    async with desk("responses", whole(b"")) as at:
        with pytest.raises(openai.APIStatusError) as caught:
            await at.client.chat.completions.create(model="m", messages=HI, n=2)
        assert (caught.value.status_code, caught.value.code) == (501, "not_supported")
    async with desk("chat", whole(b"")) as at:
        with pytest.raises(openai.BadRequestError) as refused:
            await at.client.responses.create(model="m", input="And?", previous_response_id="resp_1")
        assert refused.value.param == "previous_response_id"


@each_upstream
async def test_a_stream_that_breaks_is_an_exception(upstream: Api) -> None:
    """What came before is kept, and then the SDK raises: no broken stream looks whole."""
    reply = kind("text").upstream(upstream, "chat")
    assert reply is not None
    part = reply.stream()[: -len(reply.stream()) // 2]
    async with desk(upstream, [*stream(part, end=False), Close()]) as at:
        answer = await at.client.chat.completions.create(model="m", messages=HI, stream=True)
        words = ""

        async def read() -> None:
            nonlocal words
            async for chunk in answer:
                words += chunk.choices[0].delta.content or ""

        with pytest.raises(openai.APIError):
            await read()
        assert words
        assert text_of("text").startswith(words)


@each_upstream
async def test_a_responses_stream_that_breaks_says_so(upstream: Api) -> None:
    """The last event is `response.failed`, with the error in the response."""
    reply = kind("text").upstream(upstream, "responses")
    assert reply is not None
    part = reply.stream()[: -len(reply.stream()) // 2]
    async with desk(upstream, [*stream(part, end=False), Close()]) as at:
        events = [
            event
            async for event in await at.client.responses.create(
                model="m", input="Hello.", stream=True
            )
        ]
        assert events[-1].type == "response.failed"
        assert events[-1].response.error is not None


async def test_the_models_are_listed() -> None:
    """`client.models.list()` and `retrieve` find the configured model."""
    async with desk("chat", whole(b"")) as at:
        assert "m" in [model.id async for model in at.client.models.list()]
        assert (await at.client.models.retrieve("m")).id == "m"


async def test_leaving_a_stream_closes_the_upstream() -> None:
    """The SDK's `close` in the middle of a stream reaches the upstream's connection."""
    reply = kind("text").chat
    assert reply is not None
    async with desk("chat", stream(reply.stream()[:600], Stall())) as at:
        events = await at.client.chat.completions.create(model="m", messages=HI, stream=True)
        async for _ in events:
            break
        await events.close()
        await at.upstream.wait_closed()
