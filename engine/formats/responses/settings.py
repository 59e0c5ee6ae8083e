"""What was asked, as a Response repeats it.

The law of this file: a Response repeats every setting: the API's default, over it what the client
asked, over that what an upstream of the same format says about itself. Each layer is believed
only where it says what the API can say (`LAWFUL`); null says nothing. Clients check these fields
against the schema, so a server's nonsense in one of them must not cost its reply.

`store` is false unless the upstream says true: nobody else keeps anything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ...request import FunctionTool, Request, Tool
from ..checks import JSON
from .render import choice_form, grouped, text_format, tool_form
from .request import NAME


DEFAULTS: JSON = {
    "background": False,
    "completed_at": None,
    "frequency_penalty": 0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "auto",
    "store": False,
    "temperature": 1,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1,
    "truncation": "disabled",
}
"""The fields that every Response has."""

MAX_COUNT = 2**53 - 1
"""The largest integer that every JSON reader gets right."""

Check = Callable[[Any], bool]


def _is(*types: type) -> Check:
    return lambda value: isinstance(value, types)


def _is_number(low: float, high: float) -> Check:
    return lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    )


def _is_integer(high: int = MAX_COUNT) -> Check:
    return lambda value: type(value) is int and 0 <= value <= high


def _is_metadata(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _is_format(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return False
    return value["type"] != "json_schema" or (
        isinstance(value.get("name"), str) and isinstance(value.get("schema"), dict)
    )


def _is_tool(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return False
    return value["type"] != "function" or (
        isinstance(value.get("name"), str)
        and isinstance(value.get("description"), str | None)
        and isinstance(value.get("parameters"), dict | None)
        and isinstance(value.get("strict"), bool | None)
    )


def _is_choice(value: Any) -> bool:
    if isinstance(value, str):
        return value in {"auto", "none", "required"}
    if not isinstance(value, dict):
        return False
    match value.get("type"):
        case "function" | "custom":
            return isinstance(value.get("name"), str)
        case "allowed_tools":
            return value.get("mode") in ("auto", "required") and _is_list_of_objects(
                value.get("tools")
            )
        case kind:
            return isinstance(kind, str)


LAWFUL: dict[str, Check] = {
    "background": _is(bool),
    "completed_at": _is_number(0, MAX_COUNT),
    "conversation": _is(dict),
    "frequency_penalty": _is_number(-2, 2),
    "instructions": lambda value: isinstance(value, str) or _is_list_of_objects(value),
    "max_output_tokens": _is_integer(),
    "max_tool_calls": _is_integer(),
    "metadata": _is_metadata,
    "moderation": _is(dict),
    "output_text": _is(str),
    "parallel_tool_calls": _is(bool),
    "presence_penalty": _is_number(-2, 2),
    "previous_response_id": _is(str),
    "prompt": _is(dict),
    "prompt_cache_key": _is(str),
    "prompt_cache_options": _is(dict),
    "prompt_cache_retention": _is(str),
    "reasoning": _is(dict),
    "reasoning.effort": _is(str),
    "reasoning.generate_summary": _is(str),
    "reasoning.summary": _is(str),
    "safety_identifier": _is(str),
    "service_tier": _is(str),
    "store": _is(bool),
    "temperature": _is_number(0, 2),
    "text": _is(dict),
    "text.format": _is_format,
    "text.verbosity": _is(str),
    "tool_choice": _is_choice,
    "tools": _is(list),
    "top_logprobs": _is_integer(20),
    "top_p": _is_number(0, 1),
    "truncation": lambda value: value in ("auto", "disabled"),
    "user": _is(str),
}
"""Field -> whether a value may stand there. A word may be a new one where the API's own words have
grown before. Fields that are not in this table are nobody's promise, and pass."""


def echo(request: Request) -> JSON:
    """The client's settings, as a Response repeats them."""
    own = request.format == NAME
    raw: JSON = request.raw if own and request.raw is not None else {}
    extra = request.extra if own else {}
    asked: JSON = {
        "background": extra.get("background"),
        "frequency_penalty": request.frequency_penalty,
        "instructions": raw.get("instructions"),
        "max_output_tokens": request.max_tokens,
        "max_tool_calls": extra.get("max_tool_calls"),
        "metadata": request.metadata,
        "parallel_tool_calls": request.parallel_tool_calls,
        "presence_penalty": request.presence_penalty,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": request.reasoning_effort, "summary": request.reasoning_summary},
        "safety_identifier": request.safety_identifier,
        "service_tier": request.service_tier,
        "temperature": request.temperature,
        "text": _text(request, raw),
        "tool_choice": _tool_choice(request, raw),
        "tools": raw.get("tools")
        or grouped([(tool, _tool(tool)) for tool in request.tools], request.namespaces),
        "top_logprobs": request.top_logprobs,
        "top_p": request.top_p,
        "truncation": extra.get("truncation"),
        "user": request.user,
    }
    settings = copy.deepcopy(DEFAULTS)  # a reply belongs to whoever gets it
    overlay(settings, asked)
    return settings


def overlay(settings: JSON, said: JSON) -> None:
    """Let what is said win, where it says what the API can say."""
    for name, value in said.items():
        if not _may_stand(name, value):
            continue
        if name in {"text", "reasoning"}:
            members = {key: value[key] for key in value if _may_stand(f"{name}.{key}", value[key])}
            settings[name] = {**settings[name], **members}
        elif name == "tools":
            settings[name] = [_whole_tool(tool) for tool in value if _is_tool(tool)]
        elif name == "completed_at":
            settings[name] = int(value)
        else:
            settings[name] = value


def _may_stand(name: str, value: Any) -> bool:
    check = LAWFUL.get(name)
    return value is not None and (check is None or check(value))


def _text(request: Request, raw: JSON) -> JSON:
    text: JSON = {}
    if request.output is not None:
        form = text["format"] = text_format(request.output)
        if form["type"] == "json_schema":
            form["strict"] = bool(form.get("strict"))
    elif raw.get("text"):
        text |= raw["text"]
    text["verbosity"] = request.verbosity
    return text


def _tool_choice(request: Request, raw: JSON) -> Any:
    if request.tool_choice is None:
        return None
    return raw.get("tool_choice") or choice_form(request.tool_choice)


def _tool(tool: Tool) -> JSON:
    form = tool_form(tool)
    if isinstance(tool, FunctionTool):
        form["strict"] = tool.strict
    return form


def _whole_tool(tool: JSON) -> JSON:
    if tool["type"] == "function":
        return {"description": None, "parameters": None, "strict": None, **tool}
    return tool
