"""What the tests of the chat format share: making wire, reading it, and the fold of it."""

from __future__ import annotations

import json
from typing import Any

from nursling.engine.accumulate import Accumulator, FinishedReply
from nursling.engine.events import Event
from nursling.engine.formats.base import Identity
from nursling.engine.formats.chat import CHAT
from nursling.engine.grammar import Grammar
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import Request


Json = dict[str, Any]
IDENTITY = Identity("0123456789abcdef0123456789abcdef", 1700000000)
HEAD: Json = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 7, "model": "up"}
DONE = b"data: [DONE]\n\n"
USER: Json = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def ask(**fields: Any) -> Request:
    """A chat client's request."""
    return CHAT.parse_request({**USER, **fields})


def program(**fields: Any) -> Request:
    """A request of another format, or of none."""
    said: Json = {"model": "m", "items": [], "format": "responses", **fields}
    return Request(**said)


def frame(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(delta: Any = None, *, finish: Any = None, index: int = 0, **members: Any) -> bytes:
    """One chunk of one choice. `members` are of the chunk; those named `c_...` of the choice."""
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish}
    choice |= {name[2:]: value for name, value in members.items() if name.startswith("c_")}
    rest = {name: value for name, value in members.items() if not name.startswith("c_")}
    return frame({**HEAD, "choices": [choice], **rest})


def stream(*parts: bytes | Json, finish: str | None = "stop", done: bool = True) -> bytes:
    """A stream of choice 0: deltas as objects, or whole frames as bytes."""
    made = [part if isinstance(part, bytes) else chunk(part) for part in parts]
    made += [chunk({}, finish=finish)] if finish else []
    return b"".join(made) + (DONE if done else b"")


def whole(message: Json, *, finish: Any = "stop", **members: Any) -> bytes:
    body = {**HEAD, "object": "chat.completion", **members}
    body["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    return json.dumps(body).encode()


def decode(data: bytes, request: Request | None = None, cuts: tuple[int, ...] = ()) -> list[Event]:
    """What the decoder makes of bytes that come in the pieces that `cuts` says."""
    decoder = CHAT.decoder(request or ask(), DEFAULT_LIMITS)
    events: list[Event] = []
    for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        events += decoder.feed(data[start:end])
    return events + decoder.close()


def legal(events: list[Event]) -> list[Event]:
    return Grammar().check(events)


def fold(events: list[Event]) -> FinishedReply:
    accumulator = Accumulator(1 << 25)
    accumulator.add(events)
    return accumulator.reply


def read(data: bytes, request: Request | None = None) -> FinishedReply:
    """The fold of the legal events of some bytes."""
    return fold(legal(decode(data, request)))


def encode(events: list[Event], request: Request | None = None) -> bytes:
    """The stream of events, encoded one by one; that must not differ from all at once."""
    request = request or ask()
    encoder = CHAT.encoder(request, IDENTITY)
    data = b"".join(encoder.encode([event]) for event in events)
    assert data == CHAT.encoder(request, IDENTITY).encode(events)
    return data


def payloads(data: bytes) -> list[Json]:
    """The JSON of every frame but `[DONE]`."""
    texts = [text.removeprefix("data: ") for text in data.decode().split("\n\n") if text]
    return [json.loads(text) for text in texts if text != "[DONE]" and not text.startswith(":")]


def deltas(data: bytes, index: int = 0) -> list[Json]:
    """The deltas of one choice that say something beyond its role."""
    found = [
        choice["delta"]
        for one in payloads(data)
        for choice in one["choices"]
        if choice["index"] == index
    ]
    return [delta for delta in found if delta and "role" not in delta]
