"""What a seed means: the whole plan of a world, drawn before it begins.

A `Deal` holds limits, clients and what the upstreams will answer. Delays are multiples of 0.1 s, so
that things coincide, which is where the bugs are. A request carries its tag in its words; by it the
upstream finds the script of its reply, and every token of that reply carries the tag.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from nursling.engine.limits import KIB, Limits
from support.scripted import APIS, Api, ChatReply, Json, ResponsesReply

from .content import Content, Reader


T = TypeVar("T")

Upset = Literal[
    "",  # nothing goes wrong
    "refused",  # no connection
    "hang",  # a connection that never comes about
    "status",  # an error answer
    "silent",  # a connection, and not a byte
    "fin",
    "reset",
    "stall",
    "garbage",
    "no end",  # the HTTP body ends well, the reply in it does not
    "error",  # an error object inside the stream
    "giant",  # one event over the byte budget
]
"""What an upstream does wrong."""

UPSETS: dict[Upset, int] = {
    "": 24,
    "refused": 1,
    "hang": 1,
    "status": 2,
    "silent": 2,
    "fin": 4,
    "reset": 3,
    "stall": 5,
    "garbage": 3,
    "no end": 3,
    "error": 2,
    "giant": 1,
}

Manner = Literal[
    "patient",
    "slow",
    "stuck",  # stops reading, and leaves long after
    "leaves",  # closes at some moment
    "aborts",  # resets at some moment
    "half-closes",  # behind its request
    "junk",  # pipelines bytes that are no request, then leaves
    "slow head",  # never ends its head
    "slow body",  # never ends its body
    "garbage",  # sends no HTTP
]
"""How a client behaves."""

MANNERS: dict[Manner, int] = {
    "patient": 24,
    "slow": 4,
    "stuck": 3,
    "leaves": 6,
    "aborts": 3,
    "half-closes": 1,
    "junk": 1,
    "slow head": 1,
    "slow body": 1,
    "garbage": 1,
}

LONG = 300_000
"""Characters of a long reply."""

TOOLS = ("look_up", "get_weather")


@dataclass
class Script:
    """How an upstream answers one request."""

    api: Api
    frames: list[bytes]
    """Of the stream, its end among them."""
    contents: list[Content]
    """What has been said when so many frames are out."""
    whole: bytes
    burst: int
    """Frames that are written at once."""
    waits: list[float]
    """Before each burst; in turns."""
    upset: Upset
    place: float
    """How far into the reply it goes wrong, 0 to 1."""
    status: tuple[int, bytes, dict[str, str]]
    """For the upset `status`: code, body and headers."""
    framing: Literal["chunked", "length", "close"]
    other_way: bool
    """Streams what was asked whole, and the reverse."""
    keep_alive: bool
    shuts_after: float | None = None
    """Seconds after which it closes a connection that nobody uses, having said nothing of it."""

    @property
    def long(self) -> bool:
        """Whether the reply is much more than all buffers on its way."""
        return len(self.whole) > LONG // 2

    @property
    def final(self) -> Content:
        """All that it would say."""
        return self.contents[-1]


@dataclass
class Ask:
    """One request, and its fate."""

    tag: str
    api: Api
    model: str
    stream: bool
    script: Script
    manner: Manner
    wait: float
    """Before it is sent."""
    leave_after: float
    """Seconds, for those who leave; when it has been sent."""
    stuck_after: int
    """Bytes of the answer, for those who stop reading."""
    says_close: bool
    """Whether it says `connection: close`."""

    def body(self) -> Json:
        """What the client sends."""
        words = f"Please answer. <<{self.tag}>>"
        body: Json = {"model": self.model, "stream": self.stream}
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
        if self.api == "responses":
            tools: list[Json] = [
                {"type": "function", "name": name, "parameters": parameters, "strict": True}
                for name in TOOLS
            ]
            return {**body, "input": words, "tools": tools}
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        tools = [
            {"type": "function", "function": {"name": name, "parameters": parameters}}
            for name in TOOLS
        ]
        return {**body, "messages": [{"role": "user", "content": words}], "tools": tools}


@dataclass
class Guest:
    """One client: a connection, and the requests on it, one after the other."""

    number: int
    start: float
    latency: float
    capacity: int
    slice: int
    """Bytes that it writes, or reads, at once."""
    pause: float
    """Before each read, if it is slow: it takes 16 KiB in a patience of the server's."""
    asks: list[Ask] = field(default_factory=list)


