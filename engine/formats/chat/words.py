"""The small words of Chat Completions, both ways: finish reasons, usage, citations, logprobs.

What the chat format keeps in `extra["chat"]` is a *patch*, private to this package:

    chunk    members of the chunk (or the whole body) that have no place in the normal form
    index    the choice that the next two belong to
    choice   such members of the choice
    delta    such members of the delta (or the message)
    order    the number of the patch in its reply: the fold groups them by item
    call     such members of one entry of `tool_calls`
    ...      and, on its own kind of event, one of: `reasoning` (the text came under that name),
             `continued` (an item that goes on after another one), `detail` (members of a sealed
             entry of `reasoning_details`; `at` is its index), `citation` (members of an entry of
             `annotations` beside the citation; `at` is its place in the part), `usage`,
             `finish_reason`

Members whose value is null say nothing and are not kept.
"""

from __future__ import annotations

from typing import Any

from ...events import Event, Extra, FinishReason, PartKind, Usage
from ...request import Request
from .. import shapes


NAME = "chat"

STICKY = frozenset({"system_fingerprint", "service_tier", "provider"})
"""Members that a server repeats on each chunk: read when they change, written on each chunk."""

TEXTS = STICKY | {"obfuscation"}
"""Members of a chunk that are texts: what is of another type is not kept."""

USAGE = {
    "prompt_tokens": None,
    "completion_tokens": None,
    "total_tokens": None,
    "prompt_tokens_details": "cached_tokens",
    "completion_tokens_details": "reasoning_tokens",
}
"""Members of `usage` that the normal form has, and which one inside them."""

COUNTS = frozenset(
    {
        "accepted_prediction_tokens",
        "audio_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "rejected_prediction_tokens",
    }
)
"""Members of the two `..._tokens_details` of usage in OpenAI's schema."""

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",  # OpenAI before November 2023, llama_cpp.server
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "tool_use": "tool_calls",
    "safety": "content_filter",  # Gemini's OpenAI endpoint
}
"""A server's `finish_reason` -> the normal form's. Words that are not here mean `stop`."""


SPOKEN = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
"""The finish reasons of OpenAI's schema. Other words leave as `native_finish_reason`."""

FIELDS: dict[PartKind, str] = {
    "text": "content",
    "refusal": "refusal",
    "thought": "reasoning_content",
    "summary": "reasoning_content",
}
"""The member of a delta or a message that a part's text goes to."""

GAP = "\n\n"
"""What stands between two messages, or two parts of reasoning, that chat has one field for."""


def is_legacy(request: Request) -> bool:
    """Whether the client speaks of `functions`, so reads `function_call` and not `tool_calls`."""
    return request.format == NAME and request.raw is not None and "functions" in request.raw


def write_call(call_id: str, name: str, text: str, *, custom: bool) -> dict[str, Any]:
    """Write one entry of `tool_calls`, as a message or the first delta of a call has it."""
    if custom:
        return {"id": call_id, "type": "custom", "custom": {"name": name, "input": text}}
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def keep_sealed(detail: dict[str, Any]) -> dict[str, Any]:
    """Keep what a sealed entry of `reasoning_details` says beside its data."""
    patch: dict[str, Any] = {"at": detail["index"]} if "index" in detail else {}
    beside = {name: detail[name] for name in detail if name not in {"type", "data", "index"}}
    return {**patch, "detail": beside}


def write_sealed(
    data: str, own_id: str, index: int, patch: dict[str, Any] | None
) -> dict[str, Any]:
    """Write sealed reasoning as an entry of `reasoning_details` (OpenRouter's field)."""
    written: dict[str, Any] = {"type": "reasoning.encrypted", "data": data}
    if patch and "detail" in patch:
        return {**written, **({"index": patch["at"]} if "at" in patch else {}), **patch["detail"]}
    written["index"] = index
    return {**written, "id": own_id} if own_id else written


def write_finish(reason: FinishReason, *, legacy: bool) -> str:
    """Write why a choice ended; `legacy` = it was told as a `function_call`."""
    return "function_call" if legacy and reason == "tool_calls" else reason


def native_reason(patch: dict[str, Any] | None) -> dict[str, Any]:
    """Say a server's own finish reason beside ours, where the schema has no such word."""
    raw = patch.get("finish_reason") if patch else None
    return {} if raw is None or raw in SPOKEN else {"native_finish_reason": raw}


