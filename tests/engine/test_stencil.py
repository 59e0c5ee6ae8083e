"""Reading through a stencil gives exactly the events that parsing would have given."""

from __future__ import annotations

import gc
import json
import re
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nursling.engine import jsontext
from nursling.engine.events import Ended, Event, Failed, PartDelta
from nursling.engine.formats import wire
from nursling.engine.formats.responses.board import Board
from nursling.engine.formats.stencil import Repeat, cut
from nursling.engine.limits import Limits
from support.conformance import cut as cut_up
from support.formats import FORMATS
from support.kinds import KINDS
from support.scripted import APIS, Api, ChatReply, ResponsesReply


def asked(api: Api, **more: Any) -> Any:
    body: dict[str, Any] = {"model": "m", "stream": True, **more}
    key = "messages" if api == "chat" else "input"
    return FORMATS[api].parse_request({**body, key: [{"role": "user", "content": "Hello."}]})


def read(api: Api, chunks: list[bytes], request: Any = None, limits: Limits | None = None) -> Any:
    """All the events of a stream; the same chunks always give the same."""
    decoder = FORMATS[api].decoder(request or asked(api), limits or Limits())
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


def parsed(api: Api, chunks: list[bytes], *more: Any) -> Any:
    """The same without any stencil."""
    with mock.patch.object(wire, "TRIES", 0):
        return read(api, chunks, *more)


def frames_of(data: bytes) -> list[bytes]:
    return [frame + b"\n\n" for frame in data.split(b"\n\n") if frame]


def long(api: Api, text: str) -> bytes:
    if api == "chat":
        return ChatReply(({"content": text},)).stream()
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return ResponsesReply((message,)).stream()


class Counter:
    """Counts the frames that are parsed."""

    def __init__(self) -> None:
        self.count = 0
        self._loads = jsontext.loads

    def __call__(self, text: bytes) -> Any:
        self.count += 1
        return self._loads(text)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("api", APIS)
def test_a_long_text_is_hardly_parsed(api: Api, size: int, newline: bytes) -> None:
    """Of a thousand frames with nothing but text, only the first two are parsed."""
    frames = [frame.replace(b"\n", newline) for frame in frames_of(long(api, "word! " * 500))]
    chunks = [b"".join(frames[at : at + size]) for at in range(0, len(frames), size)]
    counter = Counter()
    with mock.patch.object(jsontext, "loads", counter):
        events = read(api, chunks)
    assert counter.count < 20
    assert events == parsed(api, chunks)
    assert sum(isinstance(event, PartDelta) for event in events) == 1000


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("api", APIS)
def test_every_kind_of_content(api: Api, kind: Any) -> None:
    """Whatever a reply holds, and however it is cut: the events are those of the parser."""
    reply = kind.chat if api == "chat" else kind.responses
    if reply is None:
        return
    data = reply.stream()
    for chunks in ([data], frames_of(data), cut_up(data, kind.name)):
        assert read(api, chunks) == parsed(api, chunks)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("api", APIS)
def test_a_decoder_leaves_no_garbage(api: Api, kind: Any) -> None:
    """What a decoder and its stencils held is free with it: no collector has to find it."""
    reply = kind.chat if api == "chat" else kind.responses
    if reply is None:
        return
    request, frames = asked(api), frames_of(reply.stream())
    read(api, frames, request)  # what is made once for all is made
    gc.collect()
    gc.disable()
    try:
        read(api, frames, request)
        assert gc.collect() == 0
    finally:
        gc.enable()


texts = st.text(st.characters() | st.sampled_from('"\\\n\u2028\x00\x7f😀ab'), max_size=6)


def chat_frame(draw: st.DrawFn) -> bytes:
    delta: dict[str, Any] = {
        draw(st.sampled_from(["content", "content", "reasoning"])): draw(texts)
    }
    if draw(st.integers(0, 9)) == 0:
        delta["x_more"] = draw(texts)
    chunk: dict[str, Any] = {
        "id": draw(st.sampled_from(["c1", "c1", "c1", "c2"])),
        "model": "m",
        "choices": [{"index": draw(st.sampled_from([0, 0, 0, 1])), "delta": delta}],
    }
    if draw(st.booleans()):
        chunk["obfuscation"] = draw(st.sampled_from(["", "abc", "xyzxyz", 'q"q']))
    return f"data: {json.dumps(chunk, ensure_ascii=draw(st.booleans()))}\n\n".encode(
        "utf-8", "surrogatepass"
    )


