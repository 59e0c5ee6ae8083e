"""The law: what a reply costs grows with its bytes, and what is kept of it has a bound.

Rows 25 and 26. Time is compared with itself, never with a clock; memory is counted by tracemalloc.
Pieces are small on purpose: what a list of small pieces costs beside their bytes is easily missed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from nursling.engine.accumulate import Accumulator
from nursling.engine.errors import NurslingError, ReplyTooLarge
from nursling.engine.events import Failed
from nursling.engine.formats.base import Decoder
from nursling.engine.grammar import Grammar
from nursling.engine.limits import KIB, Limits
from support.formats import FORMATS, IDENTITY
from support.scripted import frame
from support.work import costs_per_byte, peak_of


BUDGET = 64 * KIB
SMALL = Limits(max_event_bytes=BUDGET, max_reply_bytes=BUDGET)
ROOMY = Limits(max_event_bytes=256 * BUDGET, max_reply_bytes=256 * BUDGET)
REQUESTS = {
    "chat": FORMATS["chat"].parse_request(
        {"model": "m", "messages": [{"role": "user", "content": "Hi."}], "stream": True}
    ),
    "responses": FORMATS["responses"].parse_request({"model": "m", "input": "Hi.", "stream": True}),
}


def decoder(api: str, limits: Limits) -> Decoder:
    return FORMATS[api].decoder(REQUESTS[api], limits)


# Memory.

ENDLESS: dict[str, tuple[bytes, bytes, str]] = {
    "a line, in large pieces": (b"data: ", b"x" * 8192, "upstream_event_too_large"),
    "a line, by two bytes": (b"data: ", b"xy", "upstream_event_too_large"),
    "a comment, by two bytes": (b": ", b"xy", "upstream_event_too_large"),
    "lines of one event": (b"event: e\n", b"data: ab\n", "upstream_event_too_large"),
    "empty lines of one event": (b"event: e\n", b"data\n", "upstream_event_too_large"),
    "a body, in large pieces": (b'{"a": "', b"x" * 8192, "upstream_reply_too_large"),
    "a body, by two bytes": (b'{"a": "', b"xy", "upstream_reply_too_large"),
}
"""What it begins with, what follows for ever, and how it fails."""


@pytest.mark.fault(25, "V")
@pytest.mark.parametrize("api", list(FORMATS))
@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_refused_at_its_budget(api: str, name: str) -> None:
    """No newline ever, one event of many lines, a body: twice the budget at the very most."""
    head, piece, code = ENDLESS[name]
    fed = 0

    def run() -> None:
        nonlocal fed
        reader = decoder(api, SMALL)
        events = reader.feed(head)
        while not events:
            events = reader.feed(bytes(bytearray(piece)))  # bytes of their own, as off a socket
            fed += len(piece)
        [last] = events
        assert isinstance(last, Failed)
        assert last.error.code == code

    assert peak_of(run) < 2 * BUDGET + 16 * KIB
    assert fed <= BUDGET + len(piece)


def _tiny(api: str, count: int) -> Iterator[bytes]:
    """A good reply of many events, none of which says anything that has to be kept."""
    if api == "chat":
        chunk = {"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": None}]}
        yield from [frame(json.dumps(chunk))] * count
        chunk["choices"] = [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]
        yield frame(json.dumps(chunk)) + frame("[DONE]")
    else:
        yield frame({"type": "response.created", "response": {"id": "r", "output": []}})
        yield from [frame({"type": "response.in_progress"})] * count
        yield frame({"type": "response.completed", "response": {"id": "r", "output": []}})


@pytest.mark.fault(26, "V")
@pytest.mark.parametrize("api", list(FORMATS))
def test_many_empty_events_leave_nothing_behind(api: str) -> None:
    """Memory is flat: ten times the events take no more of it."""

    def run(count: int) -> None:
        reader = decoder(api, SMALL)
        for chunk in _tiny(api, count):
            assert not any(isinstance(event, Failed) for event in reader.feed(chunk))

    run(10)  # caches
    few, many = peak_of(lambda: run(300)), peak_of(lambda: run(3000))
    assert many < few + 32 * KIB


@pytest.mark.fault(26, "V")
def test_a_text_in_tiny_pieces_is_kept_as_a_text() -> None:
    """A token kept as an object of its own takes some fifteen times its letters."""
    head, count = _open({"type": "message", "id": "i"}), 20_000

    def run() -> None:
        reader, grammar, fold = decoder("responses", ROOMY), Grammar(), Accumulator(1 << 20)
        fold.add(grammar.check(reader.feed(head)))
        for number in range(count):
            delta = f"{number % 1000:03}"
            chunk = _growing("response.output_text.delta", delta=delta)
            fold.add(grammar.check(reader.feed(chunk)))
        assert len(fold.reply.items[0].parts[0].pieces) < 600

    run()
    assert peak_of(run) < 5 * 3 * count


def _part(verb: str, number: int, **part: object) -> bytes:
    part["type"] = "output_text"
    return _growing(f"response.content_part.{verb}", content_index=number, part=part)


def _nameless(text: str, **more: object) -> bytes:
    return _chat({"tool_calls": [{"index": 0, "function": {"arguments": text}, **more}]})


KEPT: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "early events": ("responses", lambda _: frame({"type": "response.x", "a": [{}, {"b": ""}]})),
    "items": (
        "responses",
        lambda number: frame(
            {
                "type": "response.output_item.added",
                "output_index": number,
                "item": {"type": "message"},
            }
        ),
    ),
    "parts": ("responses", lambda number: _part("added", number)),
    "ends of empty parts": ("responses", lambda number: _part("done", number, x=[{}])),
    "a call without a name": ("chat", lambda _: _nameless("[1, 2, 3, 4, 5,")),
    "strangers of such a call": ("chat", lambda _: _nameless("", x=[{}, {}])),
}
"""The upstream's format, and what is kept of it, by its number."""