def patch_of(event: Event) -> dict[str, Any] | None:
    """What this format kept on an event."""
    return event.extra.get(NAME) if event.extra else None


def tagged(patch: dict[str, Any]) -> Extra:
    """Make the `extra` that carries a patch."""
    return {NAME: patch}


def patched(value: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Lay a patch over an object, and over the objects that are its members."""
    deeper = {
        name: {**value[name], **patch[name]}
        for name in value.keys() & patch.keys()
        if isinstance(value[name], dict) and isinstance(patch[name], dict)
    }
    return {**value, **patch, **deeper}


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """Drop the members that say nothing."""
    return {key: member for key, member in value.items() if member is not None}


def integer(value: Any) -> int | None:
    """Read a count. Servers write some as floats (`created` of transformers)."""
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) >= 2**63:
        return None
    return int(value)


def read_usage(raw: dict[str, Any]) -> Usage:
    """Read a `usage` object; counts that are missing or no numbers stay unknown."""
    prompt, completion = (
        details if isinstance(details := raw.get(key), dict) else {}
        for key in ("prompt_tokens_details", "completion_tokens_details")
    )
    return Usage(
        input_tokens=integer(raw.get("prompt_tokens")),
        output_tokens=integer(raw.get("completion_tokens")),
        total_tokens=integer(raw.get("total_tokens")),
        cached_tokens=integer(prompt.get("cached_tokens")),
        reasoning_tokens=integer(completion.get("reasoning_tokens")),
    )


def write_usage(usage: Usage, raw: dict[str, Any]) -> dict[str, Any]:
    """Write a `usage` object. `raw` is the server's own one, with what only it counts."""
    sent, received = usage.input_tokens or 0, usage.output_tokens or 0
    total = usage.total_tokens if usage.total_tokens is not None else sent + received
    written = without_nulls(raw)
    written |= {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": total}
    for name, member, count in (
        ("prompt_tokens_details", "cached_tokens", usage.cached_tokens),
        ("completion_tokens_details", "reasoning_tokens", usage.reasoning_tokens),
    ):
        details = written.pop(name, None)
        details = _counts(details) if isinstance(details, dict) else {}
        if count is not None:
            details[member] = count
        if details:
            written[name] = details
    return written


def _counts(details: dict[str, Any]) -> dict[str, Any]:
    """Keep what a server counts; members that OpenAI's schema knows only if they are counts."""
    read = {key: integer(value) if key in COUNTS else value for key, value in details.items()}
    return without_nulls(read)


def read_citation(raw: Any) -> dict[str, Any] | None:
    """Read one of `annotations`: the flat citation of the normal form, or None if it is no such."""
    if not isinstance(raw, dict) or raw.get("type") != "url_citation":
        return None
    nested = raw.get("url_citation")
    fields = nested if isinstance(nested, dict) else raw
    if not isinstance(fields.get("url"), str):
        return None
    return shapes.read_citation({**fields, "type": "url_citation"})


def beside_citation(raw: dict[str, Any]) -> dict[str, Any]:
    """What one of `annotations` says beside its citation."""
    if not isinstance(raw.get("url_citation"), dict):
        return {}
    beside = {name: value for name, value in raw.items() if name not in {"type", "url_citation"}}
    return without_nulls(beside)


def write_citation(
    flat: dict[str, Any], patch: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Write one of `annotations`; None if it is of a type that chat has no word for."""
    if flat["type"] != "url_citation":
        return None
    return {
        "type": "url_citation",
        "url_citation": {name: value for name, value in flat.items() if name != "type"},
        **(patch or {}).get("citation", {}),
    }


def distinct_id(call_id: str, taken: set[str], token: str, item: int) -> str:
    """The id that a call leaves with: its own, or one made of ours if another call has that.

    Clients find the result of a call by its id. OpenAI takes ids of up to 40 characters back.
    """
    if not call_id or call_id in taken:
        call_id = f"call_{token[-24:]}_{item}"
    taken.add(call_id)
    return call_id


def write_logprobs(
    known: dict[str, list[dict[str, Any]]], left: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Write the `logprobs` of a choice: of its texts by field, and those that belong to none."""
    if not (known or left):
        return None
    written = {"content": None, "refusal": None, **(left or {})}
    for field, entries in known.items():
        written[field] = [*entries, *(written[field] or ())]
    return written
