"""Requests of the Responses format: parsed, refused with a path, and written for an upstream."""

from __future__ import annotations

from typing import Any

import pytest

from nursling.engine.errors import BadRequest, NotSupported
from nursling.engine.formats.base import Call
from nursling.engine.formats.responses import RESPONSES
from nursling.engine.request import (
    AllowedTools,
    Audio,
    CustomTool,
    File,
    FunctionTool,
    Image,
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
from support.schemas import check, check_responses_request


CALL = Call(model="upstream-model", stream=True)


def parse(**fields: Any) -> Request:
    return RESPONSES.parse_request({"model": "m", "input": "hi", **fields})


def render(request: Request, call: Call = CALL) -> dict[str, Any]:
    rendered = RESPONSES.render_request(request, call)
    assert rendered.dropped == []
    return rendered.body


def chat(**fields: Any) -> Request:
    fields.setdefault("items", [Message(role="user", content=[Text("hi")])])
    return Request(model="m", format="chat", **fields)


# Parsing.


IMAGE = "data:image/png;base64,AA"

ITEMS: list[tuple[Any, list[Any]]] = [
    ({"role": "user", "content": "hi"}, [Message(role="user", content=[Text("hi")])]),
    (
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}]},
        [Message(role="developer", content=[Text("a")])],
    ),
    (
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "phase": "commentary",
            "content": [
                {"type": "output_text", "text": "a", "annotations": []},
                {"type": "refusal", "refusal": "no"},
                {"type": "text", "text": "b"},
            ],
        },
        [Message(role="assistant", content=[Text("a"), Refusal("no"), Text("b")])],
    ),
    (
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": IMAGE, "detail": "low"},
                {"type": "input_image", "image_url": {"url": IMAGE, "detail": "high"}},
                {"type": "input_image", "file_id": "file-1"},
                {"type": "image_url", "image_url": {"url": IMAGE}},
            ],
        },
        [
            Message(
                role="user",
                content=[
                    Image(url=IMAGE, detail="low"),
                    Image(url=IMAGE, detail="high"),
                    Image(file_id="file-1"),
                    Image(url=IMAGE),
                ],
            )
        ],
    ),
    (
        {
            "role": "user",
            "content": [
                {"type": "input_file", "file_id": "file-1"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "AA"},
                {"type": "input_file", "file_url": "https://x/a.pdf"},
                {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            ],
        },
        [
            Message(
                role="user",
                content=[
                    File(file_id="file-1"),
                    File(filename="a.pdf", data="AA"),
                    File(url="https://x/a.pdf"),
                    Audio("AA", "wav"),
                ],
            )
        ],
    ),
    (
        {"role": "user", "content": [{"type": "input_video", "video_url": "x"}]},
        [Message(role="user", content=[]), OpaqueItem("input_video", "input[0].content[0]")],
    ),
    (
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n"},
        [ToolCall(call_id="c", name="f", arguments="{}", namespace="n")],
    ),
    (
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x = 1"},
        [ToolCall(call_id="c", name="f", arguments="x = 1", custom=True)],
    ),
    (
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        [ToolResult(call_id="c", content=[Text("42")])],
    ),
    (
        {
            "type": "custom_tool_call_output",
            "call_id": "c",
            "output": [{"type": "input_text", "text": "a"}, {"type": "computer", "x": 1}],
        },
        [
            ToolResult(call_id="c", content=[Text("a")], custom=True),
            OpaqueItem("computer", "input[0].output[1]"),
        ],
    ),
    (
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "s"}],
            "content": [{"type": "reasoning_text", "text": "t"}],
            "encrypted_content": "gAAA",
        },
        [Reasoning(id="rs_1", summary=["s"], thought=["t"], encrypted="gAAA")],
    ),
    ({"type": "reasoning", "summary": [], "content": None}, [Reasoning()]),
    *(
        ({"type": kind, "id": "x"}, [OpaqueItem(kind, "input[0]")])
        for kind in (
            "item_reference",
            "web_search_call",
            "tool_search_call",
            "additional_tools",
            "local_shell_call",
            "what_comes_next",
        )
    ),
]


@pytest.mark.parametrize(("item", "expected"), ITEMS, ids=lambda value: str(value)[:40])
def test_every_item_is_read(item: Any, expected: list[Any]) -> None:
    """Each kind of input item becomes its normal form, and an unknown one keeps its place."""
    assert parse(input=[item]).items == expected


