"""A finished reply -> the one object that a chat client reads when it did not ask for a stream.

The law of this file: it says what the stream would have said. The texts are joined by the rules of
`encoder.py`; members that only this format knows come back where they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...accumulate import FinishedItem, FinishedPart, FinishedReply, notes_of
from ...events import Extra, FinishReason
from ...request import Request
from ..base import Identity
from .words import (
    FIELDS,
    GAP,
    NAME,
    distinct_id,
    is_legacy,
    native_reason,
    patched,
    write_call,
    write_citation,
    write_finish,
    write_logprobs,
    write_sealed,
    write_usage,
)


def render_reply(reply: FinishedReply, request: Request, identity: Identity) -> dict[str, Any]:
    """Write a whole reply (`CreateChatCompletionResponse`)."""
    ours = not any(NAME in note for note in reply.notes)
    patches = [note[NAME] for note in _notes(reply) if NAME in note]
    patches.sort(key=lambda patch: patch.get("order", 0))
    members = _Members()
    choices = {index: _Choice() for index in reply.reasons}
    for item in reply.items.values():
        choices.setdefault(item.choice, _Choice()).items.append(item)
    raw_usage: dict[str, Any] = {}
    for patch in patches:
        members.add(patch.get("chunk", {}))
        raw_usage |= patch.get("usage", {})
        if "index" in patch:
            choice = choices.setdefault(patch["index"], _Choice())
            choice.members.add(native_reason(patch) | patch.get("choice", {}))
            choice.message.add(patch.get("delta", {}))
    body: dict[str, Any] = {
        "id": f"chatcmpl-{identity.token}" if ours or not reply.id else reply.id,
        "object": "chat.completion",
        "created": reply.created or identity.created,
        "model": reply.model or request.model,
        **members.whole(),
        "choices": [
            _choice(index, choice, reply.reasons.get(index, "stop"), request, identity)
            for index, choice in sorted((choices or {0: _Choice()}).items())
        ],
    }
    if reply.usage is not None:
        body["usage"] = write_usage(reply.usage, raw_usage)
    return body


class _Choice:
    """What a reply holds of one choice."""

    def __init__(self) -> None:
        self.items: list[FinishedItem] = []
        self.members = _Members()  # of the choice, that only this format knows
        self.message = _Members()  # such of its message


def _choice(
    index: int, choice: _Choice, reason: FinishReason, request: Request, identity: Identity
) -> dict[str, Any]:
    members, more, items = choice.members.whole(), choice.message.whole(), choice.items
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    message |= _texts(items)
    called = [item for item in items if item.kind == "tool_call"]
    legacy = bool(called) and is_legacy(request)
    if legacy:
        message["function_call"] = _call(called.pop(0), "")["function"]
    if called:
        taken: set[str] = set()
        message["tool_calls"] = [
            _call(item, distinct_id(item.id, taken, identity.token, item.item)) for item in called
        ]
    if not (message["content"] or message["refusal"] or called or legacy):
        message["content"] = ""
    citations = [one for item in items for part in item.parts.values() for one in _citations(part)]
    message["annotations"] = citations + more.pop("annotations", [])
    details = _details(more.pop("reasoning_details", []))
    for item in items:
        if item.sealed is not None:
            patch = notes_of(item.notes, NAME)
            details.append(write_sealed(item.sealed, item.id, len(details), patch))
    if details:
        message["reasoning_details"] = details
    return {
        **members,
        "index": index,
        "message": {**more, **message},
        "logprobs": write_logprobs(_logprobs(items), members.get("logprobs")),
        "finish_reason": write_finish(reason, legacy=legacy),
    }


def _texts(items: list[FinishedItem]) -> dict[str, str]:
    """The texts of a choice by member, each with the gaps that the stream has."""
    texts: dict[str, str] = {}
    for item in items:
        continued = bool(notes_of(item.notes, NAME).get("continued"))
        fields: set[str] = set()
        for part in item.parts.values():
            field = FIELDS.get(part.kind)
            if field is None or not part.text:
                continue
            joined = item.kind == "message" if field in fields else continued
            gap = GAP if field in texts and not joined else ""
            fields.add(field)
            texts[field] = texts.get(field, "") + gap + part.text
            if notes_of(part.notes, NAME).get("reasoning"):
                texts["reasoning"] = texts[field]
    return texts


def _call(item: FinishedItem, call_id: str) -> dict[str, Any]:
    custom = any(part.kind == "input" for part in item.parts.values())
    call = write_call(call_id, item.name, item.text("arguments", "input"), custom=custom)
    for note in [*item.notes, *(note for part in item.parts.values() for note in part.notes)]:
        call = patched(call, note.get(NAME, {}).get("call", {}))
    return call


def _citations(part: FinishedPart) -> list[dict[str, Any]]:
    patches = [note[NAME] for note in part.notes if "citation" in note.get(NAME, ())]
    beside = {patch["at"]: patch for patch in patches}
    written = [write_citation(one, beside.get(at)) for at, one in enumerate(part.citations)]
    return [citation for citation in written if citation is not None]


def _logprobs(items: list[FinishedItem]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        for part in item.parts.values():
            if part.logprobs:
                found.setdefault(FIELDS[part.kind], []).extend(part.logprobs)
    return found


def _details(fragments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the fragments of `reasoning_details` that a stream has brought, each with its index."""
    joined: list[dict[str, Any]] = []
    for fragment in fragments:
        last = joined[-1] if joined else {}
        same = all(last.get(key) == fragment.get(key) for key in ("type", "index"))
        if not (last and same):
            joined.append(last := {})
        for key, value in fragment.items():
            grows = key in {"text", "summary"}
            if grows and isinstance(value, str):
                _grow(last, key, value)
            elif key not in last or (value is not None and not grows):
                last[key] = value
    return [_settled(detail) for detail in joined]


def _notes(reply: FinishedReply) -> Iterator[Extra]:
    yield from reply.notes
    for item in reply.items.values():
        yield from item.notes
        for part in item.parts.values():
            yield from part.notes


class _Pieces(list[str]):
    """A text of which all pieces are not known yet."""


class _Members:
    """Members that came in pieces: lists and objects grow, other values are replaced.

    Of strings, only recorded sound (`audio`) is known to come in pieces.
    """

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def add(self, new: dict[str, Any]) -> None:
        """Fold some more of them in; `new` itself stays as it is."""
        _merge(self._made, new)

    def whole(self) -> dict[str, Any]:
        """All of them."""
        return _settled(self._made)


def _merge(into: dict[str, Any], new: dict[str, Any], *, under: str = "") -> None:
    for key, value in new.items():
        old = into.get(key)
        if isinstance(value, dict):
            if not isinstance(old, dict):
                old = into[key] = {}
            _merge(old, value, under=key)
        elif isinstance(value, list):
            if not isinstance(old, list):
                old = into[key] = []
            old += value
        elif under == "audio" and key in {"data", "transcript"} and isinstance(value, str):
            _grow(into, key, value)
        else:
            into[key] = value


def _grow(into: dict[str, Any], key: str, text: str) -> None:
    pieces = into.get(key)
    if not isinstance(pieces, _Pieces):
        pieces = into[key] = _Pieces()
    pieces.append(text)


def _settled(members: dict[str, Any]) -> dict[str, Any]:
    """Join every text that grew."""
    return {
        key: "".join(value)
        if isinstance(value, _Pieces)
        else _settled(value)
        if isinstance(value, dict)
        else value
        for key, value in members.items()
    }
