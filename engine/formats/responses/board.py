"""The output items of a reply that is being read: what is open, what it says, what it is called.

The law of this file: whatever names a server uses for its items, every word ends up in the right
item once. Named rules, each because a real server needs it:

* *placing*: an event belongs to the item of its `item_id`; if that id is new, to the open item of
  its `output_index` (GitHub Copilot gives every event another id); without an index, to the item
  that opened last and fits (llama-server has no indexes).
* *the whole text*: where a `done` or the final object repeats a text, a missing tail is supplied;
  an empty or absent text says nothing; another text is the upstream's protocol error. Arguments
  that are the same JSON, and texts that differ in white space at their edges, are the same: what
  was streamed counts.
* *repetition*: an item whose id has already been completed is read aside; if it says the same as
  the first one it is dropped (transformers closes a message twice), else it is an item of its own.
* *nameless calls*: a call that opens without its name is read aside until its `done` tells it.
* *empty messages* end when the reply ends: their text may stand in the final object only.
* *order*: the final object may list items in any order; an item that was never streamed is added,
  one that is missing there stays.
"""

from __future__ import annotations

from typing import Any

from ...errors import RemoteProtocolError
from ...events import (
    Annotated,
    Event,
    Extra,
    ItemEnded,
    ItemKind,
    ItemStarted,
    ItemStatus,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
)
from ...jsontext import dumps, loads
from ..checks import JSON
from .request import NAME


ITEMS: dict[str, ItemKind] = {
    "message": "message",
    "reasoning": "reasoning",
    "function_call": "tool_call",
    "custom_tool_call": "tool_call",
}
"""Type of an output item -> its kind; every other type is opaque."""

CALLS: dict[str, PartKind] = {"function_call": "arguments", "custom_tool_call": "input"}
"""Type of a call -> the kind of its one part, which is the name of the field with its text too."""

PARTS: dict[str, PartKind] = {
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "reasoning_text": "thought",
    "summary_text": "summary",
}
"""Type of a content part -> its kind."""

KNOWN_ITEM: dict[ItemKind, frozenset[str]] = {
    "message": frozenset({"type", "id", "role", "status", "content"}),
    "reasoning": frozenset({"type", "id", "status", "summary", "content"}),
    "tool_call": frozenset({"type", "status", "call_id", "name", "arguments", "input"}),
    "opaque": frozenset(),
}
"""The fields of an item that the normal form has; an opaque item is kept whole."""

KNOWN_PART = frozenset({"type", "text", "refusal", "annotations", "logprobs"})
STATUSES: dict[Any, ItemStatus] = {"incomplete": "incomplete", "failed": "failed"}


def beyond(value: JSON, known: frozenset[str]) -> JSON:
    """What an object says that the normal form has not. Null says nothing."""
    if value.keys() <= known:
        return {}
    return {key: value[key] for key in value if key not in known and value[key] is not None}


def note(**members: JSON) -> Extra | None:
    """The extra of an event; None if there is nothing to say."""
    said = {name: value for name, value in members.items() if value}
    return {NAME: said} if said else None


class Part:
    """A part that is being read."""

    __slots__ = ("beyond", "citations", "ended", "kind", "logprobs", "number", "pieces")

    def __init__(self, number: int, kind: PartKind) -> None:
        self.number = number
        self.kind: PartKind = kind
        self.pieces: list[str] = []
        self.citations = 0
        self.logprobs = False
        self.ended = False
        self.beyond: JSON = {}  # of its `done` events

    @property
    def grown(self) -> bool:
        """Whether there is any text."""
        return any(self.pieces)

    @property
    def text(self) -> str:
        """All the text so far."""
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