def test_input_and_instructions() -> None:
    """A string is one user message; instructions stand in front as a system message."""
    assert parse().items == [Message(role="user", content=[Text("hi")])]
    assert parse(instructions="Be brief.").items[0] == Message(
        role="system", content=[Text("Be brief.")]
    )
    assert parse(instructions="").items == parse().items


@pytest.mark.parametrize("name", ["previous_response_id", "prompt", "conversation"])
def test_the_conversation_may_lie_with_the_server(name: str) -> None:
    """Without input, a reference to what the server has is enough."""
    for value in ({"id": "x"},) if name == "prompt" else ("x", {"id": "x"}):
        if name == "previous_response_id" and value != "x":
            continue
        request = RESPONSES.parse_request({"model": "m", name: value})
        assert request.items == []
        assert (request.previous_response_id or request.extra[name]) == value


def test_every_field_has_its_place() -> None:
    """Known fields are translated, the others stay in `extra` by name, and the body is kept."""
    body = {
        "model": "m",
        "input": [],
        "stream": True,
        "stream_options": {"include_obfuscation": False, "new": 1},
        "parallel_tool_calls": False,
        "max_output_tokens": 50,
        "temperature": 0,
        "top_p": 0.5,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "top_logprobs": 3,
        "include": [
            "reasoning.encrypted_content",
            "message.output_text.logprobs",
            "file_search_call.results",
        ],
        "text": {
            "format": {
                "type": "json_schema",
                "name": "answer",
                "description": "d",
                "schema": {"type": "object"},
                "strict": True,
            },
            "verbosity": "low",
            "tone": "warm",
        },
        "reasoning": {"effort": "high", "summary": "auto", "context": "all_turns"},
        "metadata": {"a": "b"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "service_tier": "flex",
        "store": False,
        "previous_response_id": "resp_1",
        "truncation": "auto",
        "max_tool_calls": 4,
        "background": False,
        "client_metadata": {"x": 1},
    }
    assert RESPONSES.parse_request(body) == Request(
        model="m",
        items=[],
        stream=True,
        format="responses",
        parallel_tool_calls=False,
        max_tokens=50,
        temperature=0,
        top_p=0.5,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=True,
        top_logprobs=3,
        output=OutputFormat(
            kind="json_schema",
            name="answer",
            description="d",
            schema={"type": "object"},
            strict=True,
        ),
        verbosity="low",
        reasoning_effort="high",
        reasoning_summary="auto",
        encrypted_reasoning=True,
        metadata={"a": "b"},
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        service_tier="flex",
        store=False,
        previous_response_id="resp_1",
        include_obfuscation=False,
        extra={
            "truncation": "auto",
            "max_tool_calls": 4,
            "background": False,
            "client_metadata": {"x": 1},
            "include": ["file_search_call.results"],
            "text.tone": "warm",
            "reasoning.context": "all_turns",
            "stream_options.new": 1,
        },
        raw=body,
    )


def test_text_formats() -> None:
    """The simple formats are read; one that we never heard of is left to the upstream."""
    assert parse(text={"format": {"type": "text"}}).output == OutputFormat(kind="text")
    assert parse(text={"format": {"type": "json_object"}}).output == OutputFormat(
        kind="json_object"
    )
    unknown = parse(text={"format": {"type": "grammar", "syntax": "x"}})
    assert (unknown.output, unknown.extra) == (
        None,
        {"text.format": {"type": "grammar", "syntax": "x"}},
    )
    assert parse(reasoning={"generate_summary": "auto"}).reasoning_summary == "auto"


def test_tools() -> None:
    """Functions and custom tools are read, every other tool keeps its type and place."""
    request = parse(
        tools=[
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True},
            {"type": "custom", "name": "c", "description": "d", "format": {"type": "text"}},
            {"type": "web_search"},
            {"type": "namespace", "name": "n", "tools": []},
            {
                "type": "namespace",
                "name": "n",
                "description": "About n.",
                "tools": [
                    {"type": "function", "name": "f", "strict": False},
                    {"type": "custom", "name": "c"},
                    {"type": "web_search"},
                ],
            },
        ]
    )
    assert request.namespaces == {"n": "About n."}
    assert request.tools == [
        FunctionTool(name="f", parameters={"type": "object"}, strict=True),
        CustomTool(name="c", description="d", grammar={"type": "text"}),
        OpaqueTool("web_search", "tools[2]"),
        OpaqueTool("namespace", "tools[3]"),
        FunctionTool(name="f", strict=False, namespace="n"),
        CustomTool(name="c", namespace="n"),
        OpaqueTool("web_search", "tools[4].tools[2]"),
    ]


