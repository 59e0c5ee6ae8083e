"""Nothing of a reply is dropped in silence: a member that nobody knows, put into every object.

The replies are those of `support.kinds`, streamed and whole. In its own format a reply keeps such a
member: whole at the same path, in a stream in an event of the same type, or at the same path of
some chunk. In the other format it is carried, or the log's `lost` names it, or what it stands in.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import pytest

from nursling.engine.errors import BadRequest, NotSupported
from nursling.engine.events import Event
from nursling.engine.formats.base import Call
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import Request
from nursling.transports.http.exchange import lost_of
from support.conformance import request_body
from support.formats import FORMATS, stream_to, through, whole_to
from support.kinds import KINDS, Kind
from support.scripted import MODEL, Api, Json, frame


CANARY = "x_canary"
Path = tuple[str | int, ...]
Body: TypeAlias = Json | str
"""A frame, a body, or `[DONE]`."""

ELSEWHERE = {
    # An assistant's content is a text by OpenAI's schema; what a list said beside it has a member.
    "choices[].delta.content[].": "choices[].delta.content_parts[].",
    "choices[].message.content[].": "choices[].message.content_parts[].",
}
"""Where a member is found in its own format, where it is not in its old place."""

ECHOED = re.compile(r"(response\.)?(metadata|reasoning|text|text\.format)\.x_canary")
"""What a Response repeats of its request is no news to a client of another format."""


class Case(NamedTuple):
    kind: Kind
    upstream: Api
    client: Api
    stream: bool

    def __str__(self) -> str:
        form = "streamed" if self.stream else "whole"
        return f"{self.kind.name} to {self.client} from {self.upstream} {form}"


def _sayable(kind: Kind, upstream: Api, client: Api) -> bool:
    if client in kind.not_asked or kind.upstream(upstream, client) is None:
        return False
    request = FORMATS[client].parse_request(request_body(kind, client, stream=True))
    try:
        FORMATS[upstream].render_request(request, Call(model=MODEL, stream=True))
    except (BadRequest, NotSupported):
        return False
    return True


APIS: tuple[Api, ...] = ("chat", "responses")
CASES = [
    Case(kind, upstream, client, stream)
    for kind in KINDS
    for upstream in APIS
    for client in APIS
    for stream in (True, False)
    if _sayable(kind, upstream, client)
]
SAME = [case for case in CASES if case.upstream == case.client]
OTHER = [case for case in CASES if case.upstream != case.client]


def request_of(case: Case) -> Request:
    return FORMATS[case.client].parse_request(
        request_body(case.kind, case.client, stream=case.stream)
    )


def said(case: Case) -> list[Body]:
    """The frames of the upstream's reply, or its one body."""
    reply = case.kind.upstream(case.upstream, case.client)
    assert reply is not None
    return read(case, reply.stream() if case.stream else reply.whole())


def read(case: Case, data: bytes) -> list[Body]:
    if not case.stream:
        return [json.loads(data)]
    lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [_parsed(line.removeprefix(b"data: ")) for line in lines]


def _parsed(data: bytes) -> Body:
    body: Body = "[DONE]" if data == b"[DONE]" else json.loads(data)
    return body


def batches_of(case: Case, bodies: list[Body]) -> list[list[Event]]:
    """What the encoder is handed when the upstream says this."""
    if case.stream:
        chunks = [frame(body, _type(body)) for body in bodies]
    else:
        chunks = [json.dumps(bodies[0]).encode()]
    return through(FORMATS[case.upstream].decoder(request_of(case), DEFAULT_LIMITS), chunks)


def heard(case: Case, batches: list[list[Event]]) -> list[Body]:
    """What the client gets."""
    carry = stream_to if case.stream else whole_to
    return read(case, carry(case.client, request_of(case), batches))


def _type(body: Body) -> str:
    return str(body.get("type", "")) if isinstance(body, dict) else ""


