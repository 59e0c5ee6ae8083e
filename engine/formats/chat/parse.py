"""A client's Chat Completions request -> the normal form.

The law of this file: what we know is checked, and a mistake is named by its path (`param`); what
we do not know is no mistake. The body itself stays beside the fields (`Request.raw`): towards an
upstream of this format it leaves as it came. What another format has to be told about an unknown
thing is its type and its place.

The messages themselves are read by `messages.py`.
"""

from __future__ import annotations

from typing import Any

from ...errors import BadRequest
from ...request import (
    AllowedTools,
    CustomTool,
    FunctionTool,
    NamedTool,
    OpaqueChoice,
    OpaqueTool,
    OutputFormat,
    Request,
    Tool,
    ToolChoice,
)
from ..checks import (
    JSON,
    foreign_output,
    join,
    missing,
    need,
    objects,
    take,
    take_number,
    take_strings,
    unknown,
    wrong,
)
from .leftover import places
from .messages import read_messages
from .words import NAME


FIELDS = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "parallel_tool_calls",
        "n",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "response_format",
        "verbosity",
        "reasoning_effort",
        "reasoning",
        "metadata",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "service_tier",
        "store",
    }
)
"""The fields that have a place in `Request`; the others go to `Request.extra`."""


WORDS: dict[str, ToolChoice] = {"auto": "auto", "none": "none", "required": "required"}


def parse_request(body: Any) -> Request:
    """Read a client's body. Raises `BadRequest` with `param`."""
    if not isinstance(body, dict):
        raise BadRequest("The request's body must be a JSON object.", code="invalid_type")
    model = take(body, "model", str)
    if not model:
        raise missing("model")
    extra = {name: value for name, value in body.items() if name not in FIELDS}
    options = take(body, "stream_options", dict) or {}
    _others(options, {"include_usage", "include_obfuscation"}, "stream_options", extra)
    reasoning = take(body, "reasoning", dict) or {}  # OpenRouter's form
    _others(reasoning, {"effort", "summary"}, "reasoning", extra)
    tools, choice, parallel = _tools(body)
    return Request(
        model=model,
        items=read_messages(body),
        stream=bool(take(body, "stream", bool)),
        format=NAME,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        n=_count(body),
        max_tokens=_max_tokens(body),
        temperature=take_number(body, "temperature"),
        top_p=take_number(body, "top_p"),
        presence_penalty=take_number(body, "presence_penalty"),
        frequency_penalty=take_number(body, "frequency_penalty"),
        seed=take(body, "seed", int),
        stop=_stop(body),
        logit_bias=_logit_bias(body),
        logprobs=bool(take(body, "logprobs", bool)),
        top_logprobs=take(body, "top_logprobs", int),
        output=_output(body, extra),
        verbosity=take(body, "verbosity", str),
        reasoning_effort=take(body, "reasoning_effort", str)
        or take(reasoning, "effort", str, "reasoning"),
        reasoning_summary=take(reasoning, "summary", str, "reasoning"),
        metadata=take_strings(body, "metadata"),
        user=take(body, "user", str),
        safety_identifier=take(body, "safety_identifier", str),
        prompt_cache_key=take(body, "prompt_cache_key", str),
        service_tier=take(body, "service_tier", str),
        store=take(body, "store", bool),
        include_usage=bool(take(options, "include_usage", bool, "stream_options")),
        include_obfuscation=take(options, "include_obfuscation", bool, "stream_options"),
        extra=extra,
        leftover=places(body),
        raw=body,
    )


def _others(value: JSON, known: set[str], where: str, extra: JSON) -> None:
    """Name what an object says beyond what we know: `stream_options.<key>`."""
    extra.update({join(where, key): value[key] for key in value if key not in known})


def _count(body: JSON) -> int:
    count = take(body, "n", int)
    if count is None:
        return 1
    if count < 1:
        raise BadRequest("Invalid 'n': expected at least 1.", param="n", code="invalid_value")
    return count


def _max_tokens(body: JSON) -> int | None:
    old, new = (take(body, name, int) for name in ("max_tokens", "max_completion_tokens"))
    return old if new is None else new


def _stop(body: JSON) -> list[str]:
    match body.get("stop"):
        case None:
            return []
        case str(word):
            return [word]
        case [*words]:
            for number, word in enumerate(words):
                if not isinstance(word, str):
                    raise wrong("a string", f"stop[{number}]")
            return words
        case _:
            raise wrong("a string or an array", "stop")


def _logit_bias(body: JSON) -> dict[str, float] | None:
    biases = take(body, "logit_bias", dict)
    for token in biases or {}:
        take_number(biases or {}, token, "logit_bias")
    return biases


