"""The Response object: what we say about a reply, in progress or complete.

The law of this file: one function writes every Response object there is, the whole reply as much as
the last event of a stream, and one function writes every output item. Both read the fold.

A Response repeats what was asked: `settings.py`. `completed_at` is the upstream's, or null: there
is no clock here.

Private layout of `extra["responses"]`, made by `decoder.py`:

    response  fields of the Response object that the normal form has not
    item      fields of an output item that the normal form has not; of an opaque item, all
    part      fields of a content part that the normal form has not, and its lists where the
              upstream repeated them with more in their entries
    event     fields of the event itself; with a wire annotation, the whole event (of a handshake
              that comes later and says more, all but its `response`)
    closing   fields of the `content_part.done` of a part, beside the `event` of its text's `done`
    usage     fields of the usage object that the normal form has not
    reason    the raw word of incomplete_details
    details   fields of incomplete_details beside it
    status    the raw status of a reply that is not over (a background reply, asked whole)
"""

from __future__ import annotations

from typing import Any

from ...accumulate import FinishedItem, FinishedPart, FinishedReply, notes_of
from ...errors import ErrorInfo
from ...events import Extra, FinishReason, ItemStatus, Started, Usage
from ...request import Request
from ..base import Identity
from ..checks import JSON
from .request import NAME
from .settings import MAX_COUNT, echo, overlay


REASONS: dict[FinishReason, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
"""Why a reply is incomplete, in this format's words."""

LIVE_CODES = frozenset({"context_length_exceeded", "insufficient_quota"})
"""Codes that the schema lacks, the live service says, and Codex acts upon (`quirks.py`)."""

ERROR_CODES = LIVE_CODES | frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "invalid_prompt",
        "data_residency_mismatch",
        "bio_policy",
        "vector_store_timeout",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
    }
)
"""`ResponseErrorCode` of OpenAI's schema."""


# The object.


class Head:
    """What stays the same in every Response object of one reply."""

    def __init__(self, request: Request, identity: Identity, started: Started | None) -> None:
        """`started` carries extras of this format if the upstream spoke it; then its ids stay."""
        same = started if started is not None and NAME in (started.extra or ()) else None
        self.id = (same.id if same else "") or f"resp_{identity.token}"
        self.created = (same.created if same else 0) or identity.created
        self.model = (started.model if started else "") or request.model
        self.token = identity.token
        self._echo = echo(request)

    def response(
        self, reply: FinishedReply, status: str, output: list[JSON], error: JSON | None = None
    ) -> JSON:
        """Write a Response object. `status` decides what it has to say beside its output."""
        settings = dict(self._echo)
        for note in reply.notes:
            overlay(settings, note.get(NAME, {}).get("response", {}))
        notes = notes_of(reply.notes, NAME)
        usage: JSON | None = None
        if reply.usage is not None or status in {"completed", "incomplete"}:
            usage = usage_object(reply.usage or Usage(), notes.get("usage", {}))
        details: JSON | None = None
        if status == "incomplete":
            word = REASONS.get(reply.reasons.get(0, "length"), "max_output_tokens")
            details = {"reason": notes.get("reason", word), **notes.get("details", {})}
        return {
            **settings,
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "output": output,
            "usage": usage,
            "error": error,
            "incomplete_details": details,
        }


def end_status(reply: FinishedReply) -> str:
    """The status of a reply that ended well."""
    raw = notes_of(reply.notes, NAME).get("status")
    if raw is not None:
        return str(raw)
    return "incomplete" if reply.reasons.get(0) in REASONS else "completed"


def usage_object(usage: Usage, raw: JSON) -> JSON:
    """Token counts with every member that clients require; unknown members are kept."""
    inputs = _kept(raw.get("input_tokens_details"))
    written = inputs.get("cache_write_tokens")
    got, made = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        **_kept(raw),
        "input_tokens": got,
        "input_tokens_details": {
            **inputs,
            "cache_write_tokens": written if _is_count(written) else 0,
            "cached_tokens": usage.cached_tokens or 0,
        },
        "output_tokens": made,
        "output_tokens_details": {
            **_kept(raw.get("output_tokens_details")),
            "reasoning_tokens": usage.reasoning_tokens or 0,
        },
        "total_tokens": got + made if usage.total_tokens is None else usage.total_tokens,
    }


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT


def _kept(raw: Any) -> JSON:
    members = raw.items() if isinstance(raw, dict) else ()
    return {name: value for name, value in members if value is not None}


