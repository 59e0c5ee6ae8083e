"""The demo model: what README's first command shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from nursling.transports.upstream.demo import DemoUpstream
from nursling.transports.upstream.example import example


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def _named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def body(question: Any, **more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": question}], **more}


async def chunks_of(asked: dict[str, Any]) -> list[dict[str, Any]]:
    text = b""
    async with DemoUpstream(0, lambda: 7).open(
        asked, path="/chat/completions", stream=True
    ) as source:
        assert source.status == 200
        assert source.headers["content-type"] == "text/event-stream"
        while data := await source.read_some():
            text += data
    *frames, done, rest = text.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


async def whole_of(asked: dict[str, Any]) -> dict[str, Any]:
    async with DemoUpstream(0, lambda: 7).open(
        asked, path="/chat/completions", stream=False
    ) as source:
        text = await source.read_some()
        assert await source.read_some() == b""
    answer: dict[str, Any] = json.loads(text)
    return answer


def folded(chunks: list[dict[str, Any]], index: int = 0) -> tuple[str, str, list[Any], str]:
    text, thought, reason = "", "", ""
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            delta = choice["delta"]
            text += delta.get("content") or ""
            thought += delta.get("reasoning_content", "")
            reason = choice["finish_reason"] or reason
            for call in delta.get("tool_calls", ()):
                known = calls.setdefault(call["index"], {"arguments": ""})
                known.update({key: call[key] for key in ("id",) if key in call})
                known["arguments"] += call["function"]["arguments"]
                known["name"] = call["function"].get("name", known.get("name"))
    return text, thought, list(calls.values()), reason


QUESTIONS: dict[str, dict[str, Any]] = {
    "words": body("How are you?"),
    "parts": body([{"type": "text", "text": "How "}, {"type": "text", "text": "are you?"}]),
    "reasoning": body("Think!", reasoning_effort="low"),
    "one tool": body("What does get_weather say for Paris?", tools=[CLOCK, WEATHER]),
    "some tool": body("Use a tool", tools=[WEATHER, CLOCK]),
    "both tools": body("Call both tools", tools=[WEATHER, CLOCK]),
    "two of one": body("Use two tools", tools=[WEATHER]),
    "cut": body("Hello", max_completion_tokens=3),
    "schema": body(
        "Hello",
        response_format={
            "type": "json_schema",
            "json_schema": {
                "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}}
            },
        },
    ),
}


@pytest.mark.parametrize("case", QUESTIONS)
async def test_streamed_and_whole_say_the_same(case: str) -> None:
    """The fold of the stream is the whole reply, word for word and call for call."""
    asked = QUESTIONS[case]
    text, thought, calls, reason = folded(await chunks_of(asked))
    answer = await whole_of(asked)
    (choice,) = answer["choices"]
    message = choice["message"]
    assert (message["content"] or "") == text
    assert message.get("reasoning_content", "") == thought
    assert choice["finish_reason"] == reason
    assert [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls", ())
    ] == [(call["id"], call["name"], call["arguments"]) for call in calls]
    assert answer["usage"]["total_tokens"] == sum(
        answer["usage"][key] for key in ("prompt_tokens", "completion_tokens")
    )


async def test_it_greets_and_helps() -> None:
    """The first answer repeats the question and says how to go on; it comes word by word."""
    chunks = await chunks_of(body("How are you?"))
    text, thought, calls, reason = folded(chunks)
    assert text.startswith("Hello!")
    assert "“How are you?”" in text
    assert "nursling.toml" in text
    assert (thought, calls, reason) == ("", [], "stop")
    assert len(chunks) > 50
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert chunks[0]["created"] == 7
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"


async def test_it_is_deterministic() -> None:
    """Two fresh demo models say the very same bytes."""
    assert await chunks_of(body("Hi")) == await chunks_of(body("Hi"))


TOOLS: dict[str, tuple[dict[str, Any], list[tuple[str, Any]]]] = {
    "named": (
        QUESTIONS["one tool"],
        [("get_weather", {"city": "Paris"})],
    ),
    "its words": (
        body("What's the weather like in San Francisco?", tools=[CLOCK, WEATHER]),
        [("get_weather", {"city": "San Francisco"})],
    ),
    "not all its words": (
        body("Change my plan, please", tools=[_named("changePlanOrder"), _named("do_it")]),
        [],
    ),
    "words in camel case": (
        body("Change the order of my plan", tools=[CLOCK, _named("changePlanOrder")]),
        [("changePlanOrder", {})],
    ),
    "any": (QUESTIONS["some tool"], [("get_weather", {"city": "example"})]),
    "both": (QUESTIONS["both tools"], [("get_weather", {"city": "example"}), ("clock", {})]),
    "two of one": (
        QUESTIONS["two of one"],
        [("get_weather", {"city": "example"}), ("get_weather", {"city": "example"})],
    ),
    "not parallel": (
        QUESTIONS["both tools"] | {"parallel_tool_calls": False},
        [("get_weather", {"city": "example"})],
    ),
    "none": (QUESTIONS["some tool"] | {"tool_choice": "none"}, []),
    "required": (
        body("Hello", tools=[CLOCK], tool_choice="required"),
        [("clock", {})],
    ),
    "forced": (
        body(
            "Hello",
            tools=[CLOCK, WEATHER],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
        ),
        [("get_weather", {"city": "example"})],
    ),
    "not asked": (body("Hello", tools=[WEATHER]), []),
    "nothing usable": (body("Use a tool", tools=[{"type": "web_search"}, 3]), []),
}


@pytest.mark.parametrize("case", TOOLS)
async def test_it_calls_tools(case: str) -> None:
    """Which tools are called follows the words, tool_choice and parallel_tool_calls."""
    asked, expected = TOOLS[case]
    _, _, calls, reason = folded(await chunks_of(asked))
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == expected
    assert reason == ("tool_calls" if expected else "stop")
    assert len({call["id"] for call in calls}) == len(calls)


async def test_an_agent_comes_to_an_end() -> None:
    """With the tools' results in hand it repeats them, and calls nothing any more."""
    asked = QUESTIONS["both tools"]
    asked = asked | {
        "messages": [
            *asked["messages"],
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "tool_call_id": "1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "2", "content": "noon"},
        ]
    }
    text, _, calls, reason = folded(await chunks_of(asked))
    assert (text, calls, reason) == ("The tool says: sunny And: noon", [], "stop")


