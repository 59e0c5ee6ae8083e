"""Requests of the chat format, both ways: a client's read and checked, an upstream's written."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from nursling.engine.errors import BadRequest
from nursling.engine.formats.base import Call, Rendered
from nursling.engine.formats.chat import CHAT
from nursling.engine.request import (
    AllowedTools,
    Audio,
    CustomTool,
    File,
    FunctionTool,
    Image,
    Item,
    Message,
    NamedTool,
    OpaqueChoice,
    OpaqueItem,
    OpaqueTool,
    OutputFormat,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolCall,
    ToolResult,
)
from support.chat import USER, Json, ask, program
from support.schemas import check


NOTHING: list[Any] = [None, []]


def render(request: Request, **call: Any) -> Rendered:
    fields: dict[str, Any] = {"model": "up", "stream": False, **call}
    return CHAT.render_request(request, Call(**fields))


def user(*content: Any) -> Message:
    return Message(role="user", content=list(content))


def assistant(*content: Any) -> Message:
    return Message(role="assistant", content=list(content))


# Reading.


FIELDS: dict[str, tuple[Json, Json]] = {
    "nothing": ({}, {"stream": False, "n": 1, "stop": [], "tools": [], "include_usage": False}),
    "nulls": (
        {"temperature": None, "tools": None, "stop": None, "n": None, "stream": None},
        {"temperature": None, "tools": [], "stop": [], "n": 1, "stream": False},
    ),
    "sampling": (
        {"temperature": 1, "top_p": 0.5, "presence_penalty": 0, "frequency_penalty": -2, "seed": 3},
        {"temperature": 1, "top_p": 0.5, "presence_penalty": 0, "frequency_penalty": -2, "seed": 3},
    ),
    "limits": ({"max_tokens": 5, "max_completion_tokens": 7, "n": 2}, {"max_tokens": 7, "n": 2}),
    "the old limit": ({"max_tokens": 5}, {"max_tokens": 5}),
    "stop a text": ({"stop": "x"}, {"stop": ["x"]}),
    "stop a list": ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
    "bias": ({"logit_bias": {"5": -100, "6": 0.5}}, {"logit_bias": {"5": -100, "6": 0.5}}),
    "logprobs": ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    "stream": (
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream": True, "include_usage": True, "include_obfuscation": False},
    ),
    "effort": ({"reasoning_effort": "xhigh"}, {"reasoning_effort": "xhigh"}),
    "effort as an object": (
        {"reasoning": {"effort": "low", "summary": "auto", "exclude": True}},
        {"reasoning_effort": "low", "reasoning_summary": "auto",
         "extra": {"reasoning.exclude": True}},
    ),
    "small words": (
        {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "flex",
         "store": True, "metadata": {"a": "b"}, "verbosity": "low", "parallel_tool_calls": False},
        {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "flex",
         "store": True, "metadata": {"a": "b"}, "verbosity": "low", "parallel_tool_calls": False},
    ),
    "unknown fields": (
        {"prediction": {"type": "content"}, "modalities": ["text"], "top_k": 5,
         "stream_options": {"x": 1}},
        {"extra": {"prediction": {"type": "content"}, "modalities": ["text"], "top_k": 5,
                   "stream_options.x": 1}},
    ),
    "text": ({"response_format": {"type": "text"}}, {"output": OutputFormat(kind="text")}),
    "json": (
        {"response_format": {"type": "json_object"}}, {"output": OutputFormat(kind="json_object")}
    ),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {
            "name": "a", "description": "d", "schema": {"type": "object"}, "strict": True}}},
        {"output": OutputFormat(kind="json_schema", name="a", description="d",
                                schema={"type": "object"}, strict=True)},
    ),
    "another output": (
        {"response_format": {"type": "grammar"}},
        {"output": None, "extra": {"response_format": {"type": "grammar"}}},
    ),
    "tools": (
        {"tools": [
            {"type": "function", "function": {
                "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}},
            {"type": "custom", "custom": {"name": "g", "description": "d", "format": {
                "type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}}},
            {"type": "custom", "custom": {"name": "h", "format": {"type": "text"}}},
            {"type": "web_search"}]},
        {"tools": [
            FunctionTool(name="f", description="d", parameters={"type": "object"}, strict=True),
            CustomTool(name="g", description="d", grammar={
                "type": "grammar", "syntax": "lark", "definition": "x"}),
            CustomTool(name="h", grammar={"type": "text"}),
            OpaqueTool("web_search", "tools[3]")]},
    ),
    "functions": (
        {"functions": [{"name": "f", "parameters": {}}], "function_call": "auto"},
        {"tools": [FunctionTool(name="f", parameters={})], "tool_choice": "auto",
         "parallel_tool_calls": False, "extra": {}},
    ),
    "functions, no choice": (
        {"functions": [{"name": "f"}]}, {"tools": [FunctionTool(name="f")], "tool_choice": None}
    ),
    "functions, this one": (
        {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
        {"tool_choice": NamedTool("function", "f")},
    ),
    **{f"choice {word}": ({"tool_choice": word}, {"tool_choice": word})
       for word in ("auto", "none", "required")},
    "choice a function": (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tool_choice": NamedTool("function", "f")},
    ),
    "choice a custom tool": (
        {"tool_choice": {"type": "custom", "custom": {"name": "g"}}},
        {"tool_choice": NamedTool("custom", "g")},
    ),
    "choice some": (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
            {"type": "function", "function": {"name": "f"}},
            {"type": "custom", "custom": {"name": "g"}}]}}},
        {"tool_choice": AllowedTools(
            "required", [NamedTool("function", "f"), NamedTool("custom", "g")])},
    ),
    "choice some, one hosted": (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {
            "mode": "auto", "tools": [{"type": "web_search"}]}}},
        {"tool_choice": OpaqueChoice("allowed_tools")},
    ),
    "choice hosted": (
        {"tool_choice": {"type": "web_search"}}, {"tool_choice": OpaqueChoice("web_search")}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name: str) -> None:
    """Every field is read into its place, and the body is kept beside them as it came."""
    said, expected = FIELDS[name]
    body = {**USER, **said}
    request = CHAT.parse_request(copy.deepcopy(body))
    assert {field: getattr(request, field) for field in expected} == expected
    assert (request.model, request.format, request.raw) == ("m", "chat", body)


def call_of(name: str, arguments: Any, call_id: str = "c") -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


MESSAGES: dict[str, tuple[list[Json], list[Item]]] = {
    "roles": (
        [{"role": role, "content": "x", "name": "n"} for role in ("system", "developer", "user")],
        [Message(role=role, content=[Text("x")], name="n")
         for role in ("system", "developer", "user")],
    ),
    "parts": (
        [{"role": "user", "content": [
            {"type": "text", "text": "x"},
            {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
            {"type": "image_url", "image_url": "u", "detail": "high"},
            {"type": "image_url", "image_url": {"url": "u"}, "detail": "high"},
            {"type": "input_image", "image_url": "u"},
            {"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}},
            {"type": "file", "file": {"file_id": "i", "filename": "n"}},
            {"type": "file", "file": {"file_data": "d"}},
            {"type": "video_url", "video_url": {}}]}],
        [user(Text("x"), Image(url="u", detail="low"), Image(url="u", detail="high"),
              Image(url="u", detail="high"), Image(url="u"), Audio("d", "wav"),
              File(file_id="i", filename="n"), File(data="d")),
         OpaqueItem("video_url", "messages[0].content[8]")],
    ),
    "assistant": (
        [{"role": "assistant", "content": "x", "name": "n"}, {"role": "assistant"},
         {"role": "assistant", "content": None, "refusal": "no"},
         {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
        [Message(role="assistant", content=[Text("x")], name="n"), assistant(),
         assistant(Refusal("no")), assistant(Refusal("no"))],
    ),
    "calls": (
        [{"role": "assistant", "content": None, "tool_calls": [
            call_of("f", "{}"), {"id": "d", "function": {"name": "g"}},
            {"id": "e", "type": "custom", "custom": {"name": "h", "input": "x"}},
            call_of("f", {"a": 1}, "k")]},
         {"role": "tool", "tool_call_id": "c", "content": "r"},
         {"role": "tool", "tool_call_id": "e", "content": [{"type": "text", "text": "s"}]}],
        [ToolCall(call_id="c", name="f", arguments="{}"),
         ToolCall(call_id="d", name="g", arguments=""),
         ToolCall(call_id="e", name="h", arguments="x", custom=True),
         ToolCall(call_id="k", name="f", arguments='{"a":1}'),
         ToolResult(call_id="c", content=[Text("r")]),
         ToolResult(call_id="e", content=[Text("s")], custom=True)],
    ),
    "words and calls": (
        [{"role": "assistant", "content": "x", "tool_calls": [call_of("f", "{}")]},
         {"role": "assistant", "content": "", "tool_calls": [call_of("f", "{}")]}],
        [assistant(Text("x")), ToolCall(call_id="c", name="f", arguments="{}"),
         ToolCall(call_id="c", name="f", arguments="{}")],
    ),
    "old calls": (
        [{"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
         {"role": "function", "name": "f", "content": "r"},
         {"role": "function", "name": "g", "content": "r"}],
        [ToolCall(call_id="call_0", name="f", arguments="{}"),
         ToolResult(call_id="call_0", content=[Text("r")]),
         ToolResult(call_id="call_g", content=[Text("r")])],
    ),
    "a call said twice": (
        [{"role": "assistant", "tool_calls": [call_of("f", "{}")],
          "function_call": {"name": "f", "arguments": "{}"}}],
        [ToolCall(call_id="c", name="f", arguments="{}")],
    ),
    "reasoning": (
        [{"role": "assistant", "content": "x", "reasoning_content": "t"},
         {"role": "assistant", "content": "x", "reasoning": "u", "reasoning_content": ""}],
        [Reasoning(thought=["t"]), assistant(Text("x")), Reasoning(thought=["u"]),
         assistant(Text("x"))],
    ),
    "reasoning in details": (
        [{"role": "assistant", "content": "x", "reasoning_details": [
            {"type": "reasoning.summary", "summary": "s"}, {"type": "reasoning.text", "text": "t"},
            {"type": "reasoning.text", "text": "u"}, {"type": "?"},
            {"type": "reasoning.encrypted", "data": "#", "id": "rs"},
            {"type": "reasoning.encrypted", "data": "##", "id": None}]}],
        [Reasoning(id="rs", encrypted="#", thought=["tu"], summary=["s"]),
         Reasoning(encrypted="##"), assistant(Text("x"))],
    ),
    "reasoning said twice": (
        [{"role": "assistant", "content": "x", "reasoning": "t", "reasoning_details": [
            {"type": "reasoning.summary", "summary": "t"},
            {"type": "reasoning.text", "text": "t"}]},
         {"role": "assistant", "content": "y", "reasoning_details": [
             {"type": "reasoning.summary", "summary": "s"}]}],
        [Reasoning(thought=["t"]), assistant(Text("x")), Reasoning(summary=["s"]),
         assistant(Text("y"))],
    ),
    "audio": (
        [{"role": "assistant", "audio": {"id": "a"}}],
        [assistant(), OpaqueItem("audio", "messages[0].audio")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name: str) -> None:
    """Every form of message becomes the items that it means, in order."""
    messages, items = MESSAGES[name]
    assert ask(messages=messages).items == items


def message(**fields: Any) -> Json:
    return {"messages": [{"role": "user", "content": "x"}, fields]}


def part(**fields: Any) -> Json:
    return message(role="user", content=[{"type": "text", "text": "x"}, fields])


def tool(**fields: Any) -> Json:
    return {"tools": [fields]}


M, P = "messages[1]", "messages[1].content[1]"
CALLS = f"{M}.tool_calls"
MISTAKES: list[tuple[Json, str]] = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"model": 5}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": {"role": "user"}}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    (message(content="x"), f"{M}.role"),
    (message(role="robot", content="x"), f"{M}.role"),
    (message(role=5, content="x"), f"{M}.role"),
    (message(role="user"), f"{M}.content"),
    (message(role="user", content=5), f"{M}.content"),
    *((message(role=role, content=nothing), f"{M}.content")
      for role in ("user", "system", "developer") for nothing in NOTHING),
    (message(role="user", content=["x"]), f"{M}.content[0]"),
    (message(role="user", content="x", name=5), f"{M}.name"),
    (message(role="tool", content="x"), f"{M}.tool_call_id"),
    (message(role="tool", tool_call_id="c"), f"{M}.content"),
    (message(role="function", content="x"), f"{M}.name"),
    (message(role="assistant", content=5), f"{M}.content"),
    (message(role="assistant", refusal=5), f"{M}.refusal"),
    (message(role="assistant", reasoning=5), f"{M}.reasoning"),
    (message(role="assistant", reasoning_details=[5]), f"{M}.reasoning_details[0]"),
    (message(role="assistant", tool_calls={}), CALLS),
    (message(role="assistant", tool_calls=[5]), f"{CALLS}[0]"),
    (message(role="assistant", tool_calls=[{}]), f"{CALLS}[0].id"),
    (message(role="assistant", tool_calls=[{"id": "c"}]), f"{CALLS}[0].function"),
    (message(role="assistant", tool_calls=[{"id": "c", "type": "x"}]), f"{CALLS}[0].type"),
    (message(role="assistant", tool_calls=[call_of("f", 5)]), f"{CALLS}[0].function.arguments"),
    (message(role="assistant", tool_calls=[{"id": "c", "function": {}}]),
     f"{CALLS}[0].function.name"),
    (message(role="assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {}}]),
     f"{CALLS}[0].custom.name"),
    (message(role="assistant", function_call="f"), f"{M}.function_call"),
    (part(), f"{P}.type"),
    (part(type="text"), f"{P}.text"),
    (part(type="text", text=5), f"{P}.text"),
    (part(type="image_url"), f"{P}.image_url"),
    (part(type="image_url", image_url=5), f"{P}.image_url"),
    (part(type="image_url", image_url={}), f"{P}.image_url.url"),
    (part(type="image_url", image_url={"url": "u", "detail": 5}), f"{P}.image_url.detail"),
    (part(type="image_url", image_url={"url": "u", "detail": "zz"}), f"{P}.image_url.detail"),
    (part(type="image_url", image_url="u", detail="zz"), f"{P}.detail"),
    (part(type="input_audio", input_audio={"data": "x"}), f"{P}.input_audio.format"),
    (part(type="file", file={}), f"{P}.file.file_data"),
    (part(type="file"), f"{P}.file"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": []}, "stream_options"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": []}, "top_p"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_completion_tokens": True}, "max_completion_tokens"),
    ({"n": 0}, "n"),
    ({"n": "2"}, "n"),
    ({"seed": "x"}, "seed"),
    ({"stop": 5}, "stop"),
    ({"stop": ["x", 5]}, "stop[1]"),
    ({"logit_bias": []}, "logit_bias"),
    ({"logit_bias": {"5": "x"}}, "logit_bias.5"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": "2"}, "top_logprobs"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "zz"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}},
     "response_format.json_schema.name"),
    ({"reasoning_effort": 5}, "reasoning_effort"),
    ({"reasoning": {"effort": 5}}, "reasoning.effort"),
    ({"metadata": []}, "metadata"),
    ({"metadata": {"a": "x", "b": 5}}, "metadata.b"),
    ({"metadata": {"a": None}}, "metadata.a"),
    ({"user": 5}, "user"),
    ({"store": "x"}, "store"),
    ({"tools": {}}, "tools"),
    ({"tools": [5]}, "tools[0]"),
    (tool(), "tools[0].type"),
    (tool(type="function"), "tools[0].function"),
    (tool(type="function", function={}), "tools[0].function.name"),
    (tool(type="function", function={"name": "f", "parameters": "x"}),
     "tools[0].function.parameters"),
    (tool(type="function", function={"name": "f", "strict": "x"}), "tools[0].function.strict"),
    (tool(type="custom"), "tools[0].custom"),
    (tool(type="custom", custom={"name": "g", "format": {"type": "grammar"}}),
     "tools[0].custom.format.grammar"),
    ({"functions": [{}]}, "functions[0].name"),
    ({"functions": [{"name": "f"}], "function_call": "perhaps"}, "function_call"),
    ({"functions": [{"name": "f"}], "function_call": 5}, "function_call"),
    ({"tool_choice": "perhaps"}, "tool_choice"),
    ({"tool_choice": 5}, "tool_choice"),
    ({"tool_choice": {}}, "tool_choice.type"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({"tool_choice": {"type": "custom", "custom": {}}}, "tool_choice.custom.name"),
    ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [], "mode": "x"}}},
     "tool_choice.allowed_tools.mode"),
    ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{}]}}},
     "tool_choice.allowed_tools.tools[0].type"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), MISTAKES, ids=[str(m[0])[:60] for m in MISTAKES])
def test_mistake(fields: Json, param: str) -> None:
    """Every mistake is a 400 that names the field by its path."""
    with pytest.raises(BadRequest) as caught:
        CHAT.parse_request({**USER, **fields})
    info = caught.value.info()
    assert (info.param, info.status, info.type) == (param, 400, "invalid_request_error")
    assert param in info.message
    check("openai", "ErrorResponse", CHAT.render_error(info))


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_body_that_is_no_object(body: Any) -> None:
    """A body that is no JSON object is a 400."""
    with pytest.raises(BadRequest, match="JSON object"):
        CHAT.parse_request(body)


# Writing, for a chat client.


def test_same_format() -> None:
    """A chat client's body leaves as it came, but for the model and the stream switches."""
    body = {
        **USER, "temperature": 0.5, "prediction": {"type": "content"}, "max_completion_tokens": 5,
        "stream": True, "stream_options": {"include_usage": False, "x": 1}, "unknown": [1],
    }  # fmt: skip
    before = copy.deepcopy(body)
    rendered = render(CHAT.parse_request(body), stream=True)
    options = {"include_usage": True, "x": 1}
    assert rendered.body == {**before, "model": "up", "stream_options": options}
    assert rendered.dropped == []
    whole = render(CHAT.parse_request(body)).body
    assert (whole["stream"], "stream_options" in whole) == (False, False)
    assert body == before


