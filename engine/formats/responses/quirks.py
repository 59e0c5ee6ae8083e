"""Where OpenAI's schema, the Open Responses schema and the live service disagree: one table.

The law of this file: every object that we write is right by both schemas, but for these places;
whoever finds another one adds a row, or mends the encoder. A row says what each of the three
wants, what we chose, and which document our choice is not valid by. The tests hold a sample for
every row against both documents as they were published.

The rule behind the choices: what both schemas allow; else what the live service sends, because
clients were written against it; else OpenAI's schema.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple


Document = Literal["openai", "open-responses"]

KEEPALIVE = "keepalive"
"""The type of a beat."""
IN_PROGRESS = "response.in_progress"
"""The type of a handshake that repeats what reply this is."""
REASONING_TEXT = "response.reasoning_text"
"""The prefix of the events of raw reasoning."""
EVENT_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
"""What may be the type of an event. OpenAI's are words and dots; extensions of Open Responses have
the server's name and a colon in front. Whatever it allows must be safe on an `event:` line."""


class Quirk(NamedTuple):
    """One disagreement."""

    where: str
    openai: str
    open_responses: str
    live: str
    choice: str
    breaks: frozenset[Document]


def _breaks(*documents: Document) -> frozenset[Document]:
    return frozenset(documents)


QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        where="response.usage in progress",
        openai="an object, or absent",
        open_responses="required, may be null",
        live="null until the end",
        choice="null until the end",
        breaks=_breaks("openai"),
    ),
    Quirk(
        where="response.usage that no upstream counted",
        openai="an object, or absent",
        open_responses="required, may be null",
        live="always counted",
        choice="zeros in a reply that ended well: the Vercel AI SDK refuses a completed reply "
        "without counts",
        breaks=_breaks(),
    ),
    Quirk(
        where="response.completed_at",
        openai="a number or null, or absent",
        open_responses="required, may be null",
        live="the time at which the reply ended",
        choice="the upstream's word, else null: formats have no clock, and `created_at` would be "
        "another time",
        breaks=_breaks(),
    ),
    Quirk(
        where="response.usage.input_tokens_details.cache_write_tokens",
        openai="required",
        open_responses="unknown, allowed",
        live="newer models only",
        choice="sent, 0 unless the upstream says more",
        breaks=_breaks(),
    ),
    Quirk(
        where="response.text.format of type json_schema",
        openai="`schema` is an object; `description` a string, or absent",
        open_responses="`schema` can only be null; `description` and `strict` are required",
        live="`schema` as asked, `description: null`",
        choice="the schema as asked, and a description only where the client gave one: nothing "
        "satisfies both, and this is right by one",
        breaks=_breaks("open-responses"),
    ),
    Quirk(
        where="response.reasoning.effort minimal, max",
        openai="allowed",
        open_responses="unknown words",
        live="as asked",
        choice="as asked",
        breaks=_breaks("open-responses"),
    ),
    Quirk(
        where="response.tools beyond functions",
        openai="sixteen types",
        open_responses="functions only",
        live="as asked",
        choice="as asked",
        breaks=_breaks("open-responses"),
    ),
    Quirk(
        where="response.tool_choice beyond functions",
        openai="custom and hosted tools too",
        open_responses="a word, a function, or allowed functions",
        live="as asked",
        choice="as asked",
        breaks=_breaks("open-responses"),
    ),
    Quirk(
        where="output items beyond message, function_call, reasoning, compaction",
        openai="twenty-eight types",
        open_responses="five types; the specification lets servers add some",
        live="as they are",
        choice="custom tool calls as custom_tool_call, hosted items as the upstream wrote them",
        breaks=_breaks("open-responses"),
    ),
    Quirk(
        where="annotations beyond url_citation",
        openai="four types",
        open_responses="url_citation only",
        live="as they are",
        choice="as the upstream wrote them",
        breaks=_breaks("open-responses"),
    ),
    Quirk(
        where="events of raw reasoning",
        openai="response.reasoning_text.delta, .done",
        open_responses="response.reasoning.delta, .done",
        live="response.reasoning_text.*",
        choice="response.reasoning_text.*; both are read",
        breaks=_breaks("open-responses"),
    ),
    Quirk(
        where="events of custom and hosted tools",
        openai="described",
        open_responses="not described",
        live="as OpenAI's schema",
        choice="as OpenAI's schema",
        breaks=_breaks("open-responses"),
    ),
    Quirk(
        where="the beat",
        openai="not described",
        open_responses="not described",
        live="{type: keepalive, sequence_number} (openai-node#1964)",
        choice="as the live service: Codex counts no comments (Floway#498), and strict clients "
        "have learnt this type",
        breaks=_breaks("openai", "open-responses"),
    ),
    Quirk(
        where="response.error.code",
        openai="twenty words",
        open_responses="any string",
        live="more words: context_length_exceeded, insufficient_quota (Codex acts upon them)",
        choice="OpenAI's twenty and these two, so that an agent can compact its history instead of "
        "asking again; any other word, an upstream's or ours, stands in the message",
        breaks=_breaks("openai"),
    ),
    Quirk(
        where="the event of a failure",
        openai="error: code, message and param in the event",
        open_responses="error: an object `error` inside the event",
        live="both error and response.failed",
        choice="response.failed with a complete object, which is the same in both; both forms of "
        "error are read",
        breaks=_breaks(),
    ),
    Quirk(
        where="null in items",
        openai="`phase: null` and `caller: null` yes, `namespace: null` no",
        open_responses="no",
        live="absent",
        choice="a null of the upstream says nothing, and is left out",
        breaks=_breaks(),
    ),
)
