"""Scripted upstream replies in both wire formats, streamed and whole, made from one description.

A reply is described as its whole form; its stream is derived: the words cut in small pieces, in
the frames that the real services send. These are an upstream's bytes, written by hand after the
API references, and share no code with the encoders under test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal


Json = dict[str, Any]
Api = Literal["chat", "responses"]
APIS: tuple[Api, ...] = ("chat", "responses")

CREATED = 1_790_000_000
MODEL = "upstream-model"


PIECE = 3
"""Characters of a delta, unless a reply says otherwise."""


def pieces(text: str, size: int = PIECE) -> list[str]:
    """The text in small pieces; an empty text is one empty piece."""
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


def frame(data: Json | str, name: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


# Chat.


@dataclass(frozen=True)
class ChatReply:
    """A chat completion: its messages, one for each choice."""

    messages: tuple[Json, ...]
    finish: str = "stop"
    usage: Json = field(
        default_factory=lambda: {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    )
    logprobs: Json | None = None
    extra: Json = field(default_factory=dict)
    """Unknown fields of the completion, and of every chunk."""
    interleaved: bool = False
    """Parallel tool calls grow in turns."""
    piece: int = PIECE

    def whole(self) -> bytes:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": None, "refusal": None, **message},
                "logprobs": self.logprobs,
                "finish_reason": self.finish,
            }
            for index, message in enumerate(self.messages)
        ]
        body = {**self._head("chat.completion"), "choices": choices, "usage": self.usage}
        return json.dumps(body, ensure_ascii=False).encode()

    def stream(self) -> bytes:
        return b"".join(self._frames())

    def _head(self, kind: str) -> Json:
        head = {"id": "chatcmpl-upstream", "object": kind, "created": CREATED, "model": MODEL}
        return {**head, **self.extra}

    def _frames(self) -> Iterator[bytes]:
        head = self._head("chat.completion.chunk")
        by_choice = [list(self._deltas(message)) for message in self.messages]
        for deltas in zip_longest(*by_choice):  # choices grow in turns
            for index, step in enumerate(deltas):
                if step is not None:
                    delta, logprobs = step
                    choice = {"index": index, "delta": delta, "finish_reason": None}
                    if logprobs is not None:
                        choice["logprobs"] = logprobs
                    yield frame({**head, "choices": [choice]})
        for index in range(len(self.messages)):
            choice = {"index": index, "delta": {}, "finish_reason": self.finish}
            yield frame({**head, "choices": [choice]})
        yield frame({**head, "choices": [], "usage": self.usage})
        yield frame("[DONE]")

    def _deltas(self, message: Json) -> Iterator[tuple[Json, Json | None]]:
        yield {"role": "assistant", "content": ""}, None
        rest = dict(message)
        for text in pieces(rest.pop("reasoning_content", "")):
            if text:
                yield {"reasoning_content": text}, None
        if details := rest.pop("reasoning_details", None):
            yield {"reasoning_details": details}, None
        if self.logprobs is not None:
            yield from self._with_logprobs(self.logprobs)
            rest.pop("content")
        for name in ("content", "refusal"):
            words = rest.pop(name, None)
            if isinstance(words, list):  # as some servers do: a list of parts
                for part in words:
                    yield {name: [part]}, None
            elif words:
                for text in pieces(words, self.piece):
                    yield {name: text}, None
        calls = [
            list(self._call(index, call)) for index, call in enumerate(rest.pop("tool_calls", []))
        ]
        if self.interleaved:
            order = [step for steps in zip_longest(*calls) for step in steps if step is not None]
        else:
            order = [step for steps in calls for step in steps]
        for step in order:
            yield {"tool_calls": [step]}, None
        for name, value in rest.items():  # annotations, and what nobody knows
            yield {name: value}, None

    def _with_logprobs(self, logprobs: Json) -> Iterator[tuple[Json, Json | None]]:
        for entry in logprobs["content"]:
            yield {"content": entry["token"]}, {"content": [entry], "refusal": None}

    def _call(self, index: int, call: Json) -> Iterator[Json]:
        kind = call["type"]
        text = "arguments" if kind == "function" else "input"
        yield {"index": index, **call, kind: {**call[kind], text: ""}}
        for piece in pieces(call[kind][text]):
            yield {"index": index, kind: {text: piece}}


# Responses.


@dataclass(frozen=True)
class ResponsesReply:
    """A Response: its output items."""

    output: tuple[Json, ...]
    status: str = "completed"
    reason: str | None = None
    usage: Json = field(
        default_factory=lambda: {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 8,
        }
    )
    extra: Json = field(default_factory=dict)
    """Unknown fields of the Response."""
    interleaved: bool = False
    piece: int = PIECE

    def whole(self) -> bytes:
        return json.dumps(self.response(), ensure_ascii=False).encode()

    def response(self, status: str | None = None) -> Json:
        over = status is None
        details = {"reason": self.reason} if self.reason and over else None
        return {
            "id": "resp_upstream",
            "object": "response",
            "created_at": CREATED,
            "completed_at": CREATED + 1 if over and self.status == "completed" else None,
            "status": status or self.status,
            "error": None,
            "incomplete_details": details,
            "instructions": None,
            "max_output_tokens": None,
            "max_tool_calls": None,
            "model": MODEL,
            "output": list(self.output) if over else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": True,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self.usage if over else None,
            "user": None,
            "metadata": {},
            **self.extra,
        }

    def stream(self) -> bytes:
        events: list[Json] = [
            {"type": f"response.{name}", "response": self.response("in_progress")}
            for name in ("created", "in_progress")
        ]
        per_item = [
            list(_item_events(index, item, self.piece)) for index, item in enumerate(self.output)
        ]
        if self.interleaved:
            begins = [steps[0] for steps in per_item]
            middles = zip_longest(*(steps[1:-1] for steps in per_item))
            events += begins
            events += [step for steps in middles for step in steps if step is not None]
            events += [steps[-1] for steps in per_item]
        else:
            events += [step for steps in per_item for step in steps]
        events.append({"type": f"response.{self.status}", "response": self.response()})
        return b"".join(
            frame({**event, "sequence_number": number}, event["type"])
            for number, event in enumerate(events)
        )


def _item_events(index: int, item: Json, piece: int) -> Iterator[Json]:
    """The events of one output item, from added to done."""
    place = {"output_index": index, "item_id": item.get("id")}
    empties: dict[str, Json] = {
        "message": {"content": []},
        "reasoning": {"summary": []},
        "function_call": {"arguments": ""},
        "custom_tool_call": {"input": ""},
    }
    begun = {**item, **empties.get(item["type"], {})}
    if "status" in item:
        begun["status"] = "in_progress"
    begun.pop("encrypted_content", None)
    if item["type"] == "reasoning":
        begun.pop("content", None)
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    match item["type"]:
        case "message":
            for number, part in enumerate(item["content"]):
                yield from _part_events({**place, "content_index": number}, part, piece)
        case "reasoning":
            for number, part in enumerate(item.get("summary", ())):
                yield from _part_events({**place, "summary_index": number}, part, piece)
            for number, part in enumerate(item.get("content", ())):
                yield from _part_events({**place, "content_index": number}, part, piece)
        case "function_call":
            grown = list(_growth(place, "function_call_arguments", "arguments", item["arguments"]))
            yield from [*grown[:-1], {**grown[-1], "name": item["name"]}]
        case "custom_tool_call":
            yield from _growth(place, "custom_tool_call_input", "input", item["input"])
        case "web_search_call":
            for step in ("in_progress", "searching", "completed"):
                yield {"type": f"response.web_search_call.{step}", **place}
        case _:
            pass
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _growth(
    place: Json, name: str, field_name: str, text: str, piece: int = PIECE, **more: Any
) -> Iterator[Json]:
    for words in pieces(text, piece):
        if words:
            yield {"type": f"response.{name}.delta", **place, "delta": words, **more}
    yield {"type": f"response.{name}.done", **place, field_name: text, **more}


def _part_events(place: Json, part: Json, piece: int) -> Iterator[Json]:
    kind = part["type"]
    text_field = "refusal" if kind == "refusal" else "text"
    around = "reasoning_summary_part" if kind == "summary_text" else "content_part"
    empty = {**part, text_field: ""}
    for listing in ("annotations", "logprobs"):
        if listing in empty:
            empty[listing] = []
    yield {"type": f"response.{around}.added", **place, "part": empty}
    name = {
        "output_text": "output_text",
        "refusal": "refusal",
        "summary_text": "reasoning_summary_text",
        "reasoning_text": "reasoning_text",
    }[kind]
    if part.get("logprobs"):
        for entry in part["logprobs"]:
            delta = {"delta": entry["token"], "logprobs": [entry]}
            yield {"type": f"response.{name}.delta", **place, **delta}
        done = {"text": part["text"], "logprobs": part["logprobs"]}
        yield {"type": f"response.{name}.done", **place, **done}
    else:
        more: Json = {"logprobs": []} if kind == "output_text" else {}
        yield from _growth(place, name, text_field, part[text_field], piece, **more)
    for number, annotation in enumerate(part.get("annotations", ())):
        yield {
            "type": "response.output_text.annotation.added",
            **place,
            "annotation_index": number,
            "annotation": annotation,
        }
    yield {"type": f"response.{around}.done", **place, "part": part}