def test_usage_switch() -> None:
    """A provider that refuses `include_usage` is not sent it, and the client is told."""
    asked = ask(stream_options={"include_usage": True, "x": 1})
    rendered = render(asked, stream=True, include_usage=False)
    assert rendered.body["stream_options"] == {"x": 1}
    assert rendered.dropped == ["stream_options.include_usage"]
    rendered = render(ask(), stream=True, include_usage=False)
    assert "stream_options" not in rendered.body
    assert rendered.dropped == []
    assert render(ask(), stream=True).body["stream_options"] == {"include_usage": True}


PREFACED: list[tuple[list[Json], list[Json]]] = [
    ([{"role": "user", "content": "x"}],
     [{"role": "system", "content": "P"}, {"role": "user", "content": "x"}]),
    ([{"role": "system", "content": "x", "name": "n"}],
     [{"role": "system", "content": "P\nx", "name": "n"}]),
    ([{"role": "developer", "content": "x"}], [{"role": "developer", "content": "P\nx"}]),
    ([{"role": "system", "content": ""}], [{"role": "system", "content": "P"}]),
    ([{"role": "system", "content": [{"type": "text", "text": "x"}]}],
     [{"role": "system",
       "content": [{"type": "text", "text": "P"}, {"type": "text", "text": "x"}]}]),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "expected"), PREFACED)