def objects(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of the objects in a body, itself included."""
    match value:
        case dict():
            yield path
            for name, member in value.items():
                yield from objects(member, (*path, name))
        case list():
            for number, element in enumerate(value):
                yield from objects(element, (*path, number))
        case _:
            pass


def put(body: Any, path: Path, value: str, name: str = CANARY) -> Any:
    """The body with an unknown member in the object at a place."""
    body = copy.deepcopy(body)
    node: Any = body
    for step in path:
        node = node[step]
    node[name] = value
    return body


def places(value: Any, wanted: str, path: Path = ()) -> Iterator[str]:
    """Where in a body a value stands."""
    match value:
        case dict():
            for name, member in value.items():
                yield from places(member, wanted, (*path, name))
        case list():
            for number, element in enumerate(value):
                yield from places(element, wanted, (*path, number))
        case _ if value == wanted:
            yield written(path)
        case _:
            pass


def written(path: Path) -> str:
    return "".join("[]" if type(step) is int else f".{step}" for step in path).lstrip(".")


def expected(path: Path) -> str:
    where = written((*path, CANARY))
    for old, new in ELSEWHERE.items():
        where = where.replace(old, new)
    return where


def one_by_one(case: Case) -> Iterator[tuple[Body, Path, list[Body]]]:
    """The reply with the member in each of its places: what frame, where in it, and all of it."""
    bodies = said(case)
    for number, body in enumerate(bodies):
        for place in objects(body):
            changed = put(body, place, "v")
            yield body, place, [*bodies[:number], changed, *bodies[number + 1 :]]


@pytest.mark.parametrize("case", SAME, ids=str)
def test_the_same_format_loses_no_member(case: Case) -> None:
    """One unknown member, anywhere: it arrives in its place, in the event that said it."""
    gone: list[str] = []
    for body, place, bodies in one_by_one(case):
        got = heard(case, batches_of(case, bodies))
        found = [(_type(one), where) for one in got for where in places(one, "v")]
        if (_type(body), expected(place)) not in found:
            gone.append(f"{_type(body)} {expected(place)}: {found[:2]}")
    assert gone == []


@pytest.mark.parametrize("case", SAME, ids=str)
def test_the_same_format_loses_none_of_many(case: Case) -> None:
    """Unknown members in every object of every frame at once, all different: each arrives."""
    bodies = said(case)
    values: dict[str, str] = {}
    for number, body in enumerate(bodies):
        for place in objects(body):
            value = f"v{len(values)}."
            bodies[number] = put(bodies[number], place, value, f"{CANARY}_{len(values)}")
            values[value] = f"{number} {_type(body)} {written(place)}"
    got = json.dumps(heard(case, batches_of(case, bodies)))
    assert [where for value, where in values.items() if value not in got] == []


@pytest.mark.parametrize("case", [case for case in SAME if case.stream], ids=str)
def test_what_each_event_says_anew_arrives_each_time(case: Case) -> None:
    """The same member with another value in every frame (its own id, the time): all of them."""
    bodies = [
        put(body, (), f"v{number}.") if isinstance(body, dict) else body
        for number, body in enumerate(said(case))
    ]
    got = json.dumps(heard(case, batches_of(case, bodies)))
    gone = [body for body in bodies if isinstance(body, dict) and body[CANARY] not in got]
    assert gone == []


@pytest.mark.parametrize("case", OTHER, ids=str)
def test_the_other_format_loses_no_member_in_silence(case: Case) -> None:
    """The member is carried, or the log names it, or what it stands in."""
    silent: list[str] = []
    for body, place, bodies in one_by_one(case):
        batches = batches_of(case, bodies)
        named = {
            part
            for batch in batches
            for event in batch
            for name in lost_of(event, case.client)
            for part in name.split(".")
        }
        around = {*re.split(r"[.\[\]]+", expected(place)), _type(body), *item_types(body)}
        carried = any(True for one in heard(case, batches) for _ in places(one, "v"))
        where = written((*place, CANARY))
        if not (carried or named & around or ECHOED.fullmatch(where)):
            silent.append(f"{_type(body)} {where}: {sorted(named)}")
    assert silent == []


def item_types(body: Body) -> Iterator[str]:
    """The types of the items that a frame is about: an opaque item is lost under its type."""
    if isinstance(body, dict) and isinstance(body.get("item"), dict):
        yield body["item"]["type"]


LOST = {
    "response.completed_at",
    "response.service_tier",
    "item.id",
    "item.phase",
    "item.encrypted_content",  # an early word of it, on the item's first event
    "detail.id",
    "delta.reasoning_details",  # kept whole for its own format; its text is carried
}
"""What the kinds say that the other format has no place for."""
PLAIN = [case for case in OTHER if not case.kind.only_same]


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_only_what_is_lost_is_named(case: Case) -> None:
    """What arrives is not listed: neither counts of tokens, nor the settings that were asked."""
    batches = batches_of(case, said(case))
    names = {name for batch in batches for event in batch for name in lost_of(event, case.client)}
    assert names <= LOST


def test_what_stands_behind_the_finish_reason_takes_nothing_away() -> None:
    """One member beside the finish reason and again beside usage nobody asked for: both leave."""
    request = FORMATS["chat"].parse_request(
        {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi."}]}
    )
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    frames: list[Body] = [
        {"id": "a", "choices": [{"index": 0, "delta": {"content": "Hi."}}]},
        {"id": "a", "choices": [end], CANARY: "reason"},
        {"id": "a", "choices": [], "usage": {"prompt_tokens": 1}, CANARY: "usage"},
        "[DONE]",
    ]
    decoder = FORMATS["chat"].decoder(request, DEFAULT_LIMITS)
    got = stream_to("chat", request, through(decoder, [frame(one) for one in frames]))
    *chunks, _ = [line for line in got.split(b"\n") if line]
    told = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]
    assert [chunk[CANARY] for chunk in told[-2:]] == ["reason", "usage"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in told[-2:]] == [None, "stop"]


def test_what_is_told_again_takes_nothing_back() -> None:
    """A repetition with fewer members, fewer entries or more empty parts leaves what was told."""
    [case] = [case for case in SAME if str(case) == "logprobs to responses from responses streamed"]
    bodies = said(case)
    *_, last = bodies
    assert isinstance(last, dict)
    [part] = last["response"]["output"][0]["content"]
    told = copy.deepcopy(part["logprobs"])
    part["logprobs"][0] |= {"top_logprobs": [], CANARY: "v"}
    last["response"]["output"][0]["content"].append({**part, "text": "", "logprobs": []})
    for body in bodies:
        if _type(body) == "response.content_part.done" and isinstance(body, dict):
            body["part"] = {**body["part"], "logprobs": told[:1]}
    *_, final = heard(case, batches_of(case, bodies))
    assert isinstance(final, dict)
    [kept] = final["response"]["output"][0]["content"]
    assert kept["logprobs"] == [{**told[0], CANARY: "v"}, *told[1:]]
