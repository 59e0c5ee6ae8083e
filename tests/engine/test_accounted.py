"""Nothing of a request is dropped in silence: every leaf of every body is accounted for.

The bodies are those of `support.asks`, some that only servers beside OpenAI's know, and one for
each branch of OpenAI's own schema, with every optional member. A leaf is accounted for if changing
it changes what the upstream is asked, or if it is listed as dropped or refused, by its path or by
that of what it stands in. So is a member that nobody knows, put into every object.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from nursling.engine.errors import BadRequest, NotSupported
from nursling.engine.formats.base import Call, Rendered
from support.asks import ASKS, CALL_CHAT, CALL_RESPONSES, WEATHER_CHAT, WEATHER_RESPONSES
from support.formats import FORMATS
from support.generate import instances
from support.schemas import definitions_of
from support.scripted import Api, Json


CANARY = "x_canary"
SAYS_NOTHING: dict[Api, re.Pattern[str]] = {
    # Where a call stands among its neighbours is what the list says, and whether a chat client gets
    # the usage that Responses always has is ours to do.
    "chat": re.compile(
        r"messages\[\]\.(tool_calls|reasoning_details)\[\]\.index|stream_options\.include_usage"
    ),
    # Ids and statuses of earlier output are the old server's.
    "responses": re.compile(r"input\[\]\.(id|status)"),
}
ALIASES = {
    # Reasoning that is not sealed is listed by the one name that most servers have for it.
    "messages[].reasoning": "messages[].reasoning_content",
    "messages[].reasoning_details": "messages[].reasoning_content",
}

Path = tuple[str | int, ...]


class Case(NamedTuple):
    name: str
    client: Api
    body: Json


BASES: dict[Api, Json] = {
    "chat": {
        "model": "m",
        "stream": True,
        "messages": [{"role": "user", "content": "Hi."}],
        "tools": [WEATHER_CHAT],
    },
    "responses": {
        "model": "m",
        "stream": True,
        "input": [{"type": "message", "role": "user", "content": "Hi."}],
        "tools": [WEATHER_RESPONSES],
    },
}
DEFINITIONS: dict[Api, str] = {"chat": "CreateChatCompletionRequest", "responses": "CreateResponse"}


def _of_schema(client: Api) -> Iterator[Case]:
    """A body for each branch of each field."""
    definitions = definitions_of("openai")
    base = BASES[client]
    history = "messages" if client == "chat" else "input"
    for number, body in enumerate(instances({"$ref": DEFINITIONS[client]}, definitions)):
        for field, value in body.items():
            if field not in {"model", "stream"}:
                said = (
                    [*base[history], *value] if field == history and type(value) is list else value
                )
                yield Case(f"{field} {number}", client, {**base, field: said})


def _unique(cases: Iterator[Case]) -> list[Case]:
    return list({repr(case.body): case for case in cases}.values())


def _without_sound(case: Case) -> Case:
    """The case without an earlier answer in sound, which is refused, whatever stands beside it."""
    messages = [
        {name: value for name, value in message.items() if name != "audio"}
        for message in case.body["messages"]
    ]
    return case._replace(body={**case.body, "messages": messages})


OTHERS: list[Case] = [
    Case(
        "reasoning of other servers",
        "chat",
        {
            **BASES["chat"],
            "messages": [
                {
                    **CALL_CHAT,
                    "name": "Ann",
                    "reasoning": "r",
                    "reasoning_content": "rc",
                    "function_call": {"name": "f", "arguments": "{}"},
                    "reasoning_details": [
                        {"type": "reasoning.encrypted", "data": "d", "id": "i", "format": "f"},
                        {"type": "reasoning.summary", "summary": "s", "index": 1, "id": "j"},
                        {"type": "reasoning.text", "text": "t", "signature": "g"},
                        {"type": "reasoning.text", "text": 7},
                        {"type": ["odd"], "text": "t"},
                        {"type": "reasoning.odd", "text": "t"},
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "name": "n", "content": "x"},
            ],
        },
    ),
    Case(
        "members of other types",
        "chat",
        {
            **BASES["chat"],
            "messages": [
                {
                    "role": "user",
                    "refusal": "r",
                    "tool_calls": [{"id": "x"}],
                    "content": [
                        {"type": "text", "text": "t", "image_url": {"url": "u"}, "refusal": "r"},
                        {
                            "type": "image_url",
                            "image_url": {"url": "u", "detail": "low"},
                            "detail": "high",
                            "text": "t",
                        },
                    ],
                }
            ],
            "response_format": {"type": "text", "json_schema": {"name": "n"}},
        },
    ),
    Case(
        "two names of one thing",
        "chat",
        {
            **BASES["chat"],
            "max_tokens": 5,
            "max_completion_tokens": 6,
            "reasoning_effort": "low",
            "reasoning": {"effort": "high", "summary": "auto", "exclude": True},
            "functions": [{"name": "f", "parameters": {}}],
            "function_call": {"name": "f"},
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "stream_options": {"include_usage": True, "odd": 1},
        },
    ),
    Case("a lone function_call", "chat", {**BASES["chat"], "function_call": {"name": "f"}}),
    Case(
        "allowed tools that are not offered",
        "responses",
        {
            **BASES["responses"],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [
                    {"type": "function", "name": "get_weather"},
                    {"type": "function", "name": "gone"},
                ],
            },
        },
    ),
    Case(
        "odd items",
        "responses",
        {
            **BASES["responses"],
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": "u", "file_id": "f", "detail": "low"},
                        {
                            "type": "input_image",
                            "image_url": {"url": "u", "detail": "high"},
                            "file_id": "f",
                            "detail": "low",
                        },
                        {"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}},
                    ],
                },
                {
                    "type": "reasoning",
                    "summary": [
                        {"type": "odd", "text": "s"},
                        {"type": "summary_text", "text": "t"},
                    ],
                    "content": [{"type": "reasoning_text", "text": "r"}],
                    "encrypted_content": "e",
                },
                {**CALL_RESPONSES, "phase": "p", "namespace": "n"},
                {
                    "type": "function_call_output",
                    "call_id": "call_1",
                    "output": [
                        {"type": "input_image", "image_url": "u"},
                        {"type": "input_file", "file_data": "u", "filename": "n"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "input_image", "image_url": "u"}]},
            ],
        },
    ),
    *(
        Case(
            f"a custom tool with {form['type']}",
            "responses",
            {**BASES["responses"], "tools": [{"type": "custom", "name": "c", "format": form}]},
        )
        for form in (
            {"type": "grammar", "definition": "d", "syntax": "lark"},
            {"type": "text"},
            {"type": "odd", "definition": "d"},
        )
    ),
    Case(
        "settings of reasoning and text",
        "responses",
        {
            **BASES["responses"],
            "reasoning": {"effort": "low", "summary": "auto", "generate_summary": "concise"},
            "text": {"verbosity": "low", "format": {"type": "text", "name": "n"}},
        },
    ),
    Case(
        "a namespace",
        "responses",
        {
            **BASES["responses"],
            "tools": [
                {
                    "type": "namespace",
                    "name": "n",
                    "description": "d",
                    "tools": [
                        {"type": "function", "name": "f", "parameters": {}, "strict": True},
                        {"type": "custom", "name": "c", "description": "d"},
                    ],
                }
            ],
            "tool_choice": {"type": "function", "name": "f", "namespace": "n"},
        },
    ),
]
"""What the schema does not know, and servers or clients do."""

CASES = [
    *(
        Case(ask.name, client, {**BASES[client], **getattr(ask, client)})
        for ask in ASKS
        for client in ("chat", "responses")
        if getattr(ask, client) is not None
    ),
    *OTHERS,
    *(chat := _unique(_of_schema("chat"))),
    *_unique(_without_sound(case) for case in chat if "messages" in case.name),
    *_unique(_of_schema("responses")),
]
OTHER: dict[Api, Api] = {"chat": "responses", "responses": "chat"}
CALL = Call(model="up", stream=True)


def ask_upstream(body: Json, client: Api, upstream: Api) -> Rendered | BadRequest | NotSupported:
    try:
        return FORMATS[upstream].render_request(FORMATS[client].parse_request(body), CALL)
    except (BadRequest, NotSupported) as error:
        return error


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The scalars of a body."""
    match value:
        case dict():
            for name, member in value.items():
                yield from leaves(member, (*path, name))
        case list():
            for number, element in enumerate(value):
                yield from leaves(element, (*path, number))
        case _:
            yield path, value