def test_preface(messages: list[Json], expected: list[Json]) -> None:
    """The model's description joins the first system message, or becomes one."""
    request = ask(messages=messages)
    before = copy.deepcopy(messages)
    assert render(request, preface="P").body["messages"] == expected
    assert messages == before


# Writing, for a client of another format.


def conversation(*items: Item) -> list[Json]:
    body = render(program(items=list(items))).body
    messages: list[Json] = body["messages"]
    return messages


CALL = ToolCall(call_id="c", name="f", arguments="{}")
SAID_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALL2 = ToolCall(call_id="d", name="g", arguments="x", custom=True)
SAID_CALL2 = {"id": "d", "type": "function",
              "function": {"name": "g", "arguments": '{"input":"x"}'}}  # fmt: skip


def result(*content: Any, call_id: str = "c") -> ToolResult:
    return ToolResult(call_id=call_id, content=list(content))


def says(text: str, call_id: str = "c") -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


HISTORIES: dict[str, tuple[list[Item], list[Json]]] = {
    "roles": (
        [Message(role="system", content=[Text("a")]),
         Message(role="developer", content=[Text("b")]),
         Message(role="user", content=[Text("x")], name="n"),
         Message(role="developer", content=[Text("c")])],
        [{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "x", "name": "n"},
         {"role": "system", "content": "c"}],
    ),
    "system messages of parts": (
        [Message(role="system", content=[Text("a"), Text("b")]),
         Message(role="system", content=[Text("c")]), user()],
        [{"role": "system", "content": [{"type": "text", "text": t} for t in "abc"]},
         {"role": "user", "content": ""}],
    ),
    "an empty system message": (
        [Message(role="system", content=[]), Message(role="system", content=[Text("c")])],
        [{"role": "system", "content": "c"}],
    ),
    "parts": (
        [user(Text("x"), Image(url="u", detail="low"), Image(url="u"), Audio("d", "wav"),
              File(file_id="i", filename="n"), File(data="d"), Refusal("no"))],
        [{"role": "user", "content": [
            {"type": "text", "text": "x"},
            {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "u"}},
            {"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}},
            {"type": "file", "file": {"file_id": "i", "filename": "n"}},
            {"type": "file", "file": {"file_data": "d"}},
            {"type": "text", "text": "no"}]}],
    ),
    "one reply is one message": (
        [user(Text("q")), Reasoning(thought=["t"], summary=["s"], encrypted="#", id="rs"),
         Reasoning(thought=["u"]), Reasoning(encrypted="##"),
         assistant(Text("x"), Text("y")), CALL, assistant(Text("z")), CALL2, result(Text("r"))],
        [{"role": "user", "content": "q"},
         {"role": "assistant", "content": "xy\n\nz", "reasoning_content": "t\n\ns\n\nu",
          "reasoning_details": [
              {"type": "reasoning.encrypted", "data": "#", "index": 0, "id": "rs"},
              {"type": "reasoning.encrypted", "data": "##", "index": 1}],
          "tool_calls": [SAID_CALL, SAID_CALL2]},
         says("r")],
    ),
    "calls alone": (
        [CALL, result(), assistant(Text("x")), user(Text("q"))],
        [{"role": "assistant", "content": None, "tool_calls": [SAID_CALL]}, says(""),
         {"role": "assistant", "content": "x"}, {"role": "user", "content": "q"}],
    ),
    "results find their calls": (
        [CALL, CALL2, result(Text("r")), assistant(Text("x")), result(Text("s"), call_id="d")],
        [{"role": "assistant", "content": None, "tool_calls": [SAID_CALL, SAID_CALL2]},
         says("r"), says("s", "d"), {"role": "assistant", "content": "x"}],
    ),
    "a result without a call": ([result(Text("r"), Text("s"))], [says("r\ns")]),
    "pictures of a result": (
        [CALL, result(Text("r"), Image(url="u"), Refusal("no"))],
        [{"role": "assistant", "content": None, "tool_calls": [SAID_CALL]}, says("r\nno"),
         {"role": "user", "content": [
             {"type": "text", "text": "Shown by the tool call c:"},
             {"type": "image_url", "image_url": {"url": "u"}}]}],
    ),
    "a refusal": (
        [assistant(Refusal("no")), user(Text("q")),
         assistant(Text("x"), Refusal("n"), Refusal("o"))],
        [{"role": "assistant", "content": None, "refusal": "no"}, {"role": "user", "content": "q"},
         {"role": "assistant", "content": "x", "refusal": "no"}],
    ),
    "silence": (
        [Reasoning(), Message(role="assistant", content=[], name="n"), user(Text("q"))],
        [{"role": "assistant", "content": "", "name": "n"}, {"role": "user", "content": "q"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_history(name: str) -> None:
    """Items become messages that chat servers take: one per reply, results behind their calls."""
    items, messages = HISTORIES[name]
    assert conversation(*items) == messages


def test_history_that_is_sent_otherwise() -> None:
    """What leaves in another form, or not at all, is listed."""
    rendered = render(
        program(
            items=[
                user(Text("q")),
                CALL,
                result(Image(url="u")),
                result(Image(url="u")),
                assistant(Text("x"), Image(url="u")),
                OpaqueItem("web_search_call", "input[4]"),
                OpaqueItem("computer_call", "input[5]"),
                OpaqueItem("computer_call_output", "input[6]"),
            ]
        )
    )
    assert rendered.dropped == [
        "input[].output[] (a picture or a file, sent in a user message)",
        "input[].content[] (an assistant's image)",
        "input[4] (web_search_call)",
        "input[5] (computer_call)",
        "input[6] (computer_call_output)",
    ]


REFUSED: list[tuple[Request, str]] = [
    (program(items=[OpaqueItem("item_reference", "input[3]")]), "input[3]"),
    (program(items=[OpaqueItem("input_video", "input[3].content[1]")]), "input[3].content[1]"),
    (program(items=[user(), OpaqueItem("computer_call", "input[3]")]), "input[3]"),
    (program(items=[user(Image(file_id="f"))]), "input"),
    (program(items=[user(File(url="u"))]), "input"),
    (program(items=[]), "input"),
    (program(items=[user()], previous_response_id="resp_1"), "previous_response_id"),
    (program(items=[user()], extra={"conversation": "c"}), "conversation"),
    (program(items=[user()], extra={"prompt": {"id": "p"}}), "prompt"),
    (program(items=[user()], extra={"background": True}), "background"),
    (program(items=[user()], tools=[CustomTool(name="t"), FunctionTool(name="t")]), "tools"),
    (program(items=[user()], tools=[OpaqueTool("x", "tools[0]")], tool_choice=OpaqueChoice("x")),
     "tool_choice"),
    (program(items=[user()], tools=[OpaqueTool("x", "tools[0]")], tool_choice="required"),
     "tool_choice"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "param"), REFUSED, ids=[f"{i}" for i in range(len(REFUSED))])
def test_refused(request_: Request, param: str) -> None:
    """What the answer would be wrong without, and chat cannot say, is a 400 that names it."""
    with pytest.raises(BadRequest) as caught:
        render(request_)
    assert caught.value.param == param


def test_a_reference_is_refused_with_the_way_out() -> None:
    """Some clients name earlier items by id unless told otherwise: they are told how."""
    with pytest.raises(BadRequest, match="store = false"):
        render(program(items=[OpaqueItem("item_reference", "input[3]")]))


SETTINGS: dict[str, tuple[Json, Json, list[str]]] = {
    "nothing": ({}, {}, []),
    "everything": (
        {"max_tokens": 5, "temperature": 0, "top_p": 1, "presence_penalty": 0,
         "frequency_penalty": 0, "seed": 1, "stop": ["x"], "logit_bias": {"1": 1},
         "logprobs": True, "top_logprobs": 2, "verbosity": "low", "reasoning_effort": "low",
         "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k",
         "service_tier": "auto", "n": 2},
        {"max_tokens": 5, "temperature": 0, "top_p": 1, "presence_penalty": 0,
         "frequency_penalty": 0, "seed": 1, "stop": ["x"], "logit_bias": {"1": 1},
         "logprobs": True, "top_logprobs": 2, "verbosity": "low", "reasoning_effort": "low",
         "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k",
         "service_tier": "auto", "n": 2},
        [],
    ),
    "top_logprobs of Responses": ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}, []),
    "output": ({"output": OutputFormat(kind="json_object")},
               {"response_format": {"type": "json_object"}}, []),
    "schema": (
        {"output": OutputFormat(kind="json_schema", schema={"type": "object"}, strict=True)},
        {"response_format": {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": {"type": "object"}, "strict": True}}}, [],
    ),
    "store of Responses": ({"store": True}, {}, ["store"]),
    "no store of Responses": ({"store": False}, {}, []),
    "store of a program": ({"store": True, "format": ""}, {"store": True}, []),
    "obfuscation": (
        {"include_obfuscation": True},
        {"stream_options": {"include_obfuscation": True, "include_usage": True}}, [],
    ),
    "reasoning": ({"reasoning_summary": "auto", "encrypted_reasoning": True}, {},
                  ["reasoning.summary", "include (reasoning.encrypted_content)"]),
    "leftovers of Responses": (
        {"extra": {"truncation": "auto", "client_metadata": {}, "x": None, "moderation": {},
                   "text.x": 1}},
        {"moderation": {}}, ["truncation", "client_metadata", "text.x"],
    ),
    "defaults of Responses": ({"extra": {"truncation": "disabled", "background": False}}, {}, []),
    "leftovers of a program": (
        {"extra": {"top_k": 5, "stream_options.x": 1, "reasoning.exclude": True}, "format": ""},
        {"top_k": 5, "stream_options": {"x": 1, "include_usage": True},
         "reasoning": {"exclude": True}}, [],
    ),
    "tools": (
        {"tools": [FunctionTool(name="f", description="d", parameters={}, strict=False),
                   FunctionTool(name="g"), OpaqueTool("web_search", "tools[2]")],
         "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [
            {"type": "function", "function": {
                "name": "f", "description": "d", "parameters": {}, "strict": False}},
            {"type": "function", "function": {"name": "g"}}],
         "tool_choice": "auto", "parallel_tool_calls": False}, ["tools[2] (web_search)"],
    ),
    "no tools": ({"tool_choice": "auto", "parallel_tool_calls": True}, {}, []),
    "this tool": (
        {"tools": [FunctionTool(name="f")], "tool_choice": NamedTool("function", "f")},
        {"tools": [{"type": "function", "function": {"name": "f"}}],
         "tool_choice": {"type": "function", "function": {"name": "f"}}}, [],
    ),
    "some tools": (
        {"tools": [FunctionTool(name="f"), FunctionTool(name="g"), CustomTool(name="h"),
                   OpaqueTool("web_search", "tools[3]")],
         "tool_choice": AllowedTools("required", [NamedTool("function", "g")])},
        {"tools": [{"type": "function", "function": {"name": "g"}}], "tool_choice": "required"}, [],
    ),
    "custom tools of a chat program": (
        {"tools": [CustomTool(name="g", description="d", grammar={
            "type": "grammar", "syntax": "lark", "definition": "x"}),
            CustomTool(name="h", grammar={"type": "text"})],
         "tool_choice": NamedTool("custom", "g"), "format": "chat"},
        {"tools": [
            {"type": "custom", "custom": {"name": "g", "description": "d", "format": {
                "type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}}},
            {"type": "custom", "custom": {"name": "h", "format": {"type": "text"}}}],
         "tool_choice": {"type": "custom", "custom": {"name": "g"}}}, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    """Every field leaves under chat's name, or is listed."""
    fields, expected, dropped = SETTINGS[name]
    rendered = render(program(items=[user(Text("x"))], **fields), stream=True)
    base = {
        "model": "up", "messages": [{"role": "user", "content": "x"}], "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert rendered.body == {**base, **expected}
    assert rendered.dropped == dropped
    if not fields.get("extra"):
        check("openai", "CreateChatCompletionRequest", rendered.body)


def test_wrapped_custom_tool() -> None:
    """A custom tool of another format's client is offered, and chosen, as a function."""
    tool = CustomTool(name="g", description="d")
    choice = NamedTool("custom", "g")
    body = render(program(items=[user(Text("x"))], tools=[tool], tool_choice=choice)).body
    [offered] = body["tools"]
    assert (offered["type"], offered["function"]["name"]) == ("function", "g")
    assert body["tool_choice"] == {"type": "function", "function": {"name": "g"}}


def test_custom_call_of_a_chat_program() -> None:
    """A custom tool's call stays one towards a server that was offered it as one."""
    request = program(items=[CALL2], format="chat")
    [said] = render(request).body["messages"]
    assert said["tool_calls"] == [
        {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}}
    ]


def test_unchanged_by_a_round_trip() -> None:
    """What a chat client says is, rendered from the fields alone, the same request again."""
    body: Json = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]},
            {"role": "assistant", "content": None, "reasoning_content": "t",
             "tool_calls": [SAID_CALL]},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
        ],
        "stream": False,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "auto",
        "temperature": 0.5,
        "max_tokens": 5,
        "response_format": {"type": "json_object"},
        "top_k": 5,
    }  # fmt: skip
    fields = CHAT.parse_request(body)
    bare = Request(
        **{name: getattr(fields, name) for name in Request.__struct_fields__ if name != "raw"}
    )
    assert render(bare, model="m").body == body


def test_names() -> None:
    """The format says its name, its path and its errors."""
    assert (CHAT.name, CHAT.path) == ("chat", "/chat/completions")
    info = CHAT.read_error(404, {}, b'{"error": {"message": "no", "n": 1}}')
    assert CHAT.render_error(info)["error"]["n"] == 1


# What another format would lose.


MARK: Json = {"type": "ephemeral"}

LEFT: dict[str, tuple[Json, list[str]]] = {
    "nothing": ({}, []),
    "null": ({"messages": [{"role": "user", "content": "q", "prefix": None}]}, []),
    "messages": (
        {"messages": [
            {"role": "user", "content": "q", "cache_control": MARK},
            {"role": "assistant", "content": "a", "prefix": True, "annotations": [{}],
             "audio": {"id": "x"}, "tools": []},
            {"role": "tool", "tool_call_id": "c", "content": "r", "is_error": True}]},
        ["messages[0].cache_control", "messages[1].prefix", "messages[1].annotations",
         "messages[2].is_error"],
    ),
    "parts": (
        {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "a", "cache_control": MARK},
            {"type": "image_url", "image_url": {"url": "u", "zip": 1}},
            {"type": "video", "video": {"zip": 1}, "zip": 1}]}]},
        ["messages[0].content[0].cache_control", "messages[0].content[1].image_url.zip"],
    ),
    "calls": (
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", "zip": 1},
             "extra_content": {"google": {"thought_signature": "S"}}}],
            "reasoning_details": [{"type": "reasoning.text", "text": "t", "signature": "S"}]}]},
        ["messages[0].tool_calls[0].function.zip", "messages[0].tool_calls[0].extra_content",
         "messages[0].reasoning_details[0].signature"],
    ),
    "tools": (
        {"tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"zip": 1}, "x": 1},
             "cache_control": MARK},
            {"type": "own", "zip": 1}],
         "tool_choice": {"type": "function", "function": {"name": "f"}, "zip": 1}},
        ["tools[0].function.x", "tools[0].cache_control", "tool_choice.zip"],
    ),
    "response_format": (
        {"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"zip": 1}, "zip": 1}}},
        ["response_format.json_schema.zip"],
    ),
    "without end": (
        {"messages": [{"role": "user", "content": "q", "zip": 1}] * 1000},
        [*[f"messages[{number}].zip" for number in range(64)], "and 936 more"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_leftover(name: str) -> None:
    """Members inside the known fields, which another format would lose, are named by place."""
    body, places = LEFT[name]
    request = ask(**body)
    assert request.leftover == places
    assert render(request).dropped == []  # to its own format it leaves as it came


def test_leftover_of_another_format() -> None:
    """What only the client's format knows inside its items is listed towards chat."""
    request = program(items=[user(Text("q"))], leftover=["input[0].phase"])
    assert render(request).dropped == ["input[0].phase"]


def test_lost_words() -> None:
    """What the joining of messages leaves out is named, once for each kind."""
    system = [Message(role="system", content=[Text("s")], name=name) for name in ("a", "b", "c")]
    spoken = [Message(role="assistant", content=[Text("t")], name=name) for name in ("a", "a", "d")]
    rendered = render(program(items=[*system, Reasoning(id="rs_1"), *spoken]))
    assert rendered.dropped == [
        "messages[].name (of one that is joined to another)",
        "input[] (reasoning that is only an id)",
    ]
    assert rendered.body["messages"] == [
        {"role": "system", "content": "s\n\ns\n\ns", "name": "a"},
        {"role": "assistant", "content": "t\n\nt\n\nt", "name": "a"},
    ]


def test_many_answers() -> None:
    """Each answer finds its call, however many calls of a kind wait."""
    calls: list[Item] = [OpaqueItem("shell_call", f"input[{n}]") for n in range(300)]
    answers: list[Item] = [OpaqueItem("shell_call_output", f"input[{300 + n}]") for n in range(300)]
    rendered = render(program(items=[*calls, *answers, user(Text("q"))]))
    assert len(rendered.dropped) == 600
    with pytest.raises(BadRequest) as caught:
        render(program(items=[*calls, *answers[1:], user(Text("q"))]))
    assert caught.value.param == "input[299]"
