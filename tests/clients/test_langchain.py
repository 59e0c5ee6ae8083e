"""LangChain's ChatOpenAI against the running gateway, with and without its Responses mode.

LangChain does not always ask as OpenAI's SDK does: it streams usage, merges chunks by index, and
keeps content as blocks. The tool loop is written out, so that each turn can be looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from support.fake_upstream import Close, stream, whole
from support.live import KEY, MODEL, Live, answered, in_asyncio, kind, live, script, text_of
from support.scripted import APIS, Api


each_upstream = pytest.mark.parametrize("upstream", APIS, ids=lambda api: f"over-{api}")
each_client = pytest.mark.parametrize("client", APIS)
each_way = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


@tool
def get_weather(city: str) -> str:
    """The weather now."""
    return f"Sunny in {city}."


def chat_model(at: Live, client: Api, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        base_url=at.url,
        api_key=SecretStr(KEY),
        max_retries=0,
        stream_usage=True,
        use_responses_api=client == "responses",
        **more,
    )


async def said(model: Any, messages: list[Any], *, streamed: bool) -> AIMessage:
    """One answer: as LangChain returns it whole, or as it adds up chunks."""
    if not streamed:
        answer = await model.ainvoke(messages)
        assert isinstance(answer, AIMessage)
        return answer
    chunks: AsyncIterator[AIMessageChunk] = model.astream(messages)
    total: AIMessageChunk | None = None
    async for chunk in chunks:
        total = chunk if total is None else total + chunk
    assert total is not None
    return total


@each_upstream
@each_client
@each_way
async def test_the_tool_loop(upstream: Api, client: Api, streamed: bool) -> None:
    """Text and a call, the tool's answer, the final text; usage with both."""
    turns = [
        script(name, upstream, client, streamed=streamed) for name in ("text and tool call", "text")
    ]

    async def loop(at: Live) -> tuple[AIMessage, AIMessage]:
        model = chat_model(at, client).bind_tools([get_weather])
        messages: list[Any] = [HumanMessage("Weather in Tokyo?")]
        first = await said(model, messages, streamed=streamed)
        tool_: BaseTool = get_weather
        answers = [await tool_.ainvoke(call) for call in first.tool_calls]
        assert all(isinstance(answer, ToolMessage) for answer in answers)
        return first, await said(model, [*messages, first, *answers], streamed=streamed)

    async with live(upstream, *turns) as at:
        first, second = await in_asyncio(loop, at)
    assert first.text == text_of("text and tool call")
    [call] = first.tool_calls
    assert (call["id"], call["name"], call["args"]) == (
        "call_tokyo",
        "get_weather",
        {"city": "Tokyo"},
    )
    assert second.text == text_of("text")
    for answer in (first, second):
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["total_tokens"] == 8
    assert answered(at.upstream.requests[1].json()) == {"call_tokyo": "Sunny in Tokyo."}


@each_upstream
@each_client
@each_way
async def test_parallel_calls(upstream: Api, client: Api, streamed: bool) -> None:
    """Calls whose chunks LangChain merges by index stay two calls."""
    name = "parallel tool calls, interleaved"
    async with live(upstream, script(name, upstream, client, streamed=streamed)) as at:
        answer = await in_asyncio(
            said,
            chat_model(at, client).bind_tools([get_weather]),
            [HumanMessage("Weather?")],
            streamed=streamed,
        )
    assert [(call["id"], call["args"]["city"]) for call in answer.tool_calls] == [
        ("call_tokyo", "Tokyo"),
        ("call_paris", "Paris \U0001f5fc"),
    ]


@each_upstream
@each_way
async def test_reasoning_is_a_block(upstream: Api, streamed: bool) -> None:
    """In Responses mode reasoning is a block of the content, before the text."""
    turn = script("reasoning, summary", upstream, "responses", streamed=streamed)
    async with live(upstream, turn) as at:
        answer = await in_asyncio(
            said,
            chat_model(at, "responses", reasoning={"summary": "auto"}),
            [HumanMessage("Why?")],
            streamed=streamed,
        )
    reasoning = [block for block in answer.content_blocks if block["type"] == "reasoning"]
    expected = kind("reasoning, summary").expected(upstream, "responses")
    assert tuple(block.get("reasoning") for block in reasoning) == expected.summaries
    assert answer.text == text_of("reasoning, summary")


@each_upstream
@each_client
async def test_a_forced_tool(upstream: Api, client: Api) -> None:
    """`tool_choice` by name reaches the upstream in its own words, and the call comes back."""
    async with live(upstream, script("tool call", upstream, client, streamed=False)) as at:

        async def ask() -> Any:
            model = chat_model(at, client).bind_tools(
                [get_weather], tool_choice="get_weather", strict=True
            )
            return await said(model, [HumanMessage("Weather in Tokyo?")], streamed=False)

        answer = await in_asyncio(ask)
    assert answer.tool_calls[0]["args"] == {"city": "Tokyo"}
    asked = at.upstream.requests[0].json()
    named = asked["tool_choice"].get("function", asked["tool_choice"])
    assert named["name"] == "get_weather"


@each_upstream
@each_client
@each_way
async def test_an_error_is_an_exception(upstream: Api, client: Api, streamed: bool) -> None:
    """An upstream's 400 with its `code` and `param` is `BadRequestError`."""
    error = {
        "message": "Too long.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    async with live(upstream, whole({"error": error}, 400)) as at:

        async def fails() -> openai.BadRequestError:
            with pytest.raises(openai.BadRequestError) as caught:
                await said(chat_model(at, client), [HumanMessage("Hi.")], streamed=streamed)
            return caught.value

        raised = await in_asyncio(fails)
    assert raised.code == "context_length_exceeded"
    assert "Too long." in str(raised)


@each_upstream
@each_client
async def test_a_stream_that_breaks_is_an_exception(upstream: Api, client: Api) -> None:
    """LangChain raises, and says why: half an answer is no answer."""
    reply = kind("text").upstream(upstream, client)
    assert reply is not None
    half = reply.stream()[: -len(reply.stream()) // 2]
    async with live(upstream, [*stream(half, end=False), Close()]) as at:

        async def fails() -> Exception:
            # `response.failed` is a plain ValueError there.
            with pytest.raises((openai.APIError, ValueError)) as caught:
                await said(chat_model(at, client), [HumanMessage("Hi.")], streamed=True)
            return caught.value

        raised = await in_asyncio(fails)
    assert "the upstream closed the connection" in str(raised)
