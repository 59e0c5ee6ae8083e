"""The HTTP tests of the public Open Responses compliance suite, over both kinds of upstream.

What the suite asks and what it expects is told by its `src/lib/compliance-tests.ts`, in the union
of its versions of 2026; the code here is ours. Every answer is held to the Open Responses schema,
streamed events included, and read as strictly as the suite reads: lines cut at newlines, one `data`
line for an event.

Left out are WebSocket and `/responses/compact`, which nursling does not serve, and hosted searches,
which are the upstream's. `previous_response_id` is answered where the upstream keeps the state.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import pytest

from support.fake_upstream import Script
from support.live import KEY, MODEL, Live, live, script
from support.schemas import check, check_responses_event
from support.scripted import APIS, Api, Json


Model = Literal["chat", "responses", "demo"]
MODELS: tuple[Model, ...] = (*APIS, "demo")


def user(content: Any) -> Json:
    return {"type": "message", "role": "user", "content": content}


WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {
                "type": "string",
                "description": "The city and state, e.g. San Francisco, CA",
            }
        },
        "required": ["location"],
    },
}
ASKS_WEATHER: Json = {
    "input": [user("What's the weather like in San Francisco?")],
    "tools": [WEATHER],
}
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4"
    "z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
)
PDF = "data:application/pdf;base64,JVBERi0xLjEKJSVFT0Y="


@dataclass
class Answer:
    """A response, and the events that it came by if it was streamed."""

    response: Json
    events: list[Json]

    def has_output(self) -> None:
        assert self.response["output"]

    def is_completed(self) -> None:
        assert self.response["status"] == "completed"

    def calls_a_function(self) -> None:
        assert "function_call" in [item["type"] for item in self.response["output"]]

    def streams(self) -> None:
        assert self.events

    def streams_a_call(self) -> None:
        """The item's start and end, and its arguments' deltas and end, are all there."""
        types = {
            (event["type"], event.get("item", {}).get("type", ""))
            for event in self.events
            if "item" in event or "arguments" in event["type"]
        }
        assert types >= {
            ("response.output_item.added", "function_call"),
            ("response.function_call_arguments.delta", ""),
            ("response.function_call_arguments.done", ""),
            ("response.output_item.done", "function_call"),
        }


@dataclass
class Template:
    """A test of the suite."""

    id: str
    asks: Json
    expects: tuple[Callable[[Answer], None], ...]
    streamed: bool = False
    says: str = "text"
    """The kind of content that a scripted upstream answers with."""


TEXT = (Answer.has_output, Answer.is_completed)

TEMPLATES = [
    Template("basic-response", {"input": [user("Say hello in exactly 3 words.")]}, TEXT),
    Template(
        "streaming-response",
        {"input": [user("Count from 1 to 5.")]},
        (Answer.streams, Answer.is_completed),
        streamed=True,
    ),
    Template(
        "system-prompt",
        {
            "input": [
                {
                    "type": "message",
                    "role": "system",
                    "content": "You are a pirate. Always respond in pirate speak.",
                },
                user("Say hello."),
            ]
        },
        TEXT,
    ),
    Template(
        "tool-calling",
        ASKS_WEATHER,
        (Answer.has_output, Answer.calls_a_function),
        says="tool call",
    ),
    Template(
        "tool-calling-streaming",
        ASKS_WEATHER,
        (Answer.streams, Answer.streams_a_call),
        streamed=True,
        says="tool call",
    ),
    Template(
        "image-input",
        {
            "input": [
                user(
                    [
                        {"type": "input_text", "text": "What do you see in this image?"},
                        {"type": "input_image", "image_url": PNG},
                    ]
                )
            ]
        },
        TEXT,
    ),
    Template(
        "image-input-by-url",
        {
            "input": [
                user(
                    [
                        {"type": "input_text", "text": "What do you see in this image?"},
                        {"type": "input_image", "image_url": "https://example.com/logo.png"},
                    ]
                )
            ]
        },
        TEXT,
    ),
    Template(
        "file-input",
        {
            "input": [
                user(
                    [
                        {"type": "input_text", "text": "Answer with the file's title only."},
                        {"type": "input_file", "filename": "fixture.pdf", "file_data": PDF},
                    ]
                )
            ]
        },
        TEXT,
    ),
    Template(
        "multi-turn",
        {
            "input": [
                user("My name is Alice."),
                {
                    "type": "message",
                    "role": "assistant",
                    "content": "Hello Alice! Nice to meet you. How can I help you today?",
                },
                user("What is my name?"),
            ]
        },
        TEXT,
    ),
    Template(
        "assistant-phase",
        {
            "input": [
                {
                    "type": "message",
                    "role": "assistant",
                    "phase": "commentary",
                    "content": "I should answer with the saved number.",
                },
                {
                    "type": "message",
                    "role": "assistant",
                    "phase": "final_answer",
                    "content": "The number is four.",
                },
                user("Repeat only the number."),
            ]
        },
        TEXT,
    ),
]


def turn(says: str, model: Model, *, streamed: bool = False) -> Script:
    api = "chat" if model == "demo" else model
    return script(says, api, "responses", streamed=streamed)


async def ask(at: Live, model: Model, asks: Json, *, streamed: bool = False) -> Answer:
    """Ask as the suite does, and hold the answer to the schema."""
    body = {"model": "demo" if model == "demo" else MODEL, **asks}
    if streamed:
        body["stream"] = True
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.post(
            f"{at.url}/responses", json=body, headers={"authorization": f"Bearer {KEY}"}
        )
    assert reply.status_code == 200, reply.text
    events = read_events(reply.content.decode()) if streamed else []
    response = final_response(events) if streamed else reply.json()
    check("open-responses", "ResponseResource", response)
    return Answer(response, events)


def read_events(text: str) -> list[Json]:
    """Each event of the stream, valid, its `event:` line the same as its type."""
    *blocks, rest = text.split("\n\n")
    assert rest == ""
    events: list[Json] = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(check_responses_event(event, ["open-responses"]))
    return events


def final_response(events: list[Json]) -> Json:
    terminal = [f"response.{status}" for status in ("completed", "failed", "incomplete")]
    [response] = [event["response"] for event in events if event["type"] in terminal]
    assert isinstance(response, dict)
    return response


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.id)
async def test_compliance(template: Template, model: Model) -> None:
    """The answer is valid, and is what the suite expects."""
    upstream: Api = "responses" if model == "responses" else "chat"
    said = turn(template.says, model, streamed=template.streamed)
    async with live(upstream, said) as at:
        answer = await ask(at, model, template.asks, streamed=template.streamed)
    for expectation in template.expects:
        expectation(answer)
    assert (at.upstream.requests == []) == (model == "demo")


async def test_function_call_round_trip() -> None:
    """A forced call, and its output sent with `previous_response_id`."""
    turns = [turn("tool call", "responses"), turn("text", "responses")]
    forced = {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    async with live("responses", *turns) as at:
        question = "Use the weather tool to get the temperature in San Francisco."
        first = await ask(at, "responses", {"input": question, **forced})
        [call] = [item for item in first.response["output"] if item["type"] == "function_call"]
        output = {"call_id": call["call_id"], "output": "64 degrees and clear"}
        asks = {
            "previous_response_id": first.response["id"],
            "input": [{"type": "function_call_output", **output}],
        }
        second = await ask(at, "responses", asks)
    second.has_output()
    second.is_completed()
    assert at.upstream.requests[1].json()["previous_response_id"] == first.response["id"]


async def test_previous_response_id() -> None:
    """A second turn names the first."""
    async with live("responses", turn("text", "responses"), turn("text", "responses")) as at:
        first = await ask(at, "responses", {"input": "Remember this code word: papaya."})
        asks = {"previous_response_id": first.response["id"], "input": "What code word?"}
        second = await ask(at, "responses", asks)
    second.has_output()
    second.is_completed()
    assert at.upstream.requests[1].json()["previous_response_id"] == first.response["id"]


async def test_phases_of_the_answer() -> None:
    """Messages keep the phase that the model gave them."""
    async with live("responses", turn("several messages", "responses")) as at:
        answer = await ask(at, "responses", {"input": "What is two and two?"})
    answer.is_completed()
    phases = [item["phase"] for item in answer.response["output"] if item["type"] == "message"]
    assert phases == ["commentary", "final_answer"]
