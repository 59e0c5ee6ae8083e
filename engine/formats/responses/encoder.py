"""Events -> a Responses stream.

The law of this file: the full lifecycle, whatever the upstream left out, and every event complete:

    created, in_progress,
      output_item.added,
        content_part.added, deltas, *.done, content_part.done,
      output_item.done,
    completed | incomplete | failed

`sequence_number` counts from 0 without a gap; items and parts are numbered as they appear. The last
event repeats the items exactly as their own `done` said them, and what an upstream added to them
when they were over (a citation, a field of its own). There is no `[DONE]`.

The bytes do not depend on how the events were batched. A delta is the hot path: its bytes are
ready but for the number and the text.
"""

from __future__ import annotations

import itertools
import sys

from ...accumulate import Accumulator, FinishedItem, FinishedPart, FinishedReply
from ...events import (
    Annotated,
    Ended,
    Event,
    Extra,
    Failed,
    ItemEnded,
    ItemStarted,
    ItemStatus,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
)
from ...jsontext import dumps
from ...request import Request
from ..base import Identity
from ..checks import JSON
from ..openai_errors import in_stream
from .quirks import EVENT_NAME, IN_PROGRESS, KEEPALIVE, REASONING_TEXT
from .request import NAME
from .resource import (
    Head,
    content_part,
    end_status,
    error_object,
    logprobs,
    output_item,
    wire_id,
)


GROWTH: dict[PartKind, str] = {
    "text": "response.output_text",
    "refusal": "response.refusal",
    "thought": REASONING_TEXT,
    "summary": "response.reasoning_summary_text",
    "arguments": "response.function_call_arguments",
    "input": "response.custom_tool_call_input",
}
"""Part kind -> prefix of its `delta` and `done` events."""


class _Part:
    """A part that is being streamed."""

    __slots__ = ("citations", "ended", "kind", "prefix", "where")

    def __init__(self, kind: PartKind, where: JSON) -> None:
        self.kind: PartKind = kind
        self.where = where
        self.citations = 0
        self.ended = False
        delta = f"{GROWTH[kind]}.delta"
        fixed: JSON = {"type": delta, **where}
        if kind == "text":
            fixed["logprobs"] = []
        self.prefix = b"event: %b\ndata: %b" % (delta.encode(), dumps(fixed)[:-1])
        self.prefix += b',"sequence_number":'


class _Item:
    """An item that is being streamed; `index` is -1 until it has been announced."""

    __slots__ = ("counts", "ended", "id", "index", "parts", "started")

    def __init__(self, started: ItemStarted) -> None:
        self.started = started
        self.id = ""
        self.index = -1
        self.ended = False
        self.parts: dict[int, _Part] = {}
        self.counts = {"content_index": 0, "summary_index": 0}

    @property
    def where(self) -> JSON:
        return {"item_id": self.id, "output_index": self.index}


