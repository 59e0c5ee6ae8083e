"""The normal form of a reply: a small, closed union of events.

A reply is a sequence of these, whatever wire it came over. `grammar.py` says which may follow
which. Every event is JSON-serialisable (`msgspec.json`, tag field `event`).

`extra` holds what a wire carries beyond the union, under the name of the format that it was read
from: `{"chat": {...}}`. An encoder looks up its own name and is deaf to the others, so a reply
that leaves in the format it came in loses nothing.

The structs opt out of the garbage collector (`gc=False`): they live for microseconds, and they
never take part in a cycle.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .errors import ErrorInfo


Extra = dict[str, dict[str, Any]]
"""Format name to what only that format can say."""

ItemKind = Literal["message", "reasoning", "tool_call", "opaque"]
PartKind = Literal["text", "refusal", "summary", "thought", "arguments", "input"]
ItemStatus = Literal["completed", "incomplete", "failed"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Usage(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """Token counts. `None` = not reported; a later report fills and overrides field by field."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    """Part of `input_tokens`, read from a prompt cache."""
    reasoning_tokens: int | None = None
    """Part of `output_tokens`, never shown."""


class Started(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """The upstream has begun to answer. `created` is Unix time in seconds."""

    id: str
    model: str
    created: int
    extra: Extra | None = None


class ItemStarted(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """An output item opens.

    `item` numbers the items of a reply in order of appearance, from 0, over all choices.
    `id` is what a client quotes back: the call's id for a tool call, else the item's own id
    (empty if the wire has none). `name` is the tool's name, or the wire's type of an opaque item;
    `namespace` is the one that the tool stands in, if any.
    """

    item: int
    kind: ItemKind
    choice: int = 0
    id: str = ""
    name: str = ""
    namespace: str = ""
    extra: Extra | None = None


class PartStarted(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """A part of an item opens. `part` numbers the parts of one item from 0.

    message: text | refusal. reasoning: summary | thought. tool_call: arguments (a function's, JSON
    text) | input (a custom tool's, free text). An opaque item has no parts.
    """

    item: int
    part: int
    kind: PartKind
    extra: Extra | None = None


class PartDelta(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """A part grows by `text` (may be empty). `logprobs` are the entries for this text."""

    item: int
    part: int
    text: str
    logprobs: list[dict[str, Any]] | None = None
    extra: Extra | None = None


class Annotated(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """Something said *about* a reply, an item or a part.

    kind `citation`: `data` is a citation in the flat form of the Responses API, of a text part.
    kind `wire`: `data` is empty, and `extra` holds what only its own format understands, such as
    the progress of a hosted tool. `item` -1 = the whole reply, `part` -1 = the whole item.
    """

    item: int
    part: int
    kind: Literal["citation", "wire"]
    data: dict[str, Any]
    extra: Extra | None = None


class PartEnded(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """A part is complete."""

    item: int
    part: int
    extra: Extra | None = None


class ItemEnded(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """An item is complete, or was given up (`incomplete`, `failed`).

    `sealed` is encrypted reasoning: only the upstream can read it, and the client sends it back.
    """

    item: int
    status: ItemStatus = "completed"
    sealed: str | None = None
    extra: Extra | None = None


class Finished(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """A choice has ended, and why. Once per choice."""

    choice: int
    reason: FinishReason
    extra: Extra | None = None


class UsageReported(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """Token counts. May come more than once: fields merge."""

    usage: Usage
    extra: Extra | None = None


class Ended(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """The reply is whole. The last event of a good one."""

    extra: Extra | None = None


class Failed(msgspec.Struct, gc=False, tag_field="event", tag=True):
    """The reply broke off. The last event of a bad one."""

    error: ErrorInfo
    extra: Extra | None = None


Event = (
    Started
    | ItemStarted
    | PartStarted
    | PartDelta
    | Annotated
    | PartEnded
    | ItemEnded
    | Finished
    | UsageReported
    | Ended
    | Failed
)


def is_meaningful(event: Event) -> bool:
    """Whether this event is news for the client, and not only a handshake or a beat.

    News: a non-empty delta, a tool call's start, any sign of life of an opaque item, or the end.
    The clocks count from it, and after it a reply never moves to another upstream.
    """
    match event:
        case PartDelta():
            return bool(event.text)
        case ItemStarted():
            return event.kind in {"tool_call", "opaque"}
        case Annotated():
            return event.item >= 0
        case Finished() | Ended() | Failed():
            return True
        case _:
            return False
