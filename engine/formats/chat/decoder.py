"""Chat Completions as servers really write it -> events. One object for one reply.

The law of this file: read everything that any server is known to send, crash on nothing, and
never take a broken reply for a whole one.

How a stream ends. `[DONE]` with a finish reason for at least one choice, or a clean end of bytes
with one for every choice that has appeared, is a good end. Everything else was cut:
llama_cpp.server sends `[DONE]` and no reason when a second request interrupts it, and transformers
sends reasons and never `[DONE]`.

Read although OpenAI's schema knows it not, or differently: `choices` that are missing or empty
(Azure's first chunk; usage), a whole `message` where a `delta` belongs, null for anything, content
as a list of parts (Mistral), `reasoning_content` / `reasoning` / `reasoning_details`,
`function_call` beside `tool_calls`, usage on any chunk, float or missing `created`, missing `id`,
`model`, `index` and `finish_reason`, and an error as an object, a text, or a chunk of its own.

What has no place in the normal form is kept as a patch (`words.py`) on the first event that the
chunk, or the choice in it, gave; or on an `Annotated` of the whole reply if it gave none.
"""

from __future__ import annotations

import re
from typing import Any

from ... import jsontext
from ...accumulate import WEIGHT
from ...errors import RemoteProtocolError, Truncated
from ...events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    FinishReason,
    ItemEnded,
    ItemStarted,
    PartDelta,
    PartKind,
    PartStarted,
    Started,
    UsageReported,
)
from ...request import Request
from ..openai_errors import error_object_to_info
from ..shapes import read_logprobs, uncounted
from ..stencil import Repeat
from ..wire import DONE, parse_frame
from .calls import Calls, Tally
from .delta import (
    REASONING,
    Parts,
    Thought,
    listed,
    loose_logprobs,
    patch_of_delta,
    thought_of,
)
from .names import Names
from .words import (
    FINISH,
    NAME,
    STICKY,
    TEXTS,
    USAGE,
    beside_citation,
    integer,
    keep_sealed,
    read_citation,
    read_usage,
    tagged,
)


_CHUNK = frozenset({"id", "object", "created", "model", "choices", "usage"})
_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
MAX_CHOICES = 128
"""Choices that are read if no more were asked for: the bound of `n` in OpenAI's API."""

_NOT_FOR_IDS = re.compile(r"[^A-Za-z0-9]")


class _Choice:
    """What is open in one choice. Item numbers are -1 while there is none."""

    __slots__ = (
        "calls",
        "citations",
        "finished",
        "index",
        "message",
        "parts",
        "reasoned",
        "reasoning",
        "thoughts",
    )

    def __init__(self, index: int, calls: Calls) -> None:
        self.index = index
        self.calls = calls
        self.citations = 0
        self.finished = False
        self.message = -1
        self.parts: dict[PartKind, int] = {}  # of the message
        self.reasoning = -1
        self.reasoned = False  # has had a reasoning item already
        self.thoughts: dict[PartKind, int] = {}  # parts of the reasoning item


def _forget(text: str) -> None:
    """Keep nothing: a chat reply has no words that come twice."""


_REPEAT = Repeat(frozenset({b"content", b"refusal", b"reasoning_content", b"reasoning"}), _forget)


