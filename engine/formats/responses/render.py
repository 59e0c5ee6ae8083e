"""The normal form -> a body for a Responses upstream.

The law of this file: a client of this format is sent on as it spoke, with only the model's name,
the stream switch and the preface set. A client of another format is translated, and what Responses
cannot say is refused by name where the answer would be wrong without it, else dropped and listed.

Decided here:

* `stop` is handed to the pipeline, which cuts the reply itself: an agent that stops at
  `Observation:` would otherwise take words that the model made up for a tool's.
* `logit_bias` is refused, as OpenAI's reasoning models do, and so are audio answers. `n` over 1
  is `NotSupported`.
* `seed`, the penalties (a penalty of 0 is none), `prediction`, `web_search_options`, a speaker's
  `name`, and every chat field that we do not know are dropped and listed: the answer is another
  sample of the same question.
* `store` is sent, and false unless the client said otherwise: that is chat's default, while a
  Responses server would keep the conversation.
* `strict` of a tool is sent, and false unless the client said otherwise: chat's default again.
* Reasoning goes back only sealed. Bare reasoning text has no place in OpenAI's input (an item
  without a known id is a 404 there), so it is dropped and listed.
* `max_tokens` is sent as it is: OpenAI's Responses takes no less than 16, and says so in its own
  words. A number that the client did not ask for would not be its limit.
* A message of one text is sent with a plain string as its content: the schema and the small
  servers agree on that form for every role.
"""

from __future__ import annotations

from typing import Any