@dataclass
class Deal:
    """A world, before it begins."""

    seed: int
    limits: Limits
    caps: dict[Api, int]
    """`max_streams` of the providers."""
    capacity: int
    """Of the connections to the upstreams."""
    latency: float
    guests: list[Guest]
    stop_at: float | None
    """When the server is told to stop, if before the last client has left."""
    proxied: bool = False
    """Whether the way to the upstreams leads through proxies."""

    @property
    def asks(self) -> list[Ask]:
        return [ask for guest in self.guests for ask in guest.asks]


def ticks(rng: random.Random, least: float, most: float) -> float:
    """Draw a time, in tenths of a second."""
    return rng.randint(round(least * 10), round(most * 10)) / 10


def deal(seed: int) -> Deal:
    """Draw a world."""
    rng = random.Random(seed)  # noqa: S311 - the same for a seed, and no secret
    crowd = rng.random() < 0.3
    limits = Limits(
        max_streams=rng.choice((2, 3)) if crowd else 1000,
        max_connections=rng.choice((3, 4096, 4096, 4096)),
        max_idle=rng.choice((1, 256)),
    )
    capped = rng.random() < 0.25
    world = Deal(
        seed=seed,
        limits=limits,
        caps={
            "chat": rng.choice((1, 2)) if capped else 0,
            "responses": rng.choice((1, 2)) if capped else 0,
        },
        capacity=rng.choice((512, 4 * KIB, 16 * KIB)),
        latency=rng.choice((0.0, 0.0, 0.1)),
        guests=[],
        stop_at=ticks(rng, 0, 60) if rng.random() < 0.12 else None,
    )
    for number in range(rng.randint(4, 6) if crowd else rng.randint(1, 4)):
        guest = Guest(
            number=number,
            start=ticks(rng, 0, rng.choice((0, 0.3, 2))),
            latency=rng.choice((0.0, 0.0, 0.1, 0.3)),
            capacity=rng.choice((256, 2 * KIB, 16 * KIB)),
            slice=rng.choice((7, 100, 1400, 65536)),
            pause=rng.choice((0.1, 0.5, 1.0)),
        )
        for turn in range(rng.choice((1, 1, 1, 2, 3))):
            ask = draw_ask(rng, f"s{seed}g{number}t{turn}")
            guest.asks.append(ask)
            if ask.manner != "patient":
                break  # that was its last request
        world.guests.append(guest)
        if any(ask.manner == "slow" for ask in guest.asks):
            guest.capacity = max(guest.capacity, 2 * KIB)
        if any(ask.script.long for ask in guest.asks):  # else it takes for ever, also for us
            guest.capacity, guest.slice = max(guest.capacity, 2 * KIB), max(guest.slice, 1400)
            world.capacity = max(world.capacity, 4 * KIB)
    _draw_more(random.Random(f"more {seed}"), world)  # noqa: S311 - as above
    return world


def _draw_more(rng: random.Random, world: Deal) -> None:
    """Draw what was thought of later: apart, so that the worlds of before are the same else."""
    world.proxied = rng.random() < 0.15
    shutting = rng.random() < 0.3
    for ask in world.asks:
        if shutting:
            ask.script.shuts_after = rng.choice((0.0, 0.0, 0.1, 0.1, 0.2, 0.5, 1.0))


def draw_ask(rng: random.Random, tag: str) -> Ask:
    """Draw a request, and what its upstream will answer."""
    manner = _choose(rng, MANNERS)
    api, upstream = (rng.choice(APIS) for _ in range(2))
    stream = rng.random() < 0.75
    script = _script(rng, upstream, tag, long=manner in {"stuck", "slow"})
    model: str = upstream
    if script.upset in {"refused", "hang"}:
        model = f"{upstream}-{script.upset}"
    elif rng.random() < 0.15:
        model = f"{upstream}-fold"
    return Ask(
        tag=tag,
        api=api,
        model=model,
        stream=stream,
        script=script,
        manner=manner,
        wait=ticks(rng, 0, rng.choice((0, 0, 1, 3))),
        leave_after=ticks(rng, 0, rng.choice((0, 0.5, 5, 30, 130))),
        stuck_after=rng.choice((0, 1, 500, 5000)),
        says_close=rng.random() < 0.1,
    )