class ChatDialect:
    """The `Dialect` of Chat Completions."""

    def __init__(self, request: Request) -> None:
        self._expected = request.n
        self._obfuscation = bool(request.include_obfuscation)
        self._names = Names(request)
        self._choices: dict[int, _Choice] = {}
        self._unfinished = 0
        self._tally = Tally()
        self._patches = 0
        self._started = False
        self._early: dict[str, Any] = {}
        self._sticky: dict[str, Any] = {}

    @property
    def held(self) -> int:
        """See `Dialect.held`."""
        return self._tally.held

    @property
    def finished(self) -> bool:
        """Whether every choice that was asked for, and every one seen, has its finish reason."""
        return len(self._choices) >= self._expected and not self._unfinished

    def on_frame(self, name: bytes, data: bytes, out: list[Event]) -> None:
        """See `Dialect.on_frame`."""
        if data == DONE:
            if not any(choice.finished for choice in self._choices.values()):
                raise Truncated("the upstream said [DONE] before any finish reason")
            self._end(out)
            return
        chunk = parse_frame(data)
        if not isinstance(chunk, dict):
            raise RemoteProtocolError("an event of the upstream is not a JSON object")
        if name == b"error" or _is_error(chunk):
            out.append(self._failure(chunk))
            return
        self._take(chunk, out)

    def repeats(self, event: PartDelta) -> Repeat | None:
        """See `Dialect.repeats`. Arguments of calls are parsed: some are unwrapped on the way."""
        del event
        return _REPEAT

    def on_whole(self, body: Any, out: list[Event]) -> None:
        """See `Dialect.on_whole`."""
        if isinstance(body, list) and body and isinstance(body[0], dict):
            body = body[0]  # Gemini's OpenAI endpoint puts its errors into a list
        if not isinstance(body, dict):
            raise RemoteProtocolError("the upstream's body is not a JSON object")
        choices = body.get("choices")
        if _is_error(body) or (not choices and ("message" in body or "detail" in body)):
            out.append(self._failure(body))
            return
        if not isinstance(choices, list) or not choices:
            raise RemoteProtocolError("the upstream's body has no choices")
        self._take(body, out)
        if out and isinstance(out[-1], Failed):
            return
        for choice in self._choices.values():
            # The body is whole JSON, so nothing was cut: a reason was only left out.
            self._finish(choice, "stop", out)
        self._end(out)

    def on_eof(self, out: list[Event]) -> None:
        """See `Dialect.on_eof`."""
        if not self._choices or self._unfinished:
            raise Truncated("the upstream's stream ended before its finish reason")
        self._end(out)

    # Chunks.

    def _take(self, chunk: dict[str, Any], out: list[Event]) -> None:
        patch = self._patch_of_chunk(chunk)
        choices, usage = chunk.get("choices"), chunk.get("usage")
        if not isinstance(choices, list):
            choices = [choices] if isinstance(choices, dict) else []
        if not isinstance(usage, dict):
            usage = None
        if not (self._started or choices or usage or chunk.get("id")):
            if patch:
                self._early |= patch  # Azure's first chunk, in which every word is empty
                self._tally.held += WEIGHT * len(jsontext.dumps(patch))
            return
        before = len(out)
        if not self._started:
            patch, self._early = self._early | patch, {}
            self._tally.held = 0
            self._start(chunk, out)
        for choice in choices:
            if isinstance(choice, dict):
                self._take_choice(choice, out)
                if out and isinstance(out[-1], Failed):
                    return
        if usage:
            beyond = {"usage": uncounted(usage, USAGE)}
            out.append(UsageReported(read_usage(usage), tagged(beyond)))
        if patch:
            self._attach(out, before, {"chunk": patch})

    def _patch_of_chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        if chunk.keys() <= _CHUNK:
            return {}
        patch: dict[str, Any] = {}
        for key, value in chunk.items():
            if key in _CHUNK or value is None:
                continue
            if key in TEXTS and not isinstance(value, str):
                continue
            if key in STICKY:
                if self._sticky.get(key) == value:
                    continue
                self._sticky[key] = value
            elif key == "obfuscation" and not self._obfuscation:
                continue
            patch[key] = value
        return patch

    def _start(self, chunk: dict[str, Any], out: list[Event]) -> None:
        reply_id, model = chunk.get("id"), chunk.get("model")
        reply_id = reply_id if isinstance(reply_id, str) else ""
        created = integer(chunk.get("created")) or 0
        self._tally.token = _NOT_FOR_IDS.sub("", reply_id)[-24:] or str(created)
        self._started = True
        out.append(Started(reply_id, model if isinstance(model, str) else "", created, tagged({})))

    def _failure(self, error: Any) -> Failed:
        if isinstance(error, dict) and error.get("error"):
            error = error["error"]
        return Failed(error_object_to_info(error, status=None, format_name=NAME))

    def _end(self, out: list[Event]) -> None:
        for choice in self._choices.values():
            if not choice.finished:
                self._close(choice, "stop", out)  # its reason is mended by the grammar
        out.append(Ended())

    def _attach(self, out: list[Event], before: int, patch: dict[str, Any]) -> None:
        """Put a patch on the first event since `before`, or on one of its own."""
        self._patches += 1
        patch["order"] = self._patches
        if len(out) == before:
            out.append(Annotated(-1, -1, "wire", {}, tagged(patch)))
            return
        event = out[before]
        if event.extra is None:
            event.extra = tagged(patch)
        else:
            event.extra[NAME] |= patch

    # Choices.

    def _take_choice(self, raw: dict[str, Any], out: list[Event]) -> None:
        index = raw.get("index")
        choice = self._choice(index if type(index) is int and index >= 0 else 0)
        before = len(out)
        delta = raw.get("delta") or raw.get("message")
        unused = loose_logprobs(raw.get("logprobs"))
        patch: dict[str, Any] = {}
        if not isinstance(delta, dict):
            pass
        elif len(delta) == 1 and unused is None and isinstance(delta.get("content"), str):
            if delta["content"]:  # nearly every delta is this one
                self._say(choice, "text", delta["content"], None, out)
        else:
            unused = self._take_delta(choice, delta, unused, out)
            if kept := patch_of_delta(delta):
                patch["delta"] = kept
        if unused or not raw.keys() <= _CHOICE:
            kept = {key: raw[key] for key in raw.keys() - _CHOICE if raw[key] is not None}
            if unused:
                kept["logprobs"] = unused
            if kept:
                patch["choice"] = kept
        reason = raw.get("finish_reason")
        if reason == "error":
            error = raw.get("error") or "the upstream ended its reply with an error"
            out.append(self._failure(error))
            return
        if isinstance(reason, str) and reason:
            self._finish(choice, reason, out, told="native_finish_reason" in raw)
        if patch:
            self._attach(out, before, {"index": choice.index, **patch})

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            if index >= max(self._expected, MAX_CHOICES):
                raise RemoteProtocolError(f"the upstream answers with a choice number {index}")
            self._unfinished += 1
            calls = Calls(index, self._names, self._tally)
            choice = self._choices[index] = _Choice(index, calls)
        return choice

    def _finish(
        self, choice: _Choice, reason: str, out: list[Event], *, told: bool = False
    ) -> None:
        """End a choice; `told` = the server gives its own word in a member of its own."""
        if choice.finished:
            return  # the first reason counts (ChatMock#114)
        normal = FINISH.get(reason, "stop")
        self._close(choice, normal, out)
        choice.finished = True
        self._unfinished -= 1
        if normal == "tool_calls" and not choice.calls.told:
            normal = "stop"  # a client would look for calls that are not there
        extra = None
        if reason != normal and not told:
            extra = tagged({"index": choice.index, "finish_reason": reason})
        out.append(Finished(choice.index, normal, extra))

    def _close(self, choice: _Choice, reason: FinishReason, out: list[Event]) -> None:
        """Give what a choice owes before its end: the rest of its calls, or at least a message."""
        choice.calls.finish(out, whole=reason in {"stop", "tool_calls"})
        if choice.message < 0 and not choice.reasoned and not choice.calls.told:
            self._part(choice, "text", out)

    # Deltas.

    def _take_delta(
        self,
        choice: _Choice,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None,
        out: list[Event],
    ) -> dict[str, Any] | None:
        """Read one delta. Returns those `logprobs` that belong to no text of it."""
        content, refusal = delta.get("content"), delta.get("refusal")
        thought = thought_of(delta) if delta.keys() & REASONING else None
        if content and not isinstance(content, str):
            parts = Parts(content)
            content, refusal = parts.text, parts.refusal or refusal
            if parts.thought and not (thought and thought.text):
                thought = thought or Thought()
                thought.text = parts.thought
        if thought is not None:
            self._think(choice, thought, out)
        logprobs = logprobs or {}
        entries = read_logprobs(logprobs.get("content"))
        if content or (entries and content is not None):
            self._say(choice, "text", content, entries, out)
            if entries:
                logprobs = {**logprobs, "content": None}
        if isinstance(refusal, str) and refusal:
            entries = read_logprobs(logprobs.get("refusal"))
            self._say(choice, "refusal", refusal, entries, out)
            if entries:
                logprobs = {**logprobs, "refusal": None}
        for raw in listed(delta.get("annotations")):
            if (citation := read_citation(raw)) is not None:
                part = self._part(choice, "text", out)
                beside = beside_citation(raw)
                extra = tagged({"citation": beside, "at": choice.citations}) if beside else None
                choice.citations += 1
                out.append(Annotated(choice.message, part, "citation", citation, extra))
        calls, legacy = delta.get("tool_calls"), delta.get("function_call")
        if calls:
            self._stop_thinking(choice, out)
            choice.calls.take(calls, out)
        elif isinstance(legacy, dict) and legacy:
            self._stop_thinking(choice, out)
            choice.calls.take_legacy(legacy, out)
        return loose_logprobs(logprobs)

    def _say(
        self,
        choice: _Choice,
        kind: PartKind,
        text: str,
        entries: list[dict[str, Any]] | None,
        out: list[Event],
    ) -> None:
        part = self._part(choice, kind, out)
        out.append(PartDelta(choice.message, part, text, entries))

    def _part(self, choice: _Choice, kind: PartKind, out: list[Event]) -> int:
        """Return the number of the message's part of this kind; open it if need be."""
        if choice.reasoning >= 0:
            self._stop_thinking(choice, out)
        if choice.message < 0:
            choice.message = self._tally.next_item()
            out.append(ItemStarted(choice.message, "message", choice.index))
        part = choice.parts.get(kind)
        if part is None:
            part = choice.parts[kind] = len(choice.parts)
            out.append(PartStarted(choice.message, part, kind))
        return part

    def _think(self, choice: _Choice, thought: Thought, out: list[Event]) -> None:
        if thought.text:
            self._start_thinking(choice, "", out)
            part = choice.thoughts.get(thought.kind)
            if part is None:
                part = choice.thoughts[thought.kind] = len(choice.thoughts)
                extra = tagged(thought.patch) if thought.patch else None
                out.append(PartStarted(choice.reasoning, part, thought.kind, extra))
            out.append(PartDelta(choice.reasoning, part, thought.text))
        for detail in thought.sealed:
            data, own_id = detail["data"], detail.get("id")
            self._start_thinking(choice, own_id if isinstance(own_id, str) else "", out)
            extra = tagged({"index": choice.index, **keep_sealed(detail)})
            out.append(ItemEnded(choice.reasoning, "completed", data, extra))
            choice.reasoning = -1

    def _start_thinking(self, choice: _Choice, own_id: str, out: list[Event]) -> None:
        if choice.reasoning >= 0:
            return
        choice.reasoning = self._tally.next_item()
        choice.thoughts = {}
        extra = tagged({"continued": True}) if choice.reasoned else None
        choice.reasoned = True
        out.append(ItemStarted(choice.reasoning, "reasoning", choice.index, own_id, extra=extra))

    def _stop_thinking(self, choice: _Choice, out: list[Event]) -> None:
        if choice.reasoning >= 0:
            out.append(ItemEnded(choice.reasoning))
            choice.reasoning = -1


def _is_error(body: dict[str, Any]) -> bool:
    return bool(body.get("error")) or body.get("object") == "error" or body.get("type") == "error"
