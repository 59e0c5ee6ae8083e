"""The chat decoder reads what servers really write, and takes nothing broken for whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nursling.engine.accumulate import WEIGHT, FinishedReply
from nursling.engine.errors import RemoteProtocolError
from nursling.engine.events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    ItemStarted,
    PartDelta,
    Started,
)
from nursling.engine.formats.chat import CHAT
from nursling.engine.formats.chat.decoder import ChatDialect
from nursling.engine.formats.chat.unwrap import Unwrapper, wrap_input, wrap_tool
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import CustomTool
from support.chat import (
    DONE,
    HEAD,
    IDENTITY,
    Json,
    ask,
    chunk,
    decode,
    encode,
    fold,
    frame,
    legal,
    program,
    read,
    stream,
    whole,
)
from support.corpus import Recording, recordings, said


def said_by(reply: FinishedReply, choice: int = 0) -> list[Any]:
    """What a choice says, in order: `(kind, text)` of parts, `(id, name, text)` of calls."""
    found: list[Any] = []
    for item in reply.of_choice(choice):
        if item.kind == "tool_call":
            found.append((item.id, item.name, item.text("arguments", "input")))
        else:
            found += [(part.kind, part.text) for part in item.parts.values()]
            found += [("sealed", item.sealed)] if item.sealed is not None else []
    return found


def call(name: Any = None, arguments: Any = None, *, index: Any = None, **more: Any) -> Json:
    """One entry of `tool_calls`, with only what is said."""
    body = {"name": name, "arguments": arguments}
    entry = {"index": index, "function": {k: v for k, v in body.items() if v is not None}}
    return {k: v for k, v in (entry | more).items() if v is not None}


def calls(*entries: Json | None) -> Json:
    return {"tool_calls": list(entries)}


def kept(event: Event) -> Json | None:
    """What the format kept on an event, but for its place among the others."""
    patch = (event.extra or {}).get("chat")
    return patch and {name: value for name, value in patch.items() if name != "order"}


HI = [("text", "hi")]
F, A, B = "f", '{"a":1}', '{"b":2}'

SHAPES: dict[str, tuple[bytes, list[Any]]] = {
    "plain": (stream({"role": "assistant", "content": ""}, {"content": "h"}, {"content": "i"}), HI),
    "content null": (stream({"role": "assistant", "content": None}, {"content": "hi"}), HI),
    "null deltas": (
        stream(chunk(None), {"content": None, "tool_calls": None}, {"content": "hi"}), HI
    ),
    "choices missing": (stream(frame(HEAD), {"content": "hi"}), HI),
    "choices null": (stream(frame({**HEAD, "choices": None}), {"content": "hi"}), HI),
    "choices an object": (
        stream(frame({**HEAD, "choices": {"delta": {"content": "hi"}}})), HI
    ),
    "a choice that is none": (
        stream(frame({**HEAD, "choices": [None, ""]}), {"content": "hi"}), HI
    ),
    "no index": (
        stream(frame({**HEAD, "choices": [{"delta": {"content": "hi"}}]}), finish="stop"), HI
    ),
    "a negative index": (stream(chunk({"content": "hi"}, index=-1)), HI),
    "delta a text": (stream(chunk("text"), {"content": "hi"}), HI),
    "message instead of delta": (
        stream(frame({**HEAD, "choices": [{"index": 0, "message": {"content": "hi"}}]})), HI
    ),
    "content a list": (
        stream({"content": [{"type": "text", "text": "h"}, "i", {"type": "image"}]}), HI
    ),
    "content an object": (stream({"content": {"type": "output_text", "text": "hi"}}), HI),
    "thinking inside content": (
        stream({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]},
                            {"type": "thinking", "thinking": "u"}]}, {"content": "hi"}),
        [("thought", "tu"), *HI],
    ),
    "thinking inside content and beside it": (
        stream({"reasoning_content": "t", "content": [{"type": "thinking", "thinking": "t"}]}),
        [("thought", "t")],
    ),
    "refusal": (stream({"refusal": "n"}, {"refusal": "o"}), [("refusal", "no")]),
    "refusal inside content": (
        stream({"content": [{"type": "refusal", "refusal": "no"}]}), [("refusal", "no")]
    ),
    "text and refusal": (
        stream({"content": "hi"}, {"refusal": "no"}), [*HI, ("refusal", "no")]
    ),
    "nothing at all": (stream(), [("text", "")]),
    "after [DONE]": (stream({"content": "hi"}) + chunk({"content": "!"}) + b"junk\n\n", HI),
    "usage behind the reason": (
        stream({"content": "hi"}, chunk({}, finish="stop"), chunk({}, usage={"prompt_tokens": 1}),
               frame({**HEAD, "choices": [], "usage": {}}), finish=None), HI
    ),
    "two reasons": (
        stream({"content": "hi"}, chunk({}, finish="stop"), chunk({}, finish="length"),
               finish=None), HI
    ),
    "Azure's first chunk": (
        stream(frame({"id": "", "model": "", "created": 0, "choices": [], "object": "",
                      "prompt_filter_results": [{"prompt_index": 0}]}), {"content": "hi"}), HI
    ),
    # Reasoning.
    "reasoning_content": (
        stream({"reasoning_content": "t"}, {"reasoning_content": "u", "content": "hi"}),
        [("thought", "tu"), *HI],
    ),
    "reasoning": (stream({"reasoning": "t"}, {"content": "hi"}), [("thought", "t"), *HI]),
    "reasoning under two names": (
        stream({"reasoning": "t", "reasoning_content": "t"}, {"content": "hi"}),
        [("thought", "t"), *HI],
    ),
    "reasoning under a third name": (
        stream({"reasoning": "t", "reasoning_details": [{"type": "reasoning.text", "text": "t"}]}),
        [("thought", "t")],
    ),
    "a summary of what was said": (
        stream({"reasoning": "t",
                "reasoning_details": [{"type": "reasoning.summary", "summary": "t"}]}),
        [("thought", "t")],
    ),
    "reasoning under the third name alone": (
        stream({"reasoning_details": [{"type": "reasoning.text", "text": "t"}, {"type": "?"}]}),
        [("thought", "t")],
    ),
    "a summary": (
        stream({"reasoning_details": [{"type": "reasoning.summary", "summary": "s"}]}),
        [("summary", "s")],
    ),
    "a summary and a thought": (
        stream({"reasoning_details": [{"type": "reasoning.summary", "summary": "s"}]},
               {"reasoning": "t"}),
        [("summary", "s"), ("thought", "t")],
    ),
    "reasoning again": (
        stream({"reasoning": "t"}, {"content": "hi"}, {"reasoning": "u"}),
        [("thought", "t"), *HI, ("thought", "u")],
    ),
    "reasoning before a call": (
        stream({"reasoning": "t"}, calls(call(F, A, id="c"))), [("thought", "t"), ("c", F, A)]
    ),
    "an object as reasoning": (stream({"reasoning": {"effort": "low"}, "content": "hi"}), HI),
    "sealed": (
        stream({"reasoning": "t"},
               {"reasoning_details": [{"type": "reasoning.encrypted", "data": "#", "id": "rs"}]},
               {"content": "hi"},
               {"reasoning_details": [{"type": "reasoning.encrypted", "data": "##"}]}),
        [("thought", "t"), ("sealed", "#"), *HI, ("sealed", "##")],
    ),
    # Tool calls.
    "a call": (
        stream(calls(call(F, "", index=0, id="c", type="function")), calls(call(None, A, index=0))),
        [("c", F, A)],
    ),
    "parallel and interleaved": (
        stream(calls(call("f", "", index=0, id="c")), calls(call("g", "", index=1, id="d")),
               calls(call(None, '{"a"', index=0)), calls(call(None, B, index=1)),
               calls(call(None, ":1}", index=0))),
        [("c", "f", A), ("d", "g", B)],
    ),
    "a call without index": (
        stream(calls(call(F, '{"a"', id="c")), calls(call(None, ":1}")),
               calls(call(F, B, id="d"))),
        [("c", F, A), ("d", F, B)],
    ),
    "no id": (
        stream(calls(call("f", A, index=0)), calls(call("g", B, index=1))),
        [("call_chatcmplup_0", "f", A), ("call_chatcmplup_1", "g", B)],
    ),
    "neither, another name": (
        stream(calls(call("f", A)), calls(call("g", '{"b"')), calls(call(None, ":2}"))),
        [("call_chatcmplup_0", "f", A), ("call_chatcmplup_1", "g", B)],
    ),
    "neither, the same name": (
        stream(calls(call(F, '{"a"')), calls(call(F, ":1}")), calls(call(F, B))),
        [("call_chatcmplup_0", F, A), ("call_chatcmplup_1", F, B)],
    ),
    "neither, in one list": (
        stream(calls(call(F, A), call(F, B), call(None, " "))),
        [("call_chatcmplup_0", F, A), ("call_chatcmplup_1", F, B + " ")],
    ),
    "an object instead of the list": (stream({"tool_calls": call(F, A, id="c")}), [("c", F, A)]),
    "one index, two ids": (
        stream(calls(call(F, A, index=0, id="c")), calls(call(F, B, index=0, id="d"))),
        [("c", F, A), ("d", F, B)],
    ),
    "one id, index thrash": (
        stream(calls(call(F, '{"a"', index=0, id="c")), calls(call(None, ":1}", index=1, id="c"))),
        [("c", F, A)],
    ),
    "the id comes late": (
        stream(calls(call(None, None, index=0)), calls(call(None, "", index=0, id="c")),
               calls(call(F, A, index=0))),
        [("c", F, A)],
    ),
    "the name repeated": (
        stream(*(calls(call(F, part, index=0, id="c")) for part in ('{"a"', ":1}"))),
        [("c", F, A)],
    ),
    "the name after the arguments": (
        stream(calls(call(None, A, index=0, id="c")), calls(call(F, None, index=0))),
        [("c", F, A)],
    ),
    "arguments an object": (stream(calls(call(F, {"a": 1}, id="c"))), [("c", F, A)]),
    "no arguments": (stream(calls(call(F, None, id="c"))), [("c", F, "")]),
    "a placeholder": (
        stream(calls({"index": 0}, None, call(F, A, index=1, id="c"))), [("c", F, A)]
    ),
    "odd types": (
        stream(calls({"index": "0", "id": 7, "function": "x"}, call(F, A, index=True, id="c"))),
        [("c", F, A)],
    ),
    "custom": (
        stream(calls({"index": 0, "id": "c", "custom": {"name": F, "input": "x"}}),
               calls({"index": 0, "custom": {"input": "y"}})),
        [("c", F, "xy")],
    ),
    "function_call alone": (
        stream({"function_call": {"name": F, "arguments": '{"a"'}}, {"function_call": {}},
               {"function_call": {"arguments": ":1}"}}, finish="function_call"),
        [("call_chatcmplup_0", F, A)],
    ),
    "function_call beside tool_calls": (
        stream({"function_call": {"name": F, "arguments": A}, **calls(call(F, A, index=0, id="c"))},
               {"function_call": {"name": F, "arguments": A}}),
        [("c", F, A)],
    ),
    "text between calls": (
        stream(calls(call(F, A, index=0, id="c")), {"content": "hi"},
               calls(call(F, B, index=1, id="d"))),
        [("c", F, A), *HI, ("d", F, B)],
    ),
    # Whole bodies, whatever was asked.
    "whole": (whole({"role": "assistant", "content": "hi"}), HI),
    "whole, no reason": (whole({"content": "hi"}, finish=None), HI),
    "whole, calls": (
        whole({"content": None, "tool_calls": [call(F, A, id="c"), call(F, B, id="d")]}),
        [("c", F, A), ("d", F, B)],
    ),
    "whole in a list": (b"[" + whole({"content": "hi"}) + b"]", HI),
}  # fmt: skip


@pytest.mark.fault(29, "V")
@pytest.mark.fault(31, "V")
@pytest.mark.fault(32, "V")
@pytest.mark.fault(16, "V")
@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    """Every shape that a server was seen to send means what it means, and nothing is lost."""
    data, expected = SHAPES[name]
    reply = read(data)
    assert said_by(reply) == expected
    assert reply.complete


@pytest.mark.fault(23, "V")
@pytest.mark.parametrize("name", SHAPES)
def test_every_cut(name: str) -> None:
    """However the bytes were cut, the events are the same."""
    data, _ = SHAPES[name]
    expected = decode(data)
    for at in range(1, len(data)):
        assert decode(data, cuts=(at,)) == expected
    assert decode(data, cuts=tuple(range(1, len(data)))) == expected


FAILURES: dict[str, tuple[bytes, str | None, int, str]] = {
    "[DONE] alone": (DONE, "upstream_truncated", 502, "said [DONE] before any finish reason"),
    "[DONE] without a reason": (
        stream({"content": "hi"}, finish=None), "upstream_truncated", 502, "before any finish"
    ),
    "an end without a reason": (
        stream({"content": "hi"}, finish=None, done=False), "upstream_truncated", 502,
        "ended before its finish reason",
    ),
    "an end with one reason of two": (
        stream(chunk({"content": "x"}, index=1), done=False),
        "upstream_truncated", 502, "ended before its finish reason",
    ),
    "no choice ever": (frame(HEAD), "upstream_truncated", 502, "ended before its finish reason"),
    "an error object": (
        stream({"content": "h"}, frame({"error": {"message": "busy", "type": "rate_limit_error"}})),
        None, 429, "busy",
    ),
    "an error text": (stream(frame({"error": "bad value"})), None, 502, "bad value"),
    "object: error": (
        stream(frame({"object": "error", "message": "v", "code": 400})), "400", 400, "v"
    ),
    "type: error": (stream(frame({"type": "error", "message": "v"})), None, 502, "v"),
    "event: error": (stream(b'event: error\ndata: {"message": "v"}\n\n'), None, 502, "v"),
    "an error beside choices": (
        stream(chunk({"content": ""}, finish="error", error={"message": "lost", "code": 502})),
        "502", 502, "lost",
    ),
    "finish_reason error": (
        stream(chunk({"content": "x"}, finish="error")), None, 502, "ended its reply with an error"
    ),
    "finish_reason error, with words": (
        stream(chunk({}, finish="error", c_error={"message": "lost"})), None, 502, "lost"
    ),
    "a text": (stream(frame("text")), "upstream_protocol_error", 502, "not a JSON object"),
    "a list": (stream(frame([1])), "upstream_protocol_error", 502, "not a JSON object"),
    "no JSON": (stream(b"data: {oops\n\n"), "upstream_protocol_error", 502, "not JSON"),
    "a call without a name": (
        stream(calls(call(None, A, index=0, id="c"))), "upstream_protocol_error", 502, "no name"
    ),
    "a whole error": (b'{"error": {"message": "no", "code": 401}}', "401", 401, "no"),
    "a whole error in a list": (b'[{"error": {"message": "no", "code": 400}}]', "400", 400, "no"),
    "a whole FastAPI error": (b'{"detail": "nope"}', None, 502, "nope"),
    "a whole error of a choice": (
        whole({"content": ""}, finish="error"), None, 502, "ended its reply with an error"
    ),
    "a whole list": (b"[]", "upstream_protocol_error", 502, "not a JSON object"),
    "a whole without choices": (b'{"id": "x"}', "upstream_protocol_error", 502, "no choices"),
    "a whole with empty choices": (
        b'{"choices": []}', "upstream_protocol_error", 502, "no choices"
    ),
}  # fmt: skip


@pytest.mark.fault(14, "V")
@pytest.mark.fault(27, "V")
@pytest.mark.fault(30, "V")
@pytest.mark.parametrize("name", FAILURES)
def test_failure(name: str) -> None:
    """What broke, or says that it broke, ends as a failure with the true status and the words."""
    data, code, status, words = FAILURES[name]
    *_, last = events = decode(data)
    assert isinstance(last, Failed)
    assert (last.error.code, last.error.status) == (code, status)
    assert words in last.error.message
    assert last.error.fault == "upstream"
    assert not any(isinstance(event, Ended | Failed) for event in events[:-1])


REASONS = [
    ("stop", "stop", None),
    ("length", "length", None),
    ("content_filter", "content_filter", None),
    ("max_tokens", "length", "max_tokens"),
    ("model_length", "length", "model_length"),
    ("function_call", "tool_calls", "function_call"),
    ("eos", "stop", "eos"),
]


@pytest.mark.parametrize(("word", "reason", "raw"), REASONS)
def test_reason(word: str, reason: str, raw: str | None) -> None:
    """Every finish reason has its meaning, and a foreign word is kept beside it."""
    said = calls(call(F, A, index=0)) if reason == "tool_calls" else {"content": "hi"}
    events = decode(stream(said, finish=word))
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert finished.reason == reason
    assert (kept(finished) or {}).get("finish_reason") == raw


def test_tool_calls_without_a_call() -> None:
    """A finish reason that promises calls which are not there means a plain end."""
    events = decode(stream({"content": "hi"}, finish="tool_calls"))
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert finished.reason == "stop"


def test_one_reason() -> None:
    """Of several finish reasons of one choice the decoder tells the first."""
    for data in (SHAPES["two reasons"][0], whole({"content": "hi"}, finish="length")):
        reasons = [event for event in decode(data) if isinstance(event, Finished)]
        assert len(reasons) == 1


def test_stop_after_a_call() -> None:
    """A server that says `stop` after a tool call means `tool_calls`."""
    assert read(stream(calls(call(F, A, id="c")))).reasons == {0: "tool_calls"}


def test_two_choices() -> None:
    """Interleaved choices stay apart; one that never says its reason is mended at [DONE]."""
    data = b"".join(
        [
            chunk({"content": "a"}),
            chunk({"content": "b"}, index=1),
            chunk({"content": "A"}),
            chunk({"content": "B"}, index=1),
            chunk({}, index=2),
            chunk({}, finish="length"),
            DONE,
        ]
    )
    reply = read(data, ask(n=3))
    assert [said_by(reply, index) for index in range(3)] == [
        [("text", "aA")], [("text", "bB")], [("text", "")],
    ]  # fmt: skip
    assert reply.reasons == {0: "length", 1: "stop", 2: "stop"}


def test_finished() -> None:
    """A reply is finished once every choice, asked for or seen, has its reason."""
    decoder = CHAT.decoder(ask(n=2), DEFAULT_LIMITS)
    seen = []
    for data in (chunk({}), chunk({}, finish="stop"), chunk({}, index=1)):
        decoder.feed(data)
        seen.append(decoder.finished)
    decoder.feed(chunk({}, index=1, finish="stop"))
    assert (seen, decoder.finished) == ([False, False, False], True)


STARTS: list[tuple[Json, tuple[str, str, int]]] = [
    (HEAD, ("chatcmpl-up", "up", 7)),
    ({}, ("", "", 0)),
    ({"id": None, "model": None, "created": None}, ("", "", 0)),
    ({"id": 5, "model": 5, "created": "x"}, ("", "", 0)),
    ({"created": 12.75}, ("", "", 12)),
    ({"created": 1e300}, ("", "", 0)),
]


@pytest.mark.fault(32, "V")
@pytest.mark.parametrize(("head", "expected"), STARTS)
def test_start(head: Json, expected: tuple[str, str, int]) -> None:
    """id, model and created may be missing, or of another type."""
    choice = {"delta": calls(call(F, A)), "finish_reason": "stop"}
    events = decode(frame({**head, "choices": [choice]}) + DONE)
    started, called = events[0], events[1]
    assert isinstance(started, Started)
    assert (started.id, started.model, started.created) == expected
    assert isinstance(called, ItemStarted)
    assert called.id == f"call_{'chatcmplup' if expected[0] else expected[2]}_0"


def test_usage() -> None:
    """Usage on any chunk is read, and what only its server counts is kept."""
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 4.0,
        "total_tokens": None,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
        "cost": 0.5,
    }
    for data in (
        stream(chunk({"content": "hi"}, usage=usage)),
        stream({"content": "hi"}, chunk({}, finish="stop", usage=usage), finish=None),
        whole({"content": "hi"}, usage=usage),
    ):
        reply = read(data)
        counts = reply.usage
        assert counts is not None
        assert (counts.input_tokens, counts.output_tokens, counts.total_tokens) == (3, 4, None)
        assert (counts.cached_tokens, counts.reasoning_tokens) == (2, 1)
        assert any(note["chat"].get("usage") == {"cost": 0.5} for note in reply.notes)


def test_usage_of_other_types() -> None:
    """Usage that is no object, or counts that are no numbers, are unknown."""
    usage = {"prompt_tokens": "3", "completion_tokens": True, "prompt_tokens_details": 1}
    reply = read(stream(chunk({"content": "hi"}, usage=[1]), chunk({}, usage=usage)))
    assert reply.usage is not None
    assert reply.usage.input_tokens is reply.usage.output_tokens is None


ENTRY = {
    "token": "h",
    "logprob": -0.1,
    "bytes": None,
    "top_logprobs": [{"token": "h", "logprob": 0, "bytes": None}],
}


def test_logprobs() -> None:
    """Logprobs belong to the text that they came with; those without one are kept as they are."""
    both = {"content": [ENTRY], "refusal": [ENTRY]}
    events = decode(
        stream(
            chunk({"content": "hi", "refusal": "no"}, c_logprobs=both),
            chunk({"content": ""}, c_logprobs={"content": [ENTRY]}),
            chunk({"refusal": "!"}, c_logprobs={"content": [ENTRY]}),
            chunk({"content": "!"}, c_logprobs={"tokens": ["!"]}),
            chunk({"content": "!"}, c_logprobs=None),
        )
    )
    grown = [event for event in events if isinstance(event, PartDelta)]
    assert [(one.text, one.logprobs) for one in grown] == [
        ("hi", [ENTRY]), ("no", [ENTRY]), ("", [ENTRY]), ("!", None), ("!", None), ("!", None),
    ]  # fmt: skip
    left = [(kept(one) or {}).get("choice") for one in grown]
    assert left[3] == {"logprobs": {"content": [ENTRY]}}
    assert left[4] == {"logprobs": {"tokens": ["!"]}}
    assert left[:3] == [None, None, None]


@pytest.mark.parametrize(
    "odd",
    ["h", 5, ["h"], {"content": "h"}, {"content": ["h"]}, {"content": [{"token": 1, "logprob": 0}]},
     {"content": [{"token": "h", "logprob": None}], "refusal": {"a": 1}}],
)  # fmt: skip
@pytest.mark.parametrize("delta", [{"content": "hi"}, {"role": "assistant"}, None])
def test_odd_logprobs(odd: Any, delta: Json | None) -> None:
    """Logprobs that are not what the schema says reach neither the normal form nor a client."""
    events = decode(stream(chunk(delta, c_logprobs=odd)))
    assert all(event.logprobs is None for event in events if isinstance(event, PartDelta))
    assert "logprobs" not in json.dumps([kept(event) for event in events])


def test_citations() -> None:
    """Citations become flat, nested or not; other annotations are kept as they are."""
    flat = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    nested = {
        "type": "url_citation",
        "url_citation": {k: v for k, v in flat.items() if k != "type"},
    }
    odd = [{"type": "file"}, {"type": "url_citation"}, 5]
    reply = read(stream({"content": "hi"}, {"annotations": [nested, flat, *odd]}))
    assert reply.items[0].parts[0].citations == [flat, flat]
    [note] = reply.items[0].parts[0].notes
    assert note["chat"]["delta"] == {"annotations": odd[:-1]}  # a number is none at all
    assert read(stream({"annotations": [flat]})).items[0].parts[0].citations == [flat]


@pytest.mark.fault(29, "V")
def test_unknown_members() -> None:
    """Unknown members stay beside what they came with, or alone; null says nothing."""
    data = stream(
        chunk({"content": "hi", "audio": {"id": "a"}, "zip": None}, system_fingerprint="fp"),
        chunk({"content": "!"}, system_fingerprint="fp", obfuscation="xxx"),
        chunk({}, c_content_filter_results={"hate": 0}),
        chunk({}, timings={"ms": 1}, c_nothing=None),
        {"content": [{"type": "image", "n": 1}]},
    )
    events = decode(data)
    assert kept(events[0]) == {"chunk": {"system_fingerprint": "fp"}}
    [again] = [event for event in events if isinstance(event, PartDelta) and event.text == "!"]
    assert again.extra is None  # the same fingerprint again is no news
    assert [kept(event) for event in events if isinstance(event, Annotated)] == [
        {"index": 0, "choice": {"content_filter_results": {"hate": 0}}},
        {"chunk": {"timings": {"ms": 1}}},
        {"index": 0, "delta": {"content_parts": [{"type": "image", "n": 1}]}},
    ]
    item = next(event for event in events if isinstance(event, ItemStarted))
    assert kept(item) == {"index": 0, "delta": {"audio": {"id": "a"}}}
    assert b"obfuscation" not in json.dumps([repr(event) for event in events]).encode()
    legal(events)


def test_obfuscation_that_was_asked_for() -> None:
    """Obfuscation passes to a client that asked for it."""
    events = decode(
        stream(chunk({"content": "hi"}, obfuscation="xxx")),
        ask(stream_options={"include_obfuscation": True}),
    )
    assert any(kept(event) == {"chunk": {"obfuscation": "xxx"}} for event in events)


def test_members_of_a_call() -> None:
    """What a server adds to a tool call (Gemini's signatures) stays with that call."""
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    events = decode(
        stream(calls(call(F, A, index=0, id="c", **signed)), calls({"index": 0, "x": 1}))
    )
    item = next(event for event in events if isinstance(event, ItemStarted))
    assert item.extra == {"chat": {"index": 0, "call": signed}}
    *_, last = (event for event in events if isinstance(event, PartDelta))
    assert (last.text, last.extra) == ("", {"chat": {"index": 0, "call": {"x": 1}}})


TOOL = CustomTool(
    name="run", description="Runs.", grammar={"syntax": "lark", "definition": "start: A"}
)


def test_wrapped_custom_tool() -> None:
    """A custom tool of another format's client is unwrapped, and a chat client's is not."""
    wrapped = stream(
        calls(call("run", '{"inp', index=0, id="c")), calls(call(None, 'ut":"a\\n', index=0)),
        calls(call(None, 'b"}', index=0)), calls(call("other", '{"input":"x"}', index=1, id="d")),
    )  # fmt: skip
    reply = read(wrapped, program(tools=[TOOL]))
    assert said_by(reply) == [("c", "run", "a\nb"), ("d", "other", '{"input":"x"}')]
    assert [part.kind for part in reply.items[0].parts.values()] == ["input"]
    chat = ask(tools=[{"type": "custom", "custom": {"name": "run"}}])
    assert said_by(read(wrapped, chat))[0] == ("c", "run", '{"input":"a\\nb"}')


def test_unwrapped_to_the_end() -> None:
    """Arguments that only look like the wrapper's head come out once the call is over."""
    data = stream(calls(call("run", '{"in', index=0, id="c")))
    assert said_by(read(data, program(tools=[TOOL]))) == [("c", "run", '{"in')]


@pytest.mark.parametrize("cut", ['{"input":"half', '{"input":"half\\', '{"input":"'])
@pytest.mark.parametrize("reason", ["stop", "tool_calls", None])
def test_half_an_input_is_none(cut: str, reason: str | None) -> None:
    """An input that breaks off fails the reply: an agent would apply half a patch."""
    made = call("run", cut, index=0, id="c")
    asked = program(tools=[TOOL])
    last = decode(stream(calls(made), finish=reason or "stop"), asked)[-1]
    assert isinstance(last, Failed)
    assert last.error.message == "the input of the tool call was cut"
    last = decode(whole({"role": "assistant", **calls(made)}, finish=reason), asked)[-1]
    assert isinstance(last, Failed)


@pytest.mark.parametrize("reason", ["length", "max_tokens", "content_filter"])
def test_an_input_that_ran_out_of_length(reason: str) -> None:
    """What was cut by its reason is told as far as it came, and is incomplete."""
    made = call("run", '{"input":"half', index=0, id="c")
    reply = read(stream(calls(made), finish=reason), program(tools=[TOOL]))
    assert said_by(reply) == [("c", "run", "half")]
    assert reply.items[0].status == "incomplete"


INPUTS = {
    '{"input":"x"}': "x",
    ' { "input" : "x" } ': "x",
    '{"input":"a\\n\\t\\"\\\\\\/\\u00e9"}': 'a\n\t"\\/é',
    '{"input":"\\ud83d\\ude00!"}': "😀!",
    '{"input":"\\ud83dx"}': "�x",
    '{"input":"\\ud83d\\u0041"}': "�A",
    '{"input":"\\ud83d"}': "�",
    '{"input":"\\udc00\\n"}': "�\n",
    '{"input":"\\q\\u12x4"}': "\\q\\u12x4",
    '{"input":""}': "",
    '{"input":"x","more":"y"}': "x",
    '{"input":"x': "x",
    '{"input":"x\\': "x",
    '{"input":5}': '{"input":5}',
    "{}": "",
    "{ }": "",
    "": "",
    "plain text": "plain text",
    '{"cmd":"ls"}': '{"cmd":"ls"}',
    " " * 300: " " * 300,
}


@pytest.mark.parametrize("arguments", INPUTS)
def test_unwrap_every_cut(arguments: str) -> None:
    """The input inside the wrapper comes out the same however the arguments were cut."""
    for at in range(len(arguments) + 1):
        unwrapper = Unwrapper()
        text = unwrapper.feed(arguments[:at]) + unwrapper.feed(arguments[at:]) + unwrapper.close()
        assert text == INPUTS[arguments]
    unwrapper = Unwrapper()
    pieces = [unwrapper.feed(character) for character in arguments]
    assert "".join(pieces) + unwrapper.close() == INPUTS[arguments]


def test_unwrap_streams() -> None:
    """Input is let out as it comes, not at the end."""
    unwrapper = Unwrapper()
    assert [unwrapper.feed(text) for text in ('{"input":"a', "b", "\\", 'n"}', " ")] == [
        "a", "b", "", "\n", "",
    ]  # fmt: skip


def test_wrap() -> None:
    """What is wrapped comes out unwrapped, and the tool says its grammar."""
    unwrapper = Unwrapper()
    assert unwrapper.feed(wrap_input('a"\n😀')) == 'a"\n😀'
    function = wrap_tool(TOOL)["function"]
    assert "start: A" in function["description"]
    assert function["description"].startswith("Runs.")
    assert function["parameters"]["required"] == ["input"]
    assert "grammar" not in wrap_tool(CustomTool(name="run"))["function"]["description"]


CHAT_RECORDINGS = [one for one in recordings() if one.api == "chat" and one.status < 400]


@pytest.mark.parametrize("one", CHAT_RECORDINGS, ids=[one.name for one in CHAT_RECORDINGS])
def test_recorded(one: Recording) -> None:
    """Every recording says what a naive reading of it says, or fails with a named error."""
    count = one.body.get("n") if isinstance(one.body, dict) else None
    events = legal(decode(one.data, ask(n=count or 1)))
    last = events[-1]
    if isinstance(last, Failed):
        bad_end = one.cut or not one.data or b"[DONE]" not in one.data or b'"error"' in one.data
        assert bad_end, last.error
        return
    assert not one.cut
    reply = fold(events)
    for index, expected in said(one).items():
        items = reply.of_choice(index)
        assert "".join(item.text("text") for item in items) == expected.text
        assert "".join(item.text("thought") for item in items) == expected.thought
        made = [(item.name, item.text("arguments")) for item in items if item.kind == "tool_call"]
        assert tuple(made) == expected.calls


@pytest.mark.fault(30, "V")
def test_after_its_end() -> None:
    """A choice that goes on after its finish reason breaks the rules."""
    events = decode(
        stream({"content": "hi"}, chunk({}, finish="stop"), {"content": "!"}, finish=None)
    )
    with pytest.raises(RemoteProtocolError, match="after its end"):
        legal(events)


def calls_of(data: bytes) -> list[tuple[str, str, str]]:
    """The `(id, name, arguments)` of every call."""
    found = [one for one in said_by(read(data)) if one[0] not in {"text", "thought"}]
    return [(call_id, name, text) for call_id, name, text in found]


OWN = "call_chatcmplup_1"

TWINS: dict[str, tuple[bytes, list[tuple[str, str, str]]]] = {
    "one id, two indexes": (
        stream(calls(call(F, A, index=0, id="i")), calls(call(F, B, index=1, id="i"))),
        [("i", F, A), (OWN, F, B)],
    ),
    "one id, two indexes, both go on": (
        stream(
            calls(call(F, A[:3], index=0, id="i")),
            calls(call(F, B[:3], index=1, id="i")),
            calls(call(None, A[3:], index=0, id="i")),
            calls(call(None, B[3:], index=1, id="i")),
        ),
        [("i", F, A), (OWN, F, B)],
    ),
    "one id, one list": (
        whole(calls(call(F, A, id="i"), call(F, B, id="i"))), [("i", F, A), (OWN, F, B)]
    ),
    "one id and index, one list": (
        whole(calls(call(F, A, index=0, id="i"), call(F, B, index=0, id="i"))),
        [("i", F, A), (OWN, F, B)],
    ),
    "one id, whole before": (
        stream(calls(call(F, A, index=0, id="i")), calls(call(F, B, index=0, id="i"))),
        [("i", F, A), (OWN, F, B)],
    ),
    "one id, no index, whole before": (
        stream(calls(call(F, A, id="i")), calls(call(F, B, id="i"))),
        [("i", F, A), (OWN, F, B)],
    ),
    "one id, two names": (
        stream(calls(call(F, A[:3], index=0, id="i")), calls(call("g", B, index=0, id="i"))),
        [("i", F, A[:3]), (OWN, "g", B)],
    ),
    "white space behind is no call": (
        stream(calls(call(F, A, index=0, id="i")), calls(call(F, "\n", index=0, id="i"))),
        [("i", F, A + "\n")],
    ),
    "the name in each fragment": (
        stream(*(calls(call(F, one, index=0, id="i")) for one in '{"a":"}{\\"]","b":[1]}')),
        [("i", F, '{"a":"}{\\"]","b":[1]}')],
    ),
    "a new id in each fragment": (
        stream(calls(call(F, A[:3], index=0, id="i")), calls(call(None, A[3:], index=0, id="j"))),
        [("i", F, A)],
    ),
    "an id that comes late": (
        stream(calls(call(F, A[:3], index=0)), calls(call(None, A[3:], index=0, id="i"))),
        [("call_chatcmplup_0", F, A)],
    ),
    "an old id under a new index, without a name": (
        stream(calls(call(F, A[:3], index=0, id="i")), calls(call(None, A[3:], index=1, id="i"))),
        [("i", F, A)],
    ),
}  # fmt: skip


@pytest.mark.fault(31, "V")
@pytest.mark.parametrize("name", TWINS)
def test_twins(name: str) -> None:
    """Two calls with one id stay two, each with an id of its own; a fragment without a name none.

    What is asked of a tool twice must be done twice, and each result has to find its call.
    """
    data, expected = TWINS[name]
    assert calls_of(data) == expected


def test_many_calls() -> None:
    """Calls and choices without bound are a breach of the protocol, not memory of ours."""
    many = [calls(call(F, "{}", index=number, id=f"i{number}")) for number in range(129)]
    assert len(calls_of(stream(*many[:128]))) == 128
    *_, last = decode(stream(*many))
    assert isinstance(last, Failed)
    assert last.error.status == 502
    *_, last = decode(stream(chunk({"content": "x"}, index=128)))
    assert isinstance(last, Failed)
    wanted = b"".join(chunk({"content": "x"}, index=n, finish="stop") for n in range(200)) + DONE
    *_, last = decode(wanted, ask(n=200))
    assert isinstance(last, Ended)


def test_held() -> None:
    """What waits for a name is counted, and no longer once it is told."""
    dialect = ChatDialect(ask())
    out: list[Event] = []

    def take(delta: Json) -> int:
        dialect.on_frame(b"", chunk(delta)[6:].strip(), out)
        return dialect.held

    assert take(calls(call(None, "x" * 100, index=0, id="i"))) == 101
    assert take(calls(call(None, "x" * 100, index=0, zip=1))) > 201
    assert take(calls(call(None, "y" * 50, index=1))) > 251
    assert take(calls(call(F, "", index=0))) == 50
    early = ChatDialect(ask())
    early.on_frame(b"", b'{"choices":[]}', [])
    assert early.held == 0
    early.on_frame(b"", b'{"choices":[],"zip":"abc"}', [])
    assert early.held == WEIGHT * len('{"zip":"abc"}')
    early.on_frame(b"", chunk({})[6:].strip(), [])
    assert early.held == 0


def test_odd_members() -> None:
    """Members that the schema knows as texts or counts are kept only as such."""
    events = decode(stream(chunk({"content": "hi"}, system_fingerprint=[1], service_tier={})))
    assert kept(events[0]) == {}
    reply = read(
        stream(
            {"content": "hi", "reasoning_details": [5, {"type": "x"}], "annotations": ["a"]},
            chunk({}, usage={"prompt_tokens": 2**70, "prompt_tokens_details": {
                "cached_tokens": [1], "audio_tokens": "x", "own": "kept"}}),
        )
    )  # fmt: skip
    body = CHAT.render_reply(reply, ask(), IDENTITY)
    assert body["usage"] == {
        "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
        "prompt_tokens_details": {"own": "kept"},
    }  # fmt: skip
    message = body["choices"][0]["message"]
    assert (message["reasoning_details"], message["annotations"]) == ([{"type": "x"}], [])


def test_two_reasonings() -> None:
    """Different words under the two names of reasoning are both read, the same ones once."""
    data = stream(
        {"reasoning_content": "a", "reasoning": "a"}, {"reasoning_content": "b", "reasoning": "c"}
    )
    assert said_by(read(data)) == [("thought", "abc")]


@pytest.mark.parametrize("kind", ["function", "custom"])
def test_unknown_members_inside_a_call_pass(kind: str) -> None:
    """What nobody knows inside `function` or `custom` reaches a chat client, streamed and whole."""
    text = "arguments" if kind == "function" else "input"
    first = {"index": 0, "id": "c1", "type": kind, kind: {"name": "f", text: "", "x": {"a": 1}}}
    later = {"index": 0, kind: {text: "{}", "y": 2}}
    data = stream(calls(first), calls(later), finish="tool_calls")
    assert encode(legal(decode(data))).count(b'"x":{"a":1}') == 1
    assert b'"y":2' in encode(legal(decode(data)))
    [made] = CHAT.render_reply(read(data), ask(), IDENTITY)["choices"][0]["message"]["tool_calls"]
    assert made == {
        "id": "c1",
        "type": kind,
        kind: {"name": "f", text: "{}", "x": {"a": 1}, "y": 2},
    }