def _output(body: JSON, extra: JSON) -> OutputFormat | None:
    where = "response_format"
    form = take(body, where, dict)
    if form is None:
        return None
    match need(form, "type", str, where):
        case "text" | "json_object" as kind:
            return OutputFormat(kind=kind)
        case "json_schema":
            schema, place = need(form, "json_schema", dict, where), f"{where}.json_schema"
            return OutputFormat(
                kind="json_schema",
                name=need(schema, "name", str, place),
                description=take(schema, "description", str, place),
                schema=take(schema, "schema", dict, place),
                strict=take(schema, "strict", bool, place),
            )
        case _:
            extra[where] = foreign_output(form, where)
            return None


# Tools.


def _tools(body: JSON) -> tuple[list[Tool], ToolChoice | None, bool | None]:
    """Read the tools, the choice among them, and whether several may be called at once."""
    tools: list[Tool] = []
    for where, tool in objects(take(body, "tools", list) or [], "tools"):
        match need(tool, "type", str, where):
            case "function":
                function = need(tool, "function", dict, where)
                tools.append(_function(function, f"{where}.function"))
            case "custom":
                tools.append(_custom(need(tool, "custom", dict, where), f"{where}.custom"))
            case kind:
                tools.append(OpaqueTool(kind, where))
    parallel = take(body, "parallel_tool_calls", bool)
    choice = _tool_choice(body) or _legacy_choice(body)
    legacy = objects(take(body, "functions", list) or [], "functions")
    if legacy:
        tools += [_function(function, where) for where, function in legacy]
        parallel = False  # a reply has room for one
    return tools, choice, parallel


def _function(function: JSON, where: str) -> FunctionTool:
    return FunctionTool(
        name=need(function, "name", str, where),
        description=take(function, "description", str, where),
        parameters=take(function, "parameters", dict, where),
        strict=take(function, "strict", bool, where),
    )


def _custom(tool: JSON, where: str) -> CustomTool:
    form, place = take(tool, "format", dict, where), f"{where}.format"
    if form is not None and need(form, "type", str, place) == "grammar":
        grammar = need(form, "grammar", dict, place)
        form = {
            "type": "grammar",
            "definition": need(grammar, "definition", str, f"{place}.grammar"),
            "syntax": need(grammar, "syntax", str, f"{place}.grammar"),
        }
    return CustomTool(
        name=need(tool, "name", str, where),
        description=take(tool, "description", str, where),
        grammar=form,
    )


def _tool_choice(body: JSON) -> ToolChoice | None:
    where = "tool_choice"
    choice = body.get(where)
    if choice is None or isinstance(choice, str):
        return _word(choice, where)
    if not isinstance(choice, dict):
        raise wrong("a string or an object", where)
    match need(choice, "type", str, where):
        case "function" | "custom":
            return _named(choice, where)
        case "allowed_tools":
            allowed, place = need(choice, "allowed_tools", dict, where), f"{where}.allowed_tools"
        case kind:
            return OpaqueChoice(kind)
    tools: list[NamedTool] = []
    for path, tool in objects(need(allowed, "tools", list, place), f"{place}.tools"):
        if need(tool, "type", str, path) not in {"function", "custom"}:
            return OpaqueChoice("allowed_tools")  # a hosted tool among them
        tools.append(_named(tool, path))
    match need(allowed, "mode", str, place):
        case "auto" | "required" as mode:
            return AllowedTools(mode, tools)
        case mode:
            raise unknown(mode, f"{place}.mode", "'auto', 'required'")


def _named(choice: JSON, where: str) -> NamedTool:
    """Read `{"type": "function", "function": {"name": ...}}`, or the same with `custom`."""
    if choice["type"] == "custom":
        return NamedTool(
            "custom", need(need(choice, "custom", dict, where), "name", str, f"{where}.custom")
        )
    function = need(choice, "function", dict, where)
    return NamedTool("function", need(function, "name", str, f"{where}.function"))


def _legacy_choice(body: JSON) -> ToolChoice | None:
    where = "function_call"
    choice = body.get(where)
    if choice is None or isinstance(choice, str):
        return _word(choice, where)
    if not isinstance(choice, dict):
        raise wrong("a string or an object", where)
    return NamedTool("function", need(choice, "name", str, where))


def _word(word: str | None, where: str) -> ToolChoice | None:
    if word is not None and word not in WORDS:
        raise unknown(word, where, "'auto', 'none', 'required'")
    return WORDS[word] if word is not None else None
