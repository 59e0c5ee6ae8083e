"""The laws of a whole stream, which no schema of one event can say.

`check_chat_stream` and `check_responses_stream` take the bytes that a client got and raise
`LawBroken`; `check_failed_stream` takes those of a stream that broke on the way. All of them
return the parsed events, so that a test can go on to look at the content.

They know nothing of our code: the laws are those of OpenAI's API reference.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .schemas import check_chat_chunk, check_error, check_response, check_responses_event


Json = dict[str, Any]


class LawBroken(AssertionError):
    """A stream is not what its API promises."""


def _must(holds: object, law: str) -> None:
    if not holds:
        raise LawBroken(law)


# The shape of the bytes.


_FRAME = re.compile(rb"(?:event: ([a-z._]+)\n)?data: ([^\r\n]+)\n\n|: [^\r\n]*\n\n")


def frames(data: bytes) -> list[tuple[str, str]]:
    """The (event name, data) of every frame, read strictly: one line of data, LF, a blank line."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(data):
        match = _FRAME.match(data, at)
        if match is None:
            raise LawBroken(f"no whole frame at byte {at}: {data[at : at + 120]!r}")
        at = match.end()
        if match[2] is not None:
            found.append(((match[1] or b"").decode(), match[2].decode("utf-8", "strict")))
    return found


# Chat.


def check_chat_stream(data: bytes, *, n: int | None = 1, usage: bool | None = False) -> list[Json]:
    """A good chat stream of `n` choices. `usage`: it was asked for. None = either will do."""
    shown = frames(data)
    _must(shown and shown[-1] == ("", "[DONE]"), "[DONE] is the last frame")
    chunks = _chat_chunks(shown[:-1])
    finished = {
        choice["index"]
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["finish_reason"]
    }
    begun = {choice["index"] for chunk in chunks for choice in chunk["choices"]}
    expected_choices = begun if n is None else set(range(n))
    _must(finished == expected_choices, f"{n} choices finish, not {sorted(finished)}")
    reports = [number for number, chunk in enumerate(chunks) if chunk.get("usage")]
    bare = [number for number, chunk in enumerate(chunks) if not chunk["choices"]]
    _must(reports == bare, "usage comes with empty choices, and only usage does")
    if usage is not None:
        expected = [len(chunks) - 1] if usage else []
        _must(reports == expected, "usage comes once, last, and only if it was asked for")
    return chunks


def _chat_chunks(shown: list[tuple[str, str]]) -> list[Json]:
    """Check everything that holds for a chat stream up to where it ends or breaks."""
    chunks: list[Json] = []
    choices: dict[int, _ChatChoice] = {}
    for name, text in shown:
        _must(not name, "a chat stream has no event lines")
        _must(text != "[DONE]", "[DONE] comes once")
        chunk = check_chat_chunk(json.loads(text))
        for field in ("id", "created", "model"):
            _must(chunk[field] == (chunks or [chunk])[0][field], f"{field} never changes")
        _must(chunk["id"], "a chat stream has an id")
        for choice in chunk["choices"]:
            choices.setdefault(choice["index"], _ChatChoice()).take(choice)
        chunks.append(chunk)
    return chunks


class _ChatChoice:
    def __init__(self) -> None:
        self.begun = False
        self.finished = False
        self.calls: dict[int, str] = {}

    def take(self, choice: Json) -> None:
        delta = choice["delta"]
        _must(not self.finished, "nothing follows the finish_reason of a choice")
        _must(("role" in delta) != self.begun, "the role comes first, and once")
        self.begun = True
        for call in delta.get("tool_calls", ()):
            index = call["index"]
            body = call.get("function") or call.get("custom") or {}
            if index not in self.calls:
                _must(index == len(self.calls), "tool calls are numbered as they appear")
                _must(call.get("id") and call.get("type"), "a tool call begins with id and type")
                _must(body.get("name"), "a tool call begins with its name")
                _must(call["id"] not in self.calls.values(), "every tool call has an id of its own")
                self.calls[index] = call["id"]
            else:
                again = {"id", "type"} & call.keys() or {"name"} & body.keys()
                _must(not again, "id, type and name of a tool call come once: clients join them")
        self.finished = choice["finish_reason"] is not None


# Responses.


TERMINAL = {"response.completed", "response.incomplete", "response.failed"}

_GROWTH = {
    "response.output_text": ("content_index", "output_text", "text"),
    "response.refusal": ("content_index", "refusal", "refusal"),
    "response.reasoning_text": ("content_index", "reasoning_text", "text"),
    "response.reasoning_summary_text": ("summary_index", "summary_text", "text"),
}
"""Prefix of delta and done -> the field of the part's number, its type, and its text."""

