"""Replies leave as Responses streams and objects: complete, numbered, right by both schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from nursling.engine.accumulate import Accumulator, FinishedReply
from nursling.engine.errors import ErrorInfo, IdleTimeout, RemoteProtocolError
from nursling.engine.events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    ItemEnded,
    ItemStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from nursling.engine.formats.base import Identity
from nursling.engine.formats.openai_errors import error_object_to_info
from nursling.engine.formats.responses import RESPONSES
from nursling.engine.formats.responses.quirks import QUIRKS
from nursling.engine.formats.responses.resource import error_object
from nursling.engine.grammar import Grammar
from nursling.engine.jsontext import dumps
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import (
    AllowedTools,
    CustomTool,
    FunctionTool,
    NamedTool,
    OpaqueChoice,
    OpaqueTool,
    OutputFormat,
    Request,
)
from support.corpus import recording, recordings
from support.laws import check_failed_stream, check_responses_stream, frames
from support.schemas import FILES, FOLDER, check_response


Json = dict[str, Any]
TOKEN = "0123456789abcdef0123456789abcdef"
IDENTITY = Identity(TOKEN, 1_700_000_000)
ASKED = Request(model="m", items=[], format="responses", stream=True)
STARTED = Started("chatcmpl-1", "up", 5)


def stream(events: list[Event], request: Request = ASKED) -> bytes:
    """Encode in one batch, and prove that one event at a time gives the same bytes."""
    data = RESPONSES.encoder(request, IDENTITY).encode(events)
    encoder = RESPONSES.encoder(request, IDENTITY)
    assert b"".join(encoder.encode([event]) for event in events) == data
    return data


def shown(data: bytes) -> list[Json]:
    return [json.loads(text) for _, text in frames(data)]


def fold(events: list[Event]) -> FinishedReply:
    fold = Accumulator(10**9)
    fold.add(events)
    return fold.reply


def reply_of(events: list[Event], request: Request = ASKED) -> Json:
    return RESPONSES.render_reply(fold(events), request, IDENTITY)


def decode(data: bytes, request: Request = ASKED) -> list[Event]:
    decoder = RESPONSES.decoder(request, DEFAULT_LIMITS)
    return Grammar().check(decoder.feed(data) + decoder.close())


def text(item: int, words: str, kind: Any = "text", part: int = 0) -> list[Event]:
    return [PartStarted(item, part, kind), PartDelta(item, part, words), PartEnded(item, part)]


def message(item: int, words: str = "Hi") -> list[Event]:
    return [ItemStarted(item, "message"), *text(item, words), ItemEnded(item)]


def call(item: int, words: str = "{}", kind: Any = "arguments") -> list[Event]:
    return [
        ItemStarted(item, "tool_call", 0, f"call_{item}", "f"),
        *text(item, words, kind),
        ItemEnded(item),
    ]


STOP: list[Event] = [Finished(0, "stop"), Ended()]
CALLED: list[Event] = [Finished(0, "tool_calls"), Ended()]
CITATION = {"type": "url_citation", "url": "u:v", "title": "t", "start_index": 0, "end_index": 2}
ENTRY: Json = {"token": "é", "logprob": -1.0, "top_logprobs": [{"token": "x", "logprob": -2.0}]}

REPLIES: dict[str, list[Event]] = {
    "text": [*message(0), *STOP],
    "nothing": STOP,
    "several messages and parts": [
        ItemStarted(0, "message"),
        *text(0, "a"),
        *text(0, "b", part=1),
        ItemEnded(0),
        *message(1, "c"),
        *STOP,
    ],
    "refusal": [ItemStarted(0, "message"), *text(0, "no", "refusal"), ItemEnded(0), *STOP],
    "reasoning": [
        ItemStarted(0, "reasoning"),
        *text(0, "s1", "summary"),
        *text(0, "t1", "thought", 1),
        *text(0, "s2", "summary", 2),
        *text(0, "t2", "thought", 3),
        ItemEnded(0, sealed="gAAA"),
        *message(1),
        *STOP,
    ],
    "parallel calls, interleaved": [
        ItemStarted(0, "tool_call", 0, "call_a", "f"),
        PartStarted(0, 0, "arguments"),
        ItemStarted(1, "tool_call", 0, "call_b", "run"),
        PartStarted(1, 0, "input"),
        PartDelta(0, 0, '{"a"'),
        PartDelta(1, 0, "x = 1"),
        PartDelta(0, 0, ":1}"),
        PartEnded(1, 0),
        PartEnded(0, 0),
        ItemEnded(0),
        ItemEnded(1),
        *CALLED,
    ],
    "a call without arguments": [
        ItemStarted(0, "tool_call", 0, "call_a", "f"),
        ItemEnded(0),
        *CALLED,
    ],
    "annotations and logprobs": [
        ItemStarted(0, "message"),
        PartStarted(0, 0, "text"),
        PartDelta(0, 0, "é", [ENTRY]),
        Annotated(0, 0, "citation", CITATION),
        Annotated(0, 0, "citation", CITATION),
        PartEnded(0, 0),
        ItemEnded(0),
        *STOP,
    ],
    "cut by its limit": [
        ItemStarted(0, "message"),
        *text(0, "Hi"),
        ItemEnded(0, "incomplete"),
        Finished(0, "length"),
        Ended(),
    ],
    "filtered": [*message(0), Finished(0, "content_filter"), Ended()],
    "an item that failed": [
        ItemStarted(0, "message"),
        *text(0, "Hi"),
        ItemEnded(0, "failed"),
        *STOP,
    ],
    "usage": [
        *message(0),
        Finished(0, "stop"),
        UsageReported(Usage(input_tokens=3, output_tokens=4, cached_tokens=1, reasoning_tokens=2)),
        Ended(),
    ],
    "what another format said": [
        *message(0),
        Annotated(-1, -1, "wire", {}, {"chat": {"event": {"type": "x"}}}),
        Annotated(0, -1, "wire", {}),
        *STOP,
    ],
    "a second choice, which nobody asked for": [
        *message(0),
        ItemStarted(1, "message", 1),
        *text(1, "Ho"),
        ItemEnded(1),
        Finished(1, "stop"),
        *STOP,
    ],
    "half a surrogate pair": [*message(0, "a\ud83d"), *STOP],
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_of_another_format(name: str) -> None:
    """A stream obeys the laws, and a whole reply is the object at its end."""
    events = [STARTED, *REPLIES[name]]
    shown = check_responses_stream(stream(events), status=None)
    final = shown[-1]["response"]
    assert json.loads(dumps(check_response(reply_of(events)))) == final
    assert (final["id"], final["created_at"]) == (f"resp_{TOKEN}", 1_700_000_000)
    assert final["model"] == "up"


def test_what_the_items_say() -> None:
    """Items are written with every member that the API gives them."""
    output = reply_of([STARTED, *REPLIES["reasoning"]])["output"]
    assert output[0] == {
        "id": f"rs_{TOKEN}_0",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": words} for words in ("s1", "s2")],
        "content": [{"type": "reasoning_text", "text": words} for words in ("t1", "t2")],
        "encrypted_content": "gAAA",
    }
    calls = reply_of([STARTED, *REPLIES["parallel calls, interleaved"]])["output"]
    assert {item["id"]: (item["call_id"], item["name"]) for item in calls} == {
        f"fc_{TOKEN}_0": ("call_a", "f"),
        f"ctc_{TOKEN}_1": ("call_b", "run"),
    }
    [said] = reply_of([STARTED, *REPLIES["annotations and logprobs"]])["output"]
    assert said["content"] == [
        {
            "type": "output_text",
            "text": "é",
            "annotations": [CITATION, CITATION],
            "logprobs": [
                {
                    "token": "é",
                    "logprob": -1.0,
                    "bytes": [0xC3, 0xA9],
                    "top_logprobs": [{"token": "x", "logprob": -2.0, "bytes": [120]}],
                }
            ],
        }
    ]


def test_ends() -> None:
    """Limits and filters are `incomplete` with their reason; usage is whole, or zeros."""
    cut = reply_of([STARTED, *REPLIES["cut by its limit"]])
    assert (cut["status"], cut["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert cut["output"][0]["status"] == "incomplete"
    filtered = reply_of([STARTED, *REPLIES["filtered"]])
    assert filtered["incomplete_details"] == {"reason": "content_filter"}
    assert reply_of([STARTED, *REPLIES["usage"]])["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 7,
    }
    assert reply_of([STARTED, *STOP])["usage"]["total_tokens"] == 0


def test_the_frames_of_a_stream() -> None:
    """Each event has its `event:` line, numbers from 0, and ids of ours that never change."""
    data = stream([STARTED, *message(0), *STOP])
    names = [name for name, _ in frames(data)]
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    events = shown(data)
    assert [event["sequence_number"] for event in events] == list(range(9))
    assert events[4] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        "item_id": f"msg_{TOKEN}_0",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hi",
        "logprobs": [],
    }


def test_a_beat() -> None:
    """A beat is OpenAI's own keepalive event, counted like every other."""
    encoder = RESPONSES.encoder(ASKED, IDENTITY)
    data = encoder.encode([STARTED]) + encoder.beat() + encoder.encode(REPLIES["text"])
    check_responses_stream(data)
    assert b'event: keepalive\ndata: {"type":"keepalive","sequence_number":2}\n\n' in data


