"""Every kind of content that a reply can have, in both wire formats, and what must arrive of it.

`KINDS` is the table behind the conformance tests and behind README's table of combinations. A kind
is said as a chat upstream would say it and as a Responses upstream would; `said` is what a client
has to find, whichever API it speaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .scripted import Api, ChatReply, Json, ResponsesReply


@dataclass(frozen=True)
class Call:
    """A tool call."""

    id: str
    name: str
    text: str
    custom: bool = False
    namespace: str = ""


@dataclass(frozen=True)
class Said:
    """The content of one choice of a reply, without anything of how it was framed."""

    texts: tuple[str, ...] = ()
    """The text of each message item. A chat client gets them as one, a blank line between."""
    refusal: str = ""
    thought: str = ""
    summaries: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    citations: tuple[Json, ...] = ()
    """In the flat form."""
    logprobs: tuple[tuple[str, float], ...] = ()
    finish: str = "stop"
    usage: tuple[int, int, int, int] = (3, 5, 0, 0)
    """Tokens: input, output, cached, reasoning."""

    def in_chat(self) -> Said:
        """What of this a chat message tells apart."""
        reasoning = "\n\n".join([*([self.thought] if self.thought else []), *self.summaries])
        text = "\n\n".join(self.texts)
        return replace(self, texts=(text,) if text else (), thought=reasoning, summaries=())


@dataclass(frozen=True)
class Kind:
    """One kind of content."""

    name: str
    chat: ChatReply | None
    responses: ResponsesReply | None
    """None: this API cannot say it."""
    said: Said
    asks: dict[Api, Json] = field(default_factory=dict)
    """What a client adds to its request to get this."""
    only_same: bool = False
    """It has no words in the other API: there the rest of the reply arrives."""
    choices: int = 1
    from_chat: Said | None = None
    """What a chat upstream says of it, where that is less or otherwise."""
    wrapped: ChatReply | None = None
    """How a chat upstream answers a Responses client, where that differs."""
    not_asked: frozenset[Api] = frozenset()
    """Clients that cannot ask for it."""

    def upstream(self, upstream: Api, client: Api) -> ChatReply | ResponsesReply | None:
        """The reply that a client of this API gets from an upstream of that one."""
        if upstream == "chat":
            return self.wrapped if self.wrapped and client == "responses" else self.chat
        return self.responses

    def expected(self, upstream: Api, client: Api) -> Said:
        """What the client finds."""
        said = self.from_chat if upstream == "chat" and self.from_chat else self.said
        return said.in_chat() if client == "chat" else said


def _text_part(text: str, **more: Any) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [], **more}


def _message(*parts: Json, number: int = 0, **more: Any) -> Json:
    return {
        "type": "message",
        "id": f"msg_up_{number}",
        "role": "assistant",
        "status": "completed",
        "content": list(parts),
        **more,
    }


def _function_item(call: Call, **more: Any) -> Json:
    return {
        "type": "function_call",
        "id": f"fc_{call.id}",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.text,
        "status": "completed",
        **more,
    }


def _function_call(call: Call) -> Json:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.text},
    }


def _reasoning(**more: Any) -> Json:
    return {"type": "reasoning", "id": "rs_up", "summary": [], **more}


_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def function_tool(api: Api, name: str) -> Json:
    function = {
        "name": name,
        "description": "The weather now.",
        "parameters": _PARAMETERS,
        "strict": True,
    }
    if api == "chat":
        return {"type": "function", "function": function}
    return {"type": "function", **function}


def custom_tool(api: Api, name: str) -> Json:
    custom = {"name": name, "description": "Runs a script."}
    if api == "chat":
        return {"type": "custom", "custom": custom}
    return {"type": "custom", **custom}


def namespace_tool(call: Call) -> Json:
    """The tools of an MCP server, as Codex sends them."""
    return {
        "type": "namespace",
        "name": call.namespace,
        "description": f"Tools in the {call.namespace} namespace.",
        "tools": [function_tool("responses", call.name)],
    }


def _both(make: Callable[[Api], Json]) -> dict[Api, Json]:
    return {"chat": make("chat"), "responses": make("responses")}


TEXT = "The horse is on its feet."
UNICODE = (
    'Caf\u00e9 \U0001f40e\U0001f469\u200d\U0001f52c line\u2028sep\u2029 "q" \\ \t\n end\x85\u0000'
)
TOKYO = Call("call_tokyo", "get_weather", '{"city": "Tokyo"}')
PARIS = Call("call_paris", "get_weather", '{"city": "Paris \U0001f5fc"}')
ROME = Call("call_rome", "get_weather", '{"city": "Rome"}', namespace="mcp__weather")
SCRIPT = Call("call_script", "run", 'print("hi")\n\U0001f40e\\', custom=True)
CITATION = {
    "type": "url_citation",
    "url": "https://example.com/a",
    "title": "A",
    "start_index": 4,
    "end_index": 9,
}
LOGPROBS = [
    {
        "token": token,
        "logprob": -0.5 * number,
        "bytes": list(token.encode()),
        "top_logprobs": [
            {"token": token, "logprob": -0.5 * number, "bytes": list(token.encode())},
        ],
    }
    for number, token in enumerate(["The", " horse", "."])
]
WEB_SEARCH = {
    "type": "web_search_call",
    "id": "ws_up",
    "status": "completed",
    "action": {"type": "search", "query": "horses"},
}


def _plain(text: str = TEXT) -> tuple[Json, ...]:
    return (_message(_text_part(text)),)


KINDS: tuple[Kind, ...] = (
    Kind(
        "text",
        ChatReply(({"content": TEXT},)),
        ResponsesReply(_plain()),
        Said((TEXT,)),
    ),
    Kind(
        "empty text",
        ChatReply(({"content": ""},)),
        ResponsesReply(_plain("")),
        Said(("",)),
    ),
    Kind(
        "unicode",
        ChatReply(({"content": UNICODE},)),
        ResponsesReply(_plain(UNICODE)),
        Said((UNICODE,)),
    ),
    Kind(
        "several parts",
        ChatReply(
            ({"content": [{"type": "text", "text": "One. "}, {"type": "text", "text": "Two."}]},)
        ),
        ResponsesReply((_message(_text_part("One. "), _text_part("Two.")),)),
        Said(("One. Two.",)),
    ),
    Kind(
        "several messages",
        None,
        ResponsesReply(
            (
                _message(_text_part("Let me see."), phase="commentary"),
                _message(_text_part(TEXT), number=1, phase="final_answer"),
            )
        ),
        Said(("Let me see.", TEXT)),
    ),
    Kind(
        "refusal",
        ChatReply(({"refusal": "I will not."},)),
        ResponsesReply((_message({"type": "refusal", "refusal": "I will not."}),)),
        Said(("",), refusal="I will not."),
    ),
    Kind(
        "reasoning, raw",
        ChatReply(({"reasoning_content": "A horse, so feet.", "content": TEXT},)),
        ResponsesReply(
            (
                _reasoning(content=[{"type": "reasoning_text", "text": "A horse, so feet."}]),
                *_plain(),
            )
        ),
        Said((TEXT,), thought="A horse, so feet."),
    ),
    Kind(
        "reasoning, summary",
        ChatReply(
            (
                {
                    "reasoning_details": [
                        {"type": "reasoning.summary", "summary": "Feet first.", "index": 0}
                    ],
                    "content": TEXT,
                },
            )
        ),
        ResponsesReply(
            (
                _reasoning(
                    summary=[
                        {"type": "summary_text", "text": "Feet first."},
                        {"type": "summary_text", "text": "Then the rest."},
                    ]
                ),
                *_plain(),
            )
        ),
        Said((TEXT,), summaries=("Feet first.", "Then the rest.")),
        from_chat=Said((TEXT,), summaries=("Feet first.",)),
        asks={"responses": {"reasoning": {"summary": "auto"}}},
    ),
    Kind(
        "reasoning, encrypted",
        ChatReply(
            (
                {
                    "reasoning_details": [
                        {
                            "type": "reasoning.encrypted",
                            "data": "c2VhbGVk",
                            "id": "rs_up",
                            "index": 0,
                        }
                    ],
                    "content": TEXT,
                },
            )
        ),
        ResponsesReply((_reasoning(encrypted_content="c2VhbGVk"), *_plain())),
        Said((TEXT,), sealed=("c2VhbGVk",)),
        asks={"responses": {"include": ["reasoning.encrypted_content"], "store": False}},
    ),
    Kind(
        "tool call",
        ChatReply(({"tool_calls": [_function_call(TOKYO)]},), finish="tool_calls"),
        ResponsesReply((_function_item(TOKYO),)),
        Said(calls=(TOKYO,), finish="tool_calls"),
        asks=_both(lambda api: {"tools": [function_tool(api, "get_weather")]}),
    ),
    Kind(
        "text and tool call",
        ChatReply(
            ({"content": "Let me look.", "tool_calls": [_function_call(TOKYO)]},),
            finish="tool_calls",
        ),
        ResponsesReply((*_plain("Let me look."), _function_item(TOKYO))),
        Said(("Let me look.",), calls=(TOKYO,), finish="tool_calls"),
        asks=_both(lambda api: {"tools": [function_tool(api, "get_weather")]}),
    ),
    Kind(
        "parallel tool calls, interleaved",
        ChatReply(
            ({"tool_calls": [_function_call(TOKYO), _function_call(PARIS)]},),
            finish="tool_calls",
            interleaved=True,
        ),
        ResponsesReply((_function_item(TOKYO), _function_item(PARIS)), interleaved=True),
        Said(calls=(TOKYO, PARIS), finish="tool_calls"),
        asks=_both(
            lambda api: {"tools": [function_tool(api, "get_weather")], "parallel_tool_calls": True}
        ),
    ),
    Kind(
        "custom tool call",
        ChatReply(
            (
                {
                    "tool_calls": [
                        {
                            "id": SCRIPT.id,
                            "type": "custom",
                            "custom": {"name": SCRIPT.name, "input": SCRIPT.text},
                        }
                    ]
                },
            ),
            finish="tool_calls",
        ),
        ResponsesReply(
            (
                {
                    "type": "custom_tool_call",
                    "id": "ctc_up",
                    "call_id": SCRIPT.id,
                    "name": SCRIPT.name,
                    "input": SCRIPT.text,
                },
            )
        ),
        Said(calls=(SCRIPT,), finish="tool_calls"),
        asks=_both(lambda api: {"tools": [custom_tool(api, "run")]}),
        wrapped=ChatReply(
            (
                {
                    "tool_calls": [
                        {
                            "id": SCRIPT.id,
                            "type": "function",
                            "function": {
                                "name": SCRIPT.name,
                                "arguments": '{"input": "print(\\"hi\\")\\n\\ud83d\\udc0e\\\\"}',
                            },
                        }
                    ]
                },
            ),
            finish="tool_calls",
        ),
    ),
    Kind(
        "call of a tool in a namespace",
        None,
        ResponsesReply((_function_item(ROME, namespace=ROME.namespace),)),
        Said(calls=(ROME,), finish="tool_calls"),
        asks={"responses": {"tools": [namespace_tool(ROME)]}},
        wrapped=ChatReply(
            ({"tool_calls": [_function_call(replace(ROME, name="mcp__weather__get_weather"))]},),
            finish="tool_calls",
        ),
        not_asked=frozenset({"chat"}),
    ),
    Kind(
        "usage with details",
        ChatReply(
            ({"content": TEXT},),
            usage={
                "prompt_tokens": 11,
                "completion_tokens": 7,
                "total_tokens": 18,
                "prompt_tokens_details": {"cached_tokens": 6},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
        ),
        ResponsesReply(
            _plain(),
            usage={
                "input_tokens": 11,
                "input_tokens_details": {"cached_tokens": 6},
                "output_tokens": 7,
                "output_tokens_details": {"reasoning_tokens": 2},
                "total_tokens": 18,
            },
        ),
        Said((TEXT,), usage=(11, 7, 6, 2)),
    ),
    Kind(
        "length",
        ChatReply(({"content": TEXT},), finish="length"),
        ResponsesReply(
            (_message(_text_part(TEXT), status="incomplete"),),
            status="incomplete",
            reason="max_output_tokens",
        ),
        Said((TEXT,), finish="length"),
    ),
    Kind(
        "content filter",
        ChatReply(({"content": TEXT},), finish="content_filter"),
        ResponsesReply(
            (_message(_text_part(TEXT), status="incomplete"),),
            status="incomplete",
            reason="content_filter",
        ),
        Said((TEXT,), finish="content_filter"),
    ),
    Kind(
        "logprobs",
        ChatReply(({"content": "The horse."},), logprobs={"content": LOGPROBS, "refusal": None}),
        ResponsesReply((_message(_text_part("The horse.", logprobs=LOGPROBS)),)),
        Said(
            ("The horse.",),
            logprobs=tuple((str(entry["token"]), entry["logprob"]) for entry in LOGPROBS),  # type: ignore[misc]  # a float, by construction
        ),
        asks={
            "chat": {"logprobs": True, "top_logprobs": 1},
            "responses": {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
        },
    ),
    Kind(
        "annotations",
        ChatReply(
            (
                {
                    "content": TEXT,
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {
                                name: value for name, value in CITATION.items() if name != "type"
                            },
                        }
                    ],
                },
            )
        ),
        ResponsesReply((_message(_text_part(TEXT, annotations=[CITATION])),)),
        Said((TEXT,), citations=(CITATION,)),
    ),
    Kind(
        "hosted tool items",
        None,
        ResponsesReply((WEB_SEARCH, *_plain())),
        Said((TEXT,)),
        asks={"responses": {"tools": [{"type": "web_search"}]}},
        only_same=True,
    ),
    Kind(
        "unknown fields",
        ChatReply(
            ({"content": TEXT, "x_mood": {"calm": 1}},),
            extra={"x_queue": {"place": 3}, "system_fingerprint": "fp_1"},
        ),
        ResponsesReply(
            (_message(_text_part(TEXT, x_part="p"), x_item=[1]),),
            extra={"x_queue": {"place": 3}},
        ),
        Said((TEXT,)),
        only_same=True,
    ),
    Kind(
        "two choices",
        ChatReply(({"content": "Heads."}, {"content": "Tails, this time."})),
        None,
        Said(("Heads.",)),
        asks={"chat": {"n": 2}},
        choices=2,
        not_asked=frozenset({"responses"}),
    ),
)
"""In the order of README's table."""