_INPUTS = {
    "response.function_call_arguments": ("function_call", "arguments"),
    "response.custom_tool_call_input": ("custom_tool_call", "input"),
}


def check_responses_stream(data: bytes, *, status: str | None = "completed") -> list[Json]:
    """A good Responses stream, which ends with `status` (None: completed or incomplete)."""
    events = _responses_events(data)
    last = events[-1]["type"]
    wanted = (
        {"response.completed", "response.incomplete"} if status is None else {f"response.{status}"}
    )
    _must(last in wanted, f"the stream ends with {wanted}, not {last}")
    return [event for event in events if event["type"] != "keepalive"]


def _responses_events(data: bytes) -> list[Json]:
    events: list[Json] = []
    reply = _Reply()
    for number, (name, text) in enumerate(frames(data)):
        _must(text != "[DONE]", "a Responses stream has no [DONE]")
        event = json.loads(text)
        _must(event.get("type") == name, f"the event line says the type: {name!r}")
        _must(event.get("sequence_number") == number, f"sequence_number {number}: {text[:200]}")
        events.append(event)
        if name == "keepalive":
            # Sent by the live service, and in no document.
            _must(number > 0 and not reply.over, "a beat comes between created and the end")
            continue
        check_responses_event(event)
        try:
            reply.take(name, event)
        except LawBroken as broken:
            raise LawBroken(f"{broken}\nat {text[:400]}") from None
    _must(reply.over, "the stream ends with completed, incomplete or failed")
    return events


class _Open:
    """An output item that is being streamed."""

    def __init__(self, item: Json) -> None:
        self.item = item
        self.parts: dict[tuple[str, int], _OpenPart] = {}
        self.text: list[str] = []  # of a tool call
        self.text_done: str | None = None


class _OpenPart:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.text: list[str] = []
        self.annotations: list[Any] = []
        self.text_done: str | None = None
        self.ended = False


