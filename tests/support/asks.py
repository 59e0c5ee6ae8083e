"""What a client can ask, said in both APIs, and what an upstream of the other API must receive.

Where both APIs can say a thing, the two forms of it translate into each other, and the table holds
nothing more. `in_chat` and `in_responses` are for where the translation is not the client's own
form in the other API; `dropped_...` and `refused_...` for what the other API cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .kinds import ROME, custom_tool, function_tool, namespace_tool
from .scripted import Json


ABSENT = object()
"""The upstream must not receive this field."""


@dataclass(frozen=True)
class Ask:
    """One thing that a request can say."""

    name: str
    chat: Json | None = None
    responses: Json | None = None
    in_chat: Json | None = None
    in_responses: Json | None = None
    dropped_in_chat: tuple[str, ...] = ()
    dropped_in_responses: tuple[str, ...] = ()
    refused_in_chat: str = ""
    """The `param` of the refusal."""
    refused_in_responses: str = ""
    base: Json = field(default_factory=dict)


def _user(*content: Json) -> list[Json]:
    return [{"role": "user", "content": list(content)}]


def _input(*content: Json, role: str = "user") -> list[Json]:
    return [{"type": "message", "role": role, "content": list(content)}]


PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="
SCHEMA: Json = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


def _called(name: str) -> Json:
    function = {"name": name, "arguments": '{"city":"Paris"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _function(name: str, description: str) -> Json:
    tool = function_tool("chat", name)
    tool["function"]["description"] = description
    return tool


CALL_CHAT: Json = _called("get_weather")
CALL_RESPONSES: Json = {
    "type": "function_call",
    "call_id": "call_1",
    "name": "get_weather",
    "arguments": '{"city":"Paris"}',
}
ASK_CHAT: Json = {"role": "user", "content": "Weather?"}
ASK_RESPONSES: Json = {"type": "message", "role": "user", "content": "Weather?"}
WEATHER_CHAT = function_tool("chat", "get_weather")
WEATHER_RESPONSES = function_tool("responses", "get_weather")


def _choice(chat: Any, responses: Any) -> tuple[Json, Json]:
    return (
        {"tools": [WEATHER_CHAT], "tool_choice": chat},
        {"tools": [WEATHER_RESPONSES], "tool_choice": responses},
    )


ASKS: tuple[Ask, ...] = (
    Ask(
        "a picture by URL, with detail",
        {
            "messages": _user(
                {"type": "text", "text": "What is it?"},
                {
                    "type": "image_url",
                    "image_url": {"url": "https://example.com/a.png", "detail": "high"},
                },
            )
        },
        {
            "input": _input(
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "high"},
            )
        },
    ),
    Ask(
        "a picture inline, without detail",
        {"messages": _user({"type": "image_url", "image_url": {"url": PNG}})},
        {"input": _input({"type": "input_image", "image_url": PNG, "detail": "auto"})},
        in_chat={
            "messages": _user({"type": "image_url", "image_url": {"url": PNG, "detail": "auto"}})
        },
    ),
    Ask(
        "a file inline",
        {"messages": _user({"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}})},
        {"input": _input({"type": "input_file", "filename": "a.pdf", "file_data": PDF})},
    ),
    Ask(
        "a file by id",
        {"messages": _user({"type": "file", "file": {"file_id": "file_1"}})},
        {"input": _input({"type": "input_file", "file_id": "file_1"})},
    ),
    Ask(
        "a tool result",
        {
            "messages": [
                ASK_CHAT,
                CALL_CHAT,
                {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."},
            ],
            "tools": [WEATHER_CHAT],
        },
        {
            "input": [
                ASK_RESPONSES,
                CALL_RESPONSES,
                {"type": "function_call_output", "call_id": "call_1", "output": "Sunny."},
            ],
            "tools": [WEATHER_RESPONSES],
        },
    ),
    Ask(
        "a tool result of several parts",
        {
            "messages": [
                ASK_CHAT,
                CALL_CHAT,
                {
                    "role": "tool",
                    "tool_call_id": "call_1",
                    "content": [{"type": "text", "text": "Sun"}, {"type": "text", "text": "ny."}],
                },
            ]
        },
        {
            "input": [
                ASK_RESPONSES,
                CALL_RESPONSES,
                {
                    "type": "function_call_output",
                    "call_id": "call_1",
                    "output": [
                        {"type": "input_text", "text": "Sun"},
                        {"type": "input_text", "text": "ny."},
                    ],
                },
            ]
        },
        # Small servers take a string only, and the parts of a result are lines.
        in_chat={
            "messages": [
                ASK_CHAT,
                CALL_CHAT,
                {"role": "tool", "tool_call_id": "call_1", "content": "Sun\nny."},
            ]
        },
    ),
    Ask(
        "an earlier answer",
        {
            "messages": [
                {"role": "user", "content": "Hi."},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "And?"},
            ]
        },
        {
            "input": [
                {"type": "message", "role": "user", "content": "Hi."},
                {"type": "message", "role": "assistant", "content": "Hello."},
                {"type": "message", "role": "user", "content": "And?"},
            ]
        },
    ),
    Ask(
        "system and developer",
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": "Be kind."},
                {"role": "user", "content": "Hi."},
            ]
        },
        {
            "input": [
                {"type": "message", "role": "system", "content": "Be brief."},
                {"type": "message", "role": "developer", "content": "Be kind."},
                {"type": "message", "role": "user", "content": "Hi."},
            ]
        },
        # The chat templates of small models know one system message.
        in_chat={
            "messages": [
                {"role": "system", "content": "Be brief.\n\nBe kind."},
                {"role": "user", "content": "Hi."},
            ]
        },
    ),
    Ask(
        "instructions",
        None,
        {"instructions": "Be brief.", "input": "Hi."},
        in_chat={
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi."},
            ]
        },
    ),
    Ask(
        "answers in JSON by a schema",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "person",
                    "description": "A person.",
                    "schema": SCHEMA,
                    "strict": True,
                },
            }
        },
        {
            "text": {
                "format": {
                    "type": "json_schema",
                    "name": "person",
                    "description": "A person.",
                    "schema": SCHEMA,
                    "strict": True,
                }
            }
        },
    ),
    Ask(
        "answers in any JSON",
        {"response_format": {"type": "json_object"}},
        {"text": {"format": {"type": "json_object"}}},
    ),
    Ask("verbosity", {"verbosity": "low"}, {"text": {"verbosity": "low"}}),
    Ask(
        "function tools, strict",
        {"tools": [WEATHER_CHAT], "parallel_tool_calls": False},
        {"tools": [WEATHER_RESPONSES], "parallel_tool_calls": False},
    ),
    Ask(
        "a custom tool",
        {"tools": [custom_tool("chat", "run")]},
        {"tools": [custom_tool("responses", "run")]},
        in_chat={
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "run",
                        "description": (
                            "Runs a script.\n\nPut the input into the one argument `input`."
                        ),
                        "parameters": {
                            "type": "object",
                            "properties": {
                                "input": {
                                    "type": "string",
                                    "description": "The whole input of the tool, as plain text.",
                                }
                            },
                            "required": ["input"],
                            "additionalProperties": False,
                        },
                    },
                }
            ]
        },
    ),
    Ask("any tool or none", *_choice("auto", "auto")),
    Ask("no tool", *_choice("none", "none")),
    Ask("some tool", *_choice("required", "required")),
    Ask(
        "this tool",
        *_choice(
            {"type": "function", "function": {"name": "get_weather"}},
            {"type": "function", "name": "get_weather"},
        ),
    ),
    Ask(
        "one of these tools",
        *_choice(
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "get_weather"}}],
                },
            },
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "get_weather"}],
            },
        ),
        in_chat={"tools": [WEATHER_CHAT], "tool_choice": "required"},
    ),
    Ask(
        "a hosted tool",
        None,
        {"tools": [WEATHER_RESPONSES, {"type": "web_search"}]},
        in_chat={"tools": [WEATHER_CHAT]},
        dropped_in_chat=("tools[1] (web_search)",),
    ),
    Ask(
        "a hosted tool, and no other",
        None,
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        refused_in_chat="tool_choice",
    ),
    Ask("effort", {"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
    Ask(
        "a limit of tokens",
        {"max_completion_tokens": 100},
        {"max_output_tokens": 100},
        in_chat={"max_tokens": 100},
    ),
    Ask("an older limit of tokens", {"max_tokens": 100}, {"max_output_tokens": 100}),
    Ask(
        "sampling",
        {"temperature": 0.5, "top_p": 0.9},
        {"temperature": 0.5, "top_p": 0.9},
    ),
    Ask(
        "penalties and seed",
        {"presence_penalty": 0.5, "frequency_penalty": 0.25, "seed": 7},
        None,
        in_responses={"presence_penalty": ABSENT, "frequency_penalty": ABSENT, "seed": ABSENT},
        dropped_in_responses=("presence_penalty", "frequency_penalty", "seed"),
    ),
    Ask("stop", {"stop": ["END"]}, None, in_responses={"stop": ABSENT}),
    Ask("several answers", {"n": 2}, None, refused_in_responses="n"),
    Ask(
        "metadata and user",
        {"metadata": {"a": "b"}, "user": "u1", "safety_identifier": "s1", "prompt_cache_key": "k"},
        {"metadata": {"a": "b"}, "user": "u1", "safety_identifier": "s1", "prompt_cache_key": "k"},
    ),
    Ask("service tier", {"service_tier": "flex"}, {"service_tier": "flex"}),
    Ask(
        "logprobs",
        {"logprobs": True, "top_logprobs": 2},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    ),
    Ask(
        "sealed reasoning sent back",
        None,
        {
            "input": [
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2VhbGVk"},
                {"type": "message", "role": "user", "content": "And?"},
            ]
        },
    ),
    Ask(
        "an earlier response by id",
        None,
        {"input": "And?", "previous_response_id": "resp_1"},
        refused_in_chat="previous_response_id",
    ),
    Ask(
        "a conversation",
        None,
        {"input": "And?", "conversation": "c1"},
        refused_in_chat="conversation",
    ),
    Ask(
        "in the background",
        None,
        {"input": "And?", "background": True},
        refused_in_chat="background",
    ),
    Ask("a stored prompt", None, {"prompt": {"id": "p1"}}, refused_in_chat="prompt"),
    Ask(
        "an item by reference",
        None,
        {"input": [{"type": "item_reference", "id": "msg_1"}, ASK_RESPONSES]},
        refused_in_chat="input[0]",
    ),
    Ask(
        "tools in a namespace",
        None,
        {
            "input": [
                {**CALL_RESPONSES, "namespace": ROME.namespace},
                {"type": "function_call_output", "call_id": "call_1", "output": "Sunny."},
                ASK_RESPONSES,
            ],
            "tools": [namespace_tool(ROME), WEATHER_RESPONSES],
            "tool_choice": {"type": "function", "name": "mcp__weather__get_weather"},
        },
        in_chat={
            "messages": [
                _called("mcp__weather__get_weather"),
                {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."},
                ASK_CHAT,
            ],
            "tools": [
                _function(
                    "mcp__weather__get_weather",
                    "The tools of mcp__weather: Tools in the mcp__weather namespace.\n\n"
                    "The weather now.",
                ),
                WEATHER_CHAT,
            ],
            "tool_choice": {"type": "function", "function": {"name": "mcp__weather__get_weather"}},
        },
    ),
    Ask(
        "what today's agents send",
        None,
        {
            "input": [
                {
                    "type": "message",
                    "role": "assistant",
                    "phase": "commentary",
                    "content": [{"type": "output_text", "text": "Let me see."}],
                },
                {**CALL_RESPONSES, "namespace": "mcp__weather"},
                {"type": "function_call_output", "call_id": "call_1", "output": "Sunny."},
                ASK_RESPONSES,
            ],
            "tools": [
                WEATHER_RESPONSES,
                {"type": "web_search", "external_web_access": True},
                {"type": "tool_search", "execution": "client"},
            ],
            "client_metadata": {"session": "s"},
            "include": ["reasoning.encrypted_content"],
        },
    ),
    Ask(
        "unknown fields",
        {"x_vendor": {"a": [1]}},
        {"x_vendor": {"a": [1]}},
        in_chat={},
        in_responses={},
        dropped_in_chat=("x_vendor",),
        dropped_in_responses=("x_vendor",),
    ),
)
"""In no order."""