FUNCTION = {"type": "function", "name": "f"}
CUSTOM = {"type": "custom", "name": "c"}

CHOICES: list[tuple[Any, Any]] = [
    (None, None),
    ("auto", "auto"),
    ("none", "none"),
    ("required", "required"),
    (FUNCTION, NamedTool("function", "f")),
    (CUSTOM, NamedTool("custom", "c")),
    (
        {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION]},
        AllowedTools("auto", [NamedTool("function", "f")]),
    ),
    (
        {"type": "allowed_tools", "mode": "required", "tools": [FUNCTION, CUSTOM]},
        AllowedTools("required", [NamedTool("function", "f"), NamedTool("custom", "c")]),
    ),
    (
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]},
        OpaqueChoice("allowed_tools"),
    ),
    ({"type": "web_search_preview"}, OpaqueChoice("web_search_preview")),
]


@pytest.mark.parametrize(("given", "expected"), CHOICES, ids=lambda value: str(value)[:40])
def test_tool_choices(given: Any, expected: Any) -> None:
    """Every form of tool_choice is read."""
    assert parse(tool_choice=given).tool_choice == expected


def content(part: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": "x"}, {"role": "user", "content": [part]}]}


MISTAKES: list[tuple[Any, str, str]] = [
    ({"model": None}, "model", "missing_required_parameter"),
    ({"model": ""}, "model", "missing_required_parameter"),
    ({"model": 3}, "model", "invalid_type"),
    ({"input": None}, "input", "missing_required_parameter"),
    ({"input": 3}, "input", "invalid_type"),
    ({"input": ["x"]}, "input[0]", "invalid_type"),
    ({"input": [{}]}, "input[0].type", "missing_required_parameter"),
    ({"input": [{"type": 1}]}, "input[0].type", "invalid_type"),
    ({"input": [{"type": "message"}]}, "input[0].role", "missing_required_parameter"),
    ({"input": [{"role": "tool", "content": ""}]}, "input[0].role", "invalid_value"),
    ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
    ({"input": [{"role": "user", "content": 1}]}, "input[0].content", "invalid_type"),
    (content("x"), "input[1].content[0]", "invalid_type"),
    (content({"text": "x"}), "input[1].content[0].type", "missing_required_parameter"),
    (
        content({"type": "input_text"}),
        "input[1].content[0].text",
        "missing_required_parameter",
    ),
    (
        content({"type": "input_image"}),
        "input[1].content[0].image_url",
        "missing_required_parameter",
    ),
    (
        content({"type": "input_image", "image_url": 1}),
        "input[1].content[0].image_url",
        "invalid_type",
    ),
    (
        content({"type": "input_image", "image_url": {}}),
        "input[1].content[0].image_url.url",
        "missing_required_parameter",
    ),
    (
        content({"type": "input_file"}),
        "input[1].content[0].file_data",
        "missing_required_parameter",
    ),
    (
        content({"type": "input_audio", "input_audio": {"data": "AA"}}),
        "input[1].content[0].input_audio.format",
        "missing_required_parameter",
    ),
    (
        {"input": [{"type": "function_call", "call_id": "c", "name": "f"}]},
        "input[0].arguments",
        "missing_required_parameter",
    ),
    (
        {"input": [{"type": "function_call_output", "output": "x"}]},
        "input[0].call_id",
        "missing_required_parameter",
    ),
    (
        {"input": [{"type": "reasoning", "summary": [{}]}]},
        "input[0].summary[0].text",
        "missing_required_parameter",
    ),
    ({"stream": "yes"}, "stream", "invalid_type"),
    ({"max_output_tokens": True}, "max_output_tokens", "invalid_type"),
    ({"max_output_tokens": 1.5}, "max_output_tokens", "invalid_type"),
    ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
    ({"max_output_tokens": -1}, "max_output_tokens", "invalid_value"),
    ({"conversation": 5}, "conversation", "invalid_type"),
    ({"conversation": True}, "conversation", "invalid_type"),
    ({"conversation": {}}, "conversation.id", "missing_required_parameter"),
    ({"conversation": {"id": 5}}, "conversation.id", "invalid_type"),
    ({"prompt": "x"}, "prompt", "invalid_type"),
    ({"prompt": 5}, "prompt", "invalid_type"),
    ({"prompt": []}, "prompt", "invalid_type"),
    ({"prompt": {"version": "1"}}, "prompt.id", "missing_required_parameter"),
    ({"metadata": {"a": 5}}, "metadata.a", "invalid_type"),
    ({"text": {"format": {"type": "zz"}}}, "text.format.type", "invalid_value"),
    (
        content({"type": "input_image", "image_url": "u", "detail": "zz"}),
        "input[1].content[0].detail",
        "invalid_value",
    ),
    (
        content({"type": "input_image", "image_url": {"url": "u", "detail": "zz"}}),
        "input[1].content[0].image_url.detail",
        "invalid_value",
    ),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"include": [1]}, "include[0]", "invalid_type"),
    ({"background": 1}, "background", "invalid_type"),
    (
        {"stream_options": {"include_obfuscation": 1}},
        "stream_options.include_obfuscation",
        "invalid_type",
    ),
    ({"text": {"format": {}}}, "text.format.type", "missing_required_parameter"),
    (
        {"text": {"format": {"type": "json_schema", "name": "x"}}},
        "text.format.schema",
        "missing_required_parameter",
    ),
    ({"reasoning": {"effort": 1}}, "reasoning.effort", "invalid_type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
    ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
    ({"tool_choice": "some"}, "tool_choice", "invalid_value"),
    ({"tool_choice": 1}, "tool_choice", "invalid_type"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.name", "missing_required_parameter"),
    (
        {"tool_choice": {"type": "allowed_tools", "mode": "none", "tools": []}},
        "tool_choice.mode",
        "invalid_value",
    ),
    (
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{}]}},
        "tool_choice.tools[0].type",
        "missing_required_parameter",
    ),
]


