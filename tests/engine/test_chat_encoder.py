"""What leaves as chat: streams and whole replies, legal by OpenAI's schema, and nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nursling.engine.errors import ErrorInfo
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
from nursling.engine.formats.chat import CHAT
from support.chat import (
    HEAD,
    IDENTITY,
    Json,
    ask,
    chunk,
    decode,
    deltas,
    encode,
    fold,
    frame,
    legal,
    payloads,
    program,
    stream,
    whole,
)
from support.corpus import Recording, recordings
from support.laws import check_chat_stream, check_failed_stream
from support.schemas import check


OURS = "chatcmpl-0123456789abcdef0123456789abcdef"
START = Started("resp_1", "up", 7)
END: list[Event] = [Finished(0, "stop"), Ended()]
CITATION: Json = {
    "type": "url_citation", "url": "https://a.b", "title": "t", "start_index": 0, "end_index": 1,
}  # fmt: skip
ENTRY: Json = {"token": "h", "logprob": -0.1, "top_logprobs": [{"token": "h", "logprob": -0.1}]}
FULL: Json = {
    "token": "h", "logprob": -0.1, "bytes": None,
    "top_logprobs": [{"token": "h", "logprob": -0.1, "bytes": None}],
}  # fmt: skip


def said(
    item: int, kind: Any, *parts: tuple[Any, str], choice: int = 0, **more: Any
) -> list[Event]:
    """An item, its parts, and nothing of its end."""
    events: list[Event] = [ItemStarted(item, kind, choice, **more)]
    for number, (part, text) in enumerate(parts):
        events += [PartStarted(item, number, part), PartDelta(item, number, text)]
        events.append(PartEnded(item, number))
    return events


def message_of(events: list[Event], **fields: Any) -> Json:
    """The message of the whole reply that the events are, checked."""
    body = CHAT.render_reply(fold(legal(events)), ask(**fields), IDENTITY)
    check("openai", "CreateChatCompletionResponse", body)
    message: Json = body["choices"][0]["message"]
    return message


CONTENT: dict[str, tuple[list[Event], list[Json], Json]] = {
    "text": (
        said(0, "message", ("text", "a"), ("text", "b")),
        [{"content": "a"}, {"content": "b"}],
        {"content": "ab"},
    ),
    "nothing": ([], [], {"content": ""}),
    "several messages": (
        said(0, "message", ("text", "a")) + said(1, "message", ("text", ""), ("text", "b")),
        [{"content": "a"}, {"content": "\n\nb"}],
        {"content": "a\n\nb"},
    ),
    "an empty message, then one": (
        said(0, "message", ("text", "")) + said(1, "message", ("text", "b")),
        [{"content": "b"}],
        {"content": "b"},
    ),
    "refusal": (said(0, "message", ("refusal", "no")), [{"refusal": "no"}], {"refusal": "no"}),
    "reasoning": (
        said(0, "reasoning", ("thought", "t")) + said(1, "message", ("text", "a")),
        [{"reasoning_content": "t"}, {"content": "a"}],
        {"reasoning_content": "t", "content": "a"},
    ),
    "summaries": (
        said(0, "reasoning", ("summary", "s"), ("summary", "u")),
        [{"reasoning_content": "s"}, {"reasoning_content": "\n\nu"}],
        {"reasoning_content": "s\n\nu", "content": ""},
    ),
    "two reasonings": (
        said(0, "reasoning", ("thought", "t")) + said(1, "reasoning", ("thought", "u")),
        [{"reasoning_content": "t"}, {"reasoning_content": "\n\nu"}],
        {"reasoning_content": "t\n\nu", "content": ""},
    ),
    "sealed": (
        [*said(0, "reasoning", id="rs_1"), ItemEnded(0, sealed="#"),
         *said(1, "reasoning"), ItemEnded(1, sealed="##")],
        [{"reasoning_details": [
            {"type": "reasoning.encrypted", "data": "#", "index": 0, "id": "rs_1"}]},
         {"reasoning_details": [{"type": "reasoning.encrypted", "data": "##", "index": 1}]}],
        {"reasoning_details": [
            {"type": "reasoning.encrypted", "data": "#", "index": 0, "id": "rs_1"},
            {"type": "reasoning.encrypted", "data": "##", "index": 1}], "content": ""},
    ),
    "calls": (
        [*said(0, "tool_call", ("arguments", "{}"), id="c", name="f"),
         *said(1, "tool_call", ("input", "x"), id="d", name="g"),
         ItemStarted(2, "tool_call", id="e", name="h"), ItemEnded(2)],
        [{"tool_calls": [{"index": 0, "id": "c", "type": "function",
                          "function": {"name": "f", "arguments": ""}}]},
         {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
         {"tool_calls": [{"index": 1, "id": "d", "type": "custom",
                          "custom": {"name": "g", "input": ""}}]},
         {"tool_calls": [{"index": 1, "custom": {"input": "x"}}]},
         {"tool_calls": [{"index": 2, "id": "e", "type": "function",
                          "function": {"name": "h", "arguments": ""}}]}],
        {"tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}},
            {"id": "e", "type": "function", "function": {"name": "h", "arguments": ""}}],
         "content": None},
    ),
    "citation": (
        [*said(0, "message", ("text", "a")), Annotated(0, 0, "citation", CITATION)],
        [{"content": "a"},
         {"annotations": [{"type": "url_citation",
                           "url_citation": {k: v for k, v in CITATION.items() if k != "type"}}]}],
        {"content": "a", "annotations": [
            {"type": "url_citation",
             "url_citation": {k: v for k, v in CITATION.items() if k != "type"}}]},
    ),
    "opaque": (
        [ItemStarted(0, "opaque", name="web_search_call"), Annotated(0, -1, "wire", {}),
         ItemEnded(0), *said(1, "message", ("text", "a"))],
        [{"content": "a"}],
        {"content": "a"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENT)
def test_content(name: str) -> None:
    """Every kind of content leaves in its own field, streamed and whole alike."""
    content, streamed, message = CONTENT[name]
    events = legal([START, *content, *END])
    data = encode(events)
    check_chat_stream(data)
    assert deltas(data) == streamed
    expected = {"role": "assistant", "content": None, "refusal": None, "annotations": [], **message}
    assert message_of([START, *content, *END]) == expected


def test_first_and_last() -> None:
    """The role comes first, in a chunk of its own; then text, the reason, and [DONE]."""
    data = encode(legal([START, *said(0, "message", ("text", "a")), *END]))
    first, text, last = payloads(data)
    head = {"id": OURS, "object": "chat.completion.chunk", "created": 7, "model": "up"}
    assert first == {
        **head,
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        ],
    }
    assert text == {
        **head,
        "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}],
    }
    assert last == {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    assert data.endswith(b"data: [DONE]\n\n")  # fmt: skip


CALL = said(0, "tool_call", ("arguments", "{}"), id="c", name="f")
ROLES: list[tuple[list[Event], list[Json], Json]] = [
    (said(0, "message", ("text", "a")), [{"index": 0, "content": ""}], {}),
    (said(0, "reasoning", ("thought", "t")), [{"index": 0, "content": ""}], {}),
    (CALL, [{"index": 0, "content": None}], {}),
    (CALL, [{"index": 0, "content": None}], {"functions": [{"name": "f"}]}),
    (said(0, "tool_call", ("input", "x"), id="c", name="f"), [{"index": 0, "content": None}], {}),
    (said(1, "message", ("text", "a")) + CALL, [{"index": 0, "content": ""}], {}),
    (said(1, "tool_call", ("input", "x"), id="c", name="f", choice=1) + CALL,
     [{"index": 0, "content": ""}, {"index": 1, "content": None}], {"n": 2}),
    ([], [{"index": 0, "content": ""}], {}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "roles", "asked"), ROLES, ids=map(str, range(len(ROLES))))
def test_what_stands_beside_the_role(content: list[Event], roles: list[Json], asked: Json) -> None:
    """Null before a call, empty text before all else; and choice 0 begins before the others."""
    request = ask(**asked)
    finished = [Finished(index, "stop") for index in range(request.n)]
    data = CHAT.encoder(request, IDENTITY).encode(legal([START, *content, *finished, Ended()]))
    check_chat_stream(data, n=request.n)
    choices = [choice for one in payloads(data) for choice in one["choices"]]
    assert [
        {"index": choice["index"], "content": choice["delta"]["content"]}
        for choice in choices
        if "role" in choice["delta"]
    ] == roles


def test_the_role_waits_for_a_word_or_a_beat() -> None:
    """Nothing is sent before it is known what; a beat is a chunk with the role the first time."""
    encoder = CHAT.encoder(ask(), IDENTITY)
    assert encoder.encode([START, ItemStarted(0, "tool_call", id="c", name="f")]) == b""
    beat = encoder.beat()
    [chunk] = payloads(beat)
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert beat.endswith(b": keepalive\n\n")
    assert encoder.beat() == b": keepalive\n\n"
    assert b'"role"' not in encoder.encode([PartStarted(0, 0, "arguments"), *END])


@pytest.mark.parametrize(
    ("start", "head"),
    [
        (Started("", "", 0), (OURS, "m", IDENTITY.created)),
        (Started("resp_1", "up", 7), (OURS, "up", 7)),
        (Started("chatcmpl-up", "up", 7, {"chat": {}}), ("chatcmpl-up", "up", 7)),
        (Started("", "", 0, {"chat": {}}), (OURS, "m", IDENTITY.created)),
    ],
)
def test_head(start: Started, head: tuple[str, str, int]) -> None:
    """A chat upstream's id is kept, another's is replaced; what nobody said is ours."""
    events = legal([start, *END])
    for body in (payloads(encode(events))[0], CHAT.render_reply(fold(events), ask(), IDENTITY)):
        assert (body["id"], body["model"], body["created"]) == head


def test_early_start() -> None:
    """A stream that began before the upstream spoke keeps its own head."""
    encoder = CHAT.encoder(ask(), IDENTITY)
    data = encoder.encode([Started("", "", 0)]) + encoder.beat()
    extra = {"chat": {"chunk": {"system_fingerprint": "fp"}}}
    data += encoder.encode([Started("chatcmpl-up", "up", 7, extra), *END])
    check_chat_stream(data)
    assert data.count(b": keepalive\n\n") == 1
    assert [one["id"] for one in payloads(data)] == [OURS, OURS]
    assert payloads(data)[1]["system_fingerprint"] == "fp"


@pytest.mark.parametrize("asked", [False, True])
def test_usage(*, asked: bool) -> None:
    """Usage comes in a last chunk without choices, if it was asked for, with all details."""
    raw = {"cost": 1, "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 9, "x": None},
           "completion_tokens_details": None}  # fmt: skip
    events = legal(
        [
            START,
            UsageReported(Usage(input_tokens=3, cached_tokens=1)),
            UsageReported(Usage(output_tokens=4), {"chat": {"usage": raw}}),
            *END,
        ]
    )
    usage = {
        "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cost": 1,
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 1},
    }  # fmt: skip
    request = ask(stream_options={"include_usage": asked})
    data = encode(events, request)
    check_chat_stream(data, usage=asked)
    *before, last = payloads(data)
    assert last.get("usage") == (usage if asked else None)
    assert all(one.get("usage", ...) == (None if asked else ...) for one in before)
    assert CHAT.render_reply(fold(events), request, IDENTITY)["usage"] == usage


def test_usage_that_nobody_reported() -> None:
    """Counts are never made up: no report, no usage."""
    events = legal([START, *END])
    data = encode(events, ask(stream_options={"include_usage": True}))
    check_chat_stream(data, usage=None)
    assert all(not one["usage"] for one in payloads(data))
    assert "usage" not in CHAT.render_reply(fold(events), ask(), IDENTITY)


def test_usage_total() -> None:
    """A total that was reported is not recomputed."""
    usage = UsageReported(
        Usage(input_tokens=1, output_tokens=1, total_tokens=9, reasoning_tokens=5)
    )
    body = CHAT.render_reply(fold(legal([START, usage, *END])), ask(), IDENTITY)
    assert body["usage"] == {
        "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 9,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }  # fmt: skip


def test_several_choices() -> None:
    """Choices interleave, each with its own role, call numbers and reason."""
    events = legal(
        [
            START,
            *said(0, "message", ("text", "a")),
            *said(1, "tool_call", ("arguments", "{}"), choice=1, id="c", name="f"),
            *said(2, "tool_call", ("arguments", "[]"), id="d", name="g"),
            Finished(1, "tool_calls"),
            Finished(0, "length"),
            Ended(),
        ]
    )
    data = encode(events)
    check_chat_stream(data, n=2)
    assert [delta["tool_calls"][0]["index"] for delta in deltas(data, 1)] == [0, 0]
    body = CHAT.render_reply(fold(events), ask(), IDENTITY)
    assert [one["finish_reason"] for one in body["choices"]] == ["length", "tool_calls"]
    check("openai", "CreateChatCompletionResponse", body)


def test_failure() -> None:
    """A broken stream ends with an error, and without [DONE] or a reason."""
    error = ErrorInfo(message="lost", type="upstream_error", code="x", status=502)
    data = encode(legal([START, *said(0, "message", ("text", "a")), Failed(error)]))
    chunks, said_error = check_failed_stream(data, "chat")
    assert said_error == {"message": "lost", "type": "upstream_error", "code": "x", "param": None}
    assert all(one["choices"][0]["finish_reason"] is None for one in chunks)
    assert payloads(encode(legal([Failed(error)]))) == [{"error": said_error}]


def test_reply_that_broke() -> None:
    """What has come of a reply that broke can be rendered, for logs."""
    reply = fold(legal([START, *said(0, "message", ("text", "a"))]))
    body = CHAT.render_reply(reply, ask(), IDENTITY)
    assert body["choices"][0]["message"]["content"] == "a"


def test_logprobs() -> None:
    """Logprobs leave with the text that they came with."""
    empty = {"token": "", "logprob": 0, "bytes": None, "top_logprobs": []}
    events = legal(
        [
            START,
            ItemStarted(0, "message"),
            PartStarted(0, 0, "text"),
            PartDelta(0, 0, "h", [FULL]),
            PartDelta(0, 0, "", [empty]),
            PartStarted(0, 1, "refusal"),
            PartDelta(0, 1, "n", [FULL]),
            *END,
        ]
    )
    data = encode(events)
    check_chat_stream(data)
    found = [one["choices"][0].get("logprobs") for one in payloads(data)]
    assert found == [
        None,
        {"content": [FULL], "refusal": None},
        {"content": [empty], "refusal": None},
        {"content": None, "refusal": [FULL]},
        None,
    ]
    body = CHAT.render_reply(fold(events), ask(), IDENTITY)
    check("openai", "CreateChatCompletionResponse", body)
    assert body["choices"][0]["logprobs"] == {"content": [FULL, empty], "refusal": [FULL]}


FUNCTIONS: Json = {"functions": [{"name": "f", "parameters": {}}]}


def test_legacy_client() -> None:
    """A client that speaks of `functions` reads its call as `function_call`."""
    events = legal(
        [
            START,
            *said(0, "tool_call", ("arguments", "{}"), id="c", name="f"),
            *said(1, "tool_call", ("arguments", "[]"), id="d", name="g"),
            Finished(0, "tool_calls"),
            Ended(),
        ]
    )
    data = encode(events, ask(**FUNCTIONS))
    check_chat_stream(data)
    assert deltas(data) == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {"tool_calls": [{"index": 0, "id": "d", "type": "function",
                         "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "[]"}}]},
    ]  # fmt: skip
    assert payloads(data)[-1]["choices"][0]["finish_reason"] == "function_call"
    body = CHAT.render_reply(fold(events), ask(**FUNCTIONS), IDENTITY)
    check("openai", "CreateChatCompletionResponse", body)
    assert body["choices"][0]["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert body["choices"][0]["finish_reason"] == "function_call"
    only = message_of([START, *said(0, "tool_call", ("arguments", "{}"), id="c", name="f"), *END],
                      **FUNCTIONS)  # fmt: skip
    assert "tool_calls" not in only
    assert only["content"] is None


def test_legacy_members_of_a_call() -> None:
    """A `function_call` has no room for the members of a tool call."""
    events = decode(stream({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]},
                           {"tool_calls": [{"index": 0, "x": 1}]}))  # fmt: skip
    data = encode(legal(events), ask(**FUNCTIONS))
    check_chat_stream(data)
    assert b'"x"' not in data


def test_hot_path() -> None:
    """Plain text after the first delta differs from it in its text alone, whatever the text is."""
    texts = ["a", 'quote " and \\', "new\nline", "\0", "é\u2028", "", "\ud800", "z"]
    events = [
        START, ItemStarted(0, "message"), PartStarted(0, 0, "text"),
        *(PartDelta(0, 0, text) for text in texts), *END,
    ]  # fmt: skip
    for request in (ask(), ask(stream_options={"include_usage": True})):
        data = encode(legal(events), request)
        check_chat_stream(data, usage=None)
        found = [delta["content"] for delta in deltas(data)]
        assert found == [text.replace("\ud800", "�") for text in texts if text]
        plain = [one for one in payloads(data) if one["choices"][0]["delta"].get("content")]
        for one in plain:
            one["choices"][0]["delta"] = {}
        assert all(one == plain[0] for one in plain)


# Chat to chat: nothing is lost.


def again(data: bytes, **fields: Any) -> bytes:
    """A stream, as it comes out of the gateway towards a chat client."""
    request = ask(**fields)
    out = encode(legal(decode(data, request)), request)
    check_chat_stream(out, usage=None, n=request.n)
    return out


def test_sticky_members() -> None:
    """What a server repeats on each chunk leaves on each chunk, and changes when it changes."""
    out = again(
        stream(
            chunk({"content": "a"}, system_fingerprint="1"),
            chunk({"content": "b"}, system_fingerprint="1"),
            chunk({"content": "c"}, system_fingerprint="2"),
            chunk({"content": "d"}, system_fingerprint="2"),
        )
    )
    assert [one["system_fingerprint"] for one in payloads(out)] == ["1", "1", "1", "2", "2", "2"]
    assert [delta["content"] for delta in deltas(out)] == ["a", "b", "c", "d"]


def test_sticky_members_of_all_parts() -> None:
    """A change that came with one choice is seen on the next chunk of every other one."""
    out = again(
        stream(
            chunk({"content": "a"}, system_fingerprint="1"),
            chunk({"content": "b"}, index=1),
            chunk({"content": "a"}, system_fingerprint="2"),
            chunk({"content": "b"}, index=1),
            chunk({}, index=1, finish="stop"),
        ),
        n=2,
    )
    told = [one["system_fingerprint"] for one in payloads(out)]
    assert told == ["1"] * 4 + ["2"] * 4


def test_unknown_members() -> None:
    """Unknown members of chunk, choice, delta and call leave where they came."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    data = stream(
        chunk({"content": "a", "zip": 1}, timings={"ms": 1}, c_filter={"hate": 0}),
        chunk({"content": "b"}),
        chunk({"zip": 2}),
        chunk({"audio": {"id": "x", "data": "QU", "transcript": "a"}}),
        chunk({"audio": {"data": "JD", "transcript": "b", "expires_at": 1}}),
        chunk({"content": "c", "images": [{"n": 1}]}),
        chunk({"images": [{"n": 2}]}),
        chunk({"tool_calls": [{**call, "signature": "s"}]}),
        chunk({"tool_calls": [{"index": 0, "trace": 5}]}),
        chunk({}, finish="stop", c_stop_reason=128, timings={"ms": 2}),
        finish=None,
    )
    out = again(data)
    found = payloads(out)
    assert [one["timings"] for one in found if "timings" in one] == [{"ms": 1}, {"ms": 2}]
    choices = [one["choices"][0] for one in found]
    assert [one["filter"] for one in choices if "filter" in one] == [{"hate": 0}]
    assert choices[-1]["stop_reason"] == 128
    assert [one["delta"]["zip"] for one in choices if "zip" in one["delta"]] == [1, 2]
    assert [d["tool_calls"][0].get("signature") for d in deltas(out) if "tool_calls" in d] == [
        "s", None, None,
    ]  # fmt: skip
    body = CHAT.render_reply(fold(legal(decode(out))), ask(), IDENTITY)
    check("openai", "CreateChatCompletionResponse", body)
    [choice] = body["choices"]
    assert body["timings"] == {"ms": 2}
    assert (choice["filter"], choice["stop_reason"]) == ({"hate": 0}, 128)
    message = choice["message"]
    assert message["audio"] == {
        "id": "x", "data": "QUJD", "transcript": "ab", "expires_at": 1,
    }  # fmt: skip
    assert message["images"] == [{"n": 1}, {"n": 2}]
    assert message["zip"] == 2
    [called] = message["tool_calls"]
    assert (called["signature"], called["trace"]) == ("s", 5)


