"""The items of the normal form -> the messages of a request to a chat server.

The law of this file: what one reply said (reasoning, words, calls in any order) is one assistant
message, and the results of its calls stand right behind it, because chat servers refuse anything
else. The servers that a translated request goes to are mostly small ones, so it says things in
the form that most of them know:

* `developer` is sent as `system`, and the system messages at the beginning are one (the chat
  templates of Qwen and Mistral refuse a second one);
* one text is a plain string, and so are several texts of an assistant or of a tool;
* a tool message carries text alone: pictures of a tool's result follow in a user message.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ...errors import BadRequest
from ...request import (
    Audio,
    Content,
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
from .names import Names
from .unwrap import wrap_input
from .words import GAP, write_call, write_sealed


RUN_BY_CLIENT = frozenset({"computer_call", "local_shell_call", "shell_call", "apply_patch_call"})
"""Calls whose answer, `<type>_output`, comes from the client. Without it the model cannot go on."""


class _Turn:
    """One message, with the results that belong behind it."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message
        self.words: dict[str, list[str]] = {}  # texts of the message that are joined at its end
        self.heard: list[str | list[dict[str, Any]]] = []  # contents that are one in the end
        self.results: list[dict[str, Any]] = []
        self.shown: list[dict[str, Any]] = []  # what tools have shown beside text

    def messages(self) -> list[dict[str, Any]]:
        """The turn as it is sent."""
        for name, pieces in self.words.items():
            self.message[name] = GAP.join(pieces)
        if self.heard:
            self.message["content"] = _together(self.heard)
        elif self.message and not self.message["content"]:
            # No words are null where there is something else, as with OpenAI.
            other = self.message.keys() & {"tool_calls", "refusal"}
            self.message["content"] = None if other else ""
        shown = [{"role": "user", "content": self.shown}] if self.shown else []
        own = [self.message] if self.message else []
        return [*own, *self.results, *shown]


