"""The hot code in pieces: what `decode` measures, and what each optimised piece is held against.

The law of this file: a case is a pass over one whole stream by fresh objects, and says how many
events it has handled. A *guard* is a pair of cases that do the same work, the optimised way and
the plain one: where the two cost the same, the optimisation is broken, or of no use any more.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from nursling.engine import CHAT, RESPONSES, Event, Format, Identity, PartDelta, Request
from nursling.engine.accumulate import Accumulator, Pieces
from nursling.engine.grammar import Grammar
from nursling.engine.jsontext import MAX_DEPTH, depth_exceeds, dumps, loads
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.sse import SSEDecoder, encode_frame

from . import script
from .load import LOGPROBS, request_body
from .plan import Api, Dress, Plan


EVENTS = 512
FORMATS: dict[Api, Format] = {"chat": CHAT, "responses": RESPONSES}
DRESSES: tuple[Dress, ...] = ("plain", "openai", "logprobs")
IDENTITY = Identity("0" * 32, script.CREATED)

Pass = Callable[[], int]
"""Handles one stream; returns how many events it had."""


class Case(NamedTuple):
    """A piece of code to be measured."""

    name: str
    make: Callable[[int], Pass]
    """Events per read -> a pass. What it needs is prepared here, and not measured."""


class Guard(NamedTuple):
    """An optimised piece of code, and the plain one in its place."""

    name: str
    fast: Case
    plain: Case
    least: float
    """How many times cheaper it must be, on any machine and beside any noise."""


def cases() -> list[Case]:
    """All of them, in the order in which an event meets them."""
    found = [Case("SSE frames", _frames)]
    found += [_decoding(api, dress) for api in FORMATS for dress in DRESSES]
    found += [Case("JSON of a chunk, guarded", _guarded)]
    found += [Case("grammar", _grammar), Case("fold", _fold)]
    found += [_encoding(api) for api in FORMATS]
    found += [_path(client, upstream) for client in FORMATS for upstream in FORMATS]
    return found


def guards() -> list[Guard]:
    """One for each optimised path of the engine."""
    return [
        Guard("stencil, chat", _decoding("chat", "openai"), _parsing("chat"), 1.3),
        Guard("stencil, responses", _decoding("responses", "openai"), _parsing("responses"), 1.3),
        Guard("template, chat", _encoding("chat"), Case("whole chunks, chat", _chunks), 1.1),
        Guard("template, responses", _encoding("responses"), _untemplated(), 1.1),
        Guard(
            "depth by counting",
            Case("JSON of a chunk, guarded", _guarded),
            Case("JSON of a chunk, walked", _walked),
            1.1,
        ),
    ]


class Kept(NamedTuple):
    """What a growing text needs, in bytes per piece of it."""

    pieces: float
    """As `Pieces`."""
    plain: float
    """As a list."""


def kept() -> Kept:
    """Measure the guard of `Pieces`, which saves memory and no time."""
    pieces, plain = Pieces(), list[str]()
    for number in range(EVENTS * 8):
        text = f"{number % 7919:04d}"
        pieces.add(text)
        plain.append(f"{number % 7919:04d}")

    def size(texts: Sequence[str]) -> float:
        return (sys.getsizeof(texts) + sum(map(sys.getsizeof, texts))) / len(plain)

    return Kept(size(pieces), size(plain))


# What is handled.


def _request(api: Api, dress: Dress) -> Request:
    body = request_body(api, Plan(api, EVENTS).model)
    return FORMATS[api].parse_request(body | (LOGPROBS[api] if dress == "logprobs" else {}))


def _stream(api: Api, dress: Dress = "plain") -> list[bytes]:
    """The server-sent events of one reply."""
    before, deltas, after = script.events(Plan(api, EVENTS, dress=dress), usage=True)
    return [*before, *deltas, *after]


def _in_reads(frames: Sequence[bytes], per_read: int) -> list[bytes]:
    return [b"".join(frames[at : at + per_read]) for at in range(0, len(frames), per_read)]


def _batches(api: Api, per_read: int) -> list[list[Event]]:
    """The events of one reply, as the grammar lets them through."""
    decoder, grammar = FORMATS[api].decoder(_request(api, "plain"), DEFAULT_LIMITS), Grammar()
    return [grammar.check(decoder.feed(data)) for data in _in_reads(_stream(api), per_read)]


# Reading.


def _frames(per_read: int) -> Pass:
    reads = _in_reads(_stream("chat"), per_read)

    def once() -> int:
        decoder = SSEDecoder(DEFAULT_LIMITS.max_event_bytes)
        return sum(len(decoder.feed(data)) for data in reads)

    return once


def _decoding(api: Api, dress: Dress) -> Case:
    return Case(
        f"decode {api}, {dress}",
        lambda per_read: _reading(api, dress, _stream(api, dress), per_read),
    )


def _parsing(api: Api) -> Case:
    """The same frames, each in another shape than the one before: no stencil ever fits."""

    def make(per_read: int) -> Pass:
        spaces = itertools.cycle((b"data: {", b"data: { "))
        shaped = [one.replace(b"data: {", next(spaces), 1) for one in _stream(api, "openai")]
        return _reading(api, "openai", shaped, per_read)

    return Case(f"decode {api}, openai, parsed", make)


def _reading(api: Api, dress: Dress, frames: list[bytes], per_read: int) -> Pass:
    reads, request, format_ = _in_reads(frames, per_read), _request(api, dress), FORMATS[api]

    def once() -> int:
        decoder = format_.decoder(request, DEFAULT_LIMITS)
        for data in reads:
            decoder.feed(data)
        return EVENTS

    return once


def _texts() -> list[bytes]:
    return [one.removeprefix(b"data: ").strip() for one in _stream("chat", "openai")[:-1]]


def _guarded(per_read: int) -> Pass:
    del per_read
    texts = _texts()

    def once() -> int:
        for text in texts:
            loads(text)
        return len(texts)

    return once


def _walked(per_read: int) -> Pass:
    del per_read
    texts, decode = _texts(), msgspec.json.Decoder().decode

    def once() -> int:
        for text in texts:
            depth_exceeds(decode(text), MAX_DEPTH)
        return len(texts)

    return once


# In between.


def _grammar(per_read: int) -> Pass:
    batches = _batches("chat", per_read)

    def once() -> int:
        grammar = Grammar()
        for batch in batches:
            grammar.check(batch)
        return EVENTS

    return once


def _fold(per_read: int) -> Pass:
    batches = _batches("chat", per_read)

    def once() -> int:
        fold = Accumulator(DEFAULT_LIMITS.max_reply_bytes)
        for batch in batches:
            fold.add(batch)
        return EVENTS

    return once


# Writing.


def _encoding(api: Api) -> Case:
    def make(per_read: int) -> Pass:
        batches, request = _batches("chat", per_read), _request(api, "plain")

        def once() -> int:
            encoder = FORMATS[api].encoder(request, IDENTITY)
            for batch in batches:
                encoder.encode(batch)
            return EVENTS

        return once

    return Case(f"encode {api}", make)


def _deltas(per_read: int) -> list[list[PartDelta]]:
    batches = _batches("chat", per_read)
    return [[one for one in batch if type(one) is PartDelta] for batch in batches]


def _chunks(per_read: int) -> Pass:
    """Chunks without a template: each one is made, and written, whole."""
    batches = _deltas(per_read)
    head = {
        "id": script.CHAT_ID,
        "object": "chat.completion.chunk",
        "created": script.CREATED,
        "model": Plan("chat", EVENTS).model,
    }

    def chunk(event: PartDelta) -> bytes:
        choice = {"index": 0, "delta": {"content": event.text}, "finish_reason": None}
        return encode_frame(dumps({**head, "choices": [choice], "usage": None}))

    def once() -> int:
        for batch in batches:
            b"".join([chunk(event) for event in batch])
        return EVENTS

    return once


def _untemplated() -> Case:
    """The same encoder, without its template: that is not for events with an extra, even none."""

    def make(per_read: int) -> Pass:
        request = _request("responses", "plain")
        batches = [
            [_with_extra(one) if type(one) is PartDelta else one for one in batch]
            for batch in _batches("chat", per_read)
        ]

        def once() -> int:
            encoder = RESPONSES.encoder(request, IDENTITY)
            for batch in batches:
                encoder.encode(batch)
            return EVENTS

        return once

    return Case("encode responses, whole events", make)


def _with_extra(event: PartDelta) -> PartDelta:
    return msgspec.structs.replace(event, extra={})


# All of it.


def _path(client: Api, upstream: Api) -> Case:
    """From the bytes of the upstream to those of the client, as the pipeline goes."""

    def make(per_read: int) -> Pass:
        reads = _in_reads(_stream(upstream, "openai"), per_read)
        request = _request(client, "plain")

        def once() -> int:
            decoder = FORMATS[upstream].decoder(request, DEFAULT_LIMITS)
            encoder = FORMATS[client].encoder(request, IDENTITY)
            grammar, fold = Grammar(), Accumulator(DEFAULT_LIMITS.max_reply_bytes)
            for data in reads:
                events = grammar.check(decoder.feed(data))
                fold.add(events)
                encoder.encode(events)
            return EVENTS

        return once

    return Case(f"all, {client} from {upstream}", make)