@pytest.mark.parametrize(("fields", "param", "code"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_named_by_its_path(fields: Any, param: str, code: str) -> None:
    """A malformed field is a 400 with `param` and OpenAI's code."""
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_a_body_is_an_object() -> None:
    """Any other JSON is a 400."""
    with pytest.raises(BadRequest):
        RESPONSES.parse_request([])


# Rendering: same format.


def test_same_format_leaves_as_it_came() -> None:
    """Only the model, the stream switch and the preface are set; what nobody knows is kept."""
    body = {
        "model": "m",
        "input": [{"type": "tool_search_call", "x": None}, {"role": "user", "content": "hi"}],
        "client_metadata": {"a": 1},
        "stream": True,
        "stream_options": {"include_obfuscation": True},
    }
    request = RESPONSES.parse_request(body)
    assert render(request) == {**body, "model": "upstream-model"}
    whole = render(request, Call(model="x", stream=False))
    assert "stream_options" not in whole
    assert whole["stream"] is False
    prefaced = Call(model="x", stream=True, preface="[Model: small]")
    assert render(request, prefaced)["instructions"] == "[Model: small]"
    told = RESPONSES.parse_request({**body, "instructions": "Be brief."})
    assert render(told, prefaced)["instructions"] == "[Model: small]\nBe brief."
    assert body["model"] == "m"


# Rendering: from the normal form.


def test_a_conversation_of_another_format() -> None:
    """Every item of the normal form is written as Responses has it, and the body is valid."""
    body = render(
        chat(
            items=[
                Message(role="system", content=[Text("a")]),
                Message(role="developer", content=[Text("a"), Text("b")]),
                Message(
                    role="user",
                    content=[
                        Text("look"),
                        Image(url=IMAGE, detail="low"),
                        Image(file_id="file-1"),
                        File(filename="a.pdf", data="AA"),
                        File(file_id="file-2"),
                        File(url="https://x/a"),
                        Refusal("odd"),
                    ],
                ),
                Message(role="assistant", content=[Text("ok")]),
                Message(role="assistant", content=[]),
                ToolCall(call_id="c1", name="f", arguments="{}"),
                ToolCall(call_id="c2", name="g", arguments="x", custom=True),
                ToolResult(call_id="c1", content=[Text("1")]),
                ToolResult(call_id="c2", content=[Text("1"), Image(url=IMAGE)], custom=True),
                ToolResult(call_id="c3", content=[]),
                Reasoning(id="rs_1", summary=["s"], encrypted="gAAA"),
            ]
        )
    )
    assert body["input"] == [
        {"type": "message", "role": "system", "content": "a"},
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": IMAGE, "detail": "low"},
                {"type": "input_image", "file_id": "file-1", "detail": "auto"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "AA"},
                {"type": "input_file", "file_id": "file-2"},
                {"type": "input_file", "file_url": "https://x/a"},
                {"type": "input_text", "text": "odd"},
            ],
        },
        {"type": "message", "role": "assistant", "content": "ok"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [
                {"type": "input_text", "text": "1"},
                {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
            ],
        },
        {"type": "function_call_output", "call_id": "c3", "output": ""},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "s"}],
            "encrypted_content": "gAAA",
        },
    ]
    assert body["include"] == ["reasoning.encrypted_content"]
    for item in body["input"]:
        # The document's `oneOf` of all items refuses every message that is right by two of them.
        check("openai", "EasyInputMessage" if item["type"] == "message" else "Item", item)