async def test_it_shows_reasoning_on_request() -> None:
    """`reasoning_effort` brings reasoning before the text, and `none` brings none."""
    assert folded(await chunks_of(body("a b", reasoning_effort="high")))[1].endswith("say hello.")
    assert folded(await chunks_of(body("a b", reasoning_effort="none")))[1] == ""


async def test_usage_comes_when_asked() -> None:
    """`include_usage` adds one last chunk with empty choices."""
    plain = await chunks_of(body("a b c"))
    asked = await chunks_of(body("a b c", stream_options={"include_usage": True}))
    assert all("usage" not in chunk for chunk in plain)
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["prompt_tokens"] == 3


async def test_a_small_budget_cuts_the_answer() -> None:
    """`max_tokens` counts words; the cut answer says so."""
    text, _, _, reason = folded(await chunks_of(body("Hello", max_tokens=3)))
    assert (text, reason) == ("Hello! I am", "length")


async def test_several_choices() -> None:
    """`n` choices come, each complete."""
    chunks = await chunks_of(body("Use a tool", tools=[CLOCK], n=2))
    calls = [folded(chunks, index)[2] for index in range(2)]
    assert [len(call) for call in calls] == [1, 1]
    assert calls[0][0]["id"] != calls[1][0]["id"]


async def test_it_answers_in_json() -> None:
    """A schema, or just JSON, is answered by JSON."""
    assert json.loads(folded(await chunks_of(QUESTIONS["schema"]))[0]) == {"ok": True}
    asked = body("Hi", response_format={"type": "json_object"})
    assert json.loads(folded(await chunks_of(asked))[0]) == {"question": "Hi"}


async def test_words_take_their_time(autojump_clock: trio.testing.MockClock) -> None:
    """The delay is before each read, so that a stream looks like one."""
    async with DemoUpstream(0.5).open(body("Hi"), path="/chat/completions", stream=True) as source:
        for _ in range(4):
            await source.read_some()
    assert trio.current_time() == 2


async def test_it_speaks_chat_only() -> None:
    """Another path is a mistake of whoever wired it."""
    with pytest.raises(ValueError, match="speaks chat completions"):
        async with DemoUpstream(0).open({}, path="/responses", stream=True):
            raise AssertionError


SCHEMAS: list[tuple[Any, Any]] = [
    ({"const": 3}, 3),
    ({"type": "string", "default": "d"}, "d"),
    ({"enum": ["a", "b"]}, "a"),
    ({"enum": []}, "w"),
    ({"examples": [9]}, 9),
    ({"type": "string"}, "w"),
    ({"type": "integer", "minimum": 5}, 5),
    ({"type": "number"}, 1),
    ({"type": "boolean"}, True),
    ({"type": "null"}, None),
    ({"type": ["null", "boolean"]}, True),
    ({"type": ["null"]}, None),
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
    ({"type": "array"}, [None]),
    ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
    ({"properties": {"a": {}, "b": {"const": 1}}}, {"a": "w", "b": 1}),
    ({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b", "c"]}, {"b": "w"}),
    ({"type": "object", "properties": 3}, {}),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"const": 1}}}, 1),
    ({"$ref": "#/gone/x"}, None),
    ({"$ref": "elsewhere"}, None),
    ("no schema", None),
]


@pytest.mark.parametrize(("schema", "value"), SCHEMAS)
def test_an_example_of_a_schema(schema: Any, value: Any) -> None:
    """Each part of JSON Schema that tools use leads to a value that fits."""
    assert example(schema, "w") == value


def test_a_schema_that_refers_to_itself_ends() -> None:
    """Recursion stops at a fixed depth."""
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    assert str(example(schema, "w")).count("next") <= 8
