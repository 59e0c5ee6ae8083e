"""The OpenAI Agents SDK against the running gateway: agents that call tools, over every pair.

The SDK speaks both APIs; each runs over both kinds of upstream.
"""

from __future__ import annotations

import json
from typing import Any

import agents
import openai
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from support.fake_upstream import Close, Script, stream, whole
from support.live import KEY, MODEL, Live, answered, in_asyncio, kind, live, script, text_of
from support.scripted import APIS, Api, ChatReply, ResponsesReply


# The SDK would send traces of every run to OpenAI.
agents.set_tracing_disabled(disabled=True)

each_upstream = pytest.mark.parametrize("upstream", APIS, ids=lambda api: f"over-{api}")
each_client = pytest.mark.parametrize("client", APIS)
each_way = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


class Person(BaseModel):
    """What a structured answer holds."""

    name: str


class Weather:
    """A tool, and the cities that it was asked for."""

    def __init__(self) -> None:
        self.cities: list[str] = []

    def tool(self) -> agents.FunctionTool:
        async def get_weather(city: str) -> str:
            """The weather now."""
            self.cities.append(city)
            return f"Sunny in {city}."

        return function_tool(get_weather)


async def ask(
    at: Live,
    client: Api,
    weather: Weather,
    *,
    streamed: bool,
    settings: ModelSettings | None = None,
    **about: Any,
) -> Any:
    """One run of an agent with a tool; the run's result, with the events `seen` if streamed."""
    async with AsyncOpenAI(base_url=at.url, api_key=KEY, max_retries=0) as sdk:
        speaks = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}[client]
        agent = Agent(
            name="reporter",
            instructions="Tell the weather.",
            model=speaks(model=MODEL, openai_client=sdk),
            tools=[weather.tool()],
            model_settings=settings or ModelSettings(),
            **about,
        )
        if not streamed:
            return await Runner.run(agent, "Weather in Tokyo?")
        result: Any = Runner.run_streamed(agent, "Weather in Tokyo?")
        result.seen = [event async for event in result.stream_events()]
        return result


def words(result: Any) -> str:
    """The text that came as deltas."""
    return "".join(
        event.data.delta
        for event in result.seen
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    )


@each_upstream
@each_client
@each_way
async def test_an_agent_calls_its_tool(upstream: Api, client: Api, streamed: bool) -> None:
    """The model calls the tool, sees its answer, and the agent ends with the text."""
    weather = Weather()
    turns = [
        script(name, upstream, client, streamed=streamed) for name in ("text and tool call", "text")
    ]
    async with live(upstream, *turns) as at:
        result = await in_asyncio(
            ask, at, client, weather, streamed=streamed, settings=ModelSettings(include_usage=True)
        )
    assert result.final_output == text_of("text")
    assert weather.cities == ["Tokyo"]
    usage = result.context_wrapper.usage
    assert (usage.requests, usage.total_tokens) == (2, 16)
    if streamed:
        assert words(result) == text_of("text and tool call") + text_of("text")
    first, second = (asked.json() for asked in at.upstream.requests)
    assert "get_weather" in json.dumps(first["tools"])
    assert answered(second) == {"call_tokyo": "Sunny in Tokyo."}


@each_upstream
@each_client
@each_way
async def test_an_agent_calls_two_tools_at_once(upstream: Api, client: Api, streamed: bool) -> None:
    """Parallel calls are two calls, each with its own answer."""
    weather = Weather()
    names = ("parallel tool calls, interleaved", "unicode")
    turns = [script(name, upstream, client, streamed=streamed) for name in names]
    async with live(upstream, *turns) as at:
        result = await in_asyncio(ask, at, client, weather, streamed=streamed)
    assert result.final_output == text_of("unicode")
    assert sorted(weather.cities) == ["Paris \U0001f5fc", "Tokyo"]
    assert answered(at.upstream.requests[1].json()) == {
        "call_tokyo": "Sunny in Tokyo.",
        "call_paris": "Sunny in Paris \U0001f5fc.",
    }


@each_upstream
@each_way
async def test_reasoning_is_an_item_of_the_run(upstream: Api, streamed: bool) -> None:
    """The SDK files reasoning apart from the answer, and sends it back with the tool's answer."""
    weather = Weather()
    turns = [script("reasoning, raw", upstream, "responses", streamed=streamed)]
    async with live(upstream, *turns) as at:
        result = await in_asyncio(ask, at, "responses", weather, streamed=streamed)
    assert result.final_output == text_of("reasoning, raw")
    [reasoning] = [item for item in result.new_items if item.type == "reasoning_item"]
    assert reasoning.raw_item.content[0].text == kind("reasoning, raw").said.thought


@each_upstream
@each_way
async def test_reasoning_of_a_chat_agent(upstream: Api, streamed: bool) -> None:
    """The SDK's chat model finds reasoning beside the text."""
    weather = Weather()
    turns = [script("reasoning, raw", upstream, "chat", streamed=streamed)]
    async with live(upstream, *turns) as at:
        result = await in_asyncio(ask, at, "chat", weather, streamed=streamed)
    assert result.final_output == text_of("reasoning, raw")
    [reasoning] = [item for item in result.new_items if item.type == "reasoning_item"]
    assert kind("reasoning, raw").said.thought in json.dumps(reasoning.raw_item.model_dump())


@each_upstream
@each_client
@each_way
async def test_an_answer_of_a_given_type(upstream: Api, client: Api, streamed: bool) -> None:
    """`output_type` goes up as a JSON schema, and the answer is parsed."""
    turns = [_saying('{"name": "Ada"}', upstream, streamed=streamed)]
    async with live(upstream, *turns) as at:
        result = await in_asyncio(ask, at, client, Weather(), streamed=streamed, output_type=Person)
    assert result.final_output == Person(name="Ada")
    assert '"title": "Person"' in json.dumps(at.upstream.requests[0].json())


def _saying(said: str, upstream: Api, *, streamed: bool) -> Script:
    reply: ChatReply | ResponsesReply = ChatReply(({"content": said},))
    if upstream == "responses":
        part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
        reply = ResponsesReply(({**message, "content": [part]},))
    return stream(reply.stream()) if streamed else whole(reply.whole())


@each_upstream
@each_client
@each_way
async def test_an_error_is_the_sdks_exception(upstream: Api, client: Api, streamed: bool) -> None:
    """An upstream's rate limit is `RateLimitError`, whichever way the agent runs."""
    error = {"message": "Slow down.", "type": "rate_limit_error", "code": "rate_limit_exceeded"}
    async with live(upstream, whole({"error": error}, 429, retry_after="7")) as at:

        async def fails() -> openai.RateLimitError:
            with pytest.raises(openai.RateLimitError) as caught:
                await ask(at, client, Weather(), streamed=streamed)
            return caught.value

        raised = await in_asyncio(fails)
    assert raised.code == "rate_limit_exceeded"
    assert raised.response.headers["retry-after"] == "7"


@each_upstream
@each_client
async def test_a_stream_that_breaks_ends_no_run(upstream: Api, client: Api) -> None:
    """The run raises: half an answer is never its final output."""
    reply = kind("text").upstream(upstream, client)
    assert reply is not None
    half = reply.stream()[: -len(reply.stream()) // 2]
    async with live(upstream, [*stream(half, end=False), Close()]) as at:

        async def fails() -> Exception:
            with pytest.raises((openai.APIError, agents.AgentsException)) as caught:
                await ask(at, client, Weather(), streamed=True)
            return caught.value

        raised = await in_asyncio(fails)
    assert "the upstream closed the connection" in str(raised)
