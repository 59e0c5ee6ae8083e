"""A Responses reply -> events: every event of the API, and what servers make of it.

The law of this file: the `type` decides, and the `event:` line only where the JSON has none (some
servers write `event: message` over everything); `board.py` finds the item. `sequence_number` is not
looked at: servers leave it out or count wrongly. An event that we do not know is kept whole, as an
annotation of the item or of the reply. A reply has ended well only with its terminal event:
`[DONE]` or the end of the stream before it is a cut.

The reply starts with the first event that has a response object, or else with the first one that
says something of an item. Events that we do not know and that come earlier wait for it.

What is not kept: `sequence_number`; `in_progress` and `queued` after the first event, unless they
say what it has not said; beats; what repeats the request, if the client speaks another format;
`obfuscation`, unless the client asked for it; an event without any type; and an unknown event whose
type is no `EVENT_NAME` (its type would stand in the `event:` line of the client's stream, where a
line break begins another event).

The layout of the extras stands in `resource.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...accumulate import BOOKKEEPING, WEIGHT
from ...errors import ErrorInfo, RemoteProtocolError, Truncated
from ...events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    FinishReason,
    ItemKind,
    PartDelta,
    PartKind,
    Started,
    Usage,
    UsageReported,
)
from ...jsontext import dumps
from ...limits import Limits
from ...request import Request
from ..checks import JSON
from ..openai_errors import error_object_to_info
from ..shapes import uncounted
from ..stencil import Repeat
from ..wire import DONE, WireDecoder, parse_frame
from .board import Board
from .items import (
    KNOWN_PART,
    PARTS,
    Item,
    Part,
    annotate,
    beyond,
    complete,
    complete_part,
    end_part,
    fit,
    grow,
    is_item,
    news,
    note,
    retold,
    text_of,
)
from .quirks import EVENT_NAME, IN_PROGRESS, KEEPALIVE, REASONING_TEXT
from .request import NAME
from .settings import DEFAULTS


BEATS = frozenset(
    {KEEPALIVE, "response.keepalive", "response.keep_alive", "response.heartbeat", "ping"}
)

KNOWN_EVENT = frozenset(
    {
        "type",
        "sequence_number",
        "item_id",
        "output_index",
        "content_index",
        "summary_index",
        "annotation_index",
        "obfuscation",
        "delta",
        "logprobs",
        "text",
        "refusal",
        "arguments",
        "input",
        "name",
        "part",
        "item",
        "annotation",
        "response",
    }
)
"""The fields of an event that the normal form has, or that are made anew."""

KNOWN_RESPONSE = frozenset(
    {
        "id",
        "object",
        "created_at",
        "status",
        "model",
        "output",
        "usage",
        "error",
        "incomplete_details",
    }
)

ECHOED = DEFAULTS.keys() - {"completed_at", "service_tier"}
"""The fields of a Response that repeat its request: they are news to nobody who has asked it."""

USAGE = {
    "input_tokens": None,
    "output_tokens": None,
    "total_tokens": None,
    "input_tokens_details": "cached_tokens",
    "output_tokens_details": "reasoning_tokens",
}
"""Members of `usage` that the normal form has, and which one inside them."""

OWNERS: dict[PartKind, ItemKind] = {
    "text": "message",
    "refusal": "message",
    "thought": "reasoning",
    "summary": "reasoning",
    "arguments": "tool_call",
    "input": "tool_call",
}

TEXTS: tuple[tuple[str, PartKind, str], ...] = (
    ("response.output_text", "text", "text"),
    ("response.refusal", "refusal", "refusal"),
    (REASONING_TEXT, "thought", "text"),
    ("response.reasoning", "thought", "text"),  # Open Responses
    ("response.reasoning_summary_text", "summary", "text"),
    ("response.function_call_arguments", "arguments", "arguments"),
    ("response.custom_tool_call_input", "input", "input"),
)
"""Prefix of the events of a text, the kind of its part, and the field of the whole text."""

HANDSHAKES = frozenset({"response.created", IN_PROGRESS, "response.queued"})
"""The events that say only that the reply has begun, and which one it is."""

REASONS: dict[Any, FinishReason] = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
}
"""Raw word of incomplete_details -> reason; any other word is `length`, and is kept."""


def decoder(request: Request, limits: Limits) -> WireDecoder:
    """Make the decoder of one reply."""
    return WireDecoder(ResponsesDialect(request), limits)


_TEXT = frozenset({b"delta"})


class ResponsesDialect:
    """The `Dialect` of one Responses reply."""

    finished = False
    """The terminal event is the end: nothing may follow a finish reason."""

    def __init__(self, request: Request) -> None:
        background = request.format == NAME and bool(request.extra.get("background"))
        self._background = background
        self._known = KNOWN_EVENT
        if request.include_obfuscation:
            self._known -= {"obfuscation"}
        self._known_response = KNOWN_RESPONSE
        if request.format != NAME:
            self._known_response |= ECHOED
        self._board = Board()
        self._told: JSON = {}  # of the response and of its handshakes, beyond the normal form
        self._started = False
        self._early: list[JSON] = []  # unknown events before the reply started
        self._early_size = 0

    @property
    def held(self) -> int:
        """See `Dialect.held`."""
        return self._board.held.size + self._early_size

    def on_frame(self, name: bytes, data: bytes, out: list[Event]) -> None:
        """See `Dialect.on_frame`."""
        if data == DONE:
            raise Truncated("the upstream said [DONE] before its response was complete")
        event = parse_frame(data)
        if not isinstance(event, dict):
            raise RemoteProtocolError("an event of the upstream is no object")
        kind = _word(event.get("type"))
        self._board.weight = WEIGHT * len(data)
        handler = HANDLERS.get(kind)
        if handler is not None and self._started:  # the common case, and the hot path
            handler(self, event, out)
        else:
            self._other(kind, name, event, out)

    def _other(self, kind: str | None, name: bytes, event: JSON, out: list[Event]) -> None:
        """The first event, and those without a type that we know."""
        if not kind:
            kind = event["type"] = name.decode("utf-8", "replace")
        if kind in BEATS:
            return
        if kind == "error" or (event.get("error") and not kind.startswith("response.")):
            self._error(event, out)
            return
        if not kind:
            return  # nobody could say what it is about
        handler = HANDLERS.get(kind)
        if not self._started:
            response = _object(event.get("response"))
            known = handler is not None and kind not in HANDSHAKES
            if not known and not response:  # it may yet be said what reply this is
                if handler is None:
                    self._early.append(event)
                    self._early_size += BOOKKEEPING + self._board.weight
                return
            self._start(response, event, out)
        if handler is not None:
            handler(self, event, out)
        else:
            self._foreign(event, out)

    def repeats(self, event: PartDelta) -> Repeat | None:
        """See `Dialect.repeats`."""
        part = self._board.part_of(event)
        return None if part is None else Repeat(_TEXT, part.pieces.add)

    def on_whole(self, body: Any, out: list[Event]) -> None:
        """See `Dialect.on_whole`."""
        if not isinstance(body, dict):
            raise RemoteProtocolError("the upstream's answer is no Response")
        if body.get("status") != "failed" and (body.get("error") or "output" not in body):
            if not any(body.get(key) for key in ("error", "detail", "message")):
                raise RemoteProtocolError("the upstream's answer is no Response")
            self._error(body, out)
            return
        self._start(body, {}, out)
        status = _word(body.get("status"))
        if status in {"queued", "in_progress"}:
            if not self._background:
                raise RemoteProtocolError(f"the upstream's response is still {status}")
            self._board.conclude(body["output"], out)
            out.append(Finished(0, "stop", {NAME: {"status": status}}))
            out.append(Ended(note(response=beyond(body, self._known_response))))
            return
        self._end("response.completed", body, {}, out)

    def on_eof(self, out: list[Event]) -> None:
        """See `Dialect.on_eof`."""
        del out  # whatever came before, there is nothing more to say
        raise Truncated("the upstream's stream ended before its response was complete")

    # The reply.

    def _start(self, response: JSON, event: JSON, out: list[Event]) -> None:
        self._started = True
        reply_id = self._board.reply_id = text_of(response, "id")
        extra: JSON = {"response": beyond(response, self._known_response)}
        if "response" in event and (more := beyond(event, self._known)):
            extra["event"] = more
        self._told = {name: dict(fields) for name, fields in extra.items()}
        created = _count(response.get("created_at")) or 0
        out.append(Started(reply_id, text_of(response, "model"), created, {NAME: extra}))
        for early in self._early:
            self._foreign(early, out)
        self._early.clear()
        self._early_size = 0

    def on_terminal(self, event: JSON, out: list[Event]) -> None:
        """The last event."""
        response = _object(event.get("response"))
        self._end(event["type"], response, beyond(event, self._known), out)

    def _end(self, kind: str, response: JSON, event: JSON, out: list[Event]) -> None:
        status = _word(response.get("status"))
        if status not in {"failed", "incomplete", "cancelled"}:
            status = kind.removeprefix("response.")
        extra = note(response=beyond(response, self._known_response), event=event)
        usage = response.get("usage")
        if status in {"failed", "cancelled"}:
            self._usage(usage, out)
            out.append(Failed(_failure(response, status), extra))
            return
        self._board.conclude(response.get("output"), out)
        self._finish(status == "incomplete", response, out)
        self._usage(usage, out)
        out.append(Ended(extra))

    def _finish(self, incomplete: bool, response: JSON, out: list[Event]) -> None:
        if incomplete:
            details = _object(response.get("incomplete_details"))
            word = _word(details.get("reason"))
            extra: JSON = {}
            if word not in {*REASONS, None}:
                extra["reason"] = word
            if more := beyond(details, frozenset({"reason"})):
                extra["details"] = more
            reason = REASONS.get(word, "length")
            out.append(Finished(0, reason, {NAME: extra} if extra else None))
        else:
            out.append(Finished(0, "tool_calls" if self._board.called else "stop"))

    def _usage(self, usage: Any, out: list[Event]) -> None:
        if not isinstance(usage, dict):
            return
        inputs = _object(usage.get("input_tokens_details"))
        outputs = _object(usage.get("output_tokens_details"))
        counts = Usage(
            input_tokens=_count(usage.get("input_tokens")),
            output_tokens=_count(usage.get("output_tokens")),
            total_tokens=_count(usage.get("total_tokens")),
            cached_tokens=_count(inputs.get("cached_tokens")),
            reasoning_tokens=_count(outputs.get("reasoning_tokens")),
        )
        out.append(UsageReported(counts, note(usage=uncounted(usage, USAGE))))

    def _error(self, event: JSON, out: list[Event]) -> None:
        """An error: inside the event (chat's form, Open Responses), or the event itself."""
        inner = event.get("error")
        flat = {key: event[key] for key in event if key not in {"type", "sequence_number"}}
        error = inner if isinstance(inner, dict | str) and inner else flat
        out.append(Failed(error_object_to_info(error, status=None, format_name=NAME)))

    # Items.

    def on_added(self, event: JSON, out: list[Event]) -> None:
        """An item opens."""
        if event.get("item") is not None:
            raw = _item(event)
            self._board.add(raw, event.get("output_index"), beyond(event, self._known), out)

    def on_done(self, event: JSON, out: list[Event]) -> None:
        """An item is complete."""
        if event.get("item") is not None:
            raw = _item(event)
            self._board.done(raw, event.get("output_index"), beyond(event, self._known), out)

    # Parts.

    def _part_event(self, event: JSON, out: list[Event]) -> tuple[Item, JSON, PartKind] | None:
        """Find what a `content_part` event is about; None = a part that we do not know."""
        part = event.get("part")
        if not is_item(part):
            raise RemoteProtocolError("a content part of the upstream has no type")
        said: JSON = _object(part)
        kind = PARTS.get(said["type"])
        item = self._board.find(event, "message", "reasoning")
        if item is None and kind is not None:
            item = self._board.at(event, OWNERS[kind], out)
        kind = fit(item, said) if item is not None and item.kind != "opaque" else None
        if item is None or kind is None:
            if item is not None and item.kind != "opaque" and event["type"].endswith(".added"):
                item.foreign += 1
            self._foreign(event, out)
            return None
        return item, said, kind

    def on_part_added(self, event: JSON, out: list[Event]) -> None:
        """A part opens."""
        found = self._part_event(event, out)
        if found is None:
            return
        item, said, kind = found
        index = event.get("summary_index" if kind == "summary" else "content_index")
        index = index if isinstance(index, int) else item.next_index(kind)
        extra = note(part=beyond(said, KNOWN_PART), event=beyond(event, self._known))
        sink = _aside(item, out)
        part = item.part(kind, index, sink, extra)
        if not part.grown and not part.ended:  # what it opens with is its beginning
            complete(item, part, said, "refusal" if kind == "refusal" else "text", sink)

    def on_part_done(self, event: JSON, out: list[Event]) -> None:
        """A part is complete. An empty one ends with its item: its text may come there."""
        found = self._part_event(event, out)
        if found is None:
            return
        item, said, kind = found
        index = event.get("summary_index" if kind == "summary" else "content_index")
        sink = _aside(item, out)
        part = item.part(kind, index, sink)
        complete_part(item, part, said, sink)
        more = beyond(event, self._known)
        if part.grown:
            end_part(item, part, sink, closing=more)
        else:
            self._remember(item, part, closing=more, part=part.beyond.get("part", {}))

    def grow(self, event: JSON, out: list[Event], kind: PartKind) -> None:
        """A part grows."""
        text = event.get("delta")
        if type(text) is not str:
            text = text_of(event, "delta")
        item = self._board.at(event, OWNERS[kind], out)
        if item.kind == "opaque":
            self._foreign(event, out)
            return
        sink = _aside(item, out)
        part = item.part(kind, _index(event, kind), sink)
        more = None if event.keys() <= self._known else beyond(event, self._known)
        extra = note(event=more) if more else None
        grow(item, part, text, sink, logprobs=event.get("logprobs"), extra=extra)

    def complete(self, event: JSON, out: list[Event], kind: PartKind, key: str) -> None:
        """The whole text of a part is repeated."""
        if not text_of(event, key) and self._board.find(event, OWNERS[kind]) is None:
            return
        item = self._board.at(event, OWNERS[kind], out)
        if item.kind == "opaque":
            self._foreign(event, out)
            return
        sink = _aside(item, out)
        part = item.part(kind, _index(event, kind), sink)
        complete(item, part, event, key, sink)
        more = beyond(event, self._known)
        if item.kind == "tool_call" and part.grown:
            end_part(item, part, sink, event=more)
        else:
            again = {} if part.ended else retold(part, event)
            self._remember(item, part, event=more, part=again)

    def on_annotation(self, event: JSON, out: list[Event]) -> None:
        """A citation."""
        if event.get("annotation") is not None:
            item = self._board.at(event, "message", out)
            if item.kind == "opaque":
                self._foreign(event, out)
                return
            sink = _aside(item, out)
            part = item.part("text", event.get("content_index"), sink)
            extra = note(event=beyond(event, self._known))
            annotate(item, part, event["annotation"], sink, extra)

    def _remember(self, item: Item, whose: Part, **said: JSON) -> None:
        if any(said.values()):
            whose.remember(**said)
            item.keep(WEIGHT * len(dumps(said)))

    # Everything else.

    def on_handshake(self, event: JSON, out: list[Event]) -> None:
        """`created`, `in_progress`, `queued`: the reply has begun, which we know by now.

        Whatever else they say goes on as one more `in_progress`.
        """
        response = beyond(_object(event.get("response")), self._known_response)
        said = {"response": response, "event": beyond(event, self._known)}
        late = {name: news(fields, self._told.get(name, {})) for name, fields in said.items()}
        if any(late.values()):
            for name, fields in late.items():
                self._told.setdefault(name, {}).update(fields)
            late["event"]["type"] = IN_PROGRESS
            out.append(Annotated(-1, -1, "wire", {}, note(**late)))

    def _foreign(self, event: JSON, out: list[Event]) -> None:
        """An event that only this format understands, such as the progress of a hosted tool."""
        if EVENT_NAME.fullmatch(event["type"]) is None:
            return
        item: Item | None = None
        if "item_id" in event or "output_index" in event:
            item = self._board.find(event, "opaque", "message", "reasoning", "tool_call")
        if item is not None and item.number < 0:
            return
        kept = {key: event[key] for key in event if key != "sequence_number"}
        if "obfuscation" in self._known:
            kept.pop("obfuscation", None)
        number = item.number if item is not None else -1
        out.append(Annotated(number, -1, "wire", {}, {NAME: {"event": kept}}))


def _aside(item: Item, out: list[Event]) -> list[Event]:
    """Where the events of an item go: nowhere, if it is read aside."""
    return out if item.number >= 0 else []


def _index(event: JSON, kind: PartKind) -> Any:
    if OWNERS[kind] == "tool_call":
        return 0
    return event.get("summary_index" if kind == "summary" else "content_index")


def _item(event: JSON) -> JSON:
    raw = event["item"]
    if not is_item(raw):
        raise RemoteProtocolError("an output item of the upstream has no type")
    return _object(raw)


def _object(value: Any) -> JSON:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    """A count, or a time: transformers says seconds with a fraction."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return int(value)


def _failure(response: JSON, status: str) -> ErrorInfo:
    error = response.get("error") or {"message": f"the upstream's response was {status}"}
    return error_object_to_info(error, status=None, format_name=NAME)


Handler = Callable[[ResponsesDialect, JSON, "list[Event]"], None]


def _grower(kind: PartKind) -> Handler:
    return lambda dialect, event, out: dialect.grow(event, out, kind)


def _completer(kind: PartKind, key: str) -> Handler:
    return lambda dialect, event, out: dialect.complete(event, out, kind, key)


HANDLERS: dict[Any, Handler] = {
    **dict.fromkeys(HANDSHAKES, ResponsesDialect.on_handshake),
    "response.output_item.added": ResponsesDialect.on_added,
    "response.output_item.done": ResponsesDialect.on_done,
    "response.content_part.added": ResponsesDialect.on_part_added,
    "response.content_part.done": ResponsesDialect.on_part_done,
    "response.reasoning_summary_part.added": ResponsesDialect.on_part_added,
    "response.reasoning_summary_part.done": ResponsesDialect.on_part_done,
    "response.output_text.annotation.added": ResponsesDialect.on_annotation,
    "response.completed": ResponsesDialect.on_terminal,
    "response.incomplete": ResponsesDialect.on_terminal,
    "response.failed": ResponsesDialect.on_terminal,
    "response.cancelled": ResponsesDialect.on_terminal,
    "response.done": ResponsesDialect.on_terminal,  # Codex's backend: its response says which
    **{
        f"{prefix}.{verb}": handler
        for prefix, kind, key in TEXTS
        for verb, handler in (("delta", _grower(kind)), ("done", _completer(kind, key)))
    },
}
"""Type of an event -> what is done with it."""