def test_assistant_parts_and_audio() -> None:
    """An assistant's several parts are output parts; audio keeps chat's form."""
    body = render(
        chat(
            items=[
                Message(role="assistant", content=[Text("a"), Refusal("no")]),
                Message(role="user", content=[Audio("AA", "wav")]),
                Reasoning(encrypted="gAAA"),
            ]
        )
    )
    assert [item.get("content") for item in body["input"]] == [
        [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}],
        [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}],
        None,
    ]
    assert "id" not in body["input"][2]


def test_settings_of_another_format() -> None:
    """Settings are written under their Responses names, and the body is valid."""
    body = RESPONSES.render_request(
        chat(
            tools=[
                FunctionTool(name="f", description="d", parameters={"type": "object"}),
                FunctionTool(name="g", strict=True),
                CustomTool(name="c", grammar={"type": "text"}),
            ],
            tool_choice=NamedTool("function", "f"),
            parallel_tool_calls=False,
            max_tokens=50,
            temperature=0.5,
            top_p=0.5,
            presence_penalty=0,
            logprobs=True,
            top_logprobs=2,
            output=OutputFormat(kind="json_schema", name="a", schema={"type": "object"}),
            verbosity="low",
            reasoning_effort="low",
            encrypted_reasoning=True,
            metadata={"a": "b"},
            user="u",
            include_obfuscation=False,
            extra={"prompt_cache_retention": "24h"},
        ),
        Call(model="x", stream=True, preface="[Model: small]"),
    ).body
    check_responses_request(body)
    assert body == {
        "model": "x",
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "instructions": "[Model: small]",
        "stream": True,
        "stream_options": {"include_obfuscation": False},
        "tools": [
            {
                "type": "function",
                "name": "f",
                "description": "d",
                "parameters": {"type": "object"},
                "strict": False,
            },
            {
                "type": "function",
                "name": "g",
                "parameters": {"type": "object", "properties": {}},
                "strict": True,
            },
            {"type": "custom", "name": "c", "format": {"type": "text"}},
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "parallel_tool_calls": False,
        "max_output_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.5,
        "top_logprobs": 2,
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}},
        },
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "metadata": {"a": "b"},
        "user": "u",
        "store": False,
        "prompt_cache_retention": "24h",
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("required", "required"),
        (
            AllowedTools("auto", [NamedTool("function", "f")]),
            {"type": "allowed_tools", "mode": "auto", "tools": [FUNCTION]},
        ),
        (NamedTool("custom", "c"), CUSTOM),
    ],
)
def test_tool_choices_are_written(given: Any, expected: Any) -> None:
    """Every form of tool_choice that another format has is written."""
    assert render(chat(tool_choice=given))["tool_choice"] == expected


def test_store_is_what_the_client_said() -> None:
    """A chat client that says nothing keeps nothing; one that says true is heard."""
    assert render(chat())["store"] is False
    assert render(chat(store=True))["store"] is True
    assert render(chat(output=OutputFormat(kind="json_object")))["text"] == {
        "format": {"type": "json_object"}
    }


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"n": 2}, NotSupported, "n"),
    ({"logit_bias": {"1": 5}}, BadRequest, "logit_bias"),
    ({"extra": {"modalities": ["text", "audio"]}}, BadRequest, "modalities"),
    ({"extra": {"audio": {"voice": "x"}}}, BadRequest, "audio"),
    ({"tool_choice": OpaqueChoice("web_search")}, BadRequest, "tool_choice"),
    ({"items": [OpaqueItem("item_reference", "input[0]")]}, BadRequest, "input[0]"),
]