def objects(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of the objects in a body, below the body itself too."""
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


def changed(body: Json, path: Path, value: Any) -> Json:
    body = copy.deepcopy(body)
    node: Any = body
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    return body


def another(value: Any) -> Any:
    """Another value of the same type; a word that is in no enum."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case _:
            return f"{value}{CANARY}"


def written(path: Path) -> str:
    return "".join("[]" if type(step) is int else f".{step}" for step in path).lstrip(".")


def is_named(path: str, names: list[str]) -> bool:
    """Whether a name is that of the path, or of something that the path is in."""
    for name in names:
        place = re.sub(r"\[\d+\]", "[]", name.partition(" (")[0])
        for said in (
            path,
            *(
                new + path.removeprefix(old)
                for old, new in ALIASES.items()
                if path == old or path.startswith((f"{old}.", f"{old}["))
            ),
        ):
            if said == place or said.startswith((f"{place}.", f"{place}[")):
                return True
    return False


def is_accounted(path: str, asked: Rendered, other: Rendered | BadRequest | NotSupported) -> bool:
    """Whether a change makes a difference to the upstream, or the client is told its place."""
    if not isinstance(other, Rendered):
        param = re.sub(r"\[\d+\]", "[]", other.param or "")
        if param == "tool_choice" and path.startswith("tools"):
            return True  # the tool that has to be called
        return is_named(path, [param]) or param.startswith(path)
    return is_named(path, other.dropped) or (other.body, other.stop) != (asked.body, asked.stop)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.client} {case.name}")
