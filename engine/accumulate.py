"""Events -> one finished reply.

A whole answer, the object at the end of a Responses stream, and the message an embedder reads are
all this fold. There is no second code path that could disagree with the stream.

The fold keeps text as the pieces that came and joins them once. It counts what it keeps, and
refuses to keep more than its budget.
"""

from __future__ import annotations

from typing import Any, assert_never, cast

import msgspec

from .errors import ErrorInfo, ReplyTooLarge
from .events import (
    Annotated,
    Ended,
    Event,
    Extra,
    Failed,
    Finished,
    FinishReason,
    ItemEnded,
    ItemKind,
    ItemStarted,
    ItemStatus,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from .jsontext import dumps


BOOKKEEPING = 1024
"""Bytes of memory that an item or a part counts for beside its text. An empty one takes some 600
in a fold, and there are two folds of a stream."""

WEIGHT = 8
"""Bytes of memory that a byte of JSON is counted as, where its dicts are kept and not its text."""


LOOSE = 256
"""Pieces of a text that are kept apart: a token is some four bytes, and as an object sixty."""


class Pieces(list[str]):
    """A text that grows. Every so many pieces are joined to one, so each is copied once."""

    __slots__ = ("_joined",)

    def __init__(self) -> None:
        super().__init__()
        self._joined = 0

    def add(self, text: str) -> None:
        """Grow."""
        self.append(text)
        if len(self) >= self._joined + LOOSE:
            self[self._joined :] = ["".join(self[self._joined :])]
            self._joined = len(self)


class FinishedPart(msgspec.Struct, kw_only=True):
    """One part of an item, as far as it has come."""

    kind: PartKind
    pieces: list[str] = msgspec.field(default_factory=Pieces)
    logprobs: list[dict[str, Any]] | None = None
    citations: list[dict[str, Any]] = []
    ended: bool = False
    notes: list[Extra] = []
    """The extras of every event of this part, in order."""

    @property
    def text(self) -> str:
        """All the text so far."""
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


class FinishedItem(msgspec.Struct, kw_only=True):
    """One output item, as far as it has come. `status` is None while it is open."""

    item: int
    kind: ItemKind
    choice: int = 0
    id: str = ""
    name: str = ""
    namespace: str = ""
    parts: dict[int, FinishedPart] = {}
    status: ItemStatus | None = None
    sealed: str | None = None
    notes: list[Extra] = []
    """The extras of the item's own events (start, wire annotations, end), in order."""

    def text(self, *kinds: PartKind) -> str:
        """The text of all parts of these kinds."""
        return "".join(part.text for part in self.parts.values() if part.kind in kinds)


class FinishedReply(msgspec.Struct, kw_only=True):
    """A reply as far as it has come; whole once `complete`."""

    id: str = ""
    model: str = ""
    created: int = 0
    items: dict[int, FinishedItem] = {}
    reasons: dict[int, FinishReason] = {}
    usage: Usage | None = None
    error: ErrorInfo | None = None
    complete: bool = False
    notes: list[Extra] = []
    """The extras of the reply's own events (start, finish, usage, end), in order."""

    def of_choice(self, choice: int) -> list[FinishedItem]:
        """The items of one choice, in order of appearance."""
        return [item for item in self.items.values() if item.choice == choice]

    @property
    def text(self) -> str:
        """The visible text of the first choice."""
        return "".join(item.text("text") for item in self.of_choice(0) if item.kind == "message")

    @property
    def tool_calls(self) -> list[FinishedItem]:
        """The tool calls of the first choice."""
        return [item for item in self.of_choice(0) if item.kind == "tool_call"]


def notes_of(notes: list[Extra], name: str) -> dict[str, Any]:
    """What one format said in a list of extras: later values win over earlier ones."""
    merged: dict[str, Any] = {}
    for note in notes:
        merged.update(note.get(name, ()))
    return merged


def merge_usage(old: Usage | None, new: Usage) -> Usage:
    """Let every field that `new` reports override `old`."""
    if old is None:
        return new
    fields = {name: getattr(old, name) for name in Usage.__struct_fields__}
    fields |= {
        name: value for name in Usage.__struct_fields__ if (value := getattr(new, name)) is not None
    }
    return Usage(**fields)


class Accumulator:
    """The fold itself. Takes what `grammar.py` lets through, in order."""

    def __init__(self, max_bytes: int) -> None:
        self.reply = FinishedReply()
        self._budget = max_bytes
        self._size = 0

    def add(self, events: list[Event]) -> None:
        """Fold events in. Raises `ReplyTooLarge` past the budget."""
        items = self.reply.items
        for event in events:
            if type(event) is PartDelta and event.extra is None and event.logprobs is None:
                if event.text:  # nearly all events are this one
                    cast("Pieces", items[event.item].parts[event.part].pieces).add(event.text)
                    self._grow(size_of(event.text))
                continue
            match event:
                case PartDelta():
                    part = items[event.item].parts[event.part]
                    if event.text:
                        cast("Pieces", part.pieces).add(event.text)
                        self._grow(size_of(event.text))
                    if event.logprobs:
                        if part.logprobs is None:
                            part.logprobs = []
                        part.logprobs.extend(event.logprobs)
                        self._grow(WEIGHT * len(dumps(event.logprobs)))
                    self._note(part.notes, event.extra)
                case Annotated():
                    self._annotate(event)
                case ItemStarted():
                    self._grow(BOOKKEEPING)
                    item = FinishedItem(
                        item=event.item,
                        kind=event.kind,
                        choice=event.choice,
                        id=event.id,
                        name=event.name,
                        namespace=event.namespace,
                    )
                    items[event.item] = item
                    self._note(item.notes, event.extra)
                case PartStarted():
                    self._grow(BOOKKEEPING)
                    part = FinishedPart(kind=event.kind)
                    items[event.item].parts[event.part] = part
                    self._note(part.notes, event.extra)
                case PartEnded():
                    part = items[event.item].parts[event.part]
                    part.ended = True
                    self._note(part.notes, event.extra)
                case ItemEnded():
                    item = items[event.item]
                    item.status, item.sealed = event.status, event.sealed
                    self._grow(size_of(event.sealed or ""))
                    self._note(item.notes, event.extra)
                case _:
                    self._add_to_reply(event)

    def _add_to_reply(self, event: Started | Finished | UsageReported | Ended | Failed) -> None:
        reply = self.reply
        self._note(reply.notes, event.extra)
        match event:
            case Started():
                reply.id, reply.model, reply.created = event.id, event.model, event.created
            case Finished():
                reply.reasons[event.choice] = event.reason
            case UsageReported():
                reply.usage = merge_usage(reply.usage, event.usage)
            case Ended():
                reply.complete = True
            case Failed():
                reply.error = event.error
            case _:
                assert_never(event)

    def _annotate(self, event: Annotated) -> None:
        if event.item < 0:
            self._note(self.reply.notes, event.extra)
            return
        item = self.reply.items[event.item]
        if event.part < 0:
            self._note(item.notes, event.extra)
            return
        part = item.parts[event.part]
        if event.kind == "citation":
            part.citations.append(event.data)
            self._grow(WEIGHT * len(dumps(event.data)))
        self._note(part.notes, event.extra)

    def _note(self, notes: list[Extra], extra: Extra | None) -> None:
        if extra:
            notes.append(extra)
            self._grow(WEIGHT * len(dumps(extra)))

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._budget:
            raise ReplyTooLarge(f"the reply is over {self._budget} bytes")


def size_of(text: str) -> int:
    """The text's size in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
