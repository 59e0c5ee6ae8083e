"""The output items of a reply that is being read: what is open, what it says, what it is called.

The law of this file: whatever names a server uses for its items, every word ends up in the right
item once. Named rules, each because a real server needs it:

* *placing*: an event belongs to the item of its `item_id`; if that id is new, to the open item of
  its `output_index` (GitHub Copilot gives every event another id); without an index, to the item
  that opened last and fits (llama-server has no indexes).
* *repetition*: an item whose id has already been completed is read aside; if it says the same as
  the first one it is dropped (transformers closes a message twice), else it is an item of its own.
* *nameless calls*: a call that opens without its name is read aside until its `done` tells it.
* *empty messages* end when the reply ends: their text may stand in the final object only.
* *order*: the final object may list items in any order; an item that was never streamed is added,
  one that is missing there stays. The added one stands behind those that were streamed, wherever
  the final object has it: their numbers are out, and a whole reply is the same fold.
* *afterthoughts*: what the final object says beyond an item that has ended (citations, `phase`,
  the sources of a search) is an annotation of that item; its id is the one it was streamed by.
"""

from __future__ import annotations

from typing import Any

from ...errors import RemoteProtocolError
from ...events import Annotated, Event, ItemEnded, ItemKind, ItemStarted, PartDelta
from ..checks import JSON
from .items import (
    CALLS,
    ITEMS,
    KNOWN_ITEM,
    STATUSES,
    Held,
    Item,
    Part,
    beyond,
    complete,
    complete_part,
    end_part,
    fit,
    grow,
    is_item,
    news,
    note,
    parts_of,
    text_of,
)
from .request import NAME