def test_every_leaf_is_accounted_for(case: Case) -> None:
    """Towards the other format every scalar is sent, or listed or refused by its place."""
    client, upstream = case.client, OTHER[case.client]
    asked = ask_upstream(case.body, client, upstream)
    if not isinstance(asked, Rendered):
        assert asked.param
        assert re.split(r"[.\[]", asked.param)[0] in case.body
        return
    silent: list[str] = []
    for path, value in leaves(case.body):
        where = written(path)
        if path[0] in {"model", "stream"} or value is None or SAYS_NOTHING[client].fullmatch(where):
            continue
        if is_named(where, asked.dropped):
            continue
        other = ask_upstream(changed(case.body, path, another(value)), client, upstream)
        if not is_accounted(where, asked, other):
            silent.append(f"{where} = {value!r}")
    assert silent == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.client} {case.name}")
def test_unknown_members_are_accounted_for(case: Case) -> None:
    """A member that nobody knows, in any object at any depth, is carried, listed or refused."""
    client, upstream = case.client, OTHER[case.client]
    asked = ask_upstream(case.body, client, upstream)
    if not isinstance(asked, Rendered):
        return
    silent = [
        written(place)
        for place in objects(case.body)
        if not is_named(written(place), asked.dropped)
        and not is_accounted(
            written((*place, CANARY)),
            asked,
            ask_upstream(changed(case.body, (*place, CANARY), "v"), client, upstream),
        )
    ]
    assert silent == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.client} {case.name}")
def test_the_same_format_loses_nothing(case: Case) -> None:
    """Towards its own format a body leaves as it came, with what nobody knows."""
    if not isinstance(own := ask_upstream(case.body, case.client, case.client), Rendered):
        # The schema takes any object for an allowed tool: one without a type is our mistake here.
        assert (own.param or "").startswith("tool_choice.")
        return
    for place in objects(case.body):
        body = changed(case.body, (*place, CANARY), "v")
        asked = ask_upstream(body, case.client, case.client)
        if isinstance(asked, Rendered):
            expected = {**body, "model": "up"}
            if case.client == "chat":
                options = body.get("stream_options") or {}
                expected["stream_options"] = {**options, "include_usage": True}
            assert asked.body == expected
            assert asked.dropped == []
        else:
            assert place[0] in {"metadata", "logit_bias"}, asked