from ...errors import BadRequest, NotSupported
from ...request import (
    AllowedTools,
    Content,
    CustomTool,
    File,
    FunctionTool,
    Image,
    Item,
    Message,
    NamedTool,
    OpaqueChoice,
    OpaqueTool,
    OutputFormat,
    Reasoning,
    Refusal,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from ..base import Call, Rendered
from ..checks import JSON
from .request import LOGPROBS, NAME, SEALED


SAME_NAME = frozenset({"prompt_cache_retention", "prompt_cache_options", "moderation"})
"""Chat fields that Responses has too, in the same form, and that the normal form has not."""

AUDIO = frozenset({"audio", "modalities"})
"""Chat fields that ask for an answer which is not text."""


def render_request(request: Request, call: Call) -> Rendered:
    """Write the request for a Responses upstream; see `Format.render_request`."""
    if request.format == NAME and request.raw is not None:
        dropped: list[str] = []
        return Rendered(_as_it_came(request.raw, call, dropped), dropped)
    dropped = []
    body: JSON = {"model": call.model, "input": _input(request.items, dropped)}
    if call.preface is not None:
        body["instructions"] = call.preface
    body["stream"] = call.stream
    _settings(request, call, body, dropped)
    _tools(request, body, dropped)
    _leftover(request, body, dropped)
    dropped += request.leftover
    return Rendered(body, dropped, request.stop)


def _as_it_came(raw: JSON, call: Call, dropped: list[str]) -> JSON:
    body: JSON = {**raw, "model": call.model, "stream": call.stream}
    if not call.stream:  # an error beside `stream: false`
        options = body.pop("stream_options", None) or {}
        known = {"include_obfuscation"}  # which then means nothing
        dropped += [f"stream_options.{name}" for name in options if name not in known]
    if call.preface is not None:
        old = raw.get("instructions")
        body["instructions"] = f"{call.preface}\n{old}" if old else call.preface
    return body


# The conversation.


def _input(items: list[Item], dropped: list[str]) -> list[JSON]:
    made: list[JSON] = []
    for item in items:
        match item:
            case Message():
                if item.name is not None and "messages[].name" not in dropped:
                    dropped.append("messages[].name")
                if item.content:
                    content = _content(item.content, assistant=item.role == "assistant")
                    made.append({"type": "message", "role": item.role, "content": content})
            case ToolCall(custom=True):
                made.append(
                    {
                        "type": "custom_tool_call",
                        "call_id": item.call_id,
                        **_namespace(item.namespace),
                        "name": item.name,
                        "input": item.arguments,
                    }
                )
            case ToolCall():
                made.append(
                    {
                        "type": "function_call",
                        "call_id": item.call_id,
                        **_namespace(item.namespace),
                        "name": item.name,
                        "arguments": item.arguments,
                    }
                )
            case ToolResult():
                kind = "custom_tool_call_output" if item.custom else "function_call_output"
                output = _content(item.content, assistant=False) if item.content else ""
                made.append({"type": kind, "call_id": item.call_id, "output": output})
            case Reasoning():
                if item.encrypted is not None:
                    made.append(_reasoning(item, item.encrypted))
                lost = item.encrypted is None or bool(item.thought)
                if lost and "messages[].reasoning_content" not in dropped:
                    dropped.append("messages[].reasoning_content")
            case _:  # an OpaqueItem
                raise BadRequest(f"{item.where} ({item.type}) cannot be sent on", param=item.where)
    return made


def _reasoning(item: Reasoning, sealed: str) -> JSON:
    made: JSON = {"type": "reasoning"}
    if item.id:
        made["id"] = item.id
    made["summary"] = [{"type": "summary_text", "text": text} for text in item.summary]
    made["encrypted_content"] = sealed
    return made


def _content(content: list[Content], *, assistant: bool) -> str | list[JSON]:
    match content:
        case [Text(text)]:
            return text
        case _:
            return [_part(part, assistant=assistant) for part in content]


def _part(part: Content, *, assistant: bool) -> JSON:
    match part:
        case Text():
            return {"type": "output_text" if assistant else "input_text", "text": part.text}
        case Refusal():
            if assistant:
                return {"type": "refusal", "refusal": part.text}
            return {"type": "input_text", "text": part.text}
        case Image():
            made: JSON = {"type": "input_image", "detail": part.detail or "auto"}
            return made | _said(image_url=part.url, file_id=part.file_id)
        case File():
            return {"type": "input_file"} | _said(
                file_id=part.file_id,
                filename=part.filename,
                file_data=part.data,
                file_url=part.url,
            )
        case _:  # Audio
            audio = {"data": part.data, "format": part.format}
            return {"type": "input_audio", "input_audio": audio}


def _said(**fields: Any) -> JSON:
    return {name: value for name, value in fields.items() if value is not None}


def _namespace(name: str) -> JSON:
    return {"namespace": name} if name else {}


# What else was asked.


def _settings(request: Request, call: Call, body: JSON, dropped: list[str]) -> None:
    if request.n > 1:
        raise NotSupported("the upstream gives one answer to a request", param="n")
    if request.logit_bias:
        raise BadRequest("the upstream knows no logit_bias", param="logit_bias")
    body |= _said(
        max_output_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        parallel_tool_calls=request.parallel_tool_calls,
        metadata=request.metadata,
        user=request.user,
        safety_identifier=request.safety_identifier,
        prompt_cache_key=request.prompt_cache_key,
        service_tier=request.service_tier,
        previous_response_id=request.previous_response_id,
        top_logprobs=request.top_logprobs,
    )
    body["store"] = bool(request.store)
    for name in ("presence_penalty", "frequency_penalty", "seed"):
        value = getattr(request, name)
        if value is not None and (value or name == "seed"):
            dropped.append(name)
    text = _said(verbosity=request.verbosity)
    if request.output is not None:
        text["format"] = text_format(request.output)
    if text:
        body["text"] = text
    if reasoning := _said(effort=request.reasoning_effort, summary=request.reasoning_summary):
        body["reasoning"] = reasoning
    include: list[str] = []
    sealed = any(isinstance(item, Reasoning) and item.encrypted for item in request.items)
    if request.encrypted_reasoning or sealed:  # who sends sealed reasoning back wants the next
        include.append(SEALED)
    if request.logprobs:
        include.append(LOGPROBS)
    if include:
        body["include"] = include
    if request.include_obfuscation is not None and call.stream:
        body["stream_options"] = {"include_obfuscation": request.include_obfuscation}


def text_format(output: OutputFormat) -> JSON:
    """Write the shape of the answer, as in `text.format`."""
    if output.kind != "json_schema":
        return {"type": output.kind}
    return {
        "type": "json_schema",
        "name": output.name or "answer",
        **_said(description=output.description, strict=output.strict),
        "schema": output.schema or {},
    }


def _tools(request: Request, body: JSON, dropped: list[str]) -> None:
    tools: list[tuple[Tool, JSON]] = []
    for tool in request.tools:
        if isinstance(tool, OpaqueTool):
            dropped.append(f"{tool.where} ({tool.type})")
        else:
            tools.append((tool, tool_form(tool)))
    if tools:
        body["tools"] = grouped(tools, request.namespaces)
    if isinstance(request.tool_choice, OpaqueChoice):
        kind = request.tool_choice.type
        raise BadRequest(f"the upstream cannot be told to use {kind}", param="tool_choice")
    if request.tool_choice is not None:
        body["tool_choice"] = choice_form(request.tool_choice)


def grouped(tools: list[tuple[Tool, JSON]], namespaces: dict[str, str]) -> list[JSON]:
    """Put tools that are written into their namespaces, each where its first tool stands."""
    written: list[JSON] = []
    groups: dict[str, list[JSON]] = {}
    for tool, form in tools:
        namespace = "" if isinstance(tool, OpaqueTool) else tool.namespace
        if namespace and namespace not in groups:
            about = namespaces.get(namespace) or f"Tools in the {namespace} namespace."
            group = groups[namespace] = []
            written.append(
                {"type": "namespace", "name": namespace, "description": about, "tools": group}
            )
        groups.get(namespace, written).append(form)
    return written


def tool_form(tool: Tool) -> JSON:
    """Write one tool."""
    match tool:
        case FunctionTool():
            parameters = tool.parameters
            if parameters is None:  # in chat, a function without parameters takes none
                parameters = {"type": "object", "properties": {}}
            return {
                "type": "function",
                "name": tool.name,
                **_said(description=tool.description),
                "parameters": parameters,
                "strict": bool(tool.strict),
            }
        case CustomTool():
            form = _said(description=tool.description, format=tool.grammar)
            return {"type": "custom", "name": tool.name, **form}
        case _:
            return {"type": tool.type}


def choice_form(choice: ToolChoice) -> str | JSON:
    """Write which tools the model may or must use."""
    match choice:
        case str():
            return choice
        case NamedTool():
            return _named(choice)
        case AllowedTools():
            tools = [_named(tool) for tool in choice.tools]
            return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
        case _:
            return {"type": choice.type}


def _named(choice: NamedTool) -> JSON:
    return {"type": choice.kind, **_namespace(choice.namespace), "name": choice.name}


def _leftover(request: Request, body: JSON, dropped: list[str]) -> None:
    """The fields without a place in the normal form, by their names in the client's format."""
    for name, value in request.extra.items():
        if request.format in {"", NAME}:
            head, _, tail = name.partition(".")
            if tail:
                body[head] = {**body.get(head, {}), tail: value}
            elif name == "include":
                body[name] = body.get(name, []) + value
            else:
                body[name] = value
        elif name in SAME_NAME:
            body[name] = value
        elif name in AUDIO and value is not None and value != ["text"]:
            raise BadRequest("the upstream answers in text only", param=name)
        elif value is not None and name not in AUDIO:
            dropped.append(name)