def test_members_beside_plain_text() -> None:
    """Members leave with the text that they came with, though another event stood before it."""
    out = again(stream({"content": "a"}, {"reasoning_content": "t"}, {"content": "b", "zip": 1}))
    assert deltas(out)[-1] == {"content": "b", "zip": 1}


def test_members_of_one_choice() -> None:
    """What waits for a chunk of one choice does not leave on another's."""
    out = again(
        stream(
            chunk({"reasoning": "t"}),
            chunk({"content": "x"}, index=1),
            chunk({"content": "y", "zip": 1}),
            chunk({"content": "z"}, index=1),
            chunk({}, finish="stop", index=1),
        ),
        n=2,
    )
    assert [delta.get("zip") for delta in deltas(out)] == [None, 1]
    assert all("zip" not in delta for delta in deltas(out, 1))


def test_usage_chunk_members() -> None:
    """What rides on the chunk of usage goes with it, or else with the finish reason."""
    last = {**HEAD, "choices": [], "usage": {"prompt_tokens": 1}, "timings": {"ms": 1}}
    data = stream({"content": "a"}, done=False) + b"data: " + json.dumps(last).encode() + b"\n\n"
    data += b"data: [DONE]\n\n"
    last_one = payloads(again(data))[-1]  # the finish reason waits for what comes behind it
    assert last_one["choices"][0]["finish_reason"] == "stop"
    assert last_one["timings"] == {"ms": 1}
    found = payloads(again(data, stream_options={"include_usage": True}))[-1]
    assert found["timings"] == {"ms": 1}