class History:
    """The conversation as it is being written. `dropped` are the names of what is left out."""

    def __init__(self, names: Names, *, wrap: bool) -> None:
        self._names = names
        self._wrap = wrap
        self.dropped: dict[str, None] = {}  # a set that keeps its order
        self._turns: list[_Turn] = []
        self._reply: _Turn | None = None  # the assistant's turn that is still being said
        self._of_call: dict[str, _Turn] = {}
        self._unanswered: dict[str, deque[str]] = {}

    def write(self, items: list[Item]) -> list[dict[str, Any]]:
        """Write all items. Raises `BadRequest` where the answer would be wrong without one."""
        for item in items:
            match item:
                case Message(role="assistant"):
                    self._say(item)
                case Message():
                    self._hear(item)
                case Reasoning():
                    self._think(item)
                case ToolCall():
                    self._call(item)
                case ToolResult():
                    self._result(item)
                case _:
                    self._opaque(item)
        for waiting in filter(None, self._unanswered.values()):
            raise BadRequest(
                f"{waiting[0]} waits for an answer that is not there", param=waiting[0]
            )
        return [message for turn in self._turns for message in turn.messages()]

    def _open(self) -> _Turn:
        """The assistant's turn of this moment."""
        if self._reply is None:
            self._reply = _Turn({"role": "assistant", "content": ""})
            self._turns.append(self._reply)
        return self._reply

    def _say(self, item: Message) -> None:
        turn = self._open()
        words = "".join(part.text for part in item.content if isinstance(part, Text))
        refusal = "".join(part.text for part in item.content if isinstance(part, Refusal))
        if words:
            turn.words.setdefault("content", []).append(words)
        if refusal:
            turn.words.setdefault("refusal", []).append(refusal)
        if item.name is not None and turn.message.setdefault("name", item.name) != item.name:
            self._drop("messages[].name (of one that is joined to another)")
        for part in item.content:
            if not isinstance(part, Text | Refusal):
                self._drop(f"input[].content[] (an assistant's {type(part).__name__.lower()})")

    def _hear(self, item: Message) -> None:
        self._reply = None
        role = "user" if item.role == "user" else "system"
        content = _content(item.content)
        first = self._turns[0] if len(self._turns) == 1 else None
        if role == "system" and first is not None and first.message.get("role") == "system":
            first.heard.append(content)
            if item.name is not None and item.name != first.message.get("name"):
                self._drop("messages[].name (of one that is joined to another)")
            return
        turn = _Turn({"role": role, "content": ""})
        turn.heard.append(content)
        if item.name is not None:
            turn.message["name"] = item.name
        self._turns.append(turn)

    def _think(self, item: Reasoning) -> None:
        words = GAP.join([*item.thought, *item.summary])
        if not words and item.encrypted is None:
            self._drop("input[] (reasoning that is only an id)")
            return
        turn = self._open()
        if words:
            turn.words.setdefault("reasoning_content", []).append(words)
        if item.encrypted is not None:
            details = turn.message.setdefault("reasoning_details", [])
            details.append(write_sealed(item.encrypted, item.id, len(details), None))

    def _call(self, item: ToolCall) -> None:
        turn = self._open()
        custom, text = item.custom, item.arguments
        if custom and self._wrap:
            custom, text = False, wrap_input(text)
        name = self._names.of(item.namespace, item.name)
        call = write_call(item.call_id, name, text, custom=custom)
        turn.message.setdefault("tool_calls", []).append(call)
        self._of_call[item.call_id] = turn

    def _result(self, item: ToolResult) -> None:
        self._reply = None
        turn = self._of_call.get(item.call_id)
        if turn is None:  # an orphan: the server will say what it thinks of it
            turn = _Turn({})
            self._turns.append(turn)
        words = [part.text for part in item.content if isinstance(part, Text | Refusal)]
        turn.results.append(
            {"role": "tool", "tool_call_id": item.call_id, "content": "\n".join(words)}
        )
        shown = [part for part in item.content if not isinstance(part, Text | Refusal)]
        if shown:
            turn.shown.append({"type": "text", "text": f"Shown by the tool call {item.call_id}:"})
            turn.shown += map(_part, shown)
            self._drop("input[].output[] (a picture or a file, sent in a user message)")

    def _opaque(self, item: OpaqueItem) -> None:
        in_content = item.where.endswith("]") and "]." in item.where
        if item.type == "item_reference":
            raise BadRequest(
                f"{item.where} names an item by its id. This upstream keeps none, and this process "
                "remembers only items of its own replies, for a while: send the item itself "
                "(clients do with store = false)",
                param=item.where,
            )
        if in_content:
            raise BadRequest(
                f"{item.where} ({item.type}) cannot be sent to this upstream", param=item.where
            )
        if item.type in RUN_BY_CLIENT:
            self._unanswered.setdefault(item.type, deque()).append(item.where)
        elif places := self._unanswered.get(item.type.removesuffix("_output")):
            places.popleft()
        self._drop(f"{item.where} ({item.type})")

    def _drop(self, name: str) -> None:
        self.dropped[name] = None


def _together(contents: list[str | list[dict[str, Any]]]) -> str | list[dict[str, Any]]:
    """Several contents as one: a string if all of them are."""
    words = [content for content in contents if isinstance(content, str)]
    if len(words) == len(contents):
        return GAP.join(filter(None, words))
    return [
        part
        for content in contents
        for part in ([{"type": "text", "text": content}] if isinstance(content, str) else content)
    ]


def _content(content: list[Content]) -> str | list[dict[str, Any]]:
    match content:
        case []:
            return ""
        case [Text(text)]:
            return text
        case _:
            return [_part(part) for part in content]


def _part(part: Content) -> dict[str, Any]:
    match part:
        case Text() | Refusal():
            return {"type": "text", "text": part.text}
        case Image():
            if part.url is None:
                raise BadRequest("the upstream takes no pictures by file_id", param="input")
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": part.url, **detail}}
        case Audio():
            sound = {"data": part.data, "format": part.format}
            return {"type": "input_audio", "input_audio": sound}
        case _:
            if part.url is not None:
                raise BadRequest("the upstream takes no files by URL", param="input")
            fields = {
                "file_id": part.file_id,
                "filename": part.filename,
                "file_data": part.data,
            }
            known = {name: value for name, value in fields.items() if value is not None}
            return {"type": "file", "file": known}