class Item:
    """An item that is being read. One that is read aside has the number -1."""

    __slots__ = (
        "ended",
        "first",
        "foreign",
        "held",
        "id",
        "kind",
        "number",
        "parts",
        "raw",
        "type",
    )

    def __init__(self, number: int, raw: JSON) -> None:
        self.number = number
        self.type: str = raw["type"]
        self.kind: ItemKind = ITEMS.get(self.type, "opaque")
        self.id = text_of(raw, "id")
        self.raw = raw
        self.parts: dict[tuple[PartKind, int], Part] = {}
        self.foreign = 0  # parts that the normal form has not; they take an index each
        self.ended = False
        self.held: tuple[JSON, JSON] | None = None
        self.first: Item | None = None  # what this one may be a repetition of

    def part(
        self, kind: PartKind, index: Any, out: list[Event], extra: Extra | None = None
    ) -> Part:
        """The part of this kind at a wire index (None: the latest one), opened if it is new."""
        if not isinstance(index, int):
            known = [place for place in self.parts if place[0] == kind]
            index = known[-1][1] if known else self.next_index(kind)
        part = self.parts.get((kind, index))
        if part is None:
            if self.ended:
                raise RemoteProtocolError(f"item {self.number} of the upstream grew after its end")
            part = self.parts[kind, index] = Part(len(self.parts), kind)
            out.append(PartStarted(self.number, part.number, kind, extra))
        return part

    def next_index(self, kind: PartKind) -> int:
        """The wire index of a further part: summaries are counted apart."""
        same = [one for one, _ in self.parts if (one == "summary") == (kind == "summary")]
        return len(same) + (0 if kind == "summary" else self.foreign)

    @property
    def grown(self) -> bool:
        """Whether there is any text."""
        return any(part.grown for part in self.parts.values())

    @property
    def texts(self) -> list[tuple[PartKind, str]]:
        """What the item says."""
        return [(part.kind, part.text) for part in self.parts.values() if part.grown]


def text_of(value: JSON, key: str) -> str:
    """A text member; absent or null is empty. Arguments as an object are written as JSON."""
    match value.get(key):
        case None:
            return ""
        case str(text):
            return text
        case dict() as arguments if key == "arguments":
            return dumps(arguments).decode()
        case _:
            raise RemoteProtocolError(f"the upstream's {key} is no string")


def grow(
    item: Item,
    part: Part,
    text: str,
    out: list[Event],
    *,
    logprobs: Any = None,
    extra: Extra | None = None,
) -> None:
    """Add text to a part."""
    if part.ended:
        raise RemoteProtocolError(
            f"a part of item {item.number} of the upstream grew after its end"
        )
    entries = logprobs if isinstance(logprobs, list) and logprobs else None
    if entries is not None:
        part.logprobs = True
    elif not text and extra is None:
        return
    part.pieces.append(text)
    out.append(PartDelta(item.number, part.number, text, entries, extra))


def complete(item: Item, part: Part, said: JSON, key: str, out: list[Event]) -> None:
    """Compare a part with its whole text as the upstream repeats it; see *the whole text*."""
    whole, tail = text_of(said, key), ""
    have = part.text if whole else ""  # joining costs; an empty `done` must not
    if whole != have and not _same(part.kind, have, whole):
        if not whole.startswith(have):
            raise RemoteProtocolError("the upstream's whole text is not what it streamed")
        tail = whole[len(have) :]
    late = None if part.logprobs or part.ended else said.get("logprobs")
    if tail or late:
        grow(item, part, tail, out, logprobs=late)


def _same(kind: PartKind, streamed: str, whole: str) -> bool:
    if not streamed:
        return False
    if kind == "arguments":
        try:
            return bool(loads(streamed.encode()) == loads(whole.encode()))
        except ValueError:
            return False
    return streamed.strip() == whole.strip()


def annotate(item: Item, part: Part, data: Any, out: list[Event], extra: Extra | None) -> None:
    """Attach a citation to a part."""
    if part.ended or not isinstance(data, dict):
        raise RemoteProtocolError(
            f"an annotation of item {item.number} of the upstream is misplaced"
        )
    part.citations += 1
    out.append(Annotated(item.number, part.number, "citation", data, extra))