def _script(rng: random.Random, api: Api, tag: str, *, long: bool) -> Script:
    reply = _reply(rng, api, tag, size=rng.choice((40, LONG)) if long else None)
    frames = [frame + b"\n\n" for frame in reply.stream().split(b"\n\n") if frame]
    return Script(
        api=api,
        frames=frames,
        contents=progress(api, frames),
        whole=reply.whole(),
        burst=rng.choice((1, 1, 3, 20)),
        waits=[
            ticks(rng, 0, rng.choice((0, 0, 0.2, 1))),
            *([ticks(rng, 0, 100)] if rng.random() < 0.1 else []),
        ],
        upset=_choose(rng, UPSETS),
        place=rng.choice((0.0, 1.0, rng.random(), rng.random(), rng.random())),
        status=rng.choice(REFUSALS),
        framing=rng.choice(("chunked", "chunked", "length", "close")),
        other_way=rng.random() < 0.05,
        keep_alive=rng.random() < 0.8,
    )


REFUSALS: tuple[tuple[int, bytes, dict[str, str]], ...] = (
    (429, b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}', {"retry-after": "7"}),
    (401, b'{"error":{"message":"who are you","code":"invalid_api_key"}}', {}),
    (500, b"<html><h1>Internal Server Error</h1></html>", {"content-type": "text/html"}),
    (503, b"", {}),
    (400, b'{"error":"no such thing"}', {}),
)


def _reply(
    rng: random.Random, api: Api, tag: str, *, size: int | None
) -> ChatReply | ResponsesReply:
    kind = rng.choice(("text", "text", "text", "thought", "tool", "both", "empty", "length"))
    count = rng.randint(1, 6) if size is None else 3
    text = " ".join(f"[{tag}:{number}]" for number in range(count))
    if size is not None:
        kind, text = "text", text + "x" * size
    thought = f"({tag} thinks)" if kind == "thought" else ""
    calls = [
        (f"call_{tag}_{number}", rng.choice(TOOLS), f'{{"of": "{tag}", "n": {number}}}')
        for number in range(rng.randint(1, 2) if kind in {"tool", "both"} else 0)
    ]
    if kind in {"tool", "empty"}:
        text = ""
    finish = "length" if kind == "length" else "tool_calls" if calls else "stop"
    make = _chat_reply if api == "chat" else _responses_reply
    return make(text, thought, calls, finish, interleaved=rng.random() < 0.5)


Calls = list[tuple[str, str, str]]


def _chat_reply(
    text: str, thought: str, calls: Calls, finish: str, *, interleaved: bool
) -> ChatReply:
    message: Json = {"content": text}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id_, name, arguments in calls
        ]
    return ChatReply((message,), finish=finish, interleaved=interleaved, piece=_piece(text))


def _responses_reply(
    text: str, thought: str, calls: Calls, finish: str, *, interleaved: bool
) -> ResponsesReply:
    length = finish == "length"
    output: list[dict[str, Any]] = []
    if thought:
        thinking = [{"type": "reasoning_text", "text": thought}]
        output.append({"type": "reasoning", "id": "rs_up", "summary": [], "content": thinking})
    if text or not calls:
        part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        output.append(
            {
                "type": "message",
                "id": "msg_up",
                "role": "assistant",
                "status": "incomplete" if length else "completed",
                "content": [part],
            }
        )
    output += [
        {
            "type": "function_call",
            "id": f"fc_{id_}",
            "call_id": id_,
            "name": name,
            "arguments": arguments,
            "status": "completed",
        }
        for id_, name, arguments in calls
    ]
    return ResponsesReply(
        tuple(output),
        status="incomplete" if length else "completed",
        reason="max_output_tokens" if length else None,
        interleaved=interleaved,
        piece=_piece(text),
    )


def _piece(text: str) -> int:
    return 8000 if len(text) > 1000 else 3


def progress(api: Api, frames: list[bytes]) -> list[Content]:
    reader = Reader(api)
    contents = [reader.content.copy()]
    for frame in frames:
        reader.stream(frame)
        contents.append(reader.content.copy())
    return contents


def _choose(rng: random.Random, weights: dict[T, int]) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]
