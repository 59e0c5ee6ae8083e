"""The law: a reply that both formats can say arrives as it was said, by whichever way it goes.

Row 32, and the table of combinations for replies that nobody has written down: content is drawn,
said as events in the normal form, and sent encode, bytes cut anywhere, decode, any number of times
over. What a chat client reads of it is then the same for every way: chat is the narrower format.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nursling.engine.accumulate import Accumulator, FinishedReply
from nursling.engine.events import (
    Annotated,
    Ended,
    Event,
    Finished,
    FinishReason,
    ItemEnded,
    ItemKind,
    ItemStarted,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from nursling.engine.grammar import Grammar
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import Request
from support.cuts import CUTS, cut_at
from support.formats import FORMATS, IDENTITY, stream_to, whole_to
from support.kinds import CITATION
from support.laws import check_chat_stream, check_responses_stream


WORDS = st.text(max_size=6) | st.sampled_from(
    ["", "\n\n", "\u2028", "\U0001f40e", "\ud83d", "data: "]
)


@dataclass
class Item:
    """One item: its parts in the pieces that they are said in."""

    kind: ItemKind
    parts: list[tuple[PartKind, list[str]]]
    sealed: str | None = None
    cited: bool = False
    with_logprobs: bool = False


def _items() -> st.SearchStrategy[Item]:
    pieces = st.lists(WORDS, max_size=4)

    def parts(*kinds: PartKind, least: int = 1, most: int = 2) -> Any:
        one = st.tuples(st.sampled_from(kinds), pieces)
        return st.lists(one, min_size=least, max_size=most)

    return st.one_of(
        st.builds(
            Item,
            st.just("message"),
            parts("text", "refusal"),
            cited=st.booleans(),
            with_logprobs=st.booleans(),
        ),
        st.builds(
            Item,
            st.just("reasoning"),
            parts("thought", "summary", least=0),
            st.none() | st.just("c2VhbGVk"),
        ),
        st.builds(Item, st.just("tool_call"), parts("arguments", "input", most=1)),
    )


@dataclass
class Reply:
    items: list[Item]
    reason: FinishReason
    usage: Usage | None
    turns: list[int]
    """Whose turn it is to say its next piece: calls grow interleaved."""


COUNTS = st.none() | st.integers(0, 1 << 40)
REPLIES = st.builds(
    Reply,
    st.lists(_items(), max_size=4),
    st.sampled_from(["stop", "length", "content_filter"]),
    st.none() | st.builds(Usage, input_tokens=COUNTS, output_tokens=COUNTS, cached_tokens=COUNTS),
    st.lists(st.integers(0, 3), max_size=20),
)


def events_of(reply: Reply) -> list[Event]:
    """The reply in the normal form. Calls grow in turns; chat has one text for everything else."""
    events: list[Event] = [Started("", "m", 7)]
    calls: list[list[Event]] = []
    for number, item in enumerate(reply.items):
        line = _line(number, item)
        if item.kind == "tool_call":
            events += line[:2]
            calls.append(line[2:])
        else:
            events += line
    for turn in reply.turns:
        if calls and calls[turn % len(calls)]:
            events.append(calls[turn % len(calls)].pop(0))
    events += itertools.chain.from_iterable(calls)
    if reply.usage is not None:
        events.append(UsageReported(reply.usage))
    return Grammar().check([*events, Finished(0, reply.reason), Ended()])


def _line(number: int, item: Item) -> list[Event]:
    name = "get_weather" if item.kind == "tool_call" else ""
    line: list[Event] = [ItemStarted(number, item.kind, 0, f"call_{number}" if name else "", name)]
    for part, (kind, pieces) in enumerate(item.parts):
        line.append(PartStarted(number, part, kind))
        for piece in pieces:
            text = piece.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            entry = {
                "token": text,
                "logprob": -0.5,
                "bytes": list(text.encode()),
                "top_logprobs": [],
            }
            with_entry = item.with_logprobs and kind == "text" and text
            line.append(PartDelta(number, part, text, [entry] if with_entry else None))
        if item.cited and kind == "text":
            line.append(Annotated(number, part, "citation", dict(CITATION)))
        line.append(PartEnded(number, part))
    return [*line, ItemEnded(number, sealed=item.sealed)]


def request_of(client: str) -> Request:
    """A request of each API that gets everything."""
    if client == "chat":
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi."}]}
        asked["stream_options"] = {"include_usage": True}
    else:
        asked = {"input": "Hi."}
    return FORMATS[client].parse_request({"model": "m", "stream": True, **asked})


REQUESTS = {client: request_of(client) for client in FORMATS}


def sent(events: list[Event], way: str, cuts: list[int]) -> list[Event]:
    """What a gateway reads of these events, streamed in this format by another gateway."""
    data = stream_to(way, REQUESTS[way], [events])
    if way == "chat":
        check_chat_stream(data, usage=None)
    else:
        check_responses_stream(data, status=None)
    decoder = FORMATS[way].decoder(REQUESTS[way], DEFAULT_LIMITS)
    read = [event for chunk in cut_at(data, cuts) for event in decoder.feed(chunk)]
    return Grammar().check(read + decoder.close())


def fold(events: list[Event]) -> FinishedReply:
    accumulator = Accumulator(1 << 25)
    accumulator.add(events)
    assert accumulator.reply.complete
    return accumulator.reply


def in_chat(events: list[Event]) -> dict[str, Any]:
    """What a chat client has in the end, without what is not content."""
    body = FORMATS["chat"].render_reply(fold(events), REQUESTS["chat"], IDENTITY)
    [choice] = body["choices"]
    message = choice["message"]
    for call in message.get("tool_calls") or ():
        call.pop("index", None)
    for detail in message.get("reasoning_details") or ():
        detail.pop("id", None)  # ids of ours are made anew by each gateway
        detail.pop("index", None)
    if thought := message.get("reasoning_content"):
        # Where one reasoning ends chat has a blank line only: each gateway on the way adds its own.
        message["reasoning_content"] = re.sub(r"\n{2,}", "\n\n", thought).strip("\n")
    said = {key: value for key, value in message.items() if value not in (None, "", [])}
    usage = {key: value for key, value in (body.get("usage") or {}).items() if value}
    usage.pop("completion_tokens_details", None)
    if not any((usage.get("prompt_tokens_details") or {"": 0}).values()):
        usage.pop("prompt_tokens_details", None)
    return {
        "message": said,
        "finish": choice["finish_reason"],
        "logprobs": choice.get("logprobs"),
        "usage": usage,
    }


WAYS = [way for size in (1, 2, 3) for way in itertools.product(FORMATS, repeat=size)]


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@settings(max_examples=30)
@given(REPLIES, CUTS)
def test_a_chat_client_reads_the_same_by_every_way(
    way: tuple[str, ...], reply: Reply, cuts: list[int]
) -> None:
    """Through one, two or three gateways, whatever they speak with each other."""
    events = events_of(reply)
    expected = in_chat(events)
    for form in way:
        events = sent(events, form, cuts)
    assert in_chat(events) == expected


def _said(events: list[Event]) -> list[Any]:
    """Everything of the items that a Responses client can tell apart."""
    return [
        (item.kind, item.name, item.sealed)
        + ((item.id,) if item.kind == "tool_call" else ())
        + tuple((part.kind, part.text, part.citations) for part in item.parts.values())
        for item in fold(events).items.values()
    ]


@settings(max_examples=150)
@given(REPLIES, CUTS)
def test_responses_says_the_whole_normal_form(reply: Reply, cuts: list[int]) -> None:
    """Items, parts, texts, citations, seals and calls are what they were, one by one."""
    events = events_of(reply)
    assert _said(sent(events, "responses", cuts)) == _said(events)


@pytest.mark.parametrize("way", list(FORMATS))
@settings(max_examples=150)
@given(REPLIES)
def test_streamed_or_whole_a_reply_is_the_same(way: str, reply: Reply) -> None:
    """A whole answer, decoded, says what its stream says."""
    events = events_of(reply)
    body = whole_to(way, REQUESTS[way], [events])
    decoder = FORMATS[way].decoder(REQUESTS[way], DEFAULT_LIMITS)
    read = Grammar().check(decoder.feed(body) + decoder.close())
    assert in_chat(read) == in_chat(sent(events, way, []))
