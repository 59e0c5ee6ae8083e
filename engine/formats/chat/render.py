"""The normal form -> a body for a chat upstream.

The law of this file: a client of this format is sent on as it spoke, with only the model's name,
the stream switches and the preface set. A client of another format is translated, and what chat
cannot say is refused by name where the answer would be wrong without it, else dropped and listed.

Decided here:

* `max_tokens`, not `max_completion_tokens`: a translated request mostly goes to a server that
  knows only the older name.
* The stored state of a Responses server (`previous_response_id`, `conversation`, `prompt`) and
  `background` are refused: we keep none.
* `store` of a Responses client is its wish towards a Responses server: true is dropped and listed.
* A choice among some tools (`allowed_tools`) offers those tools only: that is what it means, and
  every server understands it.
* Custom tools are wrapped as functions (`unwrap.py`) for a client of another format; a chat
  client's own are sent as they are. A custom tool and a function of one name are refused then:
  nobody could tell whose call is whose.
* A namespace of tools is written into their names (`names.py`), and what it is for in front of the
  description of the first of them that is offered.
* `parallel_tool_calls` goes with tools only; OpenAI refuses it alone.
* Usage of a stream is always asked for, unless the provider's switch says that it refuses
  `stream_options.include_usage`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import structs

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
from ..base import Call, Rendered
from .history import History
from .names import Names
from .unwrap import wrap_tool
from .words import NAME


SAME_NAME = frozenset({"prompt_cache_retention", "prompt_cache_options", "moderation"})
"""Responses fields that chat has too, in the same form, and that the normal form has not."""

KEPT_STATE = frozenset({"conversation", "prompt", "background"})
"""Responses fields that need a server with a memory."""

UNSAID: dict[str, Any] = {"background": False, "truncation": "disabled"}
"""Responses fields that, with this value, say nothing."""


def render_request(request: Request, call: Call) -> Rendered:
    """Write the request for a chat upstream; see `Format.render_request`."""
    dropped: list[str] = []
    if request.format == NAME and request.raw is not None:
        body: dict[str, Any] = {**request.raw, "model": call.model, "stream": call.stream}
    else:
        body = _translate(request, call, dropped)
    if call.preface is not None:
        body["messages"] = _prefaced(body["messages"], call.preface)
    _ask_for_usage(request, call, body, dropped)
    return Rendered(body, dropped)


def _prefaced(messages: list[dict[str, Any]], preface: str) -> list[dict[str, Any]]:
    """Put the preface into the first system message, or make one."""
    first, rest = messages[0], messages[1:]
    if first["role"] not in {"system", "developer"}:
        return [{"role": "system", "content": preface}, *messages]
    match first["content"]:
        case [*parts]:
            content: Any = [{"type": "text", "text": preface}, *parts]
        case "":
            content = preface
        case text:
            content = f"{preface}\n{text}"
    return [{**first, "content": content}, *rest]


def _ask_for_usage(request: Request, call: Call, body: dict[str, Any], dropped: list[str]) -> None:
    options = body.pop("stream_options", None) or {}
    if not call.stream:  # an error beside `stream: false`
        known = {"include_usage", "include_obfuscation"}  # which then mean nothing
        dropped += [f"stream_options.{name}" for name in options if name not in known]
        return
    options = {name: value for name, value in options.items() if name != "include_usage"}
    if call.include_usage:
        options["include_usage"] = True
    elif request.include_usage:
        dropped.append("stream_options.include_usage")
    if options:
        body["stream_options"] = options


def _translate(request: Request, call: Call, dropped: list[str]) -> dict[str, Any]:
    if request.previous_response_id is not None:
        raise BadRequest(
            "the upstream of this model keeps no responses: send the conversation itself",
            param="previous_response_id",
        )
    wrap = request.format != NAME
    names = Names(request)
    history = History(names, wrap=wrap)
    body: dict[str, Any] = {"model": call.model, "messages": history.write(request.items)}
    dropped += history.dropped
    body["stream"] = call.stream
    _settings(request, body, dropped)
    _tools(request, names, body, dropped, wrap=wrap)
    _leftover(request, body, dropped)
    if not body["messages"]:  # behind the refusals: a stored prompt comes without any input
        raise BadRequest("the conversation is empty", param="input")
    dropped += request.leftover
    return body


def _settings(request: Request, body: dict[str, Any], dropped: list[str]) -> None:
    body |= _said(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=request.seed,
        stop=request.stop or None,
        logit_bias=request.logit_bias,
        logprobs=True if request.logprobs or request.top_logprobs else None,
        top_logprobs=request.top_logprobs or None,
        response_format=None if request.output is None else response_format(request.output),
        verbosity=request.verbosity,
        reasoning_effort=request.reasoning_effort,
        metadata=request.metadata,
        user=request.user,
        safety_identifier=request.safety_identifier,
        prompt_cache_key=request.prompt_cache_key,
        service_tier=request.service_tier,
        n=request.n if request.n > 1 else None,
    )
    if request.format in {"", NAME}:
        body |= _said(store=request.store)
    elif request.store:
        dropped.append("store")
    if request.include_obfuscation and body["stream"]:
        body["stream_options"] = {"include_obfuscation": True}
    if request.reasoning_summary is not None:
        dropped.append("reasoning.summary")
    if request.encrypted_reasoning:
        dropped.append("include (reasoning.encrypted_content)")


def response_format(output: OutputFormat) -> dict[str, Any]:
    """Write the shape of the answer."""
    if output.kind != "json_schema":
        return {"type": output.kind}
    schema = _said(description=output.description, schema=output.schema, strict=output.strict)
    return {"type": "json_schema", "json_schema": {"name": output.name or "answer", **schema}}


# Tools.


def _tools(
    request: Request, names: Names, body: dict[str, Any], dropped: list[str], *, wrap: bool
) -> None:
    choice = request.tool_choice
    offered = request.tools
    if wrap:
        _refuse_twins(offered)
    if isinstance(choice, AllowedTools):
        allowed = {(tool.kind, names.chosen(tool)) for tool in choice.tools}
        offered = [tool for tool in offered if _kind_and_name(tool, names) in allowed]
        dropped += _missing(choice, offered, names, request.format)
        choice = choice.mode
    tools: list[dict[str, Any]] = []
    for tool in _flat(offered, names, dict(request.namespaces)):
        match tool:
            case FunctionTool():
                tools.append({"type": "function", "function": _function(tool)})
            case CustomTool():
                tools.append(wrap_tool(tool) if wrap else _custom(tool))
            case _:
                dropped.append(f"{tool.where} ({tool.type})")
    if isinstance(choice, OpaqueChoice):
        raise BadRequest(f"the upstream cannot be told to use {choice.type}", param="tool_choice")
    if tools:
        body["tools"] = tools
        body |= _said(
            tool_choice=None if choice is None else _choice(choice, names, wrap=wrap),
            parallel_tool_calls=request.parallel_tool_calls,
        )
    elif choice not in (None, "auto", "none"):
        raise BadRequest("there is no tool that could be chosen", param="tool_choice")


def _missing(choice: AllowedTools, offered: list[Tool], names: Names, client: str) -> Iterator[str]:
    """The tools that a client allows and does not offer."""
    known = {_kind_and_name(tool, names) for tool in offered}
    where = "tool_choice.allowed_tools.tools" if client == NAME else "tool_choice.tools"
    for number, tool in enumerate(choice.tools):
        if (tool.kind, names.chosen(tool)) not in known:
            yield f"{where}[{number}] (not among the tools)"


def _flat(tools: list[Tool], names: Names, namespaces: dict[str, str]) -> Iterator[Tool]:
    """Take the tools out of their namespaces. What one is for goes with its first tool."""
    for tool in tools:
        if isinstance(tool, OpaqueTool) or not tool.namespace:
            yield tool
            continue
        told = [tool.description] if tool.description else []
        if about := namespaces.pop(tool.namespace, ""):
            told.insert(0, f"The tools of {tool.namespace}: {about}")
        name = names.of(tool.namespace, tool.name)
        description = "\n\n".join(told) or None
        yield structs.replace(tool, name=name, description=description, namespace="")


def _refuse_twins(tools: list[Tool]) -> None:
    functions = {(tool.namespace, tool.name) for tool in tools if isinstance(tool, FunctionTool)}
    for tool in tools:
        if isinstance(tool, CustomTool) and (tool.namespace, tool.name) in functions:
            raise BadRequest(
                f"the upstream knows functions only: it cannot have two tools named {tool.name!r}",
                param="tools",
            )


def _kind_and_name(tool: Tool, names: Names) -> tuple[str, str]:
    match tool:
        case FunctionTool():
            return "function", names.of(tool.namespace, tool.name)
        case CustomTool():
            return "custom", names.of(tool.namespace, tool.name)
        case _:
            return tool.type, ""


def _function(tool: FunctionTool) -> dict[str, Any]:
    said = _said(description=tool.description, parameters=tool.parameters, strict=tool.strict)
    return {"name": tool.name, **said}


def _custom(tool: CustomTool) -> dict[str, Any]:
    form = tool.grammar
    if form is not None and form.get("type") == "grammar":
        inner = {name: value for name, value in form.items() if name != "type"}
        form = {"type": "grammar", "grammar": inner}
    said = _said(description=tool.description, format=form)
    return {"type": "custom", "custom": {"name": tool.name, **said}}


def _choice(choice: ToolChoice, names: Names, *, wrap: bool) -> Any:
    if not isinstance(choice, NamedTool):
        return choice
    if names.misses(choice):
        raise BadRequest(
            f"the chosen tool {choice.name!r} is not exactly one of the tools", param="tool_choice"
        )
    kind = "function" if wrap else choice.kind
    return {"type": kind, kind: {"name": names.chosen(choice)}}


# The rest.


def _leftover(request: Request, body: dict[str, Any], dropped: list[str]) -> None:
    """The fields without a place in the normal form, by their names in the client's format."""
    for name, value in request.extra.items():
        if request.format in {"", NAME}:
            head, _, tail = name.partition(".")
            body[head] = {**body.get(head, {}), tail: value} if tail else value
        elif name in KEPT_STATE and value:
            raise BadRequest(f"the upstream of this model has no {name}", param=name)
        elif name in SAME_NAME:
            body[name] = value
        elif value is not None and UNSAID.get(name) != value:
            dropped.append(name)


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
