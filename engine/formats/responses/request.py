"""A client's Responses request -> the normal form.

The law of this file: what we know is checked, and a mistake is named by its path (`param`); what
we do not know is no mistake. The body itself stays beside the fields (`Request.raw`): towards an
upstream of this format it leaves as it came, so an item, a tool or a field that we never heard of
needs no code here. What another format has to be told about it is its type and its place.

`instructions` become a system message in front: every server knows that role, many small ones do
not know `developer`.
"""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from ...errors import BadRequest
from ...request import (
    AllowedTools,
    Audio,
    Content,
    CustomTool,
    File,
    FunctionTool,
    Image,
    Item,
    Message,
    NamedTool,
    OpaqueChoice,
    OpaqueItem,
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
from ..checks import (
    JSON,
    foreign_output,
    join,
    missing,
    need,
    objects,
    read_content,
    take,
    take_detail,
    take_number,
    take_strings,
    unknown,
    wrong,
)
from .leftover import places


NAME = "responses"

Role = Literal["system", "developer", "user", "assistant"]

FIELDS = frozenset(
    {
        "model",
        "input",
        "instructions",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "max_output_tokens",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
        "include",
        "text",
        "reasoning",
        "metadata",
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "service_tier",
        "store",
        "previous_response_id",
    }
)
"""The fields that have a place in `Request`; the others go to `Request.extra`."""

SEALED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"


def parse_request(body: Any) -> Request:
    """Read a client's body. Raises `BadRequest` with `param`."""
    if not isinstance(body, dict):
        raise BadRequest("The request's body must be a JSON object.", code="invalid_type")
    model = take(body, "model", str)
    if not model:
        raise missing("model")
    extra = {name: value for name, value in body.items() if name not in FIELDS}
    take(body, "max_tool_calls", int)
    take(body, "truncation", str)
    take(body, "background", bool)
    _check_references(body)
    include = _include(body, extra)
    output, verbosity = _text(body, extra)
    effort, summary = _reasoning(body, extra)
    tools, namespaces = _tools(body)
    options = take(body, "stream_options", dict) or {}
    _leftover(options, {"include_obfuscation"}, "stream_options", extra)
    return Request(
        model=model,
        items=_conversation(body),
        stream=bool(take(body, "stream", bool)),
        format=NAME,
        tools=tools,
        namespaces=namespaces,
        tool_choice=_tool_choice(body),
        parallel_tool_calls=take(body, "parallel_tool_calls", bool),
        max_tokens=_max_tokens(body),
        temperature=take_number(body, "temperature"),
        top_p=take_number(body, "top_p"),
        presence_penalty=take_number(body, "presence_penalty"),
        frequency_penalty=take_number(body, "frequency_penalty"),
        logprobs=LOGPROBS in include,
        top_logprobs=take(body, "top_logprobs", int),
        output=output,
        verbosity=verbosity,
        reasoning_effort=effort,
        reasoning_summary=summary,
        encrypted_reasoning=SEALED in include,
        metadata=take_strings(body, "metadata"),
        user=take(body, "user", str),
        safety_identifier=take(body, "safety_identifier", str),
        prompt_cache_key=take(body, "prompt_cache_key", str),
        service_tier=take(body, "service_tier", str),
        store=take(body, "store", bool),
        previous_response_id=take(body, "previous_response_id", str),
        include_obfuscation=take(options, "include_obfuscation", bool, "stream_options"),
        extra=extra,
        leftover=places(body),
        raw=body,
    )


def _leftover(value: JSON, known: set[str], where: str, extra: JSON) -> None:
    """Name what an object says beyond what we know: `text.<key>`."""
    extra.update({join(where, key): value[key] for key in value if key not in known})


def _check_references(body: JSON) -> None:
    """What lies with the server is named by its id."""
    match body.get("conversation"):
        case None | str():
            pass
        case dict(conversation):
            need(conversation, "id", str, "conversation")
        case _:
            raise wrong("a string or an object", "conversation")
    prompt = take(body, "prompt", dict)
    if prompt is not None:
        need(prompt, "id", str, "prompt")


def _max_tokens(body: JSON) -> int | None:
    """The schema says 16; small servers take any that leaves room for a word."""
    name = "max_output_tokens"
    limit = take(body, name, int)
    if limit is not None and limit < 1:
        raise BadRequest(
            f"Invalid '{name}': expected at least 1.", param=name, code="invalid_value"
        )
    return limit


def _include(body: JSON, extra: JSON) -> list[Any]:
    include = take(body, "include", list) or []
    for number, word in enumerate(include):
        if not isinstance(word, str):
            raise wrong("a string", f"include[{number}]")
    if rest := [word for word in include if word not in {SEALED, LOGPROBS}]:
        extra["include"] = rest
    return include


def _text(body: JSON, extra: JSON) -> tuple[OutputFormat | None, str | None]:
    text = take(body, "text", dict) or {}
    _leftover(text, {"format", "verbosity"}, "text", extra)
    verbosity = take(text, "verbosity", str, "text")
    form = take(text, "format", dict, "text")
    if form is None:
        return None, verbosity
    where = "text.format"
    match need(form, "type", str, where):
        case "text" | "json_object" as kind:
            return OutputFormat(kind=kind), verbosity
        case "json_schema":
            return OutputFormat(
                kind="json_schema",
                name=need(form, "name", str, where),
                description=take(form, "description", str, where),
                schema=need(form, "schema", dict, where),
                strict=take(form, "strict", bool, where),
            ), verbosity
        case _:
            extra[where] = foreign_output(form, where)
            return None, verbosity


def _reasoning(body: JSON, extra: JSON) -> tuple[str | None, str | None]:
    reasoning = take(body, "reasoning", dict) or {}
    known = {"effort", "summary", "generate_summary"}  # the last is the old name of `summary`
    _leftover(reasoning, known, "reasoning", extra)
    summary = take(reasoning, "summary", str, "reasoning")
    old = take(reasoning, "generate_summary", str, "reasoning")
    return take(reasoning, "effort", str, "reasoning"), summary or old


# Tools.


def _tools(body: JSON) -> tuple[list[Tool], dict[str, str]]:
    """Read the tools, and what the namespaces among them are for."""
    tools: list[Tool] = []
    namespaces: dict[str, str] = {}
    for where, tool in objects(take(body, "tools", list) or [], "tools"):
        kind = need(tool, "type", str, where)
        inner = take(tool, "tools", list, where) if kind == "namespace" else None
        if not inner:
            tools.append(_tool(tool, kind, where))
            continue
        namespace = need(tool, "name", str, where)
        namespaces[namespace] = take(tool, "description", str, where) or ""
        for place, member in objects(inner, join(where, "tools")):
            tools.append(_tool(member, need(member, "type", str, place), place, namespace))
    return tools, namespaces


def _tool(tool: JSON, kind: str, where: str, namespace: str = "") -> Tool:
    match kind:
        case "function":
            return FunctionTool(
                name=need(tool, "name", str, where),
                description=take(tool, "description", str, where),
                parameters=take(tool, "parameters", dict, where),
                strict=take(tool, "strict", bool, where),
                namespace=namespace,
            )
        case "custom":
            return CustomTool(
                name=need(tool, "name", str, where),
                description=take(tool, "description", str, where),
                grammar=take(tool, "format", dict, where),
                namespace=namespace,
            )
        case _:
            return OpaqueTool(kind, where)


def _tool_choice(body: JSON) -> ToolChoice | None:
    where = "tool_choice"
    match body.get(where):
        case None:
            return None
        case "auto":
            return "auto"
        case "none":
            return "none"
        case "required":
            return "required"
        case str(word):
            raise unknown(word, where, "'auto', 'none', 'required'")
        case dict(choice):
            pass
        case _:
            raise wrong("a string or an object", where)
    match need(choice, "type", str, where):
        case "function" | "custom" as kind:
            return _named(choice, kind, where)
        case "allowed_tools":
            return _allowed(choice, where)
        case kind:
            return OpaqueChoice(kind)


def _named(choice: JSON, kind: Literal["function", "custom"], where: str) -> NamedTool:
    namespace = take(choice, "namespace", str, where) or ""
    return NamedTool(kind, need(choice, "name", str, where), namespace)


def _allowed(choice: JSON, where: str) -> ToolChoice:
    mode = need(choice, "mode", str, where)
    if mode not in {"auto", "required"}:
        raise unknown(mode, join(where, "mode"), "'auto', 'required'")
    tools: list[NamedTool] = []
    for path, tool in objects(need(choice, "tools", list, where), join(where, "tools")):
        match need(tool, "type", str, path):
            case "function" | "custom" as kind:
                tools.append(_named(tool, kind, path))
            case _:  # one hosted tool among them, and only this format can say the choice
                return OpaqueChoice("allowed_tools")
    return AllowedTools("required" if mode == "required" else "auto", tools)


# The conversation.


def _conversation(body: JSON) -> list[Item]:
    items: list[Item] = []
    if instructions := take(body, "instructions", str):
        items.append(Message(role="system", content=[Text(instructions)]))
    given = body.get("input")
    if given is None:
        # The conversation may lie with the server.
        if not any(body.get(name) for name in ("previous_response_id", "prompt", "conversation")):
            raise missing("input")
    elif isinstance(given, str):
        items.append(Message(role="user", content=[Text(given)]))
    elif isinstance(given, list):
        for where, item in objects(given, "input"):
            items.extend(_item(item, where))
    else:
        raise wrong("a string or an array", "input")
    return items


def _item(item: JSON, where: str) -> list[Item]:
    kind = take(item, "type", str, where)
    if kind is None:
        if "role" not in item:
            if take(item, "id", str, where) is None:
                raise missing(join(where, "type"))
            return [OpaqueItem("item_reference", where)]  # the one type that may be left out
        kind = "message"
    match kind:
        case "message":
            role = need(item, "role", str, where)
            if role not in get_args(Role):
                raise unknown(role, join(where, "role"), ", ".join(map(repr, get_args(Role))))
            content, foreign = _content(item, "content", where)
            return [Message(role=cast("Role", role), content=content), *foreign]
        case "function_call" | "custom_tool_call":
            custom = kind == "custom_tool_call"
            return [
                ToolCall(
                    call_id=need(item, "call_id", str, where),
                    name=need(item, "name", str, where),
                    arguments=need(item, "input" if custom else "arguments", str, where),
                    custom=custom,
                    namespace=take(item, "namespace", str, where) or "",
                )
            ]
        case "function_call_output" | "custom_tool_call_output":
            call_id = need(item, "call_id", str, where)
            content, foreign = _content(item, "output", where)
            custom = kind == "custom_tool_call_output"
            return [ToolResult(call_id=call_id, content=content, custom=custom), *foreign]
        case "reasoning":
            return [
                Reasoning(
                    id=take(item, "id", str, where) or "",
                    summary=_texts(item, "summary", where),
                    thought=_texts(item, "content", where),
                    encrypted=take(item, "encrypted_content", str, where) or None,
                )
            ]
        case _:
            return [OpaqueItem(kind, where)]


def _texts(item: JSON, key: str, where: str) -> list[str]:
    parts = objects(take(item, key, list, where) or [], join(where, key))
    return [need(part, "text", str, path) for path, part in parts]


def _content(item: JSON, key: str, where: str) -> tuple[list[Content], list[Item]]:
    """Read the parts of a message or a tool result; see `read_content`."""
    path = join(where, key)
    value = item.get(key)
    if value is None:
        raise missing(path)
    return read_content(value, path, _part)


def _part(part: JSON, kind: str, where: str) -> Content | None:
    match kind:
        case "input_text" | "output_text" | "text":
            return Text(need(part, "text", str, where))
        case "refusal":
            return Refusal(need(part, "refusal", str, where))
        case "input_image" | "image_url":  # the second as in chat, which some clients send here
            return _image(part, where)
        case "input_file":
            file = File(
                file_id=take(part, "file_id", str, where),
                filename=take(part, "filename", str, where),
                data=take(part, "file_data", str, where),
                url=take(part, "file_url", str, where),
            )
            if file.file_id is None and file.data is None and file.url is None:
                raise missing(join(where, "file_data"))
            return file
        case "input_audio":
            audio = need(part, "input_audio", dict, where)
            place = join(where, "input_audio")
            return Audio(need(audio, "data", str, place), need(audio, "format", str, place))
        case _:
            return None


def _image(part: JSON, where: str) -> Image:
    detail = take_detail(part, where)
    file_id = take(part, "file_id", str, where)
    path = join(where, "image_url")
    match part.get("image_url"):
        case None:
            if file_id is None:
                raise missing(path)
            return Image(file_id=file_id, detail=detail)
        case str(url):
            return Image(url=url, file_id=file_id, detail=detail)
        case dict(nested):
            inner = take_detail(nested, path)
            url = need(nested, "url", str, path)
            return Image(url=url, file_id=file_id, detail=detail or inner)
        case _:
            raise wrong("a string", path)
