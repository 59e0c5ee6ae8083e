"""A finished reply -> the one object that a chat client reads when it did not ask for a stream.

The law of this file: it says what the stream would have said. The texts are joined by the rules of
`encoder.py`; members that only this format knows come back where they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...accumulate import FinishedItem, FinishedReply, notes_of
from ...events import Extra
from ...request import Request
from ..base import Identity
from .words import (
    FIELDS,
    GAP,
    NAME,
    is_legacy,
    native_reason,
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
    members: dict[str, Any] = {}
    for patch in patches:
        _merge(members, patch.get("chunk", {}))
    indexes = {item.choice for item in reply.items.values()} | reply.reasons.keys()
    body: dict[str, Any] = {
        "id": f"chatcmpl-{identity.token}" if ours or not reply.id else reply.id,
        "object": "chat.completion",
        "created": reply.created or identity.created,
        "model": reply.model or request.model,
        **members,
        "choices": [_choice(reply, index, request, patches) for index in sorted(indexes or {0})],
    }
    if reply.usage is not None:
        raw: dict[str, Any] = {}
        for patch in patches:
            raw |= patch.get("usage", {})
        body["usage"] = write_usage(reply.usage, raw)
    return body


def _choice(
    reply: FinishedReply, index: int, request: Request, patches: list[dict[str, Any]]
) -> dict[str, Any]:
    members: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for patch in patches:
        if patch.get("index") == index:
            _merge(members, native_reason(patch) | patch.get("choice", {}))
            _merge(more, patch.get("delta", {}))
    items = reply.of_choice(index)
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    message |= _texts(items)
    calls = [_call(item) for item in items if item.kind == "tool_call"]
    legacy = bool(calls) and is_legacy(request)
    if legacy:
        message["function_call"] = calls.pop(0)["function"]
    if calls:
        message["tool_calls"] = calls
    if not (message["content"] or message["refusal"] or calls or legacy):
        message["content"] = ""
    citations = [
        write_citation(one)
        for item in items
        for part in item.parts.values()
        for one in part.citations
    ]
    message["annotations"] = citations + more.pop("annotations", [])
    details = _details(more.pop("reasoning_details", []))
    for item in items:
        if item.sealed is not None:
            detail = notes_of(item.notes, NAME).get("detail")
            details.append(write_sealed(item.sealed, item.id, len(details), detail))
    if details:
        message["reasoning_details"] = details
    return {
        **members,
        "index": index,
        "message": {**more, **message},
        "logprobs": write_logprobs(_logprobs(items), members.get("logprobs")),
        "finish_reason": write_finish(reply.reasons.get(index, "stop"), legacy=legacy),
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


def _call(item: FinishedItem) -> dict[str, Any]:
    custom = any(part.kind == "input" for part in item.parts.values())
    call = write_call(item.id, item.name, item.text("arguments", "input"), custom=custom)
    for note in [*item.notes, *(note for part in item.parts.values() for note in part.notes)]:
        call |= note.get(NAME, {}).get("call", {})
    return call


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
            joined.append(dict(fragment))
            continue
        for key, value in fragment.items():
            grows = key in {"text", "summary"} and isinstance(last.get(key), str)
            if value is not None:
                last[key] = last[key] + value if grows else value
    return joined


def _notes(reply: FinishedReply) -> Iterator[Extra]:
    yield from reply.notes
    for item in reply.items.values():
        yield from item.notes
        for part in item.parts.values():
            yield from part.notes


def _merge(into: dict[str, Any], new: dict[str, Any], *, under: str = "") -> None:
    """Fold members that came in pieces: lists and objects grow, other values are replaced.

    Of strings, only recorded sound (`audio`) is known to come in pieces.
    """
    for key, value in new.items():
        old = into.get(key)
        if isinstance(value, dict):
            into[key] = dict(old) if isinstance(old, dict) else {}
            _merge(into[key], value, under=key)
        elif isinstance(value, list):
            into[key] = [*old, *value] if isinstance(old, list) else value
        elif under == "audio" and key in {"data", "transcript"}:
            into[key] = f"{old or ''}{value}"
        else:
            into[key] = value
