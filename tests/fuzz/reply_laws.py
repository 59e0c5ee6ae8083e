"""The invariant of a reply: whatever bytes an upstream sends, a client gets a lawful answer.

* A decoder raises nothing, and its events end with one `Ended` or `Failed`; a `Failed` is the
  upstream's fault, with a status that a client may see.
* How the bytes were cut changes no event.
* What the grammar lets through is legal as it stands, and of the rest it says so by a
  `NurslingError` of the upstream.
* Each format's encoder makes of that a stream that keeps the laws of its API, good or failed,
  however the events were batched; and its whole reply is what its API describes.

A client of the upstream's own format gets unknown events and members as they came, between the
lawful ones: then what holds is the frame around them (`check_passed_on`).
"""

from __future__ import annotations

import json
import random
import re
import zlib
from typing import Any

from nursling.engine.accumulate import Accumulator
from nursling.engine.errors import UpstreamError, error_from
from nursling.engine.events import Ended, Event, Failed, Finished
from nursling.engine.grammar import Grammar
from nursling.engine.limits import Limits
from nursling.engine.request import Request
from support import laws
from support.cuts import cut_at
from support.formats import FORMATS, IDENTITY, stream_to
from support.kinds import KINDS, custom_tool, function_tool
from support.schemas import check_chat_completion, check_error, check_response
from support.scripted import Api


LIMITS = Limits(max_event_bytes=1 << 16, max_reply_bytes=1 << 18)
APIS: tuple[Api, ...] = ("chat", "responses")


def seeds(api: Api) -> list[bytes]:
    """Every kind of content that this API can say, streamed and whole."""
    replies = [kind.upstream(api, client) for kind in KINDS for client in APIS]
    return [data for one in replies if one is not None for data in (one.stream(), one.whole())]


def request_of(client: Api) -> Request:
    """A client's request that asks for everything."""
    tools = [function_tool(client, "get_weather"), custom_tool(client, "run")]
    body: dict[str, Any] = {"model": "m", "stream": True, "tools": tools, "top_logprobs": 2}
    if client == "chat":
        body |= {"messages": [{"role": "user", "content": "Hello."}], "logprobs": True}
        body["stream_options"] = {"include_usage": True}
    else:
        body |= {"input": "Hello.", "include": ["message.output_text.logprobs"]}
    return FORMATS[client].parse_request(body)


REQUESTS = {client: request_of(client) for client in APIS}


def check(upstream: Api, data: bytes) -> None:
    """Hold one reply to all of it, for both clients."""
    for client in APIS:
        request = REQUESTS[client]
        rng = random.Random(zlib.crc32(data))
        whole = decoded(upstream, request, [data])
        cuts = [rng.randrange(len(data) + 1) for _ in range(6)]
        assert decoded(upstream, request, cut_at(data, cuts)) == whole
        legal = normalized(whole)
        check_client(client, request, legal, rng, same=client == upstream)


def decoded(upstream: Api, request: Request, chunks: list[bytes]) -> list[Event]:
    """What the decoder says, which is one reply."""
    decoder = FORMATS[upstream].decoder(request, LIMITS)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    events += decoder.close()
    ends = [event for event in events if isinstance(event, Ended | Failed)]
    assert ends == events[-1:]
    assert decoder.finished
    assert decoder.feed(b"data: {}\n\n") == decoder.close() == []
    if isinstance(events[-1], Failed):
        check_failure(events[-1])
    return events


def check_failure(event: Failed) -> None:
    """A failure is the upstream's, and can be said with a status."""
    assert event.error.fault == "upstream"
    assert 400 <= event.error.status < 600
    assert event.error.message
    assert isinstance(error_from(event.error), UpstreamError)
    for form in FORMATS.values():
        check_error(form.render_error(event.error))


def normalized(events: list[Event]) -> list[Event]:
    """What the pipeline makes of a decoder's events: legal ones, the last of them an end."""
    grammar, fold = Grammar(), Accumulator(LIMITS.max_reply_bytes)
    legal: list[Event] = []
    try:
        for event in events:
            grammar.take(event, legal)
        fold.add(legal)
    except UpstreamError as error:
        legal = [event for event in legal if not isinstance(event, Ended | Failed)]
        legal.append(Failed(error.info()))
    assert Grammar().check(legal) == legal
    return legal


def check_client(
    client: Api, request: Request, legal: list[Event], rng: random.Random, *, same: bool
) -> None:
    """What one client gets."""
    at_once = stream_to(client, request, [legal])
    at = rng.randrange(len(legal) + 1)
    assert stream_to(client, request, [legal[:at], legal[at:]]) == at_once
    fold = Accumulator(1 << 30)
    fold.add(legal)
    failed = isinstance(legal[-1], Failed)
    if same:
        check_passed_on(client, at_once, failed=failed)
    elif failed:
        laws.check_failed_stream(at_once, client)
    elif client == "chat":
        laws.check_chat_stream(at_once, n=None, usage=None)
    else:
        laws.check_responses_stream(at_once, status=None)
    if failed:
        return
    whole = json.loads(json.dumps(FORMATS[client].render_reply(fold.reply, request, IDENTITY)))
    if client == "chat":
        choices = {event.choice for event in legal if isinstance(event, Finished)}
        assert {choice["index"] for choice in whole["choices"]} == choices
    if not same:
        (check_chat_completion if client == "chat" else check_response)(whole)


_FRAME = re.compile(rb"(?:event: ([A-Za-z0-9_.:/-]+)\n)?data: ([^\r\n]+)\n\n")
_LAST = {False: {"response.completed", "response.incomplete"}, True: {"response.failed"}}


def check_passed_on(api: Api, data: bytes, *, failed: bool) -> None:
    """A stream with strangers in it: whole frames, numbered, with one beginning and one end."""
    assert _FRAME.sub(b"", data) == b""
    frames = [(name.decode(), text) for name, text in _FRAME.findall(data)]
    if api == "chat":
        assert [text == b"[DONE]" for _, text in frames[:-1]] == [False] * (len(frames) - 1)
        assert (frames[-1][1] == b"[DONE]") != failed
        assert {name for name, _ in frames} == {""}
        for _, text in frames[: None if failed else -1]:
            assert isinstance(json.loads(text), dict)
        return
    events = [json.loads(text) for _, text in frames]
    assert [event["type"] for event in events] == [name for name, _ in frames]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    ends = [event for event in events if event["type"] in laws.TERMINAL]
    assert ends == events[-1:]
    assert events[-1]["type"] in _LAST[failed]
    assert events[-1]["response"]["id"] == events[0]["response"]["id"]