def test_a_stream_that_began_before_its_upstream() -> None:
    """The ids that went out first stay, whatever the upstream says later."""
    ours = Started("", "", 0)
    theirs = Started("resp_up", "up", 9, {"responses": {"response": {"user": "x"}}})
    final = check_responses_stream(stream([ours, theirs, *REPLIES["text"]]))[-1]["response"]
    assert (final["id"], final["created_at"], final["model"]) == (
        f"resp_{TOKEN}",
        1_700_000_000,
        "m",
    )


# Failures.

FAILURES: list[tuple[ErrorInfo, Json]] = [
    (
        IdleTimeout("no news for 120 s").info(),
        {"code": "server_error", "message": "no news for 120 s (upstream_idle_timeout)"},
    ),
    (
        ErrorInfo(message="slow down", code="rate_limit_exceeded", status=429),
        {"code": "rate_limit_exceeded", "message": "slow down"},
    ),
    (
        ErrorInfo(message="slow down", status=429),
        {"code": "rate_limit_exceeded", "message": "slow down"},
    ),
    (
        ErrorInfo(message="context_length_exceeded", code="context_length_exceeded", status=400),
        {"code": "context_length_exceeded", "message": "context_length_exceeded"},
    ),
    (
        ErrorInfo(message="m", raw={"code": "own", "message": "m"}, raw_format="chat"),
        {"code": "server_error", "message": "m"},
    ),
    (
        ErrorInfo(message="m", raw={"code": None, "message": "m"}, raw_format="responses"),
        {"code": "server_error", "message": "m"},
    ),
]