@pytest.mark.fault(26, "V")
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_counted_as_memory(name: str) -> None:
    """The budget is one of memory and not of letters: what is parsed takes some ten times more."""
    api, piece = KEPT[name]
    limits = Limits(max_event_bytes=BUDGET, max_reply_bytes=2 * BUDGET)

    def run() -> None:
        reader, grammar, fold = decoder(api, limits), Grammar(), Accumulator(2 * BUDGET)
        encoder = FORMATS[api].encoder(REQUESTS[api], IDENTITY)
        for number in itertools.count():
            events = grammar.check(reader.feed(piece(number)))
            if events and isinstance(events[-1], Failed):
                assert events[-1].error.code == ReplyTooLarge.code
                return
            try:
                fold.add(events)
            except ReplyTooLarge:
                return
            encoder.encode(events)

    run()
    assert peak_of(run) < 4 * BUDGET


# Time.


def _chat(delta: object) -> bytes:
    return frame({"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def _growing(kind: str, **more: object) -> bytes:
    return frame({"type": kind, "output_index": 0, "item_id": "i", **more})


def _open(item: dict[str, object]) -> bytes:
    begun = frame({"type": "response.created", "response": {"id": "r"}})
    return begun + frame({"type": "response.output_item.added", "output_index": 0, "item": item})


CALL: dict[str, object] = {"type": "function_call", "id": "i", "call_id": "c", "name": "f"}
MANY: dict[str, tuple[str, bytes, bytes]] = {
    "comments": ("chat", b"", b": beat\n\n"),
    "lines of one event": ("chat", b"", b"data: x\n"),
    "bytes of one line": ("chat", b"data: ", b"x"),
    "deltas of chat": ("chat", b"", _chat({"content": "x"})),
    "reasoning of chat": ("chat", b"", _chat({"reasoning_content": "x"})),
    "arguments in chat": (
        "chat",
        _chat({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}),
        _chat({"tool_calls": [{"index": 0, "function": {"arguments": "["}}]}),
    ),
    "strangers in chat": ("chat", b"", _chat({"content": "x", "x": 1})),
    "deltas of Responses": (
        "responses",
        _open({"type": "message", "id": "i"}),
        _growing("response.output_text.delta", delta="x"),
    ),
    "arguments in Responses": (
        "responses",
        _open(CALL),
        _growing("response.function_call_arguments.delta", delta="["),
    ),
    "a call without a name": (
        "responses",
        _open({**CALL, "name": ""}),
        _growing("response.function_call_arguments.delta", delta="["),
    ),
    "items": (
        "responses",
        frame({"type": "response.created", "response": {"id": "r"}}),
        frame({"type": "response.output_item.added", "item": {"type": "message"}}),
    ),
    "whole items": (
        "responses",
        frame({"type": "response.created", "response": {"id": "r"}}),
        frame({"type": "response.output_item.done", "item": {"type": "message", "content": "x"}}),
    ),
    "strangers of Responses": ("responses", b"", frame({"type": "response.x", "response": {}})),
    "annotations": (
        "responses",
        _open({"type": "message", "id": "i"}),
        _growing("response.output_text.annotation.added", annotation={"type": "x"}),
    ),
}
"""The upstream's format, how the reply begins, and what it says again and again."""
PIECES = 1000


@pytest.mark.fault(26, "V")
@pytest.mark.parametrize("client", list(FORMATS))
@pytest.mark.parametrize("name", MANY)
def test_time_grows_with_the_bytes(name: str, client: str) -> None:
    """Four times the pieces take some four times as long, from the wire to the other wire."""
    api, head, piece = MANY[name]

    def run(count: int) -> None:
        reader, grammar = decoder(api, ROOMY), Grammar()
        encoder = FORMATS[client].encoder(REQUESTS[client], IDENTITY)
        try:
            for chunk in (head, *[piece] * count):
                encoder.encode(grammar.check(reader.feed(chunk)))
            encoder.encode(grammar.check(reader.close()))
        except NurslingError:
            return  # most of these never end

    costs_per_byte(lambda scale: PIECES * scale, run)