def responses_frame(draw: st.DrawFn) -> bytes:
    event: dict[str, Any] = {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": draw(st.sampled_from([0, 0, 0, 1])),
        "delta": draw(texts),
        "logprobs": [],
        "sequence_number": draw(st.integers(0, 99)),
    }
    if draw(st.booleans()):
        event["obfuscation"] = draw(st.sampled_from(["", "abc", "xyzxyz"]))
    text = json.dumps(event, ensure_ascii=draw(st.booleans()))
    return f"event: {event['type']}\ndata: {text}\n\n".encode("utf-8", "surrogatepass")


@st.composite
def streams(draw: st.DrawFn) -> tuple[Api, list[bytes]]:
    """A stream of frames that repeat each other, mostly, and the way it is cut."""
    api: Api = draw(st.sampled_from(APIS))
    make = chat_frame if api == "chat" else responses_frame
    frames = [make(draw) for _ in range(draw(st.integers(1, 12)))]
    frames = [frame for frame in frames for _ in range(draw(st.sampled_from([1, 1, 3])))]
    if draw(st.integers(0, 4)) == 0:
        place = draw(st.integers(0, len(frames)))
        frames.insert(
            place, draw(st.sampled_from([b": beat\n\n", b"data: {\n\n", b"\n", b"data:\n\n"]))
        )
    data = b"".join(frames)
    size = draw(st.sampled_from([len(data), 1, 50, 300]))
    return api, [data[at : at + size] for at in range(0, len(data), size)]


@given(streams())
def test_streams_of_all_sorts(stream: tuple[Api, list[bytes]]) -> None:
    """Repeated, interrupted, torn and spoilt frames: the events are those of the parser."""
    api, chunks = stream
    assert read(api, chunks) == parsed(api, chunks)


def test_a_torn_frame_counts_too() -> None:
    """A frame of another kind that came in two reads may have changed what a known one means."""

    def frame(member: bytes) -> bytes:
        return b'data: {"id":"c","choices":[{"index":0,"delta":{"%b":"x"}}]}\n\n' % member

    told, thought = frame(b"content"), frame(b"reasoning_content")
    chunks = [told, told, told, thought[:20], thought[20:], told, told, told]
    assert read("chat", chunks) == parsed("chat", chunks)


@pytest.mark.parametrize("number", [b"0", b"007", b"-1", b"1.5", b"9" * 18, b"9" * 19, b"9" * 5000])
def test_a_number_is_one_of_json(number: bytes) -> None:
    """What is no number in JSON, or too long a one, is the parser's to refuse."""
    frames = [
        b'data: {"type":"response.output_text.delta","item_id":"m","output_index":0,'
        b'"content_index":0,"delta":"x","sequence_number":%b}\n\n' % value
        for value in (b"1", b"2", b"3", number, b"5")
    ]
    assert read("responses", frames) == parsed("responses", frames)


@pytest.mark.parametrize("asked_for", [True, False])
def test_obfuscation(asked_for: bool) -> None:
    """What a client did not ask for is not in the way; what it asked for arrives."""
    frames = [
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a%d"}}],"obfuscation":"%s"}\n\n'
        % (number, b"x" * (number % 7))
        for number in range(50)
    ]
    request = asked("chat", stream_options={"include_obfuscation": asked_for})
    counter = Counter()
    with mock.patch.object(jsontext, "loads", counter):
        events = read("chat", frames, request)
    assert events == parsed("chat", frames, request)
    assert (counter.count < 10) == (not asked_for)
    told = [event for event in events if "obfuscation" in str(getattr(event, "extra", None))]
    assert bool(told) == asked_for