@pytest.mark.parametrize(("error", "expected"), FAILURES)
@pytest.mark.parametrize("begun", [[], [STARTED], [STARTED, *message(0), *message(1)[:3]]])
def test_a_failure_inside_a_stream(begun: list[Event], error: ErrorInfo, expected: Json) -> None:
    """A failure is `response.failed` with a complete object and a code of the schema."""
    data = stream([*begun, Failed(error)])
    _, said = check_failed_stream(data, "responses")
    assert said == expected
    output = shown(data)[-1]["response"]["output"]
    assert [item["status"] for item in output] == ["completed", "incomplete"][: len(output)]
    assert len(output) == (2 if len(begun) > 1 else 0)


UPSTREAMS_OWN: list[tuple[str, str, str]] = [
    ("server_error", "server_error", "m"),
    ("invalid_image", "invalid_image", "m"),
    ("context_length_exceeded", "context_length_exceeded", "m"),
    ("insufficient_quota", "insufficient_quota", "m"),
    ("model_on_fire", "server_error", "m (model_on_fire)"),
]


@pytest.mark.parametrize(("said", "code", "words"), UPSTREAMS_OWN)
def test_an_upstream_of_this_format_keeps_its_word(said: str, code: str, words: str) -> None:
    """Codes of the schema and of the live service stay; any other is told in the message."""
    raw = {"code": said, "message": "m"}
    info = error_object_to_info(raw, status=None, format_name="responses")
    data = stream([STARTED, *message(0)[:3], Failed(info)])
    _, error = check_failed_stream(data, "responses")
    assert error == {"code": code, "message": words}
    whole = check_response(reply_of([STARTED, *message(0)[:3], Failed(info)]))
    assert (whole["status"], whole["error"]) == ("failed", error)
    assert whole["output"][0]["status"] == "incomplete"


def test_errors_with_a_status() -> None:
    """Before the first byte an error is OpenAI's envelope, and so is an upstream's."""
    info = RemoteProtocolError("odd").info()
    assert RESPONSES.render_error(info) == {
        "error": {
            "message": "odd",
            "type": "upstream_error",
            "param": None,
            "code": "upstream_protocol_error",
        }
    }
    read = RESPONSES.read_error(429, {"retry-after": "1"}, b'{"error": {"message": "slow"}}')
    assert (read.status, read.message, read.raw_format) == (429, "slow", "responses")
    assert (RESPONSES.name, RESPONSES.path) == ("responses", "/responses")


# The echo of the request.


def echoed(request: Request) -> Json:
    reply: Json = check_response(reply_of([STARTED, *STOP], request))
    return reply


