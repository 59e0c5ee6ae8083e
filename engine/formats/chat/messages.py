"""The messages of a Chat Completions request -> the items of the normal form.

The law of this file: one message may become several items, in the order in which they were said:
reasoning, words, tool calls. Nothing is made up: an assistant's message with tool calls and no
words gives no empty message, but for the speaker's name.

Old forms are read as what they mean today: `function_call` and the role `function` as a tool call
and its result, paired by name, with an id made of the message's number.

A part that we do not know stands behind its message as an opaque item with its place: towards
another format it is named, and not lost in silence.
"""

from __future__ import annotations

from ... import jsontext
from ...request import (
    Audio,
    Content,
    File,
    Image,
    Item,
    Message,
    OpaqueItem,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from ..checks import (
    JSON,
    join,
    missing,
    need,
    objects,
    read_content,
    take,
    take_detail,
    unknown,
    wrong,
)


ROLES = "'system', 'developer', 'user', 'assistant', 'tool', 'function'"


def read_messages(body: JSON) -> list[Item]:
    """Read `messages`. Raises `BadRequest` with `param`."""
    messages = take(body, "messages", list)
    if not messages:
        raise missing("messages")
    reader = _Reader()
    for where, message in objects(messages, "messages"):
        reader.read(message, where)
    return reader.items


class _Reader:
    """The items so far, and the calls that results may answer."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._custom: set[str] = set()  # ids of calls of custom tools
        self._legacy: dict[str, str] = {}  # name of a function -> id of its last call

    def read(self, message: JSON, where: str) -> None:
        match need(message, "role", str, where):
            case "system" | "developer" | "user" as role:
                content, foreign = _content(message, where)
                if message["content"] in (None, []):  # only an assistant may say nothing
                    raise missing(join(where, "content"))
                name = take(message, "name", str, where)
                self.items.append(Message(role=role, content=content, name=name))
                self.items += foreign
            case "assistant":
                self._assistant(message, where)
            case "tool":
                call_id = need(message, "tool_call_id", str, where)
                self._result(call_id, message, where)
            case "function":
                name = need(message, "name", str, where)
                self._result(self._legacy.get(name, f"call_{name}"), message, where)
            case role:
                raise unknown(role, join(where, "role"), ROLES)

    def _result(self, call_id: str, message: JSON, where: str) -> None:
        content, foreign = _content(message, where)
        custom = call_id in self._custom
        self.items += [ToolResult(call_id=call_id, content=content, custom=custom), *foreign]

    def _assistant(self, message: JSON, where: str) -> None:
        self.items += _reasoning(message, where)
        content, foreign = _content({"content": None, **message}, where)
        content = [part for part in content if part != Text("")]
        refusal = take(message, "refusal", str, where)
        if refusal:
            content.append(Refusal(refusal))
        calls = self._calls(message, where)
        name = take(message, "name", str, where)
        if content or name or not calls:
            self.items.append(Message(role="assistant", content=content, name=name))
        self.items += foreign
        if message.get("audio") is not None:
            self.items.append(OpaqueItem("audio", join(where, "audio")))
        self.items += calls

    def _calls(self, message: JSON, where: str) -> list[ToolCall]:
        calls: list[ToolCall] = []
        entries = take(message, "tool_calls", list, where) or []
        for path, entry in objects(entries, join(where, "tool_calls")):
            call_id = need(entry, "id", str, path)
            match take(entry, "type", str, path) or "function":
                case "function":
                    body, place = need(entry, "function", dict, path), f"{path}.function"
                    calls.append(_call(call_id, body, place))
                case "custom":
                    body, place = need(entry, "custom", dict, path), f"{path}.custom"
                    self._custom.add(call_id)
                    calls.append(
                        ToolCall(
                            call_id=call_id,
                            name=need(body, "name", str, place),
                            arguments=take(body, "input", str, place) or "",
                            custom=True,
                        )
                    )
                case kind:
                    raise unknown(kind, join(path, "type"), "'function', 'custom'")
        legacy = take(message, "function_call", dict, where)
        if legacy is not None and not calls:
            number = where.removeprefix("messages[").removesuffix("]")
            call = _call(f"call_{number}", legacy, join(where, "function_call"))
            self._legacy[call.name] = call.call_id
            calls.append(call)
        return calls


def _call(call_id: str, body: JSON, where: str) -> ToolCall:
    match body.get("arguments"):
        case None:
            arguments = ""
        case str(text):
            arguments = text
        case dict(value):  # against the schema, but what some agents send
            arguments = jsontext.dumps(value).decode()
        case _:
            raise wrong("a string", join(where, "arguments"))
    return ToolCall(call_id=call_id, name=need(body, "name", str, where), arguments=arguments)


def _reasoning(message: JSON, where: str) -> list[Reasoning]:
    """Read an assistant's earlier reasoning, in the fields that chat servers gave it in."""
    found: list[Reasoning] = []
    spoken = [take(message, name, str, where) for name in ("reasoning_content", "reasoning")]
    thought, summary = "", ""
    details = take(message, "reasoning_details", list, where) or []
    for _, detail in objects(details, join(where, "reasoning_details")):
        match detail:
            case {"type": "reasoning.encrypted", "data": str(data)}:
                own_id = detail.get("id")
                found.append(
                    Reasoning(id=own_id if isinstance(own_id, str) else "", encrypted=data)
                )
            case {"type": "reasoning.summary", "summary": str(text)}:
                summary += text
            case {"type": "reasoning.text", "text": str(text)}:
                thought += text
            case _:
                pass
    # The same words under several names were said once; different ones are all kept.
    thoughts = list(dict.fromkeys(filter(None, [*spoken, thought])))
    if summary in thoughts:
        summary = ""
    if thoughts or summary:
        found = found or [Reasoning()]
        found[0].thought = thoughts
        found[0].summary = [summary] if summary else []
    return found


# Content.


def _content(message: JSON, where: str) -> tuple[list[Content], list[Item]]:
    """Read the parts of a message, and what stands among them and is unknown."""
    path = join(where, "content")
    if "content" not in message:
        raise missing(path)
    value = message["content"]
    return ([], []) if value is None else read_content(value, path, _part)


def _part(part: JSON, kind: str, where: str) -> Content | None:
    match kind:
        case "text" | "input_text" | "output_text":
            return Text(need(part, "text", str, where))
        case "refusal":
            return Refusal(need(part, "refusal", str, where))
        case "image_url" | "input_image":
            return _image(part, where)
        case "input_audio":
            audio, place = need(part, "input_audio", dict, where), join(where, "input_audio")
            return Audio(need(audio, "data", str, place), need(audio, "format", str, place))
        case "file":
            file, place = need(part, "file", dict, where), join(where, "file")
            read = File(
                file_id=take(file, "file_id", str, place),
                filename=take(file, "filename", str, place),
                data=take(file, "file_data", str, place),
            )
            if read.file_id is None and read.data is None:
                raise missing(join(place, "file_data"))
            return read
        case _:
            return None


def _image(part: JSON, where: str) -> Image:
    detail = take_detail(part, where)
    path = join(where, "image_url")
    match part.get("image_url"):
        case None:
            raise missing(path)
        case str(url):
            return Image(url=url, detail=detail)
        case dict(image):
            inner = take_detail(image, path)
            return Image(url=need(image, "url", str, path), detail=inner or detail)
        case _:
            raise wrong("a string or an object", path)