class Board:
    """All items of one reply."""

    def __init__(self) -> None:
        self.reply_id = ""
        self.called = False
        self._count = 0
        self._items: list[Item] = []
        self._open_items: dict[Item, None] = {}  # a set in order
        self._ids: dict[str, Item] = {}
        self._indexes: dict[int, Item] = {}

    # Finding.

    def find(self, event: JSON, *kinds: ItemKind) -> Item | None:
        """The item of one of these kinds that an event is about; see *placing*.

        An opaque item that the event names itself is returned as well.
        """
        own, index = event.get("item_id"), event.get("output_index")
        if isinstance(own, str) and own in self._ids:
            return self._fit(self._ids[own], kinds)
        if isinstance(index, int):
            item = self._indexes.get(index)
            return item if item and not item.ended and item.kind in kinds else None
        for item in reversed(self._open_items):
            if item.kind in kinds and not (own and item.id):
                return item
        return None

    def _fit(self, item: Item, kinds: tuple[ItemKind, ...]) -> Item:
        if item.kind not in kinds and item.kind != "opaque":
            raise RemoteProtocolError(f"an event of the upstream does not fit its {item.type}")
        return item

    def at(self, event: JSON, kind: ItemKind, out: list[Event]) -> Item:
        """The item that an event is about, opened if the upstream forgot to."""
        item = self.find(event, kind)
        if item is None:
            if kind == "tool_call":
                raise RemoteProtocolError("the upstream fills a tool call that it never opened")
            own = event.get("item_id")
            raw = {"type": kind, "id": own if isinstance(own, str) else None}
            item = self._open(raw, event.get("output_index"), {}, out)
        return item

    # Opening.

    def add(self, raw: JSON, index: Any, event: JSON, out: list[Event]) -> None:
        """An item is announced."""
        own = text_of(raw, "id")
        old = self._ids.get(own) if own else None
        if old is not None and not old.ended:  # announced twice
            return
        if old is not None and old.kind != "opaque":
            item = Item(-1, raw)
            item.first = old
            self._enter(item, index)
        elif raw["type"] in CALLS and not text_of(raw, "name"):
            self._enter(Item(-1, raw), index)
        else:
            self._open(raw, index, event, out)

    def _open(self, raw: JSON, index: Any, event: JSON, out: list[Event]) -> Item:
        item = Item(self._count, raw)
        self._count += 1
        self._enter(item, index)
        quoted, name = item.id, ""
        if item.kind == "tool_call":
            self.called = True
            quoted = text_of(raw, "call_id") or item.id or f"call_{self.reply_id}_{item.number}"
            name = text_of(raw, "name")
            if not name:
                raise RemoteProtocolError("a tool call of the upstream has no name")
        elif item.kind == "opaque":
            name = item.type
        fields = {"item": beyond(raw, KNOWN_ITEM[item.kind])}
        if event:
            fields["event"] = event
        out.append(ItemStarted(item.number, item.kind, 0, quoted, name, {NAME: fields}))
        if item.kind == "tool_call":  # its one part tells a function from a custom tool
            item.part(CALLS[item.type], 0, out)
        return item

    def _enter(self, item: Item, index: Any) -> None:
        self._items.append(item)
        self._open_items[item] = None
        if item.id:
            self._ids[item.id] = item
        if isinstance(index, int):
            self._indexes[index] = item

    # Ending.

    def done(self, raw: JSON, index: Any, event: JSON, out: list[Event]) -> None:
        """An item is complete."""
        kind = ITEMS.get(raw["type"], "opaque")
        item = self.find({"item_id": raw.get("id"), "output_index": index}, kind)
        if item is None:
            self._whole(raw, index, event, out)
        elif item.ended:
            self._settle(item, raw, out)
        else:
            self._finish(item, raw, event, out)

    def _whole(self, raw: JSON, index: Any, event: JSON, out: list[Event]) -> None:
        self._finish(self._open(raw, index, event, out), raw, event, out)

    def _finish(self, item: Item, raw: JSON, event: JSON, out: list[Event]) -> None:
        if item.number < 0:
            self._judge(item, raw, event, out)
            return
        self._settle(item, raw, out)
        if not item.grown:  # then what it said when it opened
            self._settle(item, item.raw, out)
        if item.kind == "message" and not item.grown and not item.foreign and item.held is None:
            item.held = (raw, event)
            return
        self._end(item, raw, event, out)

    def _end(self, item: Item, raw: JSON, event: JSON, out: list[Event]) -> None:
        for part in item.parts.values():
            end_part(item, part, {}, out)
        fields = beyond(raw, KNOWN_ITEM[item.kind])
        sealed = None
        if item.kind == "reasoning":
            sealed = text_of(raw, "encrypted_content") or None
            if sealed:
                del fields["encrypted_content"]
        if item.foreign:
            fields["content"] = raw.get("content")
        status = STATUSES.get(raw.get("status") if isinstance(raw.get("status"), str) else None)
        extra = note(item=fields, event=event)
        out.append(ItemEnded(item.number, status or "completed", sealed, extra))
        self._close(item)

    def _close(self, item: Item) -> None:
        item.ended = True
        del self._open_items[item]

    def _judge(self, item: Item, raw: JSON, event: JSON, out: list[Event]) -> None:
        """Decide about an item that was read aside."""
        self._settle(item, raw, [])
        self._close(item)
        first = item.first
        if first is not None:
            self._ids[item.id] = first
            if item.texts == first.texts or not item.texts:
                return
            raw = {**raw, "id": f"{item.id}_{self._count}"}
        self._whole(raw, None, event, out)

    def _settle(self, item: Item, raw: JSON, out: list[Event]) -> None:
        """Supply what an item's parts miss."""
        if item.kind == "opaque":
            return
        if item.kind == "tool_call":
            kind = CALLS[item.type]
            if text_of(raw, kind) or not item.ended:
                complete(item, item.part(kind, 0, out), raw, kind, out)
            return
        for group in ("summary", "content"):
            for index, said in enumerate(_parts_of(raw, group)):
                part_kind = fit(item, said)
                if part_kind is None:
                    item.foreign += 0 if item.ended or item.foreign else 1
                    continue
                key = "refusal" if part_kind == "refusal" else "text"
                if item.ended and not text_of(said, key):
                    continue
                part = item.part(part_kind, index, out)
                complete_part(item, part, said, out)

    def conclude(self, output: Any, out: list[Event]) -> None:
        """The reply ended well: compare the items with the final object, and end them.

        What the final object does not have stays open if its end was never told: the grammar ends
        it, by the reason of the reply.
        """
        finals = [raw for raw in output if is_item(raw)] if isinstance(output, list) else []
        for raw, item in self._pair(finals):
            if item is None:
                self._whole(raw, None, {}, out)
            elif item.ended:
                self._settle(item, raw, out)
            else:
                self._finish(item, raw, {}, out)
        for item in self._items:
            if item.ended:
                continue
            if item.held is not None:
                self._end(item, *item.held, out)
            elif item.number < 0:
                self._judge(item, item.raw, {}, out)
            else:
                self._settle(item, item.raw, out)

    def _pair(self, finals: list[JSON]) -> list[tuple[JSON, Item | None]]:
        """Find the streamed item of each final one: by its id, else by its type and order."""
        named = [(raw, self._ids.get(text_of(raw, "id"))) for raw in finals]
        taken = {item for _, item in named}
        free: dict[str, list[Item]] = {}
        for item in reversed(self._items):
            repeated = item.first is not None and item.ended
            if item not in taken and not repeated:
                free.setdefault(item.type, []).append(item)
        pairs: list[tuple[JSON, Item | None]] = []
        for raw, own in named:
            alike = free.get(raw["type"])
            pairs.append((raw, alike.pop() if own is None and alike else own))
        return pairs