class Board:
    """All items of one reply."""

    def __init__(self) -> None:
        self.reply_id = ""
        self.called = False
        self.held = Held()
        self.weight = 0
        """Bytes of memory of the frame at hand: what an item keeps of it weighs no more."""
        self._count = 0
        self._entered = 0
        self._items: dict[Item, None] = {}  # a set in order
        # Kind, and whether it has an id -> the items, ended ones on top not yet taken off.
        self._stacks: dict[tuple[ItemKind, bool], list[Item]] = {}
        self._ids: dict[str, Item] = {}
        self._indexes: dict[int, Item] = {}
        self._quoted: set[str] = set()  # the ids that events have carried

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
        found: Item | None = None
        for kind in kinds:
            for named in (False,) if own else (False, True):
                item = self._top(kind, named=named)
                if item is not None and (found is None or found.entered < item.entered):
                    found = item
        return found

    def _top(self, kind: ItemKind, *, named: bool) -> Item | None:
        """The item of its sort that opened last, and is still open."""
        stack = self._stacks.get((kind, named), [])
        while stack and stack[-1].ended:
            stack.pop()
        return stack[-1] if stack else None

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
            item = Item(-1, raw, self.held)
            item.first = old
            self._enter(item, index)
        elif raw["type"] in CALLS and not text_of(raw, "name"):
            self._enter(Item(-1, raw, self.held), index)
        else:
            self._open(raw, index, event, out)

    def _open(self, raw: JSON, index: Any, event: JSON, out: list[Event]) -> Item:
        own = text_of(raw, "id")
        if own in self._quoted:  # two items of one id would be one to a client
            raw = {**raw, "id": f"{own}_{self._count}"}
        item = Item(self._count, raw, self.held)
        self._count += 1
        self._enter(item, index)
        if own:
            self._ids[own] = item
            self._quoted.update((own, item.id))
        quoted, name, namespace = item.id, "", ""
        if item.kind == "tool_call":
            self.called = True
            quoted = text_of(raw, "call_id") or item.id or f"call_{self.reply_id}_{item.number}"
            name = text_of(raw, "name")
            namespace = text_of(raw, "namespace")
            if not name:
                raise RemoteProtocolError("a tool call of the upstream has no name")
        elif item.kind == "opaque":
            name = item.type
        item.said = beyond(raw, KNOWN_ITEM[item.kind])
        fields = {"item": item.said}
        if event:
            fields["event"] = event
        extra = {NAME: fields}
        out.append(ItemStarted(item.number, item.kind, 0, quoted, name, namespace, extra))
        if item.kind == "tool_call":  # its one part tells a function from a custom tool
            item.part(CALLS[item.type], 0, out)
        return item

    def _enter(self, item: Item, index: Any) -> None:
        item.entered = self._entered = self._entered + 1
        item.keep(self.weight)
        self._items[item] = None
        self._stacks.setdefault((item.kind, bool(item.id)), []).append(item)
        if item.id:
            self._ids[item.id] = item
        if isinstance(index, int):
            self._indexes[index] = item

    def part_of(self, delta: PartDelta) -> Part | None:
        """The part that has grown by this."""
        for item in self._items:
            if item.number == delta.item:
                return next((one for one in item.parts.values() if one.number == delta.part), None)
        return None

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
            item.keep(self.weight)
            return
        self._end(item, raw, event, out)

    def _end(self, item: Item, raw: JSON, event: JSON, out: list[Event]) -> None:
        for part in item.parts.values():
            end_part(item, part, out)
        fields = beyond(raw, KNOWN_ITEM[item.kind])
        if item.held is not None:  # its `done` came long ago
            said, told = item.held
            fields, event = {**beyond(said, KNOWN_ITEM[item.kind]), **fields}, {**told, **event}
        if item.id and fields.get("id") != item.id:  # it keeps the one that it opened with
            fields.pop("id", None)
        item.said = dict(fields) if item.kind == "opaque" else {**item.said, **fields}
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
        item.release()

    def _judge(self, item: Item, raw: JSON, event: JSON, out: list[Event]) -> None:
        """Decide about an item that was read aside."""
        self._settle(item, raw, [])
        self._close(item)
        del self._items[item]
        first = item.first
        if first is not None:
            self._ids[item.id] = first
            if item.texts == first.texts or not item.texts:
                return
        real = self._open(raw, None, event, out)
        if first is not None:
            self._ids[item.id] = first  # whom the final object means by it
        for (kind, index), part in item.parts.items():
            if part.grown:  # it need not stand in `raw`
                grow(real, real.part(kind, index, out), part.text, out)
        self._finish(real, raw, event, out)

    def _settle(self, item: Item, raw: JSON, out: list[Event]) -> None:
        """Supply what an item's parts miss."""
        if item.ended:
            self._add_afterthoughts(item, raw, out)
        if item.kind == "opaque":
            return
        if item.kind == "tool_call":
            kind = CALLS[item.type]
            if text_of(raw, kind) or not item.ended:
                complete(item, item.part(kind, 0, out), raw, kind, out)
            return
        for group in ("summary", "content"):
            for index, said in enumerate(parts_of(raw, group)):
                part_kind = fit(item, said)
                if part_kind is None:
                    item.foreign += 0 if item.ended or item.foreign else 1
                    continue
                key = "refusal" if part_kind == "refusal" else "text"
                if item.ended and not text_of(said, key) and (part_kind, index) not in item.parts:
                    continue
                part = item.part(part_kind, index, out)
                complete_part(item, part, said, out)

    def _add_afterthoughts(self, item: Item, raw: JSON, out: list[Event]) -> None:
        """Annotate an item that has ended with what was not said of it."""
        fields = beyond(raw, KNOWN_ITEM[item.kind])
        late = news(fields, item.said)
        late.pop("id", None)
        if late:
            item.said = {**item.said, **late}
            # Each note of an opaque item is the whole of it.
            extra = note(item=item.said if item.kind == "opaque" else late)
            out.append(Annotated(item.number, -1, "wire", {}, extra))

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
        for item in list(self._items):
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
            if item not in taken:
                free.setdefault(item.type, []).append(item)
        pairs: list[tuple[JSON, Item | None]] = []
        for raw, own in named:
            alike = free.get(raw["type"])
            pairs.append((raw, alike.pop() if own is None and alike else own))
        return pairs