def test_a_call_that_is_unwrapped_is_parsed() -> None:
    """The arguments of a custom tool's call are more than their words: each frame is parsed."""
    tools = [{"type": "custom", "name": "run"}]
    request = FORMATS["responses"].parse_request({"model": "m", "input": "x", "tools": tools})
    pieces = ['{"input": "', "a", "b", "b", "b", '"', "}"]
    frames = [
        {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "run", "arguments": ""},
        },
        *({"index": 0, "function": {"arguments": piece}} for piece in pieces),
    ]
    chunks = []
    for call in frames:
        chunk = {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
        chunks.append(f"data: {json.dumps(chunk)}\n\n".encode())
    events = read("chat", chunks, request)
    assert events == parsed("chat", chunks, request)
    assert "".join(event.text for event in events if isinstance(event, PartDelta)) == "abbb"


def test_an_oversized_frame_fails_as_ever() -> None:
    """A frame over the budget is an error, also if all but its text is known."""
    frames = frames_of(ChatReply(({"content": "abcabcabc"},)).stream())[:4]
    big = frames[-1].replace(b'"abc"', b'"' + b"x" * 5000 + b'"')
    limits = Limits(max_event_bytes=4000)
    events = read("chat", [*frames, big], None, limits)
    assert isinstance(events[-1], Failed)
    assert events[-1].error.code == "upstream_event_too_large"
    assert events == parsed("chat", [*frames, big], None, limits)


def test_choices_in_turns_give_up() -> None:
    """A stream whose frames never repeat each other in a row stops trying, and loses nothing."""
    data = ChatReply(({"content": "Heads. " * 40}, {"content": "Tails. " * 40})).stream()
    request = asked("chat", n=2)
    for chunks in ([data], frames_of(data)):
        events = read("chat", chunks, request)
        assert events == parsed("chat", chunks, request)
        assert isinstance(events[-1], Ended)


def test_a_part_that_is_not_known_is_not_repeated() -> None:
    """Of a delta that belongs to no item of the reply, no stencil is cut."""
    assert Board().part_of(PartDelta(0, 0, "x")) is None


def test_no_hole_no_stencil() -> None:
    """A text that stands in two members, or in none, cannot be told by its place."""
    repeat = Repeat(frozenset({b"content", b"reasoning"}), list[str]().append)

    def event(text: str) -> PartDelta:
        return PartDelta(0, 0, text)

    assert cut(b'data: {"content":"a","reasoning":"a"}\n\n', event("a"), repeat, 99) is None
    assert cut(b'data: {"content":"b"}\n\n', event("a"), repeat, 99) is None
    assert cut(b'data: {"other":"a"}\n\n', event("a"), repeat, 99) is None
    stencil = cut(b'data: {"content":"a"}\n\n', event("a"), repeat, 99)
    assert stencil is not None
    out: list[Event] = []
    data = b'data: {"content":"\\u00e9\\n"}\n\ndata: {"content":""}\n\n'
    assert stencil.read(data, 0, out) == len(data) - len(b'data: {"content":""}\n\n')
    assert out == [event("é\n")]
    assert not stencil.fits(b'data: {"content":"\xff"}\n\n', event("x"))


@pytest.mark.parametrize("odd", [b"", b"x\\ny", b"\\ud83d", b"\xff", b"\x01"])
@pytest.mark.parametrize("place", [3, 7, 30])
def test_an_odd_text_in_a_run(odd: bytes, place: int) -> None:
    """Many frames in one read, one of them empty, escaped or broken: read as the parser reads."""
    frames = frames_of(long("chat", "word! " * 20))
    pattern = rb'("content":\s*")[^"]*'
    frames[place] = re.sub(pattern, lambda found: found[1] + odd, frames[place])
    data = b"".join(frames)
    assert read("chat", [data]) == parsed("chat", [data])


@pytest.mark.parametrize("number", [b"-1", b"null", b'"7"', b""])
def test_a_number_that_is_none(number: bytes) -> None:
    """A frame that is like the last ones but for what its number is, is parsed."""
    frames = frames_of(long("responses", "word! " * 20))
    frames[9] = re.sub(rb'("sequence_number":\s*)\d+', rb"\g<1>" + number, frames[9])
    for chunks in ([b"".join(frames)], frames):
        assert read("responses", chunks) == parsed("responses", chunks)
