"""One kind of content through one combination of APIs, from the client's request to its bytes.

`carry` gives the verdict of one cell of README's table, and raises `AssertionError` if what
arrives is not what was said.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any, Literal

from nursling.engine.errors import BadRequest, NotSupported
from nursling.engine.formats.base import Call
from nursling.engine.limits import DEFAULT_LIMITS

from . import reading
from .formats import FORMATS, stream_to, through, whole_to
from .kinds import Kind, Said
from .schemas import check_chat_request, check_responses_request
from .scripted import MODEL, Api, ChatReply, Json, ResponsesReply


Verdict = Literal["whole", "rest", "refused", "unsayable", "unaskable"]


def request_body(kind: Kind, client: Api, *, stream: bool) -> Json:
    """What the client asks to get this kind of content."""
    body: Json = {"model": "m", "stream": stream, **kind.asks.get(client, {})}
    if client == "responses":
        return {**body, "input": "Hello."}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return {**body, "messages": [{"role": "user", "content": "Hello."}]}


def cut(data: bytes, seed: object) -> list[bytes]:
    """The bytes in chunks of 1 to 40: the same for the same seed."""
    rng = random.Random(repr(seed))  # noqa: S311 - the same for a seed, and no secret
    chunks: list[bytes] = []
    at = 0
    while at < len(data):
        size = rng.randint(1, 40)
        chunks.append(data[at : at + size])
        at += size
    return chunks


def carry(kind: Kind, client: Api, upstream: Api, *, stream: bool) -> Verdict:
    """Carry a reply with this content from the upstream to the client."""
    if client in kind.not_asked:
        return "unaskable"
    reader, writer = FORMATS[client], FORMATS[upstream]
    request = reader.parse_request(request_body(kind, client, stream=stream))
    try:
        rendered = writer.render_request(request, Call(model=MODEL, stream=stream))
    except (BadRequest, NotSupported):
        return "refused"
    check = check_chat_request if upstream == "chat" else check_responses_request
    check(json.loads(json.dumps(rendered.body)))
    reply = kind.upstream(upstream, client)
    if reply is None:
        return "unsayable"
    data = reply.stream() if stream else reply.whole()
    chunks = cut(data, (kind.name, client, upstream, stream))
    batches = through(writer.decoder(request, DEFAULT_LIMITS), chunks)
    got = (stream_to if stream else whole_to)(client, request, batches)
    arrived, final = _read(client, got, kind, stream=stream)
    expected = kind.expected(upstream, client)
    assert _visible(arrived) == _visible(expected)
    if client == upstream:
        _same_format_loses_nothing(reply, final)
        return "whole"
    return "rest" if kind.only_same else "whole"


def _read(client: Api, got: bytes, kind: Kind, *, stream: bool) -> tuple[Said, Json]:
    if client == "responses":
        return reading.responses_stream(got) if stream else reading.responses_whole(got)
    read = reading.chat_stream if stream else reading.chat_whole
    choices, final = read(got, n=kind.choices)
    return choices[0], final


def _visible(said: Said) -> Said:
    """Without empty texts: whether nothing said is an empty message or none is the API's matter."""
    return replace(said, texts=tuple(text for text in said.texts if text))


def _same_format_loses_nothing(reply: ChatReply | ResponsesReply, final: Json) -> None:
    """Every field that the upstream sent, known to us or not, is in the client's final object."""
    sent = json.loads(reply.whole())
    if isinstance(reply, ChatReply):
        for choice in sent["choices"]:
            content = choice["message"].get("content")
            if isinstance(content, list):  # a list of parts is no valid content of an assistant
                choice["message"]["content"] = "".join(part["text"] for part in content)
        sent.pop("object")  # the SDK's fold of a stream keeps the chunk's
    missing = list(lost(sent, final))
    assert not missing, missing


def lost(sent: Any, got: Any, path: str = "$") -> list[str]:
    """The paths of what was sent and did not arrive. Nulls, and empty text, say nothing."""
    if sent is None or (sent == "" and not got):
        return []
    if isinstance(sent, dict) and isinstance(got, dict):
        return [
            gone
            for name, value in sent.items()
            for gone in lost(value, got.get(name), f"{path}.{name}")
        ]
    if isinstance(sent, list) and isinstance(got, list) and len(sent) == len(got):
        return [
            gone
            for number, (one, other) in enumerate(zip(sent, got, strict=True))
            for gone in lost(one, other, f"{path}[{number}]")
        ]
    return [] if sent == got else [f"{path}: {sent!r} became {got!r}"]