def test_the_defaults_of_the_api_are_echoed() -> None:
    """A client that said nothing reads the API's defaults."""
    reply = echoed(RESPONSES.parse_request({"model": "m", "input": "hi"}))
    assert {
        name: reply[name]
        for name in reply
        if name not in {"id", "object", "created_at", "status", "model", "output", "usage"}
    } == {
        "background": False,
        "completed_at": None,
        "error": None,
        "frequency_penalty": 0,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "presence_penalty": 0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "auto",
        "store": False,
        "temperature": 1,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1,
        "truncation": "disabled",
    }


def test_what_the_client_said_is_echoed() -> None:
    """Settings come back as they were asked, tools in full."""
    body = {
        "model": "m",
        "input": "hi",
        "instructions": "Be brief.",
        "temperature": 0,
        "parallel_tool_calls": False,
        "max_tool_calls": 3,
        "truncation": "auto",
        "user": "u",
        "metadata": {"a": "b"},
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
        "tool_choice": {"type": "web_search_preview"},
    }
    reply = echoed(RESPONSES.parse_request(body))
    for name in ("instructions", "temperature", "parallel_tool_calls", "max_tool_calls"):
        assert reply[name] == body[name]
    for name in ("truncation", "user", "metadata", "tool_choice"):
        assert reply[name] == body[name]
    assert reply["reasoning"] == {"effort": "low", "summary": None}
    assert reply["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert reply["tools"] == [
        {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None},
        {"type": "web_search"},
    ]


SCHEMA = {"type": "json_schema", "name": "a", "schema": {"type": "object"}}


def test_json_schemas_and_unknown_formats_are_echoed() -> None:
    """The client gets its schema back (a row of the quirks), and a format that we do not know."""
    ask = {"model": "m", "input": "hi"}
    reply = reply_of([STARTED, *STOP], RESPONSES.parse_request({**ask, "text": {"format": SCHEMA}}))
    assert reply["text"]["format"] == {**SCHEMA, "strict": False}
    unknown = {"format": {"type": "grammar"}, "verbosity": None}
    reply = reply_of([STARTED, *STOP], RESPONSES.parse_request({**ask, "text": unknown}))
    assert reply["text"] == {"format": {"type": "grammar"}}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", "none"),
        (NamedTool("function", "f"), {"type": "function", "name": "f"}),
        (OpaqueChoice("mcp"), {"type": "mcp"}),
        (
            AllowedTools("auto", [NamedTool("function", "f")]),
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        ),
    ],
)
def test_a_request_without_a_body_is_echoed_from_its_fields(choice: Any, expected: Any) -> None:
    """A request made by a program is echoed in the API's form."""
    request = Request(
        model="m",
        items=[],
        tools=[
            FunctionTool(name="f", strict=None),
            CustomTool(name="c"),
            OpaqueTool("mcp", "tools[2]"),
        ],
        tool_choice=choice,
        output=OutputFormat(kind="json_object"),
    )
    reply = reply_of([STARTED, *STOP], request)
    assert reply["tool_choice"] == expected
    assert reply["text"] == {"format": {"type": "json_object"}}
    assert [(tool["type"], tool.get("strict", "-")) for tool in reply["tools"]] == [
        ("function", None),
        ("custom", "-"),
        ("mcp", "-"),
    ]


def test_an_upstream_of_this_format_knows_better() -> None:
    """What the upstream says of itself wins, if it has the right type; null says nothing."""
    said = {
        "temperature": 0.5,
        "top_p": None,
        "truncation": 3,
        "completed_at": 7.5,
        "store": True,
        "text": {"verbosity": "high"},
        "reasoning": {"effort": "high"},
        "tools": [{"type": "function", "name": "f"}],
        "moderation_score": 1,
    }
    start = Started("resp_up", "up", 9, {"responses": {"response": said}})
    reply = reply_of([start, *STOP])
    assert (reply["id"], reply["created_at"]) == ("resp_up", 9)
    assert (reply["temperature"], reply["top_p"], reply["truncation"]) == (0.5, 1, "disabled")
    assert (reply["completed_at"], reply["store"], reply["moderation_score"]) == (7, True, 1)
    assert reply["text"] == {"format": {"type": "text"}, "verbosity": "high"}
    assert reply["reasoning"] == {"effort": "high", "summary": None}
    assert reply["tools"][0]["parameters"] is None
    nameless = Started("", "", 0, {"responses": {"response": {}}})
    assert reply_of([nameless, *STOP])["id"] == f"resp_{TOKEN}"