class _Reply:
    """The state of one Responses stream."""

    def __init__(self) -> None:
        self.over = False
        self.response: Json | None = None
        self.count = 0
        self.open: dict[int, _Open] = {}
        self.done: dict[int, Json] = {}
        self.ids: set[str] = set()

    def take(self, name: str, event: Json) -> None:
        _must(not self.over, "nothing follows the end")
        self.count += 1
        if self.count == 1:
            _must(name == "response.created", "response.created is first")
        elif self.count == 2:
            _must(name in {"response.in_progress", "response.failed"}, "in_progress is second")
        if "response" in event:
            self._take_response(name, event["response"])
        elif name == "response.output_item.added":
            self._add_item(event)
        elif name == "response.output_item.done":
            self._end_item(event)
        elif name in {"response.content_part.added", "response.reasoning_summary_part.added"}:
            self._add_part(event)
        elif name in {"response.content_part.done", "response.reasoning_summary_part.done"}:
            self._end_part(event)
        elif name == "response.output_text.annotation.added":
            part = self._part_of(event)
            number = event["annotation_index"]
            _must(number == len(part.annotations), "annotations are numbered as they appear")
            part.annotations.append(event["annotation"])
        else:
            self._grow(name, event)

    def _take_response(self, name: str, response: Json) -> None:
        first = self.response
        if first is None:
            first = self.response = response
        for field in ("id", "created_at", "model"):
            _must(response[field] == first[field], f"{field} of the response never changes")
        if name in TERMINAL:
            _must(response["status"] == name.removeprefix("response."), "the status is the event's")
            self.over = True
            if name == "response.failed":
                _must(response["error"], "a failed response says its error")
                return
            _must(not response["error"], "only a failed response has an error")
            incomplete = name == "response.incomplete"
            _must(bool(response["incomplete_details"]) == incomplete, "incomplete says why")
            _must(not self.open, f"items {sorted(self.open)} never ended")
            streamed = [self.done[number] for number in range(len(self.done))]
            _must(response["output"] == streamed, "the final output is what was streamed")
        else:
            _must(self.count <= 2, f"{name} comes at the beginning")
            _must(response["status"] == "in_progress", "a response begins in progress")
            _must(response["output"] == [], "a response begins without output")

    def _add_item(self, event: Json) -> None:
        index, item = event["output_index"], event["item"]
        _must(index == len(self.open) + len(self.done), "items are numbered as they appear")
        _must(item.get("id") and item["id"] not in self.ids, "every item has an id of its own")
        _must(item.get("status", "in_progress") != "completed", "an item begins unfinished")
        for field in ("content", "summary"):
            _must(not item.get(field), "an item begins empty")
        self.ids.add(item["id"])
        self.open[index] = _Open(item)

    def _item_of(self, event: Json) -> _Open:
        opened = self.open.get(event["output_index"])
        if opened is None:
            raise LawBroken(f"item {event['output_index']} is not open")
        _must(event["item_id"] == opened.item["id"], "item_id is that of output_index")
        return opened

    def _part_of(self, event: Json) -> _OpenPart:
        field = "summary_index" if "summary_index" in event else "content_index"
        part = self._item_of(event).parts.get((field, event[field]))
        if part is None or part.ended:
            raise LawBroken(f"{field} {event[field]} is not open")
        return part

    def _add_part(self, event: Json) -> None:
        opened = self._item_of(event)
        field = "summary_index" if "summary_index" in event else "content_index"
        before = [number for kind, number in opened.parts if kind == field]
        _must(event[field] == len(before), "parts are numbered as they appear")
        part = event["part"]
        _must(not (part.get("text") or part.get("refusal")), "a part begins empty")
        opened.parts[field, event[field]] = _OpenPart(part["type"])

    def _end_part(self, event: Json) -> None:
        part, said = self._part_of(event), event["part"]
        _must(said["type"] == part.kind, "a part keeps its type")
        text = said["refusal"] if part.kind == "refusal" else said["text"]
        _must(part.text_done is not None, "the text is done before its part")
        _must(text == part.text_done, "the part's text is what was streamed")
        _must(said.get("annotations", []) == part.annotations, "annotations were streamed")
        part.ended = True

    def _grow(self, name: str, event: Json) -> None:
        prefix, _, verb = name.rpartition(".")
        if prefix in _GROWTH:
            _, kind, text = _GROWTH[prefix]
            part = self._part_of(event)
            _must(part.kind == kind, f"a part of type {part.kind} grows as one")
            _must(part.text_done is None, "a text grows until it is done")
            if verb == "delta":
                part.text.append(event["delta"])
            else:
                part.text_done = event[text]
                _must(event[text] == "".join(part.text), "the done text is the deltas, joined")
        elif prefix in _INPUTS:
            kind, text = _INPUTS[prefix]
            opened = self._item_of(event)
            _must(opened.item["type"] == kind, f"a {kind} grows as one")
            _must(opened.text_done is None, "a tool call grows until it is done")
            if verb == "delta":
                opened.text.append(event["delta"])
            else:
                opened.text_done = event[text]
                _must(event[text] == "".join(opened.text), "the done text is the deltas, joined")
        else:  # progress of a hosted tool
            self._item_of(event)

    def _end_item(self, event: Json) -> None:
        item = event["item"]
        opened = self._item_of({**event, "item_id": item.get("id")})
        _must(all(part.ended for part in opened.parts.values()), "parts end before their item")
        _must(item["type"] == opened.item["type"], "an item keeps its type")
        for list_field, index_field in (("content", "content_index"), ("summary", "summary_index")):
            texts = [
                part.text_done for (field, _), part in opened.parts.items() if field == index_field
            ]
            if item["type"] in {"message", "reasoning"}:
                said = [
                    part["refusal"] if part["type"] == "refusal" else part["text"]
                    for part in item.get(list_field) or ()
                ]
                _must(said == texts, f"the item's {list_field} is what was streamed")
        for kind, text in _INPUTS.values():
            if item["type"] == kind:
                for field in ("call_id", "name"):
                    _must(item[field] == opened.item[field], f"a tool call keeps its {field}")
                _must(opened.text_done is not None, "a tool call's text is done before its item")
                _must(item[text] == opened.text_done, "a tool call's text is what was streamed")
        _must(item.get("status") != "in_progress", "an item that is done is not in progress")
        del self.open[event["output_index"]]
        self.done[event["output_index"]] = item


# Broken streams.


def check_failed_stream(data: bytes, api: str) -> tuple[list[Json], Json]:
    """A stream that broke: legal so far, then the API's own word for a failure, and no good end.

    Returns the events before the failure, and the error object.
    """
    if api == "chat":
        shown = frames(data)
        _must(shown, "a failed stream says so")
        _must(all(text != "[DONE]" for _, text in shown), "a broken stream has no [DONE]")
        error = check_error(json.loads(shown[-1][1]))
        return _chat_chunks(shown[:-1]), error["error"]
    events = _responses_events(data)
    _must(events[-1]["type"] == "response.failed", "a broken stream ends with response.failed")
    check_response(events[-1]["response"])
    return events[:-1], events[-1]["response"]["error"]