def error_object(error: ErrorInfo) -> JSON:
    """The `error` of a failed Response. Another code than the schema's stands in the message."""
    message = error.message
    if error.code in ERROR_CODES:
        return {"code": error.code, "message": message}
    if error.code is not None and error.code not in message:
        message = f"{message} ({error.code})"
    if error.status == 429:
        return {"code": "rate_limit_exceeded", "message": message}
    if error.status < 500:
        return {"code": "invalid_prompt", "message": message}
    return {"code": "server_error", "message": message}


def render_reply(reply: FinishedReply, request: Request, identity: Identity) -> JSON:
    """Write a whole reply; see `Format.render_reply`."""
    begun = reply.notes[0] if reply.notes else None  # a `Started` is the first event
    head = Head(request, identity, Started(reply.id, reply.model, reply.created, begun))
    output = [
        output_item(item, wire_id(item, head.token), item.status or "incomplete")
        for item in reply.of_choice(0)
    ]
    if reply.error is not None:
        return head.response(reply, "failed", output, error_object(reply.error))
    return head.response(reply, end_status(reply), output)


# Output items.


PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


def wire_type(item: FinishedItem) -> str:
    """The type of an item on the wire. A tool call's is known once its part has opened."""
    if item.kind == "tool_call":
        custom = any(part.kind == "input" for part in item.parts.values())
        return "custom_tool_call" if custom else "function_call"
    return item.name if item.kind == "opaque" else item.kind


def wire_id(item: FinishedItem, token: str) -> str:
    """The id of an item: the upstream's if it spoke this format, else ours."""
    fields = item_fields(item.notes)
    own = fields.get("id") if fields is not None and item.kind == "tool_call" else item.id
    if fields is not None and isinstance(own, str) and own:
        return own
    kind = wire_type(item)
    return f"{PREFIXES.get(kind, kind)}_{token}_{item.item}"


def item_fields(notes: list[Extra]) -> JSON | None:
    """What an upstream of this format said of an item beyond the normal form; None = it did not."""
    said = [note[NAME]["item"] for note in notes if "item" in note.get(NAME, ())]
    if not said:
        return None
    merged: JSON = {}
    for fields in said:
        merged |= fields
    return said[-1] if "type" in merged else merged  # of an opaque item each note is the whole


def output_item(item: FinishedItem, own_id: str, status: ItemStatus | str) -> JSON:
    """Write one output item, as far as it has come."""
    fields = item_fields(item.notes) or {}
    kind = wire_type(item)
    if item.kind == "opaque":
        return {**fields, "type": kind, "id": own_id}  # its `status` is its own
    made: JSON = {"id": own_id, "type": kind, "status": _status(status)}
    if item.kind == "message":
        made |= {"role": "assistant", "content": _content(item)}
    elif item.kind == "reasoning":
        made |= {"summary": _content(item, "summary"), "content": _content(item, "thought")}
        if item.sealed is not None:
            made["encrypted_content"] = item.sealed
    else:
        text = "input" if kind == "custom_tool_call" else "arguments"
        made |= {"call_id": item.id, "name": item.name, text: item.text("arguments", "input")}
        if item.namespace:
            made["namespace"] = item.namespace
    if "content" in fields:
        made["content"] = fields["content"]  # it has parts that the normal form has not
    return {**fields, **made}


def _status(status: str) -> str:
    return "incomplete" if status == "failed" else status  # known items have no `failed`


def _content(item: FinishedItem, *kinds: str) -> list[JSON]:
    parts = item.parts.values()
    return [content_part(part) for part in parts if not kinds or part.kind in kinds]


TYPES = {
    "text": "output_text",
    "refusal": "refusal",
    "thought": "reasoning_text",
    "summary": "summary_text",
}
"""Part kind -> type of a content part."""


def content_part(part: FinishedPart) -> JSON:
    """Write one content part, as far as it has come."""
    kind = TYPES[part.kind]
    made: JSON = {"type": kind, "refusal" if part.kind == "refusal" else "text": part.text}
    if part.kind == "text":
        made |= {"annotations": list(part.citations), "logprobs": part.logprobs}
    for note in part.notes:
        made |= note.get(NAME, {}).get("part", {})
    if part.kind == "text":
        made["logprobs"] = logprobs(made["logprobs"])
    return made


def logprobs(entries: list[JSON] | None) -> list[JSON]:
    """Write log probabilities with every member that the schemas require."""
    return [
        {**_token(entry), "top_logprobs": [_token(top) for top in entry.get("top_logprobs") or ()]}
        for entry in entries or ()
    ]


def _token(entry: JSON) -> JSON:
    own = entry.get("bytes")
    if own is None:
        own = list(str(entry.get("token", "")).encode("utf-8", "replace"))
    return {**entry, "bytes": own}