GARBAGE: list[Json] = [
    {"background": "x", "completed_at": True, "frequency_penalty": "0", "instructions": ["x"]},
    {"max_output_tokens": True, "max_tool_calls": 10**30, "metadata": {"a": 1}, "store": 0},
    {"max_output_tokens": -1, "top_logprobs": 21, "top_p": 2, "temperature": 2**63, "user": 5},
    {"reasoning": {"effort": 3, "summary": []}, "text": {"format": {}, "verbosity": {}}},
    {"reasoning": [], "text": "x", "tool_choice": 5, "tools": {}, "truncation": "x"},
    {"text": {"format": {"type": "json_schema", "name": "n"}}, "tool_choice": "x"},
    {"text": {"format": "x"}, "tool_choice": {}, "tools": ["x", {}, {"type": "function"}]},
    {
        "tool_choice": {"type": "function"},
        "tools": [{"type": "function", "name": "f", "strict": 1}],
    },
    {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": ["x"]}, "output_text": 5},
    {"tool_choice": {"type": "allowed_tools", "mode": [], "tools": []}, "truncation": []},
]


@pytest.mark.parametrize("said", GARBAGE)
def test_nonsense_about_settings_is_not_repeated(said: Json) -> None:
    """What the API cannot say of a setting leaves its default, whoever said it."""
    start = Started("", "", 9, {"responses": {"response": said}})
    plain = Started("", "", 9, {"responses": {"response": {}}})
    assert reply_of([start, *STOP]) == reply_of([plain, *STOP])


def test_choices_and_instructions_of_an_upstream_are_repeated() -> None:
    """The settings that have several lawful forms."""
    for said in (
        {"tool_choice": {"type": "web_search"}, "instructions": [{"type": "message"}]},
        {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
        {"tool_choice": {"type": "custom", "name": "c"}, "instructions": "Be kind."},
    ):
        start = Started("", "", 9, {"responses": {"response": said}})
        assert said.items() <= reply_of([start, *STOP]).items()


def test_settings_that_no_reader_could_take_are_not_echoed() -> None:
    """A client's own number out of range does not break its reply."""
    asked = RESPONSES.parse_request({"model": "m", "input": "x", "max_output_tokens": 10**30})
    assert echoed(asked)["max_output_tokens"] is None


def test_details_of_usage_are_counts() -> None:
    """An unlawful count is left at 0, an unknown detail is kept."""
    raw = {"input_tokens_details": {"cached_tokens": [], "cache_write_tokens": [], "x": 1}}
    usage = UsageReported(Usage(input_tokens=1), {"responses": {"usage": raw}})
    details = reply_of([Started("", "", 0), usage, *STOP])["usage"]["input_tokens_details"]
    assert details == {"x": 1, "cached_tokens": 0, "cache_write_tokens": 0}


def test_a_background_reply_keeps_its_status() -> None:
    """A queued reply, asked whole, is shown as queued."""
    status = {"responses": {"status": "queued"}}
    start = Started("resp_up", "up", 9, {"responses": {"response": {"background": True}}})
    reply = reply_of([start, Finished(0, "stop", status), Ended()])
    assert (reply["status"], reply["usage"], reply["background"]) == ("queued", None, True)


# Same format, both ends: nothing is lost.


def live_stream() -> list[Json]:
    """A stream with everything, as the live service would write it."""
    where = {"item_id": "rs_1", "output_index": 0}
    summary = {**where, "summary_index": 0}
    thought = {**where, "content_index": 0}
    said = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    refused = {"item_id": "msg_1", "output_index": 1, "content_index": 1}
    action = {"type": "search", "query": "q"}
    search = {"type": "web_search_call", "id": "ws_1", "status": "in_progress", "action": action}
    found = {**search, "status": "completed", "results": []}
    at_search = {"item_id": "ws_1", "output_index": 4}
    reasoning = {
        "id": "rs_1",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "S."}],
        "content": [{"type": "reasoning_text", "text": "t"}],
        "encrypted_content": "gAAA",
        "quality": 3,
    }
    entry = {"token": "Hi", "logprob": -1.0, "bytes": [72, 105], "top_logprobs": []}
    file = {"type": "file_citation", "file_id": "x", "index": 0, "filename": "a"}
    part = {
        "type": "output_text",
        "text": "Hi",
        "annotations": [CITATION, file],
        "logprobs": [entry],
        "voice": "warm",
    }
    refusal = {"type": "refusal", "refusal": "no"}
    message = {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part, refusal],
        "phase": "final_answer",
    }
    function = {
        "id": "fc_1",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "f",
        "arguments": "{}",
        "namespace": "n",
    }
    custom = {
        "id": "ctc_1",
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "call_2",
        "name": "run",
        "input": "x",
    }
    usage = {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1, "image_tokens": 0},
        "total_tokens": 5,
        "cost": 1,
    }
    final = {
        **reply_of([STARTED, *STOP]),
        "id": "resp_up",
        "created_at": 9,
        "completed_at": 11,
        "model": "up-2026",
        "instructions": "Be brief.",
        "store": True,
        "service_tier": "default",
        "output": [reasoning, message, function, custom, found],
        "usage": usage,
        "billing": {"payer": "x"},
    }
    begun = {**final, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    open_reasoning = {
        **{key: reasoning[key] for key in ("id", "type", "quality")},
        "status": "in_progress",
        "summary": [],
        "content": [],
    }
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": open_reasoning},
        {
            "type": "response.reasoning_summary_part.added",
            **summary,
            "part": {"type": "summary_text", "text": ""},
        },
        {"type": "response.reasoning_summary_text.delta", **summary, "delta": "S."},
        {"type": "response.reasoning_summary_text.done", **summary, "text": "S."},
        {
            "type": "response.reasoning_summary_part.done",
            **summary,
            "part": reasoning["summary"][0],  # type: ignore[index]  # a list
        },
        {
            "type": "response.content_part.added",
            **thought,
            "part": {"type": "reasoning_text", "text": ""},
        },
        {"type": "response.reasoning_text.delta", **thought, "delta": "t"},
        {"type": "response.reasoning_text.done", **thought, "text": "t"},
        {
            "type": "response.content_part.done",
            **thought,
            "part": {"type": "reasoning_text", "text": "t"},
        },
        {"type": "response.output_item.done", "output_index": 0, "item": reasoning},
        {
            "type": "response.output_item.added",
            "output_index": 1,
            "item": {**message, "content": [], "status": "in_progress"},
        },
        {
            "type": "response.content_part.added",
            **said,
            "part": {**part, "text": "", "annotations": [], "logprobs": []},
        },
        {
            "type": "response.output_text.delta",
            **said,
            "delta": "Hi",
            "logprobs": [entry],
            "obfuscation": "abc",
        },
        *(
            {
                "type": "response.output_text.annotation.added",
                **said,
                "annotation_index": number,
                "annotation": annotation,
            }
            for number, annotation in enumerate([CITATION, file])
        ),
        {"type": "response.output_text.done", **said, "text": "Hi", "logprobs": [entry]},
        {"type": "response.content_part.done", **said, "part": part},
        {
            "type": "response.content_part.added",
            **refused,
            "part": {"type": "refusal", "refusal": ""},
        },
        {"type": "response.refusal.delta", **refused, "delta": "no"},
        {"type": "response.refusal.done", **refused, "refusal": "no"},
        {"type": "response.content_part.done", **refused, "part": refusal},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        {
            "type": "response.output_item.added",
            "output_index": 2,
            "item": {**function, "arguments": "", "status": "in_progress"},
        },
        {
            "type": "response.function_call_arguments.delta",
            "item_id": "fc_1",
            "output_index": 2,
            "delta": "{}",
        },
        {
            "type": "response.function_call_arguments.done",
            "item_id": "fc_1",
            "output_index": 2,
            "name": "f",
            "arguments": "{}",
        },
        {"type": "response.output_item.done", "output_index": 2, "item": function},
        {
            "type": "response.output_item.added",
            "output_index": 3,
            "item": {**custom, "input": "", "status": "in_progress"},
        },
        {
            "type": "response.custom_tool_call_input.delta",
            "item_id": "ctc_1",
            "output_index": 3,
            "delta": "x",
        },
        {
            "type": "response.custom_tool_call_input.done",
            "item_id": "ctc_1",
            "output_index": 3,
            "input": "x",
        },
        {"type": "response.output_item.done", "output_index": 3, "item": custom},
        {"type": "response.output_item.added", "output_index": 4, "item": search},
        {"type": "response.web_search_call.in_progress", **at_search},
        {"type": "response.web_search_call.searching", **at_search},
        {"type": "response.web_search_call.completed", **at_search},
        {"type": "response.output_item.done", "output_index": 4, "item": found},
        {"type": "response.completed", "response": final, "timings": {"total_ms": 5}},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


PADDED = Request(model="m", items=[], format="responses", stream=True, include_obfuscation=True)


def frame(events: list[Json]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def test_a_live_stream_leaves_as_it_came() -> None:
    """Event by event and field by field: same format in, same format out."""
    events = live_stream()
    left = stream(decode(frame(events), PADDED), PADDED)
    assert shown(left) == events
    check_responses_stream(left)


def test_a_whole_reply_leaves_as_it_came() -> None:
    """The same object, with every field that we do not know."""
    final = live_stream()[-1]["response"]
    assert reply_of(decode(json.dumps(final).encode())) == final


def test_unknown_events_and_parts_leave_as_they_came() -> None:
    """Events about the reply or an item, and parts of unknown types, pass with our numbers."""
    audio = {"type": "output_audio", "data": "AA"}
    part = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [audio, part],
    }
    where = {"item_id": "msg_1", "output_index": 7, "content_index": 0}
    final = {**live_stream()[-1]["response"], "output": [message]}
    data = stream(
        decode(
            frame(
                [
                    {"type": "codex.rate_limits", "left": 5},
                    {"type": "response.output_item.added", "output_index": 7, "item": message},
                    {"type": "response.content_part.added", **where, "part": audio},
                    {
                        "type": "response.output_text.delta",
                        **where,
                        "content_index": 1,
                        "delta": "Hi",
                    },
                    {"type": "response.output_item.done", "output_index": 7, "item": message},
                    {"type": "response.completed", "response": final},
                ]
            )
        )
    )
    events = shown(data)
    assert events[2] == {"type": "codex.rate_limits", "sequence_number": 2, "left": 5}
    assert events[4] == {
        "type": "response.content_part.added",
        "sequence_number": 4,
        **where,
        "output_index": 0,
        "part": audio,
    }
    grown = next(event for event in events if event["type"] == "response.output_text.delta")
    assert (grown["output_index"], grown["content_index"]) == (0, 1)
    assert events[-1]["response"]["output"] == [message]


def test_what_the_final_object_adds_is_in_ours() -> None:
    """Afterthoughts make no event of their own; the last event and the whole reply have them."""
    page = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    part = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
    said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    output = [
        {**said, "content": [{**part, "annotations": [page], "y": 1}], "phase": "final_answer"},
        {**search, "action": {"type": "search", "query": "q", "sources": []}},
    ]
    done = {"type": "response.output_item.done"}
    events = decode(
        frame(
            [
                {"type": "response.created", "response": {"id": "resp_up"}},
                {**done, "output_index": 0, "item": {**said, "content": [part]}},
                {**done, "output_index": 1, "item": search},
                {"type": "response.completed", "response": {"id": "resp_up", "output": output}},
            ]
        )
    )
    sent = shown(stream(events))
    assert sent[-1]["response"]["output"] == output
    assert reply_of(events)["output"] == output
    ends = [event["item"] for event in sent if event["type"] == "response.output_item.done"]
    assert ends == [{**said, "content": [part]}, search]
    assert not [event for event in sent if "annotation" in event["type"]]


def test_a_type_cannot_forge_a_frame() -> None:
    """A note of this format whose type is no name writes nothing."""
    forged = {"type": "x\n\ndata: {}", "y": 1}
    note = Annotated(-1, -1, "wire", {}, {"responses": {"event": forged}})
    start = Started("", "", 0)
    assert RESPONSES.encoder(ASKED, IDENTITY).encode([start, note]) == RESPONSES.encoder(
        ASKED, IDENTITY
    ).encode([start])


def test_extra_fields_on_an_event_of_arguments() -> None:
    """A proxy's own field on a delta passes along (LiteLLM's `model`)."""
    extra = {"responses": {"event": {"model": "up"}}}
    data = stream(
        [
            STARTED,
            ItemStarted(0, "tool_call", 0, "call_a", "f"),
            PartStarted(0, 0, "arguments"),
            PartDelta(0, 0, "{}", None, extra),
            *CALLED,
        ][:4]
    )
    assert shown(data)[-1] == {
        "type": "response.function_call_arguments.delta",
        "sequence_number": 3,
        "item_id": f"fc_{TOKEN}_0",
        "output_index": 0,
        "delta": "{}",
        "model": "up",
    }


def test_a_reason_that_only_the_upstream_knows() -> None:
    """An unknown reason of incomplete_details leaves as it came."""
    reply = reply_of([STARTED, Finished(0, "length", {"responses": {"reason": "tired"}}), Ended()])
    assert reply["incomplete_details"] == {"reason": "tired"}


@pytest.mark.parametrize(
    "name", [one.name for one in recordings() if one.api == "responses" and one.status < 400]
)
def test_recordings_leave_lawful(name: str) -> None:
    """Every recording leaves as a lawful stream and object, and says the same read again."""
    one = recording(name)
    request = RESPONSES.parse_request(one.body)
    events = decode(one.data, request)
    data = stream(events, request)
    if isinstance(events[-1], Failed):
        check_failed_stream(data, "responses")
        return
    final = check_responses_stream(data)[-1]["response"]
    assert check_response(reply_of(events, request)) == final
    again = fold(decode(data, request))
    for item in fold(events).items.values():
        same = again.items[item.item]
        assert (same.kind, same.id, same.name) == (item.kind, item.id, item.name)
        assert [part.text for part in same.parts.values()] == [
            part.text for part in item.parts.values()
        ]


# The table of disagreements.


def defined(document: Any, definition: str) -> Callable[[Any], bool]:
    """Whether a value is right by a definition of a document as it was published."""
    schemas = json.loads((FOLDER / FILES[document]).read_bytes())["$defs"]
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": schemas}).is_valid


BASE = reply_of([STARTED, *message(0), *STOP])
ARGUMENTS: Json = {"item_id": "x", "output_index": 0, "sequence_number": 1}

SAMPLES: dict[str, tuple[str, str, Any]] = {
    "response.usage in progress": ("Response", "ResponseResource", {**BASE, "usage": None}),
    "response.usage that no upstream counted": (
        "Response",
        "ResponseResource",
        BASE,
    ),
    "response.completed_at": ("Response", "ResponseResource", {**BASE, "completed_at": None}),
    "response.usage.input_tokens_details.cache_write_tokens": (
        "ResponseUsage",
        "Usage",
        BASE["usage"],
    ),
    "response.text.format of type json_schema": (
        "TextResponseFormatConfiguration",
        "JsonSchemaResponseFormat",
        {**SCHEMA, "strict": False},
    ),
    "response.reasoning.effort minimal, max": (
        "Reasoning",
        "Reasoning",
        {"effort": "minimal", "summary": None},
    ),
    "response.tools beyond functions": ("Tool", "Tool", {"type": "custom", "name": "c"}),
    "response.tool_choice beyond functions": (
        "Response",
        "ResponseResource",
        {**BASE, "tool_choice": {"type": "custom", "name": "c"}},
    ),
    "output items beyond message, function_call, reasoning, compaction": (
        "OutputItem",
        "ItemField",
        {"type": "custom_tool_call", "id": "x", "call_id": "c", "name": "f", "input": ""},
    ),
    "annotations beyond url_citation": (
        "Annotation",
        "Annotation",
        {"type": "file_path", "file_id": "x", "index": 0},
    ),
    "events of raw reasoning": (
        "ResponseReasoningTextDeltaEvent",
        "ResponseReasoningDeltaStreamingEvent",
        {
            "type": "response.reasoning_text.delta",
            **ARGUMENTS,
            "content_index": 0,
            "delta": "x",
        },
    ),
    "events of custom and hosted tools": (
        "ResponseCustomToolCallInputDeltaEvent",
        "ResponseFunctionCallArgumentsDeltaStreamingEvent",
        {"type": "response.custom_tool_call_input.delta", **ARGUMENTS, "delta": "x"},
    ),
    "the beat": (
        "ResponseStreamEvent",
        "ErrorStreamingEvent",
        {"type": "keepalive", "sequence_number": 1},
    ),
    "response.error.code": (
        "Response",
        "ResponseResource",
        {
            **BASE,
            "status": "failed",
            "error": {"code": "context_length_exceeded", "message": "long"},
        },
    ),
    "the event of a failure": (
        "ResponseFailedEvent",
        "ResponseFailedStreamingEvent",
        {
            "type": "response.failed",
            "sequence_number": 1,
            "response": {
                **BASE,
                "status": "failed",
                "error": {"code": "server_error", "message": "m"},
            },
        },
    ),
    "null in items": ("OutputItem", "ItemField", BASE["output"][0]),
}


def test_every_disagreement_has_a_sample() -> None:
    """The table and its samples are the same list, and nothing is counted or timed by us."""
    zeros = SAMPLES["response.usage that no upstream counted"][2]["usage"]
    assert (zeros["input_tokens"], zeros["output_tokens"], zeros["total_tokens"]) == (0, 0, 0)
    assert BASE["completed_at"] is None
    assert sorted(SAMPLES) == sorted(quirk.where for quirk in QUIRKS)
    assert all(all(field for field in quirk[:5]) for quirk in QUIRKS)


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.where)
def test_a_disagreement_is_real(quirk: Any) -> None:
    """What we write breaks exactly the documents that the row names, as they were published."""
    openai, other, sample = SAMPLES[quirk.where]
    broken = set()
    if not defined("openai", openai)(sample):
        broken.add("openai")
    if not defined("open-responses", other)(sample):
        broken.add("open-responses")
    assert broken == quirk.breaks


def test_an_error_of_the_request_has_the_code_of_one() -> None:
    """A code that the schema lacks, for a wrong request, leaves as `invalid_prompt`."""
    error = ErrorInfo(message="no", code="odd", status=400)
    assert error_object(error) == {"code": "invalid_prompt", "message": "no (odd)"}