@pytest.mark.parametrize(("fields", "error", "param"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_would_change_the_answer_is_refused(
    fields: dict[str, Any], error: type[BadRequest | NotSupported], param: str
) -> None:
    """What Responses cannot say, and the answer depends on, is refused by name."""
    with pytest.raises(error) as caught:
        RESPONSES.render_request(chat(**fields), CALL)
    assert caught.value.param == param


def test_what_does_not_change_the_answer_is_listed() -> None:
    """Everything else that Responses cannot say is dropped and listed, once each."""
    named = Message(role="user", content=[Text("hi")], name="Ann")
    rendered = RESPONSES.render_request(
        chat(
            items=[
                named,
                named,
                Reasoning(thought=["t"], encrypted="gAAA"),
                Reasoning(thought=["t"]),
            ],
            seed=0,
            presence_penalty=0.5,
            frequency_penalty=0,
            tools=[OpaqueTool("web_search", "tools[0]")],
            extra={"prediction": {"type": "content"}, "modalities": ["text"], "x": None},
        ),
        CALL,
    )
    assert rendered.dropped == [
        "messages[].name",
        "messages[].reasoning_content",
        "presence_penalty",
        "seed",
        "tools[0] (web_search)",
        "prediction",
    ]
    assert "tools" not in rendered.body


def test_a_program_may_say_what_only_this_format_has() -> None:
    """Extra fields of a request without a client's body are written by their wire names."""
    body = render(
        Request(
            model="m",
            items=[],
            encrypted_reasoning=True,
            reasoning_effort="low",
            extra={
                "truncation": "auto",
                "reasoning.context": "all_turns",
                "include": ["file_search_call.results"],
            },
        )
    )
    assert body["truncation"] == "auto"
    assert body["reasoning"] == {"effort": "low", "context": "all_turns"}
    assert body["include"] == ["reasoning.encrypted_content", "file_search_call.results"]


def test_stop_sequences_are_left_to_the_pipeline() -> None:
    """Responses has no word for `stop`: the rendered request hands it on, and drops nothing."""
    request = Request(model="m", items=[], stop=["END"])
    rendered = RESPONSES.render_request(request, Call(model="m", stream=True))
    assert rendered.stop == ["END"]
    assert "stop" not in rendered.body
    assert rendered.dropped == []


# What another format would lose.


def test_nested_members_that_only_this_format_knows_are_named() -> None:
    """Items, parts, tools and schemas: each unknown member by its place."""
    cited = {"type": "output_text", "text": "a", "annotations": [{"type": "x"}], "logprobs": []}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    request = parse(
        input=[
            {"role": "user", "content": "x", "cache": {}},
            {"role": "assistant", "id": "msg_1", "phase": "final_answer", "content": [cited]},
            {**call, "namespace": "n", "caller": {"type": "direct"}},
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "x", "y": 1}],
            },
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "web_search_call", "action": {}, "x": 1},
            {"role": "user", "content": [{"type": "input_video", "video": "v"}]},
        ],
        tools=[
            {"type": "function", "name": "f", "defer_loading": True, "strict": None},
            {"type": "web_search", "filters": {"x": 1}},
            {
                "type": "namespace",
                "name": "n",
                "description": "d",
                "tools": [{"type": "function", "name": "f", "output_schema": {"x": 1}}],
                "icon": "i",
            },
        ],
        text={"format": {"type": "json_schema", "name": "n", "schema": {}, "z": 1}},
    )
    assert request.leftover == [
        "input[1].phase",
        "input[1].content[0].annotations",
        "input[2].caller",
        "input[3].output[0].y",
        "tools[0].defer_loading",
        "tools[2].tools[0].output_schema",
        "tools[2].icon",
        "text.format.z",
    ]
    assert parse(input=[{"role": "user", "content": "", "x": 1}] * 70).leftover[-2:] == [
        "input[63].x",
        "and 6 more",
    ]
    assert parse(input="x").leftover == []


def test_what_only_chat_knows_is_listed() -> None:
    """The leftovers of another format's client are dropped, and said to be."""
    item = Message(role="user", content=[Text("x")])
    places = ["messages[0].content[0].cache_control", "tools[0].cache_control"]
    asked = Request(model="m", items=[item], format="chat", leftover=places)
    assert RESPONSES.render_request(asked, CALL).dropped == places
    own = parse(input=[{"role": "user", "content": "x", "phase": "y"}])
    assert RESPONSES.render_request(own, CALL).dropped == []
    changed = Request(model="m", items=[item], format="responses", leftover=["input[0].phase"])
    assert RESPONSES.render_request(changed, CALL).dropped == ["input[0].phase"]


def test_a_bare_id_is_a_reference() -> None:
    """`item_reference` is the one type of an item that may be left out."""
    [item] = parse(input=[{"id": "msg_1"}]).items
    assert item == OpaqueItem("item_reference", "input[0]")
