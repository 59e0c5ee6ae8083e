"""The law: no text that others write can leave the place where it is written.

Rows 23 and 36. Line breaks, halves of surrogate pairs, quotes and the words of the wire itself, in
every field that an upstream or a client fills: the stream stays a sequence of whole frames, its
`event:` lines are ours, and it is UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nursling.engine.accumulate import Accumulator
from nursling.engine.errors import ErrorInfo
from nursling.engine.events import (
    Ended,
    Event,
    Failed,
    Finished,
    ItemEnded,
    ItemStarted,
    PartDelta,
    PartStarted,
    Started,
)
from nursling.engine.grammar import Grammar
from nursling.engine.jsontext import dumps
from nursling.engine.limits import DEFAULT_LIMITS
from support.formats import FORMATS, IDENTITY, stream_to, through
from support.laws import check_chat_stream, check_failed_stream, check_responses_stream, frames


HOSTILE = st.lists(
    st.sampled_from(
        [
            *("\n", "\r", "\r\n", "\n\n", "\u2028", "\x85", "\x00", "\x7f", '"', "\\", "\ufeff"),
            *("\ud83d", "\ude00", "\U0001f40e", "x", " ", ":", "data: [DONE]", "event: x", "}"),
        ]
    ),
    min_size=1,
    max_size=6,
).map("".join)


FRAMES = re.compile(rb"(?:(?:event: [A-Za-z0-9_.:/-]{1,128}\n)?data: [^\r\n]+\n\n)+")


def request_of(client: str, model: str) -> Any:
    asked: dict[str, Any] = {"model": model, "stream": True, "input": "Hi."}
    if client == "chat":
        asked["messages"] = [{"role": "user", "content": asked.pop("input")}]
    return FORMATS[client].parse_request(asked)


def scrubbed(text: str) -> str:
    """What UTF-8 can say of a text."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@pytest.mark.fault(36, "V")
@pytest.mark.parametrize("client", list(FORMATS))
@settings(max_examples=150)
@given(st.tuples(HOSTILE, HOSTILE, HOSTILE, HOSTILE), st.booleans())
def test_no_event_can_break_a_frame(
    client: str, words: tuple[str, str, str, str], fails: bool
) -> None:
    """Ids, model, tool name, arguments, text and error of a reply, in the normal form."""
    model, name, text, own_id = words
    said: list[Event] = [
        Started(own_id, model, 7),
        ItemStarted(0, "message", 0, own_id),
        PartStarted(0, 0, "text"),
        PartDelta(0, 0, text),
        ItemStarted(1, "tool_call", 0, own_id, name),
        PartStarted(1, 0, "arguments"),
        PartDelta(1, 0, text),
        ItemEnded(1),
    ]
    said += (
        [Failed(ErrorInfo(message=text, code=name))] if fails else [Finished(0, "stop"), Ended()]
    )
    request = request_of(client, model)
    legal = Grammar().check(said)
    data = stream_to(client, request, [legal])
    data.decode("utf-8", "strict")
    if fails:
        check_failed_stream(data, client)
    elif client == "chat":
        check_chat_stream(data, usage=None)
    else:
        check_responses_stream(data)
    if fails:
        return
    fold = Accumulator(1 << 20)
    fold.add(legal)
    whole = json.loads(dumps(FORMATS[client].render_reply(fold.reply, request, IDENTITY)))
    if client == "chat":
        assert whole["choices"][0]["message"]["content"] == scrubbed(text)
    else:
        assert whole["output"][0]["content"][0]["text"] == scrubbed(text)


@pytest.mark.fault(36, "V")
@pytest.mark.parametrize("client", list(FORMATS))
@settings(max_examples=150)
@given(HOSTILE, HOSTILE)
def test_a_strangers_type_cannot_become_an_event_line(client: str, kind: str, name: str) -> None:
    """An unknown event of a Responses upstream, its type in the JSON or in the `event:` line."""
    said = [
        {"type": "response.created", "response": {"id": "r", "output": []}},
        {"type": kind, "x": name},
        {"type": "response.output_item.done", "item": {"type": kind, "id": name}},
        {"type": "response.completed", "response": {"id": "r", "output": []}},
    ]
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in said)
    request = request_of(client, "m")
    batches = through(FORMATS["responses"].decoder(request, DEFAULT_LIMITS), [data])
    assert FRAMES.fullmatch(stream_to(client, request, batches))


@pytest.mark.fault(23, "V")
@settings(max_examples=200)
@given(st.text() | HOSTILE, st.integers(0, 1 << 16))
def test_characters_cut_between_reads_arrive_whole(text: str, place: int) -> None:
    """UTF-8 that one read ends inside of is the same text as in one read."""
    text = scrubbed(text)
    delta = {"index": 0, "delta": {"content": text + "!"}, "finish_reason": "stop"}
    chunk = json.dumps({"id": "a", "choices": [delta]}, ensure_ascii=False).encode()
    data = b"data: " + chunk + b"\n\ndata: [DONE]\n\n"
    place %= len(data) + 1
    request = request_of("chat", "m")
    batches = through(
        FORMATS["chat"].decoder(request, DEFAULT_LIMITS), [data[:place], data[place:]]
    )
    words = [event.text for batch in batches for event in batch if isinstance(event, PartDelta)]
    assert words == [text + "!"]
    assert frames(stream_to("chat", request, batches))