def is_item(raw: Any) -> bool:
    """Whether a value can be an output item."""
    return isinstance(raw, dict) and isinstance(raw.get("type"), str)


def _parts_of(raw: JSON, group: str) -> list[JSON]:
    match raw.get(group):
        case None:
            return []
        case str(text):  # some servers spare the list
            return [{"type": "summary_text" if group == "summary" else "output_text", "text": text}]
        case list(parts) if all(is_item(part) for part in parts):
            return parts
        case _:
            raise RemoteProtocolError(f"the upstream's {group} is no list of parts")


def fit(item: Item, part: JSON) -> PartKind | None:
    """The kind of a content part inside this item; None = one that the normal form has not."""
    kind = PARTS.get(part["type"])
    if item.kind == "reasoning" and kind == "text":  # older vLLM
        return "thought"
    return kind


def complete_part(item: Item, part: Part, said: JSON, out: list[Event]) -> None:
    """Supply what a part misses, by the whole part as the upstream repeats it."""
    complete(item, part, said, "refusal" if part.kind == "refusal" else "text", out)
    citations = said.get("annotations")
    if isinstance(citations, list) and not part.ended:
        for data in citations[part.citations :]:
            annotate(item, part, data, out, None)
    if not part.ended:
        part.beyond = {**part.beyond, "part": beyond(said, KNOWN_PART)}


def end_part(item: Item, part: Part, event: JSON, out: list[Event]) -> None:
    """A part is complete. `event` is what its `done` said beyond what we know."""
    if not part.ended:
        part.ended = True
        fields = {"event": {**part.beyond.get("event", {}), **event}}
        extra = note(part=part.beyond.get("part", {}), **fields)
        out.append(PartEnded(item.number, part.number, extra))