def test_raw_reason() -> None:
    """A finish reason that the schema does not know leaves beside the one that it means."""
    data = stream({"content": "a"}, finish="eos")
    choice = payloads(again(data))[-1]["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("stop", "eos")
    body = CHAT.render_reply(fold(legal(decode(data))), ask(), IDENTITY)
    assert body["choices"][0]["native_finish_reason"] == "eos"
    told = stream(chunk({"content": "a"}, finish="eos", c_native_finish_reason="EOS"), finish=None)
    choices = [one["choices"][0] for one in payloads(again(told))]
    assert [one["native_finish_reason"] for one in choices if len(one) > 3] == ["EOS"]


def test_reasoning_names() -> None:
    """Reasoning leaves as `reasoning_content`, and also under the name that it came by."""
    data = stream({"reasoning": "t"}, {"reasoning": "u"}, {"content": "a"}, {"reasoning": "v"})
    out = again(data)
    assert deltas(out) == [
        {"reasoning": "t", "reasoning_content": "t"}, {"reasoning": "u", "reasoning_content": "u"},
        {"content": "a"}, {"reasoning": "v", "reasoning_content": "v"},
    ]  # fmt: skip
    message = message_of(decode(data))
    assert (message["reasoning"], message["reasoning_content"]) == ("tuv", "tuv")


def test_reasoning_details() -> None:
    """OpenRouter's details come out as they came, sealed or not, streamed and joined."""
    open_ones = [{"type": "reasoning.text", "text": text, "index": 0} for text in "tu"]
    signed = {"type": "reasoning.text", "text": None, "signature": "s", "index": 0}
    sealed = {"type": "reasoning.encrypted", "data": "#", "id": "rs", "format": "x", "index": 1}
    data = stream(*({"reasoning_details": [one]} for one in (*open_ones, signed, sealed)))
    found = [one for delta in deltas(again(data)) for one in delta.get("reasoning_details", [])]
    assert found == [*open_ones, signed, sealed]
    message = message_of(decode(data))
    joined = {"type": "reasoning.text", "text": "tu", "signature": "s", "index": 0}
    assert message["reasoning_details"] == [joined, sealed]
    assert message["reasoning_content"] == "tu"


def test_logprobs_of_no_text() -> None:
    """Logprobs that came beside something else than text stay on their chunk."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    data = stream(
        chunk({"content": "h"}, c_logprobs={"content": [ENTRY]}),
        chunk({"tool_calls": [call]}, c_logprobs={"content": [ENTRY], "refusal": None}),
    )
    found = [one["choices"][0].get("logprobs") for one in payloads(again(data))]
    assert found[2]["content"] == [FULL]
    body = CHAT.render_reply(fold(legal(decode(data))), ask(), IDENTITY)
    assert body["choices"][0]["logprobs"]["content"] == [FULL, FULL]


WHOLES: dict[str, bytes] = {
    "text": whole({"role": "assistant", "content": "hi", "refusal": None, "annotations": []}),
    "extras": whole(
        {"content": "hi", "images": [{"id": "a"}], "z": [1]}, service_tier="default",
        system_fingerprint="fp", timings={"a": {"b": 1}},
        usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "x": {"y": 1}},
    ),
    "calls": whole(
        {"content": None, "reasoning_content": "t", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}, "s": 1},
            {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
        finish="tool_calls",
    ),
    "refusal": whole({"content": None, "refusal": "no"}, finish="content_filter"),
}  # fmt: skip


def subset(small: Any, large: Any) -> bool:
    """Whether everything that `small` says, but for null, is in `large`."""
    if isinstance(small, dict):
        return all(
            value is None or (key in large and subset(value, large[key]))
            for key, value in small.items()
        )
    if isinstance(small, list):
        return len(small) == len(large) and all(map(subset, small, large))
    return bool(small == large)


@pytest.mark.parametrize("name", WHOLES)
def test_whole(name: str) -> None:
    """A whole reply of a chat server comes out with everything that it said."""
    body = CHAT.render_reply(fold(legal(decode(WHOLES[name]))), ask(), IDENTITY)
    check("openai", "CreateChatCompletionResponse", body)
    assert subset(json.loads(WHOLES[name]), body)


CHAT_RECORDINGS = [one for one in recordings() if one.api == "chat" and one.status < 400]


@pytest.mark.parametrize("one", CHAT_RECORDINGS, ids=[one.name for one in CHAT_RECORDINGS])
def test_recorded(one: Recording) -> None:
    """Every recording leaves legal, streamed and whole, and once more through is the same."""
    count = one.body.get("n") if isinstance(one.body, dict) else None
    request = ask(n=count or 1, stream_options={"include_usage": True})
    events = legal(decode(one.data, request))
    out = encode(events, request)
    if isinstance(events[-1], Failed):
        check_failed_stream(out, "chat")
        return
    choices = {event.choice for event in events if isinstance(event, Finished)}
    check_chat_stream(out, n=len(choices), usage=None)
    body = CHAT.render_reply(fold(events), request, IDENTITY)
    check("openai", "CreateChatCompletionResponse", body)
    for data in (out, json.dumps(body).encode()):
        twice = fold(legal(decode(data, request)))
        assert CHAT.render_reply(twice, request, IDENTITY) == body


def test_program_request() -> None:
    """A request without a client's body is answered like any other."""
    request = program(format="", include_usage=True)
    out = encode(legal([START, *END]), request)
    check_chat_stream(out, usage=None)


def test_behind_the_finish_reason() -> None:
    """What a server says behind a finish reason leaves on the chunk with it, or with the usage.

    Azure says its filter's results there, llama-server its timings.
    """
    data = stream(
        chunk({"content": "a"}),
        chunk({"content": "b"}, index=1),
        chunk({}, finish="stop"),
        chunk({}, finish="stop", index=1),
        chunk({"zip": 1}, c_content_filter_results={"hate": 0}),
        frame({**HEAD, "choices": [], "usage": {"prompt_tokens": 1}, "timings": {"ms": 1}}),
        finish=None,
    )
    for options in (None, {"include_usage": True}):
        out = again(data, n=2, stream_options=options)
        chunks = check_chat_stream(out, n=2, usage=options is not None)
        first, second = (chunk for chunk in chunks if chunk["choices"] and _finish_of(chunk))
        assert first["choices"][0]["content_filter_results"] == {"hate": 0}
        assert first["choices"][0]["delta"] == {"zip": 1}
        assert ("timings" in second) == (options is None)
        assert chunks[-1]["timings"] == {"ms": 1}


def _finish_of(chunk: Json) -> Any:
    return chunk["choices"][0]["finish_reason"]


def test_failed_behind_the_finish_reason() -> None:
    """A finish reason that was said is told, though the reply breaks behind it."""
    out = encode(legal(decode(stream({"content": "a"}, done=False) + b"data: {]\n\n")))
    events, _ = check_failed_stream(out, "chat")
    assert _finish_of(events[-1]) == "stop"


def test_twin_ids() -> None:
    """Calls of one id leave with ids of their own, the same in a stream and whole."""
    events: list[Event] = [START]
    for number, own_id in enumerate(("c", "c", "c", "")):
        events += said(number, "tool_call", ("arguments", "{}"), id=own_id, name="f")
    events += END
    ids = [delta["tool_calls"][0]["id"] for delta in deltas(encode(legal(events)))
           if "id" in delta["tool_calls"][0]]  # fmt: skip
    assert ids == ["c", *(f"call_89abcdef0123456789abcdef_{number}" for number in (1, 2, 3))]
    assert [call["id"] for call in message_of(events)["tool_calls"]] == ids


def test_other_citations() -> None:
    """Chat can cite a URL and nothing else: what cites a file is not written."""
    events = [START, *said(0, "message", ("text", "a"))[:-1]]
    events += [Annotated(0, 0, "citation", {"type": "file_citation", "file_id": "f", "index": 1})]
    events += [Annotated(0, 0, "citation", CITATION), *END]
    out = encode(legal(events))
    check_chat_stream(out)
    found = [note for delta in deltas(out) for note in delta.get("annotations", ())]
    assert found == message_of(events)["annotations"]
    assert [note["type"] for note in found] == ["url_citation"]


def test_pieces() -> None:
    """Members that come in pieces are joined whole, and odd ones among them break nothing."""
    details = [
        {"type": "t", "text": "a", "index": 0},
        {"type": "t", "text": "b", "index": 0, "signature": None},
        {"type": "t", "text": 5, "index": 0, "signature": "s"},
        {"type": "t", "text": "c", "index": 0},
    ]
    deltas_: list[Json] = [
        {"content": "x", "audio": {"id": "i", "data": "AA", "zip": {"a": [1]}}},
        {"audio": {"data": "BB", "transcript": 5, "zip": {"a": [2], "b": "z"}}},
        *({"reasoning_details": [one]} for one in details),
    ]
    body = CHAT.render_reply(fold(legal(decode(stream(*deltas_)))), ask(), IDENTITY)
    message = body["choices"][0]["message"]
    assert message["audio"] == {
        "id": "i", "data": "AABB", "transcript": 5, "zip": {"a": [1, 2], "b": "z"},
    }  # fmt: skip
    assert message["reasoning_details"] == [
        {"type": "t", "text": "abc", "index": 0, "signature": "s"}
    ]


def test_a_choice_that_says_nothing() -> None:
    """A choice without a word still begins with its role and ends with one finish reason."""
    events = [START, *said(0, "message", ("text", ""), choice=1), Finished(1, "stop"), *END]
    chunks = check_chat_stream(encode(legal(events), ask(n=2)), n=2)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [
        None,
        None,
        "stop",
        "stop",
    ]


def test_calls_are_numbered_as_they_are_told() -> None:
    """A call is told when its part opens: one that opened earlier and spoke later comes second."""
    calls: list[Event] = [ItemStarted(item, "tool_call", 0, f"c{item}", "f") for item in (0, 1)]
    parts: list[Event] = [PartStarted(item, 0, "arguments") for item in (1, 0)]
    data = encode(legal([START, *calls, *parts, *END]))
    check_chat_stream(data)
    told = [delta["tool_calls"][0] for delta in deltas(data)]
    assert [(call["index"], call["id"]) for call in told] == [(0, "c1"), (1, "c0")]