class ResponsesEncoder:
    """The `Encoder` of one Responses stream."""

    def __init__(self, request: Request, identity: Identity) -> None:
        self._request = request
        self._identity = identity
        self._head: Head | None = None
        # No limit: the pipeline's own fold has bounded these very events, and a second count that
        # differed by a byte would break a reply that has passed.
        self._fold = Accumulator(sys.maxsize)
        self._handshakes: list[Extra] = []
        self._sequence = 0
        self._items: dict[int, _Item] = {}
        self._output: list[JSON | FinishedItem] = []
        self._out: list[bytes] = []

    def encode(self, events: list[Event]) -> bytes:
        """See `Encoder.encode`."""
        begun = self._head is not None
        if begun or len(events) > 1:
            events = _without_restart(events, begun=begun)
        for run in _runs(events):
            self._fold.add(run)
            for event in run:
                if type(event) is PartDelta:
                    self._delta(event)
                else:
                    self._take(event)
        data = b"".join(self._out)
        self._out.clear()
        return data

    def beat(self) -> bytes:
        """See `Encoder.beat`: the form of OpenAI's own service (`quirks.py`)."""
        self._emit(KEEPALIVE, {}, None)
        return self._out.pop()

    def _emit(self, kind: str, body: JSON, extra: Extra | None, said: str = "event") -> None:
        """Write one event. What the upstream's event said beyond it goes along."""
        beyond = extra.get(NAME, {}).get(said, {}) if extra else {}
        event = {"type": kind, "sequence_number": self._sequence, **body}
        self._sequence += 1
        data = dumps({**event, **{key: beyond[key] for key in beyond if key not in event}})
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))

    def _delta(self, event: PartDelta) -> None:
        item = self._items.get(event.item)
        if item is None:
            return
        part = item.parts[event.part]
        if event.extra is None and event.logprobs is None:
            text = dumps(event.text)
            self._out.append(b'%b%d,"delta":%b}\n\n' % (part.prefix, self._sequence, text))
            self._sequence += 1
            return
        body: JSON = {**part.where, "delta": event.text}
        if part.kind == "text":
            body["logprobs"] = logprobs(event.logprobs)
        self._emit(f"{GROWTH[part.kind]}.delta", body, event.extra)

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._begin(event)
            case ItemStarted(choice=0):
                item = self._items[event.item] = _Item(event)
                if event.kind != "tool_call":  # of a call the type is not known yet
                    self._announce(item, None)
            case Ended():
                self._end(end_status(self._fold.reply), None, event.extra)
            case Failed():
                if self._head is None:
                    self._begin(None)
                self._end("failed", error_object(in_stream(event.error)), event.extra)
            case PartStarted() | Annotated() | PartEnded() | ItemEnded():
                self._take_of_item(event)
            case _:  # reasons and usage are said at the end; a second choice was not asked for
                pass

    def _take_of_item(self, event: PartStarted | Annotated | PartEnded | ItemEnded) -> None:
        item = self._items.get(event.item)
        if isinstance(event, Annotated) and item and item.ended:
            self._redo(item, event)
        if isinstance(event, Annotated) and (event.item < 0 or (item and event.kind == "wire")):
            self._foreign(event, item)
        elif item is None:
            return
        elif isinstance(event, PartStarted):
            self._open(item, event)
        elif isinstance(event, PartEnded):
            self._close(item, event)
        elif isinstance(event, ItemEnded):
            self._done(item, event)
        elif not item.parts[event.part].ended:
            self._annotate(item, event)

    # The reply.

    def _begin(self, event: Started | None) -> None:
        head = self._head = Head(self._request, self._identity, event)
        extra = event.extra if event else None
        self._handshakes = [extra] if extra else []
        for kind in ("created", "in_progress")[: 2 if event else 1]:
            self._emit(f"response.{kind}", {"response": self._greet(head)}, extra)

    def _greet(self, head: Head) -> JSON:
        return head.response(FinishedReply(notes=self._handshakes), "in_progress", [])

    def _end(self, status: str, error: JSON | None, extra: Extra | None) -> None:
        assert self._head is not None  # noqa: S101 - the grammar lets nothing through before `Started`
        output = [
            self._unfinished(entry) if isinstance(entry, FinishedItem) else entry
            for entry in self._output
        ]
        response = self._head.response(self._fold.reply, status, output, error)
        kind = status if status in {"incomplete", "failed"} else "completed"
        self._emit(f"response.{kind}", {"response": response}, extra)

    def _unfinished(self, item: FinishedItem) -> JSON:
        return output_item(item, self._items[item.item].id, "incomplete")

    # Items.

    def _announce(self, item: _Item, kind: PartKind | None) -> None:
        event = item.started
        blank = FinishedItem(
            item=event.item,
            kind=event.kind,
            id=event.id,
            name=event.name,
            namespace=event.namespace,
            notes=[event.extra] if event.extra else [],
        )
        if kind is not None:
            blank.parts = {0: FinishedPart(kind=kind)}
        item.id = wire_id(blank, self._identity.token)
        item.index = len(self._output)
        self._output.append(self._fold.reply.items[event.item])
        body = output_item(blank, item.id, "in_progress")
        place = {"output_index": item.index, "item": body}
        self._emit("response.output_item.added", place, event.extra)

    def _done(self, item: _Item, event: ItemEnded) -> None:
        if item.index < 0:  # a call without arguments
            self._announce(item, None)
            self._open(item, PartStarted(event.item, 0, "arguments"))
            self._input_done(item, "", None)
        item.ended = True
        folded = self._fold.reply.items[event.item]
        status: ItemStatus = event.status
        body = self._output[item.index] = output_item(folded, item.id, status)
        place = {"output_index": item.index, "item": body}
        self._emit("response.output_item.done", place, event.extra)

    def _redo(self, item: _Item, event: Annotated) -> None:
        """Something was added to an item that is over: only the last event can still say it."""
        folded = self._fold.reply.items[event.item]
        self._output[item.index] = output_item(folded, item.id, folded.status or "completed")

    # Parts.

    def _open(self, item: _Item, event: PartStarted) -> None:
        kind = event.kind
        if kind in {"arguments", "input"}:
            if item.index < 0:
                self._announce(item, kind)
            item.parts[event.part] = _Part(kind, item.where)
            return
        name = "summary_index" if kind == "summary" else "content_index"
        where = {**item.where, name: item.counts[name]}
        item.counts[name] += 1
        item.parts[event.part] = _Part(kind, where)
        blank = FinishedPart(kind=kind, notes=[event.extra] if event.extra else [])
        added = "reasoning_summary_part" if kind == "summary" else "content_part"
        body = {**where, "part": content_part(blank)}
        self._emit(f"response.{added}.added", body, event.extra)

    def _close(self, item: _Item, event: PartEnded) -> None:
        part = item.parts[event.part]
        part.ended = True
        folded = self._fold.reply.items[event.item].parts[event.part]
        if part.kind in {"arguments", "input"}:
            self._input_done(item, folded.text, event.extra)
            return
        text = "refusal" if part.kind == "refusal" else "text"
        whole = content_part(folded)
        body: JSON = {**part.where, text: folded.text}
        if part.kind == "text":
            body["logprobs"] = whole["logprobs"]
        self._emit(f"{GROWTH[part.kind]}.done", body, event.extra)
        done = "reasoning_summary_part" if part.kind == "summary" else "content_part"
        body = {**part.where, "part": whole}
        self._emit(f"response.{done}.done", body, event.extra, "closing")

    def _input_done(self, item: _Item, text: str, extra: Extra | None) -> None:
        [part] = item.parts.values()
        if part.kind == "input":
            self._emit(f"{GROWTH['input']}.done", {**item.where, "input": text}, extra)
        else:
            body = {**item.where, "name": item.started.name, "arguments": text}
            self._emit(f"{GROWTH['arguments']}.done", body, extra)

    # What is said about them.

    def _annotate(self, item: _Item, event: Annotated) -> None:
        part = item.parts[event.part]
        body = {**part.where, "annotation_index": part.citations, "annotation": event.data}
        part.citations += 1
        self._emit(f"{GROWTH['text']}.annotation.added", body, event.extra)

    def _foreign(self, event: Annotated, item: _Item | None) -> None:
        """An event of this format that the normal form has not, with our numbers."""
        raw: JSON = (event.extra or {}).get(NAME, {}).get("event", {})
        kind = raw.get("type")
        if not isinstance(kind, str) or EVENT_NAME.fullmatch(kind) is None:
            return  # a note about what has ended; or a name that would break the frame
        body = {key: value for key, value in raw.items() if key != "type"}
        if kind == IN_PROGRESS and self._head is not None:
            self._handshakes.append(event.extra or {})
            body["response"] = self._greet(self._head)
        if item is not None:
            ours = item.where
            body |= {key: ours[key] for key in ours if key in body}
            if kind == "response.content_part.added":
                item.counts["content_index"] += 1
        self._emit(kind, body, None)


def _without_restart(events: list[Event], *, begun: bool) -> list[Event]:
    """A stream that began before its upstream spoke keeps its own ids: one `Started` counts."""
    kept: list[Event] = []
    for event in events:
        if type(event) is Started:
            if begun:
                continue
            begun = True
        kept.append(event)
    return kept


def _runs(events: list[Event]) -> list[list[Event]]:
    """Cut a batch before each annotation: its item's `done` must not know what comes after it."""
    cuts = [place for place, event in enumerate(events) if type(event) is Annotated]
    if not cuts:
        return [events]
    return [events[start:end] for start, end in itertools.pairwise([0, *cuts, len(events)])]
